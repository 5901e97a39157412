#include "base/shared_library.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "edgerecall/error.h"

namespace edgerecall {

bool is_folder(const std::string& path) {
  struct stat found{};
  return stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
}

namespace {

/// The first file, by name, in a folder whose name begins with `stem`; the folder's own name with `stem` when none.
std::string file_in(const std::string& folder, const std::string& stem) {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(folder.c_str()), closedir);
  std::string best;
  while (const dirent* entry = listing ? readdir(listing.get()) : nullptr) {
    const std::string name = entry->d_name;
    if (name.compare(0, stem.size(), stem) == 0 && (best.empty() || name < best)) best = name;
  }
  return folder + "/" + (best.empty() ? stem : best);
}

}  // namespace

SharedLibrary::SharedLibrary(std::string path, const std::string& remedy)
    : path_(std::move(path)), handle_(dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ == nullptr) throw Unavailable(std::string("cannot load ") + dlerror() + "; " + remedy);
}

void* SharedLibrary::address(const std::string& name) const { return dlsym(handle_, name.c_str()); }

void SharedLibrary::missing(const char* name) const {
  throw Unavailable(path_ + " has no " + name + ": it is another library, or too old a version of it");
}

std::string library_path(const std::string& given, const char* variable, const std::string& stem) {
  const char* named = std::getenv(variable);
  const std::string place = !given.empty() ? given : named != nullptr ? named : "";
  if (place.empty()) return stem;
  return is_folder(place) ? file_in(place, stem) : place;
}

}  // namespace edgerecall

// A library opened at run time, and kept: the threads of a runtime may outlive its use.
#pragma once
#include <initializer_list>
#include <string>

namespace edgerecall {

class SharedLibrary {
 public:
  /// Throws Unavailable with the loader's reason and `remedy`.
  SharedLibrary(std::string path, const std::string& remedy);

  const std::string& path() const { return path_; }

  /// A function by its name; null when there is none.
  template <typename Function>
  Function find(const std::string& name) const {
    return reinterpret_cast<Function>(address(name));
  }

  /// A function by its name. Throws Unavailable when there is none.
  template <typename Function>
  void get(Function& function, const char* name) const {
    function = find<Function>(name);
    if (function == nullptr) missing(name);
  }

 private:
  void* address(const std::string& name) const;
  [[noreturn]] void missing(const char* name) const;

  std::string path_;
  void* handle_;
};

bool is_folder(const std::string& path);

/// What to open: `given` (a file, or a folder that holds one whose name begins with `stem`), else the file or folder
/// that the environment's `variable` names, else `stem` itself, for the system's search.
std::string library_path(const std::string& given, const char* variable, const std::string& stem);

}  // namespace edgerecall

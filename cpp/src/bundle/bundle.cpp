#include "edgerecall/bundle.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>

#include "edgerecall/error.h"
#include "edgerecall/npy.h"
#include "edgerecall/sha256.h"
#include "base/files.h"
#include "edgerecall_contract.h"

namespace edgerecall {
namespace {

const std::string kPlain = "fp32";

[[noreturn]] void fail_changed(const std::string& path) {
  throw InputError(path + ": changed since export (its sha256 differs); copy or export the bundle again");
}

/// Whether a file is there; InputError when it has another size than the manifest says.
bool is_there(const std::string& root, const BundleFile& file) {
  const std::string path = root + "/" + file.path;
  struct stat found{};
  if (stat(path.c_str(), &found) != 0) return false;
  if (static_cast<std::uint64_t>(found.st_size) != file.bytes) fail_changed(path);
  return true;
}

/// Throws InputError when a file's content is not what the manifest says. What was found good is not hashed again.
void check_content(const std::string& root, const BundleFile& file, Hashed& hashed) {
  {
    const std::lock_guard<std::mutex> lock(hashed.mutex);
    if (hashed.paths.count(file.path) != 0) return;
  }
  const std::string path = root + "/" + file.path;
  std::uint64_t size = 0;
  if (sha256_of(path, size) != file.sha256 || size != file.bytes) fail_changed(path);
  const std::lock_guard<std::mutex> lock(hashed.mutex);
  hashed.paths.insert(file.path);
}

}  // namespace

bool Artifact::runs_here() const {
  const std::string here = Bundle::machine();
  return std::any_of(targets.begin(), targets.end(),
                     [&](const std::string& target) { return target == here || target == "any"; });
}

std::uint64_t Artifact::bytes() const {
  std::uint64_t sum = 0;
  for (const BundleFile& file : files) sum += file.bytes;
  return sum;
}

std::string Bundle::machine() {
  utsname name{};
  uname(&name);
  const std::string machine = name.machine;
  // A 32-bit program on a 64-bit kernel takes the 32-bit artifacts.
  if (sizeof(void*) == 4 && (machine == "aarch64" || machine.compare(0, 3, "arm") == 0)) return "armv7l";
  return machine == "arm64" ? "aarch64" : machine;
}

Bundle::Bundle(const std::string& root) : root_(root) {
  const std::string where = root + "/" + Manifest::kName;
  struct stat found{};
  if (stat(where.c_str(), &found) != 0) throw InputError(root + ": expected a bundle, found no bundle.json in it");
  if (found.st_size > contract::kManifestBytes)
    throw InputError(where + ": larger than " + std::to_string(contract::kManifestBytes) + " bytes");
  const std::vector<std::uint8_t> bytes = read_file(where);
  manifest_ = Manifest::parse({bytes.begin(), bytes.end()}, where);
  for (const BundleFile& file : manifest_.golden)
    if (!is_there(root, file)) throw InputError(root + "/" + file.path + ": missing from the bundle");
  auto& artifacts = manifest_.artifacts;
  const auto is_partial = [&](const Artifact& artifact) {
    bool whole = true;
    for (const BundleFile& file : artifact.files) whole = is_there(root, file) && whole;
    return !whole;
  };
  artifacts.erase(std::remove_if(artifacts.begin(), artifacts.end(), is_partial), artifacts.end());
}

std::vector<std::string> Bundle::quantisations(const std::string& runtime) const {
  std::vector<std::string> names;
  for (const Artifact& artifact : manifest_.artifacts)
    if (artifact.runtime == runtime && artifact.runs_here() &&
        std::find(names.begin(), names.end(), artifact.quantisation) == names.end())
      names.push_back(artifact.quantisation);
  return names;
}

const Artifact& Bundle::artifact(const std::string& runtime, const std::string& quantisation) const {
  std::string others;
  const Artifact* first = nullptr;
  for (const Artifact& artifact : manifest_.artifacts) {
    if (artifact.runtime == runtime && artifact.runs_here()) {
      const std::string& wanted = quantisation.empty() ? kPlain : quantisation;
      if (artifact.quantisation == wanted) return artifact;
      if (first == nullptr) first = &artifact;
    }
    others += (others.empty() ? "" : ", ") + artifact.name + " (" + artifact.quantisation + ")";
  }
  if (first != nullptr && quantisation.empty()) return *first;
  throw InputError(root_ + ": no " + (quantisation.empty() ? "" : quantisation + " ") + "artifact for runtime '" +
                   runtime + "' on " + machine() + "; it has " + (others.empty() ? "none" : others));
}

void Bundle::check() const {
  for (const Artifact& artifact : manifest_.artifacts)
    for (const BundleFile& file : artifact.files) check_content(root_, file, *hashed_);
  for (const BundleFile& file : manifest_.golden) check_content(root_, file, *hashed_);
}

Files Bundle::files(const Artifact& artifact) const {
  Files files;
  for (const BundleFile& file : artifact.files) {
    check_content(root_, file, *hashed_);
    files[file.role] = root_ + "/" + file.path;
  }
  return files;
}

Golden Bundle::golden() const {
  if (!manifest_.has_vectors())
    throw InputError(root_ + ": its golden vectors are of bundle format 1, an archive: run 'edgerecall upgrade " +
                     root_ + "' where Python is");
  Golden golden;
  for (const BundleFile& file : manifest_.golden) check_content(root_, file, *hashed_);
  for (const std::string& image : manifest_.golden_images) golden.images.push_back(root_ + "/" + image);
  const std::size_t count = golden.images.size();
  const auto take = [&](const char* name, const std::vector<std::size_t>& shape) {
    Npy array = read_npy(root_ + "/" + name);
    if (array.shape != shape) throw InputError(root_ + "/" + name + ": is of another shape");
    return std::move(array.values);
  };
  const auto side = [&](std::size_t axis) { return static_cast<std::size_t>(manifest_.io.input_shape[axis]); };
  golden.tensors = take(Manifest::kTensors, {count, side(0), side(1), side(2)});
  golden.embeddings = take(Manifest::kEmbeddings, {count, manifest_.io.embedding_dim});
  return golden;
}

void l2_normalize(float* rows, std::size_t count, std::size_t dim) {
  constexpr float kLeast = 1e-12f;
  for (std::size_t row = 0; row < count; ++row, rows += dim) {
    double sum = 0;
    for (std::size_t i = 0; i < dim; ++i) sum += static_cast<double>(rows[i]) * static_cast<double>(rows[i]);
    const float norm = std::max(static_cast<float>(std::sqrt(sum)), kLeast);
    for (std::size_t i = 0; i < dim; ++i) rows[i] /= norm;
  }
}

}  // namespace edgerecall

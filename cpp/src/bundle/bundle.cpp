#include "edgerecall/bundle.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>

#include "edgerecall/npy.h"
#include "edgerecall/sha256.h"
#include "base/files.h"
#include "base/json_fields.h"
#include "edgerecall_contract.h"

namespace edgerecall {
namespace {

// Has no quantisation, and its vectors in an archive.
constexpr int kOldFormat = contract::kOldestBundleFormat;
constexpr char kManifest[] = "bundle.json", kTensors[] = "golden/tensors.npy", kEmbeddings[] = "golden/embeddings.npy";
const std::string kPlain = "fp32";
constexpr std::uint64_t kMaxDim = 65536, kMaxBytes = std::uint64_t{1} << 40;

/// A path that stays inside the bundle: `[A-Za-z0-9_][A-Za-z0-9_.-]*`, several with slashes between.
bool is_inside(const std::string& path) {
  bool begins = true;
  for (const char letter : path) {
    const bool plain = (letter >= 'A' && letter <= 'Z') || (letter >= 'a' && letter <= 'z') ||
                       (letter >= '0' && letter <= '9') || letter == '_';
    if (letter == '/' && begins) return false;
    if (letter != '/' && !plain && (begins || (letter != '.' && letter != '-'))) return false;
    begins = letter == '/';
  }
  return !path.empty() && !begins;
}

BundleFile file_entry(const std::string& where, const Json& json) {
  const Fields fields(where + ", a file", json, EDGERECALL_FILE_KEYS);
  BundleFile file{fields.text("role"), fields.text("path"), fields.text("sha256"), 0};
  if (!fields.at("bytes").is_number_unsigned() || fields.at("bytes").get<std::uint64_t>() > kMaxBytes)
    fields.fail("bytes: expected a size");
  file.bytes = fields.at("bytes").get<std::uint64_t>();
  if (!is_inside(file.path)) fields.fail("path: expected one inside the bundle, got " + in_quotes(file.path));
  return file;
}

Artifact artifact_entry(const std::string& where, const Json& json) {
  const Fields fields(where + ", an artifact", json, EDGERECALL_ARTIFACT_KEYS);
  Artifact artifact{fields.text("name"),
                    fields.text("runtime"),
                    fields.has("quantisation") ? fields.text("quantisation", {"fp32", "fp16", "int8"}) : kPlain,
                    {},
                    {}};
  for (const Json& target : fields.list("targets")) {
    if (!target.is_string()) fields.fail("targets: expected strings");
    artifact.targets.push_back(target.get<std::string>());
  }
  for (const Json& file : fields.list("files")) artifact.files.push_back(file_entry(where, file));
  return artifact;
}

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

/// Format 1 called the quantisation of an artifact its precision.
Json upgraded(Json artifact) {
  if (artifact.is_object() && artifact.contains("precision")) {
    artifact["quantisation"] = artifact["precision"];
    artifact.erase("precision");
  }
  return artifact;
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
  const std::string where = root + "/" + kManifest;
  struct stat found{};
  if (stat(where.c_str(), &found) != 0) throw InputError(root + ": expected a bundle, found no bundle.json in it");
  const std::vector<std::uint8_t> bytes = read_file(where);
  const Json json = parse_json({bytes.begin(), bytes.end()});
  if (json.is_discarded()) throw InputError(where + ": not readable as JSON; copy or export the bundle again");
  const Json version = json.is_object() ? json.value("format_version", Json()) : Json();
  if (version != contract::kBundleFormat && version != kOldFormat)
    throw InputError(where + ": this program reads bundle formats " + std::to_string(kOldFormat) + " and " +
                     std::to_string(contract::kBundleFormat) + ": update it or export the bundle again");
  has_vectors_ = version == contract::kBundleFormat;
  const Fields manifest(where, json, EDGERECALL_MANIFEST_KEYS);
  const Fields spec(where + ", spec", manifest.at("spec"), EDGERECALL_SPEC_KEYS);
  io_.input_name = spec.text("input_name");
  io_.embedding_dim = static_cast<std::size_t>(spec.whole(spec.at("embedding_dim"), "embedding_dim", kMaxDim));
  if (spec.has("normalize_embedding")) normalize_embedding_ = spec.flag("normalize_embedding");
  preprocess_ = std::make_shared<const Preprocess>(to_text(spec.at("preprocess")));
  const Json& shape = spec.list("input_shape");
  const ImageSize size = preprocess_->output();
  if (shape != Json({3, size.height, size.width})) spec.fail("input_shape: expected what the preprocessing gives");
  io_.input_shape = {3, size.height, size.width};

  for (const Json& entry : manifest.list("golden")) {
    golden_files_.push_back(file_entry(where, entry));
    const BundleFile& file = golden_files_.back();
    if (!is_there(root, file)) throw InputError(root + "/" + file.path + ": missing from the bundle");
  }
  const auto is_golden = [&](const std::string& path) {
    return std::any_of(golden_files_.begin(), golden_files_.end(),
                       [&](const BundleFile& file) { return file.path == path; });
  };
  for (const Json& image : manifest.list("golden_images")) {
    if (!image.is_string() || !is_golden(image.get<std::string>()))
      manifest.fail("golden_images: expected files that stand under golden");
    golden_images_.push_back(image.get<std::string>());
  }
  const bool vectors = !has_vectors_ || (is_golden(kTensors) && is_golden(kEmbeddings));
  if (golden_images_.empty() || !vectors) manifest.fail("golden: expected images and their vectors");
  for (const Json& entry : manifest.list("artifacts")) {
    Artifact artifact = artifact_entry(where, has_vectors_ ? entry : upgraded(entry));
    bool whole = true;
    for (const BundleFile& file : artifact.files) whole = is_there(root, file) && whole;
    if (whole) artifacts_.push_back(std::move(artifact));
  }
}

std::vector<std::string> Bundle::quantisations(const std::string& runtime) const {
  std::vector<std::string> names;
  for (const Artifact& artifact : artifacts_)
    if (artifact.runtime == runtime && artifact.runs_here() &&
        std::find(names.begin(), names.end(), artifact.quantisation) == names.end())
      names.push_back(artifact.quantisation);
  return names;
}

const Artifact& Bundle::artifact(const std::string& runtime, const std::string& quantisation) const {
  std::string others;
  const Artifact* first = nullptr;
  for (const Artifact& artifact : artifacts_) {
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
  for (const Artifact& artifact : artifacts_)
    for (const BundleFile& file : artifact.files) check_content(root_, file, *hashed_);
  for (const BundleFile& file : golden_files_) check_content(root_, file, *hashed_);
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
  if (!has_vectors_)
    throw InputError(root_ + ": its golden vectors are of bundle format 1, an archive: run 'edgerecall upgrade " +
                     root_ + "' where Python is");
  Golden golden;
  for (const BundleFile& file : golden_files_) check_content(root_, file, *hashed_);
  for (const std::string& image : golden_images_) golden.images.push_back(root_ + "/" + image);
  const std::size_t count = golden.images.size();
  const auto take = [&](const char* name, const std::vector<std::size_t>& shape) {
    Npy array = read_npy(root_ + "/" + name);
    if (array.shape != shape) throw InputError(root_ + "/" + name + ": is of another shape");
    return std::move(array.values);
  };
  const auto side = [&](std::size_t axis) { return static_cast<std::size_t>(io_.input_shape[axis]); };
  golden.tensors = take(kTensors, {count, side(0), side(1), side(2)});
  golden.embeddings = take(kEmbeddings, {count, io_.embedding_dim});
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

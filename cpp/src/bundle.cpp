#include "edgerecall/bundle.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>

#include "edgerecall/decode.h"
#include "edgerecall/npy.h"
#include "edgerecall/sha256.h"
#include "json_fields.h"

namespace edgerecall {
namespace {

constexpr int kFormat = 1;
constexpr char kManifest[] = "bundle.json", kVectors[] = "golden/golden.npz";
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
  const Fields fields(where + ", a file", json, {"role", "path", "bytes", "sha256"});
  BundleFile file{fields.text("role"), fields.text("path"), fields.text("sha256"), 0};
  if (!fields.at("bytes").is_number_unsigned() || fields.at("bytes").get<std::uint64_t>() > kMaxBytes)
    fields.fail("bytes: expected a size");
  file.bytes = fields.at("bytes").get<std::uint64_t>();
  if (!is_inside(file.path)) fields.fail("path: expected one inside the bundle, got " + in_quotes(file.path));
  return file;
}

Artifact artifact_entry(const std::string& where, const Json& json) {
  const Fields fields(where + ", an artifact", json,
                      {"name", "runtime", "targets", "precision", "files", "check", "unchecked"});
  Artifact artifact{fields.text("name"), fields.text("runtime"), fields.text("precision"), {}, {}};
  for (const Json& target : fields.list("targets")) {
    if (!target.is_string()) fields.fail("targets: expected strings");
    artifact.targets.push_back(target.get<std::string>());
  }
  for (const Json& file : fields.list("files")) artifact.files.push_back(file_entry(where, file));
  return artifact;
}

/// Whether a file is there; InputError when it is not what the manifest says.
bool check_file(const std::string& root, const BundleFile& file) {
  const std::string path = root + "/" + file.path;
  struct stat found{};
  if (stat(path.c_str(), &found) != 0) return false;
  std::uint64_t size = 0;
  const std::string sum = sha256_of(path, size);
  if (size != file.bytes || sum != file.sha256)
    throw InputError(path + ": changed since export (its sha256 differs); copy or export the bundle again");
  return true;
}

}  // namespace

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
  const bool known = json.is_object() && json.contains("format_version") && json["format_version"] == kFormat;
  if (!known)
    throw InputError(where + ": this program reads bundle format " + std::to_string(kFormat) +
                     ": update it or export the bundle again");
  const Fields manifest(
      where, json,
      {"format_version", "spec", "source", "tools", "command", "artifacts", "skipped", "golden", "golden_images"});
  const Fields spec(where + ", spec", manifest.at("spec"),
                    {"input_name", "input_shape", "embedding_dim", "normalize_embedding", "preprocess"});
  io_.input_name = spec.text("input_name");
  io_.embedding_dim = static_cast<std::size_t>(spec.whole(spec.at("embedding_dim"), "embedding_dim", kMaxDim));
  normalize_embedding_ = spec.flag("normalize_embedding");
  preprocess_ = std::make_shared<const Preprocess>(to_text(spec.at("preprocess")));
  const Json& shape = spec.list("input_shape");
  const ImageSize size = preprocess_->output();
  if (shape != Json({3, size.height, size.width})) spec.fail("input_shape: expected what the preprocessing gives");
  io_.input_shape = {3, size.height, size.width};

  std::vector<std::string> golden;
  for (const Json& entry : manifest.list("golden")) {
    const BundleFile file = file_entry(where, entry);
    if (!check_file(root, file)) throw InputError(root + "/" + file.path + ": missing from the bundle");
    golden.push_back(file.path);
  }
  const auto is_golden = [&](const std::string& path) {
    return std::find(golden.begin(), golden.end(), path) != golden.end();
  };
  for (const Json& image : manifest.list("golden_images")) {
    if (!image.is_string() || !is_golden(image.get<std::string>()))
      manifest.fail("golden_images: expected files that stand under golden");
    golden_images_.push_back(image.get<std::string>());
  }
  if (golden_images_.empty() || !is_golden(kVectors)) manifest.fail("golden: expected images and their vectors");
  for (const Json& entry : manifest.list("artifacts")) {
    Artifact artifact = artifact_entry(where, entry);
    bool whole = true;
    for (const BundleFile& file : artifact.files) whole = check_file(root, file) && whole;
    if (whole) artifacts_.push_back(std::move(artifact));
  }
}

const Artifact& Bundle::artifact(const std::string& runtime) const {
  const std::string here = machine();
  std::string others;
  for (const Artifact& artifact : artifacts_) {
    const auto& targets = artifact.targets;
    const bool fits = std::any_of(targets.begin(), targets.end(),
                                  [&](const std::string& target) { return target == here || target == "any"; });
    if (artifact.runtime == runtime && fits) return artifact;
    others += (others.empty() ? "" : ", ") + artifact.name;
  }
  throw InputError(root_ + ": no artifact for runtime '" + runtime + "' on " + here + "; it has " +
                   (others.empty() ? "none" : others));
}

Files Bundle::files(const Artifact& artifact) const {
  Files files;
  for (const BundleFile& file : artifact.files) files[file.role] = root_ + "/" + file.path;
  return files;
}

Golden Bundle::golden() const {
  Golden golden;
  for (const std::string& image : golden_images_) golden.images.push_back(root_ + "/" + image);
  std::map<std::string, Npy> arrays = read_npz(root_ + "/" + kVectors);
  const std::size_t count = golden.images.size();
  const auto take = [&](const char* name, const std::vector<std::size_t>& shape) {
    Npy& array = arrays[name];
    if (array.shape != shape) throw InputError(root_ + "/" + kVectors + ": '" + name + "' is of another shape");
    return std::move(array.values);
  };
  const auto side = [&](std::size_t axis) { return static_cast<std::size_t>(io_.input_shape[axis]); };
  golden.tensors = take("tensors", {count, side(0), side(1), side(2)});
  golden.embeddings = take("embeddings", {count, io_.embedding_dim});
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

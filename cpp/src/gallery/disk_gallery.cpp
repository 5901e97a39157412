#include "edgerecall/disk_gallery.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>

#include "base/files.h"
#include "base/json_text.h"
#include "edgerecall/error.h"
#include "edgerecall/preprocess.h"
#include "gallery/gallery_state.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr const char* kName = kGalleryFile;
constexpr int kFormat = 1;
constexpr double kSameModel = 0.999;  // lowest cosine of golden embeddings by one model, as in Python
constexpr double kSamePixels = 1e-4;  // of tensors by one preprocessing, whatever the digits of 1/255
constexpr std::int64_t kMaxPixels = 1 << 28;
constexpr int kAttempts = 10;  // to open it while another process writes

std::vector<std::uint8_t> manifest_bytes(const std::string& where) {
  struct stat found{};
  if (::stat(where.c_str(), &found) == 0 &&
      (!S_ISREG(found.st_mode) || found.st_size > static_cast<off_t>(kManifestBytes)))
    throw InputError(where + ": no file, or too large: build the gallery again");
  return read_file(where);
}

/// A value under a key; throws InputError unless it is there and of a kind.
const Json& member(const Json& object, const char* key, bool (Json::*is)() const noexcept, const std::string& where) {
  if (!object.is_object() || !object.contains(key) || !(object[key].*is)())
    throw InputError(where + ": " + key + " is not there, or not as it must be: build the gallery again");
  return object[key];
}

size_t count_of(const Json& object, const char* key, size_t most, const std::string& where) {
  const Json& value = member(object, key, &Json::is_number_unsigned, where);
  if (value.get<std::uint64_t>() > most) throw InputError(where + ": " + key + " is too large");
  return value.get<size_t>();
}

/// A file's path in the gallery's folder: a plain name.
std::string inside(const std::string& root, const Json& file, const std::string& where) {
  const std::string name = member(file, "path", &Json::is_string, where).get<std::string>();
  if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos)
    throw InputError(where + ": expected files in the gallery's own folder");
  return root + "/" + name;
}

double cosine(const float* a, const double* b, size_t dim) {
  double product = 0, square_a = 0, square_b = 0;
  for (size_t i = 0; i < dim; ++i) {
    const double value = static_cast<double>(a[i]);
    product += value * b[i];
    square_a += value * value;
    square_b += b[i] * b[i];
  }
  return product / std::max(std::sqrt(square_a * square_b), 1e-30);
}

}  // namespace

DiskGallery::DiskGallery(const std::string& root) {
  const std::string where = root + "/" + kName;
  for (int attempt = 1;; ++attempt) {
    const std::vector<std::uint8_t> bytes = manifest_bytes(where);
    try {
      state_ = std::make_unique<State>(root, std::string(bytes.begin(), bytes.end()));
      return;
    } catch (const InputError&) {  // another process may have replaced files while they were opened
      if (attempt == kAttempts || manifest_bytes(where) == bytes) throw;
    }
  }
}

DiskGallery::State::State(const std::string& folder, const std::string& text) : root(folder) {
  State& state = *this;
  const std::string where = root + "/" + kName;
  manifest = parse_json(text);
  if (!manifest.is_object()) throw InputError(where + ": not readable as JSON: build the gallery again");
  if (member(manifest, "format_version", &Json::is_number_integer, where).get<std::int64_t>() != kFormat)
    throw InputError(where + ": this EdgeRecall reads gallery format 1: update EdgeRecall");
  state.dim = count_of(manifest, "dim", 65536, where);
  if (state.dim == 0) throw InputError(where + ": dim: expected 1 to 65536");
  state.storage =
      storage_named(member(manifest, "storage", &Json::is_string, where).get<std::string>(), where + ": storage");
  std::int64_t number = 0;
  for (const Json& one : member(manifest, "segments", &Json::is_array, where)) {
    SegmentEntry entry;
    const Json& file = member(one, "file", &Json::is_object, where);
    entry.path = inside(root, file, where);
    entry.bytes = count_of(file, "bytes", size_t{1} << (sizeof(size_t) > 4 ? 44 : 31), where);
    entry.rows = count_of(one, "rows", kMostRows, where);
    if (one.contains("removed") && !one["removed"].is_null()) entry.removed = inside(root, one["removed"], where);
    const size_t gone = one.contains("removed_rows") ? count_of(one, "removed_rows", entry.rows, where) : 0;
    state.segments.emplace_back(entry, state.storage, state.dim);
    state.parts.push_back(state.segments.back().searched());
    state.firsts.push_back(number);
    number += static_cast<std::int64_t>(entry.rows);
    state.rows += entry.rows - gone;
  }
  if (number > static_cast<std::int64_t>(kMostRows)) throw InputError(where + ": too many rows");
  state.firsts.push_back(number);
}

DiskGallery::~DiskGallery() = default;

size_t DiskGallery::size() const { return state_->rows; }
size_t DiskGallery::dim() const { return state_->dim; }
Storage DiskGallery::storage() const { return state_->storage; }

void DiskGallery::require_model(const Bundle& bundle) const {
  const State& state = *state_;
  const auto refused = [&](const std::string& why) {
    return InputError(state.root + ": " + why + "; query by the model that it was built with, or build it anew");
  };
  if (bundle.io().embedding_dim != state.dim)
    throw refused("its embeddings have " + std::to_string(state.dim) + " numbers, the model's " +
                  std::to_string(bundle.io().embedding_dim));
  const Json model = state.manifest.value("model", Json());
  if (model.is_null()) return;  // brought without a model
  const std::string where = state.root + "/" + kName;
  if (!model.value("signs", Json()).is_null()) throw refused("its embeddings are signs, the query's are not");
  const Json& spec = member(model, "spec", &Json::is_object, where);
  const Json& sealed = member(model, "golden", &Json::is_array, where);
  if (member(spec, "normalize_embedding", &Json::is_boolean, where).get<bool>() != bundle.normalize_embedding())
    throw refused("its embeddings are normalised otherwise");
  const Preprocess preprocess(member(spec, "preprocess", &Json::is_object, where).dump());
  if (preprocess.output() != bundle.preprocess().output())
    throw refused("its images were preprocessed to another size");
  const Golden golden = bundle.golden();
  if (sealed.size() != golden.images.size()) throw refused("another model: its golden images are others");
  const size_t side = preprocess.tensor_bytes(TensorType::float32) / sizeof(float);
  std::vector<float> tensor(side);
  for (size_t image = 0; image < golden.images.size(); ++image) {
    const std::vector<std::uint8_t> file = read_file(golden.images[image]);
    preprocess.run(file.data(), file.size(), kMaxPixels, TensorType::float32, tensor.data());
    for (size_t i = 0; i < side; ++i)
      if (!(std::fabs(static_cast<double>(tensor[i]) - static_cast<double>(golden.tensors[image * side + i])) <=
            kSamePixels))
        throw refused("its images were preprocessed otherwise");
    std::vector<double> row;
    for (const Json& value : sealed[image]) row.push_back(value.is_number() ? value.get<double>() : 0.0);
    if (row.size() != state.dim)
      throw InputError(where + ": model.golden: expected rows of " + std::to_string(state.dim));
    const double alike = cosine(golden.embeddings.data() + image * state.dim, row.data(), state.dim);
    if (!(alike >= kSameModel))
      throw refused("another model: cosine of a golden embedding " + std::to_string(alike).substr(0, 6));
  }
}

void DiskGallery::search(const float* queries, size_t count, size_t k, int threads, std::int64_t* indices,
                         float* similarities, const Progress& progress) const {
  search_rows(state_->parts, queries, count, k, threads, indices, similarities, progress);
}

DiskGallery::Row DiskGallery::row(std::int64_t number) const {
  const State& state = *state_;
  if (number < 0 || number >= state.firsts.back()) throw InputError("gallery: no row " + std::to_string(number));
  const auto after = std::upper_bound(state.firsts.begin(), state.firsts.end() - 1, number);
  const auto part = static_cast<size_t>(after - state.firsts.begin() - 1);
  return state.segments[part].row(static_cast<size_t>(number - state.firsts[part]));
}

}  // namespace edgerecall

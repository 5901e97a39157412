#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>
#include <utility>

#include "base/files.h"
#include "base/half.h"
#include "edgerecall/disk_gallery.h"
#include "edgerecall/error.h"
#include "edgerecall/sha256.h"
#include "gallery/gallery_state.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kTextBytes = 4096;  // of an id or a label, as in Python
constexpr size_t kAligned = 64;      // where a segment's arrays begin
constexpr float kLargestHalf = 65504.0f;
constexpr double kSmallestHalf = 1.0 / (1 << 24);
constexpr double kRoundedUp = 1 + 1e-5;  // lengths are upper limits

InputError failed(const std::string& path) { return InputError(path + ": cannot be written: " + std::strerror(errno)); }

void synchronise_folder(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  const bool done = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) ::close(descriptor);
  errno = reason;
  if (!done) throw failed(folder);
}

/// Bytes as a file of the gallery, on the disk under its name when this returns: see `durable.py`.
void write_durably(const std::string& root, const std::string& name, const std::string& bytes) {
  const std::string path = root + "/" + name, temporary = path + ".tmp";
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  bool written = file != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size() &&
                 std::fflush(file) == 0 && ::fsync(::fileno(file)) == 0;
  int reason = errno;
  if (file != nullptr && std::fclose(file) != 0 && written) written = false, reason = errno;
  if (written && std::rename(temporary.c_str(), path.c_str()) != 0) written = false, reason = errno;
  if (!written) {
    std::remove(temporary.c_str());
    errno = reason;
    throw failed(path);
  }
  synchronise_folder(root);
}

Json described(const std::string& root, const std::string& name) {
  std::uint64_t bytes = 0;
  const std::string hash = sha256_of(root + "/" + name, bytes);
  return {{"path", name}, {"bytes", bytes}, {"sha256", hash}};
}

template <typename Number>
void append(std::string& bytes, const std::vector<Number>& numbers) {
  bytes.append(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(Number));
}

/// Texts' offsets and bytes.
struct Packed {
  std::vector<std::uint64_t> offsets{0};
  std::string bytes;
  void add(const std::string& text) {
    bytes += text;
    offsets.push_back(bytes.size());
  }
};

/// Arrays of a file in the safetensors format, in the order that Python gives them: wider types first, then by name.
class Tensors {
 public:
  template <typename Number>
  void add(const char* name, const char* type, std::vector<size_t> shape, const std::vector<Number>& numbers) {
    std::string bytes;
    append(bytes, numbers);
    add_bytes(name, type, std::move(shape), std::move(bytes), sizeof(Number));
  }
  void add_bytes(const char* name, const char* type, std::vector<size_t> shape, std::string bytes, size_t width) {
    arrays_.push_back({width, name, type, std::move(shape), std::move(bytes)});
  }
  std::string file(const Json& notes) {
    std::sort(arrays_.begin(), arrays_.end(),
              [](const Array& a, const Array& b) { return a.width != b.width ? a.width > b.width : a.name < b.name; });
    Json header = {{"__metadata__", notes}};
    size_t end = 0;
    for (const Array& one : arrays_) {
      header[one.name] = {{"dtype", one.type}, {"shape", one.shape}, {"data_offsets", {end, end + one.bytes.size()}}};
      end += one.bytes.size();
    }
    std::string text = header.dump();
    text.append((kAligned - (text.size() + 8) % kAligned) % kAligned, ' ');
    std::string bytes;
    append(bytes, std::vector<std::uint64_t>{text.size()});
    bytes += text;
    for (const Array& one : arrays_) bytes += one.bytes;
    return bytes;
  }

 private:
  struct Array {
    size_t width;
    std::string name, type;
    std::vector<size_t> shape;
    std::string bytes;
  };
  std::vector<Array> arrays_;
};

void check_text(const std::string& text) {
  if (text.empty() || text.size() > kTextBytes)
    throw InputError("gallery: an id or a label has 1 to " + std::to_string(kTextBytes) + " bytes, got " +
                     std::to_string(text.size()));
  try {
    Json(text).dump();
  } catch (const Json::exception&) {
    throw InputError("gallery: " + in_quotes(text) + " is no text in UTF-8");
  }
}

bool is_ours(const std::string& name) {
  size_t at = 0;
  const auto digits = [&] {
    const size_t begin = at;
    while (at < name.size() && name[at] >= '0' && name[at] <= '9') ++at;
    return at - begin;
  };
  if (digits() < 8 || at >= name.size() || name[at++] != '-' || digits() < 1) return false;
  const std::string suffix = name.substr(at);
  for (const char* known : {".safetensors", ".removed", ".faiss"})
    if (suffix == known || suffix == std::string(known) + ".tmp") return true;
  return false;
}

}  // namespace

struct GalleryWriter::State {
  explicit State(const std::string& folder) : root(folder) {
    const std::string lock = root + "/lock";
    if (::access((root + "/" + kGalleryFile).c_str(), R_OK) != 0) DiskGallery none(root);  // throws: says what is wrong
    descriptor = ::open(lock.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor < 0) throw failed(lock);
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
      const bool taken = errno == EWOULDBLOCK;
      const InputError error = taken ? InputError(root +
                                                  ": this gallery is open for writing already, here or in another"
                                                  " process: try again when it is closed")
                                     : failed(lock);
      ::close(descriptor);
      throw error;
    }
    try {
      open();
      remove_strays();
    } catch (...) {
      ::close(descriptor);
      throw;
    }
  }
  ~State() { ::close(descriptor); }

  void open() {
    now.reset();  // its maps first: a small machine has no room for both
    now = std::make_unique<DiskGallery>(root);
    for (const char* key : {"generation", "next_file"})
      if (const Json value = rows().manifest.value(key, Json(0u)); !value.is_number_unsigned())
        throw InputError(root + "/" + kGalleryFile + ": " + key + ": expected a whole number");
  }
  DiskGallery::State& rows() const {
    if (!now) throw InputError(root + ": could not be opened after its last change");
    return *now->state_;
  }

  /// Before a change: throws InputError where another folder has taken the gallery's place, and sees what is there now,
  /// whatever became of the change before.
  void begin() {
    struct stat ours{}, there{};
    if (::fstat(descriptor, &ours) != 0 || ::stat((root + "/lock").c_str(), &there) != 0 ||
        ours.st_dev != there.st_dev || ours.st_ino != there.st_ino)
      throw InputError(root + ": was replaced since it was opened: open it again");
    open();
  }

  std::string next_name(size_t offset, const char* suffix) const {
    char name[64];
    const auto number = rows().manifest.value("next_file", std::uint64_t{0});
    std::snprintf(name, sizeof(name), "%08llu-%zu.%s", static_cast<unsigned long long>(number), offset, suffix);
    return name;
  }

  std::vector<std::vector<size_t>> rows_of(std::vector<std::string> ids) const;
  Json without(const std::vector<std::vector<size_t>>& gone) const;
  Json segment(const std::vector<NewRow>& added, const float* embeddings) const;
  void commit(Json segments);
  void remove_strays() const;

  std::string root;
  int descriptor = -1;
  std::unique_ptr<DiskGallery> now;
};

/// The rows that have one of these ids, by segment.
std::vector<std::vector<size_t>> GalleryWriter::State::rows_of(std::vector<std::string> ids) const {
  std::vector<std::uint64_t> wanted;
  for (const std::string& id : ids) wanted.push_back(text_hash(id));
  std::sort(wanted.begin(), wanted.end());
  std::sort(ids.begin(), ids.end());
  const DiskGallery::State& state = rows();
  std::vector<std::vector<size_t>> found(state.segments.size());
  for (size_t part = 0; part < state.segments.size(); ++part) {
    const Segment& segment = state.segments[part];
    for (size_t row = 0; row < state.parts[part].count; ++row) {
      if (!std::binary_search(wanted.begin(), wanted.end(), segment.id_hash(row)) || segment.gone(row)) continue;
      if (std::binary_search(ids.begin(), ids.end(), segment.row(row).id)) found[part].push_back(row);
    }
  }
  return found;
}

/// The segments' entries with these rows removed too.
Json GalleryWriter::State::without(const std::vector<std::vector<size_t>>& gone) const {
  const DiskGallery::State& state = rows();
  Json entries = Json::array();
  for (size_t part = 0; part < state.segments.size(); ++part) {
    Json entry = state.manifest["segments"][part];
    const size_t count = state.parts[part].count;
    if (!gone[part].empty()) {
      std::string bits((count + 7) / 8, '\0');
      if (const std::uint8_t* before = state.parts[part].excluded)
        bits.assign(reinterpret_cast<const char*>(before), bits.size());
      for (const size_t row : gone[part]) bits[row / 8] = static_cast<char>(bits[row / 8] | 1 << (row % 8));
      size_t removed = 0;
      for (size_t row = 0; row < count; ++row) removed += bits[row / 8] >> (row % 8) & 1;
      if (removed == count) continue;
      const std::string name = next_name(part + 1, "removed");
      write_durably(root, name, bits);
      entry["removed"] = described(root, name);
      entry["removed_rows"] = removed;
    }
    entries.push_back(entry);
  }
  return entries;
}

/// New rows as a file, and its entry.
Json GalleryWriter::State::segment(const std::vector<NewRow>& added, const float* embeddings) const {
  const DiskGallery::State& state = rows();
  const size_t dim = state.dim, count = added.size();
  Packed ids, names;
  std::set<std::string> sorted;
  for (const NewRow& row : added)
    if (row.labelled) sorted.insert(row.label);
  for (const std::string& name : sorted) names.add(name);
  std::vector<std::uint64_t> hashes;
  std::vector<std::int32_t> labels;
  for (const NewRow& row : added) {
    ids.add(row.id);
    hashes.push_back(text_hash(row.id));
    labels.push_back(row.labelled ? static_cast<std::int32_t>(std::distance(sorted.begin(), sorted.find(row.label)))
                                  : -1);
  }
  double longest = 0, longest_rest = 0;
  for (size_t row = 0; row < count; ++row) {
    double square = 0;
    for (size_t i = 0; i < dim; ++i) square += std::pow(static_cast<double>(embeddings[row * dim + i]), 2);
    longest = std::max(longest, std::sqrt(square));
  }
  Tensors tensors;
  if (state.storage == Storage::float32) {
    tensors.add("embeddings", "F32", {count, dim}, std::vector<float>(embeddings, embeddings + count * dim));
  } else if (state.storage == Storage::float16) {
    std::vector<std::uint16_t> halves(count * dim);
    std::transform(embeddings, embeddings + count * dim, halves.begin(), kernels::half_of);
    tensors.add("embeddings", "F16", {count, dim}, halves);
    // Each number may have been rounded up, by half of its last bit or of the smallest there is.
    longest += longest / 1024 + std::sqrt(static_cast<double>(dim)) * kSmallestHalf;
  } else if (state.storage == Storage::binary) {
    const size_t words = sign_words(dim);
    std::vector<std::uint64_t> signs(count * words);
    for (size_t row = 0; row < count; ++row) to_signs(embeddings + row * dim, dim, signs.data() + row * words);
    tensors.add("embeddings", "U64", {count, words}, signs);
    longest = std::max(longest, 1.0);
  } else {
    std::vector<std::int8_t> codes(count * dim);
    std::vector<std::int16_t> rest(count * dim);
    std::vector<float> scales(count);
    for (size_t row = 0; row < count; ++row) {
      scales[row] = to_int8(embeddings + row * dim, dim, codes.data() + row * dim, rest.data() + row * dim);
      double square = 0;
      for (size_t i = 0; i < dim; ++i) square += std::pow(rest[row * dim + i] * kRest, 2);
      longest_rest = std::max(longest_rest, std::sqrt(square) * static_cast<double>(scales[row]));
    }
    tensors.add("embeddings", "I8", {count, dim}, codes);
    tensors.add("scales", "F32", {count}, scales);
    tensors.add("rest", "I16", {count, dim}, rest);
  }
  tensors.add("id_offsets", "U64", {count + 1}, ids.offsets);
  tensors.add("id_hashes", "U64", {count}, hashes);
  tensors.add_bytes("ids", "U8", {ids.bytes.size()}, ids.bytes, 1);
  tensors.add("labels", "I32", {count}, labels);
  tensors.add("label_offsets", "U64", {names.offsets.size()}, names.offsets);
  tensors.add_bytes("label_names", "U8", {names.bytes.size()}, names.bytes, 1);
  const Json notes = {{"format", "edgerecall gallery 1"},
                      {"longest", Json(longest * kRoundedUp).dump()},
                      {"longest_rest", Json(longest_rest * kRoundedUp).dump()}};
  const std::string name = next_name(0, "safetensors");
  write_durably(root, name, tensors.file(notes));
  return {{"file", described(root, name)}, {"rows", count}, {"removed", nullptr}, {"removed_rows", 0}};
}

/// Makes these the gallery's segments, and removes files that are none of it.
void GalleryWriter::State::commit(Json segments) {
  Json manifest = rows().manifest;
  std::set<std::string> kept;
  for (const Json& one : segments) kept.insert(one["file"]["path"].get<std::string>());
  const Json index = manifest.value("index", Json());
  bool used = false;
  if (index.is_object() && index.contains("segments") && index["segments"].is_array())
    for (const Json& name : index["segments"]) used = used || (name.is_string() && kept.count(name.get<std::string>()));
  if (!used) manifest["index"] = nullptr;  // nothing of what it has is left
  manifest["generation"] = manifest.value("generation", std::uint64_t{0}) + 1;
  manifest["next_file"] = manifest.value("next_file", std::uint64_t{0}) + 1;
  manifest["segments"] = std::move(segments);
  const std::string text = manifest.dump() + "\n";
  if (text.size() > kManifestBytes)
    throw InputError(root + ": too many changes since 'edgerecall gallery compact': run it where Python is");
  write_durably(root, kGalleryFile, text);
  open();
  remove_strays();
}

void GalleryWriter::State::remove_strays() const {
  std::set<std::string> kept;
  const Json& manifest = rows().manifest;
  for (const Json& one : manifest["segments"])
    for (const char* key : {"file", "removed"})
      if (one.contains(key) && one[key].is_object()) kept.insert(one[key].value("path", std::string()));
  const Json index = manifest.value("index", Json());
  if (index.is_object() && index.contains("file"))
    if (const Json path = index["file"].is_object() ? index["file"].value("path", Json()) : Json(); path.is_string())
      kept.insert(path.get<std::string>());
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(root.c_str()), ::closedir);
  if (!folder) return;
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string name = entry->d_name;
    if (is_ours(name) && kept.count(name) == 0) std::remove((root + "/" + name).c_str());
  }
}

GalleryWriter::GalleryWriter(const std::string& root) : state_(std::make_unique<State>(root)) {}
GalleryWriter::~GalleryWriter() = default;
const DiskGallery& GalleryWriter::gallery() const {
  state_->rows();
  return *state_->now;
}

size_t GalleryWriter::add(const std::vector<NewRow>& rows, const float* embeddings, bool replace) {
  State& state = *state_;
  state.begin();
  const size_t dim = state.now->dim();
  const float largest = state.now->storage() == Storage::float16 ? kLargestHalf : INFINITY;
  std::vector<std::string> ids;
  std::set<std::string> seen;
  for (size_t row = 0; row < rows.size(); ++row) {
    check_text(rows[row].id);
    if (rows[row].labelled) check_text(rows[row].label);
    if (!seen.insert(rows[row].id).second)
      throw InputError("gallery: id " + in_quotes(rows[row].id) + " is given twice");
    for (size_t i = 0; i < dim; ++i)
      if (!std::isfinite(embeddings[row * dim + i]) || std::fabs(embeddings[row * dim + i]) > largest)
        throw InputError("gallery: the embedding of " + in_quotes(rows[row].id) + " is not finite, or too large");
    ids.push_back(rows[row].id);
  }
  if (rows.empty()) return 0;
  if (static_cast<size_t>(state.rows().firsts.back()) + rows.size() > kMostRows)
    throw InputError(state.root + ": too many rows");
  const std::vector<std::vector<size_t>> old = state.rows_of(ids);
  size_t replaced = 0;
  for (size_t part = 0; part < old.size(); ++part) {
    replaced += old[part].size();
    if (!replace && !old[part].empty())
      throw InputError("gallery: id " + in_quotes(state.rows().segments[part].row(old[part][0]).id) +
                       " is there already");
  }
  Json segments = state.without(old);
  segments.push_back(state.segment(rows, embeddings));
  state.commit(std::move(segments));
  return replaced;
}

size_t GalleryWriter::remove(const std::vector<std::string>& ids) {
  State& state = *state_;
  state.begin();
  const std::vector<std::vector<size_t>> old = state.rows_of(ids);
  size_t removed = 0;
  for (const std::vector<size_t>& rows : old) removed += rows.size();
  if (removed > 0) state.commit(state.without(old));
  return removed;
}

}  // namespace edgerecall

#include "gallery/segment.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/json_text.h"
#include "edgerecall/error.h"
#include "edgerecall/sha256.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kHeaderBytes = 1 << 16;          // at most, as in Python
constexpr size_t kAny = static_cast<size_t>(-1);  // a side of any length

size_t size_of(const std::string& type) {
  if (type == "U64") return 8;
  if (type == "F32" || type == "I32") return 4;
  if (type == "F16" || type == "I16") return 2;
  return type == "I8" || type == "U8" ? 1 : 0;
}

template <typename Number>
Number read(const std::uint8_t* data, size_t index) {
  Number value;
  std::memcpy(&value, data + index * sizeof(Number), sizeof(Number));
  return value;
}

bool is_count(const Json& value) { return value.is_number_unsigned() && value.get<std::uint64_t>() < (1ull << 44); }

}  // namespace

std::uint64_t text_hash(const std::string& text) {
  Sha256 hash;
  hash.add(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  const std::string digits = hash.finish();
  std::uint64_t found = 0;
  for (size_t byte = 8; byte-- > 0;) found = found << 8 | std::stoul(digits.substr(2 * byte, 2), nullptr, 16);
  return found;
}

Segment::Segment(const SegmentEntry& entry, Storage storage, size_t dim)
    : path_(entry.path), file_(entry.path, entry.bytes) {
  read_header();
  const size_t rows = entry.rows;
  rows_.storage = storage;
  rows_.dim = dim;
  rows_.count = rows;
  const bool signs = storage == Storage::binary;
  const char* type = storage == Storage::float32 ? "F32" : storage == Storage::float16 ? "F16" : signs ? "U64" : "I8";
  rows_.values = array("embeddings", type, {rows, signs ? sign_words(dim) : dim}).data;
  if (storage == Storage::int8) {
    rows_.scales = reinterpret_cast<const float*>(array("scales", "F32", {rows}).data);
    rows_.rest = reinterpret_cast<const std::int16_t*>(array("rest", "I16", {rows, dim}).data);
  }
  array("id_offsets", "U64", {rows + 1});
  array("id_hashes", "U64", {rows});
  array("ids", "U8", {kAny});
  array("labels", "I32", {rows});
  array("label_offsets", "U64", {kAny});
  array("label_names", "U8", {kAny});
  if (arrays_.count("metadata") != 0) {
    array("metadata", "U8", {kAny});
    array("metadata_offsets", "U64", {rows + 1});
  }
  if (!entry.removed.empty()) {
    removed_ = std::make_unique<MappedFile>(entry.removed, (rows + 7) / 8);
    rows_.excluded = removed_->data();
  }
}

void Segment::read_header() {
  const std::uint64_t length = file_.size() < 8 ? 0 : read<std::uint64_t>(file_.data(), 0);
  if (length < 2 || length > kHeaderBytes || length > file_.size() - 8)
    throw InputError(path_ + ": expected a segment of a gallery");
  const size_t begin = 8 + static_cast<size_t>(length), room = file_.size() - begin;
  const Json header =
      parse_json(std::string(reinterpret_cast<const char*>(file_.data()) + 8, static_cast<size_t>(length)));
  const auto broken = [&](const std::string& what) {
    return InputError(path_ + ": " + what + ": the gallery is damaged");
  };
  if (!header.is_object()) throw broken("its header is no JSON");
  for (const auto& [name, one] : header.items()) {
    if (name == "__metadata__") continue;
    const bool whole = one.is_object() && one.contains("dtype") && one["dtype"].is_string() && one.contains("shape") &&
                       one["shape"].is_array() && one.contains("data_offsets") && one["data_offsets"].is_array() &&
                       one["data_offsets"].size() == 2;
    if (!whole) throw broken("an array without type, shape or place");
    Array array;
    array.type = one["dtype"].get<std::string>();
    std::uint64_t bytes = size_of(array.type);
    for (const Json& side : one["shape"]) {
      if (!is_count(side)) throw broken("an array's shape");
      array.shape.push_back(side.get<size_t>());
      if (side.get<std::uint64_t>() != 0 && bytes > room / side.get<std::uint64_t>()) throw broken("an array's shape");
      bytes *= side.get<std::uint64_t>();
    }
    const Json &from = one["data_offsets"][0], &to = one["data_offsets"][1];
    if (size_of(array.type) == 0 || !is_count(from) || !is_count(to) || to.get<size_t>() > room ||
        from.get<size_t>() > to.get<size_t>() || to.get<size_t>() - from.get<size_t>() != bytes ||
        (begin + from.get<size_t>()) % size_of(array.type) != 0)
      throw broken("an array's place");
    array.data = file_.data() + begin + from.get<size_t>();
    arrays_[name] = array;
  }
  const Json notes = header.value("__metadata__", Json::object());
  for (const auto& [name, length] :
       {std::pair<const char*, double*>{"longest", &rows_.longest}, {"longest_rest", &rows_.longest_rest}}) {
    const Json said = notes.is_object() ? notes.value(name, Json()) : Json();
    const std::string text = said.is_string() ? said.get<std::string>() : "";
    char* end = nullptr;
    *length = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != 0 || !(*length >= 0) || !std::isfinite(*length)) throw broken(name);
  }
}

const Segment::Array& Segment::array(const std::string& name, const std::string& type,
                                     const std::vector<size_t>& shape) const {
  const auto found = arrays_.find(name);
  bool fits = found != arrays_.end() && found->second.type == type && found->second.shape.size() == shape.size();
  for (size_t side = 0; fits && side < shape.size(); ++side)
    fits = shape[side] == kAny || shape[side] == found->second.shape[side];
  if (!fits) throw InputError(path_ + ": " + name + " is not there in its type and shape: the gallery is damaged");
  return found->second;
}

std::string Segment::text(const std::string& offsets, const std::string& data, size_t number) const {
  const Array& places = arrays_.at(offsets);
  const Array& bytes = arrays_.at(data);
  if (number + 1 < places.shape[0]) {
    const auto from = read<std::uint64_t>(places.data, number), to = read<std::uint64_t>(places.data, number + 1);
    if (from <= to && to <= bytes.shape[0])
      return std::string(reinterpret_cast<const char*>(bytes.data) + from, static_cast<size_t>(to - from));
  }
  throw InputError(path_ + ": damaged: see 'edgerecall gallery verify'");
}

StoredRows Segment::searched() const { return rows_; }

bool Segment::gone(size_t number) const {
  return rows_.excluded != nullptr && (rows_.excluded[number / 8] >> (number % 8) & 1) != 0;
}

std::uint64_t Segment::id_hash(size_t number) const {
  return read<std::uint64_t>(arrays_.at("id_hashes").data, number);
}

DiskGallery::Row Segment::row(size_t number) const {
  DiskGallery::Row row;
  row.id = text("id_offsets", "ids", number);
  const auto label = read<std::int32_t>(arrays_.at("labels").data, number);
  row.labelled = label >= 0;
  if (row.labelled) row.label = text("label_offsets", "label_names", static_cast<size_t>(label));
  if (arrays_.count("metadata") != 0) row.metadata = text("metadata_offsets", "metadata", number);
  return row;
}

}  // namespace edgerecall

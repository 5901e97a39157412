#include "edgerecall/npy.h"

#include <cstring>
#include <limits>

#include "edgerecall/error.h"
#include "base/files.h"

namespace edgerecall {
namespace {

static_assert(std::numeric_limits<float>::is_iec559, "arrays are of IEEE 754 numbers");

/// Little-endian numbers from bytes, none beyond their end.
class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  std::uint64_t number(std::size_t at, std::size_t bytes) const {
    need(at, bytes);
    std::uint64_t value = 0;
    for (std::size_t i = bytes; i-- > 0;) value = value << 8 | data_[at + i];
    return value;
  }
  const std::uint8_t* bytes(std::size_t at, std::size_t count) const {
    need(at, count);
    return data_ + at;
  }
  std::string text(std::size_t at, std::size_t count) const {
    return {reinterpret_cast<const char*>(bytes(at, count)), count};
  }
  std::size_t size() const { return size_; }

 private:
  void need(std::size_t at, std::size_t count) const {
    if (at > size_ || count > size_ - at) throw InputError("the array's file ends too early");
  }
  const std::uint8_t* data_;
  std::size_t size_;
};

/// What stands behind `'key':` in the header, a Python literal.
std::string header_value(const std::string& header, const std::string& key) {
  const std::size_t found = header.find("'" + key + "':");
  if (found == std::string::npos) throw InputError("the array's header has no " + key);
  const std::size_t begin = header.find_first_not_of(' ', found + key.size() + 3);
  return begin == std::string::npos ? "" : header.substr(begin);
}

std::vector<std::size_t> shape_of(const std::string& header) {
  const std::string text = header_value(header, "shape");
  std::vector<std::size_t> shape;
  std::size_t at = 1, value = 0;
  bool digits = false;
  for (; at < text.size() && text[at] != ')'; ++at) {
    if (text[at] >= '0' && text[at] <= '9') {
      value = value * 10 + static_cast<std::size_t>(text[at] - '0');
      digits = true;
      if (value > (std::size_t{1} << 31)) throw InputError("the array is too large");
    } else if (text[at] == ',' && digits) {
      shape.push_back(value);
      value = 0, digits = false;
    } else if (text[at] != ' ') {
      throw InputError("the array's shape cannot be read");
    }
  }
  if (digits) shape.push_back(value);
  if (text.empty() || text[0] != '(' || at == text.size()) throw InputError("the array's shape cannot be read");
  return shape;
}

}  // namespace

Npy parse_npy(const std::uint8_t* data, std::size_t size) {
  const Reader reader(data, size);
  if (reader.text(0, 6) != "\x93NUMPY") throw InputError("expected an array in NumPy's format");
  const bool old = reader.number(6, 1) == 1;
  const std::size_t start = old ? 10 : 12;
  const std::size_t length = static_cast<std::size_t>(reader.number(8, old ? 2 : 4));
  const std::string header = reader.text(start, length);
  if (header_value(header, "descr").compare(0, 5, "'<f4'") != 0 ||
      header_value(header, "fortran_order").compare(0, 5, "False") != 0)
    throw InputError("expected a float32 array in C order");
  Npy array{shape_of(header), {}};
  std::size_t count = 1;
  for (const std::size_t side : array.shape) {
    if (side != 0 && count > size / side) throw InputError("the array's file ends too early");
    count *= side;
  }
  const std::uint8_t* values = reader.bytes(start + length, count * sizeof(float));
  array.values.resize(count);
  if (count > 0) std::memcpy(array.values.data(), values, count * sizeof(float));
  return array;
}

Npy read_npy(const std::string& path) {
  const std::vector<std::uint8_t> bytes = read_file(path);
  try {
    return parse_npy(bytes.data(), bytes.size());
  } catch (const InputError& error) {
    throw InputError(path + ": " + error.what());
  }
}

void write_npy(const std::string& path, const std::vector<std::size_t>& shape, const float* values) {
  std::string sides;
  std::size_t count = 1;
  for (const std::size_t side : shape) {
    sides += std::to_string(side) + ", ";
    count *= side;
  }
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + sides + "), }";
  header.append((64 - (10 + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 255);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(values), count * sizeof(float));
  write_file(path, bytes.data(), bytes.size());
}

}  // namespace edgerecall

#include <utility>

#include "edgerecall/decode.h"

namespace edgerecall {
namespace {

/// Numbers of a TIFF structure in its own byte order; reads outside the data give 0.
class TiffReader {
 public:
  TiffReader(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  bool header() {
    if (size_ < 8) return false;
    big_endian_ = data_[0] == 'M';
    return data_[0] == data_[1] && (data_[0] == 'M' || data_[0] == 'I') && u16(2) == 42;
  }
  unsigned u16(std::size_t at) const {
    if (at > size_ || size_ - at < 2) return 0;
    return big_endian_ ? static_cast<unsigned>(data_[at] << 8 | data_[at + 1])
                       : static_cast<unsigned>(data_[at + 1] << 8 | data_[at]);
  }
  std::uint32_t u32(std::size_t at) const {
    const std::uint32_t first = u16(at), second = u16(at + 2);
    return big_endian_ ? first << 16 | second : second << 16 | first;
  }
  std::size_t size() const { return size_; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  bool big_endian_ = false;
};

void copy_pixel(const std::uint8_t* from, std::uint8_t* to) {
  to[0] = from[0];
  to[1] = from[1];
  to[2] = from[2];
}

}  // namespace

int exif_orientation(const std::uint8_t* tiff, std::size_t size) {
  constexpr unsigned kOrientation = 0x0112, kShort = 3, kLong = 4;
  TiffReader reader(tiff, size);
  if (!reader.header()) return 1;
  const std::size_t directory = reader.u32(4);
  const unsigned entries = reader.u16(directory);
  for (unsigned index = 0; index < entries; ++index) {
    const std::size_t entry = directory + 2 + std::size_t{12} * index;
    if (entry + 12 > reader.size()) return 1;
    if (reader.u16(entry) != kOrientation) continue;
    const unsigned type = reader.u16(entry + 2);
    const std::uint32_t value = type == kShort ? reader.u16(entry + 8) : type == kLong ? reader.u32(entry + 8) : 1;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image upright(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  // Each value is an optional exchange of rows and columns, then mirroring of the result.
  const bool exchange = orientation >= 5;
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const ImageSize from = image.size();
  const ImageSize to = exchange ? ImageSize{from.width, from.height} : from;
  Image turned(to);
  for (int y = 0; y < to.height; ++y) {
    std::uint8_t* out = turned.row(y);
    const int source_y = mirror_y ? to.height - 1 - y : y;
    for (int x = 0; x < to.width; ++x, out += 3) {
      const int source_x = mirror_x ? to.width - 1 - x : x;
      const int row = exchange ? source_x : source_y;
      const int column = exchange ? source_y : source_x;
      copy_pixel(image.row(row) + static_cast<std::size_t>(column) * 3, out);
    }
  }
  return turned;
}

}  // namespace edgerecall

#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include "edgerecall/error.h"

namespace edgerecall {

struct ImageSize {
  int height = 0;
  int width = 0;
};

/// Reads the header of a JPEG. Throws InputError (no JPEG) or UnsupportedImage (CMYK, YCCK).
ImageSize jpeg_size(const std::uint8_t* data, std::size_t size);

/// Decodes a gray or YCbCr/RGB JPEG into interleaved RGB, uint8, `height * width * 3` bytes at `out`.
/// Exact integer IDCT and smooth chroma upsampling, as Pillow decodes. Data that ends early is an InputError.
void decode_jpeg(const std::uint8_t* data, std::size_t size, ImageSize expected, std::uint8_t* out);

/// 256 float32 values for each of the three channels: what each uint8 sample becomes.
using ChannelTables = std::array<std::array<float, 256>, 3>;

/// Interleaved uint8 `(rows, columns, 3)` with `row_stride` bytes a row -> planar float32 `(3, rows, columns)`.
/// `tables[c]` belongs to channel c of the source; `swap_channels` writes the planes in reverse order.
void pack_planar(const std::uint8_t* image, std::size_t row_stride, ImageSize size, const ChannelTables& tables,
                 bool swap_channels, float* out);

}  // namespace edgerecall

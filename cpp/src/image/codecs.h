// What decode() dispatches to: one function per format. Orientation is 1 when the file names none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include "edgerecall/image.h"

namespace edgerecall {

struct Decoded {
  explicit Decoded(Image pixels = {}, int turned = 1) : image(std::move(pixels)), orientation(turned) {}
  Image image;
  int orientation;
};

/// Throws InputError when the image has no pixel or more than the limit.
void check_pixels(std::uint64_t height, std::uint64_t width, std::int64_t max_pixels);

Decoded decode_jpeg(const std::uint8_t* data, std::size_t size, std::int64_t max_pixels);
Decoded decode_png(const std::uint8_t* data, std::size_t size, std::int64_t max_pixels);

}  // namespace edgerecall

#include "edgerecall/decode.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "image/codecs.h"
#include "edgerecall/error.h"

namespace edgerecall {

void check_pixels(std::uint64_t height, std::uint64_t width, std::int64_t max_pixels) {
  if (height == 0 || width == 0) throw InputError("the image has no pixels");
  const bool too_large =
      height > static_cast<std::uint64_t>(max_pixels) / width || height > INT32_MAX / 4 || width > INT32_MAX / 4;
  if (too_large) {
    char text[160];
    std::snprintf(text, sizeof(text),
                  "%.0f x %.0f is %.4g million pixels, more than the limit of %.4g: shrink it, or raise "
                  "EDGERECALL_MAX_PIXELS",
                  static_cast<double>(width), static_cast<double>(height),
                  static_cast<double>(width) * static_cast<double>(height) / 1e6,
                  static_cast<double>(max_pixels) / 1e6);
    throw InputError(text);
  }
}

Image decode(const std::uint8_t* data, std::size_t size, const DecodeOptions& options) {
  static constexpr std::uint8_t kPng[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  static constexpr std::uint8_t kJpeg[] = {0xff, 0xd8, 0xff};
  Decoded decoded;
  if (size >= sizeof(kPng) && std::memcmp(data, kPng, sizeof(kPng)) == 0)
    decoded = decode_png(data, size, options.max_pixels);
  else if (size >= sizeof(kJpeg) && std::memcmp(data, kJpeg, sizeof(kJpeg)) == 0)
    decoded = decode_jpeg(data, size, options.max_pixels);
  else
    throw UnsupportedImage("expected a JPEG or PNG image, got something else");
  if (!options.apply_exif) return std::move(decoded.image);
  return upright(std::move(decoded.image), decoded.orientation);
}

}  // namespace edgerecall

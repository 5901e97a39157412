#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "edgerecall/image.h"

namespace edgerecall {

struct DecodeOptions {
  bool apply_exif = false;               ///< turn and mirror as the EXIF orientation says
  std::int64_t max_pixels = 89'478'485;  ///< larger images are refused before memory is asked for
};

/// Decodes JPEG or PNG bytes to the RGB pixels that Pillow's `convert("RGB")` gives: gray is repeated, CMYK is
/// multiplied out (Adobe's inverted values), alpha is dropped, 16-bit colour keeps its high byte, 16-bit gray is cut
/// at 255. Throws UnsupportedImage for other formats, InputError for damaged, truncated or too large images.
Image decode(const std::uint8_t* data, std::size_t size, const DecodeOptions& options);

/// The orientation, 1 to 8, in a TIFF structure (the payload of EXIF, without the "Exif" marker); 1 when there is none.
int exif_orientation(const std::uint8_t* tiff, std::size_t size);

/// The upright image for an orientation of 1 to 8 (EXIF 2.3, tag 0x0112).
Image upright(Image image, int orientation);

}  // namespace edgerecall

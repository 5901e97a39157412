// The inner loops of preprocessing, one source compiled for every vector width and chosen at run time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "preprocess/taps.h"

namespace edgerecall::kernels {

/// Bytes that the loops may read and write behind the last one that counts.
constexpr std::size_t kOverrun = 64;

/// Rows of RGB bytes convolved along x. `origin`: the x that a row pointer stands for. Each output row needs
/// `kOverrun` bytes of room behind its last pixel.
/// Pillow: rounded to uint8. OpenCV: the int32 sums; area: the float32 sums.
void horizontal_pil(const std::uint8_t* const* rows, int count, const Taps& taps, int origin, std::uint8_t* const* out);
void horizontal_cv2(const std::uint8_t* const* rows, int count, const Taps& taps, int origin, std::int32_t* const* out);

void horizontal_area(const std::uint8_t* const* rows, int count, const TapsOf<float>& taps, int origin,
                     float* const* out);

/// Pillow's second pass: `count` rows to one of `bytes` bytes.
void vertical_pil(const std::uint8_t* const* rows, const std::int32_t* weights, int count, std::size_t bytes,
                  std::uint8_t* out);

/// OpenCV's second pass over 2, 4 or 8 rows of sums. Bicubic: elements below `vector_end` in float32, as OpenCV's
/// vector loop computes them, the rest in integers.
void vertical_cv2_linear(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                         std::uint8_t* out);
void vertical_cv2_cubic(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                        std::size_t vector_end, std::uint8_t* out);
void vertical_cv2_lanczos(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                          std::uint8_t* out);

/// OpenCV's second pass of the area filter: `count` rows of sums, `stride` apart.
void vertical_area(const float* rows, std::size_t stride, const float* weights, int count, std::size_t elements,
                   std::uint8_t* out);

/// `(value * scale - mean) / std`, each step rounded to float32; `mean`, `std` and `planes` by source channel.
struct RowNormalizer {
  float scale, mean[3], std[3];
};
void normalize_float32(const std::uint8_t* rgb, std::size_t width, const RowNormalizer& rule, float* const* planes);
void normalize_float16(const std::uint8_t* rgb, std::size_t width, const RowNormalizer& rule,
                       std::uint16_t* const* planes);

}  // namespace edgerecall::kernels

#include "search/product_kernels.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "search/product_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once for each target
#include "hwy/highway.h"
#include "base/transpose-inl.h"

namespace edgerecall::kernels {
#ifndef EDGERECALL_PRODUCT_BLOCKS  // shared by the targets
#define EDGERECALL_PRODUCT_BLOCKS
constexpr std::size_t kDepth = 256;      // of a block: a panel of b stays in the first-level cache
constexpr std::size_t kMostHeight = 12;  // rows of `a` that a micro-kernel takes at once, at most
#endif
}  // namespace edgerecall::kernels

HWY_BEFORE_NAMESPACE();
namespace edgerecall::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Wide = hn::CappedTag<float, 16>;
constexpr std::size_t kLanes = hn::MaxLanes(Wide()), kVectors = 2, kWidth = kLanes * kVectors;
// As many sums as the registers hold: 32 of them with AVX-512 and on 64-bit ARM, else 16.
constexpr std::size_t kHeight = kLanes == 16 || HWY_ARCH_ARM_A64 ? 12 : 6;

/// Turns `count` rows of `depth` values, `stride` apart, into `depth` groups of `width`: those that are missing are 0.
HWY_INLINE void pack(const float* rows, std::size_t stride, std::size_t count, std::size_t depth, std::size_t width,
                     float* out) {
  std::size_t row = 0;
  for (; row + 4 <= count; row += 4) {
    const float* from = rows + row * stride;
    float* to = out + row;
    std::size_t at = 0;
    for (; at + 4 <= depth; at += 4) transpose_4x4(from + at, stride, to + at * width, width);
    for (; at < depth; ++at)
      for (std::size_t other = 0; other < 4; ++other) to[at * width + other] = from[other * stride + at];
  }
  for (; row < width; ++row)
    for (std::size_t at = 0; at < depth; ++at) out[at * width + row] = row < count ? rows[row * stride + at] : 0.0f;
}

/// kHeight x kWidth products of packed rows, summed over `depth`; added to `out` unless `first`.
HWY_INLINE void micro_kernel(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, std::size_t depth, bool first,
                             float* HWY_RESTRICT out, std::size_t stride) {
  const Wide df;
  using Vector = hn::VFromD<Wide>;
  Vector low[kHeight], high[kHeight];
  for (std::size_t row = 0; row < kHeight; ++row) {
    low[row] = first ? hn::Zero(df) : hn::LoadU(df, out + row * stride);
    high[row] = first ? hn::Zero(df) : hn::LoadU(df, out + row * stride + kLanes);
  }
  for (std::size_t at = 0; at < depth; ++at) {
    const auto left = hn::Load(df, b + at * kWidth), right = hn::Load(df, b + at * kWidth + kLanes);
#pragma GCC unroll 12
    for (std::size_t row = 0; row < kHeight; ++row) {
      const auto value = hn::Set(df, a[at * kHeight + row]);
      low[row] = hn::MulAdd(value, left, low[row]);
      high[row] = hn::MulAdd(value, right, high[row]);
    }
  }
  for (std::size_t row = 0; row < kHeight; ++row) {
    hn::StoreU(low[row], df, out + row * stride);
    hn::StoreU(high[row], df, out + row * stride + kLanes);
  }
}

/// The same where fewer rows or columns are left.
HWY_NOINLINE void edge_kernel(const float* a, const float* b, std::size_t depth, bool first, float* out,
                              std::size_t stride, std::size_t rows, std::size_t columns) {
  HWY_ALIGN float whole[kHeight * kWidth];
  micro_kernel(a, b, depth, true, whole, kWidth);
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = 0; column < columns; ++column)
      out[row * stride + column] = whole[row * kWidth + column] + (first ? 0.0f : out[row * stride + column]);
}

void MultiplyTransposed(const float* a, std::size_t rows, const float* b, std::size_t columns, std::size_t depth,
                        float* out, float* scratch) {
  HWY_ALIGN float panel[kDepth * kWidth];
  for (std::size_t begin = 0; begin < depth; begin += kDepth) {
    const std::size_t deep = std::min(kDepth, depth - begin);
    for (std::size_t row = 0; row < rows; row += kHeight)
      pack(a + row * depth + begin, depth, std::min(kHeight, rows - row), deep, kHeight, scratch + row * kDepth);
    for (std::size_t column = 0; column < columns; column += kWidth) {
      const std::size_t wide = std::min(kWidth, columns - column);
      pack(b + column * depth + begin, depth, wide, deep, kWidth, panel);
      for (std::size_t row = 0; row < rows; row += kHeight) {
        const std::size_t high = std::min(kHeight, rows - row);
        float* to = out + row * columns + column;
        if (high == kHeight && wide == kWidth)
          micro_kernel(scratch + row * kDepth, panel, deep, begin == 0, to, columns);
        else
          edge_kernel(scratch + row * kDepth, panel, deep, begin == 0, to, columns, high, wide);
      }
    }
  }
}

}  // namespace edgerecall::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgerecall::kernels {

HWY_EXPORT(MultiplyTransposed);

std::size_t product_scratch(std::size_t rows) { return (rows + kMostHeight) * kDepth; }

void multiply_transposed(const float* a, std::size_t rows, const float* b, std::size_t columns, std::size_t depth,
                         float* out, float* scratch) {
  HWY_DYNAMIC_DISPATCH(MultiplyTransposed)(a, rows, b, columns, depth, out, scratch);
}

}  // namespace edgerecall::kernels
#endif

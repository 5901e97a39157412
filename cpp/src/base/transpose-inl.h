// Part of the *_kernels.cpp files, compiled for every target.
#include <cstddef>

#if defined(EDGERECALL_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGERECALL_TRANSPOSE_INL_H_
#undef EDGERECALL_TRANSPOSE_INL_H_
#else
#define EDGERECALL_TRANSPOSE_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace edgerecall::kernels::HWY_NAMESPACE {

/// Turns a block of 4 x 4: rows `from_stride` apart become columns of rows that are `to_stride` apart.
HWY_INLINE void transpose_4x4(const float* from, std::size_t from_stride, float* to, std::size_t to_stride) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, 4> df;
  const auto a = hn::LoadU(df, from), b = hn::LoadU(df, from + from_stride);
  const auto c = hn::LoadU(df, from + 2 * from_stride), d = hn::LoadU(df, from + 3 * from_stride);
  const auto ac_low = hn::InterleaveLower(df, a, c), ac_high = hn::InterleaveUpper(df, a, c);
  const auto bd_low = hn::InterleaveLower(df, b, d), bd_high = hn::InterleaveUpper(df, b, d);
  hn::StoreU(hn::InterleaveLower(df, ac_low, bd_low), df, to);
  hn::StoreU(hn::InterleaveUpper(df, ac_low, bd_low), df, to + to_stride);
  hn::StoreU(hn::InterleaveLower(df, ac_high, bd_high), df, to + 2 * to_stride);
  hn::StoreU(hn::InterleaveUpper(df, ac_high, bd_high), df, to + 3 * to_stride);
}

}  // namespace edgerecall::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

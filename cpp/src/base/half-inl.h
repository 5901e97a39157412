// Part of the *_kernels.cpp files, compiled for every target.
#include "base/half.h"

#if defined(EDGERECALL_HALF_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef EDGERECALL_HALF_INL_H_
#undef EDGERECALL_HALF_INL_H_
#else
#define EDGERECALL_HALF_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace edgerecall::kernels::HWY_NAMESPACE {

/// Stores float32 lanes as float16, rounded half to even. Highway 1.0 truncates where the CPU has no instruction.
template <class D>
HWY_INLINE void store_half([[maybe_unused]] D d, hwy::HWY_NAMESPACE::VFromD<D> values, std::uint16_t* out) {
  namespace hn = hwy::HWY_NAMESPACE;
#if (HWY_TARGET == HWY_NEON && HWY_ARCH_ARM_A64) || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2)
  const hn::Rebind<hwy::float16_t, D> half;
  const hn::Rebind<std::uint16_t, D> bits;
  hn::StoreU(hn::BitCast(bits, hn::DemoteTo(half, values)), bits, out);
#else
  float lanes[hn::MaxLanes(D())];
  hn::StoreU(values, d, lanes);
  for (std::size_t lane = 0; lane < hn::Lanes(d); ++lane) out[lane] = half_of(lanes[lane]);
#endif
}

}  // namespace edgerecall::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

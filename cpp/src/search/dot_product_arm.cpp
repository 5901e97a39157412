// Sums of int8 products by the dot-product instructions of 64-bit ARM CPUs from about 2018 on (FEAT_DotProd).
#include "search/dot_product_arm.h"

#if defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>

#ifdef __clang__
#define EDGERECALL_DOT_PRODUCT __attribute__((target("dotprod")))
#else
#define EDGERECALL_DOT_PRODUCT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

namespace edgerecall::kernels {

bool has_dot_product() {
  constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP
  static const bool has = (getauxval(AT_HWCAP) & kDotProduct) != 0;
  return has;
}

EDGERECALL_DOT_PRODUCT void dots_int8_by_instruction(const std::int8_t* query, const std::int8_t* rows,
                                                     std::size_t count, std::size_t dim, std::int32_t* out) {
  constexpr std::size_t kLanes = 16;
  for (std::size_t row = 0; row < count; ++row) {
    const std::int8_t* codes = rows + row * dim;
    int32x4_t sum0 = vdupq_n_s32(0), sum1 = sum0;
    std::size_t at = 0;
    for (; at + 2 * kLanes <= dim; at += 2 * kLanes) {
      sum0 = vdotq_s32(sum0, vld1q_s8(query + at), vld1q_s8(codes + at));
      sum1 = vdotq_s32(sum1, vld1q_s8(query + at + kLanes), vld1q_s8(codes + at + kLanes));
    }
    std::int32_t total = vaddvq_s32(vaddq_s32(sum0, sum1));
    for (; at < dim; ++at) total += query[at] * codes[at];
    out[row] = total;
  }
}

}  // namespace edgerecall::kernels
#else
namespace edgerecall::kernels {

bool has_dot_product() { return false; }
void dots_int8_by_instruction(const std::int8_t*, const std::int8_t*, std::size_t, std::size_t, std::int32_t*) {}

}  // namespace edgerecall::kernels
#endif

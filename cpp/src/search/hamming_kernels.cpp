#include "search/hamming_kernels.h"

#define HWY_WANT_AVX3_DL 1  // Ice Lake's vectors, Zen 4's too, count bits in one instruction
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "search/hamming_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once for each target
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace edgerecall::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Words = hn::CappedTag<std::uint64_t, kBlockRows>;
constexpr std::size_t kLanes = hn::MaxLanes(Words()), kVectors = kBlockRows / kLanes;

std::size_t NearerThan(const std::uint64_t* HWY_RESTRICT query, const std::uint64_t* HWY_RESTRICT rows,
                       std::size_t blocks, std::size_t words, std::uint64_t limit, std::uint32_t* positions,
                       std::uint32_t* distances) {
  const Words d;
  const auto bound = hn::Set(d, limit);
  HWY_ALIGN std::uint64_t own[kLanes];
  std::size_t found = 0;
  for (std::size_t block = 0; block < blocks; ++block) {
    const std::uint64_t* from = rows + block * words * kBlockRows;
    hn::VFromD<Words> sums[kVectors];
    for (auto& sum : sums) sum = hn::Zero(d);
    for (std::size_t word = 0; word < words; ++word) {
      const auto wanted = hn::Set(d, query[word]);
      for (std::size_t part = 0; part < kVectors; ++part) {
        const auto differ = hn::Xor(wanted, hn::LoadU(d, from + word * kBlockRows + part * kLanes));
        sums[part] = hn::Add(sums[part], hn::PopulationCount(differ));
      }
    }
    for (std::size_t part = 0; part < kVectors; ++part) {
      if (hn::AllFalse(d, hn::Lt(sums[part], bound))) continue;
      hn::Store(sums[part], d, own);
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        positions[found] = static_cast<std::uint32_t>(block * kBlockRows + part * kLanes + lane);
        distances[found] = static_cast<std::uint32_t>(own[lane]);
        found += own[lane] < limit;
      }
    }
  }
  return found;
}

/// A word at a time: a row has few, and reading them is what takes the time.
void Hamming(const std::uint64_t* HWY_RESTRICT query, const std::uint64_t* HWY_RESTRICT rows, std::size_t count,
             std::size_t words, std::uint32_t* HWY_RESTRICT distances) {
  for (std::size_t row = 0; row < count; ++row, rows += words) {
    std::size_t differ = 0;
    for (std::size_t word = 0; word < words; ++word) differ += hwy::PopCount(query[word] ^ rows[word]);
    distances[row] = static_cast<std::uint32_t>(differ);
  }
}

using Floats = hn::CappedTag<float, 16>;
using Bits = hn::RebindToUnsigned<Floats>;

/// Which of a word's bits from `shift` on are set.
HWY_INLINE auto bits_at(std::uint64_t word, std::size_t shift, hn::VFromD<Bits> each) {
  const Bits d;
  const auto bits = hn::And(hn::Set(d, static_cast<std::uint32_t>(word >> shift)), each);
  return hn::RebindMask(Floats(), hn::Ne(bits, hn::Zero(d)));
}

void DecodeRow(const std::uint64_t* HWY_RESTRICT signs, const std::uint64_t* HWY_RESTRICT planes, std::size_t words,
               std::size_t plane_count, const float* HWY_RESTRICT levels, float* HWY_RESTRICT out) {
  const Floats d;
  constexpr std::size_t kWide = hn::MaxLanes(Floats());
  HWY_ALIGN std::uint32_t lanes[kWide];
  for (std::size_t lane = 0; lane < kWide; ++lane) lanes[lane] = 1u << lane;
  const auto each = hn::Load(Bits(), lanes);
  for (std::size_t word = 0; word < words; ++word)
    for (std::size_t shift = 0; shift < 64; shift += kWide) {
      hn::VFromD<Floats> sizes[8];
      for (std::size_t level = 0; level < std::size_t{1} << plane_count; ++level)
        sizes[level] = hn::Set(d, levels[level]);
      for (std::size_t plane = 0; plane < plane_count; ++plane) {  // halves the choice each time
        const auto odd = bits_at(planes[plane * words + word], shift, each);
        for (std::size_t pair = 0; pair < std::size_t{1} << (plane_count - plane - 1); ++pair)
          sizes[pair] = hn::IfThenElse(odd, sizes[2 * pair + 1], sizes[2 * pair]);
      }
      const auto positive = bits_at(signs[word * kBlockRows], shift, each);
      hn::StoreU(hn::IfThenElse(positive, sizes[0], hn::Neg(sizes[0])), d, out + word * 64 + shift);
    }
}

}  // namespace edgerecall::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgerecall::kernels {

HWY_EXPORT(NearerThan);
HWY_EXPORT(Hamming);
HWY_EXPORT(DecodeRow);

void hamming(const std::uint64_t* query, const std::uint64_t* rows, std::size_t count, std::size_t words,
             std::uint32_t* distances) {
  HWY_DYNAMIC_DISPATCH(Hamming)(query, rows, count, words, distances);
}

void decode_row(const std::uint64_t* signs, const std::uint64_t* planes, std::size_t words, std::size_t plane_count,
                const float* levels, float* out) {
  HWY_DYNAMIC_DISPATCH(DecodeRow)(signs, planes, words, plane_count, levels, out);
}

std::size_t nearer_than(const std::uint64_t* query, const std::uint64_t* rows, std::size_t blocks, std::size_t words,
                        std::uint64_t limit, std::uint32_t* positions, std::uint32_t* distances) {
  return HWY_DYNAMIC_DISPATCH(NearerThan)(query, rows, blocks, words, limit, positions, distances);
}

}  // namespace edgerecall::kernels
#endif

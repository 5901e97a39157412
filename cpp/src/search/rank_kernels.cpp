#include "search/rank_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "search/dot_product_arm.h"
#include "edgerecall/error.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "search/rank_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once for each target
#include "hwy/highway.h"
#include "base/half-inl.h"
#include "base/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgerecall::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using DU = hn::Rebind<std::uint32_t, DF>;
using DI = hn::Rebind<std::int32_t, DF>;

std::size_t Select(const float* values, std::size_t count, float low, float high, std::uint32_t* positions) {
  const DF df;
  const DU du;
  const std::size_t lanes = hn::Lanes(df);
  const auto bottom = hn::Set(df, low), top = hn::Set(df, high);
  std::size_t found = 0, at = 0;
  for (; at + lanes <= count; at += lanes) {
    const auto value = hn::LoadU(df, values + at);
    const auto mask = hn::And(hn::Ge(value, bottom), hn::Le(value, top));
    if (hn::AllFalse(df, mask)) continue;
    const auto indices = hn::Iota(du, static_cast<std::uint32_t>(at));
    hn::StoreU(hn::Compress(indices, hn::RebindMask(du, mask)), du, positions + found);
    found += hn::CountTrue(df, mask);
  }
  for (; at < count; ++at)
    if (values[at] >= low && values[at] <= high) positions[found++] = static_cast<std::uint32_t>(at);
  return found;
}

/// Values from `floor` up, moved together and filled up to whole vectors with what no threshold counts.
HWY_INLINE std::size_t keep(const float* values, std::size_t count, float floor, float* kept) {
  const DF df;
  constexpr bool kCheapCompress = hn::MaxLanes(DF()) >= 16;  // an instruction of its own: faster than a branch
  const std::size_t lanes = hn::Lanes(df);
  const auto limit = hn::Set(df, floor);
  std::size_t found = 0, at = 0;
  for (; at + lanes <= count; at += lanes) {
    const auto value = hn::LoadU(df, values + at);
    const auto mask = hn::Ge(value, limit);
    if (!kCheapCompress && hn::AllFalse(df, mask)) continue;
    hn::StoreU(hn::Compress(value, mask), df, kept + found);
    found += hn::CountTrue(df, mask);
  }
  for (; at < count; ++at)
    if (values[at] >= floor) kept[found++] = values[at];
  hn::StoreU(hn::Set(df, -std::numeric_limits<float>::infinity()), df, kept + found);
  return found;
}

Scanned Scan(const float* values, std::size_t count, float floor, float bar, const Thresholds& thresholds,
             std::int64_t* above, float* kept) {
  const DF df;
  const DI di;
  const std::size_t lanes = hn::Lanes(df);
  Scanned scanned{std::max<std::size_t>(thresholds.count, 1), 0, false};
  const std::size_t found = keep(values, count, floor, kept);
  if (found == 0) return {1, 0, false};
  for (std::size_t range = 0; range < thresholds.count; ++range) {
    const auto low = hn::Set(df, thresholds.low[range]), high = hn::Set(df, thresholds.high[range]);
    auto over = hn::Zero(di), at_least = hn::Zero(di);  // counted downwards: a mask is -1
    for (std::size_t at = 0; at < found; at += lanes) {
      const auto value = hn::LoadU(df, kept + at);
      over = hn::Add(over, hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(value, high))));
      at_least = hn::Add(at_least, hn::VecFromMask(di, hn::RebindMask(di, hn::Ge(value, low))));
    }
    above[range] -= hn::GetLane(hn::SumOfLanes(di, over));
    if (hn::AllTrue(di, hn::Eq(over, at_least))) continue;
    scanned.first_undecided = std::min(scanned.first_undecided, range);
    scanned.last_undecided = range;
  }
  const auto limit = hn::Set(df, bar);
  auto reached = hn::Zero(di);
  for (std::size_t at = 0; at < found; at += lanes)
    reached = hn::Or(reached, hn::VecFromMask(di, hn::RebindMask(di, hn::Ge(hn::LoadU(df, kept + at), limit))));
  scanned.reaches_bar = !hn::AllTrue(di, hn::Eq(reached, hn::Zero(di)));
  return scanned;
}

void Transpose(const float* values, std::size_t rows, std::size_t columns, float* out) {
  constexpr std::size_t kSide = 4, kBlock = 16;
  const std::size_t whole_rows = rows / kSide * kSide, whole_columns = columns / kSide * kSide;
  for (std::size_t edge = 0; edge < whole_columns; edge += kBlock)
    for (std::size_t row = 0; row < whole_rows; row += kSide)
      for (std::size_t column = edge; column < std::min(edge + kBlock, whole_columns); column += kSide)
        transpose_4x4(values + row * columns + column, columns, out + column * rows + row, rows);
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = row < whole_rows ? whole_columns : 0; column < columns; ++column)
      out[column * rows + row] = values[row * columns + column];
}

double DotFloat64(const float* a, const float* b, std::size_t dim) {
  alignas(64) double partial[8] = {};
  std::size_t at = 0;
#if HWY_HAVE_FLOAT64  // 32-bit ARM has no vectors of float64: the same sums, one by one
  using DD = hn::CappedTag<double, 8>;
  const DD d;
  const hn::Rebind<float, DD> df;
  constexpr std::size_t kLanes = hn::MaxLanes(DD()), kSums = 8 / kLanes;
  hn::VFromD<DD> sums[kSums];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (; at + 8 <= dim; at += 8) {
    for (std::size_t part = 0; part < kSums; ++part) {
      const std::size_t from = at + part * kLanes;
      const auto product =
          hn::Mul(hn::PromoteTo(d, hn::LoadU(df, a + from)), hn::PromoteTo(d, hn::LoadU(df, b + from)));
      sums[part] = hn::Add(sums[part], product);
    }
  }
  for (std::size_t part = 0; part < kSums; ++part) hn::Store(sums[part], d, partial + part * kLanes);
#endif
  for (; at < dim; ++at) partial[at % 8] += static_cast<double>(a[at]) * static_cast<double>(b[at]);
  return ((partial[0] + partial[1]) + (partial[2] + partial[3])) +
         ((partial[4] + partial[5]) + (partial[6] + partial[7]));
}

/// Row by row: `load(row, at)` gives a vector of a row's values, `tail(row, at)` one value.
template <typename Load, typename Tail>
HWY_INLINE void dots_in_order(const float* query, std::size_t count, std::size_t dim, float* out, const Load& load,
                              const Tail& tail) {
  const DF df;
  const std::size_t lanes = hn::Lanes(df);
  for (std::size_t row = 0; row < count; ++row) {
    auto sum0 = hn::Zero(df), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    std::size_t at = 0;
    for (; at + 4 * lanes <= dim; at += 4 * lanes) {
      sum0 = hn::MulAdd(hn::LoadU(df, query + at), load(row, at), sum0);
      sum1 = hn::MulAdd(hn::LoadU(df, query + at + lanes), load(row, at + lanes), sum1);
      sum2 = hn::MulAdd(hn::LoadU(df, query + at + 2 * lanes), load(row, at + 2 * lanes), sum2);
      sum3 = hn::MulAdd(hn::LoadU(df, query + at + 3 * lanes), load(row, at + 3 * lanes), sum3);
    }
    for (; at + lanes <= dim; at += lanes) sum0 = hn::MulAdd(hn::LoadU(df, query + at), load(row, at), sum0);
    float total = hn::GetLane(hn::SumOfLanes(df, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
    for (; at < dim; ++at) total += query[at] * tail(row, at);
    out[row] = total;
  }
}

/// Four rows at a time, which share the query's values; otherwise as above.
template <typename Load, typename Tail>
HWY_INLINE void dots_together(const float* query, std::size_t count, std::size_t dim, float* out, const Load& load,
                              const Tail& tail) {
  constexpr std::size_t kTogether = 4;
  const DF df;
  const std::size_t lanes = hn::Lanes(df);
  for (std::size_t first = 0; first < count; first += kTogether) {
    const auto row = [&](std::size_t index) { return std::min(first + index, count - 1); };
    auto sum0 = hn::Zero(df), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    std::size_t at = 0;
    for (; at + lanes <= dim; at += lanes) {
      const auto part = hn::LoadU(df, query + at);
      sum0 = hn::MulAdd(part, load(row(0), at), sum0);
      sum1 = hn::MulAdd(part, load(row(1), at), sum1);
      sum2 = hn::MulAdd(part, load(row(2), at), sum2);
      sum3 = hn::MulAdd(part, load(row(3), at), sum3);
    }
    float totals[kTogether] = {hn::GetLane(hn::SumOfLanes(df, sum0)), hn::GetLane(hn::SumOfLanes(df, sum1)),
                               hn::GetLane(hn::SumOfLanes(df, sum2)), hn::GetLane(hn::SumOfLanes(df, sum3))};
    for (std::size_t index = 0; index < kTogether && first + index < count; ++index) {
      for (std::size_t rest = at; rest < dim; ++rest) totals[index] += query[rest] * tail(first + index, rest);
      out[first + index] = totals[index];
    }
  }
}

void DotsFloat32(const float* query, const float* rows, std::size_t count, std::size_t dim, bool in_cache, float* out) {
  const DF df;
  const auto load = [&](std::size_t row, std::size_t at) HWY_ATTR { return hn::LoadU(df, rows + row * dim + at); };
  const auto tail = [&](std::size_t row, std::size_t at) { return rows[row * dim + at]; };
  if (in_cache)
    dots_together(query, count, dim, out, load, tail);
  else
    dots_in_order(query, count, dim, out, load, tail);
}

HWY_INLINE float half_to_float(const std::uint16_t* half) {
  const hn::CappedTag<float, 1> df;
  const hn::Rebind<hwy::float16_t, decltype(df)> dh;
  return hn::GetLane(hn::PromoteTo(df, hn::BitCast(dh, hn::LoadU(hn::Rebind<std::uint16_t, decltype(df)>(), half))));
}

void DotsFloat16(const float* query, const std::uint16_t* rows, std::size_t count, std::size_t dim, bool in_cache,
                 float* out) {
  const DF df;
  const hn::Rebind<hwy::float16_t, DF> dh;
  const hn::Rebind<std::uint16_t, DF> d16;
  const auto load = [&](std::size_t row, std::size_t at)
                        HWY_ATTR { return hn::PromoteTo(df, hn::BitCast(dh, hn::LoadU(d16, rows + row * dim + at))); };
  const auto tail = [&](std::size_t row, std::size_t at) { return half_to_float(rows + row * dim + at); };
  if (in_cache)
    dots_together(query, count, dim, out, load, tail);
  else
    dots_in_order(query, count, dim, out, load, tail);
}

void DotsInt8(const std::int8_t* query, const std::int8_t* rows, std::size_t count, std::size_t dim,
              std::int32_t* out) {
  const DI di;
  const hn::Repartition<std::int16_t, DI> d16;
  const hn::Rebind<std::int8_t, decltype(d16)> d8;
  const std::size_t lanes = hn::Lanes(d16);
  for (std::size_t row = 0; row < count; ++row) {
    const std::int8_t* codes = rows + row * dim;
    auto sum0 = hn::Zero(di), sum1 = hn::Zero(di);  // products of pairs end up in either
    std::size_t at = 0;
    for (; at + lanes <= dim; at += lanes) {
      const auto a = hn::PromoteTo(d16, hn::LoadU(d8, query + at)), b = hn::PromoteTo(d16, hn::LoadU(d8, codes + at));
      sum0 = hn::ReorderWidenMulAccumulate(di, a, b, sum0, sum1);
    }
    std::int32_t total = hn::GetLane(hn::SumOfLanes(di, hn::Add(sum0, sum1)));
    for (; at < dim; ++at) total += query[at] * codes[at];
    out[row] = total;
  }
}

void Scaled(const std::int32_t* sums, const float* scales, std::size_t count, float* out) {
  const DF df;
  const DI di;
  const std::size_t lanes = hn::Lanes(df);
  std::size_t at = 0;
  for (; at + lanes <= count; at += lanes)
    hn::StoreU(hn::Mul(hn::ConvertTo(df, hn::LoadU(di, sums + at)), hn::LoadU(df, scales + at)), df, out + at);
  for (; at < count; ++at) out[at] = static_cast<float>(sums[at]) * scales[at];
}

void ToFloat16(const float* values, std::size_t count, std::uint16_t* out) {
  const DF df;
  const std::size_t lanes = hn::Lanes(df);
  std::size_t at = 0;
  for (; at + lanes <= count; at += lanes) store_half(df, hn::LoadU(df, values + at), out + at);
  for (; at < count; ++at) out[at] = half_of(values[at]);
}

void FromFloat16(const std::uint16_t* values, std::size_t count, float* out) {
  const DF df;
  const hn::Rebind<hwy::float16_t, DF> dh;
  const hn::Rebind<std::uint16_t, DF> d16;
  const std::size_t lanes = hn::Lanes(df);
  std::size_t at = 0;
  for (; at + lanes <= count; at += lanes)
    hn::StoreU(hn::PromoteTo(df, hn::BitCast(dh, hn::LoadU(d16, values + at))), df, out + at);
  for (; at < count; ++at) out[at] = half_to_float(values + at);
}

}  // namespace edgerecall::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgerecall::kernels {

HWY_EXPORT(Select);
HWY_EXPORT(Scan);
HWY_EXPORT(Transpose);
HWY_EXPORT(DotFloat64);
HWY_EXPORT(DotsFloat32);
HWY_EXPORT(DotsFloat16);
HWY_EXPORT(DotsInt8);
HWY_EXPORT(Scaled);
HWY_EXPORT(ToFloat16);
HWY_EXPORT(FromFloat16);

std::size_t select(const float* values, std::size_t count, float low, float high, std::uint32_t* positions) {
  return HWY_DYNAMIC_DISPATCH(Select)(values, count, low, high, positions);
}
Scanned scan(const float* values, std::size_t count, float floor, float bar, const Thresholds& thresholds,
             std::int64_t* above, float* kept) {
  return HWY_DYNAMIC_DISPATCH(Scan)(values, count, floor, bar, thresholds, above, kept);
}
void transpose(const float* values, std::size_t rows, std::size_t columns, float* out) {
  HWY_DYNAMIC_DISPATCH(Transpose)(values, rows, columns, out);
}
double dot_float64(const float* a, const float* b, std::size_t dim) {
  return HWY_DYNAMIC_DISPATCH(DotFloat64)(a, b, dim);
}
void dots_float32(const float* query, const float* rows, std::size_t count, std::size_t dim, bool in_cache,
                  float* out) {
  HWY_DYNAMIC_DISPATCH(DotsFloat32)(query, rows, count, dim, in_cache, out);
}
void dots_float16(const float* query, const std::uint16_t* rows, std::size_t count, std::size_t dim, bool in_cache,
                  float* out) {
  HWY_DYNAMIC_DISPATCH(DotsFloat16)(query, rows, count, dim, in_cache, out);
}
void dots_int8(const std::int8_t* query, const std::int8_t* rows, std::size_t count, std::size_t dim,
               std::int32_t* out) {
  if (has_dot_product()) return dots_int8_by_instruction(query, rows, count, dim, out);
  HWY_DYNAMIC_DISPATCH(DotsInt8)(query, rows, count, dim, out);
}
void scaled(const std::int32_t* sums, const float* scales, std::size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(Scaled)(sums, scales, count, out);
}
void to_float16(const float* values, std::size_t count, std::uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(ToFloat16)(values, count, out);
}
void from_float16(const std::uint16_t* values, std::size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(FromFloat16)(values, count, out);
}

double float32_error(std::size_t dim, double length_a, double length_b) {
  const double steps = static_cast<double>(dim) + 4;
  const double unit = std::ldexp(1.0, -24);
  const double underflow = steps * std::ldexp(1.0, -126);
  return 1.01 * steps * unit * length_a * length_b + underflow;
}

float rounded_down(double value) {
  return std::nextafter(static_cast<float>(value), -std::numeric_limits<float>::infinity());
}

double checked_length(const float* row, std::size_t dim, const char* what, std::size_t number) {
  const double square = dot_float64(row, row, dim);
  if (!(square < 1e36))
    throw InputError(std::string(what) + " " + std::to_string(number) + " is not finite, or too large");
  return std::sqrt(square);
}

}  // namespace edgerecall::kernels
#endif

#include "preprocess/pixel_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "preprocess/pixel_kernels.cpp"
#include "hwy/foreach_target.h"  // compiles this file once for each target
#include "hwy/highway.h"
#include "base/half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace edgerecall::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D32 = hn::CappedTag<std::int32_t, 16>;
using DF = hn::Rebind<float, D32>;
using D8 = hn::Repartition<std::uint8_t, D32>;          // as many bytes as fit
using DN8 = hn::Rebind<std::uint8_t, D32>;              // as many bytes as there are int32 lanes
constexpr std::size_t kRows = hn::MaxLanes(D32()) / 4;  // a 128-bit block holds one pixel, four int32

/// 16 bytes of each of kRows rows, one row a block.
HWY_INLINE hn::VFromD<D8> load_rows(const std::uint8_t* const* rows, std::size_t offset) {
  const D8 d;
  const auto block = [&](std::size_t row) HWY_ATTR { return hn::LoadDup128(d, rows[row] + offset); };
  if constexpr (kRows == 1) {
    return block(0);
  } else if constexpr (kRows == 2) {
    return hn::OddEvenBlocks(block(1), block(0));
  } else {
    return hn::ConcatUpperLower(d, hn::OddEvenBlocks(block(3), block(2)), hn::OddEvenBlocks(block(1), block(0)));
  }
}

/// Five pixels fit 16 bytes: table t spreads the three bytes of pixel t over the low bytes of the four int32 lanes.
constexpr std::size_t kPixels = 5;
#define EDGERECALL_SPREAD(t) \
  3 * t, 128, 128, 128, 3 * t + 1, 128, 128, 128, 3 * t + 2, 128, 128, 128, 128, 128, 128, 128
alignas(16) constexpr std::uint8_t kSpread[kPixels][16] = {{EDGERECALL_SPREAD(0)},
                                                           {EDGERECALL_SPREAD(1)},
                                                           {EDGERECALL_SPREAD(2)},
                                                           {EDGERECALL_SPREAD(3)},
                                                           {EDGERECALL_SPREAD(4)}};
#undef EDGERECALL_SPREAD

/// The bytes at the indices, 0 for 128. Highway 1.0 takes them one by one in WebAssembly, which has an instruction.
HWY_INLINE hn::VFromD<D8> looked_up(hn::VFromD<D8> bytes, hn::VFromD<D8> indices) {
#if HWY_TARGET == HWY_WASM
  return hn::VFromD<D8>{wasm_i8x16_swizzle(bytes.raw, indices.raw)};
#else
  return hn::TableLookupBytesOr0(bytes, indices);
#endif
}

/// Samples as numbers of the weights' type.
HWY_INLINE hn::VFromD<D32> as_numbers(D32, hn::VFromD<D32> samples) { return samples; }
HWY_INLINE hn::VFromD<DF> as_numbers(DF d, hn::VFromD<D32> samples) { return hn::ConvertTo(d, samples); }

/// Weighted sums, added up from left to right, of one output pixel in kRows rows at once; `emit` gets them with the
/// output's index.
template <typename Weight, typename Emit>
HWY_INLINE void convolve_rows(const std::uint8_t* const* rows, const TapsOf<Weight>& taps, int origin, Weight bias,
                              const Emit& emit) {
  const hn::Rebind<Weight, D32> d;
  const D8 d8;
  const auto spread0 = hn::LoadDup128(d8, kSpread[0]), spread1 = hn::LoadDup128(d8, kSpread[1]),
             spread2 = hn::LoadDup128(d8, kSpread[2]), spread3 = hn::LoadDup128(d8, kSpread[3]),
             spread4 = hn::LoadDup128(d8, kSpread[4]);
  const std::size_t outputs = taps.start.size();
  for (std::size_t output = 0; output < outputs; ++output) {
    std::size_t offset = static_cast<std::size_t>(taps.start[output] - origin) * 3;
    const Weight* weights = taps.of(static_cast<int>(output));
    auto sum = hn::Set(d, bias);
    const auto add = [&](hn::VFromD<D8> bytes, hn::VFromD<D8> spread, Weight weight) HWY_ATTR {
      const auto samples = hn::BitCast(D32(), looked_up(bytes, spread));
      sum = hn::Add(sum, hn::Mul(as_numbers(d, samples), hn::Set(d, weight)));
    };
    for (int left = taps.count[output]; left > 0; left -= static_cast<int>(kPixels)) {
      const auto bytes = load_rows(rows, offset);
      add(bytes, spread0, weights[0]);
      if (left > 1) add(bytes, spread1, weights[1]);
      if (left > 2) add(bytes, spread2, weights[2]);
      if (left > 3) add(bytes, spread3, weights[3]);
      if (left > 4) add(bytes, spread4, weights[4]);
      offset += kPixels * 3;
      weights += kPixels;
    }
    emit(output, sum);
  }
}

/// Calls `work` for the rows in groups of kRows; a short last group does its last row more than once.
template <typename T, typename Work>
HWY_INLINE void in_groups(const std::uint8_t* const* rows, int count, T* const* out, const Work& work) {
  const auto total = static_cast<std::size_t>(count);
  for (std::size_t begin = 0; begin < total; begin += kRows) {
    const std::uint8_t* sources[kRows];
    T* targets[kRows];
    const std::size_t there = std::min(kRows, total - begin);
    for (std::size_t row = 0; row < kRows; ++row) {
      sources[row] = rows[begin + std::min(row, there - 1)];
      targets[row] = out[begin + std::min(row, there - 1)];  // the same values written twice
    }
    work(sources, targets);
  }
}

void HorizontalPil(const std::uint8_t* const* rows, int count, const Taps& taps, int origin, std::uint8_t* const* out) {
  in_groups(rows, count, out, [&](const std::uint8_t* const* sources, std::uint8_t* const* targets) HWY_ATTR {
    convolve_rows(sources, taps, origin, std::int32_t{1} << (kPilBits - 1),
                  [&](std::size_t output, hn::VFromD<D32> sum) HWY_ATTR {
                    alignas(16) std::uint8_t pixels[kRows * 4];
                    const DN8 d;
                    hn::StoreU(hn::DemoteTo(d, hn::ShiftRight<kPilBits>(sum)), d, pixels);
                    for (std::size_t row = 0; row < kRows; ++row)
                      std::memcpy(targets[row] + output * 3, pixels + row * 4, 4);
                  });
  });
}

void HorizontalCv2(const std::uint8_t* const* rows, int count, const Taps& taps, int origin, std::int32_t* const* out) {
  in_groups(rows, count, out, [&](const std::uint8_t* const* sources, std::int32_t* const* targets) HWY_ATTR {
    convolve_rows(sources, taps, origin, std::int32_t{0}, [&](std::size_t output, hn::VFromD<D32> sum) HWY_ATTR {
      alignas(64) std::int32_t pixels[kRows * 4];
      hn::Store(sum, D32(), pixels);
      for (std::size_t row = 0; row < kRows; ++row) std::memcpy(targets[row] + output * 3, pixels + row * 4, 16);
    });
  });
}

void HorizontalArea(const std::uint8_t* const* rows, int count, const TapsOf<float>& taps, int origin,
                    float* const* out) {
  in_groups(rows, count, out, [&](const std::uint8_t* const* sources, float* const* targets) HWY_ATTR {
    convolve_rows(sources, taps, origin, 0.0f, [&](std::size_t output, hn::VFromD<DF> sum) HWY_ATTR {
      alignas(64) float pixels[kRows * 4];
      hn::Store(sum, DF(), pixels);
      for (std::size_t row = 0; row < kRows; ++row) std::memcpy(targets[row] + output * 3, pixels + row * 4, 16);
    });
  });
}

void VerticalArea(const float* rows, std::size_t stride, const float* weights, int count, std::size_t elements,
                  std::uint8_t* out) {
  const DF df;
  const DN8 dn;
  for (std::size_t at = 0; at < elements; at += hn::Lanes(df)) {
    const float* row = rows + at;
    auto sum = hn::Mul(hn::LoadU(df, row), hn::Set(df, weights[0]));
    for (int tap = 1; tap < count; ++tap)
      sum =
          hn::Add(sum, hn::Mul(hn::LoadU(df, row + static_cast<std::size_t>(tap) * stride), hn::Set(df, weights[tap])));
    hn::StoreU(hn::DemoteTo(dn, hn::NearestInt(sum)), dn, out + at);
  }
}

void VerticalPil(const std::uint8_t* const* rows, const std::int32_t* weights, int count, std::size_t bytes,
                 std::uint8_t* out) {
  const D32 d;
  const DN8 dn;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t at = 0; at < bytes; at += 2 * lanes) {
    auto low = hn::Set(d, 1 << (kPilBits - 1)), high = low;
    for (int tap = 0; tap < count; ++tap) {
      const std::uint8_t* row = rows[tap] + at;
      const auto weight = hn::Set(d, weights[tap]);
      low = hn::Add(low, hn::Mul(hn::PromoteTo(d, hn::LoadU(dn, row)), weight));
      high = hn::Add(high, hn::Mul(hn::PromoteTo(d, hn::LoadU(dn, row + lanes)), weight));
    }
    hn::StoreU(hn::DemoteTo(dn, hn::ShiftRight<kPilBits>(low)), dn, out + at);
    hn::StoreU(hn::DemoteTo(dn, hn::ShiftRight<kPilBits>(high)), dn, out + at + lanes);
  }
}

void VerticalCv2Linear(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                       std::uint8_t* out) {
  const D32 d;
  const DN8 dn;
  const auto w0 = hn::Set(d, weights[0]), w1 = hn::Set(d, weights[1]), half = hn::Set(d, 2);
  for (std::size_t at = 0; at < elements; at += hn::Lanes(d)) {
    const auto first = hn::ShiftRight<16>(hn::Mul(w0, hn::ShiftRight<4>(hn::LoadU(d, rows[0] + at))));
    const auto second = hn::ShiftRight<16>(hn::Mul(w1, hn::ShiftRight<4>(hn::LoadU(d, rows[1] + at))));
    hn::StoreU(hn::DemoteTo(dn, hn::ShiftRight<2>(hn::Add(hn::Add(first, second), half))), dn, out + at);
  }
}

/// The integer form of OpenCV's second pass, elements [begin, end).
template <int kTaps>
HWY_INLINE void vertical_integers(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t begin,
                                  std::size_t end, std::uint8_t* out) {
  const D32 d;
  const DN8 dn;
  for (std::size_t at = begin; at < end; at += hn::Lanes(d)) {
    auto sum = hn::Set(d, 1 << (2 * kCv2Bits - 1));
    for (int tap = 0; tap < kTaps; ++tap)
      sum = hn::Add(sum, hn::Mul(hn::LoadU(d, rows[tap] + at), hn::Set(d, weights[tap])));
    hn::StoreU(hn::DemoteTo(dn, hn::ShiftRight<2 * kCv2Bits>(sum)), dn, out + at);
  }
}

void VerticalCv2Cubic(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                      std::size_t vector_end, std::uint8_t* out) {
  const D32 d;
  const DF df;
  const DN8 dn;
  constexpr float kScale = 1.0f / (1 << (2 * kCv2Bits));
  const auto part = [&](int tap, std::size_t at) HWY_ATTR {
    const auto weight = hn::Set(df, static_cast<float>(weights[tap]) * kScale);
    return hn::Mul(hn::ConvertTo(df, hn::LoadU(d, rows[tap] + at)), weight);
  };
  for (std::size_t at = 0; at < vector_end; at += hn::Lanes(d)) {
    const auto sum = hn::Add(part(0, at), hn::Add(part(1, at), hn::Add(part(2, at), part(3, at))));
    hn::StoreU(hn::DemoteTo(dn, hn::NearestInt(sum)), dn, out + at);
  }
  vertical_integers<4>(rows, weights, vector_end, elements, out);
}

void VerticalCv2Lanczos(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                        std::uint8_t* out) {
  vertical_integers<8>(rows, weights, 0, elements, out);
}

/// A quotient rounded as IEEE 754 says: NEON of 32-bit ARM only comes near it.
template <typename V>
HWY_INLINE V divided(V values, float divisor) {
  const DF df;
#if HWY_ARCH_ARM_V7
  alignas(64) float lanes[hn::MaxLanes(DF())];
  hn::Store(values, df, lanes);
  for (float& value : lanes) value /= divisor;
  return hn::Load(df, lanes);
#else
  return hn::Div(values, hn::Set(df, divisor));
#endif
}

/// Calls `store(channel, x, values)` for every group of pixels; the last group is moved back to end with the row.
template <typename Store>
HWY_INLINE void normalize(const std::uint8_t* rgb, std::size_t width, const RowNormalizer& rule, const Store& store) {
  const D32 d;
  const DF df;
  const DN8 dn;
  const auto scale = hn::Set(df, rule.scale);
  const std::size_t lanes = hn::Lanes(d);
  const auto convert = [&](hn::VFromD<DN8> bytes, int channel) HWY_ATTR {
    const auto values = hn::ConvertTo(df, hn::PromoteTo(d, bytes));
    const auto centred = hn::Sub(hn::Mul(values, scale), hn::Set(df, rule.mean[channel]));
    return divided(centred, rule.std[channel]);
  };
  for (std::size_t x = 0; x < width; x += lanes) {
    const std::size_t at = std::min(x, width - lanes);
    hn::VFromD<DN8> red, green, blue;
    hn::LoadInterleaved3(dn, rgb + at * 3, red, green, blue);
    store(0, at, convert(red, 0));
    store(1, at, convert(green, 1));
    store(2, at, convert(blue, 2));
  }
}

/// Rows shorter than a vector go through one that is long enough.
template <typename T, typename Row>
HWY_INLINE void widened(const std::uint8_t* rgb, std::size_t width, T* const* planes, const Row& row) {
  const std::size_t lanes = hn::Lanes(D32());
  if (width >= lanes) return row(rgb, width, planes);
  std::uint8_t pixels[3 * hn::MaxLanes(D32())] = {};
  T values[3][hn::MaxLanes(D32())];
  std::memcpy(pixels, rgb, width * 3);
  T* const wide[] = {values[0], values[1], values[2]};
  row(pixels, lanes, wide);
  for (int channel = 0; channel < 3; ++channel) std::memcpy(planes[channel], values[channel], width * sizeof(T));
}

void NormalizeFloat32(const std::uint8_t* rgb, std::size_t width, const RowNormalizer& rule, float* const* planes) {
  const DF df;
  widened(rgb, width, planes, [&](const std::uint8_t* pixels, std::size_t count, float* const* out) HWY_ATTR {
    normalize(pixels, count, rule, [&](int channel, std::size_t x, hn::VFromD<DF> values) HWY_ATTR {
      hn::StoreU(values, df, out[channel] + x);
    });
  });
}

void NormalizeFloat16(const std::uint8_t* rgb, std::size_t width, const RowNormalizer& rule,
                      std::uint16_t* const* planes) {
  const DF df;
  widened(rgb, width, planes, [&](const std::uint8_t* pixels, std::size_t count, std::uint16_t* const* out) HWY_ATTR {
    normalize(pixels, count, rule, [&](int channel, std::size_t x, hn::VFromD<DF> values) HWY_ATTR {
      store_half(df, values, out[channel] + x);
    });
  });
}

}  // namespace edgerecall::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace edgerecall::kernels {

HWY_EXPORT(HorizontalPil);
HWY_EXPORT(HorizontalCv2);
HWY_EXPORT(HorizontalArea);
HWY_EXPORT(VerticalArea);
HWY_EXPORT(VerticalPil);
HWY_EXPORT(VerticalCv2Linear);
HWY_EXPORT(VerticalCv2Cubic);
HWY_EXPORT(VerticalCv2Lanczos);
HWY_EXPORT(NormalizeFloat32);
HWY_EXPORT(NormalizeFloat16);

void horizontal_pil(const std::uint8_t* const* rows, int count, const Taps& taps, int origin,
                    std::uint8_t* const* out) {
  HWY_DYNAMIC_DISPATCH(HorizontalPil)(rows, count, taps, origin, out);
}
void horizontal_cv2(const std::uint8_t* const* rows, int count, const Taps& taps, int origin,
                    std::int32_t* const* out) {
  HWY_DYNAMIC_DISPATCH(HorizontalCv2)(rows, count, taps, origin, out);
}
void horizontal_area(const std::uint8_t* const* rows, int count, const TapsOf<float>& taps, int origin,
                     float* const* out) {
  HWY_DYNAMIC_DISPATCH(HorizontalArea)(rows, count, taps, origin, out);
}
void vertical_area(const float* rows, std::size_t stride, const float* weights, int count, std::size_t elements,
                   std::uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(VerticalArea)(rows, stride, weights, count, elements, out);
}
void vertical_pil(const std::uint8_t* const* rows, const std::int32_t* weights, int count, std::size_t bytes,
                  std::uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(VerticalPil)(rows, weights, count, bytes, out);
}
void vertical_cv2_linear(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                         std::uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(VerticalCv2Linear)(rows, weights, elements, out);
}
void vertical_cv2_cubic(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                        std::size_t vector_end, std::uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(VerticalCv2Cubic)(rows, weights, elements, vector_end, out);
}
void vertical_cv2_lanczos(const std::int32_t* const* rows, const std::int32_t* weights, std::size_t elements,
                          std::uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(VerticalCv2Lanczos)(rows, weights, elements, out);
}
void normalize_float32(const std::uint8_t* rgb, std::size_t width, const RowNormalizer& rule, float* const* planes) {
  HWY_DYNAMIC_DISPATCH(NormalizeFloat32)(rgb, width, rule, planes);
}
void normalize_float16(const std::uint8_t* rgb, std::size_t width, const RowNormalizer& rule,
                       std::uint16_t* const* planes) {
  HWY_DYNAMIC_DISPATCH(NormalizeFloat16)(rgb, width, rule, planes);
}

}  // namespace edgerecall::kernels
#endif

#include "preprocess/taps.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace edgerecall {
namespace {

constexpr double kPi = 3.14159265358979323846;

double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * kPi) / (x * kPi); }

/// A Pillow filter: its half-width at scale 1, and its value at a distance.
struct Kernel {
  double support;
  double (*value)(double);
};

Kernel kernel_of(Filter filter) {
  switch (filter) {
    case Filter::box: return {0.5, [](double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }};
    case Filter::hamming:
      return {1.0, [](double x) {
                x = std::fabs(x);
                if (x == 0.0) return 1.0;
                if (x >= 1.0) return 0.0;
                x *= kPi;
                return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));  // float32 constants, as Pillow has them
              }};
    case Filter::bicubic:  // Keys' cubic convolution, a = -0.5
      return {2.0, [](double x) {
                constexpr double a = -0.5;
                x = std::fabs(x);
                if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
                if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
                return 0.0;
              }};
    case Filter::lanczos: return {3.0, [](double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }};
    default:
      return {1.0, [](double x) {
                x = std::fabs(x);
                return x < 1.0 ? 1.0 - x : 0.0;
              }};
  }
}

/// Half away from zero.
std::int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kPilBits);
  return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

/// Half to even, cut to 16 bits.
std::int32_t to_cv2_fixed(float weight) {
  const float scaled = weight * (1 << kCv2Bits);
  return static_cast<std::int32_t>(std::clamp(std::lrint(scaled), -32768L, 32767L));
}

using Weights = std::array<float, 8>;

Weights cubic_weights(float x) {
  constexpr float a = -0.75f;
  Weights w{};
  w[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
  w[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
  w[2] = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
  w[3] = 1.0f - w[0] - w[1] - w[2];
  return w;
}

Weights lanczos_weights(float x) {
  constexpr double h = 0.70710678118654752440;
  // sin((x + 3 - i) * pi / 4) by the addition theorem: the multiples of 45 degrees.
  static constexpr double turns[8][2] = {{1, 0}, {-h, -h}, {0, 1}, {h, -h}, {-1, 0}, {h, h}, {0, -1}, {-h, h}};
  Weights w{};
  const double angle = -(x + 3) * kPi * 0.25;
  const double sine = std::sin(angle), cosine = std::cos(angle);
  float sum = 0;
  for (int i = 0; i < 8; ++i) {
    const float distance = x + 3 - static_cast<float>(i);
    float& weight = w[static_cast<std::size_t>(i)];
    if (std::fabs(distance) >= 1e-6f) {
      const double y = -distance * kPi * 0.25;
      weight = static_cast<float>((turns[i][0] * sine + turns[i][1] * cosine) / (y * y));
    } else {
      weight = 1e30f;  // on a sample: it alone counts once the sum is divided out
    }
    sum += weight;
  }
  sum = 1.0f / sum;
  for (float& weight : w) weight *= sum;
  return w;
}

}  // namespace

Taps pil_taps(int from, int to, int begin, int end, Filter filter) {
  const Kernel kernel = kernel_of(filter);
  const double scale = static_cast<double>(from) / to;
  const double stretch = std::max(scale, 1.0);
  const double support = kernel.support * stretch;
  const double shrink = 1.0 / stretch;
  Taps taps;
  taps.width = static_cast<int>(std::ceil(support)) * 2 + 1;
  const auto outputs = static_cast<std::size_t>(end - begin);
  taps.start.resize(outputs);
  taps.count.resize(outputs);
  taps.weights.assign(outputs * static_cast<std::size_t>(taps.width), 0);
  std::vector<double> values(static_cast<std::size_t>(taps.width));
  for (int output = begin; output < end; ++output) {
    const auto index = static_cast<std::size_t>(output - begin);
    const double center = (output + 0.5) * scale;
    const int low = std::max(static_cast<int>(center - support + 0.5), 0);
    const int high = std::min(static_cast<int>(center + support + 0.5), from);
    const int count = high - low;
    double sum = 0.0;
    for (int tap = 0; tap < count; ++tap) {
      const double value = kernel.value((tap + low - center + 0.5) * shrink);
      values[static_cast<std::size_t>(tap)] = value;
      sum += value;
    }
    taps.start[index] = low;
    taps.count[index] = count;
    std::int32_t* weights = taps.weights.data() + index * static_cast<std::size_t>(taps.width);
    for (int tap = 0; tap < count; ++tap) {
      const double value = values[static_cast<std::size_t>(tap)];
      weights[tap] = to_fixed(sum != 0.0 ? value / sum : value);
    }
  }
  return taps;
}

Taps cv2_taps(int from, int to, int begin, int end, Filter filter, bool horizontal) {
  const double inverse = static_cast<double>(to) / from;
  const double scale = 1.0 / inverse;
  const int width = filter == Filter::bicubic ? 4 : filter == Filter::lanczos ? 8 : 2;
  Taps taps;
  taps.width = width;
  const auto outputs = static_cast<std::size_t>(end - begin);
  taps.start.resize(outputs);
  taps.count.assign(outputs, width);
  taps.weights.assign(outputs * static_cast<std::size_t>(width), 0);
  for (int output = begin; output < end; ++output) {
    const auto index = static_cast<std::size_t>(output - begin);
    float fraction;
    int sample;
    if (filter == Filter::area) {  // enlarging: bilinear with pixel areas kept
      sample = static_cast<int>(std::floor(output * scale));
      fraction = static_cast<float>((output + 1) - (sample + 1) * inverse);
      fraction = fraction <= 0 ? 0.0f : fraction - std::floor(fraction);
    } else {
      fraction = static_cast<float>((output + 0.5) * scale - 0.5);
      sample = static_cast<int>(std::floor(fraction));
      fraction -= static_cast<float>(sample);
    }
    if (horizontal && width == 2 && (sample < 0 || sample >= from - 1)) {
      fraction = 0;
      sample = sample < 0 ? 0 : from - 1;
    }
    Weights values{};
    if (width == 4) {
      values = cubic_weights(fraction);
    } else if (width == 8) {
      values = lanczos_weights(fraction);
    } else {
      values[0] = 1.0f - fraction;
      values[1] = fraction;
    }
    const int low = sample - width / 2 + 1;
    std::int32_t* weights = taps.weights.data() + index * static_cast<std::size_t>(width);
    if (!horizontal) {
      taps.start[index] = low;
      for (int tap = 0; tap < width; ++tap) weights[tap] = to_cv2_fixed(values[static_cast<std::size_t>(tap)]);
      continue;
    }
    const int first = std::clamp(low, 0, from - 1), last = std::clamp(low + width - 1, 0, from - 1);
    taps.start[index] = first;
    taps.count[index] = last - first + 1;
    for (int tap = 0; tap < width; ++tap)
      weights[std::clamp(low + tap, 0, from - 1) - first] += to_cv2_fixed(values[static_cast<std::size_t>(tap)]);
  }
  return taps;
}

std::vector<int> nearest_taps(int from, int to, int begin, int end, Backend backend) {
  std::vector<int> sources(static_cast<std::size_t>(end - begin));
  if (backend == Backend::cv2) {
    const double scale = 1.0 / (static_cast<double>(to) / from);
    for (int output = begin; output < end; ++output)
      sources[static_cast<std::size_t>(output - begin)] =
          std::min(static_cast<int>(std::floor(output * scale)), from - 1);
    return sources;
  }
  const double scale = static_cast<double>(from) / to;
  double position = scale * 0.5;  // added up, not multiplied: Pillow's rounding
  for (int output = 0; output < end; ++output, position += scale)
    if (output >= begin)
      sources[static_cast<std::size_t>(output - begin)] = std::min(static_cast<int>(position), from - 1);
  return sources;
}

TapsOf<float> area_taps(int from, int to, int begin, int end) {
  constexpr double kTiny = 1e-3;  // smaller shares of a sample are left out
  const double scale = 1.0 / (static_cast<double>(to) / from);
  TapsOf<float> taps;
  taps.width = std::min(static_cast<int>(std::ceil(scale)) + 2, from);
  taps.weights.assign(static_cast<std::size_t>(end - begin) * static_cast<std::size_t>(taps.width), 0.0f);
  for (int output = begin; output < end; ++output) {
    const double low = output * scale, high = low + scale;
    const double cell = std::min(scale, from - low);
    const int last = std::min(static_cast<int>(std::floor(high)), from - 1);
    const int first = std::min(static_cast<int>(std::ceil(low)), last);
    float* weights = taps.weights.data() + taps.start.size() * static_cast<std::size_t>(taps.width);
    int count = 0;
    if (first - low > kTiny) weights[count++] = static_cast<float>((first - low) / cell);
    taps.start.push_back(first - count);
    for (int sample = first; sample < last; ++sample) weights[count++] = static_cast<float>(1.0 / cell);
    if (high - last > kTiny) weights[count++] = static_cast<float>(std::min(std::min(high - last, 1.0), cell) / cell);
    taps.count.push_back(count);
  }
  return taps;
}

}  // namespace edgerecall

// Which source samples each output sample is made from, and with what integer weights.
#pragma once
#include <cstdint>
#include <vector>

#include "edgerecall/resize.h"

namespace edgerecall {

/// Along one axis, for a range of outputs. Output i is the weighted sum of `count[i]` samples from `start[i]` on.
template <typename Weight>
struct TapsOf {
  std::vector<int> start;
  std::vector<int> count;
  std::vector<Weight> weights;  // `width` of them for each output
  int width = 0;

  const Weight* of(int index) const {
    return weights.data() + static_cast<std::size_t>(index) * static_cast<std::size_t>(width);
  }
  /// First sample read by any output, and the one behind the last. Outputs read from left to right.
  int first() const { return start.empty() ? 0 : start.front(); }
  int last() const { return start.empty() ? 0 : start.back() + count.back(); }
};

using Taps = TapsOf<std::int32_t>;

constexpr int kPilBits = 22;  // of the fixed point in which Pillow convolves
constexpr int kCv2Bits = 11;  // of one of OpenCV's two passes

/// Pillow's antialiased filters: outputs [begin, end) of a resize from `from` to `to` samples.
Taps pil_taps(int from, int to, int begin, int end, Filter filter);

/// OpenCV's bilinear, bicubic and Lanczos. Samples beyond the border repeat the border's: horizontally the weights are
/// already added up; vertically the caller clamps, as OpenCV does, `start` may be negative and `count` is full.
Taps cv2_taps(int from, int to, int begin, int end, Filter filter, bool horizontal);

/// Source index of nearest-neighbour outputs [begin, end).
std::vector<int> nearest_taps(int from, int to, int begin, int end, Backend backend);

/// OpenCV's area filter when it shrinks: the share of each sample in the output's cell.
TapsOf<float> area_taps(int from, int to, int begin, int end);

}  // namespace edgerecall

#include "edgerecall/resize.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "edgerecall/error.h"
#include "pixel_kernels.h"
#include "taps.h"

namespace edgerecall {
namespace {

using std::size_t;

/// What a rule comes down to for a pair of sizes.
enum class Method { copy, nearest, pil, cv2, area, area_blocks };

struct Choice {
  Method method;
  Filter filter;
};

/// The whole-number ratio of a shrink, or 0.
int whole_ratio(int from, int to) {
  const double ratio = 1.0 / (static_cast<double>(to) / from);
  const double rounded = std::nearbyint(ratio);
  return std::fabs(ratio - rounded) < DBL_EPSILON ? static_cast<int>(rounded) : 0;
}

Choice choose(ImageSize from, ImageSize to, const Resampling& rule) {
  if (from == to) return {Method::copy, rule.filter};
  if (rule.filter == Filter::nearest) return {Method::nearest, rule.filter};
  if (rule.backend != Backend::cv2) return {Method::pil, rule.filter};
  const int down = whole_ratio(from.height, to.height), across = whole_ratio(from.width, to.width);
  const bool half = rule.filter == Filter::bilinear && down == 2 && across == 2;  // OpenCV then averages
  const bool shrinks = to.height <= from.height && to.width <= from.width;
  if (half || (rule.filter == Filter::area && shrinks))
    return {down > 0 && across > 0 ? Method::area_blocks : Method::area, Filter::area};
  return {Method::cv2, rule.filter};
}

size_t row_bytes(const Window& window) { return static_cast<size_t>(window.size.width) * 3; }

/// Rows with room for the kernels to run over.
template <typename T>
class Rows {
 public:
  Rows(int count, size_t elements)
      : stride_((elements + kernels::kOverrun + 63) / 64 * 64), data_(new T[stride_ * static_cast<size_t>(count) + 64]) {}
  T* operator[](int row) { return data_.get() + static_cast<size_t>(row) * stride_; }
  size_t stride() const { return stride_; }

 private:
  size_t stride_;
  std::unique_ptr<T[]> data_;
};

/// A region whose bytes may be read past the end: itself, or the needed part of it in `copy`.
Region with_slack(const Region& region, const Window& part, Image& copy) {
  if (region.view.slack >= Image::kSlack) return region;
  copy = Image(part.size);
  for (int y = 0; y < part.size.height; ++y)
    std::memcpy(copy.row(y), region.pixel(part.top + y, part.left), row_bytes(part));
  std::memset(copy.row(part.size.height), 0, Image::kSlack);
  return Region(copy.view(), region.full, part);
}

void run_copy(const Region& region, const Window& window, const RowSink& sink) {
  for (int y = 0; y < window.size.height; ++y) sink(y, region.pixel(window.top + y, window.left));
}

void run_nearest(const Region& region, ImageSize target, const Window& window, Backend backend, const RowSink& sink) {
  const auto xs = nearest_taps(region.full.width, target.width, window.left, window.left + window.size.width, backend);
  const auto ys = nearest_taps(region.full.height, target.height, window.top, window.top + window.size.height, backend);
  std::vector<std::uint8_t> row(row_bytes(window));
  for (int y = 0; y < window.size.height; ++y) {
    for (size_t x = 0; x < xs.size(); ++x)
      std::memcpy(row.data() + x * 3, region.pixel(ys[static_cast<size_t>(y)], xs[x]), 3);
    sink(y, row.data());
  }
}

/// Pillow 13's choice of the pass that comes first.
bool down_first(ImageSize from, ImageSize to, Backend backend) {
  const int shrink = from.height - to.height;
  return backend == Backend::pil && shrink > 0 && shrink > (from.width - to.width) * 2;
}

/// Rows of bytes, `stride` apart.
struct Plane {
  const std::uint8_t* data;
  size_t stride;
};

/// Pillow's pass along x over `count` rows whose first byte is of column `origin`.
Plane pass_across(const Plane& from, int count, const Taps& taps, int origin, Rows<std::uint8_t>& to) {
  std::vector<const std::uint8_t*> sources;
  std::vector<std::uint8_t*> targets;
  for (int y = 0; y < count; ++y) {
    sources.push_back(from.data + static_cast<size_t>(y) * from.stride);
    targets.push_back(to[y]);
  }
  kernels::horizontal_pil(sources.data(), count, taps, origin, targets.data());
  return {to[0], to.stride()};
}

/// Output row y of Pillow's pass along y, over rows of which the first is row `origin` of the source.
void pass_down(const Plane& from, const Taps& taps, int y, int origin, size_t bytes, std::uint8_t* out) {
  const auto index = static_cast<size_t>(y);
  const std::uint8_t* top = from.data + static_cast<size_t>(taps.start[index] - origin) * from.stride;
  kernels::vertical_pil(top, from.stride, taps.of(y), taps.count[index], bytes, out);
}

void run_pil(const Region& given, ImageSize target, const Window& window, const Resampling& rule, const RowSink& sink) {
  const ImageSize full = given.full;
  const Window part = needed(full, target, window, rule);
  Image copy;
  const Region region = with_slack(given, part, copy);
  const bool across = target.width != full.width, down = target.height != full.height;
  const int right = window.left + window.size.width, bottom = window.top + window.size.height;
  const Taps xs = across ? pil_taps(full.width, target.width, window.left, right, rule.filter) : Taps{};
  const Taps ys = down ? pil_taps(full.height, target.height, window.top, bottom, rule.filter) : Taps{};
  const size_t bytes = row_bytes(window);
  Plane rows{region.pixel(part.top, part.left), region.view.stride};

  if (across && down && down_first(full, target, rule.backend)) {
    Rows<std::uint8_t> lowered(window.size.height, row_bytes(part)), narrowed(window.size.height, bytes);
    for (int y = 0; y < window.size.height; ++y) pass_down(rows, ys, y, part.top, row_bytes(part), lowered[y]);
    pass_across({lowered[0], lowered.stride()}, window.size.height, xs, part.left, narrowed);
    for (int y = 0; y < window.size.height; ++y) sink(y, narrowed[y]);
    return;
  }
  Rows<std::uint8_t> narrowed(across ? part.size.height : 0, bytes);
  if (across) rows = pass_across(rows, part.size.height, xs, part.left, narrowed);
  std::vector<std::uint8_t> row(bytes + kernels::kOverrun);
  for (int y = 0; y < window.size.height; ++y) {
    if (down) pass_down(rows, ys, y, part.top, bytes, row.data());
    sink(y, down ? row.data() : rows.data + static_cast<size_t>(y) * rows.stride);
  }
}

/// OpenCV's two passes, a block of output rows at a time: the sums of a source row are made once in a block.
void run_cv2(const Region& given, ImageSize target, const Window& window, const Resampling& rule, Filter filter,
             const RowSink& sink) {
  constexpr int kBlock = 32;
  Image copy;
  const Region region = with_slack(given, needed(given.full, target, window, rule), copy);
  const int right = window.left + window.size.width, height = region.full.height;
  const Taps xs = cv2_taps(region.full.width, target.width, window.left, right, filter, true);
  const size_t elements = row_bytes(window);
  // OpenCV's vector loop takes eight elements a step from the row's first on; a window may begin within it.
  const size_t vectorised = static_cast<size_t>(target.width) * 3 / 8 * 8, skipped = static_cast<size_t>(window.left) * 3;
  const size_t vector_end = std::min(vectorised - std::min(vectorised, skipped), elements);
  std::vector<std::uint8_t> row(elements + kernels::kOverrun);

  for (int begin = 0; begin < window.size.height; begin += kBlock) {
    const int end = std::min(begin + kBlock, window.size.height);
    const Taps ys = cv2_taps(height, target.height, window.top + begin, window.top + end, filter, false);
    const auto source_row = [&](int y, int tap) { return std::clamp(ys.start[static_cast<size_t>(y)] + tap, 0, height - 1); };
    std::vector<int> wanted;
    for (int y = 0; y < end - begin; ++y)
      for (int tap = 0; tap < ys.width; ++tap)
        if (wanted.empty() || source_row(y, tap) > wanted.back()) wanted.push_back(source_row(y, tap));
    Rows<std::int32_t> sums(static_cast<int>(wanted.size()), elements);
    std::vector<const std::uint8_t*> sources;
    std::vector<std::int32_t*> targets;
    for (size_t index = 0; index < wanted.size(); ++index) {
      sources.push_back(region.pixel(wanted[index], region.left));
      targets.push_back(sums[static_cast<int>(index)]);
    }
    kernels::horizontal_cv2(sources.data(), static_cast<int>(wanted.size()), xs, region.left, targets.data());
    for (int y = 0; y < end - begin; ++y) {
      const std::int32_t* rows[8];
      for (int tap = 0; tap < ys.width; ++tap) {
        const auto found = std::lower_bound(wanted.begin(), wanted.end(), source_row(y, tap));
        rows[tap] = targets[static_cast<size_t>(found - wanted.begin())];
      }
      if (ys.width == 2) kernels::vertical_cv2_linear(rows, ys.of(y), elements, row.data());
      if (ys.width == 4) kernels::vertical_cv2_cubic(rows, ys.of(y), elements, vector_end, row.data());
      if (ys.width == 8) kernels::vertical_cv2_lanczos(rows, ys.of(y), elements, row.data());
      sink(begin + y, row.data());
    }
  }
}

std::uint8_t to_byte(float value) { return static_cast<std::uint8_t>(std::clamp(std::lrint(value), 0L, 255L)); }

/// OpenCV's area filter for whole-number ratios: integer sums of blocks.
void run_area_blocks(const Region& region, ImageSize target, const Window& window, const RowSink& sink) {
  const int down = region.full.height / target.height, across = region.full.width / target.width;
  const float scale = 1.0f / static_cast<float>(down * across);
  const bool half = down == 2 && across == 2;
  std::vector<std::uint8_t> row(row_bytes(window));
  std::vector<int> sums(row.size());
  for (int y = 0; y < window.size.height; ++y) {
    std::fill(sums.begin(), sums.end(), 0);
    for (int line = 0; line < down; ++line) {
      const std::uint8_t* source = region.pixel((window.top + y) * down + line, window.left * across);
      for (size_t x = 0; x < sums.size(); x += 3)
        for (int step = 0; step < across; ++step, source += 3)
          for (size_t channel = 0; channel < 3; ++channel) sums[x + channel] += source[channel];
    }
    for (size_t x = 0; x < sums.size(); ++x)
      row[x] = half ? static_cast<std::uint8_t>((sums[x] + 2) >> 2) : to_byte(static_cast<float>(sums[x]) * scale);
    sink(y, row.data());
  }
}

/// OpenCV's area filter for other ratios: float32 sums in OpenCV's order.
void run_area(const Region& region, ImageSize target, const Window& window, const RowSink& sink) {
  const auto xs = area_taps(region.full.width, target.width, window.left, window.left + window.size.width);
  const auto ys = area_taps(region.full.height, target.height, window.top, window.top + window.size.height);
  std::vector<std::uint8_t> row(row_bytes(window));
  std::vector<float> across(row.size()), sum(row.size());
  for (size_t tap = 0; tap < ys.size(); ++tap) {
    std::fill(across.begin(), across.end(), 0.0f);
    const std::uint8_t* source = region.pixel(ys[tap].source, region.left);
    for (const AreaTap& x : xs) {
      const std::uint8_t* pixel = source + static_cast<size_t>(x.source - region.left) * 3;
      float* out = across.data() + static_cast<size_t>(x.target - window.left) * 3;
      for (int channel = 0; channel < 3; ++channel) out[channel] += static_cast<float>(pixel[channel]) * x.weight;
    }
    const bool begins = tap == 0 || ys[tap].target != ys[tap - 1].target;
    for (size_t x = 0; x < sum.size(); ++x) sum[x] = begins ? across[x] * ys[tap].weight : sum[x] + across[x] * ys[tap].weight;
    if (tap + 1 < ys.size() && ys[tap + 1].target == ys[tap].target) continue;
    std::transform(sum.begin(), sum.end(), row.begin(), to_byte);
    sink(ys[tap].target - window.top, row.data());
  }
}

/// First and last source sample along one axis.
std::pair<int, int> span(int from, int to, int begin, int end, const Resampling& rule, const Choice& choice) {
  switch (choice.method) {
    case Method::copy: return {begin, end};
    case Method::nearest: {
      const auto taps = nearest_taps(from, to, begin, end, rule.backend);
      return {taps.front(), taps.back() + 1};
    }
    case Method::pil: {
      if (from == to) return {begin, end};
      const Taps ends = pil_taps(from, to, begin, begin + 1, rule.filter);
      return {ends.first(), pil_taps(from, to, end - 1, end, rule.filter).last()};
    }
    case Method::cv2: {
      const Taps low = cv2_taps(from, to, begin, begin + 1, choice.filter, false);
      const Taps high = cv2_taps(from, to, end - 1, end, choice.filter, false);
      return {std::clamp(low.first(), 0, from - 1), std::clamp(high.last(), 1, from)};
    }
    case Method::area_blocks: return {begin * (from / to), end * (from / to)};
    case Method::area: {
      const auto low = area_taps(from, to, begin, begin + 1), high = area_taps(from, to, end - 1, end);
      return {low.front().source, high.back().source + 1};
    }
  }
  return {0, from};
}

}  // namespace

Resampling resampling(const std::string& backend, const std::string& filter) {
  static const std::pair<const char*, Filter> kPil[] = {
      {"nearest", Filter::nearest}, {"bilinear", Filter::bilinear}, {"bicubic", Filter::bicubic},
      {"box", Filter::box},         {"hamming", Filter::hamming},   {"lanczos", Filter::lanczos}};
  static const std::pair<const char*, Filter> kCv2[] = {{"nearest", Filter::nearest}, {"bilinear", Filter::bilinear},
                                                        {"bicubic", Filter::bicubic}, {"area", Filter::area},
                                                        {"lanczos", Filter::lanczos}};
  if (backend == "pil" || backend == "pil12") {
    for (const auto& [name, value] : kPil)
      if (filter == name) return {backend == "pil" ? Backend::pil : Backend::pil12, value};
  } else if (backend == "cv2") {
    for (const auto& [name, value] : kCv2)
      if (filter == name) return {Backend::cv2, value};
  } else {
    throw InputError("expected backend pil, pil12 or cv2, got '" + backend + "'");
  }
  throw InputError("backend " + backend + " has no filter '" + filter + "'");
}

Window needed(ImageSize source, ImageSize target, const Window& window, const Resampling& rule) {
  const Choice choice = choose(source, target, rule);
  const auto [top, bottom] =
      span(source.height, target.height, window.top, window.top + window.size.height, rule, choice);
  const auto [left, right] =
      span(source.width, target.width, window.left, window.left + window.size.width, rule, choice);
  return {top, left, {bottom - top, right - left}};
}

void resize_rows(const Region& region, ImageSize target, const Window& window, const Resampling& rule,
                 const RowSink& sink) {
  const Choice choice = choose(region.full, target, rule);
  switch (choice.method) {
    case Method::copy: return run_copy(region, window, sink);
    case Method::nearest: return run_nearest(region, target, window, rule.backend, sink);
    case Method::pil: return run_pil(region, target, window, rule, sink);
    case Method::cv2: return run_cv2(region, target, window, rule, choice.filter, sink);
    case Method::area_blocks: return run_area_blocks(region, target, window, sink);
    case Method::area: return run_area(region, target, window, sink);
  }
}

Image resize(const ImageView& image, ImageSize target, const Resampling& rule) {
  Image out(target);
  resize_rows(Region(image), target, {0, 0, target}, rule,
              [&](int row, const std::uint8_t* pixels) { std::memcpy(out.row(row), pixels, out.stride()); });
  return out;
}

}  // namespace edgerecall

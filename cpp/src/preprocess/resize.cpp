#include "edgerecall/resize.h"

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "edgerecall/error.h"
#include "preprocess/pixel_kernels.h"
#include "preprocess/taps.h"

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

constexpr int kBlock = 32;  // output rows whose source rows are convolved together

size_t row_bytes(const Window& window) { return static_cast<size_t>(window.size.width) * 3; }

/// Rows with room for the kernels to run over.
template <typename T>
class Rows {
 public:
  Rows(int count, size_t elements)
      : stride_((elements + kernels::kOverrun + 63) / 64 * 64),
        data_(make_buffer((stride_ * static_cast<size_t>(count) + kernels::kOverrun) * sizeof(T))) {}
  T* operator[](int row) { return reinterpret_cast<T*>(data_.get()) + static_cast<size_t>(row) * stride_; }
  size_t stride() const { return stride_; }
  /// The first `count` of them.
  std::vector<T*> pointers(int count) {
    std::vector<T*> all;
    for (int row = 0; row < count; ++row) all.push_back((*this)[row]);
    return all;
  }

 private:
  size_t stride_;
  Buffer data_;
};

/// Part of a region as rows behind which the kernels may read: the region's own where it has the room, else copies.
class SourceRows {
 public:
  SourceRows(const Region& region, const Window& part) : region_(region), part_(part) {
    const int below = region.view.size.height - (part.top - region.top) - part.size.height;
    const size_t room = region.view.slack + static_cast<size_t>(below) * region.view.stride;
    if (room >= Image::kSlack) return;
    const auto lacking = static_cast<int>((Image::kSlack - room) / std::max<size_t>(region.view.stride, 1)) + 1;
    first_copied_ = part.top + part.size.height - std::min(lacking, part.size.height);
    copies_ = Image({part.top + part.size.height - first_copied_, part.size.width});
    for (int y = first_copied_; y < part.top + part.size.height; ++y)
      std::memcpy(copies_.row(y - first_copied_), region.pixel(y, part.left), row_bytes(part));
    std::memset(copies_.row(copies_.size().height), 0, Image::kSlack);
  }

  /// Row y of the source, from the part's left edge on.
  const std::uint8_t* operator[](int y) const {
    return y < first_copied_ ? region_.pixel(y, part_.left)
                             : copies_.data() + copies_.stride() * static_cast<size_t>(y - first_copied_);
  }

  /// All of the part's rows.
  std::vector<const std::uint8_t*> pointers() const {
    std::vector<const std::uint8_t*> all;
    for (int y = part_.top; y < part_.top + part_.size.height; ++y) all.push_back((*this)[y]);
    return all;
  }

 private:
  const Region& region_;
  Window part_;
  int first_copied_ = INT_MAX;
  Image copies_;
};

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

/// Output row y of Pillow's pass along y; `rows[0]` is row `origin` of the source.
void pass_down(const std::uint8_t* const* rows, const Taps& taps, int y, int origin, size_t bytes, std::uint8_t* out) {
  const auto index = static_cast<size_t>(y);
  kernels::vertical_pil(rows + (taps.start[index] - origin), taps.of(y), taps.count[index], bytes, out);
}

void run_pil(const Region& region, ImageSize target, const Window& window, const Resampling& rule,
             const RowSink& sink) {
  const ImageSize full = region.full;
  const Window part = needed(full, target, window, rule);
  const bool across = target.width != full.width, down = target.height != full.height;
  const int height = window.size.height, right = window.left + window.size.width, bottom = window.top + height;
  const Taps xs = across ? pil_taps(full.width, target.width, window.left, right, rule.filter) : Taps{};
  const Taps ys = down ? pil_taps(full.height, target.height, window.top, bottom, rule.filter) : Taps{};
  const size_t bytes = row_bytes(window);
  const SourceRows sources(region, part);
  std::vector<const std::uint8_t*> rows = sources.pointers();

  if (across && down && down_first(full, target, rule.backend)) {
    Rows<std::uint8_t> lowered(height, row_bytes(part)), narrowed(height, bytes);
    for (int y = 0; y < height; ++y) pass_down(rows.data(), ys, y, part.top, row_bytes(part), lowered[y]);
    const auto from = lowered.pointers(height), to = narrowed.pointers(height);
    kernels::horizontal_pil(from.data(), height, xs, part.left, to.data());
    for (int y = 0; y < height; ++y) sink(y, narrowed[y]);
    return;
  }
  Rows<std::uint8_t> narrowed(across ? part.size.height : 0, bytes);
  if (across) {
    const auto to = narrowed.pointers(part.size.height);
    kernels::horizontal_pil(rows.data(), part.size.height, xs, part.left, to.data());
    rows.assign(to.begin(), to.end());
  }
  std::vector<std::uint8_t> row(bytes + kernels::kOverrun);
  for (int y = 0; y < height; ++y) {
    if (down) pass_down(rows.data(), ys, y, part.top, bytes, row.data());
    sink(y, down ? row.data() : rows[static_cast<size_t>(y)]);
  }
}

/// OpenCV's two passes, a block of output rows at a time: the sums of a source row are made once in a block.
void run_cv2(const Region& region, ImageSize target, const Window& window, const Resampling& rule, Filter filter,
             const RowSink& sink) {
  const Window part = needed(region.full, target, window, rule);
  const SourceRows source(region, part);
  const int right = window.left + window.size.width, height = region.full.height;
  const Taps xs = cv2_taps(region.full.width, target.width, window.left, right, filter, true);
  const size_t elements = row_bytes(window);
  // OpenCV's vector loop takes eight elements a step from the row's first on; a window may begin within it.
  const size_t vectorised = static_cast<size_t>(target.width) * 3 / 8 * 8,
               skipped = static_cast<size_t>(window.left) * 3;
  const size_t vector_end = std::min(vectorised - std::min(vectorised, skipped), elements);
  std::vector<std::uint8_t> row(elements + kernels::kOverrun);

  for (int begin = 0; begin < window.size.height; begin += kBlock) {
    const int end = std::min(begin + kBlock, window.size.height);
    const Taps ys = cv2_taps(height, target.height, window.top + begin, window.top + end, filter, false);
    const auto source_row = [&](int y, int tap) {
      return std::clamp(ys.start[static_cast<size_t>(y)] + tap, 0, height - 1);
    };
    std::vector<int> wanted;
    for (int y = 0; y < end - begin; ++y)
      for (int tap = 0; tap < ys.width; ++tap)
        if (wanted.empty() || source_row(y, tap) > wanted.back()) wanted.push_back(source_row(y, tap));
    Rows<std::int32_t> sums(static_cast<int>(wanted.size()), elements);
    const auto targets = sums.pointers(static_cast<int>(wanted.size()));
    std::vector<const std::uint8_t*> sources;
    for (const int y : wanted) sources.push_back(source[y]);
    kernels::horizontal_cv2(sources.data(), static_cast<int>(wanted.size()), xs, part.left, targets.data());
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
  std::vector<std::uint32_t> sums(row.size());  // 4096 x 4096 white pixels wrap, in OpenCV too
  for (int y = 0; y < window.size.height; ++y) {
    std::fill(sums.begin(), sums.end(), 0u);
    for (int line = 0; line < down; ++line) {
      const std::uint8_t* source = region.pixel((window.top + y) * down + line, window.left * across);
      for (size_t x = 0; x < sums.size(); x += 3)
        for (int step = 0; step < across; ++step, source += 3)
          for (size_t channel = 0; channel < 3; ++channel) sums[x + channel] += source[channel];
    }
    for (size_t x = 0; x < sums.size(); ++x)
      row[x] = half ? static_cast<std::uint8_t>((sums[x] + 2) >> 2)
                    : to_byte(static_cast<float>(static_cast<std::int32_t>(sums[x])) * scale);
    sink(y, row.data());
  }
}

/// OpenCV's area filter for other ratios: float32 sums in OpenCV's order, a block of output rows at a time.
void run_area(const Region& region, ImageSize target, const Window& window, const Resampling& rule,
              const RowSink& sink) {
  const Window part = needed(region.full, target, window, rule);
  const SourceRows source(region, part);
  const auto xs = area_taps(region.full.width, target.width, window.left, window.left + window.size.width);
  const size_t elements = row_bytes(window);
  std::vector<std::uint8_t> row(elements + kernels::kOverrun);
  for (int begin = 0; begin < window.size.height; begin += kBlock) {
    const int end = std::min(begin + kBlock, window.size.height);
    const auto ys = area_taps(region.full.height, target.height, window.top + begin, window.top + end);
    const int count = ys.last() - ys.first();
    Rows<float> sums(count, elements);
    const auto targets = sums.pointers(count);
    std::vector<const std::uint8_t*> sources;
    for (int y = ys.first(); y < ys.last(); ++y) sources.push_back(source[y]);
    kernels::horizontal_area(sources.data(), count, xs, part.left, targets.data());
    for (int y = 0; y < end - begin; ++y) {
      const auto index = static_cast<size_t>(y);
      kernels::vertical_area(sums[ys.start[index] - ys.first()], sums.stride(), ys.of(y), ys.count[index], elements,
                             row.data());
      sink(begin + y, row.data());
    }
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
      return {area_taps(from, to, begin, begin + 1).first(), area_taps(from, to, end - 1, end).last()};
    }
  }
  return {0, from};
}

}  // namespace

Resampling resampling(const std::string& backend, const std::string& filter) {
  static const std::pair<const char*, Filter> kPil[] = {{"nearest", Filter::nearest}, {"bilinear", Filter::bilinear},
                                                        {"bicubic", Filter::bicubic}, {"box", Filter::box},
                                                        {"hamming", Filter::hamming}, {"lanczos", Filter::lanczos}};
  static const std::pair<const char*, Filter> kCv2[] = {{"nearest", Filter::nearest},
                                                        {"bilinear", Filter::bilinear},
                                                        {"bicubic", Filter::bicubic},
                                                        {"area", Filter::area},
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
    case Method::area: return run_area(region, target, window, rule, sink);
  }
}

Image resize(const ImageView& image, ImageSize target, const Resampling& rule) {
  Image out(target);
  resize_rows(Region(image), target, {0, 0, target}, rule,
              [&](int row, const std::uint8_t* pixels) { std::memcpy(out.row(row), pixels, out.stride()); });
  return out;
}

}  // namespace edgerecall

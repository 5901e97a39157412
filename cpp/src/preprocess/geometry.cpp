#include <cmath>
#include <cstring>
#include <utility>

#include "edgerecall/error.h"
#include "edgerecall/preprocess.h"

namespace edgerecall {
namespace {

using std::size_t;

std::string described(ImageSize size) { return std::to_string(size.width) + " x " + std::to_string(size.height); }

/// Half to even, as Python's `round`.
int round_half_even(double value) { return static_cast<int>(std::nearbyint(value)); }

ImageSize size_after(const ResizeShort& op, ImageSize input, std::int64_t max_pixels) {
  const double height = input.height, width = input.width, side = op.size;
  double new_height, new_width;
  if (op.round) {
    const double ratio = side / std::min(height, width);
    new_height = std::nearbyint(height * ratio);
    new_width = std::nearbyint(width * ratio);
  } else if (width < height) {
    new_height = std::trunc(side * height / width);
    new_width = side;
  } else {
    new_height = side;
    new_width = std::trunc(side * width / height);
  }
  if (new_height * new_width > static_cast<double>(max_pixels) || std::max(new_height, new_width) > 1 << 30)
    throw InputError(described(input) + " would grow to " + std::to_string(static_cast<std::int64_t>(new_width)) +
                     " x " + std::to_string(static_cast<std::int64_t>(new_height)) + ": too narrow an image");
  return {static_cast<int>(new_height), static_cast<int>(new_width)};
}

ImageSize size_after(const ResizeExact& op, ImageSize, std::int64_t) { return op.size; }

ImageSize size_after(const CenterCrop& op, ImageSize input, std::int64_t) {
  if (input.height < op.size.height || input.width < op.size.width)
    throw InputError(described(input) + " is smaller than the crop of " + described(op.size));
  return op.size;
}

ImageSize size_after(const GeometryOp& op, ImageSize input, std::int64_t max_pixels) {
  return std::visit([&](const auto& known) { return size_after(known, input, max_pixels); }, op);
}

int crop_start(int margin, bool round) { return round ? round_half_even(margin / 2.0) : margin / 2; }

/// One operation's part in the run: sizes of its whole input and output, and the window of the output that is needed.
struct Step {
  const GeometryOp* op;
  ImageSize input, output;
  Window window;
};

/// The resampling of a step that has one.
const Resampling* rule_of(const GeometryOp& op) {
  if (const auto* exact = std::get_if<ResizeExact>(&op)) return &exact->rule;
  if (const auto* shorter = std::get_if<ResizeShort>(&op)) return &shorter->rule;
  return nullptr;
}

/// Window of a step's input from which its window of the output is made.
Window window_before(const Step& step) {
  if (const Resampling* rule = rule_of(*step.op)) return needed(step.input, step.output, step.window, *rule);
  const auto& crop = std::get<CenterCrop>(*step.op);
  return {crop_start(step.input.height - crop.size.height, crop.round) + step.window.top,
          crop_start(step.input.width - crop.size.width, crop.round) + step.window.left, step.window.size};
}

}  // namespace

ImageSize Geometry::output_size(ImageSize input, std::int64_t max_pixels) const {
  for (const GeometryOp& op : ops_) input = size_after(op, input, max_pixels);
  return input;
}

void Geometry::run(const ImageView& image, std::int64_t max_pixels, const RowSink& sink) const {
  std::vector<Step> steps;
  ImageSize size = image.size;
  for (const GeometryOp& op : ops_) {
    const ImageSize output = size_after(op, size, max_pixels);
    steps.push_back({&op, size, output, {}});
    size = output;
  }
  Window window{0, 0, size};
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    step->window = window;
    window = window_before(*step);
  }
  // A crop moves the windows and costs nothing; each resize computes its window, the last one into the sink.
  const Step* last = nullptr;
  for (const Step& step : steps)
    if (rule_of(*step.op) != nullptr) last = &step;
  if (last == nullptr) {
    for (int row = 0; row < window.size.height; ++row)
      sink(row, image.row(window.top + row) + static_cast<size_t>(window.left) * 3);
    return;
  }
  Region region(image);
  Image held;
  for (const Step& step : steps) {
    const Resampling* rule = rule_of(*step.op);
    if (rule == nullptr) {
      const Window before = window_before({step.op, step.input, step.output, {0, 0, step.output}});
      region.full = step.output;
      region.top -= before.top;
      region.left -= before.left;
      continue;
    }
    if (&step == last) return resize_rows(region, step.output, step.window, *rule, sink);
    Image next(step.window.size);
    resize_rows(region, step.output, step.window, *rule,
                [&](int row, const std::uint8_t* pixels) { std::memcpy(next.row(row), pixels, next.stride()); });
    held = std::move(next);
    region = Region(held.view(), step.output, step.window);
  }
}

Image Geometry::apply(const ImageView& image, std::int64_t max_pixels) const {
  Image out(output_size(image.size, max_pixels));
  run(image, max_pixels, [&](int row, const std::uint8_t* pixels) { std::memcpy(out.row(row), pixels, out.stride()); });
  return out;
}

}  // namespace edgerecall

#include "edgerecall/preprocess.h"

#include <new>

#include "edgerecall/error.h"
#include "base/files.h"
#include "base/meter.h"
#include "base/parallel.h"
#include "preprocess/pixel_kernels.h"

namespace edgerecall {
namespace {

using std::size_t;

/// Writes rows of pixels into the planes of a tensor.
template <typename T, void (*normalize_row)(const std::uint8_t*, size_t, const kernels::RowNormalizer&, T* const*)>
class TensorWriter {
 public:
  TensorWriter(const Normalize& rule, ImageSize size, T* out) : size_(size) {
    rule_.scale = rule.scale;
    for (size_t plane = 0; plane < 3; ++plane) {  // mean and std are listed in the order of the planes
      const size_t channel = rule.bgr ? 2 - plane : plane;
      rule_.mean[channel] = rule.mean[plane];
      rule_.std[channel] = rule.std[plane];
      planes_[channel] = out + plane * static_cast<size_t>(size.pixels());
    }
  }
  void operator()(int row, const std::uint8_t* pixels) const {
    const auto width = static_cast<size_t>(size_.width);
    T* rows[3];
    for (size_t channel = 0; channel < 3; ++channel)
      rows[channel] = planes_[channel] + static_cast<size_t>(row) * width;
    normalize_row(pixels, width, rule_, rows);
  }

 private:
  ImageSize size_;
  kernels::RowNormalizer rule_{};
  T* planes_[3];
};

ImageOutcome outcome_of(const Preprocess& preprocess, const EncodedImage& image, std::int64_t max_pixels,
                        TensorType type, void* out) {
  try {
    if (image.data != nullptr) {
      preprocess.run(image.data, image.size, max_pixels, type, out);
    } else {
      const std::vector<std::uint8_t> bytes = file_bytes(image.path);
      if (bytes.empty()) throw InputError("expected an image, got an empty file");
      preprocess.run(bytes.data(), bytes.size(), max_pixels, type, out);
    }
    return {};
  } catch (const UnsupportedImage& error) {
    return {ImageStatus::unsupported, error.what()};
  } catch (const InputError& error) {
    return {ImageStatus::bad, error.what()};
  } catch (const std::bad_alloc&) {
    return {ImageStatus::bad, "not enough memory to decode it"};
  }
}

}  // namespace

size_t Preprocess::tensor_bytes(TensorType type) const {
  return static_cast<size_t>(output_.pixels()) * 3 * (type == TensorType::float16 ? 2 : 4);
}

void Preprocess::run(const ImageView& image, std::int64_t max_pixels, TensorType type, void* out) const {
  if (type == TensorType::float16) {
    const TensorWriter<std::uint16_t, kernels::normalize_float16> writer(normalize_, output_,
                                                                         static_cast<std::uint16_t*>(out));
    geometry_.run(image, max_pixels, writer);
  } else {
    const TensorWriter<float, kernels::normalize_float32> writer(normalize_, output_, static_cast<float*>(out));
    geometry_.run(image, max_pixels, writer);
  }
}

void Preprocess::run(const std::uint8_t* data, size_t size, std::int64_t max_pixels, TensorType type, void* out) const {
  run(decode(data, size, {apply_exif_, max_pixels}).view(), max_pixels, type, out);
}

std::vector<ImageOutcome> run_batch(const Preprocess& preprocess, const std::vector<EncodedImage>& images, int threads,
                                    std::int64_t max_pixels, TensorType type, void* out, const Progress& progress) {
  std::vector<ImageOutcome> outcomes(images.size());
  Meter meter(progress, images.size());
  const size_t step = preprocess.tensor_bytes(type);
  parallel_for(images.size(), threads, [&](size_t index, int worker) {
    outcomes[index] =
        outcome_of(preprocess, images[index], max_pixels, type, static_cast<std::uint8_t*>(out) + index * step);
    meter.step(worker);
  });
  meter.finish();
  return outcomes;
}

}  // namespace edgerecall

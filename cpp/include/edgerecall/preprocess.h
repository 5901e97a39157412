#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "edgerecall/decode.h"
#include "edgerecall/image.h"
#include "edgerecall/progress.h"
#include "edgerecall/resize.h"

namespace edgerecall {

/// Shorter side to `size`. `round`: both sides by Python's rounding of `side * (size / shorter)`; otherwise the longer
/// one is truncated, `size * longer / shorter`.
struct ResizeShort {
  Resampling rule;
  int size = 0;
  bool round = false;
};

struct ResizeExact {
  Resampling rule;
  ImageSize size;
};

/// An odd margin starts at half of it, rounded to even (`round`) or cut.
struct CenterCrop {
  ImageSize size;
  bool round = false;
};

using GeometryOp = std::variant<ResizeShort, ResizeExact, CenterCrop>;

/// `(value * scale - mean) / std` in float32, planes in the model's order.
struct Normalize {
  float scale = 1.0f / 255.0f;
  float mean[3] = {0, 0, 0};
  float std[3] = {1, 1, 1};
  bool bgr = false;
};

enum class TensorType { float32, float16 };

/// Resizes and crops, run as one: only pixels that survive to the end are computed.
class Geometry {
 public:
  Geometry() = default;
  explicit Geometry(std::vector<GeometryOp> ops) : ops_(std::move(ops)) {}

  /// Of the result for an input of this size. Throws InputError when a crop is larger than its input, or when the
  /// shorter side's resize would give more than `max_pixels`.
  ImageSize output_size(ImageSize input, std::int64_t max_pixels) const;

  /// The result, row by row.
  void run(const ImageView& image, std::int64_t max_pixels, const RowSink& sink) const;

  /// The result as an image.
  Image apply(const ImageView& image, std::int64_t max_pixels) const;

  const std::vector<GeometryOp>& ops() const { return ops_; }

 private:
  std::vector<GeometryOp> ops_;
};

/// A list of resizes and crops as JSON, in the form of bundle.json's `preprocess.ops`. Throws InputError.
Geometry parse_geometry(const std::string& json);

/// The spec's preprocessing, from an encoded image to the tensor.
class Preprocess {
 public:
  /// From JSON, in the form of bundle.json's `preprocess`. Throws InputError.
  explicit Preprocess(const std::string& json);

  /// `(height, width)` of the tensor.
  ImageSize output() const { return output_; }
  bool apply_exif() const { return apply_exif_; }
  const Geometry& geometry() const { return geometry_; }
  const Normalize& normalize() const { return normalize_; }

  /// RGB pixels -> planar `(3, height, width)` at `out`, float32 or float16.
  void run(const ImageView& image, std::int64_t max_pixels, TensorType type, void* out) const;

  /// Encoded JPEG or PNG -> planar tensor at `out`.
  void run(const std::uint8_t* data, std::size_t size, std::int64_t max_pixels, TensorType type, void* out) const;

  std::size_t tensor_bytes(TensorType type) const;

 private:
  bool apply_exif_ = false;
  Geometry geometry_;
  Normalize normalize_;
  ImageSize output_;
};

/// One image of a batch: a file's path, or bytes when `data` is set.
struct EncodedImage {
  std::string path;
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;
};

enum class ImageStatus { ok, bad, unsupported };

struct ImageOutcome {
  ImageStatus status = ImageStatus::ok;
  std::string message;
};

/// Preprocesses images on `threads` threads, image i into slot i of `out`. A bad image leaves its slot undefined and
/// is reported in its outcome; the others are not touched by it.
/// Throws Cancelled when `progress` says so.
std::vector<ImageOutcome> run_batch(const Preprocess& preprocess, const std::vector<EncodedImage>& images, int threads,
                                    std::int64_t max_pixels, TensorType type, void* out, const Progress& progress = {});

}  // namespace edgerecall

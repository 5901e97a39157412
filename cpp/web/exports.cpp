// The core for WebAssembly: plain functions that web/src/core.ts calls. One thread at a time.
//
// What can fail gives null or a negative number, and `er_error` then has the reason. Whoever opens closes.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "edgerecall/bundle.h"
#include "edgerecall/decode.h"
#include "edgerecall/error.h"
#include "edgerecall/preprocess.h"
#include "edgerecall/search.h"
#include "edgerecall/sha256.h"

#define ER_EXPORT extern "C" __attribute__((used, visibility("default")))

using namespace edgerecall;

namespace {

// As web/src/core.ts names them.
constexpr int kBadInput = -1, kUnsupported = -2, kOutOfMemory = -3, kFailed = -4;

std::string& text() {
  static std::string kept;
  return kept;
}

Sha256& hash() {
  static Sha256 begun;
  return begun;
}

/// 0, or what went wrong, its message kept for `er_error`.
template <typename Work>
int caught(const Work& work) {
  try {
    work();
    return 0;
  } catch (const UnsupportedImage& error) {
    text() = error.what();
    return kUnsupported;
  } catch (const InputError& error) {
    text() = error.what();
    return kBadInput;
  } catch (const std::bad_alloc&) {
    text() = "out of memory";
    return kOutOfMemory;
  } catch (const std::exception& error) {
    text() = error.what();
    return kFailed;
  }
}

template <typename Made>
Made* made(const std::function<Made*()>& make) {
  Made* result = nullptr;
  caught([&] { result = make(); });
  return result;
}

std::int64_t pixels_of(double most) { return static_cast<std::int64_t>(most); }

}  // namespace

/// The message of the last failure, UTF-8; valid until the next call.
ER_EXPORT const char* er_error() { return text().c_str(); }

/// Refuses what `Manifest.parse` refuses; the manifest's own text is then read by JavaScript.
ER_EXPORT int er_check_manifest(const char* manifest, const char* where) {
  return caught([&] { Manifest::parse(manifest, where); });
}

/// SHA-256 of bytes that come part by part: pages without a secure context have no SubtleCrypto.
ER_EXPORT int er_sha256_add(const std::uint8_t* data, std::size_t size) {
  return caught([&] { hash().add(data, size); });
}

/// The hash of what was added since the last one, hexadecimal, as `er_error` gives it.
ER_EXPORT int er_sha256_finish() {
  return caught([&] {
    text() = hash().finish();
    hash() = Sha256();
  });
}

/// From JSON, in the form of bundle.json's `preprocess`.
ER_EXPORT Preprocess* er_preprocess_open(const char* json) {
  return made<Preprocess>([&] { return new Preprocess(json); });
}

ER_EXPORT void er_preprocess_close(Preprocess* preprocess) { delete preprocess; }

/// Encoded JPEG or PNG to the tensor, float32 `(3, H, W)`.
ER_EXPORT int er_preprocess_encoded(const Preprocess* preprocess, const std::uint8_t* data, std::size_t size,
                                    double most_pixels, float* out) {
  return caught([&] { preprocess->run(data, size, pixels_of(most_pixels), TensorType::float32, out); });
}

/// Pixels of a canvas, uint8 `(height, width, 4)`, to the tensor; their alpha is dropped.
ER_EXPORT int er_preprocess_rgba(const Preprocess* preprocess, const std::uint8_t* rgba, int height, int width,
                                 double most_pixels, float* out) {
  return caught([&] {
    if (height < 1 || width < 1) throw InputError("expected an image of at least one pixel");
    Image image({height, width});
    std::uint8_t* to = image.data();
    for (std::int64_t at = 0, count = image.size().pixels(); at < count; ++at, to += 3, rgba += 4)
      std::memcpy(to, rgba, 3);
    preprocess->run(image.view(), pixels_of(most_pixels), TensorType::float32, out);
  });
}

/// Decoded RGB pixels, for those who time the steps apart.
ER_EXPORT Image* er_decode(const Preprocess* preprocess, const std::uint8_t* data, std::size_t size,
                           double most_pixels) {
  return made<Image>([&] { return new Image(decode(data, size, {preprocess->apply_exif(), pixels_of(most_pixels)})); });
}

ER_EXPORT void er_image_close(Image* image) { delete image; }

ER_EXPORT int er_preprocess_image(const Preprocess* preprocess, const Image* image, double most_pixels, float* out) {
  return caught([&] { preprocess->run(image->view(), pixels_of(most_pixels), TensorType::float32, out); });
}

/// Rows to unit length, float32 `(count, dim)`, in place.
ER_EXPORT void er_normalize(float* rows, std::size_t count, std::size_t dim) { l2_normalize(rows, count, dim); }

/// storage: 0 float32, 1 float16, 2 int8, 3 binary.
ER_EXPORT Gallery* er_gallery_open(std::size_t dim, int storage) {
  return made<Gallery>([&] {
    if (storage < 0 || storage > static_cast<int>(Storage::binary)) throw InputError("no such storage");
    return new Gallery(dim, static_cast<Storage>(storage));
  });
}

ER_EXPORT void er_gallery_close(Gallery* gallery) { delete gallery; }

ER_EXPORT int er_gallery_add(Gallery* gallery, const float* rows, std::size_t count) {
  return caught([&] { gallery->add(rows, count); });
}

ER_EXPORT std::size_t er_gallery_size(const Gallery* gallery) { return gallery->size(); }

/// The `k` best rows for each query: `indices` int32 and `similarities` float32, `(count, k)`; -1 where there are
/// fewer.
ER_EXPORT int er_gallery_search(const Gallery* gallery, const float* queries, std::size_t count, std::size_t k,
                                std::int32_t* indices, float* similarities) {
  return caught([&] {
    std::vector<std::int64_t> found(count * k);
    gallery->search(queries, count, k, 1, found.data(), similarities, {});
    std::transform(found.begin(), found.end(), indices,
                   [](std::int64_t row) { return static_cast<std::int32_t>(row); });
  });
}

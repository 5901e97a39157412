#pragma once
#include <functional>
#include <string>

#include "edgerecall/image.h"

namespace edgerecall {

/// Whose arithmetic: Pillow's (antialiased, two passes in fixed point, rounded between them) or OpenCV's. Pillow up to
/// 12 (`pil12`) always goes across first; from 13 on (`pil`) down first where the height shrinks by far more.
enum class Backend { pil, pil12, cv2 };

enum class Filter { nearest, bilinear, bicubic, box, hamming, lanczos, area };

struct Resampling {
  Backend backend = Backend::pil;
  Filter filter = Filter::bilinear;
};

/// By the spec's names; throws InputError for a pair that the backend does not have.
Resampling resampling(const std::string& backend, const std::string& filter);

/// A rectangle of a larger image.
struct Window {
  int top = 0;
  int left = 0;
  ImageSize size;
};

/// Pixels that are there of an image of which only a window is held.
struct Region {
  ImageView view;
  ImageSize full;  ///< of the whole image
  int top = 0;     ///< where the view begins in it
  int left = 0;

  explicit Region(const ImageView& whole) : view(whole), full(whole.size) {}
  Region(const ImageView& part, ImageSize whole, const Window& window)
      : view(part), full(whole), top(window.top), left(window.left) {}
  const std::uint8_t* pixel(int y, int x) const { return view.row(y - top) + static_cast<std::size_t>(x - left) * 3; }
};

/// Gets the rows of a result in order: the row's number within its window, and `width * 3` bytes.
using RowSink = std::function<void(int row, const std::uint8_t* pixels)>;

/// The part of the source, `source` large, that a window of the resized image is made from.
Window needed(ImageSize source, ImageSize target, const Window& window, const Resampling& rule);

/// Computes the rows of `window` of the image resized to `target`. `region` must hold what `needed` names.
/// Bit for bit what Pillow's `Image.resize` and OpenCV's `cv2.resize` give, but for cv2 bicubic: there the rule is
/// OpenCV's own code on x86-64 (IPP, which its wheels use for bicubic alone, differs by one in places).
void resize_rows(const Region& region, ImageSize target, const Window& window, const Resampling& rule,
                 const RowSink& sink);

/// The whole image resized.
Image resize(const ImageView& image, ImageSize target, const Resampling& rule);

}  // namespace edgerecall

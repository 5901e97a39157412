#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace edgerecall {

/// Gives memory back to the thread that lets go of it, for its next buffer: large blocks fresh from the system cost a
/// page fault every 4 KiB, more than preprocessing an image.
struct BufferRelease {
  std::size_t bytes = 0;
  void operator()(std::uint8_t* memory) const noexcept;
};

/// Bytes, aligned to 64, not initialised.
using Buffer = std::unique_ptr<std::uint8_t, BufferRelease>;

/// At least `bytes` of them. Throws std::bad_alloc.
Buffer make_buffer(std::size_t bytes);

struct ImageSize {
  int height = 0;
  int width = 0;

  bool operator==(const ImageSize& other) const { return height == other.height && width == other.width; }
  bool operator!=(const ImageSize& other) const { return !(*this == other); }
  std::int64_t pixels() const { return static_cast<std::int64_t>(height) * width; }
};

/// Interleaved RGB, uint8, that somebody else owns. `slack`: bytes that may be read behind the last row.
struct ImageView {
  const std::uint8_t* data = nullptr;
  std::size_t stride = 0;
  ImageSize size;
  std::size_t slack = 0;

  const std::uint8_t* row(int index) const { return data + static_cast<std::size_t>(index) * stride; }
};

/// Interleaved RGB, uint8, rows without gaps, with room behind the last row for vector loads and stores.
class Image {
 public:
  static constexpr std::size_t kSlack = 64;

  Image() = default;
  explicit Image(ImageSize size)
      : size_(size), data_(make_buffer(stride() * static_cast<std::size_t>(size.height) + kSlack)) {}

  ImageSize size() const { return size_; }
  std::size_t stride() const { return static_cast<std::size_t>(size_.width) * 3; }
  std::uint8_t* data() { return data_.get(); }
  const std::uint8_t* data() const { return data_.get(); }
  std::uint8_t* row(int index) { return data() + static_cast<std::size_t>(index) * stride(); }
  ImageView view() const { return {data(), stride(), size_, kSlack}; }

 private:
  ImageSize size_;
  Buffer data_;  // every byte of the image is written by its maker
};

}  // namespace edgerecall

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

}  // namespace edgerecall

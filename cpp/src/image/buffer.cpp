#include <new>
#include <vector>

#include "edgerecall/image.h"

namespace edgerecall {
namespace {

constexpr std::size_t kKept = 4;            // buffers a thread keeps
constexpr std::size_t kLargest = 8u << 20;  // larger ones go back at once
constexpr std::align_val_t kAlignment{64};

struct Block {
  std::uint8_t* memory;
  std::size_t bytes;
};

thread_local bool closed = false;  // needs no destructor: still readable when the cache is gone

struct Cache {
  std::vector<Block> blocks;
  Cache() { blocks.reserve(kKept); }
  ~Cache() {
    closed = true;
    for (const Block& block : blocks) ::operator delete(block.memory, kAlignment);
  }
};

Cache& cache() {
  thread_local Cache own;
  return own;
}

}  // namespace

Buffer make_buffer(std::size_t bytes) {
  if (!closed) {
    std::vector<Block>& blocks = cache().blocks;
    for (Block& block : blocks) {
      if (block.bytes < bytes || block.bytes / 4 > bytes) continue;
      const Block found = block;
      block = blocks.back();
      blocks.pop_back();
      return Buffer(found.memory, {found.bytes});
    }
  }
  return Buffer(static_cast<std::uint8_t*>(::operator new(bytes, kAlignment)), {bytes});
}

void BufferRelease::operator()(std::uint8_t* memory) const noexcept {
  if (!closed && bytes <= kLargest) {
    std::vector<Block>& blocks = cache().blocks;
    if (blocks.size() == kKept) {  // the oldest makes room
      ::operator delete(blocks.front().memory, kAlignment);
      blocks.erase(blocks.begin());
    }
    blocks.push_back({memory, bytes});
    return;
  }
  ::operator delete(memory, kAlignment);
}

}  // namespace edgerecall

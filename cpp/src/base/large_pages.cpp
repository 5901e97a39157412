#include <cstdlib>
#include <new>

#include "edgerecall/large_vector.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace edgerecall {
namespace {

[[maybe_unused]] constexpr std::size_t kPage = std::size_t{1} << 21, kMany = 2 * kPage;

}  // namespace

void* allocate_large(std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  if (bytes >= kMany) {
    void* memory = nullptr;
    if (::posix_memalign(&memory, kPage, bytes) != 0) throw std::bad_alloc();
    static_cast<void>(::madvise(memory, bytes / kPage * kPage, MADV_HUGEPAGE));  // or its pages stay small
    return memory;
  }
#endif
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void free_large(void* memory) { std::free(memory); }

}  // namespace edgerecall

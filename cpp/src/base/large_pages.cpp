#include <cstdlib>
#include <new>

#include "edgerecall/large_vector.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace edgerecall {
namespace {

constexpr std::size_t kPage = std::size_t{1} << 21, kMany = 2 * kPage;

}  // namespace

void* allocate_large(std::size_t bytes) {
  void* memory = nullptr;
  if (bytes < kMany) {
    memory = std::malloc(bytes);
  } else if (::posix_memalign(&memory, kPage, bytes) != 0) {
    memory = nullptr;
  }
  if (memory == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (bytes >= kMany) static_cast<void>(::madvise(memory, bytes / kPage * kPage, MADV_HUGEPAGE));  // or it stays small
#endif
  return memory;
}

void free_large(void* memory) { std::free(memory); }

}  // namespace edgerecall

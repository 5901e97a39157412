#pragma once
#include <cstddef>
#include <vector>

namespace edgerecall {

/// Memory for what is read whole, over and over: much of it lies on the system's large pages where it gives them, so
/// that fewer have to be looked up. Throws std::bad_alloc.
void* allocate_large(std::size_t bytes);
void free_large(void* memory);

template <class T>
struct LargePages {
  using value_type = T;
  LargePages() = default;
  template <class U>
  LargePages(const LargePages<U>&) {}
  T* allocate(std::size_t count) { return static_cast<T*>(allocate_large(count * sizeof(T))); }
  void deallocate(T* memory, std::size_t) { free_large(memory); }
  friend bool operator==(const LargePages&, const LargePages&) { return true; }
  friend bool operator!=(const LargePages&, const LargePages&) { return false; }
};

/// A vector in such memory.
template <class T>
using LargeVector = std::vector<T, LargePages<T>>;

}  // namespace edgerecall

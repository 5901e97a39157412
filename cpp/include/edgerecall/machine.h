#pragma once
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace edgerecall {

/// The CPUs that this thread may use, ascending.
std::vector<int> usable_cpus();

/// Usable CPUs by name: `all`; `big` and `little`, those of the highest and of the lowest capacity (by the kernel's
/// cpu_capacity, else the highest frequency; all where they are alike); or a list such as `0,2-3`. Throws InputError.
std::vector<int> cpus_of(const std::string& cluster);

/// Binds this thread, and what it starts from now on, to CPUs. Throws InputError when the system refuses.
void bind_to(const std::vector<int>& cpus);

/// `0,2-3`.
std::string shown(const std::vector<int>& cpus);

/// Degrees Celsius by the names of the thermal zones; none where the system has none.
std::map<std::string, double> temperatures_c();

/// Current MHz of these CPUs; none where the system does not tell.
std::map<int, double> frequencies_mhz(const std::vector<int>& cpus);

/// `VmHWM` (peak) or `VmRSS` of this process in MB (1e6 bytes).
std::optional<double> memory_mb(const char* field);

/// What the board calls itself, else what its CPU is called.
std::string machine_model();

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

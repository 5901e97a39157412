// Work shared out among threads that live as long as the call: safe across fork, nothing to shut down.
#pragma once
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace edgerecall {

/// Calls `work(index, worker)` for every index below `count`, on up to `threads` threads, the calling one among them
/// as worker 0. The first exception stops the rest and is thrown here.
template <typename Work>
void parallel_for(std::size_t count, int threads, const Work& work) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::mutex mutex;
  const auto loop = [&](int worker) {
    try {
      for (std::size_t index = next++; index < count && !failed; index = next++) work(index, worker);
    } catch (...) {
      failed = true;
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  try {
    for (int worker = 1; worker < threads && static_cast<std::size_t>(worker) < count; ++worker)
      others.emplace_back(loop, worker);
  } catch (const std::system_error&) {
    // No more threads to be had: those that are there do the work.
  }
  loop(0);
  for (std::thread& thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace edgerecall

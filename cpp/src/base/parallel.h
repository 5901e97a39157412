// Work shared out among the threads of one pool.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>

namespace edgerecall {

/// How many threads work on `count` pieces when `threads` are asked for: at least this one.
inline int workers_for(std::size_t count, int threads) {
  constexpr std::size_t kMost = 256;
  return static_cast<int>(
      std::min({static_cast<std::size_t>(std::max(threads, 1)), std::max<std::size_t>(count, 1), kMost}));
}

/// Runs `part(0)` here and `part(1)` to `part(helpers)` on the pool's threads, and returns when all that began have
/// ended; a part that no thread was free for in time is not run. Threads are made when first needed, and again in a
/// forked child. `part` must not throw.
void run_on_pool(int helpers, const std::function<void(int)>& part);

/// Calls `work(index, worker)` for every index below `count`, on `workers_for(count, threads)` threads, the calling one
/// among them as worker 0. The first exception stops the rest and is thrown here.
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
  const int workers = workers_for(count, threads);
  if (workers == 1) {
    loop(0);
  } else {
    run_on_pool(workers - 1, loop);
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace edgerecall

#include "base/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <system_error>
#include <thread>

namespace edgerecall {
namespace {

/// A call of run_on_pool; all members are guarded by the pool's mutex.
struct Job {
  Job(const std::function<void(int)>& work, int wanted) : part(work), helpers(wanted) {}
  const std::function<void(int)>& part;
  int helpers;
  int begun = 0;
  int running = 0;
  std::condition_variable ended;
};

/// Threads that wait for jobs. Never destroyed: they sleep until the process ends.
class Pool {
 public:
  void run(int helpers, const std::function<void(int)>& part) {
    Job job(part, helpers);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      grow(helpers);
      jobs_.push_back(&job);
    }
    for (int helper = 0; helper < helpers; ++helper) wake_.notify_one();
    part(0);
    std::unique_lock<std::mutex> lock(mutex_);
    jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
    job.ended.wait(lock, [&] { return job.running == 0; });
  }

 private:
  void grow(int wanted) {
    try {
      for (; threads_ < wanted; ++threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // No more threads to be had: those that are there do the work.
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return !jobs_.empty(); });
      Job& job = *jobs_.front();
      const int number = ++job.begun;
      if (job.begun == job.helpers) jobs_.pop_front();
      ++job.running;
      lock.unlock();
      job.part(number);
      lock.lock();
      if (--job.running == 0) job.ended.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job*> jobs_;  // those that still take helpers
  int threads_ = 0;
};

std::atomic<Pool*> current{nullptr};

Pool& pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { current = nullptr; });  // a child has no threads
  (void)registered;
  Pool* found = current;
  if (found == nullptr) {
    auto* made = new Pool;
    if (current.compare_exchange_strong(found, made)) return *made;
    delete made;
  }
  return *found;
}

}  // namespace

void run_on_pool(int helpers, const std::function<void(int)>& part) { pool().run(helpers, part); }

}  // namespace edgerecall

// How far a run on several threads is, told to the caller's progress.
#pragma once
#include <atomic>
#include <cstddef>

#include "edgerecall/error.h"
#include "edgerecall/progress.h"

namespace edgerecall {

/// Counts steps; only worker 0, the calling thread, reports. Throws Cancelled when the progress says stop.
class Meter {
 public:
  Meter(const Progress& progress, std::size_t steps) : progress_(progress), steps_(static_cast<double>(steps)) {}

  void step(int worker) {
    ++done_;
    check(worker);
  }
  void check(int worker) const {
    if (worker == 0 && steps_ > 0) report(static_cast<double>(done_) / steps_);
  }
  void finish() const { report(1.0); }

 private:
  void report(double share) const {
    if (progress_ && !progress_(share)) throw Cancelled();
  }

  const Progress& progress_;
  double steps_;
  std::atomic<std::size_t> done_{0};
};

}  // namespace edgerecall

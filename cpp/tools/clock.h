// Time in nanoseconds, and the statistics of samples.
#pragma once
#include <algorithm>
#include <cstdint>
#include <ctime>
#include <vector>

namespace edgerecall::device {

inline std::int64_t clock_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}
inline std::int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

/// Linear between the two nearest, as numpy.percentile. `samples` is not empty.
inline double percentile(std::vector<std::int64_t> samples, double percent) {
  std::sort(samples.begin(), samples.end());
  const double place = percent / 100 * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, samples.size() - 1);
  const double share = place - static_cast<double>(below);
  return static_cast<double>(samples[below]) * (1 - share) + static_cast<double>(samples[above]) * share;
}
inline double median(const std::vector<std::int64_t>& samples) { return percentile(samples, 50); }

}  // namespace edgerecall::device

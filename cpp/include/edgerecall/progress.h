#pragma once
#include <functional>

namespace edgerecall {

/// Called now and then on the calling thread with the share done, and with 1 at the end; false stops with Cancelled.
using Progress = std::function<bool(double)>;

}  // namespace edgerecall

#pragma once
#include <cstdint>

namespace edgerecall {

/// A gallery row and its exact similarity to the query at hand.
struct Hit {
  double similarity;
  std::int64_t index;

  /// Whether it stands before another in the ranking.
  bool before(const Hit& other) const {
    return similarity > other.similarity || (similarity == other.similarity && index < other.index);
  }
};

}  // namespace edgerecall

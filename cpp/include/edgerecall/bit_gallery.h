#pragma once
#include <cstddef>
#include <cstdint>
#include <shared_mutex>
#include <vector>

#include "edgerecall/machine.h"
#include "edgerecall/progress.h"

namespace edgerecall {

/// A gallery that keeps 1 to 4 bits of each number: found by the Hamming distance of the signs, over all rows, and
/// ranked by all bits.
///
/// A row, less the centre, is stored as signs, as the nearest of the levels that are best for a normal distribution of
/// its own spread (Max, "Quantizing for Minimum Distortion", 1960), as the factor that fits these to it, and as its
/// inner product with the centre, which queries have much in common with. Rows should come rotated at random, which
/// makes their numbers about normal. Similarity is the inner product of what is stored with the float32 query, summed
/// in float64.
///
/// Several threads may search at once. Adding refuses while one does.
class BitGallery {
 public:
  /// centre: `dim` numbers, taken from every row. Throws InputError for a dim or bits that are not possible.
  BitGallery(std::size_t dim, int bits, const float* centre);

  /// Appends rows, float32 `(count, dim)`. Throws InputError on values that are not finite, and while a search runs.
  void add(const float* rows, std::size_t count);

  /// The `k` best rows for each of `count` queries, of the `candidates` whose signs differ least (equal ones by row):
  /// `indices` and `similarities` `(count, k)`, -1 and -inf where there are fewer. Throws InputError, Cancelled.
  void search(const float* queries, std::size_t count, std::size_t k, std::size_t candidates, int threads,
              std::int64_t* indices, float* similarities, const Progress& progress) const;

  std::size_t size() const;
  std::size_t dim() const { return dim_; }
  int bits() const { return bits_; }
  /// Of the stored rows.
  std::size_t bytes() const;

 private:
  class Nearest;
  void search_some(const float* queries, std::size_t count, std::size_t k, std::size_t candidates,
                   std::int64_t* indices, float* similarities) const;
  void rank(const float* query, const std::vector<std::uint32_t>& rows, std::size_t k, std::int64_t* indices,
            float* similarities) const;
  void add_one(const float* row);
  double similarity(const float* less, std::size_t row, std::vector<float>& scratch) const;

  std::size_t dim_, words_, size_ = 0;
  int bits_;
  std::vector<float> centre_;
  LargeVector<std::uint64_t> signs_;   ///< blocks of 8 rows, each word by word
  LargeVector<std::uint64_t> levels_;  ///< of the other bits: row by row, plane by plane
  struct Row {
    float factor;  ///< of the levels
    float along;   ///< its inner product with the centre, the centre taken from it
  };
  std::vector<Row> rows_;
  mutable std::shared_mutex using_;
};

}  // namespace edgerecall

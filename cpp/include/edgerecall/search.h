#pragma once
#include <cstddef>
#include <cstdint>
#include <shared_mutex>
#include <string>
#include <vector>

#include "edgerecall/machine.h"
#include "edgerecall/progress.h"

namespace edgerecall {

/// How a gallery keeps its embeddings: 4, 2 or 1 byte a number (int8: and a float32 scale a row), or its sign alone.
enum class Storage { float32, float16, int8, binary };

/// By its name. Throws InputError, which begins with `where`.
Storage storage_named(const std::string& name, const std::string& where);

/// Of 64 bits each, for a row's signs.
constexpr std::size_t sign_words(std::size_t dim) { return (dim + 63) / 64; }

/// One row's signs: bit `i % 64` of word `i / 64` is set where number i is more than 0, and in none behind the last.
void to_signs(const float* row, std::size_t dim, std::uint64_t* words);

/// Of an int8 row's scale: a step of what its codes leave.
constexpr double kRest = 0x1p-16;

/// Embeddings as a gallery keeps them, wherever they lie: in memory, or in a file that is mapped.
struct StoredRows {
  Storage storage = Storage::float32;
  std::size_t dim = 0, count = 0;
  /// `(count, dim)`: float, bits of float16, or int8 codes; `(count, sign_words(dim))`: see `to_signs`
  const void* values = nullptr;
  const float* scales = nullptr;           ///< `(count,)`, for int8
  const std::int16_t* rest = nullptr;      ///< `(count, dim)`, for int8: see `to_int8`; ranks the best of the codes
  double longest_rest = 0;                 ///< of int8's rows: none of their `scale * rest / 65536` is longer
  double longest = 0;                      ///< no row is longer
  const std::uint8_t* excluded = nullptr;  ///< where bit `row % 8` of byte `row / 8` is set, the row is not found
};

/// The `k` best rows for each of `count` queries, as `Gallery::search` gives them, of all parts: numbered through, the
/// first row of a part after the last of the part before it. The parts are of one storage and dim, and stay as they are
/// while this runs. Values that are not finite are not found. Throws InputError, Cancelled.
void search_rows(const std::vector<StoredRows>& parts, const float* queries, std::size_t count, std::size_t k,
                 int threads, std::int64_t* indices, float* similarities, const Progress& progress);

/// One row as int8 codes, `dim` of them, and, where it is wanted, what they leave of each number, in 2^-16 of the
/// scale: `scale * (code + rest / 65536)` has 24 bits of the row's largest number. Returns the scale.
float to_int8(const float* row, std::size_t dim, std::int8_t* codes, std::int16_t* rest = nullptr);

/// A gallery in memory, searched exactly: every row is looked at, no index to build.
///
/// Similarity is the inner product of what is stored: float32 and float16 rows with the float32 query, summed in
/// float64 as in `rank_relevant`; int8 codes with the query's int8 codes, exactly, times both scales; signs with the
/// query's, as a cosine: `1 - 2 * (how many differ) / dim`. Codes are `value * 127 / max |value|` of the row, rounded
/// half to even. Highest first; equal ones by row.
///
/// Several threads may search at once. Adding refuses while one does.
class Gallery {
 public:
  Gallery(std::size_t dim, Storage storage);

  /// Appends rows, float32 `(count, dim)`. Throws InputError on values that are not finite or that float16 cannot hold,
  /// and while a search runs; the gallery is then unchanged.
  void add(const float* rows, std::size_t count);

  /// The `k` best rows for each of `count` queries: `indices` and `similarities` `(count, k)`, -1 and -inf where the
  /// gallery has fewer than `k`. Throws InputError, Cancelled.
  void search(const float* queries, std::size_t count, std::size_t k, int threads, std::int64_t* indices,
              float* similarities, const Progress& progress) const;

  std::size_t size() const;
  std::size_t dim() const { return dim_; }
  Storage storage() const { return storage_; }
  /// Of the stored embeddings.
  std::size_t bytes() const;

 private:
  void append(const float* rows, std::size_t count);

  std::size_t dim_, size_ = 0;
  Storage storage_;
  LargeVector<float> whole_;
  LargeVector<std::uint16_t> half_;
  LargeVector<std::int8_t> codes_;
  LargeVector<std::uint64_t> signs_;
  LargeVector<float> scales_;
  double longest_ = 0;  // no row, given or stored, is longer
  mutable std::shared_mutex using_;
};

}  // namespace edgerecall

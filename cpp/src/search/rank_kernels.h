// The inner loops of retrieval and search, one source compiled for every vector width and chosen at run time.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edgerecall::kernels {

/// Longest embedding: int8 products stay within int32, and the bound of `float32_error` holds.
constexpr std::size_t kMaxDim = 1 << 16;

/// Elements that `select` and `scan` may write behind the last one that counts.
constexpr std::size_t kScanOverrun = 16;

/// Positions of values of at least `low` and at most `high`. Returns how many.
std::size_t select(const float* values, std::size_t count, float low, float high, std::uint32_t* positions);

/// Ranges within which float32 does not decide.
struct Thresholds {
  const float *low, *high;
  std::size_t count;
};
struct Scanned {
  std::size_t first_undecided, last_undecided;  ///< ranges that values lie within; none when the first is the larger
  bool reaches_bar;                             ///< whether there are values of at least `bar`
};
/// For each range the number of values above it, added to `above`. `floor`: no range and no bar begins below it.
/// `kept` gets the values from `floor` up: room for all of them and the overrun.
Scanned scan(const float* values, std::size_t count, float floor, float bar, const Thresholds& thresholds,
             std::int64_t* above, float* kept);

/// `(rows, columns)` -> `(columns, rows)`.
void transpose(const float* values, std::size_t rows, std::size_t columns, float* out);

/// The inner product in float64: eight partial sums (element i in sum i mod 8), then added pairwise. Products of
/// float32 are exact in float64, so the result is the same on every CPU.
double dot_float64(const float* a, const float* b, std::size_t dim);

/// Inner products of a query with `count` rows, for filtering: float32 with an error below `float32_error`. in_cache:
/// whether the rows were read just now. From memory they come twice as fast in order.
void dots_float32(const float* query, const float* rows, std::size_t count, std::size_t dim, bool in_cache, float* out);
void dots_float16(const float* query, const std::uint16_t* rows, std::size_t count, std::size_t dim, bool in_cache,
                  float* out);
/// Exact, in int32.
void dots_int8(const std::int8_t* query, const std::int8_t* rows, std::size_t count, std::size_t dim,
               std::int32_t* out);

/// Each sum times its scale, in float32: off by less than `2^-22` of itself.
void scaled(const std::int32_t* sums, const float* scales, std::size_t count, float* out);

void to_float16(const float* values, std::size_t count, std::uint16_t* out);
void from_float16(const std::uint16_t* values, std::size_t count, float* out);

/// Bound of the error of a float32 inner product of vectors with these lengths, summed in any order (Higham, "Accuracy
/// and Stability of Numerical Algorithms", 3.1), with room for what float64 itself rounds.
double float32_error(std::size_t dim, double length_a, double length_b);

/// The largest float32 below a number, at most an ulp or two.
float rounded_down(double value);

/// A row's length. Throws InputError, naming `what` and `number`, unless it is finite and far from overflow.
double checked_length(const float* row, std::size_t dim, const char* what, std::size_t number);

}  // namespace edgerecall::kernels

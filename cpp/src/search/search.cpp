#include "edgerecall/search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "edgerecall/error.h"
#include "search/hamming_kernels.h"
#include "search/hit.h"
#include "base/json_text.h"
#include "base/meter.h"
#include "base/parallel.h"
#include "search/rank_kernels.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kChunk = 512;  // rows scored at once: they and their scores stay in a core's cache
constexpr size_t kPieceRows = 1 << 14, kPieceQueries = 64;  // of one piece of work
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// A piece: some queries against some rows of one part. number: of the part's first row.
struct Piece {
  size_t part, first_row, last_row, first_query, last_query;
  std::int64_t number;
};

struct Queries {
  const float* values;
  size_t count, dim;
  std::vector<std::int8_t> codes;    // for int8
  std::vector<std::uint64_t> signs;  // for binary
  std::vector<float> scales;
  std::vector<double> lengths, left;  // of each query, and of what its codes leave of it
};

/// The best rows of one query so far.
class Best {
 public:
  Best(size_t k, double error) : k_(k), error_(error) {}

  /// Float32 similarities below this cannot enter.
  float bar() const {
    return hits_.size() < k_ ? -kInfinity : kernels::rounded_down(hits_.front().similarity - error_);
  }

  /// Of codes' float32 similarities to a query, not yet times its scale, those below this cannot enter. error: by how
  /// much the codes' similarity may differ from the one that is offered.
  float bar_of_codes(double query_scale, double error) const {
    if (hits_.size() < k_ || !(query_scale > 0)) return -kInfinity;
    const double least = (hits_.front().similarity - error) / query_scale;
    return kernels::rounded_down(least - std::fabs(least) * 0x1p-21);
  }

  /// More differing signs than these cannot enter.
  size_t most_differing(size_t dim) const {
    if (hits_.size() < k_) return dim;
    return static_cast<size_t>(std::lrint((1 - hits_.front().similarity) / 2 * static_cast<double>(dim)));
  }

  void offer(double similarity, std::int64_t row) {
    const auto order = [](const Hit& a, const Hit& b) { return a.before(b); };  // the heap's front is the worst
    const Hit hit{similarity, row};
    const bool full = hits_.size() == k_;
    if ((full && !hit.before(hits_.front())) || !std::isfinite(similarity)) return;  // not finite: of a damaged file
    if (full) {
      std::pop_heap(hits_.begin(), hits_.end(), order);
      hits_.pop_back();
    }
    hits_.push_back(hit);
    std::push_heap(hits_.begin(), hits_.end(), order);
  }

  void merge(const Best& other) {
    for (const Hit& hit : other.hits_) offer(hit.similarity, hit.index);
  }

  /// Writes the hits in order; what lies behind them is left as it is.
  void write(std::int64_t* rows, float* similarities) {
    std::sort(hits_.begin(), hits_.end(), [](const Hit& a, const Hit& b) { return a.before(b); });
    for (size_t i = 0; i < hits_.size(); ++i) {
      rows[i] = hits_[i].index;
      similarities[i] = static_cast<float>(hits_[i].similarity);
    }
  }

 private:
  size_t k_;
  double error_;
  std::vector<Hit> hits_;
};

bool is_excluded(const StoredRows& rows, size_t row) {
  return rows.excluded != nullptr && (rows.excluded[row / 8] >> row % 8 & 1) != 0;
}

double exact_half(const float* query, const std::uint16_t* half, size_t dim, std::vector<float>& scratch) {
  kernels::from_float16(half, dim, scratch.data());
  return kernels::dot_float64(query, scratch.data(), dim);
}

/// Of codes and what they leave of each number, in float64.
double exact_codes(const float* query, const StoredRows& rows, size_t row) {
  const auto* codes = static_cast<const std::int8_t*>(rows.values) + row * rows.dim;
  const std::int16_t* rest = rows.rest + row * rows.dim;
  double sum = 0;
  for (size_t i = 0; i < rows.dim; ++i) sum += static_cast<double>(query[i]) * (codes[i] + rest[i] * kRest);
  return static_cast<double>(rows.scales[row]) * sum;
}

/// By the codes alone; or, with what they leave, by both: a query q and a row x have codes with the values q + e and
/// x - d, whose product differs from theirs by at most |q| |d| + |e| (|x| + |d|).
void scan_codes(const StoredRows& rows, const Queries& queries, const Piece& piece, std::vector<Best>& best) {
  std::vector<std::int32_t> sums(kChunk);
  std::vector<float> scores(kChunk);
  std::vector<std::uint32_t> positions(kChunk + kernels::kScanOverrun);
  const auto* codes = static_cast<const std::int8_t*>(rows.values);
  for (size_t begin = piece.first_row; begin < piece.last_row; begin += kChunk) {
    const size_t width = std::min(kChunk, piece.last_row - begin);
    for (size_t query = piece.first_query; query < piece.last_query; ++query) {
      Best& own = best[query];
      const double scale = static_cast<double>(queries.scales[query]);
      const double error = rows.rest == nullptr ? 0
                                                : 1.0001 * (queries.lengths[query] * rows.longest_rest +
                                                            queries.left[query] * (rows.longest + rows.longest_rest)) +
                                                      1e-6 * queries.lengths[query] * rows.longest;
      kernels::dots_int8(queries.codes.data() + query * rows.dim, codes + begin * rows.dim, width, rows.dim,
                         sums.data());
      kernels::scaled(sums.data(), rows.scales + begin, width, scores.data());
      const size_t found =
          kernels::select(scores.data(), width, own.bar_of_codes(scale, error), kInfinity, positions.data());
      for (size_t i = 0; i < found; ++i) {
        const size_t at = positions[i], row = begin + at;
        if (is_excluded(rows, row) || scores[at] < own.bar_of_codes(scale, error)) continue;
        const double similarity = rows.rest == nullptr ? sums[at] * static_cast<double>(rows.scales[row]) * scale
                                                       : exact_codes(queries.values + query * rows.dim, rows, row);
        own.offer(similarity, piece.number + static_cast<std::int64_t>(row));
      }
    }
  }
}

void scan_signs(const StoredRows& rows, const Queries& queries, const Piece& piece, std::vector<Best>& best) {
  const size_t words = sign_words(rows.dim);
  const auto* signs = static_cast<const std::uint64_t*>(rows.values);
  std::vector<std::uint32_t> differing(kChunk);
  for (size_t begin = piece.first_row; begin < piece.last_row; begin += kChunk) {
    const size_t width = std::min(kChunk, piece.last_row - begin);
    for (size_t query = piece.first_query; query < piece.last_query; ++query) {
      Best& own = best[query];
      kernels::hamming(queries.signs.data() + query * words, signs + begin * words, width, words, differing.data());
      size_t most = own.most_differing(rows.dim);
      for (size_t at = 0; at < width; ++at) {
        if (differing[at] > most || is_excluded(rows, begin + at)) continue;
        own.offer(1 - 2.0 * differing[at] / static_cast<double>(rows.dim),
                  piece.number + static_cast<std::int64_t>(begin + at));
        most = own.most_differing(rows.dim);
      }
    }
  }
}

void scan(const StoredRows& rows, const Queries& queries, const Piece& piece, std::vector<Best>& best) {
  if (rows.storage == Storage::int8) return scan_codes(rows, queries, piece, best);
  if (rows.storage == Storage::binary) return scan_signs(rows, queries, piece, best);
  const size_t dim = rows.dim;
  const bool halves = rows.storage == Storage::float16;
  const auto* whole = static_cast<const float*>(rows.values);
  const auto* half = static_cast<const std::uint16_t*>(rows.values);
  std::vector<float> scores(kChunk), scratch(dim);
  std::vector<std::uint32_t> positions(kChunk + kernels::kScanOverrun);
  for (size_t begin = piece.first_row; begin < piece.last_row; begin += kChunk) {
    const size_t width = std::min(kChunk, piece.last_row - begin);
    for (size_t query = piece.first_query; query < piece.last_query; ++query) {
      Best& own = best[query];
      const float* values = queries.values + query * dim;
      const bool in_cache = query > piece.first_query;
      if (halves)
        kernels::dots_float16(values, half + begin * dim, width, dim, in_cache, scores.data());
      else
        kernels::dots_float32(values, whole + begin * dim, width, dim, in_cache, scores.data());
      const size_t found = kernels::select(scores.data(), width, own.bar(), kInfinity, positions.data());
      for (size_t i = 0; i < found; ++i) {
        const size_t row = begin + positions[i];
        if (scores[positions[i]] < own.bar() || is_excluded(rows, row)) continue;
        const double similarity = halves ? exact_half(values, half + row * dim, dim, scratch)
                                         : kernels::dot_float64(values, whole + row * dim, dim);
        own.offer(similarity, piece.number + static_cast<std::int64_t>(row));
      }
    }
  }
}

/// Pieces of all parts, and how many rows these have.
std::vector<Piece> pieces_of(const std::vector<StoredRows>& parts, size_t queries, std::int64_t& number) {
  std::vector<Piece> pieces;
  number = 0;
  for (size_t part = 0; part < parts.size(); ++part) {
    for (size_t row = 0; row < parts[part].count; row += kPieceRows)
      for (size_t query = 0; query < queries; query += kPieceQueries)
        pieces.push_back({part, row, std::min(row + kPieceRows, parts[part].count), query,
                          std::min(query + kPieceQueries, queries), number});
    number += static_cast<std::int64_t>(parts[part].count);
  }
  return pieces;
}

}  // namespace

Storage storage_named(const std::string& name, const std::string& where) {
  if (name == "float32") return Storage::float32;
  if (name == "float16") return Storage::float16;
  if (name == "int8") return Storage::int8;
  if (name == "binary") return Storage::binary;
  throw InputError(where + ": expected float32, float16, int8 or binary, got " + in_quotes(name));
}

void to_signs(const float* row, size_t dim, std::uint64_t* words) {
  std::fill_n(words, sign_words(dim), 0);
  for (size_t i = 0; i < dim; ++i) words[i / 64] |= static_cast<std::uint64_t>(row[i] > 0) << i % 64;
}

float to_int8(const float* row, size_t dim, std::int8_t* codes, std::int16_t* rest) {
  float largest = 0;
  for (size_t i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(row[i]));
  const double to_code = largest > 0 ? 127.0 / static_cast<double>(largest) : 0.0;
  for (size_t i = 0; i < dim; ++i) {
    const double exact = static_cast<double>(row[i]) * to_code;
    codes[i] = static_cast<std::int8_t>(std::lrint(exact));
    if (rest != nullptr) rest[i] = static_cast<std::int16_t>(std::min(std::lrint((exact - codes[i]) / kRest), 32767l));
  }
  return largest / 127.0f;
}

void search_rows(const std::vector<StoredRows>& parts, const float* queries, size_t count, size_t k, int threads,
                 std::int64_t* indices, float* similarities, const Progress& progress) {
  if (k == 0) throw InputError("search: expected k of 1 or more");
  std::fill_n(indices, count * k, -1);
  std::fill_n(similarities, count * k, -kInfinity);
  if (parts.empty()) return;
  const size_t dim = parts[0].dim;
  const bool codes = parts[0].storage == Storage::int8;
  const size_t words = parts[0].storage == Storage::binary ? sign_words(dim) : 0;
  double longest = 0;
  for (const StoredRows& part : parts) longest = std::max(longest, part.longest);
  std::int64_t total = 0;
  const std::vector<Piece> pieces = pieces_of(parts, count, total);
  const size_t kept = std::min(k, static_cast<size_t>(total));
  if (kept == 0) return;
  Queries asked{queries,
                count,
                dim,
                std::vector<std::int8_t>(codes ? count * dim : 0),
                std::vector<std::uint64_t>(count * words),
                std::vector<float>(count),
                std::vector<double>(count),
                std::vector<double>(count)};
  std::vector<Best> empty;
  std::vector<float> left(dim);
  for (size_t query = 0; query < count; ++query) {
    const float* values = queries + query * dim;
    const double length = kernels::checked_length(values, dim, "search: query", query);
    if (words > 0) to_signs(values, dim, asked.signs.data() + query * words);
    if (codes) {
      const float scale = asked.scales[query] = to_int8(values, dim, asked.codes.data() + query * dim);
      for (size_t i = 0; i < dim; ++i) left[i] = values[i] - scale * static_cast<float>(asked.codes[query * dim + i]);
      asked.lengths[query] = length;
      asked.left[query] = std::sqrt(kernels::dot_float64(left.data(), left.data(), dim));
    }
    empty.emplace_back(kept, kernels::float32_error(dim, length, longest));
  }
  std::vector<std::vector<Best>> found(static_cast<size_t>(workers_for(pieces.size(), threads)), empty);
  Meter meter(progress, pieces.size());
  parallel_for(pieces.size(), threads, [&](size_t piece, int worker) {
    scan(parts[pieces[piece].part], asked, pieces[piece], found[static_cast<size_t>(worker)]);
    meter.step(worker);
  });
  for (size_t query = 0; query < count; ++query) {
    for (size_t worker = 1; worker < found.size(); ++worker) found[0][query].merge(found[worker][query]);
    found[0][query].write(indices + query * k, similarities + query * k);
  }
  meter.finish();
}

}  // namespace edgerecall

#include "edgerecall/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "edgerecall/error.h"
#include "search/hit.h"
#include "base/meter.h"
#include "base/parallel.h"
#include "search/rank_kernels.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kChunk = 512;  // rows scored at once: they and their scores stay in a core's cache
constexpr size_t kPieceRows = 1 << 14, kPieceQueries = 64;  // of one piece of work
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Codes of a row, and the scale that gives its values back.
float quantize(const float* row, size_t dim, std::int8_t* codes) {
  float largest = 0;
  for (size_t i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(row[i]));
  const double to_code = largest > 0 ? 127.0 / static_cast<double>(largest) : 0.0;
  for (size_t i = 0; i < dim; ++i)
    codes[i] = static_cast<std::int8_t>(std::lrint(static_cast<double>(row[i]) * to_code));
  return largest / 127.0f;
}

}  // namespace

/// A piece: some queries against some rows.
struct Gallery::Work {
  const float* queries;
  const std::int8_t* codes;  // of the queries, for int8
  const float* scales;
  size_t first_query, last_query, first_row, last_row;
};

/// The best rows of one query so far.
class Gallery::Best {
 public:
  Best(size_t k, double error) : k_(k), error_(error) {}

  /// Float32 similarities below this cannot enter.
  float bar() const {
    return hits_.size() < k_ ? -kInfinity : kernels::rounded_down(hits_.front().similarity - error_);
  }

  void offer(double similarity, std::int64_t row) {
    const auto order = [](const Hit& a, const Hit& b) { return a.before(b); };  // the heap's front is the worst
    const Hit hit{similarity, row};
    if (hits_.size() == k_) {
      if (!hit.before(hits_.front())) return;
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

Gallery::Gallery(size_t dim, Storage storage) : dim_(dim), storage_(storage) {
  if (dim == 0 || dim > kernels::kMaxDim) throw InputError("gallery: expected embeddings of 1 to 65536 numbers");
}

void Gallery::add(const float* rows, size_t count) {
  const std::unique_lock<std::shared_mutex> lock(using_, std::try_to_lock);
  if (!lock) throw InputError("gallery: rows cannot be added while it is searched");
  if (size_ + count > std::numeric_limits<std::uint32_t>::max() / 2) throw InputError("gallery: too many rows");
  double longest = longest_;
  for (size_t row = 0; row < count; ++row) {
    longest = std::max(longest, kernels::checked_length(rows + row * dim_, dim_, "gallery: row", size_ + row));
    for (size_t i = row * dim_; storage_ == Storage::float16 && i < (row + 1) * dim_; ++i)
      if (std::fabs(rows[i]) > 65504.0f) throw InputError("gallery: float16 holds values up to 65504");
  }
  append(rows, count);
  longest_ = std::max(longest_, longest);
}

void Gallery::append(const float* rows, size_t count) {
  const size_t total = (size_ + count) * dim_;
  if (storage_ == Storage::float32) whole_.insert(whole_.end(), rows, rows + count * dim_);
  if (storage_ == Storage::float16) half_.resize(total);
  if (storage_ == Storage::int8) {
    codes_.resize(total);
    scales_.resize(size_ + count);
  }
  std::vector<float> stored(dim_);
  for (size_t row = 0; row < count; ++row) {
    const float* values = rows + row * dim_;
    const size_t at = (size_ + row) * dim_;
    if (storage_ == Storage::float16) {
      kernels::to_float16(values, dim_, half_.data() + at);
      kernels::from_float16(half_.data() + at, dim_, stored.data());  // rounding may lengthen a row
      longest_ = std::max(longest_, std::sqrt(kernels::dot_float64(stored.data(), stored.data(), dim_)));
    }
    if (storage_ == Storage::int8) scales_[size_ + row] = quantize(values, dim_, codes_.data() + at);
  }
  size_ += count;
}

size_t Gallery::size() const {
  const std::shared_lock<std::shared_mutex> lock(using_);
  return size_;
}

size_t Gallery::bytes() const {
  const std::shared_lock<std::shared_mutex> lock(using_);
  return whole_.size() * sizeof(float) + half_.size() * sizeof(std::uint16_t) + codes_.size() +
         scales_.size() * sizeof(float);
}

double Gallery::exact(const float* query, size_t row, std::vector<float>& scratch) const {
  if (storage_ == Storage::float32) return kernels::dot_float64(query, whole_.data() + row * dim_, dim_);
  kernels::from_float16(half_.data() + row * dim_, dim_, scratch.data());
  return kernels::dot_float64(query, scratch.data(), dim_);
}

void Gallery::scan(const Work& work, std::vector<Best>& best) const {
  std::vector<float> scores(kChunk), scratch(dim_);
  std::vector<std::uint32_t> positions(kChunk + kernels::kScanOverrun);
  std::vector<std::int32_t> sums(kChunk);
  for (size_t begin = work.first_row; begin < work.last_row; begin += kChunk) {
    const size_t width = std::min(kChunk, work.last_row - begin);
    for (size_t query = work.first_query; query < work.last_query; ++query) {
      Best& own = best[query];
      const float* values = work.queries + query * dim_;
      if (storage_ == Storage::int8) {
        kernels::dots_int8(work.codes + query * dim_, codes_.data() + begin * dim_, width, dim_, sums.data());
        for (size_t i = 0; i < width; ++i)
          own.offer(sums[i] * static_cast<double>(scales_[begin + i]) * static_cast<double>(work.scales[query]),
                    static_cast<std::int64_t>(begin + i));
        continue;
      }
      if (storage_ == Storage::float16)
        kernels::dots_float16(values, half_.data() + begin * dim_, width, dim_, scores.data());
      else
        kernels::dots_float32(values, whole_.data() + begin * dim_, width, dim_, scores.data());
      const size_t found = kernels::select(scores.data(), width, own.bar(), kInfinity, positions.data());
      for (size_t i = 0; i < found; ++i) {
        const size_t row = begin + positions[i];
        if (scores[positions[i]] >= own.bar()) own.offer(exact(values, row, scratch), static_cast<std::int64_t>(row));
      }
    }
  }
}

void Gallery::search(const float* queries, size_t count, size_t k, int threads, std::int64_t* indices,
                     float* similarities, const Progress& progress) const {
  if (k == 0) throw InputError("search: expected k of 1 or more");
  const std::shared_lock<std::shared_mutex> lock(using_);
  std::fill_n(indices, count * k, -1);
  std::fill_n(similarities, count * k, -kInfinity);
  std::vector<std::int8_t> codes(storage_ == Storage::int8 ? count * dim_ : 0);
  std::vector<float> scales(count);
  std::vector<Best> empty;
  for (size_t query = 0; query < count; ++query) {
    const double length = kernels::checked_length(queries + query * dim_, dim_, "search: query", query);
    if (storage_ == Storage::int8) scales[query] = quantize(queries + query * dim_, dim_, codes.data() + query * dim_);
    empty.emplace_back(std::min(k, size_), kernels::float32_error(dim_, length, longest_));
  }
  const size_t row_pieces = (size_ + kPieceRows - 1) / kPieceRows;
  const size_t query_pieces = (count + kPieceQueries - 1) / kPieceQueries, pieces = row_pieces * query_pieces;
  std::vector<std::vector<Best>> found(static_cast<size_t>(workers_for(pieces, threads)), empty);
  Meter meter(progress, pieces);
  parallel_for(pieces, threads, [&](size_t piece, int worker) {
    const size_t row = piece / query_pieces * kPieceRows, query = piece % query_pieces * kPieceQueries;
    scan({queries, codes.data(), scales.data(), query, std::min(query + kPieceQueries, count), row,
          std::min(row + kPieceRows, size_)},
         found[static_cast<size_t>(worker)]);
    meter.step(worker);
  });
  for (size_t query = 0; query < count; ++query) {
    for (size_t worker = 1; worker < found.size(); ++worker) found[0][query].merge(found[worker][query]);
    found[0][query].write(indices + query * k, similarities + query * k);
  }
  meter.finish();
}

}  // namespace edgerecall

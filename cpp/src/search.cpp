#include "edgerecall/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "edgerecall/error.h"
#include "parallel.h"
#include "rank_kernels.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kChunk = 512;         // rows scored at once: they and their scores stay in a core's cache
constexpr size_t kRangeRows = 1 << 14; // rows of one piece of work
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
constexpr size_t kMaxDim = 1 << 16;    // 127 * 127 * dim stays within int32

/// Codes of a row, and the scale that gives its values back.
float quantize(const float* row, size_t dim, std::int8_t* codes) {
  float largest = 0;
  for (size_t i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(row[i]));
  const double to_code = largest > 0 ? 127.0 / static_cast<double>(largest) : 0.0;
  for (size_t i = 0; i < dim; ++i) codes[i] = static_cast<std::int8_t>(std::lrint(static_cast<double>(row[i]) * to_code));
  return largest / 127.0f;
}

double length_of(const float* row, size_t dim, const char* what, size_t number) {
  const double square = kernels::dot_float64(row, row, dim);
  if (!(square < 1e36)) throw InputError(std::string(what) + " " + std::to_string(number) + " is not finite, or too large");
  return std::sqrt(square);
}

}  // namespace

struct Gallery::Range {
  size_t begin, end;
};

/// The best rows of one query so far.
class Gallery::Best {
 public:
  struct Hit {
    double similarity;
    std::int64_t row;
    bool before(const Hit& other) const {
      return similarity > other.similarity || (similarity == other.similarity && row < other.row);
    }
  };

  Best(size_t k, double error) : k_(k), error_(error) {}

  /// Float32 similarities below this cannot enter.
  float bar() const {
    if (hits_.size() < k_) return -std::numeric_limits<float>::infinity();
    return std::nextafter(static_cast<float>(hits_.front().similarity - error_), -std::numeric_limits<float>::infinity());
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
    for (const Hit& hit : other.hits_) offer(hit.similarity, hit.row);
  }

  void write(std::int64_t* rows, float* similarities) {
    std::sort(hits_.begin(), hits_.end(), [](const Hit& a, const Hit& b) { return a.before(b); });
    for (size_t i = 0; i < k_; ++i) {
      rows[i] = i < hits_.size() ? hits_[i].row : -1;
      similarities[i] = static_cast<float>(i < hits_.size() ? hits_[i].similarity : kMinusInfinity);
    }
  }

 private:
  size_t k_;
  double error_;
  std::vector<Hit> hits_;
};

Gallery::Gallery(size_t dim, Storage storage) : dim_(dim), storage_(storage) {
  if (dim == 0 || dim > kMaxDim) throw InputError("gallery: expected embeddings of 1 to 65536 numbers");
}

void Gallery::add(const float* rows, size_t count) {
  if (size_ + count > std::numeric_limits<std::uint32_t>::max() / 2) throw InputError("gallery: too many rows");
  double longest = longest_;
  float largest = 0;
  for (size_t row = 0; row < count; ++row)
    longest = std::max(longest, length_of(rows + row * dim_, dim_, "gallery: row", size_ + row));
  if (storage_ == Storage::float16) {
    for (size_t i = 0; i < count * dim_; ++i) largest = std::max(largest, std::fabs(rows[i]));
    if (largest > 65504.0f) throw InputError("gallery: float16 holds values up to 65504");
    half_.resize((size_ + count) * dim_);
    kernels::to_float16(rows, count * dim_, half_.data() + size_ * dim_);
    longest *= 1.001;  // rounding may lengthen a row
  } else if (storage_ == Storage::int8) {
    codes_.resize((size_ + count) * dim_);
    scales_.resize(size_ + count);
    for (size_t row = 0; row < count; ++row)
      scales_[size_ + row] = quantize(rows + row * dim_, dim_, codes_.data() + (size_ + row) * dim_);
  } else {
    whole_.insert(whole_.end(), rows, rows + count * dim_);
  }
  longest_ = longest;
  size_ += count;
}

size_t Gallery::bytes() const {
  return whole_.size() * sizeof(float) + half_.size() * sizeof(std::uint16_t) + codes_.size() +
         scales_.size() * sizeof(float);
}

double Gallery::exact(const float* query, size_t row, std::vector<float>& scratch) const {
  if (storage_ == Storage::float32) return kernels::dot_float64(query, whole_.data() + row * dim_, dim_);
  kernels::from_float16(half_.data() + row * dim_, dim_, scratch.data());
  return kernels::dot_float64(query, scratch.data(), dim_);
}

void Gallery::scan(const float* queries, const std::int8_t* codes, const float* scales, size_t count,
                   const Range& range, std::vector<Best>& best) const {
  std::vector<float> scores(kChunk), scratch(dim_);
  std::vector<std::uint32_t> positions(kChunk + kernels::kSelectOverrun);
  std::vector<std::int32_t> sums(kChunk);
  for (size_t begin = range.begin; begin < range.end; begin += kChunk) {
    const size_t width = std::min(kChunk, range.end - begin);
    for (size_t query = 0; query < count; ++query) {
      const float* vector = queries + query * dim_;
      if (storage_ == Storage::int8) {
        kernels::dots_int8(codes + query * dim_, codes_.data() + begin * dim_, width, dim_, sums.data());
        for (size_t i = 0; i < width; ++i)
          best[query].offer(sums[i] * static_cast<double>(scales_[begin + i]) * static_cast<double>(scales[query]),
                            static_cast<std::int64_t>(begin + i));
        continue;
      }
      if (storage_ == Storage::float16)
        kernels::dots_float16(vector, half_.data() + begin * dim_, width, dim_, scores.data());
      else
        kernels::dots_float32(vector, whole_.data() + begin * dim_, width, dim_, scores.data());
      constexpr float kInfinity = std::numeric_limits<float>::infinity();
      const size_t found = kernels::select(scores.data(), width, best[query].bar(), kInfinity, positions.data());
      for (size_t i = 0; i < found; ++i) {
        const size_t row = begin + positions[i];
        if (scores[positions[i]] >= best[query].bar())
          best[query].offer(exact(vector, row, scratch), static_cast<std::int64_t>(row));
      }
    }
  }
}

void Gallery::search(const float* queries, size_t count, size_t k, int threads, std::int64_t* indices,
                     float* similarities, const Progress& progress) const {
  if (k == 0) throw InputError("search: expected k of 1 or more");
  std::vector<std::int8_t> codes(storage_ == Storage::int8 ? count * dim_ : 0);
  std::vector<float> scales(count);
  std::vector<Best> empty;
  for (size_t query = 0; query < count; ++query) {
    const double length = length_of(queries + query * dim_, dim_, "search: query", query);
    if (storage_ == Storage::int8) scales[query] = quantize(queries + query * dim_, dim_, codes.data() + query * dim_);
    empty.emplace_back(std::min(k, std::max<size_t>(size_, 1)), kernels::float32_error(dim_, length, longest_));
  }
  const size_t pieces = (size_ + kRangeRows - 1) / kRangeRows;
  std::vector<std::vector<Best>> found(static_cast<size_t>(std::max(threads, 1)), empty);
  parallel_for(pieces, threads, [&](size_t piece, int worker) {
    const Range range{piece * kRangeRows, std::min((piece + 1) * kRangeRows, size_)};
    scan(queries, codes.data(), scales.data(), count, range, found[static_cast<size_t>(worker)]);
    if (worker == 0 && progress && !progress(static_cast<double>(piece + 1) / static_cast<double>(pieces))) throw Cancelled();
  });
  for (size_t query = 0; query < count; ++query) {
    for (size_t worker = 1; worker < found.size(); ++worker) found[0][query].merge(found[worker][query]);
    const size_t kept = std::min(k, size_);
    std::fill_n(indices + query * k, k, -1);
    std::fill_n(similarities + query * k, k, -std::numeric_limits<float>::infinity());
    if (kept > 0) found[0][query].write(indices + query * k, similarities + query * k);
  }
}

}  // namespace edgerecall

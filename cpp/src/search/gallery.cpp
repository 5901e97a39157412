#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "edgerecall/error.h"
#include "edgerecall/search.h"
#include "search/rank_kernels.h"

namespace edgerecall {

using std::size_t;

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
  if (storage_ == Storage::binary) signs_.resize((size_ + count) * sign_words(dim_));
  std::vector<float> stored(dim_);
  for (size_t row = 0; row < count; ++row) {
    const float* values = rows + row * dim_;
    const size_t at = (size_ + row) * dim_;
    if (storage_ == Storage::float16) {
      kernels::to_float16(values, dim_, half_.data() + at);
      kernels::from_float16(half_.data() + at, dim_, stored.data());  // rounding may lengthen a row
      longest_ = std::max(longest_, std::sqrt(kernels::dot_float64(stored.data(), stored.data(), dim_)));
    }
    if (storage_ == Storage::int8) scales_[size_ + row] = to_int8(values, dim_, codes_.data() + at);
    if (storage_ == Storage::binary) to_signs(values, dim_, signs_.data() + (size_ + row) * sign_words(dim_));
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
         scales_.size() * sizeof(float) + signs_.size() * sizeof(std::uint64_t);
}

void Gallery::search(const float* queries, size_t count, size_t k, int threads, std::int64_t* indices,
                     float* similarities, const Progress& progress) const {
  const std::shared_lock<std::shared_mutex> lock(using_);
  StoredRows all;
  all.storage = storage_;
  all.dim = dim_;
  all.count = size_;
  all.longest = longest_;
  all.values = whole_.data();
  if (storage_ == Storage::float16) all.values = half_.data();
  if (storage_ == Storage::binary) all.values = signs_.data();
  if (storage_ == Storage::int8) {
    all.values = codes_.data();
    all.scales = scales_.data();
  }
  search_rows({all}, queries, count, k, threads, indices, similarities, progress);
}

}  // namespace edgerecall

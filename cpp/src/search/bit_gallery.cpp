#include "edgerecall/bit_gallery.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>

#include "edgerecall/error.h"
#include "base/meter.h"
#include "base/parallel.h"
#include "search/hamming_kernels.h"
#include "search/hit.h"
#include "search/rank_kernels.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kWord = 64, kChunk = 512;  // bits of a word; rows looked at between two limits
constexpr size_t kPieceQueries = 16;        // that look at a chunk while it is in a core's cache
constexpr int kMostBits = 4;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Sizes of a number of spread 1, by bits: the quantiser of least squares for a normal distribution (Max, 1960).
constexpr std::array<std::array<float, 8>, kMostBits> kLevels{{
    {0.7979f},
    {0.4528f, 1.510f},
    {0.2451f, 0.7560f, 1.344f, 2.152f},
    {0.1284f, 0.3881f, 0.6568f, 0.9424f, 1.256f, 1.618f, 2.069f, 2.733f},
}};

/// The level nearest to a size.
size_t nearest_level(float size, int bits) {
  const auto& levels = kLevels[static_cast<size_t>(bits - 1)];
  const size_t count = size_t{1} << (bits - 1);
  size_t level = 0;
  while (level + 1 < count && size > (levels[level] + levels[level + 1]) / 2) ++level;
  return level;
}

}  // namespace

/// The rows of least distance so far, found in the order of rows.
class BitGallery::Nearest {
 public:
  Nearest(size_t wanted, size_t most) : wanted_(wanted), limit_(most + 1), counts_(most + 1) {}

  /// Distances of this and more cannot enter: an equal one of a later row stands behind those found.
  std::uint64_t limit() const { return total_ < wanted_ ? limit_ : limit_ - 1; }

  void offer(std::uint32_t distance, std::uint32_t row) {
    if (distance >= limit()) return;
    found_.push_back({distance, row});
    ++counts_[distance];
    ++total_;
    while (total_ - counts_[limit_ - 1] >= wanted_) total_ -= counts_[--limit_];
    if (found_.size() > 4 * wanted_ + kChunk) prune();
  }

  /// The wanted rows; equal distances by row.
  std::vector<std::uint32_t> rows() {
    prune();
    std::stable_sort(found_.begin(), found_.end(),
                     [](const Pair& a, const Pair& b) { return a.distance < b.distance; });
    found_.resize(std::min(found_.size(), wanted_));
    std::vector<std::uint32_t> rows;
    for (const Pair& pair : found_) rows.push_back(pair.row);
    return rows;
  }

 private:
  struct Pair {
    std::uint32_t distance, row;
  };

  void prune() {
    const auto far = [&](const Pair& pair) { return pair.distance >= limit_; };
    found_.erase(std::remove_if(found_.begin(), found_.end(), far), found_.end());
  }

  size_t wanted_, limit_, total_ = 0;
  std::vector<size_t> counts_;
  std::vector<Pair> found_;
};

BitGallery::BitGallery(size_t dim, int bits, const float* centre)
    : dim_(dim), words_((dim + kWord - 1) / kWord), bits_(bits), centre_(centre, centre + dim) {
  if (dim == 0 || dim > kernels::kMaxDim) throw InputError("gallery: expected embeddings of 1 to 65536 numbers");
  if (bits < 1 || bits > kMostBits) throw InputError("gallery: expected 1 to 4 bits a number");
  kernels::checked_length(centre, dim, "gallery: centre", 0);
}

void BitGallery::add(const float* rows, size_t count) {
  const std::unique_lock<std::shared_mutex> lock(using_, std::try_to_lock);
  if (!lock) throw InputError("gallery: rows cannot be added while it is searched");
  if (size_ + count > std::numeric_limits<std::uint32_t>::max() / 2) throw InputError("gallery: too many rows");
  for (size_t row = 0; row < count; ++row)
    kernels::checked_length(rows + row * dim_, dim_, "gallery: row", size_ + row);
  const size_t total = size_ + count, planes = static_cast<size_t>(bits_ - 1);
  signs_.resize((total + kernels::kBlockRows - 1) / kernels::kBlockRows * kernels::kBlockRows * words_);
  levels_.resize(total * planes * words_);
  for (size_t row = 0; row < count; ++row) add_one(rows + row * dim_);
}

void BitGallery::add_one(const float* row) {
  const size_t planes = static_cast<size_t>(bits_ - 1), lane = size_ % kernels::kBlockRows;
  std::uint64_t* signs = signs_.data() + size_ / kernels::kBlockRows * kernels::kBlockRows * words_ + lane;
  std::uint64_t* levels = levels_.data() + size_ * planes * words_;
  double power = 0, fits = 0, held = 0, along = 0;
  for (size_t i = 0; i < dim_; ++i) {
    const double value = static_cast<double>(row[i]) - static_cast<double>(centre_[i]);
    power += value * value;
    along += value * static_cast<double>(centre_[i]);
  }
  const double spread = std::sqrt(power / static_cast<double>(dim_));
  for (size_t i = 0; i < dim_; ++i) {
    const float value = row[i] - centre_[i], size = std::fabs(value);
    const size_t level =
        nearest_level(spread > 0 ? static_cast<float>(static_cast<double>(size) / spread) : 0.0f, bits_);
    const double stands_for = static_cast<double>(kLevels[planes][level]);
    fits += static_cast<double>(size) * stands_for;
    held += stands_for * stands_for;
    signs[i / kWord * kernels::kBlockRows] |= static_cast<std::uint64_t>(value > 0) << (i % kWord);
    for (size_t plane = 0; plane < planes; ++plane)
      levels[plane * words_ + i / kWord] |= static_cast<std::uint64_t>(level >> plane & 1) << (i % kWord);
  }
  rows_.push_back({static_cast<float>(fits / held), static_cast<float>(along)});
  ++size_;
}

size_t BitGallery::size() const {
  const std::shared_lock<std::shared_mutex> lock(using_);
  return size_;
}

size_t BitGallery::bytes() const {
  const std::shared_lock<std::shared_mutex> lock(using_);
  return (signs_.size() + levels_.size()) * sizeof(std::uint64_t) + rows_.size() * sizeof(Row);
}

double BitGallery::similarity(const float* less, size_t row, std::vector<float>& scratch) const {
  const size_t planes = static_cast<size_t>(bits_ - 1);
  const std::uint64_t* signs =
      signs_.data() + row / kernels::kBlockRows * kernels::kBlockRows * words_ + row % kernels::kBlockRows;
  kernels::decode_row(signs, levels_.data() + row * planes * words_, words_, planes, kLevels[planes].data(),
                      scratch.data());
  return kernels::dot_float64(less, scratch.data(), dim_) * static_cast<double>(rows_[row].factor) +
         static_cast<double>(rows_[row].along);
}

void BitGallery::search_some(const float* queries, size_t count, size_t k, size_t candidates, std::int64_t* indices,
                             float* similarities) const {
  std::vector<std::uint64_t> signs(count * words_);
  for (size_t query = 0; query < count; ++query)
    for (size_t i = 0; i < dim_; ++i)
      signs[query * words_ + i / kWord] |= static_cast<std::uint64_t>(queries[query * dim_ + i] > centre_[i])
                                           << (i % kWord);
  std::vector<Nearest> nearest(count, Nearest(std::min(std::max(k, candidates), size_), dim_));
  std::vector<std::uint32_t> positions(kChunk), distances(kChunk);
  for (size_t begin = 0; begin < size_; begin += kChunk) {
    const size_t blocks = (std::min(kChunk, size_ - begin) + kernels::kBlockRows - 1) / kernels::kBlockRows;
    for (size_t query = 0; query < count; ++query) {
      Nearest& own = nearest[query];
      const size_t found = kernels::nearer_than(signs.data() + query * words_, signs_.data() + begin * words_, blocks,
                                                words_, own.limit(), positions.data(), distances.data());
      for (size_t i = 0; i < found; ++i)
        if (begin + positions[i] < size_)  // the last block may be part empty
          own.offer(distances[i], static_cast<std::uint32_t>(begin + positions[i]));
    }
  }
  for (size_t query = 0; query < count; ++query)
    rank(queries + query * dim_, nearest[query].rows(), k, indices + query * k, similarities + query * k);
}

void BitGallery::rank(const float* query, const std::vector<std::uint32_t>& rows, size_t k, std::int64_t* indices,
                      float* similarities) const {
  std::vector<float> less(dim_), scratch(words_ * kWord);
  for (size_t i = 0; i < dim_; ++i) less[i] = query[i] - centre_[i];
  const double middle = kernels::dot_float64(query, centre_.data(), dim_);
  std::vector<Hit> hits;
  hits.reserve(rows.size());
  for (const std::uint32_t row : rows) hits.push_back({similarity(less.data(), row, scratch) + middle, row});
  const size_t kept = std::min(k, hits.size());
  const auto order = [](const Hit& a, const Hit& b) { return a.before(b); };
  std::partial_sort(hits.begin(), hits.begin() + static_cast<std::ptrdiff_t>(kept), hits.end(), order);
  for (size_t i = 0; i < kept; ++i) {
    indices[i] = hits[i].index;
    similarities[i] = static_cast<float>(hits[i].similarity);
  }
}

void BitGallery::search(const float* queries, size_t count, size_t k, size_t candidates, int threads,
                        std::int64_t* indices, float* similarities, const Progress& progress) const {
  if (k == 0) throw InputError("search: expected k of 1 or more");
  const std::shared_lock<std::shared_mutex> lock(using_);
  std::fill_n(indices, count * k, -1);
  std::fill_n(similarities, count * k, -kInfinity);
  for (size_t query = 0; query < count; ++query)
    kernels::checked_length(queries + query * dim_, dim_, "search: query", query);
  const size_t pieces = size_ > 0 ? (count + kPieceQueries - 1) / kPieceQueries : 0;
  Meter meter(progress, pieces);
  parallel_for(pieces, threads, [&](size_t piece, int worker) {
    const size_t first = piece * kPieceQueries;
    search_some(queries + first * dim_, std::min(kPieceQueries, count - first), k, candidates, indices + first * k,
                similarities + first * k);
    meter.step(worker);
  });
  meter.finish();
}

}  // namespace edgerecall

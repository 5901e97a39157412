#include "edgerecall/retrieval.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>

#include "edgerecall/blas.h"
#include "edgerecall/error.h"
#include "parallel.h"
#include "rank_kernels.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kTile = 512;         // side of a square of similarities: 1 MiB, which stays in a core's cache
constexpr size_t kManyRelevant = 64;  // from here on a binary search per value beats a comparison per threshold

/// A gallery image and its exact similarity to the query at hand.
struct Entry {
  double similarity;
  std::int64_t index;

  /// Whether it stands before another in the ranking.
  bool before(const Entry& other) const {
    return similarity > other.similarity || (similarity == other.similarity && index < other.index);
  }
};

/// Gallery indices grouped by label.
class Groups {
 public:
  explicit Groups(const EmbeddingSet& gallery) : labels_(gallery.labels), order_(gallery.count) {
    std::iota(order_.begin(), order_.end(), 0);
    std::sort(order_.begin(), order_.end(), [this](std::uint32_t a, std::uint32_t b) {
      return labels_[a] != labels_[b] ? labels_[a] < labels_[b] : a < b;
    });
  }

  /// Ascending indices of the images of a label.
  std::pair<const std::uint32_t*, const std::uint32_t*> of(std::int64_t label) const {
    const auto low = std::lower_bound(order_.begin(), order_.end(), label,
                                      [this](std::uint32_t a, std::int64_t b) { return labels_[a] < b; });
    const auto high = std::upper_bound(low, order_.end(), label,
                                       [this](std::int64_t a, std::uint32_t b) { return a < labels_[b]; });
    return {order_.data() + (low - order_.begin()), order_.data() + (high - order_.begin())};
  }

 private:
  const std::int64_t* labels_;
  std::vector<std::uint32_t> order_;
};

std::vector<double> lengths_of(const EmbeddingSet& set, size_t dim, const char* what) {
  std::vector<double> lengths(set.count);
  for (size_t row = 0; row < set.count; ++row) {
    const double square = kernels::dot_float64(set.rows + row * dim, set.rows + row * dim, dim);
    if (!(square < 1e36)) throw InputError(std::string(what) + " " + std::to_string(row) + " is not finite, or too large");
    lengths[row] = std::sqrt(square);
  }
  return lengths;
}

float rounded_up(double value) {
  return std::nextafter(static_cast<float>(value), std::numeric_limits<float>::infinity());
}
float rounded_down(double value) {
  return std::nextafter(static_cast<float>(value), -std::numeric_limits<float>::infinity());
}

/// What every query of a run shares.
struct Task {
  const EmbeddingSet& queries;
  const EmbeddingSet& gallery;
  size_t dim;
  bool same;
  Groups groups;
  std::vector<double> query_lengths;
  double longest;  // of the gallery's embeddings

  double exact(size_t query, size_t image) const {
    return kernels::dot_float64(queries.rows + query * dim, gallery.rows + image * dim, dim);
  }
};

/// Buffers of one worker.
struct Scratch {
  static constexpr size_t kRow = kTile + kernels::kSelectOverrun;
  std::vector<float> tile = std::vector<float>(kTile * kTile), turned = std::vector<float>(kTile * kTile);
  std::vector<float> kept = std::vector<float>(kRow);
  std::vector<std::uint32_t> positions = std::vector<std::uint32_t>(kRow);
};

/// One query: its relevant images as thresholds, and how many images stand before each.
class Query {
 public:
  Query(const Task& task, size_t number) : task_(&task), number_(number) {
    error_ = kernels::float32_error(task.dim, task.query_lengths[number], task.longest);
    const auto [begin, end] = task.groups.of(task.queries.labels[number]);
    for (const std::uint32_t* image = begin; image != end; ++image) {
      const Entry entry{task.exact(number, *image), *image};
      (left_out(*image) ? skipped_ : relevant_).push_back(entry);
    }
    std::sort(relevant_.begin(), relevant_.end(), [](const Entry& a, const Entry& b) { return a.before(b); });
    for (const Entry& entry : relevant_) {
      low_.push_back(rounded_down(entry.similarity - error_));
      high_.push_back(rounded_up(entry.similarity + error_));
    }
    before_.assign(relevant_.size() + 1, 0);
    close_.assign(relevant_.size(), 0);
    nearest_ = relevant_.empty() ? Entry{-std::numeric_limits<double>::infinity(), -1} : relevant_.front();
    raise_bar();
  }

  /// Takes in float32 similarities to the images from `base` on.
  void scan(const float* similarities, size_t count, size_t base, Scratch& scratch) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const bool many = relevant_.size() >= kManyRelevant;
    const float floor = low_.empty() ? bar_ : std::min(bar_, low_.back());
    const kernels::Thresholds thresholds{low_.data(), high_.data(), many ? 0 : relevant_.size()};
    const kernels::Scanned scanned =
        kernels::scan(similarities, count, floor, bar_, thresholds, before_.data(), scratch.kept.data());
    std::uint32_t* positions = scratch.positions.data();
    for (size_t rank = 0; rank < thresholds.count; ++rank) {
      if ((scanned.undecided >> rank & 1) == 0) continue;
      const size_t close = kernels::select(similarities, count, low_[rank], high_[rank], positions);
      for (size_t index = 0; index < close; ++index) close_[rank] += stands_before(base + positions[index], rank);
    }
    if (many) {
      const size_t kept = kernels::select(similarities, count, floor, kInfinity, positions);
      for (size_t index = 0; index < kept; ++index) place(similarities[positions[index]], base + positions[index]);
    }
    if (!scanned.reaches_bar) return;
    const size_t near = kernels::select(similarities, count, bar_, kInfinity, positions);
    for (size_t index = 0; index < near; ++index)
      if (similarities[positions[index]] >= bar_) consider(base + positions[index]);
  }

  size_t relevant() const { return relevant_.size(); }
  std::int64_t nearest() const { return nearest_.index; }

  /// Writes the ranks, ascending.
  void finish(std::int64_t* ranks) {
    std::int64_t placed = 0;  // what `place` counted applies to all later thresholds
    for (size_t rank = 0; rank < relevant_.size(); ++rank) {
      std::int64_t ahead = before_[rank];
      if (relevant_.size() >= kManyRelevant) ahead = (placed += before_[rank]);
      ahead += close_[rank];
      for (const Entry& entry : skipped_) ahead -= entry.before(relevant_[rank]);
      ranks[rank] = ahead + 1;
    }
  }

 private:
  bool left_out(size_t image) const {
    if (task_->same && image == number_) return true;
    const std::int64_t *mine = task_->queries.cameras, *theirs = task_->gallery.cameras;
    return mine != nullptr && theirs != nullptr && mine[number_] == theirs[image];
  }

  bool stands_before(size_t image, size_t rank) const {
    const Entry& threshold = relevant_[rank];
    const Entry entry{task_->exact(number_, image), static_cast<std::int64_t>(image)};
    return entry.before(threshold);
  }

  /// Counts a value for every threshold that it is above; many thresholds, sorted downwards.
  void place(float value, size_t image) {
    const auto above = std::upper_bound(high_.begin(), high_.end(), value, [](float v, float high) { return v > high; });
    const auto first = static_cast<size_t>(above - high_.begin());
    ++before_[first];
    for (size_t rank = first; rank > 0 && low_[rank - 1] <= value; --rank)
      close_[rank - 1] += stands_before(image, rank - 1);
  }

  void consider(size_t image) {
    if (task_->same && image == number_) return;
    if (task_->queries.labels[number_] == task_->gallery.labels[image] && left_out(image)) return;
    const Entry entry{task_->exact(number_, image), static_cast<std::int64_t>(image)};
    if (nearest_.index >= 0 && !entry.before(nearest_)) return;
    nearest_ = entry;
    raise_bar();
  }

  void raise_bar() { bar_ = rounded_down(nearest_.similarity - error_); }

  const Task* task_;
  size_t number_;
  double error_ = 0;
  std::vector<Entry> relevant_, skipped_;
  std::vector<float> low_, high_;  // float32 similarities below and above which the comparison is clear
  std::vector<std::int64_t> before_, close_;  // images ahead: clearly (or, when many, of the next clear one), and barely
  Entry nearest_{};
  float bar_ = 0;  // no image below this can be nearer than the nearest so far
};

/// Queries that meet the gallery tile by tile; one worker at a time.
struct Block {
  std::vector<Query> queries;
  std::mutex mutex;
};

/// A block of queries and a block of the gallery.
struct Tile {
  size_t query, image;
};

/// All tiles, neighbours in the list in different blocks. When both sides are the same, each pair of blocks once: the
/// similarities of one side are those of the other, turned.
std::vector<Tile> tiles_of(size_t query_blocks, size_t image_blocks, bool same) {
  std::vector<Tile> tiles;
  const size_t distances = same ? query_blocks / 2 + 1 : image_blocks;
  for (size_t distance = 0; distance < distances; ++distance) {
    const bool halves = same && distance * 2 == query_blocks && distance > 0;  // opposite blocks meet twice
    for (size_t block = 0; block < (halves ? distance : query_blocks); ++block)
      tiles.push_back({block, (block + distance) % image_blocks});
  }
  return tiles;
}

void scan_rows(Block& block, const float* similarities, size_t width, size_t base, Scratch& scratch) {
  const std::lock_guard<std::mutex> lock(block.mutex);
  for (size_t row = 0; row < block.queries.size(); ++row)
    block.queries[row].scan(similarities + row * width, width, base, scratch);
}

void run_tile(const Task& task, const Blas& blas, const Tile& tile, std::vector<Block>& blocks, Scratch& scratch) {
  const size_t top = tile.query * kTile, left = tile.image * kTile;
  const size_t height = std::min(kTile, task.queries.count - top), width = std::min(kTile, task.gallery.count - left);
  blas.multiply_transposed(height, width, task.dim, task.queries.rows + top * task.dim,
                           task.gallery.rows + left * task.dim, scratch.tile.data());
  scan_rows(blocks[tile.query], scratch.tile.data(), width, left, scratch);
  if (!task.same || tile.query == tile.image) return;
  kernels::transpose(scratch.tile.data(), height, width, scratch.turned.data());
  scan_rows(blocks[tile.image], scratch.turned.data(), height, top, scratch);
}

void check(const EmbeddingSet& queries, const EmbeddingSet& gallery, size_t dim) {
  if (dim == 0 || queries.count == 0 || gallery.count == 0) throw InputError("retrieval: expected at least one embedding");
  if (gallery.count > std::numeric_limits<std::uint32_t>::max() / 2 || dim > 1 << 20)
    throw InputError("retrieval: expected at most two thousand million images of a million numbers each");
}

}  // namespace

Ranks rank_relevant(const EmbeddingSet& queries, const EmbeddingSet& gallery, size_t dim, bool same, int threads,
                    const Progress& progress) {
  check(queries, gallery, dim);
  const Blas& blas = Blas::get();
  const std::vector<double> gallery_lengths = lengths_of(gallery, dim, "retrieval: gallery embedding");
  const Task task{queries, gallery, dim, same, Groups(gallery), lengths_of(queries, dim, "retrieval: query embedding"),
                  *std::max_element(gallery_lengths.begin(), gallery_lengths.end())};
  std::vector<Block> blocks((queries.count + kTile - 1) / kTile);
  parallel_for(blocks.size(), threads, [&](size_t index, int) {
    for (size_t number = index * kTile; number < std::min((index + 1) * kTile, queries.count); ++number)
      blocks[index].queries.emplace_back(task, number);
  });

  const std::vector<Tile> tiles = tiles_of(blocks.size(), (gallery.count + kTile - 1) / kTile, same);
  std::vector<std::unique_ptr<Scratch>> scratches(static_cast<size_t>(std::max(threads, 1)));
  std::atomic<size_t> done{0};
  parallel_for(tiles.size(), threads, [&](size_t index, int worker) {
    auto& scratch = scratches[static_cast<size_t>(worker)];
    if (!scratch) scratch = std::make_unique<Scratch>();
    run_tile(task, blas, tiles[index], blocks, *scratch);
    ++done;
    const double share = static_cast<double>(done) / static_cast<double>(tiles.size());
    if (worker == 0 && progress && !progress(share)) throw Cancelled();
  });

  Ranks result;
  result.begin.push_back(0);
  for (Block& block : blocks) {
    for (Query& query : block.queries) {
      result.ranks.resize(result.begin.back() + query.relevant());
      query.finish(result.ranks.data() + result.begin.back());
      result.begin.push_back(result.ranks.size());
      result.nearest.push_back(query.nearest());
    }
  }
  return result;
}

RetrievalMeans average(const Ranks& ranks, const std::vector<std::int64_t>& ks) {
  RetrievalMeans means;
  std::vector<size_t> found(ks.size(), 0);
  for (size_t query = 0; query + 1 < ranks.begin.size(); ++query) {
    const std::int64_t* rank = ranks.ranks.data() + ranks.begin[query];
    const size_t relevant = ranks.begin[query + 1] - ranks.begin[query];
    if (relevant == 0) continue;
    ++means.queries;
    for (size_t k = 0; k < ks.size(); ++k) found[k] += rank[0] <= ks[k];
    double precision = 0, precision_at_r = 0;
    size_t within = 0;
    for (size_t index = 0; index < relevant; ++index) {
      const double here = static_cast<double>(index + 1) / static_cast<double>(rank[index]);
      precision += here;
      if (rank[index] > static_cast<std::int64_t>(relevant)) continue;
      precision_at_r += here;
      ++within;
    }
    const auto count = static_cast<double>(relevant);
    means.mean_ap += precision / count;
    means.map_at_r += precision_at_r / count;
    means.r_precision += static_cast<double>(within) / count;
  }
  const double counted = std::max(static_cast<double>(means.queries), 1.0);
  means.mean_ap /= counted;
  means.map_at_r /= counted;
  means.r_precision /= counted;
  for (size_t hits : found) means.recall.push_back(static_cast<double>(hits) / counted);
  return means;
}

}  // namespace edgerecall

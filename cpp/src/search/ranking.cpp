#include "search/ranking.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "search/product_kernels.h"
#include "search/rank_kernels.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kManyRelevant = 64;  // from here on a binary search per value beats a comparison per threshold
constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

Groups::Groups(const EmbeddingSet& gallery) : labels_(gallery.labels), order_(gallery.count) {
  std::iota(order_.begin(), order_.end(), 0);
  std::sort(order_.begin(), order_.end(), [this](std::uint32_t a, std::uint32_t b) {
    return labels_[a] != labels_[b] ? labels_[a] < labels_[b] : a < b;
  });
}

std::pair<const std::uint32_t*, const std::uint32_t*> Groups::of(std::int64_t label) const {
  const auto low = std::lower_bound(order_.begin(), order_.end(), label,
                                    [this](std::uint32_t a, std::int64_t b) { return labels_[a] < b; });
  const auto high =
      std::upper_bound(low, order_.end(), label, [this](std::int64_t a, std::uint32_t b) { return a < labels_[b]; });
  return {order_.data() + (low - order_.begin()), order_.data() + (high - order_.begin())};
}

double Task::exact(size_t query, size_t image) const {
  return kernels::dot_float64(queries.rows + query * dim, gallery.rows + image * dim, dim);
}

Scratch::Scratch(size_t rows, size_t columns)
    : tile(rows * columns),
      product(kernels::product_scratch(rows)),
      turned(rows * columns),
      kept(std::max(rows, columns) + kernels::kScanOverrun),
      positions(std::max(rows, columns) + kernels::kScanOverrun) {}

Query::Query(const Task& task, size_t number) : task_(&task), number_(number) {
  error_ = kernels::float32_error(task.dim, task.query_lengths[number], task.longest);
  const auto [begin, end] = task.groups.of(task.queries.labels[number]);
  for (const std::uint32_t* image = begin; image != end; ++image)
    (left_out(*image) ? skipped_ : relevant_).push_back(hit(*image));
  std::sort(relevant_.begin(), relevant_.end(), [](const Hit& a, const Hit& b) { return a.before(b); });
  low_.reserve(relevant_.size());
  high_.reserve(relevant_.size());
  for (const Hit& threshold : relevant_) {
    low_.push_back(kernels::rounded_down(threshold.similarity - error_));
    high_.push_back(-kernels::rounded_down(-threshold.similarity - error_));
  }
  if (relevant_.size() < kManyRelevant) above_.assign(relevant_.size(), 0);
  steps_.assign(relevant_.size() + 1, 0);
  nearest_ = relevant_.empty() ? Hit{-std::numeric_limits<double>::infinity(), -1} : relevant_.front();
  raise_bar();
}

void Query::scan(const float* similarities, size_t count, size_t base, Scratch& scratch) {
  const bool many = relevant_.size() >= kManyRelevant;
  const float floor = low_.empty() ? bar_ : std::min(bar_, low_.back());
  const kernels::Thresholds thresholds{low_.data(), high_.data(), many ? 0 : relevant_.size()};
  const kernels::Scanned scanned =
      kernels::scan(similarities, count, floor, bar_, thresholds, above_.data(), scratch.kept.data());
  std::uint32_t* positions = scratch.positions.data();
  if (many || scanned.first_undecided <= scanned.last_undecided) {
    const float low = many ? floor : low_[scanned.last_undecided];
    const float high = many ? kInfinity : high_[scanned.first_undecided];
    const size_t found = kernels::select(similarities, count, low, high, positions);
    for (size_t index = 0; index < found; ++index) place(similarities[positions[index]], base + positions[index], many);
  }
  if (!scanned.reaches_bar) return;
  const size_t found = kernels::select(similarities, count, bar_, kInfinity, positions);
  for (size_t index = 0; index < found; ++index)
    if (similarities[positions[index]] >= bar_) consider(base + positions[index]);
}

/// Finds the relevant images from which a value is not clearly apart, and looks closely; `count_clear`: counts it for
/// those that it is clearly ahead of, too.
void Query::place(float value, size_t image, bool count_clear) {
  const auto clear = std::upper_bound(high_.begin(), high_.end(), value, [](float v, float high) { return v > high; });
  const auto close = std::lower_bound(low_.begin(), low_.end(), value, [](float low, float v) { return low > v; });
  const auto first_clear = static_cast<size_t>(clear - high_.begin());
  const auto first_close = static_cast<size_t>(close - low_.begin());
  if (count_clear) ++steps_[first_clear];
  if (first_close < first_clear) resolve(image, first_close, first_clear);
}

/// Counts an image for those of relevant images [begin, end) that it is exactly ahead of.
void Query::resolve(size_t image, size_t begin, size_t end) {
  const Hit found = hit(image);
  const auto ahead = std::partition_point(relevant_.begin() + static_cast<std::ptrdiff_t>(begin),
                                          relevant_.begin() + static_cast<std::ptrdiff_t>(end),
                                          [&](const Hit& threshold) { return !found.before(threshold); });
  ++steps_[static_cast<size_t>(ahead - relevant_.begin())];
  --steps_[end];
}

void Query::consider(size_t image) {
  if (task_->same && image == number_) return;
  if (task_->queries.labels[number_] == task_->gallery.labels[image] && left_out(image)) return;
  const Hit found = hit(image);
  if (nearest_.index >= 0 && !found.before(nearest_)) return;
  nearest_ = found;
  raise_bar();
}

void Query::raise_bar() { bar_ = kernels::rounded_down(nearest_.similarity - error_); }

bool Query::left_out(size_t image) const {
  if (task_->same && image == number_) return true;
  const std::int64_t *mine = task_->queries.cameras, *theirs = task_->gallery.cameras;
  return mine != nullptr && theirs != nullptr && mine[number_] == theirs[image];
}

Hit Query::hit(size_t image) const { return {task_->exact(number_, image), static_cast<std::int64_t>(image)}; }

QueryScore Query::finish() const {
  QueryScore score;
  score.relevant = static_cast<std::int64_t>(relevant_.size());
  score.nearest = nearest_.index;
  std::int64_t stepped = 0, within = 0;
  for (size_t place = 0; place < relevant_.size(); ++place) {
    stepped += steps_[place];
    std::int64_t rank = 1 + stepped + (above_.empty() ? 0 : above_[place]);
    for (const Hit& skipped : skipped_) rank -= skipped.before(relevant_[place]);
    if (place == 0) score.first_rank = rank;
    const double precision = static_cast<double>(place + 1) / static_cast<double>(rank);
    score.average_precision += precision;
    if (rank > score.relevant) continue;
    score.map_at_r += precision;
    ++within;
  }
  const double count = std::max(static_cast<double>(relevant_.size()), 1.0);
  score.average_precision /= count;
  score.map_at_r /= count;
  score.r_precision = static_cast<double>(within) / count;
  return score;
}

}  // namespace edgerecall

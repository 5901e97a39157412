#include "edgerecall/retrieval.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>

#include "edgerecall/error.h"
#include "base/meter.h"
#include "base/parallel.h"
#include "search/product_kernels.h"
#include "search/rank_kernels.h"
#include "search/ranking.h"

namespace edgerecall {
namespace {

using std::size_t;

constexpr size_t kTile = 512;           // side of a square of similarities: 1 MiB, which stays in a core's cache
constexpr size_t kMaxPairs = 4u << 20;  // of queries and relevant images held at once, about 40 bytes each

std::vector<double> lengths_of(const EmbeddingSet& set, size_t dim, const char* what) {
  std::vector<double> lengths(set.count);
  for (size_t row = 0; row < set.count; ++row)
    lengths[row] = kernels::checked_length(set.rows + row * dim, dim, what, row);
  return lengths;
}

/// Consecutive queries that meet the gallery tile by tile; one worker at a time.
struct Block {
  size_t begin, end;
  std::vector<Query> queries;
  std::mutex mutex;
};

/// A block of queries and a part of the gallery.
struct Tile {
  size_t query, image;
};

size_t tiles_across(const EmbeddingSet& gallery) { return (gallery.count + kTile - 1) / kTile; }

/// All tiles, neighbours in the list in different blocks. `turned`: both sides are the same blocks, and each pair of
/// them comes once: the similarities of one side are those of the other, turned.
std::vector<Tile> tiles_of(size_t query_blocks, size_t image_blocks, bool turned) {
  std::vector<Tile> tiles;
  const size_t distances = turned ? query_blocks / 2 + 1 : image_blocks;
  for (size_t distance = 0; distance < distances; ++distance) {
    const bool halves = turned && distance * 2 == query_blocks && distance > 0;  // opposite blocks meet twice
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

/// Ranks the queries of some blocks, together the whole set when `turned`, and writes their scores.
void run_pass(const Task& task, std::vector<Block>& blocks, bool turned, int threads, Meter& meter,
              std::vector<QueryScore>& scores) {
  parallel_for(blocks.size(), threads, [&](size_t index, int worker) {
    for (size_t number = blocks[index].begin; number < blocks[index].end; ++number)
      blocks[index].queries.emplace_back(task, number);
    meter.check(worker);
  });
  const std::vector<Tile> tiles = tiles_of(blocks.size(), tiles_across(task.gallery), turned);
  std::vector<std::unique_ptr<Scratch>> scratches(static_cast<size_t>(workers_for(tiles.size(), threads)));
  parallel_for(tiles.size(), threads, [&](size_t index, int worker) {
    auto& scratch = scratches[static_cast<size_t>(worker)];
    if (!scratch) scratch = std::make_unique<Scratch>(kTile, kTile);
    Block& block = blocks[tiles[index].query];
    const size_t left = tiles[index].image * kTile, width = std::min(kTile, task.gallery.count - left);
    const size_t height = block.end - block.begin;
    kernels::multiply_transposed(task.queries.rows + block.begin * task.dim, height,
                                 task.gallery.rows + left * task.dim, width, task.dim, scratch->tile.data(),
                                 scratch->product.data());
    scan_rows(block, scratch->tile.data(), width, left, *scratch);
    if (turned && tiles[index].query != tiles[index].image) {
      kernels::transpose(scratch->tile.data(), height, width, scratch->turned.data());
      scan_rows(blocks[tiles[index].image], scratch->turned.data(), height, block.begin, *scratch);
    }
    meter.step(worker);
  });
  for (const Block& block : blocks)
    for (size_t row = 0; row < block.queries.size(); ++row) scores[block.begin + row] = block.queries[row].finish();
}

/// Passes over the gallery, each of as many queries as may be held at once, cut into blocks of at most a tile.
std::vector<std::vector<std::pair<size_t, size_t>>> plan_passes(const Task& task) {
  std::vector<std::vector<std::pair<size_t, size_t>>> passes(1);
  size_t pairs = 0;
  for (size_t begin = 0; begin < task.queries.count;) {
    size_t end = begin, own = 0;
    while (end < task.queries.count && end - begin < kTile) {
      const auto [first, last] = task.groups.of(task.queries.labels[end]);
      const auto relevant = static_cast<size_t>(last - first);
      if (end > begin && own + relevant > kMaxPairs) break;
      own += relevant;
      ++end;
    }
    if (pairs > 0 && pairs + own > kMaxPairs) {
      passes.emplace_back();
      pairs = 0;
    }
    passes.back().emplace_back(begin, end);
    pairs += own;
    begin = end;
  }
  return passes;
}

void check(const EmbeddingSet& queries, const EmbeddingSet& gallery, size_t dim) {
  if (dim == 0 || queries.count == 0 || gallery.count == 0)
    throw InputError("retrieval: expected at least one embedding");
  if (dim > kernels::kMaxDim || gallery.count > std::numeric_limits<std::uint32_t>::max() / 2)
    throw InputError("retrieval: expected at most two thousand million images of 65536 numbers each");
  if ((queries.cameras == nullptr) != (gallery.cameras == nullptr))
    throw InputError("retrieval: expected cameras of the queries and of the gallery, or neither");
}

}  // namespace

std::vector<QueryScore> score_queries(const EmbeddingSet& queries, const EmbeddingSet* gallery, size_t dim, int threads,
                                      const Progress& progress) {
  const bool same = gallery == nullptr;
  const EmbeddingSet& images = same ? queries : *gallery;
  check(queries, images, dim);
  const std::vector<double> lengths =
      lengths_of(images, dim, same ? "retrieval: embedding" : "retrieval: gallery embedding");
  const Task task{queries,
                  images,
                  dim,
                  same,
                  Groups(images),
                  same ? lengths : lengths_of(queries, dim, "retrieval: query embedding"),
                  *std::max_element(lengths.begin(), lengths.end())};
  const auto passes = plan_passes(task);
  std::vector<QueryScore> scores(queries.count);
  const bool turned = same && passes.size() == 1;
  size_t steps = 0;
  for (const auto& pass : passes) steps += tiles_of(pass.size(), tiles_across(images), turned).size();
  Meter meter(progress, steps);
  for (const auto& pass : passes) {
    std::vector<Block> blocks(pass.size());
    for (size_t index = 0; index < pass.size(); ++index) {
      blocks[index].begin = pass[index].first;
      blocks[index].end = pass[index].second;
    }
    run_pass(task, blocks, turned, threads, meter, scores);
  }
  meter.finish();
  return scores;
}

RetrievalMeans average(const std::vector<QueryScore>& scores, const std::vector<std::int64_t>& ks) {
  RetrievalMeans means;
  std::vector<size_t> found(ks.size(), 0);
  for (const QueryScore& score : scores) {
    if (score.relevant == 0) continue;
    ++means.queries;
    for (size_t k = 0; k < ks.size(); ++k) found[k] += score.first_rank <= ks[k];
    means.mean_ap += score.average_precision;
    means.r_precision += score.r_precision;
    means.map_at_r += score.map_at_r;
  }
  const double counted = std::max(static_cast<double>(means.queries), 1.0);
  means.mean_ap /= counted;
  means.map_at_r /= counted;
  means.r_precision /= counted;
  for (const size_t hits : found) means.recall.push_back(static_cast<double>(hits) / counted);
  return means;
}

}  // namespace edgerecall

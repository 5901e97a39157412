// One query's ranking, built up from pieces of float32 similarities.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "edgerecall/retrieval.h"
#include "search/hit.h"

namespace edgerecall {

/// Gallery indices grouped by label.
class Groups {
 public:
  explicit Groups(const EmbeddingSet& gallery);

  /// Ascending indices of the images of a label.
  std::pair<const std::uint32_t*, const std::uint32_t*> of(std::int64_t label) const;

 private:
  const std::int64_t* labels_;
  std::vector<std::uint32_t> order_;
};

/// What the queries of a run share.
struct Task {
  const EmbeddingSet& queries;
  const EmbeddingSet& gallery;
  std::size_t dim;
  bool same;  // the queries are the gallery
  Groups groups;
  std::vector<double> query_lengths;
  double longest;  // of the gallery's embeddings

  double exact(std::size_t query, std::size_t image) const;
};

/// Buffers of one worker, for pieces of at most `columns` similarities.
struct Scratch {
  Scratch(std::size_t rows, std::size_t columns);
  std::vector<float> tile, product, turned, kept;
  std::vector<std::uint32_t> positions;
};

/// A query: its relevant images as thresholds, and how many images stand before each.
class Query {
 public:
  Query(const Task& task, std::size_t number);

  /// Takes in float32 similarities to the images from `base` on.
  void scan(const float* similarities, std::size_t count, std::size_t base, Scratch& scratch);

  QueryScore finish() const;

 private:
  bool left_out(std::size_t image) const;
  Hit hit(std::size_t image) const;
  void resolve(std::size_t image, std::size_t begin, std::size_t end);
  void place(float value, std::size_t image, bool count_clear);
  void consider(std::size_t image);
  void raise_bar();

  const Task* task_;
  std::size_t number_;
  double error_ = 0;
  std::vector<Hit> relevant_, skipped_;  // sorted; and the images left out
  std::vector<float> low_, high_;        // float32 similarities below and above which a comparison is clear
  std::vector<std::int64_t> above_;      // images clearly ahead of each relevant one
  std::vector<std::int64_t> steps_;      // differences of further counts from one relevant image to the next
  Hit nearest_{};
  float bar_ = 0;  // no image below this can be nearer than the nearest so far
};

}  // namespace edgerecall

#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgerecall/progress.h"

namespace edgerecall {

/// Embeddings, float32 `(count, dim)`, row-major, with a label each, and cameras where they count (else null).
struct EmbeddingSet {
  const float* rows = nullptr;
  std::size_t count = 0;
  const std::int64_t* labels = nullptr;
  const std::int64_t* cameras = nullptr;
};

/// How well one query's relevant gallery images are ranked.
struct QueryScore {
  std::int64_t relevant = 0;    ///< how many there are; where there are none, the other scores are 0
  std::int64_t first_rank = 0;  ///< of the best one, from 1
  std::int64_t nearest = -1;    ///< gallery index of the first image; -1 where nothing is left to rank
  double average_precision = 0;
  double r_precision = 0;  ///< share of relevant images among the first R, R relevant ones there are
  double map_at_r = 0;     ///< mean over R of the precision at the relevant images among the first R
};

/// Scores of every query without ever holding all similarities: tiles of a float32 matrix product decide what is clear,
/// the float64 product what lies within float32's error of a threshold.
///
/// The ranking is by the inner product of the float32 rows, summed in float64 in a fixed order, highest first; equal
/// ones by gallery index. It is the same whatever the CPU, and the number of threads. R-precision and mAP@R are those
/// of Musgrave et al., "A Metric Learning Reality Check" (2020).
///
/// Without a gallery the queries are their own, and each leaves itself out, by index. With cameras (of both sides),
/// gallery images of the query's label and camera are left out too. Throws InputError (sizes, values that are not
/// finite).
std::vector<QueryScore> score_queries(const EmbeddingSet& queries, const EmbeddingSet* gallery, std::size_t dim,
                                      int threads, const Progress& progress);

/// Means over the queries that have a relevant image in the gallery.
struct RetrievalMeans {
  std::size_t queries = 0;     ///< how many were counted
  std::vector<double> recall;  ///< for each k: share with a relevant image among the first k
  double mean_ap = 0, r_precision = 0, map_at_r = 0;
};

RetrievalMeans average(const std::vector<QueryScore>& scores, const std::vector<std::int64_t>& ks);

}  // namespace edgerecall

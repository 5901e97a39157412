#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace edgerecall {

/// Embeddings, float32 `(count, dim)`, row-major, with a label each, and cameras where they count (else null).
struct EmbeddingSet {
  const float* rows = nullptr;
  std::size_t count = 0;
  const std::int64_t* labels = nullptr;
  const std::int64_t* cameras = nullptr;
};

/// Called now and then on the calling thread with the share done, 0 to 1; false stops with Cancelled.
using Progress = std::function<bool(double)>;

/// Where the relevant gallery images stand in each query's ranking.
///
/// The ranking is by the inner product of the float32 rows, summed in float64 in a fixed order, highest first; equal
/// ones by gallery index. It is the same whatever the CPU, the BLAS and the number of threads.
struct Ranks {
  std::vector<std::size_t> begin;      ///< query q's ranks are `ranks[begin[q]]` to `ranks[begin[q + 1]]`
  std::vector<std::int64_t> ranks;     ///< from 1, ascending
  std::vector<std::int64_t> nearest;   ///< gallery index of the first image; -1 where nothing is left to rank
};

/// Ranks for every query without ever holding all similarities: float32 tiles of a BLAS product decide what is clear,
/// the float64 product what lies within float32's error of a threshold.
///
/// `same`: queries are the gallery, and each leaves itself out, by index. With cameras, gallery images of the query's
/// label and camera are left out too. Throws InputError (sizes, values that are not finite), Unavailable (no BLAS).
Ranks rank_relevant(const EmbeddingSet& queries, const EmbeddingSet& gallery, std::size_t dim, bool same, int threads,
                    const Progress& progress);

/// Averages over the queries that have a relevant image in the gallery.
struct RetrievalMeans {
  std::size_t queries = 0;           ///< how many were counted
  std::vector<double> recall;        ///< for each k: share with a relevant image among the first k
  double mean_ap = 0;                ///< mAP: mean over queries of the mean precision at its relevant images
  double r_precision = 0;            ///< share of relevant images among the first R, R relevant ones there are
  double map_at_r = 0;               ///< mean precision at the relevant images among the first R, over R
};

/// Musgrave et al., "A Metric Learning Reality Check" (2020), for R-precision and mAP@R.
RetrievalMeans average(const Ranks& ranks, const std::vector<std::int64_t>& ks);

}  // namespace edgerecall

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "edgerecall/error.h"
#include "edgerecall/retrieval.h"
#include "edgerecall/search.h"
#include "support.h"

using namespace edgerecall;

namespace {

struct Set {
  std::size_t dim;
  std::vector<float> rows;
  std::vector<std::int64_t> labels, cameras;

  EmbeddingSet view(bool with_cameras) const {
    return {rows.data(), labels.size(), labels.data(), with_cameras ? cameras.data() : nullptr};
  }
};

/// Small whole numbers over 8: inner products are exact and many are equal.
Set made(std::size_t count, std::size_t dim, int classes, unsigned seed) {
  std::mt19937 random(seed);
  Set set{dim, {}, {}, {}};
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t d = 0; d < dim; ++d) set.rows.push_back((static_cast<float>(random() % 7) - 3.0f) / 8.0f);
    set.labels.push_back(i % 50 == 3 ? 1000 + static_cast<std::int64_t>(i) : static_cast<std::int64_t>(random()) % classes);
    set.cameras.push_back(static_cast<std::int64_t>(random() % 3));
  }
  return set;
}

double product(const Set& a, std::size_t i, const Set& b, std::size_t j) {
  double sum = 0;
  for (std::size_t d = 0; d < a.dim; ++d) sum += static_cast<double>(a.rows[i * a.dim + d]) * static_cast<double>(b.rows[j * a.dim + d]);
  return sum;
}

/// The gallery of a query, sorted.
std::vector<std::size_t> ranking(const Set& queries, std::size_t query, const Set& gallery, bool same, bool cameras) {
  std::vector<std::size_t> order;
  std::vector<double> similarity;
  for (std::size_t image = 0; image < gallery.labels.size(); ++image) {
    similarity.push_back(product(queries, query, gallery, image));
    const bool twin = queries.labels[query] == gallery.labels[image] && queries.cameras[query] == gallery.cameras[image];
    if ((same && image == query) || (cameras && twin)) continue;
    order.push_back(image);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return similarity[a] > similarity[b]; });
  return order;
}

void compare(const Set& queries, const Set& gallery, bool same, bool cameras, int threads) {
  const Ranks ranks = rank_relevant(queries.view(cameras), gallery.view(cameras), queries.dim, same, threads, {});
  for (std::size_t query = 0; query < queries.labels.size(); ++query) {
    const auto order = ranking(queries, query, gallery, same, cameras);
    std::vector<std::int64_t> expected;
    for (std::size_t place = 0; place < order.size(); ++place)
      if (gallery.labels[order[place]] == queries.labels[query]) expected.push_back(static_cast<std::int64_t>(place) + 1);
    const std::vector<std::int64_t> found(ranks.ranks.begin() + static_cast<std::ptrdiff_t>(ranks.begin[query]),
                                          ranks.ranks.begin() + static_cast<std::ptrdiff_t>(ranks.begin[query + 1]));
    CAPTURE(query);
    CHECK(found == expected);
    CHECK(ranks.nearest[query] == (order.empty() ? -1 : static_cast<std::int64_t>(order.front())));
  }
}

}  // namespace

TEST_CASE("ranks equal sorting, with ties, cameras, lone classes and many relevant images") {
  for (const int classes : {5, 60}) {  // more and fewer than 64 relevant images
    const Set all = made(700, 7, classes, 1), other = made(600, 7, classes, 2);
    for (const int threads : {1, 3}) {
      for (const bool cameras : {false, true}) {
        compare(all, all, true, cameras, threads);
        compare(all, other, false, cameras, threads);
      }
    }
  }
}

TEST_CASE("sizes around the tile") {
  for (const std::size_t count : {1u, 2u, 511u, 512u, 513u, 1025u}) {
    const Set all = made(count, 3, 4, static_cast<unsigned>(count));
    compare(all, all, true, false, 2);
  }
}

TEST_CASE("averages follow their definitions") {
  Ranks ranks;
  ranks.begin = {0, 2, 2, 3};
  ranks.ranks = {1, 4, 3};
  const RetrievalMeans means = average(ranks, {1, 3});
  CHECK(means.queries == 2);
  CHECK(means.recall == std::vector<double>{0.5, 1.0});
  CHECK(means.mean_ap == doctest::Approx(((1.0 + 2.0 / 4) / 2 + 1.0 / 3) / 2));
  CHECK(means.r_precision == doctest::Approx((0.5 + 0.0) / 2));
  CHECK(means.map_at_r == doctest::Approx((0.5 + 0.0) / 2));
}

TEST_CASE("bad embeddings and a stop") {
  Set all = made(600, 4, 3, 3);
  CHECK_THROWS_AS(rank_relevant(all.view(false), all.view(false), 4, true, 1, [](double) { return false; }), Cancelled);
  all.rows[9] = std::nanf("");
  CHECK_THROWS_WITH_AS(rank_relevant(all.view(false), all.view(false), 4, true, 1, {}),
                       "retrieval: gallery embedding 2 is not finite, or too large", InputError);
  CHECK_THROWS_AS(rank_relevant({all.rows.data(), 0, all.labels.data()}, all.view(false), 4, false, 1, {}), InputError);
}

TEST_CASE("search equals sorting for every storage") {
  for (const std::size_t dim : {1u, 5u, 16u, 37u}) {
    const Set gallery = made(40000, dim, 3, 5), queries = made(6, dim, 3, 6);
    for (const Storage storage : {Storage::float32, Storage::float16, Storage::int8}) {
      Gallery index(dim, storage);
      index.add(gallery.rows.data(), 100);
      index.add(gallery.rows.data() + 100 * dim, 39900);
      constexpr std::size_t k = 20;
      std::vector<std::int64_t> rows(6 * k);
      std::vector<float> similarities(6 * k);
      index.search(queries.rows.data(), 6, k, 3, rows.data(), similarities.data(), {});
      for (std::size_t query = 0; query < 6; ++query) {
        std::vector<double> expected(40000);
        for (std::size_t row = 0; row < 40000; ++row) expected[row] = product(queries, query, gallery, row);
        if (storage == Storage::int8) {
          for (std::size_t row = 0; row < 40000; ++row) {
            const auto quantized = [&](const Set& set, std::size_t i, std::vector<double>& codes) {
              float largest = 0;
              for (std::size_t d = 0; d < dim; ++d) largest = std::max(largest, std::fabs(set.rows[i * dim + d]));
              for (std::size_t d = 0; d < dim; ++d)
                codes.push_back(largest > 0 ? std::nearbyint(static_cast<double>(set.rows[i * dim + d]) * (127.0 / static_cast<double>(largest))) : 0.0);
              return static_cast<double>(largest / 127.0f);
            };
            std::vector<double> a, b;
            const double scale_a = quantized(gallery, row, a), scale_b = quantized(queries, query, b);
            expected[row] = std::inner_product(a.begin(), a.end(), b.begin(), 0.0) * scale_a * scale_b;
          }
        }
        std::vector<std::int64_t> order(40000);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
          return expected[static_cast<std::size_t>(a)] > expected[static_cast<std::size_t>(b)];
        });
        for (std::size_t place = 0; place < k; ++place) {
          CHECK(rows[query * k + place] == order[place]);
          CHECK(similarities[query * k + place] == static_cast<float>(expected[static_cast<std::size_t>(order[place])]));
        }
      }
    }
  }
}

TEST_CASE("small galleries, and what search refuses") {
  Gallery index(2, Storage::float32);
  const float rows[] = {1, 0, 0, 1};
  std::int64_t found[3];
  float similarities[3];
  index.search(rows, 1, 3, 2, found, similarities, {});
  CHECK(found[0] == -1);
  index.add(rows, 2);
  index.search(rows, 1, 3, 2, found, similarities, {});
  CHECK(found[0] == 0);
  CHECK(found[1] == 1);
  CHECK(found[2] == -1);
  const float bad[] = {1, std::nanf("")};
  CHECK_THROWS_AS(index.add(bad, 1), InputError);
  CHECK_THROWS_AS(index.search(bad, 1, 1, 1, found, similarities, {}), InputError);
  CHECK_THROWS_AS(index.search(rows, 1, 0, 1, found, similarities, {}), InputError);
  const float large[] = {70000, 0};
  Gallery half(2, Storage::float16);
  CHECK_THROWS_AS(half.add(large, 1), InputError);
  CHECK_THROWS_AS(Gallery(0, Storage::int8), InputError);
}

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <numeric>
#include <random>

#include "edgerecall/bit_gallery.h"
#include "edgerecall/error.h"
#include "edgerecall/retrieval.h"
#include "edgerecall/search.h"
#include "base/half.h"
#include "search/product_kernels.h"
#include "search/rank_kernels.h"
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
    set.labels.push_back(i % 50 == 3 ? 1000 + static_cast<std::int64_t>(i)
                                     : static_cast<std::int64_t>(random()) % classes);
    set.cameras.push_back(static_cast<std::int64_t>(random() % 3));
  }
  return set;
}

/// The definition: eight partial sums, then pairs.
double product(const Set& a, std::size_t i, const Set& b, std::size_t j) {
  double sums[8] = {};
  for (std::size_t d = 0; d < a.dim; ++d)
    sums[d % 8] += static_cast<double>(a.rows[i * a.dim + d]) * static_cast<double>(b.rows[j * a.dim + d]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// The gallery of a query, sorted.
std::vector<std::size_t> ranking(const Set& queries, std::size_t query, const Set& gallery, bool same, bool cameras) {
  std::vector<std::size_t> order;
  std::vector<double> similarity;
  for (std::size_t image = 0; image < gallery.labels.size(); ++image) {
    similarity.push_back(product(queries, query, gallery, image));
    const bool twin =
        queries.labels[query] == gallery.labels[image] && queries.cameras[query] == gallery.cameras[image];
    if ((same && image == query) || (cameras && twin)) continue;
    order.push_back(image);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return similarity[a] > similarity[b]; });
  return order;
}

void compare(const Set& queries, const Set* separate, bool cameras, int threads) {
  const Set& gallery = separate == nullptr ? queries : *separate;
  const EmbeddingSet held = gallery.view(cameras);
  const auto scores =
      score_queries(queries.view(cameras), separate == nullptr ? nullptr : &held, queries.dim, threads, {});
  for (std::size_t query = 0; query < queries.labels.size(); ++query) {
    const auto order = ranking(queries, query, gallery, separate == nullptr, cameras);
    std::vector<double> ranks;
    for (std::size_t place = 0; place < order.size(); ++place)
      if (gallery.labels[order[place]] == queries.labels[query]) ranks.push_back(static_cast<double>(place) + 1);
    const auto relevant = static_cast<double>(ranks.size());
    double precision = 0, within = 0, at_r = 0;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      precision += static_cast<double>(i + 1) / ranks[i];
      if (ranks[i] > relevant) continue;
      within += 1;
      at_r += static_cast<double>(i + 1) / ranks[i];
    }
    CAPTURE(query);
    const QueryScore& score = scores[query];
    CHECK(score.relevant == static_cast<std::int64_t>(ranks.size()));
    CHECK(score.nearest == (order.empty() ? -1 : static_cast<std::int64_t>(order.front())));
    if (ranks.empty()) continue;
    CHECK(score.first_rank == static_cast<std::int64_t>(ranks.front()));
    CHECK(score.average_precision == precision / relevant);
    CHECK(score.r_precision == within / relevant);
    CHECK(score.map_at_r == at_r / relevant);
  }
}

/// Values that float32 products round, some rows all but equal to others, of very different lengths.
Set rough(std::size_t count, std::size_t dim, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Set set = made(count, dim, 20, seed);
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t d = 0; d < dim; ++d) {
      float& value = set.rows[i * dim + d];
      value = i % 5 == 4 ? set.rows[(i - 1) * dim + d] * (1 + 1e-7f * normal(random)) : normal(random);
      if (i % 7 == 6) value *= 100;
    }
  return set;
}

}  // namespace

TEST_CASE("ranks equal sorting, with ties, cameras, lone classes and many relevant images") {
  for (const int classes : {5, 60}) {  // more and fewer than 64 relevant images
    const Set all = made(700, 7, classes, 1), other = made(600, 7, classes, 2);
    for (const int threads : {1, 3}) {
      for (const bool cameras : {false, true}) {
        compare(all, nullptr, cameras, threads);
        compare(all, &other, cameras, threads);
      }
    }
  }
}

TEST_CASE("sizes around the tile") {
  for (const std::size_t count : {1u, 2u, 511u, 512u, 513u, 1025u}) {
    const Set all = made(count, 3, 4, static_cast<unsigned>(count));
    compare(all, nullptr, false, 2);
  }
}

TEST_CASE("what float32 cannot decide is decided in float64") {
  compare(rough(700, 19, 4), nullptr, false, 2);
  const Set one = rough(300, 33, 5), other = rough(400, 33, 6);
  compare(one, &other, true, 2);
}

TEST_CASE("averages are over the queries that have a relevant image") {
  std::vector<QueryScore> scores(3);
  scores[0] = {2, 1, 5, 0.75, 0.5, 0.5};
  scores[2] = {1, 3, 7, 0.25, 0.0, 0.0};
  const RetrievalMeans means = average(scores, {1, 3});
  CHECK(means.queries == 2);
  CHECK(means.recall == std::vector<double>{0.5, 1.0});
  CHECK(means.mean_ap == 0.5);
  CHECK(means.r_precision == 0.25);
  CHECK(means.map_at_r == 0.25);
}

TEST_CASE("bad embeddings, half a pair of cameras, and a stop") {
  Set all = made(600, 4, 3, 3);
  const EmbeddingSet set = all.view(false), with = all.view(true);
  CHECK_THROWS_AS(score_queries(set, nullptr, 4, 1, [](double) { return false; }), Cancelled);
  CHECK_THROWS_AS(score_queries(set, nullptr, 4, 3, [](double share) { return share < 1; }), Cancelled);
  CHECK_THROWS_WITH_AS(score_queries(with, &set, 4, 1, {}), doctest::Contains("or neither"), InputError);
  CHECK_THROWS_WITH_AS(score_queries(set, &with, 4, 1, {}), doctest::Contains("or neither"), InputError);
  all.rows[9] = std::nanf("");
  CHECK_THROWS_WITH_AS(score_queries(set, nullptr, 4, 1, {}), "retrieval: embedding 2 is not finite, or too large",
                       InputError);
  CHECK_THROWS_AS(score_queries({all.rows.data(), 0, all.labels.data()}, &set, 4, 1, {}), InputError);
}

TEST_CASE("more relevant pairs than are held at once take several passes") {
  Set all = made(3000, 2, 1, 9);  // one class: nine million pairs
  const auto scores = score_queries(all.view(false), nullptr, 2, 2, {});
  for (std::size_t query = 0; query < 3000; query += 97) {
    const auto order = ranking(all, query, all, true, false);
    CHECK(scores[query].nearest == static_cast<std::int64_t>(order.front()));
    double precision = 0, relevant = 0;
    for (std::size_t place = 0; place < order.size(); ++place)
      if (all.labels[order[place]] == all.labels[query]) precision += ++relevant / static_cast<double>(place + 1);
    if (relevant > 0) CHECK(scores[query].average_precision == precision / relevant);
  }
}

TEST_CASE("search equals sorting for every storage") {
  for (const std::size_t dim : {1u, 5u, 16u, 37u}) {
    const bool exact = dim != 16;
    const Set gallery = exact ? made(20000, dim, 3, 5) : rough(20000, dim, 5);
    const Set queries = exact ? made(6, dim, 3, 6) : rough(6, dim, 6);
    for (const Storage storage : {Storage::float32, Storage::float16, Storage::int8, Storage::binary}) {
      Gallery index(dim, storage);
      index.add(gallery.rows.data(), 100);
      index.add(gallery.rows.data() + 100 * dim, 19900);
      constexpr std::size_t k = 20;
      std::vector<std::int64_t> rows(6 * k);
      std::vector<float> similarities(6 * k);
      index.search(queries.rows.data(), 6, k, 3, rows.data(), similarities.data(), {});
      for (std::size_t query = 0; query < 6; ++query) {
        std::vector<double> expected(20000);
        Set stored = gallery;
        if (storage == Storage::float16) {
          for (float& value : stored.rows) {
            const std::uint16_t half = kernels::half_of(value);
            kernels::from_float16(&half, 1, &value);
          }
        }
        for (std::size_t row = 0; row < 20000; ++row) expected[row] = product(queries, query, stored, row);
        if (storage == Storage::int8) {
          for (std::size_t row = 0; row < 20000; ++row) {
            const auto quantized = [&](const Set& set, std::size_t i, std::vector<double>& codes) {
              float largest = 0;
              for (std::size_t d = 0; d < dim; ++d) largest = std::max(largest, std::fabs(set.rows[i * dim + d]));
              for (std::size_t d = 0; d < dim; ++d)
                codes.push_back(largest > 0 ? std::nearbyint(static_cast<double>(set.rows[i * dim + d]) *
                                                             (127.0 / static_cast<double>(largest)))
                                            : 0.0);
              return static_cast<double>(largest / 127.0f);
            };
            std::vector<double> a, b;
            const double scale_a = quantized(gallery, row, a), scale_b = quantized(queries, query, b);
            expected[row] = std::inner_product(a.begin(), a.end(), b.begin(), 0.0) * scale_a * scale_b;
          }
        }
        if (storage == Storage::binary) {
          for (std::size_t row = 0; row < 20000; ++row) {
            int differ = 0;
            for (std::size_t d = 0; d < dim; ++d)
              differ += (gallery.rows[row * dim + d] > 0) != (queries.rows[query * dim + d] > 0);
            expected[row] = 1 - 2.0 * differ / static_cast<double>(dim);
          }
        }
        std::vector<std::int64_t> order(20000);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
          return expected[static_cast<std::size_t>(a)] > expected[static_cast<std::size_t>(b)];
        });
        for (std::size_t place = 0; place < k; ++place) {
          CHECK(rows[query * k + place] == order[place]);
          CHECK(similarities[query * k + place] ==
                static_cast<float>(expected[static_cast<std::size_t>(order[place])]));
        }
      }
    }
  }
}

TEST_CASE("much memory begins at a large page, and keeps what is in it as it grows") {
  LargeVector<std::uint32_t> numbers;
  for (std::uint32_t number = 0; number < 3'000'000; ++number) numbers.push_back(number);
#ifdef __linux__
  CHECK(reinterpret_cast<std::uintptr_t>(numbers.data()) % (1 << 21) == 0);
#endif
  bool same = true;
  for (std::uint32_t number = 0; number < 3'000'000; ++number) same = same && numbers[number] == number;
  CHECK(same);
  const LargeVector<std::uint32_t> few(numbers.begin(), numbers.begin() + 7);
  CHECK(few.back() == 6);
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
  CHECK_THROWS_WITH_AS(index.search(rows, 1, 1, 1, found, similarities,
                                    [&](double) {
                                      index.add(rows, 1);
                                      return true;
                                    }),
                       doctest::Contains("while it is searched"), InputError);
}

TEST_CASE("rows in parts, some of them excluded, are found as in one piece; what codes leave gives float32's order") {
  for (const Storage storage : {Storage::float32, Storage::int8})
    for (const std::size_t dim : {std::size_t{5}, std::size_t{64}, std::size_t{131}}) {
      constexpr std::size_t count = 900, k = 9, queries = 21;
      const Set rows = made(count, dim, 5, 1), wanted = made(queries, dim, 5, 2);
      std::vector<std::int8_t> codes(count * dim);
      std::vector<std::int16_t> rest(count * dim);
      std::vector<float> scales(count), left;
      double longest = 0, longest_rest = 0;
      std::vector<std::size_t> numbers;
      for (std::size_t row = 0; row < count; ++row) {
        const float* values = rows.rows.data() + row * dim;
        scales[row] = to_int8(values, dim, codes.data() + row * dim, rest.data() + row * dim);
        longest = std::max(longest, std::sqrt(kernels::dot_float64(values, values, dim)));
        std::vector<float> rounded(dim);
        for (std::size_t i = 0; i < dim; ++i) rounded[i] = static_cast<float>(rest[row * dim + i]) / 65536.0f;
        longest_rest = std::max(longest_rest, static_cast<double>(scales[row]) *
                                                  std::sqrt(kernels::dot_float64(rounded.data(), rounded.data(), dim)));
        if (row % 3 == 1) continue;
        left.insert(left.end(), values, values + dim);
        numbers.push_back(row);
      }
      std::vector<StoredRows> parts;
      std::vector<std::vector<std::uint8_t>> excluded;
      for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, 7}, {7, 700}, {700, count}}) {
        excluded.emplace_back((end - begin + 7) / 8);
        for (std::size_t row = begin; row < end; ++row)
          if (row % 3 == 1) excluded.back()[(row - begin) / 8] |= static_cast<std::uint8_t>(1u << (row - begin) % 8);
        StoredRows part;
        part.storage = storage;
        part.dim = dim;
        part.count = end - begin;
        part.longest = longest;
        part.values = rows.rows.data() + begin * dim;
        if (storage == Storage::int8) {
          part.values = codes.data() + begin * dim;
          part.scales = scales.data() + begin;
          part.rest = rest.data() + begin * dim;
          part.longest_rest = longest_rest;
        }
        parts.push_back(part);
      }
      for (std::size_t part = 0; part < parts.size(); ++part) parts[part].excluded = excluded[part].data();
      Gallery whole(dim, Storage::float32);
      whole.add(left.data(), numbers.size());
      std::vector<std::int64_t> found(queries * k), expected(queries * k);
      std::vector<float> near(queries * k), exact(queries * k);
      whole.search(wanted.rows.data(), queries, k, 2, expected.data(), exact.data(), {});
      search_rows(parts, wanted.rows.data(), queries, k, 2, found.data(), near.data(), {});
      for (std::size_t i = 0; i < queries * k; ++i) {
        CHECK(std::fabs(near[i] - exact[i]) <= (storage == Storage::int8 ? 1e-7 * longest * longest : 0.0));
        const auto row = static_cast<std::size_t>(found[i]);
        CHECK(row % 3 != 1);
        if (storage == Storage::float32) CHECK(row == numbers[static_cast<std::size_t>(expected[i])]);
      }
    }
}

TEST_CASE("signs in parts, some rows excluded, are found as in one piece") {
  for (const std::size_t dim : {std::size_t{5}, std::size_t{64}, std::size_t{131}}) {
    constexpr std::size_t count = 2000, k = 30, queries = 11;
    const std::size_t words = sign_words(dim);
    const Set rows = rough(count, dim, 1), wanted = rough(queries, dim, 2);
    std::vector<std::uint64_t> signs(count * words);
    std::vector<float> left;
    std::vector<std::int64_t> numbers;
    for (std::size_t row = 0; row < count; ++row) {
      const float* values = rows.rows.data() + row * dim;
      to_signs(values, dim, signs.data() + row * words);
      if (row % 5 == 2) continue;
      left.insert(left.end(), values, values + dim);
      numbers.push_back(static_cast<std::int64_t>(row));
    }
    std::vector<StoredRows> parts;
    std::vector<std::vector<std::uint8_t>> excluded;
    for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, 3}, {3, 1100}, {1100, count}}) {
      excluded.emplace_back((end - begin + 7) / 8);
      for (std::size_t row = begin; row < end; ++row)
        if (row % 5 == 2) excluded.back()[(row - begin) / 8] |= static_cast<std::uint8_t>(1u << (row - begin) % 8);
      StoredRows part;
      part.storage = Storage::binary;
      part.dim = dim;
      part.count = end - begin;
      part.values = signs.data() + begin * words;
      parts.push_back(part);
    }
    for (std::size_t part = 0; part < parts.size(); ++part) parts[part].excluded = excluded[part].data();
    Gallery whole(dim, Storage::binary);
    whole.add(left.data(), numbers.size());
    CHECK(whole.bytes() == numbers.size() * words * 8);
    std::vector<std::int64_t> found(queries * k), expected(queries * k);
    std::vector<float> near(queries * k), exact(queries * k);
    whole.search(wanted.rows.data(), queries, k, 2, expected.data(), exact.data(), {});
    search_rows(parts, wanted.rows.data(), queries, k, 2, found.data(), near.data(), {});
    CHECK(near == exact);
    for (std::size_t i = 0; i < queries * k; ++i) CHECK(found[i] == numbers[static_cast<std::size_t>(expected[i])]);
  }
}

TEST_CASE("numbers that are not finite, as a damaged file may hold, are not found") {
  const float nan = std::nanf("");
  const float rows[] = {nan, 1, 1, 1, std::numeric_limits<float>::infinity(), 0, 2, 1};
  const std::int8_t codes[] = {1, 1, 1, 1, 1, 1, 1, 1};
  const float scales[] = {nan, 0.5f, std::numeric_limits<float>::infinity(), 0.25f};
  const float query[] = {1, 1};
  std::int64_t found[4];
  float near[4];
  StoredRows part;
  part.dim = 2;
  part.count = 4;
  part.values = rows;
  part.longest = 3;
  search_rows({part}, query, 1, 4, 1, found, near, {});
  CHECK(found[0] == 3);
  CHECK(found[1] == 1);
  CHECK(found[2] == -1);
  part.storage = Storage::int8;
  part.values = codes;
  part.scales = scales;
  search_rows({part}, query, 1, 4, 1, found, near, {});
  CHECK(found[0] == 1);
  CHECK(found[1] == 3);
  CHECK(found[2] == -1);
}

TEST_CASE("a gallery of bits finds by signs and ranks by what it holds") {
  for (const int bits : {1, 2, 3, 4})
    for (const std::size_t dim : {std::size_t{5}, std::size_t{64}, std::size_t{130}}) {
      const Set rows = made(1003, dim, 5, 1), queries = made(37, dim, 5, 2);
      const std::vector<float> centre(dim, 0.0625f);
      BitGallery gallery(dim, bits, centre.data());
      gallery.add(rows.rows.data(), 1000);
      gallery.add(rows.rows.data() + 1000 * dim, 3);
      CHECK(gallery.size() == 1003);
      constexpr std::size_t k = 7, candidates = 60;
      std::vector<std::int64_t> found(37 * k);
      std::vector<float> similarities(37 * k);
      gallery.search(queries.rows.data(), 37, k, candidates, 3, found.data(), similarities.data(), {});
      for (std::size_t query = 0; query < 37; ++query) {
        std::vector<std::size_t> distances(1003);
        for (std::size_t row = 0; row < 1003; ++row)
          for (std::size_t d = 0; d < dim; ++d)
            distances[row] += (queries.rows[query * dim + d] > centre[d]) != (rows.rows[row * dim + d] > centre[d]);
        std::vector<std::size_t> order(1003);
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return distances[a] < distances[b]; });
        order.resize(candidates);
        for (std::size_t place = 0; place < k; ++place) {
          const auto row = static_cast<std::size_t>(found[query * k + place]);
          CHECK(std::find(order.begin(), order.end(), row) != order.end());
          if (place > 0) CHECK(similarities[query * k + place] <= similarities[query * k + place - 1]);
        }
      }
    }
  const float centre[] = {0, 0};
  CHECK_THROWS_AS(BitGallery(2, 0, centre), InputError);
  CHECK_THROWS_AS(BitGallery(0, 1, centre), InputError);
  BitGallery empty(2, 2, centre);
  std::int64_t found = 0;
  float similarity = 0;
  empty.search(centre, 1, 1, 10, 2, &found, &similarity, {});
  CHECK(found == -1);
  empty.add(centre, 1);
  CHECK_THROWS_WITH_AS(empty.search(centre, 1, 1, 1, 1, &found, &similarity,
                                    [&](double) {
                                      empty.add(centre, 1);
                                      return true;
                                    }),
                       doctest::Contains("while it is searched"), InputError);
}

TEST_CASE("matrix products equal float64's within the bound, for every remainder of rows, columns and depth") {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> number(-1.0f, 1.0f);
  using Sizes = std::initializer_list<std::size_t>;
  for (const std::size_t depth : Sizes{1, 3, 4, 127, 256, 257, 600})
    for (const std::size_t rows : Sizes{1, 2, 11, 12, 13, 37})
      for (const std::size_t columns : Sizes{1, 7, 31, 32, 33, 70}) {
        std::vector<float> a(rows * depth), b(columns * depth), out(rows * columns, -9.0f);
        for (auto* values : {&a, &b}) std::generate(values->begin(), values->end(), [&] { return number(random); });
        std::vector<float> scratch(kernels::product_scratch(rows));
        kernels::multiply_transposed(a.data(), rows, b.data(), columns, depth, out.data(), scratch.data());
        for (std::size_t i = 0; i < rows; ++i)
          for (std::size_t j = 0; j < columns; ++j) {
            const float *left = a.data() + i * depth, *right = b.data() + j * depth;
            const double exact = kernels::dot_float64(left, right, depth);
            const double bound = kernels::float32_error(depth, std::sqrt(kernels::dot_float64(left, left, depth)),
                                                        std::sqrt(kernels::dot_float64(right, right, depth)));
            REQUIRE(std::fabs(static_cast<double>(out[i * columns + j]) - exact) <= bound);
          }
      }
}

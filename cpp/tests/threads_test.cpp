// What the headers call safe under several threads, by sixteen; the thread sanitizer looks on in `make cpp-thread`.
#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "edgerecall/bundle.h"
#include "edgerecall/preprocess.h"
#include "edgerecall/search.h"
#include "support.h"

using namespace edgerecall;

namespace {

constexpr int kThreads = 16, kTimes = 12;

/// Calls `work(thread)` on all threads at the same time; false when one of them threw or gave false.
bool on_all(const std::function<bool(int)>& work) {
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread)
    threads.emplace_back([&, thread] {
      try {
        if (work(thread)) ++good;
      } catch (const std::exception&) {
      }
    });
  for (std::thread& one : threads) one.join();
  return good == kThreads;
}

}  // namespace

TEST_CASE("one bundle and its preprocessing under sixteen threads") {
  const Bundle bundle(std::string(EDGERECALL_GOLDEN) + "/bundle");
  const Golden golden = bundle.golden();
  const std::size_t size = bundle.io().input_size(), count = golden.images.size();
  CHECK(on_all([&](int thread) {
    bool same = true;
    for (int time = 0; time < kTimes; ++time) {
      std::vector<EncodedImage> images;
      for (std::size_t at = 0; at < count; ++at)
        images.push_back({golden.images[(at + static_cast<std::size_t>(thread)) % count]});
      std::vector<float> tensors(count * size);
      const int helpers = 1 + thread % 3;
      const auto outcomes =
          run_batch(bundle.preprocess(), images, helpers, INT64_MAX, TensorType::float32, tensors.data(), {});
      for (std::size_t at = 0; at < count; ++at) {
        const std::size_t source = (at + static_cast<std::size_t>(thread)) % count;
        same = same && outcomes[at].status == ImageStatus::ok &&
               std::equal(tensors.begin() + static_cast<std::ptrdiff_t>(at * size),
                          tensors.begin() + static_cast<std::ptrdiff_t>((at + 1) * size),
                          golden.tensors.begin() + static_cast<std::ptrdiff_t>(source * size));
      }
    }
    return same && bundle.files(bundle.artifact("onnxruntime")).count("model") == 1 &&
           bundle.golden().embeddings == golden.embeddings;
  }));
}

TEST_CASE("one gallery searched by sixteen threads") {
  constexpr std::size_t kRows = 500, kDim = 24, kTop = 5;
  std::vector<float> rows(kRows * kDim);
  std::uint32_t state = 1;
  for (float& value : rows) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
  for (const Storage storage : {Storage::float32, Storage::float16, Storage::int8, Storage::binary}) {
    Gallery gallery(kDim, storage);
    gallery.add(rows.data(), kRows);
    std::vector<std::int64_t> expected(kRows * kTop);
    std::vector<float> similarities(kRows * kTop);
    gallery.search(rows.data(), kRows, kTop, 1, expected.data(), similarities.data(), {});
    CHECK(on_all([&](int thread) {
      std::vector<std::int64_t> found(kRows * kTop);
      std::vector<float> values(kRows * kTop);
      gallery.search(rows.data(), kRows, kTop, 1 + thread % 2, found.data(), values.data(), {});
      return found == expected && values == similarities;
    }));
  }
}

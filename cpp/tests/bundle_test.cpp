// Bundles and the formats inside them, on files of tests/golden and on damaged copies in memory.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/files.h"
#include "edgerecall/bundle.h"
#include "edgerecall/error.h"
#include "edgerecall/machine.h"
#include "edgerecall/npy.h"
#include "edgerecall/sha256.h"
#include "support.h"

using namespace edgerecall;

namespace {

std::string hash(const std::string& text, std::size_t part) {
  Sha256 sum;
  const auto* data = reinterpret_cast<const std::uint8_t*>(text.data());
  for (std::size_t at = 0; at < text.size(); at += part) sum.add(data + at, std::min(part, text.size() - at));
  return sum.finish();
}

const std::string kBundle = std::string(EDGERECALL_GOLDEN) + "/bundle";

}  // namespace

TEST_CASE("SHA-256 of FIPS 180-4's examples, whole and in pieces") {
  const std::string long_text(1000000, 'a');
  for (const std::size_t part : {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{1000}}) {
    CAPTURE(part);
    CHECK(hash("", part) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(hash("abc", part) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", part) ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(hash(long_text, part) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

TEST_CASE("arrays: what is written is read again, what is damaged is refused") {
  const std::string path = std::string(std::getenv("TMPDIR") != nullptr ? std::getenv("TMPDIR") : "/tmp") +
                           "/edgerecall-npy-" + std::to_string(getpid()) + ".npy";  // ctest runs several at once
  const std::vector<float> values = {1.5f, -2, 3, 4, 5, 6};
  for (const auto& shape : {std::vector<std::size_t>{6}, {2, 3}, {1, 2, 3, 1}}) {
    write_npy(path, shape, values.data());
    const Npy array = read_npy(path);
    CHECK(array.shape == shape);
    CHECK(array.values == values);
  }
  const std::vector<std::uint8_t> bytes = read_file(path);
  std::remove(path.c_str());
  CHECK(bytes.size() % 64 == values.size() * sizeof(float) % 64);  // the header is aligned as the format asks
  for (std::size_t size = 0; size < bytes.size(); ++size) CHECK_THROWS_AS(parse_npy(bytes.data(), size), InputError);
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text(bytes.begin(), bytes.end());
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const auto& change : {std::pair{"<f4", "<f8"},
                             {"False", "True "},
                             {"'shape'", "'shore'"},
                             {"(1, 2", "(9, 9"},
                             {"(1, 2", "(-1,2"},
                             {"(1, 2", "(x, 2"},
                             {"\x93NUMPY", "\x93NUMPX"}}) {
    CAPTURE(change.second);
    const std::string text = changed(change.first, change.second);
    CHECK_THROWS_AS(parse_npy(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()), InputError);
  }
  CHECK_THROWS_AS(write_npy("/nowhere/a.npy", {1}, values.data()), InputError);
  CHECK_THROWS_WITH_AS(read_npy("no/such.npy"), doctest::Contains("no/such.npy: cannot be read"), InputError);
  CHECK_THROWS_AS(read_npy(kBundle + "/bundle.json"), InputError);
}

TEST_CASE("the golden bundle") {
  const Bundle bundle(kBundle);
  CHECK(bundle.io().embedding_dim == 8);
  CHECK(bundle.io().input_size() == 3 * 32 * 32);
  CHECK(bundle.artifact("onnxruntime").name == "onnx");
  CHECK_THROWS_AS(bundle.artifact("tflite"), InputError);
  const Golden golden = bundle.golden();
  CHECK(golden.images.size() == 4);
  CHECK(golden.embeddings.size() == 4 * 8);
  for (std::size_t image = 0; image < 4; ++image) {
    const std::vector<std::uint8_t> encoded = read_file(golden.images[image]);
    std::vector<float> tensor(bundle.io().input_size());
    bundle.preprocess().run(encoded.data(), encoded.size(), INT64_MAX, TensorType::float32, tensor.data());
    const auto first = golden.tensors.begin() + static_cast<std::ptrdiff_t>(image * tensor.size());
    CHECK(std::equal(tensor.begin(), tensor.end(), first));  // bit for bit what Python's preprocessing gave
  }
  CHECK_THROWS_AS(Bundle(std::string(EDGERECALL_GOLDEN)), InputError);
}

TEST_CASE("a bundle of format 1") {
  const Bundle bundle(std::string(EDGERECALL_GOLDEN) + "/bundle-format-1");
  CHECK(bundle.artifact("onnxruntime").quantisation == "fp32");
  CHECK(bundle.files(bundle.artifact("onnxruntime")).count("model") == 1);
  CHECK_THROWS_WITH_AS(bundle.golden(), doctest::Contains("run 'edgerecall upgrade"), InputError);
}

TEST_CASE("an artifact is chosen by runtime and quantisation") {
  const Bundle bundle(kBundle);
  CHECK(bundle.quantisations("onnxruntime") == std::vector<std::string>{"fp32"});
  CHECK(bundle.quantisations("tflite").empty());
  CHECK(bundle.artifact("onnxruntime", "fp32").name == "onnx");
  CHECK_THROWS_WITH_AS(bundle.artifact("onnxruntime", "int8"), doctest::Contains("no int8 artifact"), InputError);
  bundle.check();
}

TEST_CASE("rows of unit length") {
  std::vector<float> rows = {3, 4, 0, 0};
  l2_normalize(rows.data(), 2, 2);
  CHECK(rows[0] == doctest::Approx(0.6));
  CHECK(rows[1] == doctest::Approx(0.8));
  CHECK(rows[2] == 0);
}

TEST_CASE("CPUs by name") {
  const std::vector<int> usable = usable_cpus();
  CHECK(cpus_of("all") == usable);
  CHECK(!cpus_of("big").empty());
  CHECK(!cpus_of("little").empty());
  CHECK(cpus_of(std::to_string(usable.front())) == std::vector<int>{usable.front()});
  for (const char* wrong : {"", "x", "1-", "-1", "2-1", "0,", "99999", "0 1", "1e3"})
    CHECK_THROWS_AS(cpus_of(wrong), InputError);
  CHECK(shown({0, 2, 3, 4, 7}) == "0,2-4,7");
  CHECK(shown({}).empty());
}

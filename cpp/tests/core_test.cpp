// The core without Python: golden JPEGs, damaged bytes, packing. Usage: edgerecall_tests GOLDEN_FOLDER.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "edgerecall/image.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

Bytes read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  require(stream.good(), "cannot read " + path);
  return Bytes(std::istreambuf_iterator<char>(stream), {});
}

Bytes decode(const Bytes& data) {
  const edgerecall::ImageSize size = edgerecall::jpeg_size(data.data(), data.size());
  Bytes pixels(static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width) * 3);
  edgerecall::decode_jpeg(data.data(), data.size(), size, pixels.data());
  return pixels;
}

template <typename Error>
bool throws(const Bytes& data) {
  try {
    decode(data);
  } catch (const Error&) {
    return true;
  }
  return false;
}

void test_golden(const std::string& folder) {
  for (const std::string name : {"rgb420", "gray"})
    require(decode(read(folder + "/" + name + ".jpg")) == read(folder + "/" + name + ".rgb"), name + " equals Pillow's");
  require(throws<edgerecall::UnsupportedImage>(read(folder + "/cmyk.jpg")), "CMYK is left to others");
}

void test_damage(const std::string& folder) {
  const Bytes whole = read(folder + "/rgb420.jpg");
  for (std::size_t length = 0; length + 4 < whole.size(); ++length)
    require(throws<edgerecall::InputError>(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length))),
            "cut at " + std::to_string(length));
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    Bytes damaged = whole;
    for (int change = 0; change < 4; ++change)
      damaged[random() % damaged.size()] = static_cast<std::uint8_t>(random());
    try {
      const edgerecall::ImageSize size = edgerecall::jpeg_size(damaged.data(), damaged.size());
      if (size.height < 2000 && size.width < 2000) decode(damaged);
    } catch (const edgerecall::InputError&) {
    }
  }
}

void test_packing() {
  const Bytes image = {1, 2, 3, 4, 5, 6, 99, 7, 8, 9, 10, 11, 12, 99};  // two rows of two pixels, stride 7
  edgerecall::ChannelTables tables{};
  for (std::size_t channel = 0; channel < 3; ++channel)
    for (std::size_t value = 0; value < 256; ++value)
      tables[channel][value] = static_cast<float>(value) + 1000.0f * static_cast<float>(channel);
  std::vector<float> out(12);
  edgerecall::pack_planar(image.data(), 7, {2, 2}, tables, false, out.data());
  require(out == std::vector<float>{1, 4, 7, 10, 1002, 1005, 1008, 1011, 2003, 2006, 2009, 2012}, "planes in order");
  edgerecall::pack_planar(image.data(), 7, {2, 2}, tables, true, out.data());
  require(out == std::vector<float>{2003, 2006, 2009, 2012, 1002, 1005, 1008, 1011, 1, 4, 7, 10}, "planes swapped");
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 2, "usage: edgerecall_tests GOLDEN_FOLDER");
  test_golden(argv[1]);
  test_damage(argv[1]);
  test_packing();
  std::puts("ok");
  return 0;
}

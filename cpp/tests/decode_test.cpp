#include <random>

#include "base/files.h"
#include "edgerecall/decode.h"
#include "edgerecall/error.h"
#include "support.h"

using namespace edgerecall;

namespace {

Image upright_of(const Bytes& data) { return decode(data.data(), data.size(), {true, 1 << 20}); }

}  // namespace

TEST_CASE("golden images decode to Pillow's pixels") {
  for (const std::string name : {"rgb420.jpg", "rgb422.jpg", "rgb444.jpg", "gray.jpg", "cmyk.jpg", "turned.jpg",
                                 "rgb.png", "rgba.png", "palette.png", "gray_alpha.png", "bits.png", "gray16.png"}) {
    CAPTURE(name);
    CHECK(copy(upright_of(golden(name))) == golden(name + ".rgb"));
  }
}

TEST_CASE("orientation is applied only when asked for") {
  const Bytes data = golden("turned.jpg");
  CHECK(decode(data.data(), data.size(), {false, 1 << 20}).size() == ImageSize{23, 19});
  CHECK(upright_of(data).size() == ImageSize{19, 23});
}

TEST_CASE("every cut of a file is an error") {
  for (const char* name : {"rgb420.jpg", "rgb444.jpg", "rgb.png", "palette.png"}) {
    const Bytes whole = golden(name);
    for (std::size_t length = 0; length < whole.size(); ++length) {
      const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
      CAPTURE(length);
      CHECK_THROWS_AS(upright_of(part), InputError);
    }
  }
}

TEST_CASE("damaged bytes give an image or an InputError, never a crash") {
  std::mt19937 random(7);
  for (const char* name :
       {"rgb420.jpg", "rgb444.jpg", "cmyk.jpg", "turned.jpg", "rgba.png", "palette.png", "gray16.png"}) {
    const Bytes whole = golden(name);
    for (int round = 0; round < 1000; ++round) {
      Bytes damaged = whole;
      for (int change = 0; change < 4; ++change)
        damaged[random() % damaged.size()] = static_cast<std::uint8_t>(random());
      try {
        upright_of(damaged);
      } catch (const InputError&) {
      }
    }
  }
}

TEST_CASE("the pixel limit holds before memory is asked for") {
  const Bytes data = golden("rgb.png");
  CHECK_NOTHROW(decode(data.data(), data.size(), {false, 19 * 23}));
  CHECK_THROWS_WITH_AS(decode(data.data(), data.size(), {false, 19 * 23 - 1}), doctest::Contains("more than the limit"),
                       InputError);
}

TEST_CASE("other formats are unsupported, not damaged") {
  const Bytes text = {'B', 'M', 1, 2, 3, 4, 5, 6, 7, 8, 9};
  CHECK_THROWS_AS(upright_of(text), UnsupportedImage);
  CHECK_THROWS_AS(upright_of({}), UnsupportedImage);
}

TEST_CASE("exif orientation is read in both byte orders and never outside the data") {
  const Bytes little = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0};
  const Bytes big = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0};
  CHECK(exif_orientation(little.data(), little.size()) == 6);
  CHECK(exif_orientation(big.data(), big.size()) == 8);
  for (std::size_t length = 0; length < little.size() - 2; ++length)
    CHECK(exif_orientation(little.data(), length) == 1);
  Bytes far = little;
  far[4] = far[5] = far[6] = far[7] = 0xff;
  CHECK(exif_orientation(far.data(), far.size()) == 1);
}

TEST_CASE("files") {
  CHECK_THROWS_WITH_AS(read_file("no/such/file"), "no/such/file: cannot be read: No such file or directory",
                       InputError);
  CHECK_THROWS_WITH_AS(file_bytes("no/such/file"), "cannot be read: No such file or directory", InputError);
  CHECK_THROWS_AS(read_file("."), InputError);
  CHECK(read_file(std::string(EDGERECALL_GOLDEN) + "/rgb.png") == golden("rgb.png"));
}

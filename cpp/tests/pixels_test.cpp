#include <zlib.h>

#include <cmath>
#include <cstring>
#include <sstream>

#include "edgerecall/error.h"
#include "edgerecall/preprocess.h"
#include "edgerecall/resize.h"
#include "base/half.h"
#include "search/rank_kernels.h"
#include "support.h"

using namespace edgerecall;

namespace {

std::uint32_t checksum(const void* data, std::size_t size) {
  return static_cast<std::uint32_t>(crc32(0, static_cast<const Bytef*>(data), static_cast<uInt>(size)));
}

std::string resize_op(const std::string& backend, const std::string& filter, int height, int width) {
  return R"({"op":"resize","backend":")" + backend + R"(","filter":")" + filter + R"(","height":)" +
         std::to_string(height) + R"(,"width":)" + std::to_string(width) + "}";
}

std::string spec(const std::string& geometry) {
  return R"({"ops":[{"op":"decode","exif":"ignore"},)" + geometry +
         R"(,{"op":"normalize","scale":0.00392156862745098,"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225],)" +
         R"("order":"bgr"}]})";
}

}  // namespace

TEST_CASE("resizes and tensors equal Pillow's, OpenCV's and numpy's") {
  const Bytes table = golden("pixels.txt");
  std::istringstream lines(std::string(table.begin(), table.end()));
  std::string backend, filter;
  int height = 0, width = 0, new_height = 0, new_width = 0, count = 0;
  std::uint32_t pixels_sum = 0, tensor_sum = 0;
  while (lines >> backend >> filter >> height >> width >> new_height >> new_width >> pixels_sum >> tensor_sum) {
    CAPTURE(backend + " " + filter);
    CAPTURE(height);
    const Bytes source = made_up(height, width);
    const Image result = resize(view(source, height, width), {new_height, new_width}, resampling(backend, filter));
    CHECK(checksum(result.data(), copy(result).size()) == pixels_sum);
    const Preprocess preprocess(spec(resize_op(backend, filter, new_height, new_width)));
    std::vector<float> tensor(static_cast<std::size_t>(new_height * new_width * 3));
    preprocess.run(view(source, height, width), 1 << 20, TensorType::float32, tensor.data());
    CHECK(checksum(tensor.data(), tensor.size() * sizeof(float)) == tensor_sum);
    ++count;
  }
  CHECK(count == 17 * 9);
}

TEST_CASE("a crop changes nothing but the window") {
  const Bytes source = made_up(61, 83);
  for (const std::string backend : {"pil", "pil12", "cv2"}) {
    for (const std::string filter : {"nearest", "bilinear", "bicubic", "lanczos"}) {
      const Geometry whole = parse_geometry("[" + resize_op(backend, filter, 40, 50) + "]");
      const Geometry part = parse_geometry("[" + resize_op(backend, filter, 40, 50) +
                                           R"(,{"op":"center_crop","height":13,"width":21,"margin":"floor"}])");
      const Image all = whole.apply(view(source, 61, 83), 1 << 20), some = part.apply(view(source, 61, 83), 1 << 20);
      for (int y = 0; y < 13; ++y)
        CHECK(std::memcmp(some.data() + y * 63, all.data() + ((y + 13) * 50 + 14) * 3, 63) == 0);
    }
  }
}

TEST_CASE("float16 tensors are the float32 ones, rounded half to even") {
  const Bytes source = made_up(9, 11);
  const Preprocess preprocess(spec(resize_op("pil", "bilinear", 5, 19)));
  std::vector<std::uint16_t> half(5 * 19 * 3, 0xffff);
  preprocess.run(view(source, 9, 11), 1 << 20, TensorType::float16, half.data());
  std::vector<float> whole(half.size());
  preprocess.run(view(source, 9, 11), 1 << 20, TensorType::float32, whole.data());
  for (std::size_t i = 0; i < half.size(); ++i) CHECK(half[i] == kernels::half_of(whole[i]));
}

TEST_CASE("float16 conversion, one value and many, over the whole range") {
  const std::pair<float, std::uint16_t> known[] = {{0.0f, 0},
                                                   {-0.0f, 0x8000},
                                                   {1.0f, 0x3c00},
                                                   {0.3f, 0x34cd},
                                                   {1.0009f, 0x3c01},
                                                   {65504.0f, 0x7bff},
                                                   {65519.0f, 0x7bff},
                                                   {65520.0f, 0x7c00},
                                                   {70000.0f, 0x7c00},
                                                   {-70000.0f, 0xfc00},
                                                   {3.1e-8f, 1},
                                                   {2.9e-8f, 0},
                                                   {6.1e-5f, 0x03ff},
                                                   {6.104e-5f, 0x0400},
                                                   {2.98023224e-8f, 0},
                                                   {1.00048828125f, 0x3c00},
                                                   {1.00146484375f, 0x3c02}};
  for (const auto& pair : known) {
    CAPTURE(pair.first);
    CHECK(kernels::half_of(pair.first) == pair.second);
  }
  std::vector<float> values;
  for (std::uint32_t bits = 0; bits < 0x47800000u; bits += 99991u) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    values.insert(values.end(), {value, -value});
  }
  std::vector<std::uint16_t> halves(values.size());
  std::vector<float> back(values.size());
  kernels::to_float16(values.data(), values.size(), halves.data());
  kernels::from_float16(halves.data(), halves.size(), back.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    CAPTURE(values[i]);
    REQUIRE(halves[i] == kernels::half_of(values[i]));
    if (std::fabs(values[i]) < 65520.0f) REQUIRE(kernels::half_of(back[i]) == halves[i]);
  }
}

TEST_CASE("a batch runs on threads, keeps its slots and reports the bad ones") {
  const Preprocess preprocess(spec(resize_op("pil", "bilinear", 8, 8)));
  const Bytes good = golden("rgb420.jpg"), bad = {0xff, 0xd8, 0xff, 0}, other = {'G', 'I', 'F'};
  std::vector<EncodedImage> images;
  for (int i = 0; i < 40; ++i) images.push_back({"", good.data(), good.size()});
  images[7] = {"", bad.data(), bad.size()};
  images[9] = {"", other.data(), other.size()};
  images[11] = {std::string(EDGERECALL_GOLDEN) + "/rgb420.jpg"};
  images[13] = {"no/such/file"};
  const std::size_t step = preprocess.tensor_bytes(TensorType::float32) / sizeof(float);
  std::vector<float> out(step * images.size());
  const auto outcomes = run_batch(preprocess, images, 4, 1 << 20, TensorType::float32, out.data());
  for (std::size_t i = 0; i < images.size(); ++i) {
    CAPTURE(i);
    if (i == 7 || i == 13) {
      CHECK(outcomes[i].status == ImageStatus::bad);
    } else if (i == 9) {
      CHECK(outcomes[i].status == ImageStatus::unsupported);
    } else {
      CHECK(outcomes[i].status == ImageStatus::ok);
      CHECK(std::memcmp(out.data(), out.data() + i * step, step * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("specs are read strictly") {
  for (const std::string& text :
       {std::string("["), std::string("{}"), std::string("[]"), spec("{}"), spec("1"), spec("[]"),
        spec(resize_op("pil", "area", 8, 8)), spec(resize_op("cv3", "area", 8, 8)), spec(resize_op("pil", "box", 0, 8)),
        spec(resize_op("pil", "box", 8, 8193)),
        spec(R"({"op":"center_crop","height":8,"width":8,"margin":"round","x":1})"),
        spec(R"({"op":"center_crop","height":8,"width":8.5,"margin":"round"})"),
        spec(R"({"op":"resize_short","size":8,"backend":"pil","filter":"box","rounding":"round"})"),
        std::string(3000, '[')}) {
    CAPTURE(text);
    CHECK_THROWS_AS(Preprocess{text}, InputError);
  }
}

TEST_CASE("sizes that an operation does not allow") {
  const Bytes source = made_up(1, 900);
  const Geometry grow =
      parse_geometry(R"([{"op":"resize_short","size":200,"backend":"pil","filter":"bilinear","rounding":"truncate"}])");
  CHECK_THROWS_WITH_AS(grow.apply(view(source, 1, 900), 1 << 20),
                       "900 x 1 would grow to 180000 x 200: too narrow an image", InputError);
  const Geometry crop = parse_geometry(R"([{"op":"center_crop","height":2,"width":2,"margin":"floor"}])");
  CHECK_THROWS_AS(crop.apply(view(source, 1, 900), 1 << 20), InputError);
}

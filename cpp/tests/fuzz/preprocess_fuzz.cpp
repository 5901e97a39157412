// Two bytes of image size and a preprocess spec as JSON: a tensor of finite work, or an InputError.
#include <algorithm>
#include <string>
#include <vector>

#include "edgerecall/error.h"
#include "edgerecall/preprocess.h"

namespace {

using namespace edgerecall;

constexpr int kMaxSide = 200;  // larger ones are the same code, only slower

int largest_side(const ResizeShort& op) { return op.size; }
int largest_side(const ResizeExact& op) { return std::max(op.size.height, op.size.width); }
int largest_side(const CenterCrop& op) { return std::max(op.size.height, op.size.width); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  try {
    const Preprocess preprocess(std::string(data + 2, data + size));
    if (preprocess.geometry().ops().size() > 6) return 0;
    for (const GeometryOp& op : preprocess.geometry().ops())
      if (std::visit([](const auto& known) { return largest_side(known); }, op) > kMaxSide) return 0;
    const ImageSize source{data[0] % 90 + 1, data[1] % 90 + 1};
    // Exactly as large as it says, so that a read outside it is noticed.
    const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(source.pixels()) * 3, 77);
    const ImageView view{pixels.data(), static_cast<std::size_t>(source.width) * 3, source};
    for (const TensorType type : {TensorType::float32, TensorType::float16}) {
      std::vector<std::uint8_t> tensor(preprocess.tensor_bytes(type));
      preprocess.run(view, 1 << 16, type, tensor.data());
    }
  } catch (const InputError&) {
  }
  return 0;
}

// Any bytes: an image of at most the limit, or an InputError.
#include <cstdlib>

#include "edgerecall/decode.h"
#include "edgerecall/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t kMaxPixels = 1 << 18;
  try {
    const edgerecall::Image image = edgerecall::decode(data, size, {true, kMaxPixels});
    if (image.size().pixels() < 1 || image.size().pixels() > kMaxPixels) std::abort();
  } catch (const edgerecall::InputError&) {
  }
  return 0;
}

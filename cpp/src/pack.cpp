#include "edgerecall/image.h"

namespace edgerecall {

void pack_planar(const std::uint8_t* image, std::size_t row_stride, ImageSize size, const ChannelTables& tables,
                 bool swap_channels, float* out) {
  const auto rows = static_cast<std::size_t>(size.height);
  const auto columns = static_cast<std::size_t>(size.width);
  const std::size_t plane = rows * columns;
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const auto& table = tables[channel];
    float* target = out + (swap_channels ? 2 - channel : channel) * plane;
    for (std::size_t row = 0; row < rows; ++row) {
      const std::uint8_t* source = image + row * row_stride + channel;
      for (std::size_t column = 0; column < columns; ++column) *target++ = table[source[column * 3]];
    }
  }
}

}  // namespace edgerecall

// What the tests share.
#pragma once
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "edgerecall/image.h"

using Bytes = std::vector<std::uint8_t>;

/// A file of tests/golden.
inline Bytes golden(const std::string& name) {
  std::ifstream stream(std::string(EDGERECALL_GOLDEN) + "/" + name, std::ios::binary);
  REQUIRE_MESSAGE(stream.good(), "cannot read " << name);
  return Bytes(std::istreambuf_iterator<char>(stream), {});
}

/// The picture that tests/support/make_golden.py makes.
inline Bytes made_up(int height, int width) {
  std::uint32_t state = 12345;
  Bytes pixels(static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3);
  for (std::uint8_t& value : pixels) {
    state = (state * 1103515245u + 12345u) & 0x7fffffffu;
    value = static_cast<std::uint8_t>(state >> 16);
  }
  return pixels;
}

inline edgerecall::ImageView view(const Bytes& pixels, int height, int width) {
  return {pixels.data(), static_cast<std::size_t>(width) * 3, {height, width}};
}

inline Bytes copy(const edgerecall::Image& image) {
  return Bytes(image.data(), image.data() + image.stride() * static_cast<std::size_t>(image.size().height));
}

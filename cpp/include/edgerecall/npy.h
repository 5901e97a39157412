#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace edgerecall {

/// A float32 array, row-major.
struct Npy {
  std::vector<std::size_t> shape;
  std::vector<float> values;
};

/// NumPy's format, versions 1 to 3, little-endian float32 in C order alone
/// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). Throws InputError.
Npy parse_npy(const std::uint8_t* data, std::size_t size);

/// Throws InputError.
Npy read_npy(const std::string& path);

/// `values` `shape` as a file, written beside it and renamed. Throws InputError when it cannot be written.
void write_npy(const std::string& path, const std::vector<std::size_t>& shape, const float* values);

}  // namespace edgerecall

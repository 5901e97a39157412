#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace edgerecall {

/// SHA-256 (FIPS 180-4) of bytes that come piece by piece.
class Sha256 {
 public:
  void add(const std::uint8_t* data, std::size_t size);
  /// In hexadecimal; nothing may be added after it.
  std::string finish();

 private:
  void block(const std::uint8_t* data);

  std::uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::uint8_t pending_[64];
  std::size_t held_ = 0;
  std::uint64_t size_ = 0;
};

/// Of a file's bytes; its size goes to `size`. Throws InputError when it cannot be read.
std::string sha256_of(const std::string& path, std::uint64_t& size);

}  // namespace edgerecall

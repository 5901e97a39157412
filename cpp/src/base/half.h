#pragma once
#include <cstdint>
#include <cstring>

namespace edgerecall::kernels {

/// float32 to float16, rounded half to even; too large a value becomes infinite (IEEE 754-2019, 5.4.2).
inline std::uint16_t half_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);   // not a number
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more
  const std::uint32_t exponent = magnitude >> 23;
  if (exponent < 102) return static_cast<std::uint16_t>(sign);  // less than half of the smallest
  // The significand with its leading one, and how many of its bits float16 has no room for.
  const std::uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
  const std::uint32_t dropped = exponent < 113 ? 126 - exponent : 13;
  const std::uint32_t base = exponent < 113 ? 0 : (exponent - 113) << 10;
  const std::uint32_t kept = significand >> dropped, rest = significand & ((1u << dropped) - 1),
                      half = 1u << (dropped - 1);
  const std::uint32_t rounded = kept + (rest > half || (rest == half && (kept & 1u) != 0) ? 1u : 0u);
  return static_cast<std::uint16_t>(sign | (base + rounded));
}

}  // namespace edgerecall::kernels

#pragma once
#include <cstddef>
#include <cstdint>

namespace edgerecall::kernels {

/// Whether this CPU has the instructions; false on all but 64-bit ARM.
bool has_dot_product();

/// As `dots_int8`; only where `has_dot_product`.
void dots_int8_by_instruction(const std::int8_t* query, const std::int8_t* rows, std::size_t count, std::size_t dim,
                              std::int32_t* out);

}  // namespace edgerecall::kernels

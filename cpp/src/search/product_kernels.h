// The matrix product of retrieval, one source compiled for every vector width and chosen at run time.
#pragma once
#include <cstddef>

namespace edgerecall::kernels {

/// Floats of scratch memory that `multiply_transposed` needs for so many rows of `a`.
std::size_t product_scratch(std::size_t rows);

/// out = a * transpose(b), float32: a `(rows, depth)`, b `(columns, depth)`, out `(rows, columns)`, all row-major. The
/// order in which a product is summed differs between CPUs. Blocking and packing after Goto and van de Geijn, "Anatomy
/// of High-Performance Matrix Multiplication" (2008), without the blocks that matter beyond a few hundred rows.
void multiply_transposed(const float* a, std::size_t rows, const float* b, std::size_t columns, std::size_t depth,
                         float* out, float* scratch);

}  // namespace edgerecall::kernels

// Hamming distances and rows of few bits, one source compiled for every vector width and chosen at run time.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edgerecall::kernels {

constexpr std::size_t kBlockRows = 8;  ///< of which a block holds each word in turn

/// Rows of `blocks` whose distance to the query is below `limit`: their positions and distances, room for all rows.
/// query: `words`; rows: `blocks * words * 8` words. Returns how many.
std::size_t nearer_than(const std::uint64_t* query, const std::uint64_t* rows, std::size_t blocks, std::size_t words,
                        std::uint64_t limit, std::uint32_t* positions, std::uint32_t* distances);

/// How many bits of `words` differ between a query and each of `count` rows, one behind another.
void hamming(const std::uint64_t* query, const std::uint64_t* rows, std::size_t count, std::size_t words,
             std::uint32_t* distances);

/// The numbers of a row: `words * 64`, each a level with its sign. levels: 1 << planes sizes. signs: a word each
/// `kBlockRows`; planes: bit by bit of the levels' indices, `words` each.
void decode_row(const std::uint64_t* signs, const std::uint64_t* planes, std::size_t words, std::size_t plane_count,
                const float* levels, float* out);

}  // namespace edgerecall::kernels

// Whole files.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace edgerecall {

/// A file's bytes, perhaps none. Throws InputError, whose message lacks the path: the caller adds it.
std::vector<std::uint8_t> file_bytes(const std::string& path);

/// `file_bytes`, its InputError beginning with the path.
std::vector<std::uint8_t> read_file(const std::string& path);

/// Any bytes as a file, written beside it and renamed. Throws InputError when it cannot be written.
void write_file(const std::string& path, const void* data, std::size_t size);

}  // namespace edgerecall

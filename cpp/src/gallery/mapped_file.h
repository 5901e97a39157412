// A file's bytes without reading them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace edgerecall {

/// A file mapped to be read. It stays readable when it is removed meanwhile.
class MappedFile {
 public:
  /// Throws InputError, which begins with the path, unless it is a file of this many bytes, at least one.
  MappedFile(const std::string& path, std::uint64_t bytes);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr; }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace edgerecall

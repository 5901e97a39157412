// A file of a gallery's rows.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "edgerecall/disk_gallery.h"
#include "gallery/mapped_file.h"

namespace edgerecall {

/// The first 8 bytes of a text's SHA-256, little-endian: finds an id among many.
std::uint64_t text_hash(const std::string& text);

/// What the manifest says of it.
struct SegmentEntry {
  std::string path;
  std::uint64_t bytes = 0;
  std::size_t rows = 0;
  std::string removed;  // a file with a bit a row; empty where none was removed
};

/// Rows in a file of the safetensors format, mapped.
class Segment {
 public:
  /// Throws InputError for a damaged header, or arrays of other types and shapes.
  Segment(const SegmentEntry& entry, Storage storage, std::size_t dim);
  Segment(Segment&&) = default;

  StoredRows searched() const;
  DiskGallery::Row row(std::size_t number) const;
  bool gone(std::size_t number) const;
  /// `text_hash` of each row's id.
  std::uint64_t id_hash(std::size_t number) const;

 private:
  struct Array {
    std::string type;
    std::vector<std::size_t> shape;
    const std::uint8_t* data = nullptr;
  };
  void read_header();
  const Array& array(const std::string& name, const std::string& type, const std::vector<std::size_t>& shape) const;
  std::string text(const std::string& offsets, const std::string& data, std::size_t number) const;

  std::string path_;
  MappedFile file_;
  std::unique_ptr<MappedFile> removed_;
  std::map<std::string, Array> arrays_;
  StoredRows rows_;
};

}  // namespace edgerecall

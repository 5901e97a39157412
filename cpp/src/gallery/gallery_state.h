// What a gallery in a folder consists of, as it was opened.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json_text.h"
#include "edgerecall/disk_gallery.h"
#include "gallery/segment.h"

namespace edgerecall {

constexpr const char* kGalleryFile = "gallery.json";
constexpr std::size_t kMostRows = (1u << 31) - 1, kManifestBytes = 1 << 24;  // as in Python

struct DiskGallery::State {
  State(const std::string& folder, const std::string& text);

  std::string root;
  Json manifest;
  Storage storage = Storage::float32;
  std::size_t dim = 0, rows = 0;
  std::vector<Segment> segments;
  std::vector<StoredRows> parts;
  std::vector<std::int64_t> firsts;  // of each segment's rows, and behind the last
};

}  // namespace edgerecall

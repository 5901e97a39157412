#pragma once
#include <string>

#include "edgerecall/preprocess.h"

namespace edgerecall {

struct ParsedPreprocess {
  bool apply_exif = false;
  Geometry geometry;
  Normalize normalize;
  ImageSize output;
};

ParsedPreprocess parse_preprocess(const std::string& json);

}  // namespace edgerecall

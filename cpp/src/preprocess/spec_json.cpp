// The spec's preprocessing from JSON. Every key is checked: a spec that says more than is understood is refused.
#include <cmath>
#include <limits>

#include "edgerecall/error.h"
#include "edgerecall/preprocess.h"
#include "base/schema.h"
#include "edgerecall_contract.h"

namespace edgerecall {
namespace {

[[noreturn]] void fail(const std::string& what) { throw InputError("preprocess: " + what); }

std::string text(const Json& op, const char* key) { return op.at(key).get<std::string>(); }

int side(const Json& op, const char* key) { return op.at(key).get<int>(); }

float number(const Json& value) { return static_cast<float>(value.get<double>()); }

Resampling resampling_of(const Json& op) { return resampling(text(op, "backend"), text(op, "filter")); }

GeometryOp geometry_op(const Json& op) {
  const std::string name = text(op, "op");
  if (name == "resize_short") return ResizeShort{resampling_of(op), side(op, "size"), text(op, "rounding") == "round"};
  if (name == "resize") return ResizeExact{resampling_of(op), {side(op, "height"), side(op, "width")}};
  if (name == "center_crop") return CenterCrop{{side(op, "height"), side(op, "width")}, text(op, "margin") == "round"};
  fail("expected decode first, one or more resizes or crops, and normalize last");
}

Normalize normalize_op(const Json& op) {
  if (text(op, "op") != "normalize") fail("expected normalize last");
  Normalize rule;
  rule.scale = number(op.at("scale"));
  for (std::size_t channel = 0; channel < 3; ++channel) {
    rule.mean[channel] = number(op.at("mean").at(channel));
    rule.std[channel] = number(op.at("std").at(channel));
  }
  for (float value : rule.std)
    if (!(std::fabs(value) >= std::numeric_limits<float>::min())) fail("std: expected numbers other than 0");
  for (float value : {rule.scale, rule.mean[0], rule.mean[1], rule.mean[2], rule.std[0], rule.std[1], rule.std[2]})
    if (!(std::fabs(value) <= static_cast<float>(contract::kLargestFactor)))
      fail("scale, mean, std: too large a number");
  rule.bgr = text(op, "order") == "bgr";
  return rule;
}

Json parsed(const std::string& json) {
  Json value = parse_json(json);
  if (value.is_discarded()) fail("not valid JSON");
  return value;
}

std::vector<GeometryOp> geometry_ops(const Json& ops, std::size_t begin, std::size_t end) {
  std::vector<GeometryOp> parsed;
  for (std::size_t index = begin; index < end; ++index) parsed.push_back(geometry_op(ops[index]));
  return parsed;
}

ImageSize fixed_size(const GeometryOp& op) {
  if (const auto* exact = std::get_if<ResizeExact>(&op)) return exact->size;
  if (const auto* crop = std::get_if<CenterCrop>(&op)) return crop->size;
  fail("expected the last resize or crop to give a fixed size");
}

}  // namespace

Geometry parse_geometry(const std::string& json) {
  Json ops = parsed(json);
  if (!ops.is_array() || ops.empty()) fail("expected a list of resizes and crops");
  for (Json& op : ops) apply_schema(op, "preprocess", {"$defs", "Preprocess", "properties", "ops", "items"});
  return Geometry(geometry_ops(ops, 0, ops.size()));
}

Preprocess::Preprocess(const std::string& json) {
  Json object = parsed(json);
  apply_schema(object, "preprocess", {"$defs", "Preprocess"});
  const Json& ops = object.at("ops");
  if (ops.size() < 3) fail("expected decode first, one or more resizes or crops, and normalize last");
  if (text(ops.front(), "op") != "decode") fail("expected decode first");
  apply_exif_ = text(ops.front(), "exif") == "apply";
  normalize_ = normalize_op(ops.back());
  geometry_ = Geometry(geometry_ops(ops, 1, ops.size() - 1));
  output_ = fixed_size(geometry_.ops().back());
}

}  // namespace edgerecall

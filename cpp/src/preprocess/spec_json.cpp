// The spec's preprocessing from JSON. Every key is checked: a spec that says more than is understood is refused.
#include <cmath>
#include <limits>

#include "edgerecall/error.h"
#include "edgerecall/preprocess.h"
#include "base/json_fields.h"
#include "edgerecall_contract.h"

namespace edgerecall {
namespace {

[[noreturn]] void fail(const std::string& what) { throw InputError("preprocess: " + what); }

Fields fields_of(const Json& op, std::initializer_list<const char*> known) { return {"preprocess", op, known}; }

std::string name_of(const Json& op) {
  if (!op.is_object() || !op.contains("op") || !op["op"].is_string())
    fail("expected operations with a name under 'op'");
  return op["op"].get<std::string>();
}

Resampling resampling_of(const Fields& fields) {
  return resampling(fields.text("backend", {"pil", "pil12", "cv2"}),
                    fields.text("filter", {"nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "area"}));
}

GeometryOp geometry_op(const Json& op) {
  const std::string name = name_of(op);
  if (name == "resize_short") {
    const Fields fields = fields_of(op, EDGERECALL_RESIZESHORT_KEYS);
    return ResizeShort{resampling_of(fields), fields.side("size"),
                       fields.text("rounding", {"truncate", "round"}) == "round"};
  }
  if (name == "resize") {
    const Fields fields = fields_of(op, EDGERECALL_RESIZEEXACT_KEYS);
    return ResizeExact{resampling_of(fields), {fields.side("height"), fields.side("width")}};
  }
  if (name == "center_crop") {
    const Fields fields = fields_of(op, EDGERECALL_CENTERCROP_KEYS);
    return CenterCrop{{fields.side("height"), fields.side("width")},
                      fields.text("margin", {"round", "floor"}) == "round"};
  }
  fail("unknown operation " + in_quotes(name));
}

Normalize normalize_op(const Json& op) {
  if (name_of(op) != "normalize") fail("expected normalize last");
  const Fields fields = fields_of(op, EDGERECALL_NORMALIZE_KEYS);
  Normalize rule;
  rule.scale = fields.number("scale");
  fields.triple("mean", rule.mean);
  fields.triple("std", rule.std);
  for (float value : rule.std)
    if (!(std::fabs(value) >= std::numeric_limits<float>::min())) fail("std: expected numbers other than 0");
  for (float value : {rule.scale, rule.mean[0], rule.mean[1], rule.mean[2], rule.std[0], rule.std[1], rule.std[2]})
    if (!(std::fabs(value) <= static_cast<float>(contract::kLargestFactor)))
      fail("scale, mean, std: too large a number");
  rule.bgr = fields.text("order", {"rgb", "bgr"}) == "bgr";
  return rule;
}

bool decode_op(const Json& op) {
  if (name_of(op) != "decode") fail("expected decode first");
  return fields_of(op, EDGERECALL_DECODE_KEYS).text("exif", {"ignore", "apply"}) == "apply";
}

Json parsed(const std::string& text) {
  Json json = parse_json(text);
  if (json.is_discarded()) fail("not valid JSON");
  return json;
}

constexpr std::size_t kMaxOps = 64;

std::vector<GeometryOp> geometry_ops(const Json& ops, std::size_t begin, std::size_t end) {
  if (end - begin > kMaxOps) fail("more than " + std::to_string(kMaxOps) + " operations");
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
  const Json ops = parsed(json);
  if (!ops.is_array() || ops.empty()) fail("expected a list of resizes and crops");
  return Geometry(geometry_ops(ops, 0, ops.size()));
}

Preprocess::Preprocess(const std::string& json) {
  const Json object = parsed(json);
  if (!object.is_object() || object.size() != 1 || !object.contains("ops") || !object["ops"].is_array())
    fail("expected an object with a list under 'ops' alone");
  const Json& ops = object["ops"];
  if (ops.size() < 3) fail("expected decode first, one or more resizes or crops, and normalize last");
  apply_exif_ = decode_op(ops.front());
  geometry_ = Geometry(geometry_ops(ops, 1, ops.size() - 1));
  normalize_ = normalize_op(ops.back());
  output_ = fixed_size(geometry_.ops().back());
}

}  // namespace edgerecall

// The spec's preprocessing from JSON. Every key is checked: a spec that says more than is understood is refused.
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "edgerecall/error.h"
#include "edgerecall/preprocess.h"

namespace edgerecall {
namespace {

using Json = nlohmann::json;

constexpr int kMaxSide = 8192;

[[noreturn]] void fail(const std::string& what) { throw InputError("preprocess: " + what); }

/// The beginning of a foreign text, fit to print.
std::string quoted(const std::string& text) {
  std::string shown = text.substr(0, 40);
  for (char& letter : shown)
    if (letter < ' ' || letter > '~') letter = '?';
  return "'" + shown + "'";
}

/// An operation's object: typed access, and no key left over.
class Fields {
 public:
  Fields(const Json& object, std::initializer_list<const char*> known) : object_(object) {
    if (!object.is_object()) fail("expected an operation as an object, got " + std::string(object.type_name()));
    for (const auto& [key, value] : object.items()) {
      bool found = false;
      for (const char* name : known) found = found || key == name;
      if (!found) fail("unknown key " + quoted(key));
    }
  }

  std::string text(const char* key, std::initializer_list<const char*> allowed) const {
    const Json& value = at(key);
    if (!value.is_string()) fail(std::string(key) + ": expected a string");
    const auto& found = value.get_ref<const std::string&>();
    for (const char* name : allowed)
      if (found == name) return found;
    fail(std::string(key) + ": unknown value " + quoted(found));
  }

  int side(const char* key) const {
    const Json& value = at(key);
    if (value.is_number_integer()) {
      const bool small = value.is_number_unsigned() ? value.get<std::uint64_t>() <= kMaxSide : false;
      if (small && value.get<std::uint64_t>() >= 1) return value.get<int>();
    }
    fail(std::string(key) + ": expected a whole number from 1 to " + std::to_string(kMaxSide));
  }

  float number(const char* key) const { return number(at(key), key); }

  void triple(const char* key, float* out) const {
    const Json& value = at(key);
    if (!value.is_array() || value.size() != 3) fail(std::string(key) + ": expected three numbers");
    for (std::size_t index = 0; index < 3; ++index) out[index] = number(value[index], key);
  }

 private:
  const Json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(std::string("'") + key + "' is missing");
    return *found;
  }
  static float number(const Json& value, const char* key) {
    if (!value.is_number()) fail(std::string(key) + ": expected a number");
    return static_cast<float>(value.get<double>());
  }

  const Json& object_;
};

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
    const Fields fields(op, {"op", "backend", "filter", "size", "rounding"});
    return ResizeShort{resampling_of(fields), fields.side("size"),
                       fields.text("rounding", {"truncate", "round"}) == "round"};
  }
  if (name == "resize") {
    const Fields fields(op, {"op", "backend", "filter", "height", "width"});
    return ResizeExact{resampling_of(fields), {fields.side("height"), fields.side("width")}};
  }
  if (name == "center_crop") {
    const Fields fields(op, {"op", "height", "width", "margin"});
    return CenterCrop{{fields.side("height"), fields.side("width")},
                      fields.text("margin", {"round", "floor"}) == "round"};
  }
  fail("unknown operation " + quoted(name));
}

Normalize normalize_op(const Json& op) {
  if (name_of(op) != "normalize") fail("expected normalize last");
  const Fields fields(op, {"op", "scale", "mean", "std", "order"});
  Normalize rule;
  rule.scale = fields.number("scale");
  fields.triple("mean", rule.mean);
  fields.triple("std", rule.std);
  for (float value : rule.std)
    if (!(value != 0.0f)) fail("std: expected numbers other than 0");
  rule.bgr = fields.text("order", {"rgb", "bgr"}) == "bgr";
  return rule;
}

bool decode_op(const Json& op) {
  if (name_of(op) != "decode") fail("expected decode first");
  return Fields(op, {"op", "exif"}).text("exif", {"ignore", "apply"}) == "apply";
}

Json parse_json(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
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
  const Json ops = parse_json(json);
  if (!ops.is_array() || ops.empty()) fail("expected a list of resizes and crops");
  return Geometry(geometry_ops(ops, 0, ops.size()));
}

Preprocess::Preprocess(const std::string& json) {
  const Json object = parse_json(json);
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

// The one place where JSON is parsed and written: each other would cost 30 kB.
#include "base/json_fields.h"

namespace edgerecall {

Json parse_json(const std::string& text) {
  constexpr int kDeepest = 64;  // writing a value again takes a call for each level
  bool deep = false;
  const auto watch = [&deep](int depth, Json::parse_event_t, Json&) {
    deep = deep || depth > kDeepest;
    return !deep;
  };
  Json json = Json::parse(text, watch, false);
  return deep ? Json(Json::value_t::discarded) : json;
}

std::string to_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace edgerecall

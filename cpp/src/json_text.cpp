// The one place where JSON is parsed and written: each other would cost 30 kB.
#include "json_fields.h"

namespace edgerecall {

Json parse_json(const std::string& text) { return Json::parse(text, nullptr, false); }

std::string to_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace edgerecall

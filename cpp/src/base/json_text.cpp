// The one place where JSON is parsed and written: each other would cost 30 kB.
#include "base/json_fields.h"
#include "edgerecall_contract.h"

namespace edgerecall {
namespace {

/// Whether brackets outside of strings are too many within each other: writing a value again takes a call for each.
bool is_deep(const std::string& text) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char letter = text[at];
    if (quoted && letter == '\\') ++at;
    if (letter == '"') quoted = !quoted;
    if (quoted) continue;
    if (letter == '[' || letter == '{') ++depth;
    if (letter == ']' || letter == '}') --depth;
    if (depth > contract::kJsonDepth) return true;
  }
  return false;
}

}  // namespace

Json parse_json(const std::string& text) {
  const bool marked = text.compare(0, 3, "\xEF\xBB\xBF") == 0;
  // The parser takes a NUL for the end.
  if (marked || text.find('\0') != std::string::npos || is_deep(text)) return {Json::value_t::discarded};
  return Json::parse(text, nullptr, false);
}

std::string to_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace edgerecall

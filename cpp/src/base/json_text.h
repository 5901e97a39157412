// JSON from outside.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace edgerecall {

using Json = nlohmann::json;

/// Discarded where Python's `parse_json` refuses the text: no JSON, a key given twice, nested too deeply, or numbers
/// beyond a double.
Json parse_json(const std::string& text);

/// On one line, or indented. Bytes that are no UTF-8, as a file's name may hold, are replaced.
std::string to_text(const Json& json, int indent = -1);

/// The beginning of a foreign text, fit to print.
inline std::string in_quotes(const std::string& text) {
  std::string shown = text.substr(0, 40);
  for (char& letter : shown)
    if (letter < ' ' || letter > '~') letter = '?';
  return "'" + shown + "'";
}

}  // namespace edgerecall

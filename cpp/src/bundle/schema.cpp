// The keywords of JSON Schema that pydantic writes for the manifest; any other is an error of ours.
#include "bundle/schema.h"

#include <algorithm>
#include <stdexcept>

#include "edgerecall_contract.h"

namespace edgerecall {
namespace {

bool is_word(char letter, const char* also) {
  return (letter >= 'A' && letter <= 'Z') || (letter >= 'a' && letter <= 'z') || (letter >= '0' && letter <= '9') ||
         letter == '_' || std::string(also).find(letter) != std::string::npos;
}

/// One or more words of `also` and letters, digits and underscores, each begun by one of these, with slashes between.
bool is_path(const std::string& text, const char* also, bool slashes) {
  bool begins = true;
  for (const char letter : text) {
    if (letter == '/' ? begins || !slashes : !is_word(letter, begins ? "" : also)) return false;
    begins = letter == '/';
  }
  return !begins;
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

/// The manifest's patterns, known by their text: `std::regex` would be a fifth of the program.
bool matches(const std::string& text, const std::string& pattern) {
  if (pattern == "^[A-Za-z0-9_][A-Za-z0-9_.+-]*$") return is_path(text, ".+-", false);
  if (pattern == "^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$") return is_path(text, ".-", true);
  if (pattern == "^[0-9a-f]{64}$") return is_sha256(text);
  throw std::logic_error("schema: unknown pattern " + pattern);
}

std::size_t letters(const std::string& utf8) {
  return static_cast<std::size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char letter) { return (letter & 0xC0) != 0x80; }));
}

bool has_type(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  throw std::logic_error("schema: unknown type " + type);
}

class Schema {
 public:
  Schema() : root_(Json::parse(contract::kManifestSchema)) {}

  void apply(Json& manifest, const std::string& where) const { apply(root_, manifest, where + ": ", ""); }

 private:
  [[noreturn]] static void fail(const std::string& where, const std::string& at, const std::string& what) {
    throw InputError(where + (at.empty() ? "the manifest" : at) + ": " + what);
  }

  const Json& referred(const Json& reference) const {
    return root_["$defs"][reference.get<std::string>().substr(std::string("#/$defs/").size())];
  }

  void apply(const Json& schema, Json& value, const std::string& where, const std::string& at) const {
    if (schema.contains("type") && !has_type(value, schema["type"].get<std::string>()))
      fail(where, at, "expected " + schema["type"].get<std::string>() + ", got " + value.type_name());
    for (const auto& [keyword, rule] : schema.items()) {
      if (keyword == "$ref") {
        apply(referred(rule), value, where, at);
      } else if (keyword == "oneOf") {
        apply(chosen(schema, value, where, at), value, where, at);
      } else if (keyword == "anyOf") {  // something or null
        if (!value.is_null()) apply(rule[0], value, where, at);
      } else if (keyword == "enum") {
        if (std::find(rule.begin(), rule.end(), value) == rule.end()) fail(where, at, "unknown value " + shown(value));
      } else if (keyword == "const") {
        if (value != rule) fail(where, at, "unknown value " + shown(value));
      } else if (keyword == "pattern") {
        if (!matches(value.get<std::string>(), rule.get<std::string>()))
          fail(where, at, "not in the form that is expected there: " + shown(value));
      } else if (keyword == "maxLength") {
        if (letters(value.get<std::string>()) > rule.get<std::size_t>()) fail(where, at, "too long a text");
      } else if (keyword == "minimum" || keyword == "maximum") {
        if (keyword == "minimum" ? value < rule : value > rule) fail(where, at, "out of range: " + shown(value));
      } else if (keyword == "minItems" || keyword == "maxItems") {
        if (keyword == "minItems" ? value.size() < rule : value.size() > rule)
          fail(where, at, "expected another number of values");
      } else if (keyword == "items" || keyword == "prefixItems") {
        for (std::size_t index = 0; index < value.size(); ++index)
          apply(rule.is_array() ? rule[index] : rule, value[index], where, at + "[" + std::to_string(index) + "]");
      } else if (keyword == "properties") {
        apply_object(schema, value, where, at);
      } else if (keyword == "additionalProperties" && rule.is_object()) {
        for (auto& [key, inner] : value.items()) apply(rule, inner, where, at + "." + in_quotes(key));
      } else if (!is_said(keyword)) {
        throw std::logic_error("schema: unknown keyword " + keyword);
      }
    }
  }

  /// What is read elsewhere, or tells people something.
  static bool is_said(const std::string& keyword) {
    for (const char* one :
         {"$defs", "additionalProperties", "default", "description", "discriminator", "required", "title", "type"})
      if (keyword == one) return true;
    return false;
  }

  const Json& chosen(const Json& schema, const Json& value, const std::string& where, const std::string& at) const {
    const Json& by = schema["discriminator"];
    const auto name = by["propertyName"].get<std::string>();
    if (!value.is_object() || !value.contains(name) || !value[name].is_string())
      fail(where, at, "expected an object with '" + name + "'");
    const auto found = by["mapping"].find(value[name].get<std::string>());
    if (found == by["mapping"].end()) fail(where, at + "." + name, "unknown value " + shown(value[name]));
    return referred(*found);
  }

  void apply_object(const Json& schema, Json& value, const std::string& where, const std::string& at) const {
    const Json& properties = schema["properties"];
    for (const auto& [key, inner] : value.items()) {
      const auto known = properties.find(key);
      if (known == properties.end()) fail(where, at, "unknown key " + in_quotes(key));
      apply(*known, inner, where, at.empty() ? key : at + "." + key);
    }
    for (const auto& [key, rule] : properties.items()) {
      if (value.contains(key)) continue;
      if (!rule.contains("default")) fail(where, at, "'" + key + "' is missing");
      value[key] = rule["default"];
    }
  }

  static std::string shown(const Json& value) { return in_quotes(to_text(value)); }

  const Json root_;
};

}  // namespace

void apply_manifest_schema(Json& manifest, const std::string& where) { Schema().apply(manifest, where); }

}  // namespace edgerecall

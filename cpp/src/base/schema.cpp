// The keywords of JSON Schema that pydantic writes; any other is an error of ours.
#include "base/schema.h"

#include <algorithm>
#include <stdexcept>

#include "edgerecall/error.h"
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

/// A pattern of the schema, known by its text: `std::regex` would be a fifth of the program.
struct Pattern {
  const char* text;
  const char* expected;
  bool (*matches)(const std::string&);
};

constexpr Pattern kPatterns[] = {
    {"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", "a name", [](const std::string& text) { return is_path(text, ".+-", false); }},
    {"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", "a path inside the bundle",
     [](const std::string& text) { return is_path(text, ".-", true); }},
    {"^[0-9a-f]{64}$", "a SHA-256", is_sha256},
};

const Pattern& pattern_of(const std::string& text) {
  for (const Pattern& one : kPatterns)
    if (text == one.text) return one;
  throw std::logic_error("schema: unknown pattern " + text);
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
  Schema() : root_(parse_json(contract::kManifestSchema)) {}

  void apply(Json& value, const std::string& where, std::initializer_list<const char*> path) const {
    const Json* part = &root_;
    for (const char* key : path) part = &part->at(key);
    apply(*part, value, where + ": ", "");
  }

 private:
  [[noreturn]] static void fail(const std::string& where, const std::string& at, const std::string& what) {
    throw InputError(where + at + (at.empty() ? "" : ": ") + what);
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
        const Pattern& form = pattern_of(rule.get<std::string>());
        if (!form.matches(value.get<std::string>()))
          fail(where, at, std::string("expected ") + form.expected + ", got " + shown(value));
      } else if (keyword == "maxLength") {
        if (letters(value.get<std::string>()) > rule.get<std::size_t>()) fail(where, at, "too long a text");
      } else if (keyword == "minimum" || keyword == "maximum") {
        const auto number = value.get<double>(), bound = rule.get<double>();
        if (keyword == "minimum" ? number < bound : number > bound) fail(where, at, range(schema) + shown(value));
      } else if (keyword == "minItems" || keyword == "maxItems") {
        if (keyword == "minItems" ? value.size() < rule.get<std::size_t>() : value.size() > rule.get<std::size_t>())
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
    if (found == by["mapping"].end())
      fail(where, at + (at.empty() ? "" : ".") + name, "unknown value " + shown(value[name]));
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

  static std::string range(const Json& schema) {
    return "expected a whole number from " + to_text(schema.at("minimum")) + " to " + to_text(schema.at("maximum")) +
           ", got ";
  }

  static std::string shown(const Json& value) {
    return in_quotes(value.is_string() ? value.get<std::string>() : to_text(value));
  }

  const Json root_;
};

}  // namespace

void apply_schema(Json& value, const std::string& where, std::initializer_list<const char*> path) {
  static const Schema schema;
  schema.apply(value, where, path);
}

}  // namespace edgerecall

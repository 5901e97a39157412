// Typed access to a JSON object from outside: an object that says more than is understood is refused.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "edgerecall/error.h"

namespace edgerecall {

using Json = nlohmann::json;

/// Discarded where the text is no JSON, or nested more than 64 deep.
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

/// An object's values by key. `where` begins every message of its InputErrors.
class Fields {
 public:
  static constexpr int kMaxSide = 8192;

  /// Refuses what is no object, and keys that are not `known`.
  Fields(std::string where, const Json& object, std::initializer_list<const char*> known)
      : where_(std::move(where)), object_(object) {
    if (!object.is_object()) fail("expected an object, got " + std::string(object.type_name()));
    for (const auto& [key, value] : object.items()) {
      bool found = false;
      for (const char* name : known) found = found || key == name;
      if (!found) fail("unknown key " + in_quotes(key));
    }
  }

  bool has(const char* key) const { return object_.contains(key); }

  const Json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(std::string("'") + key + "' is missing");
    return *found;
  }

  std::string text(const char* key) const {
    const Json& value = at(key);
    if (!value.is_string()) fail(std::string(key) + ": expected a string");
    return value.get<std::string>();
  }

  std::string text(const char* key, std::initializer_list<const char*> allowed) const {
    const std::string found = text(key);
    for (const char* name : allowed)
      if (found == name) return found;
    fail(std::string(key) + ": unknown value " + in_quotes(found));
  }

  /// A whole number from 1 to `most`.
  std::uint64_t whole(const Json& value, const char* key, std::uint64_t most) const {
    if (value.is_number_unsigned()) {
      const auto number = value.get<std::uint64_t>();
      if (number >= 1 && number <= most) return number;
    }
    fail(std::string(key) + ": expected a whole number from 1 to " + std::to_string(most));
  }

  int side(const char* key) const { return static_cast<int>(whole(at(key), key, kMaxSide)); }

  bool flag(const char* key) const {
    if (!at(key).is_boolean()) fail(std::string(key) + ": expected true or false");
    return at(key).get<bool>();
  }

  float number(const char* key) const { return number(at(key), key); }

  const Json& list(const char* key) const {
    if (!at(key).is_array()) fail(std::string(key) + ": expected a list");
    return at(key);
  }

  void triple(const char* key, float* out) const {
    const Json& value = list(key);
    if (value.size() != 3) fail(std::string(key) + ": expected three numbers");
    for (std::size_t index = 0; index < 3; ++index) out[index] = number(value[index], key);
  }

  [[noreturn]] void fail(const std::string& what) const { throw InputError(where_ + ": " + what); }

 private:
  float number(const Json& value, const char* key) const {
    if (!value.is_number()) fail(std::string(key) + ": expected a number");
    return static_cast<float>(value.get<double>());
  }

  std::string where_;
  const Json& object_;
};

}  // namespace edgerecall

// The one place where JSON is parsed and written: each other would cost 30 kB.
#include <utility>
#include <vector>

#include "base/json_text.h"
#include "edgerecall_contract.h"

namespace edgerecall {
namespace {

/// Builds the value; stops where brackets are too many within each other: writing a value takes a call for each.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    const std::size_t before = open_.back()->size();
    slot_ = &(*open_.back())[name];
    return open_.back()->size() > before;  // not given twice
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  Json* place(Json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_object()) return &(*slot_ = std::move(value));
    open_.back()->push_back(std::move(value));
    return &open_.back()->back();
  }

  bool put(Json value) { return place(std::move(value)) != nullptr; }

  bool open(Json value) {
    open_.push_back(place(std::move(value)));
    return open_.size() <= static_cast<std::size_t>(contract::kJsonDepth);
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Json*> open_;
  Json* slot_ = nullptr;  // of the last key
};

}  // namespace

Json parse_json(const std::string& text) {
  Builder builder;
  const bool marked = text.compare(0, 3, "\xEF\xBB\xBF") == 0;
  // The parser takes a NUL for the end.
  const bool plain = !marked && text.find('\0') == std::string::npos;
  return plain && Json::sax_parse(text, &builder) ? builder.take() : Json(Json::value_t::discarded);
}

std::string to_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace edgerecall

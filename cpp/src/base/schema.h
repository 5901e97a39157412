#pragma once
#include <initializer_list>
#include <string>

#include "base/json_text.h"

namespace edgerecall {

/// A value against `bundle.schema.json`, in which Python's reader is written down, or the part of it under `path`.
/// Throws InputError, which begins with `where`, for what is not allowed; adds the defaults of keys that are not there.
void apply_schema(Json& value, const std::string& where, std::initializer_list<const char*> path = {});

}  // namespace edgerecall

#pragma once
#include <string>

#include "base/json_fields.h"

namespace edgerecall {

/// A manifest against `bundle.schema.json`, which Python's reader is written down in: InputError, which begins with
/// `where`, for what it does not allow. Adds the defaults of keys that are not there.
void apply_manifest_schema(Json& manifest, const std::string& where);

}  // namespace edgerecall

// bundle.json: its schema, and what no schema says.
#include <set>

#include "edgerecall/bundle.h"
#include "edgerecall/error.h"
#include "base/schema.h"
#include "edgerecall_contract.h"

namespace edgerecall {
namespace {

constexpr int kOldFormat = contract::kOldestBundleFormat;
constexpr char kOldVectors[] = "golden/golden.npz";

/// Format 1 called the quantisation of an artifact its precision.
void rename_precision(Json& manifest) {
  const auto artifacts = manifest.find("artifacts");
  if (artifacts == manifest.end() || !artifacts->is_array()) return;
  for (Json& artifact : *artifacts) {
    if (!artifact.is_object() || !artifact.contains("precision") || artifact.contains("quantisation")) continue;
    artifact["quantisation"] = artifact["precision"];
    artifact.erase("precision");
  }
}

std::vector<BundleFile> files_of(const Json& list) {
  std::vector<BundleFile> files;
  for (const Json& file : list)
    files.push_back({file["role"].get<std::string>(), file["path"].get<std::string>(),
                     file["sha256"].get<std::string>(), file["bytes"].get<std::uint64_t>()});
  return files;
}

}  // namespace

Manifest Manifest::parse(const std::string& text, const std::string& where) {
  Json json = parse_json(text);
  if (json.is_discarded()) throw InputError(where + ": not readable as JSON; copy or export the bundle again");
  const Json version = json.is_object() ? json.value("format_version", Json()) : Json();
  if (!version.is_number_integer() || (version != contract::kBundleFormat && version != kOldFormat))
    throw InputError(where + ": this program reads bundle formats " + std::to_string(kOldFormat) + " and " +
                     std::to_string(contract::kBundleFormat) + ": update it or export the bundle again");
  if (version == kOldFormat) rename_precision(json);
  apply_schema(json, where);

  Manifest manifest;
  const Json& spec = json["spec"];
  manifest.format = version.get<int>();
  manifest.io.input_name = spec["input_name"].get<std::string>();
  manifest.io.embedding_dim = spec["embedding_dim"].get<std::size_t>();
  manifest.normalize_embedding = spec["normalize_embedding"].get<bool>();
  try {
    manifest.preprocess = std::make_shared<const Preprocess>(to_text(spec["preprocess"]));
  } catch (const InputError& error) {
    throw InputError(where + ": spec." + error.what());
  }
  const ImageSize size = manifest.preprocess->output();
  if (spec["input_shape"] != Json({3, size.height, size.width}))
    throw InputError(where + ": spec.input_shape: expected what the preprocessing gives");
  manifest.io.input_shape = {3, size.height, size.width};
  manifest.golden = files_of(json["golden"]);
  manifest.golden_images = json["golden_images"].get<std::vector<std::string>>();
  std::vector<std::string> needed = manifest.golden_images;
  if (manifest.has_vectors()) {
    needed.insert(needed.end(), {kTensors, kEmbeddings});
  } else {
    needed.emplace_back(kOldVectors);
  }
  std::set<std::string> hashed;
  for (const BundleFile& file : manifest.golden) hashed.insert(file.path);
  for (const std::string& name : needed)
    if (hashed.count(name) == 0) throw InputError(where + ": golden: no hash of " + in_quotes(name));
  for (const Json& one : json["artifacts"])
    manifest.artifacts.push_back({one["name"].get<std::string>(), one["runtime"].get<std::string>(),
                                  one["quantisation"].get<std::string>(),
                                  one["targets"].get<std::vector<std::string>>(), files_of(one["files"])});
  return manifest;
}

}  // namespace edgerecall

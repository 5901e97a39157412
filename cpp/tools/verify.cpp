#include <cstdio>

#include "edgerecall/machine.h"
#include "base/files.h"
#include "base/json_text.h"
#include "edgerecall_contract.h"
#include "session.h"
#include "verbs.h"

namespace edgerecall::device {
namespace {

Json verdict(const Bundle& bundle, const Golden& golden, const std::string& runtime, const Artifact& artifact,
             const RunOptions& options) {
  const auto predictor = open_predictor(runtime, bundle.files(artifact), bundle.io(), options);
  const std::size_t dim = bundle.io().embedding_dim;
  const RuntimeInfo& info = predictor->info();
  const auto executed = predictor->execution_record(golden.tensors.data(), 1);
  const std::string precision = executed ? executed->precision : info.precision;
  const Comparison alone =
      compare(embed_one_by_one(*predictor, golden.tensors), golden.embeddings, dim, precision, artifact.quantisation);
  const Comparison whole = compare(predictor->embed(golden.tensors.data(), golden.images.size()), golden.embeddings,
                                   dim, precision, artifact.quantisation);
  const std::string problem = precision_problem(artifact.quantisation, name_of(options.precision), precision);
  return {{"runtime", runtime},
          {"quantisation", artifact.quantisation},
          {"version", info.version},
          {"precision", precision},
          {"threads", info.threads},
          {"min_cosine", alone.min_cosine},
          {"max_error", alone.max_error},
          {"max_error_in_batch", whole.max_error},
          {"tolerance", alone.tolerance},
          {"problem", problem},
          {"holds", alone.holds() && whole.holds() && problem.empty()}};
}

/// A verdict in words.
std::string told(const Json& one) {
  if (one["holds"].get<bool>()) return "ok";
  const std::string problem = one["problem"].get<std::string>();
  return problem.empty() ? "does not hold" : "does not hold: " + problem;
}

int verify(const Arguments& arguments) {
  const Bundle bundle(arguments.bundle());
  bundle.check();
  const Golden golden = bundle.golden();
  bind_to(cpus_of(arguments.text("cpus")));
  const double pixels = golden_pixel_error(bundle, golden);
  Json result = {{"bundle", bundle.root()}, {"images", golden.images.size()}, {"pixel_error", pixels}};
  bool holds = pixels <= contract::kTensorTolerance;
  std::printf("%-12s max difference %.1e%s\n", "pixels", pixels, pixels == 0 ? ", bit for bit" : "");
  result["runtimes"] = Json::array();
  const auto judge = [&](const std::string& runtime, const std::string& quantisation) {
    const std::string name = runtime + (quantisation == "fp32" ? "" : " " + quantisation);
    Json one;
    try {
      one = verdict(bundle, golden, runtime, bundle.artifact(runtime, quantisation),
                    run_options(runtime, arguments.count("threads"), arguments.text("precision"), 1));
      std::printf("%-12s %s, %s, cosine %.7f, max difference %.1e of %.1e: %s\n", name.c_str(),
                  one["version"].get_ref<const std::string&>().c_str(),
                  one["precision"].get_ref<const std::string&>().c_str(), one["min_cosine"].get<double>(),
                  one["max_error"].get<double>(), one["tolerance"].get<double>(), told(one).c_str());
    } catch (const std::runtime_error& error) {
      one = {{"runtime", runtime}, {"quantisation", quantisation}, {"holds", false}, {"problem", error.what()}};
      std::printf("%-12s %s\n", name.c_str(), error.what());
    }
    holds = holds && one["holds"].get<bool>();
    result["runtimes"].push_back(one);
  };
  for (const auto& [runtime, quantisation] : chosen_models(arguments, bundle)) judge(runtime, quantisation);
  if (arguments.flag("json")) {
    const std::string text = to_text(result, 2) + "\n";
    write_file(arguments.text("json"), text.data(), text.size());
  }
  return holds ? 0 : 1;
}

}  // namespace

Verb verify_verb() {
  std::vector<Option> options = model_options("");
  options.push_back({"json", "FILE", "the result as JSON", ""});
  return {"verify", "BUNDLE [options]", "Golden images through every runtime: pixels first, then embeddings.", options,
          verify};
}

}  // namespace edgerecall::device

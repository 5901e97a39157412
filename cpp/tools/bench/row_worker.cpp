#include "bench/row_worker.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "edgerecall/error.h"
#include "clock.h"
#include "base/files.h"
#include "edgerecall/decode.h"
#include "edgerecall/machine.h"
#include "edgerecall/npy.h"
#include "edgerecall/search.h"
#include "images.h"
#include "edgerecall_contract.h"
#include "session.h"

namespace edgerecall::device {
namespace {

using namespace contract;

bool is_steady(const std::vector<double>& medians) {
  if (medians.size() < 3) return false;
  const double last = medians.back();
  return std::all_of(medians.end() - 3, medians.end() - 1,
                     [&](double earlier) { return std::abs(last - earlier) <= kSteady * last; });
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (std::size_t at = 0; at < std::min(a.size(), b.size()); ++at)
    worst = std::max(worst, static_cast<double>(std::abs(a[at] - b[at])));
  return a.size() == b.size() ? worst : std::numeric_limits<double>::infinity();
}

}  // namespace

RowWorker::RowWorker(const Bundle& bundle, const Golden& golden, const RowPlan& plan)
    : bundle_(bundle), golden_(golden), plan_(plan) {
  batch_.resize(batch_size(bundle.io(), static_cast<std::size_t>(plan.batch)));
  for (std::size_t at = 0; at < batch_.size(); ++at) batch_[at] = golden.tensors[at % golden.tensors.size()];
}

Json RowWorker::answer(const Json& command) {
  const std::string step = command.at("do").get<std::string>();
  if (step == "load") return load();
  if (!predictor_) throw RuntimeFailed("no model is open");
  if (step == "warm") return warm_up();
  if (step == "round") return round(command.at("count").get<std::size_t>(), command.at("limit_s").get<double>());
  if (step == "golden") return judge();
  if (step == "embed") return embed(command.at("begin").get<std::size_t>(), command.at("count").get<std::size_t>());
  return finish();
}

Json RowWorker::load() {
  bind_to(plan_.cpus);  // before any thread of the runtime's
  const Artifact& artifact = bundle_.artifact(plan_.runtime, plan_.quantisation);
  const RunOptions options =
      run_options(plan_.runtime, plan_.threads, plan_.precision, static_cast<std::size_t>(plan_.batch));
  const Files files = bundle_.files(artifact);
  std::int64_t start = now_ns();
  predictor_ = open_predictor(plan_.runtime, files, bundle_.io(), options);
  const std::int64_t loaded = now_ns() - start;
  start = now_ns();
  early_ = predictor_->embed(batch_.data(), static_cast<std::size_t>(plan_.batch));
  const std::int64_t first = now_ns() - start;
  const RuntimeInfo& info = predictor_->info();
  Json columns = {{"artifact", artifact.name},
                  {"version", info.version},
                  {"precision", info.precision},
                  {"threads", info.threads > 0 ? Json(info.threads) : Json()},
                  {"size_mb", static_cast<double>(artifact.bytes()) / 1e6},
                  {"load_ms", static_cast<double>(loaded) / 1e6},
                  {"first_ms", static_cast<double>(first) / 1e6},
                  {"cpus", shown(usable_cpus())},
                  {"detail", info.detail}};
  for (const BundleFile& file : artifact.files)
    if (file.role == "model") columns["model_sha256"] = file.sha256;
  return columns;
}

std::vector<std::int64_t> RowWorker::timed(std::size_t count, double limit_s) {
  std::vector<std::int64_t> samples;
  const std::int64_t begin = now_ns();
  while (samples.size() < count && (samples.empty() || static_cast<double>(now_ns() - begin) < limit_s * 1e9)) {
    const std::int64_t start = now_ns();
    predictor_->embed(batch_.data(), static_cast<std::size_t>(plan_.batch));
    samples.push_back(now_ns() - start);
  }
  return samples;
}

Json RowWorker::warm_up() {
  std::vector<double> medians;
  const std::int64_t begin = now_ns();
  std::size_t runs = 0;
  while (!is_steady(medians) && medians.size() < kMostWindows &&
         static_cast<double>(now_ns() - begin) < kWarmUpS * 1e9) {
    const std::vector<std::int64_t> samples = timed(kWindow, kWarmUpS / 3);
    medians.push_back(median(samples));
    runs += samples.size();
  }
  Json columns = {{"warmup_runs", runs}};
  if (medians.size() >= 3 && !is_steady(medians))
    columns["warning"] = "never steady: latency still moved after " + std::to_string(runs) + " warm-up inferences";
  return columns;
}

Json RowWorker::round(std::size_t count, double limit_s) {
  timed(kDiscarded, limit_s);
  const std::int64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), wall = now_ns();
  const std::vector<std::int64_t> samples = timed(count, limit_s);
  return {{"samples_ns", samples},
          {"cpu_ns", clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu},
          {"wall_ns", now_ns() - wall},
          {"peak_rss_mb", memory_mb("VmHWM").value_or(0)}};
}

Json RowWorker::judge() {
  const std::size_t count = golden_.images.size();
  const std::vector<float> alone = embed_one_by_one(*predictor_, golden_.tensors);
  const Comparison check =
      compare(alone, golden_.embeddings, bundle_.io().embedding_dim, predictor_->info().precision, plan_.quantisation);
  Json columns = {{"golden_cosine_min", check.min_cosine},
                  {"golden_max_error", check.max_error},
                  {"batch_max_error", largest_difference(predictor_->embed(golden_.tensors.data(), count), alone)}};
  if (!check.holds()) {
    char text[128];
    std::snprintf(text, sizeof(text), "embeddings differ from the reference: max error %.2e, allowed %.2e",
                  check.max_error, check.tolerance);
    columns["parity"] = text;
  }
  return columns;
}

Json RowWorker::embed(std::size_t begin, std::size_t count) {
  const auto first = plan_.images.begin() + static_cast<std::ptrdiff_t>(begin);
  const Embedded found = embed_images(bundle_, *predictor_, {first, first + static_cast<std::ptrdiff_t>(count)},
                                      static_cast<std::size_t>(plan_.batch), plan_.threads);
  embeddings_.insert(embeddings_.end(), found.rows.begin(), found.rows.end());
  Json bad = Json::array();
  for (std::size_t index = 0; index < found.reason.size(); ++index)
    if (!found.reason[index].empty()) bad.push_back({begin + index, found.reason[index]});
  return {{"bad", bad}};
}

void RowWorker::save() {
  const std::size_t dim = bundle_.io().embedding_dim, rows = embeddings_.size() / dim;
  l2_normalize(embeddings_.data(), rows, dim);  // as the host compares them
  write_npy(plan_.out + ".npy", {rows, dim}, embeddings_.data());
  const std::size_t others = plan_.inputs.size() / bundle_.io().input_size();
  if (others > 0)
    write_npy(plan_.out + "-inputs.npy", {others, dim}, embed_one_by_one(*predictor_, plan_.inputs).data());
}

Json RowWorker::stages() {
  const std::size_t dim = bundle_.io().embedding_dim, rows = std::max<std::size_t>(plan_.images.size(), 1);
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  std::vector<float> made(rows * dim);
  for (float& value : made) value = normal(random);
  Gallery gallery(dim, Storage::float32);
  gallery.add(made.data(), rows);
  std::vector<float> tensor(bundle_.io().input_size());
  std::vector<std::int64_t> neighbours(kNeighbours);
  std::vector<float> similarities(kNeighbours);
  std::map<std::string, std::vector<std::int64_t>> samples;
  for (std::size_t index = 0; index < kStageSamples; ++index) {
    const std::vector<std::uint8_t> bytes = read_file(golden_.images[index % golden_.images.size()]);
    std::int64_t last = now_ns();
    const auto lap = [&](const char* stage) {
      const std::int64_t now = now_ns();
      samples[stage].push_back(now - last);
      last = now;
    };
    const Image image = decode(bytes.data(), bytes.size(), {bundle_.preprocess().apply_exif(), max_pixels()});
    lap("decode");
    bundle_.preprocess().run(image.view(), max_pixels(), TensorType::float32, tensor.data());
    lap("preprocess");
    std::vector<float> embedding = predictor_->embed(tensor.data(), 1);
    lap("inference");
    if (bundle_.normalize_embedding()) l2_normalize(embedding.data(), 1, dim);
    lap("normalise");
    gallery.search(embedding.data(), 1, kNeighbours, 1, neighbours.data(), similarities.data(), {});
    lap("search");
  }
  Json medians;
  for (const auto& [stage, times] : samples) medians[stage] = median(times) / 1e6;
  return medians;
}

Json RowWorker::finish() {
  save();
  const auto count = static_cast<std::size_t>(plan_.batch);
  Json columns = {{"repeat_max_error", largest_difference(predictor_->embed(batch_.data(), count), early_)}};
  if (plan_.batch == 1) columns["stages_ms"] = stages();
  if (const auto told = predictor_->execution_record(batch_.data(), count)) {
    columns["precision"] = told->precision;
    columns["precision_source"] = told->source;
    columns["operators"] = told->operators;
  }
  return columns;
}

}  // namespace edgerecall::device

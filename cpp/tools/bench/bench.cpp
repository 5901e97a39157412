#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>

#include "edgerecall/error.h"
#include "clock.h"
#include "edgerecall/machine.h"
#include "base/files.h"
#include "edgerecall/npy.h"
#include "edgerecall_contract.h"
#include "row_process.h"
#include "bench/row_worker.h"
#include "session.h"
#include "verbs.h"

namespace edgerecall::device {
namespace {

constexpr double kSlowed = 0.9;
constexpr std::size_t kPart = 8;  // batches that are embedded in one step

/// A row as the host's bench knows it, filled step by step, and its process while it answers.
class Row {
 public:
  Row(const Bundle& bundle, const Golden& golden, const RowPlan& plan, double timeout_s)
      : plan_(plan),
        timeout_s_(timeout_s),
        process_(std::make_unique<RowProcess>([&bundle, &golden, &plan]() -> Answer {
          auto worker = std::make_shared<RowWorker>(bundle, golden, plan);
          return [worker](const Json& command) { return worker->answer(command); };
        })) {
    json_ = {{"runtime", plan.runtime},
             {"name", plan.name},
             {"quantisation", plan.quantisation},
             {"requested_precision", plan.precision},
             {"requested_threads", plan.threads},
             {"batch", plan.batch},
             {"status", "ok"},
             {"reason", nullptr},
             {"warnings", Json::array()}};
  }

  bool alive() const { return process_ != nullptr; }
  const std::string& name() const { return plan_.name; }
  const std::vector<int>& cpus() const { return plan_.cpus; }

  /// A step whose answer is columns; `warning` and `parity` among them go where they belong. The rest is given back.
  Json step(const Json& command) {
    if (!alive()) return {};
    Json answer;
    try {
      answer = process_->ask(command, timeout_s_);
      if (answer.contains("error")) {
        end(answer["error"], answer["message"]);
        return {};
      }
    } catch (const RowLost& lost) {
      end("failed", plan_.runtime + ": " + lost.what());
      return {};
    }
    return answer;
  }

  void fill(const Json& command) {
    const Json columns = step(command);
    for (const auto& [key, value] : columns.items()) {
      if (key == "warning") {
        warn(value);
      } else if (key == "parity") {
        complain(value);
      } else {
        json_[key] = value;
      }
    }
  }

  void time(std::size_t count, double limit_s) {
    const Json answer = step({{"do", "round"}, {"count", count}, {"limit_s", limit_s}});
    if (!alive()) return;
    const auto samples = answer["samples_ns"].get<std::vector<std::int64_t>>();
    samples_.insert(samples_.end(), samples.begin(), samples.end());
    medians_.push_back(median(samples));
    cpu_ns_ += answer["cpu_ns"].get<double>();
    wall_ns_ += answer["wall_ns"].get<double>();
    json_["peak_rss_mb"] = answer["peak_rss_mb"];
  }

  void warn(const std::string& text) { json_["warnings"].push_back(text); }

  /// The columns that come from all rounds.
  Json finished() {
    if (!samples_.empty()) {
      const double middle = median(samples_);
      std::vector<std::int64_t> distances;
      double sum = 0;
      for (const std::int64_t sample : samples_) {
        distances.push_back(std::llabs(sample - static_cast<std::int64_t>(middle)));
        sum += static_cast<double>(sample);
      }
      json_["latency_p50_ms"] = middle / 1e6;
      json_["latency_p90_ms"] = percentile(samples_, 90) / 1e6;
      json_["latency_p99_ms"] = percentile(samples_, 99) / 1e6;
      json_["latency_mad_ms"] = median(distances) / 1e6;
      json_["images_per_s"] = plan_.batch * static_cast<double>(samples_.size()) / (sum / 1e9);
      json_["cores_used"] = cpu_ns_ / std::max(wall_ns_, 1.0);
      json_["samples_ns"] = samples_;
      json_["round_medians_ns"] = medians_;
    }
    if (alive()) {
      const std::string problem =
          precision_problem(plan_.quantisation, plan_.precision, json_["precision"].get<std::string>());
      if (!problem.empty()) complain(problem);
    }
    return json_;
  }

 private:
  void complain(const std::string& text) {
    if (json_["status"] != "ok") return;
    json_["status"] = "parity";
    json_["reason"] = text;
  }

  void end(const std::string& status, const std::string& reason) {
    json_["status"] = status;
    json_["reason"] = reason;
    process_.reset();
  }

  const RowPlan& plan_;
  double timeout_s_;
  std::unique_ptr<RowProcess> process_;
  Json json_;
  std::vector<std::int64_t> samples_;
  std::vector<double> medians_;
  double cpu_ns_ = 0, wall_ns_ = 0;
};

/// Temperatures and frequencies over the run; what they say of a throttled CPU.
class ThermalLog {
 public:
  explicit ThermalLog(std::vector<int> cpus) : cpus_(std::move(cpus)) { look(); }

  void look() {
    Json frequencies = Json::object();
    double sum = 0;
    const std::map<int, double> now = frequencies_mhz(cpus_);
    for (const auto& [cpu, mhz] : now) {
      frequencies[std::to_string(cpu)] = mhz;
      sum += mhz / static_cast<double>(now.size());
    }
    if (!now.empty()) fastest_ = std::max(fastest_, sum), last_ = sum;
    looks_.push_back({{"at_ms", (now_ns() - begin_) / 1'000'000},
                      {"temperatures_c", temperatures_c()},
                      {"frequencies_mhz", frequencies}});
  }

  std::string warning() const {
    if (fastest_ == 0 || last_ >= kSlowed * fastest_) return "";
    char text[128];
    std::snprintf(text, sizeof(text), "the CPUs slowed down from %.0f to %.0f MHz while timing: throttled, or idle",
                  fastest_, last_);
    return text;
  }

  const Json& looks() const { return looks_; }

 private:
  std::vector<int> cpus_;
  std::int64_t begin_ = now_ns();
  double fastest_ = 0, last_ = 0;
  Json looks_ = Json::array();
};

std::vector<RowPlan> plans_of(const Arguments& arguments, const Bundle& bundle, const std::string& folder) {
  const auto models = chosen_models(arguments, bundle);
  const std::vector<int> cpus = cpus_of(arguments.text("cpus"));
  const auto precisions = arguments.list("precision");
  const auto threads = arguments.counts("threads"), batches = arguments.counts("batch");
  std::vector<std::string> images;
  if (!arguments.text("list").empty()) images = find_images({}, arguments.text("list"));
  std::vector<float> inputs;
  if (!arguments.text("inputs").empty()) inputs = read_npy(arguments.text("inputs")).values;
  if (inputs.size() % bundle.io().input_size() != 0) throw InputError("--inputs: expected tensors as the model's");
  std::vector<RowPlan> plans;
  for (const std::string& precision : precisions)
    for (const int count : threads)
      for (const int batch : batches)
        for (const auto& [runtime, quantisation] : models) {
          precision_of(precision);
          RowPlan plan{runtime, runtime, quantisation, precision, count,
                       batch,   cpus,    images,       inputs,    folder + "/row-" + std::to_string(plans.size())};
          if (quantisation != "fp32") plan.name += " " + quantisation;
          if (precisions.size() > 1) plan.name += " " + precision;
          if (threads.size() > 1) plan.name += " " + std::to_string(count) + "t";
          if (batches.size() > 1) plan.name += " b" + std::to_string(batch);
          // Bound to as many CPUs as it has threads, the last ones: the first often serve interrupts.
          const auto wanted = static_cast<std::ptrdiff_t>(count);
          if (!arguments.flag("no-pin") && static_cast<std::ptrdiff_t>(cpus.size()) > wanted)
            plan.cpus.assign(cpus.end() - wanted, cpus.end());
          plans.push_back(std::move(plan));
        }
  return plans;
}

/// Ends this process, and with it the rows', when what started it is gone: a connection was cut.
void end_with_input() {
  std::thread([] {
    char byte = 0;
    ssize_t got = 0;
    do got = read(STDIN_FILENO, &byte, 1);
    while (got > 0 || (got < 0 && errno == EINTR));
    constexpr int kCut = 130;
    _exit(kCut);
  }).detach();
}

void say(const std::string& what) {
  if (isatty(STDERR_FILENO) != 0) std::fprintf(stderr, "\r\033[K%s", what.c_str());
}

int bench(const Arguments& arguments) {
  const Bundle bundle(arguments.bundle());
  const Golden golden = bundle.golden();
  const std::string& folder = arguments.text("out");
  if (folder.empty()) throw UsageError("expected --out FOLDER, for the result");
  if (mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST)
    throw InputError("cannot make " + folder + ": " + std::strerror(errno));
  const auto samples = static_cast<std::size_t>(arguments.count("samples"));
  const auto rounds = std::min(static_cast<std::size_t>(arguments.count("rounds")), samples);
  const double limit_s = arguments.seconds("seconds") / static_cast<double>(rounds);
  const double timeout_s = arguments.seconds("timeout-s");
  const std::vector<RowPlan> plans = plans_of(arguments, bundle, folder);
  for (const RowPlan& plan : plans) {  // a changed file ends the run before anything is measured
    const std::vector<std::string> there = bundle.quantisations(plan.runtime);
    if (std::find(there.begin(), there.end(), plan.quantisation) != there.end())
      bundle.files(bundle.artifact(plan.runtime, plan.quantisation));
  }
  const double pixels = golden_pixel_error(bundle, golden);

  ThermalLog thermal_log(plans.front().cpus);
  std::vector<std::unique_ptr<Row>> rows;
  for (const RowPlan& plan : plans) rows.push_back(std::make_unique<Row>(bundle, golden, plan, timeout_s));
  if (arguments.flag("until-eof")) end_with_input();  // threads only now: the rows' processes are forked
  const auto each = [&](const char* what, const Json& command) {
    for (const auto& row : rows) {
      say(std::string(what) + " " + row->name());
      row->fill(command);
    }
  };
  each("loading", {{"do", "load"}});
  each("warming up", {{"do", "warm"}});
  thermal_log.look();
  for (std::size_t number = 0; number < rounds; ++number) {
    say("round " + std::to_string(number + 1) + " of " + std::to_string(rounds));
    const std::size_t share = samples * (number + 1) / rounds - samples * number / rounds;
    for (const auto& row : rows) row->time(share, limit_s);  // A B C A B C: drift falls on all alike
    thermal_log.look();
  }
  const std::string slowed = thermal_log.warning();
  each("golden images,", {{"do", "golden"}});
  Json bad = Json::array();
  const std::size_t images = plans.front().images.size();
  for (std::size_t index = 0; index < rows.size(); ++index) {
    const std::size_t part = kPart * static_cast<std::size_t>(plans[index].batch);
    Json found = Json::array();
    for (std::size_t begin = 0; begin < images && rows[index]->alive(); begin += part) {
      say("embedding images, " + rows[index]->name() + ", " + std::to_string(begin) + " of " + std::to_string(images));
      const Json answer =
          rows[index]->step({{"do", "embed"}, {"begin", begin}, {"count", std::min(part, images - begin)}});
      if (answer.contains("bad")) found.insert(found.end(), answer["bad"].begin(), answer["bad"].end());
    }
    if (rows[index]->alive()) bad = found;  // the same for every row
  }
  each("finishing", {{"do", "finish"}});
  say("");

  Json result = {
      {"schema", contract::kRowSchema},
      {"program", EDGERECALL_VERSION},
      {"machine", {{"target", Bundle::machine()}, {"model", machine_model()}, {"cpus", shown(usable_cpus())}}},
      {"pixel_error", pixels},
      {"bad_images", bad},
      {"thermal_log", thermal_log.looks()},
      {"rows", Json::array()}};
  bool holds = pixels <= contract::kTensorTolerance;
  std::printf("%-28s %9s %9s %9s %8s  %s\n", "row", "p50 ms", "p99 ms", "images/s", "MB", "");
  for (const auto& row : rows) {
    if (!slowed.empty()) row->warn(slowed);
    const Json json = row->finished();
    const auto number = [&](const char* key) { return json.contains(key) ? json[key].get<double>() : std::nan(""); };
    std::printf("%-28s %9.2f %9.2f %9.1f %8.1f  %s\n", row->name().c_str(), number("latency_p50_ms"),
                number("latency_p99_ms"), number("images_per_s"), number("peak_rss_mb"),
                json["status"] == "ok" ? "ok" : json["reason"].get<std::string>().c_str());
    holds = holds && json["status"] == "ok";
    result["rows"].push_back(json);
  }
  const std::string text = to_text(result) + "\n";
  write_file(folder + "/bench.json", text.data(), text.size());
  return holds ? 0 : 1;
}

}  // namespace

Verb bench_verb() {
  std::vector<Option> options = model_options("");
  options.push_back({"batch", "N", "images in one inference", "1"});
  options.push_back({"samples", "N", "timed inferences of a row", "200"});
  options.push_back({"rounds", "N", "over which they are spread, the rows in turns", "10"});
  options.push_back({"seconds", "S", "fewer samples of a row where they take longer", "20"});
  options.push_back({"timeout-s", "S", "for one step of a row", "300"});
  options.push_back({"no-pin", nullptr, "do not bind a row to as many CPUs as it has threads", ""});
  options.push_back({"list", "FILE", "images to embed, one path a line", ""});
  options.push_back({"inputs", "FILE", "tensors to embed, .npy, float32 (n, 3, H, W)", ""});
  options.push_back({"until-eof", nullptr, "end when standard input does", ""});
  options.push_back({"out", "FOLDER", "where bench.json and the embeddings go", ""});
  return {"bench", "BUNDLE --out FOLDER [options]",
          "Latency, memory and embeddings of every runtime; with several threads, precisions or batches, of each.",
          options, bench};
}

}  // namespace edgerecall::device

#include "session.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "edgerecall/error.h"
#include "base/files.h"
#include "base/shared_library.h"
#include "row_process.h"
#include "edgerecall/decode.h"
#include "edgerecall_contract.h"

namespace edgerecall::device {
namespace {

/// Relative to the reference's largest value, of one precision; 0 for one that is not known.
double relative_tolerance(const std::string& precision) {
  if (precision == "fp32") return contract::kFp32Tolerance;
  if (precision == "fp16") return contract::kFp16Tolerance;
  if (precision == "bf16") return contract::kBf16Tolerance;
  if (precision == "int8") return contract::kInt8Tolerance;
  return 0;
}

/// The parts of a precision such as "int8+fp32".
std::vector<std::string> parts_of(const std::string& precision) {
  std::vector<std::string> parts(1);
  for (const char letter : precision) {
    if (letter == '+') {
      parts.emplace_back();
    } else {
      parts.back() += letter;
    }
  }
  return parts;
}

bool ends_with(const std::string& text, const char* end) {
  const std::size_t size = std::strlen(end);
  return text.size() >= size && strcasecmp(text.c_str() + text.size() - size, end) == 0;
}

void add_folder(const std::string& folder, std::vector<std::string>& images) {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(folder.c_str()), closedir);
  if (!listing) throw InputError(folder + ": cannot be listed: " + std::strerror(errno));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(listing.get()))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  if (errno != 0) throw InputError(folder + ": cannot be listed: " + std::strerror(errno));
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string path = folder + "/" + name;
    if (is_folder(path)) {
      add_folder(path, images);
    } else if (ends_with(name, ".jpg") || ends_with(name, ".jpeg") || ends_with(name, ".png")) {
      images.push_back(path);
    }
  }
}

}  // namespace

std::vector<Option> model_options(const std::string& runtimes) {
  return {
      {"runtime", "NAMES", "which, of those in this program", runtimes},
      {"threads", "N", "inside one inference", "1"},
      {"precision", "P", "how it computes: fp32, fp16 or bf16", "fp32"},
      {"quantisation", "Q", "of artifacts: fp32, fp16, int8; all: each there is, for one model the fp32 one", "all"},
      {"cpus", "CPUS", "all, big, little, or a list such as 0,2-3", "all"}};
}

std::string library_folder() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path));
  if (size <= 0 || size == sizeof(path)) return "";
  const std::string program(path, static_cast<std::size_t>(size));
  return program.substr(0, program.rfind('/')) + "/lib";
}

RunOptions run_options(const std::string& runtime, int threads, const std::string& precision, std::size_t batch) {
  RunOptions options{threads, precision_of(precision), batch, ""};
  const std::string folder = library_folder() + "/" + runtime;
  if (is_folder(folder)) options.library = folder;
  return options;
}

std::map<std::string, std::string> runtime_problems() {
  constexpr double kTimeoutS = 120;
  std::map<std::string, std::string> problems;
  for (const std::string& name : built_runtimes()) {
    // In a process of its own: a library once opened would count in every row's memory, and one may crash.
    RowProcess prober([&name]() -> Answer {
      return [&name](const Json&) { return Json{{"problem", runtime_problem(name, run_options(name, 1, "fp32", 1))}}; };
    });
    try {
      problems[name] = prober.ask(Json::object(), kTimeoutS).value("problem", "");
    } catch (const RowLost& lost) {
      problems[name] = std::string("opening its library: ") + lost.what();
    }
  }
  return problems;
}

std::vector<std::string> chosen_runtimes(const Arguments& arguments, const Bundle& bundle) {
  if (!arguments.text("runtime").empty()) return arguments.list("runtime");
  std::vector<std::string> names;
  std::string missing;
  for (const auto& [runtime, problem] : runtime_problems()) {
    if (bundle.quantisations(runtime).empty()) continue;
    if (problem.empty())
      names.push_back(runtime);
    else
      missing += (missing.empty() ? "" : "; ") + runtime + ": " + problem;
  }
  if (names.empty())
    throw InputError(missing.empty() ? "the bundle has no artifact for a runtime of this program" : missing);
  return names;
}

std::vector<std::pair<std::string, std::string>> chosen_models(const Arguments& arguments, const Bundle& bundle) {
  const std::vector<std::string> wanted = arguments.list("quantisation");
  std::vector<std::pair<std::string, std::string>> models;
  for (const std::string& runtime : chosen_runtimes(arguments, bundle)) {
    std::vector<std::string> names = wanted.front() == "all" ? bundle.quantisations(runtime) : wanted;
    if (names.empty()) names.emplace_back("fp32");
    for (const std::string& name : names) {
      if (name != "fp32" && name != "fp16" && name != "int8")
        throw UsageError("--quantisation: expected fp32, fp16, int8 or all, got '" + name + "'");
      models.emplace_back(runtime, name);
    }
  }
  return models;
}

std::string precision_problem(const std::string& quantisation, const std::string& requested, const std::string& ran) {
  const std::vector<std::string> parts = parts_of(ran);
  const bool integers = std::find(parts.begin(), parts.end(), "int8") != parts.end();
  if (quantisation == "int8" && !integers) return "the artifact is int8, the runtime computes " + ran;
  const bool honoured = std::all_of(parts.begin(), parts.end(), [&](const std::string& part) {
    return part == requested || (quantisation != "fp32" && part == quantisation);
  });
  return honoured ? "" : "asked for " + requested + ", runs " + ran;
}

Comparison compare(const std::vector<float>& output, const std::vector<float>& reference, std::size_t dim,
                   const std::string& precision, const std::string& quantisation) {
  Comparison result;
  double largest = 1e-3;
  for (std::size_t begin = 0; begin < reference.size(); begin += dim) {
    double product = 0, ours = 0, theirs = 0;
    for (std::size_t at = begin; at < begin + dim; ++at) {
      const double a = output[at], b = reference[at];
      product += a * b, ours += a * a, theirs += b * b;
      result.max_error = std::max(result.max_error, std::abs(a - b));
      largest = std::max(largest, std::abs(b));
    }
    const double lengths = std::sqrt(ours) * std::sqrt(theirs);
    result.min_cosine = std::min(result.min_cosine, lengths > 0 ? product / lengths : 0);
  }
  double relative = relative_tolerance(quantisation);
  for (const std::string& part : parts_of(precision)) relative = std::max(relative, relative_tolerance(part));
  result.tolerance = relative * largest;
  return result;
}

double golden_pixel_error(const Bundle& bundle, const Golden& golden) {
  const std::size_t size = bundle.io().input_size();
  std::vector<float> tensor(size);
  double worst = 0;
  for (std::size_t image = 0; image < golden.images.size(); ++image) {
    const std::vector<std::uint8_t> bytes = read_file(golden.images[image]);
    bundle.preprocess().run(bytes.data(), bytes.size(), max_pixels(), TensorType::float32, tensor.data());
    const float* expected = golden.tensors.data() + image * size;
    for (std::size_t at = 0; at < size; ++at)
      worst = std::max(worst, static_cast<double>(std::abs(tensor[at] - expected[at])));
  }
  return worst;
}

std::size_t batch_size(const ModelIO& io, std::size_t batch) {
  if (batch > SIZE_MAX / sizeof(float) / io.input_size())
    throw InputError("batch: " + std::to_string(batch) + " images do not fit into this machine's memory");
  return batch * io.input_size();
}

std::vector<float> embed_one_by_one(Predictor& predictor, const std::vector<float>& tensors) {
  const std::size_t size = predictor.io().input_size();
  std::vector<float> all;
  for (std::size_t at = 0; at < tensors.size(); at += size) {
    const std::vector<float> one = predictor.embed(tensors.data() + at, 1);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

std::vector<std::string> find_images(const std::vector<std::string>& places, const std::string& list) {
  std::vector<std::string> images;
  if (!list.empty()) {
    const std::vector<std::uint8_t> bytes = read_file(list);
    if (bytes.empty()) throw InputError(list + ": expected a path on each line, got an empty file");
    std::string line;
    for (std::size_t at = 0; at <= bytes.size(); ++at) {
      if (at == bytes.size() || bytes[at] == '\n') {
        if (!line.empty()) images.push_back(line);
        line.clear();
      } else if (bytes[at] != '\r') {
        line += static_cast<char>(bytes[at]);
      }
    }
  }
  for (const std::string& place : places) {
    if (is_folder(place)) {
      add_folder(place, images);
    } else {
      images.push_back(place);
    }
  }
  if (images.empty()) throw InputError("expected images: files, folders with JPEG or PNG files, or --list FILE");
  return images;
}

std::int64_t max_pixels() {
  const char* text = std::getenv("EDGERECALL_MAX_PIXELS");
  const std::int64_t given = text != nullptr ? std::strtoll(text, nullptr, 10) : 0;
  return given > 0 ? given : DecodeOptions{}.max_pixels;
}

}  // namespace edgerecall::device

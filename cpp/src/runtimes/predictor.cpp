#include "edgerecall/predictor.h"

#include <cmath>

#include "runtimes/backends.h"
#include "edgerecall/error.h"

namespace edgerecall {

Precision precision_of(const std::string& name) {
  for (const Precision precision : {Precision::fp32, Precision::fp16, Precision::bf16})
    if (name == name_of(precision)) return precision;
  throw InputError("precision: expected one of fp32, fp16, bf16, got '" + one_line(name) + "'");
}

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::fp16: return "fp16";
    case Precision::bf16: return "bf16";
    case Precision::fp32: break;
  }
  return "fp32";
}

const std::string& file_of(const Files& files, const char* role) {
  const auto found = files.find(role);
  if (found == files.end()) throw InputError(std::string("the artifact has no file of role '") + role + "'");
  return found->second;
}

void only_fp32(const char* runtime, const RunOptions& options) {
  if (options.precision != Precision::fp32)
    throw Unavailable(std::string("runtime '") + runtime + "' runs the graph's own types (fp32) on CPU: ask for fp32");
}

std::string one_line(const std::string& text) {
  constexpr std::size_t kLongest = 300;
  constexpr const char* kSpace = " \t\r\n";
  const std::string place = "Exception from ";  // OpenVINO first says where in its source, a line each
  std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string::npos) return "no reason given";
  while (text.compare(begin, place.size(), place) == 0) {
    const std::size_t end = text.find_first_of("\r\n", begin), next = text.find_first_not_of(kSpace, end);
    if (end == std::string::npos || next == std::string::npos) break;
    begin = next;
  }
  std::string line = text.substr(begin, std::min(text.find_first_of("\r\n", begin) - begin, kLongest));
  for (char& letter : line)
    if (static_cast<unsigned char>(letter) < ' ') letter = '?';
  return line;
}

std::vector<float> Predictor::embed(const float* batch, std::size_t count) {
  std::vector<float> output = translated(info_.runtime, [&] { return run(batch, count); });
  const bool known = io_.embedding_dim != 0;
  if (output.empty() || (known ? output.size() != count * io_.embedding_dim : output.size() % count != 0))
    throw RuntimeFailed(info_.runtime + ": expected " + std::to_string(count) + " embeddings of " +
                        std::to_string(io_.embedding_dim) + " numbers, got " + std::to_string(output.size()) +
                        " numbers");
  for (const float value : output)
    if (!std::isfinite(value)) throw RuntimeFailed(info_.runtime + ": the output holds NaN or infinity");
  return output;
}

std::optional<ExecutionRecord> Predictor::execution_record(const float*, std::size_t) { return std::nullopt; }

}  // namespace edgerecall

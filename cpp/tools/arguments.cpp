#include "arguments.h"

#include <getopt.h>

#include <cmath>
#include <cstdlib>

#include "edgerecall_contract.h"

namespace edgerecall::device {
namespace {

int whole(const std::string& name, const std::string& text) {
  constexpr long kMost = 1'000'000;
  const long most = name == "threads" ? contract::kMostThreads : name == "batch" ? contract::kMostBatch : kMost;
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < 1 || value > most)
    throw UsageError("--" + name + ": expected a whole number from 1 to " + std::to_string(most) + ", got '" + text +
                     "'");
  return static_cast<int>(value);
}

}  // namespace

Arguments::Arguments(int argc, char** argv, const std::vector<Option>& options) {
  std::vector<::option> known;
  for (const Option& one : options) {
    known.push_back({one.name, one.value != nullptr ? required_argument : no_argument, nullptr, 0});
    values_[one.name] = one.fallback;
  }
  known.push_back({"help", no_argument, nullptr, 'h'});
  known.push_back({nullptr, 0, nullptr, 0});
  opterr = 0;
  int index = 0;
  for (int got; (got = getopt_long(argc, argv, ":h", known.data(), &index)) != -1;) {
    if (got == 'h') {
      help_ = true;
    } else if (got == 0) {
      const std::string name = known[static_cast<std::size_t>(index)].name;
      values_[name] = given_[name] = optarg != nullptr ? optarg : "yes";
    } else {
      const std::string given = optind > 0 && optind <= argc ? argv[optind - 1] : "";
      throw UsageError((got == ':' ? "a value is missing behind " : "there is no option ") + given);
    }
  }
  for (int at = optind; at < argc; ++at) rest_.emplace_back(argv[at]);
}

int Arguments::count(const std::string& name) const { return whole(name, text(name)); }

double Arguments::seconds(const std::string& name) const {
  char* end = nullptr;
  const double value = std::strtod(text(name).c_str(), &end);
  if (text(name).empty() || *end != '\0' || !(value > 0) || std::isinf(value))
    throw UsageError("--" + name + ": expected more than 0, got '" + text(name) + "'");
  return value;
}

std::vector<std::string> Arguments::list(const std::string& name) const {
  std::vector<std::string> parts(1);
  for (const char letter : text(name)) {
    if (letter == ',') {
      parts.emplace_back();
    } else {
      parts.back() += letter;
    }
  }
  for (const std::string& part : parts)
    if (part.empty()) throw UsageError("--" + name + ": expected a comma list, got '" + text(name) + "'");
  return parts;
}

std::vector<int> Arguments::counts(const std::string& name) const {
  std::vector<int> values;
  for (const std::string& part : list(name)) values.push_back(whole(name, part));
  return values;
}

const std::string& Arguments::bundle() const {
  if (rest_.empty()) throw UsageError("expected the folder of a bundle");
  return rest_.front();
}

std::string described(const std::vector<Option>& options) {
  constexpr std::size_t kColumn = 26;
  std::string text;
  for (const Option& one : options) {
    std::string line = std::string("  --") + one.name + (one.value != nullptr ? std::string(" ") + one.value : "");
    line.append(line.size() < kColumn ? kColumn - line.size() : 1, ' ');
    line += one.help;
    if (one.value != nullptr && !one.fallback.empty()) line += " [" + one.fallback + "]";
    text += line + "\n";
  }
  return text;
}

}  // namespace edgerecall::device

// The command line of one verb, by getopt_long.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "edgerecall/error.h"

namespace edgerecall::device {

/// The command cannot be understood; its message ends with what to do.
class UsageError : public InputError {
 public:
  using InputError::InputError;
};

/// `--name VALUE`, or a flag where `value` is null. fallback: what it is when not given.
struct Option {
  const char* name;
  const char* value;
  const char* help;
  std::string fallback;
};

class Arguments {
 public:
  /// `argv[0]` is the verb. Throws UsageError.
  Arguments(int argc, char** argv, const std::vector<Option>& options);

  const std::string& text(const std::string& name) const { return values_.at(name); }
  bool flag(const std::string& name) const { return !text(name).empty(); }
  bool given(const std::string& name) const { return given_.count(name) != 0; }
  bool help() const { return help_; }
  /// A whole number from 1 on. Throws UsageError.
  int count(const std::string& name) const;
  /// More than 0. Throws UsageError.
  double seconds(const std::string& name) const;
  /// Of `a,b,c`. Throws UsageError for an empty part.
  std::vector<std::string> list(const std::string& name) const;
  /// Of `1,2,4`. Throws UsageError.
  std::vector<int> counts(const std::string& name) const;

  const std::vector<std::string>& rest() const { return rest_; }
  /// What stands first behind the verb. Throws UsageError.
  const std::string& bundle() const;

 private:
  std::map<std::string, std::string> values_, given_;
  std::vector<std::string> rest_;
  bool help_ = false;
};

/// One line for each option.
std::string described(const std::vector<Option>& options);

}  // namespace edgerecall::device

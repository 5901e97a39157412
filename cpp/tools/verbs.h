// The verbs of edgerecall-device. Each returns its exit code: 0, or 1 when a result does not hold.
#pragma once
#include "arguments.h"

namespace edgerecall::device {

struct Verb {
  const char* name;
  const char* usage;
  const char* help;
  std::vector<Option> options;
  int (*run)(const Arguments&);
};

Verb verify_verb();
Verb predict_verb();
Verb search_verb();
Verb add_verb();
Verb remove_verb();
Verb bench_verb();
Verb info_verb();

}  // namespace edgerecall::device

// edgerecall-device: a bundle on a machine without Python. Exit codes: 0; 1 a result does not hold; 2 bad input.
#include <cfenv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "edgerecall/error.h"
#include "edgerecall/machine.h"
#include "edgerecall/predictor.h"
#include "base/json_text.h"
#include "session.h"
#include "verbs.h"

namespace edgerecall::device {
namespace {

int info(const Arguments&) {
  Json usable = Json::array(), missing = Json::object();
  for (const auto& [name, problem] : runtime_problems()) {
    if (problem.empty()) {
      usable.push_back(name);
    } else {
      missing[name] = problem;
    }
  }
  Json clusters = Json::object();
  for (const char* name : {"all", "big", "little"}) clusters[name] = shown(cpus_of(name));
  const Json told = {{"version", EDGERECALL_VERSION},
                     {"machine", Bundle::machine()},
                     {"model", machine_model()},
                     {"cpus", clusters},
                     {"runtimes", usable},
                     {"missing", missing},
                     {"temperatures_c", temperatures_c()}};
  std::printf("%s\n", to_text(told, 2).c_str());
  return 0;
}

int usage(std::FILE* out, const std::vector<Verb>& verbs) {
  std::fprintf(out, "usage: edgerecall-device VERB ...\n\n");
  for (const Verb& verb : verbs) std::fprintf(out, "  %-8s %s\n", verb.name, verb.help);
  std::fprintf(out, "\nedgerecall-device VERB --help says more. Version %s, with", EDGERECALL_VERSION);
  for (const std::string& name : built_runtimes()) std::fprintf(out, " %s", name.c_str());
  std::fprintf(out, ".\n");
  return out == stdout ? 0 : 2;
}

int failed(const char* message, int code) {
  std::fprintf(stderr, "edgerecall-device: %s\n", message);
  return code;
}

int run(int argc, char** argv) {
  const std::vector<Verb> verbs = {verify_verb(), predict_verb(), search_verb(), add_verb(),
                                   remove_verb(), bench_verb(),   info_verb()};
  if (argc < 2) return usage(stderr, verbs);
  if (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0) return usage(stdout, verbs);
  for (const Verb& verb : verbs) {
    if (std::strcmp(argv[1], verb.name) != 0) continue;
    try {
      const Arguments arguments(argc - 1, argv + 1, verb.options);
      if (!arguments.help()) return verb.run(arguments);
      std::printf("usage: edgerecall-device %s %s\n\n%s\n\n%s", verb.name, verb.usage, verb.help,
                  described(verb.options).c_str());
      return 0;
    } catch (const UsageError& error) {
      return failed((std::string(error.what()) + "; see edgerecall-device " + verb.name + " --help").c_str(), 2);
    }
  }
  std::fprintf(stderr, "edgerecall-device: there is no verb '%s'\n", argv[1]);
  return usage(stderr, verbs);
}

}  // namespace

Verb info_verb() { return {"info", "", "What this program and this machine are, as JSON.", {}, info}; }

}  // namespace edgerecall::device

#ifdef __GLIBCXX__
// In place of the library's, which brings 60 kB to print a type's name: nothing is thrown past main.
namespace __gnu_cxx {
void __verbose_terminate_handler() { std::abort(); }
}  // namespace __gnu_cxx
#endif

int main(int argc, char** argv) {
  using edgerecall::device::failed;
  // A library built for speed alone (Paddle Lite's) has denormal numbers flushed to zero as soon as it is loaded.
  std::fesetenv(FE_DFL_ENV);
  try {
    const int code = edgerecall::device::run(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return failed("cannot write to standard output", 2);
    return code;
  } catch (const edgerecall::RuntimeFailed& error) {
    return failed(error.what(), 1);
  } catch (const std::bad_alloc&) {
    return failed("not enough memory", 2);
  } catch (const std::exception& error) {
    return failed(error.what(), 2);
  }
}

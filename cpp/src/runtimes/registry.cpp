// Which runtimes this build has: every question about that is answered here.
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtimes/backends.h"
#include "edgerecall/error.h"

namespace edgerecall {
namespace {

/// make: null when it was not built; then `remedy` says how to. find: looks for its library, where it is opened.
struct Entry {
  const char* name;
  MakePredictor make;
  const char* remedy;
  void (*find)(const RunOptions&) = nullptr;
};

constexpr Entry kRuntimes[] = {
#ifdef EDGERECALL_WITH_LOADED_RUNTIMES
    {"onnxruntime", make_onnxruntime, "", find_onnxruntime},
    {"openvino", make_openvino, "", find_openvino},
#else
    {"onnxruntime", nullptr, "a static binary loads no library: take a target with glibc"},
    {"openvino", nullptr, "a static binary loads no library: take a target with glibc"},
#endif
#ifdef EDGERECALL_WITH_NCNN
    {"ncnn", make_ncnn, ""},
#else
    {"ncnn", nullptr, "configure with -DEDGERECALL_NCNN_DIR=<ncnn's installation>"},
#endif
#ifdef EDGERECALL_WITH_MNN
    {"mnn", make_mnn, ""},
#else
    {"mnn", nullptr, "configure with -DEDGERECALL_MNN_DIR=<MNN's installation>"},
#endif
#ifdef EDGERECALL_WITH_TNN
    {"tnn", make_tnn, ""},
#else
    {"tnn", nullptr, "configure with -DEDGERECALL_TNN_DIR=<TNN's installation>"},
#endif
#ifdef EDGERECALL_WITH_LITE
    {"lite", make_lite, ""},
#else
    {"lite", nullptr, "configure with -DEDGERECALL_PADDLE_LITE_DIR=<inference_lite_lib.../cxx>"},
#endif
#ifdef EDGERECALL_WITH_PADDLE
    {"paddle", make_paddle, ""},
#else
    {"paddle", nullptr, "configure with -DEDGERECALL_PADDLE_INFERENCE_DIR=<paddle_inference>"},
#endif
};

}  // namespace

std::vector<std::string> built_runtimes() {
  std::vector<std::string> names;
  for (const Entry& entry : kRuntimes)
    if (entry.make != nullptr) names.emplace_back(entry.name);
  return names;
}

std::string runtime_problem(const std::string& runtime, const RunOptions& options) {
  try {
    for (const Entry& entry : kRuntimes)
      if (runtime == entry.name && entry.find != nullptr) entry.find(options);
  } catch (const Unavailable& problem) {
    return problem.what();
  }
  return "";
}

std::unique_ptr<Predictor> open_predictor(const std::string& runtime, const Files& files, const ModelIO& io,
                                          const RunOptions& options) {
  if (options.threads < 1 || options.batch < 1) throw InputError("threads, batch: expected 1 or more");
  std::string names;
  for (const Entry& entry : kRuntimes) {
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
    if (runtime != entry.name) continue;
    if (entry.make == nullptr)
      throw Unavailable("runtime '" + runtime + "' is not in this build of the core: " + entry.remedy);
    for (const auto& [role, path] : files)  // not every runtime says so itself
      if (access(path.c_str(), R_OK) != 0) throw InputError(path + ": cannot be read: " + std::strerror(errno));
    return translated(runtime, [&] { return entry.make(files, io, options); });
  }
  throw InputError("runtime: expected one of " + names + ", got '" + one_line(runtime) + "'");
}

}  // namespace edgerecall

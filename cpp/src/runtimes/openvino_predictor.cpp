// OpenVINO, CPU plugin, through its C interface from whatever libopenvino_c.so is at hand.
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <set>

#include "runtimes/backends.h"
#include "edgerecall/error.h"
#include "runtimes/held.h"
#include "runtimes/openvino_abi.h"
#include "base/shared_library.h"

namespace edgerecall {
namespace {

constexpr char kOpenVinoRemedy[] =
    "put the libraries of OpenVINO (2022.1 or newer) into lib/openvino/ beside the program, or name their folder in "
    "EDGERECALL_OPENVINO";
constexpr std::size_t kPrepared = 4;  // batch sizes kept compiled

SharedLibrary open_openvino(const RunOptions& options) {
  return {library_path(options.library, "EDGERECALL_OPENVINO", "libopenvino_c.so"), kOpenVinoRemedy};
}

const char* hint_of(Precision precision) {
  switch (precision) {
    case Precision::fp16: return "f16";
    case Precision::bf16: return "bf16";
    case Precision::fp32: break;
  }
  return "f32";
}

/// Our name of a precision at the end of a text of OpenVINO's, `f32` or `jit_avx512_FP32`; empty when there is none.
std::string precision_in(const std::string& text) {
  std::string tail = text.substr(text.find_last_of('_') + 1);
  for (char& letter : tail) letter = static_cast<char>(letter >= 'A' && letter <= 'Z' ? letter - 'A' + 'a' : letter);
  if (tail == "f32" || tail == "fp32") return "fp32";
  if (tail == "f16" || tail == "fp16") return "fp16";
  if (tail == "bf16") return "bf16";
  if (tail == "i8" || tail == "u8" || tail == "int8") return "int8";
  return "";
}

bool is_heavy(const std::string& kind) {
  for (const char* heavy : {"Convolution", "FullyConnected", "MatMul", "Deconvolution"})
    if (kind.find(heavy) != std::string::npos) return true;
  return false;
}

class OpenVinoPredictor : public Predictor {
 public:
  OpenVinoPredictor(const Files& files, const ModelIO& io, const RunOptions& options)
      : Predictor(io, {"openvino", "", "", options.threads, {}}),
        library_(open_openvino(options)),
        api_(library_),
        model_(file_of(files, "model")),
        weights_(file_of(files, "weights")),
        threads_(std::to_string(options.threads)),
        batch_(options.batch),
        precision_(options.precision) {
    ov::Version version{};
    check(api_.get_version(&version), "version");
    info_.version = version.build;
    api_.free_version(&version);
    core_ = shared_core();
    const Prepared& first = prepare(options.batch);
    info_.precision = precision_in(property(first.compiled.pointer, "INFERENCE_PRECISION_HINT"));
    info_.threads = std::atoi(property(first.compiled.pointer, "INFERENCE_NUM_THREADS").c_str());
    info_.detail["streams"] = property(first.compiled.pointer, "NUM_STREAMS");
    info_.detail["library"] = library_.path();
  }

  std::optional<ExecutionRecord> execution_record(const float* batch, std::size_t count) override {
    const Prepared profiled = compile(count, "YES");
    infer(profiled, batch, count);
    ov::LayerList list{};
    check(api_.get_layers(profiled.request.pointer, &list), "profile");
    ExecutionRecord result{"", "OpenVINO's profile", {}};
    std::set<std::string> precisions;
    for (std::size_t index = 0; index < list.size; ++index) {
      const ov::Layer& layer = list.layers[index];
      if (layer.status != ov::kExecuted || !is_heavy(layer.kind)) continue;
      ++result.operators[std::string(layer.kind) + " " + layer.execution];
      const std::string precision = precision_in(layer.execution);
      precisions.insert(precision.empty() ? layer.execution : precision);
    }
    api_.free_layers(&list);
    for (const std::string& name : precisions) result.precision += (result.precision.empty() ? "" : "+") + name;
    if (precisions.empty()) return std::nullopt;
    return result;
  }

 private:
  struct Prepared {
    Held<ov::CompiledModel> compiled;
    Held<ov::Request> request;
  };

  void check(int status, const char* what) const {
    if (status == ov::kOk) return;
    const char* reason = api_.last_error != nullptr ? api_.last_error() : nullptr;
    const std::string text = one_line(reason != nullptr && *reason != '\0' ? reason : api_.error_info(status));
    if (reason != nullptr) api_.free_text(reason);
    throw RuntimeFailed(std::string("openvino, ") + what + ": " + text);
  }

  /// One for the whole process, that is never freed: each gives the thread that it is made in another alternate signal
  /// stack, and two that are freed in the order in which they were made leave it with freed memory, in which the next
  /// signal crashes.
  ov::Core* shared_core() const {
    static std::mutex mutex;
    static auto& cores = *new std::map<std::string, ov::Core*>;
    const std::lock_guard<std::mutex> lock(mutex);
    ov::Core*& core = cores[library_.path()];
    if (core == nullptr) check(api_.create_core(&core), "start");
    return core;
  }

  std::string property(const ov::CompiledModel* compiled, const char* key) const {
    char* text = nullptr;
    check(api_.get_property(compiled, key, &text), key);
    std::string value = text;
    api_.free_text(text);
    return value;
  }

  /// For one batch size: with the size left open it runs a tenth slower.
  Prepared compile(std::size_t count, const char* profiling) const {
    Held<ov::Model> model(api_.free_model);
    check(api_.read_model(core_, model_.c_str(), weights_.c_str(), &model.pointer), "model");
    const auto fixed = [](std::int64_t size) { return ov::Dimension{size, size}; };
    ov::Dimension dims[] = {fixed(static_cast<std::int64_t>(count)), fixed(io_.input_shape[0]),
                            fixed(io_.input_shape[1]), fixed(io_.input_shape[2])};
    check(api_.reshape(model.pointer, {fixed(4), dims}), "input shape");
    Prepared made{Held<ov::CompiledModel>(api_.free_compiled), Held<ov::Request>(api_.free_request)};
    // Without the hint OpenVINO chooses bf16 (x86) or fp16 (ARM) by itself where the CPU has it.
    check(api_.compile(core_, model.pointer, "CPU", 10, &made.compiled.pointer, "INFERENCE_PRECISION_HINT",
                       hint_of(precision_), "INFERENCE_NUM_THREADS", threads_.c_str(), "NUM_STREAMS", "1",
                       "PERFORMANCE_HINT", "LATENCY", "PERF_COUNT", profiling),
          "compiling");
    check(api_.create_request(made.compiled.pointer, &made.request.pointer), "request");
    return made;
  }

  const Prepared& prepare(std::size_t count) {
    const auto found = prepared_.find(count);
    if (found != prepared_.end()) return found->second;
    if (prepared_.size() == kPrepared)  // one goes, but not the size that it was opened for
      prepared_.erase(prepared_.begin()->first == batch_ ? std::prev(prepared_.end()) : prepared_.begin());
    return prepared_.emplace(count, compile(count, "NO")).first->second;
  }

  std::vector<float> infer(const Prepared& prepared, const float* batch, std::size_t count) const {
    std::int64_t dims[] = {static_cast<std::int64_t>(count), io_.input_shape[0], io_.input_shape[1],
                           io_.input_shape[2]};
    Held<ov::Tensor> input(api_.free_tensor), output(api_.free_tensor);
    // The interface takes no pointer to const; inputs are not written to.
    check(api_.tensor_over(ov::kFloat, {4, dims}, const_cast<float*>(batch), &input.pointer), "input");
    check(api_.set_input(prepared.request.pointer, input.pointer), "input");
    check(api_.infer(prepared.request.pointer), "inference");
    check(api_.get_output(prepared.request.pointer, 0, &output.pointer), "output");
    int type = 0;
    std::size_t size = 0;
    void* data = nullptr;
    check(api_.tensor_type(output.pointer, &type), "output");
    check(api_.tensor_size(output.pointer, &size), "output");
    check(api_.tensor_data(output.pointer, &data), "output");
    if (type != ov::kFloat) throw RuntimeFailed("openvino: expected float32 output");
    const auto* values = static_cast<const float*>(data);
    return {values, values + size};
  }

  std::vector<float> run(const float* batch, std::size_t count) override { return infer(prepare(count), batch, count); }

  SharedLibrary library_;
  ov::Api api_;
  std::string model_, weights_, threads_;
  std::size_t batch_;
  Precision precision_;
  ov::Core* core_ = nullptr;
  std::map<std::size_t, Prepared> prepared_;
};

}  // namespace

void find_openvino(const RunOptions& options) { open_openvino(options); }

std::unique_ptr<Predictor> make_openvino(const Files& files, const ModelIO& io, const RunOptions& options) {
  return std::make_unique<OpenVinoPredictor>(files, io, options);
}

}  // namespace edgerecall

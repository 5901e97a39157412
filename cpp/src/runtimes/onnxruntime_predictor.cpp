// ONNX Runtime, CPU execution provider, from whatever libonnxruntime.so is at hand.
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <set>

#include "base/files.h"
#include "base/json_text.h"
#include "runtimes/backends.h"
#include "edgerecall/error.h"
#include "runtimes/held.h"
#include "runtimes/onnxruntime_abi.h"
#include "base/shared_library.h"

namespace edgerecall {
namespace {

constexpr char kOnnxRuntimeRemedy[] =
    "put ONNX Runtime's libonnxruntime.so (1.8 or newer) into lib/onnxruntime/ beside the program, or name it in "
    "EDGERECALL_ONNXRUNTIME";

SharedLibrary open_onnxruntime(const RunOptions& options) {
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // 1.29 and newer tell Microsoft of each process and model
  return {library_path(options.library, "EDGERECALL_ONNXRUNTIME", "libonnxruntime.so"), kOnnxRuntimeRemedy};
}

const ort::ApiBase* base_of(const SharedLibrary& library) {
  const ort::ApiBase* (*get_base)() = nullptr;
  library.get(get_base, "OrtGetApiBase");
  return get_base();
}

void* const* table_of(const ort::ApiBase* base) {
  void* const* table = base->get_api(ort::kApiVersion);
  if (table == nullptr) throw Unavailable(std::string("ONNX Runtime ") + base->get_version() + " is too old");
  return table;
}

/// A folder of its own, removed with what is left in it by name.
struct TemporaryFolder {
  TemporaryFolder() {
    const char* place = std::getenv("TMPDIR");
    path = std::string(place != nullptr && *place != '\0' ? place : "/tmp") + "/edgerecall-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) throw RuntimeFailed("onnxruntime: no folder for its profile at " + path);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { rmdir(path.c_str()); }
  std::string path;
};

/// Our name of a type of ONNX Runtime's.
std::string name_of(const std::string& type) {
  if (type == "float") return "fp32";
  if (type == "float16") return "fp16";
  if (type == "bfloat16") return "bf16";
  return type == "uint8" ? "int8" : type;
}

/// The text at a key of an object; empty where there is none.
std::string text_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  const auto* text = found == object.end() ? nullptr : found->get_ptr<const std::string*>();
  return text == nullptr ? "" : *text;
}

/// What a profile says of the nodes of the optimised graph; nothing when it names none.
std::optional<ExecutionRecord> executed_by(const Json& events) {
  ExecutionRecord result{"", "ONNX Runtime's profile", {}};
  std::set<std::string> types;
  for (const Json& event : events) {
    const std::string name = text_at(event, "name"), ending = "_kernel_time";
    const auto arguments = event.find("args");
    const bool ends = name.size() > ending.size() && name.rfind(ending) == name.size() - ending.size();
    if (!ends || arguments == event.end()) continue;
    const std::string kind = text_at(*arguments, "op_name");
    ++result.operators[kind + " " + text_at(*arguments, "provider")];
    const auto inputs = arguments->find("input_type_shape");
    if (inputs == arguments->end() || inputs->empty() || inputs->front().empty()) continue;
    for (const char* heavy : {"Conv", "Gemm", "MatMul"})
      if (kind.find(heavy) != std::string::npos) types.insert(name_of(inputs->front().begin().key()));
  }
  if (result.operators.empty()) return std::nullopt;
  for (const std::string& type : types) result.precision += (result.precision.empty() ? "" : "+") + type;
  if (types.empty()) result.precision = "unknown";
  return result;
}

class OnnxRuntimePredictor : public Predictor {
 public:
  OnnxRuntimePredictor(const Files& files, const ModelIO& io, const RunOptions& options)
      : Predictor(io, {"onnxruntime", "", "", options.threads, {}}),
        library_(open_onnxruntime(options)),
        base_(base_of(library_)),
        api_(table_of(base_)),
        model_(file_of(files, "model")) {
    only_fp32("onnxruntime", options);
    info_.version = base_->get_version();
    check(api_.create_env(ort::kLogError, "edgerecall", &env_.pointer));
    open(nullptr, &session_.pointer);
    check(api_.create_cpu_memory(ort::kArenaAllocator, ort::kMemoryDefault, &memory_.pointer));
    read_ends();
  }

  std::optional<ExecutionRecord> execution_record(const float* batch, std::size_t count) override {
    const TemporaryFolder folder;
    Held<ort::Session> session(api_.release_session);
    open((folder.path + "/profile").c_str(), &session.pointer);
    run_in(session.pointer, batch, count);
    ort::Allocator* allocator = nullptr;
    check(api_.default_allocator(&allocator));
    char* written = nullptr;
    check(api_.end_profiling(session.pointer, allocator, &written));
    const std::string path = written;
    check(api_.allocator_free(allocator, written));
    const std::vector<std::uint8_t> bytes = read_file(path);
    std::remove(path.c_str());
    return executed_by(parse_json({bytes.begin(), bytes.end()}));
  }

 private:
  void check(ort::Status* status) const {
    if (status == nullptr) return;
    const std::string message = one_line(api_.get_error_message(status));
    api_.release_status(status);
    throw RuntimeFailed("onnxruntime: " + message);
  }

  /// A session over the model. profile: how the path of its profile begins, null for none.
  void open(const char* profile, ort::Session** session) const {
    Held<ort::SessionOptions> settings(api_.release_session_options);
    check(api_.create_session_options(&settings.pointer));
    check(api_.set_log_level(settings.pointer, ort::kLogError));
    check(api_.set_optimization(settings.pointer, ort::kOptimizeAll));
    check(api_.set_intra_threads(settings.pointer, info_.threads));
    check(api_.set_inter_threads(settings.pointer, 1));
    if (profile != nullptr) check(api_.enable_profiling(settings.pointer, profile));
    check(api_.create_session(env_.pointer, model_.c_str(), settings.pointer, session));
  }

  void read_ends() {
    std::size_t inputs = 0, outputs = 0;
    check(api_.input_count(session_.pointer, &inputs));
    check(api_.output_count(session_.pointer, &outputs));
    if (inputs != 1 || outputs < 1)
      throw RuntimeFailed("onnxruntime: expected a model with one input, got one with " + std::to_string(inputs));
    ort::Allocator* allocator = nullptr;
    check(api_.default_allocator(&allocator));
    const auto take = [&](auto read) {
      char* text = nullptr;
      check(read(session_.pointer, 0, allocator, &text));
      std::string name = text;
      check(api_.allocator_free(allocator, text));
      return name;
    };
    input_ = take(api_.input_name);
    output_ = take(api_.output_name);
    Held<ort::TypeInfo> type(api_.release_type);
    check(api_.input_type(session_.pointer, 0, &type.pointer));
    const ort::TensorInfo* tensor = nullptr;  // belongs to `type`
    check(api_.cast_to_tensor_info(type.pointer, &tensor));
    int element = 0;
    if (tensor != nullptr) check(api_.element_type(tensor, &element));
    if (element != ort::kFloat) throw RuntimeFailed("onnxruntime: expected a model with float32 input");
    info_.precision = "fp32";
    info_.detail["library"] = library_.path();
  }

  std::vector<float> run(const float* batch, std::size_t count) override {
    return run_in(session_.pointer, batch, count);
  }

  std::vector<float> run_in(ort::Session* session, const float* batch, std::size_t count) const {
    const std::int64_t shape[] = {static_cast<std::int64_t>(count), io_.input_shape[0], io_.input_shape[1],
                                  io_.input_shape[2]};
    const std::size_t bytes = count * io_.input_size() * sizeof(float);
    Held<ort::Value> input(api_.release_value), output(api_.release_value);
    // The interface takes no pointer to const; inputs are not written to.
    check(api_.create_tensor(memory_.pointer, const_cast<float*>(batch), bytes, shape, 4, ort::kFloat, &input.pointer));
    const char* const input_names[] = {input_.c_str()};
    const char* const output_names[] = {output_.c_str()};
    const ort::Value* const inputs[] = {input.pointer};
    check(api_.run(session, nullptr, input_names, inputs, 1, output_names, 1, &output.pointer));
    Held<ort::TensorInfo> info(api_.release_tensor_info);
    check(api_.tensor_info(output.pointer, &info.pointer));
    int element = 0;
    std::size_t size = 0;
    check(api_.element_type(info.pointer, &element));
    check(api_.element_count(info.pointer, &size));
    if (element != ort::kFloat) throw RuntimeFailed("onnxruntime: expected float32 output");
    void* data = nullptr;
    check(api_.tensor_data(output.pointer, &data));
    const auto* values = static_cast<const float*>(data);
    return {values, values + size};
  }

  SharedLibrary library_;
  const ort::ApiBase* base_;
  ort::Api api_;
  std::string model_;
  Held<ort::Env> env_{api_.release_env};
  Held<ort::MemoryInfo> memory_{api_.release_memory};
  Held<ort::Session> session_{api_.release_session};
  std::string input_, output_;
};

}  // namespace

void find_onnxruntime(const RunOptions& options) { open_onnxruntime(options); }

std::unique_ptr<Predictor> make_onnxruntime(const Files& files, const ModelIO& io, const RunOptions& options) {
  return std::make_unique<OnnxRuntimePredictor>(files, io, options);
}

}  // namespace edgerecall

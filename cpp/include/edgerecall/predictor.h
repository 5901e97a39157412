#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace edgerecall {

enum class Precision { fp32, fp16, bf16 };

/// By our names, `fp32`, `fp16`, `bf16`. Throws InputError.
Precision precision_of(const std::string& name);
const char* name_of(Precision precision);

/// Tensors at the edge of the model: float32 `(n, 3, height, width)` in, float32 `(n, embedding_dim)` out.
/// embedding_dim 0: not known yet, whatever the model gives.
struct ModelIO {
  std::string input_name;
  std::array<std::int64_t, 3> input_shape{};
  std::size_t embedding_dim = 0;

  std::size_t input_size() const { return static_cast<std::size_t>(input_shape[0] * input_shape[1] * input_shape[2]); }
};

/// What is asked of a runtime; RuntimeInfo says what it then does. Its threads run on the CPUs of the thread that opens
/// it (see `bind_to`).
///
/// threads: inside one inference. batch: the size to be ready for; others may take longer when they first come.
/// library: the runtime's shared library, or a folder that holds it; empty: the environment's (EDGERECALL_ONNXRUNTIME,
/// EDGERECALL_OPENVINO), else the system's. Only for runtimes that are loaded, not linked.
struct RunOptions {
  int threads = 1;
  Precision precision = Precision::fp32;
  std::size_t batch = 1;
  std::string library;
};

/// What the runtime says it does, read back after loading. threads 0: it does not tell. detail: its own settings.
struct RuntimeInfo {
  std::string runtime, version, precision;
  int threads = 0;
  std::map<std::string, std::string> detail;
};

/// What an inference really ran, from the runtime's own records: precision of its heavy layers ("bf16+fp32" where they
/// are mixed), the record's name, and how many layers of which kind.
struct ExecutionRecord {
  std::string precision, source;
  std::map<std::string, int> operators;
};

/// One loaded model in one runtime. Used by one thread at a time.
class Predictor {
 public:
  Predictor(ModelIO io, RuntimeInfo info) : io_(std::move(io)), info_(std::move(info)) {}
  virtual ~Predictor() = default;
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;

  const ModelIO& io() const { return io_; }
  const RuntimeInfo& info() const { return info_; }

  /// Float32 `(count, 3, height, width)` -> the model's raw output, float32 `(count, D)`, not normalised.
  /// Throws RuntimeFailed, also when the output has another shape or is not finite.
  std::vector<float> embed(const float* batch, std::size_t count);

  /// Runs a batch and says what ran; nothing where the runtime does not tell. It may load the model once more.
  virtual std::optional<ExecutionRecord> execution_record(const float* batch, std::size_t count);

 protected:
  /// The raw output of all `count` inputs, one after another, as the runtime gives it.
  virtual std::vector<float> run(const float* batch, std::size_t count) = 0;

  ModelIO io_;
  RuntimeInfo info_;
};

/// An artifact's files, `role -> path`.
using Files = std::map<std::string, std::string>;

/// The runtimes this build has a predictor for.
std::vector<std::string> built_runtimes();

/// Why a runtime of this build cannot be used on this machine (its library is not there); empty when it can.
std::string runtime_problem(const std::string& runtime, const RunOptions& options);

/// Loads an artifact's files into a runtime. Throws Unavailable (the runtime is not in this build, or its library not
/// on this machine), RuntimeFailed (it does not take the model), InputError.
std::unique_ptr<Predictor> open_predictor(const std::string& runtime, const Files& files, const ModelIO& io,
                                          const RunOptions& options);

}  // namespace edgerecall

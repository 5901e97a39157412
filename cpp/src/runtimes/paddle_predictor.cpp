// Paddle Inference, linked in, on CPU with oneDNN.
#include <paddle_inference_api.h>

#include "runtimes/backends.h"
#include "edgerecall/error.h"

namespace edgerecall {
namespace {

class PaddlePredictor : public Predictor {
 public:
  PaddlePredictor(const Files& files, const ModelIO& io, const RunOptions& options)
      : Predictor(io, {"paddle", version(), "fp32", options.threads, {}}) {
    only_fp32("paddle", options);
    paddle_infer::Config config(file_of(files, "model"), file_of(files, "params"));
    config.DisableGpu();
    config.SetCpuMathLibraryNumThreads(options.threads);
    config.DisableGlogInfo();
    info_.threads = config.cpu_math_library_num_threads();
    predictor_ = paddle_infer::CreatePredictor(config);
  }

 private:
  /// The number alone: the library tells its commit and branch on more lines.
  static std::string version() {
    const std::string line = one_line(paddle_infer::GetVersion()), mark = "version: ";
    return line.compare(0, mark.size(), mark) == 0 ? line.substr(mark.size()) : line;
  }

  std::vector<float> run(const float* batch, std::size_t count) override {
    const auto input = predictor_->GetInputHandle(predictor_->GetInputNames().at(0));
    input->Reshape({static_cast<int>(count), static_cast<int>(io_.input_shape[0]), static_cast<int>(io_.input_shape[1]),
                    static_cast<int>(io_.input_shape[2])});
    input->CopyFromCpu(batch);
    if (!predictor_->Run()) throw RuntimeFailed("paddle: the inference failed");
    const auto output = predictor_->GetOutputHandle(predictor_->GetOutputNames().at(0));
    std::size_t size = 1;
    for (const int side : output->shape()) size *= static_cast<std::size_t>(side);
    std::vector<float> values(size);
    output->CopyToCpu(values.data());
    return values;
  }

  std::shared_ptr<paddle_infer::Predictor> predictor_;
};

}  // namespace

std::unique_ptr<Predictor> make_paddle(const Files& files, const ModelIO& io, const RunOptions& options) {
  return std::make_unique<PaddlePredictor>(files, io, options);
}

}  // namespace edgerecall

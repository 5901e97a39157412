// MNN, linked in: `.mnn` files.
#include <MNN/Interpreter.hpp>
#include <MNN/Tensor.hpp>

#include <cstring>

#include "runtimes/backends.h"
#include "edgerecall/error.h"

namespace edgerecall {
namespace {

class MnnPredictor : public Predictor {
 public:
  MnnPredictor(const Files& files, const ModelIO& io, const RunOptions& options)
      : Predictor(io, {"mnn", MNN::getVersion(), "fp32", options.threads, {}}),
        interpreter_(MNN::Interpreter::createFromFile(file_of(files, "model").c_str())) {
    only_fp32("mnn", options);
    if (interpreter_ == nullptr) throw RuntimeFailed("mnn: it does not take the model");
    MNN::BackendConfig exact;
    exact.precision = MNN::BackendConfig::Precision_High;  // else ARM computes in half precision where it can
    MNN::ScheduleConfig config;
    config.type = MNN_FORWARD_CPU;
    config.numThread = options.threads;
    config.backendConfig = &exact;
    session_ = interpreter_->createSession(config);
    if (session_ == nullptr) throw RuntimeFailed("mnn: it does not take the model");
    input_ = interpreter_->getSessionInput(session_, nullptr);
    resize(options.batch);
  }

 private:
  struct Destroy {
    void operator()(MNN::Interpreter* interpreter) const { MNN::Interpreter::destroy(interpreter); }
  };

  void resize(std::size_t count) {
    const auto& shape = io_.input_shape;
    interpreter_->resizeTensor(input_, {static_cast<int>(count), static_cast<int>(shape[0]), static_cast<int>(shape[1]),
                                        static_cast<int>(shape[2])});
    interpreter_->resizeSession(session_);
    ready_ = count;
  }

  std::vector<float> run(const float* batch, std::size_t count) override {
    if (count != ready_) resize(count);
    MNN::Tensor given(input_, MNN::Tensor::CAFFE);
    std::memcpy(given.host<float>(), batch, count * io_.input_size() * sizeof(float));
    input_->copyFromHostTensor(&given);
    if (interpreter_->runSession(session_) != MNN::NO_ERROR) throw RuntimeFailed("mnn: the inference failed");
    const MNN::Tensor* output = interpreter_->getSessionOutput(session_, nullptr);
    MNN::Tensor taken(output, MNN::Tensor::CAFFE);
    output->copyToHostTensor(&taken);
    const float* values = taken.host<float>();
    return {values, values + taken.elementSize()};
  }

  std::unique_ptr<MNN::Interpreter, Destroy> interpreter_;
  MNN::Session* session_ = nullptr;  // the interpreter's
  MNN::Tensor* input_ = nullptr;     // the session's
  std::size_t ready_ = 0;            // batch size that it is prepared for
};

}  // namespace

std::unique_ptr<Predictor> make_mnn(const Files& files, const ModelIO& io, const RunOptions& options) {
  return std::make_unique<MnnPredictor>(files, io, options);
}

}  // namespace edgerecall

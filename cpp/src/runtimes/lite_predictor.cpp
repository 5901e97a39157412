// Paddle Lite, linked in: `.nb` files.
#include <paddle_api.h>

#include <cstring>

#include "runtimes/backends.h"
#include "edgerecall/error.h"

namespace edgerecall {
namespace {

namespace lite = paddle::lite_api;

class LitePredictor : public Predictor {
 public:
  LitePredictor(const Files& files, const ModelIO& io, const RunOptions& options)
      : Predictor(io, {"lite", "", "fp32", options.threads, {}}) {
    only_fp32("lite", options);
    lite::MobileConfig config;
    config.set_model_from_file(file_of(files, "model"));  // a torn model in a buffer would crash it
    config.set_threads(options.threads);
    config.set_power_mode(lite::LITE_POWER_NO_BIND);  // its threads run where the opening thread may
    predictor_ = lite::CreatePaddlePredictor<lite::MobileConfig>(config);
    if (predictor_ == nullptr) throw RuntimeFailed("lite: it does not take the model");
    info_.version = predictor_->GetVersion();
    info_.threads = config.threads();
  }

 private:
  std::vector<float> run(const float* batch, std::size_t count) override {
    const auto input = predictor_->GetInput(0);
    input->Resize({static_cast<std::int64_t>(count), io_.input_shape[0], io_.input_shape[1], io_.input_shape[2]});
    std::memcpy(input->mutable_data<float>(), batch, count * io_.input_size() * sizeof(float));
    predictor_->Run();
    const auto output = predictor_->GetOutput(0);
    std::size_t size = 1;
    for (const std::int64_t side : output->shape()) size *= static_cast<std::size_t>(side);
    const float* values = output->data<float>();
    return {values, values + size};
  }

  std::shared_ptr<lite::PaddlePredictor> predictor_;
};

}  // namespace

std::unique_ptr<Predictor> make_lite(const Files& files, const ModelIO& io, const RunOptions& options) {
  return std::make_unique<LitePredictor>(files, io, options);
}

}  // namespace edgerecall

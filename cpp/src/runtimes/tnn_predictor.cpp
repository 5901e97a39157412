// TNN, linked in: `.tnnproto` and `.tnnmodel` files.
#include <tnn/core/tnn.h>

#include "base/files.h"
#include "runtimes/backends.h"
#include "edgerecall/error.h"

namespace edgerecall {
namespace {

#if defined(__aarch64__) || defined(__arm__)
constexpr TNN_NS::DeviceType kDevice = TNN_NS::DEVICE_ARM;
#else
constexpr TNN_NS::DeviceType kDevice = TNN_NS::DEVICE_X86;
#endif

std::string content_of(const std::string& path) {
  const std::vector<std::uint8_t> bytes = read_file(path);
  return {bytes.begin(), bytes.end()};
}

void check(TNN_NS::Status status, const char* what) {
  if (status != TNN_NS::TNN_OK)
    throw RuntimeFailed(std::string("tnn: ") + what + ": " + one_line(status.description()));
}

class TnnPredictor : public Predictor {
 public:
  /// It names no version; of its threads it tells nothing.
  TnnPredictor(const Files& files, const ModelIO& io, const RunOptions& options)
      : Predictor(io, {"tnn", "unknown", "fp32", 0, {}}) {
    only_fp32("tnn", options);
    TNN_NS::ModelConfig model;
    model.params = {content_of(file_of(files, "model")), content_of(file_of(files, "weights"))};
    check(net_.Init(model), "it does not take the model");
    TNN_NS::InputShapesMap named;
    check(net_.GetModelInputShapesMap(named), "it does not take the model");
    if (named.size() != 1) throw RuntimeFailed("tnn: expected a model of one input");
    input_ = named.begin()->first;
    config_.device_type = kDevice;
    config_.precision = TNN_NS::PRECISION_HIGH;  // else ARM computes in half precision where it can
    threads_ = options.threads;
    prepare(options.batch);
  }

 private:
  TNN_NS::DimsVector shape(std::size_t count) const {
    TNN_NS::DimsVector dims = {static_cast<int>(count)};
    for (const std::size_t side : io_.input_shape) dims.push_back(static_cast<int>(side));
    return dims;
  }

  /// A new instance for another batch size: one that is reshaped keeps the memory, and some layers the size, of before.
  void prepare(std::size_t count) {
    instance_.reset();
    ready_ = 0;
    TNN_NS::Status status;
    instance_ = net_.CreateInst(config_, status, {{input_, shape(count)}});
    check(status, "it does not take the model");
    check(instance_->SetCpuNumThreads(threads_), "threads");
    ready_ = count;
  }

  std::vector<float> run(const float* batch, std::size_t count) override {
    if (count != ready_) prepare(count);
    // It only reads what it is given.
    auto given = std::make_shared<TNN_NS::Mat>(kDevice, TNN_NS::NCHW_FLOAT, shape(count), const_cast<float*>(batch));
    check(instance_->SetInputMat(given, TNN_NS::MatConvertParam()), "the inference failed");
    check(instance_->Forward(), "the inference failed");
    std::shared_ptr<TNN_NS::Mat> taken;
    check(instance_->GetOutputMat(taken, TNN_NS::MatConvertParam(), "", kDevice), "the inference failed");
    std::size_t size = 1;
    for (const int side : taken->GetDims()) size *= static_cast<std::size_t>(side);
    const float* values = static_cast<const float*>(taken->GetData());
    return {values, values + size};
  }

  TNN_NS::TNN net_;
  TNN_NS::NetworkConfig config_;
  std::shared_ptr<TNN_NS::Instance> instance_;
  std::string input_;
  int threads_ = 1;
  std::size_t ready_ = 0;  // batch size that it is prepared for
};

}  // namespace

std::unique_ptr<Predictor> make_tnn(const Files& files, const ModelIO& io, const RunOptions& options) {
  return std::make_unique<TnnPredictor>(files, io, options);
}

}  // namespace edgerecall

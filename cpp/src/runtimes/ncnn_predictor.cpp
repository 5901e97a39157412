// ncnn, linked in. It takes one image at a time.
#include <ncnn/cpu.h>
#include <ncnn/net.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "runtimes/backends.h"
#include "edgerecall/error.h"

namespace edgerecall {
namespace {

class NcnnPredictor : public Predictor {
 public:
  NcnnPredictor(const Files& files, const ModelIO& io, const RunOptions& options)
      : Predictor(io, {"ncnn", NCNN_VERSION_STRING, name_of(options.precision), options.threads, {}}) {
    ncnn::Option& wanted = net_.opt;
    wanted.num_threads = options.threads;
    wanted.use_vulkan_compute = false;
    const bool half = options.precision == Precision::fp16;
    if (half && ncnn::cpu_support_arm_asimdhp() == 0)
      throw Unavailable("runtime 'ncnn' needs a CPU with half-precision arithmetic for fp16: ask for fp32");
    // All of these are on by default where the CPU has them.
    wanted.use_fp16_packed = wanted.use_fp16_storage = wanted.use_fp16_arithmetic = half;
    wanted.use_bf16_packed = wanted.use_bf16_storage = options.precision == Precision::bf16;
    if (net_.load_param(file_of(files, "model").c_str()) != 0) throw RuntimeFailed("ncnn: cannot read the model");
    if (net_.load_model(file_of(files, "weights").c_str()) != 0) throw RuntimeFailed("ncnn: cannot read the weights");
    if (net_.input_indexes().size() != 1 || net_.output_indexes().size() != 1)
      throw RuntimeFailed("ncnn: expected a model with one input and one output");
    info_.threads = wanted.num_threads;
    // It tells nothing of what it computes; layers with int8 weights it refuses, or computes so.
    const auto& layers = net_.layers();
    if (std::any_of(layers.begin(), layers.end(), [](const ncnn::Layer* one) { return one->support_int8_storage; }))
      info_.precision += "+int8";
  }

 private:
  std::vector<float> run(const float* batch, std::size_t count) override {
    const auto side = [&](std::size_t axis) { return static_cast<int>(io_.input_shape[axis]); };
    const std::size_t plane = static_cast<std::size_t>(side(1)) * static_cast<std::size_t>(side(2));
    std::vector<float> all;
    for (std::size_t image = 0; image < count; ++image) {
      ncnn::Mat input(side(2), side(1), side(0));
      if (input.empty()) throw RuntimeFailed("ncnn: not enough memory");
      for (int channel = 0; channel < side(0); ++channel)  // its planes begin at aligned places
        std::memcpy(input.channel(channel),
                    batch + image * io_.input_size() + static_cast<std::size_t>(channel) * plane,
                    plane * sizeof(float));
      ncnn::Extractor extractor = net_.create_extractor();
      ncnn::Mat output;
      if (extractor.input(net_.input_indexes()[0], input) != 0 ||
          extractor.extract(net_.output_indexes()[0], output) != 0)
        throw RuntimeFailed("ncnn: the inference failed");
      // Not total(), which counts what only aligns the memory.
      const ncnn::Mat flat = output.reshape(output.w * output.h * output.d * output.c);
      if (flat.empty() || flat.elemsize != sizeof(float) || flat.elempack != 1)
        throw RuntimeFailed("ncnn: expected float32 output, got " + std::to_string(output.total()) + " values of " +
                            std::to_string(output.elemsize) + " bytes in packs of " + std::to_string(output.elempack));
      const auto* values = static_cast<const float*>(flat.data);
      all.insert(all.end(), values, values + flat.w);
    }
    return all;
  }

  ncnn::Net net_;
};

}  // namespace

std::unique_ptr<Predictor> make_ncnn(const Files& files, const ModelIO& io, const RunOptions& options) {
  return std::make_unique<NcnnPredictor>(files, io, options);
}

}  // namespace edgerecall

// What a row's process does: load, warm up, time, judge, embed.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "edgerecall/bundle.h"
#include "base/json_text.h"

namespace edgerecall::device {

/// One row of the bench and what it is fed. inputs: tensors to embed beside the images, `(n, 3, H, W)`.
struct RowPlan {
  std::string runtime, name, quantisation, precision;
  int threads = 1;
  int batch = 1;
  std::vector<int> cpus;
  std::vector<std::string> images;
  std::vector<float> inputs;
  std::string out;  ///< `<out>.npy` and `<out>-inputs.npy` are written
};

class RowWorker {
 public:
  RowWorker(const Bundle& bundle, const Golden& golden, const RowPlan& plan);

  /// By `do`: load, warm, round (count, limit_s), golden, embed (begin, count), finish. Each gives columns of the row,
  /// but `round` its `samples_ns`, `cpu_ns`, `wall_ns`, and `embed` its `bad` images.
  Json answer(const Json& command);

 private:
  Json load();
  Json warm_up();
  Json round(std::size_t count, double limit_s);
  Json judge();
  Json embed(std::size_t begin, std::size_t count);
  void save();
  Json finish();
  Json stages();
  std::vector<std::int64_t> timed(std::size_t count, double limit_s);

  const Bundle& bundle_;
  const Golden& golden_;
  const RowPlan& plan_;
  std::vector<float> batch_, early_, embeddings_;
  std::unique_ptr<Predictor> predictor_;
};

}  // namespace edgerecall::device

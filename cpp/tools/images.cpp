#include "images.h"

#include <algorithm>

#include "edgerecall/error.h"
#include "edgerecall/machine.h"
#include "session.h"

namespace edgerecall::device {

Embedded embed_images(const Bundle& bundle, Predictor& predictor, const std::vector<std::string>& images,
                      std::size_t batch, int threads) {
  const std::size_t size = bundle.io().input_size();
  std::vector<float> tensors(batch_size(bundle.io(), batch));
  Embedded result;
  result.reason.resize(images.size());
  for (std::size_t begin = 0; begin < images.size(); begin += batch) {
    const std::size_t count = std::min(batch, images.size() - begin);
    std::vector<EncodedImage> sources;
    for (std::size_t index = begin; index < begin + count; ++index) sources.push_back({images[index]});
    const std::vector<ImageOutcome> outcomes =
        run_batch(bundle.preprocess(), sources, threads, max_pixels(), TensorType::float32, tensors.data());
    std::size_t kept = 0;
    for (std::size_t at = 0; at < count; ++at) {
      if (outcomes[at].status != ImageStatus::ok) {
        result.reason[begin + at] = outcomes[at].message;
        continue;
      }
      if (kept != at) std::copy_n(tensors.data() + at * size, size, tensors.data() + kept * size);
      result.good.push_back(begin + at);
      ++kept;
    }
    if (kept > 0) {
      // Runtimes are ready for whole batches: the last one is filled up.
      std::fill(tensors.begin() + static_cast<std::ptrdiff_t>(kept * size), tensors.end(), 0.0f);
      const std::vector<float> rows = predictor.embed(tensors.data(), batch);
      result.rows.insert(result.rows.end(), rows.begin(),
                         rows.begin() + static_cast<std::ptrdiff_t>(kept * (rows.size() / batch)));
    }
  }
  return result;
}

Embedded embed_as_asked(const Arguments& arguments, const Bundle& bundle, const std::vector<std::string>& images,
                        std::size_t batch) {
  bind_to(cpus_of(arguments.text("cpus")));
  const int threads = arguments.count("threads");
  const std::string& runtime = arguments.text("runtime");
  const std::string& chosen = arguments.text("quantisation");
  const Artifact& artifact = bundle.artifact(runtime, chosen == "all" ? "" : chosen);
  const auto predictor = open_predictor(runtime, bundle.files(artifact), bundle.io(),
                                        run_options(runtime, threads, arguments.text("precision"), batch));
  Embedded found = embed_images(bundle, *predictor, images, batch, threads);
  if (bundle.normalize_embedding()) l2_normalize(found.rows.data(), found.good.size(), bundle.io().embedding_dim);
  return found;
}

}  // namespace edgerecall::device

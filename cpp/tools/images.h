// Images to embeddings, batch by batch.
#pragma once
#include <string>
#include <vector>

#include "arguments.h"
#include "edgerecall/bundle.h"

namespace edgerecall::device {

struct Embedded {
  std::vector<float> rows;          ///< of the good images, in order, `(good.size(), dim)`
  std::vector<std::size_t> good;    ///< indices of the images
  std::vector<std::string> reason;  ///< for every image: why it is bad; empty where it is good
};

/// Embeds images in batches, preprocessing on `threads` threads, to raw rows. A bad image is left out and told.
Embedded embed_images(const Bundle& bundle, Predictor& predictor, const std::vector<std::string>& images,
                      std::size_t batch, int threads);

/// The same by the model, on the CPUs and with the threads that the command line asks for, to rows as the bundle's spec
/// wants them.
Embedded embed_as_asked(const Arguments& arguments, const Bundle& bundle, const std::vector<std::string>& images,
                        std::size_t batch);

}  // namespace edgerecall::device

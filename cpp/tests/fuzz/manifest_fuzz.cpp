// A `bundle.json`: what is understood of it can be used, or an InputError.
#include <cstdlib>
#include <string>

#include "edgerecall/bundle.h"
#include "edgerecall/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edgerecall;
  try {
    const Manifest manifest = Manifest::parse(std::string(data, data + size), "manifest");
    if (manifest.preprocess == nullptr || manifest.golden_images.empty() || manifest.io.embedding_dim == 0)
      std::abort();
    for (const Artifact& artifact : manifest.artifacts)
      for (const BundleFile& file : artifact.files)
        if (file.path.empty() || file.path.front() == '/' || file.path.find("..") == 0) std::abort();
  } catch (const InputError&) {
  }
  return 0;
}

// A `bundle.json`: what is understood of it can be used, or an InputError.
#include <cstdlib>
#include <string>
#include <vector>

#include "edgerecall/bundle.h"
#include "edgerecall/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edgerecall;
  try {
    const Manifest manifest = Manifest::parse(std::string(data, data + size), "manifest");
    if (manifest.preprocess == nullptr || manifest.golden_images.empty() || manifest.io.embedding_dim == 0)
      std::abort();
    std::vector<BundleFile> files = manifest.golden;
    for (const Artifact& artifact : manifest.artifacts)
      files.insert(files.end(), artifact.files.begin(), artifact.files.end());
    for (const BundleFile& file : files)
      if (file.path.empty() || file.path.front() == '/' || ("/" + file.path).find("/.") != std::string::npos)
        std::abort();
  } catch (const InputError&) {
  }
  return 0;
}

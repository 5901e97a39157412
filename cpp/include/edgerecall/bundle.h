#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "edgerecall/predictor.h"
#include "edgerecall/preprocess.h"

namespace edgerecall {

struct BundleFile {
  std::string role, path, sha256;
  std::uint64_t bytes = 0;
};

/// One converted model. targets: machines it runs on, `any` for a portable one.
struct Artifact {
  std::string name, runtime, precision;
  std::vector<std::string> targets;
  std::vector<BundleFile> files;

  std::uint64_t bytes() const;
};

/// Golden images with what the training framework made of them: tensors `(n, 3, H, W)`, raw embeddings `(n, dim)`.
struct Golden {
  std::vector<std::string> images;
  std::vector<float> tensors, embeddings;
};

/// A bundle on disk. Artifacts whose files are not there are left out: a device gets those that it can run.
class Bundle {
 public:
  /// Reads the manifest and checks the size and hash of every file that is there; golden ones all must be. Throws
  /// InputError for a bundle that is incomplete, changed, or of another format.
  explicit Bundle(const std::string& root);

  const std::string& root() const { return root_; }
  const ModelIO& io() const { return io_; }
  bool normalize_embedding() const { return normalize_embedding_; }
  const Preprocess& preprocess() const { return *preprocess_; }
  const std::vector<Artifact>& artifacts() const { return artifacts_; }

  /// The one that a runtime uses on this machine. Throws InputError when there is none.
  const Artifact& artifact(const std::string& runtime) const;
  Files files(const Artifact& artifact) const;
  Golden golden() const;

  /// This machine's architecture as artifacts name it.
  static std::string machine();

 private:
  std::string root_;
  ModelIO io_;
  bool normalize_embedding_ = true;
  std::shared_ptr<const Preprocess> preprocess_;
  std::vector<Artifact> artifacts_;
  std::vector<std::string> golden_images_;
};

/// Each of `count` rows of `dim` to unit length, as the bundle's embeddings are compared; a zero row stays.
void l2_normalize(float* rows, std::size_t count, std::size_t dim);

}  // namespace edgerecall

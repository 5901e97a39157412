#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "edgerecall/predictor.h"
#include "edgerecall/preprocess.h"

namespace edgerecall {

struct BundleFile {
  std::string role, path, sha256;
  std::uint64_t bytes = 0;
};

/// One converted model. targets: machines it runs on, `any` for a portable one. quantisation: what its weights are,
/// `fp32`, `fp16` or `int8`; how a runtime computes with them is its execution precision.
struct Artifact {
  std::string name, runtime, quantisation;
  std::vector<std::string> targets;
  std::vector<BundleFile> files;

  std::uint64_t bytes() const;
  bool runs_here() const;
};

/// What `bundle.json` says.
struct Manifest {
  static constexpr const char* kName = "bundle.json";
  static constexpr const char* kTensors = "golden/tensors.npy";
  static constexpr const char* kEmbeddings = "golden/embeddings.npy";

  int format = 0;
  ModelIO io;
  bool normalize_embedding = true;
  std::shared_ptr<const Preprocess> preprocess;
  std::vector<Artifact> artifacts;
  std::vector<BundleFile> golden;
  std::vector<std::string> golden_images;

  /// Throws InputError, which begins with `where`, for what Python's `Manifest.parse` refuses too.
  static Manifest parse(const std::string& text, const std::string& where);

  /// Format 1 has its golden vectors in an archive, which is not read here.
  bool has_vectors() const { return format > 1; }
};

/// Golden images with what the training framework made of them: tensors `(n, 3, H, W)`, raw embeddings `(n, dim)`.
struct Golden {
  std::vector<std::string> images;
  std::vector<float> tensors, embeddings;
};

/// The files of a bundle that were hashed and found good.
struct Hashed {
  std::mutex mutex;
  std::set<std::string> paths;
};

/// A bundle on disk. Artifacts whose files are not there are left out: a device gets those that it can run. What is
/// used is hashed first, once. Several threads may use one.
class Bundle {
 public:
  /// Reads the manifest and checks the size of every file that is there; golden ones all must be. Throws InputError for
  /// a bundle that is incomplete, changed, or of another format.
  explicit Bundle(const std::string& root);

  const std::string& root() const { return root_; }
  const ModelIO& io() const { return manifest_.io; }
  bool normalize_embedding() const { return manifest_.normalize_embedding; }
  const Preprocess& preprocess() const { return *manifest_.preprocess; }
  const std::vector<Artifact>& artifacts() const { return manifest_.artifacts; }

  /// The quantisations of a runtime's artifacts for this machine.
  std::vector<std::string> quantisations(const std::string& runtime) const;
  /// The one that a runtime uses on this machine: of a quantisation where it is given, else the fp32 one, else the
  /// first. Throws InputError when there is none.
  const Artifact& artifact(const std::string& runtime, const std::string& quantisation = "") const;
  /// An artifact's files, hashed. Throws InputError when one was changed.
  Files files(const Artifact& artifact) const;
  /// Throws InputError when a file was changed, or the bundle is of format 1, whose vectors are not read here.
  Golden golden() const;
  /// Hashes everything that is there. Throws InputError.
  void check() const;

  /// This machine's architecture as artifacts name it.
  static std::string machine();

 private:
  std::string root_;
  Manifest manifest_;
  std::shared_ptr<Hashed> hashed_ = std::make_shared<Hashed>();
};

/// Each of `count` rows of `dim` to unit length, as the bundle's embeddings are compared; a zero row stays.
void l2_normalize(float* rows, std::size_t count, std::size_t dim);

}  // namespace edgerecall

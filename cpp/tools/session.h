// What the verbs share: opening a model as the command line says, and judging its embeddings.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "edgerecall/bundle.h"

namespace edgerecall::device {

/// The options of every verb that runs a model.
std::vector<Option> model_options(const std::string& runtimes);

/// The folder `lib` beside this program, for the runtimes' libraries.
std::string library_folder();

/// What is asked of a runtime, its library looked for in `library_folder` first.
RunOptions run_options(const std::string& runtime, int threads, const std::string& precision, std::size_t batch);

/// The runtimes built in, and why one cannot be used here (its library is not there); empty where it can.
std::map<std::string, std::string> runtime_problems();

/// Those of --runtime; without it those that can be used and that the bundle has an artifact for. Throws InputError
/// when there is none.
std::vector<std::string> chosen_runtimes(const Arguments& arguments, const Bundle& bundle);

/// Runtimes with a quantisation each: of `chosen_runtimes` those of --quantisation, by default all that the bundle has.
/// A pair without an artifact is kept, so that its row reports the reason.
std::vector<std::pair<std::string, std::string>> chosen_models(const Arguments& arguments, const Bundle& bundle);

/// Raw embeddings `(count, dim)` against the reference's, as `edgerecall verify` judges them.
struct Comparison {
  double min_cosine = 1;
  double max_error = 0;
  double tolerance = 0;
  bool holds() const { return max_error <= tolerance; }
};
Comparison compare(const std::vector<float>& output, const std::vector<float>& reference, std::size_t dim,
                   const std::string& precision, const std::string& quantisation);

/// Why a model does not run in the execution precision requested, or not as its artifact is quantised; empty when it
/// does. As `precision_problem` in runtimes/predictor/precision.py.
std::string precision_problem(const std::string& quantisation, const std::string& requested, const std::string& ran);

/// Golden images preprocessed here: how far from the golden tensors, 0 when bit for bit the same.
double golden_pixel_error(const Bundle& bundle, const Golden& golden);

/// How many numbers a batch of tensors has. Throws InputError when that is more than this machine can count.
std::size_t batch_size(const ModelIO& io, std::size_t batch);

/// Embeds each tensor alone (batch 1); float32 `(n, dim)`.
std::vector<float> embed_one_by_one(Predictor& predictor, const std::vector<float>& tensors);

/// Images by the arguments: files, folders (searched, sorted), and lists of files, one a line.
std::vector<std::string> find_images(const std::vector<std::string>& places, const std::string& list);

std::int64_t max_pixels();

}  // namespace edgerecall::device

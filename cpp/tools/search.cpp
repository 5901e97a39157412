#include <algorithm>
#include <cstdio>
#include <memory>

#include "edgerecall/disk_gallery.h"
#include "edgerecall/error.h"
#include "edgerecall/npy.h"
#include "edgerecall/search.h"
#include "images.h"
#include "base/json_text.h"
#include "base/shared_library.h"
#include "session.h"
#include "verbs.h"

namespace edgerecall::device {
namespace {

Storage storage_of(const Arguments& arguments) {
  try {
    return storage_named(arguments.text("storage"), "--storage");
  } catch (const InputError& error) {
    throw UsageError(error.what());
  }
}

/// What is searched: embeddings as 'predict --out' writes them, kept in memory, or a gallery in a folder.
class Searched {
 public:
  Searched(const Arguments& arguments, const Bundle& bundle) {
    const std::string place = arguments.text("gallery");
    const std::size_t dim = bundle.io().embedding_dim;
    if (is_folder(place)) {
      disk_ = std::make_unique<DiskGallery>(place);
      disk_->require_model(bundle);
      return;
    }
    const Npy rows = read_npy(place);
    if (rows.shape.size() != 2 || rows.shape[1] != dim)
      throw InputError(place + ": expected embeddings of " + std::to_string(dim) + " numbers");
    memory_ = std::make_unique<Gallery>(dim, storage_of(arguments));
    memory_->add(rows.values.data(), rows.shape[0]);
  }

  std::size_t size() const { return disk_ ? disk_->size() : memory_->size(); }

  void search(const std::vector<float>& queries, std::size_t count, std::size_t k, int threads, std::int64_t* indices,
              float* similarities) const {
    if (disk_) return disk_->search(queries.data(), count, k, threads, indices, similarities, {});
    memory_->search(queries.data(), count, k, threads, indices, similarities, {});
  }

  Json told(std::int64_t row, float similarity) const {
    if (!disk_) return {{"row", row}, {"similarity", similarity}};
    const DiskGallery::Row found = disk_->row(row);
    Json told = {{"id", found.id}, {"similarity", similarity}, {"label", nullptr}};
    if (found.labelled) told["label"] = found.label;
    if (!found.metadata.empty()) told["metadata"] = parse_json(found.metadata);
    if (!found.metadata.empty() && told["metadata"].is_discarded())
      throw InputError("the gallery is damaged: its metadata are no JSON: see 'edgerecall gallery verify'");
    return told;
  }

 private:
  std::unique_ptr<Gallery> memory_;
  std::unique_ptr<DiskGallery> disk_;
};

int search(const Arguments& arguments) {
  storage_of(arguments);
  const Bundle bundle(arguments.bundle());
  if (!arguments.flag("gallery")) throw UsageError("expected --gallery: a gallery's folder, or FILE.npy of 'predict'");
  const Searched gallery(arguments, bundle);
  const std::vector<std::string> images =
      find_images({arguments.rest().begin() + 1, arguments.rest().end()}, arguments.text("list"));
  const Embedded found = embed_as_asked(arguments, bundle, images, 1);
  const std::size_t count = found.good.size();
  const std::size_t top =
      std::min(static_cast<std::size_t>(arguments.count("top")), std::max<std::size_t>(gallery.size(), 1));
  std::vector<std::int64_t> indices(count * top);
  std::vector<float> similarities(count * top);
  if (count > 0)
    gallery.search(found.rows, count, top, arguments.count("threads"), indices.data(), similarities.data());
  std::size_t row = 0;
  for (std::size_t index = 0; index < images.size(); ++index) {
    Json line = {{"image", images[index]}};
    if (!found.reason[index].empty()) {
      line["error"] = found.reason[index];
    } else {
      line["neighbours"] = Json::array();
      for (std::size_t at = row * top; at < (row + 1) * top && indices[at] >= 0; ++at)
        line["neighbours"].push_back(gallery.told(indices[at], similarities[at]));
      ++row;
    }
    std::printf("%s\n", to_text(line).c_str());
  }
  if (count == 0) throw InputError("none of the images could be read");
  return 0;
}

}  // namespace

Verb search_verb() {
  const std::vector<std::string> built = built_runtimes();
  std::vector<Option> options = model_options(built.empty() ? "" : built.front());
  options.push_back(
      {"gallery", "FOLDER|FILE", "a gallery in a folder, or embeddings as 'predict --out' writes them", ""});
  options.push_back({"storage", "TYPE", "how a file's are kept: float32, float16, int8 or binary", "float32"});
  options.push_back({"top", "K", "neighbours of each image", "10"});
  options.push_back({"list", "FILE", "images to search for, one path a line", ""});
  return {"search", "BUNDLE IMAGE|FOLDER... --gallery FOLDER|FILE [options]",
          "The nearest rows of a gallery, exactly: a JSON line for each image.", options, search};
}

}  // namespace edgerecall::device

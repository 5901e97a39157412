// Rows of a gallery in a folder: added and removed.
#include <algorithm>
#include <cstdio>

#include "base/json_text.h"
#include "base/shared_library.h"
#include "edgerecall/disk_gallery.h"
#include "edgerecall/error.h"
#include "images.h"
#include "session.h"
#include "verbs.h"

namespace edgerecall::device {
namespace {

/// An image's id, as Python's `gallery add` gives it: its path below the folder that was named, or its own name.
std::string id_of(const std::string& path, const std::vector<std::string>& folders) {
  for (const std::string& folder : folders)
    if (path.size() > folder.size() + 1 && path.compare(0, folder.size() + 1, folder + "/") == 0)
      return path.substr(folder.size() + 1);
  return path.substr(path.find_last_of('/') + 1);
}

int print_line(const Json& line) {
  std::printf("%s\n", to_text(line).c_str());
  return 0;
}

int add(const Arguments& arguments) {
  const Bundle bundle(arguments.bundle());
  if (!arguments.flag("gallery")) throw UsageError("expected --gallery: a gallery's folder");
  if (arguments.given("label") && !arguments.flag("label")) throw UsageError("--label: expected a text, got nothing");
  GalleryWriter writer(arguments.text("gallery"));
  writer.gallery().require_model(bundle);
  std::vector<std::string> places(arguments.rest().begin() + 1, arguments.rest().end()), folders;
  for (std::string& place : places) {
    while (place.size() > 1 && place.back() == '/') place.pop_back();
    if (is_folder(place)) folders.push_back(place);
  }
  const bool listing = arguments.flag("list");
  const std::size_t listed = listing ? find_images({}, arguments.text("list")).size() : 0;  // they come first
  const std::vector<std::string> images = find_images(places, arguments.text("list"));
  const auto batch = static_cast<std::size_t>(arguments.count("batch"));
  const Embedded found = embed_as_asked(arguments, bundle, images, batch);
  for (std::size_t index = 0; index < images.size(); ++index)
    if (!found.reason[index].empty())
      std::fprintf(stderr, "edgerecall-device: %s: %s: left out\n", images[index].c_str(), found.reason[index].c_str());
  if (found.good.empty()) throw InputError("none of the images could be read");
  std::vector<GalleryWriter::NewRow> rows;
  for (const std::size_t index : found.good)
    rows.push_back({index < listed ? images[index] : id_of(images[index], folders), arguments.text("label"),
                    arguments.flag("label")});
  const std::size_t replaced = writer.add(rows, found.rows.data(), arguments.flag("replace"));
  return print_line({{"added", rows.size()},
                     {"replaced", replaced},
                     {"skipped", images.size() - rows.size()},
                     {"rows", writer.gallery().size()}});
}

int remove(const Arguments& arguments) {
  if (arguments.rest().size() < 2) throw UsageError("expected a gallery's folder, and ids of rows");
  GalleryWriter writer(arguments.rest().front());
  const std::size_t removed = writer.remove({arguments.rest().begin() + 1, arguments.rest().end()});
  return print_line({{"removed", removed}, {"rows", writer.gallery().size()}});
}

}  // namespace

Verb add_verb() {
  const std::vector<std::string> built = built_runtimes();
  std::vector<Option> options = model_options(built.empty() ? "" : built.front());
  options.push_back({"gallery", "FOLDER", "a gallery in a folder, as 'edgerecall gallery' makes it", ""});
  options.push_back({"label", "TEXT", "of all these images; without it they have none", ""});
  options.push_back({"replace", nullptr, "write over rows that are there with one of these ids", ""});
  options.push_back({"batch", "N", "images in one inference", "8"});
  options.push_back({"list", "FILE", "images to add, one path a line", ""});
  return {
      "add", "BUNDLE IMAGE|FOLDER... --gallery FOLDER [options]",
      "Images to a gallery's rows, all or none; an image's id is its path below the folder that is named, its own name,"
      " or what the list says.",
      options, add};
}

Verb remove_verb() { return {"remove", "GALLERY ID...", "Removes a gallery's rows by their ids.", {}, remove}; }

}  // namespace edgerecall::device

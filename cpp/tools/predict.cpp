#include <cstdio>

#include "edgerecall/error.h"
#include "base/files.h"
#include "base/json_text.h"
#include "edgerecall/npy.h"
#include "images.h"
#include "session.h"
#include "verbs.h"

namespace edgerecall::device {
namespace {

int predict(const Arguments& arguments) {
  const Bundle bundle(arguments.bundle());
  const std::vector<std::string> images =
      find_images({arguments.rest().begin() + 1, arguments.rest().end()}, arguments.text("list"));
  const auto batch = static_cast<std::size_t>(arguments.count("batch"));
  const Embedded found = embed_as_asked(arguments, bundle, images, batch);
  const std::size_t dim = bundle.io().embedding_dim;

  const bool inside = !arguments.flag("out");
  std::string lines;
  std::size_t row = 0;
  for (std::size_t index = 0; index < images.size(); ++index) {
    Json line = {{"image", images[index]}};
    if (!found.reason[index].empty()) {
      line["error"] = found.reason[index];
      std::fprintf(stderr, "edgerecall-device: %s: %s: left out\n", images[index].c_str(), found.reason[index].c_str());
    } else {
      if (inside) {
        line["embedding"] = std::vector<float>(found.rows.begin() + static_cast<std::ptrdiff_t>(row * dim),
                                               found.rows.begin() + static_cast<std::ptrdiff_t>((row + 1) * dim));
      } else {
        line["row"] = row;
      }
      ++row;
    }
    lines += to_text(line) + "\n";
  }
  if (!inside) write_npy(arguments.text("out"), {found.good.size(), dim}, found.rows.data());
  if (arguments.flag("json-lines")) {
    write_file(arguments.text("json-lines"), lines.data(), lines.size());
  } else {
    std::fputs(lines.c_str(), stdout);
  }
  if (found.good.empty()) throw InputError("none of the images could be read");
  return 0;
}

}  // namespace

Verb predict_verb() {
  const std::vector<std::string> built = built_runtimes();
  std::vector<Option> options = model_options(built.empty() ? "" : built.front());
  options.push_back({"batch", "N", "images in one inference", "8"});
  options.push_back({"list", "FILE", "images to embed, one path a line", ""});
  options.push_back({"out", "FILE", "embeddings as .npy, float32 (n, dim); without it they stand in the lines", ""});
  options.push_back({"json-lines", "FILE", "a line for each image; without it: to standard output", ""});
  return {"predict", "BUNDLE IMAGE|FOLDER... [options]", "Images to embeddings. A bad image is told and left out.",
          options, predict};
}

}  // namespace edgerecall::device

#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "edgerecall/bundle.h"
#include "edgerecall/search.h"

namespace edgerecall {

/// A gallery in a folder, as Python's `edgerecall gallery` writes it: embeddings with ids, labels and metadata, mapped
/// and searched where they lie. It is what was there when it was opened, whatever is written since. Several threads may
/// use one.
class DiskGallery {
 public:
  /// Throws InputError for what is no gallery, or is damaged where opening looks: sizes and headers, not every byte.
  explicit DiskGallery(const std::string& root);
  ~DiskGallery();
  DiskGallery(const DiskGallery&) = delete;
  DiskGallery& operator=(const DiskGallery&) = delete;

  /// Rows that are there.
  std::size_t size() const;
  std::size_t dim() const;
  Storage storage() const;

  /// Throws InputError, with the reason, unless the gallery's embeddings come from the bundle's model: the same
  /// preprocessing, and the same embeddings of the golden images.
  void require_model(const Bundle& bundle) const;

  /// As `search_rows`.
  void search(const float* queries, std::size_t count, std::size_t k, int threads, std::int64_t* indices,
              float* similarities, const Progress& progress) const;

  /// What is known of a row: by its number, as a search gives it. metadata: JSON; empty where there is none.
  struct Row {
    std::string id, label, metadata;
    bool labelled = false;
  };
  /// Throws InputError where the file is damaged.
  Row row(std::int64_t number) const;

 private:
  friend class GalleryWriter;
  struct State;
  std::unique_ptr<State> state_;
};

/// Changes a gallery in a folder, as Python's does: each change is on the disk when it returns, and whatever stops one,
/// the gallery is as before or as after. One writes at a time, in all processes; any number read. Not thread-safe.
class GalleryWriter {
 public:
  /// Throws InputError where another writes, and for what is no gallery.
  explicit GalleryWriter(const std::string& root);
  ~GalleryWriter();
  GalleryWriter(const GalleryWriter&) = delete;
  GalleryWriter& operator=(const GalleryWriter&) = delete;

  struct NewRow {
    std::string id, label;
    bool labelled = false;
  };
  /// Adds rows `(rows.size(), dim)`; how many were replaced. replace: those that are there with one of these ids go in
  /// the same step; without, they are an InputError. So are ids and labels that are no UTF-8 of 1 to 4,096 bytes, and
  /// values that are not finite or, in a float16 gallery, too large for it.
  std::size_t add(const std::vector<NewRow>& rows, const float* embeddings, bool replace);

  /// Removes rows with one of these ids; how many there were.
  std::size_t remove(const std::vector<std::string>& ids);

  /// As it is now.
  const DiskGallery& gallery() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace edgerecall

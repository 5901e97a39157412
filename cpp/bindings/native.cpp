#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "edgerecall/bit_gallery.h"
#include "edgerecall/bundle.h"
#include "edgerecall/decode.h"
#include "edgerecall/error.h"
#include "edgerecall/predictor.h"
#include "edgerecall/preprocess.h"
#include "edgerecall/resize.h"
#include "edgerecall/retrieval.h"
#include "edgerecall/search.h"

namespace py = pybind11;
using namespace edgerecall;

namespace {

using Pixels = py::array_t<std::uint8_t>;

struct Bytes {
  const std::uint8_t* data;
  std::size_t size;
};

Bytes bytes_of(const py::bytes& value) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(value.ptr(), &data, &size) != 0) throw py::error_already_set();
  return {reinterpret_cast<const std::uint8_t*>(data), static_cast<std::size_t>(size)};
}

ImageView view_of(const Pixels& image) {
  if (image.ndim() != 3 || image.shape(2) != 3) throw py::value_error("image: expected uint8 (height, width, 3)");
  if (image.shape(0) < 1 || image.shape(1) < 1 || image.size() > INT32_MAX)
    throw InputError("image: expected 1 to 700 million pixels");
  const bool narrow = image.shape(1) == 1, flat = image.shape(0) == 1;  // strides of such axes mean nothing
  if (image.strides(2) != 1 || (!narrow && image.strides(1) != 3) || (!flat && image.strides(0) < 0))
    throw py::value_error("image: rows must be contiguous");
  return {image.data(),
          flat ? static_cast<std::size_t>(image.shape(1)) * 3 : static_cast<std::size_t>(image.strides(0)),
          {static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1))}};
}

/// Hands an image over to numpy without a copy.
Pixels to_numpy(Image image) {
  auto* owned = new Image(std::move(image));
  const py::capsule owner(owned, [](void* pointer) { delete static_cast<Image*>(pointer); });
  return Pixels({static_cast<py::ssize_t>(owned->size().height), static_cast<py::ssize_t>(owned->size().width),
                 static_cast<py::ssize_t>(3)},
                owned->data(), owner);
}

template <typename Make>
Pixels without_gil(const Make& make) {
  Image image;
  {
    const py::gil_scoped_release release;
    image = make();
  }
  return to_numpy(std::move(image));
}

/// The core's progress as a Python call; also where Ctrl-C is noticed.
Progress progress_to(const py::object& callback) {
  return [&callback](double share) {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) return false;
    if (callback.is_none()) return true;
    PyObject* answer = PyObject_CallFunction(callback.ptr(), "d", share);
    Py_XDECREF(answer);
    return answer != nullptr;
  };
}

/// Runs without the interpreter's lock; an exception of the progress callback comes out as itself.
template <typename Work>
void interruptible(const Work& work) {
  try {
    const py::gil_scoped_release release;
    work();
  } catch (const Cancelled&) {
    throw py::error_already_set();
  }
}

/// What the core throws is raised as the package's own errors, which live as long as the process.
void raise_as_the_package_does() {
  static PyObject *input, *unsupported, *unavailable, *failed;
  const py::module_ errors = py::module_::import("edgerecall.runtimes.core.errors");
  const auto kept = [&](const char* name) { return py::object(errors.attr(name)).release().ptr(); };
  input = kept("InputError"), unsupported = kept("UnsupportedImage");
  unavailable = kept("RuntimeUnavailable"), failed = kept("RuntimeFailed");
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const UnsupportedImage& error) {
      PyErr_SetString(unsupported, error.what());
    } catch (const InputError& error) {
      PyErr_SetString(input, error.what());
    } catch (const Unavailable& error) {
      PyErr_SetString(unavailable, error.what());
    } catch (const RuntimeFailed& error) {
      PyErr_SetString(failed, error.what());
    }
  });
}

Pixels py_decode(const py::bytes& encoded, bool apply_exif, std::int64_t max_pixels) {
  const Bytes bytes = bytes_of(encoded);
  return without_gil([&] { return decode(bytes.data, bytes.size, {apply_exif, max_pixels}); });
}

Pixels py_upright(const Pixels& image, int orientation) {
  const ImageView view = view_of(image);
  return without_gil([&] { return upright(Geometry().apply(view, INT64_MAX), orientation); });
}

Pixels py_apply(const Geometry& geometry, const Pixels& image, std::int64_t max_pixels) {
  const ImageView view = view_of(image);
  return without_gil([&] { return geometry.apply(view, max_pixels); });
}

/// Where `count` tensors go; TypeError or ValueError unless the array is of their type and shape.
std::pair<TensorType, void*> output_of(const Preprocess& preprocess, py::array& out, py::ssize_t count, bool batch) {
  const bool half = out.dtype().equal(py::dtype("e"));
  if (!half && !out.dtype().equal(py::dtype::of<float>())) throw py::type_error("out: expected float32 or float16");
  const ImageSize size = preprocess.output();
  const py::ssize_t lead = batch ? 1 : 0;
  const bool fits = out.ndim() == 3 + lead && (!batch || out.shape(0) >= count) && out.shape(lead) == 3 &&
                    out.shape(lead + 1) == size.height && out.shape(lead + 2) == size.width;
  constexpr int kAligned = 0x0100;
  if (!fits || (out.flags() & py::array::c_style) == 0 || (out.flags() & kAligned) == 0)
    throw py::value_error("out: expected a C-contiguous (" + std::string(batch ? "n, " : "") + "3, " +
                          std::to_string(size.height) + ", " + std::to_string(size.width) + ")");
  return {half ? TensorType::float16 : TensorType::float32, out.mutable_data()};
}

void py_run(const Preprocess& preprocess, const Pixels& image, py::array& out, std::int64_t max_pixels) {
  const ImageView view = view_of(image);
  const auto [type, data] = output_of(preprocess, out, 1, false);
  const py::gil_scoped_release release;
  preprocess.run(view, max_pixels, type, data);
}

py::list py_run_batch(const Preprocess& preprocess, const py::sequence& sources, py::array& out, int threads,
                      std::int64_t max_pixels) {
  std::vector<EncodedImage> images;
  std::vector<py::object> alive;
  for (const py::handle source : sources) {
    alive.push_back(py::reinterpret_borrow<py::object>(source));
    if (py::isinstance<py::bytes>(source)) {
      const Bytes bytes = bytes_of(py::reinterpret_borrow<py::bytes>(source));
      images.push_back({{}, bytes.data, bytes.size});
    } else {
      const auto path = py::reinterpret_steal<py::bytes>(PyUnicode_EncodeFSDefault(source.ptr()));
      if (!path) throw py::error_already_set();
      const Bytes text = bytes_of(path);
      if (std::memchr(text.data, 0, text.size) != nullptr) throw InputError("a path holds a zero byte");
      images.push_back({std::string(reinterpret_cast<const char*>(text.data), text.size)});
    }
  }
  const auto [found_type, found_data] = output_of(preprocess, out, static_cast<py::ssize_t>(images.size()), true);
  const TensorType type = found_type;  // C++17 lambdas do not capture structured bindings
  void* const data = found_data;
  std::vector<ImageOutcome> outcomes;
  const py::none no_callback;
  interruptible(
      [&] { outcomes = run_batch(preprocess, images, threads, max_pixels, type, data, progress_to(no_callback)); });
  py::list result;
  for (const ImageOutcome& outcome : outcomes) {
    if (outcome.status == ImageStatus::ok) {
      result.append(py::none());
    } else {
      result.append(py::make_tuple(outcome.status == ImageStatus::unsupported, outcome.message));
    }
  }
  return result;
}

using Rows = py::array_t<float, py::array::c_style>;
using Integers = py::array_t<std::int64_t, py::array::c_style>;

std::size_t checked_dim(const Rows& rows, const char* what) {
  if (rows.ndim() != 2 || rows.shape(1) < 1) throw InputError(std::string(what) + ": expected float32 (n, dim)");
  return static_cast<std::size_t>(rows.shape(1));
}

EmbeddingSet embeddings_of(const Rows& rows, const Integers& labels, const std::optional<Integers>& cameras,
                           const char* what) {
  checked_dim(rows, what);
  const auto fits = [&](const Integers& values) { return values.ndim() == 1 && values.shape(0) == rows.shape(0); };
  if (!fits(labels) || (cameras && !fits(*cameras)))
    throw InputError("retrieval: expected one label, and one camera if any, per embedding (" + std::string(what) + ")");
  return {rows.data(), static_cast<std::size_t>(rows.shape(0)), labels.data(), cameras ? cameras->data() : nullptr};
}

template <typename T>
py::array_t<T> array_of(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::dict py_evaluate(const Rows& queries, const Integers& query_labels, const std::optional<Integers>& query_cameras,
                     const std::optional<Rows>& gallery, const std::optional<Integers>& gallery_labels,
                     const std::optional<Integers>& gallery_cameras, const std::vector<std::int64_t>& ks, int threads,
                     const py::object& progress) {
  const bool same = !gallery;
  if (same == gallery_labels.has_value() || (same && gallery_cameras))
    throw InputError("retrieval: expected a gallery's embeddings and labels, or neither");
  const EmbeddingSet asked = embeddings_of(queries, query_labels, query_cameras, "queries");
  const EmbeddingSet held = same ? asked : embeddings_of(*gallery, *gallery_labels, gallery_cameras, "gallery");
  const std::size_t dim = checked_dim(queries, "queries");
  if (!same && checked_dim(*gallery, "gallery") != dim)
    throw InputError("retrieval: expected gallery embeddings of " + std::to_string(dim) + " numbers, as the queries");
  std::vector<QueryScore> scores;
  interruptible([&] { scores = score_queries(asked, same ? nullptr : &held, dim, threads, progress_to(progress)); });
  const RetrievalMeans means = average(scores, ks);
  std::vector<std::int64_t> first_rank, nearest;
  std::vector<double> average_precision;
  for (const QueryScore& score : scores) {
    first_rank.push_back(score.first_rank);
    nearest.push_back(score.nearest);
    average_precision.push_back(score.average_precision);
  }
  py::dict result;
  result["queries"] = means.queries;
  result["recall"] = means.recall;
  result["mean_ap"] = means.mean_ap;
  result["r_precision"] = means.r_precision;
  result["map_at_r"] = means.map_at_r;
  result["first_rank"] = array_of(first_rank);
  result["nearest"] = array_of(nearest);
  result["average_precision"] = array_of(average_precision);
  return result;
}

/// An array of Python's, C-contiguous and aligned, of this type and shape; InputError otherwise.
template <typename Value>
const Value* checked_array(const py::object& given, const char* what, std::initializer_list<py::ssize_t> shape) {
  const auto array = py::array_t<Value, py::array::c_style>::ensure(given);
  const bool same = array && array.ptr() == given.ptr();  // or it was copied
  const bool aligned = same && (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  if (!aligned || array.ndim() != static_cast<py::ssize_t>(shape.size()) ||
      !std::equal(shape.begin(), shape.end(), array.shape()))
    throw InputError(std::string(what) + ": not of the type and shape that the storage takes");
  return array.data();
}

/// Rows in arrays of Python's, which it keeps.
struct PyStoredRows {
  StoredRows rows;
  std::vector<py::object> arrays;
};

PyStoredRows py_stored_rows(const std::string& storage, const py::array& values, const py::object& scales,
                            const py::object& rest, const py::object& excluded, double longest, double longest_rest,
                            std::size_t dim_of_signs) {
  if (values.ndim() != 2 || values.shape(1) < 1 || values.shape(1) > 65536)
    throw InputError("values: expected (n, dim) with dim of 1 to 65536");
  const py::ssize_t count = values.shape(0), dim = values.shape(1);
  PyStoredRows made;
  made.arrays = {values, scales, rest, excluded};
  StoredRows& rows = made.rows;
  rows.storage = storage_named(storage, "storage");
  rows.count = static_cast<std::size_t>(count);
  rows.dim = rows.storage == Storage::binary ? dim_of_signs : static_cast<std::size_t>(dim);
  rows.longest = longest;
  rows.longest_rest = longest_rest;
  if (rows.storage == Storage::float32) rows.values = checked_array<float>(values, "values", {count, dim});
  if (rows.storage == Storage::float16) rows.values = checked_array<std::uint16_t>(values, "values", {count, dim});
  if (rows.storage == Storage::int8) {
    rows.values = checked_array<std::int8_t>(values, "values", {count, dim});
    rows.scales = checked_array<float>(scales, "scales", {count});
    if (!rest.is_none()) rows.rest = checked_array<std::int16_t>(rest, "rest", {count, dim});
  }
  if (rows.storage == Storage::binary) {
    if (rows.dim > 65536 || sign_words(rows.dim) != static_cast<std::size_t>(dim))
      throw InputError("values: expected signs of dim numbers, 64 in a word, and dim of 1 to 65536");
    rows.values = checked_array<std::uint64_t>(values, "values", {count, dim});
  }
  if (!excluded.is_none()) rows.excluded = checked_array<std::uint8_t>(excluded, "excluded", {(count + 7) / 8});
  return made;
}

/// float32 `(n, dim)` -> int8 codes `(n, dim)`, scales `(n,)`, and what the codes leave, int16 `(n, dim)`.
py::tuple py_to_int8(const Rows& rows) {
  const std::size_t dim = checked_dim(rows, "rows");
  py::array_t<std::int8_t> codes({rows.shape(0), rows.shape(1)});
  py::array_t<std::int16_t> rest({rows.shape(0), rows.shape(1)});
  py::array_t<float> scales(rows.shape(0));
  for (py::ssize_t row = 0; row < rows.shape(0); ++row)
    *scales.mutable_data(row) = to_int8(rows.data(row, 0), dim, codes.mutable_data(row, 0), rest.mutable_data(row, 0));
  return py::make_tuple(codes, scales, rest);
}

template <typename Any>
void py_add(Any& gallery, const Rows& rows) {
  if (checked_dim(rows, "rows") != gallery.dim()) throw InputError("rows: expected the gallery's dim");
  const py::gil_scoped_release release;
  gallery.add(rows.data(), static_cast<std::size_t>(rows.shape(0)));
}

/// Rows and similarities of each query, as a search of `own...` gives them.
template <typename Any, typename... Own>
py::tuple searched(const Any& gallery, const Rows& queries, py::ssize_t k, const py::object& progress, Own... own) {
  if (checked_dim(queries, "queries") != gallery.dim()) throw InputError("queries: expected the gallery's dim");
  if (k < 1) throw InputError("search: expected k of 1 or more");
  py::array_t<std::int64_t> rows({queries.shape(0), k});
  py::array_t<float> similarities({queries.shape(0), k});
  std::int64_t* row_data = rows.mutable_data();
  float* similarity_data = similarities.mutable_data();
  interruptible([&] {
    gallery.search(queries.data(), static_cast<std::size_t>(queries.shape(0)), static_cast<std::size_t>(k), own...,
                   row_data, similarity_data, progress_to(progress));
  });
  return py::make_tuple(rows, similarities);
}

py::tuple py_search(const Gallery& gallery, const Rows& queries, py::ssize_t k, int threads,
                    const py::object& progress) {
  return searched(gallery, queries, k, progress, threads);
}

/// As `searched`, over rows that lie elsewhere.
py::tuple py_search_rows(const std::vector<PyStoredRows>& parts, const Rows& queries, py::ssize_t k, int threads,
                         const py::object& progress) {
  const std::size_t dim = checked_dim(queries, "queries");
  struct {
    std::vector<StoredRows> parts;
    std::size_t columns;
    std::size_t dim() const { return columns; }
    void search(const float* values, std::size_t count, std::size_t k, int threads, std::int64_t* rows,
                float* similarities, const Progress& progress) const {
      search_rows(parts, values, count, k, threads, rows, similarities, progress);
    }
  } all{{}, dim};
  for (const PyStoredRows& part : parts) {
    if (part.rows.dim != dim || part.rows.storage != parts[0].rows.storage)
      throw InputError("search: expected parts of the queries' dim and of one storage");
    all.parts.push_back(part.rows);
  }
  return searched(all, queries, k, progress, threads);
}

std::unique_ptr<BitGallery> py_bit_gallery(const Rows& centre, int bits) {
  if (centre.ndim() != 1) throw InputError("centre: expected one row of numbers");
  return std::make_unique<BitGallery>(static_cast<std::size_t>(centre.shape(0)), bits, centre.data());
}

py::tuple py_search_bits(const BitGallery& gallery, const Rows& queries, py::ssize_t k, std::size_t candidates,
                         int threads, const py::object& progress) {
  return searched(gallery, queries, k, progress, candidates, threads);
}

std::unique_ptr<Predictor> py_open(const std::string& runtime, const Files& files, const std::string& input_name,
                                   const std::array<std::int64_t, 3>& input_shape, std::size_t embedding_dim,
                                   int threads, const std::string& precision, std::size_t batch,
                                   const std::string& library) {
  const RunOptions options{threads, precision_of(precision), batch, library};
  const py::gil_scoped_release release;
  return open_predictor(runtime, files, {input_name, input_shape, embedding_dim}, options);
}

/// A batch's size; ValueError unless it is a C-contiguous `(n, *input_shape)` with something in it.
std::size_t checked_batch(const Predictor& predictor, const Rows& batch) {
  const auto& shape = predictor.io().input_shape;
  bool fits = batch.ndim() == 4 && batch.shape(0) > 0;
  for (std::size_t axis = 0; fits && axis < 3; ++axis)
    fits = batch.shape(static_cast<py::ssize_t>(axis) + 1) == shape[axis];
  if (!fits)
    throw py::value_error("batch: expected float32 (n, " + std::to_string(shape[0]) + ", " + std::to_string(shape[1]) +
                          ", " + std::to_string(shape[2]) + "), n of 1 or more");
  return static_cast<std::size_t>(batch.shape(0));
}

py::array_t<float> py_embed(Predictor& predictor, const Rows& batch) {
  const std::size_t count = checked_batch(predictor, batch);
  auto* values = new std::vector<float>;
  const py::capsule owner(values, [](void* pointer) { delete static_cast<std::vector<float>*>(pointer); });
  {
    const py::gil_scoped_release release;
    *values = predictor.embed(batch.data(), count);
  }
  const std::size_t dim = values->size() / count;
  return py::array_t<float>({static_cast<py::ssize_t>(count), static_cast<py::ssize_t>(dim)}, values->data(), owner);
}

py::object py_execution_record(Predictor& predictor, const Rows& batch) {
  const std::size_t count = checked_batch(predictor, batch);
  std::optional<ExecutionRecord> told;
  {
    const py::gil_scoped_release release;
    told = predictor.execution_record(batch.data(), count);
  }
  if (!told) return py::none();
  return py::make_tuple(told->precision, told->source, told->operators);
}

py::list py_files(const std::vector<BundleFile>& files) {
  py::list all;
  for (const BundleFile& file : files) all.append(py::make_tuple(file.role, file.path, file.bytes, file.sha256));
  return all;
}

py::dict py_read_manifest(const std::string& text, const std::string& where) {
  const Manifest manifest = Manifest::parse(text, where);
  py::list artifacts;
  for (const Artifact& one : manifest.artifacts)
    artifacts.append(py::make_tuple(one.name, one.runtime, one.quantisation, one.targets, py_files(one.files)));
  return py::dict(py::arg("format") = manifest.format, py::arg("input_name") = manifest.io.input_name,
                  py::arg("input_shape") = manifest.io.input_shape,
                  py::arg("embedding_dim") = manifest.io.embedding_dim,
                  py::arg("normalize_embedding") = manifest.normalize_embedding, py::arg("artifacts") = artifacts,
                  py::arg("golden") = py_files(manifest.golden), py::arg("golden_images") = manifest.golden_images);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "EdgeRecall's C++ core; see _native.pyi.";
  raise_as_the_package_does();

  module.def("decode", &py_decode, py::arg("encoded"), py::arg("apply_exif"), py::arg("max_pixels"));
  module.def("upright", &py_upright, py::arg("image").noconvert(), py::arg("orientation"));
  py::class_<Geometry>(module, "Geometry")
      .def(py::init(&parse_geometry), py::arg("json"))
      .def("apply", &py_apply, py::arg("image").noconvert(), py::arg("max_pixels"));
  py::class_<Preprocess>(module, "Preprocess")
      .def(py::init<const std::string&>(), py::arg("json"))
      .def("run", &py_run, py::arg("image").noconvert(), py::arg("out").noconvert(), py::arg("max_pixels"))
      .def("run_batch", &py_run_batch, py::arg("sources"), py::arg("out").noconvert(), py::arg("threads"),
           py::arg("max_pixels"));

  module.def("evaluate", &py_evaluate, py::arg("queries").noconvert(), py::arg("query_labels").noconvert(),
             py::arg("query_cameras").noconvert(), py::arg("gallery").noconvert(),
             py::arg("gallery_labels").noconvert(), py::arg("gallery_cameras").noconvert(), py::arg("ks"),
             py::arg("threads"), py::arg("progress"));
  py::class_<Gallery>(module, "Gallery")
      .def(py::init([](std::size_t dim, const std::string& storage) {
             return std::make_unique<Gallery>(dim, storage_named(storage, "storage"));
           }),
           py::arg("dim"), py::arg("storage") = "float32")
      .def("add", &py_add<Gallery>, py::arg("rows").noconvert())
      .def("search", &py_search, py::arg("queries").noconvert(), py::arg("k"), py::arg("threads") = 1,
           py::arg("progress") = py::none())
      .def("__len__", &Gallery::size)
      .def_property_readonly("dim", &Gallery::dim)
      .def_property_readonly("bytes", &Gallery::bytes);

  py::class_<PyStoredRows>(module, "StoredRows")
      .def(py::init(&py_stored_rows), py::arg("storage"), py::arg("values"), py::arg("scales") = py::none(),
           py::arg("rest") = py::none(), py::arg("excluded") = py::none(), py::kw_only(), py::arg("longest"),
           py::arg("longest_rest") = 0.0, py::arg("dim") = 0);
  module.def("search_rows", &py_search_rows, py::arg("parts"), py::arg("queries").noconvert(), py::arg("k"),
             py::arg("threads") = 1, py::arg("progress") = py::none());
  module.def("to_int8", &py_to_int8, py::arg("rows").noconvert());

  py::class_<BitGallery>(module, "BitGallery")
      .def(py::init(&py_bit_gallery), py::arg("centre").noconvert(), py::arg("bits"))
      .def("add", &py_add<BitGallery>, py::arg("rows").noconvert())
      .def("search", &py_search_bits, py::arg("queries").noconvert(), py::arg("k"), py::arg("candidates"),
           py::arg("threads") = 1, py::arg("progress") = py::none())
      .def("__len__", &BitGallery::size)
      .def_property_readonly("dim", &BitGallery::dim)
      .def_property_readonly("bits", &BitGallery::bits)
      .def_property_readonly("bytes", &BitGallery::bytes);

  module.def("read_manifest", &py_read_manifest, py::arg("text"), py::arg("where"));
  module.def("built_runtimes", &built_runtimes);
  py::class_<Predictor>(module, "Predictor")
      .def(py::init(&py_open), py::arg("runtime"), py::arg("files"), py::arg("input_name"), py::arg("input_shape"),
           py::arg("embedding_dim"), py::arg("threads"), py::arg("precision"), py::arg("batch"), py::arg("library"))
      .def("embed", &py_embed, py::arg("batch").noconvert())
      .def("execution_record", &py_execution_record, py::arg("batch").noconvert())
      .def_property_readonly("version", [](const Predictor& one) { return one.info().version; })
      .def_property_readonly("precision", [](const Predictor& one) { return one.info().precision; })
      .def_property_readonly("threads", [](const Predictor& one) { return one.info().threads; })
      .def_property_readonly("detail", [](const Predictor& one) { return one.info().detail; });
}

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>

#include "edgerecall/image.h"

namespace py = pybind11;
using edgerecall::ChannelTables;
using edgerecall::ImageSize;

namespace {

struct Bytes {
  const std::uint8_t* data;
  std::size_t size;
};

Bytes view(const py::bytes& value) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(value.ptr(), &data, &size) != 0) throw py::error_already_set();
  return {reinterpret_cast<const std::uint8_t*>(data), static_cast<std::size_t>(size)};
}

py::array_t<std::uint8_t> decode_jpeg(const py::bytes& encoded) {
  const Bytes bytes = view(encoded);
  const ImageSize size = edgerecall::jpeg_size(bytes.data, bytes.size);
  py::array_t<std::uint8_t> image({static_cast<py::ssize_t>(size.height), static_cast<py::ssize_t>(size.width),
                                   static_cast<py::ssize_t>(3)});
  std::uint8_t* out = image.mutable_data();
  {
    py::gil_scoped_release release;
    edgerecall::decode_jpeg(bytes.data, bytes.size, size, out);
  }
  return image;
}

void pack_planar(const py::array_t<std::uint8_t>& image, const py::array_t<float, py::array::c_style>& tables,
                 bool swap_channels, py::array_t<float, py::array::c_style>& out) {
  if (image.ndim() != 3 || image.shape(2) != 3) throw py::value_error("image: expected uint8 (height, width, 3)");
  if (image.strides(2) != 1 || image.strides(1) != 3 || image.strides(0) < 0)
    throw py::value_error("image: rows must be contiguous");
  if (tables.ndim() != 2 || tables.shape(0) != 3 || tables.shape(1) != 256)
    throw py::value_error("tables: expected float32 (3, 256)");
  if (out.ndim() != 3 || out.shape(0) != 3 || out.shape(1) != image.shape(0) || out.shape(2) != image.shape(1))
    throw py::value_error("out: expected float32 (3, height, width) of the image's size");
  ChannelTables copy;
  std::memcpy(copy.data(), tables.data(), sizeof(copy));
  const ImageSize size{static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1))};
  const std::uint8_t* source = image.data();
  float* target = out.mutable_data();
  const auto stride = static_cast<std::size_t>(image.strides(0));
  py::gil_scoped_release release;
  edgerecall::pack_planar(source, stride, size, copy, swap_channels, target);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "EdgeRecall's C++ core: JPEG decoding and tensor packing.";
  const auto input_error = py::register_exception<edgerecall::InputError>(module, "InputError", PyExc_ValueError);
  py::register_exception<edgerecall::UnsupportedImage>(module, "UnsupportedImage", input_error);
  module.def("decode_jpeg", &decode_jpeg, py::arg("encoded"),
             "Gray, YCbCr or RGB JPEG bytes -> uint8 (height, width, 3) RGB. Raises InputError, UnsupportedImage.");
  module.def("pack_planar", &pack_planar, py::arg("image"), py::arg("tables"), py::arg("swap_channels"),
             py::arg("out").noconvert(),
             "uint8 (height, width, 3) -> float32 (3, height, width) in `out`, each sample through tables[channel].");
}

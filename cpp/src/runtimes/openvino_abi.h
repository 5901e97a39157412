// The part of OpenVINO's C interface that is used here (https://docs.openvino.ai, "OpenVINO C API"): functions by name
// from libopenvino_c, so that one binary runs with every release since 2022.1 and any C++ library.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/shared_library.h"

namespace edgerecall::ov {

struct Core;
struct Model;
struct CompiledModel;
struct Request;
struct Tensor;

constexpr int kOk = 0, kFloat = 4, kExecuted = 2;

struct Shape {
  std::int64_t rank;
  std::int64_t* dims;
};

struct Dimension {
  std::int64_t min, max;
};

struct PartialShape {
  Dimension rank;
  Dimension* dims;
};

struct Version {
  const char* build;
  const char* description;
};

struct Layer {
  int status;
  std::int64_t real_us, cpu_us;
  const char* name;
  const char* execution;  ///< kernel and precision, such as `jit_avx512_FP32`
  const char* kind;
};

struct LayerList {
  Layer* layers;
  std::size_t size;
};

struct Api {
  explicit Api(const SharedLibrary& library) {
    library.get(get_version, "ov_get_openvino_version");
    library.get(free_version, "ov_version_free");
    last_error = library.find<decltype(last_error)>("ov_get_last_err_msg");  // since 2023.1
    library.get(error_info, "ov_get_error_info");
    library.get(free_text, "ov_free");
    library.get(create_core, "ov_core_create");
    library.get(read_model, "ov_core_read_model");
    library.get(compile, "ov_core_compile_model");
    library.get(free_model, "ov_model_free");
    library.get(reshape, "ov_model_reshape_single_input");
    library.get(get_property, "ov_compiled_model_get_property");
    library.get(free_compiled, "ov_compiled_model_free");
    library.get(create_request, "ov_compiled_model_create_infer_request");
    library.get(free_request, "ov_infer_request_free");
    library.get(set_input, "ov_infer_request_set_input_tensor");
    library.get(get_output, "ov_infer_request_get_output_tensor_by_index");
    library.get(infer, "ov_infer_request_infer");
    library.get(get_layers, "ov_infer_request_get_profiling_info");
    library.get(free_layers, "ov_profiling_info_list_free");
    library.get(tensor_over, "ov_tensor_create_from_host_ptr");
    library.get(tensor_type, "ov_tensor_get_element_type");
    library.get(tensor_size, "ov_tensor_get_size");
    library.get(tensor_data, "ov_tensor_data");
    library.get(free_tensor, "ov_tensor_free");
  }

  int (*get_version)(Version* out);
  void (*free_version)(Version*);
  const char* (*last_error)();
  const char* (*error_info)(int status);
  void (*free_text)(const char*);
  int (*create_core)(Core** out);
  int (*read_model)(const Core*, const char* model, const char* weights, Model** out);
  int (*compile)(const Core*, const Model*, const char* device, std::size_t arguments, CompiledModel** out, ...);
  void (*free_model)(Model*);
  int (*reshape)(const Model*, PartialShape shape);
  int (*get_property)(const CompiledModel*, const char* key, char** out);
  void (*free_compiled)(CompiledModel*);
  int (*create_request)(const CompiledModel*, Request** out);
  void (*free_request)(Request*);
  int (*set_input)(Request*, const Tensor*);
  int (*get_output)(const Request*, std::size_t index, Tensor** out);
  int (*infer)(Request*);
  int (*get_layers)(const Request*, LayerList* out);
  void (*free_layers)(LayerList*);
  int (*tensor_over)(int type, Shape shape, void* data, Tensor** out);
  int (*tensor_type)(const Tensor*, int* out);
  int (*tensor_size)(const Tensor*, std::size_t* out);
  int (*tensor_data)(const Tensor*, void** out);
  void (*free_tensor)(Tensor*);
};

}  // namespace edgerecall::ov

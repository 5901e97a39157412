// The part of ONNX Runtime's C interface that is used here. Its function table only ever grows at the end
// (https://onnxruntime.ai/docs/api/c/struct_ort_api.html), so the places below hold for every version, and one binary
// opens them all without any version's headers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace edgerecall::ort {

struct Status;
struct Env;
struct SessionOptions;
struct Session;
struct RunOptions;
struct Value;
struct MemoryInfo;
struct TypeInfo;
struct TensorInfo;
struct Allocator;

constexpr std::uint32_t kApiVersion = 2;  // all that is used here is in it
constexpr int kLogError = 3, kOptimizeAll = 99, kArenaAllocator = 1, kMemoryDefault = 0;
constexpr int kFloat = 1;

struct ApiBase {
  void* const* (*get_api)(std::uint32_t version);
  const char* (*get_version)();
};

/// The table's functions with their places.
struct Api {
  explicit Api(void* const* table);

  const char* (*get_error_message)(const Status*);
  Status* (*create_env)(int log_level, const char* name, Env** out);
  Status* (*create_session)(const Env*, const char* path, const SessionOptions*, Session** out);
  Status* (*run)(Session*, const RunOptions*, const char* const* input_names, const Value* const* inputs,
                 std::size_t input_count, const char* const* output_names, std::size_t output_count, Value** outputs);
  Status* (*create_session_options)(SessionOptions** out);
  Status* (*enable_profiling)(SessionOptions*, const char* prefix);
  Status* (*end_profiling)(Session*, Allocator*, char** path);
  Status* (*set_log_level)(SessionOptions*, int level);
  Status* (*set_optimization)(SessionOptions*, int level);
  Status* (*set_intra_threads)(SessionOptions*, int threads);
  Status* (*set_inter_threads)(SessionOptions*, int threads);
  Status* (*input_count)(const Session*, std::size_t* out);
  Status* (*output_count)(const Session*, std::size_t* out);
  Status* (*input_type)(const Session*, std::size_t index, TypeInfo** out);
  Status* (*input_name)(const Session*, std::size_t index, Allocator*, char** out);
  Status* (*output_name)(const Session*, std::size_t index, Allocator*, char** out);
  Status* (*create_tensor)(const MemoryInfo*, void* data, std::size_t bytes, const std::int64_t* shape,
                           std::size_t rank, int type, Value** out);
  Status* (*tensor_data)(Value*, void** out);
  Status* (*cast_to_tensor_info)(const TypeInfo*, const TensorInfo** out);
  Status* (*element_type)(const TensorInfo*, int* out);
  Status* (*element_count)(const TensorInfo*, std::size_t* out);
  Status* (*tensor_info)(const Value*, TensorInfo** out);
  Status* (*create_cpu_memory)(int allocator_type, int memory_type, MemoryInfo** out);
  Status* (*allocator_free)(Allocator*, void* memory);
  Status* (*default_allocator)(Allocator** out);
  void (*release_env)(Env*);
  void (*release_status)(Status*);
  void (*release_memory)(MemoryInfo*);
  void (*release_session)(Session*);
  void (*release_value)(Value*);
  void (*release_type)(TypeInfo*);
  void (*release_tensor_info)(TensorInfo*);
  void (*release_session_options)(SessionOptions*);
};

inline Api::Api(void* const* table) {
  const auto set = [table](auto& function, std::size_t place) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(table[place]);
  };
  set(get_error_message, 2);
  set(create_env, 3);
  set(create_session, 7);
  set(run, 9);
  set(create_session_options, 10);
  set(enable_profiling, 14);
  set(end_profiling, 110);
  set(set_log_level, 22);
  set(set_optimization, 23);
  set(set_intra_threads, 24);
  set(set_inter_threads, 25);
  set(input_count, 30);
  set(output_count, 31);
  set(input_type, 33);
  set(input_name, 36);
  set(output_name, 37);
  set(create_tensor, 49);
  set(tensor_data, 51);
  set(cast_to_tensor_info, 55);
  set(element_type, 60);
  set(element_count, 64);
  set(tensor_info, 65);
  set(create_cpu_memory, 69);
  set(allocator_free, 76);
  set(default_allocator, 78);
  set(release_env, 92);
  set(release_status, 93);
  set(release_memory, 94);
  set(release_session, 95);
  set(release_value, 96);
  set(release_type, 98);
  set(release_tensor_info, 99);
  set(release_session_options, 100);
}

}  // namespace edgerecall::ort

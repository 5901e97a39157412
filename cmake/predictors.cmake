# edgerecall_predictors: the runtimes behind edgerecall/predictor.h. ONNX Runtime and OpenVINO are opened at run time and
# need nothing here; the others are linked when their folder is given.
add_library(edgerecall_predictors STATIC
  cpp/src/runtimes/predictor.cpp cpp/src/runtimes/registry.cpp cpp/src/bundle/bundle.cpp
  cpp/src/bundle/manifest.cpp cpp/src/gallery/disk_gallery.cpp cpp/src/gallery/mapped_file.cpp
  cpp/src/gallery/gallery_writer.cpp cpp/src/gallery/segment.cpp)
target_include_directories(edgerecall_predictors PRIVATE cpp/src "${EDGERECALL_GENERATED}")
target_link_libraries(edgerecall_predictors PUBLIC edgerecall_core PRIVATE edgerecall_flags nlohmann_json::nlohmann_json)
set_target_properties(edgerecall_predictors PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)

if(EDGERECALL_LOADED_RUNTIMES)
  target_sources(edgerecall_predictors PRIVATE
    cpp/src/runtimes/onnxruntime_predictor.cpp cpp/src/runtimes/openvino_predictor.cpp)
  target_compile_definitions(edgerecall_predictors PRIVATE EDGERECALL_WITH_LOADED_RUNTIMES)
endif()

if(EDGERECALL_NCNN_DIR)
  find_package(ncnn REQUIRED PATHS "${EDGERECALL_NCNN_DIR}" NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
  target_sources(edgerecall_predictors PRIVATE cpp/src/runtimes/ncnn_predictor.cpp)
  target_compile_definitions(edgerecall_predictors PRIVATE EDGERECALL_WITH_NCNN)
  target_include_directories(edgerecall_predictors SYSTEM PRIVATE "${EDGERECALL_NCNN_DIR}/include")
  target_link_libraries(edgerecall_predictors PRIVATE ncnn)
endif()

# A linked library by its headers and one file: NAME, the folder given, where the header and the library are in it.
function(edgerecall_link name folder header library source)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .so .a)
  find_path(EDGERECALL_${name}_INCLUDE ${header} PATHS "${folder}" PATH_SUFFIXES include paddle/include
            NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH REQUIRED)
  find_library(EDGERECALL_${name}_LIBRARY ${library} PATHS "${folder}" PATH_SUFFIXES lib paddle/lib
               NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH REQUIRED)
  target_sources(edgerecall_predictors PRIVATE ${source})
  target_compile_definitions(edgerecall_predictors PRIVATE EDGERECALL_WITH_${name})
  target_include_directories(edgerecall_predictors SYSTEM PRIVATE "${EDGERECALL_${name}_INCLUDE}")
  target_link_libraries(edgerecall_predictors PRIVATE "${EDGERECALL_${name}_LIBRARY}")
endfunction()

if(EDGERECALL_MNN_DIR)
  edgerecall_link(MNN "${EDGERECALL_MNN_DIR}" MNN/Interpreter.hpp MNN cpp/src/runtimes/mnn_predictor.cpp)
endif()
if(EDGERECALL_TNN_DIR)
  edgerecall_link(TNN "${EDGERECALL_TNN_DIR}" tnn/core/tnn.h TNN cpp/src/runtimes/tnn_predictor.cpp)
endif()
if(EDGERECALL_PADDLE_LITE_DIR)
  edgerecall_link(LITE "${EDGERECALL_PADDLE_LITE_DIR}" paddle_api.h paddle_light_api_shared
                  cpp/src/runtimes/lite_predictor.cpp)
endif()
if(EDGERECALL_PADDLE_INFERENCE_DIR)
  edgerecall_link(PADDLE "${EDGERECALL_PADDLE_INFERENCE_DIR}" paddle_inference_api.h paddle_inference
                  cpp/src/runtimes/paddle_predictor.cpp)
endif()

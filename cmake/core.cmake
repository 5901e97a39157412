# edgerecall_core: images, preprocessing, metrics and search.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  # Loads under kernels with pages of 4, 16 (newer boards, Android 15) and 64 KB.
  add_link_options(-Wl,-z,max-page-size=65536)
endif()

if(EDGERECALL_CORE_LIBRARY)
  add_library(edgerecall_core STATIC IMPORTED)
  set_target_properties(edgerecall_core PROPERTIES IMPORTED_LOCATION "${EDGERECALL_CORE_LIBRARY}")
  target_compile_features(edgerecall_core INTERFACE cxx_std_17)
  target_include_directories(edgerecall_core INTERFACE "${CMAKE_CURRENT_SOURCE_DIR}/cpp/include")
  target_link_libraries(edgerecall_core INTERFACE Threads::Threads ${CMAKE_DL_LIBS} JPEG::JPEG PNG::PNG hwy::hwy)
  return()
endif()

add_library(edgerecall_core STATIC
  cpp/src/base/files.cpp cpp/src/base/machine.cpp cpp/src/base/parallel.cpp cpp/src/base/shared_library.cpp
  cpp/src/image/buffer.cpp
  cpp/src/image/decode.cpp cpp/src/image/jpeg.cpp cpp/src/image/png.cpp cpp/src/image/orientation.cpp
  cpp/src/preprocess/taps.cpp cpp/src/preprocess/pixel_kernels.cpp cpp/src/preprocess/resize.cpp
  cpp/src/preprocess/geometry.cpp cpp/src/base/json_text.cpp cpp/src/base/schema.cpp cpp/src/preprocess/spec_json.cpp
  cpp/src/preprocess/preprocess.cpp cpp/src/bundle/sha256.cpp cpp/src/bundle/npy.cpp
  cpp/src/search/bit_gallery.cpp cpp/src/search/dot_product_arm.cpp cpp/src/search/gallery.cpp cpp/src/search/hamming_kernels.cpp
  cpp/src/search/product_kernels.cpp cpp/src/search/rank_kernels.cpp
  cpp/src/search/ranking.cpp cpp/src/search/retrieval.cpp cpp/src/search/search.cpp)
# Highway includes the kernels once more for every target; the others name constants alike.
set_source_files_properties(cpp/src/preprocess/pixel_kernels.cpp cpp/src/search/hamming_kernels.cpp
  cpp/src/search/product_kernels.cpp cpp/src/search/rank_kernels.cpp cpp/src/search/ranking.cpp
  cpp/src/search/search.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
target_compile_features(edgerecall_core PUBLIC cxx_std_17)
target_include_directories(edgerecall_core PUBLIC cpp/include PRIVATE cpp/src "${EDGERECALL_GENERATED}")
# Highway's vectors of fixed size alone: SVE's have none.
target_compile_definitions(edgerecall_core PRIVATE
  "HWY_DISABLED_TARGETS=(HWY_SVE|HWY_SVE2|HWY_SVE_256|HWY_SVE2_128)")
target_link_libraries(edgerecall_core PUBLIC Threads::Threads ${CMAKE_DL_LIBS}
                      PRIVATE edgerecall_flags JPEG::JPEG PNG::PNG nlohmann_json::nlohmann_json)
if(EDGERECALL_BUILD_DEVICE)
  find_path(EDGERECALL_HWY_INCLUDE hwy/highway.h REQUIRED)
  target_include_directories(edgerecall_core SYSTEM PRIVATE "${EDGERECALL_HWY_INCLUDE}")
  find_library(EDGERECALL_HWY_LIBRARY hwy) # Debian has no static one
  if(EDGERECALL_HWY_LIBRARY AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_link_libraries(edgerecall_core PRIVATE "${EDGERECALL_HWY_LIBRARY}")
  else()
    # On ARM, NEON is all there is; without a choice at run time Highway is headers alone.
    target_compile_definitions(edgerecall_core PUBLIC HWY_COMPILE_ONLY_STATIC)
  endif()
else()
  target_link_libraries(edgerecall_core PRIVATE hwy::hwy)
endif()
set_target_properties(edgerecall_core PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)

# edgerecall-device. As it is packed, everything but libc and the runtimes' own libraries is inside.
add_executable(edgerecall-device
  cpp/tools/main.cpp cpp/tools/arguments.cpp cpp/tools/session.cpp cpp/tools/images.cpp cpp/tools/verify.cpp
  cpp/tools/predict.cpp cpp/tools/search.cpp cpp/tools/gallery.cpp cpp/tools/bench/bench.cpp cpp/tools/row_process.cpp
  cpp/tools/bench/row_worker.cpp)
target_include_directories(edgerecall-device PRIVATE cpp/src cpp/tools "${EDGERECALL_GENERATED}")
target_compile_definitions(edgerecall-device PRIVATE "EDGERECALL_VERSION=\"${PROJECT_VERSION}\"")
target_link_libraries(edgerecall-device PRIVATE edgerecall_predictors edgerecall_flags nlohmann_json::nlohmann_json)
set_target_properties(edgerecall-device PROPERTIES BUILD_RPATH
  "$ORIGIN/lib/mnn;$ORIGIN/lib/tnn;$ORIGIN/lib/lite;$ORIGIN/lib/paddle")

if(EDGERECALL_BUILD_DEVICE)
  target_sources(edgerecall-device PRIVATE cpp/src/image/png_reads_only.cpp) # before libpng's own are looked for
  # Small, but for the loops over pixels and embeddings.
  target_compile_options(edgerecall-device PRIVATE -Os)
  target_compile_options(edgerecall_predictors PRIVATE -Os)
  set_source_files_properties(
    cpp/src/base/json_text.cpp cpp/src/preprocess/spec_json.cpp cpp/src/base/machine.cpp cpp/src/bundle/npy.cpp
    cpp/src/image/jpeg.cpp cpp/src/image/png.cpp cpp/src/preprocess/geometry.cpp cpp/src/preprocess/taps.cpp
    cpp/src/base/schema.cpp cpp/src/base/files.cpp cpp/src/base/parallel.cpp cpp/src/image/decode.cpp
    cpp/src/image/buffer.cpp cpp/src/image/orientation.cpp cpp/src/base/shared_library.cpp
    cpp/src/preprocess/preprocess.cpp cpp/src/bundle/sha256.cpp cpp/src/search/search.cpp cpp/src/search/gallery.cpp
    PROPERTIES COMPILE_OPTIONS -Os)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Code and constants in one segment: pages between them would be a hundredth of the program.
    target_link_options(edgerecall-device PRIVATE -static-libstdc++ -static-libgcc -Wl,-z,noseparate-code)
  endif()
  target_link_options(edgerecall-device PRIVATE -Wl,--gc-sections $<$<CONFIG:Release>:-s>)
  if(NOT EDGERECALL_SANITIZE AND NOT EDGERECALL_ZIG_TARGET MATCHES "gnu") # whose core goes into wheels too
    set_target_properties(edgerecall-device edgerecall_predictors edgerecall_core PROPERTIES INTERPROCEDURAL_OPTIMIZATION ON)
  endif()
endif()

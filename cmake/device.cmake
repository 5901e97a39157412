# edgerecall-device: everything but libc and the runtimes' own libraries is inside.
add_executable(edgerecall-device cpp/tools/main.cpp cpp/tools/arguments.cpp cpp/tools/session.cpp cpp/tools/images.cpp
  cpp/tools/verify.cpp cpp/tools/predict.cpp cpp/tools/search.cpp cpp/tools/bench.cpp cpp/tools/row_process.cpp
  cpp/tools/row_worker.cpp)
target_include_directories(edgerecall-device PRIVATE cpp/src cpp/tools)
target_compile_definitions(edgerecall-device PRIVATE "EDGERECALL_VERSION=\"${PROJECT_VERSION}\"")
target_link_libraries(edgerecall-device PRIVATE edgerecall_predictors edgerecall_flags nlohmann_json::nlohmann_json)
target_compile_options(edgerecall-device PRIVATE -Os)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_link_options(edgerecall-device PRIVATE -static-libstdc++ -static-libgcc)
endif()
target_link_options(edgerecall-device PRIVATE -Wl,--gc-sections)

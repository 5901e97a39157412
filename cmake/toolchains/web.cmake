# WebAssembly for browsers, by emscripten. Exceptions and setjmp are WebAssembly's own: smaller and faster, and every
# browser since 2022 has them (with threads, emscripten 3.1.6 loses typed catches: no threads).
if(NOT EDGERECALL_EMSCRIPTEN)
  message(FATAL_ERROR "expected -DEDGERECALL_EMSCRIPTEN=<emscripten's folder>: run 'edgerecall cross web', which gives it")
endif()
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGERECALL_EMSCRIPTEN)
foreach(_language C CXX)
  set(CMAKE_${_language}_FLAGS_INIT "-msimd128 -fwasm-exceptions -sSUPPORT_LONGJMP=wasm")
endforeach()
set(CMAKE_EXE_LINKER_FLAGS_INIT "-fwasm-exceptions -sSUPPORT_LONGJMP=wasm")
set(CMAKE_CROSSCOMPILING_EMULATOR "node;--no-experimental-fetch" CACHE FILEPATH "" FORCE) # fetch would want a URL
include("${EDGERECALL_EMSCRIPTEN}/cmake/Modules/Platform/Emscripten.cmake")
# Debian's emscripten finds its JavaScript packages there only beside Debian's own node.
foreach(_language C CXX)
  set(CMAKE_${_language}_LINKER_LAUNCHER "${CMAKE_COMMAND};-E;env;NODE_PATH=/usr/share/nodejs")
endforeach()

# Any Linux that zig knows, from its one download: an old glibc (aarch64-linux-gnu.2.28) or none at all, in a static
# program (aarch64-linux-musl). Needs 'pip install ziglang', -DEDGERECALL_ZIG=<its program zig>,
# -DEDGERECALL_ZIG_TARGET=<triple> and, for another machine's programs, -DEDGERECALL_QEMU=<emulator and arguments>;
# 'edgerecall cross' gives them all.
foreach(_wanted ZIG ZIG_TARGET)
  if(NOT EDGERECALL_${_wanted})
    message(FATAL_ERROR "expected -DEDGERECALL_${_wanted}=...: run 'edgerecall cross', which gives it")
  endif()
endforeach()
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGERECALL_ZIG EDGERECALL_ZIG_TARGET EDGERECALL_QEMU)
set(CMAKE_SYSTEM_NAME Linux)
string(REGEX REPLACE "-.*" "" CMAKE_SYSTEM_PROCESSOR "${EDGERECALL_ZIG_TARGET}")
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "arm")
  set(CMAKE_SYSTEM_PROCESSOR armv7l)
  set(_cpu "-mcpu=generic+v7a+neon")
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  set(_cpu "-mcpu=x86_64_v2")
else()
  set(_cpu "-mcpu=generic") # the ABI's floor: armv8-a
endif()

# CMake wants a program where zig has subcommands. zig compiles its C++ library anew, half a minute, for each of with and
# without optimisation, with and without debugging symbols: all that is linked here, CMake's trials too, is the same.
foreach(_tool cc c++ ar ranlib)
  set(_program "${CMAKE_BINARY_DIR}/zig-${_tool}")
  set(_arguments "")
  if(_tool MATCHES "^c")
    set(_arguments "-target ${EDGERECALL_ZIG_TARGET} ${_cpu} -O2 -s")
  endif()
  file(WRITE "${_program}" "#!/bin/sh\nexec \"${EDGERECALL_ZIG}\" ${_tool} ${_arguments} \"$@\"\n")
  file(CHMOD "${_program}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endforeach()
set(CMAKE_C_COMPILER "${CMAKE_BINARY_DIR}/zig-cc")
set(CMAKE_CXX_COMPILER "${CMAKE_BINARY_DIR}/zig-c++")
foreach(_prefix CMAKE CMAKE_C_COMPILER CMAKE_CXX_COMPILER)
  set(${_prefix}_AR "${CMAKE_BINARY_DIR}/zig-ar" CACHE FILEPATH "")
  set(${_prefix}_RANLIB "${CMAKE_BINARY_DIR}/zig-ranlib" CACHE FILEPATH "")
endforeach()
set(CMAKE_STRIP "" CACHE FILEPATH "") # this machine's knows no other machine's files: the linker strips
# zig links undefined behaviour to a trap unless told not to.
set(CMAKE_C_FLAGS_INIT "-fno-sanitize=undefined")
set(CMAKE_CXX_FLAGS_INIT "-fno-sanitize=undefined")
if(EDGERECALL_ZIG_TARGET MATCHES "musl")
  set(CMAKE_EXE_LINKER_FLAGS_INIT "-static")
endif()
include(${CMAKE_CURRENT_LIST_DIR}/emulated.cmake)

# What the toolchains of Debian's cross-compilers share. Wants EDGERECALL_TRIPLET, EDGERECALL_QEMU (a list) and
# EDGERECALL_SYSROOT: a root with the target's libraries, to link and to load under QEMU ('edgerecall cross' makes it).
if(NOT EDGERECALL_SYSROOT)
  message(FATAL_ERROR "expected -DEDGERECALL_SYSROOT=...: run 'edgerecall cross', which makes one")
endif()
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGERECALL_SYSROOT)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_C_COMPILER ${EDGERECALL_TRIPLET}-gcc)
set(CMAKE_CXX_COMPILER ${EDGERECALL_TRIPLET}-g++)
set(CMAKE_LIBRARY_ARCHITECTURE ${EDGERECALL_TRIPLET})

# Where Debian has the headers that differ between machines.
string(APPEND CMAKE_CXX_FLAGS_INIT " -isystem ${EDGERECALL_SYSROOT}/usr/include/${EDGERECALL_TRIPLET}")

list(APPEND CMAKE_FIND_ROOT_PATH "${EDGERECALL_SYSROOT}" /usr/${EDGERECALL_TRIPLET})
list(APPEND EDGERECALL_QEMU -L "${EDGERECALL_SYSROOT}")
include(${CMAKE_CURRENT_LIST_DIR}/emulated.cmake)

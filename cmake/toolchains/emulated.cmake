# What all cross toolchains share: nothing of this machine's is found, and programs run under EDGERECALL_QEMU (a list).
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(_options ${EDGERECALL_QEMU})
list(POP_FRONT _options _emulator)
find_program(EDGERECALL_EMULATOR NAMES ${_emulator} ${_emulator}-static)
set(CMAKE_CROSSCOMPILING_EMULATOR "${EDGERECALL_EMULATOR};${_options}")

# 32-bit ARM Linux, armv7-a with NEON and newer, hard float, glibc as Debian's; programs run under QEMU.
# Needs 'apt-get install g++-arm-linux-gnueabihf qemu-user-static' and a sysroot: 'edgerecall cross linux-armv7'.
set(CMAKE_SYSTEM_PROCESSOR armv7l)
set(EDGERECALL_TRIPLET arm-linux-gnueabihf)
set(EDGERECALL_QEMU qemu-arm -cpu cortex-a15)
set(CMAKE_CXX_FLAGS_INIT "-march=armv7-a -mfpu=neon -mfloat-abi=hard -Wno-psabi")
set(CMAKE_C_FLAGS_INIT "-march=armv7-a -mfpu=neon -mfloat-abi=hard")
include(${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake)

# 64-bit ARM Linux, armv8-a and newer, glibc as Debian's; programs run under QEMU.
# Needs 'apt-get install g++-aarch64-linux-gnu qemu-user-static' and a sysroot: 'edgerecall cross linux-aarch64'.
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(EDGERECALL_TRIPLET aarch64-linux-gnu)
# A Cortex-A72 has NEON and nothing newer.
set(EDGERECALL_QEMU qemu-aarch64 -cpu cortex-a72)
set(CMAKE_CXX_FLAGS_INIT "-march=armv8-a")
set(CMAKE_C_FLAGS_INIT "-march=armv8-a")
include(${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake)

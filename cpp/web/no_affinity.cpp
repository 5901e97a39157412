// A browser binds no thread to a CPU, and emscripten's C library does not even say so.
#include <sched.h>

#include <cerrno>
#include <cstddef>

extern "C" {

int sched_getaffinity(pid_t /*process*/, std::size_t /*size*/, cpu_set_t* /*set*/) {
  errno = ENOSYS;
  return -1;
}

int sched_setaffinity(pid_t /*process*/, std::size_t /*size*/, const cpu_set_t* /*set*/) {
  errno = ENOSYS;
  return -1;
}

}  // extern "C"

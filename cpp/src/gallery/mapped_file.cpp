#include "gallery/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "edgerecall/error.h"

namespace edgerecall {

MappedFile::MappedFile(const std::string& path, std::uint64_t bytes) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) throw InputError(path + ": " + std::strerror(errno));
  struct stat found{};
  const bool fits = ::fstat(file, &found) == 0 && S_ISREG(found.st_mode) && found.st_size > 0 &&
                    static_cast<std::uint64_t>(found.st_size) == bytes;
  void* mapped = fits ? ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
  const int error = errno;
  ::close(file);
  if (!fits) throw InputError(path + ": expected " + std::to_string(bytes) + " bytes: the gallery is damaged");
  if (mapped == MAP_FAILED) throw InputError(path + ": " + std::strerror(error));
  data_ = static_cast<std::uint8_t*>(mapped);
  size_ = static_cast<std::size_t>(bytes);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace edgerecall

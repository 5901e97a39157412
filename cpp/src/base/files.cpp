#include "base/files.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "edgerecall/error.h"

namespace edgerecall {

std::vector<std::uint8_t> file_bytes(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  const auto fail = [] { throw InputError(std::string("cannot be read: ") + std::strerror(errno)); };
  if (!file) fail();
  std::vector<std::uint8_t> bytes;
  std::size_t used = 0;
  do {
    bytes.resize(used + (std::size_t{1} << 18));
    used += std::fread(bytes.data() + used, 1, bytes.size() - used, file.get());
  } while (used == bytes.size());
  if (std::ferror(file.get()) != 0) fail();
  bytes.resize(used);
  return bytes;
}

std::vector<std::uint8_t> read_file(const std::string& path) {
  try {
    return file_bytes(path);
  } catch (const InputError& error) {
    throw InputError(path + ": " + error.what());
  }
}

void write_file(const std::string& path, const void* data, std::size_t size) {
  const std::string temporary = path + ".part" + std::to_string(getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  bool written = file != nullptr && std::fwrite(data, 1, size, file) == size;
  int reason = errno;
  if (file != nullptr && std::fclose(file) != 0 && written) written = false, reason = errno;
  if (written && std::rename(temporary.c_str(), path.c_str()) != 0) written = false, reason = errno;
  if (!written) {
    std::remove(temporary.c_str());
    throw InputError("cannot write " + path + ": " + std::strerror(reason));
  }
}

}  // namespace edgerecall

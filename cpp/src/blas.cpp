#include "edgerecall/blas.h"

#include <cstdlib>
#include <memory>
#include <mutex>

#include "edgerecall/error.h"
#include "shared_library.h"

namespace edgerecall {
namespace {

constexpr const char* kSystemLibrary = "libopenblas.so.0";
constexpr int kRowMajor = 101, kNotTransposed = 111, kTransposed = 112;  // CBLAS's constants

std::mutex loading;
std::unique_ptr<const Blas> loaded;

/// A symbol under its own name, or with the prefix of the builds on PyPI.
template <typename Function>
Function find(const SharedLibrary& library, const std::string& name) {
  const auto plain = library.find<Function>(name);
  return plain != nullptr ? plain : library.find<Function>("scipy_" + name);
}

}  // namespace

Blas Blas::open(const std::string& path) {
  const SharedLibrary library(path,
                              "install OpenBLAS (pip install scipy-openblas32, apt-get install libopenblas0), or "
                              "name one in EDGERECALL_BLAS");
  const auto sgemm = find<Sgemm>(library, "cblas_sgemm");
  if (sgemm == nullptr) throw Unavailable(path + " has no cblas_sgemm: expected OpenBLAS with 32-bit integers");
  for (const char* name : {"openblas_set_num_threads", "MKL_Set_Num_Threads"})
    if (const auto set_threads = find<void (*)(int)>(library, name)) set_threads(1);
  return Blas(sgemm);
}

void Blas::load(const std::string& path) {
  const std::lock_guard<std::mutex> lock(loading);
  if (loaded) return;
  const char* named = std::getenv("EDGERECALL_BLAS");
  const std::string library = named != nullptr && *named != '\0' ? named : path.empty() ? kSystemLibrary : path;
  loaded = std::make_unique<const Blas>(open(library));
}

const Blas& Blas::get() {
  load("");
  return *loaded;
}

void Blas::multiply_transposed(std::size_t rows, std::size_t columns, std::size_t depth, const float* a, const float* b,
                               float* c) const {
  const int m = static_cast<int>(rows), n = static_cast<int>(columns), k = static_cast<int>(depth);
  sgemm_(kRowMajor, kNotTransposed, kTransposed, m, n, k, 1.0f, a, k, b, k, 0.0f, c, n);
}

}  // namespace edgerecall

#pragma once
#include <cstddef>
#include <string>

namespace edgerecall {

/// A BLAS library (OpenBLAS), loaded at run time and kept: the core needs it to judge retrieval, not to run a model.
/// It is told to use one thread: the core brings its own.
class Blas {
 public:
  /// Loads the library that EDGERECALL_BLAS names, else the one at `path`, else (empty) the system's libopenblas.so.0.
  /// Later calls do nothing. Throws Unavailable with the remedy.
  static void load(const std::string& path);

  /// The loaded library; loads the system's when none is.
  static const Blas& get();

  /// c = a * transpose(b): a `(rows, depth)`, b `(columns, depth)`, c `(rows, columns)`, all row-major float32.
  void multiply_transposed(std::size_t rows, std::size_t columns, std::size_t depth, const float* a, const float* b,
                           float* c) const;

 private:
  using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
  explicit Blas(Sgemm sgemm) : sgemm_(sgemm) {}
  static Blas open(const std::string& path);

  Sgemm sgemm_;
};

}  // namespace edgerecall

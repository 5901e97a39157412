// EDGERECALL_TEST_TARGET=SSE4 (AVX2, AVX3, NEON, ...) runs everything on those vectors; exit code 77: not on this CPU.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <hwy/highway.h>

#include <cstdlib>
#include <cstring>

int main(int argc, char** argv) {
  constexpr int kSkipped = 77;
  const char* wanted = std::getenv("EDGERECALL_TEST_TARGET");
  if (wanted != nullptr) {
    std::int64_t chosen = 0;
    for (const std::int64_t target : hwy::SupportedAndGeneratedTargets())
      if (std::strcmp(hwy::TargetName(target), wanted) == 0) chosen = target;
    if (chosen == 0) return kSkipped;
    hwy::SetSupportedTargetsForTest(chosen);
  }
  return doctest::Context(argc, argv).run();
}

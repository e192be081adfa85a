// Picks a path once per kernel instance, so that nothing has to be kept in a global variable.
#include "path.h"

#include <cstdlib>
#include <cstring>

#if defined(SPATIALDROP_X86)
#include <cpuid.h>
#endif

namespace spatialdrop {
namespace {

#if defined(SPATIALDROP_X86)
// Clang's __builtin_cpu_supports does not know F16C before version 17.
bool HasF16c() {
  unsigned eax, ebx, ecx = 0, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

}  // namespace

size_t UsablePaths(const Path* paths[3]) {
  size_t count = 0;
#if defined(SPATIALDROP_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && HasF16c();
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    paths[count++] = &kAvx512Path;
  }
  if (avx2) paths[count++] = &kAvx2Path;
#endif
#if defined(SPATIALDROP_NEON)
  paths[count++] = &kNeonPath;
#endif
  paths[count++] = &kPortablePath;
  return count;
}

const Path& ChoosePath() {
  const Path* paths[3];
  const size_t count = UsablePaths(paths);
  if (const char* wanted = getenv("ONNX_SPATIALDROP_CPU")) {
    for (size_t i = 0; i < count; ++i) {
      if (strcmp(paths[i]->name, wanted) == 0) return *paths[i];
    }
  }
  return *paths[0];
}

}  // namespace spatialdrop

// Picks a path once per kernel instance, so that nothing has to be kept in a global variable.
#include "path.h"

#include <cstdlib>
#include <cstring>

#include "processor.h"

namespace spatialdrop {

size_t UsablePaths(const Path* paths[3]) {
  size_t count = 0;
#if defined(SPATIALDROP_X86)
  const Processor processor = ThisProcessor();
  if (processor.avx512) paths[count++] = &kAvx512Path;
  if (processor.avx2) paths[count++] = &kAvx2Path;
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

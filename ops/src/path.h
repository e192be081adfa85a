// The inner loops, once per instruction set ("path"), and the choice between them. A path knows buffers, not shapes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stream.h"
#include "tuning.h"

namespace spatialdrop {

enum Type { kFloat16, kBFloat16, kFloat32, kFloat64, kTypeCount };

constexpr size_t kTypeSize[kTypeCount] = {2, 2, 4, 8};

// What kept values are multiplied by: a float for the three narrow types, a double for double.
struct Scale {
  float narrow;
  double wide;
};

// How far away a loop's memory is likely to be. kNear: in the nearest caches. kFar: further, so that it pays to ask for
// it early. kStream: too large for any cache, so written past them; whoever asks for that calls `fence` before another
// thread may read.
enum class Reach { kNear, kFar, kStream };

// Memory that is to be zero, none of it read or written otherwise.
struct Zeros {
  char* to;
  size_t bytes;
};

// `next` is where reading goes on afterwards. `zeros`, if any, may be written on the way, which costs less than a loop
// of its own: the path takes what it wrote off their front, and the rest is left to the caller.
struct Hints {
  Reach reach;
  const Tuning* tuning;
  const char* next;
  Zeros* zeros = nullptr;
};

// Which elements of a loop are kept: element i where kept[i % period] is 1; it is 0 elsewhere. A period that is shorter
// than the loop has at least kLeastPeriod elements, and the bytes go on for as many past it, as if it began again.
struct Pattern {
  const uint8_t* kept;
  size_t period;
};

constexpr size_t kLeastPeriod = 64;

// Loops take steps of so many bytes at most; what is left of a loop behind its last step takes longer.
constexpr size_t kMostStepBytes = 256;

// `to` and `from` are equal or do not overlap.
struct Path {
  const char* name;

  // kept[i] = 0 or 1 for the words first + i, i < count.
  void (*draw[kGeneratorCount])(Stream stream, uint64_t first, size_t count, WordTest test, uint8_t* kept);
  // The same for balanced draws by Philox: words of the stream of a step, and of that of its cycle.
  void (*draw_strata)(Stream stream, Stream cycle, uint64_t first, size_t count, StrataTest test, uint8_t* kept);
  // to[i] = from[i] * scale, rounded once.
  void (*scale[kTypeCount])(void* to, const void* from, size_t count, Scale scale, const Hints& hints);
  // The same for elements that `pattern` keeps; +0 for the others.
  void (*select[kTypeCount])(void* to, const void* from, Pattern pattern, size_t count, Scale scale,
                             const Hints& hints);
  void (*copy)(void* to, const void* from, size_t bytes, const Hints& hints);
  // Zeros, past the caches if `hints` say so. `hints.next`, unless null, is what would be read meanwhile: `to` itself,
  // where the zeros are among what stays in the caches, or X, whose lines are asked for although nobody reads them,
  // because memory that is read without a gap comes faster than what is behind a short one.
  void (*zero)(void* to, size_t bytes, const Hints& hints);
  void (*fence)();
};

extern const Path kPortablePath;
#if defined(SPATIALDROP_X86)
extern const Path kAvx2Path;
extern const Path kAvx512Path;
#endif
#if defined(SPATIALDROP_NEON)
extern const Path kNeonPath;
#endif

// The fastest path that this processor runs. The environment variable ONNX_SPATIALDROP_CPU (portable, avx2, avx512 or
// neon) asks for another; a name that this processor cannot serve is ignored.
const Path& ChoosePath();

// All paths that this processor runs, for tests; returns how many were written, at most 3.
size_t UsablePaths(const Path* paths[3]);

}  // namespace spatialdrop

// How tensors past the nearest caches are moved fastest, by processor. It changes no result.
#pragma once

#include <cstddef>

namespace spatialdrop {

struct Tuning {
  const char* name;
  // What is only read is asked for so many bytes ahead, because processors stop prefetching at the end of a page; no
  // multiple of 4 KiB, since lines a page apart take each other's places in the nearest cache.
  size_t ahead_to_read;
  // It comes past the outer caches, for a short stay in the nearest.
  bool reads_past_caches;
};

// The row of the table that fits this processor. The environment variable ONNX_SPATIALDROP_TUNING asks for another by
// its name; a name that there is not is ignored.
const Tuning& ChooseTuning();

constexpr size_t kTuningCount = 3;
extern const Tuning kTunings[kTuningCount];

}  // namespace spatialdrop

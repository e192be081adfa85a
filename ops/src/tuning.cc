#include "tuning.h"

#include <cstdlib>
#include <cstring>

#include "processor.h"

namespace spatialdrop {

// A row is added for a processor that was measured, where it gains by it. The last one is for all others, hybrid ones
// among them: no processor that was measured is far from its best with it. docs/native.md has what was measured.
const Tuning kTunings[kTuningCount] = {
    // name, ahead to read, reads past the caches
    {"zen4", 6 << 10, true},
    {"zen5", 14 << 10, true},
    {"other", 6 << 10, false},
};

namespace {

const Tuning* Row(const char* name) {
  for (const Tuning& row : kTunings) {
    if (strcmp(row.name, name) == 0) return &row;
  }
  return nullptr;
}

#if defined(SPATIALDROP_X86)
const Tuning& Recognised() {
  const Processor processor = ThisProcessor();
  // Zen 3 is of Zen 4's family, without AVX-512.
  const bool is_zen4 = processor.amd_family == 0x19 && processor.avx512;
  return *Row(processor.amd_family == 0x1A ? "zen5" : is_zen4 ? "zen4" : "other");
}
#else
const Tuning& Recognised() { return *Row("other"); }
#endif

}  // namespace

const Tuning& ChooseTuning() {
  const char* wanted = getenv("ONNX_SPATIALDROP_TUNING");
  const Tuning* row = wanted == nullptr ? nullptr : Row(wanted);
  return row == nullptr ? Recognised() : *row;
}

}  // namespace spatialdrop

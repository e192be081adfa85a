#include "tuning.h"

#include <cstdlib>
#include <cstring>

#if defined(SPATIALDROP_X86)
#include <cpuid.h>
#endif

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
// AMD's family, 0 for other vendors.
unsigned AmdFamily() {
  unsigned eax, ebx, ecx, edx;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx) == 0 || ebx != signature_AMD_ebx || ecx != signature_AMD_ecx ||
      edx != signature_AMD_edx || __get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) {
    return 0;
  }
  return (eax >> 8 & 0xF) + (eax >> 20 & 0xFF);
}

const Tuning& Recognised() {
  const unsigned family = AmdFamily();
  // Zen 3 is of Zen 4's family, without AVX-512.
  const bool is_zen4 = family == 0x19 && __builtin_cpu_supports("avx512f");
  return *Row(family == 0x1A ? "zen5" : is_zen4 ? "zen4" : "other");
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

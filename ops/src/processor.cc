#include "processor.h"

#include <cpuid.h>

namespace spatialdrop {
namespace {

struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // zeros where the processor has no such leaf

  explicit Leaf(unsigned number) { __get_cpuid_count(number, 0, &eax, &ebx, &ecx, &edx); }
};

// Which registers the operating system keeps: 0x6 for AVX, 0xE6 for AVX-512.
bool KeepsRegisters(const Leaf& features, unsigned which) {
  if ((features.ecx & bit_OSXSAVE) == 0) return false;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & which) == which;
}

}  // namespace

Processor ThisProcessor() {
  const Leaf vendor(0), features(1), more(7);
  constexpr unsigned kAvx = bit_AVX | bit_F16C, kAvx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  Processor processor = {};
  processor.avx2 = KeepsRegisters(features, 0x6) && (features.ecx & kAvx) == kAvx && (more.ebx & bit_AVX2) != 0;
  processor.avx512 = processor.avx2 && KeepsRegisters(features, 0xE6) && (more.ebx & kAvx512) == kAvx512;
  if (vendor.ebx == signature_AMD_ebx && vendor.ecx == signature_AMD_ecx && vendor.edx == signature_AMD_edx) {
    processor.amd_family = (features.eax >> 8 & 0xF) + (features.eax >> 20 & 0xFF);
  }
  return processor;
}

}  // namespace spatialdrop

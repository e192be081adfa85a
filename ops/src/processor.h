// What an x86-64 processor says of itself, asked of the processor: not every compiler's runtime library answers.
#pragma once

namespace spatialdrop {

struct Processor {
  bool avx2;            // AVX2 and F16C, and an operating system that keeps their registers
  bool avx512;          // F, BW, DQ and VL, likewise
  unsigned amd_family;  // 0: another vendor's
};

Processor ThisProcessor();

}  // namespace spatialdrop

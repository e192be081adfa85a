// What a dialect (dialects.h) comes down to when entries are drawn: numbers that a generator is started with, and one
// comparison of a word.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spatialdrop {

// The words of one row. Philox takes both numbers, as its key and as the upper half of its counter; Threefry takes the
// key alone.
struct Stream {
  uint64_t key;
  uint64_t high;
};

// ((word >> shift) & (2^bits - 1)) >= threshold without a mask: the wanted bits are moved to the top, and what is below
// them cannot make a smaller number reach `least`, nor a larger one miss it.
struct WordTest {
  uint32_t least;  // threshold << (32 - bits), so 0 < threshold < 2^bits
  uint8_t up;      // 32 - shift - bits
  bool below;      // kept iff the number is not reached

  bool Keeps(uint32_t word) const { return (word << up >= least) != below; }
};

enum Generator { kPhilox, kThreefry, kGeneratorCount };

}  // namespace spatialdrop

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

// Quotient and remainder by a number from 2 on, without a division: `magic` is 2^32 / by, rounded down, so that what it
// gives is the quotient or one less.
struct Divisor {
  uint32_t by, magic;

  explicit Divisor(uint32_t by_) : by(by_), magic(static_cast<uint32_t>((uint64_t{1} << 32) / by_)) {}
  uint32_t Quotient(uint32_t value) const {
    const uint32_t near = static_cast<uint32_t>(static_cast<uint64_t>(value) * magic >> 32);
    return near + (value - near * by >= by);
  }
  uint32_t Remainder(uint32_t value) const { return value - Quotient(value) * by; }
};

// Balanced draws: how an entry fares at one place of a cycle of `strata` steps, by its word for the step and its word
// for the cycle. Dropped iff its rank is below `full`, or is `full` and its word below `least`.
struct StrataTest {
  Divisor strata, factors;  // P, P - 1
  uint32_t place, full, least;

  StrataTest(uint32_t strata_, uint32_t place_, uint32_t full_, uint32_t least_)
      : strata(strata_), factors(strata_ - 1), place(place_), full(full_), least(least_) {}
  // order modulo P (P - 1) is P (a - 1) + c, so c is order modulo P, and a - 1 is order div P modulo P - 1.
  bool Keeps(uint32_t word, uint32_t order) const {
    const uint32_t upper = strata.Quotient(order), c = order - upper * strata.by;
    const uint32_t rank = strata.Remainder((1 + factors.Remainder(upper)) * place + c);
    return (rank > full) | ((rank == full) & (word >= least));
  }
};

enum Generator { kPhilox, kThreefry, kGeneratorCount };

}  // namespace spatialdrop

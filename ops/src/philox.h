// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), one block at a
// time: the scalar form that the vector forms in path_*.cc are tested against. It holds no state.
#pragma once

#include "stream.h"

namespace spatialdrop {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kPhiloxKeyStep0 = 0x9E3779B9;
constexpr uint32_t kPhiloxKeyStep1 = 0xBB67AE85;
constexpr int kPhiloxRounds = 10;

struct PhiloxBlock {
  uint32_t words[4];
};

static inline PhiloxBlock Philox4x32(Stream stream, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream.high), c3 = static_cast<uint32_t>(stream.high >> 32);
  uint32_t k0 = static_cast<uint32_t>(stream.key), k1 = static_cast<uint32_t>(stream.key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c0;
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += kPhiloxKeyStep0;
    k1 += kPhiloxKeyStep1;
  }
  return {{c0, c1, c2, c3}};
}

// Writes kept[i] = (word first + i is kept) for i < count, as 0 or 1. Word l of a stream is word l % 4 of the block
// with the counter (l / 4, stream.high).
static inline void DrawPhiloxScalar(Stream stream, uint64_t first, size_t count, WordTest test, uint8_t* kept) {
  for (size_t i = 0; i < count;) {
    const PhiloxBlock block = Philox4x32(stream, (first + i) / 4);
    for (size_t word = (first + i) % 4; word < 4 && i < count; ++word, ++i) kept[i] = test.Keeps(block.words[word]);
  }
}

}  // namespace spatialdrop

// Threefry2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw, SC 2011), one counter at a time, as JAX draws 32-bit words.
// The vector forms in path_*.cc are tested against it. It holds no state.
#pragma once

#include "stream.h"

namespace spatialdrop {

constexpr uint32_t kThreefryParity = 0x1BD11BDA;
constexpr int kThreefryGroups = 5;  // of four rounds, each group followed by an addition of the key
constexpr int kThreefryRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};

struct ThreefryKey {
  uint32_t part[3];

  explicit ThreefryKey(uint64_t key)
      : part{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32),
             kThreefryParity ^ static_cast<uint32_t>(key) ^ static_cast<uint32_t>(key >> 32)} {}
};

struct ThreefryBlock {
  uint32_t x0, x1;
};

static inline ThreefryBlock Threefry2x32(const ThreefryKey& key, uint32_t x0, uint32_t x1) {
  x0 += key.part[0];
  x1 += key.part[1];
  for (int group = 0; group < kThreefryGroups; ++group) {
    for (const int by : kThreefryRotations[group % 2]) {
      x0 += x1;
      x1 = (x1 << by | x1 >> (32 - by)) ^ x0;
    }
    x0 += key.part[(group + 1) % 3];
    x1 += key.part[(group + 2) % 3] + static_cast<uint32_t>(group) + 1;
  }
  return {x0, x1};
}

// Writes kept[i] = (word first + i is kept) for i < count, as 0 or 1. Every word has a counter of its own.
static inline void DrawThreefryScalar(Stream stream, uint64_t first, size_t count, WordTest test, uint8_t* kept) {
  const ThreefryKey key(stream.key);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t counter = first + i;
    const ThreefryBlock out = Threefry2x32(key, static_cast<uint32_t>(counter >> 32), static_cast<uint32_t>(counter));
    kept[i] = test.Keeps(out.x0 ^ out.x1);
  }
}

}  // namespace spatialdrop

// Threefry2x32 on vectors of 32-bit lanes, one counter a lane, written once over a class `V` of path_*.cc:
//   V::Word, V::kLanes;  V::Broadcast(uint32), V::LaneNumbers(), V::Add, V::Xor, V::Rotate<by>;
//   V::Test, with Write(word, kept bytes).
// In an anonymous namespace, as path_loops.h is.
#pragma once

#include <cstring>

#include "threefry.h"

namespace spatialdrop {
namespace {

template <class V>
struct ThreefryLanes {
  // Enough counters at a time to hide the latency of the rounds, each of which needs the one before it.
  static constexpr size_t kVectors = 4;
  static constexpr size_t kCounters = kVectors * V::kLanes;
  using Word = typename V::Word;

  Word x0[kVectors], x1[kVectors];

  template <int kBy>
  void Round() {
    for (size_t v = 0; v < kVectors; ++v) {
      x0[v] = V::Add(x0[v], x1[v]);
      x1[v] = V::Xor(V::template Rotate<kBy>(x1[v]), x0[v]);
    }
  }

  void AddKey(uint32_t first, uint32_t second) {
    for (size_t v = 0; v < kVectors; ++v) {
      x0[v] = V::Add(x0[v], V::Broadcast(first));
      x1[v] = V::Add(x1[v], V::Broadcast(second));
    }
  }

  template <int kGroup>
  void Group(const ThreefryKey& key) {
    constexpr auto& kBy = kThreefryRotations[kGroup % 2];
    Round<kBy[0]>();
    Round<kBy[1]>();
    Round<kBy[2]>();
    Round<kBy[3]>();
    AddKey(key.part[(kGroup + 1) % 3], key.part[(kGroup + 2) % 3] + kGroup + 1);
  }

  // From the counter (high, low) on; the low halves must not wrap around.
  void Make(const ThreefryKey& key, uint32_t high, uint32_t low) {
    static_assert(kThreefryGroups == 5, "as many as are called below");
    for (size_t v = 0; v < kVectors; ++v) {
      const uint32_t start = low + static_cast<uint32_t>(v * V::kLanes);
      x0[v] = V::Broadcast(high);
      x1[v] = V::Add(V::Broadcast(start), V::LaneNumbers());
    }
    AddKey(key.part[0], key.part[1]);
    Group<0>(key);
    Group<1>(key);
    Group<2>(key);
    Group<3>(key);
    Group<4>(key);
  }

  void Write(const typename V::Test& test, uint8_t* kept) const {
    for (size_t v = 0; v < kVectors; ++v) test.Write(V::Xor(x0[v], x1[v]), kept + v * V::kLanes);
  }
};

template <class V>
void DrawThreefry(Stream stream, uint64_t first, size_t count, WordTest word_test, uint8_t* kept) {
  using Lanes = ThreefryLanes<V>;
  const ThreefryKey key(stream.key);
  const typename V::Test test(word_test);
  for (size_t i = 0; i < count; i += Lanes::kCounters) {
    const size_t left = count - i < Lanes::kCounters ? count - i : Lanes::kCounters;
    const uint64_t counter = first + i;
    const uint32_t high = static_cast<uint32_t>(counter >> 32), low = static_cast<uint32_t>(counter);
    if (left < V::kLanes / 2 || low > UINT32_MAX - Lanes::kCounters) {
      DrawThreefryScalar(stream, counter, left, word_test, kept + i);
      continue;
    }
    Lanes lanes;
    lanes.Make(key, high, low);
    if (left == Lanes::kCounters) {
      lanes.Write(test, kept + i);
    } else {
      uint8_t rest[Lanes::kCounters];
      lanes.Write(test, rest);
      memcpy(kept + i, rest, left);
    }
  }
}

}  // namespace
}  // namespace spatialdrop

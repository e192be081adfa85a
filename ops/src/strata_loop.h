// Balanced draws, for a class `Blocks` of path_*.cc that makes Philox's blocks side by side:
//   Blocks::kBlocks;  Blocks::Words(stream, block, word), which writes word w of block number block + b to word[w][b].
// The test is plain code that compilers vectorise. In an anonymous namespace, as path_loops.h is.
#pragma once

#include <cstring>

#include "philox.h"

namespace spatialdrop {
namespace {

template <class Blocks>
void DrawStrata(Stream stream, Stream cycle, uint64_t first, size_t count, StrataTest test, uint8_t* kept) {
  constexpr size_t kBlocks = Blocks::kBlocks, kWords = 4 * kBlocks;
  for (size_t i = 0; i < count;) {
    const uint64_t block = (first + i) / 4;
    const size_t skip = static_cast<size_t>((first + i) % 4), left = count - i;
    uint32_t word[4][kBlocks], order[4][kBlocks];
    Blocks::Words(stream, block, word);
    Blocks::Words(cycle, block, order);
    // The four bytes of a block in one number, the first of them where it comes first in memory.
    uint32_t bytes[kBlocks] = {};
    for (size_t w = 0; w < 4; ++w) {
      const size_t shift = 8 * (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? w : 3 - w);
      for (size_t b = 0; b < kBlocks; ++b) {
        bytes[b] |= static_cast<uint32_t>(test.Keeps(word[w][b], order[w][b])) << shift;
      }
    }
    const size_t here = kWords - skip < left ? kWords - skip : left;
    memcpy(kept + i, reinterpret_cast<const uint8_t*>(bytes) + skip, here);
    i += here;
  }
}

}  // namespace
}  // namespace spatialdrop

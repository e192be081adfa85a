/* The operator's masks in C99, for rng "philox": a reading of docs/operator.md that needs nothing but <math.h>.

   spatialdropout_is_kept says whether one entry of a row is kept. Y = kept ? X * scale : 0. */
#ifndef SPATIALDROPOUT_H
#define SPATIALDROPOUT_H

#include <math.h>
#include <stdint.h>

/* Word `entry % 4` of the Philox4x32-10 block with this key and counter (entry / 4, step). */
static uint32_t spatialdropout_word(uint64_t seed, uint64_t step, uint64_t entry) {
  const uint64_t block = entry / 4;
  uint32_t c[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)step, (uint32_t)(step >> 32)};
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
    c[0] = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
    c[1] = (uint32_t)p1;
    c[2] = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
    c[3] = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c[entry % 4];
}

/* `step` is 0 or more; `strata` is 1 or a prime number from 3 to 127. Returns 1: kept, 0: dropped. */
static int spatialdropout_is_kept(int64_t seed, int64_t step, uint64_t entry, float ratio, int strata) {
  const uint64_t threshold = (uint64_t)ceil((double)ratio * strata * 16777216.0);
  const uint64_t whole = threshold >> 24, part = threshold & 0xFFFFFF, prime = (uint64_t)strata;
  uint64_t rank = 0;
  if (strata > 1) {
    const uint64_t cycle = (uint64_t)step / prime, place = (uint64_t)step % prime;
    const uint64_t drawn = spatialdropout_word((uint64_t)seed, cycle | 1ull << 63, entry) % (prime * (prime - 1));
    rank = ((1 + drawn / prime) * place + drawn % prime) % prime;
  }
  if (rank != whole) {
    return rank > whole;
  }
  return (spatialdropout_word((uint64_t)seed, (uint64_t)step, entry) >> 8) >= part;
}

#endif

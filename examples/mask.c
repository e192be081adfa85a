/* Prints one row of a mask: mask SEED STEP ENTRIES RATIO STRATA, a 1 for each entry that is kept.
   Build: cc -std=c99 -O2 -o mask mask.c -lm */
#include <stdio.h>
#include <stdlib.h>

#include "spatialdropout.h"

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: mask SEED STEP ENTRIES RATIO STRATA\n");
    return 2;
  }
  const int64_t seed = strtoll(argv[1], NULL, 10), step = strtoll(argv[2], NULL, 10);
  const uint64_t entries = strtoull(argv[3], NULL, 10);
  const float ratio = strtof(argv[4], NULL);
  const int strata = atoi(argv[5]);
  for (uint64_t entry = 0; entry < entries; ++entry) {
    putchar('0' + spatialdropout_is_kept(seed, step, entry, ratio, strata));
  }
  putchar('\n');
  return 0;
}

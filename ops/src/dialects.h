// What the values of the attribute `rng` stand for: the same table as onnx_spatialdrop/operator/dialects.py, the only
// one here. Each names the words that it draws and one integer test, ((word >> shift) & (2^bits - 1)) against a
// threshold.
#pragma once

#include "path.h"
#include "stream.h"

namespace spatialdrop {

// Philox keyed by the seed, Philox keyed as Keras keys it on TensorFlow, and Threefry keyed as Keras keys it on JAX.
enum class Words { kPhilox, kKerasTf, kThreefry };

struct Bits {
  uint8_t shift, bits;  // bits 0: no masks for that type
};

struct Dialect {
  const char* name;
  Words words;
  bool keeps_below;        // kept iff the number lies below the threshold; else iff it does not
  bool own_type;           // the ratio is rounded to X's type before the threshold is taken
  Bits tests[kTypeCount];  // float16, bfloat16, float32, float64
};

constexpr Dialect kDialects[] = {
    {"philox", Words::kPhilox, false, false, {{8, 24}, {8, 24}, {8, 24}, {8, 24}}},
    {"keras_tf", Words::kKerasTf, false, true, {{0, 10}, {0, 7}, {0, 23}, {0, 0}}},
    {"keras_tf_xla", Words::kKerasTf, false, true, {{0, 10}, {9, 23}, {9, 23}, {0, 0}}},
    {"keras_jax", Words::kThreefry, true, false, {{9, 23}, {9, 23}, {9, 23}, {9, 23}}},
};

// The dialect of that name, or null.
const Dialect* FindDialect(const char* name);

// What a node draws with: a generator, how it is started for a row, and the test; or one outcome for all entries.
struct Rule {
  Words words;
  Generator generator;
  WordTest test;  // unless all entries are kept or dropped
  bool keeps_all, drops_all;
  // Over how many steps the draws are balanced; 1: each on its own. An entry is dropped in `full` steps of a cycle, and
  // in another one if `test` says so.
  uint32_t strata, full;
};

// Whether draws can be balanced over so many steps: 1, or a prime number from 3 to 127.
bool AreStrata(int64_t strata);

// `dialect` has a test for `type`; 0 <= ratio <= 1; `strata` is 1 unless the dialect draws by Philox as it is.
Rule MakeRule(const Dialect& dialect, Type type, float ratio, uint32_t strata);

// The stream of one row.
Stream StartStream(Words words, uint64_t seed, int64_t step);

// The stream of the cycle of `strata` steps that `step` is in: of a step that no row can have.
Stream StartCycle(uint64_t seed, int64_t step, uint32_t strata);

}  // namespace spatialdrop

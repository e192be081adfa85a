#include "dialects.h"

#include <cstring>

#include "half.h"
#include "philox.h"

namespace spatialdrop {
namespace {

// Keras takes seed and counter modulo this number; TensorFlow makes Philox's key and counter of the two under this key.
constexpr int64_t kKerasTfModulus = (int64_t{1} << 31) - 2;
constexpr uint64_t kKerasTfKey = uint64_t{0x02461E29} << 32 | 0x3EC8F720;

uint64_t KerasTfRemainder(int64_t value) {
  const int64_t rest = value % kKerasTfModulus;
  return static_cast<uint64_t>(rest < 0 ? rest + kKerasTfModulus : rest);
}

uint64_t Joined(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }

float RoundedTo(Type type, float value) {
  switch (type) {
    case kFloat16:
      return HalfToFloat(FloatToHalf(value));
    case kBFloat16:
      return BFloat16ToFloat(FloatToBFloat16(value));
    default:
      return value;
  }
}

}  // namespace

const Dialect* FindDialect(const char* name) {
  for (const Dialect& dialect : kDialects) {
    if (strcmp(dialect.name, name) == 0) return &dialect;
  }
  return nullptr;
}

bool AreStrata(int64_t strata) {
  if (strata < 3 || strata > 127) return strata == 1;
  for (int64_t factor = 2; factor < strata; ++factor) {
    if (strata % factor == 0) return false;
  }
  return true;
}

Rule MakeRule(const Dialect& dialect, Type type, float ratio, uint32_t strata) {
  const Bits bits = dialect.tests[type];
  const float share = dialect.keeps_below ? static_cast<float>(1.0 - static_cast<double>(ratio)) : ratio;
  const uint32_t whole = 1u << bits.bits;
  // A float times a number of 7 bits and a power of two is exact in double, so rounding up needs no libm.
  const double scaled = static_cast<double>(dialect.own_type ? RoundedTo(type, share) : share) * strata * whole;
  uint32_t threshold = static_cast<uint32_t>(scaled);
  if (static_cast<double>(threshold) < scaled) ++threshold;
  Rule rule = {};
  rule.words = dialect.words;
  rule.generator = dialect.words == Words::kThreefry ? kThreefry : kPhilox;
  rule.keeps_all = threshold == (dialect.keeps_below ? whole : 0);
  rule.drops_all = threshold == (dialect.keeps_below ? 0 : strata * whole);
  rule.strata = strata;
  rule.full = threshold >> bits.bits;
  rule.test.least = threshold << (32 - bits.bits);  // what is left beside `full` whole steps
  rule.test.up = static_cast<uint8_t>(32 - bits.shift - bits.bits);
  rule.test.below = dialect.keeps_below;
  return rule;
}

Stream StartStream(Words words, uint64_t seed, int64_t step) {
  switch (words) {
    case Words::kPhilox:
      return {seed, static_cast<uint64_t>(step)};
    case Words::kThreefry:
      return {Joined(static_cast<uint32_t>(seed), static_cast<uint32_t>(step)), 0};
    default: {
      const Stream mixing = {kKerasTfKey, KerasTfRemainder(step)};
      const PhiloxBlock mixed = Philox4x32(mixing, KerasTfRemainder(static_cast<int64_t>(seed)));
      return {Joined(mixed.words[0], mixed.words[1]), Joined(mixed.words[2], mixed.words[3])};
    }
  }
}

Stream StartCycle(uint64_t seed, int64_t step, uint32_t strata) {
  return {seed, static_cast<uint64_t>(step) / strata | uint64_t{1} << 63};
}

}  // namespace spatialdrop

// Conversions between float, float16 and bfloat16 on plain integers, without branches so that compilers can turn loops
// of them into vector code. Rounding is to nearest, ties to even; NaNs stay NaNs and become quiet. No result depends on
// the processor's flush-to-zero flags, because no intermediate float is subnormal unless the value itself is.
#pragma once

#include <cstdint>
#include <cstring>

namespace spatialdrop {

static inline uint32_t FloatBits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float BitsFloat(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float HalfToFloat(uint16_t half) {
  const uint32_t magnitude = half & 0x7FFFu;
  const uint32_t shifted = magnitude << 13;
  const uint32_t normal = shifted + ((127 - 15) << 23);
  const uint32_t special = shifted + ((255 - 31) << 23);  // Inf and NaN: the exponent goes to all ones
  // A subnormal's bits under the exponent of 2^-14 stand for 2^-14 + value; the subtraction is exact.
  const uint32_t subnormal = FloatBits(BitsFloat(shifted + (113u << 23)) - BitsFloat(113u << 23));
  const uint32_t finite = magnitude < 0x0400 ? subnormal : normal;
  return BitsFloat((magnitude < 0x7C00 ? finite : special) | (half & 0x8000u) << 16);
}

static inline uint16_t FloatToHalf(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Adding half an ulp less the tie bit rounds to nearest even; a carry into the exponent is the right answer too.
  const uint32_t normal = (magnitude - ((127u - 15) << 23) + 0x0FFF + ((magnitude >> 13) & 1)) >> 13;
  // Adding 0.5 makes the adder itself round at 2^-24, float16's smallest step.
  const uint32_t subnormal = FloatBits(BitsFloat(magnitude) + 0.5f) - FloatBits(0.5f);
  const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
  const uint32_t nan = 0x7E00u | ((magnitude >> 13) & 0x3FFu);
  const uint32_t large = magnitude > 0x7F800000u ? nan : 0x7C00u;
  return static_cast<uint16_t>((magnitude < (143u << 23) ? finite : large) | (bits >> 16 & 0x8000u));
}

static inline float BFloat16ToFloat(uint16_t value) { return BitsFloat(static_cast<uint32_t>(value) << 16); }

static inline uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t rounded = bits + 0x7FFF + (bits >> 16 & 1);
  const uint32_t nan = (bits | 0x7FFFFFu) & 0xFFC00000u;
  return static_cast<uint16_t>(((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded) >> 16);
}

// Rounds once, which a detour over float would not do.
static inline uint16_t DoubleToHalf(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  // Round to odd at float's precision: a sticky last bit keeps the second rounding from seeing a false tie.
  const uint64_t magnitude = bits & 0x7FFFFFFFFFFFFFFFu;
  if (magnitude > (uint64_t{0x7FF} << 52)) return static_cast<uint16_t>(bits >> 48 & 0x8000) | 0x7E00;
  float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) != value && (FloatBits(nearest) & 0x7FFFFFFFu) < 0x7F800000u) {
    const double back = static_cast<double>(nearest);
    const bool away = (value < 0 ? -back : back) > (value < 0 ? -value : value);
    nearest = BitsFloat((FloatBits(nearest) - (away ? 1 : 0)) | 1);
  }
  return FloatToHalf(nearest);
}

}  // namespace spatialdrop

// The path for aarch64, all of whose processors have NEON. Its stores are ordinary and nothing is asked for ahead:
// these processors see a stream of whole lines being written and do not read them first.
#include <arm_neon.h>

#include "half.h"
#include "path_loops.h"
#include "philox.h"
#include "strata_loop.h"
#include "threefry_loop.h"

namespace spatialdrop {
namespace {

// Lanes of ones where `kept` is 1; eight 16-bit lanes, or their first or last four as 32-bit ones.
uint16x8_t Mask16(uint8x8_t kept) { return vreinterpretq_u16_s16(vnegq_s16(vreinterpretq_s16_u16(vmovl_u8(kept)))); }
uint32x4_t Mask32(uint16x4_t kept) { return vreinterpretq_u32_s32(vnegq_s32(vreinterpretq_s32_u32(vmovl_u16(kept)))); }

struct Bytes {
  static constexpr bool kStreams = false;
};

struct Narrow16 {
  using Element = uint16_t;
  using Word = uint16x8_t;
  static constexpr bool kStreams = false;
  static constexpr size_t kLanes = 8;
  static float Broadcast(Scale scale) { return scale.narrow; }
  static Word Load(const uint16_t* from) { return vld1q_u16(from); }
  static void Store(uint16_t* to, Word word) { vst1q_u16(to, word); }
  static Word Kept(Word word, const uint8_t* kept) { return vandq_u16(word, Mask16(vld1_u8(kept))); }
};

struct Float16 : Narrow16 {
  static Word Scaled(Word word, float factor) {
    const float16x8_t halves = vreinterpretq_f16_u16(word);
    const float32x4_t low = vmulq_n_f32(vcvt_f32_f16(vget_low_f16(halves)), factor);
    const float32x4_t high = vmulq_n_f32(vcvt_high_f32_f16(halves), factor);
    return vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(low), high));
  }
  static Word ScaledIfKept(Word word, float factor, const uint8_t* kept) { return Kept(Scaled(word, factor), kept); }
};

struct BFloat16 : Narrow16 {
  // A NaN needs no care: its low half is zero, because both factors' are, so nothing is carried into its high half.
  static uint32x4_t Rounded(float32x4_t product) {
    const uint32x4_t bits = vreinterpretq_u32_f32(product);
    const uint32x4_t tie = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7FFF)), tie);
  }
  static Word Scaled(Word word, float factor) {
    const uint32x4_t pairs = vreinterpretq_u32_u16(word);
    const float32x4_t even = vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16));
    const float32x4_t odd = vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xFFFF0000)));
    const uint32x4_t even_out = Rounded(vmulq_n_f32(even, factor)), odd_out = Rounded(vmulq_n_f32(odd, factor));
    return vreinterpretq_u16_u32(vsriq_n_u32(odd_out, even_out, 16));
  }
  static Word ScaledIfKept(Word word, float factor, const uint8_t* kept) { return Kept(Scaled(word, factor), kept); }
};

struct Float32 {
  using Element = float;
  using Word = float32x4x2_t;
  static constexpr bool kStreams = false;
  static constexpr size_t kLanes = 8;
  static float Broadcast(Scale scale) { return scale.narrow; }
  static Word Load(const float* from) { return {{vld1q_f32(from), vld1q_f32(from + 4)}}; }
  static void Store(float* to, Word word) {
    vst1q_f32(to, word.val[0]);
    vst1q_f32(to + 4, word.val[1]);
  }
  static Word Scaled(Word word, float factor) {
    return {{vmulq_n_f32(word.val[0], factor), vmulq_n_f32(word.val[1], factor)}};
  }
  static float32x4_t Kept(float32x4_t product, uint16x4_t kept) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(product), Mask32(kept)));
  }
  static Word ScaledIfKept(Word word, float factor, const uint8_t* kept) {
    const Word product = Scaled(word, factor);
    const uint16x8_t wide = vmovl_u8(vld1_u8(kept));
    return {{Kept(product.val[0], vget_low_u16(wide)), Kept(product.val[1], vget_high_u16(wide))}};
  }
};

struct Float64 {
  using Element = double;
  using Word = float64x2x4_t;
  static constexpr bool kStreams = false;
  static constexpr size_t kLanes = 8;
  static double Broadcast(Scale scale) { return scale.wide; }
  static Word Load(const double* from) {
    return {{vld1q_f64(from), vld1q_f64(from + 2), vld1q_f64(from + 4), vld1q_f64(from + 6)}};
  }
  static void Store(double* to, Word word) {
    for (size_t i = 0; i < 4; ++i) vst1q_f64(to + 2 * i, word.val[i]);
  }
  static Word Scaled(Word word, double factor) {
    for (size_t i = 0; i < 4; ++i) word.val[i] = vmulq_n_f64(word.val[i], factor);
    return word;
  }
  static Word ScaledIfKept(Word word, double factor, const uint8_t* kept) {
    const Word product = Scaled(word, factor);
    const uint16x8_t wide = Mask16(vld1_u8(kept));
    const int32x4_t low = vmovl_s16(vreinterpret_s16_u16(vget_low_u16(wide)));
    const int32x4_t high = vmovl_s16(vreinterpret_s16_u16(vget_high_u16(wide)));
    const int64x2_t masks[4] = {vmovl_s32(vget_low_s32(low)), vmovl_s32(vget_high_s32(low)),
                                vmovl_s32(vget_low_s32(high)), vmovl_s32(vget_high_s32(high))};
    Word out;
    for (size_t i = 0; i < 4; ++i) {
      out.val[i] = vreinterpretq_f64_s64(vandq_s64(vreinterpretq_s64_f64(product.val[i]), masks[i]));
    }
    return out;
  }
};

// The test on four words at a time: lanes of ones for those that pass.
struct WordMasks {
  uint32x4_t least;
  int32x4_t up;
  uint32x4_t below;

  explicit WordMasks(WordTest test)
      : least(vdupq_n_u32(test.least)), up(vdupq_n_s32(test.up)), below(vdupq_n_u32(test.below ? ~0u : 0u)) {}
  uint32x4_t Kept(uint32x4_t words) const { return veorq_u32(vcgeq_u32(vshlq_u32(words, up), least), below); }
  void Write(uint32x4_t words, uint8_t* kept) const {
    const uint16x4_t halves = vmovn_u32(Kept(words));
    const uint8x8_t bytes = vand_u8(vmovn_u16(vcombine_u16(halves, halves)), vdup_n_u8(1));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    memcpy(kept, &four, sizeof four);
  }
};

// The low and the high halves of four products.
struct Products {
  uint32x4_t low, high;

  Products(uint32x4_t factor, uint32_t other) {
    const uint32x4_t first = vreinterpretq_u32_u64(vmull_n_u32(vget_low_u32(factor), other));
    const uint32x4_t last = vreinterpretq_u32_u64(vmull_high_n_u32(factor, other));
    low = vuzp1q_u32(first, last);
    high = vuzp2q_u32(first, last);
  }
};

// Four blocks, one in each lane.
struct FourBlocks {
  uint32x4_t c[4];

  void Round(uint32x4_t k0, uint32x4_t k1) {
    const Products p0(c[0], kPhiloxMultiplier0), p1(c[2], kPhiloxMultiplier1);
    c[0] = veorq_u32(veorq_u32(p1.high, c[1]), k0);
    c[1] = p1.low;
    c[2] = veorq_u32(veorq_u32(p0.high, c[3]), k1);
    c[3] = p0.low;
  }
};

struct SixteenBlocks {
  static constexpr size_t kGroups = 4;
  static constexpr size_t kBlocks = 4 * kGroups, kWords = 4 * kBlocks;

  FourBlocks groups[kGroups];

  SixteenBlocks(Stream stream, uint64_t block) {
    const uint64x2_t lanes01 = vcombine_u64(vcreate_u64(0), vcreate_u64(1));
    for (size_t g = 0; g < kGroups; ++g) {
      const uint64x2_t first = vaddq_u64(vdupq_n_u64(block + 4 * g), lanes01);
      const uint32x4_t indices01 = vreinterpretq_u32_u64(first);
      const uint32x4_t indices23 = vreinterpretq_u32_u64(vaddq_u64(first, vdupq_n_u64(2)));
      groups[g] = {{vuzp1q_u32(indices01, indices23), vuzp2q_u32(indices01, indices23),
                    vdupq_n_u32(static_cast<uint32_t>(stream.high)),
                    vdupq_n_u32(static_cast<uint32_t>(stream.high >> 32))}};
    }
    uint32_t k0 = static_cast<uint32_t>(stream.key), k1 = static_cast<uint32_t>(stream.key >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      for (FourBlocks& group : groups) group.Round(vdupq_n_u32(k0), vdupq_n_u32(k1));
      k0 += kPhiloxKeyStep0;
      k1 += kPhiloxKeyStep1;
    }
  }

  static void Words(Stream stream, uint64_t block, uint32_t (&word)[4][kBlocks]) {
    const SixteenBlocks made(stream, block);
    for (size_t g = 0; g < kGroups; ++g) {
      for (size_t w = 0; w < 4; ++w) vst1q_u32(word[w] + 4 * g, made.groups[g].c[w]);
    }
  }

  // One byte for each block's word number `word`.
  uint8x16_t Kept(const WordMasks& test, size_t word) const {
    const auto halves = [&](size_t g) { return vreinterpretq_u16_u32(test.Kept(groups[g].c[word])); };
    const uint8x16_t low = vreinterpretq_u8_u16(vuzp1q_u16(halves(0), halves(1)));
    const uint8x16_t high = vreinterpretq_u8_u16(vuzp1q_u16(halves(2), halves(3)));
    return vandq_u8(vuzp1q_u8(low, high), vdupq_n_u8(1));
  }

  void Write(const WordMasks& test, uint8_t* kept) const {
    const uint8x16x4_t words = {{Kept(test, 0), Kept(test, 1), Kept(test, 2), Kept(test, 3)}};
    vst4q_u8(kept, words);
  }
};

void DrawPhilox(Stream stream, uint64_t first, size_t count, WordTest word_test, uint8_t* kept) {
  const size_t to_block = static_cast<size_t>(-first & 3);
  if (count < to_block + 16) {
    DrawPhiloxScalar(stream, first, count, word_test, kept);
    return;
  }
  DrawPhiloxScalar(stream, first, to_block, word_test, kept);
  const WordMasks test(word_test);
  for (size_t i = to_block; i < count; i += SixteenBlocks::kWords) {
    const SixteenBlocks blocks(stream, (first + i) / 4);
    if (count - i >= SixteenBlocks::kWords) {
      blocks.Write(test, kept + i);
    } else {
      uint8_t rest[SixteenBlocks::kWords];
      blocks.Write(test, rest);
      memcpy(kept + i, rest, count - i);
    }
  }
}

struct Four {
  using Word = uint32x4_t;
  using Test = WordMasks;
  static constexpr size_t kLanes = 4;
  static Word Broadcast(uint32_t value) { return vdupq_n_u32(value); }
  static Word LaneNumbers() { return vcombine_u32(vcreate_u32(1ull << 32), vcreate_u32(3ull << 32 | 2)); }
  static Word Add(Word a, Word b) { return vaddq_u32(a, b); }
  static Word Xor(Word a, Word b) { return veorq_u32(a, b); }
  template <int kBy>
  static Word Rotate(Word word) {
    return vsriq_n_u32(vshlq_n_u32(word, kBy), word, 32 - kBy);
  }
};

void NoFence() {}

}  // namespace

const Path kNeonPath = {
    "neon",
    {DrawPhilox, DrawThreefry<Four>},
    DrawStrata<SixteenBlocks>,
    {ScaleLoop<Float16>, ScaleLoop<BFloat16>, ScaleLoop<Float32>, ScaleLoop<Float64>},
    {SelectLoop<Float16>, SelectLoop<BFloat16>, SelectLoop<Float32>, SelectLoop<Float64>},
    CopyLoop<Bytes>,
    ZeroLoop<Bytes>,
    NoFence,
};

}  // namespace spatialdrop

// The path for processors with AVX2 and F16C. Compiled with those flags, called only after a check.
#include <immintrin.h>

#include "half.h"
#include "path_loops.h"
#include "philox.h"
#include "strata_loop.h"
#include "threefry_loop.h"

namespace spatialdrop {
namespace {

struct Common {
  static constexpr bool kStreams = true;
  using Word = __m256i;
  static Word Load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static void Store(void* to, Word word) { _mm256_storeu_si256(static_cast<__m256i*>(to), word); }
  static void Stream(void* to, Word word) { _mm256_stream_si256(static_cast<__m256i*>(to), word); }
  static Word Zero() { return _mm256_setzero_si256(); }
};

struct Bytes : Common {
  using Element = uint8_t;
  static constexpr size_t kLanes = 32;
};

struct Narrow16 : Common {
  using Element = uint16_t;
  static constexpr size_t kLanes = 16;
  static __m256 Broadcast(Scale scale) { return _mm256_set1_ps(scale.narrow); }
  static Word Kept(Word word, const uint8_t* kept) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kept));
    return _mm256_and_si256(word, _mm256_sub_epi16(Zero(), _mm256_cvtepu8_epi16(bytes)));
  }
};

struct Float16 : Narrow16 {
  static Word Scaled(Word word, __m256 factor) {
    const __m256 low = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(word)), factor);
    const __m256 high = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(word, 1)), factor);
    return _mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
  }
  static Word ScaledIfKept(Word word, __m256 factor, const uint8_t* kept) { return Kept(Scaled(word, factor), kept); }
};

struct BFloat16 : Narrow16 {
  // A NaN needs no care: its low half is zero, because both factors' are, so nothing is carried into its high half.
  static __m256i Rounded(__m256 product) {
    const __m256i bits = _mm256_castps_si256(product);
    const __m256i tie = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), tie);
  }
  static Word Scaled(Word word, __m256 factor) {
    const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(word, 16));
    const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(word, _mm256_set1_epi32(~0xFFFF)));
    const __m256i even_out = _mm256_srli_epi32(Rounded(_mm256_mul_ps(even, factor)), 16);
    return _mm256_blend_epi16(even_out, Rounded(_mm256_mul_ps(odd, factor)), 0xAA);
  }
  static Word ScaledIfKept(Word word, __m256 factor, const uint8_t* kept) { return Kept(Scaled(word, factor), kept); }
};

struct Float32 : Common {
  using Element = float;
  static constexpr size_t kLanes = 8;
  static __m256 Broadcast(Scale scale) { return _mm256_set1_ps(scale.narrow); }
  static Word Scaled(Word word, __m256 factor) {
    return _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(word), factor));
  }
  static Word Kept(Word word, const uint8_t* kept) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kept));
    return _mm256_and_si256(word, _mm256_sub_epi32(Zero(), _mm256_cvtepu8_epi32(bytes)));
  }
  static Word ScaledIfKept(Word word, __m256 factor, const uint8_t* kept) { return Kept(Scaled(word, factor), kept); }
};

struct Float64 : Common {
  using Element = double;
  static constexpr size_t kLanes = 4;
  static __m256d Broadcast(Scale scale) { return _mm256_set1_pd(scale.wide); }
  static Word Scaled(Word word, __m256d factor) {
    return _mm256_castpd_si256(_mm256_mul_pd(_mm256_castsi256_pd(word), factor));
  }
  static Word Kept(Word word, const uint8_t* kept) {
    int bytes;
    memcpy(&bytes, kept, sizeof bytes);
    return _mm256_and_si256(word, _mm256_sub_epi64(Zero(), _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(bytes))));
  }
  static Word ScaledIfKept(Word word, __m256d factor, const uint8_t* kept) { return Kept(Scaled(word, factor), kept); }
};

// The test on 8 words at a time: lanes of ones for those that pass.
struct WordMasks {
  __m256i short_of;  // the least number that reaches, less one, its sign bit flipped for the signed comparison
  __m128i up;
  __m256i below;

  explicit WordMasks(WordTest test)
      : short_of(_mm256_set1_epi32(static_cast<int>((test.least - 1) ^ 0x80000000u))),
        up(_mm_cvtsi32_si128(test.up)),
        below(_mm256_set1_epi32(test.below ? -1 : 0)) {}
  __m256i Reached(__m256i words) const {
    return _mm256_cmpgt_epi32(_mm256_xor_si256(words, _mm256_set1_epi32(INT32_MIN)), short_of);
  }
  __m256i Kept(__m256i words) const { return _mm256_xor_si256(Reached(_mm256_sll_epi32(words, up)), below); }
  void Write(__m256i words, uint8_t* kept) const {
    const __m256i passed = Kept(words);
    const __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(passed), _mm256_extracti128_si256(passed, 1));
    const __m128i bytes = _mm_and_si128(_mm_packs_epi16(pairs, pairs), _mm_set1_epi8(1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(kept), bytes);
  }
};

// Four blocks, one in each 64-bit lane. Only the low halves of the lanes count; multiplying ignores the rest.
struct FourBlocks {
  __m256i c0, c1, c2, c3;

  void Round(__m256i k0, __m256i k1) {
    const __m256i p0 = _mm256_mul_epu32(c0, _mm256_set1_epi64x(kPhiloxMultiplier0));
    const __m256i p1 = _mm256_mul_epu32(c2, _mm256_set1_epi64x(kPhiloxMultiplier1));
    c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1), k0);
    c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3), k1);
    c1 = p1;
    c3 = p0;
  }

  // 16 bytes.
  template <bool kPlain>
  void Write(const WordMasks& test, uint8_t* kept) const {
    const __m256i words01 = _mm256_blend_epi32(c0, _mm256_slli_epi64(c1, 32), 0xAA);
    const __m256i words23 = _mm256_blend_epi32(c2, _mm256_slli_epi64(c3, 32), 0xAA);
    const __m256i even = _mm256_unpacklo_epi64(words01, words23);  // blocks 0, 2
    const __m256i odd = _mm256_unpackhi_epi64(words01, words23);   // blocks 1, 3
    const __m256i even_kept = kPlain ? test.Reached(even) : test.Kept(even);
    const __m256i odd_kept = kPlain ? test.Reached(odd) : test.Kept(odd);
    const __m256i pairs = _mm256_packs_epi32(even_kept, odd_kept);  // blocks 0, 1 | 2, 3
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(kept), _mm_and_si128(bytes, _mm_set1_epi8(1)));
  }
};

// Blocks side by side: enough of them hide the latency of the rounds.
struct PhiloxGroups {
  static constexpr size_t kGroups = 2;
  static constexpr size_t kBlocks = 4 * kGroups, kWords = 4 * kBlocks;

  FourBlocks groups[kGroups];

  PhiloxGroups(Stream stream, uint64_t block) {
    const __m256i lane = _mm256_set_epi64x(3, 2, 1, 0);
    const __m256i upper_low = _mm256_set1_epi64x(static_cast<int64_t>(stream.high));
    const __m256i upper_high = _mm256_srli_epi64(upper_low, 32);
    for (size_t g = 0; g < kGroups; ++g) {
      const __m256i index = _mm256_add_epi64(_mm256_set1_epi64x(static_cast<int64_t>(block + 4 * g)), lane);
      groups[g] = {index, _mm256_srli_epi64(index, 32), upper_low, upper_high};
    }
    uint32_t k0 = static_cast<uint32_t>(stream.key), k1 = static_cast<uint32_t>(stream.key >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
      for (size_t g = 0; g < kGroups; ++g) groups[g].Round(key0, key1);
      k0 += kPhiloxKeyStep0;
      k1 += kPhiloxKeyStep1;
    }
  }

  static void Words(Stream stream, uint64_t block, uint32_t (&word)[4][kBlocks]) {
    const PhiloxGroups made(stream, block);
    for (size_t g = 0; g < kGroups; ++g) {
      const __m256i words[] = {made.groups[g].c0, made.groups[g].c1, made.groups[g].c2, made.groups[g].c3};
      for (size_t w = 0; w < 4; ++w) {
        const __m256i low_halves = _mm256_permutevar8x32_epi32(words[w], _mm256_set_epi32(7, 5, 3, 1, 6, 4, 2, 0));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(word[w] + 4 * g), _mm256_castsi256_si128(low_halves));
      }
    }
  }
};

// kPlain: the test is a comparison of whole words.
template <bool kPlain>
void DrawPhiloxBlocks(Stream stream, uint64_t first, size_t count, WordTest word_test, uint8_t* kept) {
  constexpr size_t kGroups = PhiloxGroups::kGroups, kWords = PhiloxGroups::kWords;
  const size_t to_block = static_cast<size_t>(-first & 3);
  if (count < to_block + 16) {
    DrawPhiloxScalar(stream, first, count, word_test, kept);
    return;
  }
  DrawPhiloxScalar(stream, first, to_block, word_test, kept);
  const WordMasks test(word_test);
  for (size_t i = to_block; i < count; i += kWords) {
    const PhiloxGroups made(stream, (first + i) / 4);
    if (count - i >= kWords) {
      for (size_t g = 0; g < kGroups; ++g) made.groups[g].Write<kPlain>(test, kept + i + 16 * g);
    } else {
      uint8_t rest[kWords];
      for (size_t g = 0; g < kGroups; ++g) made.groups[g].Write<kPlain>(test, rest + 16 * g);
      memcpy(kept + i, rest, count - i);
    }
  }
}

void DrawPhilox(Stream stream, uint64_t first, size_t count, WordTest test, uint8_t* kept) {
  (test.up == 0 && !test.below ? DrawPhiloxBlocks<true> : DrawPhiloxBlocks<false>)(stream, first, count, test, kept);
}

struct Eight {
  using Word = __m256i;
  using Test = WordMasks;
  static constexpr size_t kLanes = 8;
  static Word Broadcast(uint32_t value) { return _mm256_set1_epi32(static_cast<int>(value)); }
  static Word LaneNumbers() { return _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0); }
  static Word Add(Word a, Word b) { return _mm256_add_epi32(a, b); }
  static Word Xor(Word a, Word b) { return _mm256_xor_si256(a, b); }
  template <int kBy>
  static Word Rotate(Word word) {
    return _mm256_or_si256(_mm256_slli_epi32(word, kBy), _mm256_srli_epi32(word, 32 - kBy));
  }
};

void Fence() { _mm_sfence(); }

}  // namespace

const Path kAvx2Path = {
    "avx2",
    {DrawPhilox, DrawThreefry<Eight>},
    DrawStrata<PhiloxGroups>,
    {ScaleLoop<Float16>, ScaleLoop<BFloat16>, ScaleLoop<Float32>, ScaleLoop<Float64>},
    {SelectLoop<Float16>, SelectLoop<BFloat16>, SelectLoop<Float32>, SelectLoop<Float64>},
    CopyLoop<Bytes>,
    ZeroLoop<Bytes>,
    Fence,
};

}  // namespace spatialdrop

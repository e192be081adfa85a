// The path for processors with AVX-512 F, BW, DQ and VL. Compiled with those flags, called only after a check.
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
  using Word = __m512i;
  static Word Load(const void* from) { return _mm512_loadu_si512(from); }
  static void Store(void* to, Word word) { _mm512_storeu_si512(to, word); }
  static void Stream(void* to, Word word) { _mm512_stream_si512(static_cast<__m512i*>(to), word); }
  static Word Zero() { return _mm512_setzero_si512(); }
};

struct Bytes : Common {
  using Element = uint8_t;
  static constexpr size_t kLanes = 64;
};

// Which of 16 elements are kept.
__mmask16 KeptOf16(const uint8_t* kept) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kept));
  return _mm_test_epi8_mask(bytes, bytes);
}

// In two halves, which is how the conversions take them. Products that are masked away are +0 and stay so.
struct Float16 {
  static constexpr bool kStreams = true;
  using Element = uint16_t;
  struct Word {
    __m256i low, high;
  };
  static constexpr size_t kLanes = 32;
  static __m512 Broadcast(Scale scale) { return _mm512_set1_ps(scale.narrow); }
  static Word Load(const uint16_t* from) {
    const auto* halves = reinterpret_cast<const __m256i*>(from);
    return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
  }
  static __m512i Whole(Word word) { return _mm512_inserti64x4(_mm512_castsi256_si512(word.low), word.high, 1); }
  static void Store(uint16_t* to, Word word) { _mm512_storeu_si512(to, Whole(word)); }
  static void Stream(uint16_t* to, Word word) { Common::Stream(to, Whole(word)); }
  static Word Zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static __m256i Encoded(__m512 value) { return _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Word Scaled(Word word, __m512 factor) {
    return {Encoded(_mm512_mul_ps(_mm512_cvtph_ps(word.low), factor)),
            Encoded(_mm512_mul_ps(_mm512_cvtph_ps(word.high), factor))};
  }
  static Word ScaledIfKept(Word word, __m512 factor, const uint8_t* kept) {
    return {Encoded(_mm512_maskz_mul_ps(KeptOf16(kept), _mm512_cvtph_ps(word.low), factor)),
            Encoded(_mm512_maskz_mul_ps(KeptOf16(kept + 16), _mm512_cvtph_ps(word.high), factor))};
  }
};

struct BFloat16 : Common {
  using Element = uint16_t;
  static constexpr size_t kLanes = 32;
  static __m512 Broadcast(Scale scale) { return _mm512_set1_ps(scale.narrow); }
  // The conversion instructions of AVX512_BF16 flush subnormals, so the rounding is done on integers, ties to even. A
  // NaN needs no care: its low half is zero, because both factors' are, so nothing is carried into its high half.
  static __m512i Rounded(__m512 product) {
    const __m512i bits = _mm512_castps_si512(product);
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF));
    return _mm512_mask_sub_epi32(rounded, _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000)), rounded,
                                 _mm512_set1_epi32(-1));
  }
  // Even elements are the low halves of 32-bit lanes, odd ones the high halves: nothing has to change places.
  static Word Scaled(Word word, __m512 factor) {
    const __m512i high_half = _mm512_set1_epi32(~0xFFFF);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(word, 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(word, high_half));
    const __m512i even_out = _mm512_srli_epi32(Rounded(_mm512_mul_ps(even, factor)), 16);
    const __m512i odd_out = Rounded(_mm512_mul_ps(odd, factor));
    return _mm512_mask_blend_epi16(0xAAAAAAAA, even_out, odd_out);
  }
  static Word ScaledIfKept(Word word, __m512 factor, const uint8_t* kept) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kept));
    return _mm512_maskz_mov_epi16(_mm256_test_epi8_mask(bytes, bytes), Scaled(word, factor));
  }
};

struct Float32 : Common {
  using Element = float;
  static constexpr size_t kLanes = 16;
  static __m512 Broadcast(Scale scale) { return _mm512_set1_ps(scale.narrow); }
  static Word Scaled(Word word, __m512 factor) {
    return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(word), factor));
  }
  static Word ScaledIfKept(Word word, __m512 factor, const uint8_t* kept) {
    return _mm512_castps_si512(_mm512_maskz_mul_ps(KeptOf16(kept), _mm512_castsi512_ps(word), factor));
  }
};

struct Float64 : Common {
  using Element = double;
  static constexpr size_t kLanes = 8;
  static __m512d Broadcast(Scale scale) { return _mm512_set1_pd(scale.wide); }
  static Word Scaled(Word word, __m512d factor) {
    return _mm512_castpd_si512(_mm512_mul_pd(_mm512_castsi512_pd(word), factor));
  }
  static Word ScaledIfKept(Word word, __m512d factor, const uint8_t* kept) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kept));
    const __mmask8 mask = static_cast<__mmask8>(_mm_test_epi8_mask(bytes, bytes));
    return _mm512_castpd_si512(_mm512_maskz_mul_pd(mask, _mm512_castsi512_pd(word), factor));
  }
};

// The test on 16 words at a time.
struct WordMasks {
  __m512i least;
  __m128i up;
  __mmask16 below;

  explicit WordMasks(WordTest test)
      : least(_mm512_set1_epi32(static_cast<int>(test.least))),
        up(_mm_cvtsi32_si128(test.up)),
        below(test.below ? 0xFFFF : 0) {}
  __m128i Reached(__m512i words) const {
    return _mm_maskz_mov_epi8(_mm512_cmpge_epu32_mask(words, least), _mm_set1_epi8(1));
  }
  __m128i Kept(__m512i words) const {
    const __mmask16 reached = _mm512_cmpge_epu32_mask(_mm512_sll_epi32(words, up), least);
    return _mm_maskz_mov_epi8(_kxor_mask16(reached, below), _mm_set1_epi8(1));
  }
  void Write(__m512i words, uint8_t* kept) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(kept), Kept(words)); }
};

// Eight blocks, one in each 64-bit lane. Only the low halves of the lanes count; multiplying ignores the rest.
struct EightBlocks {
  __m512i c0, c1, c2, c3;

  void Round(__m512i k0, __m512i k1) {
    const __m512i p0 = _mm512_mul_epu32(c0, _mm512_set1_epi64(kPhiloxMultiplier0));
    const __m512i p1 = _mm512_mul_epu32(c2, _mm512_set1_epi64(kPhiloxMultiplier1));
    constexpr int kXorOfThree = 0x96;
    c0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c1, k0, kXorOfThree);
    c2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c3, k1, kXorOfThree);
    c1 = p1;
    c3 = p0;
  }

  template <bool kPlain>
  void Write(const WordMasks& test, uint8_t* kept) const {
    const __m512i words01 = _mm512_mask_blend_epi32(0xAAAA, c0, _mm512_slli_epi64(c1, 32));
    const __m512i words23 = _mm512_mask_blend_epi32(0xAAAA, c2, _mm512_slli_epi64(c3, 32));
    const __m512i even = _mm512_unpacklo_epi64(words01, words23);  // blocks 0, 2, 4, 6
    const __m512i odd = _mm512_unpackhi_epi64(words01, words23);
    const __m128i even_kept = kPlain ? test.Reached(even) : test.Kept(even);
    const __m128i odd_kept = kPlain ? test.Reached(odd) : test.Kept(odd);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(kept), _mm_unpacklo_epi32(even_kept, odd_kept));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(kept + 16), _mm_unpackhi_epi32(even_kept, odd_kept));
  }
};

// Blocks side by side, 32 words for each of kGroups: enough of them hide the latency of the rounds.
template <size_t kGroups>
struct PhiloxGroups {
  static constexpr size_t kBlocks = 8 * kGroups, kWords = 4 * kBlocks;

  EightBlocks groups[kGroups];

  PhiloxGroups(Stream stream, uint64_t block) {
    const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i upper_low = _mm512_set1_epi64(static_cast<int64_t>(stream.high));
    const __m512i upper_high = _mm512_srli_epi64(upper_low, 32);
    for (size_t g = 0; g < kGroups; ++g) {
      const __m512i index = _mm512_add_epi64(_mm512_set1_epi64(static_cast<int64_t>(block + 8 * g)), lane);
      groups[g] = {index, _mm512_srli_epi64(index, 32), upper_low, upper_high};
    }
    uint32_t k0 = static_cast<uint32_t>(stream.key), k1 = static_cast<uint32_t>(stream.key >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const __m512i key0 = _mm512_set1_epi64(k0), key1 = _mm512_set1_epi64(k1);
      for (size_t g = 0; g < kGroups; ++g) groups[g].Round(key0, key1);
      k0 += kPhiloxKeyStep0;
      k1 += kPhiloxKeyStep1;
    }
  }

  static void Words(Stream stream, uint64_t block, uint32_t (&word)[4][kBlocks]) {
    const PhiloxGroups made(stream, block);
    for (size_t g = 0; g < kGroups; ++g) {
      const __m512i words[] = {made.groups[g].c0, made.groups[g].c1, made.groups[g].c2, made.groups[g].c3};
      for (size_t w = 0; w < 4; ++w) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(word[w] + 8 * g), _mm512_cvtepi64_epi32(words[w]));
      }
    }
  }

  template <bool kPlain>
  void Write(const WordMasks& test, uint8_t* kept, size_t count) const {
    uint8_t rest[kWords];
    uint8_t* to = count < kWords ? rest : kept;
    for (size_t g = 0; g < kGroups; ++g) groups[g].template Write<kPlain>(test, to + 32 * g);
    if (count < kWords) memcpy(kept, rest, count);
  }
};

// kPlain: the test is a comparison of whole words.
template <bool kPlain>
void DrawPhiloxBlocks(Stream stream, uint64_t first, size_t count, WordTest word_test, uint8_t* kept) {
  const size_t to_block = static_cast<size_t>(-first & 3);
  if (count < to_block + 16) {
    DrawPhiloxScalar(stream, first, count, word_test, kept);
    return;
  }
  DrawPhiloxScalar(stream, first, to_block, word_test, kept);
  using Many = PhiloxGroups<4>;
  using Few = PhiloxGroups<2>;
  const WordMasks test(word_test);
  size_t i = to_block;
  for (; count - i > Few::kWords; i += Many::kWords) {
    const size_t left = count - i < Many::kWords ? count - i : Many::kWords;
    Many(stream, (first + i) / 4).template Write<kPlain>(test, kept + i, left);
    if (left < Many::kWords) return;
  }
  if (i < count) Few(stream, (first + i) / 4).template Write<kPlain>(test, kept + i, count - i);
}

void DrawPhilox(Stream stream, uint64_t first, size_t count, WordTest test, uint8_t* kept) {
  (test.up == 0 && !test.below ? DrawPhiloxBlocks<true> : DrawPhiloxBlocks<false>)(stream, first, count, test, kept);
}

struct Sixteen {
  using Word = __m512i;
  using Test = WordMasks;
  static constexpr size_t kLanes = 16;
  static Word Broadcast(uint32_t value) { return _mm512_set1_epi32(static_cast<int>(value)); }
  static Word LaneNumbers() { return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
  static Word Add(Word a, Word b) { return _mm512_add_epi32(a, b); }
  static Word Xor(Word a, Word b) { return _mm512_xor_si512(a, b); }
  template <int kBy>
  static Word Rotate(Word word) {
    return _mm512_rol_epi32(word, kBy);
  }
};

void Fence() { _mm_sfence(); }

}  // namespace

const Path kAvx512Path = {
    "avx512",
    {DrawPhilox, DrawThreefry<Sixteen>},
    DrawStrata<PhiloxGroups<2>>,
    {ScaleLoop<Float16>, ScaleLoop<BFloat16>, ScaleLoop<Float32>, ScaleLoop<Float64>},
    {SelectLoop<Float16>, SelectLoop<BFloat16>, SelectLoop<Float32>, SelectLoop<Float64>},
    CopyLoop<Bytes>,
    ZeroLoop<Bytes>,
    Fence,
};

}  // namespace spatialdrop

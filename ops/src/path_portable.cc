// The path for every processor: plain C++ in blocks that compilers vectorise for the baseline instruction set.
#include "half.h"
#include "path_loops.h"
#include "philox.h"
#include "strata_loop.h"
#include "threefry.h"

namespace spatialdrop {
namespace {

template <class T, size_t lanes>
struct Block {
  T element[lanes];
};

// `Codec` has Element, Number (what products are made in), Decode, Encode and Pick(scale).
template <class Codec>
struct Plain {
  static constexpr bool kStreams = false;
  using Element = typename Codec::Element;
  using Number = typename Codec::Number;
  static constexpr size_t kLanes = 32 / sizeof(Element);
  using Word = Block<Element, kLanes>;

  static Number Broadcast(Scale scale) { return Codec::Pick(scale); }
  static Word Load(const Element* from) {
    Word word;
    memcpy(&word, from, sizeof word);
    return word;
  }
  static void Store(Element* to, const Word& word) { memcpy(to, &word, sizeof word); }
  static Word Scaled(const Word& word, Number factor) {
    Word out;
    for (size_t i = 0; i < kLanes; ++i) out.element[i] = Codec::Encode(Codec::Decode(word.element[i]) * factor);
    return out;
  }
  static Word ScaledIfKept(const Word& word, Number factor, const uint8_t* kept) {
    Word out = Scaled(word, factor);
    for (size_t i = 0; i < kLanes; ++i) out.element[i] = kept[i] ? out.element[i] : Element{0};
    return out;
  }
};

struct Float16Codec {
  using Element = uint16_t;
  using Number = float;
  static float Decode(uint16_t value) { return HalfToFloat(value); }
  static uint16_t Encode(float value) { return FloatToHalf(value); }
  static float Pick(Scale scale) { return scale.narrow; }
};

struct BFloat16Codec {
  using Element = uint16_t;
  using Number = float;
  static float Decode(uint16_t value) { return BFloat16ToFloat(value); }
  static uint16_t Encode(float value) { return FloatToBFloat16(value); }
  static float Pick(Scale scale) { return scale.narrow; }
};

struct FloatCodec {
  using Element = float;
  using Number = float;
  static float Decode(float value) { return value; }
  static float Encode(float value) { return value; }
  static float Pick(Scale scale) { return scale.narrow; }
};

struct DoubleCodec {
  using Element = double;
  using Number = double;
  static double Decode(double value) { return value; }
  static double Encode(double value) { return value; }
  static double Pick(Scale scale) { return scale.wide; }
};

struct Bytes {
  static constexpr bool kStreams = false;
};

struct ScalarBlocks {
  static constexpr size_t kBlocks = 8;

  static void Words(Stream stream, uint64_t block, uint32_t (&word)[4][kBlocks]) {
    for (size_t b = 0; b < kBlocks; ++b) {
      const PhiloxBlock made = Philox4x32(stream, block + b);
      for (size_t w = 0; w < 4; ++w) word[w][b] = made.words[w];
    }
  }
};

void NoFence() {}

}  // namespace

const Path kPortablePath = {
    "portable",
    {DrawPhiloxScalar, DrawThreefryScalar},
    DrawStrata<ScalarBlocks>,
    {ScaleLoop<Plain<Float16Codec>>, ScaleLoop<Plain<BFloat16Codec>>, ScaleLoop<Plain<FloatCodec>>,
     ScaleLoop<Plain<DoubleCodec>>},
    {SelectLoop<Plain<Float16Codec>>, SelectLoop<Plain<BFloat16Codec>>, SelectLoop<Plain<FloatCodec>>,
     SelectLoop<Plain<DoubleCodec>>},
    CopyLoop<Bytes>,
    ZeroLoop<Bytes>,
    NoFence,
};

}  // namespace spatialdrop

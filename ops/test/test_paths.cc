// Every path against plain scalar code, lane by lane, on buffers that end where the data ends.
#include <cmath>
#include <cstring>
#include <vector>

#include "../src/half.h"
#include "../src/path.h"
#include "check.h"

namespace spatialdrop {
namespace {

const Tuning& AnyTuning(Random* random) { return kTunings[random->Below(kTuningCount)]; }

double Decode(Type type, const uint8_t* at) {
  if (type == kFloat64) {
    double value;
    memcpy(&value, at, sizeof value);
    return value;
  }
  if (type == kFloat32) {
    float value;
    memcpy(&value, at, sizeof value);
    return static_cast<double>(value);
  }
  uint16_t bits;
  memcpy(&bits, at, sizeof bits);
  return static_cast<double>(type == kFloat16 ? HalfToFloat(bits) : BFloat16ToFloat(bits));
}

// Scalar product, rounded as the definition says, compared by bits; NaNs compare as NaNs.
void ExpectProduct(const Path& path, Type type, const uint8_t* from, const uint8_t* to, Scale scale, bool kept) {
  uint64_t bits = 0, zero = 0;
  memcpy(&bits, to, kTypeSize[type]);
  if (!kept) {
    CHECK(bits == zero, "%s: a dropped element is not +0", path.name);
    return;
  }
  const double x = Decode(type, from), y = Decode(type, to);
  uint64_t expected = 0;
  bool nan;
  if (type == kFloat64) {
    const double product = x * scale.wide;
    memcpy(&expected, &product, sizeof product);
    nan = std::isnan(product);
  } else {
    const float product = static_cast<float>(x) * scale.narrow;
    const uint32_t word = type == kFloat32   ? FloatBits(product)
                          : type == kFloat16 ? DoubleToHalf(x * static_cast<double>(scale.narrow))
                                             : FloatToBFloat16(product);
    expected = word;
    nan = std::isnan(product);
  }
  CHECK(nan ? std::isnan(y) : bits == expected, "%s: type %d: %g * %g gave %llx, not %llx", path.name, type, x,
        static_cast<double>(scale.narrow), static_cast<unsigned long long>(bits),
        static_cast<unsigned long long>(expected));
}

void TestProducts(const Path& path, Type type) {
  Random random(2);
  const double scales[] = {1.25, 2.0, 1.0 / 0.7, 0.001, 65504.0, 1e30, -3.0, 1e-30, INFINITY, NAN};
  const size_t size = kTypeSize[type];
  const Reach reaches[] = {Reach::kNear, Reach::kFar, Reach::kStream};
  for (int trial = 0; trial < 600; ++trial) {
    const double factor = scales[random.Below(10)];
    Scale scale = {static_cast<float>(factor), factor};
    if (type == kFloat16) scale.narrow = HalfToFloat(DoubleToHalf(factor));
    if (type == kBFloat16) scale.narrow = BFloat16ToFloat(FloatToBFloat16(scale.narrow));
    const size_t count = trial % 50 == 0 ? 20000 : random.Below(500);
    const size_t skip = random.Below(64 / size + 1);
    std::vector<uint8_t> from((skip + count) * size), to((skip + count) * size), kept(count);
    for (uint8_t& byte : from) byte = static_cast<uint8_t>(random.Next());
    for (uint8_t& byte : kept) byte = random.Next() & 1;
    const size_t period = random.Below(2) == 0 ? count : kLeastPeriod + random.Below(200);
    for (size_t i = period; i < count; ++i) kept[i] = kept[i - period];
    const bool in_place = random.Below(3) == 0;
    const Hints hints = {reaches[random.Below(3)], &AnyTuning(&random), reinterpret_cast<const char*>(from.data())};
    const std::vector<uint8_t> original = from;
    uint8_t* out = (in_place ? from : to).data() + skip * size;
    const uint8_t* in = from.data() + skip * size;
    const bool all = random.Below(2) == 0;
    if (all) {
      path.scale[type](out, in, count, scale, hints);
    } else {
      path.select[type](out, in, {kept.data(), period}, count, scale, hints);
    }
    path.fence();
    for (size_t i = 0; i < count; ++i) {
      ExpectProduct(path, type, original.data() + (skip + i) * size, out + i * size, scale, all || kept[i]);
    }
  }
}

// Every 16-bit number there is.
void TestAllOf16Bits(const Path& path, Type type) {
  std::vector<uint16_t> from(1 << 16), to(1 << 16);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint16_t>(i);
  for (const float factor : {1.25f, 1.4287109375f, 3.0f, 0.0625f}) {
    const Hints hints = {Reach::kNear, nullptr, nullptr};
    const Scale scale = {factor, 0.0};
    path.scale[type](to.data(), from.data(), from.size(), scale, hints);
    for (size_t i = 0; i < from.size(); ++i) {
      ExpectProduct(path, type, reinterpret_cast<uint8_t*>(&from[i]), reinterpret_cast<uint8_t*>(&to[i]), scale, true);
    }
  }
}

// What is written beside a loop: what the path says, from the front, and nothing past the end.
void TestZerosBeside(const Path& path) {
  Random random(5);
  const Reach reaches[] = {Reach::kNear, Reach::kFar, Reach::kStream};
  for (int trial = 0; trial < 400; ++trial) {
    const size_t count = trial % 40 == 0 ? 9000 : 1 + random.Below(600), skip = random.Below(17), after = 16;
    const size_t bytes = sizeof(float) * random.Below(trial % 4 == 0 ? 9000 : 600);
    std::vector<float> from(count, 2.0f), to(count);
    std::vector<uint8_t> beside(skip * sizeof(float) + bytes + after, 0xAB);
    Zeros zeros{reinterpret_cast<char*>(beside.data()) + skip * sizeof(float), bytes};
    const char* end = zeros.to + bytes;
    const Reach reach = reaches[random.Below(3)];
    const char* next = reinterpret_cast<const char*>(from.data() + (trial % 3 ? 0 : count));
    const Hints hints = {reach, &AnyTuning(&random), next, &zeros};
    if (random.Below(2) == 0) {
      path.copy(to.data(), from.data(), count * sizeof(float), hints);
    } else {
      path.scale[kFloat32](to.data(), from.data(), count, {1.0f, 1.0}, hints);
    }
    path.fence();
    CHECK(memcmp(to.data(), from.data(), count * sizeof(float)) == 0, "%s: product beside zeros", path.name);
    CHECK(zeros.bytes <= bytes && zeros.to + zeros.bytes == end, "%s: zeros beside: end moved", path.name);
    for (size_t i = 0; i < beside.size(); ++i) {
      const bool written = i >= skip * sizeof(float) && i < skip * sizeof(float) + bytes - zeros.bytes;
      CHECK(beside[i] == (written ? 0 : 0xAB), "%s: zeros beside: byte %zu of %zu", path.name, i, bytes);
    }
  }
}

void TestBytes(const Path& path) {
  Random random(3);
  for (int trial = 0; trial < 400; ++trial) {
    const size_t bytes = trial % 40 == 0 ? 50000 : random.Below(600), skip = random.Below(70);
    std::vector<uint8_t> from(skip + bytes), to(skip + bytes, 0xAB);
    for (uint8_t& byte : from) byte = static_cast<uint8_t>(random.Next());
    const bool stream = random.Below(2) == 0;
    const Reach reach = stream ? Reach::kStream : Reach::kNear;
    const Tuning& tuning = AnyTuning(&random);
    const Hints hints = {reach, &tuning, reinterpret_cast<const char*>(from.data())};
    path.copy(to.data() + skip, from.data() + skip, bytes, hints);
    path.fence();
    CHECK(memcmp(to.data() + skip, from.data() + skip, bytes) == 0, "%s: copy of %zu bytes", path.name, bytes);
    to.resize(skip + bytes + 70, 0xAB);
    const uint8_t* passed = trial % 3 == 0 ? nullptr : stream ? from.data() : to.data() + skip;
    path.zero(to.data() + skip, bytes, {reach, &tuning, reinterpret_cast<const char*>(passed)});
    path.fence();
    for (size_t i = 0; i < to.size(); ++i) {
      const bool written = i >= skip && i < skip + bytes;
      CHECK(to[i] == (written ? 0 : 0xAB), "%s: zero, byte %zu of %zu", path.name, i, bytes);
    }
  }
}

void TestConversions() {
  for (uint32_t bits = 0; bits < 1 << 16; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const float value = HalfToFloat(half);
    if (exponent == 31 && fraction != 0) {
      CHECK(std::isnan(value) && (FloatToHalf(value) & 0x7C00) == 0x7C00, "NaN %x", bits);
      continue;
    }
    const double magnitude = exponent == 31  ? INFINITY
                             : exponent == 0 ? std::ldexp(fraction, -24)
                                             : std::ldexp(1024 + fraction, exponent - 25);
    CHECK(static_cast<double>(value) == (half & 0x8000 ? -magnitude : magnitude), "float16 %x", bits);
    CHECK(FloatToHalf(value) == half && DoubleToHalf(static_cast<double>(value)) == half, "float16 %x", bits);
    // Between a number and the next one, the middle goes to the even one and everything else to the nearer.
    if (half >= 0x7BFF) continue;
    const double next = static_cast<double>(HalfToFloat(static_cast<uint16_t>(half + 1)));
    const double middle = (static_cast<double>(value) + next) / 2;
    const uint16_t even = static_cast<uint16_t>(half + (half & 1));
    CHECK(DoubleToHalf(middle) == even && FloatToHalf(static_cast<float>(middle)) == even, "tie after %x", bits);
    CHECK(DoubleToHalf(std::nextafter(middle, INFINITY)) == half + 1, "above the tie after %x", bits);
    CHECK(DoubleToHalf(std::nextafter(middle, 0.0)) == half, "below the tie after %x", bits);
  }
}

// The row that is asked for by its name, and without one, or with one that there is not, always the same.
void TestTunings() {
  const char* variable = "ONNX_SPATIALDROP_TUNING";
  SetVariable(variable, "");
  const Tuning* usual = &ChooseTuning();
  for (const Tuning& row : kTunings) {
    SetVariable(variable, row.name);
    CHECK(&ChooseTuning() == &row, "asked for %s", row.name);
  }
  SetVariable(variable, "zen1000");
  CHECK(&ChooseTuning() == usual, "an unknown name is not ignored");
  SetVariable(variable, "");
  printf("tuning %s\n", usual->name);
}

}  // namespace
}  // namespace spatialdrop

void TestPaths() {
  using namespace spatialdrop;
  TestConversions();
  TestTunings();
  const Path* paths[3];
  const size_t count = UsablePaths(paths);
  for (size_t i = 0; i < count; ++i) {
    printf("path %s\n", paths[i]->name);
    TestZerosBeside(*paths[i]);
    TestBytes(*paths[i]);
    for (const Type type : {kFloat16, kBFloat16, kFloat32, kFloat64}) TestProducts(*paths[i], type);
    TestAllOf16Bits(*paths[i], kFloat16);
    TestAllOf16Bits(*paths[i], kBFloat16);
  }
}

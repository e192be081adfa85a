// The generators against published answers, and every path's draws against plain scalar code, entry by entry.
#include <vector>

#include "../src/dialects.h"
#include "../src/philox.h"
#include "../src/threefry.h"
#include "check.h"

namespace spatialdrop {
namespace {

// Random123's known answers.
void TestKnownAnswers() {
  const auto philox = [](uint64_t block, uint64_t high, uint64_t key, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    const PhiloxBlock out = Philox4x32({key, high}, block);
    CHECK(out.words[0] == a && out.words[1] == b && out.words[2] == c && out.words[3] == d, "block %llx",
          static_cast<unsigned long long>(block));
  };
  philox(0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
  philox(~0ull, ~0ull, ~0ull, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
  philox(0x85a308d3243f6a88, 0x0370734413198a2e, 0x299f31d0a4093822, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
  const auto threefry = [](uint64_t key, uint32_t x0, uint32_t x1, uint32_t a, uint32_t b) {
    const ThreefryBlock out = Threefry2x32(ThreefryKey(key), x0, x1);
    CHECK(out.x0 == a && out.x1 == b, "counter %x %x gave %x %x", x0, x1, out.x0, out.x1);
  };
  threefry(0, 0, 0, 0x6b200159, 0x99ba4efe);
  threefry(~0ull, ~0u, ~0u, 0x1cb996fc, 0xbb002be7);
  threefry(0x0370734413198a2e, 0x243f6a88, 0x85a308d3, 0xc4923a9c, 0x483df7a0);
}

void TestDraw(const Path& path, Generator generator) {
  Random random(1);
  const auto scalar = generator == kThreefry ? DrawThreefryScalar : DrawPhiloxScalar;
  for (int trial = 0; trial < 4000; ++trial) {
    const size_t count = random.Below(700);
    // Around word 2^34 the number of Philox's block passes 32 bits; around 2^32, Threefry's counter.
    const uint64_t near[] = {0, (1ull << 34) - 300, (1ull << 32) - 500, random.Next() >> 3};
    const uint64_t first = near[random.Below(4)] + random.Below(400);
    const Stream stream = {random.Next(), random.Next() >> random.Below(64)};
    const Bits bits[] = {{8, 24}, {9, 23}, {0, 23}, {0, 10}, {0, 7}};
    const Bits chosen = bits[random.Below(5)];
    const uint32_t whole = 1u << chosen.bits;
    const uint32_t edge[] = {1, whole - 1, 1 + static_cast<uint32_t>(random.Below(whole - 1))};
    const uint32_t threshold = edge[random.Below(3)];
    const bool below = random.Below(2) == 0;
    const WordTest test = {threshold << (32 - chosen.bits), static_cast<uint8_t>(32 - chosen.shift - chosen.bits),
                           below};
    const uint32_t word = static_cast<uint32_t>(random.Next());
    const uint32_t number = word >> chosen.shift & (whole - 1);
    CHECK(test.Keeps(word) == (below ? number < threshold : number >= threshold), "test of %x", word);
    std::vector<uint8_t> kept(count), expected(count);
    scalar(stream, first, count, test, expected.data());
    path.draw[generator](stream, first, count, test, kept.data());
    CHECK(kept == expected, "%s: draw %d of %zu words from %llu", path.name, generator, count,
          static_cast<unsigned long long>(first));
  }
}

void TestDivisors() {
  Random random(2);
  for (uint32_t by = 2; by <= 127; ++by) {
    const Divisor divisor(by);
    for (int trial = 0; trial < 3000; ++trial) {
      const uint32_t near = static_cast<uint32_t>(random.Next()) / by * by;
      for (const uint32_t value : {near, near - 1, near + by - 1, static_cast<uint32_t>(trial), ~0u}) {
        CHECK(divisor.Quotient(value) == value / by && divisor.Remainder(value) == value % by, "%u by %u", value, by);
      }
    }
  }
}

void TestDrawStrata(const Path& path) {
  Random random(3);
  for (int trial = 0; trial < 4000; ++trial) {
    const size_t count = random.Below(300);
    const uint64_t near[] = {0, (1ull << 34) - 100, random.Next() >> 3};
    const uint64_t first = near[random.Below(3)] + random.Below(100);
    const Stream stream = {random.Next(), random.Next() >> 1}, cycle = {stream.key, stream.high | 1ull << 63};
    const uint32_t primes[] = {3, 5, 31, 97, 127}, strata = primes[random.Below(5)];
    const uint32_t place = static_cast<uint32_t>(random.Below(strata)),
                   full = static_cast<uint32_t>(random.Below(strata));
    const uint32_t least = random.Below(4) == 0 ? 0 : static_cast<uint32_t>(random.Next()) & ~0xFFu;
    const StrataTest test(strata, place, full, least);
    std::vector<uint8_t> kept(count), expected(count);
    for (size_t i = 0; i < count; ++i) {
      const uint32_t word = Philox4x32(stream, (first + i) / 4).words[(first + i) % 4];
      const uint32_t order = Philox4x32(cycle, (first + i) / 4).words[(first + i) % 4] % (strata * (strata - 1));
      const uint32_t rank = ((1 + order / strata) * place + order % strata) % strata;
      expected[i] = !(rank < full || (rank == full && word < least));
    }
    path.draw_strata(stream, cycle, first, count, test, kept.data());
    CHECK(kept == expected, "%s: balanced draw of %zu words from %llu", path.name, count,
          static_cast<unsigned long long>(first));
  }
}

}  // namespace
}  // namespace spatialdrop

void TestDraws() {
  using namespace spatialdrop;
  TestKnownAnswers();
  TestDivisors();
  const Path* paths[3];
  const size_t count = UsablePaths(paths);
  for (size_t i = 0; i < count; ++i) {
    for (const Generator generator : {kPhilox, kThreefry}) TestDraw(*paths[i], generator);
    TestDrawStrata(*paths[i]);
  }
}

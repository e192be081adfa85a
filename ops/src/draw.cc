#include "draw.h"

#include <cstring>

#include "slab.h"

namespace spatialdrop {
namespace {

// Setting up a piece interrupts the stream of memory, so large tensors have larger ones; still enough for many threads.
constexpr size_t kLeastPieceBytes = 256 << 10;
constexpr size_t kMostPieceBytes = 1 << 20;
constexpr size_t kPieces = 32;

size_t Min(size_t a, size_t b) { return a < b ? a : b; }
size_t Max(size_t a, size_t b) { return a > b ? a : b; }

}  // namespace

// Rows of the mask begin and end wherever they do.
void Draw::DrawEntries(size_t begin, size_t end, uint8_t* kept) const {
  const size_t row_size = plan.entries / rows;
  while (begin < end) {
    const size_t row = begin / row_size, first = begin % row_size;
    const size_t count = Min(end - begin, row_size - first);
    const Stream stream = StartStream(rule.words, seed, steps[row]);
    if (rule.strata == 1) {
      path->draw[rule.generator](stream, first, count, rule.test, kept);
    } else {
      const uint32_t place = static_cast<uint32_t>(static_cast<uint64_t>(steps[row]) % rule.strata);
      const StrataTest test(rule.strata, place, rule.full, rule.test.least);
      path->draw_strata(stream, StartCycle(seed, steps[row], rule.strata), first, count, test, kept);
    }
    begin += count;
    kept += count;
  }
}

void Draw::FillMask(size_t begin, size_t end) const {
  if (KeepsAll() || DropsAll()) {
    memset(mask + begin, KeepsAll(), end - begin);
  } else {
    DrawEntries(begin, end, mask + begin);
  }
}

void Draw::ApplyTo(size_t begin, size_t end) const {
  const size_t size = kTypeSize[type];
  const char* from = static_cast<const char*>(x) + begin * size;
  char* to = static_cast<char*>(y) + begin * size;
  const Hints hints = HintsFor(from + (end - begin) * size);
  if (!training || (KeepsAll() && scale_is_one)) {
    path->copy(to, from, (end - begin) * size, hints);
  } else if (KeepsAll()) {
    path->scale[type](to, from, end - begin, scale, hints);
  } else if (DropsAll()) {
    path->zero(to, (end - begin) * size, {reach, tuning, nullptr});
  } else {
    const size_t slab_size = plan.repeats * plan.width * plan.inner;
    while (begin < end) {
      const size_t slab = begin / slab_size;
      const size_t count = Min(end, (slab + 1) * slab_size) - begin;
      WriteSlab(*this, slab, begin - slab * slab_size, begin - slab * slab_size + count);
      begin += count;
    }
  }
  if (reach == Reach::kStream) path->fence();
}

Hints Draw::HintsFor(const void* next) const {
  return {reach == Reach::kStream && x == y ? Reach::kFar : reach, tuning, static_cast<const char*>(next)};
}

size_t Draw::PieceSize() const {
  const size_t share = plan.elements / kPieces / 64 * 64, size = kTypeSize[type];
  const size_t usual = Max(kLeastPieceBytes / size, Min(kMostPieceBytes / size, share));
  // Every piece draws the entries that it needs, so a piece of a few long rows would spend its time drawing.
  const bool draws_again = mask == nullptr && plan.repeats > 1 && !KeepsAll() && !DropsAll();
  const size_t row = plan.width * plan.inner;
  return draws_again ? Max(usual, Min(plan.repeats, 16) * row / 64 * 64) : usual;
}

}  // namespace spatialdrop

#include "slab.h"

#include <cstring>

namespace spatialdrop {
namespace {

// A map of at least this many bytes is scaled or zeroed as a whole; smaller ones go through a pattern of bytes.
constexpr size_t kWholeMapBytes = 2 << 10;
constexpr size_t kPatternSize = 8 << 10;
constexpr size_t kPageSize = 4 << 10;
// Of a long row about so many elements are given a pattern at a time, within a page: a larger one leaves the nearest
// cache before it is read, and one across two pages takes a third longer.
constexpr size_t kBlockSize = 2 << 10;
// Short rows are repeated to about this many bytes: more would share the nearest cache with the lines on their way.
constexpr size_t kTileSize = 512;

// Dropped maps of at most this many bytes are passed over as if they were read: beyond a gap a processor has to find
// the stream again, which takes as long as reading about so much. In place their zeros then stay with the rest.
constexpr size_t kPassedBytes = 8 << 10;

size_t Min(size_t a, size_t b) { return a < b ? a : b; }
size_t Max(size_t a, size_t b) { return a > b ? a : b; }

// Stores of a fixed size, each overwritten from its `inner`th byte on by the next, for as long as there is room.
template <size_t kStore>
size_t SpreadWhole(const uint8_t* entry, size_t entries, size_t inner, uint8_t* pattern) {
  size_t i = 0;
  for (; i * inner + kStore <= entries * inner; ++i) memset(pattern + i * inner, entry[i], kStore);
  return i;
}

// Fills `pattern` with `entries` mask entries, each repeated `inner` times.
void Spread(const uint8_t* entry, size_t entries, size_t inner, uint8_t* pattern) {
  size_t i = 0;
  if (inner <= 16) {
    i = SpreadWhole<16>(entry, entries, inner, pattern);
  } else if (inner <= 64) {
    i = SpreadWhole<64>(entry, entries, inner, pattern);
  }
  for (; i < entries; ++i) memset(pattern + i * inner, entry[i], inner);
}

// Writes elements [begin, end) of one slab, numbered from the slab's first element.
class SlabWriter {
 public:
  SlabWriter(const Draw& draw, size_t slab) : draw_(draw), size_(kTypeSize[draw.type]), in_place_(draw.x == draw.y) {
    const Plan& plan = draw.plan;
    const size_t offset = slab * plan.repeats * plan.width * plan.inner * size_;
    x_ = static_cast<const char*>(draw.x) + offset;
    y_ = static_cast<char*>(draw.y) + offset;
    first_entry_ = plan.FirstEntry(slab);
  }

  void Write(size_t begin, size_t end) {
    if (draw_.plan.inner * size_ >= kWholeMapBytes) {
      WriteMaps(begin, end);
    } else {
      WritePatterns(begin, end);
    }
  }

 private:
  // Mask entries [begin, end) of the slab's row; at most kPatternSize of them.
  const uint8_t* Entries(size_t begin, size_t end, uint8_t* buffer) const {
    if (draw_.mask != nullptr) return draw_.mask + first_entry_ + begin;
    draw_.DrawEntries(first_entry_ + begin, first_entry_ + end, buffer);
    return buffer;
  }

  // Runs of maps of one fate: kept ones are left alone where there is nothing to multiply by, dropped ones never read.
  void WriteMaps(size_t begin, size_t end) {
    while (begin < end) begin = IsKept(begin, end) ? KeepRun(begin, end) : DropRun(begin, end);
  }

  // These two return where they stopped.
  size_t KeepRun(size_t begin, size_t end) {
    const size_t stop = EndOfRun(begin, end);
    // A run also ends with its row, and where no more is known.
    const size_t next = stop < end && IsKnown(stop) && !IsKept(stop, end) ? EndOfRun(stop, end) : stop;
    if (IsPassed(next - stop)) {
      Scale(begin, stop - begin, stop, nullptr);
      return stop;
    }
    Zeros zeros{y_ + stop * size_, (next - stop) * size_};
    Scale(begin, stop - begin, next, &zeros);
    draw_.path->zero(zeros.to, zeros.bytes, {draw_.reach, draw_.tuning, nullptr});
    return next;
  }

  size_t DropRun(size_t begin, size_t end) {
    const size_t stop = EndOfRun(begin, end);
    const bool passed = IsPassed(stop - begin);
    const Hints hints = passed ? draw_.HintsFor(x_ + begin * size_) : Hints{draw_.reach, draw_.tuning, nullptr};
    draw_.path->zero(y_ + begin * size_, (stop - begin) * size_, hints);
    return stop;
  }

  bool IsPassed(size_t elements) const {
    const bool is_far = draw_.reach == Reach::kStream || (in_place_ && draw_.reach == Reach::kFar);
    return is_far && elements * size_ <= kPassedBytes;
  }

  // Whether the map of element `at` is kept; draws what is not known yet of maps up to that of element end - 1.
  bool IsKept(size_t at, size_t end) {
    const size_t map = at / draw_.plan.inner, entry = map % draw_.plan.width;
    if (!IsKnown(at)) Know(entry, entry + (end - 1) / draw_.plan.inner - map + 1);
    return kept_[entry - known_from_] != 0;
  }

  // Draws entries `first` to `last` of the row, or as many of them as there are and as one draws at once.
  void Know(size_t first, size_t last) {
    known_from_ = first;
    known_to_ = Min(Min(draw_.plan.width, last), first + kPatternSize);
    kept_ = Entries(known_from_, known_to_, scratch_);
  }

  bool IsKnown(size_t at) const {
    const size_t entry = at / draw_.plan.inner % draw_.plan.width;
    return known_from_ <= entry && entry < known_to_;
  }

  // Where maps that share the fate of element `at` end, as far as this row goes and is known: at most `end`.
  size_t EndOfRun(size_t at, size_t end) const {
    const size_t inner = draw_.plan.inner, map = at / inner, entry = map % draw_.plan.width;
    size_t other = entry + 1;
    while (other < known_to_ && kept_[other - known_from_] == kept_[entry - known_from_]) ++other;
    return Min(end, (map + other - entry) * inner);
  }

  // May also write some of the zeros, and takes them off their front.
  void Scale(size_t begin, size_t count, size_t next, Zeros* zeros) {
    const char* from = x_ + begin * size_;
    char* to = y_ + begin * size_;
    Hints hints = draw_.HintsFor(x_ + next * size_);
    hints.zeros = zeros;
    if (draw_.scale_is_one) {
      draw_.path->copy(to, from, count * size_, hints);
    } else {
      draw_.path->scale[draw_.type](to, from, count, draw_.scale, hints);
    }
  }

  void Select(size_t begin, size_t count, Pattern pattern, size_t next) {
    draw_.path->select[draw_.type](y_ + begin * size_, x_ + begin * size_, pattern, count, draw_.scale,
                                   draw_.HintsFor(x_ + next * size_));
  }

  void WritePatterns(size_t begin, size_t end) {
    const size_t inner = draw_.plan.inner, row = draw_.plan.width * inner;
    if (row <= kPatternSize / 2) {
      WriteWithTile(begin, end);
    } else if (begin / row == (end - 1) / row) {
      const size_t start = begin / row * row;
      for (size_t at = begin - start; at < end - start;) at = WriteBlock(start, at, end - start);
    } else {
      WriteByColumns(begin, end);
    }
  }

  // A short row, repeated until it makes a pattern to go round in, begun where `begin` is in its row.
  void WriteWithTile(size_t begin, size_t end) {
    const size_t width = draw_.plan.width, inner = draw_.plan.inner, row = width * inner;
    const size_t phase = begin % row, period = ((kTileSize - 1) / row + 1) * row;
    const size_t size = phase + Min(end - begin, period + kLeastPeriod);
    const uint8_t* kept = Entries(0, width, inner == 1 ? pattern_ : scratch_);
    if (inner != 1) {
      Spread(kept, width, inner, pattern_);
    } else if (kept != pattern_) {
      memcpy(pattern_, kept, row);
    }
    for (size_t have = row; have < size;) {
      const size_t more = Min(have, size - have);
      memcpy(pattern_ + have, pattern_, more);
      have += more;
    }
    Select(begin, end - begin, {pattern_ + phase, period}, end);
  }

  // Part of a long row, from its element `at` to at most its element `end`; returns where it stopped: where a line of Y
  // begins and the path's loop ends, unless it is at the end.
  size_t WriteBlock(size_t row_start, size_t at, size_t end) {
    size_t stop = 0;
    const uint8_t* pattern = PatternFor(at, end, kBlockSize, &stop);
    const size_t past = reinterpret_cast<uintptr_t>(y_ + (row_start + stop) * size_) % kMostStepBytes / size_;
    if (stop < end && stop - at > past) stop -= past;
    Select(row_start + at, stop - at, {pattern, stop - at}, row_start + stop);
    return stop;
  }

  // The bytes for elements [at, *stop) of the row, about `size` of them; *stop <= end.
  const uint8_t* PatternFor(size_t at, size_t end, size_t size, size_t* stop) {
    const size_t inner = draw_.plan.inner, first = at / inner, row_last = (end - 1) / inner + 1;
    const size_t last = Min(row_last, (at + size - 1) / inner + 1);
    if (first < known_from_ || last > known_to_) Know(first, row_last);
    *stop = Min(end, last * inner);
    const uint8_t* kept = kept_ + (first - known_from_);
    if (inner == 1) return kept;
    Spread(kept, last - first, inner, pattern_);
    return pattern_ + (at - first * inner);
  }

  // Long rows: a block of columns at a time, so that its entries are drawn once for all rows.
  void WriteByColumns(size_t begin, size_t end) {
    const size_t row = draw_.plan.width * draw_.plan.inner;
    const size_t first_row = begin / row, last_row = (end - 1) / row;
    for (size_t column = 0; column < row;) {
      size_t stop = 0;
      const uint8_t* pattern = PatternFor(column, row, kPatternSize - draw_.plan.inner + 1, &stop);
      for (size_t r = first_row; r <= last_row; ++r) {
        const size_t from = Max(r * row + column, begin), to = Min(r * row + stop, end);
        const size_t next = r < last_row ? (r + 1) * row + column : first_row * row + stop;
        if (from < to) Select(from, to - from, {pattern + (from - r * row - column), to - from}, next);
      }
      column = stop;
    }
  }

  const Draw& draw_;
  const size_t size_;
  const bool in_place_;
  const char* x_;
  char* y_;
  size_t first_entry_;
  const uint8_t* kept_ = nullptr;
  // The entries of the row that kept_ begins and ends with.
  size_t known_from_ = 0, known_to_ = 0;
  // Left as they are until written: clearing them would cost more than a small tensor.
  uint8_t scratch_[kPatternSize];
  alignas(kPageSize) uint8_t pattern_[kPatternSize + kTileSize + kLeastPeriod];
};

}  // namespace

void WriteSlab(const Draw& draw, size_t slab, size_t begin, size_t end) { SlabWriter(draw, slab).Write(begin, end); }

}  // namespace spatialdrop

// The loops of a path, written once over a small vector class `V` that each path_*.cc defines for its instruction set:
//   V::Element, V::kLanes;  V::Load(from) -> V::Word;  V::Scaled(word, factor), V::ScaledIfKept(word, factor, kept
//   bytes); V::Store(to, word);  V::Broadcast(scale);  V::kStreams: whether stores can pass the caches, and if so
//   V::Stream(to, word), V::Zero(). Without, nothing is asked for ahead either: hints change nothing.
// Everything is in an anonymous namespace: two copies compiled for different processors must never be merged.
#pragma once

#include <cstring>

#include "path.h"

namespace spatialdrop {
namespace {

// How many elements, at most `count`, come before the first whole vector that can be streamed to.
template <class V>
size_t Unaligned(const void* to, size_t count) {
  constexpr size_t kBytes = V::kLanes * sizeof(typename V::Element);
  const size_t past = reinterpret_cast<uintptr_t>(to) % kBytes;
  const size_t head = past == 0 ? 0 : (kBytes - past) / sizeof(typename V::Element);
  return head < count ? head : count;
}

// Less than one vector, through buffers on the stack, so that nothing beyond the ends is touched.
template <class V, class Function>
void Partial(typename V::Element* to, const typename V::Element* from, size_t count, Function function) {
  using Element = typename V::Element;
  Element in[V::kLanes] = {}, out[V::kLanes];
  memcpy(in, from, count * sizeof(Element));
  V::Store(out, function(V::Load(in), 0));
  memcpy(to, out, count * sizeof(Element));
}

enum class Move { kStream, kInPlace };

// What is written in place is asked for so far ahead, and stays; Tuning says it of what is read.
constexpr size_t kAheadToWrite = 14 << 10;

template <Move kMove>
size_t AheadBytes(const Tuning& tuning) {
  return kMove == Move::kInPlace ? kAheadToWrite : tuning.ahead_to_read;
}

// Asks for the lines of `bytes` from `ahead` on.
template <Move kMove>
void Ask(const char* ahead, size_t bytes, const Tuning& tuning) {
  for (size_t line = 0; line < bytes; line += 64) {
    if (kMove == Move::kInPlace) {
      __builtin_prefetch(ahead + line, 1, 3);
    } else if (tuning.reads_past_caches) {
      __builtin_prefetch(ahead + line, 0, 0);
    } else {
      __builtin_prefetch(ahead + line, 0, 3);
    }
  }
}

// Zeros that are written beside a loop, spread evenly over its steps.
template <class V>
struct Beside {
  Zeros zeros{nullptr, 0};
  size_t bytes = 1, zero_bytes = 0;  // of the whole loop, and of the zeros beside it
  size_t due = 0;                    // zeros that should be written by now and are not: steps, times `bytes`

  // Takes over what is to be zero, for a loop over `loop_bytes`; it begins with a whole vector.
  void Take(Zeros all, size_t loop_bytes) {
    using Element = typename V::Element;
    const size_t head = Unaligned<V>(all.to, all.bytes / sizeof(Element)) * sizeof(Element);
    memset(all.to, 0, head);
    zeros = {all.to + head, all.bytes - head};
    bytes = loop_bytes;
    zero_bytes = all.bytes;
  }

  template <size_t kStepBytes>
  void Step() {
    due += zero_bytes;
    for (; due >= bytes && zeros.bytes >= kStepBytes; due -= bytes) {
      for (size_t at = 0; at < kStepBytes; at += V::kLanes * sizeof(typename V::Element)) {
        V::Stream(reinterpret_cast<typename V::Element*>(zeros.to + at), V::Zero());
      }
      zeros = {zeros.to + kStepBytes, zeros.bytes - kStepBytes};
    }
  }
};

// One step of a loop over memory that is not in the nearest caches: several vectors are made before any is written, and
// as many lines are asked for, `ahead` being where the first of them is.
template <class V, Move kMove, class Function>
size_t FarVectors(typename V::Element* to, const typename V::Element* from, size_t i, size_t end, const char* ahead,
                  const Tuning& tuning, Beside<V>& beside, Function function) {
  constexpr size_t kUnroll = 4;
  constexpr size_t kStep = kUnroll * V::kLanes;
  constexpr size_t kStepBytes = kStep * sizeof(typename V::Element);
  static_assert(kStepBytes <= kMostStepBytes, "blocks are to end with a step");
  for (; i + kStep <= end; i += kStep, ahead += kStepBytes) {
    Ask<kMove>(ahead, kStepBytes, tuning);
    typename V::Word word[kUnroll];
#pragma GCC unroll 16
    for (size_t k = 0; k < kUnroll; ++k) word[k] = function(V::Load(from + i + k * V::kLanes), i + k * V::kLanes);
#pragma GCC unroll 16
    for (size_t k = 0; k < kUnroll; ++k) {
      if (kMove == Move::kStream) {
        V::Stream(to + i + k * V::kLanes, word[k]);
      } else {
        V::Store(to + i + k * V::kLanes, word[k]);
      }
    }
    if (kMove == Move::kStream) beside.template Step<kStepBytes>();
  }
  return i;
}

template <class V, Move kMove, class Function, class Tail>
void FarLoop(typename V::Element* to, const typename V::Element* from, size_t count, const Hints& hints,
             Function function, Tail tail) {
  using Element = typename V::Element;
  const Tuning& tuning = *hints.tuning;
  size_t i = Unaligned<V>(to, count);
  if (i != 0) tail(to, from, 0, i);
  Beside<V> beside;
  if (kMove == Move::kStream && hints.zeros != nullptr) beside.Take(*hints.zeros, count * sizeof(Element));
  // From `turn` on, what is asked for is behind a gap.
  const bool goes_on = hints.next == reinterpret_cast<const char*>(from + count);
  const size_t usual = AheadBytes<kMove>(tuning) / sizeof(Element);
  const size_t ahead = goes_on || count > usual ? usual : count, turn = goes_on ? count : count - ahead;
  i = FarVectors<V, kMove>(to, from, i, turn, reinterpret_cast<const char*>(from + i + ahead), tuning, beside,
                           function);
  const char* line = goes_on ? reinterpret_cast<const char*>(from + i + ahead)
                             : hints.next + (i < turn ? 0 : (i - turn) * sizeof(Element));
  const size_t asked = i;
  i = FarVectors<V, kMove>(to, from, i, count, line, tuning, beside, function);
  if (beside.zeros.to != nullptr) *hints.zeros = beside.zeros;
  // A loop that follows at once finds these lines missing otherwise, each a wait for memory.
  Ask<kMove>(line + (i - asked) * sizeof(Element), (count - i) * sizeof(Element), tuning);
  for (; i + V::kLanes <= count; i += V::kLanes) {
    const auto word = function(V::Load(from + i), i);
    kMove == Move::kStream ? V::Stream(to + i, word) : V::Store(to + i, word);
  }
  if (i < count) tail(to, from, i, count - i);
}

template <class V, class Function, class Tail>
void ForEachVector(void* to_, const void* from_, size_t count, const Hints& hints, Function function, Tail tail) {
  using Element = typename V::Element;
  constexpr size_t kLanes = V::kLanes;
  auto* to = static_cast<Element*>(to_);
  auto* from = static_cast<const Element*>(from_);
  if constexpr (V::kStreams) {
    if (hints.reach == Reach::kFar && to == from) {
      return FarLoop<V, Move::kInPlace>(to, from, count, hints, function, tail);
    }
    if (hints.reach == Reach::kStream) return FarLoop<V, Move::kStream>(to, from, count, hints, function, tail);
  }
  size_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    const auto a = function(V::Load(from + i), i);
    const auto b = function(V::Load(from + i + kLanes), i + kLanes);
    const auto c = function(V::Load(from + i + 2 * kLanes), i + 2 * kLanes);
    const auto d = function(V::Load(from + i + 3 * kLanes), i + 3 * kLanes);
    V::Store(to + i, a);
    V::Store(to + i + kLanes, b);
    V::Store(to + i + 2 * kLanes, c);
    V::Store(to + i + 3 * kLanes, d);
  }
  for (; i + kLanes <= count; i += kLanes) V::Store(to + i, function(V::Load(from + i), i));
  if (i < count) tail(to, from, i, count - i);
}

template <class V>
void ScaleLoop(void* to, const void* from, size_t count, Scale scale, const Hints& hints) {
  using Element = typename V::Element;
  const auto factor = V::Broadcast(scale);
  const auto whole = [&](auto word, size_t) { return V::Scaled(word, factor); };
  ForEachVector<V>(to, from, count, hints, whole,
                   [&](Element* t, const Element* f, size_t at, size_t n) { Partial<V>(t + at, f + at, n, whole); });
}

// Where a pattern has the bytes for element i, for loops that ask in ascending order and for a vector at a time.
class Repeated {
 public:
  explicit Repeated(Pattern pattern) : kept_(pattern.kept), period_(pattern.period) {}
  const uint8_t* At(size_t i) {
    if (i - begin_ >= period_) begin_ += period_;
    return kept_ + (i - begin_);
  }

 private:
  const uint8_t* kept_;
  size_t period_;
  size_t begin_ = 0;  // of the repetition that the last element was in
};

template <class V>
void SelectLoop(void* to, const void* from, Pattern pattern, size_t count, Scale scale, const Hints& hints) {
  using Element = typename V::Element;
  static_assert(V::kLanes <= kLeastPeriod, "a vector must not pass over a whole period");
  const auto factor = V::Broadcast(scale);
  Repeated kept(pattern);
  const auto whole = [&](auto word, size_t i) { return V::ScaledIfKept(word, factor, kept.At(i)); };
  ForEachVector<V>(to, from, count, hints, whole, [&](Element* t, const Element* f, size_t at, size_t n) {
    uint8_t bytes[V::kLanes] = {};
    memcpy(bytes, kept.At(at), n);
    Partial<V>(t + at, f + at, n, [&](auto word, size_t) { return V::ScaledIfKept(word, factor, bytes); });
  });
}

// `V` moves bytes here; memcpy and memset are the better choice for whatever stays in the caches.
template <class V>
void CopyLoop(void* to, const void* from, size_t bytes, const Hints& hints) {
  if (to == from) return;
  if constexpr (V::kStreams) {
    if (hints.reach == Reach::kStream) {
      using Element = typename V::Element;
      return ForEachVector<V>(
          to, from, bytes, hints, [](auto word, size_t) { return word; },
          [](Element* t, const Element* f, size_t at, size_t n) { memcpy(t + at, f + at, n); });
    }
  }
  memcpy(to, from, bytes);
}

// As many lines as are zeroed are asked for, for writing where they are the same.
template <class V, Move kMove>
void FarZeroLoop(typename V::Element* to, size_t bytes, const Hints& hints) {
  constexpr size_t kStep = 4 * V::kLanes;
  const auto put = [&](size_t i) {
    kMove == Move::kInPlace ? V::Store(to + i, V::Zero()) : V::Stream(to + i, V::Zero());
  };
  size_t i = Unaligned<V>(to, bytes);
  memset(to, 0, i);
  for (; i + kStep <= bytes; i += kStep) {
    if (hints.next != nullptr) Ask<kMove>(hints.next + i + AheadBytes<kMove>(*hints.tuning), kStep, *hints.tuning);
#pragma GCC unroll 16
    for (size_t k = 0; k < kStep; k += V::kLanes) put(i + k);
  }
  for (; i + V::kLanes <= bytes; i += V::kLanes) put(i);
  memset(to + i, 0, bytes - i);
}

template <class V>
void ZeroLoop(void* to, size_t bytes, const Hints& hints) {
  if constexpr (V::kStreams) {
    auto* vectors = static_cast<typename V::Element*>(to);
    if (hints.reach == Reach::kStream) return FarZeroLoop<V, Move::kStream>(vectors, bytes, hints);
    if (hints.next != nullptr) return FarZeroLoop<V, Move::kInPlace>(vectors, bytes, hints);
  }
  memset(to, 0, bytes);
}

}  // namespace
}  // namespace spatialdrop

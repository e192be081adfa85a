// The loops of a path, written once over a small vector class `V` that each path_*.cc defines for its instruction set:
//   V::Element, V::kLanes;  V::Load(from) -> V::Word;  V::Scaled(word, factor), V::Kept(word, kept bytes);
//   V::Store(to, word), V::Stream(to, word);  V::Factor, V::Broadcast(scale).
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

template <class V, class Function, class Tail>
void ForEachVector(void* to_, const void* from_, size_t count, bool stream, Function function, Tail tail) {
  using Element = typename V::Element;
  constexpr size_t kLanes = V::kLanes;
  auto* to = static_cast<Element*>(to_);
  auto* from = static_cast<const Element*>(from_);
  size_t i = 0;
  if (stream) {
    i = Unaligned<V>(to, count);
    if (i != 0) tail(to, from, 0, i);
    for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
      const auto a = function(V::Load(from + i), i);
      const auto b = function(V::Load(from + i + kLanes), i + kLanes);
      const auto c = function(V::Load(from + i + 2 * kLanes), i + 2 * kLanes);
      const auto d = function(V::Load(from + i + 3 * kLanes), i + 3 * kLanes);
      V::Stream(to + i, a);
      V::Stream(to + i + kLanes, b);
      V::Stream(to + i + 2 * kLanes, c);
      V::Stream(to + i + 3 * kLanes, d);
    }
    for (; i + kLanes <= count; i += kLanes) V::Stream(to + i, function(V::Load(from + i), i));
  } else {
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
  }
  if (i < count) tail(to, from, i, count - i);
}

template <class V>
void ScaleLoop(void* to, const void* from, size_t count, Scale scale, bool stream) {
  using Element = typename V::Element;
  const auto factor = V::Broadcast(scale);
  const auto whole = [&](auto word, size_t) { return V::Scaled(word, factor); };
  ForEachVector<V>(to, from, count, stream, whole, [&](Element* t, const Element* f, size_t at, size_t n) {
    Partial<V>(t + at, f + at, n, whole);
  });
}

template <class V>
void SelectLoop(void* to, const void* from, const uint8_t* kept, size_t count, Scale scale, bool stream) {
  using Element = typename V::Element;
  const auto factor = V::Broadcast(scale);
  const auto whole = [&](auto word, size_t i) { return V::Kept(V::Scaled(word, factor), kept + i); };
  ForEachVector<V>(to, from, count, stream, whole, [&](Element* t, const Element* f, size_t at, size_t n) {
    uint8_t bytes[V::kLanes] = {};
    memcpy(bytes, kept + at, n);
    Partial<V>(t + at, f + at, n, [&](auto word, size_t) { return V::Kept(V::Scaled(word, factor), bytes); });
  });
}

// `V` moves bytes here; memcpy and memset are the better choice for whatever stays in the caches.
template <class V>
void CopyLoop(void* to, const void* from, size_t bytes, bool stream) {
  if (to == from) return;
  if (!stream) {
    memcpy(to, from, bytes);
    return;
  }
  using Element = typename V::Element;
  ForEachVector<V>(
      to, from, bytes, true, [](auto word, size_t) { return word; },
      [](Element* t, const Element* f, size_t at, size_t n) { memcpy(t + at, f + at, n); });
}

template <class V>
void ZeroLoop(void* to_, size_t bytes, bool stream) {
  if (!stream) {
    memset(to_, 0, bytes);
    return;
  }
  auto* to = static_cast<typename V::Element*>(to_);
  const size_t head = Unaligned<V>(to, bytes);
  memset(to, 0, head);
  size_t i = head;
  for (; i + V::kLanes <= bytes; i += V::kLanes) V::Stream(to + i, V::Zero());
  memset(to + i, 0, bytes - i);
}

}  // namespace
}  // namespace spatialdrop

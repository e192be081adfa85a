// Where each element finds its mask entry. A plan is made of X's shape and the shared axes; it knows neither types nor
// bits. Neighbouring axes of one kind are merged, so NCHW, NHWC and any rank come down to a few numbers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spatialdrop {

constexpr size_t kMaxRank = 16;

// X, row-major, is a sequence of slabs; a slab is `repeats` rows; a row is `width` entries of `inner` elements each.
// All rows of a slab share the same `width` consecutive mask entries. NCHW with axes [2, 3] is one slab of one row of
// N*C entries; NHWC with axes [1, 2] is N slabs of H*W rows of C entries of one element.
struct Plan {
  size_t elements;  // of X
  size_t entries;   // of the mask; meaningful only if `entries_fit`
  bool entries_fit;
  size_t repeats, width, inner;

  // The axes before the slab, outermost first: their sizes, and how far the mask moves with each (0 if shared).
  size_t outer_rank;
  size_t outer_size[kMaxRank];
  size_t outer_stride[kMaxRank];

  // The first mask entry of slab number `slab`.
  size_t FirstEntry(size_t slab) const;
};

// `shared[i]` says whether axis i is among `axes`; 1 <= rank <= 16; no size is negative, and elements fit a size_t.
Plan MakePlan(const int64_t* shape, size_t rank, const bool* shared);

}  // namespace spatialdrop

// One run of the operator on plain buffers: the mask's bits and the values, in pieces that may run on any thread in any
// order. It allocates nothing and reports nothing; whoever calls it has checked everything.
#pragma once

#include "dialects.h"
#include "path.h"
#include "plan.h"

namespace spatialdrop {

struct Draw {
  const Path* path;
  const Tuning* tuning;
  Plan plan;
  Type type;
  Scale scale;
  bool scale_is_one;
  Rule rule;
  bool training;
  uint64_t seed;
  const int64_t* steps;  // `rows` of them
  size_t rows;           // each row has plan.entries / rows entries
  const void* x;
  void* y;        // may be x
  uint8_t* mask;  // plan.entries bytes, or null: nobody wants it
  Reach reach;    // of X and Y

  bool KeepsAll() const { return !training || rule.keeps_all; }
  bool DropsAll() const { return training && rule.drops_all; }

  // Entries [begin, end) of the mask as they fall where some are kept and some dropped, into kept[0] and on.
  void DrawEntries(size_t begin, size_t end, uint8_t* kept) const;
  // Fills entries [begin, end) of the mask; called before any ApplyTo.
  void FillMask(size_t begin, size_t end) const;
  // Fills elements [begin, end) of Y.
  void ApplyTo(size_t begin, size_t end) const;
  // How to move what is read on the way: not past the caches in place, where it is in them by then.
  Hints HintsFor(const void* next) const;
  // How many elements one call of ApplyTo should have.
  size_t PieceSize() const;
};

}  // namespace spatialdrop

// Writes what some entries keep and others drop, one slab of a Plan at a time.
#pragma once

#include "draw.h"

namespace spatialdrop {

// Fills elements [begin, end) of a slab of Y, numbered from the slab's first; some of the mask is 1 and some 0.
void WriteSlab(const Draw& draw, size_t slab, size_t begin, size_t end);

}  // namespace spatialdrop

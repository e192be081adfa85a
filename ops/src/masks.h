// The op behind sessions on other processors than the CPU: one node that draws the masks of many SpatialDropout nodes,
// before anything else runs, so that their products stay where the model runs. It is never written to a file.
#pragma once

#include "op.h"

namespace spatialdrop {

// SpatialDropoutMasks <seeds, ratios, strata, rngs, types, rows, ranks, inner> (training_mode, step, sources...)
//   => (dropped, training_mode)
// Lists have one number a node, `rngs` and `types` by their places in kDialects and Type. `rows` and `inner`, as many a
// node as `ranks` says, are the sizes of the masks: numbers, or -1 - (16 place + axis) for an axis of the source at
// that place, of which nothing else is read. `dropped`, bool, has for each row the entries of all nodes. training_mode
// is passed on, as a scalar, since providers make a constant of an input of the graph that has a default.
TypedOp MakeMasksOp(const OrtApi* api);

}  // namespace spatialdrop

// The op behind sessions on other processors than the CPU: one node that draws the masks of many SpatialDropout nodes,
// before anything else runs, so that their products stay where the model runs. It is never written to a file.
#pragma once

#include "op.h"

namespace spatialdrop {

// SpatialDropoutMasks <seeds, ratios, strata, rngs, types> (sizes, training_mode, step) => (dropped): lists of one number
// a node, `rngs` and `types` by their places in kDialects and Type. `sizes` has the rows of all masks, then the entries a
// row of each; `dropped`, bool, has for each row those of all nodes.
TypedOp MakeMasksOp(const OrtApi* api);

}  // namespace spatialdrop

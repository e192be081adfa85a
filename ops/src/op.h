// The four typed custom ops, as ONNX Runtime asks about them before it makes kernels.
#pragma once

#include "../include/ort_c_api_prefix.h"
#include "path.h"

namespace spatialdrop {

// `op` comes first, so ONNX Runtime's pointer to it is a pointer to the whole.
struct TypedOp {
  OrtCustomOp op;
  const OrtApi* api;
  Type type;
};

TypedOp MakeTypedOp(const OrtApi* api, Type type);

}  // namespace spatialdrop

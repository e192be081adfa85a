// The kernel behind one node: made once, run by any number of threads at a time.
#pragma once

#include "../include/ort_c_api_prefix.h"
#include "path.h"

namespace spatialdrop {

// Sets `out` to a new kernel for an X of `type`, unless it returns what is wrong with the node.
OrtStatus* CreateKernel(const OrtApi* api, Type type, const OrtKernelInfo* info, void** out);
OrtStatus* ComputeKernel(void* kernel, OrtKernelContext* context);
void DestroyKernel(void* kernel);

}  // namespace spatialdrop

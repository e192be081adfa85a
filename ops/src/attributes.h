// The attributes of one node, read from ONNX Runtime and checked against the operator's definition.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../include/ort_c_api_prefix.h"
#include "dialects.h"

namespace spatialdrop {

constexpr size_t kMessageSize = 512;

struct Attributes {
  char where[128];  // "node 'drop1'", for messages
  int64_t axes[16];
  size_t axes_count;
  float ratio;
  uint64_t seed;
  float scale;  // 0: 1 / (1 - ratio)
  Rule rule;
};

// Returns null, or the status that says what is wrong with a node whose X is of `type`.
OrtStatus* ReadAttributes(const OrtApi& api, const OrtKernelInfo* info, Type type, Attributes* attributes);

// What kept values of `type` are multiplied by.
Scale KeptScale(const Attributes& attributes, Type type);

// A new status with a printf-like message.
OrtStatus* Refuse(const OrtApi& api, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace spatialdrop

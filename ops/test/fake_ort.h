// A runtime small enough to run under sanitizers: just the functions of OrtApi that the kernel calls, on plain structs.
// It counts what it hands out, so leaks show, and can be told to fail at any call.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "../include/ort_c_api_prefix.h"

struct OrtStatus {
  OrtErrorCode code;
  std::string message;
};

struct OrtValue {
  ONNXTensorElementDataType type;
  std::vector<int64_t> dims;
  void* data;  // owned by the test, exactly as large as dims say
};

struct OrtTensorTypeAndShapeInfo {
  std::vector<int64_t> dims;
  std::vector<std::string> names;
};

struct OrtKernelInfo {
  std::string name;
  std::map<std::string, std::variant<float, int64_t, std::string, std::vector<int64_t>, std::vector<float>>> attributes;
};

struct OrtKernelContext {
  std::vector<const OrtValue*> inputs;
  std::vector<OrtValue*> outputs;  // null: the node does not list it
  size_t threads;
};

struct OrtShapeInferContext {
  OrtTensorTypeAndShapeInfo input;
  bool was_set;
  OrtTensorTypeAndShapeInfo output;
};

struct OrtCustomOpDomain {
  std::string name;
  std::vector<const OrtCustomOp*> ops;
};

struct OrtSessionOptions {
  std::vector<OrtCustomOpDomain*> domains;
};

namespace fake {

// The next calls of the API count down from `calls`; the one that finds 0 fails. Negative: none fails.
void FailAfter(int calls);
// Statuses and shape infos that were handed out and not given back.
int Outstanding();
const OrtApi* Api();
// A runtime that knows API versions up to `newest`.
const OrtApiBase* Base(uint32_t newest);

}  // namespace fake

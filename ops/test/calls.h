// Calls of the custom op through its C interface, as a runtime makes them, and what must come out of them.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "../src/path.h"
#include "check.h"
#include "fake_ort.h"

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

using spatialdrop::kTypeSize;
using spatialdrop::Type;

constexpr ONNXTensorElementDataType kElementTypes[] = {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE};

// The message of a status, which it releases; "" for none.
std::string Take(OrtStatus* status);

// Memory of exactly the size asked for, so that sanitizers see a step over either end.
struct Buffer {
  explicit Buffer(size_t bytes) : data(malloc(bytes == 0 ? 1 : bytes)) {}
  ~Buffer() { free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data;
};

size_t Count(const std::vector<int64_t>& dims);

// The op for X of that type.
const OrtCustomOp* Op(Type type);

// A node with all its attributes.
OrtKernelInfo Info(std::vector<int64_t> axes, float ratio, int64_t seed, const std::string& rng = "philox",
                   int64_t strata = 1);

class Kernel {
 public:
  Kernel(Type type, const OrtKernelInfo& info) : op_(Op(type)) {
    error = Take(op_->CreateKernelV2(op_, fake::Api(), &info, &kernel_));
  }
  ~Kernel() {
    if (kernel_ != nullptr) op_->KernelDestroy(kernel_);
  }
  std::string Run(OrtKernelContext* context) const { return Take(op_->KernelComputeV2(kernel_, context)); }
  std::string error;

 private:
  const OrtCustomOp* op_;
  void* kernel_ = nullptr;
};

// One call: inputs, outputs and what the call said.
struct Call {
  Type type = spatialdrop::kFloat32;
  std::vector<int64_t> dims, axes, steps = {0};
  float ratio = 0.5f;
  int64_t seed = 7, strata = 1;
  std::string rng = "philox";
  bool training = true, in_place = false, wants_mask = true, lists_mask = true;
  size_t threads = 2;

  std::vector<int64_t> MaskDims() const;
  OrtKernelInfo Info() const;
};

// Bytes of small finite numbers of every type: the sign and the top of the exponent are kept apart from NaN and Inf.
std::vector<uint8_t> Numbers(Random* random, Type type, size_t count);

// Runs a call and checks every byte of Y and of the mask; `fresh` is the draw that a negative step must get. Returns
// what the kernel refused it with.
std::string RunOn(const Kernel& kernel, const Call& call, const std::vector<uint8_t>& numbers, int64_t fresh);

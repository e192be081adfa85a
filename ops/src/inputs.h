// The inputs of one run, read from ONNX Runtime and checked against the operator's definition.
#pragma once

#include "attributes.h"
#include "plan.h"

namespace spatialdrop {

// Shape of one input, with what ONNX Runtime lent returned on every way out.
class Shape {
 public:
  explicit Shape(const OrtApi& api) : api_(api) {}
  ~Shape() {
    if (info_ != nullptr) api_.ReleaseTensorTypeAndShapeInfo(info_);
  }
  Shape(const Shape&) = delete;
  Shape& operator=(const Shape&) = delete;

  OrtStatus* Read(const OrtValue* value) {
    if (OrtStatus* status = api_.GetTensorTypeAndShape(value, &info_)) return status;
    return api_.GetDimensionsCount(info_, &rank);
  }
  OrtStatus* ReadDims(int64_t (&dims)[kMaxRank]) { return api_.GetDimensions(info_, dims, rank); }
  OrtStatus* ReadCount(size_t* count) { return api_.GetTensorShapeElementCount(info_, count); }

  size_t rank = 0;

 private:
  const OrtApi& api_;
  OrtTensorTypeAndShapeInfo* info_ = nullptr;
};

// Sets `value` and its `data`; `name` is for the message if it is not there.
OrtStatus* ReadInput(const OrtApi& api, const char* where, const OrtKernelContext* context, size_t index,
                     const char* name, const OrtValue** value, const void** data);

// Sets shared[i] to whether axis i of an X of that rank is among the axes.
OrtStatus* NormalizeAxes(const OrtApi& api, const Attributes& attributes, size_t rank, bool (&shared)[kMaxRank]);

// `steps` has `rows` elements, `batch` is the size of X's dimension 0.
OrtStatus* CheckStep(const OrtApi& api, const char* where, const int64_t* steps, size_t rows, int64_t batch,
                     bool batch_shared);

}  // namespace spatialdrop

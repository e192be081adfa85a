#include "op.h"

#include "kernel.h"
#include "plan.h"

namespace spatialdrop {
namespace {

const TypedOp& Self(const OrtCustomOp* op) { return *reinterpret_cast<const TypedOp*>(op); }

// Y has the shape of X, which lets ONNX Runtime reuse X's memory. The mask's shape is left alone: ONNX Runtime 1.18 to
// 1.23 abort when the shape of an output that is not there is set.
OrtStatus* InferShape(const OrtCustomOp* op, OrtShapeInferContext* context) {
  const OrtApi& api = *Self(op).api;
  OrtTensorTypeAndShapeInfo* info = nullptr;  // lent, never released
  if (OrtStatus* status = api.ShapeInferContext_GetInputTypeShape(context, 0, &info)) return status;
  size_t rank = 0;
  if (OrtStatus* status = api.GetDimensionsCount(info, &rank)) return status;
  // An unknown rank arrives as 0. More axes than are allowed are for the kernel to refuse.
  if (rank == 0 || rank > kMaxRank) return nullptr;
  int64_t dims[kMaxRank];
  const char* names[kMaxRank] = {};
  if (OrtStatus* status = api.GetDimensions(info, dims, rank)) return status;
  if (OrtStatus* status = api.GetSymbolicDimensions(info, names, rank)) return status;
  for (size_t i = 0; i < rank; ++i) {
    // A dimension with neither size nor name would come out as the size -1.
    if (dims[i] < 0 && (names[i] == nullptr || names[i][0] == '\0')) return nullptr;
  }
  return api.ShapeInferContext_SetOutputTypeShape(context, 0, info);
}

ONNXTensorElementDataType ElementType(Type type) {
  switch (type) {
    case kFloat16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case kBFloat16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case kFloat32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    default:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
  }
}

ONNXTensorElementDataType InputType(const OrtCustomOp* op, size_t index) {
  if (index == 1) return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
  return index == 2 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ElementType(Self(op).type);
}

ONNXTensorElementDataType OutputType(const OrtCustomOp* op, size_t index) {
  return index == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL : ElementType(Self(op).type);
}

int kFirst = 0;

}  // namespace

TypedOp MakeTypedOp(const OrtApi* api, Type type) {
  TypedOp typed = {};
  OrtCustomOp& op = typed.op;
  op.version = kOrtApiVersion;
  op.GetName = [](const OrtCustomOp*) { return "SpatialDropout"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  op.GetInputType = InputType;
  op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{3}; };
  op.GetOutputType = OutputType;
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{2}; };
  op.KernelDestroy = DestroyKernel;
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == 0 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi* kernel_api, const OrtKernelInfo* info, void** out) {
    return CreateKernel(kernel_api, Self(self).type, info, out);
  };
  op.KernelComputeV2 = ComputeKernel;
  op.InferOutputShapeFn = InferShape;
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
  // Y may take the place of X.
  op.GetMayInplace = [](int** inputs, int** outputs) {
    *inputs = *outputs = &kFirst;
    return size_t{1};
  };
  op.ReleaseMayInplace = [](int*, int*) {};
  op.GetAliasMap = [](int**, int**) { return size_t{0}; };
  op.ReleaseAliasMap = [](int*, int*) {};
  typed.api = api;
  typed.type = type;
  return typed;
}

}  // namespace spatialdrop

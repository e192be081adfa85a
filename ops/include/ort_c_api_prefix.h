// The part of ONNX Runtime's C API that this library calls, declared here because no package installs the official
// header. ONNX Runtime promises that OrtApi and OrtCustomOp only ever grow at the end, so a prefix stays valid for
// every later version. Names are the official ones. This file holds declarations only.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;
struct OrtValue;
struct OrtOpAttr;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtShapeInferContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtApi;
struct OrtCustomOp;

typedef OrtStatus* OrtStatusPtr;

// The newest version whose functions are used: ONNX Runtime 1.18, the first in which shape functions are usable.
enum { kOrtApiVersion = 18 };

typedef enum OrtErrorCode { ORT_OK = 0, ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 } OrtErrorCode;

typedef enum ONNXTensorElementDataType {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL = 9,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE = 11,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 = 16,
} ONNXTensorElementDataType;

typedef enum OrtCustomOpInputOutputCharacteristic {
  INPUT_OUTPUT_REQUIRED = 0,
  INPUT_OUTPUT_OPTIONAL = 1,
  INPUT_OUTPUT_VARIADIC = 2,
} OrtCustomOpInputOutputCharacteristic;

typedef enum OrtMemType { OrtMemTypeDefault = 0 } OrtMemType;

typedef struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)(void);
} OrtApiBase;

// Every slot is one function pointer; the static_asserts below hold the ones in use to their official positions.
struct OrtApi {
  OrtStatusPtr (*CreateStatus)(OrtErrorCode code, const char* message);  // 0
  OrtErrorCode (*GetErrorCode)(const OrtStatus* status);
  const char* (*GetErrorMessage)(const OrtStatus* status);
  void* unused_3[23];
  OrtStatusPtr (*CreateCustomOpDomain)(const char* domain, OrtCustomOpDomain** out);  // 26
  OrtStatusPtr (*CustomOpDomain_Add)(OrtCustomOpDomain* domain, const OrtCustomOp* op);
  OrtStatusPtr (*AddCustomOpDomain)(OrtSessionOptions* options, OrtCustomOpDomain* domain);
  void* unused_29[22];
  OrtStatusPtr (*GetTensorMutableData)(OrtValue* value, void** out);  // 51
  void* unused_52[5];
  OrtStatusPtr (*CreateTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo** out);  // 57
  OrtStatusPtr (*SetTensorElementType)(OrtTensorTypeAndShapeInfo* info, ONNXTensorElementDataType type);
  OrtStatusPtr (*SetDimensions)(OrtTensorTypeAndShapeInfo* info, const int64_t* dims, size_t count);
  OrtStatusPtr (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo* info, ONNXTensorElementDataType* out);
  OrtStatusPtr (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);
  OrtStatusPtr (*GetDimensions)(const OrtTensorTypeAndShapeInfo* info, int64_t* dims, size_t count);
  OrtStatusPtr (*GetSymbolicDimensions)(const OrtTensorTypeAndShapeInfo* info, const char** names, size_t count);
  OrtStatusPtr (*GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);
  OrtStatusPtr (*GetTensorTypeAndShape)(const OrtValue* value, OrtTensorTypeAndShapeInfo** out);
  void* unused_66[19];
  OrtStatusPtr (*KernelInfoGetAttribute_float)(const OrtKernelInfo* info, const char* name, float* out);  // 85
  OrtStatusPtr (*KernelInfoGetAttribute_int64)(const OrtKernelInfo* info, const char* name, int64_t* out);
  OrtStatusPtr (*KernelInfoGetAttribute_string)(const OrtKernelInfo* info, const char* name, char* out, size_t* size);
  OrtStatusPtr (*KernelContext_GetInputCount)(const OrtKernelContext* context, size_t* out);
  OrtStatusPtr (*KernelContext_GetOutputCount)(const OrtKernelContext* context, size_t* out);
  OrtStatusPtr (*KernelContext_GetInput)(const OrtKernelContext* context, size_t index, const OrtValue** out);
  OrtStatusPtr (*KernelContext_GetOutput)(OrtKernelContext* context, size_t index, const int64_t* dims, size_t count,
                                          OrtValue** out);
  void* unused_92[1];
  void (*ReleaseStatus)(OrtStatus* status);  // 93
  void* unused_94[5];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo* info);  // 99
  void* unused_100[1];
  void (*ReleaseCustomOpDomain)(OrtCustomOpDomain* domain);  // 101
  void* unused_102[60];
  OrtStatusPtr (*KernelInfoGetAttributeArray_float)(const OrtKernelInfo* info, const char* name, float* out,
                                                    size_t* size);  // 162
  OrtStatusPtr (*KernelInfoGetAttributeArray_int64)(const OrtKernelInfo* info, const char* name, int64_t* out,
                                                    size_t* size);
  void* unused_164[80];
  OrtStatusPtr (*KernelInfo_GetNodeName)(const OrtKernelInfo* info, char* out, size_t* size);  // 244
  void* unused_245[23];
  OrtStatusPtr (*ShapeInferContext_GetInputTypeShape)(const OrtShapeInferContext* context, size_t index,
                                                      OrtTensorTypeAndShapeInfo** info);  // 268
  OrtStatusPtr (*ShapeInferContext_GetAttribute)(const OrtShapeInferContext* context, const char* name,
                                                 const OrtOpAttr** out);
  OrtStatusPtr (*ShapeInferContext_SetOutputTypeShape)(const OrtShapeInferContext* context, size_t index,
                                                       const OrtTensorTypeAndShapeInfo* info);
  OrtStatusPtr (*SetSymbolicDimensions)(OrtTensorTypeAndShapeInfo* info, const char** names, size_t count);
  void* unused_272[2];
  OrtStatusPtr (*KernelContext_ParallelFor)(const OrtKernelContext* context, void (*fn)(void* user, size_t index),
                                            size_t total, size_t num_batch, void* user);  // 274
};

// One word each; a runtime reads as many of them as `version` promises.
struct OrtCustomOp {
  uint32_t version;  // 0
  void* (*CreateKernel)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info);
  const char* (*GetName)(const OrtCustomOp* op);
  const char* (*GetExecutionProviderType)(const OrtCustomOp* op);
  ONNXTensorElementDataType (*GetInputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp* op);
  ONNXTensorElementDataType (*GetOutputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp* op);
  void (*KernelCompute)(void* kernel, OrtKernelContext* context);
  void (*KernelDestroy)(void* kernel);
  OrtCustomOpInputOutputCharacteristic (*GetInputCharacteristic)(const OrtCustomOp* op, size_t index);
  OrtCustomOpInputOutputCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp* op, size_t index);
  OrtMemType (*GetInputMemoryType)(const OrtCustomOp* op, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp* op);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp* op);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp* op);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp* op);
  OrtStatusPtr (*CreateKernelV2)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel);
  OrtStatusPtr (*KernelComputeV2)(void* kernel, OrtKernelContext* context);
  OrtStatusPtr (*InferOutputShapeFn)(const OrtCustomOp* op, OrtShapeInferContext* context);
  int (*GetStartVersion)(const OrtCustomOp* op);
  int (*GetEndVersion)(const OrtCustomOp* op);
  size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};

}  // extern "C"

#define ORT_SLOT(type, member, word) \
  static_assert(offsetof(type, member) == (word) * sizeof(void*), #type "::" #member " left its slot")

ORT_SLOT(OrtApi, CreateStatus, 0);
ORT_SLOT(OrtApi, GetErrorMessage, 2);
ORT_SLOT(OrtApi, CreateCustomOpDomain, 26);
ORT_SLOT(OrtApi, CustomOpDomain_Add, 27);
ORT_SLOT(OrtApi, AddCustomOpDomain, 28);
ORT_SLOT(OrtApi, GetTensorMutableData, 51);
ORT_SLOT(OrtApi, CreateTensorTypeAndShapeInfo, 57);
ORT_SLOT(OrtApi, SetTensorElementType, 58);
ORT_SLOT(OrtApi, SetDimensions, 59);
ORT_SLOT(OrtApi, GetTensorElementType, 60);
ORT_SLOT(OrtApi, GetDimensionsCount, 61);
ORT_SLOT(OrtApi, GetDimensions, 62);
ORT_SLOT(OrtApi, GetSymbolicDimensions, 63);
ORT_SLOT(OrtApi, GetTensorShapeElementCount, 64);
ORT_SLOT(OrtApi, GetTensorTypeAndShape, 65);
ORT_SLOT(OrtApi, KernelInfoGetAttribute_float, 85);
ORT_SLOT(OrtApi, KernelInfoGetAttribute_int64, 86);
ORT_SLOT(OrtApi, KernelInfoGetAttribute_string, 87);
ORT_SLOT(OrtApi, KernelContext_GetInputCount, 88);
ORT_SLOT(OrtApi, KernelContext_GetOutputCount, 89);
ORT_SLOT(OrtApi, KernelContext_GetInput, 90);
ORT_SLOT(OrtApi, KernelContext_GetOutput, 91);
ORT_SLOT(OrtApi, ReleaseStatus, 93);
ORT_SLOT(OrtApi, ReleaseTensorTypeAndShapeInfo, 99);
ORT_SLOT(OrtApi, ReleaseCustomOpDomain, 101);
ORT_SLOT(OrtApi, KernelInfoGetAttributeArray_float, 162);
ORT_SLOT(OrtApi, KernelInfoGetAttributeArray_int64, 163);
ORT_SLOT(OrtApi, KernelInfo_GetNodeName, 244);
ORT_SLOT(OrtApi, ShapeInferContext_GetInputTypeShape, 268);
ORT_SLOT(OrtApi, ShapeInferContext_GetAttribute, 269);
ORT_SLOT(OrtApi, ShapeInferContext_SetOutputTypeShape, 270);
ORT_SLOT(OrtApi, SetSymbolicDimensions, 271);
ORT_SLOT(OrtApi, KernelContext_ParallelFor, 274);
ORT_SLOT(OrtCustomOp, KernelCompute, 8);
ORT_SLOT(OrtCustomOp, CreateKernelV2, 17);
ORT_SLOT(OrtCustomOp, KernelComputeV2, 18);
ORT_SLOT(OrtCustomOp, InferOutputShapeFn, 19);
ORT_SLOT(OrtCustomOp, GetStartVersion, 20);
ORT_SLOT(OrtCustomOp, GetMayInplace, 22);
static_assert(sizeof(OrtCustomOp) == 26 * sizeof(void*), "OrtCustomOp has 26 words in API version 18");

#undef ORT_SLOT

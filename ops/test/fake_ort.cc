#include "fake_ort.h"

#include <algorithm>
#include <cstring>
#include <thread>

namespace fake {
namespace {

std::atomic<int> calls_left{-1};
std::atomic<int> outstanding{0};
uint32_t newest_version = 18;

OrtStatus* NewStatus(OrtErrorCode code, const char* message) {
  ++outstanding;
  return new OrtStatus{code, message};
}

OrtStatus* MaybeFail() {
  if (calls_left < 0 || calls_left-- > 0) return nullptr;
  return NewStatus(ORT_FAIL, "injected");
}

#define MAY_FAIL \
  if (OrtStatus* injected = MaybeFail()) return injected

template <class T>
OrtStatus* Attribute(const OrtKernelInfo* info, const char* name, T* out) {
  MAY_FAIL;
  const auto found = info->attributes.find(name);
  if (found == info->attributes.end() || !std::holds_alternative<T>(found->second)) {
    return NewStatus(ORT_FAIL, "no such attribute");
  }
  *out = std::get<T>(found->second);
  return nullptr;
}

// As ONNX Runtime does: without a buffer the size is told, a small one is an error.
template <class Container>
OrtStatus* CopyOut(const Container& from, size_t needed, decltype(from.data()) data, void* out, size_t* size) {
  if (out != nullptr && *size < needed) return NewStatus(ORT_INVALID_ARGUMENT, "buffer too small");
  if (out != nullptr && needed != 0) memcpy(out, data, needed * sizeof *data);
  *size = needed;
  return nullptr;
}

OrtApi MakeApi() {
  OrtApi api = {};
  api.CreateStatus = NewStatus;
  api.GetErrorMessage = [](const OrtStatus* status) { return status->message.c_str(); };
  api.ReleaseStatus = [](OrtStatus* status) {
    --outstanding;
    delete status;
  };
  api.CreateCustomOpDomain = [](const char* name, OrtCustomOpDomain** out) -> OrtStatus* {
    MAY_FAIL;
    *out = new OrtCustomOpDomain{name, {}};
    return nullptr;
  };
  api.ReleaseCustomOpDomain = [](OrtCustomOpDomain* domain) { delete domain; };
  api.CustomOpDomain_Add = [](OrtCustomOpDomain* domain, const OrtCustomOp* op) -> OrtStatus* {
    MAY_FAIL;
    domain->ops.push_back(op);
    return nullptr;
  };
  api.AddCustomOpDomain = [](OrtSessionOptions* options, OrtCustomOpDomain* domain) -> OrtStatus* {
    MAY_FAIL;
    options->domains.push_back(domain);
    return nullptr;
  };
  api.GetTensorMutableData = [](OrtValue* value, void** out) -> OrtStatus* {
    MAY_FAIL;
    *out = value->data;
    return nullptr;
  };
  api.GetTensorTypeAndShape = [](const OrtValue* value, OrtTensorTypeAndShapeInfo** out) -> OrtStatus* {
    MAY_FAIL;
    ++outstanding;
    *out = new OrtTensorTypeAndShapeInfo{value->dims, std::vector<std::string>(value->dims.size())};
    return nullptr;
  };
  api.ReleaseTensorTypeAndShapeInfo = [](OrtTensorTypeAndShapeInfo* info) {
    --outstanding;
    delete info;
  };
  api.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo* info, size_t* out) -> OrtStatus* {
    MAY_FAIL;
    *out = info->dims.size();
    return nullptr;
  };
  api.GetDimensions = [](const OrtTensorTypeAndShapeInfo* info, int64_t* dims, size_t count) -> OrtStatus* {
    MAY_FAIL;
    std::copy_n(info->dims.begin(), std::min(count, info->dims.size()), dims);
    return nullptr;
  };
  api.GetSymbolicDimensions = [](const OrtTensorTypeAndShapeInfo* info, const char** names,
                                 size_t count) -> OrtStatus* {
    MAY_FAIL;
    for (size_t i = 0; i < count; ++i) names[i] = info->names[i].c_str();
    return nullptr;
  };
  api.GetTensorShapeElementCount = [](const OrtTensorTypeAndShapeInfo* info, size_t* out) -> OrtStatus* {
    MAY_FAIL;
    *out = 1;
    for (int64_t dim : info->dims) *out *= static_cast<size_t>(dim);
    return nullptr;
  };
  api.KernelInfoGetAttribute_float = Attribute<float>;
  api.KernelInfoGetAttribute_int64 = Attribute<int64_t>;
  api.KernelInfoGetAttribute_string = [](const OrtKernelInfo* info, const char* name, char* out,
                                         size_t* size) -> OrtStatus* {
    std::string text;
    if (OrtStatus* status = Attribute(info, name, &text)) return status;
    return CopyOut(text, text.size() + 1, text.c_str(), out, size);
  };
  api.KernelInfoGetAttributeArray_float = [](const OrtKernelInfo* info, const char* name, float* out,
                                             size_t* size) -> OrtStatus* {
    std::vector<float> values;
    if (OrtStatus* status = Attribute(info, name, &values)) return status;
    return CopyOut(values, values.size(), values.data(), out, size);
  };
  api.KernelInfoGetAttributeArray_int64 = [](const OrtKernelInfo* info, const char* name, int64_t* out,
                                             size_t* size) -> OrtStatus* {
    std::vector<int64_t> values;
    if (OrtStatus* status = Attribute(info, name, &values)) return status;
    return CopyOut(values, values.size(), values.data(), out, size);
  };
  api.KernelInfo_GetNodeName = [](const OrtKernelInfo* info, char* out, size_t* size) -> OrtStatus* {
    MAY_FAIL;
    return CopyOut(info->name, info->name.size() + 1, info->name.c_str(), out, size);
  };
  api.KernelContext_GetOutputCount = [](const OrtKernelContext* context, size_t* out) -> OrtStatus* {
    MAY_FAIL;
    *out = context->outputs.size();
    return nullptr;
  };
  api.KernelContext_GetInput = [](const OrtKernelContext* context, size_t index, const OrtValue** out) -> OrtStatus* {
    MAY_FAIL;
    *out = context->inputs[index];
    return nullptr;
  };
  api.KernelContext_GetOutput = [](OrtKernelContext* context, size_t index, const int64_t* dims, size_t count,
                                   OrtValue** out) -> OrtStatus* {
    MAY_FAIL;
    *out = context->outputs[index];
    if (*out == nullptr) return nullptr;
    if ((*out)->dims != std::vector<int64_t>(dims, dims + count)) return NewStatus(ORT_FAIL, "wrong output shape");
    return nullptr;
  };
  api.KernelContext_ParallelFor = [](const OrtKernelContext* context, void (*fn)(void*, size_t), size_t total, size_t,
                                     void* user) -> OrtStatus* {
    MAY_FAIL;
    std::atomic<size_t> next{0};
    std::vector<std::thread> threads;
    for (size_t t = 0; t < context->threads; ++t) {
      threads.emplace_back([&] {
        for (size_t i; (i = next++) < total;) fn(user, i);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return nullptr;
  };
  api.ShapeInferContext_GetInputTypeShape = [](const OrtShapeInferContext* context, size_t,
                                               OrtTensorTypeAndShapeInfo** out) -> OrtStatus* {
    MAY_FAIL;
    *out = const_cast<OrtTensorTypeAndShapeInfo*>(&context->input);
    return nullptr;
  };
  api.ShapeInferContext_SetOutputTypeShape = [](const OrtShapeInferContext* context, size_t index,
                                                const OrtTensorTypeAndShapeInfo* info) -> OrtStatus* {
    MAY_FAIL;
    if (index != 0) return NewStatus(ORT_FAIL, "only Y's shape is safe to set");
    auto* mutable_context = const_cast<OrtShapeInferContext*>(context);
    mutable_context->was_set = true;
    mutable_context->output = *info;
    return nullptr;
  };
  return api;
}

const OrtApi table = MakeApi();

}  // namespace

void FailAfter(int calls) { calls_left = calls; }
int Outstanding() { return outstanding; }
const OrtApi* Api() { return &table; }

const OrtApiBase* Base(uint32_t newest) {
  newest_version = newest;
  static const OrtApiBase base = {
      [](uint32_t version) -> const OrtApi* { return version <= newest_version ? &table : nullptr; },
      [] { return "1.17.3"; },
  };
  return &base;
}

}  // namespace fake

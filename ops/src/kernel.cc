#include "kernel.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "attributes.h"
#include "draw.h"

namespace spatialdrop {
namespace {

// Larger outputs leave the caches before anyone reads them again, so writing past the caches saves reading them in.
constexpr size_t kStreamBytes = 8 << 20;
constexpr size_t kFarBytes = 1 << 20;
// Below this, handing work to other threads costs more than it saves.
constexpr size_t kParallelBytes = 128 << 10;
constexpr size_t kMaskPiece = 64 << 10;

struct Kernel {
  const OrtApi* api;
  const Path* path;
  Type type;
  Scale scale;
  bool scale_is_one;
  Attributes attributes;
  std::atomic<uint64_t> fresh_draws;  // training runs so far with a negative step
};

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

OrtStatus* Input(const Kernel& kernel, const OrtKernelContext* context, size_t index, const char* name,
                 const OrtValue** value, const void** data) {
  *value = nullptr;
  if (OrtStatus* status = kernel.api->KernelContext_GetInput(context, index, value)) return status;
  if (*value == nullptr) {
    return Refuse(*kernel.api, "%s: input %s is missing; all three inputs are required", kernel.attributes.where, name);
  }
  void* pointer = nullptr;
  if (OrtStatus* status = kernel.api->GetTensorMutableData(const_cast<OrtValue*>(*value), &pointer)) return status;
  *data = pointer;
  return nullptr;
}

OrtStatus* NormalizeAxes(const Kernel& kernel, size_t rank, bool (&shared)[kMaxRank]) {
  const Attributes& attributes = kernel.attributes;
  if (rank < 1 || rank > kMaxRank) {
    return Refuse(*kernel.api, "%s: X has rank %zu; ranks 1 to %zu are allowed", attributes.where, rank, kMaxRank);
  }
  memset(shared, 0, sizeof shared);
  const int64_t limit = static_cast<int64_t>(rank);
  for (size_t i = 0; i < attributes.axes_count; ++i) {
    const int64_t axis = attributes.axes[i];
    if (axis < -limit || axis >= limit) {
      return Refuse(*kernel.api, "%s: axis %lld is out of range for rank %zu; allowed: [-%zu, %zu]", attributes.where,
                    static_cast<long long>(axis), rank, rank, rank - 1);
    }
    bool& flag = shared[axis < 0 ? axis + limit : axis];
    if (flag) {
      return Refuse(*kernel.api, "%s: axis %lld of a rank-%zu tensor is named twice in axes; name each once",
                    attributes.where, static_cast<long long>(axis), rank);
    }
    flag = true;
  }
  return nullptr;
}

OrtStatus* CheckStep(const Kernel& kernel, const int64_t* steps, size_t rows, int64_t batch, bool batch_shared) {
  const char* where = kernel.attributes.where;
  if (rows == 1) return nullptr;
  if (rows != static_cast<size_t>(batch)) {
    return Refuse(*kernel.api, "%s: step has %zu elements; allowed: 1, or %lld (the size of X's dim 0)", where, rows,
                  static_cast<long long>(batch));
  }
  if (batch_shared) {
    return Refuse(*kernel.api, "%s: step has %zu elements but axis 0 is shared; give it one element", where, rows);
  }
  for (size_t i = 0; i < rows; ++i) {
    if (steps[i] < 0) {
      return Refuse(*kernel.api,
                    "%s: step[%zu] is %lld; in a step of several elements none may be negative (only a single step "
                    "asks for a fresh draw)",
                    where, i, static_cast<long long>(steps[i]));
    }
  }
  return nullptr;
}

// A range of work cut into pieces of equal size, for ONNX Runtime's thread pool.
struct Pieces {
  const Draw* draw;
  void (Draw::*work)(size_t begin, size_t end) const;
  size_t size, total;

  static void Run(void* self_, size_t index) {
    const Pieces& self = *static_cast<Pieces*>(self_);
    const size_t begin = index * self.size;
    const size_t left = self.total - begin;
    (self.draw->*self.work)(begin, begin + (left < self.size ? left : self.size));
  }
};

OrtStatus* Run(const OrtApi& api, const OrtKernelContext* context, Pieces pieces, size_t bytes) {
  if (pieces.total == 0) return nullptr;
  if (bytes < kParallelBytes || pieces.total <= pieces.size) {
    (pieces.draw->*pieces.work)(0, pieces.total);
    return nullptr;
  }
  const size_t count = (pieces.total - 1) / pieces.size + 1;
  return api.KernelContext_ParallelFor(context, Pieces::Run, count, 0, &pieces);
}

OrtStatus* Compute(void* kernel_, OrtKernelContext* context) {
  Kernel& kernel = *static_cast<Kernel*>(kernel_);
  const OrtApi& api = *kernel.api;
  const char* where = kernel.attributes.where;
  Draw draw = {};
  const OrtValue *x = nullptr, *training_mode = nullptr, *step = nullptr;
  const void *training_data = nullptr, *step_data = nullptr;
  if (OrtStatus* status = Input(kernel, context, 0, "X", &x, &draw.x)) return status;
  if (OrtStatus* status = Input(kernel, context, 1, "training_mode", &training_mode, &training_data)) return status;
  if (OrtStatus* status = Input(kernel, context, 2, "step", &step, &step_data)) return status;

  int64_t dims[kMaxRank];
  bool shared[kMaxRank];
  Shape x_shape(api), training_shape(api), step_shape(api);
  if (OrtStatus* status = x_shape.Read(x)) return status;
  if (OrtStatus* status = NormalizeAxes(kernel, x_shape.rank, shared)) return status;
  if (OrtStatus* status = x_shape.ReadDims(dims)) return status;
  draw.plan = MakePlan(dims, x_shape.rank, shared);

  size_t count = 0;
  if (OrtStatus* status = training_shape.Read(training_mode)) return status;
  if (OrtStatus* status = training_shape.ReadCount(&count)) return status;
  if (count != 1) {
    return Refuse(api, "%s: training_mode has %zu elements; it must have one", where, count);
  }
  draw.training = *static_cast<const bool*>(training_data);

  if (OrtStatus* status = step_shape.Read(step)) return status;
  if (OrtStatus* status = step_shape.ReadCount(&draw.rows)) return status;
  draw.steps = static_cast<const int64_t*>(step_data);
  if (OrtStatus* status = CheckStep(kernel, draw.steps, draw.rows, dims[0], shared[0])) return status;
  int64_t fresh;
  if (draw.training && draw.rows == 1 && draw.steps[0] < 0) {
    fresh = static_cast<int64_t>(kernel.fresh_draws.fetch_add(1, std::memory_order_relaxed));
    draw.steps = &fresh;
  }

  OrtValue *y = nullptr, *mask = nullptr;
  if (OrtStatus* status = api.KernelContext_GetOutput(context, 0, dims, x_shape.rank, &y)) return status;
  if (OrtStatus* status = api.GetTensorMutableData(y, &draw.y)) return status;
  int64_t mask_dims[kMaxRank];
  for (size_t i = 0; i < x_shape.rank; ++i) mask_dims[i] = shared[i] ? 1 : dims[i];
  size_t outputs = 0;
  if (OrtStatus* status = api.KernelContext_GetOutputCount(context, &outputs)) return status;
  if (outputs > 1) {
    if (OrtStatus* status = api.KernelContext_GetOutput(context, 1, mask_dims, x_shape.rank, &mask)) return status;
  }
  if (mask != nullptr) {
    if (!draw.plan.entries_fit) return Refuse(api, "%s: the mask has more entries than memory has bytes", where);
    void* data = nullptr;
    if (OrtStatus* status = api.GetTensorMutableData(mask, &data)) return status;
    draw.mask = static_cast<uint8_t*>(data);
  }

  const size_t bytes = draw.plan.elements * kTypeSize[kernel.type];
  draw.path = kernel.path;
  draw.type = kernel.type;
  draw.scale = kernel.scale;
  draw.scale_is_one = kernel.scale_is_one;
  draw.threshold = kernel.attributes.threshold;
  draw.seed = kernel.attributes.seed;
  draw.reach = bytes >= kStreamBytes ? Reach::kStream : bytes >= kFarBytes ? Reach::kFar : Reach::kNear;
  if (draw.mask != nullptr) {
    // Drawing an entry costs about as much as moving a few bytes.
    const Pieces fill = {&draw, &Draw::FillMask, kMaskPiece, draw.plan.entries};
    if (OrtStatus* status = Run(api, context, fill, draw.plan.entries * 4)) return status;
  }
  if (!draw.training && draw.x == draw.y) return nullptr;
  const Pieces apply = {&draw, &Draw::ApplyTo, draw.PieceSize(), draw.plan.elements};
  return Run(api, context, apply, bytes);
}

const TypedOp& Self(const OrtCustomOp* op) { return *reinterpret_cast<const TypedOp*>(op); }

OrtStatus* Create(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** out) {
  void* memory = calloc(1, sizeof(Kernel));
  if (memory == nullptr) return Refuse(*api, "SpatialDropout: no memory for a kernel");
  auto* kernel = ::new (memory) Kernel{};
  kernel->api = api;
  kernel->path = &ChoosePath();
  kernel->type = Self(op).type;
  if (OrtStatus* status = ReadAttributes(*api, info, &kernel->attributes)) {
    free(kernel);
    return status;
  }
  kernel->scale = KeptScale(kernel->attributes, kernel->type);
  kernel->scale_is_one = kernel->type == kFloat64 ? kernel->scale.wide == 1.0 : kernel->scale.narrow == 1.0f;
  *out = kernel;
  return nullptr;
}

void Destroy(void* kernel) { free(kernel); }

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
  op.KernelDestroy = Destroy;
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == 0 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = Create;
  op.KernelComputeV2 = Compute;
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

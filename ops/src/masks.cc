#include "masks.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "draw.h"
#include "inputs.h"

namespace spatialdrop {
namespace {

constexpr const char* kWhere = "SpatialDropoutMasks";
constexpr size_t kMostNodes = 1 << 20;

struct Node {
  uint64_t seed;
  size_t rank;
  Rule rule;
};

struct Kernel {
  const OrtApi* api;
  const Path* path;
  Node* nodes;
  size_t count;
  // Sizes as numbers, or as -1 - (16 input + axis) where they are read: those of node i are the next `rank` of `inner`.
  int64_t* inner;
  size_t inner_count;
  int64_t rows;
  std::atomic<uint64_t> fresh_draws;  // training runs so far with a negative step
};

void Destroy(void* kernel_) {
  Kernel* kernel = static_cast<Kernel*>(kernel_);
  free(kernel->nodes);
  free(kernel->inner);
  free(kernel);
}

OrtStatus* ReadInner(const OrtApi& api, const OrtKernelInfo* info, Kernel* kernel) {
  if (OrtStatus* status = api.KernelInfoGetAttribute_int64(info, "rows", &kernel->rows)) return status;
  size_t count = 0, ranks_count = kernel->count;
  if (OrtStatus* status = api.KernelInfoGetAttributeArray_int64(info, "inner", nullptr, &count)) return status;
  auto* ranks = static_cast<int64_t*>(calloc(kernel->count, sizeof(int64_t)));
  kernel->inner = static_cast<int64_t*>(calloc(count + 1, sizeof(int64_t)));
  OrtStatus* status = nullptr;
  if (ranks == nullptr || kernel->inner == nullptr) status = Refuse(api, "%s: no memory for sizes", kWhere);
  if (status == nullptr) status = api.KernelInfoGetAttributeArray_int64(info, "inner", kernel->inner, &count);
  if (status == nullptr) status = api.KernelInfoGetAttributeArray_int64(info, "ranks", ranks, &ranks_count);
  if (status == nullptr && ranks_count != kernel->count) status = Refuse(api, "%s: ranks are missing", kWhere);
  size_t used = 0;
  for (size_t i = 0; i < kernel->count && status == nullptr; ++i) {
    if (ranks[i] < 0 || ranks[i] > static_cast<int64_t>(kMaxRank) || (used += static_cast<size_t>(ranks[i])) > count) {
      status = Refuse(api, "%s: node %zu has no %lld sizes", kWhere, i, static_cast<long long>(ranks[i]));
    }
    kernel->nodes[i].rank = static_cast<size_t>(ranks[i]);
  }
  free(ranks);
  return status;
}

OrtStatus* ReadNodes(const OrtApi& api, const OrtKernelInfo* info, Kernel* kernel) {
  size_t count = 0;
  if (OrtStatus* status = api.KernelInfoGetAttributeArray_int64(info, "seeds", nullptr, &count)) return status;
  if (count == 0 || count > kMostNodes) return Refuse(api, "%s: it is of %zu nodes", kWhere, count);
  // One block for all five lists, which have one length.
  auto* numbers = static_cast<int64_t*>(calloc(count * 5, sizeof(int64_t)));
  kernel->nodes = static_cast<Node*>(calloc(count, sizeof(Node)));
  if (numbers == nullptr || kernel->nodes == nullptr) {
    free(numbers);
    return Refuse(api, "%s: no memory for %zu nodes", kWhere, count);
  }
  auto* ratios = reinterpret_cast<float*>(numbers + 4 * count);
  const char* const names[4] = {"seeds", "strata", "rngs", "types"};
  OrtStatus* status = nullptr;
  for (size_t list = 0; list < 4 && status == nullptr; ++list) {
    size_t size = count;
    status = api.KernelInfoGetAttributeArray_int64(info, names[list], numbers + list * count, &size);
    if (status == nullptr && size != count) status = Refuse(api, "%s: %s has %zu numbers", kWhere, names[list], size);
  }
  size_t size = count;
  if (status == nullptr) status = api.KernelInfoGetAttributeArray_float(info, "ratios", ratios, &size);
  if (status == nullptr && size != count) status = Refuse(api, "%s: ratios has %zu numbers", kWhere, size);
  for (size_t i = 0; i < count && status == nullptr; ++i) {
    const int64_t strata = numbers[count + i], rng = numbers[2 * count + i], type = numbers[3 * count + i];
    const bool known =
        AreStrata(strata) && rng >= 0 && rng < static_cast<int64_t>(sizeof kDialects / sizeof kDialects[0]) &&
        type >= 0 && type < kTypeCount && kDialects[rng].tests[type].bits != 0 &&
        (strata == 1 || kDialects[rng].words == Words::kPhilox) && ratios[i] >= 0.0f && ratios[i] <= 1.0f;
    if (!known) {
      status = Refuse(api, "%s: node %zu has attributes that SpatialDropout does not allow", kWhere, i);
      break;
    }
    kernel->nodes[i].seed = static_cast<uint64_t>(numbers[i]);
    kernel->nodes[i].rule = MakeRule(kDialects[rng], static_cast<Type>(type), ratios[i], static_cast<uint32_t>(strata));
  }
  kernel->count = count;
  free(numbers);
  return status == nullptr ? ReadInner(api, info, kernel) : status;
}

OrtStatus* Create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** out) {
  void* memory = calloc(1, sizeof(Kernel));
  if (memory == nullptr) return Refuse(*api, "%s: no memory for a kernel", kWhere);
  auto* kernel = ::new (memory) Kernel{};
  kernel->api = api;
  kernel->path = &ChoosePath();
  if (OrtStatus* status = ReadNodes(*api, info, kernel)) {
    Destroy(kernel);
    return status;
  }
  *out = kernel;
  return nullptr;
}

// Draws the mask of one node into column `column` of the rows, `width` entries each.
void DrawNode(const Kernel& kernel, const Node& node, const int64_t* steps, size_t step_count, size_t rows,
              size_t length, size_t width, uint8_t* column) {
  Draw draw = {};
  draw.path = kernel.path;
  draw.rule = node.rule;
  draw.training = true;
  draw.seed = node.seed;
  draw.steps = steps;
  draw.rows = step_count;
  draw.plan.entries = rows * length;
  draw.plan.entries_fit = true;
  for (size_t row = 0; row < rows; ++row, column += width) {
    if (draw.KeepsAll() || draw.DropsAll()) {
      memset(column, draw.DropsAll(), length);
      continue;
    }
    draw.DrawEntries(row * length, (row + 1) * length, column);
    for (size_t i = 0; i < length; ++i) column[i] ^= 1;
  }
}

// What is read from the inputs behind the first two: dimensions alone.
class Sources {
 public:
  Sources(const OrtApi& api, const OrtKernelContext* context) : api_(api), context_(context) {}

  // Sets `size` to what `written` stands for; see Kernel::inner.
  OrtStatus* Read(int64_t written, size_t* size) {
    int64_t number = written;
    if (written < 0) {
      const size_t place = static_cast<size_t>(-1 - written), input = place / 16 + 2, axis = place % 16;
      const OrtValue* value = nullptr;
      if (OrtStatus* status = api_.KernelContext_GetInput(context_, input, &value)) return status;
      if (value == nullptr) return Refuse(api_, "%s: input %zu is missing", kWhere, input);
      Shape shape(api_);
      int64_t dims[kMaxRank];
      if (OrtStatus* status = shape.Read(value)) return status;
      if (axis >= shape.rank || shape.rank > kMaxRank) {
        return Refuse(api_, "%s: input %zu has rank %zu, and axis %zu is wanted", kWhere, input, shape.rank, axis);
      }
      if (OrtStatus* status = shape.ReadDims(dims)) return status;
      number = dims[axis];
    }
    *size = static_cast<size_t>(number);
    return nullptr;
  }

 private:
  const OrtApi& api_;
  const OrtKernelContext* context_;
};

// Sets `length` to the product of the next `rank` sizes, and moves on to those behind them.
OrtStatus* ReadLength(Sources* sources, const int64_t** inner, size_t rank, size_t* length, bool* fits) {
  *length = 1;
  for (size_t axis = 0; axis < rank; ++axis) {
    size_t size = 0;
    if (OrtStatus* status = sources->Read(*(*inner)++, &size)) return status;
    *fits = *fits && !__builtin_mul_overflow(*length, size, length);
  }
  return nullptr;
}

// Sets the rows of the masks, the entries a row of all nodes, and those of all rows.
OrtStatus* ReadSizes(const Kernel& kernel, Sources* sources, size_t* rows, size_t* width, size_t* total) {
  const OrtApi& api = *kernel.api;
  if (OrtStatus* status = sources->Read(kernel.rows, rows)) return status;
  *width = 0;
  bool fits = *rows <= INT64_MAX;
  const int64_t* inner = kernel.inner;
  for (size_t i = 0; i < kernel.count; ++i) {
    size_t length = 0;
    if (OrtStatus* status = ReadLength(sources, &inner, kernel.nodes[i].rank, &length, &fits)) return status;
    fits = fits && !__builtin_add_overflow(*width, length, width);
  }
  fits = fits && !__builtin_mul_overflow(*width, *rows, total) && *total <= INT64_MAX;
  return fits ? nullptr : Refuse(api, "%s: the masks have more entries than memory has bytes", kWhere);
}

OrtStatus* Compute(void* kernel_, OrtKernelContext* context) {
  Kernel& kernel = *static_cast<Kernel*>(kernel_);
  const OrtApi& api = *kernel.api;
  const OrtValue *training_mode = nullptr, *step = nullptr;
  const void *training_data = nullptr, *step_data = nullptr;
  if (OrtStatus* status = ReadInput(api, kWhere, context, 0, "training_mode", &training_mode, &training_data))
    return status;
  if (OrtStatus* status = ReadInput(api, kWhere, context, 1, "step", &step, &step_data)) return status;
  const auto* steps = static_cast<const int64_t*>(step_data);
  size_t rows = 0, width = 0, total = 0, step_count = 0, switches = 0;
  Sources sources(api, context);
  if (OrtStatus* status = ReadSizes(kernel, &sources, &rows, &width, &total)) return status;
  Shape training_shape(api), step_shape(api);
  if (OrtStatus* status = training_shape.Read(training_mode)) return status;
  if (OrtStatus* status = training_shape.ReadCount(&switches)) return status;
  if (switches != 1) return Refuse(api, "%s: training_mode has %zu elements; it must have one", kWhere, switches);
  if (OrtStatus* status = step_shape.Read(step)) return status;
  if (OrtStatus* status = step_shape.ReadCount(&step_count)) return status;
  if (OrtStatus* status = CheckStep(api, kWhere, steps, step_count, static_cast<int64_t>(rows), false)) return status;

  OrtValue* output = nullptr;
  void* memory = nullptr;
  const int64_t dims[1] = {static_cast<int64_t>(total)};
  if (OrtStatus* status = api.KernelContext_GetOutput(context, 0, dims, 1, &output)) return status;
  if (OrtStatus* status = api.GetTensorMutableData(output, &memory)) return status;
  OrtValue* passed_on = nullptr;
  void* passed_on_data = nullptr;
  if (OrtStatus* status = api.KernelContext_GetOutput(context, 1, dims, 0, &passed_on)) return status;
  if (OrtStatus* status = api.GetTensorMutableData(passed_on, &passed_on_data)) return status;
  *static_cast<bool*>(passed_on_data) = *static_cast<const bool*>(training_data);
  if (total == 0) return nullptr;
  auto* dropped = static_cast<uint8_t*>(memory);
  if (!*static_cast<const bool*>(training_data)) {
    memset(dropped, 0, total);
    return nullptr;
  }
  const bool fresh = step_count == 1 && steps[0] < 0;
  const uint64_t number = fresh ? kernel.fresh_draws.fetch_add(1, std::memory_order_relaxed) : 0;
  const int64_t* inner = kernel.inner;
  bool fits = true;  // known by now
  for (size_t i = 0; i < kernel.count; ++i) {
    size_t length = 0;
    if (OrtStatus* status = ReadLength(&sources, &inner, kernel.nodes[i].rank, &length, &fits)) return status;
    int64_t drawn = 0;
    if (fresh) {  // as in kernel.cc
      const uint64_t strata = kernel.nodes[i].rule.strata, cycle = (uint64_t{1} << 20) / strata * strata;
      drawn = static_cast<int64_t>((number + ~static_cast<uint64_t>(steps[0]) * cycle) & INT64_MAX);
    }
    if (length > 0) {
      DrawNode(kernel, kernel.nodes[i], fresh ? &drawn : steps, step_count, rows, length, width, dropped);
    }
    dropped += length;
  }
  return nullptr;
}

}  // namespace

TypedOp MakeMasksOp(const OrtApi* api) {
  TypedOp typed = MakeTypedOp(api, kFloat32);
  OrtCustomOp& op = typed.op;
  op.GetName = [](const OrtCustomOp*) { return kWhere; };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    constexpr ONNXTensorElementDataType kAny = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    if (index > 1) return kAny;
    return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index > 1 ? INPUT_OUTPUT_VARIADIC : INPUT_OUTPUT_REQUIRED;
  };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{2}; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.CreateKernelV2 = Create;
  op.KernelComputeV2 = Compute;
  op.KernelDestroy = Destroy;
  op.InferOutputShapeFn = nullptr;
  op.GetMayInplace = [](int**, int**) { return size_t{0}; };
  return typed;
}

}  // namespace spatialdrop

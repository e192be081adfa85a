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
  Rule rule;
};

struct Kernel {
  const OrtApi* api;
  const Path* path;
  Node* nodes;
  size_t count;
  std::atomic<uint64_t> fresh_draws;  // training runs so far with a negative step
};

void Destroy(void* kernel_) {
  Kernel* kernel = static_cast<Kernel*>(kernel_);
  free(kernel->nodes);
  free(kernel);
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
    const bool known = AreStrata(strata) && rng >= 0 && rng < static_cast<int64_t>(sizeof kDialects / sizeof kDialects[0]) &&
                       type >= 0 && type < kTypeCount && kDialects[rng].tests[type].bits != 0 &&
                       (strata == 1 || kDialects[rng].words == Words::kPhilox) && ratios[i] >= 0.0f && ratios[i] <= 1.0f;
    if (!known) {
      status = Refuse(api, "%s: node %zu has attributes that SpatialDropout does not allow", kWhere, i);
      break;
    }
    kernel->nodes[i].seed = static_cast<uint64_t>(numbers[i]);
    kernel->nodes[i].rule =
        MakeRule(kDialects[rng], static_cast<Type>(type), ratios[i], static_cast<uint32_t>(strata));
  }
  kernel->count = count;
  free(numbers);
  return status;
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

OrtStatus* ReadSizes(const Kernel& kernel, const OrtValue* value, const int64_t* sizes, size_t* width, size_t* total) {
  const OrtApi& api = *kernel.api;
  Shape shape(api);
  size_t count = 0;
  if (OrtStatus* status = shape.Read(value)) return status;
  if (OrtStatus* status = shape.ReadCount(&count)) return status;
  if (count != kernel.count + 1) return Refuse(api, "%s: it is given %zu sizes", kWhere, count);
  *width = 0;
  bool fits = true;
  for (size_t i = 0; i < count; ++i) {
    if (sizes[i] < 0) return Refuse(api, "%s: size %zu is negative", kWhere, i);
    if (i > 0) fits = fits && !__builtin_add_overflow(*width, static_cast<size_t>(sizes[i]), width);
  }
  fits = fits && !__builtin_mul_overflow(*width, static_cast<size_t>(sizes[0]), total) && *total <= INT64_MAX;
  return fits ? nullptr : Refuse(api, "%s: the masks have more entries than memory has bytes", kWhere);
}

OrtStatus* Compute(void* kernel_, OrtKernelContext* context) {
  Kernel& kernel = *static_cast<Kernel*>(kernel_);
  const OrtApi& api = *kernel.api;
  const OrtValue* values[3];
  const void* data[3];
  const char* const names[3] = {"sizes", "training_mode", "step"};
  for (size_t i = 0; i < 3; ++i) {
    if (OrtStatus* status = ReadInput(api, kWhere, context, i, names[i], &values[i], &data[i])) return status;
  }
  const auto* sizes = static_cast<const int64_t*>(data[0]);
  const auto* steps = static_cast<const int64_t*>(data[2]);
  size_t width = 0, total = 0, step_count = 0, switches = 0;
  if (OrtStatus* status = ReadSizes(kernel, values[0], sizes, &width, &total)) return status;
  Shape training_shape(api), step_shape(api);
  if (OrtStatus* status = training_shape.Read(values[1])) return status;
  if (OrtStatus* status = training_shape.ReadCount(&switches)) return status;
  if (switches != 1) return Refuse(api, "%s: training_mode has %zu elements; it must have one", kWhere, switches);
  if (OrtStatus* status = step_shape.Read(values[2])) return status;
  if (OrtStatus* status = step_shape.ReadCount(&step_count)) return status;
  if (OrtStatus* status = CheckStep(api, kWhere, steps, step_count, sizes[0], false)) return status;

  OrtValue* output = nullptr;
  void* memory = nullptr;
  const int64_t dims[1] = {static_cast<int64_t>(total)};
  if (OrtStatus* status = api.KernelContext_GetOutput(context, 0, dims, 1, &output)) return status;
  if (OrtStatus* status = api.GetTensorMutableData(output, &memory)) return status;
  if (total == 0) return nullptr;
  auto* dropped = static_cast<uint8_t*>(memory);
  if (!*static_cast<const bool*>(data[1])) {
    memset(dropped, 0, total);
    return nullptr;
  }
  const bool fresh = step_count == 1 && steps[0] < 0;
  const uint64_t number = fresh ? kernel.fresh_draws.fetch_add(1, std::memory_order_relaxed) : 0;
  for (size_t i = 0; i < kernel.count; ++i) {
    const size_t length = static_cast<size_t>(sizes[i + 1]);
    int64_t step = 0;
    if (fresh) {  // as in kernel.cc
      const uint64_t strata = kernel.nodes[i].rule.strata, cycle = (uint64_t{1} << 20) / strata * strata;
      step = static_cast<int64_t>((number + ~static_cast<uint64_t>(steps[0]) * cycle) & INT64_MAX);
    }
    if (length > 0) {
      DrawNode(kernel, kernel.nodes[i], fresh ? &step : steps, step_count, static_cast<size_t>(sizes[0]), length, width,
               dropped);
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
    return index == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.CreateKernelV2 = Create;
  op.KernelComputeV2 = Compute;
  op.KernelDestroy = Destroy;
  op.InferOutputShapeFn = nullptr;
  op.GetMayInplace = [](int**, int**) { return size_t{0}; };
  return typed;
}

}  // namespace spatialdrop

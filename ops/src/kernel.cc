#include "kernel.h"

#include <atomic>
#include <cstdlib>
#include <new>

#include "draw.h"
#include "inputs.h"

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
  const Tuning* tuning;
  Type type;
  Scale scale;
  bool scale_is_one;
  Attributes attributes;
  std::atomic<uint64_t> fresh_draws;  // training runs so far with a negative step
};

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

}  // namespace

OrtStatus* ComputeKernel(void* kernel_, OrtKernelContext* context) {
  Kernel& kernel = *static_cast<Kernel*>(kernel_);
  const OrtApi& api = *kernel.api;
  const char* where = kernel.attributes.where;
  Draw draw = {};
  const OrtValue *x = nullptr, *training_mode = nullptr, *step = nullptr;
  const void *training_data = nullptr, *step_data = nullptr;
  if (OrtStatus* status = ReadInput(api, where, context, 0, "X", &x, &draw.x)) return status;
  if (OrtStatus* status = ReadInput(api, where, context, 1, "training_mode", &training_mode, &training_data))
    return status;
  if (OrtStatus* status = ReadInput(api, where, context, 2, "step", &step, &step_data)) return status;

  int64_t dims[kMaxRank];
  bool shared[kMaxRank];
  Shape x_shape(api), training_shape(api), step_shape(api);
  if (OrtStatus* status = x_shape.Read(x)) return status;
  if (OrtStatus* status = NormalizeAxes(api, kernel.attributes, x_shape.rank, shared)) return status;
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
  if (OrtStatus* status = CheckStep(api, where, draw.steps, draw.rows, dims[0], shared[0])) return status;
  int64_t fresh;
  if (draw.training && draw.rows == 1 && draw.steps[0] < 0) {
    // -1, -2, ... are sequences of their own: nodes that share a stream are told apart by their steps alone. They begin
    // with a cycle of balanced draws.
    const uint64_t strata = kernel.attributes.rule.strata, length = (uint64_t{1} << 20) / strata * strata;
    const uint64_t sequence = ~static_cast<uint64_t>(draw.steps[0]) * length;
    const uint64_t number = kernel.fresh_draws.fetch_add(1, std::memory_order_relaxed) + sequence;
    fresh = static_cast<int64_t>(number & INT64_MAX);
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
  draw.tuning = kernel.tuning;
  draw.type = kernel.type;
  draw.scale = kernel.scale;
  draw.scale_is_one = kernel.scale_is_one;
  draw.rule = kernel.attributes.rule;
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

OrtStatus* CreateKernel(const OrtApi* api, Type type, const OrtKernelInfo* info, void** out) {
  void* memory = calloc(1, sizeof(Kernel));
  if (memory == nullptr) return Refuse(*api, "SpatialDropout: no memory for a kernel");
  auto* kernel = ::new (memory) Kernel{};
  kernel->api = api;
  kernel->path = &ChoosePath();
  kernel->tuning = &ChooseTuning();
  kernel->type = type;
  if (OrtStatus* status = ReadAttributes(*api, info, type, &kernel->attributes)) {
    free(kernel);
    return status;
  }
  kernel->scale = KeptScale(kernel->attributes, kernel->type);
  kernel->scale_is_one = kernel->type == kFloat64 ? kernel->scale.wide == 1.0 : kernel->scale.narrow == 1.0f;
  *out = kernel;
  return nullptr;
}

void DestroyKernel(void* kernel) { free(kernel); }

}  // namespace spatialdrop

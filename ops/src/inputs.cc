#include "inputs.h"

#include <cstring>

namespace spatialdrop {

OrtStatus* ReadInput(const OrtApi& api, const char* where, const OrtKernelContext* context, size_t index,
                     const char* name, const OrtValue** value, const void** data) {
  *value = nullptr;
  if (OrtStatus* status = api.KernelContext_GetInput(context, index, value)) return status;
  if (*value == nullptr) {
    return Refuse(api, "%s: input %s is missing; all three inputs are required", where, name);
  }
  void* pointer = nullptr;
  if (OrtStatus* status = api.GetTensorMutableData(const_cast<OrtValue*>(*value), &pointer)) return status;
  *data = pointer;
  return nullptr;
}

OrtStatus* NormalizeAxes(const OrtApi& api, const Attributes& attributes, size_t rank, bool (&shared)[kMaxRank]) {
  if (rank < 1 || rank > kMaxRank) {
    return Refuse(api, "%s: X has rank %zu; ranks 1 to %zu are allowed", attributes.where, rank, kMaxRank);
  }
  memset(shared, 0, sizeof shared);
  const int64_t limit = static_cast<int64_t>(rank);
  for (size_t i = 0; i < attributes.axes_count; ++i) {
    const int64_t axis = attributes.axes[i];
    if (axis < -limit || axis >= limit) {
      return Refuse(api, "%s: axis %lld is out of range for rank %zu; allowed: [-%zu, %zu]", attributes.where,
                    static_cast<long long>(axis), rank, rank, rank - 1);
    }
    bool& flag = shared[axis < 0 ? axis + limit : axis];
    if (flag) {
      return Refuse(api, "%s: axis %lld of a rank-%zu tensor is named twice in axes; name each once", attributes.where,
                    static_cast<long long>(axis), rank);
    }
    flag = true;
  }
  return nullptr;
}

OrtStatus* CheckStep(const OrtApi& api, const char* where, const int64_t* steps, size_t rows, int64_t batch,
                     bool batch_shared) {
  if (rows == 1) return nullptr;
  if (rows != static_cast<size_t>(batch)) {
    return Refuse(api, "%s: step has %zu elements; allowed: 1, or %lld (the size of X's dim 0)", where, rows,
                  static_cast<long long>(batch));
  }
  if (batch_shared) {
    return Refuse(api, "%s: step has %zu elements but axis 0 is shared; give it one element", where, rows);
  }
  for (size_t i = 0; i < rows; ++i) {
    if (steps[i] < 0) {
      return Refuse(api,
                    "%s: step[%zu] is %lld; in a step of several elements none may be negative (only a single step "
                    "asks for a fresh draw)",
                    where, i, static_cast<long long>(steps[i]));
    }
  }
  return nullptr;
}

}  // namespace spatialdrop

#include "plan.h"

namespace spatialdrop {

size_t Plan::FirstEntry(size_t slab) const {
  size_t entry = 0;
  for (size_t i = outer_rank; i-- > 0;) {
    entry += slab % outer_size[i] * outer_stride[i];
    slab /= outer_size[i];
  }
  return entry;
}

Plan MakePlan(const int64_t* shape, size_t rank, const bool* shared) {
  Plan plan = {};
  plan.elements = plan.entries = 1;
  plan.entries_fit = true;
  size_t size[kMaxRank];
  bool is_shared[kMaxRank];
  size_t groups = 0;
  for (size_t i = 0; i < rank; ++i) {
    const size_t dim = static_cast<size_t>(shape[i]);
    // A dimension of 0 makes X empty however large the others are, so a product that wraps is not an error there.
    plan.elements *= dim;
    if (!shared[i]) plan.entries_fit &= !__builtin_mul_overflow(plan.entries, dim, &plan.entries);
    if (dim == 1) continue;
    if (groups > 0 && is_shared[groups - 1] == shared[i]) {
      size[groups - 1] *= dim;
    } else {
      size[groups] = dim;
      is_shared[groups++] = shared[i];
    }
  }
  for (size_t i = 0; i < rank; ++i) {
    if (shape[i] == 0 && !shared[i]) {
      plan.entries = 0;
      plan.entries_fit = true;
    }
    if (shape[i] == 0) plan.elements = 0;
  }

  plan.repeats = plan.width = plan.inner = 1;
  if (groups > 0 && is_shared[groups - 1]) plan.inner = size[--groups];
  if (groups > 0) plan.width = size[--groups];
  if (groups > 0) plan.repeats = size[--groups];
  plan.outer_rank = groups;
  size_t stride = plan.width;
  for (size_t i = groups; i-- > 0;) {
    plan.outer_size[i] = size[i];
    plan.outer_stride[i] = is_shared[i] ? 0 : stride;
    if (!is_shared[i]) stride *= size[i];
  }
  return plan;
}

}  // namespace spatialdrop

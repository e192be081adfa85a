// The definition written out entry by entry and element by element, on numbers rather than on thresholds.
#include "calls.h"

#include <cstring>

#include "../src/half.h"
#include "../src/philox.h"
#include "../src/threefry.h"

std::string Take(OrtStatus* status) {
  if (status == nullptr) return "";
  const std::string message = status->message;
  fake::Api()->ReleaseStatus(status);
  return message;
}

size_t Count(const std::vector<int64_t>& dims) {
  size_t count = 1;
  for (int64_t dim : dims) count *= static_cast<size_t>(dim);
  return count;
}

const OrtCustomOp* Op(Type type) {
  OrtSessionOptions options;
  CHECK(Take(RegisterCustomOps(&options, fake::Base(18))).empty(), "registration");
  CHECK(options.domains.size() == 1 && options.domains[0]->name == "onnx_spatialdrop", "domain");
  for (const OrtCustomOp* op : options.domains[0]->ops) {
    if (op->GetInputType(op, 0) == kElementTypes[type]) return op;
  }
  CHECK(false, "no op for type %d", type);
}

OrtKernelInfo Info(std::vector<int64_t> axes, float ratio, int64_t seed, const std::string& rng, int64_t strata) {
  return {"drop1",
          {{"axes", axes}, {"ratio", ratio}, {"seed", seed}, {"scale", 0.0f}, {"rng", rng}, {"strata", strata}}};
}

std::vector<int64_t> Call::MaskDims() const {
  std::vector<int64_t> mask = dims;
  for (int64_t axis : axes) mask[static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(dims.size()) : axis)] = 1;
  return mask;
}

OrtKernelInfo Call::Info() const { return ::Info(axes, ratio, seed, rng, strata); }

namespace {

using namespace spatialdrop;

uint64_t Remainder(int64_t value) {
  constexpr int64_t kModulus = 2147483646;
  return static_cast<uint64_t>((value % kModulus + kModulus) % kModulus);
}

uint32_t Word(const Call& call, int64_t step, size_t index) {
  if (call.rng == "keras_jax") {
    const uint64_t key = static_cast<uint64_t>(call.seed & 0xFFFFFFFF) | static_cast<uint64_t>(step) << 32;
    const ThreefryBlock made =
        Threefry2x32(ThreefryKey(key), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(index));
    return made.x0 ^ made.x1;
  }
  Stream stream = {static_cast<uint64_t>(call.seed), static_cast<uint64_t>(step)};
  if (call.rng != "philox") {
    const PhiloxBlock mixed = Philox4x32({0x02461E293EC8F720, Remainder(step)}, Remainder(call.seed));
    stream = {mixed.words[0] | static_cast<uint64_t>(mixed.words[1]) << 32,
              mixed.words[2] | static_cast<uint64_t>(mixed.words[3]) << 32};
  }
  return Philox4x32(stream, index / 4).words[index % 4];
}

// With a rank of its own for each step of a cycle, so that ranks below ratio * strata are dropped, and the one in which
// that number lies is, in part.
bool IsKeptOfCycle(const Call& call, int64_t step, size_t index) {
  const int64_t place = step % call.strata;
  const int64_t order = Word(call, INT64_MIN + step / call.strata, index) % (call.strata * (call.strata - 1));
  const int64_t rank = ((1 + order / call.strata) * place + order % call.strata) % call.strata;
  const double part = static_cast<double>(call.ratio) * static_cast<double>(call.strata) - static_cast<double>(rank);
  return (Word(call, step, index) >> 8) >= part * 0x1p24;
}

bool IsKept(const Call& call, int64_t step, size_t index) {
  if (call.strata != 1) return IsKeptOfCycle(call, step, index);
  const uint32_t word = Word(call, step, index);
  if (call.rng == "philox") return word >> 8 >= static_cast<double>(call.ratio) * 0x1p24;
  if (call.rng == "keras_jax") return word >> 9 < static_cast<float>(1.0 - static_cast<double>(call.ratio)) * 0x1p23;
  float ratio = call.ratio;
  if (call.type == kFloat16) ratio = HalfToFloat(DoubleToHalf(static_cast<double>(ratio)));
  if (call.type == kBFloat16) ratio = BFloat16ToFloat(FloatToBFloat16(ratio));
  const bool upper_bits = call.rng == "keras_tf_xla" && call.type != kFloat16;
  const int bits = upper_bits || call.type == kFloat32 ? 23 : call.type == kFloat16 ? 10 : 7;
  const uint32_t number = (upper_bits ? word >> 9 : word) & ((1u << bits) - 1);
  return number >= static_cast<double>(ratio) * (1 << bits);
}

void Multiply(Type type, const uint8_t* from, double scale, uint8_t* to) {
  if (type == kFloat64) {
    double value;
    memcpy(&value, from, sizeof value);
    value *= scale;
    memcpy(to, &value, sizeof value);
  } else if (type == kFloat32) {
    float value;
    memcpy(&value, from, sizeof value);
    value *= static_cast<float>(scale);
    memcpy(to, &value, sizeof value);
  } else {
    const bool half = type == kFloat16;
    uint16_t bits;
    memcpy(&bits, from, sizeof bits);
    const float factor =
        half ? HalfToFloat(DoubleToHalf(scale)) : BFloat16ToFloat(FloatToBFloat16(static_cast<float>(scale)));
    const float product = (half ? HalfToFloat(bits) : BFloat16ToFloat(bits)) * factor;
    bits = half ? FloatToHalf(product) : FloatToBFloat16(product);
    memcpy(to, &bits, sizeof bits);
  }
}

// Checks every byte of Y and of the mask; `fresh` is the draw that a negative step must have got.
void Verify(const Call& call, const std::vector<uint8_t>& x, const uint8_t* y, const uint8_t* mask, int64_t fresh) {
  const std::vector<int64_t> mask_dims = call.MaskDims();
  const size_t size = kTypeSize[call.type], rank = call.dims.size(), entries = Count(mask_dims);
  const size_t row = call.steps.empty() ? 1 : entries / call.steps.size();
  const double scale = call.ratio == 1.0f ? 1.0 : 1.0 / (1.0 - static_cast<double>(call.ratio));
  const auto kept = [&](size_t entry) {
    if (!call.training) return true;
    const int64_t step = call.steps[entry / row];
    return IsKept(call, step < 0 ? fresh : step, entry % row);
  };
  if (mask != nullptr) {
    for (size_t i = 0; i < entries; ++i) CHECK(mask[i] == (kept(i) ? 1 : 0), "mask entry %zu", i);
  }
  std::vector<int64_t> index(rank, 0);
  for (size_t i = 0; i < Count(call.dims); ++i) {
    size_t entry = 0;
    for (size_t axis = 0; axis < rank; ++axis) {
      const size_t position = mask_dims[axis] == 1 ? 0 : static_cast<size_t>(index[axis]);
      entry = entry * static_cast<size_t>(mask_dims[axis]) + position;
    }
    uint8_t expected[8] = {};
    const uint8_t* from = x.data() + i * size;
    if (!call.training) {
      memcpy(expected, from, size);
    } else if (kept(entry)) {
      Multiply(call.type, from, scale, expected);
    }
    CHECK(memcmp(y + i * size, expected, size) == 0, "element %zu of %zu, type %d, rank %zu", i, Count(call.dims),
          call.type, rank);
    for (size_t axis = rank; axis-- > 0;) {
      if (++index[axis] < call.dims[axis]) break;
      index[axis] = 0;
    }
  }
}

}  // namespace

std::vector<uint8_t> Numbers(Random* random, Type type, size_t count) {
  std::vector<uint8_t> bytes(count * kTypeSize[type]);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(random->Next());
  for (size_t i = kTypeSize[type] - 1; i < bytes.size(); i += kTypeSize[type]) bytes[i] &= 0xBF;
  return bytes;
}

std::string RunOn(const Kernel& kernel, const Call& call, const std::vector<uint8_t>& numbers, int64_t fresh) {
  const size_t bytes = numbers.size();
  const std::vector<int64_t> mask_dims = call.MaskDims();
  Buffer x(bytes), y(bytes), mask(Count(mask_dims)), steps(call.steps.size() * 8), training(1);
  if (bytes != 0) memcpy(x.data, numbers.data(), bytes);
  memset(y.data, 0xCD, bytes);
  if (!call.steps.empty()) memcpy(steps.data, call.steps.data(), call.steps.size() * 8);
  memcpy(training.data, &call.training, 1);
  const OrtValue x_value = {kElementTypes[call.type], call.dims, x.data};
  const OrtValue training_value = {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, {}, training.data};
  const OrtValue step_value = {
      ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {static_cast<int64_t>(call.steps.size())}, steps.data};
  OrtValue y_value = {kElementTypes[call.type], call.dims, call.in_place ? x.data : y.data};
  OrtValue mask_value = {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, mask_dims, mask.data};
  OrtKernelContext context = {{&x_value, &training_value, &step_value}, {&y_value}, call.threads};
  if (call.lists_mask) context.outputs.push_back(call.wants_mask ? &mask_value : nullptr);
  const std::string error = kernel.Run(&context);
  if (error.empty()) {
    const bool masked = call.lists_mask && call.wants_mask;
    Verify(call, numbers, static_cast<uint8_t*>(y_value.data), masked ? static_cast<uint8_t*>(mask.data) : nullptr,
           fresh);
  }
  return error;
}

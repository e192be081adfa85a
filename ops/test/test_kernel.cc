// The custom op through its C interface, as a runtime sees it, against the definition written out element by element.
#include <cstring>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "../src/half.h"
#include "../src/path.h"
#include "check.h"
#include "fake_ort.h"

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

namespace {

using spatialdrop::kTypeSize;
using spatialdrop::Type;

constexpr ONNXTensorElementDataType kElementTypes[] = {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE};

std::string Take(OrtStatus* status) {
  if (status == nullptr) return "";
  const std::string message = status->message;
  fake::Api()->ReleaseStatus(status);
  return message;
}

// Memory of exactly the size asked for, so that sanitizers see a step over either end.
struct Buffer {
  explicit Buffer(size_t bytes) : data(malloc(bytes == 0 ? 1 : bytes)) {}
  ~Buffer() { free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data;
};

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

OrtKernelInfo Info(std::vector<int64_t> axes, float ratio, int64_t seed) {
  return {"drop1", {{"axes", axes}, {"ratio", ratio}, {"seed", seed}, {"scale", 0.0f}, {"rng", std::string("philox")}}};
}

class Kernel {
 public:
  Kernel(Type type, const OrtKernelInfo& info) : op_(Op(type)) {
    error = Take(op_->CreateKernelV2(op_, fake::Api(), &info, &kernel_));
  }
  ~Kernel() {
    if (kernel_ != nullptr) op_->KernelDestroy(kernel_);
  }
  std::string Run(OrtKernelContext* context) const { return Take(op_->KernelComputeV2(kernel_, context)); }
  std::string error;

 private:
  const OrtCustomOp* op_;
  void* kernel_ = nullptr;
};

// One call: inputs, outputs and what the call said.
struct Call {
  Type type = spatialdrop::kFloat32;
  std::vector<int64_t> dims, axes, steps = {0};
  float ratio = 0.5f;
  int64_t seed = 7;
  bool training = true, in_place = false, wants_mask = true, lists_mask = true;
  size_t threads = 2;

  std::vector<int64_t> MaskDims() const {
    std::vector<int64_t> mask = dims;
    for (int64_t axis : axes) mask[static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(dims.size()) : axis)] = 1;
    return mask;
  }
};

// Checks every byte of Y and of the mask; `fresh` is the draw that a negative step must have got.
void Verify(const Call& call, const std::vector<uint8_t>& x, const uint8_t* y, const uint8_t* mask, int64_t fresh) {
  const std::vector<int64_t> mask_dims = call.MaskDims();
  const size_t size = kTypeSize[call.type], rank = call.dims.size(), entries = Count(mask_dims);
  const size_t row = call.steps.empty() ? 1 : entries / call.steps.size();
  const double scale = call.ratio == 1.0f ? 1.0 : 1.0 / (1.0 - static_cast<double>(call.ratio));
  const double threshold = static_cast<double>(call.ratio) * 16777216.0;
  const auto kept = [&](size_t entry) {
    if (!call.training) return true;
    int64_t step = call.steps[entry / row];
    if (step < 0) step = fresh;
    const auto block =
        spatialdrop::Philox4x32({static_cast<uint64_t>(call.seed), static_cast<uint64_t>(step)}, entry % row / 4);
    return static_cast<double>(block.words[entry % row % 4] >> 8) >= threshold;
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
      if (call.type == spatialdrop::kFloat64) {
        double value;
        memcpy(&value, from, sizeof value);
        value *= scale;
        memcpy(expected, &value, sizeof value);
      } else if (call.type == spatialdrop::kFloat32) {
        float value;
        memcpy(&value, from, sizeof value);
        value *= static_cast<float>(scale);
        memcpy(expected, &value, sizeof value);
      } else {
        using namespace spatialdrop;
        const bool half = call.type == kFloat16;
        uint16_t bits;
        memcpy(&bits, from, sizeof bits);
        const float factor =
            half ? HalfToFloat(DoubleToHalf(scale)) : BFloat16ToFloat(FloatToBFloat16(static_cast<float>(scale)));
        const float product = (half ? HalfToFloat(bits) : BFloat16ToFloat(bits)) * factor;
        bits = half ? FloatToHalf(product) : FloatToBFloat16(product);
        memcpy(expected, &bits, sizeof bits);
      }
    }
    CHECK(memcmp(y + i * size, expected, size) == 0, "element %zu of %zu, type %d, rank %zu", i, Count(call.dims),
          call.type, rank);
    for (size_t axis = rank; axis-- > 0;) {
      if (++index[axis] < call.dims[axis]) break;
      index[axis] = 0;
    }
  }
}

// Bytes of small finite numbers of every type: the sign and the top of the exponent are kept apart from NaN and Inf.
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

Call RandomCall(Random* random) {
  Call call;
  call.type = static_cast<Type>(random->Below(4));
  const size_t rank = 1 + random->Below(random->Below(8) == 0 ? 16 : 5);
  size_t room = random->Below(20) == 0 ? 400000 : 6000;
  for (size_t i = 0; i < rank; ++i) {
    const size_t dim =
        random->Below(40) == 0 ? 0 : 1 + random->Below(random->Below(3) == 0 ? room : (room < 12 ? room : 12));
    call.dims.push_back(static_cast<int64_t>(dim));
    room /= dim == 0 ? 1 : dim;
    if (random->Below(2) == 0) {
      const int64_t axis = static_cast<int64_t>(i);
      call.axes.push_back(random->Below(2) == 0 ? axis : axis - static_cast<int64_t>(rank));
    }
  }
  const float ratios[] = {0.0f, 1.0f, 0.2f, 0.5f, 0.9f, 1e-7f};
  call.ratio = ratios[random->Below(6)];
  call.seed = static_cast<int64_t>(random->Next());
  call.training = random->Below(6) != 0;
  call.in_place = random->Below(3) == 0;
  call.wants_mask = random->Below(2) == 0;
  call.lists_mask = random->Below(4) != 0;
  call.threads = 1 + random->Below(3);
  const bool batch_shared = call.MaskDims()[0] != call.dims[0] || (!call.axes.empty() && call.MaskDims()[0] == 1);
  const size_t rows = random->Below(2) == 0 || batch_shared ? 1 : static_cast<size_t>(call.dims[0]);
  call.steps.clear();
  for (size_t i = 0; i < rows; ++i)
    call.steps.push_back(static_cast<int64_t>(random->Next() >> (1 + random->Below(60))));
  return call;
}

void TestRandomCalls(const char* path, int trials) {
  setenv("ONNX_SPATIALDROP_CPU", path, 1);
  Random random(4);
  for (int trial = 0; trial < trials; ++trial) {
    const Call call = RandomCall(&random);
    const Kernel kernel(call.type, Info(call.axes, call.ratio, call.seed));
    CHECK(kernel.error.empty(), "%s", kernel.error.c_str());
    const std::string error = RunOn(kernel, call, Numbers(&random, call.type, Count(call.dims)), 0);
    CHECK(error.empty(), "%s", error.c_str());
  }
  unsetenv("ONNX_SPATIALDROP_CPU");
}

// Past 8 MiB the loops write past the caches.
void TestLargeCalls() {
  Random random(5);
  const std::vector<int64_t> shapes[] = {{3, 64, 50, 311}, {5, 1200, 531}, {600, 777, 7}, {1, 3, 1100000}};
  const std::vector<int64_t> axes[] = {{2, 3}, {1}, {-1}, {0, 2}, {1, 2}};
  for (const auto& shape : shapes) {
    for (const auto& shared : axes) {
      Call call;
      call.dims = shape;
      for (int64_t axis : shared) {
        if (axis < static_cast<int64_t>(shape.size())) call.axes.push_back(axis);
      }
      call.ratio = 0.3f;
      call.wants_mask = random.Below(2) == 0;
      call.in_place = random.Below(2) == 0;
      const Kernel kernel(call.type, Info(call.axes, call.ratio, call.seed));
      CHECK(RunOn(kernel, call, Numbers(&random, call.type, Count(call.dims)), 0).empty(), "large call");
    }
  }
}

void Expect(const std::string& said, const char* text) {
  CHECK(said.find(text) != std::string::npos, "said '%s', not '%s'", said.c_str(), text);
  CHECK(said.find("node 'drop1'") == 0, "'%s' does not begin with the node", said.c_str());
}

void TestRefusedAttributes() {
  const auto refused = [](OrtKernelInfo info) { return Kernel(spatialdrop::kFloat32, info).error; };
  const auto with = [](const char* name, decltype(OrtKernelInfo::attributes)::mapped_type value) {
    OrtKernelInfo info = Info({1}, 0.5f, 7);
    info.attributes[name] = value;
    return info;
  };
  const auto without = [](const char* name) {
    OrtKernelInfo info = Info({1}, 0.5f, 7);
    info.attributes.erase(name);
    return info;
  };
  Expect(refused(with("ratio", 1.5f)), "ratio is 1.5; it must lie in [0, 1]");
  Expect(refused(with("ratio", -0.1f)), "it must lie in [0, 1]");
  Expect(refused(with("ratio", 0.0f / 0.0f)), "nan; it must lie in [0, 1]");
  Expect(refused(with("ratio", int64_t{1})), "ratio is missing or not a FLOAT");
  Expect(refused(without("ratio")), "ratio is missing");
  Expect(refused(without("seed")), "seed is missing");
  Expect(refused(without("axes")), "axes is missing");
  Expect(refused(with("axes", std::vector<int64_t>{1, 1})), "axes [1, 1] name an axis twice");
  Expect(refused(with("axes", std::vector<int64_t>{-17})), "axes [-17] exceed the largest rank, 16");
  Expect(refused(with("axes", std::vector<int64_t>{INT64_MIN, INT64_MAX})), "exceed the largest rank");
  Expect(refused(with("axes", std::vector<int64_t>(17, 0))), "axes has 17 elements; the largest rank is 16");
  Expect(refused(with("scale", int64_t{1})), "scale is not a FLOAT");
  Expect(refused(with("rng", std::string("threefry"))), "rng is 'threefry'; this version knows 'philox'");
  Expect(refused(with("rng", std::string(5000, 'x'))), "this version knows 'philox'");
  Expect(refused(with("rng", 1.0f)), "rng is not a STRING");
  CHECK(refused(without("scale")).empty() && refused(without("rng")).empty(), "defaults");
  OrtKernelInfo long_name = Info({1}, 2.0f, 7);
  long_name.name = std::string(3000, 'n');
  CHECK(refused(long_name).find("ratio is 2") != std::string::npos, "long name");
}

void TestRefusedInputs() {
  Random random(6);
  const auto refused = [&](std::vector<int64_t> dims, std::vector<int64_t> axes, std::vector<int64_t> steps) {
    Call call;
    call.dims = dims;
    call.steps = steps;
    const Kernel kernel(call.type, Info(axes, 0.5f, 7));
    return RunOn(kernel, call, Numbers(&random, call.type, Count(dims)), 0);
  };
  Expect(refused({}, {0}, {0}), "X has rank 0; ranks 1 to 16 are allowed");
  Expect(refused(std::vector<int64_t>(17, 1), {0}, {0}), "X has rank 17");
  Expect(refused({2, 3}, {2}, {0}), "axis 2 is out of range for rank 2; allowed: [-2, 1]");
  Expect(refused({2, 3}, {1, -1}, {0}), "axis -1 of a rank-2 tensor is named twice");
  Expect(refused({4, 3}, {1}, {0, 1}), "step has 2 elements; allowed: 1, or 4 (the size of X's dim 0)");
  Expect(refused({4, 3}, {1}, {}), "step has 0 elements");
  Expect(refused({4, 3}, {0}, {0, 1, 2, 3}), "step has 4 elements but axis 0 is shared; give it one element");
  Expect(refused({2, 3}, {1}, {0, -1}), "step[1] is -1; in a step of several elements none may be negative");
}

void TestFreshDraws() {
  Random random(7);
  Call call;
  call.dims = {8, 16};
  call.axes = {};
  call.steps = {-5};
  const Kernel kernel(call.type, Info(call.axes, call.ratio, call.seed));
  for (int64_t run = 0; run < 3; ++run) {
    CHECK(RunOn(kernel, call, Numbers(&random, call.type, 128), run).empty(), "fresh draw");
    // Neither inference nor a given step takes a number.
    Call other = call;
    other.training = false;
    CHECK(RunOn(kernel, other, Numbers(&random, call.type, 128), 0).empty(), "inference");
    other = call;
    other.steps = {99};
    CHECK(RunOn(kernel, other, Numbers(&random, call.type, 128), 0).empty(), "given step");
  }
}

void TestConcurrentRuns() {
  constexpr int kThreads = 4, kRuns = 50;
  const Kernel kernel(spatialdrop::kFloat32, Info({}, 0.5f, 7));
  std::vector<std::string> masks(kThreads * kRuns), errors(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int run = 0; run < kRuns; ++run) {
        std::vector<float> x(64, 1.0f), y(64);
        std::string mask(64, '?');
        bool training = true;
        int64_t step = -1;
        const OrtValue x_value = {kElementTypes[2], {64}, x.data()},
                       training_value = {kElementTypes[0], {1, 1}, &training};
        const OrtValue step_value = {kElementTypes[0], {}, &step};
        OrtValue y_value = {kElementTypes[2], {64}, y.data()}, mask_value = {kElementTypes[0], {64}, mask.data()};
        OrtKernelContext context = {{&x_value, &training_value, &step_value}, {&y_value, &mask_value}, 1};
        errors[static_cast<size_t>(t)] += kernel.Run(&context);
        masks[static_cast<size_t>(t * kRuns + run)] = mask;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors) CHECK(error.empty(), "concurrent run: %s", error.c_str());
  CHECK(std::set<std::string>(masks.begin(), masks.end()).size() == masks.size(), "two runs drew alike");
}

// Whatever call of the runtime fails, the kernel passes it on and gives back what it holds.
void TestInjectedFailures() {
  Random random(8);
  Call call;
  call.dims = {4, 70000};
  call.axes = {1};
  const std::vector<uint8_t> numbers = Numbers(&random, call.type, Count(call.dims));
  const Kernel kernel(call.type, Info(call.axes, call.ratio, call.seed));
  int failed = 0;
  for (int calls = 0;; ++calls) {
    fake::FailAfter(calls);
    const std::string error = RunOn(kernel, call, numbers, 0);
    fake::FailAfter(-1);
    CHECK(fake::Outstanding() == 0, "%d objects leaked after call %d", fake::Outstanding(), calls);
    if (error.empty()) break;
    CHECK(error == "injected", "%s", error.c_str());
    ++failed;
  }
  CHECK(failed > 15, "only %d calls can fail", failed);
  const OrtCustomOp* op = Op(call.type);
  const OrtKernelInfo info = Info(call.axes, call.ratio, call.seed);
  for (int calls = 0; calls < 20; ++calls) {
    void* created = nullptr;
    fake::FailAfter(calls);
    const std::string error = Take(op->CreateKernelV2(op, fake::Api(), &info, &created));
    fake::FailAfter(-1);
    CHECK(error.empty() == (created != nullptr), "kernel or error");
    if (created != nullptr) op->KernelDestroy(created);
    CHECK(fake::Outstanding() == 0, "leak in creation after call %d", calls);
  }
}

void TestShapeInference() {
  const OrtCustomOp* op = Op(spatialdrop::kFloat32);
  const auto inferred = [&](std::vector<int64_t> dims, std::vector<std::string> names) {
    OrtShapeInferContext context = {{dims, names}, false, {}};
    CHECK(Take(op->InferOutputShapeFn(op, &context)).empty(), "shape inference");
    CHECK(!context.was_set || context.output.dims == dims, "shape");
    return context.was_set;
  };
  CHECK(inferred({2, 3}, {"", ""}), "known");
  CHECK(inferred({-1, 3}, {"N", ""}), "named");
  CHECK(!inferred({-1, 3}, {"", ""}), "anonymous");
  CHECK(!inferred({}, {}), "unknown rank");
  CHECK(!inferred(std::vector<int64_t>(40, 1), std::vector<std::string>(40)), "rank 40");
}

void TestOldRuntime() {
  OrtSessionOptions options;
  const std::string said = Take(RegisterCustomOps(&options, fake::Base(17)));
  CHECK(said == "onnx_spatialdrop needs ONNX Runtime 1.18 or newer; this is 1.17.3", "%s", said.c_str());
  CHECK(options.domains.empty(), "registered with an old runtime");
}

void TestRegistrationFailures() {
  // The first registration of all, so that each step of it can fail; a later one must start over cleanly.
  for (int calls = 0; calls < 6; ++calls) {
    OrtSessionOptions options;
    fake::FailAfter(calls);
    const std::string error = Take(RegisterCustomOps(&options, fake::Base(18)));
    fake::FailAfter(-1);
    CHECK(error == "injected" && options.domains.empty(), "registration, call %d", calls);
  }
  OrtSessionOptions one, two;
  CHECK(Take(RegisterCustomOps(&one, fake::Base(18))).empty(), "registration");
  CHECK(Take(RegisterCustomOps(&two, fake::Base(18))).empty(), "registration");
  CHECK(one.domains == two.domains && one.domains[0]->ops.size() == 4, "one set of ops");
}

}  // namespace

void TestKernel() {
  TestRegistrationFailures();
  TestOldRuntime();
  TestRefusedAttributes();
  TestRefusedInputs();
  TestFreshDraws();
  TestConcurrentRuns();
  TestInjectedFailures();
  TestShapeInference();
  const char* scale = getenv("NATIVE_HARNESS_CALLS");
  const int calls = scale == nullptr ? 1500 : atoi(scale);
  for (const char* path : {"portable", "avx2", "avx512"}) TestRandomCalls(path, calls);
  if (calls >= 1000) TestLargeCalls();
  CHECK(fake::Outstanding() == 0, "%d objects leaked", fake::Outstanding());
}

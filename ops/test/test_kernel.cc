// The custom op as a runtime uses it: any shapes, from several threads, with failing calls, on old runtimes.
#include <cstring>
#include <set>
#include <thread>

#include "calls.h"

namespace {

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
  const float ratios[] = {0.0f, 1.0f, 0.2f, 0.5f, 0.9f, 1e-7f, 0.999f};
  call.ratio = ratios[random->Below(7)];
  call.seed = static_cast<int64_t>(random->Next());
  const char* rngs[] = {"philox", "philox", "keras_jax", "keras_tf", "keras_tf_xla"};
  call.rng = rngs[random->Below(call.type == spatialdrop::kFloat64 ? 3 : 5)];
  const int64_t strata[] = {1, 3, 31, 127};
  if (call.rng == "philox") call.strata = strata[random->Below(4)];
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
  SetVariable("ONNX_SPATIALDROP_CPU", path);
  Random random(4);
  for (int trial = 0; trial < trials; ++trial) {
    const Call call = RandomCall(&random);
    const Kernel kernel(call.type, call.Info());
    CHECK(kernel.error.empty(), "%s", kernel.error.c_str());
    const std::string error = RunOn(kernel, call, Numbers(&random, call.type, Count(call.dims)), 0);
    CHECK(error.empty(), "%s", error.c_str());
  }
  SetVariable("ONNX_SPATIALDROP_CPU", "");
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
      const Kernel kernel(call.type, call.Info());
      CHECK(RunOn(kernel, call, Numbers(&random, call.type, Count(call.dims)), 0).empty(), "large call");
    }
  }
}

void TestFreshDraws(int64_t strata) {
  Random random(7);
  Call call;
  call.dims = {8, 16};
  call.axes = {};
  call.steps = {-5};
  call.strata = strata;
  const int64_t sequence = 4 * ((1 << 20) / strata * strata);  // where the draws of step -5 begin
  const Kernel kernel(call.type, call.Info());
  CHECK(kernel.error.empty(), "%s", kernel.error.c_str());
  for (int64_t run = 0; run < 3; ++run) {
    CHECK(RunOn(kernel, call, Numbers(&random, call.type, 128), sequence + run).empty(), "fresh draw");
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
  const Kernel kernel(call.type, call.Info());
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
  const OrtKernelInfo info = call.Info();
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
  const size_t all = spatialdrop::kTypeCount + 1;  // one for each type, and the one that draws masks
  CHECK(one.domains == two.domains && one.domains[0]->ops.size() == all, "one set of ops");
}

}  // namespace

void TestKernel() {
  TestRegistrationFailures();
  TestOldRuntime();
  for (const int64_t strata : {1, 3, 31, 127}) TestFreshDraws(strata);
  TestConcurrentRuns();
  TestInjectedFailures();
  TestShapeInference();
  const char* scale = getenv("NATIVE_HARNESS_CALLS");
  const int calls = scale == nullptr ? 1500 : atoi(scale);
  for (const char* path : {"portable", "avx2", "avx512"}) TestRandomCalls(path, calls);
  if (calls >= 1000) TestLargeCalls();
  CHECK(fake::Outstanding() == 0, "%d objects leaked", fake::Outstanding());
}

// What the kernel refuses, and that it says which node and what is allowed.
#include "calls.h"

namespace {

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
  Expect(refused(with("rng", std::string("threefry"))),
         "rng is 'threefry'; this version knows 'philox', 'keras_tf', 'keras_tf_xla', 'keras_jax'");
  Expect(refused(with("rng", std::string(5000, 'x'))), "this version knows 'philox'");
  Expect(refused(with("rng", 1.0f)), "rng is not a STRING");
  for (const char* rng : {"keras_tf", "keras_tf_xla"}) {
    const std::string said = Kernel(spatialdrop::kFloat64, with("rng", std::string(rng))).error;
    Expect(said, "draws no masks for X of type float64; allowed with it: float16, bfloat16, float32; cast X to one");
    CHECK(refused(with("rng", std::string(rng))).empty(), "%s", rng);
  }
  for (const int64_t strata : {0, -31, 2, 4, 121, 131}) {
    Expect(refused(with("strata", strata)), "it must be 1 or a prime number from 3 to 127");
  }
  Expect(refused(with("strata", INT64_MAX)), "strata is 9223372036854775807; it must be 1 or a prime number");
  Expect(refused(with("strata", 31.0f)), "strata is not an INT; give 1 or a prime number from 3 to 127");
  Expect(Kernel(spatialdrop::kFloat32, Info({1}, 0.5f, 7, "keras_jax", 31)).error,
         "strata is 31, but rng 'keras_jax' draws as its framework does; use strata 1, or rng 'philox'");
  CHECK(refused(without("scale")).empty() && refused(without("rng")).empty(), "defaults");
  CHECK(refused(without("strata")).empty() && refused(with("strata", int64_t{127})).empty(), "strata");
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

}  // namespace

void TestRefusals() {
  TestRefusedAttributes();
  TestRefusedInputs();
}

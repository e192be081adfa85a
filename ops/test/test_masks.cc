// The op that draws the masks of many nodes at once: each node's entries are those that the node's own kernel drops.
#include <cstring>

#include "../src/dialects.h"
#include "calls.h"

namespace {

using namespace spatialdrop;
using Ints = std::vector<int64_t>;

// Some nodes of any sizes, and the call that draws their masks.
struct Nodes {
  Ints seeds, strata, rngs, types, ranks, inner;
  std::vector<float> ratios;
  std::vector<Ints> shapes;  // of each mask, without its rows
  int64_t rows = 0, width = 0;
  Ints steps = {0};
  bool training = true;

  OrtKernelInfo Info() const {
    // Rows are read from axis 1 of the second source, the rest are numbers.
    return {"masks",
            {{"seeds", seeds},
             {"strata", strata},
             {"rngs", rngs},
             {"types", types},
             {"ratios", ratios},
             {"rows", int64_t{-1 - (16 + 1)}},
             {"ranks", ranks},
             {"inner", inner}}};
  }
};

Nodes RandomNodes(Random* random) {
  Nodes nodes;
  nodes.rows = static_cast<int64_t>(random->Below(5));
  for (size_t count = 1 + random->Below(5); count > 0; --count) {
    const size_t rng = random->Below(4), type = random->Below(4);
    if (kDialects[rng].tests[type].bits == 0) continue;
    const Ints primes = {1, 3, 31, 127};
    nodes.seeds.push_back(static_cast<int64_t>(random->Next()));
    nodes.strata.push_back(rng == 0 ? primes[random->Below(4)] : 1);
    nodes.rngs.push_back(static_cast<int64_t>(rng));
    nodes.types.push_back(static_cast<int64_t>(type));
    nodes.ratios.push_back(static_cast<float>(random->Below(5)) / 4);
    Ints shape(random->Below(3));
    for (int64_t& size : shape) size = static_cast<int64_t>(random->Below(20));
    nodes.ranks.push_back(static_cast<int64_t>(shape.size()));
    nodes.inner.insert(nodes.inner.end(), shape.begin(), shape.end());
    nodes.width += static_cast<int64_t>(Count(shape));
    nodes.shapes.push_back(shape);
  }
  if (nodes.seeds.empty()) return RandomNodes(random);
  if (nodes.inner.empty()) nodes.inner.push_back(1);
  nodes.training = random->Below(4) != 0;
  const size_t kind = random->Below(3);
  if (kind == 0) nodes.steps = {-1 - static_cast<int64_t>(random->Below(3))};
  if (kind == 1) nodes.steps = {static_cast<int64_t>(random->Next() >> 1)};
  if (kind == 2) nodes.steps.resize(static_cast<size_t>(nodes.rows));
  for (int64_t& step : nodes.steps) step = kind == 2 ? static_cast<int64_t>(random->Next() >> 1) : step;
  return nodes;
}

const OrtCustomOp* Find() {
  OrtSessionOptions options;
  CHECK(Take(RegisterCustomOps(&options, fake::Base(18))).empty(), "registration");
  for (const OrtCustomOp* op : options.domains[0]->ops) {
    if (strcmp(op->GetName(op), "SpatialDropoutMasks") == 0) return op;
  }
  CHECK(false, "no op that draws masks");
}

// Found once, so that no call that was told to fail looks for it.
const OrtCustomOp* MasksOp() {
  static const OrtCustomOp* const op = Find();
  return op;
}

// Runs the op; returns what it said.
std::string Drawn(void* kernel, const Nodes& nodes, uint8_t* dropped, bool* passed_on) {
  bool training = nodes.training;
  Ints steps = nodes.steps;
  const OrtValue switch_value = {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, {1}, &training};
  const OrtValue step_value = {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {static_cast<int64_t>(steps.size())}, steps.data()};
  const OrtValue first = {kElementTypes[2], {}, nullptr}, second = {kElementTypes[2], {9, nodes.rows}, nullptr};
  OrtValue entries = {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, {nodes.rows * nodes.width}, dropped};
  OrtValue scalar = {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, {}, passed_on};
  OrtKernelContext context = {{&switch_value, &step_value, &first, &second}, {&entries, &scalar}, 1};
  return Take(MasksOp()->KernelComputeV2(kernel, &context));
}

// The mask of node `i` by the kernel of its own.
std::vector<uint8_t> Own(const Nodes& nodes, size_t i) {
  Ints dims = {nodes.rows};
  dims.insert(dims.end(), nodes.shapes[i].begin(), nodes.shapes[i].end());
  const auto type = static_cast<Type>(nodes.types[i]);
  const Kernel kernel(type, Info({}, nodes.ratios[i], nodes.seeds[i], kDialects[nodes.rngs[i]].name, nodes.strata[i]));
  CHECK(kernel.error.empty(), "%s", kernel.error.c_str());
  bool training = nodes.training;
  Ints steps = nodes.steps;
  std::vector<uint8_t> mask(Count(dims) + 1);
  std::vector<uint8_t> x(Count(dims) * kTypeSize[type] + 1), y(x.size());
  const OrtValue x_value = {kElementTypes[type], dims, x.data()}, training_value = {kElementTypes[0], {}, &training};
  const OrtValue step_value = {kElementTypes[0], {static_cast<int64_t>(steps.size())}, steps.data()};
  OrtValue y_value = {kElementTypes[type], dims, y.data()}, mask_value = {kElementTypes[0], dims, mask.data()};
  OrtKernelContext context = {{&x_value, &training_value, &step_value}, {&y_value, &mask_value}, 1};
  const std::string said = kernel.Run(&context);
  CHECK(said.empty(), "%s", said.c_str());
  return mask;
}

void TestRandomNodes(int calls) {
  Random random(11);
  for (int call = 0; call < calls; ++call) {
    const Nodes nodes = RandomNodes(&random);
    const OrtKernelInfo info = nodes.Info();
    void* kernel = nullptr;
    const std::string error = Take(MasksOp()->CreateKernelV2(MasksOp(), fake::Api(), &info, &kernel));
    CHECK(error.empty(), "%s", error.c_str());
    const auto width = static_cast<size_t>(nodes.width);
    const Buffer dropped(static_cast<size_t>(nodes.rows) * width);
    const auto* bytes = static_cast<const uint8_t*>(dropped.data);
    bool passed_on = !nodes.training;
    const std::string said = Drawn(kernel, nodes, static_cast<uint8_t*>(dropped.data), &passed_on);
    CHECK(said.empty(), "%s", said.c_str());
    CHECK(passed_on == nodes.training, "training_mode");
    size_t at = 0;
    for (size_t i = 0; i < nodes.seeds.size(); ++i) {
      const std::vector<uint8_t> mask = Own(nodes, i);
      const size_t length = Count(nodes.shapes[i]);
      for (size_t row = 0; row < static_cast<size_t>(nodes.rows); ++row) {
        for (size_t entry = 0; entry < length; ++entry) {
          const uint8_t got = bytes[row * width + at + entry];
          CHECK(got == !mask[row * length + entry], "call %d, node %zu, row %zu, entry %zu", call, i, row, entry);
        }
      }
      at += length;
    }
    MasksOp()->KernelDestroy(kernel);
  }
}

Nodes Two() {
  Nodes nodes;
  nodes.seeds = {1, 2};
  nodes.strata = {1, 31};
  nodes.rngs = nodes.types = {0, 0};
  nodes.ratios = {0.5f, 0.25f};
  nodes.ranks = {1, 0};
  nodes.inner = {3};
  nodes.shapes = {{3}, {}};
  nodes.rows = 2;
  nodes.width = 4;
  return nodes;
}

void TestFailures() {
  for (int calls = 0;; ++calls) {
    const Nodes nodes = Two();
    const OrtKernelInfo info = nodes.Info();
    const OrtCustomOp* op = MasksOp();
    void* kernel = nullptr;
    bool passed_on = false;
    uint8_t dropped[8];
    fake::FailAfter(calls);
    std::string error = Take(op->CreateKernelV2(op, fake::Api(), &info, &kernel));
    fake::FailAfter(-1);
    CHECK(error.empty() == (kernel != nullptr), "kernel or error");
    CHECK(fake::Outstanding() == 0, "leak in creation after call %d", calls);
    if (kernel == nullptr) continue;
    for (int left = 0;; ++left) {
      fake::FailAfter(left);
      error = Drawn(kernel, nodes, dropped, &passed_on);
      fake::FailAfter(-1);
      CHECK(fake::Outstanding() == 0, "leak in a run after call %d", left);
      if (error.empty()) break;
    }
    op->KernelDestroy(kernel);
    return;
  }
}

void TestRefused() {
  const auto refused = [](const char* name, decltype(OrtKernelInfo::attributes)::mapped_type value) {
    OrtKernelInfo info = Two().Info();
    info.attributes[name] = value;
    void* kernel = nullptr;
    const std::string said = Take(MasksOp()->CreateKernelV2(MasksOp(), fake::Api(), &info, &kernel));
    CHECK(kernel == nullptr && !said.empty(), "%s", name);
  };
  for (const char* name : {"seeds", "strata", "rngs", "types", "ranks"}) refused(name, Ints{});
  for (const int64_t number : {int64_t{-1}, int64_t{4}, INT64_MAX}) {
    for (const char* name : {"strata", "rngs", "types"}) refused(name, Ints{1, number});
  }
  refused("ranks", Ints{1, 1});
  refused("ranks", Ints{-1, 0});
  refused("ratios", std::vector<float>{0.5f, 1.5f});
  refused("ratios", std::vector<float>{0.5f});
  const auto fails = [](Nodes nodes) {
    const OrtKernelInfo info = nodes.Info();
    void* kernel = nullptr;
    CHECK(Take(MasksOp()->CreateKernelV2(MasksOp(), fake::Api(), &info, &kernel)).empty(), "kernel");
    uint8_t dropped[8];
    bool passed_on = false;
    CHECK(!Drawn(kernel, nodes, dropped, &passed_on).empty(), "a run that has to fail");
    MasksOp()->KernelDestroy(kernel);
  };
  Nodes nodes = Two();
  for (const Ints& steps : {Ints{}, Ints{1, 2, 3}, Ints{1, -1}}) {
    nodes.steps = steps;
    fails(nodes);
  }
  for (const int64_t size : {INT64_MAX, int64_t{-1 - 16 * 1 - 5}, int64_t{-1}}) {  // too large, no such axis, a scalar
    nodes = Two();
    nodes.inner = {size};
    fails(nodes);
  }
}

}  // namespace

void TestMasks() {
  const char* scale = getenv("NATIVE_HARNESS_CALLS");
  TestRandomNodes(scale == nullptr ? 500 : atoi(scale) / 3);
  TestFailures();
  TestRefused();
  CHECK(fake::Outstanding() == 0, "%d objects leaked", fake::Outstanding());
}

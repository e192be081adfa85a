// Runs node tests in ONNX Runtime with no Python: each case's model on its inputs, and its outputs bit by bit.
//
//   g++ -std=c++17 -O2 -o node_tests node_tests.cc -ldl
//   ./node_tests libonnxruntime.so.1.N libonnx_spatialdrop.so ../node_tests/test_*
//
// Give - for the second where the runtime has the operator, or the models carry it. Prints a line a case that is wrong
// and a count; the exit code is 1 if one is. Who has ONNX Runtime's header uses the names of OrtApi: no package
// installs it, so its functions stand here by their place in that struct, which never changes.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

enum Slot {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSession = 7,
  kRun = 9,
  kCreateSessionOptions = 10,
  kRegisterCustomOpsLibrary = 29,
  kCreateTensor = 49,
  kGetTensorData = 51,
  kGetElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTypeAndShape = 65,
  kCreateCpuMemoryInfo = 69,
  kReleaseStatus = 93,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseTypeAndShape = 99,
};
const void* const* api;

template <class... Arguments>
void Call(Slot slot, Arguments... arguments) {
  if (void* status = reinterpret_cast<void* (*)(Arguments...)>(const_cast<void*>(api[slot]))(arguments...)) {
    const std::string text = reinterpret_cast<const char* (*)(void*)>(const_cast<void*>(api[kGetErrorMessage]))(status);
    reinterpret_cast<void (*)(void*)>(const_cast<void*>(api[kReleaseStatus]))(status);
    throw std::runtime_error(text);
  }
}

void Release(Slot slot, void* object) { reinterpret_cast<void (*)(void*)>(const_cast<void*>(api[slot]))(object); }

struct Tensor {
  std::vector<int64_t> dims;
  int type = 0;  // ONNX Runtime's numbers are those of TensorProto
  std::string name, data;
};

// Reads the wire format: a message is a row of (number and kind, content).
class Wire {
 public:
  explicit Wire(const std::string& bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}
  bool More() const { return at_ != end_; }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      if (at_ == end_ || shift > 63) throw std::runtime_error("no valid protobuf");
      const uint8_t byte = static_cast<uint8_t>(*at_++);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
  }
  std::string Bytes() {
    const uint64_t size = Varint();
    if (size > static_cast<uint64_t>(end_ - at_)) throw std::runtime_error("no valid protobuf");
    at_ += size;
    return std::string(at_ - size, at_);
  }

 private:
  const char *at_, *end_;
};

std::string Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("no file " + path.string());
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Reads an onnx.TensorProto of raw data, as onnx writes node tests.
Tensor ReadTensor(const fs::path& path) {
  const std::string bytes = Read(path);
  Tensor tensor;
  for (Wire wire(bytes); wire.More();) {
    const uint64_t key = wire.Varint();
    const std::string content = key % 8 == 2 ? wire.Bytes() : "";
    if (key == 8)
      tensor.dims.push_back(static_cast<int64_t>(wire.Varint()));  // dims, one by one
    else if (key == 10)
      for (Wire dims(content); dims.More();) tensor.dims.push_back(static_cast<int64_t>(dims.Varint()));
    else if (key == 16)
      tensor.type = static_cast<int>(wire.Varint());
    else if (key == 66)
      tensor.name = content;
    else if (key == 74)
      tensor.data = content;
    else if (key % 8 != 2)
      throw std::runtime_error(path.string() + ": a field that this program does not read");
  }
  return tensor;
}

std::vector<Tensor> ReadAll(const fs::path& folder, const std::string& kind) {
  std::vector<Tensor> tensors;
  for (int i = 0; fs::exists(folder / (kind + "_" + std::to_string(i) + ".pb")); ++i) {
    tensors.push_back(ReadTensor(folder / (kind + "_" + std::to_string(i) + ".pb")));
  }
  return tensors;
}

// Bytes of an element and what an infinity looks like in it: what lies above is a NaN.
struct Kind {
  size_t bytes;
  uint64_t infinity;
};
Kind KindOf(int type) {
  switch (type) {
    case 1:
      return {4, 0x7F800000};
    case 10:
      return {2, 0x7C00};
    case 11:
      return {8, 0x7FF0000000000000};
    case 16:
      return {2, 0x7F80};
    default:
      return {1, ~uint64_t{0}};  // bool
  }
}

bool Equal(const std::string& got, const std::string& wanted, const Kind& kind) {
  if (got.size() != wanted.size()) return false;
  const uint64_t magnitude = (uint64_t{1} << (8 * kind.bytes - 1)) - 1;
  for (size_t i = 0; i < got.size(); i += kind.bytes) {
    uint64_t a = 0, b = 0;
    std::memcpy(&a, &got[i], kind.bytes);
    std::memcpy(&b, &wanted[i], kind.bytes);
    if (a != b && ((a & magnitude) <= kind.infinity || (b & magnitude) <= kind.infinity)) return false;
  }
  return true;
}

Tensor Content(void* value) {
  Tensor tensor;
  void* info = nullptr;
  Call(kGetTypeAndShape, value, &info);
  size_t rank = 0, count = 1;
  Call(kGetElementType, info, &tensor.type);
  Call(kGetDimensionsCount, info, &rank);
  tensor.dims.resize(rank);
  Call(kGetDimensions, info, tensor.dims.data(), rank);
  Release(kReleaseTypeAndShape, info);
  for (const int64_t dim : tensor.dims) count *= static_cast<size_t>(dim);
  char* data = nullptr;
  Call(kGetTensorData, value, &data);
  if (count != 0) tensor.data.assign(data, count * KindOf(tensor.type).bytes);
  return tensor;
}

// Returns what is wrong with one case; nothing where all is right.
std::string Fault(const fs::path& folder, void* env, void* options, void* memory) {
  void* session = nullptr;
  Call(kCreateSession, env, (folder / "model.onnx").c_str(), options, &session);
  std::vector<Tensor> inputs = ReadAll(folder / "test_data_set_0", "input");
  const std::vector<Tensor> wanted = ReadAll(folder / "test_data_set_0", "output");
  std::vector<const char*> names, outputs;
  std::vector<void*> feeds(inputs.size()), got(wanted.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    Tensor& input = inputs[i];
    names.push_back(input.name.c_str());
    Call(kCreateTensor, memory, input.data.data(), input.data.size(), input.dims.data(), input.dims.size(), input.type,
         &feeds[i]);
  }
  for (const Tensor& output : wanted) outputs.push_back(output.name.c_str());
  Call(kRun, session, static_cast<void*>(nullptr), names.data(), feeds.data(), feeds.size(), outputs.data(),
       outputs.size(), got.data());
  std::string fault;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Tensor found = Content(got[i]);
    if (found.type != wanted[i].type || found.dims != wanted[i].dims)
      fault = "type or shape of " + wanted[i].name;
    else if (!Equal(found.data, wanted[i].data, KindOf(found.type)))
      fault = "values of " + wanted[i].name;
    Release(kReleaseValue, got[i]);
  }
  for (void* feed : feeds) Release(kReleaseValue, feed);
  Release(kReleaseSession, session);
  return fault;
}

const void* const* OpenApi(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  void* base = library == nullptr ? nullptr : dlsym(library, "OrtGetApiBase");
  if (base == nullptr) throw std::runtime_error(std::string(path) + " is no ONNX Runtime");
  struct Base {
    const void* const* (*get_api)(uint32_t);
  };
  const void* const* found = reinterpret_cast<const Base* (*)()>(base)()->get_api(18);
  if (found == nullptr) throw std::runtime_error("ONNX Runtime is older than 1.18");
  return found;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) {
    std::fprintf(stderr, "usage: node_tests ONNXRUNTIME SPATIALDROP|- CASE...\n");
    return 2;
  }
  int wrong = 0;
  try {
    api = OpenApi(arguments[1]);
    void *env = nullptr, *options = nullptr, *memory = nullptr, *library = nullptr;
    Call(kCreateEnv, 3, "node_tests", &env);
    Call(kCreateSessionOptions, &options);
    if (std::strcmp(arguments[2], "-") != 0) Call(kRegisterCustomOpsLibrary, options, arguments[2], &library);
    Call(kCreateCpuMemoryInfo, 1, 0, &memory);
    for (int i = 3; i < count; ++i) {
      std::string fault;
      try {
        fault = Fault(arguments[i], env, options, memory);
      } catch (const std::exception& error) {
        fault = error.what();
      }
      if (!fault.empty()) std::printf("%s: %s\n", arguments[i], fault.c_str());
      wrong += !fault.empty();
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  std::printf("%d cases, %d wrong\n", count - 3, wrong);
  return wrong != 0;
}

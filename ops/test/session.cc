// Runs a model in a real ONNX Runtime with the library beside it, where no Python is at hand: under an emulator, say.
//   session ONNXRUNTIME LIBRARY MODEL X Y DIM...
// MODEL has inputs x (float, DIM...), training_mode and step and an output y; X and Y are files of x's and y's bytes.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../include/ort_c_api_prefix.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
void* Open(const char* path) { return reinterpret_cast<void*>(LoadLibraryA(path)); }
void* Find(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}
void Close(void* library) { FreeLibrary(static_cast<HMODULE>(library)); }
std::string Why() { return "error " + std::to_string(GetLastError()); }
#else
#include <dlfcn.h>
void* Open(const char* path) { return dlopen(path, RTLD_NOW); }
void* Find(void* library, const char* name) { return dlsym(library, name); }
void Close(void* library) { dlclose(library); }
std::string Why() { return dlerror(); }
#endif

namespace {

// Slots of OrtApi that only a program with sessions calls.
enum Slot {
  kCreateEnv = 3,
  kCreateSessionFromArray = 8,
  kRun = 9,
  kCreateSessionOptions = 10,
  kCreateTensorWithDataAsOrtValue = 49,
  kCreateCpuMemoryInfo = 69,
  kReleaseEnv = 92,
  kReleaseSession = 95,
  kReleaseSessionOptions = 100,
};

void Fail(const std::string& message) {
  fprintf(stderr, "%s\n", message.c_str());
  exit(1);
}

std::string Read(const char* path) {
  FILE* file = fopen(path, "rb");
  if (file == nullptr) Fail(std::string("no file ") + path);
  std::string bytes;
  char block[4096];
  for (size_t got; (got = fread(block, 1, sizeof block, file)) > 0;) bytes.append(block, got);
  fclose(file);
  return bytes;
}

void* Loaded(const char* path) {
  void* library = Open(path);
  if (library == nullptr) Fail(std::string("cannot load ") + path + ": " + Why());
  return library;
}

const OrtApi* api;

template <class... Arguments>
void Call(Slot slot, Arguments... arguments) {
  auto* function = reinterpret_cast<OrtStatus* (*)(Arguments...)>(reinterpret_cast<void* const*>(api)[slot]);
  if (OrtStatus* status = function(arguments...)) Fail(api->GetErrorMessage(status));
}

void Release(Slot slot, void* object) {
  reinterpret_cast<void (*)(void*)>(reinterpret_cast<void* const*>(api)[slot])(object);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 7) Fail("usage: session ONNXRUNTIME LIBRARY MODEL X Y DIM...");
  const auto base = reinterpret_cast<const OrtApiBase* (*)()>(Find(Loaded(arguments[1]), "OrtGetApiBase"))();
  printf("ONNX Runtime %s\n", base->GetVersionString());
  api = base->GetApi(kOrtApiVersion);
  void *env = nullptr, *session = nullptr, *memory = nullptr;
  OrtSessionOptions* options = nullptr;
  Call(kCreateEnv, 3, "session", &env);
  Call(kCreateSessionOptions, &options);
  void* library = Loaded(arguments[2]);
  const auto add =
      reinterpret_cast<OrtStatus* (*)(OrtSessionOptions*, const OrtApiBase*)>(Find(library, "RegisterCustomOps"));
  if (add == nullptr) Fail("RegisterCustomOps is not exported: " + Why());
  if (OrtStatus* status = add(options, base)) Fail(api->GetErrorMessage(status));
  Close(library);  // as ONNX Runtime does; the library has to stay

  const std::string model = Read(arguments[3]);
  Call(kCreateSessionFromArray, env, static_cast<const void*>(model.data()), model.size(), options, &session);
  Call(kCreateCpuMemoryInfo, 0, 0, &memory);
  std::string x = Read(arguments[4]), y(x.size(), '\0');
  std::vector<int64_t> dims;
  for (int i = 6; i < count; ++i) dims.push_back(atoll(arguments[i]));
  bool training = true;
  int64_t step = 3;
  const int64_t one = 1;
  OrtValue *inputs[3] = {}, *output = nullptr;
  const auto tensor = [&](void* data, size_t bytes, const int64_t* shape, size_t rank, int type, OrtValue** out) {
    Call(kCreateTensorWithDataAsOrtValue, memory, data, bytes, shape, rank, type, out);
  };
  tensor(&x[0], x.size(), dims.data(), dims.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &inputs[0]);
  tensor(&training, 1, nullptr, 0, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, &inputs[1]);
  tensor(&step, sizeof step, &one, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &inputs[2]);
  tensor(&y[0], y.size(), dims.data(), dims.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &output);
  const char* names[] = {"x", "training_mode", "step"};
  const char* y_name = "y";
  Call(kRun, session, static_cast<const void*>(nullptr), &names[0], &inputs[0], size_t{3}, &y_name, size_t{1}, &output);
  FILE* file = fopen(arguments[5], "wb");
  if (file == nullptr || fwrite(y.data(), 1, y.size(), file) != y.size() || fclose(file) != 0) Fail("cannot write Y");
  Release(kReleaseSession, session);
  Release(kReleaseSessionOptions, options);
  Release(kReleaseEnv, env);
  return 0;
}

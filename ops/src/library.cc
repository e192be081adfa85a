// The library's one exported function, which ONNX Runtime finds by its name.
#include <atomic>
#include <cstdio>

#include "masks.h"
#include "op.h"
#include "stay_loaded.h"

namespace spatialdrop {
namespace {

// ONNX Runtime keeps pointers to ops and domain for as long as a session lives, and nobody tells when the last one
// ends. So there is one set for each runtime in the process, made once and never changed; the library stays loaded.
struct Registration {
  const OrtApi* api;
  OrtCustomOpDomain* domain;
  TypedOp ops[kTypeCount];
  TypedOp masks;
};

constexpr size_t kMostRuntimes = 8;
Registration registrations[kMostRuntimes];
std::atomic_flag busy = ATOMIC_FLAG_INIT;

class Lock {
 public:
  Lock() {
    while (busy.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~Lock() { busy.clear(std::memory_order_release); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
};

OrtStatus* Fill(const OrtApi* api, Registration* registration) {
  OrtCustomOpDomain* domain = nullptr;
  if (OrtStatus* status = api->CreateCustomOpDomain("onnx_spatialdrop", &domain)) return status;
  for (int type = 0; type < kTypeCount; ++type) {
    registration->ops[type] = MakeTypedOp(api, static_cast<Type>(type));
    if (OrtStatus* status = api->CustomOpDomain_Add(domain, &registration->ops[type].op)) {
      api->ReleaseCustomOpDomain(domain);
      return status;
    }
  }
  registration->masks = MakeMasksOp(api);
  if (OrtStatus* status = api->CustomOpDomain_Add(domain, &registration->masks.op)) {
    api->ReleaseCustomOpDomain(domain);
    return status;
  }
  registration->domain = domain;
  registration->api = api;
  return nullptr;
}

OrtStatus* Find(const OrtApi* api, OrtCustomOpDomain** domain) {
  Lock lock;
  for (Registration& registration : registrations) {
    if (registration.api == nullptr) {
      if (OrtStatus* status = Fill(api, &registration)) return status;
    }
    if (registration.api == api) {
      *domain = registration.domain;
      return nullptr;
    }
  }
  return api->CreateStatus(ORT_FAIL, "onnx_spatialdrop: more ONNX Runtimes in one process than it has room for");
}

}  // namespace
}  // namespace spatialdrop

#if defined(_WIN32)
#define SPATIALDROP_EXPORT __declspec(dllexport)
#else
#define SPATIALDROP_EXPORT __attribute__((visibility("default")))
#endif

extern "C" SPATIALDROP_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(kOrtApiVersion);
  if (api == nullptr) {
    char message[160];
    snprintf(message, sizeof message, "onnx_spatialdrop needs ONNX Runtime 1.18 or newer; this is %s",
             base->GetVersionString());
    // Version 1 has CreateStatus in the same slot as every other.
    const OrtApi* oldest = base->GetApi(1);
    return oldest == nullptr ? nullptr : oldest->CreateStatus(ORT_FAIL, message);
  }
  spatialdrop::StayLoaded(&spatialdrop::registrations);
  OrtCustomOpDomain* domain = nullptr;
  if (OrtStatus* status = spatialdrop::Find(api, &domain)) return status;
  return api->AddCustomOpDomain(options, domain);
}

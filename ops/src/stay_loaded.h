// Keeps this library in the process: ONNX Runtime unloads it with its last session, and keeps pointers into it a moment
// longer. On Linux the linker is told so (nodelete).
#pragma once

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#elif defined(__APPLE__)
#include <dlfcn.h>
#endif

namespace spatialdrop {

// `inside` is any address in the library.
static inline void StayLoaded(const void* inside) {
#if defined(_WIN32)
  HMODULE self;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                     static_cast<LPCWSTR>(inside), &self);
#elif defined(__APPLE__)
  Dl_info info;
  if (dladdr(inside, &info) != 0) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NODELETE);
#else
  (void)inside;
#endif
}

}  // namespace spatialdrop

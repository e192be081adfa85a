#include "attributes.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "half.h"
#include "plan.h"

namespace spatialdrop {

OrtStatus* Refuse(const OrtApi& api, const char* format, ...) {
  char message[kMessageSize];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return api.CreateStatus(ORT_INVALID_ARGUMENT, message);
}

namespace {

// Takes the status over; true if there was none.
bool Succeeded(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return true;
  api.ReleaseStatus(status);
  return false;
}

void ReadWhere(const OrtApi& api, const OrtKernelInfo* info, char (&where)[128]) {
  char name[1024] = "";
  size_t size = sizeof name;
  // Some versions count a terminating zero and some do not, so the last byte is kept free.
  if (!Succeeded(api, api.KernelInfo_GetNodeName(info, name, &size))) name[0] = '\0';
  name[sizeof name - 1] = '\0';
  if (name[0] == '\0') {
    snprintf(where, sizeof where, "a SpatialDropout node without a name");
  } else {
    snprintf(where, sizeof where, "node '%.100s'", name);
  }
}

// Attributes with a default may be absent; but one of another type must not pass for absent.
bool IsAbsent(const OrtApi& api, const OrtKernelInfo* info, const char* attribute) {
  int64_t integer;
  float number;
  size_t size = 0;
  return !Succeeded(api, api.KernelInfoGetAttribute_float(info, attribute, &number)) &&
         !Succeeded(api, api.KernelInfoGetAttribute_int64(info, attribute, &integer)) &&
         !Succeeded(api, api.KernelInfoGetAttribute_string(info, attribute, nullptr, &(size = 0))) &&
         !Succeeded(api, api.KernelInfoGetAttributeArray_float(info, attribute, nullptr, &(size = 0))) &&
         !Succeeded(api, api.KernelInfoGetAttributeArray_int64(info, attribute, nullptr, &(size = 0)));
}

void ListAxes(const Attributes& attributes, char (&text)[384]) {
  size_t at = 0;
  for (size_t i = 0; i < attributes.axes_count && at < sizeof text - 24; ++i) {
    at += static_cast<size_t>(snprintf(text + at, sizeof text - at, "%s%lld", i == 0 ? "" : ", ",
                                       static_cast<long long>(attributes.axes[i])));
  }
  text[at] = '\0';
}

// ONNX Runtime reads an attribute of another type as an empty list; only an attribute that has no other type is one.
bool IsList(const OrtApi& api, const OrtKernelInfo* info, const char* attribute, size_t* count) {
  if (!Succeeded(api, api.KernelInfoGetAttributeArray_int64(info, attribute, nullptr, count))) return false;
  if (*count > 0) return true;
  int64_t integer;
  float number;
  size_t size = 0, floats = 0;
  if (!Succeeded(api, api.KernelInfoGetAttributeArray_float(info, attribute, nullptr, &floats))) floats = 0;
  return floats == 0 && !Succeeded(api, api.KernelInfoGetAttribute_int64(info, attribute, &integer)) &&
         !Succeeded(api, api.KernelInfoGetAttribute_float(info, attribute, &number)) &&
         !Succeeded(api, api.KernelInfoGetAttribute_string(info, attribute, nullptr, &size));
}

OrtStatus* ReadAxes(const OrtApi& api, const OrtKernelInfo* info, Attributes* attributes) {
  size_t count = 0;
  if (!IsList(api, info, "axes", &count)) {
    return Refuse(api, "%s: attribute axes is missing or not INTS; give the axes that share a mask entry, [] for none",
                  attributes->where);
  }
  if (count > kMaxRank) {
    return Refuse(api, "%s: axes has %zu elements; the largest rank is %zu", attributes->where, count, kMaxRank);
  }
  attributes->axes_count = count;
  if (count > 0) {
    OrtStatus* status = api.KernelInfoGetAttributeArray_int64(info, "axes", attributes->axes, &count);
    if (status != nullptr) return status;
  }
  char list[384] = "";
  ListAxes(*attributes, list);
  constexpr int64_t kLimit = kMaxRank;
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (attributes->axes[i] == attributes->axes[j]) {
        return Refuse(api, "%s: axes [%s] name an axis twice; name each once", attributes->where, list);
      }
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (attributes->axes[i] < -kLimit || attributes->axes[i] >= kLimit) {
      return Refuse(api, "%s: axes [%s] exceed the largest rank, %zu", attributes->where, list, kMaxRank);
    }
  }
  return nullptr;
}

OrtStatus* RefuseRng(const OrtApi& api, const char* where, const char* said) {
  char known[128];
  size_t at = 0;
  for (const Dialect& dialect : kDialects) {
    at += static_cast<size_t>(snprintf(known + at, sizeof known - at, "%s'%s'", at == 0 ? "" : ", ", dialect.name));
  }
  return Refuse(api, "%s: %s; this version knows %s", where, said, known);
}

OrtStatus* CheckType(const OrtApi& api, const char* where, const Dialect& dialect, Type type) {
  if (dialect.tests[type].bits != 0) return nullptr;
  constexpr const char* kNames[kTypeCount] = {"float16", "bfloat16", "float32", "float64"};
  char allowed[64] = "";
  size_t at = 0;
  for (int other = 0; other < kTypeCount; ++other) {
    if (dialect.tests[other].bits == 0) continue;
    at += static_cast<size_t>(snprintf(allowed + at, sizeof allowed - at, "%s%s", at == 0 ? "" : ", ", kNames[other]));
  }
  return Refuse(api,
                "%s: rng '%s' draws no masks for X of type %s; allowed with it: %s; cast X to one of them, or use rng "
                "'philox'",
                where, dialect.name, kNames[type], allowed);
}

OrtStatus* ReadRng(const OrtApi& api, const OrtKernelInfo* info, const char* where, const Dialect** dialect) {
  *dialect = &kDialects[0];
  if (IsAbsent(api, info, "rng")) return nullptr;
  char rng[128] = "";
  size_t size = 0;
  if (!Succeeded(api, api.KernelInfoGetAttribute_string(info, "rng", nullptr, &size))) {
    return RefuseRng(api, where, "attribute rng is not a STRING");
  }
  if (size < sizeof rng) {
    OrtStatus* status = api.KernelInfoGetAttribute_string(info, "rng", rng, &size);
    if (status != nullptr) return status;
    if ((*dialect = FindDialect(rng)) != nullptr) return nullptr;
  }
  char said[160];
  snprintf(said, sizeof said, "rng is '%s'", rng);
  return RefuseRng(api, where, said);
}

OrtStatus* ReadStrata(const OrtApi& api, const OrtKernelInfo* info, const char* where, const Dialect& dialect,
                      uint32_t* strata) {
  *strata = 1;
  if (IsAbsent(api, info, "strata")) return nullptr;
  int64_t number;
  if (!Succeeded(api, api.KernelInfoGetAttribute_int64(info, "strata", &number))) {
    return Refuse(api, "%s: attribute strata is not an INT; give 1 or a prime number from 3 to 127", where);
  }
  if (!AreStrata(number)) {
    return Refuse(api, "%s: strata is %lld; it must be 1 or a prime number from 3 to 127", where,
                  static_cast<long long>(number));
  }
  if (number != 1 && dialect.words != Words::kPhilox) {
    return Refuse(api, "%s: strata is %lld, but rng '%s' draws as its framework does; use strata 1, or rng 'philox'",
                  where, static_cast<long long>(number), dialect.name);
  }
  *strata = static_cast<uint32_t>(number);
  return nullptr;
}

}  // namespace

OrtStatus* ReadAttributes(const OrtApi& api, const OrtKernelInfo* info, Type type, Attributes* attributes) {
  ReadWhere(api, info, attributes->where);
  const char* where = attributes->where;
  if (OrtStatus* status = ReadAxes(api, info, attributes)) return status;
  if (!Succeeded(api, api.KernelInfoGetAttribute_float(info, "ratio", &attributes->ratio))) {
    return Refuse(api, "%s: attribute ratio is missing or not a FLOAT; give the fraction dropped, in [0, 1]", where);
  }
  if (!(attributes->ratio >= 0.0f && attributes->ratio <= 1.0f)) {
    return Refuse(api, "%s: ratio is %g; it must lie in [0, 1]", where, static_cast<double>(attributes->ratio));
  }
  int64_t seed;
  if (!Succeeded(api, api.KernelInfoGetAttribute_int64(info, "seed", &seed))) {
    return Refuse(api, "%s: attribute seed is missing or not an INT; give a number that no other node has", where);
  }
  attributes->seed = static_cast<uint64_t>(seed);
  attributes->scale = 0.0f;
  if (!IsAbsent(api, info, "scale") &&
      !Succeeded(api, api.KernelInfoGetAttribute_float(info, "scale", &attributes->scale))) {
    return Refuse(api, "%s: attribute scale is not a FLOAT; give a number, 0 for 1/(1-ratio)", where);
  }
  const Dialect* dialect;
  if (OrtStatus* status = ReadRng(api, info, where, &dialect)) return status;
  if (OrtStatus* status = CheckType(api, where, *dialect, type)) return status;
  uint32_t strata;
  if (OrtStatus* status = ReadStrata(api, info, where, *dialect, &strata)) return status;
  attributes->rule = MakeRule(*dialect, type, attributes->ratio, strata);
  return nullptr;
}

Scale KeptScale(const Attributes& attributes, Type type) {
  double scale = static_cast<double>(attributes.scale);
  if (attributes.scale == 0.0f) {
    const double ratio = static_cast<double>(attributes.ratio);
    scale = ratio == 1.0 ? 1.0 : 1.0 / (1.0 - ratio);
  }
  switch (type) {
    case kFloat16:
      return {HalfToFloat(DoubleToHalf(scale)), 0.0};
    case kBFloat16:
      // By way of float, as NumPy's bfloat16 and ONNX Runtime's Cast come from double.
      return {BFloat16ToFloat(FloatToBFloat16(static_cast<float>(scale))), 0.0};
    case kFloat32:
      return {static_cast<float>(scale), 0.0};
    default:
      return {0.0f, scale};
  }
}

}  // namespace spatialdrop

// CHECK(condition, printf-like message): counts, prints what failed and where, and goes on.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

inline long checks_done = 0;

#define CHECK(condition, ...)                                       \
  do {                                                              \
    ++checks_done;                                                  \
    if (!(condition)) {                                             \
      printf("%s:%d: %s failed: ", __FILE__, __LINE__, #condition); \
      printf(__VA_ARGS__);                                          \
      printf("\n");                                                 \
      exit(1);                                                      \
    }                                                               \
  } while (0)

// SplitMix64: enough randomness for shapes and bytes, the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  size_t Below(size_t bound) { return static_cast<size_t>(Next() % bound); }

 private:
  uint64_t state_;
};

// Sets a variable of the environment; "" takes it away, as both systems see it.
inline void SetVariable(const char* name, const char* value) {
#if defined(_WIN32)
  _putenv_s(name, value);
#else
  value[0] == '\0' ? unsetenv(name) : setenv(name, value, 1);
#endif
}

void TestDraws();
void TestKernel();
void TestMasks();
void TestPaths();
void TestRefusals();

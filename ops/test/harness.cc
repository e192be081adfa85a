// Runs every check of the native kernel without ONNX Runtime; meant for sanitizers and valgrind.
#include "check.h"

int main() {
  TestDraws();
  TestPaths();
  TestKernel();
  TestMasks();
  TestRefusals();
  printf("%ld checks passed\n", checks_done);
  return 0;
}

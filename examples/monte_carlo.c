/* Monte Carlo dropout from C: how sure is a model of one image?

   cc -std=c99 -O2 -o monte_carlo monte_carlo.c -ldl -lm
   ./monte_carlo libonnxruntime.so.1.N libonnx_spatialdrop.so digits_torch.onnx 31 < image.f32

   Both libraries are in their Python wheels: onnxruntime/capi, and what onnx_spatialdrop.get_library_path() returns. A
   file that carries its own definition (attach, expand) needs the first alone: give - for the second.
   stdin: the image, 64 numbers of float32. stdout: the mean of the probabilities, a line each, then their entropy.

   Who has ONNX Runtime's header uses the names of OrtApi. No package installs it, so its functions stand here by their
   place in that struct, which never changes. */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS = 64, CLASSES = 10, API_VERSION = 18, FLOAT = 1, INT64 = 7, BOOL = 9 };

typedef void *Status; /* NULL: all is well */
typedef struct {
  const void *const *(*get_api)(uint32_t version);
  const char *(*version)(void);
} ApiBase;

static const void *const *api;

/* The functions in use, with their places in OrtApi. */
#define ERROR_MESSAGE ((const char *(*)(Status))api[2])
#define CREATE_ENV ((Status(*)(int, const char *, void **))api[3])
#define CREATE_SESSION ((Status(*)(void *, const char *, void *, void **))api[7])
#define RUN                                                                                                         \
  ((Status(*)(void *, void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **))api[9])
#define CREATE_SESSION_OPTIONS ((Status(*)(void **))api[10])
#define REGISTER_LIBRARY ((Status(*)(void *, const char *, void **))api[29])
#define CREATE_TENSOR ((Status(*)(void *, void *, size_t, const int64_t *, size_t, int, void **))api[49])
#define TENSOR_DATA ((Status(*)(void *, void **))api[51])
#define CREATE_CPU_MEMORY_INFO ((Status(*)(int, int, void **))api[69])
#define RELEASE_VALUE ((void (*)(void *))api[96])

static void check(Status status, const char *what) {
  if (status != NULL) {
    fprintf(stderr, "%s: %s\n", what, ERROR_MESSAGE(status));
    exit(1);
  }
}

static void *open_runtime(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  const ApiBase *(*base)(void) = NULL;
  if (library != NULL) {
    *(void **)&base = dlsym(library, "OrtGetApiBase");
  }
  if (base == NULL || (api = base()->get_api(API_VERSION)) == NULL) {
    fprintf(stderr, "%s is no ONNX Runtime of version 1.18 or newer\n", path);
    exit(1);
  }
  return library;
}

static void *tensor(void *memory, void *data, size_t bytes, const int64_t *dims, size_t rank, int type) {
  void *value = NULL;
  check(CREATE_TENSOR(memory, data, bytes, dims, rank, type, &value), "tensor");
  return value;
}

/* Adds the softmax of `logits` to `sum`. */
static void add_softmax(const float *logits, double *sum) {
  double most = logits[0], total = 0, powers[CLASSES];
  for (int k = 1; k < CLASSES; ++k) most = logits[k] > most ? logits[k] : most;
  for (int k = 0; k < CLASSES; ++k) total += powers[k] = exp(logits[k] - most);
  for (int k = 0; k < CLASSES; ++k) sum[k] += powers[k] / total;
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: monte_carlo ONNXRUNTIME SPATIALDROP|- MODEL DRAWS < IMAGE\n");
    return 2;
  }
  float image[PIXELS];
  const int draws = atoi(argv[4]);
  if (draws < 1 || fread(image, sizeof *image, PIXELS, stdin) != PIXELS) {
    fprintf(stderr, "DRAWS must be 1 or more, and the image 64 numbers of float32\n");
    return 2;
  }
  open_runtime(argv[1]);
  void *env, *options, *session, *memory, *library;
  check(CREATE_ENV(3, "monte_carlo", &env), "environment");
  check(CREATE_SESSION_OPTIONS(&options), "options");
  if (strcmp(argv[2], "-") != 0) check(REGISTER_LIBRARY(options, argv[2], &library), argv[2]);
  check(CREATE_SESSION(env, argv[3], options, &session), argv[3]);
  check(CREATE_CPU_MEMORY_INFO(1, 0, &memory), "memory");

  uint8_t on = 1;
  int64_t step = 0;
  const int64_t dims[4] = {1, 1, 8, 8}, one[1] = {1};
  const char *const names[3] = {"image", "training_mode", "step"}, *const outputs[1] = {"logits"};
  void *const feeds[3] = {
      tensor(memory, image, sizeof image, dims, 4, FLOAT),
      tensor(memory, &on, sizeof on, one, 0, BOOL),
      tensor(memory, &step, sizeof step, one, 1, INT64), /* reads `step` anew in every run */
  };
  double mean[CLASSES] = {0}, entropy = 0;
  for (step = 0; step < draws; ++step) {
    void *logits = NULL, *data;
    check(RUN(session, NULL, names, feeds, 3, outputs, 1, &logits), "run");
    check(TENSOR_DATA(logits, &data), "logits");
    add_softmax(data, mean);
    RELEASE_VALUE(logits);
  }
  for (int k = 0; k < CLASSES; ++k) {
    mean[k] /= draws;
    entropy -= mean[k] > 0 ? mean[k] * log(mean[k]) : 0;
    printf("%d %.7f\n", k, mean[k]);
  }
  printf("entropy %.7f\n", entropy);
  return 0;
}

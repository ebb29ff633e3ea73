/* Quantizes a layer by a library whose path is given, on Linux or on Windows, and prints a digest
 * of what comes out.
 *
 * usage: call LIBRARY OPTIONS */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../cshim/stream.h"

#ifdef _WIN32
#include <windows.h>
static void* loaded(const char* path) { return LoadLibraryA(path); }
static void* function(void* library, const char* name) { return (void*)GetProcAddress(library, name); }
#else
#include <dlfcn.h>
static void* loaded(const char* path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }
static void* function(void* library, const char* name) { return dlsym(library, name); }
#endif

enum { ROWS = 300, COLUMNS = 1000 };

static float weights[ROWS * COLUMNS];
static int given;

static void fail(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void check(const char* report) {
  if (report != NULL) fail(report);
}

static void keep_schema(struct ArrowSchema* schema) { schema->release = NULL; }
static void keep_array(struct ArrowArray* array) { array->release = NULL; }
static void keep_stream(struct ArrowArrayStream* stream) { stream->release = NULL; }

static struct ArrowSchema field(const char* format, const char* name, int64_t count, struct ArrowSchema** children) {
  return (struct ArrowSchema){.format = format, .name = name, .n_children = count, .children = children, .release = keep_schema};
}

static struct ArrowArray array(int64_t length, int64_t buffers, const void** memory, int64_t count, struct ArrowArray** children) {
  return (struct ArrowArray){.length = length, .n_buffers = buffers, .buffers = memory, .n_children = count, .children = children, .release = keep_array};
}

static int get_schema(struct ArrowArrayStream* stream, struct ArrowSchema* out) {
  static struct ArrowSchema columns[3], items[2], *of_table[3], *of_weights[1], *of_shape[1];
  (void)stream;
  items[0] = field("f", "item", 0, NULL);
  items[1] = field("l", "item", 0, NULL);
  of_weights[0] = &items[0];
  of_shape[0] = &items[1];
  columns[0] = field("u", "layer_name", 0, NULL);
  columns[1] = field("+l", "weights", 1, of_weights);
  columns[2] = field("+l", "shape", 1, of_shape);
  for (int i = 0; i < 3; i++) of_table[i] = &columns[i];
  *out = field("+s", "", 3, of_table);
  return 0;
}

static int get_next(struct ArrowArrayStream* stream, struct ArrowArray* out) {
  static const int32_t name_ends[] = {0, 5}, weight_ends[] = {0, ROWS * COLUMNS}, shape_ends[] = {0, 2};
  static const int64_t shape[] = {ROWS, COLUMNS};
  static const void* of_name[] = {NULL, name_ends, "layer"};
  static const void* of_weights[] = {NULL, weight_ends};
  static const void* of_shape[] = {NULL, shape_ends};
  static const void *of_items[] = {NULL, weights}, *of_sizes[] = {NULL, shape}, *of_table[] = {NULL};
  static struct ArrowArray columns[3], items[2], *in_table[3], *in_weights[1], *in_shape[1];
  (void)stream;
  memset(out, 0, sizeof *out);
  if (given++) return 0;
  items[0] = array(ROWS * COLUMNS, 2, of_items, 0, NULL);
  items[1] = array(2, 2, of_sizes, 0, NULL);
  in_weights[0] = &items[0];
  in_shape[0] = &items[1];
  columns[0] = array(1, 3, of_name, 0, NULL);
  columns[1] = array(1, 2, of_weights, 1, in_weights);
  columns[2] = array(1, 2, of_shape, 1, in_shape);
  for (int i = 0; i < 3; i++) in_table[i] = &columns[i];
  *out = array(1, 1, of_table, 3, in_table);
  return 0;
}

static const char* last_error(struct ArrowArrayStream* stream) {
  (void)stream;
  return NULL;
}

static uint64_t digest(const unsigned char* data, int64_t size) {
  uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
  for (int64_t i = 0; i < size; i++) hash = (hash ^ data[i]) * 0x100000001b3u;
  return hash;
}

/* Columns of bytes and of lists of floats are what results have of a layer. */
static void print_column(const struct ArrowSchema* schema, const struct ArrowArray* column) {
  const unsigned char* data = NULL;
  int64_t size = 0;
  if (strcmp(schema->format, "z") == 0) {
    data = column->buffers[2];
    size = ((const int32_t*)column->buffers[1])[1];
  } else if (strcmp(schema->format, "+l") == 0 && strcmp(schema->children[0]->format, "f") == 0) {
    data = column->children[0]->buffers[1];
    size = 4 * column->children[0]->length;
  }
  if (data != NULL) {
    printf("%s %lld %016llx\n", schema->name, (long long)size, (unsigned long long)digest(data, size));
  }
}

int main(int count, char** arguments) {
  if (count != 3) fail("usage: call LIBRARY OPTIONS");
  void* library = loaded(arguments[1]);
  if (library == NULL) fail("the library does not load");
  char* (*quantize)(struct ArrowArrayStream*, const char*, int, struct paq_outcome*) = function(library, "paq_quantize");
  char* (*job_wait)(uintptr_t, int64_t, int*, char**) = function(library, "paq_job_wait");
  char* (*job_result)(uintptr_t, struct paq_outcome*) = function(library, "paq_job_result");
  char* (*job_free)(uintptr_t) = function(library, "paq_job_free");
  char* (*allocated)(int64_t*) = function(library, "paq_allocated_bytes");
  if (!quantize || !job_wait || !job_result || !job_free || !allocated) fail("a function is missing");

  uint32_t state = 1;
  for (int i = 0; i < ROWS * COLUMNS; i++) {
    state = state * 1664525u + 1013904223u;
    weights[i] = ((float)(state >> 8) - 8388608.0f) / 8388608.0f;
  }
  struct ArrowArrayStream source = {get_schema, get_next, last_error, keep_stream, NULL};
  struct paq_outcome outcome = {0};
  check(quantize(&source, arguments[2], 0, &outcome));
  if (outcome.job != 0) {
    int finished = 0;
    char* events = NULL;
    while (!finished) check(job_wait(outcome.job, 1000, &finished, &events));
    check(job_result(outcome.job, &outcome));
    check(job_free(outcome.job));
  }
  struct ArrowSchema schema = {0};
  struct ArrowArray result = {0};
  if (outcome.result.get_schema(&outcome.result, &schema) != 0) fail("there is no schema");
  if (outcome.result.get_next(&outcome.result, &result) != 0 || result.length != 1) fail("there is no layer");
  for (int64_t i = 0; i < result.n_children; i++) print_column(schema.children[i], result.children[i]);
  result.release(&result);
  schema.release(&schema);
  outcome.result.release(&outcome.result);
  int64_t alive = -1;
  check(allocated(&alive));
  printf("alive %lld\n", (long long)alive);
  return 0;
}

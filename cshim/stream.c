#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <process.h>
#define getpid _getpid
#else
#include <unistd.h>
#endif

struct paq_ready {
  struct ArrowSchema schema;
  int64_t count;
  int64_t next;
  struct ArrowArray arrays[];
};

/* An array as Go exported it, and the process in which Go runs. */
struct guarded {
  struct ArrowArray array;
  int process;
};

/* Go's release needs Go's threads, which a forked child does not have: there
 * the memory is left to the end of the process. */
static void release_guarded(struct ArrowArray* array) {
  struct guarded* inner = array->private_data;
  if (inner->process == (int)getpid()) {
    inner->array.release(&inner->array);
    free(inner);
  }
  array->release = NULL;
}

/* Puts release_guarded in place of Go's release. */
static int guard_release(struct ArrowArray* array) {
  struct guarded* inner = malloc(sizeof *inner);
  if (inner == NULL) return ENOMEM;
  inner->array = *array;
  inner->process = (int)getpid();
  array->release = release_guarded;
  array->private_data = inner;
  return 0;
}

struct paq_ready* paq_ready_new(int64_t count) {
  struct paq_ready* ready =
      calloc(1, sizeof *ready + (size_t)count * sizeof ready->arrays[0]);
  if (ready != NULL) ready->count = count;
  return ready;
}

struct ArrowSchema* paq_ready_schema(struct paq_ready* ready) { return &ready->schema; }

struct ArrowArray* paq_ready_array(struct paq_ready* ready, int64_t i) {
  return &ready->arrays[i];
}

void paq_ready_free(struct paq_ready* ready) {
  if (ready->schema.release != NULL) ready->schema.release(&ready->schema);
  for (int64_t i = ready->next; i < ready->count; i++)
    if (ready->arrays[i].release != NULL) ready->arrays[i].release(&ready->arrays[i]);
  free(ready);
}

static int get_schema(struct ArrowArrayStream* stream, struct ArrowSchema* out) {
  struct paq_ready* ready = stream->private_data;
  if (ready->schema.release == NULL) return EINVAL;
  *out = ready->schema;
  ready->schema.release = NULL;
  return 0;
}

static int get_next(struct ArrowArrayStream* stream, struct ArrowArray* out) {
  struct paq_ready* ready = stream->private_data;
  if (ready->next == ready->count) {
    memset(out, 0, sizeof *out);
    return 0;
  }
  int status = guard_release(&ready->arrays[ready->next]);
  if (status == 0) *out = ready->arrays[ready->next++];
  return status;
}

static const char* get_last_error(struct ArrowArrayStream* stream) {
  (void)stream;
  return NULL;
}

static void release(struct ArrowArrayStream* stream) {
  paq_ready_free(stream->private_data);
  stream->private_data = NULL;
  stream->release = NULL;
}

void paq_ready_stream(struct paq_ready* ready, struct ArrowArrayStream* out) {
  out->get_schema = get_schema;
  out->get_next = get_next;
  out->get_last_error = get_last_error;
  out->release = release;
  out->private_data = ready;
}

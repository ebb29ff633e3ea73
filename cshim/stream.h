/* A stream of batches that are ready, in plain C: its callbacks cannot panic. */
#ifndef PAQ_STREAM_H
#define PAQ_STREAM_H

#include "arrow.h"

/* What a call has come to, zeroed by the caller: a job that runs in the
 * background, or with job 0 its result. skipped is NULL or the errors of layers
 * left out, underflows NULL or the layers with groups whose scale is 0 in
 * scale_dtype: JSON lists to free with paq_free. */
struct paq_outcome {
  uintptr_t job;
  struct ArrowArrayStream result;
  char* skipped;
  char* underflows;
};

/* The arrays that a ready stream will give, in order. Owned by the stream. */
struct paq_ready;

/* Allocates room for count zeroed arrays and a zeroed schema; NULL if there is
 * no memory. The caller fills them, then calls paq_ready_stream, or frees all
 * with paq_ready_free. */
struct paq_ready* paq_ready_new(int64_t count);
struct ArrowSchema* paq_ready_schema(struct paq_ready* ready);
struct ArrowArray* paq_ready_array(struct paq_ready* ready, int64_t i);
void paq_ready_free(struct paq_ready* ready);

/* Moves ready into out, which the consumer then owns. The first get_schema
 * moves the schema out; there is no second. */
void paq_ready_stream(struct paq_ready* ready, struct ArrowArrayStream* out);

#endif

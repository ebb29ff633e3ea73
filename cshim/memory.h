/* Memory for results: the system's, outside of Go's heap. */
#ifndef PAQ_MEMORY_H
#define PAQ_MEMORY_H

#include <stddef.h>

/* Small blocks, aligned to 64 bytes; NULL if there is no memory. */
void* paq_small_new(size_t size);
void paq_small_free(void* block);

/* Large blocks, a multiple of PAQ_PAGE, in huge pages where the system has
 * them; NULL if there is no memory. */
#define PAQ_PAGE ((size_t)2 << 20)
void* paq_large_new(size_t size);
void paq_large_free(void* block, size_t size);

/* Says that a large block's content is no longer needed: the system may take
 * its pages when memory is short, until the block is written again. */
void paq_large_idle(void* block, size_t size);

#endif

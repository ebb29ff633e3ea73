#include "memory.h"

#include <stdint.h>
#include <stdlib.h>

#define ALIGNMENT 64

#ifdef _WIN32
#include <malloc.h>

void* paq_small_new(size_t size) { return _aligned_malloc(size, ALIGNMENT); }
void paq_small_free(void* block) { _aligned_free(block); }

#else

void* paq_small_new(size_t size) {
  void* block = NULL;
  return posix_memalign(&block, ALIGNMENT, size) == 0 ? block : NULL;
}
void paq_small_free(void* block) { free(block); }

#endif

#ifdef __linux__
#include <sys/mman.h>

/* Huge pages need aligned addresses, which mmap does not promise. */
void* paq_large_new(size_t size) {
  char* mapped = mmap(NULL, size + PAQ_PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return NULL;
  size_t before = (PAQ_PAGE - (uintptr_t)mapped % PAQ_PAGE) % PAQ_PAGE;
  if (before > 0) munmap(mapped, before);
  if (before < PAQ_PAGE) munmap(mapped + before + size, PAQ_PAGE - before);
  madvise(mapped + before, size, MADV_HUGEPAGE);
  return mapped + before;
}

void paq_large_free(void* block, size_t size) { munmap(block, size); }

void paq_large_idle(void* block, size_t size) { madvise(block, size, MADV_FREE); }

#else

void* paq_large_new(size_t size) { return paq_small_new(size); }
void paq_large_free(void* block, size_t size) {
  (void)size;
  paq_small_free(block);
}
void paq_large_idle(void* block, size_t size) {
  (void)block;
  (void)size;
}

#endif

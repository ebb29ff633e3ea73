/* What this machine's memory can do at best, for comparison. Built by limits.py. */
#include <immintrin.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define AHEAD 4096

struct part {
  const char* in;
  char* out;
  size_t size;
  uint64_t sum;
};

/* Reads everything once. */
static void* read_part(void* argument) {
  struct part* p = argument;
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (size_t i = 0; i + 128 <= p->size; i += 128) {
    _mm_prefetch(p->in + i + AHEAD, _MM_HINT_T1);
    _mm_prefetch(p->in + i + AHEAD + 64, _MM_HINT_T1);
    a = _mm256_xor_si256(a, _mm256_loadu_si256((const void*)(p->in + i)));
    b = _mm256_xor_si256(b, _mm256_loadu_si256((const void*)(p->in + i + 32)));
    c = _mm256_xor_si256(c, _mm256_loadu_si256((const void*)(p->in + i + 64)));
    d = _mm256_xor_si256(d, _mm256_loadu_si256((const void*)(p->in + i + 96)));
  }
  a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
  p->sum = (uint64_t)_mm256_extract_epi64(a, 0) ^ (uint64_t)_mm256_extract_epi64(a, 2);
  return NULL;
}

/* Reads 512 bytes and writes 72, as 4 bits in groups of 128 do. */
static void* read_write_part(void* argument) {
  struct part* p = argument;
  char* out = p->out;
  for (size_t i = 0; i + 512 <= p->size; i += 512, out += 72) {
    __m256i a = _mm256_setzero_si256(), b = a;
    for (size_t j = 0; j < 512; j += 64) {
      _mm_prefetch(p->in + i + j + AHEAD, _MM_HINT_T1);
      a = _mm256_xor_si256(a, _mm256_loadu_si256((const void*)(p->in + i + j)));
      b = _mm256_xor_si256(b, _mm256_loadu_si256((const void*)(p->in + i + j + 32)));
    }
    _mm256_storeu_si256((void*)out, a);
    _mm256_storeu_si256((void*)(out + 32), b);
    memcpy(out + 64, &a, 8);
  }
  return NULL;
}

/* Writes everything once. */
static void* write_part(void* argument) {
  struct part* p = argument;
  __m256i a = _mm256_set1_epi32((int)p->size);
  for (size_t i = 0; i + 32 <= p->size; i += 32) _mm256_storeu_si256((void*)(p->out + i), a);
  return NULL;
}

static uint64_t run(void* (*work)(void*), const char* in, char* out, size_t size,
                    size_t out_per_512, int threads) {
  pthread_t handles[64];
  struct part parts[64];
  size_t step = size / (size_t)threads / 512 * 512;
  uint64_t sum = 0;
  for (int t = 0; t < threads; t++) {
    size_t first = step * (size_t)t;
    parts[t] = (struct part){in + first, out + first / 512 * out_per_512, step, 0};
    pthread_create(&handles[t], NULL, work, &parts[t]);
  }
  for (int t = 0; t < threads; t++) {
    pthread_join(handles[t], NULL);
    sum ^= parts[t].sum;
  }
  return sum;
}

uint64_t limit_read(const char* in, size_t size, int threads) {
  return run(read_part, in, NULL, size, 0, threads);
}

void limit_read_write(const char* in, char* out, size_t size, int threads) {
  run(read_write_part, in, out, size, 72, threads);
}

void limit_write(char* out, size_t size, int threads) {
  run(write_part, NULL, out, size, 512, threads);
}

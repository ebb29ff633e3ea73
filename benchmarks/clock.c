/* Prints how many cycles a second the processor has, of which each product of a chain takes 3. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

int main(void) {
  const int products = 500000; /* of which some chains are not interrupted */
  volatile uint64_t seed = 3;
  double most = 0;
  for (int time = 0; time < 500; time++) {
    struct timespec from, to;
    uint64_t factor = seed, product = seed;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < products; i++) {
      product *= factor;
    }
    seed = product | 1;
    clock_gettime(CLOCK_MONOTONIC, &to);
    const double seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    if (most < 3.0 * products / seconds) {
      most = 3.0 * products / seconds;
    }
  }
  printf("%.0f\n", most);
}

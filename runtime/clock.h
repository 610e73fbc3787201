/* The clock of steps and deadlines. */
#ifndef MCC_RUNTIME_CLOCK_H
#define MCC_RUNTIME_CLOCK_H

#include <time.h>

/* Seconds, monotonic. */
static inline double rt_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif

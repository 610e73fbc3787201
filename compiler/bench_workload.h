/* The part of `modelcc bench` that runs many requests: how many tokens a second, and how long each
 * waits for them. */
#ifndef MCC_COMPILER_BENCH_WORKLOAD_H
#define MCC_COMPILER_BENCH_WORKLOAD_H

#include "runtime/modelcc.h"

#include <stdbool.h>

typedef enum bench_arrivals {
    BENCH_CLOSED,  /* a request comes when another ends: max_num_seqs are there at a time */
    BENCH_STATIC,  /* max_num_seqs come when all before them have ended */
    BENCH_POISSON, /* requests come independently, at a rate */
} bench_arrivals;

typedef struct bench_workload {
    bench_arrivals arrivals;
    double rate; /* of BENCH_POISSON: requests a second */
    int n_requests;
    int64_t prompt, decode; /* tokens on average: each request has half to one and a half of them */
    uint64_t seed;
    bool json;
} bench_workload;

/* Runs it on an engine without requests and prints what came out. EXIT_FINE, or EXIT_FAILED after a
 * message. */
int bench_workload_run(const bench_workload *workload, const mcc_artifact *artifact,
                       mcc_engine *engine);

#endif

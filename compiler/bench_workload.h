/* The part of `modelcc bench` that runs many requests: how many tokens a second, and how long each
 * waits for them.
 *
 *   bench_requests.c   which requests: at random, or from a trace
 *   bench_workload.c   running them, and what came out
 *   bench_plot.c       the same as a picture */
#ifndef MCC_COMPILER_BENCH_WORKLOAD_H
#define MCC_COMPILER_BENCH_WORKLOAD_H

#include "runtime/modelcc.h"

#include <stdbool.h>

typedef enum bench_arrivals {
    BENCH_CLOSED, /* a request comes when another ends: max_num_seqs are there at a time */
    BENCH_STATIC, /* max_num_seqs come when all before them have ended */
    /* The same, and each is computed on until the longest of them has ended, as engines do whose
     * batches keep their shape (Yu et al. 2022, Orca, section 3: inactive requests). */
    BENCH_PADDED,
    BENCH_POISSON, /* requests come independently, at a rate */
    BENCH_TRACE,   /* as a trace says */
} bench_arrivals;

typedef struct bench_workload {
    bench_arrivals arrivals;
    double rate;       /* of BENCH_POISSON: requests a second */
    const char *trace; /* a file of the requests' lengths, and for BENCH_TRACE of when they come;
                          NULL: random lengths */
    int n_requests;    /* 0: 100, or all of the trace */
    int64_t prompt, decode; /* without a trace, tokens on average: each request has half to one and
                               a half of them */
    uint64_t seed;
    bool json;
    const char *plot; /* a file for an SVG picture; NULL: none */
    int32_t n_drafts; /* num_speculative_tokens of each request */
} bench_workload;

/* "closed", "static", "padded", "poisson", "trace". */
const char *bench_arrivals_name(bench_arrivals arrivals);
/* One of these but the last; -1: none of them. */
int bench_arrivals_named(const char *name);

/* splitmix64 (Steele, Lea, Flood 2014): the same numbers everywhere. */
uint64_t bench_random(uint64_t *state);

/* Runs it on an engine without requests and prints what came out. EXIT_FINE, or EXIT_FAILED after a
 * message. */
int bench_workload_run(const bench_workload *workload, const mcc_artifact *artifact,
                       mcc_engine *engine);

/* --- bench_requests.c ----------------------------------------------------------------------------
 */

typedef struct bench_request {
    int64_t prompt, decode; /* tokens; the first `prefix` of the prompt are … */
    int64_t prefix;
    uint64_t prefix_seed, seed; /* … random numbers of this seed, the others of that */
    double due;                 /* seconds after the beginning */
    int64_t computed; /* tokens that it is computed for: `decode`, and with BENCH_PADDED those of
                         the longest of its batch; what is beyond `decode` is waste */
} bench_request;

/* The requests of a workload, malloc'ed. A trace's line is {"arrival_s": 0.5, "prompt_tokens": 100,
 * "max_tokens": 20}, times in ascending order, and if need be "prefix_id", a text or number:
 * prompts with the same one have the same first "prefix_tokens" (else all that both have).
 * EXIT_FINE, or EXIT_FAILED after a message. */
int bench_requests_make(const bench_workload *workload, bench_request **requests, int *n);

/* What BENCH_PADDED does to requests that come `batch` at a time: sets `computed`. */
void bench_requests_pad(bench_request *requests, int n, int batch);

/* The tokens of a request's prompt. */
void bench_requests_prompt(const bench_request *request, int64_t vocab, int32_t *ids);

/* --- bench_plot.c --------------------------------------------------------------------------------
 */

typedef struct bench_series {
    const char *name;
    const double *seconds; /* ascending */
    int64_t n;
} bench_series;

typedef struct bench_plot {
    const char *title;
    const double *token_times; /* [n_tokens] seconds after the beginning, ascending */
    int64_t n_tokens;
    double seconds; /* that it took */
    bench_series series[4];
} bench_plot;

/* Writes tokens a second over time and the percentiles of the series as SVG. EXIT_FINE, or
 * EXIT_FAILED after a message. */
int bench_plot_write(const char *path, const bench_plot *plot);

#endif

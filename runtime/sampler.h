/* Chooses a token from a row of logits. The choice is a function of the logits, the parameters and
 * (seed, position) alone: there is no hidden state, so it does not depend on what else runs. */
#ifndef MCC_RUNTIME_SAMPLER_H
#define MCC_RUNTIME_SAMPLER_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct rt_sampling {
    float temperature; /* 0: the most probable token */
    int32_t top_k;     /* 0: all */
    float top_p;       /* 1: all */
    float min_p;       /* 0: all */
    uint64_t seed;
} rt_sampling;

/* Checks ranges; the error names the parameter. */
bool rt_sampling_check(const rt_sampling *sampling, rt_error *error);

typedef struct rt_candidate {
    float weight; /* probability, relative to the most probable token's */
    int32_t id;
} rt_candidate;

/* Returns a token id in 0 … n-1. `space` has room for n candidates. `position` is that which the
 * token will have in its sequence. NaNs count as the lowest value. */
int32_t rt_sample(const rt_sampling *sampling, const float *logits, int32_t n, int64_t position,
                  rt_candidate *space);

/* The index of the greatest logit, the first of equals. n >= 1. */
int32_t rt_argmax(const float *logits, int32_t n);

/* Log-probability of token `id` under softmax(logits). */
float rt_logprob(const float *logits, int32_t n, int32_t id);

/* Divides positive logits of the `count` tokens `ids` by `penalty`, multiplies negative ones
 * (Keskar et al. 2019, CTRL, section 4.1). Each id must be there once. */
void rt_penalize(float *logits, const int32_t *ids, int64_t count, float penalty);

/* Four 32-bit words of the stream (Salmon et al. 2011, Philox-4x32-10). */
void rt_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Uniform in [0, 1), 53 bits, of the stream `seed` at `position`. */
double rt_uniform(uint64_t seed, int64_t position);

/* e^x to about 2 ulp, by the same operations on every machine (libm's differ). */
float rt_exp(float x);

#endif

/* Chooses a token from a row of logits. The choice is a function of the logits, the parameters and
 * (seed, position) alone: there is no hidden state, so it does not depend on what else runs.
 *
 * It is defined in arithmetic whose order cannot show, so that any other implementation that splits
 * the row as it likes (codegen/cuda/kernels/sample.cuh) chooses the same token:
 *
 * - `greatest` is the greatest logit. NaN and -infinity are never chosen; -1 when nothing else is
 *   there. With temperature 0, top_k 1 or greatest = infinity the choice is the first token that
 *   has the greatest logit.
 * - The weight of logit l is the integer rt_weight((l - greatest) * inverse), where inverse is 1 /
 *   temperature (1 / 2^-100 below that), each operation rounded to f32: e^x in units of 2^-30, so
 *   2^30 for the greatest logit, and 0 from about e^-21.5 on. Sums of weights are exact in 64 bits.
 *   Tokens of weight 0 are left out.
 * - top_k keeps the tokens whose logit is not below the k-th greatest; top_p then those whose logit
 *   is not below L, the greatest logit for which the weights of the kept tokens at or above it add
 *   up to more than floor(top_p * their sum) (nucleus sampling: Holtzman et al. 2020, section 3.1);
 *   min_p those of weight at least min_p * 2^30 (Nguyen et al. 2024, section 3). Equal logits are
 *   kept or left out together, as by vLLM and transformers.
 * - typical_p then keeps the tokens whose surprise is near the expected one (locally typical
 *   sampling: Meister et al. 2022, section 3, equation 10). Among the kept tokens, probability p,
 *   the surprise -ln p is a constant less x = (l - greatest) * inverse, so no logarithm is needed:
 *   with y = -x in units of 2^-17, rounded to an integer, and m = floor(sum of weight * y / sum of
 *   weights), it keeps those with |y - m| <= D, the least D for which their weights add up to more
 *   than floor(typical_p * their sum). GPUs do not do this: rows that need it are chosen from here.
 * - The draw inverts the cumulative distribution: u is a 64-bit number of the random stream, s the
 *   sum of the kept weights, and the choice is the first token, by id, at which the running sum of
 *   kept weights exceeds floor(u * s / 2^64). (Gumbel's trick would need a random number and a
 *   logarithm for each token of the vocabulary.)
 * - The random stream is counter-based (Salmon et al. 2011, Philox-4x32-10): key seed, counter
 *   position. */
#ifndef MCC_RUNTIME_SAMPLER_H
#define MCC_RUNTIME_SAMPLER_H

#include "runtime/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rt_sampling {
    float temperature; /* 0: the most probable token */
    int32_t top_k;     /* 0: all */
    float top_p;       /* 1: all */
    float min_p;       /* 0: all */
    uint64_t seed;
    float typical_p; /* 0 or 1: all */
} rt_sampling;

/* Checks ranges; the error names the parameter. */
bool rt_sampling_check(const rt_sampling *sampling, rt_error *error);

/* Bytes of memory that rt_sample works in, for rows of n logits. */
size_t rt_sample_bytes(int32_t n);

/* Returns a token id in 0 … n-1, or -1 when no logit is a number above -infinity. `space` has
 * rt_sample_bytes(n) bytes, aligned for uint64_t. `position` is that which the token will have in
 * its sequence. n >= 1. */
int32_t rt_sample(const rt_sampling *sampling, const float *logits, int32_t n, int64_t position,
                  void *space);

/* The distribution that rt_sample draws from: [n] weights, and their sum; 0 when there is no
 * choice. Where it has but one, that has weight 1. */
uint64_t rt_distribute(const rt_sampling *sampling, const float *logits, int32_t n, void *space,
                       uint32_t *weights);

/* The first token at which the running sum of weights exceeds floor(random * sum / 2^64). `sum` is
 * that of all weights, above 0. */
int32_t rt_draw(const uint32_t *weights, uint64_t sum, uint64_t random);

/* The index of the greatest logit, the first of equals; -1 as above. n >= 1. */
int32_t rt_argmax(const float *logits, int32_t n);

/* Log-probability of token `id` under softmax(logits), to about 1e-6. */
float rt_logprob(const float *logits, int32_t n, int32_t id);

/* The greatest logit of a row, and the sum of all weights for temperature 1: what rt_logprob_of
 * needs. False when no logit is a number above -infinity. */
bool rt_row_total(const float *logits, int32_t n, float *greatest, float *sum);

/* The `count` greatest logits' tokens, greatest first, of equals the first; returns how many there
 * are: fewer than `count` when so few are numbers above -infinity. count >= 1. */
int32_t rt_top(const float *logits, int32_t n, int32_t count, int32_t *ids);

/* The same as rt_logprob from the token's logit, the greatest of the row, and the sum of all
 * weights for temperature 1 rounded to f32. */
float rt_logprob_of(float logit, float greatest, float sum);

/* Sets the logits of tokens to -infinity whose bit is clear: bit id % 32 of mask[id / 32]. */
void rt_mask(float *logits, int32_t n, const uint32_t *mask);

/* e^x in units of 2^-30 for x <= 0, to about 2 ulp of the f32 that it is computed in, and rounded
 * to an integer; 0 for x <= -21.5 and NaN. By the same operations on every machine. */
uint32_t rt_weight(float x);

/* Four 32-bit words of the stream. */
void rt_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* 64 bits of the stream `seed` at `position`; and of others, of which this is number 0. */
uint64_t rt_random(uint64_t seed, int64_t position);
uint64_t rt_random_of(uint64_t seed, int64_t position, uint32_t stream);

#endif

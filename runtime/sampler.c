#include "runtime/sampler.h"

#include "runtime/modelcc.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* --- random stream -------------------------------------------------------------------------------
 */

void rt_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

double rt_uniform(uint64_t seed, int64_t position) {
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)((uint64_t)position >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    rt_philox(counter, key, out);
    uint64_t bits = (uint64_t)out[1] << 32 | out[0];
    return (double)(bits >> 11) * 0x1p-53;
}

/* --- arithmetic ----------------------------------------------------------------------------------
 */

float rt_exp(float x) {
    if (!(x > -87.0f)) /* also NaN */
        return 0.0f;
    if (x > 88.0f)
        return INFINITY;
    /* x = n ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts (Cody and Waite); then the Taylor
     * polynomial of degree 7, whose remainder is below 2^-27. */
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

int32_t rt_argmax(const float *logits, int32_t n) {
    /* The greatest value of each block first, in lanes that the compiler can keep in one register;
     * then its place, in the one block that has it. */
    enum { LANES = 16, BLOCK = 1024 };
    float best = -INFINITY;
    int32_t best_block = 0;
    for (int32_t b = 0; b < n; b += BLOCK) {
        int32_t end = n - b < BLOCK ? n : b + BLOCK, i = b;
        float lane[LANES];
        for (int l = 0; l < LANES; l++)
            lane[l] = -INFINITY;
        for (; i + LANES <= end; i += LANES)
            for (int l = 0; l < LANES; l++)
                lane[l] = logits[i + l] > lane[l] ? logits[i + l] : lane[l];
        for (; i < end; i++)
            lane[0] = logits[i] > lane[0] ? logits[i] : lane[0];
        for (int l = 0; l < LANES; l++) {
            if (lane[l] > best) {
                best = lane[l];
                best_block = b;
            }
        }
    }
    for (int32_t i = best_block; i < n; i++)
        if (logits[i] == best)
            return i;
    return 0;
}

float rt_logprob(const float *logits, int32_t n, int32_t id) {
    float max = logits[rt_argmax(logits, n)];
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += rt_exp(logits[i] - max);
    return (float)(logits[id] - max - log(sum));
}

void rt_penalize(float *logits, const int32_t *ids, int64_t count, float penalty) {
    for (int64_t i = 0; i < count; i++) {
        float *x = &logits[ids[i]];
        *x = *x > 0 ? *x / penalty : *x * penalty;
    }
}

/* --- choosing ------------------------------------------------------------------------------------
 */

bool rt_sampling_check(const rt_sampling *s, rt_error *error) {
    if (!(s->temperature >= 0 && s->temperature <= FLT_MAX))
        return rt_fail(error, MCC_INVALID_ARGUMENT, "temperature is %g, expected 0 or more",
                       (double)s->temperature);
    if (s->top_k < 0)
        return rt_fail(error, MCC_INVALID_ARGUMENT, "top_k is %d, expected 0 (all) or more",
                       s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return rt_fail(error, MCC_INVALID_ARGUMENT, "top_p is %g, expected 0 < top_p <= 1",
                       (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return rt_fail(error, MCC_INVALID_ARGUMENT, "min_p is %g, expected 0 <= min_p <= 1",
                       (double)s->min_p);
    return true;
}

/* Order of candidates: greater weight first, then smaller id. */
static bool before(rt_candidate a, rt_candidate b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

/* Restores the heap (first candidate on top) after its element i has changed. */
static void sift_down(rt_candidate *heap, int32_t n, int32_t i) {
    rt_candidate moving = heap[i];
    for (;;) {
        int64_t child = 2 * (int64_t)i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], moving))
            break;
        heap[i] = heap[child];
        i = (int32_t)child;
    }
    heap[i] = moving;
}

/* Moves the first `k` candidates in order to the end of the array, the first of all last. */
static void select_first(rt_candidate *heap, int32_t n, int32_t k) {
    for (int32_t i = 0; i < k; i++) {
        rt_candidate top = heap[0];
        heap[0] = heap[n - 1 - i];
        heap[n - 1 - i] = top;
        sift_down(heap, n - 1 - i, 0);
    }
}

/* Draws in proportion to the weights, which add up to `sum`; u is uniform in [0, 1). */
static int32_t draw(const rt_candidate *candidates, int32_t n, double sum, double u) {
    double left = u * sum;
    for (int32_t i = 0; i < n; i++) {
        left -= candidates[i].weight;
        if (left < 0)
            return candidates[i].id;
    }
    /* Rounding: the last that could have been drawn at all. */
    for (int32_t i = n - 1; i > 0; i--)
        if (candidates[i].weight > 0)
            return candidates[i].id;
    return candidates[0].id;
}

int32_t rt_sample(const rt_sampling *s, const float *logits, int32_t n, int64_t position,
                  rt_candidate *c) {
    int32_t best = rt_argmax(logits, n);
    float max = logits[best];
    if (s->temperature == 0 || s->top_k == 1 || !(max > -INFINITY) || max == INFINITY)
        return best;
    double u = rt_uniform(s->seed, position);

    /* Weights below 2^-60 of the greatest cannot change a sum in any way that matters, and leaving
     * them out makes the rest short. */
    int32_t count = 0;
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        float scaled = (logits[i] - max) / s->temperature;
        if (!(scaled > -42.0f))
            continue;
        float weight = rt_exp(scaled);
        c[count++] = (rt_candidate){weight, i};
        sum += weight;
    }
    bool limited = (s->top_k > 0 && s->top_k < count) || s->top_p < 1;
    if (!limited && s->min_p == 0)
        return draw(c, count, sum, u);

    /* Most probable first: only as many as the limits can need. */
    int32_t kept = 0;
    double kept_sum = 0;
    for (int32_t i = count / 2 - 1; i >= 0; i--)
        sift_down(c, count, i);
    int32_t k = s->top_k > 0 && s->top_k < count ? s->top_k : count;
    rt_candidate *end = c + count; /* the kept ones are end[-kept] … end[-1], in falling order of
                                      the index */
    if (k < count && s->top_p < 1) {
        /* top-p counts in what top-k has left, so that sum must be known first. */
        select_first(c, count, k);
        sum = 0;
        for (int32_t i = 1; i <= k; i++)
            sum += end[-i].weight;
        for (kept = 0; kept < k && kept_sum < (double)s->top_p * sum; kept++)
            kept_sum += end[-1 - kept].weight;
    } else {
        for (kept = 0; kept < k && (kept == 0 || kept_sum < (double)s->top_p * sum); kept++) {
            int32_t left = count - kept;
            if (c[0].weight < s->min_p) /* the greatest weight is 1 */
                break;
            select_first(c, left, 1);
            kept_sum += end[-1 - kept].weight;
        }
    }
    for (; kept > 1 && end[-kept].weight < s->min_p; kept--)
        kept_sum -= end[-kept].weight;
    /* Drawn from the least probable up: the order is fixed, which is all that matters. */
    return draw(end - kept, kept, kept_sum, u);
}

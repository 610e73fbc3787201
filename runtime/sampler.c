#include "runtime/sampler.h"

#include "runtime/modelcc.h"

#include <float.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdlib.h>
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

uint64_t rt_random(uint64_t seed, int64_t position) {
    return rt_random_of(seed, position, 0);
}

uint64_t rt_random_of(uint64_t seed, int64_t position, uint32_t stream) {
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)((uint64_t)position >> 32), stream, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    rt_philox(counter, key, out);
    return (uint64_t)out[1] << 32 | out[0];
}

/* floor(a * b / 2^64) */
static uint64_t multiply_high(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)a * b >> 64);
}

/* --- weights -------------------------------------------------------------------------------------
 */

/* The loops over a block have a constant number of rounds and no branches, which compilers turn
 * into vector code for any processor. */
enum { BLOCK = 256 /* logits that are worked on together */ };

static inline __attribute__((always_inline)) uint32_t weight_of(float x) {
    float c = x > -21.5f ? x : -21.5f; /* also for NaN; there the result rounds to 0 */
    /* c = n ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts (Cody and Waite); then the Taylor
     * polynomial of degree 7, whose remainder is below 2^-27. Adding 1.5 * 2^23 rounds to an
     * integer. */
    float n = (c * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = c - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits = ((int32_t)n + 127 + 30) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    /* An integer: rounded where below 2^23. */
    return (uint32_t)(int32_t)((p * scale + 8388608.0f) - 8388608.0f);
}

uint32_t rt_weight(float x) {
    return weight_of(x);
}

/* A block's logits, filled up with -infinity. */
static const float *block_at(const float *logits, int32_t n, int32_t begin, float copy[BLOCK]) {
    if (n - begin >= BLOCK)
        return logits + begin;
    for (int i = 0; i < BLOCK; i++)
        copy[i] = i < n - begin ? logits[begin + i] : -INFINITY;
    return copy;
}

/* The greatest of n values, a multiple of 64; -infinity when none is a number above it. Vectors
 * keep what they have where the other is NaN. */
#if defined(__x86_64__)
__attribute__((target("avx2"))) static float greatest_avx2(const float *values, int n) {
    /* Several, so that one maximum does not wait for the one before; by name, so that they are in
     * registers with whatever optimization. */
    __m256 a = _mm256_set1_ps(-INFINITY), b = a, c = a, d = a;
    for (int i = 0; i < n; i += 64) {
        a = _mm256_max_ps(_mm256_loadu_ps(values + i), a);
        b = _mm256_max_ps(_mm256_loadu_ps(values + i + 8), b);
        c = _mm256_max_ps(_mm256_loadu_ps(values + i + 16), c);
        d = _mm256_max_ps(_mm256_loadu_ps(values + i + 24), d);
        a = _mm256_max_ps(_mm256_loadu_ps(values + i + 32), a);
        b = _mm256_max_ps(_mm256_loadu_ps(values + i + 40), b);
        c = _mm256_max_ps(_mm256_loadu_ps(values + i + 48), c);
        d = _mm256_max_ps(_mm256_loadu_ps(values + i + 56), d);
    }
    a = _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d));
    __m128 x = _mm_max_ps(_mm256_extractf128_ps(a, 1), _mm256_castps256_ps128(a));
    x = _mm_max_ps(_mm_movehl_ps(x, x), x);
    return _mm_cvtss_f32(_mm_max_ss(_mm_shuffle_ps(x, x, 1), x));
}
#endif

static float greatest_of(const float *values, int n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return greatest_avx2(values, n);
#endif
    enum { LANES = 16 };
    float lane[LANES], best = -INFINITY;
    for (int l = 0; l < LANES; l++)
        lane[l] = -INFINITY;
    for (int i = 0; i < n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = values[i + l] > lane[l] ? values[i + l] : lane[l];
    for (int l = 0; l < LANES; l++)
        best = lane[l] > best ? lane[l] : best;
    return best;
}

static inline __attribute__((always_inline)) uint64_t sum_of(const uint32_t *weights) {
    uint64_t sum = 0;
    for (int i = 0; i < BLOCK; i++)
        sum += weights[i];
    return sum;
}

static inline __attribute__((always_inline)) uint64_t
weigh_any(const float *restrict block, float greatest, float inverse, uint32_t *restrict weights) {
    for (int i = 0; i < BLOCK; i++)
        weights[i] = weight_of((block[i] - greatest) * inverse);
    return sum_of(weights);
}

#if defined(__x86_64__)
/* The same operations, without FMA: the same bits. */
__attribute__((target("avx2"))) static uint64_t
weigh_avx2(const float *restrict block, float greatest, float inverse, uint32_t *restrict weights) {
    return weigh_any(block, greatest, inverse, weights);
}
#endif

/* The weights of a block; returns their sum. */
static uint64_t weigh(const float *restrict block, float greatest, float inverse,
                      uint32_t *restrict weights) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return weigh_avx2(block, greatest, inverse, weights);
#endif
    return weigh_any(block, greatest, inverse, weights);
}

/* --- simple choices ------------------------------------------------------------------------------
 */

/* The first of n logits that equals `greatest`, looked for from the first block that has it. */
static int32_t first_equal(const float *logits, int32_t n, int32_t begin, float greatest) {
    for (int32_t i = begin; i < n; i++)
        if (logits[i] == greatest)
            return i;
    return -1;
}

int32_t rt_argmax(const float *logits, int32_t n) {
    enum { MANY = 8 * BLOCK };
    float best = -INFINITY, copy[BLOCK];
    int32_t begin = n;
    for (int64_t b = 0; b < n;) {
        int size = n - b >= MANY ? MANY : BLOCK;
        const float *values = size == MANY ? logits + b : block_at(logits, n, (int32_t)b, copy);
        float greatest = greatest_of(values, size);
        if (greatest > best) {
            best = greatest;
            begin = (int32_t)b;
        }
        b += size;
    }
    return first_equal(logits, n, begin, best);
}

float rt_logprob_of(float logit, float greatest, float sum) {
    return (float)((double)logit - greatest - log((double)sum * 0x1p-30));
}

bool rt_row_total(const float *logits, int32_t n, float *greatest, float *sum) {
    int32_t best = rt_argmax(logits, n);
    uint32_t weights[BLOCK];
    float copy[BLOCK];
    uint64_t exact = 0;
    if (best < 0)
        return false;
    *greatest = logits[best];
    for (int64_t b = 0; b < n; b += BLOCK)
        exact += weigh(block_at(logits, n, (int32_t)b, copy), *greatest, 1, weights);
    *sum = (float)exact;
    return true;
}

float rt_logprob(const float *logits, int32_t n, int32_t id) {
    float greatest, sum;
    return rt_row_total(logits, n, &greatest, &sum) ? rt_logprob_of(logits[id], greatest, sum)
                                                    : -INFINITY;
}

/* By insertion: few logits are greater than the least of those found so far. */
int32_t rt_top(const float *logits, int32_t n, int32_t count, int32_t *ids) {
    int32_t found = 0;
    float least = -INFINITY; /* that a logit must exceed to be taken */
    for (int64_t b = 0; b < n; b += BLOCK) {
        float copy[BLOCK];
        const float *block = block_at(logits, n, (int32_t)b, copy);
        if (!(greatest_of(block, BLOCK) > least))
            continue;
        for (int i = 0; i < BLOCK; i++) {
            if (!(block[i] > least))
                continue;
            int32_t at = found < count ? found++ : count - 1;
            for (; at > 0 && logits[ids[at - 1]] < block[i]; at--)
                ids[at] = ids[at - 1];
            ids[at] = (int32_t)b + i;
            if (found == count)
                least = logits[ids[count - 1]];
        }
    }
    return found;
}

/* Word by word: most have all bits or none. */
void rt_mask(float *logits, int32_t n, const uint32_t *mask) {
    for (int64_t i = 0; i < n; i += 32) {
        uint32_t out = ~mask[i / 32];
        int64_t end = i + 32 < n ? i + 32 : n;
        if (out == UINT32_MAX)
            for (int64_t k = i; k < end; k++)
                logits[k] = -INFINITY;
        else
            for (; out && i + __builtin_ctz(out) < end; out &= out - 1)
                logits[i + __builtin_ctz(out)] = -INFINITY;
    }
}

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
    if (!(s->typical_p >= 0 && s->typical_p <= 1))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "typical_p is %g, expected 0 < typical_p <= 1 (0: 1)", (double)s->typical_p);
    return true;
}

/* --- a row ---------------------------------------------------------------------------------------
 */

typedef struct candidate {
    float logit;
    uint32_t weight;
} candidate;

/* A row in blocks: the sum of each one's weights and its greatest logit, all weights, and room for
 * candidates. */
typedef struct row {
    const float *logits;
    int32_t n, blocks;
    uint64_t *sums;
    candidate *candidates;
    uint32_t *weights;
    int32_t *surprises; /* of typical_p; in blocks with weights */
    float *greatest;
} row;

static int32_t count_blocks(int32_t n) {
    return n / BLOCK + (n % BLOCK != 0);
}

size_t rt_sample_bytes(int32_t n) {
    return (size_t)count_blocks(n) *
               (sizeof(uint64_t) + 2 * BLOCK * sizeof(uint32_t) + sizeof(float)) +
           (size_t)n * sizeof(candidate);
}

static row make_row(const float *logits, int32_t n, void *space) {
    row r = {.logits = logits, .n = n, .blocks = count_blocks(n), .sums = space};
    r.candidates = (candidate *)(r.sums + r.blocks);
    r.weights = (uint32_t *)(r.candidates + n);
    r.surprises = (int32_t *)(r.weights + (size_t)r.blocks * BLOCK);
    r.greatest = (float *)(r.surprises + (size_t)r.blocks * BLOCK);
    return r;
}

static float inverse_of(float temperature) {
    return 1 / (temperature > 0x1p-100f ? temperature : 0x1p-100f);
}

/* Computes the weights; returns their sum. */
static uint64_t weigh_row(row *r, float greatest, float temperature) {
    float inverse = inverse_of(temperature), copy[BLOCK];
    uint64_t sum = 0;
    for (int32_t b = 0; b < r->blocks; b++) {
        const float *block = block_at(r->logits, r->n, b * BLOCK, copy);
        r->sums[b] = weigh(block, greatest, inverse, r->weights + (size_t)b * BLOCK);
        sum += r->sums[b];
    }
    return sum;
}

/* --- the limits ----------------------------------------------------------------------------------
 */

/* Collects the tokens of weight above 0 whose logit is at least `from`; returns how many there are;
 * *sum becomes the sum of their weights. */
static int32_t collect(row *r, float from, uint64_t *sum) {
    int32_t count = 0;
    *sum = 0;
    for (int32_t b = 0; b < r->blocks; b++) {
        if (!(r->greatest[b] >= from))
            continue;
        int32_t begin = b * BLOCK, end = r->n - begin < BLOCK ? r->n : begin + BLOCK;
        for (int32_t i = begin; i < end; i++) {
            if (!(r->logits[i] >= from) || r->weights[i] == 0)
                continue;
            r->candidates[count++] = (candidate){r->logits[i], r->weights[i]};
            *sum += r->weights[i];
        }
    }
    return count;
}

static void swap(candidate *a, candidate *b) {
    candidate old = *a;
    *a = *b;
    *b = old;
}

/* The greatest logit for which the candidates at or above it number more than `target`, or by
 * weight add up to more; -infinity when all together do not. Quickselect: the candidates change
 * places. */
static float select_logit(candidate *c, int32_t count, bool by_weight, uint64_t target) {
    uint64_t above = 0;
    while (count > 0) {
        float pivot = c[count / 2].logit;
        uint64_t greater = 0, equal = 0;
        int32_t g = 0, e = 0; /* c[0 … g-1] are greater, c[g … e-1] equal */
        for (int32_t i = 0; i < count; i++) {
            uint64_t measure = by_weight ? c[i].weight : 1;
            if (c[i].logit < pivot)
                continue;
            swap(&c[i], &c[e]);
            if (c[e].logit > pivot) {
                greater += measure;
                swap(&c[e], &c[g++]);
            } else {
                equal += measure;
            }
            e++;
        }
        if (above + greater > target) {
            count = g;
        } else if (above + greater + equal > target) {
            return pivot;
        } else {
            above += greater + equal;
            c += e;
            count -= e;
        }
    }
    return -INFINITY;
}

/* The least logit that top_k and top_p keep; `sum` is that of all weights. Mostly few tokens are
 * kept, so first only those near the greatest are looked at, then more. */
static float threshold_of(row *r, const rt_sampling *p, float greatest, uint64_t sum) {
    const bool top_k = p->top_k > 0, top_p = p->top_p < 1;
    const uint64_t fraction = top_p ? (uint64_t)((double)p->top_p * 0x1p64) : 0;
    int32_t count;
    uint64_t collected, target = multiply_high(sum, fraction);
    for (float reach = 4;; reach *= 2) {
        bool all = reach > 30; /* what lies lower has no weight */
        count = collect(r, all ? -INFINITY : greatest - reach * p->temperature, &collected);
        if (all || (top_k ? count >= p->top_k : collected > target))
            break;
    }
    float threshold = -INFINITY;
    if (top_k) {
        threshold = select_logit(r->candidates, count, false, (uint64_t)p->top_k - 1);
        uint64_t kept = 0; /* top_p counts in what top_k has left */
        for (int32_t i = 0; i < count; i++)
            kept += r->candidates[i].logit >= threshold ? r->candidates[i].weight : 0;
        target = multiply_high(kept, fraction);
    }
    return top_p ? select_logit(r->candidates, count, true, target) : threshold;
}

/* Leaves out tokens below the threshold or of less than the least weight; returns the new sum. */
static uint64_t limit_row(row *r, float threshold, uint32_t least) {
    float copy[BLOCK];
    uint64_t sum = 0;
    for (int32_t b = 0; b < r->blocks; b++) {
        if (!(r->greatest[b] >= threshold)) {
            r->sums[b] = 0;
            continue;
        }
        const float *restrict block = block_at(r->logits, r->n, b * BLOCK, copy);
        uint32_t *restrict weights = r->weights + (size_t)b * BLOCK;
        for (int i = 0; i < BLOCK; i++)
            weights[i] = ((block[i] >= threshold) & (weights[i] >= least)) ? weights[i] : 0;
        r->sums[b] = sum_of(weights);
        sum += r->sums[b];
    }
    return sum;
}

/* x in units of 2^-17 as an integer: weights are 0 from 21.5 on, so that x here is below 2^22, to
 * which adding 1.5 * 2^23 rounds; what has no weight may be beyond, and is cut. */
static inline __attribute__((always_inline)) int32_t surprise_of(float below, float inverse) {
    float x = below * inverse * 0x1p17f;
    x = x < 0x1p22f ? x : 0x1p22f; /* also NaN */
    return (int32_t)((x + 12582912.0f) - 12582912.0f);
}

/* A weight, if its token's surprise is not further than `reach` from the mean. */
static inline __attribute__((always_inline)) uint32_t if_near(uint32_t weight, int32_t surprise,
                                                              int32_t mean, int32_t reach) {
    return ((surprise - mean <= reach) & (mean - surprise <= reach)) ? weight : 0;
}

/* Fills in the surprises; returns their mean by weight, rounded down. `sum` is that of the weights.
 * A token adds less than 2^30 e^-x x 2^17 < 2^46, so a block's fit in 64 bits. */
static inline __attribute__((always_inline)) int32_t weigh_surprises(row *r, float greatest,
                                                                     float inverse, uint64_t sum) {
    __extension__ typedef unsigned __int128 wide;
    float copy[BLOCK];
    wide all = 0;
    for (int32_t b = 0; b < r->blocks; b++) {
        if (r->sums[b] == 0)
            continue;
        const float *restrict block = block_at(r->logits, r->n, b * BLOCK, copy);
        const uint32_t *restrict weights = r->weights + (size_t)b * BLOCK;
        int32_t *restrict surprises = r->surprises + (size_t)b * BLOCK;
        uint64_t own = 0;
        for (int i = 0; i < BLOCK; i++)
            surprises[i] = surprise_of(greatest - block[i], inverse);
        for (int i = 0; i < BLOCK; i++)
            own += (uint64_t)weights[i] * (uint32_t)surprises[i];
        all += own;
    }
    return (int32_t)(all / sum);
}

/* The sum of a block's weights near the mean. */
static inline __attribute__((always_inline)) uint64_t near_in(const row *r, int32_t b, int32_t mean,
                                                              int32_t reach) {
    const uint32_t *restrict weights = r->weights + (size_t)b * BLOCK;
    const int32_t *restrict surprises = r->surprises + (size_t)b * BLOCK;
    uint64_t sum = 0;
    if (r->sums[b] == 0)
        return 0;
    for (int i = 0; i < BLOCK; i++)
        sum += if_near(weights[i], surprises[i], mean, reach);
    return sum;
}

/* The least distance from the mean within which weights add up to more than `target`. Mostly few
 * tokens are that near, so first only they are looked at, then more. Distances are below 2^23, so
 * that f32 holds them and they can be selected as logits are. */
static inline __attribute__((always_inline)) int32_t distance_of(row *r, int32_t mean,
                                                                 uint64_t target) {
    enum { FIRST = 1 << 17, LAST = 1 << 23 };
    int32_t reach = FIRST, count = 0;
    for (uint64_t near = 0;; reach *= 2) {
        near = 0;
        for (int32_t b = 0; b < r->blocks; b++)
            near += near_in(r, b, mean, reach);
        if (near > target || reach == LAST)
            break;
    }
    for (int32_t b = 0; b < r->blocks; b++) {
        if (near_in(r, b, mean, reach) == 0)
            continue;
        for (int32_t i = b * BLOCK; i < (b + 1) * BLOCK; i++)
            if (if_near(r->weights[i], r->surprises[i], mean, reach) > 0)
                r->candidates[count++] =
                    (candidate){-(float)abs(r->surprises[i] - mean), r->weights[i]};
    }
    return (int32_t)-select_logit(r->candidates, count, true, target);
}

static inline __attribute__((always_inline)) uint64_t
keep_typical_any(row *r, const rt_sampling *p, float greatest, uint64_t sum) {
    const uint64_t fraction = (uint64_t)((double)p->typical_p * 0x1p64);
    const int32_t mean = weigh_surprises(r, greatest, inverse_of(p->temperature), sum);
    const int32_t reach = distance_of(r, mean, multiply_high(sum, fraction));
    sum = 0;
    for (int32_t b = 0; b < r->blocks; b++) {
        uint32_t *restrict weights = r->weights + (size_t)b * BLOCK;
        const int32_t *restrict surprises = r->surprises + (size_t)b * BLOCK;
        if (r->sums[b] == 0)
            continue;
        for (int i = 0; i < BLOCK; i++)
            weights[i] = if_near(weights[i], surprises[i], mean, reach);
        r->sums[b] = sum_of(weights);
        sum += r->sums[b];
    }
    return sum;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t keep_typical_avx2(row *r, const rt_sampling *p,
                                                                  float greatest, uint64_t sum) {
    return keep_typical_any(r, p, greatest, sum);
}
#endif

/* Leaves out the tokens that are not typical; returns the new sum. `sum` is that of the weights
 * left. */
static uint64_t keep_typical(row *r, const rt_sampling *p, float greatest, uint64_t sum) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return keep_typical_avx2(r, p, greatest, sum);
#endif
    return keep_typical_any(r, p, greatest, sum);
}

/* --- the draw ------------------------------------------------------------------------------------
 */

/* The first token at which the running sum of weights exceeds `at`, which is below their sum. */
static int32_t find(const row *r, uint64_t at) {
    int32_t b = 0;
    while (at >= r->sums[b])
        at -= r->sums[b++];
    int32_t i = b * BLOCK;
    while (at >= r->weights[i])
        at -= r->weights[i++];
    return i;
}

/* Computes the weights of the tokens that the parameters keep, and their sum. Where there is but
 * one choice it is returned instead, -1 when there is none; else UNDECIDED. */
enum { UNDECIDED = -2 };
static int32_t distribute(const rt_sampling *p, row *r, uint64_t *sum) {
    if (p->temperature == 0 || p->top_k == 1)
        return rt_argmax(r->logits, r->n);
    float greatest = -INFINITY, copy[BLOCK];
    for (int32_t b = 0; b < r->blocks; b++) {
        r->greatest[b] = greatest_of(block_at(r->logits, r->n, b * BLOCK, copy), BLOCK);
        greatest = r->greatest[b] > greatest ? r->greatest[b] : greatest;
    }
    if (isinf(greatest))
        return greatest > 0 ? first_equal(r->logits, r->n, 0, greatest) : -1;
    *sum = weigh_row(r, greatest, p->temperature);
    float threshold = -INFINITY;
    uint32_t least = (uint32_t)ceilf(p->min_p * 0x1p30f);
    if (p->top_k > 0 || p->top_p < 1)
        threshold = threshold_of(r, p, greatest, *sum);
    if (threshold > -INFINITY || least > 0)
        *sum = limit_row(r, threshold, least);
    if (p->typical_p > 0 && p->typical_p < 1)
        *sum = keep_typical(r, p, greatest, *sum);
    return UNDECIDED;
}

int32_t rt_sample(const rt_sampling *p, const float *logits, int32_t n, int64_t position,
                  void *space) {
    uint64_t sum;
    row r = make_row(logits, n, space);
    int32_t only = distribute(p, &r, &sum);
    return only == UNDECIDED ? find(&r, multiply_high(sum, rt_random(p->seed, position))) : only;
}

uint64_t rt_distribute(const rt_sampling *p, const float *logits, int32_t n, void *space,
                       uint32_t *weights) {
    uint64_t sum = 0;
    row r = make_row(logits, n, space);
    int32_t only = distribute(p, &r, &sum);
    if (only == UNDECIDED) {
        memcpy(weights, r.weights, (size_t)n * sizeof *weights);
        return sum;
    }
    memset(weights, 0, (size_t)n * sizeof *weights);
    if (only >= 0)
        weights[only] = 1;
    return only >= 0;
}

int32_t rt_draw(const uint32_t *weights, uint64_t sum, uint64_t random) {
    uint64_t at = multiply_high(sum, random);
    int32_t i = 0;
    while (at >= weights[i])
        at -= weights[i++];
    return i;
}

/* Sampling: the random stream against its published vectors, choices against their distribution and
 * against a plain implementation that sorts everything. */
#include "check_main.h"
#include "runtime/modelcc.h"
#include "runtime/sampler.h"

#include <math.h>
#include <string.h>

/* Random123's kat_vectors for philox4x32-10. */
START_TEST(philox_vectors) {
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } v[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        uint32_t out[4];
        rt_philox(v[i].counter, v[i].key, out);
        ck_assert_mem_eq(out, v[i].out, sizeof out);
    }
}
END_TEST

START_TEST(exp_is_close) {
    for (float x = -86.9f; x < 87.9f; x += 0.0137f) {
        double exact = exp((double)x);
        ck_assert_double_le(fabs(rt_exp(x) - exact) / exact, 3e-7);
    }
    ck_assert_float_eq(rt_exp(0), 1);
    ck_assert_float_eq(rt_exp(-1000), 0);
    ck_assert_float_eq(rt_exp(NAN), 0);
}
END_TEST

static uint64_t random_state = 42;
static float random_logit(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (float)(random_state >> 40) * 0x1p-24f * 12 - 6;
}

START_TEST(argmax_of_any_length) {
    static float logits[5000];
    for (int n = 1; n <= 5000; n += n < 70 ? 1 : 613) {
        for (int i = 0; i < n; i++)
            logits[i] = random_logit();
        for (int at = 0; at < n; at += 1 + n / 37) {
            float old = logits[at];
            logits[at] = 100;
            ck_assert_int_eq(rt_argmax(logits, n), at);
            logits[at] = old;
        }
    }
    for (int i = 0; i < 5000; i++)
        logits[i] = 3;
    ck_assert_int_eq(rt_argmax(logits, 5000), 0);
    for (int i = 0; i < 5000; i++)
        logits[i] = i == 4321 ? -5 : NAN;
    ck_assert_int_eq(rt_argmax(logits, 5000), 4321);
    for (int i = 0; i < 5000; i++)
        logits[i] = i == 17 ? -1 : -INFINITY;
    ck_assert_int_eq(rt_argmax(logits, 5000), 17);
    logits[17] = NAN;
    ck_assert_int_eq(rt_argmax(logits, 5000), 0);
}
END_TEST

typedef struct sorted {
    double p;
    int32_t id;
} sorted;

static int by_probability(const void *a, const void *b) {
    const sorted *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p ? 1 : -1) : x->id - y->id;
}

/* Which tokens the filters leave, and with what probability: straight from the definitions. */
static void reference(const rt_sampling *s, const float *logits, int n, double *p) {
    sorted *list = calloc((size_t)n, sizeof *list);
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < n; i++)
        list[i] = (sorted){exp((logits[i] - max) / s->temperature), i};
    qsort(list, (size_t)n, sizeof *list, by_probability);
    int k = s->top_k > 0 && s->top_k < n ? s->top_k : n;
    for (int i = 0; i < k; i++)
        sum += list[i].p;
    double running = 0;
    int kept = 0;
    for (; kept < k && (kept == 0 || running < (double)s->top_p * sum); kept++)
        running += list[kept].p;
    if (s->top_p == 1)
        kept = k;
    while (kept > 1 && list[kept - 1].p < s->min_p * list[0].p)
        kept--;
    sum = 0;
    for (int i = 0; i < kept; i++)
        sum += list[i].p;
    memset(p, 0, (size_t)n * sizeof *p);
    for (int i = 0; i < kept; i++)
        p[list[i].id] = list[i].p / sum;
    free(list);
}

START_TEST(frequencies_match) {
    enum { N = 40, DRAWS = 40000 };
    static const rt_sampling cases[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.7f, .top_p = 1, .top_k = 5},
        {.temperature = 1.5f, .top_p = 0.8f},
        {.temperature = 1, .top_p = 1, .min_p = 0.1f},
        {.temperature = 1.2f, .top_p = 0.9f, .top_k = 12, .min_p = 0.05f},
        {.temperature = 2, .top_p = 0.95f, .min_p = 0.2f},
        {.temperature = 0.01f, .top_p = 1},
        {.temperature = 3, .top_p = 1, .top_k = 39},
        {.temperature = 1, .top_p = 0.001f},
    };
    rt_sampling s = cases[_i];
    s.seed = 1000 + (uint64_t)_i;
    float logits[N];
    double p[N];
    int drawn[N] = {0};
    rt_candidate space[N];
    for (int i = 0; i < N; i++)
        logits[i] = random_logit();
    reference(&s, logits, N, p);
    for (int d = 0; d < DRAWS; d++)
        drawn[rt_sample(&s, logits, N, d, space)]++;
    for (int i = 0; i < N; i++) {
        double expected = p[i] * DRAWS;
        if (p[i] == 0)
            ck_assert_int_eq(drawn[i], 0);
        else /* five standard deviations */
            ck_assert_double_le(fabs(drawn[i] - expected), 5 * sqrt(expected * (1 - p[i])) + 1);
    }
}
END_TEST

START_TEST(same_seed_same_choice) {
    enum { N = 3000 };
    static float logits[N];
    static rt_candidate space[N];
    for (int i = 0; i < N; i++)
        logits[i] = random_logit();
    rt_sampling s = {.temperature = 1, .top_p = 0.9f, .seed = 7};
    int changed = 0;
    for (int64_t position = 0; position < 50; position++) {
        int32_t id = rt_sample(&s, logits, N, position, space);
        ck_assert_int_eq(rt_sample(&s, logits, N, position, space), id);
        rt_sampling other = s;
        other.seed = 8;
        changed += rt_sample(&other, logits, N, position, space) != id;
    }
    ck_assert_int_gt(changed, 25);
}
END_TEST

START_TEST(greedy_and_broken_logits) {
    float logits[4] = {1, 5, 2, 5};
    rt_candidate space[4];
    rt_sampling s = {.temperature = 0, .top_p = 1};
    ck_assert_int_eq(rt_sample(&s, logits, 4, 0, space), 1);
    s = (rt_sampling){.temperature = 1, .top_p = 1, .top_k = 1};
    ck_assert_int_eq(rt_sample(&s, logits, 4, 0, space), 1);
    float bad[4] = {NAN, NAN, NAN, NAN};
    s.top_k = 0;
    ck_assert_int_eq(rt_sample(&s, bad, 4, 0, space), 0);
    float one[4] = {-INFINITY, -INFINITY, 0, NAN};
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(rt_sample(&s, one, 4, i, space), 2);
}
END_TEST

START_TEST(penalty_and_logprob) {
    float logits[4] = {2, -2, 1, 0};
    const int32_t seen[2] = {0, 1};
    rt_penalize(logits, seen, 2, 2);
    ck_assert_float_eq(logits[0], 1);
    ck_assert_float_eq(logits[1], -4);
    ck_assert_float_eq(logits[2], 1);
    double sum = exp(1) + exp(-4) + exp(1) + 1;
    for (int i = 0; i < 4; i++)
        ck_assert_double_le(fabs(rt_logprob(logits, 4, i) - log(exp(logits[i]) / sum)), 1e-6);
}
END_TEST

START_TEST(parameters_are_checked) {
    static const rt_sampling bad[] = {
        {.temperature = -1, .top_p = 1},
        {.temperature = NAN, .top_p = 1},
        {.temperature = INFINITY, .top_p = 1},
        {.temperature = 1, .top_p = 0},
        {.temperature = 1, .top_p = 1.1f},
        {.temperature = 1, .top_p = 1, .min_p = -0.1f},
        {.temperature = 1, .top_p = 1, .min_p = 1.5f},
        {.temperature = 1, .top_p = 1, .top_k = -1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rt_error error = {0};
        ck_assert(!rt_sampling_check(&bad[i], &error));
        ck_assert_int_eq(error.code, MCC_INVALID_ARGUMENT);
    }
    rt_sampling good = {.temperature = 1, .top_p = 1};
    ck_assert(rt_sampling_check(&good, NULL));
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("sampler");
    TCase *t = tcase_create("sampler");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, philox_vectors);
    tcase_add_test(t, exp_is_close);
    tcase_add_test(t, argmax_of_any_length);
    tcase_add_loop_test(t, frequencies_match, 0, 9);
    tcase_add_test(t, same_seed_same_choice);
    tcase_add_test(t, greedy_and_broken_logits);
    tcase_add_test(t, penalty_and_logprob);
    tcase_add_test(t, parameters_are_checked);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

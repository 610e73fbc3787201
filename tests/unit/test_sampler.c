/* Sampling: the random stream against its published vectors, choices against their distribution and
 * against the reference interpreter, which sorts everything. */
#include "check_main.h"
#include "ir/interp.h"
#include "ir/text.h"
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

START_TEST(weights_are_close) {
    uint32_t last = 1 << 30;
    for (float x = 0; x > -22; x -= 0.00137f) {
        uint32_t weight = rt_weight(x);
        ck_assert_double_le(fabs(weight - exp((double)x) * 0x1p30),
                            0.5000001 + 3e-7 * exp((double)x) * 0x1p30);
        ck_assert_uint_le(weight, last);
        last = weight;
    }
    ck_assert_uint_eq(rt_weight(0), 1 << 30);
    ck_assert_uint_eq(rt_weight(-21.5f), 0);
    ck_assert_uint_eq(rt_weight(-1000), 0);
    ck_assert_uint_eq(rt_weight(-INFINITY), 0);
    ck_assert_uint_eq(rt_weight(NAN), 0);
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
    ck_assert_int_eq(rt_argmax(logits, 5000), -1);
}
END_TEST

/* Logits of several kinds: spread, few different values, all equal, with infinities and NaNs. */
static void random_row(float *logits, int n, int kind) {
    for (int i = 0; i < n; i++) {
        float x = random_logit();
        logits[i] = kind == 0   ? 3 * x
                    : kind == 1 ? rintf(x)
                    : kind == 2 ? 1.5f
                    : kind == 3 ? 0.001f * x
                                : x;
        if (kind == 4 && random_logit() > 2)
            logits[i] = random_logit() > 0 ? NAN : -INFINITY;
        if (kind == 5)
            logits[i] = random_logit() > 0 ? 0.0f : -0.0f;
    }
}

typedef struct sorted {
    double p;
    int32_t id;
    double off;
} sorted;

static int by_probability(const void *a, const void *b) {
    const sorted *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p ? 1 : -1) : x->id - y->id;
}

static int by_offset(const void *a, const void *b) {
    const sorted *x = a, *y = b;
    return (x->off > y->off) - (x->off < y->off);
}

/* Puts those tokens first whose surprise is nearest the expected one, as many as it takes for the
 * mass (Meister et al. 2022); returns how many. */
static int typical(sorted *list, int n, double mass) {
    double sum = 0, entropy = 0, running = 0;
    int kept = 0;
    for (int i = 0; i < n; i++)
        sum += list[i].p;
    for (int i = 0; i < n; i++)
        entropy -= list[i].p / sum * log(list[i].p / sum);
    for (int i = 0; i < n; i++)
        list[i].off = fabs(-log(list[i].p / sum) - entropy);
    qsort(list, (size_t)n, sizeof *list, by_offset);
    while (kept < n && running <= mass)
        running += list[kept++].p / sum;
    return kept;
}

/* Which tokens the filters leave, and with what probability: straight from the definitions. */
static void reference(const rt_sampling *s, const float *logits, int n, double *p) {
    sorted *list = calloc((size_t)n, sizeof *list);
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < n; i++)
        list[i] = (sorted){.p = exp((logits[i] - max) / s->temperature), .id = i};
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
    if (s->typical_p > 0)
        kept = typical(list, kept, (double)s->typical_p);
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
        {.temperature = 1, .top_p = 1, .typical_p = 0.4f},
        {.temperature = 2.5f, .top_p = 1, .typical_p = 0.9f},
        {.temperature = 3, .top_p = 0.95f, .top_k = 25, .min_p = 0.01f, .typical_p = 0.5f},
        {.temperature = 0.4f, .top_p = 1, .typical_p = 0.01f},
    };
    rt_sampling s = cases[_i];
    s.seed = 1000 + (uint64_t)_i;
    float logits[N];
    double p[N];
    int drawn[N] = {0};
    void *space = malloc(rt_sample_bytes(N));
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
    free(space);
}
END_TEST

/* Rows in which most tokens matter: no sum overflows, and each choice is a typical token. */
START_TEST(typical_of_long_rows) {
    enum { N = 262144 };
    float *logits = malloc(N * sizeof *logits);
    double *p = malloc(N * sizeof *p);
    void *space = malloc(rt_sample_bytes(N));
    for (int c = 0; c < 4; c++) {
        rt_sampling s = {.temperature = c == 3 ? 0.5f : 1, .top_p = 1, .typical_p = 0.3f};
        for (int i = 0; i < N; i++)
            logits[i] = c == 0 ? (i == N / 3 ? 0 : -1) : c == 1 ? 0 : random_logit();
        reference(&s, logits, N, p);
        for (int d = 0; d < 30; d++) {
            int32_t id = rt_sample(&s, logits, N, d, space);
            ck_assert_int_ge(id, 0);
            /* With equal ones, either all are kept or none: the reference cuts among them. */
            if (c == 0)
                ck_assert_int_ne(id, N / 3);
            else if (c > 1)
                ck_assert_double_gt(p[id], 0);
        }
    }
    free(logits);
    free(p);
    free(space);
}
END_TEST

/* Against a sort of all. */
START_TEST(most_probable_ones) {
    static float logits[3000];
    static sorted list[3000];
    for (int c = 0; c < 300; c++) {
        int n = 1 + (int)((random_logit() + 6) * (c % 2 ? 3 : 249)), count = 1 + c % 20, there = 0;
        random_row(logits, n, c % 6);
        for (int i = 0; i < n; i++)
            if (logits[i] > -INFINITY)
                list[there++] = (sorted){.p = (double)logits[i], .id = i};
        qsort(list, (size_t)there, sizeof *list, by_probability);
        int32_t ids[20], found = rt_top(logits, n, count, ids);
        ck_assert_int_eq(found, there < count ? there : count);
        for (int i = 0; i < found; i++)
            ck_assert_int_eq(ids[i], list[i].id);
    }
}
END_TEST

START_TEST(same_seed_same_choice) {
    enum { N = 3000 };
    static float logits[N];
    void *space = malloc(rt_sample_bytes(N));
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
    free(space);
}
END_TEST

START_TEST(greedy_and_broken_logits) {
    float logits[4] = {1, 5, 2, 5};
    uint64_t space[1024];
    ck_assert_uint_le(rt_sample_bytes(4), sizeof space);
    rt_sampling s = {.temperature = 0, .top_p = 1};
    ck_assert_int_eq(rt_sample(&s, logits, 4, 0, space), 1);
    s = (rt_sampling){.temperature = 1, .top_p = 1, .top_k = 1};
    ck_assert_int_eq(rt_sample(&s, logits, 4, 0, space), 1);
    float bad[4] = {NAN, NAN, NAN, NAN};
    s.top_k = 0;
    ck_assert_int_eq(rt_sample(&s, bad, 4, 0, space), -1);
    bad[2] = -INFINITY;
    ck_assert_int_eq(rt_sample(&s, bad, 4, 0, space), -1);
    s.temperature = 0;
    ck_assert_int_eq(rt_sample(&s, bad, 4, 0, space), -1);
    s.temperature = 1;
    bad[3] = bad[1] = INFINITY;
    ck_assert_int_eq(rt_sample(&s, bad, 4, 0, space), 1);
    float one[4] = {-INFINITY, -INFINITY, 0, NAN};
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(rt_sample(&s, one, 4, i, space), 2);
}
END_TEST

/* --- every choice against the interpreter's ------------------------------------------------------
 */

/* Row 0 of the interpreter's sample. */
static int32_t reference_sample(const rt_sampling *s, const float *logits, int n, int64_t position,
                                const uint32_t *mask) {
    ir_diag diag = {0};
    ir_arena *arena = ir_arena_create();
    char text[512];
    snprintf(text, sizeof text,
             "module \"t\" {arch = \"t\"}\n"
             "%%0 = input {name = \"output_rows\"} : i32[R]\n"
             "%%1 = weight {name = \"table\"} : f32[2, %d]\n"
             "%%2 = gather(%%1, %%0) : f32[R, %d]\n"
             "%%3 = sample(%%2) : f32[R, 4]\n"
             "output(%%3) {name = \"samples\"}\n",
             n, n);
    ir_module *module = ir_parse_module(text, strlen(text), "test", &diag);
    ck_assert_ptr_nonnull(module);
    ir_interp_sampling sampling = {.temperature = s->temperature,
                                   .top_p = s->top_p,
                                   .min_p = s->min_p,
                                   .top_k = s->top_k,
                                   .position = (int32_t)position,
                                   .seed = s->seed};
    ir_interp_step step = {.R = 1, .sampling = &sampling, .token_masks = mask};
    float *result;
    bool ok = ir_interp_op(module->graph->last->prev, &step, &logits, &result, arena, &diag);
    ck_assert(ok);
    int32_t id = (int32_t)result[0];
    ir_module_destroy(module);
    ir_arena_destroy(arena);
    ir_diag_clear(&diag);
    return id;
}

START_TEST(choices_are_the_interpreters) {
    static const int lengths[] = {1, 2, 7, 255, 256, 257, 1000, 3000, 49152, 262144};
    enum { MOST = 262144 };
    float *logits = malloc(MOST * sizeof *logits);
    void *space = malloc(rt_sample_bytes(MOST));
    int full = test_full() ? 10 : 1;
    random_state += (uint64_t)_i;
    for (int c = 0; c < 120 * full; c++) {
        int n = lengths[c % (c < 100 ? 8 : 10)], kind = (int)(random_logit() + 6) % 6;
        random_row(logits, n, kind);
        rt_sampling s = {.temperature = 1, .top_p = 1, .seed = (uint64_t)c};
        for (int d = 0; d < (n > 3000 ? 3 : 20); d++) {
            s.temperature = d % 7 == 6 ? 0 : expf(random_logit() / 2);
            s.top_k = random_logit() > 0 ? 0 : 1 + (int)(random_logit() + 6) * (1 + n / 30);
            s.top_p = random_logit() > 0 ? 1 : (random_logit() + 6.01f) / 12.02f;
            if (d % 5 == 4)
                s.top_p = 1e-30f;
            s.min_p = random_logit() > 0 ? 0 : expf(random_logit() - 6);
            int32_t id = rt_sample(&s, logits, n, d, space);
            int32_t expected = reference_sample(&s, logits, n, d, NULL);
            ck_assert_msg(id == expected,
                          "%d logits of kind %d, temperature %a, top_k %d, top_p %a, min_p %a: %d, "
                          "expected %d",
                          n, kind, s.temperature, s.top_k, s.top_p, s.min_p, id, expected);
        }
    }
    free(logits);
    free(space);
}
END_TEST

START_TEST(masked_tokens_are_not_chosen) {
    float logits[100];
    uint64_t space[1024];
    const uint32_t mask[4] = {0, 0x80, 0, 1};
    rt_sampling s = {.temperature = 1, .top_p = 1};
    ck_assert_uint_le(rt_sample_bytes(100), sizeof space);
    int first = 0;
    for (int d = 0; d < 100; d++) {
        random_row(logits, 100, 3);
        int32_t expected = reference_sample(&s, logits, 100, d, mask);
        rt_mask(logits, 100, mask);
        int32_t id = rt_sample(&s, logits, 100, d, space);
        ck_assert_int_eq(id, expected);
        ck_assert(id == 39 || id == 96);
        first += id == 39;
    }
    ck_assert(first > 20 && first < 80);
}
END_TEST

START_TEST(log_probabilities) {
    const float logits[4] = {1, -4, 1, 0};
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
        {.temperature = 1, .top_p = 1, .typical_p = -1},
        {.temperature = 1, .top_p = 1, .typical_p = 1.01f},
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
    tcase_add_test(t, weights_are_close);
    tcase_add_test(t, argmax_of_any_length);
    tcase_add_loop_test(t, frequencies_match, 0, 13);
    tcase_add_test(t, typical_of_long_rows);
    tcase_add_test(t, most_probable_ones);
    tcase_add_test(t, same_seed_same_choice);
    tcase_add_test(t, greedy_and_broken_logits);
    tcase_add_loop_test(t, choices_are_the_interpreters, 0, 2);
    tcase_add_test(t, masked_tokens_are_not_chosen);
    tcase_add_test(t, log_probabilities);
    tcase_add_test(t, parameters_are_checked);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

/* Rejection sampling: by chi-square tests the tokens have the model's distribution, whatever the
 * draft's is, and drafts are kept as often as is possible; with rules that are nearly right, they
 * have not. Seeds are fixed, so that a test that passes always does. */
#include "engine_case.h"
#include "runtime/rejection.h"

#include <math.h>

enum { N = 16, DRAWS = 40000 };

typedef int32_t rule(const rt_distribution *p, const rt_distribution *q, int32_t n, int32_t draft,
                     uint64_t seed, int64_t position);

/* How many standard deviations counts are from what is expected: chi-square, bins of less than 8
 * together, by the normal approximation of Wilson and Hilferty (1931). */
static double deviation(const double *expected, const int64_t *counts, int n) {
    double sum = 0, rest = 0, rest_count = 0;
    int freedom = -1;
    for (int i = 0; i <= n; i++) {
        double e = i < n ? expected[i] : rest, c = i < n ? (double)counts[i] : rest_count;
        if (i < n && e < 8) {
            rest += e;
            rest_count += c;
        } else if (e > 0) {
            sum += (c - e) * (c - e) / e;
            freedom++;
        } else if (c > 0) {
            return INFINITY; /* what cannot be */
        }
    }
    double f = 2 / (9.0 * freedom);
    return (cbrt(sum / freedom) - (1 - f)) / sqrt(f);
}

/* Weights of a distribution; some tokens have none. */
static uint64_t fill(uint32_t *weights, uint32_t seed) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < N; i++) {
        uint32_t dice = fake_mix(seed, i);
        weights[i] = dice % 5 == 0 ? 0 : 1 + (dice >> 8) % (1u << (4 + dice % 23));
        sum += weights[i];
    }
    return sum;
}

/* The deviation of what a rule makes of drafts; *kept becomes the part of them that it keeps. */
static double try_rule(rule *verify, uint32_t seed, double *kept, double *possible) {
    uint32_t p_weights[N], q_weights[N];
    int64_t counts[N] = {0};
    double expected[N];
    rt_distribution p = {p_weights, fill(p_weights, seed)},
                    q = {q_weights, fill(q_weights, seed + 1000)};
    *kept = *possible = 0;
    for (int64_t at = 0; at < DRAWS; at++) {
        int32_t draft = rt_draft_token(&q, seed, at);
        int32_t token = verify(&p, &q, N, draft, seed, at);
        ck_assert(draft >= 0 && draft < N && q_weights[draft] > 0 && token >= 0 && token < N);
        counts[token]++;
        *kept += (token == draft) / (double)DRAWS;
    }
    for (int i = 0; i < N; i++) {
        double p_i = p_weights[i] / (double)p.sum, q_i = q_weights[i] / (double)q.sum;
        expected[i] = DRAWS * p_i;
        *possible += p_i < q_i ? p_i : q_i;
    }
    return deviation(expected, counts, N);
}

static double chance(const rt_distribution *d, int32_t id) {
    return d->weights[id] / (double)d->sum;
}

static double uniform(uint64_t seed, int64_t position, uint32_t stream) {
    return (double)(rt_random_of(seed, position, stream) >> 11) * 0x1p-53;
}

/* A token of what p has more than q. */
static int32_t residual(const rt_distribution *p, const rt_distribution *q, double u) {
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += fmax(0, chance(p, i) - chance(q, i));
    int32_t i = 0;
    for (double at = u * sum; i < N - 1 && at >= fmax(0, chance(p, i) - chance(q, i)); i++)
        at -= fmax(0, chance(p, i) - chance(q, i));
    return i;
}

/* Rejected drafts are drawn again from p, not from what p has more than q. */
static int32_t without_residual(const rt_distribution *p, const rt_distribution *q, int32_t n,
                                int32_t draft, uint64_t seed, int64_t position) {
    (void)n;
    if (uniform(seed, position, 2) * chance(q, draft) < chance(p, draft))
        return draft;
    return rt_draw(p->weights, p->sum, rt_random_of(seed, position, 3));
}

/* Drafts are kept with the probability that p gives them. */
static int32_t kept_by_p(const rt_distribution *p, const rt_distribution *q, int32_t n,
                         int32_t draft, uint64_t seed, int64_t position) {
    (void)n;
    if (uniform(seed, position, 2) < chance(p, draft))
        return draft;
    return residual(p, q, uniform(seed, position, 3));
}

/* The same random number decides what is drafted and whether it is kept. */
static int32_t one_number(const rt_distribution *p, const rt_distribution *q, int32_t n,
                          int32_t draft, uint64_t seed, int64_t position) {
    (void)n;
    if (uniform(seed, position, 1) * chance(q, draft) < chance(p, draft))
        return draft;
    return residual(p, q, uniform(seed, position, 3));
}

START_TEST(the_distribution_is_kept) {
    double kept, possible;
    for (uint32_t seed = 1; seed <= 12; seed++) {
        double z = try_rule(rt_verify_token, seed, &kept, &possible);
        ck_assert_msg(z < 4, "seed %u: %.1f standard deviations", seed, z);
        ck_assert_double_eq_tol(kept, possible, 4 * 0.5 / sqrt(DRAWS));
    }
}
END_TEST

START_TEST(wrong_rules_are_found) {
    static rule *const wrong[] = {without_residual, kept_by_p, one_number};
    double kept, possible;
    for (int w = 0; w < 3; w++) {
        int found = 0; /* where one token has nearly all the weight, hardly a rule is wrong */
        for (uint32_t seed = 1; seed <= 12; seed++)
            found += try_rule(wrong[w], seed, &kept, &possible) >= 4;
        ck_assert_msg(found >= 9, "rule %d passes as right in %d of 12 cases", w, 12 - found);
    }
}
END_TEST

/* Distributions without a token in common; the same one; and one token alone. */
START_TEST(extremes) {
    uint32_t a[4] = {0, 5, 0, 9}, b[4] = {7, 0, 0, 0};
    rt_distribution p = {a, 14}, q = {b, 7};
    for (int64_t at = 0; at < 1000; at++) {
        ck_assert_int_eq(rt_draft_token(&q, 3, at), 0);
        int32_t token = rt_verify_token(&p, &q, 4, 0, 3, at);
        ck_assert(token == 1 || token == 3);
        ck_assert_int_eq(rt_verify_token(&p, &p, 4, token, 3, at), token);
        ck_assert_int_eq(rt_verify_token(&q, &p, 4, token, 3, at), 0);
    }
}
END_TEST

/* --- through the engine --------------------------------------------------------------------------
 */

enum { REQUESTS = 6000, PROMPT = 3 };
static const float temperature = 3;

/* None; and penalties that tell the second token from the first, and both from the prompt's. */
static const int32_t biased[1] = {7};
static const float bias[1] = {3};
static const mcc_request_params adjustments[2] = {{.n = 0},
                                                  {.repetition_penalty = 0.9f,
                                                   .presence_penalty = -2,
                                                   .frequency_penalty = -1,
                                                   .logit_bias_ids = biased,
                                                   .logit_bias = bias,
                                                   .n_logit_bias = 1}};

/* A logit as the parameters change it: see adjust.h. */
static double adjusted(const mcc_request_params *how, const int32_t *ids, int64_t n, int32_t t) {
    double x = (double)fake_logit(ids, n, t);
    int seen = 0, output = 0;
    for (int64_t i = 0; i < n; i++) {
        seen += ids[i] == t;
        output += ids[i] == t && i >= PROMPT;
    }
    x += how->n_logit_bias > 0 && biased[0] == t ? (double)bias[0] : 0;
    if (how->repetition_penalty > 0 && seen > 0)
        x = x > 0 ? x / (double)how->repetition_penalty : x * (double)how->repetition_penalty;
    return x - (double)how->frequency_penalty * output -
           (output > 0 ? (double)how->presence_penalty : 0);
}

/* The distribution of the token after ids[0 … n-1]. */
static void exact(const mcc_request_params *how, const int32_t *ids, int64_t n, double *p) {
    double sum = 0;
    for (int32_t t = 0; t < FAKE_VOCAB; t++)
        sum += p[t] = exp((adjusted(how, ids, n, t) - 16) / (double)temperature);
    for (int32_t t = 0; t < FAKE_VOCAB; t++)
        p[t] /= sum;
}

/* Third tokens, of which most were drafted: their distribution is the sum over all that may come
 * before. Those that are the second one again are counted apart: with penalties they depend on it.
 */
START_TEST(the_engine_keeps_the_distribution) {
    static fake_artifact a;
    char draft_path[FAKE_PATH];
    mcc_artifact *draft;
    memset(&a, 0, sizeof a);
    fake_tables_init(&a.tables);
    a.odd = FAKE_VOCAB / 2;
    fake_artifact_write(&a, draft_path);
    ck_assert_int_eq(mcc_artifact_open(draft_path, NULL, &draft, NULL), MCC_OK);
    mcc_engine *engine = make_engine(
        (mcc_engine_options){.threads = 1,
                             .max_num_seqs = 32,
                             .draft = draft,
                             .flags = MCC_ENGINE_DRAFT_ALWAYS | MCC_ENGINE_REJECTION_SAMPLING});
    static double first[FAKE_VOCAB], second[FAKE_VOCAB], third[FAKE_VOCAB + 1], p[FAKE_VOCAB];
    int32_t ids[PROMPT + 2] = {9, 30, 12};
    const mcc_request_params *how = &adjustments[_i];
    exact(how, ids, PROMPT, first);
    for (ids[3] = 0; ids[3] < FAKE_VOCAB; ids[3]++) {
        exact(how, ids, PROMPT + 1, second);
        for (ids[4] = 0; ids[4] < FAKE_VOCAB; ids[4]++) {
            exact(how, ids, PROMPT + 2, p);
            for (int t = 0; t < FAKE_VOCAB; t++)
                third[t == ids[4] ? FAKE_VOCAB : t] +=
                    REQUESTS * first[ids[3]] * second[ids[4]] * p[t];
        }
    }
    int64_t counts[FAKE_VOCAB + 1] = {0};
    static result r;
    for (int begin = 0; begin < REQUESTS; begin += 600) {
        mcc_request_params params = *how;
        params.flags = MCC_REQUEST_IGNORE_EOS;
        params.prompt_ids = ids;
        params.n_prompt_ids = PROMPT;
        params.max_tokens = 4;
        params.temperature = temperature;
        params.seed = 1000 + (uint64_t)begin;
        params.n = 600;
        params.num_speculative_tokens = 2;
        uint64_t id = submit(engine, params);
        for (int32_t unfinished = 1; unfinished > 0;)
            ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
        for (uint64_t i = 0; i < 600; i++) {
            memset(&r, 0, sizeof r);
            take_events(engine, id + i, &r);
            ck_assert_int_eq(r.n, 4);
            counts[r.ids[2] == r.ids[1] ? FAKE_VOCAB : r.ids[2]]++;
        }
    }
    double z = deviation(third, counts, FAKE_VOCAB + 1);
    ck_assert_msg(z < 4, "%.1f standard deviations", z);
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    mcc_engine_get_stats(engine, &stats, NULL);
    ck_assert_uint_gt(stats.accepted_tokens, stats.draft_tokens / 4);
    ck_assert_uint_lt(stats.accepted_tokens, stats.draft_tokens * 9 / 10);
    ck_assert_uint_eq(stats.draft_tokens_at[0] + stats.draft_tokens_at[1], stats.draft_tokens);
    ck_assert_uint_eq(stats.accepted_tokens_at[0] + stats.accepted_tokens_at[1],
                      stats.accepted_tokens);
    /* Greedy requests have the model's own tokens. */
    mcc_request_params greedy = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = ids,
                                 .n_prompt_ids = PROMPT,
                                 .max_tokens = 60,
                                 .num_speculative_tokens = 4};
    generate(engine, greedy, &r);
    check_greedy(ids, PROMPT, &r);
    mcc_engine_destroy(engine);
    mcc_engine_options options = {.struct_size = sizeof options,
                                  .flags = MCC_ENGINE_REJECTION_SAMPLING};
    ck_assert_int_eq(mcc_engine_create(model, &options, &engine, NULL), MCC_INVALID_ARGUMENT);
    mcc_artifact_close(draft);
    unlink(draft_path);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("rejection");
    TCase *t = tcase_create("rejection");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup_without_text, teardown);
    tcase_add_test(t, the_distribution_is_kept);
    tcase_add_test(t, wrong_rules_are_found);
    tcase_add_test(t, extremes);
    tcase_add_loop_test(t, the_engine_keeps_the_distribution, 0, 2);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

/* How many tokens are drafted: simulations in which a step's cost is what a function says, so that
 * all is exact. Drafts never cost more than 3 % of what the tokens cost without them, whatever the
 * text does, one that contradicts every draft too; and where they pay, nearly as much is saved as
 * the best fixed length saves. */
#include "check_main.h"
#include "runtime/lookup.h"
#include "runtime/speculation.h"

enum { MOST = 8, TOKENS = 4000, SEQUENCES = 8 };

/* --- what steps cost -----------------------------------------------------------------------------
 */

typedef double step_seconds(int32_t tokens);

static double flat(int32_t tokens) {
    return 1 + 0.02 * (tokens - 1);
}

/* As measured on a CPU: mostly memory's bandwidth. */
static double usual(int32_t tokens) {
    return 1 + 0.09 * (tokens - 1);
}

static double steep(int32_t tokens) {
    return 1 + 0.5 * (tokens - 1);
}

/* Nothing is won by computing tokens together. */
static double linear(int32_t tokens) {
    return tokens;
}

/* Tiles of four tokens. */
static double stairs(int32_t tokens) {
    return 0.6 + 0.4 * ((tokens + 3) / 4);
}

static step_seconds *const costs[] = {flat, usual, steep, linear, stairs};
enum { COSTS = sizeof costs / sizeof *costs };

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* --- texts by prompt lookup ----------------------------------------------------------------------
 */

/* The token at ids[n]; `draft` is what is offered for it, NULL: nothing. */
typedef int32_t text_token(const int32_t *ids, int64_t n, const int32_t *draft, uint32_t *state);

static int32_t copied(const int32_t *ids, int64_t n, const int32_t *draft, uint32_t *state) {
    (void)draft;
    return n < 200 ? (int32_t)(next_random(state) % 1000) : ids[n - 200];
}

static int32_t repeated(const int32_t *ids, int64_t n, const int32_t *draft, uint32_t *state) {
    (void)draft;
    return n < 20 ? (int32_t)(next_random(state) % 1000) : ids[n - 20];
}

static int32_t random_token(const int32_t *ids, int64_t n, const int32_t *draft, uint32_t *state) {
    (void)ids, (void)n, (void)draft;
    return (int32_t)(next_random(state) % 12);
}

static int32_t contrary(const int32_t *ids, int64_t n, const int32_t *draft, uint32_t *state) {
    int32_t id = random_token(ids, n, draft, state);
    return draft && id == *draft ? (id + 1) % 12 : id;
}

/* Agrees until drafts are trusted, then contradicts them. */
static int32_t fickle(const int32_t *ids, int64_t n, const int32_t *draft, uint32_t *state) {
    int32_t id = contrary(ids, n, draft, state);
    return draft && n / 40 % 2 ? *draft : id;
}

/* Each draft's first tokens are right, and no other. */
static int32_t teasing(const int32_t *ids, int64_t n, const int32_t *draft, uint32_t *state) {
    int32_t id = contrary(ids, n, draft, state);
    return draft && n % 3 ? *draft : id;
}

typedef struct sequence {
    int32_t ids[TOKENS + MOST + 1];
    int64_t n;
    rt_lookup *lookup;
    rt_acceptance acceptance;
    text_token *text;
    uint32_t state;
} sequence;

/* Runs sequences together until each has `tokens` tokens; returns the time that they would take
 * without drafts, by the time that they take. */
static double run(text_token *const *texts, int count, int64_t tokens, step_seconds *cost) {
    static sequence sequences[SEQUENCES];
    static rt_speculation s;
    double with = 0, without = 0;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < count; i++) {
        sequences[i] =
            (sequence){.text = texts[i], .state = (uint32_t)i, .lookup = rt_lookup_open(2, TOKENS)};
        ck_assert_ptr_nonnull(sequences[i].lookup);
    }
    for (;;) {
        rt_draft_step step = {0};
        rt_draft_offer offers[SEQUENCES];
        sequence *offered[SEQUENCES], *all[SEQUENCES];
        int n = 0;
        for (int i = 0; i < count; i++) {
            sequence *q = &sequences[i];
            if (q->n >= tokens)
                continue;
            all[step.decoding++] = q;
            int32_t first, most = tokens - q->n - 1 < MOST ? (int32_t)(tokens - q->n - 1) : MOST;
            int32_t found =
                rt_lookup_draft(q->lookup, q->ids, q->n, 16, most, q->ids + q->n, &first);
            if (found > 0) {
                offered[n] = q;
                offers[n++] =
                    (rt_draft_offer){.n = found, .first = first, .acceptance = &q->acceptance};
            }
        }
        if (step.decoding == 0)
            break;
        step.tokens = step.decoding;
        rt_speculation_choose(&s, &step, offers, n);
        int32_t drafted = 0, right = 0;
        for (int i = 0, next = 0; i < step.decoding; i++) {
            sequence *q = all[i];
            const rt_draft_offer *o = next < n && offered[next] == q ? &offers[next++] : NULL;
            int32_t kept = 0, chosen = o ? o->chosen : 0;
            ck_assert_int_le(chosen, MOST);
            for (;; kept++) {
                const int32_t *draft = o && kept < o->n ? &q->ids[q->n] : NULL;
                int32_t was = draft ? *draft : -1;
                q->ids[q->n] = q->text(q->ids, q->n, draft, &q->state);
                if (kept == chosen || q->ids[q->n++] != was)
                    break;
            }
            q->n += kept == chosen;
            drafted += chosen;
            right += kept;
            if (chosen > 0) {
                rt_acceptance_learn(&q->acceptance, o->first, chosen, kept);
                rt_acceptance_learn(&s.acceptance, o->first, chosen, kept);
            }
        }
        with += cost(step.tokens + drafted);
        without += cost(step.decoding) / step.decoding * (step.decoding + right);
        rt_step_cost_learn(&s.cost, step.tokens + drafted, cost(step.tokens + drafted));
        rt_speculation_account(&s, &step, drafted, right, 0);
    }
    for (int i = 0; i < count; i++)
        rt_lookup_close(sequences[i].lookup);
    return without / with;
}

START_TEST(no_text_makes_it_slow) {
    static text_token *const texts[] = {copied, random_token, contrary, fickle, teasing};
    enum { TEXTS = sizeof texts / sizeof *texts };
    static const int64_t lengths[] = {64, 200, TOKENS};
    for (int c = 0; c < COSTS; c++)
        for (int t = 0; t < TEXTS; t++)
            for (int l = 0; l < 3; l++) {
                double speed = run(&texts[t], 1, lengths[l], costs[c]);
                ck_assert_msg(speed >= 0.97, "cost %d, text %d, %d tokens: %.3f", c, t,
                              (int)lengths[l], speed);
            }
    /* Many at once, each another text: some pay for none of the others. */
    text_token *mixed[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++)
        mixed[i] = texts[i % TEXTS];
    for (int c = 0; c < COSTS; c++) {
        double speed = run(mixed, SEQUENCES, 1000, costs[c]);
        ck_assert_msg(speed >= 0.97, "cost %d, mixed: %.3f", c, speed);
    }
}
END_TEST

START_TEST(copies_are_fast) {
    text_token *const text = copied;
    double speed = run(&text, 1, TOKENS, usual);
    ck_assert_msg(speed > 4, "%.3f", speed); /* 9 tokens for 1.72 */
    text_token *const list = repeated;
    speed = run(&list, 1, 80, usual);
    ck_assert_msg(speed > 2.25, "%.3f",
                  speed); /* 20 tokens, then 9 for 1.72: no long trial first */
    speed = run(&text, 1, TOKENS, linear);
    ck_assert_double_eq_tol(speed, 1, 0.03);
    text_token *many[SEQUENCES] = {copied, copied, copied, copied, copied, copied, copied, copied};
    speed = run(many, SEQUENCES, TOKENS, usual);
    ck_assert_msg(speed > 1.7, "%.3f", speed); /* 72 tokens for 7.39, and 8 for 1.63 */
}
END_TEST

/* --- a draft model -------------------------------------------------------------------------------
 */

/* A sequence of `tokens` tokens, of which a draft is right with probability `alpha`. */
static double run_draft(double alpha, double ratio, int32_t tokens, step_seconds *cost) {
    static rt_speculation s;
    rt_acceptance acceptance = {0};
    rt_step_cost own = {0};
    double with = 0;
    uint32_t state = 11;
    memset(&s, 0, sizeof s);
    for (int32_t n = 0; n < tokens;) {
        rt_draft_step step = {.decoding = 1, .tokens = 1, .draft = &own, .draft_ratio = ratio};
        rt_draft_offer offer = {.n = MOST, .acceptance = &acceptance};
        rt_speculation_choose(&s, &step, &offer, 1);
        int32_t kept = 0;
        while (kept < offer.chosen && next_random(&state) % 10000 < alpha * 10000)
            kept++;
        double drafting = offer.chosen * ratio * cost(1);
        if (offer.chosen > 0) {
            rt_step_cost_learn(&own, 1, ratio * cost(1));
            rt_acceptance_learn(&acceptance, 0, offer.chosen, kept);
            rt_acceptance_learn(&s.acceptance, 0, offer.chosen, kept);
        }
        with += cost(1 + offer.chosen) + drafting;
        rt_step_cost_learn(&s.cost, 1 + offer.chosen, cost(1 + offer.chosen));
        rt_speculation_account(&s, &step, offer.chosen, kept, drafting);
        n += 1 + kept;
        if (n > tokens)
            with *= (double)tokens / n;
    }
    return tokens * cost(1) / with;
}

/* The speed of the best fixed length (Leviathan et al. 2023, theorem 3.8). */
static double best_fixed(double alpha, double ratio, step_seconds *cost) {
    double best = 1, right = 1, p = 1;
    for (int k = 1; k <= MOST; k++) {
        p *= alpha;
        right += p;
        double speed = right * cost(1) / (cost(1 + k) + k * ratio * cost(1));
        best = speed > best ? speed : best;
    }
    return best;
}

START_TEST(a_draft_model_pays_or_is_left) {
    static const double alphas[] = {0, 0.2, 0.5, 0.8, 0.9, 1}, ratios[] = {0.05, 0.2, 0.5, 1};
    for (int c = 0; c < COSTS; c++)
        for (int a = 0; a < 6; a++)
            for (int r = 0; r < 4; r++) {
                double best = best_fixed(alphas[a], ratios[r], costs[c]);
                for (int l = 0; l < 2; l++) {
                    double speed = run_draft(alphas[a], ratios[r], l ? 3000 : 100, costs[c]);
                    ck_assert_msg(speed >= 0.97 && (l == 0 || speed >= 0.85 * best),
                                  "cost %d, acceptance %g, draft %g: %.3f, at best %.3f", c,
                                  alphas[a], ratios[r], speed, best);
                }
            }
}
END_TEST

/* --- the parts -----------------------------------------------------------------------------------
 */

START_TEST(costs_are_learned) {
    rt_step_cost c = {0};
    ck_assert_double_eq(rt_step_cost_of(&c, 3), 0);
    rt_step_cost_learn(&c, 1, 1);
    ck_assert_double_eq_tol(rt_step_cost_of(&c, 1), 1, 1e-12);
    ck_assert_double_eq_tol(rt_step_cost_of(&c, 11), 2,
                            1e-12); /* nothing known: 10 % for as many again */
    rt_step_cost_learn(&c, 5, 3);
    ck_assert_double_eq_tol(rt_step_cost_of(&c, 3), 2, 1e-12);
    ck_assert_double_eq_tol(rt_step_cost_of(&c, 7), 4, 1e-12);
    rt_step_cost_learn(&c, 9, 2); /* less than before: as much at least */
    ck_assert_double_eq_tol(rt_step_cost_of(&c, 12), 3, 1e-12);
    /* An outlier counts for little; a change is followed. */
    rt_step_cost_learn(&c, 1, 100);
    ck_assert_double_lt(rt_step_cost_of(&c, 1), 1.2);
    for (int i = 0; i < 60; i++)
        rt_step_cost_learn(&c, 1, 100);
    ck_assert_double_gt(rt_step_cost_of(&c, 1), 90);
    /* All sizes have a place, and near ones one of their own. */
    rt_step_cost d = {0};
    for (int32_t t = 1; t <= 65536; t = t < 64 ? t + 1 : t * 2)
        rt_step_cost_learn(&d, t, t);
    for (int32_t t = 1; t <= 2048; t++)
        ck_assert_double_eq_tol(rt_step_cost_of(&d, t), t, 0.2 * t);
}
END_TEST

/* Only what was reached is learned from. */
START_TEST(acceptance_is_learned) {
    rt_acceptance a = {0};
    rt_acceptance_learn(&a, 2, 4, 1);
    ck_assert_float_eq(a.tried[2], 1);
    ck_assert_float_eq(a.right[2], 1);
    ck_assert_float_eq(a.tried[3], 1);
    ck_assert_float_eq(a.right[3], 0);
    ck_assert_float_eq(a.tried[4], 0);
    rt_acceptance_learn(&a, RT_DRAFT_CLASSES - 1, 3, 3); /* the last class is for all above */
    ck_assert_float_eq(a.tried[RT_DRAFT_CLASSES - 1], 3);
    for (int i = 0; i < 1000; i++)
        rt_acceptance_learn(&a, 0, 1, 1);
    for (int i = 0; i < 50; i++)
        rt_acceptance_learn(&a, 0, 1, 0);
    ck_assert_float_lt(a.right[0] / a.tried[0], 0.2f);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("speculation");
    TCase *t = tcase_create("speculation");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, no_text_makes_it_slow);
    tcase_add_test(t, copies_are_fast);
    tcase_add_test(t, a_draft_model_pays_or_is_left);
    tcase_add_test(t, costs_are_learned);
    tcase_add_test(t, acceptance_is_learned);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

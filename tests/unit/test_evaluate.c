/* Scores of logits and windows of a text. */
#include "compiler/evaluate.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

enum { ROWS = 9, VOCAB = 1000 };

static float random_logit(uint32_t *state) {
    return (float)(next_random(state) % 20000) / 500.0f - 20.0f;
}

/* -log softmax(x)[at], without the shift by the maximum. */
static double plain_nll(const float *x, int at) {
    double sum = 0;
    for (int i = 0; i < VOCAB; i++)
        sum += exp(x[i]);
    return log(sum) - x[at];
}

static double plain_kl(const float *reference, const float *x) {
    double sum = 0;
    for (int i = 0; i < VOCAB; i++) {
        double p = -plain_nll(reference, i), q = -plain_nll(x, i);
        sum += exp(p) * (p - q);
    }
    return sum;
}

START_TEST(rows_are_softmax_and_divergence) {
    static float x[ROWS][VOCAB], y[ROWS][VOCAB];
    int32_t targets[ROWS];
    uint32_t state = 7;
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < VOCAB; i++) {
            x[r][i] = random_logit(&state);
            y[r][i] = x[r][i] + (r % 2 ? random_logit(&state) / 10 : 0);
        }
        targets[r] = (int32_t)(next_random(&state) % VOCAB);
    }
    x[3][5] = 40, y[3][6] = 40; /* other tops */
    evaluate_row one[ROWS], three[ROWS];
    evaluate_rows(x[0], y[0], targets, ROWS, VOCAB, 1, one);
    evaluate_rows(x[0], y[0], targets, ROWS, VOCAB, 3, three);
    for (int r = 0; r < ROWS; r++) {
        ck_assert(one[r].nll == three[r].nll && one[r].reference_nll == three[r].reference_nll &&
                  one[r].kl == three[r].kl && one[r].same_top == three[r].same_top);
        ck_assert_double_eq_tol(one[r].nll, plain_nll(x[r], targets[r]), 1e-5);
        ck_assert_double_eq_tol(one[r].reference_nll, plain_nll(y[r], targets[r]), 1e-5);
        ck_assert_double_eq_tol(one[r].kl, plain_kl(y[r], x[r]), 1e-5);
    }
    ck_assert_double_eq(one[0].kl, 0);
    ck_assert(one[0].same_top && !one[3].same_top && one[3].kl > 1);
    evaluate_sums sums = {0};
    evaluate_add(&sums, one, ROWS);
    ck_assert_int_eq(sums.tokens, ROWS);
    ck_assert_double_ge(sums.kl_most, sums.kl / ROWS);
}
END_TEST

/* Logits that f32's exp cannot hold do not overflow. */
START_TEST(large_logits_stay_finite) {
    float x[3] = {3e4f, -3e4f, 2.9e4f};
    int32_t target = 1;
    evaluate_row row;
    evaluate_rows(x, NULL, &target, 1, 3, 1, &row);
    ck_assert_double_eq_tol(row.nll, 6e4, 1e-3);
}
END_TEST

/* Every token that has one before it is scored once, with as many before it as the windows allow.
 */
START_TEST(windows_score_every_token_once) {
    uint32_t state = 11;
    for (int round = 0; round < 3000; round++) {
        int64_t n = next_random(&state) % 60, prefix = next_random(&state) % 3;
        int64_t window = prefix + 2 + next_random(&state) % 12, room = window - prefix;
        int64_t stride = 1 + next_random(&state) % room;
        int scored[64] = {0};
        evaluate_window w;
        for (int64_t at = 0; evaluate_window_at(n, prefix, window, stride, at, &w); at++) {
            ck_assert_int_eq(w.text_begin, at * stride);
            ck_assert(w.text_end <= n && w.text_end - w.text_begin <= room);
            ck_assert(w.text_end == n || w.text_end - w.text_begin == room);
            ck_assert(w.score_begin >= w.text_begin + (prefix == 0));
            for (int64_t i = w.score_begin; i < w.text_end; i++)
                scored[i]++;
        }
        for (int64_t i = 0; i < n; i++) {
            /* Without a prefix the first token of a window that the one before does not reach. */
            bool lost = !prefix && (i == 0 || (stride == room && i % stride == 0));
            ck_assert_msg(scored[i] == !lost,
                          "token %d of %d: %d times (prefix %d, window %d, stride %d)", (int)i,
                          (int)n, scored[i], (int)prefix, (int)window, (int)stride);
        }
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("evaluate");
    TCase *tests = tcase_create("evaluate");
    tcase_add_test(tests, rows_are_softmax_and_divergence);
    tcase_add_test(tests, large_logits_stay_finite);
    tcase_add_test(tests, windows_score_every_token_once);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

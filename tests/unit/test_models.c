/* Whole models, compiled and run through the public header, against the logits that transformers
 * computes: prefill, token by token, and mixed ragged batches; and the same bits whatever the
 * chunks of the prompt, the threads, the batch, the level of the processor and the fusion.
 *
 * Bound: max|difference| / max|reference| <= 1e-4 with float activations and a float cache.
 *
 * Every model's logits are always checked; of the other tests' models a sample, by MCC_TEST_SEED,
 * unless MCC_TEST_FULL is 1. */
#include "model_case.h"

static const double bound = 1e-4;

/* --- tests
 * ---------------------------------------------------------------------------------------------- */

START_TEST(logits_equal_the_reference) {
    const subject *s = &subjects[_i];
    reference *ref = reference_open(s->stem);
    pass_options passes = exact_options("full");
    char path[256];
    compile(s, &passes, false, path, sizeof path);
    opened o;
    ck_assert(open_model(path, NULL, 2, 512, &o));
    unlink(path);
    for (int i = 0; i < ref->n_cases; i++) {
        float *whole = run_case(o.engine, ref, i, 512);
        double e = error_of(ref, i, whole);
        ck_assert_msg(e <= bound, "%s: case %s: prefill: error %g", s->input, ref->cases[i].name,
                      e);
        float *single = run_case(o.engine, ref, i, 1);
        expect_same_bits(ref, i, whole, single, "token by token");
        float *chunked = run_case(o.engine, ref, i, 13);
        expect_same_bits(ref, i, whole, chunked, "prefill in chunks of 13");
        free(single);
        free(chunked);
        free(whole);
    }
    float *mixed[MAX_CASES];
    for (int i = 0; i < ref->n_cases; i++)
        mixed[i] = calloc((size_t)(ref->cases[i].n_tokens * ref->vocab), sizeof(float));
    for (int i = 0; i < ref->n_cases; i += EVAL_SEQS)
        run_mixed(o.engine, ref, i, mixed + i);
    for (int i = 0; i < ref->n_cases; i++) {
        double e = error_of(ref, i, mixed[i]);
        ck_assert_msg(e <= bound, "%s: case %s: mixed batch: error %g", s->input,
                      ref->cases[i].name, e);
        free(mixed[i]);
    }
    close_model(&o);
    reference_close(ref);
}
END_TEST

START_TEST(mixed_batches_change_nothing) {
    if (!is_sampled(_i, "mixed"))
        TEST_UNSAMPLED("mixed batches of %s", subjects[_i].input);
    const subject *s = &subjects[_i];
    reference *ref = reference_open(s->stem);
    /* The defaults, int8 beside quantized weights, but for pages of several kinds. */
    pass_options passes = {.kv = pages_of(_i)};
    char path[256];
    compile(s, &passes, true, path, sizeof path);
    opened o;
    ck_assert(open_model(path, NULL, 1, 512, &o));
    float *alone[MAX_CASES], *mixed[MAX_CASES];
    for (int i = 0; i < ref->n_cases; i++) {
        alone[i] = run_case(o.engine, ref, i, 512);
        mixed[i] = calloc((size_t)(ref->cases[i].n_tokens * ref->vocab), sizeof(float));
    }
    for (int i = 0; i < ref->n_cases; i += EVAL_SEQS) {
        run_mixed(o.engine, ref, i, mixed + i);
        for (int k = i; k < i + EVAL_SEQS && k < ref->n_cases; k++)
            expect_same_bits(ref, k, alone[k], mixed[k], "a mixed batch");
    }
    close_model(&o);
    /* Each level of the processor, on two threads. */
    int n;
    const cg_cpu_target *targets = cg_cpu_targets(&n);
    for (int t = 0; t < n; t++) {
        if (!open_model(path, targets[t].name, 2, 64, &o)) {
            TEST_SKIP_PART("this processor cannot run %s", targets[t].name);
            continue;
        }
        for (int i = 0; i < ref->n_cases; i++) {
            float *again = run_case(o.engine, ref, i, 64);
            expect_same_bits(ref, i, alone[i], again, targets[t].name);
            free(again);
        }
        close_model(&o);
    }
    unlink(path);
    for (int i = 0; i < ref->n_cases; i++) {
        free(alone[i]);
        free(mixed[i]);
    }
    reference_close(ref);
}
END_TEST

/* What a strategy fuses decides where numbers are kept, never which they are. */
static void compare_fusions(const subject *s, bool exact) {
    static const char *const strategies[] = {"none", "pointwise", "full", "prologues"};
    reference *ref = reference_open(s->stem);
    float *first[MAX_CASES];
    for (int f = 0; f < 4; f++) {
        pass_options passes = {.fusion = strategies[f]};
        if (exact)
            passes = exact_options(strategies[f]);
        char path[256];
        compile(s, &passes, false, path, sizeof path);
        opened o;
        ck_assert(open_model(path, NULL, 2, 512, &o));
        unlink(path);
        for (int i = 0; i < ref->n_cases; i++) {
            float *got = run_case(o.engine, ref, i, 512);
            double e = exact ? error_of(ref, i, got) : 0;
            ck_assert_msg(e <= bound, "%s: fusion %s: case %s: error %g", s->input, strategies[f],
                          ref->cases[i].name, e);
            if (f) {
                expect_same_bits(ref, i, first[i], got, strategies[f]);
                free(got);
            } else {
                first[i] = got;
            }
        }
        close_model(&o);
    }
    for (int i = 0; i < ref->n_cases; i++)
        free(first[i]);
    reference_close(ref);
}

START_TEST(fusion_changes_nothing) {
    if (!is_sampled(_i, "fusion"))
        TEST_UNSAMPLED("fusion of %s", subjects[_i].input);
    compare_fusions(&subjects[_i], true);
    compare_fusions(&subjects[_i], false);
}
END_TEST

static Suite *models_suite(void) {
    find_subjects();
    Suite *suite = suite_create("models");
    TCase *tcase = tcase_create("models");
    tcase_set_timeout(tcase, 300);
    tcase_add_checked_fixture(tcase, make_directory, remove_directory);
    tcase_add_loop_test(tcase, logits_equal_the_reference, 0, n_subjects);
    tcase_add_loop_test(tcase, mixed_batches_change_nothing, 0, n_subjects);
    tcase_add_loop_test(tcase, fusion_changes_nothing, 0, n_subjects);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(models_suite)

/* Paged attention on the CPU: against plain C in f64, and the same bits on every processor level,
 * however tokens share a step, and whatever lies where a token does not look. */
#include "attention_case.h"

START_TEST(attention) {
    const shape *s = &shapes[_i];
    fixture *f = make_fixture(s);
    const cg_kernel *kernel = &f->kernel;
    cpu_code code = cpu_load(&kernel, 1);
    size_t row = (size_t)(s->heads * s->dim), bytes = (size_t)f->T * row * 4;
    float *first = aligned(bytes), *out = aligned(bytes);
    void *args[] = {f->q, f->pool, out};
    mcc_cpu_call call = {.step = &f->step.head, .args = args, .T = f->T, .S = s->n_seqs, .R = f->T};

    /* The whole step, on every level, in one piece and tile by tile. */
    memset(f->pool, 0xff, f->pool_bytes);
    for (int i = 0; i < s->n_seqs; i++)
        fill(f, i, f->step.lens[i]);
    for (int run = 0; run < 2 * code.n_targets; run++) {
        memset(out, 0x5a, bytes);
        cpu_run(code.functions[run / 2][0], kernel, &call, run % 2);
        if (run == 0)
            memcpy(first, out, bytes);
        ck_assert_msg(memcmp(first, out, bytes) == 0, "run %d differs", run);
    }
    double want[256], worst = 0;
    for (int t = 0; t < f->T; t++)
        for (int h = 0; h < s->heads; h++) {
            reference(f, t, h, want, NULL);
            for (int c = 0; c < s->dim; c++) {
                double error =
                    fabs((double)first[(size_t)t * row + (size_t)(h * s->dim + c)] - want[c]);
                ck_assert_msg(error <= 1.5e-6 * fabs((double)s->loudness),
                              "token %d head %d column %d is off by %g", t, h, c, error);
                worst = error > worst ? error : worst;
            }
        }
    ck_assert(worst > 0);

    /* Each token alone, nothing stored after it: the same bits. Then the chunks of the prompt: a
     * step from token t on. */
    step_block whole = f->step;
    float *q = f->q;
    for (int t = 0; t < whole.head.T; t++)
        for (int alone = 0; alone < 2; alone++) {
            int n = alone ? 1 : whole.head.T - t, seq = whole.seqs[t];
            if (!alone && t % 5 != 3)
                continue;
            f->step = whole;
            f->step.head.T = n;
            memmove(f->step.positions, whole.positions + t, (size_t)n * 4);
            memmove(f->step.seqs, whole.seqs + t, (size_t)n * 4);
            memset(f->pool, 0xff, f->pool_bytes);
            if (alone)
                fill(f, seq, whole.positions[t] + 1);
            else
                for (int i = 0; i < s->n_seqs; i++)
                    fill(f, i, whole.lens[i]);
            args[0] = q + (size_t)t * row;
            call.T = n;
            for (int target = 0; target < code.n_targets; target++) {
                cpu_run(code.functions[target][0], kernel, &call, 0);
                ck_assert_msg(memcmp(out, first + (size_t)t * row, (size_t)n * row * 4) == 0,
                              "token %d differs with %d tokens in the step", t, n);
            }
        }
    f->q = q;
    free(first);
    free(out);
    free_fixture(f);
    cpu_unload(&code);
}
END_TEST

static void expect_refusal(const cg_kernel *kernel, const char *text) {
    ir_diag diag = {0};
    cg_object object;
    ck_assert(
        !cg_cpu_compile(&kernel, 1, cg_cpu_target_find("cpu:x86-64-v4"), NULL, &diag, &object));
    ck_assert_msg(strstr(diag.messages[0].text, text) != NULL, "%s", diag.messages[0].text);
    ir_diag_clear(&diag);
}

START_TEST(refusals) {
    fixture *f = make_fixture(&shapes[0]);
    f->args[1].kv.page_tokens = 32;
    expect_refusal(&f->kernel, "pages of 32 tokens");
    f->args[1].kv.page_tokens = PAGE;
    f->args[1].kv.dtype = IR_BF16;
    expect_refusal(&f->kernel, "pages of bf16");
    f->args[1].kv.dtype = IR_F16;
    f->kernel.attention.heads = 8;
    expect_refusal(&f->kernel, "attention of 8 heads");
    f->kernel.attention.heads = 9;
    f->args[0].type.dtype = IR_F16;
    expect_refusal(&f->kernel, "queries");
    free_fixture(f);
}
END_TEST

static Suite *attention_suite(void) {
    Suite *suite = suite_create("cpu_attention");
    TCase *tcase = tcase_create("attention");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, attention, 0, N_SHAPES);
    tcase_add_test(tcase, refusals);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(attention_suite)

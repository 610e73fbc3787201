/* quantize and paged-kv change what a model stores and how it runs, not what it computes: the
 * interpreter before and after, on random weights. */
#include "interp_case.h"
#include "passes/pass.h"

#define PASS(name, function, summary) bool function(pass_context *context);
#include "passes/passes.def"
#undef PASS

enum { ROWS = 60, WIDTH = 64, OUT = 60, TOKENS = 9 };

#define MODEL                                                                                      \
    "%0 = input {name = \"token_ids\"} : i32[T]\n"                                                 \
    "%1 = input {name = \"output_rows\"} : i32[R]\n"                                               \
    "%2 = weight {name = \"embed\"} : bf16[60, 64]\n"                                              \
    "%3 = weight {name = \"q\"} : f32[64, 64]\n"                                                   \
    "%4 = weight {name = \"k\"} : f32[32, 64]\n"                                                   \
    "%5 = weight {name = \"v\"} : f32[32, 64]\n"                                                   \
    "%6 = gather(%2, %0) : bf16[T, 64] @\"embed\"\n"                                               \
    "%7 = cast(%6) : f32[T, 64]\n"                                                                 \
    "%8 = matmul(%7, %3) {transpose_b = 1} : f32[T, 64] @\"q\"\n"                                  \
    "%9 = matmul(%7, %4) {transpose_b = 1} : f32[T, 32] @\"k\"\n"                                  \
    "%10 = matmul(%7, %5) {transpose_b = 1} : f32[T, 32] @\"v\"\n"                                 \
    "%11 = reshape(%8) : f32[T, 4, 16]\n"                                                          \
    "%12 = reshape(%9) : f32[T, 2, 16]\n"                                                          \
    "%13 = reshape(%10) : f32[T, 2, 16]\n"                                                         \
    "%14 = attention(%11, %12, %13) {scale = 0.05} : f32[T, 4, 16] @\"attention\"\n"               \
    "%15 = reshape(%14) : f32[T, 64]\n"                                                            \
    "%16 = gather(%15, %1) : f32[R, 64]\n"                                                         \
    "%17 = matmul(%16, %2) {transpose_b = 1} : f32[R, 60] @\"logits\"\n"                           \
    "output(%17) {name = \"logits\"}\n"

static uint16_t embed[ROWS * WIDTH];
static float matrices[3][WIDTH * WIDTH];

static ir_module *make(void) {
    ir_module *module = parse(MODEL);
    static const char *const names[] = {"q", "k", "v"};
    random_state = 7;
    for (int i = 0; i < ROWS * WIDTH; i++)
        embed[i] = ir_f32_to_bf16((float)random_u32() / 2147483648.0f - 1);
    set_weight(module, "embed", embed);
    for (int i = 0; i < 3; i++) {
        random_floats(matrices[i], WIDTH * WIDTH);
        set_weight(module, names[i], matrices[i]);
    }
    return module;
}

static void pass(ir_module *module, pass_fn *run, const pass_options *options) {
    pass_context context = {.module = module, .diag = &diag, .options = options};
    bool ok = run(&context) && diag.errors == 0;
    if (!ok)
        ir_diag_print(&diag, stderr);
    ck_assert(ok);
}

/* Logits of all tokens, run in chunks of at most `chunk`. */
static void logits(const ir_module *module, int chunk, float *out) {
    int32_t ids[TOKENS], positions[TOKENS], rows[TOKENS], slot = 2;
    for (int t = 0; t < TOKENS; t++) {
        ids[t] = (t * 37 + 5) % ROWS;
        positions[t] = t;
        rows[t] = t;
    }
    ir_interp *in = ir_interp_create(module, &diag);
    if (!in)
        ir_diag_print(&diag, stderr);
    ck_assert_ptr_nonnull(in);
    for (int t = 0; t < TOKENS; t += chunk) {
        int32_t n = TOKENS - t < chunk ? TOKENS - t : chunk, offsets[] = {0, n};
        ir_interp_step step = {.T = n,
                               .S = 1,
                               .R = n,
                               .token_ids = ids + t,
                               .positions = positions + t,
                               .seq_offsets = offsets,
                               .seq_slots = &slot,
                               .output_rows = rows};
        int64_t count;
        ck_assert(ir_interp_run(in, &step, &diag));
        const float *got = ir_interp_output(in, "logits", &count);
        ck_assert_int_eq(count, (int64_t)n * OUT);
        memcpy(out + t * OUT, got, sizeof *out * (size_t)count);
    }
    ir_interp_destroy(in);
}

/* The root mean square of the difference, relative to that of `expected`. */
static double relative_error(const float *got, const float *expected) {
    double difference = 0, size = 0;
    for (int i = 0; i < TOKENS * OUT; i++) {
        difference += pow((double)got[i] - expected[i], 2);
        size += pow(expected[i], 2);
    }
    return sqrt(difference / size);
}

static const ir_encoding *encoding_of(const ir_module *module, const char *name) {
    return ir_module_weight(module, name)->type.encoding;
}

/* Eight bits cost under 1 %, four bits, or the four of fp8's significands, under 10 %, and each
 * costs something. */
START_TEST(quantized_weights_are_close) {
    static const struct {
        pass_quantize quantize;
        bool activations_f32;
        double above, below;
    } cases[] = {
        {PASS_QUANTIZE_KEEP, true, -1, 0},       {PASS_QUANTIZE_BF16, true, 1e-5, 5e-3},
        {PASS_QUANTIZE_F16, true, 1e-5, 1e-3},   {PASS_QUANTIZE_INT8, true, 1e-4, 1e-2},
        {PASS_QUANTIZE_INT8, false, 1e-4, 2e-2}, {PASS_QUANTIZE_INT4, true, 1e-2, 1e-1},
        {PASS_QUANTIZE_FP8, false, 1e-2, 1e-1},
    };
    float expected[TOKENS * OUT], got[TOKENS * OUT];
    ir_module *exact = make();
    logits(exact, TOKENS, expected);
    ir_module_destroy(exact);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ir_module *module = make();
        pass(module, pass_quantize_ops,
             &(pass_options){.quantize = cases[i].quantize,
                             .activations_f32 = cases[i].activations_f32});
        logits(module, TOKENS, got);
        double error = relative_error(got, expected);
        ck_assert_msg(error > cases[i].above && error <= cases[i].below,
                      "case %zu: relative error %g", i, error);
        if (cases[i].quantize == PASS_QUANTIZE_INT4) {
            ck_assert_int_eq(encoding_of(module, "embed")->id, IR_ENC_Q8_0);
            ck_assert_int_eq(encoding_of(module, "k")->id, IR_ENC_Q4_1);
        }
        if (cases[i].quantize == PASS_QUANTIZE_FP8)
            ck_assert_int_eq(encoding_of(module, "k")->id, IR_ENC_FP8_E4M3);
        ir_module_destroy(module);
    }
}
END_TEST

/* A weight that does not fit stays, and says so. */
START_TEST(what_does_not_fit_stays) {
    ir_module *module = make();
    matrices[1][3 * WIDTH + 5] = 1e30f;
    pass(module, pass_quantize_ops,
         &(pass_options){.quantize = PASS_QUANTIZE_INT8, .activations_f32 = true});
    ck_assert_int_eq(ir_module_weight(module, "k")->type.dtype, IR_F32);
    ck_assert_ptr_null(encoding_of(module, "k"));
    ck_assert_ptr_nonnull(encoding_of(module, "q"));
    bool noted = false;
    for (int i = 0; i < diag.count; i++)
        noted |= diag.messages[i].where && strcmp(diag.messages[i].where, "k") == 0 &&
                 strstr(diag.messages[i].text, "row 3 does not fit q8_0");
    ck_assert(noted);
    ir_module_destroy(module);
}
END_TEST

/* With f32 pages the bits are those of whole-sequence attention, for any chunking. */
START_TEST(paged_attention_is_attention) {
    float expected[TOKENS * OUT], got[TOKENS * OUT];
    ir_module *exact = make();
    logits(exact, TOKENS, expected);
    ir_module_destroy(exact);
    for (int f32 = 0; f32 < 2; f32++) {
        ir_module *module = make();
        pass(module, pass_paged_kv, &(pass_options){.kv = f32 ? PASS_KV_F32 : PASS_KV_F16});
        ck_assert_int_eq(module->n_kv_groups, 1);
        for (int chunk = 1; chunk <= TOKENS; chunk += 2) {
            logits(module, chunk, got);
            if (f32)
                ck_assert(memcmp(got, expected, sizeof got) == 0);
            else
                ck_assert(relative_error(got, expected) < 1e-3);
        }
        ir_module_destroy(module);
    }
}
END_TEST

/* The order of both does not matter, and running them again changes nothing more. */
START_TEST(passes_are_idempotent) {
    float once[TOKENS * OUT], twice[TOKENS * OUT];
    pass_options options = {.quantize = PASS_QUANTIZE_INT4};
    ir_module *module = make();
    pass(module, pass_quantize_ops, &options);
    pass(module, pass_paged_kv, &options);
    logits(module, 4, once);
    int values = module->n_values;
    pass(module, pass_paged_kv, &options);
    pass(module, pass_quantize_ops, &options);
    ck_assert_int_eq(module->n_values, values);
    logits(module, 4, twice);
    ck_assert(memcmp(once, twice, sizeof once) == 0);
    ir_module_destroy(module);
}
END_TEST

static Suite *quantize_pass_suite(void) {
    Suite *suite = suite_create("quantize_pass");
    TCase *tcase = tcase_create("quantize_pass");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, quantized_weights_are_close);
    tcase_add_test(tcase, what_does_not_fit_stays);
    tcase_add_test(tcase, paged_attention_is_attention);
    tcase_add_test(tcase, passes_are_idempotent);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(quantize_pass_suite)

/* Whole steps of the interpreter: the cache, kernels, constants, and what it refuses. */
#include "interp_case.h"

/* A model of one layer: queries, keys and values are rows of tables, turned by rope so that
 * positions matter. */
#define LAYER                                                                                      \
    "%0 = input {name = \"token_ids\"} : i32[T]\n"                                                 \
    "%1 = input {name = \"positions\"} : i32[T]\n"                                                 \
    "%2 = rope_table(%1) {theta = 100, dims = 8, width = 8, style = \"half\", scale = 1} : "       \
    "f32[T, 2, 8]\n"                                                                               \
    "%3 = weight {name = \"q\"} : f32[50, 4, 8]\n"                                                 \
    "%4 = weight {name = \"k\"} : f32[50, 2, 8]\n"                                                 \
    "%5 = weight {name = \"v\"} : f32[50, 2, 8]\n"                                                 \
    "%6 = gather(%3, %0) : f32[T, 4, 8] @\"embed\"\n"                                              \
    "%7 = gather(%4, %0) : f32[T, 2, 8]\n"                                                         \
    "%8 = gather(%5, %0) : f32[T, 2, 8]\n"                                                         \
    "%9 = rope(%6, %2) {dims = 8, style = \"half\"} : f32[T, 4, 8]\n"                              \
    "%10 = rope(%7, %2) {dims = 8, style = \"half\"} : f32[T, 2, 8]\n"

static float tables[3][VOCAB * HEADS * DIM];

static ir_module *layer_module(const char *rest, const char *kv_group) {
    char body[3000];
    snprintf(body, sizeof body, "%s%s%s", kv_group, LAYER, rest);
    ir_module *module = parse(body);
    set_weight(module, "q", tables[0]);
    set_weight(module, "k", tables[1]);
    set_weight(module, "v", tables[2]);
    return module;
}

static ir_interp *create(const ir_module *module) {
    ir_interp *in = ir_interp_create(module, &diag);
    ir_diag_print(&diag, stderr);
    ck_assert_ptr_nonnull(in);
    return in;
}

static const float *run(ir_interp *in, const ir_interp_step *step, int64_t count) {
    int64_t n;
    bool ok = ir_interp_run(in, step, &diag);
    ir_diag_print(&diag, stderr);
    ck_assert(ok);
    const float *out = ir_interp_output(in, "out", &n);
    ck_assert_ptr_nonnull(out);
    ck_assert_int_eq(n, count);
    ck_assert_ptr_null(ir_interp_output(in, "other", &n));
    return out;
}

/* Attention over whole sequences equals attention over the cache in f32, bit for bit, however the
 * sequences are cut into steps and mixed with each other. */
START_TEST(any_chunking_gives_the_same) {
    for (int i = 0; i < 3; i++)
        random_floats(tables[i], VOCAB * HEADS * DIM);
    for (int c = 0; c < N_ATTENTION_CASES; c++) {
        char whole_text[400], paged_text[600];
        int window = attention_cases[c].window;
        double softcap = attention_cases[c].softcap;
        snprintf(
            whole_text, sizeof whole_text,
            "%%11 = attention(%%9, %%10, %%8) {scale = 0.7, window = %d, softcap = %g} : f32[T, "
            "4, 8]\noutput(%%11) {name = \"out\"}\n",
            window, softcap);
        snprintf(paged_text, sizeof paged_text,
                 "%%11 = kv_cache {group = 0, layer = 1} : kv\n"
                 "%%12 = kv_append(%%11, %%10, %%8) : kv\n"
                 "%%13 = paged_attention(%%9, %%12) {scale = 0.7, window = %d, softcap = %g} : "
                 "f32[T, 4, 8]\noutput(%%13) {name = \"out\"}\n",
                 window, softcap);
        ir_module *whole = layer_module(whole_text, "");
        ir_module *paged =
            layer_module(paged_text, "kv_group {window = 0, layers = 2, heads = 2, "
                                     "head_dim = 8, dtype = f32, page_tokens = 16}\n");
        ir_interp *whole_in = create(whole), *paged_in = create(paged);

        enum { SEQUENCES = 3, WIDTH = HEADS * DIM };
        int32_t ids[SEQUENCES][LONGEST], zero = 0;
        float expected[SEQUENCES][LONGEST * WIDTH];
        int length[SEQUENCES], done[SEQUENCES];
        for (int s = 0; s < SEQUENCES; s++) {
            int32_t positions[LONGEST], offsets[2] = {0};
            length[s] = offsets[1] = 1 + (int)(random_u32() % LONGEST);
            done[s] = 0;
            for (int t = 0; t < length[s]; t++) {
                ids[s][t] = (int32_t)(random_u32() % VOCAB);
                positions[t] = t;
            }
            ir_interp_step step = {.T = length[s],
                                   .S = 1,
                                   .token_ids = ids[s],
                                   .positions = positions,
                                   .seq_offsets = offsets,
                                   .seq_slots = &zero};
            memcpy(expected[s], run(whole_in, &step, length[s] * WIDTH),
                   sizeof(float) * (size_t)(length[s] * WIDTH));
        }
        for (bool more = true; more;) {
            /* A step: the sequences in a random rotation, each by 0 to 9 more of its tokens. */
            int32_t step_ids[SEQUENCES * 10], positions[SEQUENCES * 10];
            int32_t offsets[SEQUENCES + 1] = {0}, slots[SEQUENCES], n = 0;
            int turn = (int)(random_u32() % SEQUENCES);
            for (int i = 0; i < SEQUENCES; i++) {
                int s = (i + turn) % SEQUENCES, take = (int)(random_u32() % 10);
                if (take > length[s] - done[s])
                    take = length[s] - done[s];
                for (int t = 0; t < take; t++, n++) {
                    step_ids[n] = ids[s][done[s] + t];
                    positions[n] = done[s] + t;
                }
                slots[i] = s + 3;
                offsets[i + 1] = n;
            }
            ir_interp_step step = {.T = n,
                                   .S = SEQUENCES,
                                   .token_ids = step_ids,
                                   .positions = positions,
                                   .seq_offsets = offsets,
                                   .seq_slots = slots};
            const float *got = run(paged_in, &step, n * WIDTH);
            more = false;
            for (int i = 0; i < SEQUENCES; i++) {
                int s = slots[i] - 3, take = offsets[i + 1] - offsets[i];
                ck_assert(memcmp(got + offsets[i] * WIDTH, expected[s] + done[s] * WIDTH,
                                 sizeof(float) * (size_t)(take * WIDTH)) == 0);
                done[s] += take;
                more |= done[s] < length[s];
            }
        }
        ir_interp_destroy(whole_in);
        ir_interp_destroy(paged_in);
        ir_module_destroy(whole);
        ir_module_destroy(paged);
    }
}
END_TEST

#define PAGED                                                                                      \
    "%11 = kv_cache {group = 0, layer = 0} : kv\n"                                                 \
    "%12 = kv_append(%11, %10, %8) : kv @\"append\"\n"                                             \
    "%13 = paged_attention(%9, %12) {scale = 0.7} : f32[T, 4, 8] @\"attend\"\n"                    \
    "output(%13) {name = \"out\"}\n"
#define GROUP(dtype)                                                                               \
    "kv_group {window = 0, layers = 1, heads = 2, head_dim = 8, dtype = " dtype                    \
    ", page_tokens = 16}\n"

/* Keys and values of this step too are read back after their rounding to f16. */
START_TEST(cache_rounds_to_its_type) {
    enum { T = 6 };
    for (int i = 0; i < 3; i++)
        random_floats(tables[i], VOCAB * HEADS * DIM);
    int32_t ids[T] = {3, 7, 1, 3, 49, 0}, positions[T] = {0, 1, 2, 3, 4, 5};
    int32_t offsets[] = {0, T}, slot = 0;
    ir_interp_step step = {.T = T,
                           .S = 1,
                           .token_ids = ids,
                           .positions = positions,
                           .seq_offsets = offsets,
                           .seq_slots = &slot};
    ir_module *module = layer_module(PAGED, GROUP("f16"));
    ir_module *exact = layer_module("%11 = cast(%10) : f16[T, 2, 8]\n"
                                    "%12 = cast(%8) : f16[T, 2, 8]\n"
                                    "%13 = attention(%9, %11, %12) {scale = 0.7} : f32[T, 4, 8]\n"
                                    "output(%13) {name = \"out\"}\n",
                                    "");
    ir_interp *in = create(module), *exact_in = create(exact);
    const float *got = run(in, &step, T * HEADS * DIM);
    const float *expected = run(exact_in, &step, T * HEADS * DIM);
    ck_assert(memcmp(got, expected, sizeof(float) * T * HEADS * DIM) == 0);
    ir_interp_destroy(in);
    ir_interp_destroy(exact_in);
    ir_module_destroy(module);
    ir_module_destroy(exact);
}
END_TEST

/* Of quantized pages: as if the attention were given what a head's codes and scale stand for. */
START_TEST(cache_is_quantized) {
    enum { T = 6, WIDTH = 16 };
    static const ir_dtype dtypes[] = {IR_I8, IR_F8E4M3};
    static const char *const groups[] = {GROUP("i8"), GROUP("f8e4m3")};
    for (int i = 0; i < 3; i++)
        random_floats(tables[i], VOCAB * HEADS * DIM);
    int32_t ids[T] = {3, 7, 1, 3, 49, 0}, positions[T] = {0, 1, 2, 3, 4, 5};
    int32_t offsets[] = {0, T}, slot = 0;
    ir_interp_step step = {.T = T,
                           .S = 1,
                           .token_ids = ids,
                           .positions = positions,
                           .seq_offsets = offsets,
                           .seq_slots = &slot};
    ir_module *module =
        layer_module("%11 = kv_cache {group = 0, layer = 0} : kv\n"
                     "%12 = kv_append(%11, %7, %8) : kv @\"append\"\n"
                     "%13 = paged_attention(%9, %12) {scale = 0.7} : f32[T, 4, 8] @\"attend\"\n"
                     "output(%13) {name = \"out\"}\n",
                     groups[_i]);
    ir_module *exact = layer_module("%11 = attention(%9, %7, %8) {scale = 0.7} : f32[T, 4, 8]\n"
                                    "output(%11) {name = \"out\"}\n",
                                    "");
    ir_interp *in = create(module), *exact_in = create(exact);
    float got[T * HEADS * DIM], whole[T * HEADS * DIM];
    memcpy(got, run(in, &step, T * HEADS * DIM), sizeof got);
    memcpy(whole, run(exact_in, &step, T * HEADS * DIM), sizeof whole);
    ck_assert(memcmp(got, whole, sizeof got) != 0);
    /* The tables hold keys and values a row an id: quantize those, and the rest is exact. */
    for (int i = 1; i < 3; i++)
        for (int at = 0; at < VOCAB * WIDTH; at += 8) {
            uint8_t codes[8];
            uint16_t scale = ir_kv_encode(dtypes[_i], tables[i] + at, 8, codes, 1);
            for (int c = 0; c < 8; c++)
                tables[i][at + c] = ir_kv_decode(dtypes[_i], codes[c], scale);
        }
    const float *expected = run(exact_in, &step, T * HEADS * DIM);
    ck_assert(memcmp(got, expected, sizeof got) == 0);
    ir_interp_destroy(in);
    ir_interp_destroy(exact_in);
    ir_module_destroy(module);
    ir_module_destroy(exact);
}
END_TEST

/* Going back to an earlier position forgets what was stored beyond it; position 0 starts anew. */
START_TEST(cache_goes_back) {
    for (int i = 0; i < 3; i++)
        random_floats(tables[i], VOCAB * HEADS * DIM);
    ir_module *module = layer_module(PAGED, GROUP("f32"));
    ir_interp *in = create(module), *fresh = create(module);
    int32_t slot = 5, offsets[] = {0, 0}, positions[8], first[] = {1, 2, 3, 4, 5, 6};
    int32_t second[] = {1, 2, 9, 8};
    ir_interp_step step = {
        .S = 1, .positions = positions, .seq_offsets = offsets, .seq_slots = &slot};
    for (int i = 0; i < 8; i++)
        positions[i] = i;
    step.T = offsets[1] = 6, step.token_ids = first;
    run(in, &step, 6 * HEADS * DIM);
    step.T = offsets[1] = 4, step.token_ids = second;
    float expected[4 * HEADS * DIM];
    memcpy(expected, run(fresh, &step, 4 * HEADS * DIM), sizeof expected);
    step.T = offsets[1] = 2, step.token_ids = second + 2, step.positions = positions + 2;
    const float *got = run(in, &step, 2 * HEADS * DIM);
    ck_assert(memcmp(got, expected + 2 * HEADS * DIM, sizeof expected / 2) == 0);
    /* 4 positions are stored now: position 5 would leave a gap */
    step.T = offsets[1] = 1, step.positions = positions + 5;
    ck_assert(!ir_interp_run(in, &step, &diag));
    ck_assert_str_eq(diag.messages[0].where, "append");
    ck_assert_ptr_nonnull(
        strstr(diag.messages[0].text, "starts at position 5, but slot 5 stores 4"));
    /* and goes on to work after the error */
    ir_diag_clear(&diag);
    step.T = offsets[1] = 4, step.token_ids = second, step.positions = positions;
    ck_assert(memcmp(run(in, &step, 4 * HEADS * DIM), expected, sizeof expected) == 0);
    ir_interp_destroy(in);
    ir_interp_destroy(fresh);
    ir_module_destroy(module);
}
END_TEST

/* --- whole steps -------------------------------------------------------------------------------
 */

START_TEST(steps_are_checked) {
    ir_module *module = layer_module(PAGED, GROUP("f32"));
    ir_interp *in = create(module);
    static const struct {
        int32_t ids[3], positions[3], offsets[3], slots[2], row;
        const char *words;
    } cases[] = {
        {{1, 2, 3}, {0, 1, 0}, {1, 2, 3}, {0, 1}, 0, "seq_offsets[0] is 1"},
        {{1, 2, 3}, {0, 1, 0}, {0, 2, 4}, {0, 1}, 0, "seq_offsets[2] is 4"},
        {{1, 2, 3}, {0, 1, 0}, {0, 9, 3}, {0, 1}, 0, "seq_offsets[1] is 9"},
        {{1, 2, 3}, {0, 2, 0}, {0, 2, 3}, {0, 1}, 0, "positions[1] is 2"},
        {{1, 2, 3}, {0, 1, -1}, {0, 2, 3}, {0, 1}, 0, "positions[2] is -1"},
        {{1, 2, 3}, {0, 1, 0}, {0, 2, 3}, {4, 4}, 0, "two sequences have cache slot 4"},
        {{1, 2, 3}, {0, 1, 0}, {0, 2, 3}, {0, -1}, 0, "seq_slots"},
        {{1, 2, 3}, {0, 1, 0}, {0, 2, 3}, {0, 1}, 3, "output_rows[0] is 3"},
        {{1, 50, 3}, {0, 1, 0}, {0, 2, 3}, {0, 1}, 0, "index 50 at place 1"},
        {{1, -2, 3}, {0, 1, 0}, {0, 2, 3}, {0, 1}, 0, "index -2 at place 1"},
        {{1, 2, 3}, {0, 1, 0}, {0, 2, 3}, {0, 1 << 20}, 0, "cache slot 1048576"},
        {{1, 2, 1 << 25}, {0, 1, 0}, {0, 2, 3}, {0, 1}, 0, "does not fit i32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ir_interp_step step = {.T = 3,
                               .S = 2,
                               .R = 1,
                               .token_ids = cases[i].ids,
                               .positions = cases[i].positions,
                               .seq_offsets = cases[i].offsets,
                               .seq_slots = cases[i].slots,
                               .output_rows = &cases[i].row};
        int64_t n;
        ck_assert_msg(!ir_interp_run(in, &step, &diag), "no error with \"%s\"", cases[i].words);
        ck_assert_int_eq(diag.errors, 1);
        ck_assert_msg(strstr(diag.messages[0].text, cases[i].words) != NULL, "\"%s\": no \"%s\"",
                      diag.messages[0].text, cases[i].words);
        ck_assert_ptr_null(ir_interp_output(in, "out", &n));
        if (strncmp(cases[i].words, "index", 5) == 0)
            ck_assert_str_eq(diag.messages[0].where, "embed");
        ir_diag_clear(&diag);
    }
    ir_interp_step negative = {.T = -1};
    ck_assert(!ir_interp_run(in, &negative, &diag));
    ir_interp_destroy(in);
    ir_module_destroy(module);
}
END_TEST

START_TEST(weights_are_checked) {
    ir_module *module =
        parse("%0 = weight {name = \"w\"} : f32[2, 3]\noutput(%0) {name = \"o\"}\n");
    float data[6];
    ck_assert_ptr_null(ir_interp_create(module, &diag));
    ck_assert_ptr_nonnull(strstr(diag.messages[0].text, "no data"));
    module->weights[0].data = data;
    module->weights[0].bytes = 20;
    ir_diag_clear(&diag);
    ck_assert_ptr_null(ir_interp_create(module, &diag));
    ck_assert_ptr_nonnull(strstr(diag.messages[0].text, "20 bytes, its type implies 24"));
    ir_module_destroy(module);
}
END_TEST

typedef struct watched {
    int calls;
    double sum;
} watched;

static void watch(void *user, const ir_op *op, int result, const float *data, int64_t count) {
    watched *w = user;
    ck_assert_int_eq(result, 0);
    w->calls++;
    for (int64_t i = 0; op->code == IR_OP_SILU && i < count; i++)
        w->sum += data[i];
}

/* A kernel computes what its body's ops compute; the watch sees inside. */
START_TEST(kernels_are_their_bodies) {
    const float *a = FLOATS(1, -2, 3, 0.5f), *b = FLOATS(2, 4);
    const char *body = A("f32[2, 2]")
        B("f32[2]") "%2, %3 = kernel(%0, %1) {anchor = \"rows\"} : f32[2, 2], f32[2] @\"op\" {\n"
                    "  args(%4 : f32[2, 2], %5 : f32[2])\n"
                    "  %6 = mul(%4, %5) : f32[2, 2]\n"
                    "  %7 = silu(%6) : f32[2, 2]\n"
                    "  yield(%7, %5)\n"
                    "}\n";
    float y[4];
    for (int i = 0; i < 4; i++) {
        double x = (double)a[i] * b[i % 2];
        y[i] = (float)(x / (1 + exp(-x)));
    }
    check_op(body, &no_step, INPUTS(a, b), y, 4);

    ir_module *module = parse(body);
    float *results[2];
    ck_assert(ir_interp_op(find(module), &no_step, INPUTS(a, b), results, module->arena, &diag));
    check_near(results[1], b, 2, "yielded argument");
    ck_assert(
        !ir_interp_op(find(module), &no_step, INPUTS(a, NULL), results, module->arena, &diag));
    ck_assert_str_eq(diag.messages[0].text, "operand 1 is not given");
    ir_diag_clear(&diag);
    ir_module_destroy(module);

    module = parse("%0 = input {name = \"positions\"} : i32[T]\n"
                   "%1 = cast(%0) : f32[T]\n"
                   "%2 = kernel(%1) {anchor = \"rows\"} : f32[T] {\n"
                   "  args(%3 : f32[T])\n"
                   "  %4 = silu(%3) : f32[T]\n"
                   "  %5 = neg(%4) : f32[T]\n"
                   "  yield(%5)\n"
                   "}\n"
                   "output(%2) {name = \"out\"}\n");
    ir_interp *in = create(module);
    int32_t positions[] = {1, 2}, offsets[] = {0, 2}, slot = 0;
    ir_interp_step step = {.T = 2,
                           .S = 1,
                           .token_ids = positions,
                           .positions = positions,
                           .seq_offsets = offsets,
                           .seq_slots = &slot};
    watched seen = {0};
    ir_interp_set_watch(in, watch, &seen);
    const float *out = run(in, &step, 2);
    ck_assert_int_eq(seen.calls, 5); /* input, cast, silu, neg, kernel */
    ck_assert_double_eq_tol(seen.sum, -(out[0] + out[1]), 1e-6);
    ck_assert_double_eq_tol(out[1], -2 / (1 + exp(-2)), 1e-6);
    ir_interp_destroy(in);
    ir_module_destroy(module);
}
END_TEST

/* kv_append and paged_attention inside one kernel, on an empty slot. */
START_TEST(kernels_with_a_cache) {
    enum { T = 4 };
    ir_module *module = parse(
        GROUP("f32") "%0 = weight {name = \"q\"} : f32[4, 4, 8]\n"
                     "%1 = weight {name = \"k\"} : f32[4, 2, 8]\n"
                     "%2 = weight {name = \"v\"} : f32[4, 2, 8]\n"
                     "%3 = kv_cache {group = 0, layer = 0} : kv\n"
                     "%4, %5 = kernel(%0, %1, %2, %3) {anchor = \"attention\"} : f32[4, 4, 8], kv "
                     "@\"op\" {\n"
                     "  args(%6 : f32[4, 4, 8], %7 : f32[4, 2, 8], %8 : f32[4, 2, 8], %9 : kv)\n"
                     "  %10 = kv_append(%9, %7, %8) : kv\n"
                     "  %11 = paged_attention(%6, %10) {scale = 1} : f32[4, 4, 8]\n"
                     "  yield(%11, %10)\n"
                     "}\n");
    float q[T * HEADS * DIM], k[T * KV_HEADS * DIM], v[T * KV_HEADS * DIM], y[T * HEADS * DIM];
    random_floats(q, T * HEADS * DIM);
    random_floats(k, T * KV_HEADS * DIM);
    random_floats(v, T * KV_HEADS * DIM);
    int32_t positions[] = {0, 1, 2, 3}, offsets[] = {0, T}, slot = 0;
    ir_interp_step step = {
        .T = T, .S = 1, .positions = positions, .seq_offsets = offsets, .seq_slots = &slot};
    float *results[2];
    bool ok =
        ir_interp_op(find(module), &step, INPUTS(q, k, v, NULL), results, module->arena, &diag);
    ir_diag_print(&diag, stderr);
    ck_assert(ok);
    for (int t = 0; t < T; t++)
        attention_formula(q + t * HEADS * DIM, k, v, t, 0, 1, 0, y + t * HEADS * DIM);
    check_near(results[0], y, T * HEADS * DIM, "attention kernel");
    ck_assert_ptr_null(results[1]);
    ir_module_destroy(module);
}
END_TEST

/* Weights packed and concatenated keep their values; what depends on the step is no constant. */
START_TEST(constants) {
    ir_module *module = parse("%0 = weight {name = \"a\"} : f16[2, 2]\n"
                              "%1 = weight {name = \"b\"} : f16[1, 2]\n"
                              "%2 = weight_concat(%0, %1) : f16[3, 2]\n"
                              "%3 = pack(%2) {layout = \"n16\"} : f16[3, 2]@n16\n"
                              "%4 = constant {values = [1, -1]} : f32[1, 2]\n"
                              "%5 = matmul(%4, %3) {transpose_b = 1} : f32[1, 3] @\"op\"\n"
                              "%6 = input {name = \"positions\"} : i32[T]\n"
                              "%7 = cast(%6) : f32[T] @\"step\"\n");
    uint16_t a[4], b[2];
    for (int i = 0; i < 6; i++)
        *(i < 4 ? &a[i] : &b[i - 4]) = ir_f32_to_f16((float)(i * i));
    set_weight(module, "a", a);
    set_weight(module, "b", b);
    const float *got = ir_interp_constant(module, find(module)->results[0], module->arena, &diag);
    ck_assert_ptr_nonnull(got);
    check_near(got, FLOATS(-1, -5, -9), 3, "constant");
    got = ir_interp_constant(module, find(module)->operands[1], module->arena, &diag);
    ck_assert_ptr_nonnull(got);
    check_near(got, FLOATS(0, 1, 4, 9, 16, 25), 6, "packed weight");
    ck_assert_ptr_null(
        ir_interp_constant(module, module->graph->last->results[0], module->arena, &diag));
    ck_assert_ptr_nonnull(strstr(diag.messages[0].text, "depends on the step"));
    ir_module_destroy(module);
}
END_TEST

/* Every stored element type decodes. */
START_TEST(stored_types) {
    static const struct {
        const char *type;
        uint8_t data[16];
        int bytes;
        float expected[2];
    } cases[] = {
        {"i8", {0x80, 0x7f}, 2, {-128, 127}},
        {"u8", {0, 255}, 2, {0, 255}},
        {"bool", {0, 7}, 2, {0, 1}},
        {"i32", {0x90, 0xee, 0xfe, 0xff, 3}, 8, {-70000, 3}},
        {"i64", {0x90, 0xee, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 3}, 16, {-70000, 3}},
        {"f8e4m3", {0x38, 0xbc}, 2, {1, -1.5f}},
        {"f8e5m2", {0x3c, 0xbe}, 2, {1, -1.5f}},
        {"bf16", {0x80, 0x3f, 0x40, 0xc0}, 4, {1, -3}},
        {"f32", {0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc1}, 8, {1.5f, -8}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[100];
        snprintf(body, sizeof body, "%%0 = weight {name = \"w\"} : %s[2] @\"op\"\n", cases[i].type);
        ir_module *module = parse(body);
        const ir_value *value = find(module)->results[0];
        ck_assert_int_eq(module->weights[0].bytes, cases[i].bytes);
        set_weight(module, "w", cases[i].data);
        const float *got = ir_interp_constant(module, value, module->arena, &diag);
        ck_assert_ptr_nonnull(got);
        check_near(got, cases[i].expected, 2, cases[i].type);
        ir_module_destroy(module);
    }
}
END_TEST

static Suite *interp_steps_suite(void) {
    Suite *suite = suite_create("interp_steps");
    TCase *tcase = tcase_create("interp_steps");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, any_chunking_gives_the_same);
    tcase_add_test(tcase, cache_rounds_to_its_type);
    tcase_add_loop_test(tcase, cache_is_quantized, 0, 2);
    tcase_add_test(tcase, cache_goes_back);
    tcase_add_test(tcase, steps_are_checked);
    tcase_add_test(tcase, weights_are_checked);
    tcase_add_test(tcase, kernels_are_their_bodies);
    tcase_add_test(tcase, kernels_with_a_cache);
    tcase_add_test(tcase, constants);
    tcase_add_test(tcase, stored_types);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(interp_steps_suite)

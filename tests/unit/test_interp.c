/* The interpreter's ops, one at a time, against values worked out by hand and formulas written
 * independently. */
#include "interp_case.h"

/* --- elementwise -------------------------------------------------------------------------------
 */

START_TEST(unary_ops) {
    static const struct {
        const char *op;
        float x[3], y[3];
    } cases[] = {
        {"neg", {1, -2, 0}, {-1, 2, 0}},
        {"abs", {1, -2, 0}, {1, 2, 0}},
        {"exp", {0, 1, -1}, {1, 2.7182818285f, 0.3678794412f}},
        {"log", {1, 2, 0}, {0, 0.6931471806f, -INFINITY}},
        {"sqrt", {4, 2, 0}, {2, 1.4142135624f, 0}},
        {"rsqrt", {4, 2, 1}, {0.5f, 0.7071067812f, 1}},
        {"sin", {0, 1, -1}, {0, 0.8414709848f, -0.8414709848f}},
        {"cos", {0, 1, -1}, {1, 0.5403023059f, 0.5403023059f}},
        {"tanh", {0, 1, -100}, {0, 0.7615941560f, -1}},
        {"erf", {0, 1, -0.5f}, {0, 0.8427007929f, -0.5204998778f}},
        {"sigmoid", {0, 1, -200}, {0.5f, 0.7310585786f, 0}},
        {"silu", {0, 1, -1}, {0, 0.7310585786f, -0.2689414214f}},
        {"gelu", {0, 1, -1}, {0, 0.8413447461f, -0.1586552539f}},
        {"gelu_tanh", {0, 1, -1}, {0, 0.8411919906f, -0.1588080094f}},
        {"softcap", {0, 10, 10000}, {0, 9.645382128f, 30}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[200];
        snprintf(body, sizeof body, "%s%%1 = %s(%%0)%s : f32[3] @\"op\"\n", A("f32[3]"),
                 cases[i].op, strcmp(cases[i].op, "softcap") ? "" : " {cap = 30}");
        check_op(body, &no_step, INPUTS(cases[i].x), cases[i].y, 3);
    }
}
END_TEST

START_TEST(binary_ops_broadcast) {
    const float *a = FLOATS(1, 2, 3, 4, 5, 6), *b = FLOATS(10, 20, 30), *column = FLOATS(2, -1);
    CHECK(A("f32[2, 3]") B("f32[3]") "%2 = add(%0, %1) : f32[2, 3] @\"op\"\n", INPUTS(a, b), 11, 22,
          33, 14, 25, 36);
    CHECK(A("f32[2, 1]") B("f32[3]") "%2 = mul(%0, %1) : f32[2, 3] @\"op\"\n", INPUTS(column, b),
          20, 40, 60, -10, -20, -30);
    CHECK(A("f32[2, 3]") B("f32[]") "%2 = sub(%0, %1) : f32[2, 3] @\"op\"\n", INPUTS(a, column), -1,
          0, 1, 2, 3, 4);
    CHECK(A("f32[2, 3]") B("f32[2, 1]") "%2 = div(%0, %1) : f32[2, 3] @\"op\"\n", INPUTS(a, column),
          0.5f, 1, 1.5f, -4, -5, -6);
    CHECK(A("f32[2, 1, 2]") B("f32[2, 1]") "%2 = max(%0, %1) : f32[2, 2, 2] @\"op\"\n",
          INPUTS(FLOATS(1, 5, -3, 0), column), 2, 5, 1, 5, 2, 2, -1, 0);
    CHECK(A("f32[3]") B("f32[3]") "%2 = min(%0, %1) : f32[3] @\"op\"\n",
          INPUTS(FLOATS(1, 50, 30), b), 1, 20, 30);
    CHECK(A("f32[3]") B("f32[3]") "%2 = pow(%0, %1) : f32[3] @\"op\"\n",
          INPUTS(FLOATS(2, 9, -2), FLOATS(10, 0.5f, 3)), 1024, 3, -8);
    CHECK(A("f32[3]") B("f32[3]") "%2 = lt(%0, %1) : bool[3] @\"op\"\n", INPUTS(a, FLOATS(2, 2, 2)),
          1, 0, 0);
    CHECK(A("f32[3]") B("f32[3]") "%2 = le(%0, %1) : bool[3] @\"op\"\n", INPUTS(a, FLOATS(2, 2, 2)),
          1, 1, 0);
    CHECK(A("f32[3]") B("f32[3]") "%2 = eq(%0, %1) : bool[3] @\"op\"\n", INPUTS(a, FLOATS(2, 2, 2)),
          0, 1, 0);
    CHECK(A("bool[2, 1]") B("f32[3]") C("f32[]") "%3 = where(%0, %1, %2) : f32[2, 3] @\"op\"\n",
          INPUTS(FLOATS(1, 0), b, FLOATS(-7)), 10, 20, 30, -7, -7, -7);
}
END_TEST

START_TEST(narrow_types_round) {
    CHECK(A("f32[4]") "%1 = cast(%0) : f16[4] @\"op\"\n",
          INPUTS(FLOATS(1.0004883f, 1.0014648f, 70000, -1e-9f)), 1, 1.0019531f, INFINITY, 0);
    CHECK(A("f32[2]") "%1 = cast(%0) : bf16[2] @\"op\"\n", INPUTS(FLOATS(1.00390625f, 3.14159f)), 1,
          3.140625f);
    CHECK(A("f32[3]") "%1 = cast(%0) : f8e4m3[3] @\"op\"\n", INPUTS(FLOATS(1000, 1.06f, -0.1f)),
          448, 1, -0.1015625f);
    CHECK(A("f32[4]") "%1 = cast(%0) : i32[4] @\"op\"\n", INPUTS(FLOATS(2.5f, 3.5f, -1.4f, 7)), 2,
          4, -1, 7);
    CHECK(A("f32[3]") "%1 = cast(%0) : bool[3] @\"op\"\n", INPUTS(FLOATS(2.5f, 0, -1)), 1, 0, 1);
    CHECK(A("i32[4]") B("i32[4]") "%2 = div(%0, %1) : i32[4] @\"op\"\n",
          INPUTS(FLOATS(7, -7, 7, 6), FLOATS(2, 2, -2, 3)), 3, -3, -3, 2);
    CHECK(A("f16[1]") B("f16[1]") "%2 = add(%0, %1) : f16[1] @\"op\"\n",
          INPUTS(FLOATS(2048), FLOATS(1)), 2048);
    check_fails(A("f32[1]") "%1 = cast(%0) : u8[1] @\"op\"\n", &no_step, INPUTS(FLOATS(256)),
                "256 does not fit u8");
    check_fails(A("f32[1]") "%1 = cast(%0) : i32[1] @\"op\"\n", &no_step, INPUTS(FLOATS(NAN)),
                "does not fit i32");
    check_fails(A("i32[1]") B("i32[1]") "%2 = div(%0, %1) : i32[1] @\"op\"\n", &no_step,
                INPUTS(FLOATS(1), FLOATS(0)), "does not fit i32");
}
END_TEST

/* --- shapes ------------------------------------------------------------------------------------
 */

START_TEST(shape_ops) {
    const float *a = FLOATS(0, 1, 2, 3, 4, 5), *b = FLOATS(6, 7);
    CHECK(A("f32[2, 3]") "%1 = reshape(%0) : f32[3, 2] @\"op\"\n", INPUTS(a), 0, 1, 2, 3, 4, 5);
    CHECK(A("f32[2, 3]") "%1 = transpose(%0) {perm = [1, 0]} : f32[3, 2] @\"op\"\n", INPUTS(a), 0,
          3, 1, 4, 2, 5);
    CHECK(A("f32[1, 2, 3]") "%1 = transpose(%0) {perm = [2, 0, 1]} : f32[3, 1, 2] @\"op\"\n",
          INPUTS(a), 0, 3, 1, 4, 2, 5);
    CHECK(A("f32[2, 1]") "%1 = broadcast(%0) : f32[2, 2, 3] @\"op\"\n", INPUTS(b), 6, 6, 6, 7, 7, 7,
          6, 6, 6, 7, 7, 7);
    CHECK(A("f32[2, 3]") "%1 = slice(%0) {axis = 1, start = 1, size = 2} : f32[2, 2] @\"op\"\n",
          INPUTS(a), 1, 2, 4, 5);
    CHECK(A("f32[3, 2]") "%1 = slice(%0) {axis = 0, start = 1, size = 1} : f32[1, 2] @\"op\"\n",
          INPUTS(a), 2, 3);
    CHECK(A("f32[2, 3]") B("f32[2, 1]") "%2 = concat(%0, %1) {axis = 1} : f32[2, 4] @\"op\"\n",
          INPUTS(a, b), 0, 1, 2, 6, 3, 4, 5, 7);
    CHECK(A("f32[3, 2]") B("f32[1, 2]") "%2 = weight_concat(%0, %1) : f32[4, 2] @\"op\"\n",
          INPUTS(a, b), 0, 1, 2, 3, 4, 5, 6, 7);
    CHECK(A("f32[3, 2]") "%1 = pack(%0) {layout = \"n16\"} : f32[3, 2]@n16 @\"op\"\n", INPUTS(a), 0,
          1, 2, 3, 4, 5);
    CHECK(A("f32[3, 2]") B("i32[2, 2]") "%2 = gather(%0, %1) : f32[2, 2, 2] @\"op\"\n",
          INPUTS(a, FLOATS(2, 0, 1, 2)), 4, 5, 0, 1, 2, 3, 4, 5);
    CHECK(A("f32[6]") B("i32[2]") "%2 = gather(%0, %1) : f32[2] @\"op\"\n", INPUTS(a, FLOATS(5, 1)),
          5, 1);
    const char *gather = A("f32[3, 2]") B("i32[1]") "%2 = gather(%0, %1) : f32[1, 2] @\"op\"\n";
    check_fails(gather, &no_step, INPUTS(a, FLOATS(3)), "index 3 at place 0");
    check_fails(gather, &no_step, INPUTS(a, FLOATS(-1)), "index -1");
}
END_TEST

START_TEST(reductions) {
    const float *a = FLOATS(1, 2, 3, -4, -5, -6);
    CHECK(A("f32[2, 3]") "%1 = reduce_sum(%0) {axis = 1} : f32[2, 1] @\"op\"\n", INPUTS(a), 6, -15);
    CHECK(A("f32[2, 3]") "%1 = reduce_max(%0) {axis = 0} : f32[1, 3] @\"op\"\n", INPUTS(a), 1, 2,
          3);
    CHECK(A("f32[1, 2, 3]") "%1 = reduce_mean(%0) {axis = 1} : f32[1, 1, 3] @\"op\"\n", INPUTS(a),
          -1.5f, -1.5f, -1.5f);
    /* large logits must not overflow */
    CHECK(A("f32[2, 2]") "%1 = softmax(%0) {axis = 1} : f32[2, 2] @\"op\"\n",
          INPUTS(FLOATS(1000, 1000, 0, 1)), 0.5f, 0.5f, 0.2689414214f, 0.7310585786f);
    CHECK(A("f32[2, 2]") "%1 = softmax(%0) {axis = 0} : f32[2, 2] @\"op\"\n",
          INPUTS(FLOATS(0, 5, 1, 5)), 0.2689414214f, 0.5f, 0.7310585786f, 0.5f);
    CHECK(A("f32[1, 2]") B("f32[2]") "%2 = rms_norm(%0, %1) {eps = 0.5} : f32[1, 2] @\"op\"\n",
          INPUTS(FLOATS(3, 4), FLOATS(1, -2)), 3 / sqrtf(13), -8 / sqrtf(13));
    CHECK(A("f32[1, 2]") B("f32[2]")
              C("f32[2]") "%3 = layer_norm(%0, %1, %2) {eps = 0.75} : f32[1, 2] @\"op\"\n",
          INPUTS(FLOATS(3, 4), FLOATS(1, 2), FLOATS(10, 20)), 9.5f, 21);
}
END_TEST

/* --- matrix products ---------------------------------------------------------------------------
 */

START_TEST(matmul_small) {
    const float *a = FLOATS(1, 2, 3, 4, 5, 6), *b = FLOATS(1, 0, -1, 2, 1, 1);
    CHECK(A("f32[2, 3]") B("f32[3, 2]") "%2 = matmul(%0, %1) : f32[2, 2] @\"op\"\n", INPUTS(a, b),
          2, 7, 5, 16);
    CHECK(A("f32[2, 3]")
              B("f32[2, 3]") "%2 = matmul(%0, %1) {transpose_b = 1} : f32[2, 2] @\"op\"\n",
          INPUTS(a, b), -2, 7, -2, 19);
    /* leading dims broadcast: a has 2 batches, b one */
    CHECK(A("f32[2, 1, 3]") B("f32[1, 3, 2]") "%2 = matmul(%0, %1) : f32[2, 1, 2] @\"op\"\n",
          INPUTS(a, b), 2, 7, 5, 16);
    CHECK(A("f32[1, 1, 2]") B("f32[3, 2, 1]") "%2 = matmul(%0, %1) : f32[3, 1, 1] @\"op\"\n",
          INPUTS(FLOATS(1, 10), a), 21, 43, 65);
}
END_TEST

/* Ragged rows and widths, weights in every stored form, against sums over decoded values. */
START_TEST(matmul_of_stored_weights) {
    static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_1", "fp8_e4m3"};
    enum { K = 96, N = 5 };
    for (int i = 0; i < 6; i++) {
        float w[N * K], decoded[N * K], a[9 * K];
        random_floats(w, N * K);
        uint8_t stored[N * K * 4];
        for (int t = 1; t <= 9; t += 2) {
            char body[400];
            snprintf(body, sizeof body,
                     "%%0 = weight {name = \"a\"} : f32[%d, %d]\n"
                     "%%1 = weight {name = \"w\"} : %s[%d, %d]\n"
                     "%%2 = matmul(%%0, %%1) {transpose_b = 1} : f32[%d, %d] @\"op\"\n",
                     t, K, types[i], N, K, t, N);
            ir_module *module = parse(body);
            random_floats(a, t * K);
            const ir_type *type = &find(module)->operands[1]->type;
            for (int r = 0; r < N; r++) {
                uint8_t *row = stored + r * (int64_t)ir_type_bytes(type).c / N;
                if (type->encoding) {
                    ck_assert(ir_encoding_encode_row(type->encoding, w + r * K, K, row));
                    ir_encoding_decode_row(type->encoding, row, K, decoded + r * K);
                }
                for (int k = 0; !type->encoding && k < K; k++) {
                    uint16_t h = type->dtype == IR_F16 ? ir_f32_to_f16(w[r * K + k])
                                                       : ir_f32_to_bf16(w[r * K + k]);
                    if (type->dtype == IR_F32)
                        memcpy(row + k * 4, &w[r * K + k], 4);
                    else
                        memcpy(row + k * 2, &h, 2);
                    decoded[r * K + k] = type->dtype == IR_F32   ? w[r * K + k]
                                         : type->dtype == IR_F16 ? ir_f16_to_f32(h)
                                                                 : ir_bf16_to_f32(h);
                }
            }
            set_weight(module, "a", a);
            set_weight(module, "w", stored);
            const float *got =
                ir_interp_constant(module, find(module)->results[0], module->arena, &diag);
            ck_assert_ptr_nonnull(got);
            for (int r = 0; r < t; r++)
                for (int n = 0; n < N; n++) {
                    double sum = 0;
                    for (int k = 0; k < K; k++)
                        sum += (double)a[r * K + k] * decoded[n * K + k];
                    ck_assert_msg(fabs(got[r * N + n] - sum) < 1e-6, "%s: %g, not %g", types[i],
                                  got[r * N + n], sum);
                }
            ir_module_destroy(module);
        }
    }
}
END_TEST

START_TEST(quantize_is_the_encoding) {
    enum { K = 64 };
    float x[2 * K], expected[2 * K];
    uint8_t row[K * 4];
    random_floats(x, 2 * K);
    const ir_encoding *a8 = ir_encoding_get(_i ? IR_ENC_A8_E4M3 : IR_ENC_A8);
    for (int r = 0; r < 2; r++) {
        ck_assert(ir_encoding_encode_row(a8, x + r * K, K, row));
        ir_encoding_decode_row(a8, row, K, expected + r * K);
    }
    const char *body = _i ? A("f32[2, 64]") "%1 = quantize(%0) : a8_e4m3[2, 64] @\"op\"\n"
                          : A("f32[2, 64]") "%1 = quantize(%0) : a8[2, 64] @\"op\"\n";
    check_op(body, &no_step, INPUTS(x), expected, 2 * K);
    check_op(_i ? A("a8_e4m3[2, 64]") "%1 = dequantize(%0) : f32[2, 64] @\"op\"\n"
                : A("a8[2, 64]") "%1 = dequantize(%0) : f32[2, 64] @\"op\"\n",
             &no_step, INPUTS(expected), expected, 2 * K);
    x[70] = INFINITY;
    check_fails(body, &no_step, INPUTS(x), "row 1 does not fit a8");
    check_fails(A("f32[1, 256]") "%1 = quantize(%0) : q6_k[1, 256] @\"op\"\n", &no_step, INPUTS(x),
                "cannot quantize to q6_k");
}
END_TEST

/* --- rotary embedding --------------------------------------------------------------------------
 */

START_TEST(rope_ops) {
    /* dims 4 of width 6: pairs 0 and 1 turn by position and position/10 */
    float p[] = {0, 3}, table[2 * 2 * 6];
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        for (int t = 0; t < 2; t++)
            for (int i = 0; i < 6; i++) {
                double angle = p[t] * ((interleaved ? i / 2 : i % 2) ? 0.1 : 1);
                table[t * 12 + i] = i < 4 ? (float)cos(angle) : 1;
                table[t * 12 + 6 + i] = i < 4 ? (float)sin(angle) : 0;
            }
        char body[300];
        const char *style = interleaved ? "interleaved" : "half";
        snprintf(body, sizeof body,
                 "%s%%1 = rope_table(%%0) {theta = 100, dims = 4, width = 6, style = "
                 "\"%s\", scale = 1} : f32[2, 2, 6] @\"op\"\n",
                 A("i32[2]"), style);
        check_op(body, &no_step, INPUTS(p), table, 24);

        /* each pair (a, b) becomes (a cos - b sin, b cos + a sin) */
        float x[12], y[12];
        random_floats(x, 12);
        memcpy(y, x, sizeof y);
        for (int t = 0; t < 2; t++)
            for (int pair = 0; pair < 2; pair++) {
                int i = t * 6 + (interleaved ? 2 * pair : pair), j = i + (interleaved ? 1 : 2);
                double c = cos(p[t] * (pair ? 0.1 : 1)), s = sin(p[t] * (pair ? 0.1 : 1));
                y[i] = (float)(x[i] * c - x[j] * s);
                y[j] = (float)(x[j] * c + x[i] * s);
            }
        snprintf(body, sizeof body,
                 "%s%%2 = rope(%%0, %%1) {dims = 4, style = "
                 "\"%s\"} : f32[2, 1, 6] @\"op\"\n",
                 A("f32[2, 1, 6]") B("f32[2, 2, 6]"), style);
        check_op(body, &no_step, INPUTS(x, table), y, 12);
    }
    /* scale and factors: 5 * 0.5 / 2 and 5 * 0.5 * 0.1 / 4 */
    CHECK(A("i32[1]")
              B("f32[2]") "%2 = rope_table(%0, %1) {theta = 100, dims = 4, width = 4, style "
                          "= \"half\", scale = 0.5} : f32[1, 2, 4] @\"op\"\n",
          INPUTS(FLOATS(5), FLOATS(2, 4)), cosf(1.25f), cosf(0.0625f), cosf(1.25f), cosf(0.0625f),
          sinf(1.25f), sinf(0.0625f), sinf(1.25f), sinf(0.0625f));
}
END_TEST

START_TEST(attention_is_the_formula) {
    enum { T = 12 };
    /* three sequences of 7, 0 and 5 tokens, in one step */
    int32_t positions[T], offsets[] = {0, 7, 7, 12}, slots[] = {0, 1, 2};
    for (int t = 0; t < T; t++)
        positions[t] = t < 7 ? t : t - 7;
    ir_interp_step step = {
        .T = T, .S = 3, .positions = positions, .seq_offsets = offsets, .seq_slots = slots};
    float q[T * HEADS * DIM], k[T * KV_HEADS * DIM], v[T * KV_HEADS * DIM], y[T * HEADS * DIM];
    random_floats(q, T * HEADS * DIM);
    random_floats(k, T * KV_HEADS * DIM);
    random_floats(v, T * KV_HEADS * DIM);
    for (int c = 0; c < N_ATTENTION_CASES; c++) {
        char body[400];
        snprintf(body, sizeof body,
                 "%s%%3 = attention(%%0, %%1, %%2) {scale = 0.7, window = %d, "
                 "softcap = %g} : "
                 "f32[12, 4, 8] @\"op\"\n",
                 A("f32[12, 4, 8]") B("f32[12, 2, 8]") C("f32[12, 2, 8]"),
                 attention_cases[c].window, attention_cases[c].softcap);
        for (int t = 0; t < T; t++) {
            int first = t < 7 ? 0 : 7;
            attention_formula(q + t * HEADS * DIM, k + first * KV_HEADS * DIM,
                              v + first * KV_HEADS * DIM, t - first, attention_cases[c].window, 0.7,
                              attention_cases[c].softcap, y + t * HEADS * DIM);
        }
        check_op(body, &step, INPUTS(q, k, v), y, T * HEADS * DIM);
    }
    ir_interp_step bare = {.T = T};
    check_fails(
        A("f32[12, 4, 8]") B("f32[12, 2, 8]")
            C("f32[12, 2, 8]") "%3 = attention(%0, %1, %2) {scale = 1} : f32[12, 4, 8] @\"op\"\n",
        &bare, INPUTS(q, k, v), "states no sequences");
}
END_TEST

static Suite *interp_suite(void) {
    Suite *suite = suite_create("interp");
    TCase *tcase = tcase_create("interp");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, unary_ops);
    tcase_add_test(tcase, binary_ops_broadcast);
    tcase_add_test(tcase, narrow_types_round);
    tcase_add_test(tcase, shape_ops);
    tcase_add_test(tcase, reductions);
    tcase_add_test(tcase, matmul_small);
    tcase_add_test(tcase, matmul_of_stored_weights);
    tcase_add_loop_test(tcase, quantize_is_the_encoding, 0, 2);
    tcase_add_test(tcase, rope_ops);
    tcase_add_test(tcase, attention_is_the_formula);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(interp_suite)

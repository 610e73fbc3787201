/* Passes that must not change any value: random graphs computed before and after them, and folding
 * of weights that have data. */
#include "interp_case.h"
#include "ir/verify.h"
#include "passes/pass.h"

#define PICK(array) ((array)[random_u32() % (sizeof(array) / sizeof *(array))])

static bool run_passes(ir_module *module, const char *names) {
    pass_options options = {0};
    pass_context context = {.module = module, .diag = &diag, .options = &options};
    return pass_run_list(&context, names, NULL, NULL);
}

static int count_ops(const ir_module *module) {
    int n = 0;
    for (const ir_op *op = module->graph->first; op; op = op->next)
        n++;
    return n;
}

/* --- random graphs -----------------------------------------------------------------------------
 */

enum { TOKENS = 3, VOCABULARY = 16, WIDTH = 8, OPS = 120 };

static float table[VOCABULARY * WIDTH], vector[WIDTH], matrix[WIDTH * WIDTH];

static void add_weight(ir_module *m, const char *name, int64_t rows, float *data) {
    ir_dim dims[] = {ir_dim_const(rows), ir_dim_const(WIDTH)};
    ir_type type = ir_tensor(IR_F32, rows ? 2 : 1, rows ? dims : dims + 1);
    int64_t count = rows ? rows * WIDTH : WIDTH;
    random_floats(data, count);
    ir_module_add_weight(m, name, &type, data, count * (int64_t)sizeof *data);
}

/* One op of random operands that fits them, or NULL. Ops that the passes have rules for come often,
 * and so do constants that are neutral. */
static ir_value *random_value(ir_graph *g, ir_value *const *pool, int count) {
    static const ir_opcode unary[] = {IR_OP_NEG, IR_OP_NEG, IR_OP_ABS, IR_OP_TANH, IR_OP_SILU};
    static const ir_opcode binary[] = {IR_OP_ADD, IR_OP_SUB, IR_OP_MUL, IR_OP_DIV,
                                       IR_OP_MAX, IR_OP_MIN, IR_OP_POW};
    static const ir_opcode reductions[] = {IR_OP_REDUCE_SUM, IR_OP_REDUCE_MAX, IR_OP_REDUCE_MEAN,
                                           IR_OP_SOFTMAX};
    static const double numbers[] = {0, 1, 1, 0.5, -2};
    static const int64_t perms[][3] = {{0, 1, 2}, {1, 0, 2}, {2, 0, 1}};
    /* Half of the first operands are recent, so that chains grow. */
    uint32_t recent = count > 4 && random_u32() % 2 ? 4 : (uint32_t)count;
    ir_value *a = pool[(uint32_t)count - 1 - random_u32() % recent];
    ir_value *b = pool[random_u32() % (uint32_t)count];
    ir_diag ignored = {0};
    ir_value *made = NULL;
    ir_type type = a->type;
    int64_t axis = type.rank ? random_u32() % (uint32_t)type.rank : 0;
    ir_attr axis_attr = IR_INT("axis", axis);
    switch (random_u32() % 10) {
    case 0:
    case 1:
        made = ir_unary(g, &ignored, PICK(unary), NULL, a);
        break;
    case 2:
    case 3:
    case 4:
        made = ir_binary(g, &ignored, PICK(binary), NULL, a, b);
        break;
    case 5:
        made = ir_constant_splat(g, &ignored, PICK(numbers));
        break;
    case 6: /* reshapes between [n, 8], [n, 2, 4] and [n, 4, 2] */
        if (type.rank >= 2) {
            ir_dim shapes[][3] = {{type.dims[0], ir_dim_const(8)},
                                  {type.dims[0], ir_dim_const(2), ir_dim_const(4)},
                                  {type.dims[0], ir_dim_const(4), ir_dim_const(2)}};
            int i = (int)(random_u32() % 3);
            made = ir_reshape(g, &ignored, NULL, a, i ? 3 : 2, shapes[i]);
        }
        break;
    case 7:
        made = ir_build(g, &ignored, IR_OP_TRANSPOSE, NULL, NULL, 1, &a, 1,
                        &IR_INT_LIST("perm", PICK(perms), type.rank));
        break;
    case 8:
        made = ir_build(g, &ignored, PICK(reductions), NULL, NULL, 1, &a, 1, &axis_attr);
        break;
    default: {
        int64_t size = type.rank && random_u32() % 2 ? type.dims[axis].c : 2;
        made = ir_build(g, &ignored, IR_OP_SLICE, NULL, NULL, 1, &a, 3,
                        (ir_attr[]){axis_attr, IR_INT("start", random_u32() % 2 && size == 2),
                                    IR_INT("size", size)});
        break;
    }
    }
    ir_diag_clear(&ignored);
    return made;
}

static ir_module *random_module(void) {
    ir_value *pool[OPS + 8];
    int count = 0;
    ir_module *m = ir_module_create("random", "test");
    ir_type ids = ir_tensor(IR_I32, 1, &IR_DIM_T);
    add_weight(m, "table", VOCABULARY, table);
    add_weight(m, "vector", 0, vector);
    add_weight(m, "matrix", WIDTH, matrix);
    ir_value *tokens = ir_build(m->graph, &diag, IR_OP_INPUT, NULL, &ids, 0, NULL, 1,
                                &IR_STRING("name", "token_ids"));
    ir_value *rows = ir_weight_value(m->graph, &diag, "table");
    pool[count++] = ir_build(m->graph, &diag, IR_OP_GATHER, NULL, NULL, 2,
                             (ir_value *[]){rows, tokens}, 0, NULL);
    pool[count++] = ir_weight_value(m->graph, &diag, "vector");
    pool[count++] = ir_weight_value(m->graph, &diag, "matrix");
    for (int i = 0; i < OPS; i++) {
        ir_value *made = random_value(m->graph, pool, count);
        if (made)
            pool[count++] = made;
    }
    for (int i = 0; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "out%d", i);
        ir_value *value = i ? pool[count - i] : pool[0];
        ir_op_create(m->graph, NULL,
                     &(ir_op_spec){.code = IR_OP_OUTPUT,
                                   .operands = &value,
                                   .n_operands = 1,
                                   .attrs = &IR_STRING("name", name),
                                   .n_attrs = 1},
                     &diag);
    }
    ck_assert_int_eq(diag.errors, 0);
    return m;
}

static float *outputs(const ir_module *m, int64_t *total) {
    static const int32_t ids[TOKENS] = {3, 0, 15}, positions[TOKENS] = {0, 1, 2};
    static const int32_t offsets[] = {0, TOKENS}, slots[] = {0}, output_rows[] = {TOKENS - 1};
    ir_interp *interp = ir_interp_create(m, &diag);
    ck_assert_ptr_nonnull(interp);
    ir_interp_step step = {.T = TOKENS,
                           .S = 1,
                           .R = 1,
                           .token_ids = ids,
                           .positions = positions,
                           .seq_offsets = offsets,
                           .seq_slots = slots,
                           .output_rows = output_rows};
    if (!ir_interp_run(interp, &step, &diag)) {
        ir_diag_print(&diag, stderr);
        ck_abort_msg("the interpreter fails");
    }
    float *all = NULL;
    *total = 0;
    for (int i = 0; i < 6; i++) {
        char name[16];
        int64_t count;
        snprintf(name, sizeof name, "out%d", i);
        const float *data = ir_interp_output(interp, name, &count);
        ck_assert_ptr_nonnull(data);
        all = realloc(all, (size_t)(*total + count) * sizeof *all);
        memcpy(all + *total, data, (size_t)count * sizeof *all);
        *total += count;
    }
    ir_interp_destroy(interp);
    return all;
}

/* Equal numbers; 0 and -0 are equal, and so are all NaNs. */
static bool same(float a, float b) {
    return a == b || (isnan(a) && isnan(b));
}

static void check_values_stay(const char *passes) {
    int before_total = 0, after_total = 0;
    for (int seed = 1; seed <= 150; seed++) {
        random_state = (uint64_t)seed * 7919;
        ir_module *m = random_module();
        int64_t n, n_after;
        float *before = outputs(m, &n);
        before_total += count_ops(m);
        if (!run_passes(m, passes) || !ir_verify(m, &diag)) {
            ir_diag_print(&diag, stderr);
            ck_abort_msg("%s fails for seed %d", passes, seed);
        }
        after_total += count_ops(m);
        float *after = outputs(m, &n_after);
        ck_assert_int_eq(n, n_after);
        for (int64_t i = 0; i < n; i++)
            ck_assert_msg(same(before[i], after[i]), "%s, seed %d: output %lld was %g, is %g",
                          passes, seed, (long long)i, before[i], after[i]);
        free(before);
        free(after);
        ir_module_destroy(m);
    }
    ck_assert_int_lt(after_total, before_total);
}

START_TEST(passes_keep_values) {
    static const char *const lists[] = {"canonicalize", "cse", "dce",
                                        "canonicalize,constant-fold,dce",
                                        "canonicalize,constant-fold,cse,dce,canonicalize,cse,dce"};
    check_values_stay(lists[_i]);
}
END_TEST

/* --- folding of weights ------------------------------------------------------------------------
 */

START_TEST(weights_are_folded) {
    static const float norm[4] = {0.25f, -1, 3, 0};
    static const float small_table[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    ir_module *m = parse("%0 = input {name = \"token_ids\"} : i32[T]\n"
                         "%1 = weight {name = \"table\"} : f32[2, 4]\n"
                         "%2 = gather(%1, %0) : f32[T, 4]\n"
                         "%3 = weight {name = \"norm\"} : f32[4]\n"
                         "%4 = constant {values = [1]} : f32[]\n"
                         "%5 = add(%3, %4) : f32[4] @\"norm_plus_one\"\n"
                         "%6 = rms_norm(%2, %5) {eps = 1e-06} : f32[T, 4]\n"
                         "%7 = add(%4, %3) : f32[4]\n"
                         "%8 = mul(%7, %7) : f32[4]\n"
                         "%9 = rms_norm(%6, %8) {eps = 1e-06} : f32[T, 4]\n"
                         "%10 = weight {name = \"codes\"} : q8_0[4, 32]\n"
                         "%11 = dequantize(%10) : f32[4, 32]\n"
                         "%12 = matmul(%9, %11) : f32[T, 32]\n"
                         "output(%12) {name = \"x\"}\n");
    set_weight(m, "norm", norm);
    set_weight(m, "table", small_table);
    ck_assert(run_passes(m, "constant-fold,dce"));
    const ir_op *norms[2] = {NULL, NULL};
    int n = 0, adds = 0, dequantized = 0;
    for (const ir_op *op = m->graph->first; op; op = op->next) {
        if (op->code == IR_OP_RMS_NORM)
            norms[n++] = op;
        adds += op->code == IR_OP_ADD || op->code == IR_OP_MUL;
        dequantized += op->code == IR_OP_DEQUANTIZE;
    }
    ck_assert_int_eq(n, 2);
    ck_assert_int_eq(adds, 0);
    ck_assert_int_eq(dequantized, 1);
    const ir_op *first = norms[0]->operands[1]->def, *second = norms[1]->operands[1]->def;
    ck_assert_int_eq(first->code, IR_OP_WEIGHT);
    ck_assert_str_eq(ir_op_string(first, "name"), "norm.add");
    ck_assert_str_eq(first->name, "norm_plus_one");
    ck_assert_str_eq(ir_op_string(second, "name"), "norm.mul");
    const ir_weight *plus = ir_module_weight(m, "norm.add"),
                    *square = ir_module_weight(m, "norm.mul");
    ck_assert_int_eq(plus->bytes, 16);
    for (int i = 0; i < 4; i++) {
        ck_assert(((const float *)plus->data)[i] == norm[i] + 1);
        ck_assert(((const float *)square->data)[i] == (norm[i] + 1) * (norm[i] + 1));
    }
    /* Folding again finds nothing, and names stay unique. */
    int weights = m->n_weights;
    ck_assert(run_passes(m, "constant-fold"));
    ck_assert_int_eq(m->n_weights, weights);
    ck_assert_int_eq(diag.errors, 0);
    ir_module_destroy(m);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("simple_passes");
    TCase *c = tcase_create("values");
    tcase_set_timeout(c, 240);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, passes_keep_values, 0, 5);
    tcase_add_test(c, weights_are_folded);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

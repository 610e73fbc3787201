/* Row programs on the CPU against plain C: scalar operations, reductions, programs of random shape,
 * and what is refused. What they read and write is in test_cpu_row_access.c. */
#include "row_kernel.h"

#include <pthread.h>

/* --- scalar operations -------------------------------------------------------------------------
 */

typedef double reference_fn(double);

static double ref_neg(double x) {
    return -x;
}

static double ref_rsqrt(double x) {
    return (double)(1 / sqrtf((float)x));
}

static double ref_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* Distance in units of the last place of the correctly rounded result. */
static double ulps(float got, double want) {
    float rounded = (float)want;
    if (isnan(rounded) || isnan(got))
        return isnan(rounded) && isnan(got) ? 0 : INFINITY;
    if (isinf(rounded) || isinf(got))
        return rounded == got ? 0 : INFINITY;
    int exponent;
    frexp((double)rounded, &exponent);
    double ulp = ldexp(1, exponent - 24 < -149 ? -149 : exponent - 24);
    return fabs((double)got - want) / ulp;
}

static const struct {
    cg_scalar_op op;
    reference_fn *reference;
    float low, high; /* range of random arguments */
    double bound;    /* ulps there, and for the special values */
} unary_cases[] = {
    {CG_NEG, ref_neg, -100, 100, 0},
    {CG_ABS, fabs, -100, 100, 0},
    {CG_EXP, exp, -104, 89, 1.2},
    {CG_EXP, exp, -1, 1, 1.0},
    {CG_LOG, log, 0, 100, 1.5},
    {CG_LOG, log, 0.5f, 2, 1.5},
    {CG_SQRT, sqrt, 0, 100, 0.5},
    {CG_RSQRT, ref_rsqrt, 0, 100, 0},
    {CG_SIN, sin, -4, 4, 1.5},
    {CG_COS, cos, -4, 4, 1.5},
    {CG_SIN, sin, -1e6f, 1e6f, 2},
    {CG_COS, cos, -1e6f, 1e6f, 2},
    {CG_TANH, tanh, -2, 2, 2},
    {CG_TANH, tanh, -20, 20, 2},
    {CG_ERF, erf, -2, 2, 2},
    {CG_ERF, erf, -6, 6, 2},
    {CG_SIGMOID, ref_sigmoid, -20, 20, 2.5},
    {CG_SIGMOID, ref_sigmoid, -2, 2, 2.5},
};
enum { N_UNARY = sizeof unary_cases / sizeof unary_cases[0] };

static const float specials[] = {
    0.0f,     -0.0f,     1.0f,  -1.0f,    0x1p-149f, -0x1p-149f, 0x1p-126f,        0x1.fffffep127f,
    INFINITY, -INFINITY, NAN,   88.7f,    88.73f,    -87.4f,     -103.9f,          -104.1f,
    89.5f,    -150.0f,   200.f, 0.92179f, 0.9219f,   0.625f,     -0x1.fffffep127f, 0.70710677f};
enum { N_SPECIALS = sizeof specials / sizeof specials[0] };

START_TEST(unary_operations) {
    enum { WIDTH = 3000, T = 2 };
    builder *b = builder_new("unary");
    cg_program *p = add_program(b, 1, WIDTH);
    int x = add_arg(b, matrix(IR_F32, WIDTH), false);
    int y = add_arg(b, matrix(IR_F32, WIDTH), true);
    int v = load(p, rows_of(x, WIDTH));
    store(p, CG_STORE, scalar(p, unary_cases[_i].op, v, 0, 0), 0, rows_of(y, WIDTH));
    float *in = buffer(T * WIDTH * 4), *out = buffer(T * WIDTH * 4);
    float low = unary_cases[_i].low, high = unary_cases[_i].high;
    for (int i = 0; i < T * WIDTH; i++)
        in[i] = low + (high - low) * (cpu_random_float(0.5f) + 0.5f);
    bool periodic = unary_cases[_i].op == CG_SIN || unary_cases[_i].op == CG_COS;
    for (int i = 0; i < N_SPECIALS; i++)
        if (!periodic || !(fabsf(specials[i]) > 1e6f) || !isfinite(specials[i]))
            in[i] = specials[i];
    run_everywhere(b, (void *[]){in, out}, T, NULL, 1, &y, &(size_t){T * WIDTH * 4});
    double worst = 0;
    for (int i = 0; i < T * WIDTH; i++) {
        double error = ulps(out[i], unary_cases[_i].reference((double)in[i]));
        ck_assert_msg(error <= unary_cases[_i].bound, "case %d: f(%a) = %a, %g ulps", _i,
                      (double)in[i], (double)out[i], error);
        worst = error > worst ? error : worst;
    }
    if (unary_cases[_i].bound >= 1) /* a reference that computes something else would show */
        ck_assert(worst > 0.4);
    free(in);
    free(out);
    free(b);
}
END_TEST

static double ref_binary(cg_scalar_op op, float a, float b, float c) {
    switch (op) {
    case CG_ADD:
        return (double)(a + b);
    case CG_SUB:
        return (double)(a - b);
    case CG_MUL:
        return (double)(a * b);
    case CG_DIV:
        return (double)(a / b);
    case CG_MAX:
        return isnan(a) || isnan(b) ? NAN : (double)(a > b ? a : b);
    case CG_MIN:
        return isnan(a) || isnan(b) ? NAN : (double)(a < b ? a : b);
    case CG_POW:
        return pow((double)a, (double)b);
    case CG_FMA:
        return (double)fmaf(a, b, c);
    case CG_LT:
        return a < b;
    case CG_LE:
        return a <= b;
    case CG_EQ:
        return a == b;
    default: /* WHERE */
        return (double)(a != 0 ? b : c);
    }
}

START_TEST(other_operations) {
    enum { WIDTH = N_SPECIALS * N_SPECIALS, T = 3 };
    static const cg_scalar_op ops[] = {CG_ADD, CG_SUB, CG_MUL, CG_DIV, CG_MAX, CG_MIN,
                                       CG_POW, CG_FMA, CG_LT,  CG_LE,  CG_EQ,  CG_WHERE};
    for (int k = 0; k < (int)(sizeof ops / sizeof ops[0]); k++) {
        builder *b = builder_new("other");
        cg_program *p = add_program(b, 1, WIDTH);
        ir_type type = matrix(IR_F32, WIDTH);
        float *data[4];
        for (int i = 0; i < 4; i++) {
            add_arg(b, type, i == 3);
            data[i] = buffer(T * WIDTH * 4);
            if (i < 3)
                load(p, rows_of(i, WIDTH));
        }
        for (int i = 0; i < T * WIDTH; i++) {
            data[0][i] = i < WIDTH ? specials[i / N_SPECIALS] : cpu_random_float(50);
            data[1][i] = i < WIDTH ? specials[i % N_SPECIALS] : cpu_random_float(10);
            data[2][i] = cpu_random_float(3);
            if (ops[k] == CG_POW && i >= 2 * WIDTH) {
                data[0][i] = fabsf(data[0][i]);
            } else if (ops[k] == CG_POW && i >= WIDTH) {
                data[1][i] = rintf(data[1][i]);
            }
        }
        store(p, CG_STORE, scalar(p, ops[k], 0, 1, 2), 0, rows_of(3, WIDTH));
        run_everywhere(b, (void **)data, T, NULL, 1, &(int){3}, &(size_t){T * WIDTH * 4});
        for (int i = 0; i < T * WIDTH; i++) {
            double want = ref_binary(ops[k], data[0][i], data[1][i], data[2][i]);
            double error = ulps(data[3][i], want);
            ck_assert_msg(error <= (ops[k] == CG_POW ? 0.51 : 0), "op %d (%a, %a, %a) = %a not %a",
                          (int)ops[k], (double)data[0][i], (double)data[1][i], (double)data[2][i],
                          (double)data[3][i], want);
        }
        for (int i = 0; i < 4; i++)
            free(data[i]);
        free(b);
    }
}
END_TEST

/* --- reductions, several stages and programs ---------------------------------------------------
 */

static const int64_t widths[] = {1, 5, 16, 32, 40, 64, 100, 128, 160, 576, 1000, 1536};
enum { N_WIDTHS = sizeof widths / sizeof widths[0] };

/* s = a + b; store s; y = s * rsqrt(mean(s^2) + eps) * w, stored as f16; max over y, stored as a
 * number; then, as a second program, y * 2 from the first one's buffer. */
START_TEST(norms) {
    enum { T = 5 };
    int64_t n = widths[_i];
    builder *b = builder_new("norm_rows");
    int a = add_arg(b, matrix(IR_F32, n), false), r = add_arg(b, matrix(IR_F32, n), true);
    int w = add_arg(b, ir_tensor(IR_BF16, 1, (ir_dim[]){ir_dim_const(n)}), false);
    int y = add_arg(b, matrix(IR_F16, n), true), m = add_arg(b, matrix(IR_F32, 1), true);
    int z = add_arg(b, matrix(IR_F32, n), true);
    cg_program *p = add_program(b, 1, n);
    int s = scalar(p, CG_ADD, load(p, rows_of(a, n)), load(p, rows_of(r, n)), 0);
    store(p, CG_STORE, s, 0, rows_of(r, n)); /* in place */
    int sum = reduce(p, CG_REDUCE_SUM, scalar(p, CG_MUL, s, s, 0));
    int mean = scalar(p, CG_MUL, sum, constant(p, 1.0 / (double)n), 0);
    int inverse = scalar(p, CG_RSQRT, scalar(p, CG_ADD, mean, constant(p, 1e-5), 0), 0, 0);
    int normed = scalar(p, CG_MUL, scalar(p, CG_MUL, s, inverse, 0), load(p, vector_of(w)), 0);
    store(p, CG_STORE, normed, 0, rows_of(y, n));
    store(p, CG_STORE, reduce(p, CG_REDUCE_MAX, normed), 0,
          (cg_access){.arg = m, .row_map = CG_ROW_SELF, .row_stride = 1});
    cg_program *p2 = add_program(b, 1, n);
    store(p2, CG_STORE, scalar(p2, CG_MUL, load(p2, rows_of(y, n)), constant(p2, 2), 0), 0,
          rows_of(z, n));

    size_t count = (size_t)(T * n);
    float *av = buffer(count * 4), *rv = buffer(count * 4), *mv = buffer(T * 4);
    float *zv = buffer(count * 4), *before = buffer(count * 4);
    uint16_t *wv = buffer((size_t)n * 2), *yv = buffer(count * 2);
    for (size_t i = 0; i < count; i++) {
        av[i] = cpu_random_float(3);
        before[i] = rv[i] = cpu_random_float(3);
    }
    for (int64_t i = 0; i < n; i++)
        wv[i] = ir_f32_to_bf16(cpu_random_float(2));
    run_everywhere(b, (void *[]){av, rv, wv, yv, mv, zv}, T, NULL, 4, (int[]){r, y, m, z},
                   (size_t[]){count * 4, count * 2, T * 4, count * 4});
    float *squares = buffer((size_t)n * 4);
    for (int64_t t = 0; t < T; t++) {
        for (int64_t i = 0; i < n; i++) {
            float v = av[t * n + i] + before[t * n + i];
            ck_assert(rv[t * n + i] == v);
            squares[i] = v * v;
        }
        float scale = 1 / sqrtf(reference_sum(squares, n) * (float)(1.0 / (double)n) + 1e-5f);
        float max = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            float v = rv[t * n + i] * scale * ir_bf16_to_f32(wv[i]);
            max = v > max ? v : max;
            ck_assert_uint_eq(yv[t * n + i], ir_f32_to_f16(v));
            ck_assert(zv[t * n + i] == ir_f16_to_f32(ir_f32_to_f16(v)) * 2);
        }
        ck_assert(mv[t] == max);
    }
    free(squares);
    free(av);
    free(rv);
    free(wv);
    free(yv);
    free(mv);
    free(zv);
    free(before);
    free(b);
}
END_TEST

/* Columns that lie apart, in both directions: x[row][column][3] to y[row][column][2], element 1. */
START_TEST(strided) {
    enum { T = 3 };
    int64_t n = widths[_i];
    builder *b = builder_new("strided");
    int x = add_arg(b, matrix(IR_I32, 3 * n), false), y = add_arg(b, matrix(IR_F16, 2 * n), true);
    cg_program *p = add_program(b, 1, n);
    cg_access from = rows_of(x, 3 * n), to = rows_of(y, 2 * n);
    from.column_stride = 3;
    to.column_stride = 2;
    from.offset = to.offset = 1;
    store(p, CG_STORE, scalar(p, CG_NEG, load(p, from), 0, 0), 0, to);
    int32_t *xv = buffer((size_t)(T * 3 * n) * 4);
    uint16_t *yv = buffer((size_t)(T * 2 * n) * 2);
    for (int64_t i = 0; i < T * 3 * n; i++)
        xv[i] = (int32_t)(cpu_random() % 1000) - 500;
    run_everywhere(b, (void *[]){xv, yv}, T, NULL, 1, &y, &(size_t){(size_t)(T * 2 * n) * 2});
    for (int64_t i = 0; i < T * n; i++) {
        ck_assert_uint_eq(yv[2 * i + 1], ir_f32_to_f16(-(float)xv[3 * i + 1]));
        ck_assert_uint_eq(yv[2 * i], 0x5a5a);
    }
    free(xv);
    free(yv);
    free(b);
}
END_TEST

/* --- random programs ---------------------------------------------------------------------------
 */

/* Evaluates one row and head of a program of exact operations, column by column. */
static void evaluate(const cg_program *p, float *const *args, int64_t row, int64_t head,
                     float *values) {
    int64_t width = p->width;
    for (int i = 0; i < p->n_nodes; i++) {
        const cg_node *n = &p->nodes[i];
        const float *operands[3];
        for (int k = 0; k < 3; k++)
            operands[k] = values + (n->operands[k] < i ? n->operands[k] : 0) * width;
        float max = -INFINITY;
        for (int64_t c = 0; c < width; c++) {
            float a = operands[0][c], b = operands[1][c], d = operands[2][c], v = 0;
            const cg_access *at = &n->access;
            int64_t r = at->row_map == CG_ROW_SELF ? row : 0;
            switch (n->kind) {
            case CG_CONST:
                v = (float)n->value;
                break;
            case CG_LOAD:
                v = args[at->arg][r * at->row_stride + head * at->head_stride + at->offset +
                                  c * at->column_stride];
                break;
            case CG_SCALAR:
                v = n->op == CG_SQRT  ? sqrtf(a)
                    : n->op == CG_NEG ? -a
                    : n->op == CG_ABS ? fabsf(a)
                                      : (float)ref_binary(n->op, a, b, d);
                break;
            case CG_ROTATE: {
                int64_t dims = n->rotate_dims, half = dims / 2;
                if (c < dims && n->rotate_half)
                    v = c < half ? -operands[0][c + half] : operands[0][c - half];
                else if (c < dims)
                    v = c % 2 ? operands[0][c - 1] : -operands[0][c + 1];
                break;
            }
            default:
                max = a > max ? a : max;
                v = n->reduce == CG_REDUCE_SUM ? reference_sum(operands[0], width) : max;
            }
            values[i * width + c] = v;
        }
        if (n->kind == CG_REDUCE && n->reduce == CG_REDUCE_MAX)
            for (int64_t c = 0; c < width; c++)
                values[i * width + c] = max;
    }
}

/* Programs of random shape: several stages, numbers and columns mixed, stores of any node. One of
 * the outputs may be loaded as well, and then holds its old values. */
START_TEST(random_programs) {
    enum { T = 2, N_IN = 3, N_OUT = 3, MAX_WIDTH = 200 };
    static const cg_scalar_op ops[] = {CG_ADD, CG_MUL, CG_SUB, CG_FMA,   CG_MAX, CG_MIN,
                                       CG_LT,  CG_NEG, CG_ABS, CG_WHERE, CG_EQ};
    cpu_seed = 77 + (uint64_t)_i;
    builder *b = builder_new("random");
    int64_t heads = 1 + cpu_random() % 2, width = 1 + cpu_random() % MAX_WIDTH;
    if (cpu_random() % 2)
        width = (width + 15) / 16 * 16;
    int64_t row = heads * width;
    float *data[N_IN + N_OUT];
    size_t bytes = (size_t)(T * row) * 4;
    for (int i = 0; i < N_IN + N_OUT; i++) {
        add_arg(b, matrix(IR_F32, row), i >= N_IN);
        data[i] = buffer(bytes);
        for (int64_t k = 0; k < T * row; k++)
            data[i][k] = cpu_random_float(2);
    }
    cg_program *p = add_program(b, heads, width);
    cg_access whole = rows_of(0, row);
    whole.head_stride = width;
    for (int i = 0; i < 24; i++) {
        int any[3];
        for (int k = 0; k < 3; k++)
            any[k] = i ? (int)(cpu_random() % (unsigned)i) : 0;
        uint32_t kind = i < 3 ? 0 : cpu_random() % 12;
        cg_access access = whole;
        access.arg = (int)(cpu_random() % (N_IN + 1)); /* the last one is written below */
        if (kind == 1)
            access.column_stride = 0;
        if (kind <= 1)
            load(p, access);
        else if (kind == 2)
            constant(p, (double)cpu_random_float(1));
        else if (kind == 3)
            reduce(p, cpu_random() % 2 ? CG_REDUCE_SUM : CG_REDUCE_MAX, any[0]);
        else if (kind <= 5 && width >= 2)
            rotate(p, any[0], 2 + (int64_t)(cpu_random() % (uint32_t)(width / 2)) * 2, kind == 4);
        else
            scalar(p, ops[cpu_random() % (sizeof ops / sizeof ops[0])], any[0], any[1], any[2]);
    }
    int stored[N_OUT];
    for (int i = 0; i < N_OUT; i++) {
        cg_access access = whole;
        access.arg = N_IN + i;
        stored[i] = i == 0 ? p->n_nodes - 1 : (int)(cpu_random() % (unsigned)p->n_nodes);
        store(p, CG_STORE, stored[i], 0, access);
    }
    float *before[N_IN + N_OUT], *values = buffer((size_t)(p->n_nodes * width) * 4);
    for (int i = 0; i < N_IN + N_OUT; i++) {
        before[i] = buffer(bytes);
        memcpy(before[i], data[i], bytes);
    }
    run_everywhere(b, (void **)data, T, NULL, N_OUT, (int[]){N_IN, N_IN + 1, N_IN + 2},
                   (size_t[]){bytes, bytes, bytes});
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < heads; h++) {
            evaluate(p, before, t, h, values);
            for (int i = 0; i < N_OUT; i++)
                for (int64_t c = 0; c < width; c++) {
                    float want = values[stored[i] * width + c];
                    float got = data[N_IN + i][t * row + h * width + c];
                    ck_assert_msg(got == want || (isnan(got) && isnan(want)),
                                  "program %d: output %d row %d column %d: %a not %a", _i, i,
                                  (int)t, (int)c, (double)got, (double)want);
                }
        }
    for (int i = 0; i < N_IN + N_OUT; i++) {
        free(data[i]);
        free(before[i]);
    }
    free(values);
    free(b);
}
END_TEST

/* --- what is refused, and what is the same -----------------------------------------------------
 */

#ifndef MCC_ROWS_ON_CUDA

static void expect_refusal(const builder *b, const char *text) {
    const cg_kernel *kernel = &b->kernel;
    ir_diag diag = {0};
    cg_object object;
    ck_assert(
        !cg_cpu_compile(&kernel, 1, cg_cpu_target_find("cpu:x86-64-v3"), NULL, &diag, &object));
    ck_assert_int_ge(diag.errors, 1);
    ck_assert_ptr_null(object.bytes);
    ck_assert_str_eq(diag.messages[0].where, kernel->name);
    ck_assert_msg(strstr(diag.messages[0].text, text) != NULL, "%s", diag.messages[0].text);
    ir_diag_clear(&diag);
}

START_TEST(refusals) {
    builder *b = builder_new("refused");
    int x = add_arg(b, matrix(IR_F8E4M3, 64), false), y = add_arg(b, matrix(IR_F32, 64), true);
    cg_program *p = add_program(b, 1, 64);
    store(p, CG_STORE, load(p, rows_of(x, 64)), 0, rows_of(y, 64));
    expect_refusal(b, "element type f8e4m3");
    b->args[x].type = matrix(IR_F32, 64);
    p->stores[0].kind = CG_STORE_A8;
    expect_refusal(b, "not a8 or a8_e4m3");
    p->stores[0].kind = CG_STORE_KV;
    expect_refusal(b, "not a KV cache");
    p->stores[0].kind = CG_STORE;
    p->stores[0].value = 1;
    expect_refusal(b, "node 1 of 1");
    p->stores[0].value = 0;
    p->nodes[0] = (cg_node){.kind = CG_INPUT};
    expect_refusal(b, "input of part 0");
    p->nodes[0] = (cg_node){.kind = CG_SCALAR, .op = CG_NEG, .operands = {0}};
    expect_refusal(b, "does not come before");
    free(b);
}
END_TEST

START_TEST(same_bytes) {
    builder *b = builder_new("same");
    int x = add_arg(b, matrix(IR_F32, 640), false), y = add_arg(b, matrix(IR_F32, 640), true);
    cg_program *p = add_program(b, 1, 640);
    int v = load(p, rows_of(x, 640));
    int sum = reduce(p, CG_REDUCE_SUM, scalar(p, CG_EXP, v, 0, 0));
    store(p, CG_STORE, scalar(p, CG_DIV, v, sum, 0), 0, rows_of(y, 640));
    const cg_kernel *kernel = &b->kernel;
    int count;
    const cg_cpu_target *targets = cg_cpu_targets(&count);
    for (int i = 0; i < count; i++) {
        ir_diag diag = {0};
        cg_object objects[2];
        char *texts[2];
        size_t sizes[2];
        for (int k = 0; k < 2; k++) {
            FILE *text = k ? open_memstream(&texts[0], &sizes[0]) : NULL;
            FILE *llvm = k ? open_memstream(&texts[1], &sizes[1]) : NULL;
            cg_cpu_options options = {
                .opt_level = 2, .graph_file = "model.ir", .emit_asm = text, .emit_llvm = llvm};
            ck_assert(cg_cpu_compile(&kernel, 1, &targets[i], &options, &diag, &objects[k]));
            if (k) {
                fclose(text);
                fclose(llvm);
                ck_assert_ptr_nonnull(strstr(texts[0], "same."));
                ck_assert_ptr_nonnull(strstr(texts[1], "define"));
                free(texts[0]);
                free(texts[1]);
            }
        }
        ck_assert_uint_eq(objects[0].size, objects[1].size);
        ck_assert_mem_eq(objects[0].bytes, objects[1].bytes, objects[0].size);
        free(objects[0].bytes);
        free(objects[1].bytes);
        ir_diag_clear(&diag);
    }
    free(b);
}
END_TEST

typedef struct compilation {
    const cg_kernel *kernel;
    cg_object object;
    bool ok;
} compilation;

static void *compile_in_thread(void *user) {
    compilation *c = user;
    ir_diag diag = {0};
    c->ok =
        cg_cpu_compile(&c->kernel, 1, cg_cpu_target_find("cpu:x86-64-v4"), NULL, &diag, &c->object);
    ir_diag_clear(&diag);
    return NULL;
}

START_TEST(several_threads) {
    enum { THREADS = 3 };
    builder *b = builder_new("threads");
    int x = add_arg(b, matrix(IR_F32, 200), false), y = add_arg(b, matrix(IR_F32, 200), true);
    cg_program *p = add_program(b, 1, 200);
    store(p, CG_STORE, scalar(p, CG_TANH, load(p, rows_of(x, 200)), 0, 0), 0, rows_of(y, 200));
    compilation c[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        c[i] = (compilation){.kernel = &b->kernel};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, compile_in_thread, &c[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert(c[i].ok);
        ck_assert_uint_eq(c[i].object.size, c[0].object.size);
        ck_assert_mem_eq(c[i].object.bytes, c[0].object.bytes, c[0].object.size);
    }
    for (int i = 0; i < THREADS; i++)
        free(c[i].object.bytes);
    free(b);
}
END_TEST

START_TEST(targets) {
    int count;
    const cg_cpu_target *all = cg_cpu_targets(&count);
    ck_assert_int_ge(count, 2);
    for (int i = 0; i < count; i++)
        ck_assert_ptr_eq(cg_cpu_target_find(all[i].name), &all[i]);
    ck_assert_ptr_null(cg_cpu_target_find("cpu:z80"));
    ck_assert_int_eq((int)cg_cpu_pass_target()->page_tokens, 16);
}
END_TEST

#endif /* MCC_ROWS_ON_CUDA */

static Suite *rows_suite(void) {
    Suite *suite = suite_create("cpu_rows");
    TCase *tcase = tcase_create("rows");
    tcase_set_timeout(tcase, 120);
    test_add_emulated(tcase, unary_operations, 0, N_UNARY, SANITIZED_ROWS);
    tcase_add_test(tcase, other_operations);
    test_add_emulated(tcase, norms, 0, N_WIDTHS, SANITIZED_ROWS);
    test_add_emulated(tcase, strided, 0, N_WIDTHS, SANITIZED_ROWS);
    test_add_emulated(tcase, random_programs, 0, 40, SANITIZED_ROWS);
#ifndef MCC_ROWS_ON_CUDA
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, same_bytes);
    tcase_add_test(tcase, several_threads);
    tcase_add_test(tcase, targets);
#endif
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(rows_suite)

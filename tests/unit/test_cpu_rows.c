/* Row programs on the CPU: against plain C, and the same bits on every processor level. */
#include "check_main.h"
#include "cpu_kernel.h"

#include <math.h>
#include <pthread.h>

/* --- building kernels --------------------------------------------------------------------------
 */

enum { MAX_NODES = 40, MAX_STORES = 6, MAX_ARGS = 8, MAX_PROGRAMS = 3 };

typedef struct builder {
    cg_kernel kernel;
    cg_arg args[MAX_ARGS];
    cg_program programs[MAX_PROGRAMS];
    cg_node nodes[MAX_PROGRAMS][MAX_NODES];
    cg_store stores[MAX_PROGRAMS][MAX_STORES];
} builder;

static builder *builder_new(const char *name) {
    builder *b = calloc(1, sizeof *b);
    b->kernel = (cg_kernel){.name = name,
                            .anchor = CG_ANCHOR_ROWS,
                            .rows = IR_DIM_T,
                            .args = b->args,
                            .programs = b->programs,
                            .line = 7};
    return b;
}

static cg_program *add_program(builder *b, int64_t heads, int64_t width) {
    int i = b->kernel.n_programs++;
    b->programs[i] =
        (cg_program){.heads = heads, .width = width, .nodes = b->nodes[i], .stores = b->stores[i]};
    return &b->programs[i];
}

static int add_arg(builder *b, ir_type type, bool written) {
    int i = b->kernel.n_args++;
    b->args[i] = (cg_arg){.kind = CG_ARG_BUFFER, .type = type, .written = written};
    return i;
}

static ir_type matrix(ir_dtype dtype, int64_t width) {
    return ir_tensor(dtype, 2, (ir_dim[]){IR_DIM_T, ir_dim_const(width)});
}

static int add_node(cg_program *p, cg_node node) {
    p->nodes[p->n_nodes] = node;
    return p->n_nodes++;
}

static int constant(cg_program *p, double value) {
    return add_node(p, (cg_node){.kind = CG_CONST, .per_row = true, .value = value});
}

static int load(cg_program *p, cg_access access) {
    return add_node(p, (cg_node){.kind = CG_LOAD, .access = access});
}

static int scalar(cg_program *p, cg_scalar_op op, int a, int b, int c) {
    return add_node(p, (cg_node){.kind = CG_SCALAR, .op = op, .operands = {a, b, c}});
}

static int reduce(cg_program *p, cg_reduce_op op, int a) {
    return add_node(p,
                    (cg_node){.kind = CG_REDUCE, .per_row = true, .reduce = op, .operands = {a}});
}

static int rotate(cg_program *p, int a, int64_t dims, bool half) {
    return add_node(
        p, (cg_node){.kind = CG_ROTATE, .operands = {a}, .rotate_dims = dims, .rotate_half = half});
}

static void store(cg_program *p, cg_store_kind kind, int value, int value2, cg_access access) {
    p->stores[p->n_stores++] =
        (cg_store){.kind = kind, .value = value, .value2 = value2, .access = access};
}

/* Rows of `width` elements. */
static cg_access rows_of(int arg, int64_t width) {
    return (cg_access){.arg = arg, .row_map = CG_ROW_SELF, .row_stride = width, .column_stride = 1};
}

static cg_access vector_of(int arg) {
    return (cg_access){.arg = arg, .row_map = CG_ROW_NONE, .column_stride = 1};
}

/* --- running -----------------------------------------------------------------------------------
 */

/* Runs kernel 0 of the builder on every target and in two ways of splitting tiles; `outputs` (args
 * by index, `bytes` each) must come out the same every time. The values stay those of the last. */
static void run_everywhere(const builder *b, void *const *args, int64_t T, const mcc_step *step,
                           int n_outputs, const int *outputs, const size_t *bytes) {
    const cg_kernel *kernel = &b->kernel;
    cpu_code code = cpu_load(&kernel, 1);
    mcc_cpu_call call = {.step = step, .args = args, .T = T, .S = 1, .R = T};
    void *first[MAX_ARGS] = {0}, *initial[MAX_ARGS] = {0};
    for (int i = 0; i < n_outputs; i++) {
        initial[i] = malloc(bytes[i]);
        memcpy(initial[i], args[outputs[i]], bytes[i]);
    }
    for (int run = 0; run < 2 * code.n_targets; run++) {
        for (int i = 0; i < n_outputs; i++)
            memcpy(args[outputs[i]], initial[i], bytes[i]);
        cpu_run(code.functions[run / 2][0], kernel, &call, run % 2);
        for (int i = 0; i < n_outputs; i++) {
            if (!first[i]) {
                first[i] = malloc(bytes[i]);
                memcpy(first[i], args[outputs[i]], bytes[i]);
            }
            ck_assert_msg(memcmp(first[i], args[outputs[i]], bytes[i]) == 0,
                          "run %d differs in output %d", run, i);
        }
    }
    for (int i = 0; i < n_outputs; i++) {
        free(first[i]);
        free(initial[i]);
    }
    cpu_unload(&code);
}

static void *buffer(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    memset(p, 0x5a, (bytes + 63) / 64 * 64 + 64);
    return p;
}

/* kernel.h's order of summation. */
static float reference_sum(const float *x, int64_t n) {
    float p[16] = {0};
    for (int64_t i = 0; i < n; i++)
        p[i % 16] += x[i];
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            p[i] += p[i + width];
    return p[0];
}

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
    builder *b = builder_new("norm");
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

/* --- quantization ------------------------------------------------------------------------------
 */

/* Two heads of `width` columns after 32 columns that stay as they are; then the a8 buffer is read
 * back as numbers. */
START_TEST(quantized_activations) {
    enum { T = 4, HEADS = 2, BEFORE = 32 };
    int64_t width = _i == 0 ? 32 : _i == 1 ? 96 : 288, k = BEFORE + HEADS * width;
    const ir_encoding *a8 = ir_encoding_get(IR_ENC_A8);
    builder *b = builder_new("quantize");
    int x = add_arg(b, matrix(IR_F32, HEADS * width), false);
    int q = add_arg(b, ir_quantized(a8, 2, (ir_dim[]){IR_DIM_T, ir_dim_const(k)}), true);
    int y = add_arg(b, matrix(IR_F32, HEADS * width), true);
    cg_program *p = add_program(b, HEADS, width), *p2 = add_program(b, HEADS, width);
    cg_access heads = rows_of(x, HEADS * width), quantized = rows_of(q, k);
    heads.head_stride = quantized.head_stride = width;
    quantized.offset = BEFORE;
    store(p, CG_STORE_A8, load(p, heads), 0, quantized);
    int loaded = load(p2, quantized);
    heads.arg = y;
    store(p2, CG_STORE, loaded, 0, heads);

    size_t row = (size_t)ir_encoding_row_bytes(a8, k), count = (size_t)(T * HEADS * width);
    float *xv = buffer(count * 4), *yv = buffer(count * 4), *whole = buffer((size_t)k * 4);
    uint8_t *qv = buffer(T * row), *want = buffer(row);
    for (size_t i = 0; i < count; i++)
        xv[i] = cpu_random_float(i / 32 % 5 == 0 ? 1e-3f : 4) * (i / 32 % 7 == 3 ? 0 : 1);
    for (int i = 0; i < 32; i++) { /* halves and ties, tiny groups */
        xv[i] = i == 0 ? 127 : (float)i - 15.5f;
        xv[width + i] = ldexpf((float)i, -140);
    }
    run_everywhere(b, (void *[]){xv, qv, yv}, T, NULL, 2, (int[]){q, y},
                   (size_t[]){T * row, count * 4});
    for (int64_t t = 0; t < T; t++) {
        memset(whole, 0, BEFORE * 4);
        memcpy(whole + BEFORE, xv + t * HEADS * width, (size_t)(HEADS * width) * 4);
        ck_assert(ir_encoding_encode_row(a8, whole, k, want));
        const uint8_t *got = qv + (size_t)t * row;
        ck_assert_mem_eq(got + BEFORE, want + BEFORE, (size_t)(HEADS * width));
        for (int part = 0; part < 2; part++) { /* scales, scaled sums: without the first group */
            size_t at = (size_t)(k + part * (k / 8));
            ck_assert_mem_eq(got + at + 4, want + at + 4, (size_t)(k / 32 - 1) * 4);
        }
        size_t sums = (size_t)(k + k / 4);
        ck_assert_mem_eq(got + sums + 8, want + sums + 8, (size_t)(k / 16 - 2) * 4);
        for (int i = 0; i < BEFORE; i++)
            ck_assert_int_eq(got[i], 0x5a);
        ir_encoding_decode_row(a8, want, k, whole);
        ck_assert_mem_eq(yv + t * HEADS * width, whole + BEFORE, (size_t)(HEADS * width) * 4);
    }
    free(xv);
    free(yv);
    free(whole);
    free(qv);
    free(want);
    free(b);
}
END_TEST

/* --- rotation and the KV cache -----------------------------------------------------------------
 */

static const struct {
    int64_t width, dims;
    bool half;
} rotations[] = {{64, 64, true},   {64, 32, true},  {64, 64, false},  {40, 24, true},
                 {40, 30, false},  {10, 6, true},   {128, 128, true}, {256, 256, true},
                 {256, 200, true}, {256, 64, true}, {256, 200, false}};
enum { N_ROTATIONS = sizeof rotations / sizeof rotations[0] };

static float rotated(const float *x, int64_t c, int r) {
    int64_t dims = rotations[r].dims, half = dims / 2;
    if (c >= dims)
        return 0;
    if (rotations[r].half)
        return c < half ? -x[c + half] : x[c - half];
    return c % 2 ? x[c - 1] : -x[c + 1];
}

/* y = x*cos + rotate(x)*sin for three heads, from a table [T][2][width]. */
START_TEST(rotation) {
    enum { T = 3, HEADS = 3 };
    int64_t n = rotations[_i].width;
    builder *b = builder_new("rope");
    int x = add_arg(b, matrix(IR_F32, HEADS * n), false);
    int table = add_arg(b, matrix(IR_F32, 2 * n), false);
    int y = add_arg(b, matrix(IR_F32, HEADS * n), true);
    cg_program *p = add_program(b, HEADS, n);
    cg_access heads = rows_of(x, HEADS * n), cosines = rows_of(table, 2 * n), sines = cosines;
    heads.head_stride = n;
    sines.offset = n;
    int v = load(p, heads);
    int partner = rotate(p, v, rotations[_i].dims, rotations[_i].half);
    int straight = scalar(p, CG_MUL, v, load(p, cosines), 0);
    int turned = scalar(p, CG_MUL, partner, load(p, sines), 0);
    heads.arg = y;
    store(p, CG_STORE, scalar(p, CG_ADD, straight, turned, 0), 0, heads);
    size_t count = (size_t)(T * HEADS * n);
    float *xv = buffer(count * 4), *yv = buffer(count * 4), *tv = buffer((size_t)(T * 2 * n) * 4);
    for (size_t i = 0; i < count; i++)
        xv[i] = cpu_random_float(2);
    for (int64_t i = 0; i < T * 2 * n; i++)
        tv[i] = cpu_random_float(1);
    run_everywhere(b, (void *[]){xv, tv, yv}, T, NULL, 1, &y, &(size_t){count * 4});
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < HEADS; h++)
            for (int64_t c = 0; c < n; c++) {
                const float *row = xv + (t * HEADS + h) * n;
                float want =
                    row[c] * tv[t * 2 * n + c] + rotated(row, c, _i) * tv[t * 2 * n + n + c];
                ck_assert(yv[(t * HEADS + h) * n + c] == want);
            }
    free(xv);
    free(yv);
    free(tv);
    free(b);
}
END_TEST

/* A step block for T tokens of one sequence that starts at `position`, pages in reverse order. */
typedef struct small_step {
    mcc_step head;
    int32_t positions[8], seqs[8], offsets[2], lens[1], tables[2][1][8];
} small_step;

static small_step make_step(int T, int position) {
    small_step s = {.head = {.T = T, .S = 1, .R = T, .G = 2, .P = 8}};
    s.head.bytes = sizeof s;
    s.head.positions = offsetof(small_step, positions);
    s.head.token_seqs = offsetof(small_step, seqs);
    s.head.seq_offsets = offsetof(small_step, offsets);
    s.head.context_lens = offsetof(small_step, lens);
    s.head.page_tables = offsetof(small_step, tables);
    for (int i = 0; i < T; i++)
        s.positions[i] = position + i;
    s.offsets[1] = T;
    s.lens[0] = position + T;
    for (int i = 0; i < 8; i++) {
        s.tables[0][0][i] = i;
        s.tables[1][0][i] = 7 - i;
    }
    return s;
}

START_TEST(kv_append) {
    enum { T = 6, G = 2, PAGES = 8, TOKENS = 16, START = 29 };
    int64_t d = _i & 1 ? 40 : 64;
    ir_dtype dtype = _i & 2 ? IR_F32 : IR_F16;
    int64_t size = ir_dtype_bits(dtype) / 8, page = 2 * G * d * TOKENS * size;
    builder *b = builder_new("append");
    int k = add_arg(b, matrix(IR_F32, G * d), false), v = add_arg(b, matrix(IR_F32, G * d), false);
    int kv = b->kernel.n_args++;
    b->args[kv] = (cg_arg){
        .kind = CG_ARG_KV,
        .written = true,
        .kv_group = 1,
        .kv = {.layers = 3, .heads = G, .head_dim = d, .dtype = dtype, .page_tokens = TOKENS}};
    cg_program *p = add_program(b, G, d);
    cg_access heads = rows_of(k, G * d);
    heads.head_stride = d;
    int key = load(p, heads);
    heads.arg = v;
    store(p, CG_STORE_KV, key, load(p, heads), (cg_access){.arg = kv});
    float *ks = buffer((size_t)(T * G * d) * 4), *vs = buffer((size_t)(T * G * d) * 4);
    uint8_t *pool = buffer((size_t)(PAGES * page)), *want = buffer((size_t)(PAGES * page));
    for (int64_t i = 0; i < T * G * d; i++) {
        ks[i] = cpu_random_float(5);
        vs[i] = cpu_random_float(5);
    }
    small_step step = make_step(T, START);
    step.tables[1][0][2] = -1; /* positions from 32 on have no page: nothing is stored */
    run_everywhere(b, (void *[]){ks, vs, pool}, T, &step.head, 1, &kv,
                   &(size_t){(size_t)(PAGES * page)});
    for (int64_t t = 0; t < T; t++)
        for (int64_t g = 0; g < G; g++)
            for (int64_t c = 0; c < d; c++) {
                int64_t slot = (START + t) % 16, number = step.tables[1][0][(START + t) / 16];
                if (number < 0)
                    continue;
                int64_t at_k = (g * d + c) * 16 + slot, at_v = G * d * 16 + (g * 16 + slot) * d + c;
                float x = ks[(t * G + g) * d + c], y = vs[(t * G + g) * d + c];
                uint16_t xh = ir_f32_to_f16(x), yh = ir_f32_to_f16(y);
                uint8_t *to = want + number * page;
                memcpy(to + at_k * size, size == 4 ? (void *)&x : (void *)&xh, (size_t)size);
                memcpy(to + at_v * size, size == 4 ? (void *)&y : (void *)&yh, (size_t)size);
            }
    ck_assert_mem_eq(pool, want, (size_t)(PAGES * page));
    free(ks);
    free(vs);
    free(pool);
    free(want);
    free(b);
}
END_TEST

/* --- gathers -----------------------------------------------------------------------------------
 */

static const ir_encoding_id packed_encodings[] = {IR_ENC_Q4_0, IR_ENC_Q4_1, IR_ENC_Q5_0,
                                                  IR_ENC_Q5_1, IR_ENC_Q8_0, IR_ENC_Q4_K,
                                                  IR_ENC_Q5_K, IR_ENC_Q6_K};
enum { N_PACKED = sizeof packed_encodings / sizeof packed_encodings[0] };

/* A table whose rows are known by their codes and scales, written in the packed order. */
typedef struct table {
    int64_t n, k;
    uint8_t *bytes;
    size_t size;
    float *values; /* [n][k] */
} table;

static float random_scale(uint8_t *at) {
    uint16_t h = ir_f32_to_f16(cpu_random_float(1));
    memcpy(at, &h, 2);
    return ir_f16_to_f32(h);
}

static void put_code(uint8_t *block, int bits, int row, int k, int code) {
    if (bits == 8) {
        block[k / 4 * 64 + row * 4 + k % 4] = (uint8_t)(code + 128);
        return;
    }
    int j = k % 16 / 4, b = k % 4;
    block[j * 64 + row * 4 + b] |= (uint8_t)(k < 16 ? code & 15 : (code & 15) << 4);
    if (bits == 5)
        block[256 + row * 4 + b] |= (uint8_t)((code >> 4) << (k / 4));
    if (bits == 6)
        block[256 + k / 16 * 64 + row * 4 + b] |= (uint8_t)((code >> 4) << (2 * (k % 16 / 4)));
}

static table make_table(const ir_encoding *e, int64_t n, int64_t k) {
    bool two = e->super_group != 0, offsets = e->offset != IR_OFFSET_NONE;
    int groups = 32 / e->group, codes = 64 * e->bits;
    int block_bytes = codes + 16 * groups * (two ? 1 : 2) * (offsets ? 2 : 1);
    int super_bytes = two ? (offsets ? 64 : 32) : 0;
    int64_t tiles = (n + 15) / 16,
            per_tile = k / 32 * block_bytes + (two ? k / 256 * super_bytes : 0);
    table t = {.n = n, .k = k, .size = (size_t)(tiles * per_tile)};
    t.bytes = buffer(t.size);
    memset(t.bytes, 0, t.size);
    t.values = buffer((size_t)(n * k) * 4);
    uint8_t *at = t.bytes, *super = NULL;
    for (int64_t tile = 0; tile < tiles; tile++)
        for (int64_t block = 0; block < k / 32; block++) {
            if (two && block % 8 == 0) {
                super = at;
                at += super_bytes;
                for (int i = 0; i < super_bytes / 2; i++)
                    random_scale(super + 2 * i);
            }
            for (int row = 0; row < 16; row++) {
                uint16_t d = 0, dmin = 0;
                if (two) {
                    memcpy(&d, super + 2 * row, 2);
                    if (offsets)
                        memcpy(&dmin, super + 32 + 2 * row, 2);
                }
                for (int g = 0; g < groups; g++) {
                    float scale, offset = 0;
                    if (two) {
                        uint8_t *s = at + codes + 16 * g + row;
                        *s = (uint8_t)cpu_random();
                        scale =
                            ir_f16_to_f32(d) * (e->scale == IR_I8 ? (float)(int8_t)*s : (float)*s);
                        if (offsets) {
                            s += 16 * groups;
                            *s = (uint8_t)cpu_random();
                            offset = ir_f16_to_f32(dmin) * (float)*s;
                        }
                    } else {
                        scale = random_scale(at + codes + 2 * row);
                        if (offsets)
                            offset = random_scale(at + codes + 32 + 2 * row);
                    }
                    for (int i = 0; i < e->group; i++) {
                        int column = g * e->group + i;
                        int code = (int)(cpu_random() & ((1u << e->bits) - 1));
                        if (e->is_signed)
                            code -= 128;
                        put_code(at, e->bits, row, column, code);
                        float v = scale * (float)(code - e->zero_point);
                        if (offsets)
                            v = e->offset == IR_OFFSET_ADD ? v + offset : v - offset;
                        if (tile * 16 + row < n)
                            t.values[(tile * 16 + row) * k + block * 32 + column] = v;
                    }
                }
            }
            at += block_bytes;
        }
    ck_assert_uint_eq((size_t)(at - t.bytes), t.size);
    return t;
}

static void check_gather(const table *t, ir_type type) {
    enum { T = 8 };
    builder *b = builder_new("gather");
    int w = add_arg(b, type, false);
    b->args[w].kind = CG_ARG_WEIGHT;
    int ids = add_arg(b, ir_tensor(IR_I32, 1, (ir_dim[]){IR_DIM_T}), false);
    int y = add_arg(b, matrix(IR_F32, t->k), true);
    cg_program *p = add_program(b, 1, t->k);
    cg_access rows = rows_of(w, t->k);
    rows.row_map = CG_ROW_GATHERED;
    rows.index_arg = ids;
    store(p, CG_STORE, scalar(p, CG_MUL, load(p, rows), constant(p, 3), 0), 0, rows_of(y, t->k));
    int32_t ids_v[T] = {0, (int32_t)t->n - 1, 17, -1, (int32_t)t->n, INT32_MIN, 5, 30};
    float *yv = buffer((size_t)(T * t->k) * 4);
    run_everywhere(b, (void *[]){t->bytes, ids_v, yv}, T, NULL, 1, &y,
                   &(size_t){(size_t)(T * t->k) * 4});
    for (int i = 0; i < T; i++) {
        int64_t row = ids_v[i] < 0 || ids_v[i] >= t->n ? 0 : ids_v[i];
        for (int64_t c = 0; c < t->k; c++)
            ck_assert_msg(yv[i * t->k + c] == t->values[row * t->k + c] * 3, "row %d column %d",
                          (int)row, (int)c);
    }
    free(yv);
    free(b);
}

START_TEST(gather_packed) {
    const ir_encoding *e = ir_encoding_get(packed_encodings[_i]);
    table t = make_table(e, 35, 512);
    ir_type type = ir_quantized(e, 2, (ir_dim[]){ir_dim_const(t.n), ir_dim_const(t.k)});
    type.layout = "n16";
    check_gather(&t, type);
    free(t.bytes);
    free(t.values);
}
END_TEST

/* f32, f16 and bf16 tables, row-major and packed as [tile][k][16 rows]. */
START_TEST(gather_plain) {
    static const ir_dtype dtypes[] = {IR_F32, IR_F16, IR_BF16};
    ir_dtype dtype = dtypes[_i / 2];
    bool packed = _i % 2;
    int64_t n = 35, k = 76, size = ir_dtype_bits(dtype) / 8;
    table t = {.n = n, .k = k, .size = (size_t)(48 * k * size)};
    t.bytes = buffer(t.size);
    t.values = buffer((size_t)(n * k) * 4);
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < k; c++) {
            float v = cpu_random_float(2);
            uint16_t h = dtype == IR_F16 ? ir_f32_to_f16(v) : ir_f32_to_bf16(v);
            v = dtype == IR_F32 ? v : dtype == IR_F16 ? ir_f16_to_f32(h) : ir_bf16_to_f32(h);
            int64_t at = packed ? (r / 16 * k + c) * 16 + r % 16 : r * k + c;
            memcpy(t.bytes + at * size, dtype == IR_F32 ? (void *)&v : (void *)&h, (size_t)size);
            t.values[r * k + c] = v;
        }
    ir_type type = ir_tensor(dtype, 2, (ir_dim[]){ir_dim_const(n), ir_dim_const(k)});
    type.layout = packed ? "n16" : NULL;
    check_gather(&t, type);
    free(t.bytes);
    free(t.values);
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
    expect_refusal(b, "not a8");
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

static Suite *rows_suite(void) {
    Suite *suite = suite_create("cpu_rows");
    TCase *tcase = tcase_create("rows");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, unary_operations, 0, N_UNARY);
    tcase_add_test(tcase, other_operations);
    tcase_add_loop_test(tcase, norms, 0, N_WIDTHS);
    tcase_add_loop_test(tcase, strided, 0, N_WIDTHS);
    tcase_add_loop_test(tcase, quantized_activations, 0, 3);
    tcase_add_loop_test(tcase, rotation, 0, N_ROTATIONS);
    tcase_add_loop_test(tcase, kv_append, 0, 4);
    tcase_add_loop_test(tcase, gather_packed, 0, N_PACKED);
    tcase_add_loop_test(tcase, gather_plain, 0, 6);
    tcase_add_loop_test(tcase, random_programs, 0, 40);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, same_bytes);
    tcase_add_test(tcase, several_threads);
    tcase_add_test(tcase, targets);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(rows_suite)

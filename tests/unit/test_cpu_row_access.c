/* What row programs on the CPU read and write besides plain numbers, against plain C: quantized
 * activations, rotated pairs, pages of the KV cache, rows of packed tables. */
#include "row_kernel.h"

/* --- quantization ------------------------------------------------------------------------------
 */

/* a8 and a8_e4m3: two heads of `width` columns after 32 columns that stay as they are; then the
 * buffer is read back as numbers. */
START_TEST(quantized_activations) {
    enum { T = 4, HEADS = 2, BEFORE = 32 };
    static const int64_t widths[] = {32, 96, 288};
    int64_t width = widths[_i % 3], k = BEFORE + HEADS * width;
    bool e4m3 = _i >= 3;
    const ir_encoding *a8 = ir_encoding_get(e4m3 ? IR_ENC_A8_E4M3 : IR_ENC_A8);
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
        for (int part = 0; part < (e4m3 ? 1 : 2);
             part++) { /* scales, scaled sums: without the first group */
            size_t at = (size_t)(k + part * (k / 8));
            ck_assert_mem_eq(got + at + 4, want + at + 4, (size_t)(k / 32 - 1) * 4);
        }
        size_t sums = (size_t)(k + k / 4);
        if (!e4m3)
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

/* The scale that a head is stored with, as codegen/lower_nodes.c makes it; *x is divided by it. */
static int kv_scale(cg_program *p, ir_dtype dtype, int *x) {
    int most = reduce(p, CG_REDUCE_MAX, scalar(p, CG_ABS, *x, 0, 0));
    int scale = scalar(p, CG_DIV, most, constant(p, ir_kv_most(dtype)), 0);
    scale = scalar(p, CG_ROUND_F16, scalar(p, CG_MIN, scale, constant(p, 65504), 0), 0, 0);
    int zero = scalar(p, CG_EQ, scale, constant(p, 0), 0);
    *x = scalar(p, CG_DIV, *x, scalar(p, CG_WHERE, zero, constant(p, 1), scale), 0);
    return scale;
}

/* What rounding, scales and saturation can go wrong with: columns of token t, head g. */
static float kv_number(int64_t t, int64_t g, int64_t c) {
    float x = cpu_random_float(5);
    switch (t * 2 + g) {
    case 1: /* scales that f16 holds with few bits, or not at all */
        return ldexpf(x, -20);
    case 2:
        return ldexpf(x, -30);
    case 3: /* beyond the largest scale */
        return ldexpf(x, 27);
    case 4: /* many ties: the scale is 1/16 (of int8) */
        return c == 0 ? 127 / 16.0f : ldexpf((float)(cpu_random() % 509) - 254, -5);
    case 5:
        return c == 6 ? INFINITY : c == 7 ? -INFINITY : x;
    case 6:
        return 0;
    case 7: /* ties, subnormals and the step to normal numbers of f8e4m3, whose scale is 1 */
        return c == 0 ? 448 : ldexpf((float)(cpu_random() % 65) - 32, -11);
    default:
        return x;
    }
}

START_TEST(kv_append) {
    enum { T = 6, G = 2, PAGES = 8, TOKENS = 16, START = 27 };
    static const ir_dtype dtypes[] = {IR_F16, IR_F32, IR_I8, IR_F8E4M3};
    int64_t d = _i & 1 ? 40 : 64;
    ir_dtype dtype = dtypes[_i / 2];
    ir_kv_group group = {
        .layers = 3, .heads = G, .head_dim = d, .dtype = dtype, .page_tokens = TOKENS};
    int64_t size = ir_dtype_bits(dtype) / 8, page = ir_kv_page_bytes(&group);
    bool quantized = ir_kv_quantized(dtype);
    ck_assert_int_eq(page, 2 * G * TOKENS * (d * size + (quantized ? 2 : 0)));
    builder *b = builder_new("append");
    int k = add_arg(b, matrix(IR_F32, G * d), false), v = add_arg(b, matrix(IR_F32, G * d), false);
    int kv = b->kernel.n_args++;
    b->args[kv] = (cg_arg){.kind = CG_ARG_KV, .written = true, .kv_group = 1, .kv = group};
    cg_program *p = add_program(b, G, d);
    cg_access heads = rows_of(k, G * d);
    heads.head_stride = d;
    int key = load(p, heads);
    heads.arg = v;
    int value = load(p, heads);
    if (quantized) {
        int scale = kv_scale(p, dtype, &key);
        store(p, CG_STORE_KV_SCALE, scale, kv_scale(p, dtype, &value), (cg_access){.arg = kv});
    }
    store(p, CG_STORE_KV, key, value, (cg_access){.arg = kv});
    float *ks = buffer((size_t)(T * G * d) * 4), *vs = buffer((size_t)(T * G * d) * 4);
    uint8_t *pool = buffer((size_t)(PAGES * page)), *want = buffer((size_t)(PAGES * page));
    for (int64_t i = 0; i < T * G * d; i++) {
        ks[i] = quantized ? kv_number(i / d / G, i / d % G, i % d) : cpu_random_float(5);
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
                if (quantized) {
                    uint8_t codes[2][64], *at = want + number * page;
                    for (int is_v = 0; is_v < 2 && c == 0; is_v++) {
                        const float *x = (is_v ? vs : ks) + (t * G + g) * d;
                        uint16_t scale = ir_kv_encode(dtype, x, d, codes[is_v], 1);
                        memcpy(at + 2 * G * d * 16 + ((is_v * G + g) * 16 + slot) * 2, &scale, 2);
                        for (int64_t i = 0; i < d; i++)
                            at[is_v ? G * d * 16 + (g * 16 + slot) * d + i
                                    : (g * d + i) * 16 + slot] = codes[is_v][i];
                    }
                    continue;
                }
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
                                                  IR_ENC_Q5_K, IR_ENC_Q6_K, IR_ENC_FP8_E4M3};
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

static float random_wide_scale(uint8_t *at) {
    float f = cpu_random_float(1);
    memcpy(at, &f, 4);
    return f;
}

/* What a code of e4m3 stands for, as OCP's specification defines it. */
static float e4m3(int code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    float f = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return code & 128 ? -f : f;
}

static void put_code(uint8_t *block, int bits, int row, int k, int code) {
    if (bits == 8) {
        block[k / 4 * 64 + row * 4 + k % 4] = (uint8_t)code;
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
    bool fp8 = e->code == IR_CODE_E4M3;
    int groups = 32 / e->group, codes = 64 * e->bits;
    int block_bytes = codes + 16 * groups * (two ? 1 : fp8 ? 4 : 2) * (offsets ? 2 : 1);
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
                        scale = fp8 ? random_wide_scale(at + codes + 4 * row)
                                    : random_scale(at + codes + 2 * row);
                        if (offsets)
                            offset = random_scale(at + codes + 32 + 2 * row);
                    }
                    for (int i = 0; i < e->group; i++) {
                        int column = g * e->group + i;
                        int code = (int)(cpu_random() & ((1u << e->bits) - 1));
                        if (fp8 && (code & 127) == 127) /* NaN */
                            code ^= 1;
                        put_code(at, e->bits, row, column, code);
                        if (e->is_signed)
                            code -= 128;
                        float v = scale * (fp8 ? e4m3(code) : (float)(code - e->zero_point));
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

static Suite *row_access_suite(void) {
    Suite *suite = suite_create("cpu_row_access");
    TCase *tcase = tcase_create("row_access");
    tcase_set_timeout(tcase, 120);
    test_add_emulated(tcase, quantized_activations, 0, 6, SANITIZED_ROWS);
    test_add_emulated(tcase, rotation, 0, N_ROTATIONS, SANITIZED_ROWS);
    test_add_emulated(tcase, kv_append, 0, 8, SANITIZED_ROWS);
    test_add_emulated(tcase, gather_packed, 0, N_PACKED, SANITIZED_ROWS);
    test_add_emulated(tcase, gather_plain, 0, 6, SANITIZED_ROWS);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(row_access_suite)

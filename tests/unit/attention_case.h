/* Cases for tests of paged attention: a kernel, a ragged step, its pages, and the result in f64.
 * Included by one test file each. */
#ifndef MCC_TESTS_ATTENTION_CASE_H
#define MCC_TESTS_ATTENTION_CASE_H

#include "check_main.h"
#include "cpu_kernel.h"

#include <math.h>

enum { PAGE = 16, MAX_SEQS = 40, MAX_TOKENS = 80, P = 40 };

typedef struct shape {
    int heads, kv_heads, dim;
    ir_dtype dtype;
    int window;
    double softcap;
    float loudness; /* of queries: large ones make most weights vanish; negative: all scores are */
    int n_seqs;
    struct {
        int start, tokens; /* positions already stored, tokens of this step */
    } seqs[MAX_SEQS];
} shape;

/* clang-format off */
#define EIGHT {0, 1}, {3, 2}, {30, 1}, {15, 2}, {16, 1}, {0, 2}, {255, 1}, {256, 1}
/* clang-format on */

static const shape shapes[] = {
    {9, 3, 64, IR_F16, 0, 0, 2, 3, {{0, 19}, {300, 1}, {511, 9}}},
    {9, 3, 64, IR_F32, 0, 0, 2, 2, {{0, 40}, {17, 3}}},
    {9, 3, 64, IR_F16, 0, 0, 80, 2, {{0, 20}, {540, 1}}},
    {4, 1, 256, IR_F16, 30, 0, 2, 4, {{0, 3}, {250, 20}, {36, 1}, {600, 1}}},
    {4, 2, 32, IR_F32, 512, 20, 2, 3, {{250, 8}, {520, 24}, {0, 1}}},
    {2, 2, 40, IR_F16, 8, 0, 2, 2, {{0, 30}, {255, 2}}},
    {14, 2, 64, IR_F16, 0, 0, 2, 2, {{230, 30}, {100, 1}}},
    {8, 1, 128, IR_F16, 0, 50, 2, 2, {{0, 17}, {260, 2}}},
    {3, 3, 8, IR_F32, 0, 0, 2, 1, {{0, 5}}},
    {9, 3, 64, IR_F16, 0, 0, 2, 1, {{600, 5}}},
    {16, 16, 8, IR_F16, 0, 0, 2, 1, {{300, 6}}},
    {4, 1, 32, IR_I8, 300, 0, 2, 1, {{600, 7}}},
    {16, 1, 16, IR_F16, 0, 0, 2, 2, {{5, 2}, {14, 4}}},
    {9, 3, 64, IR_F16, 0, 0, 2, 4, {{639, 1}, {300, 1}, {0, 1}, {511, 1}}},
    {8, 2, 96, IR_F16, 100, 0, 2, 2, {{240, 20}, {530, 1}}},
    {2, 2, 80, IR_F16, 0, 0, 2, 1, {{0, 33}}},
    {17, 1, 32, IR_F16, 0, 0, 2, 2, {{255, 2}, {256, 1}}},
    {4, 1, 32, IR_F16, 30, 0, -2, 2, {{250, 20}, {280, 8}}},
    {2, 1, 16, IR_F16, 0, 0, 2, 40, {EIGHT, EIGHT, EIGHT, EIGHT, EIGHT}},
    {2, 2, 8, IR_F32, 20, 0, 2, 40, {EIGHT, EIGHT, EIGHT, EIGHT, EIGHT}},
    {9, 3, 64, IR_I8, 0, 0, 2, 3, {{0, 19}, {300, 1}, {511, 5}}},
    {4, 1, 256, IR_I8, 30, 0, 2, 2, {{250, 20}, {600, 1}}},
    {2, 2, 40, IR_I8, 8, 0, 2, 2, {{0, 30}, {255, 2}}},
    {14, 2, 64, IR_F8E4M3, 0, 0, 2, 2, {{230, 30}, {100, 1}}},
    {8, 1, 128, IR_F8E4M3, 0, 50, 2, 2, {{0, 17}, {260, 2}}},
    {2, 2, 40, IR_F8E4M3, 100, 0, 2, 2, {{0, 33}, {530, 1}}},
    {2, 1, 16, IR_I8, 0, 0, 2, 40, {EIGHT, EIGHT, EIGHT, EIGHT, EIGHT}},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/* A step block with room for everything. */
typedef struct step_block {
    mcc_step head;
    int32_t positions[MAX_TOKENS], seqs[MAX_TOKENS];
    int32_t offsets[MAX_SEQS + 1], lens[MAX_SEQS];
    int32_t tables[2 * MAX_SEQS * P]; /* [group][sequence][page] */
} step_block;

typedef struct fixture {
    const shape *s;
    cg_kernel kernel;
    cg_arg args[3];
    cg_program program;
    cg_node nodes[3];
    cg_store store;
    float *q;                                 /* [T][heads][dim] */
    float *keys[MAX_SEQS], *values[MAX_SEQS]; /* [position][kv_heads][dim], rounded to the pages */
    int T;
    step_block step;
    uint8_t *pool;
    size_t page_bytes, pool_bytes;
} fixture;

/* A head of a token is rounded to what pages hold of it. */
static inline void round_head(const shape *s, float *v) {
    uint8_t codes[256];
    uint16_t scale = 0;
    if (ir_kv_quantized(s->dtype))
        scale = ir_kv_encode(s->dtype, v, s->dim, codes, 1);
    for (int c = 0; c < s->dim; c++)
        v[c] = ir_kv_quantized(s->dtype) ? ir_kv_decode(s->dtype, codes[c], scale)
               : s->dtype == IR_F16      ? ir_f16_to_f32(ir_f32_to_f16(v[c]))
                                         : v[c];
}

/* Stores head g of position `slot` of a page. Quantized again, what a page holds is the same. */
static inline void put_head(const fixture *f, uint8_t *page, bool is_v, int g, int slot,
                            const float *v) {
    const ir_kv_group *kv = &f->args[1].kv;
    uint8_t *first = page + ir_kv_place(kv, is_v, g, slot, 0);
    int64_t stride = ir_kv_place(kv, is_v, g, slot, 1) - ir_kv_place(kv, is_v, g, slot, 0);
    if (ir_kv_quantized(kv->dtype)) {
        uint16_t scale = ir_kv_encode(kv->dtype, v, kv->head_dim, first, stride);
        memcpy(page + ir_kv_scale_place(kv, is_v, g, slot), &scale, 2);
        return;
    }
    for (int64_t c = 0; c < kv->head_dim; c++) {
        uint16_t h = ir_f32_to_f16(v[c]);
        memcpy(first + c * stride, kv->dtype == IR_F16 ? (void *)&h : (void *)&v[c],
               kv->dtype == IR_F16 ? 2 : 4);
    }
}

/* Stores positions below `length` of sequence i, but for pages that were freed. */
static inline void fill(fixture *f, int i, int length) {
    const shape *s = f->s;
    const int32_t *table = f->step.tables + (f->step.head.S + i) * P;
    for (int p = 0; p < length; p++)
        for (int g = 0; g < s->kv_heads && table[p / PAGE] >= 0; g++) {
            uint8_t *page = f->pool + (size_t)table[p / PAGE] * f->page_bytes;
            int64_t from = ((int64_t)p * s->kv_heads + g) * s->dim;
            put_head(f, page, false, g, p % PAGE, f->keys[i] + from);
            put_head(f, page, true, g, p % PAGE, f->values[i] + from);
        }
}

static inline void make_kernel(fixture *f) {
    const shape *s = f->s;
    int64_t width = (int64_t)s->heads * s->dim;
    ir_type rows = ir_tensor(IR_F32, 2, (ir_dim[]){IR_DIM_T, ir_dim_const(width)});
    f->args[0] = (cg_arg){.kind = CG_ARG_BUFFER, .type = rows};
    f->args[1] = (cg_arg){.kind = CG_ARG_KV,
                          .kv_group = 1,
                          .kv = {.window = s->window,
                                 .layers = 1,
                                 .heads = s->kv_heads,
                                 .head_dim = s->dim,
                                 .dtype = s->dtype,
                                 .page_tokens = PAGE}};
    f->args[2] = (cg_arg){.kind = CG_ARG_BUFFER, .type = rows, .written = true};
    cg_access access = {.arg = 0,
                        .row_map = CG_ROW_SELF,
                        .row_stride = width,
                        .head_stride = s->dim,
                        .column_stride = 1};
    f->nodes[0] = (cg_node){.kind = CG_INPUT};
    f->nodes[1] = (cg_node){.kind = CG_CONST, .per_row = true, .value = 0.5};
    f->nodes[2] = (cg_node){.kind = CG_SCALAR, .op = CG_MUL, .operands = {0, 1}};
    f->store = (cg_store){.kind = CG_STORE, .value = 2, .access = access};
    f->store.access.arg = 2;
    f->program = (cg_program){.heads = s->heads,
                              .width = s->dim,
                              .n_nodes = 3,
                              .n_stores = 1,
                              .nodes = f->nodes,
                              .stores = &f->store};
    f->kernel = (cg_kernel){.name = "attention",
                            .anchor = CG_ANCHOR_ATTENTION,
                            .rows = IR_DIM_T,
                            .n_args = 3,
                            .args = f->args,
                            .n_programs = 1,
                            .programs = &f->program,
                            .attention = {.q = access,
                                          .kv = 1,
                                          .heads = s->heads,
                                          .scale = 1 / sqrt(s->dim),
                                          .softcap = s->softcap,
                                          .window = s->window}};
}

static inline void make_step(fixture *f) {
    const shape *s = f->s;
    step_block *b = &f->step;
    for (int i = 0; i < s->n_seqs; i++) {
        b->offsets[i] = f->T;
        b->lens[i] = s->seqs[i].start + s->seqs[i].tokens;
        for (int t = 0; t < s->seqs[i].tokens; t++, f->T++) {
            b->positions[f->T] = s->seqs[i].start + t;
            b->seqs[f->T] = i;
        }
    }
    b->offsets[s->n_seqs] = f->T;
    ck_assert_int_le(f->T, MAX_TOKENS);
    b->head = (mcc_step){.T = f->T, .S = s->n_seqs, .R = f->T, .G = 2, .P = P};
    b->head.bytes = sizeof *b;
    b->head.positions = offsetof(step_block, positions);
    b->head.token_seqs = offsetof(step_block, seqs);
    b->head.seq_offsets = offsetof(step_block, offsets);
    b->head.context_lens = offsetof(step_block, lens);
    b->head.page_tables = offsetof(step_block, tables);
    /* Pages of the sequences interleaved and descending; pages behind every window are gone. */
    int n_pages = s->n_seqs * P;
    for (int i = 0; i < n_pages; i++) {
        b->tables[i] = -1;
        b->tables[n_pages + i] = n_pages - 1 - (i % P * s->n_seqs + i / P);
        int last = s->seqs[i / P].start + 1 - s->window; /* first position that is seen */
        if (s->window && (i % P + 1) * PAGE <= last)
            b->tables[n_pages + i] = -1;
    }
}

static inline void *aligned(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    ck_assert_ptr_nonnull(p);
    return p;
}

static inline fixture *make_fixture(const shape *s) {
    fixture *f = calloc(1, sizeof *f);
    f->s = s;
    make_kernel(f);
    make_step(f);
    f->page_bytes = (size_t)ir_kv_page_bytes(&f->args[1].kv);
    f->pool_bytes = f->page_bytes * (size_t)(s->n_seqs * P);
    f->pool = aligned(f->pool_bytes);
    f->q = aligned((size_t)(f->T * s->heads * s->dim) * 4);
    for (int i = 0; i < f->T * s->heads * s->dim; i++)
        f->q[i] =
            s->loudness < 0 ? -fabsf(cpu_random_float(s->loudness)) : cpu_random_float(s->loudness);
    for (int i = 0; i < s->n_seqs; i++) {
        size_t count = (size_t)(f->step.lens[i] * s->kv_heads * s->dim);
        f->keys[i] = aligned(count * 4);
        f->values[i] = aligned(count * 4);
        for (size_t k = 0; k < count; k++) {
            float key = cpu_random_float(2);
            f->keys[i][k] = s->loudness < 0 ? fabsf(key) : key;
            f->values[i][k] = cpu_random_float(3);
        }
        for (size_t k = 0; k < count; k += (size_t)s->dim) {
            round_head(s, f->keys[i] + k);
            round_head(s, f->values[i] + k);
        }
    }
    return f;
}

static inline void free_fixture(fixture *f) {
    for (int i = 0; i < f->s->n_seqs; i++) {
        free(f->keys[i]);
        free(f->values[i]);
    }
    free(f->q);
    free(f->pool);
    free(f);
}

/* What the errors of a result are bounded with. */
typedef struct magnitudes {
    double values[256]; /* of a column: the same sum of values' magnitudes */
    double score;       /* the largest sum of products' magnitudes, scaled */
} magnitudes;

/* m may be NULL. */
static inline void reference(const fixture *f, int token, int head, double *out, magnitudes *m) {
    const shape *s = f->s;
    int seq = f->step.seqs[token], position = f->step.positions[token];
    int g = head / (s->heads / s->kv_heads), first = s->window ? position - s->window + 1 : 0;
    double max = -INFINITY, sum = 0, scores[P * PAGE];
    first = first < 0 ? 0 : first;
    for (int p = first; p <= position; p++) {
        const float *k =
            f->keys[seq] + ((size_t)p * (size_t)s->kv_heads + (size_t)g) * (size_t)s->dim;
        double v = 0, sizes = 0;
        for (int c = 0; c < s->dim; c++) {
            double product = (double)f->q[(token * s->heads + head) * s->dim + c] * (double)k[c];
            v += product;
            sizes += fabs(product);
        }
        if (m && (p == first || sizes * f->kernel.attention.scale > m->score))
            m->score = sizes * f->kernel.attention.scale;
        v *= f->kernel.attention.scale;
        scores[p] = s->softcap > 0 ? s->softcap * tanh(v / s->softcap) : v;
        max = fmax(max, scores[p]);
    }
    memset(out, 0, sizeof *out * (size_t)s->dim);
    if (m)
        memset(m->values, 0, sizeof m->values);
    for (int p = first; p <= position; p++) {
        const float *v =
            f->values[seq] + ((size_t)p * (size_t)s->kv_heads + (size_t)g) * (size_t)s->dim;
        double e = exp(scores[p] - max);
        sum += e;
        for (int c = 0; c < s->dim; c++)
            out[c] += e * (double)v[c];
        for (int c = 0; m && c < s->dim; c++)
            m->values[c] += e * fabs((double)v[c]);
    }
    for (int c = 0; c < s->dim; c++)
        out[c] = out[c] / sum / 2; /* the epilogue halves */
    for (int c = 0; m && c < s->dim; c++)
        m->values[c] = m->values[c] / sum / 2;
}

#endif

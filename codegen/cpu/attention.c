/* The attention schedule: one pass over KV pages with an online softmax.
 *
 * Tokens of one sequence that follow each other in an aligned block of 8 tokens of the step are a
 * run. A tile is a token and a key/value head; the tile of a run's first token does the whole run
 * and the other tiles nothing, so that tokens of different sequences can go to different threads.
 * A (token, query head) is a pair here; the pairs of a run share the loads of keys and values.
 *
 * For each pair the arithmetic is the same whatever it is worked on with. Per absolute range of
 * CG_ATTENTION_RANGE positions that it sees, ascending:
 *
 *     s[p] = cap((q . k[p]) * scale)    FMAs over d ascending; lanes are the positions of a page
 *     m = max s
 *     e[p] = exp(s[p] - m)              0 below e^-87
 *     l = sum of e[p]                   16 interleaved partials, then halved
 *     o[d] = sum of e[p]*v[p][d]        FMAs over positions ascending; lanes are d
 *
 * and then ranges are merged, from M = -inf, L = 0, O = 0; the result is O/L:
 *
 *     m' = max(M, m), a = exp(M - m'), b = exp(m - m')
 *     L = fma(l, b, L*a), O[d] = fma(o[d], b, O[d]*a), M = m'
 *
 * Positions that a pair does not see are never multiplied, not even by 0: what lies there may be
 * from another step, or no number. */
#include "codegen/cpu/emit.h"

enum {
    BLOCK_TOKENS = 8,
    RANGE = CG_ATTENTION_RANGE,
    PAGE = CG_CPU_LANES, /* tokens of a page (compile.c checks) */
    RANGE_PAGES = RANGE / PAGE
};

typedef struct schedule {
    cg_cpu_emitter *em;
    const cg_attention *a;
    const ir_kv_group *kv;
    int kv_group;
    int64_t group;   /* query heads of one key/value head */
    int64_t unit;    /* of them, worked on together: a divisor of group */
    int64_t vectors; /* of 16 columns in a head, the last one maybe partial */
    int64_t size;    /* bytes of a KV element */
    LLVMValueRef kv_head;
    /* scratch */
    LLVMValueRef pages;           /* [16] address of the head's keys in each page of the range */
    LLVMValueRef scores;          /* [pair][RANGE] f32 */
    LLVMValueRef partial, output; /* [pair][vectors * 16] f32: o and O */
    LLVMValueRef max, sum;        /* [pair] f32: M and L */
    LLVMValueRef range_max, range_sum; /* [pair] f32: m and l */
    LLVMValueRef program_scratch, result;
    /* the run: tokens first … first + tokens - 1, of sequence seq */
    LLVMValueRef first, tokens, seq;
    LLVMValueRef range; /* first position of the range */
} schedule;

/* Accumulators of 16 floats that fit the registers beside what else a loop needs. */
static int64_t register_budget(const cg_cpu_emitter *em) {
    return em->target->avx512 ? 24 : 6;
}

static int64_t largest_divisor(int64_t n, int64_t bound) {
    for (int64_t d = bound < n ? bound : n; d > 1; d--)
        if (n % d == 0)
            return d;
    return 1;
}

/* --- tiling and scratch ------------------------------------------------------------------------
 */

typedef struct layout {
    int64_t pages, scores, partial, output, max, sum, range_max, range_sum, result, program, bytes;
} layout;

static int64_t take(int64_t *bytes, int64_t size) {
    int64_t at = *bytes;
    *bytes += (size + 63) / 64 * 64;
    return at;
}

static const ir_kv_group *kv_of(const cg_kernel *kernel) {
    return &kernel->args[kernel->attention.kv].kv;
}

static layout scratch_layout(const cg_kernel *kernel) {
    const ir_kv_group *kv = kv_of(kernel);
    int64_t pairs = BLOCK_TOKENS * (kernel->attention.heads / kv->heads);
    int64_t columns = (kv->head_dim + CG_CPU_LANES - 1) / CG_CPU_LANES * CG_CPU_LANES;
    layout l = {0};
    l.pages = take(&l.bytes, RANGE_PAGES * 8);
    l.scores = take(&l.bytes, pairs * RANGE * 4);
    l.partial = take(&l.bytes, pairs * columns * 4);
    l.output = take(&l.bytes, pairs * columns * 4);
    l.max = take(&l.bytes, pairs * 4);
    l.sum = take(&l.bytes, pairs * 4);
    l.range_max = take(&l.bytes, pairs * 4);
    l.range_sum = take(&l.bytes, pairs * 4);
    l.result = take(&l.bytes, columns * 4);
    l.program = l.bytes;
    for (int i = 0; i < kernel->n_programs; i++)
        take(&l.bytes, cg_cpu_program_scratch(&kernel->programs[i], kv->head_dim));
    return l;
}

int64_t cg_cpu_attention_scratch(const cg_kernel *kernel) {
    return scratch_layout(kernel).bytes;
}

cg_tiling cg_cpu_attention_tiling(const cg_kernel *kernel) {
    return (cg_tiling){.dim = kernel->rows, .div = 1, .mult = kv_of(kernel)->heads};
}

/* --- tokens and addresses ----------------------------------------------------------------------
 */

static LLVMValueRef position_of(schedule *s, LLVMValueRef token) {
    LLVMValueRef row = cg_cpu_add(s->em, s->first, token);
    return cg_cpu_load_index(s->em, s->em->positions, row);
}

/* First position that a token at `position` sees. */
static LLVMValueRef window_start(schedule *s, LLVMValueRef position) {
    if (s->a->window == 0)
        return cg_cpu_i64(s->em, 0);
    LLVMValueRef start = cg_cpu_add_const(s->em, position, 1 - s->a->window);
    return cg_cpu_max(s->em, start, cg_cpu_i64(s->em, 0));
}

/* What a token sees of the range: [begin, end), counted from the range's start; empty when
 * end <= begin. */
static void seen(schedule *s, LLVMValueRef token, LLVMValueRef *begin, LLVMValueRef *end) {
    LLVMValueRef position = position_of(s, token);
    *begin = cg_cpu_sub(s->em, window_start(s, position), s->range);
    *begin = cg_cpu_max(s->em, *begin, cg_cpu_i64(s->em, 0));
    *end = cg_cpu_sub(s->em, cg_cpu_add_const(s->em, position, 1), s->range);
    *end = cg_cpu_min(s->em, *end, cg_cpu_i64(s->em, RANGE));
}

static LLVMValueRef pair_of(schedule *s, LLVMValueRef token, LLVMValueRef head) {
    return cg_cpu_add(s->em, cg_cpu_mul_const(s->em, token, s->group), head);
}

/* Row `pair` of a [pair][columns] array of f32. */
static LLVMValueRef pair_row(schedule *s, LLVMValueRef array, LLVMValueRef pair, int64_t columns) {
    return cg_cpu_offset(s->em, array, cg_cpu_mul_const(s->em, pair, columns * 4));
}

static LLVMValueRef score_row(schedule *s, LLVMValueRef pair) {
    return pair_row(s, s->scores, pair, RANGE);
}

static LLVMValueRef output_row(schedule *s, LLVMValueRef array, LLVMValueRef pair) {
    return pair_row(s, array, pair, s->vectors * CG_CPU_LANES);
}

static LLVMValueRef page_keys(schedule *s, LLVMValueRef page) {
    LLVMValueRef at = cg_cpu_offset(s->em, s->pages, cg_cpu_mul_const(s->em, page, 8));
    return cg_cpu_load(s->em, s->em->ptr, at, 8);
}

static LLVMValueRef load_at(schedule *s, LLVMValueRef ptr, int64_t offset) {
    return cg_cpu_load(s->em, s->em->f32x16, cg_cpu_offset_const(s->em, ptr, offset), 64);
}

static void store_at(schedule *s, LLVMValueRef v, LLVMValueRef ptr, int64_t offset) {
    cg_cpu_store(s->em, v, cg_cpu_offset_const(s->em, ptr, offset), 64);
}

static LLVMValueRef load_number(schedule *s, LLVMValueRef array, LLVMValueRef pair) {
    return cg_cpu_load(s->em, s->em->f32, pair_row(s, array, pair, 1), 4);
}

static void store_number(schedule *s, LLVMValueRef v, LLVMValueRef array, LLVMValueRef pair) {
    cg_cpu_store(s->em, v, pair_row(s, array, pair, 1), 4);
}

/* The head's keys in pages [begin, end) of the range. A page that the step does not have, which an
 * engine never asks for, reads page 0 rather than what lies before the pool. */
static void find_pages(schedule *s, LLVMValueRef begin, LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    int64_t head_bytes = s->kv->head_dim * PAGE * s->size;
    LLVMValueRef zero = cg_cpu_i64(em, 0);
    LLVMValueRef base =
        cg_cpu_offset(em, em->args[s->a->kv], cg_cpu_mul_const(em, s->kv_head, head_bytes));
    LLVMValueRef first = LLVMBuildAShr(em->builder, s->range, cg_cpu_i64(em, 4), "");
    cg_cpu_loop page = cg_cpu_for(em, begin, end, 1);
    LLVMValueRef index =
        cg_cpu_min(em, cg_cpu_add(em, first, page.index), cg_cpu_add_const(em, em->P, -1));
    LLVMValueRef number = cg_cpu_page_number(em, s->kv_group, s->seq, index);
    number = cg_cpu_max(em, number, zero);
    LLVMValueRef keys =
        cg_cpu_offset(em, base, cg_cpu_mul_const(em, number, cg_cpu_page_bytes(s->kv)));
    cg_cpu_store(em, keys, cg_cpu_offset(em, s->pages, cg_cpu_mul_const(em, page.index, 8)), 8);
    cg_cpu_end_for(em, &page);
}

/* --- scores ------------------------------------------------------------------------------------
 */

enum { MAX_ACCUMULATORS = 24 };

/* Scores of n_tokens tokens from `token` on and `unit` heads from `head` on, against n_pages pages
 * from `page` on, of pages that end at `end`. Keys are loaded once per page and column for all
 * pairs. */
static void emit_scores(schedule *s, int64_t n_tokens, LLVMValueRef token, LLVMValueRef head,
                        int64_t n_pages, LLVMValueRef page, LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    const cg_access *q = &s->a->q;
    int64_t pairs = n_tokens * s->unit, d = s->kv->head_dim;
    LLVMValueRef sums[MAX_ACCUMULATORS], keys[MAX_ACCUMULATORS];
    for (int64_t i = 0; i < pairs * n_pages; i++) {
        sums[i] = cg_cpu_local(em, em->f32x16);
        store_at(s, LLVMConstNull(em->f32x16), sums[i], 0);
    }
    for (int64_t p = 0; p < n_pages; p++)
        keys[p] = page_keys(s, cg_cpu_add_const(em, page, p));
    /* The first pair's query; the others lie at constant distances. */
    LLVMValueRef query_head = cg_cpu_mul_const(em, s->kv_head, s->group);
    query_head = cg_cpu_add(em, query_head, head);
    LLVMValueRef at = cg_cpu_mul_const(em, cg_cpu_add(em, s->first, token), q->row_stride);
    at = cg_cpu_add(em, at, cg_cpu_mul_const(em, query_head, q->head_stride));
    at = cg_cpu_mul_const(em, cg_cpu_add_const(em, at, q->offset), 4);
    LLVMValueRef query = cg_cpu_offset(em, em->args[q->arg], at);

    /* One token alone waits for memory, and pages are too short for the processor to see a stream
     * in them: ask for these pages' values and the next pages' keys, a line at a time. */
    bool prefetch = n_tokens == 1;
    int64_t line = 64 / (PAGE * s->size), plane = s->kv->heads * d * PAGE * s->size;
    LLVMValueRef next[MAX_ACCUMULATORS];
    for (int64_t p = 0; prefetch && p < n_pages; p++) {
        LLVMValueRef at = cg_cpu_add_const(em, page, n_pages + p);
        next[p] = page_keys(s, cg_cpu_min(em, at, cg_cpu_add_const(em, end, -1)));
    }

    int64_t unroll = largest_divisor(d, pairs * n_pages > 12 ? 2 : 4);
    cg_cpu_loop column = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, d), unroll);
    for (int64_t u = 0; u < unroll; u++) {
        LLVMValueRef k[MAX_ACCUMULATORS];
        LLVMValueRef key_at = cg_cpu_mul_const(em, column.index, PAGE * s->size);
        for (int64_t p = 0; p < n_pages; p++)
            k[p] = cg_cpu_load_f32x16(
                em, s->kv->dtype,
                cg_cpu_offset_const(em, cg_cpu_offset(em, keys[p], key_at), u * PAGE * s->size),
                NULL);
        for (int64_t p = 0; prefetch && u % line == 0 && p < n_pages; p++) {
            LLVMValueRef at = cg_cpu_add_const(em, key_at, u * PAGE * s->size);
            cg_cpu_prefetch(em, cg_cpu_offset(em, keys[p], cg_cpu_add_const(em, at, plane)));
            cg_cpu_prefetch(em, cg_cpu_offset(em, next[p], at));
        }
        LLVMValueRef query_at = cg_cpu_offset(em, query, cg_cpu_mul_const(em, column.index, 4));
        for (int64_t i = 0; i < pairs; i++) {
            int64_t distance = i / s->unit * q->row_stride + i % s->unit * q->head_stride + u;
            LLVMValueRef x =
                cg_cpu_load(em, em->f32, cg_cpu_offset_const(em, query_at, distance * 4), 4);
            x = cg_cpu_splat(em, x, CG_CPU_LANES);
            for (int64_t p = 0; p < n_pages; p++) {
                LLVMValueRef sum = sums[i * n_pages + p];
                store_at(s, cg_cpu_fma(em, x, k[p], load_at(s, sum, 0)), sum, 0);
            }
        }
    }
    cg_cpu_end_for(em, &column);

    LLVMValueRef row = score_row(s, pair_of(s, token, head));
    row = cg_cpu_offset(em, row, cg_cpu_mul_const(em, page, PAGE * 4));
    for (int64_t i = 0; i < pairs; i++)
        for (int64_t p = 0; p < n_pages; p++) {
            LLVMValueRef v = LLVMBuildFMul(em->builder, load_at(s, sums[i * n_pages + p], 0),
                                           cg_cpu_f32v(em, s->a->scale), "");
            if (s->a->softcap > 0) {
                LLVMValueRef cap = cg_cpu_f32v(em, s->a->softcap);
                v = cg_cpu_tanh(em, LLVMBuildFDiv(em->builder, v, cap, ""));
                v = LLVMBuildFMul(em->builder, v, cap, "");
            }
            store_at(s, v, row, (i / s->unit * s->group + i % s->unit) * RANGE * 4 + p * PAGE * 4);
        }
}

/* --- softmax of a range ------------------------------------------------------------------------
 */

/* Sets the scores of one vector outside [begin, end) to -inf. */
static void mask_vector(schedule *s, LLVMValueRef row, LLVMValueRef vector, LLVMValueRef begin,
                        LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef first = cg_cpu_mul_const(em, vector, CG_CPU_LANES);
    LLVMValueRef at = cg_cpu_offset(em, row, cg_cpu_mul_const(em, first, 4));
    LLVMValueRef before = cg_cpu_mask(em, cg_cpu_sub(em, begin, first));
    LLVMValueRef upto = cg_cpu_mask(em, cg_cpu_sub(em, end, first));
    LLVMValueRef inside =
        LLVMBuildAnd(em->builder, upto, LLVMBuildNot(em->builder, before, ""), "");
    LLVMValueRef v = LLVMBuildSelect(em->builder, inside, load_at(s, at, 0),
                                     cg_cpu_f32v(em, -(double)__builtin_inff()), "");
    store_at(s, v, at, 0);
}

/* m and l of a pair, its scores replaced by e. */
static void emit_softmax(schedule *s, LLVMValueRef pair, LLVMValueRef begin, LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef row = score_row(s, pair), four = cg_cpu_i64(em, 4);
    LLVMValueRef first = LLVMBuildLShr(em->builder, begin, four, "");
    LLVMValueRef after =
        LLVMBuildLShr(em->builder, cg_cpu_add_const(em, end, CG_CPU_LANES - 1), four, "");
    mask_vector(s, row, first, begin, end);
    mask_vector(s, row, cg_cpu_add_const(em, after, -1), begin, end);

    LLVMValueRef max = cg_cpu_local(em, em->f32x16), sum = cg_cpu_local(em, em->f32x16);
    store_at(s, cg_cpu_f32v(em, -(double)__builtin_inff()), max, 0);
    store_at(s, LLVMConstNull(em->f32x16), sum, 0);
    cg_cpu_loop vector = cg_cpu_for(em, first, after, 1);
    LLVMValueRef at = cg_cpu_offset(em, row, cg_cpu_mul_const(em, vector.index, 64));
    store_at(s, cg_cpu_fmax(em, load_at(s, at, 0), load_at(s, max, 0)), max, 0);
    cg_cpu_end_for(em, &vector);
    LLVMValueRef m = cg_cpu_max16(em, load_at(s, max, 0));

    LLVMValueRef all_m = cg_cpu_splat(em, m, CG_CPU_LANES);
    vector = cg_cpu_for(em, first, after, 1);
    at = cg_cpu_offset(em, row, cg_cpu_mul_const(em, vector.index, 64));
    LLVMValueRef e =
        cg_cpu_exp_nonpositive(em, LLVMBuildFSub(em->builder, load_at(s, at, 0), all_m, ""));
    store_at(s, e, at, 0);
    store_at(s, LLVMBuildFAdd(em->builder, load_at(s, sum, 0), e, ""), sum, 0);
    cg_cpu_end_for(em, &vector);
    store_number(s, m, s->range_max, pair);
    store_number(s, cg_cpu_sum16(em, load_at(s, sum, 0)), s->range_sum, pair);
}

/* --- values ------------------------------------------------------------------------------------
 */

/* o of n_tokens tokens from `token` and `unit` heads from `head` on, n_vectors vectors of columns
 * from `vector` on (the last one with `mask`), continued over positions [begin, end) of the
 * range. */
static void emit_values(schedule *s, int64_t n_tokens, LLVMValueRef token, LLVMValueRef head,
                        int64_t n_vectors, LLVMValueRef vector, LLVMValueRef mask,
                        LLVMValueRef begin, LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    int64_t pairs = n_tokens * s->unit, d = s->kv->head_dim;
    int64_t plane = s->kv->heads * d * PAGE * s->size; /* from keys to values in a page */
    LLVMValueRef sums[MAX_ACCUMULATORS];
    LLVMValueRef pair = pair_of(s, token, head);
    LLVMValueRef out = output_row(s, s->partial, pair);
    out = cg_cpu_offset(em, out, cg_cpu_mul_const(em, vector, 64));
    LLVMValueRef weights = score_row(s, pair);
#define PAIR(i) ((i) / s->unit * s->group + (i) % s->unit)
    for (int64_t i = 0; i < pairs * n_vectors; i++) {
        int64_t row = PAIR(i / n_vectors) * s->vectors * 64;
        sums[i] = cg_cpu_local(em, em->f32x16);
        store_at(s, load_at(s, out, row + i % n_vectors * 64), sums[i], 0);
    }
    cg_cpu_loop position = cg_cpu_for(em, begin, end, 1);
    LLVMValueRef page = LLVMBuildLShr(em->builder, position.index, cg_cpu_i64(em, 4), "");
    LLVMValueRef slot = LLVMBuildAnd(em->builder, position.index, cg_cpu_i64(em, 15), "");
    LLVMValueRef at = cg_cpu_mul_const(em, slot, d * s->size);
    at = cg_cpu_add(em, at, cg_cpu_mul_const(em, vector, CG_CPU_LANES * s->size));
    LLVMValueRef values = cg_cpu_offset_const(em, cg_cpu_offset(em, page_keys(s, page), at), plane),
                 v[8];
    for (int64_t k = 0; k < n_vectors; k++)
        v[k] = cg_cpu_load_f32x16(em, s->kv->dtype,
                                  cg_cpu_offset_const(em, values, k * CG_CPU_LANES * s->size),
                                  k == n_vectors - 1 ? mask : NULL);
    weights = cg_cpu_offset(em, weights, cg_cpu_mul_const(em, position.index, 4));
    for (int64_t i = 0; i < pairs; i++) {
        LLVMValueRef e =
            cg_cpu_load(em, em->f32, cg_cpu_offset_const(em, weights, PAIR(i) * RANGE * 4), 4);
        e = cg_cpu_splat(em, e, CG_CPU_LANES);
        for (int64_t k = 0; k < n_vectors; k++) {
            LLVMValueRef sum = sums[i * n_vectors + k];
            store_at(s, cg_cpu_fma(em, e, v[k], load_at(s, sum, 0)), sum, 0);
        }
    }
    cg_cpu_end_for(em, &position);
    for (int64_t i = 0; i < pairs * n_vectors; i++)
        store_at(s, load_at(s, sums[i], 0), out,
                 PAIR(i / n_vectors) * s->vectors * 64 + i % n_vectors * 64);
#undef PAIR
}

/* The same for all columns of the head. */
static void emit_values_row(schedule *s, int64_t n_tokens, LLVMValueRef token, LLVMValueRef head,
                            LLVMValueRef begin, LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    int64_t whole = s->kv->head_dim / CG_CPU_LANES, tail = s->kv->head_dim % CG_CPU_LANES;
    int64_t pairs = n_tokens * s->unit, together;
    if (em->target->avx512)
        together = register_budget(em) / pairs > 4 ? 4 : register_budget(em) / pairs;
    else /* values, weight and accumulators share 16 registers of half the width */
        together = pairs == 1 ? 4 : pairs == 2 ? 2 : 1;
    together = together > whole ? whole : together;
    int64_t at = 0;
    if (whole > 0) {
        at = whole / together * together;
        cg_cpu_loop vector = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, at), together);
        emit_values(s, n_tokens, token, head, together, vector.index, NULL, begin, end);
        cg_cpu_end_for(em, &vector);
    }
    if (at < whole)
        emit_values(s, n_tokens, token, head, whole - at, cg_cpu_i64(em, at), NULL, begin, end);
    if (tail)
        emit_values(s, n_tokens, token, head, 1, cg_cpu_i64(em, whole), cg_cpu_mask_const(em, tail),
                    begin, end);
}

/* --- one range of a run ------------------------------------------------------------------------
 */

/* Calls `work` for all tokens of the run and all units of heads: blocks of `most` tokens first,
 * then of half as many, down to single ones. */
typedef void token_block(schedule *s, int64_t n_tokens, LLVMValueRef token, LLVMValueRef head,
                         LLVMValueRef begin, LLVMValueRef end);

static void for_blocks(schedule *s, int64_t most, token_block *work, LLVMValueRef begin,
                       LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef done = cg_cpu_i64(em, 0);
    for (int64_t n = most; n >= 1; n /= 2) {
        LLVMValueRef left = cg_cpu_sub(em, s->tokens, done);
        LLVMValueRef here = LLVMBuildUDiv(em->builder, left, cg_cpu_i64(em, n), "");
        LLVMValueRef upto = cg_cpu_add(em, done, cg_cpu_mul_const(em, here, n));
        cg_cpu_loop token = cg_cpu_for(em, done, upto, n);
        cg_cpu_loop head = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, s->group), s->unit);
        work(s, n, token.index, head.index, begin, end);
        cg_cpu_end_for(em, &head);
        cg_cpu_end_for(em, &token);
        done = upto;
    }
}

/* The most tokens that a block of `budget` accumulators holds: a power of two. */
static int64_t tokens_within(const schedule *s, int64_t budget) {
    int64_t n = 1;
    while (n < BLOCK_TOKENS && s->unit == s->group && 2 * n * s->unit <= budget)
        n *= 2;
    return n;
}

static void scores_block(schedule *s, int64_t n_tokens, LLVMValueRef token, LLVMValueRef head,
                         LLVMValueRef begin, LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    /* Few pairs leave FMAs waiting for one another: then several pages at a time. */
    int64_t n_pages = 1, budget = register_budget(em);
    while (n_pages < 4 && 2 * n_pages * n_tokens * s->unit <= (budget > 12 ? 12 : budget))
        n_pages *= 2;
    LLVMValueRef at = begin;
    if (n_pages > 1) {
        LLVMValueRef groups =
            LLVMBuildSDiv(em->builder, cg_cpu_sub(em, end, begin), cg_cpu_i64(em, n_pages), "");
        at = cg_cpu_add(em, begin, cg_cpu_mul_const(em, groups, n_pages));
        cg_cpu_loop page = cg_cpu_for(em, begin, at, n_pages);
        emit_scores(s, n_tokens, token, head, n_pages, page.index, end);
        cg_cpu_end_for(em, &page);
    }
    cg_cpu_loop page = cg_cpu_for(em, at, end, 1);
    emit_scores(s, n_tokens, token, head, 1, page.index, end);
    cg_cpu_end_for(em, &page);
}

static LLVMValueRef local_i64(schedule *s, LLVMValueRef initial) {
    LLVMValueRef local = cg_cpu_local(s->em, s->em->i64);
    cg_cpu_store(s->em, initial, local, 8);
    return local;
}

static LLVMValueRef get_i64(schedule *s, LLVMValueRef local) {
    return cg_cpu_load(s->em, s->em->i64, local, 8);
}

static void set_min(schedule *s, LLVMValueRef local, LLVMValueRef v) {
    cg_cpu_store(s->em, cg_cpu_min(s->em, get_i64(s, local), v), local, 8);
}

static void set_max(schedule *s, LLVMValueRef local, LLVMValueRef v) {
    cg_cpu_store(s->em, cg_cpu_max(s->em, get_i64(s, local), v), local, 8);
}

/* Softmax and zeroed o for every pair that sees something of the range. */
static void emit_softmaxes(schedule *s) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef zero = cg_cpu_i64(em, 0), begin, end;
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    seen(s, token.index, &begin, &end);
    cg_cpu_if some = cg_cpu_begin_if(em, cg_cpu_less(em, begin, end));
    cg_cpu_loop head = cg_cpu_for(em, zero, cg_cpu_i64(em, s->group), 1);
    LLVMValueRef pair = pair_of(s, token.index, head.index);
    emit_softmax(s, pair, begin, end);
    LLVMValueRef row = output_row(s, s->partial, pair);
    for (int64_t k = 0; k < s->vectors; k++)
        store_at(s, LLVMConstNull(em->f32x16), row, k * 64);
    cg_cpu_end_for(em, &head);
    cg_cpu_end_if(em, &some);
    cg_cpu_end_for(em, &token);
}

/* o over what single tokens see of [from, to). */
static void emit_edge(schedule *s, LLVMValueRef from, LLVMValueRef to) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef zero = cg_cpu_i64(em, 0), begin, end;
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    seen(s, token.index, &begin, &end);
    begin = cg_cpu_max(em, begin, from);
    end = cg_cpu_min(em, end, to);
    cg_cpu_if some = cg_cpu_begin_if(em, cg_cpu_less(em, begin, end));
    cg_cpu_loop head = cg_cpu_for(em, zero, cg_cpu_i64(em, s->group), s->unit);
    emit_values_row(s, 1, token.index, head.index, begin, end);
    cg_cpu_end_for(em, &head);
    cg_cpu_end_if(em, &some);
    cg_cpu_end_for(em, &token);
}

/* Merges m, l, o into M, L, O. */
static void emit_merge(schedule *s) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef zero = cg_cpu_i64(em, 0), begin, end;
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    seen(s, token.index, &begin, &end);
    cg_cpu_if some = cg_cpu_begin_if(em, cg_cpu_less(em, begin, end));
    cg_cpu_loop head = cg_cpu_for(em, zero, cg_cpu_i64(em, s->group), 1);
    LLVMValueRef pair = pair_of(s, token.index, head.index);
    LLVMValueRef old = load_number(s, s->max, pair), here = load_number(s, s->range_max, pair);
    LLVMValueRef max = cg_cpu_fmax(em, here, old);
    LLVMValueRef a = cg_cpu_exp_nonpositive(em, LLVMBuildFSub(b, old, max, ""));
    LLVMValueRef c = cg_cpu_exp_nonpositive(em, LLVMBuildFSub(b, here, max, ""));
    LLVMValueRef sum = LLVMBuildFMul(b, load_number(s, s->sum, pair), a, "");
    store_number(s, cg_cpu_fma(em, load_number(s, s->range_sum, pair), c, sum), s->sum, pair);
    store_number(s, max, s->max, pair);
    LLVMValueRef from = output_row(s, s->partial, pair), to = output_row(s, s->output, pair);
    a = cg_cpu_splat(em, a, CG_CPU_LANES);
    c = cg_cpu_splat(em, c, CG_CPU_LANES);
    for (int64_t k = 0; k < s->vectors; k++) {
        LLVMValueRef kept = LLVMBuildFMul(b, load_at(s, to, k * 64), a, "");
        store_at(s, cg_cpu_fma(em, load_at(s, from, k * 64), c, kept), to, k * 64);
    }
    cg_cpu_end_for(em, &head);
    cg_cpu_end_if(em, &some);
    cg_cpu_end_for(em, &token);
}

static void emit_range(schedule *s) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef zero = cg_cpu_i64(em, 0), four = cg_cpu_i64(em, 4), begin, end;
    /* What any token sees, and what every token sees. */
    LLVMValueRef any_begin = local_i64(s, cg_cpu_i64(em, RANGE)), any_end = local_i64(s, zero);
    LLVMValueRef all_begin = local_i64(s, zero), all_end = local_i64(s, cg_cpu_i64(em, RANGE));
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    seen(s, token.index, &begin, &end);
    LLVMValueRef none = cg_cpu_less(em, begin, end);
    set_min(s, any_begin, LLVMBuildSelect(b, none, begin, cg_cpu_i64(em, RANGE), ""));
    set_max(s, any_end, LLVMBuildSelect(b, none, end, zero, ""));
    set_max(s, all_begin, begin);
    set_min(s, all_end, end);
    cg_cpu_end_for(em, &token);

    LLVMValueRef first_page = LLVMBuildAShr(b, get_i64(s, any_begin), four, "");
    LLVMValueRef after_page =
        LLVMBuildAShr(b, cg_cpu_add_const(em, get_i64(s, any_end), PAGE - 1), four, "");
    find_pages(s, first_page, after_page);
    for_blocks(s, tokens_within(s, register_budget(em)), scores_block, first_page, after_page);
    emit_softmaxes(s);

    /* Whole pages that every token sees are worked on together; the edges token by token. */
    LLVMValueRef sixteen = cg_cpu_i64(em, ~(int64_t)15);
    LLVMValueRef from =
        LLVMBuildAnd(b, cg_cpu_add_const(em, get_i64(s, all_begin), PAGE - 1), sixteen, "");
    LLVMValueRef to = LLVMBuildAnd(b, get_i64(s, all_end), sixteen, "");
    LLVMValueRef whole = cg_cpu_less(em, from, to);
    from = LLVMBuildSelect(b, whole, from, zero, "");
    to = LLVMBuildSelect(b, whole, to, zero, "");
    if (s->a->window)
        emit_edge(s, zero, from);
    int64_t budget = register_budget(em);
    for_blocks(s, tokens_within(s, em->target->avx512 ? budget / 4 : budget), emit_values_row, from,
               to);
    emit_edge(s, to, cg_cpu_i64(em, RANGE));
    emit_merge(s);
}

/* --- runs and tiles ----------------------------------------------------------------------------
 */

static void emit_start(schedule *s) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef pairs = cg_cpu_mul_const(em, s->tokens, s->group);
    cg_cpu_loop pair = cg_cpu_for(em, cg_cpu_i64(em, 0), pairs, 1);
    store_number(s, cg_cpu_f32(em, -(double)__builtin_inff()), s->max, pair.index);
    store_number(s, cg_cpu_f32(em, 0), s->sum, pair.index);
    LLVMValueRef row = output_row(s, s->output, pair.index);
    for (int64_t k = 0; k < s->vectors; k++)
        store_at(s, LLVMConstNull(em->f32x16), row, k * 64);
    cg_cpu_end_for(em, &pair);
}

/* O/L, and the epilogue on it. */
static void emit_finish(schedule *s) {
    cg_cpu_emitter *em = s->em;
    const cg_program *program = &em->kernel->programs[0];
    LLVMValueRef zero = cg_cpu_i64(em, 0);
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    cg_cpu_loop head = cg_cpu_for(em, zero, cg_cpu_i64(em, s->group), 1);
    LLVMValueRef pair = pair_of(s, token.index, head.index);
    LLVMValueRef sum = cg_cpu_splat(em, load_number(s, s->sum, pair), CG_CPU_LANES);
    LLVMValueRef row = output_row(s, s->output, pair);
    for (int64_t k = 0; k < s->vectors; k++)
        store_at(s, LLVMBuildFDiv(em->builder, load_at(s, row, k * 64), sum, ""), s->result,
                 k * 64);
    LLVMValueRef first_head = cg_cpu_mul_const(em, s->kv_head, s->group);
    cg_cpu_chunk chunk = {.row = cg_cpu_add(em, s->first, token.index),
                          .head = cg_cpu_add(em, first_head, head.index),
                          .first_col = zero,
                          .n_cols = s->kv->head_dim,
                          .inputs = {s->result},
                          .scratch = s->program_scratch};
    cg_cpu_emit_program(em, program, &chunk);
    cg_cpu_end_for(em, &head);
    cg_cpu_end_for(em, &token);
}

static void emit_run(schedule *s) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef zero = cg_cpu_i64(em, 0);
    emit_start(s);
    LLVMValueRef from = local_i64(s, cg_cpu_i64(em, INT64_MAX)), to = local_i64(s, zero);
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    LLVMValueRef position = position_of(s, token.index);
    set_min(s, from, window_start(s, position));
    set_max(s, to, cg_cpu_add_const(em, position, 1));
    cg_cpu_end_for(em, &token);
    LLVMValueRef aligned =
        LLVMBuildAnd(em->builder, get_i64(s, from), cg_cpu_i64(em, ~(int64_t)(RANGE - 1)), "");
    cg_cpu_loop range = cg_cpu_for(em, aligned, get_i64(s, to), RANGE);
    s->range = range.index;
    emit_range(s);
    cg_cpu_end_for(em, &range);
    emit_finish(s);
}

/* A run begins at a token whose predecessor has another sequence or lies in another block. */
static LLVMValueRef begins_run(schedule *s, LLVMValueRef token, LLVMValueRef block) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef before = cg_cpu_add_const(em, token, -1);
    before = cg_cpu_max(em, before, cg_cpu_i64(em, 0)); /* the block's first token decides then */
    LLVMValueRef seq = cg_cpu_load_index(em, em->token_seqs, before);
    LLVMValueRef other = LLVMBuildICmp(b, LLVMIntNE, seq, s->seq, "");
    return LLVMBuildOr(b, LLVMBuildICmp(b, LLVMIntEQ, token, block, ""), other, "");
}

/* The run that begins at `token`, if one does. */
static void emit_tile(schedule *s, LLVMValueRef token) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef block = LLVMBuildAnd(b, token, cg_cpu_i64(em, -BLOCK_TOKENS), "");
    LLVMValueRef end =
        cg_cpu_min(em, cg_cpu_add_const(em, block, BLOCK_TOKENS), cg_cpu_dim(em, em->kernel->rows));
    s->first = token;
    s->seq = cg_cpu_load_index(em, em->token_seqs, token);
    cg_cpu_if begins = cg_cpu_begin_if(em, begins_run(s, token, block));
    LLVMValueRef next = local_i64(s, token); /* the first token after the run */
    cg_cpu_loop other = cg_cpu_for(em, token, end, 1);
    LLVMValueRef seq = cg_cpu_load_index(em, em->token_seqs, other.index);
    LLVMValueRef same = LLVMBuildICmp(b, LLVMIntEQ, seq, s->seq, "");
    LLVMValueRef adjacent = LLVMBuildICmp(b, LLVMIntEQ, other.index, get_i64(s, next), "");
    cg_cpu_if joins = cg_cpu_begin_if(em, LLVMBuildAnd(b, same, adjacent, ""));
    cg_cpu_store(em, cg_cpu_add_const(em, other.index, 1), next, 8);
    cg_cpu_end_if(em, &joins);
    cg_cpu_end_for(em, &other);
    s->tokens = cg_cpu_sub(em, get_i64(s, next), s->first);
    emit_run(s);
    cg_cpu_end_if(em, &begins);
}

static bool check(cg_cpu_emitter *em) {
    const cg_kernel *kernel = em->kernel;
    const cg_attention *a = &kernel->attention;
    if (a->kv < 0 || a->kv >= kernel->n_args || kernel->args[a->kv].kind != CG_ARG_KV)
        return cg_cpu_unsupported(em, "attention over argument %d, which is no KV cache", a->kv);
    const ir_kv_group *kv = kv_of(kernel);
    if (kv->heads < 1 || kv->head_dim < 1 || a->heads < 1 || a->heads % kv->heads)
        return cg_cpu_unsupported(em, "attention of %lld heads over %lld key/value heads of %lld",
                                  (long long)a->heads, (long long)kv->heads,
                                  (long long)kv->head_dim);
    if (a->window < 0)
        return cg_cpu_unsupported(em, "an attention window of %lld", (long long)a->window);
    if (a->q.arg < 0 || a->q.arg >= kernel->n_args || kernel->args[a->q.arg].type.dtype != IR_F32 ||
        kernel->args[a->q.arg].type.encoding || a->q.row_map != CG_ROW_SELF ||
        a->q.column_stride != 1)
        return cg_cpu_unsupported(em, "attention whose queries are not rows of f32");
    if (kernel->n_programs != 1 || kernel->programs[0].heads != a->heads ||
        kernel->programs[0].width != kv->head_dim)
        return cg_cpu_unsupported(em, "attention without one epilogue over its %lld heads of %lld",
                                  (long long)a->heads, (long long)kv->head_dim);
    return cg_cpu_check_program(em, &kernel->programs[0], kv->head_dim);
}

bool cg_cpu_emit_attention(cg_cpu_emitter *em) {
    if (!check(em))
        return false;
    const cg_kernel *kernel = em->kernel;
    layout l = scratch_layout(kernel);
    schedule s = {.em = em, .a = &kernel->attention, .kv = kv_of(kernel)};
    s.kv_group = kernel->args[s.a->kv].kv_group;
    s.group = s.a->heads / s.kv->heads;
    s.unit = largest_divisor(s.group, 6);
    if (s.unit < 3 && em->target->avx512 && s.group <= 12)
        s.unit = s.group; /* prime, such as 7: rather all of them than one by one */
    s.vectors = (s.kv->head_dim + CG_CPU_LANES - 1) / CG_CPU_LANES;
    s.size = ir_dtype_bits(s.kv->dtype) / 8;
    s.pages = cg_cpu_offset_const(em, em->scratch, l.pages);
    s.scores = cg_cpu_offset_const(em, em->scratch, l.scores);
    s.partial = cg_cpu_offset_const(em, em->scratch, l.partial);
    s.output = cg_cpu_offset_const(em, em->scratch, l.output);
    s.max = cg_cpu_offset_const(em, em->scratch, l.max);
    s.sum = cg_cpu_offset_const(em, em->scratch, l.sum);
    s.range_max = cg_cpu_offset_const(em, em->scratch, l.range_max);
    s.range_sum = cg_cpu_offset_const(em, em->scratch, l.range_sum);
    s.result = cg_cpu_offset_const(em, em->scratch, l.result);
    s.program_scratch = cg_cpu_offset_const(em, em->scratch, l.program);

    cg_cpu_loop tile = cg_cpu_for(em, em->tile_begin, em->tile_end, 1);
    LLVMValueRef heads = cg_cpu_i64(em, s.kv->heads);
    s.kv_head = LLVMBuildURem(em->builder, tile.index, heads, "");
    emit_tile(&s, LLVMBuildUDiv(em->builder, tile.index, heads, ""));
    cg_cpu_end_for(em, &tile);
    return true;
}

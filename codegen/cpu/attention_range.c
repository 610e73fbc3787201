/* One range of a run of the attention schedule (attention.c says what is computed): scores,
 * softmax, weighted values. */
#include "codegen/cpu/attention.h"

/* Accumulators of 16 floats that fit the registers beside what else a loop needs. */
static int64_t register_budget(const cg_cpu_emitter *em) {
    return em->target->avx512 ? 24 : 6;
}

static LLVMValueRef score_row(cg_cpu_attention *s, LLVMValueRef pair) {
    return pair_row(s, s->scores, pair, RANGE);
}

static LLVMValueRef page_keys(cg_cpu_attention *s, LLVMValueRef page) {
    LLVMValueRef at = cg_cpu_offset(s->em, s->pages, cg_cpu_mul_const(s->em, page, 8));
    return cg_cpu_load(s->em, s->em->ptr, at, 8);
}

/* 16 elements of a page; of quantized ones codes, those of f8e4m3 times 2^-8. */
static LLVMValueRef load_elements(cg_cpu_attention *s, LLVMValueRef ptr, LLVMValueRef mask) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    if (s->kv->dtype != IR_F8E4M3)
        return cg_cpu_load_f32x16(em, s->kv->dtype, ptr, mask);
    LLVMTypeRef i16x16 = cg_cpu_vector(em->i16, CG_CPU_LANES);
    LLVMValueRef v = cg_cpu_load_masked(em, cg_cpu_vector(em->i8, CG_CPU_LANES), ptr, 1, mask);
    return cg_cpu_e4m3_to_f32(em, LLVMBuildZExt(b, v, i16x16, ""));
}

/* A page's scales, from s->key_scales or s->value_scales, times `factor` and what load_elements
 * leaves out. */
static LLVMValueRef load_scales(cg_cpu_attention *s, LLVMValueRef keys, LLVMValueRef offset,
                                double factor) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef v = cg_cpu_load_f32x16(em, IR_F16, cg_cpu_offset(em, keys, offset), NULL);
    factor = (double)(float)factor * (s->kv->dtype == IR_F8E4M3 ? 256 : 1);
    return LLVMBuildFMul(em->builder, v, cg_cpu_f32v(em, factor), "");
}

/* The head's keys in pages [begin, end) of the range. A page that the step does not have, which an
 * engine never asks for, reads page 0 rather than what lies before the pool. */
static void find_pages(cg_cpu_attention *s, LLVMValueRef begin, LLVMValueRef end) {
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
        cg_cpu_offset(em, base, cg_cpu_mul_const(em, number, ir_kv_page_bytes(s->kv)));
    cg_cpu_store(em, keys, cg_cpu_offset(em, s->pages, cg_cpu_mul_const(em, page.index, 8)), 8);
    cg_cpu_end_for(em, &page);
}

/* --- scores ------------------------------------------------------------------------------------
 */

enum { MAX_ACCUMULATORS = 24 };

/* Scores of n_tokens tokens from `token` on and `unit` heads from `head` on, against n_pages pages
 * from `page` on, of pages that end at `end`. Keys are loaded once per page and column for all
 * pairs. */
static void emit_scores(cg_cpu_attention *s, int64_t n_tokens, LLVMValueRef token,
                        LLVMValueRef head, int64_t n_pages, LLVMValueRef page, LLVMValueRef end) {
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

    /* Few tokens wait for memory, and pages are too short for the processor to see a stream in
     * them: ask for these pages' values and the next pages' keys, a line at a time. Blocks of many
     * tokens, which find them in the cache, do not feel it. */
    int64_t line = 64 / (PAGE * s->size), plane = s->kv->heads * d * PAGE * s->size;
    LLVMValueRef next[MAX_ACCUMULATORS];
    for (int64_t p = 0; p < n_pages; p++) {
        LLVMValueRef at = cg_cpu_add_const(em, page, n_pages + p);
        next[p] = page_keys(s, cg_cpu_min(em, at, cg_cpu_add_const(em, end, -1)));
    }

    int64_t unroll = largest_divisor(d, pairs * n_pages > 12 && line <= 2 ? 2 : 4);
    cg_cpu_loop column = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, d), unroll);
    for (int64_t u = 0; u < unroll; u++) {
        LLVMValueRef k[MAX_ACCUMULATORS];
        LLVMValueRef key_at = cg_cpu_mul_const(em, column.index, PAGE * s->size);
        for (int64_t p = 0; p < n_pages; p++)
            k[p] = load_elements(
                s, cg_cpu_offset_const(em, cg_cpu_offset(em, keys[p], key_at), u * PAGE * s->size),
                NULL);
        for (int64_t p = 0; u % line == 0 && p < n_pages; p++) {
            LLVMValueRef at = cg_cpu_add_const(em, key_at, u * PAGE * s->size);
            cg_cpu_prefetch(em, cg_cpu_offset(em, keys[p], cg_cpu_add_const(em, at, plane)), 1);
            cg_cpu_prefetch(em, cg_cpu_offset(em, next[p], at), 1);
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

    LLVMValueRef row = score_row(s, pair_of(s, token, head)), scales[MAX_ACCUMULATORS];
    row = cg_cpu_offset(em, row, cg_cpu_mul_const(em, page, PAGE * 4));
    for (int64_t p = 0; p < n_pages; p++)
        scales[p] = ir_kv_quantized(s->kv->dtype)
                        ? load_scales(s, keys[p], s->key_scales, s->a->scale)
                        : cg_cpu_f32v(em, s->a->scale);
    for (int64_t i = 0; i < pairs; i++)
        for (int64_t p = 0; p < n_pages; p++) {
            LLVMValueRef v =
                LLVMBuildFMul(em->builder, load_at(s, sums[i * n_pages + p], 0), scales[p], "");
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
static void mask_vector(cg_cpu_attention *s, LLVMValueRef row, LLVMValueRef vector,
                        LLVMValueRef begin, LLVMValueRef end) {
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

/* m and l of a pair, its scores replaced by e, of quantized pages times values' scales. */
static void emit_softmax(cg_cpu_attention *s, LLVMValueRef pair, LLVMValueRef begin,
                         LLVMValueRef end) {
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
    store_at(s, LLVMBuildFAdd(em->builder, load_at(s, sum, 0), e, ""), sum, 0);
    if (ir_kv_quantized(s->kv->dtype)) {
        LLVMValueRef keys = page_keys(s, vector.index);
        e = LLVMBuildFMul(em->builder, e, load_scales(s, keys, s->value_scales, 1), "");
    }
    store_at(s, e, at, 0);
    cg_cpu_end_for(em, &vector);
    cg_cpu_store(em, m, partial_number(s, pair, 0), 4);
    cg_cpu_store(em, cg_cpu_sum16(em, load_at(s, sum, 0)), partial_number(s, pair, 1), 4);
}

/* --- values ------------------------------------------------------------------------------------
 */

/* o of n_tokens tokens from `token` and `unit` heads from `head` on, n_vectors vectors of columns
 * from `vector` on (the last one with `mask`), continued over positions [begin, end) of the
 * range. */
static void emit_values(cg_cpu_attention *s, int64_t n_tokens, LLVMValueRef token,
                        LLVMValueRef head, int64_t n_vectors, LLVMValueRef vector,
                        LLVMValueRef mask, LLVMValueRef begin, LLVMValueRef end) {
    cg_cpu_emitter *em = s->em;
    int64_t pairs = n_tokens * s->unit, d = s->kv->head_dim;
    int64_t plane = s->kv->heads * d * PAGE * s->size; /* from keys to values in a page */
    LLVMValueRef sums[MAX_ACCUMULATORS];
    LLVMValueRef pair = pair_of(s, token, head);
    LLVMValueRef out = partial_row(s, pair);
    out = cg_cpu_offset(em, out, cg_cpu_mul_const(em, vector, 64));
    LLVMValueRef weights = score_row(s, pair);
#define PAIR(i) ((i) / s->unit * s->group + (i) % s->unit)
    for (int64_t i = 0; i < pairs * n_vectors; i++) {
        int64_t row = PAIR(i / n_vectors) * partial_bytes(s->kv);
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
        v[k] = load_elements(s, cg_cpu_offset_const(em, values, k * CG_CPU_LANES * s->size),
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
                 PAIR(i / n_vectors) * partial_bytes(s->kv) + i % n_vectors * 64);
#undef PAIR
}

/* The same for all columns of the head. */
static void emit_values_row(cg_cpu_attention *s, int64_t n_tokens, LLVMValueRef token,
                            LLVMValueRef head, LLVMValueRef begin, LLVMValueRef end) {
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
typedef void token_block(cg_cpu_attention *s, int64_t n_tokens, LLVMValueRef token,
                         LLVMValueRef head, LLVMValueRef begin, LLVMValueRef end);

static void for_blocks(cg_cpu_attention *s, int64_t most, token_block *work, LLVMValueRef begin,
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
static int64_t tokens_within(const cg_cpu_attention *s, int64_t budget) {
    int64_t n = 1;
    while (n < BLOCK_TOKENS && s->unit == s->group && 2 * n * s->unit <= budget)
        n *= 2;
    return n;
}

static void scores_block(cg_cpu_attention *s, int64_t n_tokens, LLVMValueRef token,
                         LLVMValueRef head, LLVMValueRef begin, LLVMValueRef end) {
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

/* Softmax and zeroed o for every pair that sees something of the range. */
static void emit_softmaxes(cg_cpu_attention *s) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef zero = cg_cpu_i64(em, 0), begin, end;
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    seen(s, token.index, &begin, &end);
    cg_cpu_if some = cg_cpu_begin_if(em, cg_cpu_less(em, begin, end));
    cg_cpu_loop head = cg_cpu_for(em, zero, cg_cpu_i64(em, s->group), 1);
    LLVMValueRef pair = pair_of(s, token.index, head.index);
    emit_softmax(s, pair, begin, end);
    LLVMValueRef row = partial_row(s, pair);
    for (int64_t k = 0; k < s->vectors; k++)
        store_at(s, LLVMConstNull(em->f32x16), row, k * 64);
    cg_cpu_end_for(em, &head);
    cg_cpu_end_if(em, &some);
    cg_cpu_end_for(em, &token);
}

/* o over what single tokens see of [from, to). */
static void emit_edge(cg_cpu_attention *s, LLVMValueRef from, LLVMValueRef to) {
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

void cg_cpu_emit_range(cg_cpu_attention *s) {
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
}

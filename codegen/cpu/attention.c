/* The attention schedule: one pass over KV pages with an online softmax.
 *
 * Tokens of one sequence that follow each other in an aligned block of 8 tokens of the step are a
 * run. A tile is a token, a key/value head and a split; the tiles of a run's first token do the
 * whole run and the other tiles nothing, so that tokens of different sequences can go to different
 * threads. In a step of few tokens, so of few runs, the ranges below are dealt out to the splits,
 * and the last of them to finish merges what all have left in shared memory; else the first split
 * does it all. A (token, query head) is a pair here; the pairs of a run share the loads of keys and
 * values.
 *
 * For each pair the arithmetic is the same whatever it is worked on with. Per absolute range of
 * CG_ATTENTION_RANGE positions that it sees, ascending:
 *
 *     s[p] = cap((q . k[p]) * scale)    FMAs over d ascending; lanes are the positions of a page;
 *                                       quantized: k[p] are codes, and scale is times k's scale
 *     m = max s
 *     e[p] = exp(s[p] - m)              0 below e^-87
 *     l = sum of e[p]                   16 interleaved partials, then halved
 *     o[d] = sum of e[p]*v[p][d]        FMAs over positions ascending; lanes are d; quantized:
 *                                       codes, and e is times v's scale
 *
 * and then ranges are merged, from M = -inf, L = 0, O = 0; the result is O/L:
 *
 *     m' = max(M, m), a = exp(M - m'), b = exp(m - m')
 *     L = fma(l, b, L*a), O[d] = fma(o[d], b, O[d]*a), M = m'
 *
 * Positions that a pair does not see are never multiplied, not even by 0: what lies there may be
 * from another step, or no number. */
#include "codegen/cpu/attention.h"
#include "runtime/step.h"

enum { ENOUGH_TILES = 16 }; /* of a token, for threads to share */

/* --- tiling and scratch ------------------------------------------------------------------------
 */

typedef struct layout {
    int64_t pages, scores, partial, output, max, sum, result, program, bytes;
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
    l.partial = take(&l.bytes, pairs * partial_bytes(kv));
    l.output = take(&l.bytes, pairs * columns * 4);
    l.max = take(&l.bytes, pairs * 4);
    l.sum = take(&l.bytes, pairs * 4);
    l.result = take(&l.bytes, columns * 4);
    l.program = l.bytes;
    for (int i = 0; i < kernel->n_programs; i++)
        take(&l.bytes, cg_cpu_program_scratch(&kernel->programs[i], kv->head_dim));
    return l;
}

int64_t cg_cpu_attention_scratch(const cg_kernel *kernel) {
    return scratch_layout(kernel).bytes;
}

/* Most splits of a token's ranges. Each head and token of a split step has a counter, so splits
 * bound the heads: there are less than ENOUGH_TILES. */
static int64_t most_splits(const cg_kernel *kernel) {
    int64_t heads = kv_of(kernel)->heads, splits = 1;
    while (heads * splits < ENOUGH_TILES)
        splits *= 2;
    return splits;
}

/* Of each range: [key/value head][token of the block][query head]. */
int64_t cg_cpu_attention_shared(const cg_kernel *kernel) {
    if (most_splits(kernel) == 1)
        return 0;
    return BLOCK_TOKENS * kernel->attention.heads * partial_bytes(kv_of(kernel));
}

cg_tiling cg_cpu_attention_tiling(const cg_kernel *kernel) {
    return (cg_tiling){
        .dim = kernel->rows, .div = 1, .mult = kv_of(kernel)->heads * most_splits(kernel)};
}

/* --- results of a run --------------------------------------------------------------------------
 */

/* Merges the range's m, l, o into M, L, O. */
static void emit_merge(cg_cpu_attention *s) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef zero = cg_cpu_i64(em, 0), begin, end;
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    seen(s, token.index, &begin, &end);
    cg_cpu_if some = cg_cpu_begin_if(em, cg_cpu_less(em, begin, end));
    cg_cpu_loop head = cg_cpu_for(em, zero, cg_cpu_i64(em, s->group), 1);
    LLVMValueRef pair = pair_of(s, token.index, head.index);
    LLVMValueRef old = load_number(s, s->max, pair);
    LLVMValueRef here = cg_cpu_load(em, em->f32, partial_number(s, pair, 0), 4);
    LLVMValueRef max = cg_cpu_fmax(em, here, old);
    LLVMValueRef a = cg_cpu_exp_nonpositive(em, LLVMBuildFSub(b, old, max, ""));
    LLVMValueRef c = cg_cpu_exp_nonpositive(em, LLVMBuildFSub(b, here, max, ""));
    LLVMValueRef sum = LLVMBuildFMul(b, load_number(s, s->sum, pair), a, "");
    LLVMValueRef range_sum = cg_cpu_load(em, em->f32, partial_number(s, pair, 1), 4);
    store_number(s, cg_cpu_fma(em, range_sum, c, sum), s->sum, pair);
    store_number(s, max, s->max, pair);
    LLVMValueRef from = partial_row(s, pair), to = output_row(s, pair);
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
static void emit_start(cg_cpu_attention *s) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef pairs = cg_cpu_mul_const(em, s->tokens, s->group);
    cg_cpu_loop pair = cg_cpu_for(em, cg_cpu_i64(em, 0), pairs, 1);
    store_number(s, cg_cpu_f32(em, -(double)__builtin_inff()), s->max, pair.index);
    store_number(s, cg_cpu_f32(em, 0), s->sum, pair.index);
    LLVMValueRef row = output_row(s, pair.index);
    for (int64_t k = 0; k < s->vectors; k++)
        store_at(s, LLVMConstNull(em->f32x16), row, k * 64);
    cg_cpu_end_for(em, &pair);
}

/* O/L, and the epilogue on it. */
static void emit_finish(cg_cpu_attention *s) {
    cg_cpu_emitter *em = s->em;
    const cg_program *program = &em->kernel->programs[0];
    LLVMValueRef zero = cg_cpu_i64(em, 0);
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    cg_cpu_loop head = cg_cpu_for(em, zero, cg_cpu_i64(em, s->group), 1);
    LLVMValueRef pair = pair_of(s, token.index, head.index);
    LLVMValueRef sum = cg_cpu_splat(em, load_number(s, s->sum, pair), CG_CPU_LANES);
    LLVMValueRef row = output_row(s, pair);
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

/* --- runs and tiles ----------------------------------------------------------------------------
 */

/* The results of the range `index` (an absolute one) are in scratch, or at the run's place in
 * shared memory. */
static void select_partial(cg_cpu_attention *s, LLVMValueRef index, LLVMValueRef is_split) {
    cg_cpu_emitter *em = s->em;
    LLVMValueRef area = cg_cpu_mul_const(em, index, s->kv->heads);
    area = cg_cpu_mul_const(em, cg_cpu_add(em, area, s->kv_head), BLOCK_TOKENS);
    LLVMValueRef pair = cg_cpu_mul_const(em, cg_cpu_add(em, area, s->first), s->group);
    LLVMValueRef at = cg_cpu_offset_const(em, em->shared, MCC_CPU_COUNTER_BYTES);
    at = cg_cpu_offset(em, at, cg_cpu_mul_const(em, pair, partial_bytes(s->kv)));
    s->partial = LLVMBuildSelect(em->builder, is_split, at, s->scratch_partial, "");
    s->range = cg_cpu_mul_const(em, index, RANGE);
}

/* Counts that a split of `splits` is done, and returns whether (i1) it is the last one. Then the
 * counter is 0 again, and what the others have stored can be read. */
static LLVMValueRef emit_arrive(cg_cpu_attention *s, LLVMValueRef splits) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef index = cg_cpu_add(em, cg_cpu_mul_const(em, s->first, s->kv->heads), s->kv_head);
    LLVMValueRef counter = cg_cpu_offset(em, em->shared, cg_cpu_mul_const(em, index, 4));
    LLVMValueRef before = LLVMBuildAtomicRMW(b, LLVMAtomicRMWBinOpAdd, counter, cg_cpu_i32(em, 1),
                                             LLVMAtomicOrderingAcquireRelease, false);
    before = LLVMBuildZExt(b, before, em->i64, "");
    LLVMValueRef last = LLVMBuildICmp(b, LLVMIntEQ, cg_cpu_add_const(em, before, 1), splits, "");
    cg_cpu_if clear = cg_cpu_begin_if(em, last);
    cg_cpu_store(em, cg_cpu_i32(em, 0), counter, 4);
    cg_cpu_end_if(em, &clear);
    return last;
}

/* The split's part of ranges first … first + n - 1, which `splits` splits share. */
static void emit_ranges(cg_cpu_attention *s, LLVMValueRef first, LLVMValueRef n,
                        LLVMValueRef splits) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef zero = cg_cpu_i64(em, 0), one = cg_cpu_i64(em, 1);
    LLVMValueRef is_split = cg_cpu_less(em, one, splits);
    LLVMValueRef done = cg_cpu_local(em, em->i1); /* all of the run's ranges are merged */
    cg_cpu_store(em, LLVMBuildNot(b, is_split, ""), done, 1);
    emit_start(s);
    LLVMValueRef left = cg_cpu_add_const(em, cg_cpu_sub(em, n, s->split), -1);
    LLVMValueRef turns = cg_cpu_add(em, LLVMBuildUDiv(b, left, splits, ""), one);
    cg_cpu_loop turn = cg_cpu_for(em, zero, turns, 1);
    LLVMValueRef index = cg_cpu_add(em, s->split, cg_cpu_mul(em, turn.index, splits));
    select_partial(s, cg_cpu_add(em, first, index), is_split);
    cg_cpu_emit_range(s);
    cg_cpu_if alone = cg_cpu_begin_if(em, LLVMBuildNot(b, is_split, ""));
    emit_merge(s);
    cg_cpu_end_if(em, &alone);
    cg_cpu_end_for(em, &turn);

    cg_cpu_if together = cg_cpu_begin_if(em, is_split);
    cg_cpu_if last = cg_cpu_begin_if(em, emit_arrive(s, splits));
    cg_cpu_loop range = cg_cpu_for(em, first, cg_cpu_add(em, first, n), 1);
    select_partial(s, range.index, is_split);
    emit_merge(s);
    cg_cpu_end_for(em, &range);
    cg_cpu_store(em, LLVMConstInt(em->i1, 1, 0), done, 1);
    cg_cpu_end_if(em, &last);
    cg_cpu_end_if(em, &together);
    cg_cpu_if finish = cg_cpu_begin_if(em, cg_cpu_load(em, em->i1, done, 1));
    emit_finish(s);
    cg_cpu_end_if(em, &finish);
}

/* Whether the step has so few tokens that their ranges are dealt out to splits. */
static LLVMValueRef is_small(cg_cpu_attention *s) {
    LLVMValueRef tokens = cg_cpu_dim(s->em, s->em->kernel->rows);
    return cg_cpu_less(s->em, tokens, cg_cpu_i64(s->em, BLOCK_TOKENS + 1));
}

static void emit_run(cg_cpu_attention *s) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef zero = cg_cpu_i64(em, 0), one = cg_cpu_i64(em, 1);
    LLVMValueRef from = local_i64(s, cg_cpu_i64(em, INT64_MAX)), to = local_i64(s, zero);
    cg_cpu_loop token = cg_cpu_for(em, zero, s->tokens, 1);
    LLVMValueRef position = position_of(s, token.index);
    set_min(s, from, window_start(s, position));
    set_max(s, to, cg_cpu_add_const(em, position, 1));
    cg_cpu_end_for(em, &token);
    LLVMValueRef range = cg_cpu_i64(em, RANGE);
    LLVMValueRef first = LLVMBuildUDiv(b, get_i64(s, from), range, "");
    LLVMValueRef end = LLVMBuildUDiv(b, cg_cpu_add_const(em, get_i64(s, to), RANGE - 1), range, "");
    LLVMValueRef n = cg_cpu_sub(em, end, first);
    /* Steps of many tokens are not split; nor are positions that the step has no pages for, which
     * an engine never asks for: shared memory ends where they do. */
    LLVMValueRef few = is_small(s);
    LLVMValueRef room = cg_cpu_mul_const(em, em->P, PAGE);
    LLVMValueRef fits = LLVMBuildNot(b, cg_cpu_less(em, room, get_i64(s, to)), "");
    LLVMValueRef splits = cg_cpu_min(em, n, cg_cpu_i64(em, most_splits(em->kernel)));
    splits = LLVMBuildSelect(b, LLVMBuildAnd(b, few, fits, ""), splits, one, "");
    if (most_splits(em->kernel) == 1)
        splits = one;
    cg_cpu_if mine = cg_cpu_begin_if(em, cg_cpu_less(em, s->split, splits));
    emit_ranges(s, first, n, splits);
    cg_cpu_end_if(em, &mine);
}

/* A run begins at a token whose predecessor has another sequence or lies in another block. */
static LLVMValueRef begins_run(cg_cpu_attention *s, LLVMValueRef token, LLVMValueRef block) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef before = cg_cpu_add_const(em, token, -1);
    before = cg_cpu_max(em, before, cg_cpu_i64(em, 0)); /* the block's first token decides then */
    LLVMValueRef seq = cg_cpu_load_index(em, em->token_seqs, before);
    LLVMValueRef other = LLVMBuildICmp(b, LLVMIntNE, seq, s->seq, "");
    return LLVMBuildOr(b, LLVMBuildICmp(b, LLVMIntEQ, token, block, ""), other, "");
}

/* Sets the tile's split and head, and returns its token. Threads take tiles that follow each other,
 * so those with work should lie apart: in a small step of one sequence they are the first token's,
 * in all others mostly the first splits' of many tokens. */
static LLVMValueRef number_tile(cg_cpu_attention *s, LLVMValueRef index) {
    cg_cpu_emitter *em = s->em;
    LLVMBuilderRef b = em->builder;
    LLVMValueRef heads = cg_cpu_i64(em, s->kv->heads), tokens = cg_cpu_dim(em, em->kernel->rows);
    LLVMValueRef splits = cg_cpu_i64(em, most_splits(em->kernel));
    LLVMValueRef one = LLVMBuildICmp(b, LLVMIntEQ, em->S, cg_cpu_i64(em, 1), "");
    LLVMValueRef apart = LLVMBuildAnd(b, is_small(s), one, "");
    /* split, head, token: the last one runs first */
    LLVMValueRef rest = LLVMBuildUDiv(b, index, tokens, "");
    LLVMValueRef token = LLVMBuildURem(b, index, tokens, "");
    LLVMValueRef kv_head = LLVMBuildURem(b, rest, heads, "");
    LLVMValueRef split = LLVMBuildUDiv(b, rest, heads, "");
    /* token, head, split */
    rest = LLVMBuildUDiv(b, index, splits, "");
    s->split = LLVMBuildSelect(b, apart, split, LLVMBuildURem(b, index, splits, ""), "");
    s->kv_head = LLVMBuildSelect(b, apart, kv_head, LLVMBuildURem(b, rest, heads, ""), "");
    return LLVMBuildSelect(b, apart, token, LLVMBuildUDiv(b, rest, heads, ""), "");
}

/* The run that begins at `token`, if one does. */
static void emit_tile(cg_cpu_attention *s, LLVMValueRef token) {
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
    cg_cpu_attention s = {.em = em, .a = &kernel->attention, .kv = kv_of(kernel)};
    s.kv_group = kernel->args[s.a->kv].kv_group;
    s.group = s.a->heads / s.kv->heads;
    s.unit = largest_divisor(s.group, 6);
    if (s.unit < 3 && em->target->avx512 && s.group <= 12)
        s.unit = s.group; /* prime, such as 7: rather all of them than one by one */
    s.vectors = (s.kv->head_dim + CG_CPU_LANES - 1) / CG_CPU_LANES;
    s.size = ir_dtype_bits(s.kv->dtype) / 8;
    s.pages = cg_cpu_offset_const(em, em->scratch, l.pages);
    s.scores = cg_cpu_offset_const(em, em->scratch, l.scores);
    s.scratch_partial = cg_cpu_offset_const(em, em->scratch, l.partial);
    s.output = cg_cpu_offset_const(em, em->scratch, l.output);
    s.max = cg_cpu_offset_const(em, em->scratch, l.max);
    s.sum = cg_cpu_offset_const(em, em->scratch, l.sum);
    s.result = cg_cpu_offset_const(em, em->scratch, l.result);
    s.program_scratch = cg_cpu_offset_const(em, em->scratch, l.program);

    cg_cpu_loop tile = cg_cpu_for(em, em->tile_begin, em->tile_end, 1);
    LLVMValueRef token = number_tile(&s, tile.index);
    int64_t nearer = ir_kv_scale_place(s.kv, false, 1, 0) - ir_kv_scale_place(s.kv, false, 0, 0) -
                     ir_kv_place(s.kv, false, 1, 0, 0);
    LLVMValueRef scales = cg_cpu_mul_const(em, s.kv_head, nearer);
    s.key_scales = cg_cpu_add_const(em, scales, ir_kv_scale_place(s.kv, false, 0, 0));
    s.value_scales = cg_cpu_add_const(em, scales, ir_kv_scale_place(s.kv, true, 0, 0));
    emit_tile(&s, token);
    cg_cpu_end_for(em, &tile);
    return true;
}

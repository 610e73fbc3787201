/* Inside the attention schedule: attention.c deals with tiles, runs and the merging of ranges,
 * attention_range.c computes one range of a run. Internal to codegen/cpu. */
#ifndef MCC_CODEGEN_CPU_ATTENTION_H
#define MCC_CODEGEN_CPU_ATTENTION_H

#include "codegen/cpu/emit.h"

enum {
    BLOCK_TOKENS = 8,
    RANGE = CG_ATTENTION_RANGE, /* MCC_CPU_RANGE */
    PAGE = CG_CPU_LANES,        /* tokens of a page (compile.c checks) */
    RANGE_PAGES = RANGE / PAGE
};

typedef struct cg_cpu_attention {
    cg_cpu_emitter *em;
    const cg_attention *a;
    const ir_kv_group *kv;
    int kv_group;
    int64_t group;   /* query heads of one key/value head */
    int64_t unit;    /* of them, worked on together: a divisor of group */
    int64_t vectors; /* of 16 columns in a head, the last one maybe partial */
    int64_t size;    /* bytes of a KV element */
    /* Of quantized pages: from the head's keys in a page to its keys' scales and to its values'. */
    LLVMValueRef key_scales, value_scales;
    LLVMValueRef kv_head;
    /* scratch */
    LLVMValueRef pages;    /* [16] address of the head's keys in each page of the range */
    LLVMValueRef scores;   /* [pair][RANGE] f32 */
    LLVMValueRef output;   /* [pair][vectors * 16] f32: O */
    LLVMValueRef max, sum; /* [pair] f32: M and L */
    LLVMValueRef program_scratch, result;
    /* [pair]{f32 o[vectors * 16], m, l, pad[14]}, in scratch or in shared memory */
    LLVMValueRef partial, scratch_partial;
    LLVMValueRef split; /* the tile's */
    /* the run: tokens first … first + tokens - 1, of sequence seq */
    LLVMValueRef first, tokens, seq;
    LLVMValueRef range; /* first position of the range */
} cg_cpu_attention;

/* m, l and o of the run's pairs over the range that begins at s->range, into s->partial. */
void cg_cpu_emit_range(cg_cpu_attention *s);

static inline int64_t largest_divisor(int64_t n, int64_t bound) {
    for (int64_t d = bound < n ? bound : n; d > 1; d--)
        if (n % d == 0)
            return d;
    return 1;
}

/* Bytes of a range's result for a pair. */
static inline int64_t partial_bytes(const ir_kv_group *kv) {
    return (kv->head_dim + CG_CPU_LANES - 1) / CG_CPU_LANES * 64 + 64;
}

/* --- tokens and addresses ----------------------------------------------------------------------
 */

static inline LLVMValueRef position_of(cg_cpu_attention *s, LLVMValueRef token) {
    LLVMValueRef row = cg_cpu_add(s->em, s->first, token);
    return cg_cpu_load_index(s->em, s->em->positions, row);
}

/* First position that a token at `position` sees. */
static inline LLVMValueRef window_start(cg_cpu_attention *s, LLVMValueRef position) {
    if (s->a->window == 0)
        return cg_cpu_i64(s->em, 0);
    LLVMValueRef start = cg_cpu_add_const(s->em, position, 1 - s->a->window);
    return cg_cpu_max(s->em, start, cg_cpu_i64(s->em, 0));
}

/* What a token sees of the range: [begin, end), counted from the range's start; empty when
 * end <= begin. */
static inline void seen(cg_cpu_attention *s, LLVMValueRef token, LLVMValueRef *begin,
                        LLVMValueRef *end) {
    LLVMValueRef position = position_of(s, token);
    *begin = cg_cpu_sub(s->em, window_start(s, position), s->range);
    *begin = cg_cpu_max(s->em, *begin, cg_cpu_i64(s->em, 0));
    *end = cg_cpu_sub(s->em, cg_cpu_add_const(s->em, position, 1), s->range);
    *end = cg_cpu_min(s->em, *end, cg_cpu_i64(s->em, RANGE));
}

static inline LLVMValueRef pair_of(cg_cpu_attention *s, LLVMValueRef token, LLVMValueRef head) {
    return cg_cpu_add(s->em, cg_cpu_mul_const(s->em, token, s->group), head);
}

/* Row `pair` of a [pair][columns] array of f32. */
static inline LLVMValueRef pair_row(cg_cpu_attention *s, LLVMValueRef array, LLVMValueRef pair,
                                    int64_t columns) {
    return cg_cpu_offset(s->em, array, cg_cpu_mul_const(s->em, pair, columns * 4));
}

static inline LLVMValueRef output_row(cg_cpu_attention *s, LLVMValueRef pair) {
    return pair_row(s, s->output, pair, s->vectors * CG_CPU_LANES);
}

/* A pair's o; behind it m, then l. */
static inline LLVMValueRef partial_row(cg_cpu_attention *s, LLVMValueRef pair) {
    return pair_row(s, s->partial, pair, partial_bytes(s->kv) / 4);
}

static inline LLVMValueRef partial_number(cg_cpu_attention *s, LLVMValueRef pair, int index) {
    return cg_cpu_offset_const(s->em, partial_row(s, pair), s->vectors * 64 + 4 * index);
}

static inline LLVMValueRef load_at(cg_cpu_attention *s, LLVMValueRef ptr, int64_t offset) {
    return cg_cpu_load(s->em, s->em->f32x16, cg_cpu_offset_const(s->em, ptr, offset), 64);
}

static inline void store_at(cg_cpu_attention *s, LLVMValueRef v, LLVMValueRef ptr, int64_t offset) {
    cg_cpu_store(s->em, v, cg_cpu_offset_const(s->em, ptr, offset), 64);
}

static inline LLVMValueRef load_number(cg_cpu_attention *s, LLVMValueRef array, LLVMValueRef pair) {
    return cg_cpu_load(s->em, s->em->f32, pair_row(s, array, pair, 1), 4);
}

static inline void store_number(cg_cpu_attention *s, LLVMValueRef v, LLVMValueRef array,
                                LLVMValueRef pair) {
    cg_cpu_store(s->em, v, pair_row(s, array, pair, 1), 4);
}

static inline LLVMValueRef local_i64(cg_cpu_attention *s, LLVMValueRef initial) {
    LLVMValueRef local = cg_cpu_local(s->em, s->em->i64);
    cg_cpu_store(s->em, initial, local, 8);
    return local;
}

static inline LLVMValueRef get_i64(cg_cpu_attention *s, LLVMValueRef local) {
    return cg_cpu_load(s->em, s->em->i64, local, 8);
}

static inline void set_min(cg_cpu_attention *s, LLVMValueRef local, LLVMValueRef v) {
    cg_cpu_store(s->em, cg_cpu_min(s->em, get_i64(s, local), v), local, 8);
}

static inline void set_max(cg_cpu_attention *s, LLVMValueRef local, LLVMValueRef v) {
    cg_cpu_store(s->em, cg_cpu_max(s->em, get_i64(s, local), v), local, 8);
}

#endif

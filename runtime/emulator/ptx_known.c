/* Which reads of registers need no check at run time, because on every path a write comes first.
 *
 * "Written" flows forwards and holds where it holds at the end of all predecessors. A lane follows
 * the flow graph on its own, so that this is right under divergence too. A write under a guard may
 * not happen. An instruction that hands a value on (mov, selp) writes only when what it reads is
 * written; any other one has been checked by the time it writes. */
#include "runtime/emulator/ptx.h"

#include <string.h>

enum { MAX_BITS = 1 << 28, MAX_PASSES = 64 };

typedef struct sets {
    const ptx_parser *parser;
    size_t words;
    uint64_t *out; /* of each block: registers, then predicates */
} sets;

static size_t index_of(const sets *s, uint32_t id) {
    return id & EMU_USE_PREDICATE ? s->parser->n_registers + (id & ~EMU_USE_PREDICATE) : id;
}
static bool has(const sets *s, const uint64_t *set, uint32_t id) {
    size_t i = index_of(s, id);
    return set[i / 64] >> i % 64 & 1;
}

static bool reads_known(const sets *s, const uint64_t *set, size_t op) {
    const emu_uses *uses = (const emu_uses *)s->parser->new_uses.items + op;
    const uint32_t *use = (const uint32_t *)s->parser->use_list.items + uses->first;
    int32_t guard = ((const emu_op *)s->parser->new_ops.items)[op].guard;
    bool known = guard < 0 || has(s, set, (uint32_t)guard | EMU_USE_PREDICATE);
    for (int i = 0; i < uses->n_reads; i++)
        known &= has(s, set, use[i]);
    return known;
}

static void write_all(const sets *s, uint64_t *set, size_t op) {
    const emu_uses *uses = (const emu_uses *)s->parser->new_uses.items + op;
    const uint32_t *use = (const uint32_t *)s->parser->use_list.items + uses->first + uses->n_reads;
    if (((const emu_op *)s->parser->new_ops.items)[op].guard >= 0)
        return;
    if ((uses->carry || uses->select) && !reads_known(s, set, op)) {
        for (int i = 0; i < uses->n_writes; i++)
            set[index_of(s, use[i]) / 64] &= ~(UINT64_C(1) << index_of(s, use[i]) % 64);
        return;
    }
    for (int i = 0; i < uses->n_writes; i++)
        set[index_of(s, use[i]) / 64] |= UINT64_C(1) << index_of(s, use[i]) % 64;
}

/* The sets at the beginning of each block, in `in`. */
static void meet(const sets *s, const ptx_block *blocks, uint32_t n_blocks, uint64_t *in) {
    memset(in, 0xff, n_blocks * s->words * sizeof *in);
    memset(in, 0, s->words * sizeof *in); /* nothing is written where the kernel begins */
    for (uint32_t b = 0; b < n_blocks; b++)
        for (uint32_t k = 0; k < blocks[b].n_successors; k++)
            for (size_t i = 0; i < s->words; i++)
                in[blocks[b].successors[k] * s->words + i] &= s->out[b * s->words + i];
}

/* False where it would take too long. */
static bool find(sets *s, const ptx_block *blocks, uint32_t n_blocks, uint64_t *in) {
    uint64_t *set = in + n_blocks * s->words;
    memset(s->out, 0xff, n_blocks * s->words * sizeof *s->out);
    bool changed = true;
    for (int pass = 0; changed; pass++) {
        if (pass == MAX_PASSES)
            return false;
        changed = false;
        meet(s, blocks, n_blocks, in);
        for (uint32_t b = 0; b < n_blocks; b++) {
            memcpy(set, in + b * s->words, s->words * sizeof *set);
            for (uint32_t k = blocks[b].first; k < blocks[b].first + blocks[b].n; k++)
                write_all(s, set, k);
            changed |= memcmp(set, s->out + b * s->words, s->words * sizeof *set) != 0;
            memcpy(s->out + b * s->words, set, s->words * sizeof *set);
        }
    }
    return true;
}

static void doubt(const sets *s, uint64_t *doubted, uint32_t id) {
    doubted[index_of(s, id) / 64] |= UINT64_C(1) << index_of(s, id) % 64;
}

void ptx_find_known(ptx_parser *parser, const ptx_block *blocks, uint32_t n_blocks) {
    size_t n = (size_t)parser->n_registers + parser->n_predicates;
    sets s = {.parser = parser, .words = (n + 63) / 64};
    emu_op *ops = parser->new_ops.items;
    const emu_uses *uses = parser->new_uses.items;
    const uint32_t *list = parser->use_list.items;
    for (size_t k = 0; k < parser->new_ops.n; k++)
        ops[k].look = EMU_LOOK_READS | EMU_LOOK_WRITES;
    if ((uint64_t)s.words * 64 * n_blocks > MAX_BITS)
        return;
    uint64_t *in =
        ptx_scratch_memory(parser, (2 * n_blocks * s.words + 2 * s.words + 1) * sizeof *in);
    uint64_t *set = in + n_blocks * s.words, *doubted = set + s.words;
    s.out = doubted + s.words;
    if (!find(&s, blocks, n_blocks, in))
        return;
    for (uint32_t b = 0; b < n_blocks; b++) {
        memcpy(set, in + b * s.words, s.words * sizeof *set);
        for (uint32_t k = blocks[b].first; k < blocks[b].first + blocks[b].n; k++) {
            if (reads_known(&s, set, k)) {
                ops[k].look = 0;
            } else {
                for (uint32_t i = 0; i < uses[k].n_reads; i++)
                    doubt(&s, doubted, list[uses[k].first + i]);
                if (ops[k].guard >= 0)
                    doubt(&s, doubted, (uint32_t)ops[k].guard | EMU_USE_PREDICATE);
            }
            write_all(&s, set, k);
        }
    }
    for (size_t k = 0; k < parser->new_ops.n; k++)
        for (uint32_t i = 0; i < uses[k].n_writes; i++)
            if (has(&s, doubted, list[uses[k].first + uses[k].n_reads + i]))
                ops[k].look |= EMU_LOOK_WRITES;
}

/* Rows of the register file. PTX has a register for every value; rows are shared by linear scan
 * over live intervals (Poletto and Sarkar, 1999), so that a warp's registers stay in the cache.
 *
 * A lane's values are its own column of the rows, and each lane follows the flow graph on its own,
 * so liveness over that graph is right under divergence too. A register and one that begins where
 * it ends get different rows: handlers may write before they have read all. */
#include "runtime/emulator/ptx.h"

#include <string.h>

enum { MAX_BITS = 1 << 28, MAX_PASSES = 64 };

typedef struct liveness {
    uint32_t n_registers;
    size_t words;       /* of a set */
    uint64_t *in, *out; /* of each block */
} liveness;

static bool is_member(const uint64_t *set, uint32_t id) {
    return set[id / 64] >> id % 64 & 1;
}

/* in = (out - kill) + gen of one block, backwards over its ops. */
static void go_through(const ptx_parser *parser, const ptx_block *block, uint64_t *set) {
    const emu_op *ops = parser->new_ops.items;
    const emu_uses *uses = parser->new_uses.items;
    const uint32_t *list = parser->use_list.items;
    for (uint32_t k = block->first + block->n; k-- > block->first;) {
        const uint32_t *use = list + uses[k].first;
        for (uint32_t i = uses[k].n_reads; i < (uint32_t)uses[k].n_reads + uses[k].n_writes; i++)
            if (!(use[i] & EMU_USE_PREDICATE) && ops[k].guard < 0)
                set[use[i] / 64] &= ~(UINT64_C(1) << use[i] % 64);
        for (uint32_t i = 0; i < uses[k].n_reads; i++)
            if (!(use[i] & EMU_USE_PREDICATE))
                set[use[i] / 64] |= UINT64_C(1) << use[i] % 64;
    }
}

/* False where that would take too long: then nothing is shared. */
static bool find_liveness(ptx_parser *parser, const ptx_block *blocks, uint32_t n_blocks,
                          liveness *live) {
    live->n_registers = parser->n_registers;
    live->words = (live->n_registers + 63) / 64;
    if ((uint64_t)live->words * 64 * n_blocks > MAX_BITS)
        return false;
    size_t all = live->words * n_blocks;
    live->in = ptx_scratch_memory(parser, (2 * all + live->words + 1) * sizeof *live->in);
    live->out = live->in + all;
    uint64_t *set = live->out + all;
    bool changed = true;
    for (int pass = 0; changed; pass++) {
        if (pass == MAX_PASSES)
            return false;
        changed = false;
        for (uint32_t b = n_blocks; b-- > 0;) {
            uint64_t *in = live->in + b * live->words, *out = live->out + b * live->words;
            for (uint32_t s = 0; s < blocks[b].n_successors; s++) {
                const uint64_t *from = live->in + blocks[b].successors[s] * live->words;
                for (size_t i = 0; i < live->words; i++)
                    out[i] |= from[i];
            }
            memcpy(set, out, live->words * sizeof *set);
            go_through(parser, &blocks[b], set);
            changed |= memcmp(set, in, live->words * sizeof *set) != 0;
            memcpy(in, set, live->words * sizeof *set);
        }
    }
    return true;
}

typedef struct interval {
    uint32_t begin, end; /* op numbers, inclusive; begin > end: never used */
    uint32_t next;       /* of those that begin, or end, at the same op, + 1 */
    uint32_t row;
} interval;

static void extend(interval *i, uint32_t at) {
    i->begin = at < i->begin ? at : i->begin;
    i->end = at > i->end ? at : i->end;
}

static interval *find_intervals(ptx_parser *parser, const ptx_block *blocks, uint32_t n_blocks,
                                const liveness *live) {
    interval *all = ptx_scratch_memory(parser, ((size_t)parser->n_registers + 1) * sizeof *all);
    for (uint32_t r = 0; r < parser->n_registers; r++)
        all[r] = (interval){UINT32_MAX, 0, 0, 0};
    const emu_uses *uses = parser->new_uses.items;
    const uint32_t *list = parser->use_list.items;
    for (uint32_t k = 0; k < parser->new_ops.n; k++)
        for (uint32_t i = 0; i < (uint32_t)uses[k].n_reads + uses[k].n_writes; i++) {
            uint32_t id = list[uses[k].first + i];
            if (!(id & EMU_USE_PREDICATE))
                extend(&all[id], k);
        }
    for (uint32_t b = 0; live && b < n_blocks; b++) {
        const uint64_t *in = live->in + b * live->words, *out = live->out + b * live->words;
        for (uint32_t r = 0; r < parser->n_registers; r++) {
            if (!(in[r / 64] | out[r / 64])) { /* none of these 64 */
                r |= 63;
                continue;
            }
            if (is_member(in, r))
                extend(&all[r], blocks[b].first);
            if (is_member(out, r))
                extend(&all[r], blocks[b].first + blocks[b].n - 1);
        }
    }
    return all;
}

/* Rows, 64-bit registers in two adjoining ones. */
static void scan(ptx_parser *parser, interval *all, bool share) {
    uint32_t n_ops = (uint32_t)parser->new_ops.n, n_rows = 0, live = 0, most = 0;
    const uint8_t *types = parser->register_types.items;
    uint32_t *begins = ptx_scratch_memory(parser, 2 * ((size_t)n_ops + 1) * sizeof *begins);
    uint32_t *ends = begins + n_ops + 1; /* intervals by their last op, + 1 */
    uint32_t *free_rows[2];              /* stacks of single rows and of pairs */
    uint32_t n_free[2] = {0, 0};
    for (int i = 0; i < 2; i++)
        free_rows[i] =
            ptx_scratch_memory(parser, ((size_t)parser->n_registers + 1) * sizeof **free_rows);
    for (uint32_t r = parser->n_registers; r-- > 0;)
        if (all[r].begin <= all[r].end) {
            all[r].next = begins[all[r].begin];
            begins[all[r].begin] = r + 1;
        }
    for (uint32_t k = 0; k < n_ops; k++) {
        for (uint32_t at = begins[k], next; at; at = next) {
            interval *i = &all[at - 1];
            next = i->next;
            bool pair = ptx_type_bits((ptx_type)types[at - 1]) == 64;
            if (n_free[pair] && share) {
                i->row = free_rows[pair][--n_free[pair]];
            } else {
                i->row = n_rows;
                n_rows += 1u + pair;
                if (n_rows > PTX_MAX_ROWS)
                    ptx_fail(parser, parser->token.line, "more than %d registers live",
                             PTX_MAX_ROWS);
            }
            live += 1u + pair;
            i->next = ends[i->end];
            ends[i->end] = at;
        }
        most = live > most ? live : most;
        for (uint32_t at = ends[k]; at; at = all[at - 1].next) {
            bool pair = ptx_type_bits((ptx_type)types[at - 1]) == 64;
            free_rows[pair][n_free[pair]++] = all[at - 1].row;
            live -= 1u + pair;
        }
    }
    parser->function->n_words = 32 * n_rows;
    parser->function->live_registers = most;
}

static int32_t row_of(const interval *all, int32_t operand) {
    if (operand < 0 || !(operand & (int32_t)PTX_VIRTUAL))
        return operand;
    return (int32_t)(32 * all[(uint32_t)operand & ~PTX_VIRTUAL].row);
}

void ptx_assign_rows(ptx_parser *parser, const ptx_block *blocks, uint32_t n_blocks) {
    liveness live;
    bool known = find_liveness(parser, blocks, n_blocks, &live);
    interval *all = find_intervals(parser, blocks, n_blocks, known ? &live : NULL);
    scan(parser, all, known);
    emu_op *ops = parser->new_ops.items;
    for (size_t k = 0; k < parser->new_ops.n; k++) {
        emu_op *op = &ops[k];
        op->d = row_of(all, op->d);
        op->a = row_of(all, op->a);
        op->b = row_of(all, op->b);
        op->c = row_of(all, op->c);
        for (uint32_t i = 0; i < op->n_list; i++)
            if (i >= 8 || !(op->plain_list >> i & 1))
                op->list[i] = row_of(all, op->list[i]);
    }
}

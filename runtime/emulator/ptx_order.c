/* The order of a function's basic blocks.
 *
 * A warp runs the lanes with the least pc (exec_warp.c), which is right in any order, but lets
 * lanes meet again as early as they can only where blocks come after their predecessors and a
 * loop's exit after the whole loop; and a barrier must find all lanes together. Compilers lay
 * blocks out otherwise. The order here is a weak topological order (Bourdoncle, "Efficient chaotic
 * iteration strategies with widenings", 1993, figure 4): every strongly connected component is
 * contiguous and begins with its head, and so on within it. */
#include "runtime/emulator/ptx.h"

#include <string.h>

typedef struct order {
    ptx_block *blocks;
    uint32_t *number, *stack, *result; /* of a block: depth first, UINT32_MAX when done */
    uint32_t n_stack, at, count;
} order;

static uint32_t visit(order *o, uint32_t v) {
    o->stack[o->n_stack++] = v;
    uint32_t head = o->number[v] = ++o->count;
    bool loop = false;
    const ptx_block *block = &o->blocks[v];
    for (uint32_t i = 0; i < block->n_successors; i++) {
        uint32_t w = block->successors[i];
        uint32_t least = o->number[w] ? o->number[w] : visit(o, w);
        if (least <= head) {
            head = least;
            loop = true;
        }
    }
    if (head != o->number[v])
        return head;
    o->number[v] = UINT32_MAX;
    uint32_t element = o->stack[--o->n_stack];
    if (loop) {
        while (element != v) {
            o->number[element] = 0;
            element = o->stack[--o->n_stack];
        }
        for (uint32_t i = 0; i < block->n_successors; i++)
            if (!o->number[block->successors[i]])
                visit(o, block->successors[i]);
    }
    o->result[--o->at] = v;
    return head;
}

/* Appends to `list` where control may go from the block's last op, the fall-through last: it is
 * visited last and so placed next. */
static void find_successors(ptx_parser *parser, ptx_block *block, const uint32_t *block_of,
                            ptx_array *list) {
    const emu_op *op = (emu_op *)parser->ops.items + block->first + block->n - 1;
    block->n_successors = (uint32_t)list->n;
    if (op->flow == EMU_FLOW_BRA)
        *(uint32_t *)ptx_push(parser, list) = block_of[op->imm];
    if (op->flow == EMU_FLOW_BRX)
        for (uint32_t i = 0; i < op->imm; i++)
            *(uint32_t *)ptx_push(parser, list) = block_of[op->list[i]];
    bool falls = op->flow == EMU_FLOW_NEXT || op->guard >= 0;
    if (falls)
        *(uint32_t *)ptx_push(parser, list) = block_of[block->first + block->n];
    block->n_successors = (uint32_t)list->n - block->n_successors;
}

/* Copies the ops in the blocks' new order, with jumps where a block falls through to one that is no
 * longer next. */
static void lay_out(ptx_parser *parser, ptx_block *blocks, const uint32_t *result, uint32_t n,
                    const uint32_t *block_of, uint32_t *place) {
    ptx_array *ops = &parser->new_ops, *uses = &parser->new_uses;
    ptx_array_begin(parser, ops, sizeof(emu_op));
    ptx_array_begin(parser, uses, sizeof(emu_uses));
    for (uint32_t i = 0; i < n; i++) {
        ptx_block *block = &blocks[result[i]];
        uint32_t first = (uint32_t)ops->n, end = block->first + block->n;
        for (uint32_t k = block->first; k < end; k++) {
            *(emu_op *)ptx_push(parser, ops) = ((emu_op *)parser->ops.items)[k];
            *(emu_uses *)ptx_push(parser, uses) = ((emu_uses *)parser->uses.items)[k];
        }
        const emu_op *last = (emu_op *)ops->items + ops->n - 1;
        bool falls = last->flow == EMU_FLOW_NEXT || last->guard >= 0;
        if (falls && (i + 1 == n || result[i + 1] != block_of[end])) {
            emu_op jump = {.run = ptx_find_handler("jump"), .guard = -1, .imm = end};
            jump.flow = EMU_FLOW_BRA;
            jump.line = last->line;
            jump.source = last->source;
            jump.kind = EMU_KIND_CONTROL;
            jump.a = jump.b = jump.c = jump.d = -1;
            *(emu_op *)ptx_push(parser, ops) = jump;
            ptx_push(parser, uses);
        }
        place[result[i]] = first;
        block->first = first;
        block->n = (uint32_t)ops->n - first;
    }
    emu_op *all = ops->items;
    for (size_t k = 0; k < ops->n; k++) {
        if (all[k].flow == EMU_FLOW_BRA)
            all[k].imm = place[block_of[all[k].imm]];
        if (all[k].flow == EMU_FLOW_BRX)
            for (uint32_t i = 0; i < all[k].imm; i++)
                all[k].list[i] = (int32_t)place[block_of[all[k].list[i]]];
    }
}

ptx_block *ptx_order_blocks(ptx_parser *parser, uint32_t *n_blocks) {
    uint32_t n_ops = (uint32_t)parser->ops.n, n = 0;
    const emu_op *ops = parser->ops.items;
    uint32_t *block_of = ptx_scratch_memory(parser, ((size_t)n_ops + 1) * sizeof *block_of);
    block_of[0] = 1; /* first marks of blocks' first ops */
    for (uint32_t i = 0; i < n_ops; i++) {
        if (ops[i].flow == EMU_FLOW_NEXT)
            continue;
        block_of[i + 1] = 1;
        if (ops[i].flow == EMU_FLOW_BRA)
            block_of[ops[i].imm] = 1;
        for (uint32_t k = 0; ops[i].flow == EMU_FLOW_BRX && k < ops[i].imm; k++)
            block_of[ops[i].list[k]] = 1;
    }
    for (uint32_t i = 0; i < n_ops; i++)
        n += block_of[i];
    if (n > PTX_MAX_BLOCKS)
        ptx_fail(parser, ops[0].line, "more than %d basic blocks", PTX_MAX_BLOCKS);
    ptx_block *blocks = ptx_scratch_memory(parser, n * sizeof *blocks);
    uint32_t at = 0;
    for (uint32_t i = 0; i < n_ops; i++) {
        if (block_of[i])
            blocks[at++].first = i;
        block_of[i] = at - 1;
        blocks[at - 1].n++;
    }
    ptx_array *list = &parser->successors;
    ptx_array_begin(parser, list, sizeof(uint32_t));
    for (uint32_t i = 0; i < n; i++)
        find_successors(parser, &blocks[i], block_of, list);
    const uint32_t *successors = list->items;
    for (uint32_t i = 0; i < n; i++) {
        blocks[i].successors = successors;
        successors = successors ? successors + blocks[i].n_successors : NULL;
    }
    uint32_t *memory = ptx_scratch_memory(parser, 4 * (size_t)n * sizeof *memory);
    order o = {.blocks = blocks, .number = memory, .stack = memory + n, .result = memory + 2 * n};
    o.at = n;
    visit(&o, 0);
    /* Blocks that nothing reaches are left out. */
    uint32_t reached = n - o.at;
    const uint32_t *result = o.result + o.at;
    uint32_t *place = memory + 3 * (size_t)n;
    lay_out(parser, blocks, result, reached, block_of, place);
    /* Blocks and their successors by their new numbers. */
    ptx_block *ordered = ptx_scratch_memory(parser, reached * sizeof *ordered);
    uint32_t *number = o.number;
    for (uint32_t i = 0; i < reached; i++) {
        ordered[i] = blocks[result[i]];
        number[result[i]] = i;
    }
    uint32_t *renamed = list->items;
    for (size_t i = 0; i < list->n; i++)
        renamed[i] = number[renamed[i]];
    *n_blocks = reached;
    return ordered;
}

/* Branches, exits, barriers, fences. */
#include "runtime/emulator/exec_state.h"

static emu_next bra(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t target = (uint32_t)op->imm;
    if (mask == w->active) {
        w->back_edges += target <= w->pc;
        w->pc = target;
        return EMU_JUMPED;
    }
    return emu_split(w, mask, target, w->pc + 1);
}

/* Where the text's order of blocks was changed: a block's end goes on elsewhere. */
static emu_next jump(emu_warp *w, const emu_op *op, uint32_t mask) {
    (void)mask;
    w->pc = (uint32_t)op->imm;
    return EMU_JUMPED;
}

/* brx.idx: op->list has the targets. One target at a time leaves; the rest comes back here. */
static emu_next brx(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *index = emu_src(w, op->a);
    const int32_t *targets = op->list;
    int lane = __builtin_ctz(mask);
    if (index[lane] >= op->imm)
        return emu_fault(w, op, lane, "brx.idx of %u, but there are %u targets", index[lane],
                         (uint32_t)op->imm);
    uint32_t same = 0;
    for (int i = 0; i < 32; i++)
        same |= index[i] == index[lane] ? 1u << i : 0;
    same &= mask;
    uint32_t target = (uint32_t)targets[index[lane]];
    if (same == w->active) {
        w->back_edges += target <= w->pc;
        w->pc = target;
        return EMU_JUMPED;
    }
    /* Lanes whose guard does not hold go on behind; those that jump elsewhere come back here. */
    if (mask != w->active)
        return emu_split(w, mask, w->pc, w->pc + 1);
    return emu_split(w, same, target, w->pc);
}

static emu_next ret(emu_warp *w, const emu_op *op, uint32_t mask) {
    (void)op;
    return emu_exit(w, mask);
}

static emu_next trap(emu_warp *w, const emu_op *op, uint32_t mask) {
    return emu_fault(w, op, __builtin_ctz(mask), "trap: the kernel stops itself");
}

static emu_next nothing(emu_warp *w, const emu_op *op, uint32_t mask) {
    (void)w, (void)op, (void)mask;
    return EMU_NEXT;
}

static emu_next pause(emu_warp *w, const emu_op *op, uint32_t mask) {
    (void)w, (void)op, (void)mask;
    return EMU_YIELD;
}

/* Among the threads of a block. */
static emu_next fence_block(emu_warp *w, const emu_op *op, uint32_t mask) {
    (void)op, (void)mask;
    if (w->worker->within && w->heard)
        emu_shadow_forget(emu_races_within_order(w->worker->within));
    w->heard = false;
    return EMU_NEXT;
}

static emu_next membar(emu_warp *w, const emu_op *op, uint32_t mask) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (w->worker->races) {
        emu_races_publish(&w->worker->race_block, w->index);
        emu_races_listen(&w->worker->race_block);
    }
    return fence_block(w, op, mask);
}

/* An operand that must be the same in all lanes of `mask`. */
static bool uniform(const uint32_t *row, uint32_t mask, uint32_t *value) {
    *value = row[__builtin_ctz(mask)];
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1 && row[i] != *value)
            return false;
    return true;
}

/* bar.sync, barrier.sync, bar.arrive, bar.red: a the barrier, b the threads (-1: all that live),
 * sub: 0 sync, 1 arrive, 2 red.and, 3 red.or, 4 red.popc with predicate c and result d. The result
 * is taken when the barrier completes: exec_block.c. */
static emu_next bar(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t id, expected = 0;
    if (mask != w->active)
        return emu_fault(w, op, __builtin_ctz(w->active & ~mask),
                         "divergent barrier: the guard of a barrier holds for some lanes only");
    emu_next met = emu_meet(w, op, mask, w->live);
    if (met != EMU_NEXT)
        return met;
    if (!uniform(emu_src(w, op->a), mask, &id) ||
        (op->b != -1 && !uniform(emu_src(w, op->b), mask, &expected)))
        return emu_fault(w, op, -1, "the lanes of a warp give a barrier different operands");
    if (id > 15)
        return emu_fault(w, op, -1, "barrier %u, but a block has barriers 0 to 15", id);
    if (op->b != -1 && (expected % 32 || !expected || expected > 1024))
        return emu_fault(
            w, op, -1, "a barrier of %u threads; it must be a multiple of 32 up to 1024", expected);
    uint32_t n_true = 0;
    if (op->sub >= 2)
        n_true = (uint32_t)__builtin_popcount(emu_pred(w, op->c, op->flip & 4) & mask);
    if (w->worker->shadow)
        emu_shadow_arrive(w->worker->shadow, id, w->index);
    if (w->worker->within)
        emu_shadow_arrive(emu_races_within_order(w->worker->within), id, w->index);
    return emu_barrier_arrive(w, op, id, expected, mask, n_true, op->sub != 1);
}

const emu_handler emu_control_handlers[] = {
    {"bra", bra},     {"jump", jump},     {"brx", brx},
    {"ret", ret},     {"trap", trap},     {"nothing", nothing},
    {"pause", pause}, {"membar", membar}, {"fence.block", fence_block},
    {"bar", bar},     {NULL, NULL},
};

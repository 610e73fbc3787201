/* One block: its warps in turn, and its barriers. */
#include "runtime/emulator/exec_state.h"

enum { BUDGET = 50000 }; /* instructions of a warp before others run */

static const emu_op *waits_at(const emu_warp *w) {
    return &w->function->ops[w->barrier_pc];
}

/* bar.red: the result to every warp that waited. */
static void give_result(emu_warp *w, const emu_barrier *barrier) {
    const emu_op *op = waits_at(w);
    uint32_t v[32];
    if (op->sub == 4) {
        for (int i = 0; i < 32; i++)
            v[i] = barrier->n_true;
        emu_blend(emu_dst(w, op->d), v, w->barrier_mask);
    } else {
        bool holds = op->sub == 2 ? barrier->n_true == barrier->n_threads : barrier->n_true != 0;
        emu_set_pred(w, op->d, holds ? EMU_FULL : 0, w->barrier_mask);
    }
}

/* Lets the waiting warps go on where all have arrived. */
static void complete(emu_block *block, uint32_t id) {
    emu_barrier *barrier = &block->barriers[id];
    if (!barrier->in_use)
        return;
    if (barrier->expected) {
        if (barrier->arrived < barrier->expected)
            return;
    } else {
        for (uint32_t i = 0; i < block->n_warps; i++)
            if (block->warps[i].state != EMU_WARP_DONE && !(barrier->waiting >> i & 1))
                return;
    }
    for (uint32_t i = 0; i < block->n_warps; i++) {
        emu_warp *w = &block->warps[i];
        if (!(barrier->waiting >> i & 1))
            continue;
        w->state = EMU_WARP_READY;
        if (waits_at(w)->sub >= 2)
            give_result(w, barrier);
    }
    if (block->worker->shadow)
        emu_shadow_release(block->worker->shadow, id, barrier->waiting);
    if (block->worker->within)
        emu_shadow_release(emu_races_within_order(block->worker->within), id, barrier->waiting);
    if (block->worker->races)
        emu_races_barrier(&block->worker->race_block, barrier->waiting);
    *barrier = (emu_barrier){0};
}

emu_next emu_barrier_arrive(emu_warp *w, const emu_op *op, uint32_t id, uint32_t expected,
                            uint32_t mask, uint32_t n_true, bool wait) {
    emu_block *block = w->block;
    emu_barrier *barrier = &block->barriers[id];
    if (!barrier->in_use) {
        *barrier = (emu_barrier){.in_use = true, .expected = expected, .pc = w->pc};
    } else if (barrier->expected != expected) {
        return emu_fault(w, op, -1,
                         "mismatched barrier %u: of %u threads here, of %u at line %u (0: all)", id,
                         expected, barrier->expected, w->function->ops[barrier->pc].line);
    } else if (!expected && barrier->pc != w->pc) {
        return emu_fault(w, op, -1,
                         "mismatched barrier: this warp waits here, others of its block at line %u",
                         w->function->ops[barrier->pc].line);
    }
    if (w->counting)
        w->worker->counters.barriers++;
    barrier->arrived += 32; /* whole warps count, as on devices */
    barrier->n_threads += (uint32_t)__builtin_popcount(mask);
    barrier->n_true += n_true;
    if (expected && barrier->arrived > expected)
        return emu_fault(w, op, -1, "barrier %u of %u threads is reached by more", id, expected);
    if (wait) {
        barrier->waiting |= 1u << w->index;
        w->state = EMU_WARP_AT_BARRIER;
        w->barrier = id;
        w->barrier_pc = w->pc;
        w->barrier_mask = mask;
    }
    complete(block, id);
    return EMU_BARRIER;
}

/* Every warp waits and none can go on. */
static bool fault_deadlock(emu_block *block) {
    emu_warp *first = NULL, *other = NULL;
    for (uint32_t i = 0; i < block->n_warps; i++) {
        emu_warp *w = &block->warps[i];
        if (w->state != EMU_WARP_AT_BARRIER)
            continue;
        if (!first)
            first = w;
        else if (!other && (w->barrier != first->barrier))
            other = w;
    }
    const emu_barrier *barrier = &block->barriers[first->barrier];
    if (other)
        emu_fault(first, waits_at(first), -1,
                  "mismatched barriers: this warp waits at barrier %u, warp %u at barrier %u, line "
                  "%u: none can go on",
                  first->barrier, other->index, other->barrier, waits_at(other)->line);
    else
        emu_fault(first, waits_at(first), -1,
                  "barrier %u of %u threads is reached by %u only: the block cannot go on",
                  first->barrier, barrier->expected, barrier->arrived);
    return false;
}

bool emu_block_run(emu_block *block) {
    emu_worker *worker = block->worker;
    bool random = worker->launch->schedule_seed != 0;
    uint32_t left = block->n_warps;
    while (left) {
        bool ran = false;
        uint32_t begin = random ? emu_random(&worker->random) % block->n_warps : 0;
        for (uint32_t i = 0; i < block->n_warps; i++) {
            emu_warp *w = &block->warps[(begin + i) % block->n_warps];
            if (w->state != EMU_WARP_READY)
                continue;
            if (random && emu_random(&worker->random) % 4 == 0 && i + 1 < block->n_warps)
                continue;
            uint64_t budget = random ? 1 + emu_random(&worker->random) % 512 : BUDGET;
            ran = true;
            if (!emu_warp_run(w, budget))
                return false;
            if (w->state != EMU_WARP_DONE)
                continue;
            left--;
            for (uint32_t id = 0; id < 16; id++)
                if (!block->barriers[id].expected)
                    complete(block, id);
        }
        if (__atomic_load_n(&worker->run->stop, __ATOMIC_RELAXED))
            return true; /* another worker failed */
        if (ran || !left)
            continue;
        bool ready = false;
        for (uint32_t i = 0; i < block->n_warps; i++)
            ready |= block->warps[i].state == EMU_WARP_READY;
        if (!ready)
            return fault_deadlock(block);
    }
    return true;
}

/* The loop of one warp: the lanes at the least pc run, others wait until those come to them.
 *
 * The decoder put the blocks of a function in an order in which every block comes after its
 * predecessors, but for loops, which are contiguous (ptx_flow.c). So the lanes with the least pc
 * are always those that the others must wait for, and lanes meet again as early as they can. */
#include "runtime/emulator/exec_state.h"

#include <stdarg.h>
#include <stdio.h>

/* Back edges that some lanes may take while others wait, before those get a turn: a lane may spin
 * on what another of its warp has yet to write. */
enum { STARVATION = 20000 };

emu_next emu_fault(emu_warp *w, const emu_op *op, int lane, const char *format, ...) {
    emu_worker *worker = w->worker;
    const ptx_module *module = w->function->module;
    char *at = worker->error;
    size_t left = sizeof worker->error;
    char source[160] = "";
    if (op->source && op->source < module->n_sources) {
        const emu_source *s = &module->sources[op->source];
        const char *file = s->file < module->n_files ? module->files[s->file] : NULL;
        const char *slash = file ? strrchr(file, '/') : NULL;
        snprintf(source, sizeof source, " (%s:%u)", slash ? slash + 1 : file ? file : "?", s->line);
    }
    char thread[64];
    if (lane >= 0 && w->index * 32 + (uint32_t)lane < w->block->n_threads)
        snprintf(thread, sizeof thread, "thread (%u,%u,%u)", w->tid[0][lane], w->tid[1][lane],
                 w->tid[2][lane]);
    else
        snprintf(thread, sizeof thread, "warp %u", w->index);
    const uint32_t *id = w->block->id;
    int n =
        snprintf(at, left, "kernel %s, PTX line %u%s, block (%u,%u,%u), %s: ", w->function->name,
                 op->line, source, id[0], id[1], id[2], thread);
    if (n > 0 && (size_t)n < left) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(at + n, left - (size_t)n, format, arguments);
        va_end(arguments);
    }
    worker->failed = true;
    return EMU_FAULT;
}

static void find_wait(emu_warp *w) {
    w->wait_pc = UINT32_MAX;
    for (int i = 0; i < w->n_groups; i++)
        if (!w->groups[i].blocked && w->groups[i].pc < w->wait_pc)
            w->wait_pc = w->groups[i].pc;
}

static void add_group(emu_warp *w, uint32_t pc, uint32_t mask, bool blocked) {
    for (int i = 0; i < w->n_groups; i++)
        if (w->groups[i].pc == pc) {
            /* Whoever arrives at blocked lanes lets them look again who is there. */
            w->groups[i].mask |= mask;
            w->groups[i].blocked &= blocked;
            return;
        }
    w->groups[w->n_groups++] = (emu_group){pc, mask, blocked};
}

/* The group with the least pc runs next. False when all that is left is blocked. */
static bool pick(emu_warp *w) {
    int best = -1;
    for (int i = 0; i < w->n_groups; i++)
        if (!w->groups[i].blocked && (best < 0 || w->groups[i].pc < w->groups[best].pc))
            best = i;
    if (best < 0)
        return false;
    w->pc = w->groups[best].pc;
    w->active = w->groups[best].mask;
    w->groups[best] = w->groups[--w->n_groups];
    find_wait(w);
    return true;
}

/* Lanes whose wait was for lanes that have exited or come: all look again. */
static void unblock(emu_warp *w) {
    for (int i = 0; i < w->n_groups; i++)
        w->groups[i].blocked = false;
    find_wait(w);
}

/* The running lanes stand at w->pc, which is not less than that of some that wait. */
static void reconverge(emu_warp *w) {
    if (w->wait_pc < w->pc) {
        add_group(w, w->pc, w->active, false);
        pick(w);
        return;
    }
    for (int i = 0; i < w->n_groups; i++)
        if (w->groups[i].pc == w->pc) {
            w->active |= w->groups[i].mask;
            w->groups[i] = w->groups[--w->n_groups];
            break;
        }
    find_wait(w);
}

/* The running lanes have looped for long while others wait: those get a turn, alone, and so on in
 * turns until they meet at a .sync instruction or exit. */
static void rotate(emu_warp *w) {
    w->back_edges = 0;
    add_group(w, w->pc, w->active, false);
    w->turn++;
    for (int i = 0; i < w->n_groups; i++) {
        emu_group *g = &w->groups[(w->turn + (uint32_t)i) % (uint32_t)w->n_groups];
        if (g->blocked)
            continue;
        w->pc = g->pc;
        w->active = g->mask;
        *g = w->groups[--w->n_groups];
        break;
    }
    w->wait_pc = UINT32_MAX;
}

emu_next emu_split(emu_warp *w, uint32_t mask, uint32_t target, uint32_t rest) {
    uint32_t others = w->active & ~mask;
    if (!mask || target == rest) {
        w->pc = rest;
        return EMU_JUMPED;
    }
    w->back_edges += target <= w->pc;
    if (!others) {
        w->pc = target;
        return EMU_JUMPED;
    }
    add_group(w, target, mask, false);
    add_group(w, rest, others, false);
    pick(w);
    return EMU_JUMPED;
}

emu_next emu_exit(emu_warp *w, uint32_t mask) {
    w->live &= ~mask;
    uint32_t rest = w->active & ~mask;
    unblock(w);
    if (rest) {
        w->active = rest;
        w->pc++;
        return EMU_JUMPED;
    }
    w->active = 0;
    if (w->n_groups)
        pick(w);
    else
        w->state = EMU_WARP_DONE;
    return EMU_JUMPED;
}

emu_next emu_meet(emu_warp *w, const emu_op *op, uint32_t mask, uint32_t members) {
    uint32_t missing = members & w->live & ~mask;
    if (!missing)
        return EMU_NEXT;
    if (missing & w->active)
        return emu_fault(w, op, __builtin_ctz(missing & w->active),
                         "lanes %08x wait for this one, whose guard does not hold", mask);
    for (int i = 0; i < w->n_groups; i++)
        if (w->groups[i].pc == w->pc) { /* some are here and blocked: together they look again */
            w->active |= w->groups[i].mask;
            w->groups[i] = w->groups[--w->n_groups];
            find_wait(w);
            return EMU_WAIT;
        }
    add_group(w, w->pc, w->active, true);
    if (pick(w))
        return EMU_WAIT;
    /* Nobody can run: who waits where? */
    uint32_t lane = (uint32_t)__builtin_ctz(missing), line = 0;
    for (int i = 0; i < w->n_groups; i++)
        if (w->groups[i].mask >> lane & 1)
            line = w->function->ops[w->groups[i].pc].line;
    return emu_fault(w, op, __builtin_ctz(mask),
                     "%s: lanes %08x wait here for lanes %08x, but lane %u waits at line %u",
                     op->kind == EMU_KIND_BARRIER ? "divergent barrier" : "divergent warp", mask,
                     missing, lane, line);
}

/* Lanes that have written a register, or a predicate. */
static uint32_t *valid_lanes(emu_warp *w, uint32_t id) {
    bool predicate = id & EMU_USE_PREDICATE;
    return &w->valid[predicate ? w->function->n_registers + (id & ~EMU_USE_PREDICATE) : id];
}

/* EMU_CHECK_UNINITIALISED: what the op reads must have been written by the lanes that read it. */
static bool check_registers(emu_warp *w, const emu_op *op, uint32_t mask) {
    const ptx_function *f = w->function;
    const emu_uses *uses = &f->uses[op - f->ops];
    const uint32_t *use = f->use_list + uses->first;
    uint32_t good = EMU_FULL;
    if (!(op->look & EMU_LOOK_READS)) {
        /* known to be written */
    } else if (uses->select) {
        uint32_t p = emu_pred(w, op->c, op->flip & 4);
        good = *valid_lanes(w, use[2]) &
               ((p & *valid_lanes(w, use[0])) | (~p & *valid_lanes(w, use[1])));
    } else {
        for (int i = 0; i < uses->n_reads; i++)
            good &= *valid_lanes(w, use[i]);
    }
    if (mask & ~good && !uses->carry) {
        emu_fault(w, op, __builtin_ctz(mask & ~good),
                  "reads a register that this thread has not written");
        return false;
    }
    use += uses->n_reads;
    for (int i = 0; i < uses->n_writes; i++) {
        uint32_t *valid = valid_lanes(w, use[i]);
        *valid = (*valid & ~mask) | (good & mask);
    }
    return true;
}

bool emu_warp_run(emu_warp *w, uint64_t budget) {
    const emu_op *ops = w->function->ops;
    emu_counters *counters = &w->worker->counters;
    uint64_t limit = w->worker->launch->instruction_limit, until = w->executed + budget;
    bool counting = w->counting, checking = w->checks & EMU_CHECK_UNINITIALISED;
    if (limit && limit < until)
        until = limit;
    for (;; w->executed++) {
        if (w->pc >= w->wait_pc)
            reconverge(w);
        const emu_op *op = ops + w->pc;
        if (w->executed >= until) {
            if (limit && w->executed >= limit) {
                emu_fault(w, op, __builtin_ctz(w->active),
                          "the warp has run %llu instructions, the limit: an endless loop?",
                          (unsigned long long)limit);
                return false;
            }
            return true;
        }
        uint32_t mask = w->active;
        if (op->guard >= 0)
            mask &= w->preds[op->guard] ^ op->guard_flip;
        if (counting) {
            counters->by_kind[op->kind]++;
            counters->lane_instructions += (uint32_t)__builtin_popcount(mask);
        }
        if (checking && op->look) {
            uint32_t unknown = 0;
            if (op->guard >= 0 && op->look & EMU_LOOK_READS)
                unknown = w->active & ~w->valid[w->function->n_registers + (uint32_t)op->guard];
            if (unknown) {
                emu_fault(w, op, __builtin_ctz(unknown),
                          "the guard is a predicate that this thread has not written");
                return false;
            }
            if (mask && !check_registers(w, op, mask))
                return false;
        }
        if (!mask) {
            w->pc++;
            continue;
        }
        switch (op->run(w, op, mask)) {
        case EMU_NEXT:
            w->pc++;
            break;
        case EMU_JUMPED:
            if (w->state == EMU_WARP_DONE) {
                w->executed++;
                return true;
            }
            if (!w->n_groups)
                w->back_edges = 0;
            else if (w->back_edges > STARVATION)
                rotate(w);
            break;
        case EMU_WAIT: /* it will run again */
            if (counting) {
                counters->by_kind[op->kind]--;
                counters->lane_instructions -= (uint32_t)__builtin_popcount(mask);
            }
            break;
        case EMU_YIELD:
            w->pc++;
            until = w->executed + 1;
            break;
        case EMU_BARRIER:
            w->pc++;
            w->executed++;
            return true;
        case EMU_FAULT:
            return false;
        }
    }
}

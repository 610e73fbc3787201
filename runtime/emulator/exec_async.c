/* cp.async: noted when issued, done when waited for.
 *
 * PTX lets a copy happen at any time until its group has been waited for. Here it happens as late
 * as that: shared memory holds the old bytes until then, so that a kernel that waits too little
 * computes something wrong, and the shadow names the read. */
#include "runtime/emulator/exec_access.h"

#include <stdlib.h>

/* Lanes whose copies are still to be waited for. */
enum { MAX_COPIES = 1 << 16 };

static emu_copy *add_copy(emu_warp *w) {
    if (w->n_copies == w->copies_room) {
        uint32_t room = w->copies_room ? 2 * w->copies_room : 16;
        emu_copy *copies = room <= MAX_COPIES ? realloc(w->copies, room * sizeof *copies) : NULL;
        if (!copies)
            return NULL;
        w->copies = copies;
        w->copies_room = room;
    }
    return &w->copies[w->n_copies++];
}

/* op->a the source's address, list: the destination's row, whether that has 64 bits, the row of the
 * source's size or -1, the destination's offset. op->c: a predicate that says to read nothing, or
 * -1. */
static emu_next cp_async(emu_warp *w, const emu_op *op, uint32_t mask) {
    const int32_t *list = op->list;
    uint32_t size = op->size;
    emu_copy *copy = add_copy(w);
    if (!copy)
        return emu_fault(w, op, -1, "more than %d async copies of a warp are in flight",
                         MAX_COPIES);
    copy->mask = mask;
    copy->size = size;
    uint32_t reads = mask, ignored = op->c >= 0 ? emu_pred(w, op->c, op->flip & 4) : 0;
    bool any_generic = op->space == EMU_SPACE_GENERIC;
    emu_access_at access;
    uint64_t *from = access.at;
    for (uint32_t left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        uint64_t to = list[1] ? emu_src64(w, list[0])[i] : emu_src(w, list[0])[i];
        to += (uint64_t)(int64_t)list[3];
        if (any_generic)
            to -= EMU_SHARED_WINDOW;
        from[i] = emu_src64(w, op->a)[i] + op->imm;
        uint32_t n = list[2] >= 0 || list[2] < -1 ? emu_src(w, list[2])[i] : size;
        if (ignored >> i & 1)
            n = 0;
        if (to > w->block->shared_bytes || w->block->shared_bytes - to < size)
            return emu_fault(w, op, i,
                             "out of bounds async copy of %u bytes to shared address 0x%llx: the "
                             "block has %u bytes of shared memory",
                             size, (unsigned long long)to, w->block->shared_bytes);
        if (to % size || (n && from[i] % size))
            return emu_fault(
                w, op, i,
                "async copy of %u bytes from 0x%llx to shared address 0x%llx, of which "
                "one is misaligned",
                size, (unsigned long long)from[i], (unsigned long long)to);
        if (n > size)
            return emu_fault(w, op, i, "async copy of %u bytes that reads %u", size, n);
        copy->shared[i] = (uint32_t)to;
        copy->bytes[i] = (uint8_t)n;
        copy->group[i] = w->committed[i];
        if (!n) {
            reads &= ~(1u << i);
            continue;
        }
    }
    if (!emu_access_copy(w, op, reads, copy->bytes, &access, copy->source))
        return EMU_FAULT;
    emu_shadow_report report;
    if (w->worker->shadow && !emu_shadow_access(w->worker->shadow, EMU_ACCESS_ASYNC, w->index, mask,
                                                copy->shared, size, &report)) {
        char text[256];
        emu_shadow_message(&report, text, sizeof text);
        return emu_fault(w, op, report.thread / 32 == w->index ? (int)(report.thread % 32) : -1,
                         "%s", text);
    }
    if (w->counting) {
        emu_counters *c = &w->worker->counters;
        c->async_copies++;
        c->async_bytes += (uint64_t)__builtin_popcount(reads) * size;
        if (reads) {
            bool contiguous = reads == EMU_FULL;
            for (int i = 0; i < 32 && contiguous; i++)
                contiguous = from[i] == from[0] + (uint64_t)i * size;
            emu_count_global(w, w->cached, from, reads, size, false, contiguous);
        }
        emu_count_shared(w, copy->shared, mask, size);
    }
    return EMU_NEXT;
}

static emu_next commit(emu_warp *w, const emu_op *op, uint32_t mask) {
    (void)op;
    for (int i = 0; i < 32; i++)
        w->committed[i] += mask >> i & 1;
    return EMU_NEXT;
}

static void perform(emu_warp *w, const emu_copy *copy, uint32_t lanes) {
    for (uint32_t left = lanes; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        uint8_t *to = w->block->shared + copy->shared[i];
        if (copy->bytes[i])
            memcpy(to, copy->source[i], copy->bytes[i]);
        memset(to + copy->bytes[i], 0, copy->size - copy->bytes[i]);
    }
    if (w->worker->shadow)
        emu_shadow_async_done(w->worker->shadow, w->index, lanes, copy->shared, copy->size);
}

void emu_async_wait(emu_warp *w, uint32_t mask, uint32_t pending) {
    uint32_t kept = 0;
    for (uint32_t k = 0; k < w->n_copies; k++) {
        emu_copy *copy = &w->copies[k];
        uint32_t ready = 0;
        for (int i = 0; i < 32; i++) /* groups before the last `pending` committed ones */
            if (pending == UINT32_MAX || (uint64_t)copy->group[i] + pending < w->committed[i])
                ready |= 1u << i;
        ready &= mask & copy->mask;
        if (ready)
            perform(w, copy, ready);
        copy->mask &= ~ready;
        if (!copy->mask)
            continue;
        if (kept != k)
            w->copies[kept] = *copy;
        kept++;
    }
    w->n_copies = kept;
}

static emu_next wait_group(emu_warp *w, const emu_op *op, uint32_t mask) {
    if (w->n_copies)
        emu_async_wait(w, mask, (uint32_t)op->imm);
    return EMU_NEXT;
}

const emu_handler emu_async_handlers[] = {
    {"cp.async", cp_async},
    {"cp.async.commit", commit},
    {"cp.async.wait", wait_group},
    {NULL, NULL},
};

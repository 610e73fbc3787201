/* Instructions in which a warp's lanes exchange values: shfl, vote, match, redux, bar.warp.sync,
 * and tensor-core operations. */
#include "runtime/emulator/exec_state.h"

/* The member mask of op->b's row (the same in all lanes that take part), after waiting for those
 * lanes. */
static emu_next members_of(emu_warp *w, const emu_op *op, int32_t row, uint32_t mask,
                           uint32_t *members) {
    const uint32_t *m = emu_src(w, row);
    int first = __builtin_ctz(mask);
    *members = m[first];
    for (int i = 0; i < 32 && row >= 0; i++) /* a constant is the same in all lanes */
        if (mask >> i & 1 && m[i] != *members)
            return emu_fault(w, op, i, "member mask %08x, but lane %d gives %08x", m[i], first,
                             *members);
    if (mask & ~*members)
        return emu_fault(w, op, __builtin_ctz(mask & ~*members),
                         "the thread executes an instruction whose member mask %08x lacks it",
                         *members);
    return emu_meet(w, op, mask, *members);
}

/* The lane that each lane takes its value from; returns those that get another's or may: where the
 * one wanted is within the bounds. */
EMU_CLONES static uint32_t find_sources(int how, const uint32_t *b, const uint32_t *c,
                                        uint32_t from[32]) {
    uint32_t in[32], good = 0;
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t bound = c[i] & 31, segment = c[i] >> 8 & 31, by = b[i] & 31;
        uint32_t least = i & segment, most = least | (bound & ~segment);
        uint32_t j = how == 0   ? i - by
                     : how == 1 ? i + by
                     : how == 2 ? i ^ by
                                : least | (by & ~segment);
        in[i] = how == 0 ? (int32_t)j >= (int32_t)most : j <= most;
        from[i] = (in[i] ? j : i) & 31;
    }
    for (uint32_t i = 0; i < 32; i++)
        good |= in[i] << i;
    return good;
}

EMU_CLONES static void take_values(const uint32_t *a, const uint32_t from[32], uint32_t v[32]) {
    for (int i = 0; i < 32; i++)
        v[i] = a[from[i]];
}

/* shfl.sync d|p, a, b, c, members: list = b's row, the member mask's; c the bounds; sub: 0 up,
 * 1 down, 2 bfly, 3 idx. op->b is the predicate, or -1. */
static emu_next shfl(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t members;
    emu_next met = members_of(w, op, op->list[1], mask, &members);
    if (met != EMU_NEXT)
        return met;
    uint32_t from[32], v[32];
    uint32_t good = find_sources(op->sub, emu_src(w, op->list[0]), emu_src(w, op->c), from);
    const uint32_t *a = emu_src(w, op->a);
    for (uint32_t left = mask == EMU_FULL ? 0 : mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        if (!(mask >> from[i] & 1))
            return emu_fault(w, op, i,
                             "shfl.sync takes a value from lane %u, which does not "
                             "take part",
                             from[i]);
    }
    take_values(a, from, v);
    emu_blend(emu_dst(w, op->d), v, mask);
    if (op->b >= 0)
        emu_set_pred(w, op->b, good, mask);
    return EMU_NEXT;
}

/* vote.sync: predicate a, members' row b; sub: 0 all, 1 any, 2 uni, 3 ballot. */
static emu_next vote(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t members;
    emu_next met = members_of(w, op, op->b, mask, &members);
    if (met != EMU_NEXT)
        return met;
    uint32_t holds = emu_pred(w, op->a, op->flip & 1) & mask;
    if (op->sub == 3) {
        uint32_t v[32];
        for (int i = 0; i < 32; i++)
            v[i] = holds;
        emu_blend(emu_dst(w, op->d), v, mask);
        return EMU_NEXT;
    }
    bool result = op->sub == 0   ? holds == mask
                  : op->sub == 1 ? holds != 0
                                 : holds == mask || holds == 0;
    emu_set_pred(w, op->d, result ? EMU_FULL : 0, mask);
    return EMU_NEXT;
}

/* match.any (sub 0) and match.all (sub 1, predicate in c or -1) of op->width-bit values. */
static emu_next match(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t members;
    emu_next met = members_of(w, op, op->b, mask, &members);
    if (met != EMU_NEXT)
        return met;
    uint64_t x[32];
    uint32_t v[32] = {0};
    for (int i = 0; i < 32; i++)
        x[i] = op->width == 64 ? emu_src64(w, op->a)[i] : emu_src(w, op->a)[i];
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j++)
            v[i] |= mask >> j & 1 && x[i] == x[j] ? 1u << j : 0;
    if (op->sub == 1) {
        bool all = v[__builtin_ctz(mask)] == mask;
        for (int i = 0; i < 32; i++)
            v[i] = all ? mask : 0;
        if (op->c >= 0)
            emu_set_pred(w, op->c, all ? EMU_FULL : 0, mask);
    }
    emu_blend(emu_dst(w, op->d), v, mask);
    return EMU_NEXT;
}

/* redux.sync of 32 bits; sub: 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor. */
static emu_next redux(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t members;
    emu_next met = members_of(w, op, op->b, mask, &members);
    if (met != EMU_NEXT)
        return met;
    const uint32_t *a = emu_src(w, op->a);
    uint32_t r = a[__builtin_ctz(mask)], v[32];
    for (int i = __builtin_ctz(mask) + 1; i < 32; i++) {
        uint32_t x = a[i];
        if (!(mask >> i & 1))
            continue;
        bool less = op->sign ? (int32_t)x < (int32_t)r : x < r;
        switch (op->sub) {
        case 0:
            r += x;
            break;
        case 1:
            r = less ? x : r;
            break;
        case 2:
            r = less ? r : x;
            break;
        case 3:
            r &= x;
            break;
        case 4:
            r |= x;
            break;
        default:
            r ^= x;
        }
    }
    for (int i = 0; i < 32; i++)
        v[i] = r;
    emu_blend(emu_dst(w, op->d), v, mask);
    return EMU_NEXT;
}

static emu_next activemask(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t v[32];
    for (int i = 0; i < 32; i++)
        v[i] = w->active;
    emu_blend(emu_dst(w, op->d), v, mask);
    return EMU_NEXT;
}

/* elect.sync d|p, members: the first member; d in op->d, p in op->c. */
static emu_next elect(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t members;
    emu_next met = members_of(w, op, op->b, mask, &members);
    if (met != EMU_NEXT)
        return met;
    uint32_t v[32], first = (uint32_t)__builtin_ctz(mask);
    for (int i = 0; i < 32; i++)
        v[i] = first;
    emu_blend(emu_dst(w, op->d), v, mask);
    emu_set_pred(w, op->c, 1u << first, mask);
    return EMU_NEXT;
}

static emu_next warp_sync(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t members;
    emu_next met = members_of(w, op, op->b, mask, &members);
    if (met == EMU_NEXT && w->worker->shadow)
        emu_shadow_warp_sync(w->worker->shadow, w->index, mask);
    if (met == EMU_NEXT && w->worker->within)
        emu_shadow_warp_sync(emu_races_within_order(w->worker->within), w->index, mask);
    return met;
}

/* --- tensor cores -------------------------------------------------------------------------------
 */

/* .aligned: every lane of the warp must be there. */
static emu_next whole(emu_warp *w, const emu_op *op, uint32_t mask) {
    if (mask != w->active)
        return emu_fault(w, op, __builtin_ctz(w->active & ~mask),
                         "the guard of an .aligned instruction holds for some lanes only");
    emu_next met = emu_meet(w, op, mask, EMU_FULL);
    if (met == EMU_NEXT && mask != EMU_FULL)
        return emu_fault(w, op, __builtin_ctz(~mask),
                         "an .aligned instruction of a warp in which this lane has exited");
    return met;
}

/* op->list: the rows of d, a, b, c. */
static emu_next mma(emu_warp *w, const emu_op *op, uint32_t mask) {
    emu_next met = whole(w, op, mask);
    if (met != EMU_NEXT)
        return met;
    const emu_mma_op *m = op->extra;
    int n_a, n_b, n_cd;
    emu_mma_registers(m, &n_a, &n_b, &n_cd);
    const uint32_t *a[8], *b[8], *c[8];
    uint32_t *d[8];
    const int32_t *row = op->list;
    for (int i = 0; i < n_cd; i++)
        d[i] = emu_dst(w, *row++);
    for (int i = 0; i < n_a; i++)
        a[i] = emu_src(w, *row++);
    for (int i = 0; i < n_b; i++)
        b[i] = emu_src(w, *row++);
    for (int i = 0; i < n_cd; i++)
        c[i] = emu_src(w, *row++);
    emu_mma(m, (emu_mma_sum)w->worker->launch->mma_sum, a, b, c, d);
    if (w->counting) {
        w->worker->counters.mma_ops++;
        w->worker->counters.mma_macs += 16u * 8u * m->k;
    }
    return EMU_NEXT;
}

static emu_next movmatrix(emu_warp *w, const emu_op *op, uint32_t mask) {
    emu_next met = whole(w, op, mask);
    if (met == EMU_NEXT)
        emu_movmatrix(emu_src(w, op->a), emu_dst(w, op->d));
    return met;
}

/* ldmatrix and stmatrix: addresses of 16-byte rows from the first 8 op->n lanes. */
static emu_next matrix_rows(emu_warp *w, const emu_op *op, uint32_t mask, bool store,
                            uint8_t *rows[32]) {
    emu_next met = whole(w, op, mask);
    if (met != EMU_NEXT)
        return met;
    uint32_t lanes = op->n == 4 ? EMU_FULL : (1u << (8 * op->n)) - 1, at[32] = {0};
    const emu_block *block = w->block;
    for (int i = 0; i < 32; i++) {
        if (!(lanes >> i & 1))
            continue;
        uint64_t address = op->wide_address ? emu_src64(w, op->a)[i] : emu_src(w, op->a)[i];
        address += op->imm;
        if (op->space == EMU_SPACE_GENERIC)
            address -= EMU_SHARED_WINDOW;
        if (address > block->shared_bytes || block->shared_bytes - address < 16)
            return emu_fault(w, op, i,
                             "a matrix row of 16 bytes at shared address 0x%llx, out of "
                             "bounds: the block has %u bytes of shared memory",
                             (unsigned long long)address, block->shared_bytes);
        if (address % 16)
            return emu_fault(w, op, i,
                             "a matrix row at shared address 0x%llx, which is no multiple "
                             "of 16",
                             (unsigned long long)address);
        at[i] = (uint32_t)address;
        rows[i] = block->shared + address;
    }
    emu_shadow_report report;
    if (w->worker->shadow &&
        !emu_shadow_access(w->worker->shadow, store ? EMU_ACCESS_WRITE : EMU_ACCESS_READ, w->index,
                           lanes, at, 16, &report)) {
        char text[256];
        emu_shadow_message(&report, text, sizeof text);
        return emu_fault(w, op, report.thread / 32 == w->index ? (int)(report.thread % 32) : -1,
                         "%s", text);
    }
    if (w->counting)
        emu_count_shared(w, at, lanes, 16);
    return EMU_NEXT;
}

static emu_next ldmatrix(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint8_t *rows[32] = {0};
    emu_next next = matrix_rows(w, op, mask, false, rows);
    if (next != EMU_NEXT)
        return next;
    uint32_t *d[4];
    for (int i = 0; i < op->n; i++)
        d[i] = emu_dst(w, op->list[i]);
    emu_ldmatrix(op->n, op->sub, (const uint8_t *const *)rows, d);
    return EMU_NEXT;
}

static emu_next stmatrix(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint8_t *rows[32] = {0};
    emu_next next = matrix_rows(w, op, mask, true, rows);
    if (next != EMU_NEXT)
        return next;
    const uint32_t *s[4];
    for (int i = 0; i < op->n; i++)
        s[i] = emu_src(w, op->list[i]);
    emu_stmatrix(op->n, op->sub, s, rows);
    return EMU_NEXT;
}

const emu_handler emu_warp_handlers[] = {
    {"shfl", shfl},           {"vote", vote},         {"match", match},
    {"redux", redux},         {"elect", elect},       {"activemask", activemask},
    {"warp.sync", warp_sync}, {"mma", mma},           {"movmatrix", movmatrix},
    {"ldmatrix", ldmatrix},   {"stmatrix", stmatrix}, {NULL, NULL},
};

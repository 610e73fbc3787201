/* Moves: registers, vectors packed and unpacked, special registers, addresses between spaces. */
#include "runtime/emulator/exec_state.h"

#include "runtime/emulator/special.h"

EMU_CLONES static emu_next mov_b32(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *a = emu_src(w, op->a);
    uint32_t *d = emu_dst(w, op->d);
    if (mask == EMU_FULL)
        memmove(d, a, 32 * sizeof *d);
    else
        emu_blend(d, a, mask);
    return EMU_NEXT;
}
EMU_CLONES static emu_next mov_b64(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint64_t *a = emu_src64(w, op->a);
    uint64_t *d = emu_dst64(w, op->d);
    if (mask == EMU_FULL)
        memmove(d, a, 32 * sizeof *d);
    else
        emu_blend64(d, a, mask);
    return EMU_NEXT;
}

/* Pieces of op->size bits, op->n of them, from a or to d, a register of op->width bits. The pieces
 * are in op->list; 8 bits are in 16-bit registers. */
EMU_CLONES static emu_next unpack(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint64_t whole[32];
    if (op->width == 64)
        memcpy(whole, emu_src64(w, op->a), sizeof whole);
    else
        for (int i = 0; i < 32; i++)
            whole[i] = emu_src(w, op->a)[i];
    uint32_t keep = op->size >= 32 ? EMU_FULL : (1u << op->size) - 1;
    for (int k = 0; k < op->n; k++) {
        uint32_t *d = emu_dst(w, op->list[k]), shift = (uint32_t)(k * op->size);
        EMU_LANES
        for (int i = 0; i < 32; i++) {
            uint32_t v = (uint32_t)(whole[i] >> shift) & keep;
            d[i] = mask >> i & 1 ? v : d[i];
        }
    }
    return EMU_NEXT;
}
EMU_CLONES static emu_next pack(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint64_t whole[32] = {0};
    uint32_t keep = op->size >= 32 ? EMU_FULL : (1u << op->size) - 1;
    for (int k = 0; k < op->n; k++) {
        const uint32_t *a = emu_src(w, op->list[k]);
        int shift = k * op->size;
        for (int i = 0; i < 32; i++)
            whole[i] |= (uint64_t)(a[i] & keep) << shift;
    }
    if (op->width == 64) {
        emu_blend64(emu_dst64(w, op->d), whole, mask);
    } else {
        uint32_t v[32];
        for (int i = 0; i < 32; i++)
            v[i] = (uint32_t)whole[i];
        emu_blend(emu_dst(w, op->d), v, mask);
    }
    return EMU_NEXT;
}
/* The commonest: two halves. */
EMU_CLONES static emu_next unpack_2x16(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t *low = emu_dst(w, op->list[0]), *high = emu_dst(w, op->list[1]);
    uint32_t a[32];
    memcpy(a, emu_src(w, op->a), sizeof a); /* which may be one of the halves' rows */
    EMU_LANES
    for (int i = 0; i < 32; i++)
        low[i] = mask >> i & 1 ? a[i] & 0xffff : low[i];
    EMU_LANES
    for (int i = 0; i < 32; i++)
        high[i] = mask >> i & 1 ? a[i] >> 16 : high[i];
    return EMU_NEXT;
}
EMU_CLONES static emu_next pack_2x16(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *low = emu_src(w, op->list[0]), *high = emu_src(w, op->list[1]);
    uint32_t *d = emu_dst(w, op->d);
    EMU_LANES
    for (int i = 0; i < 32; i++) {
        uint32_t v = (low[i] & 0xffff) | high[i] << 16;
        d[i] = mask >> i & 1 ? v : d[i];
    }
    return EMU_NEXT;
}

static uint64_t special_value(const emu_warp *w, const emu_op *op, int lane) {
    const emu_launch *launch = w->worker->launch;
    const emu_block *block = w->block;
    switch ((emu_special)op->sub) {
    case EMU_TID:
        return w->tid[op->n][lane];
    case EMU_NTID:
        return launch->block[op->n];
    case EMU_CTAID:
        return block->id[op->n];
    case EMU_NCTAID:
        return launch->grid[op->n];
    case EMU_LANEID:
        return (uint64_t)lane;
    case EMU_WARPID:
        return w->index;
    case EMU_NWARPID:
        return block->n_warps;
    case EMU_SMID:
    case EMU_GRIDID:
        return 0;
    case EMU_NSMID:
        return 1;
    case EMU_LANEMASK_EQ:
        return 1u << lane;
    case EMU_LANEMASK_LT:
        return (1u << lane) - 1;
    case EMU_LANEMASK_LE:
        return (2u << lane) - 1;
    case EMU_LANEMASK_GT:
        return ~((2u << lane) - 1);
    case EMU_LANEMASK_GE:
        return ~((1u << lane) - 1);
    case EMU_CLOCK: /* a warp's instructions are its clock */
        return w->executed;
    case EMU_CLOCK_HI:
        return w->executed >> 32;
    case EMU_DYNAMIC_SHARED:
        return launch->shared_bytes;
    case EMU_TOTAL_SHARED:
        return block->shared_bytes;
    case EMU_ZERO:
        return 0;
    case EMU_ONE:
        return 1;
    }
    return 0;
}
static emu_next special(emu_warp *w, const emu_op *op, uint32_t mask) {
    if (op->sub == EMU_TID && op->width <= 32) {
        emu_blend(emu_dst(w, op->d), w->tid[op->n], mask);
        return EMU_NEXT;
    }
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        uint64_t v = special_value(w, op, i);
        if (op->width == 64)
            emu_dst64(w, op->d)[i] = v;
        else
            emu_dst(w, op->d)[i] = op->width == 16 ? (uint16_t)v : (uint32_t)v;
    }
    return EMU_NEXT;
}

/* cvta, both ways: an offset added; op->imm. 32-bit shared addresses are taken and given as they
 * are. */
static emu_next cvta(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint64_t *a = emu_src64(w, op->a);
    uint64_t v[32];
    for (int i = 0; i < 32; i++)
        v[i] = a[i] + op->imm;
    emu_blend64(emu_dst64(w, op->d), v, mask);
    return EMU_NEXT;
}

/* isspacep: whether a generic address is in a space. */
static emu_next isspacep(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint64_t *a = emu_src64(w, op->a);
    uint32_t m = 0;
    for (int i = 0; i < 32; i++) {
        emu_space space = EMU_SPACE_GLOBAL;
        if (a[i] - EMU_SHARED_WINDOW < EMU_WINDOW_BYTES)
            space = EMU_SPACE_SHARED;
        else if (a[i] - EMU_LOCAL_WINDOW < EMU_WINDOW_BYTES)
            space = EMU_SPACE_LOCAL;
        else if (a[i] - EMU_PARAM_WINDOW < EMU_WINDOW_BYTES)
            space = EMU_SPACE_PARAM;
        m |= space == op->space ? 1u << i : 0;
    }
    emu_set_pred(w, op->d, m, mask);
    return EMU_NEXT;
}

/* ld.param of a place known when decoding: the same in all lanes. */
static emu_next ld_param(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint8_t *from = w->worker->run->params + op->imm;
    for (int k = 0; k < op->n; k++, from += op->size) {
        uint64_t v = 0;
        memcpy(&v, from, op->size);
        uint32_t bits = 8u * op->size;
        if (op->sign && bits < 64 && v >> (bits - 1) & 1)
            v |= UINT64_MAX << bits;
        if (op->width == 64) {
            uint64_t *d = emu_dst64(w, op->list[k]);
            for (int i = 0; i < 32; i++)
                d[i] = mask >> i & 1 ? v : d[i];
        } else {
            uint32_t *d = emu_dst(w, op->list[k]);
            uint32_t value = op->width == 16 ? (uint16_t)v : (uint32_t)v;
            for (int i = 0; i < 32; i++)
                d[i] = mask >> i & 1 ? value : d[i];
        }
    }
    return EMU_NEXT;
}

const emu_handler emu_move_handlers[] = {
    {"mov.b32", mov_b32},         {"mov.b64", mov_b64},     {"unpack", unpack},   {"pack", pack},
    {"unpack.2x16", unpack_2x16}, {"pack.2x16", pack_2x16}, {"special", special}, {"cvta", cvta},
    {"isspacep", isspacep},       {"ld.param", ld_param},   {NULL, NULL},
};

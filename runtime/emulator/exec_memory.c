/* Loads and stores. */
#include "runtime/emulator/exec_access.h"

/* Bytes of each lane into a table [lane][bytes]; of whole warps side by side at once. */
static void collect(const emu_access_at *access, uint32_t mask, uint32_t bytes, uint8_t *table) {
    if (access->contiguous && !access->scattered) {
        memcpy(table, emu_access_host(access, 0), 32 * (size_t)bytes);
        return;
    }
    for (uint32_t left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        memcpy(table + (uint32_t)i * bytes, emu_access_host(access, i), bytes);
    }
}

/* The element k of each lane from a table of words or narrower elements, as the register holds it.
 */
EMU_INLINE uint64_t widen(uint64_t v, uint32_t size, bool sign, uint32_t width) {
    if (size < 8 && sign && v >> (8 * size - 1) & 1)
        v |= UINT64_MAX << (8 * size);
    return width == 16 ? (uint16_t)v : v;
}

EMU_CLONES static void spread32(uint32_t *d, const uint8_t *table, uint32_t stride, uint32_t mask) {
    uint32_t t[32];
    if (stride == 4) {
        memcpy(t, table, sizeof t);
    } else if (stride == 16) {
        for (int i = 0; i < 32; i++)
            memcpy(&t[i], table + 16 * i, 4);
    } else {
        for (int i = 0; i < 32; i++)
            memcpy(&t[i], table + stride * (uint32_t)i, 4);
    }
    if (mask == EMU_FULL)
        memcpy(d, t, sizeof t);
    else
        emu_blend(d, t, mask);
}

static void spread(emu_warp *w, const emu_op *op, int32_t row, const uint8_t *table,
                   uint32_t stride, uint32_t mask) {
    if (op->size == 4 && op->width <= 32) {
        spread32(emu_dst(w, row), table, stride, mask);
        return;
    }
    for (uint32_t left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        const uint8_t *from = table + stride * (uint32_t)i;
        uint64_t v;
        if (op->size == 8) {
            memcpy(&v, from, 8);
        } else if (op->size == 4) {
            uint32_t x;
            memcpy(&x, from, 4);
            v = widen(x, 4, op->sign, op->width);
        } else if (op->size == 2) {
            uint16_t x;
            memcpy(&x, from, 2);
            v = widen(x, 2, op->sign, op->width);
        } else {
            v = widen(*from, 1, op->sign, op->width);
        }
        if (op->width == 64)
            emu_dst64(w, row)[i] = v;
        else
            emu_dst(w, row)[i] = (uint32_t)v;
    }
}

static emu_next load(emu_warp *w, const emu_op *op, uint32_t mask) {
    emu_access_at access;
    uint32_t bytes = (uint32_t)op->size * op->n;
    emu_access kind = op->order == EMU_ORDER_WEAK ? EMU_ACCESS_READ : EMU_ACCESS_STRONG_READ;
    if (emu_access_resolve(w, op, mask, bytes, kind, &access) != EMU_NEXT)
        return EMU_FAULT;
    _Alignas(64) uint8_t table[32 * 64];
    collect(&access, mask, bytes, table);
    for (int k = 0; k < op->n; k++)
        spread(w, op, op->list[k], table + k * op->size, bytes, mask);
    if (kind == EMU_ACCESS_STRONG_READ)
        emu_access_acquire(w, op, mask, &access);
    return EMU_NEXT;
}

static void gather(emu_warp *w, const emu_op *op, int32_t row, uint8_t *table, uint32_t stride) {
    if (op->width == 64) {
        const uint64_t *s = emu_src64(w, row);
        for (uint32_t i = 0; i < 32; i++)
            memcpy(table + stride * i, &s[i], op->size);
    } else if (op->size == 4) {
        const uint32_t *s = emu_src(w, row);
        for (uint32_t i = 0; i < 32; i++)
            memcpy(table + stride * i, &s[i], 4);
    } else if (op->size == 2) {
        const uint32_t *s = emu_src(w, row);
        for (uint32_t i = 0; i < 32; i++)
            memcpy(table + stride * i, &s[i], 2);
    } else {
        const uint32_t *s = emu_src(w, row);
        for (uint32_t i = 0; i < 32; i++)
            table[stride * i] = (uint8_t)s[i];
    }
}

static emu_next store(emu_warp *w, const emu_op *op, uint32_t mask) {
    emu_access_at access;
    uint32_t bytes = (uint32_t)op->size * op->n;
    emu_access kind = op->order == EMU_ORDER_WEAK ? EMU_ACCESS_WRITE : EMU_ACCESS_STRONG_WRITE;
    if (emu_access_resolve(w, op, mask, bytes, kind, &access) != EMU_NEXT)
        return EMU_FAULT;
    _Alignas(64) uint8_t table[32 * 64];
    for (int k = 0; k < op->n; k++)
        gather(w, op, op->list[k], table + k * op->size, bytes);
    if (access.contiguous && !access.scattered) {
        memcpy(emu_access_host(&access, 0), table, 32 * (size_t)bytes);
        return EMU_NEXT;
    }
    for (uint32_t left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        memcpy(emu_access_host(&access, i), table + (uint32_t)i * bytes, bytes);
    }
    return EMU_NEXT;
}

/* Generic addresses: lanes of one space at a time. */
static emu_next generic(emu_warp *w, const emu_op *op, uint32_t mask, emu_run_fn run) {
    while (mask) {
        emu_space space;
        uint32_t lanes = emu_generic_lanes(w, op, mask, &space);
        if (run(w, op, lanes) != EMU_NEXT)
            return EMU_FAULT;
        mask &= ~lanes;
    }
    return EMU_NEXT;
}
static emu_next load_generic(emu_warp *w, const emu_op *op, uint32_t mask) {
    return generic(w, op, mask, load);
}
static emu_next store_generic(emu_warp *w, const emu_op *op, uint32_t mask) {
    return generic(w, op, mask, store);
}

const emu_handler emu_memory_handlers[] = {
    {"ld", load}, {"st", store}, {"ld.generic", load_generic}, {"st.generic", store_generic},
    {NULL, NULL},
};

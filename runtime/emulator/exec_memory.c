/* Loads and stores. */
#include "runtime/emulator/exec_access.h"

/* Bytes of each lane into a table [lane][bytes]. Those of lanes that are not active come along
 * where that is harmless: their addresses are an active one's. */
EMU_CLONES static void collect_near(const uint8_t *base, uint64_t origin, const uint64_t at[32],
                                    uint32_t bytes, uint8_t *table) {
    switch (bytes) {
    case 1:
        for (int i = 0; i < 32; i++)
            table[i] = base[at[i] - origin];
        break;
    case 2:
        for (int i = 0; i < 32; i++)
            memcpy(table + 2 * i, base + (at[i] - origin), 2);
        break;
    case 4:
        for (int i = 0; i < 32; i++)
            memcpy(table + 4 * i, base + (at[i] - origin), 4);
        break;
    case 8:
        for (int i = 0; i < 32; i++)
            memcpy(table + 8 * i, base + (at[i] - origin), 8);
        break;
    case 16:
        for (int i = 0; i < 32; i++)
            memcpy(table + 16 * i, base + (at[i] - origin), 16);
        break;
    default:
        for (int i = 0; i < 32; i++)
            memcpy(table + (uint32_t)i * bytes, base + (at[i] - origin), bytes);
    }
}

static void collect(const emu_access_at *access, uint32_t mask, uint32_t bytes, uint8_t *table) {
    if (!access->scattered) {
        if (access->contiguous)
            memcpy(table, emu_access_host(access, 0), 32 * (size_t)bytes);
        else
            collect_near(access->base, access->origin, access->at, bytes, table);
        return;
    }
    for (uint32_t left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        memcpy(table + (uint32_t)i * bytes, access->host[i], bytes);
    }
}

/* The table's bytes to each lane's place, of two lanes at one the later lane's. */
static void distribute(const emu_access_at *access, uint32_t mask, uint32_t bytes,
                       const uint8_t *table) {
    if (access->contiguous && !access->scattered) {
        memcpy(emu_access_host(access, 0), table, 32 * (size_t)bytes);
        return;
    }
    for (uint32_t left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        uint8_t *to = emu_access_host(access, i);
        const uint8_t *from = table + (uint32_t)i * bytes;
        if (bytes == 4)
            memcpy(to, from, 4);
        else if (bytes == 16)
            memcpy(to, from, 16);
        else if (bytes == 2)
            memcpy(to, from, 2);
        else
            memcpy(to, from, bytes);
    }
}

/* Element k of each lane from the table into a row. */
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

/* Elements of 1 and 2 bytes, and those that fill 64-bit registers. */
EMU_CLONES static void spread_other(emu_warp *w, const emu_op *op, int32_t row,
                                    const uint8_t *table, uint32_t stride, uint32_t mask) {
    uint64_t v[32];
    if (op->size == 8)
        for (uint32_t i = 0; i < 32; i++)
            memcpy(&v[i], table + stride * i, 8);
    else if (op->size == 4)
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t x;
            memcpy(&x, table + stride * i, 4);
            v[i] = op->sign ? (uint64_t)(int32_t)x : x;
        }
    else if (op->size == 2)
        for (uint32_t i = 0; i < 32; i++) {
            uint16_t x;
            memcpy(&x, table + stride * i, 2);
            v[i] = op->sign ? (uint64_t)(int16_t)x : x;
        }
    else
        for (uint32_t i = 0; i < 32; i++) {
            uint8_t x = table[stride * i];
            v[i] = op->sign ? (uint64_t)(int8_t)x : x;
        }
    if (op->width == 64) {
        emu_blend64(emu_dst64(w, row), v, mask);
        return;
    }
    uint32_t narrow[32], keep = op->width == 16 ? 0xffff : UINT32_MAX;
    for (int i = 0; i < 32; i++)
        narrow[i] = (uint32_t)v[i] & keep;
    emu_blend(emu_dst(w, row), narrow, mask);
}

static void spread(emu_warp *w, const emu_op *op, int32_t row, const uint8_t *table,
                   uint32_t stride, uint32_t mask) {
    if (op->size == 4 && op->width <= 32)
        spread32(emu_dst(w, row), table, stride, mask);
    else
        spread_other(w, op, row, table, stride, mask);
}

static emu_next load(emu_warp *w, const emu_op *op, uint32_t mask) {
    emu_access_at access;
    uint32_t bytes = (uint32_t)op->size * op->n;
    emu_access kind = op->order == EMU_ORDER_WEAK ? EMU_ACCESS_READ : EMU_ACCESS_STRONG_READ;
    if (emu_access_resolve(w, op, mask, bytes, kind, &access) != EMU_NEXT)
        return EMU_FAULT;
    _Alignas(64) uint8_t table[32 * 64];
    if (bytes == 4 && op->width <= 32 && op->n == 1 && access.contiguous && !access.scattered) {
        memcpy(emu_dst(w, op->list[0]), emu_access_host(&access, 0), 128);
        if (kind == EMU_ACCESS_STRONG_READ)
            emu_access_acquire(w, op, mask, &access);
        return EMU_NEXT;
    }
    collect(&access, mask, bytes, table);
    for (int k = 0; k < op->n; k++)
        spread(w, op, op->list[k], table + k * op->size, bytes, mask);
    if (kind == EMU_ACCESS_STRONG_READ)
        emu_access_acquire(w, op, mask, &access);
    return EMU_NEXT;
}

EMU_CLONES static void gather(emu_warp *w, const emu_op *op, int32_t row, uint8_t *table,
                              uint32_t stride) {
    if (op->width == 64) {
        const uint64_t *s = emu_src64(w, row);
        if (op->size == 8)
            for (uint32_t i = 0; i < 32; i++)
                memcpy(table + stride * i, &s[i], 8);
        else
            for (uint32_t i = 0; i < 32; i++)
                memcpy(table + stride * i, &s[i], op->size);
        return;
    }
    const uint32_t *s = emu_src(w, row);
    if (op->size == 4)
        for (uint32_t i = 0; i < 32; i++)
            memcpy(table + stride * i, &s[i], 4);
    else if (op->size == 2)
        for (uint32_t i = 0; i < 32; i++)
            memcpy(table + stride * i, &s[i], 2);
    else
        for (uint32_t i = 0; i < 32; i++)
            table[stride * i] = (uint8_t)s[i];
}

static emu_next store(emu_warp *w, const emu_op *op, uint32_t mask) {
    emu_access_at access;
    uint32_t bytes = (uint32_t)op->size * op->n;
    emu_access kind = op->order == EMU_ORDER_WEAK ? EMU_ACCESS_WRITE : EMU_ACCESS_STRONG_WRITE;
    if (emu_access_resolve(w, op, mask, bytes, kind, &access) != EMU_NEXT)
        return EMU_FAULT;
    if (bytes == 4 && op->width <= 32 && op->n == 1 && !access.scattered) {
        distribute(&access, mask, 4, (const uint8_t *)emu_src(w, op->list[0]));
        return EMU_NEXT;
    }
    _Alignas(64) uint8_t table[32 * 64];
    for (int k = 0; k < op->n; k++)
        gather(w, op, op->list[k], table + k * op->size, bytes);
    distribute(&access, mask, bytes, table);
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

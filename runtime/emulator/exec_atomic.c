/* atom and red: one lane after the other, each atomically among the host's threads. */
#include "runtime/emulator/atomic.h"
#include "runtime/emulator/exec_access.h"

/* The value that replaces `old`. */
static uint64_t combine(const emu_op *op, uint64_t old, uint64_t x, uint64_t y) {
    uint32_t row_a[32] = {0}, row_b[32] = {0}, row_d[32];
    uint32_t bits = 8u * op->size;
    int64_t so = (int64_t)(old << (64 - bits)) >> (64 - bits);
    int64_t sx = (int64_t)(x << (64 - bits)) >> (64 - bits);
    bool sign = op->flags == EMU_ATOMIC_SIGNED;
    row_a[0] = (uint32_t)old;
    row_b[0] = (uint32_t)x;
    switch ((emu_atomic)op->sub) {
    case EMU_ATOMIC_ADD:
        switch ((emu_atomic_type)op->flags) {
        case EMU_ATOMIC_F32:
            emu_f32_add(row_a, row_b, row_d, EMU_RN, op->space == EMU_SPACE_SHARED ? 0 : EMU_FTZ);
            return row_d[0];
        case EMU_ATOMIC_F64:
            return emu_bits_of_double(emu_double_of(old) + emu_double_of(x));
        case EMU_ATOMIC_F16X2:
            emu_f16x2_add(row_a, row_b, row_d, 0);
            return row_d[0];
        case EMU_ATOMIC_BF16X2:
            emu_bf16x2_add(row_a, row_b, row_d, 0);
            return row_d[0];
        default:
            return old + x;
        }
    case EMU_ATOMIC_MIN:
        return (sign ? sx < so : x < old) ? x : old;
    case EMU_ATOMIC_MAX:
        return (sign ? sx > so : x > old) ? x : old;
    case EMU_ATOMIC_AND:
        return old & x;
    case EMU_ATOMIC_OR:
        return old | x;
    case EMU_ATOMIC_XOR:
        return old ^ x;
    case EMU_ATOMIC_EXCH:
        return x;
    case EMU_ATOMIC_CAS:
        return old == x ? y : old;
    case EMU_ATOMIC_INC:
        return old >= x ? 0 : old + 1;
    case EMU_ATOMIC_DEC:
        return old == 0 || old > x ? x : old - 1;
    }
    return old;
}

#define EXCHANGE(TYPE)                                                                             \
    do {                                                                                           \
        TYPE *p = (TYPE *)(void *)host, expected = __atomic_load_n(p, __ATOMIC_SEQ_CST);           \
        while (!__atomic_compare_exchange_n(p, &expected, (TYPE)combine(op, expected, x, y),       \
                                            false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))            \
            ;                                                                                      \
        return expected;                                                                           \
    } while (0)
static uint64_t exchange(const emu_op *op, uint8_t *host, uint64_t x, uint64_t y) {
    if (op->size == 8)
        EXCHANGE(uint64_t);
    if (op->size == 4)
        EXCHANGE(uint32_t);
    EXCHANGE(uint16_t);
}

static uint64_t value_of(const emu_warp *w, const emu_op *op, int32_t row, int lane) {
    uint64_t v = op->width == 64 ? emu_src64(w, row)[lane] : emu_src(w, row)[lane];
    return op->size == 2 ? v & 0xffff : v;
}

/* atom d, [a], b{, c}; red has no d: -1. Vectors: list has n values, then n results. */
static emu_next atom(emu_warp *w, const emu_op *op, uint32_t mask) {
    emu_access_at access;
    uint32_t bytes = (uint32_t)op->size * op->n;
    if (emu_access_resolve(w, op, mask, bytes, EMU_ACCESS_ATOMIC, &access) != EMU_NEXT)
        return EMU_FAULT;
    for (uint32_t left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        uint8_t *host = emu_access_host(&access, i);
        for (int k = 0; k < op->n; k++) {
            uint64_t y = op->sub == EMU_ATOMIC_CAS ? value_of(w, op, op->c, i) : 0;
            uint64_t old = exchange(op, host + k * op->size, value_of(w, op, op->list[k], i), y);
            int32_t d = op->list[op->n + k];
            if (d == -1)
                continue;
            if (op->width == 64)
                emu_dst64(w, d)[i] = old;
            else
                emu_dst(w, d)[i] = (uint32_t)old;
        }
    }
    emu_access_acquire(w, op, mask, &access);
    if (w->counting)
        w->worker->counters.atomics++;
    return EMU_NEXT;
}
static emu_next atom_generic(emu_warp *w, const emu_op *op, uint32_t mask) {
    while (mask) {
        emu_space space;
        uint32_t lanes = emu_generic_lanes(w, op, mask, &space);
        if (atom(w, op, lanes) != EMU_NEXT)
            return EMU_FAULT;
        mask &= ~lanes;
    }
    return EMU_NEXT;
}

const emu_handler emu_atomic_handlers[] = {
    {"atom", atom}, {"atom.generic", atom_generic}, {NULL, NULL}};

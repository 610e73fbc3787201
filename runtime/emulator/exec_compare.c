/* Comparisons, selections and predicates. */
#include "runtime/emulator/exec_state.h"

#include "runtime/emulator/compare.h"

/* A bit for each lane where EXPR of x and y holds. */
#define BITS(EXPR)                                                                                 \
    do {                                                                                           \
        EMU_LANES for (int i = 0; i < 32; i++) {                                                   \
            LOAD;                                                                                  \
            m |= (EXPR) ? 1u << i : 0;                                                             \
        }                                                                                          \
    } while (0)

#define INTEGER_COMPARE(NAME, TYPE, ROW)                                                           \
    EMU_CLONES static uint32_t NAME(const void *pa, const void *pb, emu_compare how) {             \
        const ROW *a = pa, *b = pb;                                                                \
        uint32_t m = 0;                                                                            \
        switch (how) {                                                                             \
        case EMU_EQ:                                                                               \
            BITS(x == y);                                                                          \
            break;                                                                                 \
        case EMU_NE:                                                                               \
            BITS(x != y);                                                                          \
            break;                                                                                 \
        case EMU_LT:                                                                               \
            BITS(x < y);                                                                           \
            break;                                                                                 \
        case EMU_LE:                                                                               \
            BITS(x <= y);                                                                          \
            break;                                                                                 \
        case EMU_GT:                                                                               \
            BITS(x > y);                                                                           \
            break;                                                                                 \
        default:                                                                                   \
            BITS(x >= y);                                                                          \
        }                                                                                          \
        return m;                                                                                  \
    }
#define LOAD TYPE_OF x = (TYPE_OF)a[i], y = (TYPE_OF)b[i]
#define TYPE_OF int16_t
INTEGER_COMPARE(compare_s16, int16_t, uint32_t)
#undef TYPE_OF
#define TYPE_OF uint16_t
INTEGER_COMPARE(compare_u16, uint16_t, uint32_t)
#undef TYPE_OF
#define TYPE_OF int32_t
INTEGER_COMPARE(compare_s32, int32_t, uint32_t)
#undef TYPE_OF
#define TYPE_OF uint32_t
INTEGER_COMPARE(compare_u32, uint32_t, uint32_t)
#undef TYPE_OF
#define TYPE_OF int64_t
INTEGER_COMPARE(compare_s64, int64_t, uint64_t)
#undef TYPE_OF
#define TYPE_OF uint64_t
INTEGER_COMPARE(compare_u64, uint64_t, uint64_t)
#undef TYPE_OF
#undef LOAD

/* Ordered comparisons are false where an operand is NaN, those with U true. */
#define FLOAT_COMPARE(NAME, ROW)                                                                   \
    EMU_CLONES static uint32_t NAME(const ROW *a, const ROW *b, emu_compare how, bool ftz) {       \
        uint32_t m = 0, nan = 0;                                                                   \
        (void)ftz;                                                                                 \
        EMU_LANES for (int i = 0; i < 32; i++) {                                                   \
            LOAD;                                                                                  \
            nan |= x != x || y != y ? 1u << i : 0;                                                 \
        }                                                                                          \
        switch (how) {                                                                             \
        case EMU_EQ:                                                                               \
        case EMU_EQU:                                                                              \
        case EMU_NE:                                                                               \
        case EMU_NEU:                                                                              \
            BITS(x == y);                                                                          \
            break;                                                                                 \
        case EMU_LT:                                                                               \
        case EMU_LTU:                                                                              \
            BITS(x < y);                                                                           \
            break;                                                                                 \
        case EMU_LE:                                                                               \
        case EMU_LEU:                                                                              \
            BITS(x <= y);                                                                          \
            break;                                                                                 \
        case EMU_GT:                                                                               \
        case EMU_GTU:                                                                              \
            BITS(x > y);                                                                           \
            break;                                                                                 \
        case EMU_GE:                                                                               \
        case EMU_GEU:                                                                              \
            BITS(x >= y);                                                                          \
            break;                                                                                 \
        case EMU_NUM:                                                                              \
            return ~nan;                                                                           \
        default:                                                                                   \
            return nan;                                                                            \
        }                                                                                          \
        if (how == EMU_NE)                                                                         \
            return ~m & ~nan;                                                                      \
        if (how == EMU_NEU)                                                                        \
            return ~m;                                                                             \
        return how >= EMU_EQU ? m | nan : m;                                                       \
    }
EMU_INLINE float operand32(uint32_t bits, bool ftz) {
    return emu_float_of(ftz && !(bits & 0x7f800000) ? bits & 0x80000000 : bits);
}
#define LOAD float x = operand32(a[i], ftz), y = operand32(b[i], ftz)
FLOAT_COMPARE(compare_f32, uint32_t)
#undef LOAD
#define LOAD double x = emu_double_of(a[i]), y = emu_double_of(b[i])
FLOAT_COMPARE(compare_f64, uint64_t)
#undef LOAD

/* Values of 16-bit operands as f32: of the low or the high half. */
static void halves(const uint32_t *a, bool bf16, bool high, bool ftz, uint32_t out[32]) {
    for (int i = 0; i < 32; i++) {
        uint32_t h = high ? a[i] >> 16 : a[i] & 0xffff;
        if (ftz && !bf16 && !(h & 0x7c00))
            h &= 0x8000;
        out[i] = emu_bits_of(bf16 ? emu_bf16_to_float(h) : emu_f16_to_float(h));
    }
}

/* Compares a and b of type op->size (emu_compared); `high`: the upper halves of pairs. */
static uint32_t compare(const emu_warp *w, const emu_op *op, bool high) {
    const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b);
    emu_compare how = (emu_compare)op->sub;
    bool ftz = op->flags & EMU_FTZ;
    uint32_t x[32], y[32];
    switch ((emu_compared)op->size) {
    case EMU_COMPARED_S16:
        return compare_s16(a, b, how);
    case EMU_COMPARED_U16:
        return compare_u16(a, b, how);
    case EMU_COMPARED_S32:
        return compare_s32(a, b, how);
    case EMU_COMPARED_U32:
        return compare_u32(a, b, how);
    case EMU_COMPARED_S64:
        return compare_s64(a, b, how);
    case EMU_COMPARED_U64:
        return compare_u64(a, b, how);
    case EMU_COMPARED_F32:
        return compare_f32(a, b, how, ftz);
    case EMU_COMPARED_F64:
        return compare_f64(emu_src64(w, op->a), emu_src64(w, op->b), how, ftz);
    default:
        halves(a, op->size == EMU_COMPARED_BF16, high, ftz, x);
        halves(b, op->size == EMU_COMPARED_BF16, high, ftz, y);
        return compare_f32(x, y, how, false);
    }
}

/* The comparison's result combined with predicate c: op->round 0 no, 1 and, 2 or, 3 xor. */
static uint32_t combine(const emu_warp *w, const emu_op *op, uint32_t m) {
    if (!op->round)
        return m;
    uint32_t p = emu_pred(w, op->c, op->flip & 4);
    return op->round == 1 ? m & p : op->round == 2 ? m | p : m ^ p;
}

/* setp d|list[0]: the second gets the comparison's opposite. Pairs: the second is the upper half's.
 */
static emu_next setp(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t m = compare(w, op, false);
    uint32_t second = 0;
    if (op->n == 2)
        second = combine(w, op, op->width == 2 ? compare(w, op, true) : ~m);
    m = combine(w, op, m);
    emu_set_pred(w, op->d, m, mask);
    if (op->n == 2)
        emu_set_pred(w, op->list[0], second, mask);
    return EMU_NEXT;
}

/* set: 1.0, or all ones, where it holds; op->imm is that value, of pairs each half's. */
static emu_next set(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t v[32], yes = (uint32_t)op->imm;
    uint32_t low = combine(w, op, compare(w, op, false));
    uint32_t high = op->width == 2 ? combine(w, op, compare(w, op, true)) : 0;
    for (int i = 0; i < 32; i++) {
        v[i] = low >> i & 1 ? yes : 0;
        if (op->width == 2)
            v[i] |= high >> i & 1 ? yes << 16 : 0;
    }
    emu_blend(emu_dst(w, op->d), v, mask);
    return EMU_NEXT;
}

EMU_CLONES static emu_next selp_b32(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b);
    uint32_t *d = emu_dst(w, op->d), p = emu_pred(w, op->c, op->flip & 4);
    EMU_LANES
    for (int i = 0; i < 32; i++) {
        uint32_t v = p >> i & 1 ? a[i] : b[i];
        d[i] = mask >> i & 1 ? v : d[i];
    }
    return EMU_NEXT;
}
EMU_CLONES static emu_next selp_b64(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint64_t *a = emu_src64(w, op->a), *b = emu_src64(w, op->b);
    uint64_t *d = emu_dst64(w, op->d);
    uint32_t p = emu_pred(w, op->c, op->flip & 4);
    EMU_LANES
    for (int i = 0; i < 32; i++) {
        uint64_t v = p >> i & 1 ? a[i] : b[i];
        d[i] = mask >> i & 1 ? v : d[i];
    }
    return EMU_NEXT;
}
/* slct: a where c >= 0 (s32, or f32 with sub), else b. */
static emu_next slct(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *c = emu_src(w, op->c);
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        bool first = op->sub ? operand32(c[i], op->flags & EMU_FTZ) >= 0 : (int32_t)c[i] >= 0;
        int32_t from = first ? op->a : op->b;
        if (op->width == 64)
            emu_dst64(w, op->d)[i] = emu_src64(w, from)[i];
        else
            emu_dst(w, op->d)[i] = emu_src(w, from)[i];
    }
    return EMU_NEXT;
}

#define PREDICATES(NAME, EXPR)                                                                     \
    static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                           \
        uint32_t x = emu_pred(w, op->a, op->flip & 1);                                             \
        uint32_t y = op->b >= 0 ? emu_pred(w, op->b, op->flip & 2) : 0;                            \
        emu_set_pred(w, op->d, EXPR, mask);                                                        \
        return EMU_NEXT;                                                                           \
    }
PREDICATES(and_pred, x &y)
PREDICATES(or_pred, x | y)
PREDICATES(xor_pred, x ^ y)
PREDICATES(not_pred, ~x | (y & 0))
PREDICATES(mov_pred, x | (y & 0))
/* mov.pred of a constant: op->imm. */
static emu_next set_pred(emu_warp *w, const emu_op *op, uint32_t mask) {
    emu_set_pred(w, op->d, op->imm ? EMU_FULL : 0, mask);
    return EMU_NEXT;
}
/* testp: sub 0 finite, 1 infinite, 2 number, 3 notanumber, 4 normal, 5 subnormal. */
static emu_next testp(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t m = 0;
    for (int i = 0; i < 32; i++) {
        bool wide = op->width == 64;
        uint64_t x = wide ? emu_src64(w, op->a)[i] : emu_src(w, op->a)[i];
        int fraction_bits = wide ? 52 : 23;
        uint64_t top = wide ? 0x7ff : 0xff, exponent = x >> fraction_bits & top;
        uint64_t fraction = x & ((UINT64_C(1) << fraction_bits) - 1);
        bool nan = exponent == top && fraction;
        bool results[6] = {exponent != top,
                           exponent == top && !fraction,
                           !nan,
                           nan,
                           exponent != top && (exponent || !fraction), /* zeros are normal */
                           !exponent && fraction};
        m |= (uint32_t)results[op->sub] << i;
    }
    emu_set_pred(w, op->d, m, mask);
    return EMU_NEXT;
}

const emu_handler emu_compare_handlers[] = {
    {"setp", setp},         {"set", set},           {"selp.b32", selp_b32}, {"selp.b64", selp_b64},
    {"slct", slct},         {"and.pred", and_pred}, {"or.pred", or_pred},   {"xor.pred", xor_pred},
    {"not.pred", not_pred}, {"mov.pred", mov_pred}, {"set.pred", set_pred}, {"testp", testp},
    {NULL, NULL},
};

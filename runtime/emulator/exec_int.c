/* Integer instructions over 32 lanes: arithmetic and logic of 16, 32 and 64 bits. */
#include "runtime/emulator/exec_state.h"

__extension__ typedef __int128 s128;
__extension__ typedef unsigned __int128 u128;

/* NAME: d = EXPR of x (and y, z), values of TYPE; rows hold ROW. 16-bit results are cut. */
#define LANES1(NAME, TYPE, ROW, SRC, DST, EXPR)                                                    \
    EMU_CLONES static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                \
        const ROW *a = SRC(w, op->a);                                                              \
        ROW *d = DST(w, op->d);                                                                    \
        if (mask == EMU_FULL) {                                                                    \
            EMU_LANES for (int i = 0; i < 32; i++) {                                               \
                TYPE x = (TYPE)a[i];                                                               \
                d[i] = (ROW)(EXPR);                                                                \
            }                                                                                      \
        } else {                                                                                   \
            EMU_LANES for (int i = 0; i < 32; i++) {                                               \
                TYPE x = (TYPE)a[i];                                                               \
                ROW v = (ROW)(EXPR);                                                               \
                d[i] = mask >> i & 1 ? v : d[i];                                                   \
            }                                                                                      \
        }                                                                                          \
        return EMU_NEXT;                                                                           \
    }
#define LANES2(NAME, TYPE, ROW, SRC, DST, EXPR)                                                    \
    EMU_CLONES static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                \
        const ROW *a = SRC(w, op->a), *b = SRC(w, op->b);                                          \
        ROW *d = DST(w, op->d);                                                                    \
        if (mask == EMU_FULL) {                                                                    \
            EMU_LANES for (int i = 0; i < 32; i++) {                                               \
                TYPE x = (TYPE)a[i], y = (TYPE)b[i];                                               \
                d[i] = (ROW)(EXPR);                                                                \
            }                                                                                      \
        } else {                                                                                   \
            EMU_LANES for (int i = 0; i < 32; i++) {                                               \
                TYPE x = (TYPE)a[i], y = (TYPE)b[i];                                               \
                ROW v = (ROW)(EXPR);                                                               \
                d[i] = mask >> i & 1 ? v : d[i];                                                   \
            }                                                                                      \
        }                                                                                          \
        return EMU_NEXT;                                                                           \
    }
#define LANES3(NAME, TYPE, ROW, SRC, DST, EXPR)                                                    \
    EMU_CLONES static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                \
        const ROW *a = SRC(w, op->a), *b = SRC(w, op->b), *c = SRC(w, op->c);                      \
        ROW *d = DST(w, op->d);                                                                    \
        if (mask == EMU_FULL) {                                                                    \
            EMU_LANES for (int i = 0; i < 32; i++) {                                               \
                TYPE x = (TYPE)a[i], y = (TYPE)b[i], z = (TYPE)c[i];                               \
                d[i] = (ROW)(EXPR);                                                                \
            }                                                                                      \
        } else {                                                                                   \
            EMU_LANES for (int i = 0; i < 32; i++) {                                               \
                TYPE x = (TYPE)a[i], y = (TYPE)b[i], z = (TYPE)c[i];                               \
                ROW v = (ROW)(EXPR);                                                               \
                d[i] = mask >> i & 1 ? v : d[i];                                                   \
            }                                                                                      \
        }                                                                                          \
        return EMU_NEXT;                                                                           \
    }

/* Of the three widths; U casts to the unsigned type of the width, so that 16 bits are cut. */
#define UNARY(NAME, EXPR16, EXPR)                                                                  \
    LANES1(NAME##_b16, uint16_t, uint32_t, emu_src, emu_dst, (uint16_t)(EXPR16))                   \
    LANES1(NAME##_b32, uint32_t, uint32_t, emu_src, emu_dst, EXPR)                                 \
    LANES1(NAME##_b64, uint64_t, uint64_t, emu_src64, emu_dst64, EXPR)
#define BINARY(NAME, EXPR16, EXPR)                                                                 \
    LANES2(NAME##_b16, uint16_t, uint32_t, emu_src, emu_dst, (uint16_t)(EXPR16))                   \
    LANES2(NAME##_b32, uint32_t, uint32_t, emu_src, emu_dst, EXPR)                                 \
    LANES2(NAME##_b64, uint64_t, uint64_t, emu_src64, emu_dst64, EXPR)
/* Signed: 16-bit results stay zero-extended. */
#define BINARY_S(NAME, EXPR)                                                                       \
    LANES2(NAME##_s16, int16_t, uint32_t, emu_src, emu_dst, (uint16_t)(EXPR))                      \
    LANES2(NAME##_s32, int32_t, uint32_t, emu_src, emu_dst, EXPR)                                  \
    LANES2(NAME##_s64, int64_t, uint64_t, emu_src64, emu_dst64, EXPR)
#define BINARY_U(NAME, EXPR)                                                                       \
    LANES2(NAME##_u16, uint16_t, uint32_t, emu_src, emu_dst, (uint16_t)(EXPR))                     \
    LANES2(NAME##_u32, uint32_t, uint32_t, emu_src, emu_dst, EXPR)                                 \
    LANES2(NAME##_u64, uint64_t, uint64_t, emu_src64, emu_dst64, EXPR)

BINARY(add, x + y, x + y)
BINARY(sub, x - y, x - y)
BINARY(mul_lo, (uint32_t)x *y, x *y)
BINARY(and, x &y, x &y)
BINARY(or, x | y, x | y)
BINARY(xor, x ^ y, x ^ y)
UNARY(not, ~x, ~x)
UNARY(neg, 0 - x, 0 - x)
UNARY(cnot, x == 0, x == 0)
BINARY_S(min, x < y ? x : y)
BINARY_S(max, x > y ? x : y)
BINARY_U(min, x < y ? x : y)
BINARY_U(max, x > y ? x : y)
LANES1(abs_s16, int16_t, uint32_t, emu_src, emu_dst, (uint16_t)(x < 0 ? -x : x))
LANES1(abs_s32, uint32_t, uint32_t, emu_src, emu_dst, x >> 31 ? 0 - x : x)
LANES1(abs_s64, uint64_t, uint64_t, emu_src64, emu_dst64, x >> 63 ? 0 - x : x)

LANES2(mul_hi_s16, int16_t, uint32_t, emu_src, emu_dst, (uint16_t)(((int32_t)x * y) >> 16))
LANES2(mul_hi_u16, uint16_t, uint32_t, emu_src, emu_dst, ((uint32_t)x * y) >> 16)
LANES2(mul_hi_s32, int32_t, uint32_t, emu_src, emu_dst, ((int64_t)x * y) >> 32)
LANES2(mul_hi_u32, uint32_t, uint32_t, emu_src, emu_dst, ((uint64_t)x * y) >> 32)
LANES2(mul_hi_s64, int64_t, uint64_t, emu_src64, emu_dst64, ((s128)x * y) >> 64)
LANES2(mul_hi_u64, uint64_t, uint64_t, emu_src64, emu_dst64, ((u128)x * y) >> 64)
LANES2(mul_wide_s16, int16_t, uint32_t, emu_src, emu_dst, (int32_t)x *y)
LANES2(mul_wide_u16, uint16_t, uint32_t, emu_src, emu_dst, (uint32_t)x *y)
LANES2(mul24_lo_s32, int32_t, uint32_t, emu_src, emu_dst,
       ((int64_t)((int32_t)((uint32_t)x << 8) >> 8) * ((int32_t)((uint32_t)y << 8) >> 8)))
LANES2(mul24_lo_u32, uint32_t, uint32_t, emu_src, emu_dst, (x & 0xffffff) * (y & 0xffffff))

LANES3(mad_lo_b16, uint16_t, uint32_t, emu_src, emu_dst, (uint16_t)((uint32_t)x *y + z))
LANES3(mad_lo_b32, uint32_t, uint32_t, emu_src, emu_dst, x *y + z)
LANES3(mad_lo_b64, uint64_t, uint64_t, emu_src64, emu_dst64, x *y + z)
LANES3(mad_hi_s32, int32_t, uint32_t, emu_src, emu_dst,
       (uint32_t)(((int64_t)x * y) >> 32) + (uint32_t)z)
LANES3(mad_hi_u32, uint32_t, uint32_t, emu_src, emu_dst, (uint32_t)(((uint64_t)x * y) >> 32) + z)
LANES3(mad_hi_u64, uint64_t, uint64_t, emu_src64, emu_dst64, (uint64_t)(((u128)x * y) >> 64) + z)
LANES3(mad_wide_s16, int16_t, uint32_t, emu_src, emu_dst,
       ((void)z, (uint32_t)((int32_t)x *y) + c[i]))
LANES3(mad_wide_u16, uint16_t, uint32_t, emu_src, emu_dst, ((void)z, (uint32_t)x *y + c[i]))
LANES3(sad_s32, int32_t, uint32_t, emu_src, emu_dst,
       (uint32_t)z + (x < y ? (uint32_t)y - (uint32_t)x : (uint32_t)x - (uint32_t)y))
LANES3(sad_u32, uint32_t, uint32_t, emu_src, emu_dst, z + (x < y ? y - x : x - y))

/* Shift amounts are 32-bit whatever is shifted, and clamp. */
#define SHIFT(NAME, TYPE, ROW, SRC, DST, EXPR)                                                     \
    EMU_CLONES static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                \
        const ROW *a = SRC(w, op->a);                                                              \
        const uint32_t *b = emu_src(w, op->b);                                                     \
        ROW *d = DST(w, op->d);                                                                    \
        EMU_LANES for (int i = 0; i < 32; i++) {                                                   \
            TYPE x = (TYPE)a[i];                                                                   \
            uint32_t y = b[i];                                                                     \
            ROW v = (ROW)(EXPR);                                                                   \
            d[i] = mask >> i & 1 ? v : d[i];                                                       \
        }                                                                                          \
        return EMU_NEXT;                                                                           \
    }
SHIFT(shl_b16, uint16_t, uint32_t, emu_src, emu_dst,
      y > 15 ? 0 : (uint16_t)((uint32_t)x << (y & 15)))
SHIFT(shl_b32, uint32_t, uint32_t, emu_src, emu_dst, y > 31 ? 0 : x << (y & 31))
SHIFT(shl_b64, uint64_t, uint64_t, emu_src64, emu_dst64, y > 63 ? 0 : x << (y & 63))
SHIFT(shr_u16, uint16_t, uint32_t, emu_src, emu_dst, y > 15 ? 0 : (uint32_t)x >> (y & 15))
SHIFT(shr_u32, uint32_t, uint32_t, emu_src, emu_dst, y > 31 ? 0 : x >> (y & 31))
SHIFT(shr_u64, uint64_t, uint64_t, emu_src64, emu_dst64, y > 63 ? 0 : x >> (y & 63))
SHIFT(shr_s16, int16_t, uint32_t, emu_src, emu_dst, (uint16_t)(x >> (y > 15 ? 15 : y)))
SHIFT(shr_s32, int32_t, uint32_t, emu_src, emu_dst, x >> (y > 31 ? 31 : y))
SHIFT(shr_s64, int64_t, uint64_t, emu_src64, emu_dst64, x >> (y > 63 ? 63 : y))

/* Products of 32 bits to 64, and with a 64-bit addend. */
#define WIDE(NAME, TYPE, C, EXPR)                                                                  \
    EMU_CLONES static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                \
        const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b);                             \
        C uint64_t *d = emu_dst64(w, op->d);                                                       \
        uint64_t t[32];                                                                            \
        EMU_LANES for (int i = 0; i < 32; i++) {                                                   \
            TYPE x = (TYPE)a[i], y = (TYPE)b[i];                                                   \
            t[i] = (uint64_t)(EXPR);                                                               \
        }                                                                                          \
        if (mask == EMU_FULL)                                                                      \
            memcpy(d, t, sizeof t);                                                                \
        else                                                                                       \
            emu_blend64(d, t, mask);                                                               \
        return EMU_NEXT;                                                                           \
    }
WIDE(mul_wide_s32, int32_t, , (int64_t)x *y)
WIDE(mul_wide_u32, uint32_t, , (uint64_t)x *y)
WIDE(mad_wide_s32, int32_t, const uint64_t *c = emu_src64(w, op->c);
     , (uint64_t)((int64_t)x *y) + c[i])
WIDE(mad_wide_u32, uint32_t, const uint64_t *c = emu_src64(w, op->c);, (uint64_t)x *y + c[i])

/* Division by zero gives all ones, and the remainder the dividend, as devices do. */
#define DIVIDE(NAME, TYPE, ROW, SRC, DST, EXPR)                                                    \
    static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                           \
        const ROW *a = SRC(w, op->a), *b = SRC(w, op->b);                                          \
        ROW *d = DST(w, op->d);                                                                    \
        for (int i = 0; i < 32; i++) {                                                             \
            TYPE x = (TYPE)a[i], y = (TYPE)b[i];                                                   \
            if (mask >> i & 1)                                                                     \
                d[i] = (ROW)(EXPR);                                                                \
        }                                                                                          \
        return EMU_NEXT;                                                                           \
    }
DIVIDE(div_s16, int16_t, uint32_t, emu_src, emu_dst, (uint16_t)(y ? x / y : -1))
DIVIDE(rem_s16, int16_t, uint32_t, emu_src, emu_dst, (uint16_t)(y ? x % y : x))
DIVIDE(div_u16, uint16_t, uint32_t, emu_src, emu_dst, (uint16_t)(y ? x / y : -1))
DIVIDE(rem_u16, uint16_t, uint32_t, emu_src, emu_dst, y ? x % y : x)
DIVIDE(div_s32, int32_t, uint32_t, emu_src, emu_dst,
       y == -1 ? 0 - (uint32_t)x
       : y     ? (uint32_t)(x / y)
               : UINT32_MAX)
DIVIDE(rem_s32, int32_t, uint32_t, emu_src, emu_dst, y == -1 ? 0 : y ? x % y : x)
DIVIDE(div_u32, uint32_t, uint32_t, emu_src, emu_dst, y ? x / y : UINT32_MAX)
DIVIDE(rem_u32, uint32_t, uint32_t, emu_src, emu_dst, y ? x % y : x)
DIVIDE(div_s64, int64_t, uint64_t, emu_src64, emu_dst64,
       y == -1 ? 0 - (uint64_t)x
       : y     ? (uint64_t)(x / y)
               : UINT64_MAX)
DIVIDE(rem_s64, int64_t, uint64_t, emu_src64, emu_dst64, y == -1 ? 0 : y ? x % y : x)
DIVIDE(div_u64, uint64_t, uint64_t, emu_src64, emu_dst64, y ? x / y : UINT64_MAX)
DIVIDE(rem_u64, uint64_t, uint64_t, emu_src64, emu_dst64, y ? x % y : x)

/* add.sat.s32, sub.sat.s32, mad.hi.sat.s32 */
EMU_INLINE uint32_t clamp_s32(int64_t x) {
    return (uint32_t)(x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x);
}
LANES2(add_sat_s32, int32_t, uint32_t, emu_src, emu_dst, clamp_s32((int64_t)x + y))
LANES2(sub_sat_s32, int32_t, uint32_t, emu_src, emu_dst, clamp_s32((int64_t)x - y))
LANES3(mad_hi_sat_s32, int32_t, uint32_t, emu_src, emu_dst, clamp_s32((((int64_t)x * y) >> 32) + z))

#define WIDTHS(NAME, FN)                                                                           \
    {NAME ".b16", FN##_b16}, {NAME ".b32", FN##_b32}, {                                            \
        NAME ".b64", FN##_b64                                                                      \
    }
#define SIGNED(NAME, FN)                                                                           \
    {NAME ".s16", FN##_s16}, {NAME ".s32", FN##_s32}, {                                            \
        NAME ".s64", FN##_s64                                                                      \
    }
#define UNSIGNED(NAME, FN)                                                                         \
    {NAME ".u16", FN##_u16}, {NAME ".u32", FN##_u32}, {                                            \
        NAME ".u64", FN##_u64                                                                      \
    }

const emu_handler emu_int_handlers[] = {
    WIDTHS("add", add),
    WIDTHS("sub", sub),
    WIDTHS("mul.lo", mul_lo),
    WIDTHS("mad.lo", mad_lo),
    WIDTHS("and", and),
    WIDTHS("or", or),
    WIDTHS("xor", xor),
    WIDTHS("not", not ),
    WIDTHS("neg", neg),
    WIDTHS("cnot", cnot),
    WIDTHS("shl", shl),
    SIGNED("shr", shr),
    UNSIGNED("shr", shr),
    SIGNED("min", min),
    UNSIGNED("min", min),
    SIGNED("max", max),
    UNSIGNED("max", max),
    SIGNED("abs", abs),
    SIGNED("mul.hi", mul_hi),
    UNSIGNED("mul.hi", mul_hi),
    SIGNED("div", div),
    UNSIGNED("div", div),
    SIGNED("rem", rem),
    UNSIGNED("rem", rem),
    {"mul.wide.s16", mul_wide_s16},
    {"mul.wide.u16", mul_wide_u16},
    {"mul.wide.s32", mul_wide_s32},
    {"mul.wide.u32", mul_wide_u32},
    {"mad.wide.s16", mad_wide_s16},
    {"mad.wide.u16", mad_wide_u16},
    {"mad.wide.s32", mad_wide_s32},
    {"mad.wide.u32", mad_wide_u32},
    {"mad.hi.s32", mad_hi_s32},
    {"mad.hi.u32", mad_hi_u32},
    {"mad.hi.u64", mad_hi_u64},
    {"mul24.lo.s32", mul24_lo_s32},
    {"mul24.lo.u32", mul24_lo_u32},
    {"sad.s32", sad_s32},
    {"sad.u32", sad_u32},
    {"add.sat.s32", add_sat_s32},
    {"sub.sat.s32", sub_sat_s32},
    {"mad.hi.sat.s32", mad_hi_sat_s32},
    {NULL, NULL},
};

/* Floating-point instructions: operands to the functions of lanes_float.h, results of active lanes
 * back. f64 here, to nearest only. */
#include "runtime/emulator/exec_state.h"

#include <math.h>

/* Where a result of all lanes may go: the row itself, or a row beside it of which only the active
 * lanes are kept. */
typedef struct result {
    uint32_t row[32];
} result;

EMU_INLINE uint32_t *target(emu_warp *w, const emu_op *op, uint32_t mask, result *beside) {
    return mask == EMU_FULL ? emu_dst(w, op->d) : beside->row;
}
EMU_INLINE void finish(emu_warp *w, const emu_op *op, uint32_t mask, const result *beside) {
    if (mask != EMU_FULL)
        emu_blend(emu_dst(w, op->d), beside->row, mask);
}

#define BINARY(NAME, CALL)                                                                         \
    static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                           \
        const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b);                             \
        result beside;                                                                             \
        uint32_t *d = target(w, op, mask, &beside);                                                \
        CALL;                                                                                      \
        finish(w, op, mask, &beside);                                                              \
        return EMU_NEXT;                                                                           \
    }
#define UNARY(NAME, CALL)                                                                          \
    static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                           \
        const uint32_t *a = emu_src(w, op->a);                                                     \
        result beside;                                                                             \
        uint32_t *d = target(w, op, mask, &beside);                                                \
        CALL;                                                                                      \
        finish(w, op, mask, &beside);                                                              \
        return EMU_NEXT;                                                                           \
    }
#define TERNARY(NAME, CALL)                                                                        \
    static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                           \
        const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b), *c = emu_src(w, op->c);     \
        result beside;                                                                             \
        uint32_t *d = target(w, op, mask, &beside);                                                \
        CALL;                                                                                      \
        finish(w, op, mask, &beside);                                                              \
        return EMU_NEXT;                                                                           \
    }
#define ROUND (emu_round) op->round
#define SEED w->worker->launch->approx_seed

BINARY(add_f32, emu_f32_add(a, b, d, ROUND, op->flags))
BINARY(sub_f32, emu_f32_sub(a, b, d, ROUND, op->flags))
BINARY(mul_f32, emu_f32_mul(a, b, d, ROUND, op->flags))
TERNARY(fma_f32, emu_f32_fma(a, b, c, d, ROUND, op->flags))
BINARY(div_f32, emu_f32_div(a, b, d, ROUND, op->flags))
BINARY(div_approx_f32, emu_div_approx_f32(a, b, d, false, op->flags, SEED))
BINARY(div_full_f32, emu_div_approx_f32(a, b, d, true, op->flags, SEED))
UNARY(sqrt_f32, emu_f32_sqrt(a, d, ROUND, op->flags))
UNARY(rcp_f32, emu_f32_rcp(a, d, ROUND, op->flags))
BINARY(min_f32, emu_f32_min(a, b, d, op->flags))
BINARY(max_f32, emu_f32_max(a, b, d, op->flags))
UNARY(approx_f32, emu_approx_f32((emu_approx_fn)op->sub, a, d, op->flags, SEED))
UNARY(approx_f16x2, emu_approx_f16x2((emu_approx_fn)op->sub, a, d, op->flags, SEED))
UNARY(approx_bf16x2, emu_approx_bf16x2((emu_approx_fn)op->sub, a, d, op->flags, SEED))

EMU_INLINE void keep_low(uint32_t *d) {
    for (int i = 0; i < 32; i++)
        d[i] &= 0xffff;
}
UNARY(approx_f16, emu_approx_f16x2((emu_approx_fn)op->sub, a, d, op->flags, SEED); keep_low(d))
UNARY(approx_bf16, emu_approx_bf16x2((emu_approx_fn)op->sub, a, d, op->flags, SEED); keep_low(d))

/* Registers of .f16 and .bf16 have zeros above, and these functions of zeros are 0: those of pairs
 * serve. */
BINARY(add_f16x2, emu_f16x2_add(a, b, d, op->flags))
BINARY(sub_f16x2, emu_f16x2_sub(a, b, d, op->flags))
BINARY(mul_f16x2, emu_f16x2_mul(a, b, d, op->flags))
TERNARY(fma_f16x2, emu_f16x2_fma(a, b, c, d, op->flags))
BINARY(min_f16x2, emu_f16x2_min(a, b, d, op->flags))
BINARY(max_f16x2, emu_f16x2_max(a, b, d, op->flags))
BINARY(add_bf16x2, emu_bf16x2_add(a, b, d, op->flags))
BINARY(sub_bf16x2, emu_bf16x2_sub(a, b, d, op->flags))
BINARY(mul_bf16x2, emu_bf16x2_mul(a, b, d, op->flags))
TERNARY(fma_bf16x2, emu_bf16x2_fma(a, b, c, d, op->flags))
BINARY(min_bf16x2, emu_bf16x2_min(a, b, d, op->flags))
BINARY(max_bf16x2, emu_bf16x2_max(a, b, d, op->flags))

/* neg, abs: op->imm is the mask of sign bits; with FTZ (f32; f16 by its own mask in op->sub)
 * subnormal operands become 0. */
EMU_CLONES static emu_next sign(emu_warp *w, const emu_op *op, uint32_t mask, bool absolute) {
    const uint32_t *a = emu_src(w, op->a);
    uint32_t *d = emu_dst(w, op->d), signs = (uint32_t)op->imm;
    bool ftz = op->flags & EMU_FTZ, halves = op->sub;
    EMU_LANES
    for (int i = 0; i < 32; i++) {
        uint32_t x = a[i];
        if (ftz && !halves)
            x = x & 0x7f800000 ? x : x & 0x80000000;
        if (ftz && halves)
            x &= (x & 0x7c00 ? 0xffffu : 0x8000u) | (x & 0x7c000000 ? 0xffff0000u : 0x80000000u);
        uint32_t v = absolute ? x & ~signs : x ^ signs;
        d[i] = mask >> i & 1 ? v : d[i];
    }
    return EMU_NEXT;
}
static emu_next neg_float(emu_warp *w, const emu_op *op, uint32_t mask) {
    return sign(w, op, mask, false);
}
static emu_next abs_float(emu_warp *w, const emu_op *op, uint32_t mask) {
    return sign(w, op, mask, true);
}
/* copysign d, a, b: the sign of a with the magnitude of b. */
EMU_CLONES static emu_next copysign_f32(emu_warp *w, const emu_op *op, uint32_t mask) {
    const uint32_t *a = emu_src(w, op->a), *b = emu_src(w, op->b);
    uint32_t *d = emu_dst(w, op->d);
    EMU_LANES
    for (int i = 0; i < 32; i++) {
        uint32_t v = (a[i] & 0x80000000) | (b[i] & 0x7fffffff);
        d[i] = mask >> i & 1 ? v : d[i];
    }
    return EMU_NEXT;
}

/* --- f64 -----------------------------------------------------------------------------------------
 */

EMU_INLINE uint64_t canonical(double x) {
    return x != x ? UINT64_C(0x7fffffffffffffff) : emu_bits_of_double(x);
}
EMU_INLINE double least(double x, double y) {
    if (x != x)
        return y;
    if (y != y || x < y)
        return x;
    return x == y && signbit(x) ? x : y;
}
EMU_INLINE double greatest(double x, double y) {
    if (x != x)
        return y;
    if (y != y || x > y)
        return x;
    return x == y && !signbit(x) ? x : y;
}
#define DOUBLE(NAME, EXPR)                                                                         \
    static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                           \
        const uint64_t *a = emu_src64(w, op->a);                                                   \
        const uint64_t *b = op->n > 1 ? emu_src64(w, op->b) : a;                                   \
        const uint64_t *c = op->n > 2 ? emu_src64(w, op->c) : a;                                   \
        uint64_t *d = emu_dst64(w, op->d);                                                         \
        for (int i = 0; i < 32; i++) {                                                             \
            double x = emu_double_of(a[i]), y = emu_double_of(b[i]), z = emu_double_of(c[i]);      \
            (void)x, (void)y, (void)z;                                                             \
            if (mask >> i & 1)                                                                     \
                d[i] = (EXPR);                                                                     \
        }                                                                                          \
        return EMU_NEXT;                                                                           \
    }
DOUBLE(add_f64, canonical(x + y))
DOUBLE(sub_f64, canonical(x - y))
DOUBLE(mul_f64, canonical(x *y))
DOUBLE(fma_f64, canonical(fma(x, y, z)))
DOUBLE(div_f64, canonical(x / y))
DOUBLE(sqrt_f64, canonical(sqrt(x)))
DOUBLE(rcp_f64, canonical(1 / x))
DOUBLE(rsqrt_f64, canonical(1 / sqrt(x)))
DOUBLE(min_f64, canonical(least(x, y)))
DOUBLE(max_f64, canonical(greatest(x, y)))
DOUBLE(neg_f64, a[i] ^ UINT64_C(1) << 63)
DOUBLE(abs_f64, a[i] & ~(UINT64_C(1) << 63))
DOUBLE(copysign_f64, (a[i] & UINT64_C(1) << 63) | (b[i] & ~(UINT64_C(1) << 63)))

/* --- conversions ---------------------------------------------------------------------------------
 * op->extra is the emu_convert; 16-bit registers keep zeros above. */

static void cut16(uint32_t *d) {
    for (int i = 0; i < 32; i++)
        d[i] &= 0xffff;
}
static emu_next cvt32(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint32_t v[32];
    emu_convert32(op->extra, emu_src(w, op->a), v);
    if (op->width == 16)
        cut16(v);
    emu_blend(emu_dst(w, op->d), v, mask);
    return EMU_NEXT;
}
/* A side of 64 bits: op->size is the bits of the source's register. */
static emu_next cvt64(emu_warp *w, const emu_op *op, uint32_t mask) {
    uint64_t from[32], v[32];
    if (op->size == 64)
        memcpy(from, emu_src64(w, op->a), sizeof from);
    else
        for (int i = 0; i < 32; i++)
            from[i] = emu_src(w, op->a)[i];
    emu_convert64(op->extra, from, v);
    if (op->width == 64) {
        emu_blend64(emu_dst64(w, op->d), v, mask);
    } else {
        uint32_t narrow[32];
        for (int i = 0; i < 32; i++)
            narrow[i] = (uint32_t)v[i];
        if (op->width == 16)
            cut16(narrow);
        emu_blend(emu_dst(w, op->d), narrow, mask);
    }
    return EMU_NEXT;
}
BINARY(cvt_pack2, emu_pack2(op->extra, a, b, d))
UNARY(cvt_pair, emu_convert_pair(op->extra, a, d))

/* Integers that only grow or shrink. */
#define RESIZE(NAME, FROM_ROW, SRC, TO_ROW, DST, EXPR)                                             \
    EMU_CLONES static emu_next NAME(emu_warp *w, const emu_op *op, uint32_t mask) {                \
        const FROM_ROW *a = SRC(w, op->a);                                                         \
        TO_ROW *d = DST(w, op->d), t[32];                                                          \
        EMU_LANES for (int i = 0; i < 32; i++) {                                                   \
            FROM_ROW x = a[i];                                                                     \
            t[i] = (TO_ROW)(EXPR);                                                                 \
        }                                                                                          \
        EMU_LANES for (int i = 0; i < 32; i++) d[i] = mask >> i & 1 ? t[i] : d[i];                 \
        return EMU_NEXT;                                                                           \
    }
RESIZE(cvt_u64_u32, uint32_t, emu_src, uint64_t, emu_dst64, x)
RESIZE(cvt_s64_s32, uint32_t, emu_src, uint64_t, emu_dst64, (int64_t)(int32_t)x)
RESIZE(cvt_u32_u64, uint64_t, emu_src64, uint32_t, emu_dst, x)
RESIZE(cvt_u16_u64, uint64_t, emu_src64, uint32_t, emu_dst, x & 0xffff)
RESIZE(cvt_u16_u32, uint32_t, emu_src, uint32_t, emu_dst, x & 0xffff)
RESIZE(cvt_s32_s16, uint32_t, emu_src, uint32_t, emu_dst, (int32_t)(int16_t)x)
RESIZE(cvt_s32_s8, uint32_t, emu_src, uint32_t, emu_dst, (int32_t)(int8_t)x)
RESIZE(cvt_u32_u8, uint32_t, emu_src, uint32_t, emu_dst, x & 0xff)
RESIZE(cvt_s16_s8, uint32_t, emu_src, uint32_t, emu_dst, (uint16_t)(int8_t)x)

const emu_handler emu_float_handlers[] = {
    {"add.f32", add_f32},
    {"sub.f32", sub_f32},
    {"mul.f32", mul_f32},
    {"fma.f32", fma_f32},
    {"div.f32", div_f32},
    {"div.approx.f32", div_approx_f32},
    {"div.full.f32", div_full_f32},
    {"sqrt.f32", sqrt_f32},
    {"rcp.f32", rcp_f32},
    {"min.f32", min_f32},
    {"max.f32", max_f32},
    {"approx.f32", approx_f32},
    {"approx.f16x2", approx_f16x2},
    {"approx.bf16x2", approx_bf16x2},
    {"approx.f16", approx_f16},
    {"approx.bf16", approx_bf16},
    {"neg.float", neg_float},
    {"abs.float", abs_float},
    {"copysign.f32", copysign_f32},
    {"add.f16", add_f16x2},
    {"sub.f16", sub_f16x2},
    {"mul.f16", mul_f16x2},
    {"fma.f16", fma_f16x2},
    {"min.f16", min_f16x2},
    {"max.f16", max_f16x2},
    {"add.bf16", add_bf16x2},
    {"sub.bf16", sub_bf16x2},
    {"mul.bf16", mul_bf16x2},
    {"fma.bf16", fma_bf16x2},
    {"min.bf16", min_bf16x2},
    {"max.bf16", max_bf16x2},
    {"add.f64", add_f64},
    {"sub.f64", sub_f64},
    {"mul.f64", mul_f64},
    {"fma.f64", fma_f64},
    {"div.f64", div_f64},
    {"sqrt.f64", sqrt_f64},
    {"rcp.f64", rcp_f64},
    {"rsqrt.f64", rsqrt_f64},
    {"min.f64", min_f64},
    {"max.f64", max_f64},
    {"neg.f64", neg_f64},
    {"abs.f64", abs_f64},
    {"copysign.f64", copysign_f64},
    {"cvt32", cvt32},
    {"cvt64", cvt64},
    {"cvt.pack2", cvt_pack2},
    {"cvt.pair", cvt_pair},
    {"cvt.u64.u32", cvt_u64_u32},
    {"cvt.s64.s32", cvt_s64_s32},
    {"cvt.u32.u64", cvt_u32_u64},
    {"cvt.u16.u64", cvt_u16_u64},
    {"cvt.u16.u32", cvt_u16_u32},
    {"cvt.s32.s16", cvt_s32_s16},
    {"cvt.s32.s8", cvt_s32_s8},
    {"cvt.u32.u8", cvt_u32_u8},
    {"cvt.s16.s8", cvt_s16_s8},
    {NULL, NULL},
};

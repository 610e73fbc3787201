/* Pairs of f16 and of bf16 over 32 lanes, rounded once.
 *
 * f16: in f32 products are exact (22 bits, no exponent out of range), and sums of two f16 survive a
 * second rounding (24 >= 2 * 11 + 2 bits); a product plus an f16 is added to odd. bf16: the same
 * holds for sums; products may fall below f32's range and go through double. */
#include "runtime/emulator/lanes_float.h"
#include "runtime/emulator/round.h"

EMU_INLINE float f16_operand(uint32_t h, unsigned flags) {
    return emu_f16_to_float(flags & EMU_FTZ ? emu_flush_f16(h) : h);
}

EMU_INLINE uint32_t f16_result(float x, unsigned flags) {
    uint32_t bits = emu_round_float(x, &emu_format_f16, EMU_RN, false);
    bool nan = (bits & 0x7fff) > 0x7c00;
    if (flags & EMU_FTZ)
        bits = emu_flush_f16(bits);
    if (flags & EMU_SAT)
        bits = nan || bits & 0x8000 ? 0 : bits > 0x3c00 ? 0x3c00 : bits;
    if (flags & EMU_RELU)
        bits = bits & 0x8000 ? 0 : bits;
    return bits;
}

EMU_INLINE uint32_t bf16_result(uint32_t bits, unsigned flags) {
    return flags & EMU_RELU && bits & 0x8000 ? 0 : bits;
}

EMU_INLINE uint32_t f16_add(uint32_t a, uint32_t b, unsigned flags) {
    return f16_result(f16_operand(a, flags) + f16_operand(b, flags), flags);
}

EMU_INLINE uint32_t f16_sub(uint32_t a, uint32_t b, unsigned flags) {
    return f16_add(a, b ^ 0x8000, flags);
}

EMU_INLINE uint32_t f16_mul(uint32_t a, uint32_t b, unsigned flags) {
    return f16_result(f16_operand(a, flags) * f16_operand(b, flags), flags);
}

EMU_INLINE uint32_t f16_fma(uint32_t a, uint32_t b, uint32_t c, unsigned flags) {
    float product = f16_operand(a, flags) * f16_operand(b, flags);
    return f16_result(emu_add_to_odd_f32(product, f16_operand(c, flags)), flags);
}

EMU_INLINE uint32_t bf16_add(uint32_t a, uint32_t b, unsigned flags) {
    float sum = emu_bf16_to_float(a) + emu_bf16_to_float(b);
    return bf16_result(emu_round_float(sum, &emu_format_bf16, EMU_RN, false), flags);
}

EMU_INLINE uint32_t bf16_sub(uint32_t a, uint32_t b, unsigned flags) {
    return bf16_add(a, b ^ 0x8000, flags);
}

EMU_INLINE uint32_t bf16_mul(uint32_t a, uint32_t b, unsigned flags) {
    double product = (double)emu_bf16_to_float(a) * emu_bf16_to_float(b);
    return bf16_result(emu_round_double(product, &emu_format_bf16, EMU_RN, false), flags);
}

EMU_INLINE uint32_t bf16_fma(uint32_t a, uint32_t b, uint32_t c, unsigned flags) {
    double product = (double)emu_bf16_to_float(a) * emu_bf16_to_float(b);
    double sum = emu_add_to_odd(product, emu_bf16_to_float(c));
    return bf16_result(emu_round_double(sum, &emu_format_bf16, EMU_RN, false), flags);
}

/* Both types have 15 bits of magnitude in order; infinity says where NaNs begin. */
EMU_INLINE uint32_t choose(uint32_t x, uint32_t y, bool max, uint32_t infinity, unsigned flags) {
    uint32_t sign = 0;
    if (flags & EMU_FTZ) {
        x = emu_flush_f16(x);
        y = emu_flush_f16(y);
    }
    if (flags & EMU_XORSIGN) {
        sign = (x ^ y) & 0x8000;
        x &= 0x7fff;
        y &= 0x7fff;
    }
    bool x_nan = (x & 0x7fff) > infinity, y_nan = (y & 0x7fff) > infinity;
    int32_t ox = x & 0x8000 ? -1 - (int32_t)(x & 0x7fff) : (int32_t)x;
    int32_t oy = y & 0x8000 ? -1 - (int32_t)(y & 0x7fff) : (int32_t)y;
    bool first = max ? ox > oy : ox < oy;
    uint32_t chosen = y_nan ? x : x_nan ? y : first ? x : y;
    bool nan = flags & EMU_NAN ? x_nan || y_nan : x_nan && y_nan;
    return nan ? 0x7fff : chosen | sign;
}

EMU_INLINE uint32_t f16_min(uint32_t a, uint32_t b, unsigned flags) {
    return choose(a, b, false, 0x7c00, flags);
}

EMU_INLINE uint32_t f16_max(uint32_t a, uint32_t b, unsigned flags) {
    return choose(a, b, true, 0x7c00, flags);
}

EMU_INLINE uint32_t bf16_min(uint32_t a, uint32_t b, unsigned flags) {
    return choose(a, b, false, 0x7f80, flags & ~(unsigned)EMU_FTZ);
}

EMU_INLINE uint32_t bf16_max(uint32_t a, uint32_t b, unsigned flags) {
    return choose(a, b, true, 0x7f80, flags & ~(unsigned)EMU_FTZ);
}

/* The loop with flags known to be 0 is the one that kernels live in. */
#define DEFINE_PAIRS(TYPE, NAME)                                                                   \
    EMU_CLONES void emu_##TYPE##x2_##NAME(const uint32_t a[32], const uint32_t b[32],              \
                                          uint32_t d[32], unsigned flags) {                        \
        if (flags == 0) {                                                                          \
            EMU_LANES for (int i = 0; i < 32; i++) d[i] =                                          \
                TYPE##_##NAME(a[i] & 0xffff, b[i] & 0xffff, 0) |                                   \
                TYPE##_##NAME(a[i] >> 16, b[i] >> 16, 0) << 16;                                    \
            return;                                                                                \
        }                                                                                          \
        EMU_LANES for (int i = 0; i < 32; i++) d[i] =                                              \
            TYPE##_##NAME(a[i] & 0xffff, b[i] & 0xffff, flags) |                                   \
            TYPE##_##NAME(a[i] >> 16, b[i] >> 16, flags) << 16;                                    \
    }

#define DEFINE_FMA(TYPE)                                                                           \
    EMU_CLONES void emu_##TYPE##x2_fma(const uint32_t a[32], const uint32_t b[32],                 \
                                       const uint32_t c[32], uint32_t d[32], unsigned flags) {     \
        if (flags == 0) {                                                                          \
            EMU_LANES for (int i = 0; i < 32; i++) d[i] =                                          \
                TYPE##_fma(a[i] & 0xffff, b[i] & 0xffff, c[i] & 0xffff, 0) |                       \
                TYPE##_fma(a[i] >> 16, b[i] >> 16, c[i] >> 16, 0) << 16;                           \
            return;                                                                                \
        }                                                                                          \
        EMU_LANES for (int i = 0; i < 32; i++) d[i] =                                              \
            TYPE##_fma(a[i] & 0xffff, b[i] & 0xffff, c[i] & 0xffff, flags) |                       \
            TYPE##_fma(a[i] >> 16, b[i] >> 16, c[i] >> 16, flags) << 16;                           \
    }

DEFINE_PAIRS(f16, add)
DEFINE_PAIRS(f16, sub)
DEFINE_PAIRS(f16, mul)
DEFINE_PAIRS(f16, min)
DEFINE_PAIRS(f16, max)
DEFINE_PAIRS(bf16, add)
DEFINE_PAIRS(bf16, sub)
DEFINE_PAIRS(bf16, mul)
DEFINE_PAIRS(bf16, min)
DEFINE_PAIRS(bf16, max)
DEFINE_FMA(f16)
DEFINE_FMA(bf16)

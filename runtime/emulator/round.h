/* Rounding a double or f32 value to a narrower binary format, in integer arithmetic that
 * vectorizes. Results of operations come here as doubles "rounded to odd" (emu_to_odd): the last
 * bit is set when anything was lost, which makes one correct rounding of two, in every direction,
 * where the target is at least two bits narrower (Boldo and Melquiond, "Emulation of FMA and
 * correctly rounded sums", 2008). */
#ifndef MCC_RUNTIME_EMULATOR_ROUND_H
#define MCC_RUNTIME_EMULATOR_ROUND_H

#include "runtime/emulator/lanes_float.h"
#include "runtime/emulator/simd.h"

/* A sign bit, then the exponent, then precision - 1 bits: as in IEEE 754, but e4m3 gives up all of
 * its top exponent's codes except one to numbers. */
typedef struct emu_format {
    int precision;      /* significant bits of a normal number, the hidden one included */
    int least_exponent; /* of normal numbers */
    uint32_t largest;   /* bits of the largest finite number */
    uint32_t infinity;  /* what an overflow to infinity gives */
    uint32_t nan, sign; /* the NaN, the sign bit */
    int shift;          /* zero bits below, in the register (tf32) */
} emu_format;

static const emu_format emu_format_f32 = {24,         -126,     0x7f7fffff, 0x7f800000,
                                          0x7fffffff, 1u << 31, 0};
static const emu_format emu_format_f16 = {11, -14, 0x7bff, 0x7c00, 0x7fff, 0x8000, 0};
static const emu_format emu_format_bf16 = {8, -126, 0x7f7f, 0x7f80, 0x7fff, 0x8000, 0};
static const emu_format emu_format_tf32 = {11, -126, 0x3fbff, 0x3fc00, 0x3ffff, 1u << 18, 13};
static const emu_format emu_format_e4m3 = {4, -6, 0x7e, 0x7f, 0x7f, 0x80, 0};
static const emu_format emu_format_e5m2 = {3, -14, 0x7b, 0x7c, 0x7f, 0x80, 0};

/* 1 if the larger neighbour in magnitude is taken. `rest` is what is cut off, `half` half a unit.
 */
EMU_INLINE uint64_t emu_rounds_up(uint64_t kept, uint64_t rest, uint64_t half, uint64_t negative,
                                  emu_round round) {
    switch (round) {
    case EMU_RN:
        return rest + (kept & 1) > half;
    case EMU_RNA:
        return rest >= half;
    case EMU_RZ:
        return 0;
    case EMU_RM:
        return negative & (rest != 0);
    default:
        return (negative ^ 1) & (rest != 0);
    }
}

EMU_INLINE uint32_t emu_rounds_up_32(uint32_t kept, uint32_t rest, uint32_t half, uint32_t negative,
                                     emu_round round) {
    switch (round) {
    case EMU_RN:
        return rest + (kept & 1) > half;
    case EMU_RNA:
        return rest >= half;
    case EMU_RZ:
        return 0;
    case EMU_RM:
        return negative & (rest != 0);
    default:
        return (negative ^ 1) & (rest != 0);
    }
}

/* Sign, overflow, infinities and NaNs around the magnitude's bits. `negative`, `is_inf`, `is_nan`:
 * 0 or 1. */
EMU_INLINE uint32_t emu_finish(const emu_format *f, uint32_t magnitude, uint32_t negative,
                               uint32_t is_inf, uint32_t is_nan, emu_round round, bool satfinite) {
    uint32_t to_infinity = round == EMU_RN || round == EMU_RNA ? 1
                           : round == EMU_RM                   ? negative
                           : round == EMU_RP                   ? negative ^ 1
                                                               : 0;
    uint32_t infinity = satfinite ? f->largest : f->infinity;
    uint32_t over = to_infinity | is_inf ? infinity : f->largest;
    uint32_t bits = (is_inf | (magnitude > f->largest)) ? over : magnitude;
    bits |= negative ? f->sign : 0;
    bits = is_nan ? f->nan : bits;
    return bits << f->shift;
}

EMU_INLINE uint32_t emu_round_double(double x, const emu_format *f, emu_round round,
                                     bool satfinite) {
    const uint64_t infinity = 0x7ffull << 52;
    uint64_t bits = emu_bits_of_double(x), magnitude = bits & ~(1ull << 63), negative = bits >> 63;
    uint64_t field = magnitude >> 52, fraction = magnitude & ((1ull << 52) - 1);
    uint64_t exponent = field ? field : 1, significand = field ? fraction | 1ull << 52 : fraction;
    uint64_t least = (uint64_t)(f->least_exponent + 1023);
    uint64_t base = exponent < least ? least : exponent;
    uint64_t cut = (uint64_t)(53 - f->precision) + (base - exponent);
    cut = cut > 54 ? 54 : cut;
    uint64_t kept = significand >> cut, half = 1ull << (cut - 1);
    uint64_t rest = significand - (kept << cut);
    uint64_t out = kept + ((base - least) << (f->precision - 1));
    out += emu_rounds_up(kept, rest, half, negative, round);
    out = out > f->largest ? f->largest + 1 : out;
    return emu_finish(f, (uint32_t)out, (uint32_t)negative, magnitude == infinity,
                      magnitude > infinity, round, satfinite);
}

/* The same from f32, in 32-bit arithmetic; for formats of at most 22 bits' precision. */
EMU_INLINE uint32_t emu_round_float(float x, const emu_format *f, emu_round round, bool satfinite) {
    const uint32_t infinity = 0x7f800000;
    uint32_t bits = emu_bits_of(x), magnitude = bits & 0x7fffffff, negative = bits >> 31;
    uint32_t field = magnitude >> 23, fraction = magnitude & 0x7fffff;
    uint32_t exponent = field ? field : 1, significand = field ? fraction | 0x800000 : fraction;
    uint32_t least = (uint32_t)(f->least_exponent + 127);
    uint32_t base = exponent < least ? least : exponent;
    uint32_t cut = (uint32_t)(24 - f->precision) + (base - exponent);
    cut = cut > 25 ? 25 : cut;
    uint32_t kept = significand >> cut, half = 1u << (cut - 1);
    uint32_t rest = significand - (kept << cut);
    uint32_t out = kept + ((base - least) << (f->precision - 1));
    out += emu_rounds_up_32(kept, rest, half, negative, round);
    return emu_finish(f, out, negative, magnitude == infinity, magnitude > infinity, round,
                      satfinite);
}

/* `sum` is a rounded result and `error` has the sign of the exact one minus it: the neighbour of
 * the exact result whose last bit is odd, or the exact result. An error that is not finite comes
 * from operands that are not, and counts as none. */
EMU_INLINE double emu_to_odd(double sum, double error) {
    const uint64_t infinity = 0x7ffull << 52;
    uint64_t s = emu_bits_of_double(sum), e = emu_bits_of_double(error);
    uint64_t outward = 1 - 2 * ((s ^ e) >> 63);
    uint64_t even = ~s & 1, moves = (s & infinity) != infinity ? even : 0;
    moves = e << 1 && (e & infinity) != infinity ? moves : 0;
    return emu_double_of(s + (outward & (0 - moves)));
}

EMU_INLINE float emu_to_odd_f32(float sum, float error) {
    const uint32_t infinity = 0x7f800000;
    uint32_t s = emu_bits_of(sum), e = emu_bits_of(error);
    uint32_t outward = 1 - 2 * ((s ^ e) >> 31);
    uint32_t even = ~s & 1, moves = (s & infinity) != infinity ? even : 0;
    moves = e << 1 && (e & infinity) != infinity ? moves : 0;
    return emu_float_of(s + (outward & (0 - moves)));
}

/* a + b to odd. The error of a rounded sum is itself a number (Knuth's TwoSum). */
EMU_INLINE double emu_add_to_odd(double a, double b) {
    double s = a + b, bb = s - a, error = (a - (s - bb)) + (b - bb);
    return emu_to_odd(s, error);
}

EMU_INLINE float emu_add_to_odd_f32(float a, float b) {
    float s = a + b, bb = s - a, error = (a - (s - bb)) + (b - bb);
    return emu_to_odd_f32(s, error);
}

/* Subnormal numbers become zeros of their sign. */
EMU_INLINE uint32_t emu_flush_f32(uint32_t bits) {
    return bits & 0x7f800000 ? bits : bits & 0x80000000;
}

EMU_INLINE uint32_t emu_flush_f16(uint32_t bits) {
    return bits & 0x7c00 ? bits : bits & 0x8000;
}

/* [0, 1], NaN becomes 0. */
EMU_INLINE uint32_t emu_saturate_f32(uint32_t bits) {
    bool nan = (bits & 0x7fffffff) > 0x7f800000;
    return nan || bits >> 31 ? 0 : bits > 0x3f800000 ? 0x3f800000 : bits;
}

#endif

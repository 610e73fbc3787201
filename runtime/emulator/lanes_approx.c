/* Approximate functions over 32 lanes: computed in double and rounded to nearest once, then, with a
 * seed, moved within the error that the PTX ISA allows. The ones that kernels live in are
 * vectorized; the others are the C library's. */
#include "runtime/emulator/lanes_float.h"
#include "runtime/emulator/round.h"

#include <math.h>

/* 2^x: x = n + f with |f| <= 1/2, the series of e^(f ln 2) up to its 13th power (what is left out
 * is below 2^-57), times 2^n. For |x| <= 1000. */
EMU_INLINE double exp2_inside(double x) {
    static const double inverse_factorials[] = {1.0 / 6227020800,
                                                1.0 / 479001600,
                                                1.0 / 39916800,
                                                1.0 / 3628800,
                                                1.0 / 362880,
                                                1.0 / 40320,
                                                1.0 / 5040,
                                                1.0 / 720,
                                                1.0 / 120,
                                                1.0 / 24,
                                                1.0 / 6,
                                                0.5,
                                                1.0,
                                                1.0};
    const double shifter = 0x1.8p52; /* leaves the nearest integer in the last bits */
    double shifted = x + shifter, t = (x - (shifted - shifter)) * 0x1.62e42fefa39efp-1;
    uint64_t n = emu_bits_of_double(shifted) - emu_bits_of_double(shifter);
    double sum = inverse_factorials[0];
    for (int i = 1; i < 14; i++)
        sum = sum * t + inverse_factorials[i];
    return sum * emu_double_of((n + 1023) << 52);
}

EMU_INLINE double exp2_any(double x) {
    double inside = x > 200 ? 200 : x < -200 ? -200 : x;
    double y = exp2_inside(inside == inside ? inside : 0);
    y = x == HUGE_VAL ? HUGE_VAL : x == -HUGE_VAL ? 0 : y;
    return x == x ? y : x;
}

EMU_CLONES static void ex2_lanes(const double *x, double *y) {
    for (int i = 0; i < 32; i++)
        y[i] = exp2_any(x[i]);
}

EMU_CLONES static void rcp_lanes(const double *x, double *y) {
    for (int i = 0; i < 32; i++)
        y[i] = 1 / x[i];
}

EMU_CLONES static void sqrt_lanes(const double *x, double *y) {
    for (int i = 0; i < 32; i++)
        y[i] = sqrt(x[i]);
}

EMU_CLONES static void rsqrt_lanes(const double *x, double *y) {
    for (int i = 0; i < 32; i++)
        y[i] = 1 / sqrt(x[i]);
}

static void evaluate(emu_approx_fn fn, const double x[32], double y[32]) {
    switch (fn) {
    case EMU_EX2:
        ex2_lanes(x, y);
        break;
    case EMU_RCP:
        rcp_lanes(x, y);
        break;
    case EMU_RSQRT:
        rsqrt_lanes(x, y);
        break;
    case EMU_SQRT:
        sqrt_lanes(x, y);
        break;
    case EMU_LG2:
        for (int i = 0; i < 32; i++)
            y[i] = log2(x[i]);
        break;
    case EMU_SIN:
        for (int i = 0; i < 32; i++)
            y[i] = sin(x[i]);
        break;
    case EMU_COS:
        for (int i = 0; i < 32; i++)
            y[i] = cos(x[i]);
        break;
    case EMU_TANH:
        for (int i = 0; i < 32; i++)
            y[i] = tanh(x[i]);
        break;
    }
}

/* A number that depends on all bits of its arguments (the finalizer of SplitMix64). */
static uint64_t mix(uint64_t seed, unsigned fn, uint32_t operand) {
    uint64_t x = seed ^ ((uint64_t)fn << 32 | operand) * 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* `bits` of a finite number other than 0, a few units in the last place away; the number itself
 * where that would leave its sign or become infinite. */
static uint32_t move_ulps(uint32_t bits, uint64_t random, int most, uint32_t infinity,
                          uint32_t sign) {
    int moved = (int)(random % (2 * (unsigned)most + 1)) - most;
    uint32_t magnitude = bits & ~sign, to = magnitude + (uint32_t)moved;
    if (magnitude == 0 || magnitude >= infinity || to == 0 || to >= infinity)
        return bits;
    return (bits & sign) | to;
}

/* In [-1, 1]. */
static double fraction(uint64_t random) {
    return (double)(int64_t)random * 0x1p-63;
}

static uint32_t nearest(double y) {
    return emu_round_double(y, &emu_format_f32, EMU_RN, false);
}

static uint32_t perturb(emu_approx_fn fn, uint32_t operand, double y, uint64_t seed) {
    uint64_t random = mix(seed, (unsigned)fn, operand);
    uint32_t bits = nearest(y);
    if (!isfinite(y) || y == 0)
        return bits;
    switch (fn) {
    case EMU_SIN:
    case EMU_COS:
        return nearest(fmax(-1, fmin(1, y + fraction(random) * 0x1.6ap-21))); /* 2^-20.5 */
    case EMU_TANH:
        return nearest(fmax(-1, fmin(1, y + y * fraction(random) * 0x1p-11)));
    case EMU_LG2:
        if (fabs(y) < 1)
            return nearest(y + fraction(random) * 0x1p-22);
        break;
    case EMU_RCP:
    case EMU_SQRT:
        return move_ulps(bits, random, 1, 0x7f800000, 0x80000000);
    default:
        break;
    }
    return move_ulps(bits, random, 2, 0x7f800000, 0x80000000);
}

EMU_CLONES static void nearest_lanes(const double *y, uint32_t *d) {
    for (int i = 0; i < 32; i++) {
        float rounded = (float)y[i];
        d[i] = rounded != rounded ? 0x7fffffff : emu_bits_of(rounded);
    }
}

void emu_approx_f32(emu_approx_fn fn, const uint32_t a[32], uint32_t d[32], unsigned flags,
                    uint64_t seed) {
    uint32_t operands[32];
    double x[32], y[32];
    for (int i = 0; i < 32; i++) {
        operands[i] = flags & EMU_FTZ ? emu_flush_f32(a[i]) : a[i];
        x[i] = emu_float_of(operands[i]);
    }
    evaluate(fn, x, y);
    if (seed == 0) {
        nearest_lanes(y, d);
    } else {
        for (int i = 0; i < 32; i++)
            d[i] = perturb(fn, operands[i], y[i], seed);
    }
    if (flags & EMU_FTZ) {
        for (int i = 0; i < 32; i++)
            d[i] = emu_flush_f32(d[i]);
    }
}

/* One half of each lane's pair. */
static void approx_halves(emu_approx_fn fn, const emu_format *format, const uint32_t halves[32],
                          uint32_t d[32], unsigned flags, uint64_t seed) {
    bool is_f16 = format == &emu_format_f16;
    double x[32], y[32];
    uint32_t subnormal = is_f16 ? 0x7c00 : 0x7f80; /* none of these bits set */
    for (int i = 0; i < 32; i++) {
        uint32_t h = flags & EMU_FTZ && !(halves[i] & subnormal) ? halves[i] & 0x8000 : halves[i];
        x[i] = is_f16 ? emu_f16_to_float(h) : emu_bf16_to_float(h);
    }
    evaluate(fn, x, y);
    for (int i = 0; i < 32; i++) {
        uint32_t bits = emu_round_double(y[i], format, EMU_RN, false);
        if (seed)
            bits = move_ulps(bits, mix(seed, 16 + (unsigned)fn, halves[i]), 1, format->infinity,
                             0x8000);
        d[i] = flags & EMU_FTZ && !(bits & subnormal) ? bits & 0x8000 : bits;
    }
}

static void approx_pairs(emu_approx_fn fn, const emu_format *format, const uint32_t a[32],
                         uint32_t d[32], unsigned flags, uint64_t seed) {
    uint32_t low[32], high[32];
    for (int i = 0; i < 32; i++) {
        low[i] = a[i] & 0xffff;
        high[i] = a[i] >> 16;
    }
    approx_halves(fn, format, low, low, flags, seed);
    approx_halves(fn, format, high, high, flags, seed);
    for (int i = 0; i < 32; i++)
        d[i] = low[i] | high[i] << 16;
}

void emu_approx_f16x2(emu_approx_fn fn, const uint32_t a[32], uint32_t d[32], unsigned flags,
                      uint64_t seed) {
    approx_pairs(fn, &emu_format_f16, a, d, flags, seed);
}

void emu_approx_bf16x2(emu_approx_fn fn, const uint32_t a[32], uint32_t d[32], unsigned flags,
                       uint64_t seed) {
    approx_pairs(fn, &emu_format_bf16, a, d, flags, seed);
}

void emu_div_approx_f32(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], bool full,
                        unsigned flags, uint64_t seed) {
    uint32_t quotient[32];
    emu_f32_div(a, b, quotient, EMU_RN, flags);
    for (int i = 0; i < 32; i++) {
        uint32_t divisor = b[i] & 0x7fffffff, q = quotient[i];
        bool finite = (a[i] & 0x7fffffff) < 0x7f800000;
        if (!full && finite && divisor > 0x7e800000 && divisor < 0x7f800000)
            q &= 0x80000000;
        else if (seed)
            q = move_ulps(q, mix(seed, 31, a[i] * 0x85ebca6b ^ b[i]), 2, 0x7f800000, 0x80000000);
        d[i] = flags & EMU_FTZ ? emu_flush_f32(q) : q;
    }
}

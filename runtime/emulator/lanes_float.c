/* f32 arithmetic over 32 lanes. To nearest it is the processor's own; in the other directions it
 * goes through double: products of two f32 are exact there, sums and quotients are rounded to odd
 * and then once more (round.h). */
#include "runtime/emulator/lanes_float.h"

#include "runtime/emulator/round.h"

#include <math.h>

EMU_INLINE uint32_t operand(uint32_t bits, bool ftz) {
    return ftz ? emu_flush_f32(bits) : bits;
}

EMU_INLINE uint32_t result(uint32_t bits, bool ftz, bool sat) {
    bits = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fffffff : bits;
    bits = ftz ? emu_flush_f32(bits) : bits;
    return sat ? emu_saturate_f32(bits) : bits;
}

/* A function over lanes: `near` is the result to nearest as a float, `odd` the same as a double to
 * odd, both of x, y, z. A zero that cancels out is -0 when rounding down, +0 otherwise; a double
 * sum gives +0. `cancels` says whether a zero result means that (and not zeros of one sign). */
#define DEFINE_LANES(NAME, PARAMETERS, LOAD, NEAR, ODD, CANCELS)                                   \
    EMU_CLONES static void NAME##_plain(PARAMETERS, uint32_t *d) {                                 \
        const bool ftz = false;                                                                    \
        EMU_LANES for (int i = 0; i < 32; i++) {                                                   \
            LOAD;                                                                                  \
            d[i] = result(emu_bits_of(NEAR), ftz, false);                                          \
        }                                                                                          \
    }                                                                                              \
    EMU_CLONES static void NAME##_near(PARAMETERS, uint32_t *d, bool ftz, bool sat) {              \
        EMU_LANES for (int i = 0; i < 32; i++) {                                                   \
            LOAD;                                                                                  \
            d[i] = result(emu_bits_of(NEAR), ftz, sat);                                            \
        }                                                                                          \
    }                                                                                              \
    EMU_CLONES static void NAME##_directed(PARAMETERS, uint32_t *d, emu_round round, bool ftz,     \
                                           bool sat) {                                             \
        for (int i = 0; i < 32; i++) {                                                             \
            LOAD;                                                                                  \
            double r = ODD;                                                                        \
            uint32_t bits = emu_round_double(r, &emu_format_f32, round, false);                    \
            if (r == 0 && (CANCELS))                                                               \
                bits = round == EMU_RM ? 0x80000000 : 0;                                           \
            d[i] = result(bits, ftz, sat);                                                         \
        }                                                                                          \
    }

#define UNARY const uint32_t *a
#define LOAD_1 float x = emu_float_of(operand(a[i], ftz))
#define BINARY const uint32_t *a, const uint32_t *b
#define LOAD_2                                                                                     \
    LOAD_1;                                                                                        \
    float y = emu_float_of(operand(b[i], ftz))
#define TERNARY const uint32_t *a, const uint32_t *b, const uint32_t *c
#define LOAD_3                                                                                     \
    LOAD_2;                                                                                        \
    float z = emu_float_of(operand(c[i], ftz))
#define LOAD_SUB                                                                                   \
    LOAD_1;                                                                                        \
    float y = emu_float_of(operand(b[i], ftz) ^ 0x80000000)

/* The exact quotient minus q has the sign of the remainder a - q b over b, the exact root minus s
 * that of a - s s: fma gives both remainders without error. */
EMU_INLINE double quotient_to_odd(double a, double b) {
    double q = a / b, remainder = fma(-q, b, a);
    return emu_to_odd(q, b < 0 ? -remainder : remainder);
}

EMU_INLINE double root_to_odd(double a) {
    double s = sqrt(a);
    return emu_to_odd(s, fma(-s, s, a));
}

EMU_INLINE bool differ(double a, double b) {
    return signbit(a) != signbit(b);
}

DEFINE_LANES(add, BINARY, LOAD_2, x + y, emu_add_to_odd(x, y), differ(x, y))
DEFINE_LANES(sub, BINARY, LOAD_SUB, x + y, emu_add_to_odd(x, y), differ(x, y))
DEFINE_LANES(mul, BINARY, LOAD_2, (x) * (y), (double)(x) * (y), false)
DEFINE_LANES(fma, TERNARY, LOAD_3, fmaf(x, y, z), emu_add_to_odd((double)x *y, z),
             differ((double)x *y, z))
DEFINE_LANES(div, BINARY, LOAD_2, x / y, quotient_to_odd(x, y), false)
DEFINE_LANES(sqrt, UNARY, LOAD_1, sqrtf(x), root_to_odd(x), false)
DEFINE_LANES(rcp, UNARY, LOAD_1, 1.0f / x, quotient_to_odd(1.0, x), false)

#define DISPATCH(NAME, ...)                                                                        \
    bool ftz = flags & EMU_FTZ, sat = flags & EMU_SAT;                                             \
    if (round == EMU_RN && !ftz && !sat)                                                           \
        NAME##_plain(__VA_ARGS__);                                                                 \
    else if (round == EMU_RN)                                                                      \
        NAME##_near(__VA_ARGS__, ftz, sat);                                                        \
    else                                                                                           \
        NAME##_directed(__VA_ARGS__, round, ftz, sat)

void emu_f32_add(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], emu_round round,
                 unsigned flags) {
    DISPATCH(add, a, b, d);
}

void emu_f32_sub(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], emu_round round,
                 unsigned flags) {
    DISPATCH(sub, a, b, d);
}

void emu_f32_mul(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], emu_round round,
                 unsigned flags) {
    DISPATCH(mul, a, b, d);
}

void emu_f32_fma(const uint32_t a[32], const uint32_t b[32], const uint32_t c[32], uint32_t d[32],
                 emu_round round, unsigned flags) {
    DISPATCH(fma, a, b, c, d);
}

void emu_f32_div(const uint32_t a[32], const uint32_t b[32], uint32_t d[32], emu_round round,
                 unsigned flags) {
    DISPATCH(div, a, b, d);
}

void emu_f32_sqrt(const uint32_t a[32], uint32_t d[32], emu_round round, unsigned flags) {
    DISPATCH(sqrt, a, d);
}

void emu_f32_rcp(const uint32_t a[32], uint32_t d[32], emu_round round, unsigned flags) {
    DISPATCH(rcp, a, d);
}

/* --- minimum and maximum -------------------------------------------------------------------------
 */

/* Bits in an order that integers have too: -0 before +0. */
EMU_INLINE int32_t ordered(uint32_t bits) {
    return (int32_t)(bits ^ (bits >> 31 ? 0x7fffffffu : 0));
}

EMU_INLINE uint32_t choose(uint32_t x, uint32_t y, bool max, unsigned flags) {
    uint32_t sign = 0;
    if (flags & EMU_FTZ) {
        x = emu_flush_f32(x);
        y = emu_flush_f32(y);
    }
    if (flags & EMU_XORSIGN) {
        sign = (x ^ y) & 0x80000000;
        x &= 0x7fffffff;
        y &= 0x7fffffff;
    }
    bool x_nan = (x & 0x7fffffff) > 0x7f800000, y_nan = (y & 0x7fffffff) > 0x7f800000;
    bool first = max ? ordered(x) > ordered(y) : ordered(x) < ordered(y);
    uint32_t chosen = y_nan ? x : x_nan ? y : first ? x : y;
    bool nan = flags & EMU_NAN ? x_nan || y_nan : x_nan && y_nan;
    return nan ? 0x7fffffff : chosen | sign;
}

EMU_CLONES void emu_f32_min(const uint32_t a[32], const uint32_t b[32], uint32_t d[32],
                            unsigned flags) {
    EMU_LANES for (int i = 0; i < 32; i++) d[i] = choose(a[i], b[i], false, flags);
}

EMU_CLONES void emu_f32_max(const uint32_t a[32], const uint32_t b[32], uint32_t d[32],
                            unsigned flags) {
    EMU_LANES for (int i = 0; i < 32; i++) d[i] = choose(a[i], b[i], true, flags);
}

/* For tests of the GPU emulator's floating-point lanes: small formats computed from their fields
 * with ldexp, rounding by a search among all numbers of the format, random numbers with many
 * special ones. Included by one test file each. */
#ifndef MCC_TESTS_EMULATOR_FLOAT_H
#define MCC_TESTS_EMULATOR_FLOAT_H

#include "quick_checks.h"
#include "runtime/emulator/lanes_float.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

static uint64_t state = 1;
static inline uint32_t next(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* --- small formats, by definition ----------------------------------------------------------------
 */

typedef struct format {
    const char *name;
    emu_number number;
    int e_bits, m_bits;
    bool has_inf;
    int count;              /* non-negative finite numbers */
    uint32_t nan, infinity; /* what overflow gives */
    double values[1 << 18]; /* and one more, the next power of two: where the next would be */
} format;

static format f16 = {"f16", EMU_NUMBER_F16, 5, 10, true, 0, 0x7fff, 0x7c00, {0}};
static format bf16 = {"bf16", EMU_NUMBER_BF16, 8, 7, true, 0, 0x7fff, 0x7f80, {0}};
static format e4m3 = {"e4m3", EMU_NUMBER_E4M3, 4, 3, false, 0, 0x7f, 0x7f, {0}};
static format e5m2 = {"e5m2", EMU_NUMBER_E5M2, 5, 2, true, 0, 0x7f, 0x7c, {0}};
static format tf32 = {"tf32", EMU_NUMBER_TF32, 8, 10, true, 0, 0x3ffff, 0x3fc00, {0}};
static format *const formats[] = {&f16, &bf16, &e4m3, &e5m2, &tf32};
enum { N_FORMATS = 5 };

static inline int shift_of(const format *f) {
    return f->number == EMU_NUMBER_TF32 ? 13 : 0;
}
static inline uint32_t sign_of(const format *f) {
    return 1u << (f->e_bits + f->m_bits);
}

static inline void make_tables(void) {
    for (int i = 0; i < N_FORMATS; i++) {
        format *f = formats[i];
        int bias = (1 << (f->e_bits - 1)) - 1;
        uint32_t codes = sign_of(f) - (f->has_inf ? 1u << f->m_bits : 1);
        f->count = (int)codes;
        for (uint32_t code = 0; code <= codes; code++) {
            int e = (int)(code >> f->m_bits);
            double m = code & ((1u << f->m_bits) - 1);
            f->values[code] =
                e ? ldexp(1 + ldexp(m, -f->m_bits), e - bias) : ldexp(m, 1 - bias - f->m_bits);
        }
    }
}

/* A finite or infinite x rounded: the two neighbours are searched, and the rule applied. */
static inline uint32_t slow_round(const format *f, long double x, emu_round round, bool satfinite) {
    uint32_t sign = signbit(x) ? sign_of(f) : 0;
    long double magnitude = fabsl(x);
    if (isnan(x))
        return f->nan << shift_of(f);
    bool up = round == EMU_RP ? !sign : round == EMU_RM ? sign : false;
    bool nearest = round == EMU_RN || round == EMU_RNA;
    uint32_t largest = (uint32_t)f->count - 1, code;
    if (isinf(x)) {
        code = satfinite ? largest : f->infinity;
        return (code | sign) << shift_of(f);
    }
    int low = 0, high = f->count; /* values[low] <= magnitude, values[high] > it or one past */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (f->values[middle] <= magnitude)
            low = middle;
        else
            high = middle;
    }
    long double below = f->values[low], above = f->values[low + 1];
    code = (uint32_t)low;
    if (magnitude >= above) { /* past the end of the table */
        code += up || nearest;
    } else if (nearest) {
        long double down_by = magnitude - below, up_by = above - magnitude;
        if (up_by < down_by || (up_by == down_by && (round == EMU_RNA || low % 2 == 1)))
            code++;
    } else if (magnitude != below && up) {
        code++;
    }
    if (code > largest)
        code = satfinite ? largest : f->infinity;
    return (code | sign) << shift_of(f);
}

static inline long double value_of(const format *f, uint32_t h) {
    uint32_t magnitude = h & 0x7fff;
    long double x = (int)magnitude < f->count    ? f->values[magnitude]
                    : (int)magnitude == f->count ? INFINITY
                                                 : NAN;
    return h & 0x8000 ? -x : x;
}

static inline uint32_t random_half(const format *f) {
    uint32_t h = next() & 0xffff;
    switch (next() % 6) {
    case 0:
        return (h & 0x8000) | (h & 7); /* tiny */
    case 1:
        return (h & 0x8000) | ((uint32_t)f->count - (h & 3)); /* largest, infinity, NaN */
    case 2:
        return f == &f16 ? (h & 0x83ff) | 0x3c00 : (h & 0x807f) | 0x3f80; /* in [1, 2) */
    case 3:
        return f == &f16 ? (h & 0x8fff) | 0x3000 : (h & 0x83ff) | 0x3e00; /* around 1 */
    default:
        return h;
    }
}

/* --- f32 -----------------------------------------------------------------------------------------
 */

static inline uint32_t random_float(void) {
    uint32_t x = next();
    switch (next() % 6) {
    case 0:
        return x & 0x80000fff; /* subnormal */
    case 1:
        return (x & 0x80000000) | (0x7f7ffffe + (x & 3)); /* largest, infinity, NaN */
    case 2:
        return (x & 0x80ffffff) | 0x3f000000;
    case 3:
        return (x & 0x80000000) | (x % 3 == 0 ? 0 : 0x3f800000 + (x & 7));
    default:
        return x;
    }
}

static inline void round_like(int mode) {
    static const int processor_modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    fesetround(processor_modes[mode]);
}

static inline uint32_t flush(uint32_t x) {
    return x & 0x7f800000 ? x : x & 0x80000000;
}

static inline uint32_t finish(float x, unsigned flags) {
    uint32_t bits = isnan(x) ? 0x7fffffff : bits_of(x);
    if (flags & EMU_FTZ)
        bits = flush(bits);
    if (flags & EMU_SAT)
        bits = isnan(x) || bits >> 31 ? 0 : bits > 0x3f800000 ? 0x3f800000 : bits;
    return bits;
}

#endif

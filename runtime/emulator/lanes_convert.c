/* cvt over 32 lanes. Any value is first made exact: integers as sign and magnitude, floating-point
 * numbers as double. The conversions that kernels live in have loops of their own. */
#include "runtime/emulator/lanes_float.h"
#include "runtime/emulator/round.h"

#include <limits.h>
#include <math.h>

static const uint64_t NAN_F64 = 0x7fffffffffffffff;

static bool is_integer(int type) {
    return type <= EMU_NUMBER_U64;
}
static bool is_signed(int type) {
    return type <= EMU_NUMBER_S64;
}

static int integer_bits(int type) {
    return 8 << (type & 3);
}

static const emu_format *format_of(int type) {
    switch (type) {
    case EMU_NUMBER_F16:
        return &emu_format_f16;
    case EMU_NUMBER_BF16:
        return &emu_format_bf16;
    case EMU_NUMBER_TF32:
        return &emu_format_tf32;
    case EMU_NUMBER_E4M3:
        return &emu_format_e4m3;
    case EMU_NUMBER_E5M2:
        return &emu_format_e5m2;
    default:
        return &emu_format_f32;
    }
}

float emu_f16_value(uint16_t bits) {
    return emu_f16_to_float(bits);
}
float emu_bf16_value(uint16_t bits) {
    return emu_bf16_to_float(bits);
}
float emu_e4m3_value(uint8_t bits) {
    return emu_e4m3_to_float(bits);
}
float emu_e5m2_value(uint8_t bits) {
    return emu_e5m2_to_float(bits);
}

uint32_t emu_round_f64(double x, emu_number to, emu_round round, bool satfinite) {
    return emu_round_double(x, format_of(to), round, satfinite);
}

static double float_operand(uint64_t bits, const emu_convert *op) {
    switch (op->from) {
    case EMU_NUMBER_F64:
        return emu_double_of(bits);
    case EMU_NUMBER_F16:
        return emu_f16_to_float(bits & 0xffff);
    case EMU_NUMBER_BF16:
        return emu_bf16_to_float(bits & 0xffff);
    case EMU_NUMBER_E4M3:
        return emu_e4m3_to_float(bits & 0xff);
    case EMU_NUMBER_E5M2:
        return emu_e5m2_to_float(bits & 0xff);
    default:
        return emu_float_of(op->flags & EMU_FTZ ? emu_flush_f32((uint32_t)bits) : (uint32_t)bits);
    }
}

static double to_integral(double x, emu_round round) {
    switch (round) {
    case EMU_RZ:
        return trunc(x);
    case EMU_RM:
        return floor(x);
    case EMU_RP:
        return ceil(x);
    default:
        return rint(x); /* the process runs in round-to-nearest */
    }
}

/* A rounded value to an integer type: saturated, then extended to 64 bits. */
static uint64_t integer_of(double x, const emu_convert *op) {
    int bits = integer_bits(op->to);
    bool is_wide = op->from == EMU_NUMBER_F64 || bits == 64;
    if (isnan(x)) {
        uint64_t top = is_wide ? 1ull << (bits - 1) : 0;
        return is_signed(op->to) && top ? ~(top - 1) : top;
    }
    x = to_integral(x, op->round);
    if (is_signed(op->to)) {
        double limit = ldexp(1, bits - 1);
        if (x >= limit)
            return (1ull << (bits - 1)) - 1;
        return (uint64_t)(x < -limit ? (int64_t)-limit : (int64_t)x);
    }
    if (x <= 0)
        return 0;
    if (x >= ldexp(1, bits))
        return bits == 64 ? UINT64_MAX : (1ull << bits) - 1;
    return (uint64_t)x;
}

/* An integer's magnitude to f64. */
static double magnitude_to_f64(uint64_t m, bool negative, emu_round round) {
    if (m >> 53) {
        int cut = 11 - __builtin_clzll(m);
        uint64_t kept = m >> cut, rest = m - (kept << cut);
        kept += emu_rounds_up(kept, rest, 1ull << (cut - 1), negative, round);
        return ldexp((double)kept, cut);
    }
    return (double)m;
}

/* The same with what is lost in the last bit, for a second rounding. */
static double magnitude_to_odd(uint64_t m) {
    return m >> 53 ? (double)(m >> 11 | ((m & 2047) != 0)) * 2048 : (double)m;
}

static uint64_t finish_float(uint64_t bits, const emu_convert *op) {
    static const struct {
        uint64_t sign, infinity, one;
    } layouts[] = {
        [EMU_NUMBER_F16] = {0x8000, 0x7c00, 0x3c00},
        [EMU_NUMBER_BF16] = {0x8000, 0x7f80, 0x3f80},
        [EMU_NUMBER_TF32] = {0x80000000, 0x7f800000, 0x3f800000},
        [EMU_NUMBER_F32] = {0x80000000, 0x7f800000, 0x3f800000},
        [EMU_NUMBER_F64] = {1ull << 63, 0x7ffull << 52, 0x3ffull << 52},
        [EMU_NUMBER_E4M3] = {0x80, 0x7e, 0x38},
        [EMU_NUMBER_E5M2] = {0x80, 0x7c, 0x3c},
    };
    uint64_t sign = layouts[op->to].sign, one = layouts[op->to].one;
    bool nan = (bits & ~sign) > layouts[op->to].infinity, negative = bits & sign;
    if (op->to == EMU_NUMBER_F32 && op->flags & EMU_FTZ)
        bits = emu_flush_f32((uint32_t)bits);
    if (op->flags & EMU_SAT)
        return nan || negative ? 0 : bits > one ? one : bits;
    if (op->flags & EMU_RELU)
        return negative && !nan ? 0 : bits;
    return bits;
}

static uint64_t float_of(double x, const emu_convert *op) {
    if (op->to == EMU_NUMBER_F64)
        return isnan(x) ? NAN_F64 : emu_bits_of_double(x);
    return emu_round_double(x, format_of(op->to), op->round, op->satfinite);
}

static uint64_t extend(uint64_t value, int type) {
    int unused = 64 - integer_bits(type);
    value <<= unused;
    return is_signed(type) ? (uint64_t)((int64_t)value >> unused) : value >> unused;
}

/* Integers wrap, or clamp with SAT. */
static uint64_t integer_to_integer(uint64_t value, const emu_convert *op) {
    if (op->flags & EMU_SAT) {
        int bits = integer_bits(op->to);
        uint64_t most = is_signed(op->to) ? (1ull << (bits - 1)) - 1 : UINT64_MAX >> (64 - bits);
        bool negative = is_signed(op->from) && (int64_t)value < 0;
        if (negative && !is_signed(op->to))
            return 0;
        if (negative)
            return (int64_t)value < -(int64_t)most - 1 ? ~most : value;
        return value > most ? most : value;
    }
    return extend(value, op->to);
}

static uint64_t convert_one(uint64_t bits, const emu_convert *op) {
    if (!is_integer(op->from)) {
        double x = float_operand(bits, op);
        if (is_integer(op->to))
            return integer_of(x, op);
        return finish_float(float_of(op->integral ? to_integral(x, op->round) : x, op), op);
    }
    bits = extend(bits, op->from);
    if (is_integer(op->to))
        return integer_to_integer(bits, op);
    bool negative = is_signed(op->from) && (int64_t)bits < 0;
    uint64_t m = negative ? 0 - bits : bits;
    double x =
        op->to == EMU_NUMBER_F64 ? magnitude_to_f64(m, negative, op->round) : magnitude_to_odd(m);
    return finish_float(float_of(negative ? -x : x, op), op);
}

void emu_convert64(const emu_convert *op, const uint64_t a[32], uint64_t d[32]) {
    for (int i = 0; i < 32; i++)
        d[i] = convert_one(a[i], op);
}

/* --- fast loops ----------------------------------------------------------------------------------
 */

EMU_CLONES static void f32_to_f16(const uint32_t *a, uint32_t *d) {
    EMU_LANES for (int i = 0; i < 32; i++) d[i] =
        emu_round_float(emu_float_of(a[i]), &emu_format_f16, EMU_RN, false);
}

EMU_CLONES static void f32_to_bf16(const uint32_t *a, uint32_t *d) {
    EMU_LANES for (int i = 0; i < 32; i++) d[i] =
        emu_round_float(emu_float_of(a[i]), &emu_format_bf16, EMU_RN, false);
}

EMU_INLINE uint32_t canonical(float x) {
    return x != x ? 0x7fffffff : emu_bits_of(x);
}

EMU_CLONES static void f16_to_f32(const uint32_t *a, uint32_t *d) {
    EMU_LANES for (int i = 0; i < 32; i++) d[i] = canonical(emu_f16_to_float(a[i] & 0xffff));
}

EMU_CLONES static void bf16_to_f32(const uint32_t *a, uint32_t *d) {
    EMU_LANES for (int i = 0; i < 32; i++) d[i] = canonical(emu_bf16_to_float(a[i]));
}

EMU_CLONES static void s32_to_f32(const uint32_t *a, uint32_t *d) {
    EMU_LANES for (int i = 0; i < 32; i++) d[i] = emu_bits_of((float)(int32_t)a[i]);
}

EMU_CLONES static void u32_to_f32(const uint32_t *a, uint32_t *d) {
    EMU_LANES for (int i = 0; i < 32; i++) d[i] = emu_bits_of((float)a[i]);
}

/* x is rounded already. A float limit of 2^31 is exact. */
EMU_INLINE uint32_t clamp_s32(float x) {
    int32_t inside = (int32_t)(x < 2147483648.0f && x >= -2147483648.0f ? x : 0.0f);
    return x >= 2147483648.0f ? 0x7fffffff : x < -2147483648.0f ? 0x80000000 : (uint32_t)inside;
}

EMU_CLONES static void f32_to_s32(const uint32_t *a, uint32_t *d, emu_round round) {
    switch (round) {
    case EMU_RZ:
        EMU_LANES for (int i = 0; i < 32; i++) d[i] = clamp_s32(truncf(emu_float_of(a[i])));
        break;
    case EMU_RM:
        EMU_LANES for (int i = 0; i < 32; i++) d[i] = clamp_s32(floorf(emu_float_of(a[i])));
        break;
    case EMU_RP:
        EMU_LANES for (int i = 0; i < 32; i++) d[i] = clamp_s32(ceilf(emu_float_of(a[i])));
        break;
    default:
        EMU_LANES for (int i = 0; i < 32; i++) d[i] = clamp_s32(rintf(emu_float_of(a[i])));
        break;
    }
}

EMU_CLONES static void clamp_lanes(uint32_t *d, int32_t least, int32_t most) {
    for (int i = 0; i < 32; i++) {
        int32_t x = (int32_t)d[i];
        d[i] = (uint32_t)(x < least ? least : x > most ? most : x);
    }
}

EMU_CLONES static void f32_to_fp8(const uint32_t *a, uint32_t *d, bool e4m3) {
    if (e4m3) {
        EMU_LANES for (int i = 0; i < 32; i++) d[i] =
            emu_round_float(emu_float_of(a[i]), &emu_format_e4m3, EMU_RN, true);
    } else {
        EMU_LANES for (int i = 0; i < 32; i++) d[i] =
            emu_round_float(emu_float_of(a[i]), &emu_format_e5m2, EMU_RN, true);
    }
}

EMU_CLONES static void fp8_to_f16(const uint32_t *a, uint32_t *d, bool e4m3) {
    EMU_LANES for (int i = 0; i < 32; i++) {
        float x = e4m3 ? emu_e4m3_to_float(a[i]) : emu_e5m2_to_float(a[i]);
        d[i] = emu_round_float(x, &emu_format_f16, EMU_RN, false);
    }
}

/* The conversions of quantized data, through a wider integer or a loop of their own. */
static bool convert_quantized(const emu_convert *op, const uint32_t a[32], uint32_t d[32]) {
    int from = op->from, to = op->to;
    bool e4m3 = from == EMU_NUMBER_E4M3 || to == EMU_NUMBER_E4M3;
    bool from_fp8 = from == EMU_NUMBER_E4M3 || from == EMU_NUMBER_E5M2;
    bool to_fp8 = to == EMU_NUMBER_E4M3 || to == EMU_NUMBER_E5M2;
    if (from == EMU_NUMBER_F32 && to_fp8 && op->satfinite && op->round == EMU_RN) {
        f32_to_fp8(a, d, e4m3);
    } else if (op->satfinite) {
        return false;
    } else if (from_fp8 && to == EMU_NUMBER_F16) {
        fp8_to_f16(a, d, e4m3);
    } else if (to == EMU_NUMBER_F32 && is_integer(from) && integer_bits(from) < 32) {
        uint32_t wide[32];
        for (int i = 0; i < 32; i++)
            wide[i] = (uint32_t)extend(a[i], from);
        s32_to_f32(wide, d);
    } else if (from == EMU_NUMBER_F32 && is_integer(to) && integer_bits(to) < 32) {
        int32_t range = 1 << integer_bits(to), half = range / 2;
        f32_to_s32(a, d, op->round);
        clamp_lanes(d, is_signed(to) ? -half : 0, is_signed(to) ? half - 1 : range - 1);
    } else {
        return false;
    }
    return true;
}

/* These loops know no modifiers, and no rounding but to nearest where results are rounded. */
static bool convert_fast(const emu_convert *op, const uint32_t a[32], uint32_t d[32]) {
    if (op->flags || op->integral)
        return false;
    if (convert_quantized(op, a, d))
        return true;
    if (op->satfinite)
        return false;
    int from = op->from, to = op->to;
    if (to == EMU_NUMBER_F32 && from == EMU_NUMBER_F16)
        f16_to_f32(a, d);
    else if (to == EMU_NUMBER_F32 && from == EMU_NUMBER_BF16)
        bf16_to_f32(a, d);
    else if (from == EMU_NUMBER_F32 && to == EMU_NUMBER_S32)
        f32_to_s32(a, d, op->round);
    else if (op->round != EMU_RN)
        return false;
    else if (from == EMU_NUMBER_F32 && to == EMU_NUMBER_F16)
        f32_to_f16(a, d);
    else if (from == EMU_NUMBER_F32 && to == EMU_NUMBER_BF16)
        f32_to_bf16(a, d);
    else if (from == EMU_NUMBER_S32 && to == EMU_NUMBER_F32)
        s32_to_f32(a, d);
    else if (from == EMU_NUMBER_U32 && to == EMU_NUMBER_F32)
        u32_to_f32(a, d);
    else
        return false;
    return true;
}

void emu_convert32(const emu_convert *op, const uint32_t a[32], uint32_t d[32]) {
    if (convert_fast(op, a, d))
        return;
    if (is_integer(op->from) && is_integer(op->to) && !(op->flags & EMU_SAT)) {
        emu_convert narrow = *op;
        for (int i = 0; i < 32; i++)
            d[i] = (uint32_t)extend(extend(a[i], narrow.from), narrow.to);
        return;
    }
    for (int i = 0; i < 32; i++)
        d[i] = (uint32_t)convert_one(a[i], op);
}

static int pair_shift(int type) {
    return type == EMU_NUMBER_E4M3 || type == EMU_NUMBER_E5M2 ? 8 : 16;
}

void emu_pack2(const emu_convert *op, const uint32_t high[32], const uint32_t low[32],
               uint32_t d[32]) {
    uint32_t upper[32], lower[32];
    int shift = pair_shift(op->to);
    emu_convert32(op, high, upper);
    emu_convert32(op, low, lower);
    for (int i = 0; i < 32; i++)
        d[i] = upper[i] << shift | lower[i];
}

void emu_convert_pair(const emu_convert *op, const uint32_t a[32], uint32_t d[32]) {
    uint32_t upper[32], lower[32];
    int from = pair_shift(op->from), to = pair_shift(op->to);
    for (int i = 0; i < 32; i++) {
        upper[i] = a[i] >> from & ((1u << from) - 1);
        lower[i] = a[i] & ((1u << from) - 1);
    }
    emu_convert32(op, upper, upper);
    emu_convert32(op, lower, lower);
    for (int i = 0; i < 32; i++)
        d[i] = upper[i] << to | lower[i];
}

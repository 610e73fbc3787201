// Scalar operations of row programs: scalar_<name of codegen/scalar.def>.
//
// The same operations in the same order as codegen/cpu/scalar.c, where ranges and errors are
// stated: both give the same bits. A generated program calls these by name.
#pragma once

#include "common.cuh"

constexpr uint32 NAN_BITS = 0x7fc00000u, INFINITY_BITS = 0x7f800000u;

// Adding this to |x| < 2^22 rounds x to an integer, in the low bits of the sum.
constexpr float ROUND_MAGIC = 12582912.0f;

// Sum of coefficients[i] * x^(n-1-i), by Horner's rule with FMAs.
template <int n> INLINE float polynomial(float x, const float (&c)[n]) {
    float p = c[0];
#pragma unroll
    for (int i = 1; i < n; i++)
        p = __fmaf_rn(p, x, c[i]);
    return p;
}

template <int n> INLINE double polynomial64(double x, const double (&c)[n]) {
    double p = c[0];
#pragma unroll
    for (int i = 1; i < n; i++)
        p = __fma_rn(p, x, c[i]);
    return p;
}

// --- exp, log -------------------------------------------------------------------------------------

// x = n*ln2 + r: sum holds n in its low bits; returns exp(r).
INLINE float exp_reduced(float x, float &sum) {
    constexpr float p[] = {0x1.6d11062c7656fp-10f, 0x1.120b6b34aae20p-7f, 0x1.5555192ed6e85p-5f,
                           0x1.5554dcfb7f5e9p-3f, 0.5f};
    sum = __fmaf_rn(x, 0x1.71547652b82fep+0f, ROUND_MAGIC);
    float n = __fsub_rn(sum, ROUND_MAGIC);
    float r = __fmaf_rn(n, -0x1.62e430p-1f, x);
    r = __fmaf_rn(n, 0x1.05c610p-29f, r);
    float r2 = __fmul_rn(r, r);
    float e = __fmaf_rn(r2, polynomial(r, p), r);
    return __fadd_rn(e, 1.0f);
}

// Between two bounds; a NaN stays one.
INLINE float bounded(float x, float least, float most) {
    asm("max.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(least));
    asm("min.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(most));
    return x;
}

INLINE float scalar_exp(float x) {
    x = bounded(x, -105.0f, 89.0f);
    float sum, e = exp_reduced(x, sum);
    int32 exponent = static_cast<int32>(float_bits(sum) - 0x4b400000u);
    int32 half = exponent >> 1, rest = exponent - half;
    e = __fmul_rn(e, bits_float(static_cast<uint32>(half + 127) << 23));
    return __fmul_rn(e, bits_float(static_cast<uint32>(rest + 127) << 23));
}

// For x <= 0, for softmax: below -87 it is 0; a NaN stays one.
INLINE float exp_nonpositive(float x) {
    float sum, e = exp_reduced(x, sum);
    e = bits_float(float_bits(e) + (float_bits(sum) << 23));
    return x < -87.0f ? 0.0f : e;
}

INLINE float scalar_log(float x) {
    constexpr float p[] = {0x1.1d8f605c77eb8p-4f,  -0x1.d636d065fabb0p-4f, 0x1.dea2c09661c15p-4f,
                           -0x1.fcf4a774f2b40p-4f, 0x1.23d214f8f5ca4p-3f,  -0x1.555b4a0b2d4a3p-3f,
                           0x1.999d5a6475726p-3f,  -0x1.fffffbe9ef88dp-3f, 0x1.555553e355382p-2f};
    bool small = x < 0x1p-126f;
    uint32 bits = float_bits(__fmul_rn(x, small ? 0x1p23f : 1.0f));
    int32 whole = static_cast<int32>(bits - 0x3f3504f3u) >> 23;
    uint32 m = bits - (static_cast<uint32>(whole) << 23);
    float n = __fsub_rn(__int2float_rn(whole), small ? 23.0f : 0.0f);
    float f = __fsub_rn(bits_float(m), 1.0f);
    float f2 = __fmul_rn(f, f);
    float y = __fmul_rn(__fmul_rn(f2, f), polynomial(f, p));
    y = __fmaf_rn(n, -0x1.05c610p-29f, y);
    y = __fmaf_rn(f2, -0.5f, y);
    y = __fadd_rn(f, y);
    y = __fmaf_rn(n, 0x1.62e430p-1f, y);
    y = x == 0.0f ? -bits_float(INFINITY_BITS) : y;
    y = x == bits_float(INFINITY_BITS) ? x : y;
    return !(x >= 0.0f) ? bits_float(NAN_BITS) : y;
}

// --- tanh, erf, sigmoid ---------------------------------------------------------------------------

INLINE float copy_sign(float magnitude, float sign) {
    return bits_float((float_bits(magnitude) & 0x7fffffffu) | (float_bits(sign) & 0x80000000u));
}

INLINE float magnitude(float x) {
    return bits_float(float_bits(x) & 0x7fffffffu);
}

INLINE float scalar_tanh(float x) {
    constexpr float p[] = {-0x1.8f86ef13d18c6p-8f, 0x1.58035b4d40228p-6f, -0x1.b9256ab1a64b1p-5f,
                           0x1.110e1c1721386p-3f, -0x1.555552629a11bp-2f};
    float a = magnitude(x), z = __fmul_rn(x, x), xz = __fmul_rn(x, z);
    float small = __fmaf_rn(xz, polynomial(z, p), x);
    float e = scalar_exp(__fadd_rn(a, a));
    e = __fdiv_rn(2.0f, __fadd_rn(e, 1.0f));
    float large = copy_sign(__fsub_rn(1.0f, e), x);
    return a < 0.625f ? small : large;
}

INLINE float scalar_erf(float x) {
    constexpr float p[] = {0x1.5fc786fee87b3p-14f, -0x1.ab244590dc9b9p-11f, 0x1.54e1f4d0486bcp-8f,
                           -0x1.b8114722bbf09p-6f, 0x1.ce2e29ce936d4p-4f,   -0x1.81274369e03dfp-2f,
                           0x1.06eba812c6776p-3f};
    constexpr float q[] = {-0x1.ce997c5e6f0e6p-25f, 0x1.78bcdfa8a66dbp-19f,
                           -0x1.de8b49dcb4b76p-15f, 0x1.578c2c45c7207p-11f,
                           -0x1.449cf2eebc0d9p-8f,  0x1.b7a60f4ae5cc9p-6f,
                           -0x1.c53464209701ap-4f,  -0x1.433ff519e3c40p-1f,
                           -0x1.2165d61b7cf10p+0f,  0x1.7f9a1bb668e7ep-12f};
    float a = magnitude(x), z = __fmul_rn(x, x);
    float small = __fmaf_rn(x, polynomial(z, p), x);
    float clamped = a > 4.0f ? 4.0f : a;
    float tail = scalar_exp(polynomial(clamped, q));
    float large = copy_sign(__fsub_rn(1.0f, tail), x);
    return a < 0.9218f ? small : large;
}

INLINE float scalar_sigmoid(float x) {
    return __fdiv_rn(1.0f, __fadd_rn(scalar_exp(-x), 1.0f));
}

// --- sin, cos -------------------------------------------------------------------------------------

INLINE float sin_cos(float x, uint32 shift) {
    constexpr float sin_p[] = {0x1.6dbdc6f2b85e2p-19f, -0x1.a013a6ca5789cp-13f,
                               0x1.11110dee98fb5p-7f, -0x1.555555545dcd6p-3f};
    constexpr float cos_p[] = {-0x1.2524228ea066dp-22f, 0x1.a015c3f71c2f7p-16f,
                               -0x1.6c16bf548391dp-10f, 0x1.5555555502badp-5f};
    float sum = __fmaf_rn(x, 0x1.45f306dc9c883p-1f, ROUND_MAGIC);
    float n = __fsub_rn(sum, ROUND_MAGIC);
    float r = __fmaf_rn(n, -0x1.921fb6p+0f, x);
    r = __fmaf_rn(n, 0x1.777a5cp-25f, r);
    r = __fmaf_rn(n, 0x1.ee59dap-50f, r);
    float z = __fmul_rn(r, r), rz = __fmul_rn(r, z);
    float sine = __fmaf_rn(rz, polynomial(z, sin_p), r);
    float half_z = __fmul_rn(z, 0.5f), head = __fsub_rn(1.0f, half_z);
    float lost = __fsub_rn(__fsub_rn(1.0f, head), half_z);
    float tail = __fmaf_rn(__fmul_rn(z, z), polynomial(z, cos_p), lost);
    float cosine = __fadd_rn(head, tail);
    uint32 quadrant = float_bits(sum) + shift; // only the low two bits count
    float v = quadrant & 1 ? cosine : sine;
    return bits_float(float_bits(v) ^ ((quadrant & 2) << 30));
}

INLINE float scalar_sin(float x) {
    return sin_cos(x, 0);
}
INLINE float scalar_cos(float x) {
    return sin_cos(x, 1);
}

// --- pow ------------------------------------------------------------------------------------------

INLINE double log2_64(float x) {
    constexpr double p[] = {1. / 17, 1. / 15, 1. / 13, 1. / 11, 1. / 9, 1. / 7, 1. / 5, 1. / 3};
    float a = magnitude(x);
    uint64 bits = static_cast<uint64>(__double_as_longlong(static_cast<double>(a)));
    int64 whole = static_cast<int64>(bits - 0x3fe6a09e667f3bcdull) >> 52;
    double m = __longlong_as_double(static_cast<int64>(bits - (static_cast<uint64>(whole) << 52)));
    double n = static_cast<double>(static_cast<int32>(whole));
    double t = __ddiv_rn(__dsub_rn(m, 1.0), __dadd_rn(m, 1.0));
    double z = __dmul_rn(t, t), tz = __dmul_rn(t, z);
    double l = __fma_rn(__fma_rn(tz, polynomial64(z, p), t), 2 * 1.4426950408889634, n);
    double infinity = __longlong_as_double(0x7ff0000000000000ll);
    l = a == 0.0f ? -infinity : l;
    return a == bits_float(INFINITY_BITS) ? infinity : l;
}

INLINE double exp2_64(double t) {
    constexpr double p[] = {1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320,
                            1. / 5040,     1. / 720,     1. / 120,    1. / 24,
                            1. / 6,        1. / 2,       1,           1};
    constexpr double magic = 6755399441055744.0; // 1.5 * 2^52
    t = t > 200.0 ? 200.0 : t;
    t = t < -200.0 ? -200.0 : t;
    double sum = __dadd_rn(t, magic), n = __dsub_rn(sum, magic);
    double f = __dmul_rn(__dsub_rn(t, n), 0.6931471805599453);
    double e = polynomial64(f, p);
    uint64 bits = static_cast<uint64>(__double_as_longlong(sum));
    return __dmul_rn(e, __longlong_as_double(static_cast<int64>((bits + 1023) << 52)));
}

INLINE float scalar_pow(float x, float y) {
    float infinity = bits_float(INFINITY_BITS), nan = bits_float(NAN_BITS);
    double t = __dmul_rn(static_cast<double>(y), log2_64(x));
    float r = __double2float_rn(exp2_64(t));
    bool integer = floorf(y) == y;
    float half = __fmul_rn(y, 0.5f);
    bool odd = integer && !(floorf(half) == half) && magnitude(y) < infinity;
    r = odd ? copy_sign(r, x) : r;
    r = x < 0.0f && x > -infinity && !integer ? nan : r;
    r = x != x || y != y ? nan : r;
    bool unit = (x == -1.0f && magnitude(y) == infinity) || x == 1.0f || y == 0.0f;
    return unit ? 1.0f : r;
}

// --- arithmetic -----------------------------------------------------------------------------------

INLINE float scalar_neg(float x) {
    return -x;
}
INLINE float scalar_abs(float x) {
    return magnitude(x);
}
INLINE float scalar_sqrt(float x) {
    return __fsqrt_rn(x);
}
INLINE float scalar_rsqrt(float x) {
    return __fdiv_rn(1.0f, __fsqrt_rn(x));
}
INLINE float scalar_add(float x, float y) {
    return __fadd_rn(x, y);
}
INLINE float scalar_sub(float x, float y) {
    return __fsub_rn(x, y);
}
INLINE float scalar_mul(float x, float y) {
    return __fmul_rn(x, y);
}
INLINE float scalar_div(float x, float y) {
    return __fdiv_rn(x, y);
}
// A NaN on either side gives NaN.
INLINE float scalar_max(float x, float y) {
    return x > y || x != x ? x : y;
}
INLINE float scalar_min(float x, float y) {
    return x < y || x != x ? x : y;
}
INLINE float scalar_fma(float x, float y, float z) {
    return __fmaf_rn(x, y, z);
}
INLINE float scalar_lt(float x, float y) {
    return x < y ? 1.0f : 0.0f;
}
INLINE float scalar_le(float x, float y) {
    return x <= y ? 1.0f : 0.0f;
}
INLINE float scalar_eq(float x, float y) {
    return x == y ? 1.0f : 0.0f;
}
// Any condition but 0 chooses the first, a NaN too.
INLINE float scalar_where(float condition, float x, float y) {
    return condition != 0.0f ? x : y;
}
INLINE float scalar_round_f16(float x) {
    return f16_to_f32(f32_to_f16(x));
}

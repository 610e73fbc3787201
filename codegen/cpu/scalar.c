/* Scalar operations of row programs, and the transcendental functions they need.
 *
 * Each works on f32 or on <16 x float> and computes the same bits in both, on every target: only
 * IEEE operations, each rounded once, and FMAs that are asked for. Polynomials are minimax-like
 * (Chebyshev) fits made for this file; ranges and errors are stated at each. */
#include "codegen/cpu/emit.h"

#include <assert.h>

/* The shape of the operands: builds constants and conversions of that shape. */
typedef struct shape {
    cg_cpu_emitter *em;
    LLVMBuilderRef b;
    int lanes; /* 0: a scalar */
} shape;

static shape shape_of(cg_cpu_emitter *em, LLVMValueRef v) {
    LLVMTypeRef type = LLVMTypeOf(v);
    bool vector = LLVMGetTypeKind(type) == LLVMVectorTypeKind;
    return (shape){em, em->builder, vector ? (int)LLVMGetVectorSize(type) : 0};
}

static LLVMTypeRef shaped(shape s, LLVMTypeRef element) {
    return s.lanes ? cg_cpu_vector(element, s.lanes) : element;
}

static LLVMValueRef repeat(shape s, LLVMValueRef constant) {
    LLVMValueRef values[CG_CPU_LANES];
    if (!s.lanes)
        return constant;
    assert(s.lanes <= CG_CPU_LANES);
    for (int i = 0; i < s.lanes; i++)
        values[i] = constant;
    return LLVMConstVector(values, (unsigned)s.lanes);
}

static LLVMValueRef f32c(shape s, double v) {
    return repeat(s, cg_cpu_f32(s.em, v));
}

static LLVMValueRef f64c(shape s, double v) {
    return repeat(s, LLVMConstReal(s.em->f64, v));
}

static LLVMValueRef i32c(shape s, int64_t v) {
    return repeat(s, cg_cpu_i32(s.em, v));
}

static LLVMValueRef i64c(shape s, int64_t v) {
    return repeat(s, cg_cpu_i64(s.em, v));
}

static LLVMValueRef infinity(shape s, int sign) {
    return f32c(s, sign * (double)__builtin_inff());
}

static LLVMValueRef as_bits(shape s, LLVMValueRef v) {
    return LLVMBuildBitCast(s.b, v, shaped(s, s.em->i32), "");
}

static LLVMValueRef as_float(shape s, LLVMValueRef v) {
    return LLVMBuildBitCast(s.b, v, shaped(s, s.em->f32), "");
}

static LLVMValueRef choose(shape s, LLVMValueRef condition, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildSelect(s.b, condition, a, b, "");
}

static LLVMValueRef compare(shape s, LLVMRealPredicate predicate, LLVMValueRef a, LLVMValueRef b) {
    return LLVMBuildFCmp(s.b, predicate, a, b, "");
}

static LLVMValueRef unary(shape s, const char *intrinsic, LLVMValueRef v) {
    LLVMTypeRef type = LLVMTypeOf(v);
    return cg_cpu_intrinsic(s.em, intrinsic, 1, &type, 1, &v);
}

static LLVMValueRef fma3(shape s, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c) {
    return cg_cpu_fma(s.em, a, b, c);
}

/* Sum of coefficients[i] * x^(n-1-i), by Horner's rule with FMAs. */
static LLVMValueRef polynomial(shape s, LLVMValueRef x, const double *coefficients, int n) {
    LLVMValueRef p = f32c(s, coefficients[0]);
    for (int i = 1; i < n; i++)
        p = fma3(s, p, x, f32c(s, coefficients[i]));
    return p;
}

static LLVMValueRef polynomial64(shape s, LLVMValueRef x, const double *coefficients, int n) {
    LLVMValueRef p = f64c(s, coefficients[0]);
    for (int i = 1; i < n; i++)
        p = fma3(s, p, x, f64c(s, coefficients[i]));
    return p;
}

#define POLYNOMIAL(s, x, c) polynomial(s, x, c, (int)(sizeof(c) / sizeof((c)[0])))
#define POLYNOMIAL64(s, x, c) polynomial64(s, x, c, (int)(sizeof(c) / sizeof((c)[0])))

/* Adding this to |x| < 2^22 rounds x to an integer, to nearest even, in the low bits of the sum. No
 * conversion instruction, so no NaN or overflow can make the result undefined. */
static const double round_magic = 12582912.0; /* 1.5 * 2^23 */

/* --- exp, log ----------------------------------------------------------------------------------
 */

/* x = n*ln2 + r, |r| <= ln2/2: *sum holds n in its low bits; returns exp(r) = 1 + r + r^2*P(r). */
static LLVMValueRef exp_reduced(shape s, LLVMValueRef x, LLVMValueRef *sum) {
    static const double p[] = {0x1.6d11062c7656fp-10, 0x1.120b6b34aae20p-7, 0x1.5555192ed6e85p-5,
                               0x1.5554dcfb7f5e9p-3, 0.5};
    *sum = fma3(s, x, f32c(s, 0x1.71547652b82fep+0), f32c(s, round_magic));
    LLVMValueRef n = LLVMBuildFSub(s.b, *sum, f32c(s, round_magic), "");
    LLVMValueRef r = fma3(s, n, f32c(s, -0x1.62e430p-1), x);
    r = fma3(s, n, f32c(s, 0x1.05c610p-29), r);
    LLVMValueRef r2 = LLVMBuildFMul(s.b, r, r, "");
    LLVMValueRef e = fma3(s, r2, POLYNOMIAL(s, r, p), r);
    return LLVMBuildFAdd(s.b, e, f32c(s, 1), "");
}

/* 2^n is applied in two factors, so that overflow and gradual underflow come out of one rounding.
 */
LLVMValueRef cg_cpu_exp(cg_cpu_emitter *em, LLVMValueRef x) {
    shape s = shape_of(em, x);
    /* Beyond these bounds the result is infinity or 0 anyway; a NaN passes both. */
    x = choose(s, compare(s, LLVMRealOGT, x, f32c(s, 89)), f32c(s, 89), x);
    x = choose(s, compare(s, LLVMRealOLT, x, f32c(s, -105)), f32c(s, -105), x);
    LLVMValueRef sum, e = exp_reduced(s, x, &sum);
    LLVMValueRef exponent = LLVMBuildSub(s.b, as_bits(s, sum), i32c(s, 0x4b400000), "");
    LLVMValueRef half = LLVMBuildAShr(s.b, exponent, i32c(s, 1), "");
    LLVMValueRef rest = LLVMBuildSub(s.b, exponent, half, "");
    LLVMValueRef factors[] = {half, rest};
    for (int i = 0; i < 2; i++) {
        LLVMValueRef biased = LLVMBuildAdd(s.b, factors[i], i32c(s, 127), "");
        LLVMValueRef power = as_float(s, LLVMBuildShl(s.b, biased, i32c(s, 23), ""));
        e = LLVMBuildFMul(s.b, e, power, "");
    }
    return e;
}

/* n is added to the exponent field: from -87 on the result is a normal number, below it is 0. */
LLVMValueRef cg_cpu_exp_nonpositive(cg_cpu_emitter *em, LLVMValueRef x) {
    shape s = shape_of(em, x);
    LLVMValueRef sum, e = exp_reduced(s, x, &sum);
    LLVMValueRef n = LLVMBuildShl(s.b, as_bits(s, sum), i32c(s, 23), "");
    e = as_float(s, LLVMBuildAdd(s.b, as_bits(s, e), n, ""));
    return choose(s, compare(s, LLVMRealOLT, x, f32c(s, -87)), f32c(s, 0), e);
}

/* x = 2^n * m with m in [sqrt(1/2), sqrt(2)), f = m-1: log(m) = f - f^2/2 + f^3*P(f). */
static LLVMValueRef emit_log(cg_cpu_emitter *em, LLVMValueRef x) {
    static const double p[] = {0x1.1d8f605c77eb8p-4,  -0x1.d636d065fabb0p-4, 0x1.dea2c09661c15p-4,
                               -0x1.fcf4a774f2b40p-4, 0x1.23d214f8f5ca4p-3,  -0x1.555b4a0b2d4a3p-3,
                               0x1.999d5a6475726p-3,  -0x1.fffffbe9ef88dp-3, 0x1.555553e355382p-2};
    shape s = shape_of(em, x);
    LLVMValueRef small = compare(s, LLVMRealOLT, x, f32c(s, 0x1p-126));
    LLVMValueRef normal = LLVMBuildFMul(s.b, x, choose(s, small, f32c(s, 0x1p23), f32c(s, 1)), "");
    /* Subtracting sqrt(1/2)'s bits makes the exponent field count from there. */
    LLVMValueRef bits = as_bits(s, normal), base = i32c(s, 0x3f3504f3);
    LLVMValueRef n = LLVMBuildAShr(s.b, LLVMBuildSub(s.b, bits, base, ""), i32c(s, 23), "");
    LLVMValueRef m = LLVMBuildSub(s.b, bits, LLVMBuildShl(s.b, n, i32c(s, 23), ""), "");
    n = LLVMBuildSIToFP(s.b, n, shaped(s, em->f32), "");
    n = LLVMBuildFSub(s.b, n, choose(s, small, f32c(s, 23), f32c(s, 0)), "");
    LLVMValueRef f = LLVMBuildFSub(s.b, as_float(s, m), f32c(s, 1), "");
    LLVMValueRef f2 = LLVMBuildFMul(s.b, f, f, "");
    LLVMValueRef y = LLVMBuildFMul(s.b, LLVMBuildFMul(s.b, f2, f, ""), POLYNOMIAL(s, f, p), "");
    y = fma3(s, n, f32c(s, -0x1.05c610p-29), y);
    y = fma3(s, f2, f32c(s, -0.5), y);
    y = LLVMBuildFAdd(s.b, f, y, "");
    y = fma3(s, n, f32c(s, 0x1.62e430p-1), y);
    y = choose(s, compare(s, LLVMRealOEQ, x, f32c(s, 0)), infinity(s, -1), y);
    y = choose(s, compare(s, LLVMRealOEQ, x, infinity(s, 1)), infinity(s, 1), y);
    /* negative or NaN: 0/0 of x's own making */
    LLVMValueRef nan = f32c(s, (double)__builtin_nanf(""));
    return choose(s, compare(s, LLVMRealULT, x, f32c(s, 0)), nan, y);
}

/* --- tanh, erf, sigmoid ------------------------------------------------------------------------
 */

static LLVMValueRef copy_sign(shape s, LLVMValueRef magnitude, LLVMValueRef sign) {
    LLVMTypeRef type = LLVMTypeOf(sign);
    return cg_cpu_intrinsic(s.em, "llvm.copysign", 1, &type, 2, (LLVMValueRef[]){magnitude, sign});
}

/* |x| < 0.625: x + x^3*P(x^2), the fit within 5e-8 * x^2; else 1 - 2 / (exp(2|x|) + 1). */
LLVMValueRef cg_cpu_tanh(cg_cpu_emitter *em, LLVMValueRef x) {
    static const double p[] = {-0x1.8f86ef13d18c6p-8, 0x1.58035b4d40228p-6, -0x1.b9256ab1a64b1p-5,
                               0x1.110e1c1721386p-3, -0x1.555552629a11bp-2};
    shape s = shape_of(em, x);
    LLVMValueRef a = unary(s, "llvm.fabs", x);
    LLVMValueRef z = LLVMBuildFMul(s.b, x, x, "");
    LLVMValueRef xz = LLVMBuildFMul(s.b, x, z, "");
    LLVMValueRef small = fma3(s, xz, POLYNOMIAL(s, z, p), x);
    LLVMValueRef e = cg_cpu_exp(em, LLVMBuildFAdd(s.b, a, a, ""));
    e = LLVMBuildFDiv(s.b, f32c(s, 2), LLVMBuildFAdd(s.b, e, f32c(s, 1), ""), "");
    LLVMValueRef large = copy_sign(s, LLVMBuildFSub(s.b, f32c(s, 1), e, ""), x);
    return choose(s, compare(s, LLVMRealOLT, a, f32c(s, 0.625)), small, large);
}

/* |x| < 0.92: x + x*P(x^2); else 1 - exp(Q(|x|)), Q fitted to log(erfc) up to 4, where erf is 1. */
static LLVMValueRef emit_erf(cg_cpu_emitter *em, LLVMValueRef x) {
    static const double p[] = {0x1.5fc786fee87b3p-14, -0x1.ab244590dc9b9p-11, 0x1.54e1f4d0486bcp-8,
                               -0x1.b8114722bbf09p-6, 0x1.ce2e29ce936d4p-4,   -0x1.81274369e03dfp-2,
                               0x1.06eba812c6776p-3};
    static const double q[] = {-0x1.ce997c5e6f0e6p-25, 0x1.78bcdfa8a66dbp-19,
                               -0x1.de8b49dcb4b76p-15, 0x1.578c2c45c7207p-11,
                               -0x1.449cf2eebc0d9p-8,  0x1.b7a60f4ae5cc9p-6,
                               -0x1.c53464209701ap-4,  -0x1.433ff519e3c40p-1,
                               -0x1.2165d61b7cf10p+0,  0x1.7f9a1bb668e7ep-12};
    shape s = shape_of(em, x);
    LLVMValueRef a = unary(s, "llvm.fabs", x);
    LLVMValueRef z = LLVMBuildFMul(s.b, x, x, "");
    LLVMValueRef small = fma3(s, x, POLYNOMIAL(s, z, p), x);
    LLVMValueRef clamped = choose(s, compare(s, LLVMRealOGT, a, f32c(s, 4)), f32c(s, 4), a);
    LLVMValueRef tail = cg_cpu_exp(em, POLYNOMIAL(s, clamped, q));
    LLVMValueRef large = copy_sign(s, LLVMBuildFSub(s.b, f32c(s, 1), tail, ""), x);
    return choose(s, compare(s, LLVMRealOLT, a, f32c(s, 0.9218)), small, large);
}

static LLVMValueRef emit_sigmoid(cg_cpu_emitter *em, LLVMValueRef x) {
    shape s = shape_of(em, x);
    LLVMValueRef e = cg_cpu_exp(em, LLVMBuildFNeg(s.b, x, ""));
    return LLVMBuildFDiv(s.b, f32c(s, 1), LLVMBuildFAdd(s.b, e, f32c(s, 1), ""), "");
}

/* --- sin, cos ----------------------------------------------------------------------------------
 */

/* x = n*pi/2 + r by three FMAs (Cody & Waite 1980), good to |x| about 1e6; then by n mod 4 a
 * polynomial for sin(r) or cos(r), |r| <= pi/4, within 3e-11 of r. */
static LLVMValueRef emit_sin_cos(cg_cpu_emitter *em, LLVMValueRef x, bool cosine) {
    static const double sin_p[] = {0x1.6dbdc6f2b85e2p-19, -0x1.a013a6ca5789cp-13,
                                   0x1.11110dee98fb5p-7, -0x1.555555545dcd6p-3};
    static const double cos_p[] = {-0x1.2524228ea066dp-22, 0x1.a015c3f71c2f7p-16,
                                   -0x1.6c16bf548391dp-10, 0x1.5555555502badp-5};
    shape s = shape_of(em, x);
    LLVMValueRef sum = fma3(s, x, f32c(s, 0x1.45f306dc9c883p-1), f32c(s, round_magic));
    LLVMValueRef n = LLVMBuildFSub(s.b, sum, f32c(s, round_magic), "");
    LLVMValueRef r = fma3(s, n, f32c(s, -0x1.921fb6p+0), x);
    r = fma3(s, n, f32c(s, 0x1.777a5cp-25), r);
    r = fma3(s, n, f32c(s, 0x1.ee59dap-50), r);
    LLVMValueRef z = LLVMBuildFMul(s.b, r, r, ""), rz = LLVMBuildFMul(s.b, r, z, "");
    LLVMValueRef sine = fma3(s, rz, POLYNOMIAL(s, z, sin_p), r);
    /* 1 - z/2 with its rounding error added back */
    LLVMValueRef one = f32c(s, 1), half_z = LLVMBuildFMul(s.b, z, f32c(s, 0.5), "");
    LLVMValueRef head = LLVMBuildFSub(s.b, one, half_z, "");
    LLVMValueRef lost = LLVMBuildFSub(s.b, LLVMBuildFSub(s.b, one, head, ""), half_z, "");
    LLVMValueRef z2 = LLVMBuildFMul(s.b, z, z, "");
    LLVMValueRef tail = fma3(s, z2, POLYNOMIAL(s, z, cos_p), lost);
    LLVMValueRef cosine_r = LLVMBuildFAdd(s.b, head, tail, "");

    LLVMValueRef quadrant = as_bits(s, sum); /* only the low two bits count */
    if (cosine)
        quadrant = LLVMBuildAdd(s.b, quadrant, i32c(s, 1), "");
    LLVMValueRef odd = LLVMBuildAnd(s.b, quadrant, i32c(s, 1), "");
    LLVMValueRef is_odd = LLVMBuildICmp(s.b, LLVMIntNE, odd, i32c(s, 0), "");
    LLVMValueRef v = choose(s, is_odd, cosine_r, sine);
    LLVMValueRef sign = LLVMBuildAnd(s.b, quadrant, i32c(s, 2), "");
    sign = LLVMBuildShl(s.b, sign, i32c(s, 30), "");
    return as_float(s, LLVMBuildXor(s.b, as_bits(s, v), sign, ""));
}

/* --- pow ---------------------------------------------------------------------------------------
 */

/* log2|x| in f64: x = 2^n * m as in emit_log; log(m) = 2*atanh(t), t = (m-1)/(m+1), |t| < 0.172.
 * Infinite for 0 and infinity. */
static LLVMValueRef log2_64(shape s, LLVMValueRef x) {
    static const double p[] = {1. / 17, 1. / 15, 1. / 13, 1. / 11, 1. / 9, 1. / 7, 1. / 5, 1. / 3};
    LLVMTypeRef f64 = shaped(s, s.em->f64), i64 = shaped(s, s.em->i64);
    LLVMValueRef a = unary(s, "llvm.fabs", x);
    LLVMValueRef bits = LLVMBuildBitCast(s.b, LLVMBuildFPExt(s.b, a, f64, ""), i64, "");
    LLVMValueRef base = i64c(s, 0x3fe6a09e667f3bcd); /* sqrt(1/2) */
    LLVMValueRef n = LLVMBuildAShr(s.b, LLVMBuildSub(s.b, bits, base, ""), i64c(s, 52), "");
    LLVMValueRef m = LLVMBuildSub(s.b, bits, LLVMBuildShl(s.b, n, i64c(s, 52), ""), "");
    m = LLVMBuildBitCast(s.b, m, f64, "");
    n = LLVMBuildSIToFP(s.b, LLVMBuildTrunc(s.b, n, shaped(s, s.em->i32), ""), f64, "");
    LLVMValueRef t = LLVMBuildFDiv(s.b, LLVMBuildFSub(s.b, m, f64c(s, 1), ""),
                                   LLVMBuildFAdd(s.b, m, f64c(s, 1), ""), "");
    LLVMValueRef z = LLVMBuildFMul(s.b, t, t, "");
    LLVMValueRef tz = LLVMBuildFMul(s.b, t, z, "");
    LLVMValueRef atanh = fma3(s, tz, POLYNOMIAL64(s, z, p), t);
    LLVMValueRef l = fma3(s, atanh, f64c(s, 2 * 1.4426950408889634), n);
    double inf = (double)__builtin_inff();
    l = choose(s, compare(s, LLVMRealOEQ, a, f32c(s, 0)), f64c(s, -inf), l);
    return choose(s, compare(s, LLVMRealOEQ, a, infinity(s, 1)), f64c(s, inf), l);
}

/* 2^t in f64, t clamped to where f32 has overflowed or vanished. */
static LLVMValueRef exp2_64(shape s, LLVMValueRef t) {
    static const double p[] = {1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320,
                               1. / 5040,     1. / 720,     1. / 120,    1. / 24,
                               1. / 6,        1. / 2,       1,           1};
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    LLVMTypeRef f64 = shaped(s, s.em->f64), i64 = shaped(s, s.em->i64);
    t = choose(s, compare(s, LLVMRealOGT, t, f64c(s, 200)), f64c(s, 200), t);
    t = choose(s, compare(s, LLVMRealOLT, t, f64c(s, -200)), f64c(s, -200), t);
    LLVMValueRef sum = LLVMBuildFAdd(s.b, t, f64c(s, magic), "");
    LLVMValueRef n = LLVMBuildFSub(s.b, sum, f64c(s, magic), "");
    LLVMValueRef f = LLVMBuildFSub(s.b, t, n, "");
    f = LLVMBuildFMul(s.b, f, f64c(s, 0.6931471805599453), "");
    LLVMValueRef e = POLYNOMIAL64(s, f, p);
    LLVMValueRef bits = LLVMBuildBitCast(s.b, sum, i64, "");
    bits = LLVMBuildShl(s.b, LLVMBuildAdd(s.b, bits, i64c(s, 1023), ""), i64c(s, 52), "");
    return LLVMBuildFMul(s.b, e, LLVMBuildBitCast(s.b, bits, f64, ""), "");
}

/* As C's pow: 2^(y * log2|x|) in f64, then the signs and the exceptions. */
static LLVMValueRef emit_pow(cg_cpu_emitter *em, LLVMValueRef x, LLVMValueRef y) {
    shape s = shape_of(em, x);
    LLVMTypeRef f32 = shaped(s, em->f32), f64 = shaped(s, em->f64);
    LLVMValueRef zero = f32c(s, 0), one = f32c(s, 1), nan = f32c(s, (double)__builtin_nanf(""));
    LLVMValueRef t = LLVMBuildFMul(s.b, LLVMBuildFPExt(s.b, y, f64, ""), log2_64(s, x), "");
    LLVMValueRef r = LLVMBuildFPTrunc(s.b, exp2_64(s, t), f32, "");

    LLVMValueRef integer = compare(s, LLVMRealOEQ, unary(s, "llvm.floor", y), y);
    LLVMValueRef half = LLVMBuildFMul(s.b, y, f32c(s, 0.5), "");
    LLVMValueRef half_integer = compare(s, LLVMRealOEQ, unary(s, "llvm.floor", half), half);
    LLVMValueRef odd = LLVMBuildAnd(s.b, integer, LLVMBuildNot(s.b, half_integer, ""), "");
    LLVMValueRef finite_y = compare(s, LLVMRealOLT, unary(s, "llvm.fabs", y), infinity(s, 1));
    odd = LLVMBuildAnd(s.b, odd, finite_y, "");
    r = choose(s, odd, copy_sign(s, r, x), r);

    LLVMValueRef negative = compare(s, LLVMRealOLT, x, zero);
    LLVMValueRef finite_x = compare(s, LLVMRealOGT, x, infinity(s, -1));
    LLVMValueRef bad = LLVMBuildAnd(s.b, LLVMBuildAnd(s.b, negative, finite_x, ""),
                                    LLVMBuildNot(s.b, integer, ""), "");
    r = choose(s, bad, nan, r);
    r = choose(s, compare(s, LLVMRealUNO, x, y), nan, r);
    LLVMValueRef infinite_y = compare(s, LLVMRealOEQ, unary(s, "llvm.fabs", y), infinity(s, 1));
    LLVMValueRef unit = LLVMBuildAnd(s.b, compare(s, LLVMRealOEQ, x, f32c(s, -1)), infinite_y, "");
    unit = LLVMBuildOr(s.b, unit, compare(s, LLVMRealOEQ, x, one), "");
    unit = LLVMBuildOr(s.b, unit, compare(s, LLVMRealOEQ, y, zero), "");
    return choose(s, unit, one, r);
}

/* --- the table ---------------------------------------------------------------------------------
 */

typedef LLVMValueRef lowering(cg_cpu_emitter *em, LLVMValueRef *v);

static LLVMValueRef lower_neg(cg_cpu_emitter *em, LLVMValueRef *v) {
    return LLVMBuildFNeg(em->builder, v[0], "");
}

static LLVMValueRef lower_abs(cg_cpu_emitter *em, LLVMValueRef *v) {
    return unary(shape_of(em, v[0]), "llvm.fabs", v[0]);
}

static LLVMValueRef lower_exp(cg_cpu_emitter *em, LLVMValueRef *v) {
    return cg_cpu_exp(em, v[0]);
}

static LLVMValueRef lower_log(cg_cpu_emitter *em, LLVMValueRef *v) {
    return emit_log(em, v[0]);
}

static LLVMValueRef lower_sqrt(cg_cpu_emitter *em, LLVMValueRef *v) {
    return unary(shape_of(em, v[0]), "llvm.sqrt", v[0]);
}

static LLVMValueRef lower_rsqrt(cg_cpu_emitter *em, LLVMValueRef *v) {
    shape s = shape_of(em, v[0]);
    return LLVMBuildFDiv(s.b, f32c(s, 1), lower_sqrt(em, v), "");
}

static LLVMValueRef lower_sin(cg_cpu_emitter *em, LLVMValueRef *v) {
    return emit_sin_cos(em, v[0], false);
}

static LLVMValueRef lower_cos(cg_cpu_emitter *em, LLVMValueRef *v) {
    return emit_sin_cos(em, v[0], true);
}

static LLVMValueRef lower_tanh(cg_cpu_emitter *em, LLVMValueRef *v) {
    return cg_cpu_tanh(em, v[0]);
}

static LLVMValueRef lower_erf(cg_cpu_emitter *em, LLVMValueRef *v) {
    return emit_erf(em, v[0]);
}

static LLVMValueRef lower_sigmoid(cg_cpu_emitter *em, LLVMValueRef *v) {
    return emit_sigmoid(em, v[0]);
}

static LLVMValueRef lower_add(cg_cpu_emitter *em, LLVMValueRef *v) {
    return LLVMBuildFAdd(em->builder, v[0], v[1], "");
}

static LLVMValueRef lower_sub(cg_cpu_emitter *em, LLVMValueRef *v) {
    return LLVMBuildFSub(em->builder, v[0], v[1], "");
}

static LLVMValueRef lower_mul(cg_cpu_emitter *em, LLVMValueRef *v) {
    return LLVMBuildFMul(em->builder, v[0], v[1], "");
}

static LLVMValueRef lower_div(cg_cpu_emitter *em, LLVMValueRef *v) {
    return LLVMBuildFDiv(em->builder, v[0], v[1], "");
}

/* A NaN on either side gives NaN. */
static LLVMValueRef extremum(cg_cpu_emitter *em, LLVMRealPredicate predicate, LLVMValueRef *v) {
    shape s = shape_of(em, v[0]);
    LLVMValueRef first = compare(s, predicate, v[0], v[1]);
    first = LLVMBuildOr(s.b, first, compare(s, LLVMRealUNO, v[0], v[0]), "");
    return choose(s, first, v[0], v[1]);
}

static LLVMValueRef lower_max(cg_cpu_emitter *em, LLVMValueRef *v) {
    return extremum(em, LLVMRealOGT, v);
}

static LLVMValueRef lower_min(cg_cpu_emitter *em, LLVMValueRef *v) {
    return extremum(em, LLVMRealOLT, v);
}

static LLVMValueRef lower_pow(cg_cpu_emitter *em, LLVMValueRef *v) {
    return emit_pow(em, v[0], v[1]);
}

static LLVMValueRef lower_fma(cg_cpu_emitter *em, LLVMValueRef *v) {
    return cg_cpu_fma(em, v[0], v[1], v[2]);
}

static LLVMValueRef truth(cg_cpu_emitter *em, LLVMRealPredicate predicate, LLVMValueRef *v) {
    shape s = shape_of(em, v[0]);
    return choose(s, compare(s, predicate, v[0], v[1]), f32c(s, 1), f32c(s, 0));
}

static LLVMValueRef lower_lt(cg_cpu_emitter *em, LLVMValueRef *v) {
    return truth(em, LLVMRealOLT, v);
}

static LLVMValueRef lower_le(cg_cpu_emitter *em, LLVMValueRef *v) {
    return truth(em, LLVMRealOLE, v);
}

static LLVMValueRef lower_eq(cg_cpu_emitter *em, LLVMValueRef *v) {
    return truth(em, LLVMRealOEQ, v);
}

/* Any condition but 0 chooses the first, a NaN too. */
static LLVMValueRef lower_where(cg_cpu_emitter *em, LLVMValueRef *v) {
    shape s = shape_of(em, v[0]);
    return choose(s, compare(s, LLVMRealUNE, v[0], f32c(s, 0)), v[1], v[2]);
}

static LLVMValueRef lower_round_f16(cg_cpu_emitter *em, LLVMValueRef *v) {
    return cg_cpu_f16_to_f32(em, cg_cpu_f32_to_f16(em, v[0]));
}

static lowering *const lowerings[CG_N_SCALAR_OPS] = {
    [CG_NEG] = lower_neg, [CG_ABS] = lower_abs,         [CG_EXP] = lower_exp,
    [CG_LOG] = lower_log, [CG_SQRT] = lower_sqrt,       [CG_RSQRT] = lower_rsqrt,
    [CG_SIN] = lower_sin, [CG_COS] = lower_cos,         [CG_TANH] = lower_tanh,
    [CG_ERF] = lower_erf, [CG_SIGMOID] = lower_sigmoid, [CG_ADD] = lower_add,
    [CG_SUB] = lower_sub, [CG_MUL] = lower_mul,         [CG_DIV] = lower_div,
    [CG_MAX] = lower_max, [CG_MIN] = lower_min,         [CG_POW] = lower_pow,
    [CG_FMA] = lower_fma, [CG_LT] = lower_lt,           [CG_LE] = lower_le,
    [CG_EQ] = lower_eq,   [CG_WHERE] = lower_where,     [CG_ROUND_F16] = lower_round_f16,
};

LLVMValueRef cg_cpu_scalar(cg_cpu_emitter *em, cg_scalar_op op, LLVMValueRef *operands) {
    return lowerings[op](em, operands);
}

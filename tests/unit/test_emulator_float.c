/* Floating-point arithmetic of the GPU emulator's lanes: of halves by quadruple precision, directed
 * f32 arithmetic by the processor in that rounding mode. */
#include "emulator_float.h"

/* --- pairs of halves -----------------------------------------------------------------------------
 */

/* A quadruple-precision value rounded once. What lies beyond a long double's 64 bits only matters
 * as "something", so it is put into the last bit. */
static uint32_t round_quad(const format *f, __float128 x) {
    long double near = (long double)x;
    if (isfinite(near) && near != x) {
        long double outward = nextafterl(near, x > 0 ? HUGE_VALL : -HUGE_VALL);
        bool beyond = x > 0 ? x > near : x < near;
        long double cut = beyond ? near : nextafterl(near, 0);
        /* Halfway between the two 64-bit neighbours is not halfway between two numbers of f: any
         * point strictly between them rounds the same. */
        int e;
        long double fraction = frexpl(cut, &e);
        uint64_t significand = (uint64_t)ldexpl(fabsl(fraction), 64);
        near = significand & 1 ? cut
               : beyond        ? outward
                               : nextafterl(cut, x > 0 ? HUGE_VALL : -HUGE_VALL);
    }
    return slow_round(f, near, EMU_RN, false);
}

static uint32_t flush_half(uint32_t h) {
    return h & 0x7c00 ? h : h & 0x8000;
}

static uint32_t finish_half(const format *f, uint32_t h, unsigned flags) {
    bool nan = (int)(h & 0x7fff) > f->count;
    if (flags & EMU_FTZ)
        h = flush_half(h);
    if (flags & EMU_SAT)
        return nan || h & 0x8000 ? 0 : h > 0x3c00 ? 0x3c00 : h;
    if (flags & EMU_RELU && h & 0x8000)
        return 0;
    return h;
}

static void half_arithmetic(const format *f, bool is_f16) {
    for (int n = 0; n < 20000; n++) {
        uint32_t a[32], b[32], c[32], d[32];
        static const unsigned f16_flags[] = {0, 0, EMU_FTZ, EMU_SAT, EMU_FTZ | EMU_SAT, EMU_RELU};
        int op = n % 4;
        unsigned flags = is_f16                  ? f16_flags[next() % (op == 3 ? 6 : 5)]
                         : op == 3 && n % 8 == 3 ? EMU_RELU
                                                 : 0;
        for (int i = 0; i < 32; i++) {
            a[i] = random_half(f) | random_half(f) << 16;
            b[i] = random_half(f) | random_half(f) << 16;
            c[i] = random_half(f) | random_half(f) << 16;
        }
        if (op == 0)
            (is_f16 ? emu_f16x2_add : emu_bf16x2_add)(a, b, d, flags);
        else if (op == 1)
            (is_f16 ? emu_f16x2_sub : emu_bf16x2_sub)(a, b, d, flags);
        else if (op == 2)
            (is_f16 ? emu_f16x2_mul : emu_bf16x2_mul)(a, b, d, flags);
        else
            (is_f16 ? emu_f16x2_fma : emu_bf16x2_fma)(a, b, c, d, flags);
        for (int i = 0; i < 32; i++) {
            for (int half = 0; half < 2; half++) {
                uint32_t ha = a[i] >> 16 * half & 0xffff, hb = b[i] >> 16 * half & 0xffff;
                uint32_t hc = c[i] >> 16 * half & 0xffff, got = d[i] >> 16 * half & 0xffff;
                if (flags & EMU_FTZ) {
                    ha = flush_half(ha);
                    hb = flush_half(hb);
                    hc = flush_half(hc);
                }
                __float128 x = value_of(f, ha), y = value_of(f, hb), z = value_of(f, hc), sum;
                sum = op == 0 ? x + y : op == 1 ? x - y : op == 2 ? x * y : x * y + z;
                /* Quadruple precision has 113 bits: a bf16 sum whose terms lie further apart is
                 * not decided here (distant_terms does that). */
                if (op == 3 && !is_f16) {
                    double p = fabs((double)(x * y)), q = fabs((double)z);
                    if (p != 0 && q != 0 && isfinite(p) && isfinite(q) &&
                        (p > q * 0x1p80 || q > p * 0x1p80))
                        continue;
                }
                uint32_t expected = finish_half(f, round_quad(f, sum), flags);
                HOLDS(got == expected, "%s op %d flags %u: %x %x %x gives %x, expected %x", f->name,
                      op, flags, ha, hb, hc, got, expected);
            }
        }
    }
}

START_TEST(f16_arithmetic) {
    half_arithmetic(&f16, true);
}
END_TEST
START_TEST(bf16_arithmetic) {
    half_arithmetic(&bf16, false);
}
END_TEST

/* A product that is a tie in bf16, and a term far below it that decides. */
START_TEST(distant_terms) {
    uint32_t a[32] = {0}, b[32] = {0}, c[32] = {0}, d[32];
    a[0] = a[1] = a[2] = 0x3f81; /* 1 + 2^-7 */
    b[0] = b[1] = b[2] = 0x3fc0; /* 1.5: the product 1.5 + 1.5 * 2^-7 is a tie */
    c[1] = 0x0001;               /* 2^-133 */
    c[2] = 0x8001;
    emu_bf16x2_fma(a, b, c, d, 0);
    SAME(d[0], 0x3fc2);
    SAME(d[1], 0x3fc2);
    SAME(d[2], 0x3fc1);
}
END_TEST

/* --- f32 -----------------------------------------------------------------------------------------
 */

START_TEST(f32_arithmetic) {
    for (int n = 0; n < 40000; n++) {
        uint32_t a[32], b[32], c[32], d[32];
        int op = n % 7;
        emu_round round = (emu_round)(n / 7 % 4);
        unsigned flags = n / 28 % 4 & (EMU_FTZ | EMU_SAT);
        for (int i = 0; i < 32; i++) {
            a[i] = random_float();
            b[i] = i % 4 == 1 ? a[i] ^ 0x80000000 : i % 4 == 2 ? a[i] : random_float();
            c[i] = random_float();
        }
        switch (op) {
        case 0:
            emu_f32_add(a, b, d, round, flags);
            break;
        case 1:
            emu_f32_sub(a, b, d, round, flags);
            break;
        case 2:
            emu_f32_mul(a, b, d, round, flags);
            break;
        case 3:
            emu_f32_fma(a, b, c, d, round, flags);
            break;
        case 4:
            emu_f32_div(a, b, d, round, flags);
            break;
        case 5:
            emu_f32_sqrt(a, d, round, flags);
            break;
        default:
            emu_f32_rcp(a, d, round, flags);
            break;
        }
        float expected[32];
        round_like(round);
        for (int i = 0; i < 32; i++) {
            volatile float x = float_of(flags & EMU_FTZ ? flush(a[i]) : a[i]);
            volatile float y = float_of(flags & EMU_FTZ ? flush(b[i]) : b[i]);
            volatile float z = float_of(flags & EMU_FTZ ? flush(c[i]) : c[i]);
            volatile float r;
            if (op == 0)
                r = x + y;
            else if (op == 1)
                r = x - y;
            else if (op == 2)
                r = x * y;
            else if (op == 3)
                r = fmaf(x, y, z);
            else if (op == 4)
                r = x / y;
            else if (op == 5)
                r = sqrtf(x);
            else
                r = 1.0f / x;
            expected[i] = r;
        }
        fesetround(FE_TONEAREST);
        for (int i = 0; i < 32; i++)
            HOLDS(d[i] == finish(expected[i], flags),
                  "op %d round %d flags %u: %x %x %x gives %x, expected %x", op, round, flags, a[i],
                  b[i], c[i], d[i], finish(expected[i], flags));
    }
}
END_TEST

/* The PTX ISA's rules for min and max, said in words of their own for f32. */
static uint32_t slow_min(uint32_t x, uint32_t y, bool max, unsigned flags, uint32_t infinity,
                         uint32_t nan, float (*value)(uint32_t)) {
    uint32_t sign_bit = nan + 1, sign = 0;
    if (flags & EMU_XORSIGN) {
        sign = (x ^ y) & sign_bit;
        x &= nan;
        y &= nan;
    }
    bool nan_x = (x & nan) > infinity, nan_y = (y & nan) > infinity;
    if ((nan_x && nan_y) || (flags & EMU_NAN && (nan_x || nan_y)))
        return nan;
    if (nan_x)
        return y | sign;
    if (nan_y)
        return x | sign;
    float fx = value(x), fy = value(y);
    bool x_first = fx < fy || (fx == fy && signbit(fx));
    return (x_first != max ? x : y) | sign;
}

static float value_bf16(uint32_t h) {
    return float_of(h << 16);
}
static float value_f16(uint32_t h) {
    return (float)value_of(&f16, h);
}

START_TEST(minimum_and_maximum) {
    for (int n = 0; n < 4000; n++) {
        uint32_t a[32], b[32], d[32];
        unsigned flags = (n & 1 ? EMU_NAN : 0) | (n & 2 ? EMU_XORSIGN : 0) | (n & 8 ? EMU_FTZ : 0);
        bool max = n & 4;
        for (int i = 0; i < 32; i++) {
            a[i] = random_float();
            b[i] = i % 3 ? random_float() : a[i] ^ (next() & 0x80000000);
        }
        (max ? emu_f32_max : emu_f32_min)(a, b, d, flags);
        for (int i = 0; i < 32; i++) {
            uint32_t x = flags & EMU_FTZ ? flush(a[i]) : a[i];
            uint32_t y = flags & EMU_FTZ ? flush(b[i]) : b[i];
            SAME(d[i], slow_min(x, y, max, flags, 0x7f800000, 0x7fffffff, float_of));
        }
        for (int type = 0; type < 2; type++) {
            const format *f = type ? &bf16 : &f16;
            for (int i = 0; i < 32; i++) {
                a[i] = random_half(f) | random_half(f) << 16;
                b[i] = random_half(f) | random_half(f) << 16;
                if (i % 3 == 0)
                    b[i] = a[i] ^ (next() & 0x80008000);
            }
            if (type)
                (max ? emu_bf16x2_max : emu_bf16x2_min)(a, b, d, flags & ~(unsigned)EMU_FTZ);
            else
                (max ? emu_f16x2_max : emu_f16x2_min)(a, b, d, flags);
            for (int i = 0; i < 64; i++) {
                uint32_t x = a[i / 2] >> i % 2 * 16 & 0xffff, y = b[i / 2] >> i % 2 * 16 & 0xffff;
                if (!type && flags & EMU_FTZ) {
                    x = flush_half(x);
                    y = flush_half(y);
                }
                SAME(d[i / 2] >> i % 2 * 16 & 0xffff,
                     slow_min(x, y, max, flags, (uint32_t)f->count, 0x7fff,
                              type ? value_bf16 : value_f16));
            }
        }
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator float");
    TCase *c = tcase_create("all");
    make_tables();
    tcase_set_timeout(c, 120);
    tcase_add_test(c, f16_arithmetic);
    tcase_add_test(c, bf16_arithmetic);
    tcase_add_test(c, distant_terms);
    tcase_add_test(c, f32_arithmetic);
    tcase_add_test(c, minimum_and_maximum);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

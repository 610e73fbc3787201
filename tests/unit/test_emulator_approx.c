/* Approximate functions of the GPU emulator, against long double; and results that come from
 * NVIDIA's own assembler, which folds constants (fixture/ptx_folded.h). */
#include "emulator_float.h"
#include "fixture/ptx_folded.h"

/* --- approximate functions -----------------------------------------------------------------------
 */

static long double exact(emu_approx_fn fn, long double x) {
    switch (fn) {
    case EMU_EX2:
        return exp2l(x);
    case EMU_LG2:
        return log2l(x);
    case EMU_RCP:
        return 1 / x;
    case EMU_RSQRT:
        return 1 / sqrtl(x);
    case EMU_SQRT:
        return sqrtl(x);
    case EMU_SIN:
        return sinl(x);
    case EMU_COS:
        return cosl(x);
    default:
        return tanhl(x);
    }
}

static long double ulp(long double x) {
    int e = x == 0 ? -126 : ilogbl(x);
    return ldexpl(1, (e < -126 ? -126 : e) - 23);
}

static uint32_t moderate(emu_approx_fn fn) {
    float x = (float)(int32_t)next() * 0x1p-31f;
    float scale = fn == EMU_EX2 ? 150 : fn == EMU_SIN || fn == EMU_COS ? 4 : 1;
    if (fn == EMU_LG2 || fn == EMU_SQRT || fn == EMU_RSQRT)
        return (next() & 0x7fffffff) % 0x7f800000;
    if (fn == EMU_RCP)
        return random_float();
    return bits_of(x * scale);
}

START_TEST(approximations) {
    for (int f = EMU_EX2; f <= EMU_TANH; f++) {
        emu_approx_fn fn = (emu_approx_fn)f;
        bool moved = false;
        for (int n = 0; n < 4000; n++) {
            uint32_t a[32], base[32], other[32], again[32];
            for (int i = 0; i < 32; i++)
                a[i] = moderate(fn);
            emu_approx_f32(fn, a, base, 0, 0);
            emu_approx_f32(fn, a, other, 0, 1 + (uint64_t)n);
            emu_approx_f32(fn, a, again, 0, 1 + (uint64_t)n);
            ck_assert_mem_eq(other, again, sizeof again);
            for (int i = 0; i < 32; i++) {
                long double x = float_of(a[i]), y = exact(fn, x);
                float got = float_of(base[i]), off = float_of(other[i]);
                if (isnan(y)) {
                    SAME(base[i], 0x7fffffff);
                    SAME(other[i], 0x7fffffff);
                    continue;
                }
                if (isinf((float)y) || y == 0) {
                    IS_TRUE(got == (float)y && off == got);
                    continue;
                }
                HOLDS(fabsl(got - y) <= ulp(y) * 0.500001L, "function %d of %a: %a", f, (double)x,
                      got);
                long double bound = 2.5L * ulp(y);
                if (fn == EMU_RCP || fn == EMU_SQRT)
                    bound = 1.5L * ulp(y);
                if (fn == EMU_SIN || fn == EMU_COS)
                    bound = 0x1p-20L / sqrtl(2) + ulp(y);
                if (fn == EMU_TANH)
                    bound = fabsl(y) * 0x1p-11L + ulp(y);
                if (fn == EMU_LG2 && fabsl(y) <= 1)
                    bound = 0x1p-22L + ulp(y);
                HOLDS(fabsl(off - y) <= bound, "function %d of %a: %a", f, (double)x, off);
                moved = moved || off != got;
            }
        }
        IS_TRUE(moved);
    }
}
END_TEST

static uint32_t approx_one(emu_approx_fn fn, uint32_t x, unsigned flags) {
    uint32_t a[32] = {0}, d[32];
    a[5] = x;
    emu_approx_f32(fn, a, d, flags, 0);
    return d[5];
}

/* The PTX ISA's tables of special operands. */
START_TEST(approximations_of_special_values) {
    const uint32_t inf = 0x7f800000, minus = 0x80000000, nan = 0x7fffffff, tiny = 5;
    SAME(approx_one(EMU_EX2, minus | inf, 0), 0);
    SAME(approx_one(EMU_EX2, inf, 0), inf);
    SAME(approx_one(EMU_EX2, 0x7fc01234, 0), nan);
    SAME(approx_one(EMU_EX2, minus | tiny, 0), 0x3f800000);
    SAME(approx_one(EMU_EX2, bits_of(-140), 0), 1u << 9);
    SAME(approx_one(EMU_EX2, bits_of(-140), EMU_FTZ), 0);
    SAME(approx_one(EMU_EX2, bits_of(-1e30f), 0), 0);
    SAME(approx_one(EMU_LG2, 0, 0), minus | inf);
    SAME(approx_one(EMU_LG2, bits_of(-1), 0), nan);
    SAME(approx_one(EMU_LG2, tiny, EMU_FTZ), minus | inf);
    SAME(approx_one(EMU_LG2, 1, 0), bits_of(-149));
    SAME(approx_one(EMU_RCP, minus, 0), minus | inf);
    SAME(approx_one(EMU_RCP, minus | inf, 0), minus);
    SAME(approx_one(EMU_RSQRT, minus, 0), minus | inf);
    SAME(approx_one(EMU_RSQRT, bits_of(-4), 0), nan);
    SAME(approx_one(EMU_RSQRT, inf, 0), 0);
    SAME(approx_one(EMU_SQRT, minus, 0), minus);
    SAME(approx_one(EMU_SIN, inf, 0), nan);
    SAME(approx_one(EMU_SIN, minus, 0), minus);
    SAME(approx_one(EMU_COS, tiny, EMU_FTZ), 0x3f800000);
    SAME(approx_one(EMU_TANH, minus | inf, 0), bits_of(-1));
    uint32_t a[32] = {0}, b[32] = {0}, d[32];
    for (int full = 0; full < 2; full++) {
        a[0] = bits_of(0x1p100f);
        b[0] = bits_of(0x1.8p126f);
        a[1] = inf;
        b[1] = b[0];
        emu_div_approx_f32(a, b, d, full, 0, 0);
        SAME(d[0], full ? bits_of(0x1p100f / 0x1.8p126f) : 0);
        SAME(d[1], inf);
    }
}
END_TEST

START_TEST(approximations_of_halves) {
    for (uint32_t code = 0; code < 65536; code += 32) {
        for (int variant = 0; variant < 4; variant++) {
            emu_approx_fn fn = variant & 1 ? EMU_TANH : EMU_EX2;
            const format *f = variant & 2 ? &bf16 : &f16;
            uint32_t a[32], d[32], off[32];
            for (uint32_t i = 0; i < 32; i++)
                a[i] = (code + i) | (65535 - code - i) << 16;
            (variant & 2 ? emu_approx_bf16x2 : emu_approx_f16x2)(fn, a, d, 0, 0);
            (variant & 2 ? emu_approx_bf16x2 : emu_approx_f16x2)(fn, a, off, 0, 99);
            for (int i = 0; i < 64; i++) {
                uint32_t h = a[i / 2] >> i % 2 * 16 & 0xffff, got = d[i / 2] >> i % 2 * 16 & 0xffff;
                uint32_t moved = off[i / 2] >> i % 2 * 16 & 0xffff;
                SAME(got, slow_round(f, exact(fn, value_of(f, h)), EMU_RN, false));
                ck_assert_int_le(abs((int)moved - (int)got), 1);
            }
        }
    }
}
END_TEST

/* --- NVIDIA's assembler --------------------------------------------------------------------------
 */

static uint32_t folded_result(const folded_operation *o, uint32_t x, uint32_t y) {
    uint32_t a[32] = {0}, b[32] = {0}, d[32] = {0};
    emu_convert op = {o->from, o->to, o->round, o->integral, o->satfinite, 0};
    a[7] = x;
    b[7] = y;
    switch (o->kind) {
    case FOLDED_CVT:
        emu_convert32(&op, a, d);
        break;
    case FOLDED_APPROX:
        emu_approx_f32((emu_approx_fn)o->fn, a, d, 0, 0);
        break;
    case FOLDED_ADD:
        emu_f32_add(a, b, d, EMU_RN, 0);
        break;
    case FOLDED_MUL:
        emu_f32_mul(a, b, d, EMU_RN, 0);
        break;
    case FOLDED_MIN:
        emu_f32_min(a, b, d, 0);
        break;
    default:
        emu_f32_max(a, b, d, 0);
        break;
    }
    return d[7];
}

START_TEST(folded_by_the_assembler) {
    for (size_t i = 0; i < sizeof folded_operations / sizeof *folded_operations; i++) {
        const folded_operation *o = &folded_operations[i];
        for (int n = 0; n < o->n; n++) {
            uint32_t a = o->cases[n][0], b = o->cases[n][1], expected = o->cases[n][2];
            uint32_t got = folded_result(o, a, b);
            int64_t off = (int64_t)got - (int64_t)expected;
            bool right = o->kind == FOLDED_APPROX ? off >= -1 && off <= 1 : off == 0;
            if (expected == 0 && o->kind == FOLDED_APPROX && o->fn == EMU_SIN)
                right = !(got & 0x7f800000); /* folded with subnormal numbers taken as 0 */
            if (expected == 0x7fc00000)
                right = got > 0x7f800000; /* tf32: which NaN is not said */
            HOLDS(right, "%s %08x %08x: %08x, expected %08x", o->text, a, b, got, expected);
        }
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator approx");
    TCase *c = tcase_create("all");
    make_tables();
    tcase_set_timeout(c, 120);
    tcase_add_test(c, approximations);
    tcase_add_test(c, approximations_of_special_values);
    tcase_add_test(c, approximations_of_halves);
    tcase_add_test(c, folded_by_the_assembler);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

/* Conversions of the GPU emulator between formats of numbers. What a format's numbers are is
 * computed from their fields, what rounding is by a search among all numbers of the format. */
#include "emulator_float.h"

START_TEST(values_of_small_formats) {
    for (uint32_t code = 0; code < 65536; code++) {
        for (int i = 0; i < 4; i++) {
            const format *f = formats[i];
            if (i >= 2 && code > 255)
                continue;
            float got = i == 0   ? emu_f16_value((uint16_t)code)
                        : i == 1 ? emu_bf16_value((uint16_t)code)
                        : i == 2 ? emu_e4m3_value((uint8_t)code)
                                 : emu_e5m2_value((uint8_t)code);
            uint32_t magnitude = code & (sign_of(f) - 1);
            if ((int)magnitude < f->count) {
                double expected = code & sign_of(f) ? -f->values[magnitude] : f->values[magnitude];
                IS_TRUE(got == expected && !signbit(got) == !(code & sign_of(f)));
            } else if (f->has_inf && (int)magnitude == f->count) {
                IS_TRUE(isinf(got) && !signbit(got) == !(code & sign_of(f)));
            } else {
                IS_TRUE(isnan(got));
            }
        }
    }
}
END_TEST

/* Every number of every format, every midpoint, and a hair to each side of both, rounded each way.
 */
START_TEST(rounding_to_small_formats) {
    for (int i = 0; i < N_FORMATS; i++) {
        const format *f = formats[i];
        int step = f->number == EMU_NUMBER_TF32 ? 7 : 1;
        for (int code = 0; code < f->count; code += step) {
            double here = f->values[code], middle = (here + f->values[code + 1]) / 2;
            double points[] = {here,
                               nextafter(here, -1e308),
                               nextafter(here, 1e308),
                               middle,
                               nextafter(middle, 0),
                               nextafter(middle, 1e308),
                               (here + middle) / 2,
                               here * 4};
            for (int p = 0; p < 8; p++) {
                for (int variant = 0; variant < 20; variant++) {
                    double x = variant & 1 ? -points[p] : points[p];
                    emu_round round = (emu_round)(variant / 4);
                    bool sat = variant & 2;
                    uint32_t got = emu_round_f64(x, f->number, round, sat);
                    uint32_t expected = slow_round(f, x, round, sat);
                    HOLDS(got == expected, "%s %a round %d sat %d: %x, expected %x", f->name, x,
                          round, sat, got, expected);
                }
            }
        }
        SAME(emu_round_f64(NAN, f->number, EMU_RN, true), f->nan << shift_of(f));
        SAME(emu_round_f64(INFINITY, f->number, EMU_RZ, false), f->infinity << shift_of(f));
        SAME(emu_round_f64(-INFINITY, f->number, EMU_RN, true),
             ((uint32_t)f->count - 1 + sign_of(f)) << shift_of(f));
    }
}
END_TEST

/* cvt from f32, one lane per value, against the search. */
START_TEST(convert_from_f32) {
    for (int i = 0; i < N_FORMATS; i++) {
        const format *f = formats[i];
        for (int n = 0; n < 20000; n++) {
            uint32_t a[32], d[32], high[32], packed[32];
            emu_convert op = {
                EMU_NUMBER_F32, (uint8_t)f->number, (uint8_t)(n % 5), false, n & 8, 0};
            if (n % 3 == 0)
                op.round = EMU_RN;
            for (int lane = 0; lane < 32; lane++) {
                int code = (int)(next() % (uint32_t)f->count);
                double x = f->values[code], y = f->values[code + 1];
                float v = (float)(next() % 2 ? (x + y) / 2 : x);
                a[lane] = next() % 4 == 0 ? next() : bits_of(v) + next() % 3 - 1;
                a[lane] ^= next() & 0x80000000;
                high[lane] = next();
            }
            emu_convert32(&op, a, d);
            for (int lane = 0; lane < 32; lane++)
                SAME(d[lane], slow_round(f, float_of(a[lane]), op.round, op.satfinite));
            if (f->number == EMU_NUMBER_TF32)
                continue;
            emu_pack2(&op, high, a, packed);
            int half = f->e_bits + f->m_bits + 1;
            for (int lane = 0; lane < 32; lane++) {
                uint32_t upper = slow_round(f, float_of(high[lane]), op.round, op.satfinite);
                SAME(packed[lane], upper << half | d[lane]);
            }
        }
    }
}
END_TEST

START_TEST(convert_pairs) {
    emu_convert up = {EMU_NUMBER_E4M3, EMU_NUMBER_F16, EMU_RN, false, false, 0};
    emu_convert down = {EMU_NUMBER_F16, EMU_NUMBER_E4M3, EMU_RN, false, true, 0};
    for (int type = 0; type < 2; type++) {
        const format *f = type ? &e5m2 : &e4m3;
        up.from = down.to = (uint8_t)f->number;
        for (uint32_t code = 0; code < 65536; code += 32) {
            uint32_t a[32], d[32], back[32];
            for (uint32_t lane = 0; lane < 32; lane++)
                a[lane] = code + lane;
            emu_convert_pair(&up, a, d);
            emu_convert_pair(&down, d, back);
            for (int lane = 0; lane < 32; lane++) {
                for (int half = 0; half < 2; half++) {
                    uint32_t from = a[lane] >> 8 * half & 0xff, to = d[lane] >> 16 * half & 0xffff;
                    uint32_t again = back[lane] >> 8 * half & 0xff, magnitude = from & 0x7f;
                    if ((int)magnitude < f->count) {
                        double x = f->values[magnitude];
                        SAME(to, slow_round(&f16, from & 0x80 ? -x : x, EMU_RN, 0));
                        SAME(again, from);
                    } else if (f->has_inf && (int)magnitude == f->count) {
                        SAME(to, (from & 0x80) << 8 | 0x7c00);
                        SAME(again, (from & 0x80) + magnitude - 1); /* clamped */
                    } else {
                        SAME(to, 0x7fff);
                        SAME(again, 0x7f);
                    }
                }
            }
        }
    }
}
END_TEST

/* --- integers ------------------------------------------------------------------------------------
 */

typedef struct integer {
    emu_number number;
    int bits;
    bool is_signed;
} integer;

static const integer integers[] = {
    {EMU_NUMBER_S8, 8, true},    {EMU_NUMBER_S16, 16, true},  {EMU_NUMBER_S32, 32, true},
    {EMU_NUMBER_S64, 64, true},  {EMU_NUMBER_U8, 8, false},   {EMU_NUMBER_U16, 16, false},
    {EMU_NUMBER_U32, 32, false}, {EMU_NUMBER_U64, 64, false},
};

/* What a register of 64 bits holds after a conversion to `t`. */
static uint64_t expected_integer(long double x, const integer *t, emu_round round, bool wide) {
    if (isnan(x)) {
        uint64_t top = 1ull << (t->bits - 1);
        return !wide && t->bits < 64 ? 0 : t->is_signed ? 0 - top : top;
    }
    round_like(round);
    x = nearbyintl(x);
    fesetround(FE_TONEAREST);
    long double least = t->is_signed ? -ldexpl(1, t->bits - 1) : 0;
    long double most = ldexpl(1, t->bits - t->is_signed) - 1;
    x = x < least ? least : x > most ? most : x;
    return x < 0 ? (uint64_t)(int64_t)x : (uint64_t)x;
}

START_TEST(floats_to_integers) {
    for (int n = 0; n < 8000; n++) {
        const integer *t = &integers[n % 8];
        emu_convert op = {
            EMU_NUMBER_F32, (uint8_t)t->number, (uint8_t)(n / 8 % 4), false, false, 0};
        uint32_t a[32], d[32];
        uint64_t wide_a[32], wide_d[32];
        for (int i = 0; i < 32; i++) {
            float x = float_of(random_float());
            if (i % 2) /* near the ends of ranges, and halves */
                x = (float)(ldexp(1, (int)(next() % 66)) * (next() % 2 ? 1 : -1) +
                            (double)(next() % 9) / 2 - 2);
            a[i] = bits_of(x);
            wide_a[i] = a[i];
        }
        emu_convert64(&op, wide_a, wide_d);
        if (t->bits <= 32)
            emu_convert32(&op, a, d);
        for (int i = 0; i < 32; i++) {
            uint64_t expected = expected_integer(float_of(a[i]), t, op.round, false);
            HOLDS(wide_d[i] == expected, "%a to %d bits", float_of(a[i]), t->bits);
            if (t->bits <= 32)
                SAME(d[i], (uint32_t)expected);
        }
        op.from = EMU_NUMBER_F64;
        for (int i = 0; i < 32; i++) {
            double x = float_of(a[i]) * (1 + (double)next() * 0x1p-60);
            memcpy(&wide_a[i], &x, 8);
        }
        emu_convert64(&op, wide_a, wide_d);
        for (int i = 0; i < 32; i++) {
            double x;
            memcpy(&x, &wide_a[i], 8);
            SAME(wide_d[i], expected_integer(x, t, op.round, true));
        }
        op.from = EMU_NUMBER_F16;
        for (int i = 0; i < 32; i++)
            wide_a[i] = random_half(&f16);
        emu_convert64(&op, wide_a, wide_d);
        for (int i = 0; i < 32; i++)
            SAME(wide_d[i],
                 expected_integer(value_of(&f16, (uint32_t)wide_a[i]), t, op.round, false));
    }
}
END_TEST

START_TEST(integers_to_floats) {
    for (int n = 0; n < 16000; n++) {
        const integer *t = &integers[n % 8];
        emu_round round = (emu_round)(n / 8 % 4);
        emu_convert op = {(uint8_t)t->number, EMU_NUMBER_F32, (uint8_t)round, false, false, 0};
        uint64_t a[32], d[32];
        uint32_t narrow[32], to[32];
        for (int i = 0; i < 32; i++) {
            a[i] = ((uint64_t)next() << 32 | next()) >> (i % 2 ? next() % 64 : 0);
            a[i] = i % 5 == 0 ? ~a[i] : a[i];
            narrow[i] = (uint32_t)a[i];
        }
        for (int pass = 0; pass < 3; pass++) { /* to f32, f64, f16 */
            op.to = pass == 0 ? EMU_NUMBER_F32 : pass == 1 ? EMU_NUMBER_F64 : EMU_NUMBER_F16;
            emu_convert64(&op, a, d);
            if (t->bits <= 32 && pass == 0)
                emu_convert32(&op, narrow, to);
            for (int i = 0; i < 32; i++) {
                uint64_t mask = t->bits == 64 ? UINT64_MAX : (1ull << t->bits) - 1;
                uint64_t value = a[i] & mask;
                bool negative = t->is_signed && value >> (t->bits - 1);
                uint64_t magnitude = negative ? (0 - value) & mask : value;
                round_like(round);
                volatile int64_t s = negative ? (int64_t)(0 - magnitude) : 0;
                volatile uint64_t u = magnitude;
                volatile float as_float = negative ? (float)s : (float)u;
                volatile double as_double = negative ? (double)s : (double)u;
                fesetround(FE_TONEAREST);
                uint64_t expected = bits_of(as_float);
                double x = as_double;
                if (pass == 1)
                    memcpy(&expected, &x, 8);
                if (pass == 2)
                    expected = slow_round(&f16, negative ? -(long double)magnitude : magnitude,
                                          round, false);
                SAME(d[i], expected);
                if (t->bits <= 32 && pass == 0)
                    SAME(to[i], expected);
            }
        }
    }
}
END_TEST

START_TEST(integers_to_integers) {
    for (int n = 0; n < 2000; n++) {
        const integer *from = &integers[n % 8], *to = &integers[n / 8 % 8];
        for (int sat = 0; sat < 2; sat++) {
            emu_convert op = {(uint8_t)from->number, (uint8_t)to->number, EMU_RN, false, false,
                              sat ? EMU_SAT : 0};
            uint64_t a[32], d[32];
            uint32_t narrow[32], out[32];
            for (int i = 0; i < 32; i++) {
                a[i] = ((uint64_t)next() << 32 | next()) >> next() % 64;
                narrow[i] = (uint32_t)(a[i] = next() % 2 ? ~a[i] : a[i]);
            }
            emu_convert64(&op, a, d);
            emu_convert32(&op, narrow, out);
            for (int i = 0; i < 32; i++) {
                __int128 value = a[i], range = (__int128)1 << from->bits;
                value %= range;
                if (from->is_signed && value >= range / 2)
                    value -= range;
                __int128 size = (__int128)1 << to->bits;
                __int128 least = to->is_signed ? -size / 2 : 0, most = least + size - 1;
                if (sat)
                    value = value < least ? least : value > most ? most : value;
                value = ((value % size) + size) % size;
                if (value > most)
                    value -= size;
                SAME(d[i], (uint64_t)value);
                if (from->bits <= 32 && to->bits <= 32)
                    SAME(out[i], (uint32_t)(uint64_t)value);
            }
        }
    }
}
END_TEST

/* cvt.rni.f32.f32 and its like, f64 to f32, modifiers. */
START_TEST(floats_to_floats) {
    for (int n = 0; n < 8000; n++) {
        emu_round round = (emu_round)(n % 4);
        emu_convert op = {EMU_NUMBER_F32, EMU_NUMBER_F32, (uint8_t)round, true, false, 0};
        uint32_t a[32], d[32];
        uint64_t wide[32], out[32];
        float expected[32];
        for (int i = 0; i < 32; i++)
            a[i] = i % 2 ? random_float() : bits_of((float)(int32_t)next() * 0x1p-28f);
        op.flags = (uint8_t)(n / 4 % 4 & (EMU_FTZ | EMU_SAT));
        emu_convert32(&op, a, d);
        round_like(round);
        for (int i = 0; i < 32; i++) {
            volatile float x = float_of(op.flags & EMU_FTZ ? flush(a[i]) : a[i]);
            expected[i] = nearbyintf(x);
        }
        fesetround(FE_TONEAREST);
        for (int i = 0; i < 32; i++)
            SAME(d[i], finish(expected[i], op.flags));

        op = (emu_convert){EMU_NUMBER_F64, EMU_NUMBER_F32, (uint8_t)round, false, false, 0};
        for (int i = 0; i < 32; i++)
            wide[i] = (uint64_t)(next() & 0xc0000000) << 32 |
                      ((uint64_t)(next() & 0x3fffffff) << 32 | next()) >> (i % 3 ? 1 : 0);
        for (int i = 0; i < 32; i += 2) { /* f32 range */
            double x = float_of(random_float()) * (1 + ldexp((double)(next() & 7), -26));
            memcpy(&wide[i], &x, 8);
        }
        emu_convert64(&op, wide, out);
        round_like(round);
        for (int i = 0; i < 32; i++) {
            double x;
            memcpy(&x, &wide[i], 8);
            volatile double y = x;
            volatile float z = (float)y;
            expected[i] = z;
        }
        fesetround(FE_TONEAREST);
        for (int i = 0; i < 32; i++)
            SAME(out[i], finish(expected[i], 0));
    }
    uint32_t a[32] = {0}, d[32];
    uint64_t wide[32] = {0}, out[32];
    emu_convert relu = {EMU_NUMBER_F32, EMU_NUMBER_F16, EMU_RN, false, false, EMU_RELU};
    a[0] = bits_of(-1);
    a[1] = 0x7fc00000;
    a[2] = bits_of(2);
    emu_convert32(&relu, a, d);
    SAME(d[0], 0);
    SAME(d[1], 0x7fff);
    SAME(d[2], 0x4000);
    emu_convert up = {EMU_NUMBER_F32, EMU_NUMBER_F64, EMU_RN, false, false, 0};
    wide[0] = 0x00000001;
    wide[1] = 0xff800001;
    emu_convert64(&up, wide, out);
    double tiny = 0x1p-149;
    ck_assert_mem_eq(&out[0], &tiny, 8);
    SAME(out[1], 0x7fffffffffffffff);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator convert");
    TCase *c = tcase_create("all");
    make_tables();
    tcase_set_timeout(c, 120);
    tcase_add_test(c, values_of_small_formats);
    tcase_add_test(c, rounding_to_small_formats);
    tcase_add_test(c, convert_from_f32);
    tcase_add_test(c, convert_pairs);
    tcase_add_test(c, floats_to_integers);
    tcase_add_test(c, integers_to_floats);
    tcase_add_test(c, integers_to_integers);
    tcase_add_test(c, floats_to_floats);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

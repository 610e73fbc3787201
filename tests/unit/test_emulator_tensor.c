/* Tensor-core instructions of the GPU emulator against matrix products in plain C.
 *
 * Where each element of a fragment lies is written down here again, element by element as in the
 * PTX ISA's sections "Matrix Fragments for mma.m16n8k*", and values are decoded from their fields;
 * nothing of the implementation is used but the functions under test. */
#include "quick_checks.h"
#include "runtime/emulator/tensor.h"

#include <math.h>
#include <string.h>

typedef struct place {
    int row, col;
} place;

/* groupID and threadID_in_group of the PTX ISA. */
static int group(int lane) {
    return lane >> 2;
}
static int in_group(int lane) {
    return lane % 4;
}

/* --- the ISA's tables: element i of a lane's A or B fragment -------------------------------------
 */

static place a_k4_tf32(int lane, int i) {
    return (place){i == 0 ? group(lane) : group(lane) + 8, in_group(lane)};
}
static place b_k4_tf32(int lane, int i) {
    return (place){in_group(lane) + 0 * i, group(lane)};
}

static place a_k8_tf32(int lane, int i) {
    return (place){i == 0 || i == 2 ? group(lane) : group(lane) + 8,
                   i < 2 ? in_group(lane) : in_group(lane) + 4};
}
static place b_k8_tf32(int lane, int i) {
    return (place){i == 0 ? in_group(lane) : in_group(lane) + 4, group(lane)};
}

static place a_k8_16bit(int lane, int i) {
    return (place){i < 2 ? group(lane) : group(lane) + 8, in_group(lane) * 2 + (i & 1)};
}
static place b_k8_16bit(int lane, int i) {
    return (place){in_group(lane) * 2 + i, group(lane)};
}

static place a_k16_16bit(int lane, int i) {
    bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
    return (place){upper ? group(lane) : group(lane) + 8,
                   i < 4 ? in_group(lane) * 2 + (i & 1) : in_group(lane) * 2 + (i & 1) + 8};
}
static place b_k16_16bit(int lane, int i) {
    return (place){i < 2 ? in_group(lane) * 2 + (i & 1) : in_group(lane) * 2 + (i & 1) + 8,
                   group(lane)};
}

static place a_k16_8bit(int lane, int i) {
    return (place){i < 4 ? group(lane) : group(lane) + 8, in_group(lane) * 4 + (i & 3)};
}
static place b_k16_8bit(int lane, int i) {
    return (place){in_group(lane) * 4 + i, group(lane)};
}

static place a_k32_8bit(int lane, int i) {
    bool upper = (0 <= i && i < 4) || (8 <= i && i < 12);
    return (place){upper ? group(lane) : group(lane) + 8,
                   i < 8 ? in_group(lane) * 4 + (i & 3) : in_group(lane) * 4 + (i & 3) + 16};
}
static place b_k32_8bit(int lane, int i) {
    return (place){i < 4 ? in_group(lane) * 4 + (i & 3) : in_group(lane) * 4 + (i & 3) + 16,
                   group(lane)};
}

static place a_k32_4bit(int lane, int i) {
    return (place){i < 8 ? group(lane) : group(lane) + 8, in_group(lane) * 8 + (i & 7)};
}
static place b_k32_4bit(int lane, int i) {
    return (place){in_group(lane) * 8 + i, group(lane)};
}

static place a_k64_4bit(int lane, int i) {
    bool upper = (0 <= i && i < 8) || (16 <= i && i < 24);
    return (place){upper ? group(lane) : group(lane) + 8,
                   i < 16 ? in_group(lane) * 8 + (i & 7) : in_group(lane) * 8 + (i & 7) + 32};
}
static place b_k64_4bit(int lane, int i) {
    return (place){i < 8 ? in_group(lane) * 8 + (i & 7) : in_group(lane) * 8 + (i & 7) + 32,
                   group(lane)};
}

static place c_place(int lane, int i) {
    return (place){i < 2 ? group(lane) : group(lane) + 8, in_group(lane) * 2 + (i & 1)};
}

typedef struct shape {
    int k, bits, n_a, n_b; /* n: elements a lane */
    place (*a)(int, int), (*b)(int, int);
} shape;

static const shape shapes[] = {
    {4, 32, 2, 1, a_k4_tf32, b_k4_tf32},    {8, 32, 4, 2, a_k8_tf32, b_k8_tf32},
    {8, 16, 4, 2, a_k8_16bit, b_k8_16bit},  {16, 16, 8, 4, a_k16_16bit, b_k16_16bit},
    {16, 8, 8, 4, a_k16_8bit, b_k16_8bit},  {32, 8, 16, 8, a_k32_8bit, b_k32_8bit},
    {32, 4, 16, 8, a_k32_4bit, b_k32_4bit}, {64, 4, 32, 16, a_k64_4bit, b_k64_4bit},
};

/* --- values --------------------------------------------------------------------------------------
 */

static uint64_t state = 1;
static uint32_t next(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

/* IEEE-like: sign, exponent and mantissa fields, by definition. */
static double fields(uint32_t bits, int e_bits, int m_bits, bool has_inf) {
    int bias = (1 << (e_bits - 1)) - 1, e = (int)(bits >> m_bits) & ((1 << e_bits) - 1);
    uint32_t m = bits & ((1u << m_bits) - 1);
    double sign = bits >> (e_bits + m_bits) & 1 ? -1 : 1;
    if (has_inf && e == (1 << e_bits) - 1)
        return m ? NAN : sign * INFINITY;
    if (!has_inf && e == (1 << e_bits) - 1 && m == (1u << m_bits) - 1)
        return NAN;
    return sign * (e ? ldexp(1 + ldexp(m, -m_bits), e - bias) : ldexp(m, 1 - bias - m_bits));
}

static double decode(int type, uint32_t bits) {
    switch (type) {
    case EMU_MMA_F16:
        return fields(bits, 5, 10, true);
    case EMU_MMA_BF16:
        return fields(bits, 8, 7, true);
    case EMU_MMA_TF32:
        return fields(bits >> 13, 8, 10, true);
    case EMU_MMA_E4M3:
        return fields(bits, 4, 3, false);
    case EMU_MMA_E5M2:
        return fields(bits, 5, 2, true);
    case EMU_MMA_S8:
        return bits < 128 ? (double)bits : (double)bits - 256;
    case EMU_MMA_S4:
        return bits < 8 ? (double)bits : (double)bits - 16;
    default:
        return bits;
    }
}

static double decode_f32(uint32_t bits) {
    return fields(bits, 8, 23, true);
}

typedef struct operands {
    uint32_t a[16][64], b[64][8]; /* encoded elements, as matrices */
    uint32_t regs_a[4][32], regs_b[4][32], c[4][32], d[4][32];
} operands;

/* Puts the matrices' elements where the tables say: element i of a lane is the (i mod per)-th from
 * the low end of register i / per. */
static void place_operands(const shape *s, operands *o) {
    int per = 32 / s->bits;
    memset(o->regs_a, 0, sizeof o->regs_a);
    memset(o->regs_b, 0, sizeof o->regs_b);
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < s->n_a; i++) {
            place p = s->a(lane, i);
            o->regs_a[i / per][lane] |= o->a[p.row][p.col] << i % per * s->bits;
        }
        for (int i = 0; i < s->n_b; i++) {
            place p = s->b(lane, i);
            o->regs_b[i / per][lane] |= o->b[p.row][p.col] << i % per * s->bits;
        }
    }
}

static void run(const emu_mma_op *op, emu_mma_sum sum, const shape *s, operands *o) {
    const uint32_t *a[4], *b[4], *c[4];
    uint32_t *d[4];
    int n_a, n_b, n_cd;
    IS_TRUE(emu_mma_registers(op, &n_a, &n_b, &n_cd));
    ck_assert_int_eq(n_a, s->n_a * s->bits / 32);
    ck_assert_int_eq(n_b, s->n_b * s->bits / 32);
    ck_assert_int_eq(n_cd, op->acc == EMU_MMA_F16 ? 2 : 4);
    for (int i = 0; i < 4; i++) {
        a[i] = o->regs_a[i];
        b[i] = o->regs_b[i];
        c[i] = o->c[i];
        d[i] = o->d[i];
    }
    place_operands(s, o);
    emu_mma(op, sum, a, b, c, d);
}

/* A random element whose value is finite; mostly of moderate size, so that sums mean something. */
static uint32_t random_element(int type, int bits) {
    for (;;) {
        uint32_t x = next() >> (32 - bits);
        double v = decode(type, x);
        if (!isfinite(v))
            continue;
        if ((type == EMU_MMA_BF16 || type == EMU_MMA_TF32) && v != 0 &&
            (fabs(v) > 0x1p30 || fabs(v) < 0x1p-30))
            continue;
        return x;
    }
}

static void fill(const shape *s, int a_type, int b_type, operands *o) {
    for (int k = 0; k < s->k; k++) {
        for (int m = 0; m < 16; m++)
            o->a[m][k] = random_element(a_type, s->bits);
        for (int n = 0; n < 8; n++)
            o->b[k][n] = random_element(b_type, s->bits);
    }
}

static double ulp_f32(double x) {
    int e = x == 0 ? -126 : ilogb(x);
    return ldexp(1, (e < -126 ? -126 : e) - 23);
}

static double ulp_f16(double x) {
    int e = x == 0 ? -14 : ilogb(x);
    return ldexp(1, (e < -14 ? -14 : e) - 10);
}

/* One case of a floating-point type: the result lies within half a unit of the sum in quadruple
 * precision, plus what a sum in double may lose. */
static void check_float(const shape *s, int a_type, int b_type, int acc) {
    static operands o;
    emu_mma_op op = {(uint8_t)s->k, (uint8_t)a_type, (uint8_t)b_type, (uint8_t)acc, false};
    fill(s, a_type, b_type, &o);
    for (int i = 0; i < 4; i++) {
        for (int lane = 0; lane < 32; lane++) {
            float c = ldexpf((float)(int32_t)next(), (int)(next() % 40) - 50);
            memcpy(&o.c[i][lane], &c, 4);
            if (acc == EMU_MMA_F16)
                o.c[i][lane] = random_element(EMU_MMA_F16, 16) | random_element(EMU_MMA_F16, 16)
                                                                     << 16;
        }
    }
    run(&op, EMU_MMA_EXACT, s, &o);
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            place p = c_place(lane, i);
            uint32_t c_bits =
                acc == EMU_MMA_F16 ? o.c[i / 2][lane] >> i % 2 * 16 & 0xffff : o.c[i][lane];
            uint32_t d_bits =
                acc == EMU_MMA_F16 ? o.d[i / 2][lane] >> i % 2 * 16 & 0xffff : o.d[i][lane];
            __float128 sum = acc == EMU_MMA_F16 ? decode(EMU_MMA_F16, c_bits) : decode_f32(c_bits);
            double magnitude = fabs((double)sum);
            for (int k = 0; k < s->k; k++) {
                double x = decode(a_type, o.a[p.row][k]), y = decode(b_type, o.b[k][p.col]);
                sum += (__float128)x * y;
                magnitude += fabs(x * y);
            }
            double got = acc == EMU_MMA_F16 ? decode(EMU_MMA_F16, d_bits) : decode_f32(d_bits);
            double largest = acc == EMU_MMA_F16 ? 65520 : 0x1.ffffffp127;
            if (fabs((double)sum) >= largest) {
                IS_TRUE(isinf(got) && signbit(got) == signbit((double)sum));
                continue;
            }
            double ulp = acc == EMU_MMA_F16 ? ulp_f16((double)sum) : ulp_f32((double)sum);
            double error = fabs((double)(got - sum)), bound = ulp / 2 + magnitude * 0x1p-48;
            HOLDS(error <= bound, "k %d lane %d element %d: %a, expected %a", s->k, lane, i, got,
                  (double)sum);
        }
    }
}

START_TEST(floats) {
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 2; i++)
            check_float(&shapes[i], EMU_MMA_TF32, EMU_MMA_TF32, EMU_MMA_F32);
        for (int i = 2; i < 4; i++) {
            check_float(&shapes[i], EMU_MMA_F16, EMU_MMA_F16, EMU_MMA_F32);
            check_float(&shapes[i], EMU_MMA_F16, EMU_MMA_F16, EMU_MMA_F16);
            check_float(&shapes[i], EMU_MMA_BF16, EMU_MMA_BF16, EMU_MMA_F32);
        }
        for (int i = 4; i < 6; i++) {
            for (int pair = 0; pair < 4; pair++) {
                int a = pair & 1 ? EMU_MMA_E4M3 : EMU_MMA_E5M2;
                int b = pair & 2 ? EMU_MMA_E4M3 : EMU_MMA_E5M2;
                check_float(&shapes[i], a, b, EMU_MMA_F32);
                check_float(&shapes[i], a, b, EMU_MMA_F16);
            }
        }
    }
}
END_TEST

static void check_integers(const shape *s, int a_type, int b_type, bool satfinite, bool extreme) {
    static operands o;
    emu_mma_op op = {(uint8_t)s->k, (uint8_t)a_type, (uint8_t)b_type, EMU_MMA_S32, satfinite};
    fill(s, a_type, b_type, &o);
    if (extreme) { /* the largest magnitudes everywhere */
        uint32_t top = 1u << (s->bits - 1), all = 2 * top - 1;
        for (int k = 0; k < s->k; k++) {
            for (int m = 0; m < 16; m++)
                o.a[m][k] = a_type == EMU_MMA_U8 || a_type == EMU_MMA_U4 ? all : top;
            for (int n = 0; n < 8; n++)
                o.b[k][n] = b_type == EMU_MMA_U8 || b_type == EMU_MMA_U4 ? all : top;
        }
    }
    for (int i = 0; i < 4; i++) {
        for (int lane = 0; lane < 32; lane++)
            o.c[i][lane] = next() % 3 == 0 ? 0x7fffffff : next() % 3 == 0 ? 0x80000000 : next();
    }
    run(&op, EMU_MMA_EXACT, s, &o);
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            place p = c_place(lane, i);
            int64_t sum = (int32_t)o.c[i][lane];
            for (int k = 0; k < s->k; k++)
                sum +=
                    (int64_t)decode(a_type, o.a[p.row][k]) * (int64_t)decode(b_type, o.b[k][p.col]);
            if (satfinite)
                sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
            SAME(o.d[i][lane], (uint32_t)sum);
        }
    }
}

START_TEST(integers) {
    for (int round = 0; round < 40; round++) {
        for (int pair = 0; pair < 8; pair++) {
            bool sat = pair & 4;
            for (int i = 4; i < 6; i++)
                check_integers(&shapes[i], pair & 1 ? EMU_MMA_S8 : EMU_MMA_U8,
                               pair & 2 ? EMU_MMA_S8 : EMU_MMA_U8, sat, round == 0);
            for (int i = 6; i < 8; i++)
                check_integers(&shapes[i], pair & 1 ? EMU_MMA_S4 : EMU_MMA_U4,
                               pair & 2 ? EMU_MMA_S4 : EMU_MMA_U4, sat, round == 0);
        }
    }
}
END_TEST

/* Infinities and NaNs, subnormal operands, and that exact ties go to even. */
START_TEST(special_values) {
    static operands o;
    emu_mma_op op = {16, EMU_MMA_F16, EMU_MMA_F16, EMU_MMA_F32, false};
    const shape *s = &shapes[3];
    memset(&o, 0, sizeof o);
    o.a[0][0] = 0x7c00; /* inf * 1 */
    o.a[1][0] = 0x7c00; /* inf * 1 - inf * 1 */
    o.a[1][1] = 0xfc00;
    o.a[2][2] = 0x7c00; /* inf * 0 */
    o.a[3][0] = 0x7e01; /* NaN */
    o.a[4][0] = 1;      /* 2^-24 * 1: subnormal */
    o.a[5][3] = 1;      /* 2^-24 * 2^-24 */
    o.a[6][0] = 0x3c00; /* 1 + 2^-24: a tie, to even */
    o.a[6][4] = 0x0001;
    o.a[7][0] = 0x3c00; /* 1 + 2^-24 + 2^-48: above the tie */
    o.a[7][4] = 0x0001;
    o.a[7][3] = 0x0001;
    for (int n = 0; n < 8; n++) {
        o.b[0][n] = o.b[1][n] = o.b[4][n] = 0x3c00;
        o.b[3][n] = 1;
    }
    run(&op, EMU_MMA_EXACT, s, &o);
    static const uint32_t expected[8] = {0x7f800000, 0x7fffffff, 0x7fffffff, 0x7fffffff,
                                         0x33800000, 0x27800000, 0x3f800000, 0x3f800001};
    for (int lane = 0; lane < 32; lane++) {
        SAME(o.d[0][lane], expected[group(lane)]);
        SAME(o.d[1][lane], expected[group(lane)]);
        SAME(o.d[2][lane], 0);
    }
    op.acc = EMU_MMA_F16;
    run(&op, EMU_MMA_EXACT, s, &o);
    for (int n = 0; n < 4; n++) {
        SAME(o.d[0][n], 0x7c007c00);
        SAME(o.d[0][4 + n], 0x7fff7fff);
        SAME(o.d[0][16 + n], 0x00010001);
    }
}
END_TEST

/* c = 1 and n products of 2^-e: what an adder with 24 or 25 fraction bits keeps of them. */
static double truncated(emu_mma_sum sum, int n, int e) {
    static operands o;
    emu_mma_op op = {16, EMU_MMA_F16, EMU_MMA_F16, EMU_MMA_F32, false};
    memset(&o, 0, sizeof o);
    for (int k = 0; k < n; k++) {
        o.a[0][k] = 0x3c00 - (uint32_t)(e - 14) * 0x400; /* 2^(14 - e) */
        o.b[k][0] = 0x0400;                              /* 2^-14 */
    }
    o.c[0][0] = 0x3f800000;
    run(&op, sum, &shapes[3], &o);
    return decode_f32(o.d[0][0]);
}

START_TEST(truncating_sums) {
    IS_TRUE(truncated(EMU_MMA_TRUNCATE_24, 1, 23) == 1 + 0x1p-23);
    IS_TRUE(truncated(EMU_MMA_TRUNCATE_24, 1, 24) == 1); /* kept in the sum, cut from f32 */
    IS_TRUE(truncated(EMU_MMA_TRUNCATE_24, 2, 24) == 1 + 0x1p-23);
    IS_TRUE(truncated(EMU_MMA_TRUNCATE_24, 8, 25) == 1);
    IS_TRUE(truncated(EMU_MMA_TRUNCATE_25, 4, 25) == 1 + 0x1p-23);
    IS_TRUE(truncated(EMU_MMA_TRUNCATE_25, 3, 25) == 1);
    IS_TRUE(truncated(EMU_MMA_TRUNCATE_25, 16, 26) == 1);
    IS_TRUE(truncated(EMU_MMA_EXACT, 16, 26) == 1 + 0x1p-22);
    IS_TRUE(truncated(EMU_MMA_EXACT, 3, 24) == 1 + 0x1p-22); /* 1.5 units: to even */
    /* Steps of 8 terms on Ampere: 1 + 1 unit of 2^-24 twice, each cut; one step of 16 on Hopper. */
    static operands o;
    emu_mma_op op = {16, EMU_MMA_F16, EMU_MMA_F16, EMU_MMA_F32, false};
    memset(&o, 0, sizeof o);
    o.c[0][0] = 0x3f800000;
    o.a[0][0] = o.a[0][8] = 0x1400; /* 2^-10 */
    o.b[0][0] = o.b[8][0] = 0x0400;
    run(&op, EMU_MMA_TRUNCATE_24, &shapes[3], &o);
    SAME(o.d[0][0], 0x3f800000);
    run(&op, EMU_MMA_TRUNCATE_25, &shapes[3], &o);
    SAME(o.d[0][0], 0x3f800001);
}
END_TEST

/* Random operands: a truncating sum is off by less than one unit of its largest term a term. */
START_TEST(truncating_sums_are_close) {
    static operands o;
    for (int round = 0; round < 60; round++) {
        int type = round % 2 ? EMU_MMA_BF16 : EMU_MMA_F16;
        emu_mma_op op = {16, (uint8_t)type, (uint8_t)type, EMU_MMA_F32, false};
        emu_mma_sum mode = round % 4 < 2 ? EMU_MMA_TRUNCATE_24 : EMU_MMA_TRUNCATE_25;
        fill(&shapes[3], type, type, &o);
        memset(o.c, 0, sizeof o.c);
        run(&op, mode, &shapes[3], &o);
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 4; i++) {
                place p = c_place(lane, i);
                long double sum = 0, largest = 0;
                for (int k = 0; k < 16; k++) {
                    long double x =
                        (long double)decode(type, o.a[p.row][k]) * decode(type, o.b[k][p.col]);
                    sum += x;
                    largest = fabsl(x) > largest ? fabsl(x) : largest;
                }
                long double error = fabsl(decode_f32(o.d[i][lane]) - sum);
                /* 17 cut terms, two cuts to f32 whose sum may be 16 times the largest term */
                IS_TRUE(error <= largest * (17 * 0x1p-24L + 2 * 16 * 0x1p-23L));
            }
        }
    }
}
END_TEST

START_TEST(unknown_shapes) {
    static const emu_mma_op bad[] = {
        {16, EMU_MMA_F16, EMU_MMA_BF16, EMU_MMA_F32, false},
        {32, EMU_MMA_F16, EMU_MMA_F16, EMU_MMA_F32, false},
        {16, EMU_MMA_BF16, EMU_MMA_BF16, EMU_MMA_F16, false},
        {16, EMU_MMA_TF32, EMU_MMA_TF32, EMU_MMA_F32, false},
        {64, EMU_MMA_S8, EMU_MMA_S8, EMU_MMA_S32, false},
        {32, EMU_MMA_S8, EMU_MMA_S4, EMU_MMA_S32, false},
        {32, EMU_MMA_S8, EMU_MMA_S8, EMU_MMA_F32, false},
        {16, EMU_MMA_F16, EMU_MMA_F16, EMU_MMA_F32, true},
        {16, 200, 200, EMU_MMA_F32, false},
    };
    int n;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        IS_TRUE(!emu_mma_registers(&bad[i], &n, &n, &n));
}
END_TEST

/* d may be c, as in every main loop. */
START_TEST(in_place) {
    static operands o;
    emu_mma_op op = {16, EMU_MMA_F16, EMU_MMA_F16, EMU_MMA_F32, false};
    fill(&shapes[3], EMU_MMA_F16, EMU_MMA_F16, &o);
    memset(o.c, 0, sizeof o.c);
    run(&op, EMU_MMA_EXACT, &shapes[3], &o);
    const uint32_t *a[4], *b[2], *c[4];
    uint32_t *d[4];
    for (int i = 0; i < 4; i++) {
        a[i] = o.regs_a[i];
        c[i] = d[i] = o.c[i];
    }
    b[0] = o.regs_b[0];
    b[1] = o.regs_b[1];
    emu_mma(&op, EMU_MMA_EXACT, a, b, c, d);
    ck_assert_mem_eq(o.c, o.d, sizeof o.c);
}
END_TEST

START_TEST(matrices_of_16_bits) {
    _Alignas(16) uint16_t memory[4][8][24]; /* rows 48 bytes apart */
    const uint8_t *rows[32];
    uint8_t *targets[32];
    uint32_t d[4][32];
    uint32_t *to[4] = {d[0], d[1], d[2], d[3]};
    const uint32_t *from[4] = {d[0], d[1], d[2], d[3]};
    for (int j = 0; j < 4; j++) {
        for (int r = 0; r < 8; r++) {
            rows[8 * j + r] = (const uint8_t *)memory[j][r];
            targets[8 * j + r] = (uint8_t *)memory[j][r];
            for (int col = 0; col < 24; col++)
                memory[j][r][col] = (uint16_t)(1000 * j + 100 * r + col);
        }
    }
    for (int count = 1; count <= 4; count *= 2) {
        for (int trans = 0; trans < 2; trans++) {
            memset(d, 0xee, sizeof d);
            emu_ldmatrix(count, trans, rows, to);
            for (int j = 0; j < 4; j++) {
                for (int lane = 0; lane < 32; lane++) {
                    int r = lane / 4, col = lane % 4 * 2;
                    uint16_t low = memory[j][r][col], high = memory[j][r][col + 1];
                    if (trans) {
                        low = memory[j][col][r];
                        high = memory[j][col + 1][r];
                    }
                    SAME(d[j][lane], j < count ? low | (uint32_t)high << 16 : 0xeeeeeeee);
                }
            }
        }
    }
    uint32_t moved[32], plain[32], again[32];
    uint32_t *one[1] = {plain};
    emu_ldmatrix(1, false, rows, one);
    emu_movmatrix(plain, moved);
    one[0] = again;
    emu_ldmatrix(1, true, rows, one);
    ck_assert_mem_eq(moved, again, sizeof moved);
    /* What ldmatrix reads, stmatrix writes back. */
    uint16_t saved[4][8][24];
    memcpy(saved, memory, sizeof saved);
    for (int trans = 0; trans < 2; trans++) {
        emu_ldmatrix(4, trans, rows, to);
        for (int j = 0; j < 4; j++) {
            for (int r = 0; r < 8; r++)
                memset(memory[j][r], 0, 16);
        }
        emu_stmatrix(4, trans, from, targets);
        ck_assert_mem_eq(saved, memory, sizeof saved);
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator tensor");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, floats);
    tcase_add_test(c, integers);
    tcase_add_test(c, special_values);
    tcase_add_test(c, truncating_sums);
    tcase_add_test(c, truncating_sums_are_close);
    tcase_add_test(c, unknown_shapes);
    tcase_add_test(c, in_place);
    tcase_add_test(c, matrices_of_16_bits);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

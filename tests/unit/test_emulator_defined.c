/* Instructions that the assembler does not fold, against what the PTX ISA says of them: written
 * down here bit by bit, byte by byte, or taken from the host's arithmetic in the same rounding
 * mode. */
#include "emulator_kernel.h"

#include <fenv.h>
#include <math.h>

typedef struct words {
    uint32_t a, b, c, d;
} words;
enum { N = 1024 };

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return isnan(x) ? 0x7fffffff : bits;
}

/* Runs `text` (a, b, c -> d; fa, fb, fc -> fd when `floats`) on N triples and compares. */
static void compare(const char *text, bool floats,
                    uint32_t (*expected)(uint32_t, uint32_t, uint32_t)) {
    static const char head[] = PTX_HEADER
        ".visible .entry k(.param .u64 words) { .reg .b64 g; .reg .b32 t, a, b, c, d;\n"
        ".reg .f32 fa, fb, fc, fd; ld.param.u64 g, [words]; mov.u32 t, %tid.x;\n"
        "mad.wide.u32 g, t, 16, g; ld.global.v2.u32 {a, b}, [g]; ld.global.u32 c, [g+8];\n"
        "mov.b32 fa, a; mov.b32 fb, b; mov.b32 fc, c;\n";
    char ptx[2048];
    snprintf(ptx, sizeof ptx, "%s%s%s\nst.global.u32 [g+12], d; ret; }\n", head, text,
             floats ? " mov.b32 d, fd;" : "");
    static words in[N];
    uint64_t state = strlen(text) * 77 + (unsigned char)text[0];
    for (int i = 0; i < N; i++) {
        uint32_t *w = &in[i].a;
        for (int k = 0; k < 3; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            uint32_t high = (uint32_t)(state >> 32), kind = (uint32_t)(state >> 16) % 8;
            w[k] = kind == 0 ? high >> 27 : kind == 1 ? ~(high >> 29) : high;
            if (floats && kind != 0) /* near enough for sums to round */
                w[k] = (high & 0x807fffff) | (107 + (high >> 23) % 40) << 23;
            if (floats && kind == 1)
                w[k] &= 0x80ffffff; /* subnormal or hardly normal */
        }
        in[i].d = 0;
    }
    gpu g = gpu_open(ptx);
    const emu_allocation *a = gpu_buffer(&g, in, sizeof in);
    GPU_MUST(&g, "k", 1, N, a->base);
    for (int i = 0; i < N; i++) {
        uint32_t got = gpu_u32(a, 4 * (size_t)i + 3), want = expected(in[i].a, in[i].b, in[i].c);
        if (floats)
            got = bits_of(float_of(got));
        HOLDS(got == want, "%s of %#x, %#x, %#x is %#x, expected %#x", text, in[i].a, in[i].b,
              in[i].c, got, want);
    }
    gpu_close(&g);
}

/* --- integers -----------------------------------------------------------------------------------
 */

/* lop3's table: bit (a, b, c) of it, most significant first. */
static int table;
static uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t at = (a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1);
        d |= ((uint32_t)table >> at & 1) << i;
    }
    return d;
}

START_TEST(lop3_of_every_table) {
    char text[64];
    for (table = 0; table < 256; table++) {
        snprintf(text, sizeof text, "lop3.b32 d, a, b, c, 0x%x;", table);
        compare(text, false, lop3);
    }
}
END_TEST

static uint8_t byte_of(uint32_t a, uint32_t b, uint32_t i) {
    return (uint8_t)(i < 4 ? a >> 8 * i : b >> 8 * (i - 4));
}
static uint32_t prmt(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t select = c >> 4 * i & 15;
        uint8_t byte = byte_of(a, b, select & 7);
        if (select & 8) /* its sign, everywhere */
            byte = byte & 0x80 ? 0xff : 0;
        d |= (uint32_t)byte << 8 * i;
    }
    return d;
}
/* The modes select by the two low bits of c: the bytes of d from the most significant one. */
static const char *modes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
static const uint16_t selections[6][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
    {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
    {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
static uint32_t prmt_mode(uint32_t a, uint32_t b, uint32_t c) {
    return prmt(a, b, selections[table][c & 3]);
}

START_TEST(bytes_permuted) {
    compare("prmt.b32 d, a, b, c;", false, prmt);
    for (table = 0; table < 6; table++) {
        char text[64];
        snprintf(text, sizeof text, "prmt.b32.%s d, a, b, c;", modes[table]);
        compare(text, false, prmt_mode);
    }
}
END_TEST

static uint32_t dot(uint32_t a, uint32_t b, uint32_t c, bool a_signed, bool b_signed) {
    for (int i = 0; i < 4; i++) {
        int32_t x = a_signed ? (int8_t)(a >> 8 * i) : (uint8_t)(a >> 8 * i);
        int32_t y = b_signed ? (int8_t)(b >> 8 * i) : (uint8_t)(b >> 8 * i);
        c += (uint32_t)(x * y);
    }
    return c;
}
static uint32_t dot_ss(uint32_t a, uint32_t b, uint32_t c) {
    return dot(a, b, c, true, true);
}
static uint32_t dot_uu(uint32_t a, uint32_t b, uint32_t c) {
    return dot(a, b, c, false, false);
}
static uint32_t dot_su(uint32_t a, uint32_t b, uint32_t c) {
    return dot(a, b, c, true, false);
}
static uint32_t dot_us(uint32_t a, uint32_t b, uint32_t c) {
    return dot(a, b, c, false, true);
}
static uint32_t dot2_low(uint32_t a, uint32_t b, uint32_t c) {
    return c + (uint32_t)((int16_t)a * (int8_t)b) +
           (uint32_t)((int16_t)(a >> 16) * (int8_t)(b >> 8));
}
static uint32_t dot2_high(uint32_t a, uint32_t b, uint32_t c) {
    return c + (uint32_t)((int32_t)(a & 0xffff) * (int8_t)(b >> 16)) +
           (uint32_t)((int32_t)(a >> 16) * (int8_t)(b >> 24));
}

START_TEST(dot_products) {
    compare("dp4a.s32.s32 d, a, b, c;", false, dot_ss);
    compare("dp4a.u32.u32 d, a, b, c;", false, dot_uu);
    compare("dp4a.s32.u32 d, a, b, c;", false, dot_su);
    compare("dp4a.u32.s32 d, a, b, c;", false, dot_us);
    compare("dp2a.lo.s32.s32 d, a, b, c;", false, dot2_low);
    compare("dp2a.hi.u32.s32 d, a, b, c;", false, dot2_high);
}
END_TEST

static uint32_t mad_high_u(uint32_t a, uint32_t b, uint32_t c) {
    return (uint32_t)((uint64_t)a * b >> 32) + c;
}
static uint32_t mad_high_s(uint32_t a, uint32_t b, uint32_t c) {
    return (uint32_t)((int64_t)(int32_t)a * (int32_t)b >> 32) + c;
}
static uint32_t mad_high_sat(uint32_t a, uint32_t b, uint32_t c) {
    int64_t sum = ((int64_t)(int32_t)a * (int32_t)b >> 32) + (int32_t)c;
    return (uint32_t)(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
}
static uint32_t sad_s(uint32_t a, uint32_t b, uint32_t c) {
    int64_t d = (int64_t)(int32_t)a - (int32_t)b;
    return c + (uint32_t)(d < 0 ? -d : d);
}
static uint32_t sad_u(uint32_t a, uint32_t b, uint32_t c) {
    return c + (a < b ? b - a : a - b);
}
static uint32_t divide_u(uint32_t a, uint32_t b, uint32_t c) {
    return a / (b | 1) + a % (c | 1);
}

START_TEST(sums_of_products_and_differences) {
    compare("mad.hi.u32 d, a, b, c;", false, mad_high_u);
    compare("mad.hi.s32 d, a, b, c;", false, mad_high_s);
    compare("mad.hi.sat.s32 d, a, b, c;", false, mad_high_sat);
    compare("sad.s32 d, a, b, c;", false, sad_s);
    compare("sad.u32 d, a, b, c;", false, sad_u);
    compare("or.b32 b, b, 1; or.b32 c, c, 1; div.u32 d, a, b; rem.u32 t, a, c; add.u32 d, d, t;",
            false, divide_u);
}
END_TEST

/* --- rounding -----------------------------------------------------------------------------------
 */

static int mode;
/* The host's operation in the mode of the instruction. Volatile: at run time, in this order. */
#define ROUNDED(name, expression)                                                                  \
    static uint32_t name(uint32_t a, uint32_t b, uint32_t c) {                                     \
        volatile float x = float_of(a), y = float_of(b), z = float_of(c), r;                       \
        fesetround(mode);                                                                          \
        r = expression;                                                                            \
        fesetround(FE_TONEAREST);                                                                  \
        (void)y, (void)z;                                                                          \
        return bits_of(r);                                                                         \
    }
ROUNDED(add, x + y)
ROUNDED(sub, x - y)
ROUNDED(mul, x *y)
ROUNDED(divide, x / y)
ROUNDED(root, sqrtf(x))
ROUNDED(reciprocal, 1.0f / x)

ROUNDED(fused, fmaf(x, y, z))

START_TEST(every_rounding_mode) {
    static const struct {
        const char *name;
        int mode;
    } all[] = {{"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
    static const struct {
        const char *form;
        uint32_t (*expected)(uint32_t, uint32_t, uint32_t);
    } operations[] = {{"add.%s.f32 fd, fa, fb;", add},      {"sub.%s.f32 fd, fa, fb;", sub},
                      {"mul.%s.f32 fd, fa, fb;", mul},      {"div.%s.f32 fd, fa, fb;", divide},
                      {"sqrt.%s.f32 fd, fa;", root},        {"rcp.%s.f32 fd, fa;", reciprocal},
                      {"fma.%s.f32 fd, fa, fb, fc;", fused}};
    for (size_t m = 0; m < 4; m++)
        for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
            char text[64];
            const char *form = operations[i].form, *hole = strstr(form, "%s");
            snprintf(text, sizeof text, "%.*s%s%s", (int)(hole - form), form, all[m].name,
                     hole + 2);
            mode = all[m].mode;
            compare(text, true, operations[i].expected);
        }
}
END_TEST

static uint32_t copy_sign(uint32_t a, uint32_t b, uint32_t c) {
    (void)c;
    return (a & 0x80000000) | (b & 0x7fffffff);
}
static uint32_t greatest_xorsign(uint32_t a, uint32_t b, uint32_t c) {
    float x = fabsf(float_of(a)), y = fabsf(float_of(b));
    (void)c;
    return bits_of(x > y ? x : y) | ((a ^ b) & 0x80000000);
}

START_TEST(signs) {
    compare("copysign.f32 fd, fa, fb;", true, copy_sign);
    compare("max.xorsign.abs.f32 fd, fa, fb;", true, greatest_xorsign);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator_defined");
    TCase *c = tcase_create("defined");
    tcase_add_test(c, lop3_of_every_table);
    tcase_add_test(c, bytes_permuted);
    tcase_add_test(c, dot_products);
    tcase_add_test(c, sums_of_products_and_differences);
    tcase_add_test(c, every_rounding_mode);
    tcase_add_test(c, signs);
    tcase_set_timeout(c, 60);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

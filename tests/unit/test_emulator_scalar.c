/* Scalar code on the GPU emulator against the same code compiled by this compiler: one source, two
 * compilers that share nothing. What NVRTC makes of it differs between generations of targets. */
#include "emulator_kernel.h"

#include <math.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;

static float float_of(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
/* All NaN are one: which it is, is each machine's own affair. */
static u32 bits_of(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return isnan(x) ? 0x7fffffff : bits;
}

#define FN static
#define F float_of
#define B bits_of
#define FMA fmaf
#define SQRT sqrtf
#define RINT rintf
#define FLOOR floorf
#define CEIL ceilf
#define TRUNC truncf
#define FABS fabsf
#define COPYSIGN copysignf
#define CLZ __builtin_clz
#define POPC __builtin_popcount
#define CTZ __builtin_ctz
#include "fixture/scalar_code.h"

static const char prologue[] =
    "typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32;\n"
    "typedef unsigned long long u64; typedef signed char i8; typedef short i16; typedef int i32;\n"
    "typedef long long i64;\n"
    "static __device__ float F(u32 bits) { return __uint_as_float(bits); }\n"
    "static __device__ u32 B(float x) { return x != x ? 0x7fffffffu : __float_as_uint(x); }\n"
    "#define FN static __device__\n"
    "#define FMA fmaf\n#define SQRT sqrtf\n#define RINT rintf\n#define FLOOR floorf\n"
    "#define CEIL ceilf\n#define TRUNC truncf\n#define FABS fabsf\n#define COPYSIGN copysignf\n"
    "#define CLZ(x) __clz((int)(x))\n#define POPC __popc\n"
    "#define CTZ(x) (__ffs((int)(x)) - 1)\n";

static const char epilogue[] =
    "\n#define KERNEL(f) extern \"C\" __global__ void k_##f(const u32 *a, const u32 *b, "
    "const u32 *c, u32 *out, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; "
    "if (i < n) out[i] = f(a[i], b[i], c[i]); }\n"
    "SCALAR_FUNCTIONS(KERNEL)\n";

typedef struct function {
    const char *kernel;
    u32 (*run)(u32, u32, u32);
} function;
#define ROW(f) {"k_" #f, f},
static const function functions[] = {SCALAR_FUNCTIONS(ROW)};
enum { N_FUNCTIONS = sizeof functions / sizeof *functions, N = 5000 };

static char *read_text(const char *path) {
    FILE *file = fopen(path, "rb");
    HOLDS(file, "no %s", path);
    char *text = calloc(1, 1 << 16);
    size_t n = fread(text, 1, (1 << 16) - 1, file);
    HOLDS(n > 0 && n < (1 << 16) - 1, "%s is too long", path);
    fclose(file);
    return text;
}

static u32 random_word(uint64_t *state) {
    static const u32 special[] = {0,          1,          2,          0x7fffffff, 0x80000000,
                                  0xffffffff, 0x3f800000, 0xbf800000, 0x00800000, 0x007fffff,
                                  1,          0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000,
                                  31,         32,         33,         0x4b800001, 0x5f000000};
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    u32 high = (u32)(*state >> 32), kind = (u32)(*state >> 20) % 8;
    return kind == 0   ? special[high % 20]
           : kind == 1 ? high >> (high & 31)
           : kind < 4  ? (high & 0x807fffff) | (100 + (high >> 23) % 56) << 23 /* moderate floats */
                       : high;
}

START_TEST(as_compiled_for_this_machine) {
    SKIP_WITHOUT_NVRTC();
    const char *arch = nvrtc_archs[_i];
    char *code = read_text(MCC_TEST_DATA "/unit/fixture/scalar_code.h");
    char *source = malloc(strlen(prologue) + strlen(code) + strlen(epilogue) + 1);
    sprintf(source, "%s%s%s", prologue, code, epilogue);
    char *ptx = nvrtc_ptx(source, arch);
    gpu g = gpu_open(ptx);
    static u32 in[3][N];
    uint64_t state = 1234 + (uint64_t)_i;
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 3; k++)
            in[k][i] = random_word(&state);
    const emu_allocation *a = gpu_buffer(&g, in[0], sizeof in[0]),
                         *b = gpu_buffer(&g, in[1], sizeof in[1]),
                         *c = gpu_buffer(&g, in[2], sizeof in[2]);
    for (int f = 0; f < N_FUNCTIONS; f++) {
        const emu_allocation *out = gpu_buffer(&g, NULL, 4 * (size_t)N);
        GPU_MUST(&g, functions[f].kernel, (N + 127) / 128, 128, a->base, b->base, c->base,
                 out->base, (uint64_t)N);
        for (int i = 0; i < N; i++) {
            u32 expected = functions[f].run(in[0][i], in[1][i], in[2][i]);
            HOLDS(gpu_u32(out, (size_t)i) == expected, "%s, %s(%#x, %#x, %#x) is %#x, expected %#x",
                  arch, functions[f].kernel, in[0][i], in[1][i], in[2][i], gpu_u32(out, (size_t)i),
                  expected);
        }
        emu_memory_free(g.memory, out->base);
    }
    gpu_close(&g);
    free(ptx);
    free(source);
    free(code);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator_scalar");
    TCase *c = tcase_create("scalar");
    tcase_add_loop_test(c, as_compiled_for_this_machine, 0, NVRTC_ARCHS);
    tcase_set_timeout(c, 120);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

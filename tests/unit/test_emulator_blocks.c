/* Kernels whose threads work together, compiled by NVRTC for each generation of targets, on the GPU
 * emulator with all checks and in random orders, against plain loops. The sums of products are
 * exact in f32 whatever their order. */
#include "emulator_kernel.h"

static uint64_t state;
static uint32_t pick(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static char *ptx_of[NVRTC_ARCHS];
static gpu g;

/* Before the tests part into processes. */
static void compile_all(void) {
    static const char path[] = MCC_TEST_DATA "/unit/fixture/block_code.cuh";
    static char source[1 << 16];
    FILE *file = nvrtc_library() ? fopen(path, "rb") : NULL;
    if (!file)
        return;
    size_t n = fread(source, 1, sizeof source - 1, file);
    HOLDS(n < sizeof source - 1, "%s is too long", path);
    fclose(file);
    for (int i = 0; i < NVRTC_ARCHS; i++)
        ptx_of[i] = nvrtc_ptx(source, nvrtc_archs[i]);
}

/* One test for each target and order. */
static void open_gpu(int i) {
    HOLDS(ptx_of[i / 2], "no PTX");
    g = gpu_open(ptx_of[i / 2]);
    g.seed = i % 2 ? 77 + (uint64_t)i : 0;
    g.threads = 1 + i % 2;
    state = (uint64_t)i + 9;
}
enum { ROUNDS = 2 * NVRTC_ARCHS };

#define SAME(got, want)                                                                            \
    do {                                                                                           \
        int64_t got_ = (int64_t)(got), want_ = (int64_t)(want);                                    \
        HOLDS(got_ == want_, "%s is %lld, expected %lld", #got, (long long)got_,                   \
              (long long)want_);                                                                   \
    } while (0)

START_TEST(block_sums) {
    SKIP_WITHOUT_NVRTC();
    open_gpu(_i);
    enum { BLOCKS = 5, N = 777 };
    static int in[BLOCKS * N];
    for (int i = 0; i < BLOCKS * N; i++)
        in[i] = (int)pick(2000000) - 1000000;
    const emu_allocation *a = gpu_buffer(&g, in, sizeof in), *b = gpu_buffer(&g, NULL, 4 * BLOCKS);
    GPU_MUST(&g, "block_sum", BLOCKS, 192, a->base, b->base, (uint64_t)N);
    for (int i = 0; i < BLOCKS; i++) {
        int sum = 0;
        for (int k = 0; k < N; k++)
            sum += in[i * N + k];
        SAME((int)gpu_u32(b, (size_t)i), sum);
    }
    gpu_close(&g);
}
END_TEST

START_TEST(transposes) {
    SKIP_WITHOUT_NVRTC();
    open_gpu(_i);
    enum { ROWS = 70, COLS = 45 };
    static float in[ROWS * COLS];
    for (int i = 0; i < ROWS * COLS; i++)
        in[i] = (float)i;
    const emu_allocation *a = gpu_buffer(&g, in, sizeof in), *b = gpu_buffer(&g, NULL, sizeof in);
    HOLDS(gpu_run_sized(&g, "transpose", (gpu_size){2, 3, 1}, (gpu_size){32, 8, 1}, a->base,
                        b->base, (uint64_t)ROWS, (uint64_t)COLS),
          "%s", g.error);
    for (int i = 0; i < ROWS * COLS; i++)
        SAME(gpu_f32(b, (size_t)(i % COLS * ROWS + i / COLS)), in[i]);
    gpu_close(&g);
}
END_TEST

START_TEST(scans) {
    SKIP_WITHOUT_NVRTC();
    open_gpu(_i);
    enum { THREADS = 160, BLOCKS = 3 };
    static uint32_t in[THREADS * BLOCKS];
    for (int i = 0; i < THREADS * BLOCKS; i++)
        in[i] = pick(1u << 30);
    const emu_allocation *a = gpu_buffer(&g, in, sizeof in), *b = gpu_buffer(&g, NULL, sizeof in);
    g.shared = 4 * THREADS;
    GPU_MUST(&g, "scan", BLOCKS, THREADS, a->base, b->base);
    uint32_t sum = 0;
    for (int i = 0; i < THREADS * BLOCKS; i++) {
        sum = i % THREADS ? sum + in[i] : in[i];
        SAME(gpu_u32(b, (size_t)i), sum);
    }
    gpu_close(&g);
}
END_TEST

START_TEST(histograms) {
    SKIP_WITHOUT_NVRTC();
    open_gpu(_i);
    enum { N = 3001 };
    static uint8_t in[N];
    uint32_t want[64] = {0};
    for (int i = 0; i < N; i++) {
        in[i] = (uint8_t)pick(256);
        want[in[i] & 63]++;
    }
    static const uint32_t zeros[64];
    const emu_allocation *a = gpu_buffer(&g, in, sizeof in),
                         *b = gpu_buffer(&g, zeros, sizeof zeros);
    GPU_MUST(&g, "histogram", 4, 96, a->base, b->base, (uint64_t)N);
    for (size_t i = 0; i < 64; i++)
        SAME(gpu_u32(b, i), want[i]);
    gpu_close(&g);
}
END_TEST

START_TEST(ranks_in_a_warp) {
    SKIP_WITHOUT_NVRTC();
    open_gpu(_i);
    enum { N = 90 };
    uint32_t in[N];
    for (int i = 0; i < N; i++)
        in[i] = pick(5);
    const emu_allocation *a = gpu_buffer(&g, in, sizeof in), *b = gpu_buffer(&g, NULL, sizeof in);
    GPU_MUST(&g, "ranks", 2, 64, a->base, b->base, (uint64_t)N);
    for (int i = 0; i < N; i++) {
        int begin = i / 32 * 32;
        uint32_t rank = 0, leader = 32, sum = 0;
        for (int j = begin; j < begin + 32 && j < N; j++) {
            rank += j < i && in[j] == in[i];
            if (leader == 32 && in[j] == in[i])
                leader = (uint32_t)(j - begin);
            sum += j % 32 % 3 == 0 ? in[j] : 0;
        }
        SAME(gpu_u32(b, (size_t)i), rank + 100 * leader + (i % 32 % 3 == 0 ? 1000000 * sum : 0));
    }
    gpu_close(&g);
}
END_TEST

START_TEST(the_last_block_combines) {
    SKIP_WITHOUT_NVRTC();
    open_gpu(_i);
    enum { N = 5000, BLOCKS = 12 };
    static uint32_t in[N];
    uint32_t want = 0, zero = 0;
    for (int i = 0; i < N; i++) {
        in[i] = pick(1000);
        want += in[i] * in[i];
    }
    const emu_allocation *a = gpu_buffer(&g, in, sizeof in),
                         *partial = gpu_buffer(&g, NULL, 4 * BLOCKS),
                         *ticket = gpu_buffer(&g, &zero, 4), *out = gpu_buffer(&g, NULL, 4);
    GPU_MUST(&g, "last_block", BLOCKS, 64, a->base, partial->base, ticket->base, out->base,
             (uint64_t)N);
    SAME(gpu_u32(out, 0), want);
    SAME(gpu_u32(ticket, 0), BLOCKS);
    gpu_close(&g);
}
END_TEST

/* --- tensor cores -------------------------------------------------------------------------------
 */

/* Small integers as f16 or bf16. */
static uint16_t half_of(int x, bool bf16) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (bf16)
        return (uint16_t)(bits >> 16);
    uint32_t exponent = bits >> 23 & 255;
    return (uint16_t)(bits >> 31 << 15 | (x ? (exponent - 112) << 10 | (bits >> 13 & 0x3ff) : 0));
}

static void multiply_16bit(const char *kernel, bool bf16) {
    enum { M = 40, N = 24, K = 112 };
    static int a[M * K], b[K * N];
    static uint16_t ah[M * K], bh[K * N];
    for (int i = 0; i < M * K; i++)
        ah[i] = half_of(a[i] = (int)pick(33) - 16, bf16);
    for (int i = 0; i < K * N; i++)
        bh[i] = half_of(b[i] = (int)pick(33) - 16, bf16);
    const emu_allocation *da = gpu_buffer(&g, ah, sizeof ah), *db = gpu_buffer(&g, bh, sizeof bh),
                         *dc = gpu_buffer(&g, NULL, 4 * M * N);
    emu_counters counters = {0};
    g.counters = &counters;
    HOLDS(gpu_run_sized(&g, kernel, (gpu_size){N / 8, (M + 15) / 16, 1}, (gpu_size){32, 1, 1},
                        da->base, db->base, dc->base, (uint64_t)M, (uint64_t)N, (uint64_t)K),
          "%s", g.error);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            int sum = 0;
            for (int k = 0; k < K; k++)
                sum += a[i * K + k] * b[k * N + j];
            SAME(gpu_f32(dc, (size_t)(i * N + j)), sum);
        }
    SAME(counters.mma_ops, 3 * 3 * K / 16);
    SAME(counters.mma_macs, 48 * N * K);
    gpu_close(&g);
}

START_TEST(products_of_f16) {
    SKIP_WITHOUT_NVRTC();
    open_gpu(_i);
    multiply_16bit("multiply_f16", false);
}
END_TEST

START_TEST(products_of_bf16) {
    SKIP_WITHOUT_NVRTC();
    open_gpu(_i);
    multiply_16bit("multiply_bf16", true);
}
END_TEST

START_TEST(products_of_bytes) {
    SKIP_WITHOUT_NVRTC();
    enum { M = 32, N = 16, K = 96 };
    static uint8_t a[M * K], b[N * K];
    for (int is_unsigned = 0; is_unsigned < 2; is_unsigned++) {
        open_gpu(_i);
        for (int i = 0; i < M * K; i++)
            a[i] = (uint8_t)pick(256);
        for (int i = 0; i < N * K; i++)
            b[i] = (uint8_t)pick(256);
        const emu_allocation *da = gpu_buffer(&g, a, sizeof a), *db = gpu_buffer(&g, b, sizeof b),
                             *dc = gpu_buffer(&g, NULL, 4 * M * N);
        HOLDS(gpu_run_sized(&g, is_unsigned ? "multiply_u8" : "multiply_s8",
                            (gpu_size){N / 8, M / 16, 1}, (gpu_size){32, 1, 1}, da->base, db->base,
                            dc->base, (uint64_t)N, (uint64_t)K),
              "%s", g.error);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                int sum = 0;
                for (int k = 0; k < K; k++)
                    sum +=
                        (is_unsigned ? a[i * K + k] : (int8_t)a[i * K + k]) * (int8_t)b[j * K + k];
                SAME((int)gpu_u32(dc, (size_t)(i * N + j)), sum);
            }
        gpu_close(&g);
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator_blocks");
    TCase *c = tcase_create("blocks");
    tcase_add_loop_test(c, block_sums, 0, ROUNDS);
    tcase_add_loop_test(c, transposes, 0, ROUNDS);
    tcase_add_loop_test(c, scans, 0, ROUNDS);
    tcase_add_loop_test(c, histograms, 0, ROUNDS);
    tcase_add_loop_test(c, ranks_in_a_warp, 0, ROUNDS);
    tcase_add_loop_test(c, the_last_block_combines, 0, ROUNDS);
    tcase_add_loop_test(c, products_of_f16, 0, ROUNDS);
    tcase_add_loop_test(c, products_of_bf16, 0, ROUNDS);
    tcase_add_loop_test(c, products_of_bytes, 0, ROUNDS);
    tcase_add_unchecked_fixture(c, compile_all, NULL);
    tcase_set_timeout(c, 120);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

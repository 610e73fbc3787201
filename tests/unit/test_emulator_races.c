/* Races between blocks and within one: pairs of kernels, one sound and one that lacks something.
 * Each verdict is the same in every order of blocks and warps. */
#include "emulator_kernel.h"

/* Kernels on words a, b, c; flags and tickets are zeros at first. */
static const char source[] =
    "typedef unsigned int u32; typedef unsigned char u8;\n"
    "#define KERNEL(name) extern \"C\" __global__ void name(u32 *a, u32 *b, u32 *c)\n"
    "#define FENCE __threadfence()\n"
    "#define BLOCK_FENCE __threadfence_block()\n"
    "template <int RELEASE, int ACQUIRE> __device__ void combine(u32 *a, u32 *b, u32 *c) {\n"
    "    __shared__ bool last;\n"
    "    a[blockIdx.x * blockDim.x + threadIdx.x] = threadIdx.x + blockIdx.x;\n"
    "    if (RELEASE == 3) FENCE;\n"
    "    __syncthreads();\n"
    "    if (threadIdx.x == 0) {\n"
    "        if (RELEASE == 1) FENCE;\n"
    "        if (RELEASE == 2) BLOCK_FENCE;\n"
    "        last = atomicAdd(b, 1u) == gridDim.x - 1;\n"
    "        if (ACQUIRE == 1) FENCE;\n"
    "        if (ACQUIRE == 2) BLOCK_FENCE;\n"
    "    }\n"
    "    __syncthreads();\n"
    "    if (last) {\n"
    "        u32 sum = 0;\n"
    "        for (int i = 0; i < gridDim.x; i++) sum += a[i * blockDim.x + threadIdx.x];\n"
    "        c[threadIdx.x] = sum;\n"
    "        if (threadIdx.x == 0) *b = 0;\n"
    "    }\n"
    "}\n"
    "KERNEL(combine) { combine<1, 1>(a, b, c); }\n"
    "KERNEL(combine_fence_before_barrier) { combine<3, 1>(a, b, c); }\n"
    "KERNEL(combine_no_release) { combine<0, 1>(a, b, c); }\n"
    "KERNEL(combine_no_acquire) { combine<1, 0>(a, b, c); }\n"
    "KERNEL(combine_block_release) { combine<2, 1>(a, b, c); }\n"
    "KERNEL(combine_block_acquire) { combine<1, 2>(a, b, c); }\n"
    "KERNEL(combine_block_ticket) {\n"
    "    if (threadIdx.x) return;\n"
    "    a[blockIdx.x] = 1; FENCE;\n"
    "    if (atomicAdd_block(b, 1u) == gridDim.x - 1) { FENCE; c[0] = a[0]; }\n"
    "}\n"
    "KERNEL(same_word) { a[threadIdx.x + blockIdx.x / 2 * 32] = blockIdx.x; }\n"
    "KERNEL(own_words) { a[threadIdx.x + blockIdx.x * 32] = blockIdx.x; }\n"
    "KERNEL(own_bytes) { ((u8 *)a)[threadIdx.x * gridDim.x + blockIdx.x] = threadIdx.x; }\n"
    "KERNEL(same_bytes) { ((u8 *)a)[(threadIdx.x * gridDim.x + blockIdx.x) & ~1u] = 1; }\n"
    "KERNEL(read_what_another_writes) {\n"
    "    c[blockIdx.x * 32 + threadIdx.x] = a[(blockIdx.x * 32 + threadIdx.x + 1) % 256];\n"
    "    if (threadIdx.x == 0) a[blockIdx.x * 32] = 5;\n"
    "}\n"
    "KERNEL(read_what_all_read) { c[blockIdx.x * 32 + threadIdx.x] = a[threadIdx.x]; }\n"
    "KERNEL(sum_by_atomics) { atomicAdd(a + threadIdx.x, 2u); }\n"
    "KERNEL(sum_read_at_once) { atomicAdd(a + threadIdx.x, 2u);\n"
    "    c[blockIdx.x * 32 + threadIdx.x] = a[threadIdx.x]; }\n"
    "KERNEL(sum_read_by_atomic) { atomicAdd(a + threadIdx.x, 2u);\n"
    "    c[blockIdx.x * 32 + threadIdx.x] = atomicAdd(a + threadIdx.x, 0u); }\n"
    "__device__ void send(u32 *flag, u32 x) {\n"
    "    asm volatile(\"st.release.gpu.global.u32 [%0], %1;\" :: \"l\"(flag), \"r\"(x) : "
    "\"memory\"); }\n"
    "__device__ u32 heard(u32 *flag) { u32 x;\n"
    "    asm volatile(\"ld.acquire.gpu.global.u32 %0, [%1];\" : \"=r\"(x) : \"l\"(flag) : "
    "\"memory\");\n"
    "    return x; }\n"
    "__device__ void send_relaxed(u32 *flag, u32 x) {\n"
    "    asm volatile(\"st.relaxed.gpu.global.u32 [%0], %1;\" :: \"l\"(flag), \"r\"(x) : "
    "\"memory\"); }\n"
    "__device__ u32 heard_relaxed(u32 *flag) { u32 x;\n"
    "    asm volatile(\"ld.relaxed.gpu.global.u32 %0, [%1];\" : \"=r\"(x) : \"l\"(flag) : "
    "\"memory\");\n"
    "    return x; }\n"
    /* Each block hands a word on to the next, if that has begun by then. */
    "KERNEL(chain) {\n"
    "    if (threadIdx.x) return;\n"
    "    int i = blockIdx.x;\n"
    "    u32 before = i ? heard(b + i - 1) : 1;\n"
    "    if (before) { for (int k = 0; k < i; k++) a[100 + i] = a[k]; a[i] = i;\n"
    "        send(b + i, 1); }\n"
    "}\n"
    "KERNEL(chain_relaxed_send) {\n"
    "    if (threadIdx.x) return;\n"
    "    int i = blockIdx.x;\n"
    "    u32 before = i ? heard(b + i - 1) : 1;\n"
    "    if (before) { if (i) a[100 + i] = a[i - 1]; a[i] = i; send_relaxed(b + i, 1); }\n"
    "}\n"
    "KERNEL(chain_relaxed_read) {\n"
    "    if (threadIdx.x) return;\n"
    "    int i = blockIdx.x;\n"
    "    u32 before = i ? heard_relaxed(b + i - 1) : 1;\n"
    "    if (before) { if (i) a[100 + i] = a[i - 1]; a[i] = i; send(b + i, 1); }\n"
    "}\n"
    "KERNEL(store_behind_the_release) {\n"
    "    if (threadIdx.x) return;\n"
    "    int i = blockIdx.x;\n"
    "    u32 before = i ? heard(b + i - 1) : 1;\n"
    "    if (before) { if (i) a[100 + i] = a[i - 1]; send(b + i, 1); a[i] = i; }\n"
    "}\n"
    "KERNEL(copy_what_another_writes) {\n"
    "    __shared__ uint4 s[32];\n"
    "    u32 to = (u32)__cvta_generic_to_shared(s + threadIdx.x);\n"
    "    asm volatile(\"cp.async.cg.shared.global [%0], [%1], 16;\" :: \"r\"(to),\n"
    "                 \"l\"(a + 4 * threadIdx.x) : \"memory\");\n"
    "    asm volatile(\"cp.async.wait_all;\" ::: \"memory\");\n"
    "    if (blockIdx.x == 3) a[threadIdx.x] = s[threadIdx.x].x;\n"
    "}\n"
    /* Within a block: each has words of its own. */
    "#define WITHIN(name) KERNEL(name) { int t = threadIdx.x; a += 96 * blockIdx.x;\\\n"
    "    b += blockIdx.x; c += 96 * blockIdx.x; u8 *bytes = (u8 *)a;\n"
    "WITHIN(hand_over) a[t] = t; __syncthreads(); c[t] = a[(t + 1) % 96]; }\n"
    "WITHIN(hand_over_at_once) a[t] = t; c[t] = a[(t + 1) % 96]; }\n"
    "WITHIN(hand_over_among_warps) a[t] = t; __syncwarp(); c[t] = a[(t + 1) % 96]; }\n"
    "WITHIN(hand_over_to_lanes) a[t] = t; __syncwarp(); c[t] = a[t ^ 1]; }\n"
    "WITHIN(hand_over_to_lanes_at_once) a[t] = t; c[t] = a[t ^ 1]; }\n"
    "WITHIN(shuffle_between) a[t] = t; int x = __shfl_xor_sync(~0u, t, 1); c[t] = a[t ^ 1] + x; }\n"
    "WITHIN(overwrite) c[t] = a[(t + 33) % 96]; __syncthreads(); a[t] = 5; }\n"
    "WITHIN(overwrite_at_once) c[t] = a[(t + 33) % 96]; a[t] = 5; }\n"
    "WITHIN(all_read) c[t] = a[0] + a[t % 7]; }\n"
    "WITHIN(overwrite_what_all_read) c[t] = a[7]; if (t == 40) a[7] = 1; }\n"
    "WITHIN(one_word) a[t / 2] = t; }\n"
    "WITHIN(neighbouring_bytes) bytes[t] = t; }\n"
    "WITHIN(one_byte) bytes[t & ~1] = t; }\n"
    "WITHIN(byte_of_a_word) if (t < 50) a[t] = t; else bytes[t - 50] = 1; }\n"
    "WITHIN(count) atomicAdd(b, 1u); __syncthreads(); c[t] = *b; }\n"
    "WITHIN(count_read_at_once) atomicAdd(b, 1u); c[t] = *b; }\n"
    "WITHIN(flag) if (t == 0) { a[5] = 1; __threadfence_block(); atomicExch(b, 1u); }\n"
    "    if (t == 64) { while (atomicAdd(b, 0u) == 0) ; __threadfence_block(); c[0] = a[5]; } }\n"
    "WITHIN(flag_of_the_release_kind) if (t == 0) { a[5] = 1; send(b, 1); }\n"
    "    if (t == 64) { while (heard(b) == 0) ; c[0] = a[5]; } }\n"
    "WITHIN(copy_then_overwrite)\n"
    "    __shared__ uint4 s[96];\n"
    "    u32 to = (u32)__cvta_generic_to_shared(s + t);\n"
    "    asm volatile(\"cp.async.cg.shared.global [%0], [%1], 16;\" :: \"r\"(to),\n"
    "                 \"l\"(a + 4 * (t % 24)) : \"memory\");\n"
    "    asm volatile(\"cp.async.wait_all;\" ::: \"memory\");\n"
    "    a[t] = s[t].x;\n"
    "}\n";

static char *ptx[2]; /* of the first and the last target */

static void compile_all(void) {
    for (int i = 0; i < 2 && nvrtc_library(); i++)
        ptx[i] = nvrtc_ptx(source, nvrtc_archs[i ? NVRTC_ARCHS - 1 : 0]);
}

static gpu open_gpu(int target, uint64_t seed, int threads, const emu_allocation *words[3]) {
    static const uint32_t zeros[1024];
    gpu g = gpu_open(ptx[target]);
    g.seed = seed;
    g.threads = threads;
    for (int i = 0; i < 3; i++)
        words[i] = gpu_buffer(&g, zeros, sizeof zeros);
    return g;
}

static const struct verdict {
    const char *kernel;
    const char *says; /* NULL: it is sound */
    bool in_order;    /* by its nature only where blocks run in order */
} verdicts[] = {
    {"combine", NULL, false},
    {"combine_fence_before_barrier", NULL, false},
    {"combine_no_release", "with no release and acquire between", false},
    {"combine_no_acquire", "with no release and acquire between", false},
    {"combine_block_release", "with no release and acquire between", false},
    {"combine_block_acquire", "with no release and acquire between", false},
    {"combine_block_ticket", "race between blocks", false},
    {"same_word", "wrote", false},
    {"own_words", NULL, false},
    {"own_bytes", NULL, false},
    {"same_bytes", "wrote", false},
    {"read_what_another_writes", "race between blocks", false},
    {"read_what_all_read", NULL, false},
    {"sum_by_atomics", NULL, false},
    {"sum_read_at_once", "race between blocks", false},
    {"sum_read_by_atomic", NULL, false},
    {"chain", NULL, false},
    {"chain_relaxed_send", "wrote", true},
    {"chain_relaxed_read", "wrote", true},
    {"store_behind_the_release", "wrote", true},
    {"copy_what_another_writes", "race between blocks", false},
    {"hand_over", NULL, false},
    {"hand_over_at_once", "within a block", false},
    {"hand_over_among_warps", "within a block", false},
    {"hand_over_to_lanes", NULL, false},
    {"hand_over_to_lanes_at_once", "no barrier or __syncwarp between", false},
    {"shuffle_between", "no barrier or __syncwarp between", false},
    {"overwrite", NULL, false},
    {"overwrite_at_once", "within a block", false},
    {"all_read", NULL, false},
    {"overwrite_what_all_read", "within a block", false},
    {"one_word", "within a block", false},
    {"neighbouring_bytes", NULL, false},
    {"one_byte", "within a block", false},
    {"byte_of_a_word", "within a block", false},
    {"count", NULL, false},
    {"count_read_at_once", "within a block", false},
    {"flag", NULL, false},
    {"flag_of_the_release_kind", NULL, false},
    {"copy_then_overwrite", "within a block", false},
};
enum { N_VERDICTS = sizeof verdicts / sizeof *verdicts, BETWEEN = 21 };

START_TEST(verdict) {
    SKIP_WITHOUT_NVRTC();
    const struct verdict *v = &verdicts[_i];
    for (int target = 0; target < 2; target++)
        for (uint64_t seed = 0; seed < (v->in_order ? 1 : 8); seed++) {
            const emu_allocation *words[3];
            gpu g = open_gpu(target, seed, v->in_order || seed < 4 ? 1 : 2, words);
            uint32_t threads = _i < BETWEEN ? 32 : 96;
            bool good =
                GPU_RUN(&g, v->kernel, 8, threads, words[0]->base, words[1]->base, words[2]->base);
            HOLDS(good == !v->says, "%s, seed %d: %s", v->kernel, (int)seed,
                  good ? "no fault found" : g.error);
            if (!good)
                gpu_error_has(&g, _i < BETWEEN ? "race between blocks" : "race within a block",
                              v->says, "kernel", "test.cu:", "block (", "thread (",
                              "of allocation ", NULL);
            g.checks &= ~(uint32_t)EMU_CHECK_GLOBAL_RACES;
            HOLDS(
                GPU_RUN(&g, v->kernel, 8, threads, words[0]->base, words[1]->base, words[2]->base),
                "%s", g.error);
            gpu_close(&g);
        }
}
END_TEST

START_TEST(message_names_both_blocks) {
    gpu g = gpu_open(PTX_HEADER ".visible .entry k(.param .u64 out) {\n.reg .b64 %rd<3>;\n"
                                ".reg .b32 %r<3>;\nld.param.u64 %rd1, [out];\n"
                                "mov.u32 %r1, %ctaid.y;\nst.global.u32 [%rd1+12], %r1;\nret;\n}");
    const emu_allocation *a = gpu_buffer(&g, NULL, 64);
    HOLDS(!gpu_run_sized(&g, "k", (gpu_size){1, 2, 1}, (gpu_size){1, 1, 1}, a->base), "sound?");
    ck_assert_str_eq(g.error,
                     "kernel k, PTX line 9, block (0,1,0), thread (0,0,0): race between "
                     "blocks: this thread writes byte 12 of allocation 1 (64 bytes), which "
                     "block (0,0,0) wrote, with no release and acquire between");
    gpu_close(&g);
}
END_TEST

START_TEST(launches_are_in_order) {
    SKIP_WITHOUT_NVRTC();
    const emu_allocation *words[3];
    gpu g = open_gpu(0, 0, 1, words);
    for (int i = 0; i < 3; i++) {
        GPU_MUST(&g, "own_words", 8, 32, words[0]->base, words[1]->base, words[2]->base);
        GPU_MUST(&g, "read_what_all_read", 8, 32, words[0]->base, words[1]->base, words[2]->base);
        GPU_MUST(&g, "sum_by_atomics", 8, 32, words[0]->base, words[1]->base, words[2]->base);
    }
    gpu_close(&g);
}
END_TEST

START_TEST(many_blocks_and_large_buffers) {
    SKIP_WITHOUT_NVRTC();
    gpu g = gpu_open(ptx[0]);
    enum { BLOCKS = 5000 };
    static uint32_t zeros[64 * BLOCKS];
    const emu_allocation *a = gpu_buffer(&g, zeros, sizeof zeros), *b = gpu_buffer(&g, zeros, 64),
                         *c = gpu_buffer(&g, NULL, 256);
    g.threads = 2;
    GPU_MUST(&g, "combine", BLOCKS, 64, a->base, b->base, c->base);
    for (uint32_t i = 0; i < 64; i++)
        ck_assert_uint_eq(gpu_u32(c, i), BLOCKS * i + BLOCKS * (BLOCKS - 1) / 2);
    gpu_close(&g);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator_races");
    TCase *c = tcase_create("races");
    tcase_add_unchecked_fixture(c, compile_all, NULL);
    tcase_add_loop_test(c, verdict, 0, N_VERDICTS);
    tcase_add_test(c, message_names_both_blocks);
    tcase_add_test(c, launches_are_in_order);
    tcase_add_test(c, many_blocks_and_large_buffers);
    tcase_set_timeout(c, 120);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

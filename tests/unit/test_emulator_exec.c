/* Kernels in PTX on the GPU emulator: control flow, memory, and what lanes and warps do together.
 * Expected values are computed here from the PTX ISA's words. */
#include "emulator_kernel.h"

enum { N = 64 };

/* A kernel `k` with parameters out and in (64-bit), registers, %rd1 = &out[tid], %rd2 = &in[tid],
 * %r0 = tid. */
#define KERNEL(body)                                                                               \
    PTX_HEADER                                                                                     \
    ".visible .entry k(.param .u64 out, .param .u64 in)\n"                                         \
    "{\n.reg .pred %p<9>;\n.reg .b16 %h<9>;\n.reg .b32 %r<40>;\n.reg .f32 %f<20>;\n"               \
    ".reg .b64 %rd<20>;\n"                                                                         \
    "ld.param.u64 %rd1, [out];\nld.param.u64 %rd2, [in];\nmov.u32 %r0, %tid.x;\n"                  \
    "mul.wide.u32 %rd3, %r0, 4;\nadd.s64 %rd1, %rd1, %rd3;\nadd.s64 %rd2, %rd2, %rd3;\n" body      \
    "\nret;\n}\n"

/* The words that a block of n threads stores, each at its own place. */
static void run_block(const char *ptx, uint32_t n, const uint32_t *in, uint32_t *out) {
    gpu g = gpu_open(ptx);
    static const uint32_t none[1024];
    const emu_allocation *a = gpu_buffer(&g, NULL, 4 * (size_t)n),
                         *b = gpu_buffer(&g, in ? in : none, 4 * (size_t)n);
    for (uint64_t seed = 0; seed < 3; seed++) {
        g.seed = seed;
        GPU_MUST(&g, "k", 1, n, a->base, b->base);
        if (seed)
            HOLDS(memcmp(out, a->data, 4 * (size_t)n) == 0, "seed %d gives something else",
                  (int)seed);
        memcpy(out, a->data, 4 * (size_t)n);
    }
    gpu_close(&g);
}

#define SAME(got, want, lane)                                                                      \
    do {                                                                                           \
        uint32_t got_ = (got), want_ = (want);                                                     \
        HOLDS(got_ == want_, "thread %d: %#x, expected %#x", (int)(lane), got_, want_);            \
    } while (0)

/* --- control flow -------------------------------------------------------------------------------
 */

START_TEST(lanes_part_and_meet_again) {
    uint32_t out[N];
    run_block(KERNEL("and.b32 %r1, %r0, 1;\nsetp.eq.u32 %p1, %r1, 0;\nmov.u32 %r2, 5;\n"
                     "@%p1 bra EVEN;\nactivemask.b32 %r3;\nadd.u32 %r2, %r2, 100;\nbra.uni JOIN;\n"
                     "EVEN:\nactivemask.b32 %r3;\nadd.u32 %r2, %r2, 200;\nJOIN:\n"
                     "activemask.b32 %r4;\nsetp.ne.u32 %p2, %r4, 0xffffffff;\n"
                     "@%p2 add.u32 %r2, %r2, 10000;\nxor.b32 %r2, %r2, %r3;\n"
                     "st.global.u32 [%rd1], %r2;"),
              N, NULL, out);
    for (int i = 0; i < N; i++)
        SAME(out[i], (i & 1 ? 105u : 205u) ^ (i & 1 ? 0xaaaaaaaa : 0x55555555), i);
}
END_TEST

START_TEST(loops_of_different_lengths) {
    uint32_t out[N];
    run_block(KERNEL("mov.u32 %r1, 0;\nmov.u32 %r2, 0;\nLOOP:\nadd.u32 %r2, %r2, %r1;\n"
                     "add.u32 %r1, %r1, 1;\nsetp.le.u32 %p1, %r1, %r0;\n@%p1 bra LOOP;\n"
                     "activemask.b32 %r3;\nsub.u32 %r3, %r3, 0xffffffff;\nadd.u32 %r2, %r2, %r3;\n"
                     "st.global.u32 [%rd1], %r2;"),
              N, NULL, out);
    for (uint32_t i = 0; i < N; i++)
        SAME(out[i], i * (i + 1) / 2, i);
}
END_TEST

START_TEST(some_lanes_exit_early) {
    uint32_t out[N];
    gpu g =
        gpu_open(KERNEL("setp.lt.u32 %p1, %r0, 5;\n@%p1 ret;\nsetp.ge.u32 %p2, %r0, 0;\n"
                        "vote.sync.ballot.b32 %r1, %p2, 0xffffffff;\nst.global.u32 [%rd1], %r1;"));
    memset(out, 0xee, sizeof out);
    const emu_allocation *a = gpu_buffer(&g, out, sizeof out);
    GPU_MUST(&g, "k", 1, N, a->base, a->base);
    for (int i = 0; i < N; i++)
        SAME(gpu_u32(a, (size_t)i), i < 5 ? 0xeeeeeeee : i < 32 ? 0xffffffe0 : 0xffffffff, i);
    gpu_close(&g);
}
END_TEST

START_TEST(guards_keep_registers) {
    uint32_t out[N];
    run_block(
        KERNEL("setp.lt.u32 %p1, %r0, 20;\nsetp.gt.u32 %p2, %r0, 10;\nand.pred %p3, %p1, %p2;\n"
               "mov.u32 %r1, 1;\n@%p3 mov.u32 %r1, 2;\n@!%p3 add.u32 %r1, %r1, 6;\n"
               "selp.u32 %r2, 100, 200, %p1;\nadd.u32 %r1, %r1, %r2;\n"
               "st.global.u32 [%rd1], %r1;"),
        N, NULL, out);
    for (int i = 0; i < N; i++)
        SAME(out[i], (i < 20 && i > 10 ? 2u : 7u) + (i < 20 ? 100u : 200u), i);
}
END_TEST

START_TEST(branches_by_index) {
    uint32_t out[N];
    run_block(KERNEL("and.b32 %r1, %r0, 3;\nTABLE: .branchtargets A, B, A, C;\n"
                     "brx.idx %r1, TABLE;\nA:\nmov.u32 %r2, 11;\nbra J;\nB:\nmov.u32 %r2, 22;\n"
                     "bra J;\nC:\nmov.u32 %r2, 33;\nJ:\nactivemask.b32 %r3;\n"
                     "add.u32 %r2, %r2, %r3;\nst.global.u32 [%rd1], %r2;"),
              N, NULL, out);
    static const uint32_t want[] = {11, 22, 11, 33};
    for (int i = 0; i < N; i++)
        SAME(out[i], want[i & 3] - 1, i);
}
END_TEST

START_TEST(a_lane_waits_for_another_of_its_warp) {
    /* Lane 0 spins on what lane 1 writes behind the loop: the loop must not starve it. */
    uint32_t out[32];
    run_block(KERNEL(".shared .align 4 .b32 flag;\nmov.u32 %r1, flag;\nsetp.eq.u32 %p1, %r0, 0;\n"
                     "mov.u32 %r2, 0;\n@%p1 st.volatile.shared.u32 [flag], %r2;\n"
                     "bar.warp.sync 0xffffffff;\n@!%p1 bra WRITE;\n"
                     "SPIN:\nld.volatile.shared.u32 %r3, [%r1];\nsetp.ne.u32 %p2, %r3, 7;\n"
                     "@%p2 bra SPIN;\nbra DONE;\n"
                     "WRITE:\nsetp.eq.u32 %p3, %r0, 1;\nmov.u32 %r3, 7;\n"
                     "@%p3 st.volatile.shared.u32 [%r1], %r3;\nDONE:\n"
                     "st.global.u32 [%rd1], %r3;"),
              32, NULL, out);
    for (int i = 0; i < 32; i++)
        SAME(out[i], 7, i);
}
END_TEST

START_TEST(a_lane_comes_late_to_those_that_wait_for_it) {
    /* A loop with two ways back: the others are at its .sync instruction while lane 0 does more. */
    uint32_t out[32];
    run_block(KERNEL("mov.u32 %r1, %r0;\nmov.u32 %r2, 0;\nmov.u32 %r3, 0;\nHEAD:\n"
                     "shfl.sync.idx.b32 %r4, %r1, 0, 31, -1;\nadd.u32 %r3, %r3, %r4;\n"
                     "add.u32 %r2, %r2, 1;\nsetp.eq.u32 %p1, %r2, 4;\n@%p1 bra DONE;\n"
                     "setp.ne.u32 %p2, %r0, 0;\n@%p2 bra HEAD;\nadd.u32 %r1, %r1, 10;\n"
                     "bra HEAD;\nDONE:\nst.global.u32 [%rd1], %r3;"),
              32, NULL, out);
    for (int i = 0; i < 32; i++)
        SAME(out[i], 0 + 10 + 20 + 30, i);
}
END_TEST

/* --- memory -------------------------------------------------------------------------------------
 */

START_TEST(vectors_and_narrow_elements) {
    gpu g =
        gpu_open(PTX_HEADER ".visible .entry k(.param .u64 out, .param .u64 in) {\n"
                            ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .b16 %h<9>; .reg .f32 %f<5>;\n"
                            "ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [in];\n"
                            "cvta.to.global.u64 %rd1, %rd1; mov.u32 %r0, %tid.x;\n"
                            "mul.wide.u32 %rd3, %r0, 16; add.s64 %rd1, %rd1, %rd3;\n"
                            "add.s64 %rd2, %rd2, %rd3;\n"
                            "ld.global.nc.v4.u32 {%r1, %r2, %r3, %r4}, [%rd2];\n"
                            "ld.global.s8 %r5, [%rd2+5]; ld.global.u16 %h1, [%rd2+6];\n"
                            "ld.global.v2.b16 {%h2, %h3}, [%rd2+8]; cvt.u32.u16 %r6, %h1;\n"
                            "add.u32 %r1, %r1, %r5; add.u32 %r2, %r2, %r6;\n"
                            "st.global.v2.b32 [%rd1], {%r1, %r2}; st.global.b8 [%rd1+8], %h2;\n"
                            "st.global.u8 [%rd1+9], %r4; st.global.v2.u8 [%rd1+10], {%h3, %h3};\n"
                            "ld.v2.u64 {%rd4, %rd5}, [%rd2]; xor.b64 %rd4, %rd4, %rd5;\n"
                            "cvt.u32.u64 %r7, %rd4; st.u32 [%rd1+12], %r7; ret; }");
    uint8_t in[N * 16];
    for (int i = 0; i < N * 16; i++)
        in[i] = (uint8_t)(i * 37 + i / 7);
    const emu_allocation *a = gpu_buffer(&g, NULL, sizeof in), *b = gpu_buffer(&g, in, sizeof in);
    GPU_MUST(&g, "k", 1, N, a->base, b->base);
    for (int i = 0; i < N; i++) {
        const uint8_t *p = in + 16 * i, *q = a->data + 16 * i;
        uint32_t w[4], o[4];
        memcpy(w, p, 16);
        memcpy(o, q, 16);
        SAME(o[0], w[0] + (uint32_t)(int8_t)p[5], i);
        SAME(o[1], w[1] + (p[6] | (uint32_t)p[7] << 8), i);
        SAME(q[8], p[8], i);
        SAME(q[9], (uint8_t)w[3], i);
        SAME(q[10], p[10], i);
        SAME(q[11], p[10], i);
        SAME(o[3], w[0] ^ w[2], i);
    }
    gpu_close(&g);
}
END_TEST

START_TEST(parameters_of_all_sizes) {
    gpu g =
        gpu_open(PTX_HEADER
                 ".visible .entry k(.param .u64 out, .param .u8 a, .param .u16 b, .param .u32 c,"
                 " .param .f32 d, .param .align 8 .b8 e[8]) {\n"
                 ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .b16 %h<9>; .reg .f32 %f<5>;\n"
                 "ld.param.u64 %rd1, [out]; ld.param.u8 %h1, [a]; ld.param.u16 %h2, [b];\n"
                 "ld.param.u32 %r1, [c]; ld.param.f32 %f1, [d]; ld.param.v2.u32 {%r2, %r3}, [e];\n"
                 "cvt.u32.u16 %r4, %h1; cvt.u32.u16 %r5, %h2; add.f32 %f1, %f1, 0f3f800000;\n"
                 "st.global.u32 [%rd1], %r4; st.global.u32 [%rd1+4], %r5;\n"
                 "st.global.u32 [%rd1+8], %r1; st.global.f32 [%rd1+12], %f1;\n"
                 "st.global.u32 [%rd1+16], %r2; st.global.u32 [%rd1+20], %r3; ret; }");
    const emu_allocation *a = gpu_buffer(&g, NULL, 24);
    GPU_MUST(&g, "k", 1, 1, a->base, (uint64_t)200, (uint64_t)60000, (uint64_t)0xdeadbeef,
             (uint64_t)0x40000000, (uint64_t)0x1122334455667788);
    static const uint32_t want[] = {200, 60000, 0xdeadbeef, 0x40400000, 0x55667788, 0x11223344};
    for (size_t i = 0; i < 6; i++)
        SAME(gpu_u32(a, i), want[i], i);
    gpu_close(&g);
}
END_TEST

START_TEST(each_thread_has_local_memory) {
    uint32_t out[N];
    run_block(KERNEL(".local .align 16 .b8 frame[64];\nmov.u64 %rd4, frame;\n"
                     "cvta.local.u64 %rd5, %rd4;\nmov.u32 %r1, 0;\n"
                     "FILL:\nmul.wide.u32 %rd6, %r1, 4;\nadd.s64 %rd7, %rd5, %rd6;\n"
                     "mad.lo.u32 %r2, %r1, 1000, %r0;\nst.u32 [%rd7], %r2;\nadd.u32 %r1, %r1, 1;\n"
                     "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra FILL;\nand.b32 %r3, %r0, 15;\n"
                     "mul.wide.u32 %rd6, %r3, 4;\nadd.s64 %rd7, %rd4, %rd6;\n"
                     "ld.local.u32 %r4, [%rd7];\nst.global.u32 [%rd1], %r4;"),
              N, NULL, out);
    for (uint32_t i = 0; i < N; i++)
        SAME(out[i], (i & 15) * 1000 + i, i);
}
END_TEST

START_TEST(variables_of_a_module) {
    gpu g = gpu_open(PTX_HEADER
                     ".const .align 4 .b32 table[4] = {10, 20, 30, 40};\n"
                     ".global .align 4 .u32 counter = 5;\n.global .align 8 .u64 place = counter;\n"
                     ".visible .entry k(.param .u64 out) {\n.reg .b32 %r<9>; .reg .b64 %rd<9>;\n"
                     "ld.param.u64 %rd1, [out]; mov.u32 %r0, %tid.x; and.b32 %r1, %r0, 3;\n"
                     "mul.wide.u32 %rd2, %r1, 4; mov.u64 %rd3, table; add.s64 %rd3, %rd3, %rd2;\n"
                     "ld.const.u32 %r2, [%rd3]; ld.global.u64 %rd4, [place];\n"
                     "atom.global.add.u32 %r3, [%rd4], %r2; mul.wide.u32 %rd2, %r0, 4;\n"
                     "add.s64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %r2; ret; }");
    const emu_allocation *a = gpu_buffer(&g, NULL, 4 * N);
    uint64_t address, bytes;
    ck_assert(ptx_module_variable(g.module, "counter", &address, &bytes));
    ck_assert_uint_eq(bytes, 4);
    GPU_MUST(&g, "k", 1, N, a->base);
    for (uint32_t i = 0; i < N; i++)
        SAME(gpu_u32(a, i), 10 * (i % 4 + 1), i);
    SAME(gpu_u32(emu_memory_find(g.memory, address, 4), 0), 5 + 25 * N, 0);
    gpu_close(&g);
}
END_TEST

START_TEST(special_registers) {
    gpu g = gpu_open(
        PTX_HEADER
        ".visible .entry k(.param .u64 out) {\n.reg .b32 %r<19>; .reg .b64 %rd<9>; .reg .pred %p;\n"
        "ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z;\n"
        "mov.u32 %r4, %ntid.x; mov.u32 %r5, %ntid.y; mad.lo.u32 %r6, %r3, %r5, %r2;\n"
        "mad.lo.u32 %r6, %r6, %r4, %r1; mov.u32 %r7, %ctaid.x; mov.u32 %r8, %ctaid.y;\n"
        "mov.u32 %r9, %nctaid.x; mad.lo.u32 %r8, %r8, %r9, %r7; mov.u32 %r9, %ntid.z;\n"
        "mul.lo.u32 %r9, %r9, %r4; mul.lo.u32 %r9, %r9, %r5; mad.lo.u32 %r6, %r8, %r9, %r6;\n"
        "mul.wide.u32 %rd2, %r6, 16; add.s64 %rd1, %rd1, %rd2; mov.u32 %r10, %laneid;\n"
        "mov.u32 %r11, %lanemask_lt; mov.u32 %r12, %lanemask_ge; mov.u64 %rd3, %clock64;\n"
        "mov.u64 %rd4, %clock64; setp.gt.u64 %p, %rd4, %rd3; selp.u32 %r13, 1, 0, %p;\n"
        "st.global.v4.u32 [%rd1], {%r10, %r11, %r12, %r13}; ret; }");
    const emu_allocation *a = gpu_buffer(&g, NULL, 16 * 6 * 72);
    HOLDS(gpu_run_sized(&g, "k", (gpu_size){3, 2, 1}, (gpu_size){6, 4, 3}, a->base), "%s", g.error);
    for (uint32_t i = 0; i < 6 * 72; i++) {
        uint32_t lane = i % 72 % 32;
        SAME(gpu_u32(a, 4 * i), lane, i);
        SAME(gpu_u32(a, 4 * i + 1), (1u << lane) - 1, i);
        SAME(gpu_u32(a, 4 * i + 2), ~0u << lane, i);
        SAME(gpu_u32(a, 4 * i + 3), 1, i);
    }
    gpu_close(&g);
}
END_TEST

/* --- lanes and warps together -------------------------------------------------------------------
 */

START_TEST(shuffles) {
    static const struct {
        const char *ptx;
        int how, by, width;
    } cases[] = {
        {"shfl.sync.down.b32 %r2|%p1, %r1, 3, 0x1f, 0xffffffff;", 1, 3, 32},
        {"shfl.sync.up.b32 %r2|%p1, %r1, 5, 0, 0xffffffff;", 0, 5, 32},
        {"shfl.sync.bfly.b32 %r2|%p1, %r1, 9, 0x1f, 0xffffffff;", 2, 9, 32},
        {"shfl.sync.idx.b32 %r2|%p1, %r1, 17, 0x1f, 0xffffffff;", 3, 17, 32},
        {"shfl.sync.down.b32 %r2|%p1, %r1, 3, 0x181f, 0xffffffff;", 1, 3, 8},
        {"shfl.sync.up.b32 %r2|%p1, %r1, 2, 0x1c00, 0xffffffff;", 0, 2, 4},
        {"shfl.sync.idx.b32 %r2|%p1, %r1, 5, 0x101f, 0xffffffff;", 3, 5, 16},
        {"shfl.sync.bfly.b32 %r2|%p1, %r1, 1, 0x1e1f, 0xffffffff;", 2, 1, 2},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char ptx[4096];
        uint32_t out[32];
        strcpy(ptx, KERNEL("mad.lo.u32 %r1, %r0, 7, 1000;\nSHUFFLE"));
        strcpy(strstr(ptx, "SHUFFLE"), cases[c].ptx);
        strcat(ptx, "\nselp.u32 %r3, 50000, 0, %p1;\nadd.u32 %r2, %r2, %r3;\n"
                    "st.global.u32 [%rd1], %r2;\nret;\n}\n");
        run_block(ptx, 32, NULL, out);
        for (int i = 0; i < 32; i++) {
            int width = cases[c].width, begin = i / width * width, by = cases[c].by;
            int from = cases[c].how == 0   ? i - by
                       : cases[c].how == 1 ? i + by
                       : cases[c].how == 2 ? i ^ by
                                           : begin + by % width;
            bool in = from >= begin && from < begin + width;
            SAME(out[i], 1000 + 7 * (uint32_t)(in ? from : i) + (in ? 50000u : 0), i);
        }
    }
}
END_TEST

START_TEST(votes_and_matches) {
    uint32_t in[N], out[N];
    for (uint32_t i = 0; i < N; i++)
        in[i] = i * 5 % 7 / 2;
    run_block(KERNEL("ld.global.u32 %r1, [%rd2];\nsetp.eq.u32 %p1, %r1, 2;\n"
                     "vote.sync.ballot.b32 %r2, %p1, 0xffffffff;\n"
                     "match.any.sync.b32 %r3, %r1, 0xffffffff;\n"
                     "match.all.sync.b32 %r4|%p2, %r1, 0xffffffff;\nsetp.lt.u32 %p3, %r1, 9;\n"
                     "vote.sync.all.pred %p4, %p3, 0xffffffff;\n"
                     "vote.sync.any.pred %p5, !%p3, 0xffffffff;\n"
                     "redux.sync.add.s32 %r5, %r1, 0xffffffff;\n"
                     "redux.sync.max.u32 %r6, %r1, 0xffffffff;\n"
                     "mul.lo.u32 %r2, %r2, 3;\nmad.lo.u32 %r2, %r3, 5, %r2;\n"
                     "add.u32 %r2, %r2, %r4;\n@%p4 add.u32 %r2, %r2, 1000;\n"
                     "@%p5 add.u32 %r2, %r2, 5000;\nmad.lo.u32 %r2, %r5, 77, %r2;\n"
                     "mad.lo.u32 %r2, %r6, 99, %r2;\nst.global.u32 [%rd1], %r2;"),
              N, in, out);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t ballot = 0, same = 0, sum = 0, most = 0;
        for (uint32_t j = i / 32 * 32; j < i / 32 * 32 + 32; j++) {
            ballot |= in[j] == 2 ? 1u << j % 32 : 0;
            same |= in[j] == in[i] ? 1u << j % 32 : 0;
            sum += in[j];
            most = in[j] > most ? in[j] : most;
        }
        SAME(out[i], 3 * ballot + 5 * same + 1000 + 77 * sum + 99 * most, i);
    }
}
END_TEST

START_TEST(blocks_reverse_through_shared_memory) {
    uint32_t in[256], out[256];
    for (uint32_t i = 0; i < 256; i++)
        in[i] = i * i + 3;
    run_block(KERNEL(".shared .align 4 .b8 tile[1024];\nmov.u32 %r1, tile;\n"
                     "shl.b32 %r2, %r0, 2;\nadd.u32 %r3, %r1, %r2;\nld.global.u32 %r4, [%rd2];\n"
                     "st.shared.u32 [%r3], %r4;\nbar.sync 0;\nsub.u32 %r5, 1020, %r2;\n"
                     "add.u32 %r5, %r5, %r1;\nld.shared.u32 %r6, [%r5];\n"
                     "st.global.u32 [%rd1], %r6;"),
              256, in, out);
    for (uint32_t i = 0; i < 256; i++)
        SAME(out[i], in[255 - i], i);
}
END_TEST

START_TEST(barriers_by_number_and_reductions) {
    /* Warps 0, 1 produce for 2, 3: they arrive, the others wait. */
    uint32_t out[128];
    run_block(KERNEL(".shared .align 4 .b8 tile[256];\nmov.u32 %r1, tile;\nand.b32 %r2, %r0, 63;\n"
                     "shl.b32 %r2, %r2, 2;\nadd.u32 %r1, %r1, %r2;\nsetp.ge.u32 %p1, %r0, 64;\n"
                     "@%p1 bra CONSUME;\nmul.lo.u32 %r3, %r0, 11;\nst.shared.u32 [%r1], %r3;\n"
                     "bar.arrive 3, 128;\nbra JOIN;\nCONSUME:\nbar.sync 3, 128;\n"
                     "ld.shared.u32 %r3, [%r1];\nJOIN:\nsetp.lt.u32 %p2, %r0, 50;\n"
                     "barrier.cta.red.popc.aligned.u32 %r4, 0, %p2;\n"
                     "barrier.cta.red.and.pred.aligned %p3, 0, %p2;\n"
                     "barrier.cta.red.or.pred.aligned %p4, 0, %p2;\n"
                     "mad.lo.u32 %r3, %r4, 10000, %r3;\n@%p3 add.u32 %r3, %r3, 1;\n"
                     "@%p4 add.u32 %r3, %r3, 2;\nst.global.u32 [%rd1], %r3;"),
              128, NULL, out);
    for (uint32_t i = 0; i < 128; i++)
        SAME(out[i], 500002 + i % 64 * 11, i);
}
END_TEST

START_TEST(atomics_add_up) {
    gpu g = gpu_open(
        PTX_HEADER ".visible .entry k(.param .u64 out) {\n.reg .b32 %r<9>; .reg .b64 %rd<9>;"
                   ".reg .f32 %f<4>; ld.param.u64 %rd1, [out]; mov.u32 %r0, %tid.x;\n"
                   "atom.global.add.u32 %r1, [%rd1], 1; red.global.max.s32 [%rd1+4], %r0;\n"
                   "red.global.min.u32 [%rd1+8], %r0; cvt.rn.f32.u32 %f1, %r0;\n"
                   "red.global.add.f32 [%rd1+12], %f1; atom.global.or.b32 %r2, [%rd1+16], %r0;\n"
                   "atom.global.cas.b32 %r3, [%rd1+20], 7, 8; atom.global.exch.b32 %r4, [%rd1+24], "
                   "9; atom.global.inc.u32 %r5, [%rd1+28], 9; cvt.u64.u32 %rd2, %r0;\n"
                   "red.global.add.u64 [%rd1+32], %rd2; ret; }");
    uint32_t start[10] = {0, 0x80000000, 99, 0, 0, 7, 1, 0, 0xffffff00, 0};
    const emu_allocation *a = gpu_buffer(&g, start, sizeof start);
    g.threads = 2;
    GPU_MUST(&g, "k", 20, 64, a->base);
    SAME(gpu_u32(a, 0), 1280, 0);
    SAME(gpu_u32(a, 1), 63, 1);
    SAME(gpu_u32(a, 2), 0, 2);
    ck_assert(gpu_f32(a, 3) == 20 * 63 * 32);
    SAME(gpu_u32(a, 4), 63, 4);
    SAME(gpu_u32(a, 5), 8, 5);
    SAME(gpu_u32(a, 6), 9, 6);
    SAME(gpu_u32(a, 7), 0, 7); /* 1280 steps through 0 … 9 */
    SAME(gpu_u32(a, 8), 0xffffff00 + 20 * 63 * 32, 8);
    SAME(gpu_u32(a, 9), 1, 9);
    gpu_close(&g);
}
END_TEST

/* --- faults -------------------------------------------------------------------------------------
 */

/* The launch of one block must fail with a message that has all of the texts. */
static void must_fail(const char *ptx, uint32_t n, const char *a, const char *b, const char *c) {
    gpu g = gpu_open(ptx);
    const emu_allocation *out = gpu_buffer(&g, NULL, 4 * (size_t)n);
    g.limit = 100000;
    HOLDS(!GPU_RUN(&g, "k", 1, n, out->base, out->base), "found no fault");
    gpu_error_has(&g, "kernel k", "PTX line ", a, b, c, NULL);
    gpu_close(&g);
}

START_TEST(faults_say_where) {
    must_fail(KERNEL("add.s64 %rd1, %rd1, 8;\nst.global.u32 [%rd1], %r0;"), 32,
              "block (0,0,0), thread (30,0,0)", "out of bounds access of 4 bytes",
              "0 bytes past the end of allocation");
    must_fail(KERNEL("add.s64 %rd1, %rd1, 2;\nst.global.u32 [%rd1], %r0;"), 32, "thread (0,0,0)",
              "misaligned", "PTX line 18");
    must_fail(KERNEL("mov.u64 %rd1, 64;\nst.global.u32 [%rd1], %r0;"), 32, "thread (0,0,0)",
              "out of bounds", "0x40");
    must_fail(KERNEL("ld.global.u32 %r1, [%rd2];\nst.global.u32 [%rd1], %r1;"), 32,
              "read of uninitialised memory", "thread (0,0,0)", "PTX line 17");
    must_fail(KERNEL("setp.eq.u32 %p1, %r0, 3;\n@!%p1 mov.u32 %r1, 1;\nst.global.u32 [%rd1], %r1;"),
              32, "reads a register that this thread has not written", "thread (3,0,0)",
              "PTX line 19");
    must_fail(KERNEL("L:\nbra L;"), 32, "endless loop", "the limit", "warp");
    must_fail(KERNEL("trap;"), 32, "trap", "thread (0,0,0)", "PTX line 17");
    must_fail(KERNEL(".shared .b32 s[8];\nmov.u32 %r1, s;\nadd.u32 %r1, %r1, 32;\n"
                     "st.shared.u32 [%r1], %r0;"),
              1, "shared", "out of bounds", "32 bytes of shared memory");
}
END_TEST

START_TEST(registers_written_on_some_paths) {
    /* Only odd threads write %r1; a move hands that on. */
    must_fail(KERNEL("and.b32 %r2, %r0, 1;\nsetp.eq.u32 %p1, %r2, 0;\n@%p1 bra J;\n"
                     "mov.u32 %r1, 7;\nJ:\nmov.u32 %r3, %r1;\nadd.u32 %r4, %r3, 1;"),
              32, "reads a register that this thread has not written", "PTX line 23",
              "thread (0,0,0)");
    /* The first turn of the loop reads what its end writes. */
    must_fail(KERNEL("mov.u32 %r1, 0;\nL:\nsetp.eq.u32 %p1, %r1, 5;\n@%p1 add.u32 %r3, %r3, 1;\n"
                     "setp.eq.u32 %p2, %r1, 2;\n@%p2 mov.u32 %r4, 3;\nadd.u32 %r1, %r1, 1;\n"
                     "setp.eq.u32 %p3, %r1, 4;\n@%p3 add.u32 %r5, %r4, 1;\n"
                     "setp.lt.u32 %p4, %r1, 9;\n@%p4 bra L;"),
              32, "reads a register that this thread has not written", "PTX line 20", "");
    must_fail(KERNEL("setp.eq.u32 %p1, %r0, 5;\n@%p1 setp.eq.u32 %p2, %r0, 5;\n"
                     "@%p2 mov.u32 %r1, 1;"),
              32, "the guard is a predicate that this thread has not written", "PTX line 19",
              "thread (0,0,0)");
    /* selp of the other one; a loop that writes before it reads; both branches write. */
    uint32_t out[32];
    run_block(KERNEL("setp.lt.u32 %p1, %r0, 16;\n@%p1 mov.u32 %r1, 1;\n@!%p1 mov.u32 %r2, 2;\n"
                     "selp.u32 %r3, %r1, %r2, %p1;\nmov.u32 %r4, 0;\nL:\n"
                     "setp.eq.u32 %p2, %r4, 0;\n@%p2 mov.u32 %r5, 10;\nadd.u32 %r5, %r5, 1;\n"
                     "add.u32 %r4, %r4, 1;\nsetp.lt.u32 %p3, %r4, 4;\n@%p3 bra L;\n"
                     "@%p1 bra A;\nmov.u32 %r6, 100;\nbra J;\nA:\nmov.u32 %r6, 200;\nJ:\n"
                     "add.u32 %r3, %r3, %r5;\nadd.u32 %r3, %r3, %r6;\n"
                     "st.global.u32 [%rd1], %r3;"),
              32, NULL, out);
    for (int i = 0; i < 32; i++)
        SAME(out[i], i < 16 ? 1 + 14 + 200 : 2 + 14 + 100, i);
}
END_TEST

START_TEST(barriers_that_do_not_match) {
    must_fail(KERNEL("setp.lt.u32 %p1, %r0, 7;\n@%p1 bar.sync 0;"), 32, "divergent barrier",
              "thread", "");
    must_fail(KERNEL("setp.lt.u32 %p1, %r0, 7;\n@%p1 bra A;\nbar.sync 0;\nbra J;\nA:\nadd.u32 %r0, "
                     "%r0, 1;\nbar.sync 0;\nJ:"),
              32, "divergent barrier", "wait here for lanes", "");
    must_fail(
        KERNEL("setp.lt.u32 %p1, %r0, 32;\n@%p1 bra A;\nbar.sync 0;\nbra J;\nA:\nadd.u32 %r0, "
               "%r0, 1;\nbar.sync 0;\nJ:"),
        64, "mismatched barrier", "PTX line 19", "others of its block at line 23");
    must_fail(
        KERNEL("setp.lt.u32 %p1, %r0, 32;\n@%p1 bra A;\nbar.sync 1;\nbra J;\nA:\nadd.u32 %r0, "
               "%r0, 1;\nbar.sync 2;\nJ:"),
        64, "mismatched barriers", "none can go on", "");
    must_fail(KERNEL("bar.sync 1, 96;"), 64, "is reached by 64 only", "barrier 1 of 96", "");
    must_fail(KERNEL("setp.lt.u32 %p1, %r0, 7;\n@%p1 bra A;\nbar.warp.sync 0xffffffff;\nA:\n"
                     "shfl.sync.idx.b32 %r1, %r0, 0, 0x1f, 0xfffffff0;"),
              32, "member mask fffffff0 lacks it", "thread (0,0,0)", "");
}
END_TEST

START_TEST(shared_memory_faults) {
    must_fail(KERNEL(".shared .b32 s[64];\nmov.u32 %r1, s;\nshl.b32 %r2, %r0, 2;\n"
                     "add.u32 %r1, %r1, %r2;\nst.shared.u32 [%r1], %r0;\nxor.b32 %r2, %r2, 4;\n"
                     "mov.u32 %r1, s;\nadd.u32 %r1, %r1, %r2;\nld.shared.u32 %r3, [%r1];"),
              64,
              "thread 0 reads byte 4, which thread 1 wrote, with no barrier or __syncwarp between",
              "PTX line 25", "thread (0,0,0)");
    must_fail(KERNEL(".shared .b32 s[64];\nmov.u32 %r1, s;\nshl.b32 %r2, %r0, 2;\n"
                     "add.u32 %r1, %r1, %r2;\nst.shared.u32 [%r1], %r0;\nxor.b32 %r2, %r2, 128;\n"
                     "mov.u32 %r1, s;\nadd.u32 %r1, %r1, %r2;\nld.shared.u32 %r3, [%r1];"),
              64, "uninitialised", "which nobody wrote", "thread (0,0,0)");
    must_fail(KERNEL(".shared .b32 s[64];\nmov.u32 %r1, s;\nld.shared.u32 %r3, [%r1];"), 32,
              "read of uninitialised shared memory", "nobody wrote", "PTX line 19");
    must_fail(KERNEL(".shared .align 16 .b8 s[512];\nmov.u32 %r1, s;\nshl.b32 %r2, %r0, 2;\n"
                     "add.u32 %r1, %r1, %r2;\nmov.u32 %r4, 5;\nst.global.u32 [%rd2], %r4;\n"
                     "cp.async.ca.shared.global [%r1], [%rd2], 4;\ncp.async.commit_group;\n"
                     "cp.async.wait_group 1;\nld.shared.u32 %r3, [%r1];"),
              32, "use of shared memory before an async copy is done", "in flight", "PTX line 26");
}
END_TEST

START_TEST(launches_that_do_not_fit) {
    gpu g = gpu_open(PTX_HEADER ".visible .entry k(.param .u64 out) .maxntid 64, 1, 1 { ret; }\n"
                                ".visible .entry r() .reqntid 32, 2, 1 { ret; }");
    HOLDS(!GPU_RUN(&g, "k", 1, 65, (uint64_t)0), "too many threads");
    gpu_error_has(&g, "65 threads", "at most 64", NULL);
    HOLDS(!GPU_RUN(&g, "k", 0, 64, (uint64_t)0), "no blocks");
    HOLDS(!GPU_RUN(&g, "r", 1, 64, (uint64_t)0), "not .reqntid");
    HOLDS(gpu_run_sized(&g, "r", (gpu_size){1, 1, 1}, (gpu_size){32, 2, 1}), "%s", g.error);
    gpu_close(&g);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator_exec");
    TCase *c = tcase_create("control");
    tcase_add_test(c, lanes_part_and_meet_again);
    tcase_add_test(c, loops_of_different_lengths);
    tcase_add_test(c, some_lanes_exit_early);
    tcase_add_test(c, guards_keep_registers);
    tcase_add_test(c, branches_by_index);
    tcase_add_test(c, a_lane_waits_for_another_of_its_warp);
    tcase_add_test(c, a_lane_comes_late_to_those_that_wait_for_it);
    suite_add_tcase(s, c);
    c = tcase_create("memory");
    tcase_add_test(c, vectors_and_narrow_elements);
    tcase_add_test(c, parameters_of_all_sizes);
    tcase_add_test(c, each_thread_has_local_memory);
    tcase_add_test(c, variables_of_a_module);
    tcase_add_test(c, special_registers);
    suite_add_tcase(s, c);
    c = tcase_create("together");
    tcase_add_test(c, shuffles);
    tcase_add_test(c, votes_and_matches);
    tcase_add_test(c, blocks_reverse_through_shared_memory);
    tcase_add_test(c, barriers_by_number_and_reductions);
    tcase_add_test(c, atomics_add_up);
    suite_add_tcase(s, c);
    c = tcase_create("faults");
    tcase_add_test(c, faults_say_where);
    tcase_add_test(c, registers_written_on_some_paths);
    tcase_add_test(c, barriers_that_do_not_match);
    tcase_add_test(c, shared_memory_faults);
    tcase_add_test(c, launches_that_do_not_fit);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)

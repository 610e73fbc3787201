/* The CUDA backend's matmuls on the emulator, against the interpreter and with the CPU's bits:
 * every encoding, ragged shapes, every variant of a kernel, and what the launches cost.
 *
 * A sample by default; all encodings by shapes by architectures with MCC_TEST_FULL=1, in parts by
 * MCC_TEST_SHARD. Schedules of warps and blocks are random, by MCC_TEST_SEED. */
#include "cuda_graph.h"
#include "graph_text.h"

static const char *const weight_types[] = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k",
                                           "q5_k", "q6_k", "f32",  "f16",  "bf16"};
enum { N_WEIGHT_TYPES = sizeof weight_types / sizeof *weight_types, N_QUANTIZED = 8 };

/* The oldest compiler generation and the newest ones, whose PTX looks different. */
static const char *const targets[] = {"cuda:sm_80", "cuda:sm_90a", "cuda:sm_120", "cuda:sm_100a"};
enum { N_TARGETS = sizeof targets / sizeof *targets };

static void run_tokens(cuda_graph *c, int T) {
    int32_t ids[512], positions[512], rows[512], offsets[2] = {0, T}, slots[1] = {0};
    for (int t = 0; t < T; t++) {
        ids[t] = (int32_t)(cpu_random() % VOCAB);
        positions[t] = t;
        rows[t] = t;
    }
    ir_interp_step step = {.T = T,
                           .S = 1,
                           .R = T,
                           .token_ids = ids,
                           .positions = positions,
                           .seq_offsets = offsets,
                           .seq_slots = slots,
                           .output_rows = rows};
    cuda_graph_run(c, &step);
}

/* --- numbers -----------------------------------------------------------------------------------
 */

typedef struct shape {
    int n, k;
    enum { PLAIN, RESIDUAL, LOCKSTEP, CHAIN } around; /* CHAIN: lockstep, stored as a8, matmul */
} shape;

static const shape shapes[] = {
    {48, 288, RESIDUAL}, {100, 576, PLAIN},  {80, 256, LOCKSTEP}, {160, 512, CHAIN},
    {17, 32, PLAIN},     {1, 768, RESIDUAL}, {16, 64, LOCKSTEP},  {32, 1024, CHAIN},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static const int token_counts[] = {1, 7, 8, 9, 33, 130};
enum { N_COUNTS = sizeof token_counts / sizeof *token_counts };

static void write_case(text *t, const char *type, shape s) {
    const ir_encoding *e = ir_encoding_from_name(type);
    if (!e) {
        s.k += 5; /* rows without alignment */
        s.n += s.around == CHAIN ? 3 : 0;
    }
    if (e && e->super_group) {
        s.k = (s.k + 255) / 256 * 256;
        if (s.around == CHAIN)
            s.n = 256;
    }
    start(t);
    int tokens = add_tokens(t), x = add_rows(t, tokens, "x", s.k), y;
    if (s.around == LOCKSTEP || s.around == CHAIN) {
        int gate = add_matmul(t, x, type, s.n, s.k, "gate");
        int up = add_matmul(t, x, type, s.n, s.k, "up");
        int act = add(t, "silu(%%%d) : f32[T, %d] @\"act\"", gate, s.n);
        y = add(t, "mul(%%%d, %%%d) : f32[T, %d] @\"product\"", act, up, s.n);
        if (s.around == CHAIN)
            y = add_matmul(t, y, type, 40, s.n, "down");
    } else {
        y = add_matmul(t, x, type, s.n, s.k, "m");
    }
    if (s.around == RESIDUAL) {
        int residual = add_rows(t, tokens, "residual", s.n);
        y = add(t, "add(%%%d, %%%d) : f32[T, %d] @\"sum\"", residual, y, s.n);
    }
    add_output(t, y, "y");
}

static void run_case(int type, int number, const char *target, bool f32, const int *counts,
                     int n_counts) {
    text t;
    char label[160];
    const shape *s = &shapes[number];
    graph_seed_case(7000 + type, number);
    snprintf(label, sizeof label, "%s[%d, %d] case %d %s", weight_types[type], s->n, s->k,
             s->around, target);
    write_case(&t, weight_types[type], *s);
    pass_options options = {.fusion = "full", .activations_f32 = f32};
    compiled_graph *g = graph_compile(parse(&t), &options, label);
    cuda_graph *c = cuda_graph_create(g, target);
    c->schedule_seed = graph_seed();
    for (int i = 0; i < n_counts; i++)
        run_tokens(c, counts[i]);
    cuda_graph_destroy(c);
    graph_destroy(g);
}

START_TEST(int8_activations) {
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    for (int s = 0; s < N_SHAPES; s++)
        for (int a = 0; a < N_TARGETS; a++) {
            int number = (_i * N_SHAPES + s) * N_TARGETS + a;
            if (test_full()) {
                if (graph_case_is_mine(number))
                    run_case(_i, s, targets[a], false, token_counts, N_COUNTS);
            } else if (s % N_QUANTIZED == _i % N_SHAPES && a == _i % N_TARGETS) {
                int counts[] = {1, 9, 33};
                run_case(_i, s, targets[a], false, counts, 3);
            }
        }
}
END_TEST

/* Quantized weights in the exact mode, and weights that are not quantized. */
START_TEST(f32_activations) {
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    for (int s = 0; s < N_SHAPES; s++)
        for (int a = 0; a < N_TARGETS; a++) {
            int number = (_i * N_SHAPES + s) * N_TARGETS + a;
            if (test_full()) {
                if (graph_case_is_mine(number))
                    run_case(_i, s, targets[a], true, token_counts, N_COUNTS);
            } else if (s == (_i + 3) % N_SHAPES && a == (_i + 1) % N_TARGETS) {
                int counts[] = {1, 9};
                run_case(_i, s, targets[a], true, counts, 2);
            }
        }
}
END_TEST

static Suite *cuda_matmul_suite(void) {
    graph_say_seed();
    Suite *suite = suite_create("cuda_matmul");
    TCase *tcase = tcase_create("cuda_matmul");
    tcase_set_timeout(tcase, test_full() ? 3600 : 120);
    tcase_add_loop_test(tcase, int8_activations, 0, N_QUANTIZED);
    tcase_add_loop_test(tcase, f32_activations, 0, N_WEIGHT_TYPES);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(cuda_matmul_suite)

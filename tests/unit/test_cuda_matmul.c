/* The CUDA backend's matmuls on the emulator, against the interpreter and with the CPU's bits:
 * every encoding, ragged shapes, every variant of a kernel, and what the launches cost.
 *
 * A sample by default; all encodings by shapes with MCC_TEST_FULL=1, in parts by MCC_TEST_SHARD,
 * where architectures take turns, by MCC_TEST_SEED. Schedules of warps and blocks are random. */
#include "cuda_graph.h"
#include "graph_text.h"

static const char *const weight_types[] = {"q4_0", "q4_1", "q5_0", "q5_1",     "q8_0", "q4_k",
                                           "q5_k", "q6_k", "f32",  "fp8_e4m3", "f16",  "bf16"};
enum { N_WEIGHT_TYPES = sizeof weight_types / sizeof *weight_types, N_QUANTIZED = 8 };

/* The oldest compiler generation and the newest ones, whose PTX looks different. */
static const char *const targets[] = {"cuda:sm_80", "cuda:sm_90a", "cuda:sm_120", "cuda:sm_100a"};
enum { N_TARGETS = sizeof targets / sizeof *targets };

/* For fp8 by fp8: processors that have it, and such as multiply f16 instead. */
static const char *const fp8_targets[N_TARGETS] = {"cuda:sm_89", "cuda:sm_80", "cuda:sm_120",
                                                   "cuda:sm_90a"};

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
    enum {
        PLAIN,
        RESIDUAL,
        LOCKSTEP,
        CHAIN,   /* lockstep, stored as a8, matmul */
        PROLOGUE /* a norm and its quantization inside the matmul; lockstep where n is even */
    } around;
} shape;

static const shape shapes[] = {
    {48, 288, RESIDUAL}, {100, 576, PLAIN},   {80, 256, LOCKSTEP}, {160, 512, CHAIN},
    {96, 576, PROLOGUE}, {33, 256, PROLOGUE}, {17, 32, PLAIN},     {1, 768, RESIDUAL},
    {16, 64, LOCKSTEP},  {32, 1024, CHAIN},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static const int token_counts[] = {1, 7, 8, 9, 33, 130};
enum { N_COUNTS = sizeof token_counts / sizeof *token_counts };

typedef enum kind { INT8, F32, HALF, FP8 } kind; /* activations */

/* The 16-bit type that goes with a weight's; beside fp8 both do, of which `turn` chooses. */
static void set_half(pass_options *options, const char *type, int turn) {
    bool fp8 = strcmp(type, "fp8_e4m3") == 0;
    ck_assert(ir_dtype_from_name(!fp8       ? type
                                 : turn % 2 ? "bf16"
                                            : "f16",
                                 &options->activations_half));
}

static void write_case(text *t, const char *type, shape s, kind kind) {
    const ir_encoding *e = ir_encoding_from_name(type);
    if (!e) {
        s.k += kind == HALF ? 8 : 5; /* rows without alignment */
        s.n += s.around != CHAIN ? 0 : kind == HALF ? 8 : 3;
    }
    if (e && e->super_group) {
        s.k = (s.k + 255) / 256 * 256;
        if (s.around == CHAIN)
            s.n = 256;
    }
    start(t);
    int tokens = add_tokens(t), x = add_rows(t, tokens, "x", s.k), y;
    if (s.around == PROLOGUE) {
        int w = add(t, "weight {name = \"norm\"} : f32[%d]", s.k);
        x = add(t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, %d] @\"normed\"", x, w, s.k);
    }
    if (s.around == LOCKSTEP || s.around == CHAIN || (s.around == PROLOGUE && s.n % 2 == 0)) {
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

/* Tensor cores add up floats in another order than the CPU. */
static bool adds_floats(const cg_kernel *kernel) {
    const ir_type *x = &kernel->matmul.x_type;
    return kernel->anchor == CG_ANCHOR_MATMUL &&
           (x->encoding ? x->encoding->code == IR_CODE_E4M3 : x->dtype != IR_F32);
}

static void run_case(int type, int number, const char *target, kind kind, const int *counts,
                     int n_counts) {
    text t;
    char label[160];
    const shape *s = &shapes[number];
    graph_seed_case(7000 + type, number);
    snprintf(label, sizeof label, "%s[%d, %d] case %d %s", weight_types[type], s->n, s->k,
             s->around, target);
    write_case(&t, weight_types[type], *s, kind);
    pass_options options = {.fusion = s->around == PROLOGUE ? "prologues" : "full",
                            .activations_f32 = kind != INT8,
                            .activations_fp8 = kind == FP8};
    if (kind == HALF)
        set_half(&options, weight_types[type], number + (int)graph_seed());
    compiled_graph *g = graph_compile(parse(&t), &options, label);
    for (int i = 0; s->around == PROLOGUE && kind != HALF && i < g->program->n_kernels; i++)
        if (g->program->kernels[i]->anchor == CG_ANCHOR_MATMUL)
            ck_assert_ptr_nonnull(g->program->kernels[i]->matmul.prologue);
    cuda_graph *c = cuda_graph_create(g, target);
    c->schedule_seed = graph_seed();
    c->other_bits = adds_floats;
    bool floats = false;
    for (int i = 0; i < g->program->n_kernels; i++)
        floats |= adds_floats(g->program->kernels[i]);
    ck_assert(floats == (kind == HALF || kind == FP8));
    for (int i = 0; i < n_counts; i++)
        run_tokens(c, counts[i]);
    cuda_graph_destroy(c);
    graph_destroy(g);
}

static bool is_full_case(int type, int shape, int arch) {
    return (type + shape + arch + (int)(graph_seed() % N_TARGETS)) % N_TARGETS == 0 &&
           graph_case_is_mine(type * N_SHAPES + shape);
}

START_TEST(int8_activations) {
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    for (int s = 0; s < N_SHAPES; s++)
        for (int a = 0; a < N_TARGETS; a++) {
            if (test_full()) {
                if (is_full_case(_i, s, a))
                    run_case(_i, s, targets[a], INT8, token_counts, N_COUNTS);
            } else if (s % N_QUANTIZED == _i % N_SHAPES && a == _i % N_TARGETS) {
                int counts[] = {1, 9, 33};
                run_case(_i, s, targets[a], INT8, counts, 3);
            }
        }
}
END_TEST

/* The sample has every other weight type; which ones, the seed says. */
static bool sampled(int type) {
    return test_full() || (type + (int)(graph_seed() % 2)) % 2 == 0;
}

/* Quantized weights in the exact mode, and weights that are not quantized. */
START_TEST(f32_activations) {
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    if (!sampled(_i))
        TEST_UNSAMPLED("f32 activations by %s", weight_types[_i]);
    for (int s = 0; s < N_SHAPES; s++)
        for (int a = 0; a < N_TARGETS; a++) {
            if (test_full()) {
                if (is_full_case(_i, s, a))
                    run_case(_i, s, targets[a], F32, token_counts, N_COUNTS);
            } else if (s == (_i + 3) % N_SHAPES && a == (_i + 1) % N_TARGETS) {
                int counts[] = {1, 9};
                run_case(_i, s, targets[a], F32, counts, 2);
            }
        }
}
END_TEST

/* 16-bit and fp8 weights on tensor cores. */
START_TEST(half_activations) {
    int type = N_WEIGHT_TYPES - 3 + _i;
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    for (int s = 0; s < N_SHAPES; s++)
        for (int a = 0; a < N_TARGETS; a++) {
            if (test_full()) {
                if (is_full_case(_i, s, a))
                    run_case(type, s, targets[a], HALF, token_counts, N_COUNTS);
            } else if (s % 3 == _i && a == s % N_TARGETS) {
                int counts[] = {1, 9, 33};
                run_case(type, s, targets[a], HALF, counts, 3);
            }
        }
}
END_TEST

/* fp8 by fp8. */
START_TEST(fp8_activations) {
    int type = N_WEIGHT_TYPES - 3;
    ck_assert_str_eq(weight_types[type], "fp8_e4m3");
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    for (int s = 0; s < N_SHAPES; s++)
        for (int a = 0; a < N_TARGETS; a++) {
            if (test_full()) {
                if (s % 2 == _i && is_full_case(type, s, a))
                    run_case(type, s, fp8_targets[a], FP8, token_counts, N_COUNTS);
            } else if ((s + (int)(graph_seed() % 5)) % 5 == _i && a == (s / 5 + _i) % 2) {
                int counts[] = {1, 9, 33};
                run_case(type, s, fp8_targets[a], FP8, counts, 3);
            }
        }
}
END_TEST

/* --- what launches cost --------------------------------------------------------------------------
 */

enum { COST_N = 512, COST_K = 1024 };

static compiled_graph *cost_graph(const char *type, bool lockstep, kind kind, bool prologue) {
    text t;
    graph_seed_case(7500, lockstep);
    start(&t);
    int tokens = add_tokens(&t), x = add_rows(&t, tokens, "x", COST_K), y;
    if (prologue) {
        int w = add(&t, "weight {name = \"norm\"} : f32[%d]", COST_K);
        x = add(&t, "rms_norm(%%%d, %%%d) {eps = 1e-05} : f32[T, %d] @\"normed\"", x, w, COST_K);
    }
    if (lockstep) {
        int gate = add_matmul(&t, x, type, COST_N / 2, COST_K, "gate");
        int up = add_matmul(&t, x, type, COST_N / 2, COST_K, "up");
        int act = add(&t, "silu(%%%d) : f32[T, %d] @\"act\"", gate, COST_N / 2);
        y = add(&t, "mul(%%%d, %%%d) : f32[T, %d] @\"product\"", act, up, COST_N / 2);
    } else {
        y = add_matmul(&t, x, type, COST_N, COST_K, "m");
    }
    add_output(&t, y, "y");
    pass_options options = {.fusion = prologue ? "prologues" : "full",
                            .activations_f32 = kind != INT8,
                            .activations_fp8 = kind == FP8};
    if (kind == HALF)
        set_half(&options, type, lockstep);
    return graph_compile(parse(&t), &options, type);
}

static bool is_matmul(const cuda_graph *c, int i) {
    return c->cpu->program->kernels[c->functions[i].kernel]->anchor == CG_ANCHOR_MATMUL;
}

/* The variant that a step of T rows takes. */
static cuda_graph_function *variant_for(cuda_graph *c, int T) {
    cuda_graph_function *found = NULL;
    for (int i = 0; i < c->n_functions; i++)
        if (is_matmul(c, i) && c->functions[i].code.min_rows <= (uint32_t)T)
            found = &c->functions[i];
    return found;
}

/* Each byte of the weights and of x comes from memory once, in whole sectors, and shared memory
 * answers at once. */
START_TEST(costs) {
    static const int steps[] = {1, 8, 32, 64};
    kind x_kind = _i >= N_WEIGHT_TYPES + 3 ? FP8
                  : _i >= N_WEIGHT_TYPES   ? HALF
                  : _i < N_QUANTIZED       ? INT8
                                           : F32;
    const char *type = x_kind == FP8 ? "fp8_e4m3" : weight_types[x_kind == HALF ? _i - 3 : _i];
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    if (!graph_case_is_mine(_i))
        return;
    compiled_graph *g = cost_graph(type, _i % 2, x_kind, false);
    cuda_graph *c = cuda_graph_create(g, (x_kind == FP8 ? fp8_targets : targets)[_i % 2]);
    c->checks = 0;
    c->chosen_only = true;
    c->other_bits = adds_floats;
    uint64_t weights = 0;
    for (int i = 0; i < g->program->n_weights; i++)
        if (g->program->weights[i].type.layout)
            weights += g->program->weights[i].bytes;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        cuda_graph_function *f = variant_for(c, steps[i]);
        for (int k = 0; k < c->n_functions; k++)
            c->functions[k].counters = (emu_counters){0};
        run_tokens(c, steps[i]);
        const emu_counters *n = &f->counters;
        uint64_t x = (uint64_t)steps[i] * (x_kind == HALF   ? COST_K * 2
                                           : x_kind == INT8 ? COST_K * 3 / 2
                                           : x_kind == FP8  ? COST_K * 9 / 8
                                                            : COST_K * 4);
        ck_assert_uint_ge(n->dram_read_sectors * 32, weights);
        ck_assert_msg((double)n->dram_read_sectors * 32 <= 1.05 * (double)(weights + x),
                      "%s: %llu bytes read, of weights and x %llu", f->code.name,
                      (unsigned long long)n->dram_read_sectors * 32,
                      (unsigned long long)(weights + x));
        ck_assert_msg(!n->uncoalesced_requests, "%s: %llu uncoalesced requests", f->code.name,
                      (unsigned long long)n->uncoalesced_requests);
        ck_assert_msg(!n->bank_conflicts, "%s: %llu bank conflicts", f->code.name,
                      (unsigned long long)n->bank_conflicts);
        ck_assert_uint_ge(n->wide_loads * 512, weights * 3 / 4);
        /* Operations have 8 tokens, blocks a fixed number of them. */
        uint64_t tokens = (uint64_t)f->code.x.div, operands = (tokens + 7) / 8;
        uint64_t macs =
            (uint64_t)COST_N * COST_K * 8 * operands * (((uint64_t)steps[i] + tokens - 1) / tokens);
        if (x_kind != F32)
            ck_assert_uint_eq(n->mma_macs, macs);
    }
    cuda_graph_destroy(c);
    graph_destroy(g);
}
END_TEST

/* Every variant, for every architecture: registers suffice. */
START_TEST(no_spills) {
    int n_targets;
    const cg_cuda_target *all = cg_cuda_targets(&n_targets);
    if (!cuda_can_compile())
        TEST_SKIP("no NVRTC here");
    if (!sampled(_i + 1))
        TEST_UNSAMPLED("registers of matmuls by %s", weight_types[_i]);
    for (int around = 0; around < 8; around++) {
        bool lockstep = around & 1, other = around & 2, plain = _i >= N_QUANTIZED;
        bool prologue = around & 4;
        kind kind = plain ? (other ? HALF : F32) : other ? F32 : INT8;
        if (kind == HALF && (prologue || lockstep) && strcmp(weight_types[_i], "fp8_e4m3") == 0)
            kind = FP8;
        if ((kind == HALF && (prologue || strcmp(weight_types[_i], "f32") == 0)) ||
            (!test_full() && around != _i % 8))
            continue;
        compiled_graph *g = cost_graph(weight_types[_i], lockstep, kind, prologue);
        for (int k = 0; k < g->program->n_kernels; k++) {
            cg_cuda_code code;
            if (g->program->kernels[k]->anchor != CG_ANCHOR_MATMUL)
                continue;
            ck_assert(cg_cuda_generate(g->program->kernels[k], g->arena, &g->diag, &code));
            for (int f = 0; f < code.n_functions; f++)
                for (int t = 0; t < n_targets; t++) {
                    int number = (_i * 8 + around) * n_targets + t;
                    if (test_full() ? !graph_case_is_mine(number) : t != (_i + f) % n_targets)
                        continue;
                    cg_cuda_image image;
                    ck_assert(cg_cuda_compile(&code.functions[f], &all[t], NULL, &g->diag, &image));
                    ck_assert_msg(!image.spill_bytes, "%s on %s spills %u bytes, %u registers",
                                  code.functions[f].name, all[t].name, image.spill_bytes,
                                  image.registers);
                    ck_assert_msg(image.occupancy_blocks > 0, "%s does not fit %s",
                                  code.functions[f].name, all[t].name);
                    cg_cuda_image_free(&image);
                }
        }
        graph_destroy(g);
    }
}
END_TEST

static Suite *cuda_matmul_suite(void) {
    graph_say_seed();
    Suite *suite = suite_create("cuda_matmul");
    TCase *numbers = tcase_create("numbers"), *code = tcase_create("code");
    tcase_set_timeout(numbers, test_full() ? 3600 : 120);
    tcase_set_timeout(code, test_full() ? 3600 : 120);
    test_add_emulated(numbers, int8_activations, 0, N_QUANTIZED, 4);
    test_add_emulated(numbers, f32_activations, 0, N_WEIGHT_TYPES, 4);
    test_add_emulated(numbers, half_activations, 0, 3, 2);
    test_add_emulated(numbers, fp8_activations, 0, 2, 2);
    test_add_emulated(code, costs, 0, N_WEIGHT_TYPES + 5, 6);
    tcase_add_loop_test(code, no_spills, 0, N_WEIGHT_TYPES);
    suite_add_tcase(suite, numbers);
    suite_add_tcase(suite, code);
    return suite;
}

CHECK_MAIN(cuda_matmul_suite)

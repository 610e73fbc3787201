/* Whole models on the emulated GPU, with all its checks, through the engine as it is: logits
 * against those that transformers computes, and the CPU's bits; the same bits whatever the chunks
 * of the prompt and the batch.
 *
 * Bound: max|difference| / max|reference| <= 1e-4 with float activations and a float cache.
 *
 * Architectures take turns, and of the models one in seven runs, by MCC_TEST_SEED, under sanitizers
 * one in twelve; all models, each on three architectures, when MCC_TEST_FULL is 1, in parts by
 * MCC_TEST_SHARD. Most of the time goes to NVRTC. */
#include "model_case.h"

static const double bound = 1e-4;

static const struct {
    const char *target, *gpu;
} archs[] = {{"cuda:sm_80", "a100"},    {"cuda:sm_86", "rtx3090"}, {"cuda:sm_87", "orin"},
             {"cuda:sm_89", "l4"},      {"cuda:sm_90a", "h100"},   {"cuda:sm_100a", "b200"},
             {"cuda:sm_120", "rtx5090"}};
enum { N_ARCHS = sizeof archs / sizeof *archs };

/* MCC_TEST_SEED modulo n. */
static int turn(int n) {
    const char *seed = getenv("MCC_TEST_SEED");
    return seed ? (int)(strtoull(seed, NULL, 10) % (unsigned long long)n) : 0;
}

static bool is_turn_of(int model, int test) {
    int n = TEST_SANITIZED ? 12 : 7;
    return test_full() || (turn(n) + model + 2 * test) % n == 0;
}

/* Whether a full run takes the model on the architecture: on three of them. */
static bool is_full_case(int model, int arch) {
    return (turn(N_ARCHS) + model + arch) % N_ARCHS < 3 &&
           test_case_is_mine(model * N_ARCHS + arch);
}

static bool can_compile(void) {
    char text[512];
    if (cg_cuda_nvrtc_find(text, sizeof text))
        return true;
    fprintf(stderr, "skipped: NVRTC is not here: %s\n", text);
    return false;
}

/* On architecture i of the models' turn. */
static void use_emulator(int arch) {
    setenv("MODELCC_EMULATOR", MCC_CUDA_EMULATOR, 1);
    setenv("MODELCC_EMULATOR_GPU", archs[arch].gpu, 1);
    setenv("MODELCC_EMULATOR_SEED", "7", 1);
}

static void open_on_emulator(const char *path, int batched, opened *o) {
    ck_assert(open_model(path, NULL, 1, 512, o));
    mcc_engine_destroy(o->engine);
    make_engine("emulator", 1, batched, o);
}

static void check_exact(const subject *s, int arch) {
    reference *ref = reference_open(s->stem);
    pass_options passes = exact_options("full");
    char path[256];
    use_emulator(arch);
    compile_with(s, &passes, false, archs[arch].target, path, sizeof path);
    opened cpu, gpu;
    ck_assert(open_model(path, NULL, 2, 512, &cpu));
    open_on_emulator(path, 512, &gpu);
    unlink(path);
    for (int i = 0; i < ref->n_cases; i++) {
        float *want = run_case(cpu.engine, ref, i, 512), *got = run_case(gpu.engine, ref, i, 512);
        double e = error_of(ref, i, got);
        ck_assert_msg(e <= bound, "%s: %s: case %s: error %g", s->input, archs[arch].target,
                      ref->cases[i].name, e);
        expect_same_bits(ref, i, want, got, archs[arch].target);
        free(want);
        free(got);
    }
    close_model(&gpu);
    close_model(&cpu);
    reference_close(ref);
}

START_TEST(logits_equal_the_reference) {
    if (!can_compile())
        return;
    if (!is_turn_of(_i, 0))
        TEST_UNSAMPLED("exact mode of %s", subjects[_i].input);
    for (int a = 0; a < N_ARCHS; a++)
        if (test_full() ? is_full_case(_i, a) : a == _i % N_ARCHS)
            check_exact(&subjects[_i], a);
}
END_TEST

/* The defaults, int8 beside quantized weights, but for pages of several kinds; graphs of decode
 * steps. */
static void check_mixed(const subject *s, int arch, pass_kv kv) {
    reference *ref = reference_open(s->stem);
    pass_options passes = {.kv = kv};
    char path[256];
    use_emulator(arch);
    compile_with(s, &passes, false, archs[arch].target, path, sizeof path);
    opened o;
    open_on_emulator(path, 512, &o);
    unlink(path);
    float *alone[MAX_CASES], *mixed[MAX_CASES];
    for (int i = 0; i < ref->n_cases; i++) {
        alone[i] = run_case(o.engine, ref, i, 512);
        mixed[i] = calloc((size_t)(ref->cases[i].n_tokens * ref->vocab), sizeof(float));
    }
    for (int i = 0; i < ref->n_cases; i += EVAL_SEQS) {
        run_mixed(o.engine, ref, i, mixed + i);
        for (int k = i; k < i + EVAL_SEQS && k < ref->n_cases; k++)
            expect_same_bits(ref, k, alone[k], mixed[k], "a mixed batch");
    }
    float *single = run_case(o.engine, ref, 0, 1);
    expect_same_bits(ref, 0, alone[0], single, "token by token");
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(o.engine, &stats, NULL), MCC_OK);
    ck_assert_uint_gt(stats.graph_launches, 0);
    free(single);
    for (int i = 0; i < ref->n_cases; i++) {
        free(alone[i]);
        free(mixed[i]);
    }
    close_model(&o);
    reference_close(ref);
}

START_TEST(mixed_batches_change_nothing) {
    if (!can_compile())
        return;
    if (!is_turn_of(_i, 1))
        TEST_UNSAMPLED("mixed batches of %s", subjects[_i].input);
    if (test_case_is_mine(_i))
        check_mixed(&subjects[_i], (_i + 3) % N_ARCHS, pages_of(_i));
}
END_TEST

static Suite *suite(void) {
    find_subjects();
    Suite *s = suite_create("cuda models");
    TCase *t = tcase_create("cuda models");
    tcase_set_timeout(t, 900);
    tcase_add_checked_fixture(t, make_directory, remove_directory);
    tcase_add_loop_test(t, logits_equal_the_reference, 0, n_subjects);
    tcase_add_loop_test(t, mixed_batches_change_nothing, 0, n_subjects);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

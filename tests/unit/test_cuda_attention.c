/* Attention on the emulated GPU. */
#include "attention_case.h"

#include "codegen/cuda/cuda.h"
#include "runtime/emulator/exec.h"

enum { MAX_VARIANTS = 4, SCRATCH_ROWS = 16 };

/* A kernel's functions for one architecture, and a GPU that runs them. */
typedef struct gpu {
    const cg_cuda_target *target;
    ir_arena *arena;
    ir_diag diag;
    cg_cuda_code code;
    ptx_module *modules[MAX_VARIANTS];
    emu_memory *memory;
    uint32_t checks;
    uint64_t seed;
    emu_counters counters;
} gpu;

static void make_gpu(gpu *g, const cg_kernel *kernel, const char *target) {
    *g = (gpu){.target = cg_cuda_target_find(target),
               .arena = ir_arena_create(),
               .memory = emu_memory_create(UINT64_C(1) << 32, true),
               .checks = EMU_CHECK_ALL};
    cg_cuda_options options = {.ptx_only = true};
    ck_assert_ptr_nonnull(g->target);
    ck_assert_ptr_nonnull(g->memory);
    bool ok = cg_cuda_generate(kernel, g->arena, &g->diag, &g->code);
    ck_assert_int_le(g->code.n_functions, MAX_VARIANTS);
    for (int i = 0; ok && i < g->code.n_functions; i++) {
        cg_cuda_image image;
        char error[512];
        ok = cg_cuda_compile(&g->code.functions[i], g->target, &options, &g->diag, &image);
        if (!ok)
            break;
        g->modules[i] = ptx_module_create(image.ptx, image.ptx_bytes, error, sizeof error);
        ck_assert_msg(g->modules[i] != NULL, "%s", error);
        ck_assert_msg(ptx_module_load(g->modules[i], g->memory, error, sizeof error), "%s", error);
        cg_cuda_image_free(&image);
    }
    if (!ok)
        ir_diag_print(&g->diag, stderr);
    ck_assert(ok);
}

static void free_gpu(gpu *g) {
    for (int i = 0; i < g->code.n_functions; i++)
        ptx_module_destroy(g->modules[i]);
    emu_memory_destroy(g->memory);
    ir_arena_destroy(g->arena);
    ir_diag_clear(&g->diag);
}

static const emu_allocation *upload(gpu *g, const void *bytes, size_t n) {
    const emu_allocation *a = emu_memory_alloc(g->memory, n, false);
    ck_assert_ptr_nonnull(a);
    if (bytes) {
        memcpy(a->data, bytes, n);
        emu_memory_mark(a, a->base, n);
    }
    return a;
}

static int64_t blocks(const mcc_cuda_grid *g, const mcc_step *h) {
    int64_t n = g->dim.c + g->dim.t * h->T + g->dim.s * h->S + g->dim.r * h->R;
    return g->mult ? (n + g->div - 1) / g->div * g->mult : 1;
}

/* One launch of a variant over the fixture's step. */
static void launch(gpu *g, int variant, const fixture *f, const float *q, float *out) {
    const cg_cuda_function *function = &g->code.functions[variant];
    const mcc_step *h = &f->step.head;
    size_t row = (size_t)(f->s->heads * f->s->dim) * 4, bytes = row * (size_t)h->T;
    size_t ranges = (P * PAGE + 255) / 256;
    size_t scratch = MCC_CUDA_COUNTER_BYTES + ranges * function->scratch_bytes * SCRATCH_ROWS;
    const emu_allocation *a[5] = {upload(g, &f->step, sizeof f->step), upload(g, q, bytes),
                                  upload(g, f->pool, f->pool_bytes), upload(g, NULL, bytes),
                                  upload(g, NULL, scratch)};
    memset(a[4]->data, 0, MCC_CUDA_COUNTER_BYTES);
    emu_memory_mark(a[4], a[4]->base, MCC_CUDA_COUNTER_BYTES);
    uint64_t params[5];
    for (int i = 0; i < 5; i++)
        params[i] = a[i]->base;
    const ptx_function *code = ptx_module_function(g->modules[variant], function->name);
    ck_assert_ptr_nonnull(code);
    emu_launch l = {
        .function = code,
        .grid = {(uint32_t)blocks(&function->x, h), (uint32_t)blocks(&function->y, h), 1},
        .block = {function->threads, 1, 1},
        .shared_bytes = function->shared_bytes,
        .params = params,
        .memory = g->memory,
        .checks = g->checks,
        .schedule_seed = g->seed,
        .threads = 1,
        .counters = &g->counters};
    char error[1024];
    for (int run = 0; run < 2; run++) /* the counters must be as they were */
        if (!emu_run(&l, error, sizeof error))
            ck_abort_msg("%s", error);
    memcpy(out, a[3]->data, bytes);
    for (int i = 0; i < 5; i++)
        emu_memory_free(g->memory, a[i]->base);
}

static int variant_of(const gpu *g, int T) {
    int v = g->code.n_functions - 1;
    while (v > 0 && (int)g->code.functions[v].min_rows > T)
        v--;
    return v;
}

/* The tokens [begin, end) of the whole step as a step of their own. */
static void part_of(fixture *f, const step_block *whole, int begin, int end) {
    step_block *b = &f->step;
    *b = *whole;
    b->head.T = end - begin;
    memmove(b->positions, whole->positions + begin, (size_t)(end - begin) * 4);
    memmove(b->seqs, whole->seqs + begin, (size_t)(end - begin) * 4);
    for (int i = 0; i <= b->head.S; i++) {
        int at = whole->offsets[i] - begin;
        b->offsets[i] = at < 0 ? 0 : at > end - begin ? end - begin : at;
    }
}

static void expect_bits(const fixture *f, const char *what, const float *got, const float *want,
                        int tokens) {
    int row = f->s->heads * f->s->dim;
    for (int i = 0; i < tokens * row; i++)
        if (memcmp(&want[i], &got[i], 4) != 0)
            ck_abort_msg("%s: token %d, column %d: %.9g, expected %.9g", what, i / row, i % row,
                         (double)got[i], (double)want[i]);
}

/* The step in parts of `tokens` tokens. */
static void run_parts(gpu *g, fixture *f, int tokens, float *out) {
    step_block whole = f->step;
    size_t row = (size_t)(f->s->heads * f->s->dim);
    for (int t = 0; t < f->T; t += tokens) {
        int end = t + tokens < f->T ? t + tokens : f->T;
        part_of(f, &whole, t, end);
        launch(g, variant_of(g, end - t), f, f->q + (size_t)t * row, out + (size_t)t * row);
    }
    f->step = whole;
}

static const char *const targets[] = {"cuda:sm_80", "cuda:sm_90a", "cuda:sm_100a", "cuda:sm_120"};

START_TEST(attention) {
    char nvrtc[256];
    if (!cg_cuda_nvrtc_find(nvrtc, sizeof nvrtc))
        TEST_SKIP("no NVRTC: %s", nvrtc);
    const shape *s = &shapes[_i];
    fixture *f = make_fixture(s);
    const cg_kernel *kernel = &f->kernel;
    cpu_code cpu = cpu_load(&kernel, 1);
    size_t row = (size_t)(s->heads * s->dim), bytes = (size_t)f->T * row * 4;
    float *want = aligned(bytes), *out = aligned(bytes);
    void *args[] = {f->q, f->pool, want};
    mcc_cpu_call call = {.step = &f->step.head, .args = args, .T = f->T, .S = s->n_seqs, .R = f->T};
    memset(f->pool, 0xff, f->pool_bytes);
    for (int i = 0; i < s->n_seqs; i++)
        fill(f, i, f->step.lens[i]);
    cpu_run(cpu.functions[0][0], kernel, &call, 0);
    gpu g;
    make_gpu(&g, kernel, targets[_i % 4]);
    static const int parts[] = {MAX_TOKENS, 15, 7};
    for (int i = 0; i < 3; i++) {
        char what[64];
        snprintf(what, sizeof what, "%d tokens a step", parts[i]);
        g.seed = (uint64_t)i;
        run_parts(&g, f, parts[i], out);
        expect_bits(f, what, out, want, f->T);
    }
    free_gpu(&g);
    free(want);
    free(out);
    free_fixture(f);
    cpu_unload(&cpu);
}
END_TEST

static Suite *attention_suite(void) {
    Suite *suite = suite_create("cuda_attention");
    TCase *tcase = tcase_create("attention");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, attention, 0, N_SHAPES);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(attention_suite)

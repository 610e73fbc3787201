/* Sampling on the emulated GPU, with all its checks: every row's token, logit, greatest logit and
 * sum are those of the runtime's sampler and of the interpreter, whatever else is in the step:
 * logits of many kinds, limits, masks, vocabularies of odd and of real sizes. */
#include "check_main.h"

#include "codegen/cuda/cuda.h"
#include "emulated_gpu.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "runtime/sampler.h"
#include "runtime/step.h"

#include <math.h>

enum { ROWS = 8, FUNCTIONS = 2, MANY = 20000 /* logits, of which few rows are enough */ };

static uint64_t random_state;

static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float random_float(float from, float to) {
    return from + (to - from) * (float)(random_u32() >> 8) * 0x1p-24f;
}

/* --- a step --------------------------------------------------------------------------------------
 */

typedef struct batch {
    int32_t rows, n, words; /* logits and words of a mask a row */
    float *logits;
    mcc_step_sampling sampling[ROWS];
    uint32_t *masks; /* NULL: none */
} batch;

/* Spread, near, few different ones (so that many are equal), all equal, with infinities and NaNs,
 * none that can be chosen. */
static void fill_row(float *x, int32_t n, int kind) {
    for (int32_t i = 0; i < n; i++) {
        x[i] = kind == 0   ? random_float(-20, 20)
               : kind == 1 ? random_float(-0.01f, 0.01f)
               : kind == 2 ? (float)(int)random_float(-8, 8)
               : kind == 3 ? -1.25f
               : kind == 4 ? random_float(-4, 4)
                           : -INFINITY;
        if ((kind == 4 && random_u32() % 3 == 0) || (kind == 5 && random_u32() % 2 == 0))
            x[i] = random_u32() % 2 ? NAN : -INFINITY;
        if (kind == 2 && x[i] == 0 && random_u32() % 2)
            x[i] = -0.0f;
    }
    if (kind == 4 && random_u32() % 4 == 0)
        x[random_u32() % (uint32_t)n] = INFINITY;
}

static mcc_step_sampling random_sampling(int32_t n) {
    mcc_step_sampling s = {.temperature = random_u32() % 6 ? expf(random_float(-3, 2)) : 0,
                           .top_p = 1,
                           .seed = (uint64_t)random_u32() << 32 | random_u32(),
                           .position = (int32_t)(random_u32() % 10000),
                           .sum = random_u32() % 2};
    if (random_u32() % 2)
        s.top_p = random_u32() % 5 ? random_float(0.001f, 1) : 1e-30f;
    if (random_u32() % 2)
        s.top_k = 1 + (int32_t)(random_u32() % (random_u32() % 2 ? 50 : (uint32_t)n + 5));
    if (random_u32() % 3 == 0)
        s.min_p = random_u32() % 4 ? expf(random_float(-8, 0)) : 1;
    return s;
}

static batch make_batch(int32_t n, bool masks) {
    batch b = {.rows = n > MANY ? 2 : ROWS, .n = n, .words = (n + 31) / 32};
    b.logits = malloc((size_t)n * ROWS * sizeof *b.logits);
    b.masks = masks ? malloc((size_t)b.words * ROWS * sizeof *b.masks) : NULL;
    for (int r = 0; r < b.rows; r++) {
        fill_row(b.logits + (size_t)r * (size_t)n, n, (int)(random_u32() % 26) / 5);
        b.sampling[r] = random_sampling(n);
        for (int w = 0; masks && w < b.words; w++)
            b.masks[r * b.words + w] = random_u32() % 3 ? random_u32() : 0;
    }
    return b;
}

static void free_batch(batch *b) {
    free(b->logits);
    free(b->masks);
}

/* --- the GPU -------------------------------------------------------------------------------------
 */

typedef struct gpu {
    ir_arena *arena;
    ir_diag diag;
    cg_cuda_code code;
    ptx_module *modules[FUNCTIONS];
    emu_memory *memory;
    emu_counters counters;
} gpu;

/* ptxas, which says whether registers are spilled, takes most of the time: only with `machine`. */
static void make_gpu(gpu *g, int32_t n, const char *target, bool machine) {
    *g = (gpu){.arena = ir_arena_create(), .memory = emu_memory_create(UINT64_C(1) << 32, true)};
    cg_arg args[2] = {
        {.kind = CG_ARG_BUFFER, .type = ir_tensor(IR_F32, 2, (ir_dim[]){{.r = 1}, {.c = n}})},
        {.kind = CG_ARG_BUFFER,
         .type = ir_tensor(IR_F32, 2, (ir_dim[]){{.r = 1}, {.c = 4}}),
         .written = true}};
    cg_kernel kernel = {.name = "sample",
                        .anchor = CG_ANCHOR_SAMPLE,
                        .rows = {.r = 1},
                        .n_args = 2,
                        .args = args,
                        .sample = {.logits = 0, .result = 1, .n = n}};
    bool ok = cg_cuda_generate(&kernel, g->arena, &g->diag, &g->code);
    ck_assert(ok);
    ck_assert_int_eq(g->code.n_functions, FUNCTIONS);
    for (int i = 0; i < FUNCTIONS; i++) {
        cg_cuda_image image;
        char error[512];
        if (!cg_cuda_compile(&g->code.functions[i], cg_cuda_target_find(target),
                             &(cg_cuda_options){.ptx_only = !machine}, &g->diag, &image)) {
            ir_diag_print(&g->diag, stderr);
            ck_abort();
        }
        ck_assert_msg(!machine || image.spill_bytes == 0, "%s: %u bytes spilled with %u registers",
                      g->code.functions[i].name, image.spill_bytes, image.registers);
        g->modules[i] = ptx_module_create(image.ptx, image.ptx_bytes, error, sizeof error);
        ck_assert_msg(g->modules[i] != NULL, "%s", error);
        ck_assert_msg(ptx_module_load(g->modules[i], g->memory, error, sizeof error), "%s", error);
        cg_cuda_image_free(&image);
    }
}

static void free_gpu(gpu *g) {
    for (int i = 0; i < FUNCTIONS; i++)
        ptx_module_destroy(g->modules[i]);
    emu_memory_destroy(g->memory);
    ir_arena_destroy(g->arena);
    ir_diag_clear(&g->diag);
}

/* Both functions over the batch; grids are those of one row more, as in a graph of a larger batch.
 */
static void run(gpu *g, const batch *b, bool sampling, mcc_step_sampled *out) {
    size_t mask_bytes = b->masks ? (size_t)b->words * ROWS * 4 : 0;
    size_t bytes = 128 + sizeof b->sampling + mask_bytes;
    char *block = calloc(1, bytes);
    mcc_step head = {.R = b->rows,
                     .T = b->rows,
                     .S = b->rows,
                     .sampling = sampling ? 128 : 0,
                     .token_masks = b->masks ? (uint32_t)(128 + sizeof b->sampling) : 0};
    memcpy(block, &head, sizeof head);
    memcpy(block + 128, b->sampling, sizeof b->sampling);
    if (b->masks)
        memcpy(block + head.token_masks, b->masks, mask_bytes);
    head.R++;
    size_t scratch_bytes = g->code.functions[0].row_scratch_bytes * ROWS;
    const emu_allocation *step = emulated_upload(g->memory, block, bytes),
                         *logits = emulated_upload(g->memory, b->logits, (size_t)b->n * ROWS * 4),
                         *result = emulated_upload(g->memory, out, ROWS * sizeof *out),
                         *scratch = emulated_upload(g->memory, NULL,
                                                    MCC_CUDA_COUNTER_BYTES + scratch_bytes);
    for (int i = 0; i < FUNCTIONS; i++) {
        const cg_cuda_function *f = &g->code.functions[i];
        uint64_t params[] = {step->base, logits->base, result->base, scratch->base};
        char error[1024];
        emu_launch launch = {
            .function = ptx_module_function(g->modules[i], f->name),
            .grid = {emulated_blocks(&f->x, &head), emulated_blocks(&f->y, &head), 1},
            .block = {f->threads, 1, 1},
            .shared_bytes = f->shared_bytes,
            .params = params,
            .memory = g->memory,
            .checks = EMU_CHECK_ALL,
            .schedule_seed = random_u32(),
            .instruction_limit = UINT64_C(1) << 32,
            .threads = 2,
            .counters = &g->counters};
        ck_assert_ptr_nonnull(launch.function);
        ck_assert_msg(emu_run(&launch, error, sizeof error), "%s", error);
    }
    memcpy(out, result->data, ROWS * sizeof *out);
    const emu_allocation *all[] = {step, logits, result, scratch};
    for (int i = 0; i < 4; i++)
        emu_memory_free(g->memory, all[i]->base);
    free(block);
}

/* --- comparing -----------------------------------------------------------------------------------
 */

static void check_row(const batch *b, int r, const mcc_step_sampled *got) {
    const float *raw = b->logits + (size_t)r * (size_t)b->n;
    const mcc_step_sampling *p = &b->sampling[r];
    rt_sampling s = {.temperature = p->temperature,
                     .top_k = p->top_k,
                     .top_p = p->top_p,
                     .min_p = p->min_p,
                     .seed = p->seed};
    float *logits = malloc((size_t)b->n * sizeof *logits);
    void *space = malloc(rt_sample_bytes(b->n));
    memcpy(logits, raw, (size_t)b->n * sizeof *logits);
    if (b->masks)
        rt_mask(logits, b->n, b->masks + r * b->words);
    int32_t id = rt_sample(&s, logits, b->n, p->position, space), best = rt_argmax(raw, b->n);
    ck_assert_msg(
        got->id == (float)id,
        "%d logits, row %d: temperature %a, top_k %d, top_p %a, min_p %a: %g, expected %d", b->n, r,
        p->temperature, p->top_k, p->top_p, p->min_p, got->id, id);
    ck_assert(got->logit == (id < 0 ? 0 : raw[id]));
    ck_assert(got->greatest == (best < 0 ? -INFINITY : raw[best]));
    if (p->sum && id >= 0) {
        float logprob = rt_logprob_of(got->logit, got->greatest, got->sum);
        float expected = rt_logprob(raw, b->n, id);
        ck_assert_msg(logprob == expected || (isnan(logprob) && isnan(expected)), "%a, expected %a",
                      logprob, expected);
    } else if (!p->sum) {
        ck_assert(got->sum == 0);
    }
    free(logits);
    free(space);
}

/* The interpreter's sample of the same batch. */
static void check_interpreter(const batch *b, const mcc_step_sampled *got) {
    ir_diag diag = {0};
    ir_arena *arena = ir_arena_create();
    char text[512];
    snprintf(text, sizeof text,
             "module \"t\" {arch = \"t\"}\n"
             "%%0 = input {name = \"output_rows\"} : i32[R]\n"
             "%%1 = weight {name = \"table\"} : f32[2, %d]\n"
             "%%2 = gather(%%1, %%0) : f32[R, %d]\n"
             "%%3 = sample(%%2) : f32[R, 4]\n"
             "output(%%3) {name = \"samples\"}\n",
             b->n, b->n);
    ir_module *module = ir_parse_module(text, strlen(text), "test", &diag);
    ck_assert_ptr_nonnull(module);
    const ir_op *op = module->graph->last->prev;
    ir_interp_sampling sampling[ROWS];
    for (int r = 0; r < b->rows; r++) {
        const mcc_step_sampling *p = &b->sampling[r];
        sampling[r] = (ir_interp_sampling){.temperature = p->temperature,
                                           .top_p = p->top_p,
                                           .min_p = p->min_p,
                                           .top_k = p->top_k,
                                           .position = p->position,
                                           .seed = p->seed,
                                           .sum = p->sum};
    }
    ir_interp_step step = {.R = b->rows, .sampling = sampling, .token_masks = b->masks};
    float *result;
    bool ok = ir_interp_op(op, &step, (const float *const[]){b->logits}, &result, arena, &diag);
    ck_assert(ok);
    for (int r = 0; r < b->rows; r++) {
        const float *expected = result + 4 * r;
        ck_assert(got[r].id == expected[0] && got[r].logit == expected[1]);
        ck_assert(got[r].greatest == expected[2] && got[r].sum == expected[3]);
    }
    ir_module_destroy(module);
    ir_arena_destroy(arena);
    ir_diag_clear(&diag);
}

/* The last three take long: one of them is tried, by the seed. */
static const int32_t vocabularies[] = {1, 100, 257, 4096, 10001, 49152, 262144, 300001};
enum { VOCABULARIES = sizeof vocabularies / sizeof *vocabularies };

START_TEST(same_tokens_as_the_host) {
    static const char *const targets[] = {"cuda:sm_80", "cuda:sm_90a", "cuda:sm_120"};
    char where[512];
    const char *seed = getenv("MCC_TEST_SEED");
    if (!cg_cuda_nvrtc_find(where, sizeof where))
        TEST_SKIP("%s", where);
    random_state = (seed ? strtoull(seed, NULL, 0) : 1) + (uint64_t)_i;
    gpu g;
    int32_t n = vocabularies[_i];
    if (n > MANY && !test_full() && random_state % 3)
        TEST_UNSAMPLED("%d logits", n);
    make_gpu(&g, n, targets[random_u32() % 3], test_full() || random_u32() % 4 == 0);
    int batches = (n < 300 ? 4 : 1) * (test_full() ? 20 : 1);
    for (int i = 0; i < batches; i++) {
        batch b = make_batch(n, random_u32() % 2);
        mcc_step_sampled out[ROWS];
        memset(out, 0x55, sizeof out);
        run(&g, &b, true, out);
        for (int r = 0; r < b.rows; r++)
            check_row(&b, r, &out[r]);
        check_interpreter(&b, out);
        free_batch(&b);
    }
    free_gpu(&g);
}
END_TEST

/* Without parameters nothing is written. */
START_TEST(nothing_without_parameters) {
    char where[512];
    if (!cg_cuda_nvrtc_find(where, sizeof where))
        TEST_SKIP("%s", where);
    random_state = 1;
    gpu g;
    make_gpu(&g, 257, "cuda:sm_80", false);
    batch b = make_batch(257, false);
    mcc_step_sampled out[ROWS], before[ROWS];
    memset(out, 0x55, sizeof out);
    memcpy(before, out, sizeof out);
    run(&g, &b, false, out);
    ck_assert_mem_eq(out, before, sizeof out);
    free_batch(&b);
    free_gpu(&g);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("cuda_sample");
    TCase *t = tcase_create("sample");
    tcase_set_timeout(t, 600);
    tcase_add_loop_test(t, same_tokens_as_the_host, 0, VOCABULARIES);
    tcase_add_test(t, nothing_without_parameters);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

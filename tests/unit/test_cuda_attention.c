/* Attention on the emulated GPU, with all its checks: the CPU's bits where the order of arithmetic
 * is the CPU's, and within a bound of f64 on tensor cores; the same bits however tokens share a
 * step, whatever lies where no token looks; keys and values read once; no spills. */
#include "attention_case.h"

#include "codegen/cuda/cuda.h"
#include "emulated_gpu.h"

enum { MAX_VARIANTS = 4 };

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
    uint64_t approx_seed;
    int mma_sum;
    emu_counters counters;
} gpu;

static void make_gpu(gpu *g, const cg_kernel *kernel, const char *target,
                     const cg_cuda_tiles *tiles) {
    *g = (gpu){.target = cg_cuda_target_find(target),
               .arena = ir_arena_create(),
               .memory = emu_memory_create(UINT64_C(1) << 32, true),
               .checks = EMU_CHECK_ALL};
    cg_cuda_options options = {.ptx_only = true};
    ck_assert_ptr_nonnull(g->target);
    ck_assert_ptr_nonnull(g->memory);
    bool ok = cg_cuda_generate_for(kernel, g->target, tiles, g->arena, &g->diag, &g->code);
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

/* One launch of a variant over the fixture's step. */
static void launch(gpu *g, int variant, const fixture *f, const float *q, float *out) {
    const cg_cuda_function *function = &g->code.functions[variant];
    const mcc_step *h = &f->step.head;
    size_t row = (size_t)(f->s->heads * f->s->dim) * 4, bytes = row * (size_t)h->T;
    size_t ranges = (P * PAGE + 255) / 256;
    size_t scratch = MCC_CUDA_COUNTER_BYTES + ranges * function->scratch_bytes * (size_t)h->T;
    const emu_allocation *a[5] = {
        emulated_upload(g->memory, &f->step, sizeof f->step), emulated_upload(g->memory, q, bytes),
        emulated_upload(g->memory, f->pool, f->pool_bytes), emulated_upload(g->memory, NULL, bytes),
        emulated_upload(g->memory, NULL, scratch)};
    memset(a[4]->data, 0, MCC_CUDA_COUNTER_BYTES);
    emu_memory_mark(a[4], a[4]->base, MCC_CUDA_COUNTER_BYTES);
    uint64_t params[5];
    for (int i = 0; i < 5; i++)
        params[i] = a[i]->base;
    const ptx_function *code = ptx_module_function(g->modules[variant], function->name);
    ck_assert_ptr_nonnull(code);
    emu_launch l = {.function = code,
                    .grid = {emulated_blocks(&function->x, h), emulated_blocks(&function->y, h), 1},
                    .block = {function->threads, 1, 1},
                    .shared_bytes = function->shared_bytes,
                    .params = params,
                    .memory = g->memory,
                    .checks = g->checks,
                    .schedule_seed = g->seed,
                    .instruction_limit = UINT64_C(1) << 32,
                    .approx_seed = g->approx_seed,
                    .mma_sum = g->mma_sum,
                    .threads = 1,
                    .counters = &g->counters};
    char error[1024];
    for (int run = 0; run < 1 + (function->scratch_bytes > 0); run++) { /* counters as they were */
        if (!emu_run(&l, error, sizeof error))
            ck_abort_msg("%s", error);
        l.counters = NULL;
    }
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

/* The step in parts of `tokens` tokens, with nothing stored after a part's last token; on one
 * variant, or with -1 on that which the runtime takes. */
static void run_parts(gpu *g, fixture *f, int tokens, int variant, float *out) {
    step_block whole = f->step;
    size_t row = (size_t)(f->s->heads * f->s->dim);
    for (int t = 0; t < f->T; t += tokens) {
        int end = t + tokens < f->T ? t + tokens : f->T;
        memset(f->pool, 0xff, f->pool_bytes);
        for (int i = t; i < end; i++)
            if (i + 1 == end || whole.seqs[i + 1] != whole.seqs[i])
                fill(f, whole.seqs[i], whole.positions[i] + 1);
        part_of(f, &whole, t, end);
        launch(g, variant < 0 ? variant_of(g, end - t) : variant, f, f->q + (size_t)t * row,
               out + (size_t)t * row);
        f->step = whole;
    }
}

/* Tensor cores: weights, and values of quantized pages, are rounded to f16, so off by 2^-11 of
 * themselves, or 2^-25 where they are small; queries by 2^-22; all else is f32, with sums of a few
 * hundred terms, which tensor cores truncate, exponents within 2^-23 of their size, and a soft cap
 * within 2^-20 of itself. */
static void expect_close(const fixture *f, const float *got) {
    double want[256], worst = 0;
    magnitudes m;
    for (int t = 0; t < f->T; t++)
        for (int h = 0; h < f->s->heads; h++) {
            reference(f, t, h, want, &m);
            double score = m.score * (f->s->dim + 8) * 0x1p-22 + f->s->softcap * 0x1p-20;
            for (int c = 0; c < f->s->dim; c++) {
                double x = (double)got[(t * f->s->heads + h) * f->s->dim + c];
                double half = ir_kv_quantized(f->s->dtype) ? 0x1p-10 : 0x1p-11;
                double bound = m.values[c] * (half + 2 * score + 0x1p-14) + 256 * 0x1p-25 * 3;
                double e = fabs(x - want[c]);
                if (!(e <= bound))
                    ck_abort_msg("token %d head %d column %d: %.9g, expected %.9g, off by more "
                                 "than %g",
                                 t, h, c, x, want[c], bound);
                worst = e / bound > worst ? e / bound : worst;
            }
        }
    printf("%d heads of %d: error at most %.3f of the bound\n", f->s->heads, f->s->dim, worst);
    ck_assert(worst > 0);
}

/* Keys and values that the step's tokens see, read once a sequence and head, and little else. Where
 * a tile is split, partial results are stored as tensor cores leave them, in short runs. */
static void expect_traffic(const gpu *g, const fixture *f, bool tensor_cores, bool split) {
    const emu_counters *c = &g->counters;
    const shape *s = f->s;
    int64_t seen = 0, small = 4 * f->T * s->heads * s->dim + (int64_t)sizeof f->step;
    for (int i = 0; i < s->n_seqs; i++) {
        int first = s->window ? s->seqs[i].start + 1 - s->window : 0;
        int64_t size = ir_dtype_bits(s->dtype) / 8;
        /* K comes in sectors of 16 (f16) or 8 positions; 2 lines of 16 codes share one */
        int64_t end = (f->step.lens[i] + 15) / 16 * 16;
        seen += (end - (first > 0 ? first / 16 * 16 : 0)) * s->kv_heads * s->dim * 2 * size;
    }
    int64_t bytes = (int64_t)c->dram_read_sectors * 32, group = s->heads / s->kv_heads;
    if (group > 8) /* partial results: 1/256 of the range for each head */
        small += seen * group / 256;
    ck_assert_msg(bytes <= seen + seen / 20 + small,
                  "%lld bytes are read for %lld of keys and values and %lld of the step",
                  (long long)bytes, (long long)seen, (long long)small);
    if (!tensor_cores)
        return;
    ck_assert_uint_gt(c->mma_ops, 0);
    ck_assert_uint_gt(c->wide_loads, 0);
    ck_assert_uint_eq(c->bank_conflicts, 0);
    /* Of a page that is not full yet, codes of keys are read one by one: up to 7 of each d. */
    int64_t single = ir_kv_quantized(s->dtype) ? f->T * s->kv_heads * s->dim * 7 / 16 : 0;
    ck_assert_uint_le(split ? c->uncoalesced_loads : c->uncoalesced_requests, (uint64_t)single);
}

static const char *const targets[] = {"cuda:sm_80", "cuda:sm_90a", "cuda:sm_100a", "cuda:sm_120"};

static void run_case(int index, const char *target, int mma_sum) {
    const shape *s = &shapes[index];
    fixture *f = make_fixture(s);
    const cg_kernel *kernel = &f->kernel;
    size_t row = (size_t)(s->heads * s->dim), bytes = (size_t)f->T * row * 4;
    float *want = aligned(bytes), *out = aligned(bytes);
    bool tensor_cores = s->dtype != IR_F32 && s->dim % 16 == 0;
    if (!tensor_cores) {
        cpu_code cpu = cpu_load(&kernel, 1);
        void *args[] = {f->q, f->pool, want};
        mcc_cpu_call call = {
            .step = &f->step.head, .args = args, .T = f->T, .S = s->n_seqs, .R = f->T};
        for (int i = 0; i < s->n_seqs; i++)
            fill(f, i, f->step.lens[i]);
        cpu_run(cpu.functions[0][0], kernel, &call, 0);
        cpu_unload(&cpu);
    }
    gpu g;
    make_gpu(&g, kernel, target, NULL);
    g.mma_sum = mma_sum;
    g.approx_seed = (uint64_t)index % 3;
    /* The last variant, whole; the others, whole and in parts. */
    static const int parts[] = {15, 7, 1};
    int n = g.code.n_functions;
    for (int i = 0; i < n + 3; i++) {
        int tokens = i < n ? MAX_TOKENS : parts[i - n];
        char what[64];
        snprintf(what, sizeof what, "variant %d, %d tokens a step", i < n ? n - 1 - i : -1, tokens);
        if (!test_full() && (tokens == 15 || (tokens == 1 && f->T > 12)))
            continue;
        g.seed = (uint64_t)(8 * index + i);
        g.counters = (emu_counters){0};
        run_parts(&g, f, tokens, i < n ? n - 1 - i : -1, out);
        if (i == 0 && tensor_cores) {
            expect_close(f, out);
            memcpy(want, out, bytes);
        }
        if (i == 0 || (i < n && f->T == s->n_seqs)) /* not where chunks of prompts are split */
            expect_traffic(&g, f, tensor_cores, i > 0);
        expect_bits(f, what, out, want, f->T);
    }
    free_gpu(&g);
    free(want);
    free(out);
    free_fixture(f);
}

#define NEEDS_NVRTC()                                                                              \
    do {                                                                                           \
        char text[1024];                                                                           \
        if (!cg_cuda_nvrtc_find(text, sizeof text))                                                \
            TEST_SKIP("not run on the emulated GPU: %s", text);                                    \
    } while (0)

START_TEST(attention) {
    NEEDS_NVRTC();
    if (!test_full() && _i % 4 == 3 && _i > 3)
        TEST_UNSAMPLED("attention of shape %d", _i);
    for (int t = 0; t < 4; t++)
        if (test_full() ? test_case_is_mine(_i * 4 + t) : t == _i % 4)
            run_case(_i, targets[t], (t + _i) % 3);
}
END_TEST

/* Legal tiles give the bits of the chosen ones: all of them in a full run, else some. */
START_TEST(tiles) {
    enum { MOST = 64 };
    NEEDS_NVRTC();
    if (!test_full() && _i % 4 != 2)
        TEST_UNSAMPLED("tiles of attention of shape %d", _i);
    const shape *s = &shapes[_i];
    const char *target = targets[_i % 4];
    fixture *f = make_fixture(s);
    ir_arena *arena = ir_arena_create();
    size_t bytes = (size_t)(f->T * s->heads * s->dim) * 4;
    float *want = aligned(bytes), *out = aligned(bytes);
    gpu g;
    make_gpu(&g, &f->kernel, target, NULL);
    run_parts(&g, f, MAX_TOKENS, -1, want);
    cg_cuda_tile all[MOST];
    int n = cg_cuda_tile_candidates(&f->kernel, g.target, arena, all, MOST);
    ck_assert_int_gt(n, 0);
    ck_assert_int_lt(n, MOST);
    for (int i = 0; i < n; i++) {
        if (!test_full() && i % 4 != _i / 4 % 4)
            continue;
        gpu other;
        cg_cuda_tiling tiling = {g.code.tiling.key, 1, {all[i]}};
        cg_cuda_tiles table = {&tiling, 1};
        int tokens = MAX_TOKENS;
        if (all[i].values[0] > 1) { /* splits are for few rows */
            tiling.tiles[tiling.n] =
                (cg_cuda_tile){cg_cuda_split_rows(&f->kernel), all[i].form, {1, all[i].values[1]}};
            tokens = (int)tiling.tiles[tiling.n++].min_rows - 1;
        }
        make_gpu(&other, &f->kernel, target, &table);
        other.seed = (uint64_t)(8 * _i + i);
        run_parts(&other, f, tokens, 0, out);
        expect_bits(f, other.code.functions[0].name, out, want, f->T);
        free_gpu(&other);
    }
    /* Splits behind the rows that there are counters for. */
    cg_cuda_tiling wrong = {g.code.tiling.key, 1, {all[0]}};
    cg_cuda_tiles table = {&wrong, 1};
    cg_cuda_code code;
    wrong.tiles[0].values[0] = 2;
    ck_assert(!cg_cuda_generate_for(&f->kernel, g.target, &table, arena, &g.diag, &code));
    ck_assert_str_eq(g.diag.messages[0].where, wrong.key);
    ck_assert_ptr_nonnull(strstr(g.diag.messages[0].text, "tile 1 has splits"));
    free_gpu(&g);
    free(want);
    free(out);
    ir_arena_destroy(arena);
    free_fixture(f);
}
END_TEST

/* On every architecture: nothing is spilled, and a block fits. */
START_TEST(registers) {
    NEEDS_NVRTC();
    if (!test_full() && _i % 4)
        TEST_UNSAMPLED("registers of attention of shape %d", _i);
    if (!test_case_is_mine(_i))
        return;
    const shape *s = &shapes[_i];
    fixture *f = make_fixture(s);
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    cg_cuda_code code;
    int count;
    const cg_cuda_target *all = cg_cuda_targets(&count);
    ck_assert(cg_cuda_generate(&f->kernel, arena, &diag, &code));
    for (int i = 0; i < code.n_functions; i++)
        for (int t = 0; t < count; t++) {
            cg_cuda_image image;
            if (!test_full() && (i != _i % code.n_functions || t != _i % count))
                continue;
            ck_assert(cg_cuda_compile(&code.functions[i], &all[t], NULL, &diag, &image));
            ck_assert_msg(image.spill_bytes == 0 && image.occupancy_blocks > 0,
                          "%d heads of %d, %s, %s: %u registers, %u bytes spilled, %u blocks an SM",
                          s->heads, s->dim, code.functions[i].name, all[t].name, image.registers,
                          image.spill_bytes, image.occupancy_blocks);
            cg_cuda_image_free(&image);
        }
    ir_arena_destroy(arena);
    ir_diag_clear(&diag);
    free_fixture(f);
}
END_TEST

/* An epilogue over whole rows: x - max(x), of what the plain one gives. */
START_TEST(whole_rows) {
    NEEDS_NVRTC();
    if (!test_case_is_mine(_i))
        return;
    fixture *f = make_fixture(&shapes[_i]);
    size_t row = (size_t)(f->s->heads * f->s->dim), bytes = (size_t)f->T * row * 4;
    float *plain = aligned(bytes), *out = aligned(bytes);
    cg_node nodes[5];
    memcpy(nodes, f->nodes, sizeof f->nodes);
    nodes[3] =
        (cg_node){.kind = CG_REDUCE, .reduce = CG_REDUCE_MAX, .per_row = true, .operands = {2}};
    nodes[4] = (cg_node){.kind = CG_SCALAR, .op = CG_SUB, .operands = {2, 3}};
    for (int variant = 0; variant < 2; variant++) {
        gpu g;
        if (variant) {
            f->program.nodes = nodes;
            f->program.n_nodes = 5;
            f->store.value = 4;
        }
        make_gpu(&g, &f->kernel, "cuda:sm_80", NULL);
        run_parts(&g, f, variant ? 7 : MAX_TOKENS, -1, variant ? out : plain);
        free_gpu(&g);
    }
    for (size_t i = 0; i < (size_t)f->T * row; i += (size_t)f->s->dim) {
        float most = plain[i];
        for (int c = 0; c < f->s->dim; c++)
            most = plain[i + (size_t)c] > most ? plain[i + (size_t)c] : most;
        for (int c = 0; c < f->s->dim; c++)
            plain[i + (size_t)c] -= most;
    }
    expect_bits(f, "x - max(x)", out, plain, f->T);
    free(plain);
    free(out);
    free_fixture(f);
}
END_TEST

static void expect_refusal(const cg_kernel *kernel, const char *text) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    cg_cuda_code code;
    ck_assert(!cg_cuda_generate(kernel, arena, &diag, &code));
    ck_assert_msg(strstr(diag.messages[0].text, text) != NULL, "%s", diag.messages[0].text);
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
}

START_TEST(refusals) {
    fixture *f = make_fixture(&shapes[0]);
    f->args[1].kv.page_tokens = 32;
    expect_refusal(&f->kernel, "pages of 32 tokens");
    f->args[1].kv.page_tokens = PAGE;
    f->args[1].kv.dtype = IR_BF16;
    expect_refusal(&f->kernel, "pages of bf16");
    f->args[1].kv.dtype = IR_F16;
    f->kernel.attention.heads = 8;
    expect_refusal(&f->kernel, "attention of 8 heads");
    f->kernel.attention.heads = 9;
    f->kernel.rows = IR_DIM_R;
    expect_refusal(&f->kernel, "attention of other rows than the step's tokens");
    f->kernel.rows = IR_DIM_T;
    f->args[0].type.dtype = IR_F16;
    expect_refusal(&f->kernel, "queries");
    free_fixture(f);
}
END_TEST

static Suite *attention_suite(void) {
    Suite *suite = suite_create("cuda_attention");
    TCase *tcase = tcase_create("attention");
    tcase_set_timeout(tcase, test_full() ? 3000 : 300);
    test_add_emulated(tcase, attention, 0, N_SHAPES, 5);
    test_add_emulated(tcase, tiles, 0, N_SHAPES, 4);
    tcase_add_test(tcase, refusals);
    test_add_emulated(tcase, whole_rows, 3, 5, 2); /* of f16 and of f32 */
    tcase_add_loop_test(tcase, registers, 0, N_SHAPES);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(attention_suite)

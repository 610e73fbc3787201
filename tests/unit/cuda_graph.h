/* For tests of the CUDA backend: a module through the whole pipeline, its kernels generated as CUDA
 * C, compiled to PTX and run on the emulator with all its checks, beside the interpreter and the
 * CPU backend: each kernel's results are compared with the interpreter's within the bounds of
 * codegen/error_bound.h right after it ran, and must have the CPU's bits (unless other_bits). Every
 * variant of a kernel runs, whatever the number of rows it is meant for: all must agree bit for
 * bit, and leave whatever is not a result as it was. Included by one test file each. */
#ifndef MCC_TESTS_CUDA_GRAPH_H
#define MCC_TESTS_CUDA_GRAPH_H

#include "codegen/cuda/cuda.h"
#include "compiled_graph.h"
#include "emulated_gpu.h"

enum { CUDA_MAX_FUNCTIONS = 256 };

typedef struct cuda_graph_function {
    cg_cuda_function code;
    int kernel;
    ptx_module *ptx;
    emu_counters counters; /* of all launches */
} cuda_graph_function;

typedef struct cuda_graph {
    compiled_graph *cpu;
    const cg_cuda_target *target;
    ir_arena *arena;
    emu_memory *memory;
    int n_functions;
    cuda_graph_function functions[CUDA_MAX_FUNCTIONS];
    const emu_allocation *weights, *pools[4];
    uint64_t schedule_seed; /* of the next launch; advances */
    uint32_t checks;        /* EMU_CHECK_ bits */
    bool chosen_only;       /* of the variants run the one that a step of so many rows takes */
    bool (*other_bits)(const cg_kernel *kernel); /* kernels whose bits may differ from the CPU's */
} cuda_graph;

/* --- making ------------------------------------------------------------------------------------
 */

static inline bool cuda_can_compile(void) {
    char text[512];
    return cg_cuda_nvrtc_find(text, sizeof text);
}

static inline void cuda_fail(const cuda_graph *c, const char *what) {
    graph_fail(c->cpu, what);
}

/* Compiles a kernel's functions and adds them to those it has. */
static inline void cuda_compile(cuda_graph *c, int kernel, cg_cuda_code code) {
    static const cg_cuda_options options = {.ptx_only = true};
    ck_assert_int_gt(code.n_functions, 0);
    for (int i = 0; i < code.n_functions; i++) {
        ck_assert_int_lt(c->n_functions, CUDA_MAX_FUNCTIONS);
        cuda_graph_function *f = &c->functions[c->n_functions++];
        cg_cuda_image image;
        char error[512];
        *f = (cuda_graph_function){.code = code.functions[i], .kernel = kernel};
        if (!cg_cuda_compile(&f->code, c->target, &options, &c->cpu->diag, &image)) {
            fputs(f->code.source, stderr);
            cuda_fail(c, "NVRTC refuses the code");
        }
        f->ptx = ptx_module_create(image.ptx, strlen(image.ptx), error, sizeof error);
        cg_cuda_image_free(&image);
        if (!f->ptx || !ptx_module_load(f->ptx, c->memory, error, sizeof error))
            ck_abort_msg("%s: %s", f->code.name, error);
    }
}

static inline void cuda_compile_chosen(cuda_graph *c, int kernel) {
    cg_cuda_code code;
    if (!cg_cuda_generate(c->cpu->program->kernels[kernel], c->arena, &c->cpu->diag, &code))
        cuda_fail(c, "CUDA code cannot be generated");
    cuda_compile(c, kernel, code);
}

/* Adds the functions that a kernel has with a table of tiles. */
static inline void cuda_add_tiles(cuda_graph *c, int kernel, const cg_cuda_tiles *tiles) {
    cg_cuda_code code;
    if (!cg_cuda_generate_for(c->cpu->program->kernels[kernel], c->target, tiles, c->arena,
                              &c->cpu->diag, &code))
        cuda_fail(c, "CUDA code cannot be generated");
    ck_assert(code.given);
    cuda_compile(c, kernel, code);
}

/* For other_bits: those of every kernel. */
static inline bool cuda_any_bits(const cg_kernel *kernel) {
    (void)kernel;
    return true;
}

/* Takes nothing over: `cpu` must outlive it. target: "cuda:sm_80". */
static inline cuda_graph *cuda_graph_create(compiled_graph *cpu, const char *target) {
    cuda_graph *c = calloc(1, sizeof *c);
    c->cpu = cpu;
    c->target = cg_cuda_target_find(target);
    ck_assert_ptr_nonnull(c->target);
    c->arena = ir_arena_create();
    c->memory = emu_memory_create(UINT64_C(1) << 30, true);
    ck_assert_ptr_nonnull(c->memory);
    c->checks = EMU_CHECK_ALL;
    for (int i = 0; i < cpu->program->n_kernels; i++)
        cuda_compile_chosen(c, i);
    c->weights = emulated_upload(c->memory, cpu->weights, cpu->program->weight_bytes);
    for (int k = 0; k < cpu->module->n_kv_groups; k++) {
        const ir_kv_group *kv = &cpu->module->kv_groups[k];
        uint64_t page = (uint64_t)ir_kv_page_bytes(kv);
        c->pools[k] = emulated_upload(c->memory, NULL,
                                      page * (uint64_t)kv->layers * GRAPH_PAGES * GRAPH_MAX_SEQS);
        memset(c->pools[k]->data, 0xff, c->pools[k]->bytes); /* NaNs; may be read, not used */
        emu_memory_mark(c->pools[k], c->pools[k]->base, c->pools[k]->bytes);
    }
    return c;
}

static inline void cuda_graph_destroy(cuda_graph *c) {
    for (int i = 0; i < c->n_functions; i++)
        ptx_module_destroy(c->functions[i].ptx);
    emu_memory_destroy(c->memory);
    ir_arena_destroy(c->arena);
    free(c);
}

/* --- running -----------------------------------------------------------------------------------
 */

typedef struct cuda_step {
    const emu_allocation *block, *arena;
    const graph_block *host; /* of the step block */
} cuda_step;

static inline uint64_t cuda_arg(const cuda_graph *c, const mcc_arg_entry *a, const cuda_step *s) {
    const cg_program_list *p = c->cpu->program;
    const mcc_step *h = &s->host->head;
    switch (a->kind) {
    case MCC_ARG_BUFFER:
        return s->arena->base +
               (uint64_t)ir_dim_eval(p->buffers[a->index].offset, h->T, h->S, h->R);
    case MCC_ARG_WEIGHT:
        return c->weights->base + p->weights[a->index].offset;
    case MCC_ARG_KV: {
        const ir_kv_group *kv = &c->cpu->module->kv_groups[a->index];
        int64_t page = ir_kv_page_bytes(kv);
        return c->pools[a->index]->base +
               (uint64_t)(a->layer * page * GRAPH_PAGES * GRAPH_MAX_SEQS);
    }
    default:
        return s->block->base + (a->index == MCC_STEP_TOKEN_IDS   ? h->token_ids
                                 : a->index == MCC_STEP_POSITIONS ? h->positions
                                                                  : h->output_rows);
    }
}

/* Runs one function; its error ends the test. */
static inline void cuda_launch(cuda_graph *c, cuda_graph_function *f, const cg_launch *l,
                               const cuda_step *s, const emu_allocation *scratch) {
    const mcc_step *h = &s->host->head;
    uint64_t params[66] = {s->block->base};
    char error[1024];
    ck_assert_int_le(l->n_args, 64);
    for (int a = 0; a < l->n_args; a++)
        params[1 + a] = cuda_arg(c, &c->cpu->program->args[l->first_arg + a], s);
    if (scratch)
        params[1 + l->n_args] = scratch->base;
    const ptx_function *function = ptx_module_function(f->ptx, f->code.name);
    ck_assert_msg(function != NULL, "no entry %s in the PTX", f->code.name);
    ptx_function_info info;
    ptx_function_get_info(function, &info);
    ck_assert_uint_eq(info.param_bytes, 8 * f->code.n_params);
    emu_launch launch = {
        .function = function,
        .grid = {emulated_blocks(&f->code.x, h), emulated_blocks(&f->code.y, h), 1},
        .block = {f->code.threads, 1, 1},
        .shared_bytes = f->code.shared_bytes,
        .params = params,
        .memory = c->memory,
        .checks = c->checks,
        .schedule_seed = c->schedule_seed,
        .instruction_limit = 1 << 28,
        .threads = 2,
        .counters = &f->counters};
    if (c->schedule_seed)
        c->schedule_seed = c->schedule_seed * 6364136223846793005u + 1442695040888963407u;
    if (launch.grid[0] && !emu_run(&launch, error, sizeof error))
        ck_abort_msg("%s: %s: %s", c->cpu->label, c->target->name, error);
}

/* One variant, of one or two functions. */
static inline void cuda_launch_variant(cuda_graph *c, cuda_graph_function *f, const cg_launch *l,
                                       const cuda_step *s) {
    const mcc_step *h = &s->host->head;
    uint64_t ranges = (GRAPH_PAGES * 16 + MCC_CUDA_RANGE - 1) / MCC_CUDA_RANGE;
    uint64_t rows = (uint64_t)(h->T > h->R ? h->T : h->R);
    uint64_t bytes = rows * (ranges * f->code.scratch_bytes + f->code.row_scratch_bytes);
    const emu_allocation *scratch = NULL;
    if (bytes) {
        scratch = emulated_upload(c->memory, NULL, MCC_CUDA_COUNTER_BYTES + bytes);
        memset(scratch->data, 0, MCC_CUDA_COUNTER_BYTES);
        emu_memory_mark(scratch, scratch->base, MCC_CUDA_COUNTER_BYTES);
    }
    cuda_launch(c, f, l, s, scratch);
    if (f->code.first_of_two)
        cuda_launch(c, f + 1, l, s, f[1].code.row_scratch_bytes ? scratch : NULL);
    for (int i = 0; scratch && i < MCC_CUDA_COUNTER_BYTES; i++)
        if (scratch->data[i])
            ck_abort_msg("%s leaves its counters", f->code.name);
    if (scratch)
        emu_memory_free(c->memory, scratch->base);
}

/* The bytes that a launch may change, before and after. */
static inline uint64_t cuda_state_hash(const cuda_graph *c, const cuda_step *s, bool pools) {
    uint64_t hash = graph_hash(s->arena->data, (int64_t)s->arena->bytes, 0xcbf29ce484222325u);
    for (int k = 0; pools && k < c->cpu->module->n_kv_groups; k++)
        hash = graph_hash(c->pools[k]->data, (int64_t)c->pools[k]->bytes, hash);
    return hash;
}

static inline void cuda_copy_state(const cuda_graph *c, const cuda_step *s, bool pools,
                                   uint8_t *copy, bool restore) {
    const emu_allocation *parts[5] = {s->arena};
    int n = 1;
    for (int k = 0; pools && k < c->cpu->module->n_kv_groups; k++)
        parts[n++] = c->pools[k];
    for (int i = 0; i < n; i++, copy += parts[i - 1]->bytes) {
        if (restore)
            memcpy(parts[i]->data, copy, parts[i]->bytes);
        else
            memcpy(copy, parts[i]->data, parts[i]->bytes);
    }
}

/* The variant that a step takes: of two functions the first. */
static inline int cuda_chosen(const cuda_graph *c, int kernel, int64_t rows) {
    int found = -1;
    for (int i = 0; i < c->n_functions; i++)
        if (c->functions[i].kernel == kernel && c->functions[i].code.min_rows <= rows &&
            !(i > 0 && c->functions[i - 1].code.first_of_two))
            found = i;
    return found;
}

/* All variants of a launch, on the same inputs. cpu_hash: of the CPU's results. */
static inline void cuda_variants(cuda_graph *c, const cg_launch *l, const cuda_step *s,
                                 uint64_t cpu_hash) {
    compiled_graph *g = c->cpu;
    const mcc_step *h = &s->host->head;
    const cg_kernel *kernel = g->program->kernels[l->kernel];
    bool pools = graph_stores_kv(kernel);
    uint64_t bytes = s->arena->bytes, first = 0;
    for (int k = 0; pools && k < g->module->n_kv_groups; k++)
        bytes += c->pools[k]->bytes;
    uint8_t *before = malloc(bytes);
    const char *first_name = NULL;
    int chosen = cuda_chosen(c, l->kernel, ir_dim_eval(kernel->rows, h->T, h->S, h->R));
    cuda_copy_state(c, s, pools, before, false);
    for (int i = 0; i < c->n_functions; i++) {
        cuda_graph_function *f = &c->functions[i];
        if (f->kernel != l->kernel || (i > 0 && f[-1].code.first_of_two) ||
            (c->chosen_only && i != chosen))
            continue;
        if (first_name)
            cuda_copy_state(c, s, pools, before, true);
        cuda_launch_variant(c, f, l, s);
        uint64_t hash = 0xcbf29ce484222325u, state = cuda_state_hash(c, s, pools);
        ck_assert_msg(!first_name || state == first, "%s: kernel %s: %s and %s differ", g->label,
                      ir_op_label(l->op), first_name, f->code.name);
        for (int r = 0, a = l->op->n_operands; r < l->op->n_results; r++) {
            const ir_type *type = &l->op->results[r]->type;
            if (type->kind == IR_KV)
                continue;
            const uint8_t *at =
                s->arena->data +
                (cuda_arg(c, &g->program->args[l->first_arg + a], s) - s->arena->base);
            hash = graph_hash(at, ir_dim_eval(ir_type_bytes(type), h->T, h->S, h->R), hash);
            if (!first_name)
                graph_compare(g, l->op, r, at, c->target->name);
            a++;
        }
        ck_assert_msg((c->other_bits && c->other_bits(kernel)) || hash == cpu_hash,
                      "%s: kernel %s: %s has other bits than the CPU", g->label, ir_op_label(l->op),
                      f->code.name);
        first_name = f->code.name;
        first = state;
    }
    free(before);
}

/* One step on the interpreter, on the CPU's first level and on the emulator. Each kernel's results
 * are compared, then replaced by the interpreter's. */
static inline void cuda_graph_run(cuda_graph *c, const ir_interp_step *step) {
    compiled_graph *g = c->cpu;
    const cg_program_list *p = g->program;
    bounds_begin(g->bounds, step);
    if (!ir_interp_run(g->interp, step, &g->diag))
        cuda_fail(c, "the interpreter fails");
    if (g->bounds->failure[0])
        cuda_fail(c, g->bounds->failure);
    graph_block *block = aligned_alloc(64, (sizeof *block + 63) / 64 * 64);
    graph_fill_block(step, g->module->n_kv_groups, block);
    int64_t bytes = ir_dim_eval(p->arena_bytes, step->T, step->S, step->R);
    uint8_t *arena = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64 + 64);
    memset(arena, 0xff, (size_t)bytes);
    cuda_step s = {.block = emulated_upload(c->memory, block, sizeof *block),
                   .arena = emulated_upload(c->memory, NULL, (uint64_t)bytes),
                   .host = block};
    memset(s.arena->data, 0xff, s.arena->bytes);
    for (int i = 0; i < p->n_launches; i++) {
        const cg_launch *l = &p->launches[i];
        uint64_t hash = 0xcbf29ce484222325u;
        graph_launch(g, 0, l, block, arena, 0, &hash);
        cuda_variants(c, l, &s, hash);
        for (int r = 0, a = l->op->n_operands; r < l->op->n_results; r++)
            if (l->op->results[r]->type.kind != IR_KV)
                graph_replace(g, l->op, r,
                              s.arena->data +
                                  (cuda_arg(c, &p->args[l->first_arg + a++], &s) - s.arena->base));
    }
    emu_memory_free(c->memory, s.arena->base);
    emu_memory_free(c->memory, s.block->base);
    free(arena);
    free(block);
}

#endif

/* For the mutation test: kernels of a small graph as CUDA functions, inputs for them, and launches
 * of their PTX, right or mutated, on the emulator. What a mutant leaves is held against what the
 * unchanged kernel leaves; whether that is right other tests say. Each argument has an allocation
 * of its own size. Included by one test file each. */
#ifndef MCC_TESTS_CUDA_MUTANTS_H
#define MCC_TESTS_CUDA_MUTANTS_H

#include "graph_text.h"

#include "codegen/cuda/cuda.h"
#include "ptx_mutation.h"
#include "runtime/emulator/exec.h"

/* --- graphs --------------------------------------------------------------------------------------
 */

typedef struct mutant_graph {
    ir_module *module;
    ir_arena *arena;
    ir_diag diag;
    cg_program_list *program;
    uint8_t *weights;
    emu_memory *memory; /* of all inputs */
} mutant_graph;

/* Tables of which every eighth row is next to nothing, so that quantization finds such groups. */
static inline void mutant_small_numbers(ir_module *m) {
    for (int i = 0; i < m->n_weights; i++) {
        const ir_weight *w = &m->weights[i];
        int64_t bytes, k = graph_row(&w->type, &bytes), rows = w->type.dims[0].c;
        uint8_t *at = (uint8_t *)(uintptr_t)w->data;
        bool table = strcmp(w->name, "x") == 0 || strcmp(w->name, "embedding") == 0;
        for (int64_t r = 3; table && r < rows; r += 8) {
            if (w->type.encoding)
                memset(at + r * bytes, 0, (size_t)bytes);
            for (int64_t c = 0; !w->type.encoding && c < k; c++)
                ((float *)(at + r * bytes))[c] *= 0x1p-104f;
        }
    }
}

/* Takes the module over. */
static inline mutant_graph *mutant_graph_create(ir_module *module, const pass_options *options,
                                                const ir_target *target) {
    mutant_graph *g = calloc(1, sizeof *g);
    ck_assert_ptr_nonnull(g);
    g->module = module;
    mutant_small_numbers(module);
    g->arena = ir_arena_create();
    pass_context context = {
        .module = module, .diag = &g->diag, .options = options, .target = target};
    bool ok = pass_run_pipeline(&context, NULL, NULL) && ir_verify(module, &g->diag);
    g->program = ok ? cg_program_create(module, &cg_cpu_backend, g->arena, &g->diag) : NULL;
    if (!g->program) {
        ir_diag_print(&g->diag, stderr);
        ck_abort_msg("a graph for mutants cannot be lowered");
    }
    g->weights = graph_pack_weights(g->program);
    g->memory = emu_memory_create(UINT64_C(1) << 30, true);
    ck_assert_ptr_nonnull(g->memory);
    return g;
}

static inline void mutant_graph_destroy(mutant_graph *g) {
    free(g->weights);
    emu_memory_destroy(g->memory);
    ir_module_destroy(g->module);
    ir_arena_destroy(g->arena);
    ir_diag_clear(&g->diag);
    free(g);
}

/* --- inputs --------------------------------------------------------------------------------------
 */

enum { MUTANT_MAX_BUFFERS = 24, MUTANT_MAX_SEQS = 33, MUTANT_TABLES = 1 << 14 };

/* A step: `tokens` of each sequence, behind `start` that are stored already. */
typedef struct mutant_step {
    int n_seqs; /* more than GRAPH_MAX_SEQS: their tokens are those of seqs[0], one each; the 21st
                   is behind more than its table has room for */
    struct {
        int start, tokens;
    } seqs[GRAPH_MAX_SEQS];
    bool odd;  /* numbers of all sizes, infinities, NaNs; indices and positions out of range */
    bool loud; /* numbers so large that functions saturate */
    int spare; /* the grid is that of so many more tokens and rows, as a captured graph's may be */
    int pages; /* of a sequence's table; 0: GRAPH_PAGES. Some are used twice where there are less */
    bool spread;  /* positions leap about in 256 behind the start, each at the begin of a page, but
                     for some just before it or in the first page; of a sequence of two tokens they
                     are 5 and the start */
    bool lacking; /* the third sequence has no page 514 */
    bool spiky;   /* one column in 32 is far larger than the others; half of the rows next to
                     nothing */
    bool logits;  /* rows as sampling may find them: see mutant_logit */
    bool maskless;
} mutant_step;

typedef struct mutant_buffer {
    const emu_allocation *device;
    uint8_t *before, *before_known; /* known: bytes that are initialised, as bits */
    uint8_t *after;                 /* what the unchanged kernel leaves; NULL: not written */
    uint64_t compared;              /* bytes from the start */
} mutant_buffer;

typedef struct mutant_input {
    mcc_step head;
    int spare;
    mutant_buffer *scratch; /* the last one, or NULL */
    bool scratch_counts;    /* what is left there is compared as well */
    int n_buffers;
    mutant_buffer buffers[MUTANT_MAX_BUFFERS];
    uint64_t params[MUTANT_MAX_BUFFERS + 2];
    emu_memory *memory;
    uint64_t limit;        /* of instructions a warp executes */
    emu_counters counters; /* of the unchanged kernel */
} mutant_input;

static inline float mutant_float(int64_t row, bool odd, float scale) {
    static const float odd_values[] = {0,        -0.0f,     1e-30f, -1e-30f,  0x1p-149f, 1e30f,
                                       -1e30f,   200,       -200,   88.5f,    -104,      -87.5f,
                                       INFINITY, -INFINITY, NAN,    0x1p-105f};
    if (!odd)
        return cpu_random_float(scale);
    if (row % 16 == 8)
        return 0;
    if (row % 16 == 7 && cpu_random() % 8 == 0)
        return NAN;
    if (row % 8 == 4)
        return cpu_random_float(cpu_random() % 4 ? 1e12f : 1);
    if (row % 8 == 0)
        return cpu_random_float(40);
    if (row % 4 == 1)
        return cpu_random() % 8 ? cpu_random_float(2) : odd_values[cpu_random() % 12];
    if (row % 4 == 2)
        return cpu_random_float(0x1p-104f);
    return cpu_random() % 16 ? cpu_random_float(2) : odd_values[cpu_random() % 16];
}

/* Every fourth row is near to even, of very near ones and NaNs, of few different ones, and with one
 * in 4096 far above the others and one far below. The last ones are elsewhere in each row, so that
 * one that a lane misses, or takes for another, is the greatest in some row. */
static inline float mutant_logit(int64_t row, int64_t column) {
    int64_t place = column % 4096 % 1024 % 4 + column % 4096 / 1024 * 4; /* of a lane's 16 */
    int64_t lane = column % 1024 / 4, here = row / 4 % 16, r = row * 37 % 27;
    float x = cpu_random_float(1);
    switch (row % 4) {
    case 0:
        return x;
    case 1:
        return cpu_random() % 8 ? -1.25f - (float)(cpu_random() % 16) * 0x1p-12f : NAN;
    case 2:
        return 4 * rintf(8 * x);
    default:
        return lane != r ? x : place == here ? 9 : place == (here + 5) % 16 ? -60 : x;
    }
}

/* Rows of a buffer, by its type. */
static inline void mutant_fill_rows(const ir_type *type, int64_t rows, const mutant_step *s,
                                    uint8_t *at) {
    int64_t bytes, k = graph_row(type, &bytes);
    float *row = malloc((size_t)k * 4);
    for (int d = type->rank - 2; d > 0; d--) {
        rows *= type->dims[d].c;
    }
    for (int64_t r = 0; r < rows; r++, at += bytes) {
        for (int64_t c = 0; c < k; c++) {
            row[c] = s->logits ? mutant_logit(r, c) : mutant_float(r, s->odd, s->loud ? 100 : 1);
            if (s->odd && r % 4 == 3 && c == 0) /* behind the last column of the row before */
                row[c] = INFINITY;
            if (s->spiky)
                row[c] *= r % 2 ? 0x1p-114f : (c + 5 * r + r / 8) % 32 == 0 ? 4000 : 1;
            if (type->encoding && !isfinite(row[c]))
                row[c] = 3;
            float f = row[c];
            int32_t index = (int32_t)(cpu_random() % VOCAB);
            uint16_t half = type->dtype == IR_F16 ? ir_f32_to_f16(f) : ir_f32_to_bf16(f);
            if (type->encoding)
                continue;
            if (s->odd && cpu_random() % 4 == 0)
                index = cpu_random() % 2 ? VOCAB : -1;
            if (type->dtype == IR_F32)
                memcpy(at + 4 * c, &f, 4);
            else if (type->dtype == IR_I32)
                memcpy(at + 4 * c, &index, 4);
            else
                memcpy(at + 2 * c, &half, 2);
        }
        if (type->encoding)
            ck_assert(ir_encoding_encode_row(type->encoding, row, k, at));
    }
    free(row);
}

/* A step block with room for MUTANT_TABLES entries of page tables. */
static inline graph_block *mutant_block_create(void) {
    return aligned_alloc(64, (offsetof(graph_block, tables) + MUTANT_TABLES * 4 + 63) / 64 * 64);
}

static inline int32_t *mutant_tables(graph_block *b) {
    return (int32_t *)((char *)b + b->head.page_tables);
}

static inline void mutant_store_kv(ir_dtype dtype, float f, const emu_allocation *pool,
                                   int64_t at) {
    uint16_t half = ir_f32_to_f16(f);
    uint8_t byte = (uint8_t)(int)(f * 60); /* as f8e4m3 any magnitude */
    size_t size = (size_t)ir_dtype_bits(dtype) / 8;
    if (dtype == IR_F8E4M3 && (byte & 0x7f) == 0x7f)
        byte--; /* no NaN */
    if (ir_kv_quantized(dtype))
        pool->data[at] = byte;
    else
        memcpy(pool->data + at, dtype == IR_F16 ? (void *)&half : (void *)&f, size);
    emu_memory_mark(pool, pool->base + (uint64_t)at, size);
}

/* Finite numbers at positions below each sequence's length; elsewhere nothing was written. loud:
 * every other range of positions has small ones, so that where the others are seen too these have
 * no weight. */
static inline void mutant_fill_pool(const ir_kv_group *kv, int group, graph_block *b, bool loud,
                                    const emu_allocation *pool) {
    int64_t size = ir_dtype_bits(kv->dtype) / 8, dim = kv->head_dim;
    int64_t page_bytes = ir_kv_page_bytes(kv);
    for (int s = 0; s < b->head.S; s++)
        for (int p = 0; p < b->arrays[4][s]; p++) {
            int32_t number = mutant_tables(b)[(group * b->head.S + s) * b->head.P + p / 16];
            int64_t page = number * page_bytes;
            for (int64_t i = 0; number >= 0 && i < 2 * kv->heads * dim; i++) {
                int64_t h = i / dim % kv->heads, c = i % dim;
                int64_t at = i < kv->heads * dim
                                 ? (h * dim + c) * 16 + p % 16
                                 : kv->heads * dim * 16 + (h * 16 + p % 16) * dim + c;
                float f = cpu_random_float(loud && p / 256 % 2 == 0 ? 0.02f : 2);
                mutant_store_kv(kv->dtype, f, pool, page + at * size);
                if (ir_kv_quantized(kv->dtype) && c == 0) { /* the head's scale behind all codes */
                    float scale = (float)(1 + cpu_random() % 64) / (kv->dtype == IR_I8 ? 64 : 2);
                    mutant_store_kv(IR_F16, scale, pool,
                                    page + 2 * kv->heads * dim * 16 + (i / dim * 16 + p % 16) * 2);
                }
            }
        }
}

/* Tables of another shape; where that has more sequences, each is one token of the step's. */
static inline void mutant_reshape_tables(graph_block *b, int n_seqs, int pages, int groups,
                                         bool lacking) {
    int n = groups * n_seqs * pages;
    ck_assert_int_le(n, MUTANT_TABLES);
    for (int i = 0; i < n; i++)
        mutant_tables(b)[i] = i * 7 % (GRAPH_PAGES * GRAPH_MAX_SEQS - MUTANT_MAX_SEQS);
    for (int q = 0; b->head.S < n_seqs && q < n_seqs; q++) {
        b->arrays[2][q] = q;
        b->arrays[3][q + 1] = q + 1;
        b->arrays[4][q] = b->arrays[1][q] + 1;
    }
    for (int i = 0; i < groups * n_seqs; i++) { /* the last page is shared with nobody */
        int q = i % n_seqs, last = (b->arrays[4][q] - 1) / 16;
        if (last < pages)
            mutant_tables(b)[i * pages + last] = GRAPH_PAGES * GRAPH_MAX_SEQS - 1 - q;
    }
    for (int g = 0; lacking && g < groups; g++)
        mutant_tables(b)[(g * n_seqs + 2) * pages + 514] = -1;
    b->head.S = n_seqs;
    b->head.P = pages;
}

static inline void mutant_fill_block(const mutant_step *s, int groups, int64_t window, bool odd,
                                     graph_block *b) {
    int32_t ids[512], positions[512], rows[512], offsets[GRAPH_MAX_SEQS + 1] = {0};
    int32_t slots[GRAPH_MAX_SEQS], T = 0;
    /* Every kind of choice: greedy in two ways, of all, within each limit, within all. */
    static const ir_interp_sampling kinds[] = {
        {.temperature = 1, .top_p = 0.7f},
        {.temperature = 2, .top_p = 1, .sum = true},
        {.temperature = 0.8f, .top_p = 1, .top_k = 500},
        {.temperature = 0.01f, .top_p = 0.8f, .top_k = 90, .min_p = 0.01f, .sum = true},
        {.temperature = 0.01f, .top_p = 0.7f, .top_k = 5000},
        {.temperature = 0.5f, .top_p = 1, .min_p = 0.4f},
        {.temperature = 0, .top_p = 1, .sum = true},
        {.temperature = 1, .top_p = 1, .top_k = 1},
        {.temperature = 1, .top_p = 1, .min_p = 1},
        {.temperature = 1, .top_p = 0.9f, .top_k = 3000},
        {.temperature = 0.7f, .top_p = 0.95f, .top_k = 100000, .sum = true},
        {.temperature = 1, .top_p = 0.5f, .min_p = 1},
        {.temperature = 0.1f, .top_p = 1e-30f},
        {.temperature = 5, .top_p = 1, .top_k = 40},
        {.temperature = 5, .top_p = 0.01f},
        {.temperature = 3, .top_p = 0.8f, .top_k = 12},
        {.temperature = 2, .top_p = 0.02f, .min_p = 0.9f}};
    ir_interp_sampling sampling[512];
    bool many = s->n_seqs > GRAPH_MAX_SEQS;
    for (int q = 0; q < (many ? 1 : s->n_seqs); q++) {
        slots[q] = q;
        for (int t = 0; t < (many ? s->n_seqs : s->seqs[q].tokens); t++, T++) {
            ids[T] = (int32_t)(cpu_random() % VOCAB);
            positions[T] = s->seqs[q].start + (s->spread ? t * 7 % 16 * 16 + t % 7 : t);
            if (many && T == 20)
                positions[T] = s->pages * 16 + 3;
            else if (s->spread && (T == 3 || s->seqs[q].tokens == 2))
                positions[T] = t == 1 ? s->seqs[q].start : 5;
            else if (s->spread && s->seqs[q].start && UINT32_C(0x88444200) >> T & 1)
                positions[T] = s->seqs[q].start - 1;
            rows[T] = T;
            sampling[T] = kinds[(uint32_t)T % (s->logits ? sizeof kinds / sizeof *kinds : 8)];
            sampling[T].seed = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(T + 1);
            sampling[T].position = 1000 + T;
            if (odd && T % 3 == 1)
                ids[T] = T % 2 ? VOCAB : -1;
        }
        offsets[q + 1] = T;
    }
    ir_interp_step step = {.T = T,
                           .S = many ? 1 : s->n_seqs,
                           .R = T,
                           .token_ids = ids,
                           .positions = positions,
                           .seq_offsets = offsets,
                           .seq_slots = slots,
                           .output_rows = rows,
                           .sampling = sampling};
    graph_fill_block(&step, groups, b);
    for (int q = 0; s->spread && !many && q < s->n_seqs; q++)
        b->arrays[4][q] = s->seqs[q].start + (s->seqs[q].tokens == 2 ? 1 : 256);
    if (s->pages)
        mutant_reshape_tables(b, s->n_seqs, s->pages, groups, s->lacking);
    for (int i = 0; window && i < groups * s->n_seqs * b->head.P; i++) {
        int q = i / b->head.P % s->n_seqs, p = i % b->head.P;
        int32_t first = INT32_MAX;
        for (int t = b->arrays[3][q]; t < b->arrays[3][q + 1]; t++)
            first = b->arrays[1][t] < first ? b->arrays[1][t] : first;
        if ((p + 1) * 16 <= first + 1 - window)
            mutant_tables(b)[i] = -1;
    }
    for (uint32_t i = 0; !s->odd && !s->maskless && i < sizeof b->masks / sizeof *b->masks; i++) {
        b->head.token_masks = offsetof(graph_block, masks);
        b->masks[i] = (i + 1) * UINT32_C(2654435761);
    }
}

static inline mutant_buffer *mutant_buffer_add(mutant_input *in, uint64_t bytes, bool known,
                                               bool written) {
    ck_assert_int_lt(in->n_buffers, MUTANT_MAX_BUFFERS);
    mutant_buffer *b = &in->buffers[in->n_buffers++];
    *b = (mutant_buffer){.device = emu_memory_alloc(in->memory, bytes ? bytes : 1, false),
                         .compared = bytes};
    ck_assert_ptr_nonnull(b->device);
    memset(b->device->data, 0xff, b->device->bytes);
    if (known)
        emu_memory_mark(b->device, b->device->base, bytes);
    if (written) {
        b->after = malloc(bytes + 1);
        b->before = malloc(bytes + 1);
        b->before_known = malloc(bytes / 8 + 2);
        ck_assert(b->after && b->before && b->before_known);
    }
    return b;
}

/* One argument's memory. */
static inline void mutant_arg(const mutant_graph *g, const cg_launch *l, int a,
                              const mutant_step *s, graph_block *block, mutant_input *in) {
    const cg_arg *arg = &g->program->kernels[l->kernel]->args[a];
    const mcc_arg_entry *entry = &g->program->args[l->first_arg + a];
    const mcc_step *h = &in->head;
    if (arg->kind == CG_ARG_STEP) {
        in->params[1 + a] =
            in->buffers[0].device->base + (entry->index == MCC_STEP_TOKEN_IDS   ? h->token_ids
                                           : entry->index == MCC_STEP_POSITIONS ? h->positions
                                                                                : h->output_rows);
        return;
    }
    mutant_buffer *b;
    if (arg->kind == CG_ARG_KV) {
        const ir_kv_group *kv = &arg->kv;
        bool append = graph_stores_kv(g->program->kernels[l->kernel]);
        b = mutant_buffer_add(in, (uint64_t)ir_kv_page_bytes(kv) * GRAPH_PAGES * GRAPH_MAX_SEQS,
                              append, append);
        if (!append)
            mutant_fill_pool(kv, arg->kv_group, block, s->loud, b->device);
        if (!append && (s->odd || s->lacking)) /* read in place of pages that there are not */
            emu_memory_mark(b->device, b->device->base, (uint64_t)ir_kv_page_bytes(kv));
    } else if (arg->kind == CG_ARG_WEIGHT) {
        const cg_weight *w = &g->program->weights[entry->index];
        b = mutant_buffer_add(in, w->bytes, true, false);
        memcpy(b->device->data, g->weights + w->offset, w->bytes);
    } else {
        uint64_t bytes = (uint64_t)ir_dim_eval(ir_type_bytes(&arg->type), h->T, h->S, h->R);
        b = mutant_buffer_add(in, bytes, !arg->written, arg->written);
        if (!arg->written)
            mutant_fill_rows(&arg->type, ir_dim_eval(arg->type.dims[0], h->T, h->S, h->R), s,
                             b->device->data);
    }
    in->params[1 + a] = b->device->base;
}

/* Scratch memory that begins as the runtime gives it, or, for the second function of two, as the
 * first one has just left it. */
static inline void mutant_scratch_begin(mutant_input *in, bool second) {
    mutant_buffer *b = in->scratch;
    if (!b)
        return;
    if (!second) {
        memset(b->device->data, 0xff, b->device->bytes);
        memset(b->device->data, 0, MCC_CUDA_COUNTER_BYTES);
        memset(b->device->initialised, 0, (b->device->bytes + 7) / 8);
        emu_memory_mark(b->device, b->device->base, MCC_CUDA_COUNTER_BYTES);
    }
    memcpy(b->before, b->device->data, b->device->bytes);
    memcpy(b->before_known, b->device->initialised, (b->device->bytes + 7) / 8);
}

/* Of the step block only what the step has may be read. */
static inline void mutant_mark_block(const mutant_buffer *b, const mcc_step *h, int groups) {
    const struct {
        uint32_t at;
        int32_t n;
    } arrays[] = {{0, sizeof *h / 4},
                  {h->token_ids, h->T},
                  {h->positions, h->T},
                  {h->token_seqs, h->T},
                  {h->seq_offsets, h->S + 1},
                  {h->context_lens, h->S},
                  {h->output_rows, h->R},
                  {h->page_tables, groups * h->S * h->P},
                  {h->sampling, h->R * (int)(sizeof(mcc_step_sampling) / 4)},
                  {h->token_masks, h->token_masks ? sizeof((graph_block *)0)->masks / 4 : 0}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        emu_memory_mark(b->device, b->device->base + arrays[i].at, (uint64_t)arrays[i].n * 4);
}

/* Inputs of all functions of a kernel; the most scratch memory that one wants for a row, and for a
 * row and range of positions. */
static inline mutant_input *mutant_input_create(const mutant_graph *g, const cg_launch *l,
                                                const mutant_step *s, uint64_t row_scratch,
                                                uint64_t range_scratch) {
    const cg_kernel *kernel = g->program->kernels[l->kernel];
    mutant_input *in = calloc(1, sizeof *in);
    graph_block *block = mutant_block_create();
    bool append = graph_stores_kv(kernel), pages = false;
    for (int a = 0; a < kernel->n_args; a++)
        pages |= kernel->args[a].kind == CG_ARG_KV;
    mutant_fill_block(s, g->module->n_kv_groups, append ? 0 : kernel->attention.window, s->odd,
                      block);
    for (int i = 0; append && s->odd && i < block->head.T; i++) {
        if (i % 4 == 1)
            block->arrays[1][i] = i % 8 == 1 ? GRAPH_PAGES * 16 : -1;
        if (i % 4 == 2)
            mutant_tables(
                block)[(int)block->arrays[2][i] * block->head.P + block->arrays[1][i] / 16] = -1;
    }
    if (kernel->anchor == CG_ANCHOR_ATTENTION && s->odd) /* pages that the step does not have */
        for (int page = 2; page < 18; page += 15)
            mutant_tables(block)[(block->head.S - 1) * block->head.P + page] = -1;
    for (int i = 0; !pages && s->odd && i < block->head.T; i++) /* far angles of rope */
        block->arrays[1][i] = i % 2 ? (int32_t)(cpu_random() >> (cpu_random() % 24 + 1)) : 7 * i;
    in->memory = g->memory;
    in->head = block->head;
    in->spare = s->spare;
    in->scratch_counts = kernel->anchor == CG_ANCHOR_SAMPLE;
    uint64_t bytes = block->head.page_tables +
                     (uint64_t)(g->module->n_kv_groups * block->head.S * block->head.P) * 4;
    mutant_buffer *b = mutant_buffer_add(in, bytes, false, false);
    memcpy(b->device->data, block, bytes);
    mutant_mark_block(b, &block->head, g->module->n_kv_groups);
    in->params[0] = b->device->base;
    for (int a = 0; a < kernel->n_args; a++)
        mutant_arg(g, l, a, s, block, in);
    row_scratch +=
        (uint64_t)((in->head.P * 16 + MCC_CUDA_RANGE - 1) / MCC_CUDA_RANGE) * range_scratch;
    if (row_scratch) {
        in->scratch = mutant_buffer_add(
            in, MCC_CUDA_COUNTER_BYTES + (uint64_t)in->head.T * row_scratch, false, true);
        in->params[1 + kernel->n_args] = in->scratch->device->base;
    }
    for (int i = 0; i < in->n_buffers; i++)
        if (in->buffers[i].after) {
            b = &in->buffers[i];
            memcpy(b->before, b->device->data, b->device->bytes);
            memcpy(b->before_known, b->device->initialised, (b->device->bytes + 7) / 8);
        }
    free(block);
    return in;
}

static inline void mutant_input_destroy(mutant_input *in) {
    for (int i = 0; i < in->n_buffers; i++) {
        free(in->buffers[i].before);
        free(in->buffers[i].before_known);
        free(in->buffers[i].after);
        emu_memory_free(in->memory, in->buffers[i].device->base);
    }
    free(in);
}

/* --- launches ------------------------------------------------------------------------------------
 */

static inline uint32_t mutant_blocks(const mcc_cuda_grid *grid, const mutant_input *in) {
    if (!grid->mult)
        return 1;
    const mcc_step *s = &in->head;
    int64_t dim = grid->dim.c + grid->dim.t * (s->T + in->spare) + grid->dim.s * s->S +
                  grid->dim.r * (s->R + in->spare);
    return (uint32_t)(grid->mult * ((dim + grid->div - 1) / grid->div));
}

/* Runs the module's function from the input's beginning. counters may be NULL. False with the
 * emulator's error. */
static inline bool mutant_run(const cg_cuda_function *f, ptx_module *module, mutant_input *in,
                              uint64_t limit, uint64_t seed, emu_counters *counters, char *error,
                              size_t capacity) {
    const ptx_function *function = ptx_module_function(module, f->name);
    ck_assert_ptr_nonnull(function);
    for (int i = 0; i < in->n_buffers; i++)
        if (in->buffers[i].after) {
            const mutant_buffer *b = &in->buffers[i];
            memcpy(b->device->data, b->before, b->device->bytes);
            memcpy(b->device->initialised, b->before_known, (b->device->bytes + 7) / 8);
        }
    emu_launch launch = {.function = function,
                         .grid = {mutant_blocks(&f->x, in), mutant_blocks(&f->y, in), 1},
                         .block = {f->threads, 1, 1},
                         .shared_bytes = f->shared_bytes,
                         .params = in->params,
                         .memory = in->memory,
                         .checks = EMU_CHECK_ALL,
                         .schedule_seed = seed,
                         .instruction_limit = limit,
                         .threads = 1,
                         .counters = counters};
    return emu_run(&launch, error, capacity);
}

/* Keeps what the unchanged kernel left, and how long it may take. */
static inline void mutant_run_clean(const cg_cuda_function *f, ptx_module *module,
                                    mutant_input *in) {
    char error[1024];
    for (in->limit = 2048; in->limit < UINT64_C(1) << 24; in->limit *= 2)
        if (mutant_run(f, module, in, in->limit, 0, NULL, error, sizeof error))
            break;
    in->counters = (emu_counters){0};
    if (!mutant_run(f, module, in, 0, 0, &in->counters, error, sizeof error))
        ck_abort_msg("%s, unchanged: %s", f->name, error);
    in->limit *= 2;
    if (in->scratch) /* partial results are nobody's business, but one of two functions' are, and
                        those of sampling: a token says little of how it was chosen */
        in->scratch->compared = f->first_of_two || in->scratch_counts ? in->scratch->device->bytes
                                                                      : MCC_CUDA_COUNTER_BYTES;
    for (int i = 0; i < in->n_buffers; i++)
        if (in->buffers[i].after)
            memcpy(in->buffers[i].after, in->buffers[i].device->data, in->buffers[i].compared);
}

/* More bytes of global memory, or more of shared memory's time, than the unchanged kernel needs. */
static inline bool mutant_more_traffic(const mutant_input *in, const emu_counters *c) {
    const emu_counters *clean = &in->counters;
    return c->global_load_bytes > clean->global_load_bytes ||
           c->global_store_bytes > clean->global_store_bytes ||
           c->async_bytes > clean->async_bytes || c->dram_read_sectors > clean->dram_read_sectors ||
           c->shared_wavefronts > clean->shared_wavefronts;
}

/* More tensor core operations, async copies or instructions of warps at all; of those one that its
 * guard turns off counts like any other, so that only what runs because a branch went elsewhere is
 * more. */
static inline bool mutant_more_work(const mutant_input *in, const emu_counters *c) {
    return c->warp_instructions > in->counters.warp_instructions ||
           c->mma_ops > in->counters.mma_ops || c->async_copies > in->counters.async_copies;
}

static inline bool mutant_same_result(const mutant_input *in) {
    for (int i = 0; i < in->n_buffers; i++)
        if (in->buffers[i].after &&
            memcmp(in->buffers[i].after, in->buffers[i].device->data, in->buffers[i].compared) != 0)
            return false;
    return true;
}

#endif

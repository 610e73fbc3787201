/* For tests: a module through the whole pipeline, compiled for every processor level that this
 * machine has, and run beside the interpreter: each kernel's results are compared within the bounds
 * of error_bound.h right after it ran, and all levels must agree bit for bit. Included by one test
 * file each. */
#ifndef MCC_TESTS_COMPILED_GRAPH_H
#define MCC_TESTS_COMPILED_GRAPH_H

#include "codegen/artifact/program.h"
#include "codegen/error_bound.h"
#include "cpu_kernel.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

enum { GRAPH_PAGES = 48, GRAPH_MAX_SEQS = 4 };

typedef struct compiled_graph {
    ir_module *module;
    ir_arena *arena;
    ir_diag diag;
    cg_program_list *program;
    cpu_code code;
    uint8_t *weights;
    uint8_t *pools[CPU_MAX_TARGETS][4]; /* per level and KV group */
    ir_interp *interp;
    bounds *bounds;
    double worst;      /* largest error / bound so far */
    const char *label; /* for messages */
    bool end_to_end;   /* kernels read what kernels wrote, nothing is compared */
    bool only_count;   /* mismatches, instead of failing at the first */
    int mismatches;
} compiled_graph;

/* --- weights -----------------------------------------------------------------------------------
 */

static inline void graph_random_half(uint8_t *at, float scale) {
    uint16_t h = ir_f32_to_f16(cpu_random_float(scale));
    if (cpu_random() % 16 == 0)
        h = (uint16_t)(cpu_random() % 0x400); /* subnormal */
    memcpy(at, &h, 2);
}

/* Any bytes are codes; scales and offsets are numbers of a sensible size. */
static inline void graph_random_blocks(const ir_encoding *e, uint8_t *data, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)cpu_random();
    for (int64_t at = 0; at < bytes; at += e->block_bytes) {
        if (e->code == IR_CODE_E4M3) {
            float f = ldexpf(1 + cpu_random_float(0.5f), -8 - (int)(cpu_random() % 4));
            memcpy(data + at, &f, 4);
            for (int i = 4; i < e->block_bytes; i++)
                if ((data[at + i] & 0x7f) == 0x7f) /* no NaN is a code */
                    data[at + i] ^= 1;
            continue;
        }
        float scale = e->super_group ? 0.0005f : e->bits == 8 ? 0.005f : 0.05f;
        graph_random_half(data + at + (e->id == IR_ENC_Q6_K ? 208 : 0), scale);
        if (e->offset != IR_OFFSET_NONE)
            graph_random_half(data + at + 2, e->super_group ? 0.005f : 0.5f);
    }
}

/* Gives every weight without data random data in the module's arena. */
static inline void graph_random_weights(ir_module *m) {
    for (int i = 0; i < m->n_weights; i++) {
        ir_weight *w = &m->weights[i];
        if (w->data)
            continue;
        int64_t n = ir_type_elements(&w->type).c;
        w->bytes = ir_type_bytes(&w->type).c;
        uint8_t *data = ir_arena_array(m->arena, (size_t)w->bytes, 1);
        if (w->type.encoding)
            graph_random_blocks(w->type.encoding, data, w->bytes);
        for (int64_t k = 0; !w->type.encoding && k < n; k++) {
            float f = cpu_random() % 64 ? cpu_random_float(1) : 0;
            uint16_t h = w->type.dtype == IR_F16 ? ir_f32_to_f16(f) : ir_f32_to_bf16(f);
            if (w->type.dtype == IR_F32)
                memcpy(data + 4 * k, &f, 4);
            else
                memcpy(data + 2 * k, &h, 2);
        }
        w->data = data;
    }
}

/* --- making ------------------------------------------------------------------------------------
 */

static inline void graph_fail(const compiled_graph *g, const char *what) {
    ir_diag_print(&g->diag, stderr);
    if (g->module)
        ir_print_module(g->module, stderr);
    ck_abort_msg("%s: %s", g->label, what);
}

static inline uint8_t *graph_pack_weights(const cg_program_list *p) {
    uint8_t *bytes = aligned_alloc(64, (size_t)(p->weight_bytes + 127) / 64 * 64);
    for (int i = 0; i < p->n_weights; i++) {
        const cg_weight *w = &p->weights[i];
        uint8_t *at = bytes + w->offset;
        if (w->type.layout) {
            cg_cpu_pack_tiles(&w->type, w->n_parts, w->sources, w->rows, 0,
                              cg_cpu_packed_tiles(&w->type), at);
            continue;
        }
        int64_t all = 0;
        for (int k = 0; k < w->n_parts; k++)
            all += w->rows[k];
        for (int k = 0; k < w->n_parts; k++) {
            size_t part = (size_t)((int64_t)w->bytes / all * w->rows[k]);
            memcpy(at, w->sources[k], part);
            at += part;
        }
    }
    return bytes;
}

/* Takes the module over. */
static inline compiled_graph *graph_compile(ir_module *module, const pass_options *options,
                                            const char *label) {
    compiled_graph *g = calloc(1, sizeof *g);
    g->module = module;
    g->label = label;
    g->arena = ir_arena_create();
    pass_context context = {
        .module = module, .diag = &g->diag, .options = options, .target = cg_cpu_pass_target()};
    if (!ir_verify(module, &g->diag) || !pass_run_pipeline(&context, NULL, NULL) ||
        !ir_verify(module, &g->diag))
        graph_fail(g, "the pipeline fails");
    g->program = cg_program_create(module, &cg_cpu_backend, g->arena, &g->diag);
    if (!g->program)
        graph_fail(g, "the kernels cannot be lowered");
    g->code = cpu_load(g->program->kernels, g->program->n_kernels);
    g->weights = graph_pack_weights(g->program);
    for (int t = 0; t < g->code.n_targets; t++)
        for (int k = 0; k < module->n_kv_groups; k++) {
            const ir_kv_group *kv = &module->kv_groups[k];
            size_t page = (size_t)ir_kv_page_bytes(kv);
            size_t bytes = page * (size_t)kv->layers * GRAPH_PAGES * GRAPH_MAX_SEQS;
            g->pools[t][k] = aligned_alloc(64, (bytes + 63) / 64 * 64);
            memset(g->pools[t][k], 0xff, bytes); /* NaNs: what is not stored must not be read */
        }
    g->interp = ir_interp_create(module, &g->diag);
    if (!g->interp)
        graph_fail(g, "the interpreter refuses it");
    g->bounds = bounds_create(module);
    ir_interp_set_watch(g->interp, bound_watch, g->bounds);
    return g;
}

static inline void graph_destroy(compiled_graph *g) {
    for (int t = 0; t < CPU_MAX_TARGETS; t++)
        for (int k = 0; k < 4; k++)
            free(g->pools[t][k]);
    free(g->weights);
    cpu_unload(&g->code);
    bounds_destroy(g->bounds);
    ir_interp_destroy(g->interp);
    ir_module_destroy(g->module);
    ir_arena_destroy(g->arena);
    ir_diag_clear(&g->diag);
    free(g);
}

/* --- running -----------------------------------------------------------------------------------
 */

typedef struct graph_block {
    mcc_step head;
    int32_t arrays[6][512];
    mcc_step_sampling sampling[512];
    uint32_t masks[1 << 15]; /* of tokens, for tests that fill them */
    int32_t tables[4 * GRAPH_MAX_SEQS * GRAPH_PAGES];
} graph_block;

/* The step block; slot s has the pages s, s + GRAPH_MAX_SEQS, … of each group, last first. */
static inline void graph_fill_block(const ir_interp_step *s, int groups, graph_block *b) {
    *b = (graph_block){.head = {.magic = MCC_STEP_MAGIC, .version = MCC_STEP_VERSION}};
    mcc_step *h = &b->head;
    ck_assert(s->T <= 512 && s->R <= 512 && s->S <= GRAPH_MAX_SEQS);
    h->bytes = sizeof *b;
    h->T = s->T, h->S = s->S, h->R = s->R, h->G = groups, h->P = GRAPH_PAGES, h->world = 1;
    uint32_t at = offsetof(graph_block, arrays), size = sizeof b->arrays[0];
    h->token_ids = at, h->positions = at + size, h->token_seqs = at + 2 * size;
    h->seq_offsets = at + 3 * size, h->context_lens = at + 4 * size, h->output_rows = at + 5 * size;
    h->page_tables = offsetof(graph_block, tables);
    memcpy(b->arrays[0], s->token_ids, (size_t)s->T * 4);
    memcpy(b->arrays[1], s->positions, (size_t)s->T * 4);
    memcpy(b->arrays[3], s->seq_offsets, (size_t)(s->S + 1) * 4);
    memcpy(b->arrays[5], s->output_rows, (size_t)s->R * 4);
    h->sampling = s->sampling ? offsetof(graph_block, sampling) : 0;
    for (int r = 0; s->sampling && r < s->R; r++)
        b->sampling[r] = (mcc_step_sampling){.temperature = s->sampling[r].temperature,
                                             .top_p = s->sampling[r].top_p,
                                             .min_p = s->sampling[r].min_p,
                                             .top_k = s->sampling[r].top_k,
                                             .seed = s->sampling[r].seed,
                                             .position = s->sampling[r].position,
                                             .sum = s->sampling[r].sum};
    for (int q = 0; q < s->S; q++) {
        for (int t = s->seq_offsets[q]; t < s->seq_offsets[q + 1]; t++) {
            b->arrays[2][t] = q;
            b->arrays[4][q] = s->positions[t] + 1;
        }
        for (int g = 0; g < groups; g++)
            for (int p = 0; p < GRAPH_PAGES; p++)
                b->tables[(g * s->S + q) * GRAPH_PAGES + p] =
                    (GRAPH_PAGES - 1 - p) * GRAPH_MAX_SEQS + s->seq_slots[q];
    }
}

static inline void *graph_arg(const compiled_graph *g, int target, const mcc_arg_entry *a,
                              const graph_block *b, uint8_t *arena) {
    const mcc_step *h = &b->head;
    switch (a->kind) {
    case MCC_ARG_BUFFER:
        return arena + ir_dim_eval(g->program->buffers[a->index].offset, h->T, h->S, h->R);
    case MCC_ARG_WEIGHT:
        return g->weights + g->program->weights[a->index].offset;
    case MCC_ARG_KV: {
        const ir_kv_group *kv = &g->module->kv_groups[a->index];
        int64_t page = ir_kv_page_bytes(kv);
        return g->pools[target][a->index] + a->layer * page * GRAPH_PAGES * GRAPH_MAX_SEQS;
    }
    default:
        return (void *)(uintptr_t)b->arrays[a->index == MCC_STEP_TOKEN_IDS   ? 0
                                            : a->index == MCC_STEP_POSITIONS ? 1
                                                                             : 5];
    }
}

/* The sums that a row of a8 carries beside its codes. */
static inline void graph_check_a8(const compiled_graph *g, const uint8_t *row, int64_t k) {
    for (int64_t group = 0; group < k / 32; group++) {
        int32_t sums[2] = {0}, stored[2];
        float scale, scaled;
        for (int i = 0; i < 32; i++)
            sums[i / 16] += (int8_t)row[group * 32 + i];
        memcpy(&scale, row + k + group * 4, 4);
        memcpy(&scaled, row + k + k / 32 * 4 + group * 4, 4);
        memcpy(stored, row + k + k / 32 * 8 + group * 8, 8);
        if (memcmp(sums, stored, 8) != 0 || scaled != scale * (float)(sums[0] + sums[1]))
            ck_abort_msg("%s: wrong sums beside a8 codes", g->label);
    }
}

/* A row of a kernel's result as memory holds it. */
static inline int64_t graph_row(const ir_type *type, int64_t *row_bytes) {
    int64_t k = type->rank > 1 ? type->dims[type->rank - 1].c : 1;
    *row_bytes = type->encoding ? ir_encoding_row_bytes(type->encoding, k)
                                : k * (ir_dtype_bits(type->dtype) / 8);
    return k;
}

/* A kernel's result against the interpreter's. */
static inline void graph_compare(compiled_graph *g, const ir_op *op, int result, const void *got,
                                 const char *target) {
    const ir_type *type = &op->results[result]->type;
    const bound_value *want = bound_result(g->bounds, op, result);
    int64_t row_bytes, k = graph_row(type, &row_bytes);
    float *row = malloc((size_t)k * 4);
    for (int64_t i = 0; i < want->count; i++) {
        if (i % k == 0 && type->encoding && type->encoding->id == IR_ENC_A8)
            graph_check_a8(g, (const uint8_t *)got + i / k * row_bytes, k);
        if (i % k == 0)
            bound_decode(type, (const uint8_t *)got + i / k * row_bytes, k, row, NULL);
        double e = fabs((double)row[i % k] - (double)want->value[i]), bound = want->error[i];
        if (!isfinite(bound)) /* not an assertion: Check writes each to a file */
            ck_abort_msg("%s: %s: no finite bound", g->label, ir_op_label(op));
        if (!(e <= bound) && ++g->mismatches && !g->only_count) {
            ir_print_op(op, stderr);
            ck_abort_msg("%s: %s: kernel %s, result %d, row %lld of %lld, column %lld of %lld: "
                         "%.9g, the interpreter has %.9g: off by %g, at most %g",
                         g->label, target, ir_op_label(op), result, (long long)(i / k),
                         (long long)(want->count / k), (long long)(i % k), (long long)k,
                         (double)row[i % k], (double)want->value[i], e, bound);
        }
        if (bound > 0 && e / bound > g->worst)
            g->worst = e / bound;
    }
    free(row);
}

/* Puts the interpreter's value where a kernel left its own. */
static inline void graph_replace(compiled_graph *g, const ir_op *op, int result, void *at) {
    const ir_type *type = &op->results[result]->type;
    const ir_value *yielded = op->body->last->operands[result];
    /* What was quantized, so that codes and scales are the interpreter's. */
    bool quantized = type->encoding && yielded->def && yielded->def->code == IR_OP_QUANTIZE;
    const ir_value *from = bound_source(quantized ? yielded->def->operands[0] : yielded);
    const bound_value *v = &g->bounds->values[from->id];
    int64_t row_bytes, k = graph_row(type, &row_bytes);
    ck_assert(quantized || !type->encoding);
    for (int64_t i = 0; i < v->count; i += k) {
        uint8_t *row = (uint8_t *)at + i / k * row_bytes;
        if (quantized) {
            ck_assert(ir_encoding_encode_row(type->encoding, v->value + i, k, row));
            continue;
        }
        for (int64_t c = 0; c < k; c++) {
            float f = v->value[i + c];
            int32_t number = (int32_t)f;
            uint16_t half = type->dtype == IR_F16 ? ir_f32_to_f16(f) : ir_f32_to_bf16(f);
            if (type->dtype == IR_F32)
                memcpy(row + 4 * c, &f, 4);
            else if (type->dtype == IR_I32)
                memcpy(row + 4 * c, &number, 4);
            else
                memcpy(row + 2 * c, &half, 2);
        }
    }
}

/* Whether a kernel stores keys and values: KV arguments do not say so. */
static inline bool graph_stores_kv(const cg_kernel *kernel) {
    for (int p = 0; p < kernel->n_programs; p++)
        for (int i = 0; i < kernel->programs[p].n_stores; i++)
            if (kernel->programs[p].stores[i].kind == CG_STORE_KV)
                return true;
    return false;
}

/* FNV-1a, by Fowler, Noll and Vo. */
static inline uint64_t graph_hash(const uint8_t *bytes, int64_t n, uint64_t hash) {
    for (int64_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static inline void graph_launch(compiled_graph *g, int t, const cg_launch *l,
                                const graph_block *block, uint8_t *arena, int64_t piece,
                                uint64_t *hash) {
    const mcc_step *h = &block->head;
    void *args[64];
    ck_assert_int_le(l->n_args, 64);
    for (int a = 0; a < l->n_args; a++)
        args[a] = graph_arg(g, t, &g->program->args[l->first_arg + a], block, arena);
    mcc_cpu_call call = {.step = h, .args = args, .T = h->T, .S = h->S, .R = h->R};
    cpu_run(g->code.functions[t][l->kernel], g->program->kernels[l->kernel], &call, piece);
    for (int r = 0, a = l->op->n_operands; r < l->op->n_results && !g->end_to_end; r++)
        if (l->op->results[r]->type.kind != IR_KV) {
            int64_t bytes = ir_dim_eval(ir_type_bytes(&l->op->results[r]->type), h->T, h->S, h->R);
            *hash = graph_hash(args[a], bytes, *hash);
            graph_compare(g, l->op, r, args[a], g->code.targets[t]->name);
            graph_replace(g, l->op, r, args[a++]);
        }
}

/* One step on the interpreter and on every level; kernels run in pieces of `piece` tiles. Each
 * kernel's results are compared, then replaced by the interpreter's; with end_to_end, neither.
 * output (or NULL) gets the first output's rows of the first level. */
static inline void graph_run(compiled_graph *g, const ir_interp_step *step, int64_t piece,
                             float *output) {
    enum { GUARD = 256 };
    const cg_program_list *p = g->program;
    bounds_begin(g->bounds, step);
    if (!g->end_to_end && !ir_interp_run(g->interp, step, &g->diag))
        graph_fail(g, "the interpreter fails");
    if (g->bounds->failure[0])
        graph_fail(g, g->bounds->failure);
    graph_block *block = aligned_alloc(64, (sizeof *block + 63) / 64 * 64);
    graph_fill_block(step, g->module->n_kv_groups, block);
    int64_t bytes = ir_dim_eval(p->arena_bytes, step->T, step->S, step->R);
    uint8_t *first = NULL;
    uint64_t *hashes = calloc((size_t)p->n_launches, sizeof *hashes);
    for (int t = 0; t < g->code.n_targets; t++) {
        uint8_t *arena = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64 + GUARD);
        memset(arena, 0xff, (size_t)bytes + GUARD);
        for (int i = 0; i < p->n_launches; i++) {
            uint64_t hash = 0xcbf29ce484222325u;
            graph_launch(g, t, &p->launches[i], block, arena, piece, &hash);
            ck_assert_msg(!t || hashes[i] == hash, "%s: kernel %s: %s and %s differ", g->label,
                          ir_op_label(p->launches[i].op), g->code.targets[0]->name,
                          g->code.targets[t]->name);
            hashes[i] = hash;
        }
        for (int i = 0; i < GUARD; i++)
            if (arena[bytes + i] != 0xff)
                ck_abort_msg("%s: written beyond the arena", g->label);
        ck_assert_msg(!first || memcmp(first, arena, (size_t)bytes) == 0,
                      "%s: %s and %s leave different bits", g->label, g->code.targets[0]->name,
                      g->code.targets[t]->name);
        if (first)
            free(arena);
        else
            first = arena;
    }
    const cg_output *o = &p->outputs[0];
    if (output)
        memcpy(output, first + ir_dim_eval(p->buffers[o->buffer].offset, step->T, step->S, step->R),
               (size_t)(step->R * o->width) * 4);
    free(hashes);
    free(first);
    free(block);
}

/* Says which levels of the processor this machine cannot run. */
static inline void graph_say_levels(void) {
    int count;
    const cg_cpu_target *all = cg_cpu_targets(&count), *best = cg_cpu_target_find("cpu");
    for (int i = 0; i < count; i++)
        if (!best || all[i].cpu_features & ~best->cpu_features)
            TEST_SKIP_PART("this processor cannot run %s; its kernels are compiled only "
                           "by other tests",
                           all[i].name);
}

/* --- seeds -------------------------------------------------------------------------------------
 */

/* Cases are drawn from this seed; MCC_TEST_SEED sets it. */
static inline uint64_t graph_seed(void) {
    const char *text = getenv("MCC_TEST_SEED");
    return text && *text ? strtoull(text, NULL, 0) : 1;
}

static inline bool graph_case_is_mine(int i) {
    return test_case_is_mine(i);
}

/* What every program of random cases says first: how to repeat it. */
static inline void graph_say_seed(void) {
    const char *shard = getenv("MCC_TEST_SHARD");
    printf("seed %llu, %s%s%s (MCC_TEST_SEED, MCC_TEST_FULL, MCC_TEST_SHARD)\n",
           (unsigned long long)graph_seed(), test_full() ? "all cases" : "sampled",
           shard && *shard ? ", part " : "", shard ? shard : "");
    fflush(stdout);
}

/* A seed of its own for case i, so that each can be run alone. */
static inline void graph_seed_case(int group, int i) {
    cpu_seed = (graph_seed() * 1000003u + (uint64_t)group) * 1000003u + (uint64_t)i;
    for (int k = 0; k < 8; k++)
        cpu_random();
}

#endif

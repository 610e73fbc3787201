/* Row programs: a DAG of scalar operations over the columns of one row, as loops over chunks of 16
 * columns, one loop a stage (codegen/stages.h). Example, rms_norm with a residual:
 *
 *     stage 0   s = load a + load b; keep s; store s; r = reduce(s*s)
 *     between   q = rsqrt(r * 1/n + eps)
 *     stage 1   store s * q * load weight
 */
#include "codegen/cpu/program.h"

#include "codegen/stages.h"

#include <stdlib.h>
#include <string.h>

/* Kept arrays have this many columns of room on both sides, for rotations that are not by a
 * multiple of 16. */
enum { PAD = CG_CPU_LANES };

typedef struct plan {
    const cg_program *program;
    int64_t n_cols;
    cg_stages stages;
    int64_t *kept_at; /* byte offset of the array that keeps a node; -1: none */
    int64_t kept_bytes;
    ir_arena *arena;
} plan;

static int64_t rounded_up(int64_t n, int64_t step) {
    return (n + step - 1) / step * step;
}

/* args may be NULL: then every load counts as one that may not be repeated, which keeps most. */
static plan make_plan(const cg_program *program, int64_t n_cols, const cg_arg *args) {
    int n = program->n_nodes;
    plan p = {.program = program, .n_cols = n_cols, .arena = ir_arena_create()};
    p.stages = cg_stages_of(program, args, p.arena);
    p.kept_at = ir_arena_array(p.arena, (size_t)n + 1, sizeof *p.kept_at);
    for (int i = 0; i < n; i++) {
        p.kept_at[i] = -1;
        if (!p.stages.kept[i])
            continue;
        p.kept_at[i] = p.kept_bytes + PAD * 4;
        p.kept_bytes += (rounded_up(n_cols, CG_CPU_LANES) + 2 * PAD) * 4;
    }
    return p;
}

int64_t cg_cpu_program_scratch(const cg_program *program, int64_t n_cols) {
    if (n_cols <= CG_CPU_UNROLL)
        return 0;
    plan p = make_plan(program, n_cols, NULL);
    ir_arena_destroy(p.arena);
    return rounded_up(p.kept_bytes, 64);
}

/* --- checks ------------------------------------------------------------------------------------
 */

static bool check_node(cg_cpu_emitter *em, const cg_program *program, int index, int64_t n_cols) {
    const cg_node *node = &program->nodes[index];
    if (node->kind == CG_SCALAR && (unsigned)node->op >= CG_N_SCALAR_OPS)
        return cg_cpu_unsupported(em, "unknown scalar operation %d", (int)node->op);
    for (int i = 0; i < cg_node_operands(node); i++)
        if (node->operands[i] < 0 || node->operands[i] >= index)
            return cg_cpu_unsupported(em, "node %d uses node %d, which does not come before it",
                                      index, node->operands[i]);
    switch (node->kind) {
    case CG_INPUT: {
        int parts = em->kernel->anchor == CG_ANCHOR_MATMUL      ? em->kernel->matmul.parts
                    : em->kernel->anchor == CG_ANCHOR_ATTENTION ? 1
                                                                : 0;
        if (node->part < 0 || node->part >= parts)
            return cg_cpu_unsupported(em, "input of part %d, the anchor has %d", node->part, parts);
        return true;
    }
    case CG_LOAD:
        return cg_cpu_check_load(em, &node->access);
    case CG_REDUCE:
        if (n_cols != program->width)
            return cg_cpu_unsupported(em,
                                      "a reduction over rows of %lld columns, of which only "
                                      "%lld are at hand",
                                      (long long)program->width, (long long)n_cols);
        return true;
    case CG_ROTATE:
        if (node->rotate_dims < 2 || node->rotate_dims % 2 || node->rotate_dims > program->width)
            return cg_cpu_unsupported(em, "a rotation of %lld of %lld columns",
                                      (long long)node->rotate_dims, (long long)program->width);
        if (node->rotate_half && n_cols != program->width)
            return cg_cpu_unsupported(em,
                                      "a rotation over rows of %lld columns, of which only "
                                      "%lld are at hand",
                                      (long long)program->width, (long long)n_cols);
        return true;
    default:
        return true;
    }
}

bool cg_cpu_check_program(cg_cpu_emitter *em, const cg_program *program, int64_t n_cols) {
    bool ok = true;
    if (program->width < 1 || program->heads < 1)
        return cg_cpu_unsupported(em, "a program of %lld heads of %lld columns",
                                  (long long)program->heads, (long long)program->width);
    for (int i = 0; i < program->n_nodes; i++)
        if (!check_node(em, program, i, n_cols))
            return false; /* what follows may rest on it */
    for (int i = 0; i < program->n_stores; i++) {
        int values[2], count = cg_store_values(&program->stores[i], values);
        for (int v = 0; v < count; v++)
            if (values[v] < 0 || values[v] >= program->n_nodes)
                return cg_cpu_unsupported(em, "a store of node %d of %d", values[v],
                                          program->n_nodes);
        ok &= cg_cpu_check_store(em, program, &program->stores[i], n_cols);
    }
    return ok;
}

/* --- emission ----------------------------------------------------------------------------------
 */

typedef struct emission {
    cg_cpu_emitter *em;
    const plan *plan;
    const cg_cpu_chunk *chunk;
    LLVMValueRef kept;                      /* base of the kept arrays */
    LLVMValueRef *numbers;                  /* by node */
    LLVMValueRef *accumulators;             /* by node: locals of REDUCE nodes */
    LLVMValueRef *columns[2];               /* by node: vectors of the chunk(s) being emitted */
    LLVMValueRef *page, *slot, *page_valid; /* by store: STORE_KV and STORE_KV_SCALE */
    cg_cpu_a8_queue *a8;
} emission;

/* Column of the chunk at which 16 lanes begin, and which of them exist. */
typedef struct place {
    LLVMValueRef at; /* i64 */
    LLVMValueRef mask;
    int64_t count; /* columns that exist, 16 where only the mask knows */
} place;

static cg_cpu_site site_of(emission *e, const place *where) {
    return (cg_cpu_site){.row = e->chunk->row,
                         .head = e->chunk->head,
                         .column = where ? cg_cpu_add(e->em, e->chunk->first_col, where->at) : NULL,
                         .mask = where ? where->mask : NULL};
}

static LLVMValueRef kept_address(emission *e, int node, LLVMValueRef at) {
    LLVMValueRef base = cg_cpu_offset_const(e->em, e->kept, e->plan->kept_at[node]);
    return cg_cpu_offset(e->em, base, cg_cpu_mul_const(e->em, at, 4));
}

/* A node's value as a vector: the chunk's columns, or the number in all lanes. */
static LLVMValueRef vector_of(emission *e, int half, int node) {
    if (e->plan->stages.number[node])
        return cg_cpu_splat(e->em, e->numbers[node], CG_CPU_LANES);
    return e->columns[half][node];
}

/* Kept columns at + shift …, wherever they begin; the result counts only where they exist. */
static LLVMValueRef shifted(emission *e, int node, LLVMValueRef at, int64_t shift) {
    if (e->plan->stages.number[node])
        return vector_of(e, 0, node);
    int64_t last = rounded_up(e->plan->n_cols, CG_CPU_LANES);
    LLVMValueRef from = cg_cpu_add_const(e->em, at, shift);
    from = cg_cpu_min(e->em, from, cg_cpu_i64(e->em, last));
    from = cg_cpu_max(e->em, from, cg_cpu_i64(e->em, -PAD));
    return cg_cpu_load(e->em, e->em->f32x16, kept_address(e, node, from), 4);
}

/* Lanes whose column is below `limit`, at column `at` of the row. */
static LLVMValueRef below(emission *e, LLVMValueRef at, int64_t limit) {
    return cg_cpu_mask(e->em, cg_cpu_sub(e->em, cg_cpu_i64(e->em, limit), at));
}

static LLVMValueRef rotate_half(emission *e, const cg_node *node, const place *where) {
    LLVMBuilderRef b = e->em->builder;
    int64_t dims = node->rotate_dims, half = dims / 2;
    LLVMValueRef zero = LLVMConstNull(e->em->f32x16);
    bool aligned = half % CG_CPU_LANES == 0 && LLVMIsAConstantInt(where->at);
    int64_t at = aligned ? (int64_t)LLVMConstIntGetSExtValue(where->at) : 0;
    if (aligned && at >= dims)
        return zero;
    if (aligned && at >= half)
        return shifted(e, node->operands[0], where->at, -half);
    LLVMValueRef up = shifted(e, node->operands[0], where->at, half);
    up = LLVMBuildFNeg(b, up, "");
    if (aligned)
        return up;
    LLVMValueRef down = shifted(e, node->operands[0], where->at, -half);
    LLVMValueRef v = LLVMBuildSelect(b, below(e, where->at, dims), down, zero, "");
    return LLVMBuildSelect(b, below(e, where->at, half), up, v, "");
}

static LLVMValueRef rotate_interleaved(emission *e, const cg_node *node, int half,
                                       const place *where) {
    LLVMBuilderRef b = e->em->builder;
    LLVMValueRef x = vector_of(e, half, node->operands[0]);
    LLVMValueRef negated = LLVMBuildFNeg(b, x, "");
    int from[CG_CPU_LANES];
    for (int i = 0; i < CG_CPU_LANES; i += 2) {
        from[i] = CG_CPU_LANES + i + 1; /* -x[i+1] */
        from[i + 1] = i;
    }
    LLVMValueRef v = cg_cpu_shuffle(e->em, x, negated, CG_CPU_LANES, from);
    if (node->rotate_dims == e->plan->program->width)
        return v;
    LLVMValueRef column = cg_cpu_add(e->em, e->chunk->first_col, where->at);
    return LLVMBuildSelect(b, below(e, column, node->rotate_dims), v, LLVMConstNull(e->em->f32x16),
                           "");
}

static LLVMValueRef compute(emission *e, int index, int half, const place *where) {
    const cg_node *node = &e->plan->program->nodes[index];
    cg_cpu_site site = site_of(e, where);
    LLVMValueRef operands[3];
    switch (node->kind) {
    case CG_INPUT: {
        LLVMValueRef at = cg_cpu_mul_const(e->em, where->at, 4);
        at = cg_cpu_offset(e->em, e->chunk->inputs[node->part], at);
        return cg_cpu_load(e->em, e->em->f32x16, at, 64);
    }
    case CG_LOAD:
        return cg_cpu_access_load(e->em, &node->access, &site);
    case CG_SCALAR:
        for (int i = 0; i < cg_node_operands(node); i++)
            operands[i] = vector_of(e, half, node->operands[i]);
        return cg_cpu_scalar(e->em, node->op, operands);
    default: /* CG_ROTATE */
        return node->rotate_half ? rotate_half(e, node, where)
                                 : rotate_interleaved(e, node, half, where);
    }
}

/* A number: constants, numbers in memory and what follows from them and from reductions. */
static LLVMValueRef compute_number(emission *e, int index) {
    const cg_node *node = &e->plan->program->nodes[index];
    cg_cpu_site site = site_of(e, NULL);
    LLVMValueRef operands[3], v;
    switch (node->kind) {
    case CG_CONST:
        return cg_cpu_f32(e->em, node->value);
    case CG_LOAD:
        return cg_cpu_access_load_number(e->em, &node->access, &site);
    case CG_REDUCE:
        v = cg_cpu_load(e->em, e->em->f32x16, e->accumulators[index], 64);
        return node->reduce == CG_REDUCE_SUM ? cg_cpu_sum16(e->em, v) : cg_cpu_max16(e->em, v);
    default:
        for (int i = 0; i < cg_node_operands(node); i++)
            operands[i] = e->numbers[node->operands[i]];
        return cg_cpu_scalar(e->em, node->op, operands);
    }
}

static LLVMValueRef identity(emission *e, const cg_node *node) {
    return cg_cpu_f32v(e->em, node->reduce == CG_REDUCE_SUM ? 0 : -(double)__builtin_inff());
}

static void accumulate(emission *e, int index, int half, const place *where) {
    const cg_node *node = &e->plan->program->nodes[index];
    LLVMValueRef x = vector_of(e, half, node->operands[0]);
    if (where->mask)
        x = LLVMBuildSelect(e->em->builder, where->mask, x, identity(e, node), "");
    LLVMValueRef sum = cg_cpu_load(e->em, e->em->f32x16, e->accumulators[index], 64);
    sum = node->reduce == CG_REDUCE_SUM ? LLVMBuildFAdd(e->em->builder, sum, x, "")
                                        : cg_cpu_fmax(e->em, sum, x);
    cg_cpu_store(e->em, sum, e->accumulators[index], 64);
}

static void store_columns(emission *e, int index, int half, const place *where) {
    const cg_store *store = &e->plan->program->stores[index];
    cg_cpu_site site = site_of(e, where);
    LLVMValueRef value = vector_of(e, half, store->value);
    if (store->kind == CG_STORE) {
        if (store->access.column_stride != 0)
            cg_cpu_access_store(e->em, &store->access, &site, value);
    } else if (store->kind == CG_STORE_KV) {
        cg_cpu_if has_page = cg_cpu_begin_if(e->em, e->page_valid[index]);
        cg_cpu_access_store_kv(e->em, store->access.arg, e->page[index], e->slot[index], &site,
                               where->count, value, vector_of(e, half, store->value2));
        cg_cpu_end_if(e->em, &has_page);
    }
}

/* One or two (a8) vectors of columns of one stage. */
static void emit_columns(emission *e, int stage, const place *places, int n_places) {
    const cg_program *program = e->plan->program;
    int n = program->n_nodes;
    for (int half = 0; half < n_places; half++) {
        const place *where = &places[half];
        for (int i = 0; i < n; i++) {
            if (!e->plan->stages.needed[(int64_t)stage * n + i])
                continue;
            bool from_array = e->plan->stages.stage[i] < stage && !e->plan->stages.again[i];
            e->columns[half][i] =
                from_array ? cg_cpu_load(e->em, e->em->f32x16, kept_address(e, i, where->at), 64)
                           : compute(e, i, half, where);
            if (e->plan->kept_at[i] >= 0 && e->plan->stages.stage[i] == stage)
                cg_cpu_store(e->em, e->columns[half][i], kept_address(e, i, where->at), 64);
        }
        for (int i = 0; i < n; i++)
            if (program->nodes[i].kind == CG_REDUCE && e->plan->stages.stage[i] == stage + 1)
                accumulate(e, i, half, where);
        for (int i = 0; i < program->n_stores; i++)
            if (cg_store_stage(&e->plan->stages, &program->stores[i]) == stage)
                store_columns(e, i, half, where);
    }
    for (int i = 0; n_places == 2 && i < program->n_stores; i++) {
        const cg_store *store = &program->stores[i];
        cg_cpu_site site = site_of(e, &places[0]);
        if (store->kind == CG_STORE_A8 && cg_store_stage(&e->plan->stages, store) == stage)
            cg_cpu_a8_add(e->em, e->a8, &store->access, &site, vector_of(e, 0, store->value),
                          vector_of(e, 1, store->value));
    }
}

/* The columns of one stage from a constant or running column on. */
static void emit_step(emission *e, int stage, LLVMValueRef at, int64_t count, int n_places) {
    place places[2];
    for (int i = 0; i < n_places; i++) {
        int64_t left = count - i * CG_CPU_LANES;
        places[i].at = cg_cpu_add_const(e->em, at, i * CG_CPU_LANES);
        places[i].count = left < CG_CPU_LANES ? left : CG_CPU_LANES;
        places[i].mask = NULL;
        if (e->chunk->valid)
            places[i].mask = cg_cpu_mask(e->em, cg_cpu_sub(e->em, e->chunk->valid, places[i].at));
        else if (left < CG_CPU_LANES)
            places[i].mask = cg_cpu_mask_const(e->em, left);
    }
    emit_columns(e, stage, places, n_places);
}

static bool stage_has_work(const plan *p, int stage) {
    for (int i = 0; i < p->program->n_nodes; i++)
        if (p->stages.needed[(int64_t)stage * p->program->n_nodes + i] ||
            (p->program->nodes[i].kind == CG_REDUCE && p->stages.stage[i] == stage + 1))
            return true;
    for (int i = 0; i < p->program->n_stores; i++)
        if (cg_store_stage(&p->stages, &p->program->stores[i]) == stage)
            return true;
    return false;
}

static void emit_stage(emission *e, int stage) {
    int64_t n_cols = e->plan->n_cols, at = 0;
    int n_places = 1;
    if (!stage_has_work(e->plan, stage))
        return;
    for (int i = 0; i < e->plan->program->n_stores; i++)
        if (e->plan->program->stores[i].kind == CG_STORE_A8 &&
            cg_store_stage(&e->plan->stages, &e->plan->program->stores[i]) == stage)
            n_places = 2;
    int64_t step = n_places * CG_CPU_LANES;
    if (n_cols > CG_CPU_UNROLL) {
        int64_t turn = n_places == 2 ? step * CG_CPU_A8_GROUPS : step;
        at = n_cols / turn * turn;
        cg_cpu_loop loop = cg_cpu_for(e->em, cg_cpu_i64(e->em, 0), cg_cpu_i64(e->em, at), turn);
        for (int64_t i = 0; i < turn; i += step)
            emit_step(e, stage, cg_cpu_add_const(e->em, loop.index, i), step, n_places);
        cg_cpu_a8_flush(e->em, e->a8);
        cg_cpu_end_for(e->em, &loop);
    }
    for (; at < n_cols; at += step)
        emit_step(e, stage, cg_cpu_i64(e->em, at), n_cols - at < step ? n_cols - at : step,
                  n_places);
    if (e->a8 != e->chunk->a8)
        cg_cpu_a8_flush(e->em, e->a8);
}

/* Numbers that are known once the stages before `stage` have run, and what they are stored to. */
static void emit_numbers(emission *e, int stage) {
    const cg_program *program = e->plan->program;
    for (int i = 0; i < program->n_nodes; i++)
        if (e->plan->stages.number[i] && e->plan->stages.stage[i] == stage)
            e->numbers[i] = compute_number(e, i);
    cg_cpu_site site = site_of(e, NULL);
    for (int i = 0; i < program->n_stores; i++) {
        const cg_store *store = &program->stores[i];
        if (store->kind == CG_STORE && store->access.column_stride == 0 &&
            e->plan->stages.stage[store->value] == stage)
            cg_cpu_access_store_number(e->em, &store->access, &site, e->numbers[store->value]);
        if (store->kind != CG_STORE_KV_SCALE || cg_store_stage(&e->plan->stages, store) != stage)
            continue;
        cg_cpu_if has_page = cg_cpu_begin_if(e->em, e->page_valid[i]);
        cg_cpu_access_store_kv_scale(e->em, store->access.arg, e->page[i], e->slot[i],
                                     e->chunk->head, e->numbers[store->value],
                                     e->numbers[store->value2]);
        cg_cpu_end_if(e->em, &has_page);
    }
}

void cg_cpu_emit_program(cg_cpu_emitter *em, const cg_program *program, const cg_cpu_chunk *chunk) {
    plan p = make_plan(program, chunk->n_cols, em->kernel->args);
    size_t n = (size_t)program->n_nodes + 1, n_stores = (size_t)program->n_stores + 1;
    cg_cpu_a8_queue own = {0};
    emission e = {.em = em, .plan = &p, .chunk = chunk, .a8 = chunk->a8 ? chunk->a8 : &own};
    e.numbers = ir_arena_array(p.arena, n, sizeof *e.numbers);
    e.accumulators = ir_arena_array(p.arena, n, sizeof *e.accumulators);
    e.columns[0] = ir_arena_array(p.arena, n, sizeof *e.columns[0]);
    e.columns[1] = ir_arena_array(p.arena, n, sizeof *e.columns[1]);
    e.page = ir_arena_array(p.arena, n_stores, sizeof *e.page);
    e.slot = ir_arena_array(p.arena, n_stores, sizeof *e.slot);
    e.page_valid = ir_arena_array(p.arena, n_stores, sizeof *e.page_valid);
    if (p.kept_bytes)
        e.kept =
            chunk->n_cols <= CG_CPU_UNROLL ? cg_cpu_local_bytes(em, p.kept_bytes) : chunk->scratch;
    for (int i = 0; i < program->n_nodes; i++)
        if (program->nodes[i].kind == CG_REDUCE) {
            e.accumulators[i] = cg_cpu_local(em, em->f32x16);
            cg_cpu_store(em, identity(&e, &program->nodes[i]), e.accumulators[i], 64);
        }
    for (int i = 0; i < program->n_stores; i++)
        if (program->stores[i].kind == CG_STORE_KV || program->stores[i].kind == CG_STORE_KV_SCALE)
            cg_cpu_row_page(em, program->stores[i].access.arg, chunk->row, &e.page[i], &e.slot[i],
                            &e.page_valid[i]);
    for (int s = 0; s < p.stages.n_stages; s++) {
        emit_numbers(&e, s);
        emit_stage(&e, s);
    }
    ir_arena_destroy(p.arena);
}

/* Strategy full: matmuls of one input are merged; elementwise ops and group quantization join the
 * matmul or attention before them; norms, quantization, rope and the cache's append join each other
 * row by row.
 *
 *   input_norm, quantize                        one rows kernel
 *   q_proj, k_proj, v_proj                      one matmul of stacked weights
 *   rope_q, rope_k, kv_append                   one rows kernel, by heads
 *   attention, quantize                         attention with an epilogue
 *   o_proj, residual add                        matmul with an epilogue
 *   gate_proj, up_proj, silu, mul, quantize     lockstep matmul with an epilogue
 *
 * Where the target has matmul_heads, the third joins the second: every use of the merged matmul is
 * then rope or the cache's append, head by head (of what norms a head first, it does not).
 *
 * Strategy prologues: the same, and a rows kernel whose one result is the input of one matmul (and
 * no other kernel needs it) becomes that matmul's prologue:
 *
 *   post_norm, quantize, gate_proj, up_proj, …  lockstep matmul with a prologue and an epilogue
 *
 * That saves a launch and the way through memory, and computes each row again wherever a part of
 * the outputs is computed. Full does so where the target says that it pays. Nothing is computed in
 * two kernels: where other kernels need what a norm reads or yields (a residual that is added in
 * the same rows kernel, matmuls that could not be merged), the rows kernel is needed anyway. */
#include "passes/plan.h"

#include <string.h>

/* --- merges
 * --------------------------------------------------------------------------------------- */

static bool is_weight_matmul(const ir_op *op) {
    return op->code == IR_OP_MATMUL && ir_op_int(op, "transpose_b") && op->operands[1]->def &&
           op->operands[1]->def->code == IR_OP_WEIGHT && op->operands[1]->type.rank == 2;
}

static bool same_weight_form(const ir_op *a, const ir_op *b) {
    const ir_type *x = &a->operands[1]->type, *y = &b->operands[1]->type;
    return x->encoding == y->encoding && x->dtype == y->dtype &&
           ir_dim_equal(x->dims[1], y->dims[1]);
}

/* "layers.0.mlp.gate_proj" + "layers.0.mlp.up_proj" -> "layers.0.mlp.gate_proj+up_proj" */
static const char *merged_name(ir_arena *arena, ir_op *const *ops, int n) {
    const char *name = ops[0]->name;
    for (int i = 1; i < n; i++) {
        const char *last = strrchr(ops[i]->name, '.');
        name = ir_arena_printf(arena, "%s+%s", name, last ? last + 1 : ops[i]->name);
    }
    return name;
}

static void merges(const pass_context *context, plan *p) {
    enum { MAX_MERGED = 8 };
    for (ir_op *op = context->module->graph->first; op; op = op->next) {
        if (!is_weight_matmul(op))
            continue;
        /* Each group is written down at its first member. */
        ir_op *group[MAX_MERGED];
        int n = 0;
        bool first = true;
        for (ir_op *other = context->module->graph->first; other; other = other->next) {
            if (!is_weight_matmul(other) || other->operands[0] != op->operands[0] ||
                !same_weight_form(op, other) || n == MAX_MERGED)
                continue;
            if (n == 0)
                first = other == op;
            group[n++] = other;
        }
        if (n < 2 || !first)
            continue;
        plan_entry *e = plan_add(p, &p->merges, merged_name(p->arena, group, n), NULL);
        for (int i = 0; i < n; i++)
            plan_add_op(p, e, group[i]->name);
    }
}

/* --- kernels
 * --------------------------------------------------------------------------------------- */

typedef struct builder {
    const pass_context *context;
    plan *p;
    fusion_graph *g;
    bool prologues;
    int *heads_of; /* by op: the matmul whose heads it turns or keeps in that kernel, or -1 */
} builder;

static const char *anchor_of(const builder *b, int region) {
    return b->p->kernels.entries[region].anchor;
}

static bool is_anchor(const ir_op *op) {
    return op->code == IR_OP_MATMUL || op->code == IR_OP_PAGED_ATTENTION;
}

/* Ops that compute row by row and may share a rows kernel. */
static bool is_row_op(const ir_op *op) {
    if (!fusion_is_compute(op) || is_anchor(op))
        return false;
    switch (op->code) {
    case IR_OP_RMS_NORM:
    case IR_OP_LAYER_NORM:
    case IR_OP_ROPE:
    case IR_OP_KV_APPEND:
    case IR_OP_QUANTIZE:
    case IR_OP_GATHER:
        return true;
    case IR_OP_CONCAT:
        return ir_op_int(op, "axis") > 0;
    default:
        return ir_op_info_get(op->code)->traits & IR_TRAIT_ELEMENTWISE;
    }
}

static ir_dim rows_of(const ir_op *op) {
    /* A cache append yields a cache; its rows are those of its keys. */
    const ir_value *v = op->code == IR_OP_KV_APPEND ? op->operands[1] : op->results[0];
    return v->type.rank ? v->type.dims[0] : ir_dim_const(1);
}

static int64_t row_elements(const ir_type *type) {
    int64_t n = 1;
    for (int i = 1; i < type->rank; i++)
        n *= type->dims[i].c;
    return n;
}

static void join(builder *b, int index, int region) {
    b->g->region[index] = region;
    plan_add_op(b->p, &b->p->kernels.entries[region], b->g->ops[index]->name);
}

static void start(builder *b, int index, const char *anchor) {
    plan_add(b->p, &b->p->kernels, b->g->ops[index]->name, anchor);
    join(b, index, b->g->n_regions++);
}

/* Whether quantize's groups stay inside what the anchor holds at once. */
static bool groups_fit(const builder *b, const ir_op *anchor, const ir_op *quantize) {
    const ir_target *target = b->context->target;
    int64_t group = quantize->results[0]->type.encoding->group;
    if (anchor->code == IR_OP_PAGED_ATTENTION)
        return anchor->results[0]->type.dims[2].c % group == 0;
    return target->matmul_group_axis >= group &&
           row_elements(&quantize->results[0]->type) % group == 0;
}

/* A value that the epilogue can only take whole: a merged matmul's slice that is not one half. */
static bool is_half_or_whole(const ir_value *value, const ir_op *anchor) {
    for (; value->def != anchor; value = value->def->operands[0]) {
        if (value->def->code != IR_OP_SLICE)
            continue;
        const ir_type *from = &value->def->operands[0]->type;
        int64_t n = from->dims[from->rank - 1].c, size = ir_op_int(value->def, "size");
        if (2 * size != n || ir_op_int(value->def, "start") % size)
            return false;
    }
    return true;
}

/* The first op of a region: its anchor. */
static ir_op *region_anchor(const builder *b, int region) {
    for (int i = 0; i < b->g->n_ops; i++)
        if (b->g->region[i] == region && is_anchor(b->g->ops[i]))
            return b->g->ops[i];
    return NULL;
}

/* Whether every use of the merged matmul goes through halves: only then it runs in lockstep. */
static bool lockstep_possible(const builder *b, const ir_op *matmul) {
    bool sliced = false;
    for (int i = 0; i < b->g->n_ops; i++) {
        const ir_op *user = b->g->ops[i];
        for (int k = 0; k < user->n_operands; k++) {
            if (user->operands[k]->def != matmul)
                continue;
            if (user->code != IR_OP_SLICE || !is_half_or_whole(user->results[0], matmul))
                return false;
            sliced = true;
        }
    }
    return sliced && b->context->target->matmul_lockstep;
}

/* The source that an operand is a view of. */
static const ir_value *view_source(const ir_value *value) {
    while (value->def && fusion_is_view(value->def))
        value = value->def->operands[0];
    return value;
}

/* --- heads of a matmul's result
 * -------------------------------------------------------------------------------------- */

/* Columns are given to lanes by 32. */
static bool whole_lanes(int64_t columns) {
    return columns % 32 == 0;
}

/* Whether the pairs that rope turns lie within 32 columns that a backend can choose: neighbours, or
 * the same column of two runs of 16. Quantized pages want a whole head's largest number first. */
static bool heads_fit(const ir_op *op) {
    if (fusion_quantizes_kv(op))
        return false;
    const ir_type *type = &op->operands[op->code == IR_OP_KV_APPEND]->type;
    if (type->rank != 3 || !whole_lanes(type->dims[2].c))
        return false;
    return op->code != IR_OP_ROPE || strcmp(ir_op_string(op, "style"), "half") != 0 ||
           whole_lanes(ir_op_int(op, "dims"));
}

/* Whether `op` reads what the matmul, or an op that is marked, computes; through views. */
static bool reads_heads(const builder *b, const ir_op *op, int matmul) {
    for (int k = 0; k < op->n_operands; k++) {
        const ir_op *producer = fusion_producer(op->operands[k]);
        int j = producer ? fusion_op_index(b->g, producer) : -1;
        if (j >= 0 && (j == matmul || (b->heads_of[j] == matmul && producer->code != IR_OP_ROPE &&
                                       producer->code != IR_OP_KV_APPEND)))
            return true;
    }
    return false;
}

/* The keys of an append come from rope, which has been marked. */
static bool appends_heads(const builder *b, const ir_op *op, int matmul) {
    for (int k = 1; op->code == IR_OP_KV_APPEND && k < 3; k++) {
        const ir_op *producer = fusion_producer(op->operands[k]);
        int j = producer ? fusion_op_index(b->g, producer) : -1;
        if (j < 0 || (j != matmul && b->heads_of[j] != matmul))
            return false;
    }
    return true;
}

/* Marks all that reads the matmul, up to rope and the cache's append, or nothing where something
 * else reads it or its columns do not fit. */
static void mark_heads(builder *b, int matmul) {
    const ir_op *op = b->g->ops[matmul];
    const ir_type *type = &op->results[0]->type;
    bool ok = type->rank == 2 && whole_lanes(type->dims[1].c), any = false;
    for (int i = matmul + 1; i < b->g->n_ops && ok; i++) {
        const ir_op *user = b->g->ops[i];
        if (fusion_is_view(user)) {
            ok = user->code != IR_OP_SLICE || view_source(user->operands[0])->def != op ||
                 (user->operands[0]->type.rank == 2 && whole_lanes(ir_op_int(user, "start")) &&
                  whole_lanes(ir_op_int(user, "size")));
            continue;
        }
        if (!reads_heads(b, user, matmul))
            continue;
        bool ends = user->code == IR_OP_ROPE || user->code == IR_OP_KV_APPEND;
        ok = fusion_is_compute(user) && ir_dim_equal(rows_of(user), type->dims[0]) &&
             (ends ? heads_fit(user) && appends_heads(b, user, matmul)
                   : ir_op_info_get(user->code)->traits & IR_TRAIT_ELEMENTWISE);
        any |= ends;
        b->heads_of[i] = matmul;
    }
    for (int i = matmul + 1; i < b->g->n_ops && !(ok && any); i++)
        if (b->heads_of[i] == matmul)
            b->heads_of[i] = -1;
}

/* Whether op may be an epilogue of the matmul or attention in `region`, by way of operand k. */
static bool joins_anchor(const builder *b, const ir_op *op, int k, int region) {
    const ir_target *target = b->context->target;
    const ir_op *anchor = region_anchor(b, region);
    if (!anchor)
        return false;
    int heads_of = b->heads_of[fusion_op_index(b->g, op)];
    if (heads_of >= 0)
        return b->g->ops[heads_of] == anchor;
    if (op->code == IR_OP_GATHER || op->code == IR_OP_KV_APPEND)
        return false;
    bool matmul = anchor->code == IR_OP_MATMUL;
    if (matmul ? !target->matmul_epilogue : !target->attention_epilogue)
        return false;
    if (!ir_dim_equal(rows_of(op), anchor->results[0]->type.dims[0]))
        return false;
    const ir_value *value = op->operands[k];
    int64_t width = row_elements(&anchor->results[0]->type);
    int64_t own = row_elements(&op->results[0]->type);
    if (value->def && fusion_producer(value) == anchor && value->def->code == IR_OP_SLICE) {
        if (!lockstep_possible(b, anchor) || own * 2 != width)
            return false;
    } else if (own != width && !(own * 2 == width && lockstep_possible(b, anchor))) {
        return false;
    }
    if (op->code == IR_OP_QUANTIZE)
        return groups_fit(b, anchor, op);
    return ir_op_info_get(op->code)->traits & IR_TRAIT_ELEMENTWISE;
}

/* Whether every operand of a row op is the same rows, or a vector. */
static bool joins_rows(const builder *b, const ir_op *op, int region) {
    for (int i = 0; i < b->g->n_ops; i++)
        if (b->g->region[i] == region)
            return is_row_op(op) && ir_dim_equal(rows_of(op), rows_of(b->g->ops[i]));
    return false;
}

/* A gathered row is another row: its table cannot come from the same kernel. */
static bool reads_across_rows(const builder *b, const ir_op *op, int region) {
    for (int k = 0; k < op->n_operands; k++) {
        const ir_op *producer = fusion_producer(op->operands[k]);
        int j = producer ? fusion_op_index(b->g, producer) : -1;
        if (j < 0 || b->g->region[j] != region)
            continue;
        bool table = (op->code == IR_OP_GATHER && k == 0) || (op->code == IR_OP_ROPE && k == 1);
        if (table || producer->code == IR_OP_QUANTIZE || producer->code == IR_OP_KV_APPEND)
            return true;
    }
    return false;
}

/* A rows region that reads what this op reads (other heads of the same merged matmul). */
static int sibling_region(const builder *b, int index) {
    const ir_op *op = b->g->ops[index];
    for (int j = index - 1; j >= 0; j--) {
        const ir_op *other = b->g->ops[j];
        int region = b->g->region[j];
        if (region < 0 || strcmp(anchor_of(b, region), "rows") != 0 || other->code == IR_OP_GATHER)
            continue;
        for (int k = 0; k < op->n_operands; k++)
            for (int m = 0; m < other->n_operands; m++) {
                const ir_value *source = view_source(op->operands[k]);
                if (source == view_source(other->operands[m]) && source->def &&
                    source->def->code == IR_OP_MATMUL)
                    return region;
            }
    }
    return -1;
}

/* Whether an op can be computed before a matmul with rows of type `x`. */
static bool fits_prologue(const ir_op *op, const ir_type *x) {
    if (op->code == IR_OP_KV_APPEND || op->code == IR_OP_ROPE || op->code == IR_OP_CONCAT)
        return false;
    const ir_type *type = &op->results[0]->type;
    return type->rank == 2 && ir_dim_equal(type->dims[0], x->dims[0]) &&
           (ir_dim_equal(type->dims[1], x->dims[1]) ||
            ir_dim_equal(type->dims[1], ir_dim_const(1)));
}

/* The rows region that computes the matmul's input and nothing else, or -1. */
static int prologue_region(const builder *b, int index) {
    fusion_graph *g = b->g;
    const ir_op *matmul = g->ops[index];
    const ir_value *x = matmul->operands[0];
    int producer = x->def ? fusion_op_index(g, x->def) : -1;
    int region = producer >= 0 ? g->region[producer] : -1;
    if (!b->prologues || region < 0 || strcmp(anchor_of(b, region), "rows") != 0 ||
        x->type.rank != 2 || !(x->type.encoding || x->type.dtype == IR_F32) ||
        !fusion_can_join(g, index, region))
        return -1;
    for (int i = 0; i < g->n_ops; i++)
        if (g->region[i] == region &&
            (!fits_prologue(g->ops[i], &x->type) ||
             fusion_is_used_outside(g, g->ops[i]->results[0], region, matmul)))
            return -1;
    return region;
}

static void place_anchor(builder *b, int index) {
    const ir_op *op = b->g->ops[index];
    if (op->code == IR_OP_MATMUL && b->context->target->matmul_heads)
        mark_heads(b, index);
    int region = op->code == IR_OP_MATMUL ? prologue_region(b, index) : -1;
    if (region < 0) {
        start(b, index, op->code == IR_OP_MATMUL ? "matmul" : "attention");
        return;
    }
    plan_entry *e = &b->p->kernels.entries[region];
    e->name = ir_arena_strdup(b->p->arena, op->name);
    e->anchor = "matmul";
    join(b, index, region);
}

static void place(builder *b, int index) {
    fusion_graph *g = b->g;
    const ir_op *op = g->ops[index];
    if (is_anchor(op)) {
        place_anchor(b, index);
        return;
    }
    if (!is_row_op(op))
        return; /* a kernel of its own */
    /* Prefer the latest producer: the kernel that runs last before this op. */
    int best = -1, best_index = -1;
    for (int k = 0; k < op->n_operands; k++) {
        const ir_op *producer = fusion_producer(op->operands[k]);
        int j = producer ? fusion_op_index(g, producer) : -1;
        int region = j >= 0 ? g->region[j] : -1;
        if (region < 0 || j < best_index || !fusion_can_join(g, index, region) ||
            reads_across_rows(b, op, region))
            continue;
        bool rows = strcmp(anchor_of(b, region), "rows") == 0;
        if (rows ? joins_rows(b, op, region) : joins_anchor(b, op, k, region)) {
            best = region;
            best_index = j;
        }
    }
    if (best < 0 && b->context->target->rows_chain) {
        int region = sibling_region(b, index);
        if (region >= 0 && joins_rows(b, op, region) && !reads_across_rows(b, op, region) &&
            fusion_can_join(g, index, region))
            best = region;
    }
    if (best >= 0)
        join(b, index, best);
    else
        start(b, index, "rows");
}

static void place_all(const pass_context *context, plan *p, bool prologues) {
    ir_arena *scratch = ir_arena_create();
    builder b = {.context = context,
                 .p = p,
                 .g = fusion_graph_create(context->module->graph, scratch),
                 .prologues = prologues};
    b.heads_of = ir_arena_array(scratch, (size_t)b.g->n_ops + 1, sizeof *b.heads_of);
    for (int i = 0; i < b.g->n_ops; i++)
        b.heads_of[i] = -1;
    for (int i = 0; i < b.g->n_ops; i++)
        if (fusion_is_compute(b.g->ops[i]) && b.g->ops[i]->n_results)
            place(&b, i);
    ir_arena_destroy(scratch);
}

static void full(const pass_context *context, plan *p) {
    place_all(context, p,
              context->target->matmul_prologue && context->target->matmul_prologue_pays);
}

static void with_prologues(const pass_context *context, plan *p) {
    place_all(context, p, context->target->matmul_prologue);
}

const fusion_strategy fusion_full = {
    .name = "full",
    .merges = merges,
    .kernels = full,
    .summary = "merged matmuls, epilogues, chains of row ops",
};

const fusion_strategy fusion_prologues = {
    .name = "prologues",
    .merges = merges,
    .kernels = with_prologues,
    .summary = "full, and norms and quantization in the matmul that reads them",
};

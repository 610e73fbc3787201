/* Forms the kernels of the fusion plan; what the plan does not mention becomes a kernel of its own.
 *
 *   %3 = silu(%1) @"mlp.silu"              %4 = kernel(%1, %2) {anchor = "rows"} @"mlp.silu" {
 *   %4 = mul(%3, %2) @"mlp.mul"        ->    args(%a, %b)  %c = silu(%a)  %d = mul(%c, %b)
 *                                            yield(%d) }
 *
 * Beyond this point the graph holds sources, weight ops, kernels and outputs only. */
#include "passes/plan.h"

#include <stdlib.h>
#include <string.h>

/* --- names
 * ---------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Gives every op that computes a name of its own: an unnamed one is called after the op it reads,
 * and repeated names are numbered. */
bool pass_name_ops(pass_context *context) {
    ir_module *m = context->module;
    ir_arena *scratch = ir_arena_create();
    int n = 0, k = 0;
    for (ir_op *op = m->graph->first; op; op = op->next)
        n++;
    const char **taken = ir_arena_array(scratch, (size_t)n + 1, sizeof *taken);
    for (ir_op *op = m->graph->first; op; op = op->next)
        if (op->name)
            taken[k++] = op->name;
    qsort(taken, (size_t)k, sizeof *taken, compare_names);
    /* Names given here end in the op's text name and a number, checked against all others. */
    for (ir_op *op = m->graph->first; op; op = op->next) {
        bool duplicate = false;
        if (op->name) {
            const char **hit = bsearch(&op->name, taken, (size_t)k, sizeof *taken, compare_names);
            duplicate = hit && *hit != op->name;
            for (const char **t = hit; t && t > taken && !strcmp(t[-1], op->name); t--)
                duplicate = t[-1] != op->name;
        }
        if (!op->n_results || (op->name && !duplicate))
            continue;
        const char *base = op->name;
        for (int i = 0; i < op->n_operands && !base; i++)
            if (op->operands[i]->def && fusion_is_compute(op->operands[i]->def))
                base = op->operands[i]->def->name;
        const char *kind = ir_op_info_get(op->code)->name;
        if (op->name)
            op->name = ir_arena_printf(m->arena, "%s.%d", base, op->results[0]->id);
        else
            op->name = ir_arena_printf(m->arena, "%s%s%s.%d", base ? base : "", base ? "." : "",
                                       kind, op->results[0]->id);
    }
    ir_arena_destroy(scratch);
    return true;
}

/* --- plan
 * ----------------------------------------------------------------------------------------- */

static const fusion_strategy *const strategies[] = {&fusion_none, &fusion_pointwise, &fusion_full,
                                                    &fusion_prologues};

const fusion_strategy *fusion_strategy_find(const char *name) {
    for (size_t i = 0; i < sizeof strategies / sizeof *strategies; i++)
        if (strcmp(strategies[i]->name, name) == 0)
            return strategies[i];
    return NULL;
}

static ir_op *find_op(const ir_graph *graph, const char *name) {
    for (ir_op *op = graph->first; op; op = op->next)
        if (op->name && fusion_is_compute(op) && strcmp(op->name, name) == 0)
            return op;
    return NULL;
}

static bool plan_error(const pass_context *c, const plan_entry *e, const char *op,
                       const char *reason) {
    const plan *p = c->plan;
    const char *where = p->file ? ir_arena_printf(p->arena, "%s:%d", p->file, e->line) : e->name;
    return ir_error(c->diag, where, "%s: %s", op, reason);
}

/* Whether an op before `end` reads the value. */
static bool read_before(const ir_graph *graph, const ir_value *value, const ir_op *end) {
    for (const ir_op *op = graph->first; op && op != end; op = op->next)
        for (int i = 0; i < op->n_operands; i++)
            if (op->operands[i] == value)
                return true;
    return false;
}

/* Replaces the matmuls of a merge by one, followed by slices that keep the old names. */
static bool apply_merge(pass_context *c, const plan_entry *e) {
    ir_graph *graph = c->module->graph;
    ir_op *first = NULL;
    ir_value **weights = ir_arena_array(c->plan->arena, (size_t)e->n_ops, sizeof *weights);
    ir_op **ops = ir_arena_array(c->plan->arena, (size_t)e->n_ops, sizeof *ops);
    for (int i = 0; i < e->n_ops; i++) {
        ir_op *op = ops[i] = find_op(graph, e->ops[i]);
        if (!op)
            return plan_error(c, e, e->ops[i], "the graph has no op of this name");
        if (op->code != IR_OP_MATMUL || !ir_op_int(op, "transpose_b"))
            return plan_error(c, e, e->ops[i], "only matmuls with weights can be merged");
        if (i && op->operands[0] != ops[0]->operands[0])
            return plan_error(c, e, e->ops[i], "it multiplies another input than the first");
        for (int j = 0; j < i; j++)
            if (ops[j] == op)
                return plan_error(c, e, e->ops[i], "it is listed twice");
        weights[i] = op->operands[1];
    }
    for (ir_op *op = graph->first; op && !first; op = op->next)
        for (int i = 0; i < e->n_ops; i++)
            if (ops[i] == op)
                first = op;
    for (int i = 0; i < e->n_ops; i++) {
        ir_op *w = weights[i]->def;
        if (!w || w->code != IR_OP_WEIGHT)
            return plan_error(c, e, e->ops[i], "its second operand is no weight of the model");
        if (!read_before(graph, weights[i], first)) /* a table that gather reads stays */
            ir_op_move(w, graph, first);
    }
    ir_op *concat = ir_op_create(
        graph, first,
        &(ir_op_spec){.code = IR_OP_WEIGHT_CONCAT, .operands = weights, .n_operands = e->n_ops},
        c->diag);
    if (!concat)
        return plan_error(c, e, e->name, "the weights cannot be stacked");
    ir_attr transpose = IR_INT("transpose_b", 1);
    ir_op *matmul = ir_op_create(
        graph, first,
        &(ir_op_spec){.code = IR_OP_MATMUL,
                      .name = e->name,
                      .operands = (ir_value *[]){ops[0]->operands[0], concat->results[0]},
                      .n_operands = 2,
                      .attrs = &transpose,
                      .n_attrs = 1},
        c->diag);
    if (!matmul)
        return false;
    int64_t start = 0;
    for (int i = 0; i < e->n_ops; i++) {
        int64_t size = weights[i]->type.dims[0].c;
        ir_attr attrs[] = {IR_INT("axis", matmul->results[0]->type.rank - 1),
                           IR_INT("start", start), IR_INT("size", size)};
        ir_op *slice = ir_op_create(graph, first,
                                    &(ir_op_spec){.code = IR_OP_SLICE,
                                                  .name = ops[i]->name,
                                                  .operands = matmul->results,
                                                  .n_operands = 1,
                                                  .attrs = attrs,
                                                  .n_attrs = 3},
                                    c->diag);
        if (!slice)
            return false;
        ir_replace_uses(graph, ops[i]->results[0], slice->results[0]);
        start += size;
    }
    for (int i = 0; i < e->n_ops; i++)
        ir_op_remove(ops[i]);
    return true;
}

static bool apply_merges(pass_context *c) {
    for (int i = 0; i < c->plan->merges.count; i++)
        if (!apply_merge(c, &c->plan->merges.entries[i]))
            return false;
    return true;
}

/* Fusion compares ops with ops and follows chains of them: far more of them than a model has (some
 * 30 a layer) would take minutes, or the stack. */
enum { MAX_OPS = 20000 };

static bool is_fusible(const pass_context *c) {
    int n = 0;
    for (const ir_op *op = c->module->graph->first; op; op = op->next) {
        if (op->code == IR_OP_KERNEL)
            return ir_error(c->diag, ir_op_label(op),
                            "the graph has been fused already: it consists of kernels");
        if (++n > MAX_OPS)
            return ir_error(c->diag, c->module->name, "the graph has more than %d ops", MAX_OPS);
    }
    return true;
}

bool pass_fusion_plan(pass_context *context) {
    ir_arena *arena = context->module->arena;
    if (!is_fusible(context))
        return false;
    char hash[17];
    plan_hash_graph(context->module, hash);
    if (context->options->plan_text) {
        context->plan = plan_parse(context->options->plan_text, context->options->plan_file, arena,
                                   context->diag);
        if (!context->plan)
            return false;
        const char *found = context->plan->graph_hash;
        if (*found && strcmp(found, hash) != 0)
            return ir_error(context->diag, context->plan->file,
                            "the plan is for graph %s, this graph is %s; make a new one with "
                            "--emit plan",
                            found, hash);
        memcpy(context->plan->graph_hash, hash, sizeof hash);
        return apply_merges(context);
    }
    const char *name = context->options->fusion ? context->options->fusion : "full";
    const fusion_strategy *strategy = fusion_strategy_find(name);
    if (!strategy)
        return ir_error(context->diag, NULL,
                        "unknown fusion strategy \"%s\"; there are none, pointwise, full, "
                        "prologues, or a plan file",
                        name);
    context->plan = plan_create(arena, name);
    memcpy(context->plan->graph_hash, hash, sizeof hash);
    if (strategy->merges)
        strategy->merges(context, context->plan);
    if (!apply_merges(context))
        return false;
    if (strategy->kernels)
        strategy->kernels(context, context->plan);
    return true;
}

/* --- kernels
 * --------------------------------------------------------------------------------------- */

typedef struct fuser {
    pass_context *context;
    fusion_graph *g;
    ir_arena *scratch;
    const plan_entry **entries; /* by region */
    ir_value **map;             /* by value id, while a body is built */
    int map_size;               /* ids before fusion */
    ir_value **replacement;     /* by value id: the kernel result that takes its place */
    unsigned char *checked;     /* by op: check_prologue has been there */
    ir_value **operands;        /* of the kernel being built */
    int n_operands, n_capacity;
} fuser;

static const char *anchor_of(const ir_op *op) {
    return op->code == IR_OP_MATMUL            ? "matmul"
           : op->code == IR_OP_PAGED_ATTENTION ? "attention"
           : op->code == IR_OP_SAMPLE          ? "sample"
                                               : "rows";
}

/* A plan says of each kernel what its ops make it: that they agree shows that a person who edited
 * it meant what will be done. */
static bool check_anchor(const fuser *f, const plan_entry *e, int region) {
    if (strcmp(e->anchor, "rows") && strcmp(e->anchor, "matmul") &&
        strcmp(e->anchor, "attention") && strcmp(e->anchor, "sample"))
        return plan_error(f->context, e, e->anchor,
                          "no such anchor; there are rows, matmul, attention, sample");
    const ir_op *found = NULL;
    for (int i = 0; i < f->g->n_ops; i++) {
        const ir_op *op = f->g->ops[i];
        if (f->g->region[i] != region || !strcmp(anchor_of(op), "rows"))
            continue;
        if (!strcmp(anchor_of(op), e->anchor))
            return true;
        found = op;
    }
    if (!found && !strcmp(e->anchor, "rows"))
        return true;
    return plan_error(f->context, e, found ? found->name : e->name,
                      ir_arena_printf(f->context->plan->arena, "the kernel's anchor is %s, not %s",
                                      found ? anchor_of(found) : "rows", e->anchor));
}

/* Puts the plan's ops into regions; the rest get regions of their own. */
static bool assign_regions(fuser *f) {
    const plan *p = f->context->plan;
    fusion_graph *g = f->g;
    f->entries =
        ir_arena_array(f->scratch, (size_t)(p->kernels.count + g->n_ops), sizeof *f->entries);
    for (int r = 0; r < p->kernels.count; r++) {
        const plan_entry *e = &p->kernels.entries[r];
        f->entries[g->n_regions++] = e;
        for (int i = 0; i < r; i++)
            if (strcmp(p->kernels.entries[i].name, e->name) == 0)
                return plan_error(f->context, e, e->name, "another kernel has this name");
        for (int i = 0; i < e->n_ops; i++) {
            const ir_op *op = find_op(f->context->module->graph, e->ops[i]);
            int index = op ? fusion_op_index(g, op) : -1;
            if (index < 0)
                return plan_error(f->context, e, e->ops[i], "the graph has no op of this name");
            if (g->region[index] >= 0)
                return plan_error(f->context, e, e->ops[i], "it is already part of another kernel");
            g->region[index] = r;
        }
        if (!check_anchor(f, e, r))
            return false;
    }
    for (int i = 0; i < g->n_ops; i++)
        if (fusion_is_compute(g->ops[i]) && g->region[i] < 0)
            g->region[i] = g->n_regions++;
    return true;
}

/* What a matmul's input depends on within its kernel is computed there and nowhere else. `value` is
 * that input, or an operand of what computes it. */
static bool check_prologue(fuser *f, const plan_entry *e, int region, const ir_value *value) {
    const ir_op *op = fusion_producer(value);
    int index = op ? fusion_op_index(f->g, op) : -1;
    if (index < 0 || f->g->region[index] != region || f->checked[index])
        return true;
    f->checked[index] = 1;
    if (!f->context->target->matmul_prologue)
        return plan_error(f->context, e, op->name,
                          "this target computes nothing in front of a matmul; put it in another "
                          "kernel");
    for (int r = 0; r < op->n_results; r++)
        if (fusion_is_used_outside(f->g, op->results[r], region, NULL))
            return plan_error(f->context, e, op->name,
                              "other kernels need it, and what is in front of a matmul stays "
                              "inside its kernel");
    for (int k = 0; k < op->n_operands; k++)
        if (!check_prologue(f, e, region, op->operands[k]))
            return false;
    return true;
}

/* Heads of a matmul's result are turned and kept in its kernel where the target can do that. */
static bool check_heads(fuser *f, const plan_entry *e, int region) {
    for (int i = 0; i < f->g->n_ops; i++) {
        const ir_op *op = f->g->ops[i];
        if (f->g->region[i] == region && (op->code == IR_OP_ROPE || op->code == IR_OP_KV_APPEND) &&
            !f->context->target->matmul_heads)
            return plan_error(f->context, e, op->name,
                              "this target does it in no matmul's kernel; put it in a rows kernel");
        if (f->g->region[i] == region && fusion_quantizes_kv(op))
            return plan_error(f->context, e, op->name,
                              "a head is quantized as a whole, in no matmul's kernel; put it in a "
                              "rows kernel");
    }
    return true;
}

static bool check_prologues(fuser *f) {
    f->checked = ir_arena_array(f->scratch, (size_t)f->g->n_ops, 1);
    for (int i = 0; i < f->g->n_ops; i++) {
        const ir_op *op = f->g->ops[i];
        int region = f->g->region[i];
        if (op->code == IR_OP_MATMUL && region >= 0 && region < f->context->plan->kernels.count &&
            (!check_prologue(f, f->entries[region], region, op->operands[0]) ||
             !check_heads(f, f->entries[region], region)))
            return false;
    }
    return true;
}

/* Whether an op is copied into each kernel that uses it. */
static bool is_drawn_in(const ir_op *op) {
    if (fusion_is_view(op))
        return true;
    const ir_attr *values = op->code == IR_OP_CONSTANT ? ir_op_attr(op, "values") : NULL;
    return values && values->count == 1;
}

/* The value inside the body that stands for `value`: an op of the region, a view drawn in, or an
 * argument for something from outside. */
static ir_value *inside(fuser *f, ir_graph *body, ir_value *value, int region) {
    if (value->id < f->map_size && f->map[value->id])
        return f->map[value->id];
    ir_op *def = value->def;
    int index = def ? fusion_op_index(f->g, def) : -1;
    if (index >= 0 && is_drawn_in(def)) {
        for (int i = 0; i < def->n_operands; i++)
            inside(f, body, def->operands[i], region);
        ir_op *copy = ir_op_clone(def, body, NULL, f->map, f->map_size);
        return copy->results[0];
    }
    if (f->n_operands == f->n_capacity) {
        int capacity = f->n_capacity ? 2 * f->n_capacity : 16;
        ir_value **grown = ir_arena_array(f->scratch, (size_t)capacity, sizeof *grown);
        if (f->n_operands)
            memcpy(grown, f->operands, (size_t)f->n_operands * sizeof *grown);
        f->operands = grown;
        f->n_capacity = capacity;
    }
    f->operands[f->n_operands++] = value;
    return f->map[value->id] = ir_graph_add_arg(body, &value->type);
}

static bool form_kernel(fuser *f, int region) {
    fusion_graph *g = f->g;
    ir_module *m = f->context->module;
    ir_arena *scratch = f->scratch;
    ir_op *last = NULL, *only = NULL;
    for (int i = 0; i < g->n_ops; i++)
        if (g->region[i] == region)
            last = g->ops[i], only = only ? only : last;
    if (!last)
        return true;
    const plan_entry *entry = region < f->context->plan->kernels.count ? f->entries[region] : NULL;
    ir_graph *body = ir_graph_create(m, NULL);
    f->n_operands = 0;
    memset(f->map, 0, (size_t)f->map_size * sizeof *f->map);
    ir_value **yields = ir_arena_array(scratch, (size_t)g->n_ops, sizeof *yields);
    ir_value **results = ir_arena_array(scratch, (size_t)g->n_ops, sizeof *results);
    ir_type *types = ir_arena_array(scratch, (size_t)g->n_ops, sizeof *types);
    int n = 0;
    for (int i = 0; i < g->n_ops; i++) {
        if (g->region[i] != region)
            continue;
        ir_op *op = g->ops[i];
        for (int k = 0; k < op->n_operands; k++)
            inside(f, body, op->operands[k], region);
        ir_op *copy = ir_op_clone(op, body, NULL, f->map, f->map_size);
        for (int r = 0; r < op->n_results; r++) {
            if (!fusion_is_used_outside(g, op->results[r], region, NULL))
                continue;
            yields[n] = copy->results[r];
            results[n] = op->results[r];
            types[n++] = op->results[r]->type;
        }
    }
    if (!n)
        return ir_internal_error(f->context->diag, ir_op_label(last),
                                 "nothing uses the kernel's results; run dce before fuse");
    if (!ir_op_create(body, NULL,
                      &(ir_op_spec){.code = IR_OP_YIELD, .operands = yields, .n_operands = n},
                      f->context->diag))
        return false;
    ir_attr anchor = IR_STRING("anchor", entry ? entry->anchor : anchor_of(only));
    ir_op *kernel = ir_op_create(m->graph, last,
                                 &(ir_op_spec){.code = IR_OP_KERNEL,
                                               .name = entry ? entry->name : only->name,
                                               .operands = f->operands,
                                               .n_operands = f->n_operands,
                                               .attrs = &anchor,
                                               .n_attrs = 1,
                                               .types = types,
                                               .n_types = n,
                                               .body = body},
                                 f->context->diag);
    if (!kernel)
        return false;
    for (int i = 0; i < n; i++)
        f->replacement[results[i]->id] = kernel->results[i];
    return true;
}

/* Lets the kernels and outputs use the kernels' results, and drops the ops that went into bodies.
 */
static void replace_ops(fuser *f) {
    ir_graph *graph = f->context->module->graph;
    for (ir_op *op = graph->first; op; op = op->next)
        for (int i = 0; i < op->n_operands; i++) {
            int id = op->operands[i]->id;
            if (id < f->map_size && f->replacement[id])
                op->operands[i] = f->replacement[id];
        }
    for (int i = 0; i < f->g->n_ops; i++)
        if (fusion_is_compute(f->g->ops[i]))
            ir_op_remove(f->g->ops[i]);
    /* Views that an output still reads stay. */
    int *uses = ir_count_uses(graph, f->scratch);
    for (int i = f->g->n_ops - 1; i >= 0; i--) {
        ir_op *op = f->g->ops[i];
        if (!is_drawn_in(op) || uses[op->results[0]->id])
            continue;
        for (int k = 0; k < op->n_operands; k++)
            uses[op->operands[k]->id]--;
        ir_op_remove(op);
    }
}

/* What an op that cannot be placed waits for. */
static const ir_op *waits_for(const ir_op *op, const unsigned char *ready) {
    for (int i = 0; i < op->n_operands; i++)
        if (!ready[op->operands[i]->id])
            return op->operands[i]->def;
    return op;
}

/* Nothing can be placed, so whoever follows what waits for what comes into a circle. */
static bool report_circle(const fuser *f, const ir_op *op, const unsigned char *ready) {
    enum { SHOWN = 8 };
    for (const ir_op *any = op; any; any = any->next)
        op = waits_for(op, ready);
    const char *text = ir_op_label(op);
    const ir_op *next = waits_for(op, ready);
    for (int i = 0; i < SHOWN && next != op; i++, next = waits_for(next, ready))
        text = ir_arena_printf(f->scratch, "%s needs %s%s", text, ir_op_label(next),
                               i + 1 < SHOWN ? ", which" : ", …");
    return ir_error(f->context->diag, f->context->plan->file,
                    "kernels depend on each other in a circle: %s needs %s; one of them must be "
                    "split",
                    text, ir_op_label(op));
}

/* Orders ops so that each comes after what it uses, keeping the order they have where possible.
 * False when kernels depend on each other in a circle. */
static bool sort_graph(fuser *f) {
    ir_graph *graph = f->context->module->graph;
    size_t n_values = (size_t)f->context->module->n_values;
    unsigned char *ready = ir_arena_array(f->scratch, n_values, 1);
    ir_op *placed = NULL; /* the last op in its final place */
    for (;;) {
        ir_op *next = placed ? placed->next : graph->first;
        if (!next)
            return true;
        ir_op *pick = NULL;
        for (ir_op *op = next; op && !pick; op = op->next) {
            bool all = true;
            for (int i = 0; i < op->n_operands && all; i++)
                all = ready[op->operands[i]->id];
            if (all)
                pick = op;
        }
        if (!pick)
            return report_circle(f, next, ready);
        if (pick != next)
            ir_op_move(pick, graph, next);
        for (int i = 0; i < pick->n_results; i++)
            ready[pick->results[i]->id] = 1;
        placed = pick;
    }
}

bool pass_fuse(pass_context *context) {
    if (!is_fusible(context) || (!context->plan && !pass_fusion_plan(context)))
        return false;
    ir_arena *scratch = ir_arena_create();
    fuser f = {.context = context,
               .scratch = scratch,
               .g = fusion_graph_create(context->module->graph, scratch)};
    f.map_size = context->module->n_values;
    f.map = ir_arena_array(scratch, (size_t)f.map_size, sizeof *f.map);
    f.replacement = ir_arena_array(scratch, (size_t)f.map_size, sizeof *f.replacement);
    bool ok = assign_regions(&f) && check_prologues(&f);
    for (int r = 0; ok && r < f.g->n_regions; r++)
        ok = form_kernel(&f, r);
    if (ok) {
        replace_ops(&f);
        ok = sort_graph(&f);
    }
    ir_arena_destroy(scratch);
    return ok;
}

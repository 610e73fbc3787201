/* What fusion strategies and the fuse pass share: which ops compute, and which may share a kernel.
 */
#include "passes/plan.h"

#include <string.h>

bool fusion_is_view(const ir_op *op) {
    return ir_op_info_get(op->code)->traits & IR_TRAIT_VIEW;
}

bool fusion_is_compute(const ir_op *op) {
    unsigned traits = ir_op_info_get(op->code)->traits;
    return !(traits & (IR_TRAIT_SOURCE | IR_TRAIT_VIEW)) && op->code != IR_OP_OUTPUT &&
           op->code != IR_OP_WEIGHT_CONCAT && op->code != IR_OP_PACK && op->code != IR_OP_YIELD;
}

bool fusion_quantizes_kv(const ir_op *op) {
    if (op->code != IR_OP_KV_APPEND)
        return false;
    const ir_op *source = ir_kv_source(op->operands[0]);
    const ir_module *m = op->owner->module;
    int64_t group = source ? ir_op_int(source, "group") : -1;
    return group >= 0 && group < m->n_kv_groups && ir_kv_quantized(m->kv_groups[group].dtype);
}

ir_op *fusion_producer(const ir_value *value) {
    ir_op *op = value->def;
    while (op && fusion_is_view(op))
        op = op->operands[0]->def;
    return op && fusion_is_compute(op) ? op : NULL;
}

fusion_graph *fusion_graph_create(const ir_graph *graph, ir_arena *arena) {
    fusion_graph *g = ir_arena_alloc(arena, sizeof *g);
    g->arena = arena;
    for (const ir_op *op = graph->first; op; op = op->next)
        g->n_ops++;
    size_t n = (size_t)g->n_ops, n_values = (size_t)graph->module->n_values;
    g->ops = ir_arena_array(arena, n, sizeof *g->ops);
    g->region = ir_arena_array(arena, n, sizeof *g->region);
    g->seen = ir_arena_array(arena, n, 1);
    g->op_of_value = ir_arena_array(arena, n_values, sizeof(int));
    memset(g->op_of_value, 0xff, n_values * sizeof(int));
    int i = 0;
    for (ir_op *op = graph->first; op; op = op->next, i++) {
        g->ops[i] = op;
        g->region[i] = -1;
        for (int r = 0; r < op->n_results; r++)
            g->op_of_value[op->results[r]->id] = i;
    }
    return g;
}

int fusion_op_index(const fusion_graph *g, const ir_op *op) {
    return op->n_results ? g->op_of_value[op->results[0]->id] : -1;
}

/* Whether op `index` depends on region `target`, ops of one region counting as one node. Ops of
 * `skip` are not entered. */
static bool depends_on(fusion_graph *g, int index, int target, int skip) {
    if (g->region[index] >= 0 && g->region[index] == target)
        return true;
    if (g->seen[index])
        return false;
    g->seen[index] = 1;
    int region = g->region[index];
    if (region >= 0 && region == skip)
        return false;
    for (int i = region >= 0 ? 0 : index; i < (region >= 0 ? g->n_ops : index + 1); i++) {
        if (i != index && g->region[i] != region)
            continue;
        g->seen[i] = 1;
        const ir_op *op = g->ops[i];
        for (int k = 0; k < op->n_operands; k++) {
            int producer = g->op_of_value[op->operands[k]->id];
            if (producer < 0 || (region >= 0 && g->region[producer] == region))
                continue;
            if (depends_on(g, producer, target, skip))
                return true;
        }
    }
    return false;
}

bool fusion_can_join(fusion_graph *g, int index, int region) {
    memset(g->seen, 0, (size_t)g->n_ops);
    const ir_op *op = g->ops[index];
    for (int k = 0; k < op->n_operands; k++) {
        int producer = g->op_of_value[op->operands[k]->id];
        /* Views belong to whoever uses them: look through them to what computes. */
        while (producer >= 0 && fusion_is_view(g->ops[producer]))
            producer = g->op_of_value[g->ops[producer]->operands[0]->id];
        if (producer < 0 || g->region[producer] == region)
            continue;
        if (depends_on(g, producer, region, -1))
            return false;
    }
    return true;
}

bool fusion_is_used_outside(const fusion_graph *g, const ir_value *value, int region,
                            const ir_op *except) {
    for (int i = 0; i < g->n_ops; i++) {
        const ir_op *user = g->ops[i];
        for (int k = 0; k < user->n_operands; k++) {
            if (user->operands[k] != value || g->region[i] == region || user == except)
                continue;
            if (!fusion_is_view(user) ||
                fusion_is_used_outside(g, user->results[0], region, except))
                return true;
        }
    }
    return false;
}

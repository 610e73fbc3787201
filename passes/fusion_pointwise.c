/* Strategy pointwise: chains of elementwise ops over the same shape become one kernel.
 *
 *   %1 = silu(%g)                    kernel mlp.mul rows = mlp.silu mlp.mul
 *   %2 = mul(%1, %u)          ->
 */
#include "passes/plan.h"

static bool is_pointwise(const ir_op *op) {
    return fusion_is_compute(op) && (ir_op_info_get(op->code)->traits & IR_TRAIT_ELEMENTWISE) &&
           op->n_results == 1 && op->results[0]->type.rank > 0 &&
           !ir_dim_is_const(op->results[0]->type.dims[0]);
}

static void kernels(const pass_context *context, plan *p) {
    ir_arena *scratch = ir_arena_create();
    fusion_graph *g = fusion_graph_create(context->module->graph, scratch);
    for (int i = 0; i < g->n_ops; i++) {
        ir_op *op = g->ops[i];
        if (!is_pointwise(op))
            continue;
        for (int k = 0; k < op->n_operands && g->region[i] < 0; k++) {
            ir_op *producer = fusion_producer(op->operands[k]);
            int j = producer ? fusion_op_index(g, producer) : -1;
            if (j >= 0 && is_pointwise(producer) && op->operands[k]->def == producer &&
                ir_type_equal(&producer->results[0]->type, &op->results[0]->type) &&
                fusion_can_join(g, i, g->region[j])) {
                g->region[i] = g->region[j];
                plan_add_op(p, &p->kernels.entries[g->region[i]], op->name);
            }
        }
        if (g->region[i] < 0) {
            g->region[i] = g->n_regions++;
            plan_add_op(p, plan_add(p, &p->kernels, op->name, "rows"), op->name);
        }
    }
    ir_arena_destroy(scratch);
}

const fusion_strategy fusion_pointwise = {
    .name = "pointwise",
    .kernels = kernels,
    .summary = "chains of elementwise ops",
};

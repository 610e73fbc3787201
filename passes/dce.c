/* Removes ops whose results nobody uses, and results of kernels that nobody uses.
 *
 *   %1 = exp(%0) : f32[R, 8]
 *   %2 = neg(%0) : f32[R, 8]              %2 = neg(%0) : f32[R, 8]
 *   output(%2) {name = "hidden"}     ->   output(%2) {name = "hidden"}
 *
 * Weights that no op names any more stay in the module's table; the artifact writes only those
 * that are named. */
#include "passes/pass.h"

static bool is_used(const ir_op *op, const int *uses) {
    for (int i = 0; i < op->n_results; i++)
        if (uses[op->results[i]->id])
            return true;
    return false;
}

/* Drops unused results of a kernel, of which at least one is used, and what its body yields for
 * them. */
static void drop_results(ir_op *kernel, int *uses) {
    ir_op *yield = kernel->body->last;
    int kept = 0;
    for (int i = 0; i < kernel->n_results; i++) {
        ir_value *result = kernel->results[i];
        if (!uses[result->id]) {
            uses[yield->operands[i]->id]--;
            continue;
        }
        result->index = kept;
        kernel->results[kept] = result;
        yield->operands[kept] = yield->operands[i];
        kept++;
    }
    kernel->n_results = yield->n_operands = kept;
}

/* Drops operands of a kernel that its body does not use. */
static void drop_operands(ir_op *kernel, int *uses) {
    ir_graph *body = kernel->body;
    int kept = 0;
    for (int i = 0; i < kernel->n_operands; i++) {
        ir_value *arg = body->args[i];
        if (!uses[arg->id]) {
            uses[kernel->operands[i]->id]--;
            continue;
        }
        arg->index = kept;
        body->args[kept] = arg;
        kernel->operands[kept] = kernel->operands[i];
        kept++;
    }
    kernel->n_operands = body->n_args = kept;
}

/* Backwards, so that an op is looked at after all that use it. */
static void remove_dead(ir_graph *graph, int *uses) {
    for (ir_op *op = graph->last, *prev; op; op = prev) {
        prev = op->prev;
        if ((ir_op_info_get(op->code)->traits & IR_TRAIT_PURE) && !is_used(op, uses)) {
            for (int i = 0; i < op->n_operands; i++)
                uses[op->operands[i]->id]--;
            ir_op_remove(op);
        } else if (op->body) {
            drop_results(op, uses);
            remove_dead(op->body, uses);
            drop_operands(op, uses);
        }
    }
}

bool pass_dce(pass_context *context) {
    ir_arena *scratch = ir_arena_create();
    if (!scratch)
        return ir_error(context->diag, context->module->name, "out of memory");
    remove_dead(context->module->graph, ir_count_uses(context->module->graph, scratch));
    ir_arena_destroy(scratch);
    return true;
}

/* Puts the weights that kernels multiply with into the order the target reads.
 *
 *   %k = kernel(%x, %w) {…matmul…}      ->   %p = pack(%w) {layout = "n16"} : q4_1[576, 576]@n16
 *                                            %k = kernel(%x, %p) {…}
 *
 * A matmul whose two halves its kernel computes in lockstep gets layout "n16x2", which alternates
 * tiles of the halves. A table that is gathered from shares the packed form where there is one; a
 * quantized one is packed in any case, so that no backend reads two orders. */
#include "passes/pass.h"

#include <string.h>

/* Whether the body slices the matmul's result for anything but heads that are turned or kept: then
 * it computes the halves in lockstep. */
static bool is_in_lockstep(const ir_graph *body, const ir_op *matmul) {
    bool sliced = false;
    for (const ir_op *op = body->first; op; op = op->next) {
        if (op->code == IR_OP_ROPE || op->code == IR_OP_KV_APPEND)
            return false;
        sliced |= op->code == IR_OP_SLICE && op->operands[0]->def == matmul;
    }
    return sliced;
}

/* The layout that the kernel needs for its argument, or NULL. */
static const char *needed_layout(const ir_op *kernel, const ir_value *arg) {
    for (const ir_op *op = kernel->body->first; op; op = op->next) {
        if (op->code == IR_OP_MATMUL && op->operands[1] == arg)
            return is_in_lockstep(kernel->body, op) ? "n16x2" : "n16";
        if (op->code == IR_OP_GATHER && op->operands[0] == arg && arg->type.encoding)
            return "n16";
    }
    return NULL;
}

/* Whether the body uses the argument as anything but a matmul's weight or a table: a packed one has
 * no other meaning. */
static bool is_used_otherwise(const ir_op *kernel, const ir_value *arg) {
    for (const ir_op *op = kernel->body->first; op; op = op->next)
        for (int k = 0; k < op->n_operands; k++)
            if (op->operands[k] == arg && !(op->code == IR_OP_MATMUL && k == 1) &&
                !(op->code == IR_OP_GATHER && k == 0))
                return true;
    return false;
}

static bool is_weight(const ir_op *op) {
    return op && (op->code == IR_OP_WEIGHT || op->code == IR_OP_WEIGHT_CONCAT);
}

static ir_op *find_pack(const ir_graph *graph, const ir_value *weight, const char *layout) {
    for (ir_op *op = graph->first; op; op = op->next)
        if (op->code == IR_OP_PACK && op->operands[0] == weight &&
            (!layout || strcmp(ir_op_string(op, "layout"), layout) == 0))
            return op;
    return NULL;
}

static void use_packed(ir_op *kernel, int operand, ir_op *pack) {
    kernel->operands[operand] = pack->results[0];
    kernel->body->args[operand]->type = pack->results[0]->type;
}

bool pass_pack(pass_context *context) {
    ir_graph *graph = context->module->graph;
    for (ir_op *op = graph->first; op; op = op->next) {
        if (op->code != IR_OP_KERNEL)
            continue;
        for (int i = 0; i < op->n_operands; i++) {
            ir_value *w = op->operands[i];
            const char *layout = needed_layout(op, op->body->args[i]);
            if (!is_weight(w->def) || !layout)
                continue;
            if (is_used_otherwise(op, op->body->args[i]))
                return ir_error(context->diag, ir_op_label(op),
                                "%s is multiplied with and used elementwise in one kernel; split "
                                "the kernel in the plan",
                                ir_op_label(w->def));
            ir_op *pack = find_pack(graph, w, layout);
            if (!pack) {
                ir_attr attr = IR_STRING("layout", layout);
                /* Right after the weight, so that kernels anywhere may share it. */
                pack = ir_op_create(graph, w->def->next,
                                    &(ir_op_spec){.code = IR_OP_PACK,
                                                  .name = w->def->name,
                                                  .operands = &w,
                                                  .n_operands = 1,
                                                  .attrs = &attr,
                                                  .n_attrs = 1},
                                    context->diag);
            }
            if (!pack)
                return false;
            use_packed(op, i, pack);
        }
    }
    /* Unquantized tables follow their packed form, if a matmul asked for one. */
    for (ir_op *op = graph->first; op; op = op->next)
        for (int i = 0; op->code == IR_OP_KERNEL && i < op->n_operands; i++) {
            ir_op *def = op->operands[i]->def;
            ir_op *pack = is_weight(def) ? find_pack(graph, op->operands[i], NULL) : NULL;
            if (pack && !is_used_otherwise(op, op->body->args[i]))
                use_packed(op, i, pack);
        }
    return true;
}

/* Lets the step choose tokens: samples from the logits, where that is asked for.
 *
 *   output(%l) {name = "logits"}  ->  output(%l) {name = "logits"}
 *                                     %s = sample(%l) @"sample"
 *                                     output(%s) {name = "samples"} */
#include "passes/pass.h"

#include <string.h>

static ir_op *find_output(const ir_graph *graph, const char *name) {
    for (ir_op *op = graph->first; op; op = op->next)
        if (op->code == IR_OP_OUTPUT && strcmp(ir_op_string(op, "name"), name) == 0)
            return op;
    return NULL;
}

bool pass_sampling(pass_context *context) {
    ir_graph *graph = context->module->graph;
    if (!context->options || !context->options->sampling)
        return true;
    ir_op *logits = find_output(graph, "logits");
    if (!logits || find_output(graph, "samples"))
        return ir_error(context->diag, context->module->name,
                        "the graph has %s, so tokens cannot be sampled in the step",
                        logits ? "samples already" : "no output \"logits\"");
    ir_op *sample = ir_op_create(
        graph, logits->next,
        &(ir_op_spec){
            .code = IR_OP_SAMPLE, .name = "sample", .operands = logits->operands, .n_operands = 1},
        context->diag);
    return sample && ir_op_create(graph, sample->next,
                                  &(ir_op_spec){.code = IR_OP_OUTPUT,
                                                .operands = sample->results,
                                                .n_operands = 1,
                                                .attrs = &IR_STRING("name", "samples"),
                                                .n_attrs = 1},
                                  context->diag);
}

/* Computes rope's frequencies when compiling and states the table in primitive ops.
 *
 *   %1 = rope_table(%0)        ->   %2 = weight {name = "rope.0.frequencies"} : f32[1, 64]
 *        {theta = 10000,            %3 = cast(reshape(%0)) : f32[T, 1]
 *         dims = 64,                %4 = mul(%3, %2) : f32[T, 64]
 *         width = 64, …}            %1 = reshape(concat(cos(%4), sin(%4))) : f32[T, 2, 64]
 */
#include "passes/pass.h"

#include "ir/interp.h"

#include <math.h>
#include <string.h>

/* The angle per position of each of `width` elements; beyond dims it is 0: cosine 1, sine 0. */
static bool frequencies(pass_context *c, const ir_op *op, float *out) {
    int64_t dims = ir_op_int(op, "dims"), width = ir_op_int(op, "width");
    bool half = strcmp(ir_op_string(op, "style"), "half") == 0;
    double theta = ir_op_float(op, "theta"), scale = ir_op_float(op, "scale");
    const float *factors = NULL;
    ir_arena *scratch = ir_arena_create();
    if (op->n_operands > 1) {
        factors = ir_interp_constant(c->module, op->operands[1], scratch, c->diag);
        if (!factors) {
            ir_arena_destroy(scratch);
            return false;
        }
    }
    for (int64_t i = 0; i < width; i++) {
        int64_t pair = half ? i % (dims / 2) : i / 2;
        float f = (float)(1.0 / pow(theta, 2.0 * (double)pair / (double)dims) * scale);
        out[i] = i >= dims ? 0.0f : factors ? f / factors[pair] : f;
    }
    ir_arena_destroy(scratch);
    return true;
}

static bool expand(pass_context *c, ir_op *op, int index) {
    ir_module *m = c->module;
    int64_t width = ir_op_int(op, "width");
    ir_value *positions = op->operands[0];
    ir_dim rows = positions->type.dims[0];
    float *data = ir_arena_array(m->arena, (size_t)width, sizeof *data);
    if (!frequencies(c, op, data))
        return false;
    const char *name = ir_arena_printf(m->arena, "rope.%d.frequencies", index);
    ir_type type = ir_tensor(IR_F32, 2, (ir_dim[]){ir_dim_const(1), ir_dim_const(width)});
    ir_module_add_weight(m, name, &type, data, width * (int64_t)sizeof *data);

    /* Built before the op, each from the one before; a NULL ends the chain with a message. */
    const char *base = op->name ? op->name : "rope_table";
    ir_type column = ir_tensor(IR_I32, 2, (ir_dim[]){rows, ir_dim_const(1)});
    ir_type f32_column = ir_tensor(IR_F32, 2, column.dims);
    ir_type table = op->results[0]->type;
    ir_attr weight_name = IR_STRING("name", name), axis = IR_INT("axis", 1);
#define BUILD(result, opcode, suffix, n, operand_list, stated, n_stated, attribute, n_attributes)  \
    ir_op *result =                                                                                \
        ir_op_create(m->graph, op,                                                                 \
                     &(ir_op_spec){.code = opcode,                                                 \
                                   .name = ir_arena_printf(m->arena, "%s.%s", base, suffix),       \
                                   .operands = operand_list,                                       \
                                   .n_operands = n,                                                \
                                   .attrs = attribute,                                             \
                                   .n_attrs = n_attributes,                                        \
                                   .types = stated,                                                \
                                   .n_types = n_stated},                                           \
                     c->diag);                                                                     \
    if (!result)                                                                                   \
    return false
    BUILD(weight, IR_OP_WEIGHT, "frequencies", 0, NULL, &type, 1, &weight_name, 1);
    BUILD(reshaped, IR_OP_RESHAPE, "positions", 1, &positions, &column, 1, NULL, 0);
    BUILD(cast, IR_OP_CAST, "cast", 1, reshaped->results, &f32_column, 1, NULL, 0);
    ir_value *factors[] = {cast->results[0], weight->results[0]};
    BUILD(angle, IR_OP_MUL, "angle", 2, factors, NULL, 0, NULL, 0);
    BUILD(cosine, IR_OP_COS, "cos", 1, angle->results, NULL, 0, NULL, 0);
    BUILD(sine, IR_OP_SIN, "sin", 1, angle->results, NULL, 0, NULL, 0);
    ir_value *halves[] = {cosine->results[0], sine->results[0]};
    BUILD(both, IR_OP_CONCAT, "concat", 2, halves, NULL, 0, &axis, 1);
    BUILD(shaped, IR_OP_RESHAPE, "table", 1, both->results, &table, 1, NULL, 0);
#undef BUILD
    ir_replace_uses(m->graph, op->results[0], shaped->results[0]);
    ir_op_remove(op);
    return true;
}

bool pass_rope_frequencies(pass_context *context) {
    int index = 0;
    for (ir_op *op = context->module->graph->first, *next; op; op = next) {
        next = op->next;
        if (op->code == IR_OP_ROPE_TABLE && !expand(context, op, index++))
            return false;
    }
    return true;
}

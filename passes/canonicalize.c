/* One form for what can be written in several, by rules on one op and what defines its operands:
 * moves without effect vanish (reshape to the same shape, slice of the whole, cast to the same
 * type, transpose that does nothing), chains of them become one, neutral operands vanish (x + 0,
 * x * 1, x / 1), and constants and weights stand second in commutative ops.
 *
 *   %1 = constant {values = [1]} : f32[]
 *   %2 = reshape(%0) : f32[T, 2, 4]
 *   %3 = reshape(%2) : f32[T, 8]
 *   %4 = mul(%1, %3) : f32[T, 8]
 *   %5 = neg(%4) : f32[T, 8]         ->   %5 = neg(%0) : f32[T, 8]    (%0 is f32[T, 8])
 *
 * Results keep their bits, but for the sign of zero in x + 0. */
#include "passes/pass.h"

#include <string.h>

/* Whether a value is one number repeated, and which. */
static bool is_splat(const ir_value *value, double *number) {
    const ir_op *def = value->def;
    while (def && (def->code == IR_OP_RESHAPE || def->code == IR_OP_BROADCAST))
        def = def->operands[0]->def;
    if (!def || def->code != IR_OP_CONSTANT)
        return false;
    const ir_attr *values = ir_op_attr(def, "values");
    for (int i = 1; i < values->count; i++)
        if (values->floats[i] != values->floats[0])
            return false;
    *number = values->floats[0];
    return true;
}

static bool is_number(const ir_value *value, double number) {
    double found = 0;
    return is_splat(value, &found) && found == number;
}

/* Weights and constants, and what is only a view of them. */
static bool is_fixed(const ir_value *value) {
    const ir_op *def = value->def;
    while (def && def->n_operands == 1 && (ir_op_info_get(def->code)->traits & IR_TRAIT_VIEW))
        def = def->operands[0]->def;
    return def && (def->code == IR_OP_WEIGHT || def->code == IR_OP_CONSTANT);
}

/* The op that defines operand i, if its code is `code`. */
static ir_op *operand_def(const ir_op *op, int i, ir_opcode code) {
    ir_op *def = op->operands[i]->def;
    return def && def->code == code ? def : NULL;
}

/* --- rules: each returns the value that replaces op's result, or NULL; or changes op in place ----
 */

static ir_value *neutral_operand(const ir_op *op) {
    ir_value *a = op->operands[0], *b = op->operands[1];
    switch (op->code) {
    case IR_OP_ADD:
    case IR_OP_SUB:
        return is_number(b, 0) ? a : op->code == IR_OP_ADD && is_number(a, 0) ? b : NULL;
    case IR_OP_MUL:
        return is_number(b, 1) ? a : is_number(a, 1) ? b : NULL;
    case IR_OP_DIV:
    case IR_OP_POW:
        return is_number(b, 1) ? a : NULL;
    case IR_OP_MAX:
    case IR_OP_MIN:
        return a == b ? a : NULL;
    default:
        return NULL;
    }
}

static ir_value *neutral_move(const ir_op *op) {
    ir_value *a = op->operands[0];
    switch (op->code) {
    case IR_OP_RESHAPE:
    case IR_OP_BROADCAST:
    case IR_OP_CAST:
    case IR_OP_SLICE: /* to the same type: the whole */
    case IR_OP_REDUCE_SUM:
    case IR_OP_REDUCE_MAX:
    case IR_OP_REDUCE_MEAN: /* to the same type: of one element */
        return a;
    case IR_OP_TRANSPOSE: {
        const ir_attr *perm = ir_op_attr(op, "perm");
        for (int i = 0; i < perm->count; i++)
            if (perm->ints[i] != i)
                return NULL;
        return a;
    }
    case IR_OP_CONCAT:
    case IR_OP_WEIGHT_CONCAT:
        return op->n_operands == 1 ? a : NULL;
    case IR_OP_WHERE:
        return op->operands[1] == op->operands[2] ? op->operands[1] : NULL;
    default:
        return NULL;
    }
}

static ir_value *double_op(const ir_op *op) {
    ir_op *inner;
    if (op->code == IR_OP_NEG && (inner = operand_def(op, 0, IR_OP_NEG)))
        return inner->operands[0];
    if (op->code == IR_OP_ABS && operand_def(op, 0, IR_OP_ABS))
        return op->operands[0];
    return NULL;
}

/* A move of a move becomes one move of the first operand. */
static bool join_moves(ir_op *op) {
    ir_op *inner;
    if (op->code == IR_OP_RESHAPE && (inner = operand_def(op, 0, IR_OP_RESHAPE))) {
        op->operands[0] = inner->operands[0];
        return true;
    }
    if (op->code == IR_OP_BROADCAST && (inner = operand_def(op, 0, IR_OP_BROADCAST))) {
        op->operands[0] = inner->operands[0];
        return true;
    }
    if (op->code == IR_OP_TRANSPOSE && (inner = operand_def(op, 0, IR_OP_TRANSPOSE))) {
        const ir_attr *outer_perm = ir_op_attr(op, "perm");
        const ir_attr *inner_perm = ir_op_attr(inner, "perm");
        int64_t perm[IR_MAX_RANK];
        for (int i = 0; i < outer_perm->count; i++)
            perm[i] = inner_perm->ints[outer_perm->ints[i]];
        ir_op_set_attr(op, &IR_INT_LIST("perm", perm, outer_perm->count));
        op->operands[0] = inner->operands[0];
        return true;
    }
    if (op->code == IR_OP_SLICE && (inner = operand_def(op, 0, IR_OP_SLICE)) &&
        ir_op_int(op, "axis") == ir_op_int(inner, "axis")) {
        ir_op_set_attr(op, &IR_INT("start", ir_op_int(op, "start") + ir_op_int(inner, "start")));
        op->operands[0] = inner->operands[0];
        return true;
    }
    if (op->code == IR_OP_ABS && (inner = operand_def(op, 0, IR_OP_NEG))) {
        op->operands[0] = inner->operands[0];
        return true;
    }
    return false;
}

static bool order_operands(ir_op *op) {
    if (!(ir_op_info_get(op->code)->traits & IR_TRAIT_COMMUTATIVE) || op->n_operands != 2 ||
        !is_fixed(op->operands[0]) || is_fixed(op->operands[1]))
        return false;
    ir_value *first = op->operands[0];
    op->operands[0] = op->operands[1];
    op->operands[1] = first;
    return true;
}

/* --- the walk ----------------------------------------------------------------------------------
 */

static ir_value *replacement_of(const ir_op *op) {
    if (op->n_results != 1 || op->n_operands < 1)
        return NULL;
    ir_value *value = op->n_operands == 2 ? neutral_operand(op) : NULL;
    if (!value)
        value = neutral_move(op);
    if (!value)
        value = double_op(op);
    return value && ir_type_equal(&value->type, &op->results[0]->type) ? value : NULL;
}

/* Forward, with the operands of each op replaced before its rules are tried: chains collapse in one
 * walk. */
static void walk(ir_graph *graph, ir_value **replacement) {
    for (ir_op *op = graph->first, *next; op; op = next) {
        next = op->next;
        for (int i = 0; i < op->n_operands; i++)
            if (replacement[op->operands[i]->id])
                op->operands[i] = replacement[op->operands[i]->id];
        if (op->body)
            walk(op->body, replacement);
        while (join_moves(op) || order_operands(op))
            ;
        ir_value *value = replacement_of(op);
        if (!value)
            continue;
        replacement[op->results[0]->id] = value;
        ir_op_remove(op);
    }
}

bool pass_canonicalize(pass_context *context) {
    ir_module *m = context->module;
    ir_arena *scratch = ir_arena_create();
    if (!scratch)
        return ir_error(context->diag, m->name, "out of memory");
    walk(m->graph, ir_arena_array(scratch, (size_t)m->n_values, sizeof(ir_value *)));
    ir_arena_destroy(scratch);
    return true;
}

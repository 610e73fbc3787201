/* Computes, when compiling, what depends on weights and constants alone, if it is small: the result
 * is a constant, or a new weight named after the one it comes from.
 *
 *   %1 = weight {name = "norm"} : f32[640]
 *   %2 = constant {values = [1]} : f32[]
 *   %3 = add(%1, %2) : f32[640]
 *   %4 = rms_norm(%0, %3) {eps = 1e-06} : f32[T, 640]
 * ->
 *   %5 = weight {name = "norm.add"} : f32[640]
 *   %4 = rms_norm(%0, %5) {eps = 1e-06} : f32[T, 640]
 *
 * Quantized weights are left alone: computed with, they would become floats. So are weights
 * without data (a module that came from text). */
#include "passes/pass.h"

#include "ir/interp.h"

#include <string.h>

enum {
    MAX_ELEMENTS = 1 << 20,     /* of operands and results */
    MAX_CONSTANT_ELEMENTS = 64, /* beyond that a result becomes a weight */
    MAX_PRODUCTS = 1 << 26,     /* multiplications of a matmul */
};

/* A matmul of small operands may still be much work. */
static bool is_much_work(const ir_op *op) {
    if (op->code != IR_OP_MATMUL)
        return false;
    const ir_type *a = &op->operands[0]->type;
    int64_t k = a->dims[a->rank - 1].c;
    return ir_type_elements(&op->results[0]->type).c > MAX_PRODUCTS / k;
}

/* What a value depends on. */
enum { VARIABLE, ON_CONSTANTS, ON_WEIGHTS };

struct folder {
    pass_context *context;
    unsigned char *depends;  /* by value id */
    bool *used_by_variable;  /* by value id: some user is not folded itself */
    ir_value **replacements; /* by value id */
};

static bool is_small(const ir_type *type) {
    ir_dim elements = ir_type_elements(type);
    return type->kind == IR_TENSOR && !type->encoding && !type->layout &&
           ir_dim_is_const(elements) && elements.c <= MAX_ELEMENTS;
}

static int depends_on(const struct folder *f, const ir_op *op) {
    const ir_module *m = f->context->module;
    unsigned traits = ir_op_info_get(op->code)->traits;
    if (op->n_results != 1 || !(traits & IR_TRAIT_PURE) || (traits & IR_TRAIT_REGION) ||
        !is_small(&op->results[0]->type))
        return VARIABLE;
    if (op->code == IR_OP_CONSTANT)
        return ON_CONSTANTS;
    if (op->code == IR_OP_WEIGHT) {
        const ir_weight *weight = ir_module_weight(m, ir_op_string(op, "name"));
        return weight && weight->data ? ON_WEIGHTS : VARIABLE;
    }
    if (!op->n_operands || op->code == IR_OP_WEIGHT_CONCAT || op->code == IR_OP_PACK)
        return VARIABLE;
    if (is_much_work(op))
        return VARIABLE;
    int most = ON_CONSTANTS;
    for (int i = 0; i < op->n_operands; i++) {
        int depends = f->depends[op->operands[i]->id];
        if (depends == VARIABLE)
            return VARIABLE;
        if (depends > most)
            most = depends;
    }
    return most;
}

/* The first weight that a value is computed from. */
static const char *first_weight(const struct folder *f, const ir_value *value) {
    const ir_op *op = value->def;
    while (op->code != IR_OP_WEIGHT) {
        int i = 0;
        while (f->depends[op->operands[i]->id] != ON_WEIGHTS)
            i++;
        op = op->operands[i]->def;
    }
    return ir_op_string(op, "name");
}

static const char *new_weight_name(const struct folder *f, const ir_op *op) {
    ir_module *m = f->context->module;
    const char *from =
        f->depends[op->results[0]->id] == ON_WEIGHTS ? first_weight(f, op->results[0]) : "constant";
    const char *text = ir_op_info_get(op->code)->name;
    const char *name = ir_arena_printf(m->arena, "%s.%s", from, text);
    for (int i = 2; ir_module_weight(m, name); i++)
        name = ir_arena_printf(m->arena, "%s.%s.%d", from, text, i);
    return name;
}

static ir_op *make_constant(const struct folder *f, ir_op *op, const float *data, int64_t count) {
    ir_module *m = f->context->module;
    double values[MAX_CONSTANT_ELEMENTS];
    bool splat = true;
    for (int64_t i = 1; i < count; i++)
        splat = splat && !memcmp(&data[i], &data[0], sizeof *data);
    int n = splat ? 1 : (int)count;
    for (int i = 0; i < n; i++)
        values[i] = data[i];
    return ir_op_create(m->graph, op,
                        &(ir_op_spec){.code = IR_OP_CONSTANT,
                                      .name = op->name,
                                      .attrs = &IR_FLOAT_LIST("values", values, n),
                                      .n_attrs = 1,
                                      .types = &op->results[0]->type,
                                      .n_types = 1,
                                      .line = op->line},
                        f->context->diag);
}

static ir_op *make_weight(const struct folder *f, ir_op *op, const float *data, int64_t count) {
    ir_module *m = f->context->module;
    const char *name = new_weight_name(f, op);
    ir_module_add_weight(m, name, &op->results[0]->type, data, count * (int64_t)sizeof *data);
    return ir_op_create(m->graph, op,
                        &(ir_op_spec){.code = IR_OP_WEIGHT,
                                      .name = op->name,
                                      .attrs = &IR_STRING("name", name),
                                      .n_attrs = 1,
                                      .types = &op->results[0]->type,
                                      .n_types = 1,
                                      .line = op->line},
                        f->context->diag);
}

static bool fold(struct folder *f, ir_op *op) {
    ir_module *m = f->context->module;
    ir_value *result = op->results[0];
    int64_t count = ir_type_elements(&result->type).c;
    const float *data = ir_interp_constant(m, result, m->arena, f->context->diag);
    if (!data)
        return false;
    bool small = f->depends[result->id] == ON_CONSTANTS && count <= MAX_CONSTANT_ELEMENTS;
    ir_op *made = small ? make_constant(f, op, data, count) : make_weight(f, op, data, count);
    if (!made)
        return false;
    f->replacements[result->id] = made->results[0];
    return true;
}

bool pass_constant_fold(pass_context *context) {
    ir_module *m = context->module;
    ir_arena *scratch = ir_arena_create();
    if (!scratch)
        return ir_error(context->diag, m->name, "out of memory");
    size_t n = (size_t)m->n_values;
    struct folder f = {.context = context,
                       .depends = ir_arena_array(scratch, n, 1),
                       .used_by_variable = ir_arena_array(scratch, n, sizeof(bool)),
                       .replacements = ir_arena_array(scratch, n, sizeof(ir_value *))};
    for (ir_op *op = m->graph->first; op; op = op->next) {
        int depends = depends_on(&f, op);
        for (int i = 0; i < op->n_results; i++)
            f.depends[op->results[i]->id] = (unsigned char)depends;
        for (int i = 0; i < op->n_operands && depends == VARIABLE; i++)
            f.used_by_variable[op->operands[i]->id] = true;
    }
    /* Only what something variable reads is computed; what lies between is dead then. Ops made on
     * the way have ids beyond the tables and no operands. */
    bool ok = true;
    for (ir_op *op = m->graph->first; op && ok; op = op->next) {
        bool variable = !op->n_results || (size_t)op->results[0]->id >= n ||
                        f.depends[op->results[0]->id] == VARIABLE;
        for (int i = 0; i < op->n_operands && variable; i++) {
            ir_value *replacement = f.replacements[op->operands[i]->id];
            if (replacement)
                op->operands[i] = replacement;
        }
        if (!variable && op->n_operands && f.used_by_variable[op->results[0]->id] &&
            op->results[0]->type.dtype == IR_F32)
            ok = fold(&f, op);
    }
    ir_arena_destroy(scratch);
    return ok;
}

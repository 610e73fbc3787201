#include "codegen/artifact/program.h"

#include "ir/text.h"

#include <string.h>

typedef struct lister {
    cg_program_list *out;
    const cg_backend *backend;
    ir_arena *arena;
    ir_diag *diag;
    const char **texts; /* of the distinct kernels */
    int *weight_of;     /* by value id: index + 1 */
    int *buffer_of;
} lister;

static const ir_value *root(const ir_value *v) {
    while (v->def && (ir_op_info_get(v->def->code)->traits & IR_TRAIT_VIEW))
        v = v->def->operands[0];
    return v;
}

static int kernel_index(lister *l, const cg_kernel *kernel) {
    const char *text = cg_kernel_describe(kernel, l->arena);
    for (int i = 0; i < l->out->n_kernels; i++)
        if (strcmp(l->texts[i], text) == 0)
            return i;
    l->texts[l->out->n_kernels] = text;
    l->out->kernels[l->out->n_kernels] = kernel;
    return l->out->n_kernels++;
}

/* --- weights
 * -------------------------------------------------------------------------------------- */

static bool add_part(lister *l, cg_weight *w, const ir_value *v) {
    const ir_weight *source = v->def && v->def->code == IR_OP_WEIGHT
                                  ? ir_module_weight(l->out->module, ir_op_string(v->def, "name"))
                                  : NULL;
    if (!source || !source->data)
        return ir_error(l->diag, w->name, "a weight of the kernel has no data");
    w->sources[w->n_parts] = source->data;
    w->rows[w->n_parts++] = source->type.rank > 1 ? source->type.dims[0].c : 1;
    return true;
}

static int add_weight(lister *l, const ir_value *value) {
    if (l->weight_of[value->id])
        return l->weight_of[value->id] - 1;
    cg_weight *w = &l->out->weights[l->out->n_weights];
    const ir_op *op = value->def;
    *w = (cg_weight){.type = value->type};
    const ir_op *inner = op->code == IR_OP_PACK ? op->operands[0]->def : op;
    int n = inner && inner->code == IR_OP_WEIGHT_CONCAT ? inner->n_operands : 1;
    w->sources = ir_arena_array(l->arena, (size_t)n, sizeof *w->sources);
    w->rows = ir_arena_array(l->arena, (size_t)n, sizeof *w->rows);
    w->name = inner->code == IR_OP_WEIGHT ? ir_op_string(inner, "name") : ir_op_label(inner);
    if (inner->code == IR_OP_WEIGHT_CONCAT && !inner->name) {
        /* "a.weight" + "b.weight", so that a reader finds both. */
        w->name = ir_op_string(inner->operands[0]->def, "name");
        for (int i = 1; i < n; i++)
            w->name = ir_arena_printf(l->arena, "%s+%s", w->name,
                                      ir_op_string(inner->operands[i]->def, "name"));
    }
    for (int i = 0; i < n; i++)
        if (!add_part(l, w,
                      inner->code == IR_OP_WEIGHT_CONCAT ? inner->operands[i]
                      : op->code == IR_OP_PACK           ? op->operands[0]
                                                         : value))
            return -1;
    w->bytes =
        (uint64_t)(w->type.layout ? l->backend->packed_bytes(&w->type) : ir_type_bytes(&w->type).c);
    w->offset = (l->out->weight_bytes + 63) / 64 * 64;
    l->out->weight_bytes = w->offset + w->bytes;
    l->weight_of[value->id] = ++l->out->n_weights;
    return l->out->n_weights - 1;
}

/* --- arguments
 * ------------------------------------------------------------------------------------- */

static bool step_arg(lister *l, const ir_op *input, mcc_arg_entry *arg) {
    static const struct {
        const char *name;
        mcc_step_array array;
    } arrays[] = {{"token_ids", MCC_STEP_TOKEN_IDS},
                  {"positions", MCC_STEP_POSITIONS},
                  {"output_rows", MCC_STEP_OUTPUT_ROWS}};
    const char *name = ir_op_string(input, "name");
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        if (strcmp(arrays[i].name, name) == 0) {
            *arg = (mcc_arg_entry){.kind = MCC_ARG_STEP, .index = arrays[i].array};
            return true;
        }
    return ir_error(l->diag, ir_op_label(input),
                    "the step block has no input \"%s\"; it has token_ids, positions, output_rows",
                    name);
}

static bool kv_arg(lister *l, const ir_value *v, mcc_arg_entry *arg) {
    const ir_op *source = ir_kv_source(v);
    if (!source)
        return ir_internal_error(l->diag, NULL, "a cache comes from nowhere");
    *arg = (mcc_arg_entry){.kind = MCC_ARG_KV,
                           .index = (uint32_t)ir_op_int(source, "group"),
                           .layer = (uint32_t)ir_op_int(source, "layer")};
    return true;
}

static bool add_arg(lister *l, const cg_arg *a) {
    mcc_arg_entry *arg = &l->out->args[l->out->n_args++];
    switch (a->kind) {
    case CG_ARG_STEP:
        return step_arg(l, a->value->def, arg);
    case CG_ARG_KV:
        return kv_arg(l, a->value, arg);
    case CG_ARG_WEIGHT: {
        int index = add_weight(l, a->value);
        *arg = (mcc_arg_entry){.kind = MCC_ARG_WEIGHT, .index = (uint32_t)index};
        return index >= 0;
    }
    case CG_ARG_BUFFER:
        break;
    }
    int index = l->buffer_of[root(a->value)->id];
    if (!index)
        return ir_internal_error(l->diag, ir_op_label(a->value->def), "it has no buffer");
    *arg = (mcc_arg_entry){.kind = MCC_ARG_BUFFER, .index = (uint32_t)(index - 1)};
    return true;
}

static ir_dim read_dim(const ir_attr *attr, int index) {
    const int64_t *n = attr->ints + 4 * index;
    return (ir_dim){.c = n[0], .t = n[1], .s = n[2], .r = n[3]};
}

static bool add_buffers(lister *l, const ir_op *op) {
    const ir_attr *places = ir_op_attr(op, "buffers"), *arena = ir_op_attr(op, "arena");
    if (!places || places->count != 4 * op->n_results)
        return ir_internal_error(l->diag, ir_op_label(op), "memory-plan has not run");
    for (int i = 0; i < op->n_results; i++) {
        if (op->results[i]->type.kind == IR_KV)
            continue;
        l->out->buffers[l->out->n_buffers] =
            (cg_buffer){.offset = read_dim(places, i),
                        .bytes = ir_type_bytes(&op->results[i]->type),
                        .type = op->results[i]->type};
        l->buffer_of[op->results[i]->id] = ++l->out->n_buffers;
    }
    if (arena && arena->count == 4)
        l->out->arena_bytes = read_dim(arena, 0);
    return true;
}

static bool add_launch(lister *l, const ir_op *op, const cg_kernel *kernel) {
    cg_launch *launch = &l->out->launches[l->out->n_launches++];
    *launch = (cg_launch){.kernel = kernel_index(l, kernel),
                          .first_arg = l->out->n_args,
                          .n_args = kernel->n_args,
                          .op = op,
                          .tiling = l->backend->tiling(kernel)};
    int64_t scratch = l->backend->scratch_bytes(kernel);
    if (scratch > l->out->scratch_bytes)
        l->out->scratch_bytes = scratch;
    int64_t shared = l->backend->shared_bytes(kernel);
    if (shared > l->out->shared_bytes)
        l->out->shared_bytes = shared;
    for (int i = 0; i < kernel->n_args; i++)
        if (!add_arg(l, &kernel->args[i]))
            return false;
    return true;
}

static bool add_output(lister *l, const ir_op *op) {
    const ir_value *v = op->operands[0];
    int buffer = l->buffer_of[root(v)->id];
    if (!buffer || v->type.encoding || v->type.dtype != IR_F32 || v->type.rank != 2)
        return ir_error(l->diag, ir_op_string(op, "name"),
                        "an output must be a matrix of f32 that a kernel computes");
    l->out->outputs[l->out->n_outputs++] = (cg_output){
        .name = ir_op_string(op, "name"), .buffer = buffer - 1, .width = v->type.dims[1].c};
    return true;
}

cg_program_list *cg_program_create(const ir_module *module, const cg_backend *backend,
                                   ir_arena *arena, ir_diag *diag) {
    cg_program_list *out = ir_arena_alloc(arena, sizeof *out);
    *out = (cg_program_list){.module = module};
    lister l = {.out = out, .backend = backend, .arena = arena, .diag = diag};
    size_t n_ops = 1, n_args = 1;
    for (const ir_op *op = module->graph->first; op; op = op->next) {
        n_ops++;
        n_args += (size_t)(op->n_operands + op->n_results);
    }
    out->kernels = ir_arena_array(arena, n_ops, sizeof *out->kernels);
    l.texts = ir_arena_array(arena, n_ops, sizeof *l.texts);
    out->launches = ir_arena_array(arena, n_ops, sizeof *out->launches);
    out->outputs = ir_arena_array(arena, n_ops, sizeof *out->outputs);
    out->args = ir_arena_array(arena, n_args, sizeof *out->args);
    out->weights = ir_arena_array(arena, n_args, sizeof *out->weights);
    out->buffers = ir_arena_array(arena, n_args, sizeof *out->buffers);
    l.weight_of = ir_arena_array(arena, (size_t)module->n_values, sizeof(int));
    l.buffer_of = ir_arena_array(arena, (size_t)module->n_values, sizeof(int));
    int errors = diag->errors;
    for (const ir_op *op = module->graph->first; op; op = op->next) {
        if (op->code == IR_OP_KERNEL) {
            const cg_kernel *kernel = cg_kernel_lower(op, arena, diag);
            /* Go on after a kernel that cannot be lowered, so that all such ops are listed. */
            if (add_buffers(&l, op) && kernel)
                add_launch(&l, op, kernel);
        } else if (op->code == IR_OP_OUTPUT && diag->errors == errors) {
            add_output(&l, op);
        }
    }
    return diag->errors == errors ? out : NULL;
}

/* The interpreter's driver: checks the step, runs ops in order, keeps outputs. See interp.h. */
#include "ir/interp_impl.h"
#include "ir/verify.h"

#include <stdlib.h>
#include <string.h>

/* --- sources, sinks and regions ----------------------------------------------------------------
 */

static bool eval_input(ir_interp *in, const ir_op *op) {
    const char *name = ir_op_string(op, "name");
    const int32_t *from = strcmp(name, "token_ids") == 0     ? in->step.token_ids
                          : strcmp(name, "positions") == 0   ? in->step.positions
                          : strcmp(name, "output_rows") == 0 ? in->step.output_rows
                                                             : NULL;
    interp_shape shape;
    float *out = interp_result(in, op, 0, &shape);
    if (!out)
        return false;
    int64_t given = strcmp(name, "output_rows") == 0 ? in->step.R : in->step.T;
    if (shape.count != given || (given && !from))
        return ir_error(in->diag, ir_op_label(op),
                        "input \"%s\" has %lld elements, the step gives %lld", name,
                        (long long)shape.count, (long long)(from ? given : 0));
    for (int64_t i = 0; i < shape.count; i++)
        if (!interp_round(IR_I32, from[i], &out[i]))
            return interp_round_error(in, op, IR_I32, from[i]);
    return true;
}

/* The weight stays as stored until an op reads its rows. */
static bool eval_weight(ir_interp *in, const ir_op *op) {
    const char *name = ir_op_string(op, "name");
    const ir_weight *weight = ir_module_weight(in->module, name);
    if (!weight || !weight->data)
        return ir_error(in->diag, ir_op_label(op), "weight \"%s\" has no data", name);
    const ir_type *type = &op->results[0]->type;
    if (!ir_type_equal(type, &weight->type) || type->layout ||
        weight->bytes != ir_type_bytes(type).c)
        return ir_error(in->diag, ir_op_label(op),
                        "weight \"%s\" is not stored as its type states: %lld bytes, expected %lld",
                        name, (long long)weight->bytes, (long long)ir_type_bytes(type).c);
    interp_part *part = malloc(sizeof *part);
    if (!part)
        return ir_error(in->diag, ir_op_label(op), "out of memory");
    int64_t k = type->rank ? type->dims[type->rank - 1].c : 1;
    *part = (interp_part){
        .data = weight->data, .type = &weight->type, .rows = k ? ir_type_elements(type).c / k : 0};
    in->values[op->results[0]->id] =
        (interp_value){.ready = true, .owned = true, .parts = part, .n_parts = 1};
    return true;
}

/* pack and weight_concat: the rows of all operands, still as stored. */
static bool eval_weight_rows(ir_interp *in, const ir_op *op) {
    int64_t n = 0;
    for (int i = 0; i < op->n_operands; i++) {
        const interp_value *value = &in->values[op->operands[i]->id];
        if (!value->parts)
            return op->code == IR_OP_PACK ? interp_reshape(in, op) : interp_concat(in, op);
        n += value->n_parts;
    }
    interp_part *parts = calloc((size_t)n, sizeof *parts);
    if (!parts)
        return ir_error(in->diag, ir_op_label(op), "out of memory");
    interp_value result = {.ready = true, .owned = true, .parts = parts};
    for (int i = 0; i < op->n_operands; i++) {
        const interp_value *value = &in->values[op->operands[i]->id];
        memcpy(parts + result.n_parts, value->parts, (size_t)value->n_parts * sizeof *parts);
        result.n_parts += value->n_parts;
    }
    in->values[op->results[0]->id] = result;
    return true;
}

static bool eval_constant(ir_interp *in, const ir_op *op) {
    interp_shape shape;
    const ir_attr *values = ir_op_attr(op, "values");
    float *out = interp_result(in, op, 0, &shape);
    if (!out)
        return false;
    ir_dtype dtype = op->results[0]->type.dtype;
    for (int64_t i = 0; i < shape.count; i++) {
        double v = values->floats[values->count == 1 ? 0 : i];
        if (!interp_round(dtype, v, &out[i]))
            return interp_round_error(in, op, dtype, v);
    }
    return true;
}

static bool eval_output(ir_interp *in, const ir_op *op) {
    interp_shape shape;
    const float *data = interp_operand(in, op, 0, &shape);
    float *copy = data ? interp_alloc(in, op, shape.count) : NULL;
    interp_output *outputs =
        copy ? realloc(in->outputs, (size_t)(in->n_outputs + 1) * sizeof *outputs) : NULL;
    if (!outputs) {
        free(copy);
        return data ? ir_error(in->diag, ir_op_label(op), "out of memory") : false;
    }
    memcpy(copy, data, (size_t)shape.count * sizeof *copy);
    in->outputs = outputs;
    in->outputs[in->n_outputs++] =
        (interp_output){.name = ir_op_string(op, "name"), .data = copy, .count = shape.count};
    return true;
}

static bool eval_op(ir_interp *in, const ir_op *op);

static void clear_results(ir_interp *in, const ir_op *op) {
    for (int i = 0; i < op->n_results; i++)
        interp_value_clear(&in->values[op->results[i]->id]);
}

/* Runs the body with its arguments sharing the operands' storage, then hands over what it yields.
 */
static bool eval_kernel(ir_interp *in, const ir_op *op) {
    const ir_graph *body = op->body;
    bool ok = true;
    for (int i = 0; i < body->n_args; i++) {
        interp_value *arg = &in->values[body->args[i]->id];
        interp_value_clear(arg);
        *arg = in->values[op->operands[i]->id];
        arg->owned = false;
    }
    for (const ir_op *inner = body->first; ok && inner; inner = inner->next)
        if (inner->code != IR_OP_YIELD)
            ok = eval_op(in, inner);
    const ir_op *yield = body->last;
    for (int i = 0; ok && i < op->n_results; i++) {
        interp_value *from = &in->values[yield->operands[i]->id];
        interp_value *to = &in->values[op->results[i]->id];
        if (from->kv) {
            *to = *from;
            continue;
        }
        /* Copied: an argument's storage is not ours to give, and a value may be yielded twice. */
        interp_shape shape;
        const float *data = interp_operand(in, yield, i, &shape);
        float *out = data ? interp_result(in, op, i, NULL) : NULL;
        ok = out != NULL;
        if (ok)
            memcpy(out, data, (size_t)shape.count * sizeof *out);
    }
    for (const ir_op *inner = body->first; inner; inner = inner->next)
        clear_results(in, inner);
    for (int i = 0; i < body->n_args; i++)
        interp_value_clear(&in->values[body->args[i]->id]);
    return ok;
}

/* --- dispatch ----------------------------------------------------------------------------------
 */

static interp_eval *const evaluators[IR_N_OPS] = {
    [IR_OP_INPUT] = eval_input,
    [IR_OP_WEIGHT] = eval_weight,
    [IR_OP_CONSTANT] = eval_constant,
    [IR_OP_KV_CACHE] = interp_kv_cache,
    [IR_OP_OUTPUT] = eval_output,
    [IR_OP_RESHAPE] = interp_reshape,
    [IR_OP_TRANSPOSE] = interp_transpose,
    [IR_OP_BROADCAST] = interp_broadcast,
    [IR_OP_SLICE] = interp_slice,
    [IR_OP_CONCAT] = interp_concat,
    [IR_OP_GATHER] = interp_gather,
    [IR_OP_REDUCE_SUM] = interp_reduce,
    [IR_OP_REDUCE_MAX] = interp_reduce,
    [IR_OP_REDUCE_MEAN] = interp_reduce,
    [IR_OP_SOFTMAX] = interp_softmax,
    [IR_OP_RMS_NORM] = interp_norm,
    [IR_OP_LAYER_NORM] = interp_norm,
    [IR_OP_MATMUL] = interp_matmul,
    [IR_OP_WEIGHT_CONCAT] = eval_weight_rows,
    [IR_OP_PACK] = eval_weight_rows,
    [IR_OP_ROPE_TABLE] = interp_rope_table,
    [IR_OP_ROPE] = interp_rope,
    [IR_OP_ATTENTION] = interp_attention,
    [IR_OP_KV_APPEND] = interp_kv_append,
    [IR_OP_PAGED_ATTENTION] = interp_paged_attention,
    [IR_OP_QUANTIZE] = interp_quantize,
    [IR_OP_SAMPLE] = interp_sample,
    [IR_OP_DEQUANTIZE] = interp_reshape,
    [IR_OP_KERNEL] = eval_kernel,
};

static bool eval_op(ir_interp *in, const ir_op *op) {
    const ir_op_info *info = ir_op_info_get(op->code);
    interp_eval *eval = evaluators[op->code];
    if (info->traits & IR_TRAIT_ELEMENTWISE)
        eval = interp_elementwise;
    if (!eval)
        return ir_internal_error(in->diag, ir_op_label(op), "%s cannot be evaluated here",
                                 info->name);
    for (int i = 0; i < op->n_results; i++)
        interp_value_clear(&in->values[op->results[i]->id]);
    if (!eval(in, op))
        return false;
    for (int i = 0; in->watch && i < op->n_results; i++) {
        const interp_value *value = &in->values[op->results[i]->id];
        interp_shape shape;
        if (!value->data)
            continue;
        if (!interp_shape_of(in, op, &op->results[i]->type, &shape))
            return false;
        in->watch(in->watch_user, op, i, value->data, shape.count);
    }
    return true;
}

/* --- the step ----------------------------------------------------------------------------------
 */

static bool fail_step(ir_interp *in, const char *what, int64_t index, int64_t found,
                      const char *expected) {
    return ir_error(in->diag, "step", "%s[%lld] is %lld, expected %s", what, (long long)index,
                    (long long)found, expected);
}

static int compare_slots(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static bool check_slots(ir_interp *in, const ir_interp_step *step) {
    int32_t *sorted = malloc((size_t)step->S * sizeof *sorted + 1);
    if (!sorted)
        return ir_error(in->diag, "step", "no memory for %d slots", (int)step->S);
    memcpy(sorted, step->seq_slots, (size_t)step->S * sizeof *sorted);
    qsort(sorted, (size_t)step->S, sizeof *sorted, compare_slots);
    bool ok = true;
    for (int32_t i = 0; ok && i < step->S; i++) {
        if (sorted[i] < 0)
            ok = fail_step(in, "sorted seq_slots", i, sorted[i], "0 or more");
        else if (i && sorted[i] == sorted[i - 1])
            ok = ir_error(in->diag, "step", "two sequences have cache slot %d", (int)sorted[i]);
    }
    free(sorted);
    return ok;
}

static bool check_sequences(ir_interp *in, const ir_interp_step *step) {
    if (!step->positions || !step->seq_slots)
        return ir_error(in->diag, "step", "seq_offsets come without positions and seq_slots");
    if (step->seq_offsets[0] != 0)
        return fail_step(in, "seq_offsets", 0, step->seq_offsets[0], "0");
    if (step->seq_offsets[step->S] != step->T)
        return fail_step(in, "seq_offsets", step->S, step->seq_offsets[step->S],
                         "the number of tokens");
    for (int32_t s = 0; s < step->S; s++) {
        int32_t first = step->seq_offsets[s], end = step->seq_offsets[s + 1];
        if (end < first || end > step->T)
            return fail_step(in, "seq_offsets", s + 1, end, "ascending offsets up to T");
        for (int32_t t = first; t < end; t++)
            if (step->positions[t] < 0 ||
                (t > first && step->positions[t] - 1 != step->positions[t - 1]))
                return fail_step(in, "positions", t, step->positions[t],
                                 "one more than the token before, from 0 or more");
    }
    return check_slots(in, step);
}

/* Sequences may be left out (seq_offsets NULL) when one op is evaluated that needs none. */
static bool check_step(ir_interp *in, const ir_interp_step *step) {
    if (step->T < 0 || step->S < 0 || step->R < 0)
        return ir_error(in->diag, "step", "T, S and R are %d, %d, %d, expected 0 or more",
                        (int)step->T, (int)step->S, (int)step->R);
    if (step->seq_offsets && !check_sequences(in, step))
        return false;
    for (int32_t r = 0; step->output_rows && r < step->R; r++)
        if (step->output_rows[r] < 0 || step->output_rows[r] >= step->T)
            return fail_step(in, "output_rows", r, step->output_rows[r],
                             "the index of one of the step's tokens");
    return true;
}

/* --- interp.h ----------------------------------------------------------------------------------
 */

/* Fills an interpreter whose values are empty; clear_interp undoes it. */
static bool init_interp(ir_interp *in, const ir_module *module, ir_diag *diag) {
    *in = (ir_interp){.module = module, .diag = diag};
    in->values = calloc((size_t)module->n_values + 1, sizeof *in->values);
    in->last_use = calloc((size_t)module->n_values + 1, sizeof *in->last_use);
    if (!in->values || !in->last_use)
        return ir_error(diag, module->name, "no memory for %d values", module->n_values);
    return true;
}

static void clear_outputs(ir_interp *in) {
    for (int i = 0; i < in->n_outputs; i++)
        free(in->outputs[i].data);
    in->n_outputs = 0;
}

static void clear_values(ir_interp *in) {
    for (int i = 0; in->values && i < in->module->n_values; i++)
        interp_value_clear(&in->values[i]);
}

static void clear_interp(ir_interp *in) {
    clear_values(in);
    clear_outputs(in);
    interp_kv_clear(in);
    free(in->values);
    free(in->last_use);
    free(in->outputs);
}

/* An op reads its operands, and what ops in its body read from outside. */
static void note_uses(ir_interp *in, const ir_op *op, int place) {
    for (int i = 0; i < op->n_operands; i++)
        in->last_use[op->operands[i]->id] = place;
    for (const ir_op *inner = op->body ? op->body->first : NULL; inner; inner = inner->next)
        note_uses(in, inner, place);
}

ir_interp *ir_interp_create(const ir_module *module, ir_diag *diag) {
    if (!ir_verify(module, diag))
        return NULL;
    bool ok = true;
    for (int i = 0; i < module->n_weights; i++) {
        const ir_weight *w = &module->weights[i];
        if (!w->data)
            ok = ir_error(diag, w->name, "the weight has no data");
        else if (w->type.layout || w->bytes != ir_type_bytes(&w->type).c)
            ok = ir_error(diag, w->name, "the weight has %lld bytes, its type implies %lld",
                          (long long)w->bytes, (long long)ir_type_bytes(&w->type).c);
    }
    ir_interp *in = ok ? calloc(1, sizeof *in) : NULL;
    if (!in) {
        if (ok)
            ir_error(diag, module->name, "out of memory");
        return NULL;
    }
    if (!init_interp(in, module, diag)) {
        ir_interp_destroy(in);
        return NULL;
    }
    for (int i = 0; i < module->n_values; i++)
        in->last_use[i] = -1;
    int place = 0;
    for (const ir_op *op = module->graph->first; op; op = op->next)
        note_uses(in, op, place++);
    in->diag = NULL;
    return in;
}

void ir_interp_destroy(ir_interp *in) {
    if (!in)
        return;
    clear_interp(in);
    free(in);
}

void ir_interp_set_watch(ir_interp *in, ir_interp_watch *watch, void *user) {
    in->watch = watch;
    in->watch_user = user;
}

bool ir_interp_run(ir_interp *in, const ir_interp_step *step, ir_diag *diag) {
    in->diag = diag;
    clear_outputs(in);
    if ((step->T && !step->token_ids) || (step->R && !step->output_rows) || !step->seq_offsets)
        return ir_error(diag, "step", "token_ids, output_rows and seq_offsets must be given");
    if (!check_step(in, step))
        return false;
    in->step = *step;
    int place = 0;
    bool ok = true;
    for (const ir_op *op = in->module->graph->first; ok && op; op = op->next, place++) {
        ok = eval_op(in, op);
        for (int i = 0; i < op->n_operands; i++)
            if (in->last_use[op->operands[i]->id] == place)
                interp_value_clear(&in->values[op->operands[i]->id]);
        for (int i = 0; i < op->n_results; i++)
            if (in->last_use[op->results[i]->id] < 0)
                interp_value_clear(&in->values[op->results[i]->id]);
    }
    clear_values(in);
    if (!ok)
        clear_outputs(in);
    in->diag = NULL;
    return ok;
}

const float *ir_interp_output(const ir_interp *in, const char *name, int64_t *count) {
    for (int i = 0; i < in->n_outputs; i++)
        if (strcmp(in->outputs[i].name, name) == 0) {
            *count = in->outputs[i].count;
            return in->outputs[i].data;
        }
    return NULL;
}

/* --- single values and ops ---------------------------------------------------------------------
 */

/* Marks in `needed` (by value id) what `value` depends on, and runs those ops in order. */
static bool eval_needed(ir_interp *in, const ir_value *value, bool *needed) {
    const ir_op *op;
    needed[value->id] = true;
    for (op = value->def; op; op = op->prev) {
        bool wanted = false;
        for (int i = 0; i < op->n_results; i++)
            wanted |= needed[op->results[i]->id];
        if (!wanted)
            continue;
        if (op->code == IR_OP_INPUT || op->code == IR_OP_KV_CACHE)
            return ir_error(in->diag, ir_op_label(op), "the value depends on the step");
        for (int i = 0; i < op->n_operands; i++) {
            if (!op->operands[i]->def || op->operands[i]->owner != value->owner)
                return ir_error(in->diag, ir_op_label(op),
                                "the value depends on an argument of its region");
            needed[op->operands[i]->id] = true;
        }
    }
    for (op = value->owner->first; op; op = op == value->def ? NULL : op->next) {
        bool wanted = false;
        for (int i = 0; i < op->n_results; i++)
            wanted |= needed[op->results[i]->id];
        if (wanted && !eval_op(in, op))
            return false;
    }
    return true;
}

float *ir_interp_constant(const ir_module *module, const ir_value *value, ir_arena *arena,
                          ir_diag *diag) {
    ir_interp in;
    float *result = NULL;
    bool *needed = calloc((size_t)module->n_values + 1, sizeof *needed);
    if (!init_interp(&in, module, diag) || !needed) {
        ir_error(diag, module->name, "out of memory");
    } else if (value->type.kind != IR_TENSOR || !value->def) {
        ir_error(diag, value->def ? ir_op_label(value->def) : NULL, "the value is no constant");
    } else if (eval_needed(&in, value, needed)) {
        /* Read as an operand of a made-up op, so that weights are decoded in one place. */
        ir_value *operands[] = {(ir_value *)value};
        ir_op reader = *value->def;
        reader.operands = operands;
        reader.n_operands = 1;
        interp_shape shape;
        const float *data = interp_operand(&in, &reader, 0, &shape);
        if (data) {
            result = ir_arena_array(arena, shape.count ? (size_t)shape.count : 1, sizeof *result);
            memcpy(result, data, (size_t)shape.count * sizeof *result);
        }
    }
    free(needed);
    clear_interp(&in);
    return result;
}

/* The kv_cache that a kv value comes from, through appends and regions; NULL when there is none. */
static const ir_op *kv_origin(const ir_value *value) {
    for (;;) {
        const ir_op *def = value->def;
        if (!def) {
            if (!value->owner || !value->owner->parent)
                return NULL;
            value = value->owner->parent->operands[value->index];
        } else if (def->code == IR_OP_KV_CACHE) {
            return def;
        } else if (def->code == IR_OP_KV_APPEND) {
            value = def->operands[0];
        } else if (def->code == IR_OP_KERNEL) {
            value = def->body->last->operands[value->index];
        } else {
            return NULL;
        }
    }
}

static bool bind_inputs(ir_interp *in, const ir_op *op, const float *const *inputs) {
    for (int i = 0; i < op->n_operands; i++) {
        const ir_value *operand = op->operands[i];
        interp_value *value = &in->values[operand->id];
        interp_shape shape;
        if (operand->type.kind == IR_KV) {
            const ir_op *origin = kv_origin(operand);
            if (!origin)
                return ir_error(in->diag, ir_op_label(op), "operand %d comes from no kv_cache", i);
            interp_kv_layer *layer =
                interp_kv_get(in, op, ir_op_int(origin, "group"), ir_op_int(origin, "layer"));
            if (!layer)
                return false;
            *value = (interp_value){.ready = true, .kv = layer};
            continue;
        }
        if (!inputs[i])
            return ir_error(in->diag, ir_op_label(op), "operand %d is not given", i);
        if (!interp_shape_of(in, op, &operand->type, &shape))
            return false;
        /* Not owned, so never written or freed. */
        *value = (interp_value){.ready = true, .data = (float *)inputs[i]};
    }
    return true;
}

bool ir_interp_op(const ir_op *op, const ir_interp_step *step, const float *const *inputs,
                  float **results, ir_arena *arena, ir_diag *diag) {
    ir_interp in;
    bool ok = init_interp(&in, op->owner->module, diag) && check_step(&in, step);
    in.step = *step;
    ok = ok && bind_inputs(&in, op, inputs) && eval_op(&in, op);
    for (int i = 0; ok && i < op->n_results; i++) {
        interp_shape shape;
        const interp_value *value = &in.values[op->results[i]->id];
        results[i] = NULL;
        if (!value->data)
            continue;
        ok = interp_shape_of(&in, op, &op->results[i]->type, &shape);
        if (!ok)
            break;
        results[i] = ir_arena_array(arena, shape.count ? (size_t)shape.count : 1, sizeof **results);
        memcpy(results[i], value->data, (size_t)shape.count * sizeof **results);
    }
    clear_interp(&in);
    return ok;
}

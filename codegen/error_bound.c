#include "codegen/error_bound.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double U = 0x1p-24;
/* exp, tanh, … are good to 4 units in the last place. */
static const double ELEMENTARY = 8 * 0x1p-24;
/* 1 / (1 + exp(-x)) is 0 where exp(-x) is beyond f32's largest number, 2^128. */
static const double SIGMOID_LEAST = 0x1p-128;

bounds *bounds_create(const ir_module *module) {
    ir_arena *arena = ir_arena_create();
    bounds *b = ir_arena_alloc(arena, sizeof *b);
    b->module = module;
    b->arena = arena;
    b->values = ir_arena_array(arena, (size_t)module->n_values + 1, sizeof *b->values);
    b->cache = ir_arena_array(arena, (size_t)module->n_kv_groups + 1, sizeof *b->cache);
    for (int i = 0; i < module->n_kv_groups; i++)
        b->cache[i] =
            ir_arena_array(arena, (size_t)module->kv_groups[i].layers, sizeof *b->cache[i]);
    return b;
}

void bounds_destroy(bounds *b) {
    if (!b)
        return;
    if (b->of_step)
        ir_arena_destroy(b->of_step);
    ir_arena_destroy(b->arena);
}

void bounds_begin(bounds *b, const ir_interp_step *step) {
    if (b->of_step)
        ir_arena_destroy(b->of_step);
    b->of_step = ir_arena_create();
    memset(b->values, 0, (size_t)b->module->n_values * sizeof *b->values);
    b->step = step;
}

/* Notes the first thing that has no bound. */
static void give_up(bounds *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void give_up(bounds *b, const char *format, ...) {
    if (b->failure[0])
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(b->failure, sizeof b->failure, format, args);
    va_end(args);
}

/* --- operands ----------------------------------------------------------------------------------
 */

/* What a region's argument stands for. */
const ir_value *bound_source(const ir_value *v) {
    while (!v->def && v->owner && v->owner->parent)
        v = v->owner->parent->operands[v->index];
    return v;
}

static const ir_value *bound_kv_source(const ir_value *v) {
    for (v = bound_source(v); v->def && v->def->code != IR_OP_KV_CACHE; v = bound_source(v))
        v = v->def->code == IR_OP_KERNEL ? v->def->body->last->operands[v->index]
                                         : v->def->operands[0];
    return v;
}

static bool bound_is_weight(const ir_value *v) {
    return v->def && (v->def->code == IR_OP_WEIGHT || v->def->code == IR_OP_WEIGHT_CONCAT ||
                      v->def->code == IR_OP_PACK);
}

/* A row as stored, decoded; `magnitude` (or NULL) gets |scale * code| + |offset|, which is what
 * roundings are relative to. */
void bound_decode(const ir_type *type, const uint8_t *row, int64_t k, float *out,
                  float *magnitude) {
    const ir_encoding *e = type->encoding;
    for (int64_t i = 0; !e && i < k; i++) {
        uint16_t half;
        if (type->dtype == IR_F32) {
            memcpy(&out[i], row + 4 * i, 4);
            continue;
        }
        memcpy(&half, row + 2 * i, 2);
        out[i] = type->dtype == IR_F16 ? ir_f16_to_f32(half) : ir_bf16_to_f32(half);
    }
    if (e)
        ir_encoding_decode_row(e, row, k, out);
    if (e && magnitude && e->offset != IR_OFFSET_NONE) {
        /* Every block of these formats begins with the f16 scale and the f16 offset (or its scale):
         * without the offset, what is left is scale * code. */
        uint8_t block[256];
        for (int64_t i = 0; i < k; i += e->block) {
            memcpy(block, row + i / e->block * e->block_bytes, (size_t)e->block_bytes);
            block[2] = block[3] = 0;
            ir_encoding_decode_row(e, block, e->block, magnitude + i);
        }
        for (int64_t i = 0; i < k; i++)
            magnitude[i] = fabsf(magnitude[i]) + fabsf(out[i] - magnitude[i]);
    } else {
        for (int64_t i = 0; magnitude && i < k; i++)
            magnitude[i] = fabsf(out[i]);
    }
}

static int64_t bound_append_weight(const bounds *b, const ir_value *v, float *out,
                                   float *magnitude) {
    if (v->def->code != IR_OP_WEIGHT) {
        int64_t n = 0;
        for (int i = 0; i < v->def->n_operands; i++)
            n += bound_append_weight(b, v->def->operands[i], out + n, magnitude + n);
        return n;
    }
    const ir_weight *w = ir_module_weight(b->module, ir_op_string(v->def, "name"));
    int64_t n = ir_type_elements(&w->type).c,
            k = w->type.rank ? w->type.dims[w->type.rank - 1].c : 1;
    int64_t row_bytes = w->bytes / (n / k);
    for (int64_t r = 0; r < n / k; r++)
        bound_decode(&w->type, (const uint8_t *)w->data + r * row_bytes, k, out + r * k,
                     magnitude + r * k);
    return n;
}

/* A weight's elements, with their magnitudes in place of errors. */
static bound_value bound_weight(const bounds *b, const ir_value *v, ir_arena *arena) {
    size_t n = (size_t)ir_type_elements(&v->type).c;
    bound_value w = {.count = (int64_t)n,
                     .value = ir_arena_array(arena, n, sizeof *w.value),
                     .error = ir_arena_array(arena, n, sizeof *w.error)};
    float *magnitude = ir_arena_array(arena, n, sizeof *magnitude);
    bound_append_weight(b, v, w.value, magnitude);
    for (size_t i = 0; i < n; i++)
        w.error[i] = (double)magnitude[i];
    return w;
}

/* Zeros, so that what follows a failure has something to read. */
static bound_value bound_nothing(const bounds *b, const ir_value *v) {
    size_t n = (size_t)ir_dim_eval(ir_type_elements(&v->type), b->step->T, b->step->S, b->step->R);
    return (bound_value){.count = (int64_t)n,
                         .value = ir_arena_array(b->of_step, n + 1, sizeof(float)),
                         .error = ir_arena_array(b->of_step, n + 1, sizeof(double))};
}

/* Operand i of an op: its elements and their errors. A weight is exact and is kept under its id. */
static const bound_value *bound_operand(bounds *b, const ir_op *op, int i) {
    const ir_value *v = bound_source(op->operands[i]);
    bound_value *value = &b->values[v->id];
    if (!value->value) {
        if (!bound_is_weight(v))
            give_up(b, "an operand of %s has no value", ir_op_label(op));
        *value = bound_is_weight(v) ? bound_weight(b, v, b->of_step) : bound_nothing(b, v);
        memset(value->error, 0, (size_t)value->count * sizeof *value->error);
    }
    return value;
}

/* --- shapes ------------------------------------------------------------------------------------
 */

typedef struct bound_shape {
    int rank;
    int64_t dims[IR_MAX_RANK];
} bound_shape;

static bound_shape bound_shape_of(const bounds *b, const ir_type *type) {
    bound_shape s = {.rank = type->rank};
    for (int i = 0; i < type->rank; i++)
        s.dims[i] = ir_dim_eval(type->dims[i], b->step->T, b->step->S, b->step->R);
    return s;
}

static void bound_index(const bound_shape *s, int64_t flat, int64_t *index) {
    for (int i = s->rank - 1; i >= 0; i--) {
        index[i] = flat % s->dims[i];
        flat /= s->dims[i];
    }
}

/* The element of `from` that numpy's broadcasting reads for element `flat` of `to`. */
static int64_t bound_broadcast(const bound_shape *to, int64_t flat, const bound_shape *from) {
    int64_t index[IR_MAX_RANK], at = 0;
    bound_index(to, flat, index);
    for (int i = 0; i < from->rank; i++)
        at = at * from->dims[i] + (from->dims[i] == 1 ? 0 : index[to->rank - from->rank + i]);
    return at;
}

/* --- elementwise -------------------------------------------------------------------------------
 */

/* Functions that flatten: the error of their operand times the largest slope within it (the mean
 * value theorem), else a few in a row on large numbers would have bounds beyond all measure. */
static double bound_sigmoid(double x, double e) {
    double slope = fmin(0.25, exp(-fmax(0, fabs(x) - e)));
    return slope * e + ELEMENTARY * (1 / (1 + exp(-x)) + slope * e) + SIGMOID_LEAST;
}

static double bound_erf(double x, double e) {
    double nearest = fmax(0, fabs(x) - e), moved = M_2_SQRTPI * exp(-nearest * nearest) * e;
    return moved + ELEMENTARY * (fabs(erf(x)) + moved);
}

/* Bound of an op's result v, of operands x[] with errors e[]. */
static double bound_scalar(const ir_op *op, double v, const double *x, const double *e) {
    double a = fabs(x[0]), r = fabs(v);
    switch (op->code) {
    case IR_OP_NEG:
    case IR_OP_ABS:
        return e[0];
    case IR_OP_CAST:
        /* An inexact operand may round to the neighbour. */
        return e[0] == 0 || op->results[0]->type.dtype == IR_F32 ? e[0] : e[0] + 0x1p-7 * r;
    case IR_OP_ADD:
    case IR_OP_SUB:
        return e[0] + e[1] + 2 * U * (r + e[0] + e[1]);
    case IR_OP_MUL:
        return (a * e[1] + fabs(x[1]) * e[0] + e[0] * e[1]) * (1 + U) + 2 * U * r;
    case IR_OP_DIV:
        return fabs(x[1]) > e[1] ? (e[0] + r * e[1]) / (fabs(x[1]) - e[1]) * (1 + U) + 2 * U * r
                                 : INFINITY;
    case IR_OP_MAX:
    case IR_OP_MIN:
        return fmax(e[0], e[1]);
    case IR_OP_EXP:
        return r * expm1(e[0]) * (1 + ELEMENTARY) + ELEMENTARY * r;
    case IR_OP_SQRT:
        return (a > e[0] ? e[0] / (2 * sqrt(a - e[0])) : sqrt(2 * e[0])) + 2 * U * r;
    case IR_OP_RSQRT:
        return (a > e[0] ? e[0] / (2 * pow(a - e[0], 1.5)) : INFINITY) + 4 * U * r;
    case IR_OP_SIN:
    case IR_OP_COS:
        return e[0] + ELEMENTARY;
    case IR_OP_TANH:
        return e[0] + ELEMENTARY * r;
    case IR_OP_ERF:
        return bound_erf(x[0], e[0]);
    case IR_OP_SIGMOID:
        return bound_sigmoid(x[0], e[0]);
    case IR_OP_SILU: {
        double s = 1 / (1 + exp(-x[0])), es = bound_sigmoid(x[0], e[0]);
        return a * es + s * e[0] + e[0] * es + 2 * U * r;
    }
    case IR_OP_GELU: {
        double t = erf(x[0] * M_SQRT1_2);
        double et = bound_erf(x[0] * M_SQRT1_2, (e[0] + 2 * U * a) * M_SQRT1_2);
        return a / 2 * (et + 2 * U) + e[0] / 2 * (1 + fabs(t) + et) + 4 * U * r;
    }
    case IR_OP_GELU_TANH: {
        double inner = 0.7978845608 * (a + 0.044715 * a * a * a);
        double ei = 0.7978845608 * e[0] * (1 + 0.134145 * (a + e[0]) * (a + e[0])) + 8 * U * inner;
        double slope = fmin(1, 4 * exp(-2 * fmax(0, inner - ei)));
        double et = slope * ei + ELEMENTARY;
        return a / 2 * (et + 2 * U) + e[0] + 4 * U * r;
    }
    case IR_OP_SOFTCAP:
        return e[0] + ELEMENTARY * r + 4 * U * fmin(a, ir_op_float(op, "cap"));
    default:
        return INFINITY;
    }
}

static void bound_elementwise(bounds *b, const ir_op *op, bound_value *out) {
    bound_shape to = bound_shape_of(b, &op->results[0]->type), from[3];
    const bound_value *in[3];
    for (int k = 0; k < op->n_operands; k++) {
        from[k] = bound_shape_of(b, &op->operands[k]->type);
        in[k] = bound_operand(b, op, k);
    }
    for (int64_t i = 0; i < out->count; i++) {
        double x[3] = {0}, e[3] = {0};
        for (int k = 0; k < op->n_operands; k++) {
            int64_t at = bound_broadcast(&to, i, &from[k]);
            x[k] = (double)in[k]->value[at];
            e[k] = in[k]->error[at];
        }
        out->error[i] = bound_scalar(op, (double)out->value[i], x, e);
    }
}

/* --- rows --------------------------------------------------------------------------------------
 */

/* Roundings in a sum of n numbers, 16 partial sums that are then halved (kernel.h). */
static double bound_sum_steps(int64_t n) {
    return (double)((n + 15) / 16) + 4;
}

static void bound_reduce(bounds *b, const ir_op *op, bound_value *out) {
    const bound_value *x = bound_operand(b, op, 0);
    int64_t n = out->count ? x->count / out->count : 0; /* the last axis only */
    for (int64_t i = 0; i < out->count; i++) {
        double error = 0, magnitude = 0, most = 0;
        for (int64_t k = i * n; k < (i + 1) * n; k++) {
            error += x->error[k];
            most = fmax(most, x->error[k]);
            magnitude += fabs((double)x->value[k]);
        }
        error += (bound_sum_steps(n) * U) * (magnitude + error);
        out->error[i] = op->code == IR_OP_REDUCE_MAX ? most
                        : op->code == IR_OP_REDUCE_SUM
                            ? error + 2 * U * fabs((double)out->value[i])
                            : error / (double)n + 3 * U * fabs((double)out->value[i]);
    }
}

static void bound_norm(bounds *b, const ir_op *op, bound_value *out) {
    const bound_value *x = bound_operand(b, op, 0), *w = bound_operand(b, op, 1);
    bool centred = op->code == IR_OP_LAYER_NORM;
    const bound_value *bias = centred ? bound_operand(b, op, 2) : NULL;
    int64_t n = w->count;
    double eps = ir_op_float(op, "eps"), steps = bound_sum_steps(n) * U;
    for (int64_t row = 0; row < out->count; row += n) {
        const float *v = x->value + row;
        double mean = 0, magnitude = 0, mean_error = 0, square = 0, square_error = 0;
        for (int64_t i = 0; centred && i < n; i++) {
            mean += (double)v[i] / (double)n;
            magnitude += fabs((double)v[i]) / (double)n;
            mean_error += x->error[row + i] / (double)n;
        }
        mean_error += (steps + 2 * U) * magnitude;
        for (int64_t i = 0; i < n; i++) {
            double c = (double)v[i] - mean;
            double e = x->error[row + i] + (centred ? mean_error + U * fabs(c) : 0);
            square += c * c / (double)n;
            square_error += (2 * fabs(c) * e + e * e) / (double)n;
        }
        square_error += (steps + 4 * U) * (square + square_error);
        double total = square + eps, r = 1 / sqrt(total);
        double r_error = (total > square_error ? square_error / (2 * pow(total - square_error, 1.5))
                                               : INFINITY) +
                         4 * U * r;
        for (int64_t i = 0; i < n; i++) {
            double c = (double)v[i] - mean, y = fabs(c * r * (double)w->value[i]);
            double e = x->error[row + i] + (centred ? mean_error + U * fabs(c) : 0);
            double error = fabs((double)w->value[i]) * (r * e + fabs(c) * r_error + e * r_error) +
                           (fabs(c) + e) * (r + r_error) * w->error[i] + 4 * U * y;
            if (bias)
                error += bias->error[i] + 2 * U * (y + fabs((double)bias->value[i]));
            out->error[row + i] = error;
        }
    }
}

static void bound_softmax(bounds *b, const ir_op *op, bound_value *out) {
    const bound_value *x = bound_operand(b, op, 0);
    const ir_type *type = &op->results[0]->type;
    int64_t n = type->dims[type->rank - 1].c;
    for (int64_t row = 0; row < out->count; row += n) {
        double error = 0, magnitude = 0;
        for (int64_t i = row; i < row + n; i++) {
            error = fmax(error, x->error[i]);
            magnitude = fmax(magnitude, fabs((double)x->value[i]));
        }
        /* Each exponent is off by this, so numerator and sum by its exponential. */
        double each = expm1(2 * error + 2 * U * magnitude) + ELEMENTARY;
        double relative = 2 * each + (bound_sum_steps(n) + 4) * U;
        for (int64_t i = row; i < row + n; i++)
            out->error[i] = relative * (1 + relative) * (double)out->value[i] + 0x1p-126;
    }
}

static void bound_rope(bounds *b, const ir_op *op, bound_value *out) {
    const bound_value *x = bound_operand(b, op, 0), *table = bound_operand(b, op, 1);
    bound_shape s = bound_shape_of(b, &op->results[0]->type);
    int64_t dims = ir_op_int(op, "dims"), width = s.dims[2], per_row = s.dims[1] * width;
    bool half = strcmp(ir_op_string(op, "style"), "half") == 0;
    for (int64_t i = 0; i < out->count; i++) {
        int64_t c = i % width, row = i / per_row, at = row * 2 * width + c;
        int64_t partner = c >= dims ? -1
                          : half    ? (c < dims / 2 ? c + dims / 2 : c - dims / 2)
                                    : c ^ 1;
        double cosine = fabs((double)table->value[at]),
               sine = fabs((double)table->value[at + width]);
        double a = fabs((double)x->value[i]), ea = x->error[i], p = 0, ep = 0;
        if (partner >= 0) {
            p = fabs((double)x->value[i - c + partner]);
            ep = x->error[i - c + partner];
        }
        out->error[i] = cosine * ea + (a + ea) * table->error[at] + sine * ep +
                        (p + ep) * table->error[at + width] + 4 * U * (a * cosine + p * sine);
    }
}

/* Concatenation, slices, transposes, gathers: errors move with their elements. */
static void bound_move(bounds *b, const ir_op *op, bound_value *out) {
    const ir_type *type = &op->results[0]->type;
    bound_shape to = bound_shape_of(b, type);
    int64_t axis = op->code == IR_OP_CONCAT || op->code == IR_OP_SLICE ? ir_op_int(op, "axis") : 0;
    const ir_attr *perm = ir_op_attr(op, "perm");
    for (int64_t i = 0; i < out->count; i++) {
        int64_t index[IR_MAX_RANK], at = 0;
        int from = 0;
        bound_index(&to, i, index);
        if (op->code == IR_OP_SLICE)
            index[axis] += ir_op_int(op, "start");
        for (; op->code == IR_OP_CONCAT; from++) {
            int64_t size = bound_shape_of(b, &op->operands[from]->type).dims[axis];
            if (index[axis] < size)
                break;
            index[axis] -= size;
        }
        bound_shape s = bound_shape_of(b, &op->operands[from]->type);
        if (op->code == IR_OP_GATHER && bound_is_weight(bound_source(op->operands[from])))
            continue; /* rows of a table are exact */
        const bound_value *x = bound_operand(b, op, from);
        if (op->code == IR_OP_GATHER) {
            int64_t row_size = x->count / s.dims[0], row = i / row_size;
            at = (int64_t)bound_operand(b, op, 1)->value[row] * row_size + i % row_size;
        } else if (op->code == IR_OP_BROADCAST) {
            at = bound_broadcast(&to, i, &s);
        } else {
            int64_t moved[IR_MAX_RANK];
            for (int k = 0; k < s.rank; k++)
                moved[op->code == IR_OP_TRANSPOSE ? perm->ints[k] : k] = index[k];
            for (int k = 0; k < s.rank; k++)
                at = at * s.dims[k] + moved[k];
        }
        out->error[i] = x->error[at];
    }
}

/* --- matrix products, quantization, attention --------------------------------------------------
 */

static void bound_matmul(bounds *b, const ir_op *op, bound_value *out) {
    const bound_value *x = bound_operand(b, op, 0);
    const ir_type *xt = &op->operands[0]->type, *wt = &op->operands[1]->type;
    int64_t k = wt->dims[1].c, n = wt->dims[0].c;
    if (!ir_op_int(op, "transpose_b") || !bound_is_weight(bound_source(op->operands[1]))) {
        give_up(b, "%s: no error bound is known for a product with what is no weight",
                ir_op_label(op));
        return;
    }
    ir_arena *scratch = ir_arena_create();
    bound_value w = bound_weight(b, bound_source(op->operands[1]), scratch);
    /* f32: an FMA for each k. a8: one for each group of the weight, and one for its offset.
     * a8_e4m3: at most one for each k, or those of a group's sum and one for each group. (The
     * emulator's mma rounds once. That of sm_89 keeps 13 bits below the exponent of the largest
     * product, of 32 products and of what it has added up (Xie et al., MMA-Sim, arXiv 2511.10909):
     * a group's sum is off by up to 34 * 2^-13 of that product and 2^-12 of the sum, which no bound
     * here allows for.)
     */
    double steps = (double)k + (xt->encoding && k == xt->encoding->group);
    if (xt->encoding && wt->encoding && wt->encoding->code == IR_CODE_INT)
        steps = (double)(k / wt->encoding->group) * (wt->encoding->offset ? 2 : 1);
    /* Besides: decoding x and w, scale times scale, the scaled sum, the interpreter's result. */
    steps += 8;
    for (int64_t i = 0; i < out->count; i++) {
        double error = 0, magnitude = 0;
        for (int64_t j = 0; j < k; j++) {
            double a = x->error[i / n * k + j], m = w.error[i % n * k + j];
            error += m * a;
            magnitude += m * (fabs((double)x->value[i / n * k + j]) + a);
        }
        out->error[i] = error + steps * U * magnitude;
    }
    ir_arena_destroy(scratch);
}

/* How far what a8_e4m3 holds of x may be from what it holds of another that is up to `error` away:
 * each is within half a step of its number. Steps are 2^-3 of the binade, or 2^-9 of the scale. */
static double other_e4m3(double x, double error, double scale) {
    return error + 2 * fmax((x + error) * 0x1p-4, scale * 0x1p-10) + 8 * U * (x + error);
}

/* Equal inputs give equal codes; otherwise another of a8's scales (at most max / 124) may fit best
 * (and a group at 2^-100 may become zero). */
static void bound_quantize(bounds *b, const ir_op *op, bound_value *out) {
    const bound_value *x = bound_operand(b, op, 0);
    const ir_encoding *encoding = op->results[0]->type.encoding;
    int64_t group = encoding->group;
    bool e4m3 = encoding->code == IR_CODE_E4M3;
    for (int64_t g = 0; g < out->count; g += group) {
        double error = 0, max = 0;
        for (int64_t i = g; i < g + group; i++) {
            error = fmax(error, x->error[i]);
            max = fmax(max, fabs((double)x->value[i]));
        }
        double other_code = b->assume_codes ? 4 * U * max : (max + error) / 124 * (1 + 4 * U);
        for (int64_t i = g; i < g + group; i++) {
            out->error[i] = error == 0 ? 0 : 2 * error + other_code + 0x1p-99;
            if (e4m3 && error != 0 && !b->assume_codes)
                out->error[i] =
                    other_e4m3(fabs((double)x->value[i]), x->error[i], (max + error) / 448) +
                    0x1p-99;
        }
    }
}

static bound_cache *bound_layer(bounds *b, const ir_value *kv) {
    const ir_op *source = bound_kv_source(kv)->def;
    int64_t group = ir_op_int(source, "group"), layer = ir_op_int(source, "layer");
    return &b->cache[group][layer];
}

/* How far what pages hold of n numbers, a head of a token, may be from what they hold of others
 * that are up to `error` away: each is within half a step of its number, and within what the
 * largest one loses where its scale is rounded down. Steps and scales grow with the largest number.
 */
static double other_codes(ir_dtype dtype, double most, double error) {
    double levels = ir_kv_most(dtype), scale = (most + error) / levels * (1 + 0x1p-10) + 0x1p-24;
    double half = dtype == IR_I8 ? scale / 2 : scale * 16; /* of the top binade of f8e4m3 */
    return 2 * (half + 0x1p-11 * (most + error) + levels * 0x1p-25);
}

static double bound_stored(const bounds *b, ir_dtype dtype, double v, double most, double error) {
    if (dtype == IR_F32 || error == 0)
        return error;
    if (dtype == IR_F16)
        return error + 0x1p-10 * (v + error) + 0x1p-24;
    return error + (b->assume_codes ? 4 * U * most : other_codes(dtype, most, error));
}

/* What the step stores; the watch is not called for caches, so the attention that reads them asks.
 */
static void bound_append(bounds *b, const ir_value *kv, bool exact) {
    kv = bound_source(kv);
    const ir_op *op = kv->def;
    if (op->code == IR_OP_KERNEL) {
        bound_append(b, op->body->last->operands[kv->index], b->caches_replaced);
        return;
    }
    if (op->code != IR_OP_KV_APPEND)
        return;
    bound_cache *c = bound_layer(b, op->operands[0]);
    const ir_op *source = bound_kv_source(op->operands[0])->def;
    const ir_kv_group *g = &b->module->kv_groups[ir_op_int(source, "group")];
    for (int k = 1; k <= 2; k++) {
        const bound_value *x = bound_operand(b, op, k);
        double *most = k == 1 ? &c->key : &c->value;
        double *error = k == 1 ? &c->key_error : &c->value_error;
        for (int64_t head = 0; head < x->count; head += g->head_dim) {
            double largest = 0, worst = 0;
            for (int64_t i = head; i < head + g->head_dim; i++) {
                largest = fmax(largest, fabs((double)x->value[i]) * 1.001);
                worst = fmax(worst, exact ? 0 : x->error[i]);
            }
            *most = fmax(*most, largest);
            *error = fmax(*error, bound_stored(b, g->dtype, largest, largest, worst));
        }
    }
}

static void bound_attention(bounds *b, const ir_op *op, bound_value *out) {
    bound_append(b, op->operands[1], false);
    const bound_value *q = bound_operand(b, op, 0);
    const bound_cache *c = bound_layer(b, op->operands[1]);
    bound_shape s = bound_shape_of(b, &op->results[0]->type);
    int64_t dim = s.dims[2], window = ir_op_int(op, "window");
    double scale = fabs(ir_op_float(op, "scale")), cap = ir_op_float(op, "softcap");
    int64_t group = ir_op_int(bound_kv_source(op->operands[1])->def, "group");
    bool tensor =
        b->tensor_attention && b->module->kv_groups[group].dtype != IR_F32 && dim % 16 == 0;
    bool quantized = ir_kv_quantized(b->module->kv_groups[group].dtype);
    for (int64_t i = 0; i < out->count; i += dim) {
        double size = 0, error = 0;
        for (int64_t k = i; k < i + dim; k++) {
            size += fabs((double)q->value[k]);
            error += q->error[k];
        }
        double score = scale * size * c->key;
        double e = scale * (error * (c->key + c->key_error) + size * c->key_error) +
                   ((double)dim + 6) * U * score;
        if (cap > 0) {
            e += 12 * U * fmin(score, cap);
            score = fmin(score, cap);
        }
        if (tensor) /* of queries, and of sums that are truncated */
            e += ((double)dim + 8) * 0x1p-22 * score + cap * 0x1p-20;
        e += 2 * U * score; /* subtracting the maximum */
        int64_t n = b->step->positions[i / (s.dims[1] * dim)] + 1;
        n = window > 0 && n > window ? window : n;
        /* Numerators, values' scales, their sum, rescaling to the running maximum; at most n steps
         * each. */
        double relative = 2 * (expm1(2 * e) + ELEMENTARY) + (2 * (double)n + 17) * U, least = 0;
        if (tensor) { /* exponentials, of which one is 1, to f16; truncated sums */
            relative += 0x1p-11 + 0x1p-14;
            least = (double)n * 0x1p-25;
            relative += quantized ? 0x1p-11 : 0; /* values */
        }
        for (int64_t k = i; k < i + dim; k++)
            out->error[k] =
                (relative * (1 + relative) + least) * (c->value + c->value_error) + c->value_error;
    }
}

/* Exact for exact logits; any error could make it another token. */
static void bound_sample(bounds *b, const ir_op *op) {
    const bound_value *logits = bound_operand(b, op, 0);
    for (int64_t i = 0; i < logits->count; i++)
        if (logits->error[i] != 0) {
            give_up(b, "%s: logits must be exact to know what is chosen", ir_op_label(op));
            return;
        }
}

/* A kernel's result with its error, given that the kernel's inputs were the interpreter's: whoever
 * compares puts them back (compiled_graph.h), so errors do not add up from kernel to kernel. Only
 * what is in the cache keeps its errors. */
const bound_value *bound_result(const bounds *b, const ir_op *kernel, int result) {
    return &b->values[bound_source(kernel->body->last->operands[result])->id];
}

/* --- the watch ---------------------------------------------------------------------------------
 */

static void bound_fill(bounds *b, const ir_op *op, bound_value *out) {
    unsigned traits = ir_op_info_get(op->code)->traits;
    switch (op->code) {
    case IR_OP_INPUT:
    case IR_OP_CONSTANT:
        break; /* exact */
    case IR_OP_KERNEL:
        break; /* to the kernels that read it: see bound_result */
    case IR_OP_RESHAPE:
        memcpy(out->error, bound_operand(b, op, 0)->error, (size_t)out->count * 8);
        break;
    case IR_OP_SLICE:
    case IR_OP_TRANSPOSE:
    case IR_OP_BROADCAST:
    case IR_OP_CONCAT:
    case IR_OP_GATHER:
        bound_move(b, op, out);
        break;
    case IR_OP_REDUCE_SUM:
    case IR_OP_REDUCE_MAX:
    case IR_OP_REDUCE_MEAN:
        bound_reduce(b, op, out);
        break;
    case IR_OP_SOFTMAX:
        bound_softmax(b, op, out);
        break;
    case IR_OP_RMS_NORM:
    case IR_OP_LAYER_NORM:
        bound_norm(b, op, out);
        break;
    case IR_OP_ROPE:
        bound_rope(b, op, out);
        break;
    case IR_OP_MATMUL:
        bound_matmul(b, op, out);
        break;
    case IR_OP_QUANTIZE:
        bound_quantize(b, op, out);
        break;
    case IR_OP_PAGED_ATTENTION:
        bound_attention(b, op, out);
        break;
    case IR_OP_SAMPLE:
        bound_sample(b, op);
        break;
    default:
        if (traits & IR_TRAIT_ELEMENTWISE)
            bound_elementwise(b, op, out);
        else
            give_up(b, "no error bound is known for %s", ir_op_info_get(op->code)->name);
    }
}

/* Whether an op computes numbers of its own, rather than choosing or moving them. */
static bool bound_rounds(const ir_op *op) {
    switch (op->code) {
    case IR_OP_NEG:
    case IR_OP_ABS:
    case IR_OP_CAST:
    case IR_OP_MAX:
    case IR_OP_MIN:
        return false;
    case IR_OP_REDUCE_SUM:
    case IR_OP_REDUCE_MEAN:
    case IR_OP_SOFTMAX:
    case IR_OP_RMS_NORM:
    case IR_OP_LAYER_NORM:
    case IR_OP_ROPE:
    case IR_OP_MATMUL:
    case IR_OP_PAGED_ATTENTION:
        return true;
    default:
        return ir_op_info_get(op->code)->traits & IR_TRAIT_ELEMENTWISE;
    }
}

/* For ir_interp_set_watch, with a bounds as user; its step must be set before each run. */
void bound_watch(void *user, const ir_op *op, int result, const float *data, int64_t count) {
    bounds *b = user;
    bound_value *out = &b->values[op->results[result]->id];
    out->count = count;
    out->value = ir_arena_array(b->of_step, (size_t)count + 1, sizeof *out->value);
    out->error = ir_arena_array(b->of_step, (size_t)count + 1, sizeof *out->error);
    memcpy(out->value, data, (size_t)count * sizeof *data);
    bound_fill(b, op, out);
    /* Below the normal numbers roundings are absolute. */
    for (int64_t i = 0; bound_rounds(op) && i < count; i++)
        out->error[i] += 0x1p-145;
}

/* The interpreter's transformer blocks: norms, rotary embedding, attention with and without a
 * cache, quantization. */
#include "ir/interp_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- norms -------------------------------------------------------------------------------------
 */

bool interp_norm(ir_interp *in, const ir_op *op) {
    interp_shape shape;
    float *out = interp_result(in, op, 0, &shape);
    const float *x = out ? interp_operand(in, op, 0, NULL) : NULL;
    const float *weight = x ? interp_operand(in, op, 1, NULL) : NULL;
    bool centred = op->code == IR_OP_LAYER_NORM;
    const float *bias = weight && centred ? interp_operand(in, op, 2, NULL) : NULL;
    if (!weight || (centred && !bias))
        return false;
    double eps = ir_op_float(op, "eps");
    ir_dtype dtype = op->results[0]->type.dtype;
    int64_t width = shape.dims[shape.rank - 1];
    for (int64_t at = 0; at < shape.count; at += width) {
        double mean = 0, square = 0;
        for (int64_t i = 0; centred && i < width; i++)
            mean += x[at + i];
        mean /= (double)width;
        for (int64_t i = 0; i < width; i++)
            square += (x[at + i] - mean) * (x[at + i] - mean);
        double factor = 1 / sqrt(square / (double)width + eps);
        for (int64_t i = 0; i < width; i++)
            interp_round(dtype,
                         (x[at + i] - mean) * factor * weight[i] + (bias ? (double)bias[i] : 0),
                         &out[at + i]);
    }
    return true;
}

/* --- rotary position embedding -----------------------------------------------------------------
 */

bool interp_rope_table(ir_interp *in, const ir_op *op) {
    interp_shape shape;
    float *out = interp_result(in, op, 0, &shape);
    const float *positions = out ? interp_operand(in, op, 0, NULL) : NULL;
    const float *factors = NULL;
    if (!positions || (op->n_operands > 1 && !(factors = interp_operand(in, op, 1, NULL))))
        return false;
    double theta = ir_op_float(op, "theta"), scale = ir_op_float(op, "scale");
    int64_t dims = ir_op_int(op, "dims"), width = shape.dims[2];
    bool half = strcmp(ir_op_string(op, "style"), "half") == 0;
    for (int64_t t = 0; t < shape.dims[0]; t++, out += 2 * width)
        for (int64_t i = 0; i < width; i++) {
            int64_t pair = half ? i % (dims / 2) : i / 2;
            double angle = positions[t] * scale * pow(theta, -2.0 * (double)pair / (double)dims);
            if (factors && i < dims)
                angle /= factors[pair];
            out[i] = i < dims ? (float)cos(angle) : 1;
            out[width + i] = i < dims ? (float)sin(angle) : 0;
        }
    return true;
}

bool interp_rope(ir_interp *in, const ir_op *op) {
    interp_shape shape;
    float *out = interp_result(in, op, 0, &shape);
    const float *x = out ? interp_operand(in, op, 0, NULL) : NULL;
    const float *table = x ? interp_operand(in, op, 1, NULL) : NULL;
    if (!table)
        return false;
    int64_t dims = ir_op_int(op, "dims"), width = shape.dims[2];
    bool half = strcmp(ir_op_string(op, "style"), "half") == 0;
    ir_dtype dtype = op->results[0]->type.dtype;
    for (int64_t t = 0; t < shape.dims[0]; t++, table += 2 * width)
        for (int64_t h = 0; h < shape.dims[1]; h++, x += width, out += width)
            for (int64_t i = 0; i < width; i++) {
                double rotated = 0;
                if (i < dims && half)
                    rotated = i < dims / 2 ? -x[i + dims / 2] : x[i - dims / 2];
                else if (i < dims)
                    rotated = i % 2 ? x[i - 1] : -x[i + 1];
                interp_round(dtype, (double)x[i] * table[i] + rotated * table[width + i], &out[i]);
            }
    return true;
}

/* --- attention ---------------------------------------------------------------------------------
 */

/* One op's attention; keys and values are [position][kv_heads][dim]. */
typedef struct attend {
    int64_t heads, kv_heads, dim, window;
    double scale, softcap;
    double *scores;
    int64_t capacity;
} attend;

static attend attend_from(const ir_op *op, int64_t heads, int64_t kv_heads, int64_t dim) {
    return (attend){.heads = heads,
                    .kv_heads = kv_heads,
                    .dim = dim,
                    .window = ir_op_int(op, "window"),
                    .scale = ir_op_float(op, "scale"),
                    .softcap = ir_op_float(op, "softcap")};
}

/* A token at place `own` of its sequence sees places max(0, own-window+1) … own, as far as they are
 * below `visible`; where it sees none the result is zero. */
static bool attend_token(ir_interp *in, const ir_op *op, attend *a, const float *q,
                         const float *keys, const float *values, int64_t own, int64_t visible,
                         float *out) {
    int64_t first = a->window > 0 && own >= a->window ? own - a->window + 1 : 0;
    int64_t end = own + 1 < visible ? own + 1 : visible;
    int64_t n = end > first ? end - first : 0;
    if (n > a->capacity) {
        double *scores = realloc(a->scores, 2 * (size_t)n * sizeof *scores);
        if (!scores)
            return ir_error(in->diag, ir_op_label(op), "no memory for %lld scores", (long long)n);
        a->scores = scores;
        a->capacity = 2 * n;
    }
    for (int64_t h = 0; h < a->heads; h++, q += a->dim, out += a->dim) {
        int64_t stride = a->kv_heads * a->dim;
        int64_t at = first * stride + h / (a->heads / a->kv_heads) * a->dim;
        double max = -INFINITY, sum = 0;
        for (int64_t j = 0; j < n; j++) {
            const float *k = keys + at + j * stride;
            double score = 0;
            for (int64_t i = 0; i < a->dim; i++)
                score += (double)q[i] * k[i];
            score *= a->scale;
            if (a->softcap > 0)
                score = a->softcap * tanh(score / a->softcap);
            a->scores[j] = score;
            max = fmax(max, score);
        }
        for (int64_t j = 0; j < n; j++)
            sum += a->scores[j] = exp(a->scores[j] - max);
        for (int64_t i = 0; i < a->dim; i++) {
            double total = 0;
            for (int64_t j = 0; j < n; j++)
                total += a->scores[j] * values[at + j * stride + i];
            out[i] = n ? (float)(total / sum) : 0;
        }
    }
    return true;
}

/* The first dim of attention's operands must be the step's tokens, which sequences divide. */
static bool check_tokens(ir_interp *in, const ir_op *op, const interp_shape *shape) {
    if (!in->step.seq_offsets || !in->step.positions || !in->step.seq_slots)
        return ir_error(in->diag, ir_op_label(op), "the step states no sequences");
    if (shape->dims[0] != in->step.T)
        return ir_error(in->diag, ir_op_label(op), "%lld rows, expected the step's %d tokens",
                        (long long)shape->dims[0], (int)in->step.T);
    return true;
}

bool interp_attention(ir_interp *in, const ir_op *op) {
    interp_shape qs, ks;
    float *out = interp_result(in, op, 0, NULL);
    const float *q = out ? interp_operand(in, op, 0, &qs) : NULL;
    const float *k = q ? interp_operand(in, op, 1, &ks) : NULL;
    const float *v = k ? interp_operand(in, op, 2, NULL) : NULL;
    if (!v || !check_tokens(in, op, &qs) || !check_tokens(in, op, &ks))
        return false;
    attend a = attend_from(op, qs.dims[1], ks.dims[1], qs.dims[2]);
    int64_t q_stride = a.heads * a.dim, kv_stride = a.kv_heads * a.dim;
    bool ok = true;
    for (int32_t s = 0; ok && s < in->step.S; s++) {
        int64_t start = in->step.seq_offsets[s], end = in->step.seq_offsets[s + 1];
        for (int64_t t = start; ok && t < end; t++)
            ok = attend_token(in, op, &a, q + t * q_stride, k + start * kv_stride,
                              v + start * kv_stride, t - start, end - start, out + t * q_stride);
    }
    free(a.scores);
    return ok;
}

/* --- the cache ---------------------------------------------------------------------------------
 */

bool interp_kv_cache(ir_interp *in, const ir_op *op) {
    interp_kv_layer *layer = interp_kv_get(in, op, ir_op_int(op, "group"), ir_op_int(op, "layer"));
    if (layer)
        in->values[op->results[0]->id] = (interp_value){.ready = true, .kv = layer};
    return layer != NULL;
}

static interp_kv_layer *kv_operand(ir_interp *in, const ir_op *op, int i) {
    interp_kv_layer *layer = in->values[op->operands[i]->id].kv;
    if (!layer)
        ir_internal_error(in->diag, ir_op_label(op), "operand %d is no cache", i);
    return layer;
}

static bool check_geometry(ir_interp *in, const ir_op *op, const ir_kv_group *group, int64_t heads,
                           int64_t dim) {
    if (heads == group->heads && dim == group->head_dim)
        return true;
    return ir_error(
        in->diag, ir_op_label(op), "keys of %lld heads of %lld, but the kv group has %lld of %lld",
        (long long)heads, (long long)dim, (long long)group->heads, (long long)group->head_dim);
}

/* One token's heads as the cache gives them back. `codes` has room for a head. */
static void store_heads(const ir_kv_group *g, const float *x, uint8_t *codes, float *out) {
    int64_t dim = g->head_dim;
    if (!ir_kv_quantized(g->dtype)) {
        for (int64_t i = 0; i < g->heads * dim; i++)
            interp_round(g->dtype, x[i], &out[i]);
        return;
    }
    for (int64_t h = 0; h < g->heads; h++) {
        uint16_t scale = ir_kv_encode(g->dtype, x + h * dim, dim, codes, 1);
        for (int64_t i = 0; i < dim; i++)
            out[h * dim + i] = ir_kv_decode(g->dtype, codes[i], scale);
    }
}

/* The step's tokens of sequence s. */
static bool append_sequence(ir_interp *in, const ir_op *op, interp_kv_layer *layer, int32_t s,
                            int64_t width, const float *k, const float *v, uint8_t *codes) {
    int64_t first = in->step.seq_offsets[s], n = in->step.seq_offsets[s + 1] - first;
    if (!n)
        return true;
    int64_t start = in->step.positions[first];
    interp_kv_slot *slot = interp_kv_slot_get(in, op, layer, in->step.seq_slots[s], start + n);
    if (!slot)
        return false;
    if (start > slot->length)
        return ir_error(in->diag, ir_op_label(op),
                        "sequence %d starts at position %lld, but slot %d stores %lld", (int)s,
                        (long long)start, (int)in->step.seq_slots[s], (long long)slot->length);
    for (int64_t t = 0; t < n; t++) {
        int64_t from = (first + t) * width, to = (start + t) * width;
        store_heads(layer->group, k + from, codes, slot->keys + to);
        store_heads(layer->group, v + from, codes, slot->values + to);
    }
    /* What was stored beyond is forgotten: the sequence went back, or is a new one. */
    slot->length = start + n;
    return true;
}

bool interp_kv_append(ir_interp *in, const ir_op *op) {
    interp_shape shape;
    interp_kv_layer *layer = kv_operand(in, op, 0);
    const float *k = layer ? interp_operand(in, op, 1, &shape) : NULL;
    const float *v = k ? interp_operand(in, op, 2, NULL) : NULL;
    if (!v || !check_tokens(in, op, &shape) ||
        !check_geometry(in, op, layer->group, shape.dims[1], shape.dims[2]))
        return false;
    int64_t width = shape.dims[1] * shape.dims[2];
    uint8_t *codes = malloc((size_t)shape.dims[2]);
    if (!codes)
        return ir_error(in->diag, ir_op_label(op), "no memory for a head of %lld",
                        (long long)shape.dims[2]);
    bool ok = true;
    for (int32_t s = 0; ok && s < in->step.S; s++)
        ok = append_sequence(in, op, layer, s, width, k, v, codes);
    free(codes);
    if (!ok)
        return false;
    in->values[op->results[0]->id] =
        (interp_value){.ready = true, .kv = layer, .kv_appended = true};
    return true;
}

bool interp_paged_attention(ir_interp *in, const ir_op *op) {
    interp_shape qs;
    float *out = interp_result(in, op, 0, NULL);
    const float *q = out ? interp_operand(in, op, 0, &qs) : NULL;
    interp_kv_layer *layer = q ? kv_operand(in, op, 1) : NULL;
    if (!layer || !check_tokens(in, op, &qs))
        return false;
    const ir_kv_group *group = layer->group;
    if (qs.dims[1] % group->heads != 0 || qs.dims[2] != group->head_dim)
        return check_geometry(in, op, group, qs.dims[1], qs.dims[2]);
    bool appended = in->values[op->operands[1]->id].kv_appended, ok = true;
    attend a = attend_from(op, qs.dims[1], group->heads, group->head_dim);
    int64_t stride = a.heads * a.dim;
    for (int32_t s = 0; ok && s < in->step.S; s++) {
        int32_t number = in->step.seq_slots[s];
        interp_kv_slot none = {0}, *slot = number < layer->n_slots ? &layer->slots[number] : &none;
        int64_t first = in->step.seq_offsets[s], end = in->step.seq_offsets[s + 1];
        for (int64_t t = first; ok && t < end; t++) {
            int64_t before = in->step.positions[first];
            int64_t visible = appended || slot->length < before ? slot->length : before;
            ok = attend_token(in, op, &a, q + t * stride, slot->keys, slot->values,
                              in->step.positions[t], visible, out + t * stride);
        }
    }
    free(a.scores);
    return ok;
}

/* --- quantization ------------------------------------------------------------------------------
 */

bool interp_quantize(ir_interp *in, const ir_op *op) {
    interp_shape shape;
    float *out = interp_result(in, op, 0, &shape);
    const float *x = out ? interp_operand(in, op, 0, NULL) : NULL;
    if (!x)
        return false;
    const ir_encoding *encoding = op->results[0]->type.encoding;
    if (!ir_encoding_of_activations(encoding) && encoding->id != IR_ENC_Q8_0 &&
        encoding->id != IR_ENC_Q4_1)
        return ir_error(in->diag, ir_op_label(op),
                        "cannot quantize to %s, only to a8, a8_e4m3, q8_0 and q4_1",
                        encoding->name);
    int64_t k = shape.dims[shape.rank - 1];
    void *row = malloc((size_t)ir_encoding_row_bytes(encoding, k));
    if (!row)
        return ir_error(in->diag, ir_op_label(op), "no memory for a row of %lld", (long long)k);
    bool ok = true;
    for (int64_t at = 0; ok && at < shape.count; at += k) {
        ok = ir_encoding_encode_row(encoding, x + at, k, row);
        if (ok)
            ir_encoding_decode_row(encoding, row, k, out + at);
        else
            ir_error(in->diag, ir_op_label(op), "row %lld does not fit %s: not finite or too large",
                     (long long)(at / k), encoding->name);
    }
    free(row);
    return ok;
}

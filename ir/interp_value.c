/* Values of the interpreter: shapes of this step, storage, weights decoded row by row, rounding,
 * broadcasting, and the cache's contents. */
#include "ir/interp_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KV_SLOTS = 1 << 16 };

/* --- shapes ------------------------------------------------------------------------------------
 */

bool interp_shape_of(ir_interp *in, const ir_op *op, const ir_type *type, interp_shape *shape) {
    *shape = (interp_shape){.rank = type->rank, .count = 1};
    for (int i = 0; i < type->rank; i++) {
        int64_t d = ir_dim_eval(type->dims[i], in->step.T, in->step.S, in->step.R);
        shape->dims[i] = d;
        if (d < 0 || __builtin_mul_overflow(shape->count, d, &shape->count))
            return ir_error(in->diag, ir_op_label(op),
                            "dimension %d is %lld in this step, which is out of range", i,
                            (long long)d);
    }
    return true;
}

bool interp_broadcast_strides(const interp_shape *from, const interp_shape *to, int64_t *strides) {
    int missing = to->rank - from->rank;
    if (missing < 0)
        return false;
    int64_t stride = 1;
    for (int i = 0; i < missing; i++)
        strides[i] = 0;
    for (int i = from->rank - 1; i >= 0; i--) {
        int64_t size = from->dims[i];
        if (size != 1 && size != to->dims[missing + i])
            return false;
        strides[missing + i] = size == 1 ? 0 : stride;
        stride *= size;
    }
    return true;
}

bool interp_next(int rank, const int64_t *dims, int64_t *index, int n,
                 const int64_t (*strides)[IR_MAX_RANK], int64_t *offsets) {
    for (int i = rank - 1; i >= 0; i--) {
        for (int j = 0; j < n; j++)
            offsets[j] += strides[j][i];
        if (++index[i] < dims[i])
            return true;
        for (int j = 0; j < n; j++)
            offsets[j] -= strides[j][i] * dims[i];
        index[i] = 0;
    }
    return false;
}

/* --- storage -----------------------------------------------------------------------------------
 */

float *interp_alloc(ir_interp *in, const ir_op *op, int64_t count) {
    size_t bytes;
    float *data = NULL;
    if (!__builtin_mul_overflow((size_t)count, sizeof(float), &bytes))
        data = malloc(bytes ? bytes : 1);
    if (!data)
        ir_error(in->diag, op ? ir_op_label(op) : NULL, "no memory for %lld elements",
                 (long long)count);
    return data;
}

void interp_value_clear(interp_value *value) {
    if (value->owned) {
        free(value->data);
        free(value->parts);
    }
    *value = (interp_value){0};
}

float *interp_result(ir_interp *in, const ir_op *op, int i, interp_shape *shape) {
    interp_shape own;
    if (!interp_shape_of(in, op, &op->results[i]->type, &own))
        return NULL;
    float *data = interp_alloc(in, op, own.count);
    if (!data)
        return NULL;
    interp_value *value = &in->values[op->results[i]->id];
    interp_value_clear(value);
    *value = (interp_value){.ready = true, .owned = true, .data = data};
    if (shape)
        *shape = own;
    return data;
}

void interp_decode(const ir_type *type, const void *row, int64_t n, float *out) {
    if (type->encoding) {
        ir_encoding_decode_row(type->encoding, row, n, out);
        return;
    }
    const uint8_t *p = row;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        int32_t word;
        int64_t wide;
        switch (type->dtype) {
        case IR_F16:
            memcpy(&h, p + 2 * i, 2);
            out[i] = ir_f16_to_f32(h);
            break;
        case IR_BF16:
            memcpy(&h, p + 2 * i, 2);
            out[i] = ir_bf16_to_f32(h);
            break;
        case IR_F8E4M3:
        case IR_F8E5M2:
            out[i] = ir_f8_to_f32(p[i], type->dtype);
            break;
        case IR_I64:
            memcpy(&wide, p + 8 * i, 8);
            out[i] = (float)wide;
            break;
        case IR_I32:
            memcpy(&word, p + 4 * i, 4);
            out[i] = (float)word;
            break;
        case IR_I8:
            out[i] = (float)(int8_t)p[i];
            break;
        case IR_U8:
            out[i] = (float)p[i];
            break;
        case IR_BOOL:
            out[i] = p[i] != 0;
            break;
        default:
            memcpy(out + i, p + 4 * i, 4);
            break;
        }
    }
}

static int64_t row_bytes(const ir_type *type, int64_t k) {
    return type->encoding ? ir_encoding_row_bytes(type->encoding, k)
                          : k * (ir_dtype_bits(type->dtype) / 8);
}

const float *interp_row(const interp_value *value, int64_t row, int64_t k, float *scratch) {
    if (value->data)
        return value->data + row * k;
    const interp_part *part = value->parts;
    while (row >= part->rows) {
        row -= part->rows;
        part++;
    }
    interp_decode(part->type, part->data + row * row_bytes(part->type, k), k, scratch);
    return scratch;
}

const float *interp_operand(ir_interp *in, const ir_op *op, int i, interp_shape *shape) {
    const ir_value *operand = op->operands[i];
    interp_value *value = &in->values[operand->id];
    interp_shape own;
    if (!interp_shape_of(in, op, &operand->type, &own))
        return NULL;
    if (shape)
        *shape = own;
    if (!value->ready || (!value->data && !value->parts)) {
        ir_internal_error(in->diag, ir_op_label(op), "operand %d has no value", i);
        return NULL;
    }
    if (!value->data) {
        float *data = interp_alloc(in, op, own.count);
        if (!data)
            return NULL;
        int64_t k = own.rank ? own.dims[own.rank - 1] : 1;
        for (int64_t at = 0, row = 0; at < own.count; at += k, row++)
            interp_row(value, row, k, data + at);
        /* A kernel's argument shares its parts with the operand: only the decoded copy is its own,
         * and the parts go back to being read by the operand alone. */
        interp_value decoded = {.ready = true, .owned = true, .data = data};
        interp_value_clear(value);
        *value = decoded;
    }
    return value->data;
}

/* --- rounding ----------------------------------------------------------------------------------
 */

bool interp_round(ir_dtype dtype, double v, float *out) {
    double low, high;
    switch (dtype) {
    case IR_F32:
        *out = (float)v;
        return true;
    case IR_F16:
        *out = ir_f16_to_f32(ir_f32_to_f16((float)v));
        return true;
    case IR_BF16:
        *out = ir_bf16_to_f32(ir_f32_to_bf16((float)v));
        return true;
    case IR_F8E4M3:
    case IR_F8E5M2:
        *out = ir_f8_to_f32(ir_f32_to_f8((float)v, dtype), dtype);
        return true;
    case IR_BOOL:
        *out = v != 0;
        return true;
    case IR_I8:
        low = -128, high = 127;
        break;
    case IR_U8:
        low = 0, high = 255;
        break;
    default: /* wider integers, as far as f32 is exact */
        low = -0x1p24, high = 0x1p24;
        break;
    }
    v = rint(v);
    if (!(v >= low && v <= high))
        return false;
    *out = (float)v;
    return true;
}

bool interp_round_error(ir_interp *in, const ir_op *op, ir_dtype dtype, double v) {
    return ir_error(in->diag, ir_op_label(op),
                    "%g does not fit %s, of which the interpreter holds magnitudes up to 2^24", v,
                    ir_dtype_name(dtype));
}

/* --- the cache ---------------------------------------------------------------------------------
 */

interp_kv_layer *interp_kv_get(ir_interp *in, const ir_op *op, int64_t group, int64_t layer) {
    const ir_module *module = in->module;
    if (group < 0 || group >= module->n_kv_groups) {
        ir_error(in->diag, ir_op_label(op), "kv group %lld of %d", (long long)group,
                 module->n_kv_groups);
        return NULL;
    }
    const ir_kv_group *g = &module->kv_groups[group];
    int64_t width;
    if (layer < 0 || layer >= g->layers || g->layers > 1 << 20) {
        ir_error(in->diag, ir_op_label(op), "layer %lld of the %lld in kv group %lld",
                 (long long)layer, (long long)g->layers, (long long)group);
        return NULL;
    }
    if (g->heads <= 0 || g->head_dim <= 0 ||
        __builtin_mul_overflow(g->heads, g->head_dim, &width) || width > 1 << 30 ||
        !ir_kv_dtype_ok(g->dtype)) {
        ir_error(in->diag, ir_op_label(op), "kv group %lld has a geometry that cannot be stored",
                 (long long)group);
        return NULL;
    }
    if (!in->kv)
        in->kv = calloc((size_t)module->n_kv_groups, sizeof *in->kv);
    if (in->kv && !in->kv[group])
        in->kv[group] = calloc((size_t)g->layers, sizeof **in->kv);
    if (!in->kv || !in->kv[group]) {
        ir_error(in->diag, ir_op_label(op), "no memory for a cache of %lld layers",
                 (long long)g->layers);
        return NULL;
    }
    in->kv[group][layer].group = g;
    return &in->kv[group][layer];
}

interp_kv_slot *interp_kv_slot_get(ir_interp *in, const ir_op *op, interp_kv_layer *layer,
                                   int32_t number, int64_t positions) {
    if (number < 0 || number >= MAX_KV_SLOTS) {
        ir_error(in->diag, ir_op_label(op), "cache slot %d, of which there are %d", (int)number,
                 MAX_KV_SLOTS);
        return NULL;
    }
    if (number >= layer->n_slots) {
        interp_kv_slot *slots = realloc(layer->slots, ((size_t)number + 1) * sizeof *slots);
        if (!slots)
            goto no_memory;
        memset(slots + layer->n_slots, 0, (size_t)(number + 1 - layer->n_slots) * sizeof *slots);
        layer->slots = slots;
        layer->n_slots = number + 1;
    }
    interp_kv_slot *slot = &layer->slots[number];
    if (positions > slot->capacity) {
        int64_t capacity = positions + positions / 2, count;
        size_t bytes;
        if (__builtin_mul_overflow(capacity, layer->group->heads * layer->group->head_dim,
                                   &count) ||
            __builtin_mul_overflow((size_t)count, sizeof(float), &bytes))
            goto no_memory;
        float *keys = realloc(slot->keys, bytes);
        if (!keys)
            goto no_memory;
        slot->keys = keys;
        float *values = realloc(slot->values, bytes);
        if (!values)
            goto no_memory;
        slot->values = values;
        slot->capacity = capacity;
    }
    return slot;
no_memory:
    ir_error(in->diag, ir_op_label(op), "no memory for %lld positions", (long long)positions);
    return NULL;
}

void interp_kv_clear(ir_interp *in) {
    for (int g = 0; in->kv && g < in->module->n_kv_groups; g++) {
        for (int64_t l = 0; in->kv[g] && l < in->module->kv_groups[g].layers; l++) {
            interp_kv_layer *layer = &in->kv[g][l];
            for (int s = 0; s < layer->n_slots; s++) {
                free(layer->slots[s].keys);
                free(layer->slots[s].values);
            }
            free(layer->slots);
        }
        free(in->kv[g]);
    }
    free(in->kv);
    in->kv = NULL;
}

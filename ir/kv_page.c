/* Pages of the KV cache: where elements lie, and what quantized pages hold. */
#include "ir/ir.h"

#include <math.h>

enum { PAGE_ALIGNMENT = 64, MOST_F16 = 65504 };

bool ir_kv_quantized(ir_dtype dtype) {
    return dtype == IR_I8 || dtype == IR_F8E4M3;
}

bool ir_kv_dtype_ok(ir_dtype dtype) {
    return dtype == IR_F32 || dtype == IR_F16 || ir_kv_quantized(dtype);
}

int64_t ir_kv_place(const ir_kv_group *g, bool is_v, int64_t head, int64_t token, int64_t d) {
    int64_t at = is_v ? ((g->heads + head) * g->page_tokens + token) * g->head_dim + d
                      : (head * g->head_dim + d) * g->page_tokens + token;
    return at * (ir_dtype_bits(g->dtype) / 8);
}

int64_t ir_kv_scale_place(const ir_kv_group *g, bool is_v, int64_t head, int64_t token) {
    int64_t elements = 2 * g->heads * g->head_dim * g->page_tokens;
    return elements + (((is_v ? g->heads : 0) + head) * g->page_tokens + token) * 2;
}

int64_t ir_kv_page_bytes(const ir_kv_group *g) {
    int64_t bytes = 2 * g->heads * g->head_dim * g->page_tokens * (ir_dtype_bits(g->dtype) / 8);
    if (!ir_kv_quantized(g->dtype))
        return bytes;
    bytes += 2 * g->heads * g->page_tokens * 2;
    return (bytes + PAGE_ALIGNMENT - 1) / PAGE_ALIGNMENT * PAGE_ALIGNMENT;
}

double ir_kv_most(ir_dtype dtype) {
    return dtype == IR_I8 ? 127 : 448;
}

static uint8_t encode(ir_dtype dtype, float x) {
    float most = (float)ir_kv_most(dtype);
    if (dtype == IR_I8) {
        x = rintf(x);
        return (uint8_t)(int8_t)(x > -most ? x < most ? x : most : -most);
    }
    return ir_f32_to_f8(x > -most ? x < most ? x : most : -most, dtype);
}

uint16_t ir_kv_encode(ir_dtype dtype, const float *x, int64_t n, uint8_t *codes, int64_t stride) {
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    most /= (float)ir_kv_most(dtype);
    uint16_t scale = ir_f32_to_f16(most < MOST_F16 ? most : MOST_F16);
    float divisor = scale ? ir_f16_to_f32(scale) : 1;
    for (int64_t i = 0; i < n; i++)
        codes[i * stride] = encode(dtype, x[i] / divisor);
    return scale;
}

float ir_kv_decode(ir_dtype dtype, uint8_t code, uint16_t scale) {
    float v = dtype == IR_I8 ? (float)(int8_t)code : ir_f8_to_f32(code, dtype);
    return v * ir_f16_to_f32(scale);
}

const ir_op *ir_kv_source(const ir_value *kv) {
    while (kv->def && kv->def->code != IR_OP_KV_CACHE) {
        const ir_value *next = NULL;
        for (int i = 0; i < kv->def->n_operands; i++)
            if (kv->def->operands[i]->type.kind == IR_KV)
                next = kv->def->operands[i];
        if (!next)
            return NULL;
        kv = next;
    }
    return kv->def;
}

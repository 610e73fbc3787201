#include "compiler/verify.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- one number ----------------------------------------------------------------------------------
 */

/* False, and noted, when `got` is farther from `want` than `bound`. */
static bool count_value(verify_count *c, double got, double want, double bound, double likely) {
    double error = fabs(got - want);
    bool right = error <= bound; /* never of a NaN */
    c->values++;
    c->wrong += !right;
    c->close += error <= likely;
    if (error > c->worst_error || isnan(error))
        c->worst_error = isnan(error) ? INFINITY : error;
    double ratio = right ? (bound > 0 ? error / bound : 0)
                         : (bound > 0 && !isnan(error) ? error / bound : INFINITY);
    if (ratio > c->worst_ratio)
        c->worst_ratio = ratio;
    return right;
}

static void note(verify_count *c, const ir_op *op, const char *what, int64_t row, int64_t column,
                 double got, double want, double bound) {
    if (!c->first[0])
        snprintf(c->first, sizeof c->first,
                 "%s: %s, row %" PRId64 ", column %" PRId64
                 ": %.9g, the reference has %.9g: off by %.3g, at most %.3g",
                 ir_op_label(op), what, row, column, got, want, fabs(got - want), bound);
}

/* --- results -------------------------------------------------------------------------------------
 */

static int64_t row_of(const ir_type *type, int64_t *row_bytes) {
    int64_t k = type->rank > 1 ? type->dims[type->rank - 1].c : 1;
    *row_bytes = type->encoding ? ir_encoding_row_bytes(type->encoding, k)
                                : k * (ir_dtype_bits(type->dtype) / 8);
    return k;
}

/* The sums that a row of a8 carries beside its codes (ir_encoding_row_bytes) follow from them. */
static bool sums_are_right(const uint8_t *row, int64_t k) {
    for (int64_t group = 0; group < k / 32; group++) {
        int32_t sums[2] = {0}, stored[2];
        float scale, scaled;
        for (int i = 0; i < 32; i++)
            sums[i / 16] += (int8_t)row[group * 32 + i];
        memcpy(&scale, row + k + group * 4, 4);
        memcpy(&scaled, row + k + k / 32 * 4 + group * 4, 4);
        memcpy(stored, row + k + k / 32 * 8 + group * 8, 8);
        if (memcmp(sums, stored, 8) != 0 || scaled != scale * (float)(sums[0] + sums[1]))
            return false;
    }
    return true;
}

static void check_sums(verify_count *c, const ir_op *op, const uint8_t *row, int64_t k,
                       int64_t at) {
    if (sums_are_right(row, k))
        return;
    c->wrong++;
    c->worst_ratio = INFINITY;
    if (!c->first[0])
        snprintf(c->first, sizeof c->first, "%s: wrong sums beside the a8 codes of row %" PRId64,
                 ir_op_label(op), at);
}

static int32_t int_at(const uint8_t *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

void verify_compare(verify_count *c, const verify_bounds *b, const ir_op *op, int result,
                    const uint8_t *got) {
    const ir_type *type = &op->results[result]->type;
    const bound_value *want = bound_result(b->sure, op, result),
                      *likely = bound_result(b->likely, op, result);
    int64_t row_bytes, k = row_of(type, &row_bytes);
    char what[32];
    snprintf(what, sizeof what, "result %d", result);
    ir_arena *arena = ir_arena_create();
    float *row = ir_arena_array(arena, (size_t)k, sizeof *row);
    for (int64_t i = 0; i < want->count; i++) {
        const uint8_t *at = got + i / k * row_bytes;
        if (i % k == 0 && type->encoding && type->encoding->id == IR_ENC_A8)
            check_sums(c, op, at, k, i / k);
        if (i % k == 0 && (type->encoding || type->dtype != IR_I32))
            bound_decode(type, at, k, row, NULL);
        double value =
            !type->encoding && type->dtype == IR_I32 ? int_at(at + i % k * 4) : (double)row[i % k];
        double reference = (double)want->value[i];
        if (!count_value(c, value, reference, want->error[i], likely->error[i]))
            note(c, op, what, i / k, i % k, value, reference, want->error[i]);
    }
    ir_arena_destroy(arena);
}

static void encode_row(const ir_type *type, const float *values, int64_t k, uint8_t *row) {
    for (int64_t i = 0; i < k; i++) {
        float f = values[i];
        int32_t number = (int32_t)f;
        uint16_t half = type->dtype == IR_F16 ? ir_f32_to_f16(f) : ir_f32_to_bf16(f);
        if (type->dtype == IR_F32)
            memcpy(row + 4 * i, &f, 4);
        else if (type->dtype == IR_I32)
            memcpy(row + 4 * i, &number, 4);
        else
            memcpy(row + 2 * i, &half, 2);
    }
}

void verify_encode(const bounds *b, const ir_op *op, int result, uint8_t *to) {
    const ir_type *type = &op->results[result]->type;
    const ir_value *yielded = op->body->last->operands[result];
    /* Of what was quantized, what it was made from, so that codes and scales are the
     * interpreter's. */
    bool quantized = type->encoding && yielded->def && yielded->def->code == IR_OP_QUANTIZE;
    const ir_value *from = bound_source(quantized ? yielded->def->operands[0] : yielded);
    const bound_value *v = &b->values[from->id];
    int64_t row_bytes, k = row_of(type, &row_bytes);
    for (int64_t i = 0; i < v->count; i += k) {
        if (type->encoding)
            ir_encoding_encode_row(type->encoding, v->value + i, k, to + i / k * row_bytes);
        else
            encode_row(type, v->value + i, k, to + i / k * row_bytes);
    }
}

/* --- the cache -----------------------------------------------------------------------------------
 */

/* The append whose cache a kernel returns as this result, or NULL. */
static const ir_op *append_of(const ir_op *op, int result) {
    const ir_value *v = bound_source(op->body->last->operands[result]);
    return v->def && v->def->code == IR_OP_KV_APPEND ? v->def : NULL;
}

/* Of one head of one token: its keys or values in a page, and what the interpreter has. */
typedef struct page_head {
    const ir_kv_group *group;
    uint8_t *page;
    bool is_v;
    int64_t head, token; /* in the page */
    const float *want;   /* [head_dim] */
} page_head;

static double element(const page_head *p, int64_t d) {
    const ir_kv_group *g = p->group;
    const uint8_t *at = p->page + ir_kv_place(g, p->is_v, p->head, p->token, d);
    uint16_t half;
    float f;
    if (ir_kv_quantized(g->dtype)) {
        memcpy(&half, p->page + ir_kv_scale_place(g, p->is_v, p->head, p->token), 2);
        return (double)ir_kv_decode(g->dtype, *at, half);
    }
    if (g->dtype == IR_F16) {
        memcpy(&half, at, 2);
        return (double)ir_f16_to_f32(half);
    }
    memcpy(&f, at, 4);
    return (double)f;
}

static void set_elements(const page_head *p) {
    const ir_kv_group *g = p->group;
    uint8_t *first = p->page + ir_kv_place(g, p->is_v, p->head, p->token, 0);
    int64_t stride = p->page + ir_kv_place(g, p->is_v, p->head, p->token, 1) - first;
    if (ir_kv_quantized(g->dtype)) {
        uint16_t scale = ir_kv_encode(g->dtype, p->want, g->head_dim, first, stride);
        memcpy(p->page + ir_kv_scale_place(g, p->is_v, p->head, p->token), &scale, 2);
        return;
    }
    for (int64_t d = 0; d < g->head_dim; d++) {
        uint16_t half = ir_f32_to_f16(p->want[d]);
        if (g->dtype == IR_F16)
            memcpy(first + d * stride, &half, 2);
        else
            memcpy(first + d * stride, &p->want[d], 4);
    }
}

/* What rounding to the page's type adds to an error: half a unit in the last place, or half a step
 * of the scale and what the largest number loses where the scale is rounded down. */
static double rounded(const page_head *p, double value, double error, double most) {
    ir_dtype dtype = p->group->dtype;
    value = fabs(value) + error;
    if (!ir_kv_quantized(dtype))
        return dtype == IR_F16 ? error + 0x1p-11 * value + 0x1p-25 : error;
    double levels = ir_kv_most(dtype), scale = most / levels * (1 + 0x1p-10) + 0x1p-24;
    double half = dtype == IR_I8 ? scale / 2 : fmax(value * 0x1p-4, scale * 0x1p-10);
    return error + half + 0x1p-11 * value + levels * 0x1p-25;
}

/* The largest magnitude that the head may have had. */
static double largest(const float *value, const double *error, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)value[i]) + error[i]);
    return most;
}

void verify_compare_kv(verify_count *c, const verify_bounds *b, const ir_op *op, int result,
                       const verify_step *step, uint8_t *layer) {
    const ir_op *append = append_of(op, result);
    if (!append)
        return;
    const ir_value *cache = append->operands[0];
    for (cache = bound_source(cache); cache->def->code != IR_OP_KV_CACHE;
         cache = bound_source(cache))
        cache = cache->def->code == IR_OP_KERNEL ? cache->def->body->last->operands[cache->index]
                                                 : cache->def->operands[0];
    int64_t group = ir_op_int(cache->def, "group");
    const ir_kv_group *g = &b->sure->module->kv_groups[group];
    const mcc_step *s = step->block;
    const int32_t *tables = (const int32_t *)(const void *)((const char *)s + s->page_tables);
    const int32_t *seqs = (const int32_t *)(const void *)((const char *)s + s->token_seqs);
    for (int is_v = 0; is_v < 2; is_v++) {
        const ir_value *value = bound_source(append->operands[1 + is_v]);
        const bound_value *want = &b->sure->values[value->id],
                          *likely = &b->likely->values[value->id];
        int64_t per_token = g->heads * g->head_dim;
        for (int64_t i = 0; i < want->count; i += g->head_dim) {
            int64_t t = i / per_token, position = step->interp.positions[t];
            int64_t number = tables[(group * s->S + seqs[t]) * s->P + position / g->page_tokens];
            page_head p = {.group = g,
                           .page = layer + number * ir_kv_page_bytes(g),
                           .is_v = is_v,
                           .head = i % per_token / g->head_dim,
                           .token = position % g->page_tokens,
                           .want = want->value + i};
            double most = largest(want->value + i, want->error + i, g->head_dim);
            double near_most = largest(want->value + i, likely->error + i, g->head_dim);
            for (int64_t d = 0; d < g->head_dim; d++) {
                double got = element(&p, d), reference = (double)p.want[d];
                double bound = rounded(&p, reference, want->error[i + d], most);
                double near = rounded(&p, reference, likely->error[i + d], near_most);
                if (!count_value(c, got, reference, bound, near))
                    note(c, op, is_v ? "stored value" : "stored key", t, i % per_token + d, got,
                         reference, bound);
            }
            set_elements(&p);
        }
    }
}

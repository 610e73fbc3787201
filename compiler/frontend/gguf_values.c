/* Typed reads of GGUF metadata: the file's many integer and float types become one of each. */
#include <inttypes.h>
#include <string.h>

#include "compiler/frontend/gguf.h"

const fe_gguf_value *fe_gguf_find(const fe_gguf *gguf, const char *key) {
    for (int64_t i = 0; i < gguf->value_count; i++)
        if (strcmp(gguf->values[i].key, key) == 0)
            return &gguf->values[i];
    return NULL;
}

static uint64_t load(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* Reads item `i` of an integer type. Returns false for other types and beyond int64_t. */
static bool load_int(const fe_gguf_value *v, uint64_t i, int64_t *out) {
    const uint8_t *p = v->items.data;
    switch (v->item_type) {
    case FE_GGUF_U8:
        *out = p[i];
        return true;
    case FE_GGUF_I8:
        *out = (int8_t)p[i];
        return true;
    case FE_GGUF_U16:
        *out = (uint16_t)load(p + 2 * i, 2);
        return true;
    case FE_GGUF_I16:
        *out = (int16_t)load(p + 2 * i, 2);
        return true;
    case FE_GGUF_U32:
        *out = (uint32_t)load(p + 4 * i, 4);
        return true;
    case FE_GGUF_I32:
        *out = (int32_t)load(p + 4 * i, 4);
        return true;
    case FE_GGUF_U64:
    case FE_GGUF_I64: {
        uint64_t u = load(p + 8 * i, 8);
        if (v->item_type == FE_GGUF_U64 && u > INT64_MAX)
            return false;
        *out = (int64_t)u;
        return true;
    }
    default:
        return false;
    }
}

static bool load_float(const fe_gguf_value *v, uint64_t i, double *out) {
    int64_t integer;
    if (v->item_type == FE_GGUF_F32) {
        uint32_t bits = (uint32_t)load(v->items.data + 4 * i, 4);
        float f;
        memcpy(&f, &bits, 4);
        *out = f;
        return true;
    }
    if (v->item_type == FE_GGUF_F64) {
        uint64_t bits = load(v->items.data + 8 * i, 8);
        memcpy(out, &bits, 8);
        return true;
    }
    if (!load_int(v, i, &integer))
        return false;
    *out = (double)integer;
    return true;
}

/* Reports that `v` is not what was expected; its byte offset lets a person look. */
static bool wrong(const fe_gguf *gguf, const fe_gguf_value *v, const char *expected,
                  ir_diag *diag) {
    bool array = v->type == FE_GGUF_ARRAY;
    return ir_error(diag, gguf->file, "metadata %s is %s%s at offset %zu, expected %s", v->key,
                    array ? "an array of " : "", fe_gguf_type_name(v->item_type),
                    (size_t)(v->items.data - gguf->bytes.data), expected);
}

bool fe_gguf_int(const fe_gguf *gguf, const char *key, int64_t *value, ir_diag *diag) {
    const fe_gguf_value *v = fe_gguf_find(gguf, key);
    if (!v)
        return false;
    if (v->type == FE_GGUF_ARRAY || !load_int(v, 0, value))
        return wrong(gguf, v, "an integer below 2^63", diag);
    return true;
}

bool fe_gguf_float(const fe_gguf *gguf, const char *key, double *value, ir_diag *diag) {
    const fe_gguf_value *v = fe_gguf_find(gguf, key);
    if (!v)
        return false;
    if (v->type == FE_GGUF_ARRAY || !load_float(v, 0, value))
        return wrong(gguf, v, "a number", diag);
    return true;
}

bool fe_gguf_bool(const fe_gguf *gguf, const char *key, bool *value, ir_diag *diag) {
    const fe_gguf_value *v = fe_gguf_find(gguf, key);
    if (!v)
        return false;
    if (v->type != FE_GGUF_BOOL || v->items.data[0] > 1)
        return wrong(gguf, v, "a bool of 0 or 1", diag);
    *value = v->items.data[0] != 0;
    return true;
}

bool fe_gguf_string(const fe_gguf *gguf, const char *key, fe_bytes *value, ir_diag *diag) {
    const fe_gguf_value *v = fe_gguf_find(gguf, key);
    if (!v)
        return false;
    if (v->type != FE_GGUF_STRING)
        return wrong(gguf, v, "a string", diag);
    *value = (fe_bytes){v->items.data + 8, v->items.size - 8};
    return true;
}

bool fe_gguf_strings(const fe_gguf *gguf, const char *key, fe_bytes **items, int64_t *count,
                     ir_arena *arena, ir_diag *diag) {
    const fe_gguf_value *v = fe_gguf_find(gguf, key);
    if (!v)
        return false;
    if (v->type != FE_GGUF_ARRAY || v->item_type != FE_GGUF_STRING)
        return wrong(gguf, v, "an array of strings", diag);
    /* The parser has walked these strings: count * 8 bytes are there, so this cannot explode. */
    *items = ir_arena_array(arena, (size_t)v->count, sizeof **items);
    *count = (int64_t)v->count;
    const uint8_t *p = v->items.data;
    for (uint64_t i = 0; i < v->count; i++) {
        size_t size = (size_t)load(p, 8);
        (*items)[i] = (fe_bytes){p + 8, size};
        p += 8 + size;
    }
    return true;
}

bool fe_gguf_ints(const fe_gguf *gguf, const char *key, int32_t **items, int64_t *count,
                  ir_arena *arena, ir_diag *diag) {
    const fe_gguf_value *v = fe_gguf_find(gguf, key);
    if (!v)
        return false;
    if (v->type != FE_GGUF_ARRAY)
        return wrong(gguf, v, "an array of integers", diag);
    *items = ir_arena_array(arena, (size_t)v->count, sizeof **items);
    *count = (int64_t)v->count;
    for (uint64_t i = 0; i < v->count; i++) {
        int64_t item;
        if (!load_int(v, i, &item) || item < INT32_MIN || item > INT32_MAX)
            return wrong(gguf, v, "an array of integers below 2^31", diag);
        (*items)[i] = (int32_t)item;
    }
    return true;
}

bool fe_gguf_floats(const fe_gguf *gguf, const char *key, float **items, int64_t *count,
                    ir_arena *arena, ir_diag *diag) {
    const fe_gguf_value *v = fe_gguf_find(gguf, key);
    if (!v)
        return false;
    if (v->type != FE_GGUF_ARRAY)
        return wrong(gguf, v, "an array of numbers", diag);
    *items = ir_arena_array(arena, (size_t)v->count, sizeof **items);
    *count = (int64_t)v->count;
    for (uint64_t i = 0; i < v->count; i++) {
        double item;
        if (!load_float(v, i, &item))
            return wrong(gguf, v, "an array of numbers", diag);
        (*items)[i] = (float)item;
    }
    return true;
}

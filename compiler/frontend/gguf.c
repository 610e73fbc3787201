#include "compiler/frontend/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/frontend/list.h"

/* Limits of the format's document (keys) and of good sense (names). */
enum { longest_key = 65535, longest_name = 255, most_dims = 4 };
enum { default_alignment = 32, largest_alignment = 1 << 20 };

/* ---- reading ---- */

/* Where in the file we are. All reads go through `take`, which alone moves `at`. */
typedef struct reader {
    const uint8_t *data;
    uint64_t size, at;
    const char *file;
    const char *what; /* what is being read, for the message about a truncated file */
    ir_arena *arena;
    ir_diag *diag;
} reader;

static uint64_t load(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static const uint8_t *take(reader *r, uint64_t bytes) {
    if (bytes > r->size - r->at) {
        ir_error(r->diag, r->file,
                 "%s needs %" PRIu64 " bytes at offset %" PRIu64 " but the file ends at %" PRIu64
                 " (truncated?)",
                 r->what, bytes, r->at, r->size);
        return NULL;
    }
    const uint8_t *p = r->data + r->at;
    r->at += bytes;
    return p;
}

static bool read_u32(reader *r, uint32_t *value) {
    const uint8_t *p = take(r, 4);
    if (p)
        *value = (uint32_t)load(p, 4);
    return p != NULL;
}

static bool read_u64(reader *r, uint64_t *value) {
    const uint8_t *p = take(r, 8);
    if (p)
        *value = load(p, 8);
    return p != NULL;
}

static bool read_bytes(reader *r, fe_bytes *bytes) {
    uint64_t size;
    if (!read_u64(r, &size))
        return false;
    const uint8_t *p = take(r, size);
    if (!p)
        return false;
    *bytes = (fe_bytes){p, (size_t)size};
    return true;
}

/* A key or a tensor's name: printable and bounded, so that it can stand in messages. */
static const char *read_name(reader *r, uint64_t longest) {
    uint64_t at = r->at;
    fe_bytes name;
    if (!read_bytes(r, &name))
        return NULL;
    if (!fe_name_is_clean(name.data, name.size, longest)) {
        ir_error(r->diag, r->file,
                 "%s at offset %" PRIu64 " is \"%s\" (%zu bytes), expected 1 to %" PRIu64
                 " printable ASCII characters without spaces",
                 r->what, at, fe_printable(r->arena, name.data, name.size), name.size, longest);
        return NULL;
    }
    return ir_arena_strndup(r->arena, (const char *)name.data, name.size);
}

/* ---- metadata ---- */

static const struct {
    const char *name;
    int bytes; /* 0: of variable length */
} types[FE_GGUF_TYPE_COUNT] = {
    [FE_GGUF_U8] = {"u8", 1},       [FE_GGUF_I8] = {"i8", 1},     [FE_GGUF_U16] = {"u16", 2},
    [FE_GGUF_I16] = {"i16", 2},     [FE_GGUF_U32] = {"u32", 4},   [FE_GGUF_I32] = {"i32", 4},
    [FE_GGUF_F32] = {"f32", 4},     [FE_GGUF_BOOL] = {"bool", 1}, [FE_GGUF_STRING] = {"string", 0},
    [FE_GGUF_ARRAY] = {"array", 0}, [FE_GGUF_U64] = {"u64", 8},   [FE_GGUF_I64] = {"i64", 8},
    [FE_GGUF_F64] = {"f64", 8},
};

const char *fe_gguf_type_name(fe_gguf_type type) {
    return type < FE_GGUF_TYPE_COUNT ? types[type].name : "unknown";
}

static bool read_items(reader *r, fe_gguf_value *value) {
    uint64_t start = r->at;
    if (value->item_type == FE_GGUF_STRING) {
        fe_bytes ignored;
        for (uint64_t i = 0; i < value->count; i++)
            if (!read_bytes(r, &ignored))
                return false;
    } else {
        uint64_t bytes;
        if (__builtin_mul_overflow(value->count, (uint64_t)types[value->item_type].bytes, &bytes))
            bytes = UINT64_MAX;
        if (!take(r, bytes))
            return false;
    }
    value->items = (fe_bytes){r->data + start, (size_t)(r->at - start)};
    return true;
}

static bool read_type(reader *r, const char *key, fe_gguf_type *type) {
    uint64_t at = r->at;
    uint32_t id;
    if (!read_u32(r, &id))
        return false;
    if (id >= FE_GGUF_TYPE_COUNT)
        return ir_error(r->diag, r->file,
                        "metadata %s has value type %" PRIu32 " at offset %" PRIu64
                        ", expected 0 to %d (damaged, or newer than modelcc)",
                        key, id, at, FE_GGUF_TYPE_COUNT - 1);
    *type = (fe_gguf_type)id;
    return true;
}

static bool read_value(reader *r, fe_gguf_value *value) {
    r->what = "a metadata key";
    value->key = read_name(r, longest_key);
    if (!value->key)
        return false;
    r->what = ir_arena_printf(r->arena, "metadata %s", value->key);
    if (!read_type(r, value->key, &value->type))
        return false;
    value->item_type = value->type;
    value->count = 1;
    if (value->type == FE_GGUF_ARRAY) {
        uint64_t at = r->at;
        if (!read_type(r, value->key, &value->item_type))
            return false;
        if (value->item_type == FE_GGUF_ARRAY)
            return ir_error(r->diag, r->file,
                            "metadata %s is an array of arrays at offset %" PRIu64
                            ", which modelcc does not read",
                            value->key, at);
        if (!read_u64(r, &value->count))
            return false;
    }
    return read_items(r, value);
}

static int compare_keys(const void *a, const void *b) {
    return strcmp((*(const fe_gguf_value *const *)a)->key, (*(const fe_gguf_value *const *)b)->key);
}

static bool read_values(reader *r, fe_gguf *gguf) {
    gguf->values = ir_arena_array(r->arena, (size_t)gguf->value_count, sizeof *gguf->values);
    const fe_gguf_value **sorted =
        ir_arena_array(r->arena, (size_t)gguf->value_count, sizeof *sorted);
    for (int64_t i = 0; i < gguf->value_count; i++) {
        if (!read_value(r, &gguf->values[i]))
            return false;
        sorted[i] = &gguf->values[i];
    }
    qsort(sorted, (size_t)gguf->value_count, sizeof *sorted, compare_keys);
    for (int64_t i = 1; i < gguf->value_count; i++)
        if (strcmp(sorted[i]->key, sorted[i - 1]->key) == 0)
            return ir_error(r->diag, r->file, "metadata %s is there twice", sorted[i]->key);
    return true;
}

/* ---- tensors ---- */

/* What a tensor's type id is called, also of the types that modelcc has no format for, so that a
 * message can name them (ggml.h, enum ggml_type). */
static const char *const foreign_types[] = {
    [4] = "Q4_2",        [5] = "Q4_3",        [9] = "Q8_1",        [10] = "Q2_K",    [11] = "Q3_K",
    [15] = "Q8_K",       [16] = "IQ2_XXS",    [17] = "IQ2_XS",     [18] = "IQ3_XXS", [19] = "IQ1_S",
    [20] = "IQ4_NL",     [21] = "IQ3_S",      [22] = "IQ2_S",      [23] = "IQ4_XS",  [24] = "I8",
    [25] = "I16",        [26] = "I32",        [27] = "I64",        [28] = "F64",     [29] = "IQ1_M",
    [31] = "Q4_0_4_4",   [32] = "Q4_0_4_8",   [33] = "Q4_0_8_8",   [34] = "TQ1_0",   [35] = "TQ2_0",
    [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8", [39] = "MXFP4",
};

static bool find_format(uint32_t type, fe_format *format) {
    for (int f = 0; f < FE_FORMAT_COUNT; f++)
        if (fe_formats[f].gguf_type == type && type != FE_NO_GGUF_TYPE) {
            *format = (fe_format)f;
            return true;
        }
    return false;
}

static const char *foreign_name(ir_arena *arena, uint32_t type) {
    const uint32_t known = sizeof foreign_types / sizeof *foreign_types;
    if (type < known && foreign_types[type])
        return foreign_types[type];
    return ir_arena_printf(arena, "number %" PRIu32, type);
}

/* Bytes of the data: dims[0] in whole blocks, times the rest. */
static bool tensor_size(reader *r, const char *where, fe_gguf_tensor *t) {
    const fe_format_info *format = &fe_formats[t->format];
    int64_t elements = 1;
    for (int d = 0; d < t->rank; d++)
        if (__builtin_mul_overflow(elements, t->dims[d], &elements))
            return ir_error(r->diag, where, "its dimensions multiply to more than 2^63 elements");
    if (t->dims[0] % format->block_elements != 0)
        return ir_error(r->diag, where,
                        "rows of %" PRId64 " elements, %s needs a multiple of %" PRId64, t->dims[0],
                        format->name, format->block_elements);
    int64_t bytes;
    if (__builtin_mul_overflow(elements / format->block_elements, format->block_bytes, &bytes))
        return ir_error(r->diag, where, "its data would be larger than 2^63 bytes");
    t->size = (uint64_t)bytes;
    return true;
}

/* Reads one entry of the tensor table; `offset` stays relative to the data section. A type without
 * a format leaves t->format at FE_FORMAT_COUNT for the caller to report. */
static bool read_tensor(reader *r, fe_gguf_tensor *t, uint32_t *type) {
    r->what = "a tensor's name";
    uint64_t at = r->at;
    t->name = read_name(r, longest_name);
    if (!t->name)
        return false;
    r->what = ir_arena_printf(r->arena, "the description of tensor %s", t->name);
    const char *where = ir_arena_printf(r->arena, "%s: tensor %s", r->file, t->name);
    uint32_t rank;
    if (!read_u32(r, &rank))
        return false;
    if (rank < 1 || rank > most_dims)
        return ir_error(r->diag, where,
                        "has %" PRIu32 " dimensions, expected 1 to %d (described at offset %" PRIu64
                        ")",
                        rank, most_dims, at);
    t->rank = (int)rank;
    for (int d = 0; d < most_dims; d++) {
        uint64_t dim = 1;
        if (d < t->rank && !read_u64(r, &dim))
            return false;
        if (dim < 1 || dim > INT64_MAX)
            return ir_error(r->diag, where,
                            "dimension %d is %" PRIu64 " (described at offset %" PRIu64 ")", d, dim,
                            at);
        t->dims[d] = (int64_t)dim;
    }
    if (!read_u32(r, type) || !read_u64(r, &t->offset))
        return false;
    t->format = FE_FORMAT_COUNT;
    return !find_format(*type, &t->format) || tensor_size(r, where, t);
}

/* One error for each type that modelcc has no format for, with every tensor that has it. */
static bool report_foreign(reader *r, const fe_gguf *gguf, const uint32_t *type_of) {
    bool *seen = ir_arena_array(r->arena, (size_t)gguf->tensor_count, sizeof *seen);
    bool ok = true;
    for (int64_t i = 0; i < gguf->tensor_count; i++) {
        if (seen[i] || gguf->tensors[i].format != FE_FORMAT_COUNT)
            continue;
        if (!ok && r->diag->errors >= 64)
            return false; /* a damaged table, not a model */
        fe_list names = {0};
        for (int64_t j = i; j < gguf->tensor_count; j++)
            if (type_of[j] == type_of[i]) {
                seen[j] = true;
                fe_list_add(&names, r->arena, gguf->tensors[j].name);
            }
        ok = ir_error(r->diag, r->file,
                      "tensor type %s is not supported; tensors that have it (%lld): %s "
                      "(supported:" FE_FORMAT_NAMES ")",
                      foreign_name(r->arena, type_of[i]), names.count, names.text);
    }
    return ok;
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const fe_gguf_tensor *const *)a)->name,
                  (*(const fe_gguf_tensor *const *)b)->name);
}

static int compare_offsets(const void *a, const void *b) {
    const fe_gguf_tensor *x = *(const fe_gguf_tensor *const *)a;
    const fe_gguf_tensor *y = *(const fe_gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Makes offsets absolute, and checks them against the file and each other. */
static bool place_tensors(reader *r, fe_gguf *gguf, uint64_t data, uint64_t alignment) {
    fe_gguf_tensor **sorted = ir_arena_array(r->arena, (size_t)gguf->tensor_count, sizeof *sorted);
    bool ok = true;
    for (int64_t i = 0; i < gguf->tensor_count; i++) {
        fe_gguf_tensor *t = &gguf->tensors[i];
        sorted[i] = t;
        const char *where = ir_arena_printf(r->arena, "%s: tensor %s", r->file, t->name);
        uint64_t begin, end;
        if (t->offset % alignment != 0)
            ok = ir_error(r->diag, where,
                          "offset %" PRIu64 " is not a multiple of the alignment %" PRIu64,
                          t->offset, alignment);
        else if (__builtin_add_overflow(data, t->offset, &begin) ||
                 __builtin_add_overflow(begin, t->size, &end))
            ok = ir_error(r->diag, where, "offset %" PRIu64 " is beyond any file", t->offset);
        else if (end > r->size)
            ok = ir_error(r->diag, where,
                          "needs bytes %" PRIu64 "..%" PRIu64 " but the file ends at %" PRIu64
                          " (truncated?)",
                          begin, end, r->size);
        else
            t->offset = begin;
        if (!ok && r->diag->errors >= 64)
            return ir_error(r->diag, r->file, "more tensors like these are not listed");
    }
    if (!ok)
        return false;
    qsort(sorted, (size_t)gguf->tensor_count, sizeof *sorted, compare_names);
    for (int64_t i = 1; i < gguf->tensor_count; i++)
        if (strcmp(sorted[i]->name, sorted[i - 1]->name) == 0)
            return ir_error(r->diag, r->file, "tensor %s is there twice", sorted[i]->name);
    qsort(sorted, (size_t)gguf->tensor_count, sizeof *sorted, compare_offsets);
    for (int64_t i = 1; i < gguf->tensor_count; i++) {
        const fe_gguf_tensor *a = sorted[i - 1], *b = sorted[i];
        if (a->offset + a->size > b->offset)
            return ir_error(r->diag, r->file,
                            "tensor %s at bytes %" PRIu64 "..%" PRIu64
                            " overlaps tensor %s, which begins at %" PRIu64,
                            a->name, a->offset, a->offset + a->size, b->name, b->offset);
    }
    return true;
}

static bool read_alignment(reader *r, const fe_gguf *gguf, uint64_t *alignment) {
    int64_t value = default_alignment;
    int errors = r->diag->errors;
    fe_gguf_int(gguf, "general.alignment", &value, r->diag);
    if (r->diag->errors != errors)
        return false;
    if (value < 1 || value > largest_alignment || (value & (value - 1)) != 0)
        return ir_error(r->diag, r->file,
                        "general.alignment is %" PRId64 ", expected a power of two up to %d", value,
                        largest_alignment);
    *alignment = (uint64_t)value;
    return true;
}

static bool read_tensors(reader *r, fe_gguf *gguf) {
    uint64_t alignment = default_alignment;
    if (!read_alignment(r, gguf, &alignment))
        return false;
    gguf->tensors = ir_arena_array(r->arena, (size_t)gguf->tensor_count, sizeof *gguf->tensors);
    uint32_t *type_of = ir_arena_array(r->arena, (size_t)gguf->tensor_count, sizeof *type_of);
    for (int64_t i = 0; i < gguf->tensor_count; i++)
        if (!read_tensor(r, &gguf->tensors[i], &type_of[i]))
            return false;
    gguf->foreign = !report_foreign(r, gguf, type_of);
    if (gguf->foreign)
        return false;
    uint64_t data = (r->at + alignment - 1) & ~(alignment - 1); /* at <= file size: no overflow */
    return place_tensors(r, gguf, data, alignment);
}

/* ---- the file ---- */

static bool read_header(reader *r, fe_gguf *gguf) {
    r->what = "the header";
    const uint8_t *magic = take(r, 4);
    if (!magic)
        return false;
    if (memcmp(magic, "GGUF", 4) != 0)
        return ir_error(r->diag, r->file, "is not a GGUF file: it begins with \"%s\"",
                        fe_printable(r->arena, magic, 4));
    uint64_t values, tensors;
    if (!read_u32(r, &gguf->version))
        return false;
    if (gguf->version >> 16 != 0 && (gguf->version & 0xffff) == 0)
        return ir_error(r->diag, r->file, "is a big-endian GGUF file, expected little-endian");
    if (gguf->version != 2 && gguf->version != 3)
        return ir_error(r->diag, r->file, "is GGUF version %" PRIu32 ", expected 2 or 3",
                        gguf->version);
    if (!read_u64(r, &tensors) || !read_u64(r, &values))
        return false;
    /* The least an entry can take: a value is key length, one character, type and one byte; a
     * tensor is name length, one character, rank, one dimension, type and offset. An array without
     * items is larger than that. So what is allocated is bounded by the file's length. */
    if (values > r->size / 14 || tensors > r->size / 33)
        return ir_error(r->diag, r->file,
                        "promises %" PRIu64 " metadata entries and %" PRIu64 " tensors in %" PRIu64
                        " bytes (truncated?)",
                        values, tensors, r->size);
    gguf->value_count = (int64_t)values;
    gguf->tensor_count = (int64_t)tensors;
    return true;
}

bool fe_gguf_parse(fe_gguf *gguf, fe_bytes bytes, const char *file, ir_arena *arena,
                   ir_diag *diag) {
    *gguf = (fe_gguf){.file = file, .bytes = bytes};
    reader r = {bytes.data, bytes.size, 0, file, NULL, arena, diag};
    return read_header(&r, gguf) && read_values(&r, gguf) && read_tensors(&r, gguf);
}

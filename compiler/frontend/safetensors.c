#include "compiler/frontend/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/frontend/json.h"

enum { longest_header = 100000000, longest_name = 255, most_errors = 64 };

/* Bits of each dtype that the format knows, so that sizes can be checked of all of them. */
static const struct {
    const char *name;
    int bits;
} dtypes[] = {{"BOOL", 8},    {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},
              {"F8_E8M0", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16},    {"BF16", 16},
              {"I32", 32},    {"U32", 32}, {"F32", 32}, {"F64", 64},    {"I64", 64},
              {"U64", 64},    {"C64", 64}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}};

static int dtype_bits(const char *name) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].bits;
    return 0;
}

static fe_format find_format(const char *name) {
    for (int f = 0; f < FE_FORMAT_COUNT; f++)
        if (fe_formats[f].plain && strcmp(fe_formats[f].name, name) == 0)
            return (fe_format)f;
    return FE_FORMAT_COUNT;
}

/* What the reading functions share. */
typedef struct reader {
    fe_safetensors *out;
    uint64_t data, size; /* the data section's begin and length in the file */
    ir_arena *arena;
    ir_diag *diag;
} reader;

static bool read_dtype(reader *r, const char *where, const cJSON *entry, fe_safetensor *t) {
    const cJSON *dtype = fe_json_member(entry, "dtype");
    if (!cJSON_IsString(dtype))
        return ir_error(r->diag, where, "has no \"dtype\" string in the header");
    t->dtype = fe_printable_text(r->arena, dtype->valuestring);
    t->format = find_format(t->dtype);
    return true;
}

static bool read_shape(reader *r, const char *where, const cJSON *entry, fe_safetensor *t) {
    const cJSON *shape = fe_json_member(entry, "shape");
    if (!cJSON_IsArray(shape))
        return ir_error(r->diag, where, "has no \"shape\" array in the header");
    const cJSON *dim;
    cJSON_ArrayForEach(dim, shape) {
        if (t->rank == FE_SAFETENSORS_MAX_RANK)
            return ir_error(r->diag, where, "has more than %d dimensions", FE_SAFETENSORS_MAX_RANK);
        if (!fe_json_to_int(dim, &t->dims[t->rank]) || t->dims[t->rank] < 0)
            return ir_error(r->diag, where, "dimension %d of its shape is not a size", t->rank);
        t->rank++;
    }
    return true;
}

static bool read_offsets(reader *r, const char *where, const cJSON *entry, fe_safetensor *t) {
    const cJSON *offsets = fe_json_member(entry, "data_offsets");
    int64_t begin = -1, end = -1;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !fe_json_to_int(offsets->child, &begin) || !fe_json_to_int(offsets->child->next, &end) ||
        begin < 0 || end < begin)
        return ir_error(r->diag, where, "has no \"data_offsets\" [begin, end] in the header");
    /* Both are below 2^53 and r->data below 2^27, so the sums cannot overflow. */
    t->offset = r->data + (uint64_t)begin;
    t->size = (uint64_t)(end - begin);
    if ((uint64_t)end > r->size)
        return ir_error(r->diag, where,
                        "needs bytes %" PRIu64 "..%" PRIu64 " but the file ends at %" PRIu64
                        " (truncated?)",
                        t->offset, t->offset + t->size, r->data + r->size);
    return true;
}

/* The size that dtype and shape imply, against the offsets'. A dtype that nobody knows passes. */
static bool check_size(reader *r, const char *where, const fe_safetensor *t) {
    int64_t bits = dtype_bits(t->dtype);
    if (bits == 0)
        return true;
    bool overflow = false;
    for (int d = 0; d < t->rank; d++)
        overflow |= __builtin_mul_overflow(bits, t->dims[d], &bits);
    if (overflow || bits % 8 != 0 || (uint64_t)(bits / 8) != t->size)
        return ir_error(r->diag, where,
                        "its shape in %s needs %" PRId64 " bytes%s, its offsets %" PRIu64
                        "..%" PRIu64 " hold %" PRIu64,
                        t->dtype, overflow ? INT64_MAX : bits / 8, overflow ? " or more" : "",
                        t->offset, t->offset + t->size, t->size);
    return true;
}

static bool read_tensor(reader *r, const cJSON *entry, fe_safetensor *t) {
    size_t length = strlen(entry->string);
    if (!fe_name_is_clean(entry->string, length, longest_name))
        return ir_error(r->diag, r->out->file,
                        "tensor name \"%s\" (%zu bytes) in the header, expected 1 to %d printable "
                        "ASCII characters without spaces",
                        fe_printable(r->arena, entry->string, length), length, longest_name);
    t->name = ir_arena_strdup(r->arena, entry->string);
    const char *where = ir_arena_printf(r->arena, "%s: tensor %s", r->out->file, t->name);
    if (!cJSON_IsObject(entry))
        return ir_error(r->diag, where, "its entry in the header is not an object");
    return read_dtype(r, where, entry, t) && read_shape(r, where, entry, t) &&
           read_offsets(r, where, entry, t) && check_size(r, where, t);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const fe_safetensor *)a)->name, ((const fe_safetensor *)b)->name);
}

static int compare_offsets(const void *a, const void *b) {
    const fe_safetensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->size != y->size) /* empty tensors first, or they would seem to overlap */
        return x->size < y->size ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Sorts by offset; tensors must tile the data section. */
static bool check_layout(reader *r) {
    fe_safetensors *out = r->out;
    size_t count = (size_t)out->count;
    if (count)
        qsort(out->tensors, count, sizeof *out->tensors, compare_names);
    for (size_t i = 1; i < count; i++)
        if (strcmp(out->tensors[i].name, out->tensors[i - 1].name) == 0)
            return ir_error(r->diag, out->file, "tensor %s is there twice", out->tensors[i].name);
    if (count)
        qsort(out->tensors, count, sizeof *out->tensors, compare_offsets);
    uint64_t at = r->data;
    const char *before = "the header";
    for (size_t i = 0; i < count; i++) {
        const fe_safetensor *t = &out->tensors[i];
        if (t->offset != at)
            return ir_error(r->diag, out->file,
                            "tensor %s begins at %" PRIu64 " but %s ends at %" PRIu64 " (%s)",
                            t->name, t->offset, before, at,
                            t->offset < at ? "they overlap" : "a gap");
        at += t->size;
        before = t->name;
    }
    if (at != r->data + r->size)
        return ir_error(r->diag, out->file, "%s ends at %" PRIu64 " but the file at %" PRIu64,
                        before, at, r->data + r->size);
    return true;
}

static bool read_header(reader *r, const cJSON *header) {
    fe_safetensors *out = r->out;
    out->tensors =
        ir_arena_array(r->arena, (size_t)cJSON_GetArraySize(header), sizeof *out->tensors);
    bool ok = true;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, header) {
        if (strcmp(entry->string, "__metadata__") == 0)
            continue;
        ok &= read_tensor(r, entry, &out->tensors[out->count++]);
        if (!ok && r->diag->errors >= most_errors)
            return ir_error(r->diag, out->file, "more tensors like these are not listed");
    }
    return ok && check_layout(r);
}

bool fe_safetensors_parse(fe_safetensors *out, fe_bytes bytes, const char *file, ir_arena *arena,
                          ir_diag *diag) {
    *out = (fe_safetensors){.file = file, .bytes = bytes};
    if (bytes.size < 8)
        return ir_error(diag, file,
                        "the header's length needs 8 bytes but the file ends at %zu (truncated?)",
                        bytes.size);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | bytes.data[i];
    if (length > longest_header)
        return ir_error(diag, file,
                        "promises a header of %" PRIu64
                        " bytes, expected at most %d (is it a safetensors file?)",
                        length, longest_header);
    if (length > bytes.size - 8)
        return ir_error(diag, file,
                        "the header needs bytes 8..%" PRIu64
                        " but the file ends at %zu (truncated?)",
                        8 + length, bytes.size);
    cJSON *header = fe_json_parse((fe_bytes){bytes.data + 8, (size_t)length}, file, 8, diag);
    if (!header)
        return false;
    reader r = {out, 8 + length, bytes.size - 8 - length, arena, diag};
    bool ok = read_header(&r, header);
    cJSON_Delete(header);
    return ok;
}

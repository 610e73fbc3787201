/* GGUF files, versions 2 and 3, little endian: metadata and the place of every tensor.
 *
 * Nothing is copied but names: values and tensors point into the caller's bytes. Every offset,
 * count and size in the file is checked against its length before use.
 * The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef MCC_FRONTEND_GGUF_H
#define MCC_FRONTEND_GGUF_H

#include "compiler/frontend/file.h"
#include "compiler/frontend/format.h"

typedef enum fe_gguf_type {
    FE_GGUF_U8,
    FE_GGUF_I8,
    FE_GGUF_U16,
    FE_GGUF_I16,
    FE_GGUF_U32,
    FE_GGUF_I32,
    FE_GGUF_F32,
    FE_GGUF_BOOL,
    FE_GGUF_STRING,
    FE_GGUF_ARRAY,
    FE_GGUF_U64,
    FE_GGUF_I64,
    FE_GGUF_F64,
    FE_GGUF_TYPE_COUNT
} fe_gguf_type;

/* One metadata entry. A scalar is an array of one item. */
typedef struct fe_gguf_value {
    const char *key;
    fe_gguf_type type;      /* FE_GGUF_ARRAY for arrays */
    fe_gguf_type item_type; /* of the items; `type` itself for a scalar */
    uint64_t count;         /* items */
    fe_bytes items;         /* as they lie in the file; strings with their 8-byte lengths */
} fe_gguf_value;

typedef struct fe_gguf_tensor {
    const char *name;
    fe_format format;
    int rank;        /* 1 to 4 */
    int64_t dims[4]; /* the file's order: dims[0] varies fastest; 1 beyond the rank */
    uint64_t offset; /* of the data, from the beginning of the file */
    uint64_t size;   /* bytes */
} fe_gguf_tensor;

typedef struct fe_gguf {
    const char *file; /* for messages */
    fe_bytes bytes;   /* the whole file */
    uint32_t version;
    int64_t value_count, tensor_count;
    fe_gguf_value *values;   /* in the file's order */
    fe_gguf_tensor *tensors; /* in the file's order */
    bool foreign; /* some have types without a format: the metadata is sound all the same */
} fe_gguf;

/* Parses a whole file that lies in memory; `file` names it in messages. Keys and tensor names are
 * unique, tensors lie inside the file, aligned, and do not overlap. Tensor types that modelcc has
 * no format for are all listed, by type and by tensor; then it is false, with gguf->foreign set.
 * `gguf` points into `bytes` and `arena`. */
bool fe_gguf_parse(fe_gguf *gguf, fe_bytes bytes, const char *file, ir_arena *arena, ir_diag *diag);

/* The entry with this key, or NULL. */
const fe_gguf_value *fe_gguf_find(const fe_gguf *gguf, const char *key);

/* Typed reads. Each returns true when the key is there with a fitting type. When it is absent they
 * return false and leave `value` alone; when it has another type they also report an error. */
bool fe_gguf_int(const fe_gguf *gguf, const char *key, int64_t *value, ir_diag *diag);
bool fe_gguf_float(const fe_gguf *gguf, const char *key, double *value, ir_diag *diag);
bool fe_gguf_bool(const fe_gguf *gguf, const char *key, bool *value, ir_diag *diag);
bool fe_gguf_string(const fe_gguf *gguf, const char *key, fe_bytes *value, ir_diag *diag);

/* Arrays, as `count` items in the arena. Integers must fit int32_t. */
bool fe_gguf_strings(const fe_gguf *gguf, const char *key, fe_bytes **items, int64_t *count,
                     ir_arena *arena, ir_diag *diag);
bool fe_gguf_ints(const fe_gguf *gguf, const char *key, int32_t **items, int64_t *count,
                  ir_arena *arena, ir_diag *diag);
bool fe_gguf_floats(const fe_gguf *gguf, const char *key, float **items, int64_t *count,
                    ir_arena *arena, ir_diag *diag);

/* "u32", "string", "array". */
const char *fe_gguf_type_name(fe_gguf_type type);

#endif

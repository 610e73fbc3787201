/* Safetensors files: a JSON header that says where each tensor lies, then the tensors.
 *
 * Tensors point into the caller's bytes. What the format's document asks for is checked: the header
 * inside the file and at most 100 MB, tensors of the size their shapes imply, without gaps or
 * overlaps, up to the end of the file (https://github.com/huggingface/safetensors, "Format"). */
#ifndef MCC_FRONTEND_SAFETENSORS_H
#define MCC_FRONTEND_SAFETENSORS_H

#include "compiler/frontend/file.h"
#include "compiler/frontend/format.h"

enum { FE_SAFETENSORS_MAX_RANK = 8 };

typedef struct fe_safetensor {
    const char *name;
    const char *dtype; /* as the file calls it */
    fe_format format;  /* FE_FORMAT_COUNT: a dtype that modelcc has no format for */
    int rank;
    int64_t dims[FE_SAFETENSORS_MAX_RANK]; /* the last varies fastest */
    uint64_t offset;                       /* of the data, from the beginning of the file */
    uint64_t size;                         /* bytes */
} fe_safetensor;

typedef struct fe_safetensors {
    const char *file; /* for messages */
    fe_bytes bytes;   /* the whole file */
    int64_t count;
    fe_safetensor *tensors; /* in the order of their offsets */
} fe_safetensors;

/* Parses a whole file that lies in memory; `file` names it in messages. Reports every tensor that
 * is wrong. A dtype without a format is not an error here: the tensor may be one that no model
 * needs. */
bool fe_safetensors_parse(fe_safetensors *out, fe_bytes bytes, const char *file, ir_arena *arena,
                          ir_diag *diag);

#endif

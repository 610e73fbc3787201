/* The element formats that tensors in model files have, apart from any file's own numbering, and
 * what each is in the IR. */
#ifndef MCC_FRONTEND_FORMAT_H
#define MCC_FRONTEND_FORMAT_H

#include "ir/ir.h"

/* PLAIN(id, IR element type, GGUF type id) and QUANTIZED(id, IR encoding, GGUF type id). A plain
 * format has the same name in safetensors; a quantized one exists only in GGUF, or is what a reader
 * makes of several tensors (FP8_E4M3 of F8_E4M3 and its scales). */
#define FE_NO_GGUF_TYPE UINT32_MAX
#define FE_FORMATS(PLAIN, QUANTIZED)                                                               \
    PLAIN(F32, IR_F32, 0)                                                                          \
    PLAIN(F16, IR_F16, 1)                                                                          \
    PLAIN(BF16, IR_BF16, 30)                                                                       \
    QUANTIZED(Q4_0, IR_ENC_Q4_0, 2)                                                                \
    QUANTIZED(Q4_1, IR_ENC_Q4_1, 3)                                                                \
    QUANTIZED(Q5_0, IR_ENC_Q5_0, 6)                                                                \
    QUANTIZED(Q5_1, IR_ENC_Q5_1, 7)                                                                \
    QUANTIZED(Q8_0, IR_ENC_Q8_0, 8)                                                                \
    QUANTIZED(Q4_K, IR_ENC_Q4_K, 12)                                                               \
    QUANTIZED(Q5_K, IR_ENC_Q5_K, 13)                                                               \
    QUANTIZED(Q6_K, IR_ENC_Q6_K, 14)                                                               \
    QUANTIZED(FP8_E4M3, IR_ENC_FP8_E4M3, FE_NO_GGUF_TYPE)

typedef enum fe_format {
#define FE_FORMAT_ENUM(id, ir, gguf) FE_##id,
    FE_FORMATS(FE_FORMAT_ENUM, FE_FORMAT_ENUM)
#undef FE_FORMAT_ENUM
        FE_FORMAT_COUNT
} fe_format;

typedef struct fe_format_info {
    const char *name;
    bool plain;
    ir_dtype dtype;          /* of a plain format */
    ir_encoding_id encoding; /* of a quantized one */
    int64_t block_elements, block_bytes;
    uint32_t gguf_type;
} fe_format_info;

/* Indexed by fe_format. */
extern const fe_format_info fe_formats[FE_FORMAT_COUNT];

/* Every name, separated by spaces, for messages. */
#define FE_FORMAT_NAME(id, ir, gguf) " " #id
#define FE_FORMAT_NAMES FE_FORMATS(FE_FORMAT_NAME, FE_FORMAT_NAME)

#endif

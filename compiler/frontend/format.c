#include "compiler/frontend/format.h"

/* Sizes come from the IR's tables, so that a format is described once; enums, because a table in C
 * is no constant that another table could begin with. */
enum {
#define DTYPE(suffix, name, bits) bytes_of_IR_##suffix = (bits) / 8,
#include "ir/dtypes.def"
#undef DTYPE
#define ENCODING(suffix, name, code, bits, is_signed, zero, group, scale, offset, super, block,    \
                 bytes)                                                                            \
    block_of_IR_ENC_##suffix = (block), bytes_of_IR_ENC_##suffix = (bytes),
#include "ir/encodings.def"
#undef ENCODING
};

const fe_format_info fe_formats[FE_FORMAT_COUNT] = {
#define PLAIN_ROW(id, ir, gguf)                                                                    \
    [FE_##id] = {.name = #id,                                                                      \
                 .plain = true,                                                                    \
                 .dtype = ir,                                                                      \
                 .block_elements = 1,                                                              \
                 .block_bytes = bytes_of_##ir,                                                     \
                 .gguf_type = gguf},
#define QUANTIZED_ROW(id, ir, gguf)                                                                \
    [FE_##id] = {.name = #id,                                                                      \
                 .encoding = ir,                                                                   \
                 .block_elements = block_of_##ir,                                                  \
                 .block_bytes = bytes_of_##ir,                                                     \
                 .gguf_type = gguf},
    FE_FORMATS(PLAIN_ROW, QUANTIZED_ROW)
#undef PLAIN_ROW
#undef QUANTIZED_ROW
};

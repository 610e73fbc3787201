/* Compiles a tokenizer into the blob that the runtime uses in place (runtime/tokenizer/format.h).
 *
 * Two sources: Hugging Face's tokenizer.json (with tokenizer_config.json beside it), and the
 * tokenizer.ggml.* metadata of a GGUF file. Both describe the same parts in the same order:
 * added tokens, normalizer, pre-tokenizer, model, post-processor, decoder. */
#ifndef MCC_COMPILER_TOKENIZER_H
#define MCC_COMPILER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler/frontend/file.h"
#include "ir/arena.h"
#include "ir/diag.h"

/* A compiled tokenizer: bytes that may be written to a file as they are and later given to
 * rt_tokenizer_open. Aligned to 16, owned by the arena. Same input, same bytes. */
typedef struct fe_blob {
    const void *data;
    size_t size;
} fe_blob;

/* The types of a GGUF vocabulary's tokens (tokenizer.ggml.token_type). */
enum {
    FE_TOKENIZER_NORMAL = 1,
    FE_TOKENIZER_UNKNOWN = 2,
    FE_TOKENIZER_CONTROL = 3,
    FE_TOKENIZER_USER_DEFINED = 4,
    FE_TOKENIZER_UNUSED = 5,
    FE_TOKENIZER_BYTE = 6
};

/* What a GGUF file says about its tokenizer; the reader of GGUF files fills this in from the
 * metadata keys named beside each field. Strings and arrays stay the caller's. Start from
 * fe_tokenizer_gguf_empty(): ids are -1 and flags -1 where the file has no such key. */
typedef struct fe_tokenizer_gguf {
    fe_bytes model;         /* tokenizer.ggml.model: "gpt2", "llama", "t5" */
    fe_bytes pre;           /* tokenizer.ggml.pre; size 0 when absent, which means "default" */
    const fe_bytes *tokens; /* tokenizer.ggml.tokens */
    int64_t token_count;
    const float *scores;    /* tokenizer.ggml.scores, token_count of them, or NULL */
    const int32_t *types;   /* tokenizer.ggml.token_type, token_count of them, or NULL */
    const fe_bytes *merges; /* tokenizer.ggml.merges: "left right" in the order of their ranks */
    int64_t merge_count;
    int64_t bos, eos;        /* tokenizer.ggml.{bos,eos}_token_id */
    int64_t eot, eom;        /* tokenizer.ggml.{eot,eom}_token_id: end of turn, of message */
    int64_t unk, pad;        /* tokenizer.ggml.{unknown,padding}_token_id */
    int add_bos, add_eos;    /* tokenizer.ggml.add_{bos,eos}_token: 1, 0, or -1 when absent */
    int add_space_prefix;    /* tokenizer.ggml.add_space_prefix: 1, 0, or -1 */
    int remove_extra_spaces; /* tokenizer.ggml.remove_extra_whitespaces: 1, 0, or -1 */
    fe_bytes charsmap;       /* tokenizer.ggml.precompiled_charsmap, size 0 when absent */
} fe_tokenizer_gguf;

fe_tokenizer_gguf fe_tokenizer_gguf_empty(void);

/* Each fills `out` and returns true, or reports everything that is wrong or not supported, all of
 * it at once, and returns false. `where` names the source in messages, such as the file's path.
 * `config` (tokenizer_config.json) may be empty (size 0). The input is not trusted: whatever it
 * holds, the blob opens or there is an error here. */
bool fe_tokenizer_from_json(ir_arena *arena, ir_diag *diag, const char *where, const char *json,
                            size_t size, const char *config, size_t config_size, fe_blob *out);
bool fe_tokenizer_from_gguf(ir_arena *arena, ir_diag *diag, const char *where,
                            const fe_tokenizer_gguf *gguf, fe_blob *out);

#endif

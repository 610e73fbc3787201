/* A model as every format's reader leaves it: one architecture, one set of hyperparameters, tensors
 * under canonical names. What comes after (decoder.c) does not know which format it was. */
#ifndef MCC_FRONTEND_SOURCE_H
#define MCC_FRONTEND_SOURCE_H

#include "compiler/frontend/archs.h"
#include "compiler/frontend/file.h"
#include "compiler/frontend/format.h"
#include "compiler/tokenizer/tokenizer.h"

/* --- hyperparameters -------------------------------------------------------------------------- */

/* Rotary embedding: the angle of pair p at position t is
 *   t * scale * theta^(-2p/dims) / factors[p]      (factors: NULL means all 1). */
typedef struct fe_rope {
    double theta, scale;
    const double *factors; /* dims/2 of them, or NULL */
} fe_rope;

enum { FE_ROPE_GLOBAL, FE_ROPE_LOCAL, FE_ROPES };

typedef struct fe_layer {
    int64_t window; /* tokens a token sees, itself included; 0: all before it */
    int rope;       /* FE_ROPE_GLOBAL or FE_ROPE_LOCAL */
} fe_layer;

enum { FE_MOST_EOS = 16 };

typedef struct fe_config {
    int64_t hidden, layers, heads, kv_heads, head_dim, ffn, vocab;
    int64_t max_context; /* tokens the model was made for */
    double rms_eps;
    fe_activation activation;
    int64_t rope_dims;     /* leading elements of a head that rotate */
    bool rope_interleaved; /* pairs 2i, 2i+1 instead of i, i+rope_dims/2 */
    fe_rope rope[FE_ROPES];
    fe_layer *layer; /* one each */
    double attention_scale;
    double attention_softcap, final_softcap; /* 0: none */
    double embedding_scale;                  /* 1: none */
    bool tied;                               /* lm_head is the embedding */
    bool qkv_bias, o_bias, mlp_bias;
    bool norm_plus_one; /* the file stores w of the norms' factor 1 + w */
    bool rope_freqs;    /* a tensor rope_freqs.weight holds rope[FE_ROPE_GLOBAL].factors */
    int64_t bos;        /* -1: none */
    int64_t eos[FE_MOST_EOS];
    int eos_count;
} fe_config;

/* --- tensors ---------------------------------------------------------------------------------- */

/* A vector has rank 1 and rows 1. Row r is at data + r * row bytes, in the file's format. */
typedef struct fe_tensor {
    const char *name;      /* canonical: "layers.3.mlp.down_proj.weight" */
    const char *file_name; /* as the file calls it */
    const char *file;
    uint64_t offset; /* in that file */
    fe_format format;
    const char *foreign; /* the file's name of a format that modelcc lacks (format is then
                            FE_FORMAT_COUNT), else NULL */
    int rank;
    int64_t rows, cols;
    const uint8_t *data;
    uint64_t bytes;
    bool used; /* the architecture knows it */
} fe_tensor;

/* --- the model -------------------------------------------------------------------------------- */

typedef enum fe_tokenizer_kind {
    FE_TOKENIZER_NONE,
    FE_TOKENIZER_JSON,
    FE_TOKENIZER_GGUF
} fe_tokenizer_kind;

/* What compiler/tokenizer makes a tokenizer from; fields of the other kind are empty. */
typedef struct fe_tokenizer_source {
    fe_tokenizer_kind kind;
    const char *where; /* for messages */
    fe_bytes json;     /* tokenizer.json */
    fe_bytes config;   /* tokenizer_config.json; size 0 when there is none */
    fe_tokenizer_gguf gguf;
} fe_tokenizer_source;

/* Made by fe_open. Everything it points to is its own and lives until fe_close. */
typedef struct fe_model {
    ir_arena *arena;
    const char *path;
    const char *format; /* "GGUF" or "safetensors" */
    const fe_arch *arch;
    fe_config config;
    int64_t tensor_count;
    fe_tensor *tensors; /* sorted by name */
    fe_tokenizer_source tokenizer;
    fe_bytes chat_template; /* Jinja; size 0 when there is none */
    /* Provenance; "" when the file does not say. */
    const char *name, *license, *author, *url;
    const fe_file *files; /* everything read, for hashes and dependency files */
    int file_count;
} fe_model;

void fe_model_sort_tensors(fe_model *model);
/* The tensor of this canonical name, or NULL. They must be sorted. */
const fe_tensor *fe_model_tensor(const fe_model *model, const char *name);

/* Sorts the tensors, then checks them against the architecture and the configuration: reports every
 * missing tensor, every wrong shape, every unsupported format and every tensor that the
 * architecture does not know. `implied_by` says where the shapes come from ("config.json"). */
bool fe_model_check_tensors(fe_model *model, const char *implied_by, ir_diag *diag);
/* Of that only the formats: one error for each that modelcc lacks, with all tensors that have it.
 */
bool fe_model_check_types(const fe_model *model, ir_diag *diag);

/* Checks hyperparameters that could not come from a model: zero sizes, products that overflow, an
 * odd head_dim. Reports each. */
bool fe_config_check(const fe_config *config, const char *where, ir_diag *diag);

/* Adds an end-of-sequence id; negative ids and repetitions are ignored. */
void fe_config_add_eos(fe_config *config, int64_t id);

/* Room in the model's list of files, which both readers fill. The path is copied. NULL after an
 * error. */
fe_file *fe_model_map(fe_model *model, const char *path, ir_diag *diag);

/* The readers of the formats: fill a model whose arena and path are set. */
bool fe_read_gguf(fe_model *model, ir_diag *diag);
bool fe_read_hf(fe_model *model, ir_diag *diag);

#endif

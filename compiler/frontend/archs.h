/* The table of architectures: archs.def as data. */
#ifndef MCC_FRONTEND_ARCHS_H
#define MCC_FRONTEND_ARCHS_H

#include "ir/ir.h"

/* What an architecture's decoder layer has beside the common blocks. */
enum {
    FE_QKV_BIAS = 1 << 0,          /* q, k and v always have a bias */
    FE_CONFIG_BIAS = 1 << 1,       /* attention_bias and mlp_bias in config.json decide */
    FE_QK_NORM = 1 << 2,           /* rms norm of each head of q and k, before rope */
    FE_SANDWICH_NORMS = 1 << 3,    /* norms before and after attention and feed-forward */
    FE_NORM_PLUS_ONE = 1 << 4,     /* Hugging Face's file stores w of the factor 1 + w */
    FE_SCALED_EMBEDDING = 1 << 5,  /* embeddings times sqrt(hidden) */
    FE_GGUF_INTERLEAVED = 1 << 6,  /* GGUF permutes q and k, so that pairs are 2i, 2i+1 */
    FE_WINDOW_ALL = 1 << 7,        /* sliding_window holds for every layer */
    FE_WINDOW_PATTERN = 1 << 8,    /* … for all but each n-th layer, with a rope of their own */
    FE_WINDOW_OPTIONAL = 1 << 9,   /* … if use_sliding_window, from max_window_layers on */
    FE_TIED_BY_DEFAULT = 1 << 10,  /* without tie_word_embeddings, lm_head is the embedding */
    FE_QUERY_PRE_SCALAR = 1 << 11, /* attention scale is query_pre_attn_scalar^-1/2 */
    FE_SOFTCAPS = 1 << 12          /* attn_logit_softcapping, final_logit_softcapping */
};

typedef enum fe_activation { FE_SILU, FE_GELU, FE_GELU_TANH } fe_activation;

/* What transformers assumes of a key that config.json leaves out; 0: the key must be there (head
 * counts and head_dim: derived, see hf_config.c). */
typedef struct fe_arch_defaults {
    int64_t vocab, heads, kv_heads, head_dim, max_context, window, window_pattern;
    int64_t query_pre_attn_scalar, max_window_layers;
    double rope_theta, rope_local_theta, rms_eps;
} fe_arch_defaults;

typedef struct fe_arch {
    const char *name;       /* ours */
    const char *gguf;       /* general.architecture, or NULL */
    const char *model_type; /* in config.json */
    const char *class_name; /* in config.json's architectures */
    unsigned flags;
    fe_activation activation;
    fe_arch_defaults defaults;
} fe_arch;

extern const fe_arch fe_archs[];
extern const int fe_arch_count;

/* NULL when there is none. */
const fe_arch *fe_arch_from_gguf(const char *architecture, size_t length);
/* By class name, else by model type; either may be NULL. */
const fe_arch *fe_arch_from_hf(const char *class_name, const char *model_type);

/* The supported names, separated by commas, for messages; from the column at `offset` in fe_arch.
 */
const char *fe_arch_names(ir_arena *arena, size_t offset);

/* --- weights ---------------------------------------------------------------------------------- */

/* The sizes of which shapes are made. */
typedef enum fe_size {
    FE_NO_SIZE, /* rows of a vector */
    FE_HIDDEN,
    FE_FFN,
    FE_VOCAB,
    FE_Q,         /* heads * head_dim */
    FE_KV,        /* kv_heads * head_dim */
    FE_HEAD,      /* head_dim */
    FE_HALF_ROPE, /* rope_dims / 2 */
} fe_size;

/* When an architecture and configuration have a weight. */
typedef enum fe_when {
    FE_ALWAYS,
    FE_UNTIED,
    FE_IF_QKV_BIAS,
    FE_IF_O_BIAS,
    FE_IF_MLP_BIAS,
    FE_IF_QK_NORM,
    FE_IF_SANDWICH,
    FE_IF_NO_SANDWICH,
    FE_IF_ROPE_FREQS
} fe_when;

/* A row of weights.def. Names of a layer's weights lack the "layers.N." or "blk.N." in front. */
typedef struct fe_weight {
    bool in_layer;
    const char *name; /* canonical, which is Hugging Face's without "model." */
    const char *gguf;
    fe_when when;
    fe_size rows, cols;
} fe_weight;

extern const fe_weight fe_weights[];
extern const int fe_weight_count;

#endif

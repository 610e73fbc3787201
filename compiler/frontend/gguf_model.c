/* GGUF files as models: llama.cpp's metadata keys and tensor names become ours. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/frontend/gguf.h"
#include "compiler/frontend/list.h"
#include "compiler/frontend/source.h"

typedef struct reader {
    fe_model *model;
    fe_gguf gguf;
    ir_arena *arena;
    ir_diag *diag;
} reader;

/* ---- hyperparameters ---- */

/* "llama" + "block_count" -> "llama.block_count". */
static const char *arch_key(reader *r, const char *name) {
    return ir_arena_printf(r->arena, "%s.%s", r->model->arch->gguf, name);
}

/* The keys of the architecture's own that we read or know to be harmless. Any other could mean
 * something about the computation, so it is mentioned. */
static const char *const known_keys[] = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.scale",
    "attention.causal",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "expert_count",
    "expert_used_count",
    "tensor_data_layout",
};

static void mention_unknown_keys(reader *r) {
    const char *prefix = arch_key(r, "");
    fe_list unknown = {0};
    for (int64_t i = 0; i < r->gguf.value_count; i++) {
        const char *key = r->gguf.values[i].key;
        bool known = strncmp(key, prefix, strlen(prefix)) != 0;
        for (size_t k = 0; !known && k < sizeof known_keys / sizeof *known_keys; k++)
            known = strcmp(key + strlen(prefix), known_keys[k]) == 0;
        if (!known)
            fe_list_add(&unknown, r->arena, key);
    }
    if (unknown.count)
        ir_warning(r->diag, r->gguf.file, "metadata that modelcc does not know is ignored: %s",
                   unknown.text);
}

/* True when the key is there as an integer; otherwise an error has been reported. */
static void require_int(reader *r, const char *name, int64_t *value) {
    const char *key = arch_key(r, name);
    if (!fe_gguf_find(&r->gguf, key))
        ir_error(r->diag, r->gguf.file, "metadata %s is missing", key);
    else
        fe_gguf_int(&r->gguf, key, value, r->diag);
}

static bool optional_int(reader *r, const char *name, int64_t *value) {
    return fe_gguf_int(&r->gguf, arch_key(r, name), value, r->diag);
}

static bool optional_float(reader *r, const char *name, double *value) {
    return fe_gguf_float(&r->gguf, arch_key(r, name), value, r->diag);
}

static const fe_gguf_tensor *find_tensor(const reader *r, const char *name) {
    for (int64_t i = 0; i < r->gguf.tensor_count; i++)
        if (strcmp(r->gguf.tensors[i].name, name) == 0)
            return &r->gguf.tensors[i];
    return NULL;
}

static void read_sizes(reader *r, fe_config *c) {
    require_int(r, "embedding_length", &c->hidden);
    require_int(r, "block_count", &c->layers);
    require_int(r, "attention.head_count", &c->heads);
    require_int(r, "feed_forward_length", &c->ffn);
    require_int(r, "context_length", &c->max_context);
    c->kv_heads = c->heads;
    optional_int(r, "attention.head_count_kv", &c->kv_heads);
    if (c->heads > 0)
        c->head_dim = c->hidden / c->heads;
    optional_int(r, "attention.key_length", &c->head_dim);
    int64_t value_length = c->head_dim;
    if (optional_int(r, "attention.value_length", &value_length) && value_length != c->head_dim)
        ir_error(r->diag, r->gguf.file,
                 "attention.value_length is %" PRId64 " and attention.key_length %" PRId64
                 "; modelcc needs them equal",
                 value_length, c->head_dim);
    /* The embedding has the last word on the vocabulary: vocab_size is often absent. */
    const fe_gguf_tensor *embedding = find_tensor(r, "token_embd.weight");
    if (embedding && embedding->rank == 2)
        c->vocab = embedding->dims[1];
    else
        require_int(r, "vocab_size", &c->vocab);
    if (!fe_gguf_find(&r->gguf, arch_key(r, "attention.layer_norm_rms_epsilon")))
        ir_error(r->diag, r->gguf.file, "metadata %s is missing",
                 arch_key(r, "attention.layer_norm_rms_epsilon"));
    optional_float(r, "attention.layer_norm_rms_epsilon", &c->rms_eps);
}

static void read_rope(reader *r, fe_config *c) {
    fe_rope *global = &c->rope[FE_ROPE_GLOBAL], *local = &c->rope[FE_ROPE_LOCAL];
    c->rope_dims = c->head_dim;
    optional_int(r, "rope.dimension_count", &c->rope_dims);
    c->rope_interleaved = r->model->arch->flags & FE_GGUF_INTERLEAVED;
    *global = (fe_rope){.theta = 10000, .scale = 1};
    *local = (fe_rope){.theta = 10000, .scale = 1};
    optional_float(r, "rope.freq_base", &global->theta);
    optional_float(r, "rope.freq_base_swa", &local->theta);
    double factor = 1;
    optional_float(r, "rope.scale_linear", &factor);
    optional_float(r, "rope.scaling.factor", &factor);
    fe_bytes type = {(const uint8_t *)"linear", 6};
    fe_gguf_string(&r->gguf, arch_key(r, "rope.scaling.type"), &type, r->diag);
    if (type.size == 4 && memcmp(type.data, "none", 4) == 0)
        factor = 1;
    else if (type.size != 6 || memcmp(type.data, "linear", 6) != 0)
        ir_error(r->diag, r->gguf.file,
                 "rope scaling of type \"%s\" is not supported (supported: none, linear, and "
                 "factors in rope_freqs.weight)",
                 fe_printable(r->arena, type.data, type.size));
    /* Zero is how files write "no scaling". */
    global->scale = factor == 0 ? 1 : 1 / factor;
    c->rope_freqs = find_tensor(r, "rope_freqs.weight") != NULL;
}

/* The layers' windows. The pattern is a period, or one flag a layer (true: sliding). */
static void read_windows(reader *r, fe_config *c) {
    c->layer = ir_arena_array(r->arena, (size_t)c->layers, sizeof *c->layer);
    unsigned flags = r->model->arch->flags;
    int64_t window = 0, period = r->model->arch->defaults.window_pattern;
    optional_int(r, "attention.sliding_window", &window);
    if (flags & FE_WINDOW_OPTIONAL)
        window = 0; /* llama.cpp does not use one for these architectures either */
    if (window < 0 || window > INT32_MAX) {
        ir_error(r->diag, r->gguf.file, "attention.sliding_window is %" PRId64, window);
        return;
    }
    const char *key = arch_key(r, "attention.sliding_window_pattern");
    const fe_gguf_value *pattern = fe_gguf_find(&r->gguf, key);
    bool by_layer = pattern && pattern->type == FE_GGUF_ARRAY;
    if (by_layer && (pattern->item_type != FE_GGUF_BOOL || pattern->count != (uint64_t)c->layers)) {
        ir_error(r->diag, r->gguf.file, "metadata %s is not a bool for each of %" PRId64 " layers",
                 key, c->layers);
        return;
    }
    if (pattern && !by_layer)
        fe_gguf_int(&r->gguf, key, &period, r->diag);
    for (int64_t i = 0; i < c->layers && window > 0; i++) {
        bool sliding = true;
        if (flags & FE_WINDOW_PATTERN)
            sliding = by_layer ? pattern->items.data[i] != 0 : period > 0 && (i + 1) % period != 0;
        if (sliding)
            c->layer[i].window = window;
        if (sliding && flags & FE_WINDOW_PATTERN)
            c->layer[i].rope = FE_ROPE_LOCAL;
    }
}

static void read_flags(reader *r, fe_config *c) {
    unsigned flags = r->model->arch->flags;
    c->activation = r->model->arch->activation;
    c->tied = find_tensor(r, "output.weight") == NULL;
    c->qkv_bias = flags & FE_QKV_BIAS ||
                  (flags & FE_CONFIG_BIAS && find_tensor(r, "blk.0.attn_q.bias") != NULL);
    c->o_bias = flags & FE_CONFIG_BIAS && find_tensor(r, "blk.0.attn_output.bias") != NULL;
    c->mlp_bias = flags & FE_CONFIG_BIAS && find_tensor(r, "blk.0.ffn_gate.bias") != NULL;
    c->embedding_scale = flags & FE_SCALED_EMBEDDING ? sqrtf((float)c->hidden) : 1;
    /* Gemma 3's 27B, told by its 62 layers as llama.cpp does, scales by the width per head. */
    double per_head = (double)c->head_dim;
    if (flags & FE_QUERY_PRE_SCALAR && c->layers == 62)
        per_head = (double)c->hidden / (double)c->heads;
    c->attention_scale = 1 / sqrt(per_head);
    optional_float(r, "attention.scale", &c->attention_scale);
    if (flags & FE_SOFTCAPS) {
        optional_float(r, "attn_logit_softcapping", &c->attention_softcap);
        optional_float(r, "final_logit_softcapping", &c->final_softcap);
    }
    int64_t experts = 0;
    if (optional_int(r, "expert_count", &experts) && experts > 0)
        ir_error(r->diag, r->gguf.file, "mixture of experts (%" PRId64 " of them) is not supported",
                 experts);
    bool causal = true;
    if (fe_gguf_bool(&r->gguf, arch_key(r, "attention.causal"), &causal, r->diag) && !causal)
        ir_error(r->diag, r->gguf.file, "attention that is not causal is not supported");
}

static bool read_config(reader *r) {
    fe_config *c = &r->model->config;
    int errors = r->diag->errors;
    c->bos = -1;
    mention_unknown_keys(r);
    read_sizes(r, c);
    read_rope(r, c);
    if (c->layers < 1 || c->heads < 1) { /* what follows counts layers and divides by heads */
        fe_config_check(c, r->gguf.file, r->diag);
        return false;
    }
    read_flags(r, c);
    if (r->diag->errors != errors || !fe_config_check(c, r->gguf.file, r->diag))
        return false;
    read_windows(r, c);
    return r->diag->errors == errors;
}

/* ---- tensors ---- */

/* "blk.3.ffn_down.weight" -> "layers.3.mlp.down_proj.weight". A name that no architecture has gets
 * one that nothing looks up. */
static const char *canonical_name(reader *r, const char *name) {
    const char *rest = name;
    size_t digits = 0;
    if (strncmp(name, "blk.", 4) == 0) {
        digits = strspn(name + 4, "0123456789");
        if (digits > 0 && name[4 + digits] == '.')
            rest = name + 4 + digits + 1;
    }
    bool in_layer = rest != name;
    fe_when other = r->model->arch->flags & FE_SANDWICH_NORMS ? FE_IF_NO_SANDWICH : FE_IF_SANDWICH;
    for (int w = 0; w < fe_weight_count; w++) {
        const fe_weight *weight = &fe_weights[w];
        if (weight->in_layer != in_layer || weight->when == other ||
            strcmp(weight->gguf, rest) != 0)
            continue;
        if (!in_layer)
            return weight->name;
        return ir_arena_printf(r->arena, "layers.%.*s.%s", (int)digits, name + 4, weight->name);
    }
    return ir_arena_printf(r->arena, "unknown:%s", name);
}

static bool read_tensors(reader *r) {
    fe_model *m = r->model;
    m->tensor_count = r->gguf.tensor_count;
    m->tensors = ir_arena_array(r->arena, (size_t)m->tensor_count, sizeof *m->tensors);
    for (int64_t i = 0; i < m->tensor_count; i++) {
        const fe_gguf_tensor *g = &r->gguf.tensors[i];
        fe_tensor *t = &m->tensors[i];
        *t = (fe_tensor){.name = canonical_name(r, g->name),
                         .file_name = g->name,
                         .file = r->gguf.file,
                         .offset = g->offset,
                         .format = g->format,
                         .rank = g->rank,
                         .rows = g->dims[1],
                         .cols = g->dims[0],
                         .data = r->gguf.bytes.data + g->offset,
                         .bytes = g->size};
        if (t->rank > 2)
            return ir_error(r->diag, r->gguf.file, "tensor %s has %d dimensions, expected 1 or 2",
                            g->name, g->rank);
    }
    return fe_model_check_tensors(m, "the metadata", r->diag);
}

/* Turns the tensor rope_freqs.weight into the global rope's factors. */
static bool read_rope_factors(reader *r) {
    if (!r->model->config.rope_freqs)
        return true;
    const fe_tensor *t = fe_model_tensor(r->model, "rope_freqs.weight");
    if (t->format != FE_F32)
        return ir_error(r->diag, r->gguf.file, "tensor rope_freqs.weight is %s, expected F32",
                        fe_formats[t->format].name);
    double *factors = ir_arena_array(r->arena, (size_t)t->cols, sizeof *factors);
    for (int64_t i = 0; i < t->cols; i++) {
        float factor;
        memcpy(&factor, t->data + 4 * i, 4);
        if (!(factor > 0) || !isfinite(factor))
            return ir_error(r->diag, r->gguf.file,
                            "tensor rope_freqs.weight: element %" PRId64
                            " is %g, expected a finite number above 0 (offset %" PRIu64 ")",
                            i, factor, t->offset + 4 * (uint64_t)i);
        factors[i] = factor;
    }
    r->model->config.rope[FE_ROPE_GLOBAL].factors = factors;
    return true;
}

/* ---- tokenizer ---- */

/* Tokens that end a turn even where no metadata key says so: many files name only the base model's
 * end of text. llama.cpp looks for the same texts. */
static const char *const end_texts[] = {"<|im_end|>",    "<|eot_id|>",      "<|eom_id|>",
                                        "<end_of_turn>", "<|end_of_text|>", "<|endoftext|>",
                                        "<|end|>"};

static void find_end_tokens(const fe_tokenizer_gguf *t, fe_config *config) {
    for (int64_t i = 0; i < t->token_count && t->types; i++) {
        if (t->types[i] != FE_TOKENIZER_CONTROL && t->types[i] != FE_TOKENIZER_USER_DEFINED)
            continue;
        for (size_t e = 0; e < sizeof end_texts / sizeof *end_texts; e++)
            if (t->tokens[i].size == strlen(end_texts[e]) &&
                memcmp(t->tokens[i].data, end_texts[e], t->tokens[i].size) == 0)
                fe_config_add_eos(config, i);
    }
}

static void read_flag(reader *r, const char *key, int *flag) {
    bool value;
    if (fe_gguf_bool(&r->gguf, key, &value, r->diag))
        *flag = value;
}

static bool read_vocabulary(reader *r, fe_tokenizer_gguf *t) {
    int64_t scores = 0, types = 0;
    fe_bytes *strings = NULL;
    float *numbers = NULL;
    int32_t *ints = NULL;
    if (fe_gguf_strings(&r->gguf, "tokenizer.ggml.tokens", &strings, &t->token_count, r->arena,
                        r->diag))
        t->tokens = strings;
    if (fe_gguf_floats(&r->gguf, "tokenizer.ggml.scores", &numbers, &scores, r->arena, r->diag))
        t->scores = numbers;
    if (fe_gguf_ints(&r->gguf, "tokenizer.ggml.token_type", &ints, &types, r->arena, r->diag))
        t->types = ints;
    if (fe_gguf_strings(&r->gguf, "tokenizer.ggml.merges", &strings, &t->merge_count, r->arena,
                        r->diag))
        t->merges = strings;
    bool ok = true;
    if (t->scores && scores != t->token_count)
        ok = ir_error(r->diag, r->gguf.file, "has %" PRId64 " token scores for %" PRId64 " tokens",
                      scores, t->token_count);
    if (t->types && types != t->token_count)
        ok = ir_error(r->diag, r->gguf.file, "has %" PRId64 " token types for %" PRId64 " tokens",
                      types, t->token_count);
    return ok;
}

/* The bytes of a u8 or i8 array. */
static void read_charsmap(reader *r, fe_tokenizer_gguf *t) {
    const char *key = "tokenizer.ggml.precompiled_charsmap";
    const fe_gguf_value *v = fe_gguf_find(&r->gguf, key);
    if (!v)
        return;
    if (v->type != FE_GGUF_ARRAY || (v->item_type != FE_GGUF_U8 && v->item_type != FE_GGUF_I8))
        ir_error(r->diag, r->gguf.file, "metadata %s is not an array of bytes", key);
    else
        t->charsmap = v->items;
}

static bool read_tokenizer(reader *r) {
    fe_tokenizer_source *source = &r->model->tokenizer;
    fe_tokenizer_gguf *t = &source->gguf;
    int errors = r->diag->errors;
    *t = fe_tokenizer_gguf_empty();
    if (!fe_gguf_string(&r->gguf, "tokenizer.ggml.model", &t->model, r->diag))
        return r->diag->errors == errors; /* a model without a tokenizer */
    source->kind = FE_TOKENIZER_GGUF;
    source->where = r->gguf.file;
    if (!read_vocabulary(r, t))
        return false;
    fe_gguf_string(&r->gguf, "tokenizer.ggml.pre", &t->pre, r->diag);
    const struct {
        const char *key;
        int64_t *id;
    } ids[] = {
        {"tokenizer.ggml.bos_token_id", &t->bos},     {"tokenizer.ggml.eos_token_id", &t->eos},
        {"tokenizer.ggml.eot_token_id", &t->eot},     {"tokenizer.ggml.eom_token_id", &t->eom},
        {"tokenizer.ggml.unknown_token_id", &t->unk}, {"tokenizer.ggml.padding_token_id", &t->pad},
    };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        fe_gguf_int(&r->gguf, ids[i].key, ids[i].id, r->diag);
    read_flag(r, "tokenizer.ggml.add_bos_token", &t->add_bos);
    read_flag(r, "tokenizer.ggml.add_eos_token", &t->add_eos);
    read_flag(r, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix);
    read_flag(r, "tokenizer.ggml.remove_extra_whitespaces", &t->remove_extra_spaces);
    read_charsmap(r, t);
    fe_gguf_string(&r->gguf, "tokenizer.chat_template", &r->model->chat_template, r->diag);
    fe_config *c = &r->model->config;
    c->bos = t->bos;
    fe_config_add_eos(c, t->eos);
    fe_config_add_eos(c, t->eot);
    fe_config_add_eos(c, t->eom);
    find_end_tokens(t, c);
    return r->diag->errors == errors;
}

/* ---- the file ---- */

static const char *text_of(reader *r, const char *key) {
    fe_bytes text = {0};
    fe_gguf_string(&r->gguf, key, &text, r->diag);
    return fe_printable(r->arena, text.data, text.size);
}

static bool read_architecture(reader *r) {
    fe_bytes name = {0};
    int errors = r->diag->errors;
    if (!fe_gguf_string(&r->gguf, "general.architecture", &name, r->diag))
        return r->diag->errors == errors
                   ? ir_error(r->diag, r->gguf.file, "metadata general.architecture is missing")
                   : false;
    r->model->arch = fe_arch_from_gguf((const char *)name.data, name.size);
    if (!r->model->arch)
        ir_error(r->diag, r->gguf.file, "architecture \"%s\" is not supported (supported: %s)",
                 fe_printable(r->arena, name.data, name.size),
                 fe_arch_names(r->arena, offsetof(fe_arch, gguf)));
    int64_t parts = 1;
    if (fe_gguf_int(&r->gguf, "split.count", &parts, r->diag) && parts > 1)
        ir_error(r->diag, r->gguf.file,
                 "is one of %" PRId64 " parts; join them first (gguf-split --merge)", parts);
    return r->diag->errors == errors;
}

bool fe_read_gguf(fe_model *model, ir_diag *diag) {
    reader r = {.model = model, .arena = model->arena, .diag = diag};
    const fe_file *file = fe_model_map(model, model->path, diag);
    bool parsed = file && fe_gguf_parse(&r.gguf, (fe_bytes){file->data, file->size}, file->path,
                                        r.arena, diag);
    if (!parsed && !r.gguf.foreign)
        return false;
    model->format = "GGUF";
    if (!read_architecture(&r))
        return false;
    model->name = text_of(&r, "general.name");
    model->license = text_of(&r, "general.license");
    model->author = text_of(&r, "general.author");
    model->url = text_of(&r, "general.source.url");
    /* All three report what they find, so that one run shows everything. */
    bool config = read_config(&r), tensors = config && parsed && read_tensors(&r);
    bool tokenizer = read_tokenizer(&r);
    return config && tensors && tokenizer && read_rope_factors(&r);
}

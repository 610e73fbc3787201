/* config.json: transformers' keys (of versions 4 and 5) become our hyperparameters. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "compiler/frontend/hf.h"
#include "compiler/frontend/list.h"

typedef struct reader {
    fe_model *model;
    fe_config *config;
    const fe_arch *arch;
    const cJSON *object; /* config.json, or its text_config */
    const char *file;
    ir_arena *arena;
    ir_diag *diag;
} reader;

/* ---- sizes ---- */

/* Reads an integer that has a default, or must be there when the default is 0. */
static void read_size(reader *r, const char *key, int64_t fallback, int64_t *value) {
    *value = fallback;
    if (!fe_json_member(r->object, key) && fallback == 0)
        ir_error(r->diag, r->file, "\"%s\" is missing", key);
    else
        fe_json_int(r->object, key, value, r->file, r->diag);
}

static void read_sizes(reader *r) {
    fe_config *c = r->config;
    const fe_arch_defaults *d = &r->arch->defaults;
    read_size(r, "hidden_size", 0, &c->hidden);
    read_size(r, "num_hidden_layers", 0, &c->layers);
    read_size(r, "intermediate_size", 0, &c->ffn);
    read_size(r, "num_attention_heads", d->heads, &c->heads);
    read_size(r, "vocab_size", d->vocab, &c->vocab);
    read_size(r, "max_position_embeddings", d->max_context, &c->max_context);
    c->kv_heads = d->kv_heads ? d->kv_heads : c->heads;
    fe_json_int(r->object, "num_key_value_heads", &c->kv_heads, r->file, r->diag);
    c->head_dim = d->head_dim;
    if (!c->head_dim && c->heads > 0)
        c->head_dim = c->hidden / c->heads;
    fe_json_int(r->object, "head_dim", &c->head_dim, r->file, r->diag);
    c->rms_eps = d->rms_eps;
    fe_json_float(r->object, "rms_norm_eps", &c->rms_eps, r->file, r->diag);
}

/* ---- rope ---- */

/* Llama 3's scaling as a divisor of each pair's frequency: long waves are slowed by `factor`, short
 * ones left alone, those between blended (transformers, modeling_rope_utils.py,
 * _compute_llama3_parameters). */
static void llama3_factors(reader *r, const cJSON *scaling, fe_rope *rope) {
    double factor = 0, low = 0, high = 0, original = 0;
    const struct {
        const char *key;
        double *value;
    } keys[] = {{"factor", &factor},
                {"low_freq_factor", &low},
                {"high_freq_factor", &high},
                {"original_max_position_embeddings", &original}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        fe_json_float(scaling, keys[i].key, keys[i].value, r->file, r->diag);
        if (!(*keys[i].value > 0) || !isfinite(*keys[i].value)) {
            ir_error(r->diag, r->file, "rope scaling llama3 needs \"%s\", a number above 0",
                     keys[i].key);
            return;
        }
    }
    if (high <= low) {
        ir_error(r->diag, r->file,
                 "rope scaling llama3 has high_freq_factor %g, expected above low_freq_factor %g",
                 high, low);
        return;
    }
    int64_t pairs = r->config->rope_dims / 2;
    double *factors = ir_arena_array(r->arena, (size_t)pairs, sizeof *factors);
    for (int64_t p = 0; p < pairs; p++) {
        double frequency = pow(rope->theta, -2.0 * (double)p / (double)r->config->rope_dims);
        double wavelength = 2 * 3.14159265358979323846 / frequency;
        if (wavelength > original / low) {
            factors[p] = factor;
        } else if (wavelength < original / high) {
            factors[p] = 1;
        } else {
            double smooth = (original / wavelength - low) / (high - low);
            factors[p] = 1 / ((1 - smooth) / factor + smooth);
        }
    }
    rope->factors = factors;
}

/* `parameters` is one rope's object in rope_parameters (version 5) or rope_scaling (version 4). */
static void read_rope_parameters(reader *r, const cJSON *parameters, fe_rope *rope) {
    const char *type = "default";
    fe_json_float(parameters, "rope_theta", &rope->theta, r->file, r->diag);
    if (!fe_json_string(parameters, "rope_type", &type, r->file, r->diag))
        fe_json_string(parameters, "type", &type, r->file, r->diag);
    double partial = 1;
    fe_json_float(parameters, "partial_rotary_factor", &partial, r->file, r->diag);
    if (partial != 1)
        ir_error(r->diag, r->file, "partial_rotary_factor %g is not supported for %s", partial,
                 r->arch->name);
    if (strcmp(type, "linear") == 0) {
        double factor = 0;
        fe_json_float(parameters, "factor", &factor, r->file, r->diag);
        if (factor > 0 && isfinite(factor))
            rope->scale = 1 / factor;
        else
            ir_error(r->diag, r->file, "rope scaling linear needs \"factor\", a number above 0");
    } else if (strcmp(type, "llama3") == 0) {
        llama3_factors(r, parameters, rope);
    } else if (strcmp(type, "default") != 0) {
        ir_error(
            r->diag, r->file,
            "rope scaling of type \"%s\" is not supported (supported: default, linear, llama3)",
            fe_printable_text(r->arena, type));
    }
}

static void read_rope(reader *r) {
    fe_config *c = r->config;
    const fe_arch_defaults *d = &r->arch->defaults;
    fe_rope *global = &c->rope[FE_ROPE_GLOBAL], *local = &c->rope[FE_ROPE_LOCAL];
    c->rope_dims = c->head_dim;
    c->rope_interleaved = false; /* Hugging Face pairs i with i + dims/2, always */
    *global = (fe_rope){.theta = d->rope_theta, .scale = 1};
    *local = (fe_rope){.theta = d->rope_local_theta > 0 ? d->rope_local_theta : d->rope_theta,
                       .scale = 1};
    fe_json_float(r->object, "rope_theta", &global->theta, r->file, r->diag);
    fe_json_float(r->object, "rope_local_base_freq", &local->theta, r->file, r->diag);
    const cJSON *parameters = fe_json_member(r->object, "rope_parameters");
    if (!parameters)
        parameters = fe_json_member(r->object, "rope_scaling");
    if (!parameters)
        return;
    if (!cJSON_IsObject(parameters)) {
        ir_error(r->diag, r->file, "\"%s\" is not an object", parameters->string);
        return;
    }
    const cJSON *full = fe_json_member(parameters, "full_attention");
    const cJSON *sliding = fe_json_member(parameters, "sliding_attention");
    read_rope_parameters(r, full ? full : parameters, global);
    if (sliding)
        read_rope_parameters(r, sliding, local);
}

/* ---- windows ---- */

/* The window that sliding layers have; 0 when none slides. A null says none, absence the default.
 */
static int64_t read_window(reader *r) {
    unsigned flags = r->arch->flags;
    if (!(flags & (FE_WINDOW_ALL | FE_WINDOW_PATTERN | FE_WINDOW_OPTIONAL)))
        return 0;
    bool use = !(flags & FE_WINDOW_OPTIONAL);
    fe_json_bool(r->object, "use_sliding_window", &use, r->file, r->diag);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(r->object, "sliding_window");
    if (!use || (item && cJSON_IsNull(item)))
        return 0;
    int64_t window = r->arch->defaults.window;
    fe_json_int(r->object, "sliding_window", &window, r->file, r->diag);
    if (window < 1 || window > INT32_MAX) {
        ir_error(r->diag, r->file, "\"sliding_window\" is %" PRId64 ", expected 1 or above",
                 window);
        return 0;
    }
    return window;
}

/* Whether layer `i` slides, by the architecture's rule. */
static bool slides(reader *r, int64_t i, int64_t period, int64_t first) {
    if (r->arch->flags & FE_WINDOW_PATTERN)
        return period > 0 && (i + 1) % period != 0;
    if (r->arch->flags & FE_WINDOW_OPTIONAL)
        return i >= first;
    return true;
}

static void read_layers(reader *r) {
    fe_config *c = r->config;
    c->layer = ir_arena_array(r->arena, (size_t)c->layers, sizeof *c->layer);
    int64_t window = read_window(r);
    if (window == 0)
        return;
    int64_t period = r->arch->defaults.window_pattern, first = r->arch->defaults.max_window_layers;
    if (!fe_json_int(r->object, "sliding_window_pattern", &period, r->file, r->diag))
        fe_json_int(r->object, "_sliding_window_pattern", &period, r->file, r->diag);
    fe_json_int(r->object, "max_window_layers", &first, r->file, r->diag);
    const cJSON *types = fe_json_member(r->object, "layer_types");
    if (types && (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != c->layers)) {
        ir_error(r->diag, r->file, "\"layer_types\" is not a list of %" PRId64 " strings",
                 c->layers);
        return;
    }
    const cJSON *type = types ? types->child : NULL;
    for (int64_t i = 0; i < c->layers; i++) {
        bool sliding = slides(r, i, period, first);
        if (types) {
            const char *text = cJSON_IsString(type) ? type->valuestring : "";
            sliding = strcmp(text, "sliding_attention") == 0;
            if (!sliding && strcmp(text, "full_attention") != 0)
                ir_error(r->diag, r->file,
                         "layer %" PRId64 " is of type \"%s\" (supported: full_attention, "
                         "sliding_attention)",
                         i, fe_printable_text(r->arena, text));
            type = type->next;
        }
        if (sliding)
            c->layer[i].window = window;
        if (sliding && r->arch->flags & FE_WINDOW_PATTERN)
            c->layer[i].rope = FE_ROPE_LOCAL;
    }
}

/* ---- flags ---- */

static void read_activation(reader *r) {
    static const struct {
        const char *name;
        fe_activation activation;
    } names[] = {{"silu", FE_SILU},
                 {"swish", FE_SILU},
                 {"gelu", FE_GELU},
                 {"gelu_new", FE_GELU_TANH},
                 {"gelu_pytorch_tanh", FE_GELU_TANH}};
    r->config->activation = r->arch->activation;
    const char *name = NULL;
    /* Gemma 3 has both keys and goes by hidden_activation. */
    const char *key = r->arch->flags & FE_SANDWICH_NORMS ? "hidden_activation" : "hidden_act";
    if (!fe_json_string(r->object, key, &name, r->file, r->diag))
        return;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, name) == 0) {
            r->config->activation = names[i].activation;
            return;
        }
    ir_error(r->diag, r->file,
             "activation \"%s\" is not supported (supported: silu, gelu, gelu_new, "
             "gelu_pytorch_tanh)",
             fe_printable_text(r->arena, name));
}

static void read_flags(reader *r) {
    fe_config *c = r->config;
    unsigned flags = r->arch->flags;
    bool attention_bias = false;
    c->qkv_bias = flags & FE_QKV_BIAS;
    if (flags & FE_CONFIG_BIAS) {
        fe_json_bool(r->object, "attention_bias", &attention_bias, r->file, r->diag);
        fe_json_bool(r->object, "mlp_bias", &c->mlp_bias, r->file, r->diag);
        c->qkv_bias |= attention_bias;
        c->o_bias = attention_bias;
    }
    c->norm_plus_one = flags & FE_NORM_PLUS_ONE;
    c->embedding_scale = flags & FE_SCALED_EMBEDDING ? sqrtf((float)c->hidden) : 1;
    double per_head = (double)c->head_dim;
    if (flags & FE_QUERY_PRE_SCALAR) {
        per_head = (double)r->arch->defaults.query_pre_attn_scalar;
        fe_json_float(r->object, "query_pre_attn_scalar", &per_head, r->file, r->diag);
    }
    c->attention_scale = 1 / sqrt(per_head);
    if (flags & FE_SOFTCAPS) {
        fe_json_float(r->object, "attn_logit_softcapping", &c->attention_softcap, r->file, r->diag);
        fe_json_float(r->object, "final_logit_softcapping", &c->final_softcap, r->file, r->diag);
    }
    read_activation(r);
}

/* Settings that would change the computation in ways that modelcc does not have. */
static void refuse_unsupported(reader *r) {
    static const char *const experts[] = {"num_local_experts", "num_experts", "n_routed_experts"};
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++) {
        int64_t count = 0;
        if (fe_json_int(r->object, experts[i], &count, r->file, r->diag) && count > 0)
            ir_error(r->diag, r->file,
                     "mixture of experts (\"%s\" is %" PRId64 ") is not supported", experts[i],
                     count);
    }
    bool both_ways = false;
    if (fe_json_bool(r->object, "use_bidirectional_attention", &both_ways, r->file, r->diag) &&
        both_ways)
        ir_error(r->diag, r->file, "bidirectional attention is not supported");
    double partial = 1;
    if (fe_json_float(r->object, "partial_rotary_factor", &partial, r->file, r->diag) &&
        partial != 1)
        ir_error(r->diag, r->file, "partial_rotary_factor %g is not supported for %s", partial,
                 r->arch->name);
}

bool fe_hf_eos(fe_config *config, const cJSON *object, const char *file, ir_diag *diag) {
    const cJSON *item = fe_json_member(object, "eos_token_id");
    if (!item)
        return true;
    bool list = cJSON_IsArray(item);
    for (item = list ? item->child : item; item; item = list ? item->next : NULL) {
        int64_t id;
        if (!fe_json_to_int(item, &id))
            return ir_error(diag, file, "\"eos_token_id\" is not a token id or a list of them");
        fe_config_add_eos(config, id);
    }
    return true;
}

/* ---- architecture ---- */

/* Models of text and images keep the text model's settings in text_config; we compile that part. */
static const char multimodal_gemma3[] = "Gemma3ForConditionalGeneration";

static bool find_architecture(reader *r, const cJSON *root) {
    const char *model_type = NULL, *class_name = NULL;
    fe_json_string(root, "model_type", &model_type, r->file, r->diag);
    const cJSON *classes = fe_json_member(root, "architectures");
    if (cJSON_IsArray(classes) && cJSON_IsString(classes->child))
        class_name = classes->child->valuestring;
    if (!class_name && !model_type)
        return ir_error(r->diag, r->file,
                        "names no architecture: \"architectures\" and "
                        "\"model_type\" are missing");
    r->object = root;
    if (class_name && strcmp(class_name, multimodal_gemma3) == 0) {
        r->object = fe_json_member(root, "text_config");
        if (!cJSON_IsObject(r->object))
            return ir_error(r->diag, r->file, "has no \"text_config\" object");
        class_name = "Gemma3ForCausalLM";
        ir_note(r->diag, r->file, "only the text part of %s is compiled", multimodal_gemma3);
    }
    r->arch = r->model->arch = fe_arch_from_hf(class_name, model_type);
    if (r->arch)
        return true;
    return ir_error(r->diag, r->file, "architecture \"%s\" is not supported (supported: %s)",
                    fe_printable_text(r->arena, class_name ? class_name : model_type),
                    fe_arch_names(r->arena, offsetof(fe_arch, class_name)));
}

bool fe_hf_config(fe_model *model, const cJSON *root, const char *file, ir_diag *diag) {
    reader r = {model, &model->config, NULL, NULL, file, model->arena, diag};
    fe_config *c = r.config;
    int errors = diag->errors;
    if (!find_architecture(&r, root))
        return false;
    refuse_unsupported(&r);
    c->bos = -1;
    c->tied = r.arch->flags & FE_TIED_BY_DEFAULT;
    fe_json_bool(root, "tie_word_embeddings", &c->tied, file, diag);
    fe_json_bool(r.object, "tie_word_embeddings", &c->tied, file, diag);
    fe_json_int(root, "bos_token_id", &c->bos, file, diag);
    fe_hf_eos(c, root, file, diag);
    int before_sizes = diag->errors;
    read_sizes(&r);
    bool sized = diag->errors == before_sizes;
    read_flags(&r);
    /* The ropes' theta is not yet read, and does not come from here when sizes are wrong. What is
     * not supported does not keep us from finding more of it. */
    c->rope_dims = c->head_dim;
    c->rope[0] = c->rope[1] = (fe_rope){.theta = 1, .scale = 1};
    if (!sized || !fe_config_check(c, file, diag))
        return false;
    read_rope(&r);
    read_layers(&r);
    return diag->errors == errors && fe_config_check(c, file, diag);
}

#include "compiler/manifest.h"

#include <cJSON.h>
#include <string.h>

#ifndef MCC_VERSION
#define MCC_VERSION "unknown"
#endif
#ifndef MCC_LLVM_VERSION
#define MCC_LLVM_VERSION "unknown"
#endif

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void add_text(cJSON *to, const char *name, const char *text) {
    if (text && *text)
        cJSON_AddStringToObject(to, name, text);
}

static void add_model(cJSON *root, const fe_model *model, int64_t max_model_len) {
    const fe_config *c = &model->config;
    cJSON *m = cJSON_AddObjectToObject(root, "model");
    add_text(m, "name", model->name);
    add_text(m, "arch", model->arch->name);
    add_text(m, "format", model->format);
    add_text(m, "license", model->license);
    add_text(m, "author", model->author);
    add_text(m, "url", model->url);
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"layers", c->layers},     {"hidden", c->hidden},           {"heads", c->heads},
                   {"kv_heads", c->kv_heads}, {"head_dim", c->head_dim},       {"ffn", c->ffn},
                   {"vocab_size", c->vocab},  {"max_model_len", max_model_len}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(m, numbers[i].name, (double)numbers[i].value);
}

static void add_inputs(cJSON *root, const fe_model *model, const manifest_hashes *hashes) {
    cJSON *inputs = cJSON_AddArrayToObject(root, "inputs");
    for (int i = 0; i < model->file_count; i++) {
        cJSON *f = cJSON_CreateObject();
        cJSON_AddStringToObject(f, "file", base_name(model->files[i].path));
        cJSON_AddNumberToObject(f, "bytes", (double)model->files[i].size);
        if (hashes->hex)
            cJSON_AddStringToObject(f, "sha256", hashes->hex[i]);
        cJSON_AddItemToArray(inputs, f);
    }
}

static void add_options(cJSON *root, const build_options *o, const char *strategy) {
    static const char *const task[] = {"generate", "embed_last", "embed_mean"};
    cJSON *j = cJSON_AddObjectToObject(root, "options");
    cJSON_AddStringToObject(j, "task", task[o->task]);
    cJSON_AddStringToObject(j, "quantize", pass_quantize_names[o->passes.quantize]);
    cJSON_AddStringToObject(j, "activations", pass_activations_name(&o->passes));
    cJSON_AddStringToObject(j, "kv_cache_dtype", pass_kv_name(o->passes.kv));
    cJSON_AddStringToObject(j, "sampling", o->passes.sampling ? "device" : "host");
    cJSON_AddStringToObject(j, "fusion", strategy);
    if (o->tiles_file) {
        cJSON *tiles = cJSON_AddObjectToObject(j, "tiles");
        cJSON_AddStringToObject(tiles, "file", base_name(o->tiles_file));
        cJSON_AddStringToObject(tiles, "sha256", o->tiles_sha256);
    }
    cJSON *targets = cJSON_AddArrayToObject(j, "targets");
    for (int i = 0; i < o->n_targets; i++)
        cJSON_AddItemToArray(targets, cJSON_CreateString(o->targets[i]->name));
    for (int i = 0; i < o->n_cuda_targets; i++)
        cJSON_AddItemToArray(targets, cJSON_CreateString(o->cuda_targets[i]->name));
    cJSON *passes = cJSON_AddArrayToObject(root, "passes");
    int n;
    const pass_info *list = pass_list(&n);
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(passes, cJSON_CreateString(list[i].name));
}

/* Bytes and count of weights, by encoding. */
static void add_weights(cJSON *root, const cg_program_list *p) {
    cJSON *j = cJSON_AddObjectToObject(root, "weights");
    for (int i = 0; i < p->n_weights; i++) {
        const ir_type *type = &p->weights[i].type;
        const char *name = type->encoding ? type->encoding->name : ir_dtype_name(type->dtype);
        cJSON *e = cJSON_GetObjectItem(j, name);
        if (!e) {
            e = cJSON_AddObjectToObject(j, name);
            cJSON_AddNumberToObject(e, "tensors", 0);
            cJSON_AddNumberToObject(e, "bytes", 0);
        }
        cJSON *count = cJSON_GetObjectItem(e, "tensors"), *bytes = cJSON_GetObjectItem(e, "bytes");
        cJSON_SetNumberValue(count, count->valuedouble + 1);
        cJSON_SetNumberValue(bytes, bytes->valuedouble + (double)p->weights[i].bytes);
    }
}

static void add_memory(cJSON *root, const cg_program_list *p) {
    cJSON *j = cJSON_AddObjectToObject(root, "memory");
    cJSON_AddNumberToObject(j, "weight_bytes", (double)p->weight_bytes);
    cJSON_AddNumberToObject(j, "arena_bytes_per_token", (double)p->arena_bytes.t);
    cJSON_AddNumberToObject(j, "arena_bytes_per_row", (double)p->arena_bytes.r);
    cJSON_AddNumberToObject(j, "arena_bytes_per_sequence", (double)p->arena_bytes.s);
    cJSON_AddNumberToObject(j, "arena_bytes_fixed", (double)p->arena_bytes.c);
    cJSON_AddNumberToObject(j, "scratch_bytes_per_thread", (double)p->scratch_bytes);
}

char *manifest_create(const build_options *options, const fe_model *model,
                      const cg_program_list *program, const char *graph_hash, const char *strategy,
                      int64_t max_model_len, const manifest_hashes *hashes, const cuda_code *cuda) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "modelcc", MCC_VERSION);
    cJSON_AddNumberToObject(root, "artifact_version", MCC_ARTIFACT_VERSION);
    cJSON_AddStringToObject(root, "llvm", MCC_LLVM_VERSION);
    add_model(root, model, max_model_len);
    add_inputs(root, model, hashes);
    add_options(root, options, strategy);
    cJSON_AddStringToObject(root, "graph", graph_hash);
    cJSON_AddNumberToObject(root, "kernels", program->n_kernels);
    cJSON_AddNumberToObject(root, "launches", program->n_launches);
    add_weights(root, program);
    add_memory(root, program);
    cuda_manifest(cuda, program, root);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    return text;
}

/* A Hugging Face directory: config.json, safetensors (one file or an index of shards),
 * tokenizer.json and the small files beside them. */
#include "compiler/frontend/hf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/frontend/hf_fp8.h"
#include "compiler/frontend/list.h"
#include "compiler/frontend/safetensors.h"

typedef struct reader {
    fe_model *model;
    ir_arena *arena;
    ir_diag *diag;
    int64_t capacity; /* of model->tensors */
} reader;

static const char *path_of(reader *r, const char *name) {
    return ir_arena_printf(r->arena, "%s/%s", r->model->path, name);
}

static fe_bytes bytes_of(const fe_file *file) {
    return (fe_bytes){file->data, file->size};
}

/* Parses a JSON file of the directory. `path` receives its name for messages. Optional files that
 * are absent give NULL without an error. */
static cJSON *read_json(reader *r, const char *name, bool optional, const char **path) {
    *path = path_of(r, name);
    if (optional && !fe_path_exists(*path))
        return NULL;
    const fe_file *file = fe_model_map(r->model, *path, r->diag);
    return file ? fe_json_parse(bytes_of(file), *path, 0, r->diag) : NULL;
}

/* ---- tensors ---- */

static bool begins(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Parts of a checkpoint that the text model does not compute with: vision parts, rope tables that
 * old versions of transformers stored, and an lm_head that config.json ties to the embedding. */
static bool is_harmless(const fe_model *model, const char *name, const char *canonical) {
    static const char *const foreign_parts[] = {"vision_tower.", "model.vision_tower.",
                                                "multi_modal_projector.",
                                                "model.multi_modal_projector."};
    static const char inv_freq[] = "rotary_emb.inv_freq";
    for (size_t i = 0; i < sizeof foreign_parts / sizeof *foreign_parts; i++)
        if (begins(name, foreign_parts[i]))
            return true;
    size_t length = strlen(name);
    if (length >= sizeof inv_freq - 1 &&
        strcmp(name + length - (sizeof inv_freq - 1), inv_freq) == 0)
        return true;
    return model->config.tied && begins(canonical, "lm_head.weight"); /* and its scales */
}

/* "model.layers.0.mlp.up_proj.weight" -> "layers.0.mlp.up_proj.weight", also inside a model of text
 * and images. */
static const char *canonical_name(const char *name) {
    static const char *const prefixes[] = {"model.language_model.", "language_model.model.",
                                           "language_model.", "model."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (begins(name, prefixes[i]))
            return name + strlen(prefixes[i]);
    return name;
}

static void add_tensor(reader *r, const fe_safetensors *st, const fe_safetensor *s) {
    fe_model *m = r->model;
    const char *canonical = canonical_name(s->name);
    if (is_harmless(m, s->name, canonical))
        return;
    if (m->tensor_count == r->capacity) {
        int64_t capacity = r->capacity ? 2 * r->capacity : 256;
        fe_tensor *grown = ir_arena_array(r->arena, (size_t)capacity, sizeof *grown);
        if (m->tensor_count)
            memcpy(grown, m->tensors, (size_t)m->tensor_count * sizeof *grown);
        m->tensors = grown;
        r->capacity = capacity;
    }
    fe_tensor *t = &m->tensors[m->tensor_count++];
    *t = (fe_tensor){.name = canonical,
                     .file_name = s->name,
                     .file = st->file,
                     .offset = s->offset,
                     .format = s->format,
                     .foreign = s->format == FE_FORMAT_COUNT ? s->dtype : NULL,
                     .rank = s->rank,
                     .rows = 1,
                     .cols = s->rank ? s->dims[s->rank - 1] : 1,
                     .data = st->bytes.data + s->offset,
                     .bytes = s->size};
    /* Sizes were checked against the file's, so this does not overflow unless the dtype is unknown;
     * then the product is not used for anything but a message. */
    for (int d = 0; d + 1 < s->rank; d++)
        if (__builtin_mul_overflow(t->rows, s->dims[d], &t->rows))
            t->rows = INT64_MAX;
}

static bool read_safetensors(reader *r, const char *path) {
    const fe_file *file = fe_model_map(r->model, path, r->diag);
    fe_safetensors st;
    if (!file || !fe_safetensors_parse(&st, bytes_of(file), file->path, r->arena, r->diag))
        return false;
    for (int64_t i = 0; i < st.count; i++)
        add_tensor(r, &st, &st.tensors[i]);
    return true;
}

/* A shard is a file of this directory, by a plain name. */
static bool is_shard_name(const char *name) {
    size_t length = strlen(name);
    static const char suffix[] = ".safetensors";
    return fe_name_is_clean(name, length, 255) && !strchr(name, '/') && !strchr(name, '\\') &&
           name[0] != '.' && length > sizeof suffix - 1 &&
           strcmp(name + length - (sizeof suffix - 1), suffix) == 0;
}

enum { most_shards = 1024 };

/* Collects the distinct files of a weight map, in order of appearance. Returns their number, or -1
 * after an error. */
static int collect_shards(reader *r, const cJSON *map, const char *path,
                          const char *shards[most_shards]) {
    int count = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, map) {
        if (!cJSON_IsString(entry) || !is_shard_name(entry->valuestring)) {
            const char *name = cJSON_IsString(entry) ? entry->valuestring : "no string";
            ir_error(r->diag, path,
                     "weight_map sends tensor %s to \"%s\", expected a *.safetensors file of the "
                     "same directory",
                     fe_printable_text(r->arena, entry->string), fe_printable_text(r->arena, name));
            return -1;
        }
        bool known = false;
        for (int i = count - 1; i >= 0 && !known; i--)
            known = strcmp(shards[i], entry->valuestring) == 0;
        if (known)
            continue;
        if (count == most_shards) {
            ir_error(r->diag, path, "names more than %d files", most_shards);
            return -1;
        }
        shards[count++] = ir_arena_strdup(r->arena, entry->valuestring);
    }
    return count;
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every tensor that the index promises must have been in a shard. */
static bool check_index(reader *r, const cJSON *map, const char *path) {
    fe_model *m = r->model;
    const char **names = ir_arena_array(r->arena, (size_t)m->tensor_count, sizeof *names);
    for (int64_t i = 0; i < m->tensor_count; i++)
        names[i] = m->tensors[i].file_name;
    if (m->tensor_count)
        qsort(names, (size_t)m->tensor_count, sizeof *names, compare_strings);
    fe_list missing = {0};
    const cJSON *entry;
    cJSON_ArrayForEach(entry, map) {
        const char *name = entry->string;
        bool found = m->tensor_count &&
                     bsearch(&name, names, (size_t)m->tensor_count, sizeof *names, compare_strings);
        if (!found && !is_harmless(m, name, canonical_name(name)))
            fe_list_add(&missing, r->arena, fe_printable_text(r->arena, name));
    }
    return !missing.count || ir_error(r->diag, path, "%lld tensors are in none of its files: %s",
                                      missing.count, missing.text);
}

static bool read_sharded(reader *r, const char *index_name) {
    const char *path;
    cJSON *index = read_json(r, index_name, false, &path);
    if (!index)
        return false;
    const cJSON *map = fe_json_member(index, "weight_map");
    bool ok = cJSON_IsObject(map) || ir_error(r->diag, path, "has no \"weight_map\" object");
    const char **shards = ir_arena_array(r->arena, most_shards, sizeof *shards);
    int count = ok ? collect_shards(r, map, path, shards) : -1;
    ok = count >= 0;
    for (int i = 0; i < count; i++)
        ok &= read_safetensors(r, path_of(r, shards[i]));
    ok = ok && check_index(r, map, path);
    cJSON_Delete(index);
    return ok;
}

static bool read_tensors(reader *r) {
    const char *single = path_of(r, "model.safetensors");
    static const char index[] = "model.safetensors.index.json";
    if (fe_path_exists(single))
        return read_safetensors(r, single);
    if (fe_path_exists(path_of(r, index)))
        return read_sharded(r, index);
    if (fe_path_exists(path_of(r, "pytorch_model.bin")) ||
        fe_path_exists(path_of(r, "pytorch_model.bin.index.json")))
        return ir_error(
            r->diag, r->model->path,
            "holds pytorch_model.bin, which modelcc does not read (loading it would run "
            "code); save it as safetensors first");
    return ir_error(r->diag, r->model->path, "has no model.safetensors and no %s", index);
}

/* ---- the small files ---- */

/* The template of tokenizer_config.json or chat_template.json: a string, or a list of named ones of
 * which "default" counts. */
static void take_template(reader *r, const cJSON *object, const char *path) {
    const cJSON *item = fe_json_member(object, "chat_template");
    if (cJSON_IsArray(item)) {
        const cJSON *named, *found = NULL;
        cJSON_ArrayForEach(named, item) {
            const cJSON *name = fe_json_member(named, "name");
            if (cJSON_IsString(name) && strcmp(name->valuestring, "default") == 0)
                found = fe_json_member(named, "template");
        }
        item = found;
    }
    if (!item)
        return;
    if (!cJSON_IsString(item)) {
        ir_error(r->diag, path, "\"chat_template\" is not a string");
        return;
    }
    const char *text = ir_arena_strdup(r->arena, item->valuestring);
    r->model->chat_template = (fe_bytes){(const uint8_t *)text, strlen(text)};
}

static bool read_template(reader *r, const cJSON *tokenizer_config, const char *config_path) {
    int errors = r->diag->errors;
    const char *path = path_of(r, "chat_template.jinja");
    if (fe_path_exists(path)) {
        const fe_file *file = fe_model_map(r->model, path, r->diag);
        if (file)
            r->model->chat_template = bytes_of(file);
        return file != NULL;
    }
    take_template(r, tokenizer_config, config_path);
    if (r->model->chat_template.size == 0) {
        cJSON *object = read_json(r, "chat_template.json", true, &path);
        take_template(r, object, path);
        cJSON_Delete(object);
    }
    return r->diag->errors == errors;
}

static bool read_tokenizer(reader *r) {
    fe_tokenizer_source *t = &r->model->tokenizer;
    int errors = r->diag->errors;
    t->gguf = fe_tokenizer_gguf_empty();
    const char *path = path_of(r, "tokenizer.json");
    if (fe_path_exists(path)) {
        const fe_file *file = fe_model_map(r->model, path, r->diag);
        if (!file)
            return false;
        t->kind = FE_TOKENIZER_JSON;
        t->where = file->path;
        t->json = bytes_of(file);
    }
    const char *config_path;
    cJSON *config = read_json(r, "tokenizer_config.json", true, &config_path);
    if (config)
        t->config = bytes_of(&r->model->files[r->model->file_count - 1]);
    bool ok = read_template(r, config, config_path);
    cJSON_Delete(config);
    return ok && r->diag->errors == errors;
}

static bool read_generation_config(reader *r) {
    int errors = r->diag->errors;
    const char *path;
    cJSON *object = read_json(r, "generation_config.json", true, &path);
    fe_hf_eos(&r->model->config, object, path, r->diag);
    cJSON_Delete(object);
    return r->diag->errors == errors;
}

/* The value of "license: apache-2.0" in the block of settings at the top of README.md. */
static const char *read_license(reader *r) {
    const char *path = path_of(r, "README.md");
    const fe_file *file = fe_path_exists(path) ? fe_model_map(r->model, path, r->diag) : NULL;
    if (!file || file->size < 4 || memcmp(file->data, "---\n", 4) != 0)
        return "";
    const char *at = (const char *)file->data + 4, *end = (const char *)file->data + file->size;
    const char *newline;
    while ((newline = memchr(at, '\n', (size_t)(end - at)))) {
        size_t length = (size_t)(newline - at);
        if (length >= 3 && memcmp(at, "---", 3) == 0)
            break;
        if (length > 9 && memcmp(at, "license: ", 9) == 0)
            return fe_printable(r->arena, at + 9, length - 9);
        at = newline + 1;
    }
    return "";
}

static const char *directory_name(reader *r) {
    char *whole = realpath(r->model->path, NULL);
    const char *slash = whole ? strrchr(whole, '/') : NULL;
    const char *name = slash ? fe_printable_text(r->arena, slash + 1) : "";
    free(whole);
    return name;
}

bool fe_read_hf(fe_model *model, ir_diag *diag) {
    reader r = {model, model->arena, diag, 0};
    const char *path;
    cJSON *config = read_json(&r, "config.json", false, &path);
    if (!config)
        return false;
    model->format = "safetensors";
    model->name = directory_name(&r);
    model->author = model->url = "";
    model->license = read_license(&r);
    fe_hf_fp8 fp8;
    bool quantization = fe_hf_fp8_config(config, &fp8, path, r.arena, diag);
    bool ok = fe_hf_config(model, config, path, diag);
    cJSON_Delete(config);
    /* A wrong configuration makes wrong shapes: then only the tensors' types are looked at, unless
     * they are those of a quantization that is refused as a whole. */
    bool tensors = read_tensors(&r) && quantization && fe_hf_fp8_tensors(model, &fp8, diag) &&
                   (ok ? fe_model_check_tensors(model, "config.json", diag)
                       : fe_model_check_types(model, diag));
    ok &= tensors;
    ok &= read_tokenizer(&r);
    ok &= read_generation_config(&r);
    return ok;
}

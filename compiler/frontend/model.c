/* What all formats share: the tensor table against the architecture, and sane hyperparameters. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/frontend/list.h"
#include "compiler/frontend/source.h"

static int compare_tensors(const void *a, const void *b) {
    return strcmp(((const fe_tensor *)a)->name, ((const fe_tensor *)b)->name);
}

void fe_model_sort_tensors(fe_model *model) {
    if (model->tensor_count)
        qsort(model->tensors, (size_t)model->tensor_count, sizeof *model->tensors, compare_tensors);
}

const fe_tensor *fe_model_tensor(const fe_model *model, const char *name) {
    fe_tensor key = {.name = name};
    if (model->tensor_count == 0)
        return NULL;
    return bsearch(&key, model->tensors, (size_t)model->tensor_count, sizeof key, compare_tensors);
}

fe_file *fe_model_map(fe_model *model, const char *path, ir_diag *diag) {
    /* The list doubles in the arena: old copies of these few structures are never missed. */
    int count = model->file_count;
    if ((count & (count - 1)) == 0) {
        fe_file *grown = ir_arena_array(model->arena, count ? 2 * (size_t)count : 1, sizeof *grown);
        if (count)
            memcpy(grown, model->files, (size_t)count * sizeof *grown);
        model->files = grown;
    }
    fe_file *file = (fe_file *)&model->files[count];
    if (!fe_file_map(file, ir_arena_strdup(model->arena, path), diag))
        return NULL;
    model->file_count++;
    return file;
}

void fe_config_add_eos(fe_config *config, int64_t id) {
    if (id < 0 || config->eos_count == FE_MOST_EOS)
        return;
    for (int i = 0; i < config->eos_count; i++)
        if (config->eos[i] == id)
            return;
    config->eos[config->eos_count++] = id;
}

/* ---- hyperparameters ---- */

static bool in_range(int64_t value, int64_t most, const char *what, const char *where,
                     ir_diag *diag) {
    return (value >= 1 && value <= most) ||
           ir_error(diag, where, "%s is %" PRId64 ", expected 1 to %" PRId64, what, value, most);
}

static bool positive(double value, const char *what, const char *where, ir_diag *diag) {
    return (value > 0 && isfinite(value)) ||
           ir_error(diag, where, "%s is %g, expected a finite number above 0", what, value);
}

bool fe_config_check(const fe_config *c, const char *where, ir_diag *diag) {
    /* Far above any model, and low enough that products of two sizes fit int64_t. */
    bool ok = in_range(c->hidden, 1 << 20, "the hidden size", where, diag);
    ok &= in_range(c->layers, 4096, "the number of layers", where, diag);
    ok &= in_range(c->heads, 1 << 16, "the number of heads", where, diag);
    ok &= in_range(c->kv_heads, 1 << 16, "the number of kv heads", where, diag);
    ok &= in_range(c->head_dim, 1 << 16, "the size of a head", where, diag);
    ok &= in_range(c->ffn, 1 << 24, "the feed-forward size", where, diag);
    ok &= in_range(c->vocab, 1 << 28, "the vocabulary size", where, diag);
    ok &= in_range(c->max_context, INT32_MAX, "the context length", where, diag);
    ok &= positive(c->rms_eps, "the rms epsilon", where, diag);
    ok &= positive(c->attention_scale, "the attention scale", where, diag);
    ok &= positive(c->embedding_scale, "the embedding scale", where, diag);
    for (int i = 0; i < FE_ROPES; i++) {
        ok &= positive(c->rope[i].theta, "the rope's theta", where, diag);
        ok &= positive(c->rope[i].scale, "the rope's scale", where, diag);
    }
    if (!(c->attention_softcap >= 0) || !(c->final_softcap >= 0) || isinf(c->attention_softcap) ||
        isinf(c->final_softcap))
        ok = ir_error(diag, where, "soft caps are %g and %g, expected finite and 0 or above",
                      c->attention_softcap, c->final_softcap);
    if (!ok)
        return false;
    if (c->heads % c->kv_heads != 0)
        ok = ir_error(diag, where, "%" PRId64 " heads are no multiple of %" PRId64 " kv heads",
                      c->heads, c->kv_heads);
    if (c->rope_dims < 2 || c->rope_dims % 2 != 0 || c->rope_dims > c->head_dim)
        ok = ir_error(diag, where,
                      "rope turns %" PRId64 " elements of a head of %" PRId64
                      ", expected an even number of them",
                      c->rope_dims, c->head_dim);
    return ok;
}

/* ---- tensors ---- */

static int64_t size_of(fe_size size, const fe_config *c) {
    switch (size) {
    case FE_NO_SIZE:
        return 1;
    case FE_HIDDEN:
        return c->hidden;
    case FE_FFN:
        return c->ffn;
    case FE_VOCAB:
        return c->vocab;
    case FE_Q:
        return c->heads * c->head_dim;
    case FE_KV:
        return c->kv_heads * c->head_dim;
    case FE_HEAD:
        return c->head_dim;
    case FE_HALF_ROPE:
        return c->rope_dims / 2;
    }
    return 0;
}

static bool has_weight(fe_when when, const fe_model *model) {
    const fe_config *c = &model->config;
    switch (when) {
    case FE_ALWAYS:
        return true;
    case FE_UNTIED:
        return !c->tied;
    case FE_IF_QKV_BIAS:
        return c->qkv_bias;
    case FE_IF_O_BIAS:
        return c->o_bias;
    case FE_IF_MLP_BIAS:
        return c->mlp_bias;
    case FE_IF_QK_NORM:
        return model->arch->flags & FE_QK_NORM;
    case FE_IF_SANDWICH:
        return model->arch->flags & FE_SANDWICH_NORMS;
    case FE_IF_NO_SANDWICH:
        return !(model->arch->flags & FE_SANDWICH_NORMS);
    case FE_IF_ROPE_FREQS:
        return c->rope_freqs;
    }
    return false;
}

static const char *shape_text(ir_arena *arena, int rank, int64_t rows, int64_t cols) {
    if (rank == 1)
        return ir_arena_printf(arena, "[%" PRId64 "]", cols);
    return ir_arena_printf(arena, "[%" PRId64 ", %" PRId64 "]", rows, cols);
}

/* What check_tensors gathers before it reports. */
typedef struct checker {
    fe_model *model;
    const char *implied_by;
    ir_diag *diag;
    fe_list missing;
    bool ok;
} checker;

static void check_shape(checker *k, const fe_weight *w, const fe_tensor *t) {
    ir_arena *arena = k->model->arena;
    int rank = w->rows == FE_NO_SIZE ? 1 : 2;
    int64_t rows = size_of(w->rows, &k->model->config), cols = size_of(w->cols, &k->model->config);
    const char *dot = strrchr(t->name, '.'); /* every name in the table ends in .weight or .bias */
    const char *where = ir_arena_strndup(arena, t->name, (size_t)(dot - t->name));
    if (t->rank != rank || t->rows != rows || t->cols != cols)
        k->ok = ir_error(k->diag, where,
                         "%s has shape %s, %s implies %s (%s in %s at offset %" PRIu64 ")", dot + 1,
                         shape_text(arena, t->rank, t->rows, t->cols), k->implied_by,
                         shape_text(arena, rank, rows, cols), t->file_name, t->file, t->offset);
    else if (rank == 1 && t->format != FE_FORMAT_COUNT && !fe_formats[t->format].plain)
        k->ok = ir_error(k->diag, where,
                         "%s is a vector in %s, expected F32, F16 or BF16 (%s in %s at offset "
                         "%" PRIu64 ")",
                         dot + 1, fe_formats[t->format].name, t->file_name, t->file, t->offset);
}

static void check_weight(checker *k, const fe_weight *w, int64_t layer) {
    const char *name = w->name;
    if (w->in_layer)
        name = ir_arena_printf(k->model->arena, "layers.%" PRId64 ".%s", layer, w->name);
    fe_tensor *t = (fe_tensor *)fe_model_tensor(k->model, name);
    if (!t) {
        fe_list_add(&k->missing, k->model->arena, name);
        return;
    }
    t->used = true;
    check_shape(k, w, t);
}

bool fe_model_check_types(const fe_model *m, ir_diag *diag) {
    bool ok = true;
    bool *seen = ir_arena_array(m->arena, (size_t)m->tensor_count, sizeof *seen);
    for (int64_t i = 0; i < m->tensor_count; i++) {
        if (seen[i] || !m->tensors[i].foreign)
            continue;
        fe_list names = {0};
        for (int64_t j = i; j < m->tensor_count; j++)
            if (m->tensors[j].foreign && !strcmp(m->tensors[j].foreign, m->tensors[i].foreign)) {
                seen[j] = true;
                fe_list_add(&names, m->arena, m->tensors[j].file_name);
            }
        ok = ir_error(diag, m->path,
                      "element type %s is not supported; tensors that have it (%lld): %s "
                      "(supported:" FE_FORMAT_NAMES ")",
                      m->tensors[i].foreign, names.count, names.text);
    }
    return ok;
}

/* Elements are read as they lie, so they must lie aligned. A file may begin its data anywhere
 * (headers of old safetensors writers are not padded); then the tensor is copied. */
static void align(fe_model *model, fe_tensor *t) {
    uintptr_t alignment = t->format == FE_F32 ? 4 : 2;
    if (t->foreign || (uintptr_t)t->data % alignment == 0)
        return;
    uint8_t *copy = ir_arena_alloc(model->arena, (size_t)t->bytes);
    memcpy(copy, t->data, (size_t)t->bytes);
    t->data = copy;
}

bool fe_model_check_tensors(fe_model *model, const char *implied_by, ir_diag *diag) {
    checker k = {.model = model, .implied_by = implied_by, .diag = diag, .ok = true};
    size_t count = (size_t)model->tensor_count;
    fe_model_sort_tensors(model);
    for (size_t i = 1; i < count; i++)
        if (compare_tensors(&model->tensors[i], &model->tensors[i - 1]) == 0)
            k.ok =
                ir_error(diag, model->tensors[i].name, "is there twice: as %s in %s and %s in %s",
                         model->tensors[i - 1].file_name, model->tensors[i - 1].file,
                         model->tensors[i].file_name, model->tensors[i].file);
    if (!k.ok)
        return false;
    for (int w = 0; w < fe_weight_count; w++) {
        if (!has_weight(fe_weights[w].when, model))
            continue;
        int64_t layers = fe_weights[w].in_layer ? model->config.layers : 1;
        for (int64_t layer = 0; layer < layers; layer++)
            check_weight(&k, &fe_weights[w], layer);
    }
    if (k.missing.count)
        k.ok = ir_error(diag, model->path, "%lld tensors are missing: %s", k.missing.count,
                        k.missing.text);
    fe_list unknown = {0};
    for (size_t i = 0; i < count; i++)
        if (!model->tensors[i].used)
            fe_list_add(&unknown, model->arena, model->tensors[i].file_name);
    if (unknown.count)
        k.ok = ir_error(diag, model->path,
                        "%lld tensors are not part of architecture %s as %s describes it: %s",
                        unknown.count, model->arch->name, implied_by, unknown.text);
    k.ok &= fe_model_check_types(model, diag);
    for (size_t i = 0; k.ok && i < count; i++)
        align(model, &model->tensors[i]);
    return k.ok;
}

#include "compiler/frontend/frontend.h"

#include <string.h>

/* A directory is a Hugging Face checkpoint; a file must be GGUF, and says so itself. */
static bool read_model(fe_model *model, ir_diag *diag) {
    if (fe_path_is_directory(model->path))
        return fe_read_hf(model, diag);
    size_t length = strlen(model->path);
    static const char suffix[] = ".safetensors";
    if (length > sizeof suffix - 1 &&
        strcmp(model->path + length - (sizeof suffix - 1), suffix) == 0)
        return ir_error(
            diag, model->path,
            "is a file of weights alone; name the directory that also holds config.json");
    return fe_read_gguf(model, diag);
}

/* Ids beyond the vocabulary can never be sampled: they are dropped, with a warning, because files
 * do carry them over from other models. */
static void drop_foreign_ids(fe_model *model, ir_diag *diag) {
    fe_config *c = &model->config;
    int kept = 0;
    for (int i = 0; i < c->eos_count; i++) {
        if (c->eos[i] < c->vocab)
            c->eos[kept++] = c->eos[i];
        else
            ir_warning(diag, model->path,
                       "end-of-sequence id %lld is beyond the vocabulary of %lld and ignored",
                       (long long)c->eos[i], (long long)c->vocab);
    }
    c->eos_count = kept;
    if (c->bos >= c->vocab || c->bos < -1) {
        ir_warning(diag, model->path,
                   "beginning-of-sequence id %lld is not in the vocabulary of %lld and ignored",
                   (long long)c->bos, (long long)c->vocab);
        c->bos = -1;
    }
}

fe_model *fe_open(const char *path, ir_diag *diag) {
    ir_arena *arena = ir_arena_create();
    if (!arena) {
        ir_error(diag, path, "out of memory");
        return NULL;
    }
    fe_model *model = ir_arena_alloc(arena, sizeof *model);
    model->arena = arena;
    model->path = ir_arena_strdup(arena, path);
    model->name = model->license = model->author = model->url = "";
    if (read_model(model, diag)) {
        drop_foreign_ids(model, diag);
        return model;
    }
    fe_close(model);
    return NULL;
}

void fe_close(fe_model *model) {
    if (!model)
        return;
    for (int i = 0; i < model->file_count; i++)
        fe_file_unmap((fe_file *)&model->files[i]);
    ir_arena_destroy(model->arena);
}

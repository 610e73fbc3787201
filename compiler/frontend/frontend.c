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
    if (read_model(model, diag))
        return model;
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

#include "compiler/frontend/archs.h"

#include <string.h>

const fe_arch fe_archs[] = {
#define ARCH(...) {__VA_ARGS__},
#include "compiler/frontend/archs.def"
#undef ARCH
};
const int fe_arch_count = sizeof fe_archs / sizeof *fe_archs;

const fe_weight fe_weights[] = {
#define MODEL_WEIGHT(...) {false, __VA_ARGS__},
#define LAYER_WEIGHT(...) {true, __VA_ARGS__},
#include "compiler/frontend/weights.def"
#undef MODEL_WEIGHT
#undef LAYER_WEIGHT
};
const int fe_weight_count = sizeof fe_weights / sizeof *fe_weights;

const fe_arch *fe_arch_from_gguf(const char *architecture, size_t length) {
    for (int i = 0; i < fe_arch_count; i++)
        if (fe_archs[i].gguf && strlen(fe_archs[i].gguf) == length &&
            memcmp(fe_archs[i].gguf, architecture, length) == 0)
            return &fe_archs[i];
    return NULL;
}

const fe_arch *fe_arch_from_hf(const char *class_name, const char *model_type) {
    for (int i = 0; i < fe_arch_count; i++)
        if (class_name && strcmp(fe_archs[i].class_name, class_name) == 0)
            return &fe_archs[i];
    for (int i = 0; i < fe_arch_count; i++)
        if (!class_name && model_type && strcmp(fe_archs[i].model_type, model_type) == 0)
            return &fe_archs[i];
    return NULL;
}

const char *fe_arch_names(ir_arena *arena, size_t offset) {
    const char *names = "";
    for (int i = 0; i < fe_arch_count; i++) {
        const char *name = *(const char *const *)((const char *)&fe_archs[i] + offset);
        if (name)
            names = ir_arena_printf(arena, "%s%s%s", names, *names ? ", " : "", name);
    }
    return names;
}

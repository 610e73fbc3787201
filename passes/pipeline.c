/* The pipeline of `modelcc build`, as one flat list, and the table of passes. */
#include "passes/pass.h"

#include "ir/verify.h"

#include <string.h>

#define PASS(name, function, summary) bool function(pass_context *context);
#include "passes/passes.def"
#undef PASS

static const pass_info passes[] = {
#define PASS(name, function, summary) {name, function, summary},
#include "passes/passes.def"
#undef PASS
};

const pass_info *pass_list(int *count) {
    *count = (int)(sizeof passes / sizeof *passes);
    return passes;
}

static const pass_info *find(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
        if (strlen(passes[i].name) == length && memcmp(passes[i].name, name, length) == 0)
            return &passes[i];
    return NULL;
}

const pass_info *pass_find(const char *name) {
    return find(name, strlen(name));
}

static bool run(pass_context *context, const pass_info *pass, pass_after *after, void *user) {
    if (!pass->run(context))
        return false;
#ifndef NDEBUG
    if (!ir_verify(context->module, context->diag))
        return ir_internal_error(context->diag, pass->name,
                                 "the module does not verify after this pass");
#endif
    return !after || after(user, pass, context);
}

bool pass_run_list(pass_context *context, const char *names, pass_after *after, void *user) {
    while (*names) {
        size_t length = strcspn(names, ",");
        const pass_info *pass = find(names, length);
        if (!pass)
            return ir_error(context->diag, NULL, "unknown pass \"%.*s\"; --list-passes lists them",
                            (int)length, names);
        if (!run(context, pass, after, user))
            return false;
        names += length + (names[length] == ',');
    }
    return true;
}

bool pass_run_pipeline(pass_context *context, pass_after *after, void *user) {
    static const char *const pipeline =
        /* The graph as the model states it: attention over whole sequences, no cache. */
        "canonicalize,rope-frequencies,constant-fold,cse,dce,"
        /* Encodings are chosen; beyond this point no weight changes its numbers. */
        "quantize,cse,"
        /* Keys and values are paged; beyond this point the graph computes one step. */
        "paged-kv,dce,sampling,name-ops,"
        /* Beyond this point every op at the top is a kernel. */
        "fusion-plan,fuse,dce,"
        /* Weights get the target's order, buffers their places. */
        "pack,memory-plan";
    return pass_run_list(context, pipeline, after, user);
}

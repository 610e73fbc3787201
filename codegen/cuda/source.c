/* A function's text, put together from its parts. */
#include "codegen/cuda/internal.h"
#include "ir/text.h"

#include <stdlib.h>
#include <string.h>

/* Names of kernels may have dots; symbols of C may not. */
static const char *symbol(ir_arena *arena, const char *name, const char *suffix) {
    char *s = ir_arena_printf(arena, "%s%s", name, suffix);
    for (char *p = s; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9')))
            *p = '_';
    return s;
}

static bool has_scratch(const cg_cuda_variant *v) {
    return v->scratch_bytes > 0 || v->row_scratch_bytes > 0;
}

static bool write_source(cg_cuda_emitter *em, const cg_cuda_variant *v, const char *name,
                         const char **out) {
    char *bytes = NULL;
    size_t size = 0;
    const cg_kernel *k = em->kernel;
    bool scratch = has_scratch(v);
    FILE *f = open_memstream(&bytes, &size);
    if (!f)
        return ir_error(em->diag, k->name, "out of memory while generating code");
    fputs("#include \"program.cuh\"\n\nstruct args {\n    const mcc_step *step;\n", f);
    for (int i = 0; i < k->n_args; i++)
        fprintf(f, "    void *a%d; // %s\n", i,
                k->args[i].kind == CG_ARG_KV ? "kv" : ir_type_text(em->arena, &k->args[i].type));
    fprintf(f, "%s};\n\n", scratch ? "    void *scratch;\n" : "");
    bool ok = true;
    if (k->anchor == CG_ANCHOR_MATMUL && k->matmul.prologue) {
        const char *prologue = cg_cuda_prologue(em);
        ok = prologue != NULL;
        fprintf(f, "%s\n", prologue ? prologue : "");
    }
    for (int i = 0; i < k->n_programs; i++) {
        const char *program = cg_cuda_program(em, i);
        ok = ok && program;
        fputs(program ? program : "", f);
        fputc('\n', f);
    }
    if (k->anchor == CG_ANCHOR_MATMUL)
        fprintf(f, "%s\n", cg_cuda_tile_order(em));
    fprintf(f, "%s#include \"%s\"\n\nextern \"C\" __global__ void __launch_bounds__(%u",
            v->constants ? v->constants : "", v->include, v->threads);
    if (v->min_blocks)
        fprintf(f, ", %u", v->min_blocks);
    fprintf(f, ")\n%s(const mcc_step *step", name);
    for (int i = 0; i < k->n_args; i++)
        fprintf(f, ", void *a%d", i);
    fprintf(f, "%s) {\n    const args a = {step", scratch ? ", void *scratch" : "");
    for (int i = 0; i < k->n_args; i++)
        fprintf(f, ", a%d", i);
    fprintf(f, "%s};\n    %s\n}\n", scratch ? ", scratch" : "", v->call);
    if (fclose(f)) {
        free(bytes);
        return ir_error(em->diag, k->name, "out of memory while generating code");
    }
    *out = ir_arena_strdup(em->arena, bytes);
    free(bytes);
    return ok;
}

bool cg_cuda_add(cg_cuda_emitter *em, const cg_cuda_variant *v) {
    const char *name = symbol(em->arena, em->kernel->name, v->suffix ? v->suffix : "");
    cg_cuda_function f = {.name = name,
                          .min_rows = v->min_rows,
                          .threads = v->threads,
                          .min_blocks = v->min_blocks,
                          .shared_bytes = v->shared_bytes,
                          .scratch_bytes = v->scratch_bytes,
                          .row_scratch_bytes = v->row_scratch_bytes,
                          .first_of_two = v->first_of_two,
                          .n_params = 1 + (uint32_t)em->kernel->n_args + has_scratch(v),
                          .x = v->x,
                          .y = v->y};
    if (!write_source(em, v, name, &f.source))
        return false;
    cg_cuda_function *grown = ir_arena_array(em->arena, (size_t)em->n_functions + 1, sizeof *grown);
    if (em->n_functions)
        memcpy(grown, em->functions, (size_t)em->n_functions * sizeof *grown);
    grown[em->n_functions++] = f;
    em->functions = grown;
    return true;
}

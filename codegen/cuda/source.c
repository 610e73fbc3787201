/* A function's text, put together from its parts. */
#include "codegen/cuda/internal.h"
#include "ir/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool cg_cuda_unsupported(cg_cuda_emitter *em, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = ir_arena_vprintf(em->arena, format, args);
    va_end(args);
    return ir_error(em->diag, em->kernel->name, "cuda: %s", text);
}

mcc_cuda_grid cg_cuda_grid(ir_dim dim, int64_t div, int64_t mult) {
    return (mcc_cuda_grid){
        .dim = {.c = dim.c, .t = dim.t, .s = dim.s, .r = dim.r}, .div = div, .mult = mult};
}

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

/* Pages have the geometry of cg_cuda_pass_target. */
static bool check_args(cg_cuda_emitter *em) {
    for (int i = 0; i < em->kernel->n_args; i++) {
        const cg_arg *arg = &em->kernel->args[i];
        if (arg->kind != CG_ARG_KV)
            continue;
        if (arg->kv.page_tokens != 16)
            return cg_cuda_unsupported(em, "argument %d has KV pages of %lld tokens, expected 16",
                                       i, (long long)arg->kv.page_tokens);
        if (!ir_kv_dtype_ok(arg->kv.dtype))
            return cg_cuda_unsupported(em,
                                       "argument %d has KV pages of %s, expected f32, f16, i8 or "
                                       "f8e4m3",
                                       i, ir_dtype_name(arg->kv.dtype));
    }
    return true;
}

int64_t cg_cuda_most_shared(const cg_cuda_emitter *em) {
    return em->target ? em->target->block_shared : 99 * 1024;
}

bool cg_cuda_generate(const cg_kernel *kernel, ir_arena *arena, ir_diag *diag, cg_cuda_code *out) {
    return cg_cuda_generate_for(kernel, NULL, NULL, arena, diag, out);
}

bool cg_cuda_generate_for(const cg_kernel *kernel, const cg_cuda_target *target,
                          const cg_cuda_tiles *tiles, ir_arena *arena, ir_diag *diag,
                          cg_cuda_code *out) {
    cg_cuda_emitter em = {.kernel = kernel, .target = target, .arena = arena, .diag = diag};
    *out = (cg_cuda_code){0};
    if (!check_args(&em))
        return false;
    const char *key = cg_cuda_tile_key(kernel, target, arena);
    em.given = cg_cuda_tiles_find(tiles, key);
    bool ok = kernel->anchor == CG_ANCHOR_MATMUL      ? cg_cuda_matmul(&em)
              : kernel->anchor == CG_ANCHOR_ATTENTION ? cg_cuda_attention(&em)
              : kernel->anchor == CG_ANCHOR_SAMPLE    ? cg_cuda_sample(&em)
                                                      : cg_cuda_rows(&em);
    em.tiling.key = key;
    *out = (cg_cuda_code){em.functions, em.n_functions, em.tiling, em.given != NULL};
    return ok;
}

/* A kernel's functions: what is asked of every kernel, then its anchor's schedule. */
#include "codegen/cuda/internal.h"

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

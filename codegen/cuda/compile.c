/* One function for one architecture, from the cache or from NVRTC. */
#include "codegen/cuda/cache.h"
#include "codegen/cuda/nvrtc.h"

#include <inttypes.h>
#include <stdlib.h>

bool cg_cuda_compile(const cg_cuda_function *function, const cg_cuda_target *target,
                     const cg_cuda_options *options, ir_diag *diag, cg_cuda_image *out) {
    bool ptx_only = options && options->ptx_only;
    const char *cache = options && !ptx_only ? options->cache_dir : NULL;
    char key[65];
    *out = (cg_cuda_image){0};
    if (!cg_cuda_nvrtc_load(diag))
        return false;
    if (cache)
        cg_cuda_cache_key(function, target, key);
    if (!cache || !cg_cuda_cache_get(cache, key, out)) {
        if (!cg_nvrtc_compile(function, target, ptx_only, diag, out)) {
            cg_cuda_image_free(out);
            return false;
        }
        if (cache)
            cg_cuda_cache_put(cache, key, out);
    }
    if (ptx_only)
        return true;
    uint32_t shared = function->shared_bytes + out->static_shared_bytes;
    out->occupancy_blocks = cg_cuda_occupancy(target, function->threads, out->registers, shared);
    if (out->occupancy_blocks)
        return true;
    ir_internal_error(diag, function->name,
                      "a block of %" PRIu32 " threads with %" PRIu32 " registers each and %" PRIu32
                      " bytes of shared memory does not fit %s",
                      function->threads, out->registers, shared, target->arch_name);
    cg_cuda_image_free(out);
    return false;
}

void cg_cuda_image_free(cg_cuda_image *image) {
    free(image->cubin);
    free(image->ptx);
    *image = (cg_cuda_image){0};
}

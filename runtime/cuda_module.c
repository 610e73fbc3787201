#include "runtime/cuda_module.h"

#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int rt_cuda_image_choose(const rt_cuda_code *code, uint32_t function, uint32_t arch,
                         uint32_t forms) {
    int best = -1;
    for (uint32_t i = 0; i < code->n_images; i++) {
        const mcc_cuda_image_entry *m = &code->images[i];
        if (m->function == function && (forms >> m->form & 1) && rt_cuda_image_runs(m, arch) &&
            (best < 0 || rt_cuda_image_better(m, &code->images[best])))
            best = (int)i;
    }
    return best;
}

/* --- loading -------------------------------------------------------------------------------------
 */

typedef struct loading {
    rt_cuda_modules *modules;
    rt_cuda_driver *driver;
    const rt_cuda_code *code;
    uint32_t arch;
    const char *path, *device;
    rt_error *error;
} loading;

static bool no_image(const loading *l, uint32_t function) {
    char cubins[96], ptx[96];
    rt_cuda_architectures(l->code, MCC_CUDA_CUBIN, cubins, sizeof cubins);
    rt_cuda_architectures(l->code, MCC_CUDA_PTX, ptx, sizeof ptx);
    if (l->driver->emulator)
        return rt_fail(l->error, MCC_NO_DEVICE,
                       "%s: no PTX for %s: it has PTX for %s: set MODELCC_EMULATOR_GPU to such a "
                       "GPU (a100 is sm_80, l4 sm_89, h100 sm_90, b200 sm_100, rtx5090 sm_120)",
                       l->path, l->device, ptx);
    return rt_fail(l->error, MCC_NO_DEVICE,
                   "%s: no code of %s for %s: it has cubins for %s, and PTX for %s: build it with "
                   "--target cuda:sm_%" PRIu32,
                   l->path, l->code->strings + l->code->functions[function].name, l->device, cubins,
                   ptx, l->arch);
}

static bool load_failed(const loading *l, uint32_t image, CUresult result, const char *log) {
    const mcc_cuda_image_entry *m = &l->code->images[image];
    const char *name = l->code->strings + l->code->functions[m->function].name;
    if (result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
        return rt_fail(l->error, MCC_NO_DEVICE,
                       "%s: %s: the driver supports CUDA %d.%d, which is older than the artifact's "
                       "PTX: update the driver, or build with a cubin: --target cuda:sm_%" PRIu32,
                       l->path, name, l->driver->version / 1000, l->driver->version % 1000 / 10,
                       l->arch);
    char what[256];
    snprintf(what, sizeof what, "loading the %s of %s for sm_%" PRIu32 "%s%s%.*s",
             m->form == MCC_CUDA_PTX ? "PTX" : "cubin", name, m->arch, m->arch_specific ? "a" : "",
             *log ? ": " : "", (int)strcspn(log, "\n"), log);
    return rt_cuda_ok(l->driver, result, what, l->error);
}

/* A cubin that the driver does not take (made for an older or newer format) leaves the PTX. */
static bool is_refusal(CUresult result) {
    return result == CUDA_ERROR_NO_BINARY_FOR_GPU || result == CUDA_ERROR_INVALID_IMAGE;
}

static bool load_image(const loading *l, uint32_t function) {
    uint32_t forms = rt_cuda_forms(l->driver);
    for (;;) {
        int image = rt_cuda_image_choose(l->code, function, l->arch, forms);
        if (image < 0)
            return no_image(l, function);
        const mcc_cuda_image_entry *m = &l->code->images[image];
        char log[512] = "";
        CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
        void *values[] = {log, (void *)(uintptr_t)(sizeof log - 1)};
        CUresult result = RT_CUDA(l->driver, cuModuleLoadDataEx, &l->modules->modules[function],
                                  (const uint8_t *)l->code->header + m->offset, 2, options, values);
        if (result == CUDA_SUCCESS)
            return true;
        l->modules->modules[function] = NULL;
        if (m->form == MCC_CUDA_CUBIN && is_refusal(result) &&
            rt_cuda_image_choose(l->code, function, l->arch, 1u << MCC_CUDA_PTX) >= 0)
            forms = 1u << MCC_CUDA_PTX;
        else
            return load_failed(l, (uint32_t)image, result, log);
    }
}

static bool load_function(const loading *l, uint32_t function) {
    const mcc_cuda_function_entry *f = &l->code->functions[function];
    const char *name = l->code->strings + f->name;
    if (!load_image(l, function))
        return false;
    CUfunction *handle = &l->modules->functions[function];
    CUresult result =
        RT_CUDA(l->driver, cuModuleGetFunction, handle, l->modules->modules[function], name);
    if (result == CUDA_ERROR_NOT_FOUND)
        return rt_fail(l->error, MCC_BAD_ARTIFACT, "%s: the image of function %s does not have it",
                       l->path, name);
    if (!rt_cuda_ok(l->driver, result, name, l->error))
        return false;
    if (f->shared_bytes == 0)
        return true;
    result = RT_CUDA(l->driver, cuFuncSetAttribute, *handle,
                     CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)f->shared_bytes);
    if (result == CUDA_ERROR_INVALID_VALUE)
        return rt_fail(l->error, MCC_NO_DEVICE,
                       "%s: %s needs %" PRIu32 " bytes of shared memory, more than %s has", l->path,
                       name, f->shared_bytes, l->device);
    return rt_cuda_ok(l->driver, result, name, l->error);
}

bool rt_cuda_modules_load(rt_cuda_modules *modules, rt_cuda_driver *driver,
                          const rt_cuda_code *code, uint32_t arch, const char *path,
                          const char *device, rt_error *error) {
    loading l = {modules, driver, code, arch, path, device, error};
    size_t n = code->n_functions;
    *modules = (rt_cuda_modules){.modules = calloc(n + 1, sizeof(CUmodule)),
                                 .functions = calloc(n + 1, sizeof(CUfunction)),
                                 .n_functions = code->n_functions};
    if (!modules->modules || !modules->functions)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %zu GPU functions", n);
    for (uint32_t i = 0; i < code->n_functions; i++)
        if (!load_function(&l, i))
            return false;
    return true;
}

void rt_cuda_modules_unload(rt_cuda_modules *modules, rt_cuda_driver *driver) {
    for (uint32_t i = 0; modules->modules && i < modules->n_functions; i++)
        if (modules->modules[i])
            RT_CUDA(driver, cuModuleUnload, modules->modules[i]);
    free(modules->modules);
    free(modules->functions);
    *modules = (rt_cuda_modules){0};
}

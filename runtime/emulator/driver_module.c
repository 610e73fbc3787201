/* Modules of PTX text, their functions, and how many blocks of one fit a multiprocessor. */
#include "runtime/emulator/driver.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_SHARED = 48 << 10, /* bytes a block may have without being asked for */
    REGISTERS = 64 << 10,      /* of a multiprocessor */
    RESERVED_SHARED = 1 << 10  /* bytes of a block's that the system takes */
};

/* --- images --------------------------------------------------------------------------------------
 */

typedef enum image_kind { IMAGE_PTX, IMAGE_CUBIN, IMAGE_FATBIN, IMAGE_UNKNOWN } image_kind;

static image_kind kind_of(const char *image) {
    static const unsigned char fatbin[4] = {0x50, 0xed, 0x55, 0xba},
                               wrapper[4] = {0xb1, 0x43, 0x62, 0x46};
    if (memcmp(image, "\177ELF", 4) == 0)
        return IMAGE_CUBIN;
    if (memcmp(image, fatbin, 4) == 0 || memcmp(image, wrapper, 4) == 0)
        return IMAGE_FATBIN;
    unsigned char c = (unsigned char)image[0];
    return isspace(c) || c == '/' || c == '.' ? IMAGE_PTX : IMAGE_UNKNOWN;
}

/* The letter of ".target sm_90a", or 0. */
static char target_letter(const char *text) {
    const char *at = strstr(text, ".target");
    while (at && *at && *at != '\n' && strncmp(at, "sm_", 3) != 0)
        at++;
    if (!at || strncmp(at, "sm_", 3) != 0)
        return 0;
    at += 3;
    while (isdigit((unsigned char)*at))
        at++;
    return isalpha((unsigned char)*at) ? *at : 0;
}

static CUresult check_target(CUcontext context, const ptx_module *ptx, const char *text) {
    const modelcc_emulator_gpu *gpu = context->gpu->row;
    int has = gpu->major * 10 + gpu->minor, wants = ptx_module_target(ptx);
    char letter = target_letter(text);
    bool runs = letter == 'a'   ? wants == has
                : letter == 'f' ? wants <= has && wants / 10 == has / 10
                                : wants <= has;
    if (runs)
        return CUDA_SUCCESS;
    char suffix[2] = {letter, 0};
    return drv_fail(CUDA_ERROR_NO_BINARY_FOR_GPU, "the PTX is for sm_%d%s, and %s is sm_%d", wants,
                    suffix, gpu->title, has);
}

static CUresult parse(CUcontext context, const char *text, ptx_module **ptx) {
    char error[900];
    *ptx = ptx_module_create(text, strlen(text), error, sizeof error);
    if (!*ptx)
        return drv_fail(CUDA_ERROR_INVALID_PTX, "%s", error);
    DRV_TRY(check_target(context, *ptx, text));
    if (!ptx_module_load(*ptx, context->gpu->memory, error, sizeof error))
        return drv_fail(CUDA_ERROR_OUT_OF_MEMORY, "%s", error);
    return CUDA_SUCCESS;
}

static CUresult load(CUcontext context, const void *image, CUmodule *module) {
    switch (kind_of(image)) {
    case IMAGE_CUBIN:
        return drv_fail(CUDA_ERROR_NO_BINARY_FOR_GPU, "the emulator runs PTX, not cubins");
    case IMAGE_FATBIN:
        return drv_fail(CUDA_ERROR_NO_BINARY_FOR_GPU,
                        "the emulator runs PTX text, not fat binaries");
    case IMAGE_UNKNOWN:
        return drv_fail(CUDA_ERROR_INVALID_IMAGE, "the module image is no PTX");
    case IMAGE_PTX:
        break;
    }
    ptx_module *ptx;
    CUresult result = parse(context, image, &ptx);
    CUmodule made = result == CUDA_SUCCESS ? drv_new(DRV_MODULE, sizeof *made, context) : NULL;
    if (!made) {
        ptx_module_destroy(ptx);
        return result == CUDA_SUCCESS ? DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY) : result;
    }
    made->ptx = ptx;
    *module = made;
    return CUDA_SUCCESS;
}

/* The buffers that the options give get what last_error says. Other options do not concern an
 * interpreter. */
static void write_log(CUresult result, unsigned n, const CUjit_option *options, void **values) {
    char *log[2] = {NULL, NULL};
    size_t size[2] = {0, 0};
    void **written[2] = {NULL, NULL};
    for (unsigned i = 0; i < n; i++)
        switch (options[i]) {
        case CU_JIT_INFO_LOG_BUFFER:
        case CU_JIT_ERROR_LOG_BUFFER:
            log[options[i] == CU_JIT_ERROR_LOG_BUFFER] = values[i];
            break;
        case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
            size[options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES] = (size_t)(uintptr_t)values[i];
            written[options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES] = &values[i];
            break;
        default:
            break;
        }
    for (int i = 0; i < 2; i++) {
        size_t n_written = 0;
        if (log[i] && size[i] > 0) {
            log[i][0] = 0;
            if (i == 1 && result != CUDA_SUCCESS)
                n_written = modelcc_emulator_last_error(log[i], size[i]);
            if (n_written >= size[i])
                n_written = size[i] - 1;
        }
        if (written[i])
            *written[i] = (void *)(uintptr_t)n_written;
    }
}

API cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned n_options,
                       CUjit_option *options, void **values) {
    DRV_ENTER_CONTEXT(context);
    if (!module || !image || (n_options > 0 && (!options || !values)))
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(drv_refuse_capture(context, "cuModuleLoadDataEx"));
    CUresult result = load(context, image, module);
    write_log(result, n_options, options, values);
    return result;
}

API cuModuleLoadData(CUmodule *module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

static CUresult check_module(CUcontext context, CUmodule module) {
    if (!drv_is(module, DRV_MODULE) || module->object.context != context)
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "not a module of the current context");
    return CUDA_SUCCESS;
}

/* Waits for work that may use it. */
API cuModuleUnload(CUmodule module) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_module(context, module));
    DRV_TRY(drv_refuse_capture(context, "cuModuleUnload"));
    CUresult result = drv_run_all(context);
    while (module->functions) {
        CUfunction f = module->functions;
        module->functions = f->next;
        drv_delete(f);
    }
    ptx_module_destroy(module->ptx);
    drv_delete(module);
    return result;
}

API cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    DRV_ENTER_CONTEXT(context);
    if (!function || !name)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_module(context, module));
    const ptx_function *ptx = ptx_module_function(module->ptx, name);
    if (!ptx)
        return drv_fail(CUDA_ERROR_NOT_FOUND, "the module has no kernel %s", name);
    CUfunction f = module->functions;
    while (f && f->ptx != ptx)
        f = f->next;
    if (!f) {
        f = drv_new(DRV_FUNCTION, sizeof *f, context);
        if (!f)
            return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
        f->module = module;
        f->ptx = ptx;
        f->next = module->functions;
        f->carveout = -1;
        ptx_function_get_info(ptx, &f->info);
        f->dynamic_shared = f->info.static_shared_bytes < DEFAULT_SHARED
                                ? DEFAULT_SHARED - f->info.static_shared_bytes
                                : 0;
        module->functions = f;
    }
    *function = f;
    return CUDA_SUCCESS;
}

API cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module, const char *name) {
    DRV_ENTER_CONTEXT(context);
    uint64_t at, n;
    if (!name)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_module(context, module));
    if (!ptx_module_variable(module->ptx, name, &at, &n))
        return drv_fail(CUDA_ERROR_NOT_FOUND, "the module has no variable %s", name);
    if (address)
        *address = at;
    if (bytes)
        *bytes = (size_t)n;
    return CUDA_SUCCESS;
}

/* --- functions -----------------------------------------------------------------------------------
 */

static CUresult check_function(CUfunction f) {
    if (!drv_is(f, DRV_FUNCTION))
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "not a function");
    return CUDA_SUCCESS;
}

/* What ptxas would give it is not known; no more than what a block of its size can have. */
static int registers_of(CUfunction f) {
    uint32_t n = f->info.registers < 16 ? 16 : f->info.registers, threads = f->info.max_threads;
    uint32_t most = threads ? REGISTERS / ((threads + 31) / 32 * 32) / 8 * 8 : 255;
    most = most > 255 ? 255 : most;
    return (int)(n < most ? n : most);
}

API cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction f) {
    DRV_ENTER();
    if (!value)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_function(f));
    int target = ptx_module_target(f->module->ptx);
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = (int)f->info.max_threads;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        *value = (int)f->info.static_shared_bytes;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
        *value = 0;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *value = (int)f->info.local_bytes;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        *value = registers_of(f);
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = target;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
        *value = 0;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = (int)f->dynamic_shared;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        *value = f->carveout;
        return CUDA_SUCCESS;
    }
    return drv_fail(CUDA_ERROR_INVALID_VALUE, "the emulator does not know function attribute %d",
                    (int)attribute);
}

API cuFuncSetAttribute(CUfunction f, CUfunction_attribute attribute, int value) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_function(f));
    int most = context->gpu->row->shared_per_block - (int)f->info.static_shared_bytes;
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        if (value < 0 || value > most)
            return drv_fail(CUDA_ERROR_INVALID_VALUE,
                            "%s: %d bytes of dynamic shared memory; at most %d are left in a block "
                            "of %s",
                            f->info.name, value, most, context->gpu->row->title);
        f->dynamic_shared = (uint32_t)value;
    } else if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) {
        if (value < -1 || value > 100)
            return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
        f->carveout = value;
    } else {
        return drv_fail(CUDA_ERROR_INVALID_VALUE, "function attribute %d cannot be set",
                        (int)attribute);
    }
    return CUDA_SUCCESS;
}

API cuFuncGetModule(CUmodule *module, CUfunction f) {
    DRV_ENTER();
    if (!module)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_function(f));
    *module = f->module;
    return CUDA_SUCCESS;
}

/* --- occupancy -----------------------------------------------------------------------------------
 */

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction f, int block_size,
                                                         size_t dynamic_shared_bytes,
                                                         unsigned flags) {
    DRV_ENTER_CONTEXT(context);
    const modelcc_emulator_gpu *gpu = context->gpu->row;
    if (!blocks || block_size <= 0 || block_size > 1024 || flags > 1 ||
        dynamic_shared_bytes > (size_t)gpu->shared_per_sm)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_function(f));
    int64_t threads = (block_size + 31) / 32 * 32;
    int64_t shared = (int64_t)dynamic_shared_bytes + f->info.static_shared_bytes;
    int64_t registers = (registers_of(f) + 7) / 8 * 8 * threads;
    int64_t n = least(gpu->blocks_per_sm, gpu->threads_per_sm / threads);
    n = least(n, REGISTERS / registers);
    n = least(n, gpu->shared_per_sm / (shared + RESERVED_SHARED));
    *blocks = shared > gpu->shared_per_block || block_size > (int)f->info.max_threads ? 0 : (int)n;
    return CUDA_SUCCESS;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction f, int block_size,
                                                size_t dynamic_shared_bytes) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, f, block_size,
                                                                dynamic_shared_bytes, 0);
}

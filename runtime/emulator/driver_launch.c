/* Launches: checked and their parameters copied when they are submitted, run by the interpreter
 * when their turn has come. */
#include "runtime/emulator/driver.h"
#include "runtime/emulator/tensor.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- checks --------------------------------------------------------------------------------------
 */

static CUresult check_shape(CUcontext context, const drv_launch *l) {
    static const uint32_t grid_most[3] = {INT_MAX, 65535, 65535}, block_most[3] = {1024, 1024, 64};
    const ptx_function_info *info = &l->function->info;
    uint64_t threads = 1;
    for (int i = 0; i < 3; i++) {
        if (l->grid[i] == 0 || l->grid[i] > grid_most[i])
            return drv_fail(CUDA_ERROR_INVALID_VALUE, "%s: a grid of %u in dimension %d, of 1 … %u",
                            info->name, l->grid[i], i, grid_most[i]);
        if (l->block[i] == 0 || l->block[i] > block_most[i])
            return drv_fail(CUDA_ERROR_INVALID_VALUE,
                            "%s: a block of %u in dimension %d, of 1 … %u", info->name, l->block[i],
                            i, block_most[i]);
        threads *= l->block[i];
    }
    if (threads > info->max_threads)
        return drv_fail(CUDA_ERROR_INVALID_VALUE, "%s: %llu threads a block, and it has at most %u",
                        info->name, (unsigned long long)threads, info->max_threads);
    if (l->shared_bytes > l->function->dynamic_shared)
        return drv_fail(CUDA_ERROR_INVALID_VALUE,
                        "%s: %u bytes of dynamic shared memory, and it may have %u (see "
                        "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)",
                        info->name, l->shared_bytes, l->function->dynamic_shared);
    if (info->static_shared_bytes > (uint32_t)context->gpu->row->shared_per_block)
        return drv_fail(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
                        "%s: %u bytes of static shared memory, and a block of %s has %d",
                        info->name, info->static_shared_bytes, context->gpu->row->title,
                        context->gpu->row->shared_per_block);
    return CUDA_SUCCESS;
}

/* The `extra` array: the parameters as one block. */
static CUresult read_extra(void **extra, const ptx_function_info *info, const void **block) {
    const size_t *size = NULL;
    *block = NULL;
    for (int i = 0; extra[i] != CU_LAUNCH_PARAM_END && i < 8; i += 2)
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
            *block = extra[i + 1];
        else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
            size = extra[i + 1];
        else
            return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    if (!*block || !size || *size < info->param_bytes)
        return drv_fail(CUDA_ERROR_INVALID_VALUE, "%s: its parameters have %u bytes", info->name,
                        info->param_bytes);
    return CUDA_SUCCESS;
}

static CUresult copy_params(const ptx_function_info *info, void **params, void **extra,
                            uint8_t **made) {
    const void *whole = NULL;
    if (params && extra)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    if (extra)
        DRV_TRY(read_extra(extra, info, &whole));
    if (info->n_params > 0 && !params && !whole)
        return drv_fail(CUDA_ERROR_INVALID_VALUE, "%s: launched without its %d parameters",
                        info->name, info->n_params);
    *made = calloc(1, (size_t)info->param_bytes + 1);
    if (!*made)
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    if (whole)
        memcpy(*made, whole, info->param_bytes);
    for (int i = 0; params && i < info->n_params; i++) {
        if (!params[i]) {
            free(*made);
            return drv_fail(CUDA_ERROR_INVALID_VALUE, "%s: parameter %d is missing", info->name, i);
        }
        memcpy(*made + info->param_offsets[i], params[i], info->param_sizes[i]);
    }
    return CUDA_SUCCESS;
}

CUresult drv_launch_make(CUcontext context, CUfunction function, const unsigned grid[3],
                         const unsigned block[3], unsigned shared_bytes, void **params,
                         void **extra, drv_launch *launch) {
    if (!drv_is(function, DRV_FUNCTION) || function->object.context != context)
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "not a function of the current context");
    *launch = (drv_launch){.function = function, .shared_bytes = shared_bytes};
    memcpy(launch->grid, grid, sizeof launch->grid);
    memcpy(launch->block, block, sizeof launch->block);
    DRV_TRY(check_shape(context, launch));
    return copy_params(&function->info, params, extra, &launch->params);
}

/* --- submitting ----------------------------------------------------------------------------------
 */

static CUresult launch(CUfunction function, const unsigned grid[3], const unsigned block[3],
                       unsigned shared_bytes, CUstream handle, void **params, void **extra) {
    DRV_ENTER_CONTEXT(context);
    CUstream stream;
    drv_work work = {.kind = DRV_KERNEL};
    DRV_TRY(drv_stream_find(context, handle, &stream));
    DRV_TRY(
        drv_launch_make(context, function, grid, block, shared_bytes, params, extra, &work.launch));
    return drv_submit(stream, &work);
}

API cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   CUstream stream, void **params, void **extra) {
    return launch(function, (unsigned[3]){grid_x, grid_y, grid_z},
                  (unsigned[3]){block_x, block_y, block_z}, shared_bytes, stream, params, extra);
}

API cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params,
                     void **extra) {
    if (!config || (config->numAttrs > 0 && !config->attrs))
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const CUlaunchAttribute *a = &config->attrs[i];
        bool is_hint = a->id == CU_LAUNCH_ATTRIBUTE_IGNORE ||
                       a->id == CU_LAUNCH_ATTRIBUTE_PRIORITY ||
                       a->id == CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW ||
                       a->id == CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        bool is_off =
            (a->id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE && !a->value.cooperative) ||
            (a->id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION && a->value.clusterDim.x == 1 &&
             a->value.clusterDim.y == 1 && a->value.clusterDim.z == 1);
        if (!is_hint && !is_off)
            return drv_fail(CUDA_ERROR_NOT_SUPPORTED, "the emulator has no launch attribute %d",
                            (int)a->id);
    }
    return launch(function, (unsigned[3]){config->gridDimX, config->gridDimY, config->gridDimZ},
                  (unsigned[3]){config->blockDimX, config->blockDimY, config->blockDimZ},
                  config->sharedMemBytes, config->hStream, params, extra);
}

/* --- running -------------------------------------------------------------------------------------
 */

/* What a device would say about it, by the words of the interpreter's messages. What no device
 * notices, such as a race, is a failure without a name of its own. */
static CUresult code_of(const char *error) {
    static const struct {
        const char *words;
        CUresult code;
    } known[] = {{"misaligned", CUDA_ERROR_MISALIGNED_ADDRESS},
                 {"out of bounds access", CUDA_ERROR_ILLEGAL_ADDRESS},
                 {"trap:", CUDA_ERROR_ILLEGAL_INSTRUCTION},
                 {"endless loop", CUDA_ERROR_LAUNCH_TIMEOUT}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(error, known[i].words))
            return known[i].code;
    return CUDA_ERROR_LAUNCH_FAILED;
}

/* Tensor cores add up as those of the device do. */
static emu_mma_sum sum_of(int major) {
    if (drv_options.exact_mma)
        return EMU_MMA_EXACT;
    return major < 9 ? EMU_MMA_TRUNCATE_24 : EMU_MMA_TRUNCATE_25;
}

CUresult drv_kernel(CUcontext context, const drv_launch *l) {
    char error[1000];
    emu_counters counters = {0};
    const modelcc_emulator_options *o = &drv_options;
    emu_launch launch = {.function = l->function->ptx,
                         .grid = {l->grid[0], l->grid[1], l->grid[2]},
                         .block = {l->block[0], l->block[1], l->block[2]},
                         .shared_bytes = l->shared_bytes,
                         .params = l->params,
                         .memory = context->gpu->memory,
                         .checks = o->checks,
                         .schedule_seed = o->seed,
                         .instruction_limit = o->limit,
                         .approx_seed = o->approx,
                         .mma_sum = sum_of(context->gpu->row->major),
                         .threads = o->threads,
                         .counters = o->count ? &counters : NULL};
    if (drv_options.fail > 0 && --drv_options.fail == 0) {
        snprintf(error, sizeof error, "kernel %s: made to fail (MODELCC_EMULATOR_FAIL)",
                 l->function->info.name);
        return drv_stick(context, CUDA_ERROR_ILLEGAL_ADDRESS, error);
    }
    double begin = o->count ? drv_now() : 0;
    if (!emu_run(&launch, error, sizeof error))
        return drv_stick(context, code_of(error), error);
    if (o->count)
        drv_count(l, &counters, drv_now() - begin);
    return CUDA_SUCCESS;
}

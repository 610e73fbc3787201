/* Devices and contexts. */
#include "runtime/emulator/driver.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

drv_gpu drv_gpus[DRV_MAX_GPUS];
int drv_n_gpus;

bool drv_set_gpus(const char *names) {
    const modelcc_emulator_gpu *rows[DRV_MAX_GPUS];
    int n = drv_parse_gpus(names, rows);
    if (n < 0)
        return false;
    for (int i = 0; i < n; i++)
        drv_gpus[i] = (drv_gpu){.row = rows[i]};
    drv_n_gpus = n;
    return true;
}

API cuInit(unsigned flags) {
    bool locked __attribute__((cleanup(drv_leave)));
    CUresult result = drv_enter(&locked);
    if (!locked)
        return result;
    if (flags != 0)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    if (!drv_initialised && !drv_read_environment())
        return CUDA_ERROR_INVALID_VALUE;
    drv_initialised = true;
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int *version) {
    if (!version)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *version = DRV_VERSION;
    return CUDA_SUCCESS;
}

/* --- devices -------------------------------------------------------------------------------------
 */

API cuDeviceGetCount(int *count) {
    DRV_ENTER();
    if (!count)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *count = drv_n_gpus;
    return CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice *device, int ordinal) {
    DRV_ENTER();
    if (!device)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    if (ordinal < 0 || ordinal >= drv_n_gpus)
        return DRV_FAIL(CUDA_ERROR_INVALID_DEVICE);
    *device = ordinal;
    return CUDA_SUCCESS;
}

static CUresult find_gpu(CUdevice device, const void *result, drv_gpu **gpu) {
    *gpu = NULL;
    if (!result)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    if (device < 0 || device >= drv_n_gpus)
        return DRV_FAIL(CUDA_ERROR_INVALID_DEVICE);
    *gpu = &drv_gpus[device];
    return CUDA_SUCCESS;
}

API cuDeviceGetName(char *name, int bytes, CUdevice device) {
    DRV_ENTER();
    drv_gpu *gpu;
    DRV_TRY(find_gpu(device, name, &gpu));
    if (bytes <= 0)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    snprintf(name, (size_t)bytes, "%s (emulated)", gpu->row->title);
    return CUDA_SUCCESS;
}

API cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    DRV_ENTER();
    drv_gpu *gpu;
    DRV_TRY(find_gpu(device, uuid, &gpu));
    memset(uuid, 0, sizeof *uuid);
    snprintf(uuid->bytes, sizeof uuid->bytes, "emulated%d", device);
    return CUDA_SUCCESS;
}

API cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    DRV_ENTER();
    drv_gpu *gpu;
    DRV_TRY(find_gpu(device, bytes, &gpu));
    *bytes = gpu->row->memory_bytes;
    return CUDA_SUCCESS;
}

static bool attribute_of(const modelcc_emulator_gpu *g, CUdevice_attribute attribute, int *value) {
    const struct {
        CUdevice_attribute attribute;
        int value;
    } all[] = {
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
        {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
        {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024},
        {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, INT_MAX},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 << 10},
        {CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 64 << 10},
        {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
        {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 64 << 10},
        {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, g->clock_mhz * 1000},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, g->sms},
        {CU_DEVICE_ATTRIBUTE_INTEGRATED, g->integrated},
        {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, CU_COMPUTEMODE_DEFAULT},
        {CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1},
        {CU_DEVICE_ATTRIBUTE_ECC_ENABLED, 0},
        {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, g->memory_mhz * 1000},
        {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, g->bus_bits},
        {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, g->l2_bytes},
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, g->threads_per_sm},
        {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 2},
        {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, g->major},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, g->minor},
        {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, g->shared_per_sm},
        {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 64 << 10},
        {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 0},
        {CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0},
        {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1},
        {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 0},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, g->shared_per_block},
        {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, g->blocks_per_sm},
        {CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE, 0},
        {CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, 1 << 10},
        {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 0},
        {CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].attribute == attribute) {
            *value = all[i].value;
            return true;
        }
    return false;
}

API cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    DRV_ENTER();
    drv_gpu *gpu;
    DRV_TRY(find_gpu(device, value, &gpu));
    if (!attribute_of(gpu->row, attribute, value))
        return drv_fail(CUDA_ERROR_INVALID_VALUE, "the emulator does not know device attribute %d",
                        (int)attribute);
    return CUDA_SUCCESS;
}

/* --- contexts ------------------------------------------------------------------------------------
 */

enum { MAX_PUSHED = 64 };
static _Thread_local CUcontext pushed[MAX_PUSHED]; /* may be of contexts that are gone */
static _Thread_local int n_pushed;

static CUresult make_context(drv_gpu *gpu, CUcontext *made) {
    if (!gpu->memory) {
        gpu->memory =
            emu_memory_create(gpu->row->memory_bytes, drv_options.checks & EMU_CHECK_UNINITIALISED);
        if (!gpu->memory)
            return drv_fail(CUDA_ERROR_OUT_OF_MEMORY,
                            "no room in the address space for the memory of %s", gpu->row->title);
    }
    CUcontext context = drv_new(DRV_CONTEXT, sizeof *context, NULL);
    if (context) {
        context->gpu = gpu;
        context->objects.next = context->objects.prev = &context->objects;
        context->object.context = context;
        context->legacy = drv_new(DRV_STREAM, sizeof *context->legacy, context);
    }
    if (!context || !context->legacy) {
        drv_delete(context);
        if (gpu->contexts == 0) {
            emu_memory_destroy(gpu->memory);
            gpu->memory = NULL;
        }
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    }
    context->legacy->tail = &context->legacy->head;
    gpu->contexts++;
    *made = context;
    return CUDA_SUCCESS;
}

static void free_object(drv_object *object) {
    if (object->kind == DRV_MODULE)
        ptx_module_destroy(((CUmodule)object)->ptx);
    else if (object->kind == DRV_STREAM)
        free(((CUstream)object)->after);
    else if (object->kind == DRV_EVENT)
        free(((CUevent)object)->nodes);
    drv_delete(object);
}

static void destroy_context(CUcontext context) {
    drv_gpu *gpu = context->gpu;
    drv_drop(context);
    drv_object *head = &context->objects;
    for (drv_object *o = head->next; o != head; o = o->next)
        if (o->kind == DRV_STREAM)
            drv_capture_drop((CUstream)o);
    /* Executable graphs and graphs free nodes. */
    for (drv_object *o = head->next, *next; o != head; o = next) {
        next = o->next;
        if (o->kind == DRV_EXEC)
            drv_exec_free((CUgraphExec)o);
    }
    for (drv_object *o = head->next; o != head;)
        if (o->kind == DRV_GRAPH) {
            drv_graph_free((CUgraph)o);
            o = head->next;
        } else {
            o = o->next;
        }
    while (head->next != head)
        free_object(head->next);
    drv_free_all(context);
    drv_delete(context);
    if (--gpu->contexts == 0) {
        emu_memory_destroy(gpu->memory);
        gpu->memory = NULL;
    }
}

static CUcontext current(void) {
    return n_pushed > 0 ? pushed[n_pushed - 1] : NULL;
}

CUresult drv_current(CUcontext *context) {
    *context = NULL;
    CUcontext c = current();
    if (!c)
        return drv_fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current in this thread");
    if (!drv_is(c, DRV_CONTEXT))
        return DRV_FAIL(CUDA_ERROR_CONTEXT_IS_DESTROYED);
    if (c->error != CUDA_SUCCESS)
        return drv_fail(c->error, "%s", c->text);
    *context = c;
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    DRV_ENTER();
    drv_gpu *gpu;
    DRV_TRY(find_gpu(device, context, &gpu));
    if (!gpu->primary)
        DRV_TRY(make_context(gpu, &gpu->primary));
    gpu->retained++;
    *context = gpu->primary;
    return CUDA_SUCCESS;
}

static void destroy_primary(drv_gpu *gpu) {
    if (gpu->primary)
        destroy_context(gpu->primary);
    gpu->primary = NULL;
}

API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    DRV_ENTER();
    drv_gpu *gpu;
    DRV_TRY(find_gpu(device, &device, &gpu));
    if (gpu->retained == 0)
        return drv_fail(CUDA_ERROR_INVALID_CONTEXT, "the primary context has not been retained");
    if (--gpu->retained == 0)
        destroy_primary(gpu);
    return CUDA_SUCCESS;
}

/* As a driver does it: whoever retained it may still release it. */
API cuDevicePrimaryCtxReset_v2(CUdevice device) {
    DRV_ENTER();
    drv_gpu *gpu;
    DRV_TRY(find_gpu(device, &device, &gpu));
    destroy_primary(gpu);
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    DRV_ENTER();
    drv_gpu *gpu;
    DRV_TRY(find_gpu(device, active, &gpu));
    if (flags)
        *flags = 0;
    *active = gpu->primary != NULL;
    return CUDA_SUCCESS;
}

API cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
    DRV_ENTER();
    drv_gpu *gpu;
    (void)flags;
    DRV_TRY(find_gpu(device, context, &gpu));
    if (n_pushed == MAX_PUSHED)
        return DRV_FAIL(CUDA_ERROR_INVALID_CONTEXT);
    DRV_TRY(make_context(gpu, context));
    pushed[n_pushed++] = *context;
    return CUDA_SUCCESS;
}

API cuCtxDestroy_v2(CUcontext context) {
    DRV_ENTER();
    if (!drv_is(context, DRV_CONTEXT) || context == context->gpu->primary)
        return DRV_FAIL(CUDA_ERROR_INVALID_CONTEXT);
    if (current() == context)
        n_pushed--;
    destroy_context(context);
    return CUDA_SUCCESS;
}

API cuCtxSetCurrent(CUcontext context) {
    DRV_ENTER();
    if (context && !drv_is(context, DRV_CONTEXT))
        return DRV_FAIL(CUDA_ERROR_INVALID_CONTEXT);
    if (n_pushed > 0)
        n_pushed--;
    if (context)
        pushed[n_pushed++] = context;
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(CUcontext *context) {
    DRV_ENTER();
    if (!context)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *context = current();
    return CUDA_SUCCESS;
}

API cuCtxPushCurrent_v2(CUcontext context) {
    DRV_ENTER();
    if (!drv_is(context, DRV_CONTEXT))
        return DRV_FAIL(CUDA_ERROR_INVALID_CONTEXT);
    if (n_pushed == MAX_PUSHED)
        return drv_fail(CUDA_ERROR_INVALID_CONTEXT, "%d contexts are pushed", n_pushed);
    pushed[n_pushed++] = context;
    return CUDA_SUCCESS;
}

API cuCtxPopCurrent_v2(CUcontext *context) {
    DRV_ENTER();
    if (n_pushed == 0)
        return DRV_FAIL(CUDA_ERROR_INVALID_CONTEXT);
    n_pushed--;
    if (context)
        *context = pushed[n_pushed];
    return CUDA_SUCCESS;
}

API cuCtxGetDevice(CUdevice *device) {
    DRV_ENTER_CONTEXT(context);
    if (!device)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *device = (CUdevice)(context->gpu - drv_gpus);
    return CUDA_SUCCESS;
}

API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    DRV_ENTER_CONTEXT(context);
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return CUDA_SUCCESS;
}

API cuCtxSynchronize(void) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(drv_refuse_capture(context, "cuCtxSynchronize"));
    return drv_run_all(context);
}

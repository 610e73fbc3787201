/* Device and pinned host memory, copies and fills. */
#include "runtime/emulator/driver.h"

#include <stdlib.h>
#include <string.h>

/* --- allocation ----------------------------------------------------------------------------------
 */

static CUresult allocate(CUcontext context, uint64_t bytes, bool host, uint64_t *address) {
    emu_memory *memory = context->gpu->memory;
    if (context->n_addresses == context->addresses_room) {
        size_t room = context->addresses_room ? 2 * context->addresses_room : 64;
        uint64_t *grown = realloc(context->addresses, room * sizeof *grown);
        if (!grown)
            return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
        context->addresses = grown;
        context->addresses_room = room;
    }
    const emu_allocation *a = emu_memory_alloc(memory, bytes, host);
    if (!a)
        return drv_fail(CUDA_ERROR_OUT_OF_MEMORY, "no %llu bytes: %llu of %llu are free",
                        (unsigned long long)bytes,
                        (unsigned long long)emu_memory_free_bytes(memory),
                        (unsigned long long)emu_memory_capacity(memory));
    context->addresses[context->n_addresses++] = a->base;
    *address = a->base;
    return CUDA_SUCCESS;
}

/* Waits for all work, which may use it, as a driver does. */
static CUresult release(CUcontext context, uint64_t address, bool host, const char *call) {
    const emu_allocation *a = emu_memory_find(context->gpu->memory, address, 1);
    size_t i = 0;
    while (i < context->n_addresses && context->addresses[i] != address)
        i++;
    if (!a || a->host != host || i == context->n_addresses)
        return drv_fail(CUDA_ERROR_INVALID_VALUE,
                        "%s: 0x%llx is not the start of an allocation of the current context", call,
                        (unsigned long long)address);
    DRV_TRY(drv_refuse_capture(context, call));
    CUresult result = drv_run_all(context);
    context->addresses[i] = context->addresses[--context->n_addresses];
    emu_memory_free(context->gpu->memory, address);
    return result;
}

void drv_free_all(CUcontext context) {
    while (context->n_addresses > 0)
        emu_memory_free(context->gpu->memory, context->addresses[--context->n_addresses]);
    free(context->addresses);
}

API cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    DRV_ENTER_CONTEXT(context);
    uint64_t at;
    if (!address || bytes == 0)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(drv_refuse_capture(context, "cuMemAlloc"));
    DRV_TRY(allocate(context, bytes, false, &at));
    *address = at;
    return CUDA_SUCCESS;
}

API cuMemFree_v2(CUdeviceptr address) {
    DRV_ENTER_CONTEXT(context);
    return address ? release(context, address, false, "cuMemFree") : CUDA_SUCCESS;
}

API cuMemGetInfo_v2(size_t *unused, size_t *total) {
    DRV_ENTER_CONTEXT(context);
    if (unused)
        *unused = emu_memory_free_bytes(context->gpu->memory);
    if (total)
        *total = emu_memory_capacity(context->gpu->memory);
    return CUDA_SUCCESS;
}

API cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    DRV_ENTER_CONTEXT(context);
    uint64_t at;
    if (!pointer || bytes == 0 || flags > 7)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(drv_refuse_capture(context, "cuMemHostAlloc"));
    DRV_TRY(allocate(context, bytes, true, &at));
    *pointer = (void *)(uintptr_t)at;
    return CUDA_SUCCESS;
}

API cuMemAllocHost_v2(void **pointer, size_t bytes) {
    return cuMemHostAlloc(pointer, bytes, 0);
}

API cuMemFreeHost(void *pointer) {
    DRV_ENTER_CONTEXT(context);
    return release(context, (uint64_t)(uintptr_t)pointer, true, "cuMemFreeHost");
}

/* --- questions -----------------------------------------------------------------------------------
 */

static const emu_allocation *find(CUcontext context, uint64_t address, uint64_t bytes) {
    return emu_memory_find(context->gpu->memory, address, bytes);
}

API cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *pointer, unsigned flags) {
    DRV_ENTER_CONTEXT(context);
    const emu_allocation *a = find(context, (uint64_t)(uintptr_t)pointer, 1);
    if (!address || flags != 0 || !a || !a->host)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *address = (CUdeviceptr)(uintptr_t)pointer;
    return CUDA_SUCCESS;
}

API cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr address) {
    DRV_ENTER_CONTEXT(context);
    const emu_allocation *a = find(context, address, 1);
    if (!a)
        return DRV_FAIL(CUDA_ERROR_NOT_FOUND);
    if (base)
        *base = a->base;
    if (size)
        *size = a->bytes;
    return CUDA_SUCCESS;
}

API cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr address) {
    DRV_ENTER_CONTEXT(context);
    const emu_allocation *a = find(context, address, 1);
    if (!data || !a)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = context;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)data = a->host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (!a->host)
            return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
        *(void **)data = (void *)(uintptr_t)address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(unsigned *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = (int)(context->gpu - drv_gpus);
        return CUDA_SUCCESS;
    }
    return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
}

/* --- doing it ------------------------------------------------------------------------------------
 */

/* Where bytes of the device or of the host are, for the emulator. */
static uint8_t *bytes_at(CUcontext context, uint64_t address, uint64_t bytes,
                         const emu_allocation **a) {
    *a = find(context, address, bytes);
    return *a ? (*a)->data + (address - (*a)->base) : (uint8_t *)(uintptr_t)address;
}

/* A copy of bytes that nobody wrote is one of them still. */
static void copy_marks(const emu_allocation *to, uint64_t at, const emu_allocation *from,
                       uint64_t source, uint64_t bytes) {
    if (!to || !to->initialised)
        return;
    if (!from || !from->initialised) {
        emu_memory_mark(to, at, bytes);
        return;
    }
    uint64_t t = at - to->base, f = source - from->base;
    for (uint64_t i = 0; i < bytes; i++) {
        uint8_t bit = (uint8_t)(1u << (t + i) % 8);
        if (from->initialised[(f + i) / 8] >> (f + i) % 8 & 1)
            to->initialised[(t + i) / 8] |= bit;
        else
            to->initialised[(t + i) / 8] &= (uint8_t)~bit;
    }
}

CUresult drv_copy(CUcontext context, const drv_work *work) {
    const emu_allocation *to, *from = NULL;
    uint64_t n = work->copy.bytes;
    uint8_t *d = bytes_at(context, work->copy.to, n, &to);
    const uint8_t *s =
        work->copy.staged ? work->copy.staged : bytes_at(context, work->copy.from, n, &from);
    copy_marks(to, work->copy.to, from, work->copy.from, n);
    memmove(d, s, n);
    return CUDA_SUCCESS;
}

CUresult drv_fill(CUcontext context, const drv_work *work) {
    const emu_allocation *a;
    uint64_t n = work->fill.count, size = work->fill.size;
    uint8_t *to = bytes_at(context, work->fill.to, n * size, &a);
    emu_memory_mark(a, work->fill.to, n * size);
    if (size == 1)
        memset(to, (int)work->fill.value, n);
    else
        for (uint64_t i = 0; i < n; i++)
            memcpy(to + i * size, &work->fill.value, size); /* little-endian */
    return CUDA_SUCCESS;
}

/* --- submitting ----------------------------------------------------------------------------------
 */

enum { TO_DEVICE = 1, FROM_DEVICE = 2, EITHER = 4 };

/* A side that must be of the device is; one that is not, is all of it out of the device's reach. */
static CUresult check_side(CUcontext context, uint64_t address, uint64_t bytes, bool device,
                           bool either, const char *side) {
    const emu_allocation *a = find(context, address, bytes);
    if (a)
        return CUDA_SUCCESS; /* pinned memory may be a host's or a device's address */
    a = emu_memory_nearest(context->gpu->memory, address);
    bool overlaps = find(context, address, 1) != NULL;
    if (!overlaps && !device && (either || address))
        return CUDA_SUCCESS;
    if (overlaps)
        return drv_fail(CUDA_ERROR_INVALID_VALUE,
                        "the %s of a copy, %llu bytes at 0x%llx, ends %llu bytes past allocation "
                        "%u (%llu bytes)",
                        side, (unsigned long long)bytes, (unsigned long long)address,
                        (unsigned long long)(address + bytes - a->base - a->bytes), a->serial,
                        (unsigned long long)a->bytes);
    return drv_fail(CUDA_ERROR_INVALID_VALUE,
                    "the %s of a copy, %llu bytes at 0x%llx, is in no allocation", side,
                    (unsigned long long)bytes, (unsigned long long)address);
}

/* Copies from pageable memory read it before they return; copies to it have ended when they do. */
static CUresult submit_copy(CUcontext context, CUstream stream, uint64_t to, uint64_t from,
                            uint64_t bytes, unsigned kind, bool wait) {
    if (bytes == 0)
        return CUDA_SUCCESS;
    DRV_TRY(check_side(context, to, bytes, kind & TO_DEVICE, kind & EITHER, "destination"));
    DRV_TRY(check_side(context, from, bytes, kind & FROM_DEVICE, kind & EITHER, "source"));
    if (wait)
        DRV_TRY(drv_refuse_capture(context, "a copy that waits"));
    drv_work work = {.kind = DRV_COPY, .copy = {.to = to, .from = from, .bytes = bytes}};
    if (!stream->capture && !wait && !find(context, from, bytes)) {
        work.copy.staged = malloc(bytes);
        if (!work.copy.staged)
            return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
        memcpy(work.copy.staged, (const void *)(uintptr_t)from, bytes);
    }
    bool pageable = !find(context, to, bytes);
    DRV_TRY(drv_submit(stream, &work));
    return wait || (pageable && !stream->capture) ? drv_run(stream, UINT64_MAX) : CUDA_SUCCESS;
}

static CUresult copy_async(CUstream handle, uint64_t to, uint64_t from, uint64_t bytes,
                           unsigned kind) {
    DRV_ENTER_CONTEXT(context);
    CUstream stream;
    DRV_TRY(drv_stream_find(context, handle, &stream));
    return submit_copy(context, stream, to, from, bytes, kind, false);
}

static CUresult copy(uint64_t to, uint64_t from, uint64_t bytes, unsigned kind) {
    DRV_ENTER_CONTEXT(context);
    return submit_copy(context, context->legacy, to, from, bytes, kind, true);
}

API cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return copy(to, from, bytes, EITHER);
}
API cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_async(stream, to, from, bytes, EITHER);
}
API cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
    return copy(to, (uint64_t)(uintptr_t)from, bytes, TO_DEVICE);
}
API cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
    return copy((uint64_t)(uintptr_t)to, from, bytes, FROM_DEVICE);
}
API cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return copy(to, from, bytes, TO_DEVICE | FROM_DEVICE);
}
API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    return copy_async(stream, to, (uint64_t)(uintptr_t)from, bytes, TO_DEVICE);
}
API cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_async(stream, (uint64_t)(uintptr_t)to, from, bytes, FROM_DEVICE);
}
API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_async(stream, to, from, bytes, TO_DEVICE | FROM_DEVICE);
}

/* --- fills ---------------------------------------------------------------------------------------
 */

/* A fill of device memory need not have happened when the call returns, also where it has no
 * stream. */
static CUresult fill(CUstream handle, uint64_t to, uint32_t value, uint32_t size, uint64_t count) {
    DRV_ENTER_CONTEXT(context);
    CUstream stream;
    uint64_t bytes;
    DRV_TRY(drv_stream_find(context, handle, &stream));
    if (to % size || __builtin_mul_overflow(count, size, &bytes))
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    if (bytes == 0)
        return CUDA_SUCCESS;
    DRV_TRY(check_side(context, to, bytes, true, false, "memory"));
    return drv_submit(stream, &(drv_work){.kind = DRV_FILL, .fill = {to, count, value, size}});
}

API cuMemsetD8_v2(CUdeviceptr to, unsigned char byte, size_t count) {
    return fill(NULL, to, byte, 1, count);
}
API cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count) {
    return fill(NULL, to, value, 2, count);
}
API cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
    return fill(NULL, to, value, 4, count);
}
API cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t count, CUstream stream) {
    return fill(stream, to, byte, 1, count);
}
API cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
    return fill(stream, to, value, 2, count);
}
API cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    return fill(stream, to, value, 4, count);
}

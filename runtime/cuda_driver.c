#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr, secure_getenv */
#endif
#include "runtime/cuda_driver.h"

#include "runtime/modelcc.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRIVER_NAME "libcuda.so.1"
#define EMULATOR_NAME "libcuda_emulator.so"

/* --- finding it ----------------------------------------------------------------------------------
 */

/* The library stays when its handle is closed. */
static void *load(rt_cuda_driver *d, const char *path) {
    snprintf(d->path, sizeof d->path, "%s", path);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

/* Loads `name` from the folder of `file`. */
static void *load_beside(rt_cuda_driver *d, const char *file, const char *name) {
    const char *slash = strrchr(file, '/');
    char path[sizeof d->path];
    if (!slash ||
        snprintf(path, sizeof path, "%.*s/%s", (int)(slash - file), file, name) >=
            (int)sizeof path ||
        access(path, R_OK) != 0)
        return NULL;
    return load(d, path);
}

static void *load_emulator(rt_cuda_driver *d) {
    const char *named = secure_getenv("MODELCC_EMULATOR");
    if (named && *named)
        return load(d, named);
    Dl_info here;
    char program[4096];
    void *handle = NULL;
    /* Any object of this library will do to find its file. */
    static const char anchor;
    if (dladdr(&anchor, &here) && here.dli_fname)
        handle = load_beside(d, here.dli_fname, EMULATOR_NAME);
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (!handle && n > 0) {
        program[n] = 0;
        handle = load_beside(d, program, EMULATOR_NAME);
        if (!handle)
            handle = load_beside(d, program, "../lib/" EMULATOR_NAME);
    }
    return handle ? handle : load(d, EMULATOR_NAME);
}

static bool not_found(const rt_cuda_driver *d, rt_error *error) {
    const char *why = dlerror(); /* also frees it; it begins with the file's name */
    if (d->emulator)
        return rt_fail(error, MCC_NO_DEVICE,
                       "the GPU emulator was not found: %s: it belongs beside libmodelcc or the "
                       "program, or set MODELCC_EMULATOR to its file",
                       why ? why : EMULATOR_NAME);
    return rt_fail(error, MCC_NO_DEVICE,
                   "no NVIDIA driver found: %s: install a driver, or use the device \"emulator\"",
                   why ? why : DRIVER_NAME);
}

/* ISO C has no conversion from dlsym's pointer to one of a function; POSIX promises it works. */
static bool resolve(rt_cuda_driver *d, const char *name, void *member, rt_error *error) {
    void *symbol = dlsym(d->handle, name);
    memcpy(member, &symbol, sizeof symbol);
    if (symbol)
        return true;
    dlerror();
    return rt_fail(error, MCC_NO_DEVICE,
                   "%s lacks %s: it is older than CUDA 12, or no CUDA driver; update it", d->path,
                   name);
}

static bool open_driver(rt_cuda_driver *d, rt_error *error) {
    d->handle = d->emulator ? load_emulator(d) : load(d, DRIVER_NAME);
    if (!d->handle)
        return not_found(d, error);
#define RESOLVE(name)                                                                              \
    if (!resolve(d, #name, &d->name, error))                                                       \
        return false;
    RT_CUDA_FUNCTIONS(RESOLVE)
#undef RESOLVE
    void *symbol = dlsym(d->handle, "modelcc_emulator_last_error");
    memcpy(&d->last_error, &symbol, sizeof symbol);
    CUresult result = RT_CUDA(d, cuInit, 0);
    if (result == CUDA_ERROR_NO_DEVICE)
        return rt_fail(error, MCC_NO_DEVICE,
                       "%s: there is no GPU, or none that this process may use (look at "
                       "CUDA_VISIBLE_DEVICES); the device \"emulator\" needs none",
                       d->path);
    if (!rt_cuda_ok(d, result, "cuInit", error) ||
        !rt_cuda_ok(d, RT_CUDA(d, cuDriverGetVersion, &d->version), "cuDriverGetVersion", error)) {
        if (error && error->code == MCC_DEVICE_FAILED)
            error->code = MCC_NO_DEVICE;
        return false;
    }
    return true;
}

bool rt_cuda_open(rt_cuda_driver *d, bool emulator, rt_error *error) {
    *d = (rt_cuda_driver){.emulator = emulator};
    if (open_driver(d, error))
        return true;
    rt_cuda_close(d);
    return false;
}

void rt_cuda_close(rt_cuda_driver *d) {
    if (d->handle)
        dlclose(d->handle);
    d->handle = NULL;
}

/* --- errors --------------------------------------------------------------------------------------
 */

bool rt_cuda_ok(const rt_cuda_driver *d, CUresult result, const char *what, rt_error *error) {
    if (result == CUDA_SUCCESS)
        return true;
    const char *name = NULL, *meaning = NULL;
    char own[400] = "";
    if (d->cuGetErrorName(result, &name) != CUDA_SUCCESS || !name)
        name = "unknown error";
    if (d->cuGetErrorString(result, &meaning) != CUDA_SUCCESS || !meaning)
        meaning = "without a message";
    if (d->last_error && d->last_error(own, sizeof own) > 0)
        meaning = own;
    return rt_fail(error,
                   result == CUDA_ERROR_OUT_OF_MEMORY ? MCC_OUT_OF_MEMORY : MCC_DEVICE_FAILED,
                   "%s: %s: %s (%d: %s)", d->emulator ? "GPU emulator" : "GPU", what, name,
                   (int)result, meaning);
}

bool rt_cuda_find(rt_cuda_driver *d, int ordinal, CUdevice *gpu, uint32_t *arch,
                  char name[RT_CUDA_NAME], rt_error *error) {
    int count = 0, major = 0, minor = 0;
    char own[128] = "";
    if (!rt_cuda_ok(d, RT_CUDA(d, cuDeviceGetCount, &count), "counting devices", error))
        return false;
    if (ordinal >= count)
        return rt_fail(error, MCC_NO_DEVICE, "no GPU %d: there %s %d, counted from 0", ordinal,
                       count == 1 ? "is" : "are", count);
    if (!rt_cuda_ok(d, RT_CUDA(d, cuDeviceGet, gpu, ordinal), "finding the device", error) ||
        !rt_cuda_ok(d, RT_CUDA(d, cuDeviceGetName, own, sizeof own, *gpu), "naming the device",
                    error) ||
        !rt_cuda_ok(d,
                    RT_CUDA(d, cuDeviceGetAttribute, &major,
                            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, *gpu),
                    "asking for the architecture", error) ||
        !rt_cuda_ok(d,
                    RT_CUDA(d, cuDeviceGetAttribute, &minor,
                            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, *gpu),
                    "asking for the architecture", error))
        return false;
    *arch = (uint32_t)(major * 10 + minor);
    own[sizeof own - 1] = 0;
    snprintf(name, RT_CUDA_NAME, "%s (sm_%" PRIu32 ")", own, *arch);
    return true;
}

/* --- describing ----------------------------------------------------------------------------------
 */

static void describe_device(rt_cuda_driver *d, int ordinal, char *text, size_t capacity) {
    CUdevice device;
    char name[96] = "";
    int major = 0, minor = 0;
    if (RT_CUDA(d, cuDeviceGet, &device, ordinal) == CUDA_SUCCESS &&
        RT_CUDA(d, cuDeviceGetName, name, sizeof name, device) == CUDA_SUCCESS &&
        RT_CUDA(d, cuDeviceGetAttribute, &major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                device) == CUDA_SUCCESS &&
        RT_CUDA(d, cuDeviceGetAttribute, &minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                device) == CUDA_SUCCESS)
        snprintf(text, capacity, ", %s (sm_%d%d)", name, major, minor);
    else
        snprintf(text, capacity, ", a GPU that does not answer");
}

bool rt_cuda_describe(bool emulator, char *text, size_t capacity) {
    rt_cuda_driver d;
    rt_error error = {0};
    if (!rt_cuda_open(&d, emulator, &error)) {
        snprintf(text, capacity, "%s", error.text);
        return false;
    }
    int count = 0;
    size_t used = (size_t)snprintf(text, capacity, "%s, CUDA %d.%d", d.path, d.version / 1000,
                                   d.version % 1000 / 10);
    RT_CUDA(&d, cuDeviceGetCount, &count);
    for (int i = 0; i < count && i < 8 && used < capacity; i++) {
        describe_device(&d, i, text + used, capacity - used);
        used += strlen(text + used);
    }
    rt_cuda_close(&d);
    return true;
}

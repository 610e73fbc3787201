/* The CUDA driver, or the emulator that stands in for it: found and loaded when it is needed, so
 * that the runtime neither links nor requires it. */
#ifndef MCC_RUNTIME_CUDA_DRIVER_H
#define MCC_RUNTIME_CUDA_DRIVER_H

#include "runtime/cuda_api.h"
#include "runtime/error.h"

#include <stdbool.h>
#include <stdint.h>

/* The functions used, by their exported names. */
#define RT_CUDA_FUNCTIONS(X)                                                                       \
    X(cuInit)                                                                                      \
    X(cuDriverGetVersion)                                                                          \
    X(cuGetErrorName)                                                                              \
    X(cuGetErrorString)                                                                            \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetCount)                                                                            \
    X(cuDeviceGetName)                                                                             \
    X(cuDeviceGetAttribute)                                                                        \
    X(cuDevicePrimaryCtxRetain)                                                                    \
    X(cuDevicePrimaryCtxRelease_v2)                                                                \
    X(cuCtxPushCurrent_v2)                                                                         \
    X(cuCtxPopCurrent_v2)                                                                          \
    X(cuModuleLoadDataEx)                                                                          \
    X(cuModuleUnload)                                                                              \
    X(cuModuleGetFunction)                                                                         \
    X(cuFuncSetAttribute)                                                                          \
    X(cuLaunchKernel)                                                                              \
    X(cuMemAlloc_v2)                                                                               \
    X(cuMemFree_v2)                                                                                \
    X(cuMemGetInfo_v2)                                                                             \
    X(cuMemHostAlloc)                                                                              \
    X(cuMemFreeHost)                                                                               \
    X(cuMemcpyHtoDAsync_v2)                                                                        \
    X(cuMemcpyDtoHAsync_v2)                                                                        \
    X(cuMemcpyDtoDAsync_v2)                                                                        \
    X(cuStreamCreate)                                                                              \
    X(cuStreamDestroy_v2)                                                                          \
    X(cuStreamSynchronize)                                                                         \
    X(cuStreamBeginCapture_v2)                                                                     \
    X(cuStreamEndCapture)                                                                          \
    X(cuEventCreate)                                                                               \
    X(cuEventDestroy_v2)                                                                           \
    X(cuEventRecord)                                                                               \
    X(cuEventSynchronize)                                                                          \
    X(cuEventElapsedTime)                                                                          \
    X(cuGraphInstantiateWithFlags)                                                                 \
    X(cuGraphLaunch)                                                                               \
    X(cuGraphExecDestroy)                                                                          \
    X(cuGraphDestroy)

#define RT_CUDA_TYPE(name, params) typedef CUresult rt_##name params;
CUDA_API_FUNCTIONS(RT_CUDA_TYPE)
#undef RT_CUDA_TYPE

typedef struct rt_cuda_driver {
    void *handle;   /* of dlopen; NULL: not open */
    char path[256]; /* of the library, or the name it was found by */
    bool emulator;
    int version;    /* of CUDA that it supports: 12040 of 12.4 */
    uint64_t calls; /* made through RT_CUDA */
    /* The emulator's own words about what went wrong; NULL of drivers. */
    size_t (*last_error)(char *text, size_t bytes);
#define RT_CUDA_MEMBER(name) rt_##name *name;
    RT_CUDA_FUNCTIONS(RT_CUDA_MEMBER)
#undef RT_CUDA_MEMBER
} rt_cuda_driver;

/* Calls a function and counts it: RT_CUDA(driver, cuStreamSynchronize, stream). */
#define RT_CUDA(driver, function, ...) ((driver)->calls++, (driver)->function(__VA_ARGS__))

/* Loads and initialises libcuda.so.1, or libcuda_emulator.so: the file that the environment's
 * MODELCC_EMULATOR names, or else the one beside this library or program. Errors: NO_DEVICE, saying
 * what was looked for and what to do. On error nothing is left open. */
bool rt_cuda_open(rt_cuda_driver *driver, bool emulator, rt_error *error);

/* Lets go of the library, which stays in the process: drivers have threads of their own. */
void rt_cuda_close(rt_cuda_driver *driver);

/* True on success; else fills `error`: "GPU: WHAT: name of the result (its meaning)". The code is
 * OUT_OF_MEMORY or DEVICE_FAILED. */
bool rt_cuda_ok(const rt_cuda_driver *driver, CUresult result, const char *what, rt_error *error);

enum { RT_CUDA_NAME = 160 };

/* The GPU of that number: its architecture, 89 of sm_89, and what people call it: "NVIDIA L4
 * (sm_89)". */
bool rt_cuda_find(rt_cuda_driver *driver, int ordinal, CUdevice *gpu, uint32_t *arch,
                  char name[RT_CUDA_NAME], rt_error *error);

/* Whether there is a driver, or the emulator, and its devices; for people: "CUDA 12.4, NVIDIA H100
 * (sm_90)". False with what is missing. */
bool rt_cuda_describe(bool emulator, char *text, size_t capacity);

#endif

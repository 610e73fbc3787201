/* The memory of a model on a GPU: weights, activations, KV pools, step block and scratch memory,
 * and copies of the weights to it. */
#ifndef MCC_RUNTIME_CUDA_MEMORY_H
#define MCC_RUNTIME_CUDA_MEMORY_H

#include "runtime/cuda_driver.h"
#include "runtime/device.h"

typedef struct rt_cuda_memory {
    CUdeviceptr weights, arena, block;
    CUdeviceptr scratch; /* as functions want it (artifact.h); 0: none does */
    CUdeviceptr *pools;  /* [n_kv_groups] */
    uint32_t n_pools;
    uint64_t arena_bytes, bytes; /* of activations; of all */
} rt_cuda_memory;

/* Allocates everything in the current context. `code`: the device's; `device` is for messages.
 * OUT_OF_MEMORY says how much is needed, how much is free, and what would fit. What was allocated
 * until then stays for rt_cuda_memory_free. */
bool rt_cuda_memory_alloc(rt_cuda_memory *memory, rt_cuda_driver *driver,
                          const rt_device_options *options, const rt_cuda_code *code,
                          const char *device, CUstream stream, rt_error *error);
void rt_cuda_memory_free(rt_cuda_memory *memory, rt_cuda_driver *driver);

/* Copies `bytes` from any host memory to the device, in chunks through pinned memory, so that the
 * next chunk is read while one is on its way. All of it has arrived on return. */
bool rt_cuda_upload(rt_cuda_driver *driver, CUstream stream, CUdeviceptr to, const void *from,
                    uint64_t bytes, rt_error *error);

#endif

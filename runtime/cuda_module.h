/* Loads an artifact's GPU functions: for each, the image that fits the device. */
#ifndef MCC_RUNTIME_CUDA_MODULE_H
#define MCC_RUNTIME_CUDA_MODULE_H

#include "runtime/artifact_cuda.h"
#include "runtime/cuda_driver.h"

/* The image of a function for a device of architecture `arch` (86 of sm_86), by index, or -1:
 * a cubin for that very architecture; else the PTX for the newest one that is not above it, which
 * the driver compiles. What is specific to an architecture fits that one only. `forms`: which to
 * consider, 1 << MCC_CUDA_CUBIN and 1 << MCC_CUDA_PTX. */
int rt_cuda_image_choose(const rt_cuda_code *code, uint32_t function, uint32_t arch,
                         uint32_t forms);

/* The forms that a driver takes: the emulator interprets PTX alone. */
static inline uint32_t rt_cuda_forms(const rt_cuda_driver *driver) {
    return 1u << MCC_CUDA_PTX | (driver->emulator ? 0 : 1u << MCC_CUDA_CUBIN);
}

typedef struct rt_cuda_modules {
    CUmodule *modules;     /* [n_functions], NULL where not loaded */
    CUfunction *functions; /* [n_functions] */
    uint32_t n_functions;
} rt_cuda_modules;

/* Loads all functions of what rt_cuda_select gave into the current context. `path` and `device`
 * ("NVIDIA L4 (sm_89)") are for messages. Errors: NO_DEVICE when the artifact has nothing for this
 * architecture, or for a driver this old; DEVICE_FAILED; OUT_OF_MEMORY. What was loaded until then
 * stays for the unloading. */
bool rt_cuda_modules_load(rt_cuda_modules *modules, rt_cuda_driver *driver,
                          const rt_cuda_code *code, uint32_t arch, const char *path,
                          const char *device, rt_error *error);
void rt_cuda_modules_unload(rt_cuda_modules *modules, rt_cuda_driver *driver);

#endif

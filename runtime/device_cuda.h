/* Runs an artifact's launches on a GPU, through the CUDA driver or the emulator. */
#ifndef MCC_RUNTIME_DEVICE_CUDA_H
#define MCC_RUNTIME_DEVICE_CUDA_H

#include "runtime/device.h"

/* Opens the driver, or the emulator, loads the functions that fit the GPU with this number, and
 * uploads the weights. NULL on error: NO_DEVICE, OUT_OF_MEMORY, DEVICE_FAILED. */
rt_device *rt_device_cuda_create(bool emulator, int ordinal, const rt_device_options *options,
                                 rt_error *error);

#endif

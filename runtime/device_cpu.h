/* Runs an artifact's launches on the processor. */
#ifndef MCC_RUNTIME_DEVICE_CPU_H
#define MCC_RUNTIME_DEVICE_CPU_H

#include "runtime/device.h"

/* Allocates the activation arena for the block's limits and the KV pools, and resolves every
 * launch's arguments: they do not change from step to step. NULL on error. */
rt_device *rt_device_cpu_create(const rt_device_options *options, rt_error *error);

#endif

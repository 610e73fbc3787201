/* Runs an artifact's launches on the processor. */
#ifndef MCC_RUNTIME_DEVICE_CPU_H
#define MCC_RUNTIME_DEVICE_CPU_H

#include "runtime/loader.h"
#include "runtime/step_block.h"
#include "runtime/threadpool.h"

typedef struct rt_device_cpu rt_device_cpu;

typedef struct rt_device_options {
    const mcc_artifact *artifact;
    const rt_kv *kv;
    const rt_step_block *block;
    rt_pool *pool;
    bool null; /* run nothing */
} rt_device_options;

/* Allocates the activation arena for the block's limits and resolves every launch's arguments: they
 * do not change from step to step. NULL on error. */
rt_device_cpu *rt_device_cpu_create(const rt_device_options *options, rt_error *error);
void rt_device_cpu_destroy(rt_device_cpu *device);

/* Runs the step that the block holds. */
void rt_device_cpu_run(rt_device_cpu *device);

/* f32[R][vocabulary] of the last step; may be changed by the caller. */
float *rt_device_cpu_logits(rt_device_cpu *device);

uint64_t rt_device_cpu_arena_bytes(const rt_device_cpu *device);

#endif

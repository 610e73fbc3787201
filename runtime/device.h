/* What runs a model's steps: the processor's threads (device_cpu.c) or a GPU (device_cuda.c).
 *
 * A device holds the memory that steps work in: activations, the KV cache's pools, and on a GPU the
 * weights. It is made for the limits of one engine's step block, and resolves then where everything
 * lies, so that a step only says how many tokens, sequences and rows there are. One thread at a
 * time uses a device, not always the same. */
#ifndef MCC_RUNTIME_DEVICE_H
#define MCC_RUNTIME_DEVICE_H

#include "runtime/loader.h"
#include "runtime/step_block.h"
#include "runtime/threadpool.h"

typedef struct rt_device rt_device;

typedef struct rt_device_options {
    const mcc_artifact *artifact;
    const rt_kv *kv;
    const rt_kv_options *kv_options; /* what kv was made with: for advice when memory is short */
    const rt_step_block *block;
    rt_pool *pool;          /* the CPU's threads; a GPU needs none */
    bool null;              /* run nothing: all logits are 0 */
    double *launch_seconds; /* [n_launches] filled by each step; NULL: launches are not measured */
    uint64_t *kv_fits; /* set to how large a KV cache may be, where it is too large for the GPU and
                          nothing else is; NULL: not asked */
} rt_device_options;

typedef struct rt_device_stats {
    uint64_t arena_bytes;
    /* Of a GPU; 0 on the CPU. Counted since the device was made, and of the last step alone. */
    uint64_t device_bytes; /* allocated there: weights, activations, KV pools, step block */
    uint64_t launches, driver_calls, graph_launches;
    uint64_t last_launches, last_driver_calls;
    uint64_t results_bytes, last_results_bytes; /* copied back to the host */
} rt_device_stats;

typedef struct rt_device_ops {
    /* Runs the step that the block holds. With rows asked for, it is complete on return; without,
     * it may still be at work. False when it failed: what the KV cache holds is lost then, and the
     * next call sets the device up again, or fails, too. */
    bool (*run)(rt_device *device, rt_error *error);
    /* Copies pages of the KV cache, in order, before the next step. False as `run`. */
    bool (*copy_pages)(rt_device *device, const rt_kv_copy *copies, int n, rt_error *error);
    /* A page of the KV cache to and from the host's memory: the parts of its group's layers, one
     * after the other. Behind the steps that were run; complete on return. False as `run`. */
    bool (*read_page)(rt_device *device, uint32_t group, int32_t page, void *to, rt_error *error);
    bool (*write_page)(rt_device *device, uint32_t group, int32_t page, const void *from,
                       rt_error *error);
    /* Another device of the engine has failed, with a GPU's context that this one may share, and
     * that stays as it is until all have let it go: does so, and the KV cache is lost. The next
     * call sets it up again. NULL: nothing is shared. */
    void (*let_go)(rt_device *device);
    /* f32[R][width] of the last step, if the block asked for them, in the host's memory; may be
     * changed by the caller: logits, or what the model gives instead (rt_tables.rows). */
    float *(*logits)(rt_device *device);
    /* [R] of the last step, if the block had sampling parameters. NULL on devices that do not
     * sample. */
    const mcc_step_sampled *(*sampled)(rt_device *device);
    void (*stats)(const rt_device *device, rt_device_stats *stats);
    void (*destroy)(rt_device *device);
} rt_device_ops;

/* The first member of each device's struct. */
struct rt_device {
    const rt_device_ops *ops;
    bool samples; /* steps choose tokens where the block has sampling parameters */
    /* For pages of sequences that are swapped out: rt_kv_host_bytes of each group, one after the
     * other; pinned, for a GPU. Gone when the device fails; NULL: the KV cache wants none. */
    uint8_t *host;
};

/* What a device is called: "cpu", "cuda" or "cuda:N" (the N-th GPU), "emulator". */
typedef enum rt_device_kind { RT_DEVICE_CPU, RT_DEVICE_CUDA, RT_DEVICE_EMULATOR } rt_device_kind;

typedef struct rt_device_name {
    rt_device_kind kind;
    int ordinal;
} rt_device_name;

/* Reads a name; NULL chooses the CPU where the artifact's code for it was loaded, else CUDA where
 * the artifact has code for that. False when it is none of them, or the artifact has no code for
 * it. */
bool rt_device_choose(const char *name, const mcc_artifact *artifact, rt_device_name *chosen,
                      rt_error *error);

/* Bytes of activations for steps up to `limits`; checks that all buffers lie in them. */
bool rt_device_arena_bytes(const mcc_artifact *artifact, const rt_step_limits *limits,
                           uint64_t *bytes, rt_error *error);

/* NULL on error. */
rt_device *rt_device_create(const rt_device_name *name, const rt_device_options *options,
                            rt_error *error);
void rt_device_destroy(rt_device *device); /* NULL is allowed */

#endif

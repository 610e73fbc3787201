#include "runtime/device_cpu.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef struct device_cpu {
    rt_device device;
    const mcc_artifact *artifact;
    const rt_kv *kv;
    const rt_step_block *block;
    rt_pool *pool;
    bool null;
    double *launch_seconds;
    uint8_t *arena;
    uint64_t arena_bytes;
    char *scratch;
    size_t scratch_stride;
    void *shared; /* of all launches, which run one after the other */
    uint64_t shared_bytes;
    void **args;         /* of all launches, in the tables' order */
    mcc_cpu_call *calls; /* [n_launches] */
    rt_job *jobs;        /* [n_launches] */
    uint8_t **pools;     /* [n_kv_groups] */
    float *logits;
} device_cpu;

/* Reserved, and backed by memory only where steps write. NULL when that cannot be. */
static void *reserve(uint64_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static bool make_pools(device_cpu *d, const rt_tables *t, rt_error *error) {
    d->pools = calloc((size_t)t->n_kv_groups + 1, sizeof *d->pools);
    if (!d->pools)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a device");
    for (uint32_t i = 0; i < t->n_kv_groups; i++) {
        uint64_t bytes = rt_kv_pool_bytes(d->kv, i);
        d->pools[i] = reserve(bytes);
        if (!d->pools[i])
            return rt_fail(error, MCC_OUT_OF_MEMORY,
                           "cannot reserve %" PRIu64 " bytes for the KV cache: use a smaller "
                           "max_model_len or kv_cache_memory_bytes",
                           bytes);
    }
    return true;
}

static bool make_arena(device_cpu *d, const rt_step_limits *l, rt_error *error) {
    uint64_t bytes;
    if (!rt_device_arena_bytes(d->artifact, l, &bytes, error))
        return false;
    d->arena_bytes = bytes > 0 ? bytes : 64;
    d->arena = reserve(d->arena_bytes);
    if (!d->arena)
        return rt_fail(error, MCC_OUT_OF_MEMORY,
                       "cannot reserve %" PRIu64 " bytes for activations: use a smaller "
                       "max_num_batched_tokens",
                       d->arena_bytes);
    return true;
}

static bool make_shared(device_cpu *d, rt_error *error) {
    const rt_tables *t = &d->artifact->tables;
    uint64_t page_tokens = 0, bytes;
    for (uint32_t i = 0; i < t->n_kv_groups; i++)
        if ((uint64_t)t->kv_groups[i].page_tokens > page_tokens)
            page_tokens = (uint64_t)t->kv_groups[i].page_tokens;
    uint64_t positions = (uint64_t)d->block->limits.P * page_tokens;
    uint64_t ranges = (positions + MCC_CPU_RANGE - 1) / MCC_CPU_RANGE;
    if (__builtin_mul_overflow(ranges, t->header->shared_bytes, &bytes) || bytes > INT64_MAX)
        bytes = INT64_MAX;
    d->shared_bytes = bytes + MCC_CPU_COUNTER_BYTES;
    d->shared = reserve(d->shared_bytes);
    if (!d->shared)
        return rt_fail(error, MCC_OUT_OF_MEMORY,
                       "cannot reserve %" PRIu64 " bytes for attention's partial results: use a "
                       "smaller max_model_len",
                       d->shared_bytes);
    return true;
}

static void *resolve(const device_cpu *d, const mcc_arg_entry *arg) {
    const rt_tables *t = &d->artifact->tables;
    const rt_step_limits *l = &d->block->limits;
    switch (arg->kind) {
    case MCC_ARG_BUFFER:
        return d->arena + rt_dim(&t->buffers[arg->index].offset, l->T, l->S, l->R);
    case MCC_ARG_WEIGHT:
        return (uint8_t *)d->artifact->parts[MCC_SECTION_WEIGHTS].data +
               t->weights[arg->index].offset;
    case MCC_ARG_KV:
        return d->pools[arg->index] + rt_kv_layer_offset(d->kv, arg->index, arg->layer);
    default: /* checked: MCC_ARG_STEP and one of its arrays */
        if (arg->index == MCC_STEP_TOKEN_IDS)
            return d->block->token_ids;
        return arg->index == MCC_STEP_POSITIONS ? d->block->positions : d->block->output_rows;
    }
}

static bool create(device_cpu *d, rt_error *error) {
    const rt_tables *t = &d->artifact->tables;
    uint64_t host = rt_kv_all_host_bytes(d->kv);
    d->device.host = host > 0 ? reserve(host) : NULL;
    if (host > 0 && !d->device.host)
        return rt_fail(error, MCC_OUT_OF_MEMORY,
                       "cannot reserve %" PRIu64 " bytes for sequences that are swapped out: use a "
                       "smaller swap_space_bytes",
                       host);
    if (!make_arena(d, &d->block->limits, error) || !make_pools(d, t, error) ||
        !make_shared(d, error))
        return false;
    size_t threads = (size_t)rt_pool_threads(d->pool);
    d->scratch_stride = (t->header->scratch_bytes + 127) / 64 * 64;
    d->scratch = aligned_alloc(64, d->scratch_stride * threads);
    d->args = calloc((size_t)t->n_args + 1, sizeof *d->args);
    d->calls = calloc((size_t)t->n_launches + 1, sizeof *d->calls);
    d->jobs = calloc((size_t)t->n_launches + 1, sizeof *d->jobs);
    if (!d->scratch || !d->args || !d->calls || !d->jobs)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %" PRIu32 " launches",
                       t->n_launches);
    for (uint32_t i = 0; i < t->n_args; i++)
        d->args[i] = resolve(d, &t->args[i]);
    for (uint32_t i = 0; i < t->n_launches; i++) {
        const mcc_launch_entry *l = &t->launches[i];
        d->calls[i] = (mcc_cpu_call){
            .step = d->block->step, .args = d->args + l->first_arg, .shared = d->shared};
        d->jobs[i] = (rt_job){.kernel = d->artifact->kernels[l->kernel], .call = &d->calls[i]};
    }
    d->logits = resolve(d, &(mcc_arg_entry){.kind = MCC_ARG_BUFFER, .index = t->rows->buffer});
    return true;
}

static void destroy(rt_device *device) {
    device_cpu *d = (device_cpu *)device;
    if (d->arena)
        munmap(d->arena, d->arena_bytes);
    if (d->shared)
        munmap(d->shared, d->shared_bytes);
    for (uint32_t i = 0; d->pools && i < d->artifact->tables.n_kv_groups; i++)
        if (d->pools[i])
            munmap(d->pools[i], rt_kv_pool_bytes(d->kv, i));
    if (d->device.host)
        munmap(d->device.host, rt_kv_all_host_bytes(d->kv));
    free(d->pools);
    free(d->scratch);
    free(d->args);
    free(d->calls);
    free(d->jobs);
    free(d);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One launch after the other, each with its time. */
static void run_timed(device_cpu *d) {
    for (uint32_t i = 0; i < d->artifact->tables.n_launches; i++) {
        double begin = now();
        if (d->jobs[i].tiles > 0)
            rt_pool_run(d->pool, &d->jobs[i], 1, d->scratch, d->scratch_stride);
        d->launch_seconds[i] = d->jobs[i].tiles > 0 ? now() - begin : 0;
    }
}

static bool run(rt_device *device, rt_error *error) {
    (void)error; /* kernels have no way to fail */
    device_cpu *d = (device_cpu *)device;
    const rt_tables *t = &d->artifact->tables;
    const mcc_step *step = d->block->step;
    for (uint32_t i = 0; i < t->n_launches; i++) {
        d->calls[i].T = step->T;
        d->calls[i].S = step->S;
        d->calls[i].R = step->R;
        d->jobs[i].tiles = rt_launch_tiles(&t->launches[i], step->T, step->S, step->R);
    }
    if (!d->null && d->launch_seconds)
        run_timed(d);
    else if (!d->null)
        rt_pool_run(d->pool, d->jobs, (int)t->n_launches, d->scratch, d->scratch_stride);
    return true;
}

/* A layer's part of a page. */
static uint8_t *page_of(const device_cpu *d, uint32_t group, uint32_t layer, int32_t page) {
    return d->pools[group] + rt_kv_layer_offset(d->kv, group, layer) +
           (uint64_t)page * d->artifact->tables.kv_groups[group].layer_bytes;
}

static bool copy_pages(rt_device *device, const rt_kv_copy *copies, int n, rt_error *error) {
    (void)error;
    const device_cpu *d = (const device_cpu *)device;
    for (int i = 0; i < n; i++) {
        const rt_kv_copy *c = &copies[i];
        const mcc_kv_group_entry *g = &d->artifact->tables.kv_groups[c->group];
        for (uint32_t l = 0; l < (uint32_t)g->layers; l++)
            memcpy(page_of(d, c->group, l, c->to), page_of(d, c->group, l, c->from),
                   g->layer_bytes);
    }
    return true;
}

static bool read_page(rt_device *device, uint32_t group, int32_t page, void *to, rt_error *error) {
    (void)error;
    const device_cpu *d = (const device_cpu *)device;
    const mcc_kv_group_entry *g = &d->artifact->tables.kv_groups[group];
    for (uint32_t l = 0; l < (uint32_t)g->layers; l++)
        memcpy((uint8_t *)to + l * g->layer_bytes, page_of(d, group, l, page), g->layer_bytes);
    return true;
}

static bool write_page(rt_device *device, uint32_t group, int32_t page, const void *from,
                       rt_error *error) {
    (void)error;
    const device_cpu *d = (const device_cpu *)device;
    const mcc_kv_group_entry *g = &d->artifact->tables.kv_groups[group];
    for (uint32_t l = 0; l < (uint32_t)g->layers; l++)
        memcpy(page_of(d, group, l, page), (const uint8_t *)from + l * g->layer_bytes,
               g->layer_bytes);
    return true;
}

static float *logits(rt_device *device) {
    return ((device_cpu *)device)->logits;
}

static void stats(const rt_device *device, rt_device_stats *stats) {
    *stats = (rt_device_stats){.arena_bytes = ((const device_cpu *)device)->arena_bytes};
}

rt_device *rt_device_cpu_create(const rt_device_options *options, rt_error *error) {
    static const rt_device_ops ops = {.run = run,
                                      .copy_pages = copy_pages,
                                      .read_page = read_page,
                                      .write_page = write_page,
                                      .logits = logits,
                                      .stats = stats,
                                      .destroy = destroy};
    device_cpu *d = calloc(1, sizeof *d);
    if (!d) {
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a device");
        return NULL;
    }
    d->device.ops = &ops;
    d->artifact = options->artifact;
    d->kv = options->kv;
    d->block = options->block;
    d->pool = options->pool;
    d->null = options->null;
    d->launch_seconds = options->launch_seconds;
    if (!create(d, error)) {
        destroy(&d->device);
        return NULL;
    }
    return &d->device;
}

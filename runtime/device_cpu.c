#include "runtime/device_cpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct rt_device_cpu {
    const mcc_artifact *artifact;
    const rt_step_block *block;
    rt_pool *pool;
    bool null;
    uint8_t *arena;
    uint64_t arena_bytes;
    char *scratch;
    size_t scratch_stride;
    void **args;         /* of all launches, in the tables' order */
    mcc_cpu_call *calls; /* [n_launches] */
    rt_job *jobs;        /* [n_launches] */
    float *logits;
};

/* Reserved, and backed by memory only where steps write. */
static bool make_arena(rt_device_cpu *d, const rt_tables *t, const rt_step_limits *l,
                       rt_error *error) {
    uint64_t bytes = (uint64_t)rt_dim(&t->header->arena_bytes, l->T, l->S, l->R);
    for (uint32_t i = 0; i < t->n_buffers; i++) {
        const mcc_buffer_entry *b = &t->buffers[i];
        uint64_t end = (uint64_t)rt_dim(&b->offset, l->T, l->S, l->R) +
                       (uint64_t)rt_dim(&b->bytes, l->T, l->S, l->R);
        if (end > bytes)
            return rt_fail(error, MCC_BAD_ARTIFACT,
                           "%s: buffer %" PRIu32 " ends at byte %" PRIu64 " of an arena of %" PRIu64
                           " (T %d, S %d, R %d)",
                           d->artifact->path, i, end, bytes, l->T, l->S, l->R);
    }
    d->arena_bytes = bytes > 0 ? bytes : 64;
    void *arena = mmap(NULL, d->arena_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        return rt_fail(error, MCC_OUT_OF_MEMORY,
                       "cannot reserve %" PRIu64 " bytes for activations: use a smaller "
                       "max_num_batched_tokens",
                       d->arena_bytes);
    d->arena = arena;
    return true;
}

static void *resolve(const rt_device_cpu *d, const rt_kv *kv, const mcc_arg_entry *arg) {
    const rt_tables *t = &d->artifact->tables;
    const rt_step_limits *l = &d->block->limits;
    switch (arg->kind) {
    case MCC_ARG_BUFFER:
        return d->arena + rt_dim(&t->buffers[arg->index].offset, l->T, l->S, l->R);
    case MCC_ARG_WEIGHT:
        return (uint8_t *)d->artifact->parts[MCC_SECTION_WEIGHTS].data +
               t->weights[arg->index].offset;
    case MCC_ARG_KV:
        return rt_kv_layer(kv, arg->index, arg->layer);
    default: /* checked: MCC_ARG_STEP and one of its arrays */
        if (arg->index == MCC_STEP_TOKEN_IDS)
            return d->block->token_ids;
        return arg->index == MCC_STEP_POSITIONS ? d->block->positions : d->block->output_rows;
    }
}

static bool create(rt_device_cpu *d, const rt_device_options *o, rt_error *error) {
    const rt_tables *t = &d->artifact->tables;
    if (!make_arena(d, t, &d->block->limits, error))
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
        d->args[i] = resolve(d, o->kv, &t->args[i]);
    for (uint32_t i = 0; i < t->n_launches; i++) {
        const mcc_launch_entry *l = &t->launches[i];
        d->calls[i] = (mcc_cpu_call){.step = d->block->step, .args = d->args + l->first_arg};
        d->jobs[i] = (rt_job){.kernel = d->artifact->kernels[l->kernel], .call = &d->calls[i]};
    }
    for (uint32_t i = 0; i < t->n_outputs; i++) {
        mcc_arg_entry arg = {.kind = MCC_ARG_BUFFER, .index = t->outputs[i].buffer};
        if (strcmp(rt_string(t, t->outputs[i].name), "logits") == 0)
            d->logits = resolve(d, o->kv, &arg);
    }
    return true;
}

rt_device_cpu *rt_device_cpu_create(const rt_device_options *options, rt_error *error) {
    rt_device_cpu *d = calloc(1, sizeof *d);
    if (!d) {
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a device");
        return NULL;
    }
    d->artifact = options->artifact;
    d->block = options->block;
    d->pool = options->pool;
    d->null = options->null;
    if (!create(d, options, error)) {
        rt_device_cpu_destroy(d);
        return NULL;
    }
    return d;
}

void rt_device_cpu_destroy(rt_device_cpu *d) {
    if (!d)
        return;
    if (d->arena)
        munmap(d->arena, d->arena_bytes);
    free(d->scratch);
    free(d->args);
    free(d->calls);
    free(d->jobs);
    free(d);
}

void rt_device_cpu_run(rt_device_cpu *d) {
    const rt_tables *t = &d->artifact->tables;
    const mcc_step *step = d->block->step;
    for (uint32_t i = 0; i < t->n_launches; i++) {
        d->calls[i].T = step->T;
        d->calls[i].S = step->S;
        d->calls[i].R = step->R;
        d->jobs[i].tiles = rt_launch_tiles(&t->launches[i], step->T, step->S, step->R);
    }
    if (!d->null)
        rt_pool_run(d->pool, d->jobs, (int)t->n_launches, d->scratch, d->scratch_stride);
}

float *rt_device_cpu_logits(rt_device_cpu *d) {
    return d->logits;
}

uint64_t rt_device_cpu_arena_bytes(const rt_device_cpu *d) {
    return d->arena_bytes;
}

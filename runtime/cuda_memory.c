#include "runtime/cuda_memory.h"

#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- sizes ---------------------------------------------------------------------------------------
 */

typedef struct sizes {
    uint64_t weights, arena, kv, block, scratch;
} sizes;

static uint64_t total(const sizes *s) {
    return s->weights + s->arena + s->kv + s->block + s->scratch;
}

/* For the longest page table of any KV group. */
static uint64_t scratch_bytes(const rt_device_options *o, const rt_cuda_code *code) {
    const rt_tables *t = &o->artifact->tables;
    const rt_step_limits *l = &o->block->limits;
    int64_t positions = 0;
    for (uint32_t i = 0; i < t->n_kv_groups; i++)
        if (t->kv_groups[i].page_tokens * (int64_t)l->P > positions)
            positions = t->kv_groups[i].page_tokens * (int64_t)l->P;
    return rt_cuda_scratch_bytes(code, positions, l->T, l->S, l->R);
}

static bool find_sizes(const rt_device_options *o, const rt_cuda_code *code, sizes *s,
                       rt_error *error) {
    *s =
        (sizes){.weights = o->artifact->parts[MCC_SECTION_WEIGHTS].bytes, .block = o->block->bytes};
    for (uint32_t i = 0; i < o->artifact->tables.n_kv_groups; i++)
        if (__builtin_add_overflow(s->kv, rt_kv_pool_bytes(o->kv, i), &s->kv))
            return rt_fail(error, MCC_OUT_OF_MEMORY, "a KV cache of more than 2^64 bytes");
    s->scratch = scratch_bytes(o, code);
    if (s->scratch > INT64_MAX)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "scratch memory of more than 2^63 bytes");
    return rt_device_arena_bytes(o->artifact, &o->block->limits, &s->arena, error);
}

/* What the KV cache would need, with other limits. */
static long double kv_bytes(const rt_device_options *o, int64_t length, int64_t sequences) {
    const rt_tables *t = &o->artifact->tables;
    return (long double)rt_kv_bytes_for(t->kv_groups, t->n_kv_groups, length,
                                        o->kv_options->max_step) *
           (long double)sequences;
}

/* The largest of 0 … most whose KV cache fits in `room`: positions of `sequences` sequences, or
 * with sequences 0, sequences of full length. */
static int64_t largest(const rt_device_options *o, uint64_t room, int64_t most, int64_t sequences) {
    int64_t low = 0, high = most + 1;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        long double needed = sequences ? kv_bytes(o, middle, sequences)
                                       : kv_bytes(o, o->kv_options->max_len, middle);
        if (needed <= (long double)room)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void advise(const rt_device_options *o, const sizes *s, uint64_t unused, char *text,
                   size_t capacity) {
    uint64_t fixed = s->weights + s->arena + s->block + s->scratch;
    int64_t n = o->kv_options->slots, length = 0, sequences = 0;
    if (fixed < unused && o->kv_options->memory_bytes == 0) {
        length = largest(o, unused - fixed, o->kv_options->max_len, n);
        sequences = largest(o, unused - fixed, n, 0);
    }
    if (fixed >= unused)
        snprintf(text, capacity,
                 "no KV cache would fit beside the weights: use a smaller max_num_batched_tokens "
                 "(now %d), or a GPU with more memory",
                 o->block->limits.T);
    else if (o->kv_options->memory_bytes > 0)
        snprintf(text, capacity, "set kv_cache_memory_bytes to at most %" PRIu64, unused - fixed);
    else if (sequences > 0)
        snprintf(text, capacity,
                 "set max_model_len to at most %" PRId64 ", or max_num_seqs to at most %" PRId64,
                 length, sequences);
    else if (length > 0)
        snprintf(text, capacity, "set max_model_len to at most %" PRId64, length);
    else
        snprintf(text, capacity, "not even one page of the KV cache fits: use a GPU with more");
}

static bool too_little(const rt_device_options *o, const sizes *s, uint64_t unused,
                       const char *device, rt_error *error) {
    char advice[192];
    uint64_t fixed = total(s) - s->kv;
    /* Modules need memory, too, and so do other programs. */
    if (o->kv_fits && fixed < unused)
        *o->kv_fits = (unused - fixed) / 10 * 9;
    advise(o, s, unused, advice, sizeof advice);
    return rt_fail(error, MCC_OUT_OF_MEMORY,
                   "%s: %" PRIu64 " bytes of its memory needed (weights %" PRIu64
                   ", activations %" PRIu64 ", KV cache %" PRIu64 "), %" PRIu64 " are free: %s",
                   device, total(s), s->weights, s->arena + s->scratch, s->kv, unused, advice);
}

/* --- allocation ----------------------------------------------------------------------------------
 */

typedef struct allocation {
    rt_cuda_driver *driver;
    const rt_device_options *options;
    const sizes *sizes;
    const char *device;
    rt_error *error;
} allocation;

static bool allocate(const allocation *a, CUdeviceptr *address, uint64_t bytes) {
    CUresult result = RT_CUDA(a->driver, cuMemAlloc_v2, address, bytes > 0 ? bytes : 1);
    if (result == CUDA_SUCCESS)
        return true;
    *address = 0;
    size_t unused, all;
    /* It looked as if it fitted: another program was faster, or the free memory is in pieces. */
    if (result == CUDA_ERROR_OUT_OF_MEMORY &&
        RT_CUDA(a->driver, cuMemGetInfo_v2, &unused, &all) == CUDA_SUCCESS)
        return rt_fail(a->error, MCC_OUT_OF_MEMORY,
                       "%s: no %" PRIu64 " bytes in one piece, of %" PRIu64
                       " that the model needs; %zu are free now: set a smaller max_model_len or "
                       "max_num_seqs",
                       a->device, bytes, total(a->sizes), unused);
    return rt_cuda_ok(a->driver, result, "allocating memory", a->error);
}

bool rt_cuda_memory_alloc(rt_cuda_memory *m, rt_cuda_driver *driver,
                          const rt_device_options *options, const rt_cuda_code *code,
                          const char *device, CUstream stream, rt_error *error) {
    static unsigned char zeros[MCC_CUDA_COUNTER_BYTES]; /* const would take room in the library */
    sizes s;
    size_t unused, all;
    *m = (rt_cuda_memory){0};
    if (!find_sizes(options, code, &s, error) ||
        !rt_cuda_ok(driver, RT_CUDA(driver, cuMemGetInfo_v2, &unused, &all), "asking for memory",
                    error))
        return false;
    if (total(&s) > unused)
        return too_little(options, &s, unused, device, error);
    m->arena_bytes = s.arena;
    m->bytes = total(&s);
    m->n_pools = options->artifact->tables.n_kv_groups;
    m->pools = calloc((size_t)m->n_pools + 1, sizeof *m->pools);
    if (!m->pools)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a device");
    allocation a = {driver, options, &s, device, error};
    for (uint32_t i = 0; i < m->n_pools; i++)
        if (!allocate(&a, &m->pools[i], rt_kv_pool_bytes(options->kv, i)))
            return false;
    return allocate(&a, &m->weights, s.weights) && allocate(&a, &m->arena, s.arena) &&
           allocate(&a, &m->block, s.block) &&
           (s.scratch == 0 ||
            (allocate(&a, &m->scratch, s.scratch) &&
             rt_cuda_upload(driver, stream, m->scratch, zeros, sizeof zeros, error)));
}

void rt_cuda_memory_free(rt_cuda_memory *m, rt_cuda_driver *driver) {
    CUdeviceptr all[4] = {m->weights, m->arena, m->block, m->scratch};
    for (int i = 0; i < 4; i++)
        if (all[i])
            RT_CUDA(driver, cuMemFree_v2, all[i]);
    for (uint32_t i = 0; m->pools && i < m->n_pools; i++)
        if (m->pools[i])
            RT_CUDA(driver, cuMemFree_v2, m->pools[i]);
    free(m->pools);
    *m = (rt_cuda_memory){0};
}

/* --- uploading -----------------------------------------------------------------------------------
 */

enum { CHUNK = 4 << 20 };

/* Two chunks: one is filled while the other is on its way. */
typedef struct staging {
    void *chunks[2];
    CUevent sent[2];
} staging;

static bool make_staging(staging *s, rt_cuda_driver *d, rt_error *error) {
    *s = (staging){0};
    for (int i = 0; i < 2; i++) {
        if (!rt_cuda_ok(d, RT_CUDA(d, cuMemHostAlloc, &s->chunks[i], CHUNK, 0),
                        "pinning host memory", error)) {
            s->chunks[i] = NULL;
            return false;
        }
        if (!rt_cuda_ok(d, RT_CUDA(d, cuEventCreate, &s->sent[i], CU_EVENT_DISABLE_TIMING),
                        "making an event", error)) {
            s->sent[i] = NULL;
            return false;
        }
    }
    return true;
}

static void free_staging(staging *s, rt_cuda_driver *d) {
    for (int i = 0; i < 2; i++) {
        if (s->sent[i])
            RT_CUDA(d, cuEventDestroy_v2, s->sent[i]);
        if (s->chunks[i])
            RT_CUDA(d, cuMemFreeHost, s->chunks[i]);
    }
}

bool rt_cuda_upload(rt_cuda_driver *d, CUstream stream, CUdeviceptr to, const void *from,
                    uint64_t bytes, rt_error *error) {
    staging s;
    CUresult result = CUDA_SUCCESS;
    bool ok = make_staging(&s, d, error);
    for (uint64_t at = 0; ok && at < bytes; at += CHUNK) {
        int turn = (int)(at / CHUNK % 2);
        uint64_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        if (at >= 2 * (uint64_t)CHUNK)
            result = RT_CUDA(d, cuEventSynchronize, s.sent[turn]);
        if (result == CUDA_SUCCESS) {
            memcpy(s.chunks[turn], (const char *)from + at, n);
            result = RT_CUDA(d, cuMemcpyHtoDAsync_v2, to + at, s.chunks[turn], n, stream);
        }
        if (result == CUDA_SUCCESS)
            result = RT_CUDA(d, cuEventRecord, s.sent[turn], stream);
        ok = rt_cuda_ok(d, result, "uploading the weights", error);
    }
    /* In any case: the chunks must not be freed under a copy. */
    result = RT_CUDA(d, cuStreamSynchronize, stream);
    ok = ok && rt_cuda_ok(d, result, "uploading the weights", error);
    free_staging(&s, d);
    return ok;
}

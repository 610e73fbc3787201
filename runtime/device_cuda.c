/* A step on the GPU: the step block is written to pinned memory and uploaded, the launches are
 * submitted, the rows asked for are copied back, and the host waits once.
 *
 * All launch parameters are fixed when the device is made: addresses of the block on the device, of
 * its arrays, and of buffers, weights and KV layers. So the launches of a decode step (one token of
 * each of at most B sequences) are captured as a CUDA graph, one for each B = 1, 2, 4, …, when a
 * step first needs it; its grids are those of B sequences, and kernels leave the blocks alone that
 * lie beyond the step's T, which they read from the block. Other steps are plain launches.
 *
 * Token masks are written by the host while the GPU computes the logits, and uploaded behind them:
 * of such a step the launches from the one that samples on come after that, as plain launches, and
 * what is before them has graphs of its own.
 *
 * A kernel that faults takes its context with it: no call in it works any more. So after a failure
 * all that the device has is let go, the context too, and the next step makes it anew, weights
 * included; what the KV cache held is lost. */
#include "runtime/device_cuda.h"

#include "runtime/cuda_memory.h"
#include "runtime/cuda_module.h"
#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_BUCKETS = 32,
    MAX_GRID_X = INT32_MAX, /* of every architecture that there is code for */
    MAX_GRID_Y = 65535
};

/* The host's side of the step block; two of them, so that one can be written while the other is on
 * its way. */
typedef struct upload {
    void *block;
    CUevent sent;
    bool pending; /* sent may not have happened yet */
} upload;

typedef struct device_cuda {
    rt_device device;
    const mcc_artifact *artifact;
    const rt_kv *kv;
    const rt_step_block *block;
    bool null;
    rt_cuda_driver driver;
    CUdevice gpu;
    CUcontext context; /* the primary one; NULL: not retained */
    uint32_t arch;
    char name[RT_CUDA_NAME];
    rt_cuda_code code; /* of this architecture */
    rt_cuda_modules modules;
    rt_cuda_memory memory;
    CUstream stream;
    upload uploads[2];
    int turn;
    uint64_t *values; /* parameters of all launches: the step block's address, arguments, scratch */
    void **params; /* pointers to them, as cuLaunchKernel wants; launch i's from first_param[i] */
    uint32_t *first_param;    /* [n_launches] */
    uint32_t *first_function; /* [n_kernels + 1] into variants */
    uint32_t *variants;       /* functions, by kernel */
    /* Of all launches, and of those before the first that samples; and how many are in each. */
    CUgraphExec graphs[2][MAX_BUCKETS];
    uint64_t graph_launches_of[2][MAX_BUCKETS];
    uint32_t first_sampling; /* launch; n_launches: none does */
    uint64_t logits_offset;  /* in the arena */
    int64_t row_width;
    float *logits; /* pinned, room for logits_rows rows */
    int32_t logits_rows;
    uint64_t samples_offset; /* in the arena */
    mcc_step_sampled
        *sampled;   /* pinned, room for all rows; NULL: the artifact's steps do not sample */
    CUevent *marks; /* [n_launches + 1] before and after launches that are measured; else NULL */
    double *launch_seconds;
    rt_device_options options; /* that it was made with: it is made anew after a failure */
    rt_kv_options kv_options;
    bool failed;           /* nothing is there but the driver, until the next step */
    rt_error failure;      /* why */
    uint64_t calls_before; /* the call at work */
    uint64_t step_calls;   /* of the next step, for its page copies, or of the step at work */
    rt_device_stats stats;
} device_cuda;

/* Makes, in a new context, all that steps need; and lets it go. */
static bool attach(device_cuda *d, rt_error *error);
static void detach(device_cuda *d);

static bool ok(const device_cuda *d, CUresult result, const char *what, rt_error *error) {
    return rt_cuda_ok(&d->driver, result, what, error);
}

/* --- launches ------------------------------------------------------------------------------------
 */

/* The function of a kernel for a step, as artifact.h says. */
static uint32_t choose_variant(const device_cuda *d, uint32_t kernel, int64_t T, int64_t S,
                               int64_t R) {
    uint32_t begin = d->first_function[kernel], end = d->first_function[kernel + 1];
    for (uint32_t i = end; i-- > begin + 1;) {
        const mcc_cuda_function_entry *f = &d->code.functions[d->variants[i]];
        if (f->min_rows <= rt_dim(&f->x.dim, T, S, R))
            return d->variants[i];
    }
    return d->variants[begin];
}

/* Where launches are measured, notes the moment that the stream gets here. */
static CUresult mark(device_cuda *d, uint32_t i) {
    return d->marks ? RT_CUDA(&d->driver, cuEventRecord, d->marks[i], d->stream) : CUDA_SUCCESS;
}

static CUresult launch(device_cuda *d, uint32_t function, uint32_t at, int64_t T, int64_t S,
                       int64_t R, uint64_t *n) {
    const mcc_cuda_function_entry *f = &d->code.functions[function];
    int64_t x = rt_cuda_blocks(&f->x, T, S, R), y = rt_cuda_blocks(&f->y, T, S, R);
    if (x == 0 || y == 0)
        return CUDA_SUCCESS;
    CUresult result = RT_CUDA(&d->driver, cuLaunchKernel, d->modules.functions[function],
                              (unsigned)x, (unsigned)y, 1, f->threads, 1, 1, f->shared_bytes,
                              d->stream, d->params + d->first_param[at], NULL);
    *n += result == CUDA_SUCCESS;
    return result;
}

/* Submits launches first … end-1 of a step of this size; *n counts them. */
static CUresult submit(device_cuda *d, uint32_t first, uint32_t end, int64_t T, int64_t S,
                       int64_t R, uint64_t *n) {
    const rt_tables *t = &d->artifact->tables;
    CUresult result = first == 0 ? mark(d, 0) : CUDA_SUCCESS;
    for (uint32_t i = first; i < end && result == CUDA_SUCCESS; i++) {
        if (d->marks)
            d->launch_seconds[i] = 0;
        uint32_t v = choose_variant(d, t->launches[i].kernel, T, S, R);
        uint64_t before = *n;
        if (v > 0 && d->code.functions[v - 1].first_of_two)
            result = launch(d, v - 1, i, T, S, R, n);
        if (result == CUDA_SUCCESS)
            result = launch(d, v, i, T, S, R, n);
        if (result == CUDA_SUCCESS && *n > before)
            result = mark(d, i + 1);
        if (d->marks && *n > before)
            d->launch_seconds[i] = 1; /* it has run: see read_marks */
    }
    return result;
}

/* With the stream at rest: the time from one mark to the next is the launch's between. */
static bool read_marks(device_cuda *d, rt_error *error) {
    uint32_t before = 0;
    for (uint32_t i = 0; i < d->artifact->tables.n_launches; i++) {
        float ms = 0;
        if (d->launch_seconds[i] == 0)
            continue;
        if (!ok(d, RT_CUDA(&d->driver, cuEventElapsedTime, &ms, d->marks[before], d->marks[i + 1]),
                "measuring a launch", error))
            return false;
        d->launch_seconds[i] = (double)ms / 1000;
        before = i + 1;
    }
    return true;
}

/* --- graphs of decode steps ----------------------------------------------------------------------
 */

static int64_t most_decoding(const device_cuda *d) {
    const rt_step_limits *l = &d->block->limits;
    int64_t most = l->T < l->S ? l->T : l->S;
    return most < l->R ? most : l->R;
}

/* The bucket of a step, and how many sequences it is for; -1 for steps that are not decoding. */
static int find_bucket(const device_cuda *d, const mcc_step *step, int64_t *size) {
    int64_t most = most_decoding(d);
    if (step->T != step->S || step->T > most)
        return -1;
    int bucket = 0;
    while (INT64_C(1) << bucket < step->T)
        bucket++;
    *size = INT64_C(1) << bucket < most ? INT64_C(1) << bucket : most;
    return bucket;
}

static bool capture(device_cuda *d, bool masked, int bucket, int64_t size, rt_error *error) {
    rt_cuda_driver *driver = &d->driver;
    CUgraph graph = NULL;
    uint64_t n = 0;
    if (!ok(d,
            RT_CUDA(driver, cuStreamBeginCapture_v2, d->stream,
                    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
            "beginning to capture a graph", error))
        return false;
    uint32_t end = masked ? d->first_sampling : d->artifact->tables.n_launches;
    CUresult result = submit(d, 0, end, size, size, size, &n);
    bool good = ok(d, result, "capturing a graph", error);
    result = RT_CUDA(driver, cuStreamEndCapture, d->stream, &graph); /* also after a failure */
    good = good && ok(d, result, "capturing a graph", error);
    if (good) {
        CUgraphExec *made = &d->graphs[masked][bucket];
        result = RT_CUDA(driver, cuGraphInstantiateWithFlags, made, graph, 0);
        good = ok(d, result, "making a graph", error);
        if (!good)
            *made = NULL;
        d->graph_launches_of[masked][bucket] = n;
    }
    if (graph)
        RT_CUDA(driver, cuGraphDestroy, graph);
    return good;
}

/* --- steps ---------------------------------------------------------------------------------------
 */

/* The part of the block that a step uses, but for masks: page tables, one row a sequence, are
 * behind all else. */
static size_t used_bytes(const mcc_step *step) {
    return (size_t)step->page_tables +
           (size_t)step->G * (size_t)step->S * (size_t)step->P * sizeof(int32_t);
}

static bool send_block(device_cuda *d, rt_error *error) {
    const mcc_step *step = d->block->step;
    upload *u = &d->uploads[d->turn];
    d->turn ^= 1;
    if (u->pending &&
        !ok(d, RT_CUDA(&d->driver, cuEventSynchronize, u->sent), "waiting for a step block", error))
        return false;
    u->pending = false;
    size_t bytes = used_bytes(step);
    memcpy(u->block, step, bytes);
    if (!ok(d,
            RT_CUDA(&d->driver, cuMemcpyHtoDAsync_v2, d->memory.block, u->block, bytes, d->stream),
            "uploading a step block", error))
        return false;
    if (step->R > 0) /* the step waits for everything anyway */
        return true;
    u->pending = true;
    return ok(d, RT_CUDA(&d->driver, cuEventRecord, u->sent, d->stream), "recording an event",
              error);
}

static bool submit_range(device_cuda *d, uint32_t first, uint32_t end, rt_error *error) {
    const mcc_step *step = d->block->step;
    CUresult result = submit(d, first, end, step->T, step->S, step->R, &d->stats.last_launches);
    return ok(d, result, "launching a kernel", error);
}

/* All launches, or those before the first that samples. */
static bool submit_step(device_cuda *d, bool masked, rt_error *error) {
    int64_t size;
    int bucket = d->marks ? -1 : find_bucket(d, d->block->step, &size);
    if (bucket < 0)
        return submit_range(d, 0, masked ? d->first_sampling : d->artifact->tables.n_launches,
                            error);
    CUgraphExec *graph = &d->graphs[masked][bucket];
    if (!*graph && !capture(d, masked, bucket, size, error))
        return false;
    d->stats.last_launches += d->graph_launches_of[masked][bucket];
    d->stats.graph_launches++;
    return ok(d, RT_CUDA(&d->driver, cuGraphLaunch, *graph, d->stream), "launching a graph", error);
}

/* While the GPU works; in the stream behind that, and before what samples. */
static bool send_masks(device_cuda *d, rt_error *error) {
    const rt_step_block *b = d->block;
    b->write_masks(b->write_masks_context);
    uint32_t at = b->step->token_masks;
    size_t bytes = (size_t)b->step->R * (size_t)b->mask_words * sizeof *b->token_masks;
    char *from = (char *)d->uploads[d->turn ^ 1].block + at; /* of the upload before */
    memcpy(from, b->token_masks, bytes);
    return ok(
        d, RT_CUDA(&d->driver, cuMemcpyHtoDAsync_v2, d->memory.block + at, from, bytes, d->stream),
        "uploading token masks", error);
}

/* Room for the logits of so many rows, in pinned memory. Where steps sample, only the first step
 * that asks for logits needs it. */
static bool make_logits(device_cuda *d, int32_t rows, rt_error *error) {
    if (rows <= d->logits_rows)
        return true;
    if (d->logits)
        RT_CUDA(&d->driver, cuMemFreeHost, d->logits);
    d->logits = NULL;
    d->logits_rows = 0;
    void *memory;
    uint64_t bytes = (uint64_t)rows * (uint64_t)d->row_width * sizeof *d->logits;
    if (!ok(d, RT_CUDA(&d->driver, cuMemHostAlloc, &memory, bytes, 0),
            "pinning host memory for logits", error))
        return false;
    d->logits = memory;
    d->logits_rows = rows;
    return true;
}

static bool fetch(device_cuda *d, void *to, uint64_t offset, uint64_t bytes, const char *what,
                  rt_error *error) {
    d->stats.last_results_bytes += bytes;
    return ok(
        d,
        RT_CUDA(&d->driver, cuMemcpyDtoHAsync_v2, to, d->memory.arena + offset, bytes, d->stream),
        what, error);
}

/* Copies back what the block asks for, and waits. */
static bool fetch_results(device_cuda *d, rt_error *error) {
    const mcc_step *step = d->block->step;
    uint64_t R = (uint64_t)step->R;
    if (step->sampling && !fetch(d, d->sampled, d->samples_offset, R * sizeof *d->sampled,
                                 "copying sampled tokens", error))
        return false;
    if (d->block->logits &&
        !fetch(d, d->logits, d->logits_offset, R * (uint64_t)d->row_width * sizeof *d->logits,
               "copying logits", error))
        return false;
    return ok(d, RT_CUDA(&d->driver, cuStreamSynchronize, d->stream), "running a step", error);
}

/* What a step gives that runs nothing: logits of 0, of which the first token is chosen that a mask
 * allows. */
static bool run_null(device_cuda *d) {
    const rt_step_block *b = d->block;
    size_t R = (size_t)b->step->R, words = (size_t)b->mask_words;
    if (b->logits)
        memset(d->logits, 0, R * (size_t)d->row_width * sizeof *d->logits);
    if (b->step->sampling)
        memset(d->sampled, 0, R * sizeof *d->sampled);
    if (b->step->token_masks)
        b->write_masks(b->write_masks_context);
    for (size_t r = 0; b->step->token_masks && r < R; r++) {
        const uint32_t *mask = b->token_masks + r * words;
        size_t w = 0;
        while (w < words && !mask[w])
            w++;
        d->sampled[r].id = w < words ? (float)(32 * (int)w + __builtin_ctz(mask[w])) : -1;
    }
    return true;
}

static bool run_step(device_cuda *d, rt_error *error) {
    int32_t R = d->block->step->R;
    bool masked = d->block->step->token_masks != 0;
    if (d->null)
        return run_null(d);
    if (!send_block(d, error) || !submit_step(d, masked, error) ||
        (masked && (!send_masks(d, error) ||
                    !submit_range(d, d->first_sampling, d->artifact->tables.n_launches, error))) ||
        (R > 0 && !fetch_results(d, error)))
        return false;
    if (R > 0)
        d->uploads[0].pending = d->uploads[1].pending = false;
    if (!d->marks)
        return true;
    return ok(d, RT_CUDA(&d->driver, cuStreamSynchronize, d->stream), "running a step", error) &&
           read_marks(d, error);
}

/* A failed context takes no more work. It is let go at once, so that it is gone when all have done
 * so that share it, the process's primary context. */
static bool lose(device_cuda *d, const rt_error *failure, rt_error *error) {
    d->failed = true;
    d->failure = *failure;
    detach(d);
    return rt_fail(error, failure->code, "%s", failure->text);
}

/* Makes the context current, after a failure with all that was in it made anew; then end() follows.
 */
static bool begin(device_cuda *d, rt_error *error) {
    rt_error failure = {0};
    d->calls_before = d->driver.calls;
    if (d->failed && !attach(d, &failure))
        return rt_fail(error, failure.code, "%.230s (the GPU is set up again after: %.200s)",
                       failure.text, d->failure.text);
    d->failed = false;
    return ok(d, RT_CUDA(&d->driver, cuCtxPushCurrent_v2, d->context), "making the context current",
              &failure) ||
           lose(d, &failure, error);
}

static void end(device_cuda *d) {
    CUcontext ours;
    RT_CUDA(&d->driver, cuCtxPopCurrent_v2, &ours);
    d->step_calls += d->driver.calls - d->calls_before;
}

static bool run(rt_device *device, rt_error *error) {
    device_cuda *d = (device_cuda *)device;
    rt_error failure = {0};
    d->stats.last_launches = d->stats.last_results_bytes = 0;
    if (!begin(d, error))
        return false;
    bool room = !d->block->logits || make_logits(d, d->block->step->R, &failure);
    bool good = room && run_step(d, &failure);
    end(d);
    d->stats.launches += d->stats.last_launches;
    d->stats.results_bytes += d->stats.last_results_bytes;
    d->stats.driver_calls += d->step_calls;
    d->stats.last_driver_calls = d->step_calls;
    d->step_calls = 0;
    if (!room && failure.code == MCC_OUT_OF_MEMORY) /* the context is as it was */
        return rt_fail(error, failure.code, "%s", failure.text);
    return good || lose(d, &failure, error);
}

/* A layer's part of a page. */
static CUdeviceptr page_of(const device_cuda *d, uint32_t group, uint32_t layer, int32_t page) {
    return d->memory.pools[group] + rt_kv_layer_offset(d->kv, group, layer) +
           (uint64_t)page * d->artifact->tables.kv_groups[group].layer_bytes;
}

/* In the stream, behind the steps that wrote them. */
static bool copy_pages(rt_device *device, const rt_kv_copy *copies, int n, rt_error *error) {
    device_cuda *d = (device_cuda *)device;
    rt_error failure = {0};
    if (!begin(d, error))
        return false;
    bool good = true;
    for (int i = 0; i < n && good && !d->null; i++) {
        const rt_kv_copy *c = &copies[i];
        const mcc_kv_group_entry *g = &d->artifact->tables.kv_groups[c->group];
        for (uint32_t l = 0; l < (uint32_t)g->layers && good; l++) {
            good = ok(d,
                      RT_CUDA(&d->driver, cuMemcpyDtoDAsync_v2, page_of(d, c->group, l, c->to),
                              page_of(d, c->group, l, c->from), g->layer_bytes, d->stream),
                      "copying a page", &failure);
        }
    }
    end(d);
    return good || lose(d, &failure, error);
}

/* Between the host's memory and a page, to it where `from` is set; waits. */
static bool move_page(device_cuda *d, uint32_t group, int32_t page, void *to, const void *from,
                      rt_error *error) {
    const mcc_kv_group_entry *g = &d->artifact->tables.kv_groups[group];
    rt_error failure = {0};
    if (!begin(d, error))
        return false;
    bool good = true;
    for (uint32_t l = 0; l < (uint32_t)g->layers && good && !d->null; l++) {
        CUdeviceptr part = page_of(d, group, l, page);
        uint64_t at = l * g->layer_bytes;
        CUresult result = from ? RT_CUDA(&d->driver, cuMemcpyHtoDAsync_v2, part,
                                         (const uint8_t *)from + at, g->layer_bytes, d->stream)
                               : RT_CUDA(&d->driver, cuMemcpyDtoHAsync_v2, (uint8_t *)to + at, part,
                                         g->layer_bytes, d->stream);
        good = ok(d, result, "moving a page", &failure);
    }
    good = good &&
           ok(d, RT_CUDA(&d->driver, cuStreamSynchronize, d->stream), "moving a page", &failure);
    end(d);
    return good || lose(d, &failure, error);
}

static bool read_page(rt_device *device, uint32_t group, int32_t page, void *to, rt_error *error) {
    return move_page((device_cuda *)device, group, page, to, NULL, error);
}

static bool write_page(rt_device *device, uint32_t group, int32_t page, const void *from,
                       rt_error *error) {
    return move_page((device_cuda *)device, group, page, NULL, from, error);
}

static void let_go(rt_device *device) {
    device_cuda *d = (device_cuda *)device;
    if (d->failed)
        return;
    d->failed = true;
    d->failure = (rt_error){.text = "another model on the GPU failed"};
    detach(d);
}

static float *logits(rt_device *device) {
    return ((device_cuda *)device)->logits;
}

static const mcc_step_sampled *sampled(rt_device *device) {
    return ((device_cuda *)device)->sampled;
}

static void stats(const rt_device *device, rt_device_stats *stats) {
    const device_cuda *d = (const device_cuda *)device;
    *stats = d->stats;
    stats->arena_bytes = d->memory.arena_bytes;
    stats->device_bytes = d->memory.bytes;
}

/* --- making --------------------------------------------------------------------------------------
 */

static uint64_t resolve(const device_cuda *d, const mcc_arg_entry *arg) {
    const rt_tables *t = &d->artifact->tables;
    const rt_step_limits *l = &d->block->limits;
    switch (arg->kind) {
    case MCC_ARG_BUFFER:
        return d->memory.arena + (uint64_t)rt_dim(&t->buffers[arg->index].offset, l->T, l->S, l->R);
    case MCC_ARG_WEIGHT:
        return d->memory.weights + t->weights[arg->index].offset;
    case MCC_ARG_KV:
        return d->memory.pools[arg->index] + rt_kv_layer_offset(d->kv, arg->index, arg->layer);
    default: /* checked: MCC_ARG_STEP and one of its arrays, which keep their places */
        if (arg->index == MCC_STEP_TOKEN_IDS)
            return d->memory.block + d->block->step->token_ids;
        return d->memory.block + (arg->index == MCC_STEP_POSITIONS ? d->block->step->positions
                                                                   : d->block->step->output_rows);
    }
}

/* The first launch that has a buffer as an argument. */
static uint32_t first_with(const rt_tables *t, uint32_t buffer) {
    for (uint32_t i = 0; i < t->n_launches; i++)
        for (uint32_t k = 0; k < t->launches[i].n_args; k++) {
            const mcc_arg_entry *arg = &t->args[t->launches[i].first_arg + k];
            if (arg->kind == MCC_ARG_BUFFER && arg->index == buffer)
                return i;
        }
    return t->n_launches;
}

static bool make_params(device_cuda *d, rt_error *error) {
    const rt_tables *t = &d->artifact->tables;
    uint64_t count = 0;
    for (uint32_t i = 0; i < t->n_launches; i++)
        count += 2 + (uint64_t)t->launches[i].n_args;
    d->values = calloc(count + 1, sizeof *d->values);
    d->params = calloc(count + 1, sizeof *d->params);
    d->first_param = calloc((size_t)t->n_launches + 1, sizeof *d->first_param);
    if (count > UINT32_MAX || !d->values || !d->params || !d->first_param)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %" PRIu32 " launches",
                       t->n_launches);
    uint32_t at = 0;
    for (uint32_t i = 0; i < t->n_launches; i++) {
        const mcc_launch_entry *l = &t->launches[i];
        d->first_param[i] = at;
        d->values[at++] = d->memory.block;
        for (uint32_t k = 0; k < l->n_args; k++)
            d->values[at++] = resolve(d, &t->args[l->first_arg + k]);
        d->values[at++] = d->memory.scratch; /* for the variants that take it */
    }
    for (uint32_t i = 0; i < at; i++)
        d->params[i] = &d->values[i];
    for (uint32_t i = 0; i < t->n_outputs; i++) {
        const char *name = rt_string(t, t->outputs[i].name);
        uint64_t offset =
            resolve(d, &(mcc_arg_entry){.kind = MCC_ARG_BUFFER, .index = t->outputs[i].buffer}) -
            d->memory.arena;
        if (&t->outputs[i] == t->rows)
            d->logits_offset = offset;
        if (strcmp(name, "samples") == 0) {
            d->samples_offset = offset;
            d->device.samples = true;
            d->first_sampling = first_with(t, t->outputs[i].buffer);
        }
    }
    return true;
}

static bool make_results(device_cuda *d, rt_error *error) {
    const rt_step_limits *l = &d->block->limits;
    if (!d->device.samples) {
        bool all = d->artifact->tables.pooling == RT_POOL_MEAN;
        return make_logits(d, l->R < l->S || all ? l->R : l->S, error);
    }
    void *memory;
    if (!ok(d, RT_CUDA(&d->driver, cuMemHostAlloc, &memory, (size_t)l->R * sizeof *d->sampled, 0),
            "pinning host memory for sampled tokens", error))
        return false;
    d->sampled = memory;
    return true;
}

/* Sorts functions by kernel, keeping their order, and checks that no grid can be too large. */
static bool make_variants(device_cuda *d, rt_error *error) {
    const rt_cuda_code *code = &d->code;
    const rt_step_limits *l = &d->block->limits;
    uint32_t n = d->artifact->tables.n_kernels;
    d->first_function = calloc((size_t)n + 2, sizeof *d->first_function);
    d->variants = calloc((size_t)code->n_functions + 1, sizeof *d->variants);
    if (!d->first_function || !d->variants)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %" PRIu32 " kernels", n);
    uint32_t *next = d->first_function + 1; /* counts, then where the next function goes */
    for (uint32_t i = 0; i < code->n_functions; i++) {
        const mcc_cuda_function_entry *f = &code->functions[i];
        if (rt_cuda_blocks(&f->x, l->T, l->S, l->R) > MAX_GRID_X ||
            rt_cuda_blocks(&f->y, l->T, l->S, l->R) > MAX_GRID_Y)
            return rt_fail(error, MCC_CAPACITY,
                           "%s: steps of %d tokens and %d sequences are too large a grid: use a "
                           "smaller max_num_batched_tokens",
                           code->strings + f->name, l->T, l->S);
        next[f->kernel + 1]++;
    }
    for (uint32_t k = 0; k < n; k++)
        next[k + 1] += next[k];
    /* next[k] is where kernel k's functions begin; filling moves it to where they end, which is
     * first_function[k + 1]. */
    for (uint32_t i = 0; i < code->n_functions; i++)
        d->variants[next[code->functions[i].kernel]++] = i;
    return true;
}

static bool make_host(device_cuda *d, rt_error *error) {
    uint64_t bytes = rt_kv_all_host_bytes(d->kv);
    void *memory;
    if (bytes == 0)
        return true;
    if (!ok(d, RT_CUDA(&d->driver, cuMemHostAlloc, &memory, bytes, 0),
            "pinning swap_space_bytes of host memory", error))
        return false;
    d->device.host = memory;
    return true;
}

static bool make_uploads(device_cuda *d, rt_error *error) {
    for (int i = 0; i < 2; i++) {
        upload *u = &d->uploads[i];
        if (!ok(d, RT_CUDA(&d->driver, cuMemHostAlloc, &u->block, d->block->bytes, 0),
                "pinning host memory", error)) {
            u->block = NULL;
            return false;
        }
        if (!ok(d, RT_CUDA(&d->driver, cuEventCreate, &u->sent, CU_EVENT_DISABLE_TIMING),
                "making an event", error)) {
            u->sent = NULL;
            return false;
        }
    }
    return true;
}

static bool make_marks(device_cuda *d, rt_error *error) {
    uint32_t n = d->artifact->tables.n_launches + 1;
    if (!d->launch_seconds)
        return true;
    CUevent *marks = calloc(n, sizeof *marks);
    if (!marks)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %" PRIu32 " events", n);
    d->marks = marks;
    for (uint32_t i = 0; i < n; i++)
        if (!ok(d, RT_CUDA(&d->driver, cuEventCreate, &marks[i], CU_EVENT_DEFAULT),
                "making an event", error)) {
            marks[i] = NULL;
            return false;
        }
    return true;
}

/* With the context current. */
static bool fill(device_cuda *d, const rt_device_options *o, rt_error *error) {
    if (!ok(d, RT_CUDA(&d->driver, cuStreamCreate, &d->stream, CU_STREAM_NON_BLOCKING),
            "making a stream", error)) {
        d->stream = NULL;
        return false;
    }
    const rt_part *weights = &d->artifact->parts[MCC_SECTION_WEIGHTS];
    uint32_t forms = rt_cuda_forms(&d->driver);
    if (!rt_cuda_select(&d->artifact->cuda, d->arch, forms, &d->code))
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for the table of GPU functions");
    return rt_cuda_memory_alloc(&d->memory, &d->driver, o, &d->code, d->name, d->stream, error) &&
           rt_cuda_modules_load(&d->modules, &d->driver, &d->code, d->arch, d->artifact->path,
                                d->name, error) &&
           make_params(d, error) && make_variants(d, error) && make_uploads(d, error) &&
           make_host(d, error) && make_marks(d, error) && make_results(d, error) &&
           rt_cuda_upload(&d->driver, d->stream, d->memory.weights, weights->data, weights->bytes,
                          error);
}

/* Errors have been reported, or come too late to matter. A context that could not be made current,
 * after a failure, has nothing left to wait for; what is not freed goes with it. */
static void empty(device_cuda *d, bool current) {
    rt_cuda_driver *driver = &d->driver;
    if (d->stream && current)
        RT_CUDA(driver, cuStreamSynchronize, d->stream);
    for (int i = 0; i < 2 * MAX_BUCKETS; i++)
        if (d->graphs[i / MAX_BUCKETS][i % MAX_BUCKETS])
            RT_CUDA(driver, cuGraphExecDestroy, d->graphs[i / MAX_BUCKETS][i % MAX_BUCKETS]);
    for (int i = 0; i < 2; i++) {
        if (d->uploads[i].sent)
            RT_CUDA(driver, cuEventDestroy_v2, d->uploads[i].sent);
        if (d->uploads[i].block)
            RT_CUDA(driver, cuMemFreeHost, d->uploads[i].block);
    }
    for (uint32_t i = 0; d->marks && i <= d->artifact->tables.n_launches; i++)
        if (d->marks[i])
            RT_CUDA(driver, cuEventDestroy_v2, d->marks[i]);
    if (d->logits)
        RT_CUDA(driver, cuMemFreeHost, d->logits);
    if (d->sampled)
        RT_CUDA(driver, cuMemFreeHost, d->sampled);
    if (d->device.host)
        RT_CUDA(driver, cuMemFreeHost, d->device.host);
    if (d->stream)
        RT_CUDA(driver, cuStreamDestroy_v2, d->stream);
    rt_cuda_memory_free(&d->memory, driver);
    rt_cuda_modules_unload(&d->modules, driver);
}

static void detach(device_cuda *d) {
    if (d->context) {
        CUcontext ours;
        bool current = RT_CUDA(&d->driver, cuCtxPushCurrent_v2, d->context) == CUDA_SUCCESS;
        empty(d, current);
        if (current)
            RT_CUDA(&d->driver, cuCtxPopCurrent_v2, &ours);
        RT_CUDA(&d->driver, cuDevicePrimaryCtxRelease_v2, d->gpu);
    }
    d->context = NULL;
    d->stream = NULL;
    memset(d->graphs, 0, sizeof d->graphs);
    memset(d->uploads, 0, sizeof d->uploads);
    d->logits = NULL;
    d->logits_rows = 0;
    d->sampled = NULL;
    d->device.host = NULL;
    rt_cuda_select_free(&d->code);
    void *owned[] = {d->marks,       d->values,         d->params,
                     d->first_param, d->first_function, d->variants};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    d->marks = NULL;
    d->values = NULL;
    d->params = NULL;
    d->first_param = d->first_function = d->variants = NULL;
}

static bool attach(device_cuda *d, rt_error *error) {
    rt_cuda_driver *driver = &d->driver;
    if (!ok(d, RT_CUDA(driver, cuDevicePrimaryCtxRetain, &d->context, d->gpu), "making a context",
            error)) {
        d->context = NULL;
        return false;
    }
    CUcontext ours;
    bool current = ok(d, RT_CUDA(driver, cuCtxPushCurrent_v2, d->context),
                      "making the context current", error);
    bool good = current && fill(d, &d->options, error);
    if (current)
        RT_CUDA(driver, cuCtxPopCurrent_v2, &ours);
    if (!good)
        detach(d);
    return good;
}

static void destroy(rt_device *device) {
    device_cuda *d = (device_cuda *)device;
    detach(d);
    rt_cuda_close(&d->driver);
    free(d);
}

rt_device *rt_device_cuda_create(bool emulator, int ordinal, const rt_device_options *options,
                                 rt_error *error) {
    static const rt_device_ops ops = {.run = run,
                                      .copy_pages = copy_pages,
                                      .read_page = read_page,
                                      .write_page = write_page,
                                      .let_go = let_go,
                                      .logits = logits,
                                      .sampled = sampled,
                                      .stats = stats,
                                      .destroy = destroy};
    device_cuda *d = calloc(1, sizeof *d);
    if (!d) {
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a device");
        return NULL;
    }
    d->device.ops = &ops;
    d->options = *options;
    d->kv_options = *options->kv_options;
    d->options.kv_options = &d->kv_options;
    d->artifact = options->artifact;
    d->kv = options->kv;
    d->block = options->block;
    d->null = options->null;
    d->launch_seconds = options->launch_seconds;
    d->row_width = options->artifact->tables.rows->width;
    if (!rt_cuda_open(&d->driver, emulator, error) ||
        !rt_cuda_find(&d->driver, ordinal, &d->gpu, &d->arch, d->name, error) ||
        !attach(d, error)) {
        destroy(&d->device);
        return NULL;
    }
    d->options.kv_fits = NULL;
    return &d->device;
}

#include "compiler/verify.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- the emulator --------------------------------------------------------------------------------
 */

static bool find(verify_emulator *e, const char *name, void *member, ir_diag *diag) {
    void *symbol = dlsym(e->driver.handle, name);
    memcpy(member, &symbol, sizeof symbol);
    return symbol || ir_error(diag, e->driver.path,
                              "it has no %s: it is no emulator of this "
                              "version of modelcc",
                              name);
}

bool verify_emulator_open(verify_emulator *e, ir_diag *diag) {
    rt_error error = {0};
    *e = (verify_emulator){.options = {.struct_size = sizeof e->options}};
    if (!rt_cuda_open(&e->driver, true, &error))
        return ir_error(diag, NULL, "%s", error.text);
    return find(e, "modelcc_emulator_get_options", &e->get_options, diag) &&
           find(e, "modelcc_emulator_set_options", &e->set_options, diag) &&
           find(e, "modelcc_emulator_gpu_row", &e->gpu_row, diag) &&
           find(e, "modelcc_emulator_kernels", &e->kernels, diag) &&
           find(e, "modelcc_emulator_reset_counters", &e->reset_counters, diag) &&
           (e->get_options(&e->options) ||
            ir_error(diag, e->driver.path, "its options have another form than this program's"));
}

void verify_emulator_close(verify_emulator *e) {
    rt_cuda_close(&e->driver);
}

bool verify_emulator_set(verify_emulator *e, ir_diag *diag) {
    char words[256] = "";
    if (e->set_options(&e->options))
        return true;
    e->driver.last_error(words, sizeof words);
    return ir_error(diag, NULL, "GPU emulator: %s", words);
}

const modelcc_emulator_gpu *verify_emulator_find(const verify_emulator *e, uint32_t arch) {
    const modelcc_emulator_gpu *row;
    for (int i = 0; (row = e->gpu_row(i)); i++)
        if ((uint32_t)(row->major * 10 + row->minor) == arch)
            return row;
    return NULL;
}

const modelcc_emulator_gpu *verify_emulator_named(const verify_emulator *e, const char *name) {
    const modelcc_emulator_gpu *row;
    for (int i = 0; (row = e->gpu_row(i)); i++)
        if (strcmp(row->name, name) == 0)
            return row;
    return NULL;
}

/* --- making --------------------------------------------------------------------------------------
 */

#define CALL(gpu, function, ...) RT_CUDA(&(gpu)->emulator->driver, function, __VA_ARGS__)

static bool ok(const verify_gpu *g, CUresult result, const char *what, ir_diag *diag) {
    rt_error error = {0};
    return rt_cuda_ok(&g->emulator->driver, result, what, &error) ||
           ir_error(diag, g->row->title, "%s", error.text);
}

static bool allocate(verify_gpu *g, CUdeviceptr *address, uint64_t bytes, ir_diag *diag) {
    return ok(g, CALL(g, cuMemAlloc_v2, address, bytes ? bytes : 1), "allocating memory", diag);
}

static bool upload(verify_gpu *g, CUdeviceptr to, const void *from, uint64_t bytes, ir_diag *diag) {
    return bytes == 0 ||
           (ok(g, CALL(g, cuMemcpyHtoDAsync_v2, to, from, bytes, g->stream), "a copy", diag) &&
            ok(g, CALL(g, cuStreamSynchronize, g->stream), "a copy", diag));
}

static uint64_t largest(const verify_gpu *g, const mcc_dim *dim) {
    return (uint64_t)rt_dim(dim, g->steps->max_T, g->steps->max_S, g->steps->max_R);
}

static uint64_t pages_of(const verify_gpu *g) {
    return (uint64_t)g->steps->pages * (uint64_t)g->steps->slots;
}

uint64_t verify_gpu_layer_bytes(const verify_gpu *g, uint32_t group) {
    return g->model->artifact->tables.kv_groups[group].layer_bytes * pages_of(g);
}

static bool allocate_all(verify_gpu *g, ir_diag *diag) {
    const mcc_artifact *a = g->model->artifact;
    const rt_part *weights = &a->parts[MCC_SECTION_WEIGHTS];
    uint64_t scratch = rt_cuda_scratch_bytes(&g->code, (int64_t)g->steps->pages * 256,
                                             g->steps->max_T, g->steps->max_S, g->steps->max_R);
    static const char zeros[MCC_CUDA_COUNTER_BYTES];
    g->arena_bytes = largest(g, &a->tables.header->arena_bytes);
    for (uint32_t i = 0; i < a->tables.n_kv_groups; i++) {
        g->pool_bytes[i] = verify_gpu_layer_bytes(g, i) * (uint64_t)a->tables.kv_groups[i].layers;
        bool first = !g->pool_copies[i];
        if (first && !(g->pool_copies[i] = malloc(g->pool_bytes[i])))
            return ir_error(diag, NULL, "out of memory for a copy of the cache");
        if (first) /* NaNs: what is not stored may be read, but must not matter */
            memset(g->pool_copies[i], 0xff, g->pool_bytes[i]);
        if (!allocate(g, &g->pools[i], g->pool_bytes[i], diag) ||
            !upload(g, g->pools[i], g->pool_copies[i], g->pool_bytes[i], diag))
            return false;
    }
    return allocate(g, &g->weights, weights->bytes, diag) &&
           upload(g, g->weights, weights->data, weights->bytes, diag) &&
           allocate(g, &g->block, g->steps->steps[0].block->bytes, diag) &&
           (!scratch || (allocate(g, &g->scratch, scratch, diag) &&
                         upload(g, g->scratch, zeros, sizeof zeros, diag)));
}

static bool open_device(verify_gpu *g, ir_diag *diag) {
    rt_error error = {0};
    const mcc_artifact *a = g->model->artifact;
    uint32_t arch = (uint32_t)(g->row->major * 10 + g->row->minor);
    if (!ok(g, CALL(g, cuDeviceGet, &g->device, g->ordinal), "finding the device", diag) ||
        !ok(g, CALL(g, cuDevicePrimaryCtxRetain, &g->context, g->device), "a context", diag))
        return false;
    if (!ok(g, CALL(g, cuCtxPushCurrent_v2, g->context), "a context", diag))
        return false;
    bool good =
        ok(g, CALL(g, cuStreamCreate, &g->stream, CU_STREAM_NON_BLOCKING), "a stream", diag) &&
        (rt_cuda_modules_load(&g->modules, &g->emulator->driver, &g->code, arch, a->path,
                              g->row->title, &error) ||
         ir_error(diag, NULL, "%s", error.text)) &&
        allocate_all(g, diag);
    CUcontext ours;
    CALL(g, cuCtxPopCurrent_v2, &ours);
    return good;
}

/* All that the context holds goes with it. */
static void close_device(verify_gpu *g) {
    free(g->modules.modules);
    free(g->modules.functions);
    g->modules = (rt_cuda_modules){0};
    if (g->context)
        CALL(g, cuDevicePrimaryCtxRelease_v2, g->device);
    g->context = NULL;
    g->arena = g->scratch = 0;
}

bool verify_gpu_open(verify_gpu *g, verify_emulator *emulator, const verify_model *model,
                     const verify_steps *steps, const modelcc_emulator_gpu *row, int ordinal,
                     ir_diag *diag) {
    *g = (verify_gpu){
        .emulator = emulator, .model = model, .steps = steps, .row = row, .ordinal = ordinal};
    if (model->artifact->tables.n_kv_groups > sizeof g->pools / sizeof *g->pools)
        return ir_error(diag, NULL, "more than %zu KV groups", sizeof g->pools / sizeof *g->pools);
    uint32_t arch = (uint32_t)(row->major * 10 + row->minor);
    return (rt_cuda_select(&model->artifact->cuda, arch, rt_cuda_forms(&emulator->driver),
                           &g->code) ||
            ir_error(diag, NULL, "out of memory for the table of GPU functions")) &&
           open_device(g, diag);
}

void verify_gpu_close(verify_gpu *g) {
    if (g->emulator)
        close_device(g);
    for (size_t i = 0; i < sizeof g->pool_copies / sizeof *g->pool_copies; i++)
        free(g->pool_copies[i]);
    rt_cuda_select_free(&g->code);
    *g = (verify_gpu){0};
}

bool verify_gpu_reopen(verify_gpu *g, ir_diag *diag) {
    close_device(g);
    return open_device(g, diag);
}

/* --- steps ---------------------------------------------------------------------------------------
 */

/* Runs `body` with the context current. */
#define WITH_CONTEXT(g, diag, body)                                                                \
    do {                                                                                           \
        CUcontext ours_;                                                                           \
        if (!ok(g, CALL(g, cuCtxPushCurrent_v2, (g)->context), "a context", diag))                 \
            return false;                                                                          \
        bool good_ = (body);                                                                       \
        CALL(g, cuCtxPopCurrent_v2, &ours_);                                                       \
        return good_;                                                                              \
    } while (0)

/* A new arena: what an earlier step left is not there to be read. */
static bool begin(verify_gpu *g, const verify_step *step, ir_diag *diag) {
    if (g->arena && !ok(g, CALL(g, cuMemFree_v2, g->arena), "freeing memory", diag))
        return false;
    g->arena = 0;
    return allocate(g, &g->arena, g->arena_bytes, diag) &&
           upload(g, g->block, step->block, step->block->bytes, diag);
}

bool verify_gpu_begin(verify_gpu *g, const verify_step *step, ir_diag *diag) {
    WITH_CONTEXT(g, diag, begin(g, step, diag));
}

uint32_t verify_gpu_choose(const verify_gpu *g, uint32_t kernel, const ir_interp_step *step) {
    const rt_cuda_code *code = &g->code;
    uint32_t chosen = UINT32_MAX;
    for (uint32_t i = 0; i < code->n_functions; i++) {
        const mcc_cuda_function_entry *f = &code->functions[i];
        if (f->kernel == kernel &&
            (chosen == UINT32_MAX || f->min_rows <= rt_dim(&f->x.dim, step->T, step->S, step->R)))
            chosen = i;
    }
    return chosen;
}

static CUdeviceptr address_of(const verify_gpu *g, const mcc_arg_entry *arg,
                              const verify_step *step) {
    const rt_tables *t = &g->model->artifact->tables;
    const ir_interp_step *s = &step->interp;
    switch (arg->kind) {
    case MCC_ARG_BUFFER:
        return g->arena + (uint64_t)rt_dim(&t->buffers[arg->index].offset, s->T, s->S, s->R);
    case MCC_ARG_WEIGHT:
        return g->weights + t->weights[arg->index].offset;
    case MCC_ARG_KV:
        return g->pools[arg->index] + arg->layer * verify_gpu_layer_bytes(g, arg->index);
    default:
        return g->block + (arg->index == MCC_STEP_TOKEN_IDS   ? step->block->token_ids
                           : arg->index == MCC_STEP_POSITIONS ? step->block->positions
                                                              : step->block->output_rows);
    }
}

static bool run(verify_gpu *g, uint32_t launch, uint32_t function, const verify_step *step,
                ir_diag *diag) {
    const mcc_artifact *a = g->model->artifact;
    const mcc_launch_entry *l = &a->tables.launches[launch];
    const mcc_cuda_function_entry *f = &g->code.functions[function];
    const ir_interp_step *s = &step->interp;
    CUdeviceptr values[RT_CUDA_MAX_PARAMS + 2];
    void *params[RT_CUDA_MAX_PARAMS + 2];
    uint32_t n = 0;
    values[n++] = g->block;
    for (uint32_t i = 0; i < l->n_args; i++)
        values[n++] = address_of(g, &a->tables.args[l->first_arg + i], step);
    values[n++] = g->scratch; /* for functions that take it */
    for (uint32_t i = 0; i < n; i++)
        params[i] = &values[i];
    int64_t x = rt_cuda_blocks(&f->x, s->T, s->S, s->R),
            y = rt_cuda_blocks(&f->y, s->T, s->S, s->R);
    const char *name = g->code.strings + f->name;
    if (x == 0 || y == 0)
        return true;
    return ok(g,
              CALL(g, cuLaunchKernel, g->modules.functions[function], (unsigned)x, (unsigned)y, 1,
                   f->threads, 1, 1, f->shared_bytes, g->stream, params, NULL),
              name, diag) &&
           ok(g, CALL(g, cuStreamSynchronize, g->stream), name, diag);
}

/* A variant may be two functions, of which `function` is the second. */
static bool run_variant(verify_gpu *g, uint32_t launch, uint32_t function, const verify_step *step,
                        ir_diag *diag) {
    bool two = function > 0 && g->code.functions[function - 1].first_of_two;
    return (!two || run(g, launch, function - 1, step, diag)) &&
           run(g, launch, function, step, diag);
}

static bool run_in_context(verify_gpu *g, uint32_t launch, uint32_t function,
                           const verify_step *step, ir_diag *diag) {
    WITH_CONTEXT(g, diag, run_variant(g, launch, function, step, diag));
}

bool verify_gpu_launch(verify_gpu *g, uint32_t launch, uint32_t function, const verify_step *step,
                       char *error, size_t error_bytes) {
    ir_diag diag = {0};
    bool good = run_in_context(g, launch, function, step, &diag);
    if (!good) {
        error[0] = 0;
        g->emulator->driver.last_error(error, error_bytes);
        if (!error[0] && diag.count)
            snprintf(error, error_bytes, "%s", diag.messages[0].text);
    }
    ir_diag_clear(&diag);
    return good;
}

bool verify_gpu_read(verify_gpu *g, const mcc_arg_entry *arg, const verify_step *step, void *to,
                     uint64_t bytes, ir_diag *diag) {
    WITH_CONTEXT(
        g, diag,
        bytes == 0 ||
            ok(g, CALL(g, cuMemcpyDtoHAsync_v2, to, address_of(g, arg, step), bytes, g->stream),
               "reading a result", diag));
}

bool verify_gpu_write(verify_gpu *g, const mcc_arg_entry *arg, const verify_step *step,
                      const void *from, uint64_t bytes, ir_diag *diag) {
    WITH_CONTEXT(g, diag, upload(g, address_of(g, arg, step), from, bytes, diag));
}

static bool keep_pools(verify_gpu *g, ir_diag *diag) {
    for (uint32_t i = 0; i < g->model->artifact->tables.n_kv_groups; i++)
        if (g->pool_bytes[i] > 0 && !ok(g,
                                        CALL(g, cuMemcpyDtoHAsync_v2, g->pool_copies[i],
                                             g->pools[i], g->pool_bytes[i], g->stream),
                                        "reading the cache", diag))
            return false;
    return true;
}

bool verify_gpu_keep_pools(verify_gpu *g, ir_diag *diag) {
    WITH_CONTEXT(g, diag, keep_pools(g, diag));
}

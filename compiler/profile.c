#include "compiler/profile.h"

#include "codegen/cuda/cuda.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the step ------------------------------------------------------------------------------------
 */

/* Tokens of each sequence in the step, and before it. */
static int32_t tokens_of(const profile_options *o) {
    return o->prefill ? o->context : 1 + o->drafts;
}

static int32_t held_before(const profile_options *o) {
    return o->prefill ? 0 : o->context;
}

static bool check_context(const profile_options *o, const mcc_artifact *a, ir_diag *diag) {
    int64_t most = a->tables.header->max_model_len;
    int64_t held = (int64_t)held_before(o) + tokens_of(o);
    return held <= most ||
           ir_error(diag, o->path,
                    "--context %d: the model has %" PRId64 " positions, the step ends at %" PRId64,
                    o->context, most, held);
}

/* --- the device ----------------------------------------------------------------------------------
 */

/* Whether the emulated GPU, of architecture `arch`, finds PTX. */
static bool has_code(const mcc_artifact *a, uint32_t arch) {
    for (uint32_t i = 0; i < a->cuda.n_images; i++)
        if (a->cuda.images[i].form == MCC_CUDA_PTX && rt_cuda_image_runs(&a->cuda.images[i], arch))
            return true; /* then it has all of them: rt_cuda_check */
    return false;
}

static bool choose_gpu(const profile_options *o, profile_report *r, verify_emulator *e,
                       ir_diag *diag) {
    const mcc_artifact *a = r->model.artifact;
    const modelcc_emulator_gpu *row;
    char known[256] = "", has[96];
    for (int i = 0; (row = e->gpu_row(i)); i++) {
        bool runs = has_code(a, (uint32_t)(row->major * 10 + row->minor));
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                 row->name);
        if (o->gpu ? strcmp(o->gpu, row->name) == 0 : runs) {
            if (!runs)
                return ir_error(diag, a->path, "it has no PTX for %s (sm_%d%d), only for %s",
                                row->title, row->major, row->minor,
                                rt_cuda_architectures(&a->cuda, MCC_CUDA_PTX, has, sizeof has));
            r->gpu = row;
            return true;
        }
    }
    return o->gpu
               ? ir_error(diag, NULL, "no data sheet of a GPU \"%s\": there are %s", o->gpu, known)
               : ir_error(diag, a->path, "it has no PTX for any GPU of %s", known);
}

/* --- what ptxas said -----------------------------------------------------------------------------
 */

static void find_registers(const profile_report *r, profile_kernel *k, uint32_t estimate) {
    const mcc_cuda_function_entry *f = &r->code.functions[k->function];
    uint32_t arch = (uint32_t)(r->gpu->major * 10 + r->gpu->minor);
    char name[32];
    snprintf(name, sizeof name, "cuda:sm_%" PRIu32, arch);
    k->threads = f->threads;
    k->shared_bytes = f->shared_bytes;
    for (uint32_t i = 0; i < r->code.n_images; i++) {
        const mcc_cuda_image_entry *m = &r->code.images[i];
        if (m->function != k->function || m->arch != arch || m->registers == 0)
            continue;
        k->registers = m->registers;
        k->spill_bytes = m->spill_bytes;
        k->shared_bytes = f->shared_bytes + m->static_shared_bytes;
        k->resident = m->occupancy_blocks;
        k->registers_known = true;
    }
    if (k->registers_known)
        return;
    /* Code of an older architecture, which the driver compiles: the interpreter's estimate. */
    int n;
    const cg_cuda_target *all = cg_cuda_targets(&n);
    k->registers = estimate > 255 ? 255 : estimate < 32 ? 32 : estimate;
    for (int i = 0; i < n; i++)
        if (all[i].arch == arch)
            k->resident = cg_cuda_occupancy(&all[i], k->threads, k->registers, k->shared_bytes);
}

/* --- one launch ----------------------------------------------------------------------------------
 */

static bool multiplies_int8(const cg_kernel *k) {
    return k->anchor == CG_ANCHOR_MATMUL && k->matmul.x_type.encoding;
}

/* Adds what one function did, with its time. */
static void add_function(profile_report *r, profile_kernel *k,
                         const modelcc_emulator_kernel *counted, bool graph) {
    profile_kernel f = {.function = k->function};
    find_registers(r, &f, counted->registers);
    profile_input in = {.counters = &counted->counters,
                        .blocks = (uint64_t)counted->grid[0] * counted->grid[1],
                        .threads = counted->block[0],
                        .resident = f.resident,
                        .int8 = multiplies_int8(r->model.program->kernels[k->kernel]),
                        .graph = graph};
    profile_prediction p = profile_predict(r->gpu, &in);
    uint64_t *to = (uint64_t *)&k->one;
    const uint64_t *from = (const uint64_t *)&counted->counters;
    for (size_t i = 0; i < sizeof k->one / sizeof *to; i++)
        to[i] += from[i];
    double seconds = k->predicted.seconds;
    if (p.seconds > seconds) /* of two, the longer one is what is shown */
        k->predicted = p;
    k->predicted.seconds = seconds + p.seconds;
    k->blocks += (int64_t)in.blocks;
    k->n_functions++;
}

static bool count_launch(verify_gpu *gpu, const profile_options *o, profile_report *r, int launch,
                         profile_kernel *k, ir_diag *diag) {
    modelcc_emulator_kernel counted[2] = {{.struct_size = sizeof *counted},
                                          {.struct_size = sizeof *counted}};
    char error[1024];
    gpu->emulator->reset_counters();
    if (!verify_gpu_launch(gpu, (uint32_t)launch, k->function, &gpu->steps->steps[0], error,
                           sizeof error))
        return ir_error(diag, ir_op_label(r->model.program->launches[launch].op), "%s", error);
    size_t n = gpu->emulator->kernels(counted, 2);
    for (size_t i = 0; i < n && i < 2; i++)
        add_function(r, k, &counted[i], !o->prefill && o->drafts == 0);
    find_registers(r, k, n > 0 ? counted[n - 1].registers : 0);
    return true;
}

/* Launches of one kernel do the same: the first is counted for all. */
static bool count_launches(verify_gpu *gpu, const profile_options *o, profile_report *r,
                           ir_diag *diag) {
    const cg_program_list *p = r->model.program;
    const verify_step *step = &gpu->steps->steps[0];
    r->kernels = ir_arena_array(r->arena, (size_t)p->n_kernels, sizeof *r->kernels);
    int *index = ir_arena_array(r->arena, (size_t)p->n_kernels, sizeof *index);
    for (int i = 0; i < p->n_launches; i++) {
        int kernel = p->launches[i].kernel;
        if (o->cancelled && atomic_load(o->cancelled))
            return ir_error(diag, NULL, "interrupted");
        if (!index[kernel]) {
            profile_kernel *k = &r->kernels[r->n_kernels];
            index[kernel] = ++r->n_kernels;
            *k = (profile_kernel){.kernel = kernel, .predicted = {.bound = "nothing"}};
            k->function = verify_gpu_choose(gpu, (uint32_t)kernel, &step->interp);
            if (!count_launch(gpu, o, r, i, k, diag))
                return false;
        }
        profile_kernel *k = &r->kernels[index[kernel] - 1];
        k->launches++;
        r->launches += k->n_functions;
        r->step_seconds += k->predicted.seconds;
        r->dram_bytes += 32 * (k->one.dram_read_sectors + k->one.dram_write_sectors);
    }
    return true;
}

/* Bytes that the step must read at least: the weights of its matmuls, and the cached positions that
 * its tokens see. */
static uint64_t find_least(const profile_report *r, const verify_step *step) {
    const rt_tables *t = &r->model.artifact->tables;
    const cg_program_list *p = r->model.program;
    uint64_t bytes = 0;
    for (int i = 0; i < p->n_launches; i++) {
        const cg_kernel *k = p->kernels[p->launches[i].kernel];
        if (k->anchor == CG_ANCHOR_MATMUL)
            bytes += t->weights[t->args[p->launches[i].first_arg + k->matmul.w].index].bytes;
    }
    for (uint32_t g = 0; g < t->n_kv_groups; g++) {
        const mcc_kv_group_entry *e = &t->kv_groups[g];
        uint64_t position = e->layer_bytes / (uint64_t)e->page_tokens * (uint64_t)e->layers;
        for (int32_t s = 0; s < step->interp.S; s++) {
            int64_t first = step->interp.positions[step->interp.seq_offsets[s]],
                    held = step->interp.positions[step->interp.seq_offsets[s + 1] - 1] + 1;
            int64_t most = e->window ? e->window + held - first - 1 : held;
            int64_t seen = held < most ? held : most;
            bytes += position * (uint64_t)seen;
        }
    }
    return bytes;
}

static bool count(const profile_options *o, profile_report *r, verify_emulator *e, verify_gpu *gpu,
                  verify_steps *steps, ir_diag *diag) {
    if (!verify_model_open_graph(&r->model, o->path, diag) || !verify_emulator_open(e, diag) ||
        !choose_gpu(o, r, e, diag))
        return false;
    if (!rt_cuda_select(&r->model.artifact->cuda, (uint32_t)(r->gpu->major * 10 + r->gpu->minor),
                        rt_cuda_forms(&e->driver), &r->code))
        return ir_error(diag, NULL, "out of memory for the table of GPU functions");
    if (!check_context(o, r->model.artifact, diag))
        return false;
    verify_steps_make_one(steps, &r->model, o->batch, tokens_of(o), held_before(o), !o->prefill,
                          r->arena);
    snprintf(e->options.gpu, sizeof e->options.gpu, "%s", r->gpu->name);
    e->options.checks = 0;
    e->options.count = 1;
    if (o->threads > 0)
        e->options.threads = o->threads;
    r->tokens = steps->max_T;
    r->sequences = steps->max_S;
    r->weight_kv_bytes = find_least(r, &steps->steps[0]);
    return verify_emulator_set(e, diag) &&
           verify_gpu_open(gpu, e, &r->model, steps, r->gpu, 0, diag) &&
           verify_gpu_begin(gpu, &steps->steps[0], diag) && count_launches(gpu, o, r, diag);
}

bool profile_count(const profile_options *o, profile_report *r, ir_diag *diag) {
    verify_emulator emulator = {0};
    verify_gpu gpu = {0};
    verify_steps steps;
    *r = (profile_report){.arena = ir_arena_create()};
    bool good = count(o, r, &emulator, &gpu, &steps, diag);
    verify_gpu_close(&gpu);
    verify_emulator_close(&emulator);
    return good;
}

/* --- measuring -----------------------------------------------------------------------------------
 */

/* The step block's arrays of a step of `sequences` sequences of `tokens` tokens from `first` on,
 * which asks for the rows of the last `wanted` tokens of each. */
static mcc_eval_step make_step(int32_t sequences, int32_t tokens, int32_t first, int32_t wanted,
                               int64_t vocab, ir_arena *arena) {
    size_t T = (size_t)sequences * (size_t)tokens;
    int32_t *ids = ir_arena_array(arena, T, sizeof *ids),
            *positions = ir_arena_array(arena, T, sizeof *positions),
            *owners = ir_arena_array(arena, T, sizeof *owners),
            *rows = ir_arena_array(arena, T, sizeof *rows), R = 0;
    for (int32_t s = 0; s < sequences; s++)
        for (int32_t i = 0; i < tokens; i++) {
            int32_t t = s * tokens + i;
            ids[t] = (int32_t)((uint32_t)(t + first) * UINT32_C(2654435761) % (uint64_t)vocab);
            positions[t] = first + i;
            owners[t] = s;
            if (i >= tokens - wanted)
                rows[R++] = t;
        }
    return (mcc_eval_step){.struct_size = sizeof(mcc_eval_step),
                           .n_tokens = (int32_t)T,
                           .n_rows = R,
                           .token_ids = ids,
                           .positions = positions,
                           .sequences = owners,
                           .output_rows = rows};
}

static bool eval(mcc_engine *engine, mcc_eval_step *step, ir_diag *diag) {
    mcc_error error = {.struct_size = sizeof error};
    return mcc_engine_eval(engine, step, &error) == MCC_OK ||
           ir_error(diag, NULL, "%s", error.text);
}

/* Fills the sequences up to the context, in steps of at most `chunk` tokens. */
static bool hold_context(const profile_options *o, mcc_engine *engine, int64_t vocab, int32_t chunk,
                         ir_arena *arena, ir_diag *diag) {
    for (int32_t s = 0; s < o->batch; s++)
        for (int32_t at = 0; at < o->context; at += chunk) {
            int32_t n = o->context - at < chunk ? o->context - at : chunk;
            mcc_eval_step step = make_step(1, n, at, 0, vocab, arena);
            int32_t *owners = ir_arena_array(arena, (size_t)n, sizeof *owners);
            for (int32_t i = 0; i < n; i++)
                owners[i] = s;
            step.sequences = owners;
            if ((o->cancelled && atomic_load(o->cancelled)) || !eval(engine, &step, diag))
                return diag->errors ? false : ir_error(diag, NULL, "interrupted");
        }
    return true;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* Medians over the steps, of each kernel's launches together and of all. */
static void sum_launches(profile_report *r, double *const *samples, int repeat) {
    const rt_tables *t = &r->model.artifact->tables;
    size_t n = (size_t)repeat;
    double *all = ir_arena_array(r->arena, n, sizeof *all), **sums;
    int *index = ir_arena_array(r->arena, (size_t)t->n_kernels + 1, sizeof *index);
    sums = ir_arena_array(r->arena, (size_t)t->n_kernels + 1, sizeof *sums);
    r->kernels = ir_arena_array(r->arena, (size_t)t->n_kernels + 1, sizeof *r->kernels);
    for (uint32_t i = 0; i < t->n_launches; i++) {
        uint32_t kernel = t->launches[i].kernel;
        bool ran = false;
        if (!index[kernel]) {
            index[kernel] = ++r->n_kernels;
            r->kernels[r->n_kernels - 1] = (profile_kernel){.kernel = (int)kernel};
            sums[r->n_kernels - 1] = ir_arena_array(r->arena, n, sizeof **sums);
        }
        for (int k = 0; k < repeat; k++) {
            sums[index[kernel] - 1][k] += samples[k][i];
            all[k] += samples[k][i];
            ran |= samples[k][i] > 0;
        }
        r->kernels[index[kernel] - 1].launches++;
        r->launches += ran;
    }
    for (int i = 0; i < r->n_kernels; i++)
        r->kernels[i].seconds = median(sums[i], repeat);
    r->step_seconds = median(all, repeat);
    r->step_least = all[0]; /* they are in order now */
}

static bool measure_steps(const profile_options *o, profile_report *r, mcc_engine *engine,
                          int32_t chunk, ir_diag *diag) {
    const rt_tables *t = &r->model.artifact->tables;
    int64_t vocab = t->header->vocab_size;
    int32_t tokens = tokens_of(o);
    mcc_eval_step step =
        make_step(o->batch, tokens, held_before(o), o->prefill ? 1 : tokens, vocab, r->arena);
    double **samples = ir_arena_array(r->arena, (size_t)o->repeat, sizeof *samples);
    mcc_error error = {.struct_size = sizeof error};
    int32_t n;
    r->tokens = step.n_tokens;
    r->sequences = o->batch;
    if (!o->prefill && !hold_context(o, engine, vocab, chunk, r->arena, diag))
        return false;
    for (int k = -1; k < o->repeat; k++) { /* the first warms up; each forgets the one before */
        if (o->cancelled && atomic_load(o->cancelled))
            return ir_error(diag, NULL, "interrupted");
        if (!eval(engine, &step, diag))
            return false;
        if (k < 0)
            continue;
        samples[k] = ir_arena_array(r->arena, (size_t)t->n_launches + 1, sizeof **samples);
        if (mcc_engine_launch_seconds(engine, samples[k], (int32_t)t->n_launches, &n, &error))
            return ir_error(diag, NULL, "%s", error.text);
    }
    sum_launches(r, samples, o->repeat);
    return true;
}

bool profile_measure(const profile_options *o, profile_report *r, ir_diag *diag) {
    enum { CHUNK = 128 };
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine *engine;
    *r = (profile_report){.arena = ir_arena_create()};
    if (mcc_artifact_open(o->path, NULL, &r->model.artifact, &error) != MCC_OK)
        return ir_error(diag, NULL, "%s", error.text);
    int64_t step = (int64_t)o->batch * tokens_of(o);
    if (!check_context(o, r->model.artifact, diag))
        return false;
    mcc_engine_options options = {.struct_size = sizeof options,
                                  .flags = MCC_ENGINE_TIMINGS,
                                  .threads = o->threads,
                                  .max_num_batched_tokens = (int32_t)(step > CHUNK ? step : CHUNK),
                                  .max_eval_seqs = o->batch,
                                  .max_model_len = (int64_t)held_before(o) + tokens_of(o),
                                  .device = o->device};
    if (mcc_engine_create(r->model.artifact, &options, &engine, &error) != MCC_OK)
        return ir_error(diag, NULL, "%s", error.text);
    bool good = measure_steps(o, r, engine, CHUNK, diag);
    mcc_engine_destroy(engine);
    return good;
}

void profile_report_free(profile_report *r) {
    rt_cuda_select_free(&r->code);
    verify_model_close(&r->model);
    if (r->arena)
        ir_arena_destroy(r->arena);
    *r = (profile_report){0};
}

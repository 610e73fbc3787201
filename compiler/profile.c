#include "compiler/profile.h"

#include "codegen/cuda/cuda.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the device ----------------------------------------------------------------------------------
 */

/* Whether the emulated GPU, of architecture `arch`, finds PTX of every function. */
static bool has_code(const mcc_artifact *a, uint32_t arch) {
    for (uint32_t f = 0; f < a->cuda.n_functions; f++)
        if (rt_cuda_image_choose(&a->cuda, f, arch, 1u << MCC_CUDA_PTX) < 0)
            return false;
    return a->cuda.n_functions > 0;
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
    const mcc_artifact *a = r->model.artifact;
    const mcc_cuda_function_entry *f = &a->cuda.functions[k->function];
    uint32_t arch = (uint32_t)(r->gpu->major * 10 + r->gpu->minor);
    char name[32];
    snprintf(name, sizeof name, "cuda:sm_%" PRIu32, arch);
    k->threads = f->threads;
    k->shared_bytes = f->shared_bytes;
    for (uint32_t i = 0; i < a->cuda.n_images; i++) {
        const mcc_cuda_image_entry *m = &a->cuda.images[i];
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

static bool count_launch(verify_gpu *gpu, const profile_options *o, profile_report *r, int launch,
                         profile_kernel *k, ir_diag *diag) {
    const verify_step *step = &gpu->steps->steps[0];
    const mcc_cuda_function_entry *f = &r->model.artifact->cuda.functions[k->function];
    const ir_interp_step *s = &step->interp;
    modelcc_emulator_kernel counted = {.struct_size = sizeof counted};
    char error[1024];
    gpu->emulator->reset_counters();
    if (!verify_gpu_launch(gpu, (uint32_t)launch, k->function, step, error, sizeof error))
        return ir_error(diag, ir_op_label(r->model.program->launches[launch].op), "%s", error);
    k->blocks = rt_cuda_blocks(&f->x, s->T, s->S, s->R) * rt_cuda_blocks(&f->y, s->T, s->S, s->R);
    gpu->emulator->kernels(&counted, 1);
    k->one = counted.counters;
    find_registers(r, k, counted.registers);
    profile_input in = {.counters = &k->one,
                        .blocks = (uint64_t)k->blocks,
                        .threads = k->threads,
                        .resident = k->resident,
                        .int8 = multiplies_int8(r->model.program->kernels[k->kernel]),
                        .graph = !o->prefill};
    k->predicted = profile_predict(r->gpu, &in);
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
            *k = (profile_kernel){.kernel = kernel};
            k->function = verify_gpu_choose(gpu, (uint32_t)kernel, &step->interp);
            if (!count_launch(gpu, o, r, i, k, diag))
                return false;
        }
        profile_kernel *k = &r->kernels[index[kernel] - 1];
        k->launches++;
        if (k->blocks > 0) {
            r->launches++;
            r->step_seconds += k->predicted.seconds;
        }
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
            int64_t seen = e->window && held - first == 1 && held > e->window ? e->window : held;
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
    verify_steps_make_one(steps, &r->model, o->batch, o->prefill ? o->context : 1,
                          o->prefill ? 0 : o->context, r->arena);
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

void profile_report_free(profile_report *r) {
    verify_model_close(&r->model);
    if (r->arena)
        ir_arena_destroy(r->arena);
    *r = (profile_report){0};
}

bool profile_measure(const profile_options *o, profile_report *r, ir_diag *diag) {
    *r = (profile_report){.arena = ir_arena_create()};
    return ir_error(diag, o->device, "not yet");
}

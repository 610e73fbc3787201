#include "compiler/verify.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct run {
    const verify_options *options;
    verify_report *report;
    ir_diag *diag;
    ir_arena *arena;
    ir_interp *interp;
    verify_bounds bounds;
    verify_emulator emulator;
    verify_gpu gpus[VERIFY_MAX_ARCHS];
    bool *seen[VERIFY_MAX_ARCHS]; /* kernels whose variants have all run */
} run;

static bool is_cancelled(const run *r) {
    return r->options->cancelled && atomic_load(r->options->cancelled) &&
           !ir_error(r->diag, NULL, "interrupted");
}

static void say(const run *r, const char *step, const verify_arch *arch, int done, int all) {
    char text[128];
    if (!r->options->progress)
        return;
    if (arch)
        snprintf(text, sizeof text, "%s: sm_%" PRIu32 "%s: %d of %d launches", step, arch->arch,
                 arch->specific ? "a" : "", done, all);
    else
        snprintf(text, sizeof text, "%s: reference", step);
    r->options->progress(r->options->user, text);
}

/* --- which architectures -------------------------------------------------------------------------
 */

static bool is_wanted(const run *r, const verify_arch *a) {
    char name[16];
    snprintf(name, sizeof name, "sm_%" PRIu32 "%s", a->arch, a->specific ? "a" : "");
    return !r->options->arch || strcmp(r->options->arch, name) == 0;
}

static bool is_listed(const verify_report *report, const verify_arch *a) {
    for (int i = 0; i < report->n_archs; i++)
        if (report->archs[i].arch == a->arch)
            return true;
    return false;
}

/* Those that there is PTX for. */
static bool choose_archs(run *r) {
    verify_report *report = r->report;
    const mcc_artifact *artifact = report->model.artifact;
    for (uint32_t i = 0; i < artifact->cuda.n_images; i++) {
        const mcc_cuda_image_entry *m = &artifact->cuda.images[i];
        verify_arch a = {.arch = m->arch, .specific = m->arch_specific};
        if (m->form != MCC_CUDA_PTX || is_listed(report, &a) || !is_wanted(r, &a))
            continue;
        a.gpu = verify_emulator_find(&r->emulator, m->arch);
        if (!a.gpu)
            return ir_error(r->diag, artifact->path, "there is no GPU of sm_%" PRIu32 " to emulate",
                            m->arch);
        if (report->n_archs == VERIFY_MAX_ARCHS)
            return ir_error(r->diag, artifact->path, "code for more than %d architectures",
                            VERIFY_MAX_ARCHS);
        a.kernels =
            ir_arena_array(r->arena, (size_t)report->model.program->n_kernels, sizeof *a.kernels);
        report->archs[report->n_archs++] = a;
    }
    char has[96];
    rt_cuda_architectures(&artifact->cuda, MCC_CUDA_PTX, has, sizeof has);
    return report->n_archs > 0 ||
           ir_error(r->diag, artifact->path, "it has no PTX for %s; it has some for %s",
                    r->options->arch ? r->options->arch : "any architecture", has);
}

/* One emulated device for each architecture. */
static bool open_gpus(run *r) {
    verify_report *report = r->report;
    modelcc_emulator_options *o = &r->emulator.options;
    o->gpu[0] = 0;
    for (int i = 0; i < report->n_archs; i++)
        snprintf(o->gpu + strlen(o->gpu), sizeof o->gpu - strlen(o->gpu), "%s%s", i ? "," : "",
                 report->archs[i].gpu->name);
    o->checks = EMU_CHECK_ALL;
    o->seed = 0;
    o->count = false;
    if (r->options->threads > 0)
        o->threads = r->options->threads;
    report->checks = o->checks;
    if (!verify_emulator_set(&r->emulator, r->diag))
        return false;
    for (int i = 0; i < report->n_archs; i++) {
        r->seen[i] = ir_arena_array(r->arena, (size_t)report->model.program->n_kernels, 1);
        if (!verify_gpu_open(&r->gpus[i], &r->emulator, &report->model, &report->steps,
                             report->archs[i].gpu, i, r->diag))
            return false;
    }
    return true;
}

static void close_gpus(run *r) {
    for (int i = 0; i < VERIFY_MAX_ARCHS; i++)
        verify_gpu_close(&r->gpus[i]);
}

/* --- one launch ----------------------------------------------------------------------------------
 */

typedef struct job {
    run *run;
    verify_gpu *gpu;
    verify_kernel *kernel;
    const verify_step *step;
    const cg_launch *launch;
    int index; /* of the launch */
} job;

static const mcc_arg_entry *arg_of(const job *j, int i) {
    return &j->run->report->model.program->args[j->launch->first_arg + i];
}

static uint64_t result_bytes(const job *j, int result) {
    const ir_interp_step *s = &j->step->interp;
    ir_dim bytes = ir_type_bytes(&j->launch->op->results[result]->type);
    return (uint64_t)ir_dim_eval(bytes, s->T, s->S, s->R);
}

/* The argument that a result is written to: buffers follow the operands, caches are the operands
 * they come from. */
static const mcc_arg_entry *result_arg(const job *j, int result) {
    const ir_op *op = j->launch->op;
    if (op->results[result]->type.kind == IR_KV) {
        for (int i = 0, skip = 0; i < op->n_operands; i++)
            if (op->operands[i]->type.kind == IR_KV) {
                int before = 0;
                for (int k = 0; k < result; k++)
                    before += op->results[k]->type.kind == IR_KV;
                if (skip++ == before)
                    return arg_of(j, i);
            }
        return NULL;
    }
    int at = op->n_operands;
    for (int k = 0; k < result; k++)
        at += op->results[k]->type.kind != IR_KV;
    return arg_of(j, at);
}

/* A result's bytes, of a cache the layer's pages, in `arena`; NULL after reporting. */
static uint8_t *fetch(const job *j, int result, ir_arena *arena) {
    const mcc_arg_entry *arg = result_arg(j, result);
    bool kv = j->launch->op->results[result]->type.kind == IR_KV;
    uint64_t bytes = !arg ? 0
                     : kv ? verify_gpu_layer_bytes(j->gpu, arg->index)
                          : result_bytes(j, result);
    uint8_t *got = ir_arena_alloc(arena, bytes + 1);
    if (!arg) {
        ir_internal_error(j->run->diag, ir_op_label(j->launch->op), "a cache comes from nowhere");
        return NULL;
    }
    return verify_gpu_read(j->gpu, arg, j->step, got, bytes, j->run->diag) ? got : NULL;
}

/* Puts the interpreter's values where a launch's results are. */
static bool replace(const job *j) {
    const ir_op *op = j->launch->op;
    ir_arena *arena = ir_arena_create();
    bool good = true;
    for (int k = 0; k < op->n_results && good; k++) {
        if (op->results[k]->type.kind == IR_KV)
            continue;
        uint64_t bytes = result_bytes(j, k);
        uint8_t *values = ir_arena_alloc(arena, bytes + 1);
        verify_encode(j->run->bounds.sure, op, k, values);
        good = verify_gpu_write(j->gpu, result_arg(j, k), j->step, values, bytes, j->run->diag);
    }
    ir_arena_destroy(arena);
    return good;
}

static void note_failure(verify_kernel *k, const char *text) {
    if (k->failures++ == 0)
        snprintf(k->failure, sizeof k->failure, "%s", text);
}

/* After a failure: the device as it is before the launch that follows. */
static bool recover(const job *j) {
    if (!verify_gpu_reopen(j->gpu, j->run->diag) ||
        !verify_gpu_begin(j->gpu, j->step, j->run->diag))
        return false;
    job earlier = *j;
    for (earlier.index = 0; earlier.index <= j->index; earlier.index++) {
        earlier.launch = &j->run->report->model.program->launches[earlier.index];
        if (!replace(&earlier))
            return false;
    }
    return true;
}

/* Runs one function; *ran false after a failure of the kernel, from which the device has
 * recovered. */
static bool run_function(const job *j, uint32_t function, uint64_t seed, bool *ran) {
    char error[1024];
    j->run->emulator.options.seed = seed;
    if (!verify_emulator_set(&j->run->emulator, j->run->diag))
        return false;
    *ran = verify_gpu_launch(j->gpu, (uint32_t)j->index, function, j->step, error, sizeof error);
    if (*ran)
        return true;
    note_failure(j->kernel, error);
    return recover(j);
}

static bool compare(const job *j, uint8_t **results, ir_arena *arena) {
    const ir_op *op = j->launch->op;
    for (int k = 0; k < op->n_results; k++) {
        results[k] = fetch(j, k, arena);
        if (!results[k])
            return false;
        if (op->results[k]->type.kind == IR_KV)
            verify_compare_kv(&j->kernel->count, &j->run->bounds, op, k, j->step, results[k]);
        else
            verify_compare(&j->kernel->count, &j->run->bounds, op, k, results[k]);
    }
    return true;
}

/* All variants of a kernel give the same bits, in any order of warps and blocks. */
static bool compare_bits(const job *j, uint32_t function, uint8_t *const *results,
                         ir_arena *arena) {
    const ir_op *op = j->launch->op;
    const rt_cuda_code *code = &j->gpu->code;
    for (int k = 0; k < op->n_results; k++) {
        if (op->results[k]->type.kind == IR_KV)
            continue; /* other sequences' pages hold NaNs, and are of no interest */
        const uint8_t *again = fetch(j, k, arena);
        if (!again)
            return false;
        if (memcmp(again, results[k], result_bytes(j, k)) != 0) {
            char text[256];
            snprintf(text, sizeof text, "%s: result %d of %s has other bits than before",
                     ir_op_label(op), k, code->strings + code->functions[function].name);
            note_failure(j->kernel, text);
        }
    }
    return true;
}

/* The pages as verify_compare_kv left them; also of a kernel that failed, so that those after it
 * are not blamed. */
static bool replace_caches(const job *j, uint8_t **results, ir_arena *arena) {
    const ir_op *op = j->launch->op;
    for (int k = 0; k < op->n_results; k++) {
        if (op->results[k]->type.kind != IR_KV)
            continue;
        verify_count unused = {0};
        const mcc_arg_entry *arg = result_arg(j, k);
        if (!results[k]) {
            results[k] = fetch(j, k, arena);
            if (!results[k])
                return false;
            verify_compare_kv(&unused, &j->run->bounds, op, k, j->step, results[k]);
        }
        if (!verify_gpu_write(j->gpu, arg, j->step, results[k],
                              verify_gpu_layer_bytes(j->gpu, arg->index), j->run->diag))
            return false;
    }
    return true;
}

static bool run_launch(const job *j, bool every_variant) {
    const rt_cuda_code *code = &j->gpu->code;
    uint32_t kernel = (uint32_t)j->launch->kernel,
             chosen = verify_gpu_choose(j->gpu, kernel, &j->step->interp);
    ir_arena *arena = ir_arena_create();
    uint8_t **results =
        ir_arena_array(arena, (size_t)j->launch->op->n_results + 1, sizeof *results);
    bool ran = false, good = run_function(j, chosen, 0, &ran);
    j->kernel->launches++;
    j->kernel->variants += every_variant && ran;
    if (good && ran)
        good = compare(j, results, arena);
    for (int s = 1; good && ran && s < j->run->options->seeds; s++) {
        good = run_function(j, chosen, j->run->options->seed + (uint64_t)s, &ran);
        if (good && ran)
            good = compare_bits(j, chosen, results, arena);
    }
    for (uint32_t f = 0; good && ran && every_variant && f < code->n_functions; f++) {
        if (code->functions[f].kernel != kernel || f == chosen || code->functions[f].first_of_two)
            continue;
        good = run_function(j, f, 0, &ran);
        j->kernel->variants++;
        if (good && ran)
            good = compare_bits(j, f, results, arena);
    }
    good = good && replace(j) && replace_caches(j, results, arena);
    ir_arena_destroy(arena);
    return good;
}

/* --- one step ------------------------------------------------------------------------------------
 */

static bool run_step_on(run *r, int arch, verify_step *step) {
    const cg_program_list *p = r->report->model.program;
    verify_arch *a = &r->report->archs[arch];
    verify_gpu *gpu = &r->gpus[arch];
    if (!verify_gpu_begin(gpu, step, r->diag))
        return false;
    for (int i = 0; i < p->n_launches; i++) {
        int kernel = p->launches[i].kernel;
        job j = {.run = r,
                 .gpu = gpu,
                 .kernel = &a->kernels[kernel],
                 .step = step,
                 .launch = &p->launches[i],
                 .index = i};
        say(r, step->name, a, i, p->n_launches);
        bool first = !r->seen[arch][kernel];
        if (is_cancelled(r) || !run_launch(&j, first || r->options->all_variants))
            return false;
        r->seen[arch][kernel] = true;
        for (int k = 0; k < p->launches[i].op->n_results; k++)
            if (p->launches[i].op->results[k]->type.kind == IR_KV &&
                !verify_gpu_keep_pools(gpu, r->diag))
                return false;
    }
    return true;
}

/* The output with a row for each output row: logits, or what embeddings are made of. */
static const char *rows_name(const verify_model *m) {
    return rt_string(&m->artifact->tables, m->artifact->tables.rows->name);
}

static bool run_reference(run *r, verify_step *step) {
    int64_t count;
    say(r, step->name, NULL, 0, 0);
    bounds_begin(r->bounds.sure, &step->interp);
    bounds_begin(r->bounds.likely, &step->interp);
    if (!ir_interp_run(r->interp, &step->interp, r->diag))
        return false;
    if (r->bounds.sure->failure[0])
        return ir_error(r->diag, NULL, "%s", r->bounds.sure->failure);
    const char *name = rows_name(&r->report->model);
    const float *rows = ir_interp_output(r->interp, name, &count);
    if (!rows)
        return ir_error(r->diag, NULL, "the graph has no output \"%s\"", name);
    memcpy(step->logits, rows, (size_t)count * sizeof *rows);
    return true;
}

static bool run_launches(run *r) {
    verify_report *report = r->report;
    for (int i = 0; i < report->steps.n; i++) {
        if (!run_reference(r, &report->steps.steps[i]))
            return false;
        for (int a = 0; a < report->n_archs; a++)
            if (!run_step_on(r, a, &report->steps.steps[i]))
                return false;
    }
    return true;
}

/* --- whole steps, through the engine -------------------------------------------------------------
 */

static int64_t top_of(const float *logits, int64_t n) {
    int64_t top = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[top])
            top = i;
    return top;
}

/* Kernels now read what kernels wrote, so roundings do add up, and where numbers between kernels
 * are coarse (int8) they can take the logits far. What proves a whole step right is that its
 * kernels are, and that it gives the bits of its kernels one by one; this limit only tells that
 * both are still of the same model. */
static double limit_of(const verify_model *m) {
    for (int i = 0; i < m->program->n_buffers; i++)
        if (m->program->buffers[i].type.encoding)
            return 0.25;
    return 0x1p-6;
}

/* The kernels of all steps one by one, without the checks that they have passed. */
static bool run_chain(run *r, const verify_arch *a) {
    const verify_model *m = &r->report->model;
    verify_gpu *gpu = &r->gpus[0];
    const rt_tables *t = &m->artifact->tables;
    mcc_arg_entry rows = {.kind = MCC_ARG_BUFFER, .index = t->rows->buffer};
    snprintf(r->emulator.options.gpu, sizeof r->emulator.options.gpu, "%s", a->gpu->name);
    r->emulator.options.seed = 0;
    r->emulator.options.checks = 0;
    if (!verify_emulator_set(&r->emulator, r->diag) ||
        !verify_gpu_open(gpu, &r->emulator, m, &r->report->steps, a->gpu, 0, r->diag))
        return false;
    bool good = true;
    for (int i = 0; i < r->report->steps.n && good; i++) {
        verify_step *step = &r->report->steps.steps[i];
        uint64_t bytes = (uint64_t)(step->interp.R * t->rows->width) * sizeof(float);
        say(r, "kernels one by one", a, i, r->report->steps.n);
        good = verify_gpu_begin(gpu, step, r->diag);
        for (int k = 0; k < m->program->n_launches && good; k++) {
            char error[1024];
            uint32_t f =
                verify_gpu_choose(gpu, (uint32_t)m->program->launches[k].kernel, &step->interp);
            good = !is_cancelled(r) &&
                   (verify_gpu_launch(gpu, (uint32_t)k, f, step, error, sizeof error) ||
                    ir_error(r->diag, ir_op_label(m->program->launches[k].op), "%s", error));
        }
        good = good && verify_gpu_read(gpu, &rows, step, step->chained, bytes, r->diag);
    }
    verify_gpu_close(gpu);
    r->emulator.options.checks = r->report->checks;
    return good;
}

static void compare_rows(const verify_step *step, const float *got, int64_t width,
                         verify_whole *w) {
    double square = 0, difference = 0;
    for (int32_t r = 0; r < step->interp.R; r++) {
        const float *a = step->logits + r * width, *b = got + r * width;
        const float *chained = step->chained + r * width;
        double most = 0;
        for (int64_t i = 0; i < width; i++) {
            double d = (double)b[i] - (double)a[i];
            square += (double)a[i] * (double)a[i];
            difference += d * d;
            most = fmax(most, fabs(d));
            w->other_bits += memcmp(&b[i], &chained[i], sizeof b[i]) != 0;
        }
        int64_t ours = top_of(a, width), theirs = top_of(b, width);
        /* Beyond doubt: the logits differ by more than the differences there are. */
        w->other_tokens += ours != theirs && (double)a[ours] - (double)a[theirs] > 2 * most;
        w->rows++;
    }
    w->relative = square > 0 ? sqrt(difference / square) : difference;
    if (!isfinite(w->relative))
        w->relative = INFINITY;
    w->ran = true;
}

static bool eval_step(run *r, mcc_engine *engine, const verify_step *step, verify_whole *w) {
    const ir_interp_step *s = &step->interp;
    mcc_error error = {.struct_size = sizeof error};
    ir_arena *arena = ir_arena_create();
    int32_t *sequences = ir_arena_array(arena, (size_t)s->T, sizeof *sequences);
    for (int32_t q = 0; q < s->S; q++)
        for (int32_t t = s->seq_offsets[q]; t < s->seq_offsets[q + 1]; t++)
            sequences[t] = s->seq_slots[q];
    mcc_eval_step e = {.struct_size = sizeof e,
                       .n_tokens = s->T,
                       .n_rows = s->R,
                       .token_ids = s->token_ids,
                       .positions = s->positions,
                       .sequences = sequences,
                       .output_rows = s->output_rows};
    bool good = mcc_engine_eval(engine, &e, &error) == MCC_OK;
    ir_arena_destroy(arena);
    w->limit = limit_of(&r->report->model);
    if (good)
        compare_rows(step, e.logits, r->report->model.artifact->tables.rows->width, w);
    else
        snprintf(w->failure, sizeof w->failure, "%s", error.text);
    return good;
}

static bool run_whole_on(run *r, verify_arch *a) {
    verify_report *report = r->report;
    mcc_engine_options o = {.struct_size = sizeof o,
                            .threads = 1,
                            .max_eval_seqs = VERIFY_SLOTS,
                            .max_num_batched_tokens = report->steps.max_T,
                            .device = "emulator"};
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine *engine;
    const rt_tables *t = &report->model.artifact->tables;
    int64_t longest = (int64_t)report->steps.pages * t->kv_groups[0].page_tokens;
    o.max_model_len = longest < t->header->max_model_len ? longest : t->header->max_model_len;
    snprintf(r->emulator.options.gpu, sizeof r->emulator.options.gpu, "%s", a->gpu->name);
    r->emulator.options.seed = r->options->seed;
    if (!verify_emulator_set(&r->emulator, r->diag))
        return false;
    if (mcc_engine_create(report->model.artifact, &o, &engine, &error) != MCC_OK)
        return ir_error(r->diag, NULL, "%s", error.text);
    bool good = true;
    for (int i = 0; i < report->steps.n && good; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s: sm_%" PRIu32 ": whole step", report->steps.steps[i].name,
                 a->arch);
        if (r->options->progress)
            r->options->progress(r->options->user, text);
        good = !is_cancelled(r) && eval_step(r, engine, &report->steps.steps[i], &a->whole[i]);
    }
    mcc_engine_destroy(engine);
    return r->diag->errors == 0;
}

/* Whole steps of wrong kernels tell nothing more. */
static bool kernels_are_right(const verify_report *report, const verify_arch *a) {
    for (int k = 0; k < report->model.program->n_kernels; k++)
        if (!verify_kernel_is_right(&a->kernels[k]))
            return false;
    return true;
}

/* --- all of it -----------------------------------------------------------------------------------
 */

static void watch_both(void *user, const ir_op *op, int result, const float *data, int64_t count) {
    verify_bounds *b = user;
    bound_watch(b->sure, op, result, data, count);
    bound_watch(b->likely, op, result, data, count);
}

static bool all(run *r) {
    verify_report *report = r->report;
    const verify_options *o = r->options;
    if (!verify_model_open(&report->model, o->path, o->against, r->diag) ||
        !verify_emulator_open(&r->emulator, r->diag) || !choose_archs(r))
        return false;
    int64_t most = report->model.artifact->tables.header->max_model_len / 2;
    verify_steps_make(&report->steps, &report->model, o->tokens < most ? o->tokens : most, o->seed,
                      report->model.arena);
    r->interp = ir_interp_create(report->model.module, r->diag);
    if (!r->interp || !open_gpus(r))
        return false;
    bounds **both[2] = {&r->bounds.sure, &r->bounds.likely};
    for (int i = 0; i < 2; i++) {
        *both[i] = bounds_create(report->model.module);
        (*both[i])->caches_replaced = true;
        (*both[i])->tensor_attention = true;
    }
    r->bounds.likely->assume_codes = true;
    ir_interp_set_watch(r->interp, watch_both, &r->bounds);
    if (!run_launches(r))
        return false;
    close_gpus(r);
    for (int i = 0; i < report->n_archs; i++)
        if (kernels_are_right(report, &report->archs[i]) &&
            (!run_chain(r, &report->archs[i]) || !run_whole_on(r, &report->archs[i])))
            return false;
    return true;
}

bool verify_run(const verify_options *options, verify_report *report, ir_diag *diag) {
    *report = (verify_report){0};
    run *r = calloc(1, sizeof *r);
    if (!r)
        return ir_error(diag, NULL, "out of memory");
    r->options = options;
    r->report = report;
    r->diag = diag;
    report->arena = r->arena = ir_arena_create();
    bool good = all(r);
    close_gpus(r);
    bounds_destroy(r->bounds.sure);
    bounds_destroy(r->bounds.likely);
    ir_interp_destroy(r->interp);
    verify_emulator_close(&r->emulator);
    free(r);
    return good;
}

void verify_report_free(verify_report *report) {
    verify_model_close(&report->model);
    if (report->arena)
        ir_arena_destroy(report->arena);
    *report = (verify_report){0};
}

bool verify_count_is_close(const verify_count *c) {
    return 10 * c->close >= 9 * c->values;
}

bool verify_kernel_is_right(const verify_kernel *k) {
    return k->failures == 0 && k->count.wrong == 0 && k->count.values > 0 &&
           verify_count_is_close(&k->count);
}

bool verify_whole_is_right(const verify_whole *w) {
    return w->ran && !w->failure[0] && w->other_bits == 0 && w->relative <= w->limit &&
           w->other_tokens == 0;
}

bool verify_is_right(const verify_report *report) {
    for (int a = 0; a < report->n_archs; a++) {
        if (!kernels_are_right(report, &report->archs[a]))
            return false;
        for (int s = 0; s < report->steps.n; s++)
            if (!verify_whole_is_right(&report->archs[a].whole[s]))
                return false;
    }
    return report->n_archs > 0;
}

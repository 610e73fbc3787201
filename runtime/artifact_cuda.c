#include "runtime/artifact_cuda.h"

#include "runtime/checker.h"
#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAD(c, ...) rt_fail((c)->error, MCC_BAD_ARTIFACT, "%s: CUDA code: " __VA_ARGS__)

static bool check_function(const rt_checker *c, const rt_cuda_code *code, const rt_tables *t,
                           uint32_t i) {
    const mcc_cuda_function_entry *f = &code->functions[i];
    if (!rt_check_string(c, f->name, "function", i) ||
        !rt_check_index(c, f->kernel, t->n_kernels, "kernel", "function", i))
        return false;
    if (f->threads < 1 || f->threads > RT_CUDA_MAX_THREADS ||
        f->shared_bytes > RT_CUDA_MAX_SHARED || f->n_params < 1 || f->n_params > RT_CUDA_MAX_PARAMS)
        return BAD(c,
                   "function %s: %" PRIu32 " threads, %" PRIu32 " bytes of shared memory, %" PRIu32
                   " parameters: out of range",
                   c->path, code->strings + f->name, f->threads, f->shared_bytes, f->n_params);
    if (!rt_tiles_in_range(&f->x.dim, f->x.div, f->x.mult) ||
        (f->y.mult != 0 && !rt_tiles_in_range(&f->y.dim, f->y.div, f->y.mult)))
        return BAD(c, "function %s: its grid is out of range", c->path, code->strings + f->name);
    if (f->scratch_bytes > RT_CUDA_MAX_SCRATCH || f->scratch_bytes % 4)
        return BAD(c, "function %s: %" PRIu64 " bytes of scratch memory a row: out of range",
                   c->path, code->strings + f->name, f->scratch_bytes);
    if (f->row_scratch_bytes > RT_CUDA_MAX_SCRATCH || f->row_scratch_bytes % 4 ||
        (f->scratch_bytes && f->row_scratch_bytes))
        return BAD(c,
                   "function %s: %" PRIu64 " bytes of scratch memory a row, %" PRIu64
                   " a row and range: out of range",
                   c->path, code->strings + f->name, f->row_scratch_bytes, f->scratch_bytes);
    const mcc_cuda_function_entry *next = i + 1 < code->n_functions ? f + 1 : NULL;
    if (f->first_of_two && (f->first_of_two != 1 || !next || next->kernel != f->kernel ||
                            next->min_rows != f->min_rows || next->first_of_two))
        return BAD(c, "function %s: the first of two, but the second does not follow", c->path,
                   code->strings + f->name);
    return true;
}

/* Launches and functions of a kernel must agree, of the functions of one architecture. has: which
 * these are; arch: its name, for messages. */
static bool check_kernels(const rt_checker *c, const rt_cuda_code *code, const rt_tables *t,
                          const bool *has, const char *arch) {
    uint32_t *params = calloc((size_t)t->n_kernels + 1, sizeof *params); /* 0: no function */
    if (!params)
        return rt_fail(c->error, MCC_OUT_OF_MEMORY, "out of memory for %" PRIu32 " kernels",
                       t->n_kernels);
    bool ok = true;
    for (uint32_t i = 0; ok && i < code->n_functions; i++) {
        const mcc_cuda_function_entry *f = &code->functions[i];
        uint32_t n_params = f->n_params - rt_cuda_has_scratch(f);
        if (!has[i])
            continue;
        if (n_params == 0)
            ok = BAD(c, "function %s: no parameter for the step block", c->path,
                     code->strings + f->name);
        else if (params[f->kernel] == 0 && f->min_rows != 0)
            ok = BAD(c, "function %s: the first of its kernel%s, but for %" PRIu32 " rows and more",
                     c->path, code->strings + f->name, arch, f->min_rows);
        else if (params[f->kernel] != 0 && params[f->kernel] != n_params)
            ok = BAD(c,
                     "function %s: %" PRIu32 " parameters, another function of its kernel %" PRIu32,
                     c->path, code->strings + f->name, n_params, params[f->kernel]);
        else if (f->first_of_two && !has[i + 1])
            ok = BAD(c, "function %s: the first of two, but there is no code of the second%s",
                     c->path, code->strings + f->name, arch);
        params[f->kernel] = n_params;
    }
    for (uint32_t i = 0; ok && i < t->n_launches; i++) {
        const mcc_launch_entry *l = &t->launches[i];
        if (params[l->kernel] == 0)
            ok = BAD(c, "no function for kernel %s%s", c->path,
                     rt_string(t, t->kernels[l->kernel].name), arch);
        else if (params[l->kernel] != (uint64_t)l->n_args + 1)
            ok = BAD(c,
                     "launch %s has %" PRIu32 " arguments, but functions of kernel %s take %" PRIu32
                     " parameters, the step block's included",
                     c->path, rt_string(t, l->label), l->n_args,
                     rt_string(t, t->kernels[l->kernel].name), params[l->kernel]);
    }
    free(params);
    return ok;
}

/* An architecture as a number that orders them. */
static uint32_t key_of(const mcc_cuda_image_entry *m) {
    return 2 * m->arch + m->arch_specific;
}

/* The next one above `after` that has an image in this form (0: any), or 0. */
static uint32_t next_architecture(const rt_cuda_code *code, uint32_t form, uint32_t after) {
    uint32_t least = 0;
    for (uint32_t i = 0; i < code->n_images; i++) {
        const mcc_cuda_image_entry *m = &code->images[i];
        uint32_t key = key_of(m);
        if ((form == 0 || m->form == form) && key > after && (least == 0 || key < least))
            least = key;
    }
    return least;
}

static void find_functions(const rt_cuda_code *code, uint32_t key, bool *has) {
    for (uint32_t i = 0; i < code->n_images; i++)
        if (key_of(&code->images[i]) == key)
            has[code->images[i].function] = true;
}

/* The functions of each architecture; all of them where there is no image. */
static bool check_architectures(const rt_checker *c, const rt_cuda_code *code, const rt_tables *t) {
    size_t n = (size_t)code->n_functions + 1;
    bool *has = malloc(n), ok = true;
    char arch[32] = "";
    if (!has)
        return rt_fail(c->error, MCC_OUT_OF_MEMORY, "out of memory for %zu GPU functions", n);
    if (code->n_images == 0) {
        memset(has, true, n);
        ok = check_kernels(c, code, t, has, arch);
    }
    uint32_t key = 0;
    for (int i = 0; ok && (key = next_architecture(code, 0, key)) != 0; i++) {
        if (i >= RT_CUDA_MAX_ARCHITECTURES) {
            ok = BAD(c, "more than %d architectures", c->path, RT_CUDA_MAX_ARCHITECTURES);
            break;
        }
        memset(has, false, n);
        find_functions(code, key, has);
        snprintf(arch, sizeof arch, " on sm_%" PRIu32 "%s", key / 2, key % 2 ? "a" : "");
        ok = check_kernels(c, code, t, has, arch);
    }
    free(has);
    return ok;
}

static bool check_image(const rt_checker *c, const rt_cuda_code *code, uint32_t i) {
    const mcc_cuda_image_entry *m = &code->images[i];
    if (!rt_check_index(c, m->function, code->n_functions, "function", "image", i))
        return false;
    if ((m->form != MCC_CUDA_CUBIN && m->form != MCC_CUDA_PTX) || m->arch < 50 || m->arch > 999 ||
        m->arch_specific > 1)
        return BAD(c, "image %" PRIu32 ": form %" PRIu32 " for architecture %" PRIu32, c->path, i,
                   m->form, m->arch);
    if (m->bytes == 0 || m->offset > c->size || m->bytes > c->size - m->offset)
        return BAD(c,
                   "image %" PRIu32 " has %" PRIu64 " bytes at byte %" PRIu64
                   ", but the section has %" PRIu64,
                   c->path, i, m->bytes, m->offset, c->size);
    if (m->form == MCC_CUDA_PTX && c->data[m->offset + m->bytes - 1] != 0)
        return BAD(c, "image %" PRIu32 ": its PTX does not end with a zero byte", c->path, i);
    return true;
}

bool rt_cuda_check(const void *data, uint64_t size, const rt_tables *tables, const char *path,
                   rt_cuda_code *code, rt_error *error) {
    rt_checker c = {
        .data = data, .size = size, .path = path, .section = "CUDA code", .error = error};
    memset(code, 0, sizeof *code);
    rt_cuda_code found = {.header = data};
    const mcc_cuda *h = data;
    if (size < sizeof *h)
        return BAD(&c, "%" PRIu64 " bytes, expected at least %zu", path, size, sizeof *h);
    if (h->struct_bytes < sizeof *h)
        return BAD(&c, "its header has %" PRIu32 " bytes, expected %zu", path, h->struct_bytes,
                   sizeof *h);
    if (h->version != MCC_ARTIFACT_VERSION)
        return BAD(&c, "version %" PRIu32 ", expected %d", path, h->version, MCC_ARTIFACT_VERSION);
    const void *entries[3];
    if (!rt_check_span(&c, &h->strings, 1, "strings", &entries[0], &c.n_strings) ||
        !rt_check_span(&c, &h->functions, sizeof *found.functions, "functions", &entries[1],
                       &found.n_functions) ||
        !rt_check_span(&c, &h->images, sizeof *found.images, "images", &entries[2],
                       &found.n_images) ||
        !rt_check_strings(&c, entries[0]))
        return false;
    found.strings = entries[0], found.functions = entries[1], found.images = entries[2];
    for (uint32_t i = 0; i < found.n_functions; i++)
        if (!check_function(&c, &found, tables, i))
            return false;
    for (uint32_t i = 0; i < found.n_images; i++)
        if (!check_image(&c, &found, i))
            return false;
    if (!check_architectures(&c, &found, tables))
        return false;
    *code = found;
    return true;
}

/* The most rows that function i is taken for, of steps of at most T, S, R. */
static int64_t most_rows(const rt_cuda_code *code, uint32_t i, int64_t T, int64_t S, int64_t R) {
    int64_t most = rt_dim(&code->functions[i].x.dim, T, S, R);
    for (uint32_t k = i + 1; k < code->n_functions; k++) {
        const mcc_cuda_function_entry *next = &code->functions[k];
        if (next->kernel == code->functions[i].kernel &&
            next->min_rows > code->functions[i].min_rows && next->min_rows - INT64_C(1) < most)
            most = next->min_rows - INT64_C(1);
    }
    return most;
}

uint64_t rt_cuda_scratch_bytes(const rt_cuda_code *code, int64_t positions, int64_t T, int64_t S,
                               int64_t R) {
    uint64_t ranges = (uint64_t)positions / MCC_CUDA_RANGE + (positions % MCC_CUDA_RANGE != 0);
    uint64_t most = 0;
    for (uint32_t i = 0; i < code->n_functions; i++) {
        uint64_t bytes, rows = (uint64_t)most_rows(code, i, T, S, R);
        const mcc_cuda_function_entry *f = &code->functions[i];
        uint64_t each = f->scratch_bytes ? f->scratch_bytes : f->row_scratch_bytes;
        if (each == 0)
            continue;
        if (__builtin_mul_overflow(rows, f->scratch_bytes ? ranges : 1, &bytes) ||
            __builtin_mul_overflow(bytes, each, &bytes) ||
            __builtin_add_overflow(bytes, MCC_CUDA_COUNTER_BYTES, &bytes))
            return UINT64_MAX;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* --- the functions of one device -----------------------------------------------------------------
 */

bool rt_cuda_image_better(const mcc_cuda_image_entry *m, const mcc_cuda_image_entry *than) {
    if (m->form != than->form)
        return m->form == MCC_CUDA_CUBIN;
    return key_of(m) > key_of(than);
}

bool rt_cuda_select(const rt_cuda_code *code, uint32_t arch, uint32_t forms, rt_cuda_code *out) {
    const mcc_cuda_image_entry *best = NULL;
    size_t n = (size_t)code->n_functions + 1, n_images = (size_t)code->n_images + 1;
    *out = *code;
    out->n_functions = out->n_images = 0;
    for (uint32_t i = 0; i < code->n_images; i++) {
        const mcc_cuda_image_entry *m = &code->images[i];
        if ((forms >> m->form & 1) && rt_cuda_image_runs(m, arch) &&
            (!best || rt_cuda_image_better(m, best)))
            best = m;
    }
    bool *has = malloc(n);
    uint32_t *place = calloc(n, sizeof *place);
    mcc_cuda_function_entry *functions = calloc(n, sizeof *functions);
    mcc_cuda_image_entry *images = calloc(n_images, sizeof *images);
    out->functions = functions;
    out->images = images;
    bool ok = has && place && functions && images;
    if (ok) {
        memset(has, !best, n);
        if (best)
            find_functions(code, key_of(best), has);
        for (uint32_t i = 0; i < code->n_functions; i++)
            if (has[i]) {
                place[i] = out->n_functions;
                functions[out->n_functions++] = code->functions[i];
            }
        for (uint32_t i = 0; i < code->n_images; i++)
            if (has[code->images[i].function]) {
                images[out->n_images] = code->images[i];
                images[out->n_images++].function = place[code->images[i].function];
            }
    } else {
        rt_cuda_select_free(out);
    }
    free(has);
    free(place);
    return ok;
}

void rt_cuda_select_free(rt_cuda_code *selected) {
    free((void *)selected->functions);
    free((void *)selected->images);
    *selected = (rt_cuda_code){0};
}

const char *rt_cuda_architectures(const rt_cuda_code *code, uint32_t form, char *text,
                                  size_t capacity) {
    size_t used = 0;
    snprintf(text, capacity, "none");
    for (uint32_t key = 0; (key = next_architecture(code, form, key)) != 0 && used < capacity;)
        used += (size_t)snprintf(text + used, capacity - used, "%ssm_%" PRIu32 "%s",
                                 used ? ", " : "", key / 2, key % 2 ? "a" : "");
    return text;
}

/* The artifact's footer, tables and GPU code. The first byte says what the rest is: a footer, a
 * table section, a section of GPU code, or changes to sound tables followed by sound GPU code, each
 * a 16-bit place, a size and a value. Hashes are set right first, since guessing them would teach
 * nothing. What passes the checks is then used in all the ways the runtime uses it. */
#define MCC_FAKE_MODEL "" /* no code is needed */
#include "tests/unit/fixture/fake_cuda_code.h"

#include "runtime/artifact_cuda.h"
#include "runtime/cuda_module.h"
#include "runtime/sha256.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static void use_footer(const uint8_t *data, size_t size) {
    mcc_footer footer = {0};
    memcpy(&footer, data, size < sizeof footer ? size : sizeof footer);
    memcpy(footer.magic, MCC_ARTIFACT_MAGIC, sizeof footer.magic);
    rt_sha256_of(&footer, offsetof(mcc_footer, sha256), footer.sha256);
    rt_error error = {0};
    if (!rt_footer_check(&footer, footer.file_bytes, "fuzz", &error)) {
        if (error.code == 0 || error.text[0] == 0)
            abort();
        return;
    }
    for (uint32_t i = 0; i < footer.n_sections; i++) {
        const mcc_section *s = &footer.sections[i];
        if (s->offset + s->size < s->offset || s->offset + s->size > footer.file_bytes)
            abort();
    }
}

/* Every byte of a string, so that a sanitizer sees one without an end. */
static size_t read_string(const rt_tables *t, mcc_string s) {
    return strlen(rt_string(t, s));
}

static void use_cuda(const void *data, size_t size, const rt_tables *t) {
    rt_cuda_code c;
    rt_error error = {0};
    if (!rt_cuda_check(data, size, t, "fuzz", &c, &error)) {
        if (error.code == 0 || error.text[0] == 0)
            abort();
        return;
    }
    size_t sum = 0;
    for (uint32_t i = 0; i < c.n_functions; i++) {
        const mcc_cuda_function_entry *f = &c.functions[i];
        sum += strlen(c.strings + f->name) + strlen(rt_string(t, t->kernels[f->kernel].name));
        if (rt_cuda_blocks(&f->x, INT32_MAX, INT32_MAX, INT32_MAX) < 0 ||
            rt_cuda_blocks(&f->y, INT32_MAX, INT32_MAX, INT32_MAX) < 0 || f->n_params == 0)
            abort();
        for (int32_t n = 1; n < INT32_MAX / 16; n *= 16)
            sum += rt_cuda_scratch_bytes(&c, 16 * (int64_t)n, n, n, n) == 1;
        for (uint32_t arch = 50; arch < 130; arch += 10) {
            int m = rt_cuda_image_choose(&c, i, arch, 1 << MCC_CUDA_CUBIN | 1 << MCC_CUDA_PTX);
            sum += m >= 0 && c.images[m].function != i ? SIZE_MAX / 2 : 0;
        }
    }
    for (uint32_t i = 0; i < c.n_images; i++) {
        const mcc_cuda_image_entry *m = &c.images[i];
        const char *image = (const char *)data + m->offset;
        sum += m->form == MCC_CUDA_PTX ? strlen(image) : (size_t)image[m->bytes - 1];
    }
    char text[64];
    if (strlen(rt_cuda_architectures(&c, 0, text, sizeof text)) + sum > SIZE_MAX / 4)
        abort();
}

/* Whether the tables are sound. */
static bool use_tables(const void *data, size_t size, rt_tables *tables) {
    rt_tables t;
    rt_error error = {0};
    uint64_t weights_bytes = 1 << 20;
    if (!rt_tables_check(data, size, weights_bytes, "fuzz", &t, &error)) {
        if (error.code == 0 || error.text[0] == 0)
            abort();
        return false;
    }
    *tables = t;
    size_t sum = read_string(&t, t.header->model_name) + read_string(&t, t.header->arch);
    for (uint32_t i = 0; i < t.n_weights; i++) {
        sum += read_string(&t, t.weights[i].name) + read_string(&t, t.weights[i].type);
        if (t.weights[i].offset + t.weights[i].bytes > weights_bytes)
            abort();
    }
    for (uint32_t i = 0; i < t.n_buffers; i++)
        if (rt_dim(&t.buffers[i].offset, INT32_MAX, INT32_MAX, INT32_MAX) < 0 ||
            rt_dim(&t.buffers[i].bytes, INT32_MAX, INT32_MAX, INT32_MAX) < 0)
            abort();
    for (uint32_t i = 0; i < t.n_launches; i++) {
        const mcc_launch_entry *l = &t.launches[i];
        sum += read_string(&t, l->label) + read_string(&t, t.kernels[l->kernel].name);
        if (rt_launch_tiles(l, INT32_MAX, INT32_MAX, INT32_MAX) < 0)
            abort();
        for (uint32_t a = l->first_arg; a < l->first_arg + l->n_args; a++) {
            const mcc_arg_entry *arg = &t.args[a];
            if (arg->kind == MCC_ARG_WEIGHT)
                sum += (size_t)t.weights[arg->index].offset;
            else if (arg->kind == MCC_ARG_BUFFER)
                sum += (size_t)t.buffers[arg->index].offset.c;
            else if (arg->kind == MCC_ARG_KV)
                sum += (size_t)t.kv_groups[arg->index].layers - arg->layer;
        }
    }
    for (uint32_t i = 0; i < t.n_outputs; i++)
        sum += read_string(&t, t.outputs[i].name) + (size_t)t.buffers[t.outputs[i].buffer].bytes.r;
    int target = rt_target_choose(&t, ~UINT64_C(0), NULL, "fuzz", &error);
    if (target < 0 ? t.n_targets > 0 : read_string(&t, t.targets[target].name) + sum == SIZE_MAX)
        abort();
    rt_target_choose(&t, 0, NULL, "fuzz", &error);
    rt_target_choose(&t, 0, "cpu:x86-64-v3", "fuzz", &error);
    return true;
}

/* Aligned copies of just that size: tables, and GPU code when cuda_size is not 0. */
static void use_copies(const void *data, size_t size, const void *cuda, size_t cuda_size) {
    void *copy = malloc(size + 1), *cuda_copy = malloc(cuda_size + 1);
    rt_tables tables;
    if (copy && cuda_copy) {
        memcpy(copy, data, size);
        memcpy(cuda_copy, cuda, cuda_size);
        if (use_tables(copy, size, &tables) && cuda_size > 0)
            use_cuda(cuda_copy, cuda_size, &tables);
    }
    free(copy);
    free(cuda_copy);
}

static void use_changed(const uint8_t *data, size_t size) {
    static const uint8_t bytes[4] = {1, 2, 4, 8};
    struct {
        fake_tables tables;
        fake_cuda_code cuda;
    } sound;
    fake_tables_init(&sound.tables);
    fake_cuda_code_init(&sound.cuda);
    for (; size >= 11; data += 11, size -= 11) {
        size_t n = bytes[data[2] % 4], at = (data[0] | (size_t)data[1] << 8) / n * n;
        if (at + n <= sizeof sound)
            memcpy((char *)&sound + at, data + 3, n);
    }
    use_copies(&sound.tables, sizeof sound.tables, &sound.cuda, sizeof sound.cuda);
}

/* GPU code beside sound tables. */
static void use_cuda_alone(const uint8_t *data, size_t size) {
    fake_tables tables;
    fake_tables_init(&tables);
    use_copies(&tables, sizeof tables, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    if (data[0] % 4 == 0)
        use_footer(data + 1, size - 1);
    else if (data[0] % 4 == 1)
        use_copies(data + 1, size - 1, "", 0);
    else if (data[0] % 4 == 3)
        use_cuda_alone(data + 1, size - 1);
    else
        use_changed(data + 1, size - 1);
    return 0;
}

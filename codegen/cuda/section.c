/* Section CUDA of an artifact (runtime/artifact.h). */
#include "codegen/cuda/cuda.h"
#include "runtime/sha256.h"

#include <stdlib.h>
#include <string.h>

enum { CODE_ALIGN = 16 };

static uint64_t aligned(uint64_t n, uint64_t to) {
    return (n + to - 1) / to * to;
}

/* Where everything goes: header, functions, images, strings, then the code. */
typedef struct layout {
    uint64_t functions, images, strings, code, end;
    uint32_t n_images;
} layout;

static uint64_t string_bytes(const cg_cuda_unit *units, int n) {
    uint64_t bytes = 1; /* the empty string */
    for (int i = 0; i < n; i++)
        bytes += strlen(units[i].function->name) + 1;
    return bytes;
}

static layout lay_out(const cg_cuda_unit *units, int n, int n_targets) {
    layout l = {.functions = aligned(sizeof(mcc_cuda), 8)};
    for (int i = 0; i < n; i++)
        l.n_images += 2u * (uint32_t)__builtin_popcount(units[i].targets);
    l.images = l.functions + (uint64_t)n * sizeof(mcc_cuda_function_entry);
    l.strings = l.images + l.n_images * sizeof(mcc_cuda_image_entry);
    l.code = aligned(l.strings + string_bytes(units, n), CODE_ALIGN);
    l.end = l.code;
    for (int i = 0; i < n; i++)
        for (int t = 0; t < n_targets; t++) /* an image that is not there has no bytes */
            l.end += aligned(units[i].images[t].cubin_bytes, CODE_ALIGN) +
                     aligned(units[i].images[t].ptx_bytes, CODE_ALIGN);
    return l;
}

static uint64_t put(uint8_t *out, uint64_t *at, const void *bytes, uint64_t size,
                    uint8_t digest[32]) {
    uint64_t offset = *at;
    memcpy(out + offset, bytes, size);
    rt_sha256_of(bytes, size, digest);
    *at = aligned(offset + size, CODE_ALIGN);
    return offset;
}

static void put_images(uint8_t *out, uint64_t *at, mcc_cuda_image_entry *entries, uint32_t function,
                       const cg_cuda_image *image, const cg_cuda_target *target) {
    mcc_cuda_image_entry e = {.function = function,
                              .form = MCC_CUDA_CUBIN,
                              .arch = target->arch,
                              .arch_specific = target->specific,
                              .registers = image->registers,
                              .spill_bytes = image->spill_bytes,
                              .static_shared_bytes = image->static_shared_bytes,
                              .occupancy_blocks = image->occupancy_blocks,
                              .bytes = image->cubin_bytes};
    e.offset = put(out, at, image->cubin, image->cubin_bytes, e.sha256);
    entries[0] = e;
    entries[1] = (mcc_cuda_image_entry){.function = function,
                                        .form = MCC_CUDA_PTX,
                                        .arch = target->arch,
                                        .arch_specific = target->specific,
                                        .bytes = image->ptx_bytes};
    entries[1].offset = put(out, at, image->ptx, image->ptx_bytes, entries[1].sha256);
}

void *cg_cuda_section_create(const cg_cuda_unit *units, int n_units,
                             const cg_cuda_target *const *targets, int n_targets, size_t *size) {
    layout l = lay_out(units, n_units, n_targets);
    uint8_t *out = calloc(1, l.end);
    if (!out)
        return NULL;
    mcc_cuda head = {
        .struct_bytes = sizeof head,
        .version = MCC_ARTIFACT_VERSION,
        .strings = {.offset = l.strings, .count = (uint32_t)string_bytes(units, n_units)},
        .functions = {.offset = l.functions, .count = (uint32_t)n_units},
        .images = {.offset = l.images, .count = l.n_images}};
    memcpy(out, &head, sizeof head);
    mcc_cuda_function_entry *functions = (mcc_cuda_function_entry *)(out + l.functions);
    mcc_cuda_image_entry *images = (mcc_cuda_image_entry *)(out + l.images);
    uint64_t name = 1, at = l.code;
    for (int i = 0; i < n_units; i++) {
        const cg_cuda_function *f = units[i].function;
        functions[i] = (mcc_cuda_function_entry){.name = (mcc_string)name,
                                                 .kernel = units[i].kernel,
                                                 .min_rows = f->min_rows,
                                                 .threads = f->threads,
                                                 .shared_bytes = f->shared_bytes,
                                                 .n_params = f->n_params,
                                                 .scratch_bytes = f->scratch_bytes,
                                                 .row_scratch_bytes = f->row_scratch_bytes,
                                                 .first_of_two = f->first_of_two,
                                                 .x = f->x,
                                                 .y = f->y};
        size_t length = strlen(f->name) + 1;
        memcpy(out + l.strings + name, f->name, length);
        name += length;
        for (int t = 0; t < n_targets; t++)
            if (cg_cuda_unit_has(&units[i], t)) {
                put_images(out, &at, images, (uint32_t)i, &units[i].images[t], targets[t]);
                images += 2;
            }
    }
    *size = l.end;
    return out;
}

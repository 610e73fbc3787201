/* Checks of section CUDA, the kernels compiled for GPUs. As in artifact_check.h, the bytes are
 * untrusted, and what has passed can be used without further checks of bounds. */
#ifndef MCC_RUNTIME_ARTIFACT_CUDA_H
#define MCC_RUNTIME_ARTIFACT_CUDA_H

#include "runtime/artifact_check.h"

#include <stddef.h>

/* Checked GPU code: pointers into the section's bytes, which must stay where they are. */
typedef struct rt_cuda_code {
    const mcc_cuda *header; /* NULL: the artifact has none */
    const char *strings;
    const mcc_cuda_function_entry *functions;
    const mcc_cuda_image_entry *images;
    uint32_t n_functions, n_images;
} rt_cuda_code;

enum {
    RT_CUDA_MAX_PARAMS = 512, /* 8 bytes each: 4 KB, what every architecture takes */
    RT_CUDA_MAX_THREADS = 1024,
    RT_CUDA_MAX_SHARED = 1 << 20,
    RT_CUDA_MAX_SCRATCH = 1 << 24, /* for a row and range */
    RT_CUDA_MAX_ARCHITECTURES = 32
};

/* `data`: the section, aligned to 8, `size` bytes. Guarantees for what passes: every index, string,
 * span and image is in bounds; PTX is zero-terminated; functions take as many parameters as the
 * launches of their kernel have arguments, and the step block, and scratch memory if they have any;
 * the second of two functions follows the first; grids are exact for T, S, R below 2^31; and of the
 * functions that any one architecture has images of, each kernel that is launched has one, the
 * first of which takes any number of rows. */
bool rt_cuda_check(const void *data, uint64_t size, const rt_tables *tables, const char *path,
                   rt_cuda_code *code, rt_error *error);

/* The functions of the architecture of which a device of `arch` takes code, in a form of the bits
 * 1 << MCC_CUDA_…: cubins of its own, else PTX of the newest one that it runs; all functions where
 * there is neither. Images are those of these functions. Texts and code are those of `code`, which
 * must live longer; freed by rt_cuda_select_free. False when memory is short. */
bool rt_cuda_select(const rt_cuda_code *code, uint32_t arch, uint32_t forms, rt_cuda_code *out);
void rt_cuda_select_free(rt_cuda_code *selected);

/* Whether an image runs on a device of `arch`. */
static inline bool rt_cuda_image_runs(const mcc_cuda_image_entry *m, uint32_t arch) {
    return m->form == MCC_CUDA_PTX && !m->arch_specific ? m->arch <= arch : m->arch == arch;
}
/* Of two that run, whether the first is preferred. */
bool rt_cuda_image_better(const mcc_cuda_image_entry *m, const mcc_cuda_image_entry *than);

static inline bool rt_cuda_has_scratch(const mcc_cuda_function_entry *f) {
    return f->scratch_bytes > 0 || f->row_scratch_bytes > 0;
}

/* Blocks along one axis, at most INT64_MAX for T, S, R below 2^31. */
static inline int64_t rt_cuda_blocks(const mcc_cuda_grid *grid, int64_t T, int64_t S, int64_t R) {
    if (grid->mult == 0)
        return 1;
    int64_t n = rt_dim(&grid->dim, T, S, R);
    return (n / grid->div + (n % grid->div != 0)) * grid->mult;
}

/* Bytes of scratch memory for steps of at most T, S, R and page tables that hold `positions`
 * positions; 0: no function has any. UINT64_MAX when there are no such. */
uint64_t rt_cuda_scratch_bytes(const rt_cuda_code *code, int64_t positions, int64_t T, int64_t S,
                               int64_t R);

/* The architectures of images in a form (MCC_CUDA_CUBIN, MCC_CUDA_PTX, or 0 for either), as
 * "sm_80, sm_90a"; "none" without any. Returns `text`. */
const char *rt_cuda_architectures(const rt_cuda_code *code, uint32_t form, char *text,
                                  size_t capacity);

#endif

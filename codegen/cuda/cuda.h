/* The CUDA backend: kernels to CUDA C, and through NVRTC to PTX and cubin.
 *
 * A kernel (codegen/kernel.h) becomes one or several __global__ functions, variants by number of
 * rows; which ones, and their tiles, is a matter of the architecture (tiles.h). Weights and KV
 * pages lie as on the CPU (codegen/packed.h, runtime/step.h), so an artifact can hold code for both
 * and one copy of the weights. NVRTC is loaded when it is first needed: nothing here needs the CUDA
 * Toolkit otherwise, and nothing needs a GPU. */
#ifndef MCC_CODEGEN_CUDA_CUDA_H
#define MCC_CODEGEN_CUDA_CUDA_H

#include "codegen/cuda/tiles.h"
#include "codegen/kernel.h"
#include "ir/target.h"
#include "runtime/artifact.h"

#include <stddef.h>
#include <stdio.h>

/* --- architectures -------------------------------------------------------------------------------
 */

/* A row of targets.def. */
typedef struct cg_cuda_target {
    const char *name;      /* "cuda:sm_90a" */
    const char *arch_name; /* "sm_90a" */
    uint32_t arch;         /* 90 */
    bool specific;
    uint32_t sm_registers, sm_shared, block_shared, sm_threads, sm_blocks; /* bytes, counts */
    /* Of the GPU that the cost model has in mind. */
    uint32_t sms, dram_bytes_a_cycle;
} cg_cuda_target;

const cg_cuda_target *cg_cuda_targets(int *count);
/* By name; NULL when unknown. */
const cg_cuda_target *cg_cuda_target_find(const char *name);
/* What the passes need to know; the same for all architectures. */
const ir_target *cg_cuda_pass_target(void);

/* Blocks that fit an SM at a time; 0 when not even one does. */
uint32_t cg_cuda_occupancy(const cg_cuda_target *target, uint32_t threads, uint32_t registers,
                           uint32_t shared_bytes);

/* --- code ----------------------------------------------------------------------------------------
 */

/* One __global__ function; everything is in the arena it was made in. */
typedef struct cg_cuda_function {
    const char *name;      /* the symbol: the kernel's name, and a variant's suffix */
    uint32_t min_rows;     /* of mcc_cuda_function_entry */
    uint32_t threads;      /* of a block */
    uint32_t min_blocks;   /* an SM that registers are limited for; 0: no matter */
    uint32_t shared_bytes; /* dynamic */
    uint32_t n_params;
    uint64_t scratch_bytes, row_scratch_bytes; /* of mcc_cuda_function_entry */
    bool first_of_two;                         /* likewise */
    mcc_cuda_grid x, y;
    const char *source; /* CUDA C that needs only the embedded headers */
} cg_cuda_function;

typedef struct cg_cuda_code {
    const cg_cuda_function *functions;
    int n_functions;
    cg_cuda_tiling tiling; /* what they are; key NULL: a kernel without tiles */
    bool given;            /* it is the table's */
} cg_cuda_code;

/* Generates a kernel's functions for an architecture, with the tiles of a table or where that has
 * none (it may be NULL) those of the cost model. False after reporting all that is not supported,
 * tiles that are not legal among it. */
bool cg_cuda_generate_for(const cg_kernel *kernel, const cg_cuda_target *target,
                          const cg_cuda_tiles *tiles, ir_arena *arena, ir_diag *diag,
                          cg_cuda_code *out);
/* The same with tiles that fit every architecture. */
bool cg_cuda_generate(const cg_kernel *kernel, ir_arena *arena, ir_diag *diag, cg_cuda_code *out);

/* A function compiled for one architecture; cubin and ptx are malloc'ed, freed by
 * cg_cuda_image_free. */
typedef struct cg_cuda_image {
    void *cubin;
    size_t cubin_bytes;
    char *ptx; /* zero-terminated; ptx_bytes counts the zero */
    size_t ptx_bytes;
    uint32_t registers, spill_bytes, static_shared_bytes;
    uint32_t occupancy_blocks;
} cg_cuda_image;

typedef struct cg_cuda_options {
    bool ptx_only;         /* no cubin, and none of the numbers that come with it: faster */
    const char *cache_dir; /* compiled images are looked for and kept here; NULL: no cache */
} cg_cuda_options;

/* Compiles a function. options NULL: all of it, without a cache. Safe to call from several threads
 * at once. The same input gives the same bytes. */
bool cg_cuda_compile(const cg_cuda_function *function, const cg_cuda_target *target,
                     const cg_cuda_options *options, ir_diag *diag, cg_cuda_image *out);
void cg_cuda_image_free(cg_cuda_image *image);

/* The machine code of a cubin as text, by nvdisasm. False after reporting, also where nvdisasm is
 * not found: neither on PATH nor in $CUDA_HOME/bin or /usr/local/cuda/bin. */
bool cg_cuda_disassemble(const cg_cuda_image *image, const char *name, FILE *out, ir_diag *diag);

/* --- the artifact's section ----------------------------------------------------------------------
 */

/* A function and its images, one for each target that has it. */
typedef struct cg_cuda_unit {
    const cg_cuda_function *function;
    uint32_t kernel;       /* index into the artifact's kernels */
    uint32_t targets;      /* bit t: target t has it */
    cg_cuda_image *images; /* [n_targets] */
} cg_cuda_unit;

static inline bool cg_cuda_unit_has(const cg_cuda_unit *unit, int target) {
    return unit->targets >> target & 1;
}

/* Section CUDA: a cubin and PTX for every function and target that has it. malloc'ed, freed by the
 * caller; NULL when memory is short. Variants of a kernel stand together, each target's in the
 * order of their min_rows. */
void *cg_cuda_section_create(const cg_cuda_unit *units, int n_units,
                             const cg_cuda_target *const *targets, int n_targets, size_t *size);

/* --- NVRTC ---------------------------------------------------------------------------------------
 */

/* Whether NVRTC can be loaded; its version ("13.0") and the library's path in `text`, or why not.
 */
bool cg_cuda_nvrtc_find(char *text, size_t capacity);
/* Loads it. False after reporting where it was looked for. */
bool cg_cuda_nvrtc_load(ir_diag *diag);
/* "13.0", once it is loaded. */
const char *cg_cuda_nvrtc_version(void);

#endif

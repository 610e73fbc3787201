/* The CPU backend: kernels to object code through LLVM. */
#ifndef MCC_CODEGEN_CPU_CPU_H
#define MCC_CODEGEN_CPU_CPU_H

#include "codegen/backend.h"
#include "codegen/kernel.h"
#include "ir/target.h"

#include <stdio.h>

/* A processor level that code can be generated for; rows of targets.def. */
typedef struct cg_cpu_target {
    const char *name;      /* "cpu:x86-64-v4" */
    const char *suffix;    /* of symbols: "v4" */
    const char *llvm_cpu;  /* "x86-64-v4" */
    const char *features;  /* LLVM's, such as "+avx512vnni" */
    uint64_t cpu_features; /* MCC_CPU_ bits of runtime/artifact.h */
    bool avx512, vnni;
} cg_cpu_target;

const cg_cpu_target *cg_cpu_targets(int *count);
/* By name; "cpu" is the best one this machine can run. NULL when unknown or none fits. */
const cg_cpu_target *cg_cpu_target_find(const char *name);
/* What the passes need to know; the same for all levels, so that one packing serves all. */
const ir_target *cg_cpu_pass_target(void);
/* This backend for whoever lists or writes a module's kernels and weights. */
extern const cg_backend cg_cpu_backend;

/* --- code ----------------------------------------------------------------------------------------
 */

typedef struct cg_cpu_options {
    int opt_level;              /* LLVM's, 0 … 3; 2 is the default */
    const char *graph_file;     /* file name in debug lines, without a directory: "model.ir" */
    FILE *emit_llvm, *emit_asm; /* NULL, or where to write the text */
} cg_cpu_options;

/* An object file in memory; bytes are malloc'ed, freed by the caller. */
typedef struct cg_object {
    void *bytes;
    size_t size;
} cg_object;

/* Compiles kernels for one target into one object; the symbol of kernel k is
 * "<k.name>.<target.suffix>", hidden: the descriptor leads to it. options NULL: the defaults, opt
 * level 2. Every kernel that cannot be generated is reported. Safe to call from several threads at
 * once (a context each). */
bool cg_cpu_compile(const cg_kernel *const *kernels, int n_kernels, const cg_cpu_target *target,
                    const cg_cpu_options *options, ir_diag *diag, cg_object *out);

/* Compiles the descriptor (runtime/artifact.h) that lists each target's kernels in order; without
 * targets it is one of an artifact whose code is all for GPUs. */
bool cg_cpu_compile_descriptor(const cg_kernel *const *kernels, int n_kernels,
                               const cg_cpu_target *const *targets, int n_targets, ir_diag *diag,
                               cg_object *out);

/* How a launch is split, the scratch bytes a thread needs for a kernel, and the bytes its launches
 * share for each range of positions (see mcc_cpu_call); the same for every target. */
cg_tiling cg_cpu_tiling(const cg_kernel *kernel);
int64_t cg_cpu_scratch_bytes(const cg_kernel *kernel);
int64_t cg_cpu_shared_bytes(const cg_kernel *kernel);

/* --- weights -------------------------------------------------------------------------------------
 */

/* Bytes of a weight of this type in layout "n16" or "n16x2" (type->layout), or row-major without.
 */
int64_t cg_cpu_packed_bytes(const ir_type *type);

/* Packs a weight. Its rows come from n_parts sources, one below the other (WEIGHT_CONCAT), each
 * with rows[i] rows in row-major storage of type's encoding or dtype. Writes the tiles tile_begin …
 * tile_end-1 to `out`, which points at the first of these tiles; a tile is 16 rows
 * (cg_cpu_packed_tiles of them), so that packing streams and threads can share it. Rows beyond the
 * last are zero. */
int64_t cg_cpu_packed_tiles(const ir_type *type);
void cg_cpu_pack_tiles(const ir_type *type, int n_parts, const void *const *sources,
                       const int64_t *rows, int64_t tile_begin, int64_t tile_end, void *out);
/* The inverse for one row: decodes row n of a packed weight to f32[K]. */
void cg_cpu_unpack_row(const ir_type *type, const void *packed, int64_t n, float *out);
/* The same row as the bytes it was packed from. */
void cg_cpu_restore_row(const ir_type *type, const void *packed, int64_t n, void *out);

#endif

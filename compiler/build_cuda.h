/* GPU code of a build: every kernel's functions, generated, compiled for each architecture on
 * several threads, written as texts or as the artifact's section. */
#ifndef MCC_COMPILER_BUILD_CUDA_H
#define MCC_COMPILER_BUILD_CUDA_H

#include "codegen/artifact/program.h"
#include "codegen/cuda/cuda.h"
#include "compiler/build.h"
#include "compiler/progress.h"

#include <cJSON.h>

typedef struct cuda_code {
    cg_cuda_unit *units; /* in the arena; their images are malloc'ed */
    int n_units;
    const cg_cuda_target *const *targets;
    int n_targets;
    tile_table tiles; /* what every kernel has that has tiles */
    int given_tiles;  /* of them those of the build's table */
} cuda_code;

/* Generates all functions in `arena`. False after reporting every kernel that cannot be. */
bool cuda_generate(const cg_program_list *program, const build_options *options, ir_arena *arena,
                   ir_diag *diag, cuda_code *out);
/* Compiles them. */
bool cuda_compile(cuda_code *code, const build_options *options, atomic_int *cancelled,
                  progress *progress, ir_diag *diag);
/* Writes BUILD_EMIT_TILES; or BUILD_EMIT_CUDA, _PTX or _SASS: to the directory options->output
 * where it is one or ends in a slash, a file a function (and architecture), or to `out`, each under
 * a line with its name.
 */
bool cuda_emit(const cuda_code *code, const build_options *options, FILE *out, ir_diag *diag);
/* Whether texts go to files in a directory. */
bool cuda_emits_directory(const build_options *options);

/* The worst and the sums over all images, for the summary. */
typedef struct cuda_facts {
    uint32_t registers, spill_bytes, functions_that_spill;
    uint64_t bytes;
} cuda_facts;
cuda_facts cuda_facts_of(const cuda_code *code);
/* For the manifest: NVRTC's version, and numbers for each function and architecture. */
void cuda_manifest(const cuda_code *code, const cg_program_list *program, cJSON *manifest);
void cuda_free(cuda_code *code);

#endif

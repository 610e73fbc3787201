/* The driver: a model in, an artifact out. */
#ifndef MCC_COMPILER_BUILD_H
#define MCC_COMPILER_BUILD_H

#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"
#include "compiler/frontend/frontend.h"
#include "compiler/tiles.h"
#include "passes/pass.h"

#include <stdatomic.h>

struct cg_program_list;

enum { BUILD_MAX_TARGETS = 8 };

typedef enum build_emit {
    BUILD_ARTIFACT,
    BUILD_EMIT_GRAPH,   /* the model's graph, which modelcc opt takes through the pipeline */
    BUILD_EMIT_IR,      /* the graph after the pipeline */
    BUILD_EMIT_PLAN,    /* the fusion plan */
    BUILD_EMIT_KERNELS, /* the description of each distinct kernel */
    BUILD_EMIT_LLVM,
    BUILD_EMIT_ASM,
    BUILD_EMIT_CUDA, /* CUDA C, PTX and machine code of each GPU function */
    BUILD_EMIT_PTX,
    BUILD_EMIT_SASS,
    BUILD_EMIT_TILES /* the tiles of each GPU kernel */
} build_emit;

typedef struct build_options {
    const char *input, *output; /* output NULL: for texts standard output */
    const cg_cpu_target *targets[BUILD_MAX_TARGETS];
    int n_targets;
    const cg_cuda_target *cuda_targets[BUILD_MAX_TARGETS];
    int n_cuda_targets;
    fe_task task;
    pass_options passes;
    build_emit emit;
    int jobs, opt_level;
    const char *print_after; /* a pass, "all", or NULL */
    bool dry_run, json, quiet, notes, no_tokenizer;
    bool no_cache;           /* of compiled GPU functions */
    const tile_table *tiles; /* of GPU kernels, or NULL: all are chosen */
    const char *tiles_file;  /* where they are from, or NULL */
    char tiles_sha256[65];   /* of that file */
    int64_t max_model_len;   /* 0: the model's */
    const char *depfile;     /* write make's dependencies here, or NULL */
    /* Called with the kernels before any is compiled, where not NULL. */
    void (*generated)(void *user, const struct cg_program_list *program);
    void *user;
} build_options;

/* Sets an option of modelcc build by its long name; EXIT_FINE or the exit code of a wrong one. */
int build_set_option(build_options *options, const char *name, const char *value);

/* Runs the build; prints a summary (or JSON) on standard output. False after reporting. cancelled
 * is polled; set it from a signal handler. */
bool build_run(const build_options *options, atomic_int *cancelled, ir_diag *diag);

#endif

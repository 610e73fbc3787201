/* The driver: a model in, an artifact out. */
#ifndef MCC_COMPILER_BUILD_H
#define MCC_COMPILER_BUILD_H

#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"
#include "passes/pass.h"

#include <stdatomic.h>

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
    BUILD_EMIT_SASS
} build_emit;

typedef struct build_options {
    const char *input, *output; /* output NULL: for texts standard output */
    const cg_cpu_target *targets[BUILD_MAX_TARGETS];
    int n_targets;
    const cg_cuda_target *cuda_targets[BUILD_MAX_TARGETS];
    int n_cuda_targets;
    pass_options passes;
    build_emit emit;
    int jobs, opt_level;
    const char *print_after; /* a pass, "all", or NULL */
    bool dry_run, json, quiet, notes, no_tokenizer;
    bool no_cache;         /* of compiled GPU functions */
    int64_t max_model_len; /* 0: the model's */
    const char *depfile;   /* write make's dependencies here, or NULL */
} build_options;

/* Runs the build; prints a summary (or JSON) on standard output. False after reporting. cancelled
 * is polled; set it from a signal handler. */
bool build_run(const build_options *options, atomic_int *cancelled, ir_diag *diag);

#endif

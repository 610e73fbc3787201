/* A module after the pipeline as the list of launches that a step is: distinct kernels, their
 * arguments, weights and buffers, numbered as the artifact's tables number them. */
#ifndef MCC_CODEGEN_ARTIFACT_PROGRAM_H
#define MCC_CODEGEN_ARTIFACT_PROGRAM_H

#include "codegen/backend.h"
#include "runtime/artifact.h"

/* A weight as it will lie in the file. Its rows come from parts, one below the other. */
typedef struct cg_weight {
    const char *name;
    ir_type type;
    int n_parts;
    const void **sources;
    int64_t *rows;
    uint64_t offset, bytes; /* in the weight section */
    uint8_t sha256[32];     /* filled by the writer */
} cg_weight;

typedef struct cg_launch {
    int kernel, first_arg, n_args;
    const ir_op *op; /* the KERNEL op */
    cg_tiling tiling;
} cg_launch;

typedef struct cg_buffer {
    ir_dim offset, bytes;
    ir_type type;
} cg_buffer;

typedef struct cg_output {
    const char *name;
    int buffer;
    int64_t width;
} cg_output;

typedef struct cg_program_list {
    const ir_module *module;
    int n_kernels, n_launches, n_args, n_weights, n_buffers, n_outputs;
    const cg_kernel **kernels; /* distinct ones */
    cg_launch *launches;
    mcc_arg_entry *args;
    cg_weight *weights;
    cg_buffer *buffers;
    cg_output *outputs;
    int64_t scratch_bytes, shared_bytes; /* the largest of the kernels' */
    ir_dim arena_bytes;
    uint64_t weight_bytes; /* of the whole section */
} cg_program_list;

/* Lowers every kernel of a module that went through the pipeline. NULL after reporting every op
 * that no schedule covers. Everything is in `arena`. */
cg_program_list *cg_program_create(const ir_module *module, const cg_backend *backend,
                                   ir_arena *arena, ir_diag *diag);

/* The tables section (runtime/artifact.h), malloc'ed; the caller frees it. */
typedef struct cg_model_facts {
    int64_t vocab_size, hidden_size, n_layers, max_model_len;
} cg_model_facts;

typedef struct cg_target_fact {
    const char *name;
    uint64_t cpu_features;
} cg_target_fact;

void *cg_tables_create(const cg_program_list *program, const cg_model_facts *facts,
                       const cg_target_fact *targets, int n_targets, size_t *size);

#endif

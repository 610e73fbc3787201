/* The manifest: what an artifact was made of and how, as JSON. No times, no directories. */
#ifndef MCC_COMPILER_MANIFEST_H
#define MCC_COMPILER_MANIFEST_H

#include "codegen/artifact/program.h"
#include "compiler/build.h"
#include "compiler/build_cuda.h"
#include "compiler/frontend/frontend.h"

/* SHA-256 of each of a model's files as hex, in the model's order; malloc'ed. */
typedef struct manifest_hashes {
    char (*hex)[65];
} manifest_hashes;

/* Returns malloc'ed JSON text, NULL when memory is short. */
char *manifest_create(const build_options *options, const fe_model *model,
                      const cg_program_list *program, const char *graph_hash, const char *strategy,
                      int64_t max_model_len, const manifest_hashes *hashes, const cuda_code *cuda);

#endif

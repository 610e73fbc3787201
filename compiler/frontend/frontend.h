/* The frontend: a model file or directory in, a graph out. The driver calls only these.
 *
 * Formats: a GGUF file, or a Hugging Face directory (config.json, safetensors, tokenizer.json).
 * Architectures: archs.def. What a reader found is in source.h's fe_model. */
#ifndef MCC_FRONTEND_FRONTEND_H
#define MCC_FRONTEND_FRONTEND_H

#include "compiler/frontend/source.h"

/* Opens the model at `path` (copied) and checks all of it: format, architecture, hyperparameters,
 * every tensor's presence, shape and place. Weights stay in the mapped files. NULL after reporting
 * everything found to be wrong; notes and warnings may be there as well. The files must not change
 * while the model is open. Not thread-safe per model. */
fe_model *fe_open(const char *path, ir_diag *diag);

/* Frees the model and unmaps its files. NULL is fine. */
void fe_close(fe_model *model);

/* What a step gives for each of output_rows, in f32: logits; or the row that logits would be made
 * of, for a text's embedding: of its last token, or the mean over all of them. */
typedef enum fe_task { FE_LOGITS, FE_EMBEDDING_LAST, FE_EMBEDDING_MEAN } fe_task;

/* Builds the model's graph: token_ids and positions in, rows out; plain causal attention over whole
 * sequences. The module's weights point into the model's files, so the model
 * must outlive it. NULL after an error. The caller destroys the module (ir_module_destroy). */
ir_module *fe_build(const fe_model *model, fe_task task, ir_diag *diag);

#endif

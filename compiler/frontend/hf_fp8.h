/* FP8 weights of Hugging Face checkpoints, as their codes and scales are: nothing is rounded again.
 *
 * A weight x.weight in F8_E4M3 has its scales in x.weight_scale_inv or x.weight_scale (what codes
 * are multiplied by, in both): one for the tensor, one a row, or one a block of rows and k. Written
 * by transformers' and DeepSeek's "fp8" (https://huggingface.co/docs/transformers/quantization/
 * finegrained_fp8) and by compressed-tensors in its format "float-quantized"
 * (https://github.com/vllm-project/compressed-tensors). */
#ifndef MCC_FRONTEND_HF_FP8_H
#define MCC_FRONTEND_HF_FP8_H

#include "compiler/frontend/json.h"
#include "compiler/frontend/source.h"

typedef struct fe_hf_fp8 {
    bool there;
    int64_t block_rows, block_cols; /* of a scale that is neither a tensor's nor a row's; 0: none */
} fe_hf_fp8;

/* Reads quantization_config of config.json, named `file`; absent, there is no fp8. Reports what of
 * it is not supported, other methods of quantization among it. */
bool fe_hf_fp8_config(const cJSON *root, fe_hf_fp8 *fp8, const char *file, ir_arena *arena,
                      ir_diag *diag);

/* Gives the model's tensors in F8_E4M3 the format FE_FP8_E4M3, in memory of the arena, and takes
 * the scales out of its list. Reports every tensor that cannot be had exactly. */
bool fe_hf_fp8_tensors(fe_model *model, const fe_hf_fp8 *fp8, ir_diag *diag);

#endif

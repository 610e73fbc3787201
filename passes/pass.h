/* Passes: each a function over a module, listed in passes.def, run in the order of pipeline.c. */
#ifndef MCC_PASSES_PASS_H
#define MCC_PASSES_PASS_H

#include "ir/ir.h"
#include "ir/target.h"

#include <stdio.h>

typedef struct plan plan; /* the fusion plan, plan.h */

typedef enum pass_quantize {
    PASS_QUANTIZE_KEEP, /* the file's encodings */
    PASS_QUANTIZE_F16,
    PASS_QUANTIZE_BF16,
    PASS_QUANTIZE_INT8,
    PASS_QUANTIZE_INT4,
    PASS_QUANTIZE_FP8
} pass_quantize;

/* As --quantize and manifests call them: keep, f16, …; by number, then NULL. */
extern const char *const pass_quantize_names[];

/* Element type of the KV cache's pages. */
typedef enum pass_kv { PASS_KV_F16, PASS_KV_F32, PASS_KV_INT8, PASS_KV_FP8 } pass_kv;

/* As --kv-cache-dtype and manifests call it: f16, f32, int8, fp8_e4m3; from_name also takes auto
 * (f16) and fp8 (fp8_e4m3). */
const char *pass_kv_name(pass_kv kv);
bool pass_kv_from_name(const char *name, pass_kv *kv);

struct pass_options;
/* As --activations and manifests call them: int8, f32, f16, bf16, fp8. */
const char *pass_activations_name(const struct pass_options *options);
bool pass_activations_from_name(const char *name, struct pass_options *options);

/* Options of the passes; zero is the default of each. */
typedef struct pass_options {
    pass_quantize quantize;
    bool activations_f32;      /* keep activations in f32 beside quantized weights */
    ir_dtype activations_half; /* f16, bf16: activations in this type beside weights of it and of
                                  fp8; IR_F32 (zero): in f32 */
    bool activations_fp8;      /* activations in a8_e4m3 beside weights in fp8 */
    pass_kv kv;
    bool sampling;         /* the step chooses tokens as well */
    const char *fusion;    /* none, pointwise, full (NULL: full), prologues; ignored with a plan */
    const char *plan_text; /* a plan to replay, or NULL */
    const char *plan_file; /* its name, for messages */
} pass_options;

typedef struct pass_context {
    ir_module *module;
    ir_diag *diag;
    const pass_options *options;
    const ir_target *target;
    plan *plan; /* made by fusion-plan, followed by fuse */
} pass_context;

/* A pass changes the module; false after an error. Choices a user may ask about are notes. */
typedef bool pass_fn(pass_context *context);

typedef struct pass_info {
    const char *name;
    pass_fn *run;
    const char *summary;
} pass_info;

/* All passes, in pipeline order where they have one. */
const pass_info *pass_list(int *count);
const pass_info *pass_find(const char *name); /* NULL when unknown */

/* What runs after each pass: the driver prints the module, reports progress, verifies. */
typedef bool pass_after(void *user, const pass_info *pass, pass_context *context);

/* The whole pipeline of `modelcc build`, in order. after may be NULL. */
bool pass_run_pipeline(pass_context *context, pass_after *after, void *user);

/* The passes named in a comma-separated list. */
bool pass_run_list(pass_context *context, const char *names, pass_after *after, void *user);

#endif

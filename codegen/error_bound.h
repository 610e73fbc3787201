/* How far a backend's f32 results may be from the interpreter's: running error analysis (Higham,
 * Accuracy and Stability of Numerical Algorithms, 2002, section 3.3).
 *
 * The interpreter evaluates each op in f64 and rounds its result once; a backend rounds every f32
 * operation, in the order that codegen/kernel.h states. So each value gets a bound on |backend -
 * interpreter| made of what its operands' bounds become and of the op's own roundings, U = 2^-24
 * each. Nothing here is measured: where a bound is 0 the bits must be equal. Watches an interpreter
 * that runs a module after the pipeline. Memory: 12 bytes for each element of a step's values. */
#ifndef MCC_CODEGEN_ERROR_BOUND_H
#define MCC_CODEGEN_ERROR_BOUND_H

#include "ir/interp.h"

typedef struct bound_value {
    int64_t count;
    float *value;
    double *error;
} bound_value;

/* Largest magnitudes and errors of what a layer's cache holds. */
typedef struct bound_cache {
    double key, value, key_error, value_error;
} bound_cache;

typedef struct bounds {
    const ir_module *module;
    ir_arena *arena, *of_step;
    const ir_interp_step *step;
    bound_value *values; /* by value id, of the last step */
    bound_cache **cache; /* by KV group and layer, over all steps */
    /* Set by whoever also puts the interpreter's keys and values back into pages: errors of what
     * another kernel stored are then none. */
    bool caches_replaced;
    /* Attention over pages of f16 and quantized ones runs on tensor cores: queries are the sum of
     * two f16, exponentials and quantized values are rounded to f16, sums are truncated
     * (codegen/cuda/kernels/attention_f16.cuh).
     */
    bool tensor_attention;
    /* Codes of what is quantized are taken for equal even where their inputs are not: what most
     * values keep to, since few inputs are so close to the middle between two codes. No bound. */
    bool assume_codes;
    char failure[160]; /* what no bound is known for, "" if nothing: bounds then mean nothing */
} bounds;

bounds *bounds_create(const ir_module *module);
void bounds_destroy(bounds *b); /* NULL is allowed */

/* Before each run of the interpreter; what was known of the step before is gone, but for caches. */
void bounds_begin(bounds *b, const ir_interp_step *step);

/* For ir_interp_set_watch, with a bounds as user. */
void bound_watch(void *user, const ir_op *op, int result, const float *data, int64_t count);

/* A kernel's result with its error, given that the kernel's inputs were the interpreter's: whoever
 * compares puts them back, so errors do not add up from kernel to kernel. Only what is in the cache
 * keeps its errors, unless caches_replaced. */
const bound_value *bound_result(const bounds *b, const ir_op *kernel, int result);

/* What a region's argument stands for. */
const ir_value *bound_source(const ir_value *v);

/* A row as stored, decoded; `magnitude` (or NULL) gets |scale * code| + |offset|, which is what
 * roundings are relative to. */
void bound_decode(const ir_type *type, const uint8_t *row, int64_t k, float *out, float *magnitude);

#endif

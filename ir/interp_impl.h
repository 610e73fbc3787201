/* What the interpreter's files share: interp.c drives, interp_value.c stores values, interp_ops.c,
 * interp_blocks.c and interp_sample.c evaluate. */
#ifndef MCC_IR_INTERP_IMPL_H
#define MCC_IR_INTERP_IMPL_H

#include "ir/interp.h"

/* The type's dims for this step. */
typedef struct interp_shape {
    int rank;
    int64_t dims[IR_MAX_RANK];
    int64_t count;
} interp_shape;

/* Rows of one weight, still as stored. */
typedef struct interp_part {
    const uint8_t *data;
    const ir_type *type;
    int64_t rows;
} interp_part;

typedef struct interp_kv_layer interp_kv_layer;

/* What a value holds during a step: its elements as f32 (integers exactly, so at most 2^24), or
 * rows of weights that are decoded when an op reads them, or a layer of the cache. */
typedef struct interp_value {
    bool ready, owned; /* owned: data and parts are freed with this value */
    float *data;
    interp_part *parts;
    int n_parts;
    interp_kv_layer *kv;
    bool kv_appended; /* sees this step's keys; else only those of earlier positions */
} interp_value;

/* Keys and values stored for one sequence: [length][heads * head_dim], already rounded. */
typedef struct interp_kv_slot {
    int64_t length, capacity;
    float *keys, *values;
} interp_kv_slot;

struct interp_kv_layer {
    const ir_kv_group *group;
    int n_slots;
    interp_kv_slot *slots; /* by slot number */
};

typedef struct interp_output {
    const char *name;
    float *data;
    int64_t count;
} interp_output;

struct ir_interp {
    const ir_module *module;
    ir_diag *diag; /* of the call in progress */
    ir_interp_step step;
    interp_value *values; /* by value id */
    int *last_use;        /* by value id: place of the last top-level op that reads it, or -1 */
    interp_kv_layer **kv; /* [group][layer] */
    int n_outputs;
    interp_output *outputs;
    ir_interp_watch *watch;
    void *watch_user;
};

/* An op's evaluation: reads its operands' values, fills its results'. False after reporting. */
typedef bool interp_eval(ir_interp *in, const ir_op *op);

/* --- interp_value.c ----------------------------------------------------------------------------
 */

/* False after reporting when a dim is negative or the number of elements overflows. */
bool interp_shape_of(ir_interp *in, const ir_op *op, const ir_type *type, interp_shape *shape);

/* Memory for a value's elements, or NULL after reporting. Freed with free(). */
float *interp_alloc(ir_interp *in, const ir_op *op, int64_t count);

/* Storage for result i of op, which the caller fills; `shape` may be NULL. */
float *interp_result(ir_interp *in, const ir_op *op, int i, interp_shape *shape);

/* The elements of operand i, decoded now if they are still rows of weights. */
const float *interp_operand(ir_interp *in, const ir_op *op, int i, interp_shape *shape);

/* Row i (of all dims but the last) of a ready tensor value: in place, or decoded into `scratch`. */
const float *interp_row(const interp_value *value, int64_t row, int64_t k, float *scratch);

/* Decodes n elements of a weight's row. */
void interp_decode(const ir_type *type, const void *row, int64_t n, float *out);

/* Rounds to dtype, to nearest even; false when v does not fit an integer type, or is an integer
 * that f32 does not hold exactly. */
bool interp_round(ir_dtype dtype, double v, float *out);
bool interp_round_error(ir_interp *in, const ir_op *op, ir_dtype dtype, double v);

void interp_value_clear(interp_value *value);

/* Strides, in elements, with which `from` is read when broadcast to `to` (numpy's rules; 0 where
 * its size is 1). False when they do not fit. */
bool interp_broadcast_strides(const interp_shape *from, const interp_shape *to, int64_t *strides);

/* Advances a row-major odometer over dims[0..rank-1] and the offsets that follow it; false when it
 * has come round. */
bool interp_next(int rank, const int64_t *dims, int64_t *index, int n,
                 const int64_t (*strides)[IR_MAX_RANK], int64_t *offsets);

/* The cache layer a kv value stands for: made on first use. NULL after reporting. */
interp_kv_layer *interp_kv_get(ir_interp *in, const ir_op *op, int64_t group, int64_t layer);
void interp_kv_clear(ir_interp *in);
/* The slot, grown to hold `positions`; NULL after reporting. */
interp_kv_slot *interp_kv_slot_get(ir_interp *in, const ir_op *op, interp_kv_layer *layer,
                                   int32_t slot, int64_t positions);

/* --- the evaluators ----------------------------------------------------------------------------
 */

interp_eval interp_elementwise, interp_reshape, interp_transpose, interp_broadcast, interp_slice,
    interp_concat, interp_gather, interp_reduce, interp_softmax, interp_matmul;
interp_eval interp_norm, interp_rope_table, interp_rope, interp_attention, interp_kv_cache,
    interp_kv_append, interp_paged_attention, interp_quantize, interp_sample;

#endif

/* The reference interpreter: evaluates any module at any stage with plain loops in f32. It is the
 * oracle for passes and backends, so it shares no lowering with them and is not meant to be fast.
 */
#ifndef MCC_IR_INTERP_H
#define MCC_IR_INTERP_H

#include "ir/ir.h"

typedef struct ir_interp ir_interp;

/* How the token of one row is chosen: runtime/sampler.h. */
typedef struct ir_interp_sampling {
    float temperature, top_p, min_p;
    int32_t top_k, position;
    uint64_t seed;
    bool sum; /* the sum of weights for temperature 1 is asked for */
} ir_interp_sampling;

/* One step of a ragged batch. Sequence s owns tokens seq_offsets[s] … seq_offsets[s+1]-1, at
 * consecutive positions; its keys and values are kept under cache slot seq_slots[s], and a token at
 * position 0 starts the slot anew. */
typedef struct ir_interp_step {
    int32_t T, S, R;
    const int32_t *token_ids;           /* [T] */
    const int32_t *positions;           /* [T] */
    const int32_t *seq_offsets;         /* [S+1] */
    const int32_t *seq_slots;           /* [S] */
    const int32_t *output_rows;         /* [R], indices of tokens */
    const ir_interp_sampling *sampling; /* [R]; NULL: sample gives zeros */
    const uint32_t *token_masks;        /* [R][ceil(V/32)], bit set: token allowed; NULL: all are */
} ir_interp_step;

/* The module must outlive the interpreter, verify, and have data for its weights (checked). */
ir_interp *ir_interp_create(const ir_module *module, ir_diag *diag);
void ir_interp_destroy(ir_interp *interp);

/* Called after each op, bodies included, with a result's value decoded to f32 (i32 values are
 * converted); valid during the call. Not for weights, weight_concat and pack, which stay as stored
 * until an op reads their rows, nor for kv values. */
typedef void ir_interp_watch(void *user, const ir_op *op, int result, const float *data,
                             int64_t count);
void ir_interp_set_watch(ir_interp *interp, ir_interp_watch *watch, void *user);

/* Runs one step. False after reporting what is wrong with the step or an op. */
bool ir_interp_run(ir_interp *interp, const ir_interp_step *step, ir_diag *diag);

/* An output of the last step by its name; NULL when there is none. Valid until the next run. */
const float *ir_interp_output(const ir_interp *interp, const char *name, int64_t *count);

/* Evaluates a value that depends on weights and constants only (for constant folding and tests):
 * its elements as f32 in `arena`, or NULL. */
float *ir_interp_constant(const ir_module *module, const ir_value *value, ir_arena *arena,
                          ir_diag *diag);

/* Values given for a kernel's (or any op's) operands, results returned as f32: to check one kernel
 * against a backend. inputs[i] has the elements of operand i (quantized operands: already decoded;
 * kv operands: NULL, slots empty). T, S, R come from `step`; its arrays may be NULL where the op
 * needs none of them. Returns one array per result in
 * `arena` (NULL for kv results). */
bool ir_interp_op(const ir_op *op, const ir_interp_step *step, const float *const *inputs,
                  float **results, ir_arena *arena, ir_diag *diag);

#endif

/* What passes must know of a target, as plain data; codegen fills it in. */
#ifndef MCC_IR_TARGET_H
#define MCC_IR_TARGET_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ir_target {
    const char *name;     /* "cpu:x86-64-v3" */
    int64_t tile_n;       /* output rows that one packed tile of a weight interleaves */
    int64_t group_k;      /* k that a quantized tile holds in one block */
    int64_t page_tokens;  /* of the KV cache */
    int64_t buffer_align; /* of arena buffers, bytes */
    /* What may be fused around a matmul: */
    bool matmul_epilogue;      /* elementwise ops and residual adds on its output */
    bool matmul_lockstep;      /* two weights of equal size in lockstep (gate and up) */
    int64_t matmul_group_axis; /* outputs resident at once: a group reduction up to this size
                                  (quantize) may join the epilogue; 0: none */
    bool matmul_prologue;      /* row programs that compute its input (norms, quantize, …), in its
                                  kernel: a plan may ask for them, and strategy prologues does; */
    bool matmul_prologue_pays; /* so does strategy full */
    bool matmul_heads;         /* rope and the cache's append on the heads of its output */
    bool attention_epilogue;   /* elementwise ops and group reductions within a head */
    bool rows_chain;           /* several row programs in one kernel */
} ir_target;

#endif

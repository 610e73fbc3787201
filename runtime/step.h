/* The step block: the whole input of one step of a ragged batch, in one contiguous, versioned block
 * that host or device code reads. The engine fills it; compiled kernels read it.
 *
 * A step computes T tokens of S sequences and returns R rows. Offsets are in bytes from the start
 * of the block, multiples of 4; a part that a step does not use has offset 0. */
#ifndef MCC_RUNTIME_STEP_H
#define MCC_RUNTIME_STEP_H

#include <stdint.h>

enum { MCC_STEP_MAGIC = 0x4b4c4253 /* "SBLK" */, MCC_STEP_VERSION = 1 };

typedef struct mcc_step {
    uint32_t magic, version;
    uint32_t bytes; /* of the whole block */
    int32_t T, S, R;
    int32_t G; /* KV groups */
    int32_t P; /* entries of a page table: pages a sequence can have */
    /* i32[T]: a token id >= 0, or -(1 + r): the token sampled for row r of the previous step. */
    uint32_t token_ids;
    uint32_t positions;    /* i32[T], absolute positions in the sequence */
    uint32_t token_seqs;   /* i32[T], the sequence (0 … S-1) a token belongs to */
    uint32_t seq_offsets;  /* i32[S+1], first token of each sequence; the last entry is T */
    uint32_t context_lens; /* i32[S], positions stored after this step, this step's included */
    uint32_t page_tables;  /* i32[G][S][P], page numbers in each group's pool; -1: no page */
    uint32_t output_rows;  /* i32[R], tokens whose rows are asked for, ascending */
    uint32_t sampling;     /* mcc_step_sampling[R], at a multiple of 8; or 0: the host samples */
    uint32_t token_masks;  /* u32[R][ceil(V/32)], bit set: token allowed; or 0 */
    uint32_t adapter_ids;  /* reserved: i32[S] */
    uint32_t tree_masks;   /* reserved */
    int32_t rank, world;   /* reserved: 0 and 1 */
    uint32_t reserved[5];
} mcc_step;

/* Sampling of one row, as runtime/sampler.h defines it. The random stream is counter-based: (seed,
 * position). */
typedef struct mcc_step_sampling {
    float temperature, top_p, min_p;
    int32_t top_k;
    uint64_t seed;
    int32_t position; /* that the token will have */
    uint32_t sum;     /* 1: the row's sum is asked for */
} mcc_step_sampling;

/* What was chosen for a row: op sample's result (ir/ops.def). */
typedef struct mcc_step_sampled {
    float id; /* a whole number; -1: no logit is a number above -infinity */
    float logit, greatest;
    float sum; /* of the weights for temperature 1, for rt_logprob_of; 0 where not asked for */
} mcc_step_sampled;

/* --- kernels of CPU artifacts -------------------------------------------------------------------
 */

/* What a kernel is called with. args are the launch's arguments, in order, as pointers:
 *   buffer  its place in the activation arena
 *   weight  its place in the weight section
 *   kv      the group's pool, advanced to the layer: page p of this layer is at p * layer_bytes
 *           (a pool is [layer][page], so a layer's pages are one contiguous array)
 *   step    an array of the step block (token_ids, positions, output_rows)
 * A page of a layer holds K as [head][head_dim][page_tokens], then V as
 * [head][page_tokens][head_dim], in the group's element type. Pages of int8 and fp8 (e4m3) hold
 * codes there, and behind them f16 scales, of K as [head][page_tokens], then of V: a number is its
 * code times the scale of its token and head. Positions not yet written may hold anything, NaNs
 * too: they must be masked, not multiplied by zero. With a sliding window, page table entries below
 * the absolute range of 256 positions that holds the window's first position (of the sequence's
 * first token in this step) may be -1. */
typedef struct mcc_cpu_call {
    const mcc_step *step;
    void *const *args;
    int64_t T, S, R;
    /* Memory that all tiles of a launch share, 64-byte aligned: MCC_CPU_COUNTER_BYTES that are zero
     * before a launch and that the launch leaves zero, then the tables' shared_bytes for each range
     * of MCC_CPU_RANGE positions that the step's page tables have room for. */
    void *shared;
} mcc_cpu_call;

enum { MCC_CPU_COUNTER_BYTES = 4096, MCC_CPU_RANGE = 256 };

/* Computes tiles tile_begin … tile_end-1 of a launch. Tiles wait for nothing and may run on any
 * thread in any order; scratch is this thread's own, 64-byte aligned, of the size the tables say.
 * Its first 8 bytes are 0 in a thread's first call of a launch; its later calls of that launch find
 * in scratch what they left there, except that the first 8 bytes may be 0 again. */
typedef void mcc_cpu_kernel(const mcc_cpu_call *call, int64_t tile_begin, int64_t tile_end,
                            void *scratch);

#endif

/* Builds step blocks (step.h) in memory that is allocated once, for the largest step. */
#ifndef MCC_RUNTIME_STEP_BLOCK_H
#define MCC_RUNTIME_STEP_BLOCK_H

#include "runtime/error.h"
#include "runtime/kv.h"
#include "runtime/step.h"

#include <stddef.h>

typedef struct rt_step_limits {
    int32_t T, S, R; /* of the largest step */
    int32_t G, P;    /* KV groups, entries of a page table */
    int32_t V, M;    /* token ids, and rows of a step with token masks at most; M 0: none */
} rt_step_limits;

typedef struct rt_step_block {
    mcc_step *step; /* the block; its parts keep their places from step to step */
    rt_step_limits limits;
    size_t bytes;
    int32_t *token_ids, *positions, *token_seqs, *seq_offsets, *context_lens, *page_tables,
        *output_rows;
    mcc_step_sampling *sampling; /* [R] */
    uint32_t *token_masks;       /* [M][mask_words], the last part of the block */
    int32_t mask_words;
    /* Of a step with token masks: writes those of its R rows. The device calls it once, while it
     * computes what does not need them. */
    void (*write_masks)(void *context);
    void *write_masks_context;
    /* Whether the host needs the rows' logits, besides what a device samples from them; true after
     * rt_step_begin. */
    bool logits;
    int32_t *slots;    /* [S] the cache's slot of each sequence */
    int32_t *row_used; /* [G*S] entries of each row of page_tables that are not -1 */
} rt_step_block;

bool rt_step_block_create(rt_step_block *block, const rt_step_limits *limits, rt_error *error);
void rt_step_block_destroy(rt_step_block *block); /* zeroed or created */

/* A step is built by begin, then sequences with their rows, then finish. */
void rt_step_begin(rt_step_block *block);

/* Adds `n` tokens of the sequence in `slot`, at positions first … first+n-1. The limits hold. */
void rt_step_add(rt_step_block *block, int32_t slot, const int32_t *ids, int32_t n, int32_t first);

/* Asks for the row of token `token` of the step; ascending. */
void rt_step_add_row(rt_step_block *block, int32_t token);

/* Asks the device to sample from the row added last; of a step either all rows are sampled or none.
 */
void rt_step_sample_row(rt_step_block *block, const mcc_step_sampling *sampling);

/* Asks for token masks of all rows, at most M, which the device gets by a call of write_masks. */
void rt_step_mask_rows(rt_step_block *block, void (*write_masks)(void *), void *context);

/* Writes the page tables, for which pages have been reserved, and the counts. */
void rt_step_finish(rt_step_block *block, const rt_kv *kv);

#endif

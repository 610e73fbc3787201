/* The paged KV cache: which pages of memory hold which positions of which sequence.
 *
 * Each KV group (layers that attend alike) has a pool of pages; a page holds page_tokens positions
 * of all the group's layers, under one number. The pool is laid out [layer][page], so that a
 * layer's part of page p is at base + layer * layer_stride + p * layer_bytes. Only the bookkeeping
 * is done here: the pools' memory is the device's, which is told how large they are and where in
 * them a layer begins. Sequences have slots, numbered from 0. */
#ifndef MCC_RUNTIME_KV_H
#define MCC_RUNTIME_KV_H

#include "runtime/artifact.h"
#include "runtime/error.h"

#include <stdbool.h>

typedef struct rt_kv rt_kv;

typedef struct rt_kv_options {
    int slots;             /* sequences */
    int64_t max_len;       /* positions of a sequence at most */
    int64_t max_step;      /* positions that one step adds to a sequence at most */
    uint64_t memory_bytes; /* for all pools; 0: what `slots` sequences of max_len need */
} rt_kv_options;

/* NULL on error: out of memory, or memory_bytes is less than what one sequence of max_len needs. */
rt_kv *rt_kv_create(const mcc_kv_group_entry *groups, uint32_t n_groups,
                    const rt_kv_options *options, rt_error *error);
void rt_kv_destroy(rt_kv *kv);

/* Bytes that the device provides for a group's pool. */
uint64_t rt_kv_pool_bytes(const rt_kv *kv, uint32_t group);

/* Where a layer's page 0 lies, in bytes from the beginning of the group's pool. */
uint64_t rt_kv_layer_offset(const rt_kv *kv, uint32_t group, uint32_t layer);

/* Entries of a page table: pages that max_len positions need in the group with the smallest
 * pages. */
int32_t rt_kv_table_entries(const rt_kv *kv);

/* A slot's page table, i32[rt_kv_table_entries()]: page numbers, -1 where there is none. */
const int32_t *rt_kv_table(const rt_kv *kv, uint32_t group, int slot);

/* Pages that `length` positions span in a group. */
int64_t rt_kv_pages(const rt_kv *kv, uint32_t group, int64_t length);

/* Positions that a slot holds. */
int64_t rt_kv_length(const rt_kv *kv, int slot);

/* Gives a slot the pages for positions up to `length`, which a step is about to write; rt_kv_length
 * stays. All or nothing; false when pages have run out or length exceeds max_len. */
bool rt_kv_reserve(rt_kv *kv, int slot, int64_t length, rt_error *error);

/* After the step: the slot holds `length` positions. Frees the pages that no later step needs:
 * those that lie wholly behind the windows, with a margin (see kv.c). */
void rt_kv_commit(rt_kv *kv, int slot, int64_t length);

/* Forgets positions from `length` on and frees their pages; also pages that were reserved and not
 * committed. False when what remains could not be continued, because pages that a window at that
 * position sees have been freed; then nothing changes. Length 0 always works. */
bool rt_kv_truncate(rt_kv *kv, int slot, int64_t length);

uint64_t rt_kv_bytes_reserved(const rt_kv *kv);
uint64_t rt_kv_bytes_used(const rt_kv *kv); /* of pages that slots hold */

/* Bytes of pages that one sequence of `length` positions needs at most. */
uint64_t rt_kv_bytes_for(const mcc_kv_group_entry *groups, uint32_t n_groups, int64_t length,
                         int64_t max_step);

#endif

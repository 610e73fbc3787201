/* The paged KV cache: which pages of memory hold which positions of which sequence.
 *
 * Each KV group (layers that attend alike) has a pool of pages; a page holds page_tokens positions
 * of all the group's layers, under one number. The pool is laid out [layer][page], so that a
 * layer's part of page p is at base + layer * layer_stride + p * layer_bytes. Only the bookkeeping
 * is done here: the pools' memory is the device's, which is told how large they are and where in
 * them a layer begins. Sequences have slots, numbered from 0.
 *
 * A page is free, owned (by one sequence or, as a shared beginning, by several), or cached: owned
 * by none, but what it holds is known, so that a sequence that begins alike can take it over. The
 * pages used least recently are evicted when free ones run out. Nothing is allocated after
 * rt_kv_create. One thread at a time. */
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
    uint64_t swap_bytes;   /* of the host's memory, for sequences that are swapped out; 0: none */
    int hash_bits; /* of the prefix cache's hashes; 0: all. For tests: few make collisions */
} rt_kv_options;

/* NULL on error: out of memory, or memory_bytes is less than what one sequence of max_len needs. */
rt_kv *rt_kv_create(const mcc_kv_group_entry *groups, uint32_t n_groups,
                    const rt_kv_options *options, rt_error *error);
void rt_kv_destroy(rt_kv *kv);

/* --- sizes ---------------------------------------------------------------------------------------
 */

/* Bytes that the device provides for a group's pool. */
uint64_t rt_kv_pool_bytes(const rt_kv *kv, uint32_t group);

/* Where a layer's page 0 lies, in bytes from the beginning of the group's pool. */
uint64_t rt_kv_layer_offset(const rt_kv *kv, uint32_t group, uint32_t layer);

/* Entries of a page table: pages that max_len positions need in the group with the smallest
 * pages. */
int32_t rt_kv_table_entries(const rt_kv *kv);

uint64_t rt_kv_bytes_reserved(const rt_kv *kv);
uint64_t rt_kv_bytes_used(const rt_kv *kv);   /* of pages that sequences own, shared ones once */
uint64_t rt_kv_bytes_cached(const rt_kv *kv); /* of pages that none owns, kept for reuse */

/* Bytes of pages that one sequence of `length` positions needs at most. */
uint64_t rt_kv_bytes_for(const mcc_kv_group_entry *groups, uint32_t n_groups, int64_t length,
                         int64_t max_step);

/* Positions that all pools together can hold in sequences of `length` at most: what a user wants to
 * know. */
int64_t rt_kv_capacity(const rt_kv *kv, int64_t length);

/* --- sequences -----------------------------------------------------------------------------------
 */

/* A slot's page table, i32[rt_kv_table_entries()]: page numbers, -1 where there is none. */
const int32_t *rt_kv_table(const rt_kv *kv, uint32_t group, int slot);

/* Pages that `length` positions span in a group. */
int64_t rt_kv_pages(const rt_kv *kv, uint32_t group, int64_t length);

/* Positions that a slot holds. */
int64_t rt_kv_length(const rt_kv *kv, int slot);

/* Gives a slot the pages for positions up to `length`, which a step is about to write; rt_kv_length
 * stays. A page to be written that others own too becomes a copy (see rt_kv_copies). All or
 * nothing; false when pages have run out or length exceeds max_len. */
bool rt_kv_reserve(rt_kv *kv, int slot, int64_t length, rt_error *error);

/* An empty slot gets pages of its own for `length` positions, a multiple of rt_kv_block, which the
 * caller fills, and then commits: those from rt_kv_first_page on. All or nothing. */
bool rt_kv_restore(rt_kv *kv, int slot, int64_t length, uint64_t salt, rt_error *error);

/* The first page, by its number in the sequence, that a step at `length` reads. */
int64_t rt_kv_first_page(const mcc_kv_group_entry *group, int64_t length);

/* After the step: the slot holds `length` positions. Lets the pages go that no later step needs:
 * those that lie wholly behind the windows, with a margin (see kv.c). `ids` are the sequence's
 * tokens from position 0 on: its full blocks are then known to the prefix cache, and where that
 * has the same block already, the sequence shares it. NULL: they are not made known. */
void rt_kv_commit(rt_kv *kv, int slot, int64_t length, const int32_t *ids);

/* Forgets positions from `length` on and lets their pages go; also pages that were reserved and not
 * committed. False when what remains could not be continued, because pages that a window at that
 * position sees have been freed; then nothing changes. Length 0 always works. */
bool rt_kv_truncate(rt_kv *kv, int slot, int64_t length);

/* An empty slot takes over what `from` holds of its first `length` positions, sharing its pages.
 * False, and nothing changes, where `from` holds less, or its windows have moved on. */
bool rt_kv_fork(rt_kv *kv, int from, int slot, int64_t length);

/* --- shared beginnings: kv_prefix.c --------------------------------------------------------------
 */

/* Tokens of a block, the unit of what sequences share: the least common multiple of the groups'
 * page sizes. */
int32_t rt_kv_block(const rt_kv *kv);

/* An empty slot takes over the longest beginning of ids[0 … n-1], in whole blocks, that is known
 * and still there; returns its length. Sequences with different salts share nothing: neither
 * content, nor through timing the knowledge of it. A slot keeps its salt until it is emptied, so
 * this is called for new sequences even with n = 0. */
int64_t rt_kv_attach(rt_kv *kv, int slot, const int32_t *ids, int64_t n, uint64_t salt);

/* Forgets all that no sequence owns. */
void rt_kv_forget(rt_kv *kv);

/* --- planning ------------------------------------------------------------------------------------
 */

/* Promises a slot room for `length` positions: true when, beside all that other slots have been
 * promised and `spare` pages a group, there are pages for it. The promise ends with the slot. A
 * slot that is alone is never refused what max_len allows. */
bool rt_kv_promise(rt_kv *kv, int slot, int64_t length, int64_t spare);

/* Counts the pages that were let go since the cache was made: what could not be had is worth
 * another try only when it has changed. */
uint64_t rt_kv_releases(const rt_kv *kv);

/* Page copies that must be made, in order, before the next step's kernels run: within the pool, and
 * between it and the host's memory. */
typedef enum rt_kv_copy_kind { RT_KV_WITHIN, RT_KV_TO_HOST, RT_KV_FROM_HOST } rt_kv_copy_kind;
typedef struct rt_kv_copy {
    rt_kv_copy_kind kind;
    uint32_t group;
    int32_t from, to;
} rt_kv_copy;
const rt_kv_copy *rt_kv_copies(const rt_kv *kv, int *n);
void rt_kv_copies_made(rt_kv *kv);

/* --- the host's memory: kv_swap.c ----------------------------------------------------------------
 */

/* Bytes of host memory that the device provides for a group, page after page, each with all its
 * layers. */
uint64_t rt_kv_host_bytes(const rt_kv *kv, uint32_t group);
uint64_t rt_kv_all_host_bytes(const rt_kv *kv);

/* Moves what a slot holds to the host's memory and empties the slot. Returns a record of it; -1,
 * and nothing changes, where there is no room for it. */
int rt_kv_swap_out(rt_kv *kv, int slot);
/* Moves it back into an empty slot; the record is gone then. False, and nothing changes, when pages
 * have run out. */
bool rt_kv_swap_in(rt_kv *kv, int record, int slot);
void rt_kv_swap_drop(rt_kv *kv, int record);
int64_t rt_kv_swap_length(const rt_kv *kv, int record); /* positions */

/* Whether every page is free, owned or cached, each exactly once, and all counts are exact; the
 * error says what is not. */
bool rt_kv_check(rt_kv *kv, rt_error *error);

#endif

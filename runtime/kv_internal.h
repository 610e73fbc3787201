/* What the files of the KV cache share: kv.c (sequences and their tables), kv_pages.c (pools),
 * kv_prefix.c (shared beginnings), kv_swap.c (the host's memory), kv_check.c (invariants). */
#ifndef MCC_RUNTIME_KV_INTERNAL_H
#define MCC_RUNTIME_KV_INTERNAL_H

#include "runtime/kv.h"

/* Attention works in absolute ranges of this many positions and may read the whole of the range
 * that a window begins in. One range more is kept, so that a sequence can be taken back a little
 * (a chat's last tokens are often tokenized otherwise in the next turn). */
enum { RT_KV_RANGE = 256 };

enum { RT_KV_NONE = -1, RT_KV_SWAPPED = 64 /* sequences in the host's memory at most */ };

typedef struct kv_page {
    int32_t owners;       /* sequences whose tables name it */
    int32_t node;         /* of the prefix tree that knows what it holds; RT_KV_NONE */
    int32_t newer, older; /* of the list of cached pages; RT_KV_NONE at its ends */
} kv_page;

typedef struct slot_pages {
    int32_t *table;     /* [table_entries] */
    int64_t first, end; /* entries first … end-1 have pages; the others are -1 */
} slot_pages;

typedef struct kv_group {
    const mcc_kv_group_entry *entry;
    int32_t n_pages;
    kv_page *pages;
    int32_t *free_pages; /* a stack: the page freed last is used first, its memory is warm */
    int32_t n_free, n_cached;
    int32_t newest, oldest; /* cached pages, by when they were let go */
    uint64_t bytes;         /* of the pool */
    slot_pages *slots;
    int32_t first_entry, block_pages; /* its pages of a block, in a node's pages */
    int32_t *free_host;               /* pages in the host's memory: a stack */
    int32_t n_host, n_free_host;
} kv_group;

/* A block of tokens after a certain beginning, and the pages that hold it. Blocks form a tree, by
 * what comes before: a node is found by its parent, which stands for all tokens before it, and its
 * own tokens, both of which are compared. So equal hashes never make one beginning pass for
 * another. A node lives while it has pages, children, or sequences that end in it. */
typedef struct kv_node {
    uint64_t hash, salt;
    int32_t parent;  /* RT_KV_NONE: first block */
    int32_t next;    /* in its bucket, or in the list of unused nodes */
    int32_t refs;    /* children, and sequences whose tip it is */
    int32_t n_pages; /* of its pages that are not RT_KV_NONE */
    bool used;
} kv_node;

typedef struct kv_sequence {
    int64_t length;
    int64_t promised;  /* positions */
    int64_t published; /* blocks that the tree has, up to `tip` */
    int32_t tip;       /* RT_KV_NONE: before the first block */
    bool closed;       /* no further block can be made known: there was no node for one */
    uint64_t salt;
} kv_sequence;

/* One whose pages are in the host's memory; length 0: none. */
typedef struct kv_swapped {
    int64_t length;
    uint64_t salt;
} kv_swapped;

struct rt_kv {
    kv_group *groups;
    uint32_t n_groups;
    int n_slots;
    int32_t table_entries;
    int64_t max_len, max_step;
    kv_sequence *sequences; /* [n_slots] */
    int32_t *table_space;   /* [group][slot][table_entries] */
    uint64_t releases;
    rt_kv_copy *copies; /* [copy_capacity] */
    int n_copies, copy_capacity;
    kv_swapped *swapped; /* [RT_KV_SWAPPED]; NULL: the host's memory is not used */
    int32_t
        *swap_space; /* [record][group][table_entries] host pages; RT_KV_NONE before the first */
    int64_t swap_copies; /* beyond so many copies nothing more is swapped */
    /* The prefix tree. */
    int32_t block;        /* tokens */
    int32_t node_entries; /* pages of a block, over all groups */
    int32_t n_nodes, unused_nodes;
    kv_node *nodes;
    int32_t *node_tokens; /* [n_nodes][block] */
    int32_t *node_pages;  /* [n_nodes][node_entries] */
    int32_t *buckets;     /* [bucket_mask + 1] */
    uint32_t bucket_mask;
    uint64_t hash_mask;
    int32_t *path;     /* [max_len / block + 1] nodes of a walk */
    int64_t *windowed; /* [n_groups] pages in a row, of a walk */
    int32_t *counts;   /* for rt_kv_check: [most pages or nodes] */
};

static inline int64_t kv_div_up(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}

/* First position that a step whose first token is at `length` may read. */
static inline int64_t kv_window_begin(const mcc_kv_group_entry *g, int64_t length) {
    int64_t begin = length - g->window + 1;
    return g->window == 0 || begin < 0 ? 0 : begin / RT_KV_RANGE * RT_KV_RANGE;
}

/* Pages of one sequence at most: a windowed group lets go what lies behind. */
int64_t kv_pages_for(const mcc_kv_group_entry *g, int64_t length, int64_t max_step);

/* --- kv_pages.c ----------------------------------------------------------------------------------
 */

bool kv_pool_create(kv_group *g, int64_t pages, rt_error *error);
void kv_pool_destroy(kv_group *g);

/* Pages that can be had. */
static inline int64_t kv_available(const kv_group *g) {
    return (int64_t)g->n_free + g->n_cached;
}

/* A free page, or the cached one let go longest ago; there is one. It has one owner then. */
int32_t kv_take_page(rt_kv *kv, kv_group *g);
/* One owner more; a cached page is no longer evicted. */
void kv_share_page(kv_group *g, int32_t page);
/* One owner less; without any it is cached if it is known, else free. */
void kv_drop_page(rt_kv *kv, kv_group *g, int32_t page);
/* A cached page becomes free; kv_prefix.c has forgotten it. */
void kv_uncache_page(kv_group *g, int32_t page);

/* --- kv_swap.c -----------------------------------------------------------------------------------
 */

/* one: what a sequence of max_len needs. */
bool kv_swap_create(rt_kv *kv, const rt_kv_options *options, uint64_t one, rt_error *error);
void kv_swap_destroy(rt_kv *kv);
bool kv_swap_check(rt_kv *kv, rt_error *error);

/* --- kv_prefix.c ---------------------------------------------------------------------------------
 */

bool kv_tree_create(rt_kv *kv, int hash_bits, rt_error *error);
void kv_tree_destroy(rt_kv *kv);
/* The tree no longer knows what the page holds. */
void kv_tree_forget_page(rt_kv *kv, kv_group *g, int32_t page);
/* Makes the slot's full blocks known. */
void kv_tree_publish(rt_kv *kv, int slot, const int32_t *ids);
/* The slot's tip moves to a node (RT_KV_NONE: none), `published` blocks deep. */
void kv_tree_move_tip(rt_kv *kv, int slot, int32_t node, int64_t published);
/* The tip after `published` blocks, at most as many as the slot has published. */
int32_t kv_tree_ancestor(const rt_kv *kv, int slot, int64_t published);

#endif

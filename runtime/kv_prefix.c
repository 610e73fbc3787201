/* Shared beginnings: a tree of blocks of tokens whose pages are known, found by hash (the idea of
 * vLLM's prefix cache: Kwon et al. 2023, section 4.4), compared by tokens.
 *
 * Sequences let their pages go from the end, and whoever takes over a block takes over all before
 * it: so of the cached pages of a full-attention group a parent's is never older than a child's,
 * and eviction removes leaves first. */
#include "runtime/kv_internal.h"
#include "runtime/modelcc.h"

#include <stdlib.h>
#include <string.h>

/* --- life ----------------------------------------------------------------------------------------
 */

/* The block's size, and where each group's pages of it are in a node; false when it is too large to
 * be of use. */
static bool lay_out(rt_kv *kv) {
    int64_t block = 1;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        int64_t a = block, b = kv->groups[i].entry->page_tokens;
        while (b != 0) {
            int64_t rest = a % b;
            a = b;
            b = rest;
        }
        block = block / a * kv->groups[i].entry->page_tokens;
        if (block > INT32_MAX / 2)
            return false;
    }
    kv->block = (int32_t)block;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        g->first_entry = kv->node_entries;
        g->block_pages = kv->block / g->entry->page_tokens;
        kv->node_entries += g->block_pages;
    }
    return true;
}

bool kv_tree_create(rt_kv *kv, int hash_bits, rt_error *error) {
    if (!lay_out(kv))
        return rt_fail(error, MCC_BAD_ARTIFACT,
                       "the KV groups' page sizes have no common multiple of a sensible size");
    /* A node has a page, except where windows alone have moved on and the way to later blocks leads
     * past it. */
    int64_t nodes = 0;
    bool all = true;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        nodes += kv->groups[i].n_pages / kv->groups[i].block_pages;
        all = all && kv->groups[i].entry->window > 0;
    }
    if (all)
        nodes += (int64_t)kv->n_slots * (kv->max_len / kv->block);
    kv->n_nodes = (int32_t)(nodes < INT32_MAX / 4 ? nodes : INT32_MAX / 4);
    uint32_t buckets = 16;
    while (buckets < (uint32_t)kv->n_nodes)
        buckets *= 2;
    kv->bucket_mask = buckets - 1;
    kv->hash_mask = hash_bits > 0 && hash_bits < 64 ? (UINT64_C(1) << hash_bits) - 1 : UINT64_MAX;
    size_t n = (size_t)kv->n_nodes;
    kv->nodes = calloc(n + 1, sizeof *kv->nodes);
    kv->node_tokens = malloc(n * (size_t)kv->block * sizeof *kv->node_tokens + 1);
    kv->node_pages = malloc(n * (size_t)kv->node_entries * sizeof *kv->node_pages + 1);
    kv->buckets = malloc(buckets * sizeof *kv->buckets);
    kv->path = malloc(((size_t)kv->max_len / (size_t)kv->block + 1) * sizeof *kv->path);
    kv->windowed = malloc((kv->n_groups + 1) * sizeof *kv->windowed);
    if (!kv->nodes || !kv->node_tokens || !kv->node_pages || !kv->buckets || !kv->path ||
        !kv->windowed)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a prefix cache");
    memset(kv->buckets, 0xff, buckets * sizeof *kv->buckets);
    for (int32_t i = 0; i < kv->n_nodes; i++)
        kv->nodes[i].next = i + 1 < kv->n_nodes ? i + 1 : RT_KV_NONE;
    kv->unused_nodes = kv->n_nodes > 0 ? 0 : RT_KV_NONE;
    return true;
}

void kv_tree_destroy(rt_kv *kv) {
    free(kv->nodes);
    free(kv->node_tokens);
    free(kv->node_pages);
    free(kv->buckets);
    free(kv->path);
    free(kv->windowed);
}

/* --- nodes ---------------------------------------------------------------------------------------
 */

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

/* Chained: the parent's hash stands for the blocks before. */
static uint64_t hash_block(const rt_kv *kv, int32_t parent, uint64_t salt, const int32_t *tokens) {
    uint64_t h = parent == RT_KV_NONE ? mix(1, salt) : kv->nodes[parent].hash;
    for (int32_t i = 0; i < kv->block; i++)
        h = mix(h, (uint32_t)tokens[i]);
    return h & kv->hash_mask;
}

static int32_t *pages_of(const rt_kv *kv, int32_t node) {
    return kv->node_pages + (int64_t)node * kv->node_entries;
}

static int32_t *tokens_of(const rt_kv *kv, int32_t node) {
    return kv->node_tokens + (int64_t)node * kv->block;
}

static int32_t *bucket_of(const rt_kv *kv, uint64_t hash) {
    return &kv->buckets[(hash ^ hash >> 32) & kv->bucket_mask];
}

static int32_t find_node(const rt_kv *kv, int32_t parent, uint64_t salt, const int32_t *tokens,
                         uint64_t hash) {
    int32_t node = *bucket_of(kv, hash);
    for (; node != RT_KV_NONE; node = kv->nodes[node].next) {
        const kv_node *n = &kv->nodes[node];
        if (n->hash == hash && n->parent == parent && n->salt == salt &&
            memcmp(tokens_of(kv, node), tokens, (size_t)kv->block * sizeof *tokens) == 0)
            break;
    }
    return node;
}

/* RT_KV_NONE when there is none left. */
static int32_t make_node(rt_kv *kv, int32_t parent, uint64_t salt, const int32_t *tokens,
                         uint64_t hash) {
    int32_t node = kv->unused_nodes;
    if (node == RT_KV_NONE)
        return node;
    kv_node *n = &kv->nodes[node];
    int32_t *bucket = bucket_of(kv, hash);
    kv->unused_nodes = n->next;
    *n = (kv_node){.hash = hash, .salt = salt, .parent = parent, .next = *bucket, .used = true};
    *bucket = node;
    if (parent != RT_KV_NONE)
        kv->nodes[parent].refs++;
    memcpy(tokens_of(kv, node), tokens, (size_t)kv->block * sizeof *tokens);
    for (int32_t i = 0; i < kv->node_entries; i++)
        pages_of(kv, node)[i] = RT_KV_NONE;
    return node;
}

/* Removes a node that nothing keeps alive, and then, perhaps, those it kept alive. */
static void collect(rt_kv *kv, int32_t node) {
    while (node != RT_KV_NONE && kv->nodes[node].refs == 0 && kv->nodes[node].n_pages == 0) {
        kv_node *n = &kv->nodes[node];
        int32_t *at = bucket_of(kv, n->hash), parent = n->parent;
        while (*at != node)
            at = &kv->nodes[*at].next;
        *at = n->next;
        n->used = false;
        n->next = kv->unused_nodes;
        kv->unused_nodes = node;
        if (parent != RT_KV_NONE)
            kv->nodes[parent].refs--;
        node = parent;
    }
}

void kv_tree_forget_page(rt_kv *kv, kv_group *g, int32_t page) {
    int32_t node = g->pages[page].node, *entry = pages_of(kv, node) + g->first_entry;
    while (*entry != page)
        entry++;
    *entry = RT_KV_NONE;
    g->pages[page].node = RT_KV_NONE;
    kv->nodes[node].n_pages--;
    if (g->pages[page].owners == 0)
        kv_uncache_page(g, page);
    collect(kv, node);
}

void kv_tree_move_tip(rt_kv *kv, int slot, int32_t node, int64_t published) {
    kv_sequence *s = &kv->sequences[slot];
    int32_t before = s->tip;
    if (node != RT_KV_NONE)
        kv->nodes[node].refs++;
    s->tip = node;
    s->published = published;
    if (before != RT_KV_NONE) {
        kv->nodes[before].refs--;
        collect(kv, before);
    }
}

int32_t kv_tree_ancestor(const rt_kv *kv, int slot, int64_t published) {
    int32_t node = kv->sequences[slot].tip;
    for (int64_t n = kv->sequences[slot].published; n > published; n--)
        node = kv->nodes[node].parent;
    return node;
}

void rt_kv_forget(rt_kv *kv) {
    for (uint32_t i = 0; i < kv->n_groups; i++)
        while (kv->groups[i].oldest != RT_KV_NONE)
            kv_tree_forget_page(kv, &kv->groups[i], kv->groups[i].oldest);
}

int32_t rt_kv_block(const rt_kv *kv) {
    return kv->block;
}

/* --- publishing ----------------------------------------------------------------------------------
 */

/* The node gets the slot's pages of block `b`; where it has its own already, the slot takes them:
 * both hold the same, as results do not depend on what else was computed. */
static void merge_block(rt_kv *kv, int slot, int64_t b, int32_t node) {
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        int32_t *known = pages_of(kv, node) + g->first_entry;
        int32_t *own = g->slots[slot].table + b * g->block_pages;
        for (int32_t k = 0; k < g->block_pages; k++) {
            if (own[k] == RT_KV_NONE || own[k] == known[k])
                continue;
            if (known[k] != RT_KV_NONE) {
                kv_share_page(g, known[k]);
                kv_drop_page(kv, g, own[k]);
                own[k] = known[k];
            } else if (g->pages[own[k]].node == RT_KV_NONE) {
                known[k] = own[k];
                g->pages[own[k]].node = node;
                kv->nodes[node].n_pages++;
            }
        }
    }
}

void kv_tree_publish(rt_kv *kv, int slot, const int32_t *ids) {
    kv_sequence *s = &kv->sequences[slot];
    while (!s->closed && (s->published + 1) * kv->block <= s->length) {
        int64_t b = s->published;
        const int32_t *tokens = ids + b * kv->block;
        uint64_t hash = hash_block(kv, s->tip, s->salt, tokens);
        int32_t node = find_node(kv, s->tip, s->salt, tokens, hash);
        if (node == RT_KV_NONE)
            node = make_node(kv, s->tip, s->salt, tokens, hash);
        s->closed = node == RT_KV_NONE;
        if (s->closed)
            break;
        kv_tree_move_tip(kv, slot, node, b + 1);
        merge_block(kv, slot, b, node);
    }
}

/* --- taking over ---------------------------------------------------------------------------------
 */

/* Counts the node's pages in: false when one is missing that every longer beginning needs too. */
static bool count_pages(rt_kv *kv, int32_t node) {
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const kv_group *g = &kv->groups[i];
        const int32_t *pages = pages_of(kv, node) + g->first_entry;
        for (int32_t k = 0; k < g->block_pages; k++) {
            kv->windowed[i] = pages[k] == RT_KV_NONE ? 0 : kv->windowed[i] + 1;
            if (pages[k] == RT_KV_NONE && g->entry->window == 0)
                return false;
        }
    }
    return true;
}

/* Whether a sequence of `length` could go on with the pages counted. */
static bool windows_are_there(const rt_kv *kv, int64_t length) {
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const mcc_kv_group_entry *e = kv->groups[i].entry;
        int64_t first = rt_kv_first_page(e, length);
        if (kv->windowed[i] < length / e->page_tokens - first)
            return false;
    }
    return true;
}

static void take_over(rt_kv *kv, int slot, int64_t blocks) {
    int64_t length = blocks * kv->block;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        slot_pages *s = &g->slots[slot];
        s->first = rt_kv_first_page(g->entry, length);
        s->end = length / g->entry->page_tokens;
        for (int64_t p = s->first; p < s->end; p++) {
            int32_t node = kv->path[p / g->block_pages];
            s->table[p] = pages_of(kv, node)[g->first_entry + p % g->block_pages];
            kv_share_page(g, s->table[p]);
        }
    }
    kv->sequences[slot].length = length;
    kv_tree_move_tip(kv, slot, kv->path[blocks - 1], blocks);
}

int64_t rt_kv_attach(rt_kv *kv, int slot, const int32_t *ids, int64_t n, uint64_t salt) {
    int64_t blocks = 0, depth = 0;
    int32_t node = RT_KV_NONE;
    kv->sequences[slot].salt = salt;
    memset(kv->windowed, 0, kv->n_groups * sizeof *kv->windowed);
    for (; (depth + 1) * kv->block <= n; depth++) {
        const int32_t *tokens = ids + depth * kv->block;
        node = find_node(kv, node, salt, tokens, hash_block(kv, node, salt, tokens));
        if (node == RT_KV_NONE || !count_pages(kv, node))
            break;
        kv->path[depth] = node;
        if (windows_are_there(kv, (depth + 1) * kv->block))
            blocks = depth + 1;
    }
    if (blocks > 0)
        take_over(kv, slot, blocks);
    return blocks * kv->block;
}

/* Sequences of the KV cache: their tables, lengths and what they are promised. */
#include "runtime/kv_internal.h"
#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int64_t kv_pages_for(const mcc_kv_group_entry *g, int64_t length, int64_t max_step) {
    if (g->window > 0) {
        int64_t kept = g->window + 2 * RT_KV_RANGE + max_step + g->page_tokens;
        if (kept < length)
            length = kept;
    }
    return kv_div_up(length, g->page_tokens);
}

uint64_t rt_kv_bytes_for(const mcc_kv_group_entry *groups, uint32_t n_groups, int64_t length,
                         int64_t max_step) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n_groups; i++)
        bytes += (uint64_t)kv_pages_for(&groups[i], length, max_step) * groups[i].layer_bytes *
                 (uint64_t)groups[i].layers;
    return bytes;
}

/* --- life ----------------------------------------------------------------------------------------
 */

static bool check_memory(const mcc_kv_group_entry *groups, uint32_t n_groups,
                         const rt_kv_options *o, rt_error *error) {
    uint64_t one = rt_kv_bytes_for(groups, n_groups, o->max_len, o->max_step);
    if (o->memory_bytes == 0 || o->memory_bytes >= one)
        return true;
    int64_t low = 0, high = o->max_len; /* the longest sequence that fits is in low … high-1 */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (rt_kv_bytes_for(groups, n_groups, middle, o->max_step) <= o->memory_bytes)
            low = middle;
        else
            high = middle;
    }
    return rt_fail(error, MCC_CAPACITY,
                   "kv_cache_memory_bytes is %" PRIu64 ", but a sequence of max_model_len %" PRId64
                   " needs %" PRIu64 ": raise it, or set max_model_len to at most %" PRId64,
                   o->memory_bytes, o->max_len, one, low);
}

static bool make_tables(rt_kv *kv, const mcc_kv_group_entry *groups, rt_error *error) {
    size_t n_slots = (size_t)kv->n_slots;
    kv->groups = calloc(kv->n_groups ? kv->n_groups : 1, sizeof *kv->groups);
    kv->sequences = calloc(n_slots, sizeof *kv->sequences);
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        int64_t entries = kv_div_up(kv->max_len, groups[i].page_tokens);
        if (entries > kv->table_entries)
            kv->table_entries = (int32_t)entries;
    }
    size_t row = (size_t)kv->table_entries, tables = kv->n_groups * n_slots;
    kv->table_space = malloc(tables * row * sizeof *kv->table_space + 1);
    kv->copy_capacity = (int)tables;
    kv->copies = malloc((tables + 1) * sizeof *kv->copies);
    if (!kv->groups || !kv->sequences || !kv->table_space || !kv->copies)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %zu page tables", tables);
    memset(kv->table_space, 0xff, tables * row * sizeof *kv->table_space);
    for (size_t s = 0; s < n_slots; s++)
        kv->sequences[s].tip = RT_KV_NONE;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        g->entry = &groups[i];
        g->slots = calloc(n_slots, sizeof *g->slots);
        if (!g->slots)
            return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %zu sequences", n_slots);
        for (size_t s = 0; s < n_slots; s++)
            g->slots[s].table = kv->table_space + (i * n_slots + s) * row;
    }
    return true;
}

/* Pages of a group. Limited memory is shared out as one sequence would use it. */
static int64_t pool_pages(const mcc_kv_group_entry *g, const rt_kv_options *o, uint64_t one) {
    int64_t pages = kv_pages_for(g, o->max_len, o->max_step), all;
    if (__builtin_mul_overflow(pages, (int64_t)o->slots, &all))
        all = INT64_MAX;
    if (o->memory_bytes > 0) {
        long double share = (long double)o->memory_bytes / (long double)one * pages;
        if (share < (long double)all)
            all = (int64_t)share;
        if (all < pages)
            all = pages;
    }
    return all;
}

static bool create(rt_kv *kv, const mcc_kv_group_entry *groups, const rt_kv_options *o,
                   rt_error *error) {
    if (!make_tables(kv, groups, error))
        return false;
    uint64_t one = rt_kv_bytes_for(groups, kv->n_groups, o->max_len, o->max_step);
    for (uint32_t i = 0; i < kv->n_groups; i++)
        if (!kv_pool_create(&kv->groups[i], pool_pages(&groups[i], o, one), error))
            return false;
    if (!kv_tree_create(kv, o->hash_bits, error) || !kv_swap_create(kv, o, one, error))
        return false;
    int32_t most = kv->n_nodes;
    for (uint32_t i = 0; i < kv->n_groups; i++)
        most = kv->groups[i].n_pages > most ? kv->groups[i].n_pages : most;
    kv->counts = malloc(((size_t)most + 1) * sizeof *kv->counts);
    return kv->counts || rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for the KV cache");
}

rt_kv *rt_kv_create(const mcc_kv_group_entry *groups, uint32_t n_groups,
                    const rt_kv_options *options, rt_error *error) {
    if (!check_memory(groups, n_groups, options, error))
        return NULL;
    rt_kv *kv = calloc(1, sizeof *kv);
    if (!kv) {
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for the KV cache");
        return NULL;
    }
    kv->n_groups = n_groups;
    kv->n_slots = options->slots;
    kv->max_len = options->max_len;
    kv->max_step = options->max_step;
    if (!create(kv, groups, options, error)) {
        rt_kv_destroy(kv);
        return NULL;
    }
    return kv;
}

void rt_kv_destroy(rt_kv *kv) {
    if (!kv)
        return;
    kv_swap_destroy(kv);
    for (uint32_t i = 0; kv->groups && i < kv->n_groups; i++) {
        kv_pool_destroy(&kv->groups[i]);
        free(kv->groups[i].slots);
    }
    kv_tree_destroy(kv);
    free(kv->groups);
    free(kv->sequences);
    free(kv->table_space);
    free(kv->copies);
    free(kv->counts);
    free(kv);
}

/* --- queries -------------------------------------------------------------------------------------
 */

uint64_t rt_kv_pool_bytes(const rt_kv *kv, uint32_t group) {
    return kv->groups[group].bytes;
}

uint64_t rt_kv_layer_offset(const rt_kv *kv, uint32_t group, uint32_t layer) {
    const kv_group *g = &kv->groups[group];
    return (uint64_t)layer * (uint64_t)g->n_pages * g->entry->layer_bytes;
}

int32_t rt_kv_table_entries(const rt_kv *kv) {
    return kv->table_entries;
}

const int32_t *rt_kv_table(const rt_kv *kv, uint32_t group, int slot) {
    return kv->groups[group].slots[slot].table;
}

int64_t rt_kv_pages(const rt_kv *kv, uint32_t group, int64_t length) {
    return kv_div_up(length, kv->groups[group].entry->page_tokens);
}

int64_t rt_kv_length(const rt_kv *kv, int slot) {
    return kv->sequences[slot].length;
}

uint64_t rt_kv_bytes_reserved(const rt_kv *kv) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++)
        bytes += kv->groups[i].bytes;
    return bytes;
}

static uint64_t page_bytes(const kv_group *g) {
    return g->entry->layer_bytes * (uint64_t)g->entry->layers;
}

uint64_t rt_kv_bytes_used(const rt_kv *kv) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const kv_group *g = &kv->groups[i];
        bytes += (uint64_t)(g->n_pages - kv_available(g)) * page_bytes(g);
    }
    return bytes;
}

uint64_t rt_kv_bytes_cached(const rt_kv *kv) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++)
        bytes += (uint64_t)kv->groups[i].n_cached * page_bytes(&kv->groups[i]);
    return bytes;
}

int64_t rt_kv_capacity(const rt_kv *kv, int64_t length) {
    int64_t least = INT64_MAX;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const kv_group *g = &kv->groups[i];
        int64_t each = kv_pages_for(g->entry, length, kv->max_step), positions;
        if (!__builtin_mul_overflow(g->n_pages / (each > 0 ? each : 1), length, &positions) &&
            positions < least)
            least = positions;
    }
    return least;
}

uint64_t rt_kv_releases(const rt_kv *kv) {
    return kv->releases;
}

const rt_kv_copy *rt_kv_copies(const rt_kv *kv, int *n) {
    *n = kv->n_copies;
    return kv->copies;
}

void rt_kv_copies_made(rt_kv *kv) {
    kv->n_copies = 0;
}

/* --- pages ---------------------------------------------------------------------------------------
 */

/* Lets go of a table's entries begin … end-1, the last first: see kv_prefix.c. */
static void drop_entries(rt_kv *kv, kv_group *g, slot_pages *s, int64_t begin, int64_t end) {
    for (int64_t i = end - 1; i >= begin; i--) {
        if (s->table[i] < 0)
            continue;
        kv_drop_page(kv, g, s->table[i]);
        s->table[i] = RT_KV_NONE;
    }
}

static void shrink(rt_kv *kv, kv_group *g, slot_pages *s, int64_t end) {
    if (end >= s->end)
        return;
    drop_entries(kv, g, s, end > s->first ? end : s->first, s->end);
    s->end = end;
    if (s->first > end)
        s->first = end;
}

/* The page that the next position goes into, where it holds positions already and is not this
 * slot's alone: it must not be written. RT_KV_NONE when there is none. */
static int64_t shared_entry(const rt_kv *kv, const kv_group *g, int slot) {
    int64_t length = kv->sequences[slot].length, entry = length / g->entry->page_tokens;
    const slot_pages *s = &g->slots[slot];
    if (length % g->entry->page_tokens == 0 || entry >= s->end || entry < s->first)
        return RT_KV_NONE;
    const kv_page *page = &g->pages[s->table[entry]];
    return page->owners > 1 || page->node != RT_KV_NONE ? entry : RT_KV_NONE;
}

/* The slot gets a page of its own in the place of a shared one. */
static void copy_on_write(rt_kv *kv, kv_group *g, int slot, int64_t entry) {
    int32_t from = g->slots[slot].table[entry], to = kv_take_page(kv, g);
    kv->copies[kv->n_copies++] =
        (rt_kv_copy){.group = (uint32_t)(g - kv->groups), .from = from, .to = to};
    g->slots[slot].table[entry] = to;
    kv_drop_page(kv, g, from);
}

bool rt_kv_reserve(rt_kv *kv, int slot, int64_t length, rt_error *error) {
    if (length > kv->max_len)
        return rt_fail(error, MCC_CAPACITY,
                       "a sequence of %" PRId64 " tokens, but max_model_len is %" PRId64, length,
                       kv->max_len);
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const kv_group *g = &kv->groups[i];
        int64_t more = kv_div_up(length, g->entry->page_tokens) - g->slots[slot].end;
        more = (more > 0 ? more : 0) + (shared_entry(kv, g, slot) != RT_KV_NONE);
        if (more > kv_available(g))
            return rt_fail(error, MCC_CAPACITY,
                           "the KV cache is full: %" PRId64 " pages of %d tokens needed, %" PRId64
                           " of %d free; raise kv_cache_memory_bytes",
                           more, g->entry->page_tokens, kv_available(g), g->n_pages);
    }
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        slot_pages *s = &g->slots[slot];
        int64_t shared = shared_entry(kv, g, slot);
        if (shared != RT_KV_NONE)
            copy_on_write(kv, g, slot, shared);
        for (int64_t end = kv_div_up(length, g->entry->page_tokens); s->end < end; s->end++)
            s->table[s->end] = kv_take_page(kv, g);
    }
    return true;
}

int64_t rt_kv_first_page(const mcc_kv_group_entry *group, int64_t length) {
    return kv_window_begin(group, length) / group->page_tokens;
}

bool rt_kv_restore(rt_kv *kv, int slot, int64_t length, uint64_t salt, rt_error *error) {
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        slot_pages *s = &kv->groups[i].slots[slot];
        s->first = s->end = rt_kv_first_page(kv->groups[i].entry, length);
    }
    bool ok = rt_kv_reserve(kv, slot, length, error);
    for (uint32_t i = 0; !ok && i < kv->n_groups; i++)
        kv->groups[i].slots[slot].first = kv->groups[i].slots[slot].end = 0;
    if (ok)
        kv->sequences[slot].salt = salt;
    return ok;
}

void rt_kv_commit(rt_kv *kv, int slot, int64_t length, const int32_t *ids) {
    kv->sequences[slot].length = length;
    if (ids)
        kv_tree_publish(kv, slot, ids);
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        slot_pages *s = &g->slots[slot];
        int64_t keep = kv_window_begin(g->entry, length) - RT_KV_RANGE;
        int64_t first = keep > 0 ? keep / g->entry->page_tokens : 0;
        if (first > s->end)
            first = s->end;
        if (first > s->first) {
            drop_entries(kv, g, s, s->first, first);
            s->first = first;
        }
    }
}

/* Whether the slot has the pages that a step at `length` reads. */
static bool can_go_on(const rt_kv *kv, int slot, int64_t length) {
    for (uint32_t i = 0; i < kv->n_groups && length > 0; i++) {
        const kv_group *g = &kv->groups[i];
        /* Pages begin where a sequence took them over, or where a window let them go. */
        int64_t first = rt_kv_first_page(g->entry, length);
        if (first < g->slots[slot].first)
            return false;
    }
    return true;
}

bool rt_kv_truncate(rt_kv *kv, int slot, int64_t length) {
    kv_sequence *q = &kv->sequences[slot];
    if (length > q->length)
        length = q->length;
    if (!can_go_on(kv, slot, length))
        return false;
    q->length = length;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        slot_pages *s = &g->slots[slot];
        shrink(kv, g, s, kv_div_up(length, g->entry->page_tokens));
        if (length == 0)
            s->first = 0;
    }
    int64_t blocks = length / kv->block;
    if (blocks < q->published)
        kv_tree_move_tip(kv, slot, kv_tree_ancestor(kv, slot, blocks), blocks);
    if (length == 0)
        *q = (kv_sequence){.tip = RT_KV_NONE};
    return true;
}

bool rt_kv_fork(rt_kv *kv, int from, int slot, int64_t length) {
    const kv_sequence *q = &kv->sequences[from];
    if (length > q->length || !can_go_on(kv, from, length))
        return false;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        const slot_pages *s = &g->slots[from];
        slot_pages *to = &g->slots[slot];
        to->first = rt_kv_first_page(g->entry, length);
        to->end = kv_div_up(length, g->entry->page_tokens);
        for (int64_t p = to->first; p < to->end; p++) {
            to->table[p] = s->table[p];
            kv_share_page(g, to->table[p]);
        }
    }
    int64_t blocks = length / kv->block;
    if (blocks > q->published)
        blocks = q->published;
    kv->sequences[slot].length = length;
    kv->sequences[slot].salt = q->salt;
    kv_tree_move_tip(kv, slot, kv_tree_ancestor(kv, from, blocks), blocks);
    return true;
}

bool rt_kv_promise(rt_kv *kv, int slot, int64_t length, int64_t spare) {
    if (length > kv->max_len)
        length = kv->max_len;
    bool alone = true;
    for (int s = 0; s < kv->n_slots; s++)
        alone = alone &&
                (s == slot || (kv->sequences[s].promised == 0 && kv->sequences[s].length == 0));
    for (uint32_t i = 0; i < kv->n_groups && !alone; i++) {
        const kv_group *g = &kv->groups[i];
        int64_t wanted = spare;
        for (int s = 0; s < kv->n_slots; s++) {
            int64_t l = s == slot ? length : kv->sequences[s].promised;
            int64_t more =
                kv_pages_for(g->entry, l, kv->max_step) - (g->slots[s].end - g->slots[s].first);
            wanted += more > 0 ? more : 0;
        }
        if (wanted > kv_available(g))
            return false;
    }
    kv->sequences[slot].promised = length;
    return true;
}

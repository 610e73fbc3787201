#include "runtime/kv.h"

#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Attention works in absolute ranges of this many positions and may read the whole of the range
 * that a window begins in. One range more is kept, so that a sequence can be taken back a little
 * (a chat's last tokens are often tokenized otherwise in the next turn). */
enum { RANGE = 256 };

typedef struct slot_pages {
    int32_t *table;     /* [table_entries] */
    int64_t first, end; /* entries first … end-1 have pages; the others are -1 */
} slot_pages;

typedef struct kv_group {
    const mcc_kv_group_entry *entry;
    int32_t n_pages;
    int32_t *free_pages; /* a stack: the page freed last is used first, its memory is warm */
    int32_t n_free;
    uint64_t bytes; /* of the pool */
    slot_pages *slots;
} kv_group;

struct rt_kv {
    kv_group *groups;
    uint32_t n_groups;
    int n_slots;
    int32_t table_entries;
    int64_t max_len;
    int64_t *lengths;     /* [n_slots] */
    int32_t *table_space; /* [group][slot][table_entries] */
};

static int64_t div_up(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}

/* Pages of one sequence at most: a windowed group frees what lies behind. */
static int64_t pages_for(const mcc_kv_group_entry *g, int64_t length, int64_t max_step) {
    if (g->window > 0) {
        int64_t kept = g->window + 2 * RANGE + max_step + g->page_tokens;
        if (kept < length)
            length = kept;
    }
    return div_up(length, g->page_tokens);
}

/* First position that a step whose first token is at `length` may read. */
static int64_t window_begin(const mcc_kv_group_entry *g, int64_t length) {
    int64_t begin = length - g->window + 1;
    return g->window == 0 || begin < 0 ? 0 : begin / RANGE * RANGE;
}

uint64_t rt_kv_bytes_for(const mcc_kv_group_entry *groups, uint32_t n_groups, int64_t length,
                         int64_t max_step) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n_groups; i++)
        bytes += (uint64_t)pages_for(&groups[i], length, max_step) * groups[i].layer_bytes *
                 (uint64_t)groups[i].layers;
    return bytes;
}

/* --- life ----------------------------------------------------------------------------------------
 */

static bool make_pool(kv_group *g, int64_t pages, rt_error *error) {
    uint64_t page_bytes, bytes;
    if (pages > INT32_MAX || pages < 1 ||
        __builtin_mul_overflow(g->entry->layer_bytes, (uint64_t)g->entry->layers, &page_bytes) ||
        __builtin_mul_overflow(page_bytes, (uint64_t)pages, &bytes) || bytes > INT64_MAX)
        return rt_fail(error, MCC_OUT_OF_MEMORY,
                       "a KV cache of %" PRId64 " pages of %" PRIu64 " x %d bytes is too large",
                       pages, g->entry->layer_bytes, g->entry->layers);
    g->n_pages = (int32_t)pages;
    g->bytes = bytes;
    g->free_pages = malloc((size_t)pages * sizeof *g->free_pages);
    if (!g->free_pages)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %" PRId64 " page numbers",
                       pages);
    /* Page 0 on top, so that a first sequence's pages ascend. */
    for (int32_t i = 0; i < g->n_pages; i++)
        g->free_pages[i] = g->n_pages - 1 - i;
    g->n_free = g->n_pages;
    return true;
}

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

static bool create(rt_kv *kv, const mcc_kv_group_entry *groups, const rt_kv_options *o,
                   rt_error *error) {
    size_t n_slots = (size_t)kv->n_slots;
    kv->groups = calloc(kv->n_groups ? kv->n_groups : 1, sizeof *kv->groups);
    kv->lengths = calloc(n_slots, sizeof *kv->lengths);
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        int64_t entries = div_up(kv->max_len, groups[i].page_tokens);
        if (entries > kv->table_entries)
            kv->table_entries = (int32_t)entries;
    }
    size_t row = (size_t)kv->table_entries, tables = kv->n_groups * n_slots;
    kv->table_space = malloc(tables * row * sizeof *kv->table_space + 1);
    if (!kv->groups || !kv->lengths || !kv->table_space)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %zu page tables", tables);
    memset(kv->table_space, 0xff, tables * row * sizeof *kv->table_space);

    uint64_t one = rt_kv_bytes_for(groups, kv->n_groups, o->max_len, o->max_step);
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        g->entry = &groups[i];
        g->slots = calloc(n_slots, sizeof *g->slots);
        if (!g->slots)
            return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %zu sequences", n_slots);
        for (size_t s = 0; s < n_slots; s++)
            g->slots[s].table = kv->table_space + (i * n_slots + s) * row;
        /* Limited memory is shared out as one sequence would use it. */
        int64_t pages = pages_for(g->entry, o->max_len, o->max_step), all;
        if (__builtin_mul_overflow(pages, (int64_t)n_slots, &all))
            all = INT64_MAX;
        if (o->memory_bytes > 0) {
            long double share = (long double)o->memory_bytes / (long double)one * pages;
            if (share < (long double)all)
                all = (int64_t)share;
            if (all < pages)
                all = pages;
        }
        if (!make_pool(g, all, error))
            return false;
    }
    return true;
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
    if (!create(kv, groups, options, error)) {
        rt_kv_destroy(kv);
        return NULL;
    }
    return kv;
}

void rt_kv_destroy(rt_kv *kv) {
    if (!kv)
        return;
    for (uint32_t i = 0; kv->groups && i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        free(g->free_pages);
        free(g->slots);
    }
    free(kv->groups);
    free(kv->lengths);
    free(kv->table_space);
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
    return div_up(length, kv->groups[group].entry->page_tokens);
}

int64_t rt_kv_length(const rt_kv *kv, int slot) {
    return kv->lengths[slot];
}

uint64_t rt_kv_bytes_reserved(const rt_kv *kv) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++)
        bytes += kv->groups[i].bytes;
    return bytes;
}

uint64_t rt_kv_bytes_used(const rt_kv *kv) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const kv_group *g = &kv->groups[i];
        bytes +=
            (uint64_t)(g->n_pages - g->n_free) * g->entry->layer_bytes * (uint64_t)g->entry->layers;
    }
    return bytes;
}

/* --- pages ---------------------------------------------------------------------------------------
 */

/* Frees a table's entries begin … end-1; those that hold no page are skipped. */
static void free_entries(kv_group *g, slot_pages *s, int64_t begin, int64_t end) {
    for (int64_t i = end - 1; i >= begin; i--) {
        if (s->table[i] < 0)
            continue;
        g->free_pages[g->n_free++] = s->table[i];
        s->table[i] = -1;
    }
}

static void shrink(kv_group *g, slot_pages *s, int64_t end) {
    if (end >= s->end)
        return;
    free_entries(g, s, end > s->first ? end : s->first, s->end);
    s->end = end;
    if (s->first > end)
        s->first = end;
}

bool rt_kv_reserve(rt_kv *kv, int slot, int64_t length, rt_error *error) {
    if (length > kv->max_len)
        return rt_fail(error, MCC_CAPACITY,
                       "a sequence of %" PRId64 " tokens, but max_model_len is %" PRId64, length,
                       kv->max_len);
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const kv_group *g = &kv->groups[i];
        int64_t more = div_up(length, g->entry->page_tokens) - g->slots[slot].end;
        if (more > g->n_free)
            return rt_fail(error, MCC_CAPACITY,
                           "the KV cache is full: %" PRId64 " pages of %d tokens needed, %d of %d "
                           "free; raise kv_cache_memory_bytes",
                           more, g->entry->page_tokens, g->n_free, g->n_pages);
    }
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        slot_pages *s = &g->slots[slot];
        for (int64_t end = div_up(length, g->entry->page_tokens); s->end < end; s->end++)
            s->table[s->end] = g->free_pages[--g->n_free];
    }
    return true;
}

void rt_kv_commit(rt_kv *kv, int slot, int64_t length) {
    kv->lengths[slot] = length;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        slot_pages *s = &g->slots[slot];
        int64_t keep = window_begin(g->entry, length) - RANGE;
        int64_t first = keep > 0 ? keep / g->entry->page_tokens : 0;
        if (first > s->end)
            first = s->end;
        if (first > s->first) {
            free_entries(g, s, s->first, first);
            s->first = first;
        }
    }
}

bool rt_kv_truncate(rt_kv *kv, int slot, int64_t length) {
    if (length > kv->lengths[slot])
        length = kv->lengths[slot];
    for (uint32_t i = 0; i < kv->n_groups && length > 0; i++) {
        const kv_group *g = &kv->groups[i];
        if (window_begin(g->entry, length) < g->slots[slot].first * g->entry->page_tokens)
            return false;
    }
    kv->lengths[slot] = length;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        slot_pages *s = &g->slots[slot];
        shrink(g, s, div_up(length, g->entry->page_tokens));
        if (length == 0)
            s->first = 0;
    }
    return true;
}

/* The KV cache's invariants. */
#include "runtime/kv_internal.h"
#include "runtime/modelcc.h"

#include <inttypes.h>
#include <string.h>

static bool wrong(rt_error *error, uint32_t group, int32_t page, const char *what) {
    return rt_fail(error, MCC_INTERNAL, "KV group %" PRIu32 ", page %" PRId32 ": %s", group, page,
                   what);
}

/* Owners are those whose tables name the page; tables have pages just from first to end. */
static bool check_owners(rt_kv *kv, uint32_t i, rt_error *error) {
    const kv_group *g = &kv->groups[i];
    memset(kv->counts, 0, (size_t)g->n_pages * sizeof *kv->counts);
    for (int s = 0; s < kv->n_slots; s++) {
        const slot_pages *slot = &g->slots[s];
        for (int64_t e = 0; e < kv->table_entries; e++) {
            int32_t page = slot->table[e];
            if ((page >= 0) != (e >= slot->first && e < slot->end) || page >= g->n_pages)
                return rt_fail(error, MCC_INTERNAL,
                               "KV group %" PRIu32 ", slot %d: entry %" PRId64 " is %" PRId32
                               ", pages are at %" PRId64 " to %" PRId64,
                               i, s, e, page, slot->first, slot->end);
            if (page >= 0)
                kv->counts[page]++;
        }
    }
    for (int32_t p = 0; p < g->n_pages; p++)
        if (kv->counts[p] != g->pages[p].owners)
            return wrong(error, i, p, "wrong number of owners");
    return true;
}

/* Each page is in one place: owned, on the stack, or in the list. */
static bool check_places(rt_kv *kv, uint32_t i, rt_error *error) {
    const kv_group *g = &kv->groups[i];
    int32_t owned = 0, cached = 0;
    for (int32_t p = 0; p < g->n_pages; p++) {
        kv->counts[p] = g->pages[p].owners > 0;
        owned += kv->counts[p];
    }
    for (int32_t k = 0; k < g->n_free; k++) {
        int32_t p = g->free_pages[k];
        if (p < 0 || p >= g->n_pages || kv->counts[p]++ != 0 || g->pages[p].node != RT_KV_NONE)
            return wrong(error, i, p, "free, and something else");
    }
    for (int32_t p = g->newest, before = RT_KV_NONE; p != RT_KV_NONE; p = g->pages[p].older) {
        if (kv->counts[p]++ != 0 || g->pages[p].node == RT_KV_NONE || g->pages[p].newer != before ||
            (g->pages[p].older == RT_KV_NONE && g->oldest != p))
            return wrong(error, i, p, "cached, and something else");
        before = p;
        cached++;
    }
    if (cached != g->n_cached || owned + cached + g->n_free != g->n_pages)
        return rt_fail(error, MCC_INTERNAL,
                       "KV group %" PRIu32 ": %d owned, %d cached (%d counted), %d free, of %d", i,
                       owned, cached, g->n_cached, g->n_free, g->n_pages);
    return true;
}

/* Pages and nodes point at each other; a node's references are its children and the tips. */
static bool check_tree(rt_kv *kv, rt_error *error) {
    memset(kv->counts, 0, (size_t)kv->n_nodes * sizeof *kv->counts);
    int32_t unused = 0;
    for (int32_t n = kv->unused_nodes; n != RT_KV_NONE; n = kv->nodes[n].next)
        unused++;
    for (int s = 0; s < kv->n_slots; s++)
        if (kv->sequences[s].tip != RT_KV_NONE)
            kv->counts[kv->sequences[s].tip]++;
    for (int32_t n = 0; n < kv->n_nodes; n++) {
        const kv_node *node = &kv->nodes[n];
        int32_t pages = 0;
        unused += node->used;
        for (uint32_t i = 0; node->used && i < kv->n_groups; i++) {
            const kv_group *g = &kv->groups[i];
            for (int32_t k = 0; k < g->block_pages; k++) {
                int32_t page = kv->node_pages[(int64_t)n * kv->node_entries + g->first_entry + k];
                pages += page != RT_KV_NONE;
                if (page != RT_KV_NONE && g->pages[page].node != n)
                    return wrong(error, i, page, "known to a node that it does not know");
            }
        }
        if (node->used && (pages != node->n_pages || (pages == 0 && node->refs == 0)))
            return rt_fail(error, MCC_INTERNAL, "node %" PRId32 " has %d pages, %d counted", n,
                           pages, node->n_pages);
        if (node->used && node->parent != RT_KV_NONE)
            kv->counts[node->parent]++;
    }
    for (int32_t n = 0; n < kv->n_nodes; n++)
        if (kv->counts[n] != (kv->nodes[n].used ? kv->nodes[n].refs : 0))
            return rt_fail(error, MCC_INTERNAL, "node %" PRId32 " has %d references, %d counted", n,
                           kv->counts[n], kv->nodes[n].refs);
    return unused == kv->n_nodes ||
           rt_fail(error, MCC_INTERNAL, "%d of %d nodes are used or unused", unused, kv->n_nodes);
}

bool rt_kv_check(rt_kv *kv, rt_error *error) {
    int64_t known = 0, in_nodes = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        if (!check_owners(kv, i, error) || !check_places(kv, i, error))
            return false;
        for (int32_t p = 0; p < kv->groups[i].n_pages; p++)
            known += kv->groups[i].pages[p].node != RT_KV_NONE;
    }
    for (int32_t n = 0; n < kv->n_nodes; n++)
        in_nodes += kv->nodes[n].used ? kv->nodes[n].n_pages : 0;
    if (known != in_nodes)
        return rt_fail(error, MCC_INTERNAL,
                       "%" PRId64 " pages know their node, nodes know %" PRId64, known, in_nodes);
    return check_tree(kv, error) && kv_swap_check(kv, error);
}

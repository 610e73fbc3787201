/* Sequences whose pages wait in the host's memory: those that were preempted where copying is
 * cheaper than computing them again. All pages of a sequence go out together, and come back
 * together, to whichever pages are free then; what the prefix cache knows of them stays behind. */
#include "runtime/kv_internal.h"
#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdlib.h>

/* Pages of the group that `bytes` are shared out to, as one sequence would use them. */
static int64_t host_pages(const rt_kv *kv, const kv_group *g, const rt_kv_options *o,
                          uint64_t one) {
    int64_t each = kv_pages_for(g->entry, kv->max_len, kv->max_step);
    int64_t most = each < INT32_MAX / RT_KV_SWAPPED ? each * RT_KV_SWAPPED : INT32_MAX;
    long double share = (long double)o->swap_bytes / (long double)one * (long double)each;
    return share < (long double)most ? (int64_t)share : most; /* no more are ever of use */
}

bool kv_swap_create(rt_kv *kv, const rt_kv_options *o, uint64_t one, rt_error *error) {
    if (o->swap_bytes == 0)
        return true;
    size_t entries = (size_t)kv->n_groups * (size_t)kv->table_entries, n = RT_KV_SWAPPED;
    int64_t pages = 0;
    kv->swapped = calloc(n, sizeof *kv->swapped);
    kv->swap_space = malloc(n * entries * sizeof *kv->swap_space);
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        g->n_host = (int32_t)host_pages(kv, g, o, one);
        g->free_host = malloc(((size_t)g->n_host + 1) * sizeof *g->free_host);
        for (int32_t p = 0; g->free_host && p < g->n_host; p++)
            g->free_host[g->n_free_host++] = g->n_host - 1 - p;
        pages += g->n_pages + (int64_t)g->n_host;
        if (!g->free_host)
            return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for the KV cache");
    }
    /* A plan moves most pages once; when it wants more, sequences are computed again. */
    rt_kv_copy *copies =
        realloc(kv->copies, ((size_t)kv->copy_capacity + (size_t)pages + 1) * sizeof *copies);
    if (copies)
        kv->copies = copies;
    kv->swap_copies = pages;
    return (copies && kv->swapped && kv->swap_space) ||
           rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for the KV cache");
}

void kv_swap_destroy(rt_kv *kv) {
    for (uint32_t i = 0; kv->groups && i < kv->n_groups; i++)
        free(kv->groups[i].free_host);
    free(kv->swapped);
    free(kv->swap_space);
}

uint64_t rt_kv_host_bytes(const rt_kv *kv, uint32_t group) {
    const kv_group *g = &kv->groups[group];
    return (uint64_t)g->n_host * g->entry->layer_bytes * (uint64_t)g->entry->layers;
}

uint64_t rt_kv_all_host_bytes(const rt_kv *kv) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++)
        bytes += rt_kv_host_bytes(kv, i);
    return bytes;
}

/* The host pages of a record in a group. */
static int32_t *host_of(const rt_kv *kv, int record, uint32_t group) {
    return kv->swap_space + ((int64_t)record * kv->n_groups + group) * kv->table_entries;
}

static bool room_for_copies(const rt_kv *kv, int64_t n) {
    return kv->n_copies + n <= kv->swap_copies;
}

/* Whether the host has room for a slot's pages; *n becomes their number. */
static bool fits(const rt_kv *kv, int slot, int64_t *n) {
    bool enough = true;
    *n = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const kv_group *g = &kv->groups[i];
        int64_t end = rt_kv_pages(kv, i, kv->sequences[slot].length);
        int64_t pages = end - g->slots[slot].first;
        enough = enough && pages <= g->n_free_host;
        *n += pages;
    }
    return enough;
}

int rt_kv_swap_out(rt_kv *kv, int slot) {
    const kv_sequence *q = &kv->sequences[slot];
    int64_t n;
    int record = 0;
    while (kv->swapped && record < RT_KV_SWAPPED && kv->swapped[record].length > 0)
        record++;
    if (!kv->swapped || record == RT_KV_SWAPPED || q->length == 0 || !fits(kv, slot, &n) ||
        !room_for_copies(kv, n))
        return RT_KV_NONE;
    kv->swapped[record] = (kv_swapped){.length = q->length, .salt = q->salt};
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        const slot_pages *s = &g->slots[slot];
        int32_t *host = host_of(kv, record, i);
        for (int64_t e = 0; e < rt_kv_pages(kv, i, q->length); e++) {
            host[e] = e < s->first ? RT_KV_NONE : g->free_host[--g->n_free_host];
            if (host[e] != RT_KV_NONE)
                kv->copies[kv->n_copies++] = (rt_kv_copy){
                    .kind = RT_KV_TO_HOST, .group = i, .from = s->table[e], .to = host[e]};
        }
    }
    rt_kv_truncate(kv, slot, 0);
    return record;
}

int64_t rt_kv_swap_length(const rt_kv *kv, int record) {
    return kv->swapped[record].length;
}

void rt_kv_swap_drop(rt_kv *kv, int record) {
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        const int32_t *host = host_of(kv, record, i);
        for (int64_t e = rt_kv_pages(kv, i, kv->swapped[record].length) - 1; e >= 0; e--)
            if (host[e] != RT_KV_NONE)
                g->free_host[g->n_free_host++] = host[e];
    }
    kv->swapped[record].length = 0;
}

bool rt_kv_swap_in(rt_kv *kv, int record, int slot) {
    const kv_swapped *r = &kv->swapped[record];
    int64_t n = 0;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        const int32_t *host = host_of(kv, record, i);
        int64_t pages = 0;
        for (int64_t e = 0; e < rt_kv_pages(kv, i, r->length); e++)
            pages += host[e] != RT_KV_NONE;
        if (pages > kv_available(&kv->groups[i]))
            return false;
        n += pages;
    }
    if (!room_for_copies(kv, n))
        return false;
    for (uint32_t i = 0; i < kv->n_groups; i++) {
        kv_group *g = &kv->groups[i];
        slot_pages *s = &g->slots[slot];
        const int32_t *host = host_of(kv, record, i);
        s->first = s->end = rt_kv_pages(kv, i, r->length);
        for (int64_t e = s->end - 1; e >= 0 && host[e] != RT_KV_NONE; e--) {
            s->table[e] = kv_take_page(kv, g);
            s->first = e;
            kv->copies[kv->n_copies++] = (rt_kv_copy){
                .kind = RT_KV_FROM_HOST, .group = i, .from = host[e], .to = s->table[e]};
        }
    }
    /* Its blocks are not made known again: those that it had made known may be so still. */
    kv_sequence *q = &kv->sequences[slot];
    q->length = r->length;
    q->salt = r->salt;
    q->closed = true;
    /* Later copies, which may go to these host pages, come after. */
    rt_kv_swap_drop(kv, record);
    return true;
}

bool kv_swap_check(rt_kv *kv, rt_error *error) {
    for (uint32_t i = 0; kv->swapped && i < kv->n_groups; i++) {
        const kv_group *g = &kv->groups[i];
        int64_t held = 0;
        for (int r = 0; r < RT_KV_SWAPPED; r++)
            for (int64_t e = 0; e < rt_kv_pages(kv, i, kv->swapped[r].length); e++)
                held += host_of(kv, r, i)[e] != RT_KV_NONE;
        if (held + g->n_free_host != g->n_host)
            return rt_fail(error, MCC_INTERNAL,
                           "KV group %" PRIu32 ": of %d host pages %" PRId64
                           " are held and %d free",
                           i, g->n_host, held, g->n_free_host);
    }
    return true;
}

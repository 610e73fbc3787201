/* A KV group's pool of pages: free ones on a stack, cached ones in a list by when they were let
 * go. */
#include "runtime/kv_internal.h"
#include "runtime/modelcc.h"

#include <inttypes.h>
#include <stdlib.h>

bool kv_pool_create(kv_group *g, int64_t pages, rt_error *error) {
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
    g->pages = malloc((size_t)pages * sizeof *g->pages);
    if (!g->free_pages || !g->pages)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for %" PRId64 " page numbers",
                       pages);
    /* Page 0 on top, so that a first sequence's pages ascend. */
    for (int32_t i = 0; i < g->n_pages; i++) {
        g->free_pages[i] = g->n_pages - 1 - i;
        g->pages[i] = (kv_page){.node = RT_KV_NONE, .newer = RT_KV_NONE, .older = RT_KV_NONE};
    }
    g->n_free = g->n_pages;
    g->newest = g->oldest = RT_KV_NONE;
    return true;
}

void kv_pool_destroy(kv_group *g) {
    free(g->free_pages);
    free(g->pages);
}

/* Takes a page out of the list of cached ones. */
static void unlink_page(kv_group *g, int32_t page) {
    kv_page *p = &g->pages[page];
    *(p->newer == RT_KV_NONE ? &g->newest : &g->pages[p->newer].older) = p->older;
    *(p->older == RT_KV_NONE ? &g->oldest : &g->pages[p->older].newer) = p->newer;
    p->newer = p->older = RT_KV_NONE;
    g->n_cached--;
}

int32_t kv_take_page(rt_kv *kv, kv_group *g) {
    if (g->n_free == 0)
        kv_tree_forget_page(kv, g, g->oldest);
    int32_t page = g->free_pages[--g->n_free];
    g->pages[page].owners = 1;
    return page;
}

void kv_share_page(kv_group *g, int32_t page) {
    if (g->pages[page].owners++ == 0)
        unlink_page(g, page);
}

void kv_drop_page(rt_kv *kv, kv_group *g, int32_t page) {
    kv_page *p = &g->pages[page];
    if (--p->owners > 0)
        return;
    kv->releases++;
    if (p->node == RT_KV_NONE) {
        g->free_pages[g->n_free++] = page;
        return;
    }
    p->older = g->newest;
    *(g->newest == RT_KV_NONE ? &g->oldest : &g->pages[g->newest].newer) = page;
    g->newest = page;
    g->n_cached++;
}

void kv_uncache_page(kv_group *g, int32_t page) {
    unlink_page(g, page);
    g->free_pages[g->n_free++] = page;
}

#include "runtime/emulator/races_within.h"

#include <stdlib.h>
#include <string.h>

/* Pages that the block has touched lie in the shadow in the order of their first access: page `i`
 * of the table's at i << PAGE_SHIFT. */
enum { PAGE_SHIFT = 10, PAGE_BYTES = 1 << PAGE_SHIFT, MOST_PAGES = 1 << (31 - PAGE_SHIFT) };

typedef struct slot {
    uint64_t page; /* of the device's addresses */
    uint32_t place;
    uint32_t block; /* counts blocks: slots of others are free */
} slot;

struct emu_races_within {
    emu_shadow *shadow;
    slot *slots; /* a hash table of a power of two of them, at most half of them used */
    uint32_t n_slots, n_pages, block;
    uint64_t *pages; /* by place; half as many as slots */
};

static bool make_slots(emu_races_within *r, uint32_t n) {
    slot *slots = calloc(n, sizeof *slots);
    uint64_t *pages = realloc(r->pages, n / 2 * sizeof *pages);
    if (pages)
        r->pages = pages;
    if (!slots || !pages) {
        free(slots);
        return false;
    }
    free(r->slots);
    r->slots = slots;
    r->n_slots = n;
    return true;
}

emu_races_within *emu_races_within_create(void) {
    emu_races_within *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->shadow = emu_shadow_create(EMU_SHADOW_RACES);
    if (!r->shadow || !make_slots(r, 256)) {
        emu_races_within_destroy(r);
        return NULL;
    }
    return r;
}

void emu_races_within_destroy(emu_races_within *r) {
    if (!r)
        return;
    emu_shadow_destroy(r->shadow);
    free(r->slots);
    free(r->pages);
    free(r);
}

bool emu_races_within_begin(emu_races_within *r, uint32_t threads) {
    r->n_pages = 0;
    if (!++r->block) {
        memset(r->slots, 0, r->n_slots * sizeof *r->slots);
        r->block = 1;
    }
    return emu_shadow_begin(r->shadow, 0, threads);
}

emu_shadow *emu_races_within_order(emu_races_within *r) {
    return r->shadow;
}

static slot *find_slot(const emu_races_within *r, uint64_t page) {
    uint64_t at = page * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    slot *s = &r->slots[at & (r->n_slots - 1)];
    while (s->block == r->block && s->page != page)
        s = &r->slots[++at & (r->n_slots - 1)];
    return s;
}

/* Where the page is in the shadow; UINT32_MAX when memory is exhausted. */
static uint32_t place_of(emu_races_within *r, uint64_t page) {
    slot *s = find_slot(r, page);
    if (s->block == r->block)
        return s->place;
    if (r->n_pages == r->n_slots / 2) {
        if (r->n_pages >= MOST_PAGES || !make_slots(r, 2 * r->n_slots))
            return UINT32_MAX;
        for (uint32_t i = 0; i < r->n_pages; i++)
            *find_slot(r, r->pages[i]) = (slot){r->pages[i], i, r->block};
        s = find_slot(r, page);
    }
    if (!emu_shadow_extend(r->shadow, PAGE_BYTES))
        return UINT32_MAX;
    r->pages[r->n_pages] = page;
    *s = (slot){page, r->n_pages, r->block};
    return r->n_pages++;
}

bool emu_races_within_access(emu_races_within *r, emu_access access, uint32_t warp, uint32_t active,
                             const uint64_t at[32], uint32_t bytes, uint64_t *address,
                             emu_shadow_report *report) {
    uint32_t in[32] = {0};
    uint64_t page = UINT64_MAX;
    uint32_t place = 0, size = bytes < 16 ? bytes : 16;
    for (uint32_t left = active; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        if (at[i] >> PAGE_SHIFT != page) {
            page = at[i] >> PAGE_SHIFT;
            place = place_of(r, page);
            if (place == UINT32_MAX)
                return true;
        }
        in[i] = place << PAGE_SHIFT | (uint32_t)(at[i] & (PAGE_BYTES - 1));
    }
    for (uint32_t done = 0; done < bytes; done += size) {
        if (!emu_shadow_access(r->shadow, access, warp, active, in, size, report)) {
            *address = r->pages[report->address >> PAGE_SHIFT] << PAGE_SHIFT |
                       (report->address & (PAGE_BYTES - 1));
            return false;
        }
        for (int i = 0; i < 32; i++)
            in[i] += size;
    }
    return true;
}

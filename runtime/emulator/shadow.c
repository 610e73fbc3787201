/* The order of a block's threads: clocks, barriers; and the shadow's memory. Accesses are checked
 * in shadow_access.c. */
#include "runtime/emulator/shadow_state.h"

#include <stdio.h>
#include <stdlib.h>

emu_shadow *emu_shadow_create(uint32_t checks) {
    emu_shadow *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->checks = checks;
    s->shift = 2;
    return s;
}

static void free_units(emu_shadow *s) {
    free(s->writes);
    shadow_set *sets[] = {&s->reads, &s->atomics, &s->strong_reads};
    for (int i = 0; i < 3; i++) {
        free(sets[i]->key);
        free(sets[i]->mask);
    }
}

void emu_shadow_destroy(emu_shadow *s) {
    if (!s)
        return;
    free_units(s);
    free(s->lists);
    free(s->free_lists);
    free(s->lane_times);
    free(s);
}

static bool make_room(emu_shadow *s, uint32_t units) {
    if (units <= s->room)
        return true;
    free_units(s);
    s->room = 0;
    s->writes = malloc(4 * (size_t)units);
    shadow_set *sets[] = {&s->reads, &s->atomics, &s->strong_reads};
    bool good = s->writes != NULL;
    for (int i = 0; i < 3; i++) {
        sets[i]->key = malloc(4 * (size_t)units);
        sets[i]->mask = malloc(4 * (size_t)units);
        good &= sets[i]->key && sets[i]->mask;
    }
    s->room = good ? units : 0;
    return good;
}

static void reset_clocks(emu_shadow *s) {
    memset(s->published, 0, sizeof s->published);
    for (uint32_t i = 0; i < s->n_warps; i++) {
        shadow_warp *w = &s->warps[i];
        *w = (shadow_warp){.time = 1, .phase = 1, .lanes = w->lanes};
        w->others = s->n_warps == 1 ? UINT32_MAX : 0;
    }
    s->n_free = 0;
    for (uint32_t i = s->n_lists; i-- > 0;)
        s->free_lists[s->n_free++] = i;
}

void emu_shadow_forget(emu_shadow *s) {
    for (uint32_t i = 0; i < s->units; i++) {
        uint32_t write = s->writes[i];
        if (write && write < SHADOW_PENDING)
            s->writes[i] = write & 0xfff;
        else if (!write && s->strong && s->atomics.key[i])
            s->writes[i] = SHADOW_INITIAL;
    }
    shadow_set *sets[] = {&s->reads, &s->atomics, &s->strong_reads};
    for (int i = 0; i < 3; i++)
        if (sets[i]->used)
            memset(sets[i]->key, 0, 4 * (size_t)s->units);
    reset_clocks(s);
}

bool emu_shadow_begin(emu_shadow *s, uint32_t bytes, uint32_t threads) {
    uint32_t units = (bytes >> s->shift) + ((bytes & ((1u << s->shift) - 1)) != 0);
    if (!make_room(s, units ? units : 1))
        return false;
    s->bytes = bytes;
    s->units = units;
    s->n_threads = threads;
    s->n_warps = (threads + 31) / 32;
    s->strong = false;
    if (s->checks & EMU_SHADOW_UNINITIALISED)
        memset(s->writes, 0, 4 * (size_t)units);
    else
        for (uint32_t i = 0; i < units; i++)
            s->writes[i] = SHADOW_INITIAL;
    shadow_set *sets[] = {&s->reads, &s->atomics, &s->strong_reads};
    for (int i = 0; i < 3; i++) {
        sets[i]->used = i == 0;
        if (sets[i]->used)
            memset(sets[i]->key, 0, 4 * (size_t)units);
    }
    reset_clocks(s);
    return true;
}

bool emu_shadow_extend(emu_shadow *s, uint32_t bytes) {
    uint32_t first = s->units, units = first + (bytes >> s->shift);
    shadow_set *sets[] = {&s->reads, &s->atomics, &s->strong_reads};
    if (units > s->room) {
        uint32_t **rows[] = {&s->writes,           &s->reads.key,    &s->reads.mask,
                             &s->atomics.key,      &s->atomics.mask, &s->strong_reads.key,
                             &s->strong_reads.mask};
        uint32_t room = units > 2 * s->room ? units : 2 * s->room;
        for (int i = 0; i < 7; i++) {
            uint32_t *row = realloc(*rows[i], 4 * (size_t)room);
            if (!row)
                return false;
            *rows[i] = row;
        }
        s->room = room;
    }
    for (uint32_t i = first; i < units; i++)
        s->writes[i] = SHADOW_INITIAL;
    for (int i = 0; i < 3; i++)
        if (sets[i]->used)
            memset(sets[i]->key + first, 0, 4 * (size_t)(units - first));
    s->bytes += bytes;
    s->units = units;
    return true;
}

/* --- clocks -------------------------------------------------------------------------------------
 */

/* Makes sure that every clock can move. */
static void tick(emu_shadow *s, shadow_warp *w) {
    if (++w->time >= SHADOW_LAST_TIME)
        emu_shadow_forget(s);
}

static void set_floor(shadow_warp *w) {
    w->floor = w->others < w->whole ? w->others : w->whole;
}

void emu_shadow_warp_sync(emu_shadow *s, uint32_t warp, uint32_t mask) {
    if (!(s->checks & EMU_SHADOW_RACES))
        return;
    shadow_warp *w = &s->warps[warp];
    uint32_t lanes = s->n_threads - 32 * warp;
    uint32_t all = lanes >= 32 ? UINT32_MAX : (1u << lanes) - 1;
    if ((mask & all) == all) {
        w->whole = w->time;
        w->partial = false;
        set_floor(w);
        tick(s, w);
        return;
    }
    if (!s->lane_times) {
        s->lane_times = calloc(SHADOW_WARPS, sizeof *s->lane_times);
        if (!s->lane_times) { /* no race can be told apart any more */
            emu_shadow_forget(s);
            return;
        }
        for (int i = 0; i < SHADOW_WARPS; i++)
            s->warps[i].lanes = s->lane_times[i];
    }
    if (!w->partial)
        memset(w->lanes, 0, sizeof s->lane_times[0]);
    w->partial = true;
    uint32_t known[32] = {0};
    for (uint32_t left = mask; left; left &= left - 1) {
        const uint32_t *knows = w->lanes[__builtin_ctz(left)];
        for (int j = 0; j < 32; j++)
            known[j] = knows[j] > known[j] ? knows[j] : known[j];
    }
    for (uint32_t left = mask; left; left &= left - 1)
        known[__builtin_ctz(left)] = w->time;
    for (uint32_t left = mask; left; left &= left - 1)
        memcpy(w->lanes[__builtin_ctz(left)], known, sizeof known);
    tick(s, w);
}

void emu_shadow_arrive(emu_shadow *s, uint32_t id, uint32_t warp) {
    if (!(s->checks & EMU_SHADOW_RACES))
        return;
    shadow_warp *w = &s->warps[warp];
    uint32_t *published = s->published[id];
    for (uint32_t u = 0; u < s->n_warps; u++)
        published[u] = w->seen[u] > published[u] ? w->seen[u] : published[u];
    published[warp] = w->time;
    w->fresh = true;
    tick(s, w);
}

void emu_shadow_release(emu_shadow *s, uint32_t id, uint32_t warps) {
    if (!(s->checks & EMU_SHADOW_RACES))
        return;
    uint32_t n = s->n_warps, *published = s->published[id], latest = 0;
    for (uint32_t left = warps; left; left &= left - 1) {
        shadow_warp *w = &s->warps[__builtin_ctz(left)];
        latest = w->time > latest ? w->time : latest;
    }
    /* Warps that did nothing since those here last heard of them, having exited perhaps, come
     * along, or nothing would ever be known of all warps again. */
    for (uint32_t u = 0; u < n; u++) {
        shadow_warp *other = &s->warps[u];
        bool here = warps >> u & 1;
        if ((here || other->last <= published[u]) && other->time < latest) {
            other->time = latest;
            other->fresh = true;
        }
    }
    for (uint32_t left = warps; left; left &= left - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(left);
        shadow_warp *w = &s->warps[i];
        w->others = UINT32_MAX;
        for (uint32_t u = 0; u < n; u++) {
            const shadow_warp *other = &s->warps[u];
            uint32_t seen = published[u] > w->seen[u] ? published[u] : w->seen[u];
            w->seen[u] = seen;
            if (u == i)
                continue;
            uint32_t known = other->last <= seen ? other->time - 1 : seen;
            w->others = known < w->others ? known : w->others;
        }
        w->whole = w->time - 1;
        w->partial = false;
        w->fresh = true;
        set_floor(w);
    }
    memset(published, 0, sizeof s->published[id]);
    if (latest > SHADOW_LAST_TIME / 2 && (uint32_t)__builtin_popcount(warps) == n)
        emu_shadow_forget(s); /* which nothing can be missed by here */
}

void emu_shadow_barrier(emu_shadow *s, uint32_t warps) {
    for (uint32_t left = warps; left; left &= left - 1)
        emu_shadow_arrive(s, 16, (uint32_t)__builtin_ctz(left));
    emu_shadow_release(s, 16, warps);
}

/* --- messages -----------------------------------------------------------------------------------
 */

static const char *deed(emu_access access) {
    switch (access) {
    case EMU_ACCESS_READ:
    case EMU_ACCESS_STRONG_READ:
        return "reads";
    case EMU_ACCESS_WRITE:
    case EMU_ACCESS_STRONG_WRITE:
        return "writes";
    case EMU_ACCESS_ATOMIC:
        return "atomically updates";
    case EMU_ACCESS_ASYNC:
        return "begins an async copy to";
    }
    return "uses";
}

static const char *past_deed(emu_access access) {
    switch (access) {
    case EMU_ACCESS_READ:
    case EMU_ACCESS_STRONG_READ:
        return "read";
    case EMU_ACCESS_WRITE:
    case EMU_ACCESS_STRONG_WRITE:
        return "wrote";
    case EMU_ACCESS_ATOMIC:
        return "updated atomically";
    case EMU_ACCESS_ASYNC:
        return "copied to";
    }
    return "used";
}

void emu_shadow_message(const emu_shadow_report *report, char *text, size_t bytes) {
    char other[64];
    if (report->other != UINT32_MAX)
        snprintf(other, sizeof other, "thread %u", report->other);
    else
        snprintf(other, sizeof other, "warp %u", report->other_warp);
    switch (report->kind) {
    case EMU_SHADOW_READ_UNINITIALISED:
        snprintf(text, bytes,
                 "read of uninitialised shared memory: thread %u reads byte %u, which nobody wrote",
                 report->thread, report->address);
        return;
    case EMU_SHADOW_USE_OF_PENDING:
        snprintf(
            text, bytes,
            "use of shared memory before an async copy is done: thread %u %s byte %u, to which "
            "%s has a copy in flight",
            report->thread, deed(report->access), report->address, other);
        return;
    case EMU_SHADOW_RACE:
        snprintf(text, bytes,
                 "shared memory race: thread %u %s byte %u, which %s %s, with no %s between",
                 report->thread, deed(report->access), report->address, other,
                 past_deed(report->other_access),
                 report->other_warp == report->thread / 32 ? "barrier or __syncwarp" : "barrier");
        return;
    }
}

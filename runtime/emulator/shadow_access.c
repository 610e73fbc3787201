/* Accesses of shared memory: checked against what is noted of their units, then noted.
 *
 * Most accesses are ordered behind everything that is noted by one barrier, and whole warps do the
 * same: that is seen and noted in loops over units that vectorize. What does not pass there is
 * looked at unit by unit. */
#include "runtime/emulator/shadow_state.h"

#include <stdlib.h>

typedef struct shadow_job {
    emu_shadow *s;
    const shadow_warp *w;
    uint32_t warp;
    emu_access access;
    uint32_t limit; /* stamps below are known to all lanes of the warp */
    uint32_t own;   /* those of its own that are below are known to them */
    uint32_t stamp; /* of a write by lane 0 */
    uint32_t lanes; /* key of a set of lanes now */
    uint32_t team;  /* key of a set of warps in this phase */
    uint32_t least; /* write stamps must be this at least: 1 where 0 is uninitialised */
} shadow_job;

/* --- one unit, exactly --------------------------------------------------------------------------
 */

static bool lanes_known(const shadow_warp *w, int lane, uint32_t mask, uint32_t time) {
    for (uint32_t left = mask; left; left &= left - 1)
        if (!shadow_lane_knows(w, lane, __builtin_ctz(left), time))
            return false;
    return true;
}

/* Whether all accesses of a set happen before what `lane` does now; else one that does not. */
static bool set_known(const shadow_job *job, const shadow_set *set, uint32_t unit, int lane,
                      uint32_t *other_warp, uint32_t *other) {
    uint32_t key = set->key[unit], mask = set->mask[unit], time = key >> SHADOW_TIME_SHIFT;
    const shadow_warp *w = job->w;
    if (key < job->limit)
        return true;
    uint32_t u = key >> 2 & 31;
    *other = UINT32_MAX;
    if ((key & 3) == SHADOW_LANES) {
        *other_warp = u;
        if (!(mask & (mask - 1)))
            *other = 32 * u + (uint32_t)__builtin_ctz(mask);
        if (u != job->warp)
            return time <= w->seen[u];
        uint32_t rest = mask & ~(1u << lane);
        if (rest && !(rest & (rest - 1)))
            *other = 32 * u + (uint32_t)__builtin_ctz(rest);
        return lanes_known(w, lane, mask, time);
    }
    if ((key & 3) == SHADOW_TEAM) {
        for (uint32_t left = mask & ~(1u << job->warp); left; left &= left - 1) {
            *other_warp = (uint32_t)__builtin_ctz(left);
            if (time > w->seen[*other_warp])
                return false;
        }
        return true;
    }
    const shadow_list *list = &job->s->lists[mask];
    if (key & SHADOW_BY_LANE) {
        *other_warp = u;
        if (u != job->warp)
            return time <= w->seen[u];
        for (int i = 0; i < 32; i++)
            if (list->time[i] && !shadow_lane_knows(w, lane, i, list->time[i])) {
                *other = 32 * u + (uint32_t)i;
                return false;
            }
        return true;
    }
    for (uint32_t i = 0; i < job->s->n_warps; i++)
        if (i != job->warp && list->time[i] > w->seen[i]) {
            *other_warp = i;
            return false;
        }
    return true;
}

/* Lists that no set uses become free again. */
static void collect_lists(emu_shadow *s) {
    shadow_set *sets[] = {&s->reads, &s->atomics, &s->strong_reads};
    for (uint32_t i = 0; i < s->n_lists; i++)
        s->free_lists[i] = 0;
    for (int k = 0; k < 3; k++)
        for (uint32_t i = 0; sets[k]->used && i < s->units; i++)
            if ((sets[k]->key[i] & 3) == SHADOW_LISTED)
                s->free_lists[sets[k]->mask[i]] = 1;
    s->n_free = 0;
    for (uint32_t i = 0; i < s->n_lists; i++)
        if (!s->free_lists[i])
            s->free_lists[s->n_free++] = i; /* n_free <= i: what is read is still there */
}

/* A list's index, or UINT32_MAX when memory is exhausted. */
static uint32_t take_list(emu_shadow *s) {
    if (!s->n_free && s->n_lists)
        collect_lists(s);
    if (s->n_free <= s->n_lists / 2) {
        uint32_t n = s->n_lists ? 2 * s->n_lists : 256;
        shadow_list *lists = realloc(s->lists, n * sizeof *lists);
        if (lists)
            s->lists = lists;
        uint32_t *free_lists = lists ? realloc(s->free_lists, n * sizeof *free_lists) : NULL;
        if (free_lists) {
            s->free_lists = free_lists;
            while (s->n_lists < n)
                s->free_lists[s->n_free++] = s->n_lists++;
        }
    }
    return s->n_free ? s->free_lists[--s->n_free] : UINT32_MAX;
}

/* Makes a set one with a list of times. False when there is no memory: the set stays as it is, and
 * a race with what should have been added is missed. */
static bool make_list(emu_shadow *s, shadow_set *set, uint32_t unit, bool by_lane) {
    uint32_t key = set->key[unit], mask = set->mask[unit], time = key >> SHADOW_TIME_SHIFT;
    shadow_list list = {{0}}, *at;
    uint32_t u = key >> 2 & 31;
    if ((key & 3) == SHADOW_LISTED && (by_lane || !(key & SHADOW_BY_LANE)))
        return true;
    if ((key & 3) == SHADOW_LISTED) {
        at = &s->lists[mask]; /* times of lanes become one of their warp */
        list.time[u] = time;
        *at = list;
        set->key[unit] = time << SHADOW_TIME_SHIFT | SHADOW_LISTED;
        return true;
    }
    uint32_t index = take_list(s);
    if (index == UINT32_MAX)
        return false;
    if ((key & 3) == SHADOW_LANES && !by_lane)
        list.time[u] = time;
    else
        for (uint32_t left = mask; left; left &= left - 1)
            list.time[__builtin_ctz(left)] = time;
    s->lists[index] = list;
    set->mask[unit] = index;
    set->key[unit] =
        time << SHADOW_TIME_SHIFT | (by_lane ? SHADOW_BY_LANE | u << 2 : 0) | SHADOW_LISTED;
    return true;
}

/* Adds an access of one lane to a set. */
static void set_add(const shadow_job *job, shadow_set *set, uint32_t unit, int lane) {
    emu_shadow *s = job->s;
    const shadow_warp *w = job->w;
    uint32_t key = set->key[unit], u = key >> 2 & 31, other, other_warp;
    uint32_t time = key >> SHADOW_TIME_SHIFT;
    if (key == job->lanes) {
        set->mask[unit] |= 1u << lane;
        return;
    }
    if (set_known(job, set, unit, lane, &other_warp, &other)) {
        /* Who is unordered with those is unordered with this one. */
        set->key[unit] = job->lanes;
        set->mask[unit] = 1u << lane;
        return;
    }
    bool of_lanes =
        (key & 3) == SHADOW_LANES || ((key & 3) == SHADOW_LISTED && key & SHADOW_BY_LANE);
    if (of_lanes && u == job->warp) {
        if (!make_list(s, set, unit, true))
            return;
        s->lists[set->mask[unit]].time[lane] = w->time;
        set->key[unit] = job->lanes | SHADOW_BY_LANE | SHADOW_LISTED;
        return;
    }
    if ((key & 3) == SHADOW_LANES && time >= s->warps[u].phase && s->warps[u].phase == w->phase) {
        set->key[unit] = job->team;
        set->mask[unit] = 1u << u | 1u << job->warp;
        return;
    }
    if (key == job->team) {
        set->mask[unit] |= 1u << job->warp;
        return;
    }
    if (!make_list(s, set, unit, false))
        return;
    s->lists[set->mask[unit]].time[job->warp] = w->time;
    if (w->time > time)
        set->key[unit] = w->time << SHADOW_TIME_SHIFT | SHADOW_LISTED;
}

static bool is_write(emu_access access) {
    return access == EMU_ACCESS_WRITE || access == EMU_ACCESS_ASYNC;
}

/* One lane's access of one unit. */
static bool check_unit(const shadow_job *job, uint32_t unit, int lane, emu_shadow_report *report) {
    emu_shadow *s = job->s;
    const shadow_warp *w = job->w;
    uint32_t write = s->writes[unit], thread = 32 * job->warp + (uint32_t)lane, u = write >> 7 & 31;
    emu_access access = job->access;
    *report = (emu_shadow_report){.access = access, .address = unit << s->shift, .thread = thread};
    report->other = write >> 2 & 1023;
    report->other_warp = u;
    if (write >= SHADOW_PENDING) {
        report->kind = EMU_SHADOW_USE_OF_PENDING;
        report->other_access = EMU_ACCESS_ASYNC;
        return false;
    }
    if (!write && !is_write(access) && access != EMU_ACCESS_STRONG_WRITE &&
        !(s->strong && s->atomics.used && s->atomics.key[unit])) {
        report->kind = EMU_SHADOW_READ_UNINITIALISED;
        return false;
    }
    if (!(s->checks & EMU_SHADOW_RACES)) {
        if (is_write(access) || access == EMU_ACCESS_STRONG_WRITE || !write)
            s->writes[unit] = job->stamp + ((uint32_t)lane << 2);
        return true;
    }
    report->kind = EMU_SHADOW_RACE;
    uint32_t time = write >> SHADOW_TIME_SHIFT;
    if (write >= job->limit && report->other != thread &&
        (u == job->warp ? !shadow_lane_knows(w, lane, (int)(report->other % 32), time)
                        : time > w->seen[u])) {
        report->other_access = (write & 3) == SHADOW_COPIED ? EMU_ACCESS_ASYNC : EMU_ACCESS_WRITE;
        return false;
    }
    bool atomic = access == EMU_ACCESS_ATOMIC || access == EMU_ACCESS_STRONG_WRITE;
    if ((is_write(access) || atomic) &&
        !set_known(job, &s->reads, unit, lane, &report->other_warp, &report->other)) {
        report->other_access = EMU_ACCESS_READ;
        return false;
    }
    if (s->strong && s->atomics.used && (is_write(access) || access == EMU_ACCESS_READ) &&
        !set_known(job, &s->atomics, unit, lane, &report->other_warp, &report->other)) {
        report->other_access = EMU_ACCESS_ATOMIC;
        return false;
    }
    if (s->strong && s->strong_reads.used && is_write(access) &&
        !set_known(job, &s->strong_reads, unit, lane, &report->other_warp, &report->other)) {
        report->other_access = EMU_ACCESS_READ;
        return false;
    }
    if (is_write(access))
        s->writes[unit] = job->stamp + ((uint32_t)lane << 2);
    else
        set_add(job,
                atomic                             ? &s->atomics
                : access == EMU_ACCESS_STRONG_READ ? &s->strong_reads
                                                   : &s->reads,
                unit, lane);
    return true;
}

/* --- many units at once -------------------------------------------------------------------------
 */

/* Whether the last write is known to the lane that has `stamp`, and there was one. */
EMU_INLINE uint32_t write_is_bad(const shadow_job *job, uint32_t write, uint32_t stamp) {
    uint32_t known = (write < job->limit) | (((write ^ stamp) & 0xffc) == 0) |
                     ((((write ^ stamp) & 0xf80) == 0) & (write < job->own));
    return (write >= SHADOW_PENDING) | (write < job->least) | !known;
}

/* Notes reads of n units that so far lanes of one other warp read, all of them at one time
 * (`differ` is 0), in the phase of this one. False where that is not so. */
EMU_INLINE bool join_team(const shadow_job *job, uint32_t *key, uint32_t *mask, uint32_t n,
                          uint32_t differ) {
    uint32_t first = key[0], u = first >> 2 & 31;
    const shadow_warp *other = &job->s->warps[u];
    if (differ || (first & 3) != SHADOW_LANES || u == job->warp ||
        first >> SHADOW_TIME_SHIFT < other->phase || other->phase != job->w->phase)
        return false;
    for (uint32_t k = 0; k < n; k++) {
        key[k] = job->team;
        mask[k] = 1u << u | 1u << job->warp;
    }
    return true;
}

/* Reads by one lane (or of `lanes`, all at once) of n units. False: nothing is noted, look at each
 * unit. */
EMU_INLINE bool read_span(const shadow_job *job, uint32_t unit, uint32_t n, uint32_t lane,
                          uint32_t lanes) {
    const uint32_t *writes = job->s->writes + unit;
    uint32_t *key = job->s->reads.key + unit, *mask = job->s->reads.mask + unit;
    uint32_t stamp = job->stamp + (lane << 2), bad = 0, same = 0, team = 0, known = 0, equal = 0;
    for (uint32_t k = 0; k < n; k++) {
        bad |= write_is_bad(job, writes[k], stamp);
        same |= key[k] ^ job->lanes;
        team |= key[k] ^ job->team;
        known |= (key[k] >= job->limit) &
                 !((((key[k] ^ job->lanes) & 0xfff) == 0) & (key[k] < job->own));
        equal |= key[k] ^ key[0];
    }
    if (bad)
        return false;
    if (!same) {
        for (uint32_t k = 0; k < n; k++)
            mask[k] |= lanes;
        return true;
    }
    if (!known) {
        for (uint32_t k = 0; k < n; k++) {
            key[k] = job->lanes;
            mask[k] = lanes;
        }
        return true;
    }
    if (!team) {
        for (uint32_t k = 0; k < n; k++)
            mask[k] |= 1u << job->warp;
        return true;
    }
    return join_team(job, key, mask, n, equal);
}

/* Reads of n units by all lanes at once. What lane 0 may read that it wrote itself others may not.
 */
static bool read_by_all(const shadow_job *job, uint32_t unit, uint32_t n) {
    for (uint32_t k = 0; k < n; k++)
        if (job->s->writes[unit + k] >= job->limit)
            return false;
    return read_span(job, unit, n, 0, UINT32_MAX);
}

/* Reads of 32 << shift units side by side, 1 << shift a lane. */
EMU_CLONES static bool read_all(const shadow_job *job, uint32_t unit, uint32_t shift) {
    const uint32_t *writes = job->s->writes + unit;
    uint32_t *key = job->s->reads.key + unit, *mask = job->s->reads.mask + unit;
    uint32_t bad = 0, same = 0, team = 0, known = 0, equal = 0, n = 32u << shift;
    for (uint32_t k = 0; k < n; k++) {
        bad |= write_is_bad(job, writes[k], job->stamp + (k >> shift << 2));
        same |= key[k] ^ job->lanes;
        team |= key[k] ^ job->team;
        known |= (key[k] >= job->limit) &
                 !((((key[k] ^ job->lanes) & 0xfff) == 0) & (key[k] < job->own));
        equal |= key[k] ^ key[0];
    }
    if (bad)
        return false;
    if (!same) {
        for (uint32_t k = 0; k < n; k++)
            mask[k] |= 1u << (k >> shift);
        return true;
    }
    if (!known) {
        for (uint32_t k = 0; k < n; k++) {
            key[k] = job->lanes;
            mask[k] = 1u << (k >> shift);
        }
        return true;
    }
    if (!team) {
        for (uint32_t k = 0; k < n; k++)
            mask[k] |= 1u << job->warp;
        return true;
    }
    return join_team(job, key, mask, n, equal);
}

/* Whether the reads noted of a unit are known to the lane with `stamp`, bit `bit`. */
EMU_INLINE uint32_t reads_are_bad(const shadow_job *job, uint32_t key, uint32_t mask,
                                  uint32_t bit) {
    uint32_t own = ((key ^ job->lanes) & 0xfff) == 0;
    return (key >= job->limit) & !(own & ((key < job->own) | (mask == bit)));
}

EMU_INLINE bool write_span(const shadow_job *job, uint32_t unit, uint32_t n, uint32_t lane) {
    uint32_t *writes = job->s->writes + unit, stamp = job->stamp + (lane << 2), bad = 0;
    const uint32_t *key = job->s->reads.key + unit, *mask = job->s->reads.mask + unit;
    for (uint32_t k = 0; k < n; k++)
        bad |=
            write_is_bad(job, writes[k], stamp) | reads_are_bad(job, key[k], mask[k], 1u << lane);
    if (bad)
        return false;
    for (uint32_t k = 0; k < n; k++)
        writes[k] = stamp;
    return true;
}

EMU_CLONES static bool write_all(const shadow_job *job, uint32_t unit, uint32_t shift) {
    uint32_t *writes = job->s->writes + unit, bad = 0, n = 32u << shift;
    const uint32_t *key = job->s->reads.key + unit, *mask = job->s->reads.mask + unit;
    for (uint32_t k = 0; k < n; k++)
        bad |= write_is_bad(job, writes[k], job->stamp + (k >> shift << 2)) |
               reads_are_bad(job, key[k], mask[k], 1u << (k >> shift));
    if (bad)
        return false;
    for (uint32_t k = 0; k < n; k++)
        writes[k] = job->stamp + (k >> shift << 2);
    return true;
}

static bool check_lane(const shadow_job *job, uint32_t unit, uint32_t n, int lane,
                       emu_shadow_report *report) {
    for (uint32_t k = 0; k < n; k++)
        if (!check_unit(job, unit + k, lane, report))
            return false;
    return true;
}

/* Lane after lane; `n` is a constant where this is inlined. */
EMU_INLINE bool each_lane(const shadow_job *job, uint32_t active, const uint32_t address[32],
                          uint32_t shift, uint32_t n, bool plain, emu_shadow_report *report) {
    bool read = job->access == EMU_ACCESS_READ;
    for (uint32_t left = active; left; left &= left - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(left), unit = address[lane] >> shift;
        if (plain &&
            (read ? read_span(job, unit, n, lane, 1u << lane) : write_span(job, unit, n, lane)))
            continue;
        if (!check_lane(job, unit, n, (int)lane, report))
            return false;
    }
    return true;
}

EMU_CLONES static bool each_lane_1(const shadow_job *job, uint32_t active,
                                   const uint32_t address[32], uint32_t shift,
                                   emu_shadow_report *report) {
    return each_lane(job, active, address, shift, 1, true, report);
}
EMU_CLONES static bool each_lane_4(const shadow_job *job, uint32_t active,
                                   const uint32_t address[32], uint32_t shift,
                                   emu_shadow_report *report) {
    return each_lane(job, active, address, shift, 4, true, report);
}
EMU_CLONES static bool each_lane_n(const shadow_job *job, uint32_t active,
                                   const uint32_t address[32], uint32_t shift, uint32_t n,
                                   bool plain, emu_shadow_report *report) {
    return each_lane(job, active, address, shift, n, plain, report);
}

/* Bit 0: all lanes at one place; bit 1: side by side. */
EMU_CLONES static uint32_t pattern_of(const uint32_t address[32], uint32_t size) {
    uint32_t differs = 0, apart = 0;
    for (uint32_t i = 0; i < 32; i++) {
        differs |= address[i] ^ address[0];
        apart |= address[i] - address[0] - i * size;
    }
    return (differs ? 0u : 1u) | (apart ? 0u : 2u);
}

/* Units of 1 << shift bytes from now on: each becomes several with the same history. */
static bool refine(emu_shadow *s, uint32_t shift) {
    uint32_t by = 1u << (s->shift - shift), units = s->units * by;
    shadow_set *sets[] = {&s->reads, &s->atomics, &s->strong_reads};
    uint32_t **rows[7] = {&s->writes};
    for (int i = 0; i < 3; i++) {
        rows[1 + 2 * i] = &sets[i]->key;
        rows[2 + 2 * i] = &sets[i]->mask;
    }
    for (int i = 0; i < 7; i++) {
        uint32_t *row = realloc(*rows[i], 4 * (size_t)units);
        if (!row)
            return false;
        *rows[i] = row;
    }
    s->room = units;
    for (int i = 0; i < 7; i++) {
        uint32_t *row = *rows[i];
        if (i && !sets[(i - 1) / 2]->used)
            continue;
        for (uint32_t k = units; k-- > 0;)
            row[k] = row[k / by];
    }
    s->units = units;
    s->shift = shift;
    for (int i = 0; i < 3; i++)
        for (uint32_t k = 0; sets[i]->used && k < units; k++) {
            if ((sets[i]->key[k] & 3) != SHADOW_LISTED || k % by == 0)
                continue;
            uint32_t index = take_list(s); /* a list of its own */
            if (index == UINT32_MAX)
                sets[i]->key[k] = 0;
            else
                s->lists[index] = s->lists[sets[i]->mask[k]];
            sets[i]->mask[k] = index;
        }
    return true;
}

static void use_set(emu_shadow *s, shadow_set *set) {
    if (set->used)
        return;
    memset(set->key, 0, 4 * (size_t)s->units);
    set->used = s->strong = true;
}

static shadow_job begin_job(emu_shadow *s, emu_access access, uint32_t warp) {
    shadow_warp *w = &s->warps[warp];
    if (w->fresh) {
        w->phase = w->time;
        w->fresh = false;
    }
    w->last = w->time;
    uint32_t time = w->time << SHADOW_TIME_SHIFT, kind = SHADOW_WRITTEN;
    if (access == EMU_ACCESS_ASYNC) {
        kind = SHADOW_COPIED;
        if (s->checks & EMU_SHADOW_ASYNC)
            time = SHADOW_PENDING;
    }
    bool races = s->checks & EMU_SHADOW_RACES;
    return (shadow_job){
        .s = s,
        .w = w,
        .warp = warp,
        .access = access,
        .limit = races ? (w->floor + 1) << SHADOW_TIME_SHIFT : SHADOW_PENDING,
        .own = (w->whole + 1) << SHADOW_TIME_SHIFT,
        .stamp = time | warp << 7 | kind,
        .lanes = w->time << SHADOW_TIME_SHIFT | warp << 2 | SHADOW_LANES,
        .team = w->phase << SHADOW_TIME_SHIFT | SHADOW_TEAM,
        .least = access == EMU_ACCESS_READ ? 1 : 0,
    };
}

bool emu_shadow_access(emu_shadow *s, emu_access access, uint32_t warp, uint32_t active,
                       const uint32_t address[32], uint32_t size, emu_shadow_report *report) {
    if (!active)
        return true;
    while (size >> s->shift == 0)
        if (!refine(s, s->shift - 1))
            return true;
    if (access == EMU_ACCESS_ATOMIC || access == EMU_ACCESS_STRONG_WRITE)
        use_set(s, &s->atomics);
    else if (access == EMU_ACCESS_STRONG_READ)
        use_set(s, &s->strong_reads);
    shadow_job job = begin_job(s, access, warp);
    uint32_t n = size >> s->shift, shift = s->shift;
    bool plain = !s->strong;
    bool read = access == EMU_ACCESS_READ;
    if (!plain || !(read || is_write(access)))
        return each_lane_n(&job, active, address, shift, n, false, report);
    if (active == UINT32_MAX) {
        uint32_t pattern = pattern_of(address, size), unit = address[0] >> shift;
        if (pattern & 2 && (read ? read_all(&job, unit, (uint32_t)__builtin_ctz(n))
                                 : write_all(&job, unit, (uint32_t)__builtin_ctz(n))))
            return true;
        if (pattern & 1 && read && read_by_all(&job, unit, n))
            return true;
    }
    return n == 1   ? each_lane_1(&job, active, address, shift, report)
           : n == 4 ? each_lane_4(&job, active, address, shift, report)
                    : each_lane_n(&job, active, address, shift, n, true, report);
}

void emu_shadow_async_done(emu_shadow *s, uint32_t warp, uint32_t active,
                           const uint32_t address[32], uint32_t size) {
    shadow_job job = begin_job(s, EMU_ACCESS_WRITE, warp);
    uint32_t n = size >> s->shift;
    for (uint32_t left = active; left; left &= left - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(left), unit = address[lane] >> s->shift;
        for (uint32_t k = 0; k < n; k++)
            s->writes[unit + k] = (job.stamp | SHADOW_COPIED) + (lane << 2);
    }
}

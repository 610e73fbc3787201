#include "runtime/grammar/match.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_ITEMS = 1 << 20, /* on the stack of sets */
    MAX_FRAMES = 1 << 20,
    MAX_CALLERS = 1 << 21,
    FIRST_BUCKETS = 256,
    MANY_FRAMES = 1024 /* not worth tidying up */
};

static bool grow(rt_matcher *m, void *array, uint32_t *capacity, uint32_t n, uint32_t most,
                 size_t size) {
    void **at = array;
    if (n < *capacity)
        return true;
    uint32_t larger = *capacity ? 2 * *capacity : 64;
    void *grown = larger <= most ? realloc(*at, larger * size) : NULL;
    if (!grown) {
        m->out_of_memory = true;
        return false;
    }
    *at = grown;
    *capacity = larger;
    return true;
}

static bool spend(rt_matcher *m, uint64_t work) {
    m->work += work;
    if (m->work > m->max_work)
        m->out_of_memory = true;
    return !m->out_of_memory;
}

/* --- frames --------------------------------------------------------------------------------------
 */

static int by_state(const void *a, const void *b) {
    const rt_item *x = a, *y = b;
    if (x->state != y->state)
        return x->state < y->state ? -1 : 1;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

static uint32_t hash_items(const rt_item *items, uint32_t n) {
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ ((uint64_t)items[i].frame << 32 | items[i].state)) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h ^ h >> 32);
}

static void put_in_bucket(rt_matcher *m, uint32_t frame) {
    uint32_t *bucket = &m->buckets[m->frames[frame].hash & (m->n_buckets - 1)];
    m->frames[frame].next = *bucket;
    *bucket = frame;
}

static void fill_buckets(rt_matcher *m) {
    memset(m->buckets, 0, m->n_buckets * sizeof *m->buckets);
    for (uint32_t f = 1; f < m->n_frames; f++)
        put_in_bucket(m, f);
}

/* The frame of the callers in `scratch`; 0 without memory. */
static uint32_t find_frame(rt_matcher *m) {
    m->work += 8 * m->n_scratch; /* sorting costs more than looking */
    qsort(m->scratch, m->n_scratch, sizeof *m->scratch, by_state);
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_scratch; i++)
        if (n == 0 || by_state(&m->scratch[n - 1], &m->scratch[i]) != 0)
            m->scratch[n++] = m->scratch[i];
    if (n == 1 && m->scratch[0].state == RT_STATE_END)
        return 0;
    uint32_t hash = hash_items(m->scratch, n);
    for (uint32_t f = m->buckets[hash & (m->n_buckets - 1)]; f; f = m->frames[f].next) {
        m->work++;
        if (m->frames[f].hash == hash && m->frames[f].count == n &&
            memcmp(m->callers + m->frames[f].begin, m->scratch, n * sizeof *m->scratch) == 0)
            return f;
    }
    if (!grow(m, &m->frames, &m->frame_capacity, m->n_frames, MAX_FRAMES, sizeof *m->frames))
        return 0;
    while (m->n_callers + n > m->caller_capacity)
        if (!grow(m, &m->callers, &m->caller_capacity, m->caller_capacity, MAX_CALLERS,
                  sizeof *m->callers))
            return 0;
    memcpy(m->callers + m->n_callers, m->scratch, n * sizeof *m->scratch);
    m->frames[m->n_frames] = (rt_frame){m->n_callers, n, hash, 0};
    m->n_callers += n;
    put_in_bucket(m, m->n_frames++);
    if (m->n_frames > 2 * m->n_buckets) {
        uint32_t *buckets = realloc(m->buckets, 2 * m->n_buckets * sizeof *buckets);
        if (buckets) { /* else they get long */
            m->buckets = buckets;
            m->n_buckets *= 2;
            fill_buckets(m);
        }
    }
    return m->n_frames - 1;
}

void rt_match_drop_frames(rt_matcher *m, uint32_t n_frames) {
    while (m->n_frames > n_frames) {
        const rt_frame *f = &m->frames[--m->n_frames];
        m->buckets[f->hash & (m->n_buckets - 1)] = f->next;
        m->n_callers = f->begin;
    }
}

bool rt_matcher_init(rt_matcher *m, const rt_automaton *automaton) {
    *m = (rt_matcher){.automaton = automaton, .max_work = UINT64_MAX, .n_buckets = FIRST_BUCKETS};
    m->buckets = calloc(m->n_buckets, sizeof *m->buckets);
    if (!m->buckets || !grow(m, &m->frames, &m->frame_capacity, 0, MAX_FRAMES, sizeof *m->frames) ||
        !grow(m, &m->callers, &m->caller_capacity, 0, MAX_CALLERS, sizeof *m->callers))
        return false;
    m->frames[m->n_frames++] = (rt_frame){.count = 1};
    m->callers[m->n_callers++] = (rt_item){.state = RT_STATE_END};
    return true;
}

void rt_matcher_destroy(rt_matcher *m) {
    free(m->items);
    free(m->frames);
    free(m->callers);
    free(m->scratch);
    free(m->pending_calls);
    free(m->pending_frames);
    free(m->buckets);
    *m = (rt_matcher){0};
}

/* --- sets ----------------------------------------------------------------------------------------
 */

rt_set rt_match_begin(const rt_matcher *m) {
    return (rt_set){m->n_items, 0};
}

static void append(rt_matcher *m, rt_set *set, uint32_t state, uint32_t frame) {
    if (!grow(m, &m->items, &m->item_capacity, m->n_items, MAX_ITEMS, sizeof *m->items))
        return;
    m->items[m->n_items++] = (rt_item){frame, state};
    set->count++;
}

void rt_match_add(rt_matcher *m, rt_set *set, uint32_t state, uint32_t frame) {
    for (uint32_t i = 0; i < set->count; i++)
        if (m->items[set->begin + i].state == state && m->items[set->begin + i].frame == frame)
            return;
    if (spend(m, set->count))
        append(m, set, state, frame);
}

/* Where rules may end, their callers go on; then what can only end has done its part. */
void rt_match_close(rt_matcher *m, rt_set *set) {
    const uint8_t *ends = m->automaton->ends;
    bool last = false;
    for (uint32_t i = 0; i < set->count; i++) {
        rt_item item = m->items[set->begin + i];
        if (!ends[item.state])
            continue;
        last = last || ends[item.state] == 2;
        rt_frame frame = m->frames[item.frame];
        for (uint32_t k = 0; k < frame.count; k++) {
            rt_item caller = m->callers[frame.begin + k];
            rt_match_add(m, set, caller.state, caller.frame);
        }
    }
    if (!last)
        return;
    uint32_t n = 0;
    for (uint32_t i = 0; i < set->count; i++)
        if (ends[m->items[set->begin + i].state] != 2)
            m->items[set->begin + n++] = m->items[set->begin + i];
    m->n_items = set->begin + n;
    set->count = n;
}

rt_set rt_match_start(rt_matcher *m) {
    rt_set set = rt_match_begin(m);
    append(m, &set, m->automaton->root, 0);
    if (m->automaton->matches_empty && m->automaton->root != RT_STATE_END)
        append(m, &set, RT_STATE_END, 0);
    return set;
}

rt_set rt_match_return(rt_matcher *m, uint32_t frame) {
    rt_set set = rt_match_begin(m);
    for (uint32_t k = 0; k < m->frames[frame].count; k++) {
        rt_item caller = m->callers[m->frames[frame].begin + k];
        rt_match_add(m, &set, caller.state, caller.frame);
    }
    rt_match_close(m, &set);
    return set;
}

/* --- calls ---------------------------------------------------------------------------------------
 */

static void pend(rt_matcher *m, uint32_t state, uint32_t frame) {
    const rt_automaton *a = m->automaton;
    for (uint32_t k = a->calls_of[state]; k < a->calls_of[state + 1]; k++) {
        uint32_t capacity = m->pending_capacity;
        if (!grow(m, &m->pending_calls, &capacity, m->n_pending, MAX_ITEMS,
                  sizeof *m->pending_calls) ||
            !grow(m, &m->pending_frames, &m->pending_capacity, m->n_pending, MAX_ITEMS,
                  sizeof *m->pending_frames))
            return;
        m->pending_calls[m->n_pending] = a->calls[k];
        m->pending_frames[m->n_pending++] = frame;
    }
}

static void add_caller(rt_matcher *m, rt_item caller) {
    if (grow(m, &m->scratch, &m->scratch_capacity, m->n_scratch, MAX_CALLERS, sizeof *m->scratch))
        m->scratch[m->n_scratch++] = caller;
}

/* Rules in ascending order: one's callers are complete before it is called, for it calls only
 * rules with greater numbers before it reads a byte. */
void rt_match_expand(rt_matcher *m, rt_set *set) {
    const rt_automaton *a = m->automaton;
    m->n_pending = 0;
    for (uint32_t i = 0; i < set->count; i++)
        pend(m, m->items[set->begin + i].state, m->items[set->begin + i].frame);
    while (m->n_pending > 0 && spend(m, m->n_pending)) {
        uint32_t rule = UINT32_MAX, rest = 0;
        for (uint32_t i = 0; i < m->n_pending; i++)
            rule = m->pending_calls[i].rule < rule ? m->pending_calls[i].rule : rule;
        m->n_scratch = 0;
        for (uint32_t i = 0; i < m->n_pending; i++) {
            rt_call call = m->pending_calls[i];
            uint32_t frame = m->pending_frames[i];
            if (call.rule != rule) {
                m->pending_calls[rest] = call;
                m->pending_frames[rest++] = frame;
            } else if (a->ends[call.to] == 2) {
                for (uint32_t k = 0; k < m->frames[frame].count; k++)
                    add_caller(m, m->callers[m->frames[frame].begin + k]);
            } else {
                add_caller(m, (rt_item){frame, call.to});
            }
        }
        m->n_pending = rest;
        uint32_t frame = find_frame(m);
        append(m, set, a->starts[rule], frame);
        pend(m, a->starts[rule], frame);
    }
}

rt_set rt_match_byte(rt_matcher *m, rt_set from, uint8_t byte) {
    rt_set set = rt_match_begin(m);
    bool ends = false;
    m->work += from.count;
    for (uint32_t i = 0; i < from.count; i++) {
        rt_item item = m->items[from.begin + i];
        uint32_t to = rt_automaton_next(m->automaton, item.state, byte);
        if (to == RT_STATE_DEAD)
            continue;
        ends = ends || m->automaton->ends[to];
        rt_match_add(m, &set, to, item.frame);
    }
    if (ends)
        rt_match_close(m, &set);
    return set;
}

bool rt_match_may_end(const rt_matcher *m, rt_set set) {
    for (uint32_t i = 0; i < set.count; i++)
        if (m->items[set.begin + i].state == RT_STATE_END)
            return true;
    return false;
}

static bool reads_a_byte(const rt_matcher *m, rt_set set) {
    for (uint32_t i = 0; i < set.count; i++)
        for (int byte = 0; byte < 256; byte++)
            if (rt_automaton_next(m->automaton, m->items[set.begin + i].state, (uint8_t)byte) !=
                RT_STATE_DEAD)
                return true;
    return false;
}

bool rt_match_must_end(rt_matcher *m, rt_set set) {
    if (!rt_match_may_end(m, set))
        return false;
    if (set.count == 1)
        return true;
    /* What is there beside the end may call rules that match the empty text alone. */
    uint32_t n_frames = m->n_frames;
    rt_set all = rt_match_begin(m);
    for (uint32_t i = 0; i < set.count; i++)
        append(m, &all, m->items[set.begin + i].state, m->items[set.begin + i].frame);
    rt_match_expand(m, &all);
    bool more = reads_a_byte(m, all) || m->out_of_memory;
    m->n_items = all.begin;
    rt_match_drop_frames(m, n_frames);
    return !more;
}

/* --- tidying up ----------------------------------------------------------------------------------
 */

/* Callers are in older frames, so one pass from new to old finds all that are needed, and one from
 * old to new moves them. Without memory everything stays. */
static bool tidy(rt_matcher *m, rt_set *set) {
    uint32_t *number = calloc(m->n_frames, sizeof *number), n = 1, n_callers = 1;
    if (!number)
        return false;
    number[0] = 1;
    for (uint32_t i = 0; i < set->count; i++)
        number[m->items[set->begin + i].frame] = 1;
    for (uint32_t f = m->n_frames; f-- > 1;)
        for (uint32_t k = 0; number[f] && k < m->frames[f].count; k++)
            number[m->callers[m->frames[f].begin + k].frame] = 1;
    number[0] = 0;
    for (uint32_t f = 1; f < m->n_frames; f++) {
        if (!number[f])
            continue;
        rt_frame frame = m->frames[f];
        for (uint32_t k = 0; k < frame.count; k++) {
            rt_item caller = m->callers[frame.begin + k];
            m->callers[n_callers + k] = (rt_item){number[caller.frame], caller.state};
        }
        /* Numbers keep their order, so callers stay sorted. */
        frame.begin = n_callers;
        frame.hash = hash_items(m->callers + n_callers, frame.count);
        n_callers += frame.count;
        number[f] = n;
        m->frames[n++] = frame;
    }
    for (uint32_t i = 0; i < set->count; i++)
        m->items[set->begin + i].frame = number[m->items[set->begin + i].frame];
    m->n_frames = n;
    m->n_callers = n_callers;
    fill_buckets(m);
    free(number);
    return true;
}

void rt_match_keep(rt_matcher *m, rt_set *set) {
    memmove(m->items, m->items + set->begin, set->count * sizeof *m->items);
    set->begin = 0;
    m->n_items = set->count;
    qsort(m->items, set->count, sizeof *m->items, by_state);
}

bool rt_match_tidy(rt_matcher *m, rt_set *set) {
    if (m->n_frames < 2 * m->n_needed + MANY_FRAMES || !tidy(m, set))
        return false;
    m->n_needed = m->n_frames;
    return true;
}

#include "runtime/grammar/mask.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_KEPT = 64 << 20,      /* bytes; what is beyond is computed each time */
    MAX_GROUP_WORK = 1 << 25, /* steps of a matcher for a group: about 0.1 s */
    MAX_MASK_WORK = 1 << 23   /* and for a mask besides */
};

/* --- walks ---------------------------------------------------------------------------------------
 */

/* What a walk finds. */
typedef struct walk {
    const rt_vocabulary *v;
    rt_matcher *m;
    uint32_t *bits;
    uint32_t *exits; /* NULL: not asked for */
    uint32_t n_exits;
} walk;

static void allow(walk *w, uint32_t node) {
    const rt_trie_node *nodes = w->v->nodes;
    for (uint32_t i = nodes[node].first_id; i < nodes[node + 1].first_id; i++)
        w->bits[w->v->ids[i] >> 5] |= 1u << (w->v->ids[i] & 31);
}

/* Goes through the subtree below `top` with an expanded set, which is at the top of the stack. */
static void walk_below(walk *w, uint32_t top, rt_set set) {
    const rt_trie_node *nodes = w->v->nodes;
    struct {
        rt_set set;
        uint32_t n_frames;
    } at[RT_VOCABULARY_MAX_BYTES + 1]; /* by depth below top */
    rt_matcher *m = w->m;
    uint32_t base = nodes[top].depth;
    at[0].set = set;
    at[0].n_frames = m->n_frames;
    for (uint32_t i = top + 1; i < nodes[top].end && !m->out_of_memory;) {
        uint32_t depth = nodes[i].depth - base;
        bool inner = nodes[i].end > i + 1;
        m->n_items = at[depth - 1].set.begin + at[depth - 1].set.count;
        rt_match_drop_frames(m, at[depth - 1].n_frames);
        rt_set next = rt_match_byte(m, at[depth - 1].set, nodes[i].byte);
        if (next.count == 0) {
            i = nodes[i].end;
            continue;
        }
        allow(w, i);
        if (inner) {
            if (w->exits && rt_match_may_end(m, next))
                w->exits[w->n_exits++] = i;
            rt_match_expand(m, &next);
            at[depth].set = next;
            at[depth].n_frames = m->n_frames;
        }
        i++;
    }
    m->n_items = set.begin + set.count;
    rt_match_drop_frames(m, at[0].n_frames);
}

/* --- groups --------------------------------------------------------------------------------------
 */

/* What the states of the group of `state` allow, in the working memory of `masks`. */
static bool compute(rt_masks *k, uint32_t state, rt_state_mask *mask) {
    rt_matcher *m = &k->matcher;
    memset(k->bits, 0, k->words * sizeof *k->bits);
    m->n_items = 0;
    m->out_of_memory = false;
    m->max_work = m->work + MAX_GROUP_WORK;
    rt_match_drop_frames(m, 1);
    walk w = {k->vocabulary, m, k->bits, k->exits, 0};
    rt_set set = rt_match_begin(m);
    rt_match_add(m, &set, state, 0);
    rt_match_expand(m, &set);
    walk_below(&w, 0, set);
    *mask = (rt_state_mask){.bits = k->bits, .exits = k->exits, .n_exits = w.n_exits};
    return !m->out_of_memory;
}

static void *copy(const void *from, size_t bytes) {
    void *to = malloc(bytes + 1);
    if (to)
        memcpy(to, from, bytes);
    return to;
}

/* Keeps what is in the working memory. */
static bool keep(rt_masks *k, rt_state_mask *mask, uint32_t group) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->words; i++)
        n += (uint32_t)__builtin_popcount(k->bits[i]);
    bool list = n < k->words;
    size_t tokens = (list ? n : k->words) * sizeof *k->bits;
    size_t exits = mask->n_exits * sizeof *k->exits;
    if (k->bytes + tokens + exits > MAX_KEPT)
        return false;
    rt_state_mask kept = {.made = true, .n_exits = mask->n_exits, .n_ids = list ? n : 0};
    if (list) {
        for (uint32_t i = 0, at = 0; i < k->words; i++)
            for (uint32_t bits = k->bits[i]; bits; bits &= bits - 1)
                k->ids[at++] = 32 * i + (uint32_t)__builtin_ctz(bits);
        kept.ids = copy(k->ids, tokens);
    } else {
        kept.bits = copy(k->bits, tokens);
    }
    kept.exits = copy(k->exits, exits);
    if ((!kept.ids && !kept.bits) || !kept.exits) {
        free(kept.ids);
        free(kept.bits);
        free(kept.exits);
        return false;
    }
    k->bytes += tokens + exits;
    k->groups_masks[group] = kept;
    *mask = kept;
    return true;
}

/* The mask of a state's group, kept or in the working memory. */
static bool mask_of(rt_masks *k, uint32_t state, rt_state_mask *mask) {
    uint32_t group = k->groups[state];
    if (k->groups_masks[group].made) {
        *mask = k->groups_masks[group];
        return true;
    }
    if (!compute(k, state, mask))
        return false;
    keep(k, mask, group);
    return true;
}

bool rt_masks_init(rt_masks *k, const rt_vocabulary *v, rt_automaton *automaton) {
    *k = (rt_masks){
        .vocabulary = v, .automaton = *automaton, .words = ((uint32_t)v->size + 31) / 32};
    *automaton = (rt_automaton){0};
    k->groups = malloc(k->automaton.n_states * sizeof *k->groups);
    k->bits = malloc((k->words + 1) * sizeof *k->bits);
    k->ids = malloc((k->words + 1) * sizeof *k->ids);
    k->exits = malloc((v->n_nodes + 1) * sizeof *k->exits);
    if (!k->groups || !k->bits || !k->ids || !k->exits ||
        !rt_automaton_groups(&k->automaton, v->longest, k->groups, &k->n_groups) ||
        !rt_matcher_init(&k->matcher, &k->automaton))
        return false;
    k->groups_masks = calloc(k->n_groups, sizeof *k->groups_masks);
    return k->groups_masks != NULL;
}

void rt_masks_destroy(rt_masks *k) {
    for (uint32_t i = 0; k->groups_masks && i < k->n_groups; i++) {
        free(k->groups_masks[i].bits);
        free(k->groups_masks[i].ids);
        free(k->groups_masks[i].exits);
    }
    free(k->groups_masks);
    free(k->groups);
    free(k->bits);
    free(k->ids);
    free(k->exits);
    rt_matcher_destroy(&k->matcher);
    rt_automaton_destroy(&k->automaton);
    *k = (rt_masks){0};
}

void rt_masks_prepare(rt_masks *k, uint64_t work) {
    uint64_t until = k->matcher.work + work;
    rt_state_mask mask;
    for (uint32_t s = RT_STATE_FIRST; s < k->automaton.n_states && k->matcher.work < until; s++)
        if (k->automaton.ends[s] != 2 && !mask_of(k, s, &mask))
            return;
}

/* --- masks ---------------------------------------------------------------------------------------
 */

bool rt_masks_fill(rt_masks *k, rt_matcher *m, rt_set set, uint32_t *bits) {
    memset(bits, 0, k->words * sizeof *bits);
    m->max_work = m->work + MAX_MASK_WORK;
    for (uint32_t i = 0; i < set.count && !m->out_of_memory; i++) {
        rt_item item = m->items[set.begin + i];
        rt_state_mask mask;
        if (item.state == RT_STATE_END)
            continue;
        if (!mask_of(k, item.state, &mask))
            return false;
        for (uint32_t w = 0; mask.bits && w < k->words; w++)
            bits[w] |= mask.bits[w];
        for (uint32_t n = 0; n < mask.n_ids; n++)
            bits[mask.ids[n] >> 5] |= 1u << (mask.ids[n] & 31);
        if (mask.n_exits == 0 || item.frame == 0)
            continue;
        uint32_t n_frames = m->n_frames;
        walk w = {k->vocabulary, m, bits, NULL, 0};
        rt_set back = rt_match_return(m, item.frame);
        rt_match_expand(m, &back);
        for (uint32_t n = 0; n < mask.n_exits && !m->out_of_memory; n++)
            walk_below(&w, mask.exits[n], back);
        m->n_items = set.begin + set.count;
        rt_match_drop_frames(m, n_frames);
    }
    return !m->out_of_memory;
}

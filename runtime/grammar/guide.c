#include "runtime/grammar/guide.h"

#include "runtime/modelcc.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEPT = 16, /* grammars of an engine */
    /* Steps of a matcher that compiling spends on masks, so that no step of the engine needs to:
     * less than 0.1 s. What it does not get to is computed when it is needed. */
    PREPARE_WORK = 1 << 24,
    MAX_ACCEPT_WORK = 1 << 22 /* for one token */
};

struct rt_grammar {
    pthread_mutex_t mutex; /* of what masks keep and work in: several guides may ask at once */
    rt_masks masks;
    atomic_int references;
    rt_grammar_kind kind;
    size_t bytes;
    uint64_t used; /* when, of the uses of all */
    char text[];
};

struct rt_grammars {
    pthread_mutex_t mutex;
    rt_grammar *kept[KEPT]; /* each with a reference */
    uint64_t uses;
    const rt_tokenizer *tokenizer;
    int32_t vocab_size;
    rt_vocabulary *vocabulary; /* NULL until it is needed; then it does not change */
};

const char *rt_grammar_field(rt_grammar_kind kind) {
    static const char *const names[] = {"guided_json", "guided_regex", "guided_grammar"};
    return names[kind];
}

/* --- grammars ------------------------------------------------------------------------------------
 */

void rt_grammar_release(rt_grammar *g) {
    if (!g || atomic_fetch_sub(&g->references, 1) > 1)
        return;
    rt_masks_destroy(&g->masks);
    pthread_mutex_destroy(&g->mutex);
    free(g);
}

rt_grammar *rt_grammar_share(rt_grammar *g) {
    atomic_fetch_add(&g->references, 1);
    return g;
}

static bool no_memory(rt_error *error) {
    return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
}

static bool read_text(rt_rules *rules, const rt_grammar *g) {
    const char *field = rt_grammar_field(g->kind);
    switch (g->kind) {
    case RT_GRAMMAR_JSON:
        return rt_read_schema(rules, field, g->text, g->bytes);
    case RT_GRAMMAR_REGEX:
        return rt_read_regex(rules, field, g->text, g->bytes);
    case RT_GRAMMAR_GBNF:
        return rt_read_gbnf(rules, field, g->text, g->bytes);
    }
    return false;
}

/* Whether some token begins what the grammar allows, or it allows the empty text. */
static bool can_begin(rt_grammar *g, rt_error *error) {
    const char *why;
    rt_guide *guide = rt_guide_create(rt_grammar_share(g), NULL, 0);
    if (!guide)
        return no_memory(error);
    bool ok = rt_guide_mask(guide, &why) || rt_match_may_end(&guide->matcher, guide->set);
    rt_guide_destroy(guide);
    return ok || rt_fail(error, MCC_INVALID_ARGUMENT, "%s: %s", rt_grammar_field(g->kind), why);
}

static bool compile(rt_grammar *g, const rt_vocabulary *v, rt_error *error) {
    rt_rules rules;
    rt_automaton automaton = {0};
    rt_rules_init(&rules, error);
    bool ok = read_text(&rules, g) &&
              rt_automaton_create(&automaton, &rules, rt_grammar_field(g->kind), error);
    rt_rules_free(&rules);
    if (ok)
        ok = rt_masks_init(&g->masks, v, &automaton) || no_memory(error);
    rt_automaton_destroy(&automaton);
    if (!ok)
        return false;
    rt_masks_prepare(&g->masks, PREPARE_WORK);
    return can_begin(g, error);
}

rt_grammar *rt_grammar_create(rt_grammar_kind kind, const char *text, size_t bytes,
                              const rt_vocabulary *v, rt_error *error) {
    if (bytes > RT_GRAMMAR_MAX_TEXT) {
        rt_fail(error, MCC_CAPACITY, "%s has %zu bytes, at most %d are allowed",
                rt_grammar_field(kind), bytes, RT_GRAMMAR_MAX_TEXT);
        return NULL;
    }
    rt_grammar *g = calloc(1, sizeof *g + bytes + 1);
    if (!g || pthread_mutex_init(&g->mutex, NULL) != 0) {
        free(g);
        no_memory(error);
        return NULL;
    }
    g->kind = kind;
    g->bytes = bytes;
    atomic_init(&g->references, 1);
    memcpy(g->text, text, bytes);
    if (!compile(g, v, error)) {
        rt_grammar_release(g);
        return NULL;
    }
    return g;
}

/* --- the engine's grammars -----------------------------------------------------------------------
 */

rt_grammars *rt_grammars_create(const rt_tokenizer *tokenizer, int32_t vocab_size) {
    rt_grammars *k = calloc(1, sizeof *k);
    if (k && pthread_mutex_init(&k->mutex, NULL) != 0) {
        free(k);
        return NULL;
    }
    if (k) {
        k->tokenizer = tokenizer;
        k->vocab_size = vocab_size;
    }
    return k;
}

void rt_grammars_destroy(rt_grammars *k) {
    if (!k)
        return;
    for (int i = 0; i < KEPT; i++)
        rt_grammar_release(k->kept[i]);
    rt_vocabulary_destroy(k->vocabulary);
    pthread_mutex_destroy(&k->mutex);
    free(k);
}

/* With the mutex. */
static rt_grammar *find(rt_grammars *k, rt_grammar_kind kind, const char *text, size_t bytes) {
    for (int i = 0; i < KEPT; i++) {
        rt_grammar *g = k->kept[i];
        if (!g || g->kind != kind || g->bytes != bytes || memcmp(g->text, text, bytes) != 0)
            continue;
        g->used = ++k->uses;
        return rt_grammar_share(g);
    }
    return NULL;
}

/* Compiles without the mutex, so that others are not held up; two threads that do so at the same
 * time for the same text get the grammar that is kept first. */
rt_grammar *rt_grammars_get(rt_grammars *k, rt_grammar_kind kind, const char *text, size_t bytes,
                            rt_error *error) {
    pthread_mutex_lock(&k->mutex);
    if (!k->vocabulary)
        k->vocabulary = rt_vocabulary_create(k->tokenizer, k->vocab_size);
    const rt_vocabulary *v = k->vocabulary;
    rt_grammar *g = v ? find(k, kind, text, bytes) : NULL, *old = NULL;
    pthread_mutex_unlock(&k->mutex);
    if (!v)
        no_memory(error);
    if (g || !v)
        return g;
    rt_grammar *fresh = rt_grammar_create(kind, text, bytes, v, error);
    if (!fresh)
        return NULL;
    pthread_mutex_lock(&k->mutex);
    g = find(k, kind, text, bytes);
    if (!g) {
        int oldest = 0;
        for (int i = 0; i < KEPT && k->kept[oldest]; i++)
            if (!k->kept[i] || k->kept[i]->used < k->kept[oldest]->used)
                oldest = i;
        old = k->kept[oldest];
        k->kept[oldest] = g = fresh;
        fresh = NULL;
        g->used = ++k->uses;
        rt_grammar_share(g);
    }
    pthread_mutex_unlock(&k->mutex);
    rt_grammar_release(fresh);
    rt_grammar_release(old);
    return g;
}

/* --- guides --------------------------------------------------------------------------------------
 */

rt_guide *rt_guide_create(rt_grammar *g, const int32_t *end_ids, int32_t n_end_ids) {
    rt_guide *guide = calloc(1, sizeof *guide);
    if (!guide) {
        rt_grammar_release(g);
        return NULL;
    }
    guide->grammar = g;
    guide->end_ids = end_ids;
    guide->n_end_ids = n_end_ids;
    guide->mask = malloc((g->masks.words + 1) * sizeof *guide->mask);
    if (!rt_matcher_init(&guide->matcher, &g->masks.automaton) || !guide->mask) {
        rt_guide_destroy(guide);
        return NULL;
    }
    guide->set = rt_match_start(&guide->matcher);
    rt_match_keep(&guide->matcher, &guide->set);
    guide->must_end = rt_match_must_end(&guide->matcher, guide->set);
    if (guide->matcher.out_of_memory) {
        rt_guide_destroy(guide);
        return NULL;
    }
    return guide;
}

void rt_guide_destroy(rt_guide *guide) {
    if (!guide)
        return;
    rt_matcher_destroy(&guide->matcher);
    free(guide->mask);
    free(guide->mask_items);
    free(guide->mark.items);
    rt_grammar_release(guide->grammar);
    free(guide);
}

/* Remembers which set the mask is of: inside of a text many tokens lead to the same one. */
static void remember(rt_guide *guide) {
    uint32_t n = guide->set.count;
    if (n > guide->mask_capacity) {
        rt_item *grown = realloc(guide->mask_items, 2 * n * sizeof *grown);
        if (!grown)
            return;
        guide->mask_items = grown;
        guide->mask_capacity = 2 * n;
    }
    memcpy(guide->mask_items, guide->matcher.items, n * sizeof *guide->mask_items);
    guide->n_mask_items = n;
    guide->has_mask = true;
}

static bool is_remembered(const rt_guide *guide) {
    return guide->has_mask && guide->n_mask_items == guide->set.count &&
           memcmp(guide->mask_items, guide->matcher.items,
                  guide->set.count * sizeof *guide->mask_items) == 0;
}

const uint32_t *rt_guide_mask(rt_guide *guide, const char **why) {
    if (is_remembered(guide))
        return guide->mask;
    uint32_t words = guide->grammar->masks.words, any = 0;
    int32_t size = guide->grammar->masks.vocabulary->size;
    guide->has_mask = false;
    pthread_mutex_lock(&guide->grammar->mutex);
    bool filled = rt_masks_fill(&guide->grammar->masks, &guide->matcher, guide->set, guide->mask);
    pthread_mutex_unlock(&guide->grammar->mutex);
    if (!filled) {
        *why = "the grammar is too ambiguous: finding out what may follow takes too long";
        return NULL;
    }
    bool may_end = rt_match_may_end(&guide->matcher, guide->set);
    for (int32_t i = 0; i < guide->n_end_ids; i++) {
        int32_t id = guide->end_ids[i];
        if (id < 0 || id >= size)
            continue;
        guide->mask[id >> 5] &= ~(1u << (id & 31));
        guide->mask[id >> 5] |= (uint32_t)may_end << (id & 31);
    }
    for (uint32_t i = 0; i < words; i++)
        any |= guide->mask[i];
    if (!any) {
        *why = "no token of the vocabulary can come next";
        return NULL;
    }
    remember(guide);
    return guide->mask;
}

bool rt_guide_accept(rt_guide *guide, int32_t id, const char *text, size_t bytes) {
    rt_matcher *m = &guide->matcher;
    rt_set set = guide->set;
    for (int32_t i = 0; i < guide->n_end_ids; i++)
        if (guide->end_ids[i] == id) {
            guide->n_tokens++;
            return rt_match_may_end(m, set);
        }
    m->max_work = m->work + MAX_ACCEPT_WORK;
    for (size_t i = 0; i < bytes && set.count > 0; i++) {
        rt_match_expand(m, &set);
        set = rt_match_byte(m, set, (uint8_t)text[i]);
    }
    if (m->out_of_memory || set.count == 0 || bytes == 0)
        return false;
    rt_match_keep(m, &set);
    if (!guide->mark.set && rt_match_tidy(m, &set))
        guide->has_mask = false;
    guide->set = set;
    guide->n_tokens++;
    guide->must_end = rt_match_must_end(m, set);
    return true;
}

bool rt_guide_set_mark(rt_guide *guide) {
    rt_guide_mark *mark = &guide->mark;
    uint32_t n = guide->set.count;
    if (n > mark->capacity) {
        rt_item *grown = realloc(mark->items, 2 * n * sizeof *grown);
        if (!grown)
            return false;
        mark->items = grown;
        mark->capacity = 2 * n;
    }
    memcpy(mark->items, guide->matcher.items, n * sizeof *mark->items);
    mark->n_items = n;
    mark->n_frames = guide->matcher.n_frames;
    mark->n_tokens = guide->n_tokens;
    mark->must_end = guide->must_end;
    mark->set = true;
    return true;
}

void rt_guide_go_back(rt_guide *guide) {
    rt_guide_mark *mark = &guide->mark;
    rt_matcher *m = &guide->matcher;
    mark->set = false;
    /* Sets never get smaller in memory, so there is room. */
    memcpy(m->items, mark->items, mark->n_items * sizeof *m->items);
    m->n_items = mark->n_items;
    m->out_of_memory = false;
    rt_match_drop_frames(m, mark->n_frames);
    guide->set = (rt_set){0, mark->n_items};
    guide->n_tokens = mark->n_tokens;
    guide->must_end = mark->must_end;
    guide->has_mask = false; /* of frames whose numbers others may get */
}

#include "runtime/lookup.h"

#include <stdlib.h>

enum {
    MAX_PLACES = 32, /* that one look-up visits */
    MAX_GAP = 16     /* tokens of a change, after which a draft's source is still followed */
};

/* Places are indices behind an n-gram; 0: none. */
struct rt_lookup {
    int32_t min;      /* tokens of an n-gram */
    uint32_t mask;    /* of hashes */
    int64_t indexed;  /* n-grams that end here or before are in the index */
    int32_t *last;    /* [mask + 1] the last place of an n-gram with this hash … */
    int32_t *earlier; /* [max_ids + 1] … and the one before a place */
    /* The last draft: ids[source …] for ids[text …], moved on as far as both are the same. 0: none
     */
    int64_t source, text;
};

rt_lookup *rt_lookup_open(int32_t min, int64_t max_ids) {
    rt_lookup *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    uint32_t size = 64;
    while (size < max_ids && size < UINT32_C(1) << 30)
        size *= 2;
    l->min = min;
    l->mask = size - 1;
    l->indexed = min - 1;
    l->last = calloc(size, sizeof *l->last);
    l->earlier = malloc(((size_t)max_ids + 1) * sizeof *l->earlier);
    if (l->last && l->earlier)
        return l;
    rt_lookup_close(l);
    return NULL;
}

void rt_lookup_close(rt_lookup *l) {
    if (!l)
        return;
    free(l->last);
    free(l->earlier);
    free(l);
}

/* Of the n-gram before `place`. */
static uint32_t hash(const rt_lookup *l, const int32_t *ids, int64_t place) {
    uint32_t h = 0;
    for (int64_t i = place - l->min; i < place; i++)
        h = (h ^ (uint32_t)ids[i]) * UINT32_C(0x9E3779B1);
    return (h ^ h >> 15) & l->mask;
}

static void add(rt_lookup *l, const int32_t *ids, int64_t place) {
    int32_t *last = &l->last[hash(l, ids, place)];
    l->earlier[place] = *last;
    *last = (int32_t)place;
}

/* Where the last tokens were before, as many of them as possible and the last time; 0: nowhere. */
static int64_t find(const rt_lookup *l, const int32_t *ids, int64_t n, int32_t max,
                    int32_t *match) {
    int64_t best = 0, place = l->last[hash(l, ids, n)];
    *match = l->min - 1;
    for (int visited = 0; place > 0 && visited < MAX_PLACES && *match < max; visited++) {
        int32_t same = 0;
        while (same < max && same < place && ids[place - 1 - same] == ids[n - 1 - same])
            same++;
        if (same > *match) {
            *match = same;
            best = place;
        }
        place = l->earlier[place];
    }
    return best;
}

/* Where a changed copy goes on: at the last token, near the place in the source where the text left
 * it. 0: nowhere. A single token says little elsewhere, but much there: code with a name changed is
 * a copy again behind the name. */
static int64_t resume(rt_lookup *l, const int32_t *ids, int64_t n) {
    while (l->source > 0 && l->text < n && ids[l->source] == ids[l->text]) {
        l->source++;
        l->text++;
    }
    if (l->source == 0 || n - l->text > MAX_GAP)
        return 0;
    for (int64_t at = l->source; at < l->source + MAX_GAP && at < l->text; at++)
        if (ids[at] == ids[n - 1])
            return at + 1;
    return 0;
}

int32_t rt_lookup_draft(rt_lookup *l, const int32_t *ids, int64_t n, int32_t max, int32_t most,
                        int32_t *draft, int32_t *match) {
    int32_t count = 0;
    while (l->indexed + 1 < n)
        add(l, ids, ++l->indexed);
    int64_t at = n >= l->min && most > 0 ? find(l, ids, n, max, match) : 0;
    if (at == 0 && most > 0 && (at = resume(l, ids, n)) > 0)
        *match = 1;
    if (at > 0) {
        l->source = at;
        l->text = n;
    }
    /* A draft that reaches the end goes on with itself: a loop repeats. */
    for (; at > 0 && count < most; at++, count++)
        draft[count] = at < n ? ids[at] : draft[at - n];
    if (count == 0)
        *match = 0;
    return count;
}

/* --- the proposer --------------------------------------------------------------------------------
 */

typedef struct lookup_proposer {
    rt_proposer proposer;
    int32_t min, max;
} lookup_proposer;

static void *open_lookup(const rt_proposer *proposer, const rt_seq *seq, int64_t max_ids) {
    const lookup_proposer *p = (const lookup_proposer *)proposer;
    rt_lookup *l = rt_lookup_open(p->min, max_ids);
    int32_t match;
    if (l) /* the prompt goes into the index now, and not in a step */
        rt_lookup_draft(l, seq->ids, seq->n_ids, p->max, 0, NULL, &match);
    return l;
}

static void close_lookup(void *state) {
    rt_lookup_close(state);
}

/* The longer the text has been the same, the surer: that is a draft's class. */
static int32_t offer(rt_proposer *proposer, void *state, rt_seq *seq, int32_t most,
                     int32_t *first_class) {
    const lookup_proposer *p = (const lookup_proposer *)proposer;
    return rt_lookup_draft(state, seq->ids, seq->n_ids, p->max, most, seq->ids + seq->n_ids,
                           first_class);
}

static void destroy(rt_proposer *proposer) {
    free(proposer);
}

rt_proposer *rt_lookup_create(int32_t min, int32_t max) {
    static const rt_proposer_ops ops = {
        .open = open_lookup, .close = close_lookup, .offer = offer, .destroy = destroy};
    lookup_proposer *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    *p = (lookup_proposer){.proposer = {.ops = &ops}, .min = min, .max = max};
    return &p->proposer;
}

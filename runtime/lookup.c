#include "runtime/lookup.h"

enum {
    LONGEST = 4,   /* tokens at the end that are looked for: the longer, the surer … */
    SHORTEST = 2,  /* … and no less than these */
    MAX_PAUSE = 64 /* tokens */
};

/* Where the last `k` tokens were before, the last time: the index behind them; 0: nowhere. */
static int64_t find(const int32_t *ids, int64_t n, int64_t k) {
    const int32_t *end = ids + n - k;
    for (int64_t at = n - k - 1; at >= 0; at--) {
        int64_t same = 0;
        while (same < k && ids[at + same] == end[same])
            same++;
        if (same == k)
            return at + k;
    }
    return 0;
}

int32_t rt_lookup_draft(rt_lookup *l, const int32_t *ids, int64_t n, int32_t most, int32_t *draft) {
    int64_t at = 0;
    int32_t count = 0;
    if (l->pause > 0) {
        l->pause--;
        return 0;
    }
    if (l->length > 0 && l->length < most)
        most = l->length;
    for (int64_t k = LONGEST; k >= SHORTEST && at == 0 && most > 0; k--)
        if (n > k)
            at = find(ids, n, k);
    /* A draft that reaches the end goes on with itself: a loop repeats. */
    for (; at > 0 && count < most; at++, count++)
        draft[count] = at < n ? ids[at] : draft[at - n];
    return count;
}

void rt_lookup_learn(rt_lookup *l, int32_t drafted, int32_t kept) {
    if (drafted == 0)
        return;
    l->length = kept == drafted ? 2 * drafted : kept + 1;
    l->misses = kept > 0 ? 0 : l->misses + 1;
    if (l->misses >= 2) {
        l->pause = l->misses < 6 ? 1 << l->misses : MAX_PAUSE;
        if (l->pause > MAX_PAUSE)
            l->pause = MAX_PAUSE;
    }
}

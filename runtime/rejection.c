#include "runtime/rejection.h"

/* Streams of random numbers; 0 is that of tokens without drafts. */
enum { DRAFT = 1, ACCEPT, RESIDUAL };

int32_t rt_draft_token(const rt_distribution *q, uint64_t seed, int64_t position) {
    return rt_draw(q->weights, q->sum, rt_random_of(seed, position, DRAFT));
}

/* In [0, 1). */
static double uniform(uint64_t seed, int64_t position, uint32_t stream) {
    return (double)(rt_random_of(seed, position, stream) >> 11) * 0x1p-53;
}

static double probability(const rt_distribution *d, int32_t id) {
    return (double)d->weights[id] / (double)d->sum;
}

/* What p has of a token more than q. */
static double excess(const rt_distribution *p, const rt_distribution *q, int32_t id) {
    double more = probability(p, id) - probability(q, id);
    return more > 0 ? more : 0;
}

int32_t rt_verify_token(const rt_distribution *p, const rt_distribution *q, int32_t n,
                        int32_t draft, uint64_t seed, int64_t position) {
    if (uniform(seed, position, ACCEPT) * probability(q, draft) < probability(p, draft))
        return draft;
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += excess(p, q, i);
    double at = uniform(seed, position, RESIDUAL) * sum;
    int32_t last = draft; /* of the tokens with excess: rounding may leave `at` behind all */
    for (int32_t i = 0; i < n; i++) {
        double more = excess(p, q, i);
        if (more <= 0)
            continue;
        last = i;
        if (at < more)
            break;
        at -= more;
    }
    return last;
}

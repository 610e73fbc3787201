/* Rejection sampling of drafted tokens: what comes out has the model's distribution exactly,
 * whatever the draft's is (Leviathan et al. 2023, section 2.3 and algorithm 1; appendix A.1 has the
 * proof). A token x that was drawn from the draft's distribution q is kept with probability
 * min(1, p(x) / q(x)), p being the model's; else one is drawn from max(0, p - q), normalized. The
 * drafts before it are kept with probability sum min(p, q) each, which no other rule exceeds.
 *
 * The other rule, where this one is not asked for: the token is drawn from p by the seed's random
 * number, as without drafts, and the draft is kept if it is that token. That is exact as well, and
 * the tokens are the same as without drafts; but fewer drafts are kept. With this rule they depend
 * on where drafts began and ended, which depends on what else runs.
 *
 * Distributions are weights as rt_sample has them, whole numbers with an exact sum; ratios are
 * computed in f64. Random numbers are of the request's seed and the token's position, in streams of
 * their own: each choice has its own number. */
#ifndef MCC_RUNTIME_REJECTION_H
#define MCC_RUNTIME_REJECTION_H

#include "runtime/sampler.h"

typedef struct rt_distribution {
    const uint32_t *weights; /* [n] */
    uint64_t sum;            /* of them, above 0 */
} rt_distribution;

/* A token of the draft's distribution, for `position`. */
int32_t rt_draft_token(const rt_distribution *q, uint64_t seed, int64_t position);

/* The token at `position`, where `draft` was drafted; it is that one if the draft is kept. n is the
 * vocabulary's size. */
int32_t rt_verify_token(const rt_distribution *p, const rt_distribution *q, int32_t n,
                        int32_t draft, uint64_t seed, int64_t position);

#endif

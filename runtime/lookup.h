/* Drafts by prompt lookup: what followed the last few tokens when they came before is likely to
 * follow again, in code that is edited, in quotes and lists (Saxena 2023, "Prompt lookup
 * decoding"). A step computes the drafts beside the token they follow, and those that the model
 * chooses itself are kept: the output is the same, token by token, with a seed too, as a choice
 * depends on logits, seed and position alone. */
#ifndef MCC_RUNTIME_LOOKUP_H
#define MCC_RUNTIME_LOOKUP_H

#include <stdint.h>

/* How many tokens to draft, and whether at all, by what became of the drafts so far. Zero is a
 * good beginning. */
typedef struct rt_lookup {
    int32_t length; /* of the next draft; 0: as long as allowed */
    int32_t pause;  /* tokens to go without a draft */
    int32_t misses; /* drafts in a row of which nothing was kept */
} rt_lookup;

/* Drafts up to `most` tokens that could follow ids[0 … n-1] into `draft`, which may lie right
 * behind them; returns their number. Takes time linear in n. */
int32_t rt_lookup_draft(rt_lookup *lookup, const int32_t *ids, int64_t n, int32_t most,
                        int32_t *draft);

/* Of `drafted` tokens, `kept` were right. */
void rt_lookup_learn(rt_lookup *lookup, int32_t drafted, int32_t kept);

#endif

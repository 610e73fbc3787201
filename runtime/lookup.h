/* Drafts by prompt lookup: what followed the last few tokens when they came before is likely to
 * follow again, in code that is edited, in quotes and lists (Saxena 2023, "Prompt lookup
 * decoding").
 *
 * Each request has an index of its tokens: a hash table of the n-grams of `min` tokens, each with
 * a chain of the places where it was, the last first (as in LZ77 compressors). It grows with the
 * tokens, and its memory is allocated with the request. Where no n-gram is found, and the text has
 * just left the source of a draft, one token that comes next in the source will do: a copy with a
 * few tokens changed goes on there. A look-up visits a limited number of places, so its time does
 * not depend on the length of the text. */
#ifndef MCC_RUNTIME_LOOKUP_H
#define MCC_RUNTIME_LOOKUP_H

#include "runtime/proposer.h"

enum { RT_LOOKUP_MIN = 2, RT_LOOKUP_MAX = 16, RT_LOOKUP_LONGEST = 64 };

/* A proposer that looks for the last `max` tokens, then fewer, at least `min`: 1 <= min <= max <=
 * RT_LOOKUP_LONGEST. NULL when out of memory. */
rt_proposer *rt_lookup_create(int32_t min, int32_t max);

typedef struct rt_lookup rt_lookup;

/* An index for up to `max_ids` tokens; NULL when out of memory. */
rt_lookup *rt_lookup_open(int32_t min, int64_t max_ids);
void rt_lookup_close(rt_lookup *lookup);

/* Drafts up to `most` tokens that could follow ids[0 … n-1] into `draft`, which may lie right
 * behind them; returns their number. Of the ids, those of the last call have not changed. `*match`
 * becomes the number of tokens that were found again, at most `max`; 0: none. */
int32_t rt_lookup_draft(rt_lookup *lookup, const int32_t *ids, int64_t n, int32_t max, int32_t most,
                        int32_t *draft, int32_t *match);

#endif

/* Which tokens of a vocabulary a grammar allows next: a walk through the trie of the vocabulary
 * with a matcher.
 *
 * Most of that does not depend on the stack (Dong et al. 2024, XGrammar, section 3.1): what a state
 * of a rule allows as long as the rule has not ended is computed once for each group of states that
 * no token can tell apart, and kept: the tokens, and the *exits*, which are the nodes of the trie
 * at which the rule may have ended. A mask is what its items' groups have, and the walk of the
 * subtrees of their exits with what called the rule, which are few. */
#ifndef MCC_RUNTIME_GRAMMAR_MASK_H
#define MCC_RUNTIME_GRAMMAR_MASK_H

#include "runtime/grammar/match.h"
#include "runtime/grammar/vocabulary.h"

/* Of a group of states. Tokens are a list, or bits where these take less memory. */
typedef struct rt_state_mask {
    bool made;
    uint32_t *bits;
    uint32_t *ids, *exits;
    uint32_t n_ids, n_exits;
} rt_state_mask;

/* A grammar for a vocabulary. What is kept is not guarded: one thread at a time asks for masks. */
typedef struct rt_masks {
    const rt_vocabulary *vocabulary;
    rt_automaton automaton;
    uint16_t *groups;            /* [n_states] */
    rt_state_mask *groups_masks; /* [n_groups] */
    uint32_t n_groups, words;    /* of a mask: a bit for each token id */
    uint64_t bytes;              /* kept */
    rt_matcher matcher;          /* of a rule alone */
    uint32_t *bits;              /* [words] of the group at work */
    uint32_t *ids, *exits;       /* as in rt_state_mask, with room for all */
} rt_masks;

/* Takes over the automaton, also when it fails: out of memory. */
bool rt_masks_init(rt_masks *masks, const rt_vocabulary *vocabulary, rt_automaton *automaton);
void rt_masks_destroy(rt_masks *masks);

/* Computes what is kept, in the order in which states were made, until that took `work` steps. */
void rt_masks_prepare(rt_masks *masks, uint64_t work);

/* Writes the mask of what may follow `set`, which is the only set of `matcher`, of this automaton.
 * False when that takes too many steps, or out of memory. */
bool rt_masks_fill(rt_masks *masks, rt_matcher *matcher, rt_set set, uint32_t *bits);

#endif

/* A grammar as an automaton: each rule a deterministic one over bytes (subset construction: Rabin
 * and Scott 1959), whose states may also call rules. Which rules are at work is on stacks, which
 * match.h keeps. Immutable once made.
 *
 * From every state some text leads to its rule's end: what cannot match has been taken out. A call
 * reads at least one byte (a rule that matches nothing is stepped over), and no rule calls itself,
 * through whichever others, before it has read a byte. */
#ifndef MCC_RUNTIME_GRAMMAR_AUTOMATON_H
#define MCC_RUNTIME_GRAMMAR_AUTOMATON_H

#include "runtime/grammar/rules.h"

typedef struct rt_call {
    uint16_t rule, to; /* the state to go on in when the rule has ended */
} rt_call;

enum {
    RT_STATE_DEAD = 0, /* where a byte leads that does not match */
    RT_STATE_END = 1,  /* the grammar has ended: no byte follows */
    RT_STATE_FIRST = 2
};

typedef struct rt_automaton {
    uint16_t *next;        /* [n_states][n_classes] */
    uint8_t class_of[256]; /* of a byte */
    uint32_t *calls_of;    /* [n_states + 1] index into calls */
    rt_call *calls;
    uint8_t *ends;    /* [n_states] 1: the rule may end here; 2: it must, nothing can follow */
    uint16_t *starts; /* [n_rules] entered when called; they do not end. A rule calls, before it
                         reads a byte, only rules with greater numbers */
    uint32_t n_states, n_classes, n_calls, n_rules;
    uint16_t root;      /* a rule's start; RT_STATE_END: the grammar matches the empty text alone */
    bool matches_empty; /* the grammar matches the empty text */
} rt_automaton;

/* Makes one of rules that were read without an error. Errors: INVALID_ARGUMENT (a rule is not
 * defined or left-recursive; nothing matches), MCC_CAPACITY, MCC_OUT_OF_MEMORY. To be destroyed in
 * any case. */
bool rt_automaton_create(rt_automaton *automaton, const rt_rules *rules, const char *field,
                         rt_error *error);
void rt_automaton_destroy(rt_automaton *automaton);

/* Groups states so that those of one group agree on all texts of up to `depth` bytes: which of them
 * match, where the rule may end, which rules are called. (Moore 1956, stopped after `depth`
 * rounds.) groups[n_states] gets numbers below *n_groups. False when out of memory. */
bool rt_automaton_groups(const rt_automaton *automaton, uint32_t depth, uint16_t *groups,
                         uint32_t *n_groups);

static inline uint16_t rt_automaton_next(const rt_automaton *a, uint32_t state, uint8_t byte) {
    return a->next[state * a->n_classes + a->class_of[byte]];
}

#endif

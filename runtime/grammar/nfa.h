/* Rules as nondeterministic automata over bytes that call each other: Thompson's construction
 * (Thompson 1968), with calls of rules as a third kind of edge (a recursive transition network:
 * Woods 1970). Characters become the bytes of UTF-8. */
#ifndef MCC_RUNTIME_GRAMMAR_NFA_H
#define MCC_RUNTIME_GRAMMAR_NFA_H

#include "runtime/grammar/rules.h"

typedef enum rt_edge_kind { RT_EDGE_EMPTY, RT_EDGE_BYTES, RT_EDGE_CALL } rt_edge_kind;

typedef struct rt_edge {
    uint32_t to;
    uint32_t next; /* of the state's edges; RT_NO_EDGE */
    uint32_t rule; /* called, by its number in the automaton */
    uint8_t kind;  /* rt_edge_kind */
    uint8_t low, high;
} rt_edge;

#define RT_NO_EDGE UINT32_MAX

/* The rules that the root needs, and that are not small enough to be put in where they are used:
 * numbers 0 (the root), 1, … */
typedef struct rt_nfa {
    uint32_t *edges_of; /* [n_states] its first edge */
    rt_edge *edges;
    uint32_t n_states, n_edges, n_rules;
    uint32_t *starts, *ends; /* [n_rules] states */
    uint32_t *source;        /* [n_rules] numbers in rt_rules */
    /* By rt_nfa_analyse: */
    uint8_t *nullable;   /* [n_rules] matches the empty text */
    uint8_t *productive; /* [n_rules] matches some text */
    uint8_t *alive;      /* [n_states] its rule's end can be reached */
} rt_nfa;

enum { RT_NFA_MAX_STATES = 1 << 20, RT_NFA_MAX_EDGES = 1 << 22 };

/* Makes the automata of the rules that can be reached from the root. Errors: MCC_CAPACITY,
 * MCC_OUT_OF_MEMORY; INVALID_ARGUMENT: a rule is not defined. To be destroyed in any case. */
bool rt_nfa_create(rt_nfa *nfa, const rt_rules *rules, const char *field, rt_error *error);
void rt_nfa_destroy(rt_nfa *nfa);

#endif

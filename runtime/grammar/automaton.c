#include "runtime/grammar/automaton.h"

#include "runtime/grammar/nfa.h"
#include "runtime/modelcc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_STATES = 60000,
    MAX_CELLS = 1 << 23, /* of the table */
    MAX_WORK = 1 << 26   /* NFA states looked at */
};

/* A deterministic state is a set of nondeterministic ones: members[begin … begin+count-1],
 * ascending. */
typedef struct subset {
    uint32_t begin, count;
    uint32_t next; /* of those with the same hash */
} subset;

enum { BUCKETS = 1 << 14 };

typedef struct builder {
    rt_automaton *a;
    rt_nfa nfa;
    const rt_rules *rules;
    const char *field;
    rt_error *error;
    subset *subsets; /* [n_states] */
    uint32_t *members;
    size_t n_members, member_capacity;
    uint32_t state_capacity, call_capacity;
    uint32_t *buckets; /* [BUCKETS]; 0: none */
    uint32_t *set;     /* [nfa.n_states] the set being made */
    uint32_t n_set;
    uint32_t *mark; /* [nfa.n_states] in the set being made where it equals `round` */
    uint32_t round;
    uint64_t work;
} builder;

static bool no_memory(builder *b) {
    return rt_fail(b->error, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
}

static bool too_large(builder *b) {
    return rt_fail(b->error, MCC_CAPACITY,
                   "%s: the grammar is too large: its automaton has more than %u states, or takes "
                   "too long to make; long repetitions and alternatives that begin alike cost most",
                   b->field, b->a->n_states);
}

/* --- classes of bytes ----------------------------------------------------------------------------
 */

/* Bytes that no edge tells apart are one class. */
static void make_classes(builder *b) {
    bool border[257] = {true};
    for (uint32_t i = 0; i < b->nfa.n_edges; i++) {
        const rt_edge *e = &b->nfa.edges[i];
        if (e->kind == RT_EDGE_BYTES)
            border[e->low] = border[e->high + 1] = true;
    }
    int n = -1;
    for (int i = 0; i < 256; i++)
        b->a->class_of[i] = (uint8_t)(n += border[i]);
    b->a->n_classes = (uint32_t)n + 1;
}

/* --- sets ----------------------------------------------------------------------------------------
 */

static void begin_set(builder *b) {
    b->n_set = 0;
    b->round++;
}

static void put(builder *b, uint32_t state) {
    if (b->mark[state] != b->round && b->nfa.alive[state]) {
        b->mark[state] = b->round;
        b->set[b->n_set++] = state;
    }
}

/* Adds what can be reached without reading a byte. */
static void close_set(builder *b) {
    for (uint32_t i = 0; i < b->n_set; i++)
        for (uint32_t k = b->nfa.edges_of[b->set[i]]; k != RT_NO_EDGE; k = b->nfa.edges[k].next) {
            const rt_edge *e = &b->nfa.edges[k];
            b->work++;
            if (e->kind == RT_EDGE_EMPTY || (e->kind == RT_EDGE_CALL && b->nfa.nullable[e->rule]))
                put(b, e->to);
        }
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t hash_set(const builder *b) {
    uint32_t h = b->n_set;
    for (uint32_t i = 0; i < b->n_set; i++)
        h = (h ^ b->set[i]) * 0x9e3779b1u;
    return (h ^ h >> 15) % BUCKETS;
}

static bool grow_states(builder *b) {
    rt_automaton *a = b->a;
    uint32_t capacity = b->state_capacity ? 2 * b->state_capacity : 256;
    void *subsets = realloc(b->subsets, capacity * sizeof *b->subsets);
    b->subsets = subsets ? subsets : b->subsets;
    void *next = realloc(a->next, (size_t)capacity * a->n_classes * sizeof *a->next);
    a->next = next ? next : a->next;
    void *ends = realloc(a->ends, capacity);
    a->ends = ends ? ends : a->ends;
    void *calls_of = realloc(a->calls_of, (capacity + 1) * sizeof *a->calls_of);
    a->calls_of = calls_of ? calls_of : a->calls_of;
    if (!subsets || !next || !ends || !calls_of)
        return no_memory(b);
    b->state_capacity = capacity;
    return true;
}

/* A state for the set being made, which is closed. */
static bool add_state(builder *b, uint32_t *state) {
    rt_automaton *a = b->a;
    if (a->n_states == MAX_STATES || (uint64_t)a->n_states * a->n_classes > MAX_CELLS ||
        b->work > MAX_WORK)
        return too_large(b);
    if (a->n_states == b->state_capacity && !grow_states(b))
        return false;
    if (b->n_members + b->n_set > b->member_capacity) {
        size_t capacity = 2 * b->member_capacity + b->n_set + 1024;
        uint32_t *grown = realloc(b->members, capacity * sizeof *grown);
        if (!grown)
            return no_memory(b);
        b->members = grown;
        b->member_capacity = capacity;
    }
    b->subsets[a->n_states] = (subset){(uint32_t)b->n_members, b->n_set, 0};
    if (b->n_set > 0)
        memcpy(b->members + b->n_members, b->set, b->n_set * sizeof *b->set);
    b->n_members += b->n_set;
    memset(a->next + (size_t)a->n_states * a->n_classes, 0, a->n_classes * sizeof *a->next);
    a->ends[a->n_states] = 0;
    *state = a->n_states++;
    return true;
}

/* The state of the set being made, new or old; RT_STATE_DEAD without members. */
static bool find_state(builder *b, uint32_t *state) {
    if (b->work > MAX_WORK)
        return too_large(b);
    close_set(b);
    if (b->n_set == 0) {
        *state = RT_STATE_DEAD;
        return true;
    }
    qsort(b->set, b->n_set, sizeof *b->set, ascending);
    uint32_t *bucket = &b->buckets[hash_set(b)];
    for (uint32_t s = *bucket; s; s = b->subsets[s].next)
        if (b->subsets[s].count == b->n_set &&
            memcmp(b->members + b->subsets[s].begin, b->set, b->n_set * sizeof *b->set) == 0) {
            *state = s;
            return true;
        }
    if (!add_state(b, state))
        return false;
    b->subsets[*state].next = *bucket;
    *bucket = *state;
    return true;
}

/* --- the states' edges ---------------------------------------------------------------------------
 */

static bool add_call(builder *b, uint32_t rule, uint32_t to) {
    rt_automaton *a = b->a;
    if (a->n_calls == b->call_capacity) {
        uint32_t capacity = b->call_capacity ? 2 * b->call_capacity : 64;
        rt_call *grown = realloc(a->calls, capacity * sizeof *grown);
        if (!grown)
            return no_memory(b);
        a->calls = grown;
        b->call_capacity = capacity;
    }
    a->calls[a->n_calls++] = (rt_call){(uint16_t)rule, (uint16_t)to};
    return true;
}

typedef struct rule_target {
    uint32_t rule, to;
} rule_target;

static int by_rule(const void *x, const void *y) {
    const rule_target *a = x, *b = y;
    return a->rule != b->rule ? (a->rule < b->rule ? -1 : 1) : a->to < b->to ? -1 : a->to > b->to;
}

/* Calls of the same rule become one. */
static bool make_calls(builder *b, uint32_t state) {
    uint32_t n = 0, begin = b->subsets[state].begin, count = b->subsets[state].count;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = b->nfa.edges_of[b->members[begin + i]]; k != RT_NO_EDGE;
             k = b->nfa.edges[k].next)
            n += b->nfa.edges[k].kind == RT_EDGE_CALL;
    b->a->calls_of[state] = b->a->n_calls;
    if (n == 0)
        return true;
    rule_target *targets = malloc(n * sizeof *targets);
    if (!targets)
        return no_memory(b);
    n = 0;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = b->nfa.edges_of[b->members[begin + i]]; k != RT_NO_EDGE;
             k = b->nfa.edges[k].next) {
            const rt_edge *e = &b->nfa.edges[k];
            if (e->kind == RT_EDGE_CALL && b->nfa.productive[e->rule] && b->nfa.alive[e->to])
                targets[n++] = (rule_target){e->rule, e->to};
        }
    qsort(targets, n, sizeof *targets, by_rule);
    bool ok = true;
    for (uint32_t i = 0, k; i < n && ok; i = k) {
        uint32_t to;
        begin_set(b);
        for (k = i; k < n && targets[k].rule == targets[i].rule; k++)
            put(b, targets[k].to);
        ok = find_state(b, &to) && add_call(b, targets[i].rule, to);
    }
    free(targets);
    return ok;
}

/* Where each class of bytes leads. */
static bool make_bytes(builder *b, uint32_t state) {
    rt_automaton *a = b->a;
    for (uint32_t byte = 0, c = UINT32_MAX; byte < 256; byte++) {
        uint32_t to, begin = b->subsets[state].begin, count = b->subsets[state].count;
        if (a->class_of[byte] == c)
            continue;
        c = a->class_of[byte];
        begin_set(b);
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t k = b->nfa.edges_of[b->members[begin + i]]; k != RT_NO_EDGE;
                 k = b->nfa.edges[k].next) {
                const rt_edge *e = &b->nfa.edges[k];
                b->work++;
                if (e->kind == RT_EDGE_BYTES && byte >= e->low && byte <= e->high)
                    put(b, e->to);
            }
        if (!find_state(b, &to))
            return false;
        a->next[(size_t)state * a->n_classes + c] = (uint16_t)to;
    }
    return true;
}

/* A rule's start is a state of its own, which does not end: who calls a rule that matches nothing
 * has gone on already. */
static bool make_rule(builder *b, uint32_t rule) {
    rt_automaton *a = b->a;
    uint32_t start, done = a->n_states;
    a->starts[rule] = RT_STATE_DEAD;
    if (!b->nfa.productive[rule])
        return true;
    begin_set(b);
    put(b, b->nfa.starts[rule]);
    close_set(b);
    if (!add_state(b, &start))
        return false;
    a->starts[rule] = (uint16_t)start;
    for (; done < a->n_states; done++)
        if (!make_calls(b, done) || !make_bytes(b, done))
            return false;
    for (uint32_t s = start + 1; s < a->n_states; s++)
        for (uint32_t i = 0; i < b->subsets[s].count; i++)
            if (b->members[b->subsets[s].begin + i] == b->nfa.ends[rule])
                a->ends[s] = 1;
    return true;
}

/* Whether anything follows a state. */
static bool goes_on(const rt_automaton *a, uint32_t s) {
    const uint16_t *next = a->next + (size_t)s * a->n_classes;
    bool more = a->calls_of[s + 1] > a->calls_of[s];
    for (uint32_t c = 0; c < a->n_classes; c++)
        more = more || next[c] != RT_STATE_DEAD;
    return more;
}

static void find_last_states(rt_automaton *a) {
    for (uint32_t s = 0; s < a->n_states; s++)
        if (a->ends[s] && !goes_on(a, s))
            a->ends[s] = 2;
}

/* --- the order of rules --------------------------------------------------------------------------
 */

static bool left_recursive(builder *b, const uint32_t *path, uint32_t n, uint32_t rule) {
    char text[200] = "";
    size_t size = 0;
    uint32_t i = 0;
    while (path[i] != rule)
        i++;
    for (; i < n && size < sizeof text - 48; i++)
        size += (size_t)snprintf(text + size, sizeof text - size, "%.40s, ",
                                 b->rules->rules[b->nfa.source[path[i]]].name);
    return rt_fail(
        b->error, MCC_INVALID_ARGUMENT,
        "%s: rule \"%.80s\" is left-recursive: it begins with itself (%s%.40s); put what "
        "is repeated behind something else, or use * or +",
        b->field, b->rules->rules[b->nfa.source[rule]].name, text,
        b->rules->rules[b->nfa.source[rule]].name);
}

/* Numbers rules so that those called before a byte is read come later: depth first, numbers being
 * given from the last on as rules are left. */
static bool order_rules(builder *b, uint16_t *numbers) {
    rt_automaton *a = b->a;
    uint32_t n = a->n_rules, last = n, depth = 0;
    uint8_t *seen = calloc(n, 1); /* 1: on the path; 2: done */
    uint32_t *path = malloc(n * sizeof *path), *at = malloc(n * sizeof *at);
    bool ok = (seen && path && at) || no_memory(b);
    for (uint32_t root = 0; root < n && ok; root++) {
        if (seen[root])
            continue;
        path[0] = root;
        at[0] = a->calls_of[a->starts[root]];
        seen[root] = 1;
        depth = 1;
        while (depth > 0 && ok) {
            uint32_t rule = path[depth - 1];
            if (at[depth - 1] == a->calls_of[a->starts[rule] + 1]) {
                seen[rule] = 2;
                numbers[rule] = (uint16_t)--last;
                depth--;
                continue;
            }
            uint32_t called = a->calls[at[depth - 1]++].rule;
            if (seen[called] == 1) {
                ok = left_recursive(b, path, depth, called);
            } else if (!seen[called]) {
                seen[called] = 1;
                path[depth] = called;
                at[depth++] = a->calls_of[a->starts[called]];
            }
        }
    }
    free(seen);
    free(path);
    free(at);
    return ok;
}

static bool renumber_rules(builder *b) {
    rt_automaton *a = b->a;
    uint16_t *numbers = malloc(a->n_rules * sizeof *numbers);
    uint16_t *starts = malloc(a->n_rules * sizeof *starts);
    bool ok = numbers && starts ? order_rules(b, numbers) : no_memory(b);
    if (ok) {
        for (uint32_t i = 0; i < a->n_rules; i++)
            starts[numbers[i]] = a->starts[i];
        for (uint32_t i = 0; i < a->n_calls; i++)
            a->calls[i].rule = numbers[a->calls[i].rule];
        memcpy(a->starts, starts, a->n_rules * sizeof *starts);
    }
    free(numbers);
    free(starts);
    return ok;
}

/* --- all of it -----------------------------------------------------------------------------------
 */

static bool build(builder *b) {
    rt_automaton *a = b->a;
    size_t n = b->nfa.n_states;
    uint32_t unused;
    a->n_rules = b->nfa.n_rules;
    b->buckets = calloc(BUCKETS, sizeof *b->buckets);
    b->set = malloc(n * sizeof *b->set);
    b->mark = calloc(n, sizeof *b->mark);
    a->starts = calloc(a->n_rules, sizeof *a->starts);
    if (!b->buckets || !b->set || !b->mark || !a->starts)
        return no_memory(b);
    if (!b->nfa.productive[0])
        return rt_fail(b->error, MCC_INVALID_ARGUMENT, "%s: no text can ever match%s%s", b->field,
                       b->rules->nothing[0] ? ": " : "", b->rules->nothing);
    make_classes(b);
    for (int i = 0; i < RT_STATE_FIRST; i++) {
        b->n_set = 0;
        if (!add_state(b, &unused))
            return false;
        a->calls_of[i] = 0;
    }
    for (uint32_t i = 0; i < a->n_rules; i++)
        if (!make_rule(b, i))
            return false;
    a->calls_of[a->n_states] = a->n_calls;
    find_last_states(a);
    a->root = goes_on(a, a->starts[0]) ? a->starts[0] : RT_STATE_END;
    a->matches_empty = b->nfa.nullable[0];
    return renumber_rules(b);
}

bool rt_automaton_create(rt_automaton *a, const rt_rules *rules, const char *field,
                         rt_error *error) {
    *a = (rt_automaton){0};
    builder b = {.a = a, .rules = rules, .field = field, .error = error};
    bool ok = rt_nfa_create(&b.nfa, rules, field, error) && build(&b);
    rt_nfa_destroy(&b.nfa);
    free(b.subsets);
    free(b.members);
    free(b.buckets);
    free(b.set);
    free(b.mark);
    return ok;
}

void rt_automaton_destroy(rt_automaton *a) {
    free(a->next);
    free(a->calls_of);
    free(a->calls);
    free(a->ends);
    free(a->starts);
    *a = (rt_automaton){0};
}

/* --- groups of states ----------------------------------------------------------------------------
 */

static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* What tells a state from others, given the groups of the states that follow. */
static uint64_t signature(const rt_automaton *a, uint32_t s, const uint16_t *groups) {
    const uint16_t *next = a->next + (size_t)s * a->n_classes;
    uint64_t h = mix(groups[s], a->ends[s]);
    for (uint32_t c = 0; c < a->n_classes; c++)
        h = mix(h, groups[next[c]]);
    for (uint32_t k = a->calls_of[s]; k < a->calls_of[s + 1]; k++)
        h = mix(h, (uint64_t)a->calls[k].rule << 16 | groups[a->calls[k].to]);
    return h;
}

/* The same as signature, exactly. */
static bool same(const rt_automaton *a, uint32_t s, uint32_t t, const uint16_t *groups) {
    const uint16_t *x = a->next + (size_t)s * a->n_classes;
    const uint16_t *y = a->next + (size_t)t * a->n_classes;
    uint32_t n = a->calls_of[s + 1] - a->calls_of[s];
    if (groups[s] != groups[t] || a->ends[s] != a->ends[t] ||
        a->calls_of[t + 1] - a->calls_of[t] != n)
        return false;
    for (uint32_t c = 0; c < a->n_classes; c++)
        if (groups[x[c]] != groups[y[c]])
            return false;
    for (uint32_t k = 0; k < n; k++) {
        const rt_call *p = &a->calls[a->calls_of[s] + k], *q = &a->calls[a->calls_of[t] + k];
        if (p->rule != q->rule || groups[p->to] != groups[q->to])
            return false;
    }
    return true;
}

bool rt_automaton_groups(const rt_automaton *a, uint32_t depth, uint16_t *groups,
                         uint32_t *n_groups) {
    enum { MAX_ROUND_CELLS = 1 << 27 };
    uint32_t n = a->n_states, buckets = 1;
    while (buckets < 2 * n)
        buckets *= 2;
    uint32_t *table = malloc(buckets * sizeof *table); /* a state of a group; UINT32_MAX: free */
    uint16_t *fresh = malloc(n * sizeof *fresh);
    bool ok = table && fresh;
    uint32_t count = 1;
    for (uint32_t s = 0; s < n; s++)
        groups[s] = s == RT_STATE_DEAD;
    for (uint32_t round = 0; round <= depth && ok; round++) {
        uint32_t now = 0;
        memset(table, 0xff, buckets * sizeof *table);
        for (uint32_t s = 0; s < n; s++) {
            uint32_t at = (uint32_t)signature(a, s, groups) & (buckets - 1);
            while (table[at] != UINT32_MAX && !same(a, s, table[at], groups))
                at = (at + 1) & (buckets - 1);
            if (table[at] == UINT32_MAX) {
                table[at] = s;
                fresh[s] = (uint16_t)now++;
            } else {
                fresh[s] = fresh[table[at]];
            }
        }
        memcpy(groups, fresh, n * sizeof *groups);
        if (now == count && round > 0)
            break;
        count = now;
        if ((uint64_t)(round + 2) * n * a->n_classes > MAX_ROUND_CELLS) {
            /* Too much work: each state for itself is right as well. */
            for (uint32_t s = 0; s < n; s++)
                groups[s] = (uint16_t)s;
            count = n;
            break;
        }
    }
    *n_groups = count;
    free(table);
    free(fresh);
    return ok;
}

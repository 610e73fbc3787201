#include "runtime/grammar/nfa.h"

#include "runtime/modelcc.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_WORK = 1 << 23, /* expressions that are built, repetitions included */
    SMALL = 24          /* states of a rule that is put in where it is used */
};

typedef struct builder {
    rt_nfa *nfa;
    const rt_rules *rules;
    const char *field;
    rt_error *error;
    uint32_t *numbers; /* [rules->n_rules] in the automaton; RT_NO_EDGE: none yet */
    uint32_t *sizes;   /* [rules->n_exprs] 0: not known; else states, SMALL + 1: more, or calls */
    uint64_t work;
    uint32_t state_capacity, edge_capacity;
    int depth;
} builder;

static bool no_memory(builder *b) {
    return rt_fail(b->error, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
}

static bool too_large(builder *b) {
    return rt_fail(b->error, MCC_CAPACITY,
                   "%s: the grammar is too large: its automaton has more than %d states", b->field,
                   RT_NFA_MAX_STATES);
}

static bool add_state(builder *b, uint32_t *state) {
    rt_nfa *a = b->nfa;
    if (a->n_states == RT_NFA_MAX_STATES)
        return too_large(b);
    if (a->n_states == b->state_capacity) {
        uint32_t capacity = b->state_capacity ? 2 * b->state_capacity : 256;
        uint32_t *grown = realloc(a->edges_of, capacity * sizeof *grown);
        if (!grown)
            return no_memory(b);
        a->edges_of = grown;
        b->state_capacity = capacity;
    }
    a->edges_of[a->n_states] = RT_NO_EDGE;
    *state = a->n_states++;
    return true;
}

static bool add_edge(builder *b, uint32_t from, rt_edge edge) {
    rt_nfa *a = b->nfa;
    if (a->n_edges == RT_NFA_MAX_EDGES)
        return too_large(b);
    if (a->n_edges == b->edge_capacity) {
        uint32_t capacity = b->edge_capacity ? 2 * b->edge_capacity : 256;
        rt_edge *grown = realloc(a->edges, capacity * sizeof *grown);
        if (!grown)
            return no_memory(b);
        a->edges = grown;
        b->edge_capacity = capacity;
    }
    edge.next = a->edges_of[from];
    a->edges[a->n_edges] = edge;
    a->edges_of[from] = a->n_edges++;
    return true;
}

static bool add_empty(builder *b, uint32_t from, uint32_t to) {
    return add_edge(b, from, (rt_edge){.to = to, .kind = RT_EDGE_EMPTY});
}

/* --- characters ----------------------------------------------------------------------------------
 */

/* A path of n ranges of bytes. */
static bool add_path(builder *b, uint32_t from, uint32_t to, const uint8_t *low,
                     const uint8_t *high, int n) {
    for (int i = 0; i < n; i++) {
        uint32_t next = to;
        if (i + 1 < n && !add_state(b, &next))
            return false;
        if (!add_edge(b, from,
                      (rt_edge){.to = next, .kind = RT_EDGE_BYTES, .low = low[i], .high = high[i]}))
            return false;
        from = next;
    }
    return true;
}

static int encode(uint32_t code, uint8_t out[4]) {
    if (code < 0x80)
        return out[0] = (uint8_t)code, 1;
    int n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 0x3f));
    out[0] = (uint8_t)((0xf00 >> n & 0xff) | code);
    return n;
}

/* Splits a range of code points until each piece is a product of ranges of bytes: at what fits in
 * so many bytes, at the surrogates, and where the last i bytes do not go through all they can (as
 * Russ Cox's RE2 does). */
static bool add_range(builder *b, uint32_t from, uint32_t to, uint32_t low, uint32_t high) {
    static const uint32_t borders[] = {0x80, 0x800, 0xd800, 0xe000, 0x10000};
    if (low > high)
        return true;
    for (size_t i = 0; i < sizeof borders / sizeof *borders; i++)
        if (low < borders[i] && high >= borders[i])
            return add_range(b, from, to, low, borders[i] - 1) &&
                   add_range(b, from, to, borders[i], high);
    if (low >= 0xd800 && low <= 0xdfff)
        return true;
    for (int i = 1; low >= 0x80 && i < 4; i++) {
        uint32_t mask = (1u << 6 * i) - 1;
        if ((low & ~mask) == (high & ~mask))
            break;
        if (low & mask)
            return add_range(b, from, to, low, low | mask) &&
                   add_range(b, from, to, (low | mask) + 1, high);
        if ((high & mask) != mask)
            return add_range(b, from, to, low, (high & ~mask) - 1) &&
                   add_range(b, from, to, high & ~mask, high);
    }
    uint8_t first[4], last[4];
    int n = encode(low, first);
    encode(high, last);
    return add_path(b, from, to, first, last, n);
}

static bool build_chars(builder *b, const rt_expr *e, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; i < e->count; i++) {
        const rt_range *r = &b->rules->ranges[e->begin + i];
        if (!add_range(b, from, to, r->low, r->high < 0x10ffff ? r->high : 0x10ffff))
            return false;
    }
    return true;
}

/* --- expressions ---------------------------------------------------------------------------------
 */

/* States that an expression takes, about; more than SMALL where that is more, or it calls rules. */
static uint32_t size_of(builder *b, uint32_t number, int depth) {
    const rt_expr *e = &b->rules->exprs[number];
    if (b->sizes[number] || depth > RT_GRAMMAR_MAX_NESTING)
        return b->sizes[number] ? b->sizes[number] : SMALL + 1;
    uint64_t size = 1;
    if (e->kind == RT_EXPR_RULE || e->kind == RT_EXPR_JOIN)
        size = SMALL + 1;
    else if (e->kind == RT_EXPR_TEXT)
        size = e->count;
    else if (e->kind == RT_EXPR_DIGITS)
        size = e->count / RT_EXPR_DIGITS_NUMBERS;
    else if (e->kind == RT_EXPR_CHARS)
        for (uint32_t i = 0; i < e->count; i++)
            size += b->rules->ranges[e->begin + i].high >= 0x80 ? 12 : 0;
    else
        for (uint32_t i = 0; i < e->count && size <= SMALL; i++)
            size += 1 + size_of(b, b->rules->parts[e->begin + i], depth + 1);
    if (e->kind == RT_EXPR_REPEAT)
        size *= e->max != RT_EXPR_UNBOUNDED ? e->max : e->min + 1;
    return b->sizes[number] = size > SMALL ? SMALL + 1 : (uint32_t)size + (size == 0);
}

static bool build(builder *b, uint32_t number, uint32_t from, uint32_t to);

static bool build_text(builder *b, const rt_expr *e, uint32_t from, uint32_t to) {
    const uint8_t *bytes = b->rules->bytes + e->begin;
    for (uint32_t i = 0; i < e->count; i++) {
        uint32_t next = to;
        if (i + 1 < e->count && !add_state(b, &next))
            return false;
        if (!add_edge(
                b, from,
                (rt_edge){.to = next, .kind = RT_EDGE_BYTES, .low = bytes[i], .high = bytes[i]}))
            return false;
        from = next;
    }
    return e->count > 0 || add_empty(b, from, to);
}

static bool build_seq(builder *b, const rt_expr *e, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; i < e->count; i++) {
        uint32_t next = to;
        if ((i + 1 < e->count && !add_state(b, &next)) ||
            !build(b, b->rules->parts[e->begin + i], from, next))
            return false;
        from = next;
    }
    return e->count > 0 || add_empty(b, from, to);
}

static bool build_repeat(builder *b, const rt_expr *e, uint32_t from, uint32_t to) {
    uint32_t part = b->rules->parts[e->begin], next;
    for (uint32_t i = 0; i < e->min; i++, from = next)
        if (!add_state(b, &next) || !build(b, part, from, next))
            return false;
    if (e->max == RT_EXPR_UNBOUNDED)
        /* A state of its own to go round in: `from` may be one of another loop. */
        return add_state(b, &next) && add_empty(b, from, next) && build(b, part, next, next) &&
               add_empty(b, next, to);
    for (uint32_t i = e->min; i < e->max; i++, from = next)
        if (!add_empty(b, from, to) || !add_state(b, &next) || !build(b, part, from, next))
            return false;
    return add_empty(b, from, to);
}

/* Two chains of states, before each part: nothing is there yet, or something is. */
static bool build_join(builder *b, const rt_expr *e, uint32_t from, uint32_t to) {
    const uint32_t *parts = b->rules->parts + e->begin;
    uint32_t none = from, some = RT_NO_EDGE;
    bool may_be_none = true;
    for (uint32_t i = 1; i < e->count; i++) {
        uint32_t part = parts[i] >> 1, next_none = RT_NO_EDGE, next_some, between;
        bool optional = parts[i] & 1;
        if (!add_state(b, &next_some))
            return false;
        if (may_be_none && !build(b, part, none, next_some))
            return false;
        if (some != RT_NO_EDGE &&
            (!add_state(b, &between) || !build(b, parts[0] >> 1, some, between) ||
             !build(b, part, between, next_some) || (optional && !add_empty(b, some, next_some))))
            return false;
        may_be_none = may_be_none && optional;
        if (may_be_none && (!add_state(b, &next_none) || !add_empty(b, none, next_none)))
            return false;
        none = next_none;
        some = next_some;
    }
    return (!may_be_none || add_empty(b, none, to)) &&
           (some == RT_NO_EDGE || add_empty(b, some, to));
}

/* Digits next to each other that lead to the same state are one edge. */
static bool build_digits(builder *b, const rt_expr *e, uint32_t from, uint32_t to) {
    const uint32_t *state = b->rules->parts + e->begin;
    uint32_t n = e->count / RT_EXPR_DIGITS_NUMBERS, base = b->nfa->n_states, unused;
    b->work += n;
    for (uint32_t i = 0; i < n; i++)
        if (!add_state(b, &unused))
            return false;
    if (!add_empty(b, from, base + e->rule))
        return false;
    for (uint32_t i = 0; i < n; i++, state += RT_EXPR_DIGITS_NUMBERS) {
        for (uint32_t low = 0, end; low <= 10; low = end) {
            for (end = low + 1; end < 10 && state[end] == state[low];)
                end++;
            rt_edge edge = {.to = base + state[low],
                            .kind = RT_EDGE_BYTES,
                            .low = low == 10 ? '.' : (uint8_t)('0' + low),
                            .high = low == 10 ? '.' : (uint8_t)('0' + end - 1)};
            if (state[low] != RT_EXPR_NONE && !add_edge(b, base + i, edge))
                return false;
        }
        if (state[11] && !add_empty(b, base + i, to))
            return false;
    }
    return true;
}

static bool build_rule(builder *b, uint32_t rule, uint32_t from, uint32_t to) {
    const rt_rule *r = &b->rules->rules[rule];
    if (r->expr == RT_EXPR_NONE)
        return rt_fail(b->error, MCC_INVALID_ARGUMENT, "%s: rule \"%.80s\" is not defined",
                       b->field, r->name);
    if (size_of(b, r->expr, 0) <= SMALL)
        return build(b, r->expr, from, to);
    if (b->numbers[rule] == RT_NO_EDGE) {
        b->numbers[rule] = b->nfa->n_rules;
        b->nfa->source[b->nfa->n_rules++] = rule;
    }
    return add_edge(b, from, (rt_edge){.to = to, .kind = RT_EDGE_CALL, .rule = b->numbers[rule]});
}

/* The expression's automaton between two states, of which `from` may have more edges, and `to` any.
 */
static bool build(builder *b, uint32_t number, uint32_t from, uint32_t to) {
    const rt_expr *e = &b->rules->exprs[number];
    bool ok = true;
    if (++b->work > MAX_WORK)
        return too_large(b);
    if (b->depth == 4 * RT_GRAMMAR_MAX_NESTING)
        return rt_fail(b->error, MCC_CAPACITY, "%s: nested too deeply", b->field);
    b->depth++;
    switch (e->kind) {
    case RT_EXPR_TEXT:
        ok = build_text(b, e, from, to);
        break;
    case RT_EXPR_CHARS:
        ok = build_chars(b, e, from, to);
        break;
    case RT_EXPR_SEQ:
        ok = build_seq(b, e, from, to);
        break;
    case RT_EXPR_ALT:
        for (uint32_t i = 0; i < e->count && ok; i++)
            ok = build(b, b->rules->parts[e->begin + i], from, to);
        break;
    case RT_EXPR_REPEAT:
        ok = build_repeat(b, e, from, to);
        break;
    case RT_EXPR_JOIN:
        ok = build_join(b, e, from, to);
        break;
    case RT_EXPR_DIGITS:
        ok = build_digits(b, e, from, to);
        break;
    case RT_EXPR_RULE:
        ok = build_rule(b, e->rule, from, to);
        break;
    }
    b->depth--;
    return ok;
}

/* Rules get their numbers as they are called, so the list grows while it is worked off. */
static bool build_rules(builder *b) {
    rt_nfa *a = b->nfa;
    const rt_rule *root = &b->rules->rules[b->rules->root];
    if (root->expr == RT_EXPR_NONE)
        return rt_fail(b->error, MCC_INVALID_ARGUMENT, "%s: rule \"%.80s\" is not defined",
                       b->field, root->name);
    b->numbers[b->rules->root] = 0;
    a->source[a->n_rules++] = b->rules->root;
    for (uint32_t i = 0; i < a->n_rules; i++)
        if (!add_state(b, &a->starts[i]) || !add_state(b, &a->ends[i]) ||
            !build(b, b->rules->rules[a->source[i]].expr, a->starts[i], a->ends[i]))
            return false;
    return true;
}

/* --- what can be matched -------------------------------------------------------------------------
 */

/* Edges by the state they lead to. */
typedef struct reverse {
    uint32_t *first;       /* [n_states + 1] index into `edges` */
    uint32_t *edges;       /* [n_edges] numbers, by target */
    uint32_t *from;        /* [n_edges] by number */
    uint32_t *callers;     /* [n_rules] first edge that calls it, by number; RT_NO_EDGE */
    uint32_t *next_caller; /* [n_edges] */
} reverse;

static void reverse_free(reverse *r) {
    free(r->first);
    free(r->edges);
    free(r->from);
    free(r->callers);
    free(r->next_caller);
}

static bool reverse_create(reverse *r, const rt_nfa *a) {
    *r = (reverse){.first = calloc((size_t)a->n_states + 2, sizeof *r->first),
                   .edges = malloc(((size_t)a->n_edges + 1) * sizeof *r->edges),
                   .from = malloc(((size_t)a->n_edges + 1) * sizeof *r->from),
                   .callers = malloc((size_t)a->n_rules * sizeof *r->callers),
                   .next_caller = malloc(((size_t)a->n_edges + 1) * sizeof *r->next_caller)};
    if (!r->first || !r->edges || !r->from || !r->callers || !r->next_caller)
        return false;
    for (uint32_t i = 0; i < a->n_rules; i++)
        r->callers[i] = RT_NO_EDGE;
    for (uint32_t s = 0; s < a->n_states; s++)
        for (uint32_t e = a->edges_of[s]; e != RT_NO_EDGE; e = a->edges[e].next) {
            r->from[e] = s;
            r->first[a->edges[e].to + 2]++;
            if (a->edges[e].kind == RT_EDGE_CALL) {
                r->next_caller[e] = r->callers[a->edges[e].rule];
                r->callers[a->edges[e].rule] = e;
            }
        }
    for (uint32_t s = 0; s < a->n_states; s++)
        r->first[s + 2] += r->first[s + 1];
    for (uint32_t e = 0; e < a->n_edges; e++)
        r->edges[r->first[a->edges[e].to + 1]++] = e;
    return true;
}

/* Marks the states from which their rule's end can be reached, and the rules whose start can; with
 * `bytes` by any edges, else without reading anything. A call counts once its rule is marked.
 * `stack` has room for all states. */
static void mark(const rt_nfa *a, const reverse *r, bool bytes, uint8_t *states, uint8_t *rules,
                 uint32_t *stack) {
    uint32_t n = 0;
    memset(states, 0, a->n_states);
    memset(rules, 0, a->n_rules);
    for (uint32_t i = 0; i < a->n_rules; i++) {
        states[a->ends[i]] = 1;
        stack[n++] = a->ends[i];
    }
    while (n > 0) {
        uint32_t s = stack[--n];
        for (uint32_t i = r->first[s]; i < r->first[s + 1]; i++) {
            const rt_edge *e = &a->edges[r->edges[i]];
            uint32_t from = r->from[r->edges[i]];
            bool passable = e->kind == RT_EDGE_EMPTY || (e->kind == RT_EDGE_BYTES && bytes) ||
                            (e->kind == RT_EDGE_CALL && rules[e->rule]);
            if (passable && !states[from]) {
                states[from] = 1;
                stack[n++] = from;
            }
        }
        for (uint32_t i = 0; n == 0 && i < a->n_rules; i++) {
            if (rules[i] || !states[a->starts[i]])
                continue;
            rules[i] = 1;
            for (uint32_t e = r->callers[i]; e != RT_NO_EDGE; e = r->next_caller[e])
                if (states[a->edges[e].to] && !states[r->from[e]]) {
                    states[r->from[e]] = 1;
                    stack[n++] = r->from[e];
                }
        }
    }
}

static bool analyse(builder *b) {
    rt_nfa *a = b->nfa;
    reverse r;
    uint32_t *stack = malloc((size_t)a->n_states * sizeof *stack);
    a->nullable = malloc(a->n_rules);
    a->productive = malloc(a->n_rules);
    a->alive = malloc(a->n_states);
    bool ok = reverse_create(&r, a) && stack && a->nullable && a->productive && a->alive;
    if (ok) {
        mark(a, &r, false, a->alive, a->nullable, stack);
        mark(a, &r, true, a->alive, a->productive, stack);
    }
    reverse_free(&r);
    free(stack);
    return ok || no_memory(b);
}

/* --- all of it -----------------------------------------------------------------------------------
 */

bool rt_nfa_create(rt_nfa *a, const rt_rules *rules, const char *field, rt_error *error) {
    *a = (rt_nfa){0};
    builder b = {.nfa = a, .rules = rules, .field = field, .error = error};
    size_t n = rules->n_rules;
    b.numbers = malloc(n * sizeof *b.numbers);
    b.sizes = calloc(rules->n_exprs, sizeof *b.sizes);
    a->starts = malloc(n * sizeof *a->starts);
    a->ends = malloc(n * sizeof *a->ends);
    a->source = malloc(n * sizeof *a->source);
    bool ok = b.numbers && b.sizes && a->starts && a->ends && a->source;
    if (!ok)
        no_memory(&b);
    else
        memset(b.numbers, 0xff, n * sizeof *b.numbers);
    ok = ok && build_rules(&b) && analyse(&b);
    free(b.numbers);
    free(b.sizes);
    return ok;
}

void rt_nfa_destroy(rt_nfa *a) {
    free(a->edges_of);
    free(a->edges);
    free(a->starts);
    free(a->ends);
    free(a->source);
    free(a->nullable);
    free(a->productive);
    free(a->alive);
    *a = (rt_nfa){0};
}

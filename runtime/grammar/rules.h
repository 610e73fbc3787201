/* Grammars as rules of expressions: what regular expressions (regex.c), GBNF (gbnf.c) and JSON
 * schemas (schema.c) are read into, and what automaton.c makes an automaton of.
 *
 * Expressions are numbers; one may be part of several others, so that they form a graph without
 * cycles: cycles go through rules. Rules and expressions are only added. The first error sticks:
 * from then on adding does nothing, and whoever reads the grammar looks at `failed` in the end. */
#ifndef MCC_RUNTIME_GRAMMAR_RULES_H
#define MCC_RUNTIME_GRAMMAR_RULES_H

#include "runtime/error.h"

#include <stddef.h>
#include <stdint.h>

typedef enum rt_expr_kind {
    RT_EXPR_TEXT,   /* these bytes */
    RT_EXPR_CHARS,  /* one character of these ranges; without ranges: nothing matches */
    RT_EXPR_SEQ,    /* the parts in order; without parts: the empty text */
    RT_EXPR_ALT,    /* one of the parts; without parts: nothing matches */
    RT_EXPR_REPEAT, /* the part, min to max times */
    RT_EXPR_JOIN,   /* the parts with the first one between any two; those that are marked optional
                       may be left out */
    RT_EXPR_DIGITS, /* an automaton over digits and points: RT_EXPR_DIGITS_NUMBERS parts a state,
                       where 0 … 9 and a point lead to (RT_EXPR_NONE: nowhere), and whether the text
                       may end; without cycles */
    RT_EXPR_RULE
} rt_expr_kind;

typedef struct rt_range {
    uint32_t low, high; /* code points, inclusive; surrogates among them are left out */
} rt_range;

typedef struct rt_expr {
    rt_expr_kind kind;
    uint32_t begin, count; /* of bytes, ranges or parts */
    uint32_t min, max;     /* RT_EXPR_REPEAT */
    uint32_t rule;         /* RT_EXPR_RULE; of RT_EXPR_DIGITS the first state */
} rt_expr;

#define RT_EXPR_UNBOUNDED UINT32_MAX
enum { RT_EXPR_DIGITS_NUMBERS = 12 };

/* What a grammar may be made of. Each is far beyond what people write. */
enum {
    RT_GRAMMAR_MAX_TEXT = 1 << 20, /* bytes of a schema, an expression or a GBNF text */
    RT_GRAMMAR_MAX_RULES = 1 << 14,
    RT_GRAMMAR_MAX_EXPRS = 1 << 19,
    RT_GRAMMAR_MAX_NESTING = 128,
    RT_GRAMMAR_MAX_REPEAT = 1 << 16
};

typedef struct rt_rule {
    char *name;    /* for messages */
    uint32_t expr; /* RT_EXPR_NONE: not defined yet */
} rt_rule;

#define RT_EXPR_NONE UINT32_MAX

typedef struct rt_rules {
    rt_expr *exprs;
    uint32_t *parts; /* expressions; of RT_EXPR_JOIN shifted left by one, with 1: optional */
    rt_range *ranges;
    uint8_t *bytes;
    rt_rule *rules;
    size_t n_exprs, n_parts, n_ranges, n_bytes, n_rules;
    uint32_t root; /* a rule */
    bool failed;
    rt_error *error;   /* gets the first error */
    char nothing[240]; /* why parts match nothing, for the error when nothing else is left */
} rt_rules;

void rt_rules_init(rt_rules *rules, rt_error *error);
void rt_rules_free(rt_rules *rules);

/* Records the first error. Returns false. */
bool rt_rules_fail(rt_rules *rules, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Each returns an expression; 0 after an error, which is a valid number to go on with. */
uint32_t rt_expr_text(rt_rules *rules, const char *bytes, size_t n);
uint32_t rt_expr_chars(rt_rules *rules, const rt_range *ranges, size_t n);
/* Characters that are in none of the ranges. Sorts them. */
uint32_t rt_expr_not_chars(rt_rules *rules, rt_range *ranges, size_t n);
uint32_t rt_expr_list(rt_rules *rules, rt_expr_kind kind, const uint32_t *parts, size_t n);
uint32_t rt_expr_repeat(rt_rules *rules, uint32_t part, uint32_t min, uint32_t max);
uint32_t rt_expr_rule(rt_rules *rules, uint32_t rule);
static inline uint32_t rt_expr_empty(rt_rules *rules) {
    return rt_expr_list(rules, RT_EXPR_SEQ, NULL, 0);
}
static inline uint32_t rt_expr_optional(rt_rules *rules, uint32_t part) {
    return rt_expr_repeat(rules, part, 0, 1);
}

/* A rule that is not defined yet; 0 after an error. The name is copied. */
uint32_t rt_rule_add(rt_rules *rules, const char *name, size_t bytes);

/* A list of expressions that grows while something is read. Zero is empty. */
typedef struct rt_expr_stack {
    uint32_t *at;
    size_t n, capacity;
} rt_expr_stack;

void rt_expr_stack_free(rt_expr_stack *stack);
void rt_expr_push(rt_rules *rules, rt_expr_stack *stack, uint32_t expr);
/* Makes a list of all from `from` on, and takes them off. One alone is returned as it is. */
uint32_t rt_expr_pop_list(rt_rules *rules, rt_expr_stack *stack, size_t from, rt_expr_kind kind);

/* --- readers -------------------------------------------------------------------------------------
 */

/* The character that hexadecimal digits at *at stand for: two of \x, four of \u, eight of \U
 * (`kind` being the letter). Moves *at behind them. NULL, or what is wrong with them. */
const char *rt_read_hex(const char **at, const char *end, char kind, uint32_t *code);

/* Each reads a text of n bytes into `rules`, sets its root, and returns !rules->failed. Errors are
 * MCC_INVALID_ARGUMENT, MCC_UNSUPPORTED and MCC_CAPACITY and say where; `field` is what the caller
 * calls the text ("guided_regex"). */

/* A regular expression as of Python's module re that has to match all of the output, with ASCII's
 * \d, \w and \s. Lazy quantifiers are taken as greedy ones; anchors are allowed at the ends. No
 * look-around, back-references, flags. */
bool rt_read_regex(rt_rules *rules, const char *field, const char *text, size_t n);
/* The same as an expression. `search`: unless anchored, something may be before and behind it. */
uint32_t rt_regex_expr(rt_rules *rules, const char *field, const char *text, size_t n, bool search);

/* llama.cpp's GBNF: `name ::= expression`, begun by the rule `root`. */
bool rt_read_gbnf(rt_rules *rules, const char *field, const char *text, size_t n);

/* A JSON schema: see schema.c for what of it. Without a text (NULL): any JSON object. */
bool rt_read_schema(rt_rules *rules, const char *field, const char *text, size_t n);

#endif

/* llama.cpp's GBNF (its grammars/README.md): rules `name ::= expression` of texts "…", classes
 * [a-z], `.`, names, (groups), alternatives | and repetitions * + ? {m} {m,} {m,n}; comments after
 * #. An expression goes on until the next `name ::=`, over as many lines as it likes. */
#include "runtime/grammar/rules.h"

#include "runtime/modelcc.h"
#include "runtime/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

typedef struct reader {
    rt_rules *rules;
    const char *field, *text, *at, *end;
    rt_expr_stack stack;
    uint32_t *slots; /* [SLOTS] rules by the hash of their names, + 1; 0: free */
} reader;

enum { SLOTS = 2 * RT_GRAMMAR_MAX_RULES };

static bool wrong(reader *r, const char *at, const char *what) {
    int line = 1, column = 1;
    for (const char *p = r->text; p < at; p++) {
        column = *p == '\n' ? 1 : column + ((*p & 0xc0) != 0x80);
        line += *p == '\n';
    }
    return rt_rules_fail(r->rules, MCC_INVALID_ARGUMENT, "%s: line %d, column %d: %s", r->field,
                         line, column, what);
}

static void skip_space(reader *r) {
    while (r->at < r->end && (strchr(" \t\r\n", *r->at) || *r->at == '#')) {
        if (*r->at == '\0')
            return;
        if (*r->at == '#')
            while (r->at < r->end && *r->at != '\n')
                r->at++;
        else
            r->at++;
    }
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static bool next_is(reader *r, char c) {
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* The rule of this name, which may be defined later. */
static uint32_t find_rule(reader *r, const char *name, size_t n) {
    uint32_t hash = 0, at;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (uint8_t)name[i]) * 0x01000193u;
    for (at = (hash ^ hash >> 15) % SLOTS; r->slots[at]; at = (at + 1) % SLOTS) {
        const char *found = r->rules->rules[r->slots[at] - 1].name;
        if (strncmp(found, name, n) == 0 && !found[n])
            return r->slots[at] - 1;
    }
    uint32_t rule = rt_rule_add(r->rules, name, n);
    if (!r->rules->failed)
        r->slots[at] = rule + 1;
    return rule;
}

/* --- characters ----------------------------------------------------------------------------------
 */

/* After \x, \u or \U. */
static bool hex(reader *r, char kind, uint32_t *code) {
    const char *begin = r->at, *problem = rt_read_hex(&r->at, r->end, kind, code);
    return !problem || wrong(r, begin, problem);
}

static bool character(reader *r, uint32_t *code) {
    if (r->at == r->end)
        return wrong(r, r->at, "the text ends within \"…\" or […]");
    if (*r->at != '\\') {
        size_t size;
        *code = rt_utf8_decode(r->at, &size); /* the text has been checked */
        r->at += size;
        return true;
    }
    r->at++;
    char c = r->at < r->end ? *r->at++ : 0;
    static const char names[] = "nrt\\\"[]-^/", codes[] = "\n\r\t\\\"[]-^/";
    const char *found = c ? strchr(names, c) : NULL;
    if (found) {
        *code = (uint32_t)codes[found - names];
        return true;
    }
    if (c == 'x' || c == 'u' || c == 'U')
        return hex(r, c, code);
    return wrong(r, r->at - 1, "unknown escape");
}

static uint32_t text(reader *r) {
    char *bytes = malloc((size_t)(r->end - r->at) + 8);
    size_t n = 0;
    uint32_t code;
    if (!bytes) {
        rt_rules_fail(r->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
        return 0;
    }
    while (!next_is(r, '"')) {
        if (!character(r, &code)) {
            free(bytes);
            return 0;
        }
        n += rt_utf8_encode(code, bytes + n); /* never longer than what it was written as */
    }
    uint32_t expr = rt_expr_text(r->rules, bytes, n);
    free(bytes);
    return expr;
}

static uint32_t class(reader *r) {
    bool negated = next_is(r, '^');
    size_t n = 0, capacity = 0;
    rt_range *ranges = NULL;
    uint32_t expr = 0;
    while (!next_is(r, ']')) {
        rt_range range;
        if (n == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            rt_range *grown = realloc(ranges, capacity * sizeof *grown);
            if (!grown) {
                rt_rules_fail(r->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
                goto done;
            }
            ranges = grown;
        }
        if (!character(r, &range.low))
            goto done;
        range.high = range.low;
        if (r->end - r->at > 1 && r->at[0] == '-' && r->at[1] != ']') {
            const char *at = r->at++;
            if (!character(r, &range.high))
                goto done;
            if (range.high < range.low) {
                wrong(r, at, "a range that goes backwards");
                goto done;
            }
        }
        ranges[n++] = range;
    }
    expr = negated ? rt_expr_not_chars(r->rules, ranges ? ranges : &(rt_range){0, 0}, n)
                   : rt_expr_chars(r->rules, ranges, n);
done:
    free(ranges);
    return expr;
}

/* --- expressions ---------------------------------------------------------------------------------
 */

static uint32_t alternatives(reader *r, int depth);

static bool number(reader *r, uint32_t *n) {
    const char *begin = r->at;
    uint64_t x = 0;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
        x = x < UINT32_MAX ? 10 * x + (uint64_t)(*r->at - '0') : x;
    if (r->at == begin)
        return wrong(r, begin, "expected a number");
    if (x > RT_GRAMMAR_MAX_REPEAT)
        return wrong(r, begin, "at most 65536 repetitions");
    *n = (uint32_t)x;
    return true;
}

/* After `{`. */
static uint32_t counted(reader *r, uint32_t expr) {
    uint32_t min = 0, max;
    const char *begin = r->at;
    skip_space(r);
    if (!number(r, &min))
        return 0;
    max = min;
    skip_space(r);
    if (next_is(r, ',')) {
        skip_space(r);
        max = RT_EXPR_UNBOUNDED;
        if (r->at < r->end && *r->at != '}' && !number(r, &max))
            return 0;
        skip_space(r);
    }
    if (!next_is(r, '}'))
        wrong(r, r->at, "expected }");
    else if (max < min)
        wrong(r, begin, "more repetitions at least than at most");
    return rt_expr_repeat(r->rules, expr, min, max);
}

/* Whether a name is that of the next rule's definition. */
static bool at_definition(const reader *r) {
    reader ahead = *r;
    while (ahead.at < ahead.end && is_name(*ahead.at))
        ahead.at++;
    skip_space(&ahead);
    return ahead.end - ahead.at >= 3 && memcmp(ahead.at, "::=", 3) == 0;
}

/* One text, class, name or group with what follows it; false at the end of the sequence. */
static bool item(reader *r, int depth, uint32_t *expr) {
    const char *begin = r->at;
    if (r->at == r->end || *r->at == '|' || *r->at == ')')
        return false;
    if (is_name(*r->at)) {
        if (at_definition(r))
            return false;
        while (r->at < r->end && is_name(*r->at))
            r->at++;
        *expr = rt_expr_rule(r->rules, find_rule(r, begin, (size_t)(r->at - begin)));
    } else if (next_is(r, '"')) {
        *expr = text(r);
    } else if (next_is(r, '[')) {
        *expr = class(r);
    } else if (next_is(r, '.')) {
        *expr = rt_expr_not_chars(r->rules, &(rt_range){0, 0}, 0);
    } else if (next_is(r, '(')) {
        *expr = alternatives(r, depth + 1);
        if (!r->rules->failed && !next_is(r, ')'))
            wrong(r, begin, "( without )");
    } else {
        return wrong(r, begin,
                     *begin == '<' ? "tokens <…> are not supported"
                                   : "expected a text, a class, a name or a group");
    }
    for (;;) {
        skip_space(r);
        if (next_is(r, '*'))
            *expr = rt_expr_repeat(r->rules, *expr, 0, RT_EXPR_UNBOUNDED);
        else if (next_is(r, '+'))
            *expr = rt_expr_repeat(r->rules, *expr, 1, RT_EXPR_UNBOUNDED);
        else if (next_is(r, '?'))
            *expr = rt_expr_optional(r->rules, *expr);
        else if (next_is(r, '{'))
            *expr = counted(r, *expr);
        else
            return !r->rules->failed;
        if (++depth > RT_GRAMMAR_MAX_NESTING)
            return wrong(r, r->at, "nested too deeply");
    }
}

static uint32_t alternatives(reader *r, int depth) {
    size_t first = r->stack.n;
    if (depth > RT_GRAMMAR_MAX_NESTING) {
        wrong(r, r->at, "nested too deeply");
        return 0;
    }
    do {
        size_t begin = r->stack.n;
        uint32_t expr = 0;
        skip_space(r);
        while (item(r, depth, &expr))
            rt_expr_push(r->rules, &r->stack, expr);
        expr = rt_expr_pop_list(r->rules, &r->stack, begin, RT_EXPR_SEQ);
        rt_expr_push(r->rules, &r->stack, expr);
    } while (!r->rules->failed && next_is(r, '|'));
    return rt_expr_pop_list(r->rules, &r->stack, first, RT_EXPR_ALT);
}

static bool rule(reader *r) {
    const char *name = r->at;
    while (r->at < r->end && is_name(*r->at))
        r->at++;
    size_t n = (size_t)(r->at - name);
    skip_space(r);
    if (n == 0 || r->end - r->at < 3 || memcmp(r->at, "::=", 3) != 0)
        return wrong(r, n ? r->at : name, "expected a rule: name ::= …");
    r->at += 3;
    uint32_t number = find_rule(r, name, n);
    if (r->rules->failed)
        return false;
    if (r->rules->rules[number].expr != RT_EXPR_NONE)
        return wrong(r, name, "the rule has been defined already");
    uint32_t expr = alternatives(r, 0);
    if (!r->rules->failed && r->at < r->end && *r->at == ')')
        wrong(r, r->at, ") without (");
    if (!r->rules->failed)
        r->rules->rules[number].expr = expr;
    return !r->rules->failed;
}

bool rt_read_gbnf(rt_rules *rules, const char *field, const char *text, size_t n) {
    reader r = {.rules = rules, .field = field, .text = text, .at = text, .end = text + n};
    if (!rt_utf8_valid(text, n))
        return rt_rules_fail(rules, MCC_INVALID_ARGUMENT, "%s: not UTF-8", field);
    r.slots = calloc(SLOTS, sizeof *r.slots);
    if (!r.slots)
        return rt_rules_fail(rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
    uint32_t root = find_rule(&r, "root", 4);
    for (skip_space(&r); r.at < r.end && rule(&r);)
        skip_space(&r);
    free(r.stack.at);
    free(r.slots);
    if (!rules->failed && rules->rules[root].expr == RT_EXPR_NONE)
        rt_rules_fail(rules, MCC_INVALID_ARGUMENT, "%s: there is no rule \"root\"", field);
    rules->root = root;
    return !rules->failed;
}

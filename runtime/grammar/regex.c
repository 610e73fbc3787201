/* Regular expressions in the syntax of Python's module re (its documentation, "Regular Expression
 * Syntax"), as far as they are regular. */
#include "runtime/grammar/rules.h"

#include "runtime/modelcc.h"
#include "runtime/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

typedef struct reader {
    rt_rules *rules;
    const char *field, *text, *at, *end;
    rt_expr_stack stack;
    rt_range *ranges; /* of the class at work */
    size_t n_ranges, range_capacity;
    bool anchored_begin, anchored_end; /* by ^ and $ at the ends */
} reader;

static bool wrong_code(reader *r, int code, const char *at, const char *what) {
    int position = 0;
    for (const char *p = r->text; p < at; p++)
        position += (*p & 0xc0) != 0x80;
    return rt_rules_fail(r->rules, code, "%s: at character %d: %s", r->field, position + 1, what);
}

static bool wrong(reader *r, const char *at, const char *what) {
    return wrong_code(r, MCC_INVALID_ARGUMENT, at, what);
}

static bool unsupported(reader *r, const char *at, const char *what) {
    return wrong_code(r, MCC_UNSUPPORTED, at, what);
}

static bool next_is(reader *r, char c) {
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* --- characters and classes ----------------------------------------------------------------------
 */

static void add_range(reader *r, uint32_t low, uint32_t high) {
    if (r->n_ranges == r->range_capacity) {
        size_t capacity = r->range_capacity ? 2 * r->range_capacity : 64;
        rt_range *grown = realloc(r->ranges, capacity * sizeof *grown);
        if (!grown) {
            rt_rules_fail(r->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
            return;
        }
        r->ranges = grown;
        r->range_capacity = capacity;
    }
    r->ranges[r->n_ranges++] = (rt_range){low, high};
}

/* \d, \w, \s and what they leave out; ASCII's. False when c is none of them. */
static bool add_class(reader *r, char c) {
    static const struct {
        char name;
        rt_range ranges[5];
        int n;
    } classes[] = {
        {'d', {{'0', '9'}}, 1},
        {'D', {{0, '0' - 1}, {'9' + 1, 0x10ffff}}, 2},
        {'w', {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, 4},
        {'W',
         {{0, '0' - 1},
          {'9' + 1, 'A' - 1},
          {'Z' + 1, '_' - 1},
          {'_' + 1, 'a' - 1},
          {'z' + 1, 0x10ffff}},
         5},
        {'s', {{'\t', '\r'}, {' ', ' '}}, 2},
        {'S', {{0, '\t' - 1}, {'\r' + 1, ' ' - 1}, {' ' + 1, 0x10ffff}}, 3},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (classes[i].name != c)
            continue;
        for (int k = 0; k < classes[i].n; k++)
            add_range(r, classes[i].ranges[k].low, classes[i].ranges[k].high);
        return true;
    }
    return false;
}

/* After \x, \u or \U. */
static bool hex(reader *r, char kind, uint32_t *code) {
    const char *begin = r->at, *problem = rt_read_hex(&r->at, r->end, kind, code);
    return !problem || wrong(r, begin, problem);
}

/* What follows a backslash, if it is one character. */
static bool escape(reader *r, uint32_t *code) {
    static const char names[] = "ntrfva", codes[] = "\n\t\r\f\v\a";
    const char *begin = r->at - 1;
    if (r->at == r->end)
        return wrong(r, begin, "a \\ at the end");
    char c = *r->at;
    const char *found = c ? strchr(names, c) : NULL;
    if (found) {
        r->at++;
        *code = (uint32_t)codes[found - names];
        return true;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        r->at++;
        return hex(r, c, code);
    }
    if (c >= '0' && c <= '9') {
        if (c != '0')
            return unsupported(r, begin, "back-references are not supported");
        r->at++;
        if (r->at < r->end && *r->at >= '0' && *r->at <= '7')
            return unsupported(r, begin, "octal escapes are not supported: use \\xHH");
        *code = 0;
        return true;
    }
    if (c == 'b' || c == 'B' || c == 'A' || c == 'Z')
        return unsupported(r, begin, "\\b, \\B, \\A and \\Z are not supported");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return wrong(r, begin, "unknown escape");
    size_t size;
    *code = rt_utf8_decode(r->at, &size);
    r->at += size;
    return true;
}

static bool class_escape_ahead(reader *r) {
    return r->end - r->at >= 2 && r->at[0] == '\\' && r->at[1] && strchr("dDwWsS", r->at[1]);
}

/* A character of a class; \b is a backspace there. */
static bool class_character(reader *r, uint32_t *code) {
    if (r->at == r->end)
        return wrong(r, r->end, "[ without ]");
    if (next_is(r, '\\')) {
        if (next_is(r, 'b')) {
            *code = '\b';
            return true;
        }
        return escape(r, code);
    }
    size_t size;
    *code = rt_utf8_decode(r->at, &size);
    r->at += size;
    return true;
}

/* After `[`. A ] at the beginning is a character, as is a - at either end. */
static uint32_t class(reader *r) {
    const char *begin = r->at - 1;
    bool negated = next_is(r, '^');
    r->n_ranges = 0;
    for (bool first = true; !r->rules->failed && (first || !next_is(r, ']')); first = false) {
        uint32_t low, high;
        if (r->at == r->end) {
            wrong(r, begin, "[ without ]");
            break;
        }
        bool set = class_escape_ahead(r);
        const char *at = r->at;
        if (set) {
            add_class(r, r->at[1]);
            r->at += 2;
        } else if (!class_character(r, &low)) {
            break;
        }
        if (r->end - r->at < 2 || r->at[0] != '-' || r->at[1] == ']') {
            if (!set)
                add_range(r, low, low);
            continue;
        }
        r->at++;
        if (set || class_escape_ahead(r)) {
            wrong(r, at, "a range cannot begin or end with a class such as \\d");
            break;
        }
        if (!class_character(r, &high))
            break;
        if (high < low)
            wrong(r, at, "a range that goes backwards");
        add_range(r, low, high);
    }
    if (r->rules->failed)
        return 0;
    return negated ? rt_expr_not_chars(r->rules, r->ranges, r->n_ranges)
                   : rt_expr_chars(r->rules, r->ranges, r->n_ranges);
}

static uint32_t one_character(reader *r, uint32_t code) {
    return rt_expr_chars(r->rules, &(rt_range){code, code}, 1);
}

/* --- expressions ---------------------------------------------------------------------------------
 */

static uint32_t alternatives(reader *r, int depth);

/* After `(`. */
static uint32_t group(reader *r, int depth) {
    const char *begin = r->at - 1;
    if (next_is(r, '?') && !next_is(r, ':')) {
        if (r->end - r->at >= 2 && r->at[0] == 'P' && r->at[1] == '<') {
            r->at += 2;
            const char *name = r->at;
            while (r->at < r->end && *r->at != '>')
                r->at++;
            if (r->at == name || !next_is(r, '>'))
                wrong(r, begin, "expected (?P<name>…)");
        } else {
            unsupported(r, begin, "of groups (?…) only (?:…) and (?P<name>…) are supported");
        }
    }
    if (r->rules->failed)
        return 0;
    uint32_t expr = alternatives(r, depth + 1);
    if (!r->rules->failed && !next_is(r, ')'))
        wrong(r, begin, "( without )");
    return expr;
}

/* A quantifier {m}, {m,}, {,n} or {m,n} ahead; else a { is a character, as for Python. */
static bool counts(reader *r, uint32_t *min, uint32_t *max) {
    const char *begin = r->at, *p = r->at;
    uint64_t n[2] = {0, RT_EXPR_UNBOUNDED};
    bool has[2] = {false, false}, comma = false;
    if (p == r->end || *p++ != '{')
        return false;
    for (; p < r->end && *p != '}'; p++) {
        if (*p == ',' && !comma) {
            comma = true;
        } else if (*p >= '0' && *p <= '9') {
            if (!has[comma])
                n[comma] = 0;
            has[comma] = true;
            n[comma] = n[comma] < UINT32_MAX ? 10 * n[comma] + (uint64_t)(*p - '0') : n[comma];
        } else {
            return false;
        }
    }
    if (p == r->end || (!has[0] && !comma))
        return false;
    r->at = p + 1;
    if (!comma)
        n[1] = n[0];
    if (n[0] > RT_GRAMMAR_MAX_REPEAT || (has[1] && n[1] > RT_GRAMMAR_MAX_REPEAT))
        return wrong(r, begin, "at most 65536 repetitions");
    if (n[1] < n[0])
        return wrong(r, begin, "more repetitions at least than at most");
    *min = (uint32_t)n[0];
    *max = (uint32_t)n[1];
    return true;
}

static uint32_t quantified(reader *r, uint32_t expr) {
    const char *begin = r->at;
    uint32_t min = 0, max = RT_EXPR_UNBOUNDED;
    if (next_is(r, '?'))
        max = 1;
    else if (next_is(r, '+'))
        min = 1;
    else if (!next_is(r, '*') && !counts(r, &min, &max))
        return expr;
    if (next_is(r, '+'))
        unsupported(r, begin, "possessive quantifiers are not supported");
    next_is(r, '?'); /* lazy: the same texts match */
    const char *at = r->at;
    uint32_t unused;
    if (r->at < r->end && ((*r->at && strchr("*+?", *r->at)) || counts(r, &unused, &unused)))
        wrong(r, at, "a quantifier after a quantifier");
    return rt_expr_repeat(r->rules, expr, min, max);
}

/* An anchor is allowed where it says nothing: at the ends of the expression. */
static bool anchor(reader *r) {
    if (*r->at == '^' && r->at == r->text) {
        r->anchored_begin = true;
    } else if (*r->at == '$' && r->at + 1 == r->end) {
        r->anchored_end = true;
    } else {
        return unsupported(r, r->at, "^ and $ are supported at the ends of the expression only");
    }
    r->at++;
    return true;
}

/* One character, class or group with its quantifier; false at the end of the sequence. */
static bool item(reader *r, int depth, uint32_t *expr) {
    uint32_t code;
    if (r->at == r->end || *r->at == '|' || *r->at == ')' || r->rules->failed)
        return false;
    const char *begin = r->at;
    char c = *begin;
    if (c == '^' || c == '$') {
        *expr = rt_expr_empty(r->rules);
        return anchor(r);
    }
    if (c && strchr("*+?", c))
        return wrong(r, begin, "a quantifier with nothing before it");
    uint32_t min, max;
    if (c == '{' && counts(r, &min, &max))
        return wrong(r, begin, "a quantifier with nothing before it");
    if (r->rules->failed)
        return false;
    if (class_escape_ahead(r)) {
        r->n_ranges = 0;
        add_class(r, r->at[1]);
        r->at += 2;
        if (!r->rules->failed)
            *expr = rt_expr_chars(r->rules, r->ranges, r->n_ranges);
    } else if (next_is(r, '\\')) {
        if (!escape(r, &code))
            return false;
        *expr = one_character(r, code);
    } else if (next_is(r, '[')) {
        *expr = class(r);
    } else if (next_is(r, '(')) {
        *expr = group(r, depth);
    } else if (next_is(r, '.')) {
        *expr = rt_expr_not_chars(r->rules, &(rt_range){'\n', '\n'}, 1);
    } else {
        size_t size;
        code = rt_utf8_decode(r->at, &size);
        r->at += size;
        *expr = one_character(r, code);
    }
    if (!r->rules->failed)
        *expr = quantified(r, *expr);
    return !r->rules->failed;
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
        while (item(r, depth, &expr))
            rt_expr_push(r->rules, &r->stack, expr);
        expr = rt_expr_pop_list(r->rules, &r->stack, begin, RT_EXPR_SEQ);
        rt_expr_push(r->rules, &r->stack, expr);
    } while (!r->rules->failed && next_is(r, '|'));
    return rt_expr_pop_list(r->rules, &r->stack, first, RT_EXPR_ALT);
}

/* `^a|b$` anchors one branch each in Python: with alternatives at the top there are no anchors. */
static bool has_top_alternatives(const rt_rules *rules, uint32_t expr) {
    return rules->exprs[expr].kind == RT_EXPR_ALT;
}

uint32_t rt_regex_expr(rt_rules *rules, const char *field, const char *text, size_t n,
                       bool search) {
    reader r = {.rules = rules, .field = field, .text = text, .at = text, .end = text + n};
    if (!rt_utf8_valid(text, n)) {
        rt_rules_fail(rules, MCC_INVALID_ARGUMENT, "%s: not UTF-8", field);
        return 0;
    }
    uint32_t expr = alternatives(&r, 0);
    if (!rules->failed && r.at < r.end)
        wrong(&r, r.at, ") without (");
    free(r.stack.at);
    free(r.ranges);
    if (rules->failed)
        return 0;
    if ((r.anchored_begin || r.anchored_end) && has_top_alternatives(rules, expr)) {
        unsupported(&r, text, "^ and $ beside | need a group: ^(…|…)$");
        return 0;
    }
    if (!search)
        return expr;
    uint32_t any =
        rt_expr_repeat(rules, rt_expr_not_chars(rules, &(rt_range){0, 0}, 0), 0, RT_EXPR_UNBOUNDED);
    uint32_t parts[3];
    size_t count = 0;
    if (!r.anchored_begin)
        parts[count++] = any;
    parts[count++] = expr;
    if (!r.anchored_end)
        parts[count++] = any;
    return rt_expr_list(rules, RT_EXPR_SEQ, parts, count);
}

bool rt_read_regex(rt_rules *rules, const char *field, const char *text, size_t n) {
    uint32_t expr = rt_regex_expr(rules, field, text, n, false);
    rules->root = rt_rule_add(rules, "the expression", 14);
    if (!rules->failed)
        rules->rules[rules->root].expr = expr;
    return !rules->failed;
}

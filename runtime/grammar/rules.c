#include "runtime/grammar/rules.h"

#include "runtime/modelcc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rt_rules_init(rt_rules *r, rt_error *error) {
    *r = (rt_rules){.error = error};
    /* Number 0, which is what adding returns after an error. */
    rt_expr_empty(r);
}

void rt_rules_free(rt_rules *r) {
    for (size_t i = 0; i < r->n_rules; i++)
        free(r->rules[i].name);
    free(r->exprs);
    free(r->parts);
    free(r->ranges);
    free(r->bytes);
    free(r->rules);
    *r = (rt_rules){0};
}

bool rt_rules_fail(rt_rules *r, int code, const char *format, ...) {
    if (!r->failed && r->error) {
        va_list args;
        va_start(args, format);
        r->error->code = code;
        vsnprintf(r->error->text, sizeof r->error->text, format, args);
        va_end(args);
    }
    r->failed = true;
    return false;
}

static bool no_memory(rt_rules *r) {
    return rt_rules_fail(r, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
}

/* Room for `more` behind the n elements of an array whose capacity is the power of two from n on.
 */
static bool grow(rt_rules *r, void *array, size_t n, size_t more, size_t size) {
    void **at = array;
    size_t capacity = 64, needed;
    if (r->failed)
        return false;
    if (n + more > ((size_t)RT_GRAMMAR_MAX_EXPRS << 3))
        return rt_rules_fail(r, MCC_CAPACITY, "the grammar is too large: more than %d parts",
                             RT_GRAMMAR_MAX_EXPRS);
    while (capacity < n)
        capacity *= 2;
    bool full = n == 0 || n + more > capacity;
    for (needed = capacity; needed < n + more;)
        needed *= 2;
    if (!full)
        return true;
    void *grown = realloc(*at, needed * size);
    if (!grown)
        return no_memory(r);
    *at = grown;
    return true;
}

static uint32_t add(rt_rules *r, rt_expr expr) {
    if (r->n_exprs == RT_GRAMMAR_MAX_EXPRS)
        rt_rules_fail(r, MCC_CAPACITY, "the grammar is too large: more than %d parts",
                      RT_GRAMMAR_MAX_EXPRS);
    if (!grow(r, &r->exprs, r->n_exprs, 1, sizeof *r->exprs))
        return 0;
    r->exprs[r->n_exprs] = expr;
    return (uint32_t)r->n_exprs++;
}

uint32_t rt_expr_text(rt_rules *r, const char *bytes, size_t n) {
    if (!grow(r, &r->bytes, r->n_bytes, n, 1))
        return 0;
    rt_expr expr = {RT_EXPR_TEXT, .begin = (uint32_t)r->n_bytes, .count = (uint32_t)n};
    memcpy(r->bytes + r->n_bytes, bytes, n);
    r->n_bytes += n;
    return add(r, expr);
}

uint32_t rt_expr_chars(rt_rules *r, const rt_range *ranges, size_t n) {
    if (!grow(r, &r->ranges, r->n_ranges, n, sizeof *ranges))
        return 0;
    rt_expr expr = {RT_EXPR_CHARS, .begin = (uint32_t)r->n_ranges, .count = (uint32_t)n};
    if (n > 0)
        memcpy(r->ranges + r->n_ranges, ranges, n * sizeof *ranges);
    r->n_ranges += n;
    return add(r, expr);
}

static int by_low(const void *a, const void *b) {
    const rt_range *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

uint32_t rt_expr_not_chars(rt_rules *r, rt_range *ranges, size_t n) {
    qsort(ranges, n, sizeof *ranges, by_low);
    uint32_t first = (uint32_t)r->n_ranges, from = 0;
    if (!grow(r, &r->ranges, r->n_ranges, n + 1, sizeof *ranges))
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (ranges[i].low > from)
            r->ranges[r->n_ranges++] = (rt_range){from, ranges[i].low - 1};
        if (ranges[i].high >= from)
            from = ranges[i].high + 1;
    }
    if (from <= 0x10ffff)
        r->ranges[r->n_ranges++] = (rt_range){from, 0x10ffff};
    return add(r, (rt_expr){RT_EXPR_CHARS, .begin = first, .count = (uint32_t)r->n_ranges - first});
}

uint32_t rt_expr_list(rt_rules *r, rt_expr_kind kind, const uint32_t *parts, size_t n) {
    if (!grow(r, &r->parts, r->n_parts, n, sizeof *parts))
        return 0;
    rt_expr expr = {kind, .begin = (uint32_t)r->n_parts, .count = (uint32_t)n};
    if (n > 0)
        memcpy(r->parts + r->n_parts, parts, n * sizeof *parts);
    r->n_parts += n;
    return add(r, expr);
}

uint32_t rt_expr_repeat(rt_rules *r, uint32_t part, uint32_t min, uint32_t max) {
    uint32_t list = rt_expr_list(r, RT_EXPR_REPEAT, &part, 1);
    if (r->failed)
        return 0;
    r->exprs[list].min = min;
    r->exprs[list].max = max;
    return list;
}

uint32_t rt_expr_rule(rt_rules *r, uint32_t rule) {
    return add(r, (rt_expr){RT_EXPR_RULE, .rule = rule});
}

uint32_t rt_rule_add(rt_rules *r, const char *name, size_t bytes) {
    if (r->n_rules == RT_GRAMMAR_MAX_RULES)
        rt_rules_fail(r, MCC_CAPACITY, "the grammar is too large: more than %d rules",
                      RT_GRAMMAR_MAX_RULES);
    if (!grow(r, &r->rules, r->n_rules, 1, sizeof *r->rules))
        return 0;
    char *copy = malloc(bytes + 1);
    if (!copy)
        return no_memory(r), 0;
    memcpy(copy, name, bytes);
    copy[bytes] = 0;
    r->rules[r->n_rules] = (rt_rule){copy, RT_EXPR_NONE};
    return (uint32_t)r->n_rules++;
}

void rt_expr_stack_free(rt_expr_stack *s) {
    free(s->at);
    *s = (rt_expr_stack){0};
}

void rt_expr_push(rt_rules *r, rt_expr_stack *s, uint32_t expr) {
    if (s->n == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 64;
        uint32_t *grown = capacity <= RT_GRAMMAR_MAX_EXPRS * 2 && !r->failed
                              ? realloc(s->at, capacity * sizeof *grown)
                              : NULL;
        if (!grown) {
            no_memory(r);
            return;
        }
        s->at = grown;
        s->capacity = capacity;
    }
    s->at[s->n++] = expr;
}

uint32_t rt_expr_pop_list(rt_rules *r, rt_expr_stack *s, size_t from, rt_expr_kind kind) {
    if (r->failed || s->n < from)
        return 0;
    size_t n = s->n - from;
    uint32_t list = n == 1 ? s->at[from] : rt_expr_list(r, kind, n > 0 ? s->at + from : NULL, n);
    s->n = from;
    return list;
}

/* --- readers -------------------------------------------------------------------------------------
 */

const char *rt_read_hex(const char **at, const char *end, char kind, uint32_t *code) {
    *code = 0;
    for (int left = kind == 'x' ? 2 : kind == 'u' ? 4 : 8; left > 0; left--, (*at)++) {
        char c = *at < end ? **at : 0;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A') + 10
                                                : 16;
        if (digit == 16)
            return "expected hexadecimal digits: \\xHH, \\uHHHH or \\UHHHHHHHH";
        *code = *code << 4 | digit;
    }
    return *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff) ? "there is no such character"
                                                                    : NULL;
}

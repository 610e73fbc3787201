#include "runtime/grammar/schema_values.h"

#include "runtime/tokenizer/utf8.h"

#include <string.h>

enum {
    MAX_INDENT = 16,
    LONG = 64,   /* characters from which on a string is made of calls, not of copies */
    MAX_KEY = 48 /* characters of a key that are told from those of others */
};

void rt_json_init(rt_json *j, rt_rules *rules) {
    memset(j, 0xff, sizeof *j); /* RT_EXPR_NONE */
    j->rules = rules;
    j->work = 0;
    rt_range blank[] = {{' ', ' '}, {'\t', '\t'}};
    uint32_t line[] = {rt_expr_text(rules, "\n", 1),
                       rt_expr_repeat(rules, rt_expr_chars(rules, blank, 2), 0, MAX_INDENT)};
    uint32_t spaces[] = {rt_expr_text(rules, " ", 1), rt_expr_list(rules, RT_EXPR_SEQ, line, 2)};
    j->space = rt_expr_optional(rules, rt_expr_list(rules, RT_EXPR_ALT, spaces, 2));
}

static uint32_t regex(rt_json *j, const char *text) {
    return rt_regex_expr(j->rules, "", text, strlen(text), false);
}

static uint32_t literal(rt_json *j, const char *text) {
    return rt_expr_text(j->rules, text, strlen(text));
}

static uint32_t seq(rt_json *j, uint32_t a, uint32_t b) {
    return rt_expr_list(j->rules, RT_EXPR_SEQ, (uint32_t[]){a, b}, 2);
}

static uint32_t seq3(rt_json *j, uint32_t a, uint32_t b, uint32_t c) {
    return rt_expr_list(j->rules, RT_EXPR_SEQ, (uint32_t[]){a, b, c}, 3);
}

static uint32_t any_number_of(rt_json *j, uint32_t expr) {
    return rt_expr_repeat(j->rules, expr, 0, RT_EXPR_UNBOUNDED);
}

/* A rule with this expression, as an expression. */
static uint32_t rule(rt_json *j, uint32_t *number, const char *name, uint32_t expr) {
    *number = rt_rule_add(j->rules, name, strlen(name));
    if (!j->rules->failed)
        j->rules->rules[*number].expr = expr;
    return rt_expr_rule(j->rules, *number);
}

/* --- strings -------------------------------------------------------------------------------------
 */

/* RFC 8259, section 7; surrogates in pairs only. */
static uint32_t character(rt_json *j) {
    if (j->character == RT_EXPR_NONE)
        j->character = regex(j, "[^\"\\\\\\x00-\\x1f\\x7f]|\\\\([\"\\\\/bfnrt]|u([0-9a-cefA-CEF]"
                                "[0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|[dD][89abAB][0-9a-fA-F]{2}"
                                "\\\\u[dD][c-fC-F][0-9a-fA-F]{2}))");
    return j->character;
}

static uint32_t plain(rt_json *j) {
    if (j->plain == RT_EXPR_NONE)
        j->plain = regex(j, "[^\"\\\\\\x00-\\x1f\\x7f]");
    return j->plain;
}

static uint32_t quoted(rt_json *j, uint32_t content) {
    uint32_t quote = literal(j, "\"");
    return seq3(j, quote, content, quote);
}

uint32_t rt_json_string(rt_json *j) {
    if (j->string != RT_EXPR_NONE)
        return rt_expr_rule(j->rules, j->string);
    return rule(j, &j->string, "string", quoted(j, any_number_of(j, character(j))));
}

uint32_t rt_json_string_of_length(rt_json *j, uint32_t min, uint32_t max) {
    uint32_t one = character(j);
    if (min == 0 && max == RT_EXPR_UNBOUNDED)
        return rt_json_string(j);
    if (min > LONG || (max > LONG && max != RT_EXPR_UNBOUNDED))
        one = j->character_rule != RT_EXPR_NONE ? rt_expr_rule(j->rules, j->character_rule)
                                                : rule(j, &j->character_rule, "character", one);
    return quoted(j, rt_expr_repeat(j->rules, one, min, max));
}

/* Rewrites the classes among the expressions from number `from` on: characters that a string has
 * escaped only get their escapes; control characters without a short one are left out. */
static void escape_classes(rt_json *j, size_t from) {
    static const struct {
        uint32_t code;
        const char *escape;
    } escapes[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\n', "\\n"}, {'\r', "\\r"},
                   {'\t', "\\t"}, {'\b', "\\b"},  {'\f', "\\f"}};
    rt_rules *r = j->rules;
    for (size_t i = from, n = r->n_exprs; i < n && !r->failed; i++) {
        if (r->exprs[i].kind != RT_EXPR_CHARS)
            continue;
        rt_expr old = r->exprs[i];
        rt_expr_stack parts = {0};
        for (uint32_t k = 0; k < old.count; k++) {
            /* The range without control characters, quote and backslash. */
            static const rt_range free_ranges[] = {
                {0x20, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, 0x7e}, {0x80, 0x10ffff}};
            for (int f = 0; f < 4; f++) {
                rt_range x = r->ranges[old.begin + k], y = free_ranges[f];
                rt_range both = {x.low > y.low ? x.low : y.low, x.high < y.high ? x.high : y.high};
                if (both.low <= both.high)
                    rt_expr_push(r, &parts, rt_expr_chars(r, &both, 1));
            }
            for (size_t e = 0; e < sizeof escapes / sizeof *escapes; e++) {
                rt_range x = r->ranges[old.begin + k];
                if (escapes[e].code >= x.low && escapes[e].code <= x.high)
                    rt_expr_push(r, &parts, literal(j, escapes[e].escape));
            }
        }
        uint32_t list = rt_expr_list(r, RT_EXPR_ALT, parts.at, parts.n);
        if (!r->failed)
            r->exprs[i] = r->exprs[list];
        rt_expr_stack_free(&parts);
    }
}

uint32_t rt_json_string_like(rt_json *j, const char *field, const char *pattern) {
    size_t from = j->rules->n_exprs;
    uint32_t content = rt_regex_expr(j->rules, field, pattern, strlen(pattern), true);
    escape_classes(j, from);
    return quoted(j, content);
}

/* RFC 3339, section 5.6; dates that every calendar has. */
#define DATE                                                                                       \
    "[12]\\d{3}-((0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-"  \
    "31)"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define WORD "[A-Za-z0-9]+(-[A-Za-z0-9]+)*"

uint32_t rt_json_string_of_format(rt_json *j, const char *format) {
    static const struct {
        const char *name, *regex;
    } formats[] = {
        {"date", DATE},
        {"time", TIME},
        {"date-time", DATE "T" TIME},
        {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
        {"ipv4", OCTET "(\\." OCTET "){3}"},
        {"email", "[A-Za-z0-9_%+-]+(\\.[A-Za-z0-9_%+-]+)*@" WORD "(\\." WORD ")*\\.[A-Za-z]{2,8}"},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, format) == 0)
            return quoted(j, regex(j, formats[i].regex));
    return RT_EXPR_NONE;
}

/* --- keys ----------------------------------------------------------------------------------------
 */

/* What the rest of a key may be so that it is none of the n keys, which begin alike up to byte
 * `at`. Behind MAX_KEY characters no key goes on. */
static uint32_t other_rest(rt_json *j, const char *const *keys, size_t n, size_t at, int depth) {
    rt_rules *r = j->rules;
    rt_expr_stack parts = {0};
    rt_range firsts[64] = {{'"', '"'}, {'\\', '\\'}, {0, 0x1f}, {0x7f, 0x7f}};
    size_t n_firsts = 4, n_ended = 0; /* keys that end here: one, or the same one several times */
    while (n_ended < n && !keys[n_ended][at])
        n_ended++;
    if (depth > MAX_KEY || r->failed)
        return rt_expr_chars(r, NULL, 0);
    if (n_ended == 0)
        rt_expr_push(r, &parts, rt_expr_empty(r));
    for (size_t i = n_ended, end; i < n; i = end) {
        size_t size;
        uint32_t code = rt_utf8_decode(keys[i] + at, &size);
        for (end = i + 1; end < n && strncmp(keys[end] + at, keys[i] + at, size) == 0;)
            end++;
        if (n_firsts < sizeof firsts / sizeof *firsts) {
            firsts[n_firsts++] = (rt_range){code, code};
            uint32_t rest = other_rest(j, keys + i, end - i, at + size, depth + 1);
            rt_expr_push(r, &parts, seq(j, rt_expr_text(r, keys[i] + at, size), rest));
        } else {
            firsts[n_firsts - 1].high = code; /* sorted: too many, so none between them either */
        }
    }
    rt_expr_push(r, &parts,
                 seq(j, rt_expr_not_chars(r, firsts, n_firsts), any_number_of(j, plain(j))));
    uint32_t list = rt_expr_list(r, RT_EXPR_ALT, parts.at, parts.n);
    rt_expr_stack_free(&parts);
    return list;
}

bool rt_json_is_plain(const char *text) {
    bool plain = true;
    for (const char *p = text; *p; p++)
        plain = plain && (uint8_t)*p >= 0x20 && *p != '"' && *p != '\\' && *p != 0x7f;
    return plain;
}

uint32_t rt_json_other_string(rt_json *j, const char *const *strings, size_t n) {
    return quoted(j, other_rest(j, strings, n, 0, 0));
}

/* --- numbers -------------------------------------------------------------------------------------
 */

uint32_t rt_json_integer(rt_json *j) {
    return regex(j, "-?(0|[1-9]\\d{0,14})");
}

uint32_t rt_json_number(rt_json *j) {
    if (j->number != RT_EXPR_NONE)
        return rt_expr_rule(j->rules, j->number);
    return rule(j, &j->number, "number",
                regex(j, "-?(0|[1-9]\\d{0,14})(\\.\\d{1,15})?([eE][+-]?\\d{1,2})?"));
}

/* --- any value -----------------------------------------------------------------------------------
 */

/* `open`, parts separated by commas, `close`. */
static uint32_t collection(rt_json *j, const char *open, uint32_t part, const char *close) {
    uint32_t more = any_number_of(j, seq3(j, literal(j, ","), j->space, part));
    uint32_t parts[] = {literal(j, open), j->space,
                        rt_expr_optional(j->rules, seq3(j, part, more, j->space)),
                        literal(j, close)};
    return rt_expr_list(j->rules, RT_EXPR_SEQ, parts, 4);
}

static void make_values(rt_json *j) {
    rt_rules *r = j->rules;
    if (j->value != RT_EXPR_NONE)
        return;
    j->value = rt_rule_add(r, "value", 5);
    uint32_t value = rt_expr_rule(r, j->value), string = rt_json_string(j);
    uint32_t parts[] = {string, literal(j, ":"), j->space, value};
    uint32_t member = rt_expr_list(r, RT_EXPR_SEQ, parts, 4);
    uint32_t kinds[] = {rule(j, &j->object, "object", collection(j, "{", member, "}")),
                        rule(j, &j->array, "array", collection(j, "[", value, "]")),
                        string,
                        rt_json_number(j),
                        literal(j, "true"),
                        literal(j, "false"),
                        literal(j, "null")};
    uint32_t all = rt_expr_list(r, RT_EXPR_ALT, kinds, sizeof kinds / sizeof *kinds);
    if (!r->failed)
        r->rules[j->value].expr = all;
}

uint32_t rt_json_value(rt_json *j) {
    make_values(j);
    return rt_expr_rule(j->rules, j->value);
}

uint32_t rt_json_object(rt_json *j) {
    make_values(j);
    return rt_expr_rule(j->rules, j->object);
}

uint32_t rt_json_array(rt_json *j) {
    make_values(j);
    return rt_expr_rule(j->rules, j->array);
}

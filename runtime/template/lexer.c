/* From text to tokens, by the rules of jinja2's lexer with trim_blocks and lstrip_blocks:
 *
 * - one newline at the end of the template is dropped; so is one after `%}` and `#}`
 * - white space between the start of a line and `{%` or `{#` is dropped
 * - `-` beside a delimiter drops all white space on that side, `+` keeps it
 * - inside brackets `%}` and `}}` are operators. */
#include "tpl.h"

#include <string.h>

struct lexer {
    struct rt_tpl_env *e;
    const char *p;
    size_t n, at;
    int line;
    bool line_starting; /* the last match ended with a newline (or nothing was read yet) */
    struct rt_tpl_token *tokens;
    size_t n_tokens, cap;
};

static void emit(struct lexer *l, struct rt_tpl_token t) {
    if (l->n_tokens == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        struct rt_tpl_token *fresh = rt_tpl_alloc(l->e, cap * sizeof *fresh);
        if (l->n_tokens)
            memcpy(fresh, l->tokens, l->n_tokens * sizeof *fresh);
        l->tokens = fresh;
        l->cap = cap;
    }
    l->tokens[l->n_tokens++] = t;
}

static void emit_kind(struct lexer *l, int kind) {
    emit(l, (struct rt_tpl_token){.kind = (uint8_t)kind, .line = l->line});
}

static bool looking_at(const struct lexer *l, size_t at, const char *s) {
    size_t n = strlen(s);
    return l->n - at >= n && memcmp(l->p + at, s, n) == 0;
}

static size_t skip_space(const struct lexer *l, size_t at) {
    size_t used;
    while ((used = rt_tpl_space_at(l->p + at, l->n - at)) > 0)
        at += used;
    return at;
}

/* Moves to `to`, counting lines. */
static void advance(struct lexer *l, size_t to) {
    for (size_t i = l->at; i < to; i++)
        l->line += l->p[i] == '\n';
    if (to > l->at)
        l->line_starting = l->p[to - 1] == '\n';
    l->at = to;
    l->e->line = l->line;
}

/* The end of a tag at `at`: `-%}` with white space after, `+%}`, or `%}` with one newline after
 * when trim is set. Returns where it ends, or 0 when there is none. */
static size_t tag_end(const struct lexer *l, size_t at, const char *close, bool plus, bool trim) {
    char c = at < l->n ? l->p[at] : 0;
    if (c == '-' && looking_at(l, at + 1, close))
        return skip_space(l, at + 3);
    if (c == '+' && plus && looking_at(l, at + 1, close))
        return at + 3;
    if (!looking_at(l, at, close))
        return 0;
    at += 2;
    return trim && at < l->n && l->p[at] == '\n' ? at + 1 : at;
}

/* If a `{%` at `at` is `{% raw %}` or `{% endraw %}`, returns where it ends, else 0. */
static size_t raw_tag(const struct lexer *l, size_t at, const char *word) {
    at += 2;
    if (at < l->n && (l->p[at] == '-' || l->p[at] == '+'))
        at++;
    at = skip_space(l, at);
    if (!looking_at(l, at, word))
        return 0;
    bool begin = word[0] == 'r';
    at = skip_space(l, at + strlen(word));
    return tag_end(l, at, "%}", !begin, !begin);
}

/* The text from l->at up to a tag at `tag`, stripped as the tag says. */
static void emit_text(struct lexer *l, size_t tag, bool is_variable) {
    struct rt_tpl_str s = {l->p + l->at, tag - l->at};
    char sign = tag + 2 < l->n ? l->p[tag + 2] : 0;
    if (sign == '-') {
        s = rt_tpl_strip(l->e, s, NULL, RT_TPL_RIGHT);
    } else if (sign != '+' && !is_variable) {
        size_t start = s.n;
        while (start > 0 && s.p[start - 1] != '\n')
            start--;
        bool blank = start < s.n && (start > 0 || l->line_starting);
        for (size_t i = start, used; blank && i < s.n; i += used) {
            used = rt_tpl_space_at(s.p + i, s.n - i);
            blank = used > 0;
        }
        if (blank)
            s.n = start;
    }
    if (s.n)
        emit(l, (struct rt_tpl_token){.kind = RT_TPL_T_DATA, .line = l->line, .s = s});
}

/* ---- inside tags ---- */

static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static uint32_t read_hex(struct lexer *l, size_t at, size_t end, size_t digits) {
    uint32_t v = 0;
    if (end - at < digits)
        rt_tpl_fail(l->e, "truncated escape in a string: expected %zu hexadecimal digits", digits);
    for (size_t i = 0; i < digits; i++) {
        char c = l->p[at + i];
        int d = is_digit(c)              ? c - '0'
                : (c >= 'a' && c <= 'f') ? c - 'a' + 10
                : (c >= 'A' && c <= 'F') ? c - 'A' + 10
                                         : -1;
        if (d < 0)
            rt_tpl_fail(l->e, "truncated escape in a string: expected %zu hexadecimal digits",
                        digits);
        v = v << 4 | (uint32_t)d;
    }
    return v;
}

/* Python's unicode-escape of the string's inside [at, end). */
static struct rt_tpl_str unescape(struct lexer *l, size_t at, size_t end) {
    struct rt_tpl_buf b = {0};
    while (at < end) {
        char c = l->p[at++];
        if (c != '\\' || at >= end) {
            rt_tpl_putc(l->e, &b, c);
            continue;
        }
        c = l->p[at++];
        static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
        const char *simple = c ? strchr(from, c) : NULL;
        if (c == '\n') {
            continue; /* a line joined to the next */
        } else if (simple) {
            rt_tpl_putc(l->e, &b, to[simple - from]);
        } else if (c >= '0' && c <= '7') {
            uint32_t v = (uint32_t)(c - '0');
            for (int i = 0; i < 2 && at < end && l->p[at] >= '0' && l->p[at] <= '7'; i++)
                v = v * 8 + (uint32_t)(l->p[at++] - '0');
            rt_tpl_put_code(l->e, &b, v);
        } else if (c == 'x' || c == 'u' || c == 'U') {
            size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
            uint32_t v = read_hex(l, at, end, digits);
            at += digits;
            if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
                rt_tpl_fail(l->e, "the escape \\%c%0*x in a string is no character", c, (int)digits,
                            (unsigned)v);
            rt_tpl_put_code(l->e, &b, v);
        } else if (c == 'N') {
            rt_tpl_fail(l->e, "escapes by name (\\N{...}) in strings are not supported");
        } else if ((unsigned char)c >= 0x80) {
            /* jinja2 turns the character into an escape first, whose backslash then pairs with
             * this one: '\é' is the five characters \ x e 9. */
            size_t used;
            uint32_t v = rt_tpl_utf8_next(l->p + at - 1, end - at + 1, &used);
            at += used - 1;
            rt_tpl_printf(l->e, &b,
                          v < 0x100     ? "\\x%02x"
                          : v < 0x10000 ? "\\u%04x"
                                        : "\\U%08x",
                          (unsigned)v);
        } else {
            rt_tpl_putc(l->e, &b, '\\');
            rt_tpl_putc(l->e, &b, c);
        }
    }
    return rt_tpl_buf_str(&b);
}

static void lex_string(struct lexer *l) {
    char quote = l->p[l->at];
    size_t end = l->at + 1;
    while (end < l->n && l->p[end] != quote)
        end += l->p[end] == '\\' && end + 1 < l->n ? 2 : 1;
    if (end >= l->n)
        rt_tpl_fail(l->e, "a string that begins with %c does not end", quote);
    struct rt_tpl_token t = {.kind = RT_TPL_T_STRING, .line = l->line};
    t.s = unescape(l, l->at + 1, end);
    emit(l, t);
    advance(l, end + 1);
}

/* Digits with single underscores between, from `at`; returns their end (at: none). */
static size_t digits_end(const struct lexer *l, size_t at) {
    size_t i = at;
    while (i < l->n && (is_digit(l->p[i]) || (l->p[i] == '_' && i > at && is_digit(l->p[i - 1]) &&
                                              i + 1 < l->n && is_digit(l->p[i + 1]))))
        i++;
    return i;
}

static void lex_number(struct lexer *l) {
    struct rt_tpl_token t = {.line = l->line};
    size_t end = digits_end(l, l->at);
    size_t whole = end;
    bool after_dot = l->at > 0 && l->p[l->at - 1] == '.';
    bool is_float = false;
    if (!after_dot && end + 1 < l->n && l->p[end] == '.' && is_digit(l->p[end + 1])) {
        end = digits_end(l, end + 1);
        is_float = true;
    }
    if (!after_dot && end < l->n && (l->p[end] == 'e' || l->p[end] == 'E')) {
        size_t x = end + 1;
        if (x < l->n && (l->p[x] == '+' || l->p[x] == '-'))
            x++;
        if (digits_end(l, x) > x) {
            end = digits_end(l, x);
            is_float = true;
        }
    }
    if (is_float) {
        t.kind = RT_TPL_T_FLOAT;
        rt_tpl_read_float(l->e, (struct rt_tpl_str){l->p + l->at, end - l->at}, &t.f);
        emit(l, t);
        advance(l, end);
        return;
    }
    t.kind = RT_TPL_T_INT;
    char base = l->at + 1 < l->n ? (char)(l->p[l->at + 1] | 32) : 0;
    end = whole;
    if (l->p[l->at] == '0' && (base == 'x' || base == 'o' || base == 'b')) {
        end = l->at + 2;
        while (end < l->n && is_name_char(l->p[end]))
            end++;
    }
    /* A leading zero makes a number of zeros only; "012" reads as 0 and then 12, an error. */
    if (!rt_tpl_read_int(l->e, (struct rt_tpl_str){l->p + l->at, end - l->at}, 0, &t.i))
        rt_tpl_fail(l->e, "malformed number '%.*s'", (int)(end - l->at < 40 ? end - l->at : 40),
                    l->p + l->at);
    emit(l, t);
    advance(l, end);
}

static const struct {
    const char *text;
    int kind;
} operators[] = {
    /* longer ones first */
    {"**", RT_TPL_T_POW},     {"//", RT_TPL_T_FLOORDIV}, {"==", RT_TPL_T_EQ},
    {"!=", RT_TPL_T_NE},      {">=", RT_TPL_T_GE},       {"<=", RT_TPL_T_LE},
    {"+", RT_TPL_T_ADD},      {"-", RT_TPL_T_SUB},       {"/", RT_TPL_T_DIV},
    {"*", RT_TPL_T_MUL},      {"%", RT_TPL_T_MOD},       {"~", RT_TPL_T_TILDE},
    {"[", RT_TPL_T_LBRACKET}, {"]", RT_TPL_T_RBRACKET},  {"(", RT_TPL_T_LPAREN},
    {")", RT_TPL_T_RPAREN},   {"{", RT_TPL_T_LBRACE},    {"}", RT_TPL_T_RBRACE},
    {">", RT_TPL_T_GT},       {"<", RT_TPL_T_LT},        {"=", RT_TPL_T_ASSIGN},
    {".", RT_TPL_T_DOT},      {":", RT_TPL_T_COLON},     {"|", RT_TPL_T_PIPE},
    {",", RT_TPL_T_COMMA},    {";", RT_TPL_T_SEMICOLON},
};

static void lex_operator(struct lexer *l, char *stack, int *depth) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!looking_at(l, l->at, operators[i].text))
            continue;
        int k = operators[i].kind;
        if (k == RT_TPL_T_LPAREN || k == RT_TPL_T_LBRACKET || k == RT_TPL_T_LBRACE) {
            if (*depth == RT_TPL_MAX_PARSE_DEPTH)
                rt_tpl_fail(l->e, "brackets nested more than %d deep", RT_TPL_MAX_PARSE_DEPTH);
            stack[(*depth)++] = k == RT_TPL_T_LPAREN ? ')' : k == RT_TPL_T_LBRACKET ? ']' : '}';
        } else if (k == RT_TPL_T_RPAREN || k == RT_TPL_T_RBRACKET || k == RT_TPL_T_RBRACE) {
            if (*depth == 0)
                rt_tpl_fail(l->e, "unexpected '%s'", operators[i].text);
            if (stack[--*depth] != operators[i].text[0])
                rt_tpl_fail(l->e, "unexpected '%s', expected '%c'", operators[i].text,
                            stack[*depth]);
        }
        emit(l, (struct rt_tpl_token){
                    .kind = (uint8_t)k, .line = l->line, .s = rt_tpl_cstr(operators[i].text)});
        advance(l, l->at + strlen(operators[i].text));
        return;
    }
    size_t used;
    uint32_t c = rt_tpl_utf8_next(l->p + l->at, l->n - l->at, &used);
    if (c >= 0x80)
        rt_tpl_fail(l->e, "unexpected character U+%04X; names are ASCII letters, digits and '_'",
                    (unsigned)c);
    rt_tpl_fail(l->e, "unexpected character '%c'", c >= 0x20 ? (char)c : '?');
}

/* Tokens up to the end of a tag or variable. */
static void lex_inside(struct lexer *l, bool variable) {
    char stack[RT_TPL_MAX_PARSE_DEPTH];
    int depth = 0, begin = l->line;
    for (;;) {
        if (l->at >= l->n) {
            l->e->line = begin;
            rt_tpl_fail(l->e, "'%s' is not closed", variable ? "{{" : "{%");
        }
        size_t end = 0;
        if (depth == 0)
            end = tag_end(l, l->at, variable ? "}}" : "%}", !variable, !variable);
        if (end) {
            emit_kind(l, variable ? RT_TPL_T_VAR_END : RT_TPL_T_BLOCK_END);
            advance(l, end);
            return;
        }
        char c = l->p[l->at];
        if (rt_tpl_space_at(l->p + l->at, l->n - l->at)) {
            advance(l, skip_space(l, l->at));
        } else if (is_digit(c)) {
            lex_number(l);
        } else if (is_name_char(c)) {
            size_t i = l->at;
            while (i < l->n && is_name_char(l->p[i]))
                i++;
            emit(l, (struct rt_tpl_token){
                        .kind = RT_TPL_T_NAME, .line = l->line, .s = {l->p + l->at, i - l->at}});
            advance(l, i);
        } else if (c == '\'' || c == '"') {
            lex_string(l);
        } else {
            lex_operator(l, stack, &depth);
        }
    }
}

static void lex_comment(struct lexer *l) {
    int begin = l->line;
    size_t at = l->at, end = 0;
    while (at < l->n && !(end = tag_end(l, at, "#}", true, true)))
        at++;
    if (!end) {
        l->e->line = begin;
        rt_tpl_fail(l->e, "a comment that begins with '{#' does not end");
    }
    advance(l, end);
}

static void lex_raw(struct lexer *l) {
    int begin = l->line;
    for (size_t at = l->at; at + 1 < l->n; at++) {
        if (l->p[at] != '{' || l->p[at + 1] != '%')
            continue;
        size_t end = raw_tag(l, at, "endraw");
        if (!end)
            continue;
        /* The sign may stand apart from nothing else than `{%`. */
        emit_text(l, at, false);
        advance(l, end);
        return;
    }
    l->e->line = begin;
    rt_tpl_fail(l->e, "'{%% raw %%}' has no '{%% endraw %%}'");
}

/* Turns \r\n and \r into \n and drops one newline at the end. */
static struct rt_tpl_str normalize(struct rt_tpl_env *e, struct rt_tpl_str s) {
    char *p = rt_tpl_alloc(e, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\r' && i + 1 < s.n && s.p[i + 1] == '\n')
            continue;
        p[n++] = s.p[i] == '\r' ? '\n' : s.p[i];
    }
    if (n && p[n - 1] == '\n')
        n--;
    return (struct rt_tpl_str){p, n};
}

struct rt_tpl_token *rt_tpl_lex(struct rt_tpl_env *e, struct rt_tpl_str source) {
    if (!rt_tpl_utf8_valid(source.p, source.n))
        rt_tpl_fail(e, "the template is not valid UTF-8");
    struct rt_tpl_str s = normalize(e, source);
    struct lexer l = {.e = e, .p = s.p, .n = s.n, .line = 1, .line_starting = true};
    while (l.at < l.n) {
        size_t tag = l.at;
        while (tag + 1 < l.n && !(l.p[tag] == '{' && (l.p[tag + 1] == '%' || l.p[tag + 1] == '{' ||
                                                      l.p[tag + 1] == '#')))
            tag++;
        if (tag + 1 >= l.n) {
            emit(&l, (struct rt_tpl_token){
                         .kind = RT_TPL_T_DATA, .line = l.line, .s = {l.p + l.at, l.n - l.at}});
            break;
        }
        char kind = l.p[tag + 1];
        emit_text(&l, tag, kind == '{');
        advance(&l, tag);
        size_t raw = kind == '%' ? raw_tag(&l, tag, "raw") : 0;
        if (raw) {
            advance(&l, raw);
            lex_raw(&l);
            continue;
        }
        size_t inside = tag + 2;
        if (inside < l.n && (l.p[inside] == '-' || l.p[inside] == '+'))
            inside++;
        advance(&l, inside);
        if (kind == '#') {
            lex_comment(&l);
            continue;
        }
        emit_kind(&l, kind == '{' ? RT_TPL_T_VAR_BEGIN : RT_TPL_T_BLOCK_BEGIN);
        lex_inside(&l, kind == '{');
    }
    emit_kind(&l, RT_TPL_T_EOF);
    return l.tokens;
}

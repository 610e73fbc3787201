/* Statements. */
#include "tpl.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct rt_tpl_node *rt_tpl_node_new(struct rt_tpl_parser *p, enum rt_tpl_node_kind kind) {
    struct rt_tpl_node *n = rt_tpl_calloc(p->e, 1, sizeof *n);
    n->kind = (uint8_t)kind;
    n->line = p->t->line;
    return n;
}

void rt_tpl_add_kid(struct rt_tpl_parser *p, struct rt_tpl_node *n, struct rt_tpl_node *kid) {
    /* Capacity is the power of two at or above n_kids. */
    if ((n->n_kids & (n->n_kids - 1)) == 0) {
        size_t cap = n->n_kids ? n->n_kids * 2 : 1;
        struct rt_tpl_node **fresh = rt_tpl_alloc(p->e, cap * sizeof *fresh);
        if (n->n_kids)
            memcpy(fresh, n->kids, n->n_kids * sizeof *fresh);
        n->kids = fresh;
    }
    n->kids[n->n_kids++] = kid;
}

void rt_tpl_set_kids(struct rt_tpl_parser *p, struct rt_tpl_node *n, size_t count, ...) {
    va_list ap;
    va_start(ap, count);
    for (size_t i = 0; i < count; i++)
        rt_tpl_add_kid(p, n, va_arg(ap, struct rt_tpl_node *));
    va_end(ap);
}

struct rt_tpl_str rt_tpl_intern(struct rt_tpl_parser *p, struct rt_tpl_str s) {
    struct rt_tpl_value *known = rt_tpl_dict_get_str(p->e, p->names, s);
    if (known)
        return known->u.s;
    rt_tpl_dict_set(p->e, p->names, rt_tpl_string(s), rt_tpl_string(s));
    return s;
}

bool rt_tpl_at_name(const struct rt_tpl_parser *p, const char *name) {
    return p->t->kind == RT_TPL_T_NAME && rt_tpl_str_is(p->t->s, name);
}

bool rt_tpl_skip_name(struct rt_tpl_parser *p, const char *name) {
    if (!rt_tpl_at_name(p, name))
        return false;
    p->t++;
    return true;
}

bool rt_tpl_skip(struct rt_tpl_parser *p, int kind) {
    if (p->t->kind != kind)
        return false;
    p->t++;
    return true;
}

static const char *kind_name(int kind) {
    static const char *const names[] = {
        [RT_TPL_T_EOF] = "the end of the template",
        [RT_TPL_T_DATA] = "text",
        [RT_TPL_T_VAR_BEGIN] = "'{{'",
        [RT_TPL_T_VAR_END] = "'}}'",
        [RT_TPL_T_BLOCK_BEGIN] = "'{%'",
        [RT_TPL_T_BLOCK_END] = "'%}'",
        [RT_TPL_T_NAME] = "a name",
        [RT_TPL_T_STRING] = "a string",
        [RT_TPL_T_INT] = "a number",
        [RT_TPL_T_FLOAT] = "a number",
        [RT_TPL_T_LBRACKET] = "'['",
        [RT_TPL_T_RBRACKET] = "']'",
        [RT_TPL_T_LPAREN] = "'('",
        [RT_TPL_T_RPAREN] = "')'",
        [RT_TPL_T_LBRACE] = "'{'",
        [RT_TPL_T_RBRACE] = "'}'",
        [RT_TPL_T_ASSIGN] = "'='",
        [RT_TPL_T_COLON] = "':'",
        [RT_TPL_T_COMMA] = "','",
    };
    const char *name =
        (size_t)kind < sizeof names / sizeof *names && names[kind] ? names[kind] : "an operator";
    return name;
}

_Noreturn void rt_tpl_unexpected(struct rt_tpl_parser *p, const char *expected) {
    p->e->line = p->t->line;
    if (p->t->kind >= RT_TPL_T_NAME && p->t->kind != RT_TPL_T_STRING && p->t->s.n)
        rt_tpl_fail(p->e, "found '%.*s', expected %s", (int)(p->t->s.n < 60 ? p->t->s.n : 60),
                    p->t->s.p, expected);
    rt_tpl_fail(p->e, "found %s, expected %s", kind_name(p->t->kind), expected);
}

void rt_tpl_expect(struct rt_tpl_parser *p, int kind) {
    if (!rt_tpl_skip(p, kind))
        rt_tpl_unexpected(p, kind_name(kind));
}

struct rt_tpl_str rt_tpl_expect_name(struct rt_tpl_parser *p, const char *what) {
    if (p->t->kind != RT_TPL_T_NAME)
        rt_tpl_unexpected(p, what);
    return rt_tpl_intern(p, p->t++->s);
}

static void expect_word(struct rt_tpl_parser *p, const char *word) {
    if (!rt_tpl_skip_name(p, word)) {
        char text[32] = "'";
        strcat(strncat(text, word, 24), "'");
        rt_tpl_unexpected(p, text);
    }
}

static bool is_constant_name(struct rt_tpl_str s) {
    static const char *const names[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (rt_tpl_str_is(s, names[i]))
            return true;
    return false;
}

/* A name that the template gives a value. */
static struct rt_tpl_str assigned_name(struct rt_tpl_parser *p) {
    if (p->t->kind == RT_TPL_T_NAME && is_constant_name(p->t->s))
        rt_tpl_fail(p->e, "'%.*s' cannot be assigned to", (int)p->t->s.n, p->t->s.p);
    struct rt_tpl_str s = rt_tpl_expect_name(p, "a name to assign to");
    rt_tpl_dict_set(p->e, p->assigned, rt_tpl_string(s), rt_tpl_none());
    return s;
}

static struct rt_tpl_node *parse_one_target(struct rt_tpl_parser *p, bool allow_ns) {
    p->e->line = p->t->line;
    if (p->t->kind == RT_TPL_T_LPAREN) {
        rt_tpl_enter(p->e);
        p->t++;
        struct rt_tpl_node *n = rt_tpl_parse_target(p, false, NULL);
        rt_tpl_expect(p, RT_TPL_T_RPAREN);
        rt_tpl_leave(p->e);
        return n;
    }
    struct rt_tpl_node *n = rt_tpl_node_new(p, RT_TPL_N_NAME);
    if (allow_ns && p->t->kind == RT_TPL_T_NAME && p->t[1].kind == RT_TPL_T_DOT) {
        n->kind = RT_TPL_N_NS_TARGET;
        struct rt_tpl_node *ns = rt_tpl_node_new(p, RT_TPL_N_NAME);
        ns->name = rt_tpl_intern(p, p->t->s);
        rt_tpl_add_kid(p, n, ns);
        p->t += 2;
        n->name = rt_tpl_expect_name(p, "the name of an attribute");
        return n;
    }
    n->name = assigned_name(p);
    return n;
}

struct rt_tpl_node *rt_tpl_parse_target(struct rt_tpl_parser *p, bool allow_ns,
                                        const char *end_name) {
    struct rt_tpl_node *first = parse_one_target(p, allow_ns);
    if (p->t->kind != RT_TPL_T_COMMA)
        return first;
    struct rt_tpl_node *n = rt_tpl_node_new(p, RT_TPL_N_TUPLE);
    rt_tpl_add_kid(p, n, first);
    while (rt_tpl_skip(p, RT_TPL_T_COMMA)) {
        if (p->t->kind == RT_TPL_T_RPAREN || p->t->kind == RT_TPL_T_BLOCK_END ||
            (end_name && rt_tpl_at_name(p, end_name)))
            break;
        rt_tpl_add_kid(p, n, parse_one_target(p, allow_ns));
    }
    return n;
}

static struct rt_tpl_node *parse_body(struct rt_tpl_parser *p, const char *const *ends,
                                      const char *opener, int opener_line);

/* The body of a statement, after its `%}` and up to one of `ends` (which is not skipped). */
static struct rt_tpl_node *statements(struct rt_tpl_parser *p, const char *const *ends,
                                      const char *opener, int line) {
    rt_tpl_skip(p, RT_TPL_T_COLON); /* `{% if x: %}` is allowed */
    rt_tpl_expect(p, RT_TPL_T_BLOCK_END);
    rt_tpl_enter(p->e);
    struct rt_tpl_node *body = parse_body(p, ends, opener, line);
    rt_tpl_leave(p->e);
    return body;
}

static struct rt_tpl_node *body_until(struct rt_tpl_parser *p, const char *end, const char *opener,
                                      int line) {
    const char *const ends[] = {end, NULL};
    struct rt_tpl_node *body = statements(p, ends, opener, line);
    p->t++;
    return body;
}

static struct rt_tpl_node *parse_if(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    for (;;) {
        rt_tpl_add_kid(p, n, rt_tpl_parse_tuple(p, false, false));
        rt_tpl_add_kid(p, n, statements(p, ends, "if", n->line));
        if (rt_tpl_skip_name(p, "elif"))
            continue;
        if (rt_tpl_skip_name(p, "else"))
            rt_tpl_add_kid(p, n, body_until(p, "endif", "else", n->line));
        else
            expect_word(p, "endif");
        return n;
    }
}

static struct rt_tpl_node *parse_for(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    static const char *const ends[] = {"endfor", "else", NULL};
    n->name = rt_tpl_intern(p, RT_TPL_S("loop"));
    struct rt_tpl_node *target = rt_tpl_parse_target(p, false, "in");
    expect_word(p, "in");
    struct rt_tpl_node *items = rt_tpl_parse_tuple(p, false, false);
    struct rt_tpl_node *filter = rt_tpl_skip_name(p, "if") ? rt_tpl_parse_expr(p, true) : NULL;
    if (rt_tpl_at_name(p, "recursive"))
        rt_tpl_fail(p->e, "recursive loops are not supported");
    p->loops++;
    struct rt_tpl_node *body = statements(p, ends, "for", n->line), *other = NULL;
    p->loops--;
    if (rt_tpl_skip_name(p, "else"))
        other = body_until(p, "endfor", "else", n->line);
    else
        expect_word(p, "endfor");
    rt_tpl_set_kids(p, n, 5, target, items, filter, body, other);
    return n;
}

static struct rt_tpl_node *parse_set(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    struct rt_tpl_node *target = rt_tpl_parse_target(p, true, NULL);
    if (rt_tpl_skip(p, RT_TPL_T_ASSIGN)) {
        rt_tpl_set_kids(p, n, 2, target, rt_tpl_parse_tuple(p, true, false));
        return n;
    }
    if (target->kind == RT_TPL_N_TUPLE)
        rt_tpl_unexpected(p, "'='");
    n->kind = RT_TPL_N_SET_BLOCK;
    struct rt_tpl_node *filters = NULL;
    if (p->t->kind == RT_TPL_T_PIPE)
        filters = rt_tpl_parse_filters(p, rt_tpl_node_new(p, RT_TPL_N_BLOCK_TEXT), false);
    else if (p->t->kind != RT_TPL_T_BLOCK_END && p->t->kind != RT_TPL_T_COLON)
        rt_tpl_unexpected(p, "'=' or '%}'");
    int loops = p->loops;
    p->loops = 0;
    struct rt_tpl_node *body = body_until(p, "endset", "set", n->line);
    p->loops = loops;
    rt_tpl_set_kids(p, n, 3, target, body, filters);
    return n;
}

static struct rt_tpl_node *parse_macro(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    n->name = assigned_name(p);
    struct rt_tpl_node **defaults = NULL;
    size_t cap = 0;
    bool had_default = false;
    rt_tpl_expect(p, RT_TPL_T_LPAREN);
    while (p->t->kind != RT_TPL_T_RPAREN) {
        if (n->n_kw)
            rt_tpl_expect(p, RT_TPL_T_COMMA);
        if (n->n_kw == cap) {
            size_t grown = cap ? cap * 2 : 4;
            struct rt_tpl_str *names = rt_tpl_alloc(p->e, grown * sizeof *names);
            struct rt_tpl_node **values = rt_tpl_calloc(p->e, grown, sizeof *values);
            for (size_t i = 0; i < cap; i++) {
                names[i] = n->kw[i];
                values[i] = defaults[i];
            }
            n->kw = names;
            defaults = values;
            cap = grown;
        }
        n->kw[n->n_kw] = assigned_name(p);
        if (rt_tpl_skip(p, RT_TPL_T_ASSIGN)) {
            defaults[n->n_kw] = rt_tpl_parse_expr(p, true);
            had_default = true;
        } else if (had_default) {
            rt_tpl_fail(p->e, "a parameter without default follows one with a default");
        }
        n->n_kw++;
    }
    rt_tpl_expect(p, RT_TPL_T_RPAREN);
    const struct rt_tpl_node *outer = p->macro;
    int loops = p->loops;
    p->macro = n;
    p->loops = 0;
    rt_tpl_add_kid(p, n, body_until(p, "endmacro", "macro", n->line));
    p->macro = outer;
    p->loops = loops;
    for (size_t i = 0; i < n->n_kw; i++)
        rt_tpl_add_kid(p, n, defaults[i]);
    return n;
}

static struct rt_tpl_node *parse_with(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    rt_tpl_add_kid(p, n, NULL);
    while (p->t->kind != RT_TPL_T_BLOCK_END) {
        if (n->n_kids > 1)
            rt_tpl_expect(p, RT_TPL_T_COMMA);
        rt_tpl_add_kid(p, n, parse_one_target(p, false));
        rt_tpl_expect(p, RT_TPL_T_ASSIGN);
        rt_tpl_add_kid(p, n, rt_tpl_parse_expr(p, true));
    }
    n->kids[0] = body_until(p, "endwith", "with", n->line);
    return n;
}

static struct rt_tpl_node *parse_filter_block(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    struct rt_tpl_node *filters =
        rt_tpl_parse_filters(p, rt_tpl_node_new(p, RT_TPL_N_BLOCK_TEXT), true);
    rt_tpl_set_kids(p, n, 2, body_until(p, "endfilter", "filter", n->line), filters);
    return n;
}

static struct rt_tpl_node *parse_generation(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    int loops = p->loops;
    p->loops = 0; /* transformers renders the block as a function of its own */
    rt_tpl_add_kid(p, n, body_until(p, "endgeneration", "generation", n->line));
    p->loops = loops;
    return n;
}

static struct rt_tpl_node *parse_jump(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    if (!p->loops)
        rt_tpl_fail(p->e, "'%s' outside a loop", n->kind == RT_TPL_N_BREAK ? "break" : "continue");
    return n;
}

static const struct {
    const char *name;
    enum rt_tpl_node_kind kind;
    struct rt_tpl_node *(*parse)(struct rt_tpl_parser *, struct rt_tpl_node *);
} tags[] = {
    {"for", RT_TPL_N_FOR, parse_for},
    {"if", RT_TPL_N_IF, parse_if},
    {"set", RT_TPL_N_SET, parse_set},
    {"macro", RT_TPL_N_MACRO, parse_macro},
    {"with", RT_TPL_N_WITH, parse_with},
    {"filter", RT_TPL_N_FILTER_BLOCK, parse_filter_block},
    {"generation", RT_TPL_N_SCOPE, parse_generation},
    {"break", RT_TPL_N_BREAK, parse_jump},
    {"continue", RT_TPL_N_CONTINUE, parse_jump},
};

static bool is_end_tag(struct rt_tpl_str s) {
    return (s.n > 3 && memcmp(s.p, "end", 3) == 0) || rt_tpl_str_is(s, "else") ||
           rt_tpl_str_is(s, "elif");
}

static struct rt_tpl_node *parse_statement(struct rt_tpl_parser *p, const char *opener,
                                           int opener_line) {
    if (p->t->kind != RT_TPL_T_NAME)
        rt_tpl_unexpected(p, "the name of a tag");
    p->e->line = p->t->line;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (!rt_tpl_at_name(p, tags[i].name))
            continue;
        struct rt_tpl_node *n = rt_tpl_node_new(p, tags[i].kind);
        p->t++;
        return tags[i].parse(p, n);
    }
    struct rt_tpl_str s = p->t->s;
    int len = (int)(s.n < 60 ? s.n : 60);
    if (is_end_tag(s) && opener)
        rt_tpl_fail(p->e, "found tag '%.*s', but '%s' of line %d is open", len, s.p, opener,
                    opener_line);
    if (is_end_tag(s))
        rt_tpl_fail(p->e, "found tag '%.*s', but no block is open", len, s.p);
    rt_tpl_fail(p->e,
                "unsupported tag '%.*s'; supported: for, if, set, macro, with, filter, generation, "
                "break, continue, raw",
                len, s.p);
}

/* Text and statements up to one of `ends`, whose name becomes the present token, or to the end
 * of the template when ends is NULL. */
static struct rt_tpl_node *parse_body(struct rt_tpl_parser *p, const char *const *ends,
                                      const char *opener, int opener_line) {
    struct rt_tpl_node *body = rt_tpl_node_new(p, RT_TPL_N_BODY);
    for (;;) {
        struct rt_tpl_node *n;
        p->e->line = p->t->line;
        switch (p->t->kind) {
        case RT_TPL_T_DATA:
            n = rt_tpl_node_new(p, RT_TPL_N_TEXT);
            n->value = rt_tpl_string(p->t->s);
            p->t++;
            rt_tpl_add_kid(p, body, n);
            break;
        case RT_TPL_T_VAR_BEGIN:
            p->t++;
            n = rt_tpl_node_new(p, RT_TPL_N_OUTPUT);
            rt_tpl_add_kid(p, n, rt_tpl_parse_tuple(p, true, false));
            rt_tpl_expect(p, RT_TPL_T_VAR_END);
            rt_tpl_add_kid(p, body, n);
            break;
        case RT_TPL_T_BLOCK_BEGIN:
            p->t++;
            for (const char *const *end = ends; end && *end; end++)
                if (rt_tpl_at_name(p, *end))
                    return body;
            rt_tpl_add_kid(p, body, parse_statement(p, opener, opener_line));
            rt_tpl_expect(p, RT_TPL_T_BLOCK_END);
            break;
        default: /* the end */
            if (ends)
                rt_tpl_fail(p->e, "the template ends, but '%s' of line %d is open", opener,
                            opener_line);
            return body;
        }
    }
}

struct rt_tpl_node *rt_tpl_parse(struct rt_tpl_env *e, struct rt_tpl_str source) {
    struct rt_tpl_parser p = {
        .e = e,
        .names = rt_tpl_dict_new(e),
        .assigned = rt_tpl_dict_new(e),
        .called = rt_tpl_dict_new(e),
    };
    p.t = rt_tpl_lex(e, source);
    struct rt_tpl_node *body = parse_body(&p, NULL, NULL, 0);
    for (size_t i = 0; i < p.called->n; i++) {
        struct rt_tpl_str name = p.called->keys[i].u.s;
        if (rt_tpl_dict_get_str(e, p.assigned, name))
            continue;
        e->line = (int)p.called->vals[i].u.i;
        rt_tpl_fail(e,
                    "unknown function '%.*s'; supported: range, dict, namespace, raise_exception, "
                    "strftime_now",
                    (int)(name.n < 60 ? name.n : 60), name.p);
    }
    return body;
}

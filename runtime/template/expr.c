/* Expressions, in jinja2's grammar: conditional, or, and, not, comparison, + -, ~, * / // %, **,
 * unary, then attributes, subscripts and calls, then filters and tests. */
#include "tpl.h"

#include <string.h>

static struct rt_tpl_node *parse_unary(struct rt_tpl_parser *p, bool with_filter);

static struct rt_tpl_node *node_with(struct rt_tpl_parser *p, enum rt_tpl_node_kind kind, int line,
                                     struct rt_tpl_node *a, struct rt_tpl_node *b) {
    struct rt_tpl_node *n = rt_tpl_node_new(p, kind);
    n->line = line;
    rt_tpl_add_kid(p, n, a);
    if (b)
        rt_tpl_add_kid(p, n, b);
    return n;
}

static struct rt_tpl_node *constant(struct rt_tpl_parser *p, struct rt_tpl_value v) {
    struct rt_tpl_node *n = rt_tpl_node_new(p, RT_TPL_N_CONST);
    n->value = v;
    return n;
}

static struct rt_tpl_node *parse_list(struct rt_tpl_parser *p) {
    struct rt_tpl_node *n = rt_tpl_node_new(p, RT_TPL_N_LIST);
    rt_tpl_expect(p, RT_TPL_T_LBRACKET);
    while (p->t->kind != RT_TPL_T_RBRACKET) {
        if (n->n_kids)
            rt_tpl_expect(p, RT_TPL_T_COMMA);
        if (p->t->kind == RT_TPL_T_RBRACKET)
            break;
        rt_tpl_add_kid(p, n, rt_tpl_parse_expr(p, true));
    }
    rt_tpl_expect(p, RT_TPL_T_RBRACKET);
    return n;
}

static struct rt_tpl_node *parse_dict(struct rt_tpl_parser *p) {
    struct rt_tpl_node *n = rt_tpl_node_new(p, RT_TPL_N_DICT);
    rt_tpl_expect(p, RT_TPL_T_LBRACE);
    while (p->t->kind != RT_TPL_T_RBRACE) {
        if (n->n_kids)
            rt_tpl_expect(p, RT_TPL_T_COMMA);
        if (p->t->kind == RT_TPL_T_RBRACE)
            break;
        rt_tpl_add_kid(p, n, rt_tpl_parse_expr(p, true));
        rt_tpl_expect(p, RT_TPL_T_COLON);
        rt_tpl_add_kid(p, n, rt_tpl_parse_expr(p, true));
    }
    rt_tpl_expect(p, RT_TPL_T_RBRACE);
    return n;
}

/* A macro that mentions these accepts arguments it does not declare; that is not supported. */
static void check_macro_name(struct rt_tpl_parser *p, struct rt_tpl_str name) {
    if (!p->macro || !(rt_tpl_str_is(name, "varargs") || rt_tpl_str_is(name, "kwargs") ||
                       rt_tpl_str_is(name, "caller")))
        return;
    for (size_t i = 0; i < p->macro->n_kw; i++)
        if (p->macro->kw[i].p == name.p)
            return;
    rt_tpl_fail(p->e, "'%.*s' in a macro is not supported", (int)name.n, name.p);
}

static struct rt_tpl_node *parse_primary(struct rt_tpl_parser *p) {
    const struct rt_tpl_token *t = p->t;
    struct rt_tpl_node *n;
    switch (t->kind) {
    case RT_TPL_T_NAME:
        p->t++;
        if (rt_tpl_str_is(t->s, "true") || rt_tpl_str_is(t->s, "True"))
            return constant(p, rt_tpl_bool(true));
        if (rt_tpl_str_is(t->s, "false") || rt_tpl_str_is(t->s, "False"))
            return constant(p, rt_tpl_bool(false));
        if (rt_tpl_str_is(t->s, "none") || rt_tpl_str_is(t->s, "None"))
            return constant(p, rt_tpl_none());
        n = rt_tpl_node_new(p, RT_TPL_N_NAME);
        n->line = t->line;
        n->name = rt_tpl_intern(p, t->s);
        check_macro_name(p, n->name);
        return n;
    case RT_TPL_T_STRING: {
        struct rt_tpl_str s = t->s;
        p->t++;
        if (p->t->kind == RT_TPL_T_STRING) { /* neighbours are joined */
            struct rt_tpl_buf b = {0};
            rt_tpl_put(p->e, &b, s.p, s.n);
            for (; p->t->kind == RT_TPL_T_STRING; p->t++)
                rt_tpl_put(p->e, &b, p->t->s.p, p->t->s.n);
            s = rt_tpl_buf_str(&b);
        }
        return constant(p, rt_tpl_string(s));
    }
    case RT_TPL_T_INT:
        p->t++;
        return constant(p, rt_tpl_int(t->i));
    case RT_TPL_T_FLOAT:
        p->t++;
        return constant(p, rt_tpl_float(t->f));
    case RT_TPL_T_LPAREN:
        p->t++;
        n = rt_tpl_parse_tuple(p, true, true);
        rt_tpl_expect(p, RT_TPL_T_RPAREN);
        return n;
    case RT_TPL_T_LBRACKET:
        return parse_list(p);
    case RT_TPL_T_LBRACE:
        return parse_dict(p);
    default:
        rt_tpl_unexpected(p, "an expression");
    }
}

static struct rt_tpl_node *parse_subscript(struct rt_tpl_parser *p, struct rt_tpl_node *on) {
    int line = p->t->line;
    if (rt_tpl_skip(p, RT_TPL_T_DOT)) {
        if (p->t->kind == RT_TPL_T_INT) {
            struct rt_tpl_node *key = constant(p, rt_tpl_int(p->t->i));
            p->t++;
            return node_with(p, RT_TPL_N_ITEM, line, on, key);
        }
        struct rt_tpl_node *n = node_with(p, RT_TPL_N_ATTR, line, on, NULL);
        n->name = rt_tpl_expect_name(p, "an attribute name or number");
        return n;
    }
    rt_tpl_expect(p, RT_TPL_T_LBRACKET);
    struct rt_tpl_node *part[3] = {0};
    bool slice = false;
    if (p->t->kind != RT_TPL_T_COLON)
        part[0] = rt_tpl_parse_expr(p, true);
    for (int i = 1; i < 3 && rt_tpl_skip(p, RT_TPL_T_COLON); i++) {
        slice = true;
        if (p->t->kind != RT_TPL_T_COLON && p->t->kind != RT_TPL_T_RBRACKET)
            part[i] = rt_tpl_parse_expr(p, true);
    }
    if (p->t->kind == RT_TPL_T_COMMA)
        rt_tpl_fail(p->e, "subscripts with several parts are not supported");
    rt_tpl_expect(p, RT_TPL_T_RBRACKET);
    if (!slice)
        return node_with(p, RT_TPL_N_ITEM, line, on, part[0]);
    struct rt_tpl_node *n = rt_tpl_node_new(p, RT_TPL_N_SLICE);
    n->line = line;
    rt_tpl_set_kids(p, n, 4, on, part[0], part[1], part[2]);
    return n;
}

/* Arguments in parentheses, after kids[0]. */
static void parse_args(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    struct rt_tpl_str *names = NULL;
    size_t cap = 0;
    bool comma = false;
    rt_tpl_expect(p, RT_TPL_T_LPAREN);
    while (p->t->kind != RT_TPL_T_RPAREN) {
        if (comma) {
            rt_tpl_expect(p, RT_TPL_T_COMMA);
            if (p->t->kind == RT_TPL_T_RPAREN)
                break;
        }
        comma = true;
        if (p->t->kind == RT_TPL_T_MUL || p->t->kind == RT_TPL_T_POW)
            rt_tpl_fail(p->e, "'*' and '**' arguments are not supported");
        if (p->t->kind == RT_TPL_T_NAME && p->t[1].kind == RT_TPL_T_ASSIGN) {
            if (n->n_kw == cap) {
                size_t grown = cap ? cap * 2 : 4;
                struct rt_tpl_str *fresh = rt_tpl_alloc(p->e, grown * sizeof *fresh);
                if (cap)
                    memcpy(fresh, names, cap * sizeof *fresh);
                names = fresh;
                cap = grown;
            }
            struct rt_tpl_str name = rt_tpl_intern(p, p->t->s);
            for (size_t i = 0; i < n->n_kw; i++)
                if (names[i].p == name.p)
                    rt_tpl_fail(p->e, "argument '%.*s' is given twice", (int)name.n, name.p);
            names[n->n_kw++] = name;
            p->t += 2;
        } else if (n->n_kw) {
            rt_tpl_fail(p->e, "a positional argument follows a keyword argument");
        } else {
            n->n_args++;
        }
        rt_tpl_add_kid(p, n, rt_tpl_parse_expr(p, true));
        rt_tpl_charge(p->e, n->n_kw);
    }
    rt_tpl_expect(p, RT_TPL_T_RPAREN);
    n->kw = names;
}

static struct rt_tpl_node *parse_call(struct rt_tpl_parser *p, struct rt_tpl_node *on) {
    struct rt_tpl_node *n = node_with(p, RT_TPL_N_CALL, p->t->line, on, NULL);
    if (on->kind == RT_TPL_N_NAME && !rt_tpl_find_global(on->name) &&
        !rt_tpl_dict_get_str(p->e, p->called, on->name))
        rt_tpl_dict_set(p->e, p->called, rt_tpl_string(on->name), rt_tpl_int(on->line));
    parse_args(p, n);
    return n;
}

static struct rt_tpl_node *parse_postfix(struct rt_tpl_parser *p, struct rt_tpl_node *n) {
    for (;;) {
        if (p->t->kind == RT_TPL_T_DOT || p->t->kind == RT_TPL_T_LBRACKET)
            n = parse_subscript(p, n);
        else if (p->t->kind == RT_TPL_T_LPAREN)
            n = parse_call(p, n);
        else
            return n;
    }
}

static _Noreturn void unknown(struct rt_tpl_parser *p, const char *what, struct rt_tpl_str name,
                              void (*names)(struct rt_tpl_env *, struct rt_tpl_buf *)) {
    struct rt_tpl_buf b = {0};
    names(p->e, &b);
    rt_tpl_fail(p->e, "unknown %s '%.*s'; supported: %.*s", what, (int)(name.n < 60 ? name.n : 60),
                name.p, (int)b.n, b.p);
}

/* `map`, `select` and the like get the name of a filter or test as an argument. */
static void check_named_argument(struct rt_tpl_parser *p, const struct rt_tpl_node *n) {
    bool map = rt_tpl_str_is(n->name, "map");
    bool attr = rt_tpl_str_is(n->name, "selectattr") || rt_tpl_str_is(n->name, "rejectattr");
    bool plain = rt_tpl_str_is(n->name, "select") || rt_tpl_str_is(n->name, "reject");
    size_t at = attr ? 2 : 1; /* kids[0] is the object */
    if (!(map || attr || plain) || n->n_args < at)
        return;
    const struct rt_tpl_node *arg = n->kids[at];
    if (arg->kind != RT_TPL_N_CONST || arg->value.kind != RT_TPL_STR)
        return;
    p->e->line = arg->line;
    if (map && !rt_tpl_find_filter(arg->value.u.s))
        unknown(p, "filter", arg->value.u.s, rt_tpl_filter_names);
    if (!map && !rt_tpl_find_test(arg->value.u.s))
        unknown(p, "test", arg->value.u.s, rt_tpl_test_names);
}

static struct rt_tpl_node *parse_filter(struct rt_tpl_parser *p, struct rt_tpl_node *on) {
    struct rt_tpl_node *n = node_with(p, RT_TPL_N_FILTER, p->t->line, on, NULL);
    n->name = rt_tpl_expect_name(p, "the name of a filter");
    p->e->line = n->line;
    n->filter = rt_tpl_find_filter(n->name);
    if (!n->filter)
        unknown(p, "filter", n->name, rt_tpl_filter_names);
    if (p->t->kind == RT_TPL_T_LPAREN)
        parse_args(p, n);
    check_named_argument(p, n);
    return n;
}

struct rt_tpl_node *rt_tpl_parse_filters(struct rt_tpl_parser *p, struct rt_tpl_node *on,
                                         bool inline_first) {
    while (inline_first || rt_tpl_skip(p, RT_TPL_T_PIPE)) {
        on = parse_filter(p, on);
        inline_first = false;
    }
    return on;
}

static struct rt_tpl_node *parse_test(struct rt_tpl_parser *p, struct rt_tpl_node *on) {
    int line = p->t->line;
    p->t++; /* is */
    bool negated = rt_tpl_skip_name(p, "not");
    struct rt_tpl_node *n = node_with(p, RT_TPL_N_TEST, line, on, NULL);
    n->name = rt_tpl_expect_name(p, "the name of a test");
    p->e->line = line;
    n->test = rt_tpl_find_test(n->name);
    if (!n->test)
        unknown(p, "test", n->name, rt_tpl_test_names);
    int k = p->t->kind;
    if (k == RT_TPL_T_LPAREN) {
        parse_args(p, n);
        if (n->n_kw)
            rt_tpl_fail(p->e, "keyword arguments of a test are not supported");
    } else if ((k == RT_TPL_T_NAME && !rt_tpl_at_name(p, "else") && !rt_tpl_at_name(p, "or") &&
                !rt_tpl_at_name(p, "and")) ||
               k == RT_TPL_T_STRING || k == RT_TPL_T_INT || k == RT_TPL_T_FLOAT ||
               k == RT_TPL_T_LBRACKET || k == RT_TPL_T_LBRACE) {
        if (rt_tpl_at_name(p, "is"))
            rt_tpl_fail(p->e, "tests cannot be chained with 'is'");
        rt_tpl_add_kid(p, n, parse_postfix(p, parse_primary(p)));
        n->n_args = 1;
    }
    if ((int)n->n_args != n->test->n_args)
        rt_tpl_fail(p->e, "test '%s' takes %d arguments, found %zu", n->test->name, n->test->n_args,
                    n->n_args);
    return negated ? node_with(p, RT_TPL_N_NOT, line, n, NULL) : n;
}

static struct rt_tpl_node *parse_unary(struct rt_tpl_parser *p, bool with_filter) {
    int line = p->t->line;
    struct rt_tpl_node *n;
    rt_tpl_enter(p->e);
    if (rt_tpl_skip(p, RT_TPL_T_SUB))
        n = node_with(p, RT_TPL_N_NEG, line, parse_unary(p, false), NULL);
    else if (rt_tpl_skip(p, RT_TPL_T_ADD))
        n = node_with(p, RT_TPL_N_POS, line, parse_unary(p, false), NULL);
    else
        n = parse_primary(p);
    n = parse_postfix(p, n);
    while (with_filter) {
        if (p->t->kind == RT_TPL_T_PIPE)
            n = rt_tpl_parse_filters(p, n, false);
        else if (rt_tpl_at_name(p, "is"))
            n = parse_test(p, n);
        else if (p->t->kind == RT_TPL_T_LPAREN)
            n = parse_call(p, n);
        else
            break;
    }
    rt_tpl_leave(p->e);
    return n;
}

static struct rt_tpl_node *binary(struct rt_tpl_parser *p, int op, int line, struct rt_tpl_node *a,
                                  struct rt_tpl_node *b) {
    struct rt_tpl_node *n = node_with(p, RT_TPL_N_BINARY, line, a, b);
    n->op = (uint8_t)op;
    return n;
}

static struct rt_tpl_node *parse_pow(struct rt_tpl_parser *p) {
    struct rt_tpl_node *n = parse_unary(p, true);
    for (int line = p->t->line; rt_tpl_skip(p, RT_TPL_T_POW); line = p->t->line)
        n = binary(p, RT_TPL_T_POW, line, n, parse_unary(p, true));
    return n;
}

static struct rt_tpl_node *parse_product(struct rt_tpl_parser *p) {
    struct rt_tpl_node *n = parse_pow(p);
    for (;;) {
        int op = p->t->kind, line = p->t->line;
        if (op != RT_TPL_T_MUL && op != RT_TPL_T_DIV && op != RT_TPL_T_FLOORDIV &&
            op != RT_TPL_T_MOD)
            return n;
        p->t++;
        n = binary(p, op, line, n, parse_pow(p));
    }
}

static struct rt_tpl_node *parse_concat(struct rt_tpl_parser *p) {
    struct rt_tpl_node *first = parse_product(p);
    if (p->t->kind != RT_TPL_T_TILDE)
        return first;
    struct rt_tpl_node *n = node_with(p, RT_TPL_N_CONCAT, p->t->line, first, NULL);
    while (rt_tpl_skip(p, RT_TPL_T_TILDE))
        rt_tpl_add_kid(p, n, parse_product(p));
    return n;
}

static struct rt_tpl_node *parse_sum(struct rt_tpl_parser *p) {
    struct rt_tpl_node *n = parse_concat(p);
    for (;;) {
        int op = p->t->kind, line = p->t->line;
        if (op != RT_TPL_T_ADD && op != RT_TPL_T_SUB)
            return n;
        p->t++;
        n = binary(p, op, line, n, parse_concat(p));
    }
}

/* The comparison operator here, or 0; `in` and `not in` are names. */
static int comparison(struct rt_tpl_parser *p) {
    int k = p->t->kind;
    if (k == RT_TPL_T_EQ || k == RT_TPL_T_NE || k == RT_TPL_T_LT || k == RT_TPL_T_LE ||
        k == RT_TPL_T_GT || k == RT_TPL_T_GE) {
        p->t++;
        return k;
    }
    if (rt_tpl_skip_name(p, "in"))
        return RT_TPL_T_IN;
    if (rt_tpl_at_name(p, "not") && p->t[1].kind == RT_TPL_T_NAME &&
        rt_tpl_str_is(p->t[1].s, "in")) {
        p->t += 2;
        return RT_TPL_T_NOT_IN;
    }
    return 0;
}

static struct rt_tpl_node *parse_compare(struct rt_tpl_parser *p) {
    struct rt_tpl_node *first = parse_sum(p), *n = NULL;
    struct rt_tpl_buf ops = {0};
    int line = p->t->line, op;
    while ((op = comparison(p)) != 0) {
        if (!n)
            n = node_with(p, RT_TPL_N_COMPARE, line, first, NULL);
        rt_tpl_putc(p->e, &ops, (char)op);
        rt_tpl_add_kid(p, n, parse_sum(p));
    }
    if (!n)
        return first;
    n->ops = (uint8_t *)ops.p;
    return n;
}

static struct rt_tpl_node *parse_not(struct rt_tpl_parser *p) {
    if (!rt_tpl_at_name(p, "not"))
        return parse_compare(p);
    int line = p->t->line;
    p->t++;
    rt_tpl_enter(p->e);
    struct rt_tpl_node *n = node_with(p, RT_TPL_N_NOT, line, parse_not(p), NULL);
    rt_tpl_leave(p->e);
    return n;
}

static struct rt_tpl_node *parse_and(struct rt_tpl_parser *p) {
    struct rt_tpl_node *first = parse_not(p), *n = NULL;
    while (rt_tpl_skip_name(p, "and")) {
        if (!n)
            n = node_with(p, RT_TPL_N_AND, first->line, first, NULL);
        rt_tpl_add_kid(p, n, parse_not(p));
    }
    return n ? n : first;
}

static struct rt_tpl_node *parse_or(struct rt_tpl_parser *p) {
    struct rt_tpl_node *first = parse_and(p), *n = NULL;
    while (rt_tpl_skip_name(p, "or")) {
        if (!n)
            n = node_with(p, RT_TPL_N_OR, first->line, first, NULL);
        rt_tpl_add_kid(p, n, parse_and(p));
    }
    return n ? n : first;
}

struct rt_tpl_node *rt_tpl_parse_expr(struct rt_tpl_parser *p, bool cond) {
    rt_tpl_enter(p->e);
    struct rt_tpl_node *n = parse_or(p);
    while (cond && rt_tpl_at_name(p, "if")) {
        int line = p->t->line;
        p->t++;
        struct rt_tpl_node *test = parse_or(p);
        struct rt_tpl_node *other = rt_tpl_skip_name(p, "else") ? rt_tpl_parse_expr(p, true) : NULL;
        struct rt_tpl_node *c = rt_tpl_node_new(p, RT_TPL_N_COND);
        c->line = line;
        rt_tpl_set_kids(p, c, 3, test, n, other);
        n = c;
    }
    rt_tpl_leave(p->e);
    return n;
}

static bool tuple_end(const struct rt_tpl_parser *p) {
    int k = p->t->kind;
    return k == RT_TPL_T_VAR_END || k == RT_TPL_T_BLOCK_END || k == RT_TPL_T_RPAREN;
}

struct rt_tpl_node *rt_tpl_parse_tuple(struct rt_tpl_parser *p, bool cond, bool parens) {
    struct rt_tpl_node *n = rt_tpl_node_new(p, RT_TPL_N_TUPLE);
    bool tuple = false;
    for (;;) {
        if (n->n_kids)
            rt_tpl_expect(p, RT_TPL_T_COMMA);
        if (tuple_end(p) || (!parens && rt_tpl_at_name(p, "recursive")))
            break;
        rt_tpl_add_kid(p, n, rt_tpl_parse_expr(p, cond));
        if (p->t->kind != RT_TPL_T_COMMA)
            break;
        tuple = true;
    }
    if (!tuple && n->n_kids)
        return n->kids[0];
    if (!tuple && !parens)
        rt_tpl_unexpected(p, "an expression");
    return n;
}

/* Expressions and calls. */
#include "tpl.h"

#include <string.h>

static struct rt_tpl_value eval_name(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    for (const struct rt_tpl_scope *s = e->scope; s; s = s->parent) {
        rt_tpl_charge(e, s->n / 8);
        for (size_t i = s->n; i-- > 0;)
            if (s->vars[i].name == n->name.p)
                return s->vars[i].v;
    }
    struct rt_tpl_value *found = rt_tpl_dict_get_str(e, e->context, n->name);
    if (found)
        return *found;
    const struct rt_tpl_global *g = rt_tpl_find_global(n->name);
    if (g)
        return (struct rt_tpl_value){.kind = RT_TPL_GLOBAL, .u.global = g};
    return rt_tpl_undefined(e, "'%.*s' is undefined", (int)(n->name.n < 100 ? n->name.n : 100),
                            n->name.p);
}

static struct rt_tpl_value eval_seq(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_list l = {0};
    for (size_t i = 0; i < n->n_kids; i++)
        rt_tpl_push(e, &l, rt_tpl_eval(e, n->kids[i]));
    return rt_tpl_list_value(e, &l, n->kind == RT_TPL_N_LIST ? RT_TPL_LIST : RT_TPL_TUPLE);
}

static struct rt_tpl_value eval_dict(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_dict *d = rt_tpl_dict_new(e);
    for (size_t i = 0; i < n->n_kids; i += 2) {
        struct rt_tpl_value key = rt_tpl_eval(e, n->kids[i]);
        struct rt_tpl_value v = rt_tpl_eval(e, n->kids[i + 1]);
        e->line = n->kids[i]->line;
        rt_tpl_dict_set(e, d, key, v);
    }
    return (struct rt_tpl_value){.kind = RT_TPL_DICT, .u.dict = d};
}

static bool compare_one(struct rt_tpl_env *e, int op, struct rt_tpl_value a,
                        struct rt_tpl_value b) {
    switch (op) {
    case RT_TPL_T_EQ:
        return rt_tpl_equal(e, a, b);
    case RT_TPL_T_NE:
        return !rt_tpl_equal(e, a, b);
    case RT_TPL_T_LT:
        return rt_tpl_compare(e, a, b, "<") < 0;
    case RT_TPL_T_LE:
        return rt_tpl_compare(e, a, b, "<=") <= 0;
    case RT_TPL_T_GT:
        return rt_tpl_compare(e, a, b, ">") > 0;
    case RT_TPL_T_GE:
        return rt_tpl_compare(e, a, b, ">=") >= 0;
    case RT_TPL_T_IN:
        return rt_tpl_contains(e, b, a);
    default:
        return !rt_tpl_contains(e, b, a);
    }
}

static struct rt_tpl_value eval_compare(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value left = rt_tpl_eval(e, n->kids[0]);
    for (size_t i = 1; i < n->n_kids; i++) {
        struct rt_tpl_value right = rt_tpl_eval(e, n->kids[i]);
        e->line = n->line;
        if (!compare_one(e, n->ops[i - 1], left, right))
            return rt_tpl_bool(false);
        left = right;
    }
    return rt_tpl_bool(true);
}

static struct rt_tpl_value eval_logic(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value v = rt_tpl_none();
    for (size_t i = 0; i < n->n_kids; i++) {
        v = rt_tpl_eval(e, n->kids[i]);
        if (rt_tpl_truth(e, v) == (n->kind == RT_TPL_N_OR))
            break;
    }
    return v;
}

static struct rt_tpl_value eval_concat(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_buf b = {0};
    for (size_t i = 0; i < n->n_kids; i++)
        rt_tpl_put_str(e, &b, rt_tpl_eval(e, n->kids[i]));
    return rt_tpl_buf_value(&b);
}

static struct rt_tpl_value eval_slice(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value part[4];
    for (size_t i = 0; i < 4; i++)
        if (n->kids[i])
            part[i] = rt_tpl_eval(e, n->kids[i]);
    e->line = n->line;
    return rt_tpl_slice(e, part[0], n->kids[1] ? &part[1] : NULL, n->kids[2] ? &part[2] : NULL,
                        n->kids[3] ? &part[3] : NULL);
}

/* Evaluates the arguments of a call, filter or test, which follow kids[0]. */
static struct rt_tpl_args eval_args(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    size_t count = n->n_args + n->n_kw;
    struct rt_tpl_value *v = count ? rt_tpl_alloc(e, count * sizeof *v) : NULL;
    for (size_t i = 0; i < count; i++)
        v[i] = rt_tpl_eval(e, n->kids[1 + i]);
    e->line = n->line;
    return (struct rt_tpl_args){.pos = v,
                                .n_pos = n->n_args,
                                .kw = n->kw,
                                .kw_vals = count ? v + n->n_args : NULL,
                                .n_kw = n->n_kw};
}

static struct rt_tpl_value eval_call(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value fn = rt_tpl_eval(e, n->kids[0]);
    struct rt_tpl_args args = eval_args(e, n);
    return rt_tpl_call(e, fn, &args);
}

static struct rt_tpl_value eval_filter(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value v = rt_tpl_eval(e, n->kids[0]);
    struct rt_tpl_args args = eval_args(e, n);
    return rt_tpl_apply_filter(e, n->filter, v, &args);
}

static struct rt_tpl_value eval_test(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value v = rt_tpl_eval(e, n->kids[0]);
    struct rt_tpl_args args = eval_args(e, n);
    return rt_tpl_bool(rt_tpl_apply_test(e, n->test, v, &args));
}

static struct rt_tpl_value eval_cond(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    if (rt_tpl_truth(e, rt_tpl_eval(e, n->kids[0])))
        return rt_tpl_eval(e, n->kids[1]);
    if (n->kids[2])
        return rt_tpl_eval(e, n->kids[2]);
    e->line = n->line;
    return rt_tpl_undefined(e, "the inline if-expression is false and has no else");
}

static struct rt_tpl_value eval_binary(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value a = rt_tpl_eval(e, n->kids[0]);
    struct rt_tpl_value b = rt_tpl_eval(e, n->kids[1]);
    e->line = n->line;
    return rt_tpl_binary(e, n->op, a, b);
}

static struct rt_tpl_value eval_item(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value v = rt_tpl_eval(e, n->kids[0]);
    struct rt_tpl_value key = rt_tpl_eval(e, n->kids[1]);
    e->line = n->line;
    return rt_tpl_getitem(e, v, key);
}

static struct rt_tpl_value eval_unary(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value v = rt_tpl_eval(e, n->kids[0]);
    e->line = n->line;
    switch (n->kind) {
    case RT_TPL_N_NOT:
        return rt_tpl_bool(!rt_tpl_truth(e, v));
    case RT_TPL_N_ATTR:
        return rt_tpl_getattr(e, v, n->name);
    default:
        return rt_tpl_negate(e, v, n->kind == RT_TPL_N_NEG);
    }
}

/* Few locals here: this is the recursion of all nested expressions. */
struct rt_tpl_value rt_tpl_eval(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value v;
    rt_tpl_charge(e, 1);
    rt_tpl_enter(e);
    e->line = n->line;
    switch ((enum rt_tpl_node_kind)n->kind) {
    case RT_TPL_N_CONST:
        v = n->value;
        break;
    case RT_TPL_N_BLOCK_TEXT:
        v = rt_tpl_buf_value(e->out);
        break;
    case RT_TPL_N_NAME:
        v = eval_name(e, n);
        break;
    case RT_TPL_N_LIST:
    case RT_TPL_N_TUPLE:
        v = eval_seq(e, n);
        break;
    case RT_TPL_N_DICT:
        v = eval_dict(e, n);
        break;
    case RT_TPL_N_ITEM:
        v = eval_item(e, n);
        break;
    case RT_TPL_N_SLICE:
        v = eval_slice(e, n);
        break;
    case RT_TPL_N_CALL:
        v = eval_call(e, n);
        break;
    case RT_TPL_N_FILTER:
        v = eval_filter(e, n);
        break;
    case RT_TPL_N_TEST:
        v = eval_test(e, n);
        break;
    case RT_TPL_N_ATTR:
    case RT_TPL_N_NOT:
    case RT_TPL_N_NEG:
    case RT_TPL_N_POS:
        v = eval_unary(e, n);
        break;
    case RT_TPL_N_AND:
    case RT_TPL_N_OR:
        v = eval_logic(e, n);
        break;
    case RT_TPL_N_BINARY:
        v = eval_binary(e, n);
        break;
    case RT_TPL_N_CONCAT:
        v = eval_concat(e, n);
        break;
    case RT_TPL_N_COMPARE:
        v = eval_compare(e, n);
        break;
    case RT_TPL_N_COND:
        v = eval_cond(e, n);
        break;
    default:
        rt_tpl_fail(e, "internal error: node %d is no expression", n->kind);
    }
    rt_tpl_leave(e);
    return v;
}

/* ---- calls ---- */

void rt_tpl_bind(struct rt_tpl_env *e, const char *what, const char *params,
                 const struct rt_tpl_args *args, struct rt_tpl_value out[RT_TPL_MAX_PARAMS]) {
    struct rt_tpl_str names[RT_TPL_MAX_PARAMS];
    bool required[RT_TPL_MAX_PARAMS];
    size_t n = 0;
    for (const char *p = params; *p && n < RT_TPL_MAX_PARAMS; n++) {
        size_t len = strcspn(p, ",!");
        names[n] = (struct rt_tpl_str){p, len};
        required[n] = p[len] == '!';
        p += len + required[n];
        p += *p == ',';
    }
    if (args->n_pos > n)
        rt_tpl_fail(e, "%s takes at most %zu arguments, found %zu", what, n, args->n_pos);
    for (size_t i = 0; i < RT_TPL_MAX_PARAMS; i++)
        out[i] = i < args->n_pos ? args->pos[i] : (struct rt_tpl_value){.kind = RT_TPL_MISSING};
    for (size_t k = 0; k < args->n_kw; k++) {
        struct rt_tpl_str name = args->kw[k];
        size_t i = 0;
        while (i < n && !rt_tpl_str_eq(names[i], name))
            i++;
        if (i == n)
            rt_tpl_fail(e, "%s has no argument '%.*s'", what, (int)(name.n < 60 ? name.n : 60),
                        name.p);
        if (out[i].kind != RT_TPL_MISSING)
            rt_tpl_fail(e, "%s: argument '%.*s' is given twice", what, (int)name.n, name.p);
        out[i] = args->kw_vals[k];
    }
    for (size_t i = 0; i < n; i++)
        if (required[i] && out[i].kind == RT_TPL_MISSING)
            rt_tpl_fail(e, "%s needs argument '%.*s'", what, (int)names[i].n, names[i].p);
}

struct rt_tpl_value rt_tpl_apply_filter(struct rt_tpl_env *e, const struct rt_tpl_filter *f,
                                        struct rt_tpl_value v, const struct rt_tpl_args *args) {
    struct rt_tpl_value arg[RT_TPL_MAX_PARAMS];
    if (f->params)
        rt_tpl_bind(e, f->name, f->params, args, arg);
    return f->fn(e, v, f->params ? arg : NULL, args);
}

bool rt_tpl_apply_test(struct rt_tpl_env *e, const struct rt_tpl_test *t, struct rt_tpl_value v,
                       const struct rt_tpl_args *args) {
    if (args->n_kw || (int)args->n_pos != t->n_args)
        rt_tpl_fail(e, "test '%s' takes %d arguments, found %zu", t->name, t->n_args,
                    args->n_pos + args->n_kw);
    return t->fn(e, v, args->pos);
}

struct rt_tpl_value rt_tpl_call(struct rt_tpl_env *e, struct rt_tpl_value fn,
                                const struct rt_tpl_args *args) {
    switch (fn.kind) {
    case RT_TPL_GLOBAL:
        return fn.u.global->fn(e, args);
    case RT_TPL_MACRO:
        return rt_tpl_call_macro(e, fn.u.macro, args);
    case RT_TPL_METHOD: {
        const struct rt_tpl_method *m = fn.u.method;
        if (m->self.kind == RT_TPL_LOOP)
            return rt_tpl_loop_call(e, m->self, m->def->name[1] == 'h', args);
        struct rt_tpl_value arg[RT_TPL_MAX_PARAMS];
        rt_tpl_bind(e, m->def->name, m->def->params, args, arg);
        return m->def->fn(e, m->self, arg);
    }
    case RT_TPL_LOOP:
        rt_tpl_fail(e, "recursive loops are not supported");
    default:
        rt_tpl_need_defined(e, fn);
        rt_tpl_fail(e, "'%s' object is not callable", rt_tpl_type_name(fn));
    }
}

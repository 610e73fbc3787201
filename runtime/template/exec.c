/* Statements: output, variables, loops, macros. */
#include "tpl.h"

#include <string.h>

/* ---- variables ---- */

struct rt_tpl_scope *rt_tpl_scope_new(struct rt_tpl_env *e, struct rt_tpl_scope *parent) {
    struct rt_tpl_scope *s = rt_tpl_calloc(e, 1, sizeof *s);
    s->parent = parent;
    return s;
}

void rt_tpl_scope_set(struct rt_tpl_env *e, struct rt_tpl_scope *s, const char *name,
                      struct rt_tpl_value v) {
    rt_tpl_charge(e, s->n / 8);
    for (size_t i = 0; i < s->n; i++)
        if (s->vars[i].name == name) {
            s->vars[i].v = v;
            return;
        }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 4;
        struct rt_tpl_var *fresh = rt_tpl_alloc(e, cap * sizeof *fresh);
        if (s->n)
            memcpy(fresh, s->vars, s->n * sizeof *fresh);
        s->vars = fresh;
        s->cap = cap;
    }
    s->vars[s->n++] = (struct rt_tpl_var){name, v};
}

static void assign(struct rt_tpl_env *e, const struct rt_tpl_node *target, struct rt_tpl_value v) {
    e->line = target->line;
    if (target->kind == RT_TPL_N_NAME) {
        rt_tpl_scope_set(e, e->scope, target->name.p, v);
    } else if (target->kind == RT_TPL_N_NS_TARGET) {
        struct rt_tpl_value ns = rt_tpl_eval(e, target->kids[0]);
        if (ns.kind != RT_TPL_NAMESPACE)
            rt_tpl_fail(e, "cannot assign to attribute '%.*s' of a %s; only of a namespace",
                        (int)(target->name.n < 60 ? target->name.n : 60), target->name.p,
                        rt_tpl_type_name(ns));
        rt_tpl_dict_set(e, ns.u.dict, rt_tpl_string(target->name), v);
    } else {
        struct rt_tpl_seq s = rt_tpl_iterate(e, v);
        if (s.n != target->n_kids)
            rt_tpl_fail(e, "cannot unpack %zu values into %zu names", s.n, target->n_kids);
        for (size_t i = 0; i < s.n; i++)
            assign(e, target->kids[i], s.v[i]);
    }
}

/* ---- loops ---- */

/* What `loop` is. Elements come one at a time, because the loop's filter may read what the body
 * has set; jinja2 looks ahead only when the body asks for `last`, `nextitem` or `length`. */
struct rt_tpl_loop {
    const struct rt_tpl_node *node;
    struct rt_tpl_seq items;
    size_t at; /* the next of items to look at */
    int64_t index0;
    int64_t depth;
    struct rt_tpl_scope *filter_scope;
    struct rt_tpl_value before, current, after; /* RT_TPL_MISSING: there is none, or not looked */
    struct rt_tpl_value *rest;                  /* what is left when the length was asked for */
    size_t rest_n, rest_at;
    int64_t length; /* -1: not known */
    struct rt_tpl_value changed;
};

static const struct rt_tpl_value missing = {.kind = RT_TPL_MISSING};

/* The next element that passes the filter, or RT_TPL_MISSING. */
static struct rt_tpl_value pull(struct rt_tpl_env *e, struct rt_tpl_loop *l) {
    if (l->rest)
        return l->rest_at < l->rest_n ? l->rest[l->rest_at++] : missing;
    while (l->at < l->items.n) {
        struct rt_tpl_value v = l->items.v[l->at++];
        const struct rt_tpl_node *filter = l->node->kids[2];
        if (!filter)
            return v;
        struct rt_tpl_scope *outer = e->scope;
        l->filter_scope->n = 0;
        e->scope = l->filter_scope;
        assign(e, l->node->kids[0], v);
        bool pass = rt_tpl_truth(e, rt_tpl_eval(e, filter));
        e->scope = outer;
        if (pass)
            return v;
    }
    return missing;
}

static struct rt_tpl_value peek(struct rt_tpl_env *e, struct rt_tpl_loop *l) {
    if (l->after.kind == RT_TPL_MISSING)
        l->after = pull(e, l);
    return l->after;
}

static int64_t loop_length(struct rt_tpl_env *e, struct rt_tpl_loop *l) {
    if (l->length >= 0)
        return l->length;
    if (!l->node->kids[2])
        return l->length = (int64_t)l->items.n;
    struct rt_tpl_list rest = {0};
    for (struct rt_tpl_value v; (v = pull(e, l)).kind != RT_TPL_MISSING;)
        rt_tpl_push(e, &rest, v);
    l->rest = rest.n ? rest.v : rt_tpl_alloc(e, sizeof *l->rest);
    l->rest_n = rest.n;
    l->length = (int64_t)rest.n + l->index0 + 1 + (l->after.kind != RT_TPL_MISSING);
    return l->length;
}

static const struct rt_tpl_method_def loop_methods[] = {
    {"cycle", NULL, NULL},
    {"changed", NULL, NULL},
};

struct rt_tpl_value rt_tpl_loop_attr(struct rt_tpl_env *e, struct rt_tpl_loop *l,
                                     struct rt_tpl_str name) {
    if (rt_tpl_str_is(name, "index"))
        return rt_tpl_int(l->index0 + 1);
    if (rt_tpl_str_is(name, "index0"))
        return rt_tpl_int(l->index0);
    if (rt_tpl_str_is(name, "first"))
        return rt_tpl_bool(l->index0 == 0);
    if (rt_tpl_str_is(name, "last"))
        return rt_tpl_bool(peek(e, l).kind == RT_TPL_MISSING);
    if (rt_tpl_str_is(name, "length"))
        return rt_tpl_int(loop_length(e, l));
    if (rt_tpl_str_is(name, "revindex"))
        return rt_tpl_int(loop_length(e, l) - l->index0);
    if (rt_tpl_str_is(name, "revindex0"))
        return rt_tpl_int(loop_length(e, l) - l->index0 - 1);
    if (rt_tpl_str_is(name, "previtem"))
        return l->index0 == 0 ? rt_tpl_undefined(e, "there is no previous item") : l->before;
    if (rt_tpl_str_is(name, "nextitem")) {
        struct rt_tpl_value v = peek(e, l);
        return v.kind == RT_TPL_MISSING ? rt_tpl_undefined(e, "there is no next item") : v;
    }
    if (rt_tpl_str_is(name, "depth"))
        return rt_tpl_int(l->depth);
    if (rt_tpl_str_is(name, "depth0"))
        return rt_tpl_int(l->depth - 1);
    for (size_t i = 0; i < 2; i++)
        if (rt_tpl_str_is(name, loop_methods[i].name)) {
            struct rt_tpl_method *m = rt_tpl_alloc(e, sizeof *m);
            m->self = (struct rt_tpl_value){.kind = RT_TPL_LOOP, .u.loop = l};
            m->def = &loop_methods[i];
            return (struct rt_tpl_value){.kind = RT_TPL_METHOD, .u.method = m};
        }
    return rt_tpl_undefined(e, "'loop' has no attribute '%.*s'", (int)(name.n < 60 ? name.n : 60),
                            name.p);
}

/* loop.cycle(...) and loop.changed(...). */
struct rt_tpl_value rt_tpl_loop_call(struct rt_tpl_env *e, struct rt_tpl_value self, bool changed,
                                     const struct rt_tpl_args *args) {
    struct rt_tpl_loop *l = self.u.loop;
    if (args->n_kw)
        rt_tpl_fail(e, "loop.%s takes no keyword arguments", changed ? "changed" : "cycle");
    if (!changed) {
        if (!args->n_pos)
            rt_tpl_fail(e, "no items for cycling given");
        return args->pos[(size_t)l->index0 % args->n_pos];
    }
    struct rt_tpl_value *copy = rt_tpl_alloc(e, (args->n_pos + 1) * sizeof *copy);
    for (size_t i = 0; i < args->n_pos; i++)
        copy[i] = args->pos[i];
    struct rt_tpl_value now = rt_tpl_seq(RT_TPL_TUPLE, copy, args->n_pos, e);
    bool differs = l->changed.kind == RT_TPL_MISSING || !rt_tpl_equal(e, l->changed, now);
    l->changed = now;
    return rt_tpl_bool(differs);
}

static enum rt_tpl_flow exec_for(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_scope *outer = e->scope;
    struct rt_tpl_value items = rt_tpl_eval(e, n->kids[1]);
    struct rt_tpl_loop *l = rt_tpl_calloc(e, 1, sizeof *l);
    e->line = n->line;
    l->node = n;
    l->items = rt_tpl_iterate(e, items);
    l->filter_scope = rt_tpl_scope_new(e, outer);
    l->index0 = -1;
    l->depth = 1;
    l->length = -1;
    struct rt_tpl_scope *inner = NULL;
    bool completed = false; /* some pass reached the body's end; else jinja2 runs the else body */
    for (;;) {
        struct rt_tpl_value v = l->after;
        l->after = missing;
        if (v.kind == RT_TPL_MISSING)
            v = pull(e, l);
        if (v.kind == RT_TPL_MISSING)
            break;
        rt_tpl_charge(e, 1);
        l->index0++;
        l->before = l->current;
        l->current = v;
        if (!inner || inner->captured)
            inner = rt_tpl_scope_new(e, outer);
        inner->n = 0;
        e->scope = inner;
        rt_tpl_scope_set(e, inner, n->name.p,
                         (struct rt_tpl_value){.kind = RT_TPL_LOOP, .u.loop = l});
        assign(e, n->kids[0], v);
        enum rt_tpl_flow flow = rt_tpl_exec(e, n->kids[3]);
        e->scope = outer;
        completed |= flow == RT_TPL_NORMAL;
        if (flow == RT_TPL_BREAK)
            break;
    }
    if (completed || !n->kids[4])
        return RT_TPL_NORMAL;
    e->scope = rt_tpl_scope_new(e, outer);
    enum rt_tpl_flow flow = rt_tpl_exec(e, n->kids[4]);
    e->scope = outer;
    return flow;
}

/* ---- blocks that write to a text of their own ---- */

struct rt_tpl_value rt_tpl_capture(struct rt_tpl_env *e, const struct rt_tpl_node *body) {
    struct rt_tpl_buf text = {0}, *out = e->out;
    struct rt_tpl_scope *outer = e->scope;
    e->out = &text;
    e->scope = rt_tpl_scope_new(e, outer);
    rt_tpl_exec(e, body);
    e->scope = outer;
    e->out = out;
    return rt_tpl_buf_value(&text);
}

/* Evaluates a filter chain over `text`, which its RT_TPL_N_BLOCK_TEXT node finds in e->out. */
static struct rt_tpl_value filter_text(struct rt_tpl_env *e, const struct rt_tpl_node *filters,
                                       struct rt_tpl_value text) {
    struct rt_tpl_buf b = {.p = (char *)text.u.s.p, .n = text.u.s.n}, *out = e->out;
    e->out = &b;
    struct rt_tpl_value v = rt_tpl_eval(e, filters);
    e->out = out;
    return v;
}

struct rt_tpl_value rt_tpl_call_macro(struct rt_tpl_env *e, const struct rt_tpl_macro *m,
                                      const struct rt_tpl_args *args) {
    const struct rt_tpl_node *n = m->node;
    struct rt_tpl_scope *caller = e->scope;
    int name_n = (int)(n->name.n < 60 ? n->name.n : 60);
    if (args->n_pos > n->n_kw)
        rt_tpl_fail(e, "macro '%.*s' takes not more than %zu arguments, found %zu", name_n,
                    n->name.p, n->n_kw, args->n_pos);
    struct rt_tpl_value *given = rt_tpl_calloc(e, n->n_kw + 1, sizeof *given);
    for (size_t i = 0; i < args->n_pos; i++)
        given[i] = args->pos[i];
    for (size_t k = 0; k < args->n_kw; k++) {
        size_t i = 0;
        while (i < n->n_kw && n->kw[i].p != args->kw[k].p)
            i++;
        rt_tpl_charge(e, i / 8);
        int kw_n = (int)(args->kw[k].n < 60 ? args->kw[k].n : 60);
        if (i == n->n_kw)
            rt_tpl_fail(e, "macro '%.*s' takes no keyword argument '%.*s'", name_n, n->name.p, kw_n,
                        args->kw[k].p);
        if (given[i].kind != RT_TPL_MISSING)
            rt_tpl_fail(e, "macro '%.*s': argument '%.*s' is given twice", name_n, n->name.p, kw_n,
                        args->kw[k].p);
        given[i] = args->kw_vals[k];
    }
    rt_tpl_enter(e);
    e->scope = rt_tpl_scope_new(e, m->scope);
    for (size_t i = 0; i < n->n_kw; i++) {
        if (given[i].kind == RT_TPL_MISSING && n->kids[1 + i])
            given[i] = rt_tpl_eval(e, n->kids[1 + i]);
        else if (given[i].kind == RT_TPL_MISSING)
            given[i] = rt_tpl_undefined(e, "parameter '%.*s' was not provided",
                                        (int)(n->kw[i].n < 60 ? n->kw[i].n : 60), n->kw[i].p);
        rt_tpl_scope_set(e, e->scope, n->kw[i].p, given[i]);
    }
    struct rt_tpl_value text = rt_tpl_capture(e, n->kids[0]);
    e->scope = caller;
    rt_tpl_leave(e);
    return text;
}

static void define_macro(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_macro *m = rt_tpl_alloc(e, sizeof *m);
    m->node = n;
    m->scope = e->scope;
    for (struct rt_tpl_scope *s = e->scope; s && !s->captured; s = s->parent)
        s->captured = true;
    rt_tpl_scope_set(e, e->scope, n->name.p,
                     (struct rt_tpl_value){.kind = RT_TPL_MACRO, .u.macro = m});
}

static enum rt_tpl_flow exec_if(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    size_t i = 0;
    for (; i + 1 < n->n_kids; i += 2)
        if (rt_tpl_truth(e, rt_tpl_eval(e, n->kids[i])))
            return rt_tpl_exec(e, n->kids[i + 1]);
    return i < n->n_kids ? rt_tpl_exec(e, n->kids[i]) : RT_TPL_NORMAL;
}

static enum rt_tpl_flow exec_with(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_scope *outer = e->scope, *inner = rt_tpl_scope_new(e, outer);
    for (size_t i = 1; i < n->n_kids; i += 2) {
        struct rt_tpl_value v = rt_tpl_eval(e, n->kids[i + 1]);
        e->scope = inner;
        assign(e, n->kids[i], v);
        e->scope = outer;
    }
    e->scope = inner;
    enum rt_tpl_flow flow = rt_tpl_exec(e, n->kids[0]);
    e->scope = outer;
    return flow;
}

static void exec_set_block(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    struct rt_tpl_value v = rt_tpl_capture(e, n->kids[1]);
    if (n->kids[2])
        v = filter_text(e, n->kids[2], v);
    assign(e, n->kids[0], v);
}

static enum rt_tpl_flow exec_one(struct rt_tpl_env *e, const struct rt_tpl_node *n) {
    switch ((enum rt_tpl_node_kind)n->kind) {
    case RT_TPL_N_TEXT:
        rt_tpl_put(e, e->out, n->value.u.s.p, n->value.u.s.n);
        return RT_TPL_NORMAL;
    case RT_TPL_N_OUTPUT:
        rt_tpl_put_str(e, e->out, rt_tpl_eval(e, n->kids[0]));
        return RT_TPL_NORMAL;
    case RT_TPL_N_IF:
        return exec_if(e, n);
    case RT_TPL_N_FOR:
        return exec_for(e, n);
    case RT_TPL_N_SET:
        assign(e, n->kids[0], rt_tpl_eval(e, n->kids[1]));
        return RT_TPL_NORMAL;
    case RT_TPL_N_SET_BLOCK:
        exec_set_block(e, n);
        return RT_TPL_NORMAL;
    case RT_TPL_N_MACRO:
        define_macro(e, n);
        return RT_TPL_NORMAL;
    case RT_TPL_N_FILTER_BLOCK:
        rt_tpl_put_str(e, e->out, filter_text(e, n->kids[1], rt_tpl_capture(e, n->kids[0])));
        return RT_TPL_NORMAL;
    case RT_TPL_N_WITH:
        return exec_with(e, n);
    case RT_TPL_N_SCOPE:
        rt_tpl_put_str(e, e->out, rt_tpl_capture(e, n->kids[0]));
        return RT_TPL_NORMAL;
    case RT_TPL_N_BREAK:
        return RT_TPL_BREAK;
    case RT_TPL_N_CONTINUE:
        return RT_TPL_CONTINUE;
    default:
        rt_tpl_fail(e, "internal error: node %d is no statement", n->kind);
    }
}

enum rt_tpl_flow rt_tpl_exec(struct rt_tpl_env *e, const struct rt_tpl_node *body) {
    enum rt_tpl_flow flow = RT_TPL_NORMAL;
    rt_tpl_enter(e);
    for (size_t i = 0; flow == RT_TPL_NORMAL && i < body->n_kids; i++) {
        rt_tpl_charge(e, 1);
        e->line = body->kids[i]->line;
        flow = exec_one(e, body->kids[i]);
    }
    rt_tpl_leave(e);
    return flow;
}

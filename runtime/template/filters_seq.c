/* Filters of lists, dictionaries and generators. */
#include "tpl.h"

#include <string.h>

#define GIVEN(v) ((v).kind != RT_TPL_MISSING)

#define FILTER(name)                                                                               \
    static struct rt_tpl_value name(struct rt_tpl_env *e, struct rt_tpl_value v,                   \
                                    const struct rt_tpl_value *a, const struct rt_tpl_args *raw)

#define UNUSED ((void)e, (void)v, (void)a, (void)raw)

/* ---- keys to sort, select and map by ---- */

/* The element that "a.b.0" names, from v. A number may stand for itself. */
static struct rt_tpl_value get_path(struct rt_tpl_env *e, struct rt_tpl_value v,
                                    struct rt_tpl_value path, const struct rt_tpl_value *missing) {
    if (!GIVEN(path) || path.kind == RT_TPL_NONE)
        return v;
    if (path.kind != RT_TPL_STR)
        v = rt_tpl_getitem(e, v, path);
    if (path.kind != RT_TPL_STR)
        return v.kind == RT_TPL_UNDEFINED && missing ? *missing : v;
    struct rt_tpl_str rest = path.u.s;
    for (;;) {
        const char *dot = rest.n ? memchr(rest.p, '.', rest.n) : NULL;
        struct rt_tpl_str name = {rest.p, dot ? (size_t)(dot - rest.p) : rest.n};
        bool digits = name.n > 0;
        for (size_t i = 0; i < name.n; i++)
            digits &= name.p[i] >= '0' && name.p[i] <= '9';
        int64_t i = 0;
        if (digits)
            rt_tpl_read_int(e, name, 10, &i);
        rt_tpl_charge(e, 1);
        v = rt_tpl_getitem(e, v, digits ? rt_tpl_int(i) : rt_tpl_string(name));
        if (v.kind == RT_TPL_UNDEFINED && missing)
            v = *missing;
        if (!dot)
            return v;
        rest.n -= name.n + 1;
        rest.p += name.n + 1;
    }
}

static struct rt_tpl_value fold_case(struct rt_tpl_env *e, struct rt_tpl_value v, bool sensitive) {
    return v.kind == RT_TPL_STR && !sensitive
               ? rt_tpl_string(rt_tpl_str_case(e, v.u.s, RT_TPL_LOWER))
               : v;
}

static bool flag(struct rt_tpl_env *e, struct rt_tpl_value v) {
    return GIVEN(v) && rt_tpl_truth(e, v);
}

/* Stable merge sort of v by keys; `down` keeps equal elements in order too, as Python does. */
static void sort_by(struct rt_tpl_env *e, struct rt_tpl_value *keys, struct rt_tpl_value *v,
                    struct rt_tpl_value *tmp, size_t n, bool down) {
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, k = 0;
    sort_by(e, keys, v, tmp, half, down);
    sort_by(e, keys + half, v + half, tmp, n - half, down);
    while (i < half || j < n) {
        bool right = i == half;
        rt_tpl_charge(e, 1);
        if (!right && j < n) {
            int c = rt_tpl_compare(e, keys[j], keys[i], "<");
            right = down ? c > 0 : c < 0;
        }
        size_t from = right ? j++ : i++;
        tmp[2 * k] = keys[from];
        tmp[2 * k + 1] = v[from];
        k++;
    }
    for (k = 0; k < n; k++) {
        keys[k] = tmp[2 * k];
        v[k] = tmp[2 * k + 1];
    }
}

static struct rt_tpl_value sorted(struct rt_tpl_env *e, struct rt_tpl_list *keys,
                                  struct rt_tpl_list *items, bool down) {
    struct rt_tpl_value *tmp = rt_tpl_alloc(e, (2 * items->n + 1) * sizeof *tmp);
    sort_by(e, keys->v, items->v, tmp, items->n, down);
    return rt_tpl_list_value(e, items, RT_TPL_LIST);
}

/* ---- filters ---- */

FILTER(f_length) {
    UNUSED;
    return rt_tpl_int(rt_tpl_length(e, v));
}

FILTER(f_first) {
    UNUSED;
    if (v.kind == RT_TPL_ITER) { /* takes one element and leaves the rest */
        struct rt_tpl_seq *s = v.u.seq;
        if (s->pos < s->n)
            return s->v[s->pos++];
    }
    if (v.kind == RT_TPL_STR && v.u.s.n)
        return rt_tpl_getitem(e, rt_tpl_string(v.u.s), rt_tpl_int(0));
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    return s.n ? s.v[0] : rt_tpl_undefined(e, "no first item, the sequence was empty");
}

FILTER(f_last) {
    UNUSED;
    if (v.kind == RT_TPL_ITER)
        rt_tpl_fail(e, "last of a generator is not possible; use |list first");
    if (v.kind == RT_TPL_STR && v.u.s.n)
        return rt_tpl_getitem(e, rt_tpl_string(v.u.s), rt_tpl_int(-1));
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    return s.n ? s.v[s.n - 1] : rt_tpl_undefined(e, "no last item, the sequence was empty");
}

FILTER(f_join) {
    UNUSED;
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    struct rt_tpl_str sep = GIVEN(a[0]) ? rt_tpl_to_str(e, a[0]) : RT_TPL_S("");
    struct rt_tpl_buf b = {0};
    for (size_t i = 0; i < s.n; i++) {
        rt_tpl_charge(e, 1);
        if (i)
            rt_tpl_put(e, &b, sep.p, sep.n);
        rt_tpl_put_str(e, &b, get_path(e, s.v[i], a[1], NULL));
    }
    return rt_tpl_buf_value(&b);
}

FILTER(f_list) {
    UNUSED;
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    rt_tpl_charge(e, s.n / 8);
    return rt_tpl_seq(RT_TPL_LIST, s.v, s.n, e);
}

FILTER(f_items) {
    UNUSED;
    if (v.kind == RT_TPL_UNDEFINED)
        return rt_tpl_seq(RT_TPL_ITER, NULL, 0, e);
    if (v.kind != RT_TPL_DICT)
        rt_tpl_fail(e, "items needs a dict, found %s", rt_tpl_type_name(v));
    const struct rt_tpl_method_def *def = rt_tpl_find_method(e, v, RT_TPL_S("items"));
    struct rt_tpl_value items = def->fn(e, v, NULL);
    return rt_tpl_seq(RT_TPL_ITER, items.u.seq->v, items.u.seq->n, e);
}

FILTER(f_dictsort) {
    UNUSED;
    struct rt_tpl_list keys = {0}, items = {0};
    rt_tpl_need_defined(e, v);
    if (v.kind != RT_TPL_DICT)
        rt_tpl_fail(e, "dictsort needs a dict, found %s", rt_tpl_type_name(v));
    struct rt_tpl_str by =
        GIVEN(a[1]) ? rt_tpl_need_str(e, a[1], "'by' of dictsort") : RT_TPL_S("key");
    bool value = rt_tpl_str_is(by, "value");
    if (!value && !rt_tpl_str_is(by, "key"))
        rt_tpl_fail(e, "dictsort: 'by' must be 'key' or 'value'");
    const struct rt_tpl_method_def *def = rt_tpl_find_method(e, v, RT_TPL_S("items"));
    struct rt_tpl_seq *pairs = def->fn(e, v, NULL).u.seq;
    for (size_t i = 0; i < pairs->n; i++) {
        rt_tpl_push(e, &items, pairs->v[i]);
        rt_tpl_push(e, &keys, fold_case(e, pairs->v[i].u.seq->v[value], flag(e, a[0])));
    }
    return sorted(e, &keys, &items, flag(e, a[2]));
}

/* sort's attribute may name several, separated by commas: the key is then a list. */
static struct rt_tpl_value sort_key(struct rt_tpl_env *e, struct rt_tpl_value v,
                                    struct rt_tpl_value attr, bool sensitive) {
    if (attr.kind != RT_TPL_STR)
        return fold_case(e, get_path(e, v, attr, NULL), sensitive);
    struct rt_tpl_list keys = {0};
    struct rt_tpl_str rest = attr.u.s;
    for (;;) {
        const char *comma = rest.n ? memchr(rest.p, ',', rest.n) : NULL;
        struct rt_tpl_str path = {rest.p, comma ? (size_t)(comma - rest.p) : rest.n};
        rt_tpl_push(e, &keys, fold_case(e, get_path(e, v, rt_tpl_string(path), NULL), sensitive));
        if (!comma)
            return rt_tpl_list_value(e, &keys, RT_TPL_LIST);
        rest.n -= path.n + 1;
        rest.p += path.n + 1;
    }
}

FILTER(f_sort) {
    UNUSED;
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    struct rt_tpl_list keys = {0}, items = {0};
    for (size_t i = 0; i < s.n; i++) {
        rt_tpl_push(e, &items, s.v[i]);
        rt_tpl_push(e, &keys, sort_key(e, s.v[i], a[2], flag(e, a[1])));
    }
    return sorted(e, &keys, &items, flag(e, a[0]));
}

FILTER(f_unique) {
    UNUSED;
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    struct rt_tpl_dict *seen = rt_tpl_dict_new(e);
    struct rt_tpl_list out = {0};
    for (size_t i = 0; i < s.n; i++) {
        struct rt_tpl_value key = fold_case(e, get_path(e, s.v[i], a[1], NULL), flag(e, a[0]));
        if (rt_tpl_dict_get(e, seen, key))
            continue;
        rt_tpl_dict_set(e, seen, key, rt_tpl_none());
        rt_tpl_push(e, &out, s.v[i]);
    }
    return rt_tpl_list_value(e, &out, RT_TPL_ITER);
}

static struct rt_tpl_value extreme(struct rt_tpl_env *e, struct rt_tpl_value v,
                                   const struct rt_tpl_value *a, bool max) {
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    if (!s.n)
        return rt_tpl_undefined(e, "no aggregated item, the sequence was empty");
    size_t best = 0;
    struct rt_tpl_value best_key = fold_case(e, get_path(e, s.v[0], a[1], NULL), flag(e, a[0]));
    for (size_t i = 1; i < s.n; i++) {
        struct rt_tpl_value key = fold_case(e, get_path(e, s.v[i], a[1], NULL), flag(e, a[0]));
        int c = rt_tpl_compare(e, key, best_key, max ? ">" : "<");
        rt_tpl_charge(e, 1);
        if (max ? c > 0 : c < 0) {
            best = i;
            best_key = key;
        }
    }
    return s.v[best];
}

FILTER(f_max) {
    UNUSED;
    return extreme(e, v, a, true);
}

FILTER(f_min) {
    UNUSED;
    return extreme(e, v, a, false);
}

FILTER(f_sum) {
    UNUSED;
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    struct rt_tpl_value total = GIVEN(a[1]) ? a[1] : rt_tpl_int(0);
    if (total.kind == RT_TPL_STR)
        rt_tpl_fail(e, "sum cannot add texts; use |join");
    for (size_t i = 0; i < s.n; i++) {
        rt_tpl_charge(e, 1);
        total = rt_tpl_binary(e, RT_TPL_T_ADD, total, get_path(e, s.v[i], a[0], NULL));
    }
    return total;
}

FILTER(f_reverse) {
    UNUSED;
    return rt_tpl_reverse(e, v);
}

/* map('filter', arguments of it) or map(attribute=..., default=...). */
FILTER(f_map) {
    (void)a;
    static const struct rt_tpl_args none = {0};
    struct rt_tpl_value bound[RT_TPL_MAX_PARAMS];
    const struct rt_tpl_filter *f = NULL;
    struct rt_tpl_args rest = *raw;
    if (!rt_tpl_truth(e, v)) /* None and Undefined too give nothing */
        return rt_tpl_seq(RT_TPL_ITER, NULL, 0, e);
    if (raw->n_pos == 0) {
        rt_tpl_bind(e, "map", "attribute!,default", raw, bound);
        rest = none;
    } else {
        struct rt_tpl_str name = rt_tpl_need_str(e, raw->pos[0], "the filter that map applies");
        f = rt_tpl_find_filter(name);
        if (!f)
            rt_tpl_fail(e, "map: unknown filter '%.*s'", (int)(name.n < 60 ? name.n : 60), name.p);
        rest.pos++;
        rest.n_pos--;
    }
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    struct rt_tpl_list out = {0};
    for (size_t i = 0; i < s.n; i++)
        rt_tpl_push(
            e, &out,
            f ? rt_tpl_apply_filter(e, f, s.v[i], &rest)
              : get_path(e, s.v[i], bound[0],
                         GIVEN(bound[1]) && bound[1].kind != RT_TPL_NONE ? &bound[1] : NULL));
    return rt_tpl_list_value(e, &out, RT_TPL_ITER);
}

/* select and reject test elements; selectattr and rejectattr an attribute of theirs. */
static struct rt_tpl_value choose(struct rt_tpl_env *e, struct rt_tpl_value v,
                                  const struct rt_tpl_args *raw, bool attr, bool keep) {
    struct rt_tpl_args rest = *raw;
    struct rt_tpl_value path = {.kind = RT_TPL_MISSING};
    const struct rt_tpl_test *t = NULL;
    if (!rt_tpl_truth(e, v)) /* as in map */
        return rt_tpl_seq(RT_TPL_ITER, NULL, 0, e);
    if (attr) {
        if (!rest.n_pos)
            rt_tpl_fail(e, "%s needs the name of an attribute", keep ? "selectattr" : "rejectattr");
        path = *rest.pos++;
        rest.n_pos--;
    }
    if (rest.n_pos) {
        struct rt_tpl_str name = rt_tpl_need_str(e, *rest.pos++, "the name of a test");
        rest.n_pos--;
        t = rt_tpl_find_test(name);
        if (!t)
            rt_tpl_fail(e, "unknown test '%.*s'", (int)(name.n < 60 ? name.n : 60), name.p);
    } else if (rest.n_kw) {
        rt_tpl_fail(e, "a test is missing before the keyword arguments");
    }
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    struct rt_tpl_list out = {0};
    for (size_t i = 0; i < s.n; i++) {
        struct rt_tpl_value x = get_path(e, s.v[i], path, NULL);
        rt_tpl_charge(e, 1);
        if ((t ? rt_tpl_apply_test(e, t, x, &rest) : rt_tpl_truth(e, x)) == keep)
            rt_tpl_push(e, &out, s.v[i]);
    }
    return rt_tpl_list_value(e, &out, RT_TPL_ITER);
}

FILTER(f_select) {
    UNUSED;
    return choose(e, v, raw, false, true);
}

FILTER(f_reject) {
    UNUSED;
    return choose(e, v, raw, false, false);
}

FILTER(f_selectattr) {
    UNUSED;
    return choose(e, v, raw, true, true);
}

FILTER(f_rejectattr) {
    UNUSED;
    return choose(e, v, raw, true, false);
}

const struct rt_tpl_filter rt_tpl_seq_filters[] = {
    {"length", f_length, ""},
    {"count", f_length, ""},
    {"dictsort", f_dictsort, "case_sensitive,by,reverse"},
    {"first", f_first, ""},
    {"items", f_items, ""},
    {"join", f_join, "d,attribute"},
    {"last", f_last, ""},
    {"list", f_list, ""},
    {"map", f_map, NULL},
    {"max", f_max, "case_sensitive,attribute"},
    {"min", f_min, "case_sensitive,attribute"},
    {"reject", f_reject, NULL},
    {"rejectattr", f_rejectattr, NULL},
    {"reverse", f_reverse, ""},
    {"select", f_select, NULL},
    {"selectattr", f_selectattr, NULL},
    {"sort", f_sort, "reverse,case_sensitive,attribute"},
    {"sum", f_sum, "attribute,start"},
    {"unique", f_unique, "case_sensitive,attribute"},
    {0},
};

/* The tojson filter: json.dumps(v, ensure_ascii=False), as transformers defines it. */
#include "tpl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct writer {
    struct rt_tpl_env *e;
    struct rt_tpl_buf b;
    bool ascii, sort, pretty;
    struct rt_tpl_str indent, item_sep, key_sep;
};

static void put_escape(struct writer *w, uint32_t c) {
    if (c >= 0x10000) {
        c -= 0x10000;
        rt_tpl_printf(w->e, &w->b, "\\u%04x\\u%04x", (unsigned)(0xd800 + (c >> 10)),
                      (unsigned)(0xdc00 + (c & 0x3ff)));
    } else {
        rt_tpl_printf(w->e, &w->b, "\\u%04x", (unsigned)c);
    }
}

static void put_string(struct writer *w, struct rt_tpl_str s) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    rt_tpl_putc(w->e, &w->b, '"');
    for (size_t i = 0, used; i < s.n; i += used) {
        uint32_t c = rt_tpl_utf8_next(s.p + i, s.n - i, &used);
        const char *simple = c && c < 0x80 ? strchr(from, (int)c) : NULL;
        rt_tpl_charge(w->e, i % 16 == 0);
        if (simple) {
            rt_tpl_putc(w->e, &w->b, '\\');
            rt_tpl_putc(w->e, &w->b, to[simple - from]);
        } else if (c < 0x20 || (w->ascii && c > 0x7e)) {
            put_escape(w, c);
        } else {
            rt_tpl_put(w->e, &w->b, s.p + i, used);
        }
    }
    rt_tpl_putc(w->e, &w->b, '"');
}

static void put_scalar(struct writer *w, struct rt_tpl_value v) {
    switch (v.kind) {
    case RT_TPL_NONE:
        rt_tpl_puts(w->e, &w->b, "null");
        break;
    case RT_TPL_BOOL:
        rt_tpl_puts(w->e, &w->b, v.u.b ? "true" : "false");
        break;
    case RT_TPL_FLOAT:
        if (isnan(v.u.f))
            rt_tpl_puts(w->e, &w->b, "NaN");
        else if (isinf(v.u.f))
            rt_tpl_puts(w->e, &w->b, v.u.f < 0 ? "-Infinity" : "Infinity");
        else
            rt_tpl_put_float(w->e, &w->b, v.u.f);
        break;
    default:
        rt_tpl_put_repr(w->e, &w->b, v); /* int */
    }
}

static void new_line(struct writer *w, int level) {
    if (!w->pretty)
        return;
    rt_tpl_putc(w->e, &w->b, '\n');
    for (int i = 0; i < level; i++) {
        rt_tpl_charge(w->e, 1);
        rt_tpl_put(w->e, &w->b, w->indent.p, w->indent.n);
    }
}

static void put_value(struct writer *w, struct rt_tpl_value v, int level);

static void put_array(struct writer *w, const struct rt_tpl_seq *s, int level) {
    rt_tpl_putc(w->e, &w->b, '[');
    for (size_t i = 0; i < s->n; i++) {
        if (i)
            rt_tpl_put(w->e, &w->b, w->item_sep.p, w->item_sep.n);
        new_line(w, level + 1);
        put_value(w, s->v[i], level + 1);
    }
    if (s->n)
        new_line(w, level);
    rt_tpl_putc(w->e, &w->b, ']');
}

/* Merge sort of entry numbers by key, which Python compares as they are. */
static void sort_keys(struct writer *w, const struct rt_tpl_dict *d, size_t *order, size_t *tmp,
                      size_t n) {
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, k = 0;
    sort_keys(w, d, order, tmp, half);
    sort_keys(w, d, order + half, tmp, n - half);
    while (i < half || j < n) {
        rt_tpl_charge(w->e, 1);
        bool right = i == half ||
                     (j < n && rt_tpl_compare(w->e, d->keys[order[j]], d->keys[order[i]], "<") < 0);
        tmp[k++] = order[right ? j++ : i++];
    }
    memcpy(order, tmp, n * sizeof *order);
}

static void put_object(struct writer *w, const struct rt_tpl_dict *d, int level) {
    size_t *order = rt_tpl_alloc(w->e, (d->n + 1) * sizeof *order);
    for (size_t i = 0; i < d->n; i++)
        order[i] = i;
    if (w->sort)
        sort_keys(w, d, order, rt_tpl_alloc(w->e, (d->n + 1) * sizeof *order), d->n);
    rt_tpl_putc(w->e, &w->b, '{');
    for (size_t i = 0; i < d->n; i++) {
        struct rt_tpl_value key = d->keys[order[i]];
        if (i)
            rt_tpl_put(w->e, &w->b, w->item_sep.p, w->item_sep.n);
        new_line(w, level + 1);
        if (key.kind == RT_TPL_STR) {
            put_string(w, key.u.s);
        } else if (key.kind == RT_TPL_NONE || rt_tpl_is_number(key)) {
            rt_tpl_putc(w->e, &w->b, '"');
            put_scalar(w, key);
            rt_tpl_putc(w->e, &w->b, '"');
        } else {
            rt_tpl_fail(w->e, "tojson: a dict key is a %s, expected a str, number or none",
                        rt_tpl_type_name(key));
        }
        rt_tpl_put(w->e, &w->b, w->key_sep.p, w->key_sep.n);
        put_value(w, d->vals[order[i]], level + 1);
    }
    if (d->n)
        new_line(w, level);
    rt_tpl_putc(w->e, &w->b, '}');
}

static void put_value(struct writer *w, struct rt_tpl_value v, int level) {
    rt_tpl_charge(w->e, 1);
    rt_tpl_enter(w->e);
    switch (v.kind) {
    case RT_TPL_STR:
        put_string(w, v.u.s);
        break;
    case RT_TPL_LIST:
    case RT_TPL_TUPLE:
        put_array(w, v.u.seq, level);
        break;
    case RT_TPL_DICT:
        put_object(w, v.u.dict, level);
        break;
    case RT_TPL_NONE:
    case RT_TPL_BOOL:
    case RT_TPL_INT:
    case RT_TPL_FLOAT:
        put_scalar(w, v);
        break;
    default:
        rt_tpl_need_defined(w->e, v);
        rt_tpl_fail(w->e, "tojson: a %s cannot be written as JSON%s", rt_tpl_type_name(v),
                    v.kind == RT_TPL_ITER || v.kind == RT_TPL_VIEW || v.kind == RT_TPL_RANGE
                        ? "; use |list first"
                        : "");
    }
    rt_tpl_leave(w->e);
}

struct rt_tpl_value rt_tpl_filter_tojson(struct rt_tpl_env *e, struct rt_tpl_value v,
                                         const struct rt_tpl_value *arg,
                                         const struct rt_tpl_args *raw) {
    (void)raw;
    struct writer w = {.e = e, .item_sep = RT_TPL_S(", "), .key_sep = RT_TPL_S(": ")};
    int64_t width;
    w.ascii = arg[0].kind != RT_TPL_MISSING && rt_tpl_truth(e, arg[0]);
    if (arg[1].kind == RT_TPL_STR) {
        w.indent = arg[1].u.s;
        w.pretty = true;
    } else if (rt_tpl_as_int(arg[1], &width)) {
        struct rt_tpl_buf spaces = {0};
        for (int64_t i = 0; i < width; i++)
            rt_tpl_putc(e, &spaces, ' ');
        w.indent = rt_tpl_buf_str(&spaces);
        w.pretty = true;
    } else if (arg[1].kind != RT_TPL_MISSING && arg[1].kind != RT_TPL_NONE) {
        rt_tpl_fail(e, "tojson: indent is a %s, expected an int or str", rt_tpl_type_name(arg[1]));
    }
    if (w.pretty)
        w.item_sep = RT_TPL_S(",");
    if (arg[2].kind != RT_TPL_MISSING && arg[2].kind != RT_TPL_NONE) {
        struct rt_tpl_seq s = rt_tpl_iterate(e, arg[2]);
        if (s.n != 2)
            rt_tpl_fail(e, "tojson: separators has %zu elements, expected 2", s.n);
        w.item_sep = rt_tpl_need_str(e, s.v[0], "a separator of tojson");
        w.key_sep = rt_tpl_need_str(e, s.v[1], "a separator of tojson");
    }
    w.sort = arg[3].kind != RT_TPL_MISSING && rt_tpl_truth(e, arg[3]);
    put_value(&w, v, 0);
    return rt_tpl_buf_value(&w.b);
}

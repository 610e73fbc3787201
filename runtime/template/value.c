/* Values: construction, dictionaries, truth, equality, order, str() and repr(). */
#include "tpl.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct rt_tpl_value rt_tpl_none(void) {
    return (struct rt_tpl_value){.kind = RT_TPL_NONE};
}

struct rt_tpl_value rt_tpl_bool(bool b) {
    return (struct rt_tpl_value){.kind = RT_TPL_BOOL, .u.b = b};
}

struct rt_tpl_value rt_tpl_int(int64_t i) {
    return (struct rt_tpl_value){.kind = RT_TPL_INT, .u.i = i};
}

struct rt_tpl_value rt_tpl_float(double f) {
    return (struct rt_tpl_value){.kind = RT_TPL_FLOAT, .u.f = f};
}

struct rt_tpl_value rt_tpl_string(struct rt_tpl_str s) {
    return (struct rt_tpl_value){.kind = RT_TPL_STR, .u.s = s};
}

struct rt_tpl_value rt_tpl_buf_value(const struct rt_tpl_buf *b) {
    return rt_tpl_string(rt_tpl_buf_str(b));
}

struct rt_tpl_value rt_tpl_undefined(struct rt_tpl_env *e, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    char *copy = rt_tpl_alloc(e, len + 1);
    memcpy(copy, text, len);
    return (struct rt_tpl_value){.kind = RT_TPL_UNDEFINED, .u.s = {copy, len}};
}

struct rt_tpl_value rt_tpl_seq(enum rt_tpl_kind kind, struct rt_tpl_value *v, size_t n,
                               struct rt_tpl_env *e) {
    struct rt_tpl_seq *s = rt_tpl_calloc(e, 1, sizeof *s);
    s->v = v;
    s->n = n;
    return (struct rt_tpl_value){.kind = (uint8_t)kind, .u.seq = s};
}

void rt_tpl_push(struct rt_tpl_env *e, struct rt_tpl_list *l, struct rt_tpl_value v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        struct rt_tpl_value *fresh = rt_tpl_alloc(e, cap * sizeof *fresh);
        if (l->n)
            memcpy(fresh, l->v, l->n * sizeof *fresh);
        l->v = fresh;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    rt_tpl_charge(e, 1);
}

struct rt_tpl_value rt_tpl_list_value(struct rt_tpl_env *e, const struct rt_tpl_list *l,
                                      enum rt_tpl_kind kind) {
    return rt_tpl_seq(kind, l->v, l->n, e);
}

/* ---- dictionaries ---- */

bool rt_tpl_hashable(struct rt_tpl_value v) {
    if (v.kind == RT_TPL_LIST || v.kind == RT_TPL_DICT)
        return false;
    if (v.kind == RT_TPL_TUPLE)
        for (size_t i = 0; i < v.u.seq->n; i++)
            if (v.u.seq->v[i].kind == RT_TPL_TUPLE || !rt_tpl_hashable(v.u.seq->v[i]))
                return false; /* tuples of tuples as keys: refused with the unhashable */
    return true;
}

static uint32_t hash_bytes(uint32_t h, const void *data, size_t n) {
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 16777619u; /* FNV-1a */
    return h;
}

/* Equal values have equal hashes: 1, 1.0 and True are one key in Python. */
static uint32_t hash(struct rt_tpl_env *e, struct rt_tpl_value v) {
    uint32_t h = 2166136261u;
    if (v.kind == RT_TPL_STR) {
        rt_tpl_charge(e, v.u.s.n / 32);
        return hash_bytes(h, v.u.s.p, v.u.s.n);
    }
    if (rt_tpl_is_number(v)) {
        double f = rt_tpl_number(v) + 0.0; /* -0.0 becomes 0.0 */
        return hash_bytes(h, &f, sizeof f);
    }
    if (v.kind == RT_TPL_TUPLE)
        for (size_t i = 0; i < v.u.seq->n; i++)
            h = h * 31 + hash(e, v.u.seq->v[i]);
    return h ^ v.kind;
}

struct rt_tpl_dict *rt_tpl_dict_new(struct rt_tpl_env *e) {
    return rt_tpl_calloc(e, 1, sizeof(struct rt_tpl_dict));
}

/* Index of key k's entry, or SIZE_MAX. */
static size_t dict_find(struct rt_tpl_env *e, const struct rt_tpl_dict *d, struct rt_tpl_value k) {
    if (!rt_tpl_hashable(k))
        rt_tpl_fail(e, "unhashable type: '%s'", rt_tpl_type_name(k));
    if (!d->index_n) {
        for (size_t i = 0; i < d->n; i++)
            if (rt_tpl_equal(e, d->keys[i], k))
                return i;
        return SIZE_MAX;
    }
    size_t mask = d->index_n - 1;
    for (size_t at = hash(e, k) & mask; d->index[at]; at = (at + 1) & mask) {
        rt_tpl_charge(e, 1); /* keys chosen to collide must not go unnoticed */
        if (rt_tpl_equal(e, d->keys[d->index[at] - 1], k))
            return d->index[at] - 1;
    }
    return SIZE_MAX;
}

static void dict_index(struct rt_tpl_env *e, struct rt_tpl_dict *d, size_t i) {
    size_t mask = d->index_n - 1, at = hash(e, d->keys[i]) & mask;
    while (d->index[at]) {
        rt_tpl_charge(e, 1);
        at = (at + 1) & mask;
    }
    d->index[at] = (uint32_t)i + 1;
}

void rt_tpl_dict_set(struct rt_tpl_env *e, struct rt_tpl_dict *d, struct rt_tpl_value k,
                     struct rt_tpl_value v) {
    size_t i = dict_find(e, d, k);
    rt_tpl_charge(e, 1);
    if (i != SIZE_MAX) {
        d->vals[i] = v;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 8;
        struct rt_tpl_value *keys = rt_tpl_alloc(e, cap * sizeof *keys);
        struct rt_tpl_value *vals = rt_tpl_alloc(e, cap * sizeof *vals);
        if (d->n) {
            memcpy(keys, d->keys, d->n * sizeof *keys);
            memcpy(vals, d->vals, d->n * sizeof *vals);
        }
        d->keys = keys;
        d->vals = vals;
        d->cap = cap;
        if (cap > 8) {
            d->index_n = cap * 2;
            d->index = rt_tpl_calloc(e, d->index_n, sizeof *d->index);
            for (size_t j = 0; j < d->n; j++)
                dict_index(e, d, j);
        }
    }
    d->keys[d->n] = k;
    d->vals[d->n] = v;
    d->n++;
    if (d->index_n)
        dict_index(e, d, d->n - 1);
}

struct rt_tpl_value *rt_tpl_dict_get(struct rt_tpl_env *e, const struct rt_tpl_dict *d,
                                     struct rt_tpl_value k) {
    size_t i = dict_find(e, d, k);
    return i == SIZE_MAX ? NULL : &d->vals[i];
}

struct rt_tpl_value *rt_tpl_dict_get_str(struct rt_tpl_env *e, const struct rt_tpl_dict *d,
                                         struct rt_tpl_str k) {
    return rt_tpl_dict_get(e, d, rt_tpl_string(k));
}

/* ---- properties ---- */

const char *rt_tpl_type_name(struct rt_tpl_value v) {
    static const char *const names[] = {
        [RT_TPL_MISSING] = "missing",  [RT_TPL_UNDEFINED] = "Undefined",
        [RT_TPL_NONE] = "NoneType",    [RT_TPL_BOOL] = "bool",
        [RT_TPL_INT] = "int",          [RT_TPL_FLOAT] = "float",
        [RT_TPL_STR] = "str",          [RT_TPL_LIST] = "list",
        [RT_TPL_TUPLE] = "tuple",      [RT_TPL_RANGE] = "range",
        [RT_TPL_VIEW] = "dict view",   [RT_TPL_ITER] = "generator",
        [RT_TPL_DICT] = "dict",        [RT_TPL_NAMESPACE] = "Namespace",
        [RT_TPL_LOOP] = "LoopContext", [RT_TPL_MACRO] = "Macro",
        [RT_TPL_METHOD] = "method",    [RT_TPL_GLOBAL] = "function",
    };
    return v.kind < sizeof names / sizeof *names ? names[v.kind] : "?";
}

void rt_tpl_need_defined(struct rt_tpl_env *e, struct rt_tpl_value v) {
    if (v.kind == RT_TPL_UNDEFINED)
        rt_tpl_fail(e, "%.*s", (int)v.u.s.n, v.u.s.p);
}

struct rt_tpl_str rt_tpl_need_str(struct rt_tpl_env *e, struct rt_tpl_value v, const char *what) {
    rt_tpl_need_defined(e, v);
    if (v.kind != RT_TPL_STR)
        rt_tpl_fail(e, "%s is a %s, expected a str", what, rt_tpl_type_name(v));
    return v.u.s;
}

bool rt_tpl_is_number(struct rt_tpl_value v) {
    return v.kind == RT_TPL_BOOL || v.kind == RT_TPL_INT || v.kind == RT_TPL_FLOAT;
}

double rt_tpl_number(struct rt_tpl_value v) {
    return v.kind == RT_TPL_FLOAT ? v.u.f : v.kind == RT_TPL_INT ? (double)v.u.i : v.u.b;
}

bool rt_tpl_as_int(struct rt_tpl_value v, int64_t *out) {
    if (v.kind != RT_TPL_INT && v.kind != RT_TPL_BOOL)
        return false;
    *out = v.kind == RT_TPL_INT ? v.u.i : v.u.b;
    return true;
}

bool rt_tpl_truth(struct rt_tpl_env *e, struct rt_tpl_value v) {
    (void)e;
    switch (v.kind) {
    case RT_TPL_UNDEFINED:
    case RT_TPL_NONE:
        return false;
    case RT_TPL_BOOL:
        return v.u.b;
    case RT_TPL_INT:
        return v.u.i != 0;
    case RT_TPL_FLOAT:
        return v.u.f != 0;
    case RT_TPL_STR:
        return v.u.s.n != 0;
    case RT_TPL_LIST:
    case RT_TPL_TUPLE:
    case RT_TPL_RANGE:
    case RT_TPL_VIEW:
        return v.u.seq->n != 0;
    case RT_TPL_DICT:
        return v.u.dict->n != 0;
    default:
        return true; /* generators too, even when they would give nothing */
    }
}

/* Sign of a - b, exact also where an int has no double. Neither is NaN. */
static int compare_numbers(struct rt_tpl_value a, struct rt_tpl_value b) {
    int64_t x, y;
    bool xi = rt_tpl_as_int(a, &x), yi = rt_tpl_as_int(b, &y);
    if (xi && yi)
        return (x > y) - (x < y);
    if (!xi && !yi)
        return (a.u.f > b.u.f) - (a.u.f < b.u.f);
    if (!xi)
        return -compare_numbers(b, a);
    double f = b.u.f;
    if (f >= 9223372036854775808.0)
        return -1;
    if (f < -9223372036854775808.0)
        return 1;
    int64_t whole = (int64_t)f; /* towards zero; the rest decides */
    if (x != whole)
        return x > whole ? 1 : -1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

static bool is_nan(struct rt_tpl_value v) {
    return v.kind == RT_TPL_FLOAT && isnan(v.u.f);
}

bool rt_tpl_equal(struct rt_tpl_env *e, struct rt_tpl_value a, struct rt_tpl_value b) {
    if (rt_tpl_is_number(a) && rt_tpl_is_number(b))
        return !is_nan(a) && !is_nan(b) && compare_numbers(a, b) == 0;
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case RT_TPL_UNDEFINED:
    case RT_TPL_NONE:
        return true;
    case RT_TPL_STR:
        if (a.u.s.n != b.u.s.n)
            return false;
        rt_tpl_charge(e, a.u.s.n / 32);
        return rt_tpl_str_eq(a.u.s, b.u.s);
    case RT_TPL_VIEW:
        rt_tpl_fail(e, "comparing dict views is not supported; use |list first");
    case RT_TPL_LIST:
    case RT_TPL_TUPLE:
    case RT_TPL_RANGE: {
        if (a.u.seq->n != b.u.seq->n)
            return false;
        rt_tpl_enter(e);
        bool same = true;
        for (size_t i = 0; same && i < a.u.seq->n; i++) {
            rt_tpl_charge(e, 1);
            same = rt_tpl_equal(e, a.u.seq->v[i], b.u.seq->v[i]);
        }
        rt_tpl_leave(e);
        return same;
    }
    case RT_TPL_DICT: {
        if (a.u.dict->n != b.u.dict->n)
            return false;
        rt_tpl_enter(e);
        bool same = true;
        for (size_t i = 0; same && i < a.u.dict->n; i++) {
            rt_tpl_charge(e, 1);
            struct rt_tpl_value *other = rt_tpl_dict_get(e, b.u.dict, a.u.dict->keys[i]);
            same = other && rt_tpl_equal(e, a.u.dict->vals[i], *other);
        }
        rt_tpl_leave(e);
        return same;
    }
    case RT_TPL_METHOD:
        return a.u.method == b.u.method;
    case RT_TPL_ITER:
        return a.u.seq == b.u.seq;
    case RT_TPL_NAMESPACE:
        return a.u.dict == b.u.dict;
    case RT_TPL_LOOP:
        return a.u.loop == b.u.loop;
    case RT_TPL_MACRO:
        return a.u.macro == b.u.macro;
    default:
        return a.u.global == b.u.global;
    }
}

/* Sign of a - b for sorting and `op`; fails where Python raises TypeError. A NaN compares as
 * unordered in Python, which has no sign, so it is refused. */
int rt_tpl_compare(struct rt_tpl_env *e, struct rt_tpl_value a, struct rt_tpl_value b,
                   const char *op) {
    if (is_nan(a) || is_nan(b))
        rt_tpl_fail(e, "comparing nan with '%s' is not supported", op);
    if (rt_tpl_is_number(a) && rt_tpl_is_number(b))
        return compare_numbers(a, b);
    if (a.kind == RT_TPL_STR && b.kind == RT_TPL_STR) {
        rt_tpl_charge(e, (a.u.s.n < b.u.s.n ? a.u.s.n : b.u.s.n) / 32);
        return rt_tpl_str_cmp(a.u.s, b.u.s);
    }
    if (a.kind == b.kind && (a.kind == RT_TPL_LIST || a.kind == RT_TPL_TUPLE)) {
        const struct rt_tpl_seq *x = a.u.seq, *y = b.u.seq;
        int c = (x->n > y->n) - (x->n < y->n);
        rt_tpl_enter(e);
        for (size_t i = 0; i < x->n && i < y->n; i++) {
            rt_tpl_charge(e, 1);
            if (!rt_tpl_equal(e, x->v[i], y->v[i])) {
                c = rt_tpl_compare(e, x->v[i], y->v[i], op);
                break;
            }
        }
        rt_tpl_leave(e);
        return c;
    }
    rt_tpl_need_defined(e, a);
    rt_tpl_need_defined(e, b);
    rt_tpl_fail(e, "'%s' not supported between '%s' and '%s'", op, rt_tpl_type_name(a),
                rt_tpl_type_name(b));
}

bool rt_tpl_contains(struct rt_tpl_env *e, struct rt_tpl_value in, struct rt_tpl_value what) {
    if (in.kind == RT_TPL_STR) {
        struct rt_tpl_str s = rt_tpl_need_str(e, what, "the left side of 'in' a str");
        return rt_tpl_find(e, in.u.s, s) != SIZE_MAX;
    }
    if (in.kind == RT_TPL_DICT)
        return rt_tpl_dict_get(e, in.u.dict, what) != NULL;
    if (!rt_tpl_iterable(in))
        rt_tpl_fail(e, "'in' needs a str, list, tuple or dict on its right, found %s",
                    rt_tpl_type_name(in));
    if (in.kind == RT_TPL_UNDEFINED)
        return false;
    struct rt_tpl_seq *s = in.u.seq;
    for (size_t i = s->pos; i < s->n; i++) {
        rt_tpl_charge(e, 1);
        if (in.kind == RT_TPL_ITER)
            s->pos = i + 1;
        if (rt_tpl_equal(e, s->v[i], what))
            return true;
    }
    return false;
}

/* ---- iteration ---- */

bool rt_tpl_iterable(struct rt_tpl_value v) {
    switch (v.kind) {
    case RT_TPL_UNDEFINED: /* gives nothing */
    case RT_TPL_STR:
    case RT_TPL_LIST:
    case RT_TPL_TUPLE:
    case RT_TPL_RANGE:
    case RT_TPL_VIEW:
    case RT_TPL_ITER:
    case RT_TPL_DICT:
        return true;
    default:
        return false;
    }
}

struct rt_tpl_seq rt_tpl_iterate(struct rt_tpl_env *e, struct rt_tpl_value v) {
    switch (v.kind) {
    case RT_TPL_UNDEFINED:
        return (struct rt_tpl_seq){0};
    case RT_TPL_STR: {
        struct rt_tpl_list l = {0};
        for (size_t i = 0, used; i < v.u.s.n; i += used) {
            rt_tpl_utf8_next(v.u.s.p + i, v.u.s.n - i, &used);
            rt_tpl_push(e, &l, rt_tpl_string((struct rt_tpl_str){v.u.s.p + i, used}));
        }
        return (struct rt_tpl_seq){.v = l.v, .n = l.n};
    }
    case RT_TPL_DICT:
        return (struct rt_tpl_seq){.v = v.u.dict->keys, .n = v.u.dict->n};
    case RT_TPL_ITER: {
        struct rt_tpl_seq *s = v.u.seq;
        struct rt_tpl_seq rest = {.v = s->n ? s->v + s->pos : NULL, .n = s->n - s->pos};
        s->pos = s->n;
        return rest;
    }
    default:
        if (!rt_tpl_iterable(v))
            rt_tpl_fail(e, "'%s' object is not iterable", rt_tpl_type_name(v));
        return *v.u.seq;
    }
}

int64_t rt_tpl_length(struct rt_tpl_env *e, struct rt_tpl_value v) {
    switch (v.kind) {
    case RT_TPL_UNDEFINED:
        return 0;
    case RT_TPL_STR:
        rt_tpl_charge(e, v.u.s.n / 32);
        return (int64_t)rt_tpl_str_len(v.u.s);
    case RT_TPL_DICT:
        return (int64_t)v.u.dict->n;
    case RT_TPL_LIST:
    case RT_TPL_TUPLE:
    case RT_TPL_RANGE:
    case RT_TPL_VIEW:
        return (int64_t)v.u.seq->n;
    default:
        rt_tpl_fail(e, "object of type '%s' has no length%s", rt_tpl_type_name(v),
                    v.kind == RT_TPL_ITER ? "; use |list first" : "");
    }
}

/* ---- str() and repr() ---- */

static void repr_str(struct rt_tpl_env *e, struct rt_tpl_buf *b, struct rt_tpl_str s) {
    bool single = s.n && memchr(s.p, '\'', s.n), twice = s.n && memchr(s.p, '"', s.n);
    char quote = single && !twice ? '"' : '\'';
    rt_tpl_putc(e, b, quote);
    for (size_t i = 0, used; i < s.n; i += used) {
        uint32_t c = rt_tpl_utf8_next(s.p + i, s.n - i, &used);
        rt_tpl_charge(e, i % 16 == 0);
        if (c == (uint32_t)quote || c == '\\')
            rt_tpl_printf(e, b, "\\%c", (int)c);
        else if (c == '\n')
            rt_tpl_puts(e, b, "\\n");
        else if (c == '\r')
            rt_tpl_puts(e, b, "\\r");
        else if (c == '\t')
            rt_tpl_puts(e, b, "\\t");
        else if (rt_tpl_printable(c))
            rt_tpl_put(e, b, s.p + i, used);
        else if (c < 0x100)
            rt_tpl_printf(e, b, "\\x%02x", (unsigned)c);
        else if (c < 0x10000)
            rt_tpl_printf(e, b, "\\u%04x", (unsigned)c);
        else
            rt_tpl_printf(e, b, "\\U%08x", (unsigned)c);
    }
    rt_tpl_putc(e, b, quote);
}

static void repr_items(struct rt_tpl_env *e, struct rt_tpl_buf *b, const struct rt_tpl_seq *s) {
    for (size_t i = 0; i < s->n; i++) {
        if (i)
            rt_tpl_puts(e, b, ", ");
        rt_tpl_put_repr(e, b, s->v[i]);
    }
}

void rt_tpl_put_repr(struct rt_tpl_env *e, struct rt_tpl_buf *b, struct rt_tpl_value v) {
    rt_tpl_charge(e, 1);
    rt_tpl_enter(e);
    switch (v.kind) {
    case RT_TPL_UNDEFINED:
        rt_tpl_puts(e, b, "Undefined");
        break;
    case RT_TPL_NONE:
        rt_tpl_puts(e, b, "None");
        break;
    case RT_TPL_BOOL:
        rt_tpl_puts(e, b, v.u.b ? "True" : "False");
        break;
    case RT_TPL_INT:
        rt_tpl_printf(e, b, "%lld", (long long)v.u.i);
        break;
    case RT_TPL_FLOAT:
        rt_tpl_put_float(e, b, v.u.f);
        break;
    case RT_TPL_STR:
        if (v.safe)
            rt_tpl_fail(e, "printing a list or dict with a text marked |safe is not supported");
        repr_str(e, b, v.u.s);
        break;
    case RT_TPL_LIST:
        rt_tpl_putc(e, b, '[');
        repr_items(e, b, v.u.seq);
        rt_tpl_putc(e, b, ']');
        break;
    case RT_TPL_TUPLE:
        rt_tpl_putc(e, b, '(');
        repr_items(e, b, v.u.seq);
        rt_tpl_puts(e, b, v.u.seq->n == 1 ? ",)" : ")");
        break;
    case RT_TPL_RANGE:
        rt_tpl_puts(e, b, v.u.seq->label);
        break;
    case RT_TPL_VIEW:
        rt_tpl_puts(e, b, v.u.seq->label);
        rt_tpl_puts(e, b, "([");
        repr_items(e, b, v.u.seq);
        rt_tpl_puts(e, b, "])");
        break;
    case RT_TPL_DICT:
        rt_tpl_putc(e, b, '{');
        for (size_t i = 0; i < v.u.dict->n; i++) {
            if (i)
                rt_tpl_puts(e, b, ", ");
            rt_tpl_put_repr(e, b, v.u.dict->keys[i]);
            rt_tpl_puts(e, b, ": ");
            rt_tpl_put_repr(e, b, v.u.dict->vals[i]);
        }
        rt_tpl_putc(e, b, '}');
        break;
    default:
        rt_tpl_fail(e, "a %s cannot be printed%s", rt_tpl_type_name(v),
                    v.kind == RT_TPL_ITER     ? "; use |list or |join"
                    : v.kind == RT_TPL_METHOD ? "; it is not called"
                                              : "");
    }
    rt_tpl_leave(e);
}

void rt_tpl_put_str(struct rt_tpl_env *e, struct rt_tpl_buf *b, struct rt_tpl_value v) {
    if (v.kind == RT_TPL_STR)
        rt_tpl_put(e, b, v.u.s.p, v.u.s.n);
    else if (v.kind != RT_TPL_UNDEFINED)
        rt_tpl_put_repr(e, b, v);
}

struct rt_tpl_str rt_tpl_to_str(struct rt_tpl_env *e, struct rt_tpl_value v) {
    if (v.kind == RT_TPL_STR)
        return v.u.s;
    struct rt_tpl_buf b = {0};
    rt_tpl_put_str(e, &b, v);
    return rt_tpl_buf_str(&b);
}

/* ---- the context ---- */

struct rt_tpl_value rt_tpl_from_json(struct rt_tpl_env *e, const cJSON *j) {
    struct rt_tpl_value v = rt_tpl_none();
    rt_tpl_enter(e);
    rt_tpl_charge(e, 1);
    switch (j->type & 0xff) {
    case cJSON_False:
    case cJSON_True:
        v = rt_tpl_bool(cJSON_IsTrue(j));
        break;
    case cJSON_NULL:
        break;
    case cJSON_Number: {
        double d = j->valuedouble;
        bool whole = d >= -9007199254740992.0 && d <= 9007199254740992.0 && d == floor(d);
        v = whole ? rt_tpl_int((int64_t)d) : rt_tpl_float(d);
        break;
    }
    case cJSON_String:
        v = rt_tpl_string(rt_tpl_cstr(j->valuestring ? j->valuestring : ""));
        if (!rt_tpl_utf8_valid(v.u.s.p, v.u.s.n))
            rt_tpl_fail(e, "a string of the context is not valid UTF-8");
        break;
    case cJSON_Array: {
        struct rt_tpl_list l = {0};
        for (const cJSON *k = j->child; k; k = k->next)
            rt_tpl_push(e, &l, rt_tpl_from_json(e, k));
        v = rt_tpl_list_value(e, &l, RT_TPL_LIST);
        break;
    }
    case cJSON_Object: {
        v = (struct rt_tpl_value){.kind = RT_TPL_DICT, .u.dict = rt_tpl_dict_new(e)};
        for (const cJSON *k = j->child; k; k = k->next) {
            struct rt_tpl_str key = rt_tpl_cstr(k->string ? k->string : "");
            if (!rt_tpl_utf8_valid(key.p, key.n))
                rt_tpl_fail(e, "a key of the context is not valid UTF-8");
            rt_tpl_dict_set(e, v.u.dict, rt_tpl_string(key), rt_tpl_from_json(e, k));
        }
        break;
    }
    default:
        rt_tpl_fail(e, "the context holds a JSON item of unknown type %d", j->type & 0xff);
    }
    rt_tpl_leave(e);
    return v;
}

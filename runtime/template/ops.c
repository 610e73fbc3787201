/* Operators, attributes, subscripts and slices, as the sandboxed jinja2 environment has them. */
#include "tpl.h"

#include <math.h>
#include <string.h>

static const char *op_text(int op) {
    switch (op) {
    case RT_TPL_T_ADD:
        return "+";
    case RT_TPL_T_SUB:
        return "-";
    case RT_TPL_T_MUL:
        return "*";
    case RT_TPL_T_DIV:
        return "/";
    case RT_TPL_T_FLOORDIV:
        return "//";
    case RT_TPL_T_MOD:
        return "%";
    default:
        return "**";
    }
}

static _Noreturn void overflow(struct rt_tpl_env *e) {
    rt_tpl_fail(e, "integer does not fit in 64 bits");
}

static _Noreturn void bad_operands(struct rt_tpl_env *e, int op, struct rt_tpl_value a,
                                   struct rt_tpl_value b) {
    rt_tpl_need_defined(e, a);
    rt_tpl_need_defined(e, b);
    rt_tpl_fail(e, "unsupported operands for %s: '%s' and '%s'", op_text(op), rt_tpl_type_name(a),
                rt_tpl_type_name(b));
}

static struct rt_tpl_value int_pow(struct rt_tpl_env *e, int64_t x, int64_t y) {
    int64_t r = 1;
    if (y < 0) {
        if (x == 0)
            rt_tpl_fail(e, "0 cannot be raised to a negative power");
        return rt_tpl_float(pow((double)x, (double)y));
    }
    while (y > 0) {
        if ((y & 1) && __builtin_mul_overflow(r, x, &r))
            overflow(e);
        y >>= 1;
        if (y && __builtin_mul_overflow(x, x, &x))
            overflow(e);
    }
    return rt_tpl_int(r);
}

static struct rt_tpl_value int_op(struct rt_tpl_env *e, int op, int64_t x, int64_t y) {
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case RT_TPL_T_ADD:
        over = __builtin_add_overflow(x, y, &r);
        break;
    case RT_TPL_T_SUB:
        over = __builtin_sub_overflow(x, y, &r);
        break;
    case RT_TPL_T_MUL:
        over = __builtin_mul_overflow(x, y, &r);
        break;
    case RT_TPL_T_POW:
        return int_pow(e, x, y);
    default:
        if (y == 0)
            rt_tpl_fail(e, "division by zero");
        if (op == RT_TPL_T_DIV) {
            if (x > (1ll << 53) || x < -(1ll << 53) || y > (1ll << 53) || y < -(1ll << 53))
                rt_tpl_fail(e, "dividing integers beyond 2**53 is not supported");
            return rt_tpl_float((double)x / (double)y);
        }
        if (x == INT64_MIN && y == -1) {
            over = op == RT_TPL_T_FLOORDIV;
            break;
        }
        r = op == RT_TPL_T_MOD ? x % y : x / y;
        /* Python rounds down, C towards zero. */
        if (x % y != 0 && (x < 0) != (y < 0))
            r = op == RT_TPL_T_MOD ? r + y : r - 1;
    }
    if (over)
        overflow(e);
    return rt_tpl_int(r);
}

static struct rt_tpl_value float_op(struct rt_tpl_env *e, int op, double x, double y) {
    switch (op) {
    case RT_TPL_T_ADD:
        return rt_tpl_float(x + y);
    case RT_TPL_T_SUB:
        return rt_tpl_float(x - y);
    case RT_TPL_T_MUL:
        return rt_tpl_float(x * y);
    case RT_TPL_T_POW: {
        if (x == 0 && y < 0)
            rt_tpl_fail(e, "0.0 cannot be raised to a negative power");
        if (x < 0 && y != floor(y))
            rt_tpl_fail(e, "complex numbers are not supported");
        double r = pow(x, y);
        if (isinf(r) && !isinf(x) && !isinf(y))
            rt_tpl_fail(e, "result of ** is too large");
        return rt_tpl_float(r);
    }
    default:
        break;
    }
    if (y == 0)
        rt_tpl_fail(e, "division by zero");
    if (op == RT_TPL_T_DIV)
        return rt_tpl_float(x / y);
    /* CPython's float_divmod: the remainder has the divisor's sign, the quotient is floored. */
    double mod = fmod(x, y), div = (x - mod) / y;
    if (mod != 0) {
        if ((y < 0) != (mod < 0)) {
            mod += y;
            div -= 1;
        }
    } else {
        mod = copysign(0.0, y);
    }
    if (op == RT_TPL_T_MOD)
        return rt_tpl_float(mod);
    double whole = div != 0 ? floor(div) : copysign(0.0, x / y);
    if (div - whole > 0.5)
        whole += 1;
    return rt_tpl_float(whole);
}

static struct rt_tpl_value repeat(struct rt_tpl_env *e, struct rt_tpl_value v, int64_t times) {
    if (times < 0)
        times = 0;
    if (v.kind == RT_TPL_STR) {
        struct rt_tpl_buf b = {0};
        if (v.u.s.n)
            for (int64_t i = 0; i < times; i++) {
                rt_tpl_charge(e, 1);
                rt_tpl_put(e, &b, v.u.s.p, v.u.s.n);
            }
        return rt_tpl_buf_value(&b);
    }
    struct rt_tpl_list l = {0};
    if (v.u.seq->n)
        for (int64_t i = 0; i < times; i++)
            for (size_t k = 0; k < v.u.seq->n; k++)
                rt_tpl_push(e, &l, v.u.seq->v[k]);
    return rt_tpl_list_value(e, &l, v.kind);
}

static struct rt_tpl_value join_two(struct rt_tpl_env *e, struct rt_tpl_value a,
                                    struct rt_tpl_value b) {
    if (a.kind == RT_TPL_STR) {
        if (a.safe || b.safe)
            rt_tpl_fail(e, "'+' with a text marked |safe is not supported (it would escape HTML); "
                           "use '~'");
        size_t n = a.u.s.n + b.u.s.n;
        if (n > RT_TPL_MAX_OUTPUT)
            rt_tpl_fail(e, "makes a text of more than %u MiB", RT_TPL_MAX_OUTPUT >> 20);
        if (b.u.s.n == 0)
            return a;
        char *p = rt_tpl_alloc(e, n);
        if (a.u.s.n)
            memcpy(p, a.u.s.p, a.u.s.n);
        memcpy(p + a.u.s.n, b.u.s.p, b.u.s.n);
        rt_tpl_charge(e, n / 32);
        return rt_tpl_string((struct rt_tpl_str){p, n});
    }
    struct rt_tpl_list l = {0};
    for (size_t i = 0; i < a.u.seq->n; i++)
        rt_tpl_push(e, &l, a.u.seq->v[i]);
    for (size_t i = 0; i < b.u.seq->n; i++)
        rt_tpl_push(e, &l, b.u.seq->v[i]);
    return rt_tpl_list_value(e, &l, a.kind);
}

struct rt_tpl_value rt_tpl_binary(struct rt_tpl_env *e, int op, struct rt_tpl_value a,
                                  struct rt_tpl_value b) {
    int64_t x, y;
    if (rt_tpl_is_number(a) && rt_tpl_is_number(b)) {
        if (rt_tpl_as_int(a, &x) && rt_tpl_as_int(b, &y))
            return int_op(e, op, x, y);
        return float_op(e, op, rt_tpl_number(a), rt_tpl_number(b));
    }
    bool a_seq = a.kind == RT_TPL_STR || a.kind == RT_TPL_LIST || a.kind == RT_TPL_TUPLE;
    bool b_seq = b.kind == RT_TPL_STR || b.kind == RT_TPL_LIST || b.kind == RT_TPL_TUPLE;
    if (op == RT_TPL_T_ADD && a_seq && a.kind == b.kind)
        return join_two(e, a, b);
    if (op == RT_TPL_T_MUL && a_seq && rt_tpl_as_int(b, &y))
        return repeat(e, a, y);
    if (op == RT_TPL_T_MUL && b_seq && rt_tpl_as_int(a, &x))
        return repeat(e, b, x);
    if (op == RT_TPL_T_MOD && a.kind == RT_TPL_STR)
        rt_tpl_fail(e, "formatting with '%%' is not supported; use '~' to join texts");
    bad_operands(e, op, a, b);
}

struct rt_tpl_value rt_tpl_negate(struct rt_tpl_env *e, struct rt_tpl_value v, bool minus) {
    int64_t i;
    if (v.kind == RT_TPL_FLOAT)
        return rt_tpl_float(minus ? -v.u.f : v.u.f);
    if (!rt_tpl_as_int(v, &i)) {
        rt_tpl_need_defined(e, v);
        rt_tpl_fail(e, "unary '%c' needs a number, found %s", minus ? '-' : '+',
                    rt_tpl_type_name(v));
    }
    if (minus && i == INT64_MIN)
        overflow(e);
    return rt_tpl_int(minus ? -i : i);
}

/* ---- attributes and subscripts ---- */

static struct rt_tpl_value no_attribute(struct rt_tpl_env *e, struct rt_tpl_value v,
                                        struct rt_tpl_str name) {
    int n = (int)(name.n < 100 ? name.n : 100);
    if (v.kind == RT_TPL_NONE)
        return rt_tpl_undefined(e, "None has no attribute '%.*s'", n, name.p);
    return rt_tpl_undefined(e, "'%s object' has no attribute '%.*s'", rt_tpl_type_name(v), n,
                            name.p);
}

static struct rt_tpl_value method_value(struct rt_tpl_env *e, struct rt_tpl_value self,
                                        const struct rt_tpl_method_def *def) {
    struct rt_tpl_method *m = rt_tpl_alloc(e, sizeof *m);
    m->self = self;
    m->def = def;
    return (struct rt_tpl_value){.kind = RT_TPL_METHOD, .u.method = m};
}

/* `v.name`: Python's attribute first, then the key. */
struct rt_tpl_value rt_tpl_getattr(struct rt_tpl_env *e, struct rt_tpl_value v,
                                   struct rt_tpl_str name) {
    rt_tpl_need_defined(e, v);
    if (v.kind == RT_TPL_LOOP)
        return rt_tpl_loop_attr(e, v.u.loop, name);
    if (v.kind == RT_TPL_NAMESPACE) {
        struct rt_tpl_value *found = rt_tpl_dict_get_str(e, v.u.dict, name);
        return found ? *found : no_attribute(e, v, name);
    }
    const struct rt_tpl_method_def *def = rt_tpl_find_method(e, v, name);
    if (def)
        return method_value(e, v, def);
    if (v.kind == RT_TPL_DICT) {
        struct rt_tpl_value *found = rt_tpl_dict_get_str(e, v.u.dict, name);
        if (found)
            return *found;
    }
    return no_attribute(e, v, name);
}

/* `v[key]`: the element first, then Python's attribute. */
struct rt_tpl_value rt_tpl_getitem(struct rt_tpl_env *e, struct rt_tpl_value v,
                                   struct rt_tpl_value key) {
    rt_tpl_need_defined(e, v);
    int64_t i;
    if (v.kind == RT_TPL_DICT && rt_tpl_hashable(key)) {
        struct rt_tpl_value *found = rt_tpl_dict_get(e, v.u.dict, key);
        if (found)
            return *found;
    }
    bool indexed = v.kind == RT_TPL_STR || v.kind == RT_TPL_LIST || v.kind == RT_TPL_TUPLE ||
                   v.kind == RT_TPL_RANGE;
    if (indexed && rt_tpl_as_int(key, &i)) {
        int64_t n = rt_tpl_length(e, v);
        if (i < 0)
            i += n;
        if (i >= 0 && i < n) {
            if (v.kind != RT_TPL_STR)
                return v.u.seq->v[i];
            rt_tpl_charge(e, (size_t)i / 32);
            size_t at = rt_tpl_str_offset(v.u.s, (size_t)i), used;
            rt_tpl_utf8_next(v.u.s.p + at, v.u.s.n - at, &used);
            return rt_tpl_string((struct rt_tpl_str){v.u.s.p + at, used});
        }
        return rt_tpl_undefined(e, "'%s object' has no element %lld", rt_tpl_type_name(v),
                                (long long)i);
    }
    if (key.kind == RT_TPL_STR && v.kind != RT_TPL_DICT)
        return rt_tpl_getattr(e, v, key.u.s);
    if (key.kind == RT_TPL_STR) {
        const struct rt_tpl_method_def *def = rt_tpl_find_method(e, v, key.u.s);
        return def ? method_value(e, v, def) : no_attribute(e, v, key.u.s);
    }
    return rt_tpl_undefined(e, "'%s object' has no such element", rt_tpl_type_name(v));
}

/* A bound of a slice: None or an int, clipped to [low, high] after counting from the end. */
static int64_t slice_bound(struct rt_tpl_env *e, const struct rt_tpl_value *v, int64_t missing,
                           int64_t n, int64_t low, int64_t high) {
    int64_t i;
    if (!v || v->kind == RT_TPL_NONE)
        return missing;
    if (!rt_tpl_as_int(*v, &i)) {
        rt_tpl_need_defined(e, *v);
        rt_tpl_fail(e, "slice bounds must be integers, found %s", rt_tpl_type_name(*v));
    }
    if (i < 0)
        i = i < -n ? low : i + n;
    return i < low ? low : i > high ? high : i;
}

struct rt_tpl_value rt_tpl_slice(struct rt_tpl_env *e, struct rt_tpl_value v,
                                 const struct rt_tpl_value *start, const struct rt_tpl_value *stop,
                                 const struct rt_tpl_value *step) {
    rt_tpl_need_defined(e, v);
    if (v.kind == RT_TPL_RANGE)
        rt_tpl_fail(e, "slicing a range is not supported; use |list first");
    if (v.kind != RT_TPL_STR && v.kind != RT_TPL_LIST && v.kind != RT_TPL_TUPLE)
        rt_tpl_fail(e, "a %s cannot be sliced", rt_tpl_type_name(v));
    int64_t n = rt_tpl_length(e, v), by = 1;
    if (step && step->kind != RT_TPL_NONE && !rt_tpl_as_int(*step, &by)) {
        rt_tpl_need_defined(e, *step);
        rt_tpl_fail(e, "slice bounds must be integers, found %s", rt_tpl_type_name(*step));
    }
    if (by == 0)
        rt_tpl_fail(e, "slice step cannot be zero");
    if (by == INT64_MIN)
        by = -INT64_MAX;
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    int64_t from = slice_bound(e, start, by < 0 ? n - 1 : 0, n, low, high);
    int64_t to = slice_bound(e, stop, by < 0 ? -1 : n, n, low, high);
    if (v.kind == RT_TPL_STR && by == 1) {
        if (to <= from)
            return rt_tpl_string((struct rt_tpl_str){v.u.s.p, 0});
        size_t a = rt_tpl_str_offset(v.u.s, (size_t)from);
        struct rt_tpl_str rest = {v.u.s.p + a, v.u.s.n - a};
        rest.n = rt_tpl_str_offset(rest, (size_t)(to - from));
        return rt_tpl_string(rest);
    }
    struct rt_tpl_seq all = rt_tpl_iterate(e, v);
    struct rt_tpl_list l = {0};
    for (int64_t i = from; by > 0 ? i < to : i > to;) {
        rt_tpl_push(e, &l, all.v[i]);
        if (by > 0 ? by >= to - i : -by >= i - to)
            break; /* before i + by could overflow */
        i += by;
    }
    if (v.kind != RT_TPL_STR)
        return rt_tpl_list_value(e, &l, v.kind);
    struct rt_tpl_buf b = {0};
    for (size_t i = 0; i < l.n; i++)
        rt_tpl_put(e, &b, l.v[i].u.s.p, l.v[i].u.s.n);
    return rt_tpl_buf_value(&b);
}

struct rt_tpl_value rt_tpl_reverse(struct rt_tpl_env *e, struct rt_tpl_value v) {
    if (v.kind == RT_TPL_STR) {
        struct rt_tpl_value minus = rt_tpl_int(-1);
        return rt_tpl_slice(e, v, NULL, NULL, &minus);
    }
    struct rt_tpl_seq s = rt_tpl_iterate(e, v);
    struct rt_tpl_list l = {0};
    for (size_t i = s.n; i-- > 0;)
        rt_tpl_push(e, &l, s.v[i]);
    /* A generator is reversed through a list, all else gives an iterator. */
    return rt_tpl_list_value(e, &l, v.kind == RT_TPL_ITER ? RT_TPL_LIST : RT_TPL_ITER);
}

/* Filters of single values: text, numbers, defaults. */
#include "tpl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIVEN(v) ((v).kind != RT_TPL_MISSING)

#define FILTER(name)                                                                               \
    static struct rt_tpl_value name(struct rt_tpl_env *e, struct rt_tpl_value v,                   \
                                    const struct rt_tpl_value *a, const struct rt_tpl_args *raw)

#define UNUSED ((void)e, (void)v, (void)a, (void)raw)

/* A text made from v keeps v's `safe` mark. */
static struct rt_tpl_value text_like(struct rt_tpl_value v, struct rt_tpl_str s) {
    struct rt_tpl_value out = rt_tpl_string(s);
    out.safe = v.kind == RT_TPL_STR && v.safe;
    return out;
}

FILTER(f_abs) {
    UNUSED;
    if (v.kind == RT_TPL_FLOAT)
        return rt_tpl_float(fabs(v.u.f));
    int64_t i;
    if (!rt_tpl_as_int(v, &i)) {
        rt_tpl_need_defined(e, v);
        rt_tpl_fail(e, "abs needs a number, found %s", rt_tpl_type_name(v));
    }
    return rt_tpl_negate(e, rt_tpl_int(i), i < 0);
}

FILTER(f_capitalize) {
    UNUSED;
    return text_like(v, rt_tpl_capitalize(e, rt_tpl_to_str(e, v)));
}

FILTER(f_default) {
    UNUSED;
    bool falsy = GIVEN(a[1]) && rt_tpl_truth(e, a[1]) && !rt_tpl_truth(e, v);
    if (v.kind != RT_TPL_UNDEFINED && !falsy)
        return v;
    return GIVEN(a[0]) ? a[0] : rt_tpl_string(RT_TPL_S(""));
}

FILTER(f_float) {
    UNUSED;
    double f;
    rt_tpl_need_defined(e, v);
    if (rt_tpl_is_number(v))
        return rt_tpl_float(rt_tpl_number(v));
    if (v.kind == RT_TPL_STR && rt_tpl_read_float(e, v.u.s, &f))
        return rt_tpl_float(f);
    return GIVEN(a[0]) ? a[0] : rt_tpl_float(0.0);
}

FILTER(f_int) {
    UNUSED;
    int64_t i, base = 10;
    double f;
    rt_tpl_need_defined(e, v);
    if (GIVEN(a[1]) && (!rt_tpl_as_int(a[1], &base) || base < 0 || base == 1 || base > 36))
        rt_tpl_fail(e, "int: the base must be 0 or an int from 2 to 36");
    if (rt_tpl_as_int(v, &i))
        return rt_tpl_int(i);
    if (v.kind == RT_TPL_STR && rt_tpl_read_int(e, v.u.s, base, &i))
        return rt_tpl_int(i);
    if (v.kind == RT_TPL_FLOAT)
        f = v.u.f;
    else if (v.kind != RT_TPL_STR || !rt_tpl_read_float(e, v.u.s, &f) || isinf(f))
        return GIVEN(a[0]) ? a[0] : rt_tpl_int(0);
    if (isnan(f))
        return GIVEN(a[0]) ? a[0] : rt_tpl_int(0);
    if (!(f >= -9223372036854775808.0 && f < 9223372036854775808.0))
        rt_tpl_fail(e, "integer does not fit in 64 bits");
    return rt_tpl_int((int64_t)f);
}

FILTER(f_indent) {
    UNUSED;
    struct rt_tpl_str s = rt_tpl_need_str(e, v, "the input of indent");
    struct rt_tpl_buf b = {0}, spaces = {0};
    int64_t width = 4;
    bool first = GIVEN(a[1]) && rt_tpl_truth(e, a[1]), blank = GIVEN(a[2]) && rt_tpl_truth(e, a[2]);
    if (GIVEN(a[0]) && a[0].kind == RT_TPL_STR)
        rt_tpl_put(e, &spaces, a[0].u.s.p, a[0].u.s.n);
    else if (GIVEN(a[0]) && !rt_tpl_as_int(a[0], &width))
        rt_tpl_fail(e, "indent: width is a %s, expected an int or str", rt_tpl_type_name(a[0]));
    else
        for (int64_t i = 0; i < width; i++)
            rt_tpl_putc(e, &spaces, ' ');
    /* jinja2 appends a newline first, so that a line end at the end gives one more line. */
    struct rt_tpl_buf with_end = {0};
    rt_tpl_put(e, &with_end, s.p, s.n);
    rt_tpl_putc(e, &with_end, '\n');
    struct rt_tpl_value lines = rt_tpl_splitlines(e, rt_tpl_buf_str(&with_end), false);
    for (size_t i = 0; i < lines.u.seq->n; i++) {
        struct rt_tpl_str line = lines.u.seq->v[i].u.s;
        if (i)
            rt_tpl_putc(e, &b, '\n');
        if (i ? line.n || blank : first)
            rt_tpl_put(e, &b, spaces.p, spaces.n);
        rt_tpl_put(e, &b, line.p, line.n);
    }
    return text_like(v, rt_tpl_buf_str(&b));
}

FILTER(f_lower) {
    UNUSED;
    return text_like(v, rt_tpl_str_case(e, rt_tpl_to_str(e, v), RT_TPL_LOWER));
}

FILTER(f_upper) {
    UNUSED;
    return text_like(v, rt_tpl_str_case(e, rt_tpl_to_str(e, v), RT_TPL_UPPER));
}

FILTER(f_replace) {
    UNUSED;
    int64_t count = -1;
    if (GIVEN(a[2]) && a[2].kind != RT_TPL_NONE && !rt_tpl_as_int(a[2], &count))
        rt_tpl_fail(e, "replace: count is a %s, expected an int", rt_tpl_type_name(a[2]));
    return rt_tpl_string(rt_tpl_replace(e, rt_tpl_to_str(e, v), rt_tpl_to_str(e, a[0]),
                                        rt_tpl_to_str(e, a[1]), count));
}

/* Rounds half to even on the decimal digits of the double, as Python does; the C library's
 * printf is exact, and is read back in the same locale. */
static double round_to(double f, int digits) {
    char text[400];
    if (!isfinite(f) || digits > 30)
        return f;
    snprintf(text, sizeof text, "%.*f", digits, f);
    return strtod(text, NULL);
}

FILTER(f_round) {
    UNUSED;
    int64_t digits = 0, i;
    struct rt_tpl_str method = RT_TPL_S("common");
    if (GIVEN(a[0]) && !rt_tpl_as_int(a[0], &digits))
        rt_tpl_fail(e, "round: precision is a %s, expected an int", rt_tpl_type_name(a[0]));
    if (digits < 0 || digits > 300)
        rt_tpl_fail(e, "round: precision %lld is not supported, only 0 to 300", (long long)digits);
    if (GIVEN(a[1]))
        method = rt_tpl_need_str(e, a[1], "the method of round");
    if (!rt_tpl_is_number(v)) {
        rt_tpl_need_defined(e, v);
        rt_tpl_fail(e, "round needs a number, found %s", rt_tpl_type_name(v));
    }
    if (rt_tpl_str_is(method, "common")) {
        if (rt_tpl_as_int(v, &i))
            return rt_tpl_int(i);
        return rt_tpl_float(round_to(v.u.f, (int)digits));
    }
    double scale = pow(10, (double)digits), f = rt_tpl_number(v) * scale;
    if (!isfinite(f))
        rt_tpl_fail(e, "round: the number is too large");
    if (rt_tpl_str_is(method, "ceil"))
        return rt_tpl_float(ceil(f) / scale);
    if (rt_tpl_str_is(method, "floor"))
        return rt_tpl_float(floor(f) / scale);
    rt_tpl_fail(e, "round: the method must be 'common', 'ceil' or 'floor'");
}

FILTER(f_safe) {
    UNUSED;
    struct rt_tpl_value out = rt_tpl_string(rt_tpl_to_str(e, v));
    out.safe = true;
    return out;
}

FILTER(f_string) {
    UNUSED;
    return v.kind == RT_TPL_STR ? v : rt_tpl_string(rt_tpl_to_str(e, v));
}

/* Words begin after white space and -({[< ; the first letter becomes upper, the rest lower. */
FILTER(f_title) {
    UNUSED;
    struct rt_tpl_str s = rt_tpl_to_str(e, v);
    struct rt_tpl_buf b = {0};
    bool start = true;
    for (size_t i = 0, used; i < s.n; i += used) {
        uint32_t c = rt_tpl_utf8_next(s.p + i, s.n - i, &used);
        rt_tpl_put_case(e, &b, c, start ? RT_TPL_UPPER : RT_TPL_LOWER);
        start = rt_tpl_space_at(s.p + i, used) || (c < 0x80 && c && strchr("-({[<", (int)c));
    }
    return text_like(v, rt_tpl_buf_str(&b));
}

FILTER(f_trim) {
    UNUSED;
    struct rt_tpl_str s = rt_tpl_to_str(e, v), chars;
    if (!GIVEN(a[0]) || a[0].kind == RT_TPL_NONE)
        return text_like(v, rt_tpl_strip(e, s, NULL, RT_TPL_LEFT | RT_TPL_RIGHT));
    chars = rt_tpl_need_str(e, a[0], "the characters of trim");
    return text_like(v, rt_tpl_strip(e, s, &chars, RT_TPL_LEFT | RT_TPL_RIGHT));
}

const struct rt_tpl_filter rt_tpl_text_filters[] = {
    {"abs", f_abs, ""},
    {"capitalize", f_capitalize, ""},
    {"default", f_default, "default_value,boolean"},
    {"d", f_default, "default_value,boolean"},
    {"float", f_float, "default"},
    {"indent", f_indent, "width,first,blank"},
    {"int", f_int, "default,base"},
    {"lower", f_lower, ""},
    {"replace", f_replace, "old!,new!,count"},
    {"round", f_round, "precision,method"},
    {"safe", f_safe, ""},
    {"string", f_string, ""},
    {"title", f_title, ""},
    {"tojson", rt_tpl_filter_tojson, "ensure_ascii,indent,separators,sort_keys"},
    {"trim", f_trim, "chars"},
    {"upper", f_upper, ""},
    {0},
};

const struct rt_tpl_filter *rt_tpl_find_filter(struct rt_tpl_str name) {
    for (const struct rt_tpl_filter *f = rt_tpl_text_filters; f->name; f++)
        if (rt_tpl_str_is(name, f->name))
            return f;
    for (const struct rt_tpl_filter *f = rt_tpl_seq_filters; f->name; f++)
        if (rt_tpl_str_is(name, f->name))
            return f;
    return NULL;
}

void rt_tpl_filter_names(struct rt_tpl_env *e, struct rt_tpl_buf *b) {
    for (const struct rt_tpl_filter *f = rt_tpl_text_filters; f->name; f++) {
        rt_tpl_puts(e, b, f->name);
        rt_tpl_puts(e, b, ", ");
    }
    for (const struct rt_tpl_filter *f = rt_tpl_seq_filters; f->name; f++) {
        rt_tpl_puts(e, b, f->name);
        if (f[1].name)
            rt_tpl_puts(e, b, ", ");
    }
}

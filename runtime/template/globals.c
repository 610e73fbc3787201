/* Functions that every template can call. */
#include "tpl.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t range_arg(struct rt_tpl_env *e, struct rt_tpl_value v) {
    int64_t i;
    if (!rt_tpl_as_int(v, &i)) {
        rt_tpl_need_defined(e, v);
        rt_tpl_fail(e, "range: an argument is a %s, expected an int", rt_tpl_type_name(v));
    }
    return i;
}

static struct rt_tpl_value fn_range(struct rt_tpl_env *e, const struct rt_tpl_args *args) {
    if (args->n_kw || args->n_pos < 1 || args->n_pos > 3)
        rt_tpl_fail(e, "range takes 1 to 3 arguments, found %zu", args->n_pos + args->n_kw);
    int64_t start = args->n_pos > 1 ? range_arg(e, args->pos[0]) : 0;
    int64_t stop = range_arg(e, args->pos[args->n_pos > 1]);
    int64_t step = args->n_pos > 2 ? range_arg(e, args->pos[2]) : 1;
    if (step == 0)
        rt_tpl_fail(e, "range: the step must not be zero");
    struct rt_tpl_list l = {0};
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
        if (l.n == RT_TPL_MAX_RANGE)
            rt_tpl_fail(e, "range: more than %d elements", RT_TPL_MAX_RANGE);
        rt_tpl_push(e, &l, rt_tpl_int(i));
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    struct rt_tpl_buf b = {0};
    rt_tpl_printf(e, &b, "range(%lld, %lld", (long long)start, (long long)stop);
    if (step != 1)
        rt_tpl_printf(e, &b, ", %lld", (long long)step);
    rt_tpl_putc(e, &b, ')');
    rt_tpl_putc(e, &b, 0);
    struct rt_tpl_value v = rt_tpl_list_value(e, &l, RT_TPL_RANGE);
    v.u.seq->label = b.p;
    return v;
}

static struct rt_tpl_dict *dict_of(struct rt_tpl_env *e, const char *what,
                                   const struct rt_tpl_args *args) {
    struct rt_tpl_dict *d = rt_tpl_dict_new(e);
    if (args->n_pos > 1)
        rt_tpl_fail(e, "%s takes at most 1 positional argument, found %zu", what, args->n_pos);
    if (args->n_pos && args->pos[0].kind == RT_TPL_DICT) {
        const struct rt_tpl_dict *from = args->pos[0].u.dict;
        for (size_t i = 0; i < from->n; i++)
            rt_tpl_dict_set(e, d, from->keys[i], from->vals[i]);
    } else if (args->n_pos) {
        struct rt_tpl_seq pairs = rt_tpl_iterate(e, args->pos[0]);
        for (size_t i = 0; i < pairs.n; i++) {
            struct rt_tpl_seq pair = rt_tpl_iterate(e, pairs.v[i]);
            if (pair.n != 2)
                rt_tpl_fail(e, "%s: element %zu has %zu values, expected 2", what, i, pair.n);
            rt_tpl_dict_set(e, d, pair.v[0], pair.v[1]);
        }
    }
    for (size_t i = 0; i < args->n_kw; i++)
        rt_tpl_dict_set(e, d, rt_tpl_string(args->kw[i]), args->kw_vals[i]);
    return d;
}

static struct rt_tpl_value fn_dict(struct rt_tpl_env *e, const struct rt_tpl_args *args) {
    return (struct rt_tpl_value){.kind = RT_TPL_DICT, .u.dict = dict_of(e, "dict", args)};
}

static struct rt_tpl_value fn_namespace(struct rt_tpl_env *e, const struct rt_tpl_args *args) {
    return (struct rt_tpl_value){.kind = RT_TPL_NAMESPACE, .u.dict = dict_of(e, "namespace", args)};
}

static struct rt_tpl_value fn_raise_exception(struct rt_tpl_env *e,
                                              const struct rt_tpl_args *args) {
    struct rt_tpl_value a[RT_TPL_MAX_PARAMS];
    rt_tpl_bind(e, "raise_exception", "message!", args, a);
    rt_tpl_fail_text(e, rt_tpl_to_str(e, a[0]));
}

/* The time to format: the context's, or now. */
static void time_now(struct rt_tpl_env *e, struct tm *tm, long *micro) {
    struct timespec ts = {0};
    if (e->now) {
        double seconds = *e->now;
        if (!(seconds >= 0 && seconds < 253402300800.0)) /* year 10000 */
            rt_tpl_fail(e, "the context's strftime_now is outside the years 1970 to 9999");
        ts.tv_sec = (time_t)seconds;
        gmtime_r(&ts.tv_sec, tm);
        *micro = (long)((seconds - (double)ts.tv_sec) * 1e6);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, tm);
    *micro = ts.tv_nsec / 1000;
}

/* One directive in English, whatever the program's locale is. */
static void put_directive(struct rt_tpl_env *e, struct rt_tpl_buf *out, const char *directive,
                          const struct tm *tm) {
    char text[128];
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c)
        rt_tpl_fail(e, "out of memory");
    size_t n = strftime_l(text, sizeof text, directive, tm, c);
    freelocale(c);
    rt_tpl_put(e, out, text, n);
}

static struct rt_tpl_value fn_strftime_now(struct rt_tpl_env *e, const struct rt_tpl_args *args) {
    struct rt_tpl_value a[RT_TPL_MAX_PARAMS];
    rt_tpl_bind(e, "strftime_now", "format!", args, a);
    struct rt_tpl_str format = rt_tpl_need_str(e, a[0], "the format of strftime_now");
    struct tm tm;
    long micro;
    time_now(e, &tm, &micro);
    struct rt_tpl_buf out = {0};
    for (size_t i = 0; i < format.n; i++) {
        char directive[4] = {format.p[i], 0, 0, 0};
        if (format.p[i] != '%' || i + 1 == format.n) {
            rt_tpl_putc(e, &out, format.p[i]);
            continue;
        }
        directive[1] = format.p[++i];
        if (directive[1] == '-' && i + 1 < format.n)
            directive[2] = format.p[++i];
        char last = directive[2] ? directive[2] : directive[1];
        rt_tpl_charge(e, 32);
        if (directive[1] == '%')
            rt_tpl_putc(e, &out, '%');
        else if (directive[1] == 'f') /* Python's own, as are z and Z: this time has no zone */
            rt_tpl_printf(e, &out, "%06ld", micro);
        else if (last && strchr("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyY", last))
            put_directive(e, &out, directive, &tm);
        else if (directive[1] != 'z' && directive[1] != 'Z')
            rt_tpl_fail(e, "strftime_now: unsupported directive '%%%c'",
                        last >= ' ' && last < 127 ? last : '?');
    }
    return rt_tpl_buf_value(&out);
}

const struct rt_tpl_global *rt_tpl_find_global(struct rt_tpl_str name) {
    static const struct rt_tpl_global globals[] = {
        {"range", fn_range},
        {"dict", fn_dict},
        {"namespace", fn_namespace},
        {"raise_exception", fn_raise_exception},
        {"strftime_now", fn_strftime_now},
    };
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (rt_tpl_str_is(name, globals[i].name))
            return &globals[i];
    return NULL;
}

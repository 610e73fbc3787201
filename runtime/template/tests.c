/* Tests: what follows `is`. */
#include "tpl.h"

#include <string.h>

#define TEST(name)                                                                                 \
    static bool name(struct rt_tpl_env *e, struct rt_tpl_value v, const struct rt_tpl_value *a)

#define UNUSED ((void)e, (void)v, (void)a)

TEST(is_defined) {
    UNUSED;
    return v.kind != RT_TPL_UNDEFINED;
}

TEST(is_undefined) {
    UNUSED;
    return v.kind == RT_TPL_UNDEFINED;
}

TEST(is_none) {
    UNUSED;
    return v.kind == RT_TPL_NONE;
}

TEST(is_string) {
    UNUSED;
    return v.kind == RT_TPL_STR;
}

TEST(is_mapping) {
    UNUSED;
    return v.kind == RT_TPL_DICT;
}

TEST(is_iterable) {
    UNUSED;
    return rt_tpl_iterable(v) || v.kind == RT_TPL_LOOP;
}

TEST(is_sequence) {
    UNUSED;
    /* Python asks for a length and for subscripts, which Undefined and dicts have as well. */
    return v.kind == RT_TPL_STR || v.kind == RT_TPL_LIST || v.kind == RT_TPL_TUPLE ||
           v.kind == RT_TPL_RANGE || v.kind == RT_TPL_DICT || v.kind == RT_TPL_UNDEFINED;
}

TEST(is_number) {
    UNUSED;
    return rt_tpl_is_number(v);
}

TEST(is_boolean) {
    UNUSED;
    return v.kind == RT_TPL_BOOL;
}

TEST(is_true) {
    UNUSED;
    return v.kind == RT_TPL_BOOL && v.u.b;
}

TEST(is_false) {
    UNUSED;
    return v.kind == RT_TPL_BOOL && !v.u.b;
}

TEST(is_integer) {
    UNUSED;
    return v.kind == RT_TPL_INT;
}

TEST(is_float) {
    UNUSED;
    return v.kind == RT_TPL_FLOAT;
}

TEST(is_callable) {
    UNUSED;
    return v.kind == RT_TPL_MACRO || v.kind == RT_TPL_METHOD || v.kind == RT_TPL_GLOBAL ||
           v.kind == RT_TPL_UNDEFINED || v.kind == RT_TPL_LOOP;
}

static int64_t remainder_of(struct rt_tpl_env *e, struct rt_tpl_value v, int64_t by) {
    struct rt_tpl_value r = rt_tpl_binary(e, RT_TPL_T_MOD, v, rt_tpl_int(by));
    return r.kind == RT_TPL_FLOAT ? (r.u.f == 0 ? 0 : r.u.f == 1 ? 1 : 2) : r.u.i;
}

TEST(is_odd) {
    (void)a;
    return remainder_of(e, v, 2) == 1;
}

TEST(is_even) {
    (void)a;
    return remainder_of(e, v, 2) == 0;
}

TEST(is_divisibleby) {
    struct rt_tpl_value r = rt_tpl_binary(e, RT_TPL_T_MOD, v, a[0]);
    return rt_tpl_equal(e, r, rt_tpl_int(0));
}

static bool has_case(struct rt_tpl_env *e, struct rt_tpl_value v, enum rt_tpl_case how) {
    struct rt_tpl_str s = rt_tpl_to_str(e, v);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            rt_tpl_fail(e,
                        "tests 'lower' and 'upper' of a text that is not ASCII are not supported");
    struct rt_tpl_str other =
        rt_tpl_str_case(e, s, how == RT_TPL_LOWER ? RT_TPL_UPPER : RT_TPL_LOWER);
    return rt_tpl_str_eq(s, rt_tpl_str_case(e, s, how)) && !rt_tpl_str_eq(s, other);
}

TEST(is_lower) {
    (void)a;
    return has_case(e, v, RT_TPL_LOWER);
}

TEST(is_upper) {
    (void)a;
    return has_case(e, v, RT_TPL_UPPER);
}

TEST(is_in) {
    return rt_tpl_contains(e, a[0], v);
}

TEST(is_eq) {
    return rt_tpl_equal(e, v, a[0]);
}

TEST(is_ne) {
    return !rt_tpl_equal(e, v, a[0]);
}

TEST(is_lt) {
    return rt_tpl_compare(e, v, a[0], "<") < 0;
}

TEST(is_le) {
    return rt_tpl_compare(e, v, a[0], "<=") <= 0;
}

TEST(is_gt) {
    return rt_tpl_compare(e, v, a[0], ">") > 0;
}

TEST(is_ge) {
    return rt_tpl_compare(e, v, a[0], ">=") >= 0;
}

TEST(is_sameas) {
    if (v.kind != a[0].kind)
        return false;
    if (v.kind == RT_TPL_NONE || v.kind == RT_TPL_BOOL)
        return rt_tpl_equal(e, v, a[0]);
    rt_tpl_fail(e, "test 'sameas' of a %s is not supported, only of booleans and none",
                rt_tpl_type_name(v));
}

static const struct rt_tpl_test tests[] = {
    {"defined", is_defined, 0},
    {"undefined", is_undefined, 0},
    {"none", is_none, 0},
    {"string", is_string, 0},
    {"mapping", is_mapping, 0},
    {"iterable", is_iterable, 0},
    {"sequence", is_sequence, 0},
    {"number", is_number, 0},
    {"boolean", is_boolean, 0},
    {"true", is_true, 0},
    {"false", is_false, 0},
    {"integer", is_integer, 0},
    {"float", is_float, 0},
    {"callable", is_callable, 0},
    {"odd", is_odd, 0},
    {"even", is_even, 0},
    {"divisibleby", is_divisibleby, 1},
    {"lower", is_lower, 0},
    {"upper", is_upper, 0},
    {"in", is_in, 1},
    {"eq", is_eq, 1},
    {"equalto", is_eq, 1},
    {"==", is_eq, 1},
    {"ne", is_ne, 1},
    {"!=", is_ne, 1},
    {"lt", is_lt, 1},
    {"lessthan", is_lt, 1},
    {"<", is_lt, 1},
    {"le", is_le, 1},
    {"<=", is_le, 1},
    {"gt", is_gt, 1},
    {"greaterthan", is_gt, 1},
    {">", is_gt, 1},
    {"ge", is_ge, 1},
    {">=", is_ge, 1},
    {"sameas", is_sameas, 1},
};

const struct rt_tpl_test *rt_tpl_find_test(struct rt_tpl_str name) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (rt_tpl_str_is(name, tests[i].name))
            return &tests[i];
    return NULL;
}

void rt_tpl_test_names(struct rt_tpl_env *e, struct rt_tpl_buf *b) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        rt_tpl_puts(e, b, i ? ", " : "");
        rt_tpl_puts(e, b, tests[i].name);
    }
}

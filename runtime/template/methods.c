/* Methods of str, list, tuple and dict. */
#include "tpl.h"

#include <string.h>

#define GIVEN(v) ((v).kind != RT_TPL_MISSING)

static int64_t int_arg(struct rt_tpl_env *e, struct rt_tpl_value v, int64_t missing) {
    int64_t i;
    if (!GIVEN(v) || v.kind == RT_TPL_NONE)
        return missing;
    if (!rt_tpl_as_int(v, &i)) {
        rt_tpl_need_defined(e, v);
        rt_tpl_fail(e, "an argument is a %s, expected an int", rt_tpl_type_name(v));
    }
    return i;
}

static struct rt_tpl_value strip(struct rt_tpl_env *e, struct rt_tpl_value self,
                                 const struct rt_tpl_value *a, int sides) {
    if (!GIVEN(a[0]) || a[0].kind == RT_TPL_NONE)
        return rt_tpl_string(rt_tpl_strip(e, self.u.s, NULL, sides));
    struct rt_tpl_str chars = rt_tpl_need_str(e, a[0], "the argument of strip");
    return rt_tpl_string(rt_tpl_strip(e, self.u.s, &chars, sides));
}

#define METHOD(name)                                                                               \
    static struct rt_tpl_value name(struct rt_tpl_env *e, struct rt_tpl_value self,                \
                                    const struct rt_tpl_value *a)

METHOD(str_strip) {
    return strip(e, self, a, RT_TPL_LEFT | RT_TPL_RIGHT);
}

METHOD(str_lstrip) {
    return strip(e, self, a, RT_TPL_LEFT);
}

METHOD(str_rstrip) {
    return strip(e, self, a, RT_TPL_RIGHT);
}

METHOD(str_upper) {
    (void)a;
    return rt_tpl_string(rt_tpl_str_case(e, self.u.s, RT_TPL_UPPER));
}

METHOD(str_lower) {
    (void)a;
    return rt_tpl_string(rt_tpl_str_case(e, self.u.s, RT_TPL_LOWER));
}

METHOD(str_capitalize) {
    (void)a;
    return rt_tpl_string(rt_tpl_capitalize(e, self.u.s));
}

/* Methods that ask what kind of letter each character is know only ASCII. */
static void need_ascii(struct rt_tpl_env *e, struct rt_tpl_str s, const char *what) {
    rt_tpl_charge(e, s.n / 32);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            rt_tpl_fail(e, "'%s' of a text that is not ASCII is not supported", what);
}

static bool is_alpha(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

METHOD(str_title) {
    (void)a;
    need_ascii(e, self.u.s, "title");
    struct rt_tpl_buf b = {0};
    for (size_t i = 0; i < self.u.s.n; i++)
        rt_tpl_put_case(e, &b, (unsigned char)self.u.s.p[i],
                        i && is_alpha(self.u.s.p[i - 1]) ? RT_TPL_LOWER : RT_TPL_UPPER);
    return rt_tpl_buf_value(&b);
}

static struct rt_tpl_value all_of(struct rt_tpl_env *e, struct rt_tpl_str s, const char *what,
                                  bool alpha, bool digit) {
    need_ascii(e, s, what);
    bool all = s.n > 0;
    for (size_t i = 0; i < s.n; i++) {
        bool is_digit = s.p[i] >= '0' && s.p[i] <= '9';
        all &= (alpha && is_alpha(s.p[i])) || (digit && is_digit);
    }
    return rt_tpl_bool(all);
}

METHOD(str_isalpha) {
    (void)a;
    return all_of(e, self.u.s, "isalpha", true, false);
}

METHOD(str_isdigit) {
    (void)a;
    return all_of(e, self.u.s, "isdigit", false, true);
}

METHOD(str_isalnum) {
    (void)a;
    return all_of(e, self.u.s, "isalnum", true, true);
}

METHOD(str_isspace) {
    (void)a;
    struct rt_tpl_str s = self.u.s;
    return rt_tpl_bool(s.n && rt_tpl_strip(e, s, NULL, RT_TPL_LEFT).n == 0);
}

METHOD(str_isupper) {
    (void)a;
    need_ascii(e, self.u.s, "isupper");
    struct rt_tpl_str s = self.u.s, same = rt_tpl_str_case(e, s, RT_TPL_UPPER);
    return rt_tpl_bool(rt_tpl_str_eq(s, same) &&
                       !rt_tpl_str_eq(s, rt_tpl_str_case(e, s, RT_TPL_LOWER)));
}

METHOD(str_islower) {
    (void)a;
    need_ascii(e, self.u.s, "islower");
    struct rt_tpl_str s = self.u.s, same = rt_tpl_str_case(e, s, RT_TPL_LOWER);
    return rt_tpl_bool(rt_tpl_str_eq(s, same) &&
                       !rt_tpl_str_eq(s, rt_tpl_str_case(e, s, RT_TPL_UPPER)));
}

/* The part of s between optional character positions, and its byte offset; false when start is
 * beyond the end, where nothing is found, not even an empty text. */
static bool part(struct rt_tpl_env *e, struct rt_tpl_str s, const struct rt_tpl_value *a,
                 struct rt_tpl_str *out) {
    *out = s;
    if (!GIVEN(a[1]) && !GIVEN(a[2]))
        return true;
    int64_t n = (int64_t)rt_tpl_str_len(s);
    if (int_arg(e, a[1], 0) > n)
        return false;
    struct rt_tpl_value v = rt_tpl_slice(e, rt_tpl_string(s), GIVEN(a[1]) ? &a[1] : NULL,
                                         GIVEN(a[2]) ? &a[2] : NULL, NULL);
    if (v.u.s.n == 0) { /* a slice of nothing still has a place */
        int64_t from = int_arg(e, a[1], 0), to = int_arg(e, a[2], n);
        from = from < 0 ? (from < -n ? 0 : from + n) : from;
        to = to < 0 ? (to < -n ? 0 : to + n) : to;
        if (to < from)
            return false;
        v.u.s.p = s.p + rt_tpl_str_offset(s, (size_t)from);
    }
    *out = v.u.s;
    return true;
}

static bool matches_end(struct rt_tpl_str s, struct rt_tpl_str what, bool start) {
    return what.n <= s.n &&
           (what.n == 0 || memcmp(start ? s.p : s.p + s.n - what.n, what.p, what.n) == 0);
}

static struct rt_tpl_value at_end(struct rt_tpl_env *e, struct rt_tpl_value self,
                                  const struct rt_tpl_value *a, bool start) {
    struct rt_tpl_str s;
    bool found = false, inside = part(e, self.u.s, a, &s);
    if (a[0].kind == RT_TPL_TUPLE) {
        for (size_t i = 0; i < a[0].u.seq->n; i++) {
            rt_tpl_charge(e, 1);
            struct rt_tpl_str what =
                rt_tpl_need_str(e, a[0].u.seq->v[i], "an element of the tuple");
            found |= inside && matches_end(s, what, start);
        }
        return rt_tpl_bool(found);
    }
    struct rt_tpl_str what =
        rt_tpl_need_str(e, a[0], start ? "the argument of startswith" : "the argument of endswith");
    return rt_tpl_bool(inside && matches_end(s, what, start));
}

METHOD(str_startswith) {
    return at_end(e, self, a, true);
}

METHOD(str_endswith) {
    return at_end(e, self, a, false);
}

static int64_t find(struct rt_tpl_env *e, struct rt_tpl_value self, const struct rt_tpl_value *a,
                    bool last) {
    struct rt_tpl_str what = rt_tpl_need_str(e, a[0], "the text to find"), s;
    if (!part(e, self.u.s, a, &s))
        return -1;
    size_t at = last ? rt_tpl_rfind(e, s, what) : rt_tpl_find(e, s, what);
    if (at == SIZE_MAX)
        return -1;
    return (int64_t)rt_tpl_str_len(
        (struct rt_tpl_str){self.u.s.p, (size_t)(s.p - self.u.s.p) + at});
}

METHOD(str_find) {
    return rt_tpl_int(find(e, self, a, false));
}

METHOD(str_rfind) {
    return rt_tpl_int(find(e, self, a, true));
}

METHOD(str_index) {
    int64_t at = find(e, self, a, false);
    if (at < 0)
        rt_tpl_fail(e, "index: substring not found");
    return rt_tpl_int(at);
}

METHOD(str_count) {
    struct rt_tpl_str what = rt_tpl_need_str(e, a[0], "the text to count"), s;
    int64_t n = 0;
    if (!part(e, self.u.s, a, &s))
        return rt_tpl_int(0);
    if (what.n == 0)
        return rt_tpl_int((int64_t)rt_tpl_str_len(s) + 1);
    for (size_t at; (at = rt_tpl_find(e, s, what)) != SIZE_MAX; n++) {
        rt_tpl_charge(e, 1);
        s.p += at + what.n;
        s.n -= at + what.n;
    }
    return rt_tpl_int(n);
}

METHOD(str_replace) {
    return rt_tpl_string(
        rt_tpl_replace(e, self.u.s, rt_tpl_need_str(e, a[0], "the text to replace"),
                       rt_tpl_need_str(e, a[1], "the replacement"), int_arg(e, a[2], -1)));
}

/* Prepends to what was split off from the right. */
static struct rt_tpl_value reversed(struct rt_tpl_env *e, struct rt_tpl_list *l) {
    for (size_t i = 0, k = l->n; i + 1 < k; i++) {
        struct rt_tpl_value t = l->v[--k];
        l->v[k] = l->v[i];
        l->v[i] = t;
    }
    return rt_tpl_list_value(e, l, RT_TPL_LIST);
}

/* split() at runs of white space, from the left or from the right. */
static struct rt_tpl_value split_space(struct rt_tpl_env *e, struct rt_tpl_str s, int64_t max,
                                       bool right) {
    struct rt_tpl_list l = {0};
    int side = right ? RT_TPL_RIGHT : RT_TPL_LEFT;
    s = rt_tpl_strip(e, s, NULL, side);
    while (s.n) {
        struct rt_tpl_str word = s;
        if (max-- == 0) { /* the rest, with the white space at its other side */
            rt_tpl_push(e, &l, rt_tpl_string(word));
            break;
        }
        size_t i = 0;
        if (!right) {
            while (i < s.n && !rt_tpl_space_at(s.p + i, s.n - i))
                i++;
            word.n = i;
            s.p += i;
            s.n -= i;
        } else {
            for (i = s.n; i > 0; i--) { /* just after the last white-space character */
                size_t c = i - 1;
                while (c > 0 && ((unsigned char)s.p[c] & 0xc0) == 0x80)
                    c--;
                if (rt_tpl_space_at(s.p + c, s.n - c))
                    break;
                i = c + 1;
            }
            word.p = s.p + i;
            word.n = s.n - i;
            s.n = i;
        }
        rt_tpl_charge(e, word.n / 32);
        rt_tpl_push(e, &l, rt_tpl_string(word));
        s = rt_tpl_strip(e, s, NULL, side);
    }
    return right ? reversed(e, &l) : rt_tpl_list_value(e, &l, RT_TPL_LIST);
}

static struct rt_tpl_value split(struct rt_tpl_env *e, struct rt_tpl_value self,
                                 const struct rt_tpl_value *a, bool right) {
    int64_t max = int_arg(e, a[1], -1);
    struct rt_tpl_str s = self.u.s;
    if (!GIVEN(a[0]) || a[0].kind == RT_TPL_NONE)
        return split_space(e, s, max, right);
    struct rt_tpl_str sep = rt_tpl_need_str(e, a[0], "the separator");
    struct rt_tpl_list l = {0};
    if (sep.n == 0)
        rt_tpl_fail(e, "split: empty separator");
    for (size_t at; max-- != 0;) {
        at = right ? rt_tpl_rfind(e, s, sep) : rt_tpl_find(e, s, sep);
        if (at == SIZE_MAX)
            break;
        if (right) {
            rt_tpl_push(e, &l,
                        rt_tpl_string((struct rt_tpl_str){s.p + at + sep.n, s.n - at - sep.n}));
            s.n = at;
        } else {
            rt_tpl_push(e, &l, rt_tpl_string((struct rt_tpl_str){s.p, at}));
            s.p += at + sep.n;
            s.n -= at + sep.n;
        }
    }
    rt_tpl_push(e, &l, rt_tpl_string(s));
    return right ? reversed(e, &l) : rt_tpl_list_value(e, &l, RT_TPL_LIST);
}

METHOD(str_split) {
    return split(e, self, a, false);
}

METHOD(str_rsplit) {
    return split(e, self, a, true);
}

METHOD(str_splitlines) {
    return rt_tpl_splitlines(e, self.u.s, GIVEN(a[0]) && rt_tpl_truth(e, a[0]));
}

static struct rt_tpl_value partition(struct rt_tpl_env *e, struct rt_tpl_str s,
                                     struct rt_tpl_value sep, bool right) {
    struct rt_tpl_str what = rt_tpl_need_str(e, sep, "the separator");
    if (what.n == 0)
        rt_tpl_fail(e, "partition: empty separator");
    size_t at = right ? rt_tpl_rfind(e, s, what) : rt_tpl_find(e, s, what);
    struct rt_tpl_value *v = rt_tpl_calloc(e, 3, sizeof *v), nothing = rt_tpl_string(RT_TPL_S(""));
    v[0] = v[1] = v[2] = nothing;
    if (at == SIZE_MAX) {
        v[right ? 2 : 0] = rt_tpl_string(s);
    } else {
        v[0] = rt_tpl_string((struct rt_tpl_str){s.p, at});
        v[1] = rt_tpl_string(what);
        v[2] = rt_tpl_string((struct rt_tpl_str){s.p + at + what.n, s.n - at - what.n});
    }
    return rt_tpl_seq(RT_TPL_TUPLE, v, 3, e);
}

METHOD(str_partition) {
    return partition(e, self.u.s, a[0], false);
}

METHOD(str_rpartition) {
    return partition(e, self.u.s, a[0], true);
}

METHOD(str_removeprefix) {
    struct rt_tpl_str s = self.u.s, what = rt_tpl_need_str(e, a[0], "the prefix");
    if (matches_end(s, what, true))
        s = (struct rt_tpl_str){s.p + what.n, s.n - what.n};
    return rt_tpl_string(s);
}

METHOD(str_removesuffix) {
    struct rt_tpl_str s = self.u.s, what = rt_tpl_need_str(e, a[0], "the suffix");
    if (matches_end(s, what, false))
        s.n -= what.n;
    return rt_tpl_string(s);
}

METHOD(str_join) {
    struct rt_tpl_seq s = rt_tpl_iterate(e, a[0]);
    struct rt_tpl_buf b = {0};
    for (size_t i = 0; i < s.n; i++) {
        struct rt_tpl_str item = rt_tpl_need_str(e, s.v[i], "an element to join");
        rt_tpl_charge(e, 1);
        if (i)
            rt_tpl_put(e, &b, self.u.s.p, self.u.s.n);
        rt_tpl_put(e, &b, item.p, item.n);
    }
    return rt_tpl_buf_value(&b);
}

static struct rt_tpl_value justify(struct rt_tpl_env *e, struct rt_tpl_value self,
                                   const struct rt_tpl_value *a, bool left) {
    int64_t fill = int_arg(e, a[0], 0) - (int64_t)rt_tpl_str_len(self.u.s);
    struct rt_tpl_str with =
        GIVEN(a[1]) ? rt_tpl_need_str(e, a[1], "the fill character") : RT_TPL_S(" ");
    struct rt_tpl_buf b = {0};
    if (rt_tpl_str_len(with) != 1)
        rt_tpl_fail(e, "the fill character must be exactly one character long");
    if (left)
        rt_tpl_put(e, &b, self.u.s.p, self.u.s.n);
    for (; fill > 0; fill--)
        rt_tpl_put(e, &b, with.p, with.n);
    if (!left)
        rt_tpl_put(e, &b, self.u.s.p, self.u.s.n);
    return rt_tpl_buf_value(&b);
}

METHOD(str_ljust) {
    return justify(e, self, a, true);
}

METHOD(str_rjust) {
    return justify(e, self, a, false);
}

/* ---- list and tuple ---- */

METHOD(seq_count) {
    int64_t n = 0;
    for (size_t i = 0; i < self.u.seq->n; i++) {
        rt_tpl_charge(e, 1);
        n += rt_tpl_equal(e, self.u.seq->v[i], a[0]);
    }
    return rt_tpl_int(n);
}

METHOD(seq_index) {
    for (size_t i = 0; i < self.u.seq->n; i++) {
        rt_tpl_charge(e, 1);
        if (rt_tpl_equal(e, self.u.seq->v[i], a[0]))
            return rt_tpl_int((int64_t)i);
    }
    rt_tpl_fail(e, "index: the element is not in the %s", rt_tpl_type_name(self));
}

METHOD(copy) {
    (void)e;
    (void)a;
    return self; /* nothing can change it */
}

/* ---- dict ---- */

static struct rt_tpl_value view(struct rt_tpl_env *e, struct rt_tpl_value *v, size_t n,
                                const char *label) {
    struct rt_tpl_value out = rt_tpl_seq(RT_TPL_VIEW, v, n, e);
    out.u.seq->label = label;
    return out;
}

METHOD(dict_keys) {
    (void)a;
    return view(e, self.u.dict->keys, self.u.dict->n, "dict_keys");
}

METHOD(dict_values) {
    (void)a;
    return view(e, self.u.dict->vals, self.u.dict->n, "dict_values");
}

METHOD(dict_items) {
    (void)a;
    const struct rt_tpl_dict *d = self.u.dict;
    struct rt_tpl_list l = {0};
    for (size_t i = 0; i < d->n; i++) {
        struct rt_tpl_value *pair = rt_tpl_alloc(e, 2 * sizeof *pair);
        pair[0] = d->keys[i];
        pair[1] = d->vals[i];
        rt_tpl_push(e, &l, rt_tpl_seq(RT_TPL_TUPLE, pair, 2, e));
    }
    return view(e, l.v, l.n, "dict_items");
}

METHOD(dict_get) {
    struct rt_tpl_value *found = rt_tpl_dict_get(e, self.u.dict, a[0]);
    return found ? *found : GIVEN(a[1]) ? a[1] : rt_tpl_none();
}

/* ---- which type has what ---- */

static const struct rt_tpl_method_def str_methods[] = {
    {"strip", "chars", str_strip},
    {"lstrip", "chars", str_lstrip},
    {"rstrip", "chars", str_rstrip},
    {"split", "sep,maxsplit", str_split},
    {"rsplit", "sep,maxsplit", str_rsplit},
    {"splitlines", "keepends", str_splitlines},
    {"startswith", "prefix!,start,end", str_startswith},
    {"endswith", "suffix!,start,end", str_endswith},
    {"upper", "", str_upper},
    {"lower", "", str_lower},
    {"title", "", str_title},
    {"capitalize", "", str_capitalize},
    {"replace", "old!,new!,count", str_replace},
    {"find", "sub!,start,end", str_find},
    {"rfind", "sub!,start,end", str_rfind},
    {"index", "sub!,start,end", str_index},
    {"count", "sub!,start,end", str_count},
    {"join", "iterable!", str_join},
    {"partition", "sep!", str_partition},
    {"rpartition", "sep!", str_rpartition},
    {"removeprefix", "prefix!", str_removeprefix},
    {"removesuffix", "suffix!", str_removesuffix},
    {"ljust", "width!,fillchar", str_ljust},
    {"rjust", "width!,fillchar", str_rjust},
    {"isalpha", "", str_isalpha},
    {"isdigit", "", str_isdigit},
    {"isalnum", "", str_isalnum},
    {"isspace", "", str_isspace},
    {"isupper", "", str_isupper},
    {"islower", "", str_islower},
    {0},
};

static const struct rt_tpl_method_def seq_methods[] = {
    {"count", "value!", seq_count},
    {"index", "value!", seq_index},
    {0},
};

static const struct rt_tpl_method_def list_methods[] = {
    {"count", "value!", seq_count},
    {"index", "value!", seq_index},
    {"copy", "", copy},
    {0},
};

static const struct rt_tpl_method_def dict_methods[] = {
    {"items", "", dict_items},         {"keys", "", dict_keys}, {"values", "", dict_values},
    {"get", "key!,default", dict_get}, {"copy", "", copy},      {0},
};

/* What Python has besides; a template that uses one must not be told that it does not exist. */
static const char *const str_others[] = {
    "casefold",  "center",    "encode",       "expandtabs", "format",      "format_map",
    "isascii",   "isdecimal", "isidentifier", "isnumeric",  "isprintable", "istitle",
    "maketrans", "rindex",    "swapcase",     "translate",  "zfill",       NULL};
static const char *const seq_forbidden[] = {"append", "clear",   "extend", "insert", "pop",
                                            "remove", "reverse", "sort",   NULL};
static const char *const dict_forbidden[] = {"clear",      "pop",    "popitem",
                                             "setdefault", "update", NULL};
static const char *const dict_others[] = {"fromkeys", NULL};
static const char *const number_others[] = {
    "real",       "imag",      "numerator", "denominator", "as_integer_ratio",
    "bit_length", "bit_count", "conjugate", "to_bytes",    "from_bytes",
    "is_integer", "hex",       "fromhex",   NULL};
static const char *const range_others[] = {"start", "stop", "step", "count", "index", NULL};
static const char *const view_others[] = {"mapping", "isdisjoint", NULL};
static const char *const macro_others[] = {"name",          "arguments", "catch_kwargs",
                                           "catch_varargs", "caller",    NULL};

static bool listed(const char *const *list, struct rt_tpl_str name) {
    for (; list && *list; list++)
        if (rt_tpl_str_is(name, *list))
            return true;
    return false;
}

const struct rt_tpl_method_def *rt_tpl_find_method(struct rt_tpl_env *e, struct rt_tpl_value v,
                                                   struct rt_tpl_str name) {
    const struct rt_tpl_method_def *defs = NULL;
    const char *const *others = NULL, *const *forbidden = NULL;
    switch (v.kind) {
    case RT_TPL_STR:
        defs = str_methods;
        others = str_others;
        break;
    case RT_TPL_LIST:
        defs = list_methods;
        forbidden = seq_forbidden;
        break;
    case RT_TPL_TUPLE:
        defs = seq_methods;
        break;
    case RT_TPL_DICT:
        defs = dict_methods;
        others = dict_others;
        forbidden = dict_forbidden;
        break;
    case RT_TPL_BOOL:
    case RT_TPL_INT:
    case RT_TPL_FLOAT:
        others = number_others;
        break;
    case RT_TPL_RANGE:
        others = range_others;
        break;
    case RT_TPL_VIEW:
        others = view_others;
        break;
    case RT_TPL_MACRO:
        others = macro_others;
        break;
    default:
        return NULL;
    }
    if (listed(forbidden, name))
        rt_tpl_fail(e, "'%.*s' would change a %s, which a template must not", (int)name.n, name.p,
                    rt_tpl_type_name(v));
    if (listed(others, name))
        rt_tpl_fail(e, "attribute '%.*s' of a %s is not supported", (int)name.n, name.p,
                    rt_tpl_type_name(v));
    for (; defs && defs->name; defs++) {
        if (!rt_tpl_str_is(name, defs->name))
            continue;
        if (v.kind == RT_TPL_STR && v.safe)
            rt_tpl_fail(e, "method '%s' of a text marked |safe is not supported", defs->name);
        return defs;
    }
    return NULL;
}

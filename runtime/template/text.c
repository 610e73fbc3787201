/* Strings as Python sees them: characters, white space, case, numbers. */
#include "tpl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rt_tpl_str rt_tpl_cstr(const char *s) {
    return (struct rt_tpl_str){s, strlen(s)};
}

bool rt_tpl_str_eq(struct rt_tpl_str a, struct rt_tpl_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool rt_tpl_str_is(struct rt_tpl_str a, const char *b) {
    return rt_tpl_str_eq(a, rt_tpl_cstr(b));
}

int rt_tpl_str_cmp(struct rt_tpl_str a, struct rt_tpl_str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0; /* UTF-8 sorts as its code points do */
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

bool rt_tpl_utf8_valid(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    size_t i = 0;
    while (i < n) {
        unsigned c = p[i];
        if (c < 0x80) {
            i++;
            continue;
        }
        size_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || n - i <= more)
            return false;
        for (size_t k = 1; k <= more; k++)
            if ((p[i + k] & 0xc0) != 0x80)
                return false;
        /* overlong, surrogate, beyond U+10FFFF */
        if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] >= 0xa0) ||
            (c == 0xf0 && p[i + 1] < 0x90) || (c == 0xf4 && p[i + 1] >= 0x90))
            return false;
        i += more + 1;
    }
    return true;
}

uint32_t rt_tpl_utf8_next(const char *s, size_t n, size_t *used) {
    const unsigned char *p = (const unsigned char *)s;
    uint32_t c = p[0];
    size_t len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (len > n) /* cannot be in valid text */
        len = 1;
    if (len == 2)
        c = (c & 0x1f) << 6 | (p[1] & 0x3fu);
    else if (len == 3)
        c = (c & 0x0f) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    else if (len == 4)
        c = (c & 0x07) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    *used = len;
    return c;
}

size_t rt_tpl_str_len(struct rt_tpl_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

size_t rt_tpl_str_offset(struct rt_tpl_str s, size_t i) {
    size_t at = 0;
    while (i > 0 && at < s.n) {
        size_t used;
        rt_tpl_utf8_next(s.p + at, s.n - at, &used);
        at += used;
        i--;
    }
    return at;
}

static bool is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t rt_tpl_space_at(const char *p, size_t n) {
    if (n == 0)
        return 0;
    size_t used;
    uint32_t c = rt_tpl_utf8_next(p, n, &used);
    return is_space(c) ? used : 0;
}

bool rt_tpl_printable(uint32_t c) {
    if (c < 0x80)
        return c >= 0x20 && c < 0x7f;
    size_t lo = 0, hi = rt_tpl_unprintable_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c < rt_tpl_unprintable[mid].first)
            hi = mid;
        else if (c > rt_tpl_unprintable[mid].last)
            lo = mid + 1;
        else
            return false;
    }
    return true;
}

static const char *special_case(const struct rt_tpl_case_special *t, size_t n, uint32_t c) {
    for (size_t i = 0; i < n && t[i].code <= c; i++)
        if (t[i].code == c)
            return t[i].text;
    return NULL;
}

static uint32_t run_case(const struct rt_tpl_case_run *t, size_t n, uint32_t c) {
    /* Runs are sorted by first; one with stride 2 may enclose single characters of others. */
    for (size_t i = 0; i < n && t[i].first <= c; i++)
        if (c <= t[i].last && (c - t[i].first) % t[i].stride == 0)
            return (uint32_t)((int64_t)c + t[i].delta);
    return c;
}

void rt_tpl_put_case(struct rt_tpl_env *e, struct rt_tpl_buf *b, uint32_t c, enum rt_tpl_case how) {
    if (c < 0x80) {
        if (how == RT_TPL_LOWER)
            rt_tpl_putc(e, b, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
        else
            rt_tpl_putc(e, b, (char)(c >= 'a' && c <= 'z' ? c - 32 : c));
        return;
    }
    rt_tpl_charge(e, 4); /* the tables are searched */
    const char *text = NULL;
    if (how == RT_TPL_LOWER) {
        /* Python picks one of two small sigmas by the letters around it. */
        if (c == 0x3a3)
            rt_tpl_fail(e, "lower case of the Greek capital sigma is not supported");
        text = special_case(rt_tpl_lower_special, rt_tpl_lower_special_n, c);
    } else {
        if (how == RT_TPL_TITLE)
            text = special_case(rt_tpl_title_special, rt_tpl_title_special_n, c);
        if (!text)
            text = special_case(rt_tpl_upper_special, rt_tpl_upper_special_n, c);
    }
    if (text)
        rt_tpl_puts(e, b, text);
    else if (how == RT_TPL_LOWER)
        rt_tpl_put_code(e, b, run_case(rt_tpl_lower_runs, rt_tpl_lower_runs_n, c));
    else
        rt_tpl_put_code(e, b, run_case(rt_tpl_upper_runs, rt_tpl_upper_runs_n, c));
}

struct rt_tpl_str rt_tpl_str_case(struct rt_tpl_env *e, struct rt_tpl_str s, enum rt_tpl_case how) {
    struct rt_tpl_buf b = {0};
    for (size_t i = 0, used; i < s.n; i += used)
        rt_tpl_put_case(e, &b, rt_tpl_utf8_next(s.p + i, s.n - i, &used), how);
    return rt_tpl_buf_str(&b);
}

struct rt_tpl_str rt_tpl_capitalize(struct rt_tpl_env *e, struct rt_tpl_str s) {
    struct rt_tpl_buf b = {0};
    for (size_t i = 0, used; i < s.n; i += used)
        rt_tpl_put_case(e, &b, rt_tpl_utf8_next(s.p + i, s.n - i, &used),
                        i ? RT_TPL_LOWER : RT_TPL_TITLE);
    return rt_tpl_buf_str(&b);
}

static bool in_set(struct rt_tpl_env *e, const char *p, size_t n, const struct rt_tpl_str *set) {
    if (!set)
        return rt_tpl_space_at(p, n) == n;
    rt_tpl_charge(e, 1 + set->n / 32);
    for (size_t i = 0, used; i < set->n; i += used) {
        rt_tpl_utf8_next(set->p + i, set->n - i, &used);
        if (used == n && memcmp(set->p + i, p, n) == 0)
            return true;
    }
    return false;
}

struct rt_tpl_str rt_tpl_strip(struct rt_tpl_env *e, struct rt_tpl_str s,
                               const struct rt_tpl_str *chars, int sides) {
    rt_tpl_charge(e, s.n / 32);
    while ((sides & RT_TPL_LEFT) && s.n > 0) {
        size_t used;
        rt_tpl_utf8_next(s.p, s.n, &used);
        if (!in_set(e, s.p, used, chars))
            break;
        s.p += used;
        s.n -= used;
    }
    while ((sides & RT_TPL_RIGHT) && s.n > 0) {
        size_t at = s.n - 1;
        while (at > 0 && ((unsigned char)s.p[at] & 0xc0) == 0x80)
            at--;
        if (!in_set(e, s.p + at, s.n - at, chars))
            break;
        s.n = at;
    }
    return s;
}

size_t rt_tpl_find(struct rt_tpl_env *e, struct rt_tpl_str s, struct rt_tpl_str what) {
    if (what.n == 0)
        return 0;
    if (what.n > s.n)
        return SIZE_MAX;
    const char *hit = memmem(s.p, s.n, what.p, what.n);
    size_t at = hit ? (size_t)(hit - s.p) : SIZE_MAX;
    rt_tpl_charge(e, (hit ? at : s.n) / 32);
    return at;
}

size_t rt_tpl_rfind(struct rt_tpl_env *e, struct rt_tpl_str s, struct rt_tpl_str what) {
    if (what.n > s.n)
        return SIZE_MAX;
    for (size_t at = s.n - what.n;; at--) {
        if (at % 32 == 0)
            rt_tpl_charge(e, 1 + what.n / 32);
        if (what.n == 0 || memcmp(s.p + at, what.p, what.n) == 0)
            return at;
        if (at == 0)
            return SIZE_MAX;
    }
}

struct rt_tpl_str rt_tpl_replace(struct rt_tpl_env *e, struct rt_tpl_str s, struct rt_tpl_str from,
                                 struct rt_tpl_str to, int64_t count) {
    struct rt_tpl_buf b = {0};
    size_t at = 0;
    if (count < 0)
        count = INT64_MAX;
    if (from.n == 0) { /* between all characters, and at both ends */
        while (count-- > 0) {
            rt_tpl_charge(e, 1);
            rt_tpl_put(e, &b, to.p, to.n);
            if (at >= s.n)
                return rt_tpl_buf_str(&b);
            size_t used;
            rt_tpl_utf8_next(s.p + at, s.n - at, &used);
            rt_tpl_put(e, &b, s.p + at, used);
            at += used;
        }
    }
    while (from.n && count-- > 0) {
        size_t hit = rt_tpl_find(e, (struct rt_tpl_str){s.p + at, s.n - at}, from);
        if (hit == SIZE_MAX)
            break;
        rt_tpl_charge(e, 1);
        rt_tpl_put(e, &b, s.p + at, hit);
        rt_tpl_put(e, &b, to.p, to.n);
        at += hit + from.n;
    }
    if (at == 0)
        return s;
    rt_tpl_put(e, &b, s.p + at, s.n - at);
    return rt_tpl_buf_str(&b);
}

/* Bytes of the line end at p, or 0: \n \r \r\n \v \f, U+1C..1E, U+85, U+2028, U+2029. */
static size_t line_end(const char *p, size_t n) {
    size_t used;
    uint32_t c = rt_tpl_utf8_next(p, n, &used);
    if (c == '\r')
        return n > 1 && p[1] == '\n' ? 2 : 1;
    return (c >= 10 && c <= 12) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
                   c == 0x2029
               ? used
               : 0;
}

struct rt_tpl_value rt_tpl_splitlines(struct rt_tpl_env *e, struct rt_tpl_str s, bool keep) {
    struct rt_tpl_list l = {0};
    size_t start = 0, i = 0;
    rt_tpl_charge(e, s.n / 8);
    while (i < s.n) {
        size_t end = line_end(s.p + i, s.n - i), used;
        if (!end) {
            rt_tpl_utf8_next(s.p + i, s.n - i, &used);
            i += used;
            continue;
        }
        rt_tpl_push(e, &l,
                    rt_tpl_string((struct rt_tpl_str){s.p + start, i - start + (keep ? end : 0)}));
        i += end;
        start = i;
    }
    if (start < s.n)
        rt_tpl_push(e, &l, rt_tpl_string((struct rt_tpl_str){s.p + start, s.n - start}));
    return rt_tpl_list_value(e, &l, RT_TPL_LIST);
}

/* The shortest digits that read back as f, laid out as Python's repr(float) does. The C library's
 * decimal point depends on the locale, so only its digits are used. */
void rt_tpl_put_float(struct rt_tpl_env *e, struct rt_tpl_buf *b, double f) {
    if (isnan(f)) {
        rt_tpl_puts(e, b, "nan");
        return;
    }
    if (isinf(f)) {
        rt_tpl_puts(e, b, f < 0 ? "-inf" : "inf");
        return;
    }
    char text[64], digits[32];
    for (int prec = 0; prec < 17; prec++) {
        snprintf(text, sizeof text, "%.*e", prec, f);
        if (strtod(text, NULL) == f)
            break;
    }
    size_t n = 0;
    const char *p = text;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9' && n < sizeof digits)
            digits[n++] = *p;
    int exp = *p == 'e' ? atoi(p + 1) : 0;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (signbit(f))
        rt_tpl_putc(e, b, '-');
    if (exp < -4 || exp >= 16) {
        rt_tpl_put(e, b, digits, 1);
        if (n > 1) {
            rt_tpl_putc(e, b, '.');
            rt_tpl_put(e, b, digits + 1, n - 1);
        }
        rt_tpl_printf(e, b, "e%c%02d", exp < 0 ? '-' : '+', abs(exp));
    } else if (exp < 0) {
        rt_tpl_puts(e, b, "0.");
        for (int i = -1; i > exp; i--)
            rt_tpl_putc(e, b, '0');
        rt_tpl_put(e, b, digits, n);
    } else {
        for (int i = 0; i <= exp; i++)
            rt_tpl_putc(e, b, (size_t)i < n ? digits[i] : '0');
        rt_tpl_putc(e, b, '.');
        if (n > (size_t)exp + 1)
            rt_tpl_put(e, b, digits + exp + 1, n - (size_t)exp - 1);
        else
            rt_tpl_putc(e, b, '0');
    }
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'Z')
        return c - 'A' + 10;
    return 99;
}

/* Python's int(text, base). Fails on what does not fit in 64 bits, and on digits of other scripts
 * (which Python would read). */
bool rt_tpl_read_int(struct rt_tpl_env *e, struct rt_tpl_str s, int64_t base, int64_t *out) {
    s = rt_tpl_strip(e, s, NULL, RT_TPL_LEFT | RT_TPL_RIGHT);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            rt_tpl_fail(e, "int of a text that is not ASCII is not supported");
    bool neg = false;
    if (s.n && (s.p[0] == '+' || s.p[0] == '-')) {
        neg = s.p[0] == '-';
        s.p++;
        s.n--;
    }
    bool prefix = false;
    if (s.n >= 2 && s.p[0] == '0') {
        char c = (char)(s.p[1] | 32);
        int64_t implied = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (implied && (base == implied || base == 0)) {
            base = implied;
            s.p += 2;
            s.n -= 2;
            prefix = true;
        }
    }
    bool zeros_only = base == 0 && s.n && s.p[0] == '0';
    if (base == 0)
        base = 10;
    uint64_t v = 0;
    bool last_digit = prefix; /* "0x_1" is allowed, "_1" is not */
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '_' && last_digit && i + 1 < s.n) {
            last_digit = false;
            continue;
        }
        int d = digit_of(s.p[i]);
        if (d >= base)
            return false;
        if (zeros_only && d != 0)
            return false;
        if (v > ((uint64_t)INT64_MAX - (uint64_t)d) / (uint64_t)base)
            rt_tpl_fail(e, "integer does not fit in 64 bits");
        v = v * (uint64_t)base + (uint64_t)d;
        last_digit = true;
    }
    *out = neg ? -(int64_t)v : (int64_t)v;
    return true;
}

static size_t read_digits(struct rt_tpl_str s, size_t i, struct rt_tpl_env *e,
                          struct rt_tpl_buf *b) {
    size_t start = i;
    while (i < s.n && ((s.p[i] >= '0' && s.p[i] <= '9') ||
                       (s.p[i] == '_' && i > start && s.p[i - 1] != '_' && i + 1 < s.n &&
                        s.p[i + 1] >= '0' && s.p[i + 1] <= '9'))) {
        if (s.p[i] != '_')
            rt_tpl_putc(e, b, s.p[i]);
        i++;
    }
    return i;
}

bool rt_tpl_read_float(struct rt_tpl_env *e, struct rt_tpl_str s, double *out) {
    s = rt_tpl_strip(e, s, NULL, RT_TPL_LEFT | RT_TPL_RIGHT);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            rt_tpl_fail(e, "float of a text that is not ASCII is not supported");
    size_t i = 0;
    bool neg = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '+' || neg))
        i = 1;
    struct rt_tpl_str rest =
        rt_tpl_str_case(e, (struct rt_tpl_str){s.p + i, s.n - i}, RT_TPL_LOWER);
    if (rt_tpl_str_is(rest, "inf") || rt_tpl_str_is(rest, "infinity")) {
        *out = neg ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    if (rt_tpl_str_is(rest, "nan")) {
        *out = (double)NAN;
        return true;
    }
    /* Digits without the point, and an exponent that accounts for it: no locale is involved. */
    struct rt_tpl_buf b = {0};
    if (neg)
        rt_tpl_putc(e, &b, '-');
    size_t whole = i, point;
    i = read_digits(s, i, e, &b);
    size_t digits = i - whole, shift = 0;
    if (i < s.n && s.p[i] == '.') {
        point = b.n;
        size_t from = ++i;
        i = read_digits(s, i, e, &b);
        shift = b.n - point;
        digits += i - from;
    }
    if (digits == 0)
        return false;
    int64_t exp = 0;
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        i++;
        bool minus = i < s.n && s.p[i] == '-';
        if (i < s.n && (s.p[i] == '-' || s.p[i] == '+'))
            i++;
        struct rt_tpl_buf x = {0};
        size_t from = i;
        i = read_digits(s, i, e, &x);
        if (i == from)
            return false;
        for (size_t k = 0; k < x.n; k++)
            if (exp < 100000000)
                exp = exp * 10 + (x.p[k] - '0');
        if (minus)
            exp = -exp;
    }
    if (i != s.n)
        return false;
    rt_tpl_printf(e, &b, "e%lld", (long long)(exp - (int64_t)shift));
    rt_tpl_putc(e, &b, 0);
    *out = strtod(b.p, NULL);
    return true;
}

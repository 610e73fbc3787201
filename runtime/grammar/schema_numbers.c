/* Numbers within bounds that are multiples of one, as automata over digits.
 *
 * Digit by digit, three things decide whether a text is such a number: how its digits compare with
 * as many first digits of either bound, what remainder they leave, and how many there have been,
 * before or behind the point. With these as states (x is what was read, without the point)
 *
 *     whole(digits, x ? low, x ? high, x mod multiple)
 *     fraction(places, x ? low, x ? high, x mod multiple)
 *
 * the automaton is deterministic and without cycles. It is made from its ends to its beginning, and
 * states that go on alike are one (Revuz 1992, "Minimisation of acyclic deterministic automata in
 * linear time"): multiples of 1,000 need hardly more states than all numbers. */
#include "runtime/grammar/schema_values.h"

#include "runtime/modelcc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WHOLE = 15,   /* digits before the point */
    PLACES = 15,  /* behind it */
    POINT = 10,   /* of a state's numbers: 0 … 9 say where digits lead to … */
    MAY_END = 11, /* … this one whether the text may end */
    NUMBERS = RT_EXPR_DIGITS_NUMBERS,
    MAX_WORK = 1 << 22 /* states of all numbers of a schema, before those that are alike are one */
};

/* One that is not negative. */
typedef struct limit {
    char digits[WHOLE + PLACES]; /* 0 … 9 */
    int n;                       /* before the point, without zeros at the beginning */
    int end;                     /* behind the last one that is not 0, from the point on; or 0 */
    bool excluded;
} limit;

typedef struct numbers {
    rt_json *json;
    limit low, high;
    uint32_t multiple; /* of 10^-places */
    int places;
    uint32_t *known; /* states by what they stand for: their number + 1, RT_EXPR_NONE, 0 */
    uint32_t *table; /* states by their contents: number + 1, or 0 */
    uint32_t table_size;
    rt_expr_stack states; /* NUMBERS each */
} numbers;

/* --- decimal numbers -----------------------------------------------------------------------------
 */

/* The digits of x >= 0. False: it has more. 15 digits are what a double keeps of any text. */
static bool digits_of(double x, char digits[WHOLE + PLACES]) {
    char text[40];
    memset(digits, 0, WHOLE + PLACES);
    snprintf(text, sizeof text, "%.14e", x);
    const char *e = strchr(text, 'e');
    if (!e || strtod(text, NULL) != x)
        return false;
    int at = WHOLE - 1 - (int)strtol(e + 1, NULL, 10);
    for (const char *p = text; p < e; p++) {
        if (*p < '0' || *p > '9')
            continue; /* the point, whatever the locale has for one */
        if (at >= 0 && at < WHOLE + PLACES)
            digits[at] = (char)(*p - '0');
        else if (*p != '0')
            return false;
        at++;
    }
    return true;
}

bool rt_json_exact(double x) {
    char digits[WHOLE + PLACES];
    return digits_of(fabs(x), digits);
}

static limit limit_of(double x, bool excluded) {
    limit l = {.excluded = excluded};
    digits_of(x, l.digits);
    l.n = WHOLE;
    while (l.n > 1 && l.digits[WHOLE - l.n] == 0)
        l.n--;
    for (int i = 0; i < PLACES; i++)
        if (l.digits[WHOLE + i])
            l.end = i + 1;
    return l;
}

static uint64_t gcd(uint64_t a, uint64_t b) {
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

bool rt_json_set_multiple(rt_json_numbers *n, double x, bool integer) {
    char digits[WHOLE + PLACES];
    int last = 0;
    uint64_t value = 0, ten = 1;
    if (!digits_of(x, digits))
        return false;
    for (int i = 0; i < WHOLE + PLACES; i++)
        last = digits[i] ? i : last;
    for (int i = 0; i <= last && value <= RT_JSON_MAX_MULTIPLE; i++)
        value = 10 * value + (uint64_t)digits[i];
    if (value == 0 || value > RT_JSON_MAX_MULTIPLE)
        return false;
    int exponent = WHOLE - 1 - last;
    for (int i = 0; i > exponent; i--)
        ten *= 10;
    if (integer && exponent < 0) { /* of whole numbers it is a whole number as well */
        value /= gcd(value, ten);
        exponent = 0;
    }
    n->multiple = (uint32_t)value;
    n->exponent = exponent;
    return true;
}

/* --- states --------------------------------------------------------------------------------------
 */

/* The number of a state with these contents; RT_EXPR_NONE where nothing can follow. */
static uint32_t make_state(numbers *n, const uint32_t state[NUMBERS]) {
    rt_rules *r = n->json->rules;
    uint32_t hash = 0;
    bool dead = !state[MAY_END];
    for (int i = 0; i < NUMBERS; i++) {
        hash = (hash ^ state[i]) * 0x9e3779b1u;
        hash ^= hash >> 15;
        dead = dead && (i == MAY_END || state[i] == RT_EXPR_NONE);
    }
    if (!r->failed && ++n->json->work > MAX_WORK)
        rt_rules_fail(r, MCC_CAPACITY,
                      "the grammar is too large: the bounds and multiples of its numbers");
    if (dead || r->failed)
        return RT_EXPR_NONE;
    uint32_t at = hash % n->table_size;
    for (; n->table[at]; at = (at + 1) % n->table_size)
        if (memcmp(n->states.at + (size_t)NUMBERS * (n->table[at] - 1), state,
                   NUMBERS * sizeof *state) == 0)
            return n->table[at] - 1;
    for (int i = 0; i < NUMBERS; i++)
        rt_expr_push(r, &n->states, state[i]);
    n->table[at] = (uint32_t)(n->states.n / NUMBERS);
    return n->table[at] - 1;
}

/* How digit c compares with a limit's digit `at`, where all before it are the same; else as those
 * before it do. */
static int compare(int before, int c, const limit *l, int at) {
    return before ? before : (c > l->digits[at]) - (c < l->digits[at]);
}

/* Whether x may end, with so many places behind the point, and as many digits as either limit
 * where it is compared. */
static bool may_end(const numbers *n, int places, int low, int high, uint32_t rest) {
    bool above = low > 0 || (low == 0 && n->low.end <= places && !n->low.excluded);
    bool below = high < 0 || (high == 0 && (n->high.end > places || !n->high.excluded));
    uint64_t left = rest;
    for (int i = places; i < n->places; i++)
        left = left * 10 % n->multiple;
    return above && below && left == 0;
}

static uint32_t fraction(numbers *n, int places, int low, int high, uint32_t rest) {
    if (low < 0 || high > 0)
        return RT_EXPR_NONE;
    uint32_t *known =
        &n->known[(size_t)(WHOLE * 9 + places * 4 + low * 2 - high) * n->multiple + rest];
    if (*known)
        return *known == RT_EXPR_NONE ? RT_EXPR_NONE : *known - 1;
    uint32_t state[NUMBERS];
    memset(state, 0xff, sizeof state); /* RT_EXPR_NONE */
    state[MAY_END] = places > 0 && may_end(n, places, low, high, rest);
    for (int c = 0; c < 10 && places < n->places; c++)
        state[c] = fraction(n, places + 1, compare(low, c, &n->low, WHOLE + places),
                            compare(high, c, &n->high, WHOLE + places),
                            (rest * 10 + (uint32_t)c) % n->multiple);
    uint32_t made = make_state(n, state);
    *known = made == RT_EXPR_NONE ? RT_EXPR_NONE : made + 1;
    return made;
}

/* After `digits` of them, 1 or more; not more than the upper limit has. */
static uint32_t whole(numbers *n, int digits, int low, int high, uint32_t rest, bool zero) {
    if (digits > n->low.n)
        low = 1;
    uint32_t *known =
        &n->known[((size_t)(digits - 1) * 9 + (size_t)(low + 1) * 3 + (size_t)(high + 1)) *
                      n->multiple +
                  rest];
    if (*known && !zero)
        return *known == RT_EXPR_NONE ? RT_EXPR_NONE : *known - 1;
    /* Compared as numbers: those of fewer digits are less. */
    int above = digits < n->low.n ? -1 : low, below = digits < n->high.n ? -1 : high;
    uint32_t state[NUMBERS];
    memset(state, 0xff, sizeof state);
    state[MAY_END] = may_end(n, 0, above, below, rest);
    for (int c = 0; c < 10 && digits < n->high.n && !zero; c++)
        state[c] = whole(n, digits + 1, compare(low, c, &n->low, WHOLE - n->low.n + digits),
                         compare(high, c, &n->high, WHOLE - n->high.n + digits),
                         (rest * 10 + (uint32_t)c) % n->multiple, false);
    if (n->places > 0)
        state[POINT] = fraction(n, 0, above, below, rest);
    uint32_t made = make_state(n, state);
    if (!zero)
        *known = made == RT_EXPR_NONE ? RT_EXPR_NONE : made + 1;
    return made;
}

/* The beginning: no zeros but one that stands alone before the point. */
static uint32_t first_state(numbers *n) {
    uint32_t state[NUMBERS];
    memset(state, 0xff, sizeof state);
    state[MAY_END] = 0;
    for (int c = 0; c < 10; c++)
        state[c] =
            whole(n, 1, compare(0, c, &n->low, WHOLE - n->low.n),
                  compare(0, c, &n->high, WHOLE - n->high.n), (uint32_t)c % n->multiple, c == 0);
    return make_state(n, state);
}

/* Numbers without a sign from low to high; RT_EXPR_NONE: there are none. */
static uint32_t magnitudes(rt_json *j, const rt_json_numbers *x, limit low, limit high) {
    rt_rules *r = j->rules;
    if (r->failed)
        return 0;
    numbers n = {.json = j, .low = low, .high = high, .multiple = x->multiple};
    n.places = x->exponent < 0 ? -x->exponent : 0;
    size_t size = (size_t)(WHOLE * 9 + 4 * (n.places + 1)) * n.multiple;
    n.table_size = (uint32_t)size * 2;
    n.known = calloc(size + n.table_size, sizeof *n.known);
    if (!n.known) {
        rt_rules_fail(r, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
        return 0;
    }
    n.table = n.known + size;
    j->work += (uint32_t)size / 8;
    uint32_t first = first_state(&n), expr = RT_EXPR_NONE;
    if (first != RT_EXPR_NONE || r->failed)
        expr = rt_expr_list(r, RT_EXPR_DIGITS, n.states.at, n.states.n);
    if (first != RT_EXPR_NONE && !r->failed)
        r->exprs[expr].rule = first;
    rt_expr_stack_free(&n.states);
    free(n.known);
    return expr;
}

/* --- numbers -------------------------------------------------------------------------------------
 */

/* The same with zeros at the end, where the multiple has them; limits are whole then. */
static uint32_t with_zeros(rt_json *j, const rt_json_numbers *x, double low, bool low_excluded,
                           double high, bool high_excluded) {
    static const char zeros[WHOLE] = "00000000000000";
    double ten = 1;
    if (low > high)
        return RT_EXPR_NONE;
    for (int i = 0; i < x->exponent; i++)
        ten *= 10;
    if (x->exponent <= 0)
        return magnitudes(j, x, limit_of(low, low_excluded), limit_of(high, high_excluded));
    low = ceil(low / ten);
    high = floor(high / ten);
    uint32_t zero = low <= 0 ? rt_expr_text(j->rules, "0", 1) : RT_EXPR_NONE;
    low = low > 1 ? low : 1;
    uint32_t some =
        low <= high ? magnitudes(j, x, limit_of(low, false), limit_of(high, false)) : RT_EXPR_NONE;
    if (some != RT_EXPR_NONE)
        some =
            rt_expr_list(j->rules, RT_EXPR_SEQ,
                         (uint32_t[]){some, rt_expr_text(j->rules, zeros, (size_t)x->exponent)}, 2);
    if (zero == RT_EXPR_NONE || some == RT_EXPR_NONE)
        return zero == RT_EXPR_NONE ? some : zero;
    return rt_expr_list(j->rules, RT_EXPR_ALT, (uint32_t[]){zero, some}, 2);
}

uint32_t rt_json_numbers_like(rt_json *j, rt_json_numbers x) {
    uint32_t above = RT_EXPR_NONE, below = RT_EXPR_NONE;
    if (x.exponent >= 0) { /* whole numbers: from the first to the last one */
        double min = ceil(x.min), max = floor(x.max);
        x.min = min + (x.min_excluded && min == x.min);
        x.max = max - (x.max_excluded && max == x.max);
        x.min_excluded = x.max_excluded = false;
    }
    if (x.max >= 0)
        above = with_zeros(j, &x, x.min > 0 ? x.min : 0, x.min >= 0 && x.min_excluded, x.max,
                           x.max_excluded);
    if (x.min < 0) {
        bool to_zero = x.max >= 0; /* 0 itself is among those without a sign */
        double low = !to_zero ? -x.max : x.exponent < 0 ? 0 : 1;
        below = with_zeros(j, &x, low, to_zero ? x.exponent < 0 : x.max_excluded, -x.min,
                           x.min_excluded);
    }
    if (below != RT_EXPR_NONE)
        below = rt_expr_list(j->rules, RT_EXPR_SEQ,
                             (uint32_t[]){rt_expr_text(j->rules, "-", 1), below}, 2);
    if (above == RT_EXPR_NONE || below == RT_EXPR_NONE)
        return above == RT_EXPR_NONE ? below : above;
    return rt_expr_list(j->rules, RT_EXPR_ALT, (uint32_t[]){above, below}, 2);
}

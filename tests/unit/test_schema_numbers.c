/* Numbers of JSON schemas: bounds and multiples against arithmetic on whole numbers, for all short
 * texts and for many near the bounds; what is refused; hostile schemas. */
#include "quick_checks.h"
#include "schema_case.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_state;

static int64_t draw(int64_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(random_state >> 16) % n;
}

static uint64_t test_seed(void) {
    const char *text = getenv("MCC_TEST_SEED");
    return text ? strtoull(text, NULL, 10) : 0;
}

/* --- the oracle ----------------------------------------------------------------------------------
 */

enum { PLACES = 6 };
static const int64_t unit = 1000000; /* what is counted in is 1/unit */

typedef struct numbers {
    bool integer, has_min, has_max, min_excluded, max_excluded;
    int64_t min, max, multiple; /* in 1/unit; multiple 0: none */
    int64_t excluded[3];
    int n_excluded;
} numbers;

/* With so many places behind the point, 0: without a point. */
static int put_decimal(char *to, int64_t value, int places) {
    char digits[32];
    const char *sign = value < 0 ? "-" : "";
    value = value < 0 ? -value : value;
    snprintf(digits, sizeof digits, "%06d", (int)(value % unit));
    return sprintf(to, "%s%lld%s%.*s", sign, (long long)(value / unit), places ? "." : "", places,
                   digits);
}

static int places_of(int64_t value) {
    int places = PLACES;
    for (; places > 0 && value % 10 == 0; places--)
        value /= 10;
    return places;
}

static void put_schema(char *to, const numbers *n) {
    to += sprintf(to, "{\"type\": \"%s\"", n->integer ? "integer" : "number");
    if (n->has_min) {
        to += sprintf(to, ", \"%s\": ", n->min_excluded ? "exclusiveMinimum" : "minimum");
        to += put_decimal(to, n->min, places_of(n->min));
    }
    if (n->has_max) {
        to += sprintf(to, ", \"%s\": ", n->max_excluded ? "exclusiveMaximum" : "maximum");
        to += put_decimal(to, n->max, places_of(n->max));
    }
    if (n->multiple) {
        to += sprintf(to, ", \"multipleOf\": ");
        to += put_decimal(to, n->multiple, places_of(n->multiple));
    }
    for (int i = 0; i < n->n_excluded; i++) {
        to += sprintf(to, i ? ", " : ", \"not\": {\"enum\": [");
        to += put_decimal(to, n->excluded[i], places_of(n->excluded[i]));
    }
    sprintf(to, n->n_excluded ? "]}}" : "}");
}

/* Whether a text is such a number: in JSON's grammar, without an exponent; with no more places than
 * the multiple has; and 0 without a sign. */
static bool is_number(const numbers *n, const char *text) {
    bool negative = *text == '-';
    int64_t value = 0;
    int places = -1;
    text += negative;
    if (*text < '0' || *text > '9' || (*text == '0' && text[1] && text[1] != '.'))
        return false;
    for (; *text; text++) {
        bool point = *text == '.';
        if (point ? places >= 0 || !text[1] : *text < '0' || *text > '9')
            return false;
        places = point ? 0 : places + (places >= 0);
        value = point ? value : 10 * value + *text - '0';
    }
    int most = n->integer ? 0 : n->multiple ? places_of(n->multiple) : PLACES;
    if (places > most || (places >= 0 && most == 0) || (negative && value == 0))
        return false;
    for (int i = places < 0 ? 0 : places; i < PLACES; i++)
        value *= 10;
    value = negative ? -value : value;
    for (int i = 0; i < n->n_excluded; i++)
        if (n->excluded[i] == value)
            return false;
    return (!n->has_min || value > n->min || (value == n->min && !n->min_excluded)) &&
           (!n->has_max || value < n->max || (value == n->max && !n->max_excluded)) &&
           (n->multiple == 0 || value % n->multiple == 0);
}

/* --- random schemas ------------------------------------------------------------------------------
 */

static int64_t random_value(void) {
    static const int64_t sizes[] = {3, 30, 200, 5000, 1000000, INT64_C(1000000000000)};
    static const int64_t units[] = {1000000, 1000000, 500000, 10000, 1};
    int i = (int)draw(6);
    int64_t size = sizes[i], in_units = units[draw(i < 5 ? 5 : 4)]; /* 15 digits in all */
    int64_t value = draw(size) * unit + draw(unit) / in_units * in_units;
    return draw(3) == 0 ? -value : value;
}

static numbers random_numbers(void) {
    static const int64_t steps[] = {1000000, 100000, 10000, 1000};
    int i = 0;
    numbers n = {.integer = draw(2), .has_min = draw(4), .has_max = draw(4)};
    n.min_excluded = draw(2);
    n.max_excluded = draw(2);
    n.min = random_value();
    n.max = draw(2) ? random_value() : n.min + draw(2000) * unit / 2;
    if (n.min > n.max) {
        int64_t min = n.max;
        n.max = n.min;
        n.min = min;
    }
    if (draw(3) > 0 || (!n.has_min && !n.has_max)) /* at most 1024 */
        n.multiple = (1 + draw(draw(3) ? 30 : 1023)) * steps[draw(3) ? 0 : draw(4)];
    if (draw(8) == 0)
        n.multiple = (1 + draw(9)) * unit * 1000;
    for (n.n_excluded = draw(4) ? 0 : (int)draw(4); i < n.n_excluded; i++)
        n.excluded[i] = draw(2) ? n.min + draw(3) * unit : draw(9) * unit / 2;
    return n;
}

/* A text that is about as large as one of the bounds or a multiple. */
static void put_random(char *to, const numbers *n) {
    const int64_t near[] = {n->min, n->max, n->excluded[0], n->multiple * draw(1000)};
    const int64_t steps[] = {unit, n->multiple ? n->multiple : 1, unit / 100, 1};
    int64_t value = near[draw(4)];
    if (n->multiple && draw(2))
        value = value / n->multiple * n->multiple;
    value += (draw(7) - 3) * steps[draw(4)];
    put_decimal(to, value, draw(2) ? places_of(value) : (int)draw(PLACES + 1));
}

static int accepted;

static void check_text(const rt_automaton *a, const numbers *n, const char *schema,
                       const char *text) {
    bool right = is_number(n, text), found = a && accepts(a, text);
    HOLDS(right == found, "%s: %s is %s", schema, text, found ? "accepted" : "not accepted");
    accepted += found;
}

/* All texts of up to `left` more characters. */
static void check_all(const rt_automaton *a, const numbers *n, const char *schema, char *text,
                      size_t size, int left) {
    text[size] = 0;
    check_text(a, n, schema, text);
    for (const char *c = "-.0123456789"; left > 0 && *c; c++) {
        text[size] = *c;
        check_all(a, n, schema, text, size + 1, left - 1);
    }
}

START_TEST(bounds_and_multiples) {
    random_state = test_seed() * 2 + 1;
    int schemas = test_full() ? 2000 : 60, empty = 0;
    for (int i = 0; i < schemas; i++) {
        numbers n = random_numbers();
        rt_automaton automaton = {0};
        rt_error error = {0};
        char schema[300], text[64];
        put_schema(schema, &n);
        bool ok = read_schema(schema, &automaton, &error);
        HOLDS(ok || strstr(error.text, "no text can ever match: /"), "%s: %s", schema, error.text);
        const rt_automaton *a = ok ? &automaton : NULL;
        empty += !ok;
        check_all(a, &n, schema, text, 0, 3);
        for (int k = 0; k < 3000; k++) {
            put_random(text, &n);
            check_text(a, &n, schema, text);
        }
        rt_automaton_destroy(&automaton);
    }
    /* The test meets what it is about. */
    HOLDS(accepted > 100 * schemas && empty < schemas / 4, "%d texts, %d schemas without any",
          accepted, empty);
}
END_TEST

/* --- single ones ---------------------------------------------------------------------------------
 */

static const schema_case cases[] = {
    {"{\"multipleOf\": 0.01, \"minimum\": 0.05, \"maximum\": 19.99}",
     {"0.05", "0.1", "0.10", "1", "19.99", "2.5"},
     {"0.04", "20", "1.005", "0", "-1", "1e1", "01"}},
    {"{\"type\": \"integer\", \"multipleOf\": 1000}",
     {"0", "1000", "-12000", "999999999999000"},
     {"100", "00", "-0", "1500", "1000000000000000", "1000.0"}},
    {"{\"type\": \"integer\", \"multipleOf\": 1e14}",
     {"0", "100000000000000", "-900000000000000"},
     {"10000000000000", "1"}},
    {"{\"type\": \"number\", \"multipleOf\": 1e-15, \"exclusiveMinimum\": 0, \"exclusiveMaximum\": "
     "1e-14}",
     {"0.000000000000001", "0.000000000000009"},
     {"0", "0.00000000000001", "0.000000000000000", "0.0000000000000001"}},
    /* Of whole numbers, multiples of a fraction are those of a whole number. */
    {"{\"type\": \"integer\", \"multipleOf\": 1.5}", {"0", "3", "-6"}, {"1", "2", "1.5"}},
    {"{\"type\": \"integer\", \"multipleOf\": 0.25}", {"0", "1", "7"}, {"0.25"}},
    {"{\"type\": \"number\", \"multipleOf\": 1.5}", {"0", "1.5", "-3", "3.0"}, {"1", "2.0"}},
    /* With more than 15 digits, or an exponent, no number is made: bounds beyond hold. */
    {"{\"type\": \"number\", \"minimum\": -1e20}",
     {"-999999999999999", "1.5"},
     {"-1e21", "1e3", "1000000000000000"}},
    {"{\"type\": \"number\", \"exclusiveMinimum\": -999999999999999}",
     {"-999999999999998", "-999999999999998.9"},
     {"-999999999999999"}},
    {"{\"type\": \"number\", \"minimum\": 0.1, \"maximum\": 0.1}", {"0.1", "0.10"}, {"0.11", "0"}},
    {"{\"type\": [\"integer\", \"string\"], \"multipleOf\": 7}", {"14", "\"a\""}, {"13"}},
    /* Merged: a multiple of all. */
    {"{\"type\": \"integer\", \"allOf\": [{\"multipleOf\": 4}, {\"multipleOf\": 6}, "
     "{\"multipleOf\": 4}], \"minimum\": 1, \"maximum\": 30}",
     {"12", "24"},
     {"4", "6", "0", "36"}},
    {"{\"type\": \"integer\", \"minimum\": 5, \"anyOf\": [{\"multipleOf\": 7, \"maximum\": 6}, "
     "{\"multipleOf\": 3, \"maximum\": 6}]}",
     {"6"},
     {"5", "7"}},
};

START_TEST(numbers_that_match) {
    check_schema(&cases[_i]);
}
END_TEST

START_TEST(refusals) {
    static const char *const refused[][2] = {
        {"{\"type\": \"integer\", \"multipleOf\": 0}", "/multipleOf: expected a number above 0"},
        {"{\"multipleOf\": -2}", "/multipleOf: expected a number above 0"},
        {"{\"multipleOf\": \"2\"}", "/multipleOf: expected a number above 0"},
        {"{\"multipleOf\": 1e999}", "/multipleOf: only 1 to 1024, times a power of ten"},
        {"{\"type\": \"integer\", \"multipleOf\": 1025}", "/multipleOf: only 1 to 1024"},
        {"{\"multipleOf\": 0.333333333333}", "/multipleOf: only 1 to 1024"},
        {"{\"multipleOf\": 1.0000000000000002}", "/multipleOf: only 1 to 1024"},
        {"{\"multipleOf\": 1e-16}", "/multipleOf: only 1 to 1024"},
        {"{\"multipleOf\": 1e15}", "/multipleOf: only 1 to 1024"},
        {"{\"minimum\": 0.30000000000000004}", "/minimum: only numbers of at most 15 digits"},
        {"{\"maximum\": 1e-16}", "/maximum: only numbers of at most 15 digits"},
        {"{\"minimum\": 1e15}", "/minimum: only numbers of at most 15 digits"},
        {"{\"maximum\": true}", "/maximum: expected a number"},
        {"{\"allOf\": [{\"multipleOf\": 0.5}, {\"multipleOf\": 0.2}]}",
         "/multipleOf: not supported beside another multipleOf"},
        {"{\"allOf\": [{\"multipleOf\": 1023}, {\"multipleOf\": 1024}]}",
         "/multipleOf: only 1 to 1024"},
        {"{\"type\": \"integer\", \"multipleOf\": 7, \"minimum\": 8, \"maximum\": 13}",
         "no text can ever match: /multipleOf: no number is within the bounds"},
        {"{\"type\": \"integer\", \"exclusiveMinimum\": 3, \"exclusiveMaximum\": 4}",
         "no text can ever match: /minimum: no number is within the bounds"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        check_refusal(refused[i][0], refused[i][1]);
}
END_TEST

/* States that go on alike are one: the multiples that people write cost little. */
START_TEST(automata_are_small) {
    static const struct {
        const char *schema;
        uint32_t most;
    } small[] = {
        {"{\"type\": \"integer\", \"multipleOf\": 1000}", 99},
        {"{\"type\": \"integer\", \"multipleOf\": 250}", 131},
        {"{\"type\": \"integer\", \"multipleOf\": 60}", 137},
        {"{\"type\": \"integer\", \"multipleOf\": 1024}", 3450},
        {"{\"type\": \"number\", \"multipleOf\": 0.01, \"minimum\": 0}", 38},
        {"{\"type\": \"number\", \"minimum\": -273.15, \"maximum\": 1e9}", 107},
        {"{\"type\": \"integer\", \"multipleOf\": 1021}", 20560},
    };
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        rt_error error = {0};
        rt_automaton automaton = {0};
        ck_assert_msg(read_schema(small[i].schema, &automaton, &error), "%s", error.text);
        ck_assert_msg(automaton.n_states <= small[i].most, "%s: %u states", small[i].schema,
                      automaton.n_states);
        rt_automaton_destroy(&automaton);
    }
}
END_TEST

/* Very many numbers: within bounds of work and memory, or an error. */
START_TEST(hostile_numbers) {
    static char text[1 << 20];
    static const struct {
        const char *part;
        int n;
        bool ok;
    } many[] = {
        {"{\"type\": \"integer\", \"minimum\": %d, \"multipleOf\": 1021}", 10000, false},
        {"{\"type\": \"integer\", \"minimum\": %d, \"multipleOf\": 1024}", 10000, false},
        {"{\"type\": \"number\", \"minimum\": %d.00000001, \"multipleOf\": 1e-14}", 10000, false},
        {"{\"type\": \"number\", \"minimum\": -%d, \"maximum\": 1234567.891}", 10000, false},
        {"{\"type\": \"number\", \"minimum\": -%d.5, \"maximum\": 100}", 300, true},
        /* There is none: 461 and 462 modulo 1021. */
        {"{\"type\": \"integer\", \"multipleOf\": 1021, \"minimum\": 500000000000001, "
         "\"maximum\": 500000000000002, \"title\": \"%d\"}",
         8000, false},
    };
    rt_error error = {0};
    rt_automaton automaton = {0};
    size_t n = (size_t)sprintf(text, "{\"anyOf\": [");
    for (int i = 0; i < many[_i].n; i++) {
        n += (size_t)sprintf(text + n, i ? "," : "");
        n += (size_t)sprintf(text + n, many[_i].part, i);
    }
    sprintf(text + n, "]}");
    bool ok = read_schema(text, &automaton, &error);
    ck_assert_msg(ok == many[_i].ok, "%s", error.text);
    ck_assert_msg(ok || strstr(error.text, "the grammar is too large"), "%s", error.text);
    rt_automaton_destroy(&automaton);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("schema_numbers");
    TCase *t = tcase_create("schema_numbers");
    tcase_set_timeout(t, 600);
    tcase_add_test(t, bounds_and_multiples);
    tcase_add_loop_test(t, numbers_that_match, 0, sizeof cases / sizeof *cases);
    tcase_add_test(t, refusals);
    tcase_add_test(t, automata_are_small);
    tcase_add_loop_test(t, hostile_numbers, 0, 6);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

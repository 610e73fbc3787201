/* The JSON that schemas are made of: strings, numbers, and what may stand between them. */
#ifndef MCC_RUNTIME_GRAMMAR_SCHEMA_VALUES_H
#define MCC_RUNTIME_GRAMMAR_SCHEMA_VALUES_H

#include "runtime/grammar/rules.h"

#include <cjson/cJSON.h>

/* Expressions and rules that a grammar needs once; RT_EXPR_NONE: not made yet. Zero is not a good
 * beginning: use rt_json_init. */
typedef struct rt_json {
    rt_rules *rules;
    uint32_t space;     /* an expression: nothing, a space, or a line break and indentation */
    uint32_t character; /* an expression: of a string, escaped where it must or may be */
    uint32_t plain;     /* an expression: the same, never escaped */
    uint32_t string, number, value, object, array, character_rule; /* rules */
    uint32_t work;                                                 /* of schema_numbers.c */
} rt_json;

void rt_json_init(rt_json *json, rt_rules *rules);

/* Each returns an expression. Numbers have at most 15 digits before and after the point, and
 * exponents 2: every reader of JSON takes them, and a model cannot go on writing digits. */
uint32_t rt_json_string(rt_json *json);
uint32_t rt_json_number(rt_json *json);
uint32_t rt_json_integer(rt_json *json);
uint32_t rt_json_value(rt_json *json); /* any */
uint32_t rt_json_object(rt_json *json);
uint32_t rt_json_array(rt_json *json);

/* A string of min to max characters (RT_EXPR_UNBOUNDED: no limit). */
uint32_t rt_json_string_of_length(rt_json *json, uint32_t min, uint32_t max);
/* A string that contains what a regular expression matches; `field` is where it is from. */
uint32_t rt_json_string_like(rt_json *json, const char *field, const char *pattern);
/* A string of a format of JSON Schema; RT_EXPR_NONE for one that is not known. */
uint32_t rt_json_string_of_format(rt_json *json, const char *format);
/* Whether a text is written as it is, without escapes. */
bool rt_json_is_plain(const char *text);
/* A string, never escaped, that is none of n plain ones, which are sorted by strcmp. */
uint32_t rt_json_other_string(rt_json *json, const char *const *strings, size_t n);

/* --- schema_numbers.c ----------------------------------------------------------------------------
 */

#define RT_JSON_LARGEST INT64_C(999999999999999)
enum { RT_JSON_MAX_MULTIPLE = 1024 };

/* Numbers from min to max, without them where so marked, that are multiples of
 * multiple * 10^exponent: of 10^0, all whole numbers; of 10^-15, all there are. Bounds are exact
 * (rt_json_exact), at most RT_JSON_LARGEST and at least -RT_JSON_LARGEST. */
typedef struct rt_json_numbers {
    double min, max;
    bool min_excluded, max_excluded;
    uint32_t multiple; /* 1 … RT_JSON_MAX_MULTIPLE; not a multiple of 10 */
    int exponent;      /* -15 … 14 */
} rt_json_numbers;

/* Whether a number has at most 15 digits, and those within 15 places on either side of the point.
 */
bool rt_json_exact(double x);
/* Sets the multiple, x > 0; `integer`: of which only the whole numbers are asked for. False: it is
 * none that is supported. */
bool rt_json_set_multiple(rt_json_numbers *numbers, double x, bool integer);
/* Without an exponent, and in bounded time for all numbers of a schema (else MCC_CAPACITY).
 * RT_EXPR_NONE: there is none. */
uint32_t rt_json_numbers_like(rt_json *json, rt_json_numbers numbers);

#endif

/* What a schema excludes: `not` of types and of values, which is taken out of what else it asks
 * for. Other complements would need automata of all JSON values that can be complemented. */
#include "runtime/grammar/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cJSON *get(const cJSON *schema, const char *member) {
    return cJSON_GetObjectItemCaseSensitive(schema, member);
}

static void add_values(rt_schema *s, const cJSON *first, bool alone, const rt_place *place,
                       int types, rt_excluded *x) {
    for (const cJSON *v = first; v; v = alone ? NULL : v->next) {
        if (!rt_schema_spend(s, 16))
            return;
        if (types && !(types & rt_schema_type_of(v)))
            continue;
        if (x->n == RT_MAX_EXCLUDED) {
            rt_schema_problem(s, place, NULL, false, "at most %d values are supported",
                              RT_MAX_EXCLUDED);
            return;
        }
        x->values[x->n++] = v;
    }
}

/* Adds what a schema describes, at `place`. */
static void exclude(rt_schema *s, const cJSON *schema, const rt_place *place, rt_excluded *x) {
    if (cJSON_IsFalse(schema))
        return;
    if (place->depth > RT_GRAMMAR_MAX_NESTING) {
        rt_schema_problem(s, place, NULL, false, "nested too deeply");
        return;
    }
    if (!cJSON_IsObject(schema) && !cJSON_IsTrue(schema)) {
        rt_schema_problem(s, place, NULL, true, "expected a schema: an object, true or false");
        return;
    }
    const cJSON *values = get(schema, "enum"), *constant = get(schema, "const"),
                *any_of = get(schema, "anyOf"), *type = get(schema, "type");
    int others = 0;
    if (!rt_schema_spend(s, 64 * (1 + (size_t)cJSON_GetArraySize(schema))))
        return;
    for (const cJSON *m = schema->child; m; m = m->next)
        others += rt_schema_about(m->string) != RT_ABOUT_NOTHING || !rt_schema_is_known(m->string);
    others -= (values != NULL) + (constant != NULL) + (any_of != NULL) + (type != NULL);
    if (others || (values != NULL) + (constant != NULL) + (any_of != NULL) > 1 ||
        (any_of && type)) {
        rt_schema_problem(s, place, NULL, false,
                          "only type, enum or const, or anyOf with these alone, are supported");
        return;
    }
    int types = type ? rt_schema_types(s, schema, place, 0) : 0;
    if (any_of) {
        const rt_place list = {place, "anyOf", 0, place->depth + 1};
        int i = 0;
        if (!cJSON_IsArray(any_of))
            rt_schema_problem(s, place, "anyOf", true, "expected a list of schemas");
        else
            for (const cJSON *b = any_of->child; b && !s->rules->failed; b = b->next, i++) {
                const rt_place branch = {&list, NULL, i, place->depth + 2};
                exclude(s, b, &branch, x);
            }
    } else if (values) {
        if (!cJSON_IsArray(values))
            rt_schema_problem(s, place, "enum", true, "expected a list of values");
        else
            add_values(s, values->child, false, place, types, x);
    } else if (constant) {
        add_values(s, constant, true, place, types, x);
    } else {
        x->types |= type ? types : RT_TYPE_ANY;
    }
}

int rt_schema_exclude(rt_schema *s, const cJSON *schema, const rt_place *place, int types,
                      rt_excluded *x) {
    const cJSON *negated = get(schema, "not");
    const rt_place at = {place, "not", 0, place->depth + 1};
    *x = (rt_excluded){0};
    if (!negated)
        return types;
    exclude(s, negated, &at, x);
    if (x->types & RT_TYPE_NUMBER)
        x->types |= RT_TYPE_INTEGER;
    else if ((x->types & RT_TYPE_INTEGER) && (types & RT_TYPE_NUMBER))
        rt_schema_problem(s, place, "not", false, "integer is not supported where number is");
    for (int i = 0; i < x->n; i++)
        if (types & ~x->types & rt_schema_type_of(x->values[i]) & (RT_TYPE_OBJECT | RT_TYPE_ARRAY))
            rt_schema_problem(s, place, "not", false,
                              "of objects and arrays only the type is supported");
    return types & ~x->types;
}

bool rt_schema_is_excluded(const rt_excluded *x, const cJSON *value) {
    bool found = x->types & rt_schema_type_of(value);
    for (int i = 0; i < x->n && !found; i++)
        found = cJSON_Compare(x->values[i], value, true);
    return found;
}

uint32_t rt_schema_other_numbers(rt_schema *s, const rt_place *place, rt_json_numbers n,
                                 const rt_excluded *x) {
    rt_expr_stack parts = {0};
    for (double last = -INFINITY, next; last < INFINITY && !s->rules->failed; last = next) {
        rt_json_numbers between = n; /* the last excluded one and the next */
        next = INFINITY;
        for (int i = 0; i < x->n; i++) {
            double v = cJSON_IsNumber(x->values[i]) ? x->values[i]->valuedouble : INFINITY;
            next = v > last && v < next ? v : next;
        }
        if (fabs(next) <= (double)RT_JSON_LARGEST && !rt_json_exact(next))
            rt_schema_problem(s, place, "not", false,
                              "only numbers of at most 15 digits, before and behind the point, "
                              "are supported");
        if (last >= between.min) {
            between.min = last;
            between.min_excluded = true;
        }
        if (next <= between.max) {
            between.max = next;
            between.max_excluded = true;
        }
        if (between.min > between.max || s->n_problems > 0)
            continue;
        uint32_t expr = rt_json_numbers_like(&s->json, between);
        if (expr != RT_EXPR_NONE)
            rt_expr_push(s->rules, &parts, expr);
    }
    uint32_t all =
        parts.n > 0 ? rt_expr_list(s->rules, RT_EXPR_ALT, parts.at, parts.n) : RT_EXPR_NONE;
    rt_expr_stack_free(&parts);
    return all;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

uint32_t rt_schema_other_strings(rt_schema *s, const rt_excluded *x) {
    const char *texts[RT_MAX_EXCLUDED];
    size_t n = 0;
    for (int i = 0; i < x->n; i++)
        if (cJSON_IsString(x->values[i]) && rt_json_is_plain(x->values[i]->valuestring))
            texts[n++] = x->values[i]->valuestring;
    qsort(texts, n, sizeof *texts, by_text);
    return rt_json_other_string(&s->json, texts, n);
}

/* Which branches of oneOf cannot match the same value. */
#include "runtime/grammar/schema.h"

#include <stdlib.h>
#include <string.h>

/* Follows references, a few. */
static const cJSON *target(rt_schema *s, const cJSON *schema) {
    for (int i = 0; i < 8; i++) {
        const cJSON *ref = cJSON_GetObjectItemCaseSensitive(schema, "$ref");
        if (!cJSON_IsString(ref) || ref->valuestring[0] != '#')
            break;
        int n = s->n_problems;
        const rt_place nowhere = {NULL, "", 0, 0};
        const cJSON *found = rt_schema_resolve(s, &nowhere, ref->valuestring);
        if (!found || s->n_problems != n)
            break;
        schema = found;
    }
    return schema;
}

/* The values that a schema is a list of, as a list or alone; NULL: it is none. */
static const cJSON *values_of(const cJSON *schema, bool *list) {
    const cJSON *values = cJSON_GetObjectItemCaseSensitive(schema, "enum");
    *list = values != NULL;
    if (values)
        return cJSON_IsArray(values) ? values : NULL;
    return cJSON_GetObjectItemCaseSensitive(schema, "const");
}

static bool share_a_value(const cJSON *a, bool a_list, const cJSON *b, bool b_list) {
    for (const cJSON *x = a_list ? a->child : a; x; x = a_list ? x->next : NULL)
        for (const cJSON *y = b_list ? b->child : b; y; y = b_list ? y->next : NULL)
            if (cJSON_Compare(x, y, true))
                return true;
    return false;
}

/* Bits of JSON's types; all of them where it is not clear. */
static int types(const cJSON *schema) {
    static const char *const names[] = {"null", "boolean", "number", "string", "object", "array"};
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(schema, "type");
    int found = 0;
    bool list = cJSON_IsArray(type);
    for (const cJSON *t = list ? type->child : type; t; t = list ? t->next : NULL)
        for (int i = 0; i < 6; i++)
            if (cJSON_IsString(t) && (strcmp(t->valuestring, names[i]) == 0 ||
                                      (i == 2 && strcmp(t->valuestring, "integer") == 0)))
                found |= 1 << i;
    if (type)
        return found;
    const cJSON *values = values_of(schema, &list);
    if (!values)
        return 63;
    for (const cJSON *v = list ? values->child : values; v; v = list ? v->next : NULL)
        found |= cJSON_IsNull(v)     ? 1
                 : cJSON_IsBool(v)   ? 2
                 : cJSON_IsNumber(v) ? 4
                 : cJSON_IsString(v) ? 8
                 : cJSON_IsObject(v) ? 16
                                     : 32;
    return found;
}

static bool requires(const cJSON *schema, const char *name) {
    const cJSON *required = cJSON_GetObjectItemCaseSensitive(schema, "required");
    for (const cJSON *r = cJSON_IsArray(required) ? required->child : NULL; r; r = r->next)
        if (cJSON_IsString(r) && strcmp(r->valuestring, name) == 0)
            return true;
    return false;
}

/* Whether a property that both require tells them apart. */
static bool told_apart(const cJSON *a, const cJSON *b) {
    const cJSON *of_a = cJSON_GetObjectItemCaseSensitive(a, "properties");
    const cJSON *of_b = cJSON_GetObjectItemCaseSensitive(b, "properties");
    int looked = 0;
    for (const cJSON *p = cJSON_IsObject(of_a) ? of_a->child : NULL; p && looked < 64;
         p = p->next, looked++) {
        const cJSON *q =
            cJSON_IsObject(of_b) ? cJSON_GetObjectItemCaseSensitive(of_b, p->string) : NULL;
        bool p_list, q_list;
        const cJSON *x = values_of(p, &p_list), *y = q ? values_of(q, &q_list) : NULL;
        if (x && y && !share_a_value(x, p_list, y, q_list) && requires(a, p->string) &&
            requires(b, p->string))
            return true;
    }
    return false;
}

bool rt_schema_disjoint(rt_schema *s, const cJSON *a, const cJSON *b) {
    bool a_list, b_list;
    a = target(s, a);
    b = target(s, b);
    if (cJSON_IsFalse(a) || cJSON_IsFalse(b))
        return true;
    if (!cJSON_IsObject(a) || !cJSON_IsObject(b))
        return false;
    int both = types(a) & types(b);
    if (both == 0)
        return true;
    const cJSON *x = values_of(a, &a_list), *y = values_of(b, &b_list);
    if (x && y && !share_a_value(x, a_list, y, b_list))
        return true;
    return both == 16 && told_apart(a, b);
}

/* Objects and arrays of JSON schemas. */
#include "runtime/grammar/schema.h"

#include "runtime/modelcc.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PROPERTIES = 2048, MAX_PREFIX = 48, MAX_UNIQUE = 8 };

static uint32_t seq(rt_schema *s, const uint32_t *parts, size_t n) {
    return rt_expr_list(s->rules, RT_EXPR_SEQ, parts, n);
}

static uint32_t text(rt_schema *s, const char *bytes) {
    return rt_expr_text(s->rules, bytes, strlen(bytes));
}

/* A comma and what may be behind it. */
static uint32_t separator(rt_schema *s) {
    return seq(s, (uint32_t[]){text(s, ","), s->json.space}, 2);
}

/* --- objects -------------------------------------------------------------------------------------
 */

typedef struct property {
    const char *name;
    const cJSON *schema; /* NULL: as additionalProperties says */
    bool required;
} property;

typedef struct object {
    property *properties;
    size_t n, capacity;
    size_t n_required;
} object;

static bool add_property(rt_schema *s, object *o, property p) {
    if (o->n == o->capacity) {
        size_t capacity = o->capacity ? 2 * o->capacity : 16;
        property *grown = realloc(o->properties, capacity * sizeof *grown);
        if (!grown)
            return rt_rules_fail(s->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
        o->properties = grown;
        o->capacity = capacity;
    }
    o->properties[o->n++] = p;
    return true;
}

static property *find_property(object *o, const char *name) {
    for (size_t i = 0; i < o->n; i++)
        if (strcmp(o->properties[i].name, name) == 0)
            return &o->properties[i];
    return NULL;
}

/* The properties in the schema's order, and behind them those that are only required. */
static void list_properties(rt_schema *s, const cJSON *schema, const rt_place *place, object *o) {
    const cJSON *properties = cJSON_GetObjectItemCaseSensitive(schema, "properties");
    const cJSON *required = cJSON_GetObjectItemCaseSensitive(schema, "required");
    if (properties && !cJSON_IsObject(properties))
        rt_schema_problem(s, place, "properties", true, "expected an object");
    for (const cJSON *p = cJSON_IsObject(properties) ? properties->child : NULL; p; p = p->next) {
        if (o->n == MAX_PROPERTIES) {
            rt_schema_problem(s, place, "properties", false, "at most %d are supported",
                              MAX_PROPERTIES);
            break;
        }
        if (find_property(o, p->string))
            rt_schema_problem(s, place, "properties", true, "\"%.60s\" is there twice", p->string);
        if (!add_property(s, o, (property){p->string, p, false}))
            return;
    }
    if (required && !cJSON_IsArray(required))
        rt_schema_problem(s, place, "required", true, "expected a list of names");
    for (const cJSON *r = cJSON_IsArray(required) ? required->child : NULL; r; r = r->next) {
        if (!cJSON_IsString(r)) {
            rt_schema_problem(s, place, "required", true, "expected a list of names");
            return;
        }
        property *p = find_property(o, r->valuestring);
        if (!p && o->n == 2 * MAX_PROPERTIES) {
            rt_schema_problem(s, place, "required", false, "at most %d are supported",
                              MAX_PROPERTIES);
            return;
        }
        if (!p && !add_property(s, o, (property){r->valuestring, NULL, true}))
            return;
        if (p)
            p->required = true;
    }
    for (size_t i = 0; i < o->n; i++)
        o->n_required += o->properties[i].required;
}

/* "name": value */
static uint32_t member(rt_schema *s, const char *name, uint32_t value) {
    cJSON *string = cJSON_CreateString(name);
    char *quoted = string ? cJSON_PrintUnformatted(string) : NULL;
    cJSON_Delete(string);
    if (!quoted) {
        rt_rules_fail(s->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
        return 0;
    }
    uint32_t key = text(s, quoted);
    cJSON_free(quoted);
    return seq(s, (uint32_t[]){key, text(s, ":"), s->json.space, value}, 4);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Members beyond the named ones. Keys that would need escapes cannot be among them anyway. */
static uint32_t more_members(rt_schema *s, const object *o, uint32_t value) {
    const char **names = malloc((o->n + 1) * sizeof *names);
    size_t n = 0;
    if (!names) {
        rt_rules_fail(s->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
        return 0;
    }
    for (size_t i = 0; i < o->n; i++)
        if (rt_json_is_plain(o->properties[i].name))
            names[n++] = o->properties[i].name;
    qsort(names, n, sizeof *names, by_name);
    uint32_t key = o->n > 0 ? rt_json_other_string(&s->json, names, n) : rt_json_string(&s->json);
    free(names);
    uint32_t one = seq(s, (uint32_t[]){key, text(s, ":"), s->json.space, value}, 4);
    uint32_t next = seq(s, (uint32_t[]){separator(s), one}, 2);
    uint32_t rest = rt_expr_repeat(s->rules, next, 0, RT_EXPR_UNBOUNDED);
    return seq(s, (uint32_t[]){one, rest}, 2);
}

/* What additionalProperties says: the value's expression in *value. False: there are none. */
static bool more_value(rt_schema *s, const cJSON *schema, const rt_place *place, bool named,
                       uint32_t *value) {
    const cJSON *more = cJSON_GetObjectItemCaseSensitive(schema, "additionalProperties");
    const rt_place at = {place, "additionalProperties", 0, place->depth + 1};
    *value = RT_EXPR_NONE;
    if (cJSON_IsFalse(more))
        return false;
    *value = more ? rt_schema_part(s, more, &at) : rt_json_value(&s->json);
    return more || !named;
}

/* False: no number of properties is right. */
static bool check_numbers(rt_schema *s, const cJSON *schema, const rt_place *place, const object *o,
                          bool more) {
    uint32_t min = rt_schema_count(s, schema, place, "minProperties", 0);
    uint32_t max = rt_schema_count(s, schema, place, "maxProperties", RT_EXPR_UNBOUNDED);
    if (min > max || max < o->n_required) {
        rt_schema_contradiction(s, schema, place, "maxProperties",
                                "less than minProperties or the required ones");
        return false;
    }
    if (min > o->n_required)
        rt_schema_problem(s, place, "minProperties", false,
                          "more than the required ones is not supported");
    if (max != RT_EXPR_UNBOUNDED && (more || max < o->n))
        rt_schema_problem(s, place, "maxProperties", false,
                          "less than the properties that there can be is not supported");
    return true;
}

uint32_t rt_schema_object(rt_schema *s, const cJSON *schema, const rt_place *place) {
    const rt_place at = {place, "properties", 0, place->depth + 1};
    object o = {0};
    rt_expr_stack parts = {0};
    uint32_t other;
    list_properties(s, schema, place, &o);
    bool more = more_value(s, schema, place,
                           cJSON_GetObjectItemCaseSensitive(schema, "properties") != NULL, &other);
    if (!check_numbers(s, schema, place, &o, more)) {
        free(o.properties);
        return rt_expr_list(s->rules, RT_EXPR_ALT, NULL, 0);
    }
    rt_expr_push(s->rules, &parts, separator(s) << 1);
    for (size_t i = 0; i < o.n && !s->rules->failed; i++) {
        const property *p = &o.properties[i];
        const rt_place name = {&at, p->name, 0, at.depth + 1};
        uint32_t value;
        if (p->schema)
            value = rt_schema_part(s, p->schema, &name);
        else
            value = other != RT_EXPR_NONE
                        ? other
                        : rt_schema_nothing(s, place, "required", "a property that cannot be");
        rt_expr_push(s->rules, &parts, member(s, p->name, value) << 1 | !p->required);
    }
    if (more)
        rt_expr_push(s->rules, &parts, more_members(s, &o, other) << 1 | 1);
    uint32_t members = rt_expr_list(s->rules, RT_EXPR_JOIN, parts.at, parts.n);
    rt_expr_stack_free(&parts);
    free(o.properties);
    uint32_t inner = seq(s, (uint32_t[]){s->json.space, members, s->json.space}, 3);
    return seq(s, (uint32_t[]){text(s, "{"), inner, text(s, "}")}, 3);
}

/* --- arrays --------------------------------------------------------------------------------------
 */

typedef struct array {
    uint32_t prefix[MAX_PREFIX];
    uint32_t n_prefix, item; /* RT_EXPR_NONE: nothing behind the prefix */
    uint32_t min, max;
} array;

/* What may be behind the first `k` elements, k > 0. */
static uint32_t rest(rt_schema *s, const array *a, uint32_t k) {
    uint32_t left = a->max == RT_EXPR_UNBOUNDED ? a->max : a->max > k ? a->max - k : 0;
    if (k < a->n_prefix && left > 0) {
        uint32_t parts[] = {separator(s), a->prefix[k], rest(s, a, k + 1)};
        uint32_t expr = seq(s, parts, 3);
        return k >= a->min ? rt_expr_optional(s->rules, expr) : expr;
    }
    if (a->item == RT_EXPR_NONE || left == 0)
        return rt_expr_empty(s->rules);
    uint32_t one = seq(s, (uint32_t[]){separator(s), a->item}, 2);
    return rt_expr_repeat(s->rules, one, a->min > k ? a->min - k : 0, left);
}

static void read_items(rt_schema *s, const cJSON *schema, const rt_place *place, array *a) {
    const cJSON *prefix = cJSON_GetObjectItemCaseSensitive(schema, "prefixItems");
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(schema, "items");
    const rt_place at = {place, "prefixItems", 0, place->depth + 1};
    const rt_place items_at = {place, "items", 0, place->depth + 1};
    if (prefix && !cJSON_IsArray(prefix))
        rt_schema_problem(s, place, "prefixItems", true, "expected a list of schemas");
    for (const cJSON *p = cJSON_IsArray(prefix) ? prefix->child : NULL; p; p = p->next) {
        const rt_place element = {&at, NULL, (int)a->n_prefix, at.depth + 1};
        if (a->n_prefix == MAX_PREFIX) {
            rt_schema_problem(s, place, "prefixItems", false, "at most %d are supported",
                              MAX_PREFIX);
            break;
        }
        a->prefix[a->n_prefix++] = rt_schema_part(s, p, &element);
    }
    if (cJSON_IsArray(items))
        rt_schema_problem(s, place, "items", false,
                          "a list of schemas is not supported: use "
                          "prefixItems");
    else if (!cJSON_IsFalse(items) && !(cJSON_IsArray(prefix) && !items))
        a->item = items ? rt_schema_part(s, items, &items_at) : rt_json_value(&s->json);
}

/* The values of which elements are one each, without those that are there twice: at most
 * MAX_UNIQUE. -1: elements are not known to be of so few. */
static int list_values(rt_schema *s, const cJSON *items, const rt_place *place,
                       const cJSON *out[MAX_UNIQUE]) {
    for (int hops = 0; hops < 8; hops++) {
        const cJSON *values = NULL, *ref = NULL;
        bool typed = false, others = !cJSON_IsObject(items);
        int n = 0;
        if (!rt_schema_spend(s, 64 * (1 + (size_t)cJSON_GetArraySize(items))))
            return -1;
        for (const cJSON *m = items ? items->child : NULL; m; m = m->next) {
            bool is_values = strcmp(m->string, "enum") == 0 || strcmp(m->string, "const") == 0;
            bool is_ref = strcmp(m->string, "$ref") == 0;
            others = others || (is_values && values) ||
                     (!is_values && !is_ref && rt_schema_about(m->string) > RT_ABOUT_ALL) ||
                     (rt_schema_about(m->string) & (RT_ABOUT_ALL - 1));
            typed = typed || rt_schema_about(m->string) == RT_ABOUT_ALL;
            values = is_values ? m : values;
            ref = is_ref ? m : ref;
        }
        if (!others && ref && !values && !typed && cJSON_IsString(ref)) {
            items = rt_schema_resolve(s, place, ref->valuestring);
            continue;
        }
        if (others || ref || !values)
            return -1;
        bool alone = strcmp(values->string, "const") == 0;
        int types = rt_schema_types(s, items, place, 0);
        for (const cJSON *v = alone ? values : values->child; v; v = alone ? NULL : v->next) {
            bool known = types && !(types & rt_schema_type_of(v));
            for (int i = 0; i < n && !known; i++)
                known = cJSON_Compare(out[i], v, true);
            bool simple = !cJSON_IsObject(v) && !cJSON_IsArray(v); /* and quick to compare */
            if ((!known && (n == MAX_UNIQUE || !simple)) || !rt_schema_spend(s, 256))
                return -1;
            if (!known)
                out[n++] = v;
            if (alone)
                break;
        }
        return n;
    }
    return -1;
}

/* Elements that are different ones of n values: a rule for each set of them, of what may be behind
 * them. */
static uint32_t unique_elements(rt_schema *s, const cJSON *const *values, int n, const array *a,
                                const rt_place *place) {
    uint32_t exprs[MAX_UNIQUE], after[1 << MAX_UNIQUE];
    rt_expr_stack parts = {0};
    rt_rules *r = s->rules;
    uint32_t comma = rt_rule_add(r, "separator", 9), between = separator(s);
    for (int i = 0; i < n; i++)
        exprs[i] = rt_schema_constant(s, values[i], place);
    for (uint32_t set = 1u << n; set-- > 0 && !r->failed;) {
        uint32_t count = (uint32_t)__builtin_popcount(set);
        for (int i = 0; i < n && count < a->max; i++)
            if (!(set >> i & 1))
                rt_expr_push(
                    r, &parts,
                    seq(s, (uint32_t[]){exprs[i], rt_expr_rule(r, after[set | 1u << i])}, 2));
        uint32_t more = rt_expr_pop_list(r, &parts, 0, RT_EXPR_ALT);
        if (set > 0)
            more = seq(s, (uint32_t[]){rt_expr_rule(r, comma), more}, 2);
        uint32_t end = set > 0 ? s->json.space : rt_expr_empty(r);
        if (count >= a->min)
            more = rt_expr_list(r, RT_EXPR_ALT, (uint32_t[]){end, more}, 2);
        after[set] = rt_rule_add(r, "elements", 8);
        if (!r->failed)
            r->rules[after[set]].expr = more;
    }
    rt_expr_stack_free(&parts);
    if (r->failed)
        return 0;
    r->rules[comma].expr = between;
    return rt_expr_rule(r, after[0]);
}

uint32_t rt_schema_array(rt_schema *s, const cJSON *schema, const rt_place *place) {
    array a = {.item = RT_EXPR_NONE};
    const cJSON *unique = cJSON_GetObjectItemCaseSensitive(schema, "uniqueItems");
    a.min = rt_schema_count(s, schema, place, "minItems", 0);
    a.max = rt_schema_count(s, schema, place, "maxItems", RT_EXPR_UNBOUNDED);
    if (a.min > a.max)
        return rt_schema_contradiction(s, schema, place, "minItems", "more than maxItems");
    if (unique && !cJSON_IsBool(unique))
        rt_schema_problem(s, place, "uniqueItems", true, "expected true or false");
    read_items(s, schema, place, &a);
    if (a.item == RT_EXPR_NONE && a.min > a.n_prefix)
        return rt_schema_nothing(s, place, "minItems", "more than the elements that there can be");
    uint32_t first = a.n_prefix > 0 ? a.prefix[0] : a.item, space = s->json.space;
    uint32_t elements = rt_expr_empty(s->rules);
    if (cJSON_IsTrue(unique) && a.max > 1) {
        const cJSON *values[MAX_UNIQUE];
        const rt_place at = {place, "items", 0, place->depth + 1};
        const cJSON *items = cJSON_GetObjectItemCaseSensitive(schema, "items");
        int n = a.n_prefix == 0 ? list_values(s, items, &at, values) : -1;
        if (n >= 0 && a.min > (uint32_t)n)
            return rt_schema_nothing(s, place, "minItems", "more than there are different values");
        if (n >= 0)
            elements = unique_elements(s, values, n, &a, &at);
        else
            rt_schema_problem(s, place, "uniqueItems", false,
                              "only supported where items are an enum of at most %d values",
                              MAX_UNIQUE);
    } else if (a.max > 0 && first != RT_EXPR_NONE) {
        elements = seq(s, (uint32_t[]){first, rest(s, &a, 1), space}, 3);
        if (a.min == 0)
            elements = rt_expr_optional(s->rules, elements);
    }
    return seq(s, (uint32_t[]){text(s, "["), space, elements, text(s, "]")}, 4);
}

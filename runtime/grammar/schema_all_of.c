/* Schemas of which a value must match all: the members of allOf, and what is beside a keyword that
 * stands for a whole value (anyOf, $ref, …).
 *
 * They become one schema, keyword by keyword: types are those that all have, bounds the tightest,
 * `required` and `properties` those of any. What two of them say of the same property, item or
 * additional property becomes {"allOf": …} of both, merged when that is read. anyOf goes to the
 * outside: (a or b) and c is (a and c) or (b and c). The schema is read as any other:
 *
 *     {"allOf": [{"properties": {"a": A}, "required": ["a"]}, {"properties": {"a": B, "c": C}}]}
 *     {"properties": {"a": {"allOf": [A, B]}, "c": C}, "required": ["a"]}
 *
 * Each set of schemas is merged once, and is a rule, so that recursion ends. */
#include "runtime/grammar/schema.h"

#include "runtime/modelcc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PARTS = 64,
    MAX_NAMES = 2048,
    MAX_PREFIX = 64,
    MAX_SETS = 4096,    /* of a schema */
    MAX_WORK = 1 << 26, /* names and values compared, of all its sets */
    MAX_NODES = 1 << 14,
    ANY_OF = 1,
    ONE_OF = 2
};

/* A schema of the set. Its $ref and allOf are members of the set, too. It is known by its first
 * keyword, since it may be a reference of cJSON's to an object of the text. */
typedef struct part {
    const cJSON *schema;
    int done; /* ANY_OF, ONE_OF: a branch of it is a member of the set instead */
} part;

typedef struct parts {
    part at[MAX_PARTS];
    int n;
    bool impossible; /* `false` is one of them */
} parts;

/* A set that is a rule. */
struct rt_schema_merge {
    struct rt_schema_merge *next;
    uint32_t rule;
    int n;
    struct {
        const cJSON *first;
        int done;
    } parts[];
};

/* What is being looked into, from the inside to the outside. */
typedef struct chain {
    const cJSON *first;
    const struct chain *outer;
} chain;

static const cJSON *get(const cJSON *schema, const char *member) {
    return cJSON_GetObjectItemCaseSensitive(schema, member);
}

static bool no_memory(rt_schema *s) {
    return rt_rules_fail(s->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
}

bool rt_schema_spend(rt_schema *s, size_t work) {
    s->merge_work += work;
    return s->merge_work <= MAX_WORK ||
           rt_rules_fail(s->rules, MCC_CAPACITY,
                         "%s: allOf, not, uniqueItems and what is beside anyOf are too much to "
                         "merge",
                         s->field);
}

/* The values in a value, itself included; of a list without itself. Counts to MAX_NODES. */
static size_t nodes(const cJSON *value) {
    size_t n = 1;
    for (const cJSON *v = value ? value->child : NULL; v && n < MAX_NODES; v = v->next)
        n += nodes(v);
    return n;
}

/* --- the set -------------------------------------------------------------------------------------
 */

static void add(rt_schema *s, parts *all, const cJSON *schema, const rt_place *place,
                const chain *outer, bool checked);

static void add_reference(rt_schema *s, parts *all, const cJSON *ref, const rt_place *place,
                          const chain *outer) {
    if (!cJSON_IsString(ref)) {
        rt_schema_problem(s, place, "$ref", true, "expected a text");
        return;
    }
    const rt_place at = {NULL, ref->valuestring + (ref->valuestring[0] == '#'), 0,
                         place->depth + 1};
    const cJSON *schema = rt_schema_resolve(s, place, ref->valuestring);
    if (schema)
        add(s, all, schema, &at, outer, false);
}

/* Whether a part says nothing that is not said by other members of the set. */
static bool is_bare(const part *p) {
    for (const cJSON *m = p->schema->child; m; m = m->next) {
        bool elsewhere = strcmp(m->string, "$ref") == 0 || strcmp(m->string, "allOf") == 0 ||
                         (strcmp(m->string, "anyOf") == 0 && (p->done & ANY_OF)) ||
                         (strcmp(m->string, "oneOf") == 0 && (p->done & ONE_OF));
        if (!elsewhere && rt_schema_about(m->string) != RT_ABOUT_NOTHING)
            return false;
    }
    return true;
}

/* Adds a part that is not there yet. */
static void add_part(rt_schema *s, parts *all, part p) {
    for (int i = 0; i < all->n; i++)
        if (all->at[i].schema->child == p.schema->child && all->at[i].done == p.done)
            return;
    if (is_bare(&p))
        return;
    if (all->n == MAX_PARTS)
        rt_rules_fail(s->rules, MCC_CAPACITY, "%s: more than %d schemas for one value", s->field,
                      MAX_PARTS);
    else
        all->at[all->n++] = p;
}

/* Adds a schema, and what it refers to. `checked`: its keywords have been. */
static void add(rt_schema *s, parts *all, const cJSON *schema, const rt_place *place,
                const chain *outer, bool checked) {
    if (cJSON_IsFalse(schema))
        all->impossible = true;
    if (cJSON_IsBool(schema))
        return;
    if (!cJSON_IsObject(schema)) {
        rt_schema_problem(s, place, NULL, true, "expected a schema: an object, true or false");
        return;
    }
    if (!schema->child || !rt_schema_spend(s, 64 * (1 + (size_t)cJSON_GetArraySize(schema))))
        return;
    for (const chain *c = outer; c; c = c->outer)
        if (c->first == schema->child) {
            rt_schema_problem(s, place, NULL, true, "it must match itself first");
            return;
        }
    if (place->depth > RT_GRAMMAR_MAX_NESTING) {
        rt_rules_fail(s->rules, MCC_CAPACITY, "%s: nested too deeply", s->field);
        return;
    }
    add_part(s, all, (part){schema, 0});
    if (!checked)
        rt_schema_keywords(s, schema, place, NULL);
    const chain here = {schema->child, outer};
    const cJSON *ref = get(schema, "$ref"), *all_of = get(schema, "allOf");
    if (ref)
        add_reference(s, all, ref, place, &here);
    if (all_of && (!cJSON_IsArray(all_of) || !all_of->child))
        rt_schema_problem(s, place, "allOf", true, "expected a list of schemas");
    const rt_place list = {place, "allOf", 0, place->depth + 1};
    int i = 0;
    for (const cJSON *m = cJSON_IsArray(all_of) ? all_of->child : NULL; m; m = m->next, i++) {
        const rt_place at = {&list, NULL, i, place->depth + 2};
        bool made_here = m->type & cJSON_IsReference; /* its place is not in the text */
        add(s, all, m, made_here ? place : &at, &here, false);
    }
}

/* --- keywords ------------------------------------------------------------------------------------
 */

/* Puts an item, which it takes over, into an object or an array (name NULL). */
static void put(rt_schema *s, cJSON *to, const char *name, cJSON *item) {
    bool ok =
        item && (name ? cJSON_AddItemToObject(to, name, item) : cJSON_AddItemToArray(to, item));
    if (ok)
        return;
    cJSON_Delete(item);
    no_memory(s);
}

/* Takes a member over where there is none, or where its number is the tighter one. */
static void take_number(rt_schema *s, cJSON *merged, const cJSON *m, bool greater) {
    const cJSON *old = get(merged, m->string);
    bool tighter = !old || !cJSON_IsNumber(m) ||
                   (cJSON_IsNumber(old) && (greater ? m->valuedouble > old->valuedouble
                                                    : m->valuedouble < old->valuedouble));
    if (!tighter)
        return;
    cJSON_DeleteItemFromObjectCaseSensitive(merged, m->string);
    put(s, merged, m->string, cJSON_Duplicate(m, true));
}

/* Multiples of both: of whole numbers, those of their least common multiple. */
static void take_multiple(rt_schema *s, cJSON *merged, const cJSON *m, const rt_place *place) {
    cJSON *old = cJSON_GetObjectItemCaseSensitive(merged, m->string);
    double a = old ? old->valuedouble : 0, b = m->valuedouble;
    if (!old) {
        put(s, merged, m->string, cJSON_Duplicate(m, true));
    } else if (!cJSON_Compare(old, m, true)) {
        if (!(a >= 1 && b >= 1 && a <= 1e15 && b <= 1e15 && a == floor(a) && b == floor(b))) {
            rt_schema_problem(s, place, m->string, false, "not supported beside another %s",
                              m->string);
            return;
        }
        double x = a, y = b;
        while (y > 0) {
            double rest = fmod(x, y);
            x = y;
            y = rest;
        }
        cJSON_SetNumberValue(old, a / x * b);
    }
}

/* A keyword that does not depend on others. */
static void take_simple(rt_schema *s, cJSON *merged, const cJSON *m, const rt_place *place) {
    static const char *const greatest[] = {"minLength", "minimum",       "exclusiveMinimum",
                                           "minItems",  "minProperties", NULL};
    static const char *const least[] = {"maxLength", "maximum",       "exclusiveMaximum",
                                        "maxItems",  "maxProperties", NULL};
    for (int i = 0; greatest[i]; i++)
        if (strcmp(m->string, greatest[i]) == 0 || strcmp(m->string, least[i]) == 0)
            take_number(s, merged, m, strcmp(m->string, greatest[i]) == 0);
    if (strcmp(m->string, "multipleOf") == 0)
        take_multiple(s, merged, m, place);
    bool unique = strcmp(m->string, "uniqueItems") == 0 && !cJSON_IsFalse(m);
    if (!unique && strcmp(m->string, "pattern") != 0 && strcmp(m->string, "format") != 0)
        return;
    const cJSON *old = get(merged, m->string);
    if (!old)
        put(s, merged, m->string, cJSON_Duplicate(m, true));
    else if (!unique && !cJSON_Compare(old, m, true))
        rt_schema_problem(s, place, m->string, false, "not supported beside another %s", m->string);
}

/* A schema of the text, by reference; or what stands for one. */
static cJSON *refer(const cJSON *schema) {
    return cJSON_IsObject(schema) ? cJSON_CreateObjectReference(schema->child)
                                  : cJSON_Duplicate(schema, true);
}

/* What any of them excludes. */
static void take_not(rt_schema *s, cJSON *merged, const cJSON *m) {
    cJSON *not = cJSON_GetObjectItemCaseSensitive(merged, "not");
    if (!not )
        not = cJSON_AddObjectToObject(merged, "not");
    cJSON *list = cJSON_GetObjectItemCaseSensitive(not, "anyOf");
    if (!list)
        list = cJSON_AddArrayToObject(not, "anyOf");
    if (list)
        put(s, list, NULL, refer(m));
    else
        no_memory(s);
}

/* One schema for what several say of the same place: n of them, NULL where one says nothing. */
static cJSON *both(rt_schema *s, const cJSON *const *schemas, int n) {
    const cJSON *one = NULL;
    int found = 0;
    for (int i = 0; i < n; i++)
        if (schemas[i] && !cJSON_IsTrue(schemas[i])) {
            if (cJSON_IsFalse(schemas[i]))
                return cJSON_CreateFalse();
            one = schemas[i];
            found++;
        }
    if (found < 2)
        return found ? refer(one) : cJSON_CreateTrue();
    cJSON *schema = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(schema, "allOf");
    for (int i = 0; i < n && list; i++)
        if (schemas[i] && !cJSON_IsTrue(schemas[i]))
            put(s, list, NULL, refer(schemas[i]));
    if (list)
        return schema;
    cJSON_Delete(schema);
    return NULL;
}

/* `required` of all; names are compared by who reads it. */
static void merge_required(rt_schema *s, const parts *all, cJSON *merged) {
    for (int i = 0; i < all->n; i++) {
        const cJSON *from = get(all->at[i].schema, "required");
        cJSON *to = cJSON_GetObjectItemCaseSensitive(merged, "required");
        if (!rt_schema_spend(s, 64 * (size_t)cJSON_GetArraySize(from)))
            return;
        if (from && (!to || !cJSON_IsArray(from))) {
            cJSON_DeleteItemFromObjectCaseSensitive(merged, "required");
            put(s, merged, "required", cJSON_Duplicate(from, true));
            if (!cJSON_IsArray(from))
                return; /* said by who reads it */
            continue;
        }
        for (const cJSON *r = from ? from->child : NULL; r; r = r->next)
            put(s, to, NULL, cJSON_Duplicate(r, true));
    }
}

/* A property is what each schema says of it: by name, else by additionalProperties. */
static void merge_property(rt_schema *s, const parts *all, const char *name, cJSON *properties) {
    const cJSON *of[MAX_PARTS];
    for (int i = 0; i < all->n; i++) {
        const cJSON *own = get(all->at[i].schema, "properties");
        const cJSON *named = cJSON_IsObject(own) ? get(own, name) : NULL;
        of[i] = named ? named : get(all->at[i].schema, "additionalProperties");
    }
    put(s, properties, name, both(s, of, all->n));
}

static void merge_properties(rt_schema *s, const parts *all, const rt_place *place, cJSON *merged) {
    cJSON *properties = NULL;
    const cJSON *more[MAX_PARTS];
    int n = 0;
    bool has_more = false;
    size_t sizes = 0;
    for (int i = 0; i < all->n; i++) {
        const cJSON *own = get(all->at[i].schema, "properties");
        more[i] = get(all->at[i].schema, "additionalProperties");
        has_more = has_more || more[i];
        sizes += (size_t)cJSON_GetArraySize(own);
        if (!own)
            continue;
        if (!cJSON_IsObject(own) || cJSON_GetArraySize(own) > MAX_NAMES) {
            rt_schema_problem(s, place, "properties", !cJSON_IsObject(own),
                              "expected an object of at most %d properties", MAX_NAMES);
            return;
        }
        if (!properties && !(properties = cJSON_AddObjectToObject(merged, "properties"))) {
            no_memory(s);
            return;
        }
    }
    for (int i = 0; i < all->n; i++) {
        const cJSON *own = get(all->at[i].schema, "properties");
        for (const cJSON *p = own ? own->child : NULL; p && !s->rules->failed; p = p->next) {
            if (!rt_schema_spend(s, 2 * sizes + (size_t)n))
                return;
            if (get(own, p->string) != p)
                rt_schema_problem(s, place, "properties", true, "\"%.60s\" is there twice",
                                  p->string);
            else if (!get(properties, p->string)) {
                merge_property(s, all, p->string, properties);
                n++;
            }
        }
    }
    if (has_more)
        put(s, merged, "additionalProperties", both(s, more, all->n));
}

/* An element is what each schema says of it: by prefixItems, else by items. */
static void merge_items(rt_schema *s, const parts *all, const rt_place *place, cJSON *merged) {
    const cJSON *items[MAX_PARTS], *of[MAX_PARTS];
    int longest = -1;
    bool has_items = false;
    for (int i = 0; i < all->n; i++) {
        const cJSON *prefix = get(all->at[i].schema, "prefixItems");
        int size = cJSON_GetArraySize(prefix);
        items[i] = get(all->at[i].schema, "items");
        has_items = has_items || items[i];
        if ((prefix && !cJSON_IsArray(prefix)) || cJSON_IsArray(items[i]) || size > MAX_PREFIX) {
            rt_schema_problem(s, place, prefix ? "prefixItems" : "items", false,
                              "expected %s in allOf",
                              prefix ? "a list of at most 64 schemas" : "one schema");
            return;
        }
        if (prefix && size > longest)
            longest = size;
    }
    cJSON *list = longest >= 0 ? cJSON_AddArrayToObject(merged, "prefixItems") : NULL;
    if (longest >= 0 && !list)
        no_memory(s);
    for (int k = 0; k < longest && list; k++) {
        for (int i = 0; i < all->n; i++) {
            const cJSON *own = cJSON_GetArrayItem(get(all->at[i].schema, "prefixItems"), k);
            of[i] = own ? own : items[i];
        }
        put(s, list, NULL, both(s, of, all->n));
    }
    if (has_items)
        put(s, merged, "items", both(s, items, all->n));
}

/* --- values --------------------------------------------------------------------------------------
 */

/* Whether a list of values, or a constant, has one. */
static bool has_value(const cJSON *list, const cJSON *constant, const cJSON *value) {
    bool found = !list;
    for (const cJSON *v = list ? list->child : NULL; v && !found; v = v->next)
        found = cJSON_Compare(v, value, true);
    return found && (!constant || cJSON_Compare(constant, value, true));
}

/* The values that all schemas list, of these types. */
static uint32_t values(rt_schema *s, const parts *all, const cJSON *merged, const rt_place *place,
                       int types, int about) {
    const cJSON *first = NULL;
    uint32_t expr = 0;
    size_t sizes = 8;
    rt_excluded excluded;
    rt_schema_exclude(s, merged, place, 0, &excluded);
    for (int i = 0; i < excluded.n; i++)
        sizes += nodes(excluded.values[i]);
    for (int i = 0; i < all->n; i++) {
        const cJSON *some = get(all->at[i].schema, "enum");
        if (some && (!cJSON_IsArray(some) || !some->child)) {
            rt_schema_problem(s, place, "enum", true, "expected a list of values");
            return 0;
        }
        sizes += nodes(some) + nodes(get(all->at[i].schema, "const"));
        if (!first)
            first = some ? some->child : get(all->at[i].schema, "const");
    }
    cJSON *list = cJSON_CreateArray();
    if (!list)
        no_memory(s);
    bool alone = first && first->string; /* a constant: what follows it are other keywords */
    for (const cJSON *v = first; v && !s->rules->failed; v = alone ? NULL : v->next) {
        bool in_all = rt_schema_spend(s, sizes * nodes(v)); /* objects are compared name by name */
        for (int i = 0; i < all->n && in_all; i++)
            in_all = has_value(get(all->at[i].schema, "enum"), get(all->at[i].schema, "const"), v);
        if (in_all && !rt_schema_is_excluded(&excluded, v))
            put(s, list, NULL, cJSON_Duplicate(v, true));
    }
    if (list && list->child && (about & ~(RT_ABOUT_ALL | RT_ABOUT_WHOLE | RT_ABOUT_NOT)))
        rt_schema_problem(s, place, NULL, false,
                          "beside enum and const only type is supported, and others of them");
    if (!s->rules->failed)
        expr = list->child ? rt_schema_constants(s, list, place, types)
                           : rt_schema_nothing(s, place, NULL, "no value is in all lists");
    cJSON_Delete(list);
    return expr;
}

/* --- all -----------------------------------------------------------------------------------------
 */

/* What keywords may be about that matter for values of these types. */
static int about_types(int types) {
    return (types & RT_TYPE_STRING ? RT_ABOUT_STRING : 0) |
           (types & (RT_TYPE_NUMBER | RT_TYPE_INTEGER) ? RT_ABOUT_NUMBER : 0) |
           (types & RT_TYPE_OBJECT ? RT_ABOUT_OBJECT : 0) |
           (types & RT_TYPE_ARRAY ? RT_ABOUT_ARRAY : 0);
}

/* The types that all ask for, 0: none; *typed: some ask for any. */
static int merge_types(rt_schema *s, const parts *all, const rt_place *place, bool *typed) {
    int types = 0;
    *typed = false;
    for (int i = 0; i < all->n; i++) {
        int own = rt_schema_types(s, all->at[i].schema, place, 0);
        if (!get(all->at[i].schema, "type"))
            continue;
        own |= own & RT_TYPE_NUMBER ? RT_TYPE_INTEGER : 0; /* whole numbers are numbers */
        types = *typed ? types & own : own;
        *typed = true;
    }
    return types;
}

static uint32_t read_merged(rt_schema *s, const parts *all, const rt_place *place) {
    bool typed, constants = false;
    int about = 0, types = merge_types(s, all, place, &typed);
    if (typed && !types)
        return rt_schema_nothing(s, place, "type", "no type is in all lists");
    cJSON *merged = cJSON_CreateObject();
    if (!merged) {
        no_memory(s);
        return 0;
    }
    for (int i = 0; i < all->n; i++) {
        const cJSON *schema = all->at[i].schema;
        for (const cJSON *m = schema->child; m; m = m->next) {
            int of = rt_schema_about(m->string);
            if (typed && of < RT_ABOUT_ALL && !(of & about_types(types)))
                continue; /* of values that cannot be */
            about |= of;
            take_simple(s, merged, m, place);
            if (strcmp(m->string, "not") == 0)
                take_not(s, merged, m);
        }
        constants = constants || get(schema, "enum") || get(schema, "const");
    }
    if (about & RT_ABOUT_OBJECT) {
        merge_required(s, all, merged);
        merge_properties(s, all, place, merged);
    }
    if (about & RT_ABOUT_ARRAY)
        merge_items(s, all, place, merged);
    if (!typed)
        types = rt_schema_types(s, merged, place, about);
    if (!types && (about & RT_ABOUT_NOT))
        types = RT_TYPE_ANY;
    const cJSON *outer = s->merged;
    s->merged = merged;
    uint32_t expr = 0;
    if (s->rules->failed)
        expr = 0;
    else if (constants)
        expr = values(s, all, merged, place, types, about);
    else if (types)
        expr = rt_schema_of_types(s, merged, place, types);
    else
        expr = rt_json_value(&s->json);
    s->merged = outer;
    cJSON_Delete(merged);
    return expr;
}

static uint32_t read_set(rt_schema *s, parts *all, const rt_place *place);

/* A branch of the anyOf or oneOf of a part with all the others. */
static uint32_t distribute(rt_schema *s, const parts *all, int i, int which,
                           const rt_place *place) {
    const char *name = which == ANY_OF ? "anyOf" : "oneOf";
    const cJSON *list = get(all->at[i].schema, name);
    rt_expr_stack exprs = {0};
    int k = 0;
    if (!cJSON_IsArray(list) || !list->child) {
        rt_schema_problem(s, place, name, true, "expected a list of schemas");
        return 0;
    }
    size_t size = nodes(list);
    if (which == ONE_OF && rt_schema_spend(s, size * (size + 4096))) /* pairs, and their values */
        rt_schema_check_one_of(s, list, place);
    const rt_place at = {place, name, 0, place->depth + 1};
    for (const cJSON *b = list->child; b && !s->rules->failed; b = b->next, k++) {
        const rt_place branch = {&at, NULL, k, place->depth + 2};
        parts *with = malloc(sizeof *with);
        if (!with) {
            no_memory(s);
            break;
        }
        with->n = 0;
        with->impossible = false;
        for (int p = 0; p < all->n; p++)
            add_part(s, with, (part){all->at[p].schema, all->at[p].done | (p == i ? which : 0)});
        add(s, with, b, &branch, NULL, false);
        rt_expr_push(s->rules, &exprs, read_set(s, with, &branch));
        free(with);
    }
    uint32_t expr = rt_expr_list(s->rules, RT_EXPR_ALT, exprs.at, exprs.n);
    rt_expr_stack_free(&exprs);
    return expr;
}

static int by_address(const void *a, const void *b) {
    const part *x = a, *y = b;
    if (x->schema->child != y->schema->child)
        return (uintptr_t)x->schema->child < (uintptr_t)y->schema->child ? -1 : 1;
    return x->done - y->done;
}

static bool is_set(const struct rt_schema_merge *m, const part *sorted, int n) {
    bool same = m->n == n;
    for (int i = 0; i < n && same; i++)
        same = m->parts[i].first == sorted[i].schema->child && m->parts[i].done == sorted[i].done;
    return same;
}

/* The rule of the set: as it was made before, or now. */
static uint32_t read_set(rt_schema *s, parts *all, const rt_place *place) {
    part sorted[MAX_PARTS];
    if (s->rules->failed)
        return 0;
    if (all->impossible)
        return rt_schema_nothing(s, place, NULL, "false");
    memcpy(sorted, all->at, (size_t)all->n * sizeof *sorted);
    qsort(sorted, (size_t)all->n, sizeof *sorted, by_address);
    size_t looked = MAX_WORK / MAX_SETS;
    for (struct rt_schema_merge *m = s->merges; m; m = m->next, looked++)
        if (is_set(m, sorted, all->n))
            return rt_expr_rule(s->rules, m->rule);
    struct rt_schema_merge *m = malloc(sizeof *m + (size_t)all->n * sizeof *m->parts);
    if (!m) {
        no_memory(s);
        return 0;
    }
    m->n = all->n;
    for (int i = 0; i < all->n; i++) {
        m->parts[i].first = sorted[i].schema->child;
        m->parts[i].done = sorted[i].done;
    }
    m->rule = rt_rule_add(s->rules, "allOf", 5);
    m->next = s->merges;
    s->merges = m;
    uint32_t rule = m->rule, expr;
    if (s->rules->failed)
        return 0;
    if (!rt_schema_spend(s, looked))
        return 0;
    if (place->depth > RT_GRAMMAR_MAX_NESTING) {
        rt_rules_fail(s->rules, MCC_CAPACITY, "%s: nested too deeply", s->field);
        return 0;
    }
    int i = 0, which = 0;
    for (; i < all->n && !which; i++) {
        const part *p = &all->at[i];
        which = !(p->done & ANY_OF) && get(p->schema, "anyOf")   ? ANY_OF
                : !(p->done & ONE_OF) && get(p->schema, "oneOf") ? ONE_OF
                                                                 : 0;
    }
    expr = which ? distribute(s, all, i - 1, which, place) : read_merged(s, all, place);
    if (s->rules->failed)
        return 0;
    s->rules->rules[rule].expr = expr;
    return rt_expr_rule(s->rules, rule);
}

uint32_t rt_schema_all_of(rt_schema *s, const cJSON *schema, const rt_place *place) {
    parts *all = malloc(sizeof *all);
    if (!all) {
        no_memory(s);
        return 0;
    }
    all->n = 0;
    all->impossible = false;
    add(s, all, schema, place, NULL, true);
    uint32_t expr = read_set(s, all, place);
    free(all);
    return expr;
}

void rt_schema_free_merges(rt_schema *s) {
    for (struct rt_schema_merge *m = s->merges, *next; m; m = next) {
        next = m->next;
        free(m);
    }
}

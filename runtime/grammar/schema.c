/* JSON schemas (draft 2020-12, and what drafts before it call otherwise) as grammars of JSON texts.
 *
 * Every text of the grammar is valid; not every valid text is one of the grammar: properties come
 * in the order of the schema, only those that it names unless additionalProperties asks for more,
 * and numbers have at most 15 digits. Keywords that a grammar cannot check are refused, all at
 * once, never ignored; those that only describe are ignored. */
#include "runtime/grammar/schema.h"

#include "runtime/modelcc.h"
#include "runtime/tokenizer/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- problems ------------------------------------------------------------------------------------
 */

static size_t write_place(char *out, size_t capacity, const rt_place *place) {
    size_t n = 0;
    if (place->parent)
        n = write_place(out, capacity, place->parent);
    if (n >= capacity)
        return n;
    if (!place->parent)
        n += (size_t)snprintf(out + n, capacity - n, "%s", place->name);
    else if (!place->name)
        n += (size_t)snprintf(out + n, capacity - n, "/%d", place->index);
    else if (n + 1 < capacity)
        out[n++] = '/';
    for (const char *p = place->parent ? place->name : NULL; p && *p && n + 2 < capacity; p++) {
        bool escaped = *p == '~' || *p == '/';
        out[n++] = escaped ? '~' : *p;
        if (escaped)
            out[n++] = *p == '~' ? '0' : '1';
    }
    n = n < capacity ? n : capacity - 1;
    out[n] = 0;
    return n;
}

void rt_schema_problem(rt_schema *s, const rt_place *place, const char *member, bool invalid,
                       const char *format, ...) {
    enum { ROOM_FOR_MORE = 120 };
    char where[200], why[160];
    const rt_place at = {place, member, 0, 0};
    write_place(where, sizeof where, member ? &at : place);
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    s->n_problems++;
    s->invalid = s->invalid || invalid;
    size_t left = sizeof s->problems - s->problem_bytes;
    if (left <= ROOM_FOR_MORE)
        return; /* counted, and said in the end */
    int n = snprintf(s->problems + s->problem_bytes, left - ROOM_FOR_MORE / 2, "%s%s: %s",
                     s->problem_bytes ? "; " : "", where[0] ? where : "the schema", why);
    size_t most = left - ROOM_FOR_MORE / 2 - 1;
    s->problem_bytes += n > 0 && (size_t)n < most ? (size_t)n : most;
    if (s->problem_bytes > sizeof s->problems - ROOM_FOR_MORE)
        s->problem_bytes = sizeof s->problems - ROOM_FOR_MORE;
}

uint32_t rt_schema_nothing(rt_schema *s, const rt_place *place, const char *member,
                           const char *why) {
    char where[100], *all = s->rules->nothing;
    const rt_place at = {place, member, 0, 0};
    write_place(where, sizeof where, member ? &at : place);
    static const char more[] = "; …"; /* is the end of a list that is full */
    size_t n = strlen(all), room = sizeof s->rules->nothing - n, end = sizeof more - 1;
    if (n >= end && strcmp(all + n - end, more) == 0)
        return rt_expr_list(s->rules, RT_EXPR_ALT, NULL, 0);
    int written =
        snprintf(all + n, room, "%s%s: %s", n ? "; " : "", where[0] ? where : "the schema", why);
    if (written < 0 || (size_t)written + end >= room)
        memcpy(all + n, more, sizeof more);
    return rt_expr_list(s->rules, RT_EXPR_ALT, NULL, 0);
}

uint32_t rt_schema_contradiction(rt_schema *s, const cJSON *schema, const rt_place *place,
                                 const char *member, const char *why) {
    if (schema != s->merged)
        rt_schema_problem(s, place, member, true, "%s", why);
    return rt_schema_nothing(s, place, member, why);
}

static bool report_problems(rt_schema *s) {
    /* Those that were not written: a "; " is before each but the first. */
    int written = s->problem_bytes > 0;
    s->problems[s->problem_bytes] = 0;
    for (const char *p = s->problems; (p = strstr(p, "; /")); p++)
        written++;
    char more[32] = "";
    if (written < s->n_problems)
        snprintf(more, sizeof more, "; and %d more", s->n_problems - written);
    return rt_rules_fail(s->rules, s->invalid ? MCC_INVALID_ARGUMENT : MCC_UNSUPPORTED,
                         "%s: %.400s%s", s->field, s->problems, more);
}

/* --- keywords ------------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    int about;
} keywords[] = {
    {"$schema", RT_ABOUT_NOTHING},
    {"$id", RT_ABOUT_NOTHING},
    {"$comment", RT_ABOUT_NOTHING},
    {"$defs", RT_ABOUT_NOTHING},
    {"definitions", RT_ABOUT_NOTHING},
    {"title", RT_ABOUT_NOTHING},
    {"description", RT_ABOUT_NOTHING},
    {"default", RT_ABOUT_NOTHING},
    {"example", RT_ABOUT_NOTHING},
    {"examples", RT_ABOUT_NOTHING},
    {"deprecated", RT_ABOUT_NOTHING},
    {"readOnly", RT_ABOUT_NOTHING},
    {"writeOnly", RT_ABOUT_NOTHING},
    {"contentEncoding", RT_ABOUT_NOTHING},
    {"contentMediaType", RT_ABOUT_NOTHING},
    {"type", RT_ABOUT_ALL},
    {"$ref", RT_ABOUT_WHOLE},
    {"enum", RT_ABOUT_WHOLE},
    {"const", RT_ABOUT_WHOLE},
    {"anyOf", RT_ABOUT_WHOLE},
    {"oneOf", RT_ABOUT_WHOLE},
    {"allOf", RT_ABOUT_WHOLE},
    {"not", RT_ABOUT_NOT},
    {"minLength", RT_ABOUT_STRING},
    {"maxLength", RT_ABOUT_STRING},
    {"pattern", RT_ABOUT_STRING},
    {"format", RT_ABOUT_STRING},
    {"minimum", RT_ABOUT_NUMBER},
    {"maximum", RT_ABOUT_NUMBER},
    {"exclusiveMinimum", RT_ABOUT_NUMBER},
    {"exclusiveMaximum", RT_ABOUT_NUMBER},
    {"multipleOf", RT_ABOUT_NUMBER},
    {"properties", RT_ABOUT_OBJECT},
    {"required", RT_ABOUT_OBJECT},
    {"additionalProperties", RT_ABOUT_OBJECT},
    {"minProperties", RT_ABOUT_OBJECT},
    {"maxProperties", RT_ABOUT_OBJECT},
    {"items", RT_ABOUT_ARRAY},
    {"prefixItems", RT_ABOUT_ARRAY},
    {"minItems", RT_ABOUT_ARRAY},
    {"maxItems", RT_ABOUT_ARRAY},
    {"uniqueItems", RT_ABOUT_ARRAY},
};
enum { N_KEYWORDS = sizeof keywords / sizeof *keywords };

static int find_keyword(const char *name) {
    for (int i = 0; i < N_KEYWORDS; i++)
        if (strcmp(keywords[i].name, name) == 0)
            return i;
    return -1;
}

int rt_schema_about(const char *keyword) {
    int k = find_keyword(keyword);
    return k < 0 ? RT_ABOUT_NOTHING : keywords[k].about;
}

bool rt_schema_is_known(const char *keyword) {
    return find_keyword(keyword) >= 0;
}

int rt_schema_keywords(rt_schema *s, const cJSON *schema, const rt_place *place,
                       const char **whole) {
    bool seen[N_KEYWORDS] = {false};
    int about = 0;
    for (const cJSON *m = schema->child; m; m = m->next) {
        int k = find_keyword(m->string);
        if (k < 0) {
            rt_schema_problem(s, place, m->string, false, "the keyword is not supported");
            continue;
        }
        if (seen[k])
            rt_schema_problem(s, place, m->string, true, "the keyword is there twice");
        seen[k] = true;
        about |= keywords[k].about;
        if (keywords[k].about == RT_ABOUT_WHOLE && whole && !*whole)
            *whole = m->string;
    }
    return about;
}

/* Whether what stands for the whole value is the only keyword, but for the type of values. */
static bool is_alone(const cJSON *schema, const char *whole) {
    bool values = strcmp(whole, "enum") == 0 || strcmp(whole, "const") == 0;
    for (const cJSON *m = schema->child; m; m = m->next) {
        int about = rt_schema_about(m->string);
        if (about != RT_ABOUT_NOTHING && !(about == RT_ABOUT_ALL && values) &&
            strcmp(m->string, whole) != 0)
            return false;
    }
    const cJSON *all_of = cJSON_GetObjectItemCaseSensitive(schema, "allOf");
    return !all_of || (cJSON_IsArray(all_of) && cJSON_GetArraySize(all_of) == 1);
}

/* --- types ---------------------------------------------------------------------------------------
 */

static int one_type(rt_schema *s, const cJSON *type, const rt_place *place) {
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "object",  "array"};
    for (int i = 0; i < 7; i++)
        if (cJSON_IsString(type) && strcmp(type->valuestring, names[i]) == 0)
            return 1 << i;
    rt_schema_problem(s, place, "type", true,
                      "expected null, boolean, integer, number, string, object or array, or a "
                      "list of them");
    return 0;
}

int rt_schema_types(rt_schema *s, const cJSON *schema, const rt_place *place, int about) {
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(schema, "type");
    int types = 0;
    if (cJSON_IsArray(type)) {
        for (const cJSON *t = type->child; t; t = t->next)
            types |= one_type(s, t, place);
        if (!type->child)
            rt_schema_problem(s, place, "type", true, "an empty list");
        return types;
    }
    if (type)
        return one_type(s, type, place);
    return (about & RT_ABOUT_STRING ? RT_TYPE_STRING : 0) |
           (about & RT_ABOUT_NUMBER ? RT_TYPE_NUMBER : 0) |
           (about & RT_ABOUT_OBJECT ? RT_TYPE_OBJECT : 0) |
           (about & RT_ABOUT_ARRAY ? RT_TYPE_ARRAY : 0);
}

int rt_schema_type_of(const cJSON *v) {
    if (cJSON_IsNumber(v))
        return RT_TYPE_NUMBER | (v->valuedouble == floor(v->valuedouble) ? RT_TYPE_INTEGER : 0);
    return cJSON_IsNull(v)     ? RT_TYPE_NULL
           : cJSON_IsBool(v)   ? RT_TYPE_BOOLEAN
           : cJSON_IsString(v) ? RT_TYPE_STRING
           : cJSON_IsObject(v) ? RT_TYPE_OBJECT
                               : RT_TYPE_ARRAY;
}

/* --- values --------------------------------------------------------------------------------------
 */

uint32_t rt_schema_count(rt_schema *s, const cJSON *schema, const rt_place *place,
                         const char *member, uint32_t missing) {
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(schema, member);
    if (!m)
        return missing;
    if (!cJSON_IsNumber(m) || m->valuedouble != floor(m->valuedouble) || m->valuedouble < 0)
        rt_schema_problem(s, place, member, true, "expected a whole number from 0");
    else if (m->valuedouble > RT_GRAMMAR_MAX_REPEAT)
        rt_schema_problem(s, place, member, false, "at most %d is supported",
                          RT_GRAMMAR_MAX_REPEAT);
    else
        return (uint32_t)m->valuedouble;
    return missing;
}

static uint32_t string(rt_schema *s, const cJSON *schema, const rt_place *place,
                       const rt_excluded *excluded) {
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(schema, "pattern");
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(schema, "format");
    uint32_t min = rt_schema_count(s, schema, place, "minLength", 0);
    uint32_t max = rt_schema_count(s, schema, place, "maxLength", RT_EXPR_UNBOUNDED);
    if (min > max)
        return rt_schema_contradiction(s, schema, place, "minLength", "more than maxLength");
    int n_excluded = 0;
    for (int i = 0; i < excluded->n; i++)
        n_excluded += cJSON_IsString(excluded->values[i]);
    if (n_excluded > 0) {
        if (!pattern && !format && min == 0 && max == RT_EXPR_UNBOUNDED)
            return rt_schema_other_strings(s, excluded);
        rt_schema_problem(s, place, "not", false,
                          "a text is not supported beside pattern, format, minLength or maxLength");
    }
    if (!pattern && !format)
        return rt_json_string_of_length(&s->json, min, max);
    if (min > 0 || max != RT_EXPR_UNBOUNDED || (pattern && format)) {
        rt_schema_problem(s, place, pattern ? "pattern" : "format", false,
                          "not supported beside minLength, maxLength or the other of pattern and "
                          "format");
        return 0;
    }
    const cJSON *text = pattern ? pattern : format;
    if (!cJSON_IsString(text)) {
        rt_schema_problem(s, place, text->string, true, "expected a text");
        return 0;
    }
    if (pattern) {
        char field[200];
        const rt_place at = {place, "pattern", 0, 0};
        int n = snprintf(field, sizeof field, "%s: ", s->field);
        write_place(field + n, sizeof field - (size_t)n, &at);
        return rt_json_string_like(&s->json, field, pattern->valuestring);
    }
    uint32_t expr = rt_json_string_of_format(&s->json, format->valuestring);
    if (expr == RT_EXPR_NONE)
        rt_schema_problem(s, place, "format", false, "\"%.40s\" is not supported",
                          format->valuestring);
    return expr == RT_EXPR_NONE ? 0 : expr;
}

/* Takes a bound over where it is the tighter one. False: it is not there. */
static bool bound(rt_schema *s, const cJSON *schema, const rt_place *place, const char *member,
                  bool lower, bool excluded, rt_json_numbers *n) {
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(schema, member);
    double *bound = lower ? &n->min : &n->max, x = cJSON_IsNumber(m) ? m->valuedouble : 0;
    bool *is_excluded = lower ? &n->min_excluded : &n->max_excluded;
    bool beyond = fabs(x) > (double)RT_JSON_LARGEST;
    if (!m)
        return false;
    if (!cJSON_IsNumber(m))
        rt_schema_problem(s, place, member, true, "expected a number");
    else if (beyond ? lower == (x > 0) : !rt_json_exact(x))
        rt_schema_problem(s, place, member, false,
                          "only numbers of at most 15 digits, before and behind the point, are "
                          "supported");
    else if (beyond) /* as no number is that is made */
        return true;
    else if (x == *bound)
        *is_excluded = *is_excluded || excluded;
    else if (lower ? x > *bound : x < *bound) {
        *bound = x;
        *is_excluded = excluded;
    }
    return true;
}

static uint32_t number(rt_schema *s, const cJSON *schema, const rt_place *place, bool integer,
                       const rt_excluded *excluded) {
    const double largest = (double)RT_JSON_LARGEST;
    rt_json_numbers n = {
        .min = -largest, .max = largest, .multiple = 1, .exponent = integer ? 0 : -15};
    const cJSON *multiple = cJSON_GetObjectItemCaseSensitive(schema, "multipleOf");
    bool bounded = bound(s, schema, place, "minimum", true, false, &n);
    bounded |= bound(s, schema, place, "exclusiveMinimum", true, true, &n);
    bounded |= bound(s, schema, place, "maximum", false, false, &n);
    bounded |= bound(s, schema, place, "exclusiveMaximum", false, true, &n);
    if (n.min > n.max)
        return rt_schema_contradiction(s, schema, place, "minimum", "more than the maximum");
    if (multiple && !(cJSON_IsNumber(multiple) && multiple->valuedouble > 0))
        rt_schema_problem(s, place, "multipleOf", true, "expected a number above 0");
    else if (multiple && !rt_json_set_multiple(&n, multiple->valuedouble, integer))
        rt_schema_problem(s, place, "multipleOf", false,
                          "only 1 to %d, times a power of ten from 10^-15 to 10^14, is supported",
                          RT_JSON_MAX_MULTIPLE);
    for (int i = 0; i < excluded->n; i++)
        bounded = bounded || cJSON_IsNumber(excluded->values[i]);
    if (!multiple && !bounded)
        return integer ? rt_json_integer(&s->json) : rt_json_number(&s->json);
    uint32_t expr = rt_schema_other_numbers(s, place, n, excluded);
    return expr != RT_EXPR_NONE ? expr
                                : rt_schema_nothing(s, place, multiple ? "multipleOf" : "minimum",
                                                    "no number is within the bounds");
}

/* A value as it stands in the schema. Numbers that JSON's readers may round are refused. */
uint32_t rt_schema_constant(rt_schema *s, const cJSON *value, const rt_place *place) {
    static const double max_exact = 9007199254740992.0;
    if (cJSON_IsNumber(value) && !(fabs(value->valuedouble) < max_exact)) {
        rt_schema_problem(s, place, NULL, false, "a number of more than 15 digits");
        return 0;
    }
    char *text = cJSON_PrintUnformatted(value);
    if (!text) {
        rt_rules_fail(s->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
        return 0;
    }
    uint32_t expr = rt_expr_text(s->rules, text, strlen(text));
    cJSON_free(text);
    return expr;
}

uint32_t rt_schema_constants(rt_schema *s, const cJSON *list, const rt_place *place, int types) {
    const rt_place at = {place, "enum", 0, place->depth + 1};
    rt_expr_stack parts = {0};
    int i = 0;
    if (!cJSON_IsArray(list) || !list->child)
        rt_schema_problem(s, place, "enum", true, "expected a list of values");
    for (const cJSON *v = cJSON_IsArray(list) ? list->child : NULL; v; v = v->next, i++) {
        const rt_place value = {&at, NULL, i, at.depth + 1};
        if (types == 0 || (types & rt_schema_type_of(v)))
            rt_expr_push(s->rules, &parts, rt_schema_constant(s, v, &value));
    }
    uint32_t expr = parts.n > 0 ? rt_expr_list(s->rules, RT_EXPR_ALT, parts.at, parts.n)
                                : rt_schema_nothing(s, place, "enum", "no value has the type");
    rt_expr_stack_free(&parts);
    return expr;
}

/* --- references ----------------------------------------------------------------------------------
 */

/* One step of a JSON pointer, with the escapes of pointers and of URIs; returns what is behind it,
 * or NULL when it is broken or too long. */
static const char *take_step(const char *p, char *name, size_t capacity) {
    size_t n = 0;
    for (; *p && *p != '/'; p++) {
        char c = *p;
        if (c == '%') {
            char *end, hex[3] = {p[1], p[1] ? p[2] : 0, 0};
            c = (char)strtol(hex, &end, 16);
            if (end != hex + 2 || !c)
                return NULL;
            p += 2;
        } else if (c == '~') {
            if (p[1] != '0' && p[1] != '1')
                return NULL;
            c = *++p == '0' ? '~' : '/';
        }
        if (n + 1 == capacity)
            return NULL;
        name[n++] = c;
    }
    name[n] = 0;
    return p;
}

const cJSON *rt_schema_resolve(rt_schema *s, const rt_place *place, const char *ref) {
    const cJSON *at = s->root;
    if (*ref != '#' || (ref[1] && ref[1] != '/')) {
        rt_schema_problem(s, place, "$ref", false,
                          "only references into the schema itself, by #/…, are supported");
        return NULL;
    }
    for (const char *p = ref + 1; *p && at;) {
        char name[256];
        p = take_step(p + 1, name, sizeof name);
        if (!p) {
            at = NULL;
            break;
        }
        if (cJSON_IsArray(at)) {
            char *end;
            long i = strtol(name, &end, 10);
            at = *name && !*end && i >= 0 && i < 1 << 20 ? cJSON_GetArrayItem(at, (int)i) : NULL;
        } else {
            s->merge_work += (size_t)cJSON_GetArraySize(at);
            at = cJSON_GetObjectItemCaseSensitive(at, name);
        }
    }
    if (!at)
        rt_schema_problem(s, place, "$ref", true, "\"%.80s\" points to nothing", ref);
    return at;
}

static uint32_t reference(rt_schema *s, const cJSON *ref, const rt_place *place) {
    if (!cJSON_IsString(ref)) {
        rt_schema_problem(s, place, "$ref", true, "expected a text");
        return 0;
    }
    const cJSON *schema = rt_schema_resolve(s, place, ref->valuestring);
    if (!schema)
        return 0;
    for (size_t i = 0; i < s->n_refs; i++)
        if (s->refs[i].schema == schema)
            return rt_expr_rule(s->rules, s->refs[i].rule);
    if (s->n_refs == s->ref_capacity) {
        size_t capacity = s->ref_capacity ? 2 * s->ref_capacity : 16;
        rt_schema_ref *grown = realloc(s->refs, capacity * sizeof *grown);
        if (!grown) {
            rt_rules_fail(s->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
            return 0;
        }
        s->refs = grown;
        s->ref_capacity = capacity;
    }
    char *pointer = strdup(ref->valuestring);
    if (!pointer) {
        rt_rules_fail(s->rules, MCC_OUT_OF_MEMORY, "out of memory for a grammar");
        return 0;
    }
    uint32_t rule = rt_rule_add(s->rules, pointer, strlen(pointer));
    s->refs[s->n_refs++] = (rt_schema_ref){schema, pointer, rule};
    return rt_expr_rule(s->rules, rule);
}

/* --- schemas -------------------------------------------------------------------------------------
 */

void rt_schema_check_one_of(rt_schema *s, const cJSON *list, const rt_place *place) {
    const rt_place at = {place, "oneOf", 0, place->depth + 1};
    int i = 0, k;
    for (const cJSON *b = list->child; b; b = b->next, i++) {
        const rt_place branch = {&at, NULL, i, at.depth + 1};
        k = 0;
        for (const cJSON *a = list->child; a != b && k < 64; a = a->next, k++)
            if (!rt_schema_disjoint(s, a, b))
                rt_schema_problem(s, &branch, NULL, false,
                                  "it may match what /oneOf/%d matches: use anyOf", k);
    }
    if (i > 64)
        rt_schema_problem(s, place, "oneOf", false, "at most 64 schemas are supported");
}

static uint32_t branches(rt_schema *s, const cJSON *list, const rt_place *place) {
    const rt_place at = {place, list->string, 0, place->depth + 1};
    rt_expr_stack parts = {0};
    int i = 0;
    if (!cJSON_IsArray(list) || !list->child)
        rt_schema_problem(s, place, list->string, true, "expected a list of schemas");
    else if (strcmp(list->string, "oneOf") == 0)
        rt_schema_check_one_of(s, list, place);
    for (const cJSON *b = cJSON_IsArray(list) ? list->child : NULL; b; b = b->next, i++) {
        const rt_place branch = {&at, NULL, i, at.depth + 1};
        rt_expr_push(s->rules, &parts, rt_schema_part(s, b, &branch));
    }
    uint32_t expr = rt_expr_list(s->rules, RT_EXPR_ALT, parts.at, parts.n);
    rt_expr_stack_free(&parts);
    return expr;
}

static uint32_t whole_value(rt_schema *s, const cJSON *schema, const rt_place *place,
                            const char *whole) {
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(schema, whole);
    if (strcmp(whole, "$ref") == 0)
        return reference(s, m, place);
    if (strcmp(whole, "const") == 0) {
        const rt_place at = {place, "const", 0, place->depth + 1};
        return rt_schema_constant(s, m, &at);
    }
    if (strcmp(whole, "enum") == 0)
        return rt_schema_constants(s, m, place, rt_schema_types(s, schema, place, 0));
    return branches(s, m, place);
}

uint32_t rt_schema_of_types(rt_schema *s, const cJSON *schema, const rt_place *place, int types) {
    rt_expr_stack parts = {0};
    rt_rules *r = s->rules;
    rt_excluded excluded;
    types = rt_schema_exclude(s, schema, place, types, &excluded);
    if (types & RT_TYPE_OBJECT)
        rt_expr_push(r, &parts, rt_schema_object(s, schema, place));
    if (types & RT_TYPE_ARRAY)
        rt_expr_push(r, &parts, rt_schema_array(s, schema, place));
    if (types & RT_TYPE_STRING)
        rt_expr_push(r, &parts, string(s, schema, place, &excluded));
    if (types & (RT_TYPE_NUMBER | RT_TYPE_INTEGER))
        rt_expr_push(r, &parts, number(s, schema, place, !(types & RT_TYPE_NUMBER), &excluded));
    static const struct {
        cJSON value;
        const char *text;
        int type;
    } names[] = {{{.type = cJSON_True}, "true", RT_TYPE_BOOLEAN},
                 {{.type = cJSON_False}, "false", RT_TYPE_BOOLEAN},
                 {{.type = cJSON_NULL}, "null", RT_TYPE_NULL}};
    for (int i = 0; i < 3; i++)
        if ((types & names[i].type) && !rt_schema_is_excluded(&excluded, &names[i].value))
            rt_expr_push(r, &parts, rt_expr_text(r, names[i].text, strlen(names[i].text)));
    uint32_t expr = parts.n > 0 ? rt_expr_list(r, RT_EXPR_ALT, parts.at, parts.n)
                                : rt_schema_nothing(s, place, "not", "nothing is left");
    rt_expr_stack_free(&parts);
    return expr;
}

static uint32_t read_schema(rt_schema *s, const cJSON *schema, const rt_place *place) {
    const char *whole = NULL;
    if (cJSON_IsTrue(schema))
        return rt_json_value(&s->json);
    if (cJSON_IsFalse(schema))
        return rt_schema_nothing(s, place, NULL, "false");
    if (!cJSON_IsObject(schema)) {
        rt_schema_problem(s, place, NULL, true, "expected a schema: an object, true or false");
        return 0;
    }
    if (place->depth > RT_GRAMMAR_MAX_NESTING) {
        rt_rules_fail(s->rules, MCC_CAPACITY, "%s: nested too deeply", s->field);
        return 0;
    }
    int about = rt_schema_keywords(s, schema, place, &whole);
    if (whole)
        return is_alone(schema, whole) ? whole_value(s, schema, place, whole)
                                       : rt_schema_all_of(s, schema, place);
    int types = rt_schema_types(s, schema, place, about);
    if (!types && (about & RT_ABOUT_NOT))
        types = RT_TYPE_ANY;
    return types ? rt_schema_of_types(s, schema, place, types) : rt_json_value(&s->json);
}

uint32_t rt_schema_part(rt_schema *s, const cJSON *schema, const rt_place *place) {
    char name[120];
    size_t n = write_place(name, sizeof name, place);
    uint32_t rule = rt_rule_add(s->rules, name, n), expr;
    if (s->rules->failed)
        return 0;
    expr = read_schema(s, schema, place);
    if (s->rules->failed)
        return 0;
    s->rules->rules[rule].expr = expr;
    return rt_expr_rule(s->rules, rule);
}

/* What a $ref points to is read after what refers to it, so that cycles end. */
static void read_all(rt_schema *s) {
    const rt_place root = {NULL, "", 0, 0};
    s->rules->root = rt_rule_add(s->rules, "#", 1);
    uint32_t expr = read_schema(s, s->root, &root);
    if (!s->rules->failed)
        s->rules->rules[s->rules->root].expr = expr;
    for (size_t i = 0; i < s->n_refs && !s->rules->failed; i++) {
        const rt_place at = {NULL, s->refs[i].pointer + 1, 0, 0};
        expr = read_schema(s, s->refs[i].schema, &at);
        if (!s->rules->failed)
            s->rules->rules[s->refs[i].rule].expr = expr;
    }
}

/* cJSON's texts end at the character 0. */
static bool has_zero(const char *text, size_t n) {
    for (const char *p = text; (p = memmem(p, (size_t)(text + n - p), "\\u0000", 6)); p++)
        return true;
    return memchr(text, 0, n) != NULL;
}

bool rt_read_schema(rt_rules *rules, const char *field, const char *text, size_t n) {
    rt_schema s = {.rules = rules, .field = field};
    const char *end = NULL;
    if (!rt_utf8_valid(text, n) || has_zero(text, n))
        return rt_rules_fail(rules, MCC_INVALID_ARGUMENT,
                             "%s: not UTF-8, or with the character 0 in it", field);
    cJSON *root = cJSON_ParseWithLengthOpts(text, n, &end, false);
    size_t at = end ? (size_t)(end - text) : 0;
    while (root && at < n && strchr(" \t\r\n", text[at]))
        at++;
    if (!root || at < n) {
        cJSON_Delete(root);
        return rt_rules_fail(rules, MCC_INVALID_ARGUMENT,
                             "%s: not JSON, or nested too deeply, at byte %zu", field, at + 1);
    }
    s.root = root;
    rt_json_init(&s.json, rules);
    read_all(&s);
    if (s.n_problems > 0)
        report_problems(&s);
    for (size_t i = 0; i < s.n_refs; i++)
        free(s.refs[i].pointer);
    free(s.refs);
    rt_schema_free_merges(&s);
    cJSON_Delete(root);
    return !rules->failed;
}

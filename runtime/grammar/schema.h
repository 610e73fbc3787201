/* What the parts of the JSON schema reader share. See schema.c. */
#ifndef MCC_RUNTIME_GRAMMAR_SCHEMA_H
#define MCC_RUNTIME_GRAMMAR_SCHEMA_H

#include "runtime/grammar/schema_values.h"

/* A place in a schema: a JSON pointer (RFC 6901), from the end to the beginning. */
typedef struct rt_place {
    const struct rt_place *parent; /* NULL: the root, or where a $ref points to */
    const char *name;              /* of a member; of the first place: a pointer */
    int index;                     /* of an element, where name is NULL */
    int depth;
} rt_place;

/* What a keyword is about. */
enum {
    RT_ABOUT_NOTHING = 0, /* it only describes */
    RT_ABOUT_STRING = 1,
    RT_ABOUT_NUMBER = 2,
    RT_ABOUT_OBJECT = 4,
    RT_ABOUT_ARRAY = 8,
    RT_ABOUT_ALL = 16,   /* type */
    RT_ABOUT_WHOLE = 32, /* stands for the whole value */
    RT_ABOUT_NOT = 64
};

enum {
    RT_TYPE_NULL = 1,
    RT_TYPE_BOOLEAN = 2,
    RT_TYPE_INTEGER = 4,
    RT_TYPE_NUMBER = 8,
    RT_TYPE_STRING = 16,
    RT_TYPE_OBJECT = 32,
    RT_TYPE_ARRAY = 64,
    RT_TYPE_ANY = 127
};

enum { RT_MAX_EXCLUDED = 64 };

/* What `not` takes out. */
typedef struct rt_excluded {
    int types;
    const cJSON *values[RT_MAX_EXCLUDED];
    int n;
} rt_excluded;

typedef struct rt_schema_ref {
    const cJSON *schema;
    char *pointer;
    uint32_t rule;
} rt_schema_ref;

typedef struct rt_schema {
    rt_json json;
    rt_rules *rules;
    const char *field;
    const cJSON *root;
    rt_schema_ref *refs; /* schemas that a $ref points to; their rules are made one by one */
    size_t n_refs, ref_capacity;
    struct rt_schema_merge *merges; /* schema_all_of.c: sets of schemas that are rules */
    const cJSON *merged;            /* the schema that is read, where it is one of several */
    size_t merge_work; /* of rt_schema_spend, and of looking up what a $ref points to */
    char problems[RT_ERROR_TEXT];
    size_t problem_bytes;
    int n_problems;
    bool invalid; /* some problem is not merely something unsupported */
} rt_schema;

/* Notes a problem with a member of the schema at `place` (NULL: with all of it), and goes on. */
void rt_schema_problem(rt_schema *s, const rt_place *place, const char *member, bool invalid,
                       const char *format, ...) __attribute__((format(printf, 5, 6)));

/* What matches nothing; `why` is said, with its place, when nothing else is left of the schema. */
uint32_t rt_schema_nothing(rt_schema *s, const rt_place *place, const char *member,
                           const char *why);
/* The same of keywords that contradict each other, which is a problem where they are of one schema.
 */
uint32_t rt_schema_contradiction(rt_schema *s, const cJSON *schema, const rt_place *place,
                                 const char *member, const char *why);

/* What a $ref, at `place`, points to; NULL with a problem. */
const cJSON *rt_schema_resolve(rt_schema *s, const rt_place *place, const char *ref);

/* A schema as a rule of its own; returns the expression that calls it. */
uint32_t rt_schema_part(rt_schema *s, const cJSON *schema, const rt_place *place);

/* Checks which keywords are there; returns what they are about. *whole becomes the one that stands
 * for the whole value, if anything. */
int rt_schema_keywords(rt_schema *s, const cJSON *schema, const rt_place *place,
                       const char **whole);
int rt_schema_about(const char *keyword);
bool rt_schema_is_known(const char *keyword);
/* A value's types: whole numbers have two. */
int rt_schema_type_of(const cJSON *value);

/* The types (RT_TYPE_) that a schema asks for; where it does not, those that its keywords are
 * about. 0: any. */
int rt_schema_types(rt_schema *s, const cJSON *schema, const rt_place *place, int about);
/* Values of these types, as the schema's keywords want them. */
uint32_t rt_schema_of_types(rt_schema *s, const cJSON *schema, const rt_place *place, int types);
uint32_t rt_schema_constant(rt_schema *s, const cJSON *value, const rt_place *place);
/* The values of a list that have one of these types (0: any). */
uint32_t rt_schema_constants(rt_schema *s, const cJSON *list, const rt_place *place, int types);
/* Notes the schemas of oneOf of which two may match the same value. */
void rt_schema_check_one_of(rt_schema *s, const cJSON *list, const rt_place *place);

/* --- schema_all_of.c -----------------------------------------------------------------------------
 */

/* A schema, whose keywords have been checked, with allOf, or with other keywords beside one that
 * stands for the whole value. */
uint32_t rt_schema_all_of(rt_schema *s, const cJSON *schema, const rt_place *place);
void rt_schema_free_merges(rt_schema *s);
/* Work that is done for each use of a part of the schema. False: too much, which is an error. */
bool rt_schema_spend(rt_schema *s, size_t work);

/* --- schema_not.c --------------------------------------------------------------------------------
 */

/* What a schema's `not` excludes, to *excluded; returns those of the types that are left. */
int rt_schema_exclude(rt_schema *s, const cJSON *schema, const rt_place *place, int types,
                      rt_excluded *excluded);
bool rt_schema_is_excluded(const rt_excluded *excluded, const cJSON *value);
/* As rt_json_numbers_like, without those that are excluded. */
uint32_t rt_schema_other_numbers(rt_schema *s, const rt_place *place, rt_json_numbers numbers,
                                 const rt_excluded *excluded);
/* Strings that are not excluded. */
uint32_t rt_schema_other_strings(rt_schema *s, const rt_excluded *excluded);

/* --- schema_any_of.c -----------------------------------------------------------------------------
 */

/* Whether no value can match both: by types, by constants, or by a required property with different
 * constants. False where that is not seen. */
bool rt_schema_disjoint(rt_schema *s, const cJSON *a, const cJSON *b);

/* --- schema_containers.c -------------------------------------------------------------------------
 */

uint32_t rt_schema_object(rt_schema *s, const cJSON *schema, const rt_place *place);
uint32_t rt_schema_array(rt_schema *s, const cJSON *schema, const rt_place *place);

/* A whole number from 0 that a member is, or `missing`. */
uint32_t rt_schema_count(rt_schema *s, const cJSON *schema, const rt_place *place,
                         const char *member, uint32_t missing);

#endif

/* For tests of JSON schemas: reading one into an automaton, matching texts, and refusals. */
#ifndef MCC_TESTS_SCHEMA_CASE_H
#define MCC_TESTS_SCHEMA_CASE_H

#include "check_main.h"

#include "runtime/grammar/automaton.h"
#include "runtime/grammar/match.h"
#include "runtime/modelcc.h"

#include <string.h>

/* False with an error. The automaton is to be destroyed in any case. */
static inline bool read_schema(const char *schema, rt_automaton *automaton, rt_error *error) {
    rt_rules r;
    rt_rules_init(&r, error);
    bool ok = rt_read_schema(&r, "guided_json", schema, strlen(schema)) &&
              rt_automaton_create(automaton, &r, "guided_json", error);
    rt_rules_free(&r);
    return ok;
}

static inline bool accepts(const rt_automaton *automaton, const char *text) {
    rt_matcher m;
    bool ok = rt_matcher_init(&m, automaton);
    if (!ok)
        ck_abort_msg("out of memory");
    rt_set set = rt_match_start(&m);
    for (; *text; text++) {
        rt_match_expand(&m, &set);
        set = rt_match_byte(&m, set, (uint8_t)*text);
    }
    ok = rt_match_may_end(&m, set);
    rt_matcher_destroy(&m);
    return ok;
}

/* A schema; texts that match it, and texts that do not, each list up to NULL. */
typedef struct schema_case {
    const char *schema, *right[8], *wrong[8];
} schema_case;

static inline void check_schema(const schema_case *c) {
    rt_error error = {0};
    rt_automaton automaton;
    bool ok = read_schema(c->schema, &automaton, &error);
    ck_assert_msg(ok, "%s: %s", c->schema, error.text);
    for (int i = 0; c->right[i]; i++)
        ck_assert_msg(accepts(&automaton, c->right[i]), "%s: %s", c->schema, c->right[i]);
    for (int i = 0; c->wrong[i]; i++)
        ck_assert_msg(!accepts(&automaton, c->wrong[i]), "%s: not %s", c->schema, c->wrong[i]);
    rt_automaton_destroy(&automaton);
}

/* The schema is refused, in words that hold `words`. */
static inline void check_refusal(const char *schema, const char *words) {
    rt_error error = {0};
    rt_automaton automaton = {0};
    ck_assert_msg(!read_schema(schema, &automaton, &error), "%s", schema);
    ck_assert_msg(strstr(error.text, words) != NULL, "%s: %s", schema, error.text);
    rt_automaton_destroy(&automaton);
}

#endif

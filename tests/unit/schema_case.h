/* For tests of JSON schemas: reading one into an automaton, and matching texts. */
#ifndef MCC_TESTS_SCHEMA_CASE_H
#define MCC_TESTS_SCHEMA_CASE_H

#include "check_main.h"

#include "runtime/grammar/automaton.h"
#include "runtime/grammar/match.h"
#include "runtime/modelcc.h"

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

#endif

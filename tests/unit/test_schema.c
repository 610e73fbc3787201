/* JSON schemas as grammars: which texts match, where a value must match several schemas at a time;
 * and what is refused, with what words. Random schemas are in cli/guided.py. */
#include "schema_case.h"

#include <stdlib.h>
#include <string.h>

static const schema_case cases[] = {
    /* Bounds, lengths and types. */
    {"{\"allOf\": [{\"type\": [\"integer\", \"null\"], \"minimum\": 3}, {\"type\": \"number\", "
     "\"maximum\": 12}, {\"exclusiveMinimum\": 4}]}",
     {"5", "12"},
     {"4", "13", "null", "5.5", "\"5\""}},
    {"{\"type\": \"string\", \"allOf\": [{\"minLength\": 2}, {\"maxLength\": 3}, {\"minLength\": "
     "1}]}",
     {"\"ab\"", "\"abc\""},
     {"\"a\"", "\"abcd\"", "2"}},
    {"{\"allOf\": [{\"type\": \"string\", \"pattern\": \"^a+$\"}, {\"pattern\": \"^a+$\"}, true]}",
     {"\"aa\""},
     {"\"b\""}},
    /* Properties of both, and of the same name; required ones of both. */
    {"{\"allOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": "
     "{\"type\": \"null\"}}, \"required\": [\"a\"]}, {\"properties\": {\"a\": {\"minimum\": 7}, "
     "\"c\": {\"const\": 1}}, \"required\": [\"c\", \"a\"]}]}",
     {"{\"a\":7,\"c\":1}", "{\"a\":8,\"b\":null,\"c\":1}"},
     {"{\"a\":6,\"c\":1}", "{\"a\":7}", "{\"c\":1}", "{\"a\":7,\"b\":2,\"c\":1}",
      "{\"a\":7.5,\"c\":1}"}},
    /* What one names must be what the other's additionalProperties allow. */
    {"{\"allOf\": [{\"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": true}, "
     "\"additionalProperties\": {\"type\": \"integer\"}}, {\"properties\": {\"a\": true, \"c\": "
     "{\"minimum\": "
     "5}}, \"additionalProperties\": true}]}",
     {"{\"a\":1}", "{\"c\":5}", "{\"b\":\"x\",\"c\":5,\"z\":1}"},
     {"{\"c\":5.5}", "{\"c\":4}", "{\"z\":\"x\"}", "{\"a\":\"x\"}"}},
    {"{\"allOf\": [{\"properties\": {\"a\": {\"type\": \"integer\"}}, \"additionalProperties\": "
     "false}, "
     "{\"properties\": {\"b\": true}}]}",
     {"{}", "{\"a\":1}"},
     {"{\"b\":1}", "{\"a\":1,\"b\":1}"}},
    /* References, which are followed; a base and what extends it. */
    {"{\"$defs\": {\"base\": {\"type\": \"object\", \"properties\": {\"id\": {\"type\": "
     "\"integer\"}}, "
     "\"required\": [\"id\"]}}, \"allOf\": [{\"$ref\": \"#/$defs/base\"}, {\"properties\": "
     "{\"kind\": "
     "{\"const\": \"x\"}}, \"required\": [\"kind\"]}], \"description\": \"both\"}",
     {"{\"id\":1,\"kind\":\"x\"}"},
     {"{\"id\":1}", "{\"kind\":\"x\"}", "{\"id\":1,\"kind\":\"y\"}"}},
    {"{\"$defs\": {\"n\": {\"type\": \"integer\", \"maximum\": 9}}, \"$ref\": \"#/$defs/n\", "
     "\"minimum\": 8}",
     {"8", "9"},
     {"7", "10"}},
    /* anyOf beside other keywords, and several of them. */
    {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"null\"}, \"b\": {\"type\": "
     "\"null\"}}, "
     "\"anyOf\": [{\"required\": [\"a\"]}, {\"required\": [\"b\"]}]}",
     {"{\"a\":null}", "{\"b\":null}", "{\"a\":null,\"b\":null}"},
     {"{}", "{\"a\":1}", "{\"c\":null}"}},
    {"{\"allOf\": [{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}, {\"anyOf\": "
     "[{\"minimum\": "
     "5, \"type\": \"number\"}, {\"type\": \"string\", \"maxLength\": 1}]}]}",
     {"5", "\"a\"", "\"\""},
     {"4", "\"ab\"", "5.5"}},
    {"{\"type\": \"object\", \"required\": [\"k\"], \"oneOf\": [{\"type\": \"object\", "
     "\"properties\": {\"k\": "
     "{\"const\": 1}, \"a\": "
     "{\"type\": \"null\"}}, \"required\": [\"k\", \"a\"]}, {\"properties\": {\"k\": {\"const\": "
     "2}}, "
     "\"required\": [\"k\"]}]}",
     {"{\"k\":1,\"a\":null}", "{\"k\":2}"},
     {"{\"k\":1}", "{\"k\":2,\"a\":null}", "{}"}},
    /* Values that all list. */
    {"{\"allOf\": [{\"enum\": [1, 2, \"a\", null]}, {\"enum\": [2, \"a\", 3]}, {\"type\": "
     "[\"string\", "
     "\"null\", \"integer\"]}]}",
     {"2", "\"a\""},
     {"1", "3", "null"}},
    {"{\"allOf\": [{\"const\": \"a\"}, {\"enum\": [\"b\", \"a\"]}, {\"type\": \"string\"}]}",
     {"\"a\""},
     {"\"b\""}},
    /* Elements. */
    {"{\"allOf\": [{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"maxItems\": 3}, "
     "{\"prefixItems\": "
     "[{\"minimum\": 5}], \"items\": {\"maximum\": 3}, \"minItems\": 1}]}",
     {"[5]", "[5,3]", "[9,1,2]"},
     {"[]", "[4]", "[5,4]", "[5.5]", "[5,1,1,1]"}},
    /* Recursion: lists of two kinds at once. */
    {"{\"$defs\": {\"a\": {\"type\": \"object\", \"properties\": {\"v\": {\"type\": \"integer\"}, "
     "\"next\": "
     "{\"$ref\": \"#/$defs/a\"}}, \"required\": [\"v\"]}, \"b\": {\"properties\": {\"v\": "
     "{\"maximum\": 5}, "
     "\"next\": {\"$ref\": \"#/$defs/b\"}}}}, \"allOf\": [{\"$ref\": \"#/$defs/a\"}, {\"$ref\": "
     "\"#/$defs/b\"}]}",
     {"{\"v\":1}", "{\"v\":5,\"next\":{\"v\":4,\"next\":{\"v\":3}}}"},
     {"{\"v\":6}", "{\"v\":5,\"next\":{\"v\":6}}",
      "{\"v\":5,\"next\":{\"v\":4,\"next\":{\"v\":30}}}"}},
    {"{\"$defs\": {\"t\": {\"type\": \"object\", \"properties\": {\"l\": {\"$ref\": "
     "\"#/$defs/t\"}, \"r\": "
     "{\"$ref\": \"#/$defs/t\"}}}, \"u\": {\"properties\": {\"l\": {\"$ref\": \"#/$defs/u\"}, "
     "\"r\": {\"$ref\": "
     "\"#/$defs/u\"}, \"x\": {\"type\": \"null\"}}}}, \"$ref\": \"#/$defs/t\", \"allOf\": "
     "[{\"$ref\": "
     "\"#/$defs/u\"}]}",
     {"{}", "{\"l\":{\"r\":{\"x\":null}},\"r\":{}}"},
     {"{\"l\":1}", "{\"l\":{\"r\":{\"x\":1}}}"}},
    /* Types and values that are excluded. */
    {"{\"not\": {\"type\": [\"null\", \"object\"]}}",
     {"1", "1.5", "\"a\"", "true", "[{}]", "[null]"},
     {"null", "{}"}},
    {"{\"type\": [\"integer\", \"null\", \"boolean\"], \"not\": {\"enum\": [null, 3, false, "
     "\"a\"]}}",
     {"2", "4", "-3", "true", "30"},
     {"3", "null", "false", "3.0"}},
    {"{\"type\": [\"integer\", \"string\"], \"not\": {\"anyOf\": [{\"type\": \"integer\"}, "
     "{\"const\": \"\"}]}}",
     {"\"a\""},
     {"1", "\"\""}},
    {"{\"type\": \"string\", \"not\": {\"enum\": [\"ab\", \"abc\", \"b\\\"\", 1]}}",
     {"\"\"", "\"a\"", "\"abd\"", "\"abcd\"", "\"b\"", "\"1\""},
     {"\"ab\"", "\"abc\"", "\"b\\\"\"", "\"\\u0061b\"", "1"}},
    {"{\"type\": \"string\", \"not\": {\"enum\": [\"\\n\", \"\\\"\"]}}",
     {"\"\"", "\"n\""},
     {"\"\\n\"", "\"\\\"\"", "\"\\u000a\""}},
    {"{\"properties\": {\"a\\\"b\": {\"type\": \"integer\"}}, \"additionalProperties\": {\"type\": "
     "\"string\"}}",
     {"{\"a\\\"b\":1,\"c\":\"\"}"},
     {"{\"a\\\"b\":\"\"}", "{\"a\\\"b\":1,\"a\\\"b\":\"\"}"}},
    {"{\"type\": [\"number\", \"null\"], \"not\": {\"type\": \"number\", \"enum\": [0, 1.5, "
     "null]}}",
     {"1", "1.6", "0.1", "null", "-1.5"},
     {"0", "1.5", "0.0", "1.50", "-0"}},
    {"{\"enum\": [1, 2.5, \"a\", [1], null], \"not\": {\"anyOf\": [{\"type\": \"integer\"}, "
     "{\"const\": [1]}]}}",
     {"2.5", "\"a\"", "null"},
     {"1", "[1]"}},
    {"{\"allOf\": [{\"type\": \"integer\", \"minimum\": 1}, {\"not\": {\"const\": 2}}, {\"not\": "
     "{\"enum\": [3, 4]}}], \"maximum\": 5}",
     {"1", "5"},
     {"0", "2", "3", "4", "6"}},
    {"{\"$defs\": {\"n\": {\"type\": [\"integer\", \"null\"]}}, \"$ref\": \"#/$defs/n\", \"not\": "
     "{\"type\": \"null\"}}",
     {"1"},
     {"null"}},
    /* Different elements. */
    {"{\"type\": \"array\", \"items\": {\"enum\": [\"a\", 1, \"a\"]}, \"uniqueItems\": true}",
     {"[]", "[1]", "[\"a\"]", "[1,\"a\"]", "[ \"a\", 1 ]"},
     {"[1,1]", "[\"a\",\"a\"]", "[1,\"a\",1]", "[,1]", "[1,]"}},
    {"{\"$defs\": {\"c\": {\"title\": \"C\", \"type\": \"string\", \"enum\": [\"x\", \"y\", \"z\", "
     "3]}}, "
     "\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/c\"}, \"uniqueItems\": true, "
     "\"minItems\": 2, "
     "\"maxItems\": 2}",
     {"[\"x\",\"z\"]", "[\"z\",\"x\"]"},
     {"[]", "[\"x\"]", "[\"x\",\"x\"]", "[\"x\",\"y\",\"z\"]", "[\"x\",3]"}},
    {"{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"uniqueItems\": true, "
     "\"maxItems\": 1}",
     {"[]", "[5]"},
     {"[5,6]"}},
    /* Contradictory branches are left out, the others stay. */
    {"{\"type\": \"integer\", \"minimum\": 5, \"anyOf\": [{\"maximum\": 3}, {\"maximum\": 7}]}",
     {"5", "7"},
     {"3", "4", "8"}},
    {"{\"type\": [\"integer\", \"null\"], \"allOf\": [{\"minimum\": 5}, {\"maximum\": 3}]}",
     {"null"},
     {"3", "4", "5"}},
    {"{\"type\": \"number\", \"exclusiveMinimum\": 5, \"anyOf\": [{\"maximum\": 5}, {\"maximum\": "
     "6}]}",
     {"5.5", "6"},
     {"5", "6.5"}},
    {"{\"type\": \"string\", \"minLength\": 3, \"anyOf\": [{\"maxLength\": 2}, {\"maxLength\": "
     "3}]}",
     {"\"abc\""},
     {"\"ab\"", "\"abcd\""}},
    {"{\"type\": \"array\", \"items\": {\"const\": 1}, \"minItems\": 2, \"anyOf\": [{\"maxItems\": "
     "1}, {\"maxItems\": 2}]}",
     {"[1,1]"},
     {"[1]", "[1,1,1]"}},
    {"{\"type\": \"object\", \"required\": [\"a\", \"b\"], \"properties\": {\"a\": {\"type\": "
     "\"null\"}, \"b\": {\"type\": \"null\"}}, \"anyOf\": [{\"maxProperties\": 1}, "
     "{\"maxProperties\": 2}]}",
     {"{\"a\":null,\"b\":null}"},
     {"{\"a\":null}"}},
    {"{\"enum\": [1, \"a\", null], \"oneOf\": [{\"const\": 2}, {\"type\": \"boolean\"}, {\"type\": "
     "\"null\"}, {\"type\": \"string\"}]}",
     {"\"a\"", "null"},
     {"1", "2", "true"}},
    /* Keywords about other types do not matter to a branch, whatever they say. */
    {"{\"pattern\": \"^a$\", \"anyOf\": [{\"type\": \"string\"}, {\"type\": \"integer\", "
     "\"pattern\": \"^b$\", \"minLength\": 2, \"maxLength\": 1, \"minimum\": 9}]}",
     {"\"a\"", "9"},
     {"\"b\"", "8"}},
    /* A property that cannot be is one that is not there, or takes its branch along. */
    {"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\", \"minimum\": 5}, "
     "\"b\": {\"type\": \"null\"}}, \"anyOf\": [{\"properties\": {\"a\": {\"maximum\": 4}}, "
     "\"required\": [\"b\"]}, {\"properties\": {\"a\": {\"maximum\": 4}}, \"required\": "
     "[\"a\"]}]}",
     {"{\"b\":null}"},
     {"{}", "{\"a\":4}", "{\"a\":5}", "{\"a\":5,\"b\":null}"}},
};

START_TEST(texts_that_match) {
    check_schema(&cases[_i]);
}
END_TEST

START_TEST(refusals) {
    static const char *const refused[][2] = {
        {"{\"allOf\": []}", "/allOf: expected a list"},
        {"{\"allOf\": [{\"type\": \"string\"}, {\"if\": {}}]}",
         "/allOf/1/if: the keyword is not supported"},
        {"{\"type\": \"integer\", \"not\": {\"minimum\": 3}}",
         "/not: only type, enum or const, or anyOf"},
        {"{\"not\": {\"anyOf\": [{\"type\": \"null\"}, {\"$ref\": \"#\"}]}}",
         "/not/anyOf/1: only type, enum"},
        {"{\"not\": {\"nonsense\": 1, \"type\": \"null\"}}", "/not: only type, enum"},
        {"{\"not\": 3}", "/not: expected a schema"},
        {"{\"not\": {\"enum\": 3}}", "/not/enum: expected a list"},
        {"{\"not\": {}}", "no text can ever match: /not: nothing is left"},
        {"{\"type\": \"boolean\", \"not\": {\"enum\": [false, true]}}",
         "no text can ever match: /not: nothing is left"},
        {"{\"not\": {\"type\": \"integer\"}}", "/not: integer is not supported where number is"},
        {"{\"not\": {\"const\": [1]}}", "/not: of objects and arrays only the type"},
        {"{\"type\": \"string\", \"minLength\": 2, \"not\": {\"const\": \"ab\"}}",
         "/not: a text is not supported beside pattern"},
        {"{\"type\": \"number\", \"not\": {\"const\": 0.30000000000000004}}",
         "/not: only numbers of at most 15 digits"},
        {"{\"enum\": [1, 2], \"not\": {\"enum\": [2, 1]}}", "no text can ever match"},
        {"{\"type\": \"array\", \"uniqueItems\": true}", "/uniqueItems: only supported where"},
        {"{\"type\": \"array\", \"uniqueItems\": 1}", "/uniqueItems: expected true or false"},
        {"{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"uniqueItems\": true}",
         "/uniqueItems: only supported where"},
        {"{\"type\": \"array\", \"items\": {\"enum\": [1, 2, 3, 4, 5, 6, 7, 8, 9]}, "
         "\"uniqueItems\": true}",
         "/uniqueItems: only supported where items are an enum of at most 8 values"},
        {"{\"type\": \"array\", \"items\": {\"enum\": [1, 2, 1.0]}, \"uniqueItems\": true, "
         "\"minItems\": 3}",
         "no text can ever match: /minItems: more than there are different values"},
        {"{\"type\": \"array\", \"items\": {\"$ref\": \"#/items\"}, \"uniqueItems\": true}",
         "/uniqueItems: only supported where"},
        {"{\"allOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}", "no text can ever match"},
        {"{\"allOf\": [{\"pattern\": \"a\"}, {\"pattern\": \"b\"}]}", "beside another pattern"},
        {"{\"allOf\": [{\"enum\": [1, 2]}, {\"minimum\": 2}]}", "beside enum and const only type"},
        {"{\"allOf\": [{\"const\": 1}, {\"const\": 2}]}", "no text can ever match"},
        /* Nothing is left: why, and where. */
        {"{\"type\": \"integer\", \"minimum\": 5, \"anyOf\": [{\"maximum\": 3}, {\"type\": "
         "\"null\"}]}",
         "no text can ever match: /anyOf/0/minimum: more than the maximum; /anyOf/1/type: no type "
         "is in all lists"},
        {"{\"allOf\": [{\"type\": \"string\", \"minLength\": 3}, {\"maxLength\": 2}]}",
         "no text can ever match: /minLength: more than maxLength"},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"allOf\": [{\"const\": 1}, {\"const\": "
         "2}]}}, \"required\": [\"a\"]}",
         "no text can ever match: /properties/a: no value is in all lists"},
        {"{\"type\": \"array\", \"prefixItems\": [{}], \"items\": false, \"minItems\": 2}",
         "no text can ever match: /minItems: more than the elements"},
        {"{\"type\": \"object\", \"required\": [\"a\"], \"additionalProperties\": false}",
         "no text can ever match: /required: a property that cannot be"},
        {"{\"allOf\": [{\"type\": \"null\"}, false]}", "no text can ever match: the schema: false"},
        {"{\"type\": \"null\", \"enum\": [1, 2]}", "no text can ever match: /enum: no value"},
        {"{\"type\": \"integer\", \"minimum\": 1, \"maximum\": 0}", "/minimum: more than"},
        {"{\"type\": \"object\", \"minProperties\": 2, \"maxProperties\": 1}",
         "/maxProperties: less than minProperties"},
        {"{\"type\": \"string\", \"allOf\": [{\"type\": \"integer\"}], \"enum\": [\"a\", 1]}",
         "no text can ever match"},
        {"{\"allOf\": [{\"$ref\": \"#\"}, {\"type\": \"null\"}]}", "must match itself first"},
        {"{\"anyOf\": [{\"$ref\": \"#\"}, {\"minimum\": 2}], \"type\": \"integer\"}",
         "left-recursive"},
        {"{\"allOf\": [{\"uniqueItems\": true}, {\"type\": \"array\"}]}", "uniqueItems"},
        {"{\"allOf\": [{\"uniqueItems\": true}, {\"items\": {\"enum\": [1, 2]}}, {\"items\": "
         "{\"enum\": [1]}}]}",
         "/uniqueItems: only supported where"},
        {"{\"allOf\": [{\"properties\": {\"a\": {}, \"a\": {}}}, {\"type\": \"object\"}]}",
         "twice"},
        {"{\"allOf\": [{\"required\": 1}, {\"type\": \"object\"}]}", "/required: expected a list"},
        {"{\"allOf\": [{\"minimum\": \"x\"}, {\"minimum\": 1}]}", "/minimum: expected a number"},
        {"{\"allOf\": [{\"properties\": 1}, {\"type\": \"object\"}]}", "/properties: expected"},
        {"{\"allOf\": [{\"enum\": 1}, {\"type\": \"null\"}]}", "/enum: expected a list"},
        {"{\"allOf\": [{\"type\": \"nul\"}, {}]}", "/type: expected null"},
        {"{\"allOf\": [{\"$ref\": \"#/x\"}, {\"type\": \"null\"}]}", "points to nothing"},
        {"{\"allOf\": [1, {\"type\": \"null\"}]}", "/allOf/0: expected a schema"},
        {"{\"type\": \"integer\", \"oneOf\": [{\"minimum\": 1}, {\"maximum\": 1}]}",
         "/oneOf/1: it may match"},
        {"{\"type\": \"object\", \"anyOf\": 3}", "/anyOf: expected a list"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        check_refusal(refused[i][0], refused[i][1]);
}
END_TEST

/* Very many contradictions: some are named, and that there are more. */
START_TEST(contradictions_are_listed) {
    static char text[1 << 16];
    rt_error error = {0};
    rt_automaton automaton = {0};
    size_t n = (size_t)sprintf(text, "{\"type\": \"integer\", \"minimum\": 900, \"anyOf\": [");
    for (int i = 0; i < 600; i++)
        n += (size_t)sprintf(text + n, "%s{\"maximum\": %d}", i ? "," : "", i);
    sprintf(text + n, "]}");
    ck_assert(!read_schema(text, &automaton, &error));
    ck_assert_msg(strstr(error.text, "/anyOf/3/minimum: more than the maximum") != NULL, "%s",
                  error.text);
    size_t size = strlen(error.text);
    ck_assert_msg(size > 200 && strcmp(error.text + size - 5, "; …") == 0, "%s", error.text);
    rt_automaton_destroy(&automaton);
    sprintf(text + n, ", {\"minimum\": 1000, \"maximum\": 1000}]}");
    bool ok = read_schema(text, &automaton, &error);
    ck_assert_msg(ok, "%s", error.text);
    ck_assert(accepts(&automaton, "1000") && !accepts(&automaton, "900"));
    rt_automaton_destroy(&automaton);
}
END_TEST

/* What would be merged for ever, or into very much, ends soon. */
START_TEST(hostile_schemas) {
    enum { MANY = 60 };
    static char text[1 << 20];
    rt_error error = {0};
    rt_automaton automaton = {0};
    size_t n = (size_t)sprintf(text, "{\"allOf\": [");
    for (int i = 0; i < MANY; i++)
        n += (size_t)sprintf(
            text + n, "%s{\"anyOf\": [{\"minimum\": %d}, {\"maxLength\": %d}, {\"maximum\": %d}]}",
            i ? "," : "", i, i, 100 + i);
    sprintf(text + n, "]}");
    ck_assert(!read_schema(text, &automaton, &error));
    ck_assert_msg(strstr(error.text, "too much") || strstr(error.text, "too large") ||
                      strstr(error.text, "nested too deeply"),
                  "%s", error.text);
    rt_automaton_destroy(&automaton);
    automaton = (rt_automaton){0};
    n = (size_t)sprintf(text, "{\"allOf\": [");
    for (int k = 0; k < 8; k++) {
        n += (size_t)sprintf(text + n, "%s{\"properties\": {", k ? "," : "");
        for (int i = 0; i < 2000; i++)
            n += (size_t)sprintf(text + n, "%s\"%d.%d\": {}", i ? "," : "", k, i);
        n += (size_t)sprintf(text + n, "}}");
    }
    sprintf(text + n, "]}");
    ck_assert(!read_schema(text, &automaton, &error));
    rt_automaton_destroy(&automaton);
}
END_TEST

static size_t repeat(char *to, const char *one, int n) {
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += (size_t)sprintf(to + bytes, "%s%s", i ? "," : "", one);
    return bytes;
}

/* Each does little, but again and again: a large leaf behind 2^20 ways, `$defs` that are walked
 * for each of them, large values and lists of names compared for each set; lists of values that are
 * gone through for each use. */
START_TEST(hostile_work) {
    static char text[1 << 21], branches[1 << 17];
    rt_error error = {0};
    rt_automaton automaton = {0};
    size_t n =
        (size_t)sprintf(text, "{\"$ref\": \"#/$defs/a0\", \"type\": \"object\", \"$defs\": {");
    if (_i == 0 || _i == 1) {
        for (int i = 0; _i == 1 && i < 20000; i++)
            n += (size_t)sprintf(text + n, "\"d%d\": {},", i);
        for (int i = 0; i < 20; i++)
            n += (size_t)sprintf(text + n,
                                 "\"a%d\": {\"allOf\": [{\"$ref\": \"#/$defs/a%d\"}, "
                                 "{\"$ref\": \"#/$defs/a%d\"}]},",
                                 i, i + 1, i + 1);
        n += (size_t)sprintf(text + n, "\"a20\": {");
        n += repeat(text + n, "\"title\": 0", _i == 0 ? 50000 : 1);
        sprintf(text + n, "}}}");
    } else if (_i == 4) {
        n = (size_t)sprintf(text, "{\"$defs\": {\"e\": {\"enum\": [1, 2], ");
        n += repeat(text + n, "\"title\": 0", 50000);
        n += (size_t)sprintf(text + n, "}}, \"prefixItems\": [");
        n += repeat(text + n,
                    "{\"type\": \"array\", \"maxItems\": 2, \"uniqueItems\": true, "
                    "\"items\": {\"$ref\": \"#/$defs/e\"}}",
                    48);
        sprintf(text + n, "]}");
    } else if (_i == 5) {
        repeat(branches, "{\"type\": \"integer\"}", 4000);
        n = (size_t)sprintf(text, "{\"anyOf\": [%s], \"not\": {\"type\": \"null\", \"enum\": [",
                            branches);
        n += repeat(text + n, "1", 100000);
        sprintf(text + n, "]}}");
    } else {
        repeat(branches, "{\"type\": \"object\"}", 4000);
        n = (size_t)sprintf(text, "{\"anyOf\": [%s], ", branches);
        if (_i == 2) {
            n += (size_t)sprintf(text + n, "\"required\": [");
            n += repeat(text + n, "\"a\"", 200000);
            sprintf(text + n, "]}");
        } else {
            for (int k = 0; k < 2; k++) {
                n += (size_t)sprintf(text + n, "%s\"enum\": [{", k ? "\"allOf\": [{" : "");
                for (int i = 0; i < 30000; i++)
                    n += (size_t)sprintf(text + n, "%s\"%d\": 0", i ? "," : "", i);
                n += (size_t)sprintf(text + n, k ? "}]}]" : "}], ");
            }
            sprintf(text + n, "}");
        }
    }
    ck_assert(!read_schema(text, &automaton, &error));
    ck_assert_msg(strstr(error.text, "too much to merge") != NULL, "%s", error.text);
    rt_automaton_destroy(&automaton);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("schema");
    TCase *t = tcase_create("schema");
    tcase_set_timeout(t, 600);
    tcase_add_loop_test(t, texts_that_match, 0, sizeof cases / sizeof *cases);
    tcase_add_test(t, refusals);
    tcase_add_test(t, contradictions_are_listed);
    tcase_add_test(t, hostile_schemas);
    tcase_add_loop_test(t, hostile_work, 0, 6);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

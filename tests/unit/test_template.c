/* Chat templates: jinja2's own results (tests/golden/templates.json), and what hostile input does.
 */
#include "check_main.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "runtime/template/template.h"

static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "cannot open %s", path);
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *text = malloc((size_t)n + 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_eq(fread(text, 1, (size_t)n, f), (size_t)n);
    text[n] = 0;
    fclose(f);
    return text;
}

/* The text or, with *failed set, the error. Freed by the caller. */
static char *render(const char *source, const cJSON *context, bool *failed) {
    char err[4096];
    char *text = NULL;
    size_t len = 0;
    rt_template *t = rt_template_parse(source, strlen(source), err, sizeof err);
    if (t) {
        text = rt_template_render(t, context, &len, err, sizeof err);
        rt_template_free(t);
    }
    *failed = text == NULL;
    if (text)
        ck_assert_uint_ge(len, strlen(text));
    return text ? text : strdup(err);
}

/* JSON has a NUL of a rendered text as the end of the string, so texts compare up to it. */
static bool case_passes(const cJSON *c, const char *got, bool failed) {
    const cJSON *text = cJSON_GetObjectItem(c, "text");
    const cJSON *message = cJSON_GetObjectItem(c, "message");
    if (text)
        return !failed && strcmp(got, text->valuestring) == 0;
    if (!failed)
        return false;
    if (cJSON_IsTrue(cJSON_GetObjectItem(c, "ours")))
        return strstr(got, message->valuestring) != NULL;
    if (message)
        return strcmp(got, message->valuestring) == 0;
    return strncmp(got, "chat template: ", 15) == 0;
}

/* Returns the number of cases that were compared. */
static int run_goldens(const char *path) {
    char *json = read_file(path);
    cJSON *all = cJSON_Parse(json);
    ck_assert_msg(all != NULL, "%s is not JSON", path);
    cJSON *templates = cJSON_GetObjectItem(all, "templates");
    cJSON *contexts = cJSON_GetObjectItem(all, "contexts");
    /* Arrays of cJSON are lists; the tables are read by number. */
    int n_templates = cJSON_GetArraySize(templates), n_contexts = cJSON_GetArraySize(contexts);
    const cJSON **tables[2] = {calloc((size_t)n_templates, sizeof(cJSON *)),
                               calloc((size_t)n_contexts, sizeof(cJSON *))};
    const cJSON *item;
    int n = 0, failures = 0, i = 0;
    cJSON_ArrayForEach(item, templates) tables[0][i++] = item;
    i = 0;
    cJSON_ArrayForEach(item, contexts) tables[1][i++] = item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(all, "cases")) {
        int t = cJSON_GetObjectItem(item, "template")->valueint;
        int c = cJSON_GetObjectItem(item, "context")->valueint;
        ck_assert(t >= 0 && t < n_templates && c >= 0 && c < n_contexts);
        bool failed;
        char *got = render(tables[0][t]->valuestring, tables[1][c], &failed);
        n++;
        if (!case_passes(item, got, failed)) {
            const cJSON *want = cJSON_GetObjectItem(item, "text");
            if (!want)
                want = cJSON_GetObjectItem(item, "message");
            if (failures++ < 10)
                fprintf(stderr, "%s: %.200s\n  expected: %.600s\n  got %s: %.600s\n",
                        cJSON_GetObjectItem(item, "name")->valuestring, tables[0][t]->valuestring,
                        want ? want->valuestring : "an error", failed ? "error" : "text", got);
        }
        free(got);
    }
    ck_assert_msg(failures == 0, "%d of %d templates differ from jinja2", failures, n);
    free(tables[0]);
    free(tables[1]);
    cJSON_Delete(all);
    free(json);
    return n;
}

START_TEST(goldens) {
    ck_assert_int_gt(run_goldens(MCC_TEST_DATA "/golden/templates.json"), 700);
}
END_TEST

/* Goldens of other templates, such as those in model files; see make_templates.py. */
START_TEST(other_goldens) {
    const char *path = getenv("MCC_TEMPLATE_GOLDENS");
    if (path)
        printf("%d cases of %s agree\n", run_goldens(path), path);
}
END_TEST

static void expect(const char *source, const char *json, const char *want) {
    cJSON *context = cJSON_Parse(json);
    ck_assert_ptr_nonnull(context);
    bool failed;
    char *got = render(source, context, &failed);
    ck_assert_str_eq(got, want);
    free(got);
    cJSON_Delete(context);
}

START_TEST(contexts) {
    expect("{{ x }}", "[]", "chat template: the context is not a JSON object");
    expect("{{ x }}", "{\"x\": \"\xff\"}",
           "chat template: a string of the context is not valid UTF-8");
    expect("{{ x }}", "{\"x\": 1, \"x\": 2}", "2");
    expect("{{ x }} {{ y }} {{ z }}", "{\"x\": 9007199254740992, \"y\": 1.5, \"z\": 1e20}",
           "9007199254740992 1.5 1e+20");
    expect("{{ strftime_now('%Y') }}", "{\"strftime_now\": -1}",
           "chat template: line 1: the context's strftime_now is outside the years 1970 to 9999");
}
END_TEST

START_TEST(time_of_the_clock) {
    cJSON *context = cJSON_CreateObject();
    bool failed;
    char *got = render("{{ strftime_now('%Y') | int > 2023 }}", context, &failed);
    ck_assert_str_eq(got, "True");
    free(got);
    cJSON_Delete(context);
}
END_TEST

/* The message is cut where a character ends, and always terminated. */
START_TEST(small_message_buffers) {
    const char *source = "{{ raise_exception('aé😀b') }}";
    cJSON *context = cJSON_CreateObject();
    rt_template *t = rt_template_parse(source, strlen(source), NULL, 0);
    static const char *const want[] = {"", "a", "a", "aé", "aé", "aé", "aé", "aé😀", "aé😀b"};
    ck_assert_ptr_nonnull(t);
    for (size_t cap = 1; cap <= 9; cap++) {
        char err[10];
        memset(err, 'x', sizeof err);
        ck_assert_ptr_null(rt_template_render(t, context, NULL, err, cap));
        ck_assert_str_eq(err, want[cap - 1]);
        ck_assert_int_eq(err[cap], 'x');
    }
    ck_assert_ptr_null(rt_template_render(t, context, NULL, NULL, 0));
    rt_template_free(t);
    rt_template_free(NULL);
    cJSON_Delete(context);
}
END_TEST

START_TEST(nul_in_text) {
    cJSON *context = cJSON_CreateObject();
    size_t len;
    rt_template *t = rt_template_parse("a\0{{ 'b\\0' }}", 13, NULL, 0);
    ck_assert_ptr_nonnull(t);
    char *text = rt_template_render(t, context, &len, NULL, 0);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_eq(len, 4);
    ck_assert_mem_eq(text, "a\0b\0", 5);
    free(text);
    rt_template_free(t);
    cJSON_Delete(context);
}
END_TEST

START_TEST(invalid_source) {
    char err[200];
    ck_assert_ptr_null(rt_template_parse("\n\xc3(", 3, err, sizeof err));
    ck_assert_str_eq(err, "chat template: line 1: the template is not valid UTF-8");
    size_t n = (4u << 20) + 1;
    char *big = calloc(1, n);
    memset(big, ' ', n);
    ck_assert_ptr_null(rt_template_parse(big, n, err, sizeof err));
    ck_assert_ptr_nonnull(strstr(err, "more than the limit"));
    free(big);
}
END_TEST

/* Every prefix of a template parses or is refused; nothing else. */
START_TEST(prefixes) {
    static const char source[] =
        "{%- set ns = namespace(a=1, b='x') -%}{# c #}{% for m in messages[::-1] if m.role is "
        "string %}{{- m['content'] | trim | replace(\"a\", 'b\\n') ~ loop.index0 -}}{% else %}"
        "{% raw %}{{{% endraw %}{% endfor %}{% macro f(a, b=[1, {'k': (2.5e3,)}]) %}{{ a + 1 if "
        "a not in b else -a ** 2 }}{% endmacro %}{{ f(1) }}";
    cJSON *context = cJSON_Parse("{\"messages\": [{\"role\": \"user\", \"content\": \" a \"}]}");
    for (size_t n = 0; n < sizeof source; n++) {
        char err[300];
        char *copy = malloc(n + 1); /* exact, so that a sanitizer sees a read beyond it */
        memcpy(copy, source, n);
        rt_template *t = rt_template_parse(copy, n, err, sizeof err);
        if (t)
            free(rt_template_render(t, context, NULL, err, sizeof err));
        else
            ck_assert_msg(strncmp(err, "chat template: line ", 20) == 0, "%s", err);
        rt_template_free(t);
        free(copy);
    }
    cJSON_Delete(context);
}
END_TEST

static Suite *template_suite(void) {
    Suite *s = suite_create("template");
    TCase *c = tcase_create("template");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, goldens);
    tcase_add_test(c, other_goldens);
    tcase_add_test(c, contexts);
    tcase_add_test(c, time_of_the_clock);
    tcase_add_test(c, small_message_buffers);
    tcase_add_test(c, nul_in_text);
    tcase_add_test(c, invalid_source);
    tcase_add_test(c, prefixes);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(template_suite)

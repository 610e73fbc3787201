/* Results as JSON: log-probabilities of tokens that are no whole characters, lists of none. */
#include "compiler/logprobs.h"
#include "compiler/output.h"

#include "engine_case.h"

static const cJSON *at(const cJSON *list, int i, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(list, i), name);
}

START_TEST(log_probabilities_of_any_token) {
    logprobs l = {.n_top = 2};
    for (int32_t id = 0; id < FAKE_VOCAB; id++) {
        const mcc_logprob top[2] = {{id, -0.5f}, {(id + 1) % FAKE_VOCAB, -1.5f}};
        mcc_event event = {.kind = MCC_EVENT_TOKEN,
                           .token_id = id,
                           .logprob = -0.5f,
                           .top_logprobs = top,
                           .n_top_logprobs = 1 + id % 2};
        ck_assert(logprobs_add(&l, &event));
    }
    cJSON *j = logprobs_json(&l, model);
    /* What is printed is read again: it is UTF-8, and a text ends where it ends. */
    char *printed = cJSON_PrintUnformatted(j);
    cJSON_Delete(j);
    j = cJSON_Parse(printed);
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(j, "content");
    ck_assert_int_eq(cJSON_GetArraySize(content), FAKE_VOCAB);
    int broken = 0, whole = 0;
    for (int32_t id = 0; id < FAKE_VOCAB; id++) {
        const char *text;
        uint64_t bytes;
        ck_assert_int_eq(at(content, id, "token_id")->valueint, id);
        ck_assert_double_eq(at(content, id, "logprob")->valuedouble, -0.5);
        const cJSON *top = at(content, id, "top_logprobs");
        ck_assert_int_eq(cJSON_GetArraySize(top), 1 + id % 2);
        if (id % 2)
            ck_assert_int_eq(at(top, 1, "token_id")->valueint, (id + 1) % FAKE_VOCAB);
        if (mcc_token_text(model, id, &text, &bytes, NULL) != MCC_OK) {
            ck_assert_ptr_null(at(content, id, "token"));
            continue;
        }
        const cJSON *list = at(content, id, "bytes");
        ck_assert_int_eq(cJSON_GetArraySize(list), (int)bytes);
        for (int i = 0; i < (int)bytes; i++)
            ck_assert_int_eq(cJSON_GetArrayItem(list, i)->valueint, (uint8_t)text[i]);
        const char *token = at(content, id, "token")->valuestring;
        if (strlen(token) == bytes && memcmp(token, text, bytes) == 0)
            whole++;
        else
            broken += strstr(token, "\xef\xbf\xbd") != NULL;
    }
    ck_assert_int_gt(whole, 5);
    ck_assert_int_gt(broken, 0);
    free(printed);
    cJSON_Delete(j);
    logprobs_free(&l);
}
END_TEST

START_TEST(lists_of_none) {
    cJSON *none = output_ids(NULL, 0), *some = output_ids((int32_t[]){4, 5}, 2);
    ck_assert(cJSON_IsArray(none) && cJSON_GetArraySize(none) == 0);
    ck_assert(cJSON_GetArraySize(some) == 2 && cJSON_GetArrayItem(some, 1)->valueint == 5);
    cJSON_Delete(none);
    cJSON_Delete(some);
    cJSON *empty = logprobs_json(&(logprobs){0}, model);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(empty, "content")), 0);
    cJSON_Delete(empty);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("output");
    TCase *t = tcase_create("output");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, log_probabilities_of_any_token);
    tcase_add_test(t, lists_of_none);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

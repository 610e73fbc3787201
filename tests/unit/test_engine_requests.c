/* Requests to the engine, on a made-up model: text as it streams, stops, sampling, parameters that
 * are refused, structs of older callers. */
#include "engine_case.h"

#include "runtime/tokenizer/tokenizer.h"

#include <math.h>

/* --- text ----------------------------------------------------------------------------------------
 */

static void check_text(const result *r) {
    static char expected[8192];
    uint64_t bytes;
    int64_t n = r->n;
    if (r->last.finish_reason == MCC_FINISH_STOP && n > 0 && r->ids[n - 1] == 2)
        n--;
    /* As the runtime does: special tokens give nothing, the first space stays. */
    mcc_artifact *a = model;
    ck_assert_int_eq(mcc_detokenize(a, r->ids, n, MCC_TEXT_SKIP_SPECIAL, expected, sizeof expected,
                                    &bytes, NULL),
                     MCC_OK);
    const char *text = r->text;
    if (text[0] == ' ' && expected[0] != ' ')
        text++;
    ck_assert_str_eq(text, expected);
}

static bool is_utf8(const char *text) {
    for (const uint8_t *p = (const uint8_t *)text; *p;) {
        int more = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : -1;
        if (more < 0)
            return false;
        for (p++; more > 0; more--, p++)
            if (*p >> 6 != 2)
                return false;
    }
    return true;
}

START_TEST(text_streams_whole_characters) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    int with_bytes = 0;
    for (uint32_t seed = 0; seed < 40; seed++) {
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt = "ab",
                                     .max_tokens = 40,
                                     .temperature = 50,
                                     .seed = seed};
        uint64_t id = submit(engine, params);
        static result r;
        memset(&r, 0, sizeof r);
        while (r.last.kind != MCC_EVENT_FINISHED) {
            ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
            take_events(engine, id, &r);
            ck_assert(is_utf8(r.text));
        }
        check_text(&r);
        for (int64_t i = 0; i < r.n; i++)
            with_bytes += r.ids[i] >= 3 && r.ids[i] <= 5;
    }
    ck_assert_int_gt(with_bytes, 20); /* the test meets what it is about */
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(stop_texts) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_NO_CACHE,
                                 .prompt = "xyz ab",
                                 .max_tokens = 60,
                                 .temperature = 20,
                                 .seed = 4};
    static result whole, r;
    generate(engine, params, &whole);
    ck_assert_uint_gt(whole.text_bytes, 30);
    /* Every piece of the text, once a character begins there, as a stop text: short and long ones,
     * within a token and across several. */
    for (size_t at = 0; at < whole.text_bytes; at += 3) {
        for (size_t n = 1; n <= 9 && at + n <= whole.text_bytes; n += 4) {
            if (((uint8_t)whole.text[at] & 0xc0) == 0x80)
                continue;
            char stop[16] = {0};
            memcpy(stop, whole.text + at, n);
            /* Two that do not occur, one of them almost. */
            char almost[16];
            snprintf(almost, sizeof almost, "%.9s~", stop);
            const char *stops[3] = {"~~", almost, stop};
            params.stop = stops;
            params.n_stop = 3;
            generate(engine, params, &r);
            size_t expected = (size_t)(strstr(whole.text, stop) - whole.text);
            ck_assert_uint_eq(r.text_bytes, expected);
            ck_assert_mem_eq(r.text, whole.text, expected);
            ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_STOP);
        }
    }
    const char *never[1] = {"~"};
    params.stop = never;
    params.n_stop = 1;
    generate(engine, params, &r);
    ck_assert_str_eq(r.text, whole.text);
    ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_LENGTH);
    mcc_engine_destroy(engine);
}
END_TEST

/* Of several stop texts in one piece, the one that begins first counts. */
START_TEST(first_stop_text) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    const char *stops[2] = {"yz", "z"};
    int met = 0;
    for (uint32_t seed = 0; seed < 60; seed++) {
        mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt = "ab",
                                     .max_tokens = 60,
                                     .temperature = 50,
                                     .seed = seed,
                                     .stop = stops,
                                     .n_stop = 2};
        static result r;
        generate(engine, params, &r);
        ck_assert_ptr_null(strchr(r.text, 'z'));
        if (r.last.finish_reason != MCC_FINISH_STOP || r.ids[r.n - 1] != 8)
            continue;
        ck_assert_int_eq(r.text[r.text_bytes - 1], 'x'); /* of the token "xyz" */
        met++;
    }
    ck_assert_int_gt(met, 3);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(late_polling_gets_everything) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    mcc_request_params params = {
        .flags = MCC_REQUEST_IGNORE_EOS, .prompt = "b", .max_tokens = 1000, .temperature = 20};
    static result r, late;
    generate(engine, params, &r);
    uint64_t id = submit(engine, params);
    for (int32_t unfinished = 1; unfinished > 0;)
        mcc_engine_step(engine, &unfinished, NULL);
    memset(&late, 0, sizeof late);
    take_events(engine, id, &late);
    ck_assert_int_eq(late.n, r.n);
    ck_assert_str_eq(late.text, r.text);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(end_tokens) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    mcc_request_params params = {.prompt = "ab", .max_tokens = 1000, .temperature = 50};
    generate(engine, params, &r);
    ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_STOP);
    ck_assert_int_eq(r.ids[r.n - 1], 2);
    check_text(&r);
    /* A token of the caller's ends it too, and gives no text. */
    int32_t stop = r.ids[r.n - 2], first = 0;
    while (r.ids[first] != stop)
        first++;
    params.stop_token_ids = &stop;
    params.n_stop_token_ids = 1;
    static result shorter;
    generate(engine, params, &shorter);
    ck_assert_int_eq(shorter.n, first + 1);
    ck_assert_int_eq(shorter.last.finish_reason, MCC_FINISH_STOP);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(messages_and_texts) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    const char *messages = "[{\"role\": \"me\", \"content\": \"hi\"}]";
    char text[64], small[4];
    uint64_t bytes;
    ck_assert_int_eq(
        mcc_apply_chat_template(model, messages, 0, 0, text, sizeof text, &bytes, NULL), MCC_OK);
    ck_assert_str_eq(text, "me.hi!bot.");
    ck_assert_uint_eq(bytes, 10);
    ck_assert_int_eq(mcc_apply_chat_template(model, messages, 0, MCC_TEXT_NO_GENERATION_PROMPT,
                                             text, sizeof text, &bytes, NULL),
                     MCC_OK);
    ck_assert_str_eq(text, "me.hi!");
    ck_assert_int_eq(
        mcc_apply_chat_template(model, messages, 0, 0, small, sizeof small, &bytes, NULL),
        MCC_BUFFER_TOO_SMALL);
    ck_assert_uint_eq(bytes, 10);
    static const char *const bad[] = {"", "{}", "[1]", "[{}]", "[{\"role\": 3}]", "[{\"role\":"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_int_eq(
            mcc_apply_chat_template(model, bad[i], 0, 0, text, sizeof text, &bytes, NULL),
            MCC_INVALID_ARGUMENT);

    int32_t ids[32], request_ids[32];
    int64_t n, n_request;
    ck_assert_int_eq(
        mcc_tokenize(model, "me.hi!bot.", 0, MCC_TEXT_PARSE_SPECIAL, ids, 32, &n, NULL), MCC_OK);
    uint64_t id = submit(engine, (mcc_request_params){.messages = messages, .max_tokens = 1});
    ck_assert_int_eq(mcc_request_prompt_ids(engine, id, request_ids, 32, &n_request, NULL), MCC_OK);
    ck_assert_int_eq(n, n_request);
    ck_assert_mem_eq(ids, request_ids, (size_t)n * sizeof *ids);
    ck_assert_int_eq(mcc_request_prompt_ids(engine, id, request_ids, 1, &n_request, NULL),
                     MCC_BUFFER_TOO_SMALL);
    ck_assert_int_eq(mcc_tokenize(model, "ab", 0, 0, NULL, 0, &n, NULL), MCC_BUFFER_TOO_SMALL);
    ck_assert_int_gt(n, 0);
    int32_t out_of_range = FAKE_VOCAB + 1;
    ck_assert_int_eq(mcc_detokenize(model, &out_of_range, 1, 0, text, sizeof text, &bytes, NULL),
                     MCC_INVALID_ARGUMENT);
    mcc_engine_destroy(engine);
}
END_TEST

/* --- sampling, parameters, errors ----------------------------------------------------------------
 */

START_TEST(seeds_and_logprobs) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result a, b, c;
    mcc_request_params params = {.flags = MCC_REQUEST_LOGPROBS | MCC_REQUEST_IGNORE_EOS,
                                 .prompt = "ab",
                                 .max_tokens = 50,
                                 .temperature = 10,
                                 .top_k = 30,
                                 .seed = 5};
    generate(engine, params, &a);
    params.flags |= MCC_REQUEST_NO_CACHE;
    generate(engine, params, &b);
    params.seed = 6;
    generate(engine, params, &c);
    ck_assert_mem_eq(a.ids, b.ids, 50 * sizeof *a.ids);
    ck_assert(memcmp(a.ids, c.ids, 50 * sizeof *a.ids) != 0);

    int32_t ids[64];
    int64_t n;
    mcc_tokenize(model, "ab", 0, MCC_TEXT_ADD_SPECIAL, ids, 64, &n, NULL);
    double expected = 0;
    for (int64_t i = 0; i < a.n; i++) {
        double sum = 0;
        for (int32_t t = 0; t < FAKE_VOCAB; t++)
            sum += exp(fake_logit(ids, n, t));
        expected += fake_logit(ids, n, a.ids[i]) - log(sum);
        ids[n++] = a.ids[i];
    }
    ck_assert_double_le(fabs(a.logprob_sum - expected), 1e-3);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(repetition_penalty) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    fill_prompt(5, 1);
    generate(engine,
             (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                  .prompt_ids = prompt,
                                  .n_prompt_ids = 5,
                                  .max_tokens = 50,
                                  .repetition_penalty = 1e6f},
             &r);
    /* With so great a penalty no token comes twice until all have been there. */
    int seen[FAKE_VOCAB] = {0}, distinct = 0;
    for (int i = 0; i < 5; i++)
        distinct += seen[prompt[i]]++ == 0;
    for (int64_t i = 0; i < r.n && distinct < FAKE_VOCAB; i++) {
        ck_assert_int_eq(seen[r.ids[i]], 0);
        distinct += seen[r.ids[i]]++ == 0;
    }
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(bad_parameters_are_refused) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_model_len = 32});
    static const int32_t ids[40], wrong[2] = {1, FAKE_VOCAB}, negative[1] = {-1};
    static const char *const empty[1] = {""}, *const null[1] = {NULL}, *const half[1] = {"\x82"};
    const struct {
        mcc_status status;
        mcc_request_params params;
    } bad[] = {
        {MCC_INVALID_ARGUMENT, {0}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .messages = "[]"}},
        {MCC_INVALID_ARGUMENT, {.prompt_ids = ids, .n_prompt_ids = 0}},
        {MCC_INVALID_ARGUMENT, {.prompt_ids = ids, .n_prompt_ids = -3}},
        {MCC_INVALID_ARGUMENT, {.prompt_ids = wrong, .n_prompt_ids = 2}},
        {MCC_INVALID_ARGUMENT, {.prompt_ids = negative, .n_prompt_ids = 1}},
        {MCC_CAPACITY, {.prompt_ids = ids, .n_prompt_ids = 32}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .max_tokens = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .flags = 1 << 20}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .temperature = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .top_p = 2}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .repetition_penalty = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = 1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = 1, .stop = empty}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = 1, .stop = null}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = 1, .stop = half}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop_token_ids = 1}},
        {MCC_INVALID_ARGUMENT, {.messages = "nonsense"}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n = 1 << 20}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .deadline_seconds = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .num_speculative_tokens = 65}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .deadline_seconds = NAN}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mcc_request_params params = bad[i].params;
        mcc_error error = {.struct_size = sizeof error};
        uint64_t id;
        params.struct_size = sizeof params;
        ck_assert_int_eq(mcc_request_submit(engine, &params, &id, &error), bad[i].status);
        ck_assert_int_eq(error.code, bad[i].status);
        ck_assert_uint_gt(strlen(error.text), 10);
    }
    uint64_t id;
    mcc_request_params unsized = {.prompt = "a"};
    ck_assert_int_eq(mcc_request_submit(engine, &unsized, &id, NULL), MCC_INVALID_ARGUMENT);
    mcc_engine_destroy(engine);

    static const struct {
        mcc_status status;
        mcc_engine_options options;
    } engines[] = {
        {MCC_INVALID_ARGUMENT, {.max_num_seqs = -1}},
        {MCC_INVALID_ARGUMENT, {.max_num_seqs = 9, .max_num_batched_tokens = 8}},
        {MCC_INVALID_ARGUMENT, {.max_num_waiting = -1}},
        {MCC_INVALID_ARGUMENT, {.max_num_batched_tokens = -1}},
        {MCC_INVALID_ARGUMENT, {.max_model_len = FAKE_MAX_LEN + 1}},
        {MCC_INVALID_ARGUMENT, {.max_eval_seqs = -1}},
        {MCC_INVALID_ARGUMENT, {.threads = -1}},
        {MCC_INVALID_ARGUMENT, {.flags = 1 << 9}},
        {MCC_CAPACITY, {.kv_cache_memory_bytes = 1000}},
    };
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        mcc_engine_options options = engines[i].options;
        options.struct_size = sizeof options;
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_int_eq(mcc_engine_create(model, &options, &engine, &error), engines[i].status);
        ck_assert_uint_gt(strlen(error.text), 10);
    }
}
END_TEST

START_TEST(older_structs_are_understood) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    /* A caller whose structs end early: what lies behind must be neither read nor written. */
    mcc_request_params params = {.struct_size = offsetof(mcc_request_params, temperature),
                                 .prompt = "ab",
                                 .max_tokens = 3,
                                 .temperature = NAN,
                                 .n_stop = -5};
    uint64_t id;
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
    mcc_engine_step(engine, NULL, NULL);
    mcc_event event;
    memset(&event, 0x55, sizeof event);
    event.struct_size = offsetof(mcc_event, finish_reason);
    ck_assert_int_eq(mcc_engine_poll(engine, id, &event, NULL), MCC_OK);
    ck_assert_int_eq(event.kind, MCC_EVENT_TOKEN);
    ck_assert_int_eq(event.finish_reason, 0x55555555);
    mcc_error error = {.struct_size = offsetof(mcc_error, text) + 4, .text = "0123456"};
    ck_assert_int_eq(mcc_engine_poll(engine, 999, &event, &error), MCC_NOT_FOUND);
    ck_assert_str_eq(error.text, "no ");
    ck_assert_int_eq(error.text[4], '4');
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(without_a_tokenizer) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    fill_prompt(7, 1);
    generate(engine,
             (mcc_request_params){.prompt_ids = prompt, .n_prompt_ids = 7, .max_tokens = 10}, &r);
    ck_assert_int_eq(r.n, 10);
    ck_assert_uint_eq(r.text_bytes, 0);
    check_greedy(prompt, 7, &r);
    uint64_t id, bytes;
    int64_t n;
    mcc_request_params params = {.struct_size = sizeof params, .prompt = "ab"};
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_UNSUPPORTED);
    ck_assert_int_eq(mcc_tokenize(model, "ab", 0, 0, NULL, 0, &n, NULL), MCC_UNSUPPORTED);
    ck_assert_int_eq(mcc_apply_chat_template(model, "[]", 0, 0, NULL, 0, &bytes, NULL),
                     MCC_UNSUPPORTED);
    mcc_engine_destroy(engine);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine requests");
    TCase *t = tcase_create("with text");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, text_streams_whole_characters);
    tcase_add_test(t, stop_texts);
    tcase_add_test(t, first_stop_text);
    tcase_add_test(t, late_polling_gets_everything);
    tcase_add_test(t, end_tokens);
    tcase_add_test(t, messages_and_texts);
    tcase_add_test(t, seeds_and_logprobs);
    tcase_add_test(t, repetition_penalty);
    tcase_add_test(t, bad_parameters_are_refused);
    tcase_add_test(t, older_structs_are_understood);
    suite_add_tcase(s, t);
    t = tcase_create("without text");
    tcase_add_checked_fixture(t, setup_without_text, teardown);
    tcase_add_test(t, without_a_tokenizer);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

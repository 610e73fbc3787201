/* A draft model on the engine's GPU, with a made-up driver: its memory and all else that it has
 * there goes when the engine goes, and with the engine's when the GPU fails. */
#include "fake_gpu_case.h"

#include "runtime/cuda_api.h"

enum { PROMPT = 40, TOKENS = 30 };

static int32_t prompt[PROMPT + TOKENS];
static mcc_engine *engine;
static mcc_request_params params;

static mcc_engine *make(const mcc_artifact *draft) {
    mcc_engine_options options = {.struct_size = sizeof options,
                                  .flags = draft ? MCC_ENGINE_DRAFT_ALWAYS : 0,
                                  .max_num_seqs = 4,
                                  .max_num_batched_tokens = 16,
                                  .draft = draft,
                                  .device = "cuda"};
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine *made = NULL;
    ck_assert_msg(!mcc_engine_create(model, &options, &made, &error), "%s", error.text);
    return made;
}

/* The model drafts for itself. */
static void setup_draft(void) {
    setup();
    for (uint32_t i = 0; i < PROMPT; i++)
        prompt[i] = (int32_t)(fake_mix(3, i) % FAKE_VOCAB);
    params = (mcc_request_params){.struct_size = sizeof params,
                                  .flags = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_NO_CACHE,
                                  .prompt_ids = prompt,
                                  .n_prompt_ids = PROMPT,
                                  .max_tokens = TOKENS,
                                  .num_speculative_tokens = 3};
}

static void submit(void) {
    uint64_t id;
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
}

/* Takes all events; returns how many requests ended, and counts those that failed. The tokens of
 * the others are the model's. */
static int take_events(int *failed) {
    mcc_event event = {.struct_size = sizeof event};
    int ended = 0;
    int64_t n = PROMPT;
    while (!mcc_engine_next_event(engine, &event, NULL) && event.kind != MCC_EVENT_NONE) {
        if (event.kind == MCC_EVENT_TOKEN) {
            ck_assert_int_eq(event.token_id, fake_next(prompt, n));
            prompt[n++] = event.token_id;
            continue;
        }
        *failed += event.finish_reason == MCC_FINISH_ERROR;
        ck_assert(event.finish_reason == MCC_FINISH_ERROR || n == PROMPT + TOKENS);
        ended++;
        n = PROMPT;
    }
    return ended;
}

static void run_one(void) {
    int failed = 0;
    submit();
    for (int32_t unfinished = 1; unfinished;) {
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_msg(!mcc_engine_step(engine, &unfinished, &error), "%s", error.text);
    }
    ck_assert_int_eq(take_events(&failed), 1);
    ck_assert_int_eq(failed, 0);
}

static mcc_engine_stats stats_of(void) {
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
    return stats;
}

START_TEST(memory_goes_with_the_engine) {
    engine = make(NULL);
    uint64_t alone = driver->used;
    int streams = driver->streams;
    mcc_engine_destroy(engine);
    check_clean();
    engine = make(model);
    ck_assert_uint_gt(driver->used, alone + alone / 2); /* two of them */
    ck_assert_int_eq(driver->streams, 2 * streams);
    run_one();
    ck_assert_uint_gt(stats_of().accepted_tokens, 10);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

/* The GPU fails at each call of a step in turn, the draft's or the engine's: when the step has
 * failed, neither has anything there. The next steps set both up again, and drafts go on. */
START_TEST(memory_goes_when_the_gpu_fails) {
    engine = make(model);
    run_one();
    uint64_t both = driver->used;
    int by_engine = 0, survived = 0;
    for (int n = 1; n < 120; n += 2) {
        int failed = 0;
        int32_t unfinished = 1;
        submit();
        for (int steps = 0; steps < 4; steps++) /* the prompt, and a step with drafts */
            ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
        driver->fail_in = n;
        driver->fail_with = CUDA_ERROR_ILLEGAL_ADDRESS;
        mcc_status status = MCC_OK;
        while (status == MCC_OK && unfinished)
            status = mcc_engine_step(engine, &unfinished, NULL);
        bool happened = driver->fail_in == 0;
        driver->fail_in = 0;
        if (status != MCC_OK) {
            by_engine++;
            ck_assert_int_eq(status, MCC_DEVICE_FAILED);
            ck_assert_msg(driver->used == 0 && driver->allocations == 0 && driver->pinned == 0 &&
                              driver->modules == 0 && driver->streams == 0 && driver->contexts == 0,
                          "call %d, %s: %d allocations, %d contexts are left", n,
                          driver->failed_call, driver->allocations, driver->contexts);
        } else {
            survived += happened; /* a draft's call that was not work: no drafts in one step */
        }
        while (unfinished)
            ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
        ck_assert_int_eq(take_events(&failed), 1);
        ck_assert_int_eq(failed, status != MCC_OK);
        uint64_t accepted = stats_of().accepted_tokens;
        run_one();
        ck_assert_uint_gt(stats_of().accepted_tokens, accepted + 10);
        ck_assert_uint_eq(driver->used, both);
        ck_assert_msg(driver->bad_calls == 0, "%s", driver->bad_call);
    }
    ck_assert_int_gt(by_engine, 10);
    ck_assert_int_gt(survived, 0);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

/* Making one: the draft's memory does not suffice, or any call fails. */
START_TEST(nothing_is_left_of_an_engine_that_could_not_be_made) {
    mcc_engine_options options = {
        .struct_size = sizeof options, .max_num_seqs = 4, .draft = model, .device = "cuda"};
    driver->calls = 0;
    ck_assert_int_eq(mcc_engine_create(model, &options, &engine, NULL), MCC_OK);
    long calls = driver->calls;
    mcc_engine_destroy(engine);
    check_clean();
    for (long n = 1; n <= calls; n++) {
        driver->fail_in = n;
        driver->fail_with = CUDA_ERROR_OUT_OF_MEMORY;
        mcc_status status = mcc_engine_create(model, &options, &engine, NULL);
        driver->fail_in = 0;
        if (status == MCC_OK)
            mcc_engine_destroy(engine);
        check_clean();
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("device draft");
    TCase *t = tcase_create("device draft");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup_draft, teardown);
    tcase_add_test(t, memory_goes_with_the_engine);
    tcase_add_test(t, memory_goes_when_the_gpu_fails);
    tcase_add_test(t, nothing_is_left_of_an_engine_that_could_not_be_made);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

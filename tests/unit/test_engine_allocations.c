/* Memory: a step that makes a token allocates nothing, whatever the sampling and with text; and
 * when an allocation fails, there is an error and nothing leaks. This program replaces malloc to
 * count and to fail. */
#include "check_main.h"
#include "failing_malloc.h"
#include "fixture/fake_artifact.h"
#include "fixture/fake_tokenizer.h"

#include "runtime/modelcc.h"

/* The made-up model with a tokenizer and a template, in a new file. */
static void write_model(char *path) {
    static fake_artifact a;
    fake_tables_init(&a.tables);
    ir_arena *arena = ir_arena_create();
    fe_blob blob = fake_tokenizer(arena);
    a.tokenizer = blob.data;
    a.tokenizer_bytes = blob.size;
    a.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    fake_artifact_write(&a, path);
    ir_arena_destroy(arena);
}

START_TEST(steps_allocate_nothing) {
    if (!COUNTING)
        TEST_SKIP("counting allocations: a sanitizer has its own malloc");
    static const struct {
        float temperature, top_p, min_p, repetition_penalty, frequency_penalty, typical_p;
        int32_t top_logprobs, n_logit_bias;
        int32_t top_k;
        uint32_t flags;
    } kinds[] = {
        {.temperature = 0},
        {.temperature = 5},
        {.temperature = 5, .top_p = 0.9f, .top_k = 20, .min_p = 0.01f},
        {.temperature = 5, .repetition_penalty = 1.5f, .flags = MCC_REQUEST_LOGPROBS},
        {.frequency_penalty = 0.5f, .top_logprobs = 20, .n_logit_bias = 1},
        {.temperature = 5, .typical_p = 0.7f},
    };
    char path[FAKE_PATH];
    write_model(path);
    mcc_artifact *model;
    mcc_engine *engine;
    ck_assert_int_eq(mcc_artifact_open(path, NULL, &model, NULL), MCC_OK);
    mcc_engine_options options = {.struct_size = sizeof options, .threads = 2};
    ck_assert_int_eq(mcc_engine_create(model, &options, &engine, NULL), MCC_OK);
    long before = atomic_load(&allocations);
    void *volatile memory = malloc(1);
    free(memory);
    ck_assert_int_gt(atomic_load(&allocations), before); /* the counter counts */

    const char *stop = "~never~";
    const int32_t bias_id = 7;
    const float bias = 2;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        uint64_t id;
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS | kinds[k].flags,
                                     .prompt = "ab",
                                     .temperature = kinds[k].temperature,
                                     .top_p = kinds[k].top_p,
                                     .top_k = kinds[k].top_k,
                                     .min_p = kinds[k].min_p,
                                     .repetition_penalty = kinds[k].repetition_penalty,
                                     .frequency_penalty = kinds[k].frequency_penalty,
                                     .typical_p = kinds[k].typical_p,
                                     .top_logprobs = kinds[k].top_logprobs,
                                     .logit_bias_ids = &bias_id,
                                     .logit_bias = &bias,
                                     .n_logit_bias = kinds[k].n_logit_bias,
                                     .stop = &stop,
                                     .n_stop = 1};
        ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
        before = atomic_load(&allocations);
        mcc_event event = {.struct_size = sizeof event};
        int tokens = 0;
        while (event.kind != MCC_EVENT_FINISHED) {
            mcc_engine_step(engine, NULL, NULL);
            while (mcc_engine_poll(engine, id, &event, NULL) == MCC_OK &&
                   event.kind == MCC_EVENT_TOKEN)
                tokens++;
        }
        long made = atomic_load(&allocations) - before; /* Check allocates too */
        ck_assert_int_gt(tokens, 1000);
        ck_assert_int_eq(made, 0);
    }
    mcc_engine_destroy(engine);
    mcc_artifact_close(model);
    unlink(path);
}
END_TEST

/* Nor does one of many sequences, that start, end, share pages, are preempted and cancelled. */
START_TEST(steps_of_many_allocate_nothing) {
    if (!COUNTING)
        TEST_SKIP("counting allocations: a sanitizer has its own malloc");
    enum { REQUESTS = 40 };
    char path[FAKE_PATH];
    write_model(path);
    mcc_artifact *model;
    mcc_engine *engine;
    ck_assert_int_eq(mcc_artifact_open(path, NULL, &model, NULL), MCC_OK);
    mcc_engine_options options = {.struct_size = sizeof options,
                                  .threads = 2,
                                  .max_num_seqs = 8,
                                  .max_model_len = 300,
                                  .kv_cache_memory_bytes = 80 * FAKE_LAYER_BYTES};
    ck_assert_int_eq(mcc_engine_create(model, &options, &engine, NULL), MCC_OK);
    for (int i = 0; i < REQUESTS; i++) {
        int32_t ids[100];
        for (int k = 0; k < 100; k++)
            ids[k] = 3 + (k < 40 ? i % 3 + k : i + k) % (FAKE_VOCAB - 3);
        uint64_t id;
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt_ids = ids,
                                     .n_prompt_ids = 1 + i * 37 % 100,
                                     .max_tokens = 1 + i * 53 % 150,
                                     .n = 1 + i % 3,
                                     .temperature = i % 2 ? 10 : 0};
        ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
    }
    long before = atomic_load(&allocations);
    int32_t unfinished = 1, steps = 0;
    for (mcc_event event = {.struct_size = sizeof event}; unfinished > 0; steps++) {
        mcc_engine_step(engine, &unfinished, NULL);
        if (steps == 20)
            mcc_request_cancel(engine, 50, NULL);
        while (!mcc_engine_next_event(engine, &event, NULL) && event.kind != MCC_EVENT_NONE)
            ;
    }
    long made = atomic_load(&allocations) - before;
    ck_assert_int_eq(made, 0);
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
    ck_assert_uint_gt(stats.preemptions, 0);
    ck_assert_uint_gt(stats.cached_tokens, 0);
    mcc_engine_destroy(engine);
    mcc_artifact_close(model);
    unlink(path);
}
END_TEST

/* A whole use of the runtime. Returns the first status that is not MCC_OK. */
static mcc_status use_model(const char *path, mcc_error *error) {
    mcc_artifact *model = NULL;
    mcc_engine *engine = NULL;
    uint64_t id;
    mcc_artifact_options open = {.struct_size = sizeof open, .flags = MCC_OPEN_CHECK};
    mcc_engine_options options = {.struct_size = sizeof options, .threads = 1, .max_num_seqs = 2};
    const char *stop = "~never~";
    const int32_t bias_id = 7;
    const float bias = 2;
    mcc_request_params params = {.struct_size = sizeof params,
                                 .flags = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_LOGPROBS,
                                 .messages = "[{\"role\": \"user\", \"content\": \"ab\"}]",
                                 .repetition_penalty = 1.1f,
                                 .logit_bias_ids = &bias_id,
                                 .logit_bias = &bias,
                                 .n_logit_bias = 1,
                                 .top_logprobs = 2,
                                 .stop = &stop,
                                 .n_stop = 1,
                                 .n = 2,
                                 .max_tokens = 3};
    mcc_status status = mcc_artifact_open(path, &open, &model, error);
    if (status == MCC_OK)
        status = mcc_engine_create(model, &options, &engine, error);
    if (status == MCC_OK)
        status = mcc_request_submit(engine, &params, &id, error);
    for (int i = 0; i < 4 && status == MCC_OK; i++)
        status = mcc_engine_step(engine, NULL, error);
    mcc_event event = {.struct_size = sizeof event};
    while (status == MCC_OK && event.kind != MCC_EVENT_FINISHED)
        status = mcc_engine_poll(engine, id, &event, error);
    mcc_engine_destroy(engine);
    mcc_artifact_close(model);
    return status;
}

START_TEST(every_allocation_may_fail) {
    if (!COUNTING)
        TEST_SKIP("failing allocations: a sanitizer has its own malloc");
    char path[FAKE_PATH];
    write_model(path);
    mcc_error error = {.struct_size = sizeof error};
    /* The first uses make what libraries keep for good. */
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(use_model(path, &error), MCC_OK);
    int failures = 0;
    for (long n = 1;; n++) {
        error.text[0] = 0;
        long before = atomic_load(&live);
        atomic_store(&fail_in, n);
        mcc_status status = use_model(path, &error);
        bool failed = atomic_exchange(&fail_in, 0) <= 0;
        long leaked = atomic_load(&live) - before;
        ck_assert_msg(leaked == 0, "allocation %ld: %ld leaked (%s)", n, leaked, error.text);
        if (!failed) {
            ck_assert_int_eq(status, MCC_OK); /* there are no n allocations */
            break;
        }
        ck_assert_msg(status == MCC_OK || error.text[0] != 0, "allocation %ld: no message", n);
        failures += status != MCC_OK;
    }
    ck_assert_int_gt(failures, 30);
    unlink(path);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine allocations");
    TCase *t = tcase_create("engine allocations");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, steps_allocate_nothing);
    tcase_add_test(t, steps_of_many_allocate_nothing);
    tcase_add_test(t, every_allocation_may_fail);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

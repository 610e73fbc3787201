/* Drafts by a second model, on the made-up one: the same tokens as without, whatever the draft
 * model says, whatever runs beside, is cached, preempted or computed in chunks; and which models
 * may draft for which. */
#include "engine_case.h"

enum { JOBS = 24 };

static char draft_path[FAKE_PATH];
static mcc_artifact *draft_model;

/* Makes the draft model: so many tokens have other weights than the model's. */
static void open_draft(uint32_t odd) {
    static fake_artifact a;
    memset(&a, 0, sizeof a);
    fake_tables_init(&a.tables);
    ir_arena *arena = ir_arena_create();
    fe_blob blob = fake_tokenizer(arena);
    a.tokenizer = blob.data;
    a.tokenizer_bytes = blob.size;
    a.odd = odd;
    fake_artifact_write(&a, draft_path);
    ir_arena_destroy(arena);
    ck_assert_int_eq(mcc_artifact_open(draft_path, NULL, &draft_model, NULL), MCC_OK);
}

static void close_draft(void) {
    mcc_artifact_close(draft_model);
    unlink(draft_path);
}

typedef struct job {
    int32_t ids[400];
    mcc_request_params params;
    result alone;
} job;

static job *jobs; /* [JOBS] */
static const int32_t biased[2] = {5, 11};
static const float biases[2] = {1.5f, -2};

static void make_jobs(uint32_t seed) {
    jobs = calloc(JOBS, sizeof *jobs);
    ck_assert_ptr_nonnull(jobs);
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    for (uint32_t i = 0; i < JOBS; i++) {
        job *j = &jobs[i];
        uint32_t dice = fake_mix(seed, i);
        int64_t n = fill_mixed_prompt(j->ids, i, dice);
        j->params = (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS |
                                                  (i % 5 == 1 ? MCC_REQUEST_LOGPROBS : 0) |
                                                  (i % 7 == 3 ? MCC_REQUEST_NO_CACHE : 0),
                                         .prompt_ids = j->ids,
                                         .n_prompt_ids = n,
                                         .max_tokens = 1 + (dice >> 4) % 120,
                                         .temperature = i % 3 == 1 ? 0.5f : 0,
                                         .repetition_penalty = i % 8 == 2 ? 1.3f : 0,
                                         .presence_penalty = i % 8 == 3 ? 0.9f : 0,
                                         .frequency_penalty = i % 4 == 3 ? 0.4f : 0,
                                         .typical_p = i % 8 == 4 ? 0.6f : 0,
                                         .logit_bias_ids = biased,
                                         .logit_bias = biases,
                                         .n_logit_bias = i % 8 == 5 ? 2 : 0,
                                         .seed = dice,
                                         .cache_salt = i % 11 == 5};
        generate(engine, j->params, &j->alone);
        j->params.num_speculative_tokens = i % 6 ? 1 + (int32_t)i % 7 : 0;
    }
    mcc_engine_destroy(engine);
}

static mcc_engine_stats run_together(mcc_engine_options options, int at_a_time, const char *how) {
    options.draft = draft_model;
    options.flags = MCC_ENGINE_DRAFT_ALWAYS;
    mcc_engine *engine = make_engine(options);
    static result r;
    uint64_t ids[JOBS];
    int32_t unfinished = 0;
    for (int i = 0; i < JOBS || unfinished > 0;) {
        for (int k = 0; k < at_a_time && i < JOBS; k++, i++)
            ids[i] = submit(engine, jobs[i].params);
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_msg(!mcc_engine_step(engine, &unfinished, &error), "%s: %s", how, error.text);
    }
    for (int i = 0; i < JOBS; i++) {
        memset(&r, 0, sizeof r);
        take_events(engine, ids[i], &r);
        check_same(&r, &jobs[i].alone, how, i);
    }
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
    ck_assert_uint_eq(stats.kv_bytes_used, 0);
    mcc_engine_destroy(engine);
    return stats;
}

/* The model drafts for itself: all that it drafts is right, sampled tokens too. */
START_TEST(a_perfect_draft_is_kept) {
    open_draft(0);
    mcc_engine *engine = make_engine(
        (mcc_engine_options){.threads = 1, .draft = draft_model, .flags = MCC_ENGINE_DRAFT_ALWAYS});
    fill_prompt(150, 3);
    static result r;
    for (int k = 0; k < 2; k++) {
        mcc_engine_stats before = {.struct_size = sizeof before}, after = before;
        mcc_engine_get_stats(engine, &before, NULL);
        mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt_ids = prompt,
                                     .n_prompt_ids = 150,
                                     .max_tokens = 101,
                                     .temperature = k == 0 ? 0 : 2,
                                     .seed = 5,
                                     .num_speculative_tokens = 4};
        generate(engine, params, &r);
        ck_assert_int_eq(r.n, 101);
        if (k == 0)
            check_greedy(prompt, 150, &r);
        mcc_engine_get_stats(engine, &after, NULL);
        uint64_t drafted = after.draft_tokens - before.draft_tokens;
        ck_assert_uint_gt(drafted, 70);
        ck_assert_uint_eq(after.accepted_tokens - before.accepted_tokens, drafted);
        ck_assert_uint_lt(after.steps - before.steps, 32);
    }
    mcc_engine_destroy(engine);
    close_draft();
}
END_TEST

/* Penalties count the tokens of the drafts before a row, as far as these are kept. Drafts are by
 * the model itself, or by prompt lookup in a text that has come before. */
START_TEST(penalties_hold_for_each_draft) {
    static const mcc_request_params kinds[] = {
        {.repetition_penalty = 1.2f},
        {.frequency_penalty = 0.3f},
        {.presence_penalty = 0.8f},
        {.frequency_penalty = -0.4f}, /* repeats itself */
        {.repetition_penalty = 0.8f, .presence_penalty = 0.3f}};
    static result with, without;
    open_draft(0);
    fill_prompt(100, 3);
    for (int k = 0; k < 20; k++) {
        mcc_engine_options options = {.threads = 1, .flags = MCC_ENGINE_DRAFT_ALWAYS};
        options.draft = k / 5 % 2 ? NULL : draft_model;
        mcc_engine *engine = make_engine(options);
        mcc_request_params p = kinds[k % 5];
        p.flags = MCC_REQUEST_IGNORE_EOS;
        p.prompt_ids = prompt;
        p.n_prompt_ids = 100;
        p.max_tokens = 100;
        p.temperature = k < 10 ? 0 : 0.5f;
        p.seed = 7;
        generate(engine, p, &without);
        p.num_speculative_tokens = 5;
        generate(engine, p, &with);
        check_same(&with, &without, "with a penalty", k);
        mcc_engine_stats stats = {.struct_size = sizeof stats};
        mcc_engine_get_stats(engine, &stats, NULL);
        ck_assert(options.draft == NULL || stats.accepted_tokens > 5);
        ck_assert(options.draft == NULL || stats.accepted_tokens < stats.draft_tokens);
        mcc_engine_destroy(engine);
    }
    close_draft();
}
END_TEST

START_TEST(the_same_tokens_as_without) {
    make_jobs(case_seed());
    open_draft(FAKE_VOCAB / 4);
    mcc_engine_stats s =
        run_together((mcc_engine_options){.threads = 2, .max_num_seqs = JOBS}, JOBS, "all at once");
    ck_assert_uint_gt(s.accepted_tokens, s.draft_tokens / 8); /* some are right, some wrong */
    ck_assert_uint_lt(s.accepted_tokens, s.draft_tokens * 9 / 10);
    run_together((mcc_engine_options){.threads = 1, .max_num_seqs = JOBS}, 1, "one by one");
    static const int32_t chunks[] = {8, 17, 64, 1000};
    for (int c = 0; c < 4; c++)
        run_together((mcc_engine_options){.threads = 1,
                                          .max_num_seqs = 8,
                                          .max_num_batched_tokens = chunks[c]},
                     3, "in chunks");
    free(jobs);
    make_jobs(1); /* which are known to need more than there is */
    s = run_together((mcc_engine_options){.threads = 1,
                                          .max_num_seqs = JOBS,
                                          .max_model_len = 600,
                                          .kv_cache_memory_bytes = 130 * FAKE_LAYER_BYTES},
                     JOBS, "with little memory");
    ck_assert_uint_gt(s.preemptions, 0);
    ck_assert_uint_gt(s.accepted_tokens, 0);
    close_draft();
    free(jobs);
}
END_TEST

/* Requests are cancelled at any time, the engine is reset, and goes on. */
START_TEST(cancelled_and_reset) {
    open_draft(FAKE_VOCAB / 4);
    mcc_engine *engine = make_engine((mcc_engine_options){
        .threads = 1, .max_num_seqs = 3, .draft = draft_model, .flags = MCC_ENGINE_DRAFT_ALWAYS});
    fill_prompt(300, 3);
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 300,
                                 .max_tokens = 60,
                                 .num_speculative_tokens = 5};
    static result r;
    for (int round = 0; round < 8; round++) {
        uint64_t ids[5];
        for (int i = 0; i < 5; i++) {
            params.n_prompt_ids = 300 - 40 * i;
            ids[i] = submit(engine, params);
        }
        for (int steps = 0; steps < 3 * round; steps++)
            ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
        for (int i = 0; i < 4; i++)
            mcc_request_cancel(engine, ids[i], NULL);
        finish(engine, ids[4], &r);
        check_greedy(prompt, 140, &r);
        if (round % 2)
            ck_assert_int_eq(mcc_engine_reset(engine, NULL), MCC_OK);
    }
    mcc_engine_destroy(engine);
    close_draft();
}
END_TEST

/* What may not draft, and what is said. */
START_TEST(other_vocabularies) {
    static const char *const said[] = {"has a vocabulary of 32 tokens", "has none",
                                       "is another one", "MCC_OPEN_INSPECT"};
    for (int k = 0; k < 4; k++) {
        static fake_artifact a;
        memset(&a, 0, sizeof a);
        fake_tables_init(&a.tables);
        ir_arena *arena = ir_arena_create();
        fe_blob blob = fake_tokenizer(arena);
        if (k == 0) /* the tokenizer would not fit */
            a.tables.h.vocab_size = a.tables.outputs[0].width = 32;
        if (k > 1) {
            a.tokenizer = blob.data;
            a.tokenizer_bytes = blob.size;
        }
        if (k == 2) /* a token of the vocabulary is spelled otherwise */
            ((char *)memmem(blob.data, blob.size, "xyz", 3))[2] = '%';
        fake_artifact_write(&a, draft_path);
        ir_arena_destroy(arena);
        mcc_artifact_options open = {.struct_size = sizeof open, .flags = MCC_OPEN_INSPECT};
        mcc_error error = {.struct_size = sizeof error};
        mcc_status status =
            mcc_artifact_open(draft_path, k == 3 ? &open : NULL, &draft_model, &error);
        ck_assert_msg(status == MCC_OK, "%s", error.text);
        mcc_engine *engine;
        mcc_engine_options options = {.struct_size = sizeof options, .draft = draft_model};
        status = mcc_engine_create(model, &options, &engine, &error);
        ck_assert_int_eq(status, k == 3 ? MCC_UNSUPPORTED : MCC_INVALID_ARGUMENT);
        ck_assert_msg(strstr(error.text, said[k]), "%s", error.text);
        close_draft();
    }
}
END_TEST

START_TEST(bad_options) {
    static const mcc_engine_options bad[] = {{.prompt_lookup_max = 65},
                                             {.prompt_lookup_min = -1},
                                             {.prompt_lookup_min = 5, .prompt_lookup_max = 4},
                                             {.prompt_lookup_min = 17}};
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine *engine;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mcc_engine_options options = bad[i];
        options.struct_size = sizeof options;
        ck_assert_int_eq(mcc_engine_create(model, &options, &engine, &error), MCC_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(error.text, "prompt_lookup_min"));
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine draft");
    TCase *t = tcase_create("engine draft");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_perfect_draft_is_kept);
    tcase_add_test(t, penalties_hold_for_each_draft);
    tcase_add_test(t, the_same_tokens_as_without);
    tcase_add_test(t, cancelled_and_reset);
    tcase_add_test(t, other_vocabularies);
    tcase_add_test(t, bad_options);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

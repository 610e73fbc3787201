/* The engine on a made-up model: chunks, threads, ragged steps, cache reuse, waiting. What a
 * request may ask for and gets back is in test_engine_requests.c. */
#include "engine_case.h"

START_TEST(greedy_for_any_chunk_and_threads) {
    static const int32_t chunks[] = {1, 2, 7, 16, 100, 400};
    static const int64_t lengths[] = {1, 15, 16, 17, 33, 300};
    for (int32_t threads = 1; threads <= 3; threads += 2) {
        mcc_engine *engine = make_engine(
            (mcc_engine_options){.max_num_batched_tokens = chunks[_i], .threads = threads});
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
            fill_prompt(lengths[l], 5);
            static result r;
            generate(engine,
                     (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_NO_CACHE,
                                          .prompt_ids = prompt,
                                          .n_prompt_ids = lengths[l],
                                          .max_tokens = 24},
                     &r);
            ck_assert_int_eq(r.n, 24);
            ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_LENGTH);
            ck_assert_int_eq(r.last.cached_tokens, 0);
            check_greedy(prompt, lengths[l], &r);
        }
        mcc_engine_destroy(engine);
    }
}
END_TEST

START_TEST(long_generation_slides_the_window) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    fill_prompt(3, 9);
    uint64_t id = submit(engine, (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                                      .prompt_ids = prompt,
                                                      .n_prompt_ids = 3});
    uint64_t most = 0;
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    for (int32_t unfinished = 1; unfinished > 0;) {
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
        ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
        most = stats.kv_bytes_used > most ? stats.kv_bytes_used : most;
    }
    memset(&r, 0, sizeof r);
    take_events(engine, id, &r);
    ck_assert_int_eq(r.n, FAKE_MAX_LEN - 3); /* up to the model's length */
    check_greedy(prompt, 3, &r);
    /* Full pages for all positions, but only some for the window. */
    ck_assert_uint_ge(most, 2 * 75 * FAKE_LAYER_BYTES);
    ck_assert_uint_lt(most, (2 * 75 + 50) * FAKE_LAYER_BYTES);
    ck_assert_uint_eq(stats.kv_bytes_used, 0);
    ck_assert_uint_eq(stats.generated_tokens, FAKE_MAX_LEN - 3);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(common_beginnings_are_reused) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    int32_t conversation[1000];
    int64_t n = 20;
    fill_prompt(1000, 3);
    memcpy(conversation, prompt, sizeof conversation);
    for (int turn = 0; turn < 4; turn++) {
        generate(engine,
                 (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                      .prompt_ids = conversation,
                                      .n_prompt_ids = n,
                                      .max_tokens = 30},
                 &r);
        check_greedy(conversation, n, &r);
        /* All whole pages but what is new; of the turn before, the last token was never computed.
         */
        ck_assert_int_eq(r.last.cached_tokens, turn == 0 ? 0 : (n - 10 - 1) / 16 * 16);
        memcpy(conversation + n, r.ids, 30 * sizeof *r.ids);
        n += 30 + 10;
    }
    /* The same prompt again: all whole pages are there. */
    generate(engine,
             (mcc_request_params){.prompt_ids = conversation, .n_prompt_ids = 50, .max_tokens = 1},
             &r);
    ck_assert_int_eq(r.last.cached_tokens, 48);
    check_greedy(conversation, 50, &r);
    /* Another in the middle. */
    conversation[33] = conversation[33] == 5 ? 6 : 5;
    generate(engine,
             (mcc_request_params){.prompt_ids = conversation, .n_prompt_ids = 50, .max_tokens = 2},
             &r);
    ck_assert_int_eq(r.last.cached_tokens, 32);
    check_greedy(conversation, 50, &r);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(too_far_back_for_the_window) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    fill_prompt(1100, 3);
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 1100,
                                 .max_tokens = 2};
    generate(engine, params, &r);
    params.n_prompt_ids = 300; /* the window's pages from there are gone: computed again */
    generate(engine, params, &r);
    ck_assert_int_eq(r.last.cached_tokens, 0);
    check_greedy(prompt, 300, &r);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(requests_wait_in_line) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r[3];
    uint64_t ids[3];
    fill_prompt(40, 8);
    for (int i = 0; i < 3; i++)
        ids[i] = submit(engine, (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                                     .prompt_ids = prompt + i,
                                                     .n_prompt_ids = 10 + i,
                                                     .max_tokens = 5});
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    mcc_engine_step(engine, NULL, NULL);
    mcc_engine_get_stats(engine, &stats, NULL);
    ck_assert_int_eq(stats.requests_running, 1);
    ck_assert_int_eq(stats.requests_waiting, 2);
    ck_assert_int_eq(mcc_request_cancel(engine, ids[1], NULL), MCC_OK);
    finish(engine, ids[2], &r[2]);
    memset(r, 0, 2 * sizeof *r);
    take_events(engine, ids[0], &r[0]);
    take_events(engine, ids[1], &r[1]);
    check_greedy(prompt, 10, &r[0]);
    check_greedy(prompt + 2, 12, &r[2]);
    ck_assert_int_eq(r[0].n, 5);
    ck_assert_int_eq(r[1].n, 0);
    ck_assert_int_eq(r[1].last.finish_reason, MCC_FINISH_CANCELLED);
    mcc_event event = {.struct_size = sizeof event};
    ck_assert_int_eq(mcc_engine_poll(engine, ids[0], &event, NULL), MCC_NOT_FOUND);
    int32_t unfinished = 7;
    ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
    ck_assert_int_eq(unfinished, 0);
    submit(engine, (mcc_request_params){.prompt_ids = prompt, .n_prompt_ids = 3});
    mcc_engine_step(engine, NULL, NULL);
    mcc_engine_destroy(engine); /* with a request at work */
}
END_TEST

/* --- evaluation ----------------------------------------------------------------------------------
 */

enum { SEQS = 5, STEP_TOKENS = 64 };

START_TEST(ragged_steps) {
    mcc_engine *engine = make_engine((mcc_engine_options){
        .threads = 2, .max_eval_seqs = SEQS, .max_num_batched_tokens = STEP_TOKENS});
    static int32_t held[SEQS][FAKE_MAX_LEN];
    int64_t lengths[SEQS] = {0};
    uint32_t random = 99;
    for (int round = 0; round < 150; round++) {
        int32_t ids[STEP_TOKENS], positions[STEP_TOKENS], sequences[STEP_TOKENS];
        int32_t rows[STEP_TOKENS];
        mcc_eval_step step = {.struct_size = sizeof step,
                              .token_ids = ids,
                              .positions = positions,
                              .sequences = sequences,
                              .output_rows = rows};
        /* Some of the sequences, in some order, each with one or several tokens; now and then one
         * is taken back a little. */
        uint32_t turn = fake_mix(random, (uint32_t)round);
        for (int i = 0; i < SEQS; i++) {
            uint32_t dice = fake_mix(turn, (uint32_t)i);
            int s = (int)((turn + (uint32_t)i * 2) % SEQS);
            int n = dice % 4 == 0 ? 0 : dice % 4 == 1 ? 1 : (int)(dice >> 8) % 13;
            if (lengths[s] + n > FAKE_MAX_LEN)
                lengths[s] = 0;
            if (dice % 32 == 5 && lengths[s] > 6)
                lengths[s] -= 1 + (int)(dice >> 20) % 5;
            for (int k = 0; k < n && step.n_tokens < STEP_TOKENS; k++) {
                int32_t t = step.n_tokens++;
                ids[t] = (int32_t)(fake_mix(dice, (uint32_t)k) % FAKE_VOCAB);
                positions[t] = (int32_t)lengths[s];
                sequences[t] = s;
                held[s][lengths[s]++] = ids[t];
                if (fake_mix(dice, 1000u + (uint32_t)k) % 3 == 0)
                    rows[step.n_rows++] = t;
            }
        }
        if (step.n_tokens == 0)
            continue;
        mcc_error error = {.struct_size = sizeof error};
        mcc_status status = mcc_engine_eval(engine, &step, &error);
        ck_assert_msg(status == MCC_OK, "%s", error.text);
        ck_assert((step.logits != NULL) == (step.n_rows > 0));
        for (int32_t r = 0; r < step.n_rows; r++)
            for (int32_t v = 0; v < FAKE_VOCAB; v += 9)
                ck_assert_float_eq(step.logits[r * FAKE_VOCAB + v],
                                   fake_logit(held[sequences[rows[r]]], positions[rows[r]] + 1, v));
    }
    ck_assert_int_eq(mcc_engine_reset(engine, NULL), MCC_OK);
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    mcc_engine_get_stats(engine, &stats, NULL);
    ck_assert_uint_eq(stats.kv_bytes_used, 0);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(bad_steps_are_refused) {
    mcc_engine *engine = make_engine(
        (mcc_engine_options){.threads = 1, .max_eval_seqs = 2, .max_num_batched_tokens = 8});
    static const struct {
        int32_t n_tokens, n_rows, ids[8], positions[8], sequences[8], rows[8];
    } bad[] = {
        {.n_tokens = 0},
        {.n_tokens = 9},
        {.n_tokens = 1, .n_rows = 2},
        {.n_tokens = 1, .n_rows = -1},
        {.n_tokens = 1, .positions = {1}},
        {.n_tokens = 1, .positions = {-1}},
        {.n_tokens = 2, .positions = {0, 2}},
        {.n_tokens = 1, .sequences = {2}},
        {.n_tokens = 1, .sequences = {-1}},
        {.n_tokens = 3, .sequences = {0, 1, 0}, .positions = {0, 0, 1}},
        {.n_tokens = 1, .ids = {FAKE_VOCAB}},
        {.n_tokens = 1, .ids = {-1}},
        {.n_tokens = 2, .n_rows = 2, .positions = {0, 1}, .rows = {1, 1}},
        {.n_tokens = 2, .n_rows = 1, .positions = {0, 1}, .rows = {2}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mcc_eval_step step = {.struct_size = sizeof step,
                              .n_tokens = bad[i].n_tokens,
                              .n_rows = bad[i].n_rows,
                              .token_ids = bad[i].ids,
                              .positions = bad[i].positions,
                              .sequences = bad[i].sequences,
                              .output_rows = bad[i].rows};
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_int_eq(mcc_engine_eval(engine, &step, &error), MCC_INVALID_ARGUMENT);
        ck_assert_uint_gt(strlen(error.text), 10);
    }
    uint64_t id = submit(engine, (mcc_request_params){.prompt_ids = bad[0].ids, .n_prompt_ids = 1});
    int32_t zero[1] = {0};
    mcc_eval_step step = {.struct_size = sizeof step,
                          .n_tokens = 1,
                          .token_ids = zero,
                          .positions = zero,
                          .sequences = zero};
    ck_assert_int_eq(mcc_engine_eval(engine, &step, NULL), MCC_INVALID_ARGUMENT);
    ck_assert_int_eq(mcc_engine_reset(engine, NULL), MCC_INVALID_ARGUMENT);
    mcc_request_cancel(engine, id, NULL);
    ck_assert_int_eq(mcc_engine_eval(engine, &step, NULL), MCC_OK);
    mcc_engine_destroy(engine);
}
END_TEST

/* --- devices and pools ---------------------------------------------------------------------------
 */

START_TEST(null_device_makes_tokens) {
    mcc_engine *engine =
        make_engine((mcc_engine_options){.threads = 1, .flags = MCC_ENGINE_NULL_DEVICE});
    static result r;
    fill_prompt(200, 1);
    generate(engine,
             (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                  .prompt_ids = prompt,
                                  .n_prompt_ids = 200,
                                  .max_tokens = 100},
             &r);
    ck_assert_int_eq(r.n, 100);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(r.ids[i], 0);
    mcc_engine_destroy(engine);
}
END_TEST

/* Each launch of a step is timed, those of later steps anew; results are as always. */
START_TEST(launches_are_timed) {
    mcc_engine *engine = make_engine((mcc_engine_options){
        .threads = 2, .flags = MCC_ENGINE_TIMINGS, .max_num_batched_tokens = 4});
    double seconds[16];
    int32_t n = 0;
    fill_prompt(9, 3);
    static result r;
    generate(engine,
             (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                  .prompt_ids = prompt,
                                  .n_prompt_ids = 9,
                                  .max_tokens = 3},
             &r);
    check_greedy(prompt, 9, &r);
    ck_assert_int_eq(mcc_engine_launch_seconds(engine, NULL, 0, &n, NULL), MCC_BUFFER_TOO_SMALL);
    ck_assert_int_eq(n, 3);
    ck_assert_int_eq(mcc_engine_launch_seconds(engine, seconds, n, &n, NULL), MCC_OK);
    for (int32_t i = 0; i < n; i++)
        ck_assert(seconds[i] > 0 && seconds[i] < 10);
    ck_assert_int_eq(mcc_engine_launch_seconds(engine, seconds, n, NULL, NULL),
                     MCC_INVALID_ARGUMENT);
    mcc_engine_destroy(engine);
    engine = make_engine((mcc_engine_options){.threads = 1});
    ck_assert_int_eq(mcc_engine_launch_seconds(engine, seconds, n, &n, NULL), MCC_UNSUPPORTED);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(engines_share_a_pool) {
    mcc_pool *pool;
    ck_assert_int_eq(mcc_pool_create(2, &pool, NULL), MCC_OK);
    mcc_engine *a = make_engine((mcc_engine_options){.pool = pool});
    mcc_engine *b = make_engine((mcc_engine_options){.pool = pool, .max_num_batched_tokens = 5});
    static result r;
    fill_prompt(30, 2);
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 30,
                                 .max_tokens = 10};
    uint64_t other = submit(b, params);
    generate(a, params, &r);
    check_greedy(prompt, 30, &r);
    finish(b, other, &r);
    check_greedy(prompt, 30, &r);
    mcc_engine_destroy(a);
    mcc_engine_destroy(b);
    mcc_pool_destroy(pool);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine");
    TCase *t = tcase_create("with text");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, greedy_for_any_chunk_and_threads, 0, 6);
    tcase_add_test(t, long_generation_slides_the_window);
    tcase_add_test(t, common_beginnings_are_reused);
    tcase_add_test(t, too_far_back_for_the_window);
    tcase_add_test(t, requests_wait_in_line);
    tcase_add_test(t, ragged_steps);
    tcase_add_test(t, bad_steps_are_refused);
    tcase_add_test(t, null_device_makes_tokens);
    tcase_add_test(t, launches_are_timed);
    tcase_add_test(t, engines_share_a_pool);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

/* Many requests at once, on a made-up model: each gets what it gets alone, whatever runs beside it,
 * is cached, preempted or computed in chunks; samples that share a prompt; priorities, deadlines, a
 * full queue; and several threads. */
#include "engine_case.h"
#include "runtime/cpu.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

enum { MANY = 32, MOST_TOKENS = 200 };

typedef struct job {
    int32_t ids[FAKE_MAX_LEN];
    mcc_request_params params;
    result alone;
} job;

static job *jobs; /* [MANY] */

/* Prompts with common beginnings, short and long ones; greedy and sampled, in many ways. */
static void make_jobs(uint32_t seed) {
    static const int32_t bias_ids[] = {11, 5};
    static const float bias[] = {3, -2};
    jobs = calloc(MANY, sizeof *jobs);
    ck_assert_ptr_nonnull(jobs);
    for (uint32_t i = 0; i < MANY; i++) {
        job *j = &jobs[i];
        uint32_t dice = fake_mix(seed, i);
        int64_t n = fill_mixed_prompt(j->ids, i, dice);
        j->params = (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS |
                                                  (i % 5 == 1 ? MCC_REQUEST_LOGPROBS : 0) |
                                                  (i % 7 == 3 ? MCC_REQUEST_NO_CACHE : 0),
                                         .prompt_ids = j->ids,
                                         .n_prompt_ids = n,
                                         .max_tokens = 1 + (dice >> 4) % MOST_TOKENS,
                                         .temperature = i % 2 ? 20 : 0,
                                         .repetition_penalty = i % 6 == 2 ? 1.3f : 0,
                                         .presence_penalty = i % 9 == 4 ? 0.7f : 0,
                                         .typical_p = i % 8 == 7 ? 0.6f : 0,
                                         .top_logprobs = i % 10 == 6 ? 4 : 0,
                                         .logit_bias_ids = bias_ids,
                                         .logit_bias = bias,
                                         .n_logit_bias = i % 12 == 9 ? 2 : 0,
                                         .seed = dice,
                                         .cache_salt = i % 11 == 5,
                                         .num_speculative_tokens = i % 3 ? 1 + (int32_t)i % 7 : 0};
    }
}

/* Runs all of them, submitted a few at a time, on an engine; returns its statistics. */
static mcc_engine_stats run_together(mcc_engine_options options, int at_a_time, const char *how) {
    options.flags = MCC_ENGINE_DRAFT_ALWAYS;
    mcc_engine *engine = make_engine(options);
    uint64_t ids[MANY];
    static result r;
    int32_t unfinished = 0;
    for (int i = 0; i < MANY || unfinished > 0;) {
        for (int k = 0; k < at_a_time && i < MANY; k++, i++)
            ids[i] = submit(engine, jobs[i].params);
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_msg(!mcc_engine_step(engine, &unfinished, &error), "%s: %s", how, error.text);
    }
    for (int i = 0; i < MANY; i++) {
        memset(&r, 0, sizeof r);
        take_events(engine, ids[i], &r);
        check_same(&r, &jobs[i].alone, how, i);
    }
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
    ck_assert_uint_eq(stats.kv_bytes_used, 0);
    ck_assert_int_eq(stats.requests_running + stats.requests_waiting, 0);
    mcc_engine_destroy(engine);
    return stats;
}

START_TEST(alone_or_among_others) {
    make_jobs(case_seed());
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    uint64_t tokens = 0;
    for (int i = 0; i < MANY; i++) {
        mcc_request_params p = jobs[i].params;
        p.flags |= MCC_REQUEST_NO_CACHE;
        p.num_speculative_tokens = 0;
        generate(engine, p, &jobs[i].alone);
        if (p.temperature == 0 && p.repetition_penalty == 0 && p.presence_penalty == 0 &&
            p.n_logit_bias == 0)
            check_greedy(jobs[i].ids, p.n_prompt_ids, &jobs[i].alone);
        tokens += (uint64_t)p.n_prompt_ids;
    }
    mcc_engine_destroy(engine);
    mcc_engine_stats s =
        run_together((mcc_engine_options){.threads = 2, .max_num_seqs = MANY}, MANY, "all at once");
    ck_assert_int_eq(s.max_num_seqs, MANY);
    ck_assert_uint_eq(s.preemptions, 0);
    ck_assert_uint_eq(s.prefill_tokens + s.cached_tokens, tokens);
    ck_assert_uint_gt(s.draft_tokens, 0); /* nearly all of them wrong */
    ck_assert_uint_lt(s.steps, tokens / 128 + 2 * MOST_TOKENS);
    s = run_together((mcc_engine_options){.threads = 1, .max_num_seqs = MANY}, 1, "one by one");
    ck_assert_uint_gt(s.cached_tokens, 0);
    static const int32_t chunks[] = {8, 17, 64, 1000};
    for (int c = 0; c < 4; c++)
        run_together((mcc_engine_options){.threads = 1,
                                          .max_num_seqs = 8,
                                          .max_num_batched_tokens = chunks[c]},
                     3, "in chunks");
    /* Pages for one sequence of full length, which none reaches: many must wait, and some step
     * back. */
    s = run_together((mcc_engine_options){.threads = 1,
                                          .max_num_seqs = MANY,
                                          .max_model_len = 600,
                                          .kv_cache_memory_bytes = 130 * FAKE_LAYER_BYTES},
                     MANY, "with little memory");
    ck_assert_uint_gt(s.preemptions, 0);
    free(jobs);
}
END_TEST

START_TEST(samples_share_the_prompt) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_num_seqs = 4});
    static result alone[6], r;
    fill_prompt(100, 4);
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 100,
                                 .max_tokens = 30,
                                 .temperature = 20,
                                 .seed = 70};
    for (int i = 0; i < 6; i++, params.seed++)
        generate(engine, params, &alone[i]);
    ck_assert_int_eq(mcc_engine_reset(engine, NULL), MCC_OK);
    mcc_engine_stats before = {.struct_size = sizeof before}, after = before;
    mcc_engine_get_stats(engine, &before, NULL);
    params.seed = 70;
    params.n = 6;
    uint64_t id = submit(engine, params);
    for (int32_t unfinished = 1; unfinished > 0;)
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
    for (int i = 0; i < 6; i++) {
        memset(&r, 0, sizeof r);
        take_events(engine, id + (uint64_t)i, &r);
        check_same(&r, &alone[i], "one of six samples", i);
        ck_assert_int_eq(r.last.cached_tokens, i == 0 ? 0 : i < 4 ? 99 : 96);
    }
    mcc_engine_get_stats(engine, &after, NULL);
    ck_assert_uint_eq(after.prefill_tokens - before.prefill_tokens, 100 + 3 + 2 * 4);
    mcc_engine_destroy(engine);
}
END_TEST

/* --- order, deadlines, limits --------------------------------------------------------------------
 */

START_TEST(urgent_requests_go_first) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    fill_prompt(10, 1);
    mcc_request_params params = {
        .flags = MCC_REQUEST_IGNORE_EOS, .prompt_ids = prompt, .n_prompt_ids = 10, .max_tokens = 2};
    static const int32_t priorities[] = {0, 5, -3, 0, -4};
    static const uint64_t order[] = {5, 3, 1, 4, 2}; /* ids */
    for (int i = 0; i < 5; i++) {
        params.priority = priorities[i];
        submit(engine, params);
    }
    for (int i = 0; i < 5; i++) {
        mcc_event event = {.struct_size = sizeof event};
        while (event.kind != MCC_EVENT_FINISHED) {
            ck_assert_int_eq(mcc_engine_next_event(engine, &event, NULL), MCC_OK);
            if (event.kind == MCC_EVENT_NONE) {
                ck_assert_uint_eq(event.request, 0);
                mcc_engine_step(engine, NULL, NULL);
            } else {
                ck_assert_uint_eq(event.request, order[i]);
            }
        }
    }
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(deadlines_end_requests) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_num_seqs = 2});
    fill_prompt(10, 1);
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 10,
                                 .deadline_seconds = 1e-9};
    uint64_t late = submit(engine, params);
    params.deadline_seconds = 0.05;
    uint64_t running = submit(engine, params);
    params.deadline_seconds = 1000;
    params.max_tokens = 3;
    uint64_t good = submit(engine, params);
    static result r;
    finish(engine, late, &r);
    ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_DEADLINE);
    ck_assert_int_eq(r.n, 0);
    finish(engine, good, &r);
    ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_LENGTH);
    usleep(60000);
    finish(engine, running, &r);
    ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_DEADLINE);
    ck_assert_int_ge(r.n, 3);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(a_full_queue_refuses) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_num_waiting = 3});
    mcc_request_params params = {
        .struct_size = sizeof params, .prompt = "ab", .max_tokens = 1, .n = 2};
    mcc_error error = {.struct_size = sizeof error};
    uint64_t id, other = 77;
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, &error), MCC_OK);
    ck_assert_int_eq(mcc_request_submit(engine, &params, &other, &error), MCC_CAPACITY);
    ck_assert_ptr_nonnull(strstr(error.text, "max_num_waiting is 3"));
    ck_assert_uint_eq(other, 77);
    params.n = 1;
    ck_assert_int_eq(mcc_request_submit(engine, &params, &other, &error), MCC_OK);
    static result r;
    finish(engine, id, &r);
    ck_assert_int_eq(mcc_request_submit(engine, &params, &other, &error), MCC_OK);
    mcc_engine_destroy(engine);
}
END_TEST

/* Evaluation's sequences make room for requests, and the other way round. */
START_TEST(requests_and_evaluation) {
    mcc_engine *engine = make_engine((mcc_engine_options){
        .threads = 1, .max_num_seqs = 2, .max_eval_seqs = 4, .max_model_len = 64});
    int32_t ids[4] = {5, 6, 7, 8}, zeros[4] = {0}, sequences[4] = {0, 1, 2, 3};
    static result r;
    fill_prompt(60, 2);
    for (int round = 0; round < 3; round++) {
        mcc_eval_step step = {.struct_size = sizeof step,
                              .n_tokens = 4,
                              .token_ids = ids,
                              .positions = zeros,
                              .sequences = sequences};
        ck_assert_int_eq(mcc_engine_eval(engine, &step, NULL), MCC_OK);
        mcc_request_params params = {.prompt_ids = prompt, .n_prompt_ids = 60, .max_tokens = 4};
        uint64_t a = submit(engine, params), b = submit(engine, params);
        ck_assert_int_eq(mcc_engine_eval(engine, &step, NULL), MCC_INVALID_ARGUMENT);
        finish(engine, a, &r);
        check_greedy(prompt, 60, &r);
        finish(engine, b, &r);
        check_greedy(prompt, 60, &r);
        int32_t ones[4] = {1, 1, 1, 1};
        step.positions = ones; /* what they held is gone */
        ck_assert_int_eq(mcc_engine_eval(engine, &step, NULL), MCC_INVALID_ARGUMENT);
    }
    mcc_engine_destroy(engine);
}
END_TEST

/* What the default of kv_cache_memory_bytes is half of. */
START_TEST(memory_that_a_cgroup_allows) {
    static const struct {
        const char *file, *text;
        uint64_t bytes; /* 0: the machine's */
    } cases[] = {{"memory.max", "1048576\n", 1 << 20},
                 {"memory.max", "max\n", 0},
                 {"memory.max", "", 0},
                 {"memory/memory.limit_in_bytes", "2097152\n", 2 << 20},
                 {"memory/memory.limit_in_bytes", "9223372036854771712\n", 0}};
    char folder[] = "/tmp/mcc-cgroup-XXXXXX", file[128];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    uint64_t machine = rt_cpu_usable_memory(folder);
    ck_assert_uint_gt(machine, 2 << 20);
    snprintf(file, sizeof file, "%s/memory", folder);
    ck_assert_int_eq(mkdir(file, 0700), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(file, sizeof file, "%s/%s", folder, cases[i].file);
        FILE *f = fopen(file, "w");
        ck_assert_ptr_nonnull(f);
        fputs(cases[i].text, f);
        fclose(f);
        ck_assert_uint_eq(rt_cpu_usable_memory(folder), cases[i].bytes ? cases[i].bytes : machine);
        unlink(file);
    }
    snprintf(file, sizeof file, "%s/memory", folder);
    rmdir(file);
    rmdir(folder);
}
END_TEST

/* --- threads -------------------------------------------------------------------------------------
 */

enum { CLIENTS = 3 };

typedef struct server {
    mcc_engine *engine;
    uint32_t each; /* requests of a client: in full runs 10,000 in all */
    atomic_int clients, finished, refused;
} server;

/* Submits, sometimes cancels, looks at the statistics. */
static void *client(void *context) {
    server *s = context;
    uint32_t me = (uint32_t)atomic_fetch_sub(&s->clients, 1);
    int32_t ids[200];
    for (uint32_t i = 0; i < s->each; i++) {
        uint32_t dice = fake_mix(me, i);
        int64_t n = 1 + dice % 200;
        for (int64_t k = 0; k < n; k++)
            ids[k] = (int32_t)(3 + fake_mix(dice % 2, (uint32_t)k) % (FAKE_VOCAB - 3));
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt_ids = ids,
                                     .n_prompt_ids = n,
                                     .max_tokens = 1 + (dice >> 8) % 20,
                                     .n = 1 + (dice >> 16) % 2,
                                     .deadline_seconds = (dice >> 20) % 8 == 0 ? 0.001 : 0};
        uint64_t id;
        mcc_status status;
        while ((status = mcc_request_submit(s->engine, &params, &id, NULL)) == MCC_CAPACITY) {
            atomic_fetch_add(&s->refused, 1);
            usleep(200);
        }
        if (status != MCC_OK)
            abort();
        if ((dice >> 24) % 8 == 0)
            mcc_request_cancel(s->engine, id, NULL); /* it may have been polled to its end */
        mcc_engine_stats stats = {.struct_size = sizeof stats};
        if (mcc_engine_get_stats(s->engine, &stats, NULL) || stats.requests_running > 8)
            abort();
        atomic_fetch_sub(&s->finished, params.n);
    }
    return NULL;
}

static void *stepper(void *context) {
    server *s = context;
    int32_t unfinished = 0;
    while (atomic_load(&s->clients) > -100)
        if (mcc_engine_step(s->engine, &unfinished, NULL))
            abort();
        else if (unfinished == 0)
            usleep(100);
    return NULL;
}

START_TEST(threads_submit_step_and_poll) {
    server s = {
        .engine = make_engine((mcc_engine_options){.threads = 2,
                                                   .max_num_seqs = 8,
                                                   .max_num_waiting = 20,
                                                   .max_num_batched_tokens = 64,
                                                   .max_model_len = 300,
                                                   .kv_cache_memory_bytes = 80 * FAKE_LAYER_BYTES}),
        .each = test_full() ? 3400 : 60,
        .clients = CLIENTS};
    pthread_t threads[CLIENTS + 1];
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, client, &s), 0);
    ck_assert_int_eq(pthread_create(&threads[CLIENTS], NULL, stepper, &s), 0);
    /* Every request ends once, with as many tokens as it says. */
    int reasons[6] = {0};
    int64_t tokens = 0;
    int ended = 0;
    bool all = false;
    while (!all || atomic_load(&s.finished) != -ended) {
        mcc_event event = {.struct_size = sizeof event};
        ck_assert_int_eq(mcc_engine_next_event(s.engine, &event, NULL), MCC_OK);
        tokens += event.kind == MCC_EVENT_TOKEN;
        if (event.kind == MCC_EVENT_FINISHED) {
            reasons[event.finish_reason]++;
            tokens -= event.completion_tokens;
            ended++;
        }
        if (event.kind == MCC_EVENT_NONE && !all && atomic_load(&s.clients) == 0) {
            for (int i = 0; i < CLIENTS; i++)
                pthread_join(threads[i], NULL);
            all = true;
        } else if (event.kind == MCC_EVENT_NONE) {
            usleep(50);
        }
    }
    atomic_store(&s.clients, -100);
    pthread_join(threads[CLIENTS], NULL);
    ck_assert_int_ge(ended, CLIENTS * (int)s.each);
    ck_assert_int_eq(tokens, 0);
    ck_assert_int_gt(reasons[MCC_FINISH_LENGTH], ended / 2);
    ck_assert_int_gt(reasons[MCC_FINISH_CANCELLED] + reasons[MCC_FINISH_DEADLINE], 0);
    ck_assert_int_eq(reasons[MCC_FINISH_ERROR], 0);
    mcc_engine_destroy(s.engine);
}
END_TEST

/* A system prompt of 1,000 tokens before each of many requests is computed for the first of them
 * alone, though all come at once: what the steps computed for prompts is counted. */
START_TEST(a_system_prompt_costs_its_prefill_once) {
    enum { SYSTEM = 1000, OWN = 20, N = 12, TOKENS = 5 };
    mcc_engine *engine = make_engine(
        (mcc_engine_options){.threads = 1, .max_num_seqs = 8, .max_num_batched_tokens = 256});
    static int32_t prompts[N][SYSTEM + OWN];
    static result r;
    uint64_t ids[N];
    for (int i = 0; i < N; i++) {
        fill_prompt(SYSTEM, 1);
        memcpy(prompts[i], prompt, SYSTEM * sizeof *prompt);
        fill_prompt(OWN, 2 + (uint32_t)i);
        memcpy(prompts[i] + SYSTEM, prompt, OWN * sizeof *prompt);
        ids[i] = submit(engine, (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                                     .prompt_ids = prompts[i],
                                                     .n_prompt_ids = SYSTEM + OWN,
                                                     .max_tokens = TOKENS});
    }
    for (int32_t unfinished = 1; unfinished;)
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
    /* Whole pages are shared: the rest of the last one is each request's own. */
    int64_t shared = SYSTEM / FAKE_PAGE * FAKE_PAGE, rest = SYSTEM + OWN - shared;
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
    ck_assert_uint_eq(stats.prefill_tokens, (uint64_t)(shared + N * rest));
    ck_assert_uint_eq(stats.cached_tokens, (uint64_t)((N - 1) * shared));
    for (int i = 0; i < N; i++) {
        memset(&r, 0, sizeof r);
        take_events(engine, ids[i], &r);
        ck_assert_int_eq(r.n, TOKENS);
        ck_assert_int_eq(r.last.cached_tokens, i ? shared : 0);
        check_greedy(prompts[i], SYSTEM + OWN, &r);
    }
    mcc_engine_destroy(engine);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine batch");
    TCase *t = tcase_create("engine batch");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, alone_or_among_others);
    tcase_add_test(t, samples_share_the_prompt);
    tcase_add_test(t, urgent_requests_go_first);
    tcase_add_test(t, deadlines_end_requests);
    tcase_add_test(t, a_full_queue_refuses);
    tcase_add_test(t, requests_and_evaluation);
    tcase_add_test(t, memory_that_a_cgroup_allows);
    tcase_add_test(t, threads_submit_step_and_poll);
    tcase_add_test(t, a_system_prompt_costs_its_prefill_once);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

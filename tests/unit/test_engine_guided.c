/* Requests with grammars beside all else that the engine does, on a CPU, on a GPU that samples with
 * masks of tokens, and on one that gives logits: the tokens are those that the model's logits and
 * the grammar give alone, in batches with requests without one, in chunks, with several samples of
 * a prompt, with drafts, and preempted. */
#include "engine_case.h"
#include "fixture/fake_cuda.h"
#include "guided_case.h"

enum { JOBS = 30, MAX_SAMPLES = 3, MOST_TOKENS = 130 };

typedef struct job {
    mcc_request_params params;
    int32_t ids[100];
    int grammar; /* -1: none */
    int n;       /* samples */
    int32_t out[MAX_SAMPLES][MOST_TOKENS];
    int64_t n_out[MAX_SAMPLES];
    int32_t reason[MAX_SAMPLES];
} job;

static job jobs[JOBS];
static int preempted; /* jobs with grammars, of the last run */
static fake_cuda_state *driver;

/* Requests of all kinds; what the GPU does not sample, those that want the likeliest tokens, too.
 */
static void make_jobs(uint32_t seed) {
    for (int i = 0; i < JOBS; i++) {
        job *j = &jobs[i];
        uint32_t dice = fake_mix(seed, (uint32_t)i);
        memset(j, 0, sizeof *j);
        j->grammar = i % (GUIDED + 1) - 1;
        j->n = dice >> 8 & 7 ? 1 : MAX_SAMPLES;
        j->params = (mcc_request_params){
            .flags = (dice >> 4 & 1 ? MCC_REQUEST_IGNORE_EOS : 0) |
                     (dice >> 5 & 1 ? MCC_REQUEST_LOGPROBS : 0),
            .prompt_ids = j->ids,
            .n_prompt_ids = fill_mixed_prompt(j->ids, 2 * (uint32_t)i + 1, dice),
            .max_tokens = j->grammar == 1 || j->grammar == 4 ? MOST_TOKENS : 1 + (dice >> 12) % 90,
            .temperature = i % 3 == 2 ? 4 : 0,
            .top_k = i % 2 ? 6 : 0,
            .seed = dice >> 20,
            .n = j->n,
            .top_logprobs = (dice >> 5 & 7) == 7 ? 2 : 0,
            .num_speculative_tokens = j->grammar == 1 || (dice >> 17 & 1) ? 7 : 0,
        };
        if (j->grammar >= 0)
            set_grammar(&j->params, j->grammar);
        for (int k = 0; k < j->n; k++)
            j->n_out[k] = guided_output(&j->params, j->grammar, j->params.seed + (uint64_t)k,
                                        j->out[k], &j->reason[k]);
    }
}

static void check_job(mcc_engine *engine, const job *j, uint64_t id, const char *how) {
    static result r;
    for (int k = 0; k < j->n; k++) {
        memset(&r, 0, sizeof r);
        take_events(engine, id + (uint64_t)k, &r);
        ck_assert_msg(r.n == j->n_out[k] &&
                          memcmp(r.ids, j->out[k], (size_t)r.n * sizeof *r.ids) == 0,
                      "%s: request %d, grammar %d, sample %d got other tokens: %d and %d", how,
                      (int)(j - jobs), j->grammar, k, (int)r.n, (int)j->n_out[k]);
        ck_assert_msg(r.last.finish_reason == j->reason[k], "%s: request %d ended by %d, not %d",
                      how, (int)(j - jobs), r.last.finish_reason, j->reason[k]);
        preempted += r.last.preemptions > 0 && j->grammar >= 0;
    }
}

/* All jobs, so many handed in before each step. */
static mcc_engine_stats run_jobs(mcc_engine_options options, int at_a_time, const char *how) {
    options.device = driver ? "emulator" : "cpu";
    options.threads = driver ? 0 : 2;
    mcc_engine *engine = make_engine(options);
    uint64_t ids[JOBS];
    int32_t unfinished = 0;
    preempted = 0;
    for (int i = 0; i < JOBS || unfinished > 0;) {
        for (int k = 0; k < at_a_time && i < JOBS; k++, i++)
            ids[i] = submit(engine, jobs[i].params);
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_msg(!mcc_engine_step(engine, &unfinished, &error), "%s: %s", how, error.text);
    }
    for (int i = 0; i < JOBS; i++)
        check_job(engine, &jobs[i], ids[i], how);
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
    ck_assert_uint_eq(stats.kv_bytes_used, 0);
    mcc_engine_destroy(engine);
    ck_assert_msg(!driver || driver->bad_calls == 0, "%s", driver->bad_call);
    return stats;
}

static void begin_with(guided_device device, uint32_t last_weight) {
    driver = device == GUIDED_CPU ? NULL : fake_cuda_load();
    ck_assert(device == GUIDED_CPU || driver);
    open_guided(device, last_weight);
}

static void begin(guided_device device) {
    begin_with(device, 0);
}

START_TEST(the_same_tokens_as_alone) {
    begin((guided_device)_i);
    for (uint32_t round = 0; round < (test_full() ? 10 : 1); round++) {
        make_jobs(case_seed() + 1000 * round);
        mcc_engine_options options = {.max_num_seqs = JOBS, .max_num_waiting = 100};
        mcc_engine_stats s = run_jobs(options, JOBS, "all at once");
        ck_assert_uint_eq(s.preemptions, 0);
        run_jobs((mcc_engine_options){0}, 1, "one by one");
        options.max_num_seqs = 6;
        options.max_num_batched_tokens = 11;
        run_jobs(options, 3, "in chunks");
        options = (mcc_engine_options){
            .max_num_seqs = JOBS, .max_num_waiting = 100, .flags = MCC_ENGINE_DRAFT_ALWAYS};
        s = run_jobs(options, JOBS, "with drafts");
        ck_assert_uint_gt(s.draft_tokens, 100);
        /* The text that repeats itself proves some of them right. */
        ck_assert_uint_gt(s.accepted_tokens, s.draft_tokens / 20);
        options.max_model_len = 230;
        options.kv_cache_memory_bytes = 48 * FAKE_LAYER_BYTES;
        options.preemption_mode = MCC_PREEMPT_RECOMPUTE;
        s = run_jobs(options, JOBS, "computed again");
        ck_assert_int_gt(preempted, 0);
        ck_assert_uint_eq(s.swaps, 0);
        options.preemption_mode = MCC_PREEMPT_SWAP;
        options.swap_space_bytes = 1 << 18;
        s = run_jobs(options, JOBS, "swapped");
        ck_assert_int_gt(preempted, 0);
        ck_assert_uint_eq(s.swaps, s.preemptions);
    }
    close_guided();
}
END_TEST

/* What comes back from a GPU that samples is a choice for each row and no logits, in decode steps
 * that are graphs, too; with more rows than there is room for masks, logits. */
START_TEST(masks_go_to_the_gpu) {
    enum { MOST = 280 };
    begin(GUIDED_GPU);
    int64_t tokens = 0;
    int32_t reason, out[MOST];
    static result r;
    fill_prompt(30, case_seed());
    mcc_request_params params = {.prompt_ids = prompt,
                                 .n_prompt_ids = 30,
                                 .flags = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_LOGPROBS,
                                 .max_tokens = 60,
                                 .temperature = 1};
    mcc_engine *engine = make_engine((mcc_engine_options){.device = "emulator"});
    mcc_engine_stats s = {.struct_size = sizeof s};
    for (int i = 0; i < GUIDED; i++) {
        mcc_request_params p = params;
        set_grammar(&p, i);
        generate(engine, p, &r);
        tokens += r.n;
        ck_assert_int_eq(r.n, guided_output(&p, i, 0, out, &reason));
        ck_assert_mem_eq(r.ids, out, (size_t)r.n * sizeof *out);
        ck_assert_float_lt(r.logprob_sum, 0);
        mcc_engine_get_stats(engine, &s, NULL);
        ck_assert_uint_eq(s.results_bytes, (uint64_t)tokens * sizeof(mcc_step_sampled));
        ck_assert_uint_eq(s.last_launches, 4);
    }
    ck_assert_uint_eq(s.graph_launches, s.steps - GUIDED); /* all but the prompts' */
    ck_assert_int_eq(driver->captures, 1);
    /* Requests without grammars have another graph. */
    generate(engine, params, &r);
    ck_assert_int_eq(driver->captures, 2);
    mcc_engine_destroy(engine);

    engine = make_engine((mcc_engine_options){.device = "emulator",
                                              .flags = MCC_ENGINE_DRAFT_ALWAYS,
                                              .max_num_seqs = 2,
                                              .max_num_batched_tokens = 200});
    params.num_speculative_tokens = 64;
    params.max_tokens = MOST;
    params.flags = MCC_REQUEST_IGNORE_EOS;
    params.temperature = 0;
    params.guided_regex = "(xyzab,!qr){100}";
    uint64_t ids[2];
    for (int i = 0; i < 2; i++)
        ids[i] = submit(engine, params);
    uint64_t most_rows = 0, most_masked = 0;
    for (int32_t unfinished = 1; unfinished > 0;) {
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
        mcc_engine_get_stats(engine, &s, NULL);
        uint64_t row = sizeof(mcc_step_sampled), with = row + 4 * FAKE_VOCAB;
        uint64_t bytes = s.last_results_bytes;
        bool logits = bytes > 66 * row;
        ck_assert_uint_eq(bytes % (logits ? with : row), 0);
        if (logits && bytes / with > most_rows)
            most_rows = bytes / with;
        if (!logits && bytes / row > most_masked)
            most_masked = bytes / row;
    }
    ck_assert_uint_gt(most_rows, 66);
    ck_assert_uint_gt(most_masked, 10);
    static result both[2];
    for (int i = 0; i < 2; i++) {
        memset(&both[i], 0, sizeof both[i]);
        take_events(engine, ids[i], &both[i]);
        ck_assert(strncmp(both[i].text, "xyzab,!qrxyzab,!qr", 18) == 0);
    }
    check_same(&both[0], &both[1], "with long drafts", 1);
    mcc_engine_destroy(engine);
    params.num_speculative_tokens = 0;
    engine = make_engine((mcc_engine_options){.device = "emulator"});
    generate(engine, params, &r);
    check_same(&r, &both[0], "without drafts", 0);
    mcc_engine_destroy(engine);
    close_guided();
}
END_TEST

/* A grammar that leads to where no token goes on, or only one whose logit is no number: its request
 * ends with the reason, the others of the step do not notice. */
static void check_dead_end(const char *regex, const char *reason_text) {
    mcc_engine *engine = make_engine((mcc_engine_options){
        .device = driver ? "emulator" : "cpu", .threads = driver ? 0 : 1, .max_num_seqs = 2});
    static result r;
    int32_t reason, out[MOST_TOKENS];
    fill_prompt(20, case_seed());
    mcc_request_params params = {
        .prompt_ids = prompt, .n_prompt_ids = 20, .max_tokens = 20, .guided_regex = regex};
    uint64_t dead = submit(engine, params);
    params.guided_regex = NULL;
    set_grammar(&params, 4);
    uint64_t other = submit(engine, params);
    int failures = 0;
    for (int32_t unfinished = 1; unfinished > 0;) {
        mcc_error error = {.struct_size = sizeof error};
        if (mcc_engine_step(engine, &unfinished, &error) != MCC_OK) {
            failures++;
            ck_assert_msg(strstr(error.text, reason_text) != NULL, "%s", error.text);
        }
    }
    ck_assert_int_eq(failures, 1);
    memset(&r, 0, sizeof r);
    take_events(engine, dead, &r);
    ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_ERROR);
    ck_assert(r.text_bytes == 3 && strspn(r.text, "abc") == 3);
    memset(&r, 0, sizeof r);
    take_events(engine, other, &r);
    ck_assert_int_eq(r.n, guided_output(&params, 4, 0, out, &reason));
    ck_assert_mem_eq(r.ids, out, (size_t)r.n * sizeof *out);
    mcc_engine_destroy(engine);
}

START_TEST(dead_ends) {
    begin_with((guided_device)_i, FAKE_NAN_WEIGHT); /* of "!" */
    check_dead_end("[a-c]{3}\xc3\xa9", ": no token of the vocabulary can come next");
    check_dead_end("[a-c]{3}!", ": the logits of all tokens that the grammar allows are NaN");
    close_guided();
}
END_TEST

/* A device that runs nothing has logits of 0: the first token that the grammar allows. */
START_TEST(null_device) {
    begin((guided_device)_i);
    mcc_engine *engine = make_engine((mcc_engine_options){.device = driver ? "emulator" : "cpu",
                                                          .threads = driver ? 0 : 1,
                                                          .flags = MCC_ENGINE_NULL_DEVICE});
    static result r;
    generate(engine,
             (mcc_request_params){.prompt_ids = prompt,
                                  .n_prompt_ids = 5,
                                  .max_tokens = 9,
                                  .guided_regex = "d*[x-z]{2}c"},
             &r);
    ck_assert_str_eq(r.text, "ddddddddd");
    mcc_engine_destroy(engine);
    close_guided();
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine_guided");
    TCase *t = tcase_create("engine_guided");
    tcase_set_timeout(t, 1800);
    tcase_add_loop_test(t, the_same_tokens_as_alone, GUIDED_CPU, GUIDED_GPU_LOGITS + 1);
    tcase_add_test(t, masks_go_to_the_gpu);
    tcase_add_loop_test(t, dead_ends, GUIDED_CPU, GUIDED_GPU_LOGITS + 1);
    tcase_add_loop_test(t, null_device, GUIDED_CPU, GUIDED_GPU_LOGITS + 1);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

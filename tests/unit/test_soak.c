/* Endurance: several threads hand in requests of all kinds, with grammars and without, cancel some
 * of them, give them deadlines that cannot be met and prompts that do not fit, over a KV cache that
 * is too small for those that run; on the CPU, and on made-up GPUs that fail now and then, which
 * sample or do not. Every request ends, with a reason; no token is lost or comes twice, and what
 * has not ended early is what the model would say to it alone. For sanitizers; 300 requests each,
 * and 10,000 when MCC_TEST_FULL is 1. */
#include "engine_case.h"
#include "fixture/fake_cuda.h"
#include "guided_case.h"

#include "runtime/cuda_api.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum {
    THREADS = 3,
    MAX_PROMPT = 220,
    MAX_TOKENS = 60,
    MAX_SAMPLES = 3,
    SEQS = 6,
    WAITING = 24,
    REASONS = 6
};

/* What was asked for by one submission; the samples' events come to the stepping thread. */
typedef struct job {
    int32_t prompt[MAX_PROMPT];
    int64_t n_prompt, max_tokens;
    int n; /* samples */
    bool greedy;
    int grammar; /* -1: none */
    uint64_t seed;
    _Atomic uint64_t id; /* of the first sample, when it is known to the thread that submitted */
    /* The stepping thread's: */
    uint64_t ids[MAX_SAMPLES]; /* of the samples that it has met */
    int32_t tokens[MAX_SAMPLES][MAX_TOKENS];
    int64_t n_tokens[MAX_SAMPLES];
    bool finished[MAX_SAMPLES], complete[MAX_SAMPLES]; /* by max_tokens, or by itself */
} job;

typedef struct soak {
    mcc_engine *engine;
    int per_thread;
    job *jobs; /* [THREADS * per_thread] */
    uint64_t seed;
    atomic_int submitted, samples, oversize, threads_done;
    /* The stepping thread's: */
    int64_t reasons[REASONS], finished, preempted, guided, guided_preempted;
} soak;

typedef struct submitter {
    soak *s;
    int thread;
} submitter;

static uint32_t below(uint64_t *state, uint32_t n) {
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % n);
}

/* --- the threads that submit ---------------------------------------------------------------------
 */

static void make_job(job *j, uint64_t *state) {
    uint32_t family = below(state, 4), common = 16 * below(state, 8);
    j->n_prompt = 1 + below(state, below(state, 4) == 0 ? MAX_PROMPT : 60);
    j->max_tokens = 1 + below(state, MAX_TOKENS);
    j->n = below(state, 8) == 0 ? MAX_SAMPLES : 1;
    j->greedy = below(state, 3) > 0;
    j->grammar = below(state, 3) ? -1 : (int)below(state, GUIDED);
    j->seed = below(state, 100);
    for (int64_t i = 0; i < j->n_prompt; i++)
        j->prompt[i] = i < common ? (int32_t)((family * 5 + (uint32_t)i) % FAKE_VOCAB)
                                  : (int32_t)below(state, FAKE_VOCAB);
}

static void pause_a_little(void) {
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* False where it was refused for its length. */
static bool submit_job(soak *s, job *j, uint64_t *state) {
    static const int32_t too_long[FAKE_MAX_LEN];
    bool oversize = below(state, 20) == 0;
    mcc_request_params params = {.struct_size = sizeof params,
                                 .flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = oversize ? too_long : j->prompt,
                                 .n_prompt_ids = oversize ? FAKE_MAX_LEN : j->n_prompt,
                                 .max_tokens = j->max_tokens,
                                 .temperature = j->greedy ? 0 : 0.9f,
                                 .seed = j->seed,
                                 .n = j->n,
                                 .priority = (int32_t)below(state, 3) - 1,
                                 .cache_salt = below(state, 5) == 0,
                                 .num_speculative_tokens = below(state, 3) == 0 ? 4 : 0,
                                 .deadline_seconds =
                                     below(state, 8) ? 0 : 1e-6 * below(state, 20000),
                                 .user_data = j};
    if (j->grammar >= 0)
        set_grammar(&params, j->grammar);
    for (;;) {
        uint64_t id;
        mcc_error error = {.struct_size = sizeof error};
        mcc_status status = mcc_request_submit(s->engine, &params, &id, &error);
        if (status == MCC_OK) {
            ck_assert(!oversize);
            atomic_fetch_add(&s->samples, j->n);
            atomic_store(&j->id, id);
            return true;
        }
        ck_assert_msg(status == MCC_CAPACITY, "%s", error.text);
        if (oversize) {
            ck_assert_ptr_nonnull(strstr(error.text, "the prompt has 1200 tokens"));
            atomic_fetch_add(&s->oversize, 1);
            return false;
        }
        pause_a_little(); /* the queue is full */
    }
}

static void *submit_many(void *context) {
    const submitter *from = context;
    soak *s = from->s;
    uint64_t state = s->seed * 10 + (uint64_t)from->thread;
    job *jobs = s->jobs + from->thread * s->per_thread;
    for (int i = 0; i < s->per_thread; i++) {
        make_job(&jobs[i], &state);
        submit_job(s, &jobs[i], &state);
        atomic_fetch_add(&s->submitted, 1);
        uint64_t other = atomic_load(&jobs[below(&state, (uint32_t)i + 1)].id);
        if (other && below(&state, 3) == 0) {
            mcc_status status = mcc_request_cancel(s->engine, other, NULL);
            ck_assert(status == MCC_OK || status == MCC_NOT_FOUND);
        }
    }
    atomic_fetch_add(&s->threads_done, 1);
    return NULL;
}

/* --- the thread that steps -----------------------------------------------------------------------
 */

static int sample_of(job *j, uint64_t request) {
    int k = 0;
    while (k < j->n && j->ids[k] && j->ids[k] != request)
        k++;
    ck_assert_int_lt(k, j->n);
    j->ids[k] = request;
    return k;
}

/* What was sampled is right, whatever ended it; after all. */
static void check_tokens(const job *j, int k) {
    static int32_t out[MAX_TOKENS];
    int32_t reason;
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = j->prompt,
                                 .n_prompt_ids = j->n_prompt,
                                 .max_tokens = j->complete[k] ? j->max_tokens : j->n_tokens[k],
                                 .temperature = j->greedy ? 0 : 0.9f};
    int64_t n =
        guided_output(&params, j->grammar, j->seed + (uint64_t)(j->ids[k] - j->id), out, &reason);
    ck_assert_int_eq(n, j->n_tokens[k]);
    ck_assert_mem_eq(out, j->tokens[k], (size_t)n * sizeof *out);
}

static void receive(void *context, const mcc_event *event) {
    soak *s = context;
    job *j = event->user_data;
    int k = sample_of(j, event->request);
    ck_assert(!j->finished[k]);
    if (event->kind == MCC_EVENT_TOKEN) {
        ck_assert_int_lt(j->n_tokens[k], j->max_tokens);
        j->tokens[k][j->n_tokens[k]++] = event->token_id;
        return;
    }
    ck_assert_int_eq(event->kind, MCC_EVENT_FINISHED);
    ck_assert(event->finish_reason > MCC_FINISH_NONE && event->finish_reason < REASONS);
    ck_assert_int_eq(event->completion_tokens, j->n_tokens[k]);
    ck_assert_int_eq(event->prompt_tokens, j->n_prompt);
    bool length = event->finish_reason == MCC_FINISH_LENGTH;
    bool stop = event->finish_reason == MCC_FINISH_STOP;
    ck_assert(!length || j->n_tokens[k] == j->max_tokens);
    ck_assert(!stop || j->grammar >= 0);
    j->complete[k] = length || stop;
    s->guided += j->grammar >= 0;
    s->guided_preempted += j->grammar >= 0 && event->preemptions > 0;
    j->finished[k] = true;
    s->finished++;
    s->preempted += event->preemptions;
    s->reasons[event->finish_reason]++;
}

/* Steps until all is done; `driver` is made to fail now and then. Returns how often. */
static int step_to_the_end(soak *s, fake_cuda_state *driver) {
    int failures = 0;
    uint64_t state = s->seed;
    bool all = false; /* have been submitted, before the step */
    for (int32_t unfinished = 1; unfinished || !all;) {
        all = atomic_load(&s->threads_done) == THREADS;
        if (driver && driver->fail_in == 0 && below(&state, 40) == 0) {
            driver->fail_in = 1 + below(&state, 30);
            driver->fail_with = CUDA_ERROR_ILLEGAL_ADDRESS;
        }
        mcc_error error = {.struct_size = sizeof error};
        mcc_status status = mcc_engine_step(s->engine, &unfinished, &error);
        ck_assert_msg(status == MCC_OK || (driver && status == MCC_DEVICE_FAILED), "%s",
                      error.text);
        failures += status != MCC_OK;
        if (!unfinished)
            pause_a_little();
    }
    return failures;
}

static int run(mcc_engine_options options, fake_cuda_state *driver) {
    const char *seed = getenv("MCC_TEST_SEED");
    soak s = {.per_thread = (test_full() ? 10000 : 300) / THREADS,
              .seed = seed ? strtoull(seed, NULL, 10) : 1};
    s.jobs = calloc((size_t)(THREADS * s.per_thread), sizeof *s.jobs);
    ck_assert_ptr_nonnull(s.jobs);
    options.max_num_seqs = SEQS;
    options.max_num_waiting = WAITING;
    options.max_num_batched_tokens = 40;
    options.max_model_len = MAX_PROMPT + MAX_TOKENS;
    /* A little more than one sequence of full length: three layers, of which one has a window. */
    options.kv_cache_memory_bytes = 3 * 22 * FAKE_LAYER_BYTES;
    options.on_event = receive;
    options.on_event_context = &s;
    s.engine = make_engine(options);
    pthread_t threads[THREADS];
    submitter submitters[THREADS];
    for (int i = 0; i < THREADS; i++) {
        submitters[i] = (submitter){&s, i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, submit_many, &submitters[i]), 0);
    }
    int failures = step_to_the_end(&s, driver);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS * s.per_thread; i++)
        for (int k = 0; k < s.jobs[i].n && s.jobs[i].ids[k]; k++)
            check_tokens(&s.jobs[i], k);
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(s.engine, &stats, NULL), MCC_OK);
    ck_assert_int_eq(s.finished, atomic_load(&s.samples));
    ck_assert_int_eq(stats.requests_running + stats.requests_waiting, 0);
    ck_assert_uint_eq(stats.kv_bytes_used, 0);
    ck_assert_int_gt(s.preempted, 0);
    ck_assert_int_gt(s.guided, s.per_thread / 2);
    ck_assert(s.guided_preempted > 0 || !test_full()); /* a few of each hundred */
    ck_assert_int_gt(s.reasons[MCC_FINISH_STOP], 0);
    ck_assert(stats.swaps <= stats.preemptions);
    ck_assert(options.preemption_mode != MCC_PREEMPT_SWAP || stats.swaps > 0);
    ck_assert_int_gt(s.reasons[MCC_FINISH_LENGTH], s.per_thread);
    ck_assert_int_gt(s.reasons[MCC_FINISH_CANCELLED], 0);
    ck_assert_int_gt(s.reasons[MCC_FINISH_DEADLINE], 0);
    ck_assert_int_gt(atomic_load(&s.oversize), 0);
    ck_assert_int_eq(s.reasons[MCC_FINISH_ERROR] > 0, failures > 0);
    mcc_engine_destroy(s.engine);
    free(s.jobs);
    return failures;
}

START_TEST(on_the_cpu) {
    open_guided(GUIDED_CPU, 0);
    ck_assert_int_eq(run((mcc_engine_options){.device = "cpu", .threads = 2}, NULL), 0);
    ck_assert_int_eq(run((mcc_engine_options){.device = "cpu",
                                              .threads = 2,
                                              .swap_space_bytes = 1 << 18,
                                              .preemption_mode = MCC_PREEMPT_SWAP},
                         NULL),
                     0);
    close_guided();
}
END_TEST

/* Nothing is left over. */
static void check_driver(const fake_cuda_state *driver) {
    ck_assert_msg(driver->bad_calls == 0, "%s", driver->bad_call);
    ck_assert_int_eq(driver->contexts, 0);
    ck_assert_int_eq(driver->pinned, 0);
    ck_assert_uint_eq(driver->used, 0);
}

START_TEST(on_a_gpu_that_fails) {
    fake_cuda_state *driver = fake_cuda_load();
    ck_assert_ptr_nonnull(driver);
    open_guided(_i == 0 ? GUIDED_GPU : GUIDED_GPU_LOGITS, 0);
    int failures = run((mcc_engine_options){.device = "emulator",
                                            .swap_space_bytes = 1 << 16,
                                            .preemption_mode = MCC_PREEMPT_SWAP},
                       driver);
    ck_assert_int_gt(failures, 3);
    check_driver(driver);
    close_guided();
}
END_TEST

/* Requests that grow beyond the cache: the pages of those that are preempted go to pinned memory
 * and come back, so that no prompt is computed twice; or never go there. */
START_TEST(preemption_by_swap) {
    enum { N = 4, PROMPT = 60, TOKENS = 200 };
    mcc_engine_options options = {.max_num_seqs = N,
                                  .max_num_batched_tokens = 32,
                                  .max_model_len = PROMPT + TOKENS,
                                  .kv_cache_memory_bytes = 2 * 3 * 22 * FAKE_LAYER_BYTES,
                                  .swap_space_bytes = 1 << 20,
                                  .device = "emulator"};
    mcc_engine *engine;
    fake_cuda_state *driver = fake_cuda_load();
    ck_assert_ptr_nonnull(driver);
    open_guided(GUIDED_GPU, 0);
    for (int mode = MCC_PREEMPT_AUTO; mode <= MCC_PREEMPT_SWAP; mode++) {
        static int32_t ids[N][PROMPT + TOKENS];
        int64_t n[N];
        int preemptions = 0;
        options.preemption_mode = mode;
        engine = make_engine(options);
        int pinned = driver->pinned;
        for (int i = 0; i < N; i++) {
            uint64_t id;
            fill_prompt(PROMPT, (uint32_t)i + 1);
            memcpy(ids[i], prompt, PROMPT * sizeof *prompt);
            n[i] = PROMPT;
            mcc_request_params params = {.struct_size = sizeof params,
                                         .flags = MCC_REQUEST_IGNORE_EOS,
                                         .prompt_ids = prompt,
                                         .n_prompt_ids = PROMPT,
                                         .max_tokens = TOKENS};
            ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
        }
        for (int32_t unfinished = 1; unfinished;) {
            mcc_event event = {.struct_size = sizeof event};
            ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
            while (!mcc_engine_next_event(engine, &event, NULL) && event.kind != MCC_EVENT_NONE) {
                int r = (int)event.request - 1;
                preemptions += event.preemptions;
                if (event.kind == MCC_EVENT_TOKEN) {
                    ck_assert_int_eq(event.token_id, fake_next(ids[r], n[r]));
                    ids[r][n[r]++] = event.token_id;
                }
            }
        }
        mcc_engine_stats s = {.struct_size = sizeof s};
        ck_assert_int_eq(mcc_engine_get_stats(engine, &s, NULL), MCC_OK);
        ck_assert_int_gt(preemptions, 0);
        ck_assert_uint_eq(s.preemptions, (uint64_t)preemptions);
        if (mode == MCC_PREEMPT_SWAP) {
            ck_assert_uint_eq(s.swaps, s.preemptions);
            ck_assert_uint_eq(s.prefill_tokens, N * PROMPT);
        } else if (mode == MCC_PREEMPT_RECOMPUTE) {
            ck_assert_uint_eq(s.swaps, 0);
            ck_assert_uint_gt(s.prefill_tokens, N * PROMPT);
        }
        ck_assert_int_eq(driver->pinned, pinned);
        mcc_engine_destroy(engine);
        check_driver(driver);
    }
    options.struct_size = sizeof options;
    options.swap_space_bytes = 0;
    ck_assert_int_eq(mcc_engine_create(model, &options, &engine, NULL), MCC_INVALID_ARGUMENT);
    options.preemption_mode = 3;
    ck_assert_int_eq(mcc_engine_create(model, &options, &engine, NULL), MCC_INVALID_ARGUMENT);
    close_guided();
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("soak");
    TCase *t = tcase_create("soak");
    tcase_set_timeout(t, 1800);
    tcase_add_test(t, on_the_cpu);
    tcase_add_loop_test(t, on_a_gpu_that_fails, 0, 2);
    tcase_add_test(t, preemption_by_swap);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

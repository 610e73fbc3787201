/* Events by callback, and draining: what an engine promises to servers. */
#include "engine_case.h"

#include <pthread.h>
#include <stdatomic.h>

enum { REQUESTS = 6, TOKENS = 12 };

/* --- by callback ---------------------------------------------------------------------------------
 */

typedef struct receiver {
    mcc_engine *engine;
    result results[2 * REQUESTS];
    int n_finished, n_submitted; /* results before n_submitted are of requests that exist */
    bool submits;                /* one more request when one ends, until all of `results` are */
    pthread_t thread;
} receiver;

static void submit_to(receiver *to) {
    result *r = &to->results[to->n_submitted++];
    memset(r, 0, sizeof *r);
    fill_prompt(10 + to->n_submitted, (uint32_t)to->n_submitted);
    submit(to->engine, (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                            .prompt_ids = prompt,
                                            .n_prompt_ids = 10 + to->n_submitted,
                                            .max_tokens = TOKENS,
                                            .user_data = r});
}

static void receive(void *context, const mcc_event *event) {
    receiver *to = context;
    result *r = event->user_data;
    ck_assert(pthread_equal(pthread_self(), to->thread));
    ck_assert_uint_eq(event->struct_size, sizeof *event);
    ck_assert_int_eq(r->last.kind, MCC_EVENT_NONE);
    ck_assert_uint_eq(strlen(event->text), event->text_bytes);
    memcpy(r->text + r->text_bytes, event->text, event->text_bytes + 1);
    r->text_bytes += event->text_bytes;
    /* The engine is not locked. */
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(to->engine, &stats, NULL), MCC_OK);
    if (event->kind == MCC_EVENT_TOKEN) {
        r->ids[r->n++] = event->token_id;
        return;
    }
    ck_assert_int_eq(event->kind, MCC_EVENT_FINISHED);
    r->last = *event;
    to->n_finished++;
    if (to->submits && to->n_submitted < 2 * REQUESTS)
        submit_to(to);
}

static void step_to_the_end(mcc_engine *engine) {
    for (int32_t unfinished = 1; unfinished;)
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
}

/* The same as by polling; requests made by the callback are seen by the step that called it. */
START_TEST(events_come_by_callback) {
    static receiver to;
    to = (receiver){.submits = true, .thread = pthread_self()};
    to.engine = make_engine((mcc_engine_options){.threads = 1,
                                                 .max_num_seqs = 4,
                                                 .max_num_batched_tokens = 16,
                                                 .on_event = receive,
                                                 .on_event_context = &to});
    for (int i = 0; i < REQUESTS; i++)
        submit_to(&to);
    step_to_the_end(to.engine);
    ck_assert_int_eq(to.n_finished, 2 * REQUESTS);
    mcc_engine *other = make_engine((mcc_engine_options){.threads = 1});
    for (int i = 0; i < 2 * REQUESTS; i++) {
        static result polled;
        const result *r = &to.results[i];
        fill_prompt(11 + i, (uint32_t)i + 1);
        generate(other,
                 (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                      .prompt_ids = prompt,
                                      .n_prompt_ids = 11 + i,
                                      .max_tokens = TOKENS},
                 &polled);
        ck_assert_int_eq(r->n, TOKENS);
        ck_assert_int_eq(r->last.finish_reason, MCC_FINISH_LENGTH);
        ck_assert_int_eq(r->last.prompt_tokens, 11 + i);
        ck_assert_int_eq(memcmp(r->ids, polled.ids, TOKENS * sizeof *r->ids), 0);
        ck_assert_str_eq(r->text, polled.text);
    }
    mcc_engine_destroy(other);
    mcc_engine_destroy(to.engine);
}
END_TEST

/* With a callback nothing is polled; a request that is cancelled between steps is reported by the
 * next one. */
START_TEST(either_callback_or_poll) {
    static receiver to;
    to = (receiver){.thread = pthread_self()};
    to.engine = make_engine(
        (mcc_engine_options){.threads = 1, .on_event = receive, .on_event_context = &to});
    mcc_event event = {.struct_size = sizeof event};
    ck_assert_int_eq(mcc_engine_next_event(to.engine, &event, NULL), MCC_INVALID_ARGUMENT);
    submit_to(&to);
    ck_assert_int_eq(mcc_engine_poll(to.engine, 1, &event, NULL), MCC_INVALID_ARGUMENT);
    ck_assert_int_eq(mcc_request_cancel(to.engine, 1, NULL), MCC_OK);
    ck_assert_int_eq(to.n_finished, 0);
    ck_assert_int_eq(mcc_engine_step(to.engine, NULL, NULL), MCC_OK);
    ck_assert_int_eq(to.n_finished, 1);
    ck_assert_int_eq(to.results[0].last.finish_reason, MCC_FINISH_CANCELLED);
    mcc_engine_destroy(to.engine);
}
END_TEST

/* --- draining ------------------------------------------------------------------------------------
 */

static void is_refused(mcc_engine *engine) {
    uint64_t id;
    mcc_error error = {.struct_size = sizeof error};
    mcc_request_params params = {.struct_size = sizeof params, .prompt = "a"};
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, &error), MCC_DRAINING);
    ck_assert_ptr_nonnull(strstr(error.text, "takes no more requests"));
}

/* What is there goes on to its end, also what waits. */
START_TEST(draining_finishes_what_is_there) {
    static result r[3];
    uint64_t ids[3];
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_num_seqs = 2});
    fill_prompt(20, 3);
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 20,
                                 .max_tokens = TOKENS};
    for (int i = 0; i < 3; i++)
        ids[i] = submit(engine, params);
    ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
    ck_assert_int_eq(mcc_engine_drain(engine, -1, NULL), MCC_INVALID_ARGUMENT);
    ck_assert_int_eq(mcc_engine_drain(engine, 0, NULL), MCC_OK);
    is_refused(engine);
    step_to_the_end(engine);
    is_refused(engine);
    for (int i = 0; i < 3; i++) {
        memset(&r[i], 0, sizeof r[i]);
        take_events(engine, ids[i], &r[i]);
        ck_assert_int_eq(r[i].n, TOKENS);
        ck_assert_int_eq(r[i].last.finish_reason, MCC_FINISH_LENGTH);
        check_greedy(prompt, 20, &r[i]);
    }
    mcc_engine_destroy(engine);
}
END_TEST

/* … but not beyond the time: one that has a nearer deadline of its own keeps it. */
START_TEST(draining_has_a_deadline) {
    static result r[3];
    uint64_t ids[3];
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_num_seqs = 2});
    fill_prompt(20, 3);
    for (int i = 0; i < 3; i++)
        ids[i] = submit(engine,
                        (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_NO_CACHE,
                                             .prompt_ids = prompt,
                                             .n_prompt_ids = 20,
                                             .deadline_seconds = i == 1 ? 1e-9 : 0});
    ck_assert_int_eq(mcc_engine_drain(engine, 3600, NULL), MCC_OK);
    int32_t unfinished;
    ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
    ck_assert_int_eq(unfinished, 2);
    ck_assert_int_eq(mcc_engine_drain(engine, 1e-9, NULL), MCC_OK);
    ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
    ck_assert_int_eq(unfinished, 0);
    for (int i = 0; i < 3; i++) {
        memset(&r[i], 0, sizeof r[i]);
        take_events(engine, ids[i], &r[i]);
        ck_assert_int_eq(r[i].last.finish_reason, MCC_FINISH_DEADLINE);
        ck_assert_int_eq(r[i].n, i != 1);
    }
    mcc_engine_destroy(engine);
}
END_TEST

static atomic_int taken;

/* Submits until it is refused. */
static void *submit_without_end(void *engine) {
    for (;;) {
        uint64_t id;
        int32_t token = 5;
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt_ids = &token,
                                     .n_prompt_ids = 1,
                                     .max_tokens = 3};
        mcc_status status = mcc_request_submit(engine, &params, &id, NULL);
        if (status == MCC_DRAINING)
            return NULL;
        ck_assert(status == MCC_OK || status == MCC_CAPACITY);
        taken += status == MCC_OK;
        if (taken > 40)
            ck_assert_int_eq(mcc_engine_drain(engine, 0, NULL), MCC_OK);
    }
}

static void count_finished(void *context, const mcc_event *event) {
    *(int *)context += event->kind == MCC_EVENT_FINISHED;
}

/* Requests come and the drain begins in other threads than the one that steps. */
START_TEST(draining_from_another_thread) {
    int finished = 0;
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1,
                                                          .max_num_seqs = 3,
                                                          .max_num_waiting = 8,
                                                          .on_event = count_finished,
                                                          .on_event_context = &finished});
    pthread_t threads[2];
    taken = 0;
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, submit_without_end, engine), 0);
    while (taken <= 40)
        ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    step_to_the_end(engine);
    ck_assert_int_eq(finished, taken);
    mcc_engine_destroy(engine);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine events");
    TCase *t = tcase_create("engine events");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, events_come_by_callback);
    tcase_add_test(t, either_callback_or_poll);
    tcase_add_test(t, draining_finishes_what_is_there);
    tcase_add_test(t, draining_has_a_deadline);
    tcase_add_test(t, draining_from_another_thread);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

/* Embeddings, on the made-up model with its logits taken for hidden rows: the right rows, the same
 * bits alone, among others, in chunks and from the cache; and batches that wait for more. */
#include "engine_case.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { MANY = 12 };

static bool mean, infinite;

/* The model, with another name for its output. */
static void open_embedder(void) {
    static fake_artifact a;
    memset(&a, 0, sizeof a);
    fake_tables_init(&a.tables);
    a.tables.outputs[0].name = fake_string(&a.tables, mean ? "embedding_mean" : "embedding_last");
    a.last_weight = infinite ? FAKE_INFINITE_WEIGHT : 0;
    fake_artifact_write(&a, path);
    mcc_error error = {.struct_size = sizeof error};
    mcc_status status = mcc_artifact_open(path, NULL, &model, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    mcc_artifact_info info = {.struct_size = sizeof info};
    ck_assert_int_eq(mcc_artifact_get_info(model, &info, NULL), MCC_OK);
    ck_assert_int_eq(info.embedding_size, FAKE_VOCAB);
    ck_assert_str_eq(info.pooling, mean ? "mean" : "last");
}

static void setup_last(void) {
    open_embedder();
}

static void setup_infinite(void) {
    infinite = true;
    mean = false;
    open_embedder();
}

static void setup_mean(void) {
    mean = true;
    open_embedder();
}

/* Texts of different lengths, some of which begin alike. */
static int32_t texts[MANY][FAKE_MAX_LEN];
static int64_t lengths[MANY];

static void make_texts(void) {
    for (uint32_t i = 0; i < MANY; i++) {
        lengths[i] = i == 0 ? 1 : i == 1 ? FAKE_MAX_LEN : 1 + fake_mix(3, i) % 300;
        for (uint32_t k = 0; k < lengths[i]; k++)
            texts[i][k] = (int32_t)(fake_mix(k < 40 ? i % 2 : i, k) % FAKE_VOCAB);
    }
}

static void expected(int i, bool raw, float *to) {
    double sums[FAKE_VOCAB] = {0}, square = 0;
    for (int64_t n = mean ? 1 : lengths[i]; n <= lengths[i]; n++)
        for (int k = 0; k < FAKE_VOCAB; k++)
            sums[k] += (double)fake_logit(texts[i], n, k);
    for (int k = 0; k < FAKE_VOCAB; k++) {
        to[k] = (float)(mean ? sums[k] / (double)lengths[i] : sums[k]);
        square += (double)to[k] * (double)to[k];
    }
    for (int k = 0; k < FAKE_VOCAB && !raw; k++)
        to[k] = (float)((double)to[k] / sqrt(square));
}

static uint64_t submit_text(mcc_engine *engine, int i, bool raw) {
    return submit(engine, (mcc_request_params){.flags = raw ? MCC_REQUEST_RAW_EMBEDDING : 0,
                                               .prompt_ids = texts[i],
                                               .n_prompt_ids = lengths[i]});
}

static int64_t take_vector(mcc_engine *engine, uint64_t id, float *to) {
    mcc_event event = {.struct_size = sizeof event};
    ck_assert_int_eq(mcc_engine_poll(engine, id, &event, NULL), MCC_OK);
    ck_assert_int_eq(event.kind, MCC_EVENT_FINISHED);
    ck_assert_int_eq(event.finish_reason, MCC_FINISH_STOP);
    ck_assert_int_eq(event.completion_tokens, 0);
    ck_assert_int_eq(event.n_embedding, FAKE_VOCAB);
    memcpy(to, event.embedding, FAKE_VOCAB * sizeof *to);
    return event.cached_tokens;
}

static void run(mcc_engine *engine) {
    for (int32_t unfinished = 1; unfinished > 0;)
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
}

START_TEST(the_same_however_computed) {
    static const mcc_engine_options ways[] = {
        {.threads = 1},
        {.threads = 2, .max_num_seqs = MANY},
        {.threads = 1, .max_num_seqs = 4, .max_num_batched_tokens = 7},
        {.threads = 1,
         .max_num_seqs = MANY,
         .max_num_batched_tokens = 50,
         .kv_cache_memory_bytes = 280 * FAKE_LAYER_BYTES}};
    make_texts();
    for (int w = 0; w < 4; w++) {
        mcc_engine *engine = make_engine(ways[w]);
        int64_t cached = 0;
        for (int again = 0; again < 2; again++) {
            uint64_t ids[MANY];
            for (int i = 0; i < MANY; i++)
                ids[i] = submit_text(engine, i, again);
            run(engine);
            for (int i = 0; i < MANY; i++) {
                float got[FAKE_VOCAB], want[FAKE_VOCAB];
                cached += take_vector(engine, ids[i], got);
                expected(i, again, want);
                for (int k = 0; k < FAKE_VOCAB; k++)
                    ck_assert_msg(fabsf(got[k] - want[k]) <= 1e-6f * fabsf(want[k]),
                                  "way %d, text %d, column %d: %g, expected %g", w, i, k,
                                  (double)got[k], (double)want[k]);
            }
        }
        ck_assert(mean ? cached == 0 : cached > 0);
        mcc_engine_destroy(engine);
    }
}
END_TEST

static void *submit_later(void *engine) {
    submit_text(engine, 5, false);
    return NULL;
}

/* A vector with NaN or infinity is no vector: an error, whether it is to be normalized or not, of
 * that request alone. */
START_TEST(what_is_not_finite_is_an_error) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_num_seqs = 2 * MANY});
    make_texts();
    uint64_t ids[2 * MANY];
    int failed = 0, errors = 0;
    for (int i = 0; i < 2 * MANY; i++)
        ids[i] = submit_text(engine, i / 2, i % 2);
    for (int32_t unfinished = 1; unfinished > 0;) {
        mcc_error error = {.struct_size = sizeof error};
        if (!mcc_engine_step(engine, &unfinished, &error))
            continue;
        errors++;
        ck_assert_int_eq(error.code, MCC_INTERNAL);
        ck_assert_ptr_nonnull(strstr(error.text, "its embedding has NaN or infinity"));
    }
    for (int i = 0; i < 2 * MANY; i += 2) {
        mcc_event normal = {.struct_size = sizeof normal}, raw = normal;
        ck_assert_int_eq(mcc_engine_poll(engine, ids[i], &normal, NULL), MCC_OK);
        bool finite = normal.finish_reason == MCC_FINISH_STOP;
        for (int64_t k = 0; finite && k < normal.n_embedding; k++)
            ck_assert(isfinite(normal.embedding[k]));
        ck_assert_int_eq(mcc_engine_poll(engine, ids[i + 1], &raw, NULL), MCC_OK);
        for (int64_t k = 0; finite && k < raw.n_embedding; k++)
            ck_assert(isfinite(raw.embedding[k]));
        ck_assert_int_eq(normal.kind, MCC_EVENT_FINISHED);
        ck_assert_int_eq(raw.kind, MCC_EVENT_FINISHED);
        ck_assert_int_eq(raw.finish_reason, normal.finish_reason);
        ck_assert(finite || normal.finish_reason == MCC_FINISH_ERROR);
        ck_assert(finite == (normal.embedding != NULL) && finite == (raw.embedding != NULL));
        failed += !finite;
    }
    ck_assert(failed > 0 && failed < MANY && errors > 0);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(a_batch_waits_for_more) {
    make_texts();
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1,
                                                          .max_num_seqs = 2,
                                                          .max_num_batched_tokens = 2000,
                                                          .max_batch_delay_seconds = 600});
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    int32_t unfinished;
    pthread_t thread;
    submit_text(engine, 4, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, submit_later, engine), 0);
    ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(unfinished, 0);
    mcc_engine_get_stats(engine, &stats, NULL);
    ck_assert_uint_eq(stats.steps, 1);
    ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK); /* nothing to wait for */
    mcc_engine_destroy(engine);

    /* Alone it waits no longer than that. */
    engine = make_engine(
        (mcc_engine_options){.threads = 1, .max_num_seqs = 2, .max_batch_delay_seconds = 0.002});
    submit_text(engine, 4, false);
    run(engine);
    mcc_engine_destroy(engine);

    /* Nor when there is a step full of tokens, or the engine is to end. */
    engine = make_engine((mcc_engine_options){.threads = 1,
                                              .max_num_seqs = 2,
                                              .max_num_batched_tokens = 100,
                                              .max_batch_delay_seconds = 600});
    submit_text(engine, 1, false);
    run(engine);
    submit_text(engine, 0, false);
    ck_assert_int_eq(mcc_engine_drain(engine, 0, NULL), MCC_OK);
    run(engine);
    mcc_engine_destroy(engine);
}
END_TEST

static atomic_int finished;

static void count_finished(void *context, const mcc_event *event) {
    (void)context;
    ck_assert_int_eq(event->finish_reason, MCC_FINISH_CANCELLED);
    atomic_fetch_add(&finished, event->kind == MCC_EVENT_FINISHED);
}

static uint64_t both[2];

/* One after the other, each while the engine waits for more; the second only when the first one's
 * event has come. */
static void *cancel_later(void *engine) {
    const struct timespec moment = {.tv_nsec = 20000000};
    for (int i = 0; i < 2; i++) {
        nanosleep(&moment, NULL);
        mcc_request_cancel(engine, both[i], NULL);
        while (atomic_load(&finished) <= i)
            nanosleep(&moment, NULL);
    }
    return NULL;
}

START_TEST(cancelled_while_a_batch_waits) {
    make_texts();
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1,
                                                          .max_num_seqs = 3,
                                                          .max_num_batched_tokens = 2000,
                                                          .max_batch_delay_seconds = 600,
                                                          .on_event = count_finished});
    int32_t unfinished;
    pthread_t thread;
    both[0] = submit_text(engine, 4, false);
    both[1] = submit_text(engine, 5, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, cancel_later, engine), 0);
    ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(unfinished, 0);
    ck_assert_int_eq(atomic_load(&finished), 2);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(what_has_no_meaning_is_refused) {
    make_texts();
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static const char *const stop[] = {"x"};
    const struct {
        mcc_request_params params;
        const char *says;
    } cases[] = {{{.max_tokens = 1}, "max_tokens is set"},
                 {{.temperature = 1}, "temperature is set"},
                 {{.n = 2}, "n is set"},
                 {{.num_speculative_tokens = 3}, "num_speculative_tokens is set"},
                 {{.stop = stop, .n_stop = 1}, "n_stop is set"},
                 {{.flags = MCC_REQUEST_LOGPROBS}, "MCC_REQUEST_LOGPROBS is set"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mcc_request_params p = cases[i].params;
        mcc_error error = {.struct_size = sizeof error};
        uint64_t id;
        p.struct_size = sizeof p;
        p.prompt_ids = texts[3];
        p.n_prompt_ids = lengths[3];
        ck_assert_int_eq(mcc_request_submit(engine, &p, &id, &error), MCC_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(error.text, cases[i].says));
    }
    mcc_engine_destroy(engine);
    mcc_error error = {.struct_size = sizeof error};
    static const double delays[] = {-1, NAN, 1e9};
    for (int i = 0; i < 3; i++) {
        mcc_engine_options o = {.struct_size = sizeof o, .max_batch_delay_seconds = delays[i]};
        ck_assert_int_eq(mcc_engine_create(model, &o, &engine, &error), MCC_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(error.text, "max_batch_delay_seconds"));
    }
}
END_TEST

static Suite *embed_suite(void) {
    Suite *suite = suite_create("embed");
    static void (*const setups[])(void) = {setup_last, setup_mean};
    static const char *const names[] = {"last", "mean"};
    for (int i = 0; i < 2; i++) {
        TCase *c = tcase_create(names[i]);
        tcase_set_timeout(c, 60);
        tcase_add_checked_fixture(c, setups[i], teardown);
        tcase_add_test(c, the_same_however_computed);
        tcase_add_test(c, a_batch_waits_for_more);
        tcase_add_test(c, cancelled_while_a_batch_waits);
        tcase_add_test(c, what_has_no_meaning_is_refused);
        suite_add_tcase(suite, c);
    }
    TCase *c = tcase_create("not finite");
    tcase_add_checked_fixture(c, setup_infinite, teardown);
    tcase_add_test(c, what_is_not_finite_is_an_error);
    suite_add_tcase(suite, c);
    return suite;
}

CHECK_MAIN(embed_suite)

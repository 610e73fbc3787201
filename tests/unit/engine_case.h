/* For tests of the engine: the made-up model whose every logit depends on all tokens before it, and
 * requests run to their end. Included by one test file each. */
#ifndef MCC_TESTS_ENGINE_CASE_H
#define MCC_TESTS_ENGINE_CASE_H

#include "check_main.h"
#include "fixture/fake_artifact.h"
#include "fixture/fake_tokenizer.h"

#include "runtime/modelcc.h"

#include <stdbool.h>

/* --- the model -----------------------------------------------------------------------------------
 */

static char path[FAKE_PATH];
static mcc_artifact *model;

static inline void open_model(bool with_text) {
    static fake_artifact a;
    memset(&a, 0, sizeof a);
    fake_tables_init(&a.tables);
    ir_arena *arena = ir_arena_create();
    if (with_text) {
        fe_blob blob = fake_tokenizer(arena);
        a.tokenizer = blob.data;
        a.tokenizer_bytes = blob.size;
        a.chat_template = "{% for m in messages %}{{ m.role }}.{{ m.content }}!{% endfor %}"
                          "{% if add_generation_prompt %}bot.{% endif %}";
    }
    fake_artifact_write(&a, path);
    ir_arena_destroy(arena);
    mcc_error error = {.struct_size = sizeof error};
    mcc_status status = mcc_artifact_open(path, NULL, &model, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
}

static inline void setup(void) {
    open_model(true);
}

static inline void setup_without_text(void) {
    open_model(false);
}

static inline void teardown(void) {
    mcc_artifact_close(model);
    unlink(path);
}

static inline mcc_engine *make_engine(mcc_engine_options options) {
    mcc_engine *engine;
    mcc_error error = {.struct_size = sizeof error};
    options.struct_size = sizeof options;
    mcc_status status = mcc_engine_create(model, &options, &engine, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    return engine;
}

/* --- running requests ----------------------------------------------------------------------------
 */

typedef struct result {
    int32_t ids[FAKE_MAX_LEN];
    int64_t n;
    char text[8192];
    size_t text_bytes;
    mcc_event last;
    float logprob_sum; /* of the tokens, and of the most probable ones that were asked for */
} result;

static inline void take_events(mcc_engine *engine, uint64_t id, result *r) {
    mcc_event event = {.struct_size = sizeof event};
    do {
        ck_assert_int_eq(mcc_engine_poll(engine, id, &event, NULL), MCC_OK);
        ck_assert(event.text != NULL && strlen(event.text) == event.text_bytes);
        ck_assert_uint_lt(r->text_bytes + event.text_bytes, sizeof r->text);
        memcpy(r->text + r->text_bytes, event.text, event.text_bytes + 1);
        r->text_bytes += event.text_bytes;
        if (event.kind == MCC_EVENT_TOKEN) {
            r->ids[r->n++] = event.token_id;
            r->logprob_sum += event.logprob;
            for (int32_t i = 0; i < event.n_top_logprobs; i++)
                r->logprob_sum += event.top_logprobs[i].logprob;
        } else {
            ck_assert_int_eq(event.token_id, -1);
        }
    } while (event.kind == MCC_EVENT_TOKEN);
    r->last = event;
    r->last.text = NULL;
}

static inline uint64_t submit(mcc_engine *engine, mcc_request_params params) {
    uint64_t id;
    mcc_error error = {.struct_size = sizeof error};
    params.struct_size = sizeof params;
    mcc_status status = mcc_request_submit(engine, &params, &id, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    return id;
}

static inline void finish(mcc_engine *engine, uint64_t id, result *r) {
    memset(r, 0, sizeof *r);
    for (int32_t unfinished = 1; r->last.kind != MCC_EVENT_FINISHED;) {
        ck_assert_int_gt(unfinished, 0);
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
        take_events(engine, id, r);
    }
    ck_assert_int_eq(r->last.completion_tokens, r->n);
}

static inline void generate(mcc_engine *engine, mcc_request_params params, result *r) {
    finish(engine, submit(engine, params), r);
}

/* What a greedy run must give, computed without the engine. */
static inline void check_greedy(const int32_t *prompt, int64_t n_prompt, const result *r) {
    static int32_t ids[2 * FAKE_MAX_LEN];
    memcpy(ids, prompt, (size_t)n_prompt * sizeof *ids);
    for (int64_t i = 0; i < r->n; i++) {
        ck_assert_int_eq(r->ids[i], fake_next(ids, n_prompt + i));
        ids[n_prompt + i] = r->ids[i];
    }
}

/* The seed that tests draw their cases by. */
static inline uint32_t case_seed(void) {
    const char *seed = getenv("MCC_TEST_SEED");
    return seed ? (uint32_t)strtoul(seed, NULL, 10) : 1;
}

/* The prompt of request i of many: short and long ones, in three families that begin alike. `dice`
 * is the request's. Returns its length, at most 390. */
static inline int64_t fill_mixed_prompt(int32_t *ids, uint32_t i, uint32_t dice) {
    int64_t n = 1 + (dice >> 8) % (i % 8 == 0 ? 390 : 90);
    uint32_t family = i % 3, common = (dice >> 16) % 120;
    for (int64_t k = 0; k < n; k++)
        ids[k] =
            3 + (int32_t)(fake_mix(k < common ? family : 100 + i, (uint32_t)k) % (FAKE_VOCAB - 3));
    return n;
}

/* `how` the second was computed, and which request it is. */
static inline void check_same(const result *a, const result *b, const char *how, int i) {
    ck_assert_msg(a->n == b->n && memcmp(a->ids, b->ids, (size_t)a->n * sizeof *a->ids) == 0,
                  "%s: request %d got other tokens: %d and %d", how, i, (int)a->n, (int)b->n);
    ck_assert_str_eq(a->text, b->text);
    ck_assert_float_eq(a->logprob_sum, b->logprob_sum);
    ck_assert_int_eq(a->last.finish_reason, b->last.finish_reason);
}

static int32_t prompt[FAKE_MAX_LEN];

static inline void fill_prompt(int64_t n, uint32_t seed) {
    for (int64_t i = 0; i < n; i++)
        prompt[i] = (int32_t)(fake_mix(seed, (uint32_t)i) % (FAKE_VOCAB - 3)) + 3;
}

#endif

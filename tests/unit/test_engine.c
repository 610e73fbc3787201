/* The engine on a made-up model whose every logit depends on all tokens before it: requests,
 * chunks, ragged steps, cache reuse, text. */
#include "check_main.h"
#include "fixture/fake_artifact.h"
#include "fixture/fake_tokenizer.h"

#include "runtime/modelcc.h"
#include "runtime/tokenizer/tokenizer.h"

#include <math.h>
#include <stdbool.h>

/* --- the model -----------------------------------------------------------------------------------
 */

static char path[64];
static mcc_artifact *model;

static void open_model(bool with_text) {
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

static void setup(void) {
    open_model(true);
}

static void setup_without_text(void) {
    open_model(false);
}

static void teardown(void) {
    mcc_artifact_close(model);
    unlink(path);
}

static mcc_engine *make_engine(mcc_engine_options options) {
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
    float logprob_sum;
} result;

static void take_events(mcc_engine *engine, uint64_t id, result *r) {
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
        } else {
            ck_assert_int_eq(event.token_id, -1);
        }
    } while (event.kind == MCC_EVENT_TOKEN);
    r->last = event;
    r->last.text = NULL;
}

static uint64_t submit(mcc_engine *engine, mcc_request_params params) {
    uint64_t id;
    mcc_error error = {.struct_size = sizeof error};
    params.struct_size = sizeof params;
    mcc_status status = mcc_request_submit(engine, &params, &id, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    return id;
}

static void finish(mcc_engine *engine, uint64_t id, result *r) {
    memset(r, 0, sizeof *r);
    for (int32_t unfinished = 1; r->last.kind != MCC_EVENT_FINISHED;) {
        ck_assert_int_gt(unfinished, 0);
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
        take_events(engine, id, r);
    }
    ck_assert_int_eq(r->last.completion_tokens, r->n);
}

static void generate(mcc_engine *engine, mcc_request_params params, result *r) {
    finish(engine, submit(engine, params), r);
}

/* What a greedy run must give, computed without the engine. */
static void check_greedy(const int32_t *prompt, int64_t n_prompt, const result *r) {
    static int32_t ids[2 * FAKE_MAX_LEN];
    memcpy(ids, prompt, (size_t)n_prompt * sizeof *ids);
    for (int64_t i = 0; i < r->n; i++) {
        ck_assert_int_eq(r->ids[i], fake_next(ids, n_prompt + i));
        ids[n_prompt + i] = r->ids[i];
    }
}

static int32_t prompt[FAKE_MAX_LEN];

static void fill_prompt(int64_t n, uint32_t seed) {
    for (int64_t i = 0; i < n; i++)
        prompt[i] = (int32_t)(fake_mix(seed, (uint32_t)i) % (FAKE_VOCAB - 3)) + 3;
}

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
    generate(engine,
             (mcc_request_params){
                 .flags = MCC_REQUEST_IGNORE_EOS, .prompt_ids = prompt, .n_prompt_ids = 3},
             &r);
    ck_assert_int_eq(r.n, FAKE_MAX_LEN - 3); /* up to the model's length */
    check_greedy(prompt, 3, &r);
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
    /* Full pages for all positions, but only some for the window. */
    ck_assert_uint_lt(stats.kv_bytes_used, (2 * 75 + 50) * FAKE_LAYER_BYTES);
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
        /* All but what is new; of the turn before, the last token was never computed. */
        ck_assert_int_eq(r.last.cached_tokens, turn == 0 ? 0 : n - 10 - 1);
        memcpy(conversation + n, r.ids, 30 * sizeof *r.ids);
        n += 30 + 10;
    }
    /* The same prompt again: all but one token is there. */
    generate(engine,
             (mcc_request_params){.prompt_ids = conversation, .n_prompt_ids = 50, .max_tokens = 1},
             &r);
    ck_assert_int_eq(r.last.cached_tokens, 49);
    check_greedy(conversation, 50, &r);
    /* Another in the middle. */
    conversation[33] = conversation[33] == 5 ? 6 : 5;
    generate(engine,
             (mcc_request_params){.prompt_ids = conversation, .n_prompt_ids = 50, .max_tokens = 2},
             &r);
    ck_assert_int_eq(r.last.cached_tokens, 33);
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

/* --- text ----------------------------------------------------------------------------------------
 */

static void check_text(const result *r) {
    static char expected[8192];
    uint64_t bytes;
    int64_t n = r->n;
    if (r->last.finish_reason == MCC_FINISH_STOP && n > 0 && r->ids[n - 1] == 2)
        n--;
    /* As the runtime does: special tokens give nothing, the first space stays. */
    mcc_artifact *a = model;
    ck_assert_int_eq(mcc_detokenize(a, r->ids, n, MCC_TEXT_SKIP_SPECIAL, expected, sizeof expected,
                                    &bytes, NULL),
                     MCC_OK);
    const char *text = r->text;
    if (text[0] == ' ' && expected[0] != ' ')
        text++;
    ck_assert_str_eq(text, expected);
}

static bool is_utf8(const char *text) {
    for (const uint8_t *p = (const uint8_t *)text; *p;) {
        int more = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : -1;
        if (more < 0)
            return false;
        for (p++; more > 0; more--, p++)
            if (*p >> 6 != 2)
                return false;
    }
    return true;
}

START_TEST(text_streams_whole_characters) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    int with_bytes = 0;
    for (uint32_t seed = 0; seed < 40; seed++) {
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt = "ab",
                                     .max_tokens = 40,
                                     .temperature = 50,
                                     .seed = seed};
        uint64_t id = submit(engine, params);
        static result r;
        memset(&r, 0, sizeof r);
        while (r.last.kind != MCC_EVENT_FINISHED) {
            ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
            take_events(engine, id, &r);
            ck_assert(is_utf8(r.text));
        }
        check_text(&r);
        for (int64_t i = 0; i < r.n; i++)
            with_bytes += r.ids[i] >= 3 && r.ids[i] <= 5;
    }
    ck_assert_int_gt(with_bytes, 20); /* the test meets what it is about */
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(stop_texts) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_NO_CACHE,
                                 .prompt = "xyz ab",
                                 .max_tokens = 60,
                                 .temperature = 20,
                                 .seed = 4};
    static result whole, r;
    generate(engine, params, &whole);
    ck_assert_uint_gt(whole.text_bytes, 30);
    /* Every piece of the text, once a character begins there, as a stop text: short and long ones,
     * within a token and across several. */
    for (size_t at = 0; at < whole.text_bytes; at += 3) {
        for (size_t n = 1; n <= 9 && at + n <= whole.text_bytes; n += 4) {
            if (((uint8_t)whole.text[at] & 0xc0) == 0x80)
                continue;
            char stop[16] = {0};
            memcpy(stop, whole.text + at, n);
            /* Two that do not occur, one of them almost. */
            char almost[16];
            snprintf(almost, sizeof almost, "%.9s~", stop);
            const char *stops[3] = {"~~", almost, stop};
            params.stop = stops;
            params.n_stop = 3;
            generate(engine, params, &r);
            size_t expected = (size_t)(strstr(whole.text, stop) - whole.text);
            ck_assert_uint_eq(r.text_bytes, expected);
            ck_assert_mem_eq(r.text, whole.text, expected);
            ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_STOP);
        }
    }
    const char *never[1] = {"~"};
    params.stop = never;
    params.n_stop = 1;
    generate(engine, params, &r);
    ck_assert_str_eq(r.text, whole.text);
    ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_LENGTH);
    mcc_engine_destroy(engine);
}
END_TEST

/* Of several stop texts in one piece, the one that begins first counts. */
START_TEST(first_stop_text) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    const char *stops[2] = {"yz", "z"};
    int met = 0;
    for (uint32_t seed = 0; seed < 60; seed++) {
        mcc_request_params params = {.flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt = "ab",
                                     .max_tokens = 60,
                                     .temperature = 50,
                                     .seed = seed,
                                     .stop = stops,
                                     .n_stop = 2};
        static result r;
        generate(engine, params, &r);
        ck_assert_ptr_null(strchr(r.text, 'z'));
        if (r.last.finish_reason != MCC_FINISH_STOP || r.ids[r.n - 1] != 8)
            continue;
        ck_assert_int_eq(r.text[r.text_bytes - 1], 'x'); /* of the token "xyz" */
        met++;
    }
    ck_assert_int_gt(met, 3);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(late_polling_gets_everything) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    mcc_request_params params = {
        .flags = MCC_REQUEST_IGNORE_EOS, .prompt = "b", .max_tokens = 1000, .temperature = 20};
    static result r, late;
    generate(engine, params, &r);
    uint64_t id = submit(engine, params);
    for (int32_t unfinished = 1; unfinished > 0;)
        mcc_engine_step(engine, &unfinished, NULL);
    memset(&late, 0, sizeof late);
    take_events(engine, id, &late);
    ck_assert_int_eq(late.n, r.n);
    ck_assert_str_eq(late.text, r.text);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(end_tokens) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    mcc_request_params params = {.prompt = "ab", .max_tokens = 1000, .temperature = 50};
    generate(engine, params, &r);
    ck_assert_int_eq(r.last.finish_reason, MCC_FINISH_STOP);
    ck_assert_int_eq(r.ids[r.n - 1], 2);
    check_text(&r);
    /* A token of the caller's ends it too, and gives no text. */
    int32_t stop = r.ids[r.n - 2], first = 0;
    while (r.ids[first] != stop)
        first++;
    params.stop_token_ids = &stop;
    params.n_stop_token_ids = 1;
    static result shorter;
    generate(engine, params, &shorter);
    ck_assert_int_eq(shorter.n, first + 1);
    ck_assert_int_eq(shorter.last.finish_reason, MCC_FINISH_STOP);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(messages_and_texts) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    const char *messages = "[{\"role\": \"me\", \"content\": \"hi\"}]";
    char text[64], small[4];
    uint64_t bytes;
    ck_assert_int_eq(
        mcc_apply_chat_template(model, messages, 0, 0, text, sizeof text, &bytes, NULL), MCC_OK);
    ck_assert_str_eq(text, "me.hi!bot.");
    ck_assert_uint_eq(bytes, 10);
    ck_assert_int_eq(mcc_apply_chat_template(model, messages, 0, MCC_TEXT_NO_GENERATION_PROMPT,
                                             text, sizeof text, &bytes, NULL),
                     MCC_OK);
    ck_assert_str_eq(text, "me.hi!");
    ck_assert_int_eq(
        mcc_apply_chat_template(model, messages, 0, 0, small, sizeof small, &bytes, NULL),
        MCC_BUFFER_TOO_SMALL);
    ck_assert_uint_eq(bytes, 10);
    static const char *const bad[] = {"", "{}", "[1]", "[{}]", "[{\"role\": 3}]", "[{\"role\":"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_int_eq(
            mcc_apply_chat_template(model, bad[i], 0, 0, text, sizeof text, &bytes, NULL),
            MCC_INVALID_ARGUMENT);

    int32_t ids[32], request_ids[32];
    int64_t n, n_request;
    ck_assert_int_eq(
        mcc_tokenize(model, "me.hi!bot.", 0, MCC_TEXT_PARSE_SPECIAL, ids, 32, &n, NULL), MCC_OK);
    uint64_t id = submit(engine, (mcc_request_params){.messages = messages, .max_tokens = 1});
    ck_assert_int_eq(mcc_request_prompt_ids(engine, id, request_ids, 32, &n_request, NULL), MCC_OK);
    ck_assert_int_eq(n, n_request);
    ck_assert_mem_eq(ids, request_ids, (size_t)n * sizeof *ids);
    ck_assert_int_eq(mcc_request_prompt_ids(engine, id, request_ids, 1, &n_request, NULL),
                     MCC_BUFFER_TOO_SMALL);
    ck_assert_int_eq(mcc_tokenize(model, "ab", 0, 0, NULL, 0, &n, NULL), MCC_BUFFER_TOO_SMALL);
    ck_assert_int_gt(n, 0);
    int32_t out_of_range = FAKE_VOCAB + 1;
    ck_assert_int_eq(mcc_detokenize(model, &out_of_range, 1, 0, text, sizeof text, &bytes, NULL),
                     MCC_INVALID_ARGUMENT);
    mcc_engine_destroy(engine);
}
END_TEST

/* --- sampling, parameters, errors ----------------------------------------------------------------
 */

START_TEST(seeds_and_logprobs) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result a, b, c;
    mcc_request_params params = {.flags = MCC_REQUEST_LOGPROBS | MCC_REQUEST_IGNORE_EOS,
                                 .prompt = "ab",
                                 .max_tokens = 50,
                                 .temperature = 10,
                                 .top_k = 30,
                                 .seed = 5};
    generate(engine, params, &a);
    params.flags |= MCC_REQUEST_NO_CACHE;
    generate(engine, params, &b);
    params.seed = 6;
    generate(engine, params, &c);
    ck_assert_mem_eq(a.ids, b.ids, 50 * sizeof *a.ids);
    ck_assert(memcmp(a.ids, c.ids, 50 * sizeof *a.ids) != 0);

    int32_t ids[64];
    int64_t n;
    mcc_tokenize(model, "ab", 0, MCC_TEXT_ADD_SPECIAL, ids, 64, &n, NULL);
    double expected = 0;
    for (int64_t i = 0; i < a.n; i++) {
        double sum = 0;
        for (int32_t t = 0; t < FAKE_VOCAB; t++)
            sum += exp(fake_logit(ids, n, t));
        expected += fake_logit(ids, n, a.ids[i]) - log(sum);
        ids[n++] = a.ids[i];
    }
    ck_assert_double_le(fabs(a.logprob_sum - expected), 1e-3);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(repetition_penalty) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    fill_prompt(5, 1);
    generate(engine,
             (mcc_request_params){.flags = MCC_REQUEST_IGNORE_EOS,
                                  .prompt_ids = prompt,
                                  .n_prompt_ids = 5,
                                  .max_tokens = 50,
                                  .repetition_penalty = 1e6f},
             &r);
    /* With so great a penalty no token comes twice until all have been there. */
    int seen[FAKE_VOCAB] = {0}, distinct = 0;
    for (int i = 0; i < 5; i++)
        distinct += seen[prompt[i]]++ == 0;
    for (int64_t i = 0; i < r.n && distinct < FAKE_VOCAB; i++) {
        ck_assert_int_eq(seen[r.ids[i]], 0);
        distinct += seen[r.ids[i]]++ == 0;
    }
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(bad_parameters_are_refused) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1, .max_model_len = 32});
    static const int32_t ids[40], wrong[2] = {1, FAKE_VOCAB}, negative[1] = {-1};
    static const char *const empty[1] = {""}, *const null[1] = {NULL}, *const half[1] = {"\x82"};
    const struct {
        mcc_status status;
        mcc_request_params params;
    } bad[] = {
        {MCC_INVALID_ARGUMENT, {0}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .messages = "[]"}},
        {MCC_INVALID_ARGUMENT, {.prompt_ids = ids, .n_prompt_ids = 0}},
        {MCC_INVALID_ARGUMENT, {.prompt_ids = ids, .n_prompt_ids = -3}},
        {MCC_INVALID_ARGUMENT, {.prompt_ids = wrong, .n_prompt_ids = 2}},
        {MCC_INVALID_ARGUMENT, {.prompt_ids = negative, .n_prompt_ids = 1}},
        {MCC_CAPACITY, {.prompt_ids = ids, .n_prompt_ids = 32}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .max_tokens = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .flags = 1 << 20}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .temperature = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .top_p = 2}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .repetition_penalty = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = -1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = 1}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = 1, .stop = empty}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = 1, .stop = null}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop = 1, .stop = half}},
        {MCC_INVALID_ARGUMENT, {.prompt = "a", .n_stop_token_ids = 1}},
        {MCC_INVALID_ARGUMENT, {.messages = "nonsense"}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mcc_request_params params = bad[i].params;
        mcc_error error = {.struct_size = sizeof error};
        uint64_t id;
        params.struct_size = sizeof params;
        ck_assert_int_eq(mcc_request_submit(engine, &params, &id, &error), bad[i].status);
        ck_assert_int_eq(error.code, bad[i].status);
        ck_assert_uint_gt(strlen(error.text), 10);
    }
    uint64_t id;
    mcc_request_params unsized = {.prompt = "a"};
    ck_assert_int_eq(mcc_request_submit(engine, &unsized, &id, NULL), MCC_INVALID_ARGUMENT);
    mcc_engine_destroy(engine);

    static const struct {
        mcc_status status;
        mcc_engine_options options;
    } engines[] = {
        {MCC_CAPACITY, {.max_num_seqs = 2}},
        {MCC_INVALID_ARGUMENT, {.max_num_batched_tokens = -1}},
        {MCC_INVALID_ARGUMENT, {.max_model_len = FAKE_MAX_LEN + 1}},
        {MCC_INVALID_ARGUMENT, {.max_eval_seqs = -1}},
        {MCC_INVALID_ARGUMENT, {.threads = -1}},
        {MCC_INVALID_ARGUMENT, {.flags = 1 << 9}},
        {MCC_CAPACITY, {.kv_cache_memory_bytes = 1000}},
    };
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        mcc_engine_options options = engines[i].options;
        options.struct_size = sizeof options;
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_int_eq(mcc_engine_create(model, &options, &engine, &error), engines[i].status);
        ck_assert_uint_gt(strlen(error.text), 10);
    }
}
END_TEST

START_TEST(older_structs_are_understood) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    /* A caller whose structs end early: what lies behind must be neither read nor written. */
    mcc_request_params params = {.struct_size = offsetof(mcc_request_params, temperature),
                                 .prompt = "ab",
                                 .max_tokens = 3,
                                 .temperature = NAN,
                                 .n_stop = -5};
    uint64_t id;
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
    mcc_engine_step(engine, NULL, NULL);
    mcc_event event;
    memset(&event, 0x55, sizeof event);
    event.struct_size = offsetof(mcc_event, finish_reason);
    ck_assert_int_eq(mcc_engine_poll(engine, id, &event, NULL), MCC_OK);
    ck_assert_int_eq(event.kind, MCC_EVENT_TOKEN);
    ck_assert_int_eq(event.finish_reason, 0x55555555);
    mcc_error error = {.struct_size = offsetof(mcc_error, text) + 4, .text = "0123456"};
    ck_assert_int_eq(mcc_engine_poll(engine, 999, &event, &error), MCC_NOT_FOUND);
    ck_assert_str_eq(error.text, "no ");
    ck_assert_int_eq(error.text[4], '4');
    mcc_engine_destroy(engine);
}
END_TEST

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

START_TEST(without_a_tokenizer) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static result r;
    fill_prompt(7, 1);
    generate(engine,
             (mcc_request_params){.prompt_ids = prompt, .n_prompt_ids = 7, .max_tokens = 10}, &r);
    ck_assert_int_eq(r.n, 10);
    ck_assert_uint_eq(r.text_bytes, 0);
    check_greedy(prompt, 7, &r);
    uint64_t id, bytes;
    int64_t n;
    mcc_request_params params = {.struct_size = sizeof params, .prompt = "ab"};
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_UNSUPPORTED);
    ck_assert_int_eq(mcc_tokenize(model, "ab", 0, 0, NULL, 0, &n, NULL), MCC_UNSUPPORTED);
    ck_assert_int_eq(mcc_apply_chat_template(model, "[]", 0, 0, NULL, 0, &bytes, NULL),
                     MCC_UNSUPPORTED);
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
    tcase_add_test(t, text_streams_whole_characters);
    tcase_add_test(t, stop_texts);
    tcase_add_test(t, first_stop_text);
    tcase_add_test(t, late_polling_gets_everything);
    tcase_add_test(t, end_tokens);
    tcase_add_test(t, messages_and_texts);
    tcase_add_test(t, seeds_and_logprobs);
    tcase_add_test(t, repetition_penalty);
    tcase_add_test(t, bad_parameters_are_refused);
    tcase_add_test(t, older_structs_are_understood);
    tcase_add_test(t, null_device_makes_tokens);
    tcase_add_test(t, engines_share_a_pool);
    suite_add_tcase(s, t);
    t = tcase_create("without text");
    tcase_add_checked_fixture(t, setup_without_text, teardown);
    tcase_add_test(t, without_a_tokenizer);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

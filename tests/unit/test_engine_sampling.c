/* What requests do to the choice of tokens, on a made-up model: against a plain sampler in double
 * precision that is computed here from the model's logits, without the code under test. */
#include "engine_case.h"

#include <math.h>

enum { V = FAKE_VOCAB, MAX_OUT = 60 };

/* --- the oracle ----------------------------------------------------------------------------------
 */

typedef struct truth {
    double logit[V]; /* after biases and penalties */
    double logprob[V];
    bool kept[V]; /* by the filters */
} truth;

static void log_softmax(const double *logits, double *out) {
    double sum = 0;
    for (int t = 0; t < V; t++)
        sum += exp(logits[t]);
    for (int t = 0; t < V; t++)
        out[t] = logits[t] - log(sum);
}

/* transformers' TypicalLogitsWarper, over all tokens. */
static void typical(const double *logits, double mass, bool *kept) {
    double logprob[V], entropy = 0, off[V], running = 0;
    log_softmax(logits, logprob);
    for (int t = 0; t < V; t++)
        entropy -= exp(logprob[t]) * logprob[t];
    for (int t = 0; t < V; t++) {
        off[t] = fabs(-logprob[t] - entropy);
        kept[t] = false;
    }
    while (running <= mass) {
        int next = -1;
        for (int t = 0; t < V; t++)
            if (!kept[t] && (next < 0 || off[t] < off[next]))
                next = t;
        if (next < 0)
            return;
        kept[next] = true;
        running += exp(logprob[next]);
    }
}

/* Of the place after ids[0 … n-1], of which n_prompt are the prompt: vLLM's order of things. */
static truth truth_of(const mcc_request_params *p, const int32_t *ids, int64_t n,
                      int64_t n_prompt) {
    truth r;
    double raw[V];
    for (int t = 0; t < V; t++)
        raw[t] = (double)fake_logit(ids, n, t);
    log_softmax(raw, r.logprob);
    for (int t = 0; t < V; t++) {
        double x = raw[t];
        int in_prompt = 0, in_output = 0;
        for (int64_t i = 0; i < n; i++)
            *(i < n_prompt ? &in_prompt : &in_output) += ids[i] == t;
        for (int32_t i = 0; i < p->n_logit_bias; i++)
            x += p->logit_bias_ids[i] == t ? (double)p->logit_bias[i] : 0;
        if (p->repetition_penalty != 0 && in_prompt + in_output > 0)
            x = x > 0 ? x / (double)p->repetition_penalty : x * (double)p->repetition_penalty;
        x -= (double)p->frequency_penalty * in_output;
        x -= in_output > 0 ? (double)p->presence_penalty : 0;
        r.logit[t] = x;
    }
    double scaled[V];
    for (int t = 0; t < V; t++)
        scaled[t] = r.logit[t] / (p->temperature > 0 ? (double)p->temperature : 1);
    memset(r.kept, true, sizeof r.kept);
    if (p->typical_p > 0 && p->typical_p < 1)
        typical(scaled, (double)p->typical_p, r.kept);
    return r;
}

/* --- requests ------------------------------------------------------------------------------------
 */

static uint32_t dice_state;
static double dice(double from, double to) {
    dice_state = fake_mix(dice_state, 12345);
    return from + (to - from) * (double)(dice_state >> 8) * 0x1p-24;
}

typedef struct output {
    int32_t ids[FAKE_MAX_LEN]; /* the prompt, then the output */
    int64_t n_prompt, n;
    float logprobs[MAX_OUT];
    mcc_logprob top[MAX_OUT][MCC_MAX_TOP_LOGPROBS];
    int32_t n_top[MAX_OUT];
} output;

static void run(mcc_engine *engine, const mcc_request_params *p, output *o) {
    uint64_t id = submit(engine, *p);
    mcc_event event = {.struct_size = sizeof event};
    memcpy(o->ids, p->prompt_ids, (size_t)p->n_prompt_ids * sizeof *o->ids);
    o->n = o->n_prompt = p->n_prompt_ids;
    while (event.kind != MCC_EVENT_FINISHED) {
        ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
        while (mcc_engine_poll(engine, id, &event, NULL) == MCC_OK &&
               event.kind == MCC_EVENT_TOKEN) {
            int64_t i = o->n - o->n_prompt;
            o->ids[o->n++] = event.token_id;
            o->logprobs[i] = event.logprob;
            o->n_top[i] = event.n_top_logprobs;
            ck_assert((event.n_top_logprobs > 0) == (event.top_logprobs != NULL));
            for (int32_t k = 0; k < event.n_top_logprobs; k++)
                o->top[i][k] = event.top_logprobs[k];
        }
    }
    ck_assert_int_eq(o->n - o->n_prompt, p->max_tokens);
}

/* Greedy: the token that the oracle finds best, or one that it cannot tell from that. */
static void check_best(const mcc_request_params *p, const output *o) {
    for (int64_t n = o->n_prompt; n < o->n; n++) {
        truth r = truth_of(p, o->ids, n, o->n_prompt);
        double best = -INFINITY;
        for (int t = 0; t < V; t++)
            best = fmax(best, r.logit[t]);
        ck_assert_msg(r.logit[o->ids[n]] >= best - 1e-4,
                      "token %d of the output is %d, of logit %g; the greatest is %g",
                      (int)(n - o->n_prompt), o->ids[n], r.logit[o->ids[n]], best);
    }
}

START_TEST(penalties_and_biases) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static output o, plain;
    int changed = 0;
    dice_state = (uint32_t)_i + 1;
    for (int c = 0; c < 12; c++) {
        /* Of tokens that the prompt has, too; and biases on few tokens, so that they come again. */
        int32_t bias_ids[V], n_bias = 0;
        float bias[V];
        for (int t = 0; t < V; t++)
            if (dice(0, 1) < 0.15) {
                bias_ids[n_bias] = V - 1 - t; /* in any order */
                bias[n_bias++] = (float)dice(-4, 12);
            }
        fill_prompt(10, (uint32_t)(100 * _i + c));
        mcc_request_params p = {.flags = MCC_REQUEST_IGNORE_EOS,
                                .prompt_ids = prompt,
                                .n_prompt_ids = 10,
                                .max_tokens = MAX_OUT};
        run(engine, &p, &plain);
        check_best(&p, &plain);
        p.logit_bias_ids = bias_ids;
        p.logit_bias = bias;
        p.n_logit_bias = _i & 1 ? n_bias : 0;
        p.repetition_penalty = _i & 2 ? (float)dice(0.8, 1.6) : 0;
        p.presence_penalty = _i & 4 ? (float)dice(-2, 2) : 0;
        p.frequency_penalty = _i & 8 ? (float)dice(-1, 2) : 0;
        run(engine, &p, &o);
        check_best(&p, &o);
        changed += memcmp(o.ids, plain.ids, sizeof o.ids) != 0;
        /* The same with drafts, where they are possible. */
        p.num_speculative_tokens = 4;
        p.flags |= MCC_REQUEST_NO_CACHE;
        run(engine, &p, &plain);
        ck_assert_mem_eq(o.ids, plain.ids, (size_t)o.n * sizeof *o.ids);
    }
    ck_assert(_i == 0 ? changed == 0 : changed > 6);
    mcc_engine_destroy(engine);
}
END_TEST

/* Only tokens that the oracle keeps are drawn, and all of them are. */
START_TEST(typical_tokens) {
    static const float masses[] = {0.1f, 0.3f, 0.5f, 0.8f, 0.95f};
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static output o;
    fill_prompt(6, (uint32_t)_i);
    mcc_request_params p = {.flags = MCC_REQUEST_IGNORE_EOS,
                            .prompt_ids = prompt,
                            .n_prompt_ids = 6,
                            .max_tokens = 1,
                            .temperature = 4,
                            .typical_p = masses[_i]};
    truth r = truth_of(&p, prompt, 6, 6);
    int drawn[V] = {0}, kept = 0;
    for (p.seed = 0; p.seed < 2000; p.seed++) {
        run(engine, &p, &o);
        drawn[o.ids[6]]++;
    }
    for (int t = 0; t < V; t++) {
        kept += r.kept[t];
        ck_assert_msg(r.kept[t] || drawn[t] == 0, "token %d is not typical", t);
        /* 2000 draws, the same each time, are enough for all but the least probable. */
        ck_assert_msg(!r.kept[t] || drawn[t] > 0 || r.logit[t] < 8, "token %d never came", t);
    }
    ck_assert(kept > 0 && kept < V);
    /* Temperature 0 takes the most probable token, typical or not. */
    p.temperature = 0;
    run(engine, &p, &o);
    ck_assert_int_eq(o.ids[6], fake_next(prompt, 6));
    mcc_engine_destroy(engine);
}
END_TEST

/* Log-probabilities are the model's: before biases, penalties and temperature. */
START_TEST(top_logprobs) {
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    static output o;
    const int32_t bias_ids[] = {9, 4};
    const float bias[] = {8, -8};
    for (int32_t n_top = 0; n_top <= MCC_MAX_TOP_LOGPROBS; n_top += n_top < 3 ? 1 : 17) {
        fill_prompt(12, (uint32_t)n_top);
        mcc_request_params p = {.flags = MCC_REQUEST_IGNORE_EOS |
                                         (n_top == 0 ? MCC_REQUEST_LOGPROBS : 0),
                                .prompt_ids = prompt,
                                .n_prompt_ids = 12,
                                .max_tokens = 30,
                                .temperature = n_top % 2 ? 3 : 0,
                                .seed = 3,
                                .top_logprobs = n_top,
                                .presence_penalty = 1.5f,
                                .logit_bias_ids = bias_ids,
                                .logit_bias = bias,
                                .n_logit_bias = 2};
        run(engine, &p, &o);
        for (int64_t i = 0; i < 30; i++) {
            truth r = truth_of(&p, o.ids, 12 + i, 12);
            ck_assert_double_le(fabs((double)o.logprobs[i] - r.logprob[o.ids[12 + i]]), 1e-5);
            ck_assert_int_eq(o.n_top[i], n_top);
            bool taken[V] = {false};
            for (int32_t k = 0; k < n_top; k++) {
                int best = -1;
                for (int t = 0; t < V; t++)
                    if (!taken[t] && (best < 0 || r.logprob[t] > r.logprob[best]))
                        best = t;
                taken[best] = true;
                ck_assert_int_eq(o.top[i][k].token_id, best);
                ck_assert_double_le(fabs((double)o.top[i][k].logprob - r.logprob[best]), 1e-5);
            }
        }
    }
    mcc_engine_destroy(engine);
}
END_TEST

/* The error says which field it is about, and the engine goes on. */
START_TEST(errors_name_the_field) {
    static const int32_t ids[] = {1, 2, 1}, outside[] = {FAKE_VOCAB}, negative[] = {-1};
    static const float fine[] = {1, -1, 1}, great[] = {100.5f}, none[] = {NAN};
    static const struct {
        const char *field;
        mcc_request_params params;
    } bad[] = {
        {"presence_penalty", {.presence_penalty = 2.01f}},
        {"presence_penalty", {.presence_penalty = NAN}},
        {"frequency_penalty", {.frequency_penalty = -2.01f}},
        {"frequency_penalty", {.frequency_penalty = INFINITY}},
        {"repetition_penalty", {.repetition_penalty = NAN}},
        {"repetition_penalty", {.repetition_penalty = INFINITY}},
        {"typical_p", {.typical_p = -0.1f}},
        {"typical_p", {.typical_p = 1.1f}},
        {"typical_p", {.typical_p = NAN}},
        {"top_logprobs", {.top_logprobs = -1}},
        {"top_logprobs", {.top_logprobs = MCC_MAX_TOP_LOGPROBS + 1}},
        {"logit_bias", {.n_logit_bias = 1}},
        {"logit_bias", {.n_logit_bias = -1, .logit_bias_ids = ids, .logit_bias = fine}},
        {"logit_bias", {.n_logit_bias = V + 1, .logit_bias_ids = ids, .logit_bias = fine}},
        {"logit_bias", {.n_logit_bias = 1, .logit_bias_ids = ids}},
        {"logit_bias", {.n_logit_bias = 3, .logit_bias_ids = ids, .logit_bias = fine}},
        {"logit_bias", {.n_logit_bias = 1, .logit_bias_ids = outside, .logit_bias = fine}},
        {"logit_bias", {.n_logit_bias = 1, .logit_bias_ids = negative, .logit_bias = fine}},
        {"logit_bias", {.n_logit_bias = 1, .logit_bias_ids = ids, .logit_bias = great}},
        {"logit_bias", {.n_logit_bias = 1, .logit_bias_ids = ids, .logit_bias = none}},
    };
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    fill_prompt(3, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mcc_request_params p = bad[i].params;
        mcc_error error = {.struct_size = sizeof error};
        uint64_t id;
        p.struct_size = sizeof p;
        p.prompt_ids = prompt;
        p.n_prompt_ids = 3;
        ck_assert_int_eq(mcc_request_submit(engine, &p, &id, &error), MCC_INVALID_ARGUMENT);
        ck_assert_msg(strstr(error.text, bad[i].field), "no %s in \"%s\"", bad[i].field,
                      error.text);
    }
    static result r;
    generate(engine, (mcc_request_params){.prompt_ids = prompt, .n_prompt_ids = 3, .max_tokens = 2},
             &r);
    check_greedy(prompt, 3, &r);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(token_texts) {
    const char *text;
    uint64_t bytes;
    int32_t ids[8];
    int64_t n;
    ck_assert_int_eq(mcc_tokenize(model, "xyz", 0, 0, ids, 8, &n, NULL), MCC_OK);
    ck_assert_int_eq(mcc_token_text(model, ids[n - 1], &text, &bytes, NULL), MCC_OK);
    ck_assert(bytes > 0 && bytes <= 3 && memcmp(text + bytes - 1, "z", 1) == 0);
    ck_assert_int_eq(mcc_token_text(model, -1, &text, &bytes, NULL), MCC_NOT_FOUND);
    ck_assert_int_eq(mcc_token_text(model, 1 << 30, &text, &bytes, NULL), MCC_NOT_FOUND);
    ck_assert_int_eq(mcc_token_text(model, 0, NULL, &bytes, NULL), MCC_INVALID_ARGUMENT);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("engine sampling");
    TCase *t = tcase_create("engine sampling");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, penalties_and_biases, 0, 16);
    tcase_add_loop_test(t, typical_tokens, 0, 5);
    tcase_add_test(t, top_logprobs);
    tcase_add_test(t, errors_name_the_field);
    tcase_add_test(t, token_texts);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

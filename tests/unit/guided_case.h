/* For tests of requests with grammars: the made-up model with a tokenizer, for a CPU and for GPUs
 * that sample or do not; and what a request must give, computed without the engine: the model's
 * logits, the grammar's mask, and the choice of runtime/sampler.h. Included behind engine_case.h.
 */
#ifndef MCC_TESTS_GUIDED_CASE_H
#define MCC_TESTS_GUIDED_CASE_H

#include "fixture/fake_cuda_code.h"

#include "runtime/grammar/guide.h"
#include "runtime/loader.h"
#include "runtime/sampler.h"

/* Grammars of texts in the made-up vocabulary: short words; a text that repeats itself, for drafts;
 * nested ones; one that
 * ends soon, and one that does not. */
static const struct {
    rt_grammar_kind kind;
    const char *text;
} guided_texts[] = {
    {RT_GRAMMAR_REGEX, "([a-m]{2,6}[,.])*!"},
    {RT_GRAMMAR_REGEX, "(xyzab,!qr){8,12}[A-C]{0,30}\\."},
    {RT_GRAMMAR_GBNF, "root ::= \"A\" (root \",\"?)* \"B\" | [c-f]+ \".\""},
    {RT_GRAMMAR_JSON, "{\"enum\": [true, false, null]}"},
    {RT_GRAMMAR_REGEX, "[a-z]{200,}"},
};
enum { GUIDED = sizeof guided_texts / sizeof *guided_texts };

static rt_vocabulary *guided_vocabulary;
static rt_grammar *guided_grammars[GUIDED];

typedef enum guided_device { GUIDED_CPU, GUIDED_GPU, GUIDED_GPU_LOGITS } guided_device;

/* The model with code for a device; GUIDED_GPU is one that samples. `last_weight`: as
 * fake_artifact's. */
static inline void open_guided(guided_device device, uint32_t last_weight) {
    static fake_artifact a;
    static fake_cuda_code code;
    memset(&a, 0, sizeof a);
    fake_tables_init(&a.tables);
    a.last_weight = last_weight;
    fake_cuda_code_init(&code);
    if (device == GUIDED_GPU) {
        fake_tables_add_sampling(&a.tables);
        fake_cuda_add_sampling(&code);
    }
    a.cuda = device == GUIDED_CPU ? NULL : &code;
    a.cuda_bytes = sizeof code;
    ir_arena *arena = ir_arena_create();
    fe_blob blob = fake_tokenizer(arena);
    a.tokenizer = blob.data;
    a.tokenizer_bytes = blob.size;
    fake_artifact_write(&a, path);
    ir_arena_destroy(arena);
    mcc_error error = {.struct_size = sizeof error};
    mcc_status status = mcc_artifact_open(path, NULL, &model, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);

    rt_error why = {0};
    guided_vocabulary = rt_vocabulary_create(model->tokenizer, FAKE_VOCAB);
    ck_assert_ptr_nonnull(guided_vocabulary);
    for (int i = 0; i < GUIDED; i++) {
        guided_grammars[i] =
            rt_grammar_create(guided_texts[i].kind, guided_texts[i].text,
                              strlen(guided_texts[i].text), guided_vocabulary, &why);
        ck_assert_msg(guided_grammars[i] != NULL, "%s", why.text);
    }
}

static inline void close_guided(void) {
    for (int i = 0; i < GUIDED; i++)
        rt_grammar_release(guided_grammars[i]);
    rt_vocabulary_destroy(guided_vocabulary);
    teardown();
}

static inline void set_grammar(mcc_request_params *params, int grammar) {
    const char **fields[] = {[RT_GRAMMAR_JSON] = &params->guided_json,
                             [RT_GRAMMAR_REGEX] = &params->guided_regex,
                             [RT_GRAMMAR_GBNF] = &params->guided_grammar};
    *fields[guided_texts[grammar].kind] = guided_texts[grammar].text;
}

/* The model's choice after ids[0 … n-1] of what the guide allows; NULL: of all. */
static inline int32_t guided_next(const rt_sampling *how, rt_guide *guide, const int32_t *ids,
                                  int64_t n) {
    static _Alignas(8) char space[1 << 16];
    float logits[FAKE_VOCAB];
    const char *why = "";
    ck_assert_uint_le(rt_sample_bytes(FAKE_VOCAB), sizeof space);
    for (int32_t t = 0; t < FAKE_VOCAB; t++)
        logits[t] = fake_logit(ids, n, t);
    const uint32_t *mask = guide ? rt_guide_mask(guide, &why) : NULL;
    ck_assert_msg(!guide || mask, "%s", why);
    if (mask)
        rt_mask(logits, FAKE_VOCAB, mask);
    return rt_sample(how, logits, FAKE_VOCAB, n, space);
}

/* The output of a request: at most max_tokens ids to `out`, whose number is returned, and why it
 * ends. `grammar` -1: none. */
static inline int64_t guided_output(const mcc_request_params *p, int grammar, uint64_t seed,
                                    int32_t *out, int32_t *reason) {
    static int32_t ids[2 * FAKE_MAX_LEN];
    int64_t n_end = 0, n = 0;
    const int32_t *end = NULL;
    if (!(p->flags & MCC_REQUEST_IGNORE_EOS))
        end = rt_tokenizer_end_ids(model->tokenizer, &n_end);
    rt_guide *guide = grammar < 0 ? NULL
                                  : rt_guide_create(rt_grammar_share(guided_grammars[grammar]), end,
                                                    (int32_t)n_end);
    ck_assert(grammar < 0 || guide);
    rt_sampling how = {p->temperature, p->top_k, p->top_p > 0 ? p->top_p : 1, p->min_p, seed, 0};
    memcpy(ids, p->prompt_ids, (size_t)p->n_prompt_ids * sizeof *ids);
    *reason = MCC_FINISH_LENGTH;
    while (n < p->max_tokens && *reason == MCC_FINISH_LENGTH) {
        int32_t id = guided_next(&how, guide, ids, p->n_prompt_ids + n);
        size_t bytes = 0;
        const char *text = rt_tokenizer_piece(model->tokenizer, id, &bytes);
        ck_assert_int_ge(id, 0);
        ck_assert(!guide || rt_guide_accept(guide, id, text, bytes));
        ids[p->n_prompt_ids + n] = out[n] = id;
        n++;
        for (int64_t i = 0; i < n_end; i++)
            if (end[i] == id)
                *reason = MCC_FINISH_STOP;
        if (guide && guide->must_end)
            *reason = MCC_FINISH_STOP;
    }
    rt_guide_destroy(guide);
    return n;
}

#endif

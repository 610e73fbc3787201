/* What a request changes the logits of a row by before a token is chosen, in vLLM's order:
 *
 *   logit bias          l += bias, for the tokens that have one
 *   repetition penalty  positive l /= penalty, others l *= penalty, for tokens of the prompt and of
 *                       the output (Keskar et al. 2019, CTRL, section 4.1)
 *   frequency penalty   l -= penalty * how often the token is in the output
 *   presence penalty    l -= penalty, for tokens that are in the output
 *
 * Each in f32. The last two do not look at the prompt, as OpenAI's and vLLM's do not. */
#ifndef MCC_RUNTIME_ADJUST_H
#define MCC_RUNTIME_ADJUST_H

#include "runtime/error.h"
#include "runtime/modelcc.h"

typedef struct rt_bias {
    int32_t id;
    float bias;
} rt_bias;

typedef struct rt_adjust {
    float repetition, frequency, presence; /* 1, 0, 0: none */
    rt_bias *biases;                       /* ascending ids */
    int32_t n_biases;
    /* With a penalty: each token that it may concern once, and of each token of the vocabulary 0,
     * when it is not in the list, or 1 + how often it is in the output. */
    int32_t *seen, *times;
    int64_t n_seen;
} rt_adjust;

/* Takes the parameters, which it checks, and the prompt, whose ids are in the vocabulary; allocates
 * all that max_ids tokens of prompt and output will need. *adjust is zeroed, and to be destroyed in
 * any case. */
bool rt_adjust_create(rt_adjust *adjust, const mcc_request_params *params, int32_t vocab_size,
                      const int32_t *prompt, int64_t n_prompt, int64_t max_ids, rt_error *error);
void rt_adjust_destroy(rt_adjust *adjust);

/* Notes a token of the output, when it is chosen. */
void rt_adjust_add(rt_adjust *adjust, int32_t id);

/* Whether it changes logits. */
bool rt_adjust_changes(const rt_adjust *adjust);

/* Changes a row. */
void rt_adjust_apply(const rt_adjust *adjust, float *logits);

#endif

#include "runtime/adjust.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Whether what it does depends on the tokens before. */
static bool has_memory(const rt_adjust *a) {
    return a->repetition != 1 || a->frequency != 0 || a->presence != 0;
}

bool rt_adjust_changes(const rt_adjust *a) {
    return a->n_biases > 0 || has_memory(a);
}

/* --- parameters ----------------------------------------------------------------------------------
 */

static bool in_range(float x, float limit) {
    return x >= -limit && x <= limit;
}

static bool check_penalties(const rt_adjust *a, rt_error *error) {
    const struct {
        const char *name;
        float value;
    } additive[] = {{"frequency_penalty", a->frequency}, {"presence_penalty", a->presence}};
    if (!(a->repetition > 0) || isinf(a->repetition))
        return rt_fail(error, MCC_INVALID_ARGUMENT, "repetition_penalty is %g, expected above 0",
                       (double)a->repetition);
    for (int i = 0; i < 2; i++)
        if (!in_range(additive[i].value, 2))
            return rt_fail(error, MCC_INVALID_ARGUMENT, "%s is %g, expected -2 to 2",
                           additive[i].name, (double)additive[i].value);
    return true;
}

static int by_id(const void *a, const void *b) {
    int32_t x = ((const rt_bias *)a)->id, y = ((const rt_bias *)b)->id;
    return (x > y) - (x < y);
}

static bool set_biases(rt_adjust *a, const mcc_request_params *p, int32_t vocab_size,
                       rt_error *error) {
    int32_t n = p->n_logit_bias;
    if (n == 0)
        return true;
    if (n < 0 || n > vocab_size || !p->logit_bias_ids || !p->logit_bias)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "logit_bias: n_logit_bias is %" PRId32 ", expected 0 to %" PRId32
                       ", with logit_bias_ids and logit_bias set",
                       n, vocab_size);
    a->biases = malloc((size_t)n * sizeof *a->biases);
    if (!a->biases)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a request");
    for (int32_t i = 0; i < n; i++) {
        if (p->logit_bias_ids[i] < 0 || p->logit_bias_ids[i] >= vocab_size)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "logit_bias: token %" PRId32
                           " is not in the vocabulary, which has %" PRId32,
                           p->logit_bias_ids[i], vocab_size);
        if (!in_range(p->logit_bias[i], 100))
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "logit_bias: %g for token %" PRId32 ", expected -100 to 100",
                           (double)p->logit_bias[i], p->logit_bias_ids[i]);
        a->biases[i] = (rt_bias){p->logit_bias_ids[i], p->logit_bias[i]};
    }
    qsort(a->biases, (size_t)n, sizeof *a->biases, by_id);
    for (int32_t i = 1; i < n; i++)
        if (a->biases[i].id == a->biases[i - 1].id)
            return rt_fail(error, MCC_INVALID_ARGUMENT, "logit_bias: token %" PRId32 " comes twice",
                           a->biases[i].id);
    a->n_biases = n;
    return true;
}

/* Puts a token into the list, once; counts its times in the output. */
static void note(rt_adjust *a, int32_t id, bool output) {
    if (a->times[id] == 0) {
        a->seen[a->n_seen++] = id;
        a->times[id] = 1;
    }
    a->times[id] += output;
}

bool rt_adjust_create(rt_adjust *a, const mcc_request_params *p, int32_t vocab_size,
                      const int32_t *prompt, int64_t n_prompt, int64_t max_ids, rt_error *error) {
    a->repetition = p->repetition_penalty == 0 ? 1 : p->repetition_penalty;
    a->frequency = p->frequency_penalty;
    a->presence = p->presence_penalty;
    if (!check_penalties(a, error) || !set_biases(a, p, vocab_size, error))
        return false;
    if (!has_memory(a))
        return true;
    int64_t most = max_ids < vocab_size ? max_ids : vocab_size;
    a->seen = malloc((size_t)most * sizeof *a->seen);
    a->times = calloc((size_t)vocab_size, sizeof *a->times);
    if (!a->seen || !a->times)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a request");
    for (int64_t i = 0; i < n_prompt && a->repetition != 1; i++)
        note(a, prompt[i], false);
    return true;
}

void rt_adjust_destroy(rt_adjust *a) {
    free(a->biases);
    free(a->seen);
    free(a->times);
    *a = (rt_adjust){0};
}

/* --- rows ----------------------------------------------------------------------------------------
 */

void rt_adjust_add(rt_adjust *a, int32_t id) {
    if (a->times)
        note(a, id, true);
}

void rt_adjust_apply(const rt_adjust *a, float *logits) {
    for (int32_t i = 0; i < a->n_biases; i++)
        logits[a->biases[i].id] += a->biases[i].bias;
    for (int64_t i = 0; i < a->n_seen; i++) {
        float *x = &logits[a->seen[i]];
        int32_t times = a->times[a->seen[i]] - 1;
        *x = *x > 0 ? *x / a->repetition : *x * a->repetition;
        *x -= a->frequency * (float)times;
        *x -= times > 0 ? a->presence : 0;
    }
}

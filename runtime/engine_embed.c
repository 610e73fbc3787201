/* Embeddings: of models that give rows for them instead of logits, and so generate nothing. A
 * request is done when its prompt has been computed. */
#include "runtime/engine.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

bool rt_embed_check(const mcc_request_params *p, rt_error *error) {
    const struct {
        const char *name;
        bool is_set;
    } fields[] = {{"max_tokens", p->max_tokens != 0},
                  {"temperature", p->temperature != 0},
                  {"top_k", p->top_k != 0},
                  {"top_p", p->top_p != 0},
                  {"min_p", p->min_p != 0},
                  {"typical_p", p->typical_p != 0},
                  {"repetition_penalty", p->repetition_penalty != 0},
                  {"presence_penalty", p->presence_penalty != 0},
                  {"frequency_penalty", p->frequency_penalty != 0},
                  {"n_logit_bias", p->n_logit_bias != 0},
                  {"top_logprobs", p->top_logprobs != 0},
                  {"n_stop", p->n_stop != 0},
                  {"n_stop_token_ids", p->n_stop_token_ids != 0},
                  {"guided_json", p->guided_json},
                  {"guided_regex", p->guided_regex},
                  {"guided_grammar", p->guided_grammar},
                  {"n", p->n > 1},
                  {"num_speculative_tokens", p->num_speculative_tokens != 0},
                  {"MCC_REQUEST_IGNORE_EOS", p->flags & MCC_REQUEST_IGNORE_EOS},
                  {"MCC_REQUEST_LOGPROBS", p->flags & MCC_REQUEST_LOGPROBS}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].is_set)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "%s is set, but this artifact computes embeddings and generates no "
                           "tokens: it was built with --task embed",
                           fields[i].name);
    return true;
}

/* Adds up in the order of the tokens, so that the chunks that they came in make no difference. */
static void add_rows(rt_request *r, const rt_plan_item *item, const float *rows, int64_t width) {
    if (item->first == 0)
        memset(r->sums, 0, (size_t)width * sizeof *r->sums);
    for (int32_t k = 0; k < item->n_rows; k++)
        for (int64_t i = 0; i < width; i++)
            r->sums[i] += (double)rows[k * width + i];
}

static bool is_finite(const float *x, int64_t width) {
    for (int64_t i = 0; i < width; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static void normalize(float *x, int64_t width) {
    double square = 0;
    for (int64_t i = 0; i < width; i++)
        square += (double)x[i] * (double)x[i];
    double factor = square > 0 ? 1 / sqrt(square) : 0;
    for (int64_t i = 0; i < width; i++)
        x[i] = (float)((double)x[i] * factor);
}

bool rt_engine_embed(mcc_engine *e, const rt_plan_item *item, int32_t row, rt_error *error) {
    rt_request *r = rt_request_of(item->seq);
    int64_t width = e->artifact->tables.rows->width;
    const float *rows = e->device->ops->logits(e->device) + row * width;
    bool mean = e->artifact->tables.pooling == RT_POOL_MEAN;
    if (mean)
        add_rows(r, item, rows, width);
    if (item->first + item->n < r->seq.n_prompt)
        return true;
    for (int64_t i = 0; i < width; i++)
        r->embedding[i] = mean ? (float)(r->sums[i] / (double)r->seq.n_prompt) : rows[i];
    bool finite = is_finite(r->embedding, width);
    if (finite && !(r->flags & MCC_REQUEST_RAW_EMBEDDING))
        normalize(r->embedding, width);
    rt_engine_make_ready(e, r);
    if (finite)
        rt_request_finish(r, MCC_FINISH_STOP);
    else
        rt_engine_finish(e, r, MCC_FINISH_ERROR);
    if (finite)
        rt_engine_finished(e, r);
    return finite || rt_fail(error, MCC_INTERNAL,
                             "request %" PRIu64 ": its embedding has NaN or infinity", r->id);
}

/* Whether a step has what it can hold, or has waited long enough; *until is otherwise when. */
static bool is_batch(const mcc_engine *e, double now, double *until) {
    int64_t tokens = 0;
    int32_t sequences = 0;
    *until = INFINITY;
    rt_seq *seq = rt_scheduler_next(e->scheduler, NULL);
    for (; seq; seq = rt_scheduler_next(e->scheduler, seq)) {
        if (seq->state == RT_SEQ_RUNNING)
            return true;
        tokens += seq->n_ids;
        sequences++;
        double end = seq->arrival + e->batch_delay;
        end = seq->deadline < end ? seq->deadline : end;
        *until = end < *until ? end : *until;
    }
    return sequences == 0 || sequences >= e->max_seqs || tokens >= e->max_batched || e->draining ||
           now >= *until;
}

void rt_engine_await_batch(mcc_engine *e) {
    for (double until; e->batch_delay > 0 && !is_batch(e, rt_engine_now(), &until);) {
        if (e->on_event && e->ready_first) { /* requests were cancelled meanwhile */
            rt_engine_deliver(e);
            continue;
        }
        struct timespec time = {.tv_sec = (time_t)until};
        time.tv_nsec = (long)((until - (double)time.tv_sec) * 1e9);
        pthread_cond_timedwait(&e->arrival, &e->mutex, &time);
    }
}

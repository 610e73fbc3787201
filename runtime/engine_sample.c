/* Tokens are chosen: by the device where it can, else here, of rows of logits.
 *
 * Grammars. Where the device chooses, it gets a mask for each row, and the requests' guides accept
 * its tokens afterwards. The masks of a step are written by the stepping thread while the device
 * computes the step's logits, so they cost time only where they take longer than that. Where the
 * host chooses, masks come after the logits, on the threads that share the rows; on the CPU these
 * are the threads that computed the logits, and nothing would be gained by writing them before. */
#include "runtime/engine.h"
#include "runtime/rejection.h"

#include <stdlib.h>
#include <string.h>

/* What kernels that sample (codegen/cuda/kernels/sample.cuh) do not do. */
static bool needs_logits(const rt_request *r) {
    bool typical = r->sampling.typical_p > 0 && r->sampling.typical_p < 1;
    return rt_adjust_changes(&r->adjust) || typical || r->n_top > 0 || r->rejects;
}

bool rt_engine_samples_on_host(const mcc_engine *e, const rt_request *r) {
    return needs_logits(r) || (r->guide && !e->block.step->token_masks);
}

/* Why there is no token, where nothing else is in the way. */
static const char *no_number(const rt_request *r) {
    return r->guide ? "the logits of all tokens that the grammar allows are NaN or -infinity"
                    : "all logits are NaN or -infinity";
}

/* The request's guide goes on by a token that its mask allows; why it cannot. */
static const char *accept_token(const mcc_engine *e, rt_request *r, int32_t id) {
    size_t bytes = 0;
    const char *text = rt_tokenizer_piece(e->artifact->tokenizer, id, &bytes);
    return rt_guide_accept(r->guide, id, text, bytes)
               ? NULL
               : "the grammar is too ambiguous, or memory is short";
}

/* --- by the device -------------------------------------------------------------------------------
 */

/* The masks of an item's rows, the first of which is `row`: of each what may follow the drafts
 * before it; and why its row will be without a token, if it will. Rows behind a draft that cannot
 * come, or after which the text must end, do not matter. */
static void write_guided(const mcc_engine *e, rt_request *r, const rt_plan_item *item, int32_t row,
                         uint32_t *masks) {
    size_t words = (size_t)e->block.mask_words;
    int32_t k = 0, n = item->n_rows;
    const int32_t *drafts = item->seq->ids + item->first + item->n - n + 1;
    bool goes_on = n > 1 && rt_guide_set_mark(r->guide);
    for (int32_t i = 0; i < n; i++)
        e->sampled[row + i].why = no_number(r);
    for (;;) {
        const uint32_t *mask = rt_guide_mask(r->guide, &e->sampled[row + k].why);
        if (mask)
            memcpy(masks + (size_t)k * words, mask, words * sizeof *masks);
        else
            memset(masks + (size_t)k * words, 0, words * sizeof *masks);
        if (++k == n || !goes_on || !mask)
            break;
        int32_t draft = drafts[k - 1];
        if (!(mask[draft >> 5] >> (draft & 31) & 1) || accept_token(e, r, draft) ||
            r->guide->must_end)
            break;
    }
    memset(masks + (size_t)k * words, 0xff, (size_t)(n - k) * words * sizeof *masks);
    if (r->guide->mark.set)
        rt_guide_go_back(r->guide);
}

/* While the device works: step_block.h. Requests that do not need them have masks of all tokens. */
static void write_masks(void *context) {
    mcc_engine *e = context;
    const rt_plan *plan = e->sample_job.plan;
    uint32_t *masks = e->block.token_masks;
    int32_t row = 0;
    for (int32_t i = 0; i < plan->n_items; i++) {
        const rt_plan_item *item = &plan->items[i];
        rt_request *r = rt_request_of(item->seq);
        size_t size = (size_t)item->n_rows * (size_t)e->block.mask_words;
        if (r->guide && !needs_logits(r) && item->n_rows > 0)
            write_guided(e, r, item, row, masks);
        else
            memset(masks, 0xff, size * sizeof *masks);
        masks += size;
        row += item->n_rows;
    }
}

void rt_engine_ask_for_masks(mcc_engine *e, rt_plan *plan) {
    int32_t rows = 0;
    bool guided = false;
    for (int32_t i = 0; i < plan->n_items; i++) {
        const rt_request *r = rt_request_of(plan->items[i].seq);
        rows += plan->items[i].n_rows;
        guided = guided || (plan->items[i].n_rows > 0 && r->guide && !needs_logits(r));
    }
    e->sample_job.plan = plan;
    if (guided && rows <= e->block.limits.M)
        rt_step_mask_rows(&e->block, write_masks, e);
}

void rt_engine_sample_on_device(mcc_engine *e, const rt_request *r, int64_t position) {
    const rt_sampling *s = &r->sampling;
    rt_step_sample_row(&e->block, &(mcc_step_sampling){.temperature = s->temperature,
                                                       .top_p = s->top_p,
                                                       .min_p = s->min_p,
                                                       .top_k = s->top_k,
                                                       .seed = s->seed,
                                                       .position = (int32_t)position,
                                                       .sum = r->logprobs != NULL});
}

/* What the device has chosen. Where it has chosen nothing for a request with a grammar,
 * write_guided has said why. */
static void take(const mcc_engine *e, rt_request *r, const mcc_step_sampled *s, rt_sampled *to) {
    const char *why;
    to->id = (int32_t)s->id;
    to->logprob = r->logprobs ? rt_logprob_of(s->logit, s->greatest, s->sum) : 0;
    if (!r->guide)
        to->why = no_number(r);
    else if (to->id >= 0 && (why = accept_token(e, r, to->id))) {
        to->id = -1;
        to->why = why;
    }
}

/* --- by the host ---------------------------------------------------------------------------------
 */

/* Log-probabilities: of the model, so of the row as it came. */
static void measure(const mcc_engine *e, const rt_request *r, const float *row, rt_sampled *to) {
    int32_t ids[MCC_MAX_TOP_LOGPROBS];
    float greatest, sum;
    if (!rt_row_total(row, e->vocab_size, &greatest, &sum))
        return;
    to->logprob = rt_logprob_of(row[to->id], greatest, sum);
    int32_t n = r->n_top > 0 ? rt_top(row, e->vocab_size, r->n_top, ids) : 0;
    for (int32_t i = 0; i < r->n_top; i++)
        to->top[i] = i < n ? (mcc_logprob){ids[i], rt_logprob_of(row[ids[i]], greatest, sum)}
                           : (mcc_logprob){.token_id = -1};
}

/* Leaves the tokens that the request's grammar allows; why not any, when there are none. */
static const char *apply_grammar(rt_request *r, float *logits, int32_t n) {
    const char *why;
    const uint32_t *mask = rt_guide_mask(r->guide, &why);
    if (mask)
        rt_mask(logits, n, mask);
    return mask ? NULL : why;
}

/* The token at `position`, where the step's draft number `k` was drawn. */
static int32_t verify(const rt_sample_job *job, const rt_request *r, const float *logits, int32_t k,
                      int64_t position, char *space) {
    int32_t n = job->engine->vocab_size;
    uint32_t *weights = (uint32_t *)(space + job->weights_at);
    const rt_draft_job *draft = r->draft_job;
    rt_distribution p = {.weights = weights},
                    q = {.weights = draft->weights + (int64_t)k * n, .sum = draft->sums[k]};
    p.sum = rt_distribute(&r->sampling, logits, n, space + job->sampler_at, weights);
    return p.sum > 0 ? rt_verify_token(&p, &q, n, r->seq.ids[position], r->sampling.seed, position)
                     : -1;
}

/* The token at `position`: the device's choice, or the host's from a row of logits. `draft` is the
 * number of the step's draft there, -1: there is none. */
static void sample(const rt_sample_job *job, rt_request *r, int32_t row, int64_t position,
                   int32_t draft, char *space) {
    const mcc_engine *e = job->engine;
    rt_sampled *to = &e->sampled[row];
    const char *refused = NULL;
    if (e->device->samples && !rt_engine_samples_on_host(e, r)) {
        take(e, r, e->device->ops->sampled(e->device) + row, to);
        return;
    }
    const float *raw = e->device->ops->logits(e->device) + (int64_t)row * e->vocab_size;
    const float *logits = raw;
    if (rt_adjust_changes(&r->adjust) || r->guide) {
        float *adjusted = (float *)space;
        memcpy(adjusted, raw, (size_t)e->vocab_size * sizeof *raw);
        rt_adjust_apply(&r->adjust, adjusted);
        refused = r->guide ? apply_grammar(r, adjusted, e->vocab_size) : NULL;
        logits = adjusted;
    }
    if (refused)
        to->id = -1;
    else if (draft >= 0 && r->rejects)
        to->id = verify(job, r, logits, draft, position, space);
    else
        to->id = rt_sample(&r->sampling, logits, e->vocab_size, position, space + job->sampler_at);
    if (r->guide && to->id >= 0 && (refused = accept_token(e, r, to->id)))
        to->id = -1;
    if (to->id >= 0) /* at once: the row after a draft that is right counts it */
        rt_adjust_add(&r->adjust, to->id);
    to->why = refused ? refused : no_number(r);
    to->logprob = 0;
    if (r->logprobs && to->id >= 0)
        measure(e, r, raw, to);
}

/* The tokens of some items, of each one's drafts as long as the one before was right. */
static void sample_items(const mcc_cpu_call *call, int64_t begin, int64_t end, void *space) {
    const rt_sample_job *job = (const rt_sample_job *)call;
    for (int64_t i = begin; i < end; i++) {
        rt_plan_item *item = &job->plan->items[i];
        rt_request *r = rt_request_of(item->seq);
        int64_t next =
            item->first + item->n - item->n_rows + 1; /* the first row's token is there */
        for (int32_t k = 0; k < item->n_rows; k++) {
            int32_t row = job->first_rows[i] + k;
            sample(job, r, row, next + k, k + 1 < item->n_rows ? k : -1, space);
            bool must_end = r->guide && r->guide->must_end;
            if (k + 1 < item->n_rows &&
                (must_end || job->engine->sampled[row].id != item->seq->ids[next + k])) {
                item->n_valid = k + 1;
                break;
            }
        }
    }
}

/* Rows on the host are shared out to the pool's threads, which still spin from the kernels before;
 * what a device has chosen is only read. */
void rt_engine_sample(mcc_engine *e, rt_plan *plan) {
    rt_sample_job *job = &e->sample_job;
    int32_t row = 0;
    for (int32_t i = 0; i < plan->n_items; i++) {
        job->first_rows[i] = row;
        row += plan->items[i].n_rows;
    }
    job->plan = plan;
    const rt_job run = {.kernel = sample_items, .call = &job->call, .tiles = plan->n_items};
    if (e->pool && row > 1)
        rt_pool_run(e->pool, &run, 1, job->space, job->stride);
    else
        sample_items(&job->call, 0, plan->n_items, job->space);
}

/* --- making --------------------------------------------------------------------------------------
 */

bool rt_engine_make_sampler(mcc_engine *e) {
    rt_sample_job *job = &e->sample_job;
    size_t threads = e->pool ? (size_t)rt_pool_threads(e->pool) : 1;
    job->engine = e;
    job->sampler_at = ((size_t)e->vocab_size * sizeof(float) + 63) / 64 * 64;
    job->weights_at = (job->sampler_at + rt_sample_bytes(e->vocab_size) + 63) / 64 * 64;
    job->stride = job->weights_at;
    if (e->draft_weights)
        job->stride += ((size_t)e->vocab_size * sizeof(uint32_t) + 63) / 64 * 64;
    job->space = aligned_alloc(64, threads * job->stride);
    job->first_rows = malloc((size_t)e->max_seqs * sizeof *job->first_rows);
    return job->space && job->first_rows;
}

void rt_engine_free_sampler(mcc_engine *e) {
    free(e->sample_job.space);
    free(e->sample_job.first_rows);
}

/* Drafts for the engine's steps: who gets how many, and what became of them. */
#include "runtime/draft_model.h"
#include "runtime/engine.h"
#include "runtime/lookup.h"

#include <stdlib.h>

/* --- making --------------------------------------------------------------------------------------
 */

/* The draft's part of limited memory: as many tokens as the engine's cache has room for. */
static uint64_t draft_memory(const mcc_engine *e, const mcc_artifact *draft, int64_t max_len) {
    const rt_tables *t = &e->artifact->tables, *d = &draft->tables;
    uint64_t target = rt_kv_bytes_for(t->kv_groups, t->n_kv_groups, e->max_len, e->max_batched);
    uint64_t one = rt_kv_bytes_for(d->kv_groups, d->n_kv_groups, max_len, e->max_batched);
    long double bytes = (long double)rt_kv_bytes_reserved(e->kv) /
                        (long double)(target > 0 ? target : 1) * (long double)one;
    return bytes < (long double)one ? one : (uint64_t)bytes;
}

static bool make_distributions(mcc_engine *e, rt_error *error) {
    size_t rows = (size_t)e->max_batched, row = (size_t)e->vocab_size * sizeof(uint32_t);
    e->draft_weights = malloc(rows * row);
    e->draft_sums = malloc(rows * sizeof *e->draft_sums);
    return (e->draft_weights && e->draft_sums) ||
           rt_fail(error, MCC_OUT_OF_MEMORY,
                   "out of memory for the distributions of %zu drafts: lower "
                   "max_num_batched_tokens",
                   rows);
}

bool rt_engine_make_proposer(mcc_engine *e, const mcc_engine_options *o,
                             const rt_device_name *device, rt_error *error) {
    const mcc_artifact *draft = o->draft;
    if (!draft) {
        int32_t max = o->prompt_lookup_max > 0 ? o->prompt_lookup_max : RT_LOOKUP_MAX;
        int32_t min = o->prompt_lookup_min > 0 ? o->prompt_lookup_min
                      : max < RT_LOOKUP_MIN    ? max
                                               : RT_LOOKUP_MIN;
        e->proposer = rt_lookup_create(min, max);
        return e->proposer || rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");
    }
    rt_device_name same;
    static const char *const names[] = {"cpu", "cuda", "emulator"};
    if (!rt_draft_check(draft, e->artifact, error) ||
        !rt_device_choose(o->device ? o->device : names[device->kind], draft, &same, error))
        return false;
    int64_t trained = draft->tables.header->max_model_len;
    int64_t max_len = trained < e->max_len ? trained : e->max_len;
    double weights = (double)e->artifact->parts[MCC_SECTION_WEIGHTS].bytes;
    rt_draft_options options = {
        .slots = e->max_seqs,
        .max_len = max_len,
        .max_batched = e->max_batched,
        .memory_bytes = draft_memory(e, draft, max_len),
        .pool = e->pool,
        .device = *device,
        .null = o->flags & MCC_ENGINE_NULL_DEVICE,
        .ratio = weights > 0 ? (double)draft->parts[MCC_SECTION_WEIGHTS].bytes / weights : 1};
    e->proposer = rt_draft_model_create(draft, &options, error);
    return e->proposer &&
           (!(o->flags & MCC_ENGINE_REJECTION_SAMPLING) || make_distributions(e, error));
}

/* --- steps ---------------------------------------------------------------------------------------
 */

/* The step that comes, as far as it is known before it is planned. */
static rt_draft_step next_step(const mcc_engine *e) {
    int64_t tokens = 0;
    const rt_proposer *p = e->proposer;
    rt_draft_step step = {.draft = p->ops->propose ? &p->cost : NULL, .draft_ratio = p->ratio};
    rt_seq *seq = rt_scheduler_next(e->scheduler, NULL);
    for (; seq && seq->state == RT_SEQ_RUNNING; seq = seq->next) {
        tokens += seq->n_ids - seq->computed;
        step.decoding += seq->computed == seq->n_ids - 1;
    }
    step.tokens = tokens < e->max_batched ? (int32_t)tokens : e->max_batched;
    return step;
}

void rt_engine_offer_drafts(mcc_engine *e) {
    rt_seq *seq = rt_scheduler_next(e->scheduler, NULL);
    int n = 0;
    for (; seq && seq->state == RT_SEQ_RUNNING; seq = seq->next) {
        rt_request *r = rt_request_of(seq);
        seq->n_drafts = 0;
        if (r->max_drafts == 0 || seq->computed != seq->n_ids - 1)
            continue;
        /* The token after the drafts must fit, too. */
        int64_t room = r->max_ids - seq->n_ids - 1;
        int32_t most = room < r->max_drafts ? (int32_t)room : r->max_drafts;
        int32_t count =
            e->proposer->ops->offer(e->proposer, r->draft_state, seq, most, &r->draft_class);
        if (count > 0) {
            e->offered[n] = r;
            e->offers[n++] =
                (rt_draft_offer){.n = count, .first = r->draft_class, .acceptance = &r->acceptance};
        }
    }
    if (n == 0)
        return;
    rt_draft_step step = next_step(e);
    if (!e->draft_always)
        rt_speculation_choose(&e->speculation, &step, e->offers, n);
    for (int i = 0; i < n; i++)
        e->offered[i]->seq.n_drafts = e->draft_always ? e->offers[i].n : e->offers[i].chosen;
}

/* Whether drafts for sequences that begin are likely to pay. */
static bool is_hopeful(const mcc_engine *e) {
    rt_draft_step one = {
        .decoding = 1, .tokens = 1, .draft = &e->proposer->cost, .draft_ratio = e->proposer->ratio};
    return e->draft_always || rt_speculation_hopeful(&e->speculation, &one, 4);
}

void rt_engine_gather_drafts(mcc_engine *e, const rt_plan *plan) {
    rt_seq *seq = rt_scheduler_next(e->scheduler, NULL);
    e->n_draft_jobs = 0;
    e->drafts_kept = 0;
    bool hopeful = e->proposer->ops->propose && is_hopeful(e);
    int32_t distributions = 0;
    for (; seq && seq->state == RT_SEQ_RUNNING && e->proposer->ops->propose; seq = seq->next) {
        rt_request *r = rt_request_of(seq);
        r->draft_job = NULL;
        if (r->max_drafts == 0)
            continue;
        const rt_plan_item *item = seq->item >= 0 ? &plan->items[seq->item] : NULL;
        rt_draft_job *job = &e->draft_jobs[e->n_draft_jobs++];
        *job = (rt_draft_job){
            .seq = seq,
            .sampling = &r->sampling,
            .wanted = item && item->n_rows > 1 ? item->n_rows - 1 : 0,
            .prompt = hopeful && item && (item->first < seq->n_prompt || item->n > item->n_rows),
        };
        if (r->rejects && job->wanted > 0) {
            job->weights = e->draft_weights + (int64_t)distributions * e->vocab_size;
            job->sums = e->draft_sums + distributions;
            distributions += job->wanted;
            r->draft_job = job;
        }
    }
}

bool rt_engine_propose(mcc_engine *e, rt_plan *plan, rt_error *error) {
    if (e->n_draft_jobs == 0)
        return true;
    if (!e->proposer->ops->propose(e->proposer, e->draft_jobs, e->n_draft_jobs, error))
        return false;
    for (int i = 0; i < e->n_draft_jobs; i++) {
        const rt_draft_job *job = &e->draft_jobs[i];
        rt_plan_item *item = job->seq->item >= 0 ? &plan->items[job->seq->item] : NULL;
        int32_t missing = item && item->n_rows > 1 ? item->n_rows - 1 - job->drafted : 0;
        if (missing == 0)
            continue;
        item->n -= missing;
        item->n_rows -= missing;
        item->n_valid -= missing;
        plan->n_tokens -= missing;
        plan->n_decode -= item->first >= job->seq->n_prompt ? missing : 0;
    }
    return true;
}

void rt_engine_settle_drafts(mcc_engine *e, const rt_plan_item *item, int32_t kept) {
    rt_request *r = rt_request_of(item->seq);
    int32_t drafted = item->n_rows - 1;
    e->stats.draft_tokens += (uint64_t)drafted;
    e->stats.accepted_tokens += (uint64_t)kept;
    e->drafts_kept += kept;
    for (int32_t i = 0; i < drafted; i++)
        e->stats.draft_tokens_at[i]++;
    for (int32_t i = 0; i < kept; i++)
        e->stats.accepted_tokens_at[i]++;
    rt_acceptance_learn(&r->acceptance, r->draft_class, drafted, kept);
    rt_acceptance_learn(&e->speculation.acceptance, r->draft_class, drafted, kept);
    if (e->proposer->ops->settle)
        e->proposer->ops->settle(e->proposer, item->seq, kept);
}

void rt_engine_account_drafts(mcc_engine *e, const rt_plan *plan, double seconds) {
    rt_draft_step step = {.tokens = plan->n_tokens};
    int32_t drafted = 0;
    for (int32_t i = 0; i < plan->n_items; i++) {
        const rt_plan_item *item = &plan->items[i];
        step.decoding += item->n_rows > 0 && item->n == item->n_rows;
        drafted += item->n_rows > 1 ? item->n_rows - 1 : 0;
    }
    step.tokens -= drafted;
    rt_step_cost_learn(&e->speculation.cost, plan->n_tokens, seconds);
    if (step.decoding > 0)
        rt_speculation_account(&e->speculation, &step, drafted, e->drafts_kept,
                               e->n_draft_jobs > 0 ? e->proposer->spent : 0);
}

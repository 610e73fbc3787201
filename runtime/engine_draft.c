/* Drafts for the engine's steps: who gets how many, and what became of them. */
#include "runtime/draft_model.h"
#include "runtime/engine.h"
#include "runtime/lookup.h"

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
    rt_draft_options options = {.slots = e->max_seqs,
                                .max_len = max_len,
                                .max_batched = e->max_batched,
                                .memory_bytes = draft_memory(e, draft, max_len),
                                .pool = e->pool,
                                .device = *device,
                                .null = o->flags & MCC_ENGINE_NULL_DEVICE};
    e->proposer = rt_draft_model_create(draft, &options, error);
    return e->proposer != NULL;
}

/* --- steps ---------------------------------------------------------------------------------------
 */

static bool drafts(const rt_request *r) {
    return r->max_drafts > 0 && !rt_adjust_has_memory(&r->adjust);
}

void rt_engine_offer_drafts(mcc_engine *e) {
    rt_seq *seq = rt_scheduler_next(e->scheduler, NULL);
    for (; seq && seq->state == RT_SEQ_RUNNING; seq = seq->next) {
        rt_request *r = rt_request_of(seq);
        seq->n_drafts = 0;
        if (!drafts(r) || seq->computed != seq->n_ids - 1)
            continue;
        /* The token after the drafts must fit, too. */
        int64_t room = r->max_ids - seq->n_ids - 1;
        int32_t most = room < r->max_drafts ? (int32_t)room : r->max_drafts;
        seq->n_drafts = e->proposer->ops->offer(e->proposer, r->draft_state, seq, most);
    }
}

void rt_engine_gather_drafts(mcc_engine *e, const rt_plan *plan) {
    rt_seq *seq = rt_scheduler_next(e->scheduler, NULL);
    e->n_draft_jobs = 0;
    for (; seq && seq->state == RT_SEQ_RUNNING && e->proposer->ops->propose; seq = seq->next) {
        rt_request *r = rt_request_of(seq);
        if (!drafts(r))
            continue;
        const rt_plan_item *item = seq->item >= 0 ? &plan->items[seq->item] : NULL;
        e->draft_jobs[e->n_draft_jobs++] = (rt_draft_job){
            .seq = seq,
            .sampling = &r->sampling,
            .wanted = item && item->n_rows > 1 ? item->n_rows - 1 : 0,
            .prompt = item && (item->first < seq->n_prompt || item->n > item->n_rows),
        };
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
    e->stats.draft_tokens += (uint64_t)(item->n_rows - 1);
    e->stats.accepted_tokens += (uint64_t)kept;
    if (e->proposer->ops->settle)
        e->proposer->ops->settle(e->proposer, item->seq, kept);
}

/* Steps: the scheduler says what to compute, the device computes it, requests get their tokens. */
#include "runtime/engine.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void rt_engine_drop_eval(mcc_engine *e) {
    for (int32_t slot = 0; e->eval_held && slot < e->n_slots; slot++)
        rt_kv_truncate(e->kv, slot, 0);
    e->eval_held = false;
}

void rt_engine_lose_cache(mcc_engine *e) {
    rt_scheduler_lose_cache(e->scheduler);
    rt_engine_drop_eval(e);
    rt_kv_forget(e->kv);
    rt_kv_copies_made(e->kv);
    if (e->proposer->ops->reset)
        e->proposer->ops->reset(e->proposer, true);
}

/* Where the device samples, logits are copied only if a row needs the host. */
static void fill_block(mcc_engine *e, rt_plan *plan) {
    bool device = e->device->samples, host = !device;
    rt_step_begin(&e->block);
    if (device)
        rt_engine_ask_for_masks(e, plan);
    for (int32_t i = 0; i < plan->n_items; i++) {
        const rt_plan_item *item = &plan->items[i];
        const rt_request *r = rt_request_of(item->seq);
        int32_t begin = e->block.step->T;
        rt_step_add(&e->block, item->seq->slot, item->seq->ids + item->first, item->n,
                    (int32_t)item->first);
        for (int32_t k = item->n - item->n_rows; k < item->n; k++) {
            rt_step_add_row(&e->block, begin + k);
            if (device)
                rt_engine_sample_on_device(e, r, item->first + k + 1);
            host = host || rt_engine_samples_on_host(e, r);
        }
    }
    e->block.logits = host;
    rt_step_finish(&e->block, e->kv);
}

/* To the host's memory, or back. */
static bool swap_page(mcc_engine *e, const rt_kv_copy *c, rt_error *error) {
    const rt_device_ops *ops = e->device->ops;
    const mcc_kv_group_entry *g = &e->artifact->tables.kv_groups[c->group];
    bool out = c->kind == RT_KV_TO_HOST;
    uint64_t at = (uint64_t)(out ? c->to : c->from) * g->layer_bytes * (uint64_t)g->layers;
    for (uint32_t i = 0; i < c->group; i++)
        at += rt_kv_host_bytes(e->kv, i);
    double start = rt_engine_now();
    bool ok = out ? ops->read_page(e->device, c->group, c->from, e->device->host + at, error)
                  : ops->write_page(e->device, c->group, c->to, e->device->host + at, error);
    e->swap_seconds += rt_engine_now() - start;
    e->swapped_pages++;
    return ok;
}

/* Page copies, in their order: within the pool a row of them at once. */
static bool make_copies(mcc_engine *e, rt_error *error) {
    int n;
    const rt_kv_copy *copies = rt_kv_copies(e->kv, &n);
    bool ok = true;
    for (int i = 0, end; i < n && ok; i = end) {
        for (end = i; end < n && copies[end].kind == RT_KV_WITHIN;)
            end++;
        if (end > i)
            ok = e->device->ops->copy_pages(e->device, copies + i, end - i, error);
        else
            ok = swap_page(e, &copies[end++], error);
    }
    rt_kv_copies_made(e->kv);
    return ok;
}

/* What moving a token's pages out and back costs, in tokens computed in that time. Before pages
 * have been moved, as slow a bus as there is today is assumed. */
static double swap_cost(const mcc_engine *e) {
    static const double bytes_per_second = 8e9, seconds_per_copy = 5e-6;
    const rt_tables *t = &e->artifact->tables;
    double pages = 0, seconds = 0; /* of a token */
    for (uint32_t i = 0; i < t->n_kv_groups; i++) {
        const mcc_kv_group_entry *g = &t->kv_groups[i];
        double page =
            (double)g->layers * (seconds_per_copy + (double)g->layer_bytes / bytes_per_second);
        pages += 1.0 / g->page_tokens;
        seconds += page / g->page_tokens;
    }
    if (e->swapped_pages > 0)
        seconds = pages * e->swap_seconds / (double)e->swapped_pages;
    return e->stats.prefill_seconds > 0
               ? 2 * seconds * (double)e->stats.prefill_tokens / e->stats.prefill_seconds
               : INFINITY;
}

static bool run_block(mcc_engine *e, rt_error *error) {
    bool ok = make_copies(e, error);
    return ok && e->device->ops->run(e->device, error);
}

static void count(mcc_engine *e, const rt_plan *plan, double seconds) {
    int32_t prefill = plan->n_tokens - plan->n_decode;
    e->stats.steps++;
    e->stats.prefill_tokens += (uint64_t)prefill;
    *(prefill > 0 ? &e->stats.prefill_seconds : &e->stats.decode_seconds) += seconds;
    e->stats.last_prefill_tokens = prefill;
    e->stats.last_decode_tokens = plan->n_decode;
    for (int32_t i = 0; i < plan->n_items; i++) {
        rt_request *r = rt_request_of(plan->items[i].seq);
        bool prompt = plan->items[i].first < r->seq.n_prompt;
        *(prompt ? &r->prefill_seconds : &r->decode_seconds) += seconds;
    }
}

/* Gives a request the token of its row. */
static bool add_token(mcc_engine *e, rt_request *r, const rt_sampled *s, rt_error *error) {
    bool added = s->id < 0 ? rt_fail(error, MCC_INTERNAL,
                                     "no token can be chosen for position %" PRId64
                                     " of request %" PRIu64 ": %s",
                                     r->seq.n_ids, r->id, s->why)
                           : rt_request_add(r, s, error);
    e->stats.generated_tokens += added;
    rt_engine_make_ready(e, r);
    if (!added)
        rt_engine_finish(e, r, MCC_FINISH_ERROR);
    else if (r->finished)
        rt_engine_finished(e, r);
    return added;
}

/* The tokens of an item's rows: one, and those that follow drafts that were right. */
static bool add_tokens(mcc_engine *e, const rt_plan_item *item, int32_t row, rt_error *error) {
    rt_request *r = rt_request_of(item->seq);
    int32_t drafted = item->n_rows - 1, n = drafted > 0 ? item->n_valid : 1;
    if (drafted > 0)
        rt_engine_settle_drafts(e, item, n - 1);
    for (int32_t k = 0; k < n && !r->finished; k++)
        if (!add_token(e, r, &e->sampled[row + k], error))
            return false;
    return true;
}

/* Gives requests their tokens; ends those that were cancelled meanwhile, and all of the step when
 * it failed. */
static bool hand_out(mcc_engine *e, const rt_plan *plan, bool ok, rt_error *error) {
    int32_t row = 0;
    bool all = ok;
    for (int32_t i = 0; i < plan->n_items; i++) {
        const rt_plan_item *item = &plan->items[i];
        rt_request *r = rt_request_of(item->seq);
        if (r->cancelled || !ok)
            rt_engine_finish(e, r, r->cancelled ? MCC_FINISH_CANCELLED : MCC_FINISH_ERROR);
        else if (item->n_rows > 0 && e->artifact->tables.pooling)
            all = rt_engine_embed(e, item, row, error) && all;
        else if (item->n_rows > 0)
            all = add_tokens(e, item, row, error) && all;
        row += item->n_rows;
    }
    return all;
}

/* Those that were cancelled meanwhile and had no part in the step. */
static void end_cancelled(mcc_engine *e) {
    rt_seq *seq = e->some_cancelled ? rt_scheduler_next(e->scheduler, NULL) : NULL;
    for (rt_seq *next; seq; seq = next) {
        next = rt_scheduler_next(e->scheduler, seq);
        if (rt_request_of(seq)->cancelled)
            rt_engine_finish(e, rt_request_of(seq), MCC_FINISH_CANCELLED);
    }
    e->some_cancelled = false;
}

/* The scheduler has something to do whenever a request is unfinished: else it, or the KV cache, is
 * broken, and nothing would ever end. */
static bool nothing_planned(mcc_engine *e, rt_error *error) {
    if (e->n_unfinished == 0)
        return true;
    for (rt_seq *seq; (seq = rt_scheduler_next(e->scheduler, NULL));)
        rt_engine_finish(e, rt_request_of(seq), MCC_FINISH_ERROR);
    return rt_fail(error, MCC_INTERNAL, "requests are unfinished, but none can be computed");
}

/* In debug builds, after each step. */
static bool check_invariants(mcc_engine *e, bool ok, rt_error *error) {
#ifndef NDEBUG
    rt_error broken = {0};
    if (!rt_kv_check(e->kv, &broken))
        return rt_fail(error, broken.code, "%s", broken.text);
#else
    (void)e, (void)error;
#endif
    return ok;
}

/* With the mutex, which it gives up while the device works. */
static bool step(mcc_engine *e, rt_error *error) {
    double start = rt_engine_now();
    for (rt_seq *seq; (seq = rt_scheduler_expired(e->scheduler, start));)
        rt_engine_finish(e, rt_request_of(seq), MCC_FINISH_DEADLINE);
    if (e->n_unfinished == 0)
        return true;
    rt_engine_drop_eval(e);
    rt_engine_offer_drafts(e);
    if (e->preemption_mode == MCC_PREEMPT_AUTO)
        rt_scheduler_set_swap_cost(e->scheduler, swap_cost(e));
    rt_plan *plan = rt_scheduler_plan(e->scheduler);
    if (plan->n_items == 0)
        return nothing_planned(e, error);
    rt_engine_gather_drafts(e, plan);
    e->stepping = true;
    rt_engine_unlock(e);
    bool ok = rt_engine_propose(e, plan, error);
    double proposed = rt_engine_now();
    if (ok) {
        fill_block(e, plan);
        ok = run_block(e, error);
    }
    if (ok && !e->artifact->tables.pooling)
        rt_engine_sample(e, plan);
    double ended = rt_engine_now();
    rt_engine_lock(e);
    e->stepping = false;
    e->device->ops->stats(e->device, &e->device_stats);
    rt_scheduler_done(e->scheduler, ok);
    count(e, plan, ended - start);
    bool lost = !ok;
    ok = hand_out(e, plan, ok, error);
    if (!lost && !e->artifact->tables.pooling)
        rt_engine_account_drafts(e, plan, ended - proposed);
    end_cancelled(e);
    if (lost)
        rt_engine_lose_cache(e);
    return check_invariants(e, ok, error);
}

mcc_status mcc_engine_step(mcc_engine *engine, int32_t *unfinished, mcc_error *error) {
    if (!engine)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine must be set", __func__);
    rt_error e = {0};
    rt_engine_lock(engine);
    rt_engine_await_batch(engine);
    bool ok = step(engine, &e);
    if (engine->on_event)
        rt_engine_deliver(engine);
    if (unfinished)
        *unfinished = engine->n_unfinished;
    rt_engine_unlock(engine);
    return ok ? MCC_OK : rt_report(&e, error);
}

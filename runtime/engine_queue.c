/* Requests come, are cancelled, and their events are taken. */
#include "runtime/engine.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static rt_request **bucket_of(mcc_engine *e, uint64_t id) {
    return &e->buckets[id % RT_REQUEST_BUCKETS];
}

static rt_request *find_request(const mcc_engine *e, uint64_t id) {
    rt_request *r = e->buckets[id % RT_REQUEST_BUCKETS];
    while (r && r->id != id)
        r = r->next;
    return r;
}

static mcc_status no_request(mcc_error *error, uint64_t id) {
    return rt_refuse(error, MCC_NOT_FOUND,
                     "no request %" PRIu64 ": never submitted, or polled to its end", id);
}

/* --- ready requests, in the order in which they became so ----------------------------------------
 */

void rt_engine_make_ready(mcc_engine *e, rt_request *r) {
    if (r->ready)
        return;
    r->ready = true;
    r->ready_prev = e->ready_last;
    r->ready_next = NULL;
    *(e->ready_last ? &e->ready_last->ready_next : &e->ready_first) = r;
    e->ready_last = r;
}

static void make_unready(mcc_engine *e, rt_request *r) {
    if (!r->ready)
        return;
    r->ready = false;
    *(r->ready_prev ? &r->ready_prev->ready_next : &e->ready_first) = r->ready_next;
    *(r->ready_next ? &r->ready_next->ready_prev : &e->ready_last) = r->ready_prev;
}

/* --- their lives ---------------------------------------------------------------------------------
 */

void rt_engine_finished(mcc_engine *e, rt_request *r) {
    rt_scheduler_remove(e->scheduler, &r->seq);
    e->n_unfinished--;
    rt_engine_make_ready(e, r);
}

void rt_engine_finish(mcc_engine *e, rt_request *r, int32_t reason) {
    rt_request_finish(r, reason);
    rt_engine_finished(e, r);
}

static void forget_request(mcc_engine *e, rt_request *r) {
    rt_request **at = bucket_of(e, r->id);
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    make_unready(e, r);
    rt_request_free(r);
}

void rt_engine_free_requests(mcc_engine *e) {
    for (int i = 0; i < RT_REQUEST_BUCKETS; i++)
        for (rt_request *r = e->buckets[i], *next; r; r = next) {
            next = r->next;
            rt_request_free(r);
        }
}

/* --- submitting ----------------------------------------------------------------------------------
 */

static void free_list(rt_request *r) {
    for (rt_request *next; r; r = next) {
        next = r->next;
        rt_request_free(r);
    }
}

/* The request, and n-1 more with the same prompt and the next seeds; linked by `next`. */
static rt_request *create_samples(const mcc_engine *e, const mcc_request_params *params,
                                  rt_error *error) {
    mcc_request_params p = *params;
    int32_t n = p.n > 0 ? p.n : 1;
    if (p.n < 0 || p.n > e->max_waiting) {
        rt_fail(error, MCC_INVALID_ARGUMENT, "n is %" PRId32 ", expected 1 to %" PRId32, p.n,
                e->max_waiting);
        return NULL;
    }
    rt_request *first = rt_request_create(e, &p, error), *last = first;
    if (!first)
        return NULL;
    p.prompt = p.messages = NULL;
    p.prompt_ids = first->seq.ids;
    p.n_prompt_ids = first->seq.n_prompt;
    for (int32_t i = 1; i < n; i++) {
        p.seed = params->seed + (uint64_t)i;
        rt_request *r = rt_request_create(e, &p, error);
        if (!r) {
            free_list(first);
            return NULL;
        }
        r->seq.leader = &first->seq;
        last = last->next = r;
    }
    return first;
}

/* With the mutex: all of them, or none. *id becomes the first one's. */
static bool enqueue(mcc_engine *e, rt_request *first, double deadline_seconds, uint64_t *id,
                    rt_error *error) {
    double now = rt_engine_now();
    int64_t n = 0;
    for (rt_request *r = first; r; r = r->next)
        n++;
    if (e->draining)
        return rt_fail(error, MCC_DRAINING, "the engine takes no more requests: it is drained");
    if (rt_scheduler_get_stats(e->scheduler).waiting + n > e->max_waiting)
        return rt_fail(error, MCC_CAPACITY,
                       "the queue is full: max_num_waiting is %" PRId32 "; try again later",
                       e->max_waiting);
    *id = e->last_id + 1;
    for (rt_request *r = first, *next; r; r = next) {
        next = r->next;
        r->id = ++e->last_id;
        r->next = *bucket_of(e, r->id);
        *bucket_of(e, r->id) = r;
        r->seq.arrival = now;
        r->seq.deadline = deadline_seconds > 0 ? now + deadline_seconds : INFINITY;
        rt_scheduler_add(e->scheduler, &r->seq);
        e->n_unfinished++;
    }
    return true;
}

mcc_status mcc_request_submit(mcc_engine *engine, const mcc_request_params *params, uint64_t *id,
                              mcc_error *error) {
    mcc_request_params local;
    rt_error e = {0};
    if (!engine || !params || !id || !rt_take_struct(&local, sizeof local, params))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine, params with struct_size, and id must be set", __func__);
    rt_request *first = create_samples(engine, &local, &e);
    if (!first)
        return rt_report(&e, error);
    rt_engine_lock(engine);
    bool taken = enqueue(engine, first, local.deadline_seconds, id, &e);
    pthread_cond_broadcast(&engine->arrival);
    rt_engine_unlock(engine);
    if (taken)
        return MCC_OK;
    free_list(first);
    return rt_report(&e, error);
}

mcc_status mcc_engine_drain(mcc_engine *engine, double seconds, mcc_error *error) {
    if (!engine || !(seconds >= 0))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine must be set, and seconds 0 (no limit) or more", __func__);
    rt_engine_lock(engine);
    engine->draining = true;
    if (seconds > 0 && isfinite(seconds))
        rt_scheduler_limit(engine->scheduler, rt_engine_now() + seconds);
    pthread_cond_broadcast(&engine->arrival);
    rt_engine_unlock(engine);
    return MCC_OK;
}

mcc_status mcc_request_cancel(mcc_engine *engine, uint64_t id, mcc_error *error) {
    if (!engine)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine must be set", __func__);
    rt_engine_lock(engine);
    rt_request *r = find_request(engine, id);
    if (r && !r->finished && engine->stepping && r->seq.state == RT_SEQ_RUNNING)
        r->cancelled = engine->some_cancelled = true;
    else if (r && !r->finished)
        rt_engine_finish(engine, r, MCC_FINISH_CANCELLED);
    pthread_cond_broadcast(&engine->arrival);
    rt_engine_unlock(engine);
    return r ? MCC_OK : no_request(error, id);
}

mcc_status mcc_request_prompt_ids(const mcc_engine *engine, uint64_t id, int32_t *ids,
                                  int64_t capacity, int64_t *n, mcc_error *error) {
    if (!engine || !n || capacity < 0 || (capacity > 0 && !ids))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine, n, and ids for the capacity must be set", __func__);
    rt_engine_lock(engine);
    const rt_request *r = find_request(engine, id);
    if (r) {
        *n = r->seq.n_prompt;
        if (capacity > 0)
            memcpy(ids, r->seq.ids, (size_t)(*n < capacity ? *n : capacity) * sizeof *ids);
    }
    rt_engine_unlock(engine);
    if (!r)
        return no_request(error, id);
    if (*n > capacity)
        return rt_refuse(error, MCC_BUFFER_TOO_SMALL,
                         "%" PRId64 " token ids, but room for %" PRId64, *n, capacity);
    return MCC_OK;
}

/* --- polling -------------------------------------------------------------------------------------
 */

/* Copies a piece of a request's text to where the caller may read it. */
static void take_text(mcc_engine *e, rt_request *r, int64_t until, mcc_event *event) {
    rt_output_text *t = &r->text;
    size_t bytes = (size_t)(until - t->begin);
    memcpy(e->event_text, t->buffer + (t->begin - t->base), bytes);
    e->event_text[bytes] = 0;
    event->text = e->event_text;
    event->text_bytes = bytes;
    t->begin = until;
}

static void take_embedding(mcc_engine *e, const rt_request *r, mcc_event *event) {
    if (!r->embedding || r->finish_reason != MCC_FINISH_STOP)
        return;
    event->n_embedding = e->artifact->tables.rows->width;
    memcpy(e->event_embedding, r->embedding, (size_t)event->n_embedding * sizeof(float));
    event->embedding = e->event_embedding;
}

/* A request's next event. After the last one the request is gone. */
static void take_event(mcc_engine *e, rt_request *r, mcc_event *event) {
    event->request = r->id;
    event->user_data = r->user_data;
    if (r->polled < r->seq.n_ids - r->seq.n_prompt) {
        int64_t i = r->polled++;
        event->kind = MCC_EVENT_TOKEN;
        event->token_id = r->seq.ids[r->seq.n_prompt + i];
        event->logprob = r->logprobs ? r->logprobs[i] : 0;
        if (r->top)
            event->top_logprobs = r->top + i * r->n_top;
        while (event->n_top_logprobs < r->n_top &&
               event->top_logprobs[event->n_top_logprobs].token_id >= 0)
            event->n_top_logprobs++;
        take_text(e, r, r->text_ends[i], event);
    } else if (r->finished) {
        event->kind = MCC_EVENT_FINISHED;
        event->finish_reason = r->finish_reason;
        event->prompt_tokens = r->seq.n_prompt;
        event->cached_tokens = r->seq.cached;
        event->completion_tokens = r->seq.n_ids - r->seq.n_prompt;
        event->prefill_seconds = r->prefill_seconds;
        event->decode_seconds = r->decode_seconds;
        event->preemptions = r->seq.preemptions;
        take_embedding(e, r, event);
        take_text(e, r, r->text.released, event);
        forget_request(e, r);
    } else {
        make_unready(e, r);
    }
}

static mcc_event no_event(void) {
    return (mcc_event){
        .struct_size = sizeof(mcc_event), .kind = MCC_EVENT_NONE, .token_id = -1, .text = ""};
}

void rt_engine_deliver(mcc_engine *e) {
    while (e->ready_first) {
        mcc_event event = no_event();
        take_event(e, e->ready_first, &event);
        if (event.kind == MCC_EVENT_NONE)
            continue;
        rt_engine_unlock(e);
        e->on_event(e->on_event_context, &event);
        rt_engine_lock(e);
    }
}

static mcc_status check_poll(const mcc_engine *e, const mcc_event *event, const char *function,
                             mcc_error *error) {
    if (!e || !event || event->struct_size < sizeof event->struct_size + sizeof event->kind)
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine, and event with its struct_size, must be set", function);
    if (e->on_event)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: on_event gets this engine's events",
                         function);
    return MCC_OK;
}

mcc_status mcc_engine_poll(mcc_engine *engine, uint64_t id, mcc_event *event, mcc_error *error) {
    mcc_status status = check_poll(engine, event, __func__, error);
    if (status)
        return status;
    mcc_event local = no_event();
    rt_engine_lock(engine);
    rt_request *r = find_request(engine, id);
    if (r)
        take_event(engine, r, &local);
    rt_engine_unlock(engine);
    if (!r)
        return no_request(error, id);
    rt_give_struct(&local, sizeof local, event);
    return MCC_OK;
}

mcc_status mcc_engine_next_event(mcc_engine *engine, mcc_event *event, mcc_error *error) {
    mcc_status status = check_poll(engine, event, __func__, error);
    if (status)
        return status;
    mcc_event local = no_event();
    rt_engine_lock(engine);
    while (local.kind == MCC_EVENT_NONE && engine->ready_first)
        take_event(engine, engine->ready_first, &local);
    rt_engine_unlock(engine);
    if (local.kind == MCC_EVENT_NONE)
        local.request = 0;
    rt_give_struct(&local, sizeof local, event);
    return MCC_OK;
}

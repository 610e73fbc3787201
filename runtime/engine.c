#include "runtime/engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    DEFAULT_BATCHED_TOKENS = 128, /* enough for the GEMMs' speed; activations stay in the caches */
    MAX_BATCHED_TOKENS = 1 << 16,
    MAX_SEQUENCES = 1 << 12
};

static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- making --------------------------------------------------------------------------------------
 */

static bool check_options(const mcc_artifact *a, const mcc_engine_options *o, rt_error *error) {
    if (a->inspect)
        return rt_fail(error, MCC_UNSUPPORTED,
                       "%s: opened with MCC_OPEN_INSPECT: open it without to run it", a->path);
    if (o->flags & ~(uint32_t)(MCC_ENGINE_NULL_DEVICE | MCC_ENGINE_TIMINGS))
        return rt_fail(error, MCC_INVALID_ARGUMENT, "unknown engine flags 0x%x",
                       (unsigned)o->flags);
    if (o->max_num_seqs < 0 || o->max_num_seqs > 1)
        return rt_fail(error, MCC_CAPACITY,
                       "max_num_seqs is %" PRId32
                       ", but an engine runs one sequence at a time: use 1 (requests wait in "
                       "line), or several engines that share a pool",
                       o->max_num_seqs);
    if (o->max_num_batched_tokens < 0 || o->max_num_batched_tokens > MAX_BATCHED_TOKENS)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_num_batched_tokens is %" PRId32 ", expected 1 to %d (0: %d)",
                       o->max_num_batched_tokens, MAX_BATCHED_TOKENS, DEFAULT_BATCHED_TOKENS);
    if (o->max_eval_seqs < 0 || o->max_eval_seqs > MAX_SEQUENCES)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_eval_seqs is %" PRId32 ", expected 1 to %d (0: 1)", o->max_eval_seqs,
                       MAX_SEQUENCES);
    int64_t trained = a->tables.header->max_model_len;
    if (o->max_model_len < 0 || o->max_model_len > trained)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_model_len is %" PRId64 ", but the model was trained for %" PRId64
                       " positions",
                       o->max_model_len, trained);
    return true;
}

static bool create(mcc_engine *e, const mcc_engine_options *o, rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    e->vocab_size = (int32_t)t->header->vocab_size;
    e->n_slots = o->max_eval_seqs > 0 ? o->max_eval_seqs : 1;
    e->max_len = o->max_model_len > 0 ? o->max_model_len : t->header->max_model_len;
    e->max_batched =
        o->max_num_batched_tokens > 0 ? o->max_num_batched_tokens : DEFAULT_BATCHED_TOKENS;

    rt_device_name name;
    if (!rt_device_choose(o->device, e->artifact, &name, error))
        return false;
    bool cpu = name.kind == RT_DEVICE_CPU;
    e->pool = cpu ? o->pool : NULL;
    if (cpu && !e->pool) {
        e->pool = rt_pool_create(o->threads, error);
        e->own_pool = true;
        if (!e->pool)
            return false;
    }
    rt_kv_options kv = {.slots = e->n_slots,
                        .max_len = e->max_len,
                        .max_step = e->max_batched,
                        .memory_bytes = o->kv_cache_memory_bytes};
    e->kv = rt_kv_create(t->kv_groups, t->n_kv_groups, &kv, error);
    if (!e->kv)
        return false;
    rt_step_limits limits = {.T = e->max_batched,
                             .S = e->n_slots,
                             .R = e->max_batched,
                             .G = (int32_t)t->n_kv_groups,
                             .P = rt_kv_table_entries(e->kv)};
    if (!rt_step_block_create(&e->block, &limits, error))
        return false;
    if (o->flags & MCC_ENGINE_TIMINGS) {
        e->launch_seconds = calloc((size_t)t->n_launches + 1, sizeof *e->launch_seconds);
        if (!e->launch_seconds)
            return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");
    }
    rt_device_options device = {.artifact = e->artifact,
                                .kv = e->kv,
                                .kv_options = &kv,
                                .block = &e->block,
                                .pool = e->pool,
                                .null = o->flags & MCC_ENGINE_NULL_DEVICE,
                                .launch_seconds = e->launch_seconds};
    e->device = rt_device_create(&name, &device, error);
    if (!e->device)
        return false;
    e->resident = malloc((size_t)e->max_len * sizeof *e->resident);
    e->candidates = malloc((size_t)e->vocab_size * sizeof *e->candidates);
    e->penalized = malloc((size_t)e->vocab_size * sizeof *e->penalized);
    if (!e->resident || !e->candidates || !e->penalized)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");

    e->stats = (mcc_engine_stats){
        .threads = cpu ? rt_pool_threads(e->pool) : 1,
        .kv_bytes_reserved = rt_kv_bytes_reserved(e->kv),
        .max_model_len = e->max_len,
        .max_num_batched_tokens = e->max_batched,
    };
    return true;
}

mcc_status mcc_engine_create(const mcc_artifact *artifact, const mcc_engine_options *options,
                             mcc_engine **engine, mcc_error *error) {
    mcc_engine_options local;
    rt_error e = {0};
    if (!artifact || !engine || !rt_take_struct(&local, sizeof local, options))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: artifact, engine and options.struct_size must be set", __func__);
    if (!check_options(artifact, &local, &e))
        return rt_report(&e, error);
    mcc_engine *made = calloc(1, sizeof *made);
    if (!made)
        return rt_refuse(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");
    made->artifact = artifact;
    if (!create(made, &local, &e)) {
        mcc_engine_destroy(made);
        return rt_report(&e, error);
    }
    *engine = made;
    return MCC_OK;
}

void mcc_engine_destroy(mcc_engine *engine) {
    if (!engine)
        return;
    for (rt_request *r = engine->requests, *next; r; r = next) {
        next = r->next;
        rt_request_free(r);
    }
    rt_device_destroy(engine->device);
    rt_step_block_destroy(&engine->block);
    rt_kv_destroy(engine->kv);
    if (engine->own_pool)
        rt_pool_destroy(engine->pool);
    free(engine->resident);
    free(engine->candidates);
    free(engine->penalized);
    free(engine->event_text);
    free(engine->launch_seconds);
    free(engine);
}

mcc_status mcc_engine_get_stats(const mcc_engine *engine, mcc_engine_stats *stats,
                                mcc_error *error) {
    if (!engine || !stats)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine and stats must be set", __func__);
    mcc_engine_stats local = engine->stats;
    rt_device_stats device;
    engine->device->ops->stats(engine->device, &device);
    local.kv_bytes_used = rt_kv_bytes_used(engine->kv);
    local.arena_bytes = device.arena_bytes;
    local.device_bytes = device.device_bytes;
    local.launches = device.launches;
    local.driver_calls = device.driver_calls;
    local.graph_launches = device.graph_launches;
    local.last_launches = device.last_launches;
    local.last_driver_calls = device.last_driver_calls;
    for (const rt_request *r = engine->requests; r; r = r->next) {
        local.requests_running += r->state == RT_RUNNING;
        local.requests_waiting += r->state == RT_WAITING;
    }
    return rt_give_struct(&local, sizeof local, stats)
               ? MCC_OK
               : rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: stats->struct_size must be set",
                           __func__);
}

mcc_status mcc_engine_launch_seconds(const mcc_engine *engine, double *seconds, int32_t capacity,
                                     int32_t *n, mcc_error *error) {
    if (!engine || !n || capacity < 0 || (capacity > 0 && !seconds))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine and n must be set, seconds with a capacity", __func__);
    if (!engine->launch_seconds)
        return rt_refuse(error, MCC_UNSUPPORTED,
                         "%s: the engine was made without MCC_ENGINE_TIMINGS", __func__);
    *n = (int32_t)engine->artifact->tables.n_launches;
    if (capacity < *n)
        return rt_refuse(error, MCC_BUFFER_TOO_SMALL,
                         "%s: room for %" PRId32 " launches, there are %" PRId32, __func__,
                         capacity, *n);
    memcpy(seconds, engine->launch_seconds, (size_t)*n * sizeof *seconds);
    return MCC_OK;
}

/* --- requests ------------------------------------------------------------------------------------
 */

static rt_request *first_unfinished(const mcc_engine *e) {
    rt_request *r = e->requests;
    while (r && r->state == RT_FINISHED)
        r = r->next;
    return r;
}

static rt_request *find_request(const mcc_engine *e, uint64_t id) {
    rt_request *r = e->requests;
    while (r && r->id != id)
        r = r->next;
    return r;
}

static mcc_status no_request(mcc_error *error, uint64_t id) {
    return rt_refuse(error, MCC_NOT_FOUND,
                     "no request %" PRIu64 ": never submitted, or polled to its end", id);
}

mcc_status mcc_request_submit(mcc_engine *engine, const mcc_request_params *params, uint64_t *id,
                              mcc_error *error) {
    mcc_request_params local;
    rt_error e = {0};
    if (!engine || !params || !id || !rt_take_struct(&local, sizeof local, params))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine, params with struct_size, and id must be set", __func__);
    rt_request *r = rt_request_create(engine, &local, &e);
    if (!r)
        return rt_report(&e, error);
    r->id = *id = ++engine->last_id;
    rt_request **end = &engine->requests;
    while (*end)
        end = &(*end)->next;
    *end = r;
    return MCC_OK;
}

mcc_status mcc_request_cancel(mcc_engine *engine, uint64_t id, mcc_error *error) {
    if (!engine)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine must be set", __func__);
    rt_request *r = find_request(engine, id);
    if (!r)
        return no_request(error, id);
    if (r->state != RT_FINISHED)
        rt_request_finish(r, MCC_FINISH_CANCELLED);
    return MCC_OK;
}

mcc_status mcc_request_prompt_ids(const mcc_engine *engine, uint64_t id, int32_t *ids,
                                  int64_t capacity, int64_t *n, mcc_error *error) {
    if (!engine || !n || capacity < 0 || (capacity > 0 && !ids))
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine, n, and ids for the capacity must be set", __func__);
    const rt_request *r = find_request(engine, id);
    if (!r)
        return no_request(error, id);
    *n = r->n_prompt;
    if (capacity > 0)
        memcpy(ids, r->ids,
               (size_t)(r->n_prompt < capacity ? r->n_prompt : capacity) * sizeof *ids);
    if (r->n_prompt > capacity)
        return rt_refuse(error, MCC_BUFFER_TOO_SMALL,
                         "%" PRId64 " token ids, but room for %" PRId64, r->n_prompt, capacity);
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

static void forget_request(mcc_engine *e, rt_request *r) {
    rt_request **at = &e->requests;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    rt_request_free(r);
}

mcc_status mcc_engine_poll(mcc_engine *engine, uint64_t id, mcc_event *event, mcc_error *error) {
    if (!engine || !event)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine and event must be set", __func__);
    rt_request *r = find_request(engine, id);
    if (!r)
        return no_request(error, id);
    mcc_event local = {.kind = MCC_EVENT_NONE, .token_id = -1, .text = ""};
    uint32_t size = event->struct_size;
    if (size < sizeof event->struct_size + sizeof event->kind)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: event->struct_size must be set",
                         __func__);
    bool gone = false;
    if (r->polled < r->n_ids - r->n_prompt) {
        int64_t i = r->polled++;
        local.kind = MCC_EVENT_TOKEN;
        local.token_id = r->ids[r->n_prompt + i];
        local.logprob = r->logprobs ? r->logprobs[i] : 0;
        take_text(engine, r, r->text_ends[i], &local);
    } else if (r->state == RT_FINISHED) {
        local.kind = MCC_EVENT_FINISHED;
        local.finish_reason = r->finish_reason;
        local.prompt_tokens = r->n_prompt;
        local.cached_tokens = r->cached;
        local.completion_tokens = r->n_ids - r->n_prompt;
        local.prefill_seconds = r->prefill_seconds;
        local.decode_seconds = r->decode_seconds;
        take_text(engine, r, r->text.released, &local);
        gone = true;
    }
    rt_give_struct(&local, sizeof local, event);
    if (gone)
        forget_request(engine, r);
    return MCC_OK;
}

/* --- stepping ------------------------------------------------------------------------------------
 */

/* Takes over what the cache holds of the prompt's beginning. At least one token is left to compute:
 * its logits are wanted. */
static void start_request(mcc_engine *e, rt_request *r) {
    int64_t held = rt_kv_length(e->kv, 0), common = 0;
    if (!(r->flags & MCC_REQUEST_NO_CACHE))
        while (common < held && common < r->n_prompt - 1 && e->resident[common] == r->ids[common])
            common++;
    if (!rt_kv_truncate(e->kv, 0, common)) {
        common = 0;
        rt_kv_truncate(e->kv, 0, 0);
    }
    r->computed = r->cached = common;
    e->stats.cached_tokens += (uint64_t)common;
    r->state = RT_RUNNING;
}

/* Chooses the next token from the step's only row of logits. */
static bool sample(mcc_engine *e, rt_request *r, rt_error *error) {
    const float *raw = e->device->ops->logits(e->device), *logits = raw;
    if (r->repetition_penalty != 1) {
        memcpy(e->penalized, raw, (size_t)e->vocab_size * sizeof *raw);
        rt_penalize(e->penalized, r->seen_ids, r->n_seen, r->repetition_penalty);
        logits = e->penalized;
    }
    int32_t id = rt_sample(&r->sampling, logits, e->vocab_size, r->n_ids, e->candidates);
    return rt_request_add(r, id, r->logprobs ? rt_logprob(raw, e->vocab_size, id) : 0, error);
}

/* Computes the next chunk of a request's tokens; after the last one, chooses the next token. */
static bool step_request(mcc_engine *e, rt_request *r, rt_error *error) {
    int64_t left = r->n_ids - r->computed;
    int32_t n = (int32_t)(left < e->max_batched ? left : e->max_batched);
    int32_t first = (int32_t)r->computed;
    if (!rt_kv_reserve(e->kv, 0, first + n, error))
        return false;
    rt_step_begin(&e->block);
    rt_step_add(&e->block, 0, r->ids + first, n, first);
    if (n == left)
        rt_step_add_row(&e->block, n - 1);
    rt_step_finish(&e->block, e->kv);
    if (!e->device->ops->run(e->device, error))
        return false;
    rt_kv_commit(e->kv, 0, first + n);
    memcpy(e->resident + first, r->ids + first, (size_t)n * sizeof *e->resident);
    r->computed += n;
    return n < left || sample(e, r, error);
}

mcc_status mcc_engine_step(mcc_engine *engine, int32_t *unfinished, mcc_error *error) {
    if (!engine)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine must be set", __func__);
    rt_error e = {0};
    bool ok = true;
    rt_request *r = first_unfinished(engine);
    if (r) {
        double start = now_seconds();
        if (r->state == RT_WAITING)
            start_request(engine, r);
        bool prefill = r->computed < r->n_prompt;
        int64_t computed = r->computed, ids = r->n_ids;
        ok = step_request(engine, r, &e);
        double seconds = now_seconds() - start;

        engine->stats.steps++;
        engine->stats.generated_tokens += (uint64_t)(r->n_ids - ids);
        if (prefill) {
            engine->stats.prefill_tokens += (uint64_t)(r->computed - computed);
            engine->stats.prefill_seconds += seconds;
            r->prefill_seconds += seconds;
        } else {
            engine->stats.decode_seconds += seconds;
            r->decode_seconds += seconds;
        }
        if (!ok)
            rt_request_finish(r, MCC_FINISH_ERROR);
    }
    if (unfinished) {
        *unfinished = 0;
        for (r = engine->requests; r; r = r->next)
            *unfinished += r->state != RT_FINISHED;
    }
    return ok ? MCC_OK : rt_report(&e, error);
}

/* --- evaluation ----------------------------------------------------------------------------------
 */

/* The tokens of sequence step->sequences[begin] end before the returned token. */
static int32_t sequence_end(const mcc_eval_step *step, int32_t begin) {
    int32_t end = begin + 1;
    while (end < step->n_tokens && step->sequences[end] == step->sequences[begin])
        end++;
    return end;
}

static bool check_eval_sequence(const mcc_engine *e, const mcc_eval_step *step, int32_t begin,
                                int32_t end, rt_error *error) {
    int32_t sequence = step->sequences[begin];
    if (sequence < 0 || sequence >= e->n_slots)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "token %" PRId32 ": sequence %" PRId32 ", but max_eval_seqs is %" PRId32,
                       begin, sequence, e->n_slots);
    for (int32_t i = 0; i < begin; i++)
        if (step->sequences[i] == sequence)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "tokens %" PRId32 " and %" PRId32 " of sequence %" PRId32
                           " are not adjacent",
                           i, begin, sequence);
    int32_t first = step->positions[begin];
    int64_t held = rt_kv_length(e->kv, sequence);
    if (first < 0 || first > held)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "token %" PRId32 ": position %" PRId32 ", but sequence %" PRId32
                       " holds %" PRId64 " tokens",
                       begin, first, sequence, held);
    for (int32_t i = begin; i < end; i++) {
        if (step->positions[i] - first != i - begin)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "token %" PRId32 ": position %" PRId32 ", expected %" PRId64, i,
                           step->positions[i], (int64_t)first + (i - begin));
        if (step->token_ids[i] < 0 || step->token_ids[i] >= e->vocab_size)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "token %" PRId32 ": id %" PRId32 ", but the vocabulary has %" PRId32, i,
                           step->token_ids[i], e->vocab_size);
    }
    if ((int64_t)first + (end - begin) > e->max_len)
        return rt_fail(error, MCC_CAPACITY,
                       "sequence %" PRId32 ": %" PRId64 " tokens, but max_model_len is %" PRId64,
                       sequence, (int64_t)first + (end - begin), e->max_len);
    return true;
}

static bool check_eval(const mcc_engine *e, const mcc_eval_step *step, rt_error *error) {
    if (first_unfinished(e))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "requests are unfinished: evaluation would change the cache they use");
    if (step->n_tokens < 1 || step->n_tokens > e->max_batched || step->n_rows < 0 ||
        step->n_rows > step->n_tokens)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "a step of %" PRId32 " tokens and %" PRId32 " rows, expected 1 to %" PRId32
                       " (max_num_batched_tokens), and no more rows than tokens",
                       step->n_tokens, step->n_rows, e->max_batched);
    if (!step->token_ids || !step->positions || !step->sequences ||
        (step->n_rows > 0 && !step->output_rows))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "token_ids, positions, sequences and output_rows must be set");
    for (int32_t i = 0, before = -1; i < step->n_rows; before = step->output_rows[i++])
        if (step->output_rows[i] <= before || step->output_rows[i] >= step->n_tokens)
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "output row %" PRId32 " is token %" PRId32
                           ": rows must ascend and be below %" PRId32,
                           i, step->output_rows[i], step->n_tokens);
    for (int32_t begin = 0, end; begin < step->n_tokens; begin = end) {
        end = sequence_end(step, begin);
        if (!check_eval_sequence(e, step, begin, end, error))
            return false;
    }
    return true;
}

static bool eval(mcc_engine *e, const mcc_eval_step *step, rt_error *error) {
    rt_step_begin(&e->block);
    for (int32_t begin = 0, end; begin < step->n_tokens; begin = end) {
        end = sequence_end(step, begin);
        int32_t slot = step->sequences[begin], first = step->positions[begin], n = end - begin;
        if (!rt_kv_truncate(e->kv, slot, first))
            return rt_fail(error, MCC_CAPACITY,
                           "sequence %" PRId32 " cannot be taken back to position %" PRId32
                           ": its sliding windows have moved on; start it at 0",
                           slot, first);
        if (!rt_kv_reserve(e->kv, slot, (int64_t)first + n, error))
            return false;
        rt_step_add(&e->block, slot, step->token_ids + begin, n, first);
    }
    for (int32_t i = 0; i < step->n_rows; i++)
        rt_step_add_row(&e->block, step->output_rows[i]);
    rt_step_finish(&e->block, e->kv);
    if (!e->device->ops->run(e->device, error))
        return false;
    for (int32_t begin = 0, end; begin < step->n_tokens; begin = end) {
        end = sequence_end(step, begin);
        int32_t slot = step->sequences[begin], first = step->positions[begin];
        rt_kv_commit(e->kv, slot, (int64_t)first + (end - begin));
        if (slot == 0)
            memcpy(e->resident + first, step->token_ids + begin,
                   (size_t)(end - begin) * sizeof *e->resident);
    }
    return true;
}

mcc_status mcc_engine_eval(mcc_engine *engine, mcc_eval_step *step, mcc_error *error) {
    mcc_eval_step local;
    rt_error e = {0};
    if (!engine || !step || step->struct_size < sizeof local)
        return rt_refuse(error, MCC_INVALID_ARGUMENT,
                         "%s: engine, and step with its struct_size, must be set", __func__);
    memcpy(&local, step, sizeof local);
    if (!check_eval(engine, &local, &e) || !eval(engine, &local, &e))
        return rt_report(&e, error);
    engine->stats.steps++;
    step->logits = local.n_rows > 0 ? engine->device->ops->logits(engine->device) : NULL;
    return MCC_OK;
}

mcc_status mcc_engine_reset(mcc_engine *engine, mcc_error *error) {
    if (!engine)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine must be set", __func__);
    if (first_unfinished(engine))
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: requests are unfinished", __func__);
    for (int32_t slot = 0; slot < engine->n_slots; slot++)
        rt_kv_truncate(engine->kv, slot, 0);
    return MCC_OK;
}

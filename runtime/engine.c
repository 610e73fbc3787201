#include "runtime/engine.h"
#include "runtime/clock.h"
#include "runtime/cpu.h"
#include "runtime/lookup.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_BATCHED_TOKENS = 128, /* enough for the GEMMs' speed; activations stay in the caches */
    MAX_BATCHED_TOKENS = 1 << 16,
    MAX_SEQUENCES = 1 << 12,
    DEFAULT_WAITING = 1 << 12,
    MAX_WAITING = 1 << 24
};

/* Waiting so many seconds makes a request as urgent as one of the next priority that comes then. */
static const double aging_seconds = 10;

double rt_engine_now(void) {
    return rt_clock();
}

/* --- making --------------------------------------------------------------------------------------
 */

static bool check_options(const mcc_artifact *a, const mcc_engine_options *o, rt_error *error) {
    if (a->inspect)
        return rt_fail(error, MCC_UNSUPPORTED,
                       "%s: opened with MCC_OPEN_INSPECT: open it without to run it", a->path);
    if (o->flags & ~(uint32_t)(MCC_ENGINE_NULL_DEVICE | MCC_ENGINE_TIMINGS |
                               MCC_ENGINE_DRAFT_ALWAYS | MCC_ENGINE_REJECTION_SAMPLING))
        return rt_fail(error, MCC_INVALID_ARGUMENT, "unknown engine flags 0x%x",
                       (unsigned)o->flags);
    if (o->max_num_seqs < 0 || o->max_num_seqs > MAX_SEQUENCES)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_num_seqs is %" PRId32 ", expected 1 to %d (0: 1)", o->max_num_seqs,
                       MAX_SEQUENCES);
    if (o->max_num_batched_tokens < 0 || o->max_num_batched_tokens > MAX_BATCHED_TOKENS)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_num_batched_tokens is %" PRId32
                       ", expected 1 to %d (0: %d, or max_num_seqs where that is more)",
                       o->max_num_batched_tokens, MAX_BATCHED_TOKENS, DEFAULT_BATCHED_TOKENS);
    if (o->max_num_batched_tokens > 0 && o->max_num_batched_tokens < o->max_num_seqs)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_num_batched_tokens is %" PRId32 ", but max_num_seqs is %" PRId32
                       ": a step must have room for a token of each sequence",
                       o->max_num_batched_tokens, o->max_num_seqs);
    if (o->max_eval_seqs < 0 || o->max_eval_seqs > MAX_SEQUENCES)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_eval_seqs is %" PRId32 ", expected 1 to %d (0: 1)", o->max_eval_seqs,
                       MAX_SEQUENCES);
    if (o->preemption_mode < MCC_PREEMPT_AUTO || o->preemption_mode > MCC_PREEMPT_SWAP)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "preemption_mode is %" PRId32
                       ", expected MCC_PREEMPT_AUTO, RECOMPUTE or SWAP",
                       o->preemption_mode);
    if (o->preemption_mode == MCC_PREEMPT_SWAP && o->swap_space_bytes == 0)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "preemption_mode is MCC_PREEMPT_SWAP, but swap_space_bytes is 0");
    if (o->max_num_waiting < 0 || o->max_num_waiting > MAX_WAITING)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_num_waiting is %" PRId32 ", expected 1 to %d (0: %d)",
                       o->max_num_waiting, MAX_WAITING, DEFAULT_WAITING);
    if (o->prompt_lookup_min < 0 || o->prompt_lookup_max < 0 ||
        o->prompt_lookup_max > RT_LOOKUP_LONGEST ||
        (o->prompt_lookup_max > 0 && o->prompt_lookup_min > o->prompt_lookup_max) ||
        (o->prompt_lookup_max == 0 && o->prompt_lookup_min > RT_LOOKUP_MAX))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "prompt_lookup_min is %" PRId32 " and prompt_lookup_max %" PRId32
                       ", expected 1 <= min <= max <= %d (0: %d and %d)",
                       o->prompt_lookup_min, o->prompt_lookup_max, RT_LOOKUP_LONGEST, RT_LOOKUP_MIN,
                       RT_LOOKUP_MAX);
    if ((o->flags & MCC_ENGINE_REJECTION_SAMPLING) && !o->draft)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "rejection sampling needs a draft model: prompt lookup has no distribution "
                       "to reject from");
    if (o->draft && (o->prompt_lookup_min > 0 || o->prompt_lookup_max > 0))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "prompt_lookup_min and prompt_lookup_max are for drafts by prompt lookup, "
                       "but there is a draft model");
    bool embeds = a->tables.pooling != RT_POOL_NONE;
    if (!(o->max_batch_delay_seconds >= 0 && o->max_batch_delay_seconds <= 3600) ||
        (o->max_batch_delay_seconds > 0 && !embeds))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_batch_delay_seconds is %g, expected 0 to 3600, and 0 for a model that "
                       "generates: its requests join those at work",
                       o->max_batch_delay_seconds);
    if (o->draft && embeds)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "there is a draft model, but %s computes embeddings", a->path);
    int64_t trained = a->tables.header->max_model_len;
    if (o->max_model_len < 0 || o->max_model_len > trained)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "max_model_len is %" PRId64 ", but the model was trained for %" PRId64
                       " positions",
                       o->max_model_len, trained);
    return true;
}

static void set_limits(mcc_engine *e, const mcc_engine_options *o) {
    e->preemption_mode = o->preemption_mode;
    e->on_event = o->on_event;
    e->on_event_context = o->on_event_context;
    e->batch_delay = o->max_batch_delay_seconds;
    const mcc_tables *t = e->artifact->tables.header;
    e->vocab_size = (int32_t)t->vocab_size;
    e->max_seqs = o->max_num_seqs > 0 ? o->max_num_seqs : 1;
    e->eval_seqs = o->max_eval_seqs > 0 ? o->max_eval_seqs : 1;
    e->n_slots = e->eval_seqs > e->max_seqs ? e->eval_seqs : e->max_seqs;
    e->max_len = o->max_model_len > 0 ? o->max_model_len : t->max_model_len;
    e->max_batched = o->max_num_batched_tokens;
    if (e->max_batched == 0)
        e->max_batched =
            e->max_seqs > DEFAULT_BATCHED_TOKENS ? e->max_seqs : DEFAULT_BATCHED_TOKENS;
    e->max_waiting = o->max_num_waiting > 0 ? o->max_num_waiting : DEFAULT_WAITING;
}

/* On the CPU, where sequences share the memory with all else: at most half of what this process
 * may use, unless one sequence needs more. 0: no limit. */
static uint64_t kv_memory(const mcc_engine *e, const mcc_engine_options *o, bool cpu) {
    if (o->kv_cache_memory_bytes > 0 || !cpu || e->max_seqs == 1)
        return o->kv_cache_memory_bytes;
    const rt_tables *t = &e->artifact->tables;
    uint64_t one = rt_kv_bytes_for(t->kv_groups, t->n_kv_groups, e->max_len, e->max_batched);
    uint64_t half = rt_cpu_usable_memory(RT_CGROUP) / 2;
    return half > 0 && half < one ? one : half;
}

/* The KV cache of so many bytes, and the device with it. */
static bool try_device(mcc_engine *e, const mcc_engine_options *o, const rt_device_name *name,
                       uint64_t kv_bytes, uint64_t *kv_fits, rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    rt_kv_options kv = {.slots = e->n_slots,
                        .max_len = e->max_len,
                        .max_step = e->max_batched,
                        .memory_bytes = kv_bytes,
                        .swap_bytes = o->swap_space_bytes};
    e->kv = rt_kv_create(t->kv_groups, t->n_kv_groups, &kv, error);
    if (!e->kv)
        return false;
    /* Masks for a device that samples: a row of each sequence, or one with the longest draft. */
    bool masks = name->kind != RT_DEVICE_CPU && e->artifact->tokenizer;
    int32_t most = masks ? e->max_seqs + MCC_MAX_DRAFT : 0;
    rt_step_limits limits = {.T = e->max_batched,
                             .S = e->n_slots,
                             .R = e->max_batched,
                             .G = (int32_t)t->n_kv_groups,
                             .P = rt_kv_table_entries(e->kv),
                             .V = e->vocab_size,
                             .M = most < e->max_batched ? most : e->max_batched};
    if (!rt_step_block_create(&e->block, &limits, error))
        return false;
    rt_device_options device = {.artifact = e->artifact,
                                .kv = e->kv,
                                .kv_options = &kv,
                                .block = &e->block,
                                .pool = e->pool,
                                .null = o->flags & MCC_ENGINE_NULL_DEVICE,
                                .launch_seconds = e->launch_seconds,
                                .kv_fits = kv_fits};
    e->device = rt_device_create(name, &device, error);
    return e->device != NULL;
}

/* Where nobody has said how large the KV cache is, and a GPU has too little memory for all
 * sequences at full length: as much as there is, if that is enough for one. */
static bool make_device(mcc_engine *e, const mcc_engine_options *o, const rt_device_name *name,
                        rt_error *error) {
    const rt_tables *t = &e->artifact->tables;
    bool derived = o->kv_cache_memory_bytes == 0 && e->max_seqs > 1;
    uint64_t fits = 0;
    if (o->flags & MCC_ENGINE_TIMINGS) {
        e->launch_seconds = calloc((size_t)t->n_launches + 1, sizeof *e->launch_seconds);
        if (!e->launch_seconds)
            return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");
    }
    if (try_device(e, o, name, kv_memory(e, o, name->kind == RT_DEVICE_CPU), derived ? &fits : NULL,
                   error))
        return true;
    if (fits < rt_kv_bytes_for(t->kv_groups, t->n_kv_groups, e->max_len, e->max_batched))
        return false;
    rt_step_block_destroy(&e->block);
    rt_kv_destroy(e->kv);
    *error = (rt_error){0};
    return try_device(e, o, name, fits, NULL, error);
}

static bool create(mcc_engine *e, const mcc_engine_options *o, rt_error *error) {
    rt_device_name name;
    e->has_mutex = pthread_mutex_init(&e->mutex, NULL) == 0;
    if (!e->has_mutex)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");
    pthread_condattr_t monotonic; /* the clock of rt_engine_now */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    e->has_arrival = pthread_cond_init(&e->arrival, &monotonic) == 0;
    pthread_condattr_destroy(&monotonic);
    if (!e->has_arrival)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");
    set_limits(e, o);
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
    if (!make_device(e, o, &name, error))
        return false;
    rt_scheduler_options scheduler = {.max_seqs = e->max_seqs,
                                      .max_batch = e->max_batched,
                                      .max_waiting = e->max_waiting,
                                      .aging = aging_seconds,
                                      .swap_cost =
                                          o->preemption_mode == MCC_PREEMPT_SWAP ? 0 : INFINITY};
    e->scheduler = rt_scheduler_create(e->kv, &scheduler);
    e->sampled = malloc((size_t)e->max_batched * sizeof *e->sampled);
    e->draft_jobs = malloc((size_t)e->max_seqs * sizeof *e->draft_jobs);
    e->offers = malloc((size_t)e->max_seqs * sizeof *e->offers);
    e->offered = malloc((size_t)e->max_seqs * sizeof *e->offered);
    e->draft_always = o->flags & MCC_ENGINE_DRAFT_ALWAYS;
    e->event_text = malloc(rt_request_event_bytes(e->artifact));
    e->event_embedding = malloc((size_t)e->artifact->tables.rows->width * sizeof(float));
    const rt_tokenizer *tokenizer = e->artifact->tokenizer;
    e->grammars = tokenizer ? rt_grammars_create(tokenizer, e->vocab_size) : NULL;
    if ((tokenizer && !e->grammars) || !e->scheduler || !e->sampled || !e->event_text ||
        !e->event_embedding || !e->draft_jobs || !e->offers || !e->offered)
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");
    if (!rt_engine_make_proposer(e, o, &name, error))
        return false;
    if (!rt_engine_make_sampler(e)) /* which has room for the proposer's distributions */
        return rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for an engine");

    e->device->ops->stats(e->device, &e->device_stats);
    e->stats = (mcc_engine_stats){
        .threads = cpu ? rt_pool_threads(e->pool) : 1,
        .kv_bytes_reserved = rt_kv_bytes_reserved(e->kv),
        .kv_tokens = rt_kv_capacity(e->kv, e->max_len),
        .max_model_len = e->max_len,
        .max_num_batched_tokens = e->max_batched,
        .max_num_seqs = e->max_seqs,
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
    rt_engine_free_requests(engine);
    rt_grammars_destroy(engine->grammars);
    if (engine->proposer)
        engine->proposer->ops->destroy(engine->proposer);
    rt_scheduler_destroy(engine->scheduler);
    rt_device_destroy(engine->device);
    rt_step_block_destroy(&engine->block);
    rt_kv_destroy(engine->kv);
    if (engine->own_pool)
        rt_pool_destroy(engine->pool);
    if (engine->has_arrival)
        pthread_cond_destroy(&engine->arrival);
    if (engine->has_mutex)
        pthread_mutex_destroy(&engine->mutex);
    rt_engine_free_sampler(engine);
    free(engine->sampled);
    free(engine->draft_jobs);
    free(engine->offers);
    free(engine->draft_weights);
    free(engine->draft_sums);
    free(engine->offered);
    free(engine->event_text);
    free(engine->event_embedding);
    free(engine->launch_seconds);
    free(engine);
}

/* --- statistics ----------------------------------------------------------------------------------
 */

mcc_status mcc_engine_get_stats(const mcc_engine *engine, mcc_engine_stats *stats,
                                mcc_error *error) {
    if (!engine || !stats)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine and stats must be set", __func__);
    rt_engine_lock(engine);
    mcc_engine_stats local = engine->stats;
    const rt_device_stats *device = &engine->device_stats;
    rt_scheduler_stats scheduler = rt_scheduler_get_stats(engine->scheduler);
    local.kv_bytes_used = rt_kv_bytes_used(engine->kv);
    local.kv_bytes_cached = rt_kv_bytes_cached(engine->kv);
    local.arena_bytes = device->arena_bytes;
    local.device_bytes = device->device_bytes;
    local.launches = device->launches;
    local.driver_calls = device->driver_calls;
    local.graph_launches = device->graph_launches;
    local.last_launches = device->last_launches;
    local.last_driver_calls = device->last_driver_calls;
    local.results_bytes = device->results_bytes;
    local.last_results_bytes = device->last_results_bytes;
    local.requests_running = scheduler.running;
    local.requests_waiting = scheduler.waiting;
    local.preemptions = scheduler.preemptions;
    local.swaps = scheduler.swaps;
    local.prefix_queries = scheduler.queries;
    local.cached_tokens = scheduler.hits;
    rt_engine_unlock(engine);
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

/* Evaluation: ragged steps over sequences of the caller's. */
#include "runtime/engine.h"

#include <inttypes.h>
#include <string.h>

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
    if (sequence < 0 || sequence >= e->eval_seqs)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "token %" PRId32 ": sequence %" PRId32 ", but max_eval_seqs is %" PRId32,
                       begin, sequence, e->eval_seqs);
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
    if (e->n_unfinished > 0)
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
    e->eval_held = true;
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
    if (!e->device->ops->run(e->device, error)) {
        rt_engine_lose_cache(e);
        return false;
    }
    for (int32_t begin = 0, end; begin < step->n_tokens; begin = end) {
        end = sequence_end(step, begin);
        int32_t slot = step->sequences[begin], first = step->positions[begin];
        rt_kv_commit(e->kv, slot, (int64_t)first + (end - begin), NULL);
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
    rt_engine_lock(engine);
    bool ok = check_eval(engine, &local, &e) && eval(engine, &local, &e);
    engine->device->ops->stats(engine->device, &engine->device_stats);
    engine->stats.steps += ok;
    rt_engine_unlock(engine);
    if (!ok)
        return rt_report(&e, error);
    step->logits = local.n_rows > 0 ? engine->device->ops->logits(engine->device) : NULL;
    return MCC_OK;
}

mcc_status mcc_engine_reset(mcc_engine *engine, mcc_error *error) {
    if (!engine)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: engine must be set", __func__);
    rt_engine_lock(engine);
    bool idle = engine->n_unfinished == 0;
    for (int32_t slot = 0; idle && slot < engine->n_slots; slot++)
        rt_kv_truncate(engine->kv, slot, 0);
    if (idle)
        rt_kv_forget(engine->kv);
    if (idle && engine->proposer->ops->reset)
        engine->proposer->ops->reset(engine->proposer, false);
    rt_engine_unlock(engine);
    return idle ? MCC_OK
                : rt_refuse(error, MCC_INVALID_ARGUMENT, "%s: requests are unfinished", __func__);
}

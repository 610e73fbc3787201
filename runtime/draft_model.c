#include "runtime/draft_model.h"
#include "runtime/clock.h"
#include "runtime/rejection.h"
#include "runtime/tokenizer/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct draft_slot {
    bool owned;
    uint64_t owner; /* number of the sequence that it holds */
    bool running;   /* seen among this step's jobs */
    /* Of the step that is being made: positions that it holds afterwards, 0: not in it; and the
     * tokens up to there, NULL where the last is a draft. */
    int64_t length;
    const int32_t *ids;
} draft_slot;

typedef struct draft_model {
    rt_proposer proposer;
    rt_kv *kv;
    rt_device *device;
    rt_step_block block;
    int64_t max_len;
    int32_t max_batched, vocab_size;
    int n_slots;
    draft_slot *slots;
    bool failed;           /* in the last step */
    int32_t prompt_tokens; /* of the step that is being made */
    bool on_device;        /* the device chooses its tokens */
    rt_draft_job **rows;   /* [slots] the jobs that the step's rows belong to */
    void *sample_space;
} draft_model;

/* --- vocabularies --------------------------------------------------------------------------------
 */

static bool same_token(const rt_tokenizer *a, const rt_tokenizer *b, int32_t id) {
    size_t a_bytes, b_bytes;
    const char *a_text = rt_tokenizer_text(a, id, &a_bytes);
    const char *b_text = rt_tokenizer_text(b, id, &b_bytes);
    return (a_text != NULL) == (b_text != NULL) && a_bytes == b_bytes &&
           (a_bytes == 0 || memcmp(a_text, b_text, a_bytes) == 0) &&
           rt_tokenizer_is_special(a, id) == rt_tokenizer_is_special(b, id);
}

bool rt_draft_check(const mcc_artifact *draft, const mcc_artifact *target, rt_error *error) {
    const rt_tokenizer *d = draft->tokenizer, *t = target->tokenizer;
    if (draft->inspect)
        return rt_fail(error, MCC_UNSUPPORTED,
                       "the draft model %s was opened with MCC_OPEN_INSPECT: open it without",
                       draft->path);
    if (draft->tables.pooling)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "the draft model %s computes embeddings: it was built with --task embed",
                       draft->path);
    int64_t n = draft->tables.header->vocab_size, wanted = target->tables.header->vocab_size;
    if (n != wanted)
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "the draft model %s has a vocabulary of %" PRId64 " tokens, %s one of "
                       "%" PRId64 ": a draft model must have the same tokens",
                       draft->path, n, target->path, wanted);
    if ((d == NULL) != (t == NULL))
        return rt_fail(error, MCC_INVALID_ARGUMENT,
                       "%s has a tokenizer and %s has none: a draft model must have the same",
                       d ? draft->path : target->path, d ? target->path : draft->path);
    for (int32_t id = 0; d && id < n; id++)
        if (!same_token(d, t, id))
            return rt_fail(error, MCC_INVALID_ARGUMENT,
                           "token %" PRId32 " of the draft model %s is another one in %s: a draft "
                           "model must have the same tokens",
                           id, draft->path, target->path);
    return true;
}

/* --- sequences -----------------------------------------------------------------------------------
 */

static void let_go(draft_model *m, int slot) {
    rt_kv_truncate(m->kv, slot, 0);
    m->slots[slot].owned = false;
    m->slots[slot].length = 0;
}

/* Slots get the sequences that run; what others held is let go. */
static void follow(draft_model *m, rt_draft_job *jobs, int n) {
    for (int s = 0; s < m->n_slots; s++)
        m->slots[s].running = false;
    for (int i = 0; i < n; i++) {
        const rt_seq *seq = jobs[i].seq;
        draft_slot *slot = &m->slots[seq->slot];
        if (slot->owned && slot->owner != seq->number)
            let_go(m, seq->slot);
        slot->running = true;
    }
    for (int s = 0; s < m->n_slots; s++)
        if (m->slots[s].owned && !m->slots[s].running)
            let_go(m, s);
    for (int i = 0; i < n; i++) {
        const rt_seq *seq = jobs[i].seq;
        draft_slot *slot = &m->slots[seq->slot];
        if (slot->owned || (jobs[i].wanted == 0 && !jobs[i].prompt))
            continue;
        int64_t most = seq->n_ids - 1 < m->max_len ? seq->n_ids - 1 : m->max_len;
        rt_kv_attach(m->kv, seq->slot, seq->ids, seq->no_cache ? 0 : most, seq->salt);
        slot->owned = true;
        slot->owner = seq->number;
    }
}

/* --- steps ---------------------------------------------------------------------------------------
 */

/* Adds tokens first … first+n-1 of the sequence to the step; false when there are no pages. */
static bool add(draft_model *m, const rt_seq *seq, int64_t first, int32_t n, bool drafts) {
    if (!rt_kv_reserve(m->kv, seq->slot, first + n, NULL))
        return false;
    m->slots[seq->slot].length = first + n;
    m->slots[seq->slot].ids = drafts ? NULL : seq->ids;
    rt_step_add(&m->block, seq->slot, seq->ids + first, n, (int32_t)first);
    return true;
}

/* Asks for the token after the one added last. */
static void add_row(draft_model *m, rt_draft_job *job, int row) {
    rt_step_add_row(&m->block, m->block.step->T - 1);
    if (m->on_device)
        rt_step_sample_row(
            &m->block, &(mcc_step_sampling){.temperature = job->sampling->temperature,
                                            .top_p = job->sampling->top_p,
                                            .min_p = job->sampling->min_p,
                                            .top_k = job->sampling->top_k,
                                            .seed = job->sampling->seed,
                                            .position = (int32_t)(job->seq->n_ids + job->drafted)});
    m->rows[row] = job;
}

/* -1 when there is none. */
static int32_t choose(draft_model *m, rt_draft_job *job, int row) {
    int64_t position = job->seq->n_ids + job->drafted;
    if (m->on_device)
        return (int32_t)m->device->ops->sampled(m->device)[row].id;
    const float *logits = m->device->ops->logits(m->device) + (int64_t)row * m->vocab_size;
    if (!job->weights)
        return rt_sample(job->sampling, logits, m->vocab_size, position, m->sample_space);
    rt_distribution q = {.weights = job->weights + (int64_t)job->drafted * m->vocab_size};
    q.sum = rt_distribute(job->sampling, logits, m->vocab_size, m->sample_space,
                          job->weights + (int64_t)job->drafted * m->vocab_size);
    job->sums[job->drafted] = q.sum;
    return q.sum > 0 ? rt_draft_token(&q, job->sampling->seed, position) : -1;
}

/* Runs the step, and gives the jobs their next tokens; those that find none want no more. */
static bool run(draft_model *m, int n_rows, rt_error *error) {
    int n;
    double begin = rt_clock();
    m->block.logits = !m->on_device && n_rows > 0;
    rt_step_finish(&m->block, m->kv);
    const rt_kv_copy *copies = rt_kv_copies(m->kv, &n);
    bool ok = n == 0 || m->device->ops->copy_pages(m->device, copies, n, error);
    rt_kv_copies_made(m->kv);
    if (!ok || !m->device->ops->run(m->device, error))
        return false;
    for (int s = 0; s < m->n_slots; s++) {
        if (m->slots[s].length > 0)
            rt_kv_commit(m->kv, s, m->slots[s].length, m->slots[s].ids);
        m->slots[s].length = 0;
    }
    for (int row = 0; row < n_rows; row++) {
        rt_draft_job *job = m->rows[row];
        int32_t id = choose(m, job, row);
        if (id < 0)
            job->wanted = job->drafted;
        else
            job->seq->ids[job->seq->n_ids + job->drafted++] = id;
    }
    /* Prompts apart, a step has a token or two of each sequence. */
    int32_t tokens = m->block.step->T - m->prompt_tokens;
    if (m->prompt_tokens == 0 && tokens <= 2 * n_rows)
        rt_step_cost_learn(&m->proposer.cost, tokens, rt_clock() - begin);
    if (tokens > 0)
        m->proposer.spent += rt_step_cost_of(&m->proposer.cost, tokens);
    return true;
}

/* Computes what the cache lacks of a sequence, as far as the step has room. Those that are complete
 * then get a row. */
static void catch_up(draft_model *m, rt_draft_job *job, int *n_rows) {
    const rt_seq *seq = job->seq;
    int64_t held = rt_kv_length(m->kv, seq->slot), left = seq->n_ids - held;
    int32_t room = m->max_batched - m->block.step->T;
    int32_t n = left < room ? (int32_t)left : room;
    bool added = n > 0 && add(m, seq, held, n, false);
    if (n > 0 && !added)
        let_go(m, seq->slot); /* to begin anew when there are pages */
    if (added && n == left && job->wanted > 0)
        add_row(m, job, (*n_rows)++);
    else
        job->wanted = 0;
}

/* The first draft of each, and chunks of prompts. */
static bool first_step(draft_model *m, rt_draft_job *jobs, int n, rt_error *error) {
    int n_rows = 0;
    rt_step_begin(&m->block);
    m->prompt_tokens = 0;
    for (int i = 0; i < n; i++)
        if (jobs[i].wanted > 0)
            catch_up(m, &jobs[i], &n_rows);
    int32_t drafting = m->block.step->T;
    for (int i = 0; i < n; i++)
        if (jobs[i].wanted == 0 && jobs[i].prompt && jobs[i].seq->n_ids <= m->max_len)
            catch_up(m, &jobs[i], &n_rows);
    m->prompt_tokens = m->block.step->T - drafting;
    return m->block.step->T == 0 || run(m, n_rows, error);
}

/* One more draft for each that wants it; *more is false when none does. */
static bool next_step(draft_model *m, rt_draft_job *jobs, int n, bool *more, rt_error *error) {
    int n_rows = 0;
    rt_step_begin(&m->block);
    m->prompt_tokens = 0;
    for (int i = 0; i < n; i++) {
        rt_draft_job *job = &jobs[i];
        int64_t at = job->seq->n_ids + job->drafted - 1;
        if (job->drafted == 0 || job->drafted >= job->wanted || !add(m, job->seq, at, 1, true))
            continue;
        add_row(m, job, n_rows++);
    }
    *more = n_rows > 0;
    return n_rows == 0 || run(m, n_rows, error);
}

/* --- the proposer --------------------------------------------------------------------------------
 */

static int32_t offer(rt_proposer *proposer, void *state, rt_seq *seq, int32_t most,
                     int32_t *first_class) {
    const draft_model *m = (const draft_model *)proposer;
    (void)state;
    *first_class = 0;
    int64_t room = m->max_len - seq->n_ids;
    return room < 0 ? 0 : room < most ? (int32_t)room : most;
}

static void reset(rt_proposer *proposer, bool device_failed) {
    draft_model *m = (draft_model *)proposer;
    if (device_failed && m->device->ops->let_go)
        m->device->ops->let_go(m->device);
    for (int s = 0; s < m->n_slots; s++)
        let_go(m, s);
    rt_kv_forget(m->kv);
    rt_kv_copies_made(m->kv);
}

static bool propose_all(draft_model *m, rt_draft_job *jobs, int n, rt_error *error) {
    m->proposer.spent = 0;
    m->on_device = m->device->samples;
    for (int i = 0; i < n; i++)
        m->on_device = m->on_device && !jobs[i].weights;
    follow(m, jobs, n);
    bool ok = first_step(m, jobs, n, error);
    for (bool more = true; ok && more;)
        ok = next_step(m, jobs, n, &more, error);
#ifndef NDEBUG
    ok = ok && rt_kv_check(m->kv, error);
#endif
    return ok;
}

static bool propose(rt_proposer *proposer, rt_draft_job *jobs, int n, rt_error *error) {
    draft_model *m = (draft_model *)proposer;
    rt_error failure = {0};
    bool failed = !propose_all(m, jobs, n, &failure), again = failed && m->failed;
    m->failed = failed;
    if (failed)
        reset(proposer, false);
    for (int i = 0; i < n && failed; i++)
        jobs[i].drafted = 0;
    return !again || rt_fail(error, failure.code, "the draft model: %.400s", failure.text);
}

static void settle(rt_proposer *proposer, const rt_seq *seq, int32_t kept) {
    draft_model *m = (draft_model *)proposer;
    const draft_slot *slot = &m->slots[seq->slot];
    /* A window that has moved on too far to go back: not with as many drafts as there may be. */
    if (slot->owned && slot->owner == seq->number &&
        !rt_kv_truncate(m->kv, seq->slot, seq->n_ids + kept))
        let_go(m, seq->slot);
}

static void destroy(rt_proposer *proposer) {
    draft_model *m = (draft_model *)proposer;
    rt_device_destroy(m->device);
    rt_step_block_destroy(&m->block);
    rt_kv_destroy(m->kv);
    free(m->slots);
    free(m->rows);
    free(m->sample_space);
    free(m);
}

static bool create(draft_model *m, const mcc_artifact *a, const rt_draft_options *o,
                   rt_error *error) {
    const rt_tables *t = &a->tables;
    m->vocab_size = (int32_t)t->header->vocab_size;
    m->max_batched = o->max_batched;
    m->n_slots = o->slots;
    m->max_len = t->header->max_model_len < o->max_len ? t->header->max_model_len : o->max_len;
    rt_kv_options kv = {.slots = o->slots,
                        .max_len = m->max_len,
                        .max_step = o->max_batched,
                        .memory_bytes = o->memory_bytes};
    m->kv = rt_kv_create(t->kv_groups, t->n_kv_groups, &kv, error);
    if (!m->kv)
        return false;
    rt_step_limits limits = {.T = o->max_batched,
                             .S = o->slots,
                             .R = o->slots,
                             .G = (int32_t)t->n_kv_groups,
                             .P = rt_kv_table_entries(m->kv)};
    if (!rt_step_block_create(&m->block, &limits, error))
        return false;
    rt_device_options device = {.artifact = a,
                                .kv = m->kv,
                                .kv_options = &kv,
                                .block = &m->block,
                                .pool = o->pool,
                                .null = o->null};
    m->device = rt_device_create(&o->device, &device, error);
    if (!m->device)
        return false;
    m->slots = calloc((size_t)o->slots, sizeof *m->slots);
    m->rows = calloc((size_t)o->slots, sizeof *m->rows);
    m->sample_space = malloc(rt_sample_bytes(m->vocab_size));
    return (m->slots && m->rows && m->sample_space) ||
           rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a draft model");
}

rt_proposer *rt_draft_model_create(const mcc_artifact *artifact, const rt_draft_options *options,
                                   rt_error *error) {
    static const rt_proposer_ops ops = {
        .offer = offer, .propose = propose, .settle = settle, .reset = reset, .destroy = destroy};
    draft_model *m = calloc(1, sizeof *m);
    if (!m) {
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a draft model");
        return NULL;
    }
    m->proposer.ops = &ops;
    m->proposer.ratio = options->ratio;
    if (create(m, artifact, options, error))
        return &m->proposer;
    destroy(&m->proposer);
    return NULL;
}

uint64_t rt_draft_model_kv_bytes(const rt_proposer *proposer) {
    return rt_kv_bytes_reserved(((const draft_model *)proposer)->kv);
}

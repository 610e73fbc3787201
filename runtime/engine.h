/* The engine's insides: a KV cache, a scheduler that says which sequences a step computes, a device
 * that runs it, and the requests that the sequences belong to.
 *
 *   engine.c        making engines, statistics
 *   engine_queue.c  requests come, are cancelled, and their events are taken: from any thread
 *   engine_step.c   steps: plan, run, hand out
 *   engine_draft.c  drafts for the steps, and what became of them
 *   engine_sample.c tokens are chosen
 *   engine_eval.c   evaluation: steps as the caller wants them
 *   engine_embed.c  embeddings, of models that give no logits
 *   session.c       the KV cache in files
 *   request.c       one request: its tokens, its text
 *   adjust.c        what one changes logits by
 *
 * Threads. The mutex guards all that changes after rt_engine_create, except what a step needs while
 * its kernels run: the step block, the device, the KV cache and the scheduler's plan are the
 * stepping thread's own from the plan to rt_scheduler_done, during which it holds no mutex and
 * others leave running sequences as they are. */
#ifndef MCC_RUNTIME_ENGINE_H
#define MCC_RUNTIME_ENGINE_H

#include "runtime/adjust.h"
#include "runtime/device.h"
#include "runtime/grammar/guide.h"
#include "runtime/loader.h"
#include "runtime/proposer.h"
#include "runtime/sampler.h"
#include "runtime/scheduler.h"
#include "runtime/tokenizer/tokenizer.h"

#include <pthread.h>
#include <stddef.h>

typedef struct rt_stop {
    const char *text;
    size_t bytes;
} rt_stop;

/* Text that has been made and not yet been polled. Positions count from the request's first byte;
 * the buffer holds base … end-1, of which begin … end-1 have not been polled. Only what lies before
 * `released` may be handed out: the rest could be the beginning of a stop text. */
typedef struct rt_output_text {
    char *buffer;
    size_t capacity;
    int64_t base, begin, released, end;
} rt_output_text;

typedef struct rt_request {
    rt_seq seq;              /* its tokens, and where the scheduler has it */
    struct rt_request *next; /* of those with the same hash of the id */
    struct rt_request *ready_next, *ready_prev;
    bool ready; /* in the list of requests that may have events */
    uint64_t id;
    uint32_t flags; /* MCC_REQUEST_ */
    bool finished;
    bool cancelled; /* to be finished after the step */
    void *user_data;
    int32_t finish_reason;
    int64_t max_ids; /* prompt and output at most */

    rt_sampling sampling;
    rt_adjust adjust;
    rt_stop *stops;
    int32_t n_stops;
    int32_t *stop_ids;
    int32_t n_stop_ids;

    rt_guide *guide; /* keeps the output to a grammar; NULL: none */

    rt_detok detok;
    rt_output_text text;
    int64_t *text_ends; /* [max_ids - n_prompt] where each output token's text ends */
    float *logprobs;    /* the same, with MCC_REQUEST_LOGPROBS */
    int32_t n_top;      /* top_logprobs */
    mcc_logprob *top;   /* the same [][n_top]; less than that end with the token -1 */
    float *embedding;   /* [width] of the model's rows, where it gives those for embeddings */
    double *sums;       /* the same, of the rows so far, for a mean */
    int64_t polled;     /* output tokens whose events have been taken */
    double prefill_seconds, decode_seconds;
    int32_t max_drafts; /* tokens of a draft at most; 0: none */
    void *draft_state;  /* the proposer's, with max_drafts */
    const rt_proposer *proposer;
    rt_acceptance acceptance;
    int32_t draft_class;           /* of its last draft's first token */
    bool rejects;                  /* its drafts are verified by rejection sampling */
    const rt_draft_job *draft_job; /* then: that of the step, NULL without drafts */
} rt_request;

/* What a row of a step became. */
typedef struct rt_sampled {
    int32_t id; /* -1: none could be chosen … */
    float logprob;
    const char *why;                       /* … for this reason */
    mcc_logprob top[MCC_MAX_TOP_LOGPROBS]; /* as many as the request asks for; as rt_request.top */
} rt_sampled;

/* Choosing a step's tokens, as a job of the pool with a tile for each of the plan's items. */
typedef struct rt_sample_job {
    mcc_cpu_call call; /* first: what the kernel gets; unused */
    mcc_engine *engine;
    rt_plan *plan;
    int32_t *first_rows; /* [max_seqs] of each item */
    /* Of each thread: [vocab_size] logits that a request has changed, and the sampler's memory. */
    char *space;
    size_t stride, sampler_at, weights_at;
} rt_sample_job;

enum { RT_REQUEST_BUCKETS = 1024 };

struct mcc_engine {
    const mcc_artifact *artifact;
    rt_pool *pool;
    bool own_pool, has_mutex;
    pthread_mutex_t mutex;
    bool has_arrival;
    pthread_cond_t arrival; /* of requests, or what else a batch that waits for more must know of */
    double batch_delay;     /* seconds that it may wait for more */
    rt_kv *kv;
    rt_scheduler *scheduler;
    rt_step_block block;
    rt_device *device;
    int32_t vocab_size, n_slots, max_seqs, eval_seqs, max_batched, max_waiting;
    int64_t max_len;
    rt_sampled *sampled;   /* [max_batched] of the step's rows */
    rt_grammars *grammars; /* NULL without a tokenizer */
    rt_sample_job sample_job;
    rt_proposer *proposer;
    rt_draft_job *draft_jobs; /* [max_seqs] */
    int n_draft_jobs;
    rt_speculation speculation;
    rt_draft_offer *offers;      /* [max_seqs] of a step that is about to be planned … */
    struct rt_request **offered; /* … and whose they are */
    /* With MCC_ENGINE_REJECTION_SAMPLING, else NULL: */
    uint32_t *draft_weights; /* [max_batched][vocab_size] of the step's drafts … */
    uint64_t *draft_sums;    /* [max_batched] … and their sums */
    bool draft_always;       /* MCC_ENGINE_DRAFT_ALWAYS */
    int32_t drafts_kept;     /* of the step */

    rt_request *buckets[RT_REQUEST_BUCKETS]; /* requests that have not been polled to their end */
    rt_request *ready_first, *ready_last;
    int32_t n_unfinished;
    bool stepping;       /* kernels run: see above */
    bool some_cancelled; /* requests, meanwhile */
    bool draining;       /* no more requests are taken */
    bool eval_held;      /* evaluation's sequences have pages */
    uint64_t last_id;
    char *event_text; /* of the last event taken: room for the longest */
    float *event_embedding;
    void (*on_event)(void *context, const mcc_event *event); /* NULL: they are polled */
    void *on_event_context;
    int32_t preemption_mode; /* MCC_PREEMPT_ */
    double swap_seconds; /* that copying a page took, to the host or back, and of how many … */
    uint64_t swapped_pages;
    double *launch_seconds; /* [n_launches] of the last step; NULL: not measured */
    mcc_engine_stats stats;
    rt_device_stats device_stats; /* after the last step */
};

double rt_engine_now(void); /* seconds, monotonic */

static inline void rt_engine_lock(const mcc_engine *e) {
    pthread_mutex_lock((pthread_mutex_t *)&e->mutex);
}
static inline void rt_engine_unlock(const mcc_engine *e) {
    pthread_mutex_unlock((pthread_mutex_t *)&e->mutex);
}

/* --- engine_queue.c; with the mutex --------------------------------------------------------------
 */

void rt_engine_make_ready(mcc_engine *engine, rt_request *request);
/* Finishes an unfinished request, and lets go of what its sequence held. */
void rt_engine_finish(mcc_engine *engine, rt_request *request, int32_t reason);
/* The same for one that rt_request_add has finished. */
void rt_engine_finished(mcc_engine *engine, rt_request *request);
void rt_engine_free_requests(mcc_engine *engine);
/* Gives on_event all events that there are, without the mutex while it runs. */
void rt_engine_deliver(mcc_engine *engine);

/* --- engine_step.c; with the mutex ---------------------------------------------------------------
 */

/* The device has lost what the KV cache held: requests that have not failed are computed again, and
 * evaluation's sequences are empty. */
void rt_engine_lose_cache(mcc_engine *engine);
/* Evaluation's sequences make room for requests. */
void rt_engine_drop_eval(mcc_engine *engine);

/* --- engine_draft.c ------------------------------------------------------------------------------
 */

/* Makes the proposer that the options ask for. */
bool rt_engine_make_proposer(mcc_engine *engine, const mcc_engine_options *options,
                             const rt_device_name *device, rt_error *error);

/* Before the plan, with the mutex: how many drafts would follow the requests' last tokens. */
void rt_engine_offer_drafts(mcc_engine *engine);

/* After the plan, with the mutex: gathers the sequences that the proposer follows. */
void rt_engine_gather_drafts(mcc_engine *engine, const rt_plan *plan);

/* Then, without the mutex: has the drafts written that the plan has room for, and takes those out
 * of it that there are not. False when the proposer's device failed. */
bool rt_engine_propose(mcc_engine *engine, rt_plan *plan, rt_error *error);

/* What became of an item's drafts, before its tokens are added: the first `kept` were right. */
void rt_engine_settle_drafts(mcc_engine *engine, const rt_plan_item *item, int32_t kept);

/* The step has taken so long, without its drafts' making; all of them are settled. */
void rt_engine_account_drafts(mcc_engine *engine, const rt_plan *plan, double seconds);

/* --- engine_sample.c -----------------------------------------------------------------------------
 */

/* Allocates what choosing needs; false when out of memory. */
bool rt_engine_make_sampler(mcc_engine *engine);
void rt_engine_free_sampler(mcc_engine *engine); /* zeroed or made */

/* Of a step of a device that samples: asks for token masks, where requests of the plan have
 * grammars and the block has room. */
void rt_engine_ask_for_masks(mcc_engine *engine, rt_plan *plan);
/* Then, whether only the host can choose a request's tokens: of a row's logits. */
bool rt_engine_samples_on_host(const mcc_engine *engine, const rt_request *request);
/* Asks the device, which samples, for the token at `position`: of the row added last. */
void rt_engine_sample_on_device(mcc_engine *engine, const rt_request *request, int64_t position);
/* Chooses the tokens of the step that has run, of drafts as long as the one before was right:
 * engine->sampled, and the items' n_valid. */
void rt_engine_sample(mcc_engine *engine, rt_plan *plan);

/* --- engine_embed.c ------------------------------------------------------------------------------
 */

/* Whether the parameters are of use where nothing is generated. */
bool rt_embed_check(const mcc_request_params *params, rt_error *error);
/* After a step, with the mutex: a request gets the rows of its item, which begin at `row`, and is
 * finished where they are the last. */
bool rt_engine_embed(mcc_engine *engine, const rt_plan_item *item, int32_t row, rt_error *error);
/* With the mutex, which it gives up meanwhile: waits until there are as many requests as a step can
 * hold, or the first one has waited for batch_delay. */
void rt_engine_await_batch(mcc_engine *engine);

static inline rt_request *rt_request_of(rt_seq *seq) {
    return (rt_request *)((char *)seq - offsetof(rt_request, seq));
}

/* --- request.c -----------------------------------------------------------------------------------
 */

/* The longest text of an event; zero-terminated. */
size_t rt_request_event_bytes(const mcc_artifact *artifact);

/* Checks params and makes a request of them; NULL on error. It allocates all that the request will
 * need. Reads of the engine only what never changes. */
rt_request *rt_request_create(const mcc_engine *engine, const mcc_request_params *params,
                              rt_error *error);
void rt_request_free(rt_request *request);

/* Appends an output token, with its text and log-probabilities, and finishes the request if that
 * ends it. False when out of memory (only when the caller does not poll). */
bool rt_request_add(rt_request *request, const rt_sampled *token, rt_error *error);

/* Finishes it; text that was held back is released. */
void rt_request_finish(rt_request *request, int32_t reason);

#endif

/* The engine's insides: one slot of the KV cache for requests, which run one after the other, and
 * the machinery of a step. engine.c makes and steps engines; request.c holds what belongs to one
 * request: its tokens, its text and its events. */
#ifndef MCC_RUNTIME_ENGINE_H
#define MCC_RUNTIME_ENGINE_H

#include "runtime/device.h"
#include "runtime/loader.h"
#include "runtime/sampler.h"
#include "runtime/tokenizer/tokenizer.h"

typedef enum rt_request_state { RT_WAITING, RT_RUNNING, RT_FINISHED } rt_request_state;

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
    struct rt_request *next; /* in order of arrival */
    uint64_t id;
    uint32_t flags; /* MCC_REQUEST_ */
    rt_request_state state;
    int32_t finish_reason;

    int32_t *ids; /* prompt, then output */
    int64_t n_prompt, n_ids, max_ids;
    int64_t computed; /* of ids, from the first on: stored in the KV cache */
    int64_t cached;   /* of these, found there */

    rt_sampling sampling;
    float repetition_penalty;
    uint8_t *seen;     /* with a penalty: a bit for each token id in ids */
    int32_t *seen_ids; /* the same as a list */
    int64_t n_seen;
    rt_stop *stops;
    int32_t n_stops;
    int32_t *stop_ids;
    int32_t n_stop_ids;

    rt_detok detok;
    rt_output_text text;
    int64_t *text_ends; /* [max_ids - n_prompt] where each output token's text ends */
    float *logprobs;    /* the same, with MCC_REQUEST_LOGPROBS */
    int64_t polled;     /* output tokens whose events have been taken */
    double prefill_seconds, decode_seconds;
} rt_request;

struct mcc_engine {
    const mcc_artifact *artifact;
    rt_pool *pool;
    bool own_pool;
    rt_kv *kv;
    rt_step_block block;
    rt_device *device;
    int32_t vocab_size, n_slots, max_batched;
    int64_t max_len;
    int32_t *resident;        /* [max_len] the tokens that slot 0 holds */
    rt_candidate *candidates; /* [vocab_size] for the sampler */
    float *penalized;         /* [vocab_size] logits after the repetition penalty */
    rt_request *requests;     /* unfinished and not yet polled to the end */
    uint64_t last_id;
    char *event_text; /* of the last event polled; requests see to its size */
    size_t event_capacity;
    double *launch_seconds; /* [n_launches] of the last step; NULL: not measured */
    mcc_engine_stats stats;
};

/* --- request.c -----------------------------------------------------------------------------------
 */

/* Checks params and makes a request of them; NULL on error. It allocates all that the request will
 * need, in the engine too. */
rt_request *rt_request_create(mcc_engine *engine, const mcc_request_params *params,
                              rt_error *error);
void rt_request_free(rt_request *request);

/* Appends an output token, with its text and log-probability, and finishes the request if that ends
 * it. False when out of memory (only when the caller does not poll). */
bool rt_request_add(rt_request *request, int32_t id, float logprob, rt_error *error);

/* Finishes it; text that was held back is released. */
void rt_request_finish(rt_request *request, int32_t reason);

#endif

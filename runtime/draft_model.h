/* Drafts by a smaller model: a second artifact with the same vocabulary, which continues all
 * sequences a token at a time, in steps of its own that compute all of them together.
 *
 * It has its own KV cache, with the slots of the engine's sequences. What a slot holds follows its
 * sequence: tokens that the sequence has and the cache lacks (the prompt, tokens chosen otherwise)
 * are computed before the first draft, drafts that were wrong are forgotten, and when a slot gets
 * another sequence (the old one ended, or was preempted) its pages go to the prefix cache, where
 * the same sequence finds them when it comes back. Prompts are computed in chunks beside the
 * engine's own. Without pages for a sequence, it just gets no drafts; nor does any in a step in
 * which the device fails, as it does when another engine loses the GPU. Failing twice in a row is
 * an error.
 *
 * A draft is chosen as the request samples: the same parameters, seed and position, so that where
 * the models agree, so do the choices; or, for rejection sampling, drawn for itself. */
#ifndef MCC_RUNTIME_DRAFT_MODEL_H
#define MCC_RUNTIME_DRAFT_MODEL_H

#include "runtime/device.h"
#include "runtime/proposer.h"

typedef struct rt_draft_options {
    int slots;             /* of the engine */
    int64_t max_len;       /* positions of its sequences */
    int32_t max_batched;   /* tokens of a step */
    uint64_t memory_bytes; /* for the KV cache; 0: what all slots need at full length */
    rt_pool *pool;
    rt_device_name device;
    bool null;    /* run nothing */
    double ratio; /* what its steps may cost, as a part of the engine's: see rt_proposer */
} rt_draft_options;

/* Whether drafts of `draft` are tokens of `target`: the vocabularies are the same. The error says
 * where they are not. */
bool rt_draft_check(const mcc_artifact *draft, const mcc_artifact *target, rt_error *error);

/* NULL on error. The artifact must outlive it. */
rt_proposer *rt_draft_model_create(const mcc_artifact *artifact, const rt_draft_options *options,
                                   rt_error *error);

/* Bytes of its KV cache. */
uint64_t rt_draft_model_kv_bytes(const rt_proposer *proposer);

#endif

/* What proposes the tokens that a step verifies (speculative decoding: Leviathan et al. 2023,
 * section 2). The engine computes drafted tokens in one step, beside the token that they follow,
 * and keeps those that the model chooses itself.
 *
 * A proposer is one file with a table of functions: lookup.c finds what followed the last tokens
 * when they came before, draft_model.c runs a smaller model. Heads on the model's hidden states
 * (Medusa, EAGLE) would be another one.
 *
 * A step: the engine asks `offer` of each request that decodes, the scheduler plans with as many
 * of these tokens as there is room for, `propose` writes them, the step runs, and `settle` says
 * what became of them. */
#ifndef MCC_RUNTIME_PROPOSER_H
#define MCC_RUNTIME_PROPOSER_H

#include "runtime/sampler.h"
#include "runtime/scheduler.h"
#include "runtime/speculation.h"

typedef struct rt_proposer rt_proposer;

/* A running sequence whose request wants drafts, in a step that has been planned. */
typedef struct rt_draft_job {
    rt_seq *seq;
    const rt_sampling *sampling;
    int32_t wanted;  /* tokens to propose, as planned; room for them is behind seq->ids */
    bool prompt;     /* its prompt is to be followed, as the step computes it: drafts are near */
    int32_t drafted; /* result: tokens proposed, 0 … wanted, in ids[n_ids …] */
    /* For rejection sampling, else NULL: result, the distributions that tokens were drawn from, by
     * rt_draft_token; [wanted][vocabulary] weights and their sums. */
    uint32_t *weights;
    uint64_t *sums;
} rt_draft_job;

typedef struct rt_proposer_ops {
    /* Makes what is kept for a request, whose prompt is in seq and which gets `max_ids` tokens at
     * most; NULL when out of memory. From any thread: reads of the proposer only what never
     * changes. NULL: nothing is kept. */
    void *(*open)(const rt_proposer *proposer, const rt_seq *seq, int64_t max_ids);
    void (*close)(void *state); /* NULL is allowed */
    /* How many tokens can be proposed to follow ids[0 … n_ids-1], at most `most`, and of what class
     * the first of them is (speculation.h). May write them behind ids already. With the engine's
     * mutex, so it is quick. */
    int32_t (*offer)(rt_proposer *proposer, void *state, rt_seq *seq, int32_t most,
                     int32_t *first_class);
    /* Proposes for all running sequences, in one go. Without the mutex. False when its device
     * does not work. NULL: `offer` has written them. */
    bool (*propose)(rt_proposer *proposer, rt_draft_job *jobs, int n, rt_error *error);
    /* Of the tokens drafted for a sequence, behind its n_ids, the first `kept` were right; the
     * sequence has not got them yet. NULL: not of interest. */
    void (*settle)(rt_proposer *proposer, const rt_seq *seq, int32_t kept);
    /* Forgets what it holds of all sequences; with the engine's device failed, which its own may
     * share a GPU with, that is set up again, too. NULL: nothing to forget. */
    void (*reset)(rt_proposer *proposer, bool device_failed);
    void (*destroy)(rt_proposer *proposer);
} rt_proposer_ops;

/* The first member of each proposer's struct. */
struct rt_proposer {
    const rt_proposer_ops *ops;
    /* What proposing costs: a step that drafts, by its tokens; before one has been measured, as a
     * part of the model's own steps; and what the last `propose` has cost, but for prompts. All 0:
     * nothing. */
    rt_step_cost cost;
    double ratio, spent;
};

#endif

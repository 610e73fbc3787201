/* The scheduler: which tokens of which sequences the next step computes (iteration-level
 * scheduling: Yu et al. 2022, Orca, section 3.1; with prompts in chunks beside decoding sequences:
 * Agrawal et al. 2024, Sarathi-Serve, section 4).
 *
 * A pure function of its state and of the times that it is told: it reads no clock, does no I/O,
 * runs nothing, and allocates nothing after rt_scheduler_create. The engine, or a simulation, asks
 * for a plan, runs it, and says how it went. One thread at a time.
 *
 * Order. Sequences are served by urgency, arrival + aging * priority: who waits becomes more
 * urgent by one level of priority every `aging` seconds, so that nobody starves, and as everybody
 * ages alike, the order of two never changes.
 *
 * A step. First a token for each sequence that decodes. Half of what is left of the step's tokens
 * goes to prompts by urgency, those at work and those that wait, in chunks; the other half to the
 * prompts that have the least left to compute (Schrage 1968: so the mean time to the first token
 * is least), which is the same half again where the most urgent one is the shortest, too. So
 * neither who is urgent nor who is short waits behind a long prompt, and the most urgent one has
 * half of each step at least. Who waits may begin as long as there are slots and pages for all
 * that it is known to need; when pages are short for one, nobody overtakes it. Drafts have what is
 * left in the end. One that begins like a more urgent prompt at work is held back until that is
 * computed, so that a common beginning costs once. When a running sequence finds no page, the least
 * urgent one is preempted: it lets go of its pages (which stay cached, if nobody needs them) and
 * waits again, to be computed anew, or to be copied back from the host's memory, to which its pages
 * go where that is cheaper. The most urgent running sequence always gets what it needs, so
 * every step makes progress. */
#ifndef MCC_RUNTIME_SCHEDULER_H
#define MCC_RUNTIME_SCHEDULER_H

#include "runtime/kv.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum rt_seq_state { RT_SEQ_OUT, RT_SEQ_WAITING, RT_SEQ_RUNNING } rt_seq_state;

/* A sequence as the scheduler sees it; its owner embeds it. */
typedef struct rt_seq {
    /* The owner's. Set before rt_scheduler_add: */
    int32_t *ids;          /* prompt, then output; stays where it is */
    int64_t n_ids;         /* the owner adds tokens that have been sampled */
    int64_t n_prompt;      /* of these, the prompt's */
    int32_t priority;      /* less is more urgent */
    double arrival;        /* seconds */
    double deadline;       /* the same clock; INFINITY: none */
    uint64_t salt;         /* of the prefix cache */
    bool no_cache;         /* compute all of it */
    bool all_rows;         /* ask for a row of each token, not only of the last */
    struct rt_seq *leader; /* has the same prompt: wait until it is computed, and share it; NULL */
    /* Before each plan: drafted tokens, in ids behind n_ids, to be verified if there is room. */
    int32_t n_drafts;
    /* The scheduler's. Zero before rt_scheduler_add. */
    rt_seq_state state;
    int slot;
    int64_t computed; /* of ids: stored in the KV cache after the last step */
    int64_t cached;   /* tokens that it took over instead of computing them, when it first ran */
    int32_t preemptions;
    int32_t followers; /* whose leader it is */
    int32_t item;      /* in the plan; -1 */
    /* Whether it waits for another to compute what both begin with; the other's number, and up to
     * where. */
    bool held_back;
    uint64_t held_by;
    int32_t held_slot; /* where the other runs */
    int64_t held_for;
    bool started;
    int32_t swapped; /* 1 + the KV cache's record of it in the host's memory; 0: none */
    double urgency;
    uint64_t number;     /* breaks ties */
    int32_t deadline_at; /* in the heap of those that have a deadline; -1 */
    struct rt_seq *next, *prev;
} rt_seq;

/* A sequence's part of a step: tokens first … first+n-1 of its ids, and the rows of the last
 * n_rows of them: more than one with drafts. */
typedef struct rt_plan_item {
    rt_seq *seq; /* NULL: preempted after it was planned */
    int64_t first;
    int32_t n, n_rows;
    int32_t n_valid; /* n; the owner lowers it to 1 and the drafts that proved right */
} rt_plan_item;

typedef struct rt_plan {
    rt_plan_item *items;
    int32_t n_items, n_tokens;
    int32_t n_decode; /* tokens of sequences that had computed all but their last, and drafts */
} rt_plan;

typedef struct rt_scheduler_options {
    int max_seqs;      /* running at the same time; slots 0 … max_seqs-1 of the KV cache */
    int32_t max_batch; /* tokens of a step; at least max_seqs */
    int max_waiting;
    double aging; /* seconds of waiting that are worth one level of priority */
    /* Moving a token's pages to the host's memory and back costs as much as computing so many
     * tokens: a sequence that is preempted moves where it is below 1. */
    double swap_cost;
} rt_scheduler_options;

typedef struct rt_scheduler_stats {
    int running, waiting;
    uint64_t preemptions, swaps; /* of these, to the host's memory */
    uint64_t queries, hits;      /* tokens of sequences that began, and those found in the cache */
} rt_scheduler_stats;

typedef struct rt_scheduler rt_scheduler;

/* NULL when out of memory. The KV cache must outlive it. */
rt_scheduler *rt_scheduler_create(rt_kv *kv, const rt_scheduler_options *options);
void rt_scheduler_destroy(rt_scheduler *scheduler);

/* The sequence waits. False when max_waiting do already. n_ids is at least 1. */
bool rt_scheduler_add(rt_scheduler *scheduler, rt_seq *seq);

/* Takes a sequence out, wherever it is: it has ended. Not between a plan and rt_scheduler_done. */
void rt_scheduler_remove(rt_scheduler *scheduler, rt_seq *seq);

/* The sequence whose deadline is first, if that is not after `now`, for its owner to remove; NULL
 * when there is none. */
rt_seq *rt_scheduler_expired(const rt_scheduler *scheduler, double now);

/* A slot that no sequence has, -1 when there is none. */
int rt_scheduler_free_slot(const rt_scheduler *scheduler);

/* No deadline is after `time`. */
void rt_scheduler_limit(rt_scheduler *scheduler, double time);

/* Plans a step; pages are reserved. n_items is 0 when nothing can be done. The plan is valid until
 * the next one. */
rt_plan *rt_scheduler_plan(rt_scheduler *scheduler);

/* Changes what rt_scheduler_options has of it. */
void rt_scheduler_set_swap_cost(rt_scheduler *scheduler, double cost);

/* The step that was planned has run: what it computed and is valid is in the KV cache. False: it
 * has failed, and nothing is. The owner then adds sampled tokens, and removes sequences that ended.
 */
void rt_scheduler_done(rt_scheduler *scheduler, bool ran);

/* What the KV cache held is lost: all that run wait again, to be computed anew. Not between a plan
 * and rt_scheduler_done. */
void rt_scheduler_lose_cache(rt_scheduler *scheduler);

/* Walks through all sequences, running ones first: NULL gives the first, NULL follows the last. */
rt_seq *rt_scheduler_next(const rt_scheduler *scheduler, const rt_seq *seq);

rt_scheduler_stats rt_scheduler_get_stats(const rt_scheduler *scheduler);

#endif

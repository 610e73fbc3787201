/* How many tokens to draft, and whether at all: as many as pay.
 *
 * What a step costs is measured: seconds by its number of tokens. How often drafts are right is
 * counted, for each request and for all, by *class* of token: how far behind the last known token
 * it is, or for prompt lookup how long the text before it has been the same. From both follows
 * the draft that makes tokens at the highest rate (Leviathan et al. 2023, section 3.3, maximize the
 * same over a constant acceptance).
 *
 * An account bounds the loss whatever the text is: it begins with half a step, gets 2 % of what
 * tokens would cost without drafts and what right drafts save, and pays for each draft's part of
 * its step. No step drafts more than the account can pay for if all is wrong. So, measured in what
 * steps cost, n tokens take at most n * 1.02 + 0.5 steps' time; what has been saved may be
 * spent again, up to 8 steps. Where drafts do not seem to pay, a short one is tried when the
 * account has half a step more than it costs.
 *
 * Pure arithmetic on what it is told: it reads no clock and allocates nothing. */
#ifndef MCC_RUNTIME_SPECULATION_H
#define MCC_RUNTIME_SPECULATION_H

#include <stdbool.h>
#include <stdint.h>

/* --- what steps cost -----------------------------------------------------------------------------
 */

enum { RT_COST_POINTS = 48 };

/* Zero is a good beginning. Points ascend in tokens; each is a moving average. */
typedef struct rt_step_cost {
    double tokens[RT_COST_POINTS], seconds[RT_COST_POINTS]; /* 0 tokens: not measured */
} rt_step_cost;

/* A step of so many tokens took so long. */
void rt_step_cost_learn(rt_step_cost *cost, int32_t tokens, double seconds);

/* What one would cost: on the line through the two measured points next to it, but with fewer
 * tokens than were ever measured not less than their share of that. From one point alone, less is
 * its share, and twice as many tokens cost 10 % more. 0 when nothing has been measured. */
double rt_step_cost_of(const rt_step_cost *cost, int32_t tokens);

/* --- how often drafts are right ------------------------------------------------------------------
 */

enum { RT_DRAFT_CLASSES = 20 };

/* Zero is a good beginning. What lies back long counts less. */
typedef struct rt_acceptance {
    float tried[RT_DRAFT_CLASSES], right[RT_DRAFT_CLASSES];
} rt_acceptance;

/* Of tokens drafted in a row, the first of class `first`, the next of the one above …, the first
 * `kept` of `drafted` were right; those behind the first wrong one say nothing. */
void rt_acceptance_learn(rt_acceptance *acceptance, int32_t first, int32_t drafted, int32_t kept);

/* --- choosing ------------------------------------------------------------------------------------
 */

typedef struct rt_speculation {
    rt_step_cost cost;        /* of steps that decode only */
    rt_acceptance acceptance; /* of all requests */
    double credit;            /* seconds */
    bool started;
} rt_speculation;

/* What can be drafted for a sequence that decodes. */
typedef struct rt_draft_offer {
    int32_t n;                       /* tokens, at least 1 */
    int32_t first;                   /* class of the first one */
    const rt_acceptance *acceptance; /* of its request */
    int32_t chosen;                  /* result: 0 … n */
    double reach;                    /* how likely all of the chosen are right */
} rt_draft_offer;

/* A step, before its drafts: `decoding` sequences get a token, and `tokens` are computed in all.
 * What drafting costs: `draft` by the number of sequences, a step for each further token; not
 * measured yet, it is `draft_ratio` of the model's own; 0: nothing. */
typedef struct rt_draft_step {
    int32_t decoding, tokens;
    const rt_step_cost *draft;
    double draft_ratio;
} rt_draft_step;

/* Chooses for all offers of a step. */
void rt_speculation_choose(const rt_speculation *speculation, const rt_draft_step *step,
                           rt_draft_offer *offers, int n);

/* Whether drafts of up to `n` tokens seem to pay for a sequence that begins, or may: not enough is
 * known to say. */
bool rt_speculation_hopeful(const rt_speculation *speculation, const rt_draft_step *step,
                            int32_t n);

/* The step has run, with `drafted` tokens more, of which `kept` were right; making them has cost
 * `draft_seconds`. */
void rt_speculation_account(rt_speculation *speculation, const rt_draft_step *step, int32_t drafted,
                            int32_t kept, double draft_seconds);

#endif

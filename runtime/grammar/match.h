/* Reading a text by an automaton, byte by byte: which states its rules can be in, with which stacks
 * of callers.
 *
 * Stacks are shared (a graph-structured stack: Tomita 1985; or Earley's item sets with the origins
 * replaced by what is there to come back to): a *frame* is the set of callers that a rule can go
 * back to, a caller being a state to go on in and the frame of the rule that it is in. Frames with
 * the same callers are one frame. So the number of items does not grow with the number of ways to
 * read the text, and two texts after which the same may follow, and for the same reasons, have the
 * same items. A call that ends a rule leaves no trace: the callers of the rule take its place. */
#ifndef MCC_RUNTIME_GRAMMAR_MATCH_H
#define MCC_RUNTIME_GRAMMAR_MATCH_H

#include "runtime/grammar/automaton.h"

typedef struct rt_item {
    uint32_t frame;
    uint32_t state;
} rt_item;

typedef struct rt_frame {
    uint32_t begin, count; /* of callers */
    uint32_t hash, next;   /* of frames in the same bucket, from new to old */
} rt_frame;

/* Frame 0 is the root's: its caller is RT_STATE_END. A matcher is its owner's alone. */
typedef struct rt_matcher {
    const rt_automaton *automaton;
    rt_item *items; /* sets, as a stack */
    rt_frame *frames;
    rt_item *callers, *scratch;
    rt_call *pending_calls;   /* calls that have no frame yet … */
    uint32_t *pending_frames; /* … and whose they are */
    uint32_t *buckets;
    uint32_t n_items, n_frames, n_callers, n_scratch, n_pending, n_buckets;
    uint32_t item_capacity, frame_capacity, caller_capacity, scratch_capacity, pending_capacity;
    uint32_t n_needed; /* frames, when they were last tidied up */
    uint64_t work, max_work;
    bool out_of_memory; /* or beyond max_work or a limit: what is there then is incomplete */
} rt_matcher;

/* A set of items: items[begin … begin+count-1]. */
typedef struct rt_set {
    uint32_t begin, count;
} rt_set;

/* False when out of memory; to be destroyed in any case. */
bool rt_matcher_init(rt_matcher *matcher, const rt_automaton *automaton);
void rt_matcher_destroy(rt_matcher *matcher);

/* Sets are made at the top of the stack, of single items with the ends of rules that follow. */
rt_set rt_match_begin(const rt_matcher *matcher);
void rt_match_add(rt_matcher *matcher, rt_set *set, uint32_t state, uint32_t frame);
void rt_match_close(rt_matcher *matcher, rt_set *set);

/* The set at the beginning of a text. */
rt_set rt_match_start(rt_matcher *matcher);
/* All that called `frame` goes on. */
rt_set rt_match_return(rt_matcher *matcher, uint32_t frame);
/* Adds what the set's states call. The set is at the top. */
void rt_match_expand(rt_matcher *matcher, rt_set *set);
/* What an expanded set becomes by a byte: a set at the top, empty if nothing matches. */
rt_set rt_match_byte(rt_matcher *matcher, rt_set from, uint8_t byte);

/* Whether the text may end, and whether it must. The second takes room at the top meanwhile. */
bool rt_match_may_end(const rt_matcher *matcher, rt_set set);
bool rt_match_must_end(rt_matcher *matcher, rt_set set);

/* Takes off what was added to the frames since there were so many. */
void rt_match_drop_frames(rt_matcher *matcher, uint32_t n_frames);

/* Keeps the set alone, at the bottom of the stack and in a fixed order. */
void rt_match_keep(rt_matcher *matcher, rt_set *set);
/* If there are many frames, keeps only those that the set, which is the only one, needs. True when
 * frames have got other numbers. */
bool rt_match_tidy(rt_matcher *matcher, rt_set *set);

#endif

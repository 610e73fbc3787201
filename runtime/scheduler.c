#include "runtime/scheduler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of those that wait, so many at most are looked at: a step must not take long. */
enum { LOOKED_AT = 256 };

/* Sequences by urgency. */
typedef struct seq_list {
    rt_seq *first, *last;
    int n;
} seq_list;

struct rt_scheduler {
    rt_kv *kv;
    rt_scheduler_options options;
    seq_list running, waiting;
    int *free_slots, n_free_slots;
    rt_seq **by_slot; /* [max_seqs] who runs there; NULL */
    uint64_t numbers;
    rt_plan plan;
    bool preempted;        /* in this plan */
    bool lost;             /* nothing that the cache holds is worth keeping */
    bool full;             /* one that waits found no room, in this plan */
    const rt_seq *blocked; /* found no room … */
    uint64_t blocked_at;   /* … when so many pages had been let go … */
    int blocked_beside;    /* … and so many were running */
    rt_seq **deadlines;    /* [max_waiting + max_seqs] those that have one: a heap, first first */
    int32_t n_deadlines;
    rt_scheduler_stats stats;
};

/* --- lists ---------------------------------------------------------------------------------------
 */

static bool more_urgent(const rt_seq *a, const rt_seq *b) {
    return a->urgency != b->urgency ? a->urgency < b->urgency : a->number < b->number;
}

/* The place is looked for from both ends: who comes goes near the last, who is preempted near the
 * first, and as many as may wait are not to be walked through. */
static void insert(seq_list *list, rt_seq *seq) {
    rt_seq *before = list->last, *after = list->first;
    while (before && more_urgent(seq, before)) {
        if (more_urgent(seq, after)) {
            before = after->prev;
            break;
        }
        after = after->next;
        before = before->prev;
    }
    seq->prev = before;
    seq->next = before ? before->next : list->first;
    *(before ? &before->next : &list->first) = seq;
    *(seq->next ? &seq->next->prev : &list->last) = seq;
    list->n++;
}

static void take_out(seq_list *list, rt_seq *seq) {
    *(seq->prev ? &seq->prev->next : &list->first) = seq->next;
    *(seq->next ? &seq->next->prev : &list->last) = seq->prev;
    seq->next = seq->prev = NULL;
    list->n--;
}

/* --- deadlines -----------------------------------------------------------------------------------
 */

static void put_deadline(rt_scheduler *s, int32_t at, rt_seq *seq) {
    s->deadlines[at] = seq;
    seq->deadline_at = at;
}

/* A place of the heap is free: it is filled with `seq`, or with who should be there instead. */
static void settle_deadline(rt_scheduler *s, int32_t at, rt_seq *seq) {
    rt_seq **heap = s->deadlines;
    for (int32_t up; at > 0 && heap[up = (at - 1) / 2]->deadline > seq->deadline; at = up)
        put_deadline(s, at, heap[up]);
    for (int32_t down; (down = 2 * at + 1) < s->n_deadlines; at = down) {
        if (down + 1 < s->n_deadlines && heap[down + 1]->deadline < heap[down]->deadline)
            down++;
        if (heap[down]->deadline >= seq->deadline)
            break;
        put_deadline(s, at, heap[down]);
    }
    put_deadline(s, at, seq);
}

static void add_deadline(rt_scheduler *s, rt_seq *seq) {
    seq->deadline_at = -1;
    if (!isinf(seq->deadline))
        settle_deadline(s, s->n_deadlines++, seq);
}

static void remove_deadline(rt_scheduler *s, rt_seq *seq) {
    if (seq->deadline_at < 0)
        return;
    rt_seq *last = s->deadlines[--s->n_deadlines];
    if (last != seq)
        settle_deadline(s, seq->deadline_at, last);
    seq->deadline_at = -1;
}

rt_seq *rt_scheduler_expired(const rt_scheduler *s, double now) {
    return s->n_deadlines > 0 && s->deadlines[0]->deadline <= now ? s->deadlines[0] : NULL;
}

void rt_scheduler_limit(rt_scheduler *s, double time) {
    for (rt_seq *seq = rt_scheduler_next(s, NULL); seq; seq = rt_scheduler_next(s, seq)) {
        remove_deadline(s, seq);
        seq->deadline = seq->deadline < time ? seq->deadline : time;
        add_deadline(s, seq);
    }
}

/* --- life ----------------------------------------------------------------------------------------
 */

rt_scheduler *rt_scheduler_create(rt_kv *kv, const rt_scheduler_options *options) {
    rt_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->kv = kv;
    s->options = *options;
    s->free_slots = malloc((size_t)options->max_seqs * sizeof *s->free_slots);
    /* A sequence that is preempted after it was planned leaves an item behind. */
    s->plan.items = malloc(2 * (size_t)options->max_seqs * sizeof *s->plan.items);
    s->by_slot = calloc((size_t)options->max_seqs, sizeof *s->by_slot);
    size_t most = (size_t)options->max_waiting + (size_t)options->max_seqs;
    s->deadlines = malloc(most * sizeof *s->deadlines);
    if (!s->free_slots || !s->plan.items || !s->by_slot || !s->deadlines) {
        rt_scheduler_destroy(s);
        return NULL;
    }
    for (int i = 0; i < options->max_seqs; i++)
        s->free_slots[i] = options->max_seqs - 1 - i;
    s->n_free_slots = options->max_seqs;
    return s;
}

void rt_scheduler_destroy(rt_scheduler *s) {
    if (!s)
        return;
    free(s->free_slots);
    free(s->plan.items);
    free(s->by_slot);
    free(s->deadlines);
    free(s);
}

static void wait_in_line(rt_scheduler *s, rt_seq *seq) {
    seq->state = RT_SEQ_WAITING;
    seq->slot = seq->item = -1;
    insert(&s->waiting, seq);
}

bool rt_scheduler_add(rt_scheduler *s, rt_seq *seq) {
    if (s->waiting.n >= s->options.max_waiting)
        return false;
    seq->number = s->numbers++;
    seq->urgency = seq->arrival + s->options.aging * seq->priority;
    if (seq->leader)
        seq->leader->followers++;
    add_deadline(s, seq);
    wait_in_line(s, seq);
    return true;
}

static void drop_swapped(rt_scheduler *s, rt_seq *seq) {
    if (seq->swapped > 0)
        rt_kv_swap_drop(s->kv, seq->swapped - 1);
    seq->swapped = 0;
}

static void stop_running(rt_scheduler *s, rt_seq *seq) {
    rt_kv_truncate(s->kv, seq->slot, 0);
    s->free_slots[s->n_free_slots++] = seq->slot;
    s->by_slot[seq->slot] = NULL;
    take_out(&s->running, seq);
}

static void leave_leader(rt_seq *seq) {
    if (seq->leader)
        seq->leader->followers--;
    seq->leader = NULL;
}

void rt_scheduler_remove(rt_scheduler *s, rt_seq *seq) {
    if (seq->state == RT_SEQ_RUNNING)
        stop_running(s, seq);
    else if (seq->state == RT_SEQ_WAITING)
        take_out(&s->waiting, seq);
    drop_swapped(s, seq);
    remove_deadline(s, seq);
    seq->state = RT_SEQ_OUT;
    if (s->blocked == seq)
        s->blocked = NULL;
    leave_leader(seq);
    for (rt_seq *w = s->waiting.first; w && seq->followers > 0; w = w->next)
        if (w->leader == seq)
            leave_leader(w);
}

rt_seq *rt_scheduler_next(const rt_scheduler *s, const rt_seq *seq) {
    if (!seq)
        return s->running.first ? s->running.first : s->waiting.first;
    return seq->next ? seq->next : seq->state == RT_SEQ_RUNNING ? s->waiting.first : NULL;
}

int rt_scheduler_free_slot(const rt_scheduler *s) {
    return s->n_free_slots > 0 ? s->free_slots[s->n_free_slots - 1] : -1;
}

rt_scheduler_stats rt_scheduler_get_stats(const rt_scheduler *s) {
    rt_scheduler_stats stats = s->stats;
    stats.running = s->running.n;
    stats.waiting = s->waiting.n;
    return stats;
}

/* --- planning ------------------------------------------------------------------------------------
 */

/* Back to the line, with its tokens: those that its pages held are computed again, or copied. */
static void preempt(rt_scheduler *s, rt_seq *seq) {
    if (seq->item >= 0) {
        rt_plan_item *item = &s->plan.items[seq->item];
        s->plan.n_tokens -= item->n;
        item->seq = NULL;
    }
    if (!s->lost && s->options.swap_cost < 1) {
        seq->swapped = rt_kv_swap_out(s->kv, seq->slot) + 1;
        s->stats.swaps += seq->swapped > 0;
    }
    stop_running(s, seq);
    seq->computed = 0;
    seq->preemptions++;
    s->stats.preemptions++;
    s->preempted = true;
    wait_in_line(s, seq);
}

/* Tokens of a sequence that are neither computed nor planned. */
static int64_t left_of(const rt_scheduler *s, const rt_seq *seq) {
    return seq->n_ids - seq->computed - (seq->item >= 0 ? s->plan.items[seq->item].n : 0);
}

/* Plans the sequence's next tokens, at most `most`, beside those that it has in the plan already.
 * Where pages are short, less urgent sequences make room, or it steps back itself. */
static void plan_sequence(rt_scheduler *s, rt_seq *seq, int32_t most) {
    int64_t left = left_of(s, seq);
    int32_t n = left < most ? (int32_t)left : most;
    int32_t before = seq->item >= 0 ? s->plan.items[seq->item].n : 0;
    if (n == 0)
        return;
    while (!rt_kv_reserve(s->kv, seq->slot, seq->computed + before + n, NULL)) {
        rt_seq *victim = s->running.last;
        preempt(s, victim);
        if (victim == seq)
            return;
    }
    if (seq->item < 0)
        seq->item = s->plan.n_items++;
    s->plan.items[seq->item] = (rt_plan_item){.seq = seq,
                                              .first = seq->computed,
                                              .n = before + n,
                                              .n_rows = seq->all_rows ? before + n : n == left,
                                              .n_valid = before + n};
    s->plan.n_tokens += n;
}

/* Planning preempts from the end: this one too, perhaps, and then it was the last. */
static rt_seq *running_after(const rt_seq *seq) {
    return seq->state == RT_SEQ_RUNNING ? seq->next : NULL;
}

static int32_t room_of(const rt_scheduler *s) {
    return s->options.max_batch - s->plan.n_tokens;
}

static void plan_decoding(rt_scheduler *s) {
    for (rt_seq *seq = s->running.first; seq; seq = running_after(seq))
        if (left_of(s, seq) == 1)
            plan_sequence(s, seq, room_of(s));
}

/* Its leader has the same prompt and is about to compute it. */
static bool waits_for_leader(const rt_seq *seq) {
    const rt_seq *l = seq->leader;
    return l && (l->state == RT_SEQ_WAITING ? !l->started : l->computed < seq->n_prompt - 1);
}

/* A more urgent sequence is about to compute a block that this one, which holds `held` tokens,
 * needs next: the cache will have it then. */
static bool is_being_computed(const rt_scheduler *s, rt_seq *seq, int64_t held) {
    int64_t common = held + rt_kv_block(s->kv);
    if (seq->no_cache || common > seq->n_ids - 1)
        return false;
    for (const rt_seq *r = s->running.first; r && more_urgent(r, seq); r = r->next)
        if (r->computed < common && r->n_ids >= common && r->salt == seq->salt &&
            memcmp(r->ids, seq->ids, (size_t)common * sizeof *seq->ids) == 0) {
            seq->held_by = r->number;
            seq->held_slot = r->slot;
            seq->held_for = common;
            return true;
        }
    return false;
}

/* Whether that is still so; false as well when the other one has another slot by now, which is then
 * found anew. */
static bool is_still_held(const rt_scheduler *s, const rt_seq *seq) {
    const rt_seq *r = seq->held_back ? s->by_slot[seq->held_slot] : NULL;
    return r && r->number == seq->held_by && r->computed < seq->held_for;
}

static bool is_held_back(const rt_scheduler *s, rt_seq *seq) {
    bool held = waits_for_leader(seq) || is_still_held(s, seq);
    seq->held_back = seq->held_back || held;
    return held;
}

/* What the KV cache has of the sequence already; one token at least is left to compute, for its
 * row. */
static int64_t take_over(rt_scheduler *s, rt_seq *seq) {
    const rt_seq *l = seq->leader;
    int64_t most = seq->n_ids - 1;
    if (seq->swapped > 0)
        return 0;
    if (l && l->state == RT_SEQ_RUNNING && rt_kv_fork(s->kv, l->slot, seq->slot, most))
        return most;
    return rt_kv_attach(s->kv, seq->slot, seq->ids, seq->no_cache ? 0 : most, seq->salt);
}

/* False when there is no room for it, or it is held back. */
static bool admit(rt_scheduler *s, rt_seq *seq) {
    seq->slot = s->free_slots[s->n_free_slots - 1];
    int64_t held = take_over(s, seq);
    bool swapped = seq->swapped > 0;
    seq->held_back = !swapped && is_being_computed(s, seq, held);
    /* All that it is known to need, and a page for each that runs, so that the next tokens do not
     * preempt right away. */
    if (seq->held_back || !rt_kv_promise(s->kv, seq->slot, seq->n_ids + 1, s->running.n)) {
        rt_kv_truncate(s->kv, seq->slot, 0);
        seq->slot = -1;
        return false;
    }
    if (swapped) {
        held = rt_kv_swap_length(s->kv, seq->swapped - 1);
        if (!rt_kv_swap_in(s->kv, seq->swapped - 1, seq->slot)) {
            rt_kv_truncate(s->kv, seq->slot, 0);
            seq->slot = -1;
            return false;
        }
        seq->swapped = 0;
    }
    s->n_free_slots--;
    s->by_slot[seq->slot] = seq;
    take_out(&s->waiting, seq);
    insert(&s->running, seq);
    seq->state = RT_SEQ_RUNNING;
    seq->computed = held;
    s->stats.queries += swapped ? 0 : (uint64_t)seq->n_ids;
    s->stats.hits += swapped ? 0 : (uint64_t)held;
    if (!seq->started)
        seq->cached = held;
    seq->started = true;
    leave_leader(seq);
    return true;
}

static bool may_admit(const rt_scheduler *s) {
    return s->n_free_slots > 0 && !s->preempted && !s->full;
}

/* A waiting sequence runs if it may and there is room. Where there is none, nobody overtakes it. */
static bool try_to_admit(rt_scheduler *s, rt_seq *seq) {
    if (is_held_back(s, seq))
        return false;
    s->full = s->blocked == seq && s->blocked_at == rt_kv_releases(s->kv) &&
              s->blocked_beside == s->running.n;
    if (s->full)
        return false;
    if (admit(s, seq)) {
        s->blocked = NULL;
        return true;
    }
    s->full = !seq->held_back;
    if (s->full) {
        s->blocked = seq;
        s->blocked_at = rt_kv_releases(s->kv);
        s->blocked_beside = s->running.n;
    }
    return false;
}

/* Up to `most` tokens of prompts, those at work and those that wait, by urgency. */
static void plan_urgent(rt_scheduler *s, int32_t most) {
    int32_t end = s->plan.n_tokens + most;
    int held = 0;
    rt_seq *running = s->running.first, *waiting = s->waiting.first;
    while (s->plan.n_tokens < end) {
        if (!may_admit(s) || held == LOOKED_AT)
            waiting = NULL;
        if (!running && !waiting)
            return;
        rt_seq *seq = running;
        if (waiting && (!running || more_urgent(waiting, running))) {
            seq = waiting;
            waiting = waiting->next;
            if (!try_to_admit(s, seq)) {
                held++;
                continue;
            }
        }
        plan_sequence(s, seq, end - s->plan.n_tokens);
        running = running_after(seq);
    }
}

/* The prompt with the least to compute, the most urgent one of these; NULL: none is left. */
static rt_seq *find_shortest(const rt_scheduler *s) {
    rt_seq *best = NULL;
    int64_t least = INT64_MAX;
    for (rt_seq *seq = s->running.first; seq; seq = seq->next) {
        int64_t left = left_of(s, seq);
        if (left > 0 && left < least) {
            best = seq;
            least = left;
        }
    }
    rt_seq *seq = may_admit(s) ? s->waiting.first : NULL;
    for (int i = 0; seq && i < LOOKED_AT; i++, seq = seq->next)
        if (seq->n_ids < least + (best && more_urgent(seq, best)) && !is_held_back(s, seq)) {
            best = seq;
            least = seq->n_ids;
        }
    return best;
}

/* What is left of the step, the shortest prompts first. */
static void plan_short(rt_scheduler *s) {
    for (rt_seq *seq; room_of(s) > 0 && (seq = find_shortest(s));)
        if (seq->state == RT_SEQ_RUNNING || try_to_admit(s, seq))
            plan_sequence(s, seq, room_of(s));
}

static void drop_preempted(rt_plan *plan) {
    int32_t kept = 0;
    for (int32_t i = 0; i < plan->n_items; i++) {
        rt_plan_item *item = &plan->items[i];
        if (!item->seq)
            continue;
        item->seq->item = kept;
        plan->n_decode += item->n_rows > 0 && item->n == 1 && item->first >= item->seq->n_prompt;
        plan->items[kept++] = *item;
    }
    plan->n_items = kept;
}

/* Drafts go beside the tokens they follow, where that preempts nobody. */
static void plan_drafts(rt_scheduler *s) {
    rt_plan *plan = &s->plan;
    for (int32_t i = 0; i < plan->n_items; i++) {
        rt_plan_item *item = &plan->items[i];
        int32_t room = room_of(s), n = item->seq->n_drafts;
        n = n < room ? n : room;
        if (n <= 0 || item->n_rows != 1 || item->n != 1 ||
            !rt_kv_reserve(s->kv, item->seq->slot, item->first + 1 + n, NULL))
            continue;
        item->n = item->n_rows = item->n_valid = 1 + n;
        plan->n_tokens += n;
        plan->n_decode += item->first >= item->seq->n_prompt ? n : 0;
    }
}

rt_plan *rt_scheduler_plan(rt_scheduler *s) {
    s->plan.n_items = s->plan.n_tokens = s->plan.n_decode = 0;
    s->preempted = s->full = false;
    plan_decoding(s);
    plan_urgent(s, (room_of(s) + 1) / 2);
    plan_short(s);
    drop_preempted(&s->plan);
    plan_drafts(s);
    return &s->plan;
}

void rt_scheduler_set_swap_cost(rt_scheduler *s, double cost) {
    s->options.swap_cost = cost;
}

void rt_scheduler_lose_cache(rt_scheduler *s) {
    s->lost = true;
    while (s->running.last)
        preempt(s, s->running.last);
    s->lost = false;
    for (rt_seq *seq = s->waiting.first; seq; seq = seq->next)
        drop_swapped(s, seq);
}

void rt_scheduler_done(rt_scheduler *s, bool ran) {
    for (int32_t i = 0; i < s->plan.n_items; i++) {
        rt_plan_item *item = &s->plan.items[i];
        rt_seq *seq = item->seq;
        seq->item = -1;
        if (!ran)
            continue;
        seq->computed = item->first + item->n_valid;
        rt_kv_commit(s->kv, seq->slot, seq->computed, seq->ids);
    }
}

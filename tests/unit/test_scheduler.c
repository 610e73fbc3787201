/* The scheduler by simulation: thousands of sequences that come, are cancelled, miss deadlines,
 * share prompts, are preempted and fail, on a device that only keeps track of what is in which
 * page. Each step is held to the rules, and every sequence must end with the tokens that it would
 * have got alone. */
#include "check_main.h"
#include "runtime/modelcc.h"
#include "runtime/scheduler.h"

#include <math.h>
#include <string.h>

enum { PAGE = 16, MAX_LEN = 400, MAX_SEQS = 8, MAX_BATCH = 40, MAX_PAGES = 512, MAX_WAITING = 64 };

static const mcc_kv_group_entry groups[2] = {
    {.layers = 1, .heads = 1, .head_dim = 8, .page_tokens = PAGE, .layer_bytes = 1024},
    {.window = 30,
     .layers = 1,
     .heads = 1,
     .head_dim = 8,
     .page_tokens = PAGE,
     .layer_bytes = 1024}};

typedef struct request {
    rt_seq seq;
    int32_t ids[MAX_LEN];
    int64_t most; /* ids when it has all its tokens */
    int ended;    /* how often */
    bool live;
    struct request *next;
} request;

typedef struct world {
    rt_kv *kv;
    rt_scheduler *scheduler;
    rt_scheduler_options options;
    double now;
    uint64_t content[2][MAX_PAGES][PAGE], host[2][MAX_PAGES][PAGE];
    bool drafts;
    int64_t finished, cancelled, expired, failed, refused, shared, tokens, decoded;
    int64_t drafted, kept; /* tokens */
    uint64_t preempted;    /* before this step */
} world;

static world w;
static uint64_t state;
static int64_t preempted, swapped; /* in the last simulation */
static uint64_t swap_bytes;        /* of the host's memory, in the next one */

static uint32_t below(uint32_t n) {
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

/* The made-up model: what stands for tokens ids[0 … n-1], and which token follows. */
static uint64_t hash_of(const int32_t *ids, int64_t n, uint64_t salt) {
    uint64_t h = mix(1, salt);
    for (int64_t i = 0; i < n; i++)
        h = mix(h, (uint64_t)ids[i]);
    return h;
}

static int32_t next_of(uint64_t hash) {
    return (int32_t)(hash % 50);
}

static void make(int max_seqs, int32_t max_batch, uint64_t bytes) {
    rt_error error = {0};
    memset(&w, 0, sizeof w);
    rt_kv_options o = {.slots = max_seqs,
                       .max_len = MAX_LEN,
                       .max_step = max_batch,
                       .memory_bytes = bytes,
                       .swap_bytes = swap_bytes};
    w.kv = rt_kv_create(groups, 2, &o, &error);
    ck_assert_msg(w.kv != NULL, "%s", error.text);
    w.options = (rt_scheduler_options){.max_seqs = max_seqs,
                                       .max_batch = max_batch,
                                       .max_waiting = MAX_WAITING,
                                       .aging = 10,
                                       .swap_cost = swap_bytes ? 0.5 : 1};
    w.scheduler = rt_scheduler_create(w.kv, &w.options);
    ck_assert_ptr_nonnull(w.scheduler);
}

static void unmake(void) {
    rt_scheduler_destroy(w.scheduler);
    rt_kv_destroy(w.kv);
}

static void start(request *r, int64_t n_prompt, int64_t n_output) {
    r->seq = (rt_seq){.ids = r->ids,
                      .n_ids = n_prompt,
                      .n_prompt = n_prompt,
                      .arrival = w.now,
                      .deadline = INFINITY};
    r->most = n_prompt + n_output;
    ck_assert_int_le(r->most, MAX_LEN);
    r->ended = 0;
    r->live = true;
}

static request *request_of(rt_seq *seq) {
    return (request *)seq;
}

static void end(request *r) {
    rt_scheduler_remove(w.scheduler, &r->seq);
    ck_assert_int_eq(r->ended++, 0);
    r->live = false;
}

/* --- the device ----------------------------------------------------------------------------------
 */

static void copy_pages(void) {
    int n;
    const rt_kv_copy *copies = rt_kv_copies(w.kv, &n);
    for (int i = 0; i < n; i++) {
        const rt_kv_copy *c = &copies[i];
        ck_assert(c->from >= 0 && c->from < MAX_PAGES && c->to >= 0 && c->to < MAX_PAGES);
        memcpy(c->kind == RT_KV_TO_HOST ? w.host[c->group][c->to] : w.content[c->group][c->to],
               c->kind == RT_KV_FROM_HOST ? w.host[c->group][c->from]
                                          : w.content[c->group][c->from],
               sizeof w.content[0][0]);
    }
    rt_kv_copies_made(w.kv);
}

/* Stores an item's tokens, and reads back all that they see. */
static void compute(const rt_plan_item *item) {
    const rt_seq *q = item->seq;
    uint64_t h = mix(1, q->salt);
    for (int64_t p = 0; p < item->first + item->n; p++) {
        h = mix(h, (uint64_t)q->ids[p]);
        for (uint32_t g = 0; g < 2; g++) {
            int64_t seen = groups[g].window ? (item->first - groups[g].window + 1) / 256 * 256 : 0;
            if (p < seen)
                continue;
            int32_t page = rt_kv_table(w.kv, g, q->slot)[p / PAGE];
            if (page < 0 || page >= MAX_PAGES)
                ck_abort_msg("position %d has page %d", (int)p, page);
            if (p >= item->first)
                w.content[g][page][p % PAGE] = h;
        }
    }
}

static void verify(const rt_plan_item *item) {
    const rt_seq *q = item->seq;
    uint64_t h = mix(1, q->salt);
    for (int64_t p = 0; p < item->first + item->n; p++) {
        h = mix(h, (uint64_t)q->ids[p]);
        for (uint32_t g = 0; g < 2; g++) {
            int64_t seen = groups[g].window ? (item->first - groups[g].window + 1) / 256 * 256 : 0;
            if (p >= seen && w.content[g][rt_kv_table(w.kv, g, q->slot)[p / PAGE]][p % PAGE] != h)
                ck_abort_msg("position %d holds another's token", (int)p);
        }
    }
}

/* --- a step --------------------------------------------------------------------------------------
 */

/* Of what decoding leaves of a step, the most urgent prompt gets half, or all that it needs; of
 * that, those that had to compute one token only may have taken theirs. */
static void check_shares(const rt_plan *plan, rt_seq *const *before, int n_before) {
    int32_t decoding = 0, short_ones = 0;
    const rt_plan_item *urgent = NULL;
    for (int32_t i = 0; i < plan->n_items; i++) {
        const rt_plan_item *item = &plan->items[i];
        int64_t left = item->seq->n_ids - item->first;
        decoding += left == 1;
        for (int k = 0; k < n_before; k++)
            short_ones += left == 1 && before[k] == item->seq;
        if (left > 1 && (!urgent || item->seq->urgency < urgent->seq->urgency ||
                         (item->seq->urgency == urgent->seq->urgency &&
                          item->seq->number < urgent->seq->number)))
            urgent = item;
    }
    if (urgent) {
        int64_t left = urgent->seq->n_ids - urgent->first;
        int32_t half = (w.options.max_batch - decoding + 1) / 2;
        ck_assert_int_ge(urgent->n + short_ones, left < half ? left : half);
    }
}

/* The rules that hold for every plan. `before` is what was waiting, `n_before` of it. */
static void check_plan(const rt_plan *plan, rt_seq *const *before, int n_before) {
    int32_t tokens = 0;
    rt_scheduler_stats stats = rt_scheduler_get_stats(w.scheduler);
    ck_assert_int_le(stats.running, w.options.max_seqs);
    ck_assert_int_le(plan->n_items, stats.running);
    for (int32_t i = 0; i < plan->n_items; i++) {
        const rt_plan_item *item = &plan->items[i];
        const rt_seq *q = item->seq;
        ck_assert_int_eq(q->state, RT_SEQ_RUNNING);
        ck_assert_int_eq(q->item, i); /* so nobody is there twice */
        ck_assert_int_eq(item->first, q->computed);
        ck_assert_int_ge(item->n, 1);
        int64_t drafts = item->first + item->n - q->n_ids;
        ck_assert_int_le(drafts, q->n_drafts);
        ck_assert_int_eq(item->n_rows, drafts >= 0 ? 1 + drafts : 0);
        tokens += item->n;
    }
    ck_assert_int_eq(tokens, plan->n_tokens);
    ck_assert_int_le(tokens, w.options.max_batch);
    /* Who waits or runs makes progress: all that decode, and the most urgent of all. */
    const rt_seq *first = rt_scheduler_next(w.scheduler, NULL);
    if (first) {
        ck_assert_int_eq(first->state, RT_SEQ_RUNNING);
        ck_assert_int_ge(first->item, 0);
    }
    bool bound = tokens == w.options.max_batch;
    for (const rt_seq *q = first; q && q->state == RT_SEQ_RUNNING; q = q->next) {
        if (q->n_ids - q->computed == 1)
            ck_assert_int_ge(q->item, 0);
        ck_assert(bound || q->item >= 0);
    }
    /* Nobody overtakes but who is shorter: of those that waited, none runs while a more urgent one
     * that could, and has no more to compute, does not. Who is held back waits for a more urgent
     * one that runs. */
    int64_t least = INT64_MAX;
    for (int i = 0; i < n_before; i++) {
        if (before[i]->held_back)
            ck_assert(before[i]->state == RT_SEQ_WAITING && first->state == RT_SEQ_RUNNING);
        else if (before[i]->state == RT_SEQ_WAITING)
            least = before[i]->n_ids < least ? before[i]->n_ids : least;
        ck_assert(before[i]->state == RT_SEQ_WAITING || before[i]->n_ids < least);
    }
    if (stats.preemptions == w.preempted) /* else who decodes may have lost its place */
        check_shares(plan, before, n_before);
}

static void check_cache(void) {
    rt_error error = {0};
    ck_assert_msg(rt_kv_check(w.kv, &error), "%s", error.text);
}

/* Drafts for those that decode: right up to a random place. */
static void draft(void) {
    rt_seq *q = rt_scheduler_next(w.scheduler, NULL);
    for (; q && q->state == RT_SEQ_RUNNING; q = rt_scheduler_next(w.scheduler, q)) {
        int64_t room = request_of(q)->most - q->n_ids - 1;
        q->n_drafts = 0;
        if (q->computed != q->n_ids - 1 || below(3))
            continue;
        int64_t n = below(6), right = below(6);
        for (int64_t k = 0; k < n && k < room; k++, q->n_drafts++)
            q->ids[q->n_ids + k] = k < right ? next_of(hash_of(q->ids, q->n_ids + k, q->salt)) : -7;
    }
}

/* Tokens that are right, of an item with drafts. */
static int32_t valid_of(const rt_plan_item *item) {
    const rt_seq *q = item->seq;
    int32_t n = item->n - item->n_rows + 1;
    while (n < item->n &&
           q->ids[item->first + n] == next_of(hash_of(q->ids, item->first + n, q->salt)))
        n++;
    return n;
}

/* One step; `fails`: the device does, and what was planned ends. False when there was nothing. */
static bool step(double seconds, bool fails) {
    for (rt_seq *q; (q = rt_scheduler_expired(w.scheduler, w.now));) {
        ck_assert(q->deadline <= w.now);
        end(request_of(q));
        w.expired++;
    }
    rt_seq *before[2 * MAX_WAITING];
    int n_before = 0;
    for (rt_seq *q = rt_scheduler_next(w.scheduler, NULL); q; q = rt_scheduler_next(w.scheduler, q))
        if (q->state == RT_SEQ_WAITING)
            before[n_before++] = q;
    if (w.drafts)
        draft();
    w.preempted = rt_scheduler_get_stats(w.scheduler).preemptions;
    rt_plan *plan = rt_scheduler_plan(w.scheduler);
    check_plan(plan, before, n_before);
    copy_pages();
    rt_plan_item items[2 * MAX_SEQS];
    int32_t n_items = plan->n_items;
    memcpy(items, plan->items, (size_t)n_items * sizeof *items);
    for (int32_t i = 0; i < n_items; i++)
        compute(&items[i]);
    for (int32_t i = 0; i < n_items; i++)
        verify(&items[i]);
    for (int32_t i = 0; i < n_items; i++)
        if (items[i].n_rows > 1) {
            items[i].n_valid = plan->items[i].n_valid = valid_of(&items[i]);
            w.drafted += items[i].n_rows - 1;
            w.kept += items[i].n_valid - 1;
        }
    w.tokens += plan->n_tokens;
    w.decoded += plan->n_decode;
    rt_scheduler_done(w.scheduler, !fails);
    w.now += seconds;
    for (int32_t i = 0; i < n_items; i++) {
        rt_seq *q = items[i].seq;
        request *r = request_of(q);
        if (fails) {
            end(r);
            w.failed++;
        } else if (items[i].n_rows) {
            int64_t n = q->computed + 1;
            while (q->n_ids < n) {
                r->ids[q->n_ids] = next_of(hash_of(q->ids, q->n_ids, q->salt));
                q->n_ids++;
            }
            ck_assert_int_le(q->n_ids, r->most);
            if (q->n_ids < r->most)
                continue;
            w.finished++;
            w.shared += q->cached > 0;
            end(r);
        }
    }
    check_cache();
    return n_items > 0;
}

/* --- at random -----------------------------------------------------------------------------------
 */

static void random_request(request *r) {
    int64_t n_prompt = 1 + below(below(4) == 0 ? MAX_LEN / 2 : 60);
    uint32_t family = below(4);
    for (int64_t i = 0; i < n_prompt; i++)
        r->ids[i] = i < 40 || below(2) ? (int32_t)(family * 7 + (uint32_t)i % 11) : (int32_t)i % 3;
    start(r, n_prompt, 1 + below(below(6) == 0 ? MAX_LEN / 2 - 1 : 40));
    r->seq.priority = (int32_t)below(3) - 1;
    r->seq.salt = below(5) == 0;
    r->seq.no_cache = below(8) == 0;
    if (below(10) == 0)
        r->seq.deadline = w.now + below(60);
}

/* Up to three more that share a request's prompt. */
static int add_followers(request *pool, int n_pool, request *leader) {
    int added = 0;
    for (int i = 0; i < n_pool && added < 3; i++) {
        request *r = &pool[i];
        if (r->live)
            continue;
        memcpy(r->ids, leader->ids, sizeof r->ids);
        start(r, leader->seq.n_prompt, 1 + below(20));
        r->seq.salt = leader->seq.salt;
        r->seq.priority = leader->seq.priority;
        r->seq.leader = &leader->seq;
        if (!rt_scheduler_add(w.scheduler, &r->seq)) {
            r->live = false;
            break;
        }
        added++;
    }
    return added;
}

static void simulate(uint64_t bytes, int n_requests, uint32_t load) {
    enum { POOL = MAX_WAITING + MAX_SEQS + 1 };
    static request pool[POOL];
    make(MAX_SEQS, MAX_BATCH, bytes);
    memset(pool, 0, sizeof pool);
    w.drafts = load != 200;
    int64_t submitted = 0, steps = 0, idle = 0;
    for (int64_t ended = 0; submitted < n_requests || ended < submitted; steps++) {
        ck_assert_int_lt(steps, 1000 * (int64_t)n_requests);
        for (int i = 0; i < POOL && submitted < n_requests; i++) {
            request *r = &pool[i];
            if (r->live || below(load) != 0)
                continue;
            random_request(r);
            if (!rt_scheduler_add(w.scheduler, &r->seq)) {
                ck_assert_int_ge(rt_scheduler_get_stats(w.scheduler).waiting, MAX_WAITING);
                r->live = false;
                w.refused++;
                break;
            }
            submitted++;
            if (below(6) == 0)
                submitted += add_followers(pool, POOL, r);
        }
        for (int i = 0; i < POOL; i++)
            if (pool[i].live && below(2000) == 0) {
                end(&pool[i]);
                w.cancelled++;
            }
        idle += !step(0.1 + below(10) * 0.1, below(300) == 0);
        ended = w.finished + w.cancelled + w.expired + w.failed;
        /* None is lost, none is there twice. */
        rt_scheduler_stats stats = rt_scheduler_get_stats(w.scheduler);
        ck_assert_int_eq(submitted - ended, stats.running + stats.waiting);
        ck_assert(submitted == ended || idle < steps + 1);
    }
    rt_scheduler_stats stats = rt_scheduler_get_stats(w.scheduler);
    ck_assert_uint_eq(rt_kv_bytes_used(w.kv), 0);
    ck_assert_int_gt(w.finished, n_requests / 2);
    ck_assert_int_gt(w.shared, n_requests / 20);
    ck_assert_int_gt(w.cancelled, 0);
    ck_assert_int_gt(w.expired, 0);
    ck_assert_int_gt(w.failed, 0);
    if (w.drafts)
        ck_assert(w.kept > 0 && w.drafted > w.kept);
    preempted = (int64_t)stats.preemptions;
    swapped = (int64_t)stats.swaps;
    unmake();
}

START_TEST(random_arrivals) {
    const char *seed = getenv("MCC_TEST_SEED");
    state = (seed ? strtoull(seed, NULL, 10) : 1) * 100 + (uint64_t)_i;
    int n = test_full() ? 20000 : 2000;
    uint64_t one = rt_kv_bytes_for(groups, 2, MAX_LEN, MAX_BATCH);
    const struct {
        uint64_t bytes;
        uint32_t load; /* less is more */
    } cases[] = {{one, 40}, {one + one / 2, 200}, {2 * one, 2000}, {0, 100}};
    simulate(cases[_i].bytes, n, cases[_i].load);
    ck_assert_int_eq(swapped, 0);
    if (_i < 2)
        ck_assert_int_gt(preempted, 0);
}
END_TEST

/* Those that are preempted come back from the host's memory: from much of it, or from too little
 * for all. */
START_TEST(random_arrivals_with_swap) {
    const char *seed = getenv("MCC_TEST_SEED");
    state = (seed ? strtoull(seed, NULL, 10) : 1) * 100 + 10 + (uint64_t)_i;
    uint64_t one = rt_kv_bytes_for(groups, 2, MAX_LEN, MAX_BATCH);
    swap_bytes = _i ? one / 2 : 4 * one;
    simulate(one + one / 4, test_full() ? 20000 : 1000, 60);
    swap_bytes = 0;
    ck_assert_int_gt(swapped, 0);
    ck_assert(_i ? swapped < preempted : true);
}
END_TEST

/* What a sequence held when it was preempted, and another's pages since, is there again, and not
 * computed again. */
START_TEST(what_was_swapped_out_comes_back) {
    static request r[2];
    swap_bytes = 2 * rt_kv_bytes_for(groups, 2, MAX_LEN, 16);
    make(2, 16, rt_kv_bytes_for(groups, 2, MAX_LEN, 16));
    for (int i = 0; i < 300; i++) {
        r[0].ids[i] = i;
        r[1].ids[i] = 1000 + i;
    }
    start(&r[0], 80, 250);
    r[0].seq.priority = 1;
    start(&r[1], 60, 250);
    ck_assert(rt_scheduler_add(w.scheduler, &r[0].seq));
    ck_assert(rt_scheduler_add(w.scheduler, &r[1].seq));
    while (step(0, false))
        ;
    rt_scheduler_stats stats = rt_scheduler_get_stats(w.scheduler);
    ck_assert_int_eq(w.finished, 2);
    ck_assert_int_gt(r[0].seq.preemptions, 0);
    ck_assert_uint_eq(stats.swaps, stats.preemptions);
    ck_assert_int_eq(w.tokens, 80 + 249 + 60 + 249);
    unmake();
    swap_bytes = 0;
}
END_TEST

/* --- by name -------------------------------------------------------------------------------------
 */

/* What is urgent comes without end; what is not gets its turn all the same. */
START_TEST(nobody_starves) {
    static request urgent[4], patient;
    make(2, 16, 0);
    for (int i = 0; i < 20; i++)
        patient.ids[i] = i;
    start(&patient, 20, 5);
    patient.seq.priority = 3; /* urgent ones that come within 30 s go first */
    ck_assert(rt_scheduler_add(w.scheduler, &patient.seq));
    while (patient.live) {
        for (int i = 0; i < 4; i++)
            if (!urgent[i].live) {
                urgent[i].ids[0] = i;
                start(&urgent[i], 1, 4);
                ck_assert(rt_scheduler_add(w.scheduler, &urgent[i].seq));
            }
        step(0.5, false);
        ck_assert(w.now >= 29 || !patient.seq.started);
        ck_assert(w.now < 36);
    }
    unmake();
}
END_TEST

START_TEST(prompts_fill_what_decoding_leaves) {
    static request r[3];
    make(3, 20, 0);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 100; i++)
            r[k].ids[i] = 100 * k + i;
    start(&r[0], 3, 10);
    start(&r[1], 70, 2);
    start(&r[2], 50, 2);
    for (int k = 0; k < 3; k++)
        ck_assert(rt_scheduler_add(w.scheduler, &r[k].seq));
    step(1, false); /* 3 + 7, the more urgent half, and 10 of the shorter one */
    ck_assert_int_eq(r[0].seq.n_ids, 4);
    ck_assert_int_eq(r[1].seq.computed, 7);
    ck_assert_int_eq(r[2].seq.computed, 10);
    step(1, false); /* 1 + 10 + 9 */
    ck_assert_int_eq(r[0].seq.n_ids, 5);
    ck_assert_int_eq(r[1].seq.computed, 17);
    ck_assert_int_eq(r[2].seq.computed, 19);
    for (int i = 0; i < 4; i++)
        step(1, false); /* 1 + 10 + 9, in the last 1 + 10 + 4 + 5 */
    ck_assert_int_eq(r[1].seq.computed, 62);
    ck_assert_int_eq(r[2].seq.n_ids, 51);
    unmake();
}
END_TEST

/* Prompts of one length are computed one after the other: at once, all would end last. */
START_TEST(equal_prompts_take_turns) {
    static request r[3];
    make(3, 20, 0);
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < 60; i++)
            r[k].ids[i] = 100 * k + i;
        start(&r[k], 60, 1);
        ck_assert(rt_scheduler_add(w.scheduler, &r[k].seq));
    }
    for (int i = 1; i <= 9; i++) {
        step(1, false);
        ck_assert_int_eq(w.finished, i / 3);
    }
    unmake();
}
END_TEST

/* Long prompts fill every step. One that is more urgent than all, or shorter, has tokens in the
 * next step, as many as half of what decoding leaves. */
START_TEST(who_is_urgent_or_short_starts_at_once) {
    enum { LONGS = 6 };
    static request longs[LONGS], r;
    const char *seed = getenv("MCC_TEST_SEED");
    state = (seed ? strtoull(seed, NULL, 10) : 1) * 100 + 50;
    make(MAX_SEQS, MAX_BATCH, 0);
    memset(longs, 0, sizeof longs);
    for (int round = 0; round < (test_full() ? 5000 : 1000); round++) {
        for (int k = 0; k < LONGS; k++) {
            if (longs[k].live)
                continue;
            for (int i = 0; i < 390; i++)
                longs[k].ids[i] = (int32_t)below(50);
            start(&longs[k], 250 + below(100), 1 + below(40));
            ck_assert(rt_scheduler_add(w.scheduler, &longs[k].seq));
        }
        bool urgent = below(2);
        int64_t n = urgent ? 1 + below(350) : 1 + below(10);
        for (int i = 0; i < n; i++)
            r.ids[i] = (int32_t)below(50);
        start(&r, n, 2 + below(3));
        r.seq.priority = urgent ? -1000 : 1000;
        ck_assert(rt_scheduler_add(w.scheduler, &r.seq));
        int32_t decoding = 0, ready = 0;
        for (int k = 0; k < LONGS; k++)
            decoding += longs[k].seq.n_ids - longs[k].seq.computed == 1;
        step(0.1, false);
        for (int k = 0; k < LONGS; k++) /* had still less to compute, perhaps */
            ready += longs[k].seq.n_ids == longs[k].seq.n_prompt + 1;
        int32_t half = (MAX_BATCH - decoding) / 2;
        if (urgent)
            ck_assert_int_ge(r.seq.computed, n < half ? n : half);
        else
            ck_assert(r.seq.computed == n || ready > 0);
        while (r.live)
            step(0.1, false);
        for (int i = below(5); i > 0; i--)
            step(0.1, false);
    }
    ck_assert_int_gt(w.finished, 1000);
    unmake();
}
END_TEST

/* An urgent prompt takes the pages of a sequence that has been planned in the same step already. */
START_TEST(what_was_planned_can_be_preempted) {
    static request r[2];
    int met = 0;
    for (int n_prompt = 60; n_prompt < 100; n_prompt++) {
        make(2, 2, rt_kv_bytes_for(groups, 2, MAX_LEN, 2));
        for (int i = 0; i < 300; i++) {
            r[0].ids[i] = i;
            r[1].ids[i] = 1000 + i;
        }
        start(&r[0], n_prompt, 280);
        r[0].seq.priority = 1;
        start(&r[1], 260, 3);
        ck_assert(rt_scheduler_add(w.scheduler, &r[0].seq));
        while (r[0].seq.n_ids == r[0].seq.n_prompt)
            step(0, false);
        ck_assert(rt_scheduler_add(w.scheduler, &r[1].seq));
        while (step(0, false))
            ;
        ck_assert_int_eq(w.finished, 2);
        ck_assert_int_eq(r[1].seq.preemptions, 0);
        met += r[0].seq.preemptions > 0;
        unmake();
    }
    ck_assert_int_gt(met, 20);
}
END_TEST

/* The pages of one that ended are another's in the very next step. */
START_TEST(pages_go_from_hand_to_hand) {
    static request r[2];
    make(2, MAX_BATCH, rt_kv_bytes_for(groups, 2, MAX_LEN, MAX_BATCH));
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 300; i++)
            r[k].ids[i] = 1000 * k + i;
        start(&r[k], 300, 1);
        ck_assert(rt_scheduler_add(w.scheduler, &r[k].seq));
    }
    while (r[0].live) {
        ck_assert(!r[1].seq.started);
        step(1, false);
    }
    step(1, false);
    ck_assert_int_eq(r[1].seq.computed, MAX_BATCH);
    unmake();
}
END_TEST

START_TEST(samples_share_a_prompt) {
    static request r[4];
    make(4, MAX_BATCH, 0);
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < 100; i++)
            r[k].ids[i] = i;
        start(&r[k], 100, 30);
        r[k].seq.leader = k ? &r[0].seq : NULL;
        ck_assert(rt_scheduler_add(w.scheduler, &r[k].seq));
    }
    for (int i = 0; i < 3; i++)
        step(1, false);
    ck_assert_int_eq(w.tokens, 100);
    step(1, false);
    ck_assert_int_eq(w.tokens, 104); /* the last token of the prompt for each, for its row */
    for (int k = 1; k < 4; k++)
        ck_assert_int_eq(r[k].seq.cached, 99);
    /* Seven pages, the last one four times. */
    ck_assert_uint_eq(rt_kv_bytes_used(w.kv), (6 + 4) * 2 * 1024);
    while (step(1, false))
        ;
    ck_assert_int_eq(w.finished, 4);
    unmake();
}
END_TEST

/* Even where a step has room for all of them at once. */
START_TEST(a_common_beginning_costs_once) {
    enum { N = 8, COMMON = 300, OWN = 7 };
    static request r[N];
    make(N, MAX_LEN, 0);
    for (int k = 0; k < N; k++) {
        for (int i = 0; i < COMMON + OWN; i++)
            r[k].ids[i] = i < COMMON ? i : 1000 * k + i;
        start(&r[k], COMMON + OWN, 3);
        ck_assert(rt_scheduler_add(w.scheduler, &r[k].seq));
    }
    while (step(1, false))
        ;
    ck_assert_int_eq(w.finished, N);
    int64_t whole = COMMON / PAGE * PAGE, rest = COMMON + OWN - whole;
    ck_assert_int_eq(w.tokens, whole + N * (rest + 2));
    for (int k = 1; k < N; k++)
        ck_assert_int_eq(r[k].seq.cached, whole);
    unmake();
}
END_TEST

START_TEST(a_full_queue_refuses) {
    static request r[MAX_WAITING + 1];
    make(1, 4, 0);
    for (int k = 0; k < MAX_WAITING; k++) {
        start(&r[k], 1, 1);
        ck_assert(rt_scheduler_add(w.scheduler, &r[k].seq));
    }
    start(&r[MAX_WAITING], 1, 1);
    ck_assert(!rt_scheduler_add(w.scheduler, &r[MAX_WAITING].seq));
    step(1, false);
    ck_assert(rt_scheduler_add(w.scheduler, &r[MAX_WAITING].seq));
    unmake();
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("scheduler");
    TCase *t = tcase_create("scheduler");
    tcase_set_timeout(t, 600);
    tcase_add_loop_test(t, random_arrivals, 0, 4);
    tcase_add_loop_test(t, random_arrivals_with_swap, 0, 2);
    tcase_add_test(t, what_was_swapped_out_comes_back);
    tcase_add_test(t, nobody_starves);
    tcase_add_test(t, prompts_fill_what_decoding_leaves);
    tcase_add_test(t, equal_prompts_take_turns);
    tcase_add_test(t, who_is_urgent_or_short_starts_at_once);
    tcase_add_test(t, what_was_planned_can_be_preempted);
    tcase_add_test(t, pages_go_from_hand_to_hand);
    tcase_add_test(t, samples_share_a_prompt);
    tcase_add_test(t, a_common_beginning_costs_once);
    tcase_add_test(t, a_full_queue_refuses);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

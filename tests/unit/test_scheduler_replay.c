/* The scheduler at the rates of a cluster: the log-normal lengths of tests/bench/mixed.jsonl, which
 * come at random (Poisson) to many replicas or to one with thousands of running sequences, on a
 * device whose steps take a time of base + tokens * per_token. Nothing is computed and no clock is
 * read: time goes from one event to the next.
 *
 * Checked, beside what test_scheduler.c checks of every plan:
 *   conservation   every request ends once, with a reason; every token that was planned, taken from
 *                  the cache or lost to a preemption is accounted for
 *   fairness       nobody waits longer than what is before him needs, nor without end in a queue
 *                  that stays full
 *   no deadlock    a step is never empty while there is a request
 *   overload       a full queue refuses, the others are served at the full rate, and afterwards all
 *                  is as before
 *   work           what the scheduler itself does in a step is bounded: counted, not timed */
#include "check_main.h"
#include "runtime/scheduler.h"

#include <math.h>
#include <string.h>

enum { PAGE = 16, MAX_LEN = 2048, MAX_LENGTHS = 256, FAMILIES = 8, COMMON = 64 };

static const mcc_kv_group_entry group = {
    .layers = 1, .heads = 1, .head_dim = 8, .page_tokens = PAGE, .layer_bytes = 1024};

/* --- counting ------------------------------------------------------------------------------------
 */

/* Basic blocks of the scheduler and the KV cache that have run: tests/CMakeLists.txt has them
 * compiled so that each calls this (-fsanitize-coverage=trace-pc). */
static uint64_t blocks;
__attribute__((visibility("default"))) void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void) {
    blocks++;
}

/* As ck_assert, for what is checked millions of times: that writes to a file each time. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg("%s", #condition);                                                        \
    } while (0)

/* --- lengths and random numbers ------------------------------------------------------------------
 */

typedef struct length {
    int64_t prompt, output;
} length;

static length lengths[MAX_LENGTHS];
static int n_lengths;
static double mean_prompt, mean_output;

static void read_lengths(void) {
    FILE *file = fopen(MCC_TEST_DATA "/bench/mixed.jsonl", "re");
    ck_assert_ptr_nonnull(file);
    char line[256];
    for (n_lengths = 0; n_lengths < MAX_LENGTHS && fgets(line, sizeof line, file); n_lengths++) {
        double at;
        int prompt, output;
        ck_assert_int_eq(sscanf(line,
                                "{\"arrival_s\": %lf, \"prompt_tokens\": %d, \"max_tokens\": %d}",
                                &at, &prompt, &output),
                         3);
        ck_assert(prompt > 0 && output > 0 && prompt + output <= MAX_LEN);
        lengths[n_lengths] = (length){prompt, output};
        mean_prompt += prompt;
        mean_output += output;
    }
    fclose(file);
    ck_assert_int_gt(n_lengths, 100);
    mean_prompt /= n_lengths;
    mean_output /= n_lengths;
}

static uint64_t state;

static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t below(uint32_t n) {
    return (uint32_t)(next_random() % n);
}

/* Of a Poisson process. */
static double gap(double rate) {
    return -log((double)(next_random() >> 11) * 0x1p-53 + 0x1p-54) / rate;
}

/* --- a cluster -----------------------------------------------------------------------------------
 */

typedef enum reason { NOT_ENDED, FINISHED, CANCELLED, EXPIRED, FAILED, REFUSED } reason;
enum { REASONS = REFUSED + 1 };

typedef struct request {
    rt_seq seq;
    int64_t most; /* ids when it has all */
    double came, first, ended;
    reason reason;
    /* Its tokens, from item to item: up to where it is computed, the preemptions that were seen,
     * what it has had computed, and what it took over each time it began. */
    int64_t at, computed, held;
    int32_t preemptions;
    int64_t lost; /* computed or taken over, and then preempted */
} request;

typedef struct replica {
    rt_kv *kv;
    rt_scheduler *scheduler;
    rt_plan *plan;
    double ends;     /* the step at work; INFINITY: there is none */
    int there;       /* requests */
    int64_t planned; /* tokens of all steps that ran */
    /* Since the last step was planned: blocks, and requests that ended, with how many pages. */
    uint64_t did;
    int64_t n_gone, pages_gone;
} replica;

typedef struct phase {
    double seconds, rate; /* requests a second, for all replicas */
} phase;

typedef struct cluster {
    int n_replicas, max_seqs, max_waiting;
    int32_t max_batch;
    int64_t kv_tokens; /* of a replica */
    double base, per_token, aging;
    int n_phases;
    phase phases[3];
    bool mess;      /* deadlines, cancels, priorities, devices that fail */
    int64_t prefix; /* tokens that 200 requests in a row have in common, before their own prompts */
    double stop;    /* who is there then is cancelled; 0: the simulation goes on to the end */
    /* Results. */
    replica *replicas;
    request *requests;
    int n_requests, capacity;
    double now;
    int64_t by_reason[REASONS], steps, preemptions;
    int most_running;
    uint64_t most_blocks;     /* of a step … */
    double most_over_allowed; /* … and as a part of what is allowed */
    uint64_t all_blocks, all_tokens;
} cluster;

/* Requests a second that a replica can serve, if its steps are full. */
static double capacity_of(const cluster *c) {
    return 1 / ((mean_prompt + mean_output) * c->per_token + mean_output * c->base / c->max_seqs);
}

static void make(cluster *c) {
    rt_error error = {0};
    rt_kv_options kv = {.slots = c->max_seqs,
                        .max_len = MAX_LEN,
                        .max_step = c->max_batch,
                        .memory_bytes = (uint64_t)c->kv_tokens / PAGE * group.layer_bytes};
    rt_scheduler_options o = {.max_seqs = c->max_seqs,
                              .max_batch = c->max_batch,
                              .max_waiting = c->max_waiting,
                              .aging = c->aging,
                              .swap_cost = 1};
    c->replicas = calloc((size_t)c->n_replicas, sizeof *c->replicas);
    ck_assert_ptr_nonnull(c->replicas);
    for (int i = 0; i < c->n_replicas; i++) {
        replica *p = &c->replicas[i];
        p->kv = rt_kv_create(&group, 1, &kv, &error);
        ck_assert_msg(p->kv != NULL, "%s", error.text);
        p->scheduler = rt_scheduler_create(p->kv, &o);
        ck_assert_ptr_nonnull(p->scheduler);
        p->ends = INFINITY;
    }
    double expected = 0;
    for (int i = 0; i < c->n_phases; i++)
        expected += c->phases[i].seconds * c->phases[i].rate;
    c->capacity = (int)(1.2 * expected) + 100;
    c->requests = calloc((size_t)c->capacity, sizeof *c->requests);
    ck_assert_ptr_nonnull(c->requests);
}

static void unmake(cluster *c) {
    for (int i = 0; i < c->n_replicas; i++) {
        rt_scheduler_destroy(c->replicas[i].scheduler);
        rt_kv_destroy(c->replicas[i].kv);
    }
    free(c->replicas);
    free(c->requests);
}

static void end(cluster *c, replica *p, request *r, reason why) {
    MUST(r->reason == NOT_ENDED);
    if (why != REFUSED) {
        p->n_gone++;
        p->pages_gone += rt_kv_pages(p->kv, 0, r->seq.computed);
        rt_scheduler_remove(p->scheduler, &r->seq);
        p->there--;
    }
    r->reason = why;
    r->ended = c->now;
    c->by_reason[why]++;
    free(r->seq.ids);
    r->seq.ids = NULL;
}

/* --- requests come -------------------------------------------------------------------------------
 */

static void random_request(cluster *c, request *r) {
    length l = lengths[below((uint32_t)n_lengths)];
    l.prompt += c->prefix;
    int32_t *ids = malloc((size_t)(l.prompt + l.output) * sizeof *ids);
    MUST(ids != NULL);
    int family = below(2) ? (int)below(FAMILIES) : -1; /* half of them begin alike */
    int64_t common = c->prefix > 0 ? c->prefix : COMMON;
    if (c->prefix > 0)
        family = c->n_requests / 200;
    for (int64_t i = 0; i < l.prompt; i++)
        ids[i] = family >= 0 && i < common ? (int32_t)(family * common + i) : (int)below(50000);
    r->most = l.prompt + l.output;
    r->came = c->now;
    r->first = INFINITY;
    r->seq = (rt_seq){.ids = ids,
                      .n_ids = l.prompt,
                      .n_prompt = l.prompt,
                      .arrival = c->now,
                      .deadline = INFINITY};
    if (!c->mess)
        return;
    r->seq.priority = (int)below(3) - 1;
    if (below(20) == 0)
        r->seq.deadline = c->now + 0.1 * (1 + below(300));
}

/* Of two at random the one that has less to do (Mitzenmacher 2001), as balancers do. */
static replica *choose_replica(cluster *c) {
    replica *a = &c->replicas[below((uint32_t)c->n_replicas)];
    replica *b = &c->replicas[below((uint32_t)c->n_replicas)];
    return a->there <= b->there ? a : b;
}

static void begin_step(cluster *c, replica *p);

static void arrive(cluster *c) {
    MUST(c->n_requests < c->capacity);
    request *r = &c->requests[c->n_requests++];
    replica *p = choose_replica(c);
    random_request(c, r);
    uint64_t before = blocks;
    bool added = rt_scheduler_add(p->scheduler, &r->seq);
    c->all_blocks += blocks - before;
    int waiting = rt_scheduler_get_stats(p->scheduler).waiting;
    if (!added) {
        MUST(waiting >= c->max_waiting);
        end(c, p, r, REFUSED);
        return;
    }
    MUST(waiting <= c->max_waiting);
    p->there++;
    if (isinf(p->ends))
        begin_step(c, p);
}

/* --- steps ---------------------------------------------------------------------------------------
 */

/* What the scheduler may do in a step and at the end of the one before it, in basic blocks. For a
 * step that only decodes that is 3000 and 150 a sequence: at 1 to 2 ns each within the 20 us and 1
 * us a sequence that a step may cost beside its kernels. A prompt costs its hashing, looking for
 * the shortest among those that run and 256 that wait, and where it begins a look at each slot; who
 * goes costs its pages; the first one that waits for pages is looked up in the cache again. How
 * many wait must not matter, but to who had overtaken others and is preempted: its place is looked
 * for. */
static double allowed(const cluster *c, const replica *p, uint64_t preempted) {
    int64_t prompts = 0, prompt_tokens = p->plan->n_tokens - p->plan->n_decode;
    for (int32_t i = 0; i < p->plan->n_items; i++)
        prompts += p->plan->items[i].first < p->plan->items[i].seq->n_prompt;
    rt_scheduler_stats stats = rt_scheduler_get_stats(p->scheduler);
    double running = stats.running, waiting = stats.waiting;
    double gone = (double)p->n_gone + (double)preempted;
    double pages = (double)p->pages_gone + (double)preempted * MAX_LEN / PAGE;
    double tries = waiting > 0 ? 8 * c->max_seqs + 50 * MAX_LEN / PAGE : 0;
    return 3000 + 150 * running + tries +
           (double)prompts * (8 * c->max_seqs + 8 * running + 256 * 32) +
           3 * (double)prompt_tokens + 300 * gone + 60 * pages + 8 * (double)preempted * waiting;
}

/* An item goes on where the request's last one ended, unless it begins anew: then with what the
 * cache has. */
static void account(request *r, const rt_plan_item *item) {
    if (item->first != r->at || r->seq.preemptions > r->preemptions || r->computed + r->held == 0) {
        MUST(r->at == 0 || r->seq.preemptions > r->preemptions);
        r->lost += r->at;
        r->preemptions = r->seq.preemptions;
        r->held += item->first;
    }
    r->at = item->first + item->n;
    r->computed += item->n;
    MUST(r->at <= r->seq.n_ids);
    MUST(r->computed + r->held == r->lost + r->at);
}

static int64_t pages_of(int64_t tokens) {
    return (tokens + PAGE - 1) / PAGE;
}

/* While there are tokens of the step, a slot, and pages for all that is known to be needed, the
 * most urgent one that waits begins, unless it waits for another one's beginning, which is its own.
 */
static void check_nobody_waits_in_vain(const cluster *c, const replica *p) {
    rt_scheduler_stats stats = rt_scheduler_get_stats(p->scheduler);
    if (stats.waiting == 0 || stats.running == c->max_seqs || p->plan->n_tokens == c->max_batch)
        return;
    int64_t pages = c->kv_tokens / PAGE;
    const rt_seq *q = rt_scheduler_next(p->scheduler, NULL);
    for (; q->state == RT_SEQ_RUNNING; q = rt_scheduler_next(p->scheduler, q))
        pages -= pages_of(q->n_ids + 1) + 1;
    MUST(q->held_back || pages_of(q->n_ids + 1) > pages);
}

/* Those whose time is over, and a plan. */
static void begin_step(cluster *c, replica *p) {
    uint64_t before = blocks, preempted = rt_scheduler_get_stats(p->scheduler).preemptions;
    for (rt_seq *q; (q = rt_scheduler_expired(p->scheduler, c->now));) {
        MUST(q->deadline <= c->now);
        end(c, p, (request *)q, EXPIRED);
    }
    p->ends = INFINITY;
    if (p->there == 0)
        return;
    p->plan = rt_scheduler_plan(p->scheduler);
    uint64_t did = p->did + blocks - before;
    rt_scheduler_stats stats = rt_scheduler_get_stats(p->scheduler);
    MUST(stats.running + stats.waiting == p->there);
    MUST(p->plan->n_items > 0); /* no deadlock */
    int32_t tokens = 0;
    for (int32_t i = 0; i < p->plan->n_items; i++) {
        const rt_plan_item *item = &p->plan->items[i];
        tokens += item->n;
        MUST(item->seq->item == i);
        MUST(item->first == item->seq->computed);
    }
    MUST(tokens == p->plan->n_tokens);
    MUST(tokens <= c->max_batch);
    MUST(stats.running <= c->max_seqs);
    c->most_running = stats.running > c->most_running ? stats.running : c->most_running;
    if (stats.preemptions == preempted)
        check_nobody_waits_in_vain(c, p);
    c->all_blocks += did;
    c->most_blocks = did > c->most_blocks ? did : c->most_blocks;
    double part = (double)did / allowed(c, p, stats.preemptions - preempted);
    p->did = 0;
    p->n_gone = p->pages_gone = 0;
    c->most_over_allowed = part > c->most_over_allowed ? part : c->most_over_allowed;
    p->ends = c->now + c->base + c->per_token * tokens;
    rt_kv_copies_made(p->kv);
}

static void end_step(cluster *c, replica *p) {
    bool fails = c->mess && below(5000) == 0;
    int32_t n = p->plan->n_items;
    uint64_t before = blocks;
    rt_scheduler_done(p->scheduler, !fails);
    c->steps++;
    if (!fails)
        p->planned += p->plan->n_tokens;
    for (int32_t i = 0; i < n; i++) {
        const rt_plan_item *item = &p->plan->items[i];
        request *r = (request *)item->seq;
        if (fails) {
            end(c, p, r, FAILED);
            continue;
        }
        account(r, item);
        c->all_tokens += (uint64_t)item->n;
        if (item->n_rows > 0) {
            MUST(r->at == r->seq.n_ids); /* a token follows all that is known */
            r->first = isinf(r->first) ? c->now : r->first;
            r->seq.ids[r->seq.n_ids] = (int32_t)below(50000);
            if (++r->seq.n_ids == r->most)
                end(c, p, r, FINISHED);
        }
        if (c->mess && r->reason == NOT_ENDED && below(30000) == 0)
            end(c, p, r, CANCELLED);
    }
    p->did = blocks - before;
    if (fails) { /* as the engine does, after what costs more than this */
        rt_scheduler_lose_cache(p->scheduler);
        rt_kv_forget(p->kv);
        rt_kv_copies_made(p->kv);
    }
    if (c->stop > 0 && c->now >= c->stop)
        for (rt_seq *q; (q = rt_scheduler_next(p->scheduler, NULL));)
            end(c, p, (request *)q, CANCELLED);
    if (c->steps % 4096 == 0) {
        rt_error error = {0};
        ck_assert_msg(rt_kv_check(p->kv, &error), "%s", error.text);
    }
    begin_step(c, p);
}

/* --- the whole -----------------------------------------------------------------------------------
 */

static double end_of_phase(const cluster *c, int phase) {
    double end = 0;
    for (int i = 0; i <= phase; i++)
        end += c->phases[i].seconds;
    return end;
}

/* Until all that came in the phases has ended. */
static void simulate(cluster *c) {
    make(c);
    int phase = 0;
    double next = gap(c->phases[0].rate);
    for (;;) {
        replica *first = &c->replicas[0];
        for (int i = 1; i < c->n_replicas; i++)
            if (c->replicas[i].ends < first->ends)
                first = &c->replicas[i];
        while (phase < c->n_phases && next >= end_of_phase(c, phase))
            if (++phase < c->n_phases) /* a Poisson process has no memory */
                next = end_of_phase(c, phase - 1) + gap(c->phases[phase].rate);
        if (phase < c->n_phases && next < first->ends) {
            c->now = next;
            arrive(c);
            next += gap(c->phases[phase].rate);
        } else if (!isinf(first->ends)) {
            c->now = first->ends;
            end_step(c, first);
        } else {
            break;
        }
    }
    for (int i = 0; i < c->n_replicas; i++)
        c->preemptions += (int64_t)rt_scheduler_get_stats(c->replicas[i].scheduler).preemptions;
}

/* Nothing is lost, nothing is there twice, and nobody holds anything. */
static void check_conservation(const cluster *c) {
    int64_t ended = 0, computed = 0, held = 0, planned = 0, hits = 0;
    for (int i = 0; i < REASONS; i++)
        ended += c->by_reason[i];
    ck_assert_int_eq(c->by_reason[NOT_ENDED], 0);
    ck_assert_int_eq(ended, c->n_requests);
    for (int i = 0; i < c->n_requests; i++) {
        const request *r = &c->requests[i];
        MUST(r->reason != NOT_ENDED);
        MUST(r->computed + r->held == r->lost + r->at);
        if (r->reason == FINISHED) {
            MUST(r->seq.n_ids == r->most);
            MUST(r->at == r->most - 1); /* the last token is not computed */
        }
        MUST((r->seq.n_ids > r->seq.n_prompt) == !isinf(r->first));
        computed += r->computed;
        held += r->held;
    }
    for (int i = 0; i < c->n_replicas; i++) {
        const replica *p = &c->replicas[i];
        rt_error error = {0};
        rt_scheduler_stats stats = rt_scheduler_get_stats(p->scheduler);
        ck_assert_int_eq(stats.running + stats.waiting, 0);
        ck_assert_int_eq(p->there, 0);
        ck_assert_uint_eq(rt_kv_bytes_used(p->kv), 0);
        ck_assert_msg(rt_kv_check(p->kv, &error), "%s", error.text);
        planned += p->planned;
        hits += (int64_t)stats.hits;
    }
    ck_assert_int_eq(computed, planned);
    /* Who is preempted in the plan that it began in, or whose first step fails, has taken over for
     * nothing. */
    bool in_vain = c->preemptions + c->by_reason[FAILED] > 0;
    ck_assert(held == hits || (held < hits && in_vain));
    ck_assert_int_gt(held, 0);
}

static void report(const cluster *c) {
    if (!getenv("MCC_TEST_VERBOSE"))
        return;
    fprintf(stderr, "%d requests:", c->n_requests);
    for (int i = FINISHED; i < REASONS; i++)
        fprintf(stderr, " %d", (int)c->by_reason[i]);
    fprintf(stderr,
            "; %d steps, %d preemptions, at most %d running; %.0f s; blocks: %.1f a token, at most "
            "%d a step, %.2f of what is allowed\n",
            (int)c->steps, (int)c->preemptions, c->most_running, c->now,
            (double)c->all_blocks / (double)c->all_tokens, (int)c->most_blocks,
            c->most_over_allowed);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The q-th part of the times to the first token, of requests that came in `from` … `to`. */
static double first_token(const cluster *c, double q, double from, double to) {
    double *waits = malloc((size_t)c->n_requests * sizeof *waits);
    ck_assert_ptr_nonnull(waits);
    int n = 0;
    for (int i = 0; i < c->n_requests; i++) {
        const request *r = &c->requests[i];
        if (r->came >= from && r->came < to && !isinf(r->first))
            waits[n++] = r->first - r->came;
    }
    ck_assert_int_gt(n, 0);
    qsort(waits, (size_t)n, sizeof *waits, compare);
    double result = waits[(int)((n - 1) * q)];
    free(waits);
    return result;
}

/* The part of requests that came in `from` … `to` and were refused. */
static double refused(const cluster *c, double from, double to) {
    int64_t came = 0, n = 0;
    for (int i = 0; i < c->n_requests; i++)
        if (c->requests[i].came >= from && c->requests[i].came < to) {
            came++;
            n += c->requests[i].reason == REFUSED;
        }
    return (double)n / (double)came;
}

static void seed(int test) {
    const char *text = getenv("MCC_TEST_SEED");
    state = (text ? strtoull(text, NULL, 10) : 1) * 100 + (uint64_t)test;
    mean_prompt = mean_output = 0;
    read_lengths();
}

/* --- cases ---------------------------------------------------------------------------------------
 */

static const cluster usual = {.max_seqs = 64,
                              .max_waiting = 128,
                              .max_batch = 256,
                              .kv_tokens = 22000,
                              .base = 10e-3,
                              .per_token = 50e-6,
                              .aging = 10,
                              .n_phases = 1,
                              .mess = true};

static void check_work(const cluster *c) {
    if (!TEST_SANITIZED) /* which add blocks of their own */
        ck_assert_double_lt(c->most_over_allowed, 1);
}

/* Runs it, with what must hold whatever comes. */
static void run(cluster *c) {
    simulate(c);
    report(c);
    check_conservation(c);
    check_work(c);
}

/* Replicas that are three quarters full serve who comes: none is refused, and none waits longer
 * than a burst lasts. */
START_TEST(a_cluster_keeps_up) {
    cluster c = usual;
    seed(0);
    c.n_replicas = test_full() ? 96 : 16;
    c.phases[0] = (phase){test_full() ? 100 : 10, 0.75 * capacity_of(&c) * c.n_replicas};
    if (test_full())
        ck_assert_double_gt(c.phases[0].rate, 1000);
    run(&c);
    ck_assert_int_eq(c.by_reason[REFUSED], 0);
    ck_assert_double_lt(first_token(&c, 0.99, 0, INFINITY), 0.5);
    ck_assert_double_lt(first_token(&c, 1, 0, INFINITY), 5);
    unmake(&c);
}
END_TEST

START_TEST(thousands_run_at_a_time) {
    cluster c = usual;
    seed(1);
    c.n_replicas = 1;
    c.max_seqs = 2048;
    c.max_waiting = 4096;
    c.max_batch = 8192;
    c.kv_tokens = 2048 * 330;
    c.per_token = 5e-6;
    double rate = 0.9 * capacity_of(&c);
    c.phases[0] = (phase){(test_full() ? 100000 : 3000) / rate, rate};
    run(&c);
    ck_assert_int_gt(c.most_running, 1000);
    ck_assert_double_lt(first_token(&c, 1, 0, INFINITY), 5);
    unmake(&c);
}
END_TEST

/* More come than can be served: the queue fills, who finds it full is refused, and the others are
 * served as fast as without. Nobody waits longer than the queue before him takes, and those whose
 * urgency is before his: who came up to two levels of priority later. When it is over, all is as it
 * was. */
START_TEST(overload_is_refused_and_passes) {
    cluster c = usual;
    seed(2);
    c.n_replicas = test_full() ? 32 : 2;
    c.kv_tokens = 40000;
    c.n_phases = 3;
    double each = capacity_of(&c), full = each * c.n_replicas;
    c.phases[0] = (phase){30, 0.7 * full};
    c.phases[1] = (phase){40, 2.5 * full};
    c.phases[2] = (phase){70, 0.7 * full};
    run(&c);
    double begin = end_of_phase(&c, 0), over = end_of_phase(&c, 1), last = end_of_phase(&c, 2);
    int64_t served = 0;
    for (int i = 0; i < c.n_requests; i++)
        served += c.requests[i].reason == FINISHED && c.requests[i].ended >= begin + 20 &&
                  c.requests[i].ended < over;
    ck_assert(refused(&c, 0, begin) == 0 && refused(&c, over + 15, last) == 0);
    ck_assert_double_gt(refused(&c, begin + 20, over), 0.5);
    ck_assert_double_gt((double)served, 0.85 * full * (over - begin - 20));
    ck_assert_double_lt(first_token(&c, 1, 0, INFINITY),
                        (c.max_waiting + c.max_seqs) / each + 2 * c.aging);
    ck_assert_double_lt(first_token(&c, 0.99, over + 45, last),
                        2 * first_token(&c, 0.99, 0, begin));
    unmake(&c);
}
END_TEST

/* Tens of thousands wait, with deadlines that pass and long beginnings in common, and pages are
 * short for those that run: a step does not do more for it. */
START_TEST(who_waits_costs_a_step_nothing) {
    cluster c = usual;
    seed(3);
    c.n_replicas = 1;
    c.max_seqs = 512;
    c.max_batch = 1024;
    c.max_waiting = 50000;
    c.kv_tokens = 512 * 130;
    c.prefix = 512;
    c.phases[0] = (phase){4, test_full() ? 10000 : 5000};
    c.stop = test_full() ? 60 : 8;
    run(&c);
    ck_assert_int_gt(c.preemptions, 0);
    ck_assert_int_gt(c.by_reason[EXPIRED], 100);
    unmake(&c);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("scheduler_replay");
    TCase *t = tcase_create("scheduler_replay");
    tcase_set_timeout(t, 1200);
    tcase_add_test(t, a_cluster_keeps_up);
    tcase_add_test(t, thousands_run_at_a_time);
    tcase_add_test(t, overload_is_refused_and_passes);
    tcase_add_test(t, who_waits_costs_a_step_nothing);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

/* How much of the KV cache's memory holds tokens, how many sequences fit, and how many steps they
 * take, on a made-up trace: lengths like those of conversations, most short and some long. Against
 * contiguous memory of the longest length for each sequence, and batches that end together. */
#include "check_main.h"
#include "runtime/modelcc.h"
#include "runtime/scheduler.h"

#include <math.h>
#include <string.h>

enum { PAGE = 16, BATCH = 512, MAX_RUNNING = 128 };

/* Tokens of prompt and output. */
static const struct {
    int16_t prompt, output;
} trace[] = {
    {52, 310},  {18, 142},   {240, 88},  {1210, 260}, {33, 415},  {75, 201},   {611, 120},
    {24, 96},   {150, 333},  {12, 260},  {430, 512},  {88, 174},  {1650, 398}, {41, 220},
    {205, 61},  {64, 380},   {19, 155},  {980, 240},  {130, 290}, {27, 118},   {350, 445},
    {58, 190},  {16, 77},    {770, 150}, {95, 365},   {37, 230},  {290, 102},  {22, 410},
    {1420, 86}, {110, 275},  {48, 160},  {180, 350},  {14, 205},  {540, 330},  {70, 135},
    {30, 295},  {860, 470},  {120, 84},  {44, 240},   {260, 180}, {20, 325},   {66, 110},
    {390, 270}, {26, 145},   {100, 430}, {55, 210},   {17, 98},   {690, 305},  {140, 165},
    {34, 250},  {1120, 140}, {82, 385},  {220, 130},  {15, 280},  {310, 225},  {46, 170},
    {28, 360},  {480, 115},  {90, 300},  {60, 185},   {23, 400},  {170, 95},   {740, 320},
    {38, 215},
};
enum { TRACE = sizeof trace / sizeof *trace, LONGEST = 1650 + 398, ROUNDS = 4, N = ROUNDS * TRACE };

typedef struct measured {
    double waste;   /* of the memory that sequences own, on average over steps */
    double running; /* sequences, on average while others wait */
    uint64_t preemptions;
    int64_t steps;
} measured;

/* The trace several times over: all of it there from the beginning, or `together` at a time, when
 * all before them have ended. */
static measured run_trace(int max_seqs, uint64_t bytes, int together) {
    static const mcc_kv_group_entry group = {
        .layers = 1, .heads = 1, .head_dim = 8, .page_tokens = PAGE, .layer_bytes = PAGE};
    static rt_seq seqs[N];
    static int32_t ids[N][LONGEST];
    rt_kv_options o = {
        .slots = max_seqs, .max_len = LONGEST, .max_step = BATCH, .memory_bytes = bytes};
    rt_kv *kv = rt_kv_create(&group, 1, &o, NULL);
    rt_scheduler_options so = {
        .max_seqs = max_seqs, .max_batch = BATCH, .max_waiting = N, .aging = 10};
    rt_scheduler *s = rt_scheduler_create(kv, &so);
    ck_assert(kv && s);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < LONGEST; k++)
            ids[i][k] = i * LONGEST + k; /* nothing in common */
        seqs[i] = (rt_seq){.ids = ids[i],
                           .n_ids = trace[i % TRACE].prompt,
                           .n_prompt = trace[i % TRACE].prompt,
                           .arrival = i,
                           .deadline = INFINITY};
    }
    measured m = {0};
    int64_t busy = 0;
    for (int added = 0;;) {
        rt_scheduler_stats before = rt_scheduler_get_stats(s);
        for (int i = 0; before.running + before.waiting == 0 && i < together && added < N; i++)
            ck_assert(rt_scheduler_add(s, &seqs[added++]));
        const rt_plan *plan = rt_scheduler_plan(s);
        if (plan->n_items == 0)
            break;
        rt_scheduler_done(s, true);
        int64_t held = 0;
        rt_scheduler_stats stats = rt_scheduler_get_stats(s);
        for (const rt_seq *q = rt_scheduler_next(s, NULL); q && q->state == RT_SEQ_RUNNING;
             q = rt_scheduler_next(s, q))
            held += q->computed;
        if (stats.waiting > 0) {
            busy++;
            m.running += stats.running;
            m.waste += 1 - (double)held / (double)rt_kv_bytes_used(kv);
        }
        for (int32_t i = 0; i < plan->n_items; i++) {
            rt_seq *q = plan->items[i].seq;
            const int t = (int)(q - seqs) % TRACE;
            if (plan->items[i].n_rows && ++q->n_ids == trace[t].prompt + trace[t].output)
                rt_scheduler_remove(s, q);
        }
        m.steps++;
    }
    rt_scheduler_stats stats = rt_scheduler_get_stats(s);
    ck_assert_int_eq(stats.running + stats.waiting, 0);
    m.preemptions = stats.preemptions;
    m.running /= (double)(busy ? busy : 1);
    m.waste /= (double)(busy ? busy : 1);
    rt_scheduler_destroy(s);
    rt_kv_destroy(kv);
    return m;
}

/* A position is one byte here. */
START_TEST(little_is_wasted) {
    double mean = 0;
    for (int i = 0; i < TRACE; i++)
        mean += (double)(trace[i].prompt + trace[i].output) / TRACE;
    ck_assert_double_gt(mean, 256);
    measured m = run_trace(32, 0, N);
    printf("32 sequences of up to %.0f tokens on average: %.2f %% of their memory holds none\n",
           mean, 100 * m.waste);
    ck_assert_double_gt(m.running, 31);
    ck_assert_double_lt(m.waste, 0.04);
}
END_TEST

START_TEST(more_sequences_fit) {
    enum { CONTIGUOUS = 8 };
    measured m = run_trace(MAX_RUNNING, CONTIGUOUS * (uint64_t)LONGEST, N);
    printf("memory for %d sequences of the longest length holds %.1f, with %d preemptions of %d\n",
           CONTIGUOUS, m.running, (int)m.preemptions, N);
    ck_assert_double_ge(m.running, 3 * CONTIGUOUS);
    ck_assert_uint_lt(m.preemptions, N / 4);
}
END_TEST

START_TEST(nobody_waits_for_the_longest) {
    measured together = run_trace(32, 0, 32), m = run_trace(32, 0, N);
    printf("%d requests, 32 at a time: %d steps, %d where they end together\n", N, (int)m.steps,
           (int)together.steps);
    ck_assert_double_gt((double)together.steps, 1.8 * (double)m.steps);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("kv capacity");
    TCase *t = tcase_create("kv capacity");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, little_is_wasted);
    tcase_add_test(t, more_sequences_fit);
    tcase_add_test(t, nobody_waits_for_the_longest);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

/* The thread pool: every tile once, jobs in order, whatever the number of threads. */
#include "check_main.h"
#include "runtime/modelcc.h"
#include "runtime/threadpool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TILES = 3000 };

typedef struct counts {
    atomic_int tile[MAX_TILES];
    atomic_int done;   /* tiles of this job */
    atomic_int errors; /* calls before the job before was complete, empty ones, foreign notes */
    const struct counts *before;
    int64_t before_tiles;
    char *scratch;
    size_t stride;
} counts;

static void count(const mcc_cpu_call *call, int64_t begin, int64_t end, void *scratch) {
    counts *c = call->args[0];
    if (c->before && atomic_load(&c->before->done) != c->before_tiles)
        atomic_fetch_add(&c->errors, 1);
    if (begin >= end)
        atomic_fetch_add(&c->errors, 1);
    /* What this thread left there in this job, or nothing; races show under a sanitizer if two
     * threads had the same. */
    int64_t *note = scratch, own = (int64_t)(intptr_t)c;
    if (*note != 0 && *note != own)
        atomic_fetch_add(&c->errors, 1);
    *note = own;
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(&c->tile[i], 1);
    atomic_fetch_add(&c->done, (int)(end - begin));
}

static void run_jobs(rt_pool *pool, const int64_t *tiles, int n) {
    counts *c = calloc((size_t)n, sizeof *c);
    mcc_cpu_call *calls = calloc((size_t)n, sizeof *calls);
    void **args = calloc((size_t)n, sizeof *args);
    rt_job *jobs = calloc((size_t)n, sizeof *jobs);
    char *scratch = aligned_alloc(64, 64 * (size_t)rt_pool_threads(pool));
    memset(scratch, 0xff, 64 * (size_t)rt_pool_threads(pool));
    const counts *before = NULL;
    int64_t before_tiles = 0;
    for (int i = 0; i < n; i++) {
        args[i] = &c[i];
        calls[i].args = &args[i];
        c[i].before = before;
        c[i].before_tiles = before_tiles;
        jobs[i] = (rt_job){count, &calls[i], tiles[i]};
        if (tiles[i] > 0) {
            before = &c[i];
            before_tiles = tiles[i];
        }
    }
    rt_pool_run(pool, jobs, n, scratch, 64);
    for (int i = 0; i < n; i++) {
        ck_assert_int_eq(atomic_load(&c[i].errors), 0);
        ck_assert_int_eq(atomic_load(&c[i].done), tiles[i]);
        int64_t wrong = -1; /* one assertion a job: each costs a system call */
        for (int64_t t = 0; t < MAX_TILES && wrong < 0; t++)
            if (atomic_load(&c[i].tile[t]) != (t < tiles[i]))
                wrong = t;
        ck_assert_int_eq(wrong, -1);
    }
    free(c);
    free(calls);
    free(args);
    free(jobs);
    free(scratch);
}

START_TEST(every_tile_once_in_order) {
    static const int threads[] = {1, 2, 3, 5};
    rt_pool *pool = rt_pool_create(threads[_i], NULL);
    ck_assert_ptr_nonnull(pool);
    ck_assert_int_eq(rt_pool_threads(pool), threads[_i]);
    static const int64_t tiles[] = {1, 1, 36, 1, 0, 0, 1, 7, 2, 3000, 1, 0, 40, 8, 9, 1, 1, 1};
    for (int round = 0; round < 30; round++)
        run_jobs(pool, tiles, sizeof tiles / sizeof *tiles);
    static const int64_t nothing[] = {0, 0};
    run_jobs(pool, nothing, 2);
    run_jobs(pool, tiles, 1);
    rt_pool_destroy(pool);
}
END_TEST

typedef struct sums {
    const int64_t *from;
    int64_t n_from;
    int64_t *to;
} sums;

/* Every tile needs all results of the job before. No atomics: what orders the jobs is the pool
 * alone, and ThreadSanitizer notices where it does not. */
static void add_up(const mcc_cpu_call *call, int64_t begin, int64_t end, void *scratch) {
    const sums *s = call->args[0];
    uint64_t total = 0;
    (void)scratch;
    for (int64_t i = 0; i < s->n_from; i++)
        total += (uint64_t)s->from[i];
    for (int64_t i = begin; i < end; i++)
        s->to[i] = (int64_t)(total * 31 + (uint64_t)i);
}

START_TEST(results_pass_to_the_next_job) {
    enum { JOBS = 40, TILES = 12 };
    rt_pool *pool = rt_pool_create(2 + _i, NULL);
    ck_assert_ptr_nonnull(pool);
    static int64_t values[JOBS + 1][TILES], want[JOBS + 1][TILES];
    static sums s[JOBS];
    static mcc_cpu_call calls[JOBS];
    static void *args[JOBS];
    static rt_job jobs[JOBS];
    int64_t scratch[8 * 8];
    for (int i = 0; i < JOBS; i++) {
        int64_t n = i ? jobs[i - 1].tiles : 3;
        s[i] = (sums){values[i], n, values[i + 1]};
        args[i] = &s[i];
        calls[i].args = &args[i];
        jobs[i] = (rt_job){add_up, &calls[i], i % 5 == 4 ? 1 : 2 + i % 11};
    }
    for (int round = 0; round < 100; round++) {
        for (int t = 0; t < 3; t++)
            values[0][t] = want[0][t] = round * 7 + t;
        rt_pool_run(pool, jobs, JOBS, scratch, 64);
        for (int i = 0; i < JOBS; i++) {
            uint64_t total = 0;
            for (int64_t t = 0; t < s[i].n_from; t++)
                total += (uint64_t)want[i][t];
            for (int64_t t = 0; t < jobs[i].tiles; t++)
                want[i + 1][t] = (int64_t)(total * 31 + (uint64_t)t);
        }
        ck_assert_mem_eq(values, want, sizeof values);
    }
    rt_pool_destroy(pool);
}
END_TEST

/* Threads that the system puts aside between looking at a job and taking from it must get nothing
 * from the next one: many more threads than processors, jobs of a few instructions and ever other
 * sizes. */
START_TEST(latecomers_take_nothing) {
    rt_pool *pool = rt_pool_create(12, NULL);
    int64_t tiles[60];
    for (int round = 0; round < 150; round++) {
        for (int i = 0; i < 60; i++)
            tiles[i] = (round * 31 + i * 17) % (i % 2 ? 9 : 290);
        run_jobs(pool, tiles, 60);
    }
    rt_pool_destroy(pool);
}
END_TEST

/* One who hears of a run when it is over must not take the number of its last job for a job of the
 * next run: here the second one, whose first job takes a while. */
static void slow(const mcc_cpu_call *call, int64_t begin, int64_t end, void *scratch) {
    for (volatile int i = 0; i < 300; i++)
        ;
    count(call, begin, end, scratch);
}

START_TEST(runs_do_not_mix) {
    rt_pool *pool = rt_pool_create(3, NULL);
    ck_assert_ptr_nonnull(pool);
    char *scratch = aligned_alloc(64, 64 * 3);
    memset(scratch, 0, 64 * 3);
    static counts c[3];
    void *args[3] = {&c[0], &c[1], &c[2]};
    mcc_cpu_call calls[3] = {{.args = &args[0]}, {.args = &args[1]}, {.args = &args[2]}};
    const rt_job one = {count, &calls[0], 3};
    const rt_job two[2] = {{slow, &calls[1], 1}, {count, &calls[2], 6}};
    int runs = test_full() ? 1000000 : 30000;
    for (int i = 0; i < runs; i++) {
        memset(c, 0, sizeof c);
        c[2].before = &c[1];
        c[2].before_tiles = 1;
        rt_pool_run(pool, &one, 1, scratch, 64);
        rt_pool_run(pool, two, 2, scratch, 64);
        for (int k = 0; k < 3; k++)
            ck_assert_int_eq(atomic_load(&c[k].errors), 0);
        ck_assert_int_eq(atomic_load(&c[2].done), 6);
    }
    free(scratch);
    rt_pool_destroy(pool);
}
END_TEST

START_TEST(sleeping_workers_wake) {
    rt_pool *pool = rt_pool_create(3, NULL);
    static const int64_t tiles[] = {50, 1, 50};
    for (int round = 0; round < 5; round++) {
        usleep(2000); /* long enough for them to sleep */
        run_jobs(pool, tiles, 3);
    }
    rt_pool_destroy(pool);
}
END_TEST

static void *share(void *user) {
    static const int64_t tiles[] = {30, 1, 2, 100, 5};
    for (int round = 0; round < 40; round++)
        run_jobs(user, tiles, 5);
    return NULL;
}

START_TEST(several_callers_take_turns) {
    rt_pool *pool = rt_pool_create(2, NULL);
    pthread_t callers[3];
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&callers[i], NULL, share, pool), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(callers[i], NULL);
    rt_pool_destroy(pool);
}
END_TEST

START_TEST(absurd_sizes_are_refused) {
    rt_error error = {0};
    ck_assert_ptr_null(rt_pool_create(-1, &error));
    ck_assert_int_eq(error.code, MCC_INVALID_ARGUMENT);
    ck_assert_ptr_null(rt_pool_create(1 << 20, &error));
    rt_pool_destroy(NULL);
    rt_pool *pool = rt_pool_create(0, &error);
    ck_assert_ptr_nonnull(pool);
    ck_assert_int_ge(rt_pool_threads(pool), 1);
    rt_pool_destroy(pool);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("threadpool");
    TCase *t = tcase_create("threadpool");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, every_tile_once_in_order, 0, 4);
    tcase_add_loop_test(t, results_pass_to_the_next_job, 0, 3);
    tcase_add_test(t, latecomers_take_nothing);
    tcase_add_test(t, runs_do_not_mix);
    tcase_add_test(t, sleeping_workers_wake);
    tcase_add_test(t, several_callers_take_turns);
    tcase_add_test(t, absurd_sizes_are_refused);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)

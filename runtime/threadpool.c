#include "runtime/threadpool.h"

#include "runtime/cpu.h"
#include "runtime/modelcc.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_THREADS = 1024,
    CACHE_LINE = 64,
    SPIN_NANOSECONDS = 50000,
    CHUNKS = 8 /* that a thread's range is taken in, so that others can help with the rest */
};

/* A word that threads wait on, and how many of them sleep in the kernel. */
typedef struct gate {
    alignas(CACHE_LINE) atomic_uint word;
    atomic_uint sleepers;
} gate;

/* Chunks taken of one thread's range in one job. */
typedef struct cursor {
    alignas(CACHE_LINE) atomic_int taken;
} cursor;

typedef struct worker {
    rt_pool *pool;
    int index;
    unsigned phase; /* barriers passed so far; the same for all threads between two of them */
    pthread_t thread;
} worker;

struct mcc_pool {
    int threads;
    int started; /* workers that exist, for cleaning up */
    pthread_mutex_t turn;
    /* The run under way; written before `start` opens. */
    const rt_job *jobs;
    int n_jobs;
    char *scratch;
    size_t scratch_stride;
    bool stop;
    gate start;   /* its word counts runs */
    gate barrier; /* its word counts barriers */
    alignas(CACHE_LINE) atomic_int arrived;
    /* cursors[phase % 3][thread]: while one phase uses a set, nobody uses the one of the phase
     * before any more, and the last to arrive at the barrier clears it. */
    cursor *cursors;
    worker *workers; /* [threads]; the first is the caller */
};

/* --- waiting -------------------------------------------------------------------------------------
 */

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Returns when the gate's word is no longer `old`. */
static void gate_wait(gate *g, unsigned old) {
    int64_t until = 0;
    for (;;) {
        for (int i = 0; i < 100; i++) {
            if (atomic_load_explicit(&g->word, memory_order_acquire) != old)
                return;
            relax();
        }
        int64_t now = now_ns();
        if (until == 0)
            until = now + SPIN_NANOSECONDS;
        else if (now >= until)
            break;
    }
    /* Either the opener sees this sleeper, or the kernel sees the new word: both are sequentially
     * consistent. */
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->word) == old)
        syscall(SYS_futex, &g->word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_open(gate *g) {
    atomic_fetch_add(&g->word, 1);
    if (atomic_load(&g->sleepers) > 0)
        syscall(SYS_futex, &g->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void barrier(worker *w) {
    rt_pool *pool = w->pool;
    unsigned old = atomic_load_explicit(&pool->barrier.word, memory_order_relaxed);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 == pool->threads) {
        cursor *done = pool->cursors + (size_t)((w->phase + 2) % 3) * (size_t)pool->threads;
        for (int i = 0; i < pool->threads; i++)
            atomic_store_explicit(&done[i].taken, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        gate_open(&pool->barrier);
    } else {
        gate_wait(&pool->barrier, old);
    }
    w->phase++;
}

/* --- running -------------------------------------------------------------------------------------
 */

/* First tile of a thread's range; of thread `threads`: the number of tiles. Thread 0 gets a single
 * tile, so that a chain of small jobs stays on one thread. */
static int64_t range_begin(int64_t tiles, int thread, int threads) {
    int64_t whole = tiles / threads, rest = tiles % threads;
    return whole * thread + (thread < rest ? thread : rest);
}

static void run_tiles(worker *w, const rt_job *job) {
    rt_pool *pool = w->pool;
    void *scratch = pool->scratch + (size_t)w->index * pool->scratch_stride;
    cursor *cursors = pool->cursors + (size_t)(w->phase % 3) * (size_t)pool->threads;
    for (int i = 0; i < pool->threads; i++) {
        int victim = w->index + i < pool->threads ? w->index + i : w->index + i - pool->threads;
        int64_t begin = range_begin(job->tiles, victim, pool->threads);
        int64_t end = range_begin(job->tiles, victim + 1, pool->threads);
        int64_t chunk = (end - begin + CHUNKS - 1) / CHUNKS;
        atomic_int *taken = &cursors[victim].taken;
        /* Look before adding: a finished neighbour's line is then only read. */
        while (begin + atomic_load_explicit(taken, memory_order_relaxed) * chunk < end) {
            int64_t b = begin + atomic_fetch_add_explicit(taken, 1, memory_order_relaxed) * chunk;
            if (b >= end)
                break;
            job->kernel(job->call, b, b + chunk < end ? b + chunk : end, scratch);
        }
    }
}

/* One thread's part of a run. Jobs of a single tile that follow each other all belong to thread 0
 * and need no barrier between them. */
static void run_jobs(worker *w) {
    const rt_job *jobs = w->pool->jobs;
    int n_jobs = w->pool->n_jobs;
    bool single_before = false, open = false; /* open: work since the last barrier */
    for (int i = 0; i < n_jobs; i++) {
        if (jobs[i].tiles <= 0)
            continue;
        bool single = jobs[i].tiles == 1;
        if (open && !(single && single_before))
            barrier(w);
        if (!single)
            run_tiles(w, &jobs[i]);
        else if (w->index == 0)
            jobs[i].kernel(jobs[i].call, 0, 1, w->pool->scratch);
        single_before = single;
        open = true;
    }
    barrier(w); /* the run is over when everybody is here */
}

static void *worker_main(void *user) {
    worker *w = user;
    rt_pool *pool = w->pool;
    char name[16];
    snprintf(name, sizeof name, "modelcc-%d", w->index);
    pthread_setname_np(pthread_self(), name);
    for (unsigned runs = 0;; runs++) {
        gate_wait(&pool->start, runs);
        if (pool->stop)
            return NULL;
        run_jobs(w);
    }
}

static void run_alone(rt_pool *pool, const rt_job *jobs, int n_jobs, void *scratch) {
    (void)pool;
    for (int i = 0; i < n_jobs; i++)
        if (jobs[i].tiles > 0)
            jobs[i].kernel(jobs[i].call, 0, jobs[i].tiles, scratch);
}

void rt_pool_run(rt_pool *pool, const rt_job *jobs, int n_jobs, void *scratch,
                 size_t scratch_stride) {
    if (pool->threads == 1) {
        run_alone(pool, jobs, n_jobs, scratch);
        return;
    }
    pthread_mutex_lock(&pool->turn);
    pool->jobs = jobs;
    pool->n_jobs = n_jobs;
    pool->scratch = scratch;
    pool->scratch_stride = scratch_stride;
    gate_open(&pool->start);
    run_jobs(&pool->workers[0]);
    pthread_mutex_unlock(&pool->turn);
}

/* --- life ----------------------------------------------------------------------------------------
 */

int rt_pool_threads(const rt_pool *pool) {
    return pool->threads;
}

/* Threads start with all signals blocked: those are the program's business. */
static bool start_workers(rt_pool *pool) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < pool->threads; i++) {
        worker *w = &pool->workers[i];
        w->pool = pool;
        w->index = i;
        if (i > 0 && pthread_create(&w->thread, NULL, worker_main, w) != 0)
            break;
        pool->started = i;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool->started == pool->threads - 1;
}

rt_pool *rt_pool_create(int threads, rt_error *error) {
    if (threads < 0 || threads > MAX_THREADS) {
        rt_fail(error, MCC_INVALID_ARGUMENT, "%d threads, expected 0 (automatic) to %d", threads,
                MAX_THREADS);
        return NULL;
    }
    if (threads == 0)
        threads = rt_cpu_usable_threads();
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    rt_pool *pool = aligned_alloc(CACHE_LINE, sizeof *pool);
    if (!pool) {
        rt_fail(error, MCC_OUT_OF_MEMORY, "out of memory for a pool of %d threads", threads);
        return NULL;
    }
    memset(pool, 0, sizeof *pool);
    pool->threads = threads;
    pthread_mutex_init(&pool->turn, NULL);
    size_t cursor_bytes = 3 * (size_t)threads * sizeof *pool->cursors;
    pool->cursors = aligned_alloc(CACHE_LINE, cursor_bytes);
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    bool ok = pool->cursors && pool->workers;
    if (ok) {
        memset(pool->cursors, 0, cursor_bytes);
        ok = start_workers(pool);
    }
    if (!ok) {
        rt_fail(error, MCC_OUT_OF_MEMORY, "cannot start a pool of %d threads", threads);
        rt_pool_destroy(pool);
        return NULL;
    }
    return pool;
}

void rt_pool_destroy(rt_pool *pool) {
    if (!pool)
        return;
    pool->stop = true;
    gate_open(&pool->start);
    for (int i = 1; i <= pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->turn);
    free(pool->cursors);
    free(pool->workers);
    free(pool);
}

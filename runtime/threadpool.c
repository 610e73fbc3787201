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
    atomic_uint word;
    atomic_uint sleepers;
} gate;

/* Chunks taken of one thread's range in one phase: phase << 32 | chunks. A thread that comes late,
 * with the number of an earlier phase, can therefore take nothing. */
typedef struct cursor {
    alignas(CACHE_LINE) _Atomic uint64_t taken;
} cursor;

typedef struct worker {
    rt_pool *pool;
    int index;
    pthread_t thread;
} worker;

/* A run goes through phases: in each, one job of several tiles. Whoever finishes a phase's last
 * tile begins the next one (and does jobs of a single tile on the way). No phase waits for a thread
 * that has taken nothing in it: one that the system has put aside, or that is only waking up, holds
 * up nobody but itself. */
struct mcc_pool {
    int threads;
    int started; /* workers that exist, for cleaning up */
    pthread_mutex_t turn;
    /* The run under way. Workers read these only between entering (inside + 1) and leaving, and
     * only if they find it running after they have entered. */
    const rt_job *jobs;
    int n_jobs;
    char *scratch;
    size_t scratch_stride;

    alignas(CACHE_LINE) gate phase; /* its word numbers the phases of all runs */
    atomic_int job;                 /* of the phase; n_jobs or more: there is none */
    atomic_bool running, stop;
    alignas(CACHE_LINE) _Atomic int64_t tiles_left; /* of the phase, not yet computed */
    alignas(CACHE_LINE) gate inside;                /* its word counts workers inside the run */
    cursor *cursors;                                /* [threads] */
    worker *workers;                                /* [threads]; the first is the caller */
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

/* True as soon as the gate's word is no longer `old`; false when that takes long. */
static bool spin_until_changed(gate *g, unsigned old) {
    int64_t until = 0;
    for (;;) {
        for (int i = 0; i < 100; i++) {
            if (atomic_load_explicit(&g->word, memory_order_acquire) != old)
                return true;
            relax();
        }
        int64_t now = now_ns();
        if (until == 0)
            until = now + SPIN_NANOSECONDS;
        else if (now >= until)
            return false;
    }
}

/* Either the one who changes the word sees this sleeper, or the kernel sees the new word: all four
 * accesses are sequentially consistent. */
static void sleep_until_changed(gate *g, unsigned old) {
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->word) == old)
        syscall(SYS_futex, &g->word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void wake_sleepers(gate *g) {
    if (atomic_load(&g->sleepers) > 0)
        syscall(SYS_futex, &g->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* --- running -------------------------------------------------------------------------------------
 */

/* First tile of a thread's range; of thread `threads`: the number of tiles. */
static int64_t range_begin(int64_t tiles, int thread, int threads) {
    int64_t whole = tiles / threads, rest = tiles % threads;
    return whole * thread + (thread < rest ? thread : rest);
}

/* Clears a thread's note in its scratch: it has done nothing of the job yet. */
static void begin_job(void *scratch) {
    if (scratch)
        *(int64_t *)scratch = 0;
}

/* Takes the next chunk of a range of n tiles, if the phase still is what it was. Returns the
 * chunk's first tile within the range, or -1. */
static int64_t take_chunk(cursor *c, unsigned phase, int64_t n, int64_t chunk) {
    uint64_t taken = atomic_load_explicit(&c->taken, memory_order_relaxed);
    for (;;) {
        int64_t first = (int64_t)(uint32_t)taken * chunk;
        if ((unsigned)(taken >> 32) != phase || first >= n)
            return -1;
        if (atomic_compare_exchange_weak_explicit(&c->taken, &taken, taken + 1,
                                                  memory_order_acq_rel, memory_order_relaxed))
            return first;
    }
}

/* Computes what can be had of a phase: first of this thread's range, then of the others'. Returns
 * the number of tiles computed. */
static int64_t run_tiles(worker *w, const rt_job *job, unsigned phase) {
    rt_pool *pool = w->pool;
    void *scratch = pool->scratch + (size_t)w->index * pool->scratch_stride;
    int64_t computed = 0;
    begin_job(scratch);
    for (int i = 0; i < pool->threads; i++) {
        int owner = w->index + i < pool->threads ? w->index + i : w->index + i - pool->threads;
        int64_t begin = range_begin(job->tiles, owner, pool->threads);
        int64_t n = range_begin(job->tiles, owner + 1, pool->threads) - begin;
        int64_t chunk = (n + CHUNKS - 1) / CHUNKS, first;
        while ((first = take_chunk(&pool->cursors[owner], phase, n, chunk)) >= 0) {
            int64_t end = first + chunk < n ? first + chunk : n;
            job->kernel(job->call, begin + first, begin + end, scratch);
            computed += end - first;
        }
    }
    return computed;
}

/* Begins the phase of the next job that has several tiles, from job `next` on, or ends the run.
 * Only the thread that finished the phase before, or the caller at the beginning, is here. */
static void begin_phase(worker *w, int next) {
    rt_pool *pool = w->pool;
    void *scratch = pool->scratch + (size_t)w->index * pool->scratch_stride;
    for (; next < pool->n_jobs && pool->jobs[next].tiles <= 1; next++)
        if (pool->jobs[next].tiles == 1) {
            begin_job(scratch);
            pool->jobs[next].kernel(pool->jobs[next].call, 0, 1, scratch);
        }
    unsigned phase = atomic_load_explicit(&pool->phase.word, memory_order_relaxed) + 1;
    /* The cursors before the job: who sees the new job with the old phase's number gets nothing. */
    for (int i = 0; i < pool->threads; i++)
        atomic_store_explicit(&pool->cursors[i].taken, (uint64_t)phase << 32, memory_order_relaxed);
    if (next < pool->n_jobs)
        atomic_store_explicit(&pool->tiles_left, pool->jobs[next].tiles, memory_order_relaxed);
    atomic_store_explicit(&pool->job, next, memory_order_release);
    atomic_store(&pool->phase.word, phase);
    wake_sleepers(&pool->phase);
}

/* Takes part in the run under way, until it is over (the result is true) or nothing has happened
 * for a while. *phase becomes the last phase in which there was nothing left to take. */
static bool help(worker *w, unsigned *phase) {
    rt_pool *pool = w->pool;
    for (;;) {
        *phase = atomic_load_explicit(&pool->phase.word, memory_order_acquire);
        int job = atomic_load_explicit(&pool->job, memory_order_acquire);
        if (job >= pool->n_jobs)
            return true;
        int64_t computed = run_tiles(w, &pool->jobs[job], *phase);
        if (computed > 0 && atomic_fetch_sub_explicit(&pool->tiles_left, computed,
                                                      memory_order_acq_rel) == computed)
            begin_phase(w, job + 1);
        else if (!spin_until_changed(&pool->phase, *phase))
            return false;
    }
}

static void *worker_main(void *user) {
    worker *w = user;
    rt_pool *pool = w->pool;
    unsigned seen = 0;
    char name[16];
    snprintf(name, sizeof name, "modelcc-%d", w->index);
    pthread_setname_np(pthread_self(), name);
    for (bool patient = true;;) {
        if (!patient || !spin_until_changed(&pool->phase, seen))
            sleep_until_changed(&pool->phase, seen);
        if (atomic_load(&pool->stop))
            return NULL;
        atomic_fetch_add(&pool->inside.word, 1);
        if (atomic_load(&pool->running))
            patient = help(w, &seen);
        else
            seen = atomic_load(&pool->phase.word);
        if (atomic_fetch_sub(&pool->inside.word, 1) == 1)
            wake_sleepers(&pool->inside);
    }
}

static void run_alone(const rt_job *jobs, int n_jobs, void *scratch) {
    for (int i = 0; i < n_jobs; i++)
        if (jobs[i].tiles > 0) {
            begin_job(scratch);
            jobs[i].kernel(jobs[i].call, 0, jobs[i].tiles, scratch);
        }
}

/* Returns when no worker is inside the run any more: what it reads may then change. */
static void wait_until_left(rt_pool *pool) {
    unsigned inside;
    while ((inside = atomic_load(&pool->inside.word)) != 0)
        if (!spin_until_changed(&pool->inside, inside))
            sleep_until_changed(&pool->inside, inside);
}

void rt_pool_run(rt_pool *pool, const rt_job *jobs, int n_jobs, void *scratch,
                 size_t scratch_stride) {
    if (pool->threads == 1) {
        run_alone(jobs, n_jobs, scratch);
        return;
    }
    pthread_mutex_lock(&pool->turn);
    worker *caller = &pool->workers[0];
    pool->jobs = jobs;
    pool->n_jobs = n_jobs;
    pool->scratch = scratch;
    pool->scratch_stride = scratch_stride;
    /* Until its first phase begins the run has no job: a worker that comes late, for the run
     * before, must not take that one's last number for a job of this one, in a phase whose number
     * the cursors still have. */
    atomic_store(&pool->job, INT_MAX);
    atomic_store(&pool->running, true);
    begin_phase(caller, 0);
    for (unsigned phase; !help(caller, &phase);)
        sleep_until_changed(&pool->phase, phase);
    atomic_store(&pool->running, false);
    wait_until_left(pool);
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
    size_t cursor_bytes = (size_t)threads * sizeof *pool->cursors;
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
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->phase.word, 1);
    wake_sleepers(&pool->phase);
    for (int i = 1; i <= pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->turn);
    free(pool->cursors);
    free(pool->workers);
    free(pool);
}

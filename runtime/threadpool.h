/* A persistent pool of threads that run the launches of a step.
 *
 * A run is a list of jobs: a kernel and its number of tiles. All threads, the caller being one of
 * them, work on the first job's tiles, then on the second's, and so on; no tile of a job begins
 * before the job in front of it is complete. Each thread has a contiguous range of every job's
 * tiles, so that it reads one long stream of weights; a thread that is done early takes chunks of
 * the others' ranges, and one that the system does not run is not waited for, unless it is in the
 * middle of a chunk.
 *
 * Waiting threads spin for about 50 microseconds, then sleep. */
#ifndef MCC_RUNTIME_THREADPOOL_H
#define MCC_RUNTIME_THREADPOOL_H

#include "runtime/error.h"
#include "runtime/step.h"

#include <stddef.h>

/* The same object as the public header's. Several engines may share one. */
typedef struct mcc_pool rt_pool;

typedef struct rt_job {
    mcc_cpu_kernel *kernel;
    const mcc_cpu_call *call;
    int64_t tiles; /* 0: nothing to do */
} rt_job;

/* threads: with the caller's; 0: rt_cpu_usable_threads(). NULL on error. */
rt_pool *rt_pool_create(int threads, rt_error *error);

/* No run may be under way. NULL is allowed. */
void rt_pool_destroy(rt_pool *pool);

int rt_pool_threads(const rt_pool *pool);

/* Runs jobs[0 … n_jobs-1] in order. Thread t's scratch is at `scratch` + t * scratch_stride, at
 * least 8 bytes (or NULL for all, with stride 0): see mcc_cpu_kernel. May be called by several
 * threads: they take turns. Allocates nothing. */
void rt_pool_run(rt_pool *pool, const rt_job *jobs, int n_jobs, void *scratch,
                 size_t scratch_stride);

#endif

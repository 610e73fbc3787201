/* What this processor can run, and how many threads and how much memory this process may use. */
#ifndef MCC_RUNTIME_CPU_H
#define MCC_RUNTIME_CPU_H

#include <stddef.h>
#include <stdint.h>

/* MCC_CPU_ bits of artifact.h that this processor has and the system has enabled. */
uint64_t rt_cpu_features(void);

/* Writes the names of the bits, separated by ", "; unknown bits as a number. Returns `text`. */
char *rt_cpu_feature_names(uint64_t features, char *text, size_t capacity);

/* Processors that this thread may run on, at most what the cgroup's quota pays for; at least 1. */
int rt_cpu_usable_threads(void);

/* Where the cgroup of a container is mounted. */
#define RT_CGROUP "/sys/fs/cgroup"

/* Bytes of memory that this process may use: the machine's, at most what the cgroup at this place
 * allows; 0: unknown. */
uint64_t rt_cpu_usable_memory(const char *cgroup);

#endif

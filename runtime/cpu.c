#include "runtime/cpu.h"

#include "runtime/artifact.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* State that the system saves on a context switch: XCR0, read without needing -mxsave. */
static uint64_t enabled_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* The levels are those of the x86-64 psABI, section 3.1.1. */
uint64_t rt_cpu_features(void) {
    enum { AVX_STATE = 0x6, AVX512_STATE = 0xe6 };
    const unsigned v3_ecx1 =
        bit_FMA | bit_MOVBE | bit_OSXSAVE | bit_AVX | bit_F16C | bit_SSE4_2 | bit_POPCNT;
    const unsigned v3_ebx7 = bit_AVX2 | bit_BMI | bit_BMI2;
    const unsigned v4_ebx7 =
        bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
    unsigned eax, ebx, ecx, edx, ebx7, ecx7, lzcnt = 0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & v3_ecx1) != v3_ecx1 ||
        !__get_cpuid_count(7, 0, &eax, &ebx7, &ecx7, &edx) || (ebx7 & v3_ebx7) != v3_ebx7)
        return 0;
    if (!__get_cpuid(0x80000001, &eax, &ebx, &lzcnt, &edx) || !(lzcnt & bit_LZCNT))
        return 0;
    uint64_t state = enabled_state();
    if ((state & AVX_STATE) != AVX_STATE)
        return 0;
    uint64_t features = MCC_CPU_X86_64_V3;
    if ((ebx7 & v4_ebx7) == v4_ebx7 && (state & AVX512_STATE) == AVX512_STATE) {
        features |= MCC_CPU_X86_64_V4;
        if (ecx7 & bit_AVX512VNNI)
            features |= MCC_CPU_AVX512_VNNI;
    }
    return features;
}
#else
uint64_t rt_cpu_features(void) {
    return 0;
}
#endif

char *rt_cpu_feature_names(uint64_t features, char *text, size_t capacity) {
    static const struct {
        uint64_t bit;
        const char *name;
    } names[] = {{MCC_CPU_X86_64_V3, "x86-64-v3"},
                 {MCC_CPU_X86_64_V4, "x86-64-v4"},
                 {MCC_CPU_AVX512_VNNI, "avx512-vnni"}};
    size_t used = 0;
    if (capacity > 0)
        text[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!(features & names[i].bit))
            continue;
        features &= ~names[i].bit;
        if (used < capacity)
            used += (size_t)snprintf(text + used, capacity - used, "%s%s", used ? ", " : "",
                                     names[i].name);
    }
    if (features && used < capacity)
        snprintf(text + used, capacity - used, "%sunknown bits 0x%llx", used ? ", " : "",
                 (unsigned long long)features);
    return text;
}

/* Reads numbers or "max" (as -1) from the beginning of a small file; returns how many of two. */
static int read_quota(const char *path, long long *first, long long *second) {
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    char word[32];
    int n = 0;
    *first = -1;
    if (fscanf(file, "%31s", word) == 1 &&
        (strcmp(word, "max") == 0 || sscanf(word, "%lld", first) == 1))
        n = 1 + (fscanf(file, "%lld", second) == 1);
    fclose(file);
    return n;
}

/* Processors that the cgroup's CPU quota pays for, rounded up, or 0 when there is none. Looks at
 * the group mounted at the usual place: in a container, its own. */
static int quota_threads(void) {
    long long quota = -1, period = 0, unused;
    if (read_quota(RT_CGROUP "/cpu.max", &quota, &period) < 2 &&
        !(read_quota(RT_CGROUP "/cpu/cpu.cfs_quota_us", &quota, &unused) >= 1 &&
          read_quota(RT_CGROUP "/cpu/cpu.cfs_period_us", &period, &unused) >= 1))
        return 0;
    if (quota <= 0 || period <= 0 || quota / period > 1 << 20)
        return 0;
    return (int)((quota + period - 1) / period);
}

int rt_cpu_usable_threads(void) {
    /* Machines with more than 1,024 processors: let the kernel say how large the set must be. */
    int threads = 1;
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (!set)
            break;
        size_t size = CPU_ALLOC_SIZE((size_t)cpus);
        int ok = sched_getaffinity(0, size, set);
        if (ok == 0)
            threads = CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (ok == 0)
            break;
    }
    int quota = quota_threads();
    if (quota > 0 && quota < threads)
        threads = quota;
    return threads > 0 ? threads : 1;
}

uint64_t rt_cpu_usable_memory(const char *cgroup) {
    static const char *const files[] = {"memory.max", "memory/memory.limit_in_bytes"}; /* v2, v1 */
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[256];
        long long limit, unused;
        snprintf(path, sizeof path, "%s/%s", cgroup, files[i]);
        if (read_quota(path, &limit, &unused) >= 1 && limit > 0 &&
            (bytes == 0 || (uint64_t)limit < bytes))
            bytes = (uint64_t)limit;
    }
    return bytes;
}

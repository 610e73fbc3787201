/* Replaces malloc in the test program that includes this, libraries included: counts allocations,
 * and lets one fail. COUNTING is 0 under a sanitizer, which has its own malloc: tests skip then. */
#ifndef MCC_TESTS_FAILING_MALLOC_H
#define MCC_TESTS_FAILING_MALLOC_H

#include "check_main.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define COUNTING (!TEST_SANITIZED)

static atomic_long allocations;                  /* that were asked for */
static atomic_long live __attribute__((unused)); /* that have not been freed */
static atomic_long fail_in;                      /* > 0: the allocation to fail, counted down */

#if COUNTING
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

/* Seen by the libraries too, although the build hides symbols. */
#define EXPORT __attribute__((visibility("default")))

static bool fails(void) {
    atomic_fetch_add(&allocations, 1);
    return atomic_load(&fail_in) > 0 && atomic_fetch_sub(&fail_in, 1) == 1;
}

static void *counted(void *memory) {
    if (memory)
        atomic_fetch_add(&live, 1);
    return memory;
}

EXPORT void *malloc(size_t size) {
    return fails() ? NULL : counted(__libc_malloc(size));
}

EXPORT void *calloc(size_t count, size_t size) {
    return fails() ? NULL : counted(__libc_calloc(count, size));
}

EXPORT void *realloc(void *memory, size_t size) {
    if (fails())
        return NULL;
    return memory ? __libc_realloc(memory, size) : counted(__libc_malloc(size));
}

EXPORT void *aligned_alloc(size_t alignment, size_t size) {
    return fails() ? NULL : counted(__libc_memalign(alignment, size));
}

EXPORT void free(void *memory) {
    if (memory)
        atomic_fetch_sub(&live, 1);
    __libc_free(memory);
}
#endif

#endif

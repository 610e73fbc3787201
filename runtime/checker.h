/* What the checks of an artifact's sections share: spans, strings and indices of untrusted tables.
 * Inside the runtime's artifact_*.c only. */
#ifndef MCC_RUNTIME_CHECKER_H
#define MCC_RUNTIME_CHECKER_H

#include "runtime/artifact.h"
#include "runtime/error.h"

typedef struct rt_checker {
    const uint8_t *data; /* the section */
    uint64_t size;
    const char *path, *section; /* for messages */
    uint32_t n_strings;
    rt_error *error;
} rt_checker;

/* Points *entries at a span's entries and sets *count, when all of them lie in the section. */
bool rt_check_span(const rt_checker *c, const mcc_span *span, uint64_t entry_bytes,
                   const char *name, const void **entries, uint32_t *count);

/* A string of entry `i` of what `what` names. */
bool rt_check_string(const rt_checker *c, mcc_string string, const char *what, uint32_t i);

/* The strings themselves: their first and last byte must be zero. */
bool rt_check_strings(const rt_checker *c, const char *strings);

/* The index of something called `of` in entry `i` of what `what` names. */
bool rt_check_index(const rt_checker *c, uint32_t index, uint32_t count, const char *of,
                    const char *what, uint32_t i);

/* mult * ceil(dim / div) does not overflow for T, S, R below 2^31, and is not negative. */
bool rt_tiles_in_range(const mcc_dim *dim, int64_t div, int64_t mult);

#endif

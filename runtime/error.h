/* How functions of the runtime report what went wrong: a code and one message. */
#ifndef MCC_RUNTIME_ERROR_H
#define MCC_RUNTIME_ERROR_H

#include <stdbool.h>

enum { RT_ERROR_TEXT = 512 };

/* Codes have the values of mcc_status in modelcc.h. */
typedef struct rt_error {
    int code;
    char text[RT_ERROR_TEXT];
} rt_error;

/* Fills `error` (may be NULL) and returns false, so that callers can `return rt_fail(…)`. */
bool rt_fail(rt_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif

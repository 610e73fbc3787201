#include "runtime/error.h"

#include <stdarg.h>
#include <stdio.h>

bool rt_fail(rt_error *error, int code, const char *format, ...) {
    if (error) {
        va_list args;
        va_start(args, format);
        error->code = code;
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return false;
}

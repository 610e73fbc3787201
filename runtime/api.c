/* What the functions of modelcc.h share: errors, structs of other versions, names. */
#include "runtime/cpu.h"
#include "runtime/loader.h"
#include "runtime/threadpool.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifndef MCC_VERSION_TEXT
#define MCC_VERSION_TEXT "0.1.0"
#endif

mcc_status rt_report(const rt_error *from, mcc_error *to) {
    mcc_status code = from->code != MCC_OK ? from->code : MCC_INTERNAL;
    if (to && to->struct_size > offsetof(mcc_error, text)) {
        size_t room = to->struct_size - offsetof(mcc_error, text);
        if (room > sizeof to->text)
            room = sizeof to->text;
        to->code = code;
        snprintf(to->text, room, "%s", from->text);
    }
    return code;
}

mcc_status rt_refuse(mcc_error *error, mcc_status status, const char *format, ...) {
    rt_error e = {.code = status};
    va_list args;
    va_start(args, format);
    vsnprintf(e.text, sizeof e.text, format, args);
    va_end(args);
    return rt_report(&e, error);
}

bool rt_take_struct(void *local, uint32_t local_size, const void *from) {
    uint32_t size;
    memset(local, 0, local_size);
    if (!from)
        return true;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size)
        return false;
    memcpy(local, from, size < local_size ? size : local_size);
    return true;
}

bool rt_give_struct(const void *local, uint32_t local_size, void *to) {
    uint32_t size;
    memcpy(&size, to, sizeof size);
    if (size < sizeof size)
        return false;
    if (size > local_size)
        size = local_size;
    memcpy((char *)to + sizeof size, (const char *)local + sizeof size, size - sizeof size);
    return true;
}

const char *mcc_status_name(mcc_status status) {
    static const char *const names[] = {"ok",
                                        "invalid argument",
                                        "out of memory",
                                        "input/output error",
                                        "bad artifact",
                                        "version mismatch",
                                        "processor mismatch",
                                        "unsupported",
                                        "capacity exceeded",
                                        "not found",
                                        "buffer too small",
                                        "internal error",
                                        "no device",
                                        "device failed",
                                        "draining"};
    if (status < 0 || (size_t)status >= sizeof names / sizeof *names)
        return "unknown status";
    return names[status];
}

const char *mcc_version(void) {
    return MCC_VERSION_TEXT;
}

void mcc_cpu_features(char *text, uint64_t capacity) {
    rt_cpu_feature_names(rt_cpu_features(), text, capacity);
}

mcc_status mcc_pool_create(int32_t threads, mcc_pool **pool, mcc_error *error) {
    rt_error e = {0};
    if (!pool)
        return rt_refuse(error, MCC_INVALID_ARGUMENT, "mcc_pool_create: pool must be set");
    *pool = rt_pool_create(threads, &e);
    return *pool ? MCC_OK : rt_report(&e, error);
}

void mcc_pool_destroy(mcc_pool *pool) {
    rt_pool_destroy(pool);
}

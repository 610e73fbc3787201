/* Handles that are alive, the lock, and why calls fail. */
#include "runtime/emulator/driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- handles: a set of pointers, by open addressing --------------------------------------------
 */

static struct {
    const void **slots; /* NULL: free; GONE: was used */
    size_t room, used;  /* used: not free */
} alive;
static const char gone_place;
#define GONE ((const void *)&gone_place)

static size_t slot_of(const void *handle, size_t room) {
    return (size_t)((uint64_t)(uintptr_t)handle * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (room - 1);
}

static bool grow(void) {
    size_t n = 0, room = 64;
    for (size_t i = 0; i < alive.room; i++)
        n += alive.slots[i] && alive.slots[i] != GONE;
    while (room < 4 * (n + 1))
        room *= 2;
    const void **slots = calloc(room, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < alive.room; i++)
        if (alive.slots[i] && alive.slots[i] != GONE) {
            size_t at = slot_of(alive.slots[i], room);
            while (slots[at])
                at = (at + 1) & (room - 1);
            slots[at] = alive.slots[i];
        }
    free(alive.slots);
    alive.slots = slots;
    alive.room = room;
    alive.used = n;
    return true;
}

static const void **find(const void *handle) {
    for (size_t at = alive.room ? slot_of(handle, alive.room) : 0; alive.room && alive.slots[at];
         at = (at + 1) & (alive.room - 1))
        if (alive.slots[at] == handle)
            return &alive.slots[at];
    return NULL;
}

bool drv_is(const void *handle, drv_kind kind) {
    return handle && find(handle) && ((const drv_object *)handle)->kind == kind;
}

void *drv_new(drv_kind kind, size_t bytes, CUcontext context) {
    if (2 * (alive.used + 1) > alive.room && !grow())
        return NULL;
    drv_object *object = calloc(1, bytes);
    if (!object)
        return NULL;
    object->kind = kind;
    object->context = context;
    object->next = object->prev = object;
    if (context) {
        drv_object *head = &context->objects;
        object->next = head;
        object->prev = head->prev;
        head->prev->next = object;
        head->prev = object;
    }
    size_t at = slot_of(object, alive.room);
    while (alive.slots[at])
        at = (at + 1) & (alive.room - 1);
    alive.slots[at] = object;
    alive.used++;
    return object;
}

void drv_delete(void *pointer) {
    drv_object *object = pointer;
    if (!object)
        return;
    *find(object) = GONE;
    object->prev->next = object->next;
    object->next->prev = object->prev;
    free(object);
}

/* --- errors --------------------------------------------------------------------------------------
 */

static _Thread_local char last_error[1024];

CUresult drv_fail(CUresult code, const char *format, ...) {
    last_error[0] = 0;
    if (format) {
        va_list args;
        va_start(args, format);
        vsnprintf(last_error, sizeof last_error, format, args);
        va_end(args);
    }
    return code;
}

EXPORT size_t modelcc_emulator_last_error(char *text, size_t bytes) {
    size_t n = strlen(last_error);
    if (bytes > 0)
        snprintf(text, bytes, "%s", last_error);
    return n;
}

static const struct {
    CUresult code;
    const char *name, *text;
} errors[] = {
#define ROW(name, code, text) {name, #name, text},
    CUDA_API_ERRORS(ROW)
#undef ROW
};

static CUresult find_error(CUresult code, size_t *i) {
    for (*i = 0; *i < sizeof errors / sizeof *errors; ++*i)
        if (errors[*i].code == code)
            return CUDA_SUCCESS;
    return CUDA_ERROR_INVALID_VALUE;
}

/* These two leave the last error as it is: they are called to report it. */
API cuGetErrorName(CUresult error, const char **text) {
    size_t i;
    if (!text)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = find_error(error, &i);
    *text = result == CUDA_SUCCESS ? errors[i].name : NULL;
    return result;
}

API cuGetErrorString(CUresult error, const char **text) {
    size_t i;
    if (!text)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = find_error(error, &i);
    *text = result == CUDA_SUCCESS ? errors[i].text : NULL;
    return result;
}

/* --- calls ---------------------------------------------------------------------------------------
 */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool inside; /* this thread holds the lock: it runs a host function */

bool drv_initialised;

CUresult drv_enter(bool *locked) {
    *locked = false;
    if (inside)
        return drv_fail(CUDA_ERROR_NOT_PERMITTED,
                        "a function given to cuLaunchHostFunc calls the driver");
    pthread_mutex_lock(&lock);
    *locked = inside = true;
    return drv_initialised ? CUDA_SUCCESS : DRV_FAIL(CUDA_ERROR_NOT_INITIALIZED);
}

void drv_leave(bool *locked) {
    if (*locked) {
        inside = false;
        pthread_mutex_unlock(&lock);
    }
}

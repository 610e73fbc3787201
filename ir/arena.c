#include "ir/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 64 * 1024, ALIGNMENT = 16 };

struct chunk {
    struct chunk *next;
    size_t used, capacity;
    _Alignas(ALIGNMENT) unsigned char bytes[];
};

struct ir_arena {
    struct chunk *chunks; /* the newest first; only it is filled */
    size_t used;
};

static void (*oom_handler)(void) = abort;

void ir_arena_on_oom(void (*handler)(void)) {
    oom_handler = handler ? handler : abort;
}

ir_arena *ir_arena_create(void) {
    ir_arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        oom_handler();
    return arena;
}

void ir_arena_destroy(ir_arena *arena) {
    if (!arena)
        return;
    for (struct chunk *c = arena->chunks; c;) {
        struct chunk *next = c->next;
        free(c);
        c = next;
    }
    free(arena);
}

void *ir_arena_alloc(ir_arena *arena, size_t size) {
    if (size > SIZE_MAX / 2)
        oom_handler();
    size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    struct chunk *c = arena->chunks;
    if (!c || c->capacity - c->used < size) {
        size_t capacity = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        c = calloc(1, sizeof(struct chunk) + capacity);
        if (!c)
            oom_handler();
        c->capacity = capacity;
        /* A large block goes behind the current chunk, whose free space stays in use. */
        if (size > CHUNK_BYTES / 2 && arena->chunks) {
            c->next = arena->chunks->next;
            arena->chunks->next = c;
        } else {
            c->next = arena->chunks;
            arena->chunks = c;
        }
    }
    void *p = c->bytes + c->used;
    c->used += size;
    arena->used += size;
    return p;
}

void *ir_arena_array(ir_arena *arena, size_t count, size_t size) {
    if (size && count > SIZE_MAX / 2 / size)
        oom_handler();
    return ir_arena_alloc(arena, count * size);
}

char *ir_arena_strndup(ir_arena *arena, const char *text, size_t length) {
    char *copy = ir_arena_alloc(arena, length + 1);
    memcpy(copy, text, length);
    return copy;
}

char *ir_arena_strdup(ir_arena *arena, const char *text) {
    return ir_arena_strndup(arena, text, strlen(text));
}

char *ir_arena_vprintf(ir_arena *arena, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *text = ir_arena_alloc(arena, (size_t)(n < 0 ? 0 : n) + 1);
    if (n > 0)
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

char *ir_arena_printf(ir_arena *arena, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = ir_arena_vprintf(arena, format, args);
    va_end(args);
    return text;
}

size_t ir_arena_used(const ir_arena *arena) {
    return arena->used;
}

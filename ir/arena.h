/* A bump allocator: everything allocated from one arena is freed at once. */
#ifndef MCC_IR_ARENA_H
#define MCC_IR_ARENA_H

#include <stdarg.h>
#include <stddef.h>

typedef struct ir_arena ir_arena;

/* Creates an empty arena. Not thread-safe: one arena, one thread. Running out of memory ends in the
 * out-of-memory handler, here and below, so callers need no check: see ir_arena_on_oom. */
ir_arena *ir_arena_create(void);
void ir_arena_destroy(ir_arena *arena);

/* Returns `size` zeroed bytes aligned to 16, owned by the arena. */
void *ir_arena_alloc(ir_arena *arena, size_t size);

/* Same for an array; a product that overflows counts as out of memory. */
void *ir_arena_array(ir_arena *arena, size_t count, size_t size);

/* Copies of strings, owned by the arena. */
char *ir_arena_strdup(ir_arena *arena, const char *text);
char *ir_arena_strndup(ir_arena *arena, const char *text, size_t length);
char *ir_arena_printf(ir_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
char *ir_arena_vprintf(ir_arena *arena, const char *format, va_list args);

/* Bytes handed out so far. */
size_t ir_arena_used(const ir_arena *arena);

/* Sets what happens when memory is short, for all arenas: the handler must not return (the driver
 * removes temporary files and exits; tests jump out). The default aborts. */
void ir_arena_on_oom(void (*handler)(void));

#endif

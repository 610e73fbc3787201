#include "compiler/frontend/list.h"

#include <string.h>

void fe_list_add(fe_list *list, ir_arena *arena, const char *name) {
    size_t more = strlen(name) + 2;
    if (list->length + more >= list->capacity) {
        size_t capacity = 2 * (list->length + more) + 64;
        char *text = ir_arena_alloc(arena, capacity);
        if (list->length)
            memcpy(text, list->text, list->length + 1);
        list->text = text;
        list->capacity = capacity;
    }
    if (list->count++) {
        memcpy(list->text + list->length, ", ", 2);
        list->length += 2;
    }
    strcpy(list->text + list->length, name);
    list->length += strlen(name);
}

/* A list of names for a message: "a, b, c", and how many. */
#ifndef MCC_FRONTEND_LIST_H
#define MCC_FRONTEND_LIST_H

#include "ir/arena.h"

typedef struct fe_list {
    char *text; /* NULL while it is empty */
    size_t length, capacity;
    long long count;
} fe_list;

/* Start from a zeroed list. The text is the arena's. */
void fe_list_add(fe_list *list, ir_arena *arena, const char *name);

#endif

/* The fusion plan's text form. */
#include "passes/plan.h"

#include "ir/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

plan *plan_create(ir_arena *arena, const char *strategy) {
    plan *p = ir_arena_alloc(arena, sizeof *p);
    *p = (plan){.arena = arena, .strategy = ir_arena_strdup(arena, strategy)};
    return p;
}

plan_entry *plan_add(plan *p, plan_entries *list, const char *name, const char *anchor) {
    if (list->count == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 64;
        plan_entry *grown = ir_arena_array(p->arena, (size_t)capacity, sizeof *grown);
        if (list->count)
            memcpy(grown, list->entries, (size_t)list->count * sizeof *grown);
        list->entries = grown;
        list->capacity = capacity;
    }
    plan_entry *e = &list->entries[list->count++];
    *e = (plan_entry){.name = ir_arena_strdup(p->arena, name),
                      .anchor = anchor ? ir_arena_strdup(p->arena, anchor) : NULL};
    return e;
}

void plan_add_op(plan *p, plan_entry *entry, const char *op) {
    if (entry->n_ops == entry->capacity) {
        int capacity = entry->capacity ? 2 * entry->capacity : 8;
        const char **grown = ir_arena_array(p->arena, (size_t)capacity, sizeof *grown);
        if (entry->n_ops)
            memcpy(grown, entry->ops, (size_t)entry->n_ops * sizeof *grown);
        entry->ops = grown;
        entry->capacity = capacity;
    }
    entry->ops[entry->n_ops++] = ir_arena_strdup(p->arena, op);
}

void plan_hash_graph(const ir_module *module, char out[17]) {
    char *text = NULL;
    size_t size = 0;
    uint64_t h = 14695981039346656037u;
    FILE *f = open_memstream(&text, &size);
    if (f) {
        ir_print_module(module, f);
        fclose(f);
    }
    for (size_t i = 0; i < size; i++)
        h = (h ^ (unsigned char)text[i]) * 1099511628211u;
    free(text);
    snprintf(out, 17, "%016" PRIx64, h);
}

static void print_entry(const plan_entry *e, FILE *out) {
    if (e->anchor)
        fprintf(out, "kernel %s %s =", e->name, e->anchor);
    else
        fprintf(out, "merge %s =", e->name);
    for (int i = 0; i < e->n_ops; i++)
        fprintf(out, " %s", e->ops[i]);
    fputc('\n', out);
}

void plan_print(const plan *p, FILE *out) {
    fprintf(out, "modelcc-plan 1\n");
    if (p->graph_hash[0])
        fprintf(out, "graph %s\n", p->graph_hash);
    fprintf(out, "strategy %s\n", p->strategy);
    for (int i = 0; i < p->merges.count; i++)
        print_entry(&p->merges.entries[i], out);
    for (int i = 0; i < p->kernels.count; i++)
        print_entry(&p->kernels.entries[i], out);
}

/* One line, cut at its spaces; *rest moves on. NULL at the end of the line. */
static char *next_word(char **rest) {
    return strtok_r(NULL, " \t\r", rest);
}

static bool parse_entry(plan *p, const char *kind, char **rest, int line) {
    bool kernel = strcmp(kind, "kernel") == 0;
    char *name = next_word(rest), *anchor = kernel ? next_word(rest) : NULL;
    char *equals = next_word(rest);
    if (!name || (kernel && !anchor) || !equals || strcmp(equals, "=") != 0)
        return false;
    plan_entry *e = plan_add(p, kernel ? &p->kernels : &p->merges, name, anchor);
    e->line = line;
    for (char *op; (op = next_word(rest));)
        plan_add_op(p, e, op);
    return e->n_ops > 0;
}

plan *plan_parse(const char *text, const char *file, ir_arena *arena, ir_diag *diag) {
    plan *p = plan_create(arena, "file");
    p->file = file;
    int errors = diag->errors, line = 0;
    bool version = false;
    char *copy = ir_arena_strdup(arena, text);
    while (copy) {
        char *end = strchr(copy, '\n');
        if (end)
            *end = '\0';
        line++;
        const char *where = ir_arena_printf(arena, "%s:%d", file, line);
        copy[strcspn(copy, "#")] = '\0';
        char *rest = NULL, *word = strtok_r(copy, " \t\r", &rest);
        if (word && !version) {
            char *number = next_word(&rest);
            version = strcmp(word, "modelcc-plan") == 0 && number && strcmp(number, "1") == 0;
            if (!version) {
                ir_error(diag, where, "expected \"modelcc-plan 1\", found \"%.40s%s%.40s\"", word,
                         number ? " " : "", number ? number : "");
                return NULL;
            }
        } else if (word && (strcmp(word, "graph") == 0 || strcmp(word, "strategy") == 0)) {
            char *value = next_word(&rest);
            if (!value)
                ir_error(diag, where, "\"%s\" needs a value", word);
            else if (word[0] == 'g')
                snprintf(p->graph_hash, sizeof p->graph_hash, "%s", value);
            else
                p->strategy = ir_arena_strdup(arena, value);
        } else if (word && (strcmp(word, "merge") == 0 || strcmp(word, "kernel") == 0)) {
            if (!parse_entry(p, word, &rest, line))
                ir_error(diag, where,
                         "expected \"kernel NAME ANCHOR = OP …\" or \"merge NAME = OP …\"");
        } else if (word) {
            ir_error(diag, where, "unknown line \"%s\"; expected graph, strategy, merge or kernel",
                     word);
        }
        copy = end ? end + 1 : NULL;
    }
    if (!version)
        ir_error(diag, file, "empty; expected \"modelcc-plan 1\"");
    return diag->errors == errors ? p : NULL;
}

/* For tests: modules written as text, op by op, with random weights. Included by one test file
 * each. */
#ifndef MCC_TESTS_GRAPH_TEXT_H
#define MCC_TESTS_GRAPH_TEXT_H

#include "compiled_graph.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct text {
    char bytes[16384];
    size_t used;
    int next; /* value id */
} text;

/* Adds "%<id> = …" and returns the id. */
__attribute__((format(printf, 2, 3))) static inline int add(text *t, const char *format, ...) {
    va_list list;
    int n = snprintf(t->bytes + t->used, sizeof t->bytes - t->used, "%%%d = ", t->next);
    t->used += (size_t)n;
    va_start(list, format);
    n = vsnprintf(t->bytes + t->used, sizeof t->bytes - t->used, format, list);
    va_end(list);
    t->used += (size_t)n;
    ck_assert_uint_lt(t->used + 64, sizeof t->bytes);
    t->bytes[t->used++] = '\n';
    t->bytes[t->used] = 0;
    return t->next++;
}

static inline void add_output(text *t, int id, const char *name) {
    int n = snprintf(t->bytes + t->used, sizeof t->bytes - t->used,
                     "output(%%%d) {name = \"%s\"}\n", id, name);
    t->used += (size_t)n;
}

static inline void start(text *t) {
    *t = (text){0};
    t->used = (size_t)snprintf(t->bytes, sizeof t->bytes, "module \"case\" {arch = \"test\"}\n");
}

enum { VOCAB = 64 };

/* Rows of a table of random numbers, one for each token: an f32 value [T, k]. */
static inline int add_rows(text *t, int tokens, const char *name, int64_t k) {
    int w = add(t, "weight {name = \"%s\"} : f32[%d, %lld]", name, VOCAB, (long long)k);
    return add(t, "gather(%%%d, %%%d) : f32[T, %lld] @\"%s\"", w, tokens, (long long)k, name);
}

static inline int add_tokens(text *t) {
    return add(t, "input {name = \"token_ids\"} : i32[T]");
}

static inline int add_matmul(text *t, int x, const char *type, int64_t n, int64_t k,
                             const char *name) {
    int w = add(t, "weight {name = \"%s.weight\"} : %s[%lld, %lld]", name, type, (long long)n,
                (long long)k);
    return add(t, "matmul(%%%d, %%%d) {transpose_b = 1} : f32[T, %lld] @\"%s\"", x, w, (long long)n,
               name);
}

static inline ir_module *parse(const text *t) {
    ir_diag diag = {0};
    ir_module *m = ir_parse_module(t->bytes, t->used, "case", &diag);
    if (!m) {
        ir_diag_print(&diag, stderr);
        ck_abort_msg("the case does not parse:\n%s", t->bytes);
    }
    ir_diag_clear(&diag);
    graph_random_weights(m);
    return m;
}

#endif

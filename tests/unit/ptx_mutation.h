/* Mutation of PTX text: finds what keeps a kernel right - barriers, waits, fences, predicates,
 * comparisons, clamps - and gives for each the ways in which it can be dropped or altered. Knows
 * statements, not their meaning: a mutant may be no legal PTX. Included by one test file each. */
#ifndef MCC_TESTS_PTX_MUTATION_H
#define MCC_TESTS_PTX_MUTATION_H

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum mutation_kind {
    MUTATE_BARRIER, /* bar.sync, bar.warp.sync: dropped */
    MUTATE_WAIT,    /* cp.async.wait_group N: dropped, N + 1 */
    MUTATE_COMMIT,  /* cp.async.commit_group: dropped */
    MUTATE_FENCE,   /* membar, fence: dropped */
    MUTATE_GUARD,   /* @p instruction: always, never */
    MUTATE_COMPARE, /* setp of integers: the bound moves by one (x < n: x <= n, x > 7: x > 8), =
                       becomes !=; of floats: the opposite */
    MUTATE_SELECT,  /* selp: always the first, always the second */
    MUTATE_LOGIC,   /* and, or of predicates: only the first, only the second */
    MUTATE_CLAMP,   /* min, max of integers: only the first, only the second */
    N_MUTATION_KINDS
} mutation_kind;

static const char *const mutation_kind_names[N_MUTATION_KINDS] = {
    "barrier", "wait", "commit", "fence", "guard", "compare", "select", "logic", "clamp"};

/* Bytes [begin, end) become `text`. */
typedef struct mutation {
    mutation_kind kind;
    int way; /* counts the ways of a site */
    size_t begin, end;
    char text[128];
    int ptx_line;
    int file, line; /* of the source, by .loc; 0 where it says nothing */
} mutation;

typedef struct mutations {
    mutation *items;
    int n, room;
    char *files[64]; /* names by .file, or NULL */
} mutations;

typedef struct ptx_statement {
    const char *at, *end; /* end: behind the semicolon */
    char guard[32];       /* "@%p1 ", or empty */
    char op[64];          /* setp.lt.s32 */
    char operands[6][48]; /* trimmed; those beyond, or longer ones, are left out */
    int n_operands;
} ptx_statement;

static inline void ptx_parse_statement(ptx_statement *s) {
    const char *p = s->at, *end = s->end - 1;
    if (*p == '@') {
        size_t n = strcspn(p, " \t\n");
        if (n < sizeof s->guard - 1) {
            memcpy(s->guard, p, n);
            s->guard[n] = 0;
        }
        p += n;
        while (p < end && isspace((unsigned char)*p))
            p++;
    }
    size_t n = 0;
    while (p < end && !isspace((unsigned char)*p) && n + 1 < sizeof s->op)
        s->op[n++] = *p++;
    s->op[n] = 0;
    while (p < end && s->n_operands < 6) {
        while (p < end && isspace((unsigned char)*p))
            p++;
        int depth = 0;
        const char *from = p;
        for (; p < end && (depth || *p != ','); p++)
            depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        const char *to = p;
        while (to > from && isspace((unsigned char)to[-1]))
            to--;
        snprintf(s->operands[s->n_operands++], sizeof s->operands[0], "%.*s", (int)(to - from),
                 from);
        p += p < end;
    }
}

__attribute__((format(printf, 4, 5))) static inline void
mutation_add(mutations *m, const mutation *site, mutation_kind kind, const char *format, ...) {
    va_list list;
    if (m->n == m->room) {
        m->room = m->room ? 2 * m->room : 256;
        m->items = realloc(m->items, (size_t)m->room * sizeof *m->items);
        ck_assert_ptr_nonnull(m->items);
    }
    mutation *x = &m->items[m->n];
    *x = *site;
    x->kind = kind;
    if (m->n && m->items[m->n - 1].begin == site->begin)
        x->way = m->items[m->n - 1].way + 1;
    va_start(list, format);
    int n = vsnprintf(x->text, sizeof x->text, format, list);
    va_end(list);
    if (n >= 0 && (size_t)n < sizeof x->text)
        m->n++;
}

/* What a comparison becomes, or NULL: integers "lt" "le", floats the opposite, NaNs included. */
static inline const char *other_comparison(const char *relation, bool is_float) {
    static const char *const integers[][2] = {
        {"lt", "le"}, {"le", "lt"}, {"gt", "ge"}, {"ge", "gt"}, {"lo", "ls"},
        {"ls", "lo"}, {"hi", "hs"}, {"hs", "hi"}, {"eq", "ne"}, {"ne", "eq"}};
    static const char *const floats[][2] = {
        {"lt", "geu"}, {"le", "gtu"}, {"gt", "leu"},  {"ge", "ltu"}, {"eq", "neu"},
        {"ne", "equ"}, {"ltu", "ge"}, {"leu", "gt"},  {"gtu", "le"}, {"geu", "lt"},
        {"equ", "ne"}, {"neu", "eq"}, {"num", "nan"}, {"nan", "num"}};
    for (size_t i = 0; !is_float && i < sizeof integers / sizeof *integers; i++)
        if (strcmp(relation, integers[i][0]) == 0)
            return integers[i][1];
    for (size_t i = 0; is_float && i < sizeof floats / sizeof *floats; i++)
        if (strcmp(relation, floats[i][0]) == 0)
            return floats[i][1];
    return NULL;
}

static inline bool op_is(const ptx_statement *s, const char *name) {
    size_t n = strlen(name);
    return strncmp(s->op, name, n) == 0 && (s->op[n] == '.' || s->op[n] == 0);
}

static inline void mutate_compare(mutations *m, const mutation *site, const ptx_statement *s) {
    const char *relation = s->op + 5, *rest = strchr(relation, '.'), *type = strrchr(s->op, '.');
    char name[8], *end;
    if (!rest || rest - relation >= (int)sizeof name)
        return;
    snprintf(name, sizeof name, "%.*s", (int)(rest - relation), relation);
    bool is_float = type[1] == 'f';
    const char *other = other_comparison(name, is_float);
    long long bound = strtoll(s->operands[2], &end, 0);
    if (!is_float && s->n_operands == 3 && *s->operands[2] && !*end &&
        (strcmp(name, "gt") == 0 || strcmp(name, "le") == 0 || strcmp(name, "hi") == 0 ||
         strcmp(name, "ls") == 0)) {
        /* compilers write x < 8 as !(x > 7) */
        mutation_add(m, site, MUTATE_COMPARE, "%s %s %s, %s, %lld;", s->guard, s->op,
                     s->operands[0], s->operands[1], bound + 1);
    } else if (other) {
        mutation here = *site;
        here.begin += (size_t)(strstr(s->at, s->op) - s->at) + 5;
        here.end = here.begin + strlen(name);
        mutation_add(m, &here, MUTATE_COMPARE, "%s", other);
    }
}

static inline void mutate_statement(mutations *m, const mutation *site, const ptx_statement *s) {
    const char *const *o = (const char *const[]){s->operands[0], s->operands[1], s->operands[2]};
    const char *type = strrchr(s->op, '.');
    if (op_is(s, "bar") || op_is(s, "barrier")) {
        mutation_add(m, site, MUTATE_BARRIER, " ");
    } else if (op_is(s, "cp.async.wait_group")) {
        mutation_add(m, site, MUTATE_WAIT, " ");
        mutation_add(m, site, MUTATE_WAIT, "%s %s %d;", s->guard, s->op, atoi(o[0]) + 1);
    } else if (op_is(s, "cp.async.wait_all")) {
        mutation_add(m, site, MUTATE_WAIT, " ");
    } else if (op_is(s, "cp.async.commit_group")) {
        mutation_add(m, site, MUTATE_COMMIT, " ");
    } else if (op_is(s, "membar") || op_is(s, "fence")) {
        mutation_add(m, site, MUTATE_FENCE, " ");
    } else if (op_is(s, "setp")) {
        mutate_compare(m, site, s);
    } else if (op_is(s, "selp")) {
        for (int i = 1; i < 3; i++)
            mutation_add(m, site, MUTATE_SELECT, "%s mov%s %s, %s;", s->guard, type, o[0], o[i]);
    } else if (op_is(s, "and.pred") || op_is(s, "or.pred")) {
        for (int i = 1; i < 3; i++)
            mutation_add(m, site, MUTATE_LOGIC, "%s mov.pred %s, %s;", s->guard, o[0], o[i]);
    } else if ((op_is(s, "min") || op_is(s, "max")) && (type[1] == 's' || type[1] == 'u')) {
        for (int i = 1; i < 3; i++)
            mutation_add(m, site, MUTATE_CLAMP, "%s mov%s %s, %s;", s->guard, type, o[0], o[i]);
    }
    if (s->guard[0] && !op_is(s, "bar") && !op_is(s, "barrier")) {
        mutation here = *site;
        mutation_add(m, &here, MUTATE_GUARD, " ");
        here.end = here.begin + strlen(s->guard);
        mutation_add(m, &here, MUTATE_GUARD, " ");
    }
}

/* All mutations of the module's functions, in the order of the text. */
static inline void mutations_find(const char *ptx, mutations *m) {
    mutation site = {.ptx_line = 1};
    const char *p = ptx;
    int depth = 0;
    *m = (mutations){0};
    while (*p) {
        if (*p == '\n') {
            site.ptx_line++;
            p++;
        } else if (isspace((unsigned char)*p)) {
            p++;
        } else if (strncmp(p, "//", 2) == 0) {
            p += strcspn(p, "\n");
        } else if (strncmp(p, ".loc", 4) == 0) {
            sscanf(p, ".loc %d %d", &site.file, &site.line);
            p += strcspn(p, "\n");
        } else if (strncmp(p, ".file", 5) == 0) {
            int number;
            char name[256];
            if (sscanf(p, ".file %d \"%255[^\"]\"", &number, name) == 2 && number < 64 &&
                number >= 0 && !m->files[number])
                m->files[number] = strdup(name);
            p += strcspn(p, "\n");
        } else if (*p == '{' || *p == '}') {
            depth += *p++ == '{' ? 1 : -1;
        } else if (depth == 0) {
            /* headers and .section data: only braces count, and data are no functions */
            if (strncmp(p, ".section", 8) == 0) {
                while (*p && *p != '}')
                    site.ptx_line += *p++ == '\n';
                p += *p == '}';
            } else {
                p += strcspn(p, "{\n");
            }
        } else {
            size_t n = strcspn(p, ";:\n");
            while (p[n] == '\n' || (p[n] == ':' && p[n + 1] == ':'))
                n += 1 + strcspn(p + n + 1, ";:\n");
            if (p[n] == ';' && *p != '.') {
                ptx_statement s = {.at = p, .end = p + n + 1};
                ptx_parse_statement(&s);
                site.begin = (size_t)(p - ptx);
                site.end = site.begin + n + 1;
                mutate_statement(m, &site, &s);
            }
            for (size_t i = 0; i < n; i++)
                site.ptx_line += p[i] == '\n';
            p += n + (p[n] != 0);
        }
    }
}

static inline void mutations_free(mutations *m) {
    for (int i = 0; i < 64; i++)
        free(m->files[i]);
    free(m->items);
}

/* The text with one mutation; malloc'ed. */
static inline char *mutation_apply(const char *ptx, const mutation *x) {
    size_t tail = strlen(ptx + x->end), n = strlen(x->text);
    char *text = malloc(x->begin + n + tail + 1);
    ck_assert_ptr_nonnull(text);
    memcpy(text, ptx, x->begin);
    memcpy(text + x->begin, x->text, n);
    memcpy(text + x->begin + n, ptx + x->end, tail + 1);
    return text;
}

#endif

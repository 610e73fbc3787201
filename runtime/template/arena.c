/* Memory, errors and limits of one parse or render. */
#include "tpl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rt_tpl_chunk {
    struct rt_tpl_chunk *next;
    size_t used, cap;
    _Alignas(16) unsigned char data[];
};

void *rt_tpl_alloc(struct rt_tpl_env *e, size_t n) {
    if (n > RT_TPL_MAX_MEMORY)
        rt_tpl_fail(e, "needs more than %u MiB of memory", RT_TPL_MAX_MEMORY >> 20);
    n = (n + 15) & ~(size_t)15;
    struct rt_tpl_chunk *c = e->chunks;
    if (!c || c->cap - c->used < n) {
        size_t cap = n > (32u << 10) ? n : (64u << 10);
        if (e->memory + cap > RT_TPL_MAX_MEMORY)
            rt_tpl_fail(e, "needs more than %u MiB of memory", RT_TPL_MAX_MEMORY >> 20);
        struct rt_tpl_chunk *fresh = malloc(sizeof *fresh + cap);
        if (!fresh)
            rt_tpl_fail(e, "out of memory");
        e->memory += cap;
        fresh->used = 0;
        fresh->cap = cap;
        /* A large block goes behind the present chunk, whose rest stays in use. */
        if (c && n > (32u << 10)) {
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            e->chunks = fresh;
        }
        c = fresh;
    }
    void *p = c->data + c->used;
    c->used += n;
    return p;
}

void *rt_tpl_calloc(struct rt_tpl_env *e, size_t n, size_t size) {
    if (size && n > RT_TPL_MAX_MEMORY / size)
        rt_tpl_fail(e, "needs more than %u MiB of memory", RT_TPL_MAX_MEMORY >> 20);
    void *p = rt_tpl_alloc(e, n * size);
    memset(p, 0, n * size);
    return p;
}

void rt_tpl_free_chunks(struct rt_tpl_chunk *c) {
    while (c) {
        struct rt_tpl_chunk *next = c->next;
        free(c);
        c = next;
    }
}

/* Cuts a message that did not fit where a character begins. */
static void cut_message(struct rt_tpl_env *e, size_t n) {
    if (n < e->err_cap)
        return;
    size_t end = e->err_cap - 1;
    while (end > 0 && ((unsigned char)e->err[end - 1] & 0xc0) == 0x80)
        end--;
    if (end > 0 && (unsigned char)e->err[end - 1] >= 0xc0)
        end--;
    if (rt_tpl_utf8_valid(e->err, e->err_cap - 1))
        end = e->err_cap - 1;
    e->err[end] = 0;
}

_Noreturn void rt_tpl_fail(struct rt_tpl_env *e, const char *fmt, ...) {
    if (e->err_cap > 0) {
        int n = e->line ? snprintf(e->err, e->err_cap, "chat template: line %d: ", e->line)
                        : snprintf(e->err, e->err_cap, "chat template: ");
        if (n > 0 && (size_t)n < e->err_cap) {
            va_list ap;
            va_start(ap, fmt);
            int m = vsnprintf(e->err + n, e->err_cap - (size_t)n, fmt, ap);
            va_end(ap);
            if (m > 0)
                cut_message(e, (size_t)n + (size_t)m);
        }
    }
    longjmp(e->jump, 1);
}

_Noreturn void rt_tpl_fail_text(struct rt_tpl_env *e, struct rt_tpl_str text) {
    if (e->err_cap > 0) {
        size_t n = text.n < e->err_cap ? text.n : e->err_cap - 1;
        memcpy(e->err, text.p, n);
        e->err[n] = 0;
        cut_message(e, text.n);
    }
    longjmp(e->jump, 1);
}

void rt_tpl_charge(struct rt_tpl_env *e, size_t n) {
    if (n > RT_TPL_MAX_STEPS - e->steps)
        rt_tpl_fail(e, "takes more than %u steps", RT_TPL_MAX_STEPS);
    e->steps += (uint32_t)n;
}

void rt_tpl_enter(struct rt_tpl_env *e) {
    if (++e->depth > e->max_depth)
        rt_tpl_fail(e, "nested more than %d deep", e->max_depth);
}

void rt_tpl_leave(struct rt_tpl_env *e) {
    e->depth--;
}

struct rt_tpl_str rt_tpl_buf_str(const struct rt_tpl_buf *b) {
    return (struct rt_tpl_str){b->p ? b->p : "", b->n};
}

void rt_tpl_put(struct rt_tpl_env *e, struct rt_tpl_buf *b, const char *p, size_t n) {
    if (n == 0)
        return;
    if (n > RT_TPL_MAX_OUTPUT - b->n)
        rt_tpl_fail(e, "makes a text of more than %u MiB", RT_TPL_MAX_OUTPUT >> 20);
    if (b->cap - b->n < n) {
        size_t cap = b->cap ? b->cap * 2 : 128;
        while (cap < b->n + n)
            cap *= 2;
        char *fresh = rt_tpl_alloc(e, cap);
        if (b->n)
            memcpy(fresh, b->p, b->n);
        b->p = fresh;
        b->cap = cap;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
    rt_tpl_charge(e, n / 32);
}

void rt_tpl_puts(struct rt_tpl_env *e, struct rt_tpl_buf *b, const char *s) {
    rt_tpl_put(e, b, s, strlen(s));
}

void rt_tpl_putc(struct rt_tpl_env *e, struct rt_tpl_buf *b, char c) {
    rt_tpl_put(e, b, &c, 1);
}

void rt_tpl_put_code(struct rt_tpl_env *e, struct rt_tpl_buf *b, uint32_t c) {
    char u[4];
    size_t n;
    if (c < 0x80) {
        u[0] = (char)c;
        n = 1;
    } else if (c < 0x800) {
        u[0] = (char)(0xc0 | c >> 6);
        u[1] = (char)(0x80 | (c & 0x3f));
        n = 2;
    } else if (c < 0x10000) {
        u[0] = (char)(0xe0 | c >> 12);
        u[1] = (char)(0x80 | (c >> 6 & 0x3f));
        u[2] = (char)(0x80 | (c & 0x3f));
        n = 3;
    } else {
        u[0] = (char)(0xf0 | c >> 18);
        u[1] = (char)(0x80 | (c >> 12 & 0x3f));
        u[2] = (char)(0x80 | (c >> 6 & 0x3f));
        u[3] = (char)(0x80 | (c & 0x3f));
        n = 4;
    }
    rt_tpl_put(e, b, u, n);
}

void rt_tpl_printf(struct rt_tpl_env *e, struct rt_tpl_buf *b, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n > 0)
        rt_tpl_put(e, b, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

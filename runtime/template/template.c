/* The public functions: each sets up an arena and a place to jump to on errors. */
#include "template.h"
#include "tpl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rt_template {
    struct rt_tpl_chunk *chunks; /* own all nodes */
    const struct rt_tpl_node *body;
};

/* Functions that call setjmp keep nothing in locals: what they need after a jump is the caller's.
 */
static bool parse_guarded(struct rt_tpl_env *e, rt_template *t, struct rt_tpl_str source) {
    if (setjmp(e->jump))
        return false;
    if (!t)
        rt_tpl_fail(e, "out of memory");
    if (source.n > RT_TPL_MAX_SOURCE)
        rt_tpl_fail(e, "has %zu bytes, more than the limit of %u", source.n, RT_TPL_MAX_SOURCE);
    t->body = rt_tpl_parse(e, source);
    t->chunks = e->chunks;
    return true;
}

rt_template *rt_template_parse(const char *source, size_t n, char *err, size_t err_cap) {
    struct rt_tpl_env e = {
        .line = 1, .max_depth = RT_TPL_MAX_PARSE_DEPTH, .err = err, .err_cap = err_cap};
    rt_template *t = calloc(1, sizeof *t);
    if (err_cap)
        err[0] = 0;
    if (parse_guarded(&e, t, (struct rt_tpl_str){source, n}))
        return t;
    rt_tpl_free_chunks(e.chunks);
    free(t);
    return NULL;
}

/* The variables of a render: the context's members, without the time. */
static void read_context(struct rt_tpl_env *e, const cJSON *context) {
    e->line = 0;
    if (!cJSON_IsObject(context))
        rt_tpl_fail(e, "the context is not a JSON object");
    struct rt_tpl_value v = rt_tpl_from_json(e, context);
    struct rt_tpl_value *given = rt_tpl_dict_get_str(e, v.u.dict, RT_TPL_S("strftime_now"));
    e->context = v.u.dict;
    if (given && rt_tpl_is_number(*given)) {
        double *now = rt_tpl_alloc(e, sizeof *now);
        *now = rt_tpl_number(*given);
        e->now = now;
        /* The variable is the function, as for templates that got no time. */
        given->kind = RT_TPL_GLOBAL;
        given->u.global = rt_tpl_find_global(RT_TPL_S("strftime_now"));
    }
    e->line = 1;
}

static bool render_guarded(struct rt_tpl_env *e, const rt_template *t, const cJSON *context) {
    if (setjmp(e->jump))
        return false;
    e->out = rt_tpl_calloc(e, 1, sizeof *e->out);
    read_context(e, context);
    e->scope = rt_tpl_scope_new(e, NULL);
    rt_tpl_exec(e, t->body);
    return true;
}

char *rt_template_render(const rt_template *t, const cJSON *context, size_t *len, char *err,
                         size_t err_cap) {
    struct rt_tpl_env e = {
        .line = 1, .max_depth = RT_TPL_MAX_DEPTH, .err = err, .err_cap = err_cap};
    char *text = NULL;
    if (err_cap)
        err[0] = 0;
    if (len)
        *len = 0;
    if (render_guarded(&e, t, context)) {
        text = malloc(e.out->n + 1);
        if (!text && err_cap)
            snprintf(err, err_cap, "chat template: out of memory");
    }
    if (text) {
        if (e.out->n)
            memcpy(text, e.out->p, e.out->n);
        text[e.out->n] = 0;
        if (len)
            *len = e.out->n;
    }
    rt_tpl_free_chunks(e.chunks);
    return text;
}

void rt_template_free(rt_template *t) {
    if (!t)
        return;
    rt_tpl_free_chunks(t->chunks);
    free(t);
}

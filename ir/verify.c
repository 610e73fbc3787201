/* The verifier: see verify.h. One walk in the order of the ops; what it knows about values is in
 * arrays by id. */
#include "ir/verify.h"
#include "ir/text.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 };

struct verifier {
    const ir_module *module;
    ir_diag *diag;
    const ir_value **values; /* by id, once seen */
    int *appends;            /* by id: how often a kv value is appended to */
    const ir_op **readers;   /* by id: an op that reads a kv value, or NULL */
    int *kv_group;           /* by id: 1 + the group a kv value belongs to, 0 where unknown */
    const ir_op **caches;    /* the kv_cache ops */
    int n_caches, caches_capacity;
    const ir_op **outputs;
    int n_outputs, outputs_capacity;
    ir_arena *scratch;
};

static bool verify_graph(struct verifier *v, const ir_graph *graph, int depth);

static const char *type_text(struct verifier *v, const ir_type *type) {
    return ir_type_text(v->scratch, type);
}

static void push(struct verifier *v, const ir_op ***list, int *count, int *capacity,
                 const ir_op *op) {
    if (*count == *capacity) {
        int grown = *capacity ? *capacity * 2 : 64;
        const ir_op **items = ir_arena_array(v->scratch, (size_t)grown, sizeof *items);
        if (*count)
            memcpy(items, *list, (size_t)*count * sizeof *items);
        *list = items;
        *capacity = grown;
    }
    (*list)[(*count)++] = op;
}

/* --- values ------------------------------------------------------------------------------------
 */

/* Enters a result or argument; `where` labels it. */
static bool verify_definition(struct verifier *v, const ir_value *value, const ir_graph *graph,
                              const ir_op *def, int index, const char *where) {
    if (!value)
        return ir_error(v->diag, where, "value %d is missing", index);
    if (value->id < 0 || value->id >= v->module->n_values)
        return ir_error(v->diag, where, "value id %d is out of range (module has %d)", value->id,
                        v->module->n_values);
    bool ok = true;
    if (value->def != def || value->owner != graph || value->index != index)
        ok = ir_error(v->diag, where, "value %%%d does not point back to where it is defined",
                      value->id);
    if (v->values[value->id])
        ok = ir_error(v->diag, where, "value id %d is used twice", value->id);
    v->values[value->id] = value;
    return ir_type_check(&value->type, where, v->diag) && ok;
}

static bool verify_operands(struct verifier *v, const ir_op *op) {
    bool ok = true;
    for (int i = 0; i < op->n_operands; i++) {
        const ir_value *value = op->operands[i];
        if (value->id < 0 || value->id >= v->module->n_values || v->values[value->id] != value)
            ok = ir_error(v->diag, ir_op_label(op),
                          "operand %d (%%%d) is used before its definition", i, value->id);
        else if (value->owner != op->owner)
            ok = ir_error(v->diag, ir_op_label(op),
                          "operand %d (%%%d) is defined outside of this body", i, value->id);
    }
    return ok;
}

/* Infers the result types again, on a copy of the op, and compares. */
static bool verify_types(struct verifier *v, const ir_op *op) {
    ir_op copy = *op;
    ir_value *results = ir_arena_array(v->scratch, (size_t)op->n_results, sizeof *results);
    copy.results = ir_arena_array(v->scratch, (size_t)op->n_results, sizeof *copy.results);
    for (int i = 0; i < op->n_results; i++) {
        results[i] = *op->results[i];
        copy.results[i] = &results[i];
    }
    if (!ir_op_info_get(op->code)->infer(&copy, v->diag))
        return false;
    bool ok = true;
    for (int i = 0; i < op->n_results; i++)
        if (!ir_type_equal(&results[i].type, &op->results[i]->type))
            ok =
                ir_error(v->diag, ir_op_label(op), "result %d has type %s, but operands make it %s",
                         i, type_text(v, &op->results[i]->type), type_text(v, &results[i].type));
    return ok;
}

/* --- weights and kv ----------------------------------------------------------------------------
 */

static bool verify_weight(struct verifier *v, const ir_op *op) {
    const char *name = ir_op_string(op, "name");
    const ir_weight *weight = ir_module_weight(v->module, name);
    if (!weight)
        return ir_error(v->diag, ir_op_label(op), "the module has no weight \"%s\"", name);
    return ir_type_equal(&weight->type, &op->results[0]->type) ||
           ir_error(v->diag, ir_op_label(op), "weight \"%s\" has type %s, expected %s", name,
                    type_text(v, &op->results[0]->type), type_text(v, &weight->type));
}

static bool verify_cache(struct verifier *v, const ir_op *op) {
    int64_t group = ir_op_int(op, "group"), layer = ir_op_int(op, "layer");
    if (group >= v->module->n_kv_groups)
        return ir_error(v->diag, ir_op_label(op), "the module has no kv group %lld",
                        (long long)group);
    if (layer >= v->module->kv_groups[group].layers)
        return ir_error(v->diag, ir_op_label(op), "kv group %lld has %lld layers, found layer %lld",
                        (long long)group, (long long)v->module->kv_groups[group].layers,
                        (long long)layer);
    push(v, &v->caches, &v->n_caches, &v->caches_capacity, op);
    v->kv_group[op->results[0]->id] = (int)group + 1;
    return true;
}

static bool verify_append(struct verifier *v, const ir_op *op) {
    int group = v->kv_group[op->operands[0]->id];
    const ir_type *k = &op->operands[1]->type;
    v->appends[op->operands[0]->id]++;
    v->kv_group[op->results[0]->id] = group;
    if (!group)
        return true;
    const ir_kv_group *g = &v->module->kv_groups[group - 1];
    return (k->dims[1].c == g->heads && k->dims[2].c == g->head_dim) ||
           ir_error(v->diag, ir_op_label(op), "appends %s to kv group %d of %lld heads of %lld",
                    type_text(v, k), group - 1, (long long)g->heads, (long long)g->head_dim);
}

static bool verify_paged_attention(struct verifier *v, const ir_op *op) {
    int group = v->kv_group[op->operands[1]->id];
    const ir_type *q = &op->operands[0]->type;
    if (!group)
        return true;
    const ir_kv_group *g = &v->module->kv_groups[group - 1];
    int64_t window = ir_op_int(op, "window");
    bool ok = true;
    if (q->dims[2].c != g->head_dim || g->heads < 1 || q->dims[1].c % g->heads)
        ok = ir_error(v->diag, ir_op_label(op),
                      "queries %s do not fit kv group %d of %lld heads of %lld", type_text(v, q),
                      group - 1, (long long)g->heads, (long long)g->head_dim);
    if (g->window && (!window || window > g->window))
        ok = ir_error(v->diag, ir_op_label(op),
                      "window %lld reaches behind the window %lld of kv group %d, where pages are "
                      "freed",
                      (long long)window, (long long)g->window, group - 1);
    return ok;
}

static int compare_caches(const void *a, const void *b) {
    const ir_op *x = *(const ir_op *const *)a, *y = *(const ir_op *const *)b;
    int64_t dx = ir_op_int(x, "group"), dy = ir_op_int(y, "group");
    if (dx == dy) {
        dx = ir_op_int(x, "layer");
        dy = ir_op_int(y, "layer");
    }
    return dx < dy ? -1 : dx > dy;
}

/* Several kv_cache ops of one layer are one value: together they may be appended to once, and not
 * be read then (what is wrong within one of them is reported where the value is). */
static bool verify_caches(struct verifier *v) {
    bool ok = true;
    if (v->n_caches)
        qsort(v->caches, (size_t)v->n_caches, sizeof *v->caches, compare_caches);
    const ir_op *appended = NULL, *reader = NULL; /* the layer's: its kv_cache op, who reads it */
    for (int i = 0; i < v->n_caches; i++) {
        const ir_op *op = v->caches[i];
        int id = op->results[0]->id;
        if (i && compare_caches(&v->caches[i - 1], &v->caches[i]))
            appended = reader = NULL;
        if (v->appends[id] && appended)
            ok = ir_error(v->diag, ir_op_label(op),
                          "layer %lld of kv group %lld is appended to through two kv_cache ops",
                          (long long)ir_op_int(op, "layer"), (long long)ir_op_int(op, "group"));
        else if (v->appends[id] ? reader != NULL : appended && v->readers[id])
            ok = ir_error(v->diag, ir_op_label(reader ? reader : v->readers[id]),
                          "layer %lld of kv group %lld is read here and appended to through "
                          "another kv_cache op: nothing orders the two",
                          (long long)ir_op_int(op, "layer"), (long long)ir_op_int(op, "group"));
        appended = v->appends[id] ? op : appended;
        reader = v->readers[id] ? v->readers[id] : reader;
    }
    return ok;
}

static int compare_outputs(const void *a, const void *b) {
    return strcmp(ir_op_string(*(const ir_op *const *)a, "name"),
                  ir_op_string(*(const ir_op *const *)b, "name"));
}

static bool verify_outputs(struct verifier *v) {
    bool ok = true;
    if (v->n_outputs)
        qsort(v->outputs, (size_t)v->n_outputs, sizeof *v->outputs, compare_outputs);
    for (int i = 1; i < v->n_outputs; i++)
        if (!compare_outputs(&v->outputs[i - 1], &v->outputs[i]))
            ok = ir_error(v->diag, ir_op_label(v->outputs[i]), "output \"%s\" is given twice",
                          ir_op_string(v->outputs[i], "name"));
    return ok;
}

/* --- kv values in order ------------------------------------------------------------------------
 */

/* The cache is changed in place. So what reads a kv value must not also depend on when it is
 * appended to, which data flow does not say: it reads what the append returns. */
static bool verify_kv_value(struct verifier *v, const ir_value *value, const char *where) {
    if (v->appends[value->id] > 1)
        return ir_error(v->diag, where, "kv value %%%d is appended to more than once", value->id);
    const ir_op *reader = v->readers[value->id];
    return !v->appends[value->id] || !reader ||
           ir_error(v->diag, ir_op_label(reader),
                    "kv value %%%d is read here and also appended to: nothing orders the two; read "
                    "what kv_append returns",
                    value->id);
}

/* The values that a graph defines. A cache that a body only passes on would have two names. */
static bool verify_kv_values(struct verifier *v, const ir_graph *graph) {
    bool ok = true;
    for (int i = 0; i < graph->n_args; i++)
        ok = verify_kv_value(v, graph->args[i],
                             graph->parent ? ir_op_label(graph->parent) : v->module->name) &&
             ok;
    for (const ir_op *op = graph->first; op; op = op->next) {
        for (int i = 0; i < op->n_results; i++) {
            ok = verify_kv_value(v, op->results[i], ir_op_label(op)) && ok;
            if (op->body && op->results[i]->type.kind == IR_KV && !op->body->last->operands[i]->def)
                ok =
                    ir_error(v->diag, ir_op_label(op), "result %d is the kv value it was given", i);
        }
    }
    return ok;
}

/* --- ops and graphs ----------------------------------------------------------------------------
 */

static bool verify_body(struct verifier *v, const ir_op *op, int depth) {
    const ir_graph *body = op->body;
    if (body->parent != op || body->module != v->module)
        return ir_error(v->diag, ir_op_label(op), "the body does not point back to its op");
    if (depth == MAX_DEPTH)
        return ir_error(v->diag, ir_op_label(op), "more than %d bodies inside each other",
                        MAX_DEPTH);
    bool ok = true;
    for (int i = 0; i < body->n_args; i++) {
        ok = verify_definition(v, body->args[i], body, NULL, i, ir_op_label(op)) && ok;
        if (ok && i < op->n_operands)
            v->kv_group[body->args[i]->id] = v->kv_group[op->operands[i]->id];
    }
    if (!ok || !verify_graph(v, body, depth + 1))
        return false;
    for (int i = 0; i < body->n_args && i < op->n_operands; i++) {
        v->appends[op->operands[i]->id] += v->appends[body->args[i]->id] > 0;
        if (v->readers[body->args[i]->id])
            v->readers[op->operands[i]->id] = v->readers[body->args[i]->id];
    }
    return true;
}

/* A kernel's kv results belong to the group of what its body yields. */
static void pass_kv_groups_out(struct verifier *v, const ir_op *op) {
    const ir_op *yield = op->body->last;
    for (int i = 0; i < op->n_results && i < yield->n_operands; i++)
        v->kv_group[op->results[i]->id] = v->kv_group[yield->operands[i]->id];
}

static bool verify_op(struct verifier *v, const ir_op *op, int depth) {
    if (!ir_op_check(op, v->diag))
        return false;
    bool ok = verify_operands(v, op);
    if (op->code == IR_OP_YIELD && (depth == 0 || op->next))
        ok = ir_error(v->diag, ir_op_label(op), "yield ends a body, and stands nowhere else");
    if (op->code == IR_OP_OUTPUT && depth > 0)
        ok = ir_error(v->diag, ir_op_label(op), "an output cannot stand in a body");
    if (op->body && ok)
        ok = verify_body(v, op, depth);
    for (int i = 0; i < op->n_results; i++)
        ok = verify_definition(v, op->results[i], op->owner, op, i, ir_op_label(op)) && ok;
    if (!ok || !verify_types(v, op))
        return false;
    for (int i = 0; i < op->n_operands; i++)
        if (op->operands[i]->type.kind == IR_KV && op->code != IR_OP_KV_APPEND &&
            op->code != IR_OP_YIELD && !op->body)
            v->readers[op->operands[i]->id] = op;
    switch (op->code) {
    case IR_OP_WEIGHT:
        return verify_weight(v, op);
    case IR_OP_KV_CACHE:
        return verify_cache(v, op);
    case IR_OP_KV_APPEND:
        return verify_append(v, op);
    case IR_OP_PAGED_ATTENTION:
        return verify_paged_attention(v, op);
    case IR_OP_OUTPUT:
        push(v, &v->outputs, &v->n_outputs, &v->outputs_capacity, op);
        return true;
    case IR_OP_KERNEL:
        pass_kv_groups_out(v, op);
        return true;
    default:
        return true;
    }
}

/* Whether the list of ops is linked consistently. An op whose successor points back to it has one
 * predecessor only, so a list that passes has no cycle. */
static bool verify_links(struct verifier *v, const ir_graph *graph) {
    const char *where = graph->parent ? ir_op_label(graph->parent) : v->module->name;
    if (!graph->first != !graph->last || (graph->first && graph->first->prev))
        return ir_error(v->diag, where, "the list of ops has no proper beginning or end");
    for (const ir_op *op = graph->first; op; op = op->next) {
        if (op->owner != graph)
            return ir_error(v->diag, where, "an op in the list belongs to another graph");
        if (op->next ? op->next->prev != op : graph->last != op)
            return ir_error(v->diag, ir_op_label(op),
                            "the op's neighbours do not point back to it");
    }
    return true;
}

static bool verify_graph(struct verifier *v, const ir_graph *graph, int depth) {
    if (!verify_links(v, graph))
        return false;
    bool ok = true;
    for (const ir_op *op = graph->first; op; op = op->next)
        ok = verify_op(v, op, depth) && ok;
    return ok && verify_kv_values(v, graph);
}

static bool verify_kv_groups(struct verifier *v) {
    bool ok = true;
    for (int i = 0; i < v->module->n_kv_groups; i++) {
        const ir_kv_group *g = &v->module->kv_groups[i];
        if (g->window < 0 || g->layers < 1 || g->heads < 1 || g->head_dim < 1 ||
            g->page_tokens < 1 || !ir_kv_dtype_ok(g->dtype))
            ok = ir_error(v->diag, v->module->name, "kv group %d is malformed", i);
    }
    return ok;
}

bool ir_verify(const ir_module *module, ir_diag *diag) {
    struct verifier v = {.module = module, .diag = diag, .scratch = ir_arena_create()};
    if (!v.scratch)
        return ir_error(diag, module->name, "out of memory");
    size_t n = module->n_values > 0 ? (size_t)module->n_values : 0;
    v.values = ir_arena_array(v.scratch, n, sizeof *v.values);
    v.appends = ir_arena_array(v.scratch, n, sizeof *v.appends);
    v.readers = ir_arena_array(v.scratch, n, sizeof *v.readers);
    v.kv_group = ir_arena_array(v.scratch, n, sizeof *v.kv_group);
    bool ok = verify_kv_groups(&v);
    if (module->graph->n_args || module->graph->parent || module->graph->module != module)
        ok = ir_error(diag, module->name, "the module's graph has arguments or a parent");
    ok = verify_graph(&v, module->graph, 0) && ok;
    ok = ok && verify_caches(&v) && verify_outputs(&v);
    ir_arena_destroy(v.scratch);
    return ok;
}

/* Gives each buffer between kernels its place in the activation arena, reusing places whose values
 * are no longer needed.
 *
 *   kernel … : f32[T, 576]    ->    kernel … {buffers = [0, 0, 0, 0]}
 *
 * A place is affine in T, S, R: `buffers` has four numbers (c, t, s, r) a result, and the last
 * kernel's `arena` the same for the whole arena. Values of one symbol share one class: the arena is
 * the T class, then R, then S, then constants, each first fit by its own coefficient, so places
 * never overlap for any T, S, R. (Offsets by greedy first fit in order of definition.) */
#include "passes/pass.h"

#include <string.h>

enum { N_CLASSES = 4 }; /* t, r, s, c */

typedef struct place {
    const ir_value *value;
    int cls;
    int64_t offset, size; /* of the class's coefficient */
    int first, last;      /* kernels, by number */
} place;

static int64_t *coefficient(ir_dim *d, int cls) {
    return cls == 0 ? &d->t : cls == 1 ? &d->r : cls == 2 ? &d->s : &d->c;
}

static int64_t align_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* The class and coefficient that cover a size: a mixed one (2T + 1) is not planned. */
static bool classify(ir_dim bytes, int64_t align, place *p) {
    int found = 0;
    for (int cls = 0; cls < N_CLASSES; cls++)
        if (*coefficient(&bytes, cls)) {
            p->cls = cls;
            p->size = align_up(*coefficient(&bytes, cls), align);
            found++;
        }
    return found == 1;
}

/* First fit among the places of the class that are alive together with p. */
static void put(place *places, int n, place *p) {
    p->offset = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int i = 0; i < n; i++) {
            const place *q = &places[i];
            if (q->cls != p->cls || q->last < p->first || p->last < q->first)
                continue;
            if (q->offset < p->offset + p->size && p->offset < q->offset + q->size) {
                p->offset = q->offset + q->size;
                moved = 1;
            }
        }
    }
}

/* The value whose buffer a value lives in: itself, or what it is a view of. */
static const ir_value *root(const ir_value *v) {
    while (v->def && (ir_op_info_get(v->def->code)->traits & IR_TRAIT_VIEW))
        v = v->def->operands[0];
    return v;
}

static ir_dim arena_dim(const int64_t *sizes, int cls, int64_t offset) {
    ir_dim d = {0};
    for (int i = 0; i < cls; i++)
        *coefficient(&d, i) = sizes[i];
    *coefficient(&d, cls) += offset;
    return d;
}

static void set_dims(ir_op *op, const char *name, const ir_dim *dims, int n, ir_arena *scratch) {
    int64_t *numbers = ir_arena_array(scratch, 4 * (size_t)n, sizeof *numbers);
    for (int i = 0; i < n; i++) {
        numbers[4 * i] = dims[i].c;
        numbers[4 * i + 1] = dims[i].t;
        numbers[4 * i + 2] = dims[i].s;
        numbers[4 * i + 3] = dims[i].r;
    }
    ir_op_set_attr(op, &IR_INT_LIST(name, numbers, 4 * n));
}

bool pass_memory_plan(pass_context *context) {
    ir_graph *graph = context->module->graph;
    ir_arena *scratch = ir_arena_create();
    size_t n_values = (size_t)context->module->n_values;
    int *last_use = ir_arena_array(scratch, n_values, sizeof *last_use);
    int n_kernels = 0, n_results = 0;
    ir_op *last_kernel = NULL;
    for (ir_op *op = graph->first; op; op = op->next) {
        for (int i = 0; i < op->n_operands; i++)
            last_use[root(op->operands[i])->id] = op->code == IR_OP_OUTPUT ? INT32_MAX : n_kernels;
        if (op->code == IR_OP_KERNEL) {
            n_kernels++;
            n_results += op->n_results;
            last_kernel = op;
        }
    }
    place *places = ir_arena_array(scratch, (size_t)n_results + 1, sizeof *places);
    int n = 0, k = 0;
    int64_t sizes[N_CLASSES] = {0};
    bool ok = true;
    for (ir_op *op = graph->first; op && ok; op = op->next) {
        if (op->code != IR_OP_KERNEL)
            continue;
        for (int i = 0; i < op->n_results && ok; i++) {
            const ir_value *v = op->results[i];
            if (v->type.kind == IR_KV)
                continue;
            place p = {.value = v, .first = k, .last = last_use[v->id]};
            if (p.last < k)
                p.last = k;
            ok = classify(ir_type_bytes(&v->type), context->target->buffer_align, &p);
            if (!ok) {
                ir_error(context->diag, ir_op_label(op),
                         "result %d has a size that is not a multiple of T, S or R", i);
                break;
            }
            put(places, n, &p);
            places[n++] = p;
            if (p.offset + p.size > sizes[p.cls])
                sizes[p.cls] = p.offset + p.size;
        }
        k++;
    }
    n = 0;
    for (ir_op *op = graph->first; op && ok; op = op->next) {
        if (op->code != IR_OP_KERNEL)
            continue;
        ir_dim *dims = ir_arena_array(scratch, (size_t)op->n_results, sizeof *dims);
        for (int i = 0; i < op->n_results; i++)
            if (op->results[i]->type.kind != IR_KV) {
                dims[i] = arena_dim(sizes, places[n].cls, places[n].offset);
                n++;
            }
        set_dims(op, "buffers", dims, op->n_results, scratch);
    }
    if (ok && last_kernel) {
        ir_dim whole = {.t = sizes[0], .r = sizes[1], .s = sizes[2], .c = sizes[3]};
        set_dims(last_kernel, "arena", &whole, 1, scratch);
    }
    ir_arena_destroy(scratch);
    return ok;
}

/* From a KERNEL op's body to a cg_kernel: this file and lower_nodes.c are the one place in codegen
 * that knows op names.
 *
 *   %q = kernel(%x, %w) {anchor = "rows"} {            rows program, 1 head of 576 columns
 *     args(%a : f32[T, 576], %b : f32[576])              n0 = load a[row][col]
 *     %n = rms_norm(%a, %b) {eps = 1e-05}        ->      n1 = mul n0 n0; n2 = reduce_sum n1; …
 *     %z = quantize(%n) : a8[T, 576]                     store_a8 n9
 *     yield(%z)
 *   }
 *
 * Programs are built backwards from what the kernel stores, and a matmul's prologue from its x:
 * each such value asks for its operands. Views (reshape, slice) never compute; they change how an
 * argument is addressed. */
#include "codegen/lower.h"

#include <stdlib.h>
#include <string.h>

int cg_lower_fail(cg_lowering *l, const ir_op *op, const char *reason) {
    ir_error(l->diag, ir_op_label(op), "no schedule covers %s in kernel %s: %s",
             ir_op_info_get(op->code)->name, ir_op_label(l->kernel), reason);
    l->failed = true;
    return -1;
}

/* A value's natural cut: [rows, …, width]. */
static cg_lower_domain domain_of(const ir_type *type) {
    cg_lower_domain d = {.rows = type->dims[0],
                         .width = type->rank > 1 ? cg_lower_last_dim(type) : 1};
    d.heads = cg_lower_row_size(type) / (d.width ? d.width : 1);
    return d;
}

/* --- arguments
 * ------------------------------------------------------------------------------------- */

static int arg_index(const cg_lowering *l, const ir_value *value) {
    const ir_graph *body = l->kernel->body;
    return value->def == NULL && value->owner == body ? value->index : -1;
}

/* Follows views to the value they start from, an argument or what an op computes. *offset becomes
 * the first column, in elements of that value's row. NULL where what is on the way does not leave a
 * row's columns contiguous. */
static const ir_value *follow_views(const ir_value *value, int64_t *offset) {
    *offset = 0;
    while (value->def) {
        const ir_op *op = value->def;
        if (op->code == IR_OP_SLICE) {
            const ir_type *from = &op->operands[0]->type;
            int64_t axis = ir_op_int(op, "axis");
            if (axis == 0 && cg_lower_has_rows(from))
                return NULL;
            *offset += ir_op_int(op, "start") * cg_lower_inner_size(from, (int)axis + 1);
            /* Only a slice of the outermost column axis leaves a row's columns contiguous. */
            for (int i = cg_lower_has_rows(from) ? 1 : 0; i < axis; i++)
                if (from->dims[i].c != 1)
                    return NULL;
        } else if (op->code == IR_OP_RESHAPE) {
            const ir_type *from = &op->operands[0]->type, *to = &value->type;
            if (cg_lower_has_rows(from) != cg_lower_has_rows(to) ||
                (cg_lower_has_rows(from) && !ir_dim_equal(from->dims[0], to->dims[0])))
                return NULL;
        } else {
            break;
        }
        value = op->operands[0];
    }
    return value;
}

bool cg_lower_as_argument(const cg_lowering *l, const ir_value *value, int *arg, int64_t *offset) {
    const ir_value *source = follow_views(value, offset);
    *arg = source && !source->def ? arg_index(l, source) : -1;
    return *arg >= 0;
}

bool cg_lower_as_columns(const cg_lowering *l, const ir_value *value, int64_t *column) {
    const ir_value *source = follow_views(value, column);
    return source && source->def && source->def == l->anchor;
}

/* --- stores
 * ------------------------------------------------------------------------------------------ */

/* The first column of the anchor's result that a value is computed from, -1 for none. */
static int64_t first_column(const cg_lowering *l, const ir_value *value) {
    int64_t column;
    if (cg_lower_as_columns(l, value, &column))
        return column;
    for (int i = 0; value->def && i < value->def->n_operands; i++)
        if ((column = first_column(l, value->def->operands[i])) >= 0)
            return column;
    return -1;
}

/* The program in which `value` is computed, whose cut is d. */
static cg_lower_program *program_for(cg_lowering *l, const cg_lower_domain *d,
                                     const ir_value *value) {
    int64_t column = l->by_heads ? first_column(l, value) : 0;
    if (column < 0) {
        cg_lower_fail(l, l->kernel, "a result is not made of the anchor's columns");
        return NULL;
    }
    for (int i = 0; i < l->n_programs; i++) {
        const cg_lower_domain *e = &l->programs[i]->domain;
        if (ir_dim_equal(e->rows, d->rows) && e->heads == d->heads && e->width == d->width &&
            l->programs[i]->input_column == column)
            return l->programs[i];
    }
    if (l->anchor && l->n_programs && !l->by_heads) {
        cg_lower_fail(l, l->kernel, "an epilogue has one shape, its results have several");
        return NULL;
    }
    if (l->n_programs == CG_LOWER_MAX_PROGRAMS) {
        cg_lower_fail(l, l->kernel, "too many results of different shapes");
        return NULL;
    }
    cg_lower_program *b = ir_arena_alloc(l->arena, sizeof *b);
    b->domain = *d;
    b->input_column = column;
    return l->programs[l->n_programs++] = b;
}

static void add_store(cg_lowering *l, cg_lower_program *b, const cg_store *store) {
    if (b->n_stores == CG_LOWER_MAX_STORES)
        cg_lower_fail(l, l->kernel, "too many results");
    else
        b->stores[b->n_stores++] = *store;
}

/* The domain a value is computed in: the anchor's where there is one, else the cut that the ops it
 * comes from need: the one of the nearest norm, rope or softmax, through reshapes. */
static cg_lower_domain store_domain(const cg_lowering *l, const ir_value *value) {
    if (l->anchor && l->anchor->code == IR_OP_PAGED_ATTENTION)
        return domain_of(&l->anchor->results[0]->type);
    if (l->anchor && !l->by_heads)
        return (cg_lower_domain){.rows = value->type.dims[0],
                                 .heads = 1,
                                 .width =
                                     l->anchor->results[0]->type.dims[1].c / l->out->matmul.parts};
    const ir_value *v = value;
    while (v->def) {
        unsigned traits = ir_op_info_get(v->def->code)->traits;
        if (v->def->code == IR_OP_RESHAPE || v->def->code == IR_OP_QUANTIZE ||
            ((traits & IR_TRAIT_ELEMENTWISE) &&
             cg_lower_row_size(&v->def->operands[0]->type) == cg_lower_row_size(&v->type)))
            v = v->def->operands[0];
        else
            break;
    }
    bool is_axis_op =
        v->def && (v->def->code == IR_OP_RMS_NORM || v->def->code == IR_OP_LAYER_NORM ||
                   v->def->code == IR_OP_ROPE || v->def->code == IR_OP_SOFTMAX);
    if (is_axis_op && cg_lower_has_rows(&v->type))
        return domain_of(&v->type);
    cg_lower_domain d = domain_of(&value->type);
    if (d.heads > 1 && value->type.rank == 3)
        return d;
    return (cg_lower_domain){.rows = d.rows, .heads = 1, .width = d.heads * d.width};
}

/* Stores `value` as columns `column` … of the result argument `arg`, whose row has `stride`. */
static void store_value(cg_lowering *l, const ir_value *value, int arg, int64_t column,
                        int64_t stride) {
    const ir_op *def = value->def;
    if (def && def->code == IR_OP_CONCAT && ir_op_int(def, "axis") > 0 && !l->anchor) {
        for (int i = 0; i < def->n_operands; i++) {
            store_value(l, def->operands[i], arg, column, stride);
            column += cg_lower_row_size(&def->operands[i]->type);
        }
        return;
    }
    if (def && def->code == IR_OP_RESHAPE && def->operands[0]->def &&
        def->operands[0]->def->code == IR_OP_CONCAT) {
        store_value(l, def->operands[0], arg, column, stride);
        return;
    }
    if (!cg_lower_has_rows(&value->type)) {
        cg_lower_fail(l, l->kernel, "a result has no rows (its first dim is constant)");
        return;
    }
    bool quantized = def && def->code == IR_OP_QUANTIZE;
    cg_lower_domain d = store_domain(l, value);
    if (quantized && d.width % 32) {
        cg_lower_fail(l, def, "its groups of 32 would cross the kernel's rows");
        return;
    }
    cg_lower_program *b = program_for(l, &d, value);
    if (!b)
        return;
    /* A cast to a narrower type is what storing does. */
    bool narrow = def && def->code == IR_OP_CAST &&
                  (value->type.dtype == IR_F16 || value->type.dtype == IR_BF16);
    int node = cg_lower_value(l, b, quantized || narrow ? def->operands[0] : value);
    if (node < 0)
        return;
    if (cg_lower_row_size(&value->type) != d.heads * d.width) {
        cg_lower_fail(l, def ? def : l->kernel,
                      "its result has other columns than the kernel's anchor");
        return;
    }
    add_store(l, b,
              &(cg_store){.kind = quantized ? CG_STORE_A8 : CG_STORE,
                          .value = node,
                          .value2 = -1,
                          .access = {.arg = arg,
                                     .row_map = CG_ROW_SELF,
                                     .index_arg = -1,
                                     .row_stride = stride,
                                     .head_stride = d.heads > 1 ? d.width : 0,
                                     .offset = column,
                                     .column_stride = 1}});
}

/* K and V are different columns of a matmul's result: a program each. */
static void store_kv_by_heads(cg_lowering *l, const ir_op *append, int kv) {
    for (int i = 0; i < 2 && !l->failed; i++) {
        const ir_value *value = append->operands[1 + i];
        cg_lower_domain d = domain_of(&value->type);
        cg_lower_program *b = program_for(l, &d, value);
        int node = b ? cg_lower_value(l, b, value) : -1;
        if (node >= 0)
            add_store(l, b,
                      &(cg_store){.kind = i == 0 ? CG_STORE_K : CG_STORE_V,
                                  .value = node,
                                  .value2 = -1,
                                  .access = {.arg = kv, .row_map = CG_ROW_SELF, .index_arg = -1}});
    }
}

static void store_kv(cg_lowering *l, const ir_op *append) {
    if (l->anchor && !l->by_heads) {
        cg_lower_fail(l, append,
                      "the cache is appended to row by row, in a kernel without another anchor");
        return;
    }
    int kv = arg_index(l, append->operands[0]);
    if (kv < 0) {
        cg_lower_fail(l, append, "the cache must be the kernel's argument");
        return;
    }
    if (l->by_heads && ir_kv_quantized(l->out->args[kv].kv.dtype)) {
        cg_lower_fail(l, append, "quantized pages are not appended to in a matmul's kernel");
        return;
    }
    if (l->by_heads) {
        store_kv_by_heads(l, append, kv);
        return;
    }
    cg_lower_domain d = domain_of(&append->operands[1]->type);
    cg_lower_program *b = program_for(l, &d, append->operands[1]);
    if (!b)
        return;
    int k = cg_lower_value(l, b, append->operands[1]),
        v = cg_lower_value(l, b, append->operands[2]);
    cg_access access = {.arg = kv, .row_map = CG_ROW_SELF, .index_arg = -1};
    ir_dtype dtype = l->out->args[kv].kv.dtype;
    if (ir_kv_quantized(dtype)) {
        int k_scale = cg_lower_kv_scale(l, b, dtype, k),
            v_scale = cg_lower_kv_scale(l, b, dtype, v);
        k = cg_lower_kv_scaled(l, b, k, k_scale);
        v = cg_lower_kv_scaled(l, b, v, v_scale);
        if (k < 0 || v < 0)
            return;
        add_store(
            l, b,
            &(cg_store){
                .kind = CG_STORE_KV_SCALE, .value = k_scale, .value2 = v_scale, .access = access});
    }
    if (k < 0 || v < 0)
        return;
    add_store(l, b, &(cg_store){.kind = CG_STORE_KV, .value = k, .value2 = v, .access = access});
}

/* --- the kernel
 * -------------------------------------------------------------------------------------- */

static cg_arg_kind arg_kind(const ir_value *value) {
    if (value->type.kind == IR_KV)
        return CG_ARG_KV;
    switch (value->def ? value->def->code : IR_OP_KERNEL) {
    case IR_OP_INPUT:
        return CG_ARG_STEP;
    case IR_OP_WEIGHT:
    case IR_OP_WEIGHT_CONCAT:
    case IR_OP_PACK:
        return CG_ARG_WEIGHT;
    default:
        return CG_ARG_BUFFER;
    }
}

/* Arguments: the kernel's operands in order, then its tensor results. */
static void make_args(cg_lowering *l) {
    const ir_op *op = l->kernel;
    cg_kernel *k = l->out;
    k->args = ir_arena_array(l->arena, (size_t)(op->n_operands + op->n_results), sizeof(cg_arg));
    for (int i = 0; i < op->n_operands; i++) {
        const ir_value *v = op->operands[i];
        cg_arg *a = &k->args[k->n_args++];
        *a = (cg_arg){.kind = arg_kind(v), .value = v, .type = v->type};
        if (a->kind == CG_ARG_KV) {
            const ir_op *source = ir_kv_source(v);
            const ir_module *m = op->owner->module;
            int64_t group = source ? ir_op_int(source, "group") : -1;
            if (group < 0 || group >= m->n_kv_groups) {
                cg_lower_fail(l, op, "a cache operand names no kv group");
                return;
            }
            a->kv_group = (int)group;
            a->kv = m->kv_groups[group];
        }
    }
    for (int i = 0; i < op->n_results; i++)
        if (op->results[i]->type.kind != IR_KV)
            k->args[k->n_args++] = (cg_arg){.kind = CG_ARG_BUFFER,
                                            .value = op->results[i],
                                            .type = op->results[i]->type,
                                            .written = true};
}

static bool find_anchor(cg_lowering *l) {
    for (const ir_op *op = l->kernel->body->first; op; op = op->next) {
        if (op->code != IR_OP_MATMUL && op->code != IR_OP_PAGED_ATTENTION &&
            op->code != IR_OP_SAMPLE)
            continue;
        if (l->anchor) {
            cg_lower_fail(l, op, "a kernel has one anchor and this would be its second");
            return false;
        }
        l->anchor = op;
    }
    return true;
}

/* The program that computes the matmul's x, a row at a time. */
static void lower_prologue(cg_lowering *l) {
    const ir_op *op = l->anchor;
    const ir_value *x = op->operands[0];
    bool quantized = x->def->code == IR_OP_QUANTIZE;
    if (x->type.rank != 2 || !cg_lower_has_rows(&x->type)) {
        cg_lower_fail(l, op, "only rows of a matrix can be computed in its kernel");
        return;
    }
    if (!quantized && (x->type.encoding || x->type.dtype != IR_F32)) {
        cg_lower_fail(l, op, "an operand computed in its kernel is f32 or quantized");
        return;
    }
    cg_lower_program *b = l->prologue = ir_arena_alloc(l->arena, sizeof *b);
    int64_t k = x->type.dims[1].c;
    b->domain = (cg_lower_domain){.rows = x->type.dims[0], .heads = 1, .width = k};
    b->prologue = true;
    int node = cg_lower_value(l, b, quantized ? x->def->operands[0] : x);
    if (node >= 0)
        add_store(l, b,
                  &(cg_store){.kind = quantized ? CG_STORE_A8 : CG_STORE,
                              .value = node,
                              .value2 = -1,
                              .access = {.arg = CG_ARG_OPERAND,
                                         .row_map = CG_ROW_SELF,
                                         .index_arg = -1,
                                         .row_stride = k,
                                         .column_stride = 1}});
}

static void lower_matmul(cg_lowering *l) {
    const ir_op *op = l->anchor;
    cg_matmul *m = &l->out->matmul;
    int64_t x_offset, w_offset;
    if (!ir_op_int(op, "transpose_b") || op->operands[1]->type.rank != 2) {
        cg_lower_fail(l, op,
                      "the second operand must be a weight of shape [N, K] (transpose_b = 1)");
        return;
    }
    static const char whole[] = "its operands must be the kernel's arguments, whole";
    m->x_type = op->operands[0]->type;
    if (!cg_lower_as_argument(l, op->operands[0], &m->x, &x_offset)) {
        m->x = CG_ARG_OPERAND;
        lower_prologue(l);
        if (l->failed)
            return;
    } else if (x_offset) {
        cg_lower_fail(l, op, whole);
        return;
    }
    if (!cg_lower_as_argument(l, op->operands[1], &m->w, &w_offset) || w_offset) {
        cg_lower_fail(l, op, whole);
        return;
    }
    if (l->out->args[m->w].kind != CG_ARG_WEIGHT) {
        cg_lower_fail(l, op, "its second operand is no weight");
        return;
    }
    m->n = op->operands[1]->type.dims[0].c;
    m->k = op->operands[1]->type.dims[1].c;
    const ir_type *w = &l->out->args[m->w].type;
    int64_t row = cg_lower_row_size(m->x < 0 ? &m->x_type : &l->out->args[m->x].type);
    if (row != m->k || w->rank != 2 || w->dims[0].c != m->n || w->dims[1].c != m->k) {
        cg_lower_fail(l, op, whole);
        return;
    }
    const char *layout = w->layout;
    m->parts = layout && strcmp(layout, "n16x2") == 0 ? 2 : 1;
    l->out->rows = op->results[0]->type.dims[0];
    if (op->results[0]->type.rank != 2)
        cg_lower_fail(l, op, "its result must have rank 2");
    for (const ir_op *other = l->kernel->body->first; other; other = other->next)
        l->by_heads |= other->code == IR_OP_ROPE || other->code == IR_OP_KV_APPEND;
    if (l->by_heads && m->parts != 1)
        cg_lower_fail(l, op, "heads and halves of its result cannot be in one epilogue");
}

/* Every column is some program's, and of one only. */
static void check_heads(cg_lowering *l) {
    int64_t covered = 0;
    for (int i = 0; i < l->n_programs; i++) {
        const cg_lower_program *b = l->programs[i];
        int64_t begin = b->input_column, end = begin + b->domain.heads * b->domain.width;
        covered += end - begin;
        for (int j = 0; j < i; j++) {
            int64_t other = l->programs[j]->input_column;
            if (begin < other + l->programs[j]->domain.heads * l->programs[j]->domain.width &&
                other < end) {
                cg_lower_fail(l, l->anchor, "a column of it is used in two ways");
                return;
            }
        }
        if (end > l->out->matmul.n)
            cg_lower_fail(l, l->anchor, "its columns end before the heads do");
    }
    if (covered != l->out->matmul.n)
        cg_lower_fail(l, l->anchor, "some columns of it are not used");
}

static void lower_attention(cg_lowering *l) {
    const ir_op *op = l->anchor;
    cg_attention *a = &l->out->attention;
    int64_t offset;
    int q;
    if (!cg_lower_as_argument(l, op->operands[0], &q, &offset)) {
        cg_lower_fail(l, op, "its queries must be the kernel's argument");
        return;
    }
    const ir_type *type = &op->operands[0]->type;
    a->q = (cg_access){.arg = q,
                       .row_map = CG_ROW_SELF,
                       .index_arg = -1,
                       .row_stride = cg_lower_row_size(&l->out->args[q].type),
                       .head_stride = type->dims[2].c,
                       .offset = offset,
                       .column_stride = 1};
    a->kv = arg_index(l, op->operands[1]);
    a->heads = type->dims[1].c;
    a->scale = ir_op_float(op, "scale");
    a->softcap = ir_op_float(op, "softcap");
    a->window = ir_op_int(op, "window");
    l->out->rows = type->dims[0];
    if (a->kv < 0)
        cg_lower_fail(l, op, "its cache must be the kernel's argument");
}

/* Nothing but the op: its logits come from another kernel, its result goes to others. */
static void lower_sample(cg_lowering *l) {
    const ir_op *op = l->anchor, *yield = l->kernel->body->last;
    cg_sample *s = &l->out->sample;
    int64_t offset;
    if (!cg_lower_as_argument(l, op->operands[0], &s->logits, &offset) || offset ||
        cg_lower_row_size(&l->out->args[s->logits].type) != op->operands[0]->type.dims[1].c) {
        cg_lower_fail(l, op, "its logits must be the kernel's argument, whole");
        return;
    }
    if (yield->n_operands != 1 || yield->operands[0]->def != op) {
        cg_lower_fail(l, op, "nothing else can be computed in its kernel");
        return;
    }
    s->result = l->kernel->n_operands;
    s->n = op->operands[0]->type.dims[1].c;
    l->out->rows = op->operands[0]->type.dims[0];
}

static void lower_stores(cg_lowering *l) {
    const ir_op *yield = l->kernel->body->last;
    int arg = l->kernel->n_operands;
    for (int i = 0; i < yield->n_operands && !l->failed; i++) {
        const ir_value *v = yield->operands[i];
        if (v->type.kind == IR_KV) {
            if (!v->def || v->def->code != IR_OP_KV_APPEND)
                cg_lower_fail(l, l->kernel, "a cache result must come from kv_append");
            else
                store_kv(l, v->def);
            continue;
        }
        store_value(l, v, arg, 0, cg_lower_row_size(&v->type));
        arg++;
    }
}

static void finish_program(const cg_lowering *l, const cg_lower_program *b, cg_program *p) {
    *p = (cg_program){.heads = b->domain.heads,
                      .width = b->domain.width,
                      .input_column = b->input_column,
                      .n_nodes = b->n_nodes,
                      .n_stores = b->n_stores};
    p->nodes = ir_arena_array(l->arena, (size_t)b->n_nodes, sizeof(cg_node));
    p->stores = ir_arena_array(l->arena, (size_t)b->n_stores, sizeof(cg_store));
    memcpy(p->nodes, b->nodes, (size_t)b->n_nodes * sizeof(cg_node));
    memcpy(p->stores, b->stores, (size_t)b->n_stores * sizeof(cg_store));
}

static void finish_programs(cg_lowering *l) {
    cg_kernel *k = l->out;
    k->n_programs = l->n_programs;
    k->programs = ir_arena_array(l->arena, (size_t)l->n_programs, sizeof(cg_program));
    for (int i = 0; i < l->n_programs; i++) {
        const cg_lower_program *b = l->programs[i];
        finish_program(l, b, &k->programs[i]);
        if (k->anchor == CG_ANCHOR_ROWS) {
            if (i && !ir_dim_equal(k->rows, b->domain.rows))
                cg_lower_fail(l, l->kernel, "its results have different rows");
            k->rows = b->domain.rows;
        }
    }
    if (l->prologue) {
        k->matmul.prologue = ir_arena_alloc(l->arena, sizeof(cg_program));
        finish_program(l, l->prologue, k->matmul.prologue);
    }
}

cg_kernel *cg_kernel_lower(const ir_op *op, ir_arena *arena, ir_diag *diag) {
    cg_lowering *l = ir_arena_alloc(arena, sizeof *l);
    *l = (cg_lowering){.kernel = op, .arena = arena, .diag = diag};
    l->out = ir_arena_alloc(arena, sizeof *l->out);
    l->out->line = op->line;
    if (!find_anchor(l))
        return NULL;
    make_args(l);
    if (!l->failed && l->anchor) {
        bool matmul = l->anchor->code == IR_OP_MATMUL, sample = l->anchor->code == IR_OP_SAMPLE;
        l->out->anchor = matmul   ? CG_ANCHOR_MATMUL
                         : sample ? CG_ANCHOR_SAMPLE
                                  : CG_ANCHOR_ATTENTION;
        if (matmul)
            lower_matmul(l);
        else if (sample)
            lower_sample(l);
        else
            lower_attention(l);
    }
    if (!l->failed && l->out->anchor != CG_ANCHOR_SAMPLE)
        lower_stores(l);
    if (!l->failed && l->by_heads)
        check_heads(l);
    if (!l->failed)
        finish_programs(l);
    if (!l->failed)
        l->out->name = cg_kernel_make_name(l->out, op, arena);
    return l->failed ? NULL : l->out;
}

/* From a KERNEL op's body to a cg_kernel: the one place in codegen that knows op names.
 *
 *   %q = kernel(%x, %w) {anchor = "rows"} {            rows program, 1 head of 576 columns
 *     args(%a : f32[T, 576], %b : f32[576])              n0 = load a[row][col]
 *     %n = rms_norm(%a, %b) {eps = 1e-05}        ->      n1 = mul n0 n0; n2 = reduce_sum n1; …
 *     %z = quantize(%n) : a8[T, 576]                     store_a8 n9
 *     yield(%z)
 *   }
 *
 * Programs are built backwards from what the kernel stores: each stored value asks for its
 * operands. Views (reshape, slice) never compute; they change how an argument is addressed. */
#include "codegen/kernel.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NODES = 512, MAX_STORES = 16, MAX_PROGRAMS = 16 };

/* The rows a program runs over, cut into heads × width columns. */
typedef struct domain {
    ir_dim rows;
    int64_t heads, width;
} domain;

typedef struct builder {
    domain domain;
    int n_nodes, n_stores;
    cg_node nodes[MAX_NODES];
    cg_store stores[MAX_STORES];
    /* node of a value, by position in memo_values */
    int n_memo;
    const ir_value *memo_values[MAX_NODES];
    int memo_nodes[MAX_NODES];
} builder;

typedef struct lowering {
    const ir_op *kernel;
    ir_arena *arena;
    ir_diag *diag;
    cg_kernel *out;
    const ir_op *anchor; /* matmul or paged_attention, or NULL */
    builder *programs[MAX_PROGRAMS];
    int n_programs;
    bool failed;
} lowering;

static int fail(lowering *l, const ir_op *op, const char *reason) {
    ir_error(l->diag, ir_op_label(op), "no schedule covers %s in kernel %s: %s",
             ir_op_info_get(op->code)->name, ir_op_label(l->kernel), reason);
    l->failed = true;
    return -1;
}

/* --- shapes as rows and columns
 * ------------------------------------------------------------------- */

static bool has_rows(const ir_type *type) {
    return type->rank > 0 && !ir_dim_is_const(type->dims[0]);
}

/* Product of the constant dims from `first` on. */
static int64_t inner_size(const ir_type *type, int first) {
    int64_t n = 1;
    for (int i = first; i < type->rank; i++)
        n *= type->dims[i].c;
    return n;
}

static int64_t row_size(const ir_type *type) {
    return inner_size(type, has_rows(type) ? 1 : 0);
}

static int64_t last_dim(const ir_type *type) {
    return type->rank ? type->dims[type->rank - 1].c : 1;
}

/* A value's natural cut: [rows, …, width]. */
static domain domain_of(const ir_type *type) {
    domain d = {.rows = type->dims[0], .width = type->rank > 1 ? last_dim(type) : 1};
    d.heads = row_size(type) / (d.width ? d.width : 1);
    return d;
}

/* --- arguments
 * ------------------------------------------------------------------------------------- */

static int arg_index(const lowering *l, const ir_value *value) {
    const ir_graph *body = l->kernel->body;
    return value->def == NULL && value->owner == body ? value->index : -1;
}

/* Follows views from a value to a kernel argument; *offset becomes the first column, in elements of
 * the argument's row. False when something on the way computes. */
static bool as_argument(const lowering *l, const ir_value *value, int *arg, int64_t *offset) {
    *offset = 0;
    for (;;) {
        if (!value->def) {
            *arg = arg_index(l, value);
            return *arg >= 0;
        }
        const ir_op *op = value->def;
        if (op->code == IR_OP_SLICE) {
            const ir_type *from = &op->operands[0]->type;
            int64_t axis = ir_op_int(op, "axis");
            if (axis == 0 && has_rows(from))
                return false;
            *offset += ir_op_int(op, "start") * inner_size(from, (int)axis + 1);
            /* Only a slice of the outermost column axis leaves a row's columns contiguous. */
            for (int i = has_rows(from) ? 1 : 0; i < axis; i++)
                if (from->dims[i].c != 1)
                    return false;
        } else if (op->code == IR_OP_RESHAPE) {
            const ir_type *from = &op->operands[0]->type, *to = &value->type;
            if (has_rows(from) != has_rows(to) ||
                (has_rows(from) && !ir_dim_equal(from->dims[0], to->dims[0])))
                return false;
        } else {
            return false;
        }
        value = op->operands[0];
    }
}

/* --- nodes
 * ------------------------------------------------------------------------------------------ */

static int add_node(lowering *l, builder *b, const cg_node *node) {
    if (b->n_nodes == MAX_NODES)
        return fail(l, l->kernel, "the fused body is too large; split the region in the plan");
    b->nodes[b->n_nodes] = *node;
    return b->n_nodes++;
}

static int constant(lowering *l, builder *b, double value) {
    return add_node(l, b, &(cg_node){.kind = CG_CONST, .per_row = true, .value = value});
}

static int scalar(lowering *l, builder *b, cg_scalar_op op, int x, int y, int z) {
    static const int operands[] = {
#define SCALAR(suffix, name, n) n,
#include "codegen/scalar.def"
#undef SCALAR
    };
    int given[3] = {x, y, z};
    cg_node node = {.kind = CG_SCALAR, .op = op, .per_row = true, .operands = {-1, -1, -1}};
    for (int i = 0; i < operands[op]; i++) {
        if (given[i] < 0)
            return -1;
        node.operands[i] = given[i];
        node.per_row &= b->nodes[given[i]].per_row;
    }
    return add_node(l, b, &node);
}

static int unary(lowering *l, builder *b, cg_scalar_op op, int x) {
    return scalar(l, b, op, x, -1, -1);
}

static int binary(lowering *l, builder *b, cg_scalar_op op, int x, int y) {
    return scalar(l, b, op, x, y, -1);
}

static int reduce(lowering *l, builder *b, cg_reduce_op op, int x) {
    if (x < 0)
        return -1;
    return add_node(
        l, b,
        &(cg_node){.kind = CG_REDUCE, .per_row = true, .reduce = op, .operands = {x, -1, -1}});
}

/* A load of an argument whose value has type `type`, seen from the program's domain by numpy's
 * broadcasting rules. */
static int load(lowering *l, builder *b, const ir_op *user, int arg, int64_t offset,
                const ir_type *type) {
    const cg_arg *a = &l->out->args[arg];
    const domain *d = &b->domain;
    cg_node node = {.kind = CG_LOAD, .operands = {-1, -1, -1}};
    cg_access *access = &node.access;
    *access = (cg_access){.arg = arg, .index_arg = -1, .offset = offset, .column_stride = 1};
    if (has_rows(type)) {
        if (!ir_dim_equal(type->dims[0], d->rows))
            return fail(l, user, "an operand has other rows than the kernel");
        access->row_map = CG_ROW_SELF;
        access->row_stride = row_size(&a->type);
    }
    int64_t columns = row_size(type);
    if (columns == 1) {
        access->column_stride = 0;
        node.per_row = true;
    } else if (columns == d->heads * d->width) {
        access->head_stride = d->width;
    } else if (columns == d->width && last_dim(type) == d->width) {
        access->head_stride = 0; /* one vector for every head */
    } else if (columns == d->heads && last_dim(type) == 1) {
        access->head_stride = 1; /* one number for each head */
        access->column_stride = 0;
        node.per_row = true;
    } else {
        return fail(l, user, "an operand cannot be addressed by the kernel's rows and columns");
    }
    return add_node(l, b, &node);
}

static int build(lowering *l, builder *b, const ir_value *value);

/* A reduction, norm or rope needs its axis to be exactly the program's columns. */
static bool axis_is_row(const builder *b, const ir_type *type) {
    return last_dim(type) == b->domain.width;
}

static int build_rms_norm(lowering *l, builder *b, const ir_op *op) {
    int x = build(l, b, op->operands[0]), w = build(l, b, op->operands[1]);
    int sum = reduce(l, b, CG_REDUCE_SUM, binary(l, b, CG_MUL, x, x));
    int mean = binary(l, b, CG_DIV, sum, constant(l, b, (double)b->domain.width));
    int r =
        unary(l, b, CG_RSQRT, binary(l, b, CG_ADD, mean, constant(l, b, ir_op_float(op, "eps"))));
    return binary(l, b, CG_MUL, binary(l, b, CG_MUL, x, r), w);
}

static int build_layer_norm(lowering *l, builder *b, const ir_op *op) {
    int x = build(l, b, op->operands[0]), w = build(l, b, op->operands[1]);
    int bias = build(l, b, op->operands[2]);
    int n = constant(l, b, (double)b->domain.width);
    int mean = binary(l, b, CG_DIV, reduce(l, b, CG_REDUCE_SUM, x), n);
    int centred = binary(l, b, CG_SUB, x, mean);
    int sum = reduce(l, b, CG_REDUCE_SUM, binary(l, b, CG_MUL, centred, centred));
    int variance = binary(l, b, CG_DIV, sum, n);
    int r = unary(l, b, CG_RSQRT,
                  binary(l, b, CG_ADD, variance, constant(l, b, ir_op_float(op, "eps"))));
    int y = binary(l, b, CG_MUL, binary(l, b, CG_MUL, centred, r), w);
    return binary(l, b, CG_ADD, y, bias);
}

static int build_softmax(lowering *l, builder *b, const ir_op *op) {
    int x = build(l, b, op->operands[0]);
    int e = unary(l, b, CG_EXP, binary(l, b, CG_SUB, x, reduce(l, b, CG_REDUCE_MAX, x)));
    return binary(l, b, CG_DIV, e, reduce(l, b, CG_REDUCE_SUM, e));
}

static int build_rope(lowering *l, builder *b, const ir_op *op) {
    int x = build(l, b, op->operands[0]);
    int table;
    int64_t offset;
    if (!as_argument(l, op->operands[1], &table, &offset))
        return fail(l, op, "its table must come from another kernel");
    if (x < 0)
        return -1;
    cg_node cosine = {
        .kind = CG_LOAD,
        .operands = {-1, -1, -1},
        .access = {.arg = table,
                   .row_map = CG_ROW_SELF,
                   .index_arg = -1,
                   .row_stride = row_size(&l->out->args[table].type),
                   .offset = offset,
                   .column_stride = 1},
    };
    cg_node sine = cosine;
    sine.access.offset += b->domain.width;
    cg_node rotated = {.kind = CG_ROTATE,
                       .operands = {x, -1, -1},
                       .rotate_dims = ir_op_int(op, "dims"),
                       .rotate_half = strcmp(ir_op_string(op, "style"), "half") == 0};
    int c = add_node(l, b, &cosine), s = add_node(l, b, &sine), r = add_node(l, b, &rotated);
    return binary(l, b, CG_ADD, binary(l, b, CG_MUL, x, c), binary(l, b, CG_MUL, r, s));
}

static int build_gather(lowering *l, builder *b, const ir_op *op) {
    int table, indices;
    int64_t table_offset, index_offset;
    if (!as_argument(l, op->operands[0], &table, &table_offset) ||
        !as_argument(l, op->operands[1], &indices, &index_offset))
        return fail(l, op, "table and indices must be the kernel's arguments");
    if (index_offset || row_size(&l->out->args[indices].type) != 1)
        return fail(l, op, "its indices must be one number a row");
    const ir_type *type = &op->operands[0]->type;
    int64_t heads = b->domain.heads, width = b->domain.width;
    if (type->rank != 2 || type->dims[1].c != heads * width)
        return fail(l, op, "only rows of a matrix can be gathered");
    cg_node node = {.kind = CG_LOAD,
                    .operands = {-1, -1, -1},
                    .access = {.arg = table,
                               .row_map = CG_ROW_GATHERED,
                               .index_arg = indices,
                               .row_stride = type->dims[1].c,
                               .head_stride = heads > 1 ? width : 0,
                               .offset = table_offset,
                               .column_stride = 1}};
    return add_node(l, b, &node);
}

static int build_gelu_tanh(lowering *l, builder *b, int x) {
    int cube = binary(l, b, CG_MUL, binary(l, b, CG_MUL, x, x), x);
    int inner = binary(l, b, CG_ADD, x, binary(l, b, CG_MUL, constant(l, b, 0.044715), cube));
    int t = unary(l, b, CG_TANH, binary(l, b, CG_MUL, constant(l, b, 0.7978845608028654), inner));
    int half = binary(l, b, CG_MUL, constant(l, b, 0.5), x);
    return binary(l, b, CG_MUL, half, binary(l, b, CG_ADD, constant(l, b, 1), t));
}

static int build_gelu(lowering *l, builder *b, int x) {
    int e = unary(l, b, CG_ERF, binary(l, b, CG_MUL, x, constant(l, b, 0.7071067811865476)));
    int half = binary(l, b, CG_MUL, constant(l, b, 0.5), x);
    return binary(l, b, CG_MUL, half, binary(l, b, CG_ADD, constant(l, b, 1), e));
}

/* The reductions of primitive graphs: over the last axis only. */
static int build_reduce(lowering *l, builder *b, const ir_op *op) {
    if (ir_op_int(op, "axis") != op->operands[0]->type.rank - 1)
        return fail(l, op, "only the last axis can be reduced");
    if (op->operands[0]->type.dims[op->operands[0]->type.rank - 1].c != b->domain.width)
        return fail(l, op, "the reduced axis is not the kernel's row");
    int x = build(l, b, op->operands[0]);
    if (op->code == IR_OP_REDUCE_MAX)
        return reduce(l, b, CG_REDUCE_MAX, x);
    int sum = reduce(l, b, CG_REDUCE_SUM, x);
    if (op->code == IR_OP_REDUCE_SUM)
        return sum;
    return binary(l, b, CG_DIV, sum, constant(l, b, (double)b->domain.width));
}

/* The anchor's output, or, where pack arranged the weights for it (two parts), one half of it. */
static int build_input(lowering *l, builder *b, const ir_value *value) {
    int part = 0;
    bool half = false;
    const ir_op *op = value->def;
    for (; op != l->anchor; op = op->operands[0]->def) {
        if (op->code != IR_OP_SLICE)
            continue;
        /* A slice right behind the matmul: after another view it would mean other columns. */
        const ir_value *from = op->operands[0];
        int64_t n = from->type.dims[from->type.rank - 1].c, start = ir_op_int(op, "start");
        if (l->anchor->code != IR_OP_MATMUL || from->def != l->anchor ||
            ir_op_int(op, "axis") != 1 || ir_op_int(op, "size") * 2 != n ||
            (start != 0 && start * 2 != n))
            return fail(l, op, "only the two halves of a merged matmul run in lockstep");
        part = start != 0;
        half = true;
    }
    if (l->anchor->code == IR_OP_MATMUL && half != (l->out->matmul.parts == 2))
        return fail(l, l->anchor,
                    "one use takes it whole, another a half of it; move one of them to another "
                    "kernel");
    return add_node(l, b, &(cg_node){.kind = CG_INPUT, .operands = {-1, -1, -1}, .part = part});
}

/* Whether a value is the anchor's output seen through views only. */
static bool is_anchor_output(const lowering *l, const ir_value *value) {
    const ir_op *op = value->def;
    while (op && (op->code == IR_OP_SLICE || op->code == IR_OP_RESHAPE) && op != l->anchor)
        op = op->operands[0]->def;
    return op && op == l->anchor;
}

static int build_op(lowering *l, builder *b, const ir_op *op) {
    static const int scalar_of[IR_N_OPS] = {
        [IR_OP_NEG] = CG_NEG + 1,         [IR_OP_ABS] = CG_ABS + 1,
        [IR_OP_EXP] = CG_EXP + 1,         [IR_OP_LOG] = CG_LOG + 1,
        [IR_OP_SQRT] = CG_SQRT + 1,       [IR_OP_RSQRT] = CG_RSQRT + 1,
        [IR_OP_SIN] = CG_SIN + 1,         [IR_OP_COS] = CG_COS + 1,
        [IR_OP_TANH] = CG_TANH + 1,       [IR_OP_ERF] = CG_ERF + 1,
        [IR_OP_SIGMOID] = CG_SIGMOID + 1, [IR_OP_ADD] = CG_ADD + 1,
        [IR_OP_SUB] = CG_SUB + 1,         [IR_OP_MUL] = CG_MUL + 1,
        [IR_OP_DIV] = CG_DIV + 1,         [IR_OP_MAX] = CG_MAX + 1,
        [IR_OP_MIN] = CG_MIN + 1,         [IR_OP_POW] = CG_POW + 1,
        [IR_OP_LT] = CG_LT + 1,           [IR_OP_LE] = CG_LE + 1,
        [IR_OP_EQ] = CG_EQ + 1,           [IR_OP_WHERE] = CG_WHERE + 1,
    };
    if (scalar_of[op->code]) {
        int x[3] = {-1, -1, -1};
        for (int i = 0; i < op->n_operands; i++)
            x[i] = build(l, b, op->operands[i]);
        return scalar(l, b, (cg_scalar_op)(scalar_of[op->code] - 1), x[0], x[1], x[2]);
    }
    switch (op->code) {
    case IR_OP_CONSTANT: {
        const ir_attr *values = ir_op_attr(op, "values");
        if (!values || values->count != 1)
            return fail(l, op, "only a splat constant can be part of a kernel");
        return constant(l, b, values->floats[0]);
    }
    case IR_OP_CAST:
        if (op->results[0]->type.dtype != IR_F32)
            return fail(l, op, "kernels compute in f32");
        return build(l, b, op->operands[0]);
    case IR_OP_SILU: {
        int x = build(l, b, op->operands[0]);
        return binary(l, b, CG_MUL, x, unary(l, b, CG_SIGMOID, x));
    }
    case IR_OP_GELU:
        return build_gelu(l, b, build(l, b, op->operands[0]));
    case IR_OP_GELU_TANH:
        return build_gelu_tanh(l, b, build(l, b, op->operands[0]));
    case IR_OP_SOFTCAP: {
        int cap = constant(l, b, ir_op_float(op, "cap"));
        int t = unary(l, b, CG_TANH, binary(l, b, CG_DIV, build(l, b, op->operands[0]), cap));
        return binary(l, b, CG_MUL, cap, t);
    }
    case IR_OP_BROADCAST:
        return build(l, b, op->operands[0]);
    case IR_OP_RESHAPE: {
        const ir_type *from = &op->operands[0]->type, *to = &op->results[0]->type;
        int64_t n = row_size(to);
        if (has_rows(to) && n != row_size(from))
            return fail(l, op, "it moves elements between rows");
        /* What is broadcast over heads or columns must stay so. */
        if (n != 1 && n != b->domain.heads * b->domain.width && last_dim(from) != last_dim(to))
            return fail(l, op, "it moves elements between heads and columns");
        return build(l, b, op->operands[0]);
    }
    case IR_OP_REDUCE_SUM:
    case IR_OP_REDUCE_MAX:
    case IR_OP_REDUCE_MEAN:
        return build_reduce(l, b, op);
    case IR_OP_RMS_NORM:
    case IR_OP_LAYER_NORM:
    case IR_OP_SOFTMAX:
    case IR_OP_ROPE:
        if (!axis_is_row(b, &op->results[0]->type))
            return fail(l, op, "its axis is not the kernel's row");
        if (l->anchor && l->anchor->code == IR_OP_MATMUL)
            return fail(l, op, "a matmul's epilogue holds only a group of a row, not all of it");
        return op->code == IR_OP_RMS_NORM     ? build_rms_norm(l, b, op)
               : op->code == IR_OP_LAYER_NORM ? build_layer_norm(l, b, op)
               : op->code == IR_OP_SOFTMAX    ? build_softmax(l, b, op)
                                              : build_rope(l, b, op);
    case IR_OP_GATHER:
        return build_gather(l, b, op);
    case IR_OP_QUANTIZE:
        return fail(l, op, "a quantized value must leave the kernel that makes it");
    default:
        return fail(l, op, "it has no lowering to scalar operations and is no anchor of its own");
    }
}

/* The node of a value in a program, made on first use. */
static int build(lowering *l, builder *b, const ir_value *value) {
    for (int i = 0; i < b->n_memo; i++)
        if (b->memo_values[i] == value)
            return b->memo_nodes[i];
    int node, arg;
    int64_t offset;
    if (as_argument(l, value, &arg, &offset))
        node = load(l, b, value->def ? value->def : l->kernel, arg, offset, &value->type);
    else if (is_anchor_output(l, value))
        node = build_input(l, b, value);
    else
        node = build_op(l, b, value->def);
    if (node >= 0 && b->n_memo < MAX_NODES) {
        b->memo_values[b->n_memo] = value;
        b->memo_nodes[b->n_memo++] = node;
    }
    return node;
}

/* --- stores
 * ------------------------------------------------------------------------------------------ */

static builder *program_for(lowering *l, const domain *d) {
    for (int i = 0; i < l->n_programs; i++) {
        const domain *e = &l->programs[i]->domain;
        if (ir_dim_equal(e->rows, d->rows) && e->heads == d->heads && e->width == d->width)
            return l->programs[i];
    }
    if (l->anchor && l->n_programs) {
        fail(l, l->kernel, "an epilogue has one shape, its results have several");
        return NULL;
    }
    if (l->n_programs == MAX_PROGRAMS) {
        fail(l, l->kernel, "too many results of different shapes");
        return NULL;
    }
    builder *b = ir_arena_alloc(l->arena, sizeof *b);
    b->domain = *d;
    return l->programs[l->n_programs++] = b;
}

static void add_store(lowering *l, builder *b, const cg_store *store) {
    if (b->n_stores == MAX_STORES)
        fail(l, l->kernel, "too many results");
    else
        b->stores[b->n_stores++] = *store;
}

/* The domain a value is computed in: the anchor's where there is one, else the cut that the ops it
 * comes from need: the one of the nearest norm, rope or softmax, through reshapes. */
static domain store_domain(const lowering *l, const ir_value *value) {
    if (l->anchor && l->anchor->code == IR_OP_PAGED_ATTENTION)
        return domain_of(&l->anchor->results[0]->type);
    if (l->anchor)
        return (domain){.rows = value->type.dims[0],
                        .heads = 1,
                        .width = l->anchor->results[0]->type.dims[1].c / l->out->matmul.parts};
    const ir_value *v = value;
    while (v->def) {
        unsigned traits = ir_op_info_get(v->def->code)->traits;
        if (v->def->code == IR_OP_RESHAPE || v->def->code == IR_OP_QUANTIZE ||
            ((traits & IR_TRAIT_ELEMENTWISE) &&
             row_size(&v->def->operands[0]->type) == row_size(&v->type)))
            v = v->def->operands[0];
        else
            break;
    }
    bool is_axis_op =
        v->def && (v->def->code == IR_OP_RMS_NORM || v->def->code == IR_OP_LAYER_NORM ||
                   v->def->code == IR_OP_ROPE || v->def->code == IR_OP_SOFTMAX);
    if (is_axis_op && has_rows(&v->type))
        return domain_of(&v->type);
    domain d = domain_of(&value->type);
    if (d.heads > 1 && value->type.rank == 3)
        return d;
    return (domain){.rows = d.rows, .heads = 1, .width = d.heads * d.width};
}

/* Stores `value` as columns `column` … of the result argument `arg`, whose row has `stride`. */
static void store_value(lowering *l, const ir_value *value, int arg, int64_t column,
                        int64_t stride) {
    const ir_op *def = value->def;
    if (def && def->code == IR_OP_CONCAT && ir_op_int(def, "axis") > 0 && !l->anchor) {
        for (int i = 0; i < def->n_operands; i++) {
            store_value(l, def->operands[i], arg, column, stride);
            column += row_size(&def->operands[i]->type);
        }
        return;
    }
    if (def && def->code == IR_OP_RESHAPE && def->operands[0]->def &&
        def->operands[0]->def->code == IR_OP_CONCAT) {
        store_value(l, def->operands[0], arg, column, stride);
        return;
    }
    if (!has_rows(&value->type)) {
        fail(l, l->kernel, "a result has no rows (its first dim is constant)");
        return;
    }
    bool quantized = def && def->code == IR_OP_QUANTIZE;
    domain d = store_domain(l, value);
    if (quantized && d.width % 32) {
        fail(l, def, "its groups of 32 would cross the kernel's rows");
        return;
    }
    builder *b = program_for(l, &d);
    if (!b)
        return;
    int node = build(l, b, quantized ? def->operands[0] : value);
    if (node < 0)
        return;
    if (row_size(&value->type) != d.heads * d.width) {
        fail(l, def ? def : l->kernel, "its result has other columns than the kernel's anchor");
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

static void store_kv(lowering *l, const ir_op *append) {
    if (l->anchor) {
        fail(l, append, "the cache is appended to row by row, in a kernel without another anchor");
        return;
    }
    domain d = domain_of(&append->operands[1]->type);
    builder *b = program_for(l, &d);
    int kv = arg_index(l, append->operands[0]);
    if (!b)
        return;
    if (kv < 0) {
        fail(l, append, "the cache must be the kernel's argument");
        return;
    }
    int k = build(l, b, append->operands[1]), v = build(l, b, append->operands[2]);
    if (k < 0 || v < 0)
        return;
    add_store(l, b,
              &(cg_store){.kind = CG_STORE_KV,
                          .value = k,
                          .value2 = v,
                          .access = {.arg = kv, .row_map = CG_ROW_SELF, .index_arg = -1}});
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

/* The kv_cache a kv value started as. */
static const ir_op *kv_source(const ir_value *value) {
    while (value->def && value->def->code != IR_OP_KV_CACHE) {
        const ir_op *op = value->def;
        const ir_value *next = NULL;
        for (int i = 0; i < op->n_operands; i++)
            if (op->operands[i]->type.kind == IR_KV)
                next = op->operands[i];
        if (!next)
            return NULL;
        value = next;
    }
    return value->def;
}

/* Arguments: the kernel's operands in order, then its tensor results. */
static void make_args(lowering *l) {
    const ir_op *op = l->kernel;
    cg_kernel *k = l->out;
    k->args = ir_arena_array(l->arena, (size_t)(op->n_operands + op->n_results), sizeof(cg_arg));
    for (int i = 0; i < op->n_operands; i++) {
        const ir_value *v = op->operands[i];
        cg_arg *a = &k->args[k->n_args++];
        *a = (cg_arg){.kind = arg_kind(v), .value = v, .type = v->type};
        if (a->kind == CG_ARG_KV) {
            const ir_op *source = kv_source(v);
            const ir_module *m = op->owner->module;
            int64_t group = source ? ir_op_int(source, "group") : -1;
            if (group < 0 || group >= m->n_kv_groups) {
                fail(l, op, "a cache operand names no kv group");
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

static bool find_anchor(lowering *l) {
    for (const ir_op *op = l->kernel->body->first; op; op = op->next) {
        if (op->code != IR_OP_MATMUL && op->code != IR_OP_PAGED_ATTENTION)
            continue;
        if (l->anchor) {
            fail(l, op, "a kernel has one anchor and this would be its second");
            return false;
        }
        l->anchor = op;
    }
    return true;
}

static void lower_matmul(lowering *l) {
    const ir_op *op = l->anchor;
    cg_matmul *m = &l->out->matmul;
    int64_t x_offset, w_offset;
    if (!ir_op_int(op, "transpose_b") || op->operands[1]->type.rank != 2) {
        fail(l, op, "the second operand must be a weight of shape [N, K] (transpose_b = 1)");
        return;
    }
    if (!as_argument(l, op->operands[0], &m->x, &x_offset) || x_offset ||
        !as_argument(l, op->operands[1], &m->w, &w_offset) || w_offset) {
        fail(l, op, "its operands must be the kernel's arguments, whole");
        return;
    }
    if (l->out->args[m->w].kind != CG_ARG_WEIGHT) {
        fail(l, op, "its second operand is no weight");
        return;
    }
    m->n = op->operands[1]->type.dims[0].c;
    m->k = op->operands[1]->type.dims[1].c;
    const ir_type *w = &l->out->args[m->w].type;
    if (row_size(&l->out->args[m->x].type) != m->k || w->rank != 2 || w->dims[0].c != m->n ||
        w->dims[1].c != m->k) {
        fail(l, op, "its operands must be the kernel's arguments, whole");
        return;
    }
    const char *layout = w->layout;
    m->parts = layout && strcmp(layout, "n16x2") == 0 ? 2 : 1;
    l->out->rows = op->results[0]->type.dims[0];
    if (op->results[0]->type.rank != 2)
        fail(l, op, "its result must have rank 2");
}

static void lower_attention(lowering *l) {
    const ir_op *op = l->anchor;
    cg_attention *a = &l->out->attention;
    int64_t offset;
    int q;
    if (!as_argument(l, op->operands[0], &q, &offset)) {
        fail(l, op, "its queries must be the kernel's argument");
        return;
    }
    const ir_type *type = &op->operands[0]->type;
    a->q = (cg_access){.arg = q,
                       .row_map = CG_ROW_SELF,
                       .index_arg = -1,
                       .row_stride = row_size(&l->out->args[q].type),
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
        fail(l, op, "its cache must be the kernel's argument");
}

static void lower_stores(lowering *l) {
    const ir_op *yield = l->kernel->body->last;
    int arg = l->kernel->n_operands;
    for (int i = 0; i < yield->n_operands && !l->failed; i++) {
        const ir_value *v = yield->operands[i];
        if (v->type.kind == IR_KV) {
            if (!v->def || v->def->code != IR_OP_KV_APPEND)
                fail(l, l->kernel, "a cache result must come from kv_append");
            else
                store_kv(l, v->def);
            continue;
        }
        store_value(l, v, arg, 0, row_size(&v->type));
        arg++;
    }
}

static void finish_programs(lowering *l) {
    cg_kernel *k = l->out;
    k->n_programs = l->n_programs;
    k->programs = ir_arena_array(l->arena, (size_t)l->n_programs, sizeof(cg_program));
    for (int i = 0; i < l->n_programs; i++) {
        const builder *b = l->programs[i];
        cg_program *p = &k->programs[i];
        *p = (cg_program){.heads = b->domain.heads,
                          .width = b->domain.width,
                          .n_nodes = b->n_nodes,
                          .n_stores = b->n_stores};
        p->nodes = ir_arena_array(l->arena, (size_t)b->n_nodes, sizeof(cg_node));
        p->stores = ir_arena_array(l->arena, (size_t)b->n_stores, sizeof(cg_store));
        memcpy(p->nodes, b->nodes, (size_t)b->n_nodes * sizeof(cg_node));
        memcpy(p->stores, b->stores, (size_t)b->n_stores * sizeof(cg_store));
        if (k->anchor == CG_ANCHOR_ROWS) {
            if (i && !ir_dim_equal(k->rows, b->domain.rows))
                fail(l, l->kernel, "its results have different rows");
            k->rows = b->domain.rows;
        }
    }
}

cg_kernel *cg_kernel_lower(const ir_op *op, ir_arena *arena, ir_diag *diag) {
    lowering *l = ir_arena_alloc(arena, sizeof *l);
    *l = (lowering){.kernel = op, .arena = arena, .diag = diag};
    l->out = ir_arena_alloc(arena, sizeof *l->out);
    l->out->line = op->line;
    if (!find_anchor(l))
        return NULL;
    make_args(l);
    if (!l->failed && l->anchor) {
        bool matmul = l->anchor->code == IR_OP_MATMUL;
        l->out->anchor = matmul ? CG_ANCHOR_MATMUL : CG_ANCHOR_ATTENTION;
        if (matmul)
            lower_matmul(l);
        else
            lower_attention(l);
    }
    if (!l->failed)
        lower_stores(l);
    if (!l->failed)
        finish_programs(l);
    if (!l->failed)
        l->out->name = cg_kernel_make_name(l->out, op, arena);
    return l->failed ? NULL : l->out;
}

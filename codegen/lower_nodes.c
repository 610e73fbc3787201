/* From values of a KERNEL op's body to nodes of a row program: an op's meaning in scalar
 * operations, reductions and loads. */
#include "codegen/lower.h"

#include <string.h>

/* --- nodes
 * ------------------------------------------------------------------------------------------ */

static int add_node(cg_lowering *l, cg_lower_program *b, const cg_node *node) {
    if (b->n_nodes == CG_LOWER_MAX_NODES)
        return cg_lower_fail(l, l->kernel,
                             "the fused body is too large; split the region in the plan");
    b->nodes[b->n_nodes] = *node;
    return b->n_nodes++;
}

static int constant(cg_lowering *l, cg_lower_program *b, double value) {
    return add_node(l, b, &(cg_node){.kind = CG_CONST, .per_row = true, .value = value});
}

static int scalar(cg_lowering *l, cg_lower_program *b, cg_scalar_op op, int x, int y, int z) {
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

static int unary(cg_lowering *l, cg_lower_program *b, cg_scalar_op op, int x) {
    return scalar(l, b, op, x, -1, -1);
}

static int binary(cg_lowering *l, cg_lower_program *b, cg_scalar_op op, int x, int y) {
    return scalar(l, b, op, x, y, -1);
}

static int reduce(cg_lowering *l, cg_lower_program *b, cg_reduce_op op, int x) {
    if (x < 0)
        return -1;
    return add_node(
        l, b,
        &(cg_node){.kind = CG_REDUCE, .per_row = true, .reduce = op, .operands = {x, -1, -1}});
}

/* A load of an argument whose value has type `type`, seen from the program's domain by numpy's
 * broadcasting rules. */
static int load(cg_lowering *l, cg_lower_program *b, const ir_op *user, int arg, int64_t offset,
                const ir_type *type) {
    const cg_arg *a = &l->out->args[arg];
    const cg_lower_domain *d = &b->domain;
    cg_node node = {.kind = CG_LOAD, .operands = {-1, -1, -1}};
    cg_access *access = &node.access;
    *access = (cg_access){.arg = arg, .index_arg = -1, .offset = offset, .column_stride = 1};
    if (cg_lower_has_rows(type)) {
        if (!ir_dim_equal(type->dims[0], d->rows))
            return cg_lower_fail(l, user, "an operand has other rows than the kernel");
        access->row_map = CG_ROW_SELF;
        access->row_stride = cg_lower_row_size(&a->type);
    }
    int64_t columns = cg_lower_row_size(type);
    if (columns == 1) {
        access->column_stride = 0;
        node.per_row = true;
    } else if (columns == d->heads * d->width) {
        access->head_stride = d->width;
    } else if (columns == d->width && cg_lower_last_dim(type) == d->width) {
        access->head_stride = 0; /* one vector for every head */
    } else if (columns == d->heads && cg_lower_last_dim(type) == 1) {
        access->head_stride = 1; /* one number for each head */
        access->column_stride = 0;
        node.per_row = true;
    } else {
        return cg_lower_fail(l, user,
                             "an operand cannot be addressed by the kernel's rows and columns");
    }
    return add_node(l, b, &node);
}

/* A reduction, norm or rope needs its axis to be exactly the program's columns. */
static bool axis_is_row(const cg_lower_program *b, const ir_type *type) {
    return cg_lower_last_dim(type) == b->domain.width;
}

static int build_rms_norm(cg_lowering *l, cg_lower_program *b, const ir_op *op) {
    int x = cg_lower_value(l, b, op->operands[0]), w = cg_lower_value(l, b, op->operands[1]);
    int sum = reduce(l, b, CG_REDUCE_SUM, binary(l, b, CG_MUL, x, x));
    int mean = binary(l, b, CG_DIV, sum, constant(l, b, (double)b->domain.width));
    int r =
        unary(l, b, CG_RSQRT, binary(l, b, CG_ADD, mean, constant(l, b, ir_op_float(op, "eps"))));
    return binary(l, b, CG_MUL, binary(l, b, CG_MUL, x, r), w);
}

static int build_layer_norm(cg_lowering *l, cg_lower_program *b, const ir_op *op) {
    int x = cg_lower_value(l, b, op->operands[0]), w = cg_lower_value(l, b, op->operands[1]);
    int bias = cg_lower_value(l, b, op->operands[2]);
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

static int build_softmax(cg_lowering *l, cg_lower_program *b, const ir_op *op) {
    int x = cg_lower_value(l, b, op->operands[0]);
    int e = unary(l, b, CG_EXP, binary(l, b, CG_SUB, x, reduce(l, b, CG_REDUCE_MAX, x)));
    return binary(l, b, CG_DIV, e, reduce(l, b, CG_REDUCE_SUM, e));
}

static int build_rope(cg_lowering *l, cg_lower_program *b, const ir_op *op) {
    int x = cg_lower_value(l, b, op->operands[0]);
    int table;
    int64_t offset;
    if (!cg_lower_as_argument(l, op->operands[1], &table, &offset))
        return cg_lower_fail(l, op, "its table must come from another kernel");
    if (x < 0)
        return -1;
    cg_node cosine = {
        .kind = CG_LOAD,
        .operands = {-1, -1, -1},
        .access = {.arg = table,
                   .row_map = CG_ROW_SELF,
                   .index_arg = -1,
                   .row_stride = cg_lower_row_size(&l->out->args[table].type),
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

static int build_gather(cg_lowering *l, cg_lower_program *b, const ir_op *op) {
    int table, indices;
    int64_t table_offset, index_offset;
    if (!cg_lower_as_argument(l, op->operands[0], &table, &table_offset) ||
        !cg_lower_as_argument(l, op->operands[1], &indices, &index_offset))
        return cg_lower_fail(l, op, "table and indices must be the kernel's arguments");
    if (index_offset || cg_lower_row_size(&l->out->args[indices].type) != 1)
        return cg_lower_fail(l, op, "its indices must be one number a row");
    const ir_type *type = &op->operands[0]->type;
    int64_t heads = b->domain.heads, width = b->domain.width;
    if (type->rank != 2 || type->dims[1].c != heads * width)
        return cg_lower_fail(l, op, "only rows of a matrix can be gathered");
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

static int build_gelu_tanh(cg_lowering *l, cg_lower_program *b, int x) {
    int cube = binary(l, b, CG_MUL, binary(l, b, CG_MUL, x, x), x);
    int inner = binary(l, b, CG_ADD, x, binary(l, b, CG_MUL, constant(l, b, 0.044715), cube));
    int t = unary(l, b, CG_TANH, binary(l, b, CG_MUL, constant(l, b, 0.7978845608028654), inner));
    int half = binary(l, b, CG_MUL, constant(l, b, 0.5), x);
    return binary(l, b, CG_MUL, half, binary(l, b, CG_ADD, constant(l, b, 1), t));
}

static int build_gelu(cg_lowering *l, cg_lower_program *b, int x) {
    int e = unary(l, b, CG_ERF, binary(l, b, CG_MUL, x, constant(l, b, 0.7071067811865476)));
    int half = binary(l, b, CG_MUL, constant(l, b, 0.5), x);
    return binary(l, b, CG_MUL, half, binary(l, b, CG_ADD, constant(l, b, 1), e));
}

/* The reductions of primitive graphs: over the last axis only. */
static int build_reduce(cg_lowering *l, cg_lower_program *b, const ir_op *op) {
    if (ir_op_int(op, "axis") != op->operands[0]->type.rank - 1)
        return cg_lower_fail(l, op, "only the last axis can be reduced");
    if (op->operands[0]->type.dims[op->operands[0]->type.rank - 1].c != b->domain.width)
        return cg_lower_fail(l, op, "the reduced axis is not the kernel's row");
    int x = cg_lower_value(l, b, op->operands[0]);
    if (op->code == IR_OP_REDUCE_MAX)
        return reduce(l, b, CG_REDUCE_MAX, x);
    int sum = reduce(l, b, CG_REDUCE_SUM, x);
    if (op->code == IR_OP_REDUCE_SUM)
        return sum;
    return binary(l, b, CG_DIV, sum, constant(l, b, (double)b->domain.width));
}

/* The columns of the anchor's output that are the program's. */
static int build_input_of_heads(cg_lowering *l, cg_lower_program *b, const ir_value *value) {
    int64_t column;
    if (!cg_lower_as_columns(l, value, &column) || column != b->input_column ||
        cg_lower_row_size(&value->type) != b->domain.heads * b->domain.width)
        return cg_lower_fail(l, l->anchor, "a result is made of several ranges of its columns");
    return add_node(l, b, &(cg_node){.kind = CG_INPUT, .operands = {-1, -1, -1}});
}

/* The anchor's output, or, where pack arranged the weights for it (two parts), one half of it. */
static int build_input(cg_lowering *l, cg_lower_program *b, const ir_value *value) {
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
            return cg_lower_fail(l, op, "only the two halves of a merged matmul run in lockstep");
        part = start != 0;
        half = true;
    }
    if (l->anchor->code == IR_OP_MATMUL && half != (l->out->matmul.parts == 2))
        return cg_lower_fail(
            l, l->anchor,
            "one use takes it whole, another a half of it; move one of them to another "
            "kernel");
    return add_node(l, b, &(cg_node){.kind = CG_INPUT, .operands = {-1, -1, -1}, .part = part});
}

/* Whether a value is the anchor's output seen through views only. */
static bool is_anchor_output(const cg_lowering *l, const ir_value *value) {
    const ir_op *op = value->def;
    while (op && (op->code == IR_OP_SLICE || op->code == IR_OP_RESHAPE) && op != l->anchor)
        op = op->operands[0]->def;
    return op && op == l->anchor;
}

static int build_op(cg_lowering *l, cg_lower_program *b, const ir_op *op) {
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
            x[i] = cg_lower_value(l, b, op->operands[i]);
        return scalar(l, b, (cg_scalar_op)(scalar_of[op->code] - 1), x[0], x[1], x[2]);
    }
    switch (op->code) {
    case IR_OP_CONSTANT: {
        const ir_attr *values = ir_op_attr(op, "values");
        if (!values || values->count != 1)
            return cg_lower_fail(l, op, "only a splat constant can be part of a kernel");
        return constant(l, b, values->floats[0]);
    }
    case IR_OP_CAST:
        if (op->results[0]->type.dtype != IR_F32)
            return cg_lower_fail(l, op, "kernels compute in f32");
        return cg_lower_value(l, b, op->operands[0]);
    case IR_OP_SILU: {
        int x = cg_lower_value(l, b, op->operands[0]);
        return binary(l, b, CG_MUL, x, unary(l, b, CG_SIGMOID, x));
    }
    case IR_OP_GELU:
        return build_gelu(l, b, cg_lower_value(l, b, op->operands[0]));
    case IR_OP_GELU_TANH:
        return build_gelu_tanh(l, b, cg_lower_value(l, b, op->operands[0]));
    case IR_OP_SOFTCAP: {
        int cap = constant(l, b, ir_op_float(op, "cap"));
        int t =
            unary(l, b, CG_TANH, binary(l, b, CG_DIV, cg_lower_value(l, b, op->operands[0]), cap));
        return binary(l, b, CG_MUL, cap, t);
    }
    case IR_OP_BROADCAST:
        return cg_lower_value(l, b, op->operands[0]);
    case IR_OP_RESHAPE: {
        const ir_type *from = &op->operands[0]->type, *to = &op->results[0]->type;
        int64_t n = cg_lower_row_size(to);
        if (cg_lower_has_rows(to) && n != cg_lower_row_size(from))
            return cg_lower_fail(l, op, "it moves elements between rows");
        /* What is broadcast over heads or columns must stay so. */
        if (n != 1 && n != b->domain.heads * b->domain.width &&
            cg_lower_last_dim(from) != cg_lower_last_dim(to))
            return cg_lower_fail(l, op, "it moves elements between heads and columns");
        return cg_lower_value(l, b, op->operands[0]);
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
            return cg_lower_fail(l, op, "its axis is not the kernel's row");
        if (l->anchor && l->anchor->code == IR_OP_MATMUL && !b->prologue && op->code != IR_OP_ROPE)
            return cg_lower_fail(l, op,
                                 "a matmul's epilogue holds only a group of a row, not all of it");
        return op->code == IR_OP_RMS_NORM     ? build_rms_norm(l, b, op)
               : op->code == IR_OP_LAYER_NORM ? build_layer_norm(l, b, op)
               : op->code == IR_OP_SOFTMAX    ? build_softmax(l, b, op)
                                              : build_rope(l, b, op);
    case IR_OP_GATHER:
        return build_gather(l, b, op);
    case IR_OP_QUANTIZE:
        return cg_lower_fail(l, op, "a quantized value must leave the kernel that makes it");
    default:
        return cg_lower_fail(l, op,
                             "it has no lowering to scalar operations and is no anchor of its own");
    }
}

int cg_lower_value(cg_lowering *l, cg_lower_program *b, const ir_value *value) {
    for (int i = 0; i < b->n_memo; i++)
        if (b->memo_values[i] == value)
            return b->memo_nodes[i];
    int node, arg;
    int64_t offset;
    if (cg_lower_as_argument(l, value, &arg, &offset))
        node = load(l, b, value->def ? value->def : l->kernel, arg, offset, &value->type);
    else if (is_anchor_output(l, value))
        node = l->by_heads && !b->prologue ? build_input_of_heads(l, b, value)
                                           : build_input(l, b, value);
    else
        node = build_op(l, b, value->def);
    if (node >= 0 && b->n_memo < CG_LOWER_MAX_NODES) {
        b->memo_values[b->n_memo] = value;
        b->memo_nodes[b->n_memo++] = node;
    }
    return node;
}

/* --- quantized pages -----------------------------------------------------------------------------
 */

int cg_lower_kv_scale(cg_lowering *l, cg_lower_program *b, ir_dtype dtype, int x) {
    int most = reduce(l, b, CG_REDUCE_MAX, unary(l, b, CG_ABS, x));
    int scale = binary(l, b, CG_DIV, most, constant(l, b, ir_kv_most(dtype)));
    return unary(l, b, CG_ROUND_F16, binary(l, b, CG_MIN, scale, constant(l, b, 65504)));
}

int cg_lower_kv_scaled(cg_lowering *l, cg_lower_program *b, int x, int scale) {
    int zero = binary(l, b, CG_EQ, scale, constant(l, b, 0));
    int divisor = scalar(l, b, CG_WHERE, zero, constant(l, b, 1), scale);
    return binary(l, b, CG_DIV, x, divisor);
}

/* The shape rules: see shape.h. */
#include "ir/shape.h"
#include "ir/text.h"

#include <math.h>
#include <string.h>

/* --- helpers -----------------------------------------------------------------------------------
 */

static const ir_type *operand(const ir_op *op, int i) {
    return &op->operands[i]->type;
}

static const char *text(const ir_op *op, const ir_type *type) {
    return ir_type_text(op->owner->module->arena, type);
}

/* Reports that operand i is not `expected`; returns false. */
static bool bad_operand(const ir_op *op, int i, const char *expected, ir_diag *diag) {
    return ir_error(diag, ir_op_label(op), "operand %d of %s is %s, expected %s", i,
                    ir_op_info_get(op->code)->name, text(op, operand(op, i)), expected);
}

static bool bad_result(const ir_op *op, const char *expected, ir_diag *diag) {
    return ir_error(diag, ir_op_label(op), "the result of %s is stated as %s, expected %s",
                    ir_op_info_get(op->code)->name, text(op, &op->results[0]->type), expected);
}

static bool is_float(const ir_type *type) {
    return type->dtype <= IR_F8E5M2;
}

/* A plain tensor: not quantized, row-major. */
static bool is_dense(const ir_type *type) {
    return type->kind == IR_TENSOR && !type->encoding && !type->layout;
}

static bool is_dense_float(const ir_type *type) {
    return is_dense(type) && is_float(type);
}

/* A tensor whose elements have a row-major order, quantized or not. */
static bool is_row_major(const ir_type *type) {
    return type->kind == IR_TENSOR && !type->layout;
}

static bool dims_equal(const ir_type *a, const ir_type *b) {
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (!ir_dim_equal(a->dims[i], b->dims[i]))
            return false;
    return true;
}

static bool is_one(ir_dim d) {
    return ir_dim_is_const(d) && d.c == 1;
}

/* Broadcasts `count` dims of two shapes, aligned at the right, as numpy does. */
static bool broadcast_dims(const ir_dim *a, int rank_a, const ir_dim *b, int rank_b, ir_dim *out,
                           int *rank_out) {
    int rank = rank_a > rank_b ? rank_a : rank_b;
    for (int i = 1; i <= rank; i++) {
        ir_dim da = i <= rank_a ? a[rank_a - i] : ir_dim_const(1);
        ir_dim db = i <= rank_b ? b[rank_b - i] : ir_dim_const(1);
        if (!ir_dim_equal(da, db) && !is_one(da) && !is_one(db))
            return false;
        out[rank - i] = is_one(da) ? db : da;
    }
    *rank_out = rank;
    return true;
}

/* The broadcast shape of operands first…n-1, with dtype. */
static bool infer_broadcast(ir_op *op, int first, ir_dtype dtype, ir_diag *diag) {
    ir_type type = ir_tensor(dtype, operand(op, first)->rank, operand(op, first)->dims);
    for (int i = first + 1; i < op->n_operands; i++) {
        ir_dim dims[IR_MAX_RANK];
        if (!broadcast_dims(type.dims, type.rank, operand(op, i)->dims, operand(op, i)->rank, dims,
                            &type.rank))
            return ir_error(diag, ir_op_label(op),
                            "%s: shapes %s and %s do not broadcast to each other",
                            ir_op_info_get(op->code)->name, text(op, operand(op, first)),
                            text(op, operand(op, i)));
        memcpy(type.dims, dims, sizeof dims);
    }
    op->results[0]->type = type;
    return true;
}

static bool check_axis(const ir_op *op, const ir_type *type, int64_t *axis, ir_diag *diag) {
    *axis = ir_op_int(op, "axis");
    if (*axis < 0 || *axis >= type->rank)
        return ir_error(diag, ir_op_label(op), "axis %lld is out of range for %s", (long long)*axis,
                        text(op, type));
    return true;
}

static bool same_dtypes(ir_op *op, int first, ir_diag *diag) {
    for (int i = first + 1; i < op->n_operands; i++)
        if (operand(op, i)->dtype != operand(op, first)->dtype)
            return ir_error(diag, ir_op_label(op),
                            "%s: operands have element types %s and %s; cast one of them",
                            ir_op_info_get(op->code)->name,
                            ir_dtype_name(operand(op, first)->dtype),
                            ir_dtype_name(operand(op, i)->dtype));
    return true;
}

/* --- sources and sinks -------------------------------------------------------------------------
 */

static bool check_input(ir_op *op, ir_diag *diag) {
    static const struct {
        const char *name;
        ir_dim dim;
    } inputs[] = {{"token_ids", {.t = 1}}, {"positions", {.t = 1}}, {"output_rows", {.r = 1}}};
    const char *name = ir_op_string(op, "name");
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, inputs[i].name))
            continue;
        ir_type want = ir_tensor(IR_I32, 1, &inputs[i].dim);
        return ir_type_equal(&op->results[0]->type, &want) || bad_result(op, text(op, &want), diag);
    }
    return ir_error(diag, ir_op_label(op),
                    "the step has no input \"%s\"; it has token_ids, positions, output_rows", name);
}

bool ir_infer_given(ir_op *op, ir_diag *diag) {
    const ir_type *type = &op->results[0]->type;
    if (op->code == IR_OP_INPUT)
        return check_input(op, diag);
    if (type->kind != IR_TENSOR)
        return bad_result(op, "a tensor", diag);
    for (int i = 0; i < type->rank; i++)
        if (!ir_dim_is_const(type->dims[i]))
            return bad_result(op, "constant dimensions", diag);
    if (op->code == IR_OP_WEIGHT)
        return ir_op_string(op, "name")[0] ||
               ir_error(diag, ir_op_label(op), "a weight needs a name");
    if (!is_dense(type))
        return bad_result(op, "a tensor that is not quantized", diag);
    const ir_attr *values = ir_op_attr(op, "values");
    int64_t elements = ir_type_elements(type).c;
    if (values->count != 1 && values->count != elements)
        return ir_error(diag, ir_op_label(op),
                        "a constant of type %s has %d values, expected 1 or %lld", text(op, type),
                        values->count, (long long)elements);
    return true;
}

bool ir_infer_kv(ir_op *op, ir_diag *diag) {
    if (ir_op_int(op, "group") < 0 || ir_op_int(op, "layer") < 0)
        return ir_error(diag, ir_op_label(op), "group and layer of a kv_cache cannot be negative");
    op->results[0]->type = (ir_type){.kind = IR_KV};
    return true;
}

bool ir_infer_output(ir_op *op, ir_diag *diag) {
    const ir_type *type = operand(op, 0);
    const char *name = ir_op_string(op, "name");
    if (!name[0])
        return ir_error(diag, ir_op_label(op), "an output needs a name");
    if (!is_dense(type) || type->dtype != IR_F32)
        return bad_operand(op, 0, "an f32 tensor", diag);
    if ((!strcmp(name, "logits") || !strcmp(name, "hidden")) &&
        (type->rank != 2 || !ir_dim_equal(type->dims[0], IR_DIM_R)))
        return bad_operand(op, 0, "f32[R, …], a row per row asked for", diag);
    return true;
}

/* --- elementwise -------------------------------------------------------------------------------
 */

/* Ops that are also defined on integers. */
static bool takes_integers(ir_opcode code) {
    switch (code) {
    case IR_OP_NEG:
    case IR_OP_ABS:
    case IR_OP_ADD:
    case IR_OP_SUB:
    case IR_OP_MUL:
    case IR_OP_DIV:
    case IR_OP_MAX:
    case IR_OP_MIN:
        return true;
    default:
        return false;
    }
}

bool ir_infer_elementwise(ir_op *op, ir_diag *diag) {
    for (int i = 0; i < op->n_operands; i++) {
        const ir_type *type = operand(op, i);
        if (!is_dense(type) || type->dtype == IR_BOOL)
            return bad_operand(op, i, "a tensor of numbers that is not quantized", diag);
        if (!is_float(type) && !takes_integers(op->code))
            return bad_operand(op, i, "a floating-point tensor", diag);
    }
    if (op->code == IR_OP_SOFTCAP) {
        double cap = ir_op_float(op, "cap");
        if (!(cap > 0) || isinf(cap))
            return ir_error(diag, ir_op_label(op), "softcap's cap is %g, expected above 0", cap);
    }
    return same_dtypes(op, 0, diag) && infer_broadcast(op, 0, operand(op, 0)->dtype, diag);
}

bool ir_infer_cast(ir_op *op, ir_diag *diag) {
    const ir_type *type = &op->results[0]->type;
    if (!is_dense(operand(op, 0)))
        return bad_operand(op, 0, "a tensor that is not quantized (see dequantize)", diag);
    if (!is_dense(type) || !dims_equal(type, operand(op, 0)))
        return bad_result(op, "the operand's shape, not quantized", diag);
    return true;
}

bool ir_infer_compare(ir_op *op, ir_diag *diag) {
    for (int i = 0; i < 2; i++)
        if (!is_dense(operand(op, i)))
            return bad_operand(op, i, "a tensor that is not quantized", diag);
    return same_dtypes(op, 0, diag) && infer_broadcast(op, 0, IR_BOOL, diag);
}

bool ir_infer_where(ir_op *op, ir_diag *diag) {
    for (int i = 0; i < 3; i++)
        if (!is_dense(operand(op, i)))
            return bad_operand(op, i, "a tensor that is not quantized", diag);
    if (operand(op, 0)->dtype != IR_BOOL)
        return bad_operand(op, 0, "a bool tensor", diag);
    return same_dtypes(op, 1, diag) && infer_broadcast(op, 0, operand(op, 1)->dtype, diag);
}

/* --- shapes ------------------------------------------------------------------------------------
 */

bool ir_infer_reshape(ir_op *op, ir_diag *diag) {
    const ir_type *from = operand(op, 0), *to = &op->results[0]->type;
    if (!is_row_major(from))
        return bad_operand(op, 0, "a tensor in row-major order", diag);
    if (!is_row_major(to) || to->encoding != from->encoding || to->dtype != from->dtype)
        return bad_result(op, "the operand's element type", diag);
    if (!ir_dim_equal(ir_type_elements(from), ir_type_elements(to)))
        return ir_error(diag, ir_op_label(op),
                        "reshape from %s to %s changes the number of elements", text(op, from),
                        text(op, to));
    if (from->encoding && !ir_dim_equal(from->dims[from->rank - 1], to->dims[to->rank - 1]))
        return bad_result(op, "the same last dimension, along which it is quantized", diag);
    return true;
}

bool ir_infer_transpose(ir_op *op, ir_diag *diag) {
    const ir_type *from = operand(op, 0);
    if (!is_dense(from))
        return bad_operand(op, 0, "a tensor that is not quantized", diag);
    const ir_attr *perm = ir_op_attr(op, "perm");
    unsigned seen = 0;
    if (perm->count != from->rank)
        return ir_error(diag, ir_op_label(op), "perm has %d entries, %s has %d dimensions",
                        perm->count, text(op, from), from->rank);
    ir_type type = ir_tensor(from->dtype, from->rank, from->dims);
    for (int i = 0; i < perm->count; i++) {
        int64_t p = perm->ints[i];
        if (p < 0 || p >= from->rank || (seen >> p & 1))
            return ir_error(diag, ir_op_label(op), "perm is no permutation: entry %d is %lld", i,
                            (long long)p);
        seen |= 1u << p;
        type.dims[i] = from->dims[p];
    }
    op->results[0]->type = type;
    return true;
}

bool ir_infer_broadcast(ir_op *op, ir_diag *diag) {
    const ir_type *from = operand(op, 0), *to = &op->results[0]->type;
    if (!is_dense(from))
        return bad_operand(op, 0, "a tensor that is not quantized", diag);
    if (!is_dense(to) || to->dtype != from->dtype)
        return bad_result(op, "the operand's element type", diag);
    ir_dim dims[IR_MAX_RANK];
    int rank;
    bool fits = from->rank <= to->rank &&
                broadcast_dims(from->dims, from->rank, to->dims, to->rank, dims, &rank);
    for (int i = 0; fits && i < to->rank; i++)
        fits = ir_dim_equal(dims[i], to->dims[i]);
    return fits || ir_error(diag, ir_op_label(op), "%s does not broadcast to %s", text(op, from),
                            text(op, to));
}

bool ir_infer_slice(ir_op *op, ir_diag *diag) {
    const ir_type *from = operand(op, 0);
    int64_t axis, start = ir_op_int(op, "start"), size = ir_op_int(op, "size");
    if (!is_row_major(from))
        return bad_operand(op, 0, "a tensor in row-major order", diag);
    if (!check_axis(op, from, &axis, diag))
        return false;
    if (!ir_dim_is_const(from->dims[axis]))
        return ir_error(diag, ir_op_label(op), "slice along axis %lld of %s, which is not constant",
                        (long long)axis, text(op, from));
    if (from->encoding && axis == from->rank - 1)
        return ir_error(diag, ir_op_label(op),
                        "slice along the last axis of %s, along which it is quantized",
                        text(op, from));
    if (start < 0 || size < 1 || start > from->dims[axis].c || size > from->dims[axis].c - start)
        return ir_error(diag, ir_op_label(op),
                        "slice of %lld elements from %lld on exceeds axis %lld of %s",
                        (long long)size, (long long)start, (long long)axis, text(op, from));
    ir_type type = *from;
    type.dims[axis] = ir_dim_const(size);
    op->results[0]->type = type;
    return true;
}

bool ir_infer_concat(ir_op *op, ir_diag *diag) {
    ir_type type = *operand(op, 0);
    int64_t axis;
    for (int i = 0; i < op->n_operands; i++)
        if (!is_dense(operand(op, i)))
            return bad_operand(op, i, "a tensor that is not quantized (see weight_concat)", diag);
    if (!check_axis(op, &type, &axis, diag) || !same_dtypes(op, 0, diag))
        return false;
    for (int i = 1; i < op->n_operands; i++) {
        ir_type aligned = *operand(op, i);
        if (aligned.rank == type.rank)
            aligned.dims[axis] = type.dims[axis];
        if (!dims_equal(&aligned, &type))
            return ir_error(diag, ir_op_label(op), "concat along axis %lld: %s does not fit %s",
                            (long long)axis, text(op, operand(op, i)), text(op, operand(op, 0)));
        type.dims[axis] = ir_dim_add(type.dims[axis], operand(op, i)->dims[axis]);
    }
    op->results[0]->type = type;
    return true;
}

bool ir_infer_gather(ir_op *op, ir_diag *diag) {
    const ir_type *table = operand(op, 0), *indices = operand(op, 1);
    /* A packed table is one weight with a matmul's, as with tied embeddings. */
    if (table->kind != IR_TENSOR || table->rank < 1 + (table->encoding || table->layout))
        return bad_operand(op, 0, "a table of rows", diag);
    if (!is_dense(indices) || indices->dtype != IR_I32)
        return bad_operand(op, 1, "i32 indices", diag);
    if (indices->rank + table->rank - 1 > IR_MAX_RANK)
        return ir_error(diag, ir_op_label(op), "gather of %s by %s has more than %d dimensions",
                        text(op, table), text(op, indices), IR_MAX_RANK);
    ir_type type = ir_tensor(table->dtype, indices->rank, indices->dims);
    for (int i = 1; i < table->rank; i++)
        type.dims[type.rank++] = table->dims[i];
    op->results[0]->type = type;
    return true;
}

/* --- reductions --------------------------------------------------------------------------------
 */

bool ir_infer_reduce(ir_op *op, ir_diag *diag) {
    int64_t axis;
    if (!is_dense_float(operand(op, 0)))
        return bad_operand(op, 0, "a floating-point tensor", diag);
    if (!check_axis(op, operand(op, 0), &axis, diag))
        return false;
    op->results[0]->type = *operand(op, 0);
    op->results[0]->type.dims[axis] = ir_dim_const(1);
    return true;
}

bool ir_infer_softmax(ir_op *op, ir_diag *diag) {
    int64_t axis;
    if (!is_dense_float(operand(op, 0)))
        return bad_operand(op, 0, "a floating-point tensor", diag);
    if (!check_axis(op, operand(op, 0), &axis, diag))
        return false;
    op->results[0]->type = *operand(op, 0);
    return true;
}

bool ir_infer_norm(ir_op *op, ir_diag *diag) {
    const ir_type *x = operand(op, 0);
    if (!is_dense_float(x) || x->rank < 1 || !ir_dim_is_const(x->dims[x->rank - 1]))
        return bad_operand(op, 0, "a floating-point tensor with a constant last dimension", diag);
    ir_type weight = ir_tensor(x->dtype, 1, &x->dims[x->rank - 1]);
    for (int i = 1; i < op->n_operands; i++)
        if (!is_dense_float(operand(op, i)) || !dims_equal(operand(op, i), &weight))
            return bad_operand(op, i, text(op, &weight), diag);
    double eps = ir_op_float(op, "eps");
    if (!(eps >= 0) || isinf(eps))
        return ir_error(diag, ir_op_label(op), "eps is %g, expected 0 or more", eps);
    op->results[0]->type = *x;
    return true;
}

/* --- matrix products ---------------------------------------------------------------------------
 */

bool ir_infer_matmul(ir_op *op, ir_diag *diag) {
    const ir_type *a = operand(op, 0), *b = operand(op, 1);
    bool transposed = ir_op_int(op, "transpose_b") != 0;
    if (!is_row_major(a) || a->rank < 2 || !is_float(a))
        return bad_operand(op, 0, "a floating-point matrix", diag);
    if (b->kind != IR_TENSOR || b->rank < 2 || !is_float(b))
        return bad_operand(op, 1, "a floating-point matrix", diag);
    if (transposed && b->rank != 2)
        return bad_operand(op, 1, "a matrix [N, K], because of transpose_b", diag);
    if (!transposed && (b->encoding || b->layout))
        return bad_operand(op, 1, "transpose_b, which quantized and packed weights need", diag);
    if (a->encoding && !ir_encodings_multiply(a->encoding, b->encoding))
        return bad_operand(op, 0,
                           "a8 beside a weight of integer codes, a8_e4m3 beside one in fp8_e4m3, "
                           "or not quantized",
                           diag);
    if (b->encoding && ir_encoding_of_activations(b->encoding))
        return bad_operand(op, 1, "a weight's encoding", diag);
    ir_dim k = b->dims[b->rank - (transposed ? 1 : 2)];
    ir_dim n = b->dims[b->rank - (transposed ? 2 : 1)];
    if (!ir_dim_equal(a->dims[a->rank - 1], k))
        return ir_error(diag, ir_op_label(op), "matmul: %s and %s%s differ in K", text(op, a),
                        text(op, b), transposed ? " (transposed)" : "");
    ir_type type = {.kind = IR_TENSOR, .dtype = IR_F32};
    if (!broadcast_dims(a->dims, a->rank - 2, b->dims, b->rank - 2, type.dims, &type.rank))
        return ir_error(diag, ir_op_label(op),
                        "matmul: the leading dimensions of %s and %s do not broadcast", text(op, a),
                        text(op, b));
    type.dims[type.rank++] = a->dims[a->rank - 2];
    type.dims[type.rank++] = n;
    op->results[0]->type = type;
    return true;
}

bool ir_infer_weight_concat(ir_op *op, ir_diag *diag) {
    ir_type type = *operand(op, 0);
    for (int i = 0; i < op->n_operands; i++) {
        const ir_type *w = operand(op, i);
        if (!is_row_major(w) || w->rank != 2 || !ir_dim_is_const(w->dims[0]) ||
            !ir_dim_is_const(w->dims[1]))
            return bad_operand(op, i, "a constant matrix in row-major order", diag);
        if (w->encoding != type.encoding || w->dtype != type.dtype ||
            !ir_dim_equal(w->dims[1], type.dims[1]))
            return ir_error(diag, ir_op_label(op),
                            "weight_concat: %s and %s differ in width or encoding",
                            text(op, operand(op, 0)), text(op, w));
        if (i)
            type.dims[0] = ir_dim_add(type.dims[0], w->dims[0]);
    }
    op->results[0]->type = type;
    return true;
}

bool ir_infer_pack(ir_op *op, ir_diag *diag) {
    ir_type type = *operand(op, 0);
    if (!is_row_major(&type) || type.rank != 2 || !ir_dim_is_const(type.dims[0]) ||
        !ir_dim_is_const(type.dims[1]))
        return bad_operand(op, 0, "a constant matrix in row-major order", diag);
    type.layout = ir_op_string(op, "layout");
    op->results[0]->type = type;
    return true; /* ir_type_check looks at the layout's name */
}

/* --- transformer blocks ------------------------------------------------------------------------
 */

static bool check_rope(const ir_op *op, int64_t width, ir_diag *diag) {
    int64_t dims = ir_op_int(op, "dims");
    const char *style = ir_op_string(op, "style");
    if (dims < 2 || dims % 2 || dims > width)
        return ir_error(diag, ir_op_label(op),
                        "dims is %lld, expected an even number from 2 to %lld", (long long)dims,
                        (long long)width);
    if (strcmp(style, "half") && strcmp(style, "interleaved"))
        return ir_error(diag, ir_op_label(op), "style is \"%s\", expected half or interleaved",
                        style);
    return true;
}

bool ir_infer_rope_table(ir_op *op, ir_diag *diag) {
    const ir_type *positions = operand(op, 0);
    int64_t width = ir_op_int(op, "width"), dims = ir_op_int(op, "dims");
    double theta = ir_op_float(op, "theta"), scale = ir_op_float(op, "scale");
    if (!is_dense(positions) || positions->dtype != IR_I32 || positions->rank != 1)
        return bad_operand(op, 0, "i32[T]", diag);
    if (width < 2 || width > IR_MAX_DIM)
        return ir_error(diag, ir_op_label(op), "width is %lld, expected at least 2",
                        (long long)width);
    if (!check_rope(op, width, diag))
        return false;
    if (!(theta > 0) || isinf(theta))
        return ir_error(diag, ir_op_label(op), "theta is %g, expected above 0", theta);
    if (!(scale > 0) || isinf(scale))
        return ir_error(diag, ir_op_label(op), "scale is %g, expected above 0", scale);
    if (op->n_operands == 2) {
        ir_dim half = ir_dim_const(dims / 2);
        ir_type want = ir_tensor(IR_F32, 1, &half);
        if (!ir_type_equal(operand(op, 1), &want))
            return bad_operand(op, 1, text(op, &want), diag);
    }
    op->results[0]->type =
        ir_tensor(IR_F32, 3, (ir_dim[]){positions->dims[0], ir_dim_const(2), ir_dim_const(width)});
    return true;
}

/* [T, H, D] with constant H and D. */
static bool is_heads(const ir_type *type) {
    return is_dense_float(type) && type->rank == 3 && ir_dim_is_const(type->dims[1]) &&
           ir_dim_is_const(type->dims[2]);
}

bool ir_infer_rope(ir_op *op, ir_diag *diag) {
    const ir_type *x = operand(op, 0);
    if (!is_heads(x))
        return bad_operand(op, 0, "a floating-point tensor [T, H, D]", diag);
    ir_type want = ir_tensor(IR_F32, 3, (ir_dim[]){x->dims[0], ir_dim_const(2), x->dims[2]});
    if (!ir_type_equal(operand(op, 1), &want))
        return bad_operand(op, 1, text(op, &want), diag);
    if (!check_rope(op, x->dims[2].c, diag))
        return false;
    op->results[0]->type = *x;
    return true;
}

static bool check_attention_attrs(const ir_op *op, ir_diag *diag) {
    double scale = ir_op_float(op, "scale"), softcap = ir_op_float(op, "softcap");
    int64_t window = ir_op_int(op, "window");
    if (!isfinite(scale))
        return ir_error(diag, ir_op_label(op), "scale is %g, expected a finite number", scale);
    if (!(softcap >= 0) || isinf(softcap))
        return ir_error(diag, ir_op_label(op), "softcap is %g, expected 0 (none) or above",
                        softcap);
    if (window < 0)
        return ir_error(diag, ir_op_label(op), "window is %lld, expected 0 (none) or above",
                        (long long)window);
    return true;
}

static void set_heads(ir_op *op, const ir_type *q) {
    op->results[0]->type = ir_tensor(IR_F32, 3, q->dims);
}

bool ir_infer_attention(ir_op *op, ir_diag *diag) {
    const ir_type *q = operand(op, 0), *k = operand(op, 1), *v = operand(op, 2);
    if (!is_heads(q))
        return bad_operand(op, 0, "a floating-point tensor [T, H, D]", diag);
    if (!is_heads(k) || !ir_dim_equal(k->dims[0], q->dims[0]) ||
        !ir_dim_equal(k->dims[2], q->dims[2]))
        return bad_operand(op, 1, "[T, G, D] with T and D of the queries", diag);
    if (!is_heads(v) || !dims_equal(k, v))
        return bad_operand(op, 2, "the keys' shape", diag);
    if (q->dims[1].c % k->dims[1].c)
        return ir_error(diag, ir_op_label(op), "%lld query heads are no multiple of %lld kv heads",
                        (long long)q->dims[1].c, (long long)k->dims[1].c);
    set_heads(op, q);
    return check_attention_attrs(op, diag);
}

bool ir_infer_kv_append(ir_op *op, ir_diag *diag) {
    if (operand(op, 0)->kind != IR_KV)
        return bad_operand(op, 0, "kv", diag);
    if (!is_heads(operand(op, 1)))
        return bad_operand(op, 1, "a floating-point tensor [T, G, D]", diag);
    if (!is_heads(operand(op, 2)) || !dims_equal(operand(op, 1), operand(op, 2)))
        return bad_operand(op, 2, "the keys' shape", diag);
    op->results[0]->type = (ir_type){.kind = IR_KV};
    return true;
}

bool ir_infer_paged_attention(ir_op *op, ir_diag *diag) {
    if (!is_heads(operand(op, 0)))
        return bad_operand(op, 0, "a floating-point tensor [T, H, D]", diag);
    if (operand(op, 1)->kind != IR_KV)
        return bad_operand(op, 1, "kv", diag);
    set_heads(op, operand(op, 0));
    return check_attention_attrs(op, diag);
}

bool ir_infer_sample(ir_op *op, ir_diag *diag) {
    const ir_type *logits = operand(op, 0);
    if (!is_dense(logits) || logits->dtype != IR_F32 || logits->rank != 2 ||
        !ir_dim_equal(logits->dims[0], IR_DIM_R) || !ir_dim_is_const(logits->dims[1]) ||
        logits->dims[1].c < 1 || logits->dims[1].c > 1 << 24)
        return bad_operand(op, 0, "f32[R, V] with V from 1 to 2^24", diag);
    op->results[0]->type = ir_tensor(IR_F32, 2, (ir_dim[]){IR_DIM_R, ir_dim_const(4)});
    return true;
}

/* --- quantization ------------------------------------------------------------------------------
 */

bool ir_infer_quantize(ir_op *op, ir_diag *diag) {
    const ir_type *x = operand(op, 0), *type = &op->results[0]->type;
    if (!is_dense(x) || x->dtype != IR_F32)
        return bad_operand(op, 0, "an f32 tensor", diag);
    if (!is_row_major(type) || !type->encoding || !dims_equal(x, type))
        return bad_result(op, "a quantized tensor of the operand's shape", diag);
    return true;
}

bool ir_infer_dequantize(ir_op *op, ir_diag *diag) {
    const ir_type *x = operand(op, 0);
    if (!is_row_major(x) || !x->encoding)
        return bad_operand(op, 0, "a quantized tensor in row-major order", diag);
    op->results[0]->type = ir_tensor(IR_F32, x->rank, x->dims);
    return true;
}

/* --- fused kernels -----------------------------------------------------------------------------
 */

bool ir_infer_kernel(ir_op *op, ir_diag *diag) {
    const ir_graph *body = op->body;
    if (op->n_results < 1)
        return ir_error(diag, ir_op_label(op), "a kernel needs a result");
    if (body->n_args != op->n_operands)
        return ir_error(diag, ir_op_label(op), "the kernel has %d operands, its body %d arguments",
                        op->n_operands, body->n_args);
    for (int i = 0; i < body->n_args; i++)
        if (!ir_type_equal(&body->args[i]->type, operand(op, i)))
            return bad_operand(op, i, text(op, &body->args[i]->type), diag);
    const ir_op *yield = body->last;
    if (!yield || yield->code != IR_OP_YIELD)
        return ir_error(diag, ir_op_label(op), "the kernel's body does not end in a yield");
    if (yield->n_operands != op->n_results)
        return ir_error(diag, ir_op_label(op), "the kernel has %d results, its body yields %d",
                        op->n_results, yield->n_operands);
    for (int i = 0; i < op->n_results; i++)
        if (!ir_type_equal(&op->results[i]->type, operand(yield, i)))
            return ir_error(diag, ir_op_label(op), "result %d is %s, but the body yields %s", i,
                            text(op, &op->results[i]->type), text(op, operand(yield, i)));
    return true;
}

bool ir_infer_yield(ir_op *op, ir_diag *diag) {
    (void)op, (void)diag;
    return true; /* where a yield may stand, and what it yields, the kernel and the verifier check
                  */
}

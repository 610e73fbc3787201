/* The interpreter's elementwise ops, shapes, reductions and matrix products. Arithmetic is in
 * double and rounded once to the result's element type, so that the oracle is more exact than what
 * is checked against it. */
#include "ir/interp_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- elementwise -------------------------------------------------------------------------------
 */

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* One element; a, b, c are the operands'. */
static double apply(const ir_op *op, bool integers, double a, double b, double c, double cap) {
    switch (op->code) {
    case IR_OP_NEG:
        return -a;
    case IR_OP_ABS:
        return fabs(a);
    case IR_OP_EXP:
        return exp(a);
    case IR_OP_LOG:
        return log(a);
    case IR_OP_SQRT:
        return sqrt(a);
    case IR_OP_RSQRT:
        return 1 / sqrt(a);
    case IR_OP_SIN:
        return sin(a);
    case IR_OP_COS:
        return cos(a);
    case IR_OP_TANH:
        return tanh(a);
    case IR_OP_ERF:
        return erf(a);
    case IR_OP_SIGMOID:
        return sigmoid(a);
    case IR_OP_ADD:
        return a + b;
    case IR_OP_SUB:
        return a - b;
    case IR_OP_MUL:
        return a * b;
    case IR_OP_DIV: /* of integers: towards zero, as in C and ONNX */
        return integers ? trunc(a / b) : a / b;
    case IR_OP_MAX:
        return a > b || isnan(a) ? a : b;
    case IR_OP_MIN:
        return a < b || isnan(a) ? a : b;
    case IR_OP_POW:
        return pow(a, b);
    case IR_OP_LT:
        return a < b;
    case IR_OP_LE:
        return a <= b;
    case IR_OP_EQ:
        return a == b;
    case IR_OP_WHERE:
        return a != 0 ? b : c;
    case IR_OP_SILU:
        return a * sigmoid(a);
    case IR_OP_GELU:
        return a / 2 * (1 + erf(a * M_SQRT1_2));
    case IR_OP_GELU_TANH:
        return a / 2 * (1 + tanh(M_2_SQRTPI * M_SQRT1_2 * (a + 0.044715 * a * a * a)));
    case IR_OP_SOFTCAP:
        return cap * tanh(a / cap);
    default: /* CAST */
        return a;
    }
}

bool interp_elementwise(ir_interp *in, const ir_op *op) {
    const float *data[3] = {0};
    int64_t strides[3][IR_MAX_RANK], offsets[3] = {0}, index[IR_MAX_RANK] = {0};
    interp_shape shape, from;
    float *out = interp_result(in, op, 0, &shape);
    if (!out)
        return false;
    for (int i = 0; i < op->n_operands; i++) {
        data[i] = interp_operand(in, op, i, &from);
        if (!data[i])
            return false;
        if (!interp_broadcast_strides(&from, &shape, strides[i]))
            return ir_error(in->diag, ir_op_label(op),
                            "operand %d does not broadcast to the result in this step", i);
    }
    ir_dtype dtype = op->results[0]->type.dtype;
    bool integers = dtype >= IR_I64;
    double cap = op->code == IR_OP_SOFTCAP ? ir_op_float(op, "cap") : 0;
    for (int64_t i = 0; i < shape.count; i++) {
        double v = apply(op, integers, data[0][offsets[0]], data[1] ? data[1][offsets[1]] : 0,
                         data[2] ? data[2][offsets[2]] : 0, cap);
        if (!interp_round(dtype, v, &out[i]))
            return interp_round_error(in, op, dtype, v);
        interp_next(shape.rank, shape.dims, index, op->n_operands,
                    (const int64_t(*)[IR_MAX_RANK])strides, offsets);
    }
    return true;
}

/* --- shapes ------------------------------------------------------------------------------------
 */

/* reshape and dequantize: the same numbers. */
bool interp_reshape(ir_interp *in, const ir_op *op) {
    interp_shape shape, from;
    float *out = interp_result(in, op, 0, &shape);
    const float *data = out ? interp_operand(in, op, 0, &from) : NULL;
    if (!data)
        return false;
    if (from.count != shape.count)
        return ir_error(in->diag, ir_op_label(op), "%lld elements cannot become %lld",
                        (long long)from.count, (long long)shape.count);
    memcpy(out, data, (size_t)shape.count * sizeof *out);
    return true;
}

/* out[index] = data[sum of index[i] * strides[i]]. */
static void copy_strided(const interp_shape *shape, const int64_t *strides, const float *data,
                         float *out) {
    int64_t index[IR_MAX_RANK] = {0}, offset = 0;
    for (int64_t i = 0; i < shape->count; i++) {
        out[i] = data[offset];
        interp_next(shape->rank, shape->dims, index, 1, (const int64_t(*)[IR_MAX_RANK])strides,
                    &offset);
    }
}

bool interp_transpose(ir_interp *in, const ir_op *op) {
    interp_shape shape, from;
    float *out = interp_result(in, op, 0, &shape);
    const float *data = out ? interp_operand(in, op, 0, &from) : NULL;
    if (!data)
        return false;
    const int64_t *perm = ir_op_attr(op, "perm")->ints;
    int64_t own[IR_MAX_RANK], strides[IR_MAX_RANK], stride = 1;
    for (int i = from.rank - 1; i >= 0; i--) {
        own[i] = stride;
        stride *= from.dims[i];
    }
    for (int i = 0; i < shape.rank; i++)
        strides[i] = own[perm[i]];
    copy_strided(&shape, strides, data, out);
    return true;
}

bool interp_broadcast(ir_interp *in, const ir_op *op) {
    interp_shape shape, from;
    int64_t strides[IR_MAX_RANK];
    float *out = interp_result(in, op, 0, &shape);
    const float *data = out ? interp_operand(in, op, 0, &from) : NULL;
    if (!data)
        return false;
    if (!interp_broadcast_strides(&from, &shape, strides))
        return ir_error(in->diag, ir_op_label(op), "the operand does not broadcast to the result");
    copy_strided(&shape, strides, data, out);
    return true;
}

/* A tensor seen around one axis: [outer][axis][inner]. */
typedef struct around {
    int64_t outer, size, inner;
} around;

static around around_axis(const interp_shape *shape, int64_t axis) {
    around a = {.outer = 1, .size = shape->dims[axis], .inner = 1};
    for (int i = 0; i < axis; i++)
        a.outer *= shape->dims[i];
    for (int i = (int)axis + 1; i < shape->rank; i++)
        a.inner *= shape->dims[i];
    return a;
}

bool interp_slice(ir_interp *in, const ir_op *op) {
    interp_shape from;
    float *out = interp_result(in, op, 0, NULL);
    const float *data = out ? interp_operand(in, op, 0, &from) : NULL;
    if (!data)
        return false;
    around a = around_axis(&from, ir_op_int(op, "axis"));
    int64_t start = ir_op_int(op, "start"), size = ir_op_int(op, "size");
    for (int64_t o = 0; o < a.outer; o++)
        memcpy(out + o * size * a.inner, data + (o * a.size + start) * a.inner,
               (size_t)(size * a.inner) * sizeof *out);
    return true;
}

/* concat and, of operands that are not rows of weights, weight_concat (along axis 0). */
bool interp_concat(ir_interp *in, const ir_op *op) {
    interp_shape shape, from;
    float *out = interp_result(in, op, 0, &shape);
    if (!out)
        return false;
    int64_t axis = op->code == IR_OP_CONCAT ? ir_op_int(op, "axis") : 0, done = 0;
    int64_t whole = around_axis(&shape, axis).size;
    for (int i = 0; i < op->n_operands; i++) {
        const float *data = interp_operand(in, op, i, &from);
        if (!data)
            return false;
        around a = around_axis(&from, axis);
        for (int64_t o = 0; o < a.outer; o++)
            memcpy(out + (o * whole + done) * a.inner, data + o * a.size * a.inner,
                   (size_t)(a.size * a.inner) * sizeof *out);
        done += a.size;
    }
    return true;
}

bool interp_gather(ir_interp *in, const ir_op *op) {
    interp_shape table_shape, index_shape;
    const interp_value *table = &in->values[op->operands[0]->id];
    float *out = interp_result(in, op, 0, NULL);
    const float *indices = out ? interp_operand(in, op, 1, &index_shape) : NULL;
    if (!indices || !interp_shape_of(in, op, &op->operands[0]->type, &table_shape))
        return false;
    if (!table->ready)
        return ir_internal_error(in->diag, ir_op_label(op), "operand 0 has no value");
    /* Only the rows asked for are decoded: row i of the table is `inner` stored rows of k. */
    int64_t n = table_shape.dims[0];
    int64_t k = table_shape.rank > 1 ? table_shape.dims[table_shape.rank - 1] : 1, inner = 1;
    for (int i = 1; i < table_shape.rank - 1; i++)
        inner *= table_shape.dims[i];
    if (table_shape.rank == 1 && !interp_operand(in, op, 0, NULL))
        return false;
    for (int64_t i = 0; i < index_shape.count; i++) {
        if (!(indices[i] >= 0 && indices[i] < (float)n))
            return ir_error(in->diag, ir_op_label(op),
                            "index %g at place %lld, but the table has %lld rows",
                            (double)indices[i], (long long)i, (long long)n);
        for (int64_t j = 0; j < inner; j++, out += k) {
            const float *row = interp_row(table, (int64_t)indices[i] * inner + j, k, out);
            if (row != out)
                memcpy(out, row, (size_t)k * sizeof *out);
        }
    }
    return true;
}

/* --- reductions --------------------------------------------------------------------------------
 */

bool interp_reduce(ir_interp *in, const ir_op *op) {
    interp_shape from;
    float *out = interp_result(in, op, 0, NULL);
    const float *data = out ? interp_operand(in, op, 0, &from) : NULL;
    if (!data)
        return false;
    around a = around_axis(&from, ir_op_int(op, "axis"));
    ir_dtype dtype = op->results[0]->type.dtype;
    for (int64_t o = 0; o < a.outer; o++)
        for (int64_t i = 0; i < a.inner; i++) {
            const float *x = data + o * a.size * a.inner + i;
            double total = op->code == IR_OP_REDUCE_MAX ? -INFINITY : 0;
            for (int64_t j = 0; j < a.size; j++) {
                double v = x[j * a.inner];
                if (op->code == IR_OP_REDUCE_MAX)
                    total = v > total || isnan(v) ? v : total;
                else
                    total += v;
            }
            if (op->code == IR_OP_REDUCE_MEAN)
                total /= (double)a.size;
            interp_round(dtype, total, out++);
        }
    return true;
}

bool interp_softmax(ir_interp *in, const ir_op *op) {
    interp_shape from;
    float *out = interp_result(in, op, 0, NULL);
    const float *data = out ? interp_operand(in, op, 0, &from) : NULL;
    if (!data)
        return false;
    around a = around_axis(&from, ir_op_int(op, "axis"));
    ir_dtype dtype = op->results[0]->type.dtype;
    for (int64_t o = 0; o < a.outer; o++)
        for (int64_t i = 0; i < a.inner; i++) {
            int64_t base = o * a.size * a.inner + i;
            double max = -INFINITY, sum = 0;
            for (int64_t j = 0; j < a.size; j++)
                max = fmax(max, data[base + j * a.inner]);
            for (int64_t j = 0; j < a.size; j++)
                sum += exp(data[base + j * a.inner] - max);
            for (int64_t j = 0; j < a.size; j++)
                interp_round(dtype, exp(data[base + j * a.inner] - max) / sum,
                             &out[base + j * a.inner]);
        }
    return true;
}

/* --- matrix products ---------------------------------------------------------------------------
 */

enum { ROWS = 4, LANES = 4 };

/* The dot products of `rows` (at most ROWS) consecutive rows of a with w; each in LANES partial
 * sums, which compilers turn into vectors. The order is the same for any number of rows, so that a
 * token's result does not depend on what else is in the step. */
static void dot_rows(const double *a, int64_t rows, const double *w, int64_t k, double *sums) {
    for (int64_t r = 0; r < rows; r++, a += k) {
        double s[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= k; i += LANES)
            for (int j = 0; j < LANES; j++)
                s[j] += a[i + j] * w[i + j];
        for (; i < k; i++)
            s[0] += a[i] * w[i];
        sums[r] = (s[0] + s[1]) + (s[2] + s[3]);
    }
}

/* a[m, k] with b[n, k]: row by row of b, each decoded once. */
static bool matmul_transposed(ir_interp *in, const ir_op *op, const interp_value *b, int64_t m,
                              int64_t n, int64_t k, const float *a, float *out) {
    float *scratch = interp_alloc(in, op, k);
    double *wide = NULL;
    int64_t elements, bytes;
    if (!__builtin_add_overflow(m, 1, &elements) &&
        !__builtin_mul_overflow(elements, k, &elements) &&
        !__builtin_mul_overflow(elements, (int64_t)sizeof *wide, &bytes))
        wide = malloc(bytes ? (size_t)bytes : 1);
    if (!scratch || !wide) {
        free(scratch);
        free(wide);
        return ir_error(in->diag, ir_op_label(op), "no memory for %lld rows of %lld", (long long)m,
                        (long long)k);
    }
    double *w = wide + m * k;
    for (int64_t i = 0; i < m * k; i++)
        wide[i] = a[i];
    for (int64_t j = 0; j < n; j++) {
        const float *row = interp_row(b, j, k, scratch);
        for (int64_t i = 0; i < k; i++)
            w[i] = row[i];
        for (int64_t r = 0; r < m; r += ROWS) {
            double sums[ROWS];
            int64_t rows = m - r < ROWS ? m - r : ROWS;
            dot_rows(wide + r * k, rows, w, k, sums);
            for (int64_t i = 0; i < rows; i++)
                out[(r + i) * n + j] = (float)sums[i];
        }
    }
    free(scratch);
    free(wide);
    return true;
}

/* One a[m, k] with b[k, n]; sums has room for n. */
static void matmul_plain(int64_t m, int64_t n, int64_t k, const float *a, const float *b,
                         double *sums, float *out) {
    for (int64_t i = 0; i < m; i++, a += k, out += n) {
        memset(sums, 0, (size_t)n * sizeof *sums);
        for (int64_t l = 0; l < k; l++) {
            double v = a[l];
            for (int64_t j = 0; j < n; j++)
                sums[j] += v * b[l * n + j];
        }
        for (int64_t j = 0; j < n; j++)
            out[j] = (float)sums[j];
    }
}

bool interp_matmul(ir_interp *in, const ir_op *op) {
    interp_shape as, bs, shape;
    float *out = interp_result(in, op, 0, &shape);
    const float *a = out ? interp_operand(in, op, 0, &as) : NULL;
    if (!a || !interp_shape_of(in, op, &op->operands[1]->type, &bs))
        return false;
    int64_t k = as.dims[as.rank - 1], n = shape.dims[shape.rank - 1];
    const interp_value *bv = &in->values[op->operands[1]->id];
    if (!bv->ready)
        return ir_internal_error(in->diag, ir_op_label(op), "operand 1 has no value");
    if (ir_op_int(op, "transpose_b")) /* b is a matrix, so a's leading dims are rows */
        return matmul_transposed(in, op, bv, k ? as.count / k : 0, n, k, a, out);

    const float *b = interp_operand(in, op, 1, NULL);
    double *sums = b && n <= INT64_MAX / 8 ? malloc((size_t)(n ? n : 1) * sizeof *sums) : NULL;
    if (!sums)
        return ir_error(in->diag, ir_op_label(op), "no memory for %lld sums", (long long)n);
    /* Leading dims broadcast; strides count whole matrices. */
    int64_t m = as.dims[as.rank - 2], strides[2][IR_MAX_RANK], index[IR_MAX_RANK] = {0};
    int64_t at[2] = {0}, batches = 1;
    interp_shape lead = shape, lead_a = as, lead_b = bs;
    lead.rank -= 2, lead_a.rank -= 2, lead_b.rank -= 2;
    bool fits = interp_broadcast_strides(&lead_a, &lead, strides[0]) &&
                interp_broadcast_strides(&lead_b, &lead, strides[1]);
    for (int i = 0; i < lead.rank; i++)
        batches *= lead.dims[i];
    for (int64_t i = 0; fits && i < batches; i++, out += m * n) {
        matmul_plain(m, n, k, a + at[0] * m * k, b + at[1] * k * n, sums, out);
        interp_next(lead.rank, lead.dims, index, 2, (const int64_t(*)[IR_MAX_RANK])strides, at);
    }
    free(sums);
    return fits || ir_error(in->diag, ir_op_label(op),
                            "the leading dimensions do not broadcast in this step");
}

/* Dims, element types and tensor types. The numbers inside encodings are encoding.c's. */
#include "ir/ir.h"
#include "ir/text.h"

#include <string.h>

/* --- dims --------------------------------------------------------------------------------------
 */

const ir_dim IR_DIM_T = {.t = 1}, IR_DIM_S = {.s = 1}, IR_DIM_R = {.r = 1};

static int64_t add_saturating(int64_t a, int64_t b) {
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t mul_saturating(int64_t a, int64_t b) {
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

ir_dim ir_dim_const(int64_t c) {
    return (ir_dim){.c = c};
}

bool ir_dim_equal(ir_dim a, ir_dim b) {
    return a.c == b.c && a.t == b.t && a.s == b.s && a.r == b.r;
}

bool ir_dim_is_const(ir_dim d) {
    return !d.t && !d.s && !d.r;
}

ir_dim ir_dim_add(ir_dim a, ir_dim b) {
    return (ir_dim){add_saturating(a.c, b.c), add_saturating(a.t, b.t), add_saturating(a.s, b.s),
                    add_saturating(a.r, b.r)};
}

ir_dim ir_dim_scale(ir_dim a, int64_t factor) {
    return (ir_dim){mul_saturating(a.c, factor), mul_saturating(a.t, factor),
                    mul_saturating(a.s, factor), mul_saturating(a.r, factor)};
}

int64_t ir_dim_eval(ir_dim d, int64_t T, int64_t S, int64_t R) {
    int64_t sum = add_saturating(d.c, mul_saturating(d.t, T));
    return add_saturating(sum, add_saturating(mul_saturating(d.s, S), mul_saturating(d.r, R)));
}

/* --- element types -----------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    int bits;
} dtypes[IR_N_DTYPES] = {
#define DTYPE(suffix, name, bits) [IR_##suffix] = {name, bits},
#include "ir/dtypes.def"
#undef DTYPE
};

const char *ir_dtype_name(ir_dtype dtype) {
    return dtypes[dtype].name;
}

int ir_dtype_bits(ir_dtype dtype) {
    return dtypes[dtype].bits;
}

bool ir_dtype_from_name(const char *name, ir_dtype *dtype) {
    for (int i = 0; i < IR_N_DTYPES; i++)
        if (!strcmp(dtypes[i].name, name)) {
            *dtype = (ir_dtype)i;
            return true;
        }
    return false;
}

/* --- types -------------------------------------------------------------------------------------
 */

ir_type ir_tensor(ir_dtype dtype, int rank, const ir_dim *dims) {
    ir_type type = {.kind = IR_TENSOR, .dtype = dtype, .rank = rank};
    for (int i = 0; i < rank && i < IR_MAX_RANK; i++)
        type.dims[i] = dims[i];
    return type;
}

ir_type ir_quantized(const ir_encoding *encoding, int rank, const ir_dim *dims) {
    ir_type type = ir_tensor(IR_F32, rank, dims);
    type.encoding = encoding;
    return type;
}

bool ir_type_equal(const ir_type *a, const ir_type *b) {
    if (a->kind != b->kind)
        return false;
    if (a->kind == IR_KV)
        return true;
    if (a->dtype != b->dtype || a->encoding != b->encoding || a->rank != b->rank)
        return false;
    if (!a->layout != !b->layout || (a->layout && strcmp(a->layout, b->layout)))
        return false;
    for (int i = 0; i < a->rank; i++)
        if (!ir_dim_equal(a->dims[i], b->dims[i]))
            return false;
    return true;
}

/* The product of the first `rank` dims; the symbolic one, if any, carries the others as factor. */
static ir_dim product(const ir_type *type, int rank) {
    ir_dim symbolic = ir_dim_const(1);
    int64_t factor = 1;
    for (int i = 0; i < rank; i++) {
        if (ir_dim_is_const(type->dims[i]))
            factor = mul_saturating(factor, type->dims[i].c);
        else
            symbolic = type->dims[i];
    }
    return ir_dim_scale(symbolic, factor);
}

ir_dim ir_type_elements(const ir_type *type) {
    return type->kind == IR_KV ? ir_dim_const(0) : product(type, type->rank);
}

ir_dim ir_type_bytes(const ir_type *type) {
    if (type->kind == IR_KV)
        return ir_dim_const(0);
    if (!type->encoding)
        return ir_dim_scale(product(type, type->rank), dtypes[type->dtype].bits / 8);
    if (type->rank == 0)
        return ir_dim_const(0); /* no valid type: see ir_type_check */
    int64_t row = ir_encoding_row_bytes(type->encoding, type->dims[type->rank - 1].c);
    return ir_dim_scale(product(type, type->rank - 1), row);
}

static bool layout_name_ok(const char *layout) {
    size_t n = strspn(layout, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    return n > 0 && n <= 64 && !layout[n];
}

bool ir_type_check(const ir_type *type, const char *where, ir_diag *diag) {
    if (type->kind == IR_KV)
        return true;
    if (type->kind != IR_TENSOR || (unsigned)type->dtype >= IR_N_DTYPES)
        return ir_error(diag, where, "malformed type");
    if (type->rank < 0 || type->rank > IR_MAX_RANK)
        return ir_error(diag, where, "a tensor has %d dimensions, at most %d are possible",
                        type->rank, IR_MAX_RANK);
    int symbolic = 0;
    for (int i = 0; i < type->rank; i++) {
        ir_dim d = type->dims[i];
        if (d.c < 0 || d.t < 0 || d.s < 0 || d.r < 0 || d.c > IR_MAX_DIM || d.t > IR_MAX_DIM ||
            d.s > IR_MAX_DIM || d.r > IR_MAX_DIM)
            return ir_error(diag, where, "dimension %d is out of range", i);
        if (ir_dim_is_const(d) && d.c == 0)
            return ir_error(diag, where, "dimension %d is empty", i);
        symbolic += !ir_dim_is_const(d);
    }
    if (symbolic > 1)
        return ir_error(diag, where, "%d dimensions depend on T, S or R, at most one may",
                        symbolic);
    if (type->layout && !layout_name_ok(type->layout))
        return ir_error(diag, where, "layout \"%s\" is no name of letters, digits and _",
                        type->layout);
    if (type->encoding) {
        const ir_encoding *e = type->encoding;
        if (type->rank == 0)
            return ir_error(diag, where, "a scalar cannot be encoded as %s", e->name);
        ir_dim k = type->dims[type->rank - 1];
        int unit = e->block > e->group ? e->block : e->group;
        if (!ir_dim_is_const(k))
            return ir_error(diag, where, "the last dimension of a %s tensor must be constant",
                            e->name);
        if (k.c % unit)
            return ir_error(diag, where,
                            "the last dimension of a %s tensor is %lld, expected a multiple of %d",
                            e->name, (long long)k.c, unit);
    }
    /* With every factor below 2^50 the sum over coefficients cannot overflow either. */
    ir_dim bytes = ir_type_bytes(type);
    const int64_t limit = (int64_t)1 << 50;
    if (bytes.c > limit || bytes.t > limit || bytes.s > limit || bytes.r > limit)
        return ir_error(diag, where, "a tensor of more than 2^50 bytes");
    return true;
}

/* --- text --------------------------------------------------------------------------------------
 */

static const char *dim_text(ir_arena *arena, ir_dim d) {
    const int64_t coefficients[] = {d.t, d.s, d.r, d.c};
    static const char *const symbols[] = {"T", "S", "R", ""};
    const char *text = "";
    for (int i = 0; i < 4; i++) {
        int64_t c = coefficients[i];
        if (!c)
            continue;
        const char *plus = text[0] && c > 0 ? "+" : "";
        if (c == 1 && i < 3)
            text = ir_arena_printf(arena, "%s%s%s", text, plus, symbols[i]);
        else
            text = ir_arena_printf(arena, "%s%s%lld%s", text, plus, (long long)c, symbols[i]);
    }
    return text[0] ? text : "0";
}

const char *ir_type_text(ir_arena *arena, const ir_type *type) {
    if (type->kind == IR_KV)
        return "kv";
    const char *text = type->encoding ? type->encoding->name : dtypes[type->dtype].name;
    text = ir_arena_printf(arena, "%s[", text);
    for (int i = 0; i < type->rank && i < IR_MAX_RANK; i++)
        text =
            ir_arena_printf(arena, "%s%s%s", text, i ? ", " : "", dim_text(arena, type->dims[i]));
    return ir_arena_printf(arena, "%s]%s%s", text, type->layout ? "@" : "",
                           type->layout ? type->layout : "");
}

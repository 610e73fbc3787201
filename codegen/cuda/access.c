/* How a row program's loads and stores reach memory, as CUDA C: checks and expressions. */
#include "codegen/cuda/program.h"

#include "codegen/stages.h"

#include <inttypes.h>
#include <string.h>

static bool is_packed(const ir_type *type) {
    return type->layout && strcmp(type->layout, "n16") == 0;
}

/* Of activations: a8 or a8_e4m3. */
static bool is_a8(const ir_type *type) {
    return type->encoding && ir_encoding_of_activations(type->encoding);
}

/* --- checks --------------------------------------------------------------------------------------
 */

static bool check_access(cg_cuda_emitter *em, const cg_access *access) {
    const cg_kernel *k = em->kernel;
    if (access->arg < 0 || access->arg >= k->n_args)
        return cg_cuda_unsupported(em, "access to argument %d of %d", access->arg, k->n_args);
    if (access->row_map != CG_ROW_GATHERED)
        return true;
    if (access->index_arg < 0 || access->index_arg >= k->n_args)
        return cg_cuda_unsupported(em, "indices in argument %d of %d", access->index_arg,
                                   k->n_args);
    if (k->args[access->index_arg].type.dtype != IR_I32)
        return cg_cuda_unsupported(em, "indices of type %s, expected i32",
                                   ir_dtype_name(k->args[access->index_arg].type.dtype));
    return k->args[access->arg].type.rank >= 1 ||
           cg_cuda_unsupported(em, "rows gathered from a scalar");
}

/* The type in memory; NULL for one that programs cannot read. */
static const char *element_type(ir_dtype dtype) {
    switch (dtype) {
    case IR_F32:
        return "float";
    case IR_F16:
        return "f16";
    case IR_BF16:
        return "bf16";
    case IR_I32:
        return "int32";
    case IR_I8:
        return "int8";
    case IR_U8:
    case IR_BOOL:
        return "uint8";
    default:
        return NULL;
    }
}

bool cg_cuda_check_load(cg_cuda_emitter *em, const cg_access *access) {
    if (!check_access(em, access))
        return false;
    const cg_arg *arg = &em->kernel->args[access->arg];
    const ir_type *type = &arg->type;
    if (arg->kind == CG_ARG_KV)
        return cg_cuda_unsupported(em, "a load from the KV cache outside attention");
    if (type->layout && !is_packed(type))
        return cg_cuda_unsupported(em, "a load from layout \"%s\", expected \"n16\" or none",
                                   type->layout);
    if (type->encoding && !is_a8(type) && !is_packed(type))
        return cg_cuda_unsupported(em, "a load from %s that is not packed", type->encoding->name);
    if (type->encoding && access->column_stride != 1)
        return cg_cuda_unsupported(em, "a load from %s that does not follow its groups",
                                   type->encoding->name);
    return type->encoding || element_type(type->dtype) ||
           cg_cuda_unsupported(em, "a load of element type %s", ir_dtype_name(type->dtype));
}

static bool check_store_a8(cg_cuda_emitter *em, const cg_program *program, const cg_store *store) {
    const cg_access *access = &store->access;
    if (!is_a8(&em->kernel->args[access->arg].type))
        return cg_cuda_unsupported(em, "quantization to argument %d, which is not a8 or a8_e4m3",
                                   access->arg);
    return (program->width % 32 == 0 && access->offset % 32 == 0 && access->row_stride % 32 == 0 &&
            (program->heads == 1 || access->head_stride % 32 == 0)) ||
           cg_cuda_unsupported(em,
                               "quantization of %" PRId64 " columns at offset %" PRId64
                               ", expected multiples of 32",
                               program->width, access->offset);
}

static bool check_store_kv(cg_cuda_emitter *em, const cg_program *program, const cg_store *store) {
    const cg_arg *arg = &em->kernel->args[store->access.arg];
    if (arg->kind != CG_ARG_KV)
        return cg_cuda_unsupported(em, "keys and values stored to argument %d, not a KV cache",
                                   store->access.arg);
    return (program->heads == arg->kv.heads && program->width == arg->kv.head_dim) ||
           cg_cuda_unsupported(em,
                               "%" PRId64 " heads of %" PRId64 " stored to a KV cache of %" PRId64
                               " heads of %" PRId64,
                               program->heads, program->width, (int64_t)arg->kv.heads,
                               (int64_t)arg->kv.head_dim);
}

/* A row of a matmul's x, where its schedule keeps it. */
static bool check_store_operand(cg_cuda_emitter *em, const cg_program *program,
                                const cg_store *store) {
    const cg_access *access = &store->access;
    bool a8 = store->kind == CG_STORE_A8;
    return (program == em->kernel->matmul.prologue && program->heads == 1 && access->offset == 0 &&
            access->column_stride == 1 && access->row_map == CG_ROW_SELF &&
            (a8 ? program->width % 32 == 0 : store->kind == CG_STORE)) ||
           cg_cuda_unsupported(em, "a store to the operand that is not a prologue's");
}

bool cg_cuda_check_store(cg_cuda_emitter *em, const cg_program *program, const cg_store *store) {
    if (store->access.arg == CG_ARG_OPERAND)
        return check_store_operand(em, program, store);
    if (!check_access(em, &store->access))
        return false;
    if (store->access.row_map == CG_ROW_GATHERED)
        return cg_cuda_unsupported(em, "a store to gathered rows");
    if (store->kind == CG_STORE_A8)
        return check_store_a8(em, program, store);
    if (cg_store_is_kv(store))
        return check_store_kv(em, program, store);
    const cg_arg *arg = &em->kernel->args[store->access.arg];
    ir_dtype dtype = arg->type.dtype;
    return (arg->kind != CG_ARG_KV && !arg->type.encoding && !arg->type.layout &&
            (dtype == IR_F32 || dtype == IR_F16 || dtype == IR_BF16)) ||
           cg_cuda_unsupported(em, "a store to argument %d, which is not f32, f16 or bf16",
                               store->access.arg);
}

/* --- expressions ---------------------------------------------------------------------------------
 */

/* "(row*576 + head*64 + 32 + col)": terms that are 0 are left out. */
static const char *sum_of(cg_cuda_emitter *em, const char *row, int64_t row_stride,
                          int64_t head_stride, int64_t offset, int64_t column_stride) {
    const struct {
        const char *name;
        int64_t factor;
    } terms[] = {{row, row_stride}, {"head", head_stride}, {"col", column_stride}};
    const char *text = "";
    for (int i = 0; i < 3; i++) {
        const char *plus = *text ? " + " : "";
        if (terms[i].factor == 1)
            text = ir_arena_printf(em->arena, "%s%s%s", text, plus, terms[i].name);
        else if (terms[i].factor != 0)
            text = ir_arena_printf(em->arena, "%s%s%s * %" PRId64, text, plus, terms[i].name,
                                   terms[i].factor);
    }
    if (offset || !*text)
        text = ir_arena_printf(em->arena, "%s%s%" PRId64, text, *text ? " + " : "", offset);
    return text;
}

const char *cg_cuda_row_text(cg_cuda_emitter *em, const cg_access *access) {
    const ir_type *type = &em->kernel->args[access->arg].type;
    if (access->row_map == CG_ROW_NONE)
        return "0";
    if (access->row_map == CG_ROW_SELF)
        return "row";
    ir_dim d = type->dims[0];
    return ir_arena_printf(em->arena,
                           "gathered(a.a%d, row, step_dim<%" PRId64 ", %" PRId64 ", %" PRId64
                           ", %" PRId64 ">(a.step))",
                           access->index_arg, d.c, d.t, d.s, d.r);
}

static const char *element(cg_cuda_emitter *em, const cg_access *access, const char *row,
                           bool column, bool constant) {
    const ir_type *type = &em->kernel->args[access->arg].type;
    int64_t stride = column ? access->column_stride : 0;
    int64_t row_stride = access->row_map == CG_ROW_NONE ? 0 : access->row_stride;
    const char *index;
    if (is_packed(type)) /* tiles of [k][16 rows] */
        index =
            ir_arena_printf(em->arena, "(%s >> 4) * %" PRId64 " + (%s) * 16 + (%s & 15)", row,
                            16 * access->row_stride,
                            sum_of(em, row, 0, access->head_stride, access->offset, stride), row);
    else
        index = sum_of(em, row, row_stride, access->head_stride, access->offset, stride);
    return ir_arena_printf(em->arena, "static_cast<%s%s *>(a.a%d) + %s", constant ? "const " : "",
                           element_type(type->dtype), access->arg, index);
}

static const char *packed_load(cg_cuda_emitter *em, const cg_access *access, const char *row,
                               const char *column) {
    static const char *const offsets[] = {"OFFSET_NONE", "OFFSET_ADD", "OFFSET_SUBTRACT"};
    const ir_encoding *e = em->kernel->args[access->arg].type.encoding;
    if (e->code == IR_CODE_E4M3)
        return ir_arena_printf(em->arena, "packed_fp8(a.a%d, %s, %s, %" PRId64 ")", access->arg,
                               row, column, access->row_stride);
    return ir_arena_printf(
        em->arena, "packed<%d, %d, %d, %s, %s, %s>::at(a.a%d, %s, %s, %" PRId64 ")", e->bits,
        32 / e->group, e->zero_point, offsets[e->offset], e->super_group ? "true" : "false",
        e->scale == IR_I8 ? "true" : "false", access->arg, row, column, access->row_stride);
}

const char *cg_cuda_load_text(cg_cuda_emitter *em, const cg_access *access, const char *row) {
    const ir_type *type = &em->kernel->args[access->arg].type;
    if (!type->encoding)
        return ir_arena_printf(em->arena, "load(%s)", element(em, access, row, true, true));
    const char *column = sum_of(em, "", 0, access->head_stride, access->offset, 1);
    if (!is_a8(type))
        return packed_load(em, access, row, column);
    return ir_arena_printf(em->arena, "load_%s(a.a%d, %s, %s, %" PRId64 ")", type->encoding->name,
                           access->arg, row, column, access->row_stride);
}

/* The function that quantizes to this encoding; sums of codes are for arguments, whoever reads
 * them. */
static const char *store_a8_name(const ir_encoding *encoding, bool argument) {
    return encoding->id == IR_ENC_A8_E4M3 ? "store_a8_e4m3"
           : argument                     ? "store_a8<true>"
                                          : "store_a8<false>";
}

const char *cg_cuda_store_text(cg_cuda_emitter *em, const cg_store *store, int index) {
    const cg_access *access = &store->access;
    if (access->arg == CG_ARG_OPERAND && store->kind == CG_STORE_A8)
        return ir_arena_printf(em->arena, "%s(x, 0, col - lane_id(), %" PRId64 ", v%d)",
                               store_a8_name(em->kernel->matmul.x_type.encoding, false),
                               em->kernel->matmul.k, store->value);
    if (access->arg == CG_ARG_OPERAND)
        return ir_arena_printf(em->arena, "store(static_cast<float *>(x) + col, v%d)",
                               store->value);
    const char *row = cg_cuda_row_text(em, access);
    if (store->kind == CG_STORE_A8)
        return ir_arena_printf(em->arena, "%s(a.a%d, %s, %s - lane_id(), %" PRId64 ", v%d)",
                               store_a8_name(em->kernel->args[access->arg].type.encoding, true),
                               access->arg, row,
                               sum_of(em, "", 0, access->head_stride, access->offset, 1),
                               access->row_stride, store->value);
    if (store->kind != CG_STORE) {
        const ir_kv_group *kv = &em->kernel->args[access->arg].kv;
        const char *type = kv->dtype == IR_I8       ? "int8_code"
                           : kv->dtype == IR_F8E4M3 ? "fp8_code"
                                                    : element_type(kv->dtype);
        if (store->kind == CG_STORE_KV_SCALE)
            return ir_arena_printf(em->arena,
                                   "store_scales<%" PRId64 ", %" PRId64 ">(kv%d, head, v%d, v%d)",
                                   kv->heads, kv->head_dim, index, store->value, store->value2);
        bool both = store->kind == CG_STORE_KV;
        return ir_arena_printf(em->arena,
                               "store_%s<%s, %" PRId64 ", %" PRId64 ">(kv%d, head, col, v%d%s)",
                               both                        ? "kv"
                               : store->kind == CG_STORE_K ? "k"
                                                           : "v",
                               type, (int64_t)kv->heads, (int64_t)kv->head_dim, index, store->value,
                               both ? ir_arena_printf(em->arena, ", v%d", store->value2) : "");
    }
    return ir_arena_printf(em->arena, "store(%s, v%d)",
                           element(em, access, row, access->column_stride != 0, false),
                           store->value);
}

const char *cg_cuda_slot_text(cg_cuda_emitter *em, const cg_store *store) {
    const cg_arg *arg = &em->kernel->args[store->access.arg];
    return ir_arena_printf(em->arena, "find_slot(a.step, a.a%d, %d, %" PRId64 ", row)",
                           store->access.arg, arg->kv_group, ir_kv_page_bytes(&arg->kv));
}

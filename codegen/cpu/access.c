/* How a row program's loads and stores reach memory: plain elements, quantized activations, rows of
 * packed weights, KV pages. */
#include "codegen/cpu/program.h"
#include "codegen/packed.h"

#include <string.h>

/* --- what is supported -------------------------------------------------------------------------
 */

static bool is_packed(const ir_type *type) {
    return type->layout && strcmp(type->layout, "n16") == 0;
}

/* Of activations: a8 or a8_e4m3. */
static bool is_a8(const ir_type *type) {
    return type->encoding && ir_encoding_of_activations(type->encoding);
}

/* An access's argument, or the operand that the kernel computes itself. */
static LLVMValueRef base_of(cg_cpu_emitter *em, const cg_access *access) {
    return access->arg == CG_ARG_OPERAND ? em->operand : em->args[access->arg];
}

static const ir_type *type_of(const cg_cpu_emitter *em, const cg_access *access) {
    return access->arg == CG_ARG_OPERAND ? &em->kernel->matmul.x_type
                                         : &em->kernel->args[access->arg].type;
}

static bool check_access(cg_cpu_emitter *em, const cg_access *access) {
    if (access->arg < 0 || access->arg >= em->kernel->n_args)
        return cg_cpu_unsupported(em, "access to argument %d of %d", access->arg,
                                  em->kernel->n_args);
    if (access->row_map == CG_ROW_GATHERED) {
        int index = access->index_arg;
        if (index < 0 || index >= em->kernel->n_args)
            return cg_cpu_unsupported(em, "indices in argument %d of %d", index,
                                      em->kernel->n_args);
        if (em->kernel->args[index].type.dtype != IR_I32)
            return cg_cpu_unsupported(em, "indices of type %s, expected i32",
                                      ir_dtype_name(em->kernel->args[index].type.dtype));
        if (em->kernel->args[access->arg].type.rank < 1)
            return cg_cpu_unsupported(em, "rows gathered from a scalar");
    }
    return true;
}

bool cg_cpu_check_load(cg_cpu_emitter *em, const cg_access *access) {
    if (!check_access(em, access))
        return false;
    const cg_arg *arg = &em->kernel->args[access->arg];
    const ir_type *type = &arg->type;
    if (arg->kind == CG_ARG_KV)
        return cg_cpu_unsupported(em, "a load from the KV cache outside attention");
    if (type->layout && !is_packed(type))
        return cg_cpu_unsupported(em, "a load from layout \"%s\", expected \"n16\" or none",
                                  type->layout);
    if (type->encoding) {
        if (!is_a8(type) && !is_packed(type))
            return cg_cpu_unsupported(em, "a load from %s that is not packed",
                                      type->encoding->name);
        if (access->column_stride != 1 || access->head_stride % 16 || access->offset % 16)
            return cg_cpu_unsupported(em, "a load from %s that does not follow its groups",
                                      type->encoding->name);
        return true;
    }
    if (!cg_cpu_can_load(type->dtype))
        return cg_cpu_unsupported(em, "a load of element type %s", ir_dtype_name(type->dtype));
    return true;
}

static bool check_store_a8(cg_cpu_emitter *em, const cg_program *program, const cg_store *store,
                           int64_t n_cols) {
    const cg_access *access = &store->access;
    if (!is_a8(type_of(em, access)))
        return cg_cpu_unsupported(em, "quantization to argument %d, which is not a8 or a8_e4m3",
                                  access->arg);
    if (n_cols % 32 || program->width % 32 || access->offset % 32 || access->row_stride % 32 ||
        (program->heads > 1 && access->head_stride % 32))
        return cg_cpu_unsupported(em,
                                  "quantization of %lld columns at offset %lld, expected multiples "
                                  "of 32",
                                  (long long)n_cols, (long long)access->offset);
    return true;
}

static bool check_store_kv(cg_cpu_emitter *em, const cg_program *program, const cg_store *store) {
    if (store->access.arg == CG_ARG_OPERAND)
        return cg_cpu_unsupported(em, "keys and values stored to an operand");
    const cg_arg *arg = &em->kernel->args[store->access.arg];
    if (arg->kind != CG_ARG_KV)
        return cg_cpu_unsupported(em, "keys and values stored to argument %d, not a KV cache",
                                  store->access.arg);
    if (program->heads != arg->kv.heads || program->width != arg->kv.head_dim)
        return cg_cpu_unsupported(em,
                                  "%lld heads of %lld stored to a KV cache of %lld heads of %lld",
                                  (long long)program->heads, (long long)program->width,
                                  (long long)arg->kv.heads, (long long)arg->kv.head_dim);
    return true;
}

bool cg_cpu_check_store(cg_cpu_emitter *em, const cg_program *program, const cg_store *store,
                        int64_t n_cols) {
    bool operand = store->access.arg == CG_ARG_OPERAND && program == em->kernel->matmul.prologue;
    if (!operand && !check_access(em, &store->access))
        return false;
    if (store->access.row_map == CG_ROW_GATHERED)
        return cg_cpu_unsupported(em, "a store to gathered rows");
    if (store->kind == CG_STORE_A8)
        return check_store_a8(em, program, store, n_cols);
    if (store->kind == CG_STORE_KV || store->kind == CG_STORE_KV_SCALE)
        return check_store_kv(em, program, store);
    const ir_type *type = type_of(em, &store->access);
    bool is_kv = !operand && em->kernel->args[store->access.arg].kind == CG_ARG_KV;
    if (is_kv || type->encoding || type->layout ||
        (type->dtype != IR_F32 && type->dtype != IR_F16 && type->dtype != IR_BF16))
        return cg_cpu_unsupported(em, "a store to argument %d, which is not f32, f16 or bf16",
                                  store->access.arg);
    return true;
}

/* --- addresses ---------------------------------------------------------------------------------
 */

/* The row of the argument that is accessed. Indices out of range read row 0. Of an operand only
 * some rows are kept. */
static LLVMValueRef access_row(cg_cpu_emitter *em, const cg_access *access,
                               const cg_cpu_site *site) {
    if (access->row_map == CG_ROW_NONE)
        return cg_cpu_i64(em, 0);
    if (access->arg == CG_ARG_OPERAND)
        return cg_cpu_sub(em, site->row, em->operand_row);
    if (access->row_map == CG_ROW_SELF)
        return site->row;
    LLVMValueRef index = cg_cpu_load_index(em, em->args[access->index_arg], site->row);
    LLVMValueRef rows = cg_cpu_dim(em, em->kernel->args[access->arg].type.dims[0]);
    LLVMValueRef inside = LLVMBuildICmp(em->builder, LLVMIntULT, index, rows, "");
    return LLVMBuildSelect(em->builder, inside, index, cg_cpu_i64(em, 0), "");
}

/* Column of the accessed row (for column_stride 1). */
static LLVMValueRef access_column(cg_cpu_emitter *em, const cg_access *access,
                                  const cg_cpu_site *site) {
    LLVMValueRef column = cg_cpu_mul_const(em, site->head, access->head_stride);
    column = cg_cpu_add_const(em, column, access->offset);
    return site->column ? cg_cpu_add(em, column, site->column) : column;
}

/* Address of the element at the site's first column, and the byte stride between columns. */
static LLVMValueRef element_address(cg_cpu_emitter *em, const cg_access *access,
                                    const cg_cpu_site *site, int64_t *stride) {
    const ir_type *type = type_of(em, access);
    int64_t size = ir_dtype_bits(type->dtype) / 8;
    LLVMValueRef row = access_row(em, access, site), at;
    LLVMValueRef column = cg_cpu_mul_const(em, site->head, access->head_stride);
    column = cg_cpu_add_const(em, column, access->offset);
    if (site->column && access->column_stride)
        column = cg_cpu_add(em, column, cg_cpu_mul_const(em, site->column, access->column_stride));
    if (is_packed(type)) { /* tiles of [k][16 rows] */
        LLVMValueRef tile = LLVMBuildLShr(em->builder, row, cg_cpu_i64(em, 4), "");
        LLVMValueRef lane = LLVMBuildAnd(em->builder, row, cg_cpu_i64(em, 15), "");
        at = cg_cpu_mul_const(em, tile, CG_TILE_ROWS * access->row_stride);
        at = cg_cpu_add(em, at, cg_cpu_mul_const(em, column, CG_TILE_ROWS));
        at = cg_cpu_add(em, at, lane);
        *stride = CG_TILE_ROWS * access->column_stride * size;
    } else {
        at = cg_cpu_add(em, cg_cpu_mul_const(em, row, access->row_stride), column);
        *stride = access->column_stride * size;
    }
    return cg_cpu_offset(em, base_of(em, access), cg_cpu_mul_const(em, at, size));
}

/* --- plain elements ----------------------------------------------------------------------------
 */

static LLVMValueRef site_mask(cg_cpu_emitter *em, const cg_cpu_site *site) {
    return site->mask ? site->mask : cg_cpu_mask_const(em, CG_CPU_LANES);
}

/* Vector of the addresses at + i * stride. */
static LLVMValueRef lane_addresses(cg_cpu_emitter *em, LLVMValueRef at, int64_t stride) {
    int64_t offsets[CG_CPU_LANES];
    for (int i = 0; i < CG_CPU_LANES; i++)
        offsets[i] = i * stride;
    LLVMValueRef index = cg_cpu_ints(em->i64, CG_CPU_LANES, offsets);
    return LLVMBuildGEP2(em->builder, em->i8, at, &index, 1, "");
}

/* Lane by lane; a lane that does not exist reads the argument's first element. */
static LLVMValueRef load_strided(cg_cpu_emitter *em, const cg_access *access, LLVMValueRef at,
                                 int64_t stride, const cg_cpu_site *site) {
    ir_dtype dtype = em->kernel->args[access->arg].type.dtype;
    LLVMValueRef v = LLVMGetUndef(em->f32x16);
    for (int i = 0; i < CG_CPU_LANES; i++) {
        LLVMValueRef lane_at = cg_cpu_offset_const(em, at, i * stride);
        if (site->mask)
            lane_at = LLVMBuildSelect(em->builder, cg_cpu_lane(em, site->mask, i), lane_at,
                                      em->args[access->arg], "");
        LLVMValueRef x = cg_cpu_load_f32(em, dtype, lane_at);
        v = LLVMBuildInsertElement(em->builder, v, x, cg_cpu_i32(em, i), "");
    }
    return v;
}

/* --- rows of packed, quantized weights ---------------------------------------------------------
 */

/* <4 x i32> of dwords `stride` bytes apart, as <16 x i32> of their bytes. */
static LLVMValueRef load_dwords(cg_cpu_emitter *em, LLVMValueRef at, int64_t stride) {
    LLVMTypeRef i32x4 = cg_cpu_vector(em->i32, 4);
    LLVMValueRef v = LLVMGetUndef(i32x4);
    for (int i = 0; i < 4; i++) {
        LLVMValueRef dword = cg_cpu_load(em, em->i32, cg_cpu_offset_const(em, at, i * stride), 4);
        v = LLVMBuildInsertElement(em->builder, v, dword, cg_cpu_i32(em, i), "");
    }
    v = LLVMBuildBitCast(em->builder, v, cg_cpu_vector(em->i8, 16), "");
    return LLVMBuildZExt(em->builder, v, em->i32x16, "");
}

/* Field `bits` wide that step lane/4 (of 4) has in each byte, shifted up to bit 4: the top bits of
 * 5- and 6-bit codes. `first` is the step of lane 0, as i32. */
static LLVMValueRef top_bits(cg_cpu_emitter *em, LLVMValueRef at, LLVMValueRef first, int bits) {
    LLVMValueRef v = load_dwords(em, at, 0); /* the same four bytes in each group of four lanes */
    int64_t steps[CG_CPU_LANES];
    for (int i = 0; i < CG_CPU_LANES; i++)
        steps[i] = i / 4;
    LLVMValueRef shift = cg_cpu_ints(em->i32, CG_CPU_LANES, steps);
    shift = LLVMBuildAdd(em->builder, shift, cg_cpu_splat(em, first, CG_CPU_LANES), "");
    shift = LLVMBuildMul(em->builder, shift, cg_cpu_i32v(em, bits), "");
    v = LLVMBuildAnd(em->builder, LLVMBuildLShr(em->builder, v, shift, ""),
                     cg_cpu_i32v(em, (1 << bits) - 1), "");
    return LLVMBuildShl(em->builder, v, cg_cpu_i32v(em, 4), "");
}

/* The 16 unsigned codes of half `half` (i64, 0 or 1) of a block; `lane_at` is the block's address
 * plus 4 * lane. Integers of 8 bits come with their 128 added. */
static LLVMValueRef load_codes(cg_cpu_emitter *em, int bits, LLVMValueRef lane_at,
                               LLVMValueRef half) {
    if (bits == 8)
        return load_dwords(em, cg_cpu_offset(em, lane_at, cg_cpu_mul_const(em, half, 256)), 64);
    LLVMValueRef half32 = LLVMBuildTrunc(em->builder, half, em->i32, "");
    LLVMValueRef v = load_dwords(em, lane_at, 64);
    LLVMValueRef shift = LLVMBuildShl(em->builder, half32, cg_cpu_i32(em, 2), "");
    v = LLVMBuildLShr(em->builder, v, cg_cpu_splat(em, shift, CG_CPU_LANES), "");
    v = LLVMBuildAnd(em->builder, v, cg_cpu_i32v(em, 15), "");
    if (bits == 4)
        return v;
    LLVMValueRef top = cg_cpu_offset_const(em, lane_at, 256);
    if (bits == 5)
        top = top_bits(em, top, shift, 1);
    else
        top = top_bits(em, cg_cpu_offset(em, top, cg_cpu_mul_const(em, half, 64)),
                       cg_cpu_i32(em, 0), 2);
    return LLVMBuildOr(em->builder, v, top, "");
}

static LLVMValueRef load_lane(cg_cpu_emitter *em, LLVMValueRef line, int64_t offset, ir_dtype dtype,
                              LLVMValueRef lane) {
    LLVMValueRef at = cg_cpu_offset(em, line, cg_cpu_mul_const(em, lane, ir_dtype_bits(dtype) / 8));
    return cg_cpu_load_f32(em, dtype, cg_cpu_offset_const(em, at, offset));
}

static LLVMValueRef load_f16_lane(cg_cpu_emitter *em, LLVMValueRef line, int64_t offset,
                                  LLVMValueRef lane) {
    return load_lane(em, line, offset, IR_F16, lane);
}

/* As ir_encoding_decode_row computes, operation by operation. */
static LLVMValueRef load_packed(cg_cpu_emitter *em, const cg_access *access,
                                const cg_cpu_site *site) {
    const ir_type *type = &em->kernel->args[access->arg].type;
    const ir_encoding *encoding = type->encoding;
    cg_packed p = cg_packed_of(encoding);
    LLVMBuilderRef b = em->builder;
    LLVMValueRef row = access_row(em, access, site), column = access_column(em, access, site);
    LLVMValueRef tile = LLVMBuildLShr(b, row, cg_cpu_i64(em, 4), "");
    LLVMValueRef lane = LLVMBuildAnd(b, row, cg_cpu_i64(em, 15), "");
    LLVMValueRef run = LLVMBuildUDiv(b, column, cg_cpu_i64(em, p.run_k), "");
    LLVMValueRef block = LLVMBuildLShr(b, column, cg_cpu_i64(em, 5), "");
    block = cg_cpu_sub(em, block, cg_cpu_mul_const(em, run, p.run_k / CG_BLOCK_K));
    LLVMValueRef half =
        LLVMBuildAnd(b, LLVMBuildLShr(b, column, cg_cpu_i64(em, 4), ""), cg_cpu_i64(em, 1), "");

    int64_t tile_bytes = cg_packed_tile_bytes(type, access->row_stride);
    LLVMValueRef super = cg_cpu_offset(em, em->args[access->arg],
                                       cg_cpu_add(em, cg_cpu_mul_const(em, tile, tile_bytes),
                                                  cg_cpu_mul_const(em, run, p.run_bytes)));
    LLVMValueRef at = cg_cpu_offset(em, super, cg_cpu_mul_const(em, block, p.block_bytes));
    at = cg_cpu_offset_const(em, at, p.super_bytes);
    LLVMValueRef codes =
        load_codes(em, encoding->bits, cg_cpu_offset(em, at, cg_cpu_mul_const(em, lane, 4)), half);
    int zero = encoding->zero_point + (encoding->bits == 8 ? 128 : 0);
    if (encoding->code == IR_CODE_E4M3) {
        codes = LLVMBuildTrunc(b, codes, cg_cpu_vector(em->i16, CG_CPU_LANES), "");
        codes = LLVMBuildFMul(b, cg_cpu_e4m3_to_f32(em, codes), cg_cpu_f32v(em, 256), "");
    } else {
        codes = LLVMBuildSub(b, codes, cg_cpu_i32v(em, zero), "");
        codes = LLVMBuildSIToFP(b, codes, em->f32x16, "");
    }

    LLVMValueRef scale, offset = NULL;
    if (p.super_bytes) {
        /* groups of 16: the half's own scale; groups of 32: one for both */
        LLVMValueRef group =
            p.groups == 2 ? cg_cpu_mul_const(em, half, CG_TILE_ROWS) : cg_cpu_i64(em, 0);
        LLVMValueRef number = cg_cpu_offset(em, at, cg_cpu_add(em, group, lane));
        LLVMValueRef small =
            cg_cpu_load_f32(em, encoding->scale, cg_cpu_offset_const(em, number, p.code_bytes));
        scale = LLVMBuildFMul(b, load_f16_lane(em, super, 0, lane), small, "");
        if (encoding->offset != IR_OFFSET_NONE) {
            small = cg_cpu_load_f32(em, IR_U8, cg_cpu_offset_const(em, number, p.offsets_at));
            offset = LLVMBuildFMul(b, load_f16_lane(em, super, CG_TILE_ROWS * 2, lane), small, "");
        }
    } else {
        scale = load_lane(em, at, p.code_bytes, encoding->scale, lane);
        if (encoding->offset != IR_OFFSET_NONE)
            offset = load_f16_lane(em, at, p.offsets_at, lane);
    }
    LLVMValueRef v = LLVMBuildFMul(b, cg_cpu_splat(em, scale, CG_CPU_LANES), codes, "");
    if (!offset)
        return v;
    offset = cg_cpu_splat(em, offset, CG_CPU_LANES);
    return encoding->offset == IR_OFFSET_ADD ? LLVMBuildFAdd(b, v, offset, "")
                                             : LLVMBuildFSub(b, v, offset, "");
}

/* --- quantized activations ---------------------------------------------------------------------
 */

cg_cpu_a8_site cg_cpu_a8_address(cg_cpu_emitter *em, const cg_access *access,
                                 const cg_cpu_site *site) {
    int64_t k = access->row_stride;
    const ir_encoding *encoding = type_of(em, access)->encoding;
    int64_t row_bytes = ir_encoding_row_bytes(encoding, k);
    LLVMValueRef row = cg_cpu_offset(em, base_of(em, access),
                                     cg_cpu_mul_const(em, access_row(em, access, site), row_bytes));
    LLVMValueRef column = access_column(em, access, site);
    LLVMValueRef group = LLVMBuildLShr(em->builder, column, cg_cpu_i64(em, 5), "");
    LLVMValueRef numbers = cg_cpu_offset(em, row, cg_cpu_mul_const(em, group, 4));
    cg_cpu_a8_site at = {.encoding = encoding,
                         .codes = cg_cpu_offset(em, row, column),
                         .scale = cg_cpu_offset_const(em, numbers, k)};
    if (encoding->id == IR_ENC_A8) {
        LLVMValueRef sums = cg_cpu_offset(em, row, cg_cpu_mul_const(em, group, 8));
        at.scaled_sum = cg_cpu_offset_const(em, numbers, k + k / 8);
        at.sums = cg_cpu_offset_const(em, sums, k + k / 4);
    }
    return at;
}

static LLVMValueRef load_a8(cg_cpu_emitter *em, const cg_access *access, const cg_cpu_site *site) {
    cg_cpu_a8_site at = cg_cpu_a8_address(em, access, site);
    LLVMValueRef scale = cg_cpu_load_f32(em, IR_F32, at.scale);
    if (at.encoding->code == IR_CODE_E4M3)
        return cg_cpu_load_e4m3(em, at.codes, scale, site->mask);
    LLVMValueRef codes = cg_cpu_load_f32x16(em, IR_I8, at.codes, site->mask);
    return LLVMBuildFMul(em->builder, cg_cpu_splat(em, scale, CG_CPU_LANES), codes, "");
}

/* --- loads and stores --------------------------------------------------------------------------
 */

LLVMValueRef cg_cpu_access_load(cg_cpu_emitter *em, const cg_access *access,
                                const cg_cpu_site *site) {
    const ir_type *type = &em->kernel->args[access->arg].type;
    if (type->encoding)
        return is_a8(type) ? load_a8(em, access, site) : load_packed(em, access, site);
    int64_t stride, size = ir_dtype_bits(type->dtype) / 8;
    LLVMValueRef at = element_address(em, access, site, &stride);
    if (stride == size)
        return cg_cpu_load_f32x16(em, type->dtype, at, site->mask);
    return load_strided(em, access, at, stride, site);
}

LLVMValueRef cg_cpu_access_load_number(cg_cpu_emitter *em, const cg_access *access,
                                       const cg_cpu_site *site) {
    int64_t stride;
    cg_cpu_site first = {.row = site->row, .head = site->head};
    LLVMValueRef at = element_address(em, access, &first, &stride);
    return cg_cpu_load_f32(em, em->kernel->args[access->arg].type.dtype, at);
}

void cg_cpu_access_store(cg_cpu_emitter *em, const cg_access *access, const cg_cpu_site *site,
                         LLVMValueRef value) {
    ir_dtype dtype = type_of(em, access)->dtype;
    int64_t stride, size = ir_dtype_bits(dtype) / 8;
    LLVMValueRef at = element_address(em, access, site, &stride);
    if (stride == size) {
        cg_cpu_store_f32x16(em, dtype, value, at, site->mask);
        return;
    }
    value = cg_cpu_narrow(em, dtype, value);
    LLVMValueRef to = lane_addresses(em, at, stride);
    cg_cpu_intrinsic(em, "llvm.masked.scatter", 2,
                     (LLVMTypeRef[]){LLVMTypeOf(value), LLVMTypeOf(to)}, 4,
                     (LLVMValueRef[]){value, to, cg_cpu_i32(em, size), site_mask(em, site)});
}

void cg_cpu_access_store_number(cg_cpu_emitter *em, const cg_access *access,
                                const cg_cpu_site *site, LLVMValueRef value) {
    ir_dtype dtype = type_of(em, access)->dtype;
    int64_t stride;
    cg_cpu_site first = {.row = site->row, .head = site->head};
    LLVMValueRef at = element_address(em, access, &first, &stride);
    value = cg_cpu_narrow(em, dtype, value);
    cg_cpu_store(em, value, at, ir_dtype_bits(dtype) / 8);
}

/* --- KV pages ----------------------------------------------------------------------------------
 */

LLVMValueRef cg_cpu_page_number(cg_cpu_emitter *em, int kv_group, LLVMValueRef seq,
                                LLVMValueRef index) {
    LLVMValueRef table = cg_cpu_add(em, cg_cpu_mul_const(em, em->S, kv_group), seq);
    LLVMValueRef entry = cg_cpu_add(em, cg_cpu_mul(em, table, em->P), index);
    return cg_cpu_load_index(em, em->page_tables, entry);
}

void cg_cpu_row_page(cg_cpu_emitter *em, int kv_arg, LLVMValueRef row, LLVMValueRef *page,
                     LLVMValueRef *slot, LLVMValueRef *valid) {
    const cg_arg *arg = &em->kernel->args[kv_arg];
    LLVMBuilderRef b = em->builder;
    LLVMValueRef zero = cg_cpu_i64(em, 0);
    LLVMValueRef position = cg_cpu_load_index(em, em->positions, row);
    LLVMValueRef seq = cg_cpu_load_index(em, em->token_seqs, row);
    LLVMValueRef index = LLVMBuildAShr(b, position, cg_cpu_i64(em, 4), "");
    *slot = LLVMBuildAnd(b, position, cg_cpu_i64(em, 15), "");
    LLVMValueRef inside = LLVMBuildICmp(b, LLVMIntULT, index, em->P, "");
    index = LLVMBuildSelect(b, inside, index, zero, "");
    LLVMValueRef number = cg_cpu_page_number(em, arg->kv_group, seq, index);
    *valid = LLVMBuildAnd(b, inside, LLVMBuildICmp(b, LLVMIntSGE, number, zero, ""), "");
    number = LLVMBuildSelect(b, *valid, number, zero, "");
    *page = cg_cpu_offset(em, em->args[kv_arg],
                          cg_cpu_mul_const(em, number, ir_kv_page_bytes(&arg->kv)));
}

/* What a page holds of numbers; of quantized ones codes, as ir.h defines. */
static LLVMValueRef page_elements(cg_cpu_emitter *em, ir_dtype dtype, LLVMValueRef v) {
    if (!ir_kv_quantized(dtype))
        return cg_cpu_narrow(em, dtype, v);
    double most = ir_kv_most(dtype);
    if (dtype == IR_F8E4M3)
        return cg_cpu_f32_to_e4m3(em, v);
    v = cg_cpu_intrinsic(em, "llvm.rint", 1, (LLVMTypeRef[]){em->f32x16}, 1, &v);
    v = cg_cpu_fmax(em, v, cg_cpu_f32v(em, -most));
    v = cg_cpu_fmin(em, v, cg_cpu_f32v(em, most));
    v = LLVMBuildFPToSI(em->builder, v, em->i32x16, "");
    return LLVMBuildTrunc(em->builder, v, cg_cpu_vector(em->i8, CG_CPU_LANES), "");
}

void cg_cpu_access_store_kv_scale(cg_cpu_emitter *em, int kv_arg, LLVMValueRef page,
                                  LLVMValueRef slot, LLVMValueRef head, LLVMValueRef key,
                                  LLVMValueRef value) {
    const ir_kv_group *kv = &em->kernel->args[kv_arg].kv;
    LLVMValueRef at = cg_cpu_add(em, cg_cpu_mul_const(em, head, kv->page_tokens), slot);
    at = cg_cpu_offset(em, page, cg_cpu_mul_const(em, at, 2));
    for (int is_v = 0; is_v < 2; is_v++)
        cg_cpu_store(em, cg_cpu_f32_to_f16(em, is_v ? value : key),
                     cg_cpu_offset_const(em, at, ir_kv_scale_place(kv, is_v, 0, 0)), 2);
}

void cg_cpu_access_store_kv(cg_cpu_emitter *em, int kv_arg, LLVMValueRef page, LLVMValueRef slot,
                            const cg_cpu_site *site, int64_t columns, LLVMValueRef key,
                            LLVMValueRef value) {
    const ir_kv_group *kv = &em->kernel->args[kv_arg].kv;
    int64_t size = ir_dtype_bits(kv->dtype) / 8, plane = kv->head_dim * kv->page_tokens;
    LLVMValueRef head = cg_cpu_mul_const(em, site->head, plane);
    key = page_elements(em, kv->dtype, key);
    value = page_elements(em, kv->dtype, value);
    /* K: [head][column][slot] */
    LLVMValueRef at = cg_cpu_add(em, head, cg_cpu_mul_const(em, site->column, kv->page_tokens));
    at = cg_cpu_mul_const(em, cg_cpu_add(em, at, slot), size);
    at = cg_cpu_offset(em, page, at);
    for (int i = 0; i < columns; i++)
        cg_cpu_store(em, cg_cpu_lane(em, key, i),
                     cg_cpu_offset_const(em, at, i * kv->page_tokens * size), (int)size);
    /* V: [head][slot][column], after all of K */
    at = cg_cpu_add(em, head, cg_cpu_mul_const(em, slot, kv->head_dim));
    at = cg_cpu_add_const(em, cg_cpu_add(em, at, site->column), kv->heads * plane);
    at = cg_cpu_offset(em, page, cg_cpu_mul_const(em, at, size));
    cg_cpu_store_masked(em, value, at, (int)size,
                        columns < CG_CPU_LANES ? cg_cpu_mask_const(em, columns) : NULL);
}

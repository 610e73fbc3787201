/* f32, f16 or bf16 activations times any weight, a8_e4m3 times fp8: lanes are outputs, f32 FMA in
 * ascending k.
 *
 *   sum[lane] = fma(w[k][lane], x[k], sum[lane])      for k = 0, 1, …
 *
 * Quantized weights are decoded in registers, and activations a block of 32 k at a time, rounded as
 * ir_encoding_decode_row rounds: scale * (code - zero) + offset. */
#include "codegen/cpu/matmul.h"

/* x of one k, `at` of the first row. */
static void add_column(cg_cpu_emitter *em, const cg_cpu_product *p, LLVMValueRef at,
                       int64_t row_bytes, LLVMValueRef w, LLVMValueRef *sums) {
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef x =
            cg_cpu_load_f32(em, p->x_type->dtype, cg_cpu_offset_const(em, at, r * row_bytes));
        sums[r] = cg_cpu_fma(em, w, cg_cpu_splat(em, x, CG_CPU_LANES), sums[r]);
    }
}

/* Block `index` of a8_e4m3, 32 numbers of each row, to `out`. */
static void decode_x(cg_cpu_emitter *em, const cg_cpu_product *p, LLVMValueRef index,
                     LLVMValueRef out) {
    LLVMValueRef codes = cg_cpu_offset(em, p->x, cg_cpu_mul_const(em, index, CG_BLOCK_K));
    LLVMValueRef scales = cg_cpu_offset(em, p->x, cg_cpu_mul_const(em, index, 4));
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef scale =
            cg_cpu_load_f32(em, IR_F32, cg_cpu_offset_const(em, scales, r * p->x_row_bytes + p->k));
        for (int half = 0; half < 2; half++) {
            LLVMValueRef at = cg_cpu_offset_const(em, codes, r * p->x_row_bytes + 16 * half);
            cg_cpu_store(em, cg_cpu_load_e4m3(em, at, scale, NULL),
                         cg_cpu_offset_const(em, out, (2 * r + half) * 64), 64);
        }
    }
}

static void load_sums(cg_cpu_emitter *em, const cg_cpu_product *p, LLVMValueRef *locals,
                      LLVMValueRef *sums) {
    for (int r = 0; r < p->rows; r++)
        sums[r] = cg_cpu_load(em, em->f32x16, locals[r], 64);
}

static void store_sums(cg_cpu_emitter *em, const cg_cpu_product *p, LLVMValueRef *locals,
                       LLVMValueRef *sums) {
    for (int r = 0; r < p->rows; r++)
        cg_cpu_store(em, sums[r], locals[r], 64);
}

/* The codes of one k, out of the four in each dword, as f32; those of e4m3 times 2^-8. */
static LLVMValueRef code_of(cg_cpu_emitter *em, const ir_encoding *e, LLVMValueRef step, int byte) {
    int zero = cg_cpu_stored_zero(e);
    LLVMValueRef v = LLVMBuildBitCast(em->builder, step, em->i32x16, "");
    if (byte)
        v = LLVMBuildLShr(em->builder, v, cg_cpu_i32v(em, 8 * byte), "");
    if (e->code == IR_CODE_E4M3)
        return cg_cpu_e4m3_to_f32(
            em, LLVMBuildTrunc(em->builder, v, cg_cpu_vector(em->i16, CG_CPU_LANES), ""));
    v = LLVMBuildAnd(em->builder, v, cg_cpu_i32v(em, 255), "");
    if (zero)
        v = LLVMBuildSub(em->builder, v, cg_cpu_i32v(em, zero), "");
    return LLVMBuildSIToFP(em->builder, v, em->f32x16, "");
}

static void add_quantized(cg_cpu_emitter *em, const cg_cpu_product *p, LLVMValueRef *locals) {
    LLVMValueRef sums[CG_CPU_MAX_BLOCK_ROWS], lines[8] = {0}, scale[2], offset[2];
    cg_cpu_blocks b = cg_cpu_begin_blocks(em, p);
    int64_t x_size = ir_dtype_bits(p->x_type->dtype) / 8, x_row_bytes = p->x_row_bytes;
    LLVMValueRef x = cg_cpu_offset(em, p->x, cg_cpu_mul_const(em, b.index, CG_BLOCK_K * x_size));
    if (p->x_type->encoding) {
        x_row_bytes = CG_BLOCK_K * 4;
        x = cg_cpu_local_bytes(em, p->rows * x_row_bytes);
        decode_x(em, p, b.index, x);
    }
    for (int g = 0; g < b.packed.groups; g++) {
        cg_cpu_group_scale(em, &b, g, &scale[g], &offset[g]);
        if (b.encoding->code == IR_CODE_E4M3) /* what code_of leaves out; exact */
            scale[g] = LLVMBuildFMul(em->builder, scale[g], cg_cpu_f32v(em, 256), "");
    }
    load_sums(em, p, locals, sums);
    for (int s = 0; s < 8; s++) {
        LLVMValueRef step = cg_cpu_codes(em, &b, s, 0, CG_CPU_LANES, lines);
        int g = s * b.packed.groups / 8;
        for (int byte = 0; byte < 4; byte++) {
            LLVMValueRef w =
                LLVMBuildFMul(em->builder, scale[g], code_of(em, b.encoding, step, byte), "");
            if (offset[g])
                w = LLVMBuildFAdd(em->builder, w, offset[g], "");
            add_column(em, p, cg_cpu_offset_const(em, x, (4 * s + byte) * x_size), x_row_bytes, w,
                       sums);
        }
    }
    store_sums(em, p, locals, sums);
    cg_cpu_end_blocks(em, &b);
}

static void begin_sums(cg_cpu_emitter *em, const cg_cpu_product *p, LLVMValueRef *locals) {
    for (int r = 0; r < p->rows; r++) {
        locals[r] = cg_cpu_local(em, em->f32x16);
        cg_cpu_store(em, LLVMConstNull(em->f32x16), locals[r], 64);
    }
}

void cg_cpu_product_f32(cg_cpu_emitter *em, cg_cpu_product *p) {
    LLVMValueRef locals[CG_CPU_MAX_BLOCK_ROWS];
    begin_sums(em, p, locals);
    add_quantized(em, p, locals);
    load_sums(em, p, locals, p->sums);
}

/* --- weights that are not quantized --------------------------------------------------------------
 */

enum { MOST_TILES = 4 };

static void multiply_together(cg_cpu_emitter *em, cg_cpu_product *p, int n) {
    LLVMValueRef locals[MOST_TILES][CG_CPU_MAX_BLOCK_ROWS], sums[CG_CPU_MAX_BLOCK_ROWS];
    ir_dtype dtype = p->w_type->dtype;
    int64_t line = CG_TILE_ROWS * (ir_dtype_bits(dtype) / 8);
    int unroll = p->k % 8 == 0 ? 8 : 1;
    for (int t = 0; t < n; t++)
        begin_sums(em, p, locals[t]);
    cg_cpu_loop loop = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, p->k), unroll);
    LLVMValueRef from = cg_cpu_mul_const(em, loop.index, line);
    int64_t x_size = ir_dtype_bits(p->x_type->dtype) / 8;
    LLVMValueRef first = cg_cpu_offset(em, p->x, cg_cpu_mul_const(em, loop.index, x_size));
    for (int t = 0; t < n; t++)
        cg_cpu_prefetch_weights(em, cg_cpu_offset(em, p[t].w, from), unroll * line);
    for (int i = 0; i < unroll; i++) {
        LLVMValueRef x = cg_cpu_offset_const(em, first, i * x_size);
        for (int t = 0; t < n; t++) {
            LLVMValueRef at = cg_cpu_offset_const(em, cg_cpu_offset(em, p[t].w, from), i * line);
            load_sums(em, p, locals[t], sums);
            add_column(em, p, x, p->x_row_bytes, cg_cpu_load_f32x16(em, dtype, at, NULL), sums);
            store_sums(em, p, locals[t], sums);
        }
    }
    cg_cpu_end_for(em, &loop);
    for (int t = 0; t < n; t++)
        load_sums(em, p, locals[t], p[t].sums);
}

void cg_cpu_products_plain(cg_cpu_emitter *em, cg_cpu_product *p, int n) {
    int most = em->target->avx512 ? CG_CPU_MAX_BLOCK_ROWS : CG_CPU_MAX_BLOCK_ROWS / 2;
    int together = most / p->rows < MOST_TILES ? most / p->rows : MOST_TILES;
    for (int t = 0; t < n; t += together)
        multiply_together(em, p + t, n - t < together ? n - t : together);
}

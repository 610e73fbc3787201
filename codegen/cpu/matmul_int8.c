/* a8 activations times quantized weights.
 *
 *   for each block of 32 k:
 *     for each group: dot[lane] = sum of code * x over the group, exact in int32
 *                     sum[lane] = fma(dot, w_scale * x_scale, sum)
 *     with offsets:   sum[lane] = fma(w_offset, x_scale * sum(x), sum)
 *
 * AVX-512 VNNI multiplies u8 codes with s8 activations (vpdpbusd); codes are stored with a zero
 * point, so the dot product starts at -zero * sum(x). AVX2 has no such instruction: pairs are
 * summed in 16 bits (vpmaddubsw) as long as they cannot overflow, then widened (vpmaddwd); 8-bit
 * codes take their sign to the activations first. Both compute the same integers. */
#include "codegen/cpu/matmul.h"

/* What one row of x contributes to a block. */
typedef struct x_block {
    LLVMValueRef codes;         /* pointer to 32 codes */
    LLVMValueRef scale;         /* <16 x float> */
    LLVMValueRef scaled_sum;    /* <16 x float>: scale * sum(codes) */
    LLVMValueRef group_sums[2]; /* i32 scalars, of the block's groups; only with a zero point */
} x_block;

static LLVMValueRef load_splat(cg_cpu_emitter *em, LLVMTypeRef type, LLVMValueRef at, int lanes) {
    return cg_cpu_splat(em, cg_cpu_load(em, type, at, 4), lanes);
}

/* a8 row layout: k codes | k/32 scales | k/32 scaled sums | k/16 sums (ir_encoding_row_bytes). */
static x_block load_x(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b,
                      int row) {
    x_block x = {0};
    int64_t base = row * p->x_row_bytes, k = p->k;
    LLVMValueRef at = cg_cpu_offset_const(em, p->x, base);
    x.codes = cg_cpu_offset(em, at, cg_cpu_mul_const(em, b->index, CG_BLOCK_K));
    LLVMValueRef scales = cg_cpu_offset(em, cg_cpu_offset_const(em, p->x, base + k),
                                        cg_cpu_mul_const(em, b->index, 4));
    x.scale = load_splat(em, em->f32, scales, CG_CPU_LANES);
    if (b->packed.offsets_at)
        x.scaled_sum =
            load_splat(em, em->f32, cg_cpu_offset_const(em, scales, k / 32 * 4), CG_CPU_LANES);
    if (!cg_cpu_stored_zero(b->encoding))
        return x;
    LLVMValueRef sums = cg_cpu_offset(em, cg_cpu_offset_const(em, p->x, base + k + k / 32 * 8),
                                      cg_cpu_mul_const(em, b->index, 8));
    LLVMValueRef s0 = cg_cpu_load(em, em->i32, sums, 4);
    LLVMValueRef s1 = cg_cpu_load(em, em->i32, cg_cpu_offset_const(em, sums, 4), 4);
    if (b->packed.groups == 1)
        s0 = LLVMBuildAdd(em->builder, s0, s1, "");
    x.group_sums[0] = s0;
    x.group_sums[1] = s1;
    return x;
}

/* Four activation codes of k-step s in every dword. */
static LLVMValueRef broadcast_codes(cg_cpu_emitter *em, const x_block *x, int s, int lanes) {
    return load_splat(em, em->i32, cg_cpu_offset_const(em, x->codes, 4 * s), lanes);
}

/* --- AVX-512 VNNI
 * --------------------------------------------------------------------------------------- */

static LLVMValueRef start_at(cg_cpu_emitter *em, const cg_cpu_blocks *b, const x_block *x, int g) {
    int zero = cg_cpu_stored_zero(b->encoding);
    if (!zero)
        return LLVMConstNull(em->i32x16);
    LLVMValueRef s = LLVMBuildMul(em->builder, x->group_sums[g], cg_cpu_i32(em, -zero), "");
    return cg_cpu_splat(em, s, CG_CPU_LANES);
}

static LLVMValueRef dot_vnni(cg_cpu_emitter *em, const cg_cpu_blocks *b, const x_block *x, int g,
                             LLVMValueRef *codes) {
    int steps = 8 / b->packed.groups;
    LLVMValueRef sum = start_at(em, b, x, g);
    for (int s = g * steps; s < (g + 1) * steps; s++) {
        LLVMValueRef a = LLVMBuildBitCast(em->builder, codes[s], em->i32x16, "");
        LLVMValueRef args[] = {sum, a, broadcast_codes(em, x, s, CG_CPU_LANES)};
        sum = cg_cpu_intrinsic(em, "llvm.x86.avx512.vpdpbusd.512", 0, NULL, 3, args);
    }
    return sum;
}

/* --- AVX2
 * -------------------------------------------------------------------------------------------------
 */

enum { HALF = 8 }; /* rows of the tile in a ymm register */

/* How many products of a code with an activation, in pairs, a 16-bit lane holds: steps of k that
 * may be added up before widening. 2 * 127 * (2^bits - 1) per step. */
static int steps_in_16_bits(int bits) {
    return bits == 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
}

static LLVMValueRef widen(cg_cpu_emitter *em, LLVMValueRef pairs) {
    LLVMValueRef ones = cg_cpu_splat(em, LLVMConstInt(em->i16, 1, 0), 2 * HALF);
    LLVMValueRef args[] = {pairs, ones};
    return cg_cpu_intrinsic(em, "llvm.x86.avx2.pmadd.wd", 0, NULL, 2, args);
}

/* Sums of adjacent pairs of u8 * s8, in 16 bits. */
static LLVMValueRef multiply_pairs(cg_cpu_emitter *em, LLVMValueRef codes, LLVMValueRef x) {
    LLVMValueRef args[] = {codes, x};
    return cg_cpu_intrinsic(em, "llvm.x86.avx2.pmadd.ub.sw", 0, NULL, 2, args);
}

/* Rows first … first+7 of the tile. Codes of 8 bits come as |w| (magnitudes) and w (signs). */
static LLVMValueRef dot_avx2(cg_cpu_emitter *em, const cg_cpu_blocks *b, const x_block *x, int g,
                             LLVMValueRef *codes, LLVMValueRef *signs) {
    LLVMTypeRef bytes = cg_cpu_vector(em->i8, 4 * HALF), dwords = cg_cpu_vector(em->i32, HALF);
    int steps = 8 / b->packed.groups, most = steps_in_16_bits(b->encoding->bits), held = 0;
    bool is_signed = b->encoding->bits == 8;
    LLVMValueRef sum = NULL, pairs = NULL;
    for (int s = g * steps; s < (g + 1) * steps; s++) {
        LLVMValueRef v = LLVMBuildBitCast(em->builder, broadcast_codes(em, x, s, HALF), bytes, "");
        if (is_signed) {
            LLVMValueRef args[] = {v, signs[s]};
            v = cg_cpu_intrinsic(em, "llvm.x86.avx2.psign.b", 0, NULL, 2, args);
        }
        LLVMValueRef products = multiply_pairs(em, codes[s], v);
        pairs = pairs ? LLVMBuildAdd(em->builder, pairs, products, "") : products;
        if (++held == most || s == (g + 1) * steps - 1) {
            LLVMValueRef wide = widen(em, pairs);
            sum = sum ? LLVMBuildAdd(em->builder, sum, wide, "") : wide;
            pairs = NULL;
            held = 0;
        }
    }
    int zero = is_signed ? 0 : cg_cpu_stored_zero(b->encoding);
    if (zero) {
        LLVMValueRef z = LLVMBuildMul(em->builder, x->group_sums[g], cg_cpu_i32(em, zero), "");
        sum = LLVMBuildSub(em->builder, sum, cg_cpu_splat(em, z, HALF), "");
    }
    return LLVMBuildBitCast(em->builder, sum, dwords, "");
}

/* --- blocks
 * ------------------------------------------------------------------------------------------------
 */

/* 8 lanes of a <16 x float>. */
static LLVMValueRef half_of(cg_cpu_emitter *em, LLVMValueRef v, int first) {
    int lanes[HALF];
    for (int i = 0; i < HALF; i++)
        lanes[i] = first + i;
    return cg_cpu_shuffle(em, v, v, HALF, lanes);
}

static LLVMValueRef scaled_add(cg_cpu_emitter *em, LLVMValueRef dot, LLVMValueRef w_scale,
                               LLVMValueRef x_scale, LLVMValueRef sum) {
    LLVMTypeRef type = LLVMTypeOf(w_scale);
    LLVMValueRef f = LLVMBuildSIToFP(em->builder, dot, type, "");
    return cg_cpu_fma(em, f, LLVMBuildFMul(em->builder, w_scale, x_scale, ""), sum);
}

/* Adds one block to the sums of all rows, for `lanes` outputs from `first`. sums are locals. */
static void add_block(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b,
                      int first, int lanes, LLVMValueRef *sums) {
    LLVMTypeRef vector = cg_cpu_vector(em->f32, lanes);
    LLVMValueRef lines[8] = {0}, codes[8], signs[8] = {0}, scale[2], offset[2];
    bool vnni = lanes == CG_CPU_LANES;
    for (int s = 0; s < 8; s++) {
        codes[s] = cg_cpu_codes(em, b, s, first, lanes, lines);
        if (vnni || b->encoding->bits != 8)
            continue;
        LLVMTypeRef bytes = cg_cpu_vector(em->i8, 4 * lanes);
        LLVMValueRef flip = cg_cpu_splat(em, LLVMConstInt(em->i8, 0x80, 0), 4 * lanes);
        signs[s] = LLVMBuildXor(em->builder, codes[s], flip, "");
        LLVMValueRef args[] = {signs[s], LLVMConstNull(em->i1)};
        codes[s] = cg_cpu_intrinsic(em, "llvm.abs", 1, &bytes, 2, args);
    }
    for (int g = 0; g < b->packed.groups; g++) {
        cg_cpu_group_scale(em, b, g, &scale[g], &offset[g]);
        if (!vnni) {
            scale[g] = half_of(em, scale[g], first);
            offset[g] = offset[g] ? half_of(em, offset[g], first) : NULL;
        }
    }
    for (int r = 0; r < p->rows; r++) {
        x_block x = load_x(em, p, b, r);
        LLVMValueRef x_scale = vnni ? x.scale : half_of(em, x.scale, 0);
        LLVMValueRef sum = cg_cpu_load(em, vector, sums[r], 64);
        for (int g = 0; g < b->packed.groups; g++) {
            LLVMValueRef dot =
                vnni ? dot_vnni(em, b, &x, g, codes) : dot_avx2(em, b, &x, g, codes, signs);
            sum = scaled_add(em, dot, scale[g], x_scale, sum);
        }
        if (offset[0]) /* groups of 32 only */
            sum =
                cg_cpu_fma(em, offset[0], vnni ? x.scaled_sum : half_of(em, x.scaled_sum, 0), sum);
        cg_cpu_store(em, sum, sums[r], 64);
    }
}

void cg_cpu_product_int8(cg_cpu_emitter *em, cg_cpu_product *p) {
    bool vnni = em->target->vnni;
    int lanes = vnni ? CG_CPU_LANES : HALF, parts = CG_CPU_LANES / lanes;
    LLVMTypeRef vector = cg_cpu_vector(em->f32, lanes);
    LLVMValueRef sums[2][CG_CPU_MAX_BLOCK_ROWS];
    for (int h = 0; h < parts; h++)
        for (int r = 0; r < p->rows; r++) {
            sums[h][r] = cg_cpu_local(em, vector);
            cg_cpu_store(em, LLVMConstNull(vector), sums[h][r], 64);
        }
    /* One row streams the weights once, both halves together; several rows find the tile in the
     * cache, and keep their registers for one half at a time. */
    int passes = parts == 2 && p->rows > 1 ? 2 : 1;
    for (int pass = 0; pass < passes; pass++) {
        cg_cpu_blocks b = cg_cpu_begin_blocks(em, p);
        for (int h = passes == 2 ? pass : 0; h < (passes == 2 ? pass + 1 : parts); h++)
            add_block(em, p, &b, h * HALF, lanes, sums[h]);
        cg_cpu_end_blocks(em, &b);
    }
    int whole[CG_CPU_LANES];
    for (int i = 0; i < CG_CPU_LANES; i++)
        whole[i] = i;
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef low = cg_cpu_load(em, vector, sums[0][r], 64);
        p->sums[r] = parts == 1 ? low
                                : cg_cpu_shuffle(em, low, cg_cpu_load(em, vector, sums[1][r], 64),
                                                 CG_CPU_LANES, whole);
    }
}

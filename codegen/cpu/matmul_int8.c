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

enum { HALF = 8 }; /* rows of the tile in a ymm register */

/* --- operands ----------------------------------------------------------------------------------
 */

static LLVMValueRef load_splat(cg_cpu_emitter *em, LLVMTypeRef type, LLVMValueRef at, int lanes) {
    return cg_cpu_splat(em, cg_cpu_load(em, type, at, 4), lanes);
}

/* What of a8 row `row` belongs to the block: `bytes` of every group of 32, `begin` bytes from the
 * row's start. a8 row layout: k codes | k/32 scales | k/32 scaled sums | k/16 sums
 * (ir_encoding_row_bytes). */
static LLVMValueRef x_at(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b,
                         int row, int64_t begin, int64_t bytes) {
    LLVMValueRef at = cg_cpu_offset_const(em, p->x, row * p->x_row_bytes + begin);
    return cg_cpu_offset(em, at, cg_cpu_mul_const(em, b->index, bytes));
}

/* Four activation codes of k-step s in every dword. */
static LLVMValueRef x_codes(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b,
                            int row, int s, int lanes) {
    LLVMValueRef at = x_at(em, p, b, row, 0, CG_BLOCK_K);
    return load_splat(em, em->i32, cg_cpu_offset_const(em, at, 4 * s), lanes);
}

static LLVMValueRef x_scale(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b,
                            int row, int lanes) {
    return load_splat(em, em->f32, x_at(em, p, b, row, p->k, 4), lanes);
}

/* scale * sum(codes) */
static LLVMValueRef x_scaled_sum(cg_cpu_emitter *em, const cg_cpu_product *p,
                                 const cg_cpu_blocks *b, int row, int lanes) {
    return load_splat(em, em->f32, x_at(em, p, b, row, p->k + p->k / 32 * 4, 4), lanes);
}

/* zero * sum(codes of group g), in every lane. */
static LLVMValueRef x_zeros(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b,
                            int row, int g, int zero, int lanes) {
    LLVMValueRef sums = x_at(em, p, b, row, p->k + p->k / 32 * 8, 8);
    LLVMValueRef s = cg_cpu_load(em, em->i32, cg_cpu_offset_const(em, sums, 4 * g), 4);
    if (b->packed.groups == 1) {
        LLVMValueRef other = cg_cpu_load(em, em->i32, cg_cpu_offset_const(em, sums, 4), 4);
        s = LLVMBuildAdd(em->builder, s, other, "");
    }
    s = LLVMBuildMul(em->builder, s, cg_cpu_i32(em, zero), "");
    return cg_cpu_splat(em, s, lanes);
}

/* Lanes first … first + lanes - 1 of a <16 x float>. */
static LLVMValueRef lanes_of(cg_cpu_emitter *em, LLVMValueRef v, int first, int lanes) {
    int indices[CG_CPU_LANES];
    for (int i = 0; i < lanes; i++)
        indices[i] = first + i;
    return lanes == CG_CPU_LANES ? v : cg_cpu_shuffle(em, v, v, lanes, indices);
}

/* --- dot products ------------------------------------------------------------------------------
 *
 * The rows take turns, k-step by k-step, so that the sums of one row do not wait for one another.
 */

/* The tile's rows that are worked on together: `n` parts of `lanes` rows from `first` on. */
typedef struct tile_part {
    int first, lanes, n;
} tile_part;

typedef LLVMValueRef row_values[2][CG_CPU_MAX_BLOCK_ROWS]; /* [part][row] */

/* AVX-512 VNNI. */
static void dots_vnni(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b, int g,
                      LLVMValueRef *lines, row_values dots) {
    int steps = 8 / b->packed.groups, zero = cg_cpu_stored_zero(b->encoding);
    for (int r = 0; r < p->rows; r++)
        dots[0][r] =
            zero ? x_zeros(em, p, b, r, g, -zero, CG_CPU_LANES) : LLVMConstNull(em->i32x16);
    for (int s = g * steps; s < (g + 1) * steps; s++) {
        LLVMValueRef codes = cg_cpu_codes(em, b, s, 0, CG_CPU_LANES, lines);
        codes = LLVMBuildBitCast(em->builder, codes, em->i32x16, "");
        for (int r = 0; r < p->rows; r++) {
            LLVMValueRef args[] = {dots[0][r], codes, x_codes(em, p, b, r, s, CG_CPU_LANES)};
            dots[0][r] = cg_cpu_intrinsic(em, "llvm.x86.avx512.vpdpbusd.512", 0, NULL, 3, args);
        }
    }
}

/* AVX2: how many products of a code with an activation, in pairs, a 16-bit lane holds: steps of k
 * that may be added up before widening. 2 * 127 * (2^bits - 1) per step. */
static int steps_in_16_bits(int bits) {
    return bits == 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
}

static LLVMValueRef add(cg_cpu_emitter *em, LLVMValueRef sum, LLVMValueRef v) {
    return sum ? LLVMBuildAdd(em->builder, sum, v, "") : v;
}

/* Sums of adjacent pairs of u8 * s8, in 16 bits. */
static LLVMValueRef multiply_pairs(cg_cpu_emitter *em, LLVMValueRef codes, LLVMValueRef x) {
    LLVMValueRef args[] = {codes, x};
    return cg_cpu_intrinsic(em, "llvm.x86.avx2.pmadd.ub.sw", 0, NULL, 2, args);
}

static LLVMValueRef widen(cg_cpu_emitter *em, LLVMValueRef pairs) {
    LLVMValueRef ones = cg_cpu_splat(em, LLVMConstInt(em->i16, 1, 0), 2 * HALF);
    LLVMValueRef args[] = {pairs, ones};
    return cg_cpu_intrinsic(em, "llvm.x86.avx2.pmadd.wd", 0, NULL, 2, args);
}

static void dots_avx2(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b, int g,
                      tile_part part, LLVMValueRef (*lines)[8], row_values dots) {
    LLVMTypeRef bytes = cg_cpu_vector(em->i8, 4 * HALF);
    int steps = 8 / b->packed.groups, most = steps_in_16_bits(b->encoding->bits), held = 0;
    bool is_signed = b->encoding->bits == 8;
    row_values pairs = {0};
    for (int s = g * steps; s < (g + 1) * steps; s++) {
        LLVMValueRef codes[2], signs[2] = {0};
        for (int h = 0; h < part.n; h++) {
            codes[h] = cg_cpu_codes(em, b, s, part.first + h * HALF, HALF, lines[h]);
            if (is_signed)
                codes[h] = cg_cpu_magnitudes(em, b, s, part.first + h * HALF, codes[h], &signs[h]);
        }
        bool full = ++held == most || s == (g + 1) * steps - 1;
        held = full ? 0 : held;
        for (int r = 0; r < p->rows; r++) {
            LLVMValueRef x =
                LLVMBuildBitCast(em->builder, x_codes(em, p, b, r, s, HALF), bytes, "");
            for (int h = 0; h < part.n; h++) {
                LLVMValueRef v = x;
                if (is_signed) {
                    LLVMValueRef args[] = {x, signs[h]};
                    v = cg_cpu_intrinsic(em, "llvm.x86.avx2.psign.b", 0, NULL, 2, args);
                }
                pairs[h][r] = add(em, pairs[h][r], multiply_pairs(em, codes[h], v));
                if (full) {
                    dots[h][r] = add(em, dots[h][r], widen(em, pairs[h][r]));
                    pairs[h][r] = NULL;
                }
            }
        }
    }
    int zero = is_signed ? 0 : cg_cpu_stored_zero(b->encoding);
    for (int r = 0; zero && r < p->rows; r++) {
        LLVMValueRef z = x_zeros(em, p, b, r, g, zero, HALF);
        for (int h = 0; h < part.n; h++)
            dots[h][r] = LLVMBuildSub(em->builder, dots[h][r], z, "");
    }
}

/* --- blocks ------------------------------------------------------------------------------------
 */

/* Adds one block to the sums of all rows, which are locals. */
static void add_block(cg_cpu_emitter *em, const cg_cpu_product *p, const cg_cpu_blocks *b,
                      tile_part part, row_values sums) {
    LLVMTypeRef vector = cg_cpu_vector(em->f32, part.lanes);
    LLVMValueRef lines[2][8] = {0}, scale, offset = NULL;
    for (int g = 0; g < b->packed.groups; g++) {
        row_values dots = {0};
        if (part.lanes == CG_CPU_LANES)
            dots_vnni(em, p, b, g, lines[0], dots);
        else
            dots_avx2(em, p, b, g, part, lines, dots);
        cg_cpu_group_scale(em, b, g, &scale, &offset);
        for (int h = 0; h < part.n; h++) {
            int first = part.first + h * part.lanes;
            LLVMValueRef w_scale = lanes_of(em, scale, first, part.lanes);
            LLVMValueRef w_offset = offset ? lanes_of(em, offset, first, part.lanes) : NULL;
            for (int r = 0; r < p->rows; r++) {
                LLVMValueRef sum = cg_cpu_load(em, vector, sums[h][r], 64);
                LLVMValueRef by =
                    LLVMBuildFMul(em->builder, w_scale, x_scale(em, p, b, r, part.lanes), "");
                LLVMValueRef dot = LLVMBuildSIToFP(em->builder, dots[h][r], vector, "");
                sum = cg_cpu_fma(em, dot, by, sum);
                if (w_offset) /* groups of 32 only */
                    sum = cg_cpu_fma(em, w_offset, x_scaled_sum(em, p, b, r, part.lanes), sum);
                cg_cpu_store(em, sum, sums[h][r], 64);
            }
        }
    }
}

void cg_cpu_product_int8(cg_cpu_emitter *em, cg_cpu_product *p) {
    bool vnni = em->target->vnni;
    int lanes = vnni ? CG_CPU_LANES : HALF, parts = CG_CPU_LANES / lanes;
    LLVMTypeRef vector = cg_cpu_vector(em->f32, lanes);
    row_values sums;
    for (int h = 0; h < parts; h++)
        for (int r = 0; r < p->rows; r++) {
            sums[h][r] = cg_cpu_local(em, vector);
            cg_cpu_store(em, LLVMConstNull(vector), sums[h][r], 64);
        }
    /* One row streams the weights once, both halves of a block one after the other. Several rows
     * find the tile in the cache: they work on both halves at once if that is unpacked, so that
     * they share the loads of x, else they keep their registers for one half at a time. */
    int passes = p->rows > 1 && !p->panel ? parts : 1, together = p->panel ? parts : 1;
    for (int pass = 0; pass < passes; pass++) {
        cg_cpu_blocks b = cg_cpu_begin_blocks(em, p);
        for (int h = pass; h < (passes > 1 ? pass + 1 : parts); h += together)
            add_block(em, p, &b, (tile_part){h * HALF, lanes, together}, sums + h);
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

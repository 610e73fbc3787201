/* Reading quantized tiles: packed as codegen/packed.h says, or unpacked to a panel.
 *
 * A panel has a block for 32 k of the tile: 8 lines of 64 bytes as packed codes of 8 bits have them
 * (dword lane = row, byte b of line s: the code of k = 4s+b), 16 f32 scales of each of two groups
 * (the second one unused where a block is one group), 16 f32 offsets, to be added. Codes of 8 bits
 * are stored for AVX2 as magnitudes, and behind all that 8 lines have their signs. */
#include "codegen/cpu/matmul.h"

enum {
    PANEL_SCALES = 8 * 64,
    PANEL_OFFSETS = PANEL_SCALES + 2 * 64,
    PANEL_SIGNS = PANEL_OFFSETS + 64,
    /* Bytes ahead, measured on Sapphire Rapids. Into L1 more than 4000 does harm where the weights
     * come from DRAM; into L2 on top of it, from 8000 on it no longer matters how many. */
    PREFETCH_NEAR = 2304,
    PREFETCH_FAR = 12288
};

static int64_t panel_block_bytes(const ir_encoding *e) {
    return e->bits == 8 ? PANEL_SIGNS + 8 * 64 : PANEL_SIGNS;
}

int64_t cg_cpu_panel_bytes(const ir_type *w_type, int64_t k) {
    return k / CG_BLOCK_K * panel_block_bytes(w_type->encoding);
}

static LLVMValueRef panel_block(cg_cpu_emitter *em, const cg_cpu_product *p, LLVMValueRef index) {
    int64_t bytes = panel_block_bytes(p->w_type->encoding);
    return cg_cpu_offset(em, p->panel, cg_cpu_mul_const(em, index, bytes));
}

int cg_cpu_stored_zero(const ir_encoding *e) {
    return e->bits == 8 && e->is_signed ? 128 : e->zero_point;
}

static LLVMValueRef load_half_line(cg_cpu_emitter *em, LLVMValueRef base, int64_t offset) {
    LLVMValueRef at = cg_cpu_offset_const(em, base, offset);
    return cg_cpu_load_f32x16(em, IR_F16, at, NULL);
}

void cg_cpu_prefetch_weights(cg_cpu_emitter *em, LLVMValueRef w, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) {
        cg_cpu_prefetch(em, cg_cpu_offset_const(em, w, PREFETCH_NEAR + at), 1);
        cg_cpu_prefetch(em, cg_cpu_offset_const(em, w, PREFETCH_FAR + at), 2);
    }
}

cg_cpu_blocks cg_cpu_begin_blocks(cg_cpu_emitter *em, const cg_cpu_product *p) {
    cg_cpu_blocks b = {.encoding = p->w_type->encoding,
                       .packed = cg_packed_of(p->w_type->encoding),
                       .unpacked = p->panel != NULL};
    if (b.unpacked) {
        b.runs = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, p->k / CG_BLOCK_K), 1);
        b.index = b.runs.index;
        b.block = panel_block(em, p, b.index);
        return b;
    }
    int64_t blocks_per_run = b.packed.run_k / CG_BLOCK_K;
    b.runs = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, p->k / b.packed.run_k), 1);
    LLVMValueRef run =
        cg_cpu_offset(em, p->w, cg_cpu_mul_const(em, b.runs.index, b.packed.run_bytes));
    if (!b.packed.super_bytes) {
        b.block = run;
        b.index = b.runs.index;
        cg_cpu_prefetch_weights(em, b.block, b.packed.block_bytes);
        return b;
    }
    b.d = load_half_line(em, run, 0);
    if (b.packed.offsets_at)
        b.dmin = load_half_line(em, run, 2 * CG_TILE_ROWS);
    LLVMValueRef blocks = cg_cpu_offset_const(em, run, b.packed.super_bytes);
    b.blocks = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, blocks_per_run), 1);
    b.block = cg_cpu_offset(em, blocks, cg_cpu_mul_const(em, b.blocks.index, b.packed.block_bytes));
    b.index = cg_cpu_add(em, cg_cpu_mul_const(em, b.runs.index, blocks_per_run), b.blocks.index);
    cg_cpu_prefetch_weights(em, b.block, b.packed.block_bytes);
    return b;
}

void cg_cpu_end_blocks(cg_cpu_emitter *em, cg_cpu_blocks *b) {
    if (b->packed.super_bytes && !b->unpacked)
        cg_cpu_end_for(em, &b->blocks);
    cg_cpu_end_for(em, &b->runs);
}

/* 16 small integers as f32. */
static LLVMValueRef load_small_scales(cg_cpu_emitter *em, LLVMValueRef at, bool is_signed) {
    LLVMValueRef v = cg_cpu_load(em, cg_cpu_vector(em->i8, CG_CPU_LANES), at, 1);
    LLVMValueRef wide = is_signed ? LLVMBuildSExt(em->builder, v, em->i32x16, "")
                                  : LLVMBuildZExt(em->builder, v, em->i32x16, "");
    return LLVMBuildSIToFP(em->builder, wide, em->f32x16, "");
}

void cg_cpu_group_scale(cg_cpu_emitter *em, const cg_cpu_blocks *b, int g, LLVMValueRef *scale,
                        LLVMValueRef *offset) {
    const cg_packed *p = &b->packed;
    *offset = NULL;
    if (b->unpacked) {
        *scale = cg_cpu_load(em, em->f32x16,
                             cg_cpu_offset_const(em, b->block, PANEL_SCALES + 64 * g), 64);
        if (p->offsets_at)
            *offset =
                cg_cpu_load(em, em->f32x16, cg_cpu_offset_const(em, b->block, PANEL_OFFSETS), 64);
        return;
    }
    if (!p->super_bytes) {
        int64_t at = 2 * CG_TILE_ROWS * g; /* f32: one group */
        *scale =
            p->scale_bytes == 2
                ? load_half_line(em, b->block, p->code_bytes + at)
                : cg_cpu_load(em, em->f32x16, cg_cpu_offset_const(em, b->block, p->code_bytes), 64);
        if (p->offsets_at)
            *offset = load_half_line(em, b->block, p->offsets_at + at);
        return;
    }
    int64_t at = CG_TILE_ROWS * g;
    LLVMValueRef s = load_small_scales(em, cg_cpu_offset_const(em, b->block, p->code_bytes + at),
                                       b->encoding->scale == IR_I8);
    *scale = LLVMBuildFMul(em->builder, b->d, s, ""); /* exact: 11 + 8 bits */
    if (p->offsets_at) {
        LLVMValueRef m =
            load_small_scales(em, cg_cpu_offset_const(em, b->block, p->offsets_at + at), false);
        *offset = LLVMBuildFNeg(em->builder, LLVMBuildFMul(em->builder, b->dmin, m, ""), "");
    }
}

static LLVMValueRef line(cg_cpu_emitter *em, const cg_cpu_blocks *b, int index, int first,
                         int lanes, LLVMValueRef *lines) {
    if (!lines[index]) {
        LLVMValueRef at = cg_cpu_offset_const(em, b->block, index * 64 + first * 4);
        lines[index] = cg_cpu_load(em, cg_cpu_vector(em->i8, 4 * lanes), at, lanes == 16 ? 32 : 16);
    }
    return lines[index];
}

/* (v >> shift) & mask, byte by byte: a shift of wider lanes, whose stray bits the mask removes. */
static LLVMValueRef bits_of(cg_cpu_emitter *em, LLVMValueRef v, int lanes, int shift, int mask) {
    LLVMTypeRef bytes = cg_cpu_vector(em->i8, 4 * lanes), words = cg_cpu_vector(em->i16, 2 * lanes);
    if (shift) {
        LLVMValueRef w = LLVMBuildBitCast(em->builder, v, words, "");
        LLVMValueRef by = cg_cpu_splat(em, LLVMConstInt(em->i16, (unsigned)shift, 0), 2 * lanes);
        v = LLVMBuildBitCast(em->builder, LLVMBuildLShr(em->builder, w, by, ""), bytes, "");
    }
    LLVMValueRef m = cg_cpu_splat(em, LLVMConstInt(em->i8, (unsigned)mask, 0), 4 * lanes);
    return LLVMBuildAnd(em->builder, v, m, "");
}

static LLVMValueRef shifted_left(cg_cpu_emitter *em, LLVMValueRef v, int lanes, int by) {
    LLVMTypeRef bytes = cg_cpu_vector(em->i8, 4 * lanes), words = cg_cpu_vector(em->i16, 2 * lanes);
    LLVMValueRef w = LLVMBuildBitCast(em->builder, v, words, "");
    LLVMValueRef n = cg_cpu_splat(em, LLVMConstInt(em->i16, (unsigned)by, 0), 2 * lanes);
    return LLVMBuildBitCast(em->builder, LLVMBuildShl(em->builder, w, n, ""), bytes, "");
}

LLVMValueRef cg_cpu_codes(cg_cpu_emitter *em, const cg_cpu_blocks *b, int s, int first, int lanes,
                          LLVMValueRef *lines) {
    int bits = b->encoding->bits;
    if (bits == 8 || b->unpacked)
        return line(em, b, s, first, lanes, lines);
    LLVMValueRef low = bits_of(em, line(em, b, s % 4, first, lanes, lines), lanes, s / 4 * 4, 15);
    if (bits == 4)
        return low;
    /* The high bits of each byte fit below bit 8, so a shift of 16-bit lanes does not mix bytes. */
    LLVMValueRef high =
        bits == 5 ? bits_of(em, line(em, b, 4, first, lanes, lines), lanes, s, 1)
                  : bits_of(em, line(em, b, 4 + s / 4, first, lanes, lines), lanes, s % 4 * 2, 3);
    return LLVMBuildOr(em->builder, low, shifted_left(em, high, lanes, 4), "");
}

LLVMValueRef cg_cpu_magnitudes(cg_cpu_emitter *em, const cg_cpu_blocks *b, int s, int first,
                               LLVMValueRef codes, LLVMValueRef *signs) {
    LLVMTypeRef bytes = LLVMTypeOf(codes);
    if (b->unpacked) {
        int64_t at = PANEL_SIGNS + s * 64 + first * 4;
        *signs = cg_cpu_load(em, bytes, cg_cpu_offset_const(em, b->block, at), 32);
        return codes;
    }
    int lanes = (int)LLVMGetVectorSize(bytes);
    LLVMValueRef flip = cg_cpu_splat(em, LLVMConstInt(em->i8, 0x80, 0), lanes);
    *signs = LLVMBuildXor(em->builder, codes, flip, "");
    LLVMValueRef args[] = {*signs, LLVMConstNull(em->i1)};
    return cg_cpu_intrinsic(em, "llvm.abs", 1, &bytes, 2, args);
}

void cg_cpu_unpack_panel(cg_cpu_emitter *em, const cg_cpu_product *p) {
    cg_cpu_product packed = *p;
    packed.panel = NULL;
    cg_cpu_blocks b = cg_cpu_begin_blocks(em, &packed);
    LLVMValueRef to = panel_block(em, p, b.index), lines[8] = {0}, scale, offset;
    for (int s = 0; s < 8; s++) {
        LLVMValueRef codes = cg_cpu_codes(em, &b, s, 0, CG_CPU_LANES, lines);
        if (b.encoding->bits == 8 && !em->target->vnni) {
            LLVMValueRef signs;
            codes = cg_cpu_magnitudes(em, &b, s, 0, codes, &signs);
            cg_cpu_store(em, signs, cg_cpu_offset_const(em, to, PANEL_SIGNS + s * 64), 64);
        }
        cg_cpu_store(em, codes, cg_cpu_offset_const(em, to, s * 64), 64);
    }
    for (int g = 0; g < b.packed.groups; g++) {
        cg_cpu_group_scale(em, &b, g, &scale, &offset);
        cg_cpu_store(em, scale, cg_cpu_offset_const(em, to, PANEL_SCALES + g * 64), 64);
        if (offset)
            cg_cpu_store(em, offset, cg_cpu_offset_const(em, to, PANEL_OFFSETS), 64);
    }
    cg_cpu_end_blocks(em, &b);
}

/* The matmul anchor's schedule.
 *
 * A tile of the launch is a chunk of output columns: 16 of each part, or 32 where the epilogue
 * stores a8. Its weights are one contiguous stream. For each block of rows (8, then 4, 2, 1 for
 * what is left) the chunk's 16-column tiles are multiplied, then the epilogue runs row by row:
 *
 *   for tile in tiles:
 *     for each block of rows:
 *       for part, for 16 columns: out[row][part][column] = x[row] · w[tile]
 *       for row in block: epilogue(out[row])
 *
 * With a prologue this happens for a few hundred rows at a time, which are computed first
 * (prologue.c). Every sum is computed in one order, whatever block its row is in (see kernel.h). */
#include "codegen/cpu/matmul.h"

#include <string.h>

enum { WIDE_CHUNK = 32 };

static int64_t part_columns(const cg_kernel *kernel) {
    return kernel->matmul.n / kernel->matmul.parts;
}

static int64_t chunk_columns(const cg_kernel *kernel) {
    for (int i = 0; i < kernel->n_programs; i++)
        for (int s = 0; s < kernel->programs[i].n_stores; s++)
            if (kernel->programs[i].stores[s].kind == CG_STORE_A8)
                return WIDE_CHUNK;
    return CG_TILE_ROWS;
}

static int64_t n_chunks(const cg_kernel *kernel) {
    int64_t chunk = chunk_columns(kernel);
    return (part_columns(kernel) + chunk - 1) / chunk;
}

/* All rows belong to every tile; without rows there is none. */
cg_tiling cg_cpu_matmul_tiling(const cg_kernel *kernel) {
    return (cg_tiling){.dim = kernel->rows, .div = INT64_C(1) << 40, .mult = n_chunks(kernel)};
}

static int64_t epilogue_scratch(const cg_kernel *kernel) {
    int64_t bytes = 0;
    for (int i = 0; i < kernel->n_programs; i++) {
        int64_t b = cg_cpu_program_scratch(&kernel->programs[i], chunk_columns(kernel));
        bytes = b > bytes ? b : bytes;
    }
    return bytes;
}

int64_t cg_cpu_matmul_scratch(const cg_kernel *kernel) {
    int64_t bytes = epilogue_scratch(kernel);
    return kernel->matmul.prologue ? cg_cpu_prologue_scratch(kernel, bytes) : bytes;
}

/* --- quantized tiles
 * ---------------------------------------------------------------------------------- */

int cg_cpu_stored_zero(const ir_encoding *e) {
    return e->bits == 8 && e->is_signed ? 128 : e->zero_point;
}

static LLVMValueRef load_half_line(cg_cpu_emitter *em, LLVMValueRef base, int64_t offset) {
    LLVMValueRef at = cg_cpu_offset_const(em, base, offset);
    return cg_cpu_load_f32x16(em, IR_F16, at, NULL);
}

cg_cpu_blocks cg_cpu_begin_blocks(cg_cpu_emitter *em, const cg_cpu_product *p) {
    cg_cpu_blocks b = {.encoding = p->w_type->encoding,
                       .packed = cg_packed_of(p->w_type->encoding)};
    int64_t blocks_per_run = b.packed.run_k / CG_BLOCK_K;
    b.runs = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, p->k / b.packed.run_k), 1);
    LLVMValueRef run =
        cg_cpu_offset(em, p->w, cg_cpu_mul_const(em, b.runs.index, b.packed.run_bytes));
    if (!b.packed.super_bytes) {
        b.block = run;
        b.index = b.runs.index;
        return b;
    }
    b.d = load_half_line(em, run, 0);
    if (b.packed.offsets_at)
        b.dmin = load_half_line(em, run, 2 * CG_TILE_ROWS);
    LLVMValueRef blocks = cg_cpu_offset_const(em, run, b.packed.super_bytes);
    b.blocks = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, blocks_per_run), 1);
    b.block = cg_cpu_offset(em, blocks, cg_cpu_mul_const(em, b.blocks.index, b.packed.block_bytes));
    b.index = cg_cpu_add(em, cg_cpu_mul_const(em, b.runs.index, blocks_per_run), b.blocks.index);
    return b;
}

void cg_cpu_end_blocks(cg_cpu_emitter *em, cg_cpu_blocks *b) {
    if (b->packed.super_bytes)
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
    if (!p->super_bytes) {
        int64_t at = 2 * CG_TILE_ROWS * g;
        *scale = load_half_line(em, b->block, p->code_bytes + at);
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
    if (bits == 8)
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

/* --- the schedule
 * --------------------------------------------------------------------------------------- */

typedef struct schedule {
    const cg_kernel *kernel;
    const ir_type *x_type, *w_type;
    int64_t chunk, tile_bytes, x_row_bytes;
    LLVMValueRef x, w;
    LLVMValueRef x_row;   /* x begins with this row */
    LLVMValueRef scratch; /* the epilogue's */
} schedule;

/* One block of rows of one chunk: products, then the epilogue. */
static void emit_block(cg_cpu_emitter *em, const schedule *s, LLVMValueRef tile, LLVMValueRef row,
                       int rows) {
    const cg_matmul *m = &s->kernel->matmul;
    int subtiles = (int)(s->chunk / CG_TILE_ROWS);
    int64_t part_bytes = rows * s->chunk * 4;
    LLVMValueRef out = cg_cpu_local_bytes(em, m->parts * part_bytes);
    LLVMValueRef x = cg_cpu_offset(
        em, s->x, cg_cpu_mul_const(em, cg_cpu_sub(em, row, s->x_row), s->x_row_bytes));
    LLVMValueRef w =
        cg_cpu_offset(em, s->w, cg_cpu_mul_const(em, tile, subtiles * m->parts * s->tile_bytes));
    for (int sub = 0; sub < subtiles; sub++)
        for (int part = 0; part < m->parts; part++) {
            cg_cpu_product p = {
                .x = x,
                .w = cg_cpu_offset_const(em, w, (sub * m->parts + part) * s->tile_bytes),
                .rows = rows,
                .k = m->k,
                .x_row_bytes = s->x_row_bytes,
                .w_type = s->w_type};
            if (s->x_type->encoding)
                cg_cpu_product_int8(em, &p);
            else
                cg_cpu_product_f32(em, &p);
            for (int r = 0; r < rows; r++)
                cg_cpu_store(em, p.sums[r],
                             cg_cpu_offset_const(em, out,
                                                 part * part_bytes + r * s->chunk * 4 +
                                                     sub * CG_TILE_ROWS * 4),
                             64);
        }
    LLVMValueRef first = cg_cpu_mul_const(em, tile, s->chunk);
    int64_t columns = part_columns(s->kernel);
    cg_cpu_loop loop = {0};
    LLVMValueRef r = cg_cpu_i64(em, 0);
    if (rows > 1) {
        loop = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, rows), 1);
        r = loop.index;
    }
    LLVMValueRef row_out = cg_cpu_offset(em, out, cg_cpu_mul_const(em, r, s->chunk * 4));
    cg_cpu_chunk chunk = {
        .row = cg_cpu_add(em, row, r),
        .head = cg_cpu_i64(em, 0),
        .first_col = first,
        .n_cols = s->chunk,
        .valid = columns % s->chunk ? cg_cpu_sub(em, cg_cpu_i64(em, columns), first) : NULL,
        .inputs = {row_out, cg_cpu_offset_const(em, row_out, part_bytes)},
        .scratch = s->scratch,
    };
    for (int i = 0; i < s->kernel->n_programs; i++)
        cg_cpu_emit_program(em, &s->kernel->programs[i], &chunk);
    if (rows > 1)
        cg_cpu_end_for(em, &loop);
}

static bool check(cg_cpu_emitter *em, const schedule *s) {
    const ir_type *x = s->x_type, *w = s->w_type;
    const cg_matmul *m = &s->kernel->matmul;
    if (!w->layout)
        return cg_cpu_unsupported(em, "the weight of a matmul is not packed");
    if (x->encoding && (x->encoding->id != IR_ENC_A8 || !w->encoding))
        return cg_cpu_unsupported(em, "activations in %s do not go with weights in %s",
                                  x->encoding->name,
                                  w->encoding ? w->encoding->name : ir_dtype_name(w->dtype));
    if (!x->encoding && x->dtype != IR_F32)
        return cg_cpu_unsupported(em, "activations in %s", ir_dtype_name(x->dtype));
    if (!w->encoding && !cg_cpu_can_load(w->dtype))
        return cg_cpu_unsupported(em, "weights in %s", ir_dtype_name(w->dtype));
    if (w->encoding && m->k % w->encoding->block)
        return cg_cpu_unsupported(em, "a row of %lld weights is no multiple of %s's block of %d",
                                  (long long)m->k, w->encoding->name, w->encoding->block);
    if (m->prologue && !cg_cpu_check_prologue(em))
        return false;
    for (int i = 0; i < s->kernel->n_programs; i++) {
        if (!cg_cpu_check_program(em, &s->kernel->programs[i], s->chunk))
            return false;
        if (s->chunk == WIDE_CHUNK && part_columns(s->kernel) % WIDE_CHUNK)
            return cg_cpu_unsupported(em, "a8 results need a multiple of 32 columns");
    }
    return true;
}

/* Rows begin … end-1 of all tiles. */
static void emit_tiles(cg_cpu_emitter *em, const schedule *s, LLVMValueRef begin,
                       LLVMValueRef end) {
    cg_cpu_loop tiles = cg_cpu_for(em, em->tile_begin, em->tile_end, 1);
    /* AVX2's 16 registers hold the accumulators of 4 rows. */
    int largest = em->target->avx512 ? CG_CPU_MAX_BLOCK_ROWS : CG_CPU_MAX_BLOCK_ROWS / 2;
    for (int block = largest; block >= 1; block /= 2) {
        /* As many as there are blocks of this size; what is left goes to the next smaller one. */
        LLVMValueRef left = cg_cpu_sub(em, end, begin);
        LLVMValueRef mask = cg_cpu_i64(em, ~(int64_t)(block - 1));
        LLVMValueRef whole = cg_cpu_add(em, begin, LLVMBuildAnd(em->builder, left, mask, ""));
        cg_cpu_loop rows = cg_cpu_for(em, begin, whole, block);
        emit_block(em, s, tiles.index, rows.index, block);
        cg_cpu_end_for(em, &rows);
        begin = whole;
    }
    cg_cpu_end_for(em, &tiles);
}

bool cg_cpu_emit_matmul(cg_cpu_emitter *em) {
    const cg_kernel *k = em->kernel;
    const cg_matmul *m = &k->matmul;
    schedule s = {.kernel = k,
                  .x_type = &m->x_type,
                  .w_type = &k->args[m->w].type,
                  .chunk = chunk_columns(k),
                  .w = em->args[m->w],
                  .x_row = cg_cpu_i64(em, 0),
                  .scratch = em->scratch};
    if (!check(em, &s))
        return false;
    s.tile_bytes = cg_packed_tile_bytes(s.w_type, m->k);
    s.x_row_bytes = s.x_type->encoding ? ir_encoding_row_bytes(s.x_type->encoding, m->k) : 4 * m->k;
    LLVMValueRef rows = cg_cpu_dim(em, k->rows);
    if (!m->prologue) {
        s.x = em->args[m->x];
        emit_tiles(em, &s, s.x_row, rows);
        return true;
    }
    int64_t step = cg_cpu_prologue_rows(k);
    cg_cpu_loop blocks = cg_cpu_for(em, s.x_row, rows, step);
    LLVMValueRef end = cg_cpu_min(em, cg_cpu_add_const(em, blocks.index, step), rows);
    cg_cpu_emit_prologue(em, epilogue_scratch(k), blocks.index, end);
    s.x = em->operand;
    s.x_row = blocks.index;
    s.scratch = cg_cpu_prologue_programs(em);
    emit_tiles(em, &s, blocks.index, end);
    cg_cpu_end_for(em, &blocks);
    return true;
}

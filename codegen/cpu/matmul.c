/* The matmul anchor's schedule.
 *
 * A tile of the launch is a chunk of output columns: 16 of each part, or 32 where the epilogue
 * stores a8 or the weights are not quantized. Its weights are one contiguous stream. For each block
 * of rows (8, and the 1 to 7 that are left) the chunk's 16-column tiles are multiplied, then the
 * epilogue runs row by row:
 *
 *   for tile in tiles:
 *     unpack w[tile], if there are many rows
 *     for each block of rows:
 *       for part, for 16 columns: out[row][part][column] = x[row] · w[tile]
 *       for row in block: epilogue(out[row])
 *
 * With a prologue this happens for a few hundred rows at a time, which are computed first
 * (prologue.c). Every sum is computed in one order, whatever block its row is in (see kernel.h). */
#include "codegen/cpu/matmul.h"

#include <string.h>

enum {
    WIDE_CHUNK = 32,
    MOST_TILES = WIDE_CHUNK / CG_TILE_ROWS * 2, /* of a chunk */
    PANEL_LIMIT = 256 * 1024 /* bytes of unpacked weights, which stay in a core's cache */
};

/* Whether products are those of integer codes: of a8, that is. */
static bool by_integers(const ir_type *x) {
    return x->encoding && x->encoding->code == IR_CODE_INT;
}

static int64_t part_columns(const cg_kernel *kernel) {
    return kernel->matmul.n / kernel->matmul.parts;
}

static int64_t chunk_columns(const cg_kernel *kernel) {
    if (!kernel->args[kernel->matmul.w].type.encoding && part_columns(kernel) % WIDE_CHUNK == 0)
        return WIDE_CHUNK; /* several tiles for cg_cpu_products_plain */
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

/* Bytes of a chunk's unpacked tiles, part by part as in the packed weight; 0: they are not unpacked
 * for many rows. */
static int64_t panel_bytes(const cg_kernel *kernel) {
    const cg_matmul *m = &kernel->matmul;
    const ir_type *w = &kernel->args[m->w].type;
    if (!w->encoding || !by_integers(&m->x_type))
        return 0;
    int64_t tiles = chunk_columns(kernel) / CG_TILE_ROWS * m->parts;
    int64_t bytes = tiles * cg_cpu_panel_bytes(w, m->k);
    return bytes <= PANEL_LIMIT ? bytes : 0;
}

/* Scratch of what follows on a prologue: the epilogue's, then the unpacked tiles. */
static int64_t tiles_scratch(const cg_kernel *kernel) {
    return epilogue_scratch(kernel) + panel_bytes(kernel);
}

int64_t cg_cpu_matmul_scratch(const cg_kernel *kernel) {
    int64_t bytes = tiles_scratch(kernel);
    return kernel->matmul.prologue ? cg_cpu_prologue_scratch(kernel, bytes) : bytes;
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
    LLVMValueRef panel;   /* NULL: tiles are not unpacked */
    int64_t panel_bytes;  /* of a tile */
} schedule;

/* The product of `rows` rows with tile `index` of the chunk, which counts parts first. */
static cg_cpu_product product_of(cg_cpu_emitter *em, const schedule *s, LLVMValueRef tile,
                                 int index, int rows) {
    int64_t tiles = s->chunk / CG_TILE_ROWS * s->kernel->matmul.parts;
    LLVMValueRef w = cg_cpu_offset(em, s->w, cg_cpu_mul_const(em, tile, tiles * s->tile_bytes));
    return (cg_cpu_product){.w = cg_cpu_offset_const(em, w, index * s->tile_bytes),
                            .rows = rows,
                            .k = s->kernel->matmul.k,
                            .x_row_bytes = s->x_row_bytes,
                            .x_type = s->x_type,
                            .w_type = s->w_type};
}

static void unpack_chunk(cg_cpu_emitter *em, const schedule *s, LLVMValueRef tile) {
    int tiles = (int)(s->chunk / CG_TILE_ROWS) * s->kernel->matmul.parts;
    for (int i = 0; i < tiles; i++) {
        cg_cpu_product p = product_of(em, s, tile, i, 0);
        p.panel = cg_cpu_offset_const(em, s->panel, i * s->panel_bytes);
        cg_cpu_unpack_panel(em, &p);
    }
}

/* The epilogue of row `row` + `r`, whose products are at `out` + r * chunk. */
static void emit_epilogue(cg_cpu_emitter *em, const schedule *s, LLVMValueRef tile,
                          LLVMValueRef row, LLVMValueRef r, LLVMValueRef out, int64_t part_bytes,
                          cg_cpu_a8_queue *a8) {
    LLVMValueRef first = cg_cpu_mul_const(em, tile, s->chunk);
    int64_t columns = part_columns(s->kernel);
    LLVMValueRef row_out = cg_cpu_offset(em, out, cg_cpu_mul_const(em, r, s->chunk * 4));
    cg_cpu_chunk chunk = {
        .row = cg_cpu_add(em, row, r),
        .head = cg_cpu_i64(em, 0),
        .first_col = first,
        .n_cols = s->chunk,
        .valid = columns % s->chunk ? cg_cpu_sub(em, cg_cpu_i64(em, columns), first) : NULL,
        .inputs = {row_out, cg_cpu_offset_const(em, row_out, part_bytes)},
        .scratch = s->scratch,
        .a8 = a8,
    };
    for (int i = 0; i < s->kernel->n_programs; i++)
        cg_cpu_emit_program(em, &s->kernel->programs[i], &chunk);
}

/* The epilogues of all rows of a block. Rows that store a8 share the work of it, CG_CPU_A8_GROUPS
 * at a time. */
static void emit_epilogues(cg_cpu_emitter *em, const schedule *s, LLVMValueRef tile,
                           LLVMValueRef row, int rows, LLVMValueRef out, int64_t part_bytes) {
    int turn = s->chunk == WIDE_CHUNK ? CG_CPU_A8_GROUPS : 1, in_turns = rows / turn * turn;
    cg_cpu_a8_queue a8 = {0};
    if (in_turns > turn) {
        cg_cpu_loop loop = cg_cpu_for(em, cg_cpu_i64(em, 0), cg_cpu_i64(em, in_turns), turn);
        for (int i = 0; i < turn; i++)
            emit_epilogue(em, s, tile, row, cg_cpu_add_const(em, loop.index, i), out, part_bytes,
                          &a8);
        cg_cpu_a8_flush(em, &a8);
        cg_cpu_end_for(em, &loop);
    } else
        in_turns = 0;
    for (int r = in_turns; r < rows; r++)
        emit_epilogue(em, s, tile, row, cg_cpu_i64(em, r), out, part_bytes, &a8);
    cg_cpu_a8_flush(em, &a8);
}

/* One block of rows of one chunk: products, then the epilogue. */
static void emit_block(cg_cpu_emitter *em, const schedule *s, LLVMValueRef tile, LLVMValueRef row,
                       int rows, bool unpacked) {
    const cg_matmul *m = &s->kernel->matmul;
    int tiles = (int)(s->chunk / CG_TILE_ROWS) * m->parts;
    int64_t part_bytes = rows * s->chunk * 4;
    LLVMValueRef out = cg_cpu_local_bytes(em, m->parts * part_bytes);
    LLVMValueRef x = cg_cpu_offset(
        em, s->x, cg_cpu_mul_const(em, cg_cpu_sub(em, row, s->x_row), s->x_row_bytes));
    cg_cpu_product products[MOST_TILES];
    for (int i = 0; i < tiles; i++) {
        products[i] = product_of(em, s, tile, i, rows);
        products[i].x = x;
        if (unpacked)
            products[i].panel = cg_cpu_offset_const(em, s->panel, i * s->panel_bytes);
    }
    if (!s->w_type->encoding)
        cg_cpu_products_plain(em, products, tiles);
    for (int i = 0; i < tiles; i++) {
        if (by_integers(s->x_type))
            cg_cpu_product_int8(em, &products[i]);
        else if (s->w_type->encoding)
            cg_cpu_product_f32(em, &products[i]);
        int64_t at = i % m->parts * part_bytes + i / m->parts * CG_TILE_ROWS * 4;
        for (int r = 0; r < rows; r++)
            cg_cpu_store(em, products[i].sums[r],
                         cg_cpu_offset_const(em, out, at + r * s->chunk * 4), 64);
    }
    emit_epilogues(em, s, tile, row, rows, out, part_bytes);
}

static bool check(cg_cpu_emitter *em, const schedule *s) {
    const ir_type *x = s->x_type, *w = s->w_type;
    const cg_matmul *m = &s->kernel->matmul;
    if (!w->layout)
        return cg_cpu_unsupported(em, "the weight of a matmul is not packed");
    if (s->kernel->n_programs != 1)
        return cg_cpu_unsupported(em, "a matmul with an epilogue by heads");
    if (x->encoding && !ir_encodings_multiply(x->encoding, w->encoding))
        return cg_cpu_unsupported(em, "activations in %s do not go with weights in %s",
                                  x->encoding->name,
                                  w->encoding ? w->encoding->name : ir_dtype_name(w->dtype));
    if (!x->encoding && x->dtype != IR_F32 && x->dtype != IR_F16 && x->dtype != IR_BF16)
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

/* Rows that are worked on together with unpacked weights, and from how many rows on it pays to
 * unpack them. */
static int panel_block(const cg_cpu_emitter *em) {
    return em->target->avx512 ? CG_CPU_MAX_BLOCK_ROWS : CG_CPU_MAX_BLOCK_ROWS / 2;
}

static int panel_from(const cg_cpu_emitter *em) {
    return em->target->avx512 ? 64 : 32;
}

/* Rows from `begin` on in as many blocks, of a power of two of rows, as there are before `end`.
 * Returns the first row that is left. */
static LLVMValueRef emit_blocks(cg_cpu_emitter *em, const schedule *s, LLVMValueRef tile,
                                LLVMValueRef begin, LLVMValueRef end, int block, bool unpacked) {
    LLVMValueRef mask = cg_cpu_i64(em, ~(int64_t)(block - 1));
    LLVMValueRef whole = LLVMBuildAnd(em->builder, cg_cpu_sub(em, end, begin), mask, "");
    whole = cg_cpu_add(em, begin, whole);
    cg_cpu_loop rows = cg_cpu_for(em, begin, whole, block);
    emit_block(em, s, tile, rows.index, block, unpacked);
    cg_cpu_end_for(em, &rows);
    return whole;
}

/* Rows begin … end-1 of all tiles. */
static void emit_tiles(cg_cpu_emitter *em, const schedule *s, LLVMValueRef begin,
                       LLVMValueRef end) {
    cg_cpu_loop tiles = cg_cpu_for(em, em->tile_begin, em->tile_end, 1);
    if (s->panel) {
        LLVMValueRef first = cg_cpu_local(em, em->i64); /* of the rows that are left */
        cg_cpu_store(em, begin, first, 8);
        LLVMValueRef few =
            cg_cpu_less(em, cg_cpu_sub(em, end, begin), cg_cpu_i64(em, panel_from(em)));
        cg_cpu_if many = cg_cpu_begin_if(em, LLVMBuildNot(em->builder, few, ""));
        unpack_chunk(em, s, tiles.index);
        cg_cpu_store(em, emit_blocks(em, s, tiles.index, begin, end, panel_block(em), true), first,
                     8);
        cg_cpu_end_if(em, &many);
        begin = cg_cpu_load(em, em->i64, first, 8);
    }
    /* AVX2's 16 registers hold the accumulators of 4 rows. */
    int largest = em->target->avx512 ? CG_CPU_MAX_BLOCK_ROWS : CG_CPU_MAX_BLOCK_ROWS / 2;
    begin = emit_blocks(em, s, tiles.index, begin, end, largest, false);
    LLVMValueRef left = cg_cpu_sub(em, end, begin);
    for (int rows = largest - 1; rows >= 1; rows--) {
        LLVMValueRef same = LLVMBuildICmp(em->builder, LLVMIntEQ, left, cg_cpu_i64(em, rows), "");
        cg_cpu_if are_left = cg_cpu_begin_if(em, same);
        emit_block(em, s, tiles.index, begin, rows, false);
        cg_cpu_end_if(em, &are_left);
    }
    cg_cpu_end_for(em, &tiles);
}

static LLVMValueRef panel_at(cg_cpu_emitter *em, LLVMValueRef scratch) {
    const cg_kernel *k = em->kernel;
    return panel_bytes(k) ? cg_cpu_offset_const(em, scratch, epilogue_scratch(k)) : NULL;
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
    s.x_row_bytes = s.x_type->encoding ? ir_encoding_row_bytes(s.x_type->encoding, m->k)
                                       : m->k * (ir_dtype_bits(s.x_type->dtype) / 8);
    s.panel_bytes = panel_bytes(k) ? cg_cpu_panel_bytes(s.w_type, m->k) : 0;
    LLVMValueRef rows = cg_cpu_dim(em, k->rows);
    if (!m->prologue) {
        s.x = em->args[m->x];
        s.panel = panel_at(em, s.scratch);
        emit_tiles(em, &s, s.x_row, rows);
        return true;
    }
    int64_t step = cg_cpu_prologue_rows(k);
    cg_cpu_loop blocks = cg_cpu_for(em, s.x_row, rows, step);
    LLVMValueRef end = cg_cpu_min(em, cg_cpu_add_const(em, blocks.index, step), rows);
    cg_cpu_emit_prologue(em, tiles_scratch(k), blocks.index, end);
    s.x = em->operand;
    s.x_row = blocks.index;
    s.scratch = cg_cpu_prologue_programs(em);
    s.panel = panel_at(em, s.scratch);
    emit_tiles(em, &s, blocks.index, end);
    cg_cpu_end_for(em, &blocks);
    return true;
}

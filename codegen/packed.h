/* Where things lie inside packed weights, the same for every backend: an artifact for several has
 * one copy of them.
 *
 * Layout "n16": tiles of 16 rows (n), one after another; the rows of the last tile beyond N are
 * zero. "n16x2": tiles of the first and the second half of the rows alternate.
 *
 * Not quantized: a tile is [k][16 rows] elements.
 *
 * Quantized: a tile is a sequence of blocks of 32 k, in ascending k. Where the encoding has two
 * levels of scale, each run of 8 blocks (256 k) begins with its super line: 16 f16 d, then (with
 * offsets) 16 f16 dmin. A block is code lines of 64 bytes, then scales.
 *   4 bits and more, below 8: lines j = 0 … 3: dword lane = row, byte b of the dword: the low
 * nibble belongs to k = 4j+b, the high nibble to k = 16+4j+b. 5 bits: one more line: bit s of byte
 * row*4+b is the fifth bit of k = 4s+b, s = 0 … 7. 6 bits: two more lines, h = 0, 1: bits 2i and
 * 2i+1 of byte row*4+b are the top bits of k = 4(4h+i)+b. 8 bits: lines s = 0 … 7: dword lane =
 * row, byte b: code + 128 of k = 4s+b (an e4m3 as it is). Scales of one level: 16 scales, f16 or
 * f32, then (with offsets) 16 f16 offsets. Of two levels: for each group of the block 16 scales (u8
 * or i8), then (with offsets) 16 u8 minima a group. */
#ifndef MCC_CODEGEN_PACKED_H
#define MCC_CODEGEN_PACKED_H

#include "ir/ir.h"

enum { CG_TILE_ROWS = 16, CG_BLOCK_K = 32, CG_SUPER_BLOCKS = 8 };

typedef struct cg_packed {
    int code_bytes;    /* of the code lines of a block; the scales follow */
    int groups;        /* per block: 1, or 2 for groups of 16 */
    int scale_bytes;   /* of a group's scale */
    int offsets_at;    /* offset of the offsets or minima in a block; 0: none */
    int block_bytes;   /* of a block, without the super line */
    int super_bytes;   /* of the super line; 0: one level */
    int64_t run_bytes; /* of 8 blocks and their super line; of one block where there is none */
    int64_t run_k;     /* 256, or 32 */
} cg_packed;

/* For every encoding of weights (all but a8). */
cg_packed cg_packed_of(const ir_encoding *encoding);
/* Bytes of one tile of a weight type with k elements a row. */
int64_t cg_packed_tile_bytes(const ir_type *type, int64_t k);

#endif

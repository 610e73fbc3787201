#include "codegen/packed.h"

cg_packed cg_packed_of(const ir_encoding *encoding) {
    cg_packed p = {.groups = CG_BLOCK_K / encoding->group};
    p.code_bytes = CG_TILE_ROWS * CG_BLOCK_K * encoding->bits / 8;
    p.scale_bytes = ir_dtype_bits(encoding->scale) / 8;
    bool two_levels = encoding->super_group != 0, offsets = encoding->offset != IR_OFFSET_NONE;
    int line = CG_TILE_ROWS * p.groups * p.scale_bytes;
    p.offsets_at = offsets ? p.code_bytes + line : 0;
    p.block_bytes = p.code_bytes + line * (offsets ? 2 : 1);
    p.super_bytes = two_levels ? CG_TILE_ROWS * 2 * (offsets ? 2 : 1) : 0;
    p.run_bytes = two_levels ? p.super_bytes + CG_SUPER_BLOCKS * p.block_bytes : p.block_bytes;
    p.run_k = two_levels ? CG_SUPER_BLOCKS * CG_BLOCK_K : CG_BLOCK_K;
    return p;
}

int64_t cg_packed_tile_bytes(const ir_type *type, int64_t k) {
    if (!type->encoding)
        return CG_TILE_ROWS * k * (ir_dtype_bits(type->dtype) / 8);
    cg_packed p = cg_packed_of(type->encoding);
    return k / p.run_k * p.run_bytes;
}

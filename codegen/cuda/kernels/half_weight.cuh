// 16-bit weights times 16-bit activations on tensor cores: what matmul_half_decode.cuh and
// matmul_half_prefill.cuh share.
//
// Products are exact, and sums are f32 in an order that is the same for any number of rows: K is cut
// into SPLITS ranges of RANGE, in each mma.m16n8k16 adds 16 k at a time, ascending, and the ranges'
// sums are added in ascending order. (Inside an mma the order is the device's.)
//
// Tiles are [k][16 rows] (codegen/packed.h): ldmatrix transposes them into operands. A line of a k
// is 32 bytes, so bit 7 of an offset flips bit 4: eight lines then lie in different banks.
#pragma once
#include "half_mma.cuh"
#include "weight_tiles.cuh"

constexpr int K = static_cast<int>(weight::k);
constexpr int LINE = 32;
constexpr int64 TILE_BYTES = weight::k * LINE;
constexpr int64 X_ROW_BYTES = weight::k * 2;
static_assert(K % 8 == 0, "rows of x are 16-byte aligned");

INLINE uint32 half_swizzle(uint32 offset) {
    return offset ^ ((offset >> 3) & 16);
}

// The operand of 16 rows and 16 k from line k of a tile's stage at `tile`, a multiple of 128.
INLINE void load_half_operand(uint32 (&a)[4], uint32 tile, int k) {
    int lane = lane_id();
    // matrices: low k and low rows, low k and high rows, high k and low rows, high and high
    int line = k + (lane & 7) + ((lane >> 4) & 1) * 8;
    ldmatrix4_transposed(a, tile + half_swizzle(line * LINE + ((lane >> 3) & 1) * 16));
}

// Copies lines k … k + COUNT - 1 of a tile with all lanes of a warp; zeros from K on. whole: they
// are known to end before K.
template <int COUNT>
INLINE void copy_half_tile(uint32 to, const uint8 *tile, int k, bool whole) {
#pragma unroll
    for (int i = 0; i < COUNT * LINE; i += 512) {
        uint32 at = i + lane_id() * 16;
        const uint8 *from = tile + static_cast<int64>(k) * LINE + at;
        if (i + 512 > K % COUNT * LINE && K % COUNT && !whole) // else every stage has these lines
            copy16(to + half_swizzle(at), from, k + static_cast<int>(at) / LINE < K);
        else
            copy16(to + half_swizzle(at), from);
    }
}

// Activations in a8 times quantized weights, or in a8_e4m3 or 16 bits times fp8, for many rows:
// tiles through shared memory.
//
// A block of threads computes WARPS_M * TILES_M * 16 rows of the packed weight (columns of the
// result) for WARPS_N * TILES_N * 8 rows of x. A stage is STAGE_BLOCKS blocks of 32 k of both, as
// they lie in memory, copied asynchronously STAGES - 1 stages ahead. Each warp multiplies TILES_M by
// TILES_N operands of mma.m16n8k32, weights unpacked in registers; each group's exact dot products
// go to the f32 sums at once, in ascending order of groups (kernel.h):
//
//   for each stage, block of k, (TILES_M x TILES_N):
//       sum = fma(dot, w_scale * x_scale, sum)      (then the offset's)
//
// Shared memory without bank conflicts: a tile's blocks are 32-byte multiples and their lines 64
// bytes, so bit 7 of an offset flips bit 5 (lanes t and t + 2 read lines 128 bytes apart); rows of x
// have their 16-byte pieces permuted for ldmatrix. Row g of an operand is row 2g of the tile, row
// g + 8 is row 2g + 1, so that a lane's two rows are 8 bytes of a line.
#pragma once
#include "weight_tiles.cuh"

template <int WARPS_M, int WARPS_N, int TILES_M, int TILES_N, int STAGE_BLOCKS, int STAGES>
struct a8_prefill {
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int TILES = WARPS_M * TILES_M;        // of 16 rows of w
    static constexpr int TOKENS = WARPS_N * TILES_N * 8;   // rows of x
    static constexpr int PART_COLUMNS = TILES * 16 / weight::parts;
    static constexpr int N_STAGES = (BLOCKS + STAGE_BLOCKS - 1) / STAGE_BLOCKS;
    static constexpr bool RAGGED = BLOCKS % STAGE_BLOCKS != 0; // the last stage
    static_assert(PART_COLUMNS % 32 == 0, "an epilogue's columns are whole groups");
    static_assert(TILES_N % 2 == 0, "ldmatrix loads two operands");
    static_assert(8 % STAGE_BLOCKS == 0, "a stage is within a run");

    // A stage's parts, bytes.
    // A tile's blocks, then its super line; multiples of 64, for copies without conflicts.
    static constexpr int SUPER_AT = STAGE_BLOCKS * weight::block_bytes;
    static constexpr int TILE_STAGE = (SUPER_AT + weight::super_bytes + 63) / 64 * 64;
    static constexpr int W_BYTES = (TILES * TILE_STAGE + 127) / 128 * 128;
    static constexpr int X_ROW = STAGE_BLOCKS * X_BLOCK;
    static constexpr int X_BYTES = TOKENS * X_ROW;
    static constexpr int NUMBERS_ROW = TOKENS + 8; // floats; copies of 4 rows by 8 tokens a warp
    static constexpr int NUMBERS_BYTES = X_SCALES ? STAGE_BLOCKS * NUMBERS_ROW * 4 : 0;
    static constexpr int STAGE_BYTES =
        (W_BYTES + X_BYTES + NUMBERS_BYTES * (OFFSETS ? 2 : 1) + 127) / 128 * 128;

    // The result of the block, when all stages are done: [part][token][column].
    static constexpr int OUT_ROW = PART_COLUMNS + 4;
    static constexpr int OUT_BYTES = weight::parts * TOKENS * OUT_ROW * 4;
    static constexpr int SHARED_BYTES =
        STAGES * STAGE_BYTES > OUT_BYTES ? STAGES * STAGE_BYTES : OUT_BYTES;

    static __device__ __forceinline__ uint32 swizzle(uint32 offset) {
        return offset ^ ((offset >> 2) & 32);
    }
    static __device__ __forceinline__ uint32 x_piece(int token, int piece) {
        constexpr int PIECES = X_ROW / 16, ROWS = PIECES < 8 ? 8 / PIECES : 1; // in 128 bytes
        if (!X_SCALES) { // pairs of pieces, for loads of 8 bytes a lane
            int unit = PIECES == 4 ? token / 2 % 2 : token % 4;
            return static_cast<uint32>(token * X_ROW + (piece ^ unit * 2) * 16);
        }
        return static_cast<uint32>(token * X_ROW +
                                   ((piece ^ (token / ROWS % PIECES)) & (PIECES - 1)) * 16);
    }

    // Of the stage that begins with `block`; none, or less, behind the last one.
    static __device__ __forceinline__ int stage_blocks(int block) {
        int left = BLOCKS - block;
        return RAGGED && left < STAGE_BLOCKS ? left : STAGE_BLOCKS;
    }

    // Warps copy tiles, lanes their pieces of 16 bytes. Rows beyond the last give zeros; tiles beyond
    // the last are the last.
    static __device__ __forceinline__ void copy_tiles(uint32 to, const uint8 *w, int block) {
        constexpr int WARPS = WARPS_M * WARPS_N, LAST = weight::parts * PART_TILES - 1;
        int lane = lane_id(), bytes = stage_blocks(block) * weight::block_bytes;
#pragma unroll
        for (int i = 0; i < (TILES + WARPS - 1) / WARPS; i++) {
            int tile = warp_id() + i * WARPS, from = static_cast<int>(blockIdx.y) * TILES + tile;
            if (TILES % WARPS && tile >= TILES)
                break;
            const uint8 *at = w + tile_of(from < LAST ? from : LAST) * TILE_BYTES;
            uint32 offset = tile * TILE_STAGE + lane * 16;
            if (TWO_LEVELS && lane < weight::super_bytes / 16)
                copy16(to + swizzle(offset + SUPER_AT), at + run_offset(block) + lane * 16);
            offset = swizzle(offset);
            at += block_offset(block) + lane * 16;
#pragma unroll
            for (int p = 0; p < STAGE_BLOCKS * weight::block_bytes; p += 512)
                if (lane * 16 + p < bytes)
                    copy16(to + offset + p, at + p); // 512 does not touch swizzled bits
        }
    }

    static __device__ __forceinline__ void copy_x(uint32 to, const uint8 *x, int64 rows, int block) {
        constexpr int PIECES = X_ROW / 16, STEP = THREADS / PIECES;
        int64 first = static_cast<int64>(blockIdx.x) * TOKENS;
        int left = RAGGED ? BLOCKS - block : STAGE_BLOCKS, tokens = static_cast<int>(rows - first);
        int token = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
        static_assert(THREADS % PIECES == 0 && TOKENS % STEP == 0 && STEP % 8 == 0, "whole steps");
        const uint8 *at = x + (first + token) * X_ROW_BYTES + block * X_BLOCK + piece * 16;
        uint32 offset = x_piece(token, piece); // tokens 8 apart permute alike
        if (piece < X_BLOCK / 16 * left)
#pragma unroll
            for (int i = 0; i < TOKENS; i += STEP)
                copy16(to + offset + i * X_ROW, at + i * X_ROW_BYTES, token + i < tokens);

        if (!X_SCALES)
            return;
        to += X_BYTES;
        constexpr int NUMBERS_STEP = THREADS / STAGE_BLOCKS;
        int b = threadIdx.x % STAGE_BLOCKS;
        token = threadIdx.x / STAGE_BLOCKS;
        at = x + (first + token) * X_ROW_BYTES + (block + b) * 4;
        if (b < left)
#pragma unroll
            for (int i = 0; i < TOKENS; i += NUMBERS_STEP) {
                if (TOKENS % NUMBERS_STEP && token + i >= TOKENS)
                    break;
                uint32 number = to + (b * NUMBERS_ROW + token + i) * 4;
                const uint8 *row = at + i * X_ROW_BYTES;
                copy4(number, row + A8_SCALES, token + i < tokens);
                if (OFFSETS)
                    copy4(number + NUMBERS_BYTES, row + A8_SCALED_SUMS, token + i < tokens);
            }
    }

    static __device__ __forceinline__ void copy_stage(uint32 to, const uint8 *x, const uint8 *w,
                                                      int64 rows, int stage) {
        copy_tiles(to, w, stage * STAGE_BLOCKS);
        copy_x(to + W_BYTES, x, rows, stage * STAGE_BLOCKS);
    }

    // What a lane needs of one tile's block: its two rows' operand and scales.
    struct tile_words {
        w_word a[4];
        float scales[GROUPS][2], offsets[2];
    };

    static __device__ __forceinline__ void load_tile(tile_words &v, const uint8 *stage, int tile,
                                                     int b) {
        int g = lane_id() >> 2, t = lane_id() & 3;
        uint32 super = tile * TILE_STAGE + SUPER_AT;
        uint32 at = tile * TILE_STAGE + b * weight::block_bytes;
        auto two = [&](uint32 offset) {
            return *reinterpret_cast<const uint2 *>(stage + swizzle(offset));
        };
        auto one = [&](uint32 offset) {
            return *reinterpret_cast<const uint32 *>(stage + swizzle(offset));
        };
        uint2 line = two(at + t * 64 + g * 8), line2 = {0, 0}, extra = {0, 0}, extra2 = {0, 0};
        if (SECOND_LINES)
            line2 = two(at + 256 + t * 64 + g * 8);
        if (EXTRA_LINES > 0)
            extra = two(at + 256 + g * 8);
        if (EXTRA_LINES > 1)
            extra2 = two(at + 320 + g * 8);
        unpack_codes({line.x, line2.x, extra.x, extra2.x}, t, v.a[0], v.a[2]);
        unpack_codes({line.y, line2.y, extra.y, extra2.y}, t, v.a[1], v.a[3]);
#ifdef FP8_WEIGHTS
        uint2 wide = two(at + weight::code_bytes + g * 8);
        v.scales[0][0] = fp8_scale(wide.x);
        v.scales[0][1] = fp8_scale(wide.y);
        return;
#endif
        if (!TWO_LEVELS) {
            uint32 s = one(at + weight::code_bytes + g * 4);
            uint32 o = OFFSETS ? one(at + weight::offsets_at + g * 4) : 0;
            for (int r = 0; r < 2; r++) {
                v.scales[0][r] = half_of(s, r);
                v.offsets[r] = OFFSETS ? half_of(o, r) : 0;
            }
            return;
        }
        uint32 d = one(super + g * 4), dmin = OFFSETS ? one(super + 32 + g * 4) : 0;
        auto pair = [&](uint32 offset) -> uint32 {
            return *reinterpret_cast<const uint16 *>(stage + swizzle(offset));
        };
        for (int s = 0; s < GROUPS; s++) {
            uint32 small = pair(at + weight::code_bytes + 16 * s + 2 * g);
            for (int r = 0; r < 2; r++)
                v.scales[s][r] = __fmul_rn(half_of(d, r), small_scale(small, r));
        }
        uint32 minima = OFFSETS ? pair(at + weight::offsets_at + 2 * g) : 0;
        for (int r = 0; r < 2; r++)
            v.offsets[r] = OFFSETS ? -__fmul_rn(half_of(dmin, r), small_minimum(minima, r)) : 0;
    }

    static __device__ __forceinline__ void multiply_block(float (&sums)[TILES_M][TILES_N][4],
                                                          const uint8 *stage, int b) {
        int lane = lane_id(), t = lane & 3;
        int warp_m = warp_id() % WARPS_M, warp_n = warp_id() / WARPS_M;
        tile_words tiles[TILES_M];
#pragma unroll
        for (int m = 0; m < TILES_M; m++)
            load_tile(tiles[m], stage, warp_m * TILES_M + m, b);
        const uint8 *x = stage + W_BYTES;
        const float *numbers = reinterpret_cast<const float *>(x + X_BYTES) + b * NUMBERS_ROW;
#pragma unroll
        for (int n = 0; n < TILES_N; n += 2) {
            x_word codes[4]; // operand n low and high k, operand n + 1 low and high k
#ifdef HALF_X
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int token = (warp_n * TILES_N + n + i / 2) * 8 + (lane >> 2);
                uint32 piece = x_piece(token, 4 * b + i % 2 * 2 + t / 2) + t % 2 * 8;
                codes[i] = *reinterpret_cast<const x_word *>(x + piece);
            }
#else
            int token = (warp_n * TILES_N + n + (lane >> 4)) * 8 + (lane & 7);
            ldmatrix4(codes, shared_address(x + x_piece(token, 2 * b + ((lane >> 3) & 1))));
#endif
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float *at = numbers + (warp_n * TILES_N + n + h) * 8 + 2 * t;
                float2 x_scale = {0, 0}, x_sum = {0, 0};
                if (X_SCALES) {
                    x_scale = *reinterpret_cast<const float2 *>(at);
                    x_scale = {x_scale_of(x_scale.x), x_scale_of(x_scale.y)};
                }
                if (OFFSETS)
                    x_sum = *reinterpret_cast<const float2 *>(at + STAGE_BLOCKS * NUMBERS_ROW);
#pragma unroll
                for (int m = 0; m < TILES_M; m++) {
                    dot_number dots[GROUPS][4];
                    dot_block(dots, tiles[m].a, codes[2 * h], codes[2 * h + 1]);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float &sum = sums[m][n + h][i], scale = i & 1 ? x_scale.y : x_scale.x;
                        for (int s = 0; s < GROUPS; s++) {
                            float dot = dot_to_float(dots[s][i]), by = tiles[m].scales[s][i / 2];
                            if (X_SCALES)
                                by = __fmul_rn(by, scale);
                            sum = __fmaf_rn(dot, by, sum);
                        }
                        if (OFFSETS)
                            sum = __fmaf_rn(tiles[m].offsets[i / 2], i & 1 ? x_sum.y : x_sum.x, sum);
                    }
                }
            }
        }
    }

    // The sums to shared memory, then whole rows to the epilogue.
    static __device__ __forceinline__ void finish(const args &a, int64 rows,
                                                  const float (&sums)[TILES_M][TILES_N][4]) {
        float *out = reinterpret_cast<float *>(shared_memory);
        int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id();
        int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
#pragma unroll
        for (int m = 0; m < TILES_M; m++) {
            int tile = warp_m * TILES_M + m, part = tile % weight::parts;
            int column = tile / weight::parts * 16 + 2 * g;
#pragma unroll
            for (int n = 0; n < TILES_N; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    int token = (warp_n * TILES_N + n) * 8 + 2 * t + c;
                    *reinterpret_cast<float2 *>(out + (part * TOKENS + token) * OUT_ROW + column) =
                        make_float2(sums[m][n][c], sums[m][n][2 + c]);
                }
        }
        __syncthreads();
        int64 first = static_cast<int64>(blockIdx.x) * TOKENS;
        constexpr int CHUNKS = PART_COLUMNS / 32, WARPS = WARPS_M * WARPS_N;
        static_assert(TOKENS * CHUNKS % WARPS == 0, "as many for each warp");
        for (int i = 0; i < TOKENS * CHUNKS / WARPS; i++) {
            int at = warp + i * WARPS, token = at / CHUNKS, chunk = at % CHUNKS;
            int column = static_cast<int>(blockIdx.y) * PART_COLUMNS + chunk * 32;
            if (first + token >= rows)
                continue;
            const float *row = out + token * OUT_ROW + chunk * 32 + lane;
            program_0::columns(a, first + token, 0, column, column + lane < COLUMNS, row[0],
                               row[(weight::parts - 1) * TOKENS * OUT_ROW]);
        }
    }

    static __device__ __forceinline__ void run(const args &a, const uint8 *x, const uint8 *w,
                                               int64 rows) {
        if (static_cast<int64>(blockIdx.x) * TOKENS >= rows)
            return;
        uint32 shared = shared_address(shared_memory);
        float sums[TILES_M][TILES_N][4] = {};
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (s < N_STAGES)
                copy_stage(shared + s * STAGE_BYTES, x, w, rows, s);
            copy_commit();
        }
#pragma unroll 1
        for (int s = 0; s < N_STAGES; s++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            // into the stage that all warps have left at this barrier
            int next = s + STAGES - 1;
            if (RAGGED || next < N_STAGES) // a ragged stage looks itself
                copy_stage(shared + next % STAGES * STAGE_BYTES, x, w, rows, next);
            copy_commit();
            const uint8 *stage = shared_memory + s % STAGES * STAGE_BYTES;
#pragma unroll 1
            for (int b = 0; b < STAGE_BLOCKS; b++)
                if (!RAGGED || s * STAGE_BLOCKS + b < BLOCKS)
                    multiply_block(sums, stage, b);
        }
        __syncthreads(); // all copies have been waited for
        finish(a, rows, sums);
    }
};

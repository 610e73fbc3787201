// f32 activations times any weight: f32 FMA in ascending k (kernel.h), one lane an output column.
//
//   sum[token][column] = fma(w[k][column], x[token][k], sum)      for k = 0, 1, …
//
// A warp computes 32 columns (of each part) for TOKENS rows of x: lanes 0 … 15 are the rows of one
// tile of the weight, 16 … 31 of the next. Its tiles, and the rows of x for all warps of the block,
// are copied to shared memory STAGE_K of k at a time, 16 bytes a lane, STAGES - 1 stages ahead.
// With a prologue (PROLOGUE is defined) each block computes its rows of x itself, all of k at once.
// Quantized weights are decoded as ir_encoding_decode_row does: scale * (code - zero) + offset.
#pragma once
#include "f32_weight.cuh"

template <int WARPS, int TOKENS, int STAGES> struct f32_matmul {
    static constexpr int PAIRS = weight::parts;
    static constexpr int N_STAGES = static_cast<int>((weight::k + STAGE_K - 1) / STAGE_K);
    static constexpr int THREADS = 32 * WARPS;

    // A stage: each warp's tiles, then x[token][k].
    static constexpr int WARP_BYTES = 2 * PAIRS * TILE_STAGE;
#ifdef PROLOGUE // whole rows of x behind the stages; the prologue's own memory is the stages'
    static constexpr int X_BYTES = 0;
    static constexpr int X_ROW = static_cast<int>((weight::k + 3) / 4 * 4); // floats
#else
    static constexpr int X_BYTES = TOKENS * STAGE_K * 4;
    static constexpr int X_ROW = STAGE_K;
#endif
    static constexpr int STAGE_BYTES = WARPS * WARP_BYTES + X_BYTES;
#ifdef PROLOGUE
    static constexpr int X_AT = prologue::tmp_floats * 4 > STAGES * STAGE_BYTES
                                    ? prologue::tmp_floats * 4
                                    : STAGES * STAGE_BYTES;
    static constexpr int SHARED_BYTES = X_AT + TOKENS * X_ROW * 4;
#else
    static constexpr int SHARED_BYTES = STAGES * STAGE_BYTES;
#endif

    // The k from a stage's beginning on.
    static __device__ __forceinline__ int left_from(int stage) {
        return static_cast<int>(weight::k) - stage * STAGE_K;
    }

    // whole: the stage is known to be; else it may be the last one.
    static __device__ __forceinline__ void copy_stage(uint8 *to, const float *x,
                                                      const uint8 *const (&tiles)[PAIRS][2],
                                                      int64 rows, int stage, bool whole) {
        int left = left_from(stage);
        uint32 w = shared_address(to) + warp_id() * WARP_BYTES;
#pragma unroll
        for (int p = 0; p < PAIRS; p++)
            for (int b = 0; b < 2; b++)
                copy_tile(w + (2 * p + b) * TILE_STAGE, tiles[p][b], stage, left, whole);
#ifndef PROLOGUE
        uint32 to_x = shared_address(to) + WARPS * WARP_BYTES;
        int64 first = static_cast<int64>(blockIdx.x) * TOKENS;
        const float *from = x + first * weight::k + static_cast<int64>(stage) * STAGE_K;
        constexpr int PIECE = weight::k % 4 ? 1 : 4; // rows are aligned like this, floats
        constexpr int COUNT = TOKENS * STAGE_K / PIECE;
#pragma unroll
        for (int first_piece = 0; first_piece < COUNT; first_piece += THREADS) {
            int i = first_piece + threadIdx.x;
            int token = i / (STAGE_K / PIECE), at = i % (STAGE_K / PIECE) * PIECE;
            if ((!whole && at >= left) || (COUNT - first_piece < THREADS && i >= COUNT))
                continue;
            const float *source = from + token * weight::k + at;
            uint32 target = to_x + (token * STAGE_K + at) * 4;
            bool there = TOKENS == 1 || first + token < rows;
            if (PIECE == 4)
                copy16(target, source, there);
            else
                copy4(target, source, there);
        }
#endif
    }

    // Adds k … k + COUNT - 1 of the stage, whose weights are w.
    template <int COUNT>
    static __device__ __forceinline__ void add(float (&sums)[TOKENS][PAIRS], const float *x,
                                               const float (&w)[COUNT][PAIRS]) {
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            float values[COUNT];
            if (COUNT == 4)
                *reinterpret_cast<float4 *>(values) =
                    *reinterpret_cast<const float4 *>(x + t * X_ROW);
            else
                values[0] = x[t * X_ROW];
#pragma unroll
            for (int i = 0; i < COUNT; i++)
#pragma unroll
                for (int p = 0; p < PAIRS; p++)
                    sums[t][p] = __fmaf_rn(w[i][p], values[i], sums[t][p]);
        }
    }

    static __device__ __forceinline__ void multiply(float (&sums)[TOKENS][PAIRS], const uint8 *stage,
                                                    const float *x, int n) {
        int lane = lane_id(), row = lane & 15;
        const uint8 *w = stage + warp_id() * WARP_BYTES + (lane >> 4) * TILE_STAGE;
        constexpr int STEP = weight_reader::STEP;
        static_assert(last_stage_k(weight::k, STAGE_K) >= STEP || STEP == 4, "a block of k, or k % 4");
        int k = 0;
        if (last_stage_k(weight::k, STAGE_K) >= STEP || n >= STEP)
#pragma unroll 1
        do {
            weight_reader reader[PAIRS];
#pragma unroll
            for (int p = 0; p < PAIRS; p++)
                reader[p].begin(w + 2 * p * TILE_STAGE, row, k);
#pragma unroll
            for (int s = 0; s < STEP / 4; s++) {
                float values[4][PAIRS];
#pragma unroll
                for (int p = 0; p < PAIRS; p++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        values[i][p] = reader[p].at(4 * s + i);
                add(sums, x + k + 4 * s, values);
            }
        } while ((k += STEP) + STEP <= n);
        if (weight::k % STEP)
#pragma unroll 1
            for (; k < n; k++) {
                float values[1][PAIRS];
                for (int p = 0; p < PAIRS; p++)
                    values[0][p] = weight_reader::one(w + 2 * p * TILE_STAGE, row, k);
                add(sums, x + k, values);
            }
    }

    static __device__ __forceinline__ void run(const args &a, const uint8 *x_bytes, const uint8 *w,
                                               int64 rows) {
        int64 first = static_cast<int64>(blockIdx.x) * TOKENS;
        if (first >= rows)
            return;
        const float *x = reinterpret_cast<const float *>(x_bytes);
        int unit = static_cast<int>(blockIdx.y) * WARPS + warp_id(); // of 32 columns
        const uint8 *tiles[PAIRS][2];
        for (int p = 0; p < PAIRS; p++)
            for (int b = 0; b < 2; b++) {
                int tile = 2 * unit + b < PART_TILES ? 2 * unit + b : PART_TILES - 1;
                tiles[p][b] = w + (static_cast<int64>(tile_of(tile)) * PAIRS + p) * TILE_BYTES;
            }
#ifdef PROLOGUE
        for (int i = 0; i < TOKENS; i++) {
            float *row = reinterpret_cast<float *>(shared_memory + X_AT) + i * X_ROW;
            if (first + i < rows)
                prologue::group<WARPS, TOKENS == 1>(a, first + i, row,
                                                    reinterpret_cast<float *>(shared_memory));
            else // multiplied, and the sums thrown away
#pragma unroll 4
                for (int k = 0; k < X_ROW; k += THREADS)
                    if (k + THREADS <= X_ROW || k + threadIdx.x < X_ROW)
                        row[k + threadIdx.x] = 0;
        }
        __syncthreads();
#endif
        float sums[TOKENS][PAIRS] = {};
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (s < N_STAGES)
                copy_stage(shared_memory + s * STAGE_BYTES, x, tiles, rows, s,
                           (s + 1) * STAGE_K <= weight::k);
            copy_commit();
        }
#pragma unroll 1
        for (int s = 0; s < N_STAGES; s++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            int next = s + STAGES - 1; // into the stage that all warps have left
            if (next < N_STAGES)
                copy_stage(shared_memory + next % STAGES * STAGE_BYTES, x, tiles, rows, next,
                           weight::k % STAGE_K == 0);
            copy_commit();
            const uint8 *stage = shared_memory + s % STAGES * STAGE_BYTES;
#ifdef PROLOGUE
            const uint8 *stage_x = shared_memory + X_AT + s * STAGE_K * 4;
#else
            const uint8 *stage_x = stage + WARPS * WARP_BYTES;
#endif
            multiply(sums, stage, reinterpret_cast<const float *>(stage_x),
                     weight::k % STAGE_K ? min(left_from(s), STAGE_K) : STAGE_K);
        }
        for (int t = 0; t < TOKENS; t++) // no lane of a warp beyond the columns is valid
            if (TOKENS == 1 || first + t < rows)
                program_0::columns(a, first + t, 0, unit * 32, unit * 32 + lane_id() < COLUMNS,
                                   sums[t][0], sums[t][PAIRS - 1]);
    }
};

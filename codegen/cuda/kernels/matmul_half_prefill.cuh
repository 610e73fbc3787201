// 16-bit weights times 16-bit activations for many rows: tiles through shared memory.
//
// A block of threads computes WARPS_M * TILES_M * 16 rows of the packed weight for WARPS_N * TILES_N
// * 8 rows of x; a stage is STAGE_K of k of both, copied STAGES - 1 stages ahead. After each of the
// SPLITS ranges of K its sums are added to the totals: see half_weight.cuh.
#pragma once
#include "half_weight.cuh"

template <int WARPS_M, int WARPS_N, int TILES_M, int TILES_N, int SPLITS, int RANGE, int STAGES>
struct half_prefill {
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N, STAGE_K = 64;
    static constexpr int TILES = WARPS_M * TILES_M, TOKENS = WARPS_N * TILES_N * 8;
    static constexpr int PART_COLUMNS = TILES * 16 / weight::parts;
    static constexpr int N_STAGES = (K + STAGE_K - 1) / STAGE_K;
    static constexpr int TILE_STAGE = STAGE_K * LINE, W_BYTES = TILES * TILE_STAGE;
    static constexpr int X_ROW = STAGE_K * 2, PIECES = X_ROW / 16;
    static constexpr int STAGE_BYTES = W_BYTES + TOKENS * X_ROW;
    static constexpr int OUT_ROW = PART_COLUMNS + 4;
    static constexpr int OUT_BYTES = weight::parts * TOKENS * OUT_ROW * 4;
    static constexpr int SHARED_BYTES =
        STAGES * STAGE_BYTES > OUT_BYTES ? STAGES * STAGE_BYTES : OUT_BYTES;
    static_assert(RANGE % STAGE_K == 0 && RANGE * SPLITS >= K, "ranges are whole stages");
    static_assert(PART_COLUMNS % 32 == 0 && TILES_N % 2 == 0, "whole epilogues, pairs of operands");

    static __device__ __forceinline__ uint32 x_piece(int token, int piece) {
        return static_cast<uint32>(token * X_ROW + (piece ^ (token % PIECES)) * 16);
    }

    static __device__ __forceinline__ void copy_stage(uint32 to, const uint8 *x, const uint8 *w,
                                                      int64 rows, int stage, bool whole) {
        constexpr int WARPS = WARPS_M * WARPS_N, LAST = weight::parts * PART_TILES - 1;
#pragma unroll
        for (int i = 0; i < TILES / WARPS; i++) {
            int tile = warp_id() + i * WARPS, from = static_cast<int>(blockIdx.y) * TILES + tile;
            from = min(from, LAST);
            from = tile_of(from / weight::parts) * weight::parts + from % weight::parts;
            copy_half_tile<STAGE_K>(to + tile * TILE_STAGE, w + from * TILE_BYTES, stage * STAGE_K, whole);
        }
        static_assert(TILES % WARPS == 0 && THREADS % PIECES == 0, "whole steps");
        constexpr int STEP = THREADS / PIECES;
        int64 first = static_cast<int64>(blockIdx.x) * TOKENS;
        int token = threadIdx.x / PIECES, piece = threadIdx.x % PIECES, k = stage * STAGE_K + piece * 8;
        const uint8 *at = x + (first + token) * X_ROW_BYTES + static_cast<int64>(k) * 2;
        static_assert(STEP % PIECES == 0 && TOKENS % STEP == 0, "tokens STEP apart permute alike");
        uint32 offset = to + W_BYTES + x_piece(token, piece);
#pragma unroll
        for (int i = 0; i < TOKENS; i += STEP)
            copy16(offset + i * X_ROW, at + i * X_ROW_BYTES, first + token + i < rows && (whole || k < K));
    }

    static __device__ __forceinline__ void multiply(float (&sums)[TILES_M][TILES_N][4], uint32 stage) {
        int lane = lane_id(), warp_m = warp_id() % WARPS_M, warp_n = warp_id() / WARPS_M;
#pragma unroll
        for (int i = 0; i < STAGE_K / 16; i++) {
            uint32 operands[TILES_M][4];
#pragma unroll
            for (int m = 0; m < TILES_M; m++)
                load_half_operand(operands[m], stage + (warp_m * TILES_M + m) * TILE_STAGE, 16 * i);
#pragma unroll
            for (int n = 0; n < TILES_N; n += 2) {
                // matrices: operand n low and high k, operand n + 1 low and high k
                uint32 b[4];
                int token = (warp_n * TILES_N + n + (lane >> 4)) * 8 + (lane & 7);
                ldmatrix4(b, stage + W_BYTES + x_piece(token, 2 * i + ((lane >> 3) & 1)));
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int m = 0; m < TILES_M; m++)
                        half_mma<weight::element>::run(sums[m][n + h], operands[m], b[2 * h],
                                                       b[2 * h + 1]);
            }
        }
    }

    // Adds a range's sums to the totals and begins the next one.
    static __device__ __forceinline__ void end_range(float (&totals)[TILES_M][TILES_N][4],
                                                     float (&sums)[TILES_M][TILES_N][4]) {
#pragma unroll
        for (int m = 0; m < TILES_M; m++)
#pragma unroll
            for (int n = 0; n < TILES_N; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    totals[m][n][c] = __fadd_rn(totals[m][n][c], sums[m][n][c]);
                    sums[m][n][c] = 0;
                }
    }

    static __device__ __forceinline__ void finish(const args &a, int64 rows,
                                                  const float (&sums)[TILES_M][TILES_N][4]) {
        float *out = reinterpret_cast<float *>(shared_memory);
        int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id();
        int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
#pragma unroll
        for (int m = 0; m < TILES_M; m++) {
            int tile = warp_m * TILES_M + m, part = tile % weight::parts;
            int column = tile / weight::parts * 16 + g;
#pragma unroll
            for (int n = 0; n < TILES_N; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    int token = (warp_n * TILES_N + n) * 8 + 2 * t + c % 2;
                    out[(part * TOKENS + token) * OUT_ROW + column + 8 * (c / 2)] = sums[m][n][c];
                }
        }
        __syncthreads();
        int64 first = static_cast<int64>(blockIdx.x) * TOKENS;
        constexpr int CHUNKS = PART_COLUMNS / 32, WARPS = WARPS_M * WARPS_N;
        static_assert(TOKENS * CHUNKS % WARPS == 0, "each warp has as many");
        for (int i = 0; i < TOKENS * CHUNKS; i += WARPS) {
            int token = (i + warp) / CHUNKS, chunk = (i + warp) % CHUNKS;
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
        float sums[TILES_M][TILES_N][4] = {}, totals[TILES_M][TILES_N][4] = {};
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (s < N_STAGES)
                copy_stage(shared + s * STAGE_BYTES, x, w, rows, s, (s + 1) * STAGE_K <= K);
            copy_commit();
        }
#pragma unroll 1
        for (int s = 0; s < N_STAGES; s++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            int next = s + STAGES - 1; // into the stage that all warps have left
            if (next < N_STAGES)
                copy_stage(shared + next % STAGES * STAGE_BYTES, x, w, rows, next, K % STAGE_K == 0);
            copy_commit();
            multiply(sums, shared + s % STAGES * STAGE_BYTES);
            if (SPLITS > 1 && (s + 1) % (RANGE / STAGE_K) == 0)
                end_range(totals, sums);
        }
        end_range(totals, sums);
        if ((N_STAGES - 1) % STAGES * STAGE_BYTES < OUT_BYTES)
            __syncthreads(); // results lie where the last stage did
        finish(a, rows, totals);
    }
};

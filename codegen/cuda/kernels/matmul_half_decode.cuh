// 16-bit weights times 16-bit activations for few rows: streams the weights.
//
// A warp multiplies 32 columns (of each part) by 8 rows of x, tokens as the 8 columns of mma, over
// one range of K; UNITS times SPLITS warps are a block. A warp's tiles go through shared memory of
// its own, STAGE_K of k at a time, copied STAGES - 1 stages ahead, so that no barrier is needed but
// the one before the ranges' sums are added up, lane = column.
#pragma once
#include "half_weight.cuh"

template <int UNITS, int SPLITS, int RANGE, int STAGES> struct half_decode {
    static constexpr int PAIRS = weight::parts, TOKENS = 8, STAGE_K = 32;
    static constexpr int N_STAGES = RANGE / STAGE_K, WARPS = UNITS * SPLITS;
    static constexpr int STAGE_BYTES = 2 * PAIRS * STAGE_K * LINE;
    static constexpr int OUT_ROW = 36; // floats; lanes of a group write to different banks
    static constexpr int SUMS_BYTES = PAIRS * TOKENS * OUT_ROW * 4; // of a warp
    static constexpr int STAGES_BYTES = WARPS * STAGES * STAGE_BYTES;
    static constexpr int SHARED_BYTES =
        STAGES_BYTES > WARPS * SUMS_BYTES ? STAGES_BYTES : WARPS * SUMS_BYTES;
    static_assert(RANGE % STAGE_K == 0 && RANGE * SPLITS >= K, "ranges are whole stages");

    static __device__ __forceinline__ void copy_stage(uint32 to, const uint8 *const (&tiles)[PAIRS][2],
                                                      int k, bool whole) {
#pragma unroll
        for (int p = 0; p < PAIRS; p++)
#pragma unroll
            for (int b = 0; b < 2; b++)
                copy_half_tile<STAGE_K>(to + (2 * p + b) * STAGE_K * LINE, tiles[p][b], k, whole);
    }

    static_assert((SPLITS - 1) * RANGE < K, "no range is empty");

    // Stages of a range: the last one may have fewer.
    static __device__ __forceinline__ int stages_of(int split) {
        constexpr int ALL = (K + STAGE_K - 1) / STAGE_K;
        return ALL == SPLITS * N_STAGES ? N_STAGES : min(N_STAGES, ALL - split * N_STAGES);
    }

    // This lane's pairs of the stage at k, which begins below K; zeros from K on.
    static __device__ __forceinline__ void load_pairs(uint32 (&pairs)[STAGE_K / 8], const uint8 *x,
                                                      int k) {
#pragma unroll
        for (int i = 0; i < STAGE_K / 8; i++) {
            bool there = K % STAGE_K == 0 || 8 * i < K % STAGE_K || k + 8 * i < K;
            pairs[i] = there ? __ldg(reinterpret_cast<const uint32 *>(
                                   x + static_cast<int64>(k + 8 * i) * 2))
                             : 0;
        }
    }

    static __device__ __forceinline__ void run(const args &a, const uint8 *x, const uint8 *w,
                                               int64 rows) {
        int64 first = static_cast<int64>(blockIdx.x) * TOKENS;
        if (first >= rows)
            return;
        int count = static_cast<int>(min(rows - first, static_cast<int64>(TOKENS)));
        int g = lane_id() >> 2, t = lane_id() & 3, split = warp_id() % SPLITS;
        int unit = static_cast<int>(blockIdx.y) * UNITS + warp_id() / SPLITS, begin = split * RANGE;
        const uint8 *tiles[PAIRS][2];
        for (int p = 0; p < PAIRS; p++)
            for (int b = 0; b < 2; b++) {
                int tile = 2 * unit + b < PART_TILES ? 2 * unit + b : PART_TILES - 1;
                tiles[p][b] = w + (static_cast<int64>(tile_of(tile)) * PAIRS + p) * TILE_BYTES;
            }
        // this lane's part of the operand of x: k 2t, 2t + 1 and 8 more of token g
        const uint8 *row = x + (first + (g < count ? g : count - 1)) * X_ROW_BYTES + 4 * t;
        uint32 shared = shared_address(shared_memory) + warp_id() * STAGES * STAGE_BYTES;
        int n_stages = stages_of(split);
        float sums[PAIRS][2][4] = {};
        uint32 codes[STAGE_K / 8], next[STAGE_K / 8];
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            bool all = (SPLITS - 1) * RANGE + s * STAGE_K < K; // ranges have this stage
            if (s < N_STAGES && (all || s < n_stages))
                copy_stage(shared + s * STAGE_BYTES, tiles, begin + s * STAGE_K,
                           (SPLITS - 1) * RANGE + (s + 1) * STAGE_K <= K);
            copy_commit();
        }
        load_pairs(next, row, begin);
        int s = 0;
#pragma unroll 1
        do {
            int ahead = s + STAGES - 1, k = begin + s * STAGE_K;
            copy_wait<STAGES - 2>();
            __syncwarp(); // copies of all lanes are there, and all have left the next one's place
            if (ahead < n_stages)
                copy_stage(shared + ahead % STAGES * STAGE_BYTES, tiles, begin + ahead * STAGE_K,
                           false);
            copy_commit();
#pragma unroll
            for (int i = 0; i < STAGE_K / 8; i++)
                codes[i] = next[i];
            if (s + 1 < n_stages)
                load_pairs(next, row, k + STAGE_K);
#pragma unroll
            for (int i = 0; i < STAGE_K / 16; i++)
#pragma unroll
                for (int p = 0; p < PAIRS; p++)
#pragma unroll
                    for (int b = 0; b < 2; b++) {
                        uint32 operand[4];
                        load_half_operand(operand,
                                          shared + s % STAGES * STAGE_BYTES +
                                              (2 * p + b) * STAGE_K * LINE,
                                          16 * i);
                        half_mma<weight::element>::run(sums[p][b], operand, codes[2 * i],
                                                       codes[2 * i + 1]);
                    }
        } while (++s < n_stages);
        __syncthreads(); // sums lie where stages did
        auto out = reinterpret_cast<float(*)[PAIRS][TOKENS][OUT_ROW]>(shared_memory);
        for (int p = 0; p < PAIRS; p++)
            for (int b = 0; b < 2; b++)
                for (int c = 0; c < 4; c++)
                    out[warp_id()][p][2 * t + c % 2][16 * b + 8 * (c / 2) + g] = sums[p][b][c];
        __syncthreads();
#pragma unroll 1
        for (int i = warp_id(); i < UNITS * count; i += WARPS) {
            int u = i / count, token = i % count;
            int column = (static_cast<int>(blockIdx.y) * UNITS + u) * 32;
            float total[PAIRS] = {};
            for (int s = 0; s < SPLITS; s++)
                for (int p = 0; p < PAIRS; p++)
                    total[p] = __fadd_rn(total[p], out[u * SPLITS + s][p][token][lane_id()]);
            program_0::columns(a, first + token, 0, column, column + lane_id() < COLUMNS,
                               total[0], total[PAIRS - 1]);
        }
    }
};

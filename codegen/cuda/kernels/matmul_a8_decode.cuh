// Activations in a8 times quantized weights, or in a8_e4m3 or 16 bits times fp8, for few rows:
// streams the weights.
//
// A block of threads computes 32 columns (of each part) for TOKENS rows of x. Its warps share the
// blocks of k: each keeps UNROLL of them in registers, loaded 16 bytes a lane one round ahead, and
// multiplies them by tensor cores, weights as the 16-row operand, tokens as the 8 columns. What the
// groups' exact dot products add to the f32 sums is added in ascending order of groups (kernel.h),
// so they go through shared memory, and one lane adds up each output:
//
//   for each round of WARPS * UNROLL blocks of k:
//       each warp: dot products and scales of its UNROLL blocks to shared memory
//       barrier
//       warp w, lane c: for each group of the round:
//           sum[token w][column c] = fma(dot, w_scale * x_scale, sum)    (then its offset)
//
// Shared memory is double, so one barrier a round is enough. Rows of an operand are dealt to lanes
// so that a lane's 16 bytes are four rows it needs itself: lanes 0 … 15 read one tile, 16 … 31 the
// next one (or the same columns' of the other part: then pairs of tiles are of one part each), and
// row g of the operand of step i is row 4 (g % 4) + 2i of tile g / 4, row g + 8 the one after it.
//
// With a prologue (PROLOGUE is defined) each block computes its rows of x itself.
#pragma once
#include "weight_tiles.cuh"

template <int WARPS, int UNROLL, int TOKENS> struct a8_decode {
    static constexpr int PAIRS = weight::parts;
    static constexpr int ROUND = WARPS * UNROLL; // blocks of k
    static constexpr int ROUNDS = (BLOCKS + ROUND - 1) / ROUND;
    static constexpr bool EXACT = BLOCKS % ROUND == 0;
    static constexpr int WARP_TOKENS = (TOKENS + WARPS - 1) / WARPS;
    // Rows of 36 floats: the four lanes of a group then write to different banks.
    static constexpr int DOT_ROW = TOKENS == 1 ? 32 : 36;

    struct group_results {
        dot_number dots[PAIRS][TOKENS][DOT_ROW];
        float scales[PAIRS][32];
        float offsets[OFFSETS ? PAIRS : 1][OFFSETS ? 32 : 4];
    };
    static constexpr int RESULTS_BYTES = 2 * ROUND * GROUPS * sizeof(group_results);

#ifdef PROLOGUE
    static constexpr bool HAS_PROLOGUE = true;
    // x in shared memory, rows 16 bytes apart in the banks; the prologue's own memory lies where the
    // results will.
    static constexpr int64 X_ROW = (X_ROW_BYTES + 127) / 128 * 128 + 16;
    static constexpr int X_AT =
        prologue::tmp_floats * 4 > RESULTS_BYTES ? prologue::tmp_floats * 4 : RESULTS_BYTES;
    static constexpr int SHARED_BYTES = X_AT + TOKENS * X_ROW;
#else
    static constexpr bool HAS_PROLOGUE = false;
    static constexpr int64 X_ROW = X_ROW_BYTES;
    static constexpr int SHARED_BYTES = RESULTS_BYTES;
#endif

    // What a lane holds of one block of k: of two tiles, four rows of each line.
    struct block_words {
        uint4 line, line2, extra, extra2;
        uint2 scale, offset; // one level: four f16; two levels: d and dmin
        uint4 wide_scale;    // fp8: four f32
        uint32 small[GROUPS], minimum;
    };

    static __device__ __forceinline__ void load_block(block_words &b, const uint8 *tile, int block) {
        int q = (lane_id() >> 2) & 3, t = lane_id() & 3;
        const uint8 *at = tile + block_offset(block);
        b.line = __ldg(reinterpret_cast<const uint4 *>(at + t * 64 + q * 16));
        if (SECOND_LINES)
            b.line2 = __ldg(reinterpret_cast<const uint4 *>(at + 256 + t * 64 + q * 16));
        if (EXTRA_LINES > 0)
            b.extra = __ldg(reinterpret_cast<const uint4 *>(at + 256 + q * 16));
        if (EXTRA_LINES > 1)
            b.extra2 = __ldg(reinterpret_cast<const uint4 *>(at + 320 + q * 16));
        if (TWO_LEVELS) {
            const uint8 *super = tile + run_offset(block) + q * 8;
            b.scale = __ldg(reinterpret_cast<const uint2 *>(super));
            if (OFFSETS)
                b.offset = __ldg(reinterpret_cast<const uint2 *>(super + 32));
            for (int s = 0; s < GROUPS; s++)
                b.small[s] =
                    __ldg(reinterpret_cast<const uint32 *>(at + weight::code_bytes + 16 * s + q * 4));
            if (OFFSETS)
                b.minimum = __ldg(reinterpret_cast<const uint32 *>(at + weight::offsets_at + q * 4));
        } else if (SCALE_BYTES == 4) {
            b.wide_scale =
                __ldg(reinterpret_cast<const uint4 *>(at + weight::code_bytes + q * 16));
        } else {
            b.scale = __ldg(reinterpret_cast<const uint2 *>(at + weight::code_bytes + q * 8));
            if (OFFSETS)
                b.offset = __ldg(reinterpret_cast<const uint2 *>(at + weight::offsets_at + q * 8));
        }
    }

    static __device__ __forceinline__ uint32 word(const uint4 &v, int i) {
        return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
    }

    static __device__ __forceinline__ void store_scales(const block_words &b, int group, int pair,
                                                        group_results *results) {
        float s[4], o[4];
        for (int i = 0; i < 4; i++) {
            s[i] = half_of(i < 2 ? b.scale.x : b.scale.y, i & 1);
            if (OFFSETS)
                o[i] = half_of(i < 2 ? b.offset.x : b.offset.y, i & 1);
            if (TWO_LEVELS)
                s[i] = __fmul_rn(s[i], small_scale(b.small[group], i));
            if (TWO_LEVELS && OFFSETS)
                o[i] = -__fmul_rn(o[i], small_minimum(b.minimum, i));
        }
#ifdef FP8_WEIGHTS
        for (int i = 0; i < 4; i++)
            s[i] = fp8_scale(word(b.wide_scale, i));
#endif
        int column = lane_id(); // 4g, of the lanes with t = 0
        *reinterpret_cast<float4 *>(&results->scales[pair][column]) =
            make_float4(s[0], s[1], s[2], s[3]);
        if (OFFSETS)
            *reinterpret_cast<float4 *>(&results->offsets[pair][column]) =
                make_float4(o[0], o[1], o[2], o[3]);
    }

    // One block of k, one pair of tiles: dots and scales to `results` (GROUPS of them).
    static __device__ __forceinline__ void multiply(const block_words &b, int pair, x_word b0,
                                                    x_word b1, group_results *results) {
        int g = lane_id() >> 2, t = lane_id() & 3;
        dot_number dots[2][GROUPS][4];
        for (int i = 0; i < 2; i++) {
            w_word a[4];
            for (int r = 0; r < 2; r++) {
                int row = 2 * i + r;
                code_words w = {word(b.line, row), word(b.line2, row), word(b.extra, row),
                                word(b.extra2, row)};
                unpack_codes(w, t, a[r], a[2 + r]);
            }
            dot_block(dots[i], a, b0, b1);
        }
        for (int s = 0; s < GROUPS; s++)
            for (int c = 0; c < 2; c++)
                if (TOKENS == 8 || 2 * t + c < TOKENS) // also for tokens that the step lacks
                    *reinterpret_cast<dot_numbers *>(
                        &results[s].dots[pair][TOKENS == 1 ? 0 : 2 * t + c][4 * g]) = {
                        dots[0][s][c], dots[0][s][2 + c], dots[1][s][c], dots[1][s][2 + c]};
        if (t == 0)
            for (int s = 0; s < GROUPS; s++)
                store_scales(b, s, pair, &results[s]);
    }

    static __device__ __forceinline__ void run(const args &a, const uint8 *x, const uint8 *w,
                                               int64 rows) {
        int64 first = static_cast<int64>(blockIdx.x) * TOKENS;
        if (first >= rows)
            return;
        // more than TOKENS where warps and lanes are not
        int count = TOKENS == 1 ? 1 : static_cast<int>(rows - first);
        if (TOKENS > 1 && (HAS_PROLOGUE || WARP_TOKENS * WARPS > TOKENS) && count > TOKENS)
            count = TOKENS;
        int g = lane_id() >> 2, t = lane_id() & 3, warp = warp_id();
        group_results *shared = reinterpret_cast<group_results *>(shared_memory);

        const uint8 *tiles[PAIRS];
        for (int p = 0; p < PAIRS; p++) {
            int tile = 2 * blockIdx.y + (g >> 2);
            if (tile >= PART_TILES) // the columns end with an odd tile
                tile = PART_TILES - 1;
            tiles[p] = w + (static_cast<int64>(tile_of(tile)) * PAIRS + p) * TILE_BYTES;
        }
#ifdef PROLOGUE
        for (int i = 0; i < count; i++)
            prologue::group<WARPS, TOKENS == 1>(a, first + i, shared_memory + X_AT + i * X_ROW,
                                   reinterpret_cast<float *>(shared_memory));
        __syncthreads();
        const uint8 *x_first = shared_memory + X_AT;
#else
        const uint8 *x_first = x + first * X_ROW_BYTES;
#endif
        int token = TOKENS == 1 ? 0 : g < count ? g : count - 1; // others are multiplied for nothing
        const uint8 *x_codes = x_first + token * X_ROW + X_BLOCK / 8 * t;

        block_words now[UNROLL][PAIRS];
        x_word b0[UNROLL], b1[UNROLL];
        float sums[WARP_TOKENS][PAIRS];
        for (int i = 0; i < WARP_TOKENS; i++)
            for (int p = 0; p < PAIRS; p++)
                sums[i][p] = 0;

        auto load = [&](int round) {
            for (int u = 0; u < UNROLL; u++) {
                int block = round * ROUND + warp * UNROLL + u;
                if ((round > 0 || BLOCKS < ROUND) && block >= BLOCKS)
                    continue;
                for (int p = 0; p < PAIRS; p++)
                    load_block(now[u][p], tiles[p], block);
                b0[u] = *reinterpret_cast<const x_word *>(x_codes + block * X_BLOCK);
                b1[u] = *reinterpret_cast<const x_word *>(x_codes + block * X_BLOCK + X_BLOCK / 2);
            }
        };

        load(0);
        for (int round = 0; round < ROUNDS; round++) {
            group_results *results = shared + (round & 1) * ROUND * GROUPS;
            for (int u = 0; u < UNROLL; u++) {
                int in_round = warp * UNROLL + u;
                if (EXACT || round * ROUND + in_round < BLOCKS)
                    for (int p = 0; p < PAIRS; p++)
                        multiply(now[u][p], p, b0[u], b1[u], results + in_round * GROUPS);
            }
            load(round + 1); // nothing, after the last one
            __syncthreads();
            for (int i = 0; i < WARP_TOKENS; i++)
                if (warp + i * WARPS < count)
                    add_round(sums[i], x_first + (warp + i * WARPS) * X_ROW,
                              warp + i * WARPS, round, results);
        }
        for (int i = 0; i < WARP_TOKENS; i++) {
            int token = warp + i * WARPS, column = 32 * static_cast<int>(blockIdx.y);
            if (token < count)
                program_0::columns(a, first + token, 0, column, column + lane_id() < COLUMNS,
                                   sums[i][0], sums[i][PAIRS - 1]);
        }
    }

    // Lane c adds what the round gives to column c, for each part.
    static __device__ __forceinline__ void add_round(float (&sums)[PAIRS], const uint8 *x_row,
                                                     int token, int round,
                                                     const group_results *results) {
        static_assert(ROUND <= 32, "a lane holds the scales of one block");
        int lane = lane_id(), block = round * ROUND + lane;
        float x_scales = 0, x_sums = 0;
        if (X_SCALES && lane < ROUND && (EXACT || block < BLOCKS)) {
            x_scales = x_scale_of(
                *reinterpret_cast<const float *>(x_row + A8_SCALES + 4 * block));
            if (OFFSETS)
                x_sums = *reinterpret_cast<const float *>(x_row + A8_SCALED_SUMS + 4 * block);
        }
        constexpr int LAST = BLOCKS - (ROUNDS - 1) * ROUND; // blocks of the last round
#pragma unroll
        for (int b = 0; b < ROUND; b++) {
            if (b == LAST && round == ROUNDS - 1)
                break;
            float x_scale = X_SCALES ? __shfl_sync(ALL_LANES, x_scales, b) : 0;
            float x_sum = OFFSETS ? __shfl_sync(ALL_LANES, x_sums, b) : 0;
            for (int p = 0; p < PAIRS; p++) {
                for (int s = 0; s < GROUPS; s++) {
                    const group_results *r = &results[b * GROUPS + s];
                    float scale = r->scales[p][lane];
                    if (X_SCALES)
                        scale = __fmul_rn(scale, x_scale);
                    sums[p] = __fmaf_rn(dot_to_float(r->dots[p][token][lane]), scale, sums[p]);
                }
                if (OFFSETS)
                    sums[p] = __fmaf_rn(results[b].offsets[p][lane], x_sum, sums[p]);
            }
        }
    }
};

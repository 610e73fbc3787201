// Weights as f32, lane by lane, from tiles in shared memory: what matmul_f32.cuh multiplies.
#pragma once
#include "weight_tiles.cuh"

// Bytes of a tile's stage, such that two tiles 16 lanes apart use different banks.
constexpr int lane_stage(int bytes) {
    return (bytes + 127) / 128 * 128 + 64;
}

// Copies MOST bytes with all lanes of a warp, of which `bytes` are there, `least` or more; what would lie
// behind them is the last 16 once more, which nobody looks at. All are multiples of 16.
template <int MOST> INLINE void copy_bytes(uint32 to, const uint8 *from, int bytes, int least) {
#pragma unroll
    for (int i = 0; i < MOST; i += 512) {
        int at = i + lane_id() * 16;
        if (i + 512 <= MOST || at < MOST)
            copy16(to + at, from + (min(i + 512, MOST) <= least ? at : min(at, bytes - 16)));
    }
}

// Of k in the last stage.
constexpr int last_stage_k(int64 k, int stage_k) {
    return static_cast<int>((k - 1) % stage_k) + 1;
}

#ifdef PLAIN_WEIGHTS // tiles of [k][16 rows]

constexpr int LINE = 16 * sizeof(weight::element);
constexpr int STAGE_K = 2048 / LINE;
constexpr int64 TILE_BYTES = weight::k * LINE;
constexpr int TILE_STAGE = lane_stage(STAGE_K * LINE);

// A stage of a tile; left: the k from its beginning on. whole: known to be at least STAGE_K.
INLINE void copy_tile(uint32 to, const uint8 *tile, int stage, int left, bool whole) {
    int least = whole ? STAGE_K : last_stage_k(weight::k, STAGE_K);
    copy_bytes<STAGE_K * LINE>(to, tile + static_cast<int64>(stage) * STAGE_K * LINE, left * LINE,
                               least * LINE);
}

struct weight_reader {
    static constexpr int STEP = 4;
    float values[STEP];

    static __device__ __forceinline__ float one(const uint8 *stage, int row, int k) {
        return load(reinterpret_cast<const weight::element *>(stage + k * LINE) + row);
    }
    __device__ __forceinline__ void begin(const uint8 *stage, int row, int k) {
        for (int i = 0; i < STEP; i++)
            values[i] = one(stage, row, k + i);
    }
    __device__ __forceinline__ float at(int i) {
        return values[i];
    }
};

#else

constexpr int STAGE_BLOCKS = 2;
constexpr int STAGE_K = 32 * STAGE_BLOCKS;
constexpr int TILE_STAGE = lane_stage(weight::super_bytes + STAGE_BLOCKS * weight::block_bytes);

INLINE void copy_tile(uint32 to, const uint8 *tile, int stage, int left, bool whole) {
    int block = stage * STAGE_BLOCKS;
    int least = whole ? STAGE_BLOCKS : last_stage_k(weight::k, STAGE_K) / 32;
    if (TWO_LEVELS)
        copy_bytes<weight::super_bytes>(to, tile + run_offset(block), weight::super_bytes,
                                        weight::super_bytes);
    copy_bytes<STAGE_BLOCKS * weight::block_bytes>(to + weight::super_bytes,
                                                   tile + block_offset(block),
                                                   left / 32 * weight::block_bytes,
                                                   least * weight::block_bytes);
}

// One row of one block.
struct weight_reader {
    static constexpr int STEP = 32;
    static constexpr int LINES = weight::bits == 8 ? 8 : 4;
    uint32 lines[LINES], extra[EXTRA_LINES > 0 ? EXTRA_LINES : 1];
    float scales[GROUPS], offset;

    __device__ __forceinline__ void begin(const uint8 *stage, int row, int k) {
        const uint8 *block = stage + weight::super_bytes + k / 32 * weight::block_bytes;
        auto word = [&](int line) {
            return *reinterpret_cast<const uint32 *>(block + line * 64 + row * 4);
        };
        for (int i = 0; i < LINES; i++)
            lines[i] = word(i);
        for (int i = 0; i < EXTRA_LINES; i++)
            extra[i] = word(LINES + i);
        auto half = [&](const uint8 *at) {
            return f16_to_f32(reinterpret_cast<const uint16 *>(at)[row]);
        };
        offset = 0;
#ifdef FP8_WEIGHTS // what codes leave out is in the scale
        scales[0] = __fmul_rn(reinterpret_cast<const float *>(block + weight::code_bytes)[row], 256);
        return;
#endif
        if (!TWO_LEVELS) {
            scales[0] = half(block + weight::code_bytes);
            if (OFFSETS)
                offset = half(block + weight::offsets_at);
            return;
        }
        float d = half(stage);
        for (int g = 0; g < GROUPS; g++)
            scales[g] = __fmul_rn(d, small_scale(block[weight::code_bytes + 16 * g + row], 0));
        if (OFFSETS)
            offset = -__fmul_rn(half(stage + 32), small_minimum(block[weight::offsets_at + row], 0));
    }

    // The four codes of step s (k = 4s … 4s+3).
    __device__ __forceinline__ uint32 codes(int s) {
        if (weight::bits == 8)
            return lines[s % LINES];
        uint32 low = (lines[s % 4] >> (s / 4 * 4)) & 0x0f0f0f0fu;
        if (weight::bits == 5)
            low |= ((extra[0] >> s) & 0x01010101u) << 4;
        if (weight::bits == 6)
            low |= ((extra[s / 4 % (EXTRA_LINES > 0 ? EXTRA_LINES : 1)] >> (s % 4 * 2)) &
                    0x03030303u)
                   << 4;
        return low;
    }

    // Byte i as the low bits of 2^23, from which the code is an exact subtraction away.
    __device__ __forceinline__ float at(int k) {
#ifdef FP8_WEIGHTS
        uint2 four = e4m3_to_f16(codes(k / 4));
        uint32 two = k % 4 < 2 ? four.x : four.y;
        return __fmul_rn(scales[0], f16_to_f32(static_cast<uint16>(k % 2 ? two >> 16 : two)));
#endif
        uint32 bits = __byte_perm(codes(k / 4), 0x4b000000u, 0x7650 + k % 4);
        float code = __fsub_rn(bits_float(bits), 8388608.0f + weight::zero);
        float w = __fmul_rn(scales[k * GROUPS / 32], code);
        return OFFSETS ? __fadd_rn(w, offset) : w;
    }

    static __device__ __forceinline__ float one(const uint8 *, int, int) {
        return 0;
    }
};

#endif

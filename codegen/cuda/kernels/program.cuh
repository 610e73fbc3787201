// What generated row programs are made of: loads and stores, sums over rows, quantization, KV pages.
// The same operations in the same order as codegen/cpu/access.c and program.c.
#pragma once

#include "common.cuh"
#include "scalar.cuh"

// --- elements -------------------------------------------------------------------------------------

struct f16 {
    uint16 bits;
};
struct bf16 {
    uint16 bits;
};

INLINE float load(const float *p) {
    return *p;
}
INLINE float load(const f16 *p) {
    return f16_to_f32(p->bits);
}
INLINE float load(const bf16 *p) {
    return bf16_to_f32(p->bits);
}
INLINE float load(const int32 *p) {
    return __int2float_rn(*p);
}
INLINE float load(const int8 *p) {
    return __int2float_rn(*p);
}
INLINE float load(const uint8 *p) {
    return __int2float_rn(*p);
}
INLINE void store(float *p, float v) {
    *p = v;
}
INLINE void store(f16 *p, float v) {
    p->bits = f32_to_f16(v);
}
INLINE void store(bf16 *p, float v) {
    p->bits = f32_to_bf16(v);
}

// Row indices[row] of a table of `rows`; indices out of range read row 0.
INLINE int64 gathered(const void *indices, int64 row, int64 rows) {
    int64 index = static_cast<const int32 *>(indices)[row];
    return static_cast<uint64>(index) < static_cast<uint64>(rows) ? index : 0;
}

// --- rows of packed, quantized weights (codegen/packed.h) -------------------------------------

enum packed_offset { OFFSET_NONE, OFFSET_ADD, OFFSET_SUBTRACT };

// An encoding: bits a code, groups a block of 32, what is subtracted from codes, the offset; with two
// levels of scale the small one is int8 or uint8.
template <int BITS, int GROUPS, int ZERO, packed_offset OFFSET, bool TWO_LEVELS, bool SIGNED_SCALE>
struct packed {
    static constexpr int code_bytes = 64 * BITS;
    static constexpr int line = 16 * GROUPS * (TWO_LEVELS ? 1 : 2);
    static constexpr int offsets_at = code_bytes + line;
    static constexpr int block_bytes = code_bytes + line * (OFFSET != OFFSET_NONE ? 2 : 1);
    static constexpr int super_bytes = TWO_LEVELS ? 32 * (OFFSET != OFFSET_NONE ? 2 : 1) : 0;
    static constexpr int run_blocks = TWO_LEVELS ? 8 : 1;
    static constexpr int run_bytes = super_bytes + run_blocks * block_bytes;

    static __device__ __forceinline__ int code(const uint8 *lane_block, int k) {
        if (BITS == 8)
            return lane_block[k / 4 * 64 + k % 4] - 128;
        int low = lane_block[k % 16 / 4 * 64 + k % 4] >> (k / 16 * 4) & 15;
        if (BITS == 5)
            low |= (lane_block[256 + k % 4] >> (k / 4) & 1) << 4;
        if (BITS == 6)
            low |= (lane_block[256 + k / 16 * 64 + k % 4] >> (k / 4 % 4 * 2) & 3) << 4;
        return low;
    }

    // Element `column` of row `row`; rows of k elements. As ir_encoding_decode_row computes it.
    static __device__ __forceinline__ float at(const void *weight, int64 row, int64 column,
                                               int64 k) {
        int lane = static_cast<int>(row & 15);
        int64 run = column / (32 * run_blocks), block = column / 32 - run * run_blocks;
        const uint8 *super = static_cast<const uint8 *>(weight) +
                             (row >> 4) * (k / (32 * run_blocks) * run_bytes) + run * run_bytes;
        const uint8 *start = super + super_bytes + block * block_bytes;
        int in_block = static_cast<int>(column & 31);
        float c = __int2float_rn(code(start + lane * 4, in_block) - ZERO);
        float scale, offset = 0.0f;
        if (TWO_LEVELS) {
            const uint8 *small = start + (GROUPS == 2 ? in_block / 16 * 16 : 0) + lane;
            float s = SIGNED_SCALE ? __int2float_rn(static_cast<int8>(small[code_bytes]))
                                   : __int2float_rn(small[code_bytes]);
            scale = __fmul_rn(half(super, lane), s);
            if (OFFSET != OFFSET_NONE)
                offset = __fmul_rn(half(super + 32, lane), __int2float_rn(small[offsets_at]));
        } else {
            scale = half(start + code_bytes, lane);
            if (OFFSET != OFFSET_NONE)
                offset = half(start + offsets_at, lane);
        }
        float v = __fmul_rn(scale, c);
        return OFFSET == OFFSET_ADD        ? __fadd_rn(v, offset)
               : OFFSET == OFFSET_SUBTRACT ? __fsub_rn(v, offset)
                                           : v;
    }

    static __device__ __forceinline__ float half(const uint8 *line, int lane) {
        return f16_to_f32(reinterpret_cast<const uint16 *>(line)[lane]);
    }
};

// The same of fp8: codes as they are, then 16 f32 scales.
INLINE float packed_fp8(const void *weight, int64 row, int64 column, int64 k) {
    constexpr int block_bytes = 512 + 64;
    int lane = static_cast<int>(row & 15), in_block = static_cast<int>(column & 31);
    const uint8 *block = static_cast<const uint8 *>(weight) +
                         ((row >> 4) * (k / 32) + column / 32) * block_bytes;
    uint2 code = e4m3_to_f16(block[in_block / 4 * 64 + lane * 4 + in_block % 4]);
    float scale = reinterpret_cast<const float *>(block + 512)[lane];
    return __fmul_rn(__fmul_rn(scale, 256), f16_to_f32(static_cast<uint16>(code.x)));
}

INLINE float clamped(float x, float most) { // a NaN: -most
    x = x > -most ? x : -most;
    return x < most ? x : most;
}

// The nearest e4m3, ties to even, at most 448 in magnitude. Of normal numbers the upper bits; below
// 2^-6 the steps are 2^-9, which are those of f32 at 2^14.
INLINE uint8 f32_to_e4m3(float x) {
    x = clamped(x, 448.0f);
    uint32 sign = float_bits(x) >> 24 & 0x80, bits = float_bits(x) & 0x7fffffff;
    uint32 normal = ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - ((127 - 7) << 3);
    uint32 small = float_bits(__fadd_rn(bits_float(bits), 0x1p14f)) - 0x46800000;
    return static_cast<uint8>((bits < 0x3c800000 ? small : normal) | sign);
}

// --- quantized activations ------------------------------------------------------------------------

// A row of k elements: codes, scales, scale*sum(codes), sums of 16 codes.
constexpr int64 a8_row_bytes(int64 k) {
    return k + k / 4 + k / 4;
}

INLINE float load_a8(const void *base, int64 row, int64 column, int64 k) {
    const int8 *codes = static_cast<const int8 *>(base) + row * a8_row_bytes(k);
    const float *scales = reinterpret_cast<const float *>(codes + k);
    return __fmul_rn(scales[column >> 5], __int2float_rn(codes[column]));
}

// Four sums over the warp, each as lanes l and l+16 first, then sum16. Halves of the lanes add up
// different ones, so that this takes one exchange more than a single sum.
INLINE void four_sums(float (&e)[4]) {
    const int lane = lane_id();
    const bool upper = lane & 16, odd = lane & 8;
    float two[2];
#pragma unroll
    for (int i = 0; i < 2; i++) { // lanes from 16 on: e[1], e[3]
        float other = __shfl_xor_sync(ALL_LANES, upper ? e[2 * i] : e[2 * i + 1], 16);
        two[i] = __fadd_rn(upper ? e[2 * i + 1] : e[2 * i], other);
    }
    float other = __shfl_xor_sync(ALL_LANES, odd ? two[0] : two[1], 8);
    float sum = __fadd_rn(odd ? two[1] : two[0], other);
#pragma unroll
    for (int width = 4; width >= 1; width /= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(ALL_LANES, sum, width));
#pragma unroll
    for (int i = 0; i < 4; i++)
        e[i] = __shfl_sync(ALL_LANES, sum, i % 2 * 16 + i / 2 * 8);
}

// A group of 32 columns from `column` on, lane = column, all lanes together (ops.def, quantize).
// SUMS: with the sums of 16 codes, which no matmul here reads.
template <bool SUMS> INLINE void store_a8(void *base, int64 row, int64 column, int64 k, float x) {
    float most = bits_float(__reduce_max_sync(ALL_LANES, float_bits(x) & 0x7fffffffu));
    float inverse = most < 0x1p-100f ? 0.0f : __fdiv_rn(127.0f, most);
    float candidates[4], errors[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        candidates[i] = __fmul_rn(inverse, (127 - i) / 127.0f);
        float y = __fmul_rn(x, candidates[i]), d = __fsub_rn(y, rintf(y));
        errors[i] = __fmul_rn(d, d);
    }
    four_sums(errors);
    float least = errors[0], levels = 127.0f;
    inverse = candidates[0];
#pragma unroll
    for (int i = 1; i < 4; i++) {
        const float ratio = 127 / (127.0f - i);
        float error = __fmul_rn(errors[i], ratio * ratio);
        if (error < least) {
            least = error;
            levels = 127.0f - i;
            inverse = candidates[i];
        }
    }
    float q = rintf(__fmul_rn(x, inverse));
    q = q > -127.0f ? q : -127.0f;
    q = q < 127.0f ? q : 127.0f;
    const int lane = lane_id(), code = __float2int_rz(q);
    const int both = __reduce_add_sync(ALL_LANES, code);

    int8 *codes = static_cast<int8 *>(base) + row * a8_row_bytes(k);
    codes[column + lane] = static_cast<int8>(code);
    if (SUMS) {
        const int low = __reduce_add_sync(ALL_LANES, lane < 16 ? code : 0);
        if (lane < 2)
            reinterpret_cast<int32 *>(codes + k + k / 4)[column / 16 + lane] =
                lane ? both - low : low;
    }
    if (lane == 0) {
        float scale = __fdiv_rn(most, levels);
        reinterpret_cast<float *>(codes + k)[column / 32] = scale;
        reinterpret_cast<float *>(codes + k + k / 8)[column / 32] =
            __fmul_rn(scale, __int2float_rn(both));
    }
}

// Of e4m3: a row is k codes, then k/32 scales, padded to a multiple of 16 bytes.
constexpr int64 a8_e4m3_row_bytes(int64 k) {
    return k + (k / 8 + 15) / 16 * 16;
}

INLINE float load_a8_e4m3(const void *base, int64 row, int64 column, int64 k) {
    const uint8 *codes = static_cast<const uint8 *>(base) + row * a8_e4m3_row_bytes(k);
    const float *scales = reinterpret_cast<const float *>(codes + k);
    uint2 code = e4m3_to_f16(codes[column]); // times 2^-8
    return __fmul_rn(__fmul_rn(scales[column >> 5], 256), f16_to_f32(static_cast<uint16>(code.x)));
}

// As store_a8.
INLINE void store_a8_e4m3(void *base, int64 row, int64 column, int64 k, float x) {
    float most = bits_float(__reduce_max_sync(ALL_LANES, float_bits(x) & 0x7fffffffu));
    float inverse = most < 0x1p-100f ? 0.0f : __fdiv_rn(448.0f, most);
    uint8 *codes = static_cast<uint8 *>(base) + row * a8_e4m3_row_bytes(k);
    codes[column + lane_id()] = f32_to_e4m3(__fmul_rn(x, inverse));
    if (lane_id() == 0)
        reinterpret_cast<float *>(codes + k)[column / 32] = __fdiv_rn(most, 448.0f);
}

// --- KV pages -------------------------------------------------------------------------------------

// Codes of quantized pages, of columns divided by their scale (ir/ir.h).
struct int8_code {
    int8 bits;
};
struct fp8_code { // e4m3
    uint8 bits;
};

INLINE void store(int8_code *p, float x) {
    p->bits = static_cast<int8>(__float2int_rz(clamped(rintf(x), 127.0f)));
}

INLINE void store(fp8_code *p, float x) {
    p->bits = f32_to_e4m3(x);
}

// The slot of a row's position in the pages of one layer; page is nullptr where the step has none.
struct kv_slot {
    unsigned char *page;
    int slot;
};

INLINE kv_slot find_slot(const mcc_step *step, void *layer, int group, int64 page_bytes,
                         int64 row) {
    int32 position = step_array(step, step->positions)[row];
    int32 sequence = step_array(step, step->token_seqs)[row];
    int32 index = position >> 4;
    if (static_cast<uint32>(index) >= static_cast<uint32>(step->P))
        return {nullptr, 0};
    int64 entry = (static_cast<int64>(group) * step->S + sequence) * step->P + index;
    int32 number = step_array(step, step->page_tables)[entry];
    if (number < 0)
        return {nullptr, 0};
    return {static_cast<unsigned char *>(layer) + number * page_bytes, position & 15};
}

// One column of a head: K lies as [head][column][16 slots], then V as [head][slot][column].
template <class T, int HEADS, int WIDTH>
INLINE void store_k(const kv_slot &at, int head, int column, float key) {
    store(reinterpret_cast<T *>(at.page) + (head * WIDTH + column) * 16 + at.slot, key);
}

template <class T, int HEADS, int WIDTH>
INLINE void store_v(const kv_slot &at, int head, int column, float value) {
    T *values = reinterpret_cast<T *>(at.page) + HEADS * WIDTH * 16;
    store(values + (head * 16 + at.slot) * WIDTH + column, value);
}

template <class T, int HEADS, int WIDTH>
INLINE void store_kv(const kv_slot &at, int head, int column, float key, float value) {
    store_k<T, HEADS, WIDTH>(at, head, column, key);
    store_v<T, HEADS, WIDTH>(at, head, column, value);
}

// The head's scales, of K as [head][slot] behind all codes, then of V.
template <int HEADS, int WIDTH>
INLINE void store_scales(const kv_slot &at, int head, float key, float value) {
    uint16 *scales = reinterpret_cast<uint16 *>(at.page + 2 * HEADS * WIDTH * 16);
    scales[head * 16 + at.slot] = f32_to_f16(key);
    scales[(HEADS + head) * 16 + at.slot] = f32_to_f16(value);
}

// --- a group of warps on one row ------------------------------------------------------------------

// WARPS 1: one warp, else all of the block's.
template <int WARPS> INLINE void group_sync() {
    if (WARPS == 1)
        __syncwarp();
    else
        __syncthreads();
}

template <int WARPS> INLINE int group_lane() {
    return WARPS == 1 ? lane_id() : static_cast<int>(threadIdx.x);
}

// Over WIDTH columns in shared memory, in every lane: partial sum i adds columns i, i+16, … in order,
// then the 16 are halved. Columns from WIDTH on, up to a multiple of 16, count as the identity.
template <int WIDTH> INLINE float row_sum(const float *x) {
    const int i = lane_id() & 15;
    float p = 0.0f;
#pragma unroll 8
    for (int c = i; c < WIDTH; c += 16)
        p = __fadd_rn(p, x[c]);
    return sum16(p);
}

template <int WIDTH> INLINE float row_max(const float *x) {
    const int i = lane_id() & 15;
    const float lowest = -bits_float(INFINITY_BITS);
    float p = lowest;
#pragma unroll 8
    for (int c = i; c < (WIDTH + 15) / 16 * 16; c += 16) {
        float v = c < WIDTH ? x[c] : lowest;
        p = p > v ? p : v;
    }
    // lane i takes i and i+width, in this order, so that a NaN goes where it does on the CPU
#pragma unroll
    for (int width = 8; width >= 1; width /= 2) {
        float other = __shfl_down_sync(ALL_LANES, p, width, 16);
        p = p > other ? p : other;
    }
    return __shfl_sync(ALL_LANES, p, 0);
}

// One warp for all of the group; `slot` is theirs together.
template <int WIDTH, int WARPS> INLINE float group_sum(const float *x, float *slot) {
    if (WARPS == 1)
        return row_sum<WIDTH>(x);
    if (warp_id() == 0) {
        float sum = row_sum<WIDTH>(x);
        if (lane_id() == 0)
            *slot = sum;
    }
    __syncthreads();
    return *slot;
}

template <int WIDTH, int WARPS> INLINE float group_max(const float *x, float *slot) {
    if (WARPS == 1)
        return row_max<WIDTH>(x);
    if (warp_id() == 0) {
        float most = row_max<WIDTH>(x);
        if (lane_id() == 0)
            *slot = most;
    }
    __syncthreads();
    return *slot;
}

// The same of one number in every column.
template <int WIDTH> INLINE float row_sum(float x) {
    const int i = lane_id() & 15;
    float p = 0.0f;
    for (int c = i; c < WIDTH; c += 16)
        p = __fadd_rn(p, x);
    return sum16(p);
}

template <int WIDTH> INLINE float row_max(float x) {
    // -inf > x is false, x > x too
    const float lowest = -bits_float(INFINITY_BITS);
    return WIDTH % 16 == 0 || x > lowest ? x : lowest;
}

// rope's partner: column i of a pair gets -x of the other, the other gets x of i; columns from DIMS
// on get 0.
template <int DIMS> INLINE float rotate_half(const float *x, int column) {
    constexpr int HALF = DIMS / 2;
    return column < HALF ? -x[column + HALF] : column < DIMS ? x[column - HALF] : 0.0f;
}

template <int DIMS> INLINE float rotate_half(float x, int column) {
    return column < DIMS / 2 ? -x : column < DIMS ? x : 0.0f;
}

template <int DIMS> INLINE float rotate_interleaved(float x, int column) {
    float other = __shfl_xor_sync(ALL_LANES, x, 1);
    return column >= DIMS ? 0.0f : column % 2 == 0 ? -other : other;
}

// --- heads of a matmul's result -------------------------------------------------------------------

// The tile of 16 columns, within a head, that is computed as the `tile`-th one: a run of 16 of the
// first half of DIMS is followed by the run that it is turned with, so that lanes l and l + 16 have
// a pair. DIMS 0: in order.
template <int DIMS> INLINE constexpr int turned_tile(int tile) {
    return tile < DIMS / 16 ? tile / 2 + tile % 2 * (DIMS / 32) : tile;
}

// rope's partner where columns are computed in that order.
template <int DIMS> INLINE float rotate_turned(float x, int column) {
    float other = __shfl_xor_sync(ALL_LANES, x, 16);
    return column >= DIMS ? 0.0f : column < DIMS / 2 ? -other : other;
}

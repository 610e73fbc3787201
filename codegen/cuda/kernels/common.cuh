// What every kernel uses: types, the step block, f16 and bf16, lanes of a warp.
//
// Numerics (codegen/kernel.h): each operation is rounded once. NVRTC runs with -fmad=false, so
// a*b+c is two roundings, and __fmaf_rn is one; division and square root are rounded correctly.
#pragma once

typedef signed char int8;
typedef unsigned char uint8;
typedef short int16;
typedef unsigned short uint16;
typedef int int32;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;

// runtime/step.h
struct mcc_step {
    uint32 magic, version, bytes;
    int32 T, S, R, G, P;
    uint32 token_ids, positions, token_seqs, seq_offsets, context_lens, page_tables, output_rows;
    uint32 sampling, token_masks, adapter_ids, tree_masks;
    int32 rank, world;
    uint32 reserved[5];
};
static_assert(sizeof(mcc_step) == 26 * 4, "as in runtime/step.h");

#define INLINE static __device__ __forceinline__

// An array of the step block.
INLINE const int32 *step_array(const mcc_step *step, uint32 offset) {
    return reinterpret_cast<const int32 *>(reinterpret_cast<const char *>(step) + offset);
}

// c + t*T + s*S + r*R
template <int64 c, int64 t, int64 s, int64 r> INLINE int64 step_dim(const mcc_step *step) {
    return c + t * step->T + s * step->S + r * step->R;
}

extern __shared__ __align__(128) unsigned char shared_memory[];

INLINE int lane_id() {
    return threadIdx.x & 31;
}
INLINE int warp_id() {
    return threadIdx.x >> 5;
}

constexpr uint32 ALL_LANES = 0xffffffffu;

// --- conversions --------------------------------------------------------------------------------

INLINE uint32 float_bits(float x) {
    return __float_as_uint(x);
}
INLINE float bits_float(uint32 x) {
    return __uint_as_float(x);
}

INLINE float f16_to_f32(uint16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

INLINE uint16 f32_to_f16(float f) {
    uint16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

// Four codes of e4m3 as f16 times 2^-8, exact: the same bits but for the exponent's bias.
INLINE uint2 e4m3_to_f16(uint32 codes) {
    uint2 h = {__byte_perm(codes, 0, 0x1404), __byte_perm(codes, 0, 0x3424)};
    h.x = (h.x & 0x80008000) | (h.x >> 1 & 0x3f803f80);
    h.y = (h.y & 0x80008000) | (h.y >> 1 & 0x3f803f80);
    return h;
}

INLINE float bf16_to_f32(uint16 h) {
    return __uint_as_float(static_cast<uint32>(h) << 16);
}

// To nearest even; a NaN stays one, with its payload (ir_f32_to_bf16).
INLINE uint16 f32_to_bf16(float f) {
    uint32 bits = __float_as_uint(f), high = bits >> 16;
    if (f != f)
        return static_cast<uint16>(high | 0x40);
    return static_cast<uint16>((bits + 0x7fff + (high & 1)) >> 16);
}

// --- a warp's sums --------------------------------------------------------------------------------

// Of lanes 0 … 15 (and the same again in 16 … 31): p[i] += p[i+8], then +4, +2, +1, in all lanes.
INLINE float sum16(float p) {
    for (int width = 8; width >= 1; width /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, p, width);
        // lane i of the lower half adds its partner to itself; addition commutes
        p = __fadd_rn(p, other);
    }
    return p;
}

// Eight elements of a page, as f16 in 16 bytes of shared memory: copied where the page holds f16,
// else decoded on the way.
#pragma once
#include "attention.cuh"
#include "mma_f16.cuh"

// --- pages of f16 ---------------------------------------------------------------------------------

// The first n elements; the others become 0.
INLINE void load_chunk(uint32 to, const uint16 *from, int n) {
    copy16_of(to, from, n * 2);
}

INLINE void load_values_chunk(uint32 to, const uint16 *from, const uint16 *, bool there) {
    copy16_of(to, from, there ? 16 : 0);
}

// --- quantized pages ------------------------------------------------------------------------------

// Four codes as f16, those of f8e4m3 times 2^-8; exact.
INLINE uint2 decode4(int8_code, uint32 codes) {
    // 0x6400 + u is 1024 + u: u = code + 128
    codes ^= 0x80808080;
    uint2 h = {__byte_perm(codes, 0x64646464, 0x4140), __byte_perm(codes, 0x64646464, 0x4342)};
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(h.x) : "r"(0x64806480));
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(h.y) : "r"(0x64806480));
    return h;
}

INLINE uint2 decode4(fp8_code, uint32 codes) {
    return e4m3_to_f16(codes);
}

INLINE void store_shared16(uint32 to, uint2 a, uint2 b) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a.x), "r"(a.y),
                 "r"(b.x), "r"(b.y)
                 : "memory");
}

// What is not stored yet is not read: less than 8 as 4, 2 and 1.
template <class Code> INLINE void load_chunk(uint32 to, const Code *from, int n) {
    uint64 codes = 0;
    if (n == 8)
        codes = __ldg(reinterpret_cast<const unsigned long long *>(from));
    if (n & 4)
        codes = __ldg(reinterpret_cast<const uint32 *>(from));
    if (n & 2)
        codes |= static_cast<uint64>(__ldg(reinterpret_cast<const uint16 *>(from + (n & 4))))
                 << (n & 4) * 8;
    if (n & 1)
        codes |= static_cast<uint64>(__ldg(reinterpret_cast<const uint8 *>(from + (n & 6))))
                 << (n & 6) * 8;
    store_shared16(to, decode4(Code{}, static_cast<uint32>(codes)),
                   decode4(Code{}, static_cast<uint32>(codes >> 32)));
}

INLINE uint32 scaled_f16x2(uint32 codes, float scale) {
    return pack_f16(__fmul_rn(f16_to_f32(static_cast<uint16>(codes)), scale),
                    __fmul_rn(f16_to_f32(static_cast<uint16>(codes >> 16)), scale));
}

template <class Code>
INLINE void load_values_chunk(uint32 to, const Code *from, const uint16 *scale, bool there) {
    uint2 low = {0, 0}, high = {0, 0};
    if (there) {
        uint2 codes = __ldg(reinterpret_cast<const uint2 *>(from));
        float factor = __fmul_rn(f16_to_f32(__ldg(scale)), rest_of(Code{}));
        low = decode4(Code{}, codes.x);
        high = decode4(Code{}, codes.y);
        low = {scaled_f16x2(low.x, factor), scaled_f16x2(low.y, factor)};
        high = {scaled_f16x2(high.x, factor), scaled_f16x2(high.y, factor)};
    }
    store_shared16(to, low, high);
}

// Given the tile's head's keys in a page. Only a quantized page has scales.
INLINE const uint16 *value_scale(const attention_tile &t, const kv *keys, int token) {
    return QUANTIZED ? page_scales(t, keys) + KV_HEADS * PAGE + token : nullptr;
}

INLINE float key_scale(const attention_tile &t, const kv *keys, int token) {
    return __fmul_rn(f16_to_f32(__ldg(page_scales(t, keys) + token)), rest_of(kv{}));
}

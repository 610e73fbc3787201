// Tiles of packed, quantized weights (codegen/packed.h): 16 rows, blocks of 32 k in order.
//
// The generated text says which weights:
//   struct weight {
//       static constexpr int bits, zero, groups;        // zero: subtracted from a code, as stored
//       static constexpr int code_bytes, offsets_at, block_bytes, super_bytes; // of cg_packed
//       static constexpr bool signed_scales;            // two levels: i8 scales, else u8
//       static constexpr int64 n, k;
//       static constexpr int parts;                     // 2: tiles of the two halves alternate
//   };
//
// FP8_WEIGHTS is defined where codes are e4m3 and scales f32: they have one level and groups of 32.
// These are multiplied by activations in a8_e4m3, or, where HALF_X is defined, of 16 bits, the type
// x_element.
//
// Weights that are not quantized have n, k, parts and their `element` (float, f16, bf16) only, and
// PLAIN_WEIGHTS is defined: tiles are [k][16 rows].
#pragma once
#include "half_mma.cuh"

constexpr int COLUMNS = static_cast<int>(weight::n / weight::parts); // of a part
constexpr int PART_TILES = (COLUMNS + 15) / 16;
constexpr int UNITS_32 = (COLUMNS + 31) / 32; // of 32 columns, a warp's

#ifndef PLAIN_WEIGHTS

constexpr int BLOCKS = static_cast<int>(weight::k / 32);
constexpr bool TWO_LEVELS = weight::super_bytes != 0;
constexpr bool OFFSETS = weight::offsets_at != 0;
constexpr int RUN_BLOCKS = TWO_LEVELS ? 8 : 1;
constexpr int64 RUN_BYTES = weight::super_bytes + RUN_BLOCKS * weight::block_bytes;
constexpr int64 TILE_BYTES = static_cast<int64>(BLOCKS / RUN_BLOCKS) * RUN_BYTES;
constexpr int GROUPS = weight::groups;

INLINE int64 run_offset(int block) {
    return block / RUN_BLOCKS * RUN_BYTES;
}
INLINE int64 block_offset(int block) {
    return run_offset(block) + weight::super_bytes + block % RUN_BLOCKS * weight::block_bytes;
}

// --- codes as operands of mma ---------------------------------------------------------------------

// The dwords of a row that lane t of a fragment needs: k = 4t … 4t+3 and 16+4t … of a block.
// line: line t of 64 bytes; line2: 8 bits: line 4+t; extra, extra2: the lines of high bits.
constexpr int EXTRA_LINES = weight::bits == 5 ? 1 : weight::bits == 6 ? 2 : 0;
constexpr int SECOND_LINES = weight::bits == 8 ? 1 : 0;
struct code_words {
    uint32 line, line2, extra, extra2;
};

#ifdef HALF_X

// Four k of a row, as operands have them. Codes become x's type, those of f16 times 2^-8, exactly; a
// group's dot product is two mma, ascending in k, and begins at 0.
using w_word = uint2;
using x_word = uint2;
using dot_number = float;
using dot_numbers = float4;

INLINE uint2 operand_of(f16, uint32 codes) {
    return e4m3_to_f16(codes);
}

INLINE uint32 bf16_of(uint32 two) {
    return __byte_perm(float_bits(f16_to_f32(static_cast<uint16>(two))),
                       float_bits(f16_to_f32(static_cast<uint16>(two >> 16))), 0x7632);
}
INLINE uint2 operand_of(bf16, uint32 codes) {
    uint2 four = e4m3_to_f16(codes);
    return {bf16_of(four.x), bf16_of(four.y)};
}

INLINE void unpack_codes(const code_words &w, int, w_word &low, w_word &high) {
    low = operand_of(x_element{}, w.line);
    high = operand_of(x_element{}, w.line2);
}

INLINE void dot_block(float (&d)[GROUPS][4], const w_word (&a)[4], x_word b0, x_word b1) {
    for (int i = 0; i < 4; i++)
        d[0][i] = 0;
    half_mma<x_element>::run(d[0], {a[0].x, a[1].x, a[0].y, a[1].y}, b0.x, b0.y);
    half_mma<x_element>::run(d[0], {a[2].x, a[3].x, a[2].y, a[3].y}, b1.x, b1.y);
}

INLINE float dot_to_float(float dot) {
    return dot;
}

#elif defined(FP8_WEIGHTS)

// Four codes of a row, as operands have them. A group's dot product begins at 0: one mma from sm_89
// on; where processors have none of e4m3, two of f16 times 2^-8, in ascending k. (Processors since
// sm_89 may add with fewer bits than f32 has: see error_bound.c.)
using w_word = uint32;
using x_word = uint32;
using dot_number = float;
using dot_numbers = float4;

INLINE void unpack_codes(const code_words &w, int, w_word &low, w_word &high) {
    low = w.line;
    high = w.line2;
}

INLINE void dot_block(float (&d)[GROUPS][4], const w_word (&a)[4], x_word b0, x_word b1) {
    for (int i = 0; i < 4; i++)
        d[0][i] = 0;
#if __CUDA_ARCH__ >= 890
    mma_e4m3(d[0], a, b0, b1);
#else
    for (int i = 0; i < 4; i += 2) {
        uint2 low = e4m3_to_f16(a[i]), high = e4m3_to_f16(a[i + 1]), b = e4m3_to_f16(i ? b1 : b0);
        mma_f16(d[0], {low.x, high.x, low.y, high.y}, b.x, b.y);
    }
#endif
}

INLINE float dot_to_float(float dot) {
    return dot;
}

#else

using w_word = uint32;
using x_word = uint32;
using dot_number = int32;
using dot_numbers = int4;

// Codes with a zero point become signed bytes, code - zero times 2^CODE_SHIFT (the code in the top
// bits of a byte, its top bit flipped); others are unsigned bytes. A dot product's accumulator
// starts at DOT_START, which read as a float is 1.5 * 2^(23 - CODE_SHIFT), with an ulp of
// 2^-CODE_SHIFT: the sum as a float is then one exact subtraction away. |sum| < 2^22.
constexpr bool CENTRED = weight::zero != 0;
constexpr int CODE_SHIFT = CENTRED ? 8 - weight::bits : 0;
constexpr int32 DOT_START = 0x4b400000 - CODE_SHIFT * 0x800000;
constexpr float DOT_ZERO = 12582912.0f / (1 << CODE_SHIFT);

INLINE float dot_to_float(int32 dot) {
    return __fsub_rn(bits_float(static_cast<uint32>(dot)), DOT_ZERO);
}

INLINE void unpack_codes(const code_words &w, int t, uint32 &low, uint32 &high) {
    constexpr uint32 FLIP = 0x80808080u;
    if (weight::bits == 8) {
        low = w.line ^ FLIP;
        high = w.line2 ^ FLIP;
    } else if (weight::bits == 6) {
        low = (((w.line << 2) & 0x3c3c3c3cu) | ((w.extra << (6 - 2 * t)) & 0xc0c0c0c0u)) ^ FLIP;
        high = (((w.line >> 2) & 0x3c3c3c3cu) | ((w.extra2 << (6 - 2 * t)) & 0xc0c0c0c0u)) ^ FLIP;
    } else if (weight::bits == 5 && CENTRED) {
        low = (((w.line << 3) & 0x78787878u) | ((w.extra << (7 - t)) & FLIP)) ^ FLIP;
        high = (((w.line >> 1) & 0x78787878u) | ((w.extra << (3 - t)) & FLIP)) ^ FLIP;
    } else if (weight::bits == 5) {
        low = (w.line & 0x0f0f0f0fu) | ((w.extra << (4 - t)) & 0x10101010u);
        high = ((w.line >> 4) & 0x0f0f0f0fu) | ((w.extra >> t) & 0x10101010u);
    } else if (CENTRED) {
        low = ((w.line << 4) & 0xf0f0f0f0u) ^ FLIP;
        high = (w.line & 0xf0f0f0f0u) ^ FLIP;
    } else {
        low = w.line & 0x0f0f0f0fu;
        high = (w.line >> 4) & 0x0f0f0f0fu;
    }
}

// The dot products of a block's groups: 16 rows (a: two fragments' halves) times 8 tokens.
INLINE void dot_block(int32 (&d)[GROUPS][4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    static_assert(GROUPS == 1 || CENTRED, "groups of 16 have a zero point");
    if (GROUPS == 1) {
        mma_k32<CENTRED>(d[0], a, b0, b1, DOT_START);
    } else {
        mma_k16(d[0], a[0], a[1], b0, DOT_START);
        mma_k16(d[GROUPS - 1], a[2], a[3], b1, DOT_START);
    }
}

#endif

// --- scales ---------------------------------------------------------------------------------------

// What e4m3_to_f16 leaves out of codes is in their scale.
#if defined(HALF_X) || __CUDA_ARCH__ < 890
constexpr float E4M3_UNIT = 256;
#else
constexpr float E4M3_UNIT = 1;
#endif

#ifdef FP8_WEIGHTS
constexpr int SCALE_BYTES = 4;

INLINE float fp8_scale(uint32 bits) {
    return __fmul_rn(bits_float(bits), E4M3_UNIT);
}
#else
constexpr int SCALE_BYTES = 2;
#endif

INLINE float half_of(uint32 pair, int i) {
    return f16_to_f32(static_cast<uint16>(i ? pair >> 16 : pair & 0xffff));
}

// Byte i of a dword, as a scale of the lower level or as a minimum.
INLINE float small_scale(uint32 bytes, int i) {
    if (weight::signed_scales)
        return static_cast<float>(static_cast<int32>(bytes << (24 - 8 * i)) >> 24);
    return static_cast<float>((bytes >> (8 * i)) & 0xff);
}
INLINE float small_minimum(uint32 bytes, int i) {
    return static_cast<float>((bytes >> (8 * i)) & 0xff);
}

// --- activations ----------------------------------------------------------------------------------

#ifdef HALF_X
constexpr int X_BLOCK = 64; // bytes of a row that are 32 k
constexpr int64 X_ROW_BYTES = weight::k * 2;
constexpr bool X_SCALES = false;
constexpr int64 A8_SCALES = 0, A8_SCALED_SUMS = 0;
#elif defined(FP8_WEIGHTS)
// a8_e4m3: a row is k codes | k/32 scales, padded.
constexpr int X_BLOCK = 32;
constexpr int64 X_ROW_BYTES = weight::k + (weight::k / 8 + 15) / 16 * 16;
constexpr bool X_SCALES = true;
constexpr int64 A8_SCALES = weight::k, A8_SCALED_SUMS = 0;
#else
// a8: a row is k codes | k/32 scales | k/32 scales times sums of codes | … (ir_encoding_row_bytes).
constexpr int X_BLOCK = 32;
constexpr int64 X_ROW_BYTES = weight::k + weight::k / 2;
constexpr bool X_SCALES = true;
constexpr int64 A8_SCALES = weight::k, A8_SCALED_SUMS = weight::k + weight::k / 8;
#endif

// A scale of x, for what dot_block gives.
INLINE float x_scale_of(float scale) {
#ifdef FP8_WEIGHTS
    return __fmul_rn(scale, E4M3_UNIT);
#else
    return scale;
#endif
}

#endif

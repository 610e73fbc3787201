/* Quantized encodings and narrow floats: the reference conversions, in plain loops. The block
 * layouts are GGUF's, as ggml-common.h of llama.cpp defines them; all multi-byte fields are
 * little-endian and need no alignment. */
#include "ir/ir.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const ir_encoding encodings[IR_N_ENCODINGS] = {
#define ENCODING(suffix, name_, code_, bits_, signed_, zero_point_, group_, scale_, offset_,       \
                 super_, block_, block_bytes_)                                                     \
    [IR_ENC_##suffix] = {.id = IR_ENC_##suffix,                                                    \
                         .name = name_,                                                            \
                         .code = IR_CODE_##code_,                                                  \
                         .bits = bits_,                                                            \
                         .is_signed = signed_,                                                     \
                         .zero_point = zero_point_,                                                \
                         .group = group_,                                                          \
                         .scale = scale_,                                                          \
                         .offset = IR_OFFSET_##offset_,                                            \
                         .super_group = super_,                                                    \
                         .block = block_,                                                          \
                         .block_bytes = block_bytes_},
#include "ir/encodings.def"
#undef ENCODING
};

const ir_encoding *ir_encoding_get(ir_encoding_id id) {
    return (unsigned)id < IR_N_ENCODINGS ? &encodings[id] : NULL;
}

const ir_encoding *ir_encoding_from_name(const char *name) {
    for (int i = 0; i < IR_N_ENCODINGS; i++)
        if (strcmp(encodings[i].name, name) == 0)
            return &encodings[i];
    return NULL;
}

int64_t ir_encoding_row_bytes(const ir_encoding *encoding, int64_t k) {
    if (encoding->id == IR_ENC_A8)
        return k + k / 32 * 8 + k / 16 * 4;
    if (encoding->id == IR_ENC_A8_E4M3)
        return k + (k / 32 * 4 + 15) / 16 * 16;
    return k / encoding->block * encoding->block_bytes;
}

bool ir_encoding_of_activations(const ir_encoding *encoding) {
    return encoding->id == IR_ENC_A8 || encoding->id == IR_ENC_A8_E4M3;
}

bool ir_encodings_multiply(const ir_encoding *x, const ir_encoding *w) {
    return ir_encoding_of_activations(x) && w && !ir_encoding_of_activations(w) &&
           x->code == w->code;
}

/* --- narrow floats -----------------------------------------------------------------------------
 */

static float float_from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_from_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Decodes a float of `exponent` and `mantissa` bits whose all-ones exponent is an ordinary one. */
static float narrow_to_f32(uint32_t v, int exponent, int mantissa) {
    uint32_t sign = (v >> (exponent + mantissa)) & 1;
    int e = (int)(v >> mantissa) & ((1 << exponent) - 1);
    int m = (int)(v & ((1u << mantissa) - 1));
    int bias = (1 << (exponent - 1)) - 1;
    float magnitude = e ? ldexpf((float)(m + (1 << mantissa)), e - bias - mantissa)
                        : ldexpf((float)m, 1 - bias - mantissa);
    return sign ? -magnitude : magnitude;
}

/* Rounds a finite |f| to nearest even with `mantissa` bits and exponents from 1-bias; the result
 * may reach past the largest exponent, which the caller handles. */
static uint32_t narrow_from_f32(uint32_t bits, int exponent, int mantissa) {
    int bias = (1 << (exponent - 1)) - 1;
    int e = (int)(bits >> 23) - 127 + bias;
    uint32_t m = bits & 0x7fffff;
    int shift = 23 - mantissa;
    if (bits >> 23) /* normal: make the leading one explicit */
        m |= 0x800000;
    else
        e++;
    if (e < 1) { /* subnormal in the narrow format: shift further right */
        shift += 1 - e;
        e = 1;
        if (shift > 25)
            return 0;
    }
    uint32_t q = m >> shift, rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
    if (rest > half || (rest == half && (q & 1)))
        q++;
    /* q holds the leading one, which adds 1 to the exponent field; a carry moves on by itself. */
    return ((uint32_t)(e - 1) << mantissa) + q;
}

float ir_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    if ((h & 0x7c00) == 0x7c00) /* infinity or NaN, payload kept */
        return float_from_bits(sign | 0x7f800000 | (uint32_t)(h & 0x3ff) << 13);
    if (h & 0x7c00)
        return float_from_bits(sign | (((uint32_t)(h & 0x7fff) << 13) + ((127u - 15u) << 23)));
    return narrow_to_f32(h, 5, 10);
}

uint16_t ir_f32_to_f16(float f) {
    uint32_t bits = bits_from_float(f), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) /* NaN: quiet, high payload bits kept */
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (bits >= 0x47800000) /* 2^16 and above, infinity included */
        return (uint16_t)(sign | 0x7c00);
    /* A value that rounds up to 2^16 carries into the exponent field, which is infinity. */
    return (uint16_t)(sign | narrow_from_f32(bits, 5, 10));
}

float ir_bf16_to_f32(uint16_t h) {
    return float_from_bits((uint32_t)h << 16);
}

uint16_t ir_f32_to_bf16(float f) {
    uint32_t bits = bits_from_float(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The 8-bit floats of OCP's "8-bit floating point specification": E4M3 has no infinities and one
 * NaN per sign (0x7f); E5M2 has IEEE's. */
float ir_f8_to_f32(uint8_t v, ir_dtype dtype) {
    if (dtype == IR_F8E4M3)
        return (v & 0x7f) == 0x7f ? NAN : narrow_to_f32(v, 4, 3);
    if ((v & 0x7f) > 0x7c)
        return NAN;
    if ((v & 0x7f) == 0x7c)
        return v & 0x80 ? -INFINITY : INFINITY;
    return narrow_to_f32(v, 5, 2);
}

uint8_t ir_f32_to_f8(float f, ir_dtype dtype) {
    uint32_t bits = bits_from_float(f), sign = bits >> 24 & 0x80;
    uint32_t largest = dtype == IR_F8E4M3 ? 0x7e : 0x7b; /* 448, 57344 */
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return (uint8_t)(sign | 0x7f);
    uint32_t v =
        bits >= 0x48000000 /* 2^17: also keeps the exponent arithmetic small */
            ? largest
            : (dtype == IR_F8E4M3 ? narrow_from_f32(bits, 4, 3) : narrow_from_f32(bits, 5, 2));
    return (uint8_t)(sign | (v < largest ? v : largest));
}

/* --- decoding ----------------------------------------------------------------------------------
 */

static uint16_t load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t load_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static float load_f16(const uint8_t *p) {
    return ir_f16_to_f32(load_u16(p));
}

/* Code j of 32 in 16 bytes: the low nibble of byte j, or the high nibble of byte j-16. */
static int nibble(const uint8_t *qs, int j) {
    return j < 16 ? qs[j] & 15 : qs[j - 16] >> 4;
}

/* d f16 | 32 nibbles */
static void decode_q4_0(const uint8_t *b, float *out) {
    float d = load_f16(b);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)(nibble(b + 2, j) - 8);
}

/* d f16 | m f16 | 32 nibbles */
static void decode_q4_1(const uint8_t *b, float *out) {
    float d = load_f16(b), m = load_f16(b + 2);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)nibble(b + 4, j) + m;
}

/* d f16 | fifth bits u32 | 32 nibbles */
static void decode_q5_0(const uint8_t *b, float *out) {
    float d = load_f16(b);
    uint32_t high = load_u32(b + 2);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)((nibble(b + 6, j) | (int)(high >> j & 1) << 4) - 16);
}

/* d f16 | m f16 | fifth bits u32 | 32 nibbles */
static void decode_q5_1(const uint8_t *b, float *out) {
    float d = load_f16(b), m = load_f16(b + 2);
    uint32_t high = load_u32(b + 4);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)(nibble(b + 8, j) | (int)(high >> j & 1) << 4) + m;
}

/* d f16 | 32 codes i8 */
static void decode_q8_0(const uint8_t *b, float *out) {
    float d = load_f16(b);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)(int8_t)b[2 + j];
}

/* Scale and minimum of group g (of 8) from 12 bytes: groups 0–3 have the low 6 bits of bytes g and
 * g+4; groups 4–7 have the nibbles of byte g+4, and as bits 4–5 the top bits of bytes g-4 and g. */
static void k_scale_min(const uint8_t *s, int g, int *scale, int *min) {
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        *min = s[g + 4] >> 4 | s[g] >> 6 << 4;
    }
}

/* d f16 | dmin f16 | 12 bytes of scales | (q5_k: 32 bytes of fifth bits) | 128 bytes of nibbles.
 * Groups 2i and 2i+1 are the low and high nibbles of bytes 32i … 32i+31; the fifth bit of code j
 * of group g is bit g of byte j. */
static void decode_k45(const uint8_t *b, bool five, float *out) {
    float d = load_f16(b), dmin = load_f16(b + 2);
    const uint8_t *high = b + 16, *qs = five ? b + 48 : b + 16;
    for (int g = 0; g < 8; g++) {
        int scale, min;
        k_scale_min(b + 4, g, &scale, &min);
        float group_scale = d * (float)scale, group_min = dmin * (float)min;
        for (int j = 0; j < 32; j++) {
            int byte = qs[g / 2 * 32 + j], code = g & 1 ? byte >> 4 : byte & 15;
            if (five)
                code |= (high[j] >> g & 1) << 4;
            out[g * 32 + j] = group_scale * (float)code - group_min;
        }
    }
}

static void decode_q4_k(const uint8_t *b, float *out) {
    decode_k45(b, false, out);
}

static void decode_q5_k(const uint8_t *b, float *out) {
    decode_k45(b, true, out);
}

/* 128 bytes of low nibbles | 64 bytes of high bit pairs | 16 scales i8 | d f16. Each half of the
 * block has 4 runs of 32 codes: runs 0 and 1 are the low nibbles of its first and second 32 bytes,
 * runs 2 and 3 the high nibbles; run r's top bits are bits 2r and 2r+1 of its 32 bytes of pairs. */
static void decode_q6_k(const uint8_t *b, float *out) {
    const int8_t *scales = (const int8_t *)(b + 192);
    float d = load_f16(b + 208);
    for (int e = 0; e < 256; e++) {
        int half = e / 128, run = e / 32 % 4, j = e % 32;
        int byte = b[half * 64 + run % 2 * 32 + j];
        int low = run < 2 ? byte & 15 : byte >> 4;
        int code = low | (b[128 + half * 32 + j] >> (2 * run) & 3) << 4;
        out[e] = d * (float)scales[e / 16] * (float)(code - 32);
    }
}

/* d f32 | 32 codes e4m3 */
static void decode_fp8_e4m3(const uint8_t *b, float *out) {
    float d = float_from_bits(load_u32(b));
    for (int j = 0; j < 32; j++)
        out[j] = d * ir_f8_to_f32(b[4 + j], IR_F8E4M3);
}

/* a8 or a8_e4m3 */
static void decode_activations(ir_code_kind code, const uint8_t *row, int64_t k, float *out) {
    for (int64_t i = 0; i < k; i++) {
        float scale;
        memcpy(&scale, row + k + i / 32 * 4, sizeof scale);
        out[i] =
            scale * (code == IR_CODE_INT ? (float)(int8_t)row[i] : ir_f8_to_f32(row[i], IR_F8E4M3));
    }
}

typedef void decode_block(const uint8_t *block, float *out);

static decode_block *const block_decoders[IR_N_ENCODINGS] = {
    [IR_ENC_Q4_0] = decode_q4_0, [IR_ENC_Q4_1] = decode_q4_1, [IR_ENC_Q5_0] = decode_q5_0,
    [IR_ENC_Q5_1] = decode_q5_1, [IR_ENC_Q8_0] = decode_q8_0, [IR_ENC_Q4_K] = decode_q4_k,
    [IR_ENC_Q5_K] = decode_q5_k, [IR_ENC_Q6_K] = decode_q6_k, [IR_ENC_FP8_E4M3] = decode_fp8_e4m3,
};

void ir_encoding_decode_row(const ir_encoding *encoding, const void *row, int64_t k, float *out) {
    if (ir_encoding_of_activations(encoding)) {
        decode_activations(encoding->code, row, k, out);
        return;
    }
    decode_block *decode = block_decoders[encoding->id];
    assert(decode && k % encoding->block == 0);
    const uint8_t *block = row;
    for (int64_t i = 0; i < k; i += encoding->block, block += encoding->block_bytes)
        decode(block, out + i);
}

/* --- encoding ----------------------------------------------------------------------------------
 */

static int clamp_int(int v, int low, int high) {
    return v < low ? low : v > high ? high : v;
}

/* max|x|; an infinity or NaN gives infinity. */
static float largest_magnitude(const float *x, int n) {
    float max = 0;
    for (int i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        if (!(a < INFINITY))
            return INFINITY;
        if (a > max)
            max = a;
    }
    return max;
}

/* Codes are rounded with the scale as stored, so the f16 rounding of the scale costs nothing more.
 * False where the scale does not fit f16. */
static bool encode_q8_0(const float *x, uint8_t *b) {
    uint16_t scale = ir_f32_to_f16(largest_magnitude(x, 32) / 127);
    float d = ir_f16_to_f32(scale);
    if (!(d < INFINITY))
        return false;
    store_u16(b, scale);
    for (int j = 0; j < 32; j++)
        b[2 + j] = (uint8_t)(int8_t)(d > 0 ? clamp_int((int)rintf(x[j] / d), -127, 127) : 0);
    return true;
}

static bool encode_q4_1(const float *x, uint8_t *b) {
    float min = x[0], max = x[0];
    if (!(largest_magnitude(x, 32) < INFINITY))
        return false;
    for (int j = 1; j < 32; j++) {
        min = x[j] < min ? x[j] : min;
        max = x[j] > max ? x[j] : max;
    }
    uint16_t scale = ir_f32_to_f16((max - min) / 15), offset = ir_f32_to_f16(min);
    float d = ir_f16_to_f32(scale), m = ir_f16_to_f32(offset);
    if (!(d < INFINITY && fabsf(m) < INFINITY))
        return false;
    store_u16(b, scale);
    store_u16(b + 2, offset);
    memset(b + 4, 0, 16);
    for (int j = 0; j < 32; j++) {
        /* clamped as a float: a tiny d can make the quotient large where m was rounded */
        float q = d > 0 ? rintf((x[j] - m) / d) : 0;
        int code = q < 0 ? 0 : q > 15 ? 15 : (int)q;
        b[4 + j % 16] |= (uint8_t)(j < 16 ? code : code << 4);
    }
    return true;
}

/* The largest number becomes 448, the largest code. Scales below 2^-100 are none: quotients by them
 * would lose what a denormal scale has lost. */
static bool encode_fp8_e4m3(const float *x, uint8_t *b) {
    float max = largest_magnitude(x, 32), d = max / 448 < 0x1p-100f ? 0 : max / 448;
    if (!(max < INFINITY))
        return false;
    uint32_t bits = bits_from_float(d);
    store_u16(b, (uint16_t)bits);
    store_u16(b + 2, (uint16_t)(bits >> 16));
    for (int j = 0; j < 32; j++)
        b[4 + j] = ir_f32_to_f8(d > 0 ? x[j] / d : 0, IR_F8E4M3);
    return true;
}

/* See QUANTIZE in ops.def, which states these operations exactly. */
/* Rounds a group to L levels on each side; returns the error that ops.def defines. */
static float round_a8(const float *x, float inverse, float levels, int8_t *codes) {
    float p[16];
    inverse *= levels / 127;
    for (int i = 0; i < 32; i++) {
        float y = x[i] * inverse, code = rintf(y), d = y - code, square = d * d;
        codes[i] = (int8_t)clamp_int((int)code, -127, 127);
        p[i % 16] = i < 16 ? square : p[i % 16] + square;
    }
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++)
            p[i] += p[i + n];
    return p[0] * ((127 / levels) * (127 / levels));
}

static bool encode_a8(const float *x, int64_t k, uint8_t *row) {
    uint8_t *scales = row + k, *scaled_sums = scales + k / 32 * 4, *sums = scaled_sums + k / 32 * 4;
    for (int64_t g = 0; g < k / 32; g++) {
        float max = largest_magnitude(x + g * 32, 32);
        if (!(max < INFINITY))
            return false;
        float inverse = max < 0x1p-100f ? 0 : 127 / max, least = INFINITY, scale = 0;
        int32_t half_sums[2] = {0, 0};
        int8_t *best = (int8_t *)row + g * 32;
        for (float levels = 127; levels >= 124; levels--) {
            int8_t codes[32];
            float error = round_a8(x + g * 32, inverse, levels, codes);
            if (error < least) {
                least = error;
                scale = max / levels;
                memcpy(best, codes, sizeof codes);
            }
        }
        for (int j = 0; j < 32; j++)
            half_sums[j / 16] += best[j];
        float scaled_sum = scale * (float)(half_sums[0] + half_sums[1]);
        memcpy(scales + g * 4, &scale, 4);
        memcpy(scaled_sums + g * 4, &scaled_sum, 4);
        memcpy(sums + g * 8, half_sums, 8);
    }
    return true;
}

static bool encode_a8_e4m3(const float *x, int64_t k, uint8_t *row) {
    memset(row + k, 0, (size_t)(ir_encoding_row_bytes(ir_encoding_get(IR_ENC_A8_E4M3), k) - k));
    for (int64_t g = 0; g < k / 32; g++) {
        float max = largest_magnitude(x + g * 32, 32);
        if (!(max < INFINITY))
            return false;
        float inverse = max < 0x1p-100f ? 0 : 448 / max, scale = max / 448;
        for (int64_t i = g * 32; i < g * 32 + 32; i++)
            row[i] = ir_f32_to_f8(x[i] * inverse, IR_F8E4M3);
        memcpy(row + k + g * 4, &scale, 4);
    }
    return true;
}

bool ir_encoding_encode_row(const ir_encoding *encoding, const float *x, int64_t k, void *row) {
    assert(k % 32 == 0);
    uint8_t *b = row;
    switch (encoding->id) {
    case IR_ENC_A8:
        return encode_a8(x, k, b);
    case IR_ENC_A8_E4M3:
        return encode_a8_e4m3(x, k, b);
    case IR_ENC_Q8_0:
    case IR_ENC_Q4_1:
    case IR_ENC_FP8_E4M3:
        for (int64_t i = 0; i < k; i += 32, b += encoding->block_bytes)
            if (!(encoding->id == IR_ENC_Q8_0   ? encode_q8_0(x + i, b)
                  : encoding->id == IR_ENC_Q4_1 ? encode_q4_1(x + i, b)
                                                : encode_fp8_e4m3(x + i, b)))
                return false;
        return true;
    default:
        return false;
    }
}

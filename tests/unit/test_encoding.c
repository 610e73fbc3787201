/* Narrow floats against the compiler's own conversions, and quantized rows against blocks whose
 * values are worked out by hand and against blocks that the gguf package decoded. */
#include "check_main.h"
#include "ir/ir.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint32_t bits_of(float f) {
    uint32_t b;
    memcpy(&b, &f, 4);
    return b;
}

static float float_of(uint32_t b) {
    float f;
    memcpy(&f, &b, 4);
    return f;
}

static uint64_t random_state = 1;

static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

/* --- narrow floats -----------------------------------------------------------------------------
 */

/* Every one of the 65,536 halves, both ways. */
START_TEST(f16_to_f32_is_exact) {
    for (uint32_t h = 0; h < 65536; h++) {
        _Float16 half;
        uint16_t bits = (uint16_t)h;
        memcpy(&half, &bits, 2);
        float expected = (float)half, got = ir_f16_to_f32(bits);
        if (isnan(expected)) {
            ck_assert(isnan(got));
            ck_assert(isnan(ir_f16_to_f32(ir_f32_to_f16(got))));
        } else {
            ck_assert_msg(bits_of(got) == bits_of(expected), "half %04x: %a, not %a", h, got,
                          expected);
            ck_assert_int_eq(ir_f32_to_f16(got), h);
        }
    }
}
END_TEST

static void check_f32_to_f16(float f) {
    _Float16 half = (_Float16)f;
    uint16_t expected, got = ir_f32_to_f16(f);
    memcpy(&expected, &half, 2);
    /* ck_assert records each success, which is slow for millions of cases */
    if (isnan(f) ? (got & 0x7fff) <= 0x7c00 : got != expected)
        ck_abort_msg("%a gave %04x, not %04x", f, got, expected);
}

/* Each half, the midpoint to its neighbour, and the floats right beside that midpoint: every case
 * in which rounding decides; then random bit patterns. */
START_TEST(f32_to_f16_rounds_to_nearest_even) {
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float low = ir_f16_to_f32((uint16_t)h);
        float high = h == 0x7bff ? 65536.0f : ir_f16_to_f32((uint16_t)(h + 1));
        float middle = (float)(((double)low + high) / 2);
        float cases[] = {low, nextafterf(low, INFINITY), nextafterf(middle, 0), middle,
                         nextafterf(middle, INFINITY)};
        for (int i = 0; i < 5; i++) {
            check_f32_to_f16(cases[i]);
            check_f32_to_f16(-cases[i]);
        }
    }
    for (int i = 0; i < 2000000; i++)
        check_f32_to_f16(float_of(random_u32()));
    check_f32_to_f16(INFINITY);
    check_f32_to_f16(-INFINITY);
    check_f32_to_f16(NAN);
    check_f32_to_f16(float_of(1));
}
END_TEST

START_TEST(bf16_rounds_to_nearest_even) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = ir_bf16_to_f32((uint16_t)h);
        ck_assert_uint_eq(bits_of(f), h << 16);
        if (isnan(f))
            ck_assert(isnan(ir_bf16_to_f32(ir_f32_to_bf16(f))));
        else
            ck_assert_uint_eq(ir_f32_to_bf16(f), h);
    }
    ck_assert_uint_eq(ir_f32_to_bf16(float_of(0x3f808000)), 0x3f80); /* tie, to even: down */
    ck_assert_uint_eq(ir_f32_to_bf16(float_of(0x3f818000)), 0x3f82); /* tie, to even: up */
    ck_assert_uint_eq(ir_f32_to_bf16(float_of(0x3f808001)), 0x3f81);
    ck_assert_uint_eq(ir_f32_to_bf16(float_of(0x7f7fffff)), 0x7f80); /* past the largest */
    ck_assert(isnan(ir_bf16_to_f32(ir_f32_to_bf16(float_of(0x7f800001)))));
}
END_TEST

/* The code whose value is nearest to f, ties to the even code, by search over all codes. */
static uint8_t nearest_f8(float f, ir_dtype dtype) {
    uint8_t best = 0;
    double best_distance = INFINITY;
    for (int v = 0; v < 128; v++) {
        float value = ir_f8_to_f32((uint8_t)v, dtype);
        if (!isfinite(value))
            continue;
        double distance = fabs(fabs((double)f) - value);
        if (distance < best_distance || (distance == best_distance && v % 2 == 0)) {
            best = (uint8_t)v;
            best_distance = distance;
        }
    }
    return (uint8_t)(best | (signbit(f) ? 0x80 : 0));
}

START_TEST(f8_values_and_rounding) {
    ck_assert_float_eq(ir_f8_to_f32(0x7e, IR_F8E4M3), 448);
    ck_assert_float_eq(ir_f8_to_f32(0x01, IR_F8E4M3), 0x1p-9f);
    ck_assert_float_eq(ir_f8_to_f32(0x38, IR_F8E4M3), 1);
    ck_assert_float_eq(ir_f8_to_f32(0xbc, IR_F8E4M3), -1.5f);
    ck_assert(isnan(ir_f8_to_f32(0x7f, IR_F8E4M3)));
    ck_assert_float_eq(ir_f8_to_f32(0x7b, IR_F8E5M2), 57344);
    ck_assert_float_eq(ir_f8_to_f32(0x01, IR_F8E5M2), 0x1p-16f);
    ck_assert(isinf(ir_f8_to_f32(0xfc, IR_F8E5M2)));
    ck_assert(isnan(ir_f8_to_f32(0x7d, IR_F8E5M2)));
    ir_dtype dtypes[] = {IR_F8E4M3, IR_F8E5M2};
    for (int d = 0; d < 2; d++) {
        ir_dtype dtype = dtypes[d];
        for (int v = 0; v < 256; v++) {
            float f = ir_f8_to_f32((uint8_t)v, dtype);
            if (isfinite(f))
                ck_assert_uint_eq(ir_f32_to_f8(f, dtype), v);
        }
        for (int i = 0; i < 200000; i++) {
            /* exponents from 2^-20 to 2^19, and few mantissa bits so that ties occur */
            uint32_t r = random_u32();
            uint32_t mantissa = i % 2 ? r & 0x7fffff : r & 0x780000;
            float f = float_of((r & 0x80000000) | (107 + (r >> 23 & 0xff) % 40) << 23 | mantissa);
            if (ir_f32_to_f8(f, dtype) != nearest_f8(f, dtype))
                ck_abort_msg("%a in %s: %02x, not %02x", f, ir_dtype_name(dtype),
                             ir_f32_to_f8(f, dtype), nearest_f8(f, dtype));
        }
        ck_assert_uint_eq(ir_f32_to_f8(INFINITY, dtype), dtype == IR_F8E4M3 ? 0x7e : 0x7b);
        ck_assert_uint_eq(ir_f32_to_f8(-3e38f, dtype), dtype == IR_F8E4M3 ? 0xfe : 0xfb);
        ck_assert_uint_eq(ir_f32_to_f8(0x1p-130f, dtype), 0);
        ck_assert(isnan(ir_f8_to_f32(ir_f32_to_f8(NAN, dtype), dtype)));
    }
}
END_TEST

/* --- blocks ------------------------------------------------------------------------------------
 */

static void put_f16(uint8_t *p, float f) {
    uint16_t h = ir_f32_to_f16(f);
    memcpy(p, &h, 2);
}

START_TEST(table_is_consistent) {
    for (int i = 0; i < IR_N_ENCODINGS; i++) {
        const ir_encoding *e = ir_encoding_get((ir_encoding_id)i);
        ck_assert_int_eq(e->id, i);
        ck_assert_ptr_eq(ir_encoding_from_name(e->name), e);
        if (!ir_encoding_of_activations(e))
            ck_assert_int_eq(ir_encoding_row_bytes(e, 512), 512 / e->block * e->block_bytes);
    }
    ck_assert_ptr_null(ir_encoding_from_name("q9_9"));
    ck_assert_ptr_null(ir_encoding_get(IR_N_ENCODINGS));
    /* 64 codes, 2 scales, 2 scaled sums, 4 sums of 16 */
    ck_assert_int_eq(ir_encoding_row_bytes(ir_encoding_get(IR_ENC_A8), 64), 64 + 8 + 8 + 16);
}
END_TEST

START_TEST(decodes_nibble_blocks) {
    uint8_t b[24] = {0};
    float out[32];
    /* element 3 is the low nibble of byte 3, element 19 its high nibble */
    put_f16(b, 0.5f);
    b[2 + 3] = 0xf1;
    ir_encoding_decode_row(ir_encoding_get(IR_ENC_Q4_0), b, 32, out);
    ck_assert_float_eq(out[3], 0.5f * (1 - 8));
    ck_assert_float_eq(out[19], 0.5f * (15 - 8));
    ck_assert_float_eq(out[0], 0.5f * -8);

    memset(b, 0, sizeof b);
    put_f16(b, 0.25f);
    put_f16(b + 2, -3);
    b[4 + 15] = 0xa7;
    ir_encoding_decode_row(ir_encoding_get(IR_ENC_Q4_1), b, 32, out);
    ck_assert_float_eq(out[15], 0.25f * 7 - 3);
    ck_assert_float_eq(out[31], 0.25f * 10 - 3);
    ck_assert_float_eq(out[1], -3);

    /* fifth bits: bit j belongs to element j */
    memset(b, 0, sizeof b);
    put_f16(b, 2);
    b[2 + 2] = 0x02; /* bit 17 */
    b[2] = 0x04;     /* bit 2 */
    b[6 + 1] = 0x50;
    b[6 + 2] = 0x03;
    ir_encoding_decode_row(ir_encoding_get(IR_ENC_Q5_0), b, 32, out);
    ck_assert_float_eq(out[17], 2 * (5 + 16 - 16));
    ck_assert_float_eq(out[2], 2 * (3 + 16 - 16));
    ck_assert_float_eq(out[18], 2 * (0 - 16));

    memset(b, 0, sizeof b);
    put_f16(b, 2);
    put_f16(b + 2, 1);
    b[4 + 3] = 0x80; /* bit 31 */
    b[8 + 15] = 0x9c;
    ir_encoding_decode_row(ir_encoding_get(IR_ENC_Q5_1), b, 32, out);
    ck_assert_float_eq(out[31], 2 * (9 + 16) + 1);
    ck_assert_float_eq(out[15], 2 * 12 + 1);
    ck_assert_float_eq(out[0], 1);

    uint8_t q8[34] = {0};
    put_f16(q8, 0.125f);
    q8[2 + 31] = (uint8_t)-128;
    q8[2] = 127;
    ir_encoding_decode_row(ir_encoding_get(IR_ENC_Q8_0), q8, 32, out);
    ck_assert_float_eq(out[31], -16);
    ck_assert_float_eq(out[0], 127 * 0.125f);
}
END_TEST

/* A block of fp8: its f32 scale, then codes s eeee mmm with bias 7 (OCP's specification). */
START_TEST(decodes_fp8_blocks) {
    uint8_t b[36] = {0};
    float out[32], scale = 0.0123456789f;
    memcpy(b, &scale, 4);
    for (int first = 0; first < 256; first += 32) {
        for (int j = 0; j < 32; j++)
            b[4 + j] = (uint8_t)(first + j);
        ir_encoding_decode_row(ir_encoding_get(IR_ENC_FP8_E4M3), b, 32, out);
        for (int j = 0; j < 32; j++) {
            int code = first + j, exponent = code >> 3 & 15;
            double value =
                exponent ? (1 + (code & 7) / 8.0) * pow(2, exponent - 7) : (code & 7) * pow(2, -9);
            if ((code & 127) != 127)
                ck_assert_float_eq(out[j], scale * (float)(code & 128 ? -value : value));
        }
    }
}
END_TEST

START_TEST(decodes_super_blocks) {
    float out[256];
    uint8_t k4[144] = {0}, k5[176] = {0}, k6[210] = {0};
    put_f16(k4, 0.5f);
    put_f16(k4 + 2, 0.25f);
    uint8_t *scales = k4 + 4;
    scales[1] = 9;               /* scale of group 1 */
    scales[5] = 7;               /* minimum of group 1 */
    scales[2] = 0x80 | 3;        /* scale of group 2 is 3; group 6's scale has 2 << 4 */
    scales[6] = 0x40 | 1;        /* minimum of group 2 is 1; group 6's has 1 << 4 */
    scales[10] = 0x5a;           /* group 6: scale 10 | 32, minimum 5 | 16 */
    k4[16 + 4] = 0xb0;           /* group 1, element 4: 11 */
    k4[16 + 3 * 32 + 31] = 0x06; /* group 6, element 31: 6 */
    k4[16 + 1 * 32 + 0] = 0x0f;  /* group 2, element 0: 15 */
    ir_encoding_decode_row(ir_encoding_get(IR_ENC_Q4_K), k4, 256, out);
    ck_assert_float_eq(out[32 + 4], 0.5f * 9 * 11 - 0.25f * 7);
    ck_assert_float_eq(out[6 * 32 + 31], 0.5f * 42 * 6 - 0.25f * 21);
    ck_assert_float_eq(out[2 * 32], 0.5f * 3 * 15 - 0.25f * 1);
    ck_assert_float_eq(out[0], 0);

    memcpy(k5, k4, 16);
    memcpy(k5 + 48, k4 + 16, 128);
    k5[16 + 31] = 1 << 6; /* fifth bit of element 31 of group 6 */
    ir_encoding_decode_row(ir_encoding_get(IR_ENC_Q5_K), k5, 256, out);
    ck_assert_float_eq(out[6 * 32 + 31], 0.5f * 42 * (6 + 16) - 0.25f * 21);
    ck_assert_float_eq(out[32 + 4], 0.5f * 9 * 11 - 0.25f * 7);

    put_f16(k6 + 208, 0.5f);
    for (int i = 0; i < 16; i++)
        k6[192 + i] = (uint8_t)(int8_t)(i - 8);
    k6[64 + 32 + 5] = 0xd0;    /* second half, run 3, element 5: low bits 13 */
    k6[128 + 32 + 5] = 2 << 6; /* its top bits: 2 */
    ir_encoding_decode_row(ir_encoding_get(IR_ENC_Q6_K), k6, 256, out);
    int e = 128 + 3 * 32 + 5;
    ck_assert_float_eq(out[e], 0.5f * (float)(e / 16 - 8) * (13 + 32 - 32));
    ck_assert_float_eq(out[0], 0.5f * -8 * -32);
    ck_assert_float_eq(out[255], 0.5f * 7 * -32);
}
END_TEST

/* --- blocks decoded by the gguf package (tests/golden) -----------------------------------------
 */

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "cannot open %s", path);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*size + 1);
    ck_assert_uint_eq(fread(data, 1, *size, file), *size);
    data[*size] = 0;
    fclose(file);
    return data;
}

static size_t json_size(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItem(object, key);
    ck_assert(cJSON_IsNumber(item));
    return (size_t)item->valuedouble;
}

/* Random and extreme blocks of every type, to the last bit. */
START_TEST(decodes_as_gguf_does) {
    size_t json_bytes, size;
    char *json = (char *)read_file(MCC_TEST_DATA "/golden/quant_blocks.json", &json_bytes);
    uint8_t *data = read_file(MCC_TEST_DATA "/golden/quant_blocks.bin", &size);
    cJSON *root = cJSON_Parse(json);
    const cJSON *types = cJSON_GetObjectItem(root, "types"), *type;
    int seen = 0;
    cJSON_ArrayForEach(type, types) {
        char name[8] = {0};
        const char *given = cJSON_GetStringValue(cJSON_GetObjectItem(type, "name"));
        for (size_t i = 0; i < sizeof name - 1 && given[i]; i++)
            name[i] = (char)tolower((unsigned char)given[i]);
        const ir_encoding *e = ir_encoding_from_name(name);
        ck_assert_msg(e != NULL, "no encoding %s", name);
        ck_assert_uint_eq((size_t)e->block, json_size(type, "block_elements"));
        ck_assert_uint_eq((size_t)e->block_bytes, json_size(type, "block_bytes"));
        size_t k = json_size(type, "blocks") * (size_t)e->block;
        size_t raw = json_size(type, "raw_offset"), values = json_size(type, "values_offset");
        ck_assert(values + k * 4 <= size);
        float *out = malloc(k * sizeof *out);
        ir_encoding_decode_row(e, data + raw, (int64_t)k, out);
        for (size_t i = 0; i < k; i++) {
            float expected;
            memcpy(&expected, data + values + i * 4, 4);
            ck_assert_msg(bits_of(out[i]) == bits_of(expected), "%s element %zu: %a, not %a", name,
                          i, out[i], expected);
        }
        free(out);
        seen++;
    }
    ck_assert_int_eq(seen, IR_N_ENCODINGS - 3); /* all but a8, a8_e4m3 and fp8_e4m3 */
    cJSON_Delete(root);
    free(json);
    free(data);
}
END_TEST

/* --- encoding ----------------------------------------------------------------------------------
 */

static void random_row(float *x, int n, float scale) {
    for (int i = 0; i < n; i++)
        x[i] = scale * ((float)random_u32() / 2147483648.0f - 1);
}

START_TEST(encode_is_nearest) {
    float x[64], y[64];
    uint8_t row[256];
    for (int round = 0; round < 200; round++) {
        random_row(x, 64, powf(2, (float)(round % 20) - 10));
        const ir_encoding_id ids[] = {IR_ENC_Q8_0, IR_ENC_Q4_1, IR_ENC_A8};
        for (int i = 0; i < 3; i++) {
            const ir_encoding *e = ir_encoding_get(ids[i]);
            ck_assert(ir_encoding_encode_row(e, x, 64, row));
            ir_encoding_decode_row(e, row, 64, y);
            for (int g = 0; g < 2; g++) {
                float max = -INFINITY, min = INFINITY;
                for (int j = 0; j < 32; j++) {
                    max = fmaxf(max, x[g * 32 + j]);
                    min = fminf(min, x[g * 32 + j]);
                }
                float range = fmaxf(max, -min);
                /* half a code, and what the f16 rounding of scale and offset moves the ends */
                float step = ids[i] == IR_ENC_Q4_1 ? (max - min) / 15
                             : ids[i] == IR_ENC_A8 ? range / 124
                                                   : range / 127;
                double error = 0, plain = 0; /* squared: as encoded, with 127 levels */
                float slack = ids[i] == IR_ENC_A8 ? 1e-6f * range : 2e-3f * range;
                for (int j = 0; j < 32; j++)
                    ck_assert_msg(fabsf(x[g * 32 + j] - y[g * 32 + j]) <= step * 0.5f + slack,
                                  "%s: %g became %g", e->name, x[g * 32 + j], y[g * 32 + j]);
                for (int j = 0; j < 32; j++) {
                    double v = x[g * 32 + j], nearest = range / 127.0 * rint(v * 127 / range);
                    error += (v - y[g * 32 + j]) * (v - y[g * 32 + j]);
                    plain += (v - nearest) * (v - nearest);
                }
                if (ids[i] == IR_ENC_A8)
                    ck_assert_msg(error <= plain * (1 + 1e-4), "a8 is not the best: %g, %g", error,
                                  plain);
            }
        }
    }
}
END_TEST

/* No code of the group is nearer to a number than the one it gets. */
START_TEST(encodes_to_the_nearest_fp8) {
    float x[32], y[32], code_value[32];
    uint8_t row[36], codes[36];
    float one = 1;
    memcpy(codes, &one, 4);
    for (int round = 0; round < 40; round++) {
        float scale, max = 0;
        random_row(x, 32, powf(2, (float)(round % 40) - 20));
        for (int i = 0; i < 8; i++) /* some small enough for the format's subnormals */
            x[i] *= powf(2, -(float)(8 + i % 4));
        for (int i = 0; i < 32; i++)
            max = fmaxf(max, fabsf(x[i]));
        ck_assert(ir_encoding_encode_row(ir_encoding_get(IR_ENC_FP8_E4M3), x, 32, row));
        memcpy(&scale, row, 4);
        ck_assert_float_eq(scale, max / 448);
        ir_encoding_decode_row(ir_encoding_get(IR_ENC_FP8_E4M3), row, 32, y);
        for (int first = 0; first < 256; first += 32) {
            for (int j = 0; j < 32; j++)
                codes[4 + j] = (uint8_t)(first + j);
            ir_encoding_decode_row(ir_encoding_get(IR_ENC_FP8_E4M3), codes, 32, code_value);
            for (int i = 0; i < 32; i++) {
                double error = fabs((double)x[i] - (double)y[i]) - 1e-6 * max;
                for (int j = 0; j < 32; j++)
                    if (fabs((double)x[i] - (double)scale * code_value[j]) < error)
                        ck_abort_msg("%g became %g, not %g", x[i], y[i], scale * code_value[j]);
            }
        }
    }
}
END_TEST

/* Codes, then scales, then zeros; the scales are those of a weight of the same numbers, and codes
 * as near as its codes. */
START_TEST(a8_e4m3_rows) {
    enum { K = 5 * 32 };
    const ir_encoding *a8 = ir_encoding_get(IR_ENC_A8_E4M3),
                      *fp8 = ir_encoding_get(IR_ENC_FP8_E4M3);
    float x[K], y[K], z[K];
    uint8_t row[K + 32], weight[K / 32 * 36];
    int same = 0, n = 0;
    ck_assert_int_eq(ir_encoding_row_bytes(a8, K), K + 32);
    for (int round = 0; round < 20; round++) {
        random_row(x, K, powf(2, (float)(3 * round) - 30));
        ck_assert(ir_encoding_encode_row(a8, x, K, row));
        ck_assert(ir_encoding_encode_row(fp8, x, K, weight));
        ir_encoding_decode_row(a8, row, K, y);
        ir_encoding_decode_row(fp8, weight, K, z);
        for (int i = 0; i < K; i++, n++) {
            float scale;
            memcpy(&scale, row + K + i / 32 * 4, 4);
            ck_assert_mem_eq(&scale, weight + i / 32 * 36, 4);
            ck_assert_float_eq(y[i], scale * ir_f8_to_f32(row[i], IR_F8E4M3));
            same += row[i] == weight[i / 32 * 36 + 4 + i % 32];
            double error = fabs((double)x[i] - (double)y[i]),
                   other = fabs((double)x[i] - (double)z[i]);
            ck_assert_double_le(fabs(error - other), 1e-6 * fabs((double)x[i]));
        }
        for (int i = K + K / 8; i < K + 32; i++)
            ck_assert_int_eq(row[i], 0);
    }
    ck_assert_int_ge(same, n - n / 100);
    x[3] = NAN;
    ck_assert(!ir_encoding_encode_row(a8, x, K, row));
}
END_TEST

/* Which activations go beside which weights. */
START_TEST(pairs_of_encodings) {
    for (int x = 0; x < IR_N_ENCODINGS; x++)
        for (int w = 0; w < IR_N_ENCODINGS; w++) {
            bool of_x = x == IR_ENC_A8 || x == IR_ENC_A8_E4M3,
                 of_w = w != IR_ENC_A8 && w != IR_ENC_A8_E4M3,
                 kind = (x == IR_ENC_A8_E4M3) == (w == IR_ENC_FP8_E4M3);
            ck_assert_int_eq(ir_encodings_multiply(ir_encoding_get((ir_encoding_id)x),
                                                   ir_encoding_get((ir_encoding_id)w)),
                             of_x && of_w && kind);
        }
    ck_assert(!ir_encodings_multiply(ir_encoding_get(IR_ENC_A8), NULL));
}
END_TEST

START_TEST(a8_row_holds_sums) {
    float x[64], scale, scaled_sum;
    uint8_t row[96];
    random_row(x, 64, 3);
    x[40] = 5; /* the largest of the second group: its code is the number of levels */
    ck_assert(ir_encoding_encode_row(ir_encoding_get(IR_ENC_A8), x, 64, row));
    int levels = (int8_t)row[40];
    ck_assert(levels >= 124 && levels <= 127);
    memcpy(&scale, row + 64 + 4, 4);
    ck_assert_float_eq(scale, 5.0f / (float)levels);
    int total = 0;
    for (int half = 0; half < 4; half++) {
        int sum = 0;
        int32_t stored;
        for (int j = 0; j < 16; j++) {
            int i = half * 16 + j;
            if (half >= 2)
                ck_assert_int_eq((int8_t)row[i], (int)rintf(x[i] * ((float)levels / 5.0f)));
            sum += (int8_t)row[i];
        }
        memcpy(&stored, row + 64 + 8 + 8 + half * 4, 4);
        ck_assert_int_eq(stored, sum);
        total += half >= 2 ? sum : 0;
    }
    memcpy(&scaled_sum, row + 64 + 8 + 4, 4);
    ck_assert_float_eq(scaled_sum, scale * (float)total);
}
END_TEST

START_TEST(encode_edges) {
    float x[32] = {0}, y[32];
    uint8_t row[64];
    const ir_encoding_id ids[] = {IR_ENC_Q8_0, IR_ENC_Q4_1, IR_ENC_A8, IR_ENC_FP8_E4M3,
                                  IR_ENC_A8_E4M3};
    for (int i = 0; i < 5; i++) {
        const ir_encoding *e = ir_encoding_get(ids[i]);
        memset(x, 0, sizeof x);
        ck_assert(ir_encoding_encode_row(e, x, 32, row));
        ir_encoding_decode_row(e, row, 32, y);
        for (int j = 0; j < 32; j++)
            ck_assert_float_eq(y[j], 0);
        x[7] = 1e-42f; /* too small to scale: becomes zero, no division by it */
        ck_assert(ir_encoding_encode_row(e, x, 32, row));
        ir_encoding_decode_row(e, row, 32, y);
        ck_assert_float_eq(y[7], 0);
        x[7] = NAN;
        ck_assert(!ir_encoding_encode_row(e, x, 32, row));
        x[7] = -INFINITY;
        ck_assert(!ir_encoding_encode_row(e, x, 32, row));
        x[7] = 3e38f;
        ck_assert_int_eq(ir_encoding_encode_row(e, x, 32, row), e->scale == IR_F32);
    }
    ck_assert(!ir_encoding_encode_row(ir_encoding_get(IR_ENC_Q6_K), x, 32, row));
}
END_TEST

static Suite *encoding_suite(void) {
    Suite *suite = suite_create("encoding");
    TCase *floats = tcase_create("floats"), *blocks = tcase_create("blocks");
    tcase_add_test(floats, f16_to_f32_is_exact);
    tcase_add_test(floats, f32_to_f16_rounds_to_nearest_even);
    tcase_add_test(floats, bf16_rounds_to_nearest_even);
    tcase_add_test(floats, f8_values_and_rounding);
    tcase_set_timeout(floats, 60);
    tcase_set_timeout(blocks, 60);
    tcase_add_test(blocks, table_is_consistent);
    tcase_add_test(blocks, decodes_nibble_blocks);
    tcase_add_test(blocks, decodes_fp8_blocks);
    tcase_add_test(blocks, decodes_super_blocks);
    tcase_add_test(blocks, decodes_as_gguf_does);
    tcase_add_test(blocks, encode_is_nearest);
    tcase_add_test(blocks, encodes_to_the_nearest_fp8);
    tcase_add_test(blocks, a8_row_holds_sums);
    tcase_add_test(blocks, a8_e4m3_rows);
    tcase_add_test(blocks, pairs_of_encodings);
    tcase_add_test(blocks, encode_edges);
    suite_add_tcase(suite, floats);
    suite_add_tcase(suite, blocks);
    return suite;
}

CHECK_MAIN(encoding_suite)

/* Tensor-core instructions: fragments are gathered into small matrices, multiplied by one loop that
 * the compiler vectorizes over the 8 columns, and given back.
 *
 * A register row of A or B, in lane order, is 8 matrix rows of 16 bytes: lane 4 g + t holds bytes
 * 4 t … 4 t + 3 of row g. That holds for every element width, so gathering is a copy.
 *
 * This file is compiled with contraction allowed: every product of two operands is exact in its
 * working type (double for floating point, float for integers of up to 8 bits), so that fused and
 * separate multiply-adds give the same bits. */
#include "runtime/emulator/tensor.h"

#include "runtime/emulator/lanes_float.h"
#include "runtime/emulator/simd.h"

#include <math.h>

enum { ROWS = 16, COLUMNS = 8, MAX_K = 64, MAX_ROW_BYTES = 32 };

/* Operands as bytes: rows of k elements. `b` holds columns. */
typedef struct raw_operands {
    uint8_t a[ROWS][MAX_ROW_BYTES];
    uint8_t b[COLUMNS][MAX_ROW_BYTES];
} raw_operands;

static int type_bits(int type) {
    switch (type) {
    case EMU_MMA_F16:
    case EMU_MMA_BF16:
        return 16;
    case EMU_MMA_TF32:
        return 32;
    case EMU_MMA_E4M3:
    case EMU_MMA_E5M2:
    case EMU_MMA_S8:
    case EMU_MMA_U8:
        return 8;
    case EMU_MMA_S4:
    case EMU_MMA_U4:
        return 4;
    default:
        return 0;
    }
}

static bool is_fp8(int type) {
    return type == EMU_MMA_E4M3 || type == EMU_MMA_E5M2;
}
static bool is_int8(int type) {
    return type == EMU_MMA_S8 || type == EMU_MMA_U8;
}
static bool is_int4(int type) {
    return type == EMU_MMA_S4 || type == EMU_MMA_U4;
}

bool emu_mma_registers(const emu_mma_op *op, int *n_a, int *n_b, int *n_cd) {
    bool known = false;
    int a = op->a, b = op->b, k = op->k, acc = op->acc;
    if (a == EMU_MMA_F16 && b == a)
        known = (k == 8 || k == 16) && (acc == EMU_MMA_F32 || acc == EMU_MMA_F16);
    else if (a == EMU_MMA_BF16 && b == a)
        known = (k == 8 || k == 16) && acc == EMU_MMA_F32;
    else if (a == EMU_MMA_TF32 && b == a)
        known = (k == 4 || k == 8) && acc == EMU_MMA_F32;
    else if (is_fp8(a) && is_fp8(b))
        known = (k == 16 || k == 32) && (acc == EMU_MMA_F32 || acc == EMU_MMA_F16);
    else if (is_int8(a) && is_int8(b))
        known = (k == 16 || k == 32) && acc == EMU_MMA_S32;
    else if (is_int4(a) && is_int4(b))
        known = (k == 32 || k == 64) && acc == EMU_MMA_S32;
    if (!known || (op->satfinite && acc != EMU_MMA_S32))
        return false;
    int row_words = k * type_bits(a) / 32;
    *n_a = row_words / 2;
    *n_b = row_words / 4;
    *n_cd = acc == EMU_MMA_F16 ? 2 : 4;
    return true;
}

static void gather(int row_bytes, const uint32_t *const a[], const uint32_t *const b[],
                   raw_operands *raw) {
    for (int step = 0; step < row_bytes / 16; step++) {
        for (int g = 0; g < 8; g++) {
            memcpy(raw->a[g] + 16 * step, a[2 * step] + 4 * g, 16);
            memcpy(raw->a[g + 8] + 16 * step, a[2 * step + 1] + 4 * g, 16);
            memcpy(raw->b[g] + 16 * step, b[step] + 4 * g, 16);
        }
    }
}

/* One row of k elements as f32, which holds all of these types exactly. */
EMU_INLINE void row_to_float(int type, int k, const uint8_t row[MAX_ROW_BYTES], float out[MAX_K]) {
    uint16_t halves[MAX_ROW_BYTES / 2];
    uint32_t words[MAX_ROW_BYTES / 4];
    switch (type) {
    case EMU_MMA_F16:
        memcpy(halves, row, sizeof halves);
        for (int i = 0; i < k; i++)
            out[i] = emu_f16_to_float(halves[i]);
        break;
    case EMU_MMA_BF16:
        memcpy(halves, row, sizeof halves);
        for (int i = 0; i < k; i++)
            out[i] = emu_bf16_to_float(halves[i]);
        break;
    case EMU_MMA_TF32:
        memcpy(words, row, sizeof words);
        for (int i = 0; i < k; i++) {
            uint32_t kept = words[i] & 0xffffe000;
            bool nan = (words[i] & 0x7fffffff) > 0x7f800000; /* also when all kept bits are 0 */
            out[i] = emu_float_of(nan ? 0x7fffffff : kept);
        }
        break;
    case EMU_MMA_E4M3:
        for (int i = 0; i < k; i++)
            out[i] = emu_e4m3_to_float(row[i]);
        break;
    case EMU_MMA_E5M2:
        for (int i = 0; i < k; i++)
            out[i] = emu_e5m2_to_float(row[i]);
        break;
    case EMU_MMA_S8:
        for (int i = 0; i < k; i++)
            out[i] = (float)(int8_t)row[i];
        break;
    case EMU_MMA_U8:
        for (int i = 0; i < k; i++)
            out[i] = (float)row[i];
        break;
    case EMU_MMA_S4:
        for (int i = 0; i < k; i++)
            out[i] = (float)((int)((row[i / 2] >> i % 2 * 4 & 15) ^ 8) - 8);
        break;
    default: /* U4 */
        for (int i = 0; i < k; i++)
            out[i] = (float)(row[i / 2] >> i % 2 * 4 & 15);
        break;
    }
}

/* All of A, and B transposed to rows of its k dimension. */
typedef struct tiles {
    float a[ROWS][MAX_K];
    float b[MAX_K][COLUMNS];
} tiles;

EMU_INLINE void convert_tiles(int a_type, int b_type, int k, const raw_operands *raw, tiles *t) {
    float column[COLUMNS][MAX_K];
    for (int m = 0; m < ROWS; m++)
        row_to_float(a_type, k, raw->a[m], t->a[m]);
    for (int n = 0; n < COLUMNS; n++)
        row_to_float(b_type, k, raw->b[n], column[n]);
    for (int i = 0; i < k; i++) {
        for (int n = 0; n < COLUMNS; n++)
            t->b[i][n] = column[n][i];
    }
}

typedef double row_f64 __attribute__((vector_size(COLUMNS * sizeof(double))));
typedef float row_f32 __attribute__((vector_size(COLUMNS * sizeof(float))));

/* d += a b, each element's terms in order of k. Four rows at a time hide the latency of additions
 * and fit the registers of every build. */
EMU_INLINE void multiply_f64(int k, const tiles *t, double d[ROWS][COLUMNS]) {
    double b[MAX_K][COLUMNS];
    for (int i = 0; i < k; i++) {
        for (int n = 0; n < COLUMNS; n++)
            b[i][n] = t->b[i][n];
    }
    for (int m = 0; m < ROWS; m += 4) {
        row_f64 sum[4], row;
        memcpy(sum, d[m], sizeof sum);
        for (int i = 0; i < k; i++) {
            memcpy(&row, b[i], sizeof row);
            sum[0] += row * (double)t->a[m][i];
            sum[1] += row * (double)t->a[m + 1][i];
            sum[2] += row * (double)t->a[m + 2][i];
            sum[3] += row * (double)t->a[m + 3][i];
        }
        memcpy(d[m], sum, sizeof sum);
    }
}

EMU_INLINE void multiply_f32(int k, const tiles *t, float d[ROWS][COLUMNS]) {
    for (int m = 0; m < ROWS; m += 8) {
        row_f32 sum[8] = {{0}}, row;
        for (int i = 0; i < k; i++) {
            memcpy(&row, t->b[i], sizeof row);
            for (int j = 0; j < 8; j++)
                sum[j] += row * t->a[m + j][i];
        }
        memcpy(d[m], sum, sizeof sum);
    }
}

/* --- accumulators: lane 4 g + t holds columns 2 t and 2 t + 1 of row g, or of row g + 8 ---------
 */

EMU_INLINE void accumulators_to_f64(int acc, const uint32_t *const c[], double d[ROWS][COLUMNS]) {
    for (int half = 0; half < 2; half++) {
        double *out = d[8 * half]; /* 64 elements: lane by lane, two a lane */
        if (acc == EMU_MMA_F16) {
            for (int lane = 0; lane < 32; lane++) {
                out[2 * lane] = emu_f16_to_float(c[half][lane] & 0xffff);
                out[2 * lane + 1] = emu_f16_to_float(c[half][lane] >> 16);
            }
        } else {
            for (int lane = 0; lane < 32; lane++) {
                out[2 * lane] = emu_float_of(c[2 * half][lane]);
                out[2 * lane + 1] = emu_float_of(c[2 * half + 1][lane]);
            }
        }
    }
}

EMU_INLINE uint32_t bits_of_sum(double x) {
    float rounded = (float)x;
    return rounded != rounded ? 0x7fffffff : emu_bits_of(rounded);
}

EMU_INLINE void f64_to_accumulators(int acc, double d[ROWS][COLUMNS], uint32_t *const out[]) {
    for (int half = 0; half < 2; half++) {
        const double *in = d[8 * half];
        if (acc == EMU_MMA_F16) {
            for (int lane = 0; lane < 32; lane++) {
                uint32_t low = emu_round_f64(in[2 * lane], EMU_NUMBER_F16, EMU_RN, false);
                uint32_t high = emu_round_f64(in[2 * lane + 1], EMU_NUMBER_F16, EMU_RN, false);
                out[half][lane] = low | high << 16;
            }
        } else {
            for (int lane = 0; lane < 32; lane++) {
                out[2 * half][lane] = bits_of_sum(in[2 * lane]);
                out[2 * half + 1][lane] = bits_of_sum(in[2 * lane + 1]);
            }
        }
    }
}

/* --- the three ways to add ----------------------------------------------------------------------
 */

/* Written out for the types that matter, so that the conversion is not chosen in its loop. */
EMU_CLONES static void mma_exact(const emu_mma_op *op, const raw_operands *raw,
                                 const uint32_t *const c[], uint32_t *const d[]) {
    tiles t;
    double sums[ROWS][COLUMNS];
    if (op->a == EMU_MMA_F16 && op->k == 16)
        convert_tiles(EMU_MMA_F16, EMU_MMA_F16, 16, raw, &t);
    else if (op->a == EMU_MMA_BF16 && op->k == 16)
        convert_tiles(EMU_MMA_BF16, EMU_MMA_BF16, 16, raw, &t);
    else
        convert_tiles(op->a, op->b, op->k, raw, &t);
    accumulators_to_f64(op->acc, c, sums);
    multiply_f64(op->k, &t, sums);
    f64_to_accumulators(op->acc, sums, d);
}

EMU_CLONES static void mma_integer(const emu_mma_op *op, const raw_operands *raw,
                                   const uint32_t *const c[], uint32_t *const d[]) {
    tiles t;
    float sums[ROWS][COLUMNS]; /* exact: at most 64 terms below 2^16 */
    if (op->a == EMU_MMA_S8 && op->b == EMU_MMA_S8 && op->k == 32)
        convert_tiles(EMU_MMA_S8, EMU_MMA_S8, 32, raw, &t);
    else
        convert_tiles(op->a, op->b, op->k, raw, &t);
    multiply_f32(op->k, &t, sums);
    for (int half = 0; half < 2; half++) {
        const float *in = sums[8 * half];
        for (int odd = 0; odd < 2; odd++) {
            const uint32_t *from = c[2 * half + odd];
            uint32_t *to = d[2 * half + odd];
            if (op->satfinite) {
                for (int lane = 0; lane < 32; lane++) {
                    int64_t x = (int64_t)(int32_t)from[lane] + (int64_t)in[2 * lane + odd];
                    x = x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x;
                    to[lane] = (uint32_t)(int32_t)x;
                }
            } else {
                EMU_LANES for (int lane = 0; lane < 32; lane++) to[lane] =
                    from[lane] + (uint32_t)(int32_t)in[2 * lane + odd];
            }
        }
    }
}

/* The exponent that hardware gives a finite operand: subnormal numbers have the smallest one. */
static int operand_exponent(int type, double x) {
    int least = type == EMU_MMA_F16    ? -14
                : type == EMU_MMA_E4M3 ? -6
                : type == EMU_MMA_E5M2 ? -14
                                       : -126;
    int e = x == 0 ? least : ilogb(x);
    return e < least ? least : e;
}

/* c + a0 b0 + … of n terms in fixed point: multiples of 2^(e - bits), where e is the largest
 * exponent among the terms, cut toward zero. The sum is exact: n + 1 numbers below 2^(bits + 2). */
static double truncated_sum(const emu_mma_op *op, int bits, int n, const float *a,
                            const float (*b)[COLUMNS], int column, double c) {
    double plain = c;
    int largest = c == 0 ? INT32_MIN : operand_exponent(op->acc, c);
    for (int i = 0; i < n; i++) {
        double p = (double)a[i] * b[i][column];
        plain += p;
        if (p != 0 && isfinite(p)) {
            int e = operand_exponent(op->a, a[i]) + operand_exponent(op->b, b[i][column]);
            largest = e > largest ? e : largest;
        }
    }
    if (!isfinite(plain) || largest == INT32_MIN)
        return plain;
    int64_t sum = (int64_t)ldexp(c, bits - largest);
    for (int i = 0; i < n; i++)
        sum += (int64_t)ldexp((double)a[i] * b[i][column], bits - largest);
    double result = ldexp((double)sum, largest - bits);
    if (op->acc == EMU_MMA_F32)
        return emu_float_of(emu_round_f64(result, EMU_NUMBER_F32, EMU_RZ, false));
    return emu_f16_value((uint16_t)emu_round_f64(result, EMU_NUMBER_F16, EMU_RN, false));
}

static void mma_truncated(const emu_mma_op *op, int bits, const raw_operands *raw,
                          const uint32_t *const c[], uint32_t *const d[]) {
    tiles t;
    double sums[ROWS][COLUMNS];
    int step = (bits == 24 ? 16 : 32) * 8 / type_bits(op->a);
    convert_tiles(op->a, op->b, op->k, raw, &t);
    accumulators_to_f64(op->acc, c, sums);
    for (int m = 0; m < ROWS; m++) {
        for (int n = 0; n < COLUMNS; n++) {
            double sum = sums[m][n];
            for (int i = 0; i < op->k; i += step) {
                int terms = op->k - i < step ? op->k - i : step;
                sum = truncated_sum(op, bits, terms, t.a[m] + i, t.b + i, n, sum);
            }
            sums[m][n] = sum;
        }
    }
    f64_to_accumulators(op->acc, sums, d);
}

void emu_mma(const emu_mma_op *op, emu_mma_sum sum, const uint32_t *const a[],
             const uint32_t *const b[], const uint32_t *const c[], uint32_t *const d[]) {
    raw_operands raw;
    gather(op->k * type_bits(op->a) / 8, a, b, &raw);
    if (op->acc == EMU_MMA_S32)
        mma_integer(op, &raw, c, d);
    else if (sum == EMU_MMA_EXACT)
        mma_exact(op, &raw, c, d);
    else
        mma_truncated(op, sum == EMU_MMA_TRUNCATE_24 ? 24 : 25, &raw, c, d);
}

/* --- 8 x 8 matrices of 16-bit elements ----------------------------------------------------------
 */

/* The fragment of the transpose: lane 4 g + t holds elements (2 t, g) and (2 t + 1, g). */
static void transpose_b16(const uint16_t from[8][8], uint32_t to[32]) {
    for (int g = 0; g < 8; g++) {
        for (int t = 0; t < 4; t++)
            to[4 * g + t] = (uint32_t)from[2 * t][g] | (uint32_t)from[2 * t + 1][g] << 16;
    }
}

void emu_ldmatrix(int count, bool trans, const uint8_t *const rows[32], uint32_t *const d[]) {
    for (int j = 0; j < count; j++) {
        uint16_t matrix[8][8];
        for (int i = 0; i < 8; i++)
            memcpy(trans ? (void *)matrix[i] : (void *)(d[j] + 4 * i), rows[8 * j + i], 16);
        if (trans)
            transpose_b16((const uint16_t(*)[8])matrix, d[j]);
    }
}

void emu_stmatrix(int count, bool trans, const uint32_t *const s[], uint8_t *const rows[32]) {
    for (int j = 0; j < count; j++) {
        uint32_t words[32];
        if (trans) {
            uint16_t matrix[8][8];
            memcpy(matrix, s[j], sizeof matrix);
            transpose_b16((const uint16_t(*)[8])matrix, words);
        } else {
            memcpy(words, s[j], sizeof words);
        }
        for (int i = 0; i < 8; i++)
            memcpy(rows[8 * j + i], words + 4 * i, 16);
    }
}

void emu_movmatrix(const uint32_t a[32], uint32_t d[32]) {
    uint16_t matrix[8][8];
    memcpy(matrix, a, sizeof matrix);
    transpose_b16((const uint16_t(*)[8])matrix, d);
}
